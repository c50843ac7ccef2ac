"""Clients that go without waiting for the answers to what they said last."""
import contextlib
import os
import signal
import socket
import ssl
import struct
import time

from harness.wire import CLOSE, CREATE, EXISTS, GET, PING, SET, SYNC, Raw, Session, buffer, create, set_data, ustring, watched

EPHEMERAL = 1
# How long the server may take to do what it was told. Java needs none of it.
PATIENCE = 1.0
PINGED = -2


def request(xid, op, body=b""):
    return struct.pack(">iii", len(body) + 8, xid, op) + body


def connect_request(timeout_ms=10000):
    hello = struct.pack(">iqiq", 0, 0, timeout_ms, 0) + buffer(bytes(16)) + b"\0"
    return struct.pack(">i", len(hello)) + hello


def last_words(kinds, path):
    """The requests, and what is to be true of `path` and its like once they are done: (path, is there)."""
    words, then = b"", []
    for xid, kind in enumerate(kinds, 2):
        if kind == "create":
            words += request(xid, CREATE, create(f"{path}-{xid}"))
            then.append((f"{path}-{xid}", True))
        elif kind == "close":
            words += request(xid, CLOSE)
            then.append((path, False))
        else:
            words += {"get": request(xid, GET, watched("/")), "ping": request(PINGED, PING), "sync": request(xid, SYNC, ustring("/"))}[kind]
    return words, then


def arrive(port, path, **rest):
    """A session with an ephemeral, which goes with it."""
    session = Session(port, **rest)
    assert session.call(CREATE, create(path, flags=EPHEMERAL))[1] == 0
    return session


def leave(port, kinds, path, how=Session.close, **rest):
    """Says `kinds` in one write and goes; returns what is to be true."""
    session = arrive(port, path, **rest)
    words, then = last_words(kinds, path)
    session.send(words)
    how(session)
    return then


def reset(session):
    session.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    session.close()


def not_so(port, expected, seconds=PATIENCE, **rest):
    """What of (path, is there) is otherwise, still after `seconds`."""
    with Session(port, **rest) as session:
        deadline = time.monotonic() + seconds
        while True:
            expected = [(path, there) for path, there in expected if (session.call(EXISTS, watched(path))[1] == 0) != there]
            if not expected or time.monotonic() > deadline:
                return expected


@contextlib.contextmanager
def standing_still(process):
    """Whatever is sent meanwhile is there at once when the server goes on."""
    process.send_signal(signal.SIGSTOP)
    os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)
    try:
        yield
    finally:
        process.send_signal(signal.SIGCONT)


class TlsByHand:
    """TLS whose records are sent when we say so."""

    def __init__(self, port, context):
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=10)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self.incoming, self.outgoing)
        self.until_it_can(self.tls.do_handshake)

    def until_it_can(self, action):
        while True:
            try:
                result = action()
                self.flush()
                return result
            except ssl.SSLWantReadError:
                self.flush()
                data = self.socket.recv(65536)
                self.incoming.write(data) if data else self.incoming.write_eof()

    def flush(self, behind=b""):
        if data := self.outgoing.read() + behind:
            self.socket.sendall(data)

    def receive(self, count):
        data = b""
        while len(data) < count and (chunk := self.until_it_can(lambda: self.tls.read(count - len(data)))):
            data += chunk
        return data

    def call(self, data):
        self.tls.write(data)
        self.flush()
        return self.receive(*struct.unpack(">i", self.receive(4)))

    def say_last(self, data, behind=b""):
        """The bytes and close_notify, and what is not TLS any more, in one write."""
        self.tls.write(data)
        with contextlib.suppress(ssl.SSLWantReadError):
            self.tls.unwrap()
        self.flush(behind)

    def close(self):
        self.socket.close()
