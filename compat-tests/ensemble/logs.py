"""Reads txn logs, Java's and ours: every transaction that a server has, or had.

Shares no code with the server: the history checker trusts it.
"""
import os
import pathlib
import struct
import zlib
from collections import namedtuple

Header = namedtuple("Header", "session cxid zxid time kind")
CREATE, DELETE, SET, SET_ACL, CHECK, MULTI, CREATE2, RECONFIG = 1, 2, 5, 7, 13, 14, 15, 16
CREATE_CONTAINER, DELETE_CONTAINER, CREATE_TTL, CREATE_SESSION, CLOSE_SESSION, ERROR = 19, 20, 21, -10, -11, -1


class Damaged(Exception):
    """A log that no server should have left."""


def records(path):
    """(zxid, body) of each record of one file; a torn end is an end."""
    data = path.read_bytes()
    if len(data) < 16:
        return
    magic, version, _ = struct.unpack_from(">iiq", data)
    if (magic, version) != (0x5A4B4C47, 2):
        raise Damaged(f"{path}: begins with {magic:#x}, {version}")
    at = 16
    while at + 12 <= len(data):
        checksum, length = struct.unpack_from(">qi", data, at)
        if length == 0:
            return
        body = data[at + 12:at + 12 + length]
        if len(body) < length or data[at + 12 + length:at + 13 + length] != b"B":
            return
        if zlib.adler32(body) != checksum:
            raise Damaged(f"{path}: a checksum is wrong at {at}")
        yield struct.unpack_from(">q", body, 12)[0], body
        at += 13 + length


def log_files(directory):
    found = [path for path in pathlib.Path(directory).glob("log.*") if path.suffix != ".tmp"]
    return sorted(found, key=lambda path: int(path.name.split(".")[1], 16))


class Body:
    """Reads a transaction's record."""

    def __init__(self, data, at=0):
        self.data, self.at = data, at

    def int(self):
        self.at += 4
        return struct.unpack_from(">i", self.data, self.at - 4)[0]

    def long(self):
        self.at += 8
        return struct.unpack_from(">q", self.data, self.at - 8)[0]

    def bool(self):
        self.at += 1
        return self.data[self.at - 1] != 0

    def buffer(self):
        length = self.int()
        if length < 0:
            return None
        self.at += length
        return self.data[self.at - length:self.at]

    def string(self):
        return self.buffer().decode()

    def acl(self):
        return [(self.int(), self.string(), self.string()) for _ in range(self.int())]


def header(body):
    return Header(*struct.unpack_from(">qiqqi", body))


def change(kind, fields):
    """A transaction's record as a tuple that begins with its kind."""
    if kind in (CREATE, CREATE2):
        path, data, acl, ephemeral = fields.string(), fields.buffer(), fields.acl(), fields.bool()
        return "create", path, data, acl, ephemeral, fields.int()
    if kind in (CREATE_CONTAINER, CREATE_TTL):
        path, data, acl, cversion = fields.string(), fields.buffer(), fields.acl(), fields.int()
        if kind == CREATE_TTL:
            fields.long()
        return "create", path, data, acl, False, cversion
    if kind in (DELETE, DELETE_CONTAINER):
        return "delete", fields.string()
    if kind in (SET, RECONFIG):
        return "set", fields.string(), fields.buffer(), fields.int()
    if kind == SET_ACL:
        return "acl", fields.string(), fields.acl(), fields.int()
    if kind == CHECK:
        return "check", fields.string(), fields.int()
    if kind == CREATE_SESSION:
        return "begin", fields.int()
    if kind == CLOSE_SESSION:
        return "end", [fields.string() for _ in range(fields.int())] if fields.at < len(fields.data) else None
    if kind == ERROR:
        return "error", fields.int()
    if kind == MULTI:
        parts = []
        for _ in range(fields.int()):
            kind = fields.int()
            parts.append(change(kind, Body(fields.buffer())))
        return "multi", parts
    raise Damaged(f"an unknown transaction {kind}")


def decode(body):
    head = header(body)
    return head, change(head.kind, Body(body, 32))


class Archive:
    """Keeps every log file that a server ever had: by hard links, so that a file that it removes can still be read."""

    def __init__(self):
        # Server and inode of each file, with its generation: files that went at the same time.
        self.known = {}
        self.generation = 0

    def collect(self, members):
        """To be called often, and before a server loses its disk."""
        self.generation += 1
        for member in members:
            present = set()
            for path in log_files(member.files):
                try:
                    inode = path.stat().st_ino
                    key = member.sid, inode
                    present.add(key)
                    if key not in self.known:
                        # On the same disk.
                        kept = member.data / "archive"
                        kept.mkdir(exist_ok=True)
                        link = kept / f"{inode}-{path.name}"
                        os.link(path, link)
                        self.known[key] = [link, None]
                except FileNotFoundError:
                    # It went between the listing and the link.
                    continue
            for key, entry in self.known.items():
                if key[0] == member.sid and key not in present and entry[1] is None:
                    entry[1] = self.generation

    def histories(self):
        """Per server and generation the transactions in the order of the files, the present ones last."""
        groups = {}
        for (sid, _), (link, gone) in self.known.items():
            groups.setdefault((sid, gone or 1 << 60), []).append(link)
        for (sid, gone), links in sorted(groups.items()):
            links.sort(key=lambda link: int(link.name.rsplit(".", 1)[1], 16))
            yield sid, gone == 1 << 60, [record for link in links for record in records(link)]
