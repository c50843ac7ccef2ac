//! One account of the bytes that wait in a server's queues, each queue with its place. The doors look at it, and `mntr` shows it.

use crate::replica::Amounts;
use std::fmt::Write;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// Bytes that wait, by the queue that they wait in. What is in two queues at once (a write on its way to the log and to a learner)
/// counts in both.
#[derive(Debug, Default)]
pub struct Account {
    /// What this process may have.
    pub memory: AtomicU64,
    /// Read from clients, and not worked off: parts of requests, and requests that wait for their turn.
    pub read: AtomicUsize,
    /// Requests of this server's clients that the core has, not answered yet.
    outstanding: AtomicUsize,
    /// On their way to the log.
    unlogged: AtomicUsize,
    /// Committed transactions that are kept for learners that were away for a short time.
    history: AtomicUsize,
    /// A leader's: sent to its learners, and not read by them yet.
    learners: AtomicUsize,
    /// Answers and events that clients have not taken, but for those of clients that few wait for.
    pub unread: AtomicUsize,
    /// What the disk of the log has free; 0 before it was looked at.
    pub disk_free: AtomicU64,
    /// What room there is for the log: 0 enough, 1 for what is under way, 2 none.
    pub room: AtomicU64,
    /// Writes that were refused for want of room.
    pub refused_writes: AtomicU64,
}

impl Account {
    pub fn outstanding(&self) -> usize {
        self.outstanding.load(Ordering::SeqCst)
    }

    pub fn unlogged(&self) -> usize {
        self.unlogged.load(Ordering::SeqCst)
    }

    /// What the replica has now. True: fewer bytes keep writes out than before.
    pub fn publish(&self, amounts: &Amounts) -> bool {
        self.history.store(amounts.history, Ordering::Relaxed);
        self.learners.store(amounts.learners, Ordering::Relaxed);
        let outstanding = self.outstanding.swap(amounts.outstanding, Ordering::SeqCst);
        let unlogged = self.unlogged.swap(amounts.unlogged, Ordering::SeqCst);
        amounts.outstanding < outstanding || amounts.unlogged < unlogged
    }

    /// As lines of `mntr`, in bytes.
    pub fn lines(&self, out: &mut String) {
        let _ = writeln!(out, "zk_zabra_memory_bytes\t{}", self.memory.load(Ordering::Relaxed));
        for (name, bytes) in [
            ("read", &self.read),
            ("outstanding", &self.outstanding),
            ("unlogged", &self.unlogged),
            ("history", &self.history),
            ("to_learners", &self.learners),
            ("to_clients", &self.unread),
        ] {
            let _ = writeln!(out, "zk_zabra_{name}_bytes\t{}", bytes.load(Ordering::Relaxed));
        }
        let free = self.disk_free.load(Ordering::Relaxed);
        let _ = writeln!(out, "zk_zabra_disk_free\t{free}");
        let _ = writeln!(out, "zk_zabra_disk_room\t{}", self.room.load(Ordering::Relaxed));
        let _ = writeln!(out, "zk_zabra_refused_writes\t{}", self.refused_writes.load(Ordering::Relaxed));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_waits_hears_of_each_queue_that_keeps_writes_out() {
        let account = Account::default();
        let mut amounts = Amounts { outstanding: 5, unlogged: 7, history: 100, learners: 0 };
        assert!(!account.publish(&amounts));
        assert_eq!((account.outstanding(), account.unlogged()), (5, 7));
        amounts.history = 0;
        assert!(!account.publish(&amounts), "nobody waits for that");
        amounts.unlogged = 6;
        assert!(account.publish(&amounts));
        amounts.outstanding = 4;
        assert!(account.publish(&amounts));
    }
}
