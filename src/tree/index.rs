//! Finds a znode by its full path without storing paths: hash tables of ids, many, so that a growth moves little.

use super::node::{NodeId, ROOT, Slab};
use hashbrown::{DefaultHashBuilder, HashTable};
use std::hash::BuildHasher;

/// At a million znodes each shard holds some 3,300: just below a growth of its table.
const SHARDS: usize = 300;

/// A znode, and enough of its path's hash to move it when a table grows without looking at the znode.
#[derive(Debug, Clone, Copy)]
struct Entry {
    id: NodeId,
    hash: u32,
}

#[derive(Debug)]
pub(super) struct PathIndex {
    hasher: DefaultHashBuilder,
    shards: Vec<HashTable<Entry>>,
}

impl PathIndex {
    pub fn new() -> Self {
        Self {
            hasher: DefaultHashBuilder::default(),
            shards: (0..SHARDS).map(|_| HashTable::new()).collect(),
        }
    }

    /// The shard, and the hash within it.
    #[inline]
    fn place(&self, path: &[u8]) -> (usize, u32) {
        let hash = self.hasher.hash_one(path);
        (hash as u32 as usize % SHARDS, (hash >> 32) as u32)
    }

    #[inline]
    pub fn find(&self, slab: &Slab, path: &[u8]) -> Option<NodeId> {
        let (shard, hash) = self.place(path);
        let is_it = |entry: &Entry| entry.hash == hash && is_at(slab, entry.id, path);
        self.shards[shard].find(spread(hash), is_it).map(|entry| entry.id)
    }

    /// `path` must not be in the index.
    pub fn insert(&mut self, path: &[u8], id: NodeId) {
        let (shard, hash) = self.place(path);
        self.shards[shard].insert_unique(spread(hash), Entry { id, hash }, |other| spread(other.hash));
    }

    pub fn remove(&mut self, path: &[u8], id: NodeId) {
        let (shard, hash) = self.place(path);
        let found = self.shards[shard].find_entry(spread(hash), |entry| entry.id == id);
        found.expect("a removed znode was in the index").remove();
    }
}

/// The tables look at the highest and the lowest bits.
#[inline]
fn spread(hash: u32) -> u64 {
    u64::from(hash).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

/// Whether the znode's full path is `path`: compares from the last component upwards.
fn is_at(slab: &Slab, mut id: NodeId, path: &[u8]) -> bool {
    let mut rest = path;
    while id != ROOT {
        let node = &slab[id];
        let name = node.name();
        let Some(head) = rest.strip_suffix(name) else { return false };
        let Some(head) = head.strip_suffix(b"/") else { return false };
        rest = head;
        id = node.parent;
    }
    rest.is_empty()
}

/// Appends the znode's full path (nothing for the root). Iterative: a path may have half a million components.
pub(super) fn write_path(slab: &Slab, id: NodeId, out: &mut Vec<u8>) {
    let mut len = 0;
    let mut at = id;
    while at != ROOT {
        len += 1 + slab[at].name().len();
        at = slab[at].parent;
    }
    let start = out.len();
    out.resize(start + len, b'/');
    let mut end = out.len();
    at = id;
    while at != ROOT {
        let name = slab[at].name();
        out[end - name.len()..end].copy_from_slice(name);
        end -= name.len() + 1;
        at = slab[at].parent;
    }
}
