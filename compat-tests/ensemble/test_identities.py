"""What a client may be known by: what the door lets in fits through the way to the leader."""
import struct

import pytest
from clients import connect
from harness.wire import AUTH, CREATE, SET, WHO_AM_I, Closed, Fields, Session, buffer, create, set_data, ustring
from members import Ensemble

AUTH_FAILED = -115
# The address is one of them.
MAX_IDS, MAX_BYTES = 64, 65_536


@pytest.fixture(scope="module")
def ensemble():
    with Ensemble("zzz") as running:
        yield running


def auth(user):
    body = struct.pack(">i", 0) + ustring("digest") + buffer(user + b":p")
    return struct.pack(">iii", len(body) + 8, -4, AUTH) + body


def outcomes(session, count):
    """The errors of so many answers, up to the end of the connection."""
    found = []
    try:
        for _ in range(count):
            found.append(session.reply()[2])
    except Closed:
        pass
    return found


def followers(ensemble):
    return [member for member in ensemble if member.mode() == "follower"]


@pytest.mark.parametrize("users", [[b"user-%d" % at for at in range(1100)], [b"%02d" % at + b"x" * 1_000_000 for at in range(3)],
                                   [b"%02d" % at + b"\xff" * 1000 for at in range(30)]], ids=["many", "large", "no text"])
def test_more_identities_than_fit_end_their_connection_alone(ensemble, users):
    """On both followers in turn it would take the leader its quorum."""
    leader = ensemble.leader()
    before = leader.srvr()[1] >> 32
    others = [connect(member) for member in ensemble]
    for follower in followers(ensemble):
        with Session(follower.port) as session:
            for user in users:
                try:
                    session.send(auth(user))
                except OSError:
                    break
            try:
                session.push(CREATE, create(f"/of-many-{follower.sid}-{len(users)}"))
            except OSError:
                pass
            found = outcomes(session, len(users) + 1)
        for other in others:
            assert other.call(SET, set_data("/", b""))[1] == 0, "others are not disturbed"
        assert found[-1] == AUTH_FAILED and set(found[:-1]) <= {0} and len(found) <= MAX_IDS, found
        assert "it has proved" in follower.log()
    assert (ensemble.leader(), leader.srvr()[1] >> 32) == (leader, before)
    for other in others:
        other.close()


@pytest.mark.parametrize("count", [1, MAX_IDS - 1])
def test_as_many_as_fit_go_with_a_large_write(ensemble, count):
    for member in ensemble:
        with Session(member.port) as session:
            room = (MAX_BYTES - 24) // count - 14 - 29
            for at in range(count):
                # Once more is not one more.
                session.send(2 * auth(b"%02d" % at + b"x" * (room - 2)))
            assert outcomes(session, 2 * count) == 2 * count * [0]
            path = f"/within-{member.sid}-{count}"
            assert session.call(CREATE, create(path, bytes(1_000_000), acls=[(31, "auth", "")]))[1] == 0
            # More of them than fit into one queue on the way to the leader.
            xids = [session.push(SET, set_data(path, b"%d" % at)) for at in range(3000)]
            assert [session.reply()[::2][0] for _ in xids] == xids
            known = Fields(session.call(WHO_AM_I)[2])
            assert known.int() == count + 1


def test_identities_that_are_there_already_cost_nothing(ensemble):
    follower = followers(ensemble)[0]
    with Session(follower.port, timeout=20) as session:
        session.send(b"".join(auth(b"user-%d" % at) for at in range(MAX_IDS - 1)))
        assert outcomes(session, MAX_IDS - 1) == (MAX_IDS - 1) * [0]
        again = auth(b"user-7") * 1000
        for _ in range(20):
            session.send(again)
            assert outcomes(session, 1000) == 1000 * [0]
        assert session.call(SET, set_data("/", b""))[1] == 0
