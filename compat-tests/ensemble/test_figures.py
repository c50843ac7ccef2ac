"""What `mntr` tells of an ensemble follows its servers as they come and go."""
import os

import pytest
from members import Ensemble

# Java's servers give the same: KIND=j.
KIND = os.environ.get("KIND", "z")


@pytest.fixture
def ensemble():
    """Three voters and an observer, none of which runs."""
    ensemble = Ensemble(3 * KIND + KIND.upper())
    ensemble.set_up()
    yield ensemble
    ensemble.__exit__(None)


def counted(ensemble):
    """Learners, and those of them that are synchronized: followers, observers."""
    leader = ensemble.leader()
    if leader is None:
        return None
    figures = leader.mntr()
    return tuple(int(figures[f"zk_{name}"]) for name in ("learners", "synced_followers", "synced_observers"))


def test_learners_that_come_late_are_counted(ensemble):
    def wait_for(*expected):
        ensemble.wait(f"{expected} are counted", lambda: counted(ensemble) == expected, 10)

    ensemble[1].start()
    ensemble[2].start()
    ensemble.wait_until_all_serve()
    wait_for(1, 1, 0)
    ensemble[3].start()
    wait_for(2, 2, 0)
    ensemble[4].start()
    wait_for(3, 2, 1)
    ensemble[3].kill()
    wait_for(2, 1, 1)
    ensemble[3].start()
    wait_for(3, 2, 1)
    for member in ensemble:
        ensemble.wait("its state is told", lambda member=member: member.mntr().get("zk_peer_state", "").endswith("- broadcast"), 10)
