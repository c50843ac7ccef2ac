#!/usr/bin/env python3
"""Makes the directories beside this file with real servers of many versions, and compares what each server says of them.

make.py [NAME …] makes these directories, or all, and replaces their files. make.py --check [NAME …] makes none, and only compares.
It needs the versions' jars, which Maven brings.
What a directory is for, says its story below. Each is looked at in copies: the version that wrote it, 3.9.5 and 3.9.6 must say
the same; then Zabra must, and all of them once more after Zabra wrote there. What 3.9.5 said is kept beside it.
"""
import contextlib
import os
import pathlib
import shutil
import struct
import subprocess
import sys
import tempfile
import threading

sys.path[:0] = [str(pathlib.Path(__file__).resolve().parent.parent), str(pathlib.Path(__file__).resolve().parent.parent.parent)]
import takeover
from harness.server import HERE, JAVA_CLASSPATH, Server, free_port
from harness.wire import (
    CHECK, CLOSE, CREATE, CREATE2, CREATE_CONTAINER, CREATE_TTL, DELETE, MULTI, SET, Closed, Session, acl, buffer, create, set_data, ustring,
)

# Small and quick to start.
os.environ.setdefault("JAVA_TOOL_OPTIONS", "-XX:+UseSerialGC -XX:TieredStopAtLevel=1")
VERSIONS = pathlib.Path(os.environ.get("VERSIONS", HERE / "java/target/versions"))
NEWEST = "3.9.5", "3.9.6"
SET_ACL, RECONFIG = 7, 16
TEN_YEARS = 10 * 365 * 86_400_000
STORIES = {}


# The versions.

POM = """<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion><groupId>zabra</groupId><artifactId>version</artifactId><version>1</version><packaging>pom</packaging>
  <dependencies>{}</dependencies>
</project>
"""
DEPENDENCY = "<dependency><groupId>{}</groupId><artifactId>{}</artifactId><version>{}</version>{}</dependency>"
ALONE = "<exclusions><exclusion><groupId>*</groupId><artifactId>*</artifactId></exclusion></exclusions>"


def numbers(version):
    return tuple(map(int, version.split(".")))


def classpath(version):
    """The jars of a version, brought by Maven where they are not there yet."""
    if version == "3.9.5":
        return JAVA_CLASSPATH
    jars = VERSIONS / version / "lib"
    if not jars.exists():
        jars.parent.mkdir(parents=True, exist_ok=True)
        server = "org.apache.zookeeper", "zookeeper", version
        if numbers(version) < (3, 4):
            # What these name besides is no longer to be had, and is not needed.
            wanted = DEPENDENCY.format(*server, ALONE) + DEPENDENCY.format("log4j", "log4j", "1.2.17", "")
        else:
            wanted = DEPENDENCY.format(*server, "")
        (jars.parent / "pom.xml").write_text(POM.format(wanted))
        copied = subprocess.run(["mvn", "--quiet", "--batch-mode", "-f", str(jars.parent / "pom.xml"), "dependency:copy-dependencies",
                                 f"-DoutputDirectory={jars}"], check=False)
        if copied.returncode:
            beside_the_libraries_of_the_newest(version, jars)
        # What Maven leaves out, as these are optional.
        for name in ("snappy-java-*.jar", "metrics-core-*.jar"):
            for jar in pathlib.Path(JAVA_CLASSPATH).parent.glob(name):
                shutil.copy(jar, jars)
    return str(jars / "*")


def beside_the_libraries_of_the_newest(version, jars):
    """For a version whose own parent can't be had: its two jars, with what 3.9.5 needs."""
    shutil.copytree(pathlib.Path(JAVA_CLASSPATH).parent, jars, ignore=shutil.ignore_patterns("zookeeper-*"))
    for name in ("zookeeper", "zookeeper-jute"):
        plugin = "org.apache.maven.plugins:maven-dependency-plugin:2.8"
        artifact = f"org.apache.zookeeper:{name}:{version}"
        subprocess.run(["mvn", "--quiet", "--batch-mode", f"{plugin}:get", f"-Dartifact={artifact}", "-Dtransitive=false"], check=True)
        subprocess.run(["mvn", "--quiet", "--batch-mode", f"{plugin}:copy", f"-Dartifact={artifact}", f"-DoutputDirectory={jars}"], check=True)


# Writing.


class Made:
    """A directory in the making, and what must be remembered of it."""

    def __init__(self, folder):
        self.folder = folder
        self.writers = []
        self.passwords = {}
        self.open = []

    @property
    def files(self):
        return self.folder / "data" / "version-2"

    @property
    def logs(self):
        return sorted((takeover.log_dir(self.folder) / "version-2").glob("log.[0-9a-f]*"), key=number_of)

    @property
    def snapshots(self):
        return sorted(self.files.glob("snapshot.[0-9a-f]*"), key=number_of)

    @contextlib.contextmanager
    def served_by(self, version, end="stop", settings=None, flags=None):
        """A server of that version on it, and how it ends."""
        self.writers.append(version)
        settings = {"snapCount": "100000", "preAllocSize": "64", **takeover.SUPER, **(settings or {})}
        if "dataLogDir" in settings:
            settings["dataLogDir"] = str(self.folder / settings["dataLogDir"])
        # Each key of zoo.cfg that a version does not know is a property for it, as a flag is.
        server = Server(settings, flags_of(flags), data=self.folder, java=True, classpath=classpath(version))
        server.start()
        try:
            yield server
        finally:
            server.kill() if end == "kill" else server.stop()
            # Their clients are gone as the server is: nobody closed these sessions.
            for session in self.open:
                session.close()
            self.open.clear()

    def stays_open(self, server, timeout_ms=40_000):
        """A session that is still there when the server ends."""
        session = Session(server.port, timeout_ms=timeout_ms)
        self.passwords[session.session] = session.passwd.hex()
        self.open.append(session)
        return session


def flags_of(flags):
    return {"znode.container.checkIntervalMs": "100", **{f"zookeeper.{key}": value for key, value in (flags or {}).items()}}


def number_of(path):
    return int(path.name.split(".")[1], 16)


def ok(session, op, body):
    return takeover.answer(session, op, body)


def fails(session, op, body, error):
    assert session.call(op, body)[1] == error, (op, body, error)


def delete(path, version=-1):
    return ustring(path) + struct.pack(">i", version)


def acls(path, entries, version=-1):
    return ustring(path) + acl(entries) + struct.pack(">i", version)


def multi(*parts):
    return b"".join(struct.pack(">i?i", op, False, -1) + body for op, body in parts) + struct.pack(">i?i", -1, True, -1)


def ttl(path, data, ms, flags=5):
    return ustring(path) + buffer(data) + acl([(31, "world", "anyone")]) + struct.pack(">iq", flags, ms)


def basics(made, server, at="/a"):
    """What every version has: creates, sets, deletes, ACLs, sequences, ephemerals, refusals; data and names of all kinds."""
    with takeover.as_super(server.port) as session:
        ok(session, CREATE, create(at, b"top"))
        for name, data in [("null", None), ("empty", b""), ("binary", bytes(range(256))), ("long", b"x" * 3000), ("ümlaut-水-ẞ", b"\xff\x00")]:
            ok(session, CREATE, create(f"{at}/{name}", data))
        ok(session, SET, set_data(f"{at}/empty", b"now with data"))
        ok(session, SET, set_data(f"{at}/long", None))
        for _ in range(5):
            ok(session, CREATE, create(f"{at}/seq-", b"s", flags=2))
        ok(session, DELETE, delete(f"{at}/seq-{7:010}"))
        deep = at
        for level in range(30):
            deep += f"/d{level}"
            ok(session, CREATE, create(deep, str(level).encode()))
        ok(session, DELETE, delete(deep))
        for _ in range(12):
            ok(session, SET, set_data(at, b"again"))
        ok(session, CREATE, create(f"{at}/private", b"p", acls=[(31, "digest", "u:" + "x" * 27 + "="), (1, "ip", "127.0.0.1")]))
        ok(session, CREATE, create(f"{at}/changed", b"p"))
        ok(session, SET_ACL, acls(f"{at}/changed", [(3, "world", "anyone"), (31, "digest", "v:" + "y" * 27 + "=")]))
        ok(session, SET_ACL, acls(f"{at}/changed", [(1, "world", "anyone")]))
        # Each of these is a transaction as well, of the type error.
        fails(session, CREATE, create(f"{at}/null", b"again"), -110)
        fails(session, DELETE, delete(at), -111)
        fails(session, SET, set_data(f"{at}/empty", b"", 77), -103)
        fails(session, CREATE, create("/never/there", b""), -101)
    gone = Session(server.port)
    ok(gone, CREATE, create(f"{at}/gone-with-its-session", b"e", flags=1))
    ok(gone, CREATE, create(f"{at}/gone-too-", b"e", flags=3))
    ok(gone, CLOSE, b"")
    gone.close()
    for timeout_ms in (20_000, 40_000):
        stays = made.stays_open(server, timeout_ms)
        ok(stays, CREATE, create(f"{at}/stays-{timeout_ms}", b"e", flags=1))
        ok(stays, CREATE, create(f"{at}/stays-too-", None, flags=3))
    made.stays_open(server, 30_000)


def multis(server, at="/a"):
    """Since 3.4. The second one fails: it is a transaction of errors."""
    with takeover.as_super(server.port) as session:
        ok(session, MULTI, multi((CREATE, create(f"{at}/m", b"1")), (CREATE, create(f"{at}/m/1", b"")), (SET, set_data(f"{at}/m", b"2")),
                                 (CHECK, delete(f"{at}/m", 1)), (DELETE, delete(f"{at}/m/1")), (CREATE, create(f"{at}/m/s-", None, flags=2))))
        session.call(MULTI, multi((CREATE, create(f"{at}/m/never", b"")), (CHECK, delete(f"{at}/m", 99)), (DELETE, delete(f"{at}/m"))))
        session.call(MULTI, multi((SET, set_data(f"{at}/m/nothing", b"")), (CREATE, create(f"{at}/m/never", b""))))


def newer(made, server, at="/a"):
    """Since 3.5: create2, containers and their end, TTLs; and all of them in a multi."""
    with takeover.as_super(server.port) as session:
        ok(session, CREATE2, create(f"{at}/c2", b"2"))
        ok(session, CREATE2, create(f"{at}/c2/s-", None, flags=2))
        ok(session, CREATE_CONTAINER, create(f"{at}/container", b"c", flags=4))
        ok(session, CREATE, create(f"{at}/container/child", b""))
        ok(session, CREATE_CONTAINER, create(f"{at}/unused-container", b"", flags=4))
        ok(session, CREATE_TTL, ttl(f"{at}/ttl", None, TEN_YEARS))
        ok(session, CREATE_TTL, ttl(f"{at}/ttl-", b"t", 1_000_000_000, flags=6))
        # The server removes this one by a transaction of its own.
        ok(session, CREATE_CONTAINER, create(f"{at}/emptied", b"", flags=4))
        ok(session, CREATE, create(f"{at}/emptied/child", b""))
        ok(session, DELETE, delete(f"{at}/emptied/child"))
        ok(session, MULTI, multi((CREATE_CONTAINER, create(f"{at}/mc", b"", flags=4)), (CREATE_TTL, ttl(f"{at}/mt", b"", TEN_YEARS)),
                                 (CREATE2, create(f"{at}/mc/x", b"")), (CREATE, create(f"{at}/mc/y", b""))))
        server.wait_until("the container stays", lambda: session.call(3, ustring(f"{at}/emptied") + b"\0")[1] == -101, 30)
    stays = made.stays_open(server)
    ok(stays, CREATE2, create(f"{at}/stays-c2", b"e", flags=1))


def everything(made, server, at="/a"):
    basics(made, server, at)
    if numbers(made.writers[-1]) >= (3, 4):
        multis(server, at)
    if numbers(made.writers[-1]) >= (3, 5):
        newer(made, server, at)


def quotas(server):
    with takeover.as_super(server.port) as session:
        ok(session, CREATE, create("/q", b"12345"))
        for path in ("/zookeeper/quota/q", "/zookeeper/quota/q/zookeeper_limits", "/zookeeper/quota/q/zookeeper_stats"):
            ok(session, CREATE, create(path, b"count=100,bytes=10000" if path.endswith("limits") else b"count=0,bytes=0"))
        for number in range(6):
            ok(session, CREATE, create(f"/q/n{number}", b"x" * number))
        ok(session, SET, set_data("/q/n1", b"longer"))
        ok(session, DELETE, delete("/q/n2"))
        ok(session, SET, set_data("/q", None))


def lists(server, count):
    """Many different ACL lists, some of them no longer in use."""
    with takeover.as_super(server.port) as session:
        ok(session, CREATE, create("/lists", b""))
        for number in range(count):
            entries = [(number % 31 + 1, "digest", f"user{number}:{number:027}=")]
            entries += [(1, "ip", f"10.0.{number}.{last}") for last in range(number % 4)]
            ok(session, CREATE, create(f"/lists/n{number}", b"", acls=entries))
        for number in range(0, count, 3):
            ok(session, SET_ACL, acls(f"/lists/n{number}", [(31, "world", "anyone")]))
        for number in range(1, count, 3):
            ok(session, DELETE, delete(f"/lists/n{number}"))


def load(server, count, znodes=10, until=None):
    """Several clients at once, so that the tree changes while a snapshot is written. `until` ends the server meanwhile."""
    def work(name):
        with contextlib.suppress(Closed, OSError), Session(server.port) as session:
            session.call(CREATE, create(f"/load{name}", b""))
            for number in range(count):
                path = f"/load{name}/n{number % znodes}"
                if number % znodes == 3:
                    session.push(DELETE, delete(path))
                session.push(CREATE, create(path, b"x" * (number % 50), flags=number % 7 == 0))
                session.push(SET, set_data(path, str(number).encode()))
            for _ in range(count):
                session.reply()

    workers = [threading.Thread(target=work, args=(name,)) for name in range(3)]
    for worker in workers:
        worker.start()
    if until:
        until()
    for worker in workers:
        worker.join()


def killed_at(server, zxid):
    """Ends the server in the middle of what it does."""
    server.wait_until("too few writes", lambda: takeover.last_of(server) >= zxid, 60)
    server.kill()


# The stories. Each writes one directory.


def story(tell):
    STORIES[tell.__name__.replace("_", "-")] = tell
    return tell


def simple(name, version, end="stop", settings=None, flags=None, fill=everything):
    """One server that does all it can, and ends."""
    def tell(made):
        with made.served_by(version, end, settings, flags) as server:
            fill(made, server)
    STORIES[name] = tell


DATALOG = {"dataLogDir": "datalog"}
GZ, SNAPPY = ({"snapshot.compression.method": method} for method in ("gz", "snappy"))
# Many snapshots, and logs of a few transactions.
ROLLS = {"snapCount": "12"}

simple("3.3.2-stop", "3.3.2")
simple("3.3.2-kill-rolls", "3.3.2", "kill", ROLLS)
simple("3.4.6-stop", "3.4.6")
simple("3.4.10-kill-datalog", "3.4.10", "kill", DATALOG)
simple("3.4.14-kill-rolls", "3.4.14", "kill", ROLLS)
simple("3.5.5-kill", "3.5.5", "kill")
simple("3.5.8-stop-datalog-rolls", "3.5.8", settings={**ROLLS, **DATALOG})
simple("3.5.10-local-sessions", "3.5.10", "kill", {**ROLLS, "localSessionsEnabled": "true", "localSessionsUpgradingEnabled": "true"})
simple("3.6.0-stop-gz", "3.6.0", settings=ROLLS, flags=GZ)
simple("3.6.2-kill-snappy", "3.6.2", "kill", ROLLS, SNAPPY)
# These are replayed from the first transaction on.
simple("3.6.4-no-digest", "3.6.4", "kill", flags={"digest.enabled": "false"})
simple("3.6.4-no-close-txn", "3.6.4", "kill", flags={"closeSessionTxn.enabled": "false"})
simple("3.7.0-stop", "3.7.0")
simple("3.7.2-kill-gz-datalog", "3.7.2", "kill", {**ROLLS, **DATALOG}, GZ)
simple("3.8.0-kill-snappy", "3.8.0", "kill", ROLLS, SNAPPY)
simple("3.8.4-neither", "3.8.4", "kill", flags={"digest.enabled": "false", "closeSessionTxn.enabled": "false"})
simple("3.8.6-stop-no-close-txn", "3.8.6", settings={"snapCount": "40"}, flags={"closeSessionTxn.enabled": "false"})
simple("3.9.0-last-zxid", "3.9.0", "kill", ROLLS, {"serializeLastProcessedZxid.enabled": "true"})
simple("3.9.3-no-last-zxid-gz", "3.9.3", "kill", ROLLS, {**GZ, "serializeLastProcessedZxid.enabled": "false"})
simple("3.9.3-last-zxid-no-digest", "3.9.3", "stop", ROLLS, {"serializeLastProcessedZxid.enabled": "true", "digest.enabled": "false"})
simple("3.9.5-stop", "3.9.5")
simple("3.9.6-kill-snappy-datalog", "3.9.6", "kill", {**ROLLS, **DATALOG}, SNAPPY)
simple("3.4.14-quotas", "3.4.14", "kill", ROLLS, fill=lambda made, server: quotas(server))
simple("3.9.5-quotas", "3.9.5", "kill", ROLLS, fill=lambda made, server: quotas(server))
simple("3.4.6-lists", "3.4.6", "stop", ROLLS, fill=lambda made, server: lists(server, 60))
simple("3.8.4-lists", "3.8.4", "kill", {"snapCount": "70"}, fill=lambda made, server: lists(server, 100))
simple("3.4.14-load", "3.4.14", "kill", {"snapCount": "50"}, fill=lambda made, server: load(server, 100, until=None))
simple("3.6.2-load", "3.6.2", "stop", {"snapCount": "50"}, fill=lambda made, server: load(server, 100))
simple("3.9.3-load-killed", "3.9.3", "kill", {"snapCount": "100"}, fill=lambda made, server: load(server, 600, until=lambda: killed_at(server, 700)))


@story
def every_version_in_turn(made):
    """One directory through all upgrades, each with other settings."""
    turns = [("3.3.2", {}), ("3.4.6", {}), ("3.4.14", {}), ("3.5.5", {}), ("3.5.10", {}), ("3.6.0", {"digest.enabled": "false"}), ("3.6.4", GZ),
             ("3.7.2", SNAPPY), ("3.8.0", {"closeSessionTxn.enabled": "false"}), ("3.8.6", GZ), ("3.9.0", {}), ("3.9.6", SNAPPY)]
    settings = {"snapCount": "30", "extendedTypesEnabled": "false"}
    for turn, (version, flags) in enumerate(turns):
        with made.served_by(version, ["stop", "kill"][turn % 2], settings, {**flags, "snapshot.trust.empty": "true"}) as server:
            with takeover.as_super(server.port) as session:
                ok(session, CREATE, create(f"/v{version}", version.encode()))
                ok(session, CREATE, create(f"/v{version}/a", None, acls=[(31, "digest", f"{version}:{'z' * 27}=")]))
                ok(session, CREATE, create(f"/v{version}/b-", b"", flags=2))
                ok(session, SET, set_data("/", version.encode()))
                for _ in range(turn):
                    ok(session, SET, set_data(f"/v{version}", b"again"))
                session.call(CLOSE)
            stays = made.stays_open(server)
            ok(stays, CREATE, create(f"/v{version}/e", b"", flags=1))


@story
def digests_on_and_off(made):
    """Records with and without a digest in one history."""
    for turn in range(4):
        with made.served_by("3.7.2", "kill", {"snapCount": "25"}, {"digest.enabled": str(turn % 2 == 0).lower()}) as server:
            basics(made, server, f"/turn{turn}")


@story
def compression_changes(made):
    """Snapshots of all three kinds; the newest is plain."""
    for turn, flags in enumerate((GZ, SNAPPY, {})):
        with made.served_by("3.8.6", "stop", {"snapCount": "30"}, flags) as server:
            basics(made, server, f"/turn{turn}")


@story
def snapshot_alone(made):
    """Nothing but a snapshot: its logs are lost or removed. What it shows is all there is."""
    with made.served_by("3.8.6", "stop") as server:
        everything(made, server)
    # A start takes a snapshot of all.
    with made.served_by("3.8.6", "stop"):
        pass
    for log in made.logs:
        log.unlink()


@story
def logs_alone(made):
    """As of a 3.4 that never took a snapshot; 3.5.3 and later read it with snapshot.trust.empty."""
    with made.served_by("3.4.14", "kill") as server:
        everything(made, server)
    for snapshot in made.snapshots:
        snapshot.unlink()


@story
def purged(made):
    """By Java's own tool: old snapshots and logs are gone."""
    with made.served_by("3.5.8", "kill", ROLLS) as server:
        everything(made, server)
    tool = ["java", "-cp", classpath("3.5.8"), "org.apache.zookeeper.server.PurgeTxnLog"]
    subprocess.run([*tool, str(made.folder / "data"), str(made.folder / "data"), "-n", "3"], check=True, capture_output=True)
    assert len(made.snapshots) == 3


@story
def torn_record(made):
    """The last record is cut short, as a loss of power leaves it."""
    with made.served_by("3.7.2", "kill") as server:
        everything(made, server)
    log = made.logs[-1]
    bytes_ = log.read_bytes()
    end = len(bytes_.rstrip(b"\0"))
    log.write_bytes(bytes_[:end - 20] + bytes(len(bytes_) - end + 20))


@story
def torn_in_its_head(made):
    """Of the last record only the first bytes are there; and the file ends with them."""
    with made.served_by("3.9.3", "kill") as server:
        everything(made, server)
    log = made.logs[-1]
    records = log.read_bytes().rstrip(b"\0")
    log.write_bytes(records + bytes(4) + b"\x12\x34")


@story
def empty_log(made):
    """The next log was created and never written. Versions before 3.9 do not start on it."""
    with made.served_by("3.9.5", "kill", ROLLS) as server:
        everything(made, server)
    last = takeover.restored([made.folder], [{}])[0]["last"]
    (made.logs[-1].parent / f"log.{last + 1:x}").write_bytes(b"")


@story
def log_of_a_header(made):
    """The next log has its header and zeros."""
    with made.served_by("3.5.5", "kill", ROLLS) as server:
        everything(made, server)
    last = takeover.restored([made.folder], [{}])[0]["last"]
    (made.logs[-1].parent / f"log.{last + 1:x}").write_bytes(made.logs[-1].read_bytes()[:16] + bytes(65536 - 16))


@story
def partial_snapshot(made):
    """The newest snapshot was being written when the server was killed."""
    with made.served_by("3.4.14", "kill", ROLLS) as server:
        everything(made, server)
    newest = made.snapshots[-1]
    newest.write_bytes(newest.read_bytes()[:-200])


@story
def partial_gz_snapshot(made):
    with made.served_by("3.8.4", "kill", ROLLS, GZ) as server:
        everything(made, server)
    newest = made.snapshots[-1]
    newest.write_bytes(newest.read_bytes()[:-100])


@story
def empty_snapshot(made):
    """As a full disk leaves it."""
    with made.served_by("3.6.0", "kill", ROLLS) as server:
        everything(made, server)
    made.snapshots[-1].write_bytes(b"")


@story
def other_files(made):
    """Files that servers, tools and people leave beside the data."""
    with made.served_by("3.9.0", "stop", ROLLS) as server:
        everything(made, server)
    for name in ("myid", "zookeeper_server.pid", "version-2.bak"):
        (made.folder / "data" / name).write_text("1")
    newest = made.snapshots[-1]
    for name in (f"{newest.name}.bak", "log.old", "snapshot.tmp", ".snapshot.12.swp", "core.1234", "lost+found"):
        (made.files / name).write_bytes(b"rubbish")
    (made.files / "acceptedEpoch").write_text("0")
    (made.files / "currentEpoch").write_text("0")


def one_of_one(made, version, flags=None):
    """An ensemble of one server: epochs, a configuration in the tree, reconfigurations."""
    election, quorum = free_port(), free_port()
    (made.folder / "data").mkdir(exist_ok=True)
    (made.folder / "data" / "myid").write_text("1")
    settings = {"snapCount": "60", "standaloneEnabled": "false", "reconfigEnabled": "true", "initLimit": "10", "syncLimit": "5"}
    dynamic = made.folder / "dynamic"
    dynamic.write_text(f"server.1=127.0.0.1:{quorum}:{election}:participant;127.0.0.1:{free_port()}\n")
    for turn in range(3):
        current = next(iter(sorted(made.folder.glob("dynamic.next"))), dynamic)
        with ensemble_server(made, version, "stop" if turn else "kill", {**settings, "dynamicConfigFile": str(current)}, flags) as server:
            everything(made, server, f"/turn{turn}")
            with takeover.as_super(server.port) as session:
                # An observer that never comes: its line is in the configuration.
                joining = f"server.{turn + 2}=127.0.0.1:{free_port()}:{free_port()}:observer;127.0.0.1:{free_port()}"
                body = ustring(joining) + ustring(None) + ustring(None) + struct.pack(">q", -1)
                assert session.call(RECONFIG, body)[1] == 0


@contextlib.contextmanager
def ensemble_server(made, version, end, settings, flags):
    """Its client port is in the dynamic file, which the server replaces by itself."""
    dynamic = pathlib.Path(settings["dynamicConfigFile"])
    settings = {key: value for key, value in settings.items() if key != "dynamicConfigFile"}
    made.writers.append(version)
    settings = {"preAllocSize": "64", **takeover.SUPER, **settings}
    server = Server(settings, flags_of(flags), data=made.folder, java=True, classpath=classpath(version))
    line = dynamic.read_text().splitlines()[0]
    server.settings["server.1"] = line.split("=", 1)[1].split(";")[0]
    server.start()
    try:
        yield server
    finally:
        server.kill() if end == "kill" else server.stop()
        for session in made.open:
            session.close()
        made.open.clear()
        for left in made.folder.glob("zoo.cfg*"):
            left.unlink()


STORIES["3.5.10-ensemble"] = lambda made: one_of_one(made, "3.5.10")
STORIES["3.9.6-ensemble"] = lambda made: one_of_one(made, "3.9.6")


# Looking.


def look(folder, report, version):
    """What a server of that version of Java's says that is started on a copy."""
    with copy_of(folder) as copy, takeover.server_of(copy, report, classpath(version)) as server:
        return as_newer(takeover.seen(server), version, report)


def as_newer(report, version, expected):
    """What an old version shows, as it is shown since."""
    shown = report["znodes"]
    if numbers(version) < (3, 4):
        # The number of changes of the children was counted in another way.
        for path, (_, stat, _) in shown.items():
            stat[5] = expected["znodes"].get(path, (None, stat))[1][5]
    if "/zookeeper/config" in expected["znodes"] and "/zookeeper/config" not in shown:
        # Since 3.5.
        for path in ("/zookeeper", "/zookeeper/config"):
            shown[path] = expected["znodes"][path]
    return report


@contextlib.contextmanager
def copy_of(folder):
    with tempfile.TemporaryDirectory(prefix="zabra-takeover-") as copy:
        copy = pathlib.Path(copy)
        for part in ("data", "datalog"):
            if (folder / part).exists():
                shutil.copytree(folder / part, copy / part)
        yield copy


def compare(name, who, expected, got):
    found = takeover.differences(expected, got)
    for what, one, other in found[:8]:
        print(f"  {name}: {who}: {what}\n    {one}\n    {other}")
    print(f"  {name}: {who}: {'equal' if not found else f'{len(found)} DIFFERENT'}", flush=True)
    return not found


def make(name):
    """Writes the directory and what Java restores from it."""
    with tempfile.TemporaryDirectory(prefix="zabra-directory-") as folder:
        folder = pathlib.Path(folder)
        made = Made(folder)
        STORIES[name](made)
        # Before 3.4.6 the numbers of sessions begin with 0xff, as containers and TTLs do where these are allowed. And 3.9 reads a
        # snapshot without a digest and with its last transaction only where it writes such ones.
        settings = {"extendedTypesEnabled": str("3.3.2" not in made.writers).lower(),
                    "digest.enabled": str(name != "3.9.3-last-zxid-no-digest").lower()}
        with copy_of(folder) as copy:
            held = takeover.restored([copy], [settings])[0]
        alive = sorted(map(int, held["sessions"]))
        passwords = {session: password for session, password in made.passwords.items() if session in alive}
        report = {**held, "alive": alive, "passwords": passwords, "made": {"by": made.writers, "of": tell_of(name)}, "settings": settings}
        takeover.pack(folder, report, packed(name))
        print(f"{name}: {packed(name).stat().st_size} bytes, {len(report['znodes'])} znodes, {len(alive)} sessions, {len(made.logs)} logs, "
              f"{len(made.snapshots)} snapshots", flush=True)


def check(name):
    """Whether all servers say the same of it, before Zabra took it over and afterwards."""
    with tempfile.TemporaryDirectory(prefix="zabra-directory-") as folder, tempfile.TemporaryDirectory(prefix="zabra-taken-") as other:
        folder = pathlib.Path(folder)
        report = takeover.unpack(packed(name), folder)
        versions = dict.fromkeys([*NEWEST, report["made"]["by"][-1]])
        before = [compare(name, f"Java {version}", report, look(folder, report, version)) for version in versions]
        taken = takeover.Taken(packed(name), pathlib.Path(other))
        before.append(compare(name, "Zabra", report, taken.found))
        left = {key: taken.left[key] for key in ("znodes", "last", "alive")} | {"settings": report["settings"]}
        after = [compare(name, f"Java {version} after Zabra", left, look(taken.folder, left, version)) for version in versions]
        return all(before + after)


def packed(name):
    return takeover.DIRECTORIES / f"{name}.tar.gz"


def tell_of(name):
    return (STORIES[name].__doc__ or name).split("\n")[0]


def main():
    words = sys.argv[1:]
    makes = words[:1] != ["--check"]
    names = (words if makes else words[1:]) or list(STORIES)
    bad = []
    for name in names:
        try:
            if makes:
                make(name)
            if not check(name):
                bad.append(name)
        except Exception as error:  # the others are made all the same
            print(f"{name}: FAILED {type(error).__name__}: {str(error)[:1500]}", flush=True)
            bad.append(name)
    print("all equal" if not bad else f"different: {' '.join(bad)}")
    sys.exit(bool(bad))


if __name__ == "__main__":
    main()
