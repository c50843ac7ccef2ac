"""Each refusal is said in the log, with its reason and the numbers that an operator needs. What a Java server says is not compared,
that it refuses the same clients is: SERVER=java."""
import socket
import ssl
import struct
import time

import pytest
from harness.ports import on_both_ports
from harness.server import IS_JAVA, Server
from harness.wire import AUTH, GET, Raw, Session, buffer, ustring, watched

JUTE_MAXBUFFER = 1_048_575


@pytest.fixture(scope="module")
def server():
    with on_both_ports() as running:
        yield running


@pytest.fixture(params=["plain", "tls"])
def port(server, request):
    return server.ports[request.param]


def address(raw):
    host, port = raw.socket.getsockname()[:2]
    return f"{host}:{port}"


def lines(server, *words):
    """The lines that have all these words. The log is written behind the refusal: it is waited for."""
    deadline = time.monotonic() + 5
    while True:
        found = [line for line in server.log().splitlines() if all(word in line for word in words)]
        if found or time.monotonic() > deadline:
            return found
        time.sleep(0.01)


def is_said(server, *words):
    if not IS_JAVA:
        found = lines(server, *words)
        assert len(found) == 1, f"{words}: {found or server.log()}"
        assert "WARN" in found[0] or "INFO" in found[0]


@pytest.mark.parametrize("length", [JUTE_MAXBUFFER + 1, 0x7fffffff, -1, -0x80000000])
def test_a_frame_of_a_wrong_length(server, port, length):
    with port.session() as session:
        session.send(struct.pack(">i", length))
        assert session.is_closed()
        is_said(server, address(session), f"0x{session.session:x}", f"a frame of {length} bytes", f"0 to {JUTE_MAXBUFFER}")


def test_http_on_a_port_of_zookeeper(server):
    with server.ports["plain"].raw() as raw:
        raw.send(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert raw.is_closed()
        is_said(server, address(raw), "speaks HTTP")


def test_tls_on_the_plain_port(server):
    context = ssl.create_default_context()
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as plain:
        mine = f"127.0.0.1:{plain.getsockname()[1]}"
        with pytest.raises((ssl.SSLError, OSError)):
            context.wrap_socket(plain, server_hostname="localhost")
    is_said(server, mine, "speaks TLS")


def test_a_session_that_has_expired(server, port):
    with port.session(timeout_ms=1000) as session:
        assert session.is_closed(), "nothing was heard of it"
    is_said(server, address(session) if session.socket.fileno() >= 0 else "", f"session 0x{session.session:x}: the session has expired", "1000 ms")
    is_said(server, "sessions expired", f"0x{session.session:x}")
    with port.session(session=session.session, passwd=session.passwd) as again:
        assert again.session == 0 and again.timeout_ms == 0
        is_said(server, address(again), f"there is no session 0x{session.session:x} any more")


def test_a_wrong_password(server, port):
    with port.session() as session, port.session(session=session.session, passwd=bytes(16)) as thief:
        assert thief.session == 0
        is_said(server, address(thief), f"the password is not that of session 0x{session.session:x}")
        # A Java server cuts off the owner first.
        assert IS_JAVA or session.call(GET, watched("/"))[1] == 0


def test_a_client_ahead_of_the_server(server, port):
    with port.raw() as raw:
        raw.send_frame(struct.pack(">iqiq", 0, 0x7000_0000_0000, 10_000, 0) + buffer(bytes(16)) + b"\0")
        assert raw.is_closed()
        is_said(server, address(raw), "0x700000000000", "this server is at 0x")


def test_an_unknown_scheme(server, port):
    with port.session() as session:
        assert session.call(AUTH, struct.pack(">i", 0) + ustring("made-up") + buffer(b"x"), xid=-4)[1] == -115
        assert session.is_closed()
        is_said(server, address(session), f"0x{session.session:x}", 'auth scheme "made-up" is unknown')


def test_an_unknown_operation(server, port):
    with port.session() as session:
        session.push(4711)
        assert session.is_closed()
        is_said(server, address(session), f"0x{session.session:x}", "operation 4711 is unknown")


@pytest.mark.parametrize("setting, limit", [("maxClientCnxns", 3), ("maxCnxns", 4)])
def test_a_connection_too_many(setting, limit):
    with Server({setting: str(limit)}) as server:
        held = [Session(server.port) for _ in range(limit)]
        with Raw(server.port) as one_more:
            assert one_more.is_closed()
            is_said(server, address(one_more), f"{limit} ", f"{setting} allows {limit}")
        for session in held:
            assert session.call(GET, watched("/"))[1] == 0
            session.close()


def test_many_refusals_are_counted():
    if IS_JAVA:
        pytest.skip("each has its line there")
    with Server() as server:
        count = 300
        for _ in range(count):
            with socket.create_connection(("127.0.0.1", server.port), timeout=10) as raw:
                raw.sendall(b"GET / HTTP/1.1\r\n\r\n")
                assert raw.recv(1) == b""

        def accounted():
            single, left_out = 0, 0
            for line in server.log().splitlines():
                if "lines like this one were left out" in line:
                    left_out += int(line.split(" more lines")[0].split()[-1])
                elif "speaks HTTP" in line:
                    single += 1
            return single, left_out
        deadline = time.monotonic() + 5
        while sum(accounted()) < count and time.monotonic() < deadline:
            time.sleep(0.05)
        single, left_out = accounted()
        assert single + left_out == count and single <= count / 4, (single, left_out)
