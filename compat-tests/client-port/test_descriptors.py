"""The limit of open descriptors: raised as far as it goes, and never used up by connections, so that files find theirs."""
import contextlib
import os
import socket
import subprocess

import pytest
from harness.server import IS_JAVA, Server
from harness.wire import CREATE, EXISTS, SET, Raw, Session, create, set_data, watched

pytestmark = pytest.mark.skipif(IS_JAVA, reason="it is about this server's limits")
SILENT = 400


class Limited(Server):
    """A server with these soft and hard limits of open descriptors."""

    def __init__(self, limits, settings=None):
        super().__init__({"preAllocSize": "64", **(settings or {})})
        self.limits = limits

    def command(self):
        return ["prlimit", f"--nofile={self.limits}", *super().command()]

    def figure(self, name):
        return next(line.split("\t")[1] for line in self.word("mntr").splitlines() if line.startswith(f"zk_{name}\t"))


def test_the_soft_limit_is_raised_to_the_hard_one():
    with Limited("200:4000") as server:
        assert server.figure("max_file_descriptor_count") == "4000"
        assert "from 200 to 4000" in server.log()


def test_silent_connections_leave_descriptors_for_the_log():
    with Limited("256:256", {"snapCount": "100"}) as server, contextlib.ExitStack() as silent:
        session = Session(server.port)
        assert session.call(CREATE, create("/d", b"0"))[1] == 0
        for _ in range(SILENT):
            silent.enter_context(contextlib.closing(socket.create_connection(("127.0.0.1", server.port), timeout=5)))
        for number in range(500):
            assert session.call(SET, set_data("/d", str(number).encode()))[1] == 0
        assert len(list(server.files.glob("log.*"))) > 3, "the log has rolled"
        assert len(list(server.files.glob("snapshot.*"))) > 2
        assert server.process.poll() is None
        assert server.log().count("ulimit -n") == 1, "it is told, and not for each"
        silent.close()
        server.wait_until_serving()
        session.close()


def test_a_port_without_descriptors_rests_and_recovers():
    with Server() as server, contextlib.ExitStack() as stack:
        # Some of them live on the thread that accepts, and wake it.
        sessions = [stack.enter_context(Session(server.port)) for _ in range(4)]
        path = f"/proc/{server.process.pid}/fd"
        limit = ["prlimit", f"--pid={server.process.pid}"]
        subprocess.run([*limit, f"--nofile={len(os.listdir(path))}:"], check=True)
        waiting = Raw(server.port)
        for _ in range(500):
            for session in sessions:
                assert session.call(EXISTS, watched("/"))[1] == 0
        told = server.log().count("cannot accept connections")
        print(f"2000 requests meanwhile: told {told} times")
        assert told == 1
        subprocess.run([*limit, "--nofile=4000:"], check=True)
        waiting.send(b"ruok")
        assert waiting.receive(4) == b"imok"
