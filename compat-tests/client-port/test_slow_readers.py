"""Size does not stand for "does not read": who takes what waits for it is served, however much that is. SERVER=java runs the same
against Java's server.
"""
import struct
import time

import pytest
from harness.ports import on_both_ports
from harness.server import IS_JAVA
from harness.wire import CHILDREN, CLOSE, CREATE, GET, MULTI, SET, create, set_data, ustring, watched

ADD_WATCH, RECURSIVE = 106, 1
CREATED, DELETED, CHANGED, CHILD = 1, 2, 3, 4
# Paths of this length, so often in one multi, stay below jute.maxbuffer.
NAME, PARTS = 180_000, 5
# More than 64 MiB and what sockets hold, in events or names.
MANY = 450


@pytest.fixture(scope="module")
def server():
    # A Java server keeps large transactions for its followers, also where there are none.
    with on_both_ports({"commitLogCount": "5", "maxSessionTimeout": "60000"}) as running:
        yield running


@pytest.fixture(params=["plain", "tls"])
def port(server, request):
    return server.ports[request.param]


def multi(session, op, bodies):
    parts = b"".join(struct.pack(">ibi", op, 0, -1) + body for body in bodies)
    assert session.call(MULTI, parts + struct.pack(">ibi", -1, 1, -1))[1] == 0


def names(parent, count):
    return [f"{parent}/{at:08}{'x' * (NAME - 8)}" for at in range(count)]


def make(session, paths, flags=0):
    for at in range(0, len(paths), PARTS):
        multi(session, CREATE, [create(path, flags=flags) for path in paths[at:at + PARTS]])


def watch_below(session, path):
    assert session.call(ADD_WATCH, ustring(path) + struct.pack(">i", RECURSIVE))[1] == 0


def events(session, count):
    """The kinds of the next events."""
    kinds = set()
    for _ in range(count):
        xid, _, _, body = session.reply()
        assert xid == -1
        kinds.add(struct.unpack_from(">i", body)[0])
    return kinds


@pytest.fixture(scope="module")
def big(server):
    """A znode whose children's names are more than 64 MiB together."""
    with server.ports["plain"].session(timeout=60) as session:
        session.call(CREATE, create("/big"))
        make(session, names("/big", MANY))
    return "/big"


def test_an_event_behind_a_large_answer_cuts_nobody_off(server, big, port):
    with port.session(timeout=60, timeout_ms=60_000) as reader, port.session() as writer:
        reader.push(CHILDREN, watched(big, True))
        (length,) = struct.unpack(">i", reader.receive(4))
        assert length > 64 << 20
        child = f"{big}/one-more-{reader.session:x}"
        assert writer.call(CREATE, create(child))[1] == 0
        assert len(reader.receive_all(length)) == length
        assert events(reader, 1) == {CHILD}
        assert reader.call(GET, watched(child))[1] == 0


def test_a_watcher_that_pauses_gets_all_its_events(server, port):
    with port.session(timeout=60, timeout_ms=60_000) as watcher, port.session(timeout=60) as writer:
        parent = f"/paused-{watcher.session:x}"
        writer.call(CREATE, create(parent))
        paths = names(parent, PARTS)
        make(writer, paths)
        watch_below(watcher, parent)
        rounds = MANY // PARTS
        for _ in range(rounds):
            multi(writer, SET, [set_data(path, b"") for path in paths])
        assert events(watcher, rounds * PARTS) == {CHANGED}
        assert watcher.call(GET, watched(parent))[1] == 0


def test_the_events_of_one_closed_session_cut_nobody_off(server):
    port = server.ports["plain"]
    with port.session(timeout=60, timeout_ms=60_000) as watcher, port.session(timeout=60, timeout_ms=60_000) as owner:
        owner.call(CREATE, create("/owned"))
        make(owner, names("/owned", MANY), flags=1)
        watch_below(watcher, "/owned")
        owner.push(CLOSE)
        assert events(watcher, MANY) == {DELETED}


def test_a_client_may_write_all_before_it_reads(server, port):
    count, name = 60_000, "n" * 400
    with port.session(timeout=60) as session:
        parent = f"/all-{session.session:x}"
        session.call(CREATE, create(parent))
        began = time.monotonic()
        requests = bytearray()
        for at in range(count):
            body = struct.pack(">ii", 10 + at, CREATE) + create(f"{parent}/{at}{name}")
            requests += struct.pack(">i", len(body)) + body
        session.send(requests)
        for at in range(count):
            xid, _, err, _ = session.reply()
            assert (xid, err) == (10 + at, 0)
        print(f"{count} creates in {time.monotonic() - began:.1f} s")


def test_who_takes_nothing_makes_room_for_the_others():
    if IS_JAVA:
        pytest.skip("there is no such bound there")
    limit = 16 << 20
    with on_both_ports({"maxUnreadBytes": str(limit), "maxSessionTimeout": "120000"}) as server:
        plain = server.ports["plain"]
        # Nobody's session ends meanwhile.
        patient = {"timeout": 5, "timeout_ms": 120_000}
        with plain.session(**patient) as reader, plain.session(**patient) as writer, \
                plain.session(**patient) as one, server.ports["tls"].session(**patient) as other:
            writer.call(CREATE, create("/shared"))
            paths = names("/shared", PARTS)
            make(writer, paths)
            for session in (reader, one, other):
                watch_below(session, "/shared")
            # Enough for both together, and each alone with what its socket holds.
            rounds = 30
            for _ in range(rounds):
                multi(writer, SET, [set_data(path, b"") for path in paths])
                assert events(reader, PARTS) == {CHANGED}
            def cut():
                return [line for line in server.log().splitlines() if "reads too slowly" in line]

            server.wait_until("nobody is cut", cut, 10)
            for session in (one, other):
                host, port = session.socket.getsockname()
                ends, name = session.ends(), f"{host}:{port}, session 0x{session.session:x}"
                if ends:
                    server.wait_until(f"no line names {name}", lambda: any(name in line for line in cut()), 5)
                else:
                    assert not any(name in line for line in cut())
            assert all("WARN" in line for line in cut()), server.log()
            assert reader.call(GET, watched("/shared"))[1] == 0
            assert writer.call(GET, watched("/shared"))[1] == 0
