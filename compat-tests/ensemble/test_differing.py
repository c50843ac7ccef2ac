"""A server whose tree differs from the others' stops serving it: it takes the leader's, and where it leads, it steps down."""
import time

import pytest
from clients import assert_equal_trees, read_tree, write
from logs import ERROR, header, log_files, rewrite
from rounds import KIND, give, history_of_three, laid_out

DIGEST_LENGTH = 12
PATH = "/kept-7"
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


def lines(member, word):
    return [line for line in member.log().splitlines() if word in line]


def equal_trees(ensemble):
    try:
        return assert_equal_trees(ensemble)
    except (AssertionError, OSError):
        return None


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
            write(ensemble[2], f"/later-{number}")
        begun = time.monotonic()
        try:
            ensemble.wait("the trees are equal", lambda: ensemble.wait_until_all_serve() and equal_trees(ensemble), 20)
        finally:
            told = {member: lines(member, "differs") for member in ensemble}
            counts = {str(member): len(of) for member, of in told.items()}
            print(f"\n{ensemble[sid]} of 3 differs: after {time.monotonic() - begun:.1f} s, lines that tell so: {counts}")
        found = read_tree(ensemble[1])[PATH][0]
        if with_digests:
            assert found == PATH.encode(), "its own digests said that it was wrong"
        if sid == 1:
            assert found == PATH.encode()
            assert [len(of) for of in told.values()] == [1, 0, 0], told
            assert ensemble[1].ways().count("SNAP") == 1
        for of in told.values():
            assert len(of) <= 1, told
