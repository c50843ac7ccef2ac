"""Control groups for processes under test, below the one that the test itself is in: nothing leaves the limits that it has."""
import os
import pathlib
import time

PROC = pathlib.Path("/proc/self")


class NoGroups(Exception):
    """This machine allows none, for this reason."""


def own_group(controller):
    """The directory of the group that this process is in (`""`: version 2)."""
    name = next((line.split(":", 2)[2] for line in (PROC / "cgroup").read_text().splitlines()
                 if controller in line.split(":", 2)[1].split(",")), None)
    for line in (PROC / "mountinfo").read_text().splitlines():
        fields, options = (part.split() for part in line.split(" - ", 1))
        of_it = options[0] == "cgroup2" if not controller else options[0] == "cgroup" and controller in options[-1].split(",")
        if name is not None and of_it:
            inside = os.path.relpath(name, fields[3])
            return pathlib.Path(fields[4]) / ("." if inside.startswith("..") else inside)
    raise NoGroups(f"no control groups with {controller or 'version 2'} are mounted")


class Group:
    """A group with a limit of memory (in bytes; its page cache counts) and a share of a CPU."""

    def __init__(self, name, memory, cpu):
        self.dirs = []
        quota = int(cpu * 100_000)
        try:
            if self.is_second():
                self.make(self.parent() / name, {"memory.max": memory, "memory.swap.max": 0, "cpu.max": f"{quota} 100000"})
            else:
                self.make(own_group("memory") / name, {"memory.limit_in_bytes": memory})
                self.make(own_group("cpu") / name, {"cpu.cfs_period_us": 100_000, "cpu.cfs_quota_us": quota})
        except OSError as error:
            self.remove()
            raise NoGroups(str(error)) from error

    @staticmethod
    def is_second():
        try:
            own_group("memory")
            return False
        except NoGroups:
            return True

    @staticmethod
    def parent():
        """A group below which others can have limits: none that has processes of its own, but for the root."""
        own, why = own_group(""), None
        for group in (own, own.parent):
            try:
                (group / "cgroup.subtree_control").write_text("+memory +cpu")
                return group
            except OSError as error:
                why = error
        raise why

    def make(self, path, limits):
        path.mkdir()
        self.dirs.append(path)
        for file, value in limits.items():
            if (path / file).exists() or "swap" not in file:
                (path / file).write_text(str(value))

    def wrap(self, command):
        """The command, run by a process of this group."""
        files = [str(path / "cgroup.procs") for path in self.dirs]
        enter = 'while [ "$1" != -- ]; do echo $$ > "$1" || exit 1; shift; done; shift; exec "$@"'
        return ["sh", "-c", enter, "sh", *files, "--", *command]

    def read(self, *names):
        return next(path.read_text() for path in self.dirs for path in [path / name for name in names] if path.exists())

    def peak(self):
        """The most bytes that it had at once: what was mapped or read, too."""
        return int(self.read("memory.max_usage_in_bytes", "memory.peak", "memory.current"))

    def killed(self):
        """How many of its processes were ended for want of memory."""
        lines = dict(line.split() for line in self.read("memory.oom_control", "memory.events").splitlines())
        return int(lines["oom_kill"])

    def remove(self):
        """Its processes have ended. The system may need a moment to see that."""
        deadline = time.monotonic() + 10
        while self.dirs:
            try:
                self.dirs[-1].rmdir()
                self.dirs.pop()
            except OSError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.02)
