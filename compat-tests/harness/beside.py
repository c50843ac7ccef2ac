"""How long others wait: a client that writes beside what is done to a server, and the longest of its waits."""
import threading
import time

from harness.wire import CREATE, SET, create, set_data

NODE_EXISTS = -110


class Beside:
    """`session` writes without a pause until the end of the block. What comes before `mark()` tells what disk and machine cost
    alone, in calm."""

    def __init__(self, session):
        self.session = session
        self.path = f"/beside-{session.session:x}"
        assert session.call(CREATE, create(self.path))[1] in (0, NODE_EXISTS)
        # When each wait ended, and how long it was, in seconds.
        self.waits = []
        self.marked = 0
        self.failed = None
        self.is_over = threading.Event()
        self.thread = threading.Thread(target=self.write)

    def write(self):
        try:
            while not self.is_over.is_set():
                began = time.monotonic()
                assert self.session.call(SET, set_data(self.path, b"x" * 100))[1] == 0
                ended = time.monotonic()
                self.waits.append((ended, ended - began))
        except Exception as error:  # noqa: BLE001: the block's end raises it
            self.failed = error

    def mark(self):
        """Now it begins."""
        self.marked = time.monotonic()

    def after_calm(self, seconds=1.0):
        """Writes for a while in calm; then it begins."""
        self.is_over.wait(seconds)
        self.mark()

    @property
    def calm_ms(self):
        return max((wait for ended, wait in self.waits if ended <= self.marked), default=0) * 1000

    @property
    def longest_ms(self):
        return max(wait for ended, wait in self.waits if ended > self.marked) * 1000

    def __str__(self):
        count = sum(ended > self.marked for ended, _ in self.waits)
        return f"another client's writes waited {self.longest_ms:.1f} ms at the longest ({count} writes; {self.calm_ms:.1f} ms in calm)"

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, kind, *_):
        self.is_over.set()
        self.thread.join(120)
        if kind is None and self.failed:
            raise self.failed


def wait_while(holds, seconds):
    """There is no event to await in another process but the next answer."""
    deadline = time.monotonic() + seconds
    while holds():
        assert time.monotonic() < deadline, f"still so after {seconds} s"
        time.sleep(0.02)
