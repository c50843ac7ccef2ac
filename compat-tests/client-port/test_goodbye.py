"""What a client says before it goes is done, in order, whatever holds it back. SERVER=java runs the same against Java's server.

GOODBYES=… is how often each way to go is tried.
"""
import os
import socket
import ssl
import struct
import subprocess
import time

import pytest
from harness.goodbye import (EPHEMERAL, TlsByHand, arrive, connect_request, last_words, leave, not_so, request, reset, standing_still)
from harness.server import HERE, Server, free_port
from harness.wire import CLOSE, CREATE, GET, SET, Raw, Session, create, set_data, watched
from test_tls import VERSIONS, Authority

GOODBYES = int(os.environ.get("GOODBYES", "10"))
HALF_CLOSED = int(os.environ.get("HALF_CLOSED", "200"))
WAYS = ["create get close", "create ping close", "create get create", "create ping create", "sync get close", "get close",
        "create get create close", "create get create get create close"]


def connections(server):
    return int(next(line.split()[1] for line in server.word("mntr").splitlines() if line.startswith("zk_num_alive_connections")))


@pytest.mark.parametrize("how", ["close", "reset", "half"])
@pytest.mark.parametrize("words", WAYS)
def test_last_words_are_done(server, words, how):
    expected, kept = [], []
    go = {"close": Session.close, "reset": reset, "half": lambda session: kept.append(session.socket.shutdown(socket.SHUT_WR) or session)}[how]
    for at in range(GOODBYES):
        if how == "reset":
            session = arrive(server.port, f"/{words.replace(' ', '-')}-{how}-{at}")
            said, then = last_words(words.split(), f"/{words.replace(' ', '-')}-{how}-{at}")
            # All is there before the reset, which takes back what is still under way.
            with standing_still(server.process):
                session.send(said)
                reset(session)
            expected += then
        else:
            expected += leave(server.port, words.split(), f"/{words.replace(' ', '-')}-{how}-{at}", go)
    assert not_so(server.port, expected) == []
    for session in kept:
        assert session.ends()


@pytest.mark.parametrize("size", [65_535, 65_536, 65_537, 131_072, 262_144, 300_000])
def test_words_that_fill_a_buffer_exactly_are_done(server, size):
    expected = []
    for at in range(GOODBYES):
        path = f"/size-{size}-{at}"
        session = arrive(server.port, path)
        close = request(3, CLOSE)
        rest = size - len(close) - len(request(2, SET, set_data("/", b"")))
        with standing_still(server.process):
            session.send(request(2, SET, set_data("/", bytes(rest))) + close)
            session.close()
        expected.append((path, False))
    assert not_so(server.port, expected) == []


def test_half_closed_connections_are_noticed_at_once(server):
    before = connections(server)
    sessions = [Session(server.port) for _ in range(HALF_CLOSED)]
    started = time.monotonic()
    for at, session in enumerate(sessions):
        session.send(request(1, CREATE, create(f"/half-{at}")))
        session.socket.shutdown(socket.SHUT_WR)
    still_open = 0
    for session in sessions:
        session.socket.settimeout(max(0.01, started + 1.5 - time.monotonic()))
        still_open += not session.ends()
        session.close()
    assert still_open == 0
    assert not_so(server.port, [(f"/half-{at}", True) for at in range(HALF_CLOSED)]) == []
    assert connections(server) <= before


def test_a_word_is_answered_to_who_has_said_that_it_ends(server):
    for _ in range(GOODBYES):
        with Raw(server.port) as raw:
            raw.send(b"ruok")
            raw.socket.shutdown(socket.SHUT_WR)
            assert raw.receive(4) == b"imok"
            assert raw.is_closed()


def test_all_of_a_session_in_one_write(server):
    for at in range(GOODBYES):
        path = f"/whole-{at}"
        with Raw(server.port) as raw:
            raw.send(connect_request() + request(1, CREATE, create(path, flags=EPHEMERAL)) + last_words(["create", "get", "create", "close"], path)[0])
    expected = [entry for at in range(GOODBYES) for entry in last_words(["create", "get", "create", "close"], f"/whole-{at}")[1]]
    assert not_so(server.port, expected) == []


@pytest.mark.parametrize("count", [5000, 10_000, 20_000])
def test_more_writes_than_may_be_in_flight_are_done(server, count):
    expected, kept = [], []
    for at in range(3):
        path = f"/many-{count}-{at}"
        session = arrive(server.port, path)
        session.send(b"".join(request(xid, SET, set_data("/", b"")) for xid in range(2, count)) + request(count, GET, watched("/"))
                     + request(count + 1, CREATE, create(f"{path}-last")) + request(count + 2, CLOSE))
        # Closed with answers unread, it would take back what the server has no room for yet.
        session.socket.shutdown(socket.SHUT_WR)
        kept.append(session)
        expected += [(path, False), (f"{path}-last", True)]
    assert not_so(server.port, expected, 10) == []
    for session in kept:
        assert session.ends()


@pytest.mark.parametrize("how", ["close", "half"])
def test_words_behind_answers_that_nobody_takes_are_done(server, how):
    with Session(server.port) as session:
        session.call(CREATE, create("/large", bytes(500_000)))
    expected, kept = [], []
    for at in range(3):
        path = f"/unread-{how}-{at}"
        session = arrive(server.port, path)
        session.send(b"".join(request(xid, GET, watched("/large")) for xid in range(2, 62)))
        # The first answers fill what there is for them.
        session.receive(4)
        session.send(request(62, CREATE, create(f"{path}-last")) + request(63, GET, watched("/large")) + request(64, CLOSE))
        if how == "close":
            session.close()
        else:
            session.socket.shutdown(socket.SHUT_WR)
            kept.append(session)
        expected += [(path, False), (f"{path}-last", True)]
    assert not_so(server.port, expected) == []
    for session in kept:
        session.close()


def test_words_to_a_crowded_server_are_done():
    with Server({"globalOutstandingLimit": "1"}) as server:
        sessions = [arrive(server.port, f"/crowd-{at}") for at in range(50)]
        expected = []
        with standing_still(server.process):
            for at, session in enumerate(sessions):
                words, then = last_words(["create", "get", "create", "get"] * 10 + ["close"], f"/crowd-{at}")
                session.send(words)
                session.close()
                expected += then
        assert not_so(server.port, expected, 5) == []


@pytest.mark.parametrize("rest", [b"\xff" * 8, struct.pack(">i", 1 << 30), struct.pack(">i", 2) + b"ab"], ids=["negative", "too long", "no header"])
def test_words_before_nonsense_are_done(server, rest):
    expected = []
    for at in range(GOODBYES):
        path = f"/nonsense-{len(rest)}-{rest[0]}-{at}"
        session = arrive(server.port, path)
        words, then = last_words(["create", "get", "create"], path)
        session.send(words + rest)
        expected += then
        assert session.ends()
        session.close()
    assert not_so(server.port, expected) == []


def test_the_official_c_client_that_does_not_wait_for_its_close(server, tmp_path):
    """As that client was before ZOOKEEPER-1105, and still is in bindings of that age."""
    binary = tmp_path / "hasty"
    subprocess.run(["gcc", "-Wall", "-Wextra", "-DTHREADED", "-o", binary, HERE / "client-port/hasty.c", "-lzookeeper_mt", "-lpthread", "-ldl"],
                   check=True, capture_output=True, timeout=60)
    expected = []
    for at in range(max(GOODBYES, 15)):
        done = subprocess.run([binary, server.hosts, f"/c-{at}"], capture_output=True, text=True, timeout=30)
        assert done.returncode == 0, done.stdout + done.stderr
        expected += [(f"/c-{at}-mine", False), (f"/c-{at}-first", True), (f"/c-{at}-second", True)]
    assert not_so(server.port, expected) == []


@pytest.fixture(scope="module")
def secure(tmp_path_factory):
    authority = Authority(tmp_path_factory.mktemp("certificates"))
    authority.stores()
    port = free_port()
    with Server({"secureClientPort": str(port), **authority.settings(), "ssl.enabledProtocols": "TLSv1.3,TLSv1.2"}) as server:
        server.wait_until_it_listens(port)
        server.secure_port, server.authority = port, authority
        yield server


@pytest.mark.parametrize("version", VERSIONS, ids=["TLS1.2", "TLS1.3"])
@pytest.mark.parametrize("end", ["open", "FIN", "noise"])
@pytest.mark.parametrize("words", ["close", *WAYS])
def test_last_words_and_close_notify_in_one_write(secure, words, end, version):
    expected, kept = [], []
    for at in range(GOODBYES):
        path = f"/tls-{words.replace(' ', '-')}-{end}-{version}-{at}"
        link = TlsByHand(secure.secure_port, secure.authority.client("client", version))
        link.call(connect_request())
        link.call(request(1, CREATE, create(path, flags=EPHEMERAL)))
        said, then = last_words(words.split(), path)
        link.say_last(said, b"not a record" if end == "noise" else b"")
        expected += then
        if end == "FIN":
            link.close()
        else:
            kept.append(link)
    assert not_so(secure.port, expected) == []
    for link in kept:
        link.close()


@pytest.mark.parametrize("version", VERSIONS, ids=["TLS1.2", "TLS1.3"])
def test_words_before_a_broken_record_are_done(secure, version):
    expected = []
    for at in range(GOODBYES):
        path = f"/broken-{version}-{at}"
        link = TlsByHand(secure.secure_port, secure.authority.client("client", version))
        link.call(connect_request())
        link.call(request(1, CREATE, create(path, flags=EPHEMERAL)))
        link.tls.write(request(2, CLOSE))
        link.flush(b"\x17\x03\x03\x00\x20" + bytes(32))
        expected.append((path, False))
        link.close()
    assert not_so(secure.port, expected) == []


@pytest.mark.parametrize("version", VERSIONS, ids=["TLS1.2", "TLS1.3"])
def test_a_word_and_close_notify_in_one_write_is_answered(secure, version):
    for _ in range(GOODBYES):
        link = TlsByHand(secure.secure_port, secure.authority.client("client", version))
        link.say_last(b"ruok")
        data = b""
        while True:
            chunk = link.socket.recv(65536)
            if not chunk:
                break
            link.incoming.write(chunk)
        try:
            data = link.tls.read(4)
        except (ssl.SSLZeroReturnError, ssl.SSLWantReadError):
            pass
        link.close()
        assert data == b"imok"
