"""Files go both ways: this server starts on a Java server's directory, and Java on this one's."""
import shutil
import struct

import pytest
from harness.server import IS_JAVA, Server
from harness.wire import CREATE, CREATE2, CREATE_TTL, Session, acl, buffer, create, ustring
from kazoo.client import KazooClient
from kazoo.security import make_digest_acl

pytestmark = pytest.mark.skipif(IS_JAVA, reason="it starts both servers itself")
SETTINGS = {"extendedTypesEnabled": "true", "snapCount": "50", "preAllocSize": "64"}


def fill(server):
    client = KazooClient(server.hosts, timeout=20)
    client.start(timeout=20)
    for number in range(120):
        client.create(f"/n{number:03}", b"x" * number)
    for number in range(0, 120, 3):
        client.set(f"/n{number:03}", b"changed")
        client.create(f"/n{number:03}/child-", b"c", sequence=True)
    for number in range(0, 120, 10):
        client.delete(f"/n{number:03}", recursive=True)
    client.create("/private", b"p", acl=[make_digest_acl("u", "p", all=True)])
    client.create("/ümlaut", b"\x00\xff")
    tx = client.transaction()
    tx.create("/multi", b"1")
    tx.set_data("/multi", b"2")
    assert len(tx.commit()) == 2
    bad = client.transaction()
    bad.create("/never")
    bad.check("/multi", 99)
    bad.commit()
    with Session(server.port) as raw:
        raw.call(19, create("/container", b"", flags=4))
        ttl = ustring("/ttl") + buffer(None) + acl([(31, "world", "anyone")]) + struct.pack(">iq", 5, 1_000_000)
        assert raw.call(CREATE_TTL, ttl)[1] == 0
        assert raw.call(CREATE, create("/null", None))[1] == 0
    return client


def tree(server):
    """Every path with its data, stat and ACL."""
    client = KazooClient(server.hosts, auth_data=[("digest", "super:test")])
    client.start(timeout=20)
    found, pending = {}, ["/"]
    while pending:
        path = pending.pop()
        data, stat = client.get(path)
        found[path] = (data, stat, client.get_acls(path)[0])
        pending += [path.rstrip("/") + "/" + name for name in client.get_children(path)]
    client.stop()
    client.close()
    return found


SUPER = {"DigestAuthenticationProvider.superDigest": "super:D/InIHSb7yEEbrWz8b9l71RjZJU="}


@pytest.mark.parametrize("first_java", [True, False], ids=["java-to-zabra", "zabra-to-java"])
@pytest.mark.parametrize("end", ["stop", "kill"])
def test_the_other_server_shows_the_same_tree(tmp_path, first_java, end):
    first = Server({**SETTINGS, **SUPER}, data=tmp_path, java=first_java)
    first.start()
    client = fill(first)
    session = client.client_id
    client.create("/ephemeral", b"e", ephemeral=True)
    before = tree(first)
    first.kill() if end == "kill" else first.stop()
    second = Server({**SETTINGS, **SUPER}, data=tmp_path, java=not first_java)
    second.start()
    try:
        after = tree(second)
        assert set(after) == set(before)
        for path, expected in before.items():
            assert after[path] == expected, path
        assert after["/ephemeral"][1].ephemeralOwner == session[0]
        # The session can be taken up there, with the password that the first server gave.
        with Session(second.port, session=session[0], passwd=session[1], timeout_ms=10_000) as taken:
            assert taken.session == session[0]
            assert taken.call(CREATE2, create("/after", b""))[1] == 0
    finally:
        second.stop()
        client.stop()
        client.close()
    # And back again, over the files that both have written.
    third = Server({**SETTINGS, **SUPER}, data=tmp_path, java=first_java)
    third.start()
    try:
        assert "/after" in tree(third)
    finally:
        third.stop()
        shutil.rmtree(third.dir / "data", ignore_errors=True)


def number(path):
    """The zxid in a file's name."""
    return int(path.name.split(".")[1], 16)


@pytest.mark.parametrize("first_java", [True, False], ids=["java-to-zabra", "zabra-to-java"])
@pytest.mark.parametrize("packing", ["gz", "snappy"])
def test_compressed_snapshots_are_read_by_the_other_server(tmp_path, first_java, packing):
    first = Server({**SETTINGS, **SUPER, "snapshot.compression.method": packing}, data=tmp_path, java=first_java)
    with first:
        client = fill(first)
        client.stop()
        client.close()
        before = tree(first)
    newest = max(first.files.glob(f"snapshot.*.{packing}"), key=number)
    assert number(newest) > 100
    # The other one has nothing else to begin with.
    for snapshot in first.files.glob("snapshot.*"):
        if snapshot != newest:
            snapshot.unlink()
    logs = sorted(first.files.glob("log.*"), key=number)
    needed = max(number(log) for log in logs if number(log) <= number(newest) + 1)
    for log in logs:
        if number(log) < needed:
            log.unlink()
    with Server({**SETTINGS, **SUPER}, data=tmp_path, java=not first_java) as second:
        assert tree(second) == before
