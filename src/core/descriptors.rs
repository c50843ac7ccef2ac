//! How many descriptors connections may take. A process that has none left can't roll its log, which ends it: so
//! connections are refused before, and files always find theirs.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// For files: segments of the log, snapshots, epochs, what learners are sent out of files.
const FILES: usize = 64;
/// Descriptors for other servers, beyond what clients may take.
const PEERS: usize = 64;

/// The account of a process's connections. Each holds a [`Descriptor`] as long as it is open.
#[derive(Debug)]
pub struct Descriptors {
    for_clients: usize,
    for_peers: usize,
    taken: AtomicUsize,
}

/// A connection's place in the account: dropping it gives it back.
#[derive(Debug)]
pub struct Descriptor(Arc<Descriptors>);

impl Drop for Descriptor {
    fn drop(&mut self) {
        self.0.taken.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Descriptors {
    /// Of a process that may open `limit`, and has `own` beside connections and files. However few there are, half is
    /// for connections.
    pub fn new(limit: u64, own: usize) -> Arc<Self> {
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        let for_peers = limit - (own + FILES).min(limit / 2);
        let for_clients = for_peers - PEERS.min(for_peers / 4);
        Arc::new(Self { for_clients, for_peers, taken: AtomicUsize::new(0) })
    }

    /// For a connection of a client; none if it must be refused.
    pub fn take_for_client(self: &Arc<Self>) -> Option<Descriptor> {
        self.take(self.for_clients)
    }

    /// For a connection of another server, from it or to it.
    pub fn take_for_peer(self: &Arc<Self>) -> Option<Descriptor> {
        self.take(self.for_peers)
    }

    fn take(self: &Arc<Self>, most: usize) -> Option<Descriptor> {
        let one_more = |taken| (taken < most).then_some(taken + 1);
        let taken = self.taken.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more);
        taken.is_ok().then(|| Descriptor(self.clone()))
    }

    /// How many connections there may be in all before clients are refused.
    pub fn for_clients(&self) -> usize {
        self.for_clients
    }

    /// How many before other servers are refused.
    pub fn for_peers(&self) -> usize {
        self.for_peers
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_leave_room_for_other_servers_and_both_for_files() {
        let account = Descriptors::new(256, 24);
        let clients: Vec<_> = std::iter::from_fn(|| account.take_for_client()).collect();
        assert_eq!(clients.len(), 256 - 24 - FILES - 42, "a quarter of what is left is less than {PEERS}");
        let peers: Vec<_> = std::iter::from_fn(|| account.take_for_peer()).collect();
        assert_eq!(clients.len() + peers.len(), 256 - 24 - FILES);
        drop(clients);
        assert!(account.take_for_client().is_some(), "what was closed may be taken again");
    }

    #[test]
    fn no_limit_is_too_low_or_too_high() {
        for limit in [0, 1, 16, 100, 1024, u64::MAX] {
            let account = Descriptors::new(limit, 24);
            assert!(account.for_clients() <= account.for_peers());
            assert_eq!(account.take_for_client().is_some(), limit > 0, "{limit}");
        }
    }
}
