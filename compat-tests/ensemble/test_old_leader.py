"""A leader that stood still while others elected another one: the answers that waited in its sockets do not make it one."""
import contextlib
import threading

import pytest
from clients import GET, Closed, Fields, connect, create, ok, set_data
from harness.wire import CREATE, SET, watched
from members import Ensemble
from net import Net, is_possible, own_namespaces

TICK_MS, SYNC_LIMIT = 200, 5
SETTINGS = {"tickTime": str(TICK_MS), "initLimit": "25", "syncLimit": str(SYNC_LIMIT), "cnxTimeout": "500"}
ROUNDS = 4
pytestmark = pytest.mark.skipif(not is_possible(), reason="namespaces need root")


def logged(member):
    """How often a log of it has a write of the old value."""
    return sum(log.read_bytes().count(b"old") for log in member.files.glob("log.*"))


def old_read(ensemble, net, at):
    """What the old leader reads, long after another one was told something newer. Nothing: it does not answer."""
    leader = ensemble.wait_for_leader()
    others = [member for member in ensemble if member is not leader]
    with connect(leader) as writer, connect(leader, timeout=SYNC_LIMIT * TICK_MS / 1000) as reader:
        ok(reader, CREATE, create(f"/a-{at}", b"old"))
        before = logged(leader)
        # Their acknowledgements are under way when it stands still.
        for member in others:
            member.pause()
        for _ in range(20):
            writer.push(SET, set_data(f"/a-{at}", b"old"))
        ensemble.wait("the writes are logged", lambda: logged(leader) >= before + 20, 10)
        leader.pause()
        for member in others:
            member.resume()
        for member in others:
            ensemble.wait("the writes are logged there", lambda member=member: logged(member) >= before + 20, 10)
        net.cut_off(leader.sid)
        ensemble.wait("another leader", lambda: any(member.mode() == "leader" for member in others))
        with connect(others[0]) as session:
            ok(session, SET, set_data(f"/a-{at}", b"new"))
        # What was read before this would not be too old.
        threading.Event().wait(1.2 * SYNC_LIMIT * TICK_MS / 1000)
        leader.resume()
        reader.push(GET, watched(f"/a-{at}"))
        data = None
        with contextlib.suppress(Closed, OSError):
            data = Fields(reader.reply()[3]).buffer()
    net.heal()
    ensemble.wait_until_all_serve()
    return data


def test_a_deposed_leader_reads_nothing_old():
    with own_namespaces(), Net(range(1, 4)) as net, Ensemble("zzz", SETTINGS, net=net) as ensemble:
        found = [old_read(ensemble, net, at) for at in range(ROUNDS)]
        print(f"\nthe old leader read {found}")
        assert found == ROUNDS * [None]


@pytest.mark.parametrize("kinds", ["zzz", "zjj"], ids=["zabra", "java"])
def test_a_follower_that_stood_still_asks_its_leader_and_reads_on(kinds):
    """Shorter than its leader takes it for gone. Java's leader answers as well."""
    with Ensemble(kinds, {**SETTINGS, "syncLimit": "50"}) as ensemble:
        follower = ensemble[1]
        assert follower.mode() == "follower", ensemble.state()
        with connect(follower, timeout=20) as session:
            ok(session, CREATE, create("/a", b"data"))
            searches = follower.log().count("looking for a leader")
            follower.pause()
            threading.Event().wait(2.5 * TICK_MS / 1000)
            session.push(GET, watched("/a"))
            follower.resume()
            assert Fields(session.reply()[3]).buffer() == b"data"
        ensemble.wait("it is told", lambda: "stood still for" in follower.log(), 10)
        assert follower.log().count("looking for a leader") == searches, follower.log()
