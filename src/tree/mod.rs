//! The tree of znodes as plain data: lookups for readers, one method per transaction for the core.
//!
//! The rules of every change are those of `server/DataTree`, idempotent so that a log replayed over a fuzzy
//! snapshot of a Java server ends in the same tree.

mod acls;
mod database;
mod digest;
mod index;
mod node;
mod quota;
mod snapshot;
#[cfg(test)]
mod tests;
mod versions;
mod watches;

pub use acls::{AclList, AclMatch, entry as acl_entry, open_entry};
pub use database::{Applied, Database};
pub use digest::{content_crc, is_counted, node_digest};
pub use node::{AclId, NodeId};
pub use quota::Limits;
pub use snapshot::{LoadError, Loader, Misplaced, SnapshotBody, SnapshotEntry, SnapshotSlice};
pub use versions::{ListVersion, Mark};
pub use watches::{Departed, WatchEvent, WatchKind, WatchMode, Watches};

use crate::jute::records::{Acl, Stat, StatPersisted};
use crate::model::owner::{Owner, OwnerRules};
use crate::model::{ErrorCode, SessionId, path};
use acls::AclTable;
use bytes::Bytes;
use index::PathIndex;
use node::{NIL, Node, ROOT, Slab};
use quota::Quotas;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Bound;

pub const ZOOKEEPER: &[u8] = b"/zookeeper";
pub const QUOTA: &[u8] = b"/zookeeper/quota";
pub const CONFIG: &[u8] = b"/zookeeper/config";

/// What happened to a znode, as a notification names it (`Watcher.Event.EventType`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum EventKind {
    Created = 1,
    Deleted = 2,
    DataChanged = 3,
    ChildrenChanged = 4,
}

/// One change to be announced to watchers, in the order in which Java fires them.
#[derive(Debug, Clone)]
pub struct Event {
    pub kind: EventKind,
    /// The changed znode; for [`EventKind::ChildrenChanged`] the parent (`/` for the root).
    pub path: Bytes,
    /// The ACL that decides who may hear of it: the znode's at the time of the change.
    pub acl: AclList,
}

/// A change that a transaction describes, common to the four kinds of create.
pub struct NewNode<'a> {
    pub path: &'a Bytes,
    pub data: Option<&'a [u8]>,
    pub acl: &'a [Acl<Bytes>],
    pub owner: i64,
    /// −1 in the oldest logs: one more than the parent has.
    pub parent_cversion: i32,
    pub zxid: i64,
    pub time: i64,
}

/// How far a look through the containers and TTL znodes has come.
#[derive(Debug, Clone, Copy)]
pub struct Look(NodeId);

impl Default for Look {
    /// All are still to be looked at.
    fn default() -> Self {
        Self(ROOT)
    }
}

#[derive(Debug)]
pub struct Tree {
    rules: OwnerRules,
    slab: Slab,
    index: PathIndex,
    acls: AclTable,
    ephemerals: BTreeMap<SessionId, BTreeSet<NodeId>>,
    /// How often an ephemeral came or went.
    ephemeral_changes: u64,
    /// The raw owner of every znode that has one: sessions, containers, TTLs.
    owners: HashMap<NodeId, i64>,
    /// Containers and TTL znodes, which may be removed some day.
    removable: BTreeSet<NodeId>,
    quotas: Quotas,
    digest: u64,
    data_bytes: i64,
    walk: Option<snapshot::Walk>,
}

impl Tree {
    /// The initial tree of a new server: the root, `/zookeeper`, `/zookeeper/quota`, `/zookeeper/config`.
    pub fn new(rules: OwnerRules) -> Self {
        let mut tree = Self::rootless(rules);
        let zero = StatPersisted::default();
        tree.insert_loaded(b"", Some(b""), &zero, AclId::OPEN).expect("the root needs no parent");
        tree.insert_loaded(ZOOKEEPER, Some(b""), &zero, AclId::OPEN).expect("its parent is the root");
        tree.insert_loaded(QUOTA, Some(b""), &zero, AclId::OPEN).expect("its parent is there");
        let read_only = tree.acls.acquire(&[acl_entry(crate::model::perms::READ, b"world", b"anyone")]);
        let config = StatPersisted { aversion: -1, ..zero };
        tree.insert_loaded(CONFIG, Some(b""), &config, read_only).expect("its parent is there");
        tree
    }

    fn rootless(rules: OwnerRules) -> Self {
        Self {
            rules,
            slab: Slab::new(),
            index: PathIndex::new(),
            acls: AclTable::new(),
            ephemerals: BTreeMap::new(),
            ephemeral_changes: 0,
            owners: HashMap::new(),
            removable: BTreeSet::new(),
            quotas: Quotas::default(),
            digest: 0,
            data_bytes: 0,
            walk: None,
        }
    }

    // Lookups.

    /// `""` and `"/"` both name the root, as in Java.
    #[inline]
    pub fn find(&self, path: &[u8]) -> Option<NodeId> {
        if path.len() <= 1 && matches!(path, b"" | b"/") {
            return Some(ROOT);
        }
        self.index.find(&self.slab, path)
    }

    #[inline]
    pub fn stat(&self, id: NodeId) -> Stat {
        let node = &self.slab[id];
        let shown = match self.owner(id) {
            Owner::Session(session) => session.0,
            Owner::Persistent | Owner::Container | Owner::Ttl(_) => 0,
        };
        node.stat(shown)
    }

    pub fn stat_persisted(&self, id: NodeId) -> StatPersisted {
        self.slab[id].stat_persisted(self.raw_owner(id))
    }

    #[inline]
    fn raw_owner(&self, id: NodeId) -> i64 {
        if self.owners.is_empty() { 0 } else { self.owners.get(&id).copied().unwrap_or(0) }
    }

    #[inline]
    pub fn data(&self, id: NodeId) -> Option<&[u8]> {
        self.slab[id].data()
    }

    pub fn data_len(&self, id: NodeId) -> usize {
        self.slab[id].data_len()
    }

    #[inline]
    pub fn acl(&self, id: NodeId) -> &AclList {
        self.acls.list(self.slab[id].acl)
    }

    /// Whether everybody may do everything: the common case, told without looking at a list.
    #[inline]
    pub fn is_open(&self, id: NodeId) -> bool {
        self.slab[id].acl == AclId::OPEN
    }

    pub fn child_count(&self, id: NodeId) -> u32 {
        self.slab[id].children
    }

    pub fn content_crc(&self, id: NodeId) -> u32 {
        self.slab[id].content_crc
    }

    pub fn owner(&self, id: NodeId) -> Owner {
        Owner::decode(self.raw_owner(id), self.rules)
    }

    pub fn owner_rules(&self) -> OwnerRules {
        self.rules
    }

    pub fn path(&self, id: NodeId) -> Vec<u8> {
        let mut out = Vec::new();
        index::write_path(&self.slab, id, &mut out);
        out
    }

    /// Names of the children, in no particular order.
    pub fn children(&self, id: NodeId) -> impl Iterator<Item = &[u8]> {
        self.child_ids(id).map(|child| self.slab[child].name())
    }

    fn child_ids(&self, id: NodeId) -> impl Iterator<Item = NodeId> {
        self.children_after(id, None)
    }

    /// The children that come after `at` in their order, or all.
    pub fn children_after(&self, id: NodeId, at: Option<NodeId>) -> impl Iterator<Item = NodeId> {
        let mut next = at.map_or(self.slab[id].first_child, |at| self.slab[at].next_sibling);
        std::iter::from_fn(move || {
            (next != NIL).then(|| {
                let child = next;
                next = self.slab[child].next_sibling;
                child
            })
        })
    }

    /// The znode and all below it, parents first.
    fn subtree(&self, top: NodeId) -> impl Iterator<Item = NodeId> {
        let mut pending = vec![top];
        std::iter::from_fn(move || {
            let id = pending.pop()?;
            pending.extend(self.child_ids(id));
            Some(id)
        })
    }

    /// How many are below, if `id` is the root; Java counts one less than there are znodes beside it.
    pub fn all_below_root(&self, id: NodeId) -> Option<usize> {
        (id == ROOT).then(|| self.znode_count() - 2)
    }

    /// The one after `at` in a walk through all that is below `top`, parents first. None: `at` was the last.
    pub fn next_below(&self, top: NodeId, mut at: NodeId) -> Option<NodeId> {
        let child = self.slab[at].first_child;
        if child != NIL {
            return Some(child);
        }
        while at != top {
            let next = self.slab[at].next_sibling;
            if next != NIL {
                return Some(next);
            }
            at = self.slab[at].parent;
        }
        None
    }

    /// The znode's own name.
    pub fn name(&self, id: NodeId) -> &[u8] {
        self.slab[id].name()
    }

    /// Java's tree holds the root under two names; its counts show it.
    pub fn znode_count(&self) -> usize {
        self.slab.live() + 1
    }

    /// Bytes of paths and data (`approximate_data_size`).
    pub fn approximate_data_size(&self) -> i64 {
        self.data_bytes
    }

    pub fn ephemerals_of(&self, session: SessionId) -> impl Iterator<Item = Vec<u8>> {
        self.ephemerals.get(&session).into_iter().flatten().map(|id| self.path(*id))
    }

    /// The ephemerals that come after `at` in their order, or all.
    pub fn ephemerals_after(&self, session: SessionId, at: Option<NodeId>) -> impl Iterator<Item = NodeId> {
        let from = at.map_or(Bound::Unbounded, Bound::Excluded);
        let owned = self.ephemerals.get(&session).into_iter();
        owned.flat_map(move |owned| owned.range((from, Bound::Unbounded)).copied())
    }

    pub fn sessions_with_ephemerals(&self) -> impl Iterator<Item = SessionId> {
        self.ephemerals.keys().copied()
    }

    pub fn ephemeral_count(&self) -> usize {
        self.ephemerals.values().map(BTreeSet::len).sum()
    }

    /// Sum over all znodes outside `/zookeeper/` (digest version 2).
    pub fn digest(&self) -> u64 {
        self.digest
    }

    /// The limits and the usage of the quota that covers `path`, when there is one.
    pub fn quota_for(&self, path: &[u8]) -> Option<(Vec<u8>, Limits, Limits)> {
        let prefix = self.quotas.longest_prefix(path)?;
        let limits = self.find(&quota::limit_path(prefix))?;
        let usage = self.find(&quota::stat_path(prefix))?;
        Some((prefix.to_vec(), Limits::parse(self.data(limits)), Limits::parse(self.data(usage))))
    }

    /// Looks at `most` containers and TTL znodes: which may go now (`server/ContainerManager`), with the times of `now_ms` (wall
    /// clock), and from where to look on, if there are more.
    pub fn removable(
        &self,
        from: Look,
        most: usize,
        now_ms: i64,
        max_never_used_ms: i64,
    ) -> (Vec<Vec<u8>>, Option<Look>) {
        let may_go = |id: NodeId| {
            let node = &self.slab[id];
            node.children == 0
                && match self.owner(id) {
                    Owner::Container => {
                        let never_used = max_never_used_ms != 0 && now_ms - node.mtime > max_never_used_ms;
                        node.cversion > 0 || never_used
                    }
                    Owner::Ttl(ttl) => now_ms - node.mtime > ttl,
                    Owner::Persistent | Owner::Session(_) => false,
                }
        };
        let mut rest = self.removable.range(from.0..).copied();
        let due = rest.by_ref().take(most).filter(|id| may_go(*id)).map(|id| self.path(id)).collect();
        (due, rest.next().map(Look))
    }

    // Changes, each as a transaction describes it.

    /// Creates a znode, and gives the stat that it begins with: a new quota's usage is written into it only then. On
    /// `NodeExists` the znode's ACL is replaced all the same, as Java ≥ 3.9.4 does on replay.
    pub fn create(&mut self, new: &NewNode<'_>, events: &mut Vec<Event>) -> Result<Stat, ErrorCode> {
        let parent_path = path::parent(new.path).ok_or(ErrorCode::BadArguments)?;
        let parent = self.find(parent_path).ok_or(ErrorCode::NoNode)?;
        if let Some(existing) = self.find(new.path) {
            self.set_aside(existing);
            let acl = self.acls.acquire(new.acl);
            let old = std::mem::replace(&mut self.slab[existing].acl, acl);
            self.acls.release(old);
            return Err(ErrorCode::NodeExists);
        }
        self.raise_cversion(parent, parent_path, new.parent_cversion, new.zxid);
        let acl = self.acls.acquire(new.acl);
        let stat = StatPersisted {
            czxid: new.zxid,
            mzxid: new.zxid,
            pzxid: new.zxid,
            ctime: new.time,
            mtime: new.time,
            version: 0,
            cversion: 0,
            aversion: 0,
            ephemeral_owner: new.owner,
        };
        let id = self.link(parent, new.path, new.data, &stat, acl);
        let stat = self.stat(id);
        self.note_quota_node(new.path);
        self.count_quota(new.path, new.data.map_or(0, <[u8]>::len) as i64, 1);
        events.push(Event { kind: EventKind::Created, path: new.path.clone(), acl: self.acl(id).clone() });
        self.push_children_changed(new.path, parent, events);
        Ok(stat)
    }

    /// A replayed create found its znode already there: the parent's counters still have to reach the txn's values.
    pub fn raise_parent_cversion(&mut self, child_path: &[u8], parent_cversion: i32, zxid: i64) {
        if let Some(parent_path) = path::parent(child_path)
            && let Some(parent) = self.find(parent_path)
        {
            self.raise_cversion(parent, parent_path, parent_cversion, zxid);
        }
    }

    pub fn delete(&mut self, path: &Bytes, zxid: i64, events: &mut Vec<Event>) -> Result<(), ErrorCode> {
        let parent_path = path::parent(path).ok_or(ErrorCode::BadArguments)?;
        let parent = self.find(parent_path).ok_or(ErrorCode::NoNode)?;
        if zxid > self.slab[parent].pzxid {
            self.change(parent, parent_path, |node| node.pzxid = zxid);
        }
        let id = self.index.find(&self.slab, path).ok_or(ErrorCode::NoNode)?;
        if self.slab[id].children > 0 {
            // Prep refuses this; a damaged history must not orphan a subtree.
            return Err(ErrorCode::NotEmpty);
        }
        let acl = self.acl(id).clone();
        let data_len = self.unlink(id, path);
        if parent_path.starts_with(ZOOKEEPER) && path::name(path) == quota::LIMIT_NODE {
            self.quotas.remove(&parent_path[QUOTA.len().min(parent_path.len())..]);
        }
        self.count_quota(path, -(data_len as i64), -1);
        events.push(Event { kind: EventKind::Deleted, path: path.clone(), acl });
        self.push_children_changed(path, parent, events);
        Ok(())
    }

    /// `version` is the znode's new version.
    pub fn set_data(
        &mut self,
        path: &Bytes,
        data: Option<&[u8]>,
        version: i32,
        zxid: i64,
        time: i64,
        events: &mut Vec<Event>,
    ) -> Result<NodeId, ErrorCode> {
        let id = self.find(path).ok_or(ErrorCode::NoNode)?;
        let path_in_tree = if id == ROOT { Bytes::new() } else { path.clone() };
        let diff = self.replace_data(id, &path_in_tree, data, |node| {
            node.version = version;
            node.mzxid = zxid;
            node.mtime = time;
        });
        self.count_quota(path, diff, 0);
        events.push(Event { kind: EventKind::DataChanged, path: path.clone(), acl: self.acl(id).clone() });
        Ok(id)
    }

    /// `version` is the znode's new aversion. Announced to nobody.
    pub fn set_acl(&mut self, path: &[u8], acl: &[Acl<Bytes>], version: i32) -> Result<NodeId, ErrorCode> {
        let id = self.find(path).ok_or(ErrorCode::NoNode)?;
        let acl = self.acls.acquire(acl);
        let path = if id == ROOT { b"" } else { path };
        let mut old = acl;
        self.change(id, path, |node| {
            old = std::mem::replace(&mut node.acl, acl);
            node.aversion = version;
        });
        self.acls.release(old);
        Ok(id)
    }

    // The parts that changes are made of.

    /// Runs `f` on a znode and keeps the digest and a snapshot under way right. `f` must not touch name or data.
    fn change(&mut self, id: NodeId, path: &[u8], f: impl FnOnce(&mut Node)) {
        self.set_aside(id);
        let (counted, owner) = (digest::is_counted(path), self.raw_owner(id));
        let node = &mut self.slab[id];
        if !counted {
            return f(node);
        }
        let before = node_digest(node.content_crc, &node.stat_persisted(owner));
        f(node);
        let after = node_digest(node.content_crc, &node.stat_persisted(owner));
        self.digest = self.digest.wrapping_sub(u64::from(before)).wrapping_add(u64::from(after));
    }

    /// Like [`Self::change`], with new data. Returns how many bytes longer the data is now.
    fn replace_data(
        &mut self,
        id: NodeId,
        path: &[u8],
        data: Option<&[u8]>,
        f: impl FnOnce(&mut Node),
    ) -> i64 {
        self.set_aside(id);
        let (counted, owner) = (digest::is_counted(path), self.raw_owner(id));
        let node = &mut self.slab[id];
        let before = node_digest(node.content_crc, &node.stat_persisted(owner));
        let old_len = node.data_len();
        node.set_data(data);
        f(node);
        if counted {
            node.content_crc = content_crc(path, data);
            let after = node_digest(node.content_crc, &node.stat_persisted(owner));
            self.digest = self.digest.wrapping_sub(u64::from(before)).wrapping_add(u64::from(after));
        }
        let diff = data.map_or(0, <[u8]>::len) as i64 - old_len as i64;
        self.data_bytes += diff;
        diff
    }

    fn raise_cversion(&mut self, parent: NodeId, parent_path: &[u8], to: i32, zxid: i64) {
        let current = self.slab[parent].cversion;
        let to = if to == -1 { current.wrapping_add(1) } else { to };
        if to > current {
            self.change(parent, parent_path, |node| {
                node.cversion = to;
                node.pzxid = zxid;
            });
        }
    }

    /// Puts a new znode below `parent` and into the index, the digest and the owners' tables.
    fn link(
        &mut self,
        parent: NodeId,
        path: &[u8],
        data: Option<&[u8]>,
        stat: &StatPersisted,
        acl: AclId,
    ) -> NodeId {
        let mut node = Node::new(path::name(path), data, stat, acl, parent);
        if digest::is_counted(path) {
            node.content_crc = content_crc(path, data);
            self.digest = self.digest.wrapping_add(u64::from(node_digest(node.content_crc, stat)));
        }
        self.data_bytes += (path.len() + node.data_len()) as i64;
        let id = self.slab.insert(node);
        self.skip_in_snapshot(id);
        let is_root = path.is_empty();
        if is_root {
            assert!(id == ROOT, "the root comes first");
        } else {
            let first = std::mem::replace(&mut self.slab[parent].first_child, id);
            self.slab[parent].children += 1;
            self.slab[id].next_sibling = first;
            if first != NIL {
                self.slab[first].prev_sibling = id;
            }
            self.index.insert(path, id);
        }
        if stat.ephemeral_owner != 0 {
            self.owners.insert(id, stat.ephemeral_owner);
        }
        match Owner::decode(stat.ephemeral_owner, self.rules) {
            Owner::Persistent => {}
            Owner::Session(session) => {
                self.ephemeral_changes += 1;
                self.ephemerals.entry(session).or_default().insert(id);
            }
            Owner::Container | Owner::Ttl(_) => {
                self.removable.insert(id);
            }
        }
        id
    }

    /// The reverse of [`Self::link`]. Returns the length of the data that went.
    fn unlink(&mut self, id: NodeId, path: &[u8]) -> usize {
        self.set_aside(id);
        self.index.remove(path, id);
        let owner = self.owners.remove(&id).unwrap_or(0);
        let node = self.slab.remove(id);
        if digest::is_counted(path) {
            let digest = node_digest(node.content_crc, &node.stat_persisted(owner));
            self.digest = self.digest.wrapping_sub(u64::from(digest));
        }
        self.data_bytes -= (path.len() + node.data_len()) as i64;
        if node.prev_sibling == NIL {
            self.slab[node.parent].first_child = node.next_sibling;
        } else {
            self.slab[node.prev_sibling].next_sibling = node.next_sibling;
        }
        if node.next_sibling != NIL {
            self.slab[node.next_sibling].prev_sibling = node.prev_sibling;
        }
        self.slab[node.parent].children -= 1;
        self.acls.release(node.acl);
        match Owner::decode(owner, self.rules) {
            Owner::Persistent => {}
            Owner::Session(session) => {
                self.ephemeral_changes += 1;
                let owned = self.ephemerals.get_mut(&session).expect("an ephemeral is in its owner's list");
                owned.remove(&id);
                if owned.is_empty() {
                    self.ephemerals.remove(&session);
                }
            }
            Owner::Container | Owner::Ttl(_) => {
                self.removable.remove(&id);
            }
        }
        node.data_len()
    }

    fn push_children_changed(&self, child: &Bytes, parent: NodeId, events: &mut Vec<Event>) {
        let at = child.len() - path::name(child).len() - 1;
        let path = if at == 0 { Bytes::from_static(b"/") } else { child.slice(..at) };
        events.push(Event { kind: EventKind::ChildrenChanged, path, acl: self.acl(parent).clone() });
    }

    /// Puts one znode of a snapshot into its place. Errors when its parent has not come yet.
    fn insert_loaded(
        &mut self,
        path: &[u8],
        data: Option<&[u8]>,
        stat: &StatPersisted,
        acl: AclId,
    ) -> Result<(), Misplaced> {
        let parent = if path.is_empty() {
            if self.slab.end() > 0 {
                return Err(Misplaced::SecondRoot);
            }
            NIL
        } else {
            if self.slab.end() == 0 {
                return Err(Misplaced::BeforeRoot);
            }
            let parent_path = path::parent(path).ok_or(Misplaced::NoSlash)?;
            self.find(parent_path).ok_or(Misplaced::NoParent)?
        };
        if !path.is_empty() && self.find(path).is_some() {
            return Err(Misplaced::Twice);
        }
        self.link(parent, path, data, stat, acl);
        Ok(())
    }
}
