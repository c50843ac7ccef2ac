//! From the core to the log thread: the disk's work, in order.

use super::sync::{Condvar, Mutex};
use crate::replica::DiskOp;

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
    pub(super) fn take(&self, batch: &mut Vec<DiskOp>) -> bool {
        let mut state = self.state.lock();
        while state.ops.is_empty() && !state.stop {
            state.waiting = true;
            self.filled.wait(&mut state);
        }
        std::mem::swap(&mut state.ops, batch);
        !batch.is_empty()
    }
}
