package org.apache.zookeeper.server;

import java.io.File;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.net.InetAddress;
import java.net.InetSocketAddress;
import java.net.ServerSocket;
import java.util.LinkedHashMap;
import java.util.Map;
import org.apache.zookeeper.server.quorum.QuorumPeerConfig;
import zabra.ServerProcess;

/**
 * The connections of a server in another process. Tests put a {@link ZooKeeperServer} together and start it through a
 * factory like this one; it takes the directories and times of that server, which itself never runs, and starts
 * the process with them. It lives in this package because a server's state can only be set from here.
 */
public class ProcessCnxnFactory extends ServerCnxnFactory {

    private InetSocketAddress address;
    private int mostPerHost;
    private int backlog = -1;
    private ServerProcess process;

    @Override
    public void configure(InetSocketAddress address, int mostPerHost, int backlog, boolean secure) throws IOException {
        this.address = address.getPort() == 0 ? new InetSocketAddress(address.getAddress(), freePort()) : address;
        this.mostPerHost = mostPerHost < 0 ? 60 : mostPerHost;
        this.backlog = backlog;
        this.secure = secure;
        initMaxCnxns();
    }

    private static int freePort() throws IOException {
        try (ServerSocket probe = new ServerSocket(0, 1, InetAddress.getLoopbackAddress())) {
            return probe.getLocalPort();
        }
    }

    @Override
    public void startup(ZooKeeperServer server, boolean startServer) throws IOException, InterruptedException {
        if (server.getClass().getName().contains(".quorum.")) {
            throw new IOException("needs an ensemble");
        }
        setZooKeeperServer(server);
        if (startServer) {
            start();
            server.setState(ZooKeeperServer.State.RUNNING);
        }
    }

    // A test may see the server serve, and shut it down, before the thread that starts it knows.
    @Override
    public synchronized void start() {
        if (process != null) {
            return;
        }
        try {
            process = ServerProcess.start(settings(), address, secure);
        } catch (IOException e) {
            throw new UncheckedIOException(e);
        } catch (InterruptedException e) {
            Thread.currentThread().interrupt();
        }
    }

    private Map<String, String> settings() {
        Map<String, String> lines = new LinkedHashMap<>();
        File snapshots = zkServer.getTxnLogFactory().getSnapDir().getParentFile();
        File logs = zkServer.getTxnLogFactory().getDataLogDir().getParentFile();
        lines.put("dataDir", snapshots.getAbsolutePath());
        if (!logs.equals(snapshots)) {
            lines.put("dataLogDir", logs.getAbsolutePath());
        }
        lines.put(secure ? "secureClientPort" : "clientPort", String.valueOf(address.getPort()));
        if (!address.getAddress().isAnyLocalAddress()) {
            lines.put(secure ? "secureClientPortAddress" : "clientPortAddress", address.getAddress().getHostAddress());
        }
        lines.put("tickTime", String.valueOf(zkServer.getTickTime()));
        lines.put("minSessionTimeout", String.valueOf(zkServer.getMinSessionTimeout()));
        lines.put("maxSessionTimeout", String.valueOf(zkServer.getMaxSessionTimeout()));
        lines.put("maxClientCnxns", String.valueOf(mostPerHost));
        // Tests say so in this process; a server alone refuses to reconfigure in another way when it is on.
        lines.put("reconfigEnabled", String.valueOf(QuorumPeerConfig.isReconfigEnabled()));
        if (backlog != -1) {
            lines.put("clientPortListenBacklog", String.valueOf(backlog));
        }
        return lines;
    }

    @Override
    public synchronized void shutdown() {
        try {
            if (process != null) {
                process.stop();
            }
        } catch (InterruptedException e) {
            Thread.currentThread().interrupt();
        }
        if (zkServer != null) {
            zkServer.shutdown();
        }
    }

    @Override
    public void join() throws InterruptedException {
        if (process != null) {
            process.join();
        }
    }

    @Override
    public int getLocalPort() {
        return address.getPort();
    }

    @Override
    public InetSocketAddress getLocalAddress() {
        return address;
    }

    @Override
    public int getMaxClientCnxnsPerHost() {
        return mostPerHost;
    }

    @Override
    public int getSocketListenBacklog() {
        return backlog;
    }

    @Override
    public int getNumAliveConnections() {
        return ask("mntr").lines()
            .filter(line -> line.startsWith("zk_num_alive_connections\t"))
            .mapToInt(line -> Integer.parseInt(line.split("\t")[1]))
            .findFirst()
            .orElseThrow();
    }

    @Override
    public void resetAllConnectionStats() {
        ask("crst");
    }

    private String ask(String word) {
        try {
            return process.word(word);
        } catch (IOException e) {
            throw new UncheckedIOException(e);
        }
    }

    @Override
    public Iterable<ServerCnxn> getConnections() {
        throw new InAnotherProcess();
    }

    @Override
    public Iterable<Map<String, Object>> getAllConnectionInfo(boolean brief) {
        throw new InAnotherProcess();
    }

    @Override
    public void closeAll(ServerCnxn.DisconnectReason reason) {
        throw new InAnotherProcess();
    }

    @Override
    public boolean closeSession(long sessionId, ServerCnxn.DisconnectReason reason) {
        throw new InAnotherProcess();
    }

    @Override
    public void reconfigure(InetSocketAddress address) {
        throw new InAnotherProcess();
    }

    @Override
    public void setMaxClientCnxnsPerHost(int most) {
        throw new InAnotherProcess();
    }

    /** What a test wants to touch is in the server's process. */
    private static final class InAnotherProcess extends UnsupportedOperationException {

        private static final long serialVersionUID = 1;

        InAnotherProcess() {
            super("the server is another process");
        }
    }
}
