"""What an operator reads in the log of an ensemble: what starts, who serves, and who comes and goes."""
import re

import pytest
from members import Ensemble


@pytest.fixture(scope="module")
def ensemble():
    with Ensemble("zzz") as ensemble:
        ensemble.wait_until_all_serve()
        yield ensemble


def lines(member, text):
    return [line for line in member.log().splitlines() if text in line]


def test_the_first_line_says_what_starts(ensemble):
    for member in ensemble:
        _, first, *_ = member.log().splitlines()  # the line before is the test's own
        assert re.search(rf"zabra \S+ starting config=\S+ server={member.sid} of 3 data=\S+ log=\S+ pid={member.process.pid}$", first), first


def test_nobody_says_that_it_serves_before_it_does(ensemble):
    leader = ensemble.leader()
    for member in ensemble:
        log = member.log()
        opened, serves = log.index("client port open addr="), log.index("serving clients role=")
        assert opened < serves and "; waiting for a leader" in log[opened:serves], log
        role = "leader" if member is leader else f"follower leader={leader.sid}"
        assert re.search(rf"serving clients role={role} epoch=\d+", log[serves:]), log


def test_a_leader_names_the_learners_that_come_and_go(ensemble):
    leader = ensemble.leader()
    follower = next(member for member in ensemble if member is not leader)
    assert lines(leader, f"learner joined server={follower.sid} role=follower"), leader.log()
    follower.kill()
    ensemble.wait("the loss is logged", lambda: lines(leader, f"learner lost server={follower.sid} why="), 10)
    other = next(member for member in ensemble if member not in (leader, follower))
    other.kill()
    ensemble.wait("the end of the quorum is logged", lambda: lines(leader, "lost quorum: "), 10)
