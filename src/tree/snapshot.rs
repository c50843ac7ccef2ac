//! The tree at one point, written in slices while the tree moves on; and its way back in.
//!
//! A walk goes through the slab in the order of ids. A znode that is about to change before the walk reached it is
//! written first, as it still is (copy-on-write), together with those of its ancestors that are not out yet: so
//! parents come before children, as Java's reader wants them, and the bytes are those of the moment the walk began.

use super::acls::AclList;
use super::digest::{content_crc, is_counted, node_digest};
use super::node::{AclId, NIL, NodeId, ROOT, Slab};
use super::{Tree, index};
use crate::jute::records::{Acl, AclMapEntry, NodeEntry, SessionEntry, StatPersisted};
use crate::jute::{DecodeError, Reader, Source, put_len};
use crate::model::owner::OwnerRules;
use crate::model::{SessionId, Zxid, perms};
use bytes::{BufMut, Bytes, BytesMut};
use std::collections::{BTreeMap, HashMap, VecDeque};

/// A slice ends after this many bytes, with the znode that reaches them: to copy them takes some tens of microseconds.
pub(super) const SLICE_BYTES: usize = 256 << 10;

/// What a call of [`Tree::snapshot_slice`] brought.
#[derive(Debug)]
pub struct SnapshotSlice {
    pub bytes: BytesMut,
    /// The end marker is in `bytes`; the walk is over.
    pub done: bool,
    pub znodes_left: usize,
}

#[derive(Debug)]
pub(super) struct Walk {
    /// Ids from here on were handed out after the walk began.
    end: usize,
    next: usize,
    /// One bit an id: written, or not part of this snapshot.
    out: Vec<u64>,
    /// What comes before the first znode: the sessions, and the ACL lists that are not written yet.
    head: BytesMut,
    lists: VecDeque<(AclId, AclList)>,
    bytes: BytesMut,
    path: Vec<u8>,
}

impl Walk {
    /// The next bytes of what comes before the first znode.
    fn head(&mut self) -> BytesMut {
        let mut out = std::mem::take(&mut self.head);
        while out.len() < SLICE_BYTES
            && let Some((id, list)) = self.lists.pop_front()
        {
            AclMapEntry { id: i64::from(id.0), acl: list.to_vec() }.encode(&mut out);
        }
        out
    }

    fn is_out(&self, id: NodeId) -> bool {
        let at = id.0 as usize;
        at >= self.end || self.out[at / 64] & (1 << (at % 64)) != 0
    }

    fn mark(&mut self, id: NodeId) {
        let at = id.0 as usize;
        if at < self.end {
            self.out[at / 64] |= 1 << (at % 64);
        }
    }

    fn write(&mut self, slab: &Slab, owners: &HashMap<NodeId, i64>, id: NodeId) {
        let mut chain = Vec::new();
        let mut at = id;
        while at != NIL && !self.is_out(at) {
            chain.push(at);
            at = slab[at].parent;
        }
        for id in chain.into_iter().rev() {
            self.mark(id);
            self.path.clear();
            index::write_path(slab, id, &mut self.path);
            let node = &slab[id];
            let acl_id = if node.acl == AclId::OPEN { -1 } else { i64::from(node.acl.0) };
            let stat = node.stat_persisted(owners.get(&id).copied().unwrap_or(0));
            NodeEntry { path: &self.path[..], data: node.data(), acl_id, stat }.encode(&mut self.bytes);
        }
    }
}

impl Tree {
    /// Starts a snapshot of the tree as it is now. `sessions` go in front. One walk at a time.
    pub fn begin_snapshot(&mut self, sessions: &BTreeMap<SessionId, i32>) {
        assert!(self.walk.is_none(), "one snapshot at a time");
        let mut head = BytesMut::new();
        put_len(&mut head, sessions.len());
        for (session, timeout) in sessions {
            SessionEntry { session_id: session.0, timeout: *timeout }.encode(&mut head);
        }
        let lists: VecDeque<_> = self.acls.entries().map(|(id, list)| (id, list.clone())).collect();
        put_len(&mut head, lists.len());
        let end = self.slab.end();
        let out = vec![0; end.div_ceil(64)];
        self.walk = Some(Walk { end, next: 0, out, head, lists, bytes: BytesMut::new(), path: Vec::new() });
    }

    pub fn snapshot_under_way(&self) -> bool {
        self.walk.is_some()
    }

    /// Goes on by at most `znodes` places of the slab, until there are enough bytes, and hands over all that are ready.
    pub fn snapshot_slice(&mut self, znodes: usize) -> SnapshotSlice {
        let mut walk = self.walk.take().expect("begin_snapshot came first");
        if !walk.head.is_empty() || !walk.lists.is_empty() {
            let slice = SnapshotSlice { bytes: walk.head(), done: false, znodes_left: walk.end - walk.next };
            self.walk = Some(walk);
            return slice;
        }
        let stop = walk.end.min(walk.next + znodes);
        while walk.next < stop && walk.bytes.len() < SLICE_BYTES {
            let id = NodeId(walk.next as u32);
            let vacant = self.slab[id].parent == NIL && id != ROOT;
            if !vacant && !walk.is_out(id) {
                walk.write(&self.slab, &self.owners, id);
            }
            walk.next += 1;
        }
        let done = walk.next == walk.end;
        if done {
            walk.bytes.put_slice(&[0, 0, 0, 1, b'/']);
        }
        let slice = SnapshotSlice { bytes: walk.bytes.split(), done, znodes_left: walk.end - walk.next };
        if !done {
            self.walk = Some(walk);
        }
        slice
    }

    /// Gives up the snapshot under way, if there is one.
    pub fn abandon_snapshot(&mut self) {
        self.walk = None;
    }

    /// To be called before a znode changes.
    #[inline]
    pub(super) fn set_aside(&mut self, id: NodeId) {
        if let Some(walk) = &mut self.walk
            && !walk.is_out(id)
        {
            walk.write(&self.slab, &self.owners, id);
        }
    }

    /// To be called for a new znode: it is not part of a snapshot that began before.
    #[inline]
    pub(super) fn skip_in_snapshot(&mut self, id: NodeId) {
        if let Some(walk) = &mut self.walk {
            walk.mark(id);
        }
    }
}

/// Why a snapshot's body can't be read. The caller knows file and offset.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    #[error("{0}")]
    Decode(#[from] DecodeError),
    #[error("{count} {of}")]
    Count { count: i32, of: &'static str },
    #[error("no root")]
    NoRoot,
    #[error("{what}: {}", crate::model::path::display(path))]
    Znode { path: Vec<u8>, what: Misplaced },
}

/// Why a znode of a snapshot has no place in the tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Misplaced {
    #[error("a second root")]
    SecondRoot,
    #[error("a znode before the root")]
    BeforeRoot,
    #[error("a path without '/'")]
    NoSlash,
    #[error("a znode without a parent")]
    NoParent,
    #[error("a znode twice")]
    Twice,
}

#[derive(Debug)]
enum Stage {
    SessionCount,
    Sessions(i32),
    AclCount,
    Acls(i32),
    Znodes,
    Done,
}

/// One record of a snapshot's body.
#[derive(Debug)]
pub enum SnapshotEntry<'a> {
    Session(SessionEntry),
    Acl(AclMapEntry<&'a [u8]>),
    /// The root's path is the empty one.
    Znode(NodeEntry<&'a [u8]>),
}

/// Takes the body of a snapshot apart: our own, Java's, or a SNAP stream. It arrives in windows.
#[derive(Debug)]
pub struct SnapshotBody {
    stage: Stage,
}

impl Default for SnapshotBody {
    fn default() -> Self {
        Self { stage: Stage::SessionCount }
    }
}

impl SnapshotBody {
    /// The end marker was taken.
    pub fn is_done(&self) -> bool {
        matches!(self.stage, Stage::Done)
    }

    /// Hands over as many whole records as `window` holds and returns how many bytes they were. 0 asks for more bytes.
    pub fn feed<'a>(
        &mut self,
        window: &'a [u8],
        take: &mut impl FnMut(SnapshotEntry<'a>) -> Result<(), LoadError>,
    ) -> Result<usize, LoadError> {
        let mut reader = Reader::new(window);
        let mut taken = 0;
        while !self.is_done() {
            match self.step(&mut reader, take) {
                Ok(()) => taken = window.len() - reader.remaining(),
                Err(LoadError::Decode(DecodeError::Truncated { .. })) => break,
                Err(other) => return Err(other),
            }
        }
        Ok(taken)
    }

    fn step<'a>(
        &mut self,
        from: &mut Reader<'a>,
        take: &mut impl FnMut(SnapshotEntry<'a>) -> Result<(), LoadError>,
    ) -> Result<(), LoadError> {
        self.stage = match self.stage {
            Stage::SessionCount => Stage::Sessions(count(from.int()?, "sessions")?),
            Stage::Sessions(0) => Stage::AclCount,
            Stage::Sessions(left) => {
                take(SnapshotEntry::Session(SessionEntry::decode(from)?))?;
                Stage::Sessions(left - 1)
            }
            Stage::AclCount => Stage::Acls(count(from.int()?, "ACL lists")?),
            Stage::Acls(0) => Stage::Znodes,
            Stage::Acls(left) => {
                take(SnapshotEntry::Acl(AclMapEntry::decode(from)?))?;
                Stage::Acls(left - 1)
            }
            Stage::Znodes => match from.ustring()? {
                b"/" => Stage::Done,
                path => {
                    let (data, acl_id) = (from.buffer()?, from.long()?);
                    let stat = StatPersisted::decode(from)?;
                    take(SnapshotEntry::Znode(NodeEntry { path, data, acl_id, stat }))?;
                    Stage::Znodes
                }
            },
            Stage::Done => Stage::Done,
        };
        Ok(())
    }
}

/// Builds a tree from the body of a snapshot.
pub struct Loader {
    body: SnapshotBody,
    loaded: Loaded,
}

/// What was taken from the body so far.
struct Loaded {
    tree: Tree,
    sessions: BTreeMap<SessionId, i32>,
    acl_ids: HashMap<i64, AclId>,
    /// The newest transaction that a znode shows.
    newest: i64,
    /// Znodes are only looked at, not kept, to find out whether a snapshot can be read; the digest that their tree would have.
    dry: Option<u64>,
}

impl Loader {
    pub fn new(rules: OwnerRules) -> Self {
        let loaded = Loaded {
            tree: Tree::rootless(rules),
            sessions: BTreeMap::new(),
            acl_ids: HashMap::new(),
            newest: 0,
            dry: None,
        };
        Self { body: SnapshotBody::default(), loaded }
    }

    /// Reads everything and keeps no znode.
    pub fn dry(rules: OwnerRules) -> Self {
        let mut loader = Self::new(rules);
        loader.loaded.dry = Some(0);
        loader
    }

    pub fn is_done(&self) -> bool {
        self.body.is_done()
    }

    /// The digest of the tree whose znodes were not kept.
    pub fn dry_digest(&self) -> Option<u64> {
        self.loaded.dry
    }

    /// The newest transaction that a znode shows: a Java server goes on while it writes a snapshot.
    pub fn newest(&self) -> Zxid {
        Zxid(self.loaded.newest)
    }

    /// Takes as many whole records as `window` holds and returns how many bytes they were. 0 asks for more bytes.
    pub fn feed(&mut self, window: &[u8]) -> Result<usize, LoadError> {
        let loaded = &mut self.loaded;
        let taken = self.body.feed(window, &mut |entry| loaded.take(entry))?;
        if self.body.is_done() && loaded.dry.is_none() && loaded.tree.slab.end() == 0 {
            return Err(LoadError::NoRoot);
        }
        Ok(taken)
    }

    /// The tree and the sessions.
    #[expect(clippy::disallowed_methods, reason = "the number of references counts, not their order")]
    pub fn finish(self) -> (Tree, BTreeMap<SessionId, i32>) {
        assert!(self.is_done(), "feed() reached the end marker");
        let Loaded { mut tree, sessions, acl_ids, .. } = self.loaded;
        for id in acl_ids.into_values() {
            tree.acls.release(id);
        }
        tree.rebuild_quotas();
        (tree, sessions)
    }
}

impl Loaded {
    fn take(&mut self, entry: SnapshotEntry<'_>) -> Result<(), LoadError> {
        match entry {
            SnapshotEntry::Session(entry) => {
                self.sessions.insert(SessionId(entry.session_id), entry.timeout);
            }
            SnapshotEntry::Acl(entry) => {
                let list: Vec<Acl<Bytes>> = entry.acl.iter().map(owned).collect();
                let id = self.tree.acls.acquire(&list);
                self.acl_ids.insert(entry.id, id);
            }
            SnapshotEntry::Znode(NodeEntry { path, data, stat, .. }) if self.dry.is_some() => {
                if is_counted(path) {
                    let digest = node_digest(content_crc(path, data), &stat);
                    self.dry = self.dry.map(|sum| sum.wrapping_add(u64::from(digest)));
                }
            }
            SnapshotEntry::Znode(NodeEntry { path, data, acl_id, stat }) => {
                let acl = self.acl(acl_id);
                self.newest = self.newest.max(stat.czxid).max(stat.mzxid).max(stat.pzxid);
                self.tree
                    .insert_loaded(path, data, &stat, acl)
                    .map_err(|what| LoadError::Znode { path: path.to_vec(), what })?;
            }
        }
        Ok(())
    }

    /// An id without an entry (a Java server's fuzzy snapshot may hold one) fails closed: nobody but super may pass.
    fn acl(&mut self, id: i64) -> AclId {
        if id == -1 {
            return AclId::OPEN;
        }
        if let Some(known) = self.acl_ids.get(&id) {
            self.tree.acls.share(*known);
            return *known;
        }
        let nobody = Acl { perms: 0, ..super::acl_entry(perms::ALL, b"world", b"anyone") };
        self.tree.acls.acquire(&[nobody])
    }
}

fn count(count: i32, of: &'static str) -> Result<i32, LoadError> {
    if count < 0 { Err(LoadError::Count { count, of }) } else { Ok(count) }
}

fn owned(acl: &Acl<&[u8]>) -> Acl<Bytes> {
    Acl {
        perms: acl.perms,
        id: crate::jute::records::Id {
            scheme: Bytes::copy_from_slice(acl.id.scheme),
            id: Bytes::copy_from_slice(acl.id.id),
        },
    }
}
