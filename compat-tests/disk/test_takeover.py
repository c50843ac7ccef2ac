"""Directories of Java's servers 3.3 to 3.9: Zabra shows what Java showed, and Java shows what Zabra left.

`directories/make.py` made them and says what each is for. JAVA_STARTS names those on which Java's server is started afterwards
(`all` for all); its restore reads all of them in any case.
"""
import os
import re

import pytest
import takeover
from harness.server import IS_JAVA, JAVA_CLASSPATH

pytestmark = pytest.mark.skipif(IS_JAVA, reason="it starts both servers itself")
NAMES = sorted(path.name.removesuffix(".tar.gz") for path in takeover.DIRECTORIES.glob("*.tar.gz"))
JAVA_STARTS = os.environ.get("JAVA_STARTS", "3.4.14-kill-rolls 3.6.4-no-close-txn every-version-in-turn").split()
STARTS = NAMES if JAVA_STARTS == ["all"] else JAVA_STARTS


@pytest.fixture(scope="module")
def take(tmp_path_factory):
    taken = {}

    def take(name):
        if name not in taken:
            taken[name] = takeover.Taken(takeover.DIRECTORIES / f"{name}.tar.gz", tmp_path_factory.mktemp("taken"))
        return taken[name]
    return take


def equal(expected, got):
    found = takeover.differences(expected, got)
    assert not found, f"{len(found)} differences, of them (where, expected, got):\n" + "\n".join(map(str, found[:5]))


def test_all_are_there():
    assert len(NAMES) >= 30


@pytest.mark.parametrize("name", NAMES)
def test_zabra_shows_what_java_showed(take, name):
    taken = take(name)
    equal(taken.report, taken.found)


def test_java_restores_what_zabra_left(take):
    taken = [take(name) for name in NAMES]
    found = takeover.restored([each.folder for each in taken], [each.report["settings"] for each in taken])
    for name, each, now in zip(NAMES, taken, found, strict=True):
        print(name)
        equal(each.left, {**now, "alive": sorted(map(int, now["sessions"]))})


@pytest.mark.parametrize("name", STARTS)
def test_java_starts_on_what_zabra_left(take, name):
    taken = take(name)
    with takeover.server_of(taken.folder, taken.report, JAVA_CLASSPATH) as server:
        equal({key: taken.left[key] for key in ("last", "alive", "znodes")}, takeover.seen(server))
        assert re.search(r"^zk_digest_mismatches_count\s+0$", server.word("mntr"), re.M)
