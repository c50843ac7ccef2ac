//! From the core to the log thread: the disk's work, in order.

use super::sync::{Condvar, Mutex};
use crate::replica::DiskOp;
use std::time::{Duration, Instant};

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
    /// Somebody wants to know what room there is.
    looks: bool,
}

impl LogQueue {
    pub(super) fn push(&self, ops: &mut Vec<DiskOp>) {
        let mut state = self.state.lock();
        state.ops.append(ops);
        self.wake(&mut state);
    }

    /// It is time to look what room the disk has.
    pub fn look_for_room(&self) {
        let mut state = self.state.lock();
        state.looks = true;
        self.wake(&mut state);
    }

    fn wake(&self, state: &mut State) {
        if std::mem::take(&mut state.waiting) {
            self.filled.notify_one();
        }
    }

    /// Whether that was asked for since it was last done.
    pub fn take_look(&self) -> bool {
        std::mem::take(&mut self.state.lock().looks)
    }

    pub(super) fn stop(&self) {
        self.state.lock().stop = true;
        self.filled.notify_one();
    }

    /// Adds to a batch what comes until then, and waits for it, as long as something comes within each `pause` and the batch has
    /// fewer than `most`.
    pub(super) fn gather(&self, batch: &mut Vec<DiskOp>, until: Instant, pause: Duration, most: usize) {
        let mut state = self.state.lock();
        let mut idle_until = Instant::now() + pause;
        loop {
            if !state.ops.is_empty() {
                batch.append(&mut state.ops);
                idle_until = Instant::now() + pause;
            }
            let left = until.min(idle_until).saturating_duration_since(Instant::now());
            if left.is_zero() || batch.len() >= most || state.stop {
                return;
            }
            state.waiting = true;
            self.filled.wait_for(&mut state, left);
            state.waiting = false;
        }
    }

    /// What waits, without waiting for more.
    pub fn take_now(&self) -> Vec<DiskOp> {
        std::mem::take(&mut self.state.lock().ops)
    }

    /// Waits for work, or until it is time for a look, and swaps the work in. False: the server stops and nothing is left.
    pub(super) fn take(&self, batch: &mut Vec<DiskOp>) -> bool {
        let mut state = self.state.lock();
        while state.ops.is_empty() && !state.stop && !state.looks {
            state.waiting = true;
            self.filled.wait(&mut state);
        }
        std::mem::swap(&mut state.ops, batch);
        !batch.is_empty() || !state.stop
    }
}
