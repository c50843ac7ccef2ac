"""One server as a process: a zoo.cfg on free ports, a data directory, stopped by its process id."""
import contextlib
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent.parent
ROOT = HERE.parent
IS_JAVA = os.environ.get("SERVER") == "java"
BINARY = os.environ.get("ZABRA_BIN", str(ROOT / "target/release/zabra"))
JAVA_CLASSPATH = str(HERE / "java/target/lib/*")


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def await_that(is_so, what, seconds=30):
    deadline = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < deadline, what
        # Of the other process there is no event but its next answer.
        time.sleep(0.005)


class Server:
    """`settings` are lines of the zoo.cfg; `flags` are -D flags, passed as a Java deployment passes them. `classpath` names
    another version of Java's server."""

    def __init__(self, settings=None, flags=None, data=None, java=IS_JAVA, classpath=JAVA_CLASSPATH):
        self.java = java
        self.classpath = classpath
        self.port = free_port()
        self.own_dir = data is None
        self.dir = pathlib.Path(data or tempfile.mkdtemp(prefix="zabra-test-"))
        self.log_path = self.dir / "server.log"
        self.settings = {
            "dataDir": str(self.dir / "data"),
            "tickTime": "500",
            "maxClientCnxns": "0",
            "4lw.commands.whitelist": "*",
            "admin.enableServer": "false",
            **(settings or {}),
        }
        self.flags = flags or {}
        self.process = None

    @property
    def hosts(self):
        return f"127.0.0.1:{self.port}"

    @property
    def files(self):
        return self.dir / "data" / "version-2"

    def command(self):
        config = self.dir / "zoo.cfg"
        lines = {**self.settings, "clientPort": str(self.port)}
        config.write_text("".join(f"{key}={value}\n" for key, value in lines.items()))
        if not self.java:
            return [BINARY, "serve", str(config)]
        logback = self.dir / "logback.xml"
        logback.write_text('<configuration><root level="ERROR"/></configuration>\n')
        flags = [f"-D{key}={value}" for key, value in self.flags.items()]
        return ["java", "-Xmx1g", f"-Dlogback.configurationFile={logback}", *flags, "-cp", self.classpath,
                "org.apache.zookeeper.server.quorum.QuorumPeerMain", str(config)]

    def start(self, wait=True):
        environment = {**os.environ}
        if not self.java:
            environment["SERVER_JVMFLAGS"] = " ".join(f"-D{key}={value}" for key, value in self.flags.items())
        with open(self.log_path, "ab") as log:
            self.process = subprocess.Popen(self.command(), stdout=log, stderr=log, env=environment)
        if wait:
            self.wait_until_serving()
        return self

    def wait_until_serving(self, seconds=30):
        """Asks `srvr` until it is answered."""
        self.wait_until("not serving", lambda: "Mode:" in self.word("srvr"), seconds)

    def wait_until_it_listens(self, port):
        """Java opens one port after the other."""
        self.wait_until(f"port {port} is closed", lambda: not socket.create_connection(("127.0.0.1", port), timeout=5).close(), 30)

    def wait_until(self, otherwise, is_there, seconds):
        """Asks until it is, and returns what was answered; a server that ended is an error at once."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                raise AssertionError(f"the server ended with {self.process.returncode}:\n{self.log()}")
            # There is no event to await across processes but the next try.
            with contextlib.suppress(OSError):
                if found := is_there():
                    return found
            time.sleep(0.01)
        raise AssertionError(f"{otherwise} after {seconds} s:\n{self.log()}")

    def word(self, word, host="127.0.0.1"):
        with socket.create_connection((host, self.port), timeout=5) as connection:
            connection.sendall(word.encode())
            chunks = []
            while chunk := connection.recv(65536):
                chunks.append(chunk)
        return b"".join(chunks).decode()

    def log(self):
        return self.log_path.read_text(errors="replace") if self.log_path.exists() else ""

    def resident_kb(self):
        status = pathlib.Path(f"/proc/{self.process.pid}/status").read_text()
        return int(next(line for line in status.splitlines() if line.startswith("VmRSS:")).split()[1])

    def kill(self):
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(30)

    def stop(self):
        if self.process and self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(30)
            except subprocess.TimeoutExpired:
                self.kill()

    def restart(self):
        self.stop()
        return self.start()

    def __enter__(self):
        return self.start()

    def __exit__(self, *_):
        self.stop()
        if self.own_dir:
            shutil.rmtree(self.dir, ignore_errors=True)
