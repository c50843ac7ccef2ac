"""Who vouches for a client's certificate, by the rule of the JDK. SERVER=java runs the same against Java's server."""
import contextlib
import datetime
import socket
import ssl
import subprocess
import time

import pytest
from harness.server import IS_JAVA
from test_tls import NETTY, PASSWORD, VERSIONS, connect, ids, is_refused, server

SIGNS = "basicConstraints=critical,CA:TRUE\nkeyUsage=critical,keyCertSign,cRLSign"
LEAF = "basicConstraints=CA:FALSE\nextendedKeyUsage=clientAuth"
P256 = ["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"]
KEEPS = {
    # Its certificates vouch for others …
    "root": SIGNS, "without usage": "basicConstraints=CA:TRUE", "version 1": None,
    # … for themselves alone.
    "pinned": LEAF, "unknown": f"{LEAF}\n1.2.3.4=critical,ASN1:NULL", "unsaid": "subjectKeyIdentifier=hash", "unusable": "basicConstraints=CA:TRUE\nkeyUsage=digitalSignature",
}


class Certificates:
    """Makes keys and certificates, each in files of its name."""

    def __init__(self, directory):
        self.dir = directory

    def path(self, name, end="crt"):
        return str(self.dir / f"{name}.{end}")

    def openssl(self, *arguments):
        subprocess.run(["openssl", *arguments], check=True, capture_output=True)

    def request(self, name, subject, key=None, options=P256):
        if not key:
            self.openssl("genpkey", *options, "-out", self.path(name, "key"))
        else:
            (self.dir / f"{name}.key").write_bytes((self.dir / f"{key}.key").read_bytes())
        self.openssl("req", "-new", "-key", self.path(name, "key"), "-subj", subject, "-out", self.path(name, "csr"))

    def make(self, name, by=None, extensions=LEAF, subject=None, key=None, options=P256):
        """Signed `by` another's key or the own; without `extensions` of version 1."""
        self.request(name, subject or f"/CN={name}", key, options)
        signer = ["-CA", self.path(by), "-CAkey", self.path(by, "key"), "-CAcreateserial"] if by else ["-signkey", self.path(name, "key")]
        more = []
        if extensions:
            (self.dir / "extensions").write_text(extensions)
            more = ["-extfile", str(self.dir / "extensions")]
        self.openssl("x509", "-req", "-in", self.path(name, "csr"), *signer, "-days", "30", *more, "-out", self.path(name))

    def make_until(self, name, by, end):
        (self.dir / "index.txt").write_text("")
        (self.dir / "ca.cnf").write_text(f"""[ca]\ndefault_ca=d\n[d]\nnew_certs_dir={self.dir}\ndatabase={self.dir}/index.txt
rand_serial=yes\ndefault_md=sha256\npolicy=p\nx509_extensions=e\n[p]\ncommonName=supplied\n[e]\n{LEAF}\n""")
        self.request(name, f"/CN={name}")
        self.openssl("ca", "-batch", "-notext", "-config", str(self.dir / "ca.cnf"), "-in", self.path(name, "csr"), "-cert", self.path(by),
                     "-keyfile", self.path(by, "key"), "-startdate", "20260101000000Z", "-enddate", end.strftime("%Y%m%d%H%M%SZ"), "-out", self.path(name))

    def join(self, *names, end="crt"):
        return "".join((self.dir / f"{name}.{end}").read_text() for name in names)

    def client(self, name, *above, version=None):
        """Shows the certificate, and those of `above` with it."""
        (self.dir / "chain.pem").write_text(self.join(name, *above))
        context = ssl.create_default_context(cafile=self.path("root"))
        context.check_hostname = False
        # openssl's own rules would refuse to show a small key.
        context.set_ciphers("DEFAULT@SECLEVEL=0")
        context.load_cert_chain(self.dir / "chain.pem", self.path(name, "key"))
        if version:
            context.minimum_version = context.maximum_version = version
        return context

    def settings(self, *trusted):
        """Java reads a PEM store of several only where each is named: the keys stand in one file, the trusted in another."""
        (self.dir / "keys.pem").write_text(self.join("server", end="key") + self.join("server"))
        store = self.dir / f"trusted-{len(list(self.dir.glob('trusted-*')))}.jks"
        for name in trusted:
            subprocess.run(["keytool", "-importcert", "-noprompt", "-file", self.path(name), "-alias", name, "-storetype", "JKS",
                            "-keystore", str(store), "-storepass", PASSWORD], check=True, capture_output=True)
        return {"serverCnxnFactory": NETTY, "ssl.keyStore.location": str(self.dir / "keys.pem"), "ssl.trustStore.location": str(store),
                "ssl.trustStore.password": PASSWORD, "ssl.enabledProtocols": "TLSv1.3,TLSv1.2",
                "X509AuthenticationProvider.superUser": "CN=admin"}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    made = Certificates(tmp_path_factory.mktemp("trust"))
    for name, extensions in KEEPS.items():
        made.make(name, extensions=extensions)
    made.make("server", "root", LEAF.replace("clientAuth", "clientAuth,serverAuth"))
    # Issued by an authority, and standing in the trust store too.
    made.make("issued", "root")
    made.make("issued 1", "root", extensions=None)
    return made


@pytest.fixture(scope="module")
def running(made):
    with server(made.settings(*KEEPS, "issued", "issued 1")) as found:
        yield found


@pytest.mark.parametrize("version", VERSIONS)
def test_each_certificate_of_the_trust_store_vouches_for_itself(running, made, version):
    for name in ["pinned", "unknown", "unsaid", "unusable", "issued", "issued 1"]:
        with connect(running, made.client(name, version=version)) as session:
            assert ("x509", f"CN={name}") in ids(session), name


@pytest.mark.parametrize("extensions", [LEAF, None], ids=["version 3", "version 1"])
@pytest.mark.parametrize("by", ["pinned", "unsaid", "unusable", "issued", "issued 1"])
def test_a_client_of_the_trust_store_makes_nobody_super(running, made, by, extensions):
    if IS_JAVA and by == "issued 1":
        pytest.skip("to Java each certificate of version 1 is an authority, also one that another issued")
    made.make("forged", by, extensions, "/CN=admin")
    for version in VERSIONS:
        for above in [], [by]:
            assert is_refused(running, made.client("forged", *above, version=version)), (by, above)


@pytest.mark.parametrize("extensions", [LEAF, None], ids=["version 3", "version 1"])
@pytest.mark.parametrize("by", ["root", "without usage", "version 1"])
def test_an_authority_vouches_for_others(running, made, by, extensions):
    made.make("client", by, extensions)
    with connect(running, made.client("client")) as session:
        assert ("x509", "CN=client") in ids(session)


def test_a_store_of_clients_alone_knows_them_and_nobody_else(made):
    made.make("another", "pinned")
    with server(made.settings("pinned", "issued")) as running:
        for name in ["pinned", "issued"]:
            with connect(running, made.client(name)) as session:
                assert ("x509", f"CN={name}") in ids(session)
        assert is_refused(running, made.client("another"))
        assert is_refused(running, made.client("unsaid"))


def test_authorities_below_the_root_need_the_right_to_sign(running, made):
    made.make("middle", "root", SIGNS)
    made.make("lower", "middle", "basicConstraints=CA:TRUE")
    made.make("below", "lower")
    with connect(running, made.client("below", "lower", "middle")) as session:
        assert ("x509", "CN=below") in ids(session)
    assert is_refused(running, made.client("below", "lower")), "a gap in the path"
    for name, extensions in {"reader": "basicConstraints=CA:TRUE\nkeyUsage=digitalSignature", "no authority": LEAF, "silent": "subjectKeyIdentifier=hash"}.items():
        made.make(name, "middle", extensions)
        made.make("forged", name, subject="/CN=admin")
        assert is_refused(running, made.client("forged", name, "middle")), name


def test_a_path_is_found_across_authorities(running, made):
    """One authority below two roots, of which one is trusted, and once without the right to sign."""
    made.make("other root", extensions=SIGNS)
    made.make("crossed", "other root", SIGNS, "/CN=crossed")
    made.make("crossed too", "root", SIGNS, "/CN=crossed", key="crossed")
    made.make("crossed silent", "root", "basicConstraints=CA:TRUE\nkeyUsage=digitalSignature", "/CN=crossed", key="crossed")
    made.make("client", "crossed")
    for above in [["crossed", "crossed too", "other root"], ["crossed silent", "crossed too"], ["crossed too", "crossed silent", "crossed"]]:
        with connect(running, made.client("client", *above)) as session:
            assert ("x509", "CN=client") in ids(session), above
    for above in [["crossed", "other root"], ["crossed silent"], ["crossed silent", "crossed", "other root"]]:
        assert is_refused(running, made.client("client", *above)), above


@pytest.mark.parametrize("more", ["", "\nsubjectAltName=critical,DNS:nobody"], ids=["no name", "another name"])
def test_a_certificate_that_names_nobody_is_refused(running, made, more):
    if IS_JAVA and more:
        pytest.skip("Java lets it in, as nobody")
    made.make("nameless", "root", LEAF + more, "/")
    assert is_refused(running, made.client("nameless"))


def talk(running, context, session=None):
    """What `ruok` is answered on a connection that goes on from `session`, whether it did, and the session to go on from."""
    with socket.create_connection(("127.0.0.1", running.secure_port), timeout=10) as plain:
        with context.wrap_socket(plain, session=session) as secure:
            secure.sendall(b"ruok")
            found = secure.recv(4), secure.session_reused, secure.session
            # A session whose connection did not end in order is not gone on from.
            with contextlib.suppress(OSError):
                secure.unwrap()
            return found


@pytest.mark.parametrize("version", VERSIONS)
def test_an_expired_certificate_does_not_live_on_by_resumption(running, made, version):
    end = datetime.datetime.now(datetime.UTC).replace(microsecond=0) + datetime.timedelta(seconds=2)
    made.make_until("brief", "root", end)
    context = made.client("brief", version=version)
    answer, _, session = talk(running, context)
    assert answer == b"imok"
    # What is waited for is the time itself. Handshakes until then would push the session out of the server's memory.
    time.sleep((end - datetime.datetime.now(datetime.UTC)).total_seconds() + 1)
    assert is_refused(running, context), "it does not expire"
    with pytest.raises(OSError):
        answer, resumed, _ = talk(running, context, session)
        assert answer, "closed without a word"
        raise AssertionError(f"it is taken after its end, resumed: {resumed}")


# Which extensions a client's own certificate may have, and that of the authority between.
POLICIES = "certificatePolicies=critical,1.3.6.1.4.1.99999.1,2.23.140.1.2.1"


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("extensions", [
    "extendedKeyUsage=anyExtendedKeyUsage", "extendedKeyUsage=serverAuth,anyExtendedKeyUsage", f"{LEAF}\n{POLICIES}", POLICIES,
    "keyUsage=critical,digitalSignature"], ids=["any use", "any use beside another", "policies", "policies alone", "a use"])
def test_a_certificate_of_a_real_authority_is_taken(running, made, extensions, version):
    made.make("real", "root", extensions)
    with connect(running, made.client("real", version=version)) as session:
        assert ("x509", "CN=real") in ids(session)


def test_an_authority_between_may_have_critical_policies(running, made):
    made.make("middle", "root", f"{SIGNS}\n{POLICIES}")
    made.make("real", "middle", f"{LEAF}\n{POLICIES}")
    for version in VERSIONS:
        with connect(running, made.client("real", "middle", version=version)) as session:
            assert ("x509", "CN=real") in ids(session)


@pytest.mark.parametrize("version", VERSIONS)
def test_critical_policies_are_part_of_what_is_signed(running, made, version):
    made.make("real", "root", f"{LEAF}\n{POLICIES}")
    made.openssl("x509", "-in", made.path("real"), "-outform", "DER", "-out", made.path("forged", "der"))
    signed = (made.dir / "forged.der").read_bytes()
    # The number of the first policy, and the mark itself.
    for old, new in [(bytes.fromhex("2b06010401868d1f01"), bytes.fromhex("2b06010401868d1f02")),
                     (bytes.fromhex("0603551d200101ff"), bytes.fromhex("0603551d20010100"))]:
        assert signed.count(old) == 1
        (made.dir / "forged.der").write_bytes(signed.replace(old, new))
        made.openssl("x509", "-inform", "DER", "-in", made.path("forged", "der"), "-out", made.path("forged"))
        made.openssl("pkey", "-in", made.path("real", "key"), "-out", made.path("forged", "key"))
        assert is_refused(running, made.client("forged", version=version)), new


@pytest.mark.parametrize("extensions, said", [
    ("extendedKeyUsage=serverAuth", "its extendedKeyUsage has neither clientAuth"),
    ("keyUsage=critical,keyAgreement", "its keyUsage has no digitalSignature"),
    (f"{LEAF}\n1.2.3.4=critical,ASN1:NULL", "a critical extension that is not known"),
    (f"{LEAF}\n{POLICIES}\npolicyConstraints=critical,requireExplicitPolicy:0,inhibitPolicyMapping:0", "a critical extension that is not known"),
])
def test_what_a_certificate_may_not_be_used_for_is_refused(running, made, extensions, said):
    if IS_JAVA and "policyConstraints" in extensions:
        pytest.skip("Java knows them")
    made.make("unfit", "root", extensions)
    for version in VERSIONS:
        assert is_refused(running, made.client("unfit", version=version))
    # The client hears of it first.
    if not IS_JAVA:
        running.wait_until(f"no line says {said!r}", lambda: said in running.log(), 5)


@pytest.mark.parametrize("options, said", [
    (["-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:1024"], "its key, RSA of 1024 bits, can't be used: RSA of 2048 to 8192 bits, P-256"),
    (["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-521"], "its key, P-521, can't be used: RSA of 2048 to 8192 bits, P-256"),
], ids=["RSA 1024", "P-521"])
@pytest.mark.parametrize("version", VERSIONS)
def test_a_key_of_a_client_that_cannot_be_used_is_named(running, made, options, said, version):
    if IS_JAVA:
        pytest.skip("Java takes them")
    made.make("odd", "root", options=options)
    assert is_refused(running, made.client("odd", version=version))
    running.wait_until(f"no line says {said!r}", lambda: said in running.log(), 5)
