//! The log thread: appends what the core proposed, syncs once for all of it, and says so.

use super::Core;
use crate::replica::{Input, LogEntry};
use crate::storage::TxnLog;
use parking_lot::{Condvar, Mutex};
use std::sync::Arc;
use std::time::Instant;

/// What waits for the log thread.
#[derive(Default)]
pub struct LogQueue {
    state: Mutex<State>,
    filled: Condvar,
}

#[derive(Default)]
struct State {
    entries: Vec<LogEntry>,
    stop: bool,
    waiting: bool,
}

impl LogQueue {
    pub(super) fn push(&self, entries: &mut Vec<LogEntry>) {
        let mut state = self.state.lock();
        state.entries.append(entries);
        if state.waiting {
            state.waiting = false;
            self.filled.notify_one();
        }
    }

    pub(super) fn stop(&self) {
        self.state.lock().stop = true;
        self.filled.notify_one();
    }

    /// Waits for entries and swaps them in. False: the server stops and nothing is left.
    fn take(&self, batch: &mut Vec<LogEntry>) -> bool {
        let mut state = self.state.lock();
        while state.entries.is_empty() && !state.stop {
            state.waiting = true;
            self.filled.wait(&mut state);
        }
        std::mem::swap(&mut state.entries, batch);
        !batch.is_empty()
    }
}

/// When a segment is rolled and a snapshot asked for.
#[derive(Debug, Clone, Copy)]
pub struct RollRules {
    /// Transactions between snapshots: a random number between half of this and all of it.
    pub snap_count: u64,
    /// Bytes of log between snapshots, likewise; 0 turns it off.
    pub snap_bytes: u64,
    /// A segment is rolled beyond this many bytes; 0 turns it off.
    pub segment_bytes: u64,
}

/// Runs until the core stops.
pub fn run(core: &Arc<Core>, mut log: TxnLog, rules: RollRules) {
    let mut batch = Vec::new();
    let mut inputs = Vec::new();
    let mut due = Due::new(rules);
    while core.log.take(&mut batch) {
        let written = batch.iter().try_for_each(|entry| log.append(entry.zxid.0, &entry.body));
        let started = Instant::now();
        if let Err(error) = written.and_then(|()| log.sync()) {
            // What is on the disk is not known any more: nothing of this may be acknowledged.
            return core.fatal(error);
        }
        core.figures.synced(batch.len(), started.elapsed());
        let last = batch.last().expect("take() waits for entries").zxid;
        due.count(batch.len() as u64, batch.iter().map(|entry| entry.body.len() as u64).sum());
        batch.clear();
        inputs.push(Input::Logged(last));
        core.submit(&mut inputs, None);
        if due.snapshot() {
            log.roll();
            core.snapshots.ask();
            due = Due::new(rules);
        } else if rules.segment_bytes > 0 && log.position() > rules.segment_bytes {
            log.roll();
        }
    }
}

/// Counts towards the next snapshot. The random part keeps the servers of an ensemble from all writing at once.
struct Due {
    txns_left: i64,
    bytes_left: i64,
}

impl Due {
    fn new(rules: RollRules) -> Self {
        let half = |whole: u64| (whole / 2) as i64;
        let spread = |whole: u64| half(whole) + (random() % (half(whole).max(1) as u64)) as i64;
        Self {
            txns_left: spread(rules.snap_count),
            bytes_left: if rules.snap_bytes == 0 { i64::MAX } else { spread(rules.snap_bytes) },
        }
    }

    fn count(&mut self, txns: u64, bytes: u64) {
        self.txns_left -= txns as i64;
        self.bytes_left = self.bytes_left.saturating_sub(bytes as i64);
    }

    fn snapshot(&self) -> bool {
        self.txns_left < 0 || self.bytes_left < 0
    }
}

fn random() -> u64 {
    use std::hash::{BuildHasher, RandomState};
    RandomState::new().hash_one(0)
}
