"""A write that is too large for a peer is refused: no follower is cut off, no leader deposed."""
import struct
import threading
import time

import pytest
from clients import connect, create, ok, read_tree
from harness.wire import AUTH, CLOSE, CREATE, DELETE, EXISTS, Closed, buffer, ustring, watched
from members import Ensemble

BAD_ARGUMENTS = -8
# `jute.maxbuffer` twice: what Java reads in one piece, from another server and from its log.
MAX_RECORD = 2 * 0xfffff
SETTINGS = {"tickTime": "500", "initLimit": "10", "syncLimit": "4"}


def owned(path, length, data=b""):
    """A create whose only entry has an id of so many bytes that are no text: in the transaction each takes three."""
    return create(path, data, acls=[(31, "digest", b"\xff" * length + b":hash")])


class Writer(threading.Thread):
    """Another client of one server: it notes how long its writes take, and whether its connection lives on."""

    def __init__(self, member):
        super().__init__()
        self.member = member
        self.session = connect(member, timeout=20)
        self.worst = 0
        self.writes = 0
        self.cut = False
        self.stopping = threading.Event()

    def run(self):
        while not self.stopping.is_set():
            started = time.monotonic()
            try:
                self.session.call(CREATE, create(f"/other-{self.member.sid}-{self.writes}"))
            except (OSError, Closed):
                self.cut = True
                return
            self.writes += 1
            self.worst = max(self.worst, time.monotonic() - started)

    def stop(self):
        self.stopping.set()
        self.join(30)
        self.session.close()


def term(ensemble):
    leader = ensemble.wait_for_leader(30)
    return leader.sid, leader.srvr()[1] >> 32


def ask(member, body, times):
    """The errors of that many requests, of each on a connection of its own: `cut` where that was its end."""
    errors = []
    for _ in range(times):
        try:
            with connect(member, timeout=10) as session:
                errors.append(session.call(CREATE, body)[1])
        except (OSError, Closed):
            errors.append("cut")
    return errors


@pytest.fixture(scope="module")
def three():
    with Ensemble("zzz", SETTINGS) as ensemble:
        yield ensemble


@pytest.mark.parametrize("running", [3, 2])
def test_an_id_that_grows_threefold_deposes_nobody(three, running):
    for member in three:
        if not member.is_running():
            member.start()
    three.wait_until_all_serve()
    if running == 2:
        next(member for member in three if member.mode() == "follower").stop()
    before = term(three)
    writers = [Writer(member) for member in three.running()]
    for writer in writers:
        writer.start()
    try:
        answers = {member.sid: ask(member, owned("/large", 1_000_000), 3) for member in three.running()}
        after = term(three)
    finally:
        for writer in writers:
            writer.stop()
    others = [(writer.member.sid, writer.writes, f"{writer.worst:.2f} s", "cut" if writer.cut else "") for writer in writers]
    seen = f"answers {answers}, leader and epoch {before} then {after}, others {others}"
    print(seen)
    assert all(errors == [BAD_ARGUMENTS] * 3 for errors in answers.values()), seen
    assert before == after, seen
    assert not any(writer.cut or writer.worst > 3 for writer in writers), seen


def test_more_ids_than_a_leader_takes_cut_off_no_follower(three):
    for member in three:
        if not member.is_running():
            member.start()
    three.wait_until_all_serve()
    before = term(three)
    follower = next(member for member in three if member.mode() == "follower")
    writer = Writer(follower)
    writer.start()
    err = "refused at the door"
    try:
        with connect(follower, timeout=10) as session:
            try:
                for number in range(1030):
                    session.push(AUTH, struct.pack(">i", 0) + ustring("digest") + buffer(b"u%d:p" % number), xid=-4)
                for _ in range(1030):
                    if session.reply()[2] != 0:
                        raise Closed
            except (OSError, Closed):
                pass
            else:
                try:
                    err = session.call(CREATE, create("/by-many"))[1]
                except (OSError, Closed):
                    err = "cut"
    finally:
        writer.stop()
    seen = f"answered {err}, the other client {'was cut' if writer.cut else 'lives'}, {before} then {term(three)}"
    print(seen)
    assert err in (BAD_ARGUMENTS, "refused at the door"), seen
    assert not writer.cut and before == term(three), seen


def test_what_a_java_peer_reads_to_the_last_byte_is_served():
    """And one byte more is refused: its limit is ours."""
    with Ensemble("zzj", SETTINGS) as ensemble:
        ensemble.make_lead(1, lambda member: ok_create(member, "/decides"))
        ids = 600_000
        # Header, path, data, list, the two other fields, digest.
        fixed = 32 + (4 + 2) + 4 + (4 + 4 + 4 + 6 + 4 + 3 * ids + 5) + 1 + 4 + 12
        data = b"d" * (MAX_RECORD - fixed)
        java = ensemble[3]
        before = term(ensemble)
        with connect(java, timeout=20) as session:
            assert session.call(CREATE, owned("/a", ids, data + b"d"))[1] == BAD_ARGUMENTS
            ok(session, CREATE, owned("/a", ids, data))
            session.call(CLOSE)
        assert before == term(ensemble)
        # It reads it from its own log, too.
        java.kill()
        java.start()
        ensemble.wait_until_all_serve()
        with connect(java) as session:
            assert session.call(EXISTS, watched("/a"))[1] == 0
            assert session.call(DELETE, ustring("/a") + struct.pack(">i", -1))[1] == 0
            session.call(CLOSE)
        trees = [set(read_tree(member)) for member in ensemble]
        assert trees[0] == trees[1] == trees[2]


def ok_create(member, path):
    with connect(member) as session:
        ok(session, CREATE, create(path))
        session.call(CLOSE)
