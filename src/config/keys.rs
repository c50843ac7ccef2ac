//! All keys of ZooKeeper 3.9, where Apache reads each, and what it does here. A key that does nothing here is not swallowed:
//! one that asks for protection stops the start, one that asks for a feature is a warning, any other a note.

use Asks::{Always, NotFalse, Positive, True, Unless};
use Effect::{Adds, Harmless, Protects, ProtectsTls, Works};
use Source::{File, Flag, Property};

/// Where Apache reads a key. Elsewhere it has no effect, there and here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Source {
    /// A line of `zoo.cfg` alone.
    File,
    /// A line of `zoo.cfg`, or the flag `-Dzookeeper.<key>`.
    Property,
    /// The flag `-D<key>` alone.
    Flag,
}

/// What a key does here, and why it does nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Effect {
    Works,
    /// Somebody may rely on it: the start stops.
    Protects(Asks, &'static str),
    /// The same where there is TLS on a client port.
    ProtectsTls(Asks, &'static str),
    /// It would do more than this server does: a warning.
    Adds(Asks, &'static str),
    /// Nobody misses it: a note.
    Harmless(&'static str),
}

/// Which values ask for something. An empty one does not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Asks {
    Always,
    /// `true`, as Java reads a system property.
    True,
    /// All but `false`, where Java's parser wants one of the two.
    NotFalse,
    /// A number above 0.
    Positive,
    /// All but this one, in any case.
    Unless(&'static str),
}

impl Asks {
    pub fn for_something(self, value: &str) -> bool {
        let value = value.trim();
        let asks = match self {
            Always => true,
            True => value.eq_ignore_ascii_case("true"),
            NotFalse => !value.eq_ignore_ascii_case("false"),
            Positive => value.parse::<f64>().is_ok_and(|number| number > 0.0),
            Unless(default) => !value.eq_ignore_ascii_case(default),
        };
        asks && !value.is_empty()
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Key {
    /// Ends in `.N`, with any text in that place.
    pub name: &'static str,
    pub source: Source,
    pub effect: Effect,
}

pub(super) fn find(key: &str) -> Option<Key> {
    let is_meant = |name: &str| match name.strip_suffix('N').filter(|start| start.ends_with('.')) {
        Some(start) => key.starts_with(start),
        None => key == name,
    };
    // Whole names before those with a part that is left open.
    let exact = KEYS.iter().find(|(name, ..)| *name == key);
    let (name, source, effect) = *exact.or_else(|| KEYS.iter().find(|(name, ..)| is_meant(name)))?;
    Some(Key { name, source, effect })
}

const QUORUM_TLS: &str = "there is no TLS between servers yet: they would talk in the clear. Keep their ports in a network of their own, \
                          and take it out";
const QUORUM_SASL: &str = "there is no SASL between servers yet: any process that reaches their ports could be one. Keep these ports in a \
                           network of their own, and take it out";
const NO_QUORUM_TLS: &str = "there is no TLS between servers yet";
const NO_QUORUM_SASL: &str = "there is no SASL between servers yet";
const REVOCATION: &str = "there is no check of revocation yet: set it to false to go without";
const HOST_CHECK: &str =
    "the host of a client is not compared with its certificate yet: set it to false to go without";
const AUDIT: &str = "there is no audit log yet, and no line would be written: set it to false to go without";
const FIPS: &str = "this server's cryptography is not validated for FIPS 140, and nothing is restricted: set it to false to go without";
const OTHER_PROOF: &str = "certificates are proved by x509 alone: take it out if that is what is wanted";
const OTHER_CONTEXT: &str = "classes are not loaded here, and TLS goes by the other keys alone: take it out if that is what is wanted";
const NO_ADMIN: &str = "there is no admin server yet, and its port stays closed";
const NO_METRICS: &str = "there is no provider of metrics yet: the four-letter word mntr has the figures";
const NO_KERBEROS: &str = "there is no Kerberos here";
const NO_THROTTLE: &str = "there is no throttle yet";
const NO_LOCAL_SESSIONS: &str = "there are no local sessions yet: all are global";
const NO_OBSERVER_MASTER: &str = "followers serve no observers yet: they follow the leader";
const NO_ORACLE: &str = "there is no oracle: two servers stand still when one of them is lost";
const NO_STATISTICS: &str = "there are no statistics of request paths";
const NO_LIMIT: &str = "this limit is not there yet";
const TEST_ONLY: &str = "it is for tests of Apache's server";
const OWN_THREADS: &str = "threads and buffers are laid out differently here";
const NO_CACHE: &str = "replies are made without a cache";
const NO_JVM: &str = "there is no JVM";
const NOT_NEEDED: &str = "what it tunes is not there";
const FOR_CLIENTS: &str = "it is a client's setting";
const OTHER_NAME: &str =
    "Apache reads it under another name (request_throttle_*, connection_throttle_*, throttled_op_wait_time)";
const LOGGING: &str = "the log goes to standard error, its level is ZABRA_LOG's";

/// By the chapters of Apache's administrator's guide.
pub(super) const KEYS: &[(&str, Source, Effect)] = &[
    ("dataDir", File, Works),
    ("dataLogDir", File, Works),
    ("clientPort", File, Works),
    ("clientPortAddress", File, Works),
    ("secureClientPort", File, Works),
    ("secureClientPortAddress", File, Works),
    ("tickTime", File, Works),
    ("maxClientCnxns", File, Works),
    ("clientPortListenBacklog", File, Works),
    ("minSessionTimeout", File, Works),
    ("maxSessionTimeout", File, Works),
    ("autopurge.snapRetainCount", File, Works),
    ("autopurge.purgeInterval", File, Works),
    ("scrub.intervalMs", File, Works),
    ("scrub.bytesPerSecond", File, Works),
    ("snapCount", Property, Works),
    ("preAllocSize", Property, Works),
    ("commitLogCount", Property, Works),
    ("snapSizeLimitInKb", Property, Works),
    ("txnLogSizeLimitInKb", Property, Works),
    ("maxCnxns", Property, Works),
    ("globalOutstandingLimit", Property, Works),
    ("forceSync", Property, Works),
    ("skipACL", Property, Works),
    ("fsync.warningthresholdms", Property, Works),
    ("datadir.autocreate", Property, Works),
    ("db.autocreate", Property, Works),
    ("jute.maxbuffer", Flag, Works),
    ("jute.maxbuffer.extrasize", Property, Works),
    ("serverCnxnFactory", Property, Harmless("one factory serves plain connections and TLS")),
    ("4lw.commands.whitelist", Property, Works),
    ("znode.container.checkIntervalMs", Flag, Works),
    ("znode.container.maxPerMinute", Flag, Works),
    ("znode.container.maxNeverUsedIntervalMs", Flag, Works),
    ("extendedTypesEnabled", Property, Works),
    ("emulate353TTLNodes", Property, Works),
    ("closeSessionTxn.enabled", Property, Works),
    ("digest.enabled", Property, Works),
    ("serializeLastProcessedZxid.enabled", Property, Works),
    ("snapshot.compression.method", Property, Works),
    (
        "snapshot.trust.empty",
        Property,
        Adds(True, "a log that does not begin at the first transaction needs its snapshot"),
    ),
    ("enforceQuota", Property, Works),
    ("enableEagerACLCheck", Property, Harmless("the leader checks each write")),
    ("standaloneEnabled", File, Works),
    ("client.portUnification", Property, Works),
    ("clientTcpKeepAlive", Property, Adds(True, "a dead client is noticed by its session's timeout")),
    ("tcpKeepAlive", Property, Works),
    // Cluster.
    ("server.realm", Property, Harmless(NO_KERBEROS)),
    ("server.N", File, Works),
    ("group.N", File, Works),
    ("weight.N", File, Works),
    ("initLimit", File, Works),
    ("syncLimit", File, Works),
    ("connectToLearnerMasterLimit", File, Works),
    ("electionAlg", File, Works),
    ("quorumListenOnAllIPs", File, Works),
    ("peerType", File, Works),
    ("syncEnabled", File, Harmless("an observer always keeps log and snapshots")),
    ("observer.syncEnabled", Property, Harmless("an observer always keeps log and snapshots")),
    ("reconfigEnabled", File, Works),
    ("dynamicConfigFile", File, Works),
    ("localSessionsEnabled", File, Adds(NotFalse, NO_LOCAL_SESSIONS)),
    ("localSessionsUpgradingEnabled", File, Adds(NotFalse, NO_LOCAL_SESSIONS)),
    ("leaderServes", Property, Works),
    ("observerMasterPort", File, Adds(Positive, NO_OBSERVER_MASTER)),
    ("observerMaster.sizeLimit", Property, Harmless(NO_OBSERVER_MASTER)),
    ("observer.reconnectDelayMs", Property, Harmless(NOT_NEEDED)),
    ("observer.election.DelayMs", Property, Harmless(NOT_NEEDED)),
    ("electionPortBindRetry", Property, Works),
    ("cnxTimeout", Property, Works),
    ("quorumCnxnTimeoutMs", Property, Harmless(NOT_NEEDED)),
    ("quorum.cnxn.threads.size", File, Harmless(OWN_THREADS)),
    ("fastleader.minNotificationInterval", Property, Works),
    ("fastleader.maxNotificationInterval", Property, Works),
    ("leader.maxTimeToWaitForEpoch", Property, Harmless(NOT_NEEDED)),
    ("leader.maxConcurrentSnapSyncs", Property, Adds(Positive, NO_LIMIT)),
    ("leader.maxConcurrentDiffSyncs", Property, Adds(Positive, NO_LIMIT)),
    ("leader.ackLoggingFrequency", Property, Harmless(LOGGING)),
    ("leader.closeSocketAsync", Property, Harmless(OWN_THREADS)),
    ("learner.closeSocketAsync", Property, Harmless(OWN_THREADS)),
    ("learner.asyncSending", Property, Harmless(OWN_THREADS)),
    ("leaderConnectDelayDuringRetryMs", Property, Harmless(NOT_NEEDED)),
    ("forceSnapshotSync", Property, Works),
    ("snapshotSizeFactor", Property, Works),
    ("oraclePath", File, Adds(Always, NO_ORACLE)),
    ("multiAddress.enabled", Property, Works),
    ("multiAddress.reachabilityCheckTimeoutMs", Property, Harmless(NOT_NEEDED)),
    ("multiAddress.reachabilityCheckEnabled", Property, Harmless(NOT_NEEDED)),
    ("leader.nodelay", Flag, Harmless("packets are never delayed")),
    ("follower.nodelay", Flag, Harmless("packets are never delayed")),
    ("readonlymode.enabled", Flag, Works),
    ("forward_learner_requests_to_commit_processor_disabled", Property, Harmless(NOT_NEEDED)),
    ("follower.skipLearnerRequestToNextProcessor", Property, Harmless(NOT_NEEDED)),
    // This server's own.
    ("learners.allow", Property, Works),
    ("emptyServerWaitMs", Property, Works),
    ("maxUnreadBytes", Property, Works),
    ("maxWatchBytes", Property, Works),
    ("peers.checkAddress", Property, Works),
    // Tests.
    ("testingonly.initialZxid", Property, Adds(Always, TEST_ONLY)),
    ("test.allowDiscontinuousProposals", Property, Adds(True, TEST_ONLY)),
    ("controllerPort", Property, Adds(Always, TEST_ONLY)),
    // Performance.
    ("nio.numSelectorThreads", Property, Harmless(OWN_THREADS)),
    ("nio.numWorkerThreads", Property, Harmless(OWN_THREADS)),
    ("nio.directBufferBytes", Property, Harmless(OWN_THREADS)),
    ("nio.shutdownTimeout", Property, Harmless(OWN_THREADS)),
    ("nio.sessionlessCnxnTimeout", Property, Works),
    ("netty.advancedFlowControl.enabled", Property, Harmless(OWN_THREADS)),
    ("netty.server.outstandingHandshake.limit", Property, Adds(Positive, NO_LIMIT)),
    ("netty.server.earlyDropSecureConnectionHandshakes", Property, Adds(True, NO_LIMIT)),
    ("commitProcessor.numWorkerThreads", Property, Harmless(OWN_THREADS)),
    ("commitProcessor.maxReadBatchSize", Property, Harmless(OWN_THREADS)),
    ("commitProcessor.maxCommitBatchSize", Property, Harmless(OWN_THREADS)),
    ("commitProcessor.shutdownTimeout", Property, Harmless(OWN_THREADS)),
    ("flushDelay", Property, Works),
    ("maxWriteQueuePollTime", Property, Works),
    ("maxBatchSize", Property, Works),
    ("maxResponseCacheSize", Property, Harmless(NO_CACHE)),
    ("maxGetChildrenResponseCacheSize", Property, Harmless(NO_CACHE)),
    ("intBufferStartingSizeBytes", Property, Harmless(OWN_THREADS)),
    ("watchManagerName", Property, Harmless("one kind of watches does for all")),
    ("watcherCleanThreadsNum", Property, Harmless(NOT_NEEDED)),
    ("watcherCleanThreshold", Property, Harmless(NOT_NEEDED)),
    ("watcherCleanIntervalInSeconds", Property, Harmless(NOT_NEEDED)),
    ("maxInProcessingDeadWatchers", Property, Harmless(NOT_NEEDED)),
    ("bitHashCacheSize", Property, Harmless(NOT_NEEDED)),
    ("pathStats.enabled", Property, Adds(True, NO_STATISTICS)),
    ("pathStats.slotCapacity", Property, Harmless(NO_STATISTICS)),
    ("pathStats.slotDuration", Property, Harmless(NO_STATISTICS)),
    ("pathStats.maxDepth", Property, Harmless(NO_STATISTICS)),
    ("pathStats.sampleRate", Property, Harmless(NO_STATISTICS)),
    ("pathStats.initialDelay", Property, Harmless(NO_STATISTICS)),
    ("pathStats.delay", Property, Harmless(NO_STATISTICS)),
    ("pathStats.topPathMax", Property, Harmless(NO_STATISTICS)),
    ("messageTracker.BufferSize", Property, Harmless(LOGGING)),
    ("messageTracker.Enabled", Property, Harmless(LOGGING)),
    ("jvm.pause.monitor", File, Harmless(NO_JVM)),
    ("jvm.pause.info-threshold.ms", File, Harmless(NO_JVM)),
    ("jvm.pause.warn-threshold.ms", File, Harmless(NO_JVM)),
    ("jvm.pause.sleep.time.ms", File, Harmless(NO_JVM)),
    // Throttling.
    ("request_throttle_max_requests", Property, Adds(Positive, NO_THROTTLE)),
    ("request_throttle_stall_time", Property, Harmless(NO_THROTTLE)),
    ("request_throttle_drop_stale", Property, Harmless(NO_THROTTLE)),
    ("request_stale_connection_check", Property, Harmless(NO_THROTTLE)),
    ("request_stale_latency_check", Property, Harmless(NO_THROTTLE)),
    ("request_throttler.shutdownTimeout", Property, Harmless(NO_THROTTLE)),
    ("throttled_op_wait_time", Property, Adds(Positive, NO_THROTTLE)),
    ("largeRequestMaxBytes", Property, Harmless(NO_THROTTLE)),
    ("largeRequestThreshold", Property, Adds(Positive, NO_THROTTLE)),
    ("connection_throttle_tokens", Property, Adds(Positive, NO_THROTTLE)),
    ("connection_throttle_fill_time", Property, Harmless(NO_THROTTLE)),
    ("connection_throttle_fill_count", Property, Harmless(NO_THROTTLE)),
    ("connection_throttle_freeze_time", Property, Harmless(NO_THROTTLE)),
    ("connection_throttle_drop_increase", Property, Harmless(NO_THROTTLE)),
    ("connection_throttle_drop_decrease", Property, Harmless(NO_THROTTLE)),
    ("connection_throttle_decrease_ratio", Property, Harmless(NO_THROTTLE)),
    ("connection_throttle_weight_enabled", Property, Harmless(NO_THROTTLE)),
    ("connection_throttle_global_session_weight", Property, Harmless(NO_THROTTLE)),
    ("connection_throttle_renew_session_weight", Property, Harmless(NO_THROTTLE)),
    ("connection_throttle_local_session_weight", Property, Harmless(NO_THROTTLE)),
    // Headings of the guide that are no keys.
    ("requestThrottleLimit", Property, Adds(Always, OTHER_NAME)),
    ("requestThrottleStallTime", Property, Adds(Always, OTHER_NAME)),
    ("requestThrottleDropStale", Property, Adds(Always, OTHER_NAME)),
    ("requestStaleConnectionCheck", Property, Adds(Always, OTHER_NAME)),
    ("requestStaleLatencyCheck", Property, Adds(Always, OTHER_NAME)),
    ("throttledOpWaitTime", Property, Adds(Always, OTHER_NAME)),
    ("connectionMaxTokens", Property, Adds(Always, OTHER_NAME)),
    ("connectionTokenFillTime", Property, Adds(Always, OTHER_NAME)),
    ("connectionTokenFillCount", Property, Adds(Always, OTHER_NAME)),
    ("connectionFreezeTime", Property, Adds(Always, OTHER_NAME)),
    ("connectionDropIncrease", Property, Adds(Always, OTHER_NAME)),
    ("connectionDropDecrease", Property, Adds(Always, OTHER_NAME)),
    ("connectionDecreaseRatio", Property, Adds(Always, OTHER_NAME)),
    // Who a client is, and what it may do.
    ("authProvider.N", Property, Works),
    ("DigestAuthenticationProvider.enabled", Property, Works),
    ("DigestAuthenticationProvider.superDigest", Property, Works),
    ("DigestAuthenticationProvider.digestAlg", Property, Works),
    ("IPAuthenticationProvider.usexforwardedfor", Property, Harmless(NO_ADMIN)),
    ("X509AuthenticationProvider.superUser", Property, Works),
    ("superUser", Property, Works),
    ("superUser.N", Property, Works),
    ("SASLAuthenticationProvider.superPassword", Property, Works),
    ("letAnySaslUserDoX", Property, Works),
    ("sessionRequireClientSASLAuth", Property, Works),
    ("enforce.auth.enabled", Property, Works),
    ("enforce.auth.schemes", Property, Works),
    ("allowSaslFailedClients", Property, Works),
    ("ensembleAuthName", Property, Works),
    ("java.security.auth.login.config", Flag, Works),
    ("java.security.krb5.conf", Flag, Harmless(NO_KERBEROS)),
    ("sasl.serverconfig", Property, Works),
    ("kerberos.removeHostFromPrincipal", Property, Adds(True, NO_KERBEROS)),
    ("kerberos.removeRealmFromPrincipal", Property, Adds(True, NO_KERBEROS)),
    ("kerberos.canonicalizeHostNames", Property, Adds(True, NO_KERBEROS)),
    ("kerberos.minReLoginTimeMs", Property, Harmless(NO_KERBEROS)),
    ("security.auth_to_local", Property, Adds(Unless("DEFAULT"), NO_KERBEROS)),
    ("requireKerberosConfig", Property, Adds(True, NO_KERBEROS)),
    ("kinit", Property, Harmless(NO_KERBEROS)),
    ("fips-mode", Property, Protects(True, FIPS)),
    ("quorum.auth.enableSasl", File, Protects(NotFalse, QUORUM_SASL)),
    ("quorum.auth.serverRequireSasl", File, Protects(NotFalse, QUORUM_SASL)),
    ("quorum.auth.learnerRequireSasl", File, Protects(NotFalse, QUORUM_SASL)),
    ("quorum.auth.learner.saslLoginContext", File, Harmless(NO_QUORUM_SASL)),
    ("quorum.auth.server.saslLoginContext", File, Harmless(NO_QUORUM_SASL)),
    ("quorum.auth.kerberos.servicePrincipal", File, Harmless(NO_QUORUM_SASL)),
    ("audit.enable", Property, Protects(True, AUDIT)),
    ("audit.impl.class", Property, Harmless("there is no audit log yet")),
    // TLS of clients.
    ("ssl.protocol", Property, Works),
    ("ssl.enabledProtocols", Property, Works),
    ("ssl.ciphersuites", Property, Works),
    ("ssl.keyStore.location", Property, Works),
    ("ssl.keyStore.password", Property, Works),
    ("ssl.keyStore.passwordPath", Property, Works),
    ("ssl.keyStore.type", Property, Works),
    ("ssl.trustStore.location", Property, Works),
    ("ssl.trustStore.password", Property, Works),
    ("ssl.trustStore.passwordPath", Property, Works),
    ("ssl.trustStore.type", Property, Works),
    ("ssl.clientAuth", Property, Works),
    ("ssl.context.supplier.class", Property, ProtectsTls(Always, OTHER_CONTEXT)),
    ("ssl.hostnameVerification", Property, Harmless("a server does not verify its own host's name")),
    ("ssl.clientHostnameVerification", Property, ProtectsTls(True, HOST_CHECK)),
    ("ssl.allowReverseDnsLookup", Property, Harmless("hosts of clients are not looked up")),
    ("ssl.crl", Property, ProtectsTls(True, REVOCATION)),
    ("ssl.ocsp", Property, ProtectsTls(True, REVOCATION)),
    (
        "ssl.handshakeDetectionTimeoutMillis",
        Property,
        Harmless("nio.sessionlessCnxnTimeout ends hand-shakes too"),
    ),
    ("ssl.authProvider", Property, ProtectsTls(Unless("x509"), OTHER_PROOF)),
    ("ssl.sslProvider", Property, Harmless("there is one implementation of TLS")),
    ("client.certReload", Property, Adds(True, "new keys and certificates are read at the next start")),
    // TLS between servers.
    ("sslQuorum", File, Protects(NotFalse, QUORUM_TLS)),
    ("portUnification", File, Protects(NotFalse, QUORUM_TLS)),
    ("sslQuorumReloadCertFiles", File, Adds(NotFalse, NO_QUORUM_TLS)),
    ("ssl.quorum.protocol", Property, Adds(Always, NO_QUORUM_TLS)),
    ("ssl.quorum.enabledProtocols", Property, Adds(Always, NO_QUORUM_TLS)),
    ("ssl.quorum.ciphersuites", Property, Adds(Always, NO_QUORUM_TLS)),
    ("ssl.quorum.keyStore.location", Property, Adds(Always, NO_QUORUM_TLS)),
    ("ssl.quorum.keyStore.password", Property, Adds(Always, NO_QUORUM_TLS)),
    ("ssl.quorum.keyStore.passwordPath", Property, Adds(Always, NO_QUORUM_TLS)),
    ("ssl.quorum.keyStore.type", Property, Adds(Always, NO_QUORUM_TLS)),
    ("ssl.quorum.trustStore.location", Property, Adds(Always, NO_QUORUM_TLS)),
    ("ssl.quorum.trustStore.password", Property, Adds(Always, NO_QUORUM_TLS)),
    ("ssl.quorum.trustStore.passwordPath", Property, Adds(Always, NO_QUORUM_TLS)),
    ("ssl.quorum.trustStore.type", Property, Adds(Always, NO_QUORUM_TLS)),
    ("ssl.quorum.context.supplier.class", Property, Adds(Always, NO_QUORUM_TLS)),
    ("ssl.quorum.hostnameVerification", Property, Adds(True, NO_QUORUM_TLS)),
    ("ssl.quorum.clientHostnameVerification", Property, Adds(True, NO_QUORUM_TLS)),
    ("ssl.quorum.allowReverseDnsLookup", Property, Adds(True, NO_QUORUM_TLS)),
    ("ssl.quorum.crl", Property, Adds(True, NO_QUORUM_TLS)),
    ("ssl.quorum.ocsp", Property, Adds(True, NO_QUORUM_TLS)),
    ("ssl.quorum.clientAuth", Property, Adds(Unless("none"), NO_QUORUM_TLS)),
    ("ssl.quorum.handshakeDetectionTimeoutMillis", Property, Adds(Always, NO_QUORUM_TLS)),
    // Administration and metrics.
    ("admin.enableServer", Property, Adds(Unless("false"), NO_ADMIN)),
    ("admin.serverPort", Property, Adds(Always, NO_ADMIN)),
    ("admin.serverAddress", Property, Harmless(NO_ADMIN)),
    ("admin.commandURL", Property, Harmless(NO_ADMIN)),
    ("admin.idleTimeout", Property, Harmless(NO_ADMIN)),
    ("admin.httpVersion", Property, Harmless(NO_ADMIN)),
    ("admin.portUnification", Property, Harmless(NO_ADMIN)),
    ("admin.forceHttps", Property, Harmless(NO_ADMIN)),
    ("admin.needClientAuth", Property, Harmless(NO_ADMIN)),
    ("admin.rateLimiterIntervalInMS", Property, Harmless(NO_ADMIN)),
    ("admin.snapshot.enabled", Property, Harmless(NO_ADMIN)),
    ("admin.restore.enabled", Property, Harmless(NO_ADMIN)),
    (
        "metricsProvider.className",
        File,
        Adds(Unless("org.apache.zookeeper.metrics.impl.DefaultMetricsProvider"), NO_METRICS),
    ),
    ("metricsProvider.httpHost", File, Harmless(NO_METRICS)),
    ("metricsProvider.httpPort", File, Harmless(NO_METRICS)),
    ("metricsProvider.exportJvmInfo", File, Harmless(NO_METRICS)),
    ("metricsProvider.numWorkerThreads", File, Harmless(NO_METRICS)),
    ("metricsProvider.maxQueueSize", File, Harmless(NO_METRICS)),
    ("metricsProvider.workerShutdownTimeoutMs", File, Harmless(NO_METRICS)),
    // A provider may have any.
    ("metricsProvider.N", File, Harmless(NO_METRICS)),
    ("jmx.log4j.disable", Property, Harmless(NO_JVM)),
    ("jmx.log4j.mbean", Property, Harmless(NO_JVM)),
    // What Apache's scripts, and flags that clients share, bring along.
    ("log.dir", Property, Harmless(LOGGING)),
    ("log.file", Property, Harmless(LOGGING)),
    ("root.logger", Property, Harmless(LOGGING)),
    ("console.threshold", Property, Harmless(LOGGING)),
    ("client.secure", Property, Harmless(FOR_CLIENTS)),
    ("clientCnxnSocket", Property, Harmless(FOR_CLIENTS)),
    ("request.timeout", Property, Harmless(FOR_CLIENTS)),
    ("server.principal", Property, Harmless(FOR_CLIENTS)),
    ("sasl.client", Property, Harmless(FOR_CLIENTS)),
    ("sasl.clientconfig", Property, Harmless(FOR_CLIENTS)),
    ("sasl.client.username", Property, Harmless(FOR_CLIENTS)),
    ("sasl.client.canonicalize.hostname", Property, Harmless(FOR_CLIENTS)),
    ("disableAutoWatchReset", Property, Harmless(FOR_CLIENTS)),
];
