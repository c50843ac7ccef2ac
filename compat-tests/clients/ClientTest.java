import java.io.IOException;
import java.io.InputStream;
import java.io.OutputStream;
import java.lang.reflect.Method;
import java.net.ServerSocket;
import java.net.Socket;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Collections;
import java.util.List;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.concurrent.TimeUnit;
import org.apache.zookeeper.AddWatchMode;
import org.apache.zookeeper.AsyncCallback;
import org.apache.zookeeper.CreateMode;
import org.apache.zookeeper.KeeperException;
import org.apache.zookeeper.KeeperException.Code;
import org.apache.zookeeper.Op;
import org.apache.zookeeper.OpResult;
import org.apache.zookeeper.WatchedEvent;
import org.apache.zookeeper.Watcher;
import org.apache.zookeeper.Watcher.Event.EventType;
import org.apache.zookeeper.Watcher.Event.KeeperState;
import org.apache.zookeeper.ZooDefs;
import org.apache.zookeeper.ZooDefs.Ids;
import org.apache.zookeeper.ZooKeeper;
import org.apache.zookeeper.admin.ZooKeeperAdmin;
import org.apache.zookeeper.data.ACL;
import org.apache.zookeeper.data.Id;
import org.apache.zookeeper.data.Stat;

/** Every operation of the official client's API, against the server at args[0]. Each test_ method is one test. */
public class ClientTest {
    static String hosts;

    interface Call { void run() throws Exception; }

    static void fails(Code code, Call call) throws Exception {
        try {
            call.run();
        } catch (KeeperException e) {
            same(code, e.code());
            return;
        }
        throw new AssertionError("expected " + code);
    }

    static void same(Object expected, Object actual) {
        if (!expected.equals(actual)) {
            throw new AssertionError("expected " + expected + ", got " + actual);
        }
    }

    static void yes(boolean condition, String what) {
        if (!condition) {
            throw new AssertionError(what);
        }
    }

    static class Events implements Watcher {
        final BlockingQueue<WatchedEvent> queue = new LinkedBlockingQueue<>();

        @Override public void process(WatchedEvent event) {
            queue.add(event);
        }

        void expect(EventType type, String path) throws Exception {
            while (true) {
                WatchedEvent event = queue.poll(15, TimeUnit.SECONDS);
                yes(event != null, "no " + type + " for " + path);
                if (event.getType() == EventType.None) {
                    continue;
                }
                same(type + " " + path, event.getType() + " " + event.getPath());
                return;
            }
        }

        void expectState(KeeperState state) throws Exception {
            WatchedEvent event;
            do {
                event = queue.poll(20, TimeUnit.SECONDS);
                yes(event != null, "no state " + state);
            } while (event.getState() != state || event.getType() != EventType.None);
        }

        void expectSilence() {
            for (WatchedEvent event : queue) {
                yes(event.getType() == EventType.None, "unexpected " + event);
            }
        }
    }

    static ZooKeeper connect(String to, int timeout, Watcher watcher) throws Exception {
        CountDownLatch up = new CountDownLatch(1);
        ZooKeeper zk = new ZooKeeper(to, timeout, event -> {
            if (event.getState() == KeeperState.SyncConnected && event.getType() == EventType.None) {
                up.countDown();
            }
            watcher.process(event);
        });
        yes(up.await(20, TimeUnit.SECONDS), "not connected");
        return zk;
    }

    static ZooKeeper connect() throws Exception {
        return connect(hosts, 8000, event -> { });
    }

    static void test_create_modes(ZooKeeper zk, String root) throws Exception {
        same(root + "/p", zk.create(root + "/p", "d".getBytes(), Ids.OPEN_ACL_UNSAFE, CreateMode.PERSISTENT));
        Stat stat = new Stat();
        zk.create(root + "/e", null, Ids.OPEN_ACL_UNSAFE, CreateMode.EPHEMERAL, stat);
        same(zk.getSessionId(), stat.getEphemeralOwner());
        same(root + "/s0000000002", zk.create(root + "/s", null, Ids.OPEN_ACL_UNSAFE, CreateMode.PERSISTENT_SEQUENTIAL));
        same(root + "/s0000000003", zk.create(root + "/s", null, Ids.OPEN_ACL_UNSAFE, CreateMode.EPHEMERAL_SEQUENTIAL));
        zk.create(root + "/c", null, Ids.OPEN_ACL_UNSAFE, CreateMode.CONTAINER, stat);
        same(0L, stat.getEphemeralOwner());
        zk.create(root + "/t", null, Ids.OPEN_ACL_UNSAFE, CreateMode.PERSISTENT_WITH_TTL, stat, 60_000);
        String name = zk.create(root + "/ts", null, Ids.OPEN_ACL_UNSAFE, CreateMode.PERSISTENT_SEQUENTIAL_WITH_TTL, stat, 60_000);
        same(root + "/ts0000000006", name);
        fails(Code.NODEEXISTS, () -> zk.create(root + "/p", null, Ids.OPEN_ACL_UNSAFE, CreateMode.PERSISTENT));
        fails(Code.NONODE, () -> zk.create(root + "/x/y", null, Ids.OPEN_ACL_UNSAFE, CreateMode.PERSISTENT));
        fails(Code.NOCHILDRENFOREPHEMERALS, () -> zk.create(root + "/e/y", null, Ids.OPEN_ACL_UNSAFE, CreateMode.PERSISTENT));
        fails(Code.INVALIDACL, () -> zk.create(root + "/q", null, Collections.emptyList(), CreateMode.PERSISTENT));
    }

    static void test_data_and_versions(ZooKeeper zk, String root) throws Exception {
        Stat stat = new Stat();
        same("", new String(zk.getData(root, false, stat)));
        same(1, zk.setData(root, "1".getBytes(), 0).getVersion());
        fails(Code.BADVERSION, () -> zk.setData(root, "2".getBytes(), 0));
        same(2, zk.setData(root, null, -1).getVersion());
        yes(zk.getData(root, false, stat) == null, "null data");
        same(2, stat.getVersion());
        fails(Code.NONODE, () -> zk.setData(root + "/no", null, -1));
        yes(zk.exists(root + "/no", false) == null, "missing");
        zk.create(root + "/d", null, Ids.OPEN_ACL_UNSAFE, CreateMode.PERSISTENT);
        fails(Code.NOTEMPTY, () -> zk.delete(root, -1));
        fails(Code.BADVERSION, () -> zk.delete(root + "/d", 3));
        zk.delete(root + "/d", 0);
        fails(Code.NONODE, () -> zk.delete(root + "/d", -1));
        byte[] large = new byte[1_000_000];
        zk.setData(root, large, -1);
        same(large.length, zk.getData(root, false, null).length);
    }

    static void test_children(ZooKeeper zk, String root) throws Exception {
        for (String name : Arrays.asList("a", "b", "c")) {
            zk.create(root + "/" + name, null, Ids.OPEN_ACL_UNSAFE, CreateMode.PERSISTENT);
        }
        zk.create(root + "/a/deep", null, Ids.OPEN_ACL_UNSAFE, CreateMode.EPHEMERAL);
        List<String> names = new ArrayList<>(zk.getChildren(root, false));
        Collections.sort(names);
        same(Arrays.asList("a", "b", "c"), names);
        Stat stat = new Stat();
        zk.getChildren(root, false, stat);
        same(3, stat.getNumChildren());
        same(3, stat.getCversion());
        same(4, zk.getAllChildrenNumber(root));
        same(Arrays.asList(root + "/a/deep"), zk.getEphemerals(root));
        yes(zk.getEphemerals().contains(root + "/a/deep"), "all ephemerals");
        fails(Code.NONODE, () -> zk.getChildren(root + "/none", false));
    }

    static void test_acls(ZooKeeper zk, String root) throws Exception {
        try (ZooKeeper owner = connect()) {
            owner.addAuthInfo("digest", "owner:pw".getBytes());
            owner.create(root + "/mine", null, Ids.CREATOR_ALL_ACL, CreateMode.PERSISTENT);
            fails(Code.NOAUTH, () -> zk.getData(root + "/mine", false, null));
            fails(Code.NOAUTH, () -> zk.exists(root + "/mine", false));
            fails(Code.NOAUTH, () -> zk.setData(root + "/mine", null, -1));
            fails(Code.NOAUTH, () -> zk.create(root + "/mine/x", null, Ids.OPEN_ACL_UNSAFE, CreateMode.PERSISTENT));
            fails(Code.NOAUTH, () -> zk.setACL(root + "/mine", Ids.OPEN_ACL_UNSAFE, -1));
            fails(Code.NOAUTH, () -> zk.getACL(root + "/mine", new Stat()));
            Stat stat = new Stat();
            same("digest", owner.getACL(root + "/mine", stat).get(0).getId().getScheme());
            same(1, owner.setACL(root + "/mine", Ids.READ_ACL_UNSAFE, 0).getAversion());
            fails(Code.NOAUTH, () -> owner.setACL(root + "/mine", Ids.OPEN_ACL_UNSAFE, 1));
            zk.getData(root + "/mine", false, null);
            List<ACL> ip = Arrays.asList(new ACL(ZooDefs.Perms.ALL, new Id("ip", "127.0.0.0/8")));
            owner.create(root + "/ip", null, ip, CreateMode.PERSISTENT);
            zk.setData(root + "/ip", null, -1);
            List<ACL> elsewhere = Arrays.asList(new ACL(ZooDefs.Perms.ALL, new Id("ip", "10.0.0.1")));
            owner.create(root + "/else", null, elsewhere, CreateMode.PERSISTENT);
            fails(Code.NOAUTH, () -> owner.setData(root + "/else", null, -1));
            List<ACL> seen = Arrays.asList(new ACL(ZooDefs.Perms.READ, Ids.ANYONE_ID_UNSAFE),
                new ACL(ZooDefs.Perms.ALL, new Id("digest", "owner:hash")));
            owner.create(root + "/masked", null, seen, CreateMode.PERSISTENT);
            same("owner:x", zk.getACL(root + "/masked", stat).get(1).getId().getId());
        }
        try (ZooKeeper boss = connect()) {
            boss.addAuthInfo("digest", "super:test".getBytes());
            boss.setData(root + "/else", "boss".getBytes(), -1);
            boss.setACL("/zookeeper/config", boss.getACL("/zookeeper/config", new Stat()), -1);
        }
        fails(Code.INVALIDACL, () -> zk.create(root + "/bad", null, Ids.CREATOR_ALL_ACL, CreateMode.PERSISTENT));
    }

    static void test_who_am_i_and_bad_auth(ZooKeeper zk, String root) throws Exception {
        same("ip", zk.whoAmI().get(0).getAuthScheme());
        Events events = new Events();
        try (ZooKeeper other = connect(hosts, 8000, events)) {
            other.addAuthInfo("no-such-scheme", "x".getBytes());
            events.expectState(KeeperState.AuthFailed);
        }
    }

    static void test_multi(ZooKeeper zk, String root) throws Exception {
        List<OpResult> results = zk.multi(Arrays.asList(
            Op.create(root + "/m", "1".getBytes(), Ids.OPEN_ACL_UNSAFE, CreateMode.PERSISTENT),
            Op.create(root + "/m/s", null, Ids.OPEN_ACL_UNSAFE, CreateMode.PERSISTENT_SEQUENTIAL.toFlag()),
            Op.create(root + "/m/c", null, Ids.OPEN_ACL_UNSAFE, CreateMode.CONTAINER),
            Op.create(root + "/m/t", null, Ids.OPEN_ACL_UNSAFE, CreateMode.PERSISTENT_WITH_TTL, 60_000),
            Op.check(root + "/m", 0),
            Op.setData(root + "/m", "2".getBytes(), 0),
            Op.delete(root + "/m/s0000000000", -1)));
        same(7, results.size());
        same(root + "/m/s0000000000", ((OpResult.CreateResult) results.get(1)).getPath());
        same(1, ((OpResult.SetDataResult) results.get(5)).getStat().getVersion());
        try {
            zk.multi(Arrays.asList(
                Op.create(root + "/n", null, Ids.OPEN_ACL_UNSAFE, CreateMode.PERSISTENT),
                Op.check(root + "/m", 9),
                Op.delete(root + "/n", -1)));
            throw new AssertionError("a failing multi went through");
        } catch (KeeperException e) {
            same(Code.BADVERSION, e.code());
            same(Code.OK.intValue(), ((OpResult.ErrorResult) e.getResults().get(0)).getErr());
            same(Code.BADVERSION.intValue(), ((OpResult.ErrorResult) e.getResults().get(1)).getErr());
            same(Code.RUNTIMEINCONSISTENCY.intValue(), ((OpResult.ErrorResult) e.getResults().get(2)).getErr());
        }
        yes(zk.exists(root + "/n", false) == null, "nothing of it stays");
        results = zk.multi(Arrays.asList(Op.getData(root + "/m"), Op.getChildren(root + "/m"), Op.getData(root + "/none")));
        same("2", new String(((OpResult.GetDataResult) results.get(0)).getData()));
        same(2, ((OpResult.GetChildrenResult) results.get(1)).getChildren().size());
        same(Code.NONODE.intValue(), ((OpResult.ErrorResult) results.get(2)).getErr());
        same(2, zk.transaction().check(root + "/m", 1).setData(root + "/m", null, 1).commit().size());
        same(0, zk.multi(Collections.emptyList()).size());
    }

    static void test_one_shot_watches(ZooKeeper zk, String root) throws Exception {
        Events events = new Events();
        zk.exists(root + "/w", events);
        zk.getChildren(root, events);
        zk.create(root + "/w", null, Ids.OPEN_ACL_UNSAFE, CreateMode.PERSISTENT);
        events.expect(EventType.NodeCreated, root + "/w");
        events.expect(EventType.NodeChildrenChanged, root);
        zk.getData(root + "/w", events, null);
        zk.setData(root + "/w", null, -1);
        events.expect(EventType.NodeDataChanged, root + "/w");
        zk.getData(root + "/w", events, null);
        zk.getChildren(root + "/w", events);
        zk.delete(root + "/w", -1);
        events.expect(EventType.NodeDeleted, root + "/w");
        zk.sync(root, (rc, path, ctx) -> { }, null);
        zk.exists(root, false);
        events.expectSilence();
    }

    static void test_persistent_watches(ZooKeeper zk, String root) throws Exception {
        Events persistent = new Events();
        Events recursive = new Events();
        zk.addWatch(root, persistent, AddWatchMode.PERSISTENT);
        zk.addWatch(root, recursive, AddWatchMode.PERSISTENT_RECURSIVE);
        zk.create(root + "/a", null, Ids.OPEN_ACL_UNSAFE, CreateMode.PERSISTENT);
        zk.create(root + "/a/b", null, Ids.OPEN_ACL_UNSAFE, CreateMode.PERSISTENT);
        zk.setData(root, null, -1);
        zk.setData(root + "/a/b", null, -1);
        zk.delete(root + "/a/b", -1);
        persistent.expect(EventType.NodeChildrenChanged, root);
        persistent.expect(EventType.NodeDataChanged, root);
        recursive.expect(EventType.NodeCreated, root + "/a");
        recursive.expect(EventType.NodeCreated, root + "/a/b");
        recursive.expect(EventType.NodeDataChanged, root);
        recursive.expect(EventType.NodeDataChanged, root + "/a/b");
        recursive.expect(EventType.NodeDeleted, root + "/a/b");
        zk.removeWatches(root, recursive, Watcher.WatcherType.Any, false);
        zk.removeWatches(root, persistent, Watcher.WatcherType.Any, false);
        recursive.expect(EventType.PersistentWatchRemoved, root);
        fails(Code.NOWATCHER, () -> zk.removeWatches(root, recursive, Watcher.WatcherType.Any, false));
        Events data = new Events();
        zk.getData(root, data, null);
        zk.removeAllWatches(root, Watcher.WatcherType.Data, false);
        data.expect(EventType.DataWatchRemoved, root);
    }

    static void test_watches_come_back_after_a_lost_connection(ZooKeeper zk, String root) throws Exception {
        Events states = new Events();
        Events events = new Events();
        Events persistent = new Events();
        try (Proxy proxy = new Proxy(); ZooKeeper far = connect("127.0.0.1:" + proxy.port(), 8000, states)) {
            zk.create(root + "/d", null, Ids.OPEN_ACL_UNSAFE, CreateMode.PERSISTENT);
            zk.create(root + "/kept", null, Ids.OPEN_ACL_UNSAFE, CreateMode.PERSISTENT);
            far.create(root + "/eph", null, Ids.OPEN_ACL_UNSAFE, CreateMode.EPHEMERAL);
            far.getData(root + "/d", events, null);
            far.getData(root + "/kept", events, null);
            far.addWatch(root + "/kept", persistent, AddWatchMode.PERSISTENT_RECURSIVE);
            long session = far.getSessionId();
            proxy.cut();
            states.expectState(KeeperState.Disconnected);
            zk.setData(root + "/d", "missed".getBytes(), -1);
            proxy.mend();
            states.expectState(KeeperState.SyncConnected);
            events.expect(EventType.NodeDataChanged, root + "/d");
            same(session, far.getSessionId());
            yes(zk.exists(root + "/eph", false) != null, "the session's ephemeral stays");
            zk.setData(root + "/kept", null, -1);
            events.expect(EventType.NodeDataChanged, root + "/kept");
            persistent.expect(EventType.NodeDataChanged, root + "/kept");
        }
    }

    static void test_sessions(ZooKeeper zk, String root) throws Exception {
        Events firstStates = new Events();
        ZooKeeper first = connect(hosts, 8000, firstStates);
        first.create(root + "/eph", null, Ids.OPEN_ACL_UNSAFE, CreateMode.EPHEMERAL);
        CountDownLatch up = new CountDownLatch(1);
        ZooKeeper second = new ZooKeeper(hosts, 8000, event -> {
            if (event.getState() == KeeperState.SyncConnected) {
                up.countDown();
            }
        }, first.getSessionId(), first.getSessionPasswd());
        yes(up.await(20, TimeUnit.SECONDS), "reattached");
        firstStates.expectState(KeeperState.Disconnected);
        same(first.getSessionId(), second.getSessionId());
        Events wrong = new Events();
        ZooKeeper thief = new ZooKeeper(hosts, 8000, wrong, first.getSessionId(), new byte[16]);
        wrong.expectState(KeeperState.Expired);
        thief.close();
        Events gone = new Events();
        zk.exists(root + "/eph", gone);
        second.close();
        first.close();
        gone.expect(EventType.NodeDeleted, root + "/eph");
    }

    static void test_expiry(ZooKeeper zk, String root) throws Exception {
        Events states = new Events();
        Events gone = new Events();
        try (Proxy proxy = new Proxy(); ZooKeeper mortal = connect("127.0.0.1:" + proxy.port(), 1000, states)) {
            mortal.create(root + "/eph", null, Ids.OPEN_ACL_UNSAFE, CreateMode.EPHEMERAL);
            zk.exists(root + "/eph", gone);
            proxy.cut();
            gone.expect(EventType.NodeDeleted, root + "/eph");
            proxy.mend();
            states.expectState(KeeperState.Expired);
            fails(Code.SESSIONEXPIRED, () -> mortal.exists(root, false));
        }
    }

    static void test_async(ZooKeeper zk, String root) throws Exception {
        BlockingQueue<String> done = new LinkedBlockingQueue<>();
        zk.create(root + "/a", null, Ids.OPEN_ACL_UNSAFE, CreateMode.PERSISTENT,
            (AsyncCallback.StringCallback) (rc, path, ctx, name) -> done.add("create " + rc), null);
        zk.setData(root + "/a", "1".getBytes(), 0, (rc, path, ctx, stat) -> done.add("set " + rc), null);
        zk.getData(root + "/a", false, (rc, path, ctx, data, stat) -> done.add("get " + new String(data)), null);
        zk.exists(root + "/a", false, (rc, path, ctx, stat) -> done.add("exists " + stat.getVersion()), null);
        zk.getChildren(root, false, (AsyncCallback.ChildrenCallback) (rc, path, ctx, names) -> done.add("children " + names), null);
        zk.getACL(root, new Stat(), (rc, path, ctx, acl, stat) -> done.add("acl " + acl.size()), null);
        zk.setACL(root + "/a", Ids.OPEN_ACL_UNSAFE, 0, (rc, path, ctx, stat) -> done.add("setAcl " + rc), null);
        zk.multi(Arrays.asList(Op.check(root, -1)), (rc, path, ctx, results) -> done.add("multi " + rc), null);
        zk.getEphemerals(root, (rc, ctx, paths) -> done.add("ephemerals " + paths), null);
        zk.getAllChildrenNumber(root, (rc, path, ctx, number) -> done.add("all " + number), null);
        zk.delete(root + "/a", 9, (rc, path, ctx) -> done.add("delete " + rc), null);
        zk.sync(root, (rc, path, ctx) -> done.add("sync " + rc), null);
        for (String expected : Arrays.asList("create 0", "set 0", "get 1", "exists 1", "children [a]", "acl 1",
            "setAcl 0", "multi 0", "ephemerals []", "all 1", "delete -103", "sync 0")) {
            same(expected, done.poll(15, TimeUnit.SECONDS));
        }
    }

    static void test_config_and_reconfig(ZooKeeper zk, String root) throws Exception {
        same("", new String(zk.getConfig(false, new Stat())));
        try (ZooKeeperAdmin admin = new ZooKeeperAdmin(hosts, 8000, event -> { })) {
            admin.addAuthInfo("digest", "super:test".getBytes());
            fails(Code.RECONFIGDISABLED, () -> admin.reconfigure("server.2=localhost:1:2;3", null, null, -1, new Stat()));
        }
    }

    static void test_quotas(ZooKeeper zk, String root) throws Exception {
        String quota = "/zookeeper/quota" + root;
        for (int at = 1; at > 0; at = quota.indexOf('/', at + 1)) {
            int end = quota.indexOf('/', at + 1);
            String path = end < 0 ? quota : quota.substring(0, end);
            if (zk.exists(path, false) == null) {
                zk.create(path, null, Ids.OPEN_ACL_UNSAFE, CreateMode.PERSISTENT);
            }
            if (end < 0) {
                break;
            }
        }
        byte[] limits = "count=-1,bytes=-1=;byteHardLimit=10;countHardLimit=3".getBytes();
        zk.create(quota + "/zookeeper_limits", limits, Ids.OPEN_ACL_UNSAFE, CreateMode.PERSISTENT);
        zk.create(quota + "/zookeeper_stats", "count=0,bytes=0".getBytes(), Ids.OPEN_ACL_UNSAFE, CreateMode.PERSISTENT);
        same("count=1,bytes=0", new String(zk.getData(quota + "/zookeeper_stats", false, null)));
        zk.create(root + "/1", "12345".getBytes(), Ids.OPEN_ACL_UNSAFE, CreateMode.PERSISTENT);
        zk.create(root + "/2", null, Ids.OPEN_ACL_UNSAFE, CreateMode.PERSISTENT);
        same("count=3,bytes=5", new String(zk.getData(quota + "/zookeeper_stats", false, null)));
        fails(Code.QUOTAEXCEEDED, () -> zk.create(root + "/3", null, Ids.OPEN_ACL_UNSAFE, CreateMode.PERSISTENT));
        fails(Code.QUOTAEXCEEDED, () -> zk.setData(root + "/1", new byte[11], -1));
        zk.delete(root + "/2", -1);
        zk.setData(root + "/1", new byte[10], -1);
        zk.delete(quota + "/zookeeper_limits", -1);
        zk.create(root + "/3", new byte[100], Ids.OPEN_ACL_UNSAFE, CreateMode.PERSISTENT);
    }

    static void test_containers_and_ttls_go(ZooKeeper zk, String root) throws Exception {
        Events events = new Events();
        zk.create(root + "/box", null, Ids.OPEN_ACL_UNSAFE, CreateMode.CONTAINER);
        zk.create(root + "/box/x", null, Ids.OPEN_ACL_UNSAFE, CreateMode.PERSISTENT);
        zk.exists(root + "/box", events);
        zk.delete(root + "/box/x", -1);
        events.expect(EventType.NodeDeleted, root + "/box");
        zk.create(root + "/ttl", null, Ids.OPEN_ACL_UNSAFE, CreateMode.PERSISTENT_WITH_TTL, null, 200);
        zk.exists(root + "/ttl", events);
        events.expect(EventType.NodeDeleted, root + "/ttl");
    }

    static void test_requests_beyond_the_limit_end_the_connection(ZooKeeper zk, String root) throws Exception {
        try (ZooKeeper other = connect()) {
            fails(Code.CONNECTIONLOSS, () -> other.create(root + "/big", new byte[1_100_000], Ids.OPEN_ACL_UNSAFE, CreateMode.PERSISTENT));
        }
        yes(zk.exists(root + "/big", false) == null, "it was not created");
    }

    static void test_strings_of_all_kinds(ZooKeeper zk, String root) throws Exception {
        for (String name : Arrays.asList("ümlaut", "日本", "a b", "...", "\u00a0")) {
            zk.create(root + "/" + name, name.getBytes("UTF-8"), Ids.OPEN_ACL_UNSAFE, CreateMode.PERSISTENT);
            same(name, new String(zk.getData(root + "/" + name, false, null), "UTF-8"));
        }
        same(5, zk.getChildren(root, false).size());
    }

    /** A TCP relay to the server that can be cut. */
    static class Proxy implements AutoCloseable {
        private final ServerSocket listener = new ServerSocket(0, 50, java.net.InetAddress.getByName("127.0.0.1"));
        private final List<Socket> open = Collections.synchronizedList(new ArrayList<>());
        private volatile boolean cut;

        Proxy() throws IOException {
            Thread thread = new Thread(() -> {
                try {
                    while (true) {
                        Socket near = listener.accept();
                        if (cut) {
                            near.close();
                            continue;
                        }
                        Socket far = new Socket("127.0.0.1", Integer.parseInt(hosts.split(":")[1]));
                        open.add(near);
                        open.add(far);
                        relay(near, far);
                        relay(far, near);
                    }
                } catch (IOException e) {
                    // The test is over.
                }
            });
            thread.setDaemon(true);
            thread.start();
        }

        private static void relay(Socket from, Socket to) {
            Thread thread = new Thread(() -> {
                byte[] buffer = new byte[8192];
                try (InputStream in = from.getInputStream(); OutputStream out = to.getOutputStream()) {
                    for (int count = in.read(buffer); count >= 0; count = in.read(buffer)) {
                        out.write(buffer, 0, count);
                    }
                } catch (IOException e) {
                    // Cut.
                }
            });
            thread.setDaemon(true);
            thread.start();
        }

        int port() {
            return listener.getLocalPort();
        }

        void cut() throws IOException {
            cut = true;
            synchronized (open) {
                for (Socket socket : open) {
                    socket.close();
                }
                open.clear();
            }
        }

        void mend() {
            cut = false;
        }

        @Override public void close() throws IOException {
            cut();
            listener.close();
        }
    }

    public static void main(String[] args) throws Exception {
        hosts = args[0];
        int passed = 0;
        int failed = 0;
        for (Method test : ClientTest.class.getDeclaredMethods()) {
            if (!test.getName().startsWith("test_")) {
                continue;
            }
            String root = "/" + test.getName();
            try (ZooKeeper zk = connect()) {
                zk.create(root, new byte[0], Ids.OPEN_ACL_UNSAFE, CreateMode.PERSISTENT);
                test.invoke(null, zk, root);
                passed++;
                System.out.println("ok " + test.getName());
            } catch (Throwable e) {
                failed++;
                System.out.println("FAILED " + test.getName());
                (e.getCause() != null ? e.getCause() : e).printStackTrace(System.out);
            }
        }
        System.out.println("Java client: " + passed + " passed, " + failed + " failed");
        System.exit(failed == 0 && passed > 0 ? 0 : 1);
    }
}
