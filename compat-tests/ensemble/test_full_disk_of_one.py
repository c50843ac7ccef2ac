"""Three servers, one of them with a disk that fills: a follower, then the leader. The others go on, and nothing acknowledged is lost."""
import contextlib
import shutil
import threading

import pytest
from clients import Closed, connect, create, ok, set_data
from harness.small_disk import Ballast, mounted
from harness.wire import CREATE, GET, SET, Fields, watched
from members import Ensemble
from rounds import wait_for_equal_trees

TICK_MS = 300
SIZE = 40_000
LEFT = 6 << 20
SYSTEM_ERROR = -1


@pytest.fixture
def ensemble():
    """Server 1 to 3, each with a small disk of its own."""
    settings = {"tickTime": str(TICK_MS), "initLimit": "20", "syncLimit": "6", "preAllocSize": "1024"}
    three = Ensemble("zzz", settings)
    with contextlib.ExitStack() as stack:
        stack.callback(shutil.rmtree, three.dir, True)
        for member in three:
            stack.enter_context(mounted("tmpfs", member.data, None))
        yield stack.enter_context(three)


class Writer(threading.Thread):
    """Writes ever larger numbers by whoever serves, one at a time."""

    def __init__(self, ensemble):
        super().__init__()
        self.ensemble, self.acknowledged, self.sent, self.refused = ensemble, 0, 0, 0
        self.is_over = threading.Event()

    def run(self):
        while not self.is_over.is_set():
            for member in self.ensemble:
                with contextlib.suppress(Closed, OSError), connect(member, timeout=3) as session:
                    while not self.is_over.is_set():
                        self.sent += 1
                        error = session.call(SET, set_data("/w", str(self.sent).encode().ljust(SIZE)))[1]
                        assert error in (0, SYSTEM_ERROR)
                        if error == 0:
                            self.acknowledged = self.sent
                        else:
                            self.refused += 1
                            break

    def more(self, count):
        """Awaits this many more."""
        until = self.acknowledged + count
        self.ensemble.wait(f"{count} writes", lambda: self.acknowledged >= until)


@contextlib.contextmanager
def writing(ensemble):
    with connect(ensemble.wait_for_leader()) as session:
        ok(session, CREATE, create("/w", b"0"))
    writer = Writer(ensemble)
    writer.start()
    try:
        yield writer
    finally:
        writer.is_over.set()
        writer.join(60)


def room(member):
    """Nothing while it looks for a leader."""
    return member.mntr().get("zk_zabra_disk_room")


@pytest.mark.parametrize("where", ["follower", "leader"])
def test_one_of_three_with_a_full_disk(ensemble, where):
    with writing(ensemble) as writer:
        leader = ensemble.wait_for_leader()
        full = leader if where == "leader" else next(member for member in ensemble if member is not leader)
        others = [member for member in ensemble if member is not full]
        ballast = Ballast(full.data, LEFT)
        ensemble.wait("it says so", lambda: "almost full" in full.log() or "the disk is full" in full.log())
        ballast.fill()
        if where == "leader":
            ensemble.wait("another leads", lambda: any(member.mode() == "leader" for member in others))
            assert "one of them is to lead" in full.log()
        begun = writer.acknowledged
        # More than its disk and its memory for the log take.
        while (writer.acknowledged - begun) * SIZE < 8 << 20:
            writer.more(20)
        assert all(member.is_running() for member in ensemble)
        assert any(member.mode() == "leader" for member in others)
        ballast.remove()
        ensemble.wait_until_all_serve()
        ensemble.wait("it has room", lambda: room(full) == "0")
        writer.more(20)
    print(f"\n{where}: {writer.acknowledged} acknowledged, {writer.refused} refused")
    wait_for_equal_trees(ensemble)
    for member in ensemble:
        with connect(member) as session:
            _, error, body = session.call(GET, watched("/w"))
            assert error == 0 and writer.acknowledged <= int(Fields(body).buffer().split()[0]) <= writer.sent


def test_all_of_three_with_full_disks_keep_sessions_and_read(ensemble):
    """Nobody can take the lead over: one of them keeps it, or gets it back, refuses writes, and all read."""
    with connect(ensemble.wait_for_leader()) as session:
        ok(session, CREATE, create("/w", b"7"))
    ballasts = [Ballast(member.data, 1 << 20) for member in ensemble]
    for ballast in ballasts:
        ballast.fill()
    ensemble.wait("all say so", lambda: all(room(member) in ("1", "2") for member in ensemble))
    ensemble.wait_until_all_serve()

    def is_refused():
        with contextlib.suppress(Closed, OSError), connect(ensemble.wait_for_leader(), timeout=3) as session:
            return session.call(SET, set_data("/w", b"8"))[1] == SYSTEM_ERROR
    ensemble.wait("a write is refused", is_refused)
    for member in ensemble:
        with connect(member) as session:
            _, error, body = session.call(GET, watched("/w"))
            assert error == 0 and Fields(body).buffer() == b"7"
    for ballast in ballasts:
        ballast.remove()

    def is_taken():
        with contextlib.suppress(Closed, OSError), connect(ensemble.wait_for_leader(), timeout=3) as session:
            return session.call(SET, set_data("/w", b"9"))[1] == 0
    ensemble.wait("a write is taken", is_taken)
    wait_for_equal_trees(ensemble)
