//! When the replica wants to be woken, and the timer's sleep until then.

use super::sync::{AtomicU64, Condvar, Mutex, Ordering};
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
    pub(super) fn take(&self) {
        self.at.store(u64::MAX, Ordering::SeqCst);
    }

    /// Sleeps until `latest`, or the time that was set if that comes first.
    pub(super) fn sleep(&self, now: u64, latest: u64) {
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
