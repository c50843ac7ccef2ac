"""What came of a suite's tests on one server, compared with what is expected there."""
import os
import pathlib
import sys
from dataclasses import dataclass, replace

HERE = pathlib.Path(__file__).resolve().parent
SERVER = os.environ.get("SERVER", "zabra")
SERVE = HERE / "serve"

STATUSES = {"fails": "failed", "skips": "skipped"}


@dataclass(frozen=True)
class Outcome:
    """`status` is passed, failed or skipped; `again` says that it passed only when it ran a second time."""

    name: str
    status: str
    reason: str = ""
    again: bool = False


class Expected:
    """
    The lines of a suite's `expected.txt`: server (java, zabra or both), what the test does there, its name, and why. It fails,
    skips itself, is flaky (may fail once, and then passes), or is left out: not run at all. What is not in there passes.
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
        return outcome.status == STATUSES.get(does, "passed") and (does == "flaky" or not outcome.again)

    def why(self, name):
        return self.entries.get(name, ("", ""))[1]


def second_try(expected, outcomes, run):
    """
    The outcomes, where each test that failed and should not have ran once more: `run` takes their names. Only one that is
    said to be flaky may fail the first time; but what the others do tells a race from what is broken.
    """
    first = {outcome.name: outcome for outcome in outcomes}
    failed = [name for name, outcome in first.items() if outcome.status == "failed" and not expected.allows(outcome)]
    if not failed:
        return list(first.values())
    print("once more:", *failed, flush=True)
    for outcome in run(failed):
        if outcome.name not in first:
            first[outcome.name] = replace(outcome, again=outcome.status == "passed")
        elif outcome.name in failed and outcome.status == "passed":
            first[outcome.name] = replace(first[outcome.name], status="passed", again=True)
    return list(first.values())


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
        if outcome.again:
            print(f"again     {outcome.name}: passed when it ran a second time; first: {outcome.reason[:300]}")
        elif outcome.status != "passed":
            why = expected.why(outcome.name)
            print(f"{outcome.status:8}  {outcome.name}: {outcome.reason[:300]}" + (f" [{why}]" if why else ""))
        if not expected.allows(outcome):
            does = expected.entries.get(outcome.name, ("passes", ""))[0]
            how = "passed at the second try" if outcome.again else outcome.status
            differences.append(f"{outcome.name} {how}, expected: {does}")
    if whole:
        differences += [f"{name} did not run" for name in sorted(set(expected.entries) - set(names))]

    target = directory / "target"
    target.mkdir(exist_ok=True)
    (target / f"outcomes.{SERVER}.tsv").write_text("".join(f"{one.status}\t{one.name}\t{int(one.again)}\n" for one in outcomes))
    for difference in differences:
        print(f"differs   {difference}")
    counts = {status: sum(outcome.status == status for outcome in outcomes) for status in ("passed", "failed", "skipped")}
    print(f"{directory.name} on {SERVER}: {len(expected.left_out)} left out, {len(differences)} different from what is expected")
    counts["passed at the second try"] = sum(outcome.again for outcome in outcomes)
    print(", ".join(f"{status} {count}" for status, count in counts.items()), flush=True)
    if not counts["passed"]:
        print("nothing passed: no test ran, or no server", file=sys.stderr)
        return 1
    return 1 if differences else 0
