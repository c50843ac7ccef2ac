//! Names for what must differ between the servers: zxids by how many came before, session ids by when they were given,
//! times by the transaction that they belong to.

use std::collections::{HashMap, HashSet};
use std::time::{SystemTime, UNIX_EPOCH};

/// Stands for every zxid from before the script.
pub const BEFORE: i64 = -1000;
/// Session names start here, so that no other number looks like one.
const FIRST_SESSION: i64 = 1_000_001;
/// The name of the right time.
const RIGHT_TIME: i64 = 1;
/// Both servers run on this machine's clock; it may be set a little while they run.
const CLOCK_MS: i64 = 5_000;

/// The names of one side.
#[derive(Debug, Default)]
pub struct Names {
    /// The last zxid before the script.
    base: i64,
    /// Zxids that only this side gave, in ascending order.
    skipped: Vec<i64>,
    /// Names of zxids whose order is free: requests of several sessions at once.
    free: HashMap<i64, i64>,
    /// The ranges of those names: behind the first, up to the second.
    free_ranges: Vec<(i64, i64)>,
    /// The largest zxid that any reply named.
    pub high: i64,
    /// The largest one that was compared.
    pub compared: i64,
    /// Zxids with which a session ended: the order in which its ephemerals go is free.
    pub ended: HashSet<i64>,
    sessions: HashMap<i64, i64>,
    times: HashMap<i64, i64>,
    started_ms: i64,
}

impl Names {
    /// For a new script; `base` is the server's last zxid.
    pub fn new(base: i64) -> Self {
        Self { base, high: base, compared: base, started_ms: wall_ms(), ..Self::default() }
    }

    /// The zxid as that of a transaction.
    pub fn zxid(&self, raw: i64) -> i64 {
        self.free.get(&raw).copied().unwrap_or_else(|| self.state(raw))
    }

    /// The zxid as that of the state that the server is in: everything up to it is applied.
    pub fn state(&self, raw: i64) -> i64 {
        match raw {
            0 | -1 => raw,
            _ if raw <= self.base => BEFORE,
            _ => match raw - self.base - self.skipped.partition_point(|skipped| *skipped <= raw) as i64 {
                0 => BEFORE,
                counted => counted,
            },
        }
    }

    /// The zxid of the name of a state: for requests that carry one. Within a range of free order no name says
    /// what came before it, so the range's beginning stands for all.
    pub fn raw_zxid(&self, name: i64) -> i64 {
        let range = self.free_ranges.iter().find(|(from, to)| name > *from && name < *to);
        let mut raw = self.base + range.map_or(name, |(from, _)| *from).max(0);
        for skipped in &self.skipped {
            if *skipped <= raw {
                raw += 1;
            }
        }
        raw
    }

    /// This side alone gave `raw`: it counts as the zxid before.
    pub fn skip(&mut self, raw: i64) {
        self.skipped.push(raw);
        self.high = self.high.max(raw);
        self.compared = self.compared.max(raw);
    }

    /// A transaction was made that no reply names.
    pub fn one_more(&mut self) {
        self.high += 1;
        self.compared = self.high;
    }

    /// The zxids from here to `self.high` may have come in any order: each is named after its place in `owners`.
    /// False if these are not just those zxids.
    pub fn set_free(&mut self, from: i64, owners: &[i64]) -> bool {
        let mut sorted = owners.to_vec();
        sorted.sort_unstable();
        if sorted.iter().copied().ne(from + 1..=from + owners.len() as i64) {
            return false;
        }
        let first = self.state(from).max(0) + 1;
        self.free_ranges.push((first - 1, first - 1 + owners.len() as i64));
        self.free.extend(owners.iter().zip(first..).map(|(raw, name)| (*raw, name)));
        true
    }

    pub fn note(&mut self, zxid: i64) {
        self.high = self.high.max(zxid);
    }

    pub fn add_session(&mut self, id: i64) {
        let name = FIRST_SESSION + self.sessions.len() as i64;
        self.sessions.entry(id).or_insert(name);
    }

    pub fn session(&self, id: i64) -> i64 {
        self.sessions.get(&id).copied().unwrap_or(id)
    }

    /// The time of the transaction `zxid`: right if it is always the same, and one of the present.
    pub fn time(&mut self, zxid: i64, ms: i64) -> i64 {
        if zxid == 0 && ms == 0 {
            return 0;
        }
        let same = *self.times.entry(zxid).or_insert(ms) == ms;
        let earliest = if zxid <= self.base { 1 } else { self.started_ms - CLOCK_MS };
        if same && (earliest..=wall_ms() + CLOCK_MS).contains(&ms) { RIGHT_TIME } else { ms }
    }
}

fn wall_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as i64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zxids_are_counted_without_those_that_only_one_side_gave() {
        let mut names = Names::new(100);
        names.skip(102);
        let named: Vec<i64> = [0, -1, 7, 100, 101, 102, 103].map(|raw| names.zxid(raw)).to_vec();
        assert_eq!(named, [0, -1, BEFORE, BEFORE, 1, 1, 2]);
        assert_eq!([names.raw_zxid(0), names.raw_zxid(1), names.raw_zxid(2)], [100, 101, 103]);
    }

    #[test]
    fn zxids_of_free_order_are_named_after_their_owners() {
        let mut names = Names::new(10);
        assert!(names.set_free(10, &[12, 11, 13]));
        assert_eq!([11, 12, 13, 14].map(|raw| names.zxid(raw)), [2, 1, 3, 4]);
        assert_eq!([11, 12, 13, 14].map(|raw| names.state(raw)), [1, 2, 3, 4]);
        assert_eq!([0, 1, 2, 3].map(|name| names.raw_zxid(name)), [10, 10, 10, 13]);
        assert!(!names.set_free(13, &[15]), "14 has no owner");
        assert!(!names.set_free(13, &[14, 14]), "given twice");
    }

    #[test]
    fn a_time_is_right_when_it_is_that_of_its_transaction_and_of_today() {
        let mut names = Names::new(10);
        let now = wall_ms();
        assert_eq!([names.time(11, now), names.time(11, now)], [1, 1]);
        assert_eq!(names.time(11, now + 1), now + 1);
        assert_eq!(names.time(12, 5), 5, "long ago");
        assert_eq!(names.time(0, 0), 0);
    }
}
