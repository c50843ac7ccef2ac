//! The servers that open an epoch together.

use crate::ensemble::View;
use crate::model::{Epoch, ServerId};
use std::collections::BTreeMap;

/// What a server can say of what it promised and acknowledged before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Memory {
    /// All of it.
    Whole,
    /// Nothing: it is new, or its disk is.
    Blank,
    /// It knows that something is missing.
    Unsure,
}

impl Memory {
    pub(super) fn of_epoch(accepted: Epoch) -> Self {
        if accepted.0 > 0 { Self::Whole } else { Self::Blank }
    }
}

/// Servers that take part in opening an epoch.
#[derive(Debug, Default)]
pub(super) struct Gathering(BTreeMap<ServerId, Memory>);

impl Gathering {
    pub(super) fn add(&mut self, id: ServerId, memory: Memory) {
        self.0.insert(id, memory);
    }

    /// Whether this set may open an epoch. A server that lost its memory may have made promises to a server that is absent,
    /// so it counts only if every voter is present, or if no server has any history (a new ensemble).
    pub(super) fn is_quorum(&self, view: &View) -> bool {
        let most = self.0.values().min().copied();
        let counts = match most {
            Some(Memory::Blank) if !self.0.values().any(|memory| *memory == Memory::Unsure) => Memory::Blank,
            _ => Memory::Whole,
        };
        view.has_quorum(|id| self.0.get(&id) == Some(&counts))
            || view.voters().iter().all(|id| self.0.contains_key(id))
    }
}
