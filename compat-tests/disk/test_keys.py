"""What the keys of the log and of snapshots do, as with Java: SERVER=java runs the same against its server."""
import struct
import subprocess
import time

import pytest
from harness.server import BINARY, IS_JAVA, Server
from harness.wire import CLOSE, CREATE, EXISTS, Session, create, watched

# What a digest, and what the last zxid take after a snapshot's body: each with its checksum and "/".
DIGEST, LAST_ZXID = 8 + 4 + 8 + 8 + 5, 8 + 8 + 5


def closed_session(server):
    """The transaction that ended a session with two ephemerals, as `zabra log` prints it."""
    with Session(server.port) as owner:
        for name in ["/first", "/second"]:
            assert owner.call(CREATE, create(name, flags=1))[1] == 0
        assert owner.call(CLOSE)[1] == 0
    with Session(server.port) as looker:
        assert looker.call(EXISTS, watched("/first"))[1] == -101
    server.stop()
    printed = subprocess.run([BINARY, "log", server.files], capture_output=True, text=True, check=True).stdout
    line, = [line for line in printed.splitlines() if "closeSession" in line][:1]
    return line


@pytest.mark.parametrize("value", ["true", "false"])
def test_a_closed_session_lists_its_ephemerals_or_not(value):
    with Server({}, {"zookeeper.closeSessionTxn.enabled": value}) as server:
        line = closed_session(server)
        assert ("/first" in line and "/second" in line) == (value == "true"), line
        # Both ends of its life read what the other wrote.
        server.start()
        with Session(server.port) as looker:
            assert looker.call(EXISTS, watched("/second"))[1] == -101


@pytest.mark.parametrize("value", ["true", "false"])
def test_a_snapshot_ends_with_the_last_zxid_or_not(value):
    with Server({"snapCount": "10"}, {"zookeeper.serializeLastProcessedZxid.enabled": value}) as server:
        with Session(server.port) as session:
            for number in range(40):
                assert session.call(CREATE, create(f"/n{number}"))[1] == 0
        named = lambda: max((int(path.name[9:], 16), path) for path in server.files.glob("snapshot.*"))
        server.wait_until("there is no snapshot", lambda: named()[0] > 0, 30)
        server.stop()
        zxid, path = named()
        data = path.read_bytes()
        end = data[-LAST_ZXID:] if value == "true" else data[-DIGEST:]
        # The zxid before the seal is the snapshot's, whichever part is the last; or, with Java, that of its end.
        assert zxid <= struct.unpack(">q", end[:8])[0] <= zxid + 50 * IS_JAVA and data.endswith(b"\x00\x00\x00\x01/")
        server.start()
        with Session(server.port) as session:
            assert session.call(EXISTS, watched("/n39"))[1] == 0


def figure(server, name):
    return float(next(line.split("\t")[1] for line in server.word("mntr").splitlines() if line.startswith(f"{name}\t")))


def seconds_of_writes(session, count, first):
    begun = time.monotonic()
    for number in range(first, first + count):
        assert session.call(CREATE, create(f"/n{number}"))[1] == 0
    return time.monotonic() - begun


@pytest.mark.parametrize("flags, least", [
    # A write waits for others for as long, counted from the last sync.
    ({"zookeeper.flushDelay": "200", "zookeeper.maxWriteQueuePollTime": "200"}, 0.2),
    # It gives up after a third of that, where none comes.
    ({"zookeeper.flushDelay": "300"}, 0.1),
], ids=["delay", "pause"])
def test_writes_wait_for_each_other(flags, least):
    count = 8
    with Server({}, flags) as server, Session(server.port) as session:
        seconds_of_writes(session, 1, 0)
        took = seconds_of_writes(session, count, 1)
        print(f"\n{count} writes took {took:.2f} s with {flags}")
        assert took > 0.9 * count * least


@pytest.mark.skipif(IS_JAVA, reason="of Java's figures none counts the syncs alone")
def test_a_sync_has_no_more_transactions_than_it_may():
    count = 500
    syncs = {}
    for most in ["1", "7", ""]:
        flags = {"zookeeper.maxBatchSize": most} if most else {}
        with Server({}, flags) as server, Session(server.port) as session:
            before = figure(server, "zk_cnt_fsynctime")
            for number in range(count):
                session.send_frame(struct.pack(">ii", number + 1000, CREATE) + create(f"/n{number}"))
            for _ in range(count):
                assert session.reply()[2] == 0
            syncs[most] = figure(server, "zk_cnt_fsynctime") - before
    print(f"\nsyncs of {count} transactions: {syncs}")
    assert syncs["1"] >= count and syncs["7"] >= count / 7 and syncs[""] < count / 7


@pytest.mark.skipif(IS_JAVA, reason="Java logs each slow sync, in other words")
def test_a_slow_sync_is_logged_and_the_next_ones_are_counted():
    with Server({}, {"zookeeper.fsync.warningthresholdms": "0"}) as server, Session(server.port) as session:
        seconds_of_writes(session, 50, 0)
        lines = [line for line in server.log().splitlines() if "slow sync of the log" in line]
        assert len(lines) == 1 and "WARN" in lines[0] and "took_ms=" in lines[0], lines
    with Server() as server, Session(server.port) as session:
        seconds_of_writes(session, 50, 0)
        assert "slow sync" not in server.log()
