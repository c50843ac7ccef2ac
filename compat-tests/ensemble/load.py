"""Clients in processes of their own, which write down everything that they did and saw, for the history checker.

A history is a list of tuples in the order of the connection's frames; times are monotonic nanoseconds:

    ("open", session, timeout_ms, t, resumed)                      a connection to a server has a session
    ("reply", session, cxid, op, args, t0, t1, err, zxid, result)  a request was answered
    ("unknown", session, cxid, op, args, t0)                       its connection broke first
    ("event", session, t, kind, path, zxid)                        a watch event
    ("expired", session, t)                                        the server says that the session is over
"""
import multiprocessing
import os
import random
import signal
import struct
import time

from clients import connect
from harness.wire import CLOSE, CREATE2, DELETE, GET, MULTI, SET, SYNC, Closed, Fields, create, set_data, ustring, watched
from members import LIBC, PR_SET_PDEATHSIG

EXISTS, CHILDREN, SET_WATCHES = 3, 8, 101
REGISTERS = [f"/r{number}" for number in range(8)]
PARENTS = ["/seq", "/eph", "/nodes", "/pair-a", "/pair-b"] + REGISTERS
FORK = multiprocessing.get_context("fork")
END = struct.pack(">iBi", -1, 1, -1)


def part(op, body):
    return struct.pack(">iBi", op, 0, -1) + body


def set_up(member):
    """The znodes that the clients work on."""
    with connect(member) as session:
        for path in PARENTS:
            assert session.call(CREATE2, create(path, b"0"))[1] in (0, -110)
        session.call(CLOSE)


class Worker:
    """One client: a session that writes and reads at random, pipelined, and goes on at the next server."""

    def __init__(self, index, members, seed, rate, timeout_ms, mix, window=16):
        self.index = index
        # Host and port are all that it needs of them.
        self.members = members
        self.random = random.Random(f"{seed}/{index}")
        self.rate = rate
        self.timeout_ms = timeout_ms
        self.mix = mix
        self.window = window
        self.history = []
        self.pending = []
        self.session_id, self.passwd = 0, bytes(16)
        self.connection = None
        self.at = index
        self.last_zxid = 0
        self.counter = 0
        self.versions = {}
        self.created = []
        self.watching = {}

    # The connection.

    def reconnect(self, stop):
        while not stop.is_set():
            member = self.members[self.at % len(self.members)]
            try:
                session = connect(member, self.session_id, self.passwd, self.timeout_ms, self.last_zxid, timeout=1.0)
            except (OSError, Closed, struct.error):
                self.at += 1
                # Nobody listens or serves there at the moment; the next may.
                time.sleep(0.005)
                continue
            now = time.monotonic_ns()
            if session.session == 0:
                session.close()
                self.history.append(("expired", self.session_id, now))
                self.session_id, self.passwd = 0, bytes(16)
                self.watching.clear()
                continue
            resumed = self.session_id != 0
            self.session_id, self.passwd = session.session, session.passwd
            self.history.append(("open", session.session, session.timeout_ms, now, resumed))
            self.connection = session
            self.watch_again()
            return

    def watch_again(self):
        if not self.watching:
            return
        body = struct.pack(">q", self.last_zxid)
        for kind in ("data", "none", "child"):
            paths = [path for what, path in self.watching if what == kind]
            body += struct.pack(">i", len(paths)) + b"".join(map(ustring, paths))
        self.connection.send(self.request("watches", (), SET_WATCHES, body, xid=-8))

    def drop(self):
        """What has no answer never gets one."""
        for cxid, op, args, t0 in self.pending:
            self.history.append(("unknown", self.session_id, cxid, op, args, t0))
        self.pending.clear()
        self.connection.close()
        self.connection = None

    def request(self, op, args, code, body, xid=None):
        """The frame of the next request; its answer is expected from now on."""
        if xid is None:
            self.counter += 1
            xid = self.counter
        self.pending.append((xid, op, args, time.monotonic_ns()))
        return struct.pack(">iii", len(body) + 8, xid, code) + body

    def take(self):
        """The next frame: a watch event, or the answer to the oldest request."""
        xid, zxid, err, body = self.connection.reply()
        now = time.monotonic_ns()
        if xid == -1:
            fields = Fields(body)
            kind, _, path = fields.int(), fields.int(), fields.string()
            self.history.append(("event", self.session_id, now, kind, path, zxid))
            for what in {1: ["none"], 2: ["data", "child", "none"], 3: ["data", "none"], 4: ["child"]}[kind]:
                self.watching.pop((what, path), None)
            return
        cxid, op, args, t0 = self.pending.pop(0)
        assert xid == cxid, f"answer {xid} to request {cxid}"
        if zxid > 0:
            self.last_zxid = max(self.last_zxid, zxid)
        result = self.result(op, args, err, Fields(body))
        self.history.append(("reply", self.session_id, cxid, op, args, t0, now, err, zxid, result))

    def result(self, op, args, err, fields):
        if op == "get":
            path, watch = args
            if err == 0:
                data, stat = fields.buffer(), fields.stat()
                self.versions[path] = stat["version"]
                if watch:
                    self.watching["data", path] = True
                return data, stat["version"], stat["mzxid"], stat["czxid"], stat["owner"]
        elif op == "exists":
            path, watch = args
            if watch and err in (0, -101):
                self.watching["data" if err == 0 else "none", path] = True
            if err == 0:
                stat = fields.stat()
                return stat["version"], stat["mzxid"], stat["czxid"], stat["owner"]
        elif op == "children":
            if err == 0:
                if args[1]:
                    self.watching["child", args[0]] = True
                return tuple(sorted(fields.strings()))
        elif op == "set" and err == 0:
            stat = fields.stat()
            self.versions[args[0]] = stat["version"]
            return stat["version"], stat["mzxid"]
        elif op == "create" and err == 0:
            name = fields.string()
            if not args[2] & 2:
                self.created.append(name)
            return name
        elif op == "set" and err == -103:
            self.versions.pop(args[0], None)
        return None

    # What it does.

    def next_request(self):
        kind = self.random.choices(list(self.mix), self.mix.values())[0]
        number = self.counter + 1
        mine = f"{self.index}-{number}"
        data = f"{self.index}:{number}".encode() + b"." * self.random.choice([0, 0, 0, 50, 900])
        register = self.random.choice(REGISTERS)
        watch = self.random.random() < 0.3
        match kind:
            case "cas":
                version = self.versions.get(register, -1)
                return self.request("set", (register, data, version), SET, set_data(register, data, version))
            case "get":
                return self.request("get", (register, watch), GET, watched(register, watch))
            case "seq":
                args = (f"/seq/{self.index}-", data, 2)
                return self.request("create", args, CREATE2, create(*args))
            case "ephemeral":
                args = (f"/eph/{mine}", data, 1)
                return self.request("create", args, CREATE2, create(*args))
            case "create":
                args = (f"/nodes/{mine}", data, 0)
                return self.request("create", args, CREATE2, create(*args))
            case "delete" if self.created:
                path = self.created.pop(self.random.randrange(len(self.created)))
                return self.request("delete", (path, -1), DELETE, ustring(path) + struct.pack(">i", -1))
            case "exists":
                path = self.random.choice(self.created) if self.created and watch else f"/nodes/{self.index}-{number + 40}"
                return self.request("exists", (path, watch), EXISTS, watched(path, watch))
            case "children":
                return self.request("children", ("/eph", watch), CHILDREN, watched("/eph", watch))
            case "multi":
                body = part(SET, set_data("/pair-a", data)) + part(SET, set_data("/pair-b", data)) + END
                return self.request("multi", (("/pair-a", data), ("/pair-b", data)), MULTI, body)
            case "pair":
                path = self.random.choice(["/pair-a", "/pair-b"])
                return self.request("get", (path, watch), GET, watched(path, watch))
            case "sync":
                return self.request("sync", ("/",), SYNC, ustring("/"))
            case _:
                return self.request("exists", ("/seq", False), EXISTS, watched("/seq"))

    def end_session(self):
        self.connection.send(self.request("close", (), CLOSE, b""))
        while self.pending:
            self.take()
        self.connection.close()
        self.connection = None
        self.session_id, self.passwd = 0, bytes(16)
        self.watching.clear()
        self.created = [path for path in self.created if not path.startswith("/eph")]

    def vanish(self, stop):
        """Is not heard of any more, as if it had died; or comes back when it is too late."""
        self.drop()
        if self.random.random() < 0.5:
            stop.wait(1.5 * self.timeout_ms / 1000)
        else:
            self.session_id, self.passwd = 0, bytes(16)
            self.watching.clear()
        self.created = [path for path in self.created if not path.startswith("/eph")]

    def run(self, stop, end_sessions=True):
        due = time.monotonic()
        while not stop.is_set():
            if self.connection is None:
                self.reconnect(stop)
                due = time.monotonic()
                continue
            try:
                burst = [self.next_request() for _ in range(self.random.randrange(1, self.window))]
                self.connection.send(b"".join(burst))
                due += len(burst) / self.rate
                self.connection.socket.settimeout(1.0)
                while len(self.pending) > self.window:
                    self.take()
                # Answers and events are taken while the next burst is not due.
                while (left := due - time.monotonic()) > 0 and not stop.is_set():
                    self.connection.socket.settimeout(1.0 if self.pending else max(left, 0.001))
                    try:
                        self.take()
                    except TimeoutError:
                        if self.pending:
                            raise
                if end_sessions and self.random.random() < 0.002:
                    self.end_session()
                elif end_sessions and self.timeout_ms < 10_000 and self.random.random() < 0.005:
                    self.vanish(stop)
            except (OSError, Closed):
                self.drop()
                self.at += 1
        if self.connection is not None:
            try:
                self.connection.socket.settimeout(5)
                self.end_session()
            except (OSError, Closed):
                self.drop()


WRITES = {"cas": 4, "seq": 2, "ephemeral": 1, "create": 2, "delete": 2, "multi": 1}
ALL = {**WRITES, "get": 5, "exists": 1, "children": 0.3, "pair": 1, "sync": 0.5}


class Load:
    """Some workers, each in a process."""

    def __init__(self, members, count, seed, rate=300, timeouts=(15_000,), mix=None, end_sessions=True):
        self.stop_event = FORK.Event()
        self.processes = []
        for index in range(count):
            timeout_ms = timeouts[index % len(timeouts)]
            worker = Worker(index, list(members), seed, rate, timeout_ms, mix or ALL)
            here, there = FORK.Pipe(duplex=False)
            process = FORK.Process(target=self.work, args=(worker, there, end_sessions), daemon=True)
            self.processes.append((process, here))

    def work(self, worker, pipe, end_sessions):
        LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        os.nice(1)
        worker.run(self.stop_event, end_sessions)
        pipe.send(worker.history)
        pipe.close()

    def __enter__(self):
        for process, _ in self.processes:
            process.start()
        return self

    def stop(self):
        """Their histories."""
        self.stop_event.set()
        histories = []
        for process, pipe in self.processes:
            if not pipe.poll(60):
                raise AssertionError("a client hangs")
            histories.append(pipe.recv())
            process.join(10)
        self.processes = []
        return histories

    def __exit__(self, *_):
        self.stop_event.set()
        for process, _ in self.processes:
            process.kill()
            process.join(10)
