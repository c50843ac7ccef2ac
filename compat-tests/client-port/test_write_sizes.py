"""How large a write may be: what no server could read back is refused, and what is legal is not."""
import struct
import time

import pytest
from harness.server import IS_JAVA, Server
from harness.wire import AUTH, CLOSE, CREATE, EXISTS, GET, MULTI, SET, Closed, Session, create, set_data, ustring, watched
from harness.wire import buffer as bytes_of

# What a client may send: `jute.maxbuffer`. The frame's length does not count; xid and operation do.
MAX_FRAME = 0xfffff
BAD_ARGUMENTS = -8
END = struct.pack(">iBi", -1, 1, -1)
only_here = pytest.mark.skipif(IS_JAVA, reason="Java answers these with 0, and dies of them")


def part(op, body):
    return struct.pack(">iBi", op, 0, -1) + body


def auth_entries(count):
    """So many different entries, each of which stands for all ids of the connection."""
    return [(perms, "auth", "") for perms in range(1, count + 1)]


def prove(session, count, length):
    """Adds `count` ids of `length` bytes. False: the door lets none in, or not so many."""
    try:
        for number in range(count):
            user = f"{number}-".encode()
            data = user + b"u" * (length - len(user)) + b":p"
            session.push(AUTH, struct.pack(">i", 0) + ustring("digest") + bytes_of(data), xid=-4)
        for _ in range(count):
            if session.reply()[2] != 0:
                return False
        return True
    except (Closed, ConnectionError):
        return False


@only_here
@pytest.mark.parametrize(
    ("ids", "length", "creates", "entries"),
    [pytest.param(9, 1_000_000, 240, 1, id="nine ids of 1 MB"), pytest.param(60, 1000, 200, 200, id="60 ids, 40,000 entries")])
def test_what_was_answered_later_outlives_a_multi_of_two_gigabytes(ids, length, creates, entries):
    with Server({"preAllocSize": "64", "maxSessionTimeout": "300000"}) as server:
        started = time.monotonic()
        err = None
        with Session(server.port, 200_000, timeout=150) as session:
            if prove(session, ids, length):
                body = b"".join(part(CREATE, create(f"/h{n}", acls=auth_entries(entries))) for n in range(creates))
                _, err, results = session.call(MULTI, body + END)
                if err == 0 and struct.unpack(">i", results[:4])[0] == -1:
                    # It went wrong as a multi does: each part has a result of its own, and the first is that of the first.
                    (err,) = struct.unpack(">i", results[5:9])
        took = time.monotonic() - started
        with Session(server.port, timeout=30) as session:
            for number in range(100):
                assert session.call(CREATE, create(f"/later{number}"))[1] == 0
        size = sum(path.stat().st_size for path in server.files.glob("log.*"))
        server.kill()
        server.start(wait=False)
        server.wait_until_serving(120)
        with Session(server.port) as session:
            kept = sum(session.call(EXISTS, watched(f"/later{n}"))[1] == 0 for n in range(100))
            made = sum(session.call(EXISTS, watched(f"/h{n}"))[1] == 0 for n in range(creates))
            session.call(CLOSE)
        seen = f"answered {err} after {took:.1f} s, {size >> 10} KB of log, {kept} of 100 later writes, {made} of {creates}"
        print(seen)
        assert kept == 100, seen
        assert made == 0 and took < 10 and size < 4 << 20, seen
        # At the door, or with an error of the first part.
        assert err in (None, BAD_ARGUMENTS), seen


@only_here
@pytest.mark.parametrize("ids", [2500, 60])
def test_ids_times_entries_is_counted_before_it_is_built(ids):
    with Server({"preAllocSize": "64"}) as server:
        with Session(server.port, timeout=60) as session:
            let_in = prove(session, ids, 10)
            body = create("/square", acls=auth_entries(2500))
            before, started = server.resident_kb(), time.monotonic()
            answers = [session.call(CREATE, body)[1] for _ in range(10)] if let_in else []
            took = time.monotonic() - started
            session.close()
        size = sum(path.stat().st_size for path in server.files.glob("log.*"))
        peak = int(next(line for line in open(f"/proc/{server.process.pid}/status") if line.startswith("VmHWM")).split()[1])
        seen = f"{len(body)} bytes: {answers}, {took:.2f} s, log {size >> 10} KB, {before >> 10} MB before, at most {peak >> 10} MB"
        print(seen)
        assert all(err == BAD_ARGUMENTS for err in answers), seen
        assert answers or ids > 60, "so many every connection may have"
        assert took < 5 and size < 1 << 20 and peak - before < 64 << 10, seen
        with Session(server.port) as session:
            assert session.call(CREATE, create("/square"))[1] == 0
            session.call(CLOSE)
        assert server.log().count("refused with error -8") <= 1, "it is told once in a while"


def test_what_fills_a_frame_is_written_and_read_back():
    with Server({"preAllocSize": "64"}) as server:
        def largest(make):
            """The request whose frame is as large as it may be."""
            spare = MAX_FRAME - 8 - len(make(b""))
            return make(b"x" * spare), spare

        made, created = largest(lambda data: create("/created", data))
        session = Session(server.port, timeout=30)
        assert session.call(CREATE, made)[1] == 0
        assert session.call(CREATE, create("/set"))[1] == 0
        body, written = largest(lambda data: set_data("/set", data))
        assert session.call(SET, body)[1] == 0
        in_multi, parts = largest(lambda data: part(CREATE, create("/part", data)) + END)
        assert session.call(MULTI, in_multi)[1] == 0
        # Text that is none takes three bytes for one.
        owner = b"\xff" * 600_000 + b":hash"
        assert session.call(CREATE, create("/owned", acls=[(31, "digest", owner), (1, "world", "anyone")]))[1] == 0
        session.call(CLOSE)
        session.close()
        server.kill()
        server.start()
        session = Session(server.port, timeout=30)
        for path, length in [("/created", created), ("/set", written), ("/part", parts), ("/owned", 0)]:
            _, err, body = session.call(GET, watched(path))
            assert (err, struct.unpack(">i", body[:4])[0]) == (0, length), path
        session.call(CLOSE)
        session.close()
