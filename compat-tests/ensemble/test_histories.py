"""Who has a history and who has none: servers with empty disks beside one that has data lose nothing of it.

ROUNDS_A1 is the number of rounds of each story, AT_ONCE how many run side by side."""
import functools
import os
import time

import pytest
from rounds import KIND, backup, give, history_of_one, history_of_three, judge, laid_out, play, side_by_side

ROUNDS = int(os.environ.get("ROUNDS_A1", "4"))
# Seconds.
LATER = (0.05, 0, 0.02, 0.15)
THREE = 3 * KIND


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    return history_of_one(tmp_path_factory.mktemp("alone") / "version-2")


@pytest.fixture(scope="module")
def member(tmp_path_factory):
    return history_of_three(tmp_path_factory.mktemp("member") / "version-2")


@pytest.fixture(scope="module")
def snapshot(tmp_path_factory):
    return backup(tmp_path_factory.mktemp("backup") / "version-2")


def all_at_once(history, holders, number):
    """All start at the same time; the one of `holders` whose turn it is has the history, the others' disks are empty."""
    with laid_out(THREE) as ensemble:
        holder = ensemble[holders[number % len(holders)]]
        give(holder, history)

        def story():
            for member in ensemble:
                if member is not holder:
                    member.start()
            # Who has more to read is a little later to tell: nothing to await.
            time.sleep(LATER[number % len(LATER)])
            holder.start()
        return play(number, ensemble, story, history.paths)


def late(history, number):
    """The one that has the history comes 1.5 s after the empty ones."""
    with laid_out(THREE) as ensemble:
        holder, *others = ensemble
        give(holder, history)

        def story():
            for member in others:
                member.start()
            # How late it is, is the story: nothing to await.
            time.sleep(1.5)
            holder.start()
        return play(number, ensemble, story, history.paths)


def still_alone(history, number):
    """The empty ones come with the list of three while the one with the history still runs alone, with its old
    configuration; then it is started again with the list, too."""
    with laid_out(THREE) as ensemble:
        holder, *others = ensemble
        give(holder, history)

        def story():
            holder.set_up([])
            holder.start()
            ensemble.wait_until_serves(holder)
            for member in others:
                member.start()
            # As above.
            time.sleep(1.5)
            holder.stop()
            holder.set_up()
            holder.start()
        return play(number, ensemble, story, history.paths)


def test_from_one_server_to_three_keeps_what_the_one_has(alone):
    judge("(a) from one to three, all start at once", side_by_side(functools.partial(all_at_once, alone, [1]), ROUNDS))


def test_two_of_three_empty_disks_lose_nothing(member):
    judge("(b) two disks are empty, all start at once", side_by_side(functools.partial(all_at_once, member, [1, 2, 3]), ROUNDS))


def test_a_backup_on_one_server_is_everybodys(snapshot):
    judge("(c) a snapshot on one server, all start at once", side_by_side(functools.partial(all_at_once, snapshot, [1, 2, 3]), ROUNDS))


def test_the_server_with_the_data_may_come_late(alone):
    judge("(d) the one with data comes 1.5 s later", side_by_side(functools.partial(late, alone), ROUNDS))


def test_the_server_with_the_data_may_serve_alone_when_the_others_come(alone):
    judge("(d) the one with data still runs alone", side_by_side(functools.partial(still_alone, alone), ROUNDS))
