"""What a server shows of a directory, in one form whoever serves it; and what Java's own restore makes of its files."""
import base64
import gzip
import io
import json
import pathlib
import re
import struct
import subprocess
import tarfile
import tempfile

from harness.server import BINARY, JAVA_CLASSPATH, Server
from harness.wire import AUTH, CHILDREN, CLOSE, CREATE, DELETE, GET, SET, Fields, Session, buffer, create, set_data, ustring, watched

HERE = pathlib.Path(__file__).resolve().parent
DIRECTORIES = HERE / "directories"
GET_ACL = 6
STAT = struct.Struct(">qqqqiiiqiiq")
# Nothing may change by itself while a server is looked at: no container goes, no TTL ends.
STILL = {"znode.container.checkIntervalMs": "3600000"}
JAVA_FLAGS = {**STILL, "zookeeper.snapshot.trust.empty": "true", "zookeeper.serializeLastProcessedZxid.enabled": "true"}
SUPER = {
    "DigestAuthenticationProvider.superDigest": "super:D/InIHSb7yEEbrWz8b9l71RjZJU=",
    "extendedTypesEnabled": "true",
    "tickTime": "2000",
}


def as_super(port, **rest):
    session = Session(port, **rest)
    assert session.call(AUTH, struct.pack(">i", 0) + ustring("digest") + buffer(b"super:test"), xid=-4)[1] == 0
    return session


def znodes(port):
    """Every path with its data, stat and ACL, as a client sees them that may read everything."""
    found, pending = {}, ["/"]
    with as_super(port, timeout_ms=40_000, timeout=60) as session:
        while pending:
            path = pending.pop()
            body = Fields(answer(session, GET, watched(path)))
            data, stat = body.buffer(), body.take(STAT.format)
            acls = Fields(answer(session, GET_ACL, ustring(path))).acl()
            found[path] = [data if data is None else base64.b64encode(data).decode(), list(stat), [list(acl) for acl in acls]]
            pending += [path.rstrip("/") + "/" + name for name in Fields(answer(session, CHILDREN, watched(path))).strings()]
        session.call(CLOSE)
    return found


def answer(session, op, body):
    _, error, rest = session.call(op, body)
    assert error == 0, (op, body, error)
    return rest


def seen(server):
    """What a running server shows: before anybody connects to it, the last transaction and the sessions."""
    sessions = re.findall(r"^\s*0x([0-9a-f]+)", server.word("dump").split("phemeral")[0], re.M)
    return {"last": last_of(server), "alive": sorted(map(signed, sessions)), "znodes": znodes(server.port)}


def last_of(server):
    """Its last transaction."""
    return int(re.search(r"^Zxid: 0x([0-9a-f]+)", server.word("srvr"), re.M).group(1), 16)


def signed(digits):
    """A session as Java has it."""
    return struct.unpack(">q", int(digits, 16).to_bytes(8, "big"))[0]


def restored(folders, settings):
    """What Java's restore finds in each server's folder, with what no client sees: the timeouts of sessions, the owners of
    containers and TTL znodes, the digest, and how many transactions ended in another digest than they say."""
    with tempfile.NamedTemporaryFile("w", suffix=".xml") as logback:
        logback.write('<configuration><root level="OFF"/></configuration>')
        logback.flush()
        flags = ["-Dzookeeper.snapshot.trust.empty=true", f"-Dlogback.configurationFile={logback.name}"]
        command = ["java", "-Xmx1g", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", *flags, "-cp", JAVA_CLASSPATH, str(HERE / "State.java")]
        for folder, each in zip(folders, settings, strict=True):
            command += [each.get("extendedTypesEnabled", "true"), each.get("digest.enabled", "true"), str(folder / "data"), str(log_dir(folder))]
        ended = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert ended.returncode == 0, ended.stderr
    return [json.loads(line) for line in ended.stdout.splitlines()]


def log_dir(folder):
    """Where a server's folder has its logs."""
    return folder / "datalog" if (folder / "datalog").exists() else folder / "data"


def server_of(folder, report, classpath=None):
    """A server alone on a folder: Java's of these jars, or Zabra."""
    settings = {"dataLogDir": str(log_dir(folder)), "snapCount": "4", "preAllocSize": "64", **SUPER, **report["settings"]}
    if classpath:
        return Server(settings, JAVA_FLAGS, data=folder, java=True, classpath=classpath)
    return Server(settings, STILL, data=folder, java=False)


def write_a_bit(server, report):
    """Some writes of each kind that every version knows, and the end of a session that was there, if one was. One that begins
    here stays."""
    taken = next(iter(report["passwords"].items()), None)
    with as_super(server.port) as session:
        assert session.call(CREATE, create("/left", b"by the one that took over"))[1] == 0
        assert session.call(CREATE, create("/left/e", b"", flags=1))[1] == 0
        assert session.call(CREATE, create("/left/s-", None, flags=2))[1] == 0
        assert session.call(SET, set_data("/left", b"changed"))[1] == 0
        leaf = next((path for path, (_, stat, _) in sorted(report["znodes"].items()) if is_leaf(path, stat)), None)
        if leaf:
            assert session.call(SET, set_data(leaf, b"new"))[1] == 0
            assert session.call(DELETE, ustring(leaf) + struct.pack(">i", -1))[1] == 0
        if taken:
            with Session(server.port, session=int(taken[0]), passwd=bytes.fromhex(taken[1]), timeout_ms=40_000) as other:
                assert other.session == int(taken[0])
                assert other.call(CLOSE)[1] == 0
        stays = Session(server.port, timeout_ms=30_000)
        assert stays.call(CREATE, create("/left/stays", b"", flags=1))[1] == 0
        stays.close()
        assert session.call(CLOSE)[1] == 0


def is_leaf(path, stat):
    """Whether it may go."""
    return not path.startswith("/zookeeper") and path != "/" and stat[9] == 0


class Taken:
    """A directory that Zabra has taken over, has written to, and has left."""

    def __init__(self, packed, folder):
        self.folder = folder
        self.report = unpack(packed, folder)
        timeouts = sessions_of(folder)
        with server_of(folder, self.report) as server:
            digest = digest_of(server)
            self.found = {**seen(server), "sessions": timeouts, "digest": digest}
            write_a_bit(server, self.report)
            self.left = seen(server)
            self.left |= {"last": last_of(server), "digest": digest_of(server), "mismatches": 0}
            # Java shall begin with a snapshot of Zabra's: older ones go, as they do in time.
            newest = server.wait_until("no new snapshot", lambda: newest_after(server.files, self.report["last"]), 30)
        for snapshot in server.files.glob("snapshot.*"):
            if snapshot != newest:
                snapshot.unlink()
        self.left["owners"] = {path: owner for path, owner in self.report["owners"].items() if path in self.left["znodes"]}


def newest_after(files, zxid):
    """The newest snapshot, if it shows a later transaction."""
    plain = [path for path in files.glob("snapshot.*") if re.fullmatch(r"[0-9a-f]+", path.name[9:])]
    newest = max(plain, key=lambda path: int(path.name[9:], 16), default=None)
    return newest if newest and int(newest.name[9:], 16) > zxid else None


def digest_of(server):
    return re.search(r"^[0-9a-f]+: ([0-9]+)$", server.word("hash"), re.M).group(1)


def sessions_of(folder):
    """With their timeouts, as the command for files reads them."""
    words = [BINARY, "snapshot", str(folder / "data"), "--log-dir", str(log_dir(folder)), "--json"]
    said = subprocess.run(words, capture_output=True, text=True, timeout=120, check=True).stdout
    rows = [row for row in map(json.loads, said.splitlines()) if "timeout" in row]
    return {str(signed(row["session"][2:])): row["timeout"] for row in rows}


def differences(one, other):
    """Where two reports differ, for people: field, and the value of each. Only what both have is compared."""
    found = []
    for key in sorted((set(one) & set(other)) - {"znodes", "passwords", "made", "settings"}):
        if one[key] != other[key]:
            found.append((key, one[key], other[key]))
    if "znodes" in one and "znodes" in other:
        for path in sorted(set(one["znodes"]) | set(other["znodes"])):
            left, right = one["znodes"].get(path), other["znodes"].get(path)
            if left != right:
                found.append((path, left, right))
    return found


def pack(folder, report, to):
    """One small file: `report.json` and the server's directories."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        text = json.dumps(report, indent=0, sort_keys=True).encode()
        entry = tarfile.TarInfo("report.json")
        entry.size = len(text)
        tar.addfile(entry, io.BytesIO(text))
        for part in ("data", "datalog"):
            for path in sorted((folder / part).rglob("*")):
                tar.add(path, str(path.relative_to(folder)), recursive=False, filter=without_owner)
    to.write_bytes(gzip.compress(packed.getvalue(), 9, mtime=0))


def without_owner(entry):
    entry.uid = entry.gid = 0
    entry.uname = entry.gname = ""
    return entry


def unpack(packed, folder):
    """Puts the directories into a folder, and returns the report."""
    with tarfile.open(packed) as tar:
        tar.extractall(folder)
    return json.loads((folder / "report.json").read_text())
