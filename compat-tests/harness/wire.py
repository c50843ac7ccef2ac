"""The client protocol by hand: for what no client library would send."""
import socket
import ssl
import struct

OPEN = [(31, "world", "anyone")]


class Closed(Exception):
    """The server closed the connection."""


def ustring(text):
    if text is None:
        return struct.pack(">i", -1)
    data = text if isinstance(text, bytes) else text.encode()
    return struct.pack(">i", len(data)) + data


def buffer(data):
    return struct.pack(">i", -1) if data is None else struct.pack(">i", len(data)) + data


def acl(entries):
    body = struct.pack(">i", len(entries))
    for perms, scheme, ident in entries:
        body += struct.pack(">i", perms) + ustring(scheme) + ustring(ident)
    return body


def create(path, data=b"", flags=0, acls=None):
    return ustring(path) + buffer(data) + acl(OPEN if acls is None else acls) + struct.pack(">i", flags)


def set_data(path, data, version=-1):
    return ustring(path) + buffer(data) + struct.pack(">i", version)


def watched(path, watch=False):
    return ustring(path) + (b"\x01" if watch else b"\x00")


CREATE, DELETE, EXISTS, GET, SET, CHILDREN, SYNC, PING = 1, 2, 3, 4, 5, 8, 9, 11
CHECK, MULTI, CREATE2, CREATE_CONTAINER, DELETE_CONTAINER, CREATE_TTL = 13, 14, 15, 19, 20, 21
AUTH, SET_WATCHES, WHO_AM_I, CREATE_SESSION, CLOSE = 100, 101, 107, -10, -11


class Fields:
    """Reads a reply's body, or another record."""

    def __init__(self, data, at=0):
        self.data, self.at = data, at

    def take(self, form):
        """The values that `struct` calls `form`."""
        values = struct.unpack_from(form, self.data, self.at)
        self.at += struct.calcsize(form)
        return values

    def int(self):
        return self.take(">i")[0]

    def long(self):
        return self.take(">q")[0]

    def bool(self):
        return self.take(">b")[0] != 0

    def buffer(self):
        length = self.int()
        if length < 0:
            return None
        self.at += length
        return self.data[self.at - length:self.at]

    def string(self):
        return self.buffer().decode()

    def strings(self):
        return [self.string() for _ in range(self.int())]

    def acl(self):
        return [(self.int(), self.string(), self.string()) for _ in range(self.int())]

    def stat(self):
        names = "czxid mzxid ctime mtime version cversion aversion owner length children pzxid".split()
        return dict(zip(names, self.take(">qqqqiiiqiiq")))


class Raw:
    """A connection without a session."""

    def __init__(self, port, host="127.0.0.1", timeout=10, tls=None):
        """`tls` is a context of `ssl`."""
        self.socket = socket.create_connection((host, port), timeout=timeout)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if tls:
            self.socket = tls.wrap_socket(self.socket)

    def send(self, data):
        self.socket.sendall(data)

    def send_frame(self, body):
        self.send(struct.pack(">i", len(body)) + body)

    def receive(self, count):
        data = b""
        while len(data) < count:
            try:
                chunk = self.socket.recv(count - len(data))
            except (ConnectionResetError, ssl.SSLError):
                raise Closed from None
            if not chunk:
                raise Closed
            data += chunk
        return data

    def receive_all(self, count):
        """The same for much."""
        parts = []
        while count:
            try:
                parts.append(self.socket.recv(min(count, 1 << 20)))
            except (ConnectionResetError, ssl.SSLError):
                raise Closed from None
            if not parts[-1]:
                raise Closed
            count -= len(parts[-1])
        return b"".join(parts)

    def frame(self):
        (length,) = struct.unpack(">i", self.receive(4))
        return self.receive(length)

    def is_closed(self):
        """Waits for the server to close."""
        try:
            while True:
                self.receive(1)
        except Closed:
            return True
        except TimeoutError:
            return False

    def ends(self):
        """Whether the server closes, however much it says before."""
        try:
            while self.socket.recv(1 << 20):
                pass
            return True
        except (ConnectionResetError, ssl.SSLError):
            return True
        except TimeoutError:
            return False

    def close(self):
        self.socket.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


class Session(Raw):
    """A connection with a session."""

    def __init__(self, port, timeout_ms=10000, session=0, passwd=bytes(16), last_zxid=0, read_only=b"\0", **rest):
        super().__init__(port, **rest)
        self.send_frame(struct.pack(">iqiq", 0, last_zxid, timeout_ms, session) + buffer(passwd) + read_only)
        self.hello = self.frame()
        _, self.timeout_ms, self.session = struct.unpack(">iiq", self.hello[:16])
        self.passwd = self.hello[20:36]
        self.xid = 0

    def push(self, op, body=b"", xid=None):
        """Sends a request and does not wait; returns its xid."""
        if xid is None:
            self.xid += 1
            xid = self.xid
        self.send_frame(struct.pack(">ii", xid, op) + body)
        return xid

    def reply(self):
        """xid, zxid, err and body of the next frame."""
        frame = self.frame()
        return (*struct.unpack(">iqi", frame[:16]), frame[16:])

    def call(self, op, body=b"", xid=None):
        xid = self.push(op, body, xid)
        while True:
            got, zxid, err, rest = self.reply()
            if got == xid:
                return zxid, err, rest
