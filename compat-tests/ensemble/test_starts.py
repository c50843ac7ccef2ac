"""Every common start comes up at once: stop all, start all, again and again, until every server serves.

STARTS is the number of starts in all. The times count from the last process' start. What a slow sync took meanwhile is not the servers'."""
import contextlib
import multiprocessing
import os
import random
import time

import pytest
from clients import write
from members import Ensemble, die_with_parent
from rounds import KIND, laid_out, spread
from syncs import Syncs

STARTS = int(os.environ.get("STARTS", "24"))
SEED = int(os.environ.get("SEED", str(random.SystemRandom().randrange(1 << 32))))
# What a server that was left out would wait for is ten times the limit.
SETTINGS = {"tickTime": "1000", "initLimit": "10", "syncLimit": "5"}
LIMIT = 1.0
VARIANTS = [(3, 3), (5, 5), (5, 4)]


def burn():
    die_with_parent()
    while True:
        pass


@contextlib.contextmanager
def busy(burners):
    """So many processes that want the processors for themselves."""
    running = [multiprocessing.get_context("fork").Process(target=burn, daemon=True) for _ in range(burners)]
    for process in running:
        process.start()
    try:
        yield
    finally:
        for process in running:
            process.kill()
            process.join(10)


def seconds_until_all_serve(ensemble, members, patience):
    """Asked every few milliseconds: across processes there is nothing to await but the next answer."""
    begun = time.monotonic()
    waiting = list(members)
    while True:
        waiting = [member for member in waiting if not member.mode()]
        if not waiting and [member.mode() for member in members].count("leader") == 1:
            return time.monotonic() - begun
        assert time.monotonic() < begun + patience, f"{waiting} do not serve after {patience} s\n{ensemble.state(60)}"
        time.sleep(0.003)


def stop_all(ensemble, kill):
    for member in ensemble.running():
        if kill:
            member.process.kill()
        else:
            member.process.terminate()
    for member in ensemble:
        member.process and member.process.wait(30)


@pytest.mark.parametrize("burners", [0, os.cpu_count()], ids=["idle", "busy"])
@pytest.mark.parametrize("size, started", VARIANTS)
def test_all_serve_within_a_second_after_a_start(size, started, burners):
    chance = random.Random(f"{SEED}/{size}/{started}/{burners}")
    count = max(1, STARTS // (2 * len(VARIANTS)))
    taken, late = [], []
    with Ensemble(size * KIND, SETTINGS) as ensemble, busy(burners), Syncs(ensemble.dir) as syncs:
        for number in range(count):
            if number == count // 2:
                # Until then there is nothing: that has to start, too.
                write(ensemble.leader(), "/some")
            stop_all(ensemble, kill=number % 2)
            members = chance.sample(list(ensemble), started)
            apart = 0.04 / (started - 1) if number // 2 % 2 else 0
            marks = {member: len(member.log()) for member in members}
            for place, member in enumerate(members):
                if place:
                    # Within 40 ms: the moments of the starts are the story.
                    time.sleep(chance.uniform(0, apart))
                member.start()
            begun = time.monotonic()
            seconds = seconds_until_all_serve(ensemble, members, 60)
            taken.append(seconds)
            if seconds > LIMIT:
                waited = syncs.waited(begun)
                print(f"\nstart {number} took {seconds:.2f} s, {waited:.2f} s of them slow syncs", flush=True)
                if seconds - waited > LIMIT:
                    logs = "".join(f"== {member}\n{member.log()[mark:]}" for member, mark in marks.items())
                    late.append(f"start {number} took {seconds:.2f} s, {waited:.2f} s of them slow syncs\n{logs}")
    print(f"\n{started} of {size} {'busy' if burners else 'idle'}: {count} starts, {len(late)} over {LIMIT:.0f} s; "
          f"all served after {spread(taken)}", flush=True)
    assert not late, f"SEED={SEED}: {len(late)} of {count} starts took longer than {LIMIT} s without slow syncs; {late[0]}"


def test_a_new_ensemble_begins_at_once_when_all_are_up():
    """Nobody has a history, and everybody tells so."""
    for number in range(3):
        with laid_out(3 * KIND, SETTINGS) as ensemble, Syncs(ensemble.dir) as syncs:
            for member in ensemble:
                member.start()
            begun = time.monotonic()
            seconds = seconds_until_all_serve(ensemble, list(ensemble), 30)
            waited = syncs.waited(begun)
        print(f"\na new ensemble of three serves after {seconds * 1000:.0f} ms, {waited * 1000:.0f} ms of them slow syncs")
        assert seconds - waited < LIMIT
