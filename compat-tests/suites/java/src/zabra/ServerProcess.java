package zabra;

import java.io.File;
import java.io.IOException;
import java.net.InetAddress;
import java.net.InetSocketAddress;
import java.net.Socket;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.TreeMap;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicInteger;

/**
 * The server under test as a process: what {@code compat-tests/suites/serve} starts on a zoo.cfg of ours.
 * The tests' system properties go with it, as a deployment would pass them.
 */
public final class ServerProcess {

    private static final String SERVE = System.getProperty("zabra.serve");
    /** How long a start or a stop may take, in milliseconds. */
    private static final long PATIENCE = 30_000;
    private static final List<String> PASSED_ON = List.of(
        "zookeeper.", "znode.", "jute.maxbuffer", "readonlymode.", "java.security.auth.", "java.security.krb5.", "audit.");
    private static final AtomicInteger STARTS = new AtomicInteger();
    private static volatile ServerProcess newest;

    private final InetSocketAddress address;
    private final Process process;

    private ServerProcess(InetSocketAddress address, Process process) {
        this.address = address;
        this.process = process;
    }

    /** How many servers were started in this JVM: a test that starts none does not speak to ours. */
    public static int starts() {
        return STARTS.get();
    }

    /** The server that was started last. */
    public static ServerProcess newest() {
        return newest;
    }

    /**
     * Starts a server and waits until it serves on {@code address}, or on a port with TLS listens there; {@code lines} are those
     * of its zoo.cfg.
     */
    public static ServerProcess start(Map<String, String> lines, InetSocketAddress address, boolean secure)
        throws IOException, InterruptedException {
        STARTS.incrementAndGet();
        Path directory = Files.createTempDirectory("server-");
        Path config = directory.resolve("zoo.cfg");
        StringBuilder text = new StringBuilder();
        lines.forEach((key, value) -> text.append(key).append('=').append(value).append('\n'));
        List<String> command = new ArrayList<>(List.of(SERVE, config.toString()));
        flags().forEach((key, value) -> {
            // Flags are words; what has blanks in it can only be said in the file, where the prefix goes without saying.
            if (value.contains(" ")) {
                text.append(key.replaceFirst("^zookeeper\\.", "")).append('=').append(value).append('\n');
            } else {
                command.add("-D" + key + "=" + value);
            }
        });
        Files.writeString(config, text);
        File log = directory.resolve("server.log").toFile();
        Process process = new ProcessBuilder(command).redirectErrorStream(true).redirectOutput(log).start();
        Runtime.getRuntime().addShutdownHook(new Thread(process::destroyForcibly));

        ServerProcess server = new ServerProcess(address, process);
        newest = server;
        server.await(secure, log.toPath());
        return server;
    }

    private static Map<String, String> flags() {
        Map<String, String> flags = new TreeMap<>();
        for (String key : System.getProperties().stringPropertyNames()) {
            if (PASSED_ON.stream().anyMatch(key::startsWith)) {
                flags.put(key, System.getProperty(key));
            }
        }
        return flags;
    }

    private void await(boolean secure, Path log) throws IOException, InterruptedException {
        long deadline = System.nanoTime() + TimeUnit.MILLISECONDS.toNanos(PATIENCE);
        while (System.nanoTime() < deadline) {
            if (!process.isAlive()) {
                throw new IOException("the server ended with " + process.exitValue() + ": " + Files.readString(log));
            }
            if (secure ? listens() : serves()) {
                return;
            }
            // Nothing can be awaited across processes but the next try.
            Thread.sleep(10);
        }
        stop();
        throw new IOException("the server does not serve on " + address + ": " + Files.readString(log));
    }

    private boolean listens() {
        try (Socket probe = new Socket()) {
            probe.connect(reachable());
            return true;
        } catch (IOException e) {
            return false;
        }
    }

    /** A Java server that is still loading listens, and neither answers nor closes. */
    private boolean serves() {
        try {
            return word("srvr").contains("Mode:");
        } catch (IOException e) {
            return false;
        }
    }

    public void stop() throws InterruptedException {
        process.destroy();
        if (!process.waitFor(PATIENCE, TimeUnit.MILLISECONDS)) {
            kill();
        }
    }

    public void kill() throws InterruptedException {
        process.destroyForcibly().waitFor();
    }

    public void join() throws InterruptedException {
        process.waitFor();
    }

    public boolean isAlive() {
        return process.isAlive();
    }

    /** Where a client on this machine finds it. */
    private InetSocketAddress reachable() {
        boolean isAnywhere = address.getAddress().isAnyLocalAddress();
        return isAnywhere ? new InetSocketAddress(InetAddress.getLoopbackAddress(), address.getPort()) : address;
    }

    /** The answer to a four-letter word. */
    public String word(String word) throws IOException {
        try (Socket socket = new Socket()) {
            socket.setSoTimeout(1_000);
            socket.connect(reachable());
            socket.getOutputStream().write(word.getBytes(StandardCharsets.US_ASCII));
            return new String(socket.getInputStream().readAllBytes(), StandardCharsets.UTF_8);
        }
    }
}
