"""One server of three has a damaged disk: it heals by itself, while others write, and what was acknowledged stays.

PLACES is how many places of a log are damaged, one after the other; BULK_MB how much a server that heals has to take."""
import os
import shutil
import struct
import subprocess
import time
import zlib

import pytest
from clients import CLOSE, CREATE, connect, create, ok, read_tree
from harness.server import BINARY
from logs import log_files
from members import Ensemble
from rounds import laid_out, wait_for_equal_trees

PLACES = int(os.environ.get("PLACES", "6"))
BULK_MB = int(os.environ.get("BULK_MB", "20"))
WRITES = 1000
SETTINGS = {"tickTime": "500", "snapCount": "100000"}


def newest(member, kind):
    return max(member.files.glob(f"{kind}.*"), key=lambda path: int(path.name.split(".")[1], 16))


def in_the_middle(path, change):
    data = bytearray(path.read_bytes())
    used = len(data.rstrip(b"\0"))
    change(data, used // 2 // 512 * 512)
    path.write_bytes(data)


def zero(data, at):
    data[at:at + 512] = bytes(512)


def flip(data, at):
    data[at + 30] ^= 8


def without_logs_and_damaged(member):
    """The one snapshot that is left can't be read, and nothing comes before it."""
    snapshot = newest(member, "snapshot")
    for path in member.files.glob("snapshot.*"):
        if path != snapshot:
            path.unlink()
    log_files(member.files)[0].unlink()
    snapshot.write_bytes(snapshot.read_bytes()[:-9])


def middle_log(member):
    logs = log_files(member.files)
    assert len(logs) > 2, logs
    for path in member.files.glob("snapshot.*"):
        if int(path.name.split(".")[1], 16):
            path.unlink()
    logs[1].unlink()


def another_tree(member):
    """Its one file is a snapshot: the checksums are right, and its tree is not the one that it states."""
    restored = member.dir / "restored"
    subprocess.run([BINARY, "restore", member.data, "--into", restored], check=True, capture_output=True)
    for path in [*member.files.glob("log.*"), *member.files.glob("snapshot.*")]:
        path.unlink()
    snapshot, = restored.rglob("snapshot.*")
    data = bytearray(snapshot.read_bytes())
    data[data.index(b"x" * 100)] = ord("y")
    # After the body, after the digest, and after the last zxid.
    for before_end in (67, 34, 13):
        at = len(data) - before_end
        data[at:at + 8] = struct.pack(">q", zlib.adler32(data[:at]))
    (member.files / snapshot.name).write_bytes(data)


def without_epochs(member):
    """As a server that ran Java until now, which has no copies."""
    for copy in member.files.glob("zabra.*Epoch"):
        copy.unlink()
    for name in ["acceptedEpoch", "currentEpoch"]:
        (member.files / name).write_bytes(bytes(8))


DAMAGES = {
    "a sector of zeros": lambda member: in_the_middle(log_files(member.files)[-1], zero),
    "a flipped bit": lambda member: in_the_middle(log_files(member.files)[-1], flip),
    "the newest log is missing": lambda member: log_files(member.files)[-1].unlink(),
    "a log in the middle is missing": middle_log,
    "the newest log is no log": lambda member: log_files(member.files)[-1].write_bytes(b"nonsense" * 100),
    "an empty snapshot, newer than its log": lambda member: (member.files / "snapshot.500000000").write_bytes(b""),
    "the only snapshot is damaged": without_logs_and_damaged,
    "a snapshot with another tree": another_tree,
    "acceptedEpoch is empty": lambda member: (member.files / "acceptedEpoch").write_bytes(b""),
    "both epochs are zeros, and have no copies": without_epochs,
    "currentEpoch is rubbish": lambda member: (member.files / "currentEpoch").write_bytes(b"\xff\0rubbish"),
}


def fill(member, prefix, count):
    """Each is acknowledged before the next is asked for."""
    with connect(member) as session:
        for number in range(count):
            ok(session, CREATE, create(f"/{prefix}-{number}", b"x" * 100))
        session.call(CLOSE)


@pytest.fixture(scope="module")
def three(tmp_path_factory):
    """Three data directories: each server was killed after 1,000 writes, and has two finished logs and one that is not."""
    directory = tmp_path_factory.mktemp("three")
    with Ensemble("zzz", SETTINGS) as ensemble:
        for part in range(3):
            fill(ensemble[2], f"part{part}", WRITES // 2 if part == 2 else WRITES // 4)
            if part < 2:
                for member in ensemble:
                    member.stop()
                for member in ensemble:
                    member.start()
                ensemble.wait_until_all_serve()
        last = ensemble.leader().srvr()[1]
        ensemble.wait("all have it", lambda: all((member.srvr() or (0, 0))[1] == last for member in ensemble))
        for member in ensemble:
            member.kill()
        for member in ensemble:
            shutil.copytree(member.files, directory / str(member.sid))
    return directory


def give(ensemble, three):
    for member in ensemble:
        shutil.copytree(three / str(member.sid), member.files)


def znodes(member):
    return sum(path.startswith("/part") for path in read_tree(member))


@pytest.mark.parametrize("what", DAMAGES)
def test_a_damaged_server_heals_by_itself(three, what):
    """Its process ended, and a person had to come."""
    with laid_out("zzz", SETTINGS) as ensemble:
        give(ensemble, three)
        victim = ensemble[1]
        DAMAGES[what](victim)
        for member in ensemble:
            if member is not victim:
                member.start()
        ensemble.wait_until_all_serve()
        fill(ensemble[2], "later", 10)
        begun = time.monotonic()
        victim.start()
        ensemble.wait_until_serves(victim, 30)
        fill(victim, "healed", 10)
        took = time.monotonic() - begun
        words = ["the ensemble's leader", "restored from its copy", "promised the others is unknown"]
        told = [line for line in victim.log().splitlines() if "WARN" in line and any(said in line for said in words)]
        assert len(told) == 1, ensemble.state()
        wait_for_equal_trees(ensemble)
        assert [znodes(member) for member in ensemble] == [WRITES] * 3
        print(f"\n{what}: serves and writes after {took:.1f} s, {victim.ways()}: {told[0][:220]}")


def test_a_sector_of_zeros_loses_nothing_where_one_is_down(three):
    """735 acknowledged writes were gone from all: the server that had everything was cut."""
    lost = 0
    whole = log_files(three / "1")[-1].read_bytes()
    sectors = range(0, len(whole.rstrip(b"\0")), 512)
    places = sectors[::max(1, len(sectors) // PLACES)][:PLACES]
    for at in places:
        with laid_out("zzz", SETTINGS) as ensemble:
            give(ensemble, three)
            data = bytearray(whole)
            zero(data, at)
            log_files(ensemble[1].files)[-1].write_bytes(data)
            # The third has missed everything of this log.
            log_files(ensemble[3].files)[-1].unlink()
            (ensemble[3].files / "zabra.synced").unlink()
            ensemble[1].start()
            ensemble[3].start()
            # Neither has what was acknowledged: they must not begin without the second.
            ensemble.wait("both look for a leader", lambda: all("looking for a leader" in ensemble[sid].log() for sid in (1, 3)))
            ensemble[2].start()
            ensemble.wait_until_all_serve()
            wait_for_equal_trees(ensemble)
            lost += sum(WRITES - znodes(member) for member in ensemble)
            assert lost == 0, f"sector at {at}: {[znodes(member) for member in ensemble]}\n{ensemble.state()}"
    print(f"\n{len(places)} places, {lost} acknowledged writes lost")


def test_a_server_with_much_to_take_heals_soon(tmp_path):
    with Ensemble("zzz", {**SETTINGS, "initLimit": "60"}) as ensemble:
        with connect(ensemble[2], timeout=60) as session:
            for number in range(BULK_MB * 2):
                session.push(CREATE, create(f"/bulk-{number}", b"x" * 500_000))
                if number >= 16:
                    assert session.reply()[2] == 0
            for _ in range(min(16, BULK_MB * 2)):
                assert session.reply()[2] == 0
        victim = next(member for member in ensemble if member.mode() == "follower")
        victim.kill()
        in_the_middle(log_files(victim.files)[-1], flip)
        with connect(next(member for member in ensemble if member.is_running())) as session:
            begun = time.monotonic()
            victim.start()
            writes = 0
            while not victim.mode():
                ok(session, CREATE, create(f"/meanwhile-{writes}"))
                writes += 1
                assert time.monotonic() - begun < 60, ensemble.state()
            took = time.monotonic() - begun
        print(f"\n{BULK_MB} MB: healed after {took:.1f} s, {writes} writes meanwhile, {victim.ways()}")
        wait_for_equal_trees(ensemble, 60)
