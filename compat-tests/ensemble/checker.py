"""Checks what clients saw against the servers' txn logs.

ZooKeeper gives the witness for free: every answer carries a zxid, and every transaction is in a log. So there is one order of all
writes, and what is to be shown is that everything that was answered fits it. A model tree replays the order; it shares no code with
the server.

Every violation is a sentence in `violations`; `counts` says how much was looked at.
"""
import bisect
import heapq
from collections import Counter, defaultdict

from logs import Damaged, decode, header

NO_NODE, BAD_VERSION, NODE_EXISTS, NOT_EMPTY, EXPIRED, MOVED = -101, -103, -110, -111, -112, -118
CREATED, DELETED, CHANGED, CHILDREN = 1, 2, 3, 4
# As many as a person reads.
MAX_TOLD = 40


def hexed(zxid):
    return f"{zxid:#x}"


class Violations(list):
    """Sentences; no more of them than a person reads."""

    def add(self, what):
        if len(self) < MAX_TOLD:
            self.append(what)


def committed_order(histories, violations):
    """One order out of all logs that there are or were: `(sid, is_present, [(zxid, body)])` of each server and each set of files that
    went away together. What is in a log at the end is committed: all servers are synchronized then. Of files that are gone the last
    epoch may have an end that was never committed, and that the next leader did not have."""
    seen, committed = {}, {}
    for sid, is_present, records in histories:
        last, last_epoch = 0, max((zxid >> 32 for zxid, _ in records), default=0)
        for zxid, body in records:
            if seen.setdefault(zxid, body) != body:
                violations.add(f"logs disagree about {hexed(zxid)}: {decode(body)} and {decode(seen[zxid])}")
            if is_present and last and not follows(last, zxid):
                violations.add(f"server {sid}'s log has {hexed(zxid)} behind {hexed(last)}")
            last = zxid
            if is_present or zxid >> 32 < last_epoch:
                committed[zxid] = body
    order = sorted(committed.items())
    for (last, _), (zxid, _) in zip(order, order[1:]):
        if not follows(last, zxid):
            violations.add(f"no log has what stands between {hexed(last)} and {hexed(zxid)}")
    return order


def follows(last, zxid):
    return zxid == last + 1 or (zxid >> 32 > last >> 32 and zxid & 0xFFFFFFFF == 1)


class Node:
    __slots__ = ("data", "version", "czxid", "mzxid", "owner", "created", "children")

    def __init__(self, data, zxid, owner):
        self.data, self.version, self.czxid, self.mzxid, self.owner = data, 0, zxid, zxid, owner
        # How many children were ever created here: the next sequence number.
        self.created = 0
        self.children = set()


def parent_of(path):
    return path.rsplit("/", 1)[0] or "/"


class Model:
    """The tree after each transaction, by rules written down anew."""

    def __init__(self, violations):
        self.violations = violations
        self.nodes = {"/": Node(b"", 0, 0), "/zookeeper": Node(b"", 0, 0)}
        for path in ("/zookeeper/quota", "/zookeeper/config"):
            self.nodes[path] = Node(b"", 0, 0)
            self.nodes["/zookeeper"].children.add(path.rsplit("/", 1)[1])
        self.nodes["/"].children.add("zookeeper")
        self.sessions = {}
        self.ended = {}
        self.owned = defaultdict(set)
        # What watches are told of: path -> zxids.
        self.data_changes = defaultdict(list)
        self.child_changes = defaultdict(list)
        self.kinds = {}

    def wrong(self, zxid, what):
        self.violations.add(f"{hexed(zxid)}: {what}")

    def apply(self, head, change):
        kind = change[0]
        # Without parts a multi is checked for nothing.
        harmless = kind in ("begin", "error", "end") or change == ("multi", [])
        if head.session and not harmless and head.session not in self.sessions:
            self.wrong(head.zxid, f"{kind} {change[1:2]} of session {head.session:#x}, which is not there")
        getattr(self, f"on_{kind}")(head, *change[1:])

    def note(self, changes, path, zxid, kind):
        changes[path].append(zxid)
        self.kinds[path, zxid, kind] = True

    def on_error(self, head, code):
        pass

    def on_check(self, head, path, version):
        pass

    def on_begin(self, head, timeout_ms):
        if head.session in self.sessions or head.session in self.ended:
            self.wrong(head.zxid, f"session {head.session:#x} begins twice")
        self.sessions[head.session] = timeout_ms

    def on_end(self, head, paths):
        if head.session not in self.sessions:
            if head.session in self.ended:
                self.wrong(head.zxid, f"session {head.session:#x} ends twice")
            return
        del self.sessions[head.session]
        self.ended[head.session] = head
        for path in paths or ():
            if path in self.nodes:
                if self.nodes[path].owner != head.session:
                    self.wrong(head.zxid, f"{path} goes with a session that does not own it")
                self.on_delete(head, path)
        left = self.owned.pop(head.session, None)
        if left:
            self.wrong(head.zxid, f"session {head.session:#x} is over and leaves {sorted(left)[:5]}")

    def on_create(self, head, path, data, acl, ephemeral, cversion):
        parent = self.nodes.get(parent_of(path))
        if path in self.nodes or parent is None:
            return self.wrong(head.zxid, f"{path} is created where {'it is' if path in self.nodes else 'no parent is'}")
        parent.created += 1
        parent.children.add(path.rsplit("/", 1)[1])
        self.nodes[path] = Node(data, head.zxid, head.session if ephemeral else 0)
        if ephemeral:
            self.owned[head.session].add(path)
        self.note(self.data_changes, path, head.zxid, CREATED)
        self.note(self.child_changes, parent_of(path), head.zxid, CHILDREN)

    def on_delete(self, head, path):
        node = self.nodes.pop(path, None)
        if node is None:
            return self.wrong(head.zxid, f"{path} is deleted and is not there")
        if node.owner:
            self.owned[node.owner].discard(path)
        if node.children:
            self.wrong(head.zxid, f"{path} is deleted and has children")
        self.nodes[parent_of(path)].children.discard(path.rsplit("/", 1)[1])
        self.note(self.data_changes, path, head.zxid, DELETED)
        self.note(self.child_changes, path, head.zxid, DELETED)
        self.note(self.child_changes, parent_of(path), head.zxid, CHILDREN)

    def on_set(self, head, path, data, version):
        node = self.nodes.get(path)
        if node is None:
            return self.wrong(head.zxid, f"{path} is set and is not there")
        node.data, node.mzxid = data, head.zxid
        if path == "/zookeeper/config":
            return
        if version != node.version + 1:
            self.wrong(head.zxid, f"{path} gets version {version} behind {node.version}")
        node.version = version
        self.note(self.data_changes, path, head.zxid, CHANGED)

    def on_acl(self, head, path, acl, version):
        pass

    def on_multi(self, head, parts):
        if any(part[0] == "error" for part in parts):
            return
        for part in parts:
            getattr(self, f"on_{part[0]}")(head, *part[1:])


class Checker:
    """`histories` as `load.py` describes them; `order` as [`committed_order`] gives it."""

    def __init__(self, order, histories, tick_ms, wall_offset_ns, violations=None):
        self.violations = Violations() if violations is None else violations
        self.histories = histories
        self.tick_ms = tick_ms
        self.wall_offset_ns = wall_offset_ns
        self.counts = Counter()
        self.order = order
        self.bodies = dict(order)
        self.model = Model(self.violations)
        self.expired = []

    def wrong(self, what):
        self.violations.add(what)

    def run(self):
        self.find_requests()
        self.check_session_order()
        self.check_real_time()
        self.replay()
        self.check_expiries()
        self.check_watches()
        return self

    # Requests and transactions.

    def find_requests(self):
        """What was asked, by session and cxid; and each once at the most in the logs."""
        self.requests, self.known_sessions = {}, {}
        for history in self.histories:
            for event in history:
                if event[0] == "open":
                    self.known_sessions[event[1]] = event[2]
                elif event[0] in ("reply", "unknown") and event[2] >= 0:
                    self.requests[event[1], event[2]] = event
        logged = {}
        for zxid, body in self.order:
            head = header(body)
            if head.session not in self.known_sessions or head.cxid == 0:
                continue
            key = head.session, head.cxid
            if key in logged:
                self.wrong(f"request {key[1]} of session {key[0]:#x} is in the log twice: {hexed(logged[key])}, {hexed(zxid)}")
            logged[key] = zxid
            if key not in self.requests:
                self.wrong(f"{hexed(zxid)} is request {key[1]} of session {key[0]:#x}, which nobody made")
        self.logged = logged

    def check_session_order(self):
        """No answer's zxid is older than one before; writes of a session stand in the order of its requests."""
        for history in self.histories:
            last, last_write, session = 0, 0, None
            for event in history:
                if event[0] == "open" and event[1] != session:
                    session, last, last_write = event[1], 0, 0
                if event[0] != "reply":
                    continue
                _, _, cxid, op, _, _, _, err, zxid, _ = event
                self.counts["answers"] += 1
                if zxid < last:
                    self.wrong(f"session {session:#x} went back from {hexed(last)} to {hexed(zxid)} with {op} {cxid}")
                last = max(last, zxid)
                if op in ("set", "create", "delete", "multi", "close") and err == 0:
                    if zxid <= last_write:
                        self.wrong(f"session {session:#x}: write {cxid} has {hexed(zxid)}, an earlier one {hexed(last_write)}")
                    last_write = zxid

    def acked_writes(self):
        for history in self.histories:
            for event in history:
                if event[0] == "reply" and event[3] in ("set", "create", "delete", "multi", "close") and event[7] == 0:
                    yield event

    def check_real_time(self):
        """A write that was answered before another was asked for stands before it; and a sync sees what was answered before."""
        writes = sorted(self.acked_writes(), key=lambda event: event[8])
        latest = 0
        for event in writes:
            _, session, cxid, op, _, t0, t1, _, zxid, _ = event
            if t1 < latest:
                self.wrong(f"write {cxid} of session {session:#x} was answered before an older one was asked for: {hexed(zxid)}")
            latest = max(latest, t0)
        writes.sort(key=lambda event: event[6])
        ends, newest = [], []
        for event in writes:
            ends.append(event[6])
            newest.append(max(event[8], newest[-1] if newest else 0))
        for history in self.histories:
            for event in history:
                if event[0] == "reply" and event[3] == "sync" and event[7] == 0:
                    self.counts["syncs"] += 1
                    at = bisect.bisect_left(ends, event[5]) - 1
                    if at >= 0 and event[8] < newest[at]:
                        self.wrong(f"a sync of session {event[1]:#x} shows {hexed(event[8])}, and {hexed(newest[at])} was answered before")

    def replay(self):
        """Goes through the order once; at each zxid everything that was answered there has to fit the model."""
        answered = defaultdict(list)
        for history in self.histories:
            for event in history:
                if event[0] == "reply":
                    answered[event[8]].append(event)
        pending = sorted(zxid for zxid in answered if zxid not in self.bodies)
        for zxid, body in self.order:
            while pending and pending[0] < zxid:
                at = pending.pop(0)
                self.look(at, None, None, answered[at])
            try:
                head, change = decode(body)
            except (Damaged, ValueError, IndexError) as error:
                self.wrong(f"{hexed(zxid)} does not decode: {error}")
                continue
            before = self.before(change)
            self.model.apply(head, change)
            self.counts["transactions"] += 1
            if zxid in answered:
                self.look(zxid, head, (change, before), answered[zxid])
        last = self.order[-1][0] if self.order else 0
        for at in pending:
            if at > last and any(event[3] in ("set", "create", "delete", "multi", "close") for event in answered[at]):
                self.wrong(f"{hexed(at)} was answered, and the logs end at {hexed(last)}")
            self.look(at, None, None, answered[at])

    def before(self, change):
        """What a write met: the version of its node, and the number for a sequence node."""
        if change[0] == "set":
            node = self.model.nodes.get(change[1])
            return node.version if node else None
        if change[0] == "create":
            parent = self.model.nodes.get(parent_of(change[1]))
            return parent.created if parent else None
        return None

    def look(self, zxid, head, applied, events):
        for event in events:
            op = event[3]
            if op in ("get", "exists", "children"):
                self.check_read(event)
            elif op not in ("sync", "watches"):
                self.check_write(event, zxid, head, applied)

    def check_read(self, event):
        _, session, cxid, op, args, _, _, err, zxid, result = event
        self.counts["reads"] += 1
        node = self.model.nodes.get(args[0])
        if err == NO_NODE:
            expected, result = None, None if node is None else "nothing"
        elif err != 0:
            # A session that is over is told so, and nothing else.
            if err not in (EXPIRED, MOVED):
                self.wrong(f"{op} {args[0]} of session {session:#x}: error {err}")
            return
        elif node is None:
            expected = "no node"
        elif op == "get":
            expected = node.data, node.version, node.mzxid, node.czxid, node.owner
        elif op == "exists":
            expected = node.version, node.mzxid, node.czxid, node.owner
        else:
            expected = tuple(sorted(node.children))
        if result != expected:
            self.wrong(f"{op} {args[0]} of session {session:#x} at {hexed(zxid)} shows {result}, where the model has {expected}")

    def check_write(self, event, zxid, head, applied):
        _, session, cxid, op, args, _, _, err, _, result = event
        who = f"{op} {args[:1]} (request {cxid} of session {session:#x})"
        if err in (EXPIRED, MOVED):
            return
        self.counts["writes"] += 1
        if head is None:
            return self.wrong(f"{who} was answered with {hexed(zxid)} and error {err}: no log has it")
        if (head.session, head.cxid) != (session, cxid):
            return self.wrong(f"{who} was answered with {hexed(zxid)}: the logs have request {head.cxid} of {head.session:#x} there")
        change, before = applied
        if err != 0:
            self.check_refusal(who, err, op, args, change)
        elif op == "set":
            path, data, version = args
            if change[:3] != ("set", path, data) or change[3] != result[0] or result[1] != zxid:
                self.wrong(f"{who}: answered {result}, logged {change}")
            if version not in (-1, before):
                self.wrong(f"{who} expected version {version} and met {before}")
        elif op == "create":
            path, data, flags = args
            expected = path + (f"{before:010}" if flags & 2 else "")
            if change[:3] != ("create", expected, data) or result != expected or change[4] != bool(flags & 1):
                self.wrong(f"{who}: answered {result}, logged {change}, and the next name is {expected}")
        elif op == "delete":
            if change != ("delete", args[0]):
                self.wrong(f"{who}: logged {change}")
        elif op == "multi":
            wanted = [("set", path, data) for path, data in args]
            if change[0] != "multi" or [part[:3] for part in change[1]] != wanted:
                self.wrong(f"{who}: logged {change}")
        elif op == "close":
            if change[0] != "end":
                self.wrong(f"{who}: logged {change}")

    def check_refusal(self, who, err, op, args, change):
        if change != ("error", err):
            return self.wrong(f"{who}: answered error {err}, logged {change}")
        node = self.model.nodes.get(args[0])
        fits = {
            BAD_VERSION: op == "set" and node is not None and args[2] not in (-1, node.version),
            NO_NODE: op in ("set", "delete") and node is None,
            NODE_EXISTS: op == "create" and node is not None,
        }
        if not fits.get(err, False):
            self.wrong(f"{who}: refused with {err}, which does not fit what is there")

    # Sessions.

    def check_expiries(self):
        """A session is over when its client said so, or was not heard of for its whole timeout."""
        contacts, closing = defaultdict(list), set()
        for history in self.histories:
            for event in history:
                if event[0] == "reply":
                    # Heard of when it asked, at the earliest.
                    contacts[event[1]].append((event[6] + self.wall_offset_ns, event[5] + self.wall_offset_ns))
                    if event[3] == "close":
                        closing.add(event[1])
                elif event[0] == "open":
                    contacts[event[1]].append((event[3] + self.wall_offset_ns,) * 2)
                elif event[0] == "unknown" and event[3] == "close":
                    closing.add(event[1])
        for session, head in self.model.ended.items():
            if session not in self.known_sessions or session in closing:
                continue
            timeout_ms = self.known_sessions[session]
            self.expired.append((session, timeout_ms))
            ended_ns = head.time * 1_000_000
            heard = max((asked for answered, asked in contacts[session] if answered <= ended_ns), default=None)
            silent_ms = (ended_ns - heard) / 1e6 if heard else None
            # A follower hands on what it heard with its next answer to a ping.
            if silent_ms is not None and silent_ms < timeout_ms - self.tick_ms - 200:
                self.wrong(f"session {session:#x} of {timeout_ms} ms was ended {silent_ms:.0f} ms after it was heard of")
        for history in self.histories:
            for event in history:
                if event[0] == "expired" and event[1] not in self.model.ended:
                    self.wrong(f"session {event[1]:#x} was said to be over, and no log says so")
        self.counts["sessions"] = len(self.known_sessions)

    # Watches.

    def check_watches(self):
        for history in self.histories:
            self.check_watches_of(history)

    def next_change(self, key, zxid):
        what, path = key
        changes = (self.model.child_changes if what == "child" else self.model.data_changes).get(path, ())
        at = bisect.bisect_right(changes, zxid)
        return changes[at] if at < len(changes) else None

    def check_watches_of(self, history):
        """An event comes before any answer that shows the change or a later one, once, and only for a change."""
        session, waiting, due = None, {}, []
        for event in history:
            if event[0] == "open" and event[1] != session or event[0] == "expired":
                session = event[1] if event[0] == "open" else None
                waiting.clear()
                due.clear()
            elif event[0] == "event":
                self.take_event(event, waiting)
            elif event[0] == "reply":
                _, _, cxid, op, args, _, _, err, zxid, _ = event
                while due and due[0][0] <= zxid:
                    change, key = heapq.heappop(due)
                    if waiting.get(key, (0, None))[1] == change:
                        del waiting[key]
                        self.wrong(f"session {session:#x} was answered {op} {cxid} at {hexed(zxid)} before the event of "
                                   f"{key[1]} at {hexed(change)}")
                if op in ("get", "exists", "children") and args[1] and (err == 0 or op == "exists" and err == NO_NODE):
                    key = "child" if op == "children" else "data", args[0]
                    if key not in waiting:
                        change = self.next_change(key, zxid)
                        waiting[key] = zxid, change
                        if change is not None:
                            heapq.heappush(due, (change, key))

    def take_event(self, event, waiting):
        _, session, _, kind, path, zxid = event
        self.counts["watch events"] += 1
        whats = {CREATED: ["data"], DELETED: ["data", "child"], CHANGED: ["data"], CHILDREN: ["child"]}[kind]
        found = [(what, path) for what in whats if (what, path) in waiting]
        if not found:
            self.wrong(f"session {session:#x} got event {kind} of {path}, which it does not watch")
        for key in found:
            since, change = waiting.pop(key)
            if change is None:
                self.wrong(f"session {session:#x} got event {kind} of {path}, which did not change behind {hexed(since)}")
        if zxid > 0 and (path, zxid, kind) not in self.model.kinds:
            self.wrong(f"session {session:#x} got event {kind} of {path} at {hexed(zxid)}: that was something else")


def check_tree(model, tree, member, violations):
    """A server's tree is the model's at the end."""
    for path in set(model.nodes) ^ set(tree):
        violations.add(f"{member}: {path} is {'missing' if path in model.nodes else 'there, and nobody made it or it is gone'}")
    for path, (data, stat, _) in tree.items():
        node = model.nodes.get(path)
        if node is None or path.startswith("/zookeeper") or path == "/":
            continue
        shown = data, stat["version"], stat["czxid"], stat["mzxid"], stat["owner"]
        expected = node.data, node.version, node.czxid, node.mzxid, node.owner
        if shown != expected:
            violations.add(f"{member}: {path} shows {shown}, where the model has {expected}")
        if node.owner and node.owner not in model.sessions:
            violations.add(f"{member}: {path} belongs to a session that is over")
