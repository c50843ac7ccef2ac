"""Servers whose configuration can change, and that may not write beside their zoo.cfg: what Java's do there."""
import os

import pytest
from clients import change, write
from members import Ensemble
from net import is_possible, own_namespaces, run

# Java's servers pass as well: KIND=j.
KIND = os.environ.get("KIND", "z")

pytestmark = pytest.mark.skipif(not is_possible(), reason="only root mounts directories")


@pytest.fixture
def namespaces():
    with own_namespaces():
        yield


def lock_configs(ensemble):
    """Each zoo.cfg in a directory of its own, which is mounted so that it can be read alone."""
    for member in ensemble:
        conf = member.dir / "conf"
        conf.mkdir(parents=True)
        member.config = conf / "zoo.cfg"
        member.set_up()
        run("mount", "--bind", str(conf), str(conf))
        run("mount", "-o", "remount,bind,ro", str(conf))


def unlock_configs(ensemble):
    for member in ensemble:
        run("umount", "--lazy", str(member.dir / "conf"))


def roles(ensemble):
    modes = [member.mode() for member in ensemble]
    return sorted(modes) if all(modes) else None


def test_a_configuration_that_cannot_be_written_is_no_reason_to_end(namespaces):
    ensemble = Ensemble(KIND * 3, dynamic=True)
    lock_configs(ensemble)
    try:
        for member in ensemble:
            member.start()
        ensemble.wait_until_all_serve()
        write(ensemble[1], "/before", b"")
        assert all("ERROR" in member.log() and "zoo.cfg.dynamic" in member.log() for member in ensemble)
        # It works, and lasts as long as somebody remembers: a server that comes back is told by the others.
        ensemble[3].observer = True
        change(ensemble, joining=ensemble[3].line)
        wanted = ["follower", "leader", "observer"]
        ensemble.wait("3 observes", lambda: roles(ensemble) == wanted and ensemble[3].mode() == "observer")
        write(ensemble[3], "/after", b"")
        for sid in (3, 1, 2):
            ensemble[sid].stop()
            ensemble[sid].start()
            ensemble.wait(f"{sid} is back", lambda: roles(ensemble) == wanted)
        assert ensemble[3].mode() == "observer"
        # All at once: they have their files and their logs alone.
        for member in ensemble:
            member.kill()
        for member in ensemble:
            member.start()
        ensemble.wait_until_all_serve()
        write(ensemble[2], "/again", b"")
    finally:
        unlock_configs(ensemble)
        ensemble.__exit__(None)


def test_servers_in_a_file_that_can_never_be_rewritten_are_refused(namespaces):
    ensemble = Ensemble(KIND * 3, {"reconfigEnabled": "true"})
    lock_configs(ensemble)
    member = ensemble[1]
    try:
        member.start()
        assert member.process.wait(20) != 0
        words = ["zoo.cfg"] if member.java else ["reconfigEnabled", str(member.config), "Read-only", "dynamicConfigFile"]
        assert all(word in member.log() for word in words), member.log()
        assert member.java or not list(member.files.glob("*Epoch")), "it has done nothing yet"
    finally:
        unlock_configs(ensemble)
        ensemble.__exit__(None)
