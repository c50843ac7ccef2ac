// node-zookeeper-client over its whole interface: its package ships no tests that speak to a server.
const assert = require("node:assert/strict");
const { after, before, beforeEach, test } = require("node:test");
const zookeeper = require("node-zookeeper-client");

const { ACL, CreateMode, Event, Exception, Id, Permission, State } = zookeeper;
const hosts = process.env.HOSTS;
let client;
let tests = 0;
let root;

async function connected(options = {}, at = hosts) {
  const made = zookeeper.createClient(at, { sessionTimeout: 10000, ...options });
  const ready = new Promise((resolve) => made.once("connected", resolve));
  made.connect();
  await ready;
  return made;
}

/** A call's last argument, as a promise; what it gives more than one of comes as a list. */
function call(from, name, ...given) {
  return new Promise((resolve, reject) => {
    from[name](...given, (error, ...results) => (error ? reject(error) : resolve(results.length > 1 ? results : results[0])));
  });
}

const ask = (name, ...given) => call(client, name, ...given);
const hasCode = (code) => (error) => error.getCode() === code;
const event = (name, path) => new Promise((resolve) => ask(name, path, resolve).catch(() => {}));

before(async () => {
  client = await connected();
});
after(() => client.close());
beforeEach(async () => {
  root = `/test-${(tests += 1)}`;
  await ask("create", root);
});

test("a connection has a session and its state", () => {
  assert.equal(client.getState(), State.SYNC_CONNECTED);
  assert.equal(client.getSessionId().length, 8);
  assert.equal(client.getSessionPassword().length, 16);
  assert.equal(client.getSessionTimeout(), 10000);
});

test("create gives the path, getData the data and its stat", async () => {
  assert.equal(await ask("create", `${root}/a`, Buffer.from("data")), `${root}/a`);
  const [data, stat] = await ask("getData", `${root}/a`);
  assert.equal(data.toString(), "data");
  assert.equal(stat.version, 0);
  assert.equal(stat.dataLength, 4);
});

test("create modes name and own znodes", async () => {
  const first = await ask("create", `${root}/s-`, CreateMode.PERSISTENT_SEQUENTIAL);
  assert.equal(first, `${root}/s-0000000000`);
  const second = await ask("create", `${root}/s-`, CreateMode.EPHEMERAL_SEQUENTIAL);
  assert.equal(second, `${root}/s-0000000001`);
  await ask("create", `${root}/e`, CreateMode.EPHEMERAL);
  const stat = await ask("exists", `${root}/e`);
  assert.deepEqual(stat.ephemeralOwner, client.getSessionId());
  await assert.rejects(ask("create", `${root}/e/child`), hasCode(Exception.NO_CHILDREN_FOR_EPHEMERALS));
});

test("errors carry their codes", async () => {
  await assert.rejects(ask("create", root), hasCode(Exception.NODE_EXISTS));
  await assert.rejects(ask("create", `${root}/none/x`), hasCode(Exception.NO_NODE));
  await assert.rejects(ask("getData", `${root}/none`), hasCode(Exception.NO_NODE));
  await assert.rejects(ask("setData", root, Buffer.from("x"), 7), hasCode(Exception.BAD_VERSION));
  await ask("create", `${root}/child`);
  await assert.rejects(ask("remove", root, -1), hasCode(Exception.NOT_EMPTY));
});

test("setData counts versions and remove minds them", async () => {
  const stat = await ask("setData", root, Buffer.from("one"), 0);
  assert.equal(stat.version, 1);
  await assert.rejects(ask("remove", root, 0), hasCode(Exception.BAD_VERSION));
  await ask("remove", root, 1);
  assert.equal(await ask("exists", root), null);
});

test("children are listed with the parent's stat", async () => {
  for (const name of ["b", "a", "c"]) await ask("create", `${root}/${name}`);
  const [children, stat] = await ask("getChildren", root);
  assert.deepEqual(children.sort(), ["a", "b", "c"]);
  assert.equal(stat.numChildren, 3);
});

test("watches tell of creation, data, children and deletion", async () => {
  const path = `${root}/w`;
  const created = event("exists", path);
  const children = event("getChildren", root);
  await ask("create", path);
  assert.equal((await created).getType(), Event.NODE_CREATED);
  assert.equal((await children).getType(), Event.NODE_CHILDREN_CHANGED);
  const changed = event("getData", path);
  await ask("setData", path, Buffer.from("x"));
  assert.equal((await changed).getType(), Event.NODE_DATA_CHANGED);
  const deleted = event("exists", path);
  await ask("remove", path);
  assert.equal((await deleted).getPath(), path);
});

test("a transaction happens as a whole or not at all", async () => {
  const good = client.transaction().create(`${root}/t`, Buffer.from("x")).check(root, 0).setData(`${root}/t`, Buffer.from("y"), 0);
  const results = await call(good.create(`${root}/u`).remove(`${root}/u`, -1), "commit");
  assert.equal(results.length, 5);
  assert.equal((await ask("getData", `${root}/t`))[0].toString(), "y");
  const bad = client.transaction().create(`${root}/v`).check(root, 9);
  await assert.rejects(call(bad, "commit"), hasCode(Exception.BAD_VERSION));
  assert.equal(await ask("exists", `${root}/v`), null);
});

test("an ACL keeps strangers out until they say who they are", async () => {
  const user = new ACL(Permission.ALL, new Id("digest", "u:Jq7wMyA/w2Vd5WIDAKdu4OIIFEQ="));
  const path = `${root}/private`;
  await ask("create", path, Buffer.from("mine"), [user]);
  await assert.rejects(ask("getData", path), hasCode(Exception.NO_AUTH));
  client.addAuthInfo("digest", Buffer.from("u:p"));
  assert.equal((await ask("getData", path))[0].toString(), "mine");
  const [acls] = await ask("getACL", path);
  assert.equal(acls[0].id.scheme, "digest");
  const stat = await ask("setACL", path, ACL.OPEN_ACL_UNSAFE, 0);
  assert.equal(stat.aversion, 1);
  await assert.rejects(ask("setACL", path, [new ACL(Permission.ALL, new Id("what", "x"))]), hasCode(Exception.INVALID_ACL));
});

// The client goes one level deep, whatever there is.
test("mkdirp, listSubTreeBFS and removeRecursive walk the tree", async () => {
  await ask("mkdirp", `${root}/x/y`);
  const below = await ask("listSubTreeBFS", `${root}/x`);
  assert.deepEqual(below, [`${root}/x`, `${root}/x/y`]);
  await ask("removeRecursive", `${root}/x`);
  assert.equal(await ask("exists", `${root}/x`), null);
});

test("ephemerals go with their session, and a chroot hides what is above it", async () => {
  const other = await connected({}, `${hosts}${root}`);
  await call(other, "create", "/mine", CreateMode.EPHEMERAL);
  const gone = event("exists", `${root}/mine`);
  // The other connection must not overtake the watch.
  await ask("exists", `${root}/mine`);
  other.close();
  assert.equal((await gone).getType(), Event.NODE_DELETED);
});
