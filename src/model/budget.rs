//! The work that may be done under one hold of a lock that others wait for.

use std::cell::Cell;

/// Counts steps. One is about 100 ns of work: a lookup, a child, a watch, an entry of an ACL list, or 256 bytes copied.
/// Whatever is done as often as a client likes counts its steps and, once the hold's share is used up, keeps the rest for the
/// next hold. So nobody waits longer for the lock than a share takes, whatever somebody asks for.
#[derive(Debug, Default)]
pub struct Budget {
    spent: Cell<usize>,
}

impl Budget {
    /// Steps of one hold: half a millisecond, so that a slow machine stays near one.
    pub const HOLD: usize = 5_000;

    /// This many steps were done.
    #[inline]
    pub fn spend(&self, steps: usize) {
        self.spent.set(self.spent.get().saturating_add(steps));
    }

    /// This many bytes were copied.
    #[inline]
    pub fn copied(&self, bytes: usize) {
        self.spend(bytes / 256);
    }

    /// Steps so far.
    pub fn spent(&self) -> usize {
        self.spent.get()
    }

    /// Whether the lock should be let go of.
    #[inline]
    pub fn is_spent(&self) -> bool {
        self.spent() >= Self::HOLD
    }
}
