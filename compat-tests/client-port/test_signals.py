"""No signal ends a server without a stop, but those that no process can take; and the log goes where an operator wants it."""
import json
import signal
import subprocess

import pytest
from harness.server import BINARY, IS_JAVA, Server, await_that
from harness.wire import CREATE, Session, create

pytestmark = pytest.mark.skipif(IS_JAVA, reason="Java's server takes other signals, and logs by log4j's or logback's files")


class Logged(Server):
    """A server with more words on its command line."""

    words = []

    def command(self):
        return [*super().command(), *self.words]


@pytest.fixture
def logged(tmp_path):
    """A function that starts a server with these words, whose log is in a file."""
    started = []

    def start(*words):
        server = Logged({})
        server.words = ["--log-file", str(tmp_path / "zabra.log"), *words]
        server.__enter__()
        started.append(server)
        return server, tmp_path / "zabra.log"

    yield start
    for server in started:
        server.__exit__(None, None, None)


@pytest.mark.parametrize("which", [signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2], ids=lambda which: which.name)
def test_a_signal_that_is_no_end_is_none(logged, which):
    server, log = logged()
    server.process.send_signal(which)
    await_that(lambda: f"signal={which.name}" in log.read_text(), "it is logged")
    with Session(server.port) as session:
        assert session.call(CREATE, create("/goes-on"))[1] == 0
    server.process.send_signal(signal.SIGTERM)
    assert server.process.wait(10) == 0
    assert "stopped; everything acknowledged is on disk" in log.read_text()


@pytest.mark.parametrize("which", [signal.SIGHUP, signal.SIGUSR1], ids=lambda which: which.name)
def test_a_log_that_was_moved_away_is_opened_again(logged, which):
    server, log = logged()
    moved = log.rename(log.with_name("moved.log"))
    server.process.send_signal(which)
    await_that(lambda: log.exists() and "the log is open again" in log.read_text(), "there is a new one")
    assert "serving clients" in moved.read_text() and "serving clients" not in log.read_text()


def test_every_thread_says_what_it_is_at(logged):
    server, log = logged()
    server.process.send_signal(signal.SIGQUIT)
    await_that(lambda: log.read_text().count(" thread=") > 3, "there are lines")
    lines = log.read_text()
    assert 'thread="log-lines"' in lines and "at=futex" in lines and "at=epoll_wait" in lines, lines


def test_debug_lines_come_and_go(logged):
    server, log = logged()

    def debug_lines():
        with Session(server.port) as session:
            session.call(CREATE, create("/some"))
        return log.read_text().count(" DEBUG ")

    for state in ["on", "off"]:
        server.process.send_signal(signal.SIGUSR2)
        await_that(lambda: f"debug lines are {state}" in log.read_text(), state)
        if state == "on":
            await_that(debug_lines, "a connection's end is a line of this level")
    before = debug_lines()
    for _ in range(5):
        debug_lines()
    assert debug_lines() == before


def test_lines_are_objects_where_json_is_asked_for(logged):
    server, log = logged("--log-format", "json")
    server.process.send_signal(signal.SIGHUP)
    await_that(lambda: "SIGHUP" in log.read_text(), "it is logged")
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert all({"timestamp", "level", "message"} <= line.keys() for line in lines), lines


def test_a_log_that_can_not_be_opened_stops_the_start(tmp_path):
    words = [BINARY, "serve", "--log-file", tmp_path / "nowhere" / "zabra.log"]
    run = subprocess.run(words, capture_output=True, text=True, timeout=30, cwd=tmp_path)
    assert run.returncode == 1 and "nowhere/zabra.log" in run.stderr, run
