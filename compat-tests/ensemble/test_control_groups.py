"""Three servers, each in a control group with 0.2 of a CPU and 64 MB, live through load: nobody is elected, nobody is ended for want of memory.

SHARE is the share of a minute that each load takes (CI 0.1), GROUP_MB the memory of a group, KINDS the servers (`jjj`: Java's)."""
import contextlib
import os
import re
import time

import pytest
from harness.groups import Group, NoGroups
from members import Ensemble
from test_overload import Load, term

SHARE = float(os.environ.get("SHARE", "0.1"))
MEGABYTES = float(os.environ.get("GROUP_MB", "64"))
KINDS = os.environ.get("KINDS", "zzz")
CPU = 0.2
# As many bytes of data are in the tree at each size.
DATA = 4_000_000
SETTINGS = {"tickTime": "2000", "initLimit": "10", "syncLimit": "5", "preAllocSize": "65536"}


class Grouped(Ensemble):
    groups = {}

    def wrap(self, member, command):
        return self.groups[member.sid].wrap(command)


@pytest.fixture
def ensemble():
    grouped = Grouped(KINDS, SETTINGS)
    grouped.groups = {}
    try:
        for member in grouped:
            name = f"zabra-test-{os.getpid()}-{member.sid}"
            grouped.groups[member.sid] = Group(name, int(MEGABYTES * (1 << 20)), CPU)
    except NoGroups as why:
        remove(grouped)
        print(f"skipped: {why}")
        pytest.skip(f"this machine allows no control groups: {why}")
    try:
        with grouped:
            yield grouped
    finally:
        remove(grouped)


def remove(grouped):
    for group in grouped.groups.values():
        group.remove()


def account(ensemble):
    """The bytes in each queue, of the server that has most in it."""
    most = {}
    for member in ensemble.running():
        for name, value in member.mntr().items():
            if found := re.fullmatch(r"zk_zabra_(\w+)_bytes", name):
                most[found[1]] = max(most.get(found[1], 0), int(value))
    return most


@pytest.mark.parametrize("size", [100, 4000, 100_000])
def test_small_groups_live_through_load(ensemble, size):
    before = term(ensemble)
    load = Load(ensemble, size, 16, max(3, 60 * SHARE), connections=12, nodes=max(12, min(1000, DATA // size)))
    most, deadline = {}, time.monotonic() + 60 * SHARE + 120
    while load.process.poll() is None and time.monotonic() < deadline and "j" not in KINDS:
        # A server that is ended answers no more: that is told below.
        with contextlib.suppress(OSError):
            for name, value in account(ensemble).items():
                most[name] = max(most.get(name, 0), value)
        load.over(0.1)
    found = load.end(60 * SHARE + 120)
    killed = [group.killed() for group in ensemble.groups.values()]
    peaks = [group.peak() >> 20 for group in ensemble.groups.values()]
    print(f"{KINDS} {MEGABYTES:.0f} MB, {CPU} CPU, {load.what}: {found['per_s']:.0f}/s, p99 {found['p99_us'] / 1000:.0f} ms, "
          f"resident {[member.peak_kb() >> 10 if member.is_running() else 0 for member in ensemble]} MB, with page cache {peaks} MB, "
          f"ended for want of memory {killed}, (leader, epoch) {before}; most in a queue, KB: "
          f"{({name: value >> 10 for name, value in most.items()})}", flush=True)
    assert killed == [0] * len(killed)
    assert all(member.is_running() for member in ensemble)
    assert "failed" not in found and found["per_s"] > 0
    assert term(ensemble) == before
    if most:
        memory = most.pop("memory")
        assert memory == MEGABYTES * (1 << 20)
        # Each queue is bounded; what comes in one turn of a reactor goes beyond that. All doors may open at once while the log queue
        # is not full: then what they let in comes in addition.
        turn = 1 << 20
        door = 2 * memory / 128 + turn
        assert most["outstanding"] <= door
        assert most["unlogged"] <= memory / 32 + len(KINDS) * door
        assert most["history"] <= memory / 32
        assert most["to_learners"] <= 2 * (memory / 32 + turn)
