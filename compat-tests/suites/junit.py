"""Runs classes of JUnit tests of a Java project, each in a JVM of its own, with the servers they start in other processes."""
import os
import shutil
import signal
import subprocess
import sys
import time

from outcomes import HERE, SERVE, SERVER, Expected, Outcome, second_try
from packages import need

# A class may take this long, in seconds.
MOST = 900


class Classes:
    """The tests of `directory`: its pom.xml brings them, its src what stands in for some of their classes."""

    def __init__(self, directory):
        self.directory = directory
        self.lib = directory / "target/lib"
        self.classes = directory / f"target/classes.{SERVER}"

    def build(self):
        need(java="default-jdk-headless", javac="default-jdk-headless", mvn="maven")
        pom = self.directory / "pom.xml"
        stamp = self.lib / "pom.xml"
        if not stamp.exists() or stamp.read_bytes() != pom.read_bytes():
            shutil.rmtree(self.lib, ignore_errors=True)
            subprocess.run(["mvn", "--quiet", "--batch-mode", "-f", pom, "dependency:copy-dependencies", "-DoutputDirectory=target/lib"],
                           check=True)
            shutil.copy(pom, stamp)
        sources = [*(HERE / "java/src").rglob("*.java"), *(self.directory / "src").rglob("*.java")]
        shutil.rmtree(self.classes, ignore_errors=True)
        subprocess.run(["javac", "-nowarn", "-d", self.classes, "-cp", f"{self.lib}/*", *sources], check=True)

    def run_all(self, classes, chosen, flags):
        """
        The outcomes of the `chosen` classes, or of all but those left out; `classes` are full names by simple ones, `flags` gives
        the JVM's for a simple name. A class with a test that failed and should not have runs once more.
        """
        expected = Expected(self.directory)
        unknown = [name for name in [*chosen, *expected.left_out] if name not in classes and name.rpartition(".")[0] not in classes]
        if unknown:
            raise SystemExit(f"no such classes: {unknown}")
        found = []
        for name in chosen or sorted(classes.keys() - expected.left_out.keys()):
            without = [method.rpartition(".")[2] for method in expected.left_out if method.rpartition(".")[0] == name]

            def run(again=(), name=name, without=without):
                began = time.monotonic()
                outcomes = list(self.run(classes[name], without, flags(name)))
                # Now it ends, and its tests have outcomes.
                if name in again and all(outcome.name != name for outcome in outcomes):
                    outcomes.append(Outcome(name, "passed"))
                passed = sum(outcome.status == "passed" for outcome in outcomes)
                print(f"{name}: {passed} of {len(outcomes)} passed, {time.monotonic() - began:.0f} s", flush=True)
                return outcomes

            found += second_try(expected, run(), run)
        return found

    def run(self, name, without=(), flags=()):
        """The outcomes of the class `name`, but for the methods `without`; `flags` are its JVM's."""
        simple = name.rpartition(".")[2]
        work = self.directory / "target/work" / SERVER / simple
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir(parents=True)
        lines = work / "outcomes.tsv"
        command = ["java", "-Xmx512m", f"-Dzabra.serve={SERVE}", f"-Dbuild.test.dir={work}/build", f"-Djava.io.tmpdir={work}",
                   f"-Dlogback.configurationFile={HERE}/java/logback-tests.xml", *flags, "-cp", f"{self.classes}:{self.lib}/*",
                   "zabra.RunTests", lines, name, *without]
        environment = {**os.environ, "SERVER": SERVER, "SERVER_CLASSPATH": f"{self.classes}:{self.lib}/*"}
        with open(work / "output.txt", "wb") as output:
            # A group of its own, so that servers end with a JVM that had to be killed.
            jvm = subprocess.Popen(command, cwd=work, env=environment, stdout=output, stderr=output, start_new_session=True)
            try:
                jvm.wait(MOST)
            except subprocess.TimeoutExpired:
                pass
            finally:
                end(jvm)
        told = lines.read_text().splitlines() if lines.exists() else []
        yield from outcomes(simple, told)
        if "done" in told:
            keep(work)


def end(process):
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    process.wait()


def keep(work):
    """Of the directory of a run, what it said is kept, not what the servers wrote."""
    for path in work.iterdir():
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)


def outcomes(simple, lines):
    started, ended, servers = set(), set(), 0
    for line in lines:
        kind, _, rest = line.partition("\t")
        if kind == "started":
            started.add(rest)
        elif kind in ("passed", "failed", "skipped"):
            name, _, count, reason = rest.split("\t")
            servers = int(count)
            ended.add(name)
            yield Outcome(name, kind, reason)
    for name in started - ended:
        yield Outcome(name, "failed", "did not end")
    if "done" not in lines:
        yield Outcome(simple, "failed", "its JVM did not end as it should")
    elif not ended:
        yield Outcome(simple, "failed", "has no tests")
    elif servers == 0 and ended != {simple}:
        print(f"no server  {simple}: no test of it started one", file=sys.stderr)
