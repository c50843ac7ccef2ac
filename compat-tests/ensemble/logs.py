"""Reads txn logs, Java's and ours: every transaction that a server has, or had.

Shares no code with the server: the history checker trusts it.
"""
import os
import pathlib
import struct
import zlib
from collections import namedtuple

from harness.wire import Fields

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
        if checksum == 0:
            # It is what our servers write last of a record: this one was killed just before.
            return
        if zlib.adler32(body) != checksum:
            raise Damaged(f"{path}: a checksum is wrong at {at}")
        yield struct.unpack_from(">q", body, 12)[0], body
        at += 13 + length


def log_files(directory):
    found = [path for path in pathlib.Path(directory).glob("log.*") if path.suffix != ".tmp"]
    return sorted(found, key=lambda path: int(path.name.split(".")[1], 16))


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
        return "end", fields.strings() if fields.at < len(fields.data) else None
    if kind == ERROR:
        return "error", fields.int()
    if kind == MULTI:
        parts = []
        for _ in range(fields.int()):
            kind = fields.int()
            parts.append(change(kind, Fields(fields.buffer())))
        return "multi", parts
    raise Damaged(f"an unknown transaction {kind}")


def decode(body):
    head = header(body)
    return head, change(head.kind, Fields(body, 32))


def rewrite(path, change):
    """Puts `change(body)` in the place of each record of a log file, with the checksum that it needs."""
    before = path.read_bytes()
    data = before[:16]
    for _, body in records(path):
        body = change(body)
        data += struct.pack(">qi", zlib.adler32(body), len(body)) + body + b"B"
    # The rest is padding.
    path.write_bytes(data.ljust(len(before), b"\0"))


class Archive:
    """Keeps every log file that a server ever had: by hard links, so that a file that it removes can still be read."""

    def __init__(self):
        # Of each server: its files by inode as [name's zxid, link, what became of it], and how often it began anew.
        self.files = {}
        self.generation = {}

    def collect(self, members):
        """To be called often, and before a server loses its disk."""
        for member in members:
            files = self.files.setdefault(member.sid, {})
            present = self.link(member, files)
            before = {inode: entry for inode, entry in files.items() if entry[2] == "there"}
            kept = [entry[0] for inode, entry in before.items() if inode in present]
            for inode, entry in before.items():
                if inode not in present:
                    # Purged from the beginning, cut from the end, or replaced as a whole.
                    entry[2] = "there no more" if kept and entry[0] < max(kept) else "cut" if kept else "replaced"
            if before and not kept:
                self.generation[member.sid] = self.generation.get(member.sid, 0) + 1
            generation = self.generation.get(member.sid, 0)
            for inode in present - set(before):
                files[inode][2:] = ["there", generation]

    def link(self, member, files):
        present = set()
        for path in log_files(member.files):
            try:
                inode = path.stat().st_ino
                if inode not in files:
                    # On the same disk.
                    kept = member.data / "archive"
                    kept.mkdir(exist_ok=True)
                    link = kept / f"{inode}-{path.name}"
                    os.link(path, link)
                    files[inode] = [int(path.name.split(".")[1], 16), link, None, None]
                present.add(inode)
            except FileNotFoundError:
                # It went between the listing and the link.
                continue
        return present

    def histories(self, members):
        """`(sid, is_present, records)`: the transactions of files that belong together, in their order. Those that `members` have
        at the end are present."""
        current = {member.sid for member in members}
        groups = {}
        for sid, files in self.files.items():
            for inode, (zxid, link, fate, generation) in files.items():
                key = (sid, generation, inode if fate == "cut" else 0)
                groups.setdefault(key, []).append((zxid, link))
        for (sid, generation, cut), links in sorted(groups.items()):
            is_present = sid in current and not cut and generation == self.generation.get(sid, 0)
            yield sid, is_present, [record for _, link in sorted(links) for record in records(link)]
