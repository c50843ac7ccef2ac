"""A follower that was away comes back, by each of the three ways, while writes go on."""
import os
import statistics
import struct
import threading
import time

from clients import connect, create, ok, read_tree, set_data
from harness.wire import CLOSE, CREATE, MULTI, SET
from members import Ensemble

ZNODES = int(os.environ.get("ZNODES", "1000000"))
PART = 250
DATA = b"d" * 300
SETTINGS = {"tickTime": "2000", "initLimit": "10", "syncLimit": "5"}
END = struct.pack(">iBi", -1, 1, -1)


def percentile(values, share):
    return sorted(values)[min(len(values) - 1, int(len(values) * share))]


class Writer(threading.Thread):
    """Writes one at a time, and keeps when each was answered and how long it took."""

    def __init__(self, member):
        super().__init__()
        self.session = connect(member, timeout=60)
        ok(self.session, CREATE, create("/written"))
        self.taken = []
        self.stopping = threading.Event()

    def run(self):
        while not self.stopping.is_set():
            started = time.monotonic()
            ok(self.session, SET, set_data("/written", b"w" * 100))
            self.taken.append((started, (time.monotonic() - started) * 1000))

    def stop(self):
        self.stopping.set()
        self.join(60)
        self.session.call(CLOSE)
        self.session.close()

    def between(self, start, end):
        found = [taken for at, taken in self.taken if start <= at < end]
        return f"{len(found)} writes, {statistics.median(found):.1f} ms (median), {percentile(found, 0.99):.1f} ms (p99), {max(found):.0f} ms (max)"


def fill(member, count):
    """So many znodes, by multis of many."""
    with connect(member, timeout=120) as session:
        for directory in range((count + 9999) // 10_000):
            ok(session, CREATE, create(f"/{directory}"))
        asked = 0
        for first in range(0, count, PART):
            parts = b"".join(
                struct.pack(">iBi", CREATE, 0, -1) + create(f"/{number // 10_000}/{number}", DATA)
                for number in range(first, min(first + PART, count)))
            session.push(MULTI, parts + END)
            asked += 1
            if asked > 8:
                assert session.reply()[2] == 0
                asked -= 1
        for _ in range(asked):
            assert session.reply()[2] == 0
        session.call(CLOSE)


def test_a_wiped_follower_returns_by_snapshot_while_writes_go_on():
    # A multi counts as one transaction.
    with Ensemble("zzz", {**SETTINGS, "snapCount": str(ZNODES // PART // 4), "preAllocSize": "65536"}) as ensemble:
        leader = ensemble.leader()
        follower = next(member for member in ensemble if member is not leader)
        started = time.monotonic()
        fill(leader, ZNODES)
        print(f"\n{ZNODES} znodes of {len(DATA)} bytes written in {time.monotonic() - started:.1f} s")
        leader_before = leader.resident_kb()
        follower.kill()
        follower.wipe()
        writer = Writer(leader)
        writer.start()
        begun = time.monotonic()
        ensemble.wait("some writes", lambda: len(writer.taken) > 300)
        start = len(follower.log())
        back = time.monotonic()
        follower.start()
        ensemble.wait("it follows", follower.mode, 120)
        there = time.monotonic()
        writes = len(writer.taken)
        ensemble.wait("some writes more", lambda: len(writer.taken) > writes + 300)
        writer.stop()
        assert follower.ways(start) == ["SNAP"], ensemble.state()
        stored = max(path.stat().st_size for path in follower.files.glob("snapshot.*"))
        print(f"a follower without any data followed again after {there - back:.1f} s, by SNAP; its snapshot has {stored >> 20} MB")
        print(f"writes meanwhile: before {writer.between(begun, back)}; during {writer.between(back, there)}; "
              f"after {writer.between(there, time.monotonic())}")
        print(f"memory: leader {leader_before >> 10} MB before, {leader.resident_kb() >> 10} MB after, {leader.peak_kb() >> 10} MB at most; "
              f"follower {follower.resident_kb() >> 10} MB after, {follower.peak_kb() >> 10} MB at most")
        counts = {member: member.mntr()["zk_znode_count"] for member in ensemble}
        assert len(set(counts.values())) == 1, counts
        assert int(counts[follower]) > ZNODES
        digests(ensemble)


def digests(ensemble):
    """The servers compare each transaction's digest with their tree's."""
    with connect(ensemble.leader()) as session:
        ok(session, CREATE, create("/digest"))
        session.call(CLOSE)
    for member in ensemble:
        assert member.mntr()["zk_digest_mismatches_count"] == "0", ensemble.state()


def test_a_followers_memory_does_not_grow_with_every_transaction():
    with Ensemble("zzz", SETTINGS) as ensemble:
        with connect(ensemble.leader()) as session:
            ok(session, CREATE, create("/node"))
            grown = []
            for _ in range(2):
                before = {member: member.resident_kb() for member in ensemble}
                # One at a time: each is a packet of its own.
                for _ in range(2000):
                    ok(session, SET, set_data("/node", b"x" * 50))
                grown.append({str(member): member.resident_kb() - before[member] for member in ensemble})
            session.call(CLOSE)
        print(f"\n2000 small writes make the servers grow by {grown[1]} KB")
        assert max(grown[1].values()) < 10_000, grown


def test_a_follower_with_a_diverged_tail_returns_by_trunc():
    with Ensemble("zzz", SETTINGS) as ensemble:
        old = ensemble.leader()
        lost = [f"/lost-{number}" for number in range(50)]
        ensemble.diverge(old, lost)
        others = [member for member in ensemble if member is not old]
        for member in others:
            member.start()
        ensemble.wait_until_all_serve()
        with connect(others[0]) as session:
            ok(session, CREATE, create("/later"))
            session.call(CLOSE)
        started = time.monotonic()
        assert ensemble.come_back(old) == ["TRUNC"], ensemble.state()
        tree = read_tree(old)
        assert "/later" in tree and "/lost-0-before" in tree and not set(lost) & set(tree)
        digests(ensemble)
        print(f"\na follower with {len(lost)} transactions that nobody else had returned by TRUNC within {time.monotonic() - started:.2f} s")


def test_a_follower_that_missed_10000_transactions_returns_by_diff_from_the_log():
    with Ensemble("zzz", SETTINGS) as ensemble:
        leader = ensemble.leader()
        follower = next(member for member in ensemble if member is not leader)
        follower.stop()
        count = 10_000
        with connect(leader, timeout=60) as session:
            ok(session, CREATE, create("/node"))
            for number in range(count):
                # More than the 32 MiB that a leader keeps in memory, and less than the 64 MiB of log for which it sends a snapshot.
                session.push(SET, set_data("/node", b"x" * 5000))
                if number >= 500:
                    assert session.reply()[2] == 0
            for _ in range(500):
                assert session.reply()[2] == 0
            session.call(CLOSE)
        start = len(leader.log())
        started = time.monotonic()
        assert ensemble.come_back(follower) == ["DIFF"], ensemble.state()
        took = time.monotonic() - started
        assert "sent a learner transactions of the log" in leader.log()[start:], leader.log()[start:]
        assert read_tree(follower)["/node"][1]["version"] == count
        digests(ensemble)
        print(f"\na follower that missed {count} transactions of 5 KB returned by DIFF from the log within {took:.2f} s")
