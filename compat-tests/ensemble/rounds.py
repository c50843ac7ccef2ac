"""Many rounds of the same story, several side by side, each on an ensemble of its own; and the histories that servers begin with."""
import concurrent.futures
import contextlib
import multiprocessing
import os
import pathlib
import re
import shutil
import statistics
import time
from collections import namedtuple

from clients import Closed, assert_equal_trees, connect, create, ok, read_tree
from harness.server import IS_JAVA
from harness.wire import CLOSE, CREATE
from members import PORTS, Ensemble, die_with_parent

KIND = "j" if IS_JAVA else "z"
AT_ONCE = int(os.environ.get("AT_ONCE", "3"))
# Shared out among those that run side by side, as a server keeps its ports while it is down.
FIRST_PORT, LAST_PORT = 10_000, 32_000

# A server's files, and the paths that they hold.
History = namedtuple("History", "files paths")
# `seconds` until all served; `wrong` says what was not as it should be.
Round = namedtuple("Round", "number seconds wrong state")


def percentile(values, share):
    return sorted(values)[min(len(values) - 1, int(len(values) * share))]


def spread(seconds):
    ms = [value * 1000 for value in seconds]
    return f"{statistics.median(ms):.0f} ms (median), {percentile(ms, 0.99):.0f} ms (p99), {max(ms):.0f} ms (max)"


@contextlib.contextmanager
def laid_out(kinds, settings=None, flags=None):
    """An ensemble with its configurations and no server that runs yet."""
    ensemble = Ensemble(kinds, settings, flags)
    failed = True
    try:
        ensemble.set_up()
        yield ensemble
        failed = False
    finally:
        ensemble.__exit__(failed)


def begin_worker(taken):
    # A server ends with the thread that started it: that is this process's only one.
    die_with_parent()
    with taken.get_lock():
        number, taken.value = taken.value, taken.value + 1
    width = (LAST_PORT - FIRST_PORT) // AT_ONCE
    first = FIRST_PORT + width * (number % AT_ONCE)
    PORTS.keep_to(first, first + width - 1)


def side_by_side(story, count):
    """What `story(number)` gives for each number, in processes of their own."""
    forked = multiprocessing.get_context("fork")
    taken = forked.Value("i", 0)
    with concurrent.futures.ProcessPoolExecutor(AT_ONCE, forked, begin_worker, (taken,)) as pool:
        return list(pool.map(story, range(count)))


def judge(name, rounds):
    """Prints the figures of `rounds`, and fails where one went wrong."""
    wrong = [found for found in rounds if found.wrong]
    kinds = sorted({found.wrong.split(":")[0] for found in wrong})
    counts = ", ".join(f"{sum(found.wrong.startswith(kind) for found in wrong)} {kind}" for kind in kinds)
    served = [found.seconds for found in rounds if found.seconds is not None]
    print(f"\n{name}: of {len(rounds)} rounds {counts or '0 went wrong'}; "
          f"all served after {spread(served) if served else 'no time at all'}", flush=True)
    if wrong:
        texts = "".join(f"\nround {found.number}: {found.wrong}" for found in wrong)
        raise AssertionError(f"{name}: {counts} of {len(rounds)}{texts}\nThe first of them:\n{wrong[0].state}")


def play(number, ensemble, story, paths=(), limit=40):
    """Runs `story`, and waits until all serve and hold all of `paths`. The time counts from the story's end."""
    try:
        story()
        begun = time.monotonic()
        ensemble.wait_until_all_serve(limit)
        seconds = time.monotonic() - begun
    except AssertionError as error:
        return Round(number, None, f"do not serve: {str(error).splitlines()[0]}", ensemble.state(60))
    missing = {member: sorted(set(paths) - set(read_tree(member))) for member in ensemble.running()}
    lost = {member: len(gone) for member, gone in missing.items() if gone}
    return Round(number, seconds, f"lost: {lost} of {len(paths)} znodes" if lost else "", ensemble.state(60) if lost else "")


def wait_for_equal_trees(ensemble, seconds=20):
    """All serve, and have the same; meanwhile servers may stop serving and begin again."""
    def are_equal():
        try:
            ensemble.wait_until_all_serve()
            return assert_equal_trees(ensemble.running())
        except (AssertionError, OSError, Closed):
            return None
    return ensemble.wait("the trees are equal", are_equal, seconds)


def follow_page(member):
    """What this server had was taken from it and kept: does what the page beside it tells, here and at the others."""
    ensemble = member.ensemble
    (told,) = [line for line in member.log().splitlines() if "WARN" in line and "is kept" in line]
    (page,) = member.files.glob("kept.*/README")
    assert str(page) in told
    steps = re.findall(r"^\d\. (.*)", page.read_text(), re.M)
    assert [step.split()[0] for step in steps] == ["Stop", "Here,", "On", "Start"], steps
    ensemble.stop()
    if "move all files out of" in steps[1]:
        for path in member.files.iterdir():
            if path.is_file():
                path.unlink()
    for path in page.parent.iterdir():
        if path != page:
            shutil.move(path, member.files)
    for other in ensemble:
        if other is not member:
            other.wipe()
    for other in ensemble:
        other.start()
    ensemble.wait_until_all_serve()


def give(member, history):
    """Has the server begin with these files."""
    shutil.copytree(history.files, member.files)


def fill(member, count=30):
    paths = [f"/kept-{number}" for number in range(count)]
    with connect(member, timeout=30) as session:
        for path in paths:
            ok(session, CREATE, create(path, path.encode()))
        session.call(CLOSE)
    return paths


def keep_files(member, into):
    shutil.copytree(member.files, into)
    return pathlib.Path(into)


def history_of_one(into, kind=KIND):
    """What a server has that served alone."""
    with laid_out(kind) as ensemble:
        ensemble[1].set_up([])
        ensemble[1].start()
        ensemble.wait_until_serves(ensemble[1])
        paths = fill(ensemble[1])
        ensemble.stop()
        return History(keep_files(ensemble[1], into), paths)


def history_of_three(into, kinds=3 * KIND):
    """What a member of an ensemble has."""
    with laid_out(kinds) as ensemble:
        for member in ensemble:
            member.start()
        ensemble.wait_until_all_serve()
        paths = fill(ensemble.leader())
        for member in ensemble:
            ensemble.wait(f"{member} has it all", lambda member=member: member.has_logged(paths[-1]), 5)
        ensemble.stop()
        return History(keep_files(ensemble[1], into), paths)


def histories_of_both_kinds(into):
    """What a Java server has, and what ours has, of the same ensemble."""
    with laid_out("jzz") as ensemble:
        for member in ensemble:
            member.start()
        ensemble.wait_until_all_serve()
        paths = fill(ensemble.leader())
        for member in ensemble:
            ensemble.wait(f"{member} has it all", lambda member=member: member.has_logged(paths[-1]), 5)
        ensemble.stop()
        return {member.java: History(keep_files(member, into / member.kind), paths) for member in (ensemble[1], ensemble[2])}


def backup(into, kind=KIND):
    """A snapshot of an ensemble's member, alone."""
    with laid_out(3 * kind, {"snapCount": "10"}) as ensemble:
        for member in ensemble:
            member.start()
        ensemble.wait_until_all_serve()
        fill(ensemble.leader(), 60)

        def newest():
            found = {int(path.suffix[1:], 16): path for path in ensemble[1].files.glob("snapshot.*") if path.suffix[1:]}
            zxid = max(found)
            return found[zxid] if zxid & 0xFFFFFFFF else None
        ensemble.wait("a snapshot", newest, 10)
        ensemble.stop()
        into = pathlib.Path(into)
        into.mkdir()
        shutil.copy(newest(), into)
    # What it holds, a server alone tells.
    with laid_out(kind) as ensemble:
        give(ensemble[1], History(into, ()))
        ensemble[1].set_up([])
        ensemble[1].start()
        ensemble.wait_until_serves(ensemble[1])
        paths = [path for path in read_tree(ensemble[1]) if path.startswith("/kept-")]
    assert paths
    return History(into, paths)
