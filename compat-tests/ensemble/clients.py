"""Clients by hand: sessions that go on at another server, whole trees, reconfiguration."""
import struct
import time

from harness.wire import CLOSE, CREATE, SYNC, Closed, Fields, Session, buffer, create, set_data, ustring

GET_ACL, CHILDREN2, RECONFIG, GET, SET, DELETE = 6, 12, 16, 4, 5, 2
CONNECTION_LOSS, SESSION_EXPIRED = -4, -112
NAMES = {
    0: "ok", -2: "inconsistent", -5: "marshalling error", -8: "bad arguments", -13: "new config has no quorum",
    -14: "reconfig in progress", -101: "no node", -103: "bad version", -110: "node exists", -112: "session expired",
    -118: "session moved", -123: "reconfig disabled",
}


def connect(member, session=0, passwd=bytes(16), timeout_ms=10_000, last_zxid=0, timeout=10):
    return Session(member.port, timeout_ms, session, passwd, last_zxid, host=member.host, timeout=timeout)


def ok(session, op, body=b""):
    zxid, err, rest = session.call(op, body)
    assert err == 0, f"op {op}: {NAMES.get(err, err)}"
    return zxid, rest


def sync(session, path="/"):
    ok(session, SYNC, ustring(path))


def read_tree(member, window=500):
    """Every path with data, stat and ACL, as this server has it after a sync."""
    with connect(member) as session:
        sync(session)
        found, waiting, asked = {}, ["/"], []

        def take():
            path, op = asked.pop(0)
            _, _, err, body = session.reply()
            fields = Fields(body)
            if err == -101:
                found.pop(path, None)
                return
            assert err == 0, (path, op, err)
            if op == GET:
                found[path] = [fields.buffer(), fields.stat(), None]
                if path == "/zookeeper/config":
                    # Each server puts it there itself, when it starts to serve; Java in the order of a hash table.
                    found[path] = [sorted(found[path][0].splitlines()), None, None]
            elif op == GET_ACL:
                found[path][2] = fields.acl()
            else:
                waiting.extend(f"{path.rstrip('/')}/{name}" for name in fields.strings())

        while waiting or asked:
            while waiting and len(asked) < window:
                path = waiting.pop()
                for op, more in ((GET, b"\0"), (GET_ACL, b""), (CHILDREN2, b"\0")):
                    session.push(op, ustring(path) + more)
                    asked.append((path, op))
            take()
        session.call(CLOSE)
    return found


def assert_equal_trees(members):
    """A write at each is seen on all, and all have the same tree."""
    trees = {}
    for member in members:
        trees[member] = read_tree(member)
    first, *others = trees
    for other in others:
        assert set(trees[first]) == set(trees[other]), (first, other, set(trees[first]) ^ set(trees[other]))
        for path, value in trees[first].items():
            assert trees[other][path] == value, (path, first, value, other, trees[other][path])
    return len(trees[first])


def write(member, path, data=b"", flags=0):
    with connect(member) as session:
        found = ok(session, CREATE, create(path, data, flags))
        session.call(CLOSE)
    return found[0]


def reconfig(session, joining=None, leaving=None, members=None, version=-1):
    """Op 16 as zkCli sends it; the configuration's text comes back."""
    optional = [struct.pack(">i", -1) if text is None else ustring(text) for text in (joining, leaving, members)]
    zxid, err, body = session.call(RECONFIG, b"".join(optional) + struct.pack(">q", version))
    return zxid, err, Fields(body).buffer().decode() if err == 0 else None


def change(ensemble, **what):
    """A reconfiguration, asked for until a leader says that it is in force."""
    def once():
        leader = ensemble.leader()
        if leader is None:
            return None
        try:
            with connect(leader) as session:
                zxid, err, text = reconfig(session, **what)
        except (OSError, Closed, struct.error):
            # A leader that goes meanwhile: whoever leads next is asked again.
            return None
        assert err in (0, -13, -14, -112), NAMES.get(err, err)
        return text
    return ensemble.wait(f"reconfiguration {what}", once, 30)


class Roaming:
    """A client with one session that goes on at the next living server, as a client library does."""

    def __init__(self, members, timeout_ms=10_000, first=0, patience=30):
        self.members = list(members)
        self.at = first
        self.timeout_ms = timeout_ms
        self.patience = patience
        self.session_id, self.passwd = 0, bytes(16)
        self.last_zxid = 0
        self.connection = None
        self.expired = 0
        self.moves = 0

    def reconnect(self):
        deadline = time.monotonic() + self.patience
        self.drop()
        while True:
            member = self.members[self.at % len(self.members)]
            try:
                session = connect(member, self.session_id, self.passwd, self.timeout_ms, self.last_zxid, timeout=5)
                if session.session:
                    self.connection = session
                    self.session_id, self.passwd = session.session, session.passwd
                    self.moves += 1
                    return session
                session.close()
                self.expired += 1
                self.session_id, self.passwd = 0, bytes(16)
            except (OSError, Closed, struct.error):
                self.at += 1
                if time.monotonic() > deadline:
                    raise AssertionError(f"no server takes the session {self.session_id:#x} for {self.patience} s") from None
                # Nobody listens there at the moment; the next may.
                time.sleep(0.005)

    def drop(self):
        if self.connection:
            self.connection.close()
            self.connection = None

    def call(self, op, body=b""):
        """zxid, error and body; where the connection breaks the error is `CONNECTION_LOSS`, and the outcome unknown."""
        if self.connection is None:
            self.reconnect()
        try:
            zxid, err, rest = self.connection.call(op, body)
        except (OSError, Closed):
            self.at += 1
            self.drop()
            return 0, CONNECTION_LOSS, b""
        self.last_zxid = max(self.last_zxid, zxid)
        return zxid, err, rest

    def insist(self, op, body=b"", fine=(0,)):
        """Again and again until it is answered."""
        deadline = time.monotonic() + self.patience
        while True:
            zxid, err, rest = self.call(op, body)
            if err != CONNECTION_LOSS:
                assert err in fine, f"op {op}: {NAMES.get(err, err)}"
                return zxid, err, rest
            assert time.monotonic() < deadline, f"op {op} is not answered for {self.patience} s"

    def close(self):
        if self.connection:
            try:
                self.connection.call(CLOSE)
            except (OSError, Closed):
                pass
        self.drop()


__all__ = [
    "CONNECTION_LOSS", "Closed", "Fields", "Roaming", "Session", "assert_equal_trees", "buffer", "change", "connect", "create",
    "ok", "read_tree", "reconfig", "set_data", "sync", "ustring", "write",
]
