"""An ensemble of real processes: 1 to 7 servers, each Zabra's binary or Java's 3.9.5, on one data directory each."""
import contextlib
import ctypes
import os
import pathlib
import random
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time

import clients
from harness.server import BINARY, JAVA_CLASSPATH

# Quick to start, and small: there are up to seven at once.
JAVA = ["java", "-Xmx400m", "-Xshare:auto", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-XX:-UsePerfData"]
LOGBACK = """<configuration>
  <appender name="FILE" class="ch.qos.logback.core.FileAppender">
    <file>{file}</file>
    <encoder><pattern>%d{{HH:mm:ss.SSS}} %-5p [%t] %c{{0}}: %m%n</pattern></encoder>
  </appender>
  <!-- These two say how a learner is synchronized. -->
  <logger name="org.apache.zookeeper.server.quorum.Learner" level="INFO"/>
  <logger name="org.apache.zookeeper.server.quorum.LearnerHandler" level="INFO"/>
  <root level="{level}"><appender-ref ref="FILE"/></root>
</configuration>
"""
JAVA_LEVEL = os.environ.get("JAVA_LOG", "WARN")
SETTINGS = {
    "tickTime": "500",
    "initLimit": "20",
    "syncLimit": "6",
    "maxClientCnxns": "0",
    "4lw.commands.whitelist": "*",
    "admin.enableServer": "false",
    "preAllocSize": "1024",
    "maxSessionTimeout": "60000",
    "skipACL": "yes",
}
# Java's words and ours.
WAYS = {
    "DIFF": r"Getting a diff from the leader|synchronizes this server by DIFF",
    "TRUNC": r"Truncating log to get in sync|synchronizes this server by TRUNC",
    "SNAP": r"Getting a snapshot from leader|synchronizes this server by SNAP",
}
PR_SET_PDEATHSIG = 1
LIBC = ctypes.CDLL(None)


def die_with_parent():
    LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


class Ports:
    """Below the range from which the system takes the ports of outgoing connections: nobody takes one meanwhile."""

    def __init__(self):
        self.keep_to(10_000, 32_000)

    def keep_to(self, first, last):
        """Ports of this range alone, so that another process can have another range."""
        self.first, self.last = first, last
        self.next = random.SystemRandom().randrange(first, last)

    def take(self):
        while True:
            self.next = self.first if self.next >= self.last else self.next + 1
            with socket.socket() as probe:
                try:
                    probe.bind(("127.0.0.1", self.next))
                    return self.next
                except OSError:
                    continue


PORTS = Ports()


class Member:
    """One server. It keeps ports and data when it is stopped, and may come back as the other kind."""

    def __init__(self, ensemble, sid, java=False, observer=False, host="127.0.0.1"):
        self.ensemble = ensemble
        self.sid = sid
        self.java = java
        self.observer = observer
        self.host = host
        # What the others call it; and flags of its own.
        self.name = host
        self.flags = {}
        self.port, self.quorum_port, self.election_port = PORTS.take(), PORTS.take(), PORTS.take()
        self.dir = ensemble.dir / str(sid)
        self.config = self.dir / "zoo.cfg"
        self.process = None
        self.paused = False

    def __repr__(self):
        return f"{self.kind} {self.sid}"

    @property
    def kind(self):
        return "java" if self.java else "zabra"

    @property
    def data(self):
        return self.dir / "data"

    @property
    def files(self):
        return self.data / "version-2"

    @property
    def log_path(self):
        return self.dir / "server.log"

    @property
    def line(self):
        """Its part of the ensemble's configuration."""
        role = "observer" if self.observer else "participant"
        client = f";{self.host}:{self.port}" if self.ensemble.dynamic else ""
        return f"server.{self.sid}={self.name}:{self.quorum_port}:{self.election_port}:{role}{client}"

    def set_up(self, members=None):
        """Writes its configuration, with the lines of `members` (all). From then on the server may rewrite it."""
        self.data.mkdir(parents=True, exist_ok=True)
        (self.data / "myid").write_text(f"{self.sid}\n")
        settings = {**SETTINGS, "dataDir": str(self.data), **self.ensemble.settings}
        if self.observer:
            settings["peerType"] = "observer"
        lines = [member.line for member in (self.ensemble if members is None else members)]
        if self.ensemble.dynamic:
            dynamic = self.dir / "zoo.cfg.dynamic"
            dynamic.write_text("".join(line + "\n" for line in lines))
            settings |= {"dynamicConfigFile": str(dynamic), "reconfigEnabled": "true", "standaloneEnabled": "false"}
            lines = []
        else:
            settings["clientPort"] = str(self.port)
            settings["clientPortAddress"] = self.host
        text = [f"{key}={value}" for key, value in settings.items()] + lines
        self.config.write_text("".join(line + "\n" for line in text))

    def command(self):
        flags = [f"-D{key}={value}" for key, value in {**self.ensemble.flags, **self.flags}.items()]
        if not self.java:
            return [BINARY, "serve", str(self.config)]
        logback = self.dir / "logback.xml"
        logback.write_text(LOGBACK.format(file=self.log_path, level=JAVA_LEVEL))
        main = "org.apache.zookeeper.server.quorum.QuorumPeerMain"
        return [*JAVA, f"-Dlogback.configurationFile={logback}", *flags, "-cp", JAVA_CLASSPATH, main, str(self.config)]

    def start(self):
        assert not self.is_running(), f"{self} runs"
        # The kernel ends the server with the thread that started it.
        assert threading.current_thread() is threading.main_thread()
        flags = " ".join(f"-D{key}={value}" for key, value in self.ensemble.flags.items())
        environment = {**os.environ, "SERVER_JVMFLAGS": flags}
        environment |= {"RUST_LOG": os.environ.get("RUST_LOG", "info"), "NO_COLOR": "1"}
        with open(self.log_path, "ab") as log:
            log.write(f"--- {self} starts\n".encode())
            log.flush()
            command = self.ensemble.wrap(self, self.command())
            self.process = subprocess.Popen(
                command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, env=environment, preexec_fn=die_with_parent)
        self.paused = False
        return self

    def is_running(self):
        return self.process is not None and self.process.poll() is None

    def kill(self):
        if self.is_running():
            self.process.send_signal(signal.SIGKILL)
            self.process.wait(30)
        self.paused = False

    def stop(self):
        if self.is_running():
            self.resume()
            self.process.terminate()
            try:
                self.process.wait(30)
            except subprocess.TimeoutExpired:
                self.kill()

    def has_logged(self, path):
        return any(path.encode() in log.read_bytes() for log in self.files.glob("log.*"))

    def pause(self):
        """It stands still when this is over: a signal alone is not at once with all threads."""
        self.process.send_signal(signal.SIGSTOP)
        # Both states stay to be asked for: the end is the process's own to reap.
        os.waitid(os.P_PID, self.process.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)
        self.paused = True

    def resume(self):
        if self.paused and self.is_running():
            self.process.send_signal(signal.SIGCONT)
        self.paused = False

    def wipe(self):
        """Loses all that it knew but its name."""
        assert not self.is_running()
        shutil.rmtree(self.files, ignore_errors=True)

    def log(self):
        return self.log_path.read_text(errors="replace") if self.log_path.exists() else ""

    def ways(self, start=0):
        """How its log says that it was synchronized, since `start`."""
        text = self.log()[start:]
        found = [(match.start(), name) for name, pattern in WAYS.items() for match in re.finditer(pattern, text)]
        return [name for _, name in sorted(found)]

    def word(self, word, timeout=5):
        with self.ensemble.connect(self, timeout) as connection:
            connection.sendall(word.encode())
            chunks = []
            while chunk := connection.recv(65536):
                chunks.append(chunk)
        return b"".join(chunks).decode()

    def srvr(self):
        """Mode and zxid, or nothing while it does not serve."""
        if not self.is_running() or self.paused:
            return None
        try:
            text = self.word("srvr", 2)
        except OSError:
            return None
        mode, zxid = re.search(r"^Mode: (\w+)", text, re.M), re.search(r"^Zxid: 0x([0-9a-f]+)", text, re.M)
        return (mode[1], int(zxid[1], 16)) if mode and zxid else None

    def mode(self):
        found = self.srvr()
        return found[0] if found and found[0] in ("leader", "follower", "observer", "standalone") else None

    def mntr(self):
        return dict(line.split("\t", 1) for line in self.word("mntr").splitlines() if "\t" in line)

    def resident_kb(self):
        status = pathlib.Path(f"/proc/{self.process.pid}/status").read_text()
        return int(next(line for line in status.splitlines() if line.startswith("VmRSS:")).split()[1])

    def peak_kb(self):
        status = pathlib.Path(f"/proc/{self.process.pid}/status").read_text()
        return int(next(line for line in status.splitlines() if line.startswith("VmHWM:")).split()[1])


class Ensemble:
    """`kinds` has a letter for each server from 1 on: `j`ava or `z`abra, a capital for an observer."""

    def __init__(self, kinds, settings=None, flags=None, dynamic=False, net=None):
        self.dir = pathlib.Path(tempfile.mkdtemp(prefix="zabra-ensemble-"))
        self.settings = settings or {}
        self.flags = {"zookeeper.extendedTypesEnabled": "true", **(flags or {})}
        self.dynamic = dynamic
        self.net = net
        self.members = {}
        for sid, kind in enumerate(kinds, 1):
            self.add(sid, java=kind in "jJ", observer=kind.isupper())

    def add(self, sid, java=False, observer=False):
        host = self.net.host(sid) if self.net else "127.0.0.1"
        self.members[sid] = Member(self, sid, java, observer, host)
        return self.members[sid]

    def __getitem__(self, sid):
        return self.members[sid]

    def __iter__(self):
        return iter(self.members.values())

    def wrap(self, member, command):
        return self.net.wrap(member.sid, command) if self.net else command

    @staticmethod
    def connect(member, timeout=5):
        return socket.create_connection((member.host, member.port), timeout=timeout)

    def set_up(self):
        for member in self:
            member.set_up()

    def start(self):
        self.set_up()
        for member in self:
            member.start()
        self.wait_until_all_serve()
        return self

    def running(self):
        return [member for member in self if member.is_running()]

    def leader(self):
        return next((member for member in self if member.mode() == "leader"), None)

    def wait(self, what, is_there, seconds=60):
        """Asks until `is_there` gives something: across processes there is nothing to await but the next answer."""
        deadline = time.monotonic() + seconds
        while not (found := is_there()):
            if time.monotonic() > deadline:
                raise AssertionError(f"{what}: not after {seconds} s\n{self.state()}")
            for member in self:
                if member.process and member.process.poll() not in (None, 0, -signal.SIGKILL, -signal.SIGTERM, 143):
                    raise AssertionError(f"{member} ended with {member.process.returncode}\n{self.state()}")
            time.sleep(0.02)
        return found

    def wait_until_serves(self, member, seconds=60):
        return self.wait(f"{member} serves", member.mode, seconds)

    def wait_until_all_serve(self, seconds=60):
        """All that run serve, and one of them leads."""
        def modes():
            found = [member.mode() for member in self.running()]
            return found if all(found) and found.count("leader") == 1 else None
        return self.wait("all serve", modes, seconds)

    def wait_for_leader(self, seconds=60):
        return self.wait("a leader", self.leader, seconds)

    def make_lead(self, sid, write):
        """Has `sid` lead, of three voters: the one with more transactions is elected. `write` makes one."""
        others = [member for member in self if member.sid != sid and not member.observer and member.is_running()]
        assert len(others) == 2
        others[0].stop()
        self.wait("two voters serve", lambda: self[sid].mode() and others[1].mode())
        write(self[sid])
        others[1].stop()
        others[0].start()
        self.wait(f"{self[sid]} leads", lambda: self[sid].mode() == "leader" and others[0].mode())
        others[1].start()
        self.wait_until_all_serve()

    def come_back(self, member):
        """Starts it, and tells how it was synchronized."""
        start = len(member.log())
        member.start()
        self.wait_until_all_serve()
        return member.ways(start)

    def diverge(self, leader, paths):
        """Kills all in such a way that the leader has logged `paths` and nobody else has."""
        with clients.connect(leader) as session:
            before = f"{paths[0]}-before"
            clients.ok(session, clients.CREATE, clients.create(before))
            # A quorum has it by now, and the other one may be the slower.
            for member in self:
                self.wait(f"{member} has {before}", lambda member=member: member.has_logged(before), 5)
            # Those that stand still are followers for a moment yet: a leader without any takes no writes.
            others = [member for member in self if member is not leader]
            for member in others:
                member.pause()
            with contextlib.suppress(OSError):
                for path in paths:
                    session.push(clients.CREATE, clients.create(path))
            self.wait("the write is in its log", lambda: leader.has_logged(paths[-1]), 5)
            for member in [*others, leader]:
                member.kill()

    def state(self, lines=25):
        text = []
        for member in self:
            code = member.process.poll() if member.process else "never started"
            text.append(f"== {member}: {'runs' if code is None else code}, {member.srvr()}")
            text += member.log().splitlines()[-lines:]
        return "\n".join(text)

    def stop(self):
        for member in self:
            if member.is_running():
                member.resume()
                member.process.terminate()
        for member in self:
            member.stop()

    def __enter__(self):
        try:
            return self.start()
        except BaseException:
            self.__exit__(True)
            raise

    def __exit__(self, kind, *_):
        for member in self:
            member.kill()
        if not (kind and os.environ.get("KEEP")):
            shutil.rmtree(self.dir, ignore_errors=True)
