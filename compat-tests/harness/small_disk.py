"""Small file systems for tests of full disks: an image in a file for each, or memory; and a file that fills one."""
import contextlib
import os
import subprocess

import pytest

# Each in the smallest size that its tool makes.
KINDS = {
    "ext4": ("48M", ["mkfs.ext4", "-q", "-F", "-O", "^has_journal"]),
    "xfs": ("320M", ["mkfs.xfs", "-q", "-f"]),
    "btrfs": ("128M", ["mkfs.btrfs", "-q", "-f", "--mixed"]),
    "tmpfs": ("48M", None),
}


@contextlib.contextmanager
def mounted(kind, at, image):
    """Mounts a new one there. Where that cannot be, the test is skipped."""
    size, make = KINDS[kind]
    at.mkdir(parents=True, exist_ok=True)
    if make is None:
        tool, mount = None, ["mount", "-t", kind, "-o", f"size={size}", kind, str(at)]
    else:
        subprocess.run(["truncate", "-s", size, str(image)], check=True)
        tool, mount = [*make, str(image)], ["mount", "-o", "loop", str(image), str(at)]
    for command in filter(None, [tool, mount]):
        try:
            done = subprocess.run(command, capture_output=True, text=True)
        except FileNotFoundError as error:
            pytest.skip(f"no {kind} can be made here: {error}")
        if done.returncode != 0:
            pytest.skip(f"no {kind} can be mounted here: {done.stderr}")
    try:
        yield at
    finally:
        subprocess.run(["umount", str(at)], check=True)


def free(directory):
    found = os.statvfs(directory)
    return found.f_bavail * found.f_frsize


class Ballast:
    """A file that leaves this many bytes free, or as few more as the file system grants."""

    def __init__(self, directory, leaves):
        self.path = directory / "ballast"
        self.path.touch()
        self.grow(1 << 20, leaves)

    def fill(self):
        """To the last block."""
        self.grow(1 << 20, 0)

    def grow(self, step, leaves):
        with open(self.path, "ab") as file:
            while step >= 4096 and free(self.path.parent) > leaves:
                try:
                    # What root may use beyond that counts for nobody else.
                    os.posix_fallocate(file.fileno(), os.fstat(file.fileno()).st_size, step)
                except OSError:
                    step //= 2

    def remove(self):
        directory = self.path.parent
        self.path.unlink()
        # Some file systems have the room once the removal is on the disk.
        fd = os.open(directory, os.O_RDONLY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)
        os.sync()
