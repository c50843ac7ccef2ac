"""A network of its own for an ensemble: a namespace for each server, a bridge between them, and cuts in one direction or both.

All of it lives in a network namespace (and a mount namespace, for small disks) that the test process enters: it ends with the processes
in it. Cuts are rules of nftables, slow links are queues of `tc`.
"""
import contextlib
import ctypes
import os
import pathlib
import subprocess
import threading

from members import LIBC, die_with_parent

CLONE_NEWNS, CLONE_NEWNET = 0x00020000, 0x40000000
MS_REC, MS_PRIVATE = 0x4000, 0x40000
TABLE = "table inet cut {\nchain in {\ntype filter hook input priority 0;\n}\n}\n"
PATH = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"


def run(*command, text=None):
    done = subprocess.run(command, input=text, capture_output=True, text=True, env={**os.environ, "PATH": PATH})
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr.strip()}")


def is_possible():
    return os.geteuid() == 0


@contextlib.contextmanager
def own_namespaces():
    """The calling thread, and what it starts, is in namespaces of its own meanwhile."""
    assert threading.current_thread() is threading.main_thread()
    # What the thread returns to. The mounts stay apart until the process ends: nobody else sees them.
    outside = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    if LIBC.unshare(CLONE_NEWNET | CLONE_NEWNS) != 0:
        raise OSError(ctypes.get_errno(), "no namespace")
    try:
        LIBC.mount(b"none", b"/", None, MS_REC | MS_PRIVATE, None)
        run("ip", "link", "set", "lo", "up")
        yield
    finally:
        LIBC.setns(outside, CLONE_NEWNET)
        os.close(outside)


class Net:
    """To be used inside of [`own_namespaces`]."""

    def __init__(self, sids):
        self.sids = list(sids)
        self.holders = {}
        # (who does not hear, whom)
        self.cuts = set()

    def host(self, sid):
        return f"10.77.0.{sid}"

    def wrap(self, sid, command):
        return ["nsenter", f"--net=/proc/{self.holders[sid].pid}/ns/net", "--", *command]

    def inside(self, sid, *command, text=None):
        run(*self.wrap(sid, command), text=text)

    def __enter__(self):
        run("ip", "link", "add", "bridge", "type", "bridge")
        run("ip", "addr", "add", "10.77.0.254/24", "dev", "bridge")
        run("ip", "link", "set", "bridge", "up")
        for sid in self.sids:
            # It only keeps the namespace while its server is down.
            holder = subprocess.Popen(["unshare", "--net", "sleep", "infinity"], preexec_fn=die_with_parent)
            self.holders[sid] = holder
            self.wait_for_namespace(holder)
            run("ip", "link", "add", f"s{sid}", "type", "veth", "peer", "name", "eth0", "netns", str(holder.pid))
            run("ip", "link", "set", f"s{sid}", "master", "bridge", "up")
            self.inside(sid, "ip", "addr", "add", f"{self.host(sid)}/24", "dev", "eth0")
            self.inside(sid, "ip", "link", "set", "eth0", "up")
            self.inside(sid, "ip", "link", "set", "lo", "up")
            self.inside(sid, "nft", "-f", "-", text=TABLE)
        return self

    def wait_for_namespace(self, holder):
        own = os.readlink("/proc/thread-self/ns/net")
        for _ in range(1000):
            if os.readlink(f"/proc/{holder.pid}/ns/net") != own:
                return
            # Until `unshare` has done its work; it tells nobody.
            threading.Event().wait(0.002)
        raise RuntimeError("no namespace")

    def __exit__(self, *_):
        for holder in self.holders.values():
            holder.kill()
            holder.wait(10)
        run("ip", "link", "del", "bridge")

    def cut(self, pairs):
        """`(a, b)`: a does not hear b any more. What was sent is lost without a word, as on a broken wire."""
        self.cuts |= set(pairs)
        self.apply()

    def cut_off(self, sid):
        self.cut([(sid, other) for other in self.sids if other != sid] + [(other, sid) for other in self.sids if other != sid])

    def heal(self):
        self.cuts.clear()
        self.apply()

    def apply(self):
        for sid in self.sids:
            rules = [f"add rule inet cut in ip saddr {self.host(other)} drop\n" for at, other in sorted(self.cuts) if at == sid]
            self.inside(sid, "nft", "-f", "-", text="flush chain inet cut in\n" + "".join(rules))

    def slow(self, sid, kilobits):
        self.inside(sid, "tc", "qdisc", "add", "dev", "eth0", "root", "tbf", "rate", f"{kilobits}kbit", "burst", "8kb", "latency", "500ms")

    def quick(self, sid):
        with contextlib.suppress(RuntimeError):
            self.inside(sid, "tc", "qdisc", "del", "dev", "eth0", "root")


def small_disk(path, megabytes):
    """Mounts a disk of its own on `path`: it can run full."""
    pathlib.Path(path).mkdir(parents=True, exist_ok=True)
    run("mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(path))


def unmount(path):
    run("umount", "--lazy", str(path))
