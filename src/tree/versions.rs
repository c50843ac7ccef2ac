//! What a read remembers from one hold of the lock to the next: whether a list is still what it was, and whether a znode is.

use super::node::{NIL, ROOT};
use super::{Database, NodeId};
use crate::model::SessionId;

/// A list of znodes. Equal ones are the same list in the same order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ListVersion {
    install: u64,
    of: ListOf,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ListOf {
    /// Each child that comes changes the parent's cversion, each that goes its pzxid.
    Children {
        parent: Mark,
        cversion: i32,
        pzxid: i64,
    },
    Ephemerals {
        session: SessionId,
        changes: u64,
    },
}

/// A znode: another one may come to its place, with a later zxid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mark {
    install: u64,
    id: NodeId,
    czxid: i64,
}

impl Mark {
    /// Its place.
    pub fn id(&self) -> NodeId {
        self.id
    }
}

impl Database {
    /// The children of a znode.
    pub fn children_version(&self, id: NodeId) -> ListVersion {
        let node = &self.tree.slab[id];
        let of = ListOf::Children { parent: self.mark(id), cversion: node.cversion, pzxid: node.pzxid };
        ListVersion { install: self.install, of }
    }

    /// The ephemerals of a session.
    pub fn ephemerals_version(&self, session: SessionId) -> ListVersion {
        let of = ListOf::Ephemerals { session, changes: self.tree.ephemeral_changes };
        ListVersion { install: self.install, of }
    }

    /// To find the znode again.
    pub fn mark(&self, id: NodeId) -> Mark {
        Mark { install: self.install, id, czxid: self.tree.slab[id].czxid }
    }

    /// Whether the znode has been there ever since.
    pub fn is_there(&self, mark: Mark) -> bool {
        let lives = |id| id == ROOT || self.tree.slab[id].parent != NIL;
        // The slab never shrinks: only in another tree a place may be missing.
        mark.install == self.install && lives(mark.id) && self.mark(mark.id) == mark
    }
}
