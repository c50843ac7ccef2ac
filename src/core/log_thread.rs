//! The log thread: does the disk's work that the replica asked for, one sync for all that waits, and says so.

use super::{Core, Journal, Performed};
use crate::replica::DiskOp;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How often a full disk is tried again.
const TRY_AGAIN: Duration = Duration::from_millis(100);
/// How often slow syncs are logged.
const SAID_AGAIN: Duration = Duration::from_secs(10);

/// How writes wait for each other, as Java's `SyncRequestProcessor` has it, and what is slow.
#[derive(Debug, Clone, Copy)]
pub struct LogPace {
    /// For how long a write may wait for others after the last sync (`flushDelay`); zero: not at all.
    pub delay: Duration,
    /// After how long without another it does not (`maxWriteQueuePollTime`).
    pub pause: Duration,
    /// Transactions of one sync at the most (`maxBatchSize`); 0: no limit.
    pub most: usize,
    /// A sync that takes longer is logged (`fsync.warningthresholdms`).
    pub slow: Duration,
}

impl LogPace {
    fn most(&self) -> usize {
        if self.most == 0 { usize::MAX } else { self.most }
    }
}

/// Runs until the core stops and everything is on disk, or the disk has no room for what is left. A failure of the log is fatal.
pub fn run(core: &Arc<Core>, mut journal: Journal, pace: &LogPace) {
    let mut batch = Vec::new();
    let mut slow = SlowSyncs::default();
    let mut synced_at = Instant::now();
    while core.log.take(&mut batch) {
        if !pace.delay.is_zero() && batch.iter().all(|op| matches!(op, DiskOp::Append(_))) {
            core.log.gather(&mut batch, synced_at + pace.delay, pace.pause, pace.most());
        }
        loop {
            let mut later = batch.split_off(pace.most().min(batch.len()));
            match journal.perform(&mut batch) {
                Ok(performed) => {
                    slow.look(&performed, pace.slow);
                    core.performed(performed);
                }
                // What is on the disk is not known any more: nothing of this may be acknowledged.
                Err(error) => return core.fatal(error.into()),
            }
            synced_at = Instant::now();
            if core.log.take_look() {
                core.performed(journal.look_for_room());
            }
            if batch.is_empty() {
                if later.is_empty() {
                    break;
                }
                batch = later;
                continue;
            }
            batch.append(&mut later);
            if core.is_stopping() {
                tracing::warn!(
                    "the disk has no room for {} operations: they were not acknowledged, and end with this server",
                    batch.len()
                );
                batch.clear();
                break;
            }
            std::thread::park_timeout(TRY_AGAIN);
        }
    }
    if let Err(error) = journal.close() {
        core.fatal(error.into());
    }
}

/// Syncs of the log that took long: all writes wait for them.
#[derive(Debug, Default)]
struct SlowSyncs {
    said_at: Option<Instant>,
    /// Since then.
    unsaid: u64,
}

impl SlowSyncs {
    fn look(&mut self, performed: &Performed, slow: Duration) {
        for (txns, took) in performed.syncs.iter().filter(|(_, took)| *took > slow) {
            if self.said_at.is_some_and(|at| at.elapsed() < SAID_AGAIN) {
                self.unsaid += 1;
                continue;
            }
            self.said_at = Some(Instant::now());
            let more = std::mem::take(&mut self.unsaid);
            tracing::warn!(
                "slow sync of the log took_ms={} transactions={txns} fsync.warningthresholdms={} more_since_the_last_line={more}: \
                 every write waits for it",
                took.as_millis(),
                slow.as_millis()
            );
        }
    }
}
