"""Read-only mode: what a server that is cut off from its ensemble lets clients do. Java's servers give the same."""
import pytest
from clients import CLOSE, Closed, assert_equal_trees, connect, ok, write
from harness.wire import (CHILDREN, CREATE, DELETE, EXISTS, GET, MULTI, PING, SET, SYNC, Fields, Session, create, set_data, ustring,
                          watched)
from members import Ensemble

NOT_READ_ONLY = -119
READ_ONLY = {"readonlymode.enabled": "true"}
# Without it Java has no session for anybody there.
LOCAL = {"localSessionsEnabled": "true", "localSessionsUpgradingEnabled": "true"}


def read(member, **rest):
    return Session(member.port, read_only=b"\1", host=member.host, **rest)


def is_told_read_only(session):
    return session.hello[-1] == 1


def cut_off(ensemble):
    """The only one left of three, once it has given up."""
    kept, *others = ensemble
    for member in others:
        member.stop()
    ensemble.wait("it is read-only", lambda: kept.word("isro") == "ro")
    return kept


def is_turned_away(open_session):
    try:
        with open_session():
            return False
    except (Closed, ConnectionResetError):
        return True


@pytest.mark.parametrize("kinds, settings", [("jjj", LOCAL), ("zzz", LOCAL), ("zzz", {})])
def test_a_server_that_is_cut_off_lets_clients_read(kinds, settings):
    with Ensemble(kinds, settings, READ_ONLY) as ensemble:
        assert ensemble[1].word("isro") == "rw"
        path = "/kept"
        write(ensemble[1], path, b"here")
        with connect(ensemble[1]) as session:
            # A session becomes everybody's with an ephemeral.
            ok(session, CREATE, create("/mine", b"", 1))
            owner = {"session": session.session, "passwd": session.passwd}
            assert not is_told_read_only(session)
        assert_equal_trees(ensemble.running())
        kept = cut_off(ensemble)
        assert "Mode: read-only" in kept.word("srvr")
        assert kept.mntr()["zk_server_state"] == "read-only"

        with read(kept) as session:
            assert is_told_read_only(session)
            assert kept.mntr()["zk_local_sessions"] == "1"
            zxid, _ = ok(session, EXISTS, watched(path, True))
            assert Fields(ok(session, GET, watched(path))[1]).buffer() == b"here"
            assert set(Fields(ok(session, CHILDREN, watched("/"))[1]).strings()) == {"kept", "mine", "zookeeper"}
            assert session.call(PING, xid=-2)[1] == 0
            for op, body in [(CREATE, create("/new")), (DELETE, ustring(path) + b"\xff" * 4), (SET, set_data(path, b"new")),
                             (SYNC, ustring("/")), (MULTI, b"\xff" * 4 + b"\1" + b"\xff" * 4)]:
                assert session.call(op, body) == (zxid, NOT_READ_ONLY, b""), op
            assert Fields(ok(session, GET, watched(path))[1]).buffer() == b"here"
            again = {"session": session.session, "passwd": session.passwd}
        assert is_turned_away(lambda: connect(kept)), "who would write"
        assert is_turned_away(lambda: read(kept, **owner)), "whose session is the ensemble's"
        assert is_turned_away(lambda: read(kept, last_zxid=zxid + 1)), "who has seen more"
        with read(kept, **again) as session:
            assert (session.session, is_told_read_only(session)) == (again["session"], True)
            ok(session, EXISTS, watched(path))
            assert session.call(CLOSE) == (zxid, 0, b"")
            assert session.is_closed()
        with read(kept, **again) as session:
            assert (session.session, session.timeout_ms, session.hello[-1]) == (0, 0, 1), "a session that is over"

        # There is a leader again: who reads has to go, and finds it everywhere.
        with read(kept, timeout=60) as session:
            ensemble[2].start()
            assert session.is_closed()
        ensemble[3].start()
        ensemble.wait_until_all_serve()
        assert kept.word("isro") == "rw"
        with read(kept) as session:
            assert not is_told_read_only(session)
        with connect(kept, **owner) as session:
            assert session.session == owner["session"]
        write(kept, "/after")
        assert_equal_trees(ensemble.running())
