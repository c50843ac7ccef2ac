"""kill -9 of the leader under load, again and again: no acknowledged write is lost, no session of 10 s expires; how long it takes until
the next write is accepted."""
import os
import random
import statistics
import threading
import time

import pytest
from load import WRITES, Load, set_up
from logs import Archive
from members import Ensemble
from verdict import assert_none, verdict

KILLS = int(os.environ.get("KILLS", "100"))
SEED = int(os.environ.get("SEED", str(random.SystemRandom().randrange(1 << 32))))
TICK_MS = 2000
SETTINGS = {"tickTime": str(TICK_MS), "initLimit": "10", "syncLimit": "5", "snapCount": "20000"}


def percentile(values, share):
    return sorted(values)[min(len(values) - 1, int(len(values) * share))]


@pytest.mark.parametrize("size", [3, 5])
def test_the_leader_is_killed_under_load(size):
    print(f"\nSEED={SEED} KILLS={KILLS}, {size} servers")
    chance = random.Random(f"{SEED}/{size}")
    kills = []
    with Ensemble("z" * size, SETTINGS) as ensemble:
        archive = Archive()
        set_up(ensemble[1])
        mix = {**WRITES, "get": 3}
        with Load(ensemble, 4, SEED, rate=300, timeouts=(10_000, 15_000), mix=mix, end_sessions=False) as load:
            for _ in range(KILLS):
                # The moment of the kill is what is random here: nothing to await.
                threading.Event().wait(chance.uniform(0.05, 0.3))
                leader = ensemble.wait_for_leader()
                _, zxid = leader.srvr()
                at = time.monotonic_ns()
                leader.kill()
                archive.collect([leader])
                kills.append((at, zxid >> 32))
                ensemble.wait_for_leader(30)
                leader.start()
                ensemble.wait_until_all_serve(30)
            histories = load.stop()
        checker = verdict(ensemble, archive, histories, TICK_MS)
        assert_none(checker, ensemble, f"SEED={SEED}")
    expired = [(session, timeout) for session, timeout in checker.expired if timeout >= 10_000]
    assert not expired, f"SEED={SEED}: sessions expired: {expired}"
    # The first write that was answered in a later epoch than the killed leader's, and that was asked for at any time.
    acked = sorted((event[6], event[8] >> 32) for event in checker.acked_writes())
    gaps = []
    for at, epoch in kills:
        after = next((t1 for t1, of in acked if t1 > at and of > epoch), None)
        assert after, f"no write after the kill in epoch {epoch}"
        gaps.append((after - at) / 1e6)
    median, p99 = statistics.median(gaps), percentile(gaps, 0.99)
    counts = dict(checker.counts)
    print(f"{size} servers, leader killed {KILLS} times: next accepted write after {median:.0f} ms (median), {p99:.0f} ms (p99), "
          f"{max(gaps):.0f} ms (max); {counts['writes']} writes answered, none lost; "
          f"{counts['sessions']} sessions, {len(expired)} expired; {counts}")
