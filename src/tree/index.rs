//! Finds a znode by its full path without storing paths: a hash table of ids, sharded so that a growth moves little.

use super::node::{NodeId, ROOT, Slab};
use hashbrown::{DefaultHashBuilder, HashTable};
use std::cell::RefCell;
use std::hash::BuildHasher;

const SHARDS: usize = 256;

#[derive(Debug)]
pub(super) struct PathIndex {
    hasher: DefaultHashBuilder,
    shards: Vec<HashTable<u32>>,
}

impl PathIndex {
    pub fn new() -> Self {
        Self { hasher: DefaultHashBuilder::default(), shards: (0..SHARDS).map(|_| HashTable::new()).collect() }
    }

    #[inline]
    pub fn find(&self, slab: &Slab, path: &[u8]) -> Option<NodeId> {
        let hash = self.hasher.hash_one(path);
        self.shards[shard_of(hash)].find(hash, |id| is_at(slab, NodeId(*id), path)).map(|id| NodeId(*id))
    }

    /// `id` must be linked into the slab already, and not be in the index.
    pub fn insert(&mut self, slab: &Slab, path: &[u8], id: NodeId) {
        let hash = self.hasher.hash_one(path);
        let hasher = &self.hasher;
        let scratch = RefCell::new(Vec::new());
        self.shards[shard_of(hash)].insert_unique(hash, id.0, |other| {
            let mut scratch = scratch.borrow_mut();
            scratch.clear();
            write_path(slab, NodeId(*other), &mut scratch);
            hasher.hash_one(&scratch[..])
        });
    }

    pub fn remove(&mut self, path: &[u8], id: NodeId) {
        let hash = self.hasher.hash_one(path);
        let found = self.shards[shard_of(hash)].find_entry(hash, |other| *other == id.0);
        found.expect("a removed znode was in the index").remove();
    }
}

#[inline]
fn shard_of(hash: u64) -> usize {
    // The table itself uses the top 7 and the low bits.
    (hash >> 40) as usize % SHARDS
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
