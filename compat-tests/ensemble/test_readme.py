"""The README's commands as they are, in a network of their own: its ports are free there."""
import os
import pathlib
import re
import signal
import subprocess
import sys

import pytest
from harness.server import BINARY, ROOT
from members import die_with_parent
from net import is_possible, own_namespaces

README = (ROOT / "README.md").read_text()
pytestmark = pytest.mark.skipif(not is_possible(), reason="needs root, for a network of its own")


def block(language, begin):
    """The block of code in which `begin` is found."""
    found = [text for text in re.findall(rf"```{language}\n(.*?)```", README, re.S) if begin in text]
    assert len(found) == 1, f"{len(found)} blocks have {begin!r}"
    return found[0]


def end(pid):
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        pass


def test_a_server_runs_and_a_client_talks_to_it(tmp_path):
    cargo, arguments = block("sh", "cargo run").strip().split(" -- ")
    assert cargo == "cargo run --release", "the binary that is built"
    talk = block("python", "KazooClient")
    with own_namespaces():
        log = tmp_path / "log"
        with open(log, "wb") as out:
            command = [BINARY, *arguments.split()]
            server = subprocess.Popen(command, cwd=tmp_path, stdout=out, stderr=out, preexec_fn=die_with_parent)
        try:
            # The client tries again until the server is there.
            said = subprocess.run([sys.executable, "-c", talk], capture_output=True, text=True, timeout=60)
        finally:
            end(server.pid)
            server.wait()
    print(said.stdout)
    assert said.stdout.startswith("(b'world', ZnodeStat(czxid=2, mzxid=2, "), said.stderr + log.read_text()
    assert (tmp_path / "zabra-data/version-2").is_dir()


def test_three_servers_outlive_their_leader(tmp_path):
    (tmp_path / "target/release").mkdir(parents=True)
    (tmp_path / "target/release/zabra").symlink_to(BINARY)
    script = block("sh", "server.1=127.0.0.1") + "echo then\n" + block("sh", "kill -9")
    with own_namespaces():
        try:
            run = subprocess.run(["bash", "-c", script], cwd=tmp_path, capture_output=True, text=True, timeout=120)
        finally:
            for file in pathlib.Path(tmp_path / "trio").glob("*.pid"):
                end(int(file.read_text()))
    print(run.stdout)
    logs = "".join(file.read_text() for file in (tmp_path / "trio").glob("*.log"))
    first, then = run.stdout.split("then\n")
    for said, servers in ((first, 3), (then, 2)):
        assert said.count("Mode: ") == said.count("server ") == servers, run.stderr + logs
        assert said.count("Mode: leader") == 1, run.stderr + logs
    epoch = [int(said.split("Zxid: 0x")[1].split()[0], 16) >> 32 for said in (first, then)]
    assert epoch[1] > epoch[0]
