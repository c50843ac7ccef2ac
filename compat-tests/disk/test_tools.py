"""The commands for files, on logs and snapshots of a real Java server and of ours."""
import json
import random
import re
import shutil
import struct
import subprocess
import threading

import pytest
from harness.server import BINARY, IS_JAVA, JAVA_CLASSPATH, Server
from harness.wire import CREATE, CREATE2, DELETE, SET, Session, create, set_data, ustring
from kazoo.client import KazooClient

pytestmark = pytest.mark.skipif(IS_JAVA, reason="it starts both servers itself")
SETTINGS = {"extendedTypesEnabled": "true", "snapCount": "40", "preAllocSize": "64"}
WRITES = 90


def run(*words, code=0):
    """What the command prints, once it ended with `code`."""
    ended = subprocess.run([BINARY, *map(str, words)], capture_output=True, text=True, timeout=120)
    assert ended.returncode == code, f"{words}: {ended.returncode}\n{ended.stdout}\n{ended.stderr}"
    return ended.stdout + ended.stderr


def rows(*words, code=0):
    return [json.loads(line) for line in run(*words, code=code).splitlines() if line.startswith("{")]


def fill(server):
    """The same requests in the same order, whoever serves them."""
    with Session(server.port) as session:
        assert session.call(CREATE, create("/app", b"0"))[1] == 0
        for number in range(WRITES):
            assert session.call(CREATE, create(f"/app/n{number}", b"x" * number))[1] == 0
            assert session.call(SET, set_data("/app", str(number).encode()))[1] == 0
        assert session.call(CREATE, create("/app", b"again"))[1] == -110
        assert session.call(CREATE2, create("/e", b"e", flags=1))[1] == 0
        return session.session


@pytest.fixture(scope="module", params=[True, False], ids=["java", "zabra"])
def written(request, tmp_path_factory):
    """A server's directory with snapshots and several logs, after its end, and the session that wrote."""
    server = Server(SETTINGS, data=tmp_path_factory.mktemp("java" if request.param else "zabra"), java=request.param)
    server.start()
    session = fill(server)
    server.stop()
    assert len(list(server.files.glob("snapshot.*"))) >= 2
    assert len(list(server.files.glob("log.*"))) >= 2
    return server, session


def changes(server):
    """What each transaction changed, without what differs from run to run."""
    found = rows("log", server.dir / "data", "--json", "--data")
    return [(int(row["zxid"], 16), row["change"]) for row in found if "change" in row]


def test_both_servers_logs_say_the_same_of_the_same_requests(tmp_path_factory):
    said = []
    for java in (True, False):
        with Server(SETTINGS, data=tmp_path_factory.mktemp("same"), java=java) as server:
            fill(server)
        said.append(changes(server))
    # Java's server snapshots when it likes, but what it logs is what was asked for.
    assert said[0] == said[1]
    assert len(said[0]) > 2 * WRITES


def test_the_log_answers_who_when_and_what(written):
    server, session = written
    session = hex(session)
    data = server.dir / "data"
    last = rows("log", "last", "/app", data, "--json", "--data")
    assert [row["session"] for row in last] == [session]
    assert last[0]["change"]["data"] == str(WRITES - 1)
    found = rows("log", data, "--json", "--prefix", "/app", "--session", session, "--type", "create")
    assert len([row for row in found if "change" in row]) == WRITES + 1
    middle = last[0]["zxid"]
    assert [row["zxid"] for row in rows("log", data, "--json", "--from-zxid", middle, "--to-zxid", middle) if "change" in row] == [middle]
    run("log", "last", "/never", data, code=1)


def test_whole_files_are_clean(written):
    server, _ = written
    run("log", "verify", server.dir / "data")
    said = run("snapshot", "verify", server.dir / "data")
    assert "all equal" in said and "DAMAGED" not in said, said


def test_each_command_names_the_other_for_the_other_kind_of_file(written):
    server, _ = written
    snapshot = next(server.files.glob("snapshot.*"))
    assert "use: zabra snapshot" in run("log", snapshot, code=2)
    assert "use: zabra log" in run("snapshot", next(server.files.glob("log.*")), code=2)


def test_the_tree_of_a_directory_is_what_clients_see(written):
    server, _ = written
    znodes = {row["path"]: row for row in rows("snapshot", server.dir / "data", "--json", "--data") if "path" in row}
    assert znodes["/app"]["data"] == str(WRITES - 1)
    assert {f"/app/n{number}" for number in range(WRITES)} <= set(znodes)
    summary = rows("snapshot", "summary", server.dir / "data", "--json")[0]
    app = next(row for row in summary["subtrees"] if row["path"] == "/app")
    assert app["znodes"] == WRITES + 1
    assert app["bytes"] == sum(range(WRITES)) + len(str(WRITES - 1))


def value(directory, java):
    """What a server that is started on it shows."""
    with Server(SETTINGS, data=directory, java=java) as server:
        client = KazooClient(server.hosts, timeout=20)
        client.start(timeout=20)
        try:
            return client.get("/app")[0].decode(), len(client.get_children("/app"))
        finally:
            client.stop()
            client.close()


@pytest.mark.parametrize("starts_java", [True, False], ids=["java-starts", "zabra-starts"])
@pytest.mark.parametrize("verb", ["mend", "chop"])
def test_a_new_log_is_read_by_both_servers(written, tmp_path, verb, starts_java):
    server, _ = written
    copy = tmp_path / "data" / "version-2"
    shutil.copytree(server.files, copy, ignore=shutil.ignore_patterns("zabra.lock"))
    # The newest log with some writes in it is the last one here; a snapshot before it stays.
    logs = sorted(copy.glob("log.*"), key=lambda path: int(path.name[4:], 16))
    while len(sets := [row for row in rows("log", logs[-1], "--json") if row.get("type") == "setData"]) < 4:
        logs.pop().unlink()
    log = logs[-1]
    for snapshot in copy.glob("snapshot.*"):
        if int(snapshot.name[9:], 16) >= int(log.name[4:], 16):
            snapshot.unlink()
    txns = [row for row in rows("log", log, "--json") if "change" in row]
    upto = next(row for row in txns if row["zxid"] == sets[-2]["zxid"])
    out = tmp_path / "out"
    out.mkdir()
    if verb == "chop":
        run("log", "chop", log, "--after", upto["zxid"], "--to", out)
    else:
        after = txns[txns.index(upto) + 1]
        damaged = bytearray(log.read_bytes())
        damaged[after["offset"] + 40] ^= 1
        log.write_bytes(damaged)
        assert "no record" in run("log", "verify", log, code=1)
        run("log", "mend", log, "--to", out, code=1)
        assert log.read_bytes() == damaged, "the input stays"
    run("log", "verify", out / log.name)
    shutil.move(out / log.name, log)
    # As the help says: this server had more.
    (copy / "zabra.synced").unlink(missing_ok=True)
    znodes = {row["path"]: row for row in rows("snapshot", copy, "--json", "--data") if "path" in row}
    expected = znodes["/app"]["data"], sum(path.startswith("/app/") for path in znodes)
    assert znodes["/app"]["mzxid"] == upto["zxid"]
    assert value(tmp_path, starts_java) == expected


def test_a_follower_of_the_log_sees_each_write_and_the_next_log(tmp_path):
    """Across the roll that comes with a snapshot."""
    with Server(SETTINGS, data=tmp_path) as server:
        with Session(server.port) as session:
            assert session.call(CREATE, create("/app", b"0"))[1] == 0
            following = subprocess.Popen(
                [BINARY, "log", str(tmp_path / "data"), "--follow", "--path", "/app"], stdout=subprocess.PIPE, text=True)
            # A line that never comes ends the test, too.
            limit = threading.Timer(120, following.kill)
            limit.start()
            try:
                assert "create /app" in following.stdout.readline()
                for number in range(WRITES):
                    assert session.call(SET, set_data("/app", b"1"))[1] == 0
                    # Each line comes as the write does: the next one is not written before.
                    assert f"setData /app data=1 bytes version={number + 1}" in following.stdout.readline()
            finally:
                limit.cancel()
                following.terminate()
                following.wait(30)
                following.stdout.close()
        assert len(list(server.files.glob("log.*"))) >= 2, "the log was rolled meanwhile"


def tree(path):
    return {row["path"]: row for row in rows("snapshot", path, "--json", "--data") if "path" in row}


@pytest.mark.parametrize("java", [True, False], ids=["java", "zabra"])
def test_a_backup_of_a_running_server_is_one_point_of_it(tmp_path, java):
    with Server(SETTINGS, data=tmp_path, java=java) as server:
        with Session(server.port) as session:
            assert session.call(CREATE, create("/app", b"0"))[1] == 0
            for number in range(60):
                assert session.call(CREATE, create(f"/app/n{number}", b"x"))[1] == 0
            said = run("backup", tmp_path / "data", "--to", tmp_path / "backup")
            assert "digests compared" in said
            assert session.call(CREATE, create("/app/later", b"x"))[1] == 0
            found = tree(tmp_path / "backup")
            assert {f"/app/n{number}" for number in range(60)} <= set(found)
            assert "/app/later" not in found
            assert "exists" in run("backup", tmp_path / "data", "--to", tmp_path / "backup", code=2)
            streamed = subprocess.run([BINARY, "backup", tmp_path / "data", "--to", "-"], capture_output=True, timeout=120, check=True)
            (tmp_path / "streamed").write_bytes(streamed.stdout)
            assert "/app/later" in tree(tmp_path / "streamed")


@pytest.mark.parametrize("starts_java", [True, False], ids=["java-starts", "zabra-starts"])
def test_a_server_goes_on_from_what_is_restored(written, tmp_path, starts_java):
    server, _ = written
    sets = [row for row in rows("log", server.dir / "data", "--json", "--data") if row.get("type") == "setData"]
    then = sets[len(sets) // 3]
    words = ["restore", server.dir / "data", "--to-zxid", then["zxid"]]
    said = run(*words, "--dry-run")
    assert "left out" in said and "setData" in said
    run(*words, "--into", tmp_path / "data")
    assert value(tmp_path, starts_java) == (then["change"]["data"], sets.index(then) + 1)
    run("snapshot", "compare", server.dir / "data", tmp_path / "data", code=1)


def java_tool(name, *words):
    """What Java's tool prints, once it ended well."""
    command = ["java", "-Xmx1g", "-cp", JAVA_CLASSPATH, f"org.apache.zookeeper.server.{name}", *map(str, words)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=120)
    said = ended.stdout + ended.stderr
    assert ended.returncode == 0 and "Exception" not in said and "CRC" not in said, f"{command}: {ended.returncode}\n{said}"
    return said


def test_javas_tools_read_what_zabra_writes(tmp_path):
    """Logs and snapshots of the server, and what each command makes of them."""
    with Server(SETTINGS, data=tmp_path) as server:
        fill(server)
        run("backup", tmp_path / "data", "--to", tmp_path / "snapshot.backup")
    logs = sorted(server.files.glob("log.*"), key=lambda path: int(path.name[4:], 16))
    snapshots = sorted(server.files.glob("snapshot.*"), key=lambda path: int(path.name[9:], 16))
    txns = [row for row in rows("log", logs[0], "--json") if "change" in row]
    run("log", "chop", logs[0], "--after", txns[len(txns) // 2]["zxid"], "--to", tmp_path / "log.chopped")
    run("log", "mend", logs[0], "--to", tmp_path / "log.mended")
    for log in [logs[0], tmp_path / "log.chopped", tmp_path / "log.mended"]:
        zxids = [int(row["zxid"], 16) for row in rows("log", log, "--json") if "change" in row]
        said = java_tool("persistence.TxnLogToolkit", log)
        assert [int(zxid, 16) for zxid in re.findall(r" zxid (0x[0-9a-f]+) ", said)] == zxids
    backup = tmp_path / f"snapshot.{rows('snapshot', tmp_path / 'snapshot.backup', '--json')[-1]['zxid'][2:]}"
    (tmp_path / "snapshot.backup").rename(backup)
    early = snapshots[1]
    run("restore", tmp_path / "data", "--to-zxid", f"0x{early.name[9:]}", "--into", tmp_path / "then")
    restored = tmp_path / "then" / "version-2" / early.name
    for snapshot in [early, restored, backup]:
        paths = {row["path"] for row in rows("snapshot", snapshot, "--json") if "path" in row}
        assert set(re.findall(r"^(/.*)\n  cZxid", java_tool("SnapshotFormatter", snapshot), re.M)) == paths
    compared = java_tool("SnapshotComparer", "--left", early, "--right", restored, "--bytes", 0, "--nodes", 0)
    assert "All layers compared" in compared and "found only in" not in compared
    run("snapshot", "compare", early, restored)
    compared = java_tool("SnapshotComparer", "--left", restored, "--right", backup, "--bytes", 0, "--nodes", 0)
    new = re.findall(r"^Node (/.*) found only in right tree", compared, re.M)
    assert new and set(new) == set(re.findall(r"^\+ (/.*)$", run("snapshot", "compare", restored, backup, code=1), re.M))


class History:
    """What clients did, and the tree that they saw after each transaction."""

    def __init__(self, random):
        self.random, self.tree, self.points = random, {}, {}

    def write(self, session, count):
        for _ in range(count):
            kind, body, after = self.choose()
            zxid, error = session.call(kind, body)[:2]
            assert error == 0
            self.tree = after
            self.points[zxid] = after

    def choose(self):
        """A request, and the tree after it."""
        path = f"/n{self.random.randrange(30)}"
        data = str(self.random.random()).encode()
        if path not in self.tree:
            return CREATE, create(path, data), {**self.tree, path: data.decode()}
        if self.random.random() < 0.3:
            return DELETE, ustring(path) + struct.pack(">i", -1), {at: was for at, was in self.tree.items() if at != path}
        return SET, set_data(path, data), {**self.tree, path: data.decode()}


@pytest.mark.parametrize("java", [True, False], ids=["java", "zabra"])
def test_each_of_50_random_points_is_the_tree_that_clients_had(tmp_path, java):
    """A snapshot now and then; new sessions and a restart are transactions, too."""
    seed = random.randrange(1 << 32)
    print("seed", seed)
    history = History(random.Random(seed))
    server = Server(SETTINGS, data=tmp_path, java=java)
    for _ in range(2):
        with server, Session(server.port) as session:
            history.write(session, 150)
    for zxid in history.random.sample(sorted(history.points), 50):
        into = tmp_path / f"at{zxid}"
        run("restore", tmp_path / "data", "--to-zxid", hex(zxid), "--into", into)
        found = {path: row["data"] for path, row in tree(into).items() if path.startswith("/n")}
        assert found == history.points[zxid], hex(zxid)
