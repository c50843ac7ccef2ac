package zabra;

import static net.bytebuddy.matcher.ElementMatchers.named;
import static net.bytebuddy.matcher.ElementMatchers.takesArguments;

import java.io.IOException;
import java.io.PrintStream;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Arrays;
import java.util.Set;
import java.util.concurrent.ConcurrentHashMap;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import net.bytebuddy.ByteBuddy;
import net.bytebuddy.agent.ByteBuddyAgent;
import net.bytebuddy.dynamic.loading.ClassReloadingStrategy;
import net.bytebuddy.implementation.MethodDelegation;
import org.apache.zookeeper.server.ProcessCnxnFactory;
import org.apache.zookeeper.server.ServerCnxnFactory;
import org.junit.platform.engine.FilterResult;
import org.junit.platform.engine.TestExecutionResult;
import org.junit.platform.engine.discovery.DiscoverySelectors;
import org.junit.platform.engine.support.descriptor.MethodSource;
import org.junit.platform.launcher.LauncherDiscoveryRequest;
import org.junit.platform.launcher.PostDiscoveryFilter;
import org.junit.platform.launcher.TestExecutionListener;
import org.junit.platform.launcher.TestIdentifier;
import org.junit.platform.launcher.core.LauncherDiscoveryRequestBuilder;
import org.junit.platform.launcher.core.LauncherFactory;

/**
 * {@code RunTests FILE CLASS METHOD…} runs one class of tests, but for the methods, with servers in other processes, and writes a
 * line for what happened to each test: status, name, milliseconds, servers started, reason; parts are divided by tabs.
 */
public final class RunTests implements TestExecutionListener {

    private static final Pattern ONE_OF_MANY = Pattern.compile("^\\[\\d+\\]");

    private final PrintStream out;
    private final ConcurrentHashMap<String, Long> started = new ConcurrentHashMap<>();

    private RunTests(PrintStream out) {
        this.out = out;
    }

    public static void main(String[] arguments) throws Exception {
        serveFromOtherProcesses();
        try (PrintStream out = new PrintStream(Files.newOutputStream(Path.of(arguments[0])), true, StandardCharsets.UTF_8)) {
            LauncherDiscoveryRequest request = LauncherDiscoveryRequestBuilder.request()
                .selectors(DiscoverySelectors.selectClass(arguments[1]))
                .filters(without(Set.copyOf(Arrays.asList(arguments).subList(2, arguments.length))))
                .build();
            LauncherFactory.create().execute(request, new RunTests(out));
            out.println("done");
        }
        // Tests leave threads behind.
        System.exit(0);
    }

    private static PostDiscoveryFilter without(Set<String> methods) {
        return test -> {
            boolean isOne = test.getSource()
                .filter(MethodSource.class::isInstance)
                .filter(source -> methods.contains(((MethodSource) source).getMethodName()))
                .isPresent();
            return FilterResult.includedIf(!isOne);
        };
    }

    /** Whatever factory a test's properties name, it gets ours; the name goes on to the process. */
    private static void serveFromOtherProcesses() {
        ByteBuddyAgent.install();
        new ByteBuddy()
            .redefine(ServerCnxnFactory.class)
            .method(named("createFactory").and(takesArguments(0)))
            .intercept(MethodDelegation.to(Factory.class))
            .make()
            .load(ServerCnxnFactory.class.getClassLoader(), ClassReloadingStrategy.fromInstalledAgent());
    }

    /** What a server in another process is made with. */
    public static final class Factory {

        public static ServerCnxnFactory createFactory() throws IOException {
            return new ProcessCnxnFactory();
        }
    }

    @Override
    public void executionStarted(TestIdentifier test) {
        started.put(test.getUniqueId(), System.nanoTime());
        if (test.isTest()) {
            out.println("started\t" + name(test));
        }
    }

    @Override
    public void executionSkipped(TestIdentifier test, String reason) {
        write("skipped", test, reason);
    }

    @Override
    public void executionFinished(TestIdentifier test, TestExecutionResult result) {
        Throwable thrown = result.getThrowable().orElse(null);
        switch (result.getStatus()) {
            case SUCCESSFUL:
                if (test.isTest()) {
                    write("passed", test, "");
                }
                break;
            case ABORTED:
                write("skipped", test, String.valueOf(thrown.getMessage()));
                break;
            case FAILED:
                thrown.printStackTrace();
                write("failed", test, thrown.toString());
                break;
        }
    }

    private void write(String status, TestIdentifier test, String reason) {
        Long since = started.get(test.getUniqueId());
        long took = since == null ? 0 : (System.nanoTime() - since) / 1_000_000;
        String line = reason.replaceAll("\\s+", " ");
        out.println(String.join("\t", status, name(test), String.valueOf(took), String.valueOf(ServerProcess.starts()), line));
    }

    /** Class and method, with the number of a parameterized one; the class alone where it is all of it. */
    private static String name(TestIdentifier test) {
        String name = test.getSource()
            .filter(MethodSource.class::isInstance)
            .map(source -> simple(((MethodSource) source).getClassName()) + "." + ((MethodSource) source).getMethodName())
            .orElse(test.getDisplayName());
        Matcher number = ONE_OF_MANY.matcher(test.getDisplayName());
        return test.isTest() && number.find() ? name + number.group() : name;
    }

    private static String simple(String className) {
        return className.substring(className.lastIndexOf('.') + 1);
    }
}
