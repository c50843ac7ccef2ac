"""A server that stands still for longer than sessions live without a word: their clients went on pinging, and none of them ends.

STANDSTILL=… is for how many seconds (sessions live three quarters of that).
"""
import os
import struct
import threading

from harness.goodbye import standing_still
from harness.server import Server
from harness.wire import CREATE, EXISTS, PING, Closed, Session, create, watched

SECONDS = float(os.environ.get("STANDSTILL", "2.5"))
CLIENTS = 60
EPHEMERAL, PINGED = 1, -2


def ping(session):
    session.push(PING, xid=PINGED)


def lives(session, path):
    """Whether the server answers, and has the session's ephemeral."""
    try:
        return session.call(EXISTS, watched(path))[1] == 0
    except (Closed, OSError, struct.error):
        return False


def test_a_standstill_ends_no_session():
    timeout_ms = int(SECONDS * 750)
    with Server({"tickTime": "200", "minSessionTimeout": "400", "maxSessionTimeout": "60000"}) as server:
        sessions = [Session(server.port, timeout_ms, timeout=30) for _ in range(CLIENTS)]
        for at, session in enumerate(sessions):
            assert session.timeout_ms == timeout_ms
            assert session.call(CREATE, create(f"/mine-{at}", flags=EPHEMERAL))[1] == 0
        with standing_still(server.process):
            # A client pings three times in its timeout.
            for _ in range(4):
                threading.Event().wait(SECONDS / 4)
                for session in sessions:
                    ping(session)
        ended = [at for at, session in enumerate(sessions) if not lives(session, f"/mine-{at}")]
        print(f"\n{SECONDS} s of standstill, sessions of {timeout_ms} ms: {len(ended)} of {CLIENTS} ended")
        assert not ended, server.log()
        if not server.java:
            server.wait_until("the standstill is not logged", lambda: "stood still for" in server.log(), 10)
