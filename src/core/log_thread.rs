//! The log thread: does the disk's work that the replica asked for, one sync for all that waits, and says so.

use super::{Core, Journal};
use crate::replica::DiskOp;
use parking_lot::{Condvar, Mutex};
use std::sync::Arc;

/// What waits for the log thread.
#[derive(Default)]
pub struct LogQueue {
    state: Mutex<State>,
    filled: Condvar,
}

#[derive(Default)]
struct State {
    ops: Vec<DiskOp>,
    stop: bool,
    waiting: bool,
}

impl LogQueue {
    pub(super) fn push(&self, ops: &mut Vec<DiskOp>) {
        let mut state = self.state.lock();
        state.ops.append(ops);
        if state.waiting {
            state.waiting = false;
            self.filled.notify_one();
        }
    }

    pub(super) fn stop(&self) {
        self.state.lock().stop = true;
        self.filled.notify_one();
    }

    /// What waits, without waiting for more.
    pub fn take_now(&self) -> Vec<DiskOp> {
        std::mem::take(&mut self.state.lock().ops)
    }

    /// Waits for work and swaps it in. False: the server stops and nothing is left.
    fn take(&self, batch: &mut Vec<DiskOp>) -> bool {
        let mut state = self.state.lock();
        while state.ops.is_empty() && !state.stop {
            state.waiting = true;
            self.filled.wait(&mut state);
        }
        std::mem::swap(&mut state.ops, batch);
        !batch.is_empty()
    }
}

/// Runs until the core stops and everything is on disk. A failure of the log is fatal.
pub fn run(core: &Arc<Core>, mut journal: Journal) {
    let mut batch = Vec::new();
    while core.log.take(&mut batch) {
        match journal.perform(&mut batch) {
            Ok(performed) => core.performed(performed),
            // What is on the disk is not known any more: nothing of this may be acknowledged.
            Err(error) => return core.fatal(error.into()),
        }
    }
    if let Err(error) = journal.close() {
        core.fatal(error.into());
    }
}
