//! Work that one thread does at a time, and an inbox before it. Who brings inputs works them off if nobody is at it; otherwise
//! who is at it finds them. Nobody waits for anybody, and nothing that is in the inbox stays there unseen.
//!
//! A thread that has other things to do stops after a share: the relief, a thread of its own, goes on.

use super::sync::{Condvar, Mutex, MutexGuard};
use std::collections::VecDeque;

/// How one thread works.
pub(super) trait Worker<W, I> {
    /// Whether `work` has something to do beside its inputs, which comes before them.
    fn has_more(&self, work: &W) -> bool;
    /// Asked before each turn: whether this thread leaves the rest to the relief.
    fn has_enough(&mut self, work: &W) -> bool;
    /// Does what comes next: a share of it, or of the batch from its front.
    fn turn(&mut self, work: &mut W, batch: &mut VecDeque<I>);
}

pub(super) struct Inbox<W, I> {
    inputs: Mutex<VecDeque<I>>,
    bench: Mutex<Bench<W, I>>,
    relief: Mutex<Relief>,
    called: Condvar,
}

struct Bench<W, I> {
    work: W,
    /// What was taken out of the inbox and not worked off yet.
    batch: VecDeque<I>,
}

#[derive(Default)]
struct Relief {
    called: bool,
    stop: bool,
}

impl<W, I> Inbox<W, I> {
    pub fn new(work: W) -> Self {
        Self {
            inputs: Mutex::new(VecDeque::new()),
            bench: Mutex::new(Bench { work, batch: VecDeque::new() }),
            relief: Mutex::new(Relief::default()),
            called: Condvar::new(),
        }
    }

    /// Runs `f` with the work, unless somebody is at it.
    pub fn look<T>(&self, f: impl FnOnce(&W) -> T) -> Option<T> {
        let bench = self.bench.try_lock()?;
        let seen = f(&bench.work);
        drop(bench);
        // Who brought something meanwhile left it to who was here.
        if !self.inputs.lock().is_empty() {
            self.call();
        }
        Some(seen)
    }

    /// Hands in a batch, and works off what there is unless somebody else is at it.
    pub fn submit(&self, inputs: &mut Vec<I>, worker: &mut impl Worker<W, I>) {
        if inputs.is_empty() {
            return;
        }
        self.inputs.lock().extend(inputs.drain(..));
        self.work(worker);
    }

    fn work(&self, worker: &mut impl Worker<W, I>) {
        while !self.inputs.lock().is_empty() {
            // Whoever is at it comes here after letting go of it: what is in the inbox by now is seen.
            let Some(bench) = self.bench.try_lock() else { return };
            if !work_off(&self.inputs, bench, worker) {
                return self.call();
            }
        }
    }

    fn call(&self) {
        self.relief.lock().called = true;
        self.called.notify_one();
    }

    /// The relief: goes on where others have stopped, until [`Self::stop`].
    pub fn relieve(&self, worker: &mut impl Worker<W, I>) {
        while self.is_called() {
            work_off(&self.inputs, self.bench.lock(), worker);
            self.work(worker);
        }
    }

    /// Waits for a call. False: none comes any more.
    fn is_called(&self) -> bool {
        let mut relief = self.relief.lock();
        while !relief.called && !relief.stop {
            self.called.wait(&mut relief);
        }
        std::mem::take(&mut relief.called)
    }

    pub fn stop(&self) {
        self.relief.lock().stop = true;
        self.called.notify_one();
    }
}

/// False: the worker has enough, and something is left.
fn work_off<W, I>(
    inputs: &Mutex<VecDeque<I>>,
    mut bench: MutexGuard<'_, Bench<W, I>>,
    worker: &mut impl Worker<W, I>,
) -> bool {
    let Bench { work, batch } = &mut *bench;
    loop {
        if batch.is_empty() && !worker.has_more(work) {
            std::mem::swap(&mut *inputs.lock(), batch);
            if batch.is_empty() {
                return true;
            }
        }
        if worker.has_enough(work) {
            return false;
        }
        worker.turn(work, batch);
    }
}
