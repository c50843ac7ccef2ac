"""A server whose tree differs from the others' stops serving it: it takes the leader's, and where it leads, it steps down."""
import time

import pytest
from clients import Closed, connect, create, read_tree
from harness.wire import CREATE
from logs import ERROR, header, log_files, rewrite
from rounds import KIND, give, history_of_three, laid_out, wait_for_equal_trees

DIGEST_LENGTH = 12
PATH = "/kept-7"
NODE_EXISTS = -110
WRONG = b"/KEPT-7"


@pytest.fixture(scope="module")
def history(tmp_path_factory):
    return history_of_three(tmp_path_factory.mktemp("member") / "version-2")


def alter(member, with_digests):
    """Other data in one znode of this server's log, as if a disk or a bug had done it. Without the digests behind the transactions
    nothing but the next one can show it."""
    right = PATH.encode()

    def change(body):
        path, data, rest = body.rpartition(right)
        if data and right in path:
            body = path + WRONG + rest
        return body if with_digests or header(body).kind == ERROR else body[:-DIGEST_LENGTH]
    for log in log_files(member.files):
        rewrite(log, change)


def told(member):
    return [line for line in member.log().splitlines() if "ERROR" in line and "differs" in line]


def some_write(ensemble, path):
    """Servers that stop serving are asked again: then it may be there already."""
    def once():
        try:
            with connect(ensemble[2]) as session:
                return session.call(CREATE, create(path))[1] in (0, NODE_EXISTS)
        except (OSError, Closed):
            return False
    ensemble.wait("a write", once)


@pytest.mark.parametrize("sid, with_digests", [(1, False), (3, False), (1, True), (3, True)],
                         ids=["follower", "leader", "follower-knows", "leader-knows"])
def test_a_tree_that_differs_is_told_once_and_replaced(history, sid, with_digests):
    """Of three with equal logs the last is elected. With the digests in its log a server can know from its start on."""
    with laid_out(3 * KIND) as ensemble:
        for member in ensemble:
            give(member, history)
        alter(ensemble[sid], with_digests)
        ensemble[3].start()
        ensemble[1].start()
        ensemble.wait_until_all_serve()
        if not with_digests:
            assert ensemble.leader() is ensemble[3], ensemble.state()
        ensemble[2].start()
        ensemble.wait_until_all_serve()
        for number in range(5):
            some_write(ensemble, f"/later-{number}")
        begun = time.monotonic()
        try:
            wait_for_equal_trees(ensemble)
        finally:
            counts = [len(told(member)) for member in ensemble]
            print(f"\n{ensemble[sid]} of 3 differs: after {time.monotonic() - begun:.1f} s, lines that tell so: {counts}")
        # Two of three have the right one.
        assert read_tree(ensemble[1])[PATH][0] == PATH.encode()
        assert max(counts) == 1, ensemble.state()
        assert [member.ways().count("SNAP") for member in ensemble] == [member.sid == sid for member in ensemble]
