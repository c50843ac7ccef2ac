"""Who has a history and who has none: servers with empty disks beside one that has data lose nothing of it.

ROUNDS_A1 is the number of rounds of each story, AT_ONCE how many run side by side; MIXES=all has every mix of kinds and histories."""
import functools
import itertools
import os
import shutil
import time

import pytest
from clients import assert_equal_trees, read_tree, write
from rounds import (KIND, backup, follow_page, give, histories_of_both_kinds, history_of_one, history_of_three,
                    judge, laid_out, play, side_by_side)

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


def three_of_five(history, number):
    """Two of five have the history; all start at the same time."""
    with laid_out(5 * KIND) as ensemble:
        pairs = list(itertools.combinations(ensemble, 2))
        holders = pairs[number % len(pairs)]

        def story():
            for holder in holders:
                give(holder, history)
            for member in sorted(ensemble, key=lambda member: member in holders):
                member.start()
        return play(number, ensemble, story, history.paths)


def wiped_while_one_runs(history, number):
    """Two of three lose their disks while the third runs on."""
    with laid_out(THREE) as ensemble:
        for member in ensemble:
            give(member, history)
            member.start()
        ensemble.wait_until_all_serve()
        kept = ensemble[number % 3 + 1]
        others = [member for member in ensemble if member is not kept]

        def story():
            for member in others:
                member.kill()
                member.wipe()
            for member in others:
                member.start()
        return play(number, ensemble, story, history.paths)


def test_from_one_server_to_three_keeps_what_the_one_has(alone):
    judge("(a) from one to three, all start at once", side_by_side(functools.partial(all_at_once, alone, [1]), ROUNDS))


def test_two_of_three_empty_disks_lose_nothing(member):
    judge("(b) two disks are empty, all start at once", side_by_side(functools.partial(all_at_once, member, [1, 2, 3]), ROUNDS))


def test_three_of_five_empty_disks_lose_nothing(member):
    judge("(b) three of five disks are empty, all start at once", side_by_side(functools.partial(three_of_five, member), ROUNDS))


def test_two_disks_that_are_lost_at_run_time_lose_nothing(member):
    judge("(b) two disks are lost, the third server runs", side_by_side(functools.partial(wiped_while_one_runs, member), ROUNDS))


def test_a_backup_on_one_server_is_everybodys(snapshot):
    judge("(c) a snapshot on one server, all start at once", side_by_side(functools.partial(all_at_once, snapshot, [1, 2, 3]), ROUNDS))


def test_the_server_with_the_data_may_come_late(alone):
    judge("(d) the one with data comes 1.5 s later", side_by_side(functools.partial(late, alone), ROUNDS))


def test_the_server_with_the_data_may_serve_alone_when_the_others_come(alone):
    judge("(d) the one with data still runs alone", side_by_side(functools.partial(still_alone, alone), ROUNDS))


def begun_without(ensemble, absent, writes):
    """The others, which have nothing, wait for the absent one as long as is set, and begin without it."""
    others = [member for member in ensemble if member is not absent]
    for member in others:
        member.start()
    begun = time.monotonic()
    ensemble.wait_until_all_serve()
    seconds = time.monotonic() - begun
    for number in range(writes):
        write(others[0], f"/new-{number}")
    return others, seconds


def test_empty_servers_begin_without_a_voter_that_does_not_come():
    with laid_out(THREE, {"emptyServerWaitMs": "1000"}) as ensemble:
        _, seconds = begun_without(ensemble, ensemble[1], 1)
        print(f"\ntwo empty servers that are told to wait 1 s for the third serve after {seconds:.2f} s")
        assert 0.8 < seconds < 2.5
        ensemble[1].start()
        ensemble.wait_until_all_serve()
        assert_equal_trees(ensemble)


def test_an_empty_leader_gives_way_to_a_history(alone):
    """The empty ones have waited, and have begun, and have nothing yet."""
    with laid_out(THREE, {"emptyServerWaitMs": "300"}) as ensemble:
        late, *_ = ensemble
        give(late, alone)
        begun_without(ensemble, late, 0)
        late.start()
        ensemble.wait("it serves", lambda: late.mode() and ensemble.wait_until_all_serve())
        for member in ensemble:
            assert set(alone.paths) <= set(read_tree(member)), f"{member}\n{ensemble.state()}"


def files_of(member):
    return {path.name: path.read_bytes() for path in member.files.iterdir() if path.name.startswith(("log.", "snapshot."))}


@pytest.mark.parametrize("name, writes", [("alone", 5), ("alone", 60), ("member", 5), ("member", 60)])
def test_a_history_that_comes_too_late_is_not_touched_and_both_ways_out_are_told(request, name, writes):
    """The empty ones have waited, have begun, and have a history of their own, of the same epoch as an ensemble's first."""
    history = request.getfixturevalue(name)
    with laid_out(THREE, {"emptyServerWaitMs": "300"}) as ensemble:
        late, *_ = ensemble
        give(late, history)
        others, _ = begun_without(ensemble, late, writes)
        before = files_of(late)
        late.start()
        assert late.process.wait(30) == 1
        (told,) = [line for line in late.log().splitlines() if "ERROR" in line]
        assert "shares nothing with this server's" in told and "Nothing was changed" in told
        assert files_of(late) == before
        write(others[0], "/last")
        # "To keep this server's history, stop all servers, move the directory version-2 of the others aside, and start all."
        assert "stop all servers, move the directory version-2 of the others aside, and start all" in told
        asides = {}
        ensemble.stop()
        for member in others:
            asides[member] = shutil.move(member.files, member.dir / "aside")
        for member in ensemble:
            member.start()
        ensemble.wait_until_all_serve()
        for member in ensemble:
            assert set(history.paths) <= set(read_tree(member)), f"{member} when the history is kept"
        # "To give it up, move version-2 of this server aside, and start it."
        assert "move version-2 of this server aside, and start it" in told
        ensemble.stop()
        for member in others:
            member.wipe()
            shutil.move(asides[member], member.files)
            member.start()
        late.wipe()
        late.start()
        ensemble.wait_until_all_serve()
        for member in ensemble:
            assert "/last" in read_tree(member), f"{member} when the history is given up"


def test_what_a_leader_has_cut_is_kept_and_can_be_gone_back_to():
    with laid_out(THREE) as ensemble:
        for member in ensemble:
            member.start()
        ensemble.wait_until_all_serve()
        old = ensemble.leader()
        lost = [f"/lost-{number}" for number in range(20)]
        ensemble.diverge(old, lost)
        for member in ensemble:
            if member is not old:
                member.start()
        ensemble.wait_until_all_serve()
        assert ensemble.come_back(old) == ["TRUNC"]
        follow_page(old)
        for member in ensemble:
            assert set(lost) <= set(read_tree(member)), f"{member} after the way back"


def test_what_a_java_leader_replaces_is_kept_and_can_be_gone_back_to(alone):
    """Java's servers begin without the third one, do not say where their history comes from, and may have begun with that of the
    third one for all that it can see."""
    with laid_out("zjj") as ensemble:
        late, *others = ensemble
        give(late, alone)
        begun_without(ensemble, late, 60)
        late.start()
        ensemble.wait_until_all_serve()
        assert late.ways() == ["SNAP"]
        assert not set(alone.paths) & set(read_tree(late))
        follow_page(late)
        for member in ensemble:
            assert set(alone.paths) <= set(read_tree(member)), f"{member} after the way back"


def mixes():
    """The kinds of the servers, and which of them have the history."""
    few = [("jzz", (1,)), ("zjz", (3,)), ("jjzzz", (1, 2))]
    if os.environ.get("MIXES") != "all":
        return few
    threes = ["".join(kinds) for kinds in itertools.product("jz", repeat=3) if "z" in kinds]
    holders = [some for count in (1, 2, 3) for some in itertools.combinations((1, 2, 3), count)]
    fives = [("jzzzz", (1,)), ("zzzzj", (5,)), ("jzzzz", (5,)), ("zjjzz", (2, 3)), ("jjzzz", (1, 4)), ("jjjzz", (1, 2, 3))]
    return [*itertools.product(threes, holders), few[2], *fives]


def is_up(member):
    try:
        return member.word("ruok") == "imok"
    except OSError:
        return False


def mixed(histories, mixes, number):
    """One mix twice: all start at the same time, or the others once those with the history are up."""
    kinds, holders = mixes[number // 2]
    first = holders if number % 2 else ()
    with laid_out(kinds) as ensemble:
        for member in ensemble:
            if member.sid in holders:
                give(member, histories[member.java])

        def story():
            for sid in first:
                ensemble[sid].start()
            for sid in first:
                ensemble.wait("it is up", lambda sid=sid: is_up(ensemble[sid]))
            for member in ensemble:
                if member.sid not in first:
                    member.start()
        # Java's servers without a history may elect one of themselves.
        empty = sum(member.java and member.sid not in holders for member in ensemble)
        paths = histories[True].paths if empty <= len(kinds) // 2 else ()
        found = play(number, ensemble, story, paths, 60)
        return found._replace(wrong=found.wrong and f"{found.wrong}: {kinds}, {holders} have the history, {first} are first")


def test_servers_of_both_kinds_begin_with_any_of_them_having_the_history(tmp_path):
    some = mixes()
    story = functools.partial(mixed, histories_of_both_kinds(tmp_path), some)
    judge("mixes of kinds and of histories", side_by_side(story, 2 * len(some)))
