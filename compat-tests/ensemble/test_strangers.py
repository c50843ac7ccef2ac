"""Strangers on the peer ports: whoever connects and claims what he likes moves nothing, ends nothing and keeps nobody out.

ATTACK_SECONDS (10) is how long all of it goes on at once under load.
"""
import contextlib
import os
import random
import resource
import select
import socket
import struct
import threading
import time

import clients
import pytest
from harness.wire import CLOSE, CREATE, create
from load import Load, set_up
from members import Ensemble
from test_hostile import ACK_EPOCH, FOLLOWER_INFO, LEADER_INFO, OBSERVER_INFO, PING, REQUEST, Link, info, initial, packet, vote

TICK_MS = 500
SETTINGS = {"tickTime": str(TICK_MS), "initLimit": "10", "syncLimit": "4", "minSessionTimeout": "1000"}
ATTACK_SECONDS = float(os.environ.get("ATTACK_SECONDS", "10"))
SEED = int(os.environ.get("SEED", str(random.SystemRandom().randrange(1 << 32))))
LAST_EPOCH, LAST_ROUND = 0x7FFFFFFE, 0x7FFFFFFFFFFFFFFF
MAX_GROWTH_MB = 200


@pytest.fixture(scope="module")
def ensemble():
    with Ensemble("zzz", SETTINGS) as ensemble:
        set_up(ensemble[1])
        yield ensemble


@pytest.fixture
def healthy(ensemble):
    """The ensemble; afterwards the same leader leads in the same epoch, and a session that was there is still there."""
    ensemble.wait_until_all_serve()
    leader, before = ensemble.leader(), epochs(ensemble)
    others = [member for member in ensemble if member is not leader]
    with contextlib.ExitStack() as stack:
        # That of a follower that a test restarts would go with it.
        sessions = [stack.enter_context(clients.connect(member, timeout_ms=40_000)) for member in (leader, others[1])]
        yield ensemble, leader, others
        ensemble.wait_until_all_serve()
        assert ensemble.leader() is leader, f"{leader} does not lead any more\n{ensemble.state()}"
        assert epochs(ensemble) == before
        for session in sessions:
            clients.sync(session)
            session.call(CLOSE)


def epochs(ensemble):
    return {member.sid: (member.files / "acceptedEpoch").read_text() for member in ensemble}


def say(host, port, data):
    """Says it and listens for a moment; whether anything comes back is no matter."""
    with contextlib.suppress(OSError):
        link = Link(host, port).send(data)
        link.closes_within(0.05)
        link.close()


def attempt(action):
    with contextlib.suppress(OSError, AssertionError):
        action()


def silent(host, port, count):
    """Connections that say nothing. What the server closes is no matter."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(max(soft, 8192), hard), hard))
    links = []
    for _ in range(count):
        with contextlib.suppress(OSError):
            links.append(socket.create_connection((host, port), timeout=5))
    return links


# One for each.


@pytest.mark.parametrize("epoch", ["a later one", LAST_EPOCH])
def test_a_claimed_epoch_deposes_nobody(healthy, epoch):
    ensemble, leader, others = healthy
    for _ in range(5):
        for member in ensemble:
            claimed = int(epochs(ensemble)[leader.sid]) + 255 if epoch == "a later one" else epoch
            say(member.host, member.quorum_port, info(others[0].sid, FOLLOWER_INFO, epoch=claimed))
            say(member.host, member.quorum_port, info(others[0].sid, FOLLOWER_INFO, epoch=1))


def test_no_vote_ends_a_server_that_looks():
    """One of three is up, and looks for a leader."""
    with Ensemble("zzz", SETTINGS) as ensemble:
        first = ensemble[1]
        for member in list(ensemble)[1:]:
            member.stop()
        ensemble.wait("it looks", lambda: first.mode() is None)
        for leader in (1, 2):
            for round_ in (LAST_ROUND, LAST_ROUND - 1, 1 << 62, 1 << 40, -1, -(1 << 63)):
                say(first.host, first.election_port, initial(3) + vote(0, leader, 0x70 << 56, round_, 0x7000))
        assert first.is_running(), ensemble.state()
        for member in list(ensemble)[1:]:
            member.start()
        ensemble.wait_until_all_serve(20)


def test_nobody_alone_replaces_the_configuration():
    """A server that looks is told another configuration, by one whom nobody knows."""
    with Ensemble("zzz", SETTINGS, dynamic=True) as ensemble:
        first = ensemble[1]
        for member in list(ensemble)[1:]:
            member.stop()
        ensemble.wait("it looks", lambda: first.mode() is None)
        before = first.config.read_text()
        for version in ("7ffffffffffffff0", "100000001"):
            for claimed in (99, 3):
                text = f"server.1=127.0.0.1:{first.quorum_port}:{first.election_port}\nserver.{claimed}=127.0.0.1:1:2"
                text = f"{text}\nversion={version}".encode()
                for _ in range(6):
                    say(first.host, first.election_port, initial(claimed) + vote(0, 1, 1, 1, 1, text))
        assert first.config.read_text() == before
        assert not [path for path in first.dir.iterdir() if "7fff" in path.name or path.name.endswith("100000001")]
        for member in list(ensemble)[1:]:
            member.start()
        ensemble.wait_until_all_serve(20)


def test_a_ping_of_nobody_touches_no_session(healthy):
    """The one lives and stays, the other one is dead and goes."""
    ensemble, leader, _ = healthy
    with clients.connect(leader, timeout_ms=20_000) as living, clients.connect(leader) as looks:
        dying = clients.connect(leader, timeout_ms=2000)
        for session, path in ((living, "/living"), (dying, "/dying")):
            clients.ok(session, CREATE, create(path, b"", 1))
        dying.close()
        died = time.monotonic()
        while time.monotonic() < died + 4:
            touches = struct.pack(">qiqi", living.session, 0, dying.session, 0x7FFFFFFF)
            say(leader.host, leader.quorum_port, packet(PING, 0, touches))
        clients.sync(looks)
        assert looks.call(3, clients.ustring("/living") + b"\0")[1] == 0, "the living one"
        ensemble.wait("the dead one", lambda: looks.call(3, clients.ustring("/dying") + b"\0")[1] == -101, 3)
        living.call(CLOSE), looks.call(CLOSE)


def test_a_claimed_id_does_not_take_the_members_link(healthy):
    ensemble, leader, others = healthy
    for member in others:
        with clients.connect(member) as session:
            for _ in range(3):
                link = Link(leader.host, leader.quorum_port).send(info(member.sid, FOLLOWER_INFO))
                assert link.closes_within(3 * TICK_MS / 1000), "it is told the epoch, or waits for ever"
                assert link.data == b""
            assert member.mode() == "follower"
            clients.sync(session)
            session.call(CLOSE)


def test_unfinished_packets_take_no_memory(healthy):
    ensemble, leader, _ = healthy
    before = leader.resident_kb()
    links = []
    for _ in range(20):
        with contextlib.suppress(OSError):
            link = Link(leader.host, leader.quorum_port)
            links.append(link)
            link.send(struct.pack(">iqi", REQUEST, -1, 0) + struct.pack(">i", 1024))
            for _ in range(20):
                link.send(struct.pack(">i", 2_000_000) + bytes(2_000_000))
    grown = (leader.resident_kb() - before) >> 10
    for link in links:
        link.close()
    print(f"\n20 unfinished packets of 40 MB: {grown} MB more")
    assert grown < 50


def test_silent_connections_leave_the_quorum_port_open(healthy):
    """Somebody holds more of them than there are descriptors; a member comes back, and a log is rolled."""
    ensemble, leader, others = healthy
    links = silent(leader.host, leader.quorum_port, 1500)
    open_there = len(os.listdir(f"/proc/{leader.process.pid}/fd"))
    others[0].stop()
    others[0].start()
    started = time.monotonic()
    ensemble.wait_until_serves(others[0], 10)
    print(f"\n{len(links)} silent connections: {open_there} descriptors in use, back after {time.monotonic() - started:.2f} s")
    for link in links:
        link.close()
    assert open_there < 400


class Crowd:
    """Silent connections to a port, `count` of them all the time: for each that is closed there comes another one."""

    def __init__(self, host, port, count=100):
        self.address, self.count, self.open, self.ends = (host, port), count, [], threading.Event()
        self.thread = threading.Thread(target=self.hold)
        self.thread.start()

    def hold(self):
        while not self.ends.is_set():
            # A closed one can be read.
            closed, _, _ = select.select(self.open, [], [], 0.01)
            for link in closed:
                self.open.remove(link)
                link.close()
            while len(self.open) < self.count and not self.ends.is_set():
                try:
                    self.open.append(socket.create_connection(self.address, timeout=5))
                except OSError:
                    # The server is stopped.
                    self.ends.wait(0.01)

    def leave(self):
        self.ends.set()
        self.thread.join()
        for link in self.open:
            link.close()


def test_silent_connections_stop_no_election():
    """Two of three stop, one comes back: it has to get in beside the crowd, at the one that stayed, or nobody leads."""
    with Ensemble("zzz", SETTINGS) as ensemble:
        leader = ensemble.leader()
        back, stays = [member for member in ensemble if member is not leader]
        back.stop()
        crowds = [Crowd(member.host, member.election_port) for member in (back, stays)]
        try:
            ensemble.wait("they are there", lambda: len(crowds[1].open) >= 64)
            leader.stop()
            back.start()
            started = time.monotonic()
            ensemble.wait_for_leader(10)
            print(f"\nbeside a crowd of silent connections a server led after {time.monotonic() - started:.2f} s")
        finally:
            for crowd in crowds:
                crowd.leave()


def test_nobody_is_called_where_he_says():
    with Ensemble("zzz", SETTINGS, dynamic=True) as ensemble, socket.create_server(("127.0.0.1", 0)) as called:
        called.settimeout(2)
        address = f"127.0.0.1:{called.getsockname()[1]}".encode()
        for member in ensemble:
            say(member.host, member.election_port, initial(0, address))
        with pytest.raises(TimeoutError):
            called.accept()


@pytest.mark.parametrize("checks", [True, False])
def test_a_member_comes_from_its_address(checks):
    """The fourth member's line has an address that nobody here connects from."""
    with Ensemble("zzz", {**SETTINGS, "peers.checkAddress": str(checks).lower()}) as ensemble:
        for member in ensemble:
            member.stop()
        absent = ensemble.add(4, observer=True)
        absent.name = "192.0.2.7"
        for member in ensemble:
            member.set_up()
        del ensemble.members[4]
        for member in ensemble:
            member.start()
        ensemble.wait_until_all_serve()
        leader = ensemble.leader()
        link = Link(leader.host, leader.quorum_port).send(info(4, OBSERVER_INFO))
        vote_of = Link(leader.host, leader.election_port).send(initial(4) + vote(leader=4))
        if checks:
            assert link.closes_within(1) and vote_of.closes_within(1)
            assert "peers.checkAddress=false" in leader.log()
        else:
            assert link.until(LEADER_INFO) and vote_of.take(48)


# All at once.


def attacks(ensemble, chance):
    members = list(ensemble)
    victim, claimed = chance.choice(members), chance.choice(members).sid
    quorum, election = (victim.host, victim.quorum_port), (victim.host, victim.election_port)
    epoch = chance.choice([0, 1, 2, 300, LAST_EPOCH])
    round_ = chance.choice([1, 2, 1 << 30, 1 << 62, LAST_ROUND])
    config = f"server.1=127.0.0.1:1:2\nversion={chance.choice(['1', '7ffffffffffffff0'])}".encode()
    hello = info(claimed, FOLLOWER_INFO, epoch=epoch)
    return [
        lambda: say(*quorum, hello),
        lambda: say(*quorum, hello + packet(ACK_EPOCH, 0, struct.pack(">i", 0))),
        lambda: say(*quorum, packet(PING, 0, struct.pack(">qi", chance.getrandbits(63), 0))),
        lambda: say(*quorum, struct.pack(">iqi", REQUEST, -1, 2_000_000) + bytes(1_000_000)),
        lambda: say(*election, initial(claimed) + vote(0, claimed, 0x70 << 56, round_, 0x7000, config)),
        lambda: say(*election, initial(99) + vote(2, 99, 0x70 << 56, round_, 0x7000, config)),
        lambda: say(*election, initial(0, b"127.0.0.1:1")),
        lambda: [link.close() for link in silent(*quorum, 100)],
        lambda: [link.close() for link in silent(*election, 100)],
        lambda: attempt(lambda: Link(*quorum).send(hello).until(LEADER_INFO)),
    ]


def test_every_attack_at_once(ensemble):
    print(f"\nSEED={SEED}")
    ensemble.wait_until_all_serve()
    leader, before = ensemble.leader(), epochs(ensemble)
    rss = {member.sid: member.resident_kb() for member in ensemble}
    ends, counts = threading.Event(), []

    def attack(index):
        chance, count = random.Random(f"{SEED}/{index}"), 0
        while not ends.is_set():
            attempt(chance.choice(attacks(ensemble, chance)))
            count += 1
        counts.append(count)

    threads = [threading.Thread(target=attack, args=(index,)) for index in range(4)]
    with Load(ensemble, 2, SEED, rate=100, timeouts=(15_000,), end_sessions=False) as load:
        for thread in threads:
            thread.start()
        grown, until = {member.sid: 0 for member in ensemble}, time.monotonic() + ATTACK_SECONDS
        try:
            while time.monotonic() < until:
                assert ensemble.leader() is leader, f"{leader} does not lead any more\n{ensemble.state()}"
                for member in ensemble:
                    assert member.is_running(), ensemble.state()
                    grown[member.sid] = max(grown[member.sid], (member.resident_kb() - rss[member.sid]) >> 10)
                ends.wait(0.2)
        finally:
            ends.set()
            for thread in threads:
                thread.join()
        ensemble.wait_until_all_serve()
        histories = load.stop()
    opened = [event for history in histories for event in history if event[0] == "open"]
    expired = [event for history in histories for event in history if event[0] == "expired"]
    answered = sum(event[0] == "reply" for history in histories for event in history)
    print(f"{sum(counts)} attacks in {ATTACK_SECONDS:.0f} s: {answered} operations answered, {len(opened)} connections of 2 clients, "
          f"{len(expired)} sessions expired; memory grown by {grown} MB")
    assert ensemble.leader() is leader and epochs(ensemble) == before
    assert not expired and answered > 100
    # A client leaves a server that takes more than a second to answer; its session goes on.
    again = opened[len(histories):]
    assert len({event[1] for event in opened}) == len(histories), again
    assert max(grown.values()) < MAX_GROWTH_MB, grown
