//! Quotas: which subtrees have one, and the text of their limits and usage (`Quotas`, `StatsTrack`).

use super::{NodeId, QUOTA, Tree};
use crate::model::path;
use std::collections::BTreeSet;

pub(super) const LIMIT_NODE: &[u8] = b"zookeeper_limits";
pub(super) const STAT_NODE: &[u8] = b"zookeeper_stats";

/// The paths that have a limit node (Java's path trie).
#[derive(Debug, Default)]
pub(super) struct Quotas {
    paths: BTreeSet<Vec<u8>>,
}

impl Quotas {
    pub fn remove(&mut self, path: &[u8]) {
        self.paths.remove(path);
    }

    /// The longest path with a quota that is `path` or an ancestor of it. A quota on `/` is ignored, as in Java.
    pub fn longest_prefix<'p>(&self, path: &'p [u8]) -> Option<&'p [u8]> {
        if self.paths.is_empty() {
            return None;
        }
        let mut at = path;
        while !at.is_empty() && at != b"/" {
            if self.paths.contains(at) {
                return Some(at);
            }
            at = path::parent(at)?;
        }
        None
    }
}

pub(super) fn limit_path(quota_path: &[u8]) -> Vec<u8> {
    [QUOTA, quota_path, b"/", LIMIT_NODE].concat()
}

pub(super) fn stat_path(quota_path: &[u8]) -> Vec<u8> {
    [QUOTA, quota_path, b"/", STAT_NODE].concat()
}

/// The text of a limit or stats node. −1 stands for "no limit".
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    pub count: i64,
    pub bytes: i64,
    pub count_hard: i64,
    pub bytes_hard: i64,
}

impl Limits {
    const NONE: Limits = Limits { count: -1, bytes: -1, count_hard: -1, bytes_hard: -1 };

    /// Reads `count=N,bytes=M=;byteHardLimit=X;countHardLimit=Y`. What does not parse counts as absent: a client may
    /// write any bytes into these znodes, and Java's exception here would stop its server.
    pub fn parse(text: Option<&[u8]>) -> Limits {
        let mut limits = Limits::NONE;
        let text = String::from_utf8_lossy(text.unwrap_or_default()).into_owned();
        for pair in text.split([',', ';']) {
            let mut parts = pair.split('=');
            let (Some(key), Some(value)) = (parts.next(), parts.next()) else { continue };
            let value = value.parse().unwrap_or(-1);
            match key {
                "count" => limits.count = value,
                "bytes" => limits.bytes = value,
                "countHardLimit" => limits.count_hard = value,
                "byteHardLimit" => limits.bytes_hard = value,
                _ => {}
            }
        }
        limits
    }

    fn text(self) -> String {
        let mut text = format!("count={},bytes={}", self.count, self.bytes);
        if self.bytes_hard != -1 || self.count_hard != -1 {
            // The stray '=' keeps old parsers from reading on.
            text.push('=');
            if self.bytes_hard != -1 {
                text.push_str(&format!(";byteHardLimit={}", self.bytes_hard));
            }
            if self.count_hard != -1 {
                text.push_str(&format!(";countHardLimit={}", self.count_hard));
            }
        }
        text
    }
}

impl Tree {
    /// A new limit node starts a quota; a new stats node gets the usage counted from the subtree.
    pub(super) fn note_quota_node(&mut self, node_path: &[u8]) {
        let Some(parent) = path::parent(node_path) else { return };
        let Some(quota_path) = parent.strip_prefix(QUOTA) else { return };
        match path::name(node_path) {
            LIMIT_NODE => {
                self.quotas.paths.insert(quota_path.to_vec());
            }
            STAT_NODE => self.recount_quota(quota_path),
            _ => {}
        }
    }

    /// After a load: finds all quotas and counts their usage anew.
    pub(super) fn rebuild_quotas(&mut self) {
        let Some(top) = self.find(QUOTA) else { return };
        let limits: Vec<_> = self.subtree(top).filter(|id| self.slab[*id].name() == LIMIT_NODE).collect();
        for id in limits {
            let limit = self.path(id);
            let parent = path::parent(&limit).expect("a znode's path has a '/'");
            let quota_path = parent[QUOTA.len()..].to_vec();
            self.recount_quota(&quota_path);
            self.quotas.paths.insert(quota_path);
        }
    }

    fn recount_quota(&mut self, quota_path: &[u8]) {
        let (mut count, mut bytes) = (0, 0);
        if let Some(top) = self.find(quota_path) {
            for id in self.subtree(top) {
                count += 1;
                bytes += self.slab[id].data_len() as i64;
            }
        }
        let stat = stat_path(quota_path);
        if let Some(id) = self.find(&stat) {
            self.write_usage(id, &stat, Limits { count, bytes, ..Limits::NONE });
        }
    }

    /// Adds a change below a quota to its usage: only the stats node's data changes, no version, no watch, no txn.
    pub(super) fn count_quota(&mut self, changed: &[u8], bytes: i64, count: i64) {
        let Some(prefix) = self.quotas.longest_prefix(changed) else { return };
        let stat = stat_path(prefix);
        let Some(id) = self.find(&stat) else { return };
        let mut usage = Limits::parse(self.data(id));
        // The text is the clients' to write: any number may stand there.
        usage.count = usage.count.saturating_add(count);
        usage.bytes = usage.bytes.saturating_add(bytes);
        self.write_usage(id, &stat, usage);
    }

    fn write_usage(&mut self, id: NodeId, path: &[u8], usage: Limits) {
        self.replace_data(id, path, Some(usage.text().as_bytes()), |_| {});
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_survive_javas_text_form() {
        for text in ["count=1,bytes=-1", "count=-1,bytes=5=;byteHardLimit=9;countHardLimit=3"] {
            assert_eq!(Limits::parse(Some(text.as_bytes())).text(), text);
        }
        assert_eq!(Limits::parse(None), Limits::NONE);
        assert_eq!(Limits::parse(Some(b"count=x,\xff=,,;=")), Limits::NONE);
    }
}
