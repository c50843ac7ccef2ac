"""Thousands of sessions whose clients are gone when the leader is killed: the next one ends them all together, and neither is its term
in danger nor does anybody else wait. SHARE of 30,000; SERVERS=java runs the same with Java's."""
import os

from harness.beside import Beside
from harness.crowd import await_the_end, children, silent_sessions
from harness.wire import CREATE, Session, create
from members import Ensemble

SHARE = float(os.environ.get("SHARE", "0.1"))
KIND = "j" if os.environ.get("SERVERS") == "java" else "z"
COUNT = max(6000, int(30_000 * SHARE))
TIMEOUT_MS = 30_000 if SHARE > 0.3 or KIND == "j" else 8000
PATIENT = {"timeout": 120, "timeout_ms": 60_000}


def epoch(member):
    return member.srvr()[1] >> 32


def test_sessions_that_expire_together_after_a_change_of_leader():
    """Row 2: epochs 1 to 10 in 150 s, and none of them ever ended."""
    with Ensemble(KIND * 3, {"tickTime": "1000"}) as ensemble:
        with Session(ensemble[1].port, **PATIENT) as writer:
            writer.call(CREATE, create("/crowd"))
        silent_sessions([(member.host, member.port) for member in ensemble], COUNT, TIMEOUT_MS, "/crowd/e")
        old = ensemble.wait_for_leader()
        old.kill()
        leader = ensemble.wait_for_leader()
        ensemble.wait_until_all_serve()
        began_in = epoch(leader)
        other = next(member for member in ensemble.running() if member is not leader)
        with Session(other.port, **PATIENT) as writer, Session(leader.port, **PATIENT) as looker:
            with Beside(writer) as beside:
                count, took = await_the_end(looker, beside, "/crowd", TIMEOUT_MS / 1000 + 60, 150)
            assert children(writer, "/crowd") == 0
        ended_in = epoch(leader)
        print(f"\n{KIND}: {count} sessions with an ephemeral each expired within {took:.1f} s, epochs {began_in} to {ended_in}: {beside}")
        assert began_in == ended_in
        assert KIND == "j" or (took < 5 and beside.longest_ms < 200 + 4 * beside.calm_ms)
