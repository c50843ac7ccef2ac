"""Clients that each do their worst, all at once: the memory of the server stays below the bound that docs/limits.md computes from its
settings ("All connections"), and another client is served meanwhile.

HOSTILE is how many there are (CI 200), HOSTILE_SECONDS how long they go on."""
import contextlib
import errno
import functools
import os
import resource
import selectors
import socket
import struct
import time

import pytest
from harness.beside import Beside
from harness.ports import on_both_ports
from harness.server import IS_JAVA
from harness.wire import AUTH, CHILDREN, CHECK, CREATE, GET, MULTI, SET_WATCHES, buffer, create, ustring, watched

pytestmark = pytest.mark.skipif(IS_JAVA, reason="there is no such bound there")
COUNT = int(os.environ.get("HOSTILE", "200"))
SECONDS = float(os.environ.get("HOSTILE_SECONDS", "5"))
MB = 1 << 20
# jute.maxbuffer, less than which is taken.
MOST = 0xF_FFFF
COMMITS = 50
# The settings that move the bound.
UNREAD, WATCHED = 32 * MB, 32 * MB
SETTINGS = {"maxUnreadBytes": str(UNREAD), "maxWatchBytes": str(WATCHED), "tickTime": "2000", "snapCount": "1000000", "preAllocSize": "65536", "commitLogCount": str(COMMITS)}
MANY_TIMES = 300


def frame(body):
    return struct.pack(">i", len(body)) + body


def hello(password=bytes(16)):
    return frame(struct.pack(">iqiq", 0, 0, 30_000, 0) + buffer(password) + b"\0")


def request(op, body, xid=1):
    return frame(struct.pack(">ii", xid, op) + body)


def fill(begin, end=b""):
    """A string of the longest frame, with what is around it."""
    return begin + buffer(b"x" * (MOST - 12 - len(begin) - len(end))) + end


@functools.cache
def watches(number):
    """setWatches with 80,000 paths that nobody else watches."""
    paths = b"".join(ustring(f"/{number % 4096:03x}{at:05x}") for at in range(80_000))
    none = struct.pack(">i", 0)
    return request(SET_WATCHES, struct.pack(">qi", 1 << 40, 0) + struct.pack(">i", 80_000) + paths + none, xid=-8)


LARGE = request(CREATE, fill(ustring("/large"), struct.pack(">ii", 0, 0)))
AUTHS = request(AUTH, struct.pack(">i", 0) + fill(ustring("digest")), xid=-4)
WIDE = request(MULTI, (struct.pack(">ibi", CHECK, 0, -1) + ustring("/a") + struct.pack(">i", -1)) * 49_000 + struct.pack(">ibi", -1, 1, -1))
PASSWORD = hello(b"p" * (MOST - 64))
# What each says, piece by piece.
WORST = {
    "half of a request": [hello(), LARGE[:MOST // 2]],
    "nearly a request, after small ones": [hello(), request(GET, watched("/")) * 100, LARGE[:-1]],
    "large ids": [hello()] + [AUTHS] * 20,
    "large answers that it does not take": [hello(), request(GET, watched("/large")) * MANY_TIMES],
    "long lists that it does not take": [hello(), request(CHILDREN, watched("/wide")) * MANY_TIMES],
    "many watches": [hello(), None],
    "wide multis": [hello()] + [WIDE] * 20,
    "large creates in a row": [hello()] + [LARGE] * 20,
    "a long password": [PASSWORD],
    "half of a long password": [PASSWORD[:MOST // 2]],
    "half of a TLS hello": [b"\x16\x03\x01\x40\x00\x01\x00\x3f\xfc\x03\x03" + bytes(12_000)],
    "a word": [None],
}
WORDS = [b"mntr", b"wchp", b"cons", b"dump"]
OF_TLS = "half of a TLS hello"


class Hostile:
    """One of them. It comes again when the server has closed its connection."""

    def __init__(self, number, ports, loop):
        self.number, self.loop = number, loop
        self.what = list(WORST)[number % len(WORST)]
        self.port = ports["tls" if self.what == OF_TLS else "plain"].number
        self.came = 0
        self.connect()

    def connect(self):
        self.came += 1
        own = watches(self.number) if self.what == "many watches" else WORDS[self.number % len(WORDS)]
        self.chunks = [own if chunk is None else chunk for chunk in WORST[self.what]]
        self.at = 0
        self.socket = socket.socket()
        self.socket.setblocking(False)
        self.socket.connect_ex(("127.0.0.1", self.port))
        self.loop.register(self.socket, selectors.EVENT_WRITE, self)

    def go_on(self):
        """Writes what the socket takes."""
        try:
            while self.chunks:
                self.at += self.socket.send(memoryview(self.chunks[0])[self.at:self.at + MB])
                if self.at == len(self.chunks[0]):
                    self.chunks.pop(0)
                    self.at = 0
        except BlockingIOError:
            return
        except OSError as error:
            assert error.errno in (errno.ECONNRESET, errno.EPIPE), error
            self.close()
            self.connect()
            return
        # All is said. It takes nothing, and stays.
        self.loop.unregister(self.socket)

    def close(self):
        with contextlib.suppress(KeyError):
            self.loop.unregister(self.socket)
        self.socket.close()


def figures(server):
    return dict(line.split("\t", 1) for line in server.word("mntr").splitlines())


def peak(server):
    status = open(f"/proc/{server.process.pid}/status").read()
    return int(next(line for line in status.splitlines() if line.startswith("VmHWM:")).split()[1]) * 1024


def bound(at_rest, found):
    """As docs/limits.md has it."""
    memory = int(found["zk_zabra_memory_bytes"])
    queues = 4 * min(memory // 128, 8 * MB) + 2 * min(memory // 32, 32 * MB) + min(memory // 32, COMMITS * MB)
    return at_rest + queues + 6 * UNREAD + WATCHED + os.cpu_count() * 32 * MB + COUNT * 256 * 1024


def test_whatever_clients_do_the_memory_of_the_server_is_bounded():
    wanted = COUNT + 1000
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, max(hard, wanted)))
    loop = selectors.DefaultSelector()
    with on_both_ports(SETTINGS) as server, contextlib.ExitStack() as stack:
        session = stack.enter_context(server.ports["plain"].session(timeout=60))
        assert session.call(CREATE, create("/large", b"x" * (MOST - 1000)))[1] == 0
        assert session.call(CREATE, create("/wide"))[1] == 0
        for at in range(200):
            assert session.call(CREATE, create(f"/wide/{at:03}{'n' * 4000}"))[1] == 0
        at_rest = peak(server)
        most = {}
        with Beside(session) as beside:
            beside.after_calm()
            crowd, looked, ends = [], 0, time.monotonic() + SECONDS
            while len(crowd) < COUNT or time.monotonic() < ends:
                if len(crowd) < COUNT:
                    crowd.append(Hostile(len(crowd), server.ports, loop))
                    stack.callback(crowd[-1].close)
                    ends = time.monotonic() + SECONDS
                for key, _ in loop.select(0 if len(crowd) < COUNT else 0.1)[:50]:
                    key.data.go_on()
                if time.monotonic() > looked + 0.5:
                    looked = time.monotonic()
                    with contextlib.suppress(OSError):
                        for name, value in figures(server).items():
                            if name.startswith("zk_zabra_") or name in ("zk_watch_count", "zk_num_alive_connections"):
                                most[name] = max(most.get(name, 0), int(value))
        found, limit = peak(server), bound(at_rest, {name: str(value) for name, value in most.items()})
        print(f"{COUNT} clients: {found >> 20} MB at the most, {at_rest >> 20} MB before; bound {limit >> 20} MB; "
              f"they came {sum(one.came for one in crowd)} times; {beside}; most, KB: "
              f"{({name: value >> 10 if 'bytes' in name else value for name, value in most.items()})}", flush=True)
        assert server.process.poll() is None
        assert found <= limit
