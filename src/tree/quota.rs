//! Quotas: which subtrees have one, and the text of their limits and usage (`Quotas`, `StatsTrack`).

use super::{NodeId, QUOTA, Tree};
use crate::model::path;
use std::collections::{BTreeMap, BTreeSet};

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

/// The text of a limit or stats node. −1 means "no limit".
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    pub count: i64,
    pub bytes: i64,
    /// All other keys, hard limits among them: whatever is there stays.
    others: BTreeMap<String, i64>,
}

impl Limits {
    const NONE: Limits = Limits { count: -1, bytes: -1, others: BTreeMap::new() };

    pub fn count_hard(&self) -> i64 {
        self.others.get("countHardLimit").copied().unwrap_or(-1)
    }

    pub fn bytes_hard(&self) -> i64 {
        self.others.get("byteHardLimit").copied().unwrap_or(-1)
    }

    /// Reads `count=N,bytes=M=;byteHardLimit=X;countHardLimit=Y`. What does not parse counts as absent: a client may
    /// write any bytes into these znodes, and Java's exception here would stop its server.
    pub fn parse(text: Option<&[u8]>) -> Limits {
        let mut limits = Limits::NONE;
        let text = String::from_utf8_lossy(text.unwrap_or_default()).into_owned();
        for pair in text.split([',', ';']) {
            let mut parts = pair.split('=');
            let (Some(key), Some(value)) = (parts.next(), parts.next()) else { continue };
            // Nothing between two '=' is "no limit"; nothing at the end is no value, as Java splits.
            let value = match value {
                "" if parts.all(str::is_empty) => continue,
                "" => Ok(-1),
                value => value.parse(),
            };
            match (key, value) {
                ("count", value) => limits.count = value.unwrap_or(-1),
                ("bytes", value) => limits.bytes = value.unwrap_or(-1),
                (_, Ok(value)) => {
                    limits.others.insert(key.to_string(), value);
                }
                (_, Err(_)) => {}
            }
        }
        limits
    }

    fn text(&self) -> String {
        let mut text = format!("count={},bytes={}", self.count, self.bytes);
        if !self.others.is_empty() {
            // The stray '=' keeps old parsers from reading on.
            text.push('=');
        }
        for (key, value) in &self.others {
            text.push_str(&format!(";{key}={value}"));
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

    /// After a load: finds all quotas and counts their usage from scratch.
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
            self.write_usage(id, &stat, &Limits { count, bytes, ..Limits::NONE });
        }
    }

    /// Adds a change below a quota to its usage: only the stats node's data changes, no version, no watch, no txn.
    pub(super) fn count_quota(&mut self, changed: &[u8], bytes: i64, count: i64) {
        let Some(prefix) = self.quotas.longest_prefix(changed) else { return };
        let stat = stat_path(prefix);
        let Some(id) = self.find(&stat) else { return };
        let mut usage = Limits::parse(self.data(id));
        // The text is the clients' to write: any number may be there.
        usage.count = usage.count.saturating_add(count);
        usage.bytes = usage.bytes.saturating_add(bytes);
        self.write_usage(id, &stat, &usage);
    }

    fn write_usage(&mut self, id: NodeId, path: &[u8], usage: &Limits) {
        self.replace_data(id, path, Some(usage.text().as_bytes()), |_| {});
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_survive_javas_text_form() {
        for text in [
            "count=1,bytes=-1",
            "count=-1,bytes=5=;byteHardLimit=9;countHardLimit=3",
            "count=1,bytes=2=;byteHardLimit=-1;unknown=7",
        ] {
            assert_eq!(Limits::parse(Some(text.as_bytes())).text(), text);
        }
        let mixed = Limits::parse(Some(b"z=1;bytes=,countHardLimit=4,a==2;;count=3"));
        assert_eq!(mixed.text(), "count=3,bytes=-1=;a=-1;countHardLimit=4;z=1");
        assert_eq!((mixed.count_hard(), mixed.bytes_hard()), (4, -1));
        assert_eq!(Limits::parse(None), Limits::NONE);
        assert_eq!(Limits::parse(Some(b"count=x,\xff=,,;=")), Limits::NONE);
    }
}
