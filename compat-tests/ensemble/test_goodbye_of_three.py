"""What a client says before it goes is done at each server of an ensemble, in order. `KINDS=jjj` asks Java's servers."""
import os

import pytest
from clients import connect
from harness.goodbye import leave, not_so
from harness.wire import AUTH, CREATE, Closed, Session, buffer, create
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
