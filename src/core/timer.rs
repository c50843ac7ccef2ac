//! The timer: collects which sessions were heard from, then lets time pass for the replica, at its own pace or when
//! the replica asks for it.

use super::Core;
use crate::replica::Input;
use parking_lot::{Condvar, Mutex};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// When the replica wants to be woken, in monotonic milliseconds.
pub struct Alarm {
    at: AtomicU64,
    /// Until when the timer sleeps, unless it is woken.
    asleep_until: AtomicU64,
    lock: Mutex<()>,
    changed: Condvar,
}

impl Default for Alarm {
    fn default() -> Self {
        let (at, asleep_until) = (AtomicU64::new(u64::MAX), AtomicU64::new(0));
        Self { at, asleep_until, lock: Mutex::new(()), changed: Condvar::new() }
    }
}

impl Alarm {
    pub(super) fn set(&self, at: u64) {
        self.at.store(at, Ordering::SeqCst);
        if at < self.asleep_until.load(Ordering::SeqCst) {
            let _lock = self.lock.lock();
            self.changed.notify_one();
        }
    }

    pub(super) fn ring(&self) {
        let _lock = self.lock.lock();
        self.at.store(0, Ordering::SeqCst);
        self.changed.notify_one();
    }

    /// When the replica wants to be woken.
    pub fn at(&self) -> u64 {
        self.at.load(Ordering::SeqCst)
    }

    /// The time that was set has come and is seen to. Whoever runs the replica next sets another: until then there is
    /// nothing to be woken for, however long that takes.
    fn take(&self) {
        self.at.store(u64::MAX, Ordering::SeqCst);
    }

    /// Sleeps until `latest`, or the time that was set if that comes first.
    fn sleep(&self, now: u64, latest: u64) {
        let mut lock = self.lock.lock();
        self.asleep_until.store(latest, Ordering::SeqCst);
        let until = self.at.load(Ordering::SeqCst).min(latest);
        if until > now {
            self.asleep_until.store(until, Ordering::SeqCst);
            self.changed.wait_for(&mut lock, Duration::from_millis(until - now));
        }
        self.asleep_until.store(0, Ordering::SeqCst);
    }
}

/// Ticks at least every `period` until the core stops. Touches come first: no session expires that a reactor has heard
/// from.
pub fn run(core: &Arc<Core>, period: Duration) {
    let period = period.as_millis() as u64;
    let mut inputs = Vec::new();
    // The first tick begins the first election.
    let mut next = core.now().mono_ms;
    while !core.is_stopping() {
        core.alarm.sleep(core.now().mono_ms, next);
        let now = core.now().mono_ms;
        if now >= next {
            next = now + period;
            inputs.push(core.collect_touches());
        }
        core.alarm.take();
        inputs.push(Input::Tick);
        core.submit(&mut inputs, None);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;

    /// Otherwise ticks pile up while another thread runs the replica: the more there are the longer that takes, and the
    /// more come.
    #[test]
    fn a_time_that_was_seen_to_wakes_nobody_again() {
        let alarm = Alarm::default();
        alarm.set(5);
        let started = Instant::now();
        alarm.sleep(10, 60_000);
        assert!(started.elapsed() < Duration::from_secs(30), "the time had come");
        alarm.take();
        alarm.sleep(10, 30);
        assert!(started.elapsed() >= Duration::from_millis(20), "there was nothing to wake for");
    }
}
