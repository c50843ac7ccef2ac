"""Answers that clients of an ensemble compare with Java's. SERVER=java asks three Java servers the same."""
import socket
import struct

import pytest
from clients import CREATE, GET, change, connect, ok, reconfig
from harness.server import IS_JAVA
from harness.wire import EXISTS, Closed, Fields, create, ustring, watched
from members import Ensemble

KIND = "j" if IS_JAVA else "z"
MARSHALLING_ERROR, BAD_ARGUMENTS = -5, -8


def config_lines(member):
    with connect(member) as session:
        return sorted(Fields(ok(session, GET, watched("/zookeeper/config"))[1]).buffer().decode().splitlines())


@pytest.fixture(scope="module")
def ensemble():
    with Ensemble(KIND * 3, dynamic=True) as found:
        yield found


@pytest.mark.parametrize("kinds", [KIND * 3, "zjz"])
def test_an_ipv6_address_is_written_as_java_writes_it(kinds):
    if not socket.has_ipv6:
        pytest.skip("this machine has no IPv6")
    ensemble = Ensemble(kinds, dynamic=True)
    for member in ensemble:
        # In the files it stays as an operator wrote it, and as the release before wrote it.
        member.name = "[::1]"
    with ensemble:
        expected = [f"server.{member.sid}=[0:0:0:0:0:0:0:1]:{member.quorum_port}:{member.election_port}:participant;127.0.0.1:{member.port}"
                    for member in ensemble]
        for member in ensemble:
            assert config_lines(member)[:3] == expected, member
        text = change(ensemble, leaving=str(next(member.sid for member in ensemble if member.mode() == "follower")))
        left = [line for line in expected if line in text.splitlines()]
        assert len(left) == 2, text


@pytest.mark.parametrize("what, code", [
    ({"leaving": "x"}, MARSHALLING_ERROR),
    ({"leaving": "1,x"}, MARSHALLING_ERROR),
    ({"joining": "server.x=127.0.0.1:1:2;3"}, MARSHALLING_ERROR),
    ({"joining": "server.4=127.0.0.1:65536:2;3"}, MARSHALLING_ERROR),
    ({"joining": "server.4=127.0.0.1:1:99999;3"}, MARSHALLING_ERROR),
    ({"joining": "server.4=127.0.0.1:1:2;-1"}, MARSHALLING_ERROR),
    ({"members": "server.x=127.0.0.1:1:2;3"}, MARSHALLING_ERROR),
    ({"members": "server.1=127.0.0.1:1:65536;3"}, MARSHALLING_ERROR),
    ({"members": "server.1=127.0.0.1:1:2;3,group.x=1"}, MARSHALLING_ERROR),
    ({"members": "server.1=127.0.0.1:1:2;3,group.1=x"}, MARSHALLING_ERROR),
    ({"joining": "server.4=127.0.0.1:x:2;3"}, BAD_ARGUMENTS),
    ({"joining": "server.4=127.0.0.1:99999999999:2;3"}, BAD_ARGUMENTS),
    ({"joining": "server.4=127.0.0.1:1:2"}, BAD_ARGUMENTS),
    ({"joining": "server.4"}, BAD_ARGUMENTS),
    ({"joining": "server.4=127.0.0.1:1:2:king;3"}, BAD_ARGUMENTS),
    ({"members": "tickTime=1"}, BAD_ARGUMENTS),
])
def test_a_wrong_reconfiguration_is_answered_with_javas_code(ensemble, what, code):
    with connect(ensemble.leader()) as session:
        assert reconfig(session, **what)[1] == code


def test_a_session_that_is_taken_up_with_a_shorter_timeout_lives_by_it(ensemble):
    if IS_JAVA:
        pytest.skip("in an ensemble Java keeps the deadline of the longer timeout")
    for member in ensemble:
        with connect(member, timeout_ms=20_000) as first, connect(member) as watching:
            ok(first, CREATE, create("/shorter", flags=1))
            with connect(member, first.session, first.passwd, timeout_ms=1000) as again:
                assert (first.timeout_ms, again.timeout_ms) == (20_000, 1000)
                ok(watching, EXISTS, watched("/shorter", True))
                watching.socket.settimeout(4)
                assert watching.reply()[3] == struct.pack(">ii", 2, 3) + ustring("/shorter"), member


def test_a_leader_that_leaves_clients_to_others_says_that_it_serves_nobody():
    ensemble = Ensemble(KIND * 3, {"leaderServes": "no"})
    try:
        ensemble.set_up()
        for member in ensemble:
            member.start()
        ensemble.wait("two follow", lambda: [member.mode() for member in ensemble].count("follower") == 2)
        (leader,) = [member for member in ensemble if not member.mode()]
        for word in ("srvr", "stat", "mntr", "cons"):
            assert leader.word(word) == "This ZooKeeper instance is not currently serving requests\n", word
        assert (leader.word("isro"), leader.word("ruok")) == ("null", "imok")
        for member in ensemble:
            assert member is leader or member.word("isro") == "rw"
        with pytest.raises((Closed, OSError)):
            connect(leader)
        follower = next(member for member in ensemble if member is not leader)
        with connect(follower) as session:
            ok(session, CREATE, create("/by-a-follower"))
    finally:
        ensemble.stop()
