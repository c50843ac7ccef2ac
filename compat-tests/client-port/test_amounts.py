"""Amounts: whatever one client has very many of, others do not wait for it. Each test prints the longest wait of another client's write.
SERVER=java runs the same against Java's server, for its figures.

SHARE (of the full amounts) is 0.1 in a test that has to be quick; 1 is what `run --nightly` takes.
"""
import os
import struct
import threading
import time

import pytest
from harness.beside import Beside
from harness.crowd import await_the_end, children, silent_sessions
from harness.server import IS_JAVA, Server
from harness.wire import (
    CHILDREN, CLOSE, CREATE, CREATE_TTL, DELETE, EXISTS, MULTI, OPEN, SET_WATCHES, Session, acl, buffer, create, ustring,
    watched,
)

SHARE = float(os.environ.get("SHARE", "0.1"))
# What machine and disk do alone is not ours: a wait may be longer by some of the longest one in calm, too.
LIMIT_MS, OF_CALM = 100, 4
PATIENT = {"timeout": 120, "timeout_ms": 60_000}
SETTINGS = {"maxSessionTimeout": "60000", "tickTime": "1000"}


def many(amount):
    return max(1, int(amount * SHARE))


def verdict(what, beside, limit_ms=LIMIT_MS):
    print(f"\n{'java' if IS_JAVA else 'zabra'}: {what}: {beside}")
    assert IS_JAVA or beside.longest_ms < limit_ms + OF_CALM * beside.calm_ms


def batches(count, size):
    return [range(begin, min(begin + size, count)) for begin in range(0, count, size)]


def multi(session, op, bodies):
    parts = b"".join(struct.pack(">ibi", op, 0, -1) + body for body in bodies)
    assert session.call(MULTI, parts + struct.pack(">ibi", -1, 1, -1))[1] == 0


def make(session, op, bodies):
    """Many znodes, without a wait for each."""
    for batch in batches(len(bodies), 2000):
        multi(session, op, [bodies[at] for at in batch])


@pytest.fixture
def server():
    with Server(SETTINGS) as running:
        yield running


def test_sessions_that_expire_together(server):
    """Row 2: it took 16.7 s for 32,000, as each looked at what was outstanding of all."""
    count, timeout_ms = max(many(30_000), 6000), 20_000 if SHARE > 0.3 or IS_JAVA else 8000
    with Session(server.port, **PATIENT) as writer:
        writer.call(CREATE, create("/crowd"))
        silent_sessions([("127.0.0.1", server.port)], count, timeout_ms, "/crowd/e")
    # With the restart all get the same time once more.
    server.restart()
    with Session(server.port, **PATIENT) as writer, Session(server.port, **PATIENT) as looker:
        with Beside(writer) as beside:
            count, took = await_the_end(looker, beside, "/crowd", timeout_ms / 1000 + 60, 120)
        verdict(f"{count} sessions with an ephemeral each expired within {took:.1f} s", beside, 2 * LIMIT_MS)
        assert IS_JAVA or took < 5


def test_the_end_of_a_session_with_many_ephemerals(server):
    """Row 6: 3.3 s for 500,000."""
    count = many(500_000)
    with Session(server.port, **PATIENT) as owner, Session(server.port, **PATIENT) as writer:
        owner.call(CREATE, create("/owned"))
        make(owner, CREATE, [create(f"/owned/ephemeral-{at:07}", flags=1) for at in range(count)])
        with Beside(writer) as beside:
            beside.after_calm()
            began = time.monotonic()
            assert owner.call(CLOSE)[1] == 0
            took = time.monotonic() - began
        verdict(f"a session with {count} ephemerals was closed within {took:.1f} s", beside)
        assert children(writer, "/owned") == 0


def test_the_end_of_a_session_whose_ephemerals_fit_one_transaction(server):
    """They go in one, as Java's do: what that costs is what others wait."""
    count = 25_000
    with Session(server.port, **PATIENT) as owner, Session(server.port, **PATIENT) as writer:
        owner.call(CREATE, create("/owned"))
        make(owner, CREATE, [create(f"/owned/e{at:05}", flags=1) for at in range(count)])
        before = children(writer, "/owned")
        with Beside(writer) as beside:
            beside.after_calm()
            assert owner.call(CLOSE)[1] == 0
        verdict(f"a session with {count} ephemerals was closed at once", beside, 3 * LIMIT_MS)
        assert (before, children(writer, "/owned")) == (count, 0)


def test_the_end_of_a_connection_with_many_watches(server):
    """Row 6: 1.25 s for 500,000."""
    count = many(500_000)
    with Session(server.port, **PATIENT) as watcher, Session(server.port, **PATIENT) as writer:
        paths = [f"/nowhere/to/be/seen-{at:07}" for at in range(count)]
        for batch in batches(count, 10_000):
            exist = struct.pack(">i", len(batch)) + b"".join(ustring(paths[at]) for at in batch)
            assert watcher.call(SET_WATCHES, struct.pack(">qi", 1 << 40, 0) + exist + struct.pack(">i", 0), xid=-8)[1] == 0
        with Beside(writer) as beside:
            beside.after_calm()
            watcher.close()
            server.wait_until("its watches count", lambda: figure(server, "zk_watch_count") == 0, 60)
        verdict(f"a connection with {count} watches ended", beside)


def figure(server, name):
    return int(next(line.split("\t")[1] for line in server.word("mntr").splitlines() if line.startswith(f"{name}\t")))


def test_a_look_at_many_ttl_znodes():
    """Row 6: 0.24 s for 1,000,000."""
    count = many(1_000_000)
    flags = {"znode.container.checkIntervalMs": "1000"}
    with Server({**SETTINGS, "extendedTypesEnabled": "true"}, flags) as server:
        with Session(server.port, **PATIENT) as owner, Session(server.port, **PATIENT) as writer:
            owner.call(CREATE, create("/ttl"))
            bodies = [ustring(f"/ttl/{at:07}") + buffer(b"") + acl(OPEN) + struct.pack(">iq", 5, 3_600_000) for at in range(count)]
            make(owner, CREATE_TTL, bodies)
            with Beside(writer) as beside:
                beside.after_calm()
                # Some looks: their moments cannot be seen from outside, and one may come before.
                threading.Event().wait(3.5)
            verdict(f"{count} TTL znodes were looked at", beside)


def test_a_snapshot_of_large_values():
    """Row 6: 0.76 s for 239 values of 1 MB in one slice."""
    count = many(640)
    with Server({**SETTINGS, "snapCount": str(2 * count), "preAllocSize": "65536"}) as server:
        with Session(server.port, **PATIENT) as owner, Session(server.port, **PATIENT) as writer:
            owner.call(CREATE, create("/large"))
            for at in range(count):
                owner.call(CREATE, create(f"/large/{at}", data=b"x" * 1_000_000))
            written = {file.name for file in server.files.glob("snapshot.*")}

            def whole():
                found = server.files.glob("snapshot.*")
                return {file.name for file in found if file.stat().st_size > count * 1_000_000} - written

            with Beside(writer) as beside:
                # These very writes bring it about.
                beside.mark()
                server.wait_until("no snapshot", whole, 120)
            # The disk is busy with it, too.
            verdict(f"a snapshot of {count} MB was written", beside, 20 * LIMIT_MS)


def test_a_delete_that_many_connections_watch(server):
    """Row 6: told by lists that were searched: 16, 59, 209 ms for 10,000, 20,000, 40,000 connections."""
    count = many(9_000)
    with Session(server.port, **PATIENT) as writer, Session(server.port, **PATIENT) as owner:
        owner.call(CREATE, create("/watched"))
        watchers = []
        try:
            for _ in range(count):
                watcher = Session(server.port, **PATIENT)
                watchers.append(watcher)
                watcher.push(EXISTS, watched("/watched", True))
                watcher.push(CHILDREN, watched("/watched", True))
            for watcher in watchers:
                assert watcher.reply()[2] == 0 and watcher.reply()[2] == 0
            with Beside(writer) as beside:
                beside.after_calm()
                assert owner.call(DELETE, ustring("/watched") + struct.pack(">i", -1))[1] == 0
                for watcher in watchers:
                    assert struct.unpack_from(">i", watcher.reply()[3])[0] == 2
            verdict(f"a delete was told to {count} connections", beside)
        finally:
            for watcher in watchers:
                watcher.close()
