"""What a server does with lines and flags: those that Apache does not read, those that ask for more than is there, and addresses that
mean the same. SERVER=java runs what can be compared against Java's server."""
import os
import shutil
import socket
import subprocess

import pytest
from harness.server import BINARY, IS_JAVA, Server, free_port
from harness.wire import CREATE, GET, Closed, Session, create, watched

NO_AUTH = -102
AUTH = 100
SUPER = "super:D/InIHSb7yEEbrWz8b9l71RjZJU="


def refusal(settings, flags=None, seconds=20):
    """What a server says that does not start; "" if it does."""
    server = Server(settings, flags)
    try:
        server.start()
        return ""
    except AssertionError as ended:
        return str(ended)
    finally:
        server.stop()
        shutil.rmtree(server.dir, ignore_errors=True)


def test_lines_that_apache_does_not_read_have_no_effect():
    """A line that was dead for years does not come to life: not the one that opens every ACL, not the one that peers can't read."""
    dead = {"zookeeper.skipACL": "yes", "zookeeper.DigestAuthenticationProvider.superDigest": SUPER, "jute.maxbuffer": "8388608",
            "readonlymode.enabled": "true", "zookeeper.enforceQuota": "true", "zookeeper.4lw.commands.whitelist": "*"}
    with Server({**dead, "4lw.commands.whitelist": "srvr"}) as server, Session(server.port) as session:
        assert session.call(CREATE, create("/closed", b"secret", acls=[(16, "world", "anyone")]))[1] == 0
        assert session.call(GET, watched("/closed"))[1] == NO_AUTH
        # Closed while it is being sent, or after.
        with pytest.raises((Closed, ConnectionError)), Session(server.port) as large:
            large.call(CREATE, create("/large", bytes(3_000_000)))
        assert "imok" not in server.word("ruok") and "rw" != server.word("isro")
        if not IS_JAVA:
            for key, flag in {"zookeeper.skipACL": "-Dzookeeper.skipACL=", "jute.maxbuffer": "-Djute.maxbuffer="}.items():
                assert any("WARN" in line and f"{key} has no effect" in line and flag in line for line in server.log().splitlines()), key


def test_what_lines_do_not_do_flags_do():
    with Server({}, {"zookeeper.skipACL": "yes", "jute.maxbuffer": "4194304"}) as server, Session(server.port) as session:
        assert session.call(CREATE, create("/closed", b"secret", acls=[(16, "world", "anyone")]))[1] == 0
        assert session.call(GET, watched("/closed"))[1] == 0
        assert session.call(CREATE, create("/large", bytes(3_000_000)))[1] == 0


@pytest.mark.parametrize("settings, said", [
    ({"sslQuorum": "true"}, "no TLS between servers"),
    ({"portUnification": "true"}, "no TLS between servers"),
    ({"quorum.auth.enableSasl": "true"}, "no SASL between servers"),
    ({"quorum.auth.serverRequireSasl": "true"}, "no SASL between servers"),
    ({"quorum.auth.learnerRequireSasl": "true"}, "no SASL between servers"),
    ({"audit.enable": "true"}, "no audit log"),
    ({"fips-mode": "true"}, "FIPS"),
    ({"enforce.auth.enabled": "true"}, "enforce.auth.schemes"),
    ({"enforce.auth.enabled": "true", "enforce.auth.schemes": "digits"}, 'there is no scheme "digits"'),
    ({"enforce.auth.enabled": "true", "enforce.auth.schemes": "sasl"}, 'there is no scheme "sasl"'),
    ({"sessionRequireClientSASLAuth": "true"}, "authProvider.1=org.apache.zookeeper.server.auth.SASLAuthenticationProvider"),
], ids=lambda value: next(iter(value)) if isinstance(value, dict) else "")
def test_a_protection_that_is_not_there_stops_the_start(settings, said):
    if IS_JAVA and not {"enforce.auth.enabled", "sessionRequireClientSASLAuth"} & set(settings):
        pytest.skip("Java has it, or misses its keys and accounts")
    words = refusal(settings)
    assert words, "it starts"
    if not IS_JAVA:
        key = list(settings)[-1]
        assert f"{key}=" in words and "zoo.cfg:" in words and said in words, words


@pytest.mark.parametrize("settings, said", [
    ({"maxClientCnxns": "many"}, 'zoo.cfg:3: maxClientCnxns="many": expected a whole number from 0 to 2147483647'),
    ({"server.x": "127.0.0.1:1:2"}, "zoo.cfg:6: server.x: expected server.<id> with a number, e.g. server.1"),
    ({"server.1": "127.0.0.1:1:99999"}, 'zoo.cfg:6: server.1="127.0.0.1:1:99999": expected ports from 0 to 65535, not 99999'),
    ({"dataDir": __file__}, f"zoo.cfg:1: dataDir={__file__} is a file, not a directory"),
], ids=lambda value: next(iter(value)) if isinstance(value, dict) else "")
def test_a_mistake_is_named_with_what_is_expected(settings, said):
    if IS_JAVA:
        pytest.skip("Java says it with a stack trace")
    words = refusal(settings)
    assert said in words, words


def test_values_that_ask_for_no_protection_are_silent():
    off = ["sslQuorum", "portUnification", "quorum.auth.enableSasl", "quorum.auth.serverRequireSasl", "audit.enable", "fips-mode",
           "enforce.auth.enabled", "sessionRequireClientSASLAuth", "localSessionsEnabled", "ssl.crl", "admin.enableServer"]
    with Server({key: "false" for key in off} | {"admin.serverPort": "8080"}) as server:
        assert not [line for line in server.log().splitlines() if IS_JAVA or "WARN" in line or "has no effect" in line]


def test_what_is_not_there_is_told_once():
    if IS_JAVA:
        pytest.skip("Java has it")
    adds = {"admin.enableServer": "true", "localSessionsEnabled": "true", "observerMasterPort": "2191", "oraclePath": "/tmp/oracle",
            "skipACL": "yes",
            "metricsProvider.className": "org.apache.zookeeper.metrics.prometheus.PrometheusMetricsProvider"}
    harmless = {"nio.numWorkerThreads": "3", "metricsProvider.httpPort": "7000", "serverCnxnFactory": "any"}
    with Server({**adds, **harmless, "ki\x00ll": "secret"}, {"zookeeper.maxResponseCacheSize": "3", "zookeeper.server.realm": "EXAMPLE.COM"}) as server:
        lines = server.log().splitlines()
        for keys, level in (adds, "WARN"), (harmless | {"maxResponseCacheSize": "", "server.realm": ""}, "INFO"):
            for key in keys:
                assert [level in line for line in lines if f": {key}" in line] == [True], (key, lines)
        assert any("WARN" in line and r"ki\0ll is not known" in line for line in lines)
        assert "\0" not in server.log() and "secret" not in server.log()


@pytest.mark.parametrize("address, own", [("localhost", "127.0.0.1:"), ("127.0.0.1", "localhost:"), ("::", ""), ("0.0.0.0", "127.0.0.1:")])
def test_client_addresses_of_one_server_agree_by_what_they_mean(address, own, tmp_path):
    server = Server({"clientPortAddress": address, "initLimit": "5", "syncLimit": "5"}, data=tmp_path)
    (tmp_path / "data").mkdir()
    (tmp_path / "data/myid").write_text("1\n")
    server.settings["server.1"] = f"127.0.0.1:{free_port()}:{free_port()};{own}{server.port}"
    with server:
        assert server.word("ruok") == "imok"


@pytest.fixture
def dual_localhost(tmp_path):
    """A command before the server's, so that localhost has both families there, the newer one first."""
    hosts = tmp_path / "hosts"
    hosts.write_text("::1 localhost ip6-localhost\n127.0.0.1 localhost\n")
    before = ["unshare", "--mount", "--map-root-user", "sh", "-c", f'mount --bind {hosts} /etc/hosts && exec "$@"', "sh"]
    if subprocess.run([*before, "true"], capture_output=True).returncode or not os.path.exists("/proc/net/if_inet6"):
        pytest.skip("no other /etc/hosts can be laid over this one here")
    return before


def test_localhost_with_both_families_is_bound_to_ipv4(dual_localhost):
    class Inside(Server):
        def command(self):
            return [*dual_localhost, *super().command()]

    with Inside({"clientPortAddress": "localhost"}) as server:
        assert server.word("ruok", "127.0.0.1") == "imok"


def test_a_client_address_without_a_name_is_this_machine_alone():
    with Server({"clientPortAddress": "", "maxClientCnxns": "-1", "autopurge.purgeInterval": "-1", "globalOutstandingLimit": "0",
                 "preAllocSize": "-1"}) as server:
        with Session(server.port) as session:
            assert session.call(CREATE, create("/a", b""))[1] == 0
        with pytest.raises(OSError):
            server.word("ruok", "127.0.0.2")


def test_one_voter_with_observers_is_refused_or_an_ensemble(tmp_path):
    settings = {"initLimit": "5", "syncLimit": "5", "server.1": f"127.0.0.1:{free_port()}:{free_port()}",
                "server.2": f"127.0.0.1:{free_port()}:{free_port()}:observer"}
    assert refusal(settings), "it starts, and its observer never joins"
    server = Server({**settings, "standaloneEnabled": "false"}, data=tmp_path)
    (tmp_path / "data").mkdir()
    (tmp_path / "data/myid").write_text("1\n")
    with server:
        assert "Mode: leader" in server.word("srvr")


def test_a_file_may_begin_with_a_mark_and_end_its_lines_by_cr(tmp_path):
    if IS_JAVA:
        pytest.skip("Java takes the mark for a part of the first key")
    for mark, end in [("\ufeff", "\n"), ("", "\r"), ("\ufeff", "\r\n")]:
        server = Server(data=tmp_path)
        server.command()
        config = tmp_path / "zoo.cfg"
        text = mark + config.read_text().replace("\n", end)
        server.command = lambda text=text: (config.write_bytes(text.encode()), [BINARY, "serve", str(config)])[1]
        with server:
            assert server.word("ruok") == "imok"


@pytest.mark.parametrize("level, lines", [("inof", True), ("verbose", True), ("", True), ("zabra", True), ("zabra::zab=debug", True), ("off", False)])
def test_a_level_that_is_not_understood_leaves_the_log_on(level, lines, monkeypatch):
    if IS_JAVA:
        pytest.skip("Java's log has a file of its own")
    monkeypatch.setenv("ZABRA_LOG", level)
    with Server() as server:
        server.wait_until("a log", lambda: not lines or "serving clients" in server.log(), 5)
        assert bool(server.log()) == lines
        assert ("is not understood" in server.log()) == (level in ("inof", "verbose", "zabra"))
