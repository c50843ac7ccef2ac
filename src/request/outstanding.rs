//! Changes that are prepared but not applied yet: what a znode will be when they are (`ChangeRecord`).

use crate::jute::records::StatPersisted;
use crate::model::{ErrorCode, SessionId, Zxid};
use crate::tree::{AclList, NodeId, Tree};
use bytes::Bytes;
use std::collections::{HashMap, VecDeque};

/// A znode as it will be. `stat: None` says that it will be gone.
#[derive(Debug, Clone)]
pub(super) struct Change {
    pub zxid: Zxid,
    pub stat: Option<StatPersisted>,
    pub children: u32,
    pub acl: AclList,
    pub content_crc: u32,
    pub data_len: usize,
}

#[derive(Debug, Default)]
pub(super) struct Outstanding {
    by_path: HashMap<Bytes, Change>,
    order: VecDeque<(Zxid, Bytes)>,
    ephemerals: Ephemerals,
    /// While a multi is prepared: what to put back should it fail, newest last.
    undo: Option<Undo>,
}

#[derive(Debug, Default)]
struct Undo {
    changes: Vec<(Bytes, Option<Change>)>,
    /// How many ephemerals were noted before.
    ephemerals: usize,
}

/// The paths at which an ephemeral comes or goes, by session, oldest first: a session that ends looks at its own alone.
#[derive(Debug, Default)]
struct Ephemerals {
    by_session: HashMap<SessionId, VecDeque<Bytes>>,
    order: VecDeque<(Zxid, SessionId)>,
}

impl Ephemerals {
    fn note(&mut self, zxid: Zxid, session: SessionId, path: Bytes) {
        self.order.push_back((zxid, session));
        self.by_session.entry(session).or_default().push_back(path);
    }

    fn applied(&mut self, zxid: Zxid) {
        while let Some((_, session)) = self.order.pop_front_if(|(at, _)| *at <= zxid) {
            self.drop_one(session, VecDeque::pop_front);
        }
    }

    fn roll_back(&mut self, to: usize) {
        while self.order.len() > to
            && let Some((_, session)) = self.order.pop_back()
        {
            self.drop_one(session, VecDeque::pop_back);
        }
    }

    fn drop_one(&mut self, session: SessionId, drop: impl FnOnce(&mut VecDeque<Bytes>) -> Option<Bytes>) {
        if let Some(paths) = self.by_session.get_mut(&session) {
            drop(paths);
            if paths.is_empty() {
                self.by_session.remove(&session);
            }
        }
    }
}

impl Outstanding {
    /// The newest form of the znode: outstanding, or the tree's. The root's key is the empty path.
    pub fn find(&self, tree: &Tree, path: &[u8]) -> Result<Change, ErrorCode> {
        let path = if path == b"/" { b"" } else { path };
        if let Some(change) = self.by_path.get(path) {
            return if change.stat.is_some() { Ok(change.clone()) } else { Err(ErrorCode::NoNode) };
        }
        let id = tree.find(path).ok_or(ErrorCode::NoNode)?;
        Ok(of_node(tree, id))
    }

    pub fn put(&mut self, path: Bytes, change: Change) {
        let path = if path == "/" { Bytes::new() } else { path };
        self.order.push_back((change.zxid, path.clone()));
        let old = self.by_path.insert(path.clone(), change);
        if let Some(undo) = &mut self.undo {
            undo.changes.push((path, old));
        }
    }

    /// An ephemeral of the session comes or goes at `path`.
    pub fn note_ephemeral(&mut self, zxid: Zxid, session: SessionId, path: Bytes) {
        self.ephemerals.note(zxid, session, path);
    }

    /// The paths at which an ephemeral of the session comes or goes, oldest first; one may occur several times.
    pub fn ephemerals_of(&self, session: SessionId) -> impl Iterator<Item = &Bytes> {
        self.ephemerals.by_session.get(&session).into_iter().flatten()
    }

    /// What is outstanding at this path.
    pub fn change(&self, path: &[u8]) -> Option<&Change> {
        self.by_path.get(path)
    }

    pub fn begin(&mut self) {
        self.undo = Some(Undo { changes: Vec::new(), ephemerals: self.ephemerals.order.len() });
    }

    pub fn commit(&mut self) {
        self.undo = None;
    }

    pub fn roll_back(&mut self) {
        let undo = self.undo.take().expect("begin() came first");
        self.ephemerals.roll_back(undo.ephemerals);
        for (path, old) in undo.changes.into_iter().rev() {
            self.order.pop_back();
            match old {
                Some(old) => self.by_path.insert(path, old),
                None => self.by_path.remove(&path),
            };
        }
    }

    /// All changes up to `zxid` are in the tree now.
    pub fn applied(&mut self, zxid: Zxid) {
        self.ephemerals.applied(zxid);
        while let Some((at, _)) = self.order.front()
            && *at <= zxid
        {
            let (at, path) = self.order.pop_front().expect("front() is there");
            if self.by_path.get(&path).is_some_and(|change| change.zxid == at) {
                self.by_path.remove(&path);
            }
        }
    }

    pub fn is_empty(&self) -> bool {
        self.order.is_empty()
    }
}

fn of_node(tree: &Tree, id: NodeId) -> Change {
    Change {
        zxid: Zxid::ZERO,
        stat: Some(tree.stat_persisted(id)),
        children: tree.child_count(id),
        acl: tree.acl(id).clone(),
        content_crc: tree.content_crc(id),
        data_len: tree.data_len(id),
    }
}
