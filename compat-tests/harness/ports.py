"""A server that listens in plain text and by TLS, and sessions on either port."""
import contextlib
import functools
import pathlib
import ssl
import subprocess
import tempfile

from harness.server import Server, free_port
from harness.wire import Raw, Session

NETTY = "org.apache.zookeeper.server.NettyServerCnxnFactory"


class Port:
    """One of the two: `session()` and `raw()` connect to it."""

    def __init__(self, number, tls=None):
        self.number = number
        self.session = functools.partial(Session, number, tls=tls)
        self.raw = functools.partial(Raw, number, tls=tls)


@contextlib.contextmanager
def on_both_ports(settings=None):
    """A running server; its `ports` are `plain` and `tls`."""
    with tempfile.TemporaryDirectory(prefix="zabra-keys-") as name:
        directory = pathlib.Path(name)
        key, certificate = directory / "server.key", directory / "server.pem"
        subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=localhost", "-days", "2",
                        "-keyout", key, "-out", certificate], check=True, capture_output=True)
        (directory / "keys.pem").write_text(key.read_text() + certificate.read_text())
        context = ssl.create_default_context(cafile=certificate)
        context.check_hostname = False
        secure = free_port()
        more = {"secureClientPort": str(secure), "serverCnxnFactory": NETTY, "ssl.keyStore.location": directory / "keys.pem",
                "ssl.trustStore.location": certificate, "ssl.clientAuth": "none"}
        with Server({**more, **(settings or {})}) as server:
            server.wait_until_it_listens(secure)
            server.ports = {"plain": Port(server.port), "tls": Port(secure, context)}
            yield server
