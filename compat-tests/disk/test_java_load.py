"""A Java server killed under load, with snapshots that show no single moment: this server and Java restore the same tree."""
import random
import shutil
import struct
import threading

import pytest
from harness.server import IS_JAVA, Server
from harness.wire import CREATE, Session, create, ustring, watched
from test_crash import SEED, WRITERS, Reader, Writer

pytestmark = pytest.mark.skipif(IS_JAVA, reason="it starts both servers itself")
SETTINGS = {"extendedTypesEnabled": "true", "snapCount": "100", "preAllocSize": "64", "maxSessionTimeout": "120000"}
GET, GET_ACL = 4, 6


def tree(port):
    """Every path with its data, its stat and its ACL, as the bytes that the server sent."""
    found, pending = {}, ["/"]
    with Reader(port) as reader:
        while pending:
            path = pending.pop()
            data, acl = reader.call(GET, watched(path)), reader.call(GET_ACL, ustring(path))
            assert (data[1], acl[1]) == (0, 0), path
            found[path] = (data[2], acl[2])
            pending += [path.rstrip("/") + "/" + name for name in reader.children(path)]
    return found


def described(body):
    (length,) = struct.unpack(">i", body[:4])
    length = max(length, 0)
    return body[4:4 + length], struct.unpack(">qqqqiiiqiiq", body[4 + length:4 + length + 68])


def load(server, seconds):
    """Writers as in the crash test, until the server is killed."""
    failures = []
    writers = [Writer(index, failures, timeout_ms=100_000) for index in range(WRITERS)]
    with Session(server.port) as session:
        paths = ["/ephemerals", "/seq"] + [f"/w{n}{rest}" for n in range(WRITERS) for rest in ("", "/register", "/a", "/b", "/nodes")]
        for path in paths:
            assert session.call(CREATE, create(path, b"0"))[1] == 0
    for writer in writers:
        writer.block = "/seq"
    threads = [threading.Thread(target=writer.run, args=(server.port,)) for writer in writers]
    for thread in threads:
        thread.start()
    threading.Event().wait(seconds)
    server.kill()
    for thread in threads:
        thread.join(30)
    assert not failures, failures
    return sum(writer.acks for writer in writers)


@pytest.mark.parametrize("first_java", [True, False], ids=["written-by-java", "written-by-zabra"])
def test_both_restore_the_same_tree_after_a_crash(tmp_path, first_java):
    first = Server(SETTINGS, data=tmp_path / "first", java=first_java)
    first.dir.mkdir()
    first.start()
    try:
        acks = load(first, 2 + random.Random(SEED).random())
    finally:
        first.stop()
    assert acks > 500
    trees = {}
    for java in (True, False):
        directory = tmp_path / ("java" if java else "zabra")
        shutil.copytree(first.dir / "data", directory / "data")
        with Server(SETTINGS, data=directory, java=java) as server:
            trees[java] = tree(server.port)
    snapshots = len(list(first.files.glob("snapshot.*")))
    print(f"SEED={SEED}: {acks} writes, {snapshots} snapshots, {len(trees[True])} nodes")
    assert set(trees[True]) == set(trees[False])
    for path, (data, acl) in trees[True].items():
        other_data, other_acl = trees[False][path]
        assert described(data) == described(other_data), path
        # An ACL reply ends with the stat too.
        assert acl == other_acl, path
