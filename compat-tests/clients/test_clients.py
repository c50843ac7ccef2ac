"""The official Java client, its zkCli, and the official C client, each as a process against the server."""
import os
import subprocess

import pytest
from harness.server import HERE, JAVA_CLASSPATH, Server

# super:test
SUPER_DIGEST = "super:D/InIHSb7yEEbrWz8b9l71RjZJU="


@pytest.fixture(scope="module")
def full_server():
    settings = {
        "extendedTypesEnabled": "true",
        "enforceQuota": "true",
        "DigestAuthenticationProvider.superDigest": SUPER_DIGEST,
    }
    with Server(settings, {"znode.container.checkIntervalMs": "200"}) as server:
        yield server


def run(command, seconds, **rest):
    done = subprocess.run(command, capture_output=True, text=True, timeout=seconds, **rest)
    print(done.stdout, done.stderr)
    return done


def java(*arguments):
    return ["java", f"-Dlogback.configurationFile={HERE}/clients/logback.xml", "-cp", JAVA_CLASSPATH, *arguments]


def test_java_client(full_server):
    done = run(java(str(HERE / "clients/ClientTest.java"), full_server.hosts), 240)
    assert done.returncode == 0, done.stdout


def test_c_client(full_server, tmp_path):
    binary = tmp_path / "client"
    source = str(HERE / "clients/client.c")
    run(["gcc", "-Wall", "-Wextra", "-DTHREADED", "-o", str(binary), source, "-lzookeeper_mt", "-lpthread"], 60, check=True)
    done = run([str(binary), full_server.hosts], 120)
    assert done.returncode == 0, done.stdout


SCRIPT = """\
create /cli one
create -s /cli/s- seq
create -e /cli/e eph
create -c /cli/c
create -t 60000 /cli/t ttl
get -s /cli
set -v 0 /cli two
get /cli
stat /cli
ls -s /cli
ls -R /cli
addauth digest cli:pw
whoami
create /cli/private secret auth::cdrwa
getAcl /cli/private
setAcl /cli/private world:anyone:r
getAcl -s /cli/private
setquota -n 10 /cli
listquota /cli
delquota /cli
getEphemerals /cli
getAllChildrenNumber /cli
sync /cli
addWatch -m PERSISTENT /cli
set /cli three
removewatches /cli
config
version
delete /cli/t
deleteall /cli/c
create /cli/nope/x
quit
"""


def test_zkcli(full_server):
    done = run(java("org.apache.zookeeper.ZooKeeperMain", "-server", full_server.hosts), 120, input=SCRIPT)
    text = done.stdout + done.stderr
    for line in [
        "Created /cli", "Created /cli/s-0000000000", "Created /cli/e", "Created /cli/c", "Created /cli/t",
        "one", "cZxid = 0x", "dataVersion = 0", "numChildren = 4", "two", "dataVersion = 1",
        "[c, e, s-0000000000, t]", "/cli/s-0000000000", "digest: cli", "'digest,'cli:", ": cdrwa", "'world,'anyone", ": r",
        "aclVersion = 1", "Output quota for /cli count=10,bytes=-1", "[/cli/e]", "5", "Sync is OK",
        "WATCHER::", "type:NodeDataChanged path:/cli", "ZooKeeper CLI version: 3.9.5", "Node does not exist: /cli/nope/x",
    ]:
        assert line in text, f"{line!r} is missing in:\n{text}"
