//! What a server may keep in memory beside its data, and how long it is patient. The budgets follow the memory that the process
//! may have.

/// Limits of memory and patience. Some must have a relation to others: see the test.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tuning {
    /// Bytes of all requests of this server's clients that may be under way: beyond it no more writes are taken from the sockets.
    pub admitted_bytes: usize,
    /// Bytes that a leader may have under way to a learner: beyond it the learner is sent more only as it takes it.
    pub window_bytes: usize,
    /// Bytes of committed transactions in memory, for learners that were away for a short time.
    pub history_bytes: usize,
    /// Bytes that these take at the most, where `commitLogCount` asks for more of them.
    pub history_most: usize,
    /// What a learner may take from its leader ahead of its disk, and a leader from everybody.
    pub max_unlogged_bytes: usize,
    /// Bytes that may wait for one client that takes none.
    pub client_room: usize,
    /// The same for all clients together, where `maxUnreadBytes` does not say it.
    pub unread_bytes: usize,
    /// Bytes that all watches may take, where `maxWatchBytes` does not say it.
    pub watch_bytes: usize,
    /// A quorum waits so long for a better vote of a server that is silent.
    pub finalize_ms: u64,
    /// Target size of what is read of a file for a learner at once, in bytes.
    pub feed_piece: usize,
    /// Transactions of one epoch: then the next one begins.
    pub epoch_len: u32,
}

impl Default for Tuning {
    /// Where there is memory enough.
    fn default() -> Self {
        Self {
            admitted_bytes: 8 << 20,
            window_bytes: 32 << 20,
            history_bytes: 32 << 20,
            history_most: usize::MAX,
            max_unlogged_bytes: 32 << 20,
            client_room: 64 << 20,
            unread_bytes: 1 << 30,
            watch_bytes: usize::MAX,
            finalize_ms: 200,
            feed_piece: 256 << 10,
            epoch_len: u32::MAX,
        }
    }
}

/// With less memory than this a server may be ended by the system under load, however little its data is:
/// `compat-tests/ensemble/test_control_groups.py` shows that this much is enough. Budgets become no smaller.
pub const LEAST_MEMORY: u64 = 64 << 20;

impl Tuning {
    /// What a process can afford that may have `bytes` of memory.
    pub fn for_memory(bytes: u64) -> Self {
        let bytes = usize::try_from(bytes.max(LEAST_MEMORY)).unwrap_or(usize::MAX);
        let full = Self::default();
        let part = |share: usize, most: usize| (bytes / share).min(most);
        Self {
            admitted_bytes: part(128, full.admitted_bytes),
            window_bytes: part(32, full.window_bytes),
            history_bytes: part(32, full.history_bytes),
            history_most: part(32, full.history_most),
            max_unlogged_bytes: part(32, full.max_unlogged_bytes),
            client_room: part(16, full.client_room),
            unread_bytes: part(8, full.unread_bytes),
            watch_bytes: part(8, full.watch_bytes),
            ..full
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conversation::{HIGH_WATER, MAX_HELD};
    use crate::peer::FEED_AHEAD;
    use proptest::prelude::*;

    fn limits_are_in_their_relations(tuning: Tuning) {
        let Tuning { admitted_bytes, window_bytes, history_bytes, feed_piece, .. } = tuning;
        // What the clients of three servers have under way fits into the window of a learner that keeps up.
        assert!(3 * admitted_bytes <= window_bytes);
        // Who was behind by a window comes back out of memory, and need not be fed the log.
        assert!(window_bytes <= history_bytes && history_bytes <= tuning.history_most);
        // A link that is fed has always something to write, and never much.
        assert!(feed_piece < FEED_AHEAD && FEED_AHEAD < window_bytes);
        // One client may use all that there is as long as it is alone.
        assert!(admitted_bytes <= MAX_HELD);
        // A log that is full keeps nobody out whose writes keep within the door.
        assert!(admitted_bytes < tuning.max_unlogged_bytes);
        // Room for a client grows from the first bound on, and one client alone does not use up what all have.
        assert!(HIGH_WATER < tuning.client_room && tuning.client_room < tuning.unread_bytes);
    }

    proptest! {
        #[test]
        fn limits_have_their_relations_with_any_memory(bits in 0..64_u32, low in any::<u64>()) {
            let bytes = (1_u64 << bits) | (low & ((1 << bits) - 1));
            let tuning = Tuning::for_memory(bytes);
            limits_are_in_their_relations(tuning);
            // Together they leave room for the data and for what the process has at rest.
            let (leader, clients) = (tuning.history_most + 2 * tuning.window_bytes, tuning.unread_bytes);
            let all = leader as u64 + clients as u64 + 3 * tuning.admitted_bytes as u64;
            prop_assert!(all <= bytes.max(LEAST_MEMORY) / 3);
            if bytes >= 8 << 30 {
                let full = Tuning::default();
                let Tuning { history_most, watch_bytes, .. } = full;
                prop_assert_eq!(Tuning { history_most, watch_bytes, ..tuning }, full);
            }
        }
    }

    #[test]
    fn limits_have_their_relations_where_there_is_memory_enough() {
        limits_are_in_their_relations(Tuning::default());
    }

    #[test]
    fn a_gigabyte_is_enough_for_all_that_servers_have_under_way() {
        let (found, full) = (Tuning::for_memory(1 << 30), Tuning::default());
        assert_eq!((found.admitted_bytes, found.window_bytes), (full.admitted_bytes, full.window_bytes));
        assert_eq!(
            (found.history_bytes, found.max_unlogged_bytes),
            (full.history_bytes, full.max_unlogged_bytes)
        );
        let least = Tuning::for_memory(LEAST_MEMORY);
        assert_eq!((least.admitted_bytes, least.window_bytes), (512 << 10, 2 << 20));
        assert_eq!(Tuning::for_memory(1 << 20), least);
    }
}
