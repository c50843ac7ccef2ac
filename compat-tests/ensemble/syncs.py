"""What a disk takes for a sync, beside a test of how long something else takes."""
import os
import pathlib
import threading
import time

# A sync of an idle disk takes less.
USUAL = 0.02
PAUSE = 0.005


class Syncs:
    """Writes a byte and syncs it, again and again, in a file next to the servers' own."""

    def __init__(self, directory):
        self.path = pathlib.Path(directory) / "syncs"
        self.slow = []
        self.begun = None
        self.ended = threading.Event()
        self.thread = threading.Thread(target=self.run, daemon=True)

    def run(self):
        file = os.open(self.path, os.O_CREAT | os.O_WRONLY, 0o600)
        try:
            while not self.ended.wait(PAUSE):
                self.begun = time.monotonic()
                os.pwrite(file, b"x", 0)
                os.fsync(file)
                begun, self.begun, now = self.begun, None, time.monotonic()
                if now - begun > USUAL:
                    self.slow.append((begun, now))
        finally:
            os.close(file)

    def waited(self, since):
        """For how many seconds since then a sync took longer than usual; one that still runs counts."""
        now = time.monotonic()
        begun = self.begun
        running = [(begun, now)] if begun and now - begun > USUAL else []
        return sum(max(0, end - max(begun, since)) for begun, end in self.slow + running)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.ended.set()
        self.thread.join(60)
