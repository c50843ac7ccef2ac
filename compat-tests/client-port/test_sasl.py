"""Logging in by SASL, token by token. SERVER=java runs the same against Java's server."""
import contextlib
import hashlib
import re
import struct

import pytest
from harness.server import IS_JAVA, Server
from harness.wire import AUTH, CREATE, EXISTS, GET, OPEN, SET, WHO_AM_I, Fields, Session, buffer, create, set_data, ustring, watched

SASL = 102
AUTH_FAILED, NO_AUTH, INVALID_ACL, MUST_LOG_IN = -115, -102, -114, -124
PROVIDER = {"authProvider.1": "org.apache.zookeeper.server.auth.SASLAuthenticationProvider"}
ACCOUNTS = {"bob": "a secret", "joe": "joe's", "super": "in the file", "eve@REALM": "eve's"}
CREATOR = [(31, "auth", "")]
REALM = "zk-sasl-md5"


@contextlib.contextmanager
def server(directory, settings=None, accounts=ACCOUNTS, **flags):
    """A server with the accounts; `flags` are ZooKeeper's."""
    users = "\n".join(f'    "user_{name}"="{password}"' for name, password in accounts.items())
    logins = directory / "jaas.conf"
    logins.write_text(f"Server {{\n  org.apache.zookeeper.server.auth.DigestLoginModule required\n{users};\n}};\n")
    named = {f"zookeeper.{name}": value for name, value in flags.items()}
    with Server({**PROVIDER, **(settings or {})}, {"java.security.auth.login.config": str(logins), **named}) as running:
        yield running


def md5(*parts):
    return hashlib.md5(b":".join(parts)).digest()


def response(challenge, user, password, acts_as=None, **other):
    """The second token of a login and what the server has to answer (RFC 2831); `other` directives take the place of its own."""
    nonce, cnonce, uri = re.search(rb'nonce="([^"]+)"', challenge)[1], b"our own", f"zookeeper/{REALM}".encode()
    acting = [acts_as.encode()] if acts_as else []
    key = md5(md5(user.encode(), REALM.encode(), password.encode()), nonce, cnonce, *acting).hex().encode()

    def proof(method):
        return md5(key, nonce, b"00000001", cnonce, b"auth", md5(method, uri).hex().encode()).hex()

    directives = {"username": f'"{user}"', "realm": f'"{REALM}"', "nonce": f'"{nonce.decode()}"', "nc": "00000001",
                  "cnonce": f'"{cnonce.decode()}"', "digest-uri": f'"{uri.decode()}"', "maxbuf": "65536",
                  "response": proof(b"AUTHENTICATE"), "qop": "auth"}
    if acts_as:
        directives["authzid"] = f'"{acts_as}"'
    directives |= {name.replace("_", "-"): value for name, value in other.items()}
    token = ",".join(f"{name}={value}" for name, value in directives.items() if value is not None)
    return token.encode(), f"rspauth={proof(b'')}".encode()


def send(session, token):
    """zxid, error and token of the answer."""
    zxid, err, body = session.call(SASL, buffer(token))
    return zxid, err, Fields(body).buffer()


def log_in(session, user, password, **other):
    """The error and the token that end it, and the one that is right."""
    zxid, err, challenge = send(session, b"")
    assert (zxid, err) == (0, 0)
    token, right = response(challenge, user, password, **other)
    zxid, err, answer = send(session, token)
    assert zxid == 0
    return err, answer, right


def who(session):
    fields = Fields(session.call(WHO_AM_I)[2])
    return {(fields.string(), fields.string()) for _ in range(fields.int())}


@pytest.fixture(scope="module")
def running(tmp_path_factory):
    with server(tmp_path_factory.mktemp("sasl"), superUser="boss", **{"superUser.1": "joe"}) as one:
        yield one


def test_escapes_in_the_login_file_are_the_jdks(tmp_path):
    """Each account's password as it is written in the file, and as it is meant."""
    accounts = {"tab": (r"p\tq", "p\tq"), "lines": (r"a\nb\rc", "a\nb\rc"), "octal": (r"\101\60\x", "A0x"),
                "control": (r"\a\b\f\v", "\a\b\f\v"), "plain": (r"\\\"\q", '\\"q')}
    with server(tmp_path, accounts={name: written for name, (written, _) in accounts.items()}) as running:
        for name, (_, meant) in accounts.items():
            with Session(running.port) as session:
                err, answer, right = log_in(session, name, meant)
                assert (err, answer) == (0, right), name


def test_the_challenge_is_javas(running):
    with Session(running.port) as one, Session(running.port) as other:
        challenges = [send(session, b"")[2].decode() for session in (one, other)]
    form = rf'realm="{REALM}",nonce="([A-Za-z0-9+/]{{40}})",charset=utf-8,algorithm=md5-sess'
    nonces = {re.fullmatch(form, challenge)[1] for challenge in challenges}
    assert len(nonces) == 2


def test_who_has_logged_in_owns_what_it_makes(running):
    with Session(running.port) as bob, Session(running.port) as stranger:
        err, answer, right = log_in(bob, "bob", "a secret")
        assert (err, answer) == (0, right)
        assert who(bob) == {("ip", "127.0.0.1"), ("sasl", "bob")}
        assert bob.call(CREATE, create("/bobs", b"x", acls=CREATOR))[1] == 0
        assert bob.call(SET, set_data("/bobs", b"y"))[1] == 0
        assert stranger.call(GET, watched("/bobs"))[1] == NO_AUTH
        assert log_in(stranger, "super", "in the file")[0] == 0
        assert stranger.call(GET, watched("/bobs"))[1] == 0, "a user of this name matches every entry of the scheme"


def test_a_super_user_may_do_everything(running):
    with Session(running.port) as session:
        session.call(CREATE, create("/nobodys", b"x", acls=[(31, "digest", "a:b")]))
        assert session.call(GET, watched("/nobodys"))[1] == NO_AUTH
        assert log_in(session, "joe", "joe's")[0] == 0
        assert ("super", "") in who(session)
        assert session.call(GET, watched("/nobodys"))[1] == 0


@pytest.mark.parametrize("user, password, other", [
    ("bob", "a guess", {}),
    ("nobody", "a secret", {}),
    ("bob", "a secret", {"realm": '"elsewhere"'}),
    ("bob", "a secret", {"nonce": '"a nonce of another connection"'}),
    ("bob", "a secret", {"digest_uri": '"zookeeper/elsewhere"'}),
    ("bob", "a secret", {"qop": "auth-conf"}),
    ("bob", "a secret", {"response": None}),
    ("bob", "a secret", {"username": None}),
    ("bob", "a secret", {"charset": "latin1"}),
    ("bob", "a secret", {"username": '"bob'}),
    ("bob", "a secret", {"authzid": '"joe"'}),
])
def test_what_does_not_fit_is_refused_and_the_connection_ends(running, user, password, other):
    with Session(running.port) as session:
        err, answer, _ = log_in(session, user, password, **other)
        assert (err, answer) == (AUTH_FAILED, None)
        assert session.is_closed()


def test_the_first_token_is_not_looked_at_unless_it_is_too_long(running):
    with Session(running.port) as session:
        assert send(session, b"hello")[2].startswith(b"realm=")
    with Session(running.port) as session:
        assert send(session, b"\0" * 5000) == (0, AUTH_FAILED, None)
        assert session.is_closed()


def test_a_login_ends_once(running):
    with Session(running.port) as session:
        assert log_in(session, "bob", "a secret")[0] == 0
        assert send(session, b"") == (0, AUTH_FAILED, None)
        assert session.is_closed()


def test_who_acts_as_another_is_who_it_proved_to_be(running):
    with Session(running.port) as session:
        err, answer, right = log_in(session, "bob", "a secret", acts_as="joe")
        assert (err, answer) == (0, right)
        assert who(session) == {("ip", "127.0.0.1"), ("sasl", "bob")}


def test_no_name_lets_its_owner_choose_another(running):
    """Java takes the name that the client asks for where no Kerberos rule fits the one that it proved."""
    with Session(running.port) as session:
        err, answer, right = log_in(session, "eve@REALM", "eve's", acts_as="joe")
        assert (err, answer) == (0, right)
        taken = {("sasl", "joe"), ("super", "")} if running.java else {("sasl", "eve@REALM")}
        assert who(session) == {("ip", "127.0.0.1"), *taken}


def test_an_auth_packet_proves_no_name_of_the_scheme(running):
    with Session(running.port) as session:
        packet = b"\0\0\0\0" + buffer(b"sasl") + buffer(b"bob")
        assert session.call(100, packet, xid=-4)[1] == AUTH_FAILED
        assert session.is_closed()


def test_who_fails_may_stay(tmp_path):
    with server(tmp_path, allowSaslFailedClients="true") as one, Session(one.port) as session:
        err, answer, _ = log_in(session, "bob", "a guess")
        assert (err, answer) == (0, None)
        assert send(session, b"") == (0, 0, None), "its login is over all the same"
        assert who(session) == {("ip", "127.0.0.1")}


def test_who_has_to_log_in(tmp_path):
    with server(tmp_path, sessionRequireClientSASLAuth="true", allowSaslFailedClients="true") as one:
        with Session(one.port) as session:
            assert session.call(EXISTS, watched("/"))[1] == MUST_LOG_IN
            assert session.is_closed()
        with Session(one.port) as session:
            err, answer, _ = log_in(session, "bob", "a guess")
            assert (err, answer) == (MUST_LOG_IN, None)
            assert session.is_closed()
        with Session(one.port) as session:
            assert log_in(session, "bob", "a secret")[0] == 0
            assert session.call(EXISTS, watched("/"))[1] == 0


def test_the_flags_for_one_password_and_for_everyone(tmp_path):
    flags = {"SASLAuthenticationProvider.superPassword": "in-a-flag", "letAnySaslUserDoX": "anyone"}
    with server(tmp_path, **flags) as one, Session(one.port) as session:
        session.call(CREATE, create("/shared", b"x", acls=[(1, "sasl", "anyone")]))
        assert session.call(GET, watched("/shared"))[1] == NO_AUTH
        assert log_in(session, "bob", "a secret")[0] == 0
        assert session.call(GET, watched("/shared"))[1] == 0
        with Session(one.port) as other:
            assert log_in(other, "super", "in the file")[0] == AUTH_FAILED
        with Session(one.port) as other:
            assert log_in(other, "super", "in-a-flag")[0] == 0


def test_entries_of_the_scheme_need_its_provider(running, server):
    entry = [(31, "sasl", "bob")]
    with Session(running.port) as session:
        assert session.call(CREATE, create("/entry", acls=entry + OPEN))[1] == 0
    with Session(server.port) as session:
        assert session.call(CREATE, create("/entry", acls=entry + OPEN))[1] == INVALID_ACL
        assert send(session, b"") == (0, 0, None), "without accounts a client goes on as nobody"


@pytest.mark.skipif(IS_JAVA, reason="Java's server has no limit")
@pytest.mark.parametrize("others, err", [(62, 0), (63, AUTH_FAILED)])
def test_a_login_counts_among_the_identities_of_its_connection(running, others, err):
    with Session(running.port) as session:
        for at in range(others):
            add = struct.pack(">i", 0) + ustring("digest") + buffer(b"user-%d:p" % at)
            assert session.call(AUTH, add, xid=-4)[1] == 0
        assert log_in(session, "bob", "a secret")[0] == err
        if err:
            assert session.is_closed()
        else:
            assert len(who(session)) == others + 2


@pytest.mark.parametrize("text, says", [
    ('Server {\n  org.apache.zookeeper.server.auth.DigestLoginModule required\n  user_a="b\n};', "line 3"),
    ("Server {\n  com.sun.security.auth.module.Krb5LoginModule required useKeyTab=true;\n};", "Krb5LoginModule does not exist here"),
    (None, "cannot read"),
])
def test_a_server_does_not_start_without_the_accounts_that_it_is_told_of(tmp_path, text, says):
    logins = tmp_path / "jaas.conf"
    if text is not None:
        logins.write_text(text)
    one = Server(PROVIDER, {"java.security.auth.login.config": str(logins)}, java=False)
    try:
        one.start(wait=False)
        assert one.process.wait(30) != 0
        assert says in one.log() and str(logins) in one.log()
    finally:
        one.__exit__(None, None, None)
