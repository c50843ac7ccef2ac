"""kill -9 under load, again and again: what was acknowledged is there, what ended stays away, the server starts by itself."""
import collections
import os
import random
import struct
import threading
import time

from harness.server import IS_JAVA, Server
from harness.wire import CHILDREN, CLOSE, CREATE, DELETE, GET, MULTI, SET, Closed, Session, buffer, create, set_data, ustring, watched

CRASHES = int(os.environ.get("CRASHES", "10" if IS_JAVA else "200"))
SEED = int(os.environ.get("SEED", str(random.SystemRandom().randrange(1 << 32))))
WRITERS = 4
WINDOW = 48
# A session has to outlive a restart: a Java server takes seconds to start.
SESSION_MS = 8000 if IS_JAVA else 2000
# Crashes between two checks that every ended session took its ephemerals along.
SETTLE_EVERY = 20

SETTINGS = {
    "tickTime": "200",
    "maxSessionTimeout": "60000",
    "snapCount": "400",
    # KiB: so that logs grow and roll under the load.
    "preAllocSize": "64",
    "autopurge.snapRetainCount": "3",
}


def part(op, body):
    return struct.pack(">iBi", op, 0, -1) + body


END = struct.pack(">iBi", -1, 1, -1)


class Model:
    """What one writer's nodes look like after a number of its operations."""

    def __init__(self):
        self.register = 0
        self.pair = 0
        self.nodes = set()
        self.ephemerals = set()
        self.sequenced = 0

    def copy(self):
        other = Model()
        other.register, other.pair, other.sequenced = self.register, self.pair, self.sequenced
        other.nodes, other.ephemerals = set(self.nodes), set(self.ephemerals)
        return other

    def apply(self, kind, value):
        match kind:
            case "register":
                self.register = value
            case "pair":
                self.pair = value
            case "create":
                self.nodes.add(value)
            case "delete":
                self.nodes.discard(value)
            case "ephemeral":
                self.ephemerals.add(value)
            case "sequence":
                self.sequenced += 1
            case "close":
                self.ephemerals.clear()

    def view(self):
        return self.register, self.pair, frozenset(self.nodes), frozenset(self.ephemerals), self.sequenced


class Writer:
    """One session that pipelines writes, and remembers which were sent and which were acknowledged."""

    def __init__(self, index, failures, timeout_ms=SESSION_MS):
        self.index = index
        self.timeout_ms = timeout_ms
        self.root = f"/w{index}"
        self.random = random.Random(f"{SEED}/{index}")
        self.failures = failures
        self.acked = Model()
        self.pending = collections.deque()
        self.counter = 0
        self.block = ""
        self.names = []
        self.identity = None
        self.session = None
        self.acks = 0

    def connect(self, port):
        if self.identity:
            self.session = Session(port, timeout_ms=self.timeout_ms, session=self.identity[0], passwd=self.identity[1])
            if self.session.session == 0:
                self.failures.append(f"{self.root}: the session did not survive the crash")
        else:
            self.session = Session(port, timeout_ms=self.timeout_ms)
            self.identity = self.session.session, self.session.passwd

    def run(self, port):
        try:
            if self.session is None:
                self.connect(port)
            while True:
                burst = b""
                for _ in range(self.random.randrange(1, 16)):
                    burst += self.next_request()
                self.session.send(burst)
                while len(self.pending) > WINDOW:
                    self.take_reply()
                if self.random.random() < 0.01:
                    self.end_session()
                    self.connect(port)
        except (Closed, OSError):
            pass
        finally:
            if self.session:
                self.drain()
                self.session.close()
                self.session = None

    def drain(self):
        """Replies that had left the server before it died count."""
        try:
            self.session.socket.settimeout(5)
            while self.pending:
                self.take_reply()
        except (Closed, OSError):
            pass

    def end_session(self):
        self.session.send(self.request(CLOSE, b"", "close", None))
        while self.pending:
            self.take_reply()
        self.session.close()
        self.identity = None

    def request(self, op, body, kind, value):
        self.session.xid += 1
        self.pending.append((self.session.xid, kind, value))
        return struct.pack(">iii", len(body) + 8, self.session.xid, op) + body

    def next_request(self):
        self.counter += 1
        value = self.counter
        data = str(value).encode()
        choice = self.random.random()
        if choice < 0.3:
            padding = b"." * self.random.choice([0, 0, 100, 3000])
            return self.request(SET, set_data(f"{self.root}/register", data + b" " + padding), "register", value)
        if choice < 0.5:
            body = part(SET, set_data(f"{self.root}/a", data)) + part(SET, set_data(f"{self.root}/b", data)) + END
            return self.request(MULTI, body, "pair", value)
        if choice < 0.7:
            return self.request(CREATE, create(f"{self.root}/nodes/{value}", data), "create", value)
        if choice < 0.8:
            known = [value for _, kind, value in self.pending if kind == "create"] + list(self.acked.nodes)[:60]
            gone = {value for _, kind, value in self.pending if kind == "delete"}
            known = [value for value in known if value not in gone]
            if known:
                old = self.random.choice(known)
                body = ustring(f"{self.root}/nodes/{old}") + struct.pack(">i", -1)
                return self.request(DELETE, body, "delete", old)
        if choice < 0.9:
            return self.request(CREATE, create(f"{self.block}/{self.index}-", data, flags=2), "sequence", value)
        return self.request(CREATE, create(f"/ephemerals/{self.index}-{value}", b"", flags=1), "ephemeral", value)

    def take_reply(self):
        xid, _, err, body = self.session.reply()
        expected, kind, value = self.pending[0]
        if xid != expected or err != 0:
            self.failures.append(f"{self.root}: {kind} {value}: xid {xid} for {expected}, error {err}")
            raise Closed
        self.pending.popleft()
        self.acked.apply(kind, value)
        self.acks += 1
        if kind == "sequence":
            self.names.append(body[4:].decode())

    def check(self, seen):
        """The state found is the one after all acknowledged operations and some of those that followed, in order."""
        state = self.acked.copy()
        if state.view() == seen:
            pass
        else:
            for _, kind, value in self.pending:
                state.apply(kind, value)
                if state.view() == seen:
                    break
            else:
                self.failures.append(
                    f"{self.root}: found {describe(seen)}; acknowledged {describe(self.acked.view())}, "
                    f"then sent {[(kind, value) for _, kind, value in self.pending]}")
        closed = any(kind == "close" for _, kind, _ in self.pending)
        if closed:
            # Whether the close came through or not: this session is not used again.
            self.identity = None
        self.pending.clear()
        self.acked = state


def describe(view):
    register, pair, nodes, ephemerals, sequenced = view
    return f"register {register}, pair {pair}, nodes {sorted(nodes)[-60:]}, ephemerals {sorted(ephemerals)}, {sequenced} sequenced"


class Reader(Session):
    def children(self, path):
        _, err, body = self.call(CHILDREN, watched(path))
        assert err == 0, f"{path}: {err}"
        (count,) = struct.unpack(">i", body[:4])
        names, at = [], 4
        for _ in range(count):
            (length,) = struct.unpack(">i", body[at:at + 4])
            names.append(body[at + 4:at + 4 + length].decode())
            at += 4 + length
        return names

    def number(self, path):
        """The number that a node's data begins with, and its version."""
        _, err, body = self.call(GET, watched(path))
        assert err == 0, f"{path}: {err}"
        (length,) = struct.unpack(">i", body[:4])
        (version,) = struct.unpack(">i", body[4 + length + 32:4 + length + 36])
        return int(body[4:4 + length].split()[0]), version


class Crashes:
    def __init__(self, server):
        self.server = server
        self.random = random.Random(SEED)
        self.failures = []
        self.writers = [Writer(index, self.failures) for index in range(WRITERS)]
        self.versions = {}

    def set_up(self):
        with Session(self.server.port) as session:
            for path in ["/ephemerals"] + [f"/w{n}{rest}" for n in range(WRITERS) for rest in ("", "/register", "/a", "/b", "/nodes")]:
                assert session.call(CREATE, create(path, b"0"))[1] == 0
            session.call(CLOSE)

    def new_block(self, number):
        """Sequence nodes of some rounds share a parent, so that their numbers must be unique across crashes."""
        block = f"/seq-{number}"
        with Session(self.server.port) as session:
            assert session.call(CREATE, create(block))[1] == 0
            session.call(CLOSE)
        for writer in self.writers:
            writer.block, writer.names = block, []
            writer.acked.sequenced = 0

    def load_and_kill(self):
        threads = [threading.Thread(target=writer.run, args=(self.server.port,)) for writer in self.writers]
        for thread in threads:
            thread.start()
        # The moment of the crash is what is random here: nothing to await.
        threading.Event().wait(self.random.uniform(0.0, 0.35))
        self.server.kill()
        for thread in threads:
            thread.join(30)
            assert not thread.is_alive(), "a writer hangs"

    def restart(self):
        if self.random.random() < 0.15:
            self.server.start(wait=False)
            threading.Event().wait(self.random.uniform(0.0, 0.06))
            self.server.kill()
        self.server.start()

    def check(self):
        with Reader(self.server.port) as reader:
            names = reader.children(self.writers[0].block)
            assert len(names) == len(set(names))
            numbers = [name.rsplit("-", 1)[1] for name in names]
            if len(numbers) != len(set(numbers)):
                self.failures.append(f"a sequence number was given twice: {sorted(numbers)}")
            ephemerals = reader.children("/ephemerals")
            for writer in self.writers:
                missing = {name.rsplit("/", 1)[1] for name in writer.names} - set(names)
                if missing or len(writer.names) != len(set(writer.names)):
                    self.failures.append(f"{writer.root}: acknowledged sequence nodes are missing: {sorted(missing)}")
                self.check_writer(reader, writer, names, ephemerals)
            reader.call(CLOSE)
        assert not self.failures, "\n".join(self.failures)

    def check_writer(self, reader, writer, names, ephemerals):
        register, version = reader.number(f"{writer.root}/register")
        first, _ = reader.number(f"{writer.root}/a")
        second, _ = reader.number(f"{writer.root}/b")
        if first != second:
            self.failures.append(f"{writer.root}: half a multi: a is {first}, b is {second}")
        old = self.versions.get(writer.index, (0, 0))
        if version < old[1] or (version == old[1]) != (register == old[0]):
            self.failures.append(f"{writer.root}: version {version} for {register} after {old}")
        self.versions[writer.index] = register, version
        mine = f"{writer.index}-"
        owned = frozenset(int(name.removeprefix(mine)) for name in ephemerals if name.startswith(mine))
        current = owned & frozenset(writer.acked.ephemerals | {v for _, kind, v in writer.pending if kind == "ephemeral"})
        ghosts = {value for value in owned - current if (writer.index, value) not in self.leaving}
        if ghosts:
            self.failures.append(f"{writer.root}: ephemerals of an ended session came back: {sorted(ghosts)}")
        nodes = frozenset(int(name) for name in reader.children(f"{writer.root}/nodes"))
        writer.check((register, first, nodes, current, sum(name.startswith(mine) for name in names)))

    # Ephemerals of sessions that were left to expire.
    leaving = frozenset()

    def leave_sessions(self):
        """Some sessions go on; some are closed, with their ephemerals gone at once; some are left to expire."""
        for writer in self.writers:
            if writer.identity is None:
                self.leave(writer)
                continue
            fate = self.random.random()
            if fate < 0.5:
                continue
            if fate < 0.75:
                writer.connect(self.server.port)
                writer.session.call(CLOSE)
                writer.session.close()
                writer.session = None
                with Reader(self.server.port) as reader:
                    ghosts = {f"{writer.index}-{value}" for value in writer.acked.ephemerals} & set(reader.children("/ephemerals"))
                    reader.call(CLOSE)
                assert not ghosts, f"{writer.root}: a closed session left {sorted(ghosts)}"
                writer.acked.ephemerals.clear()
            else:
                self.leave(writer)
            writer.identity = None

    def leave(self, writer):
        self.leaving = self.leaving | {(writer.index, value) for value in writer.acked.ephemerals}
        writer.acked.ephemerals.clear()

    def settle(self):
        """Nobody is connected: all sessions expire, and no ephemeral stays."""
        for writer in self.writers:
            self.leave(writer)
            writer.identity = None
        deadline = time.monotonic() + SESSION_MS / 1000 + 5
        with Reader(self.server.port) as reader:
            while left := set(reader.children("/ephemerals")):
                assert time.monotonic() < deadline, f"ghosts: {sorted(left)}"
                reader.call(CHILDREN, watched("/ephemerals", True))
                reader.socket.settimeout(max(0.1, deadline - time.monotonic()))
                if reader.children("/ephemerals"):
                    reader.session_pause()
            reader.call(CLOSE)
        self.leaving = frozenset()


def session_pause(self):
    """Waits for a watch event, or for the time to say that we are alive."""
    self.socket.settimeout(0.5)
    try:
        self.reply()
    except TimeoutError:
        pass
    finally:
        self.socket.settimeout(10)


Reader.session_pause = session_pause


def test_nothing_acknowledged_is_lost():
    print(f"SEED={SEED} CRASHES={CRASHES}")
    with Server(SETTINGS) as server:
        crashes = Crashes(server)
        crashes.set_up()
        for crash in range(CRASHES):
            if crash % 10 == 0:
                crashes.new_block(crash // 10)
            crashes.load_and_kill()
            try:
                crashes.restart()
                crashes.check()
                if crash % SETTLE_EVERY == SETTLE_EVERY - 1 or crash == CRASHES - 1:
                    crashes.settle()
                else:
                    crashes.leave_sessions()
            except AssertionError as error:
                raise AssertionError(f"SEED={SEED}, crash {crash}: {error}\n{server.log()[-4000:]}") from None
            prune(server)
        acks = sum(writer.acks for writer in crashes.writers)
        print(f"{CRASHES} crashes, {acks} acknowledged writes, all there")
        assert acks > CRASHES


def prune(server):
    """Each start leaves a snapshot and a log: keeps the newest ones, so that the disk does not fill up."""
    for kind in ("snapshot", "log"):
        found = sorted(server.files.glob(f"{kind}.*"), key=lambda path: int(path.name.split(".")[1], 16))
        for path in found[:-12]:
            path.unlink()
