"""More of the client port byte by byte: what the password is made of, slow and random senders, the largest frame."""
import os
import random
import struct

import pytest
from harness.wire import (CREATE, CREATE2, DELETE, DELETE_CONTAINER, EXISTS, GET, SET, CREATE_SESSION, CREATE_TTL, Closed, Raw, Session,
                          buffer, create, set_data, ustring, watched)

SEED = int(os.environ.get("SEED", "1"))


def password_of(session):
    """Java's java.util.Random, seeded with the session's id."""
    state = ((session ^ 0xB3415C00) ^ 0x5DEECE66D) & ((1 << 48) - 1)
    password = b""
    for _ in range(4):
        state = (state * 0x5DEECE66D + 0xB) & ((1 << 48) - 1)
        password += struct.pack("<I", state >> 16)
    return password


def test_the_password_follows_from_the_id(server):
    assert password_of(0x01000010ae3a0000).hex() == "94fba91e91476cd7928a1361c2740bd4"
    with Session(server.port) as session:
        assert session.passwd == password_of(session.session)


def test_a_sender_of_single_bytes_is_served(server):
    with Session(server.port) as session:
        body = struct.pack(">ii", 7, EXISTS) + watched("/")
        for byte in struct.pack(">i", len(body)) + body:
            session.send(bytes([byte]))
        assert session.reply()[::2] == (7, 0)


def test_a_null_in_an_auth_packet_is_refused_or_ends_the_connection(server):
    null = struct.pack(">i", -1)
    with Session(server.port) as session:
        assert session.call(100, struct.pack(">i", 0) + null + buffer(b"x"), xid=-4)[1] == -115, "no scheme"
        assert session.is_closed()
    with Session(server.port) as session:
        session.push(102, null)
        assert session.is_closed(), "no SASL token"


@pytest.mark.parametrize("xid", [0, -5, 2**31 - 1, -2**31])
def test_any_xid_is_echoed(server, xid):
    with Session(server.port) as session:
        assert session.call(EXISTS, watched("/") + b"trailing bytes", xid=xid)[1] == 0


def test_the_largest_frame_is_served_and_one_byte_more_is_not(server):
    with Session(server.port) as session:
        session.call(CREATE, create("/largest"))
        room = 1_048_575 - 8 - len(set_data("/largest", b""))
        assert session.call(SET, set_data("/largest", b"x" * room))[1] == 0
        with pytest.raises((Closed, OSError)):
            session.call(SET, set_data("/largest", b"x" * (room + 1)))
    with Session(server.port) as session:
        assert session.call(SET, set_data("/largest", b"small"))[1] == 0


def test_every_request_cut_at_every_byte_leaves_the_session_alive(server):
    requests = {CREATE: create("/cut/x", b"data"), CREATE2: create("/cut/x", b"data"), DELETE: ustring("/cut") + bytes(4),
                GET: watched("/"), EXISTS: watched("/"), SET: set_data("/cut", b"data"), 6: ustring("/"),
                7: ustring("/cut") + struct.pack(">i", 1) + struct.pack(">i", 31) + ustring("world") + ustring("anyone") + bytes(4),
                12: watched("/"), 18: ustring("/") + bytes(4), 101: bytes(8) + struct.pack(">iii", 0, 0, 0), 104: ustring("/"),
                106: ustring("/") + bytes(4)}
    with Session(server.port) as session:
        for op, body in requests.items():
            for cut in range(len(body)):
                assert session.call(op, body[:cut])[1] == -5, (op, cut)
        assert session.call(EXISTS, watched("/"))[1] == 0


def test_random_frames_leave_a_healthy_client_alone(server):
    dice = random.Random(SEED)
    # What kills a Java server for good, or lets anyone delete, is tested by itself.
    unsafe = (DELETE_CONTAINER, CREATE_SESSION, CREATE_TTL)
    with Session(server.port) as healthy:
        before = server.resident_kb()
        for _ in range(300):
            with Session(server.port) as wild:
                try:
                    for _ in range(dice.randrange(1, 20)):
                        op = dice.choice([dice.randrange(-15, 110), dice.choice([1, 2, 5, 7, 14, 22, 101, 105])])
                        if op not in unsafe:
                            wild.push(op, dice.randbytes(dice.choice([0, 3, 12, 40, 300])), xid=dice.choice([1, -4, -8, 0]))
                    if dice.random() < 0.3:
                        wild.send(dice.randbytes(50))
                except OSError:
                    pass
            if dice.random() < 0.2:
                with Raw(server.port) as raw:
                    raw.send(struct.pack(">i", dice.choice([44, 45, 60])) + dice.randbytes(dice.choice([10, 60])))
            assert healthy.call(EXISTS, watched("/"))[1] == 0
        healthy.call(CREATE, create("/after-all"))
        assert healthy.call(GET, watched("/after-all"))[2].startswith(buffer(b""))
        assert server.resident_kb() - before < 64 << 10
