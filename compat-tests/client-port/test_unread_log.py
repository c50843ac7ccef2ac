"""Nobody reads what a server logs: it serves all the same, and ends when it is asked to."""
import os
import re
import subprocess

from harness.server import IS_JAVA, Server
from harness.wire import CREATE, EXISTS, Session, create, watched

import pytest

pytestmark = pytest.mark.skipif(IS_JAVA, reason="logback writes to a file")


class Unread(Server):
    """Its standard error is a pipe that was full before."""

    def start(self, wait=True):
        self.reader, writer = os.pipe()
        os.set_blocking(writer, False)
        self.filled = 0
        for size in (4096, 1):
            try:
                while True:
                    self.filled += os.write(writer, size * b".")
            except BlockingIOError:
                pass
        os.set_blocking(writer, True)
        self.process = subprocess.Popen(self.command(), stdout=subprocess.DEVNULL, stderr=writer, env={**os.environ, "ZABRA_LOG": "debug"})
        os.close(writer)
        try:
            self.wait_until_serving(10)
        except BaseException:
            self.kill()
            raise
        return self


def test_a_server_whose_log_nobody_reads_serves_and_says_later_what_was_lost():
    with Unread() as server:
        with Session(server.port) as session:
            assert session.call(CREATE, create("/a"))[1] == 0
        # Each leaves a line.
        for _ in range(100):
            with Session(server.port) as session:
                assert session.call(EXISTS, watched("/a"))[1] == 0
        server.process.terminate()
        assert server.process.wait(10) == 0
        with os.fdopen(server.reader, "rb") as reader:
            left = reader.read()[server.filled:].decode()
        # What was in the pipe is all that there was room for.
        assert left == "", left


def test_a_log_that_is_read_late_comes_in_order():
    with Unread() as server:
        os.read(server.reader, server.filled)
        os.set_blocking(server.reader, False)
        text = b""

        def has_come():
            nonlocal text
            try:
                text += os.read(server.reader, 1 << 20)
            except BlockingIOError:
                pass
            return b"serving clients" in text
        server.wait_until("no line comes", has_come, 10)
        os.set_blocking(server.reader, True)
        server.process.terminate()
        with os.fdopen(server.reader, "rb") as reader:
            lines = (text + reader.read()).decode().splitlines()
        assert server.process.wait(10) == 0
        starts, serves, stopped = (next(at for at, line in enumerate(lines) if re.search(what, line))
                                   for what in (r"zabra \S+ starting", "serving clients", "stopped; everything"))
        assert starts < serves < stopped, lines
