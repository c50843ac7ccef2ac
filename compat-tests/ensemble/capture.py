"""Records what three Java servers and an observer say to each other, and prints an example of every packet in hex.

    .venv/bin/python ensemble/capture.py

The constants of the golden tests in `src/wire/election.rs` and `src/wire/quorum.rs` are from here. Each server's name means its own
address to itself and a relay's to the others (`jdk.net.hosts.file`): so all of them have the same configuration.
"""
import asyncio
import pathlib
import struct
import sys
import threading

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

from clients import Roaming, connect, create, ok, reconfig, sync, write  # noqa: E402
from harness.wire import CLOSE, CREATE, Fields  # noqa: E402
from members import PORTS, Ensemble  # noqa: E402

TYPES = {
    1: "REQUEST", 2: "PROPOSAL", 3: "ACK", 4: "COMMIT", 5: "PING", 6: "REVALIDATE", 7: "SYNC", 8: "INFORM",
    9: "COMMITANDACTIVATE", 10: "NEWLEADER", 11: "FOLLOWERINFO", 12: "UPTODATE", 13: "DIFF", 14: "TRUNC", 15: "SNAP",
    16: "OBSERVERINFO", 17: "LEADERINFO", 18: "ACKEPOCH", 19: "INFORMANDACTIVATE",
}
FROM_LEARNER = {"REQUEST", "ACK", "PING", "REVALIDATE", "FOLLOWERINFO", "OBSERVERINFO", "ACKEPOCH"}
FROM_LEADER = set(TYPES.values()) - {"REQUEST", "FOLLOWERINFO", "OBSERVERINFO", "ACKEPOCH", "ACK"}
SIGNATURE = b"\0\0\0\x0aBenWasHere"


class Relay:
    """Passes connections on and keeps both directions' bytes, on a thread of its own."""

    def __init__(self):
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self.thread.start()
        # (kind of port, bytes of the dialling side, bytes of the other side)
        self.recorded = []

    def listen(self, kind, at, to):
        def accept(reader, writer):
            return self.pass_on(kind, to, reader, writer)
        asyncio.run_coroutine_threadsafe(asyncio.start_server(accept, *at), self.loop).result(5)

    async def pass_on(self, kind, to, reader, writer):
        try:
            other_reader, other_writer = await asyncio.open_connection(*to)
        except OSError:
            writer.close()
            return
        record = (kind, bytearray(), bytearray())
        self.recorded.append(record)

        async def pump(source, sink, record):
            try:
                while data := await source.read(65536):
                    record += data
                    sink.write(data)
                    await sink.drain()
            except OSError:
                pass
            finally:
                sink.close()

        await asyncio.gather(pump(reader, other_writer, record[1]), pump(other_reader, writer, record[2]))

    def stop(self):
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join(5)


def packets(data, is_leader):
    """Cuts a quorum port's stream; behind SNAP stands a snapshot."""
    data = bytes(data)
    at = 0
    while at + 16 <= len(data):
        kind, _, length = struct.unpack_from(">iqi", data, at)
        end = at + 16 + max(length, 0)
        if end + 4 > len(data):
            return
        (ids,) = struct.unpack_from(">i", data, end)
        fields = Fields(data, end + 4)
        for _ in range(max(ids, 0)):
            fields.buffer(), fields.buffer()
        yield TYPES[kind], data[at:fields.at]
        at = fields.at
        if kind == 15 and is_leader:
            at = data.index(SIGNATURE, at) + len(SIGNATURE)


def notifications(data):
    at = 0
    while at + 4 <= len(data):
        (length,) = struct.unpack_from(">i", data, at)
        if at + 4 + length > len(data):
            return
        yield bytes(data[at:at + 4 + length])
        at += 4 + length


def story(ensemble):
    """Makes them say everything that they can."""
    one, two, three, observer = ensemble
    number = iter(range(1000))
    some = lambda member: write(member, f"/n{next(number)}")  # noqa: E731
    for member in ensemble:
        some(member)
        with connect(member) as session:
            sync(session, "/n0")
            session.call(CLOSE)
    # A session that moves, and whose client is heard from.
    session = connect(ensemble.leader())
    ok(session, CREATE, create("/mine", b"e", 1))
    follower = next(member for member in (one, two) if member.mode() == "follower")
    moved = connect(follower, session.session, session.passwd)
    ok(moved, CREATE, create("/mine-too", b"e", 1))
    session.close()
    late = connect(follower, session.session, bytes(16))
    assert late.session == 0
    late.close()
    # A follower that was away, one that lost everything, one that has what nobody else has.
    follower.stop()
    some(three)
    follower.start()
    ensemble.wait_until_all_serve()
    follower.stop()
    follower.wipe()
    follower.start()
    ensemble.wait_until_all_serve()
    leader = ensemble.leader()
    observer.stop()
    ensemble.diverge(leader, ["/lost"])
    for member in ensemble:
        if member is not leader and member is not observer:
            member.start()
    ensemble.wait("the others serve", lambda: all(member.mode() for member in ensemble.running()))
    leader.start()
    observer.start()
    ensemble.wait_until_all_serve()
    some(observer)
    # A reconfiguration that all survive: the observer's clients find another port.
    observer.port = PORTS.take()
    client = Roaming(ensemble)
    client.reconnect()
    _, err, text = reconfig(client.connection, joining=observer.line)
    assert err == 0, err
    ensemble.wait("all serve", lambda: all(member.mode() for member in ensemble))
    some(one)


def examples(found):
    """All where they are few; otherwise the shortest, and the shortest of those that are longer."""
    if len(found) <= 6 and len(found[0]) < 64:
        return found
    first = min(found, key=len)
    longer = [example for example in found if len(example) > len(first)]
    return [first] + ([min(longer, key=len)] if longer else [])


def main():
    relay = Relay()
    ensemble = Ensemble("jjjJ", dynamic=True)
    hosts = {member.sid: f"127.0.1.{member.sid}" for member in ensemble}
    for member in ensemble:
        member.name = f"zk{member.sid}"
        names = [f"{hosts[other] if other == member.sid else f'127.0.2.{other}'} zk{other}\n" for other in hosts]
        file = ensemble.dir / f"hosts-{member.sid}"
        file.write_text("".join(names) + "127.0.0.1 localhost\n")
        member.flags["jdk.net.hosts.file"] = str(file)
        relay.listen("quorum", (f"127.0.2.{member.sid}", member.quorum_port), (hosts[member.sid], member.quorum_port))
        relay.listen("election", (f"127.0.2.{member.sid}", member.election_port), (hosts[member.sid], member.election_port))
    try:
        with ensemble:
            story(ensemble)
    finally:
        relay.stop()
    seen = {}
    for kind, dialled, answered in relay.recorded:
        if kind == "quorum":
            for name, data in packets(dialled, False):
                seen.setdefault(f"learner {name}", set()).add(data)
            for name, data in packets(answered, True):
                seen.setdefault(f"leader {name}", set()).add(data)
        elif len(dialled) > 20:
            (length,) = struct.unpack_from(">i", dialled, 16)
            seen.setdefault("election initial message", set()).add(bytes(dialled[:20 + length]))
            for data in [*notifications(dialled[20 + length:]), *notifications(answered)]:
                state = "LOOKING FOLLOWING LEADING OBSERVING".split()[data[7]]
                seen.setdefault(f"election notification {state}", set()).add(data)
    wanted = {f"learner {name}" for name in FROM_LEARNER} | {f"leader {name}" for name in FROM_LEADER}
    wanted |= {"election initial message", "election notification LOOKING", "election notification LEADING"}
    for name in sorted(seen):
        print(f"{name} ({len(seen[name])} different)")
        for example in examples(sorted(seen[name])):
            print(f"    {example.hex()}")
    missing = wanted - set(seen)
    assert not missing, f"never said: {sorted(missing)}"


if __name__ == "__main__":
    main()
