"""An ensemble grows and shrinks under load, again and again: no write is lost, and nothing has to be done by hand."""
import os
import random
import statistics
import time

from clients import change
from load import WRITES, Load, set_up
from logs import Archive
from members import Ensemble
from verdict import assert_none, verdict

ROUNDS = int(os.environ.get("ROUNDS", "20"))
SEED = int(os.environ.get("SEED", str(random.SystemRandom().randrange(1 << 32))))
TICK_MS = 500
SETTINGS = {"tickTime": str(TICK_MS), "initLimit": "10", "syncLimit": "5", "snapCount": "2000"}


class Shape:
    """The servers that are members at the moment."""

    def __init__(self, ensemble, archive):
        self.ensemble, self.archive = ensemble, archive
        self.random = random.Random(SEED)
        self.all = dict(ensemble.members)
        self.took = []
        self.led = 0

    def members(self):
        return list(self.ensemble)

    def grow(self, count, whole):
        """By one reconfiguration: incremental, or the whole new configuration."""
        joining = self.random.sample([member for member in self.all.values() if member not in self.members()], count)
        members = self.members()
        for member in joining:
            # What an operator writes into its file: those that there are, and itself.
            member.set_up([*members, member])
            member.start()
            self.ensemble.members[member.sid] = member
        started = time.monotonic()
        if whole:
            change(self.ensemble, members=",".join(member.line for member in [*members, *joining]))
        else:
            change(self.ensemble, joining=",".join(member.line for member in joining))
        self.settle(started)

    def shrink(self, count, whole):
        leaving = self.random.sample(self.members(), count)
        self.led += self.ensemble.leader() in leaving
        staying = [member for member in self.members() if member not in leaving]
        started = time.monotonic()
        if whole:
            change(self.ensemble, members=",".join(member.line for member in staying))
        else:
            change(self.ensemble, leaving=",".join(str(member.sid) for member in leaving))
        self.archive.collect(self.ensemble)
        for member in leaving:
            member.stop()
            del self.ensemble.members[member.sid]
        self.settle(started)

    def settle(self, started):
        self.ensemble.wait_until_all_serve(30)
        self.took.append(time.monotonic() - started)
        self.archive.collect(self.ensemble)


def test_from_three_to_five_to_three_to_one_to_three():
    print(f"\nSEED={SEED} ROUNDS={ROUNDS}")
    with Ensemble("zzzzz", SETTINGS, dynamic=True) as ensemble:
        archive = Archive()
        set_up(ensemble[1])
        shape = Shape(ensemble, archive)
        everybody = list(ensemble)
        try:
            with Load(everybody, 3, SEED, rate=250, mix={**WRITES, "get": 3, "sync": 0.2}, end_sessions=False) as load:
                shape.shrink(2, whole=False)
                for round_ in range(ROUNDS):
                    whole = round_ % 2 == 1
                    shape.grow(2, whole)
                    shape.shrink(2, whole)
                    shape.shrink(2, not whole)
                    shape.grow(2, not whole)
                histories = load.stop()
            checker = verdict(ensemble, archive, histories, TICK_MS)
            assert_none(checker, ensemble, f"SEED={SEED}")
        finally:
            for member in everybody:
                member.kill()
    expired = [(session, timeout) for session, timeout in checker.expired if timeout >= 10_000]
    assert not expired, f"SEED={SEED}: sessions expired: {expired}"
    counts = dict(checker.counts)
    print(f"{ROUNDS} times 3→5→3→1→3 servers, the leader left {shape.led} times: {statistics.median(shape.took):.2f} s (median), "
          f"{max(shape.took):.2f} s (max) until all served; {counts['writes']} writes answered, none lost, no session expired; {counts}")
