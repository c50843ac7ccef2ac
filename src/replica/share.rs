//! How much is done under one hold of a lock: what clients have amounts of is worked off a share at a time, so that nobody waits
//! for all of it.

use crate::model::Zxid;
use std::collections::VecDeque;

/// The steps of one share: a step is a session that ends, a znode that goes or changes, and takes about a microsecond to
/// prepare and as much to apply.
pub(super) const STEPS_AT_ONCE: usize = 1024;

/// Containers and TTL znodes that are looked at in one turn: most of them stay.
pub(super) const LOOKS_AT_ONCE: usize = 4 * STEPS_AT_ONCE;

/// Steps that a leader may have proposed of its own accord and not applied yet. A client's write that comes now is logged and
/// applied after them: that takes some milliseconds. At the same time they have to keep the log busy for the time of a sync.
const STEPS_UNDER_WAY: usize = 4 * STEPS_AT_ONCE;

/// What a leader has proposed of its own accord and not applied yet: ends of sessions that expired, znodes whose time has come.
#[derive(Debug, Default)]
pub(super) struct UnderWay {
    /// Up to which zxid, how many steps.
    shares: VecDeque<(Zxid, usize)>,
    steps: usize,
}

impl UnderWay {
    /// The steps of the next share: a whole one, or none while enough is under way.
    pub(super) fn room(&self) -> usize {
        if self.steps + STEPS_AT_ONCE <= STEPS_UNDER_WAY { STEPS_AT_ONCE } else { 0 }
    }

    /// A share was proposed.
    pub(super) fn add(&mut self, upto: Zxid, steps: usize) {
        self.shares.push_back((upto, steps));
        self.steps += steps;
    }

    /// All up to `zxid` is applied.
    pub(super) fn applied(&mut self, zxid: Zxid) {
        while let Some((_, steps)) = self.shares.pop_front_if(|(upto, _)| *upto <= zxid) {
            self.steps -= steps;
        }
    }
}
