"""The run behind `benches/compare-ensemble`: starts the ensembles, puts `zabra bench` on them, prints what came of it."""
import json
import os
import pathlib
import statistics
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "compat-tests" / "ensemble"), str(ROOT / "compat-tests")]
os.environ["JAVA_LOG"] = "ERROR"

import members  # noqa: E402
from harness.server import BINARY  # noqa: E402

SECONDS = float(os.environ.get("SECONDS_EACH", "5"))
ROUNDS = int(os.environ.get("ROUNDS", "2"))
WARM = {"java": 30, "zabra": 3}
RESULTS = ROOT / "target" / "compare-ensemble.jsonl"
# Those of a stock zoo.cfg.
SETTINGS = {"tickTime": "2000", "initLimit": "10", "syncLimit": "5", "preAllocSize": "65536", "skipACL": "no"}
members.JAVA = [
    "java", "-Xms1g", "-Xmx4g",
    "-Dzookeeper.serverCnxnFactory=org.apache.zookeeper.server.NettyServerCnxnFactory",
]
# Operation, connections, requests in flight on each. They are spread over the servers, one alone is a follower's.
POINTS = [
    ("set", 1, 1),
    ("set", 64, 1),
    ("set", 64, 16),
    ("set", 256, 1),
    ("mix:90/10", 64, 1),
    ("mix:90/10", 64, 16),
    ("mix:50/50", 64, 1),
    ("mix:50/50", 64, 16),
    ("multi:10", 64, 1),
]
# Equal load on both, as a part of what Java's ensemble took of setData 64 x 1 in the first round.
SHARES = [0.25, 0.5]
EQUAL_SECONDS = 2 * SECONDS


def stolen_s():
    """Seconds that the host of this machine kept its CPUs to itself, all of them together."""
    cpu = pathlib.Path("/proc/stat").read_text().splitlines()[0].split()
    return int(cpu[8]) / os.sysconf("SC_CLK_TCK")


def bench(ensemble, op, connections, in_flight, seconds, warm_up=1.0, rate=None):
    leader = ensemble.leader()
    servers = [member for member in ensemble if member is not leader] + [leader]
    command = [
        BINARY, "bench", "--json", "--op", op, "--connections", str(connections), "--in-flight", str(in_flight),
        "--duration-s", str(seconds), "--warmup-s", str(warm_up),
        "--server", ",".join(f"127.0.0.1:{member.port}" for member in servers),
        "--server-pid", ",".join(str(member.process.pid) for member in servers),
    ]
    if rate:
        command += ["--rate", str(rate)]
    stolen, started = stolen_s(), time.monotonic()
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{ensemble.state()}\n{' '.join(command)}: {done.stderr}")
    row = json.loads(done.stdout)
    assert row["errors"] == 0, row
    row["stolen_percent"] = 100 * (stolen_s() - stolen) / (time.monotonic() - started) / os.cpu_count()
    return row


def measure(kind, rates):
    """Every point on an ensemble of three, and its memory in between and at the end."""
    found = {}
    with members.Ensemble(kind[0] * 3, SETTINGS) as ensemble:
        bench(ensemble, "mix:50/50", 64, 16, WARM[kind], 0)
        for point in POINTS:
            found[point] = bench(ensemble, *point, SECONDS)
        for share in SHARES:
            if share not in rates:
                rates[share] = int(found["set", 64, 1]["per_s"] * share)
            found[f"set at {rates[share]}/s"] = bench(ensemble, "set", 64, 1, EQUAL_SECONDS, rate=rates[share])
        found["memory"] = sum(member.resident_kb() for member in ensemble) / 1000
    return found


def ratio(above, below, digits=1):
    return f"{above / below:.{digits}f}" if below else "-"


def main():
    RESULTS.parent.mkdir(exist_ok=True)
    started, load = time.monotonic(), os.getloadavg()[0]
    rounds, rates = {"java": [], "zabra": []}, {}
    with RESULTS.open("w") as results:
        for round_ in range(ROUNDS):
            for kind, found in rounds.items():
                print(f"round {round_ + 1} of {ROUNDS}: {kind}", file=sys.stderr, flush=True)
                found.append(measure(kind, rates))
                for point, row in found[-1].items():
                    print(json.dumps({"server": kind, "round": round_, "point": str(point), "result": row}), file=results, flush=True)

    def middle(kind, point, what):
        return statistics.median(found[point][what] for found in rounds[kind])

    line = "{:<10} {:>5} x {:<3} {:>9} {:>9} {:>6}  {:>8} {:>8} {:>8} {:>8} {:>8} {:>8} {:>6}  {:>8} {:>8} {:>6}  {:>6} {:>6}"
    print(f"median of {ROUNDS} rounds of {SECONDS} s; {os.cpu_count()} cores, load {load:.1f} before")
    print(line.format("", "", "", "per s", "", "", "p50 us", "", "p99 us", "", "p99.9 us", "", "", "CPU us", "an op", "", "steal", "%"))
    names = ["java", "zabra"]
    print(line.format("op", "conns", "in", *names, "z/j", *(names * 3), "j/z", *names, "j/z", *names))
    equal = [point for point in rounds["java"][0] if isinstance(point, str) and point != "memory"]
    for point in POINTS + equal:
        per_s, p50, p99, p999, cpu, stolen = (
            [middle(kind, point, what) for kind in names]
            for what in ("per_s", "p50_us", "p99_us", "p999_us", "server_cpu_us_per_op", "stolen_percent"))
        name = point if isinstance(point, tuple) else (point, 64, "")
        print(line.format(
            *name, *(round(value) for value in per_s), ratio(per_s[1], per_s[0], 2), *(round(value) for value in p50),
            *(round(value) for value in p99), *(round(value) for value in p999), ratio(*p999), *(f"{value:.1f}" for value in cpu),
            ratio(*cpu), *(f"{value:.1f}" for value in stolen)))
    memory = [statistics.median(found["memory"] for found in rounds[kind]) for kind in names]
    print(f"memory of the three servers at the end: java {memory[0]:.0f} MB, zabra {memory[1]:.0f} MB, ratio {ratio(*memory)}")
    print(f"took {time.monotonic() - started:.0f} s; every run: {RESULTS.relative_to(ROOT)}")


main()
