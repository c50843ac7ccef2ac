package org.apache.zookeeper.metrics;

import java.io.IOException;
import java.io.UncheckedIOException;
import java.util.Map;
import java.util.TreeMap;
import zabra.ServerProcess;

/** Stands in for the tests' look at a server's figures: takes them from {@code mntr} of the process that was started last. */
public abstract class MetricsUtils {

    private MetricsUtils() {
    }

    public static Map<String, Object> currentServerMetrics() {
        Map<String, Object> figures = new TreeMap<>();
        try {
            for (String line : ServerProcess.newest().word("mntr").split("\n")) {
                String[] parts = line.split("\t");
                if (parts.length == 2) {
                    figures.put(parts[0].replaceFirst("^zk_", ""), value(parts[1]));
                }
            }
        } catch (IOException e) {
            throw new UncheckedIOException(e);
        }
        return figures;
    }

    private static Object value(String text) {
        if (text.matches("-?\\d+")) {
            return Long.valueOf(text);
        }
        return text.matches("-?\\d+\\.\\d+") ? Double.valueOf(text) : text;
    }
}
