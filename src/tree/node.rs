//! One znode in memory, and the slab that holds them all.

use crate::jute::length;
use crate::jute::records::{Stat, StatPersisted};

/// Where a znode sits in the slab. Ids are reused after a delete.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(pub(super) u32);

pub(super) const ROOT: NodeId = NodeId(0);
pub(super) const NIL: NodeId = NodeId(u32::MAX);

/// An interned ACL list. Ids are reused once no znode has the list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AclId(pub(super) u32);

impl AclId {
    /// `world:anyone` with every permission: stored as −1 and in no table.
    pub const OPEN: AclId = AclId(u32::MAX);
}

/// A znode: 96 bytes beside one allocation for name and data. The owner of the few that have one is beside the
/// slab ([`super::Tree`]).
#[derive(Debug)]
pub(super) struct Node {
    /// A varint `name length << 1 | data is null`, the name, the data.
    blob: Box<[u8]>,
    pub czxid: i64,
    pub mzxid: i64,
    pub pzxid: i64,
    pub ctime: i64,
    pub mtime: i64,
    pub version: i32,
    /// How many children were ever created: the persisted form, not the one of a client's Stat.
    pub cversion: i32,
    pub aversion: i32,
    pub acl: AclId,
    pub parent: NodeId,
    pub first_child: NodeId,
    pub next_sibling: NodeId,
    pub prev_sibling: NodeId,
    pub children: u32,
    /// CRC-32 of path and data: the node's digest continues from here with the stat, so a change of the stat alone
    /// never reads the data again.
    pub content_crc: u32,
}

impl Node {
    pub fn new(name: &[u8], data: Option<&[u8]>, stat: &StatPersisted, acl: AclId, parent: NodeId) -> Self {
        Self {
            blob: blob(name, data),
            czxid: stat.czxid,
            mzxid: stat.mzxid,
            pzxid: stat.pzxid,
            ctime: stat.ctime,
            mtime: stat.mtime,
            version: stat.version,
            cversion: stat.cversion,
            aversion: stat.aversion,
            acl,
            parent,
            first_child: NIL,
            next_sibling: NIL,
            prev_sibling: NIL,
            children: 0,
            content_crc: 0,
        }
    }

    /// The slab's mark for a free place. `next_sibling` links the free places.
    fn vacant(next: NodeId) -> Self {
        let stat = StatPersisted::default();
        let mut node = Self::new(b"", None, &stat, AclId::OPEN, NIL);
        node.next_sibling = next;
        node
    }

    pub fn name(&self) -> &[u8] {
        let (head, at) = varint(&self.blob);
        &self.blob[at..at + (head >> 1)]
    }

    pub fn data(&self) -> Option<&[u8]> {
        let (head, at) = varint(&self.blob);
        (head & 1 == 0).then(|| &self.blob[at + (head >> 1)..])
    }

    pub fn data_len(&self) -> usize {
        let (head, at) = varint(&self.blob);
        self.blob.len() - at - (head >> 1)
    }

    pub fn set_data(&mut self, data: Option<&[u8]>) {
        let (head, at) = varint(&self.blob);
        let start = at + (head >> 1);
        // Same length and same nullness: no allocation.
        if let Some(new) = data
            && head & 1 == 0
            && self.blob.len() - start == new.len()
        {
            self.blob[start..].copy_from_slice(new);
            return;
        }
        self.blob = blob(&self.blob[at..start], data);
    }

    pub fn stat_persisted(&self, owner: i64) -> StatPersisted {
        StatPersisted {
            czxid: self.czxid,
            mzxid: self.mzxid,
            ctime: self.ctime,
            mtime: self.mtime,
            version: self.version,
            cversion: self.cversion,
            aversion: self.aversion,
            ephemeral_owner: owner,
            pzxid: self.pzxid,
        }
    }

    /// The stat as a client sees it; `shown_owner` is 0 for all but real ephemerals.
    pub fn stat(&self, shown_owner: i64) -> Stat {
        Stat {
            czxid: self.czxid,
            mzxid: self.mzxid,
            ctime: self.ctime,
            mtime: self.mtime,
            version: self.version,
            // Creates plus deletes of children.
            cversion: self.cversion.wrapping_mul(2).wrapping_sub(self.children.cast_signed()),
            aversion: self.aversion,
            ephemeral_owner: shown_owner,
            data_length: length(self.data_len()),
            num_children: i32::try_from(self.children).unwrap_or(i32::MAX),
            pzxid: self.pzxid,
        }
    }
}

fn blob(name: &[u8], data: Option<&[u8]>) -> Box<[u8]> {
    let mut head = name.len() << 1 | usize::from(data.is_none());
    let data = data.unwrap_or_default();
    let mut out = Vec::with_capacity(head_len(head) + name.len() + data.len());
    while head >= 0x80 {
        out.push(head as u8 | 0x80);
        head >>= 7;
    }
    out.push(head as u8);
    out.extend_from_slice(name);
    out.extend_from_slice(data);
    out.into_boxed_slice()
}

fn head_len(mut head: usize) -> usize {
    let mut len = 1;
    while head >= 0x80 {
        head >>= 7;
        len += 1;
    }
    len
}

#[inline]
fn varint(bytes: &[u8]) -> (usize, usize) {
    let first = usize::from(bytes[0]);
    if first < 0x80 {
        return (first, 1);
    }
    let (mut value, mut shift, mut at) = (first & 0x7f, 7, 1);
    loop {
        let byte = usize::from(bytes[at]);
        at += 1;
        value |= (byte & 0x7f) << shift;
        if byte < 0x80 {
            return (value, at);
        }
        shift += 7;
    }
}

/// A chunk just fits into 64 KiB, a size that allocators have.
const CHUNK: usize = 682;

/// All znodes. Grows by chunks, so that no growth ever moves a million nodes.
#[derive(Debug)]
pub(super) struct Slab {
    chunks: Vec<Vec<Node>>,
    free: NodeId,
    live: usize,
}

impl Slab {
    pub fn new() -> Self {
        Self { chunks: Vec::new(), free: NIL, live: 0 }
    }

    pub fn insert(&mut self, node: Node) -> NodeId {
        self.live += 1;
        if self.free != NIL {
            let id = self.free;
            self.free = self[id].next_sibling;
            self[id] = node;
            return id;
        }
        if self.chunks.last().is_none_or(|chunk| chunk.len() == CHUNK) {
            self.chunks.push(Vec::with_capacity(CHUNK));
        }
        let id = NodeId(self.end() as u32);
        assert!(id != NIL, "the slab holds at most 2^32 - 1 znodes");
        self.chunks.last_mut().expect("a chunk was just pushed").push(node);
        id
    }

    pub fn remove(&mut self, id: NodeId) -> Node {
        let vacant = Node::vacant(self.free);
        self.free = id;
        self.live -= 1;
        std::mem::replace(&mut self[id], vacant)
    }

    pub fn live(&self) -> usize {
        self.live
    }

    /// One past the largest id ever handed out.
    pub fn end(&self) -> usize {
        match self.chunks.last() {
            None => 0,
            Some(last) => (self.chunks.len() - 1) * CHUNK + last.len(),
        }
    }
}

impl std::ops::Index<NodeId> for Slab {
    type Output = Node;
    #[inline]
    fn index(&self, id: NodeId) -> &Node {
        &self.chunks[id.0 as usize / CHUNK][id.0 as usize % CHUNK]
    }
}

impl std::ops::IndexMut<NodeId> for Slab {
    #[inline]
    fn index_mut(&mut self, id: NodeId) -> &mut Node {
        &mut self.chunks[id.0 as usize / CHUNK][id.0 as usize % CHUNK]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(name: &[u8], data: Option<&[u8]>) -> Node {
        Node::new(name, data, &StatPersisted::default(), AclId::OPEN, NIL)
    }

    #[test]
    fn a_znode_costs_at_most_96_bytes_beside_name_and_data() {
        assert_eq!(std::mem::size_of::<Node>(), 96);
    }

    #[test]
    fn null_and_empty_data_stay_apart() {
        let mut n = node(b"n", None);
        assert_eq!((n.name(), n.data(), n.data_len()), (&b"n"[..], None, 0));
        n.set_data(Some(b""));
        assert_eq!(n.data(), Some(&b""[..]));
        n.set_data(Some(b"abc"));
        n.set_data(Some(b"xyz"));
        assert_eq!((n.name(), n.data(), n.data_len()), (&b"n"[..], Some(&b"xyz"[..]), 3));
        n.set_data(None);
        assert_eq!(n.data(), None);
    }

    #[test]
    fn long_names_keep_their_length() {
        for len in [0, 63, 64, 8191, 8192, 70_000] {
            let name = vec![b'x'; len];
            let n = node(&name, Some(b"data"));
            assert_eq!((n.name(), n.data()), (&name[..], Some(&b"data"[..])), "length {len}");
        }
    }

    #[test]
    fn freed_places_are_used_again() {
        let mut slab = Slab::new();
        let ids: Vec<_> = (0..3000).map(|_| slab.insert(node(b"n", None))).collect();
        slab.remove(ids[7]);
        slab.remove(ids[2000]);
        assert_eq!(slab.insert(node(b"a", None)), ids[2000]);
        assert_eq!(slab.insert(node(b"b", None)), ids[7]);
        assert_eq!((slab.live(), slab.end()), (3000, 3000));
        assert_eq!(slab[ids[7]].name(), b"b");
    }
}
