"""kazoo, unchanged: the everyday operations and the recipes that people run."""
import threading

import pytest
from kazoo.client import KazooClient
from kazoo.exceptions import BadVersionError, NoAuthError, NodeExistsError, NotEmptyError, RolledBackError
from kazoo.recipe.counter import Counter
from kazoo.recipe.watchers import ChildrenWatch, DataWatch
from kazoo.security import CREATOR_ALL_ACL, make_digest_acl


@pytest.fixture
def client(server):
    client = KazooClient(server.hosts, timeout=8)
    client.start(timeout=10)
    yield client
    client.stop()
    client.close()


def test_create_get_set_delete(client):
    assert client.create("/k", b"one") == "/k"
    data, stat = client.get("/k")
    assert (data, stat.version, stat.dataLength, stat.ephemeralOwner) == (b"one", 0, 3, 0)
    assert client.set("/k", b"two", version=0).version == 1
    with pytest.raises(BadVersionError):
        client.set("/k", b"three", version=0)
    client.create("/k/child")
    with pytest.raises(NotEmptyError):
        client.delete("/k")
    with pytest.raises(NodeExistsError):
        client.create("/k")
    assert client.get_children("/k", include_data=True)[1].numChildren == 1
    client.delete("/k", recursive=True)
    assert client.exists("/k") is None


def test_sequences_and_ephemerals(server, client):
    client.ensure_path("/seq")
    names = [client.create("/seq/n-", sequence=True, ephemeral=True) for _ in range(3)]
    assert names == [f"/seq/n-{n:010d}" for n in range(3)]
    assert client.exists(names[0]).ephemeralOwner == client.client_id[0]
    other = KazooClient(server.hosts)
    other.start(timeout=10)
    gone = threading.Event()
    mine = other.create("/seq/other", ephemeral=True)
    client.exists(mine, watch=lambda event: gone.set())
    other.stop()
    other.close()
    assert gone.wait(10)
    assert client.exists(mine) is None


def test_watches_tell_of_changes(client):
    client.create("/w", b"")
    told = []
    heard = threading.Event()

    def on_event(event):
        told.append((event.type, event.path))
        if len(told) == 3:
            heard.set()

    client.get("/w", watch=on_event)
    client.get_children("/w", watch=on_event)
    client.exists("/w/new", watch=on_event)
    client.set("/w", b"x")
    client.create("/w/new")
    assert heard.wait(10)
    assert told == [("CHANGED", "/w"), ("CREATED", "/w/new"), ("CHILD", "/w")]


def test_data_and_children_watch_recipes(client):
    client.ensure_path("/recipe")
    seen, names = [], []
    done = threading.Event()
    DataWatch(client, "/recipe", lambda data, stat: seen.append(data))

    @ChildrenWatch(client, "/recipe")
    def on_children(children):
        names.append(sorted(children))
        if len(children) == 2:
            done.set()

    client.set("/recipe", b"1")
    client.create("/recipe/a")
    client.create("/recipe/b")
    assert done.wait(10)
    assert names[-1] == ["a", "b"]
    assert seen[-1] == b"1"


def test_transactions_are_all_or_nothing(client):
    client.create("/tx", b"0")
    good = client.transaction()
    good.check("/tx", 0)
    good.create("/tx/a", b"1")
    good.set_data("/tx", b"new")
    good.delete("/tx/a")
    results = good.commit()
    assert results[:2] == [True, "/tx/a"] and results[2].version == 1 and results[3] is True
    bad = client.transaction()
    bad.create("/tx/b")
    bad.check("/tx", 7)
    results = bad.commit()
    assert isinstance(results[0], RolledBackError) and isinstance(results[1], BadVersionError)
    assert client.exists("/tx/b") is None


def test_acls_with_digest_auth(server, client):
    acl = make_digest_acl("user", "secret", all=True)
    client.create("/private", b"mine", acl=[acl])
    with pytest.raises(NoAuthError):
        client.get("/private")
    client.add_auth("digest", "user:secret")
    assert client.get("/private")[0] == b"mine"
    found, stat = client.get_acls("/private")
    assert found[0].id.scheme == "digest" and found[0].id.id.startswith("user:")
    client.set_acls("/private", [acl], version=0)
    assert client.exists("/private").aversion == 1
    # kazoo writes the empty id of this one as null.
    client.create("/creators", acl=CREATOR_ALL_ACL)
    assert client.get_acls("/creators")[0][0].id.id.startswith("user:")


def test_the_session_survives_a_lost_connection(client):
    session = client.client_id[0]
    name = client.create("/survivor", ephemeral=True)
    back = threading.Event()
    lost = threading.Event()

    def on_state(state):
        if state == "SUSPENDED":
            lost.set()
        if state == "CONNECTED" and lost.is_set():
            back.set()

    client.add_listener(on_state)
    client._connection._socket.shutdown(2)
    assert lost.wait(10) and back.wait(10)
    assert client.client_id[0] == session
    assert client.exists(name).ephemeralOwner == session


def test_lock_election_barrier_counter(server, client):
    with client.Lock("/lock", "me"):
        assert client.Lock("/lock", "other").acquire(blocking=False) is False
    elected = []
    client.Election("/election", "me").run(lambda: elected.append(True))
    assert elected == [True]
    barrier = client.Barrier("/barrier")
    barrier.create()
    waiting = threading.Thread(target=lambda: barrier.remove())
    waiting.start()
    assert barrier.wait(timeout=10)
    waiting.join()
    counter = Counter(client, "/counter", default=0)
    counter += 5
    counter -= 2
    assert counter.value == 3
    assert client.sync("/counter") == "/counter"
