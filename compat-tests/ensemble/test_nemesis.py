"""Servers that are killed, stopped, wiped, cut off and starved at random under load; then every history is checked against every log."""
import contextlib
import os
import random
import threading
import time
from collections import Counter

import pytest
from clients import change
from load import Load, set_up
from logs import Archive
from members import Ensemble
from net import Net, is_possible, own_namespaces, small_disk, unmount
from verdict import assert_none, verdict

# Of each size.
SECONDS = float(os.environ.get("NEMESIS_SECONDS", "90"))
SEED = int(os.environ.get("SEED", str(random.SystemRandom().randrange(1 << 32))))
TICK_MS = 200
SYNC_MS = 5 * TICK_MS
SETTINGS = {
    "tickTime": str(TICK_MS),
    "initLimit": "25",
    "syncLimit": "5",
    "cnxTimeout": "500",
    "snapCount": "2000",
    "preAllocSize": "256",
    # At each start, so that a server that lost everything can't be sent all of the log.
    "autopurge.purgeInterval": "1",
}
# Its logs are kept for the checker.
DISK_MB = 48 + int(SECONDS)
pytestmark = pytest.mark.skipif(not is_possible(), reason="namespaces need root")


class Nemesis:
    def __init__(self, ensemble, net, archive, seed):
        self.ensemble, self.net, self.archive = ensemble, net, archive
        self.random = random.Random(seed)
        self.done = Counter()
        self.recoveries = []
        # The one whose disk can run full.
        self.small = ensemble[1]

    def pause(self, low, high):
        # How long a fault lasts is what is random here: nothing to await.
        threading.Event().wait(self.random.uniform(low, high))

    def leader(self):
        return self.ensemble.wait_for_leader(30)

    def follower(self):
        return self.random.choice([member for member in self.ensemble.running() if member is not self.leader()])

    def anybody(self):
        return self.random.choice(self.ensemble.running())

    def minority(self):
        count = (len(self.ensemble.members) - 1) // 2
        return self.random.sample(self.ensemble.running(), self.random.randint(1, count))

    # Faults. Each ends with nothing broken any more, but for the time that servers take to find each other.

    def kill_the_leader(self):
        member = self.leader()
        member.kill()
        self.pause(0, 1)
        member.start()

    def kill_a_follower(self):
        member = self.follower()
        member.kill()
        self.pause(0, 1.5)
        member.start()

    def kill_all_at_once(self):
        for member in self.ensemble:
            member.kill()
        members = list(self.ensemble)
        self.random.shuffle(members)
        for member in members:
            member.start()
            self.pause(0, 0.2)

    def kill_a_majority_one_by_one(self):
        members = list(self.ensemble)
        self.random.shuffle(members)
        for member in members:
            member.kill()
            self.pause(0, 0.3)
            member.start()

    def stop_the_leader(self):
        self.hold(self.leader(), 0.2 * SYNC_MS / 1000, 2.5 * SYNC_MS / 1000)

    def stop_a_follower_shorter_than_sync_limit(self):
        self.hold(self.follower(), 0.05, 0.7 * SYNC_MS / 1000)

    def stop_a_follower_longer_than_sync_limit(self):
        self.hold(self.follower(), 1.2 * SYNC_MS / 1000, 2.5 * SYNC_MS / 1000)

    def hold(self, member, low, high):
        member.pause()
        self.pause(low, high)
        member.resume()

    def restart(self):
        member = self.anybody()
        member.stop()
        self.pause(0, 0.5)
        member.start()

    def wipe_a_minority(self):
        # Only while all others have everything: what is lost otherwise, nobody promises.
        for member in self.minority():
            member.kill()
            self.archive.collect([member])
            member.wipe()
            member.start()

    def cut_off_the_leader(self):
        self.net.cut_off(self.leader().sid)
        self.pause(0.3, 3)

    def cut_off_a_minority(self):
        minority = {member.sid for member in self.minority()}
        pairs = [(a, b) for a in self.net.sids for b in self.net.sids if (a in minority) != (b in minority)]
        self.net.cut(pairs)
        self.pause(0.3, 3)

    def cut_one_way(self):
        one, other = self.random.sample(self.net.sids, 2)
        self.net.cut([(one, other)])
        self.pause(0.3, 3)

    def cut_the_leader_one_way(self):
        leader = self.leader().sid
        deaf = self.random.random() < 0.5
        others = [sid for sid in self.net.sids if sid != leader]
        self.net.cut([(leader, sid) if deaf else (sid, leader) for sid in others])
        self.pause(0.3, 3)

    def bridge(self):
        """One sees all, the rest see but their half."""
        sids = list(self.net.sids)
        self.random.shuffle(sids)
        _, *rest = sids
        half = set(rest[:len(rest) // 2])
        self.net.cut([(a, b) for a in rest for b in rest if (a in half) != (b in half)])
        self.pause(0.5, 3)

    def slow_link(self):
        sid = self.anybody().sid
        self.net.slow(sid, self.random.choice([100, 400, 1000]))
        try:
            self.pause(0.5, 2.5)
        finally:
            self.net.quick(sid)

    def fill_a_disk(self):
        filler = self.small.data / "filler"
        with contextlib.suppress(OSError), open(filler, "wb", buffering=0) as file:
            while True:
                file.write(bytes(1 << 16))
        self.pause(0.5, 2)
        filler.unlink()
        # A server that could not write its log has ended; the others go on.
        if not self.small.is_running():
            self.done["a server ended for want of space"] += 1
            self.small.process = None
            self.small.start()

    def reconfigure(self):
        """A follower leaves and comes back."""
        member = self.follower()
        change(self.ensemble, leaving=str(member.sid))
        self.pause(0, 0.5)
        change(self.ensemble, joining=member.line)

    FAULTS = [
        kill_the_leader, kill_a_follower, kill_all_at_once, kill_a_majority_one_by_one, stop_the_leader,
        stop_a_follower_shorter_than_sync_limit, stop_a_follower_longer_than_sync_limit, restart, wipe_a_minority,
        cut_off_the_leader, cut_off_a_minority, cut_one_way, cut_the_leader_one_way, bridge, slow_link, fill_a_disk, reconfigure,
    ]

    def run(self, seconds):
        deadline = time.monotonic() + seconds
        deck = []
        while time.monotonic() < deadline:
            if not deck:
                deck = list(self.FAULTS)
                self.random.shuffle(deck)
            fault = deck.pop()
            self.now = fault.__name__
            fault(self)
            self.done[fault.__name__] += 1
            self.net.heal()
            healed = time.monotonic()
            self.ensemble.wait_until_all_serve(30)
            self.recoveries.append((time.monotonic() - healed, fault.__name__))
            self.archive.collect(self.ensemble)
            self.pause(0.05, 0.4)


@pytest.mark.parametrize("size", [3, 5])
def test_faults_at_random(size):
    print(f"\nSEED={SEED} NEMESIS_SECONDS={SECONDS:g}, {size} servers")
    with own_namespaces(), Net(range(1, size + 1)) as net:
        ensemble = Ensemble("z" * size, SETTINGS, {"readonlymode.enabled": "true"}, dynamic=True, net=net)
        disk = ensemble[1].data
        small_disk(disk, DISK_MB)
        try:
            with ensemble:
                archive = Archive()
                set_up(ensemble[2])
                nemesis = Nemesis(ensemble, net, archive, f"{SEED}/{size}")
                with Load(ensemble, 5, SEED, rate=250, timeouts=(4000, 15_000)) as load:
                    try:
                        nemesis.run(SECONDS)
                    except AssertionError as error:
                        raise AssertionError(f"SEED={SEED}, during {nemesis.now}: {error}") from None
                    histories = load.stop()
                nemesis.ways = {member.sid: member.ways() for member in ensemble}
                checker = verdict(ensemble, archive, histories, TICK_MS)
                assert_none(checker, ensemble, f"SEED={SEED}")
        finally:
            unmount(disk)
    counts = checker.counts
    operations = counts["writes"] + counts["reads"] + counts["syncs"]
    print(f"{sum(nemesis.done.values())} faults of {len(Nemesis.FAULTS)} kinds: {dict(nemesis.done)}")
    ways = Counter(way for member in ensemble for way in nemesis.ways[member.sid])
    slowest = sorted(nemesis.recoveries)[-3:]
    print(f"all serve again after {sorted(nemesis.recoveries)[len(nemesis.recoveries) // 2][0]:.2f} s (median), "
          f"slowest {[(f'{took:.1f} s', fault) for took, fault in slowest]}; synchronized by {dict(ways)}")
    print(f"{operations} operations checked, 0 violations: {dict(counts)}; {len(checker.expired)} sessions expired")
