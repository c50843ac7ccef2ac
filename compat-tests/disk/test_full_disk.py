"""A disk that fills under load, on file systems of each kind: what was acknowledged stays, reads go on, and so do writes once there is
room."""
import contextlib
import os
import subprocess
import threading
import time

import pytest
from harness.server import IS_JAVA, Server, await_that
from harness.small_disk import KINDS, Ballast, free, mounted
from harness.wire import CREATE, GET, SET, Closed, Fields, Session, create, set_data, watched

pytestmark = pytest.mark.skipif(IS_JAVA, reason="Java's server ends when its disk is full")

SYSTEM_ERROR = -1
WRITERS = 3
IN_FLIGHT = 16
SIZE = 50_000
LEFT = 12 << 20


def settings():
    return {"preAllocSize": "2048", "snapCount": "1000000", "tickTime": "500", "maxSessionTimeout": "120000"}


def value(session, node):
    _, error, body = session.call(GET, watched(node))
    assert error == 0
    return int(Fields(body).buffer().split()[0])


class Writer(threading.Thread):
    """Writes ever larger numbers, many at once. What it was told is what it may rely on."""

    def __init__(self, server, at):
        super().__init__()
        self.server, self.node = server, f"/w{at}"
        self.sent = self.acknowledged = self.refused = self.lost = 0
        self.is_over = threading.Event()
        # When one was answered again since `resumed` was cleared.
        self.resumed = threading.Event()
        self.session = None

    def run(self):
        ids = {}
        while not self.is_over.is_set():
            with contextlib.suppress(Closed, OSError), Session(self.server.port, 120_000, timeout=5, **ids) as session:
                if session.session:
                    if self.session not in (None, session.session):
                        self.lost += 1
                    self.session = session.session
                    ids = {"session": session.session, "passwd": session.passwd}
                    self.write(session)
            # A server without room may take no session: there is no event for the time when it does.
            self.is_over.wait(0.02)

    def write(self, session):
        under_way = {}
        while not self.is_over.is_set():
            # What was refused was not done: one is enough to see whether that is over.
            most = IN_FLIGHT if self.resumed.is_set() else 1
            while len(under_way) < most:
                self.sent += 1
                under_way[session.push(SET, set_data(self.node, str(self.sent).encode().ljust(SIZE)))] = self.sent
            xid, _, error, _ = session.reply()
            number = under_way.pop(xid)
            if error == 0:
                self.acknowledged = number
                self.resumed.set()
            else:
                assert error == SYSTEM_ERROR, error
                self.refused += 1
                self.resumed.clear()
                self.is_over.wait(0.01)


@contextlib.contextmanager
def writers(server):
    with Session(server.port) as session:
        for at in range(WRITERS):
            assert session.call(CREATE, create(f"/w{at}", b"0"))[1] == 0
    all_of_them = [Writer(server, at) for at in range(WRITERS)]
    for writer in all_of_them:
        writer.resumed.set()
        writer.start()
    try:
        yield all_of_them
    finally:
        for writer in all_of_them:
            writer.is_over.set()
        for writer in all_of_them:
            writer.join(60)


def figures(server):
    return dict(line.split("\t", 1) for line in server.word("mntr").splitlines() if "\t" in line)


@pytest.fixture(params=KINDS)
def disk(request, tmp_path):
    with mounted(request.param, tmp_path / "mount", tmp_path / "image") as at:
        yield at


def test_a_disk_that_fills_under_load(disk, tmp_path):
    server = Server({**settings(), "dataDir": str(disk / "data")}, data=tmp_path)
    server.start()
    try:
        with Session(server.port, 120_000) as reader, writers(server) as at_work:
            ballast = Ballast(disk, LEFT)
            await_that(lambda: all(writer.refused for writer in at_work), "the disk never filled")
            # To the last block: what is under way has to wait, or finds what was kept for it.
            ballast.fill()
            await_that(lambda: figures(server)["zk_zabra_disk_room"] != "0", "no word of it in mntr")
            assert int(figures(server)["zk_zabra_refused_writes"]) > 0
            for _ in range(3):
                reads = [value(reader, writer.node) for writer in at_work]
                assert all(read > 0 for read in reads)
            for writer in at_work:
                writer.resumed.clear()
            begun = time.monotonic()
            ballast.remove()
            freed = time.monotonic()
            for writer in at_work:
                assert writer.resumed.wait(30), server.log()
            again = time.monotonic()
            print(f"\n{disk_kind(disk)}: {sum(writer.acknowledged for writer in at_work)} writes of {SIZE} bytes acknowledged, "
                  f"{sum(writer.refused for writer in at_work)} refused; room after {freed - begun:.2f} s, written again "
                  f"{again - freed:.2f} s later")
            assert again - freed < 10
        log = server.log()
        assert "almost full" in log or "the disk is full" in log, log
        assert "there is room" in log, log
        assert sum(writer.lost for writer in at_work) == 0, "a session was lost"
        server.kill()
        server.start()
        with Session(server.port) as session:
            for writer in at_work:
                assert writer.acknowledged <= value(session, writer.node) <= writer.sent
    finally:
        server.stop()


def disk_kind(disk):
    return subprocess.run(["stat", "-f", "-c", "%T", str(disk)], capture_output=True, text=True, check=True).stdout.strip()


def test_what_a_full_disk_holds_is_read_after_a_start(disk, tmp_path):
    """Started on a disk without a block, the server reads, and writes once there is room."""
    server = Server({**settings(), "dataDir": str(disk / "data")}, data=tmp_path)
    server.start()
    try:
        session = Session(server.port, 120_000)
        assert session.call(CREATE, create("/d", b"7"))[1] == 0
        ids = {"session": session.session, "passwd": session.passwd}
        session.close()
        server.kill()
        ballast = Ballast(disk, 1 << 20)
        ballast.fill()
        server.start()
        # The start has given back what the killed process had allocated.
        ballast.fill()

        def answer(data):
            # Room that turns out to be none costs the connection: the outcome is not known.
            with contextlib.suppress(Closed), Session(server.port, 120_000, **ids) as session:
                assert session.session == ids["session"]
                error = session.call(SET, set_data("/d", data))[1]
                return error, value(session, "/d")
        await_that(lambda: (answer(b"8") or (0,))[0] == SYSTEM_ERROR, "a full disk takes writes")
        assert answer(b"8") in ((SYSTEM_ERROR, 7), (SYSTEM_ERROR, 8))
        assert figures(server)["zk_zabra_disk_room"] != "0"
        ballast.remove()
        await_that(lambda: answer(b"9") == (0, 9), "no write is taken")
    finally:
        server.stop()


def test_a_snapshot_that_does_not_fit_is_given_up(tmp_path):
    """It leaves nothing, and the server goes on."""
    with mounted("tmpfs", tmp_path / "mount", tmp_path / "image") as disk:
        server = Server({**settings(), "snapCount": "100", "dataDir": str(disk / "data")}, data=tmp_path)
        server.start()
        try:
            with Session(server.port, 120_000) as session:
                for at in range(60):
                    assert session.call(CREATE, create(f"/n{at}", bytes(100_000)))[1] == 0
            ballast = Ballast(disk, 3 << 20)

            def is_taken():
                # As long as the snapshot has all the room, the log may have none: then the answer is no, or the connection ends.
                with contextlib.suppress(Closed, OSError), Session(server.port) as session:
                    error = session.call(SET, set_data("/n0", b"on"))[1]
                    assert error in (0, SYSTEM_ERROR)
                    return error == 0
                return False

            await_that(lambda: is_taken() and "snapshot failed" in server.log(), "no snapshot fails")
            assert not list((disk / "data/version-2").glob("tmp.snapshot*")), server.log()
            await_that(is_taken, "the server does not go on")
            ballast.remove()
        finally:
            server.stop()


def test_a_store_that_cannot_be_done_says_where(tmp_path):
    """Somebody cuts the log that the server has mapped: it ends, and names file and offset."""
    server = Server({"preAllocSize": "1024"}, data=tmp_path)
    server.start()
    try:
        with Session(server.port) as session:
            assert session.call(CREATE, create("/d", b"7"))[1] == 0
            log = max(server.files.glob("log.*"))
            os.truncate(log, 0)
            with contextlib.suppress(Closed, OSError):
                session.call(SET, set_data("/d", bytes(10_000)))
        assert server.process.wait(20) == 1
        assert f"cannot write {log} at offset" in server.log(), server.log()
    finally:
        server.stop()
