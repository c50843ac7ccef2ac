"""What the word `cons` tells of a connection, and whom maxClientCnxns counts. SERVER=java asks a Java server the same."""
import contextlib

import pytest
from harness.ports import on_both_ports
from harness.wire import CREATE, GET, PING, Closed, create, watched


@pytest.fixture(scope="module")
def server():
    with on_both_ports() as running:
        yield running


@pytest.fixture(params=["plain", "tls"])
def port(server, request):
    return server.ports[request.param]


def ask(port, word):
    """Asked on the port itself: a Java server tells of that one's connections alone."""
    with port.raw() as raw:
        raw.send(word.encode())
        text = b""
        with contextlib.suppress(Closed):
            while True:
                text += raw.receive(1)
    return text.decode()


def told(port, session):
    """The fields of the session's line."""
    (line,) = [line for line in ask(port, "cons").splitlines() if f"sid=0x{session.session:x}," in line]
    return dict(field.split("=") for field in line.split("(")[1].rstrip(")").split(","))


def test_a_ping_leaves_the_last_xid_as_it_was(port):
    with port.session() as session:
        assert (told(port, session)["lop"], told(port, session)["lcxid"]) == ("SESS", "0x0")
        for _ in range(7):
            session.call(GET, watched("/"))
        assert (told(port, session)["lop"], told(port, session)["lcxid"]) == ("GETD", "0x7")
        session.call(PING, xid=-2)
        assert (told(port, session)["lop"], told(port, session)["lcxid"]) == ("PING", "0x7")


def test_the_time_of_the_last_answer_and_latencies_are_told_until_they_are_reset(port):
    with port.session() as session:
        # Much at once, so that some of it has to wait.
        count = 30
        for at in range(count):
            session.push(CREATE, create(f"/cons-{session.session:x}-", bytes(500_000), flags=2))
        assert [session.reply()[2] for _ in range(count)] == [0] * count
        fields = told(port, session)
        low, average, high, last = (int(fields[name]) for name in ("minlat", "avglat", "maxlat", "llat"))
        assert high > 0 and low <= average <= high and low <= last <= high, fields
        assert int(fields["lresp"]) > 0 and int(fields["sent"]) > count, fields

        assert ask(port, "crst") == "Connection stats reset.\n"
        fields = told(port, session)
        empty = {"recved": "0", "sent": "0", "lop": "NA", "lresp": "0", "llat": "0", "minlat": "0", "avglat": "0", "maxlat": "0"}
        assert {name: fields[name] for name in empty} == empty
        assert "lcxid" not in fields
        session.call(PING, xid=-2)
        assert "lcxid" not in told(port, session), "a ping has no xid"


def test_each_port_counts_its_connections_for_itself():
    with on_both_ports({"maxClientCnxns": "2"}) as server:
        sessions = []
        for port in server.ports.values():
            held = []
            with pytest.raises((Closed, OSError)):
                while len(held) < 3:
                    held.append(port.session())
            assert len(held) == 2, port.number
            sessions += held
        for session in sessions:
            assert session.call(GET, watched("/"))[1] == 0
            session.close()
