"""Many clients that come, leave something, and fall silent."""
import socket
import struct
import time

from harness.beside import wait_while
from harness.wire import CREATE, EXISTS, Fields, buffer, create, watched

AT_ONCE = 250


def frame(body):
    return struct.pack(">i", len(body)) + body


def receive(connection, count):
    data = b""
    while len(data) < count:
        chunk = connection.recv(count - len(data))
        assert chunk, "the server closed"
        data += chunk
    return data


def take_frame(connection):
    return receive(connection, struct.unpack(">i", receive(connection, 4))[0])


def silent_sessions(addresses, count, timeout_ms, path):
    """Sessions with an ephemeral each, `path` and a number, whose clients are gone. Those of `addresses` in turns."""
    hello = frame(struct.pack(">iqiq", 0, 0, timeout_ms, 0) + buffer(bytes(16)) + b"\0")
    for begin in range(0, count, AT_ONCE):
        numbers = range(begin, min(begin + AT_ONCE, count))
        connections = []
        try:
            for number in numbers:
                connection = socket.create_connection(addresses[number % len(addresses)], timeout=60)
                connections.append(connection)
                body = struct.pack(">ii", 1, CREATE) + create(f"{path}{number}", flags=1)
                connection.sendall(hello + frame(body))
            for connection in connections:
                assert struct.unpack(">ii", take_frame(connection)[:8]) == (0, timeout_ms)
                xid, _, err = struct.unpack(">iqi", take_frame(connection)[:16])
                assert (xid, err) == (1, 0)
        finally:
            for connection in connections:
                connection.close()


def children(session, path):
    """How many."""
    _, err, body = session.call(EXISTS, watched(path))
    assert err == 0
    return Fields(body).stat()["children"]


def await_the_end(looker, beside, path, begins_within, ends_within):
    """Waits until the crowd's ephemerals below `path` begin to go, and until all are gone: how many there were, and the seconds that
    it took from the first to the last."""
    # Where the machine was slow, the first ones are gone.
    count = children(looker, path)
    # From then on all counts: a write may wait long before the first one is seen to be gone.
    beside.after_calm(3)
    wait_while(lambda: children(looker, path) == count, begins_within)
    began = time.monotonic()
    wait_while(lambda: children(looker, path) > 0, ends_within)
    return count, time.monotonic() - began
