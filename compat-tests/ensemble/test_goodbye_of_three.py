"""What a client says before it goes is done at each server of an ensemble, in order. `KINDS=jjj` asks Java's servers."""
import os

import pytest
from harness.goodbye import arrive, last_words, leave, not_so
from members import Ensemble

GOODBYES = int(os.environ.get("GOODBYES", "10"))
KINDS = os.environ.get("KINDS", "zzz")


@pytest.fixture(scope="module")
def ensemble():
    with Ensemble(KINDS) as running:
        yield running


def servers(ensemble):
    leader = ensemble.leader()
    return {"leader": leader, "follower": next(member for member in ensemble if member is not leader)}


@pytest.mark.parametrize("words", ["create get close", "sync get close", "create get create", "create sync get create ping close"])
@pytest.mark.parametrize("role", ["leader", "follower"])
def test_last_words_are_done(ensemble, role, words):
    server = servers(ensemble)[role]
    expected = []
    for at in range(GOODBYES):
        expected += leave(server.port, words.split(), f"/{role}-{words.replace(' ', '-')}-{at}")
    assert not_so(server.port, expected) == []


def test_who_has_gone_is_let_go_while_the_leader_stands_still(ensemble):
    """For less than syncLimit: what was said is done once it goes on."""
    server = servers(ensemble)
    follower, leader = server["follower"], server["leader"]
    sessions = [arrive(follower.port, f"/still-{at}") for at in range(GOODBYES)]
    before = int(follower.mntr()["zk_num_alive_connections"])
    expected = []
    leader.pause()
    try:
        for at, session in enumerate(sessions):
            words, then = last_words(["create", "get", "create", "close"], f"/still-{at}")
            session.send(words)
            session.close()
            expected += then
        ensemble.wait("they are let go", lambda: int(follower.mntr()["zk_num_alive_connections"]) <= before - GOODBYES, 1)
    finally:
        leader.resume()
    assert not_so(follower.port, expected) == []
