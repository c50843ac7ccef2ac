"""Prints what the commands for files reach: a log of 1 GB, 10^6 znodes, each beside Java's tool, and a backup under load.

run --nightly calls it. A figure that misses its goal ends it with 1. SCALE=0.1 makes everything smaller.
"""
import os
import pathlib
import statistics
import struct
import subprocess
import sys
import tempfile
import threading
import time
import zlib

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
from harness.server import BINARY, JAVA_CLASSPATH, Server
from harness.wire import OPEN, SET, Session, acl, buffer, set_data, ustring

SCALE = float(os.environ.get("SCALE", "1"))
LOG_BYTES = int(SCALE * 10**9)
ZNODES = int(SCALE * 10**6)
HEADER = struct.Struct(">qiqqi")
FRAME = struct.Struct(">Qi")
# As long as the longest of one time is luck, it takes many.
WINDOWS = 15
CREATE_SESSION, CREATE_TXN, SET_TXN = -10, 1, 5
missed = []


def write_log(path, txns):
    """`txns` are types and bodies; zxids count from 1. Returns how many they were."""
    zxid, parts, size = 0, [b"ZKLG\0\0\0\2\0\0\0\0\0\0\0\0"], 0
    with open(path, "wb") as log:
        for kind, body in txns:
            zxid += 1
            body = HEADER.pack(7, zxid & 0x7fffffff, zxid, 1_800_000_000_000 + zxid, kind) + body
            parts.append(FRAME.pack(zlib.adler32(body), len(body)) + body + b"B")
            if not zxid % 10_000:
                size += log.write(b"".join(parts))
                parts.clear()
                if size > LOG_BYTES:
                    break
        log.write(b"".join(parts) + bytes(4096))
    return zxid


def sets():
    """Endless: what many clients change, 170 bytes each."""
    bodies = [ustring(f"/app/group{number:04}/x") + buffer(b"x" * 100) + struct.pack(">i", 1) for number in range(10_000)]
    while True:
        yield from ((SET_TXN, body) for body in bodies)


def creates(count):
    def body(path):
        return CREATE_TXN, ustring(path) + buffer(b"x" * 100) + acl(OPEN) + b"\0" + struct.pack(">i", -1)

    yield CREATE_SESSION, struct.pack(">i", 30_000)
    for group in range(100):
        yield body(f"/group{group:02}")
    for number in range(count):
        yield body(f"/group{number % 100:02}/znode{number:08}")


def timed(words, **options):
    began = time.monotonic()
    subprocess.run([str(word) for word in words], check=True, timeout=1200, **options)
    return time.monotonic() - began


def best_of(tries, words):
    return min(timed(words, stdout=subprocess.DEVNULL) for _ in range(tries))


def java(name, *words):
    return ["java", "-Xmx4g", "-cp", JAVA_CLASSPATH, f"org.apache.zookeeper.server.{name}", *words]


def figure(what, value, unit, goal=None, is_good=True):
    said = f" (goal: {goal})" if goal else ""
    print(f"{what:<60} {value:>10.2f} {unit}{said}{'' if is_good else '  MISSED'}", flush=True)
    if not is_good:
        missed.append(what)


def measure_log(directory):
    log = directory / "log.1"
    count = write_log(log, sets())
    megabytes = log.stat().st_size / 1e6
    print(f"\na log of {megabytes:.0f} MB, {count} transactions, in the page cache")
    timed(["cat", log], stdout=subprocess.DEVNULL)
    for what, words in {
        "filter by prefix": ["--prefix", "/app/group0042"],
        "filter by session": ["--session", "0x8"],
        "filter by type": ["--type", "delete"],
    }.items():
        speed = megabytes / best_of(3, [BINARY, "log", log, *words])
        figure(f"zabra log, {what}", speed, "MB/s", "500", speed > 500 or SCALE < 1)
    figure("zabra log verify", megabytes / best_of(1, [BINARY, "log", "verify", log]), "MB/s")
    figure("zabra log, all of it", megabytes / best_of(1, [BINARY, "log", log]), "MB/s")
    figure("Java's TxnLogToolkit, all of it (it has no filter)", megabytes / best_of(1, java("persistence.TxnLogToolkit", log)), "MB/s")
    log.unlink()


def measure_snapshot(directory):
    """Returns the directory of a server with that snapshot."""
    data = directory / "data" / "version-2"
    data.mkdir(parents=True)
    write_log(data / "log.1", creates(ZNODES))
    snapshot = directory / "snapshot"
    said = timed([BINARY, "backup", directory / "data", "--to", snapshot])
    print(f"\na snapshot of {ZNODES} znodes, {snapshot.stat().st_size / 1e6:.0f} MB, in the page cache")
    figure("zabra backup of the log that made it", said, "s")
    took = best_of(3, [BINARY, "snapshot", "summary", snapshot])
    figure("zabra snapshot summary", took, "s", "1", took < 1)
    figure("zabra snapshot verify", best_of(1, [BINARY, "snapshot", "verify", snapshot]), "s")
    figure("zabra snapshot, all of it", best_of(1, [BINARY, "snapshot", snapshot]), "s")
    named = snapshot.with_name(f"snapshot.{ZNODES + 101:x}")
    snapshot.rename(named)
    figure("Java's SnapshotFormatter, all of it (its summary is a part of it)", best_of(1, java("SnapshotFormatter", named)), "s")
    figure("Java's SnapshotRecursiveSummary", best_of(1, java("SnapshotRecursiveSummary", named, "/", 1)), "s")
    (data / "log.1").unlink()
    named.rename(data / named.name)
    return directory


class Writer(threading.Thread):
    """One session that sets one znode, again and again, and remembers how long each answer took."""

    def __init__(self, port):
        super().__init__()
        self.port, self.times, self.ended = port, [], threading.Event()

    def run(self):
        with Session(self.port) as session:
            while not self.ended.is_set():
                began = time.monotonic()
                session.call(SET, set_data("/group00", b"x" * 100))
                self.times.append(time.monotonic() - began)

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        self.ended.set()
        self.join()

    def longest(self):
        """In milliseconds, since the last call."""
        times, self.times = self.times, []
        return max(times, default=0) * 1000


def measure_backup(directory):
    """The disk is a memory, where the machine has one: what is measured is what the backup takes from the server."""
    print(f"\na server with {ZNODES} znodes, and one session that sets 100 bytes: {WINDOWS} times with a backup, and as long without")
    took, idle, busy = [], [], []
    with Server({"snapCount": "1000000000"}, data=directory) as server, Writer(server.port) as writer:
        for number in range(WINDOWS):
            to = directory / f"backup{number}"
            writer.longest()
            took.append(timed([BINARY, "backup", directory / "data", "--to", to], stderr=subprocess.DEVNULL))
            busy.append(writer.longest())
            time.sleep(took[-1])
            idle.append(writer.longest())
            to.unlink()
    figure("one backup", statistics.median(took), "s")
    figure("longest write without a backup, median", statistics.median(idle), "ms")
    figure("longest write with a backup, median", statistics.median(busy), "ms")
    longer = statistics.median(busy) - statistics.median(idle)
    figure("longer by", longer, "ms", "5", longer < 5)


def main():
    memory = pathlib.Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as directory:
        directory = pathlib.Path(directory)
        measure_log(directory)
        measure_backup(measure_snapshot(directory))
    if missed:
        sys.exit(f"missed: {', '.join(missed)}")


main()
