//! Changes that are prepared but not applied yet: what a znode will be when they are (`ChangeRecord`).

use crate::jute::records::StatPersisted;
use crate::model::{ErrorCode, Zxid};
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
    /// While a multi is prepared: what to put back should it fail, newest last.
    undo: Option<Vec<(Bytes, Option<Change>)>>,
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
            undo.push((path, old));
        }
    }

    pub fn begin(&mut self) {
        self.undo = Some(Vec::new());
    }

    pub fn commit(&mut self) {
        self.undo = None;
    }

    pub fn roll_back(&mut self) {
        for (path, old) in self.undo.take().expect("begin() came first").into_iter().rev() {
            self.order.pop_back();
            match old {
                Some(old) => self.by_path.insert(path, old),
                None => self.by_path.remove(&path),
            };
        }
    }

    /// All changes up to `zxid` are in the tree now.
    pub fn applied(&mut self, zxid: Zxid) {
        while let Some((at, _)) = self.order.front()
            && *at <= zxid
        {
            let (at, path) = self.order.pop_front().expect("front() is there");
            if self.by_path.get(&path).is_some_and(|change| change.zxid == at) {
                self.by_path.remove(&path);
            }
        }
    }

    /// Outstanding creates and deletes that concern ephemerals of one session, newest form of each path.
    #[expect(clippy::disallowed_methods, reason = "each path occurs once")]
    pub fn changes(&self) -> impl Iterator<Item = (&Bytes, &Change)> {
        self.by_path.iter()
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
