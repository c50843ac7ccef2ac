//! The configurations that count at the moment: the committed one and, while a change is under way, the next.

use super::Ensemble;
use crate::model::ServerId;
use std::collections::BTreeSet;
use std::sync::Arc;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct View {
    pub committed: Arc<Ensemble>,
    /// The newest one that was proposed or heard of; the committed one while nothing is pending.
    pub last_seen: Arc<Ensemble>,
}

impl View {
    pub fn new(committed: Arc<Ensemble>) -> Self {
        Self { last_seen: committed.clone(), committed }
    }

    /// The next configuration, while there is one.
    pub fn pending(&self) -> Option<&Arc<Ensemble>> {
        (self.last_seen.version() > self.committed.version()).then_some(&self.last_seen)
    }

    /// The configurations of which each needs a quorum.
    pub fn required(&self) -> impl Iterator<Item = &Arc<Ensemble>> {
        std::iter::once(&self.committed).chain(self.pending())
    }

    pub fn has_quorum(&self, has: impl Fn(ServerId) -> bool) -> bool {
        self.required().all(|ensemble| ensemble.has_quorum(&has))
    }

    /// Whether they decide in one of the two: enough to believe who leads, not to lead.
    pub fn has_some_quorum(&self, has: impl Fn(ServerId) -> bool) -> bool {
        self.required().any(|ensemble| ensemble.has_quorum(&has))
    }

    /// Who votes in the committed or in the last seen configuration.
    pub fn is_voter(&self, id: ServerId) -> bool {
        self.committed.is_voter(id) || self.last_seen.is_voter(id)
    }

    pub fn voters(&self) -> BTreeSet<ServerId> {
        self.committed.voters().chain(self.last_seen.voters()).collect()
    }

    pub fn is_member(&self, id: ServerId) -> bool {
        self.committed.member(id).is_some() || self.last_seen.member(id).is_some()
    }
}
