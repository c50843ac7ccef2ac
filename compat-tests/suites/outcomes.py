"""What came of a suite's tests on one server, compared with what is expected there."""
import os
import pathlib
import sys
from dataclasses import dataclass

HERE = pathlib.Path(__file__).resolve().parent
SERVER = os.environ.get("SERVER", "zabra")
SERVE = HERE / "serve"

STATUSES = {"fails": "failed", "skips": "skipped"}


@dataclass(frozen=True)
class Outcome:
    """`status` is passed, failed or skipped."""

    name: str
    status: str
    reason: str = ""


class Expected:
    """
    The lines of a suite's `expected.txt`: server (java, zabra or both), what the test does there, its name, and why. It fails,
    skips itself, is flaky (may do either), or is left out: not run at all. What is not in there passes.
    """

    def __init__(self, directory):
        self.entries = {}
        self.left_out = {}
        path = directory / "expected.txt"
        for number, line in enumerate(path.read_text().splitlines() if path.exists() else [], 1):
            if not line.strip() or line.startswith("#"):
                continue
            server, does, name, why = line.split(None, 3)
            if server not in ("java", "zabra", "both") or does not in ("fails", "skips", "flaky", "left"):
                raise SystemExit(f"{path}:{number}: {line!r}")
            if server not in (SERVER, "both"):
                continue
            if does == "left":
                self.left_out[name] = why
            else:
                self.entries[name] = (does, why)

    def allows(self, outcome):
        does = self.entries.get(outcome.name, ("passes", ""))[0]
        if does == "flaky":
            return outcome.status in ("passed", "failed")
        return outcome.status == STATUSES.get(does, "passed")

    def why(self, name):
        return self.entries.get(name, ("", ""))[1]


def conclude(directory, outcomes, whole=True):
    """
    Prints the figures, every failure and skip with its reason, and what differs from what is expected; returns the exit code.
    `whole` says that the whole suite was to run.
    """
    directory = pathlib.Path(directory)
    expected = Expected(directory)
    outcomes = sorted(set(outcomes), key=lambda outcome: outcome.name)
    names = [outcome.name for outcome in outcomes]
    twice = {name for name in names if names.count(name) > 1}
    differences = [f"{name}: two outcomes" for name in sorted(twice)]

    for name, why in expected.left_out.items() if whole else ():
        print(f"left out  {name}: {why}")
    for outcome in outcomes:
        if outcome.status != "passed":
            why = expected.why(outcome.name)
            print(f"{outcome.status:8}  {outcome.name}: {outcome.reason[:300]}" + (f" [{why}]" if why else ""))
        if not expected.allows(outcome):
            does = expected.entries.get(outcome.name, ("passes", ""))[0]
            differences.append(f"{outcome.name} {outcome.status}, expected: {does}")
    if whole:
        differences += [f"{name} did not run" for name in sorted(set(expected.entries) - set(names))]

    target = directory / "target"
    target.mkdir(exist_ok=True)
    (target / f"outcomes.{SERVER}.tsv").write_text("".join(f"{one.status}\t{one.name}\n" for one in outcomes))
    for difference in differences:
        print(f"differs   {difference}")
    counts = {status: sum(outcome.status == status for outcome in outcomes) for status in ("passed", "failed", "skipped")}
    print(f"{directory.name} on {SERVER}: {len(expected.left_out)} left out, {len(differences)} different from what is expected")
    print(", ".join(f"{status} {count}" for status, count in counts.items()), flush=True)
    if not counts["passed"]:
        print("nothing passed: no test ran, or no server", file=sys.stderr)
        return 1
    return 1 if differences else 0
