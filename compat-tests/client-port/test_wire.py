"""The client port byte by byte, and what it does with bytes that no client would send."""
import socket
import struct
import threading
import time

import pytest
from harness.server import IS_JAVA, Server
from harness.wire import (AUTH, CHECK, CHILDREN, CLOSE, CREATE, CREATE2, CREATE_SESSION, CREATE_TTL, DELETE,
                          DELETE_CONTAINER, EXISTS, GET, MULTI, PING, SET, SET_WATCHES, SYNC, WHO_AM_I, Closed, Raw,
                          Session, acl, buffer, create, set_data, ustring, watched)

zabra_only = pytest.mark.skipif(IS_JAVA, reason="Zabra is safer than Java here, on purpose")


@pytest.fixture
def session(server):
    with Session(server.port) as session:
        yield session


def test_connect_answers_as_java_does(server):
    with Session(server.port, timeout_ms=3000) as session:
        assert len(session.hello) == 37
        assert struct.unpack(">i", session.hello[:4]) == (0,)
        assert session.timeout_ms == 3000 and session.session >> 56 == 1 and len(session.passwd) == 16


@pytest.mark.parametrize("asked, granted", [(0, 1000), (-5, 1000), (6000, 6000), (100_000, 10_000)])
def test_timeouts_are_clamped(server, asked, granted):
    with Session(server.port, timeout_ms=asked) as session:
        assert session.timeout_ms == granted


def test_the_read_only_byte_is_echoed_only_when_it_was_sent(server):
    with Session(server.port, read_only=b"") as session:
        assert len(session.hello) == 36


def test_a_session_moves_with_its_password(server):
    first = Session(server.port)
    with Session(server.port, session=first.session, passwd=first.passwd) as second:
        assert (second.session, second.passwd) == (first.session, first.passwd)
        assert first.is_closed()
        assert second.call(EXISTS, watched("/"))[1] == 0


def test_a_wrong_password_is_refused(server):
    owner = Session(server.port)
    with Session(server.port, session=owner.session, passwd=b"x" * 16) as thief:
        assert thief.hello == bytes(16) + struct.pack(">i", 16) + bytes(16) + b"\0"
        assert thief.is_closed()
    if not IS_JAVA:
        # Java cuts the owner's connection before it looks at the password.
        assert owner.call(EXISTS, watched("/"))[1] == 0


def test_a_client_from_the_future_is_turned_away(server):
    with pytest.raises(Closed):
        Session(server.port, last_zxid=1 << 60)


def test_golden_replies(session):
    zxid, err, body = session.call(CREATE, create("/golden", b"hi"))
    assert (err, body) == (0, ustring("/golden"))
    _, err, body = session.call(GET, watched("/golden"))
    assert err == 0 and body[:6] == buffer(b"hi") and len(body) == 6 + 68
    czxid, mzxid, ctime, mtime, version, cversion, aversion, owner, length, children, pzxid = struct.unpack(
        ">qqqqiiiqiiq", body[6:])
    assert (czxid, mzxid, pzxid, ctime) == (zxid, zxid, zxid, mtime)
    assert (version, cversion, aversion, owner, length, children) == (0, 0, 0, 0, 2, 0)
    assert session.call(PING, xid=-2)[1:] == (0, b"")
    assert session.call(SYNC, ustring("/any path"))[1:] == (0, ustring("/any path"))


def test_cversion_counts_creates_and_deletes(session):
    session.call(CREATE, create("/cv"))
    for name in "abc":
        session.call(CREATE, create(f"/cv/{name}"))
    session.call(DELETE, ustring("/cv/a") + struct.pack(">i", -1))
    stat = session.call(EXISTS, watched("/cv"))[2]
    assert struct.unpack(">i", stat[36:40]) == (4,)
    assert session.call(CREATE, create("/cv/s-", flags=2))[2] == ustring("/cv/s-0000000003")


@pytest.mark.parametrize("path, flags, acls, code", [
    ("", 0, None, -8), ("a", 0, None, -8), ("/x\0y", 0, None, -8), ("/", 0, None, -110), ("/m/x", 0, [], -114),
    ("/m/x", 0, None, -101), ("/nope/..", 0, None, -101), ("/..", 0, None, -8), ("//", 0, None, -8),
    ("/f", 7, None, -8), ("/f", 5, None, -8), ("/f", 0, [(31, "world", "me")], -114), ("/f", 0, [(31, "auth", "")], -114),
    ("/f", 0, [(31, "digest", "x")], -114), ("/f", 0, [(31, "ip", "1.2.3.4/33")], -114), ("/\x7f", 0, None, -8),
    (b"/\xff\xfe", 0, None, -8), ("/zookeeper", 0, None, -110),
])
def test_create_refuses_in_javas_order(session, path, flags, acls, code):
    assert session.call(CREATE, create(path, flags=flags, acls=acls))[1] == code


def test_errors_have_a_header_alone(session):
    assert session.call(GET, watched("/missing"))[1:] == (-101, b"")
    assert session.call(SET, set_data("/missing", b""))[1:] == (-101, b"")
    assert session.call(DELETE, ustring("/zookeeper") + struct.pack(">i", -1))[1:] == (-8, b"")
    assert session.call(SET, set_data("/zookeeper/config", b""))[1:] == (-102, b"")


def test_null_and_empty_data_stay_apart(session):
    session.call(CREATE, create("/null", None))
    assert session.call(GET, watched("/null"))[2][:4] == struct.pack(">i", -1)
    session.call(SET, set_data("/null", b""))
    assert session.call(GET, watched("/null"))[2][:4] == struct.pack(">i", 0)


def test_events_come_before_the_reply_that_caused_them(session):
    session.call(CREATE, create("/ev"))
    session.call(GET, watched("/ev", True))
    session.call(CHILDREN, watched("/ev", True))
    xid = session.push(SET, set_data("/ev", b"1"))
    first, second = session.reply(), session.reply()
    assert first[0] == -1 and first[3] == struct.pack(">ii", 3, 3) + ustring("/ev")
    assert second[0] == xid and first[1] == second[1]
    session.push(DELETE, ustring("/ev") + struct.pack(">i", -1))
    told = session.reply()
    assert told[0] == -1 and told[3] == struct.pack(">ii", 2, 3) + ustring("/ev"), "one event for both watches"
    assert session.reply()[0] == session.xid


def test_set_watches_tells_what_was_missed(server, session):
    zxid = session.call(CREATE, create("/sw"))[0]
    with Session(server.port) as late:
        lists = [["/gone"], ["/sw"], []]
        body = struct.pack(">q", zxid - 1)
        for paths in lists:
            body += struct.pack(">i", len(paths)) + b"".join(ustring(path) for path in paths)
        late.push(SET_WATCHES, body, xid=-8)
        events = [late.reply(), late.reply()]
        assert [(event[0], event[1], event[3][:4]) for event in events] == [
            (-1, -1, struct.pack(">i", 2)), (-1, -1, struct.pack(">i", 1))]
        assert late.reply()[0] == -8


def test_a_failed_multi_says_so_inside(session):
    part = lambda op, body: struct.pack(">iBi", op, 0, -1) + body  # noqa: E731
    end = struct.pack(">iBi", -1, 1, -1)
    body = part(CREATE, create("/mu")) + part(CHECK, ustring("/mu") + struct.pack(">i", 5))
    body += part(DELETE, ustring("/mu") + struct.pack(">i", -1)) + end
    _, err, answer = session.call(MULTI, body)
    error = lambda code: struct.pack(">iBii", -1, 0, code, code)  # noqa: E731
    assert (err, answer) == (0, error(0) + error(-103) + error(-2) + end)
    assert session.call(MULTI, end)[1:] == (0, end), "an empty one is fine"
    assert session.call(MULTI, part(7, b"") + end)[1] == -5


def test_pipelined_requests_are_answered_in_order_and_see_their_own_writes(session):
    session.call(CREATE, create("/pipe", b"0"))
    frames, expected = b"", []
    for step in range(1, 33):
        for op, body in ((SET, set_data("/pipe", str(step).encode())), (GET, watched("/pipe"))):
            session.xid += 1
            frames += struct.pack(">iii", len(body) + 8, session.xid, op) + body
            expected.append((session.xid, op, step))
    session.send(frames)
    last = 0
    for xid, op, step in expected:
        got, zxid, err, body = session.reply()
        assert (got, err) == (xid, 0) and zxid >= last
        last = zxid
        if op == GET:
            value = str(step).encode()
            assert body[:4 + len(value)] == buffer(value)


def test_requests_behind_the_connect_frame_are_answered_behind_it(server):
    with Raw(server.port) as raw:
        hello = struct.pack(">iqiq", 0, 0, 5000, 0) + buffer(bytes(16)) + b"\0"
        ping = struct.pack(">ii", -2, PING)
        raw.send(struct.pack(">i", len(hello)) + hello + struct.pack(">i", len(ping)) + ping)
        assert len(raw.frame()) == 37
        assert raw.frame()[:4] == struct.pack(">i", -2)


def test_unknown_operations_end_the_connection(server):
    for op in (CHECK, 0, 10, 99, 12345):
        with Session(server.port) as session:
            assert session.call(op, ustring("/") + bytes(8))[:2] == (-1, -6), op
            assert session.is_closed()


@zabra_only
@pytest.mark.parametrize("op", [DELETE_CONTAINER, CREATE_SESSION])
def test_the_servers_own_operations_are_refused(server, session, op):
    session.call(CREATE, create("/victim"))
    with Session(server.port) as attacker:
        assert attacker.call(op, ustring("/victim"))[1] == -6
    assert session.call(EXISTS, watched("/victim"))[1] == 0


@zabra_only
def test_the_poison_create_is_refused(session):
    body = ustring("/poison") + buffer(b"") + acl([(31, "world", "anyone")]) + struct.pack(">iq", 0, -1)
    assert session.call(CREATE_TTL, body)[1] == -8


def test_wrong_auth_ends_the_connection(server):
    with Session(server.port) as session:
        assert session.call(AUTH, struct.pack(">i", 0) + ustring("nonsense") + buffer(b""), xid=-4)[1] == -115
        assert session.is_closed()


def test_sasl_is_off(session):
    assert session.call(102, buffer(b""))[:3] == (0, 0, buffer(None))


@pytest.mark.parametrize("body", [b"", b"\0\0", buffer(None)], ids=["empty", "cut", "null"])
def test_a_sasl_packet_without_a_token_ends_the_connection(server, body):
    with Session(server.port) as session, pytest.raises(Closed):
        session.call(102, body)


def test_enforced_authentication():
    with Server({"enforce.auth.enabled": "true", "enforce.auth.schemes": "digest"}) as server:
        with Session(server.port) as session:
            assert session.call(EXISTS, watched("/"))[1] == -124
            assert session.is_closed()
        with Session(server.port) as session:
            assert session.call(AUTH, struct.pack(">i", 0) + ustring("digest") + buffer(b"u:p"), xid=-4)[1] == 0
            assert session.call(EXISTS, watched("/"))[1] == 0


def test_quota_text_of_any_kind_is_survived(session):
    """Java's server stops at such a text; see ARCHITECTURE.md."""
    if IS_JAVA:
        pytest.skip("a Java server stops here")
    for path, data in (("/poison", b""), ("/zookeeper/quota/poison", b""),
                       ("/zookeeper/quota/poison/zookeeper_limits", b"count=9223372036854775807,bytes=x"),
                       ("/zookeeper/quota/poison/zookeeper_stats", b"")):
        assert session.call(CREATE, create(path, data))[1] == 0
    stats = "/zookeeper/quota/poison/zookeeper_stats"
    assert session.call(SET, set_data(stats, b"count=9223372036854775807,bytes=9223372036854775807"))[1] == 0
    assert session.call(CREATE, create("/poison/x", b"data"))[1] == 0
    assert session.call(SET, set_data(stats, b"\xff=,;=="))[1] == 0
    assert session.call(CREATE, create("/poison/y", b"data"))[1] == 0


@zabra_only
def test_a_flood_of_large_writes_is_bounded(server):
    healthy = Session(server.port)
    healthy.call(CREATE, create("/flood", b""))
    before = server.resident_kb()
    with Session(server.port, timeout=30) as flood:
        sender = threading.Thread(target=lambda: [flood.push(SET, set_data("/flood", b"x" * 500_000)) for _ in range(200)])
        sender.start()
        assert healthy.call(EXISTS, watched("/"))[1] == 0
        for _ in range(200):
            assert flood.reply()[2] == 0
        sender.join()
        assert server.resident_kb() - before < 256 << 10


def test_who_am_i(session):
    session.call(AUTH, struct.pack(">i", 0) + ustring("digest") + buffer(b"u:p"), xid=-4)
    body = session.call(WHO_AM_I)[2]
    assert ustring("ip") + ustring("127.0.0.1") in body and ustring("digest") + ustring("u") in body


def test_close_is_answered_then_closed(server):
    with Session(server.port) as session:
        assert session.call(CLOSE)[1:] == (0, b"")
        assert session.is_closed()


def test_malformed_bodies_are_answered_and_the_session_lives(session):
    for op in (CREATE, CREATE2, DELETE, SET, GET, EXISTS, CHILDREN, MULTI):
        assert session.call(op, b"\0\0")[1] == -5, op
    huge = ustring("/x") + buffer(b"") + struct.pack(">i", 0x7fffffff)
    assert session.call(CREATE, huge)[1] == -5
    assert session.call(CREATE, ustring("/x") + struct.pack(">i", 0x7ffffff0))[1] == -5
    assert session.call(SET_WATCHES, struct.pack(">qi", 0, 0x7fffffff))[1] == -5
    assert session.call(EXISTS, watched("/"))[1] == 0


HOSTILE = {
    "a negative length": struct.pack(">i", -7),
    "a giant length": struct.pack(">i", 0x7fffffff) + b"x" * 100,
    "one byte more than jute.maxbuffer": struct.pack(">i", 1_048_576),
    "an empty connect": struct.pack(">i", 0),
    "a cut connect": struct.pack(">i", 10) + bytes(10),
    "a connect with a giant password": struct.pack(">iiqiqi", 32, 0, 0, 1000, 0, 0x7ffffff0) + bytes(4),
    "text": b"GET / HTTP/1.1\r\n\r\n",
}


def test_hostile_connections_leave_a_healthy_client_alone(server):
    healthy = Session(server.port)
    before = server.resident_kb()
    slow = [Raw(server.port) for _ in range(50)]
    for raw in slow:
        raw.send(b"ru")
    for what, data in HOSTILE.items():
        for _ in range(20):
            with Raw(server.port) as raw:
                raw.send(data)
                assert raw.is_closed(), what
        assert healthy.call(EXISTS, watched("/"))[1] == 0, what
    with Session(server.port) as session:
        session.send_frame(b"\0\0")
        assert session.is_closed(), "a frame without a header"
    for raw in slow:
        raw.close()
    assert healthy.call(EXISTS, watched("/"))[1] == 0
    assert server.resident_kb() - before < 64 << 10


def test_a_client_that_never_reads_is_bounded(server):
    healthy = Session(server.port)
    healthy.call(CREATE, create("/big", b"x" * 500_000))
    before = server.resident_kb()
    with Session(server.port, timeout=2) as lazy:
        try:
            for _ in range(2000):
                lazy.push(GET, watched("/big"))
        except (TimeoutError, OSError):
            pass
        assert healthy.call(EXISTS, watched("/"))[1] == 0
        assert server.resident_kb() - before < 128 << 10


def test_four_letter_words(server, session):
    assert server.word("ruok") == "imok"
    assert server.word("isro") == "rw"
    srvr = server.word("srvr")
    for line in ("Zookeeper version: 3.9.5", "Latency min/avg/max: ", "Received: ", "Mode: standalone", "Zxid: 0x"):
        assert line in srvr
    assert f"sid=0x{session.session:x}" in server.word("cons")
    assert "clientPort=" in server.word("conf")
    assert "java.version=" in server.word("envi")
    mntr = dict(line.split("\t") for line in server.word("mntr").splitlines())
    assert mntr["zk_server_state"] == "standalone" and int(mntr["zk_znode_count"]) >= 5
    assert "zk_avg_fsynctime" in mntr and "zk_packets_received" in mntr
    assert "datadir_size: " in server.word("dirs")
    assert "Sessions with Ephemerals" in server.word("dump")
    assert "connections watching" in server.word("wchs")


def test_only_listed_words_are_answered():
    with Server({"4lw.commands.whitelist": "ruok"}) as server:
        assert server.word("ruok") == "imok"
        assert server.word("mntr") == "mntr is not executed because it is not in the whitelist.\n"


def test_a_word_with_a_mask_is_refused_without_it():
    with Server({"4lw.commands.whitelist": "ruok"}) as server:
        assert server.word("stmk") == "stmk is not executed because it is not in the whitelist.\n"
    with Server({"4lw.commands.whitelist": "stmk, gtmk"}) as server, socket.create_connection(("127.0.0.1", server.port)) as asking:
        asking.settimeout(10)
        asking.sendall(b"stmk" + struct.pack(">q", 7))
        assert asking.recv(100) == b"7"
        assert server.word("gtmk") == "7"


def test_a_client_that_means_another_ensemble_is_cut_off():
    def means(session, name):
        return session.call(AUTH, struct.pack(">i", 0) + ustring("ensemble") + buffer(name), xid=-4)[1]

    provider = {"authProvider.1": "org.apache.zookeeper.server.auth.EnsembleAuthenticationProvider"}
    with Server({**provider, "ensembleAuthName": "foo, bar"}) as server:
        with Session(server.port) as session:
            assert means(session, b"bar") == 0 and means(session, b"") == 0
            with pytest.raises(Closed):
                means(session, b"baz")
        counts = dict(line.split("\t") for line in server.word("mntr").splitlines())
        assert [counts[f"zk_ensemble_auth_{outcome}"] for outcome in ("success", "skip", "fail")] == ["1", "1", "1"]


def test_connections_of_one_address_are_limited():
    with Server({"maxClientCnxns": "3"}) as server:
        held = [Session(server.port) for _ in range(3)]
        with pytest.raises((Closed, ConnectionError)):
            Session(server.port)
        held.pop().close()
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            try:
                Session(server.port).close()
                break
            except (Closed, ConnectionError):
                continue
        else:
            pytest.fail("a freed place was not given away")


def test_ipv6(server):
    try:
        session = Session(server.port, host="::1")
    except OSError as error:
        if not socket.has_ipv6:
            pytest.skip(f"this machine has no IPv6: {error}")
        raise
    with session:
        assert session.call(EXISTS, watched("/"))[1] == 0


def test_sessions_expire_and_take_their_ephemerals(server, session):
    with Session(server.port, timeout_ms=1000) as mortal:
        mortal.call(CREATE, create("/mortal", flags=1))
        session.call(EXISTS, watched("/mortal", True))
        # It stays connected and says nothing: the server ends the session, and then the connection.
        assert mortal.is_closed()
    session.socket.settimeout(10)
    assert session.reply()[3] == struct.pack(">ii", 2, 3) + ustring("/mortal")


def test_a_session_that_is_taken_up_with_a_shorter_timeout_lives_by_it(server, session):
    with Session(server.port, timeout_ms=10_000) as first:
        first.call(CREATE, create("/shorter", flags=1))
        with Session(server.port, timeout_ms=1000, session=first.session, passwd=first.passwd) as again:
            assert (first.timeout_ms, again.timeout_ms, again.session) == (10_000, 1000, first.session)
            session.call(EXISTS, watched("/shorter", True))
            session.socket.settimeout(4)
            assert session.reply()[3] == struct.pack(">ii", 2, 3) + ustring("/shorter")


def test_containers_and_ttl_nodes_go_by_themselves(server, session):
    session.call(19, create("/box", flags=4))
    session.call(CREATE, create("/box/thing"))
    session.call(DELETE, ustring("/box/thing") + struct.pack(">i", -1))
    body = ustring("/ttl") + buffer(b"") + acl([(31, "world", "anyone")]) + struct.pack(">iq", 5, 300)
    assert session.call(CREATE_TTL, body)[1] == 0
    for path in ("/box", "/ttl"):
        deadline = time.monotonic() + 20
        while session.call(EXISTS, watched(path))[1] == 0:
            assert time.monotonic() < deadline, f"{path} is still there"
            session.call(PING, xid=-2)


def test_many_sessions_see_events_before_data(server):
    """A reader that sees a new value has been told of the change before."""
    writer = Session(server.port)
    writer.call(CREATE, create("/order", b"0"))
    failures = []

    def read():
        with Session(server.port) as reader:
            known = int(reader_value(reader, True))
            for _ in range(300):
                reader.push(GET, watched("/order"))
                told = False
                while True:
                    xid, _, _, body = reader.reply()
                    if xid == -1:
                        told = True
                        continue
                    value = int(body[4:4 + struct.unpack(">i", body[:4])[0]])
                    break
                if value != known:
                    if not told:
                        failures.append((known, value))
                        return
                    known = int(reader_value(reader, True))

    def reader_value(reader, watch):
        body = reader.call(GET, watched("/order", watch))[2]
        return body[4:4 + struct.unpack(">i", body[:4])[0]]

    readers = [threading.Thread(target=read) for _ in range(6)]
    for thread in readers:
        thread.start()
    value = 0
    while any(thread.is_alive() for thread in readers):
        value += 1
        writer.call(SET, set_data("/order", str(value).encode()))
    assert failures == []
