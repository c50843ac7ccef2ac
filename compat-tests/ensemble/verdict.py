"""From a run to a verdict: stops the load, lets all servers agree, stops them, and checks every history against every log."""
import os
import pickle
import time

from checker import Checker, Violations, check_tree, committed_order
from clients import read_tree, write


def wall_offset_ns():
    """What turns monotonic nanoseconds into nanoseconds since 1970."""
    return time.time_ns() - time.monotonic_ns()


def verdict(ensemble, archive, histories, tick_ms):
    """All servers of `ensemble` serve. Gives the checker, after the servers have been stopped."""
    violations = Violations()
    # What no client closes ends by itself: until then the trees change.
    ensemble.wait("all sessions end", lambda: ensemble.leader().mntr()["zk_global_sessions"] == "0")
    for member in ensemble.running():
        write(member, f"/end-{member.sid}")
    trees = {str(member): read_tree(member) for member in ensemble.running()}
    members = ensemble.running()
    ensemble.stop()
    archive.collect(members)
    order = committed_order(archive.histories(members), violations)
    checker = Checker(order, histories, tick_ms, wall_offset_ns(), violations).run()
    for member, tree in trees.items():
        # The reader's own session came after; it made nothing.
        check_tree(checker.model, tree, member, violations)
    return checker


def assert_none(checker, ensemble, what):
    if checker.violations:
        if os.environ.get("KEEP"):
            (ensemble.dir / "histories").write_bytes(pickle.dumps(checker.histories))
        text = "\n".join(checker.violations)
        raise AssertionError(f"{ensemble.state(40)}\n{what}: {len(checker.violations)} violations\n{text}")
