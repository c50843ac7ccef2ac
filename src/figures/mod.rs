//! The server's figures, counted through the `metrics` crate under the names that Java's dashboards know.
//!
//! [`Store`] is a `metrics::Recorder`; there is no global one: whoever counts holds the handles of a [`Figures`].

mod names;
mod store;

pub use store::Store;

use crate::replica::Tally;
use metrics::{Counter, Histogram, Key, Level, Metadata, Recorder};
use std::fmt::Write;
use std::time::Duration;

/// Handles for everything that a server counts.
pub struct Figures {
    store: Store,
    pub packets_received: Counter,
    pub packets_sent: Counter,
    pub bytes_received: Counter,
    pub response_bytes: Counter,
    pub connections: Counter,
    pub connections_rejected: Counter,
    pub connections_dropped: Counter,
    pub sessionless_expired: Counter,
    pub large_requests_rejected: Counter,
    pub auth_failed: Counter,
    pub unsuccessful_handshakes: Counter,
    pub ensemble_auth_skipped: Counter,
    pub ensemble_auth_passed: Counter,
    pub ensemble_auth_failed: Counter,
    /// Milliseconds from the arrival of a request to its answer.
    pub latency: Histogram,
    pub read_latency: Histogram,
    pub update_latency: Histogram,
    pub snapshot_load_ms: Histogram,
    pub txns_load_ms: Histogram,
    pub txns_loaded: Histogram,
    pub db_init_ms: Histogram,
    commits: Counter,
    proposals: Counter,
    looking: Counter,
    proposal_sizes: parking_lot::Mutex<Sizes>,
    expired: Counter,
    revalidated: Counter,
    digest_mismatches: Counter,
    scrub_passes: Counter,
    scrubbed_bytes: Counter,
    scrub_damaged: Counter,
    watch_bytes: Counter,
    watches_fired: [Histogram; 4],
    snapshot_ms: Histogram,
    fsync_ms: Histogram,
    sync_batch: Histogram,
}

static META: Metadata<'static> = Metadata::new("zabra", Level::INFO, None);

impl Default for Figures {
    fn default() -> Self {
        Self::new()
    }
}

impl Figures {
    pub fn new() -> Self {
        let store = Store::default();
        // All names that Java prints appear from the start, with 0 where nothing is counted yet.
        for name in names::COUNTERS {
            let _ = store.register_counter(&Key::from_static_name(name), &META);
        }
        for name in names::BASIC {
            let _ = store.register_histogram(&Key::from_static_name(name), &META);
        }
        for name in names::ADVANCED {
            store.with_percentiles(name);
        }
        let counter = |name| store.register_counter(&Key::from_static_name(name), &META);
        let summary = |name| store.register_histogram(&Key::from_static_name(name), &META);
        Self {
            packets_received: counter("packets_received"),
            packets_sent: counter("packets_sent"),
            bytes_received: counter("bytes_received_count"),
            response_bytes: counter("response_bytes"),
            connections: counter("connection_request_count"),
            connections_rejected: counter("connection_rejected"),
            connections_dropped: counter("connection_drop_count"),
            sessionless_expired: counter("sessionless_connections_expired"),
            large_requests_rejected: counter("large_requests_rejected"),
            auth_failed: counter("auth_failed_count"),
            unsuccessful_handshakes: counter("unsuccessful_handshake"),
            ensemble_auth_skipped: counter("ensemble_auth_skip"),
            ensemble_auth_passed: counter("ensemble_auth_success"),
            ensemble_auth_failed: counter("ensemble_auth_fail"),
            latency: summary("latency"),
            read_latency: summary("readlatency"),
            update_latency: summary("updatelatency"),
            snapshot_load_ms: summary("startup_snap_load_time"),
            txns_load_ms: summary("startup_txns_load_time"),
            txns_loaded: summary("startup_txns_loaded"),
            db_init_ms: summary("dbinittime"),
            commits: counter("commit_count"),
            proposals: counter("proposal_count"),
            looking: counter("looking_count"),
            proposal_sizes: parking_lot::Mutex::new(Sizes { last: -1, min: -1, max: -1 }),
            expired: counter("stale_sessions_expired"),
            revalidated: counter("revalidate_count"),
            digest_mismatches: counter("digest_mismatches_count"),
            scrub_passes: counter("scrub_count"),
            scrubbed_bytes: counter("scrub_bytes"),
            scrub_damaged: counter("scrub_damaged_count"),
            watch_bytes: counter("watch_bytes"),
            watches_fired: [
                summary("node_created_watch_count"),
                summary("node_deleted_watch_count"),
                summary("node_changed_watch_count"),
                summary("node_children_watch_count"),
            ],
            snapshot_ms: summary("snapshottime"),
            fsync_ms: summary("fsynctime"),
            sync_batch: summary("sync_processor_batch_size"),
            store,
        }
    }

    /// The scrub has read this many bytes.
    pub fn scrubbed(&self, bytes: usize) {
        self.scrubbed_bytes.increment(bytes as u64);
    }

    /// The scrub has read all, and found this many files newly damaged.
    pub fn scrub_passed(&self, damaged: usize) {
        self.scrub_passes.increment(1);
        self.scrub_damaged.increment(damaged as u64);
    }

    /// What a run of the core did.
    pub fn count(&self, tally: &Tally) {
        if *tally == Tally::default() {
            return;
        }
        self.commits.increment(tally.commits);
        self.proposals.increment(tally.proposals);
        self.looking.increment(tally.elections);
        self.expired.increment(tally.expired_sessions);
        self.revalidated.increment(tally.revalidated_sessions);
        self.digest_mismatches.increment(tally.digest_mismatches);
        self.watch_bytes.increment(tally.watch_bytes);
        for (fired, count) in self.watches_fired.iter().zip(tally.watch_events) {
            if count > 0 {
                fired.record(count as f64);
            }
        }
    }

    /// The quota of a `namespace` refused a request. Its counter is there from the first time on.
    pub fn quota_exceeded(&self, namespace: &str) {
        let name = format!("{namespace}_quota_exceeded_error_per_namespace");
        self.store.register_counter(&Key::from_name(name), &META).increment(1);
    }

    /// The sizes of the leader's proposals in bytes.
    pub fn proposed(&self, sizes: impl Iterator<Item = usize>) {
        let mut known = self.proposal_sizes.lock();
        for size in sizes.map(|size| size as i64) {
            known.last = size;
            known.max = known.max.max(size);
            known.min = if known.min < 0 { size } else { known.min.min(size) };
        }
    }

    pub fn proposal_sizes(&self) -> Sizes {
        *self.proposal_sizes.lock()
    }

    /// The log thread made `txns` transactions durable with one sync.
    pub fn synced(&self, txns: usize, took: Duration) {
        self.sync_batch.record(txns as f64);
        self.fsync_ms.record(took.as_secs_f64() * 1000.0);
    }

    pub fn snapshot_written(&self, took: Duration) {
        self.snapshot_ms.record(took.as_secs_f64() * 1000.0);
    }

    /// Minimum, average and maximum latency in milliseconds, received and sent packets.
    pub fn traffic(&self) -> Traffic {
        let (count, sum, min, max) = self.store.summary("latency");
        let avg = if count == 0 { 0.0 } else { sum / count as f64 };
        Traffic {
            min_ms: min as u64,
            avg_ms: avg,
            max_ms: max as u64,
            received: self.store.counter("packets_received"),
            sent: self.store.counter("packets_sent"),
        }
    }

    pub fn auth_failures(&self) -> u64 {
        self.store.counter("auth_failed_count")
    }

    /// Resets the figures of `srvr` (`srst`).
    pub fn reset_traffic(&self) {
        self.store.reset_summary("latency");
        self.store.reset_counter("packets_received");
        self.store.reset_counter("packets_sent");
    }

    /// All figures as lines of `mntr`, without those that `srvr` shows too.
    pub fn lines(&self, out: &mut String) {
        self.store.each_counter(|name, value| {
            if !matches!(name, "packets_received" | "packets_sent" | "auth_failed_count") {
                let _ = writeln!(out, "zk_{name}\t{value}");
            }
        });
        self.store.each_summary(|name, summary| {
            if name != "latency" {
                summary.lines(name, out);
            }
        });
    }
}

/// Bytes; −1 while there was none.
#[derive(Debug, Clone, Copy)]
pub struct Sizes {
    pub last: i64,
    pub min: i64,
    pub max: i64,
}

#[derive(Debug, Clone, Copy)]
pub struct Traffic {
    pub min_ms: u64,
    pub avg_ms: f64,
    pub max_ms: u64,
    pub received: u64,
    pub sent: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_shapes_are_those_of_javas_default_provider() {
        let figures = Figures::new();
        figures.synced(3, Duration::from_millis(2));
        figures.read_latency.record(4.0);
        let mut text = String::new();
        figures.lines(&mut text);
        for line in [
            "zk_commit_count\t0",
            "zk_cnt_fsynctime\t1",
            "zk_avg_fsynctime\t2.0",
            "zk_max_sync_processor_batch_size\t3",
            "zk_p99_readlatency\t4",
            "zk_min_snapshottime\t0",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} in\n{text}");
        }
    }

    #[test]
    fn refusals_by_quota_are_counted_by_namespace() {
        let figures = Figures::new();
        let lines = || {
            let mut text = String::new();
            figures.lines(&mut text);
            text.lines().filter(|line| line.contains("quota")).map(String::from).collect::<Vec<_>>()
        };
        assert!(lines().is_empty());
        ["a", "b", "a"].iter().for_each(|namespace| figures.quota_exceeded(namespace));
        let name = |namespace, count| format!("zk_{namespace}_quota_exceeded_error_per_namespace\t{count}");
        assert_eq!(lines(), [name("a", 2), name("b", 1)]);
    }

    #[test]
    fn a_reset_starts_the_traffic_anew() {
        let figures = Figures::new();
        figures.packets_received.increment(5);
        figures.latency.record(7.0);
        assert_eq!((figures.traffic().received, figures.traffic().max_ms), (5, 7));
        figures.reset_traffic();
        assert_eq!((figures.traffic().received, figures.traffic().max_ms), (0, 0));
    }
}
