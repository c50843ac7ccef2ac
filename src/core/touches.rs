//! Which sessions were heard from since that was last asked. A connection reports its session once a round, not with each frame.

use super::sync::{AtomicU32, Mutex, Ordering};
use crate::model::SessionId;

pub struct Touches {
    round: AtomicU32,
    /// By reactor.
    heard: Vec<Mutex<Vec<SessionId>>>,
}

impl Touches {
    pub(super) fn new(reactors: usize) -> Self {
        Self { round: AtomicU32::new(1), heard: (0..reactors).map(|_| Mutex::default()).collect() }
    }

    /// A connection reports its session with the first frame in each round.
    #[inline]
    pub fn round(&self) -> u32 {
        self.round.load(Ordering::Acquire)
    }

    /// A session of this reactor was heard from.
    pub fn add(&self, reactor: usize, session: SessionId) {
        self.heard[reactor].lock().push(session);
    }

    /// Takes what was reported, then begins a new round: who reports in that is not among these.
    pub(super) fn collect(&self) -> Vec<SessionId> {
        let heard = self.heard.iter().flat_map(|heard| std::mem::take(&mut *heard.lock())).collect();
        self.round.fetch_add(1, Ordering::AcqRel);
        heard
    }
}
