"""What the data directory takes on the disk: finished logs give back what was allocated ahead, and a start that finds many
of them writes a snapshot, so that autopurge has something to keep."""
import subprocess

import pytest
from harness.server import IS_JAVA, Server
from harness.wire import CREATE, GET, SET, Fields, Session, create, set_data, watched

STARTS = 100
# Java takes less than 1 MB for 25: it pads without blocks.
MOST = 4 << 20
NODE = "/d"


def write(server, value):
    with Session(server.port) as session:
        if session.call(SET, set_data(NODE, str(value).encode()))[1] != 0:
            assert session.call(CREATE, create(NODE, str(value).encode()))[1] == 0


def value(server):
    with Session(server.port) as session:
        _, error, body = session.call(GET, watched(NODE))
    assert error == 0
    return int(Fields(body).buffer())


def disk_use(server):
    """Bytes that the files take, and how many there are."""
    files = list(server.files.iterdir())
    return sum(path.stat().st_blocks * 512 for path in files), len(files)


def end(server, at):
    """Every other time the way of a machine that stands still, and not the last one: what a killed process had allocated is cut by the
    next start."""
    server.stop() if at % 2 else server.kill()


def starts(server, count=STARTS):
    """Starts it again and again with a write each time. A start must not have lost what was acknowledged before."""
    for at in range(count):
        server.start()
        if at:
            assert value(server) == at - 1
        write(server, at)
        end(server, at)


def test_restarts_take_little_of_the_disk(tmp_path):
    server = Server({"autopurge.purgeInterval": "1", "autopurge.snapRetainCount": "3"}, data=tmp_path)
    try:
        starts(server)
        took, count = disk_use(server)
        print(f"{STARTS} starts with a write each: {took} bytes in {count} files")
        assert took < MOST and count < 40
        # The log that is written on is allocated ahead, and it alone.
        server.start()
        write(server, STARTS)
        took, _ = disk_use(server)
        assert took < MOST + (64 << 20)
    finally:
        server.stop()


def test_rolled_logs_take_little_of_the_disk(tmp_path):
    server = Server({"snapCount": "100"}, data=tmp_path)
    server.start()
    try:
        write(server, 0)
        rolls = 0
        with Session(server.port) as session:
            while rolls < 12:
                for number in range(50):
                    assert session.call(SET, set_data(NODE, str(number).encode()))[1] == 0
                rolls = len(list(server.files.glob("log.*"))) - 1
    finally:
        server.stop()
    took, _ = disk_use(server)
    print(f"{rolls} rolls: {took} bytes")
    assert took < MOST


@pytest.mark.skipif(IS_JAVA, reason="it starts both servers itself")
@pytest.mark.parametrize("way", [Server.stop, Server.kill], ids=["stop", "kill"])
def test_java_reads_what_was_cut(tmp_path, way):
    settings = {"snapCount": "100", "snapshot.trust.empty": "false"}
    for _ in range(3):
        server = Server(settings, data=tmp_path)
        server.start()
        for number in range(120):
            write(server, number)
        way(server)
    java = Server(settings, data=tmp_path, java=True)
    java.start()
    try:
        assert value(java) == 119
        write(java, 120)
    finally:
        way(java)
    with Server(settings, data=tmp_path) as server:
        assert value(server) == 120


@pytest.fixture
def small_disk(tmp_path):
    mount = tmp_path / "mount"
    mount.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=300m", "tmpfs", str(mount)], capture_output=True, text=True)
    if done.returncode != 0:
        pytest.skip(f"no small disk can be mounted here: {done.stderr}")
    yield mount
    subprocess.run(["umount", str(mount)], check=True)


def test_a_small_disk_does_not_fill_with_restarts(small_disk):
    server = Server({"autopurge.purgeInterval": "1", "autopurge.snapRetainCount": "3"}, data=small_disk)
    try:
        starts(server, 20)
    finally:
        server.stop()


def padded(path):
    """As it was while a server of an older version wrote on it: all its blocks are allocated, and stay."""
    subprocess.run(["fallocate", "--length", str((64 << 20) + 16), str(path)], check=True)


@pytest.mark.skipif(IS_JAVA, reason="it is about this server's files")
def test_a_start_cuts_the_logs_that_it_finds_allocated(tmp_path):
    server = Server({"snapCount": "100"}, data=tmp_path)
    server.start()
    for number in range(250):
        write(server, number)
    server.stop()
    for log in server.files.glob("log.*"):
        padded(log)
    assert disk_use(server)[0] > 2 * (64 << 20)
    server.start()
    try:
        assert value(server) == 249
        # It was read, so it has written: the end of the reader's session.
        took, _ = disk_use(server)
        assert took < MOST + (64 << 20)
    finally:
        server.stop()
    assert disk_use(server)[0] < MOST
