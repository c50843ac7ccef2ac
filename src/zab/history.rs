//! The newest committed transactions in memory: what learners that were away for a short time are sent.

use super::LogEntry;
use crate::model::{Place, TxnMark, Zxid};
use std::collections::VecDeque;
use std::ops::RangeInclusive;

/// Committed transactions without a gap, oldest first, behind `start`.
#[derive(Debug)]
pub struct History {
    /// The zxid before the first entry: a learner that has it can be brought up to date from here.
    start: Zxid,
    entries: VecDeque<LogEntry>,
    bytes: usize,
    /// Entries that stay even where they take more than the least of the bytes (`commitLogCount`).
    min_entries: usize,
    /// Bytes that other entries may take with them, and bytes that all may take.
    max_bytes: RangeInclusive<usize>,
}

impl History {
    /// An empty history behind `start`. It keeps what fits into the lower bound of `max_bytes`, and `min_entries` if they fit into
    /// the upper one.
    pub fn new(start: Zxid, min_entries: usize, max_bytes: RangeInclusive<usize>) -> Self {
        Self { start, entries: VecDeque::new(), bytes: 0, min_entries, max_bytes }
    }

    /// The last committed zxid that is known.
    pub fn end(&self) -> Zxid {
        self.entries.back().map_or(self.start, |entry| entry.zxid)
    }

    /// Whether a transaction may come right behind another: the next of its epoch, or the first of a later one.
    pub fn follows(last: Zxid, next: Zxid) -> bool {
        next.0 == last.0.wrapping_add(1) || (next.epoch() > last.epoch() && next.counter() == 1)
    }

    /// A gap here would become a gap on every server that is brought up to date from here.
    pub fn push(&mut self, entry: LogEntry) {
        let end = self.end();
        assert!(Self::follows(end, entry.zxid), "a committed history has no gap: {} after {end}", entry.zxid);
        self.bytes += entry.body.len();
        self.entries.push_back(entry);
        while self.bytes
            > if self.entries.len() > self.min_entries {
                *self.max_bytes.start()
            } else {
                *self.max_bytes.end()
            }
            && let Some(oldest) = self.entries.pop_front()
        {
            self.bytes -= oldest.body.len();
            self.start = oldest.zxid;
        }
    }

    /// Everything is replaced by a snapshot of `zxid`.
    pub fn restart(&mut self, zxid: Zxid) {
        self.start = zxid;
        self.entries.clear();
        self.bytes = 0;
    }

    /// What is newer than `zxid` was never committed.
    pub fn truncate(&mut self, zxid: Zxid) {
        while self.entries.back().is_some_and(|entry| entry.zxid > zxid) {
            let gone = self.entries.pop_back().expect("back() is there");
            self.bytes -= gone.body.len();
        }
        if self.entries.is_empty() && self.start > zxid {
            self.start = zxid;
        }
    }

    /// The mark of this transaction, where it is here.
    pub fn mark(&self, zxid: Zxid) -> Option<TxnMark> {
        let at = self.entries.binary_search_by(|entry| entry.zxid.cmp(&zxid)).ok()?;
        TxnMark::of(&self.entries[at].body)
    }

    /// Where a zxid is in this history.
    pub fn place(&self, zxid: Zxid) -> Place {
        if zxid < self.start {
            return Place::Older;
        }
        if zxid == self.start || zxid.counter() == 0 {
            return Place::Within;
        }
        match self.entries.binary_search_by(|entry| entry.zxid.cmp(&zxid)) {
            Ok(_) => Place::Within,
            Err(0) => Place::Behind(self.start),
            Err(at) => Place::Behind(self.entries[at - 1].zxid),
        }
    }

    /// The entries behind `zxid`, which must not be older than this history.
    pub fn after(&self, zxid: Zxid) -> impl Iterator<Item = &LogEntry> {
        let first = self.entries.partition_point(|entry| entry.zxid <= zxid);
        self.entries.range(first..)
    }

    /// The size of them.
    pub fn bytes_after(&self, zxid: Zxid) -> usize {
        self.after(zxid).map(|entry| entry.body.len()).sum()
    }

    /// The size of all.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// How many entries there are.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    fn entry(zxid: i64) -> LogEntry {
        LogEntry { zxid: Zxid(zxid), body: Bytes::from_static(&[0; 10]) }
    }

    const EPOCH: i64 = 1 << 32;

    #[test]
    fn a_learner_is_placed_by_its_last_zxid() {
        let mut history = History::new(Zxid(5), 2, 1000..=1000);
        for zxid in [6, 7, EPOCH + 1, EPOCH + 2] {
            history.push(entry(zxid));
        }
        assert_eq!(history.place(Zxid(4)), Place::Older);
        assert_eq!(history.place(Zxid(5)), Place::Within);
        assert_eq!(history.place(Zxid(7)), Place::Within);
        assert_eq!(history.place(Zxid(9)), Place::Behind(Zxid(7)), "it had what nobody kept");
        assert_eq!(history.place(Zxid(EPOCH)), Place::Within, "it saw the epoch open");
        assert_eq!(history.place(Zxid(EPOCH + 3)), Place::Behind(Zxid(EPOCH + 2)));
        let after: Vec<i64> = history.after(Zxid(7)).map(|entry| entry.zxid.0).collect();
        assert_eq!(after, [EPOCH + 1, EPOCH + 2]);
    }

    #[test]
    fn old_entries_go_beyond_the_bytes_and_few_of_them_only_beyond_more() {
        let mut history = History::new(Zxid(0), 2, 35..=1000);
        (1..=10).for_each(|zxid| history.push(entry(zxid)));
        assert_eq!(
            (history.len(), history.place(Zxid(6)), history.place(Zxid(7))),
            (3, Place::Older, Place::Within)
        );
        let mut history = History::new(Zxid(0), 5, 0..=1000);
        (1..=10).for_each(|zxid| history.push(entry(zxid)));
        assert_eq!(history.len(), 5);
        let mut history = History::new(Zxid(0), 5, 0..=45);
        (1..=10).for_each(|zxid| history.push(entry(zxid)));
        assert_eq!((history.len(), history.bytes(), history.place(Zxid(5))), (4, 40, Place::Older));
    }

    #[test]
    #[should_panic(expected = "no gap")]
    fn a_gap_is_an_error_of_ours() {
        let mut history = History::new(Zxid(0), 5, 0..=1000);
        history.push(entry(1));
        history.push(entry(3));
    }

    #[test]
    fn what_was_not_committed_is_taken_back() {
        let mut history = History::new(Zxid(0), 5, 0..=1000);
        (1..=4).for_each(|zxid| history.push(entry(zxid)));
        history.truncate(Zxid(2));
        assert_eq!(history.end(), Zxid(2));
        history.push(entry(EPOCH + 1));
        history.truncate(Zxid(0));
        assert_eq!(history.end(), Zxid(0));
    }
}
