"""Hostile bytes on both peer ports: the link is closed, the listener and the ensemble live on."""
import os
import random
import socket
import struct
import time

import pytest
from harness.wire import buffer, ustring
from load import Load, set_up
from logs import Archive
from members import Ensemble
from verdict import assert_none, verdict

TICK_MS = 200
SETTINGS = {"tickTime": str(TICK_MS), "initLimit": "10", "syncLimit": "5"}
# A learner has initLimit ticks to say who it is, a server on the election port syncLimit.
DEADLINE = 10 * TICK_MS / 1000 + 1
NOBODY, ABSENT = 99, 4
FOLLOWER_INFO, OBSERVER_INFO, ACK_EPOCH, ACK, PING, REQUEST, REVALIDATE = 11, 16, 18, 3, 5, 1, 6
LEADER_INFO, DIFF, NEW_LEADER, UP_TO_DATE = 17, 13, 10, 12
SEED = int(os.environ.get("SEED", str(random.SystemRandom().randrange(1 << 32))))


def packet(kind, zxid, data=None, ids=b"\xff\xff\xff\xff"):
    return struct.pack(">iq", kind, zxid) + buffer(data) + ids


def info(sid, kind=OBSERVER_INFO, epoch=0, protocol=0x10000, version=0):
    return packet(kind, epoch << 32, struct.pack(">qiq", sid, protocol, version))


def initial(sid, address=b"127.0.0.1:1", version=-65536):
    return struct.pack(">qqi", version, sid, len(address)) + address


def vote(state=0, leader=1, zxid=0, round_=1, epoch=0, config=b"version=0"):
    body = struct.pack(">iqqqqii", state, leader, zxid, round_, epoch, 2, len(config)) + config
    return struct.pack(">i", len(body)) + body


class Link:
    def __init__(self, host, port):
        self.socket = socket.create_connection((host, port), timeout=10)
        self.data = b""

    def send(self, data):
        self.socket.sendall(data)
        return self

    def closes_within(self, seconds):
        """Whatever it still says: in the end it closes."""
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            self.socket.settimeout(left)
            try:
                if not self.socket.recv(65536):
                    return True
            except (ConnectionError, BrokenPipeError):
                return True
            except TimeoutError:
                break
        return False

    def stays_open(self, seconds):
        return not self.closes_within(seconds)

    def take(self, count):
        while len(self.data) < count:
            chunk = self.socket.recv(65536)
            assert chunk, "closed"
            self.data += chunk
        taken, self.data = self.data[:count], self.data[count:]
        return taken

    def packet(self):
        kind, zxid, length = struct.unpack(">iqi", self.take(16))
        data = self.take(length) if length > 0 else b""
        self.take(4)
        return kind, zxid, data

    def until(self, kind):
        while True:
            found = self.packet()
            if found[0] == kind:
                return found

    def close(self):
        self.socket.close()


class Target:
    def __init__(self, ensemble):
        self.ensemble = ensemble
        self.leader = ensemble.leader()
        self.follower = next(member for member in ensemble.running() if member is not self.leader)

    def quorum(self):
        return Link(self.leader.host, self.leader.quorum_port)

    def election(self, member=None):
        member = member or self.follower
        return Link(member.host, member.election_port)

    def learner(self, upto=UP_TO_DATE):
        """A member that behaves well so far: the observer that is in the configuration and does not run."""
        link = self.quorum().send(info(ABSENT))
        _, epoch, _ = link.until(LEADER_INFO)
        if upto == LEADER_INFO:
            return link, epoch
        link.send(packet(ACK_EPOCH, 0, struct.pack(">i", 0)))
        link.until(NEW_LEADER)
        if upto == NEW_LEADER:
            return link, epoch
        link.send(packet(ACK, epoch))
        link.until(UP_TO_DATE)
        link.send(packet(ACK, epoch))
        return link, epoch


@pytest.fixture(scope="module")
def target():
    print(f"\nSEED={SEED}")
    # Three run; the fourth is a member all the same.
    with Ensemble("zzz", SETTINGS) as ensemble:
        yield from run(ensemble)


def run(ensemble):
    for member in ensemble:
        member.stop()
    absent = ensemble.add(ABSENT, observer=True)
    for member in ensemble:
        member.set_up()
    for member in ensemble:
        if member is not absent:
            member.start()
    ensemble.wait_until_all_serve()
    del ensemble.members[ABSENT]
    archive = Archive()
    set_up(ensemble[1])
    started = {member.sid: (member.process.pid, member.resident_kb()) for member in ensemble}
    with Load(ensemble, 2, SEED, rate=200) as load:
        yield Target(ensemble)
        for member in ensemble:
            assert member.is_running() and member.process.pid == started[member.sid][0], f"{member} ended\n{ensemble.state()}"
        ensemble.wait_until_all_serve(30)
        grown = {str(member): (member.resident_kb() - started[member.sid][1]) >> 10 for member in ensemble}
        histories = load.stop()
    checker = verdict(ensemble, archive, histories, TICK_MS)
    assert_none(checker, ensemble, f"SEED={SEED}")
    print(f"\nunder hostile bytes {checker.counts['writes'] + checker.counts['reads']} operations answered and checked; memory grown by {grown} MB")
    assert max(grown.values()) < 200, grown


@pytest.fixture(autouse=True)
def lives_on(target):
    """After each test the leader leads, everybody serves, and the port takes a learner that behaves well."""
    yield
    target.ensemble.wait_until_all_serve(20)
    target.leader = target.ensemble.leader()
    target.follower = next(member for member in target.ensemble.running() if member is not target.leader)
    link, _ = target.learner()
    link.close()


# The quorum port.


@pytest.mark.parametrize("name, data", {
    "no protocol": b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    "zeros": bytes(4096),
    "ones": b"\xff" * 4096,
    "a length of 2 GB": struct.pack(">iqi", FOLLOWER_INFO, 0, 0x7FFFFFFF),
    "a length beyond the limit": struct.pack(">iqi", FOLLOWER_INFO, 0, 64 << 20),
    "a negative length": struct.pack(">iqi", FOLLOWER_INFO, 0, -2),
    "2 billion ids": struct.pack(">iqii", FOLLOWER_INFO, 0, -1, 0x7FFFFFFF),
    "an id of 2 GB": struct.pack(">iqiii", FOLLOWER_INFO, 0, -1, 1, 0x7FFFFFFF),
    "no info": packet(FOLLOWER_INFO, 0),
    "half an info": packet(FOLLOWER_INFO, 0, b"\0" * 10),
    "an unknown server": info(NOBODY),
    "an unknown follower": info(NOBODY, FOLLOWER_INFO),
    "a negative id": info(-1),
    "an old protocol": info(ABSENT, protocol=1),
    "an epoch without end": info(ABSENT, epoch=0x7FFFFFFF),
    "a negative epoch": info(ABSENT, epoch=-5),
    "a configuration of tomorrow": info(ABSENT, version=1 << 60),
    "an ACK first": packet(ACK, 1 << 32),
    "an ACKEPOCH first": packet(ACK_EPOCH, 0, struct.pack(">i", 0)),
    "a request first": packet(REQUEST, -1, struct.pack(">qii", 1, 1, 1)),
    "a PING first": packet(PING, 0, b"\0" * 11),
    "an info twice": info(ABSENT) + info(ABSENT),
}.items())
def test_a_stranger_on_the_quorum_port(target, name, data):
    link = target.quorum().send(data)
    assert link.closes_within(DEADLINE), name


@pytest.mark.parametrize("name, upto, make", [
    ("an ACKEPOCH without data", LEADER_INFO, lambda epoch: packet(ACK_EPOCH, 0)),
    ("an ACKEPOCH with a zxid below all", LEADER_INFO, lambda epoch: packet(ACK_EPOCH, -7, struct.pack(">i", 0))),
    ("an ACK instead of an ACKEPOCH", LEADER_INFO, lambda epoch: packet(ACK, epoch)),
    ("an info again", LEADER_INFO, lambda epoch: info(ABSENT)),
    ("an ACK of what was not proposed", NEW_LEADER, lambda epoch: packet(ACK, epoch + (1 << 30))),
    ("an ACKEPOCH again", NEW_LEADER, lambda epoch: packet(ACK_EPOCH, 0, struct.pack(">i", 0))),
    ("a request before it is up to date", NEW_LEADER, lambda epoch: packet(REQUEST, -1, struct.pack(">qii", 1, 1, 9) + ustring("/"))),
    ("a REVALIDATE before it is up to date", NEW_LEADER, lambda epoch: packet(REVALIDATE, -1, struct.pack(">qi", 1, 1))),
    ("an ACK of what was not proposed, live", UP_TO_DATE, lambda epoch: packet(ACK, epoch + (1 << 30))),
    ("a touch table with a part of an entry", UP_TO_DATE, lambda epoch: packet(PING, 0, b"\0" * 13)),
    ("half a REVALIDATE", UP_TO_DATE, lambda epoch: packet(REVALIDATE, -1, b"\0" * 7)),
    ("half a request", UP_TO_DATE, lambda epoch: packet(REQUEST, -1, b"\0" * 9)),
    ("an info, live", UP_TO_DATE, lambda epoch: info(ABSENT)),
    ("a request without end", UP_TO_DATE, lambda epoch: struct.pack(">iqi", REQUEST, -1, 0x7FFFFFF0)),
])
def test_a_learner_that_misbehaves(target, name, upto, make):
    link, epoch = target.learner(upto)
    link.send(make(epoch))
    assert link.closes_within(DEADLINE), name


def test_what_a_learner_may_not_know_is_stepped_over(target):
    link, epoch = target.learner()
    for kind in (0, 7, 8, 13, 19, 42, -1, 0x7FFFFFFF):
        link.send(packet(kind, 5, b"?"))
    _, zxid, _ = link.until(PING)
    link.send(packet(PING, zxid, b""))
    assert link.until(PING)
    link.close()


def test_requests_that_make_no_sense(target):
    """The leader refuses them with transactions of their own, or not at all; nobody goes down over them."""
    link, epoch = target.learner()
    chance = random.Random(SEED)
    session = ABSENT << 56 | 0x1234
    bodies = [b"", b"\0", b"\xff" * 4, ustring("/a"), ustring("a"), ustring("/" + "x" * 70_000), struct.pack(">i", 0x7FFFFFFF),
              ustring("/../..") + buffer(None), ustring(b"/\xff\xfe"), bytes(1000)]
    for op in [-11, -10, -1, 0, 1, 2, 3, 5, 7, 9, 13, 14, 15, 16, 19, 20, 21, 100, 101, 103, 1000, 0x7FFFFFFF]:
        # A session that a learner begins lives as long as the learner says.
        for cxid, body in enumerate(bodies if op != -10 else [*bodies[:3], bytes(4)]):
            ids = struct.pack(">i", 1) + ustring("ip") + ustring("6.6.6.6")
            data = struct.pack(">qii", chance.choice([0, -1, 1, session]), cxid, op) + body
            try:
                link.send(packet(REQUEST, -1, data, ids))
            except ConnectionError:
                link, _ = target.learner()
    link.close()


def test_the_slow_and_the_silent_on_the_quorum_port(target):
    silent = [target.quorum() for _ in range(100)]
    slow = target.quorum()
    started = time.monotonic()
    data = info(ABSENT)
    try:
        for at in range(len(data)):
            slow.send(data[at:at + 1])
            # As slow as one who wants to hold a place.
            slow.socket.settimeout(0.15)
            try:
                if not slow.socket.recv(1):
                    break
            except TimeoutError:
                pass
    except (ConnectionError, BrokenPipeError):
        pass
    assert slow.closes_within(DEADLINE), "the slow one"
    assert time.monotonic() - started < 2 * DEADLINE
    for link in silent:
        assert link.closes_within(DEADLINE), "a silent one"


def test_a_learner_that_stops_reading_is_cut_off(target):
    link, _ = target.learner()
    # It takes nothing and says nothing any more: the other side's patience is syncLimit.
    limit = time.monotonic() + 5 * TICK_MS / 1000 + 2
    link.socket.settimeout(0.2)
    while time.monotonic() < limit:
        try:
            link.socket.send(b"", 0)
        except OSError:
            break
        if link.socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] != 1:
            break
        time.sleep(0.05)
    state = link.socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0]
    assert state != 1, "the connection still stands"


def test_a_learner_that_claims_a_living_members_id(target):
    """Nobody proves who he is: the member's own link answers, and stays."""
    link = target.quorum().send(info(target.follower.sid, FOLLOWER_INFO))
    assert link.closes_within(DEADLINE)
    assert link.data == b""


def test_a_port_that_does_not_lead_takes_nobody(target):
    with pytest.raises(OSError):
        link = Link(target.follower.host, target.follower.quorum_port).send(info(ABSENT))
        link.packet()


# The election port.


@pytest.mark.parametrize("name, data", {
    "no protocol": b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    "ones": b"\xff" * 4096,
    "an unknown version": initial(ABSENT, version=-65534),
    "an address without end": struct.pack(">qqi", -65536, ABSENT, 0x7FFFFFFF),
    "a negative length": struct.pack(">qqi", -65536, ABSENT, -1),
    "an empty address": initial(ABSENT, b""),
    "an address without a port": initial(ABSENT, b"host"),
    "an address that is no text": initial(ABSENT, b"\xff\xfe:1"),
    "an unknown server": initial(NOBODY),
    "an unknown server, as of old": struct.pack(">q", NOBODY),
    "a negative id": initial(-7),
    "the anonymous observer": initial(0x7FFFFFFFFFFFFFFF),
    "nothing at all": b"",
    "a part of it": initial(ABSENT)[:11],
    "a frame without end": initial(ABSENT) + struct.pack(">i", 0x7FFFFFFF),
    "an empty frame": initial(ABSENT) + struct.pack(">i", 0),
    "a negative frame": initial(ABSENT) + struct.pack(">i", -1),
}.items())
def test_a_stranger_on_the_election_port(target, name, data):
    for member in (target.leader, target.follower):
        link = target.election(member).send(data)
        assert link.closes_within(DEADLINE), name


def test_its_own_id_is_refused(target):
    for member in (target.leader, target.follower):
        assert target.election(member).send(initial(member.sid)).closes_within(DEADLINE)


def test_votes_that_make_no_sense_are_stepped_over(target):
    link = target.election().send(initial(ABSENT))
    huge = 0x7FFFFFFFFFFFFFFF
    for data in [
        vote(state=7), vote(state=-1), vote(leader=NOBODY, zxid=huge, round_=huge, epoch=huge), vote(config=b"\xff\xfe"),
        vote(config=b"server.1=nonsense\nversion=ffffffffffffff"), struct.pack(">i", 3) + b"abc", struct.pack(">i", 28) + bytes(28),
        vote(state=2, leader=ABSENT, zxid=huge, round_=huge, epoch=huge), vote(leader=-(1 << 63), zxid=-(1 << 63), round_=-1, epoch=-1),
    ]:
        link.send(data)
    link.send(vote(leader=ABSENT))
    # A server that is asked tells its vote: it lives.
    answer = link.take(48)
    assert struct.unpack_from(">i", answer, 4)[0] in (1, 2)
    link.close()


def test_many_strangers_on_the_election_port_are_closed_and_members_get_through(target):
    links = [target.election() for _ in range(150)]
    member = target.election().send(initial(ABSENT) + vote(leader=ABSENT))
    for link in links:
        assert link.closes_within(DEADLINE)
    member.close()
    again = target.election().send(initial(ABSENT) + vote(leader=ABSENT))
    assert again.take(48)
    again.close()


def test_a_claim_to_be_a_living_member_on_the_election_port(target):
    for member in (target.leader, target.follower):
        for other in target.ensemble.running():
            if other is not member:
                link = target.election(member).send(initial(other.sid) + vote(leader=other.sid, round_=1 << 40))
                link.closes_within(0.2)
                link.close()


def test_an_unknown_server_is_taken_where_it_is_configured():
    with Ensemble("zzz", {**SETTINGS, "learners.allow": str(NOBODY)}) as ensemble:
        leader = ensemble.leader()
        link = Link(leader.host, leader.quorum_port).send(info(NOBODY))
        assert link.until(LEADER_INFO)
        link.close()
        assert Link(leader.host, leader.quorum_port).send(info(NOBODY - 1)).closes_within(DEADLINE)
        link = Link(leader.host, leader.election_port).send(initial(NOBODY) + vote(leader=NOBODY))
        assert link.take(48)
        link.close()
        assert Link(leader.host, leader.election_port).send(initial(NOBODY - 1)).closes_within(DEADLINE)
        print(f"\nserver {NOBODY} is taken with learners.allow={NOBODY}, server {NOBODY - 1} is not")
