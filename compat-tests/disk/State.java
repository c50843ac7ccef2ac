import java.io.File;
import java.util.Arrays;
import java.util.Base64;
import java.util.Map;
import java.util.StringJoiner;
import java.util.TreeMap;
import java.util.TreeSet;
import java.util.concurrent.ConcurrentHashMap;
import org.apache.zookeeper.data.ACL;
import org.apache.zookeeper.data.Stat;
import org.apache.zookeeper.server.DataNode;
import org.apache.zookeeper.server.DataTree;
import org.apache.zookeeper.server.ServerMetrics;
import org.apache.zookeeper.server.ZooKeeperServer;
import org.apache.zookeeper.server.persistence.FileTxnSnapLog;

/**
 * Says what Java's server restores from directories: one line of JSON for each four of: extendedTypesEnabled,
 * digest.enabled, dataDir, dataLogDir.
 */
public class State {
    public static void main(String[] asked) throws Exception {
        for (int at = 0; at < asked.length; at += 4) {
            System.setProperty("zookeeper.extendedTypesEnabled", asked[at]);
            ZooKeeperServer.setDigestEnabled(Boolean.parseBoolean(asked[at + 1]));
            long before = mismatches();
            DataTree tree = new DataTree();
            ConcurrentHashMap<Long, Integer> sessions = new ConcurrentHashMap<>();
            FileTxnSnapLog files = new FileTxnSnapLog(new File(asked[at + 3]), new File(asked[at + 2]));
            long last = files.restore(tree, sessions, (header, txn, digest) -> { });
            files.close();
            StringJoiner all = new StringJoiner(",", "{", "}");
            all.add("\"last\":" + last);
            if (ZooKeeperServer.isDigestEnabled()) {
                all.add("\"digest\":" + quoted(Long.toUnsignedString(tree.getTreeDigest())));
            }
            all.add("\"mismatches\":" + (mismatches() - before));
            StringJoiner alive = new StringJoiner(",", "{", "}");
            for (Map.Entry<Long, Integer> session : new TreeMap<>(sessions).entrySet()) {
                alive.add(quoted(Long.toString(session.getKey())) + ":" + session.getValue());
            }
            all.add("\"sessions\":" + alive);
            StringJoiner owners = new StringJoiner(",", "{", "}");
            StringJoiner znodes = new StringJoiner(",", "{", "}");
            add(tree, "/", znodes, owners);
            all.add("\"owners\":" + owners).add("\"znodes\":" + znodes);
            System.out.println(all);
        }
    }

    private static long mismatches() {
        return ServerMetrics.getMetrics().DIGEST_MISMATCHES_COUNT.get();
    }

    private static void add(DataTree tree, String path, StringJoiner znodes, StringJoiner owners) {
        DataNode node = tree.getNode(path);
        Stat stat = new Stat();
        node.copyStat(stat);
        byte[] data = node.getData();
        String numbers = Arrays.toString(new long[] {
            stat.getCzxid(), stat.getMzxid(), stat.getCtime(), stat.getMtime(), stat.getVersion(), stat.getCversion(),
            stat.getAversion(), stat.getEphemeralOwner(), stat.getDataLength(), stat.getNumChildren(), stat.getPzxid()});
        StringJoiner acls = new StringJoiner(",", "[", "]");
        for (ACL acl : tree.getACL(node)) {
            acls.add("[" + acl.getPerms() + "," + quoted(acl.getId().getScheme()) + "," + quoted(acl.getId().getId()) + "]");
        }
        String bytes = data == null ? "null" : quoted(Base64.getEncoder().encodeToString(data));
        znodes.add(quoted(path) + ":[" + bytes + "," + numbers + "," + acls + "]");
        // What clients don't see: containers and TTLs.
        if (node.stat.getEphemeralOwner() != stat.getEphemeralOwner()) {
            owners.add(quoted(path) + ":" + node.stat.getEphemeralOwner());
        }
        for (String name : new TreeSet<>(node.getChildren())) {
            add(tree, (path.equals("/") ? "" : path) + "/" + name, znodes, owners);
        }
    }

    private static String quoted(String text) {
        StringBuilder out = new StringBuilder("\"");
        for (char one : text.toCharArray()) {
            boolean plain = one >= ' ' && one < 127 && one != '"' && one != '\\';
            out.append(plain ? String.valueOf(one) : String.format("\\u%04x", (int) one));
        }
        return out.append('"').toString();
    }
}
