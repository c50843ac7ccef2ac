"""TLS on the client ports. SERVER=java runs the same against Java's server."""
import contextlib
import os
import socket
import ssl
import struct
import subprocess

import pytest
from harness.server import BINARY, IS_JAVA, JAVA_CLASSPATH, Server, free_port
from harness.wire import CLOSE, CREATE, EXISTS, GET, SET, WHO_AM_I, Closed, Fields, Raw, Session, create, set_data, watched

GET_ACL = 6
NO_AUTH, INVALID_ACL = -102, -114
NETTY = "org.apache.zookeeper.server.NettyServerCnxnFactory"
PASSWORD = "store secret"
# As Java writes it: what is special in a name has a backslash.
SUBJECT = r"CN=client \+1,OU=a\, b,O=Zabra,1.2.840.113549.1.9.1=#1603614062"


class Authority:
    """Makes keys and certificates, each in files of its name."""

    def __init__(self, directory):
        self.dir = directory
        self.make("ca", "/CN=the CA", ["-x509", "-days", "30"])
        self.make("strange-ca", "/CN=another CA", ["-x509", "-days", "30"])
        self.sign("server", "/CN=localhost")
        self.sign("client", r"/emailAddress=a@b/O=Zabra/OU=a, b/CN=client \+1")
        self.sign("super", "/CN=who may do all")
        self.sign("old", "/CN=version 1", extensions=None)
        self.sign("strange", r"/CN=client \+1", ca="strange-ca")
        self.sign("strange-old", "/CN=version 1", ca="strange-ca", extensions=None)
        self.sign("expired", "/CN=was here", days=-1)
        self.sign("expired-old", "/CN=was here", days=-1, extensions=None)
        # It stands in the trust store itself.
        self.make("known", "/CN=known by itself", ["-x509", "-days", "30"])

    def path(self, name):
        return str(self.dir / name)

    def openssl(self, *arguments):
        subprocess.run(["openssl", *arguments], check=True, capture_output=True)

    def keytool(self, *arguments):
        subprocess.run(["keytool", *arguments, "-noprompt"], check=True, capture_output=True)

    def make(self, name, subject, more):
        self.openssl("req", "-new", "-newkey", "rsa:2048", "-nodes", "-keyout", self.path(f"{name}.key"), "-subj", subject,
                     "-out", self.path(f"{name}.crt"), *more)

    def sign(self, name, subject, ca="ca", extensions="extendedKeyUsage=clientAuth,serverAuth", days=30):
        self.make(name, subject, [])
        more = []
        if extensions:
            (self.dir / "extensions").write_text(extensions)
            more = ["-extfile", self.path("extensions")]
        self.openssl("x509", "-req", "-in", self.path(f"{name}.crt"), "-CA", self.path(f"{ca}.crt"),
                     "-CAkey", self.path(f"{ca}.key"), "-CAcreateserial", "-days", str(days), "-out", self.path(f"{name}.crt"), *more)

    def version(self, name):
        text = subprocess.run(["openssl", "x509", "-in", self.path(f"{name}.crt"), "-noout", "-text"], check=True,
                              capture_output=True, text=True).stdout
        return int(text.split("Version: ")[1].split()[0])

    def stores(self):
        """The server's, in each format."""
        for kind in ("PKCS12", "JKS"):
            end = {"PKCS12": "p12", "JKS": "jks"}[kind]
            self.openssl("pkcs12", "-export", "-in", self.path("server.crt"), "-inkey", self.path("server.key"), "-name", "me",
                         "-passout", f"pass:{PASSWORD}", "-out", self.path("made.p12"))
            self.keytool("-importkeystore", "-srckeystore", self.path("made.p12"), "-srcstorepass", PASSWORD,
                         "-destkeystore", self.path(f"keys.{end}"), "-deststoretype", kind, "-deststorepass", PASSWORD)
            for name in ("ca", "known"):
                self.keytool("-importcert", "-file", self.path(f"{name}.crt"), "-alias", name, "-storetype", kind,
                             "-keystore", self.path(f"trusted.{end}"), "-storepass", PASSWORD)
        sealed = ["pkcs8", "-topk8", "-in", self.path("server.key"), "-passout", f"pass:{PASSWORD}"]
        self.openssl(*sealed, "-out", self.path("sealed.key"))
        for name, parts in [("keys", ["server.key", "server.crt"]), ("sealed", ["server.crt", "sealed.key"]), ("trusted", ["ca.crt", "known.crt"])]:
            (self.dir / f"{name}.pem").write_text("".join((self.dir / part).read_text() for part in parts))
        (self.dir / "password").write_text(f"{PASSWORD}\n")

    def settings(self, keys="keys.jks", trusted="trusted.jks"):
        settings = {"serverCnxnFactory": NETTY, "ssl.keyStore.location": self.path(keys),
                    "ssl.trustStore.location": self.path(trusted)}
        if keys != "keys.pem":
            settings["ssl.keyStore.password"] = PASSWORD
        if trusted != "trusted.pem":
            settings["ssl.trustStore.password"] = PASSWORD
        return settings

    def client(self, name=None, version=None):
        context = ssl.create_default_context(cafile=self.path("ca.crt"))
        context.check_hostname = False
        if name:
            context.load_cert_chain(self.path(f"{name}.crt"), self.path(f"{name}.key"))
        if version:
            context.minimum_version = context.maximum_version = version
        return context


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    made = Authority(tmp_path_factory.mktemp("certificates"))
    made.stores()
    return made


@contextlib.contextmanager
def server(settings, **flags):
    port = free_port()
    named = {f"zookeeper.{name}": value for name, value in flags.items()}
    with Server({"secureClientPort": str(port), **settings}, named) as running:
        running.secure_port = port
        running.wait_until_it_listens(port)
        yield running


@pytest.fixture(scope="module")
def running(authority):
    more = {"X509AuthenticationProvider.superUser": "CN=who may do all"}
    # Java's default is TLS 1.3 alone.
    with server({**authority.settings(), **more, "ssl.enabledProtocols": "TLSv1.3,TLSv1.2"}) as found:
        yield found


def connect(running, context, **rest):
    return Session(running.secure_port, tls=context, **rest)


def is_refused(running, context):
    """In TLS 1.3 a client hears of it only when it reads."""
    try:
        connect(running, context).close()
        return False
    except (Closed, ssl.SSLError, ConnectionResetError, BrokenPipeError):
        return True


def ids(session):
    _, err, body = session.call(WHO_AM_I)
    assert err == 0
    fields = Fields(body)
    return [(fields.string(), fields.string()) for _ in range(fields.int())]


def ok(session, op, body=b""):
    zxid, err, rest = session.call(op, body)
    assert err == 0, (op, err)
    return rest


@pytest.mark.parametrize("keys, trusted", [
    ("keys.jks", "trusted.jks"), ("keys.p12", "trusted.p12"), ("keys.pem", "trusted.pem"), ("sealed.pem", "trusted.jks")])
def test_keys_and_trust_come_from_each_kind_of_store(authority, keys, trusted):
    if IS_JAVA and keys == "sealed.pem":
        pytest.skip("Java 17 opens no key that is sealed by PBES2, as openssl seals it")
    with server(authority.settings(keys, trusted)) as running:
        with connect(running, authority.client("client")) as session:
            ok(session, CREATE, create("/a", b"b"))
            assert Fields(ok(session, GET, watched("/a"))).buffer() == b"b"
        assert is_refused(running, authority.client())
        assert running.word("ruok") == "imok", "the other port is there too"


def test_a_store_says_its_kind_and_its_password_stands_in_a_file(authority):
    os.rename(authority.path("keys.p12"), authority.path("keys"))
    try:
        settings = {**authority.settings("keys"), "ssl.keyStore.type": "PKCS12", "ssl.keyStore.passwordPath": authority.path("password"),
                    "ssl.keyStore.password": "another"}
        with server(settings) as running, connect(running, authority.client("client")) as session:
            ok(session, EXISTS, watched("/"))
    finally:
        os.rename(authority.path("keys"), authority.path("keys.p12"))


def test_a_certificate_says_who_a_client_is(running, authority):
    with connect(running, authority.client("client")) as session:
        found = ids(session)
        assert ("x509", SUBJECT) in found and ("ip", "127.0.0.1") in found and len(found) == 2
        ok(session, CREATE, create("/mine", b"", 1, [(31, "auth", "")]))
        assert Fields(ok(session, GET_ACL, watched("/mine")[:-1])).acl() == [(31, "x509", SUBJECT)]
        ok(session, CREATE, create("/named", b"", 0, [(31, "x509", SUBJECT)]))
        ok(session, SET, set_data("/mine", b"x"))
        with connect(running, authority.client("old")) as other:
            assert ("x509", "CN=version 1") in ids(other)
            assert other.call(SET, set_data("/mine", b"y"))[1] == NO_AUTH
            assert other.call(GET, watched("/named"))[1] == NO_AUTH
        with connect(running, authority.client("super")) as above:
            assert {scheme for scheme, _ in ids(above)} == {"super", "x509", "ip"}
            ok(above, SET, set_data("/named", b"z"))
    with Session(running.port) as plain:
        assert plain.call(GET, watched("/named"))[1] == NO_AUTH
        assert plain.call(CREATE, create("/n", b"", 0, [(31, "auth", "")]))[1] == INVALID_ACL


@pytest.mark.parametrize("name, valid", [
    ("CN=a", True), ("cn = a, O=\"x, y\";C=DE", True), ("CN=a+UID=b,2.5.4.3=c,OID.1.2=#0403616263", True), ("EMAILADDRESS=a@b", True),
    ("CN=", True), ("", True), ("client", False), ("X=y", False), ("CN=a,", False), ("CN=\"a", False), ("=a", False)])
def test_an_acl_names_a_distinguished_name(running, authority, name, valid):
    with connect(running, authority.client("client")) as session:
        expected = 0 if valid else INVALID_ACL
        assert session.call(CREATE, create("/acl-", b"", 3, [(31, "x509", name)]))[1] == expected


VERSIONS = [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3]


@pytest.mark.parametrize("version", VERSIONS)
def test_who_is_believed(running, authority, version):
    assert [authority.version(name) for name in ("client", "old", "strange-old", "expired-old")] == [3, 1, 1, 1]
    for name in ("client", "old", "known"):
        with connect(running, authority.client(name, version)) as session:
            assert session.socket.version() == {VERSIONS[0]: "TLSv1.2", VERSIONS[1]: "TLSv1.3"}[version]
            ok(session, EXISTS, watched("/"))
    for name in ("strange", "strange-old", "expired", "expired-old", None):
        assert is_refused(running, authority.client(name, version)), name


@pytest.mark.parametrize("asks", ["want", "none"])
def test_a_client_need_not_show_a_certificate_where_none_is_needed(authority, asks):
    with server({**authority.settings(), "ssl.clientAuth": asks}) as running:
        with connect(running, authority.client()) as session:
            assert ids(session) == [("ip", "127.0.0.1")]
        with connect(running, authority.client("client")) as session:
            assert len(ids(session)) == (2 if asks == "want" else 1)
        assert is_refused(running, authority.client("strange")) == (asks == "want")


def test_large_and_many_frames_pass(running, authority):
    with connect(running, authority.client("client")) as session:
        data = os.urandom(900_000)
        ok(session, CREATE, create("/large", data, 1))
        xids = [session.push(GET, watched("/large")) for _ in range(30)]
        for xid in xids:
            got, _, err, body = session.reply()
            assert (got, err) == (xid, 0)
            assert Fields(body).buffer() == data
        xids = [session.push(EXISTS, watched("/large")) for _ in range(5000)]
        assert [session.reply()[0] for _ in xids] == xids
        ok(session, CLOSE)
        assert session.is_closed()


def test_words_are_answered(running, authority):
    with Raw(running.secure_port, tls=authority.client("client")) as raw:
        raw.send(b"ruok")
        assert raw.receive(4) == b"imok"
        assert raw.is_closed()


def test_a_session_moves_between_the_ports(running, authority):
    with connect(running, authority.client("client")) as session:
        ok(session, CREATE, create("/moves", b"", 1))
        with Session(running.port, session=session.session, passwd=session.passwd) as again:
            assert again.session == session.session
            assert session.is_closed()
            ok(again, EXISTS, watched("/moves"))


@pytest.mark.parametrize("data", [
    struct.pack(">i", 44) + bytes(44), b"ruok", b"\x16\x03\x01\xff\xff" + b"\xff" * 100, b"\x16\x03\x01\x00\x05hello", os.urandom(5000)],
    ids=["a frame", "a word", "a long record", "a wrong hello", "noise"])
def test_what_is_no_tls_is_closed(running, authority, data):
    with Raw(running.secure_port) as raw:
        with contextlib.suppress(OSError):
            raw.send(data)
            raw.socket.shutdown(socket.SHUT_WR)
        assert raw.is_closed()
    with connect(running, authority.client("client")) as session:
        ok(session, EXISTS, watched("/"))


def test_a_handshake_that_stands_still_ends(authority):
    if IS_JAVA:
        pytest.skip("the setting is one of Java's other connection factory, which has no TLS")
    with server(authority.settings(), **{"nio.sessionlessCnxnTimeout": "700"}) as running:
        with Raw(running.secure_port) as raw:
            raw.send(b"\x16\x03\x01")
            assert raw.is_closed()


def test_one_port_takes_both(authority):
    settings = {**authority.settings(), "client.portUnification": "true", "authProvider.1": "org.apache.zookeeper.server.auth.X509AuthenticationProvider"}
    with Server(settings) as running:
        with Session(running.port) as plain:
            assert ids(plain) == [("ip", "127.0.0.1")]
        with Session(running.port, tls=authority.client("client")) as session:
            assert ("x509", SUBJECT) in ids(session)
        with pytest.raises((Closed, ssl.SSLError, ConnectionResetError)):
            Session(running.port, tls=authority.client("strange"))
        assert running.word("ruok") == "imok"


def test_the_official_client_speaks_it(running, authority):
    keys = {"keyStore": "client.p12", "trustStore": "trusted.jks"}
    authority.openssl("pkcs12", "-export", "-in", authority.path("client.crt"), "-inkey", authority.path("client.key"),
                      "-passout", f"pass:{PASSWORD}", "-out", authority.path("client.p12"))
    flags = {"client.secure": "true", "clientCnxnSocket": "org.apache.zookeeper.ClientCnxnSocketNetty", "ssl.hostnameVerification": "false"}
    for store, file in keys.items():
        flags |= {f"ssl.{store}.location": authority.path(file), f"ssl.{store}.password": PASSWORD}
    command = ["java", *(f"-Dzookeeper.{key}={value}" for key, value in flags.items()), "-cp", JAVA_CLASSPATH,
               "org.apache.zookeeper.ZooKeeperMain", "-server", f"127.0.0.1:{running.secure_port}", "whoami"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert f"x509: {SUBJECT}" in done.stdout, done.stdout + done.stderr


def test_suites_that_do_not_exist_here_are_named(authority):
    if IS_JAVA:
        pytest.skip("Java has them")
    suites = "TLS_AES_128_GCM_SHA256,TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA256,TLS_RSA_WITH_NULL_SHA256"
    with server({**authority.settings(), "ssl.ciphersuites": suites}) as running:
        with connect(running, authority.client("client", VERSIONS[1])) as session:
            ok(session, EXISTS, watched("/"))
        assert is_refused(running, authority.client("client", VERSIONS[0]))
        said = [line for line in running.log().splitlines() if "WARN" in line and "ssl.ciphersuites" in line]
        assert len(said) == 3 and all("zoo.cfg:" in line for line in said), said
        assert "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA256 has no effect" in said[0]
        assert "TLS_RSA_WITH_NULL_SHA256 has no effect" in said[1] and "TLSv1_2" in said[2]


def speaks(running, *flags):
    """Whether a client with these flags of openssl's has its word answered."""
    command = ["openssl", "s_client", "-quiet", "-connect", f"127.0.0.1:{running.secure_port}", *flags]
    return "imok" in subprocess.run(command, input="ruok", capture_output=True, text=True, timeout=20).stdout


@pytest.fixture(scope="module")
def two_keys(authority):
    """Stores of each kind with an RSA and an EC key; the first by name is the RSA key, and in `other` the EC key."""
    authority.openssl("genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-out", authority.path("curve.key"))
    authority.openssl("req", "-new", "-key", authority.path("curve.key"), "-subj", "/CN=localhost", "-out", authority.path("curve.csr"))
    authority.openssl("x509", "-req", "-in", authority.path("curve.csr"), "-CA", authority.path("ca.crt"), "-CAkey", authority.path("ca.key"),
                      "-CAcreateserial", "-days", "30", "-out", authority.path("curve.crt"))
    password = ["-srcstorepass", PASSWORD, "-deststorepass", PASSWORD]
    for store, names in {"two": ["server", "curve"], "other": ["curve", "server"]}.items():
        parts = [authority.path(f"{store}.p12"), authority.path("made.p12")]
        for alias, name, part in zip("ab", names, parts):
            authority.openssl("pkcs12", "-export", "-in", authority.path(f"{name}.crt"), "-inkey", authority.path(f"{name}.key"),
                              "-name", alias, "-passout", f"pass:{PASSWORD}", "-out", part)
        authority.keytool("-importkeystore", "-srckeystore", parts[1], "-destkeystore", parts[0], *password)
        authority.keytool("-importkeystore", "-srckeystore", parts[0], "-destkeystore", authority.path(f"{store}.jks"),
                          "-deststoretype", "JKS", *password)
    return authority


@pytest.mark.parametrize("keys", ["two.p12", "other.p12", "two.jks", "other.jks"])
def test_a_store_with_two_kinds_of_keys_serves_both_kinds_of_clients(two_keys, keys):
    settings = {**two_keys.settings(keys), "ssl.clientAuth": "none", "ssl.enabledProtocols": "TLSv1.3,TLSv1.2"}
    with server(settings) as running:
        assert speaks(running, "-tls1_2", "-cipher", "ECDHE-RSA-AES128-GCM-SHA256"), "RSA"
        assert speaks(running, "-tls1_2", "-cipher", "ECDHE-ECDSA-AES128-GCM-SHA256"), "ECDSA"
        assert speaks(running, "-tls1_3", "-sigalgs", "rsa_pss_rsae_sha256:rsa_pkcs1_sha256"), "RSA"
        assert speaks(running, "-tls1_3", "-sigalgs", "ecdsa_secp256r1_sha256:rsa_pkcs1_sha256"), "ECDSA"
        assert speaks(running), "whoever takes both"


@pytest.mark.parametrize("algorithm, said", [
    (["RSA", "-pkeyopt", "rsa_keygen_bits:1024"], "the key can't be used: RSA of 1024 bits; RSA of 2048 to 4096 bits, P-256, P-384"),
    (["EC", "-pkeyopt", "ec_paramgen_curve:P-521"], "the key can't be used: P-521; RSA of 2048 to 4096 bits"),
    (["RSA-PSS", "-pkeyopt", "rsa_keygen_bits:2048"], "the key can't be used: RSA for PSS alone"),
])
def test_a_key_that_cannot_be_used_is_named(authority, tmp_path, algorithm, said):
    if IS_JAVA:
        pytest.skip("Java takes them")
    kind, *options = algorithm
    authority.openssl("genpkey", "-algorithm", kind, *options, "-out", str(tmp_path / "own.key"))
    authority.openssl("req", "-x509", "-key", str(tmp_path / "own.key"), "-subj", "/CN=localhost", "-days", "30", "-out", str(tmp_path / "own.crt"))
    (tmp_path / "own.pem").write_text((tmp_path / "own.key").read_text() + (tmp_path / "own.crt").read_text())
    config = tmp_path / "zoo.cfg"
    settings = {"dataDir": tmp_path / "data", "secureClientPort": "0", **authority.settings(), "ssl.keyStore.location": tmp_path / "own.pem"}
    config.write_text("".join(f"{key}={value}\n" for key, value in settings.items()))
    done = subprocess.run([BINARY, "serve", config], capture_output=True, text=True, timeout=30)
    assert done.returncode == 1 and said in done.stderr, done.stderr


@pytest.mark.parametrize("change, said", [
    ({"ssl.keyStore.location": ""}, "ssl.keyStore.location is missing"),
    ({"ssl.trustStore.location": ""}, "ssl.trustStore.location is missing"),
    ({"ssl.keyStore.location": "/no/such.jks"}, "/no/such.jks"),
    ({"ssl.keyStore.password": "wrong"}, "keys.jks: the password is wrong"),
    ({"ssl.ocsp": "true"}, "ssl.ocsp"),
    ({"ssl.clientAuth": "perhaps"}, "none, want or need"),
    ({"ssl.enabledProtocols": "TLSv1.1"}, "expected TLSv1.2, TLSv1.3 or both"),
    ({"ssl.ciphersuites": "TLS_RSA_WITH_AES_128_CBC_SHA"}, 'zoo.cfg:8: ssl.ciphersuites="TLS_RSA_WITH_AES_128_CBC_SHA": none'),
    ({"ssl.ciphersuites": "TLS_AES_128_GCM_SHA256,TLS_RSA_WITH_AES_128_CBC_SHA", "ssl.enabledProtocols": "TLSv1.2,TLSv1.3"},
     "none of these suites is for TLSv1_2"),
])
def test_a_mistake_in_the_configuration_is_named(authority, change, said, tmp_path):
    if IS_JAVA:
        pytest.skip("Java says it with a stack trace, or when the first client comes")
    config = tmp_path / "zoo.cfg"
    settings = {"dataDir": tmp_path / "data", "secureClientPort": "0", **authority.settings(), **change}
    config.write_text("".join(f"{key}={value}\n" for key, value in settings.items()))
    done = subprocess.run([BINARY, "serve", config], capture_output=True, text=True, timeout=30)
    assert done.returncode == 1 and said in done.stderr, done.stderr
    assert not (tmp_path / "data").exists()
