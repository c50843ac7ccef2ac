"""Damaged files of a server alone: a torn tail starts and says so; damage before good records, or to what was synced, does not start
and names the place."""
import os
import re
import shutil
import struct

import pytest
from harness.server import IS_JAVA, Server, await_that
from harness.wire import CLOSE, CREATE, GET, SET, Session, create, set_data, watched

# Places of a log that are damaged, one after the other.
PLACES = int(os.environ.get("PLACES", "20"))
pytestmark = pytest.mark.skipif(IS_JAVA, reason="it is about this server's recovery")
WRITES = 40


def fill(server, count=WRITES):
    with Session(server.port) as session:
        session.call(CREATE, create("/d", b"0"))
        for value in range(1, count + 1):
            assert session.call(SET, set_data("/d", str(value).encode()))[1] == 0
        session.call(CLOSE)


def records(path):
    """Offsets and lengths of the records of a log file."""
    data, at, found = path.read_bytes(), 16, []
    while at + 12 <= len(data):
        (length,) = struct.unpack(">i", data[at + 8:at + 12])
        if length == 0:
            break
        found.append((at, 12 + length + 1))
        at += 12 + length + 1
    return found


@pytest.fixture(scope="module")
def filled(tmp_path_factory):
    """A data directory with one log of some records, and where they stand."""
    directory = tmp_path_factory.mktemp("filled")
    server = Server({"preAllocSize": "64"}, data=directory)
    server.start()
    fill(server)
    server.stop()
    log = server.files / "log.1"
    return directory, records(log)


@pytest.fixture
def copy(filled, tmp_path):
    """A fresh copy of it, with a server that is not started."""
    directory, _ = filled
    shutil.copytree(directory / "data", tmp_path / "data", dirs_exist_ok=True)
    server = Server({"preAllocSize": "64"}, data=tmp_path)
    yield server
    server.stop()


def forget_synced(server):
    """As a loss of power may leave it: nothing says how far the log was synced."""
    (server.files / "zabra.synced").unlink(missing_ok=True)


def value(server):
    with Session(server.port) as session:
        body = session.call(GET, watched("/d"))[2]
    (length,) = struct.unpack(">i", body[:4])
    return int(body[4:4 + length])


def refuses(server, *words):
    """It ends by itself with an error that holds all of `words`, and changes no file."""
    before = {path.name: path.read_bytes() for path in server.files.iterdir()}
    server.start(wait=False)
    assert server.process.wait(20) != 0, server.log()
    for word in words:
        assert word in server.log(), f"{word!r} is missing in:\n{server.log()}"
    assert before == {path.name: path.read_bytes() for path in server.files.iterdir()}


def test_a_tail_cut_at_every_byte_of_the_last_record_starts(filled, copy):
    log = copy.files / "log.1"
    whole = log.read_bytes()
    # The last record closes the session; the one before it is the last write.
    at, length = filled[1][-2]
    for cut in range(at, at + length):
        for old in copy.files.glob("*log*"):
            old.unlink()
        forget_synced(copy)
        log.write_bytes(whole[:cut])
        copy.log_path.unlink(missing_ok=True)
        copy.start()
        assert value(copy) == WRITES - 1, f"cut at {cut}"
        # The first bytes of a checksum are zero: cut there, nothing is left that could be told from padding.
        if whole[at:cut].strip(b"\0"):
            assert f"offset {at}" in copy.log() and str(log) in copy.log(), copy.log()
            kept = copy.files / f"torn.log.1.{at}"
            assert kept.read_bytes() == whole[at:cut].rstrip(b"\0")
        copy.stop()


def test_a_flipped_bit_in_the_last_record_is_a_torn_tail(filled, copy):
    log = copy.files / "log.1"
    whole = log.read_bytes()
    at, length = filled[1][-1]
    for place in range(at + 12, at + length, 7):
        for old in copy.files.glob("*log*"):
            old.unlink()
        forget_synced(copy)
        data = bytearray(whole)
        data[place] ^= 0x10
        log.write_bytes(data)
        copy.start()
        assert value(copy) == WRITES
        assert f"offset {at}" in copy.log()
        copy.stop()


def places(filled):
    """Offsets of sectors, from the first record's to the last one's."""
    _, found = filled
    end = found[-1][0] + found[-1][1]
    sectors = list(range(0, end, 512))
    return sectors[::max(1, len(sectors) // PLACES)]


@pytest.fixture(scope="module")
def killed(tmp_path_factory):
    """A log of 1,000 writes, each acknowledged before the next was asked for, of a server that was killed."""
    directory = tmp_path_factory.mktemp("killed")
    server = Server({}, data=directory)
    server.start()
    fill(server, 1000)
    server.kill()
    return directory, records(server.files / "log.1")


@pytest.mark.parametrize("sectors", [1, 2])
def test_what_was_synced_is_not_taken_for_torn(killed, tmp_path, sectors):
    """199 of 1,000 acknowledged writes were left, and not a word."""
    shutil.copytree(killed[0] / "data", tmp_path / "data")
    server = Server({}, data=tmp_path)
    log = server.files / "log.1"
    whole = log.read_bytes()
    for at in places(killed):
        data = bytearray(whole)
        for start in range(at, at + 512 * 64 * sectors, 512 * 64):
            data[start:start + 512] = bytes(len(data[start:start + 512]))
        log.write_bytes(data)
        if bytes(data) == whole:
            continue
        server.log_path.unlink(missing_ok=True)
        refuses(server, str(log), "offset ")
    log.write_bytes(whole)
    server.start()
    assert value(server) == 1000
    server.stop()


def test_a_newest_log_that_is_gone_does_not_start(killed, tmp_path):
    """1,000 of 1,000 acknowledged writes were lost, and not a word. Who means it deletes zabra.synced."""
    shutil.copytree(killed[0] / "data", tmp_path / "data")
    server = Server({}, data=tmp_path)
    (server.files / "log.1").unlink()
    refuses(server, "log.1", "this server had synced 0x", "delete zabra.synced")
    forget_synced(server)
    server.start()
    with Session(server.port) as session:
        assert session.call(GET, watched("/d"))[1] == -101
    server.stop()


def test_a_flipped_bit_in_the_middle_does_not_start(filled, copy):
    log = copy.files / "log.1"
    whole = log.read_bytes()
    at, length = filled[1][len(filled[1]) // 2]
    for place in range(at, at + length, 3):
        data = bytearray(whole)
        data[place] ^= 0x01
        log.write_bytes(data)
        refuses(copy, str(log), f"offset {at}", "damaged")


def test_a_missing_log_between_two_does_not_start(copy):
    copy.start()
    fill(copy, 5)
    copy.stop()
    copy.start()
    fill(copy, 5)
    copy.stop()
    logs = sorted(copy.files.glob("log.*"), key=lambda path: int(path.name[4:], 16))
    assert len(logs) == 3
    logs[1].unlink()
    refuses(copy, str(logs[2]), "what lies between is missing")


# The session's end was the last transaction of the filled directory.
NEXT = f"{WRITES + 4:x}"


def test_a_file_that_is_no_log_does_not_start(copy):
    (copy.files / f"log.{NEXT}").write_bytes(b"nonsense" * 100)
    refuses(copy, f"log.{NEXT}", "offset 0", "no log header")


def test_an_empty_log_made_for_a_later_transaction_does_not_start(copy):
    (copy.files / "log.ff").write_bytes(b"")
    refuses(copy, "log.ff", "it was made for transaction 0xff")


@pytest.mark.parametrize("content", [b"", b"ZKLG\0\0", b"ZKLG\0\0\0\2" + bytes(8), bytes(1000)])
def test_a_newest_log_without_a_record_is_set_aside(copy, content):
    empty = copy.files / f"log.{NEXT}"
    empty.write_bytes(content)
    copy.start()
    assert value(copy) == WRITES
    assert str(empty) in copy.log() and "offset 0" in copy.log()
    copy.stop()
    assert not empty.exists() or records(empty), "only a new log may have its name"
    assert (copy.files / f"torn.log.{NEXT}.0").read_bytes() == content


def newest_snapshot(server):
    return max(server.files.glob("snapshot.*"), key=lambda path: int(path.name[9:], 16))


@pytest.fixture
def snapshots(tmp_path):
    """A data directory with several snapshots."""
    server = Server({"preAllocSize": "64", "snapCount": "10"}, data=tmp_path)
    server.start()
    fill(server, 60)
    server.stop()
    assert len(list(server.files.glob("snapshot.*"))) >= 3
    yield server
    server.stop()


@pytest.mark.parametrize("damage", ["flip", "cut", "empty"])
def test_a_damaged_newest_snapshot_gives_way_to_the_one_before(snapshots, damage):
    newest = newest_snapshot(snapshots)
    whole = newest.read_bytes()
    for place in range(0, len(whole), 41):
        data = bytearray(whole)
        data[place] ^= 0x04
        newest.write_bytes({"flip": bytes(data), "cut": whole[:place], "empty": b""}[damage])
        snapshots.log_path.unlink(missing_ok=True)
        snapshots.start()
        assert value(snapshots) == 60
        assert str(newest) in snapshots.log() and "offset" in snapshots.log()
        snapshots.stop()
        # A start may write new snapshots and logs; the damaged one has to stay the newest for the next round.
        for path in snapshots.files.iterdir():
            name = re.fullmatch(r"(?:snapshot|log)\.([0-9a-f]+)", path.name)
            if name and int(name[1], 16) > int(newest.name[9:], 16) and path.name.startswith("snapshot"):
                path.unlink()
        if damage == "empty":
            break


def test_all_snapshots_damaged_and_the_log_not_whole_does_not_start(snapshots):
    for path in snapshots.files.glob("snapshot.*"):
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        path.write_bytes(data)
    (snapshots.files / "log.1").unlink()
    refuses(snapshots, "no snapshot is good", str(newest_snapshot(snapshots)))


@pytest.mark.parametrize("name", ["acceptedEpoch", "currentEpoch"])
@pytest.mark.parametrize("content", [b"", b"x", b"-1", b"99999999999", b"1\xff"])
def test_garbage_in_an_epoch_file_does_not_start(copy, name, content):
    """Where there is no copy of it."""
    (copy.files / name).write_bytes(content)
    refuses(copy, str(copy.files / name), "not an epoch")


def test_a_second_server_on_the_same_directory_is_refused(copy):
    copy.start()
    other = Server({**copy.settings}, data=copy.dir)
    other.log_path = copy.dir / "other.log"
    try:
        other.start(wait=False)
        assert other.process.wait(20) != 0
        assert "another server" in other.log() and str(copy.process.pid) in other.log()
        assert value(copy) == WRITES
    finally:
        other.stop()
        copy.stop()


def test_sigterm_ends_cleanly_and_loses_nothing(copy):
    copy.start()
    with Session(copy.port) as session:
        assert session.call(SET, set_data("/d", b"777"))[1] == 0
        copy.process.terminate()
        assert copy.process.wait(10) == 0
    assert copy.start() and value(copy) == 777
    copy.stop()


def rot(server):
    """Two logs, and a bit of the older one flips while the server serves. Returns that log."""
    fill(server, 5)
    server.stop()
    server.start()
    fill_more(server)
    log = server.files / "log.1"
    with log.open("r+b") as file:
        at = records(log)[1][0] + 20
        file.seek(at)
        byte = file.read(1)[0]
        file.seek(at)
        file.write(bytes([byte ^ 4]))
    return log


def fill_more(server):
    with Session(server.port) as session:
        for value in range(10, 20):
            assert session.call(SET, set_data("/d", str(value).encode()))[1] == 0
        session.call(CLOSE)


def test_a_scrub_heals_a_server_whose_old_log_rots(tmp_path):
    server = Server({"preAllocSize": "64", "scrub.intervalMs": "100"}, data=tmp_path)
    server.start()
    try:
        log = rot(server)
        before = set(server.files.glob("snapshot.*"))
        await_that(lambda: "scrub: " in server.log() and set(server.files.glob("snapshot.*")) - before,
                   "the scrub finds it, and a snapshot is written")
        assert server.log().count(f"{log} is damaged at offset") == 1
        server.stop()
        server.start()
        assert value(server) == 19
    finally:
        server.stop()


def test_without_a_scrub_the_next_start_finds_it(tmp_path):
    server = Server({"preAllocSize": "64", "scrub.intervalMs": "0"}, data=tmp_path)
    server.start()
    try:
        log = rot(server)
        server.stop()
        refuses(server, str(log), "good record")
    finally:
        server.stop()
