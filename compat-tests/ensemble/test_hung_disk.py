"""A leader whose disk hangs in a sync, while the others' disks are well: it keeps no more than its budget, and gives up the lead."""
import contextlib
import os
import subprocess
import threading
import time

import pytest
from clients import Closed, connect, create, ok, set_data
from harness.server import HERE
from harness.wire import CREATE, SET
from members import Ensemble
from rounds import wait_for_equal_trees

TICK_MS, SYNC_LIMIT = 200, 5
VALUE = bytes(100_000)
IN_FLIGHT, WRITERS = 32, 4
# So many writes would be 400 MB. The leader may keep what its log's budget allows, of its own clients and of its learners', and has
# its log's pages and a history besides.
MANY = 4000
MOST_MB = 200
SECONDS = float(os.environ.get("HUNG_SECONDS", "8"))


class Hanging(Ensemble):
    """Each disk can be made to hang."""

    def __init__(self, *args, **rest):
        super().__init__(*args, **rest)
        self.library = self.dir / "hang.so"
        subprocess.run(["gcc", "-Wall", "-Wextra", "-shared", "-fPIC", "-o", self.library, HERE / "ensemble/hang.c", "-ldl"], check=True)

    def file(self, member):
        return self.dir / f"hang-{member.sid}"

    def wrap(self, member, command):
        return ["env", f"LD_PRELOAD={self.library}", f"HANG_WHILE={self.file(member)}", *command]

    @contextlib.contextmanager
    def hung(self, member):
        self.file(member).touch()
        try:
            yield
        finally:
            self.file(member).unlink()


def settings(sync_limit):
    return {"tickTime": str(TICK_MS), "initLimit": "50", "syncLimit": str(sync_limit)}


class Writers:
    """Clients of one server that always have so many large writes under way."""

    def __init__(self, member):
        self.member, self.answered, self.is_over = member, 0, False
        self.threads = [threading.Thread(target=self.write, args=(at,)) for at in range(WRITERS)]

    def write(self, at):
        with contextlib.suppress(OSError, Closed), connect(self.member, timeout=1) as session:
            under_way = 0
            while not self.is_over:
                while under_way < IN_FLIGHT:
                    session.push(SET, set_data(f"/big-{at}", VALUE))
                    under_way += 1
                with contextlib.suppress(TimeoutError):
                    session.reply()
                    under_way -= 1
                    self.answered += 1

    def __enter__(self):
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self.is_over = True
        for thread in self.threads:
            thread.join(60)


def prepared(ensemble):
    leader = ensemble.wait_for_leader()
    with connect(leader) as session:
        for at in range(WRITERS):
            ok(session, CREATE, create(f"/big-{at}"))
    return leader, next(member for member in ensemble if member is not leader)


def test_a_leader_whose_disk_hangs_gives_up_the_lead():
    with Hanging("zzz", settings(SYNC_LIMIT)) as ensemble:
        leader, follower = prepared(ensemble)
        with ensemble.hung(leader):
            begun = time.monotonic()
            with connect(leader) as session, contextlib.suppress(Closed, OSError):
                ok(session, SET, set_data("/big-0", b"x"))
            others = [member for member in ensemble if member is not leader]
            ensemble.wait("another leader", lambda: any(member.mode() == "leader" for member in others), 20)
            print(f"\nanother leads {time.monotonic() - begun:.1f} s after the disk began to hang, syncLimit is {TICK_MS * SYNC_LIMIT} ms")
            with connect(follower) as session:
                ok(session, SET, set_data("/big-0", b"y"))
            ensemble.wait("it says why", lambda: "own log" in leader.log(), 10)
        ensemble.wait_until_all_serve()
        wait_for_equal_trees(ensemble)


@pytest.mark.parametrize("where", ["leader", "follower"])
def test_a_leader_keeps_no_more_for_its_disk_than_its_budget(where):
    """Longer than this test runs it would not give up the lead."""
    with Hanging("zzz", settings(100)) as ensemble:
        leader, follower = prepared(ensemble)
        before = leader.resident_kb() // 1024
        with ensemble.hung(leader), Writers(leader if where == "leader" else follower) as writers:
            deadline = time.monotonic() + SECONDS
            while writers.answered < MANY and time.monotonic() < deadline:
                # That nothing more is answered is no event.
                threading.Event().wait(0.05)
            assert leader.mode() == "leader", ensemble.state()
        grown = leader.peak_kb() // 1024 - before
        print(f"\nwhile the leader's disk hung: {writers.answered} writes of 100 KB at the {where}, the leader grew by {grown} MB")
        assert grown < MOST_MB
