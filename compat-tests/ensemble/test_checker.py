"""The history checker refuses what it must: one wrong history for each of its rules."""
import struct
import zlib

import pytest
from checker import Checker, Violations, check_tree, committed_order
from harness.wire import OPEN, acl, buffer, ustring
from logs import Damaged, records

MS = 1_000_000
EPOCH = 1 << 32
S, OTHER = 0x100000000000001, 0x200000000000002


def txn(zxid, session, cxid, kind, record, time_ms=0):
    return EPOCH + zxid, struct.pack(">qiqqi", session, cxid, EPOCH + zxid, time_ms, kind) + record


def begin(zxid, session=S, timeout_ms=10_000):
    return txn(zxid, session, 0, -10, struct.pack(">i", timeout_ms))


def end(zxid, session=S, cxid=0, paths=(), time_ms=0):
    return txn(zxid, session, cxid, -11, struct.pack(">i", len(paths)) + b"".join(map(ustring, paths)), time_ms)


def make(zxid, cxid, path, data=b"d", ephemeral=False, session=S):
    return txn(zxid, session, cxid, 1, ustring(path) + buffer(data) + acl(OPEN) + bytes([ephemeral]) + struct.pack(">i", 1))


def put(zxid, cxid, path, data, version, session=S):
    return txn(zxid, session, cxid, 5, ustring(path) + buffer(data) + struct.pack(">i", version))


def remove(zxid, cxid, path, session=S):
    return txn(zxid, session, cxid, 2, ustring(path))


def fail(zxid, cxid, code, session=S):
    return txn(zxid, session, cxid, -1, struct.pack(">i", code))


def opened(session=S, at=0, timeout_ms=10_000):
    return "open", session, timeout_ms, at * MS, False


def reply(cxid, op, args, zxid, result=None, at=None, err=0, session=S, began=None):
    at = cxid * 10 if at is None else at
    return "reply", session, cxid, op, args, (at - 5 if began is None else began) * MS, at * MS, err, EPOCH + zxid, result


def event(kind, path, zxid, session=S, at=0):
    return "event", session, at * MS, kind, path, EPOCH + zxid if zxid else -1


LOG = [begin(1), make(2, 1, "/a"), put(3, 2, "/a", b"x", 1), put(4, 3, "/a", b"y", 2), remove(5, 4, "/a")]
GOOD = [
    opened(),
    reply(1, "create", ("/a", b"d", 0), 2, "/a"),
    reply(2, "set", ("/a", b"x", 0), 3, (1, EPOCH + 3)),
    reply(3, "set", ("/a", b"y", -1), 4, (2, EPOCH + 4)),
    reply(4, "delete", ("/a", -1), 5),
]


def check(log, *histories, logs=None):
    violations = Violations()
    order = committed_order(logs or [(1, True, log)], violations)
    return Checker(order, histories, 500, 0, violations).run()


def refused(words, log, *histories, logs=None):
    violations = check(log, *histories, logs=logs).violations
    assert any(words in violation for violation in violations), (words, violations)


def test_a_right_history_is_accepted():
    checker = check(LOG, GOOD)
    assert checker.violations == []
    assert checker.counts["writes"] == 4
    reads = [
        opened(OTHER, 0),
        reply(1, "get", ("/a", True), 2, (b"d", 0, EPOCH + 2, EPOCH + 2, 0), session=OTHER),
        event(3, "/a", 3, OTHER),
        reply(2, "sync", ("/",), 4, at=39, session=OTHER, began=31),
        reply(3, "get", ("/a", False), 4, (b"y", 2, EPOCH + 4, EPOCH + 2, 0), at=40, session=OTHER),
        reply(4, "exists", ("/a", True), 5, err=-101, at=50, session=OTHER),
        ("unknown", OTHER, 5, "set", ("/a", b"?", -1), 51 * MS),
    ]
    assert check(LOG, GOOD, reads).violations == []


def test_an_acknowledged_write_that_no_log_has_is_refused():
    refused("no log has it", LOG[:2], GOOD[:3])
    refused("the logs end", LOG[:2], GOOD[:3])


def test_an_acknowledged_write_that_was_replaced_is_refused():
    refused("the logs have request", [*LOG[:2], put(3, 77, "/a", b"z", 1, OTHER)], GOOD[:3])


def test_another_content_than_the_acknowledged_is_refused():
    refused("logged", [*LOG[:2], put(3, 2, "/a", b"z", 1)], GOOD[:3])


def test_a_write_that_is_logged_twice_is_refused():
    refused("in the log twice", [*LOG[:3], put(4, 2, "/a", b"x", 2)], GOOD[:3])


def test_a_write_that_nobody_made_is_refused():
    refused("which nobody made", [*LOG, make(6, 9, "/b")], GOOD)


def test_logs_that_differ_are_refused():
    other = [*LOG[:2], put(3, 2, "/a", b"other", 1)]
    refused("logs disagree", None, GOOD[:2], logs=[(1, True, LOG[:3]), (2, True, other)])


def test_a_hole_in_a_log_is_refused():
    refused("behind", None, GOOD[:2], logs=[(1, True, [LOG[0], LOG[1], LOG[3]]), (2, True, LOG)])
    refused("no log has what stands between", None, GOOD[:2], logs=[(1, True, [LOG[0], LOG[1], LOG[3]])])


def test_the_end_of_a_log_that_is_gone_may_differ():
    lost = txn(3, OTHER, 5, 5, ustring("/a") + buffer(b"lost") + struct.pack(">i", 1))
    later = (2 * EPOCH + 1, struct.pack(">qiqqi", S, 0, 2 * EPOCH + 1, 0, -1) + struct.pack(">i", -4))
    violations = Violations()
    order = committed_order([(1, False, [*LOG[:2], lost]), (2, True, [*LOG[:2], later])], violations)
    assert not violations and [zxid for zxid, _ in order] == [EPOCH + 1, EPOCH + 2, 2 * EPOCH + 1]


def test_a_session_that_goes_back_is_refused():
    refused("went back", LOG, [*GOOD, reply(5, "exists", ("/", False), 3, (0, 0, 0, 0))])


def test_writes_of_a_session_out_of_order_are_refused():
    refused("an earlier one", LOG, [GOOD[0], reply(2, "set", ("/a", b"x", 0), 3, (1, EPOCH + 3)), reply(1, "create", ("/a", b"d", 0), 2, "/a")])


def test_a_write_that_overtakes_real_time_is_refused():
    log = [begin(1), begin(2, OTHER), make(3, 1, "/a", session=OTHER), make(4, 1, "/b")]
    first = [opened(), reply(1, "create", ("/b", b"d", 0), 4, "/b", at=10)]
    second = [opened(OTHER), reply(1, "create", ("/a", b"d", 0), 3, "/a", at=30, session=OTHER)]
    refused("answered before an older one was asked for", log, first, second)


def test_a_sync_that_shows_too_little_is_refused():
    late = [opened(OTHER), reply(1, "sync", ("/",), 3, at=60, session=OTHER)]
    refused("a sync", LOG, GOOD, late)


def test_a_read_that_fits_no_state_is_refused():
    for result in [(b"x", 1, EPOCH + 3, EPOCH + 2, 0), (b"y", 1, EPOCH + 4, EPOCH + 2, 0)]:
        refused("where the model has", LOG, GOOD, [opened(OTHER), reply(1, "get", ("/a", False), 4, result, session=OTHER)])
    refused("where the model has", LOG, GOOD, [opened(OTHER), reply(1, "get", ("/a", False), 4, None, err=-101, session=OTHER)])
    refused("where the model has", LOG, GOOD, [opened(OTHER), reply(1, "children", ("/", False), 4, ("a",), session=OTHER)])


def test_a_condition_that_was_not_met_is_refused():
    refused("expected version", LOG, [*GOOD[:3], reply(3, "set", ("/a", b"y", 0), 4, (2, EPOCH + 4)), GOOD[4]])
    refused("gets version", [*LOG[:2], put(3, 2, "/a", b"x", 2)], GOOD[:2])


def test_a_refusal_without_a_reason_is_refused():
    log = [*LOG[:2], fail(3, 2, -103)]
    assert check(log, [*GOOD[:2], reply(2, "set", ("/a", b"x", 7), 3, err=-103)]).violations == []
    refused("does not fit", log, [*GOOD[:2], reply(2, "set", ("/a", b"x", 0), 3, err=-103)])
    refused("logged", log, [*GOOD[:2], reply(2, "set", ("/a", b"x", 7), 3, err=-101)])


def test_a_sequence_number_that_is_given_twice_is_refused():
    log = [begin(1), make(2, 1, "/s"), make(3, 2, "/s/n-0000000000"), make(4, 3, "/s/n-0000000000")]
    names = [opened(), reply(2, "create", ("/s/n-", b"d", 2), 3, "/s/n-0000000000"), reply(3, "create", ("/s/n-", b"d", 2), 4, "/s/n-0000000000")]
    refused("is created where it is", log, names)
    refused("next name is", log, names)


def test_an_ephemeral_that_outlives_its_session_is_refused():
    log = [begin(1), make(2, 1, "/e", ephemeral=True), end(3, cxid=2)]
    close = [opened(), reply(1, "create", ("/e", b"d", 1), 2, "/e"), reply(2, "close", (), 3)]
    refused("is over and leaves", log, close)
    refused("which is not there", [begin(1), end(2, cxid=1), make(3, 2, "/e", ephemeral=True)], [opened()])


def test_an_ephemeral_that_goes_with_another_session_is_refused():
    log = [begin(1), begin(2, OTHER), make(3, 1, "/e", ephemeral=True), end(4, OTHER, 1, ["/e"])]
    refused("does not own it", log, [opened(), reply(1, "create", ("/e", b"d", 1), 3, "/e")], [opened(OTHER)])


def test_a_session_that_ends_too_early_is_refused():
    history = [opened(), reply(1, "create", ("/e", b"d", 1), 2, "/e", at=5000)]
    log = lambda time_ms: [begin(1), make(2, 1, "/e", ephemeral=True), end(3, paths=["/e"], time_ms=time_ms)]  # noqa: E731
    refused("after it was heard of", log(9000), history)
    assert check(log(15_000), history).violations == []
    refused("ends twice", [*log(15_000), end(4)], history)
    refused("no log says so", LOG[:2], [*GOOD[:2], ("expired", S, 60 * MS)])


def test_data_that_comes_before_its_event_is_refused():
    watched = [opened(OTHER), reply(1, "get", ("/a", True), 2, (b"d", 0, EPOCH + 2, EPOCH + 2, 0), session=OTHER)]
    newer = reply(2, "get", ("/a", False), 3, (b"x", 1, EPOCH + 3, EPOCH + 2, 0), session=OTHER)
    refused("before the event", LOG, GOOD, [*watched, newer])
    refused("before the event", LOG, GOOD, [*watched, newer, event(3, "/a", 3, OTHER)])
    assert check(LOG, GOOD, [*watched, event(3, "/a", 3, OTHER), newer]).violations == []
    children = [opened(OTHER), reply(1, "children", ("/", True), 2, ("a", "zookeeper"), session=OTHER)]
    refused("before the event", LOG, GOOD, [*children, reply(2, "exists", ("/a", False), 5, err=-101, session=OTHER)])


def test_an_event_without_a_watch_or_a_change_is_refused():
    refused("does not watch", LOG, GOOD, [opened(OTHER), event(3, "/a", 3, OTHER)])
    watched = [opened(OTHER), reply(1, "get", ("/a", True), 2, (b"d", 0, EPOCH + 2, EPOCH + 2, 0), session=OTHER)]
    refused("that was something else", LOG, GOOD, [*watched, event(2, "/a", 3, OTHER)])
    refused("did not change", LOG[:2], GOOD[:2], [*watched, event(3, "/a", 0, OTHER)])
    refused("does not watch", LOG, GOOD, [*watched, event(3, "/a", 3, OTHER), event(3, "/a", 4, OTHER)])


@pytest.mark.parametrize("wrong", [
    {"/a": (b"x", 2, EPOCH + 4)}, {"/a": (b"y", 1, EPOCH + 4)}, {}, {"/a": (b"y", 2, EPOCH + 4), "/ghost": (b"", 0, EPOCH + 9)},
])
def test_a_tree_that_is_not_the_models_is_refused(wrong):
    model = check(LOG[:4], GOOD[:4]).model
    system = {path: (b"", {}, []) for path in ("/", "/zookeeper", "/zookeeper/quota", "/zookeeper/config")}

    def violations(nodes):
        found = Violations()
        tree = {path: (data, {"version": version, "czxid": EPOCH + 2, "mzxid": mzxid, "owner": 0}, [])
                for path, (data, version, mzxid) in nodes.items()}
        check_tree(model, {**system, **tree}, "1", found)
        return found

    assert violations({"/a": (b"y", 2, EPOCH + 4)}) == []
    assert violations(wrong)


def test_a_log_ends_where_its_server_was_killed_and_is_damaged_otherwise(tmp_path):
    bodies = [struct.pack(">qiqqi", 7, 1, EPOCH + at, 0, -1) + struct.pack(">i", -101) for at in range(1, 4)]

    def framed(body, checksum=None):
        return struct.pack(">qi", zlib.adler32(body) if checksum is None else checksum, len(body)) + body + b"B"

    def read(*pieces):
        (tmp_path / "log.1").write_bytes(struct.pack(">iiq", 0x5A4B4C47, 2, 0) + b"".join(pieces) + bytes(500))
        return [zxid for zxid, _ in records(tmp_path / "log.1")]

    first, second, third = map(framed, bodies)
    assert read(first, second, third) == [EPOCH + 1, EPOCH + 2, EPOCH + 3]
    # The length, the body, the end, and last of all the checksum.
    assert read(first, second, framed(bodies[2], 0)) == [EPOCH + 1, EPOCH + 2]
    assert read(first, second, third[:-1]) == [EPOCH + 1, EPOCH + 2]
    with pytest.raises(Damaged):
        read(first, framed(bodies[1], 5), third)
