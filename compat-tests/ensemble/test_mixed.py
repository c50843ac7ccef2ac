"""Java 3.9.5 and Zabra in one ensemble: the wire of both peer ports, proved by those who speak it."""
import struct
import threading
import time

import pytest
from clients import (CONNECTION_LOSS, Closed, Roaming, assert_equal_trees, buffer, change, connect, create, ok, read_tree,
                     set_data, sync, ustring, write)
from harness.wire import CHECK, CLOSE, CREATE, CREATE2, CREATE_CONTAINER, CREATE_TTL, DELETE, MULTI, SET, acl
from members import Ensemble

COUNTER = iter(range(1, 1 << 30))


def some_write(member):
    """A server that served a moment ago may notice only now that its leader is gone: then it is asked again."""
    deadline = time.monotonic() + 30
    while True:
        try:
            return write(member, f"/some-{next(COUNTER)}", b"x" * 10)
        except (Closed, OSError):
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)


def part(op, body):
    return struct.pack(">iBi", op, 0, -1) + body


END = struct.pack(">iBi", -1, 1, -1)


def all_kinds_of_writes(member):
    """One of each transaction, and of each that fails."""
    root = f"/kinds-{next(COUNTER)}"
    with connect(member) as session:
        ok(session, CREATE, create(root, b"root"))
        ok(session, CREATE2, create(f"{root}/two", b"2"))
        ok(session, CREATE, create(f"{root}/seq-", b"s", 2))
        ok(session, CREATE, create(f"{root}/null", None))
        ok(session, CREATE_CONTAINER, create(f"{root}/container", b"c", 4))
        ok(session, CREATE_TTL, ustring(f"{root}/ttl") + buffer(b"t") + acl([(31, "world", "anyone")]) + struct.pack(">iq", 5, 1 << 30))
        ok(session, SET, set_data(f"{root}/two", b"set"))
        ok(session, 7, ustring(f"{root}/two") + acl([(31, "digest", "a:b"), (1, "world", "anyone")]) + struct.pack(">i", -1))
        ok(session, CREATE, create(f"{root}/gone"))
        ok(session, DELETE, ustring(f"{root}/gone") + struct.pack(">i", 0))
        ok(session, CREATE, create(f"{root}/mine", b"e", 1))
        ok(session, MULTI, part(CREATE, create(f"{root}/m")) + part(SET, set_data(root, b"multi"))
           + part(CHECK, ustring(root) + struct.pack(">i", 1)) + part(DELETE, ustring(f"{root}/m") + struct.pack(">i", -1)) + END)
        assert session.call(MULTI, part(CREATE, create(f"{root}/m")) + part(CHECK, ustring(root) + struct.pack(">i", 9)) + END)[1] == 0
        assert session.call(CREATE, create(root))[1] == -110
        assert session.call(SET, set_data(f"{root}/never", b""))[1] == -101
        assert session.call(DELETE, ustring(root) + struct.pack(">i", 77))[1] == -103
        sync(session)
        session.call(CLOSE)


def mismatches(member):
    return int(member.mntr()["zk_digest_mismatches_count"])


def assert_agreement(ensemble):
    """Java counts some at a start, too, when it replays its log over a fuzzy snapshot of its own: those are not of here."""
    before = {member: mismatches(member) if member.java else 0 for member in ensemble.running()}
    for member in ensemble.running():
        all_kinds_of_writes(member)
    nodes = assert_equal_trees(ensemble.running())
    for member in ensemble.running():
        assert mismatches(member) == before[member], f"{member} counts digests that differ\n{ensemble.state()}"
    return nodes


@pytest.mark.parametrize("kinds", ["jjz", "jzz"])
def test_each_of_three_leads(kinds):
    with Ensemble(kinds) as ensemble:
        assert_agreement(ensemble)
        for sid in (1, 2, 3):
            ensemble.make_lead(sid, some_write)
            nodes = assert_agreement(ensemble)
            print(f"{kinds}: {ensemble[sid]} led; {nodes} znodes and all digests equal on all three")


def test_observers_of_both_kinds_follow_leaders_of_both_kinds():
    with Ensemble("zjzJZ") as ensemble:
        for sid in (3, 2):
            voters = [ensemble[1], ensemble[2], ensemble[3]]
            others = [voter for voter in voters if voter.sid != sid]
            if ensemble.leader().sid != sid:
                # The one that is elected has more than the one that was away.
                others[1].stop()
                ensemble.wait("two voters serve", lambda: ensemble[sid].mode() and others[0].mode())
                some_write(ensemble[sid])
                others[0].stop()
                others[1].start()
                ensemble.wait("it leads", lambda: ensemble[sid].mode() == "leader" and others[1].mode())
                others[0].start()
                ensemble.wait_until_all_serve()
            assert ensemble.leader().sid == sid
            assert [ensemble[observer].mode() for observer in (4, 5)] == ["observer"] * 2
            nodes = assert_agreement(ensemble)
            print(f"{ensemble[sid]} led, {ensemble[4]} and {ensemble[5]} observed: {nodes} znodes equal on all five")
        # An observer that was away catches up, and one that has nothing.
        for observer in (ensemble[4], ensemble[5]):
            observer.stop()
        some_write(ensemble[1])
        ensemble[5].wipe()
        ensemble[4].start()
        ensemble[5].start()
        ensemble.wait_until_all_serve()
        assert_agreement(ensemble)


class Load:
    """A thread that writes without end at whatever server it finds, and remembers what was acknowledged."""

    def __init__(self, members, name):
        self.client = Roaming(members, timeout_ms=15_000, first=len(name))
        self.root = f"/{name}"
        self.acknowledged = []
        self.failures = []
        self.stopping = threading.Event()
        self.client.insist(CREATE, create(self.root))
        self.thread = threading.Thread(target=self.run)

    def run(self):
        try:
            number = 0
            while not self.stopping.is_set():
                number += 1
                zxid, err, _ = self.client.call(CREATE, create(f"{self.root}/{number}", b"d" * 100))
                if err == 0:
                    self.acknowledged.append((zxid, number))
                elif err != CONNECTION_LOSS:
                    self.failures.append((number, err))
        except AssertionError as error:
            self.failures.append(error)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.stopping.set()
        self.thread.join(60)
        self.client.close()

    def check(self, member):
        """To be asked after the end."""
        assert not self.failures, self.failures
        assert self.client.expired == 0, "a session of 15 s expired"
        tree = read_tree(member)
        missing = [number for _, number in self.acknowledged if f"{self.root}/{number}" not in tree]
        assert not missing, f"acknowledged and lost: {missing}"
        for zxid, number in self.acknowledged:
            assert tree[f"{self.root}/{number}"][1]["czxid"] == zxid
        assert self.acknowledged == sorted(self.acknowledged)
        return len(self.acknowledged)


def test_a_rolling_move_to_zabra_and_back_loses_nothing():
    with Ensemble("jjj") as ensemble, Load(ensemble, "a") as one, Load(ensemble, "bb") as two:
        for java in (False, True):
            for member in sorted(ensemble, key=lambda member: member.mode() == "leader"):
                member.stop()
                member.java = java
                member.start()
                ensemble.wait_until_all_serve()
                before = len(one.acknowledged), len(two.acknowledged)
                ensemble.wait("writes go on", lambda: len(one.acknowledged) > before[0] and len(two.acknowledged) > before[1])
            kinds = [str(member) for member in ensemble]
            print(f"moved under load: {kinds}, {len(one.acknowledged) + len(two.acknowledged)} writes so far")
        one.__exit__()
        two.__exit__()
        count = one.check(ensemble[1]) + two.check(ensemble[2])
        assert_equal_trees(ensemble)
        print(f"{count} acknowledged writes are all there")


def lead_of(ensemble, java):
    """Has a server of that kind lead, and gives it with a follower of the other kind."""
    leader = ensemble.leader()
    if leader.java != java:
        leader = next(member for member in ensemble if member.java == java)
        ensemble.make_lead(leader.sid, some_write)
    return leader, next(member for member in ensemble if member.java != java)


@pytest.mark.parametrize("java_leads", [True, False], ids=["java-leads", "zabra-leads"])
def test_a_follower_of_the_other_kind_is_synchronized_in_every_way(java_leads):
    # The largest id is the leader's: of two with equal logs it is elected.
    # Zabra sends all of the log where it reaches back to the beginning: there, purging sees to it that it does not.
    settings = {} if java_leads else {"snapCount": "100", "autopurge.purgeInterval": "1"}
    with Ensemble("zzj" if java_leads else "jjz", settings) as ensemble:
        leader, follower = lead_of(ensemble, java_leads)
        third = next(member for member in ensemble if member not in (leader, follower))
        # With nothing at all it would be sent a snapshot.
        some_write(follower)
        follower.stop()
        for _ in range(5):
            some_write(leader)
        assert ensemble.come_back(follower) == ["DIFF"]
        follower.stop()
        with connect(leader) as session:
            for _ in range(7):
                for number in range(100):
                    session.push(CREATE, create(f"/log-{next(COUNTER)}", b"y" * 100))
                for number in range(100):
                    assert session.reply()[2] == 0
            session.call(CLOSE)
        assert ensemble.come_back(follower) == ["DIFF"], "from Java, beyond its committed transactions in memory"
        follower.stop()
        follower.wipe()
        if not java_leads:
            third.stop()
            leader.stop()
            leader.start()
            third.start()
            ensemble.wait("the oldest log is purged", lambda: leader.mode() and not (leader.files / "log.100000001").exists())
        assert ensemble.come_back(follower) == ["SNAP"]
        assert_agreement(ensemble)
        # A diverged tail: the follower was leader, and the other kind leads when it comes back.
        ensemble.make_lead(follower.sid, some_write)
        ensemble.diverge(follower, ["/lost-1", "/lost-2", "/lost-3"])
        leader.start()
        third.start()
        # No write between: Java truncates only before its new epoch has a transaction.
        ensemble.wait("two serve", lambda: leader.mode() == "leader" and third.mode())
        ways = ensemble.come_back(follower)
        assert ways == ["TRUNC"], ways
        assert_agreement(ensemble)
        assert all("/lost-1" not in read_tree(member) for member in ensemble)
        print(f"{follower} by {leader}: DIFF twice, SNAP, TRUNC")


@pytest.mark.parametrize("java_leads", [True, False], ids=["java-leads", "zabra-leads"])
def test_sessions_move_and_expire_across_kinds(java_leads):
    with Ensemble("jzj" if java_leads else "zjz") as ensemble:
        lead_of(ensemble, java_leads)
        java = next(member for member in ensemble if member.java)
        zabra = next(member for member in ensemble if not member.java)
        for number, (one, other) in enumerate([(java, zabra), (zabra, java)]):
            session = connect(one, timeout_ms=6000)
            assert session.session, f"{one} gave no session"
            mine = f"/mine-{number}"
            ok(session, CREATE, create(mine, b"e", 1))
            # The same session at the other server, while the old connection stands.
            moved = connect(other, session.session, session.passwd, 6000)
            assert moved.session == session.session, f"from {one} to {other}"
            # As with Java's client, xids go on. A server knows a commit by session and xid alone: of what a session did
            # elsewhere a moment ago, it may hear when the session is here, and take it for the answer to a request of the same xid.
            moved.xid = 100
            sync(moved)
            ok(moved, CREATE, create(f"{mine}-too", b"e", 1))
            # Writes through the old connection are refused: by an error, or by its end.
            try:
                zxid, err, _ = session.call(CREATE, create(f"{mine}-late", b"e", 1))
                assert err == -118, err
            except Closed:
                pass
            session.close()
            back = connect(one, moved.session, moved.passwd, 6000)
            assert back.session == moved.session
            back.xid = 200
            moved.close()
            ok(back, CREATE, create(f"{mine}-back", b"e", 1))
            # A wrong password takes nothing.
            wrong = connect(other, back.session, bytes(15) + b"!", 6000)
            assert wrong.session == 0
            wrong.close()
            with connect(other) as reader:
                sync(reader)
                for path in (mine, f"{mine}-too", f"{mine}-back"):
                    assert reader.call(4, ustring(path) + b"\0")[1] == 0, path
                reader.call(CLOSE)
            if number == 0:
                back.call(CLOSE)
                back.close()
                gone_after = 0
            else:
                # It is left alone: the leader lets it expire, whichever server it hung on.
                back.close()
                started = time.monotonic()
                ensemble.wait("the session expires", lambda: mine not in read_tree(other), 15)
                gone_after = time.monotonic() - started
                assert 4 < gone_after < 10, gone_after
            for member in ensemble:
                tree = read_tree(member)
                left = [path for path in tree if path.startswith(mine)]
                assert not left, f"{member} keeps {left}"
            late = connect(one, back.session, back.passwd, 6000)
            assert late.session == 0, f"{one} takes a session that is over"
            late.close()
            print(f"{ensemble.leader()} leads: a session went {one} → {other} → {one} and ended"
                  + (f" {gone_after:.1f} s after it was left" if gone_after else " by request"))
        assert_agreement(ensemble)


@pytest.mark.parametrize("java_leads", [True, False], ids=["java-leads", "zabra-leads"])
def test_reconfiguration_in_a_mixed_ensemble(java_leads):
    with Ensemble("jzz" if java_leads else "zjj", dynamic=True) as ensemble:
        leader, _ = lead_of(ensemble, java_leads)
        # One of each kind joins: first as a learner that nobody knows, then as a member.
        for sid, java in ((4, True), (5, False)):
            joiner = ensemble.add(sid, java=java)
            joiner.set_up([ensemble[1], ensemble[2], ensemble[3], joiner])
            joiner.start()
            ensemble.wait(f"{joiner} follows", joiner.mode)
            text = change(ensemble, joining=joiner.line)
            assert f"server.{sid}=" in text
            some_write(joiner)
        assert_agreement(ensemble)
        # An observer is made of a voter, and a voter of it again.
        ensemble[5].observer = True
        change(ensemble, joining=ensemble[5].line)
        ensemble.wait("5 observes", lambda: ensemble[5].mode() == "observer")
        assert_agreement(ensemble)
        ensemble[5].observer = False
        change(ensemble, joining=ensemble[5].line)
        ensemble.wait("5 follows", lambda: ensemble[5].mode() == "follower")
        # The leader leaves: another is designated.
        leader = ensemble.leader()
        change(ensemble, leaving=str(leader.sid))
        leader.stop()
        del ensemble.members[leader.sid]
        ensemble.wait_until_all_serve()
        assert_agreement(ensemble)
        # All at once, back to three.
        rest = sorted(ensemble.members)[:3]
        gone = sorted(set(ensemble.members) - set(rest))
        change(ensemble, members="\n".join(ensemble[sid].line for sid in rest))
        for sid in gone:
            ensemble[sid].stop()
            del ensemble.members[sid]
        ensemble.wait_until_all_serve()
        assert_agreement(ensemble)
        texts = {member: sorted(line for line in read_tree(member)["/zookeeper/config"][0]) for member in ensemble}
        assert len({str(text) for text in texts.values()}) == 1, texts
        # Each finds its configuration in its files.
        for member in ensemble:
            member.stop()
        for member in ensemble:
            member.start()
        ensemble.wait_until_all_serve()
        assert_agreement(ensemble)
        print(f"began with {'Java' if java_leads else 'Zabra'} leading: joined, observed, left, designated, replaced, restarted")
