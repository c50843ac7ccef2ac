//! Who is to hear of which change (`server/watch/WatchManager`, with the independent mode bits of 3.9).
//!
//! Watches belong to a connection. Two tables, data and child, hold per path the connections and their modes; a
//! reverse table per connection makes its end cheap.

use super::{AclList, Event, EventKind};
use crate::jute::records::Id;
use crate::model::{ConnId, path};
use bytes::Bytes;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

/// The two tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WatchKind {
    Data,
    Child,
}

/// The modes that one connection may have on one path, independent of each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WatchMode {
    /// One event, then gone.
    Standard = 1,
    Persistent = 2,
    /// Also for all znodes below; in the data table only, and never for ChildrenChanged.
    Recursive = 4,
}

/// One notification for one connection.
#[derive(Debug, Clone)]
pub struct WatchEvent {
    pub conn: ConnId,
    pub kind: EventKind,
    pub path: Bytes,
}

type Table = HashMap<Box<[u8]>, BTreeMap<ConnId, u8>>;

#[derive(Debug, Default)]
struct Watcher {
    /// The connection's ids, for the ACL check at delivery.
    auth: Arc<[Id<Bytes>]>,
    /// Every path on which it has a watch in either table.
    paths: HashSet<Box<[u8]>>,
}

#[derive(Debug, Default)]
pub struct Watches {
    data: Table,
    child: Table,
    watchers: HashMap<ConnId, Watcher>,
    /// How many (connection, path) pairs are recursive: none means no walk up the path.
    recursive: usize,
}

impl Watches {
    pub fn is_empty(&self) -> bool {
        self.watchers.is_empty()
    }

    pub fn add(
        &mut self,
        watcher: ConnId,
        auth: &Arc<[Id<Bytes>]>,
        path: &[u8],
        kind: WatchKind,
        mode: WatchMode,
    ) {
        let entry = self.watchers.entry(watcher).or_default();
        entry.auth = auth.clone();
        if !entry.paths.contains(path) {
            entry.paths.insert(path.into());
        }
        let table = match kind {
            WatchKind::Data => &mut self.data,
            WatchKind::Child => &mut self.child,
        };
        let modes = match table.get_mut(path) {
            Some(watchers) => watchers.entry(watcher).or_default(),
            None => table.entry(path.into()).or_default().entry(watcher).or_default(),
        };
        if mode == WatchMode::Recursive && *modes & WatchMode::Recursive as u8 == 0 {
            self.recursive += 1;
        }
        *modes |= mode as u8;
    }

    /// addWatch: mode 0 is in both tables, mode 1 in the data table.
    pub fn add_persistent(&mut self, watcher: ConnId, auth: &Arc<[Id<Bytes>]>, path: &[u8], recursive: bool) {
        if recursive {
            return self.add(watcher, auth, path, WatchKind::Data, WatchMode::Recursive);
        }
        self.add(watcher, auth, path, WatchKind::Data, WatchMode::Persistent);
        self.add(watcher, auth, path, WatchKind::Child, WatchMode::Persistent);
    }

    /// The connection authenticated once more: later events are filtered by the new ids.
    pub fn set_auth(&mut self, watcher: ConnId, auth: &Arc<[Id<Bytes>]>) {
        if let Some(entry) = self.watchers.get_mut(&watcher) {
            entry.auth = auth.clone();
        }
    }

    /// Whether the connection has a watch of one of `modes` (bits) on `path` in the table.
    pub fn has(&self, watcher: ConnId, path: &[u8], kind: WatchKind, modes: u8) -> bool {
        let table = match kind {
            WatchKind::Data => &self.data,
            WatchKind::Child => &self.child,
        };
        table.get(path).and_then(|watchers| watchers.get(&watcher)).is_some_and(|have| have & modes != 0)
    }

    /// Takes `modes` (bits) of the connection off `path` in the table. Whether there was any.
    pub fn remove(&mut self, watcher: ConnId, path: &[u8], kind: WatchKind, modes: u8) -> bool {
        let table = match kind {
            WatchKind::Data => &mut self.data,
            WatchKind::Child => &mut self.child,
        };
        let Some(watchers) = table.get_mut(path) else { return false };
        let Some(have) = watchers.get_mut(&watcher) else { return false };
        let removed = *have & modes;
        if removed & WatchMode::Recursive as u8 != 0 {
            self.recursive -= 1;
        }
        *have &= !modes;
        if *have == 0 {
            watchers.remove(&watcher);
            if watchers.is_empty() {
                table.remove(path);
            }
            self.forget_unwatched(watcher, path);
        }
        removed != 0
    }

    /// The connection is gone.
    #[expect(clippy::iter_over_hash_type, reason = "each path for itself")]
    pub fn remove_watcher(&mut self, watcher: ConnId) {
        let Some(entry) = self.watchers.remove(&watcher) else { return };
        for path in entry.paths {
            for table in [&mut self.data, &mut self.child] {
                let Some(watchers) = table.get_mut(&path) else { continue };
                if let Some(modes) = watchers.remove(&watcher)
                    && modes & WatchMode::Recursive as u8 != 0
                {
                    self.recursive -= 1;
                }
                if watchers.is_empty() {
                    table.remove(&path);
                }
            }
        }
    }

    /// Turns the changes of one transaction into notifications, in Java's order, and consumes one-shot watches.
    /// `may_read` is the ACL check at delivery: a connection without READ hears nothing, though its one-shot
    /// watch is consumed all the same.
    pub fn fire(
        &mut self,
        events: &[Event],
        may_read: &dyn Fn(&AclList, &[Id<Bytes>]) -> bool,
        out: &mut Vec<WatchEvent>,
    ) {
        for event in events {
            match event.kind {
                EventKind::Created | EventKind::DataChanged => {
                    self.trigger(WatchKind::Data, event, &[], may_read, out);
                }
                EventKind::Deleted => {
                    let told = self.trigger(WatchKind::Data, event, &[], may_read, out);
                    self.trigger(WatchKind::Child, event, &told, may_read, out);
                }
                EventKind::ChildrenChanged => {
                    self.trigger(WatchKind::Child, event, &[], may_read, out);
                }
            }
        }
    }

    fn trigger(
        &mut self,
        kind: WatchKind,
        event: &Event,
        suppress: &[ConnId],
        may_read: &dyn Fn(&AclList, &[Id<Bytes>]) -> bool,
        out: &mut Vec<WatchEvent>,
    ) -> Vec<ConnId> {
        let told = self.collect(kind, &event.path);
        for watcher in &told {
            if suppress.contains(watcher) {
                continue;
            }
            let Some(auth) = self.watchers.get(watcher).map(|entry| entry.auth.clone()) else { continue };
            if may_read(&event.acl, &auth) {
                out.push(WatchEvent { conn: *watcher, kind: event.kind, path: event.path.clone() });
            }
        }
        for watcher in &told {
            self.forget_unwatched(*watcher, &event.path);
        }
        told
    }

    /// The connections to tell, each once; standard watches on the path itself are consumed. The connections' own
    /// entries are kept until they were told, because those hold the ids for the ACL check.
    fn collect(&mut self, kind: WatchKind, at: &[u8]) -> Vec<ConnId> {
        let mut told = Vec::new();
        let table = match kind {
            WatchKind::Data => &mut self.data,
            WatchKind::Child => &mut self.child,
        };
        if let Some(watchers) = table.get_mut(at) {
            watchers.retain(|watcher, modes| {
                told.push(*watcher);
                *modes &= !(WatchMode::Standard as u8);
                *modes != 0
            });
            if watchers.is_empty() {
                table.remove(at);
            }
        }
        if kind == WatchKind::Data && self.recursive > 0 {
            let mut above = at;
            while above.len() > 1 {
                above = match path::parent(above) {
                    Some(b"") | None => b"/",
                    Some(parent) => parent,
                };
                for (watcher, modes) in table.get(above).into_iter().flatten() {
                    if modes & WatchMode::Recursive as u8 != 0 && !told.contains(watcher) {
                        told.push(*watcher);
                    }
                }
            }
        }
        told
    }

    fn forget_unwatched(&mut self, watcher: ConnId, path: &[u8]) {
        let watched = |table: &Table| table.get(path).is_some_and(|watchers| watchers.contains_key(&watcher));
        if watched(&self.data) || watched(&self.child) {
            return;
        }
        if let Some(entry) = self.watchers.get_mut(&watcher) {
            entry.paths.remove(path);
            if entry.paths.is_empty() {
                self.watchers.remove(&watcher);
            }
        }
    }

    // Figures and dumps. Like Java's, they look at the data table.

    pub fn connections(&self) -> usize {
        self.by_connection().len()
    }

    pub fn paths(&self) -> usize {
        self.data.len()
    }

    /// (connection, path) pairs of the data table.
    #[expect(clippy::disallowed_methods, reason = "a sum")]
    pub fn count(&self) -> usize {
        self.data.values().map(BTreeMap::len).sum()
    }

    /// All pairs of both tables: the `watch_count` figure.
    #[expect(clippy::disallowed_methods, reason = "a sum")]
    pub fn total(&self) -> usize {
        self.count() + self.child.values().map(BTreeMap::len).sum::<usize>()
    }

    #[expect(clippy::disallowed_methods, reason = "a word for operators, in any order")]
    pub fn by_path(&self) -> impl Iterator<Item = (&[u8], Vec<ConnId>)> {
        self.data.iter().map(|(path, watchers)| (&path[..], watchers.keys().copied().collect()))
    }

    #[expect(clippy::iter_over_hash_type, reason = "the paths of one connection come in any order")]
    pub fn by_connection(&self) -> BTreeMap<ConnId, Vec<&[u8]>> {
        let mut all: BTreeMap<ConnId, Vec<&[u8]>> = BTreeMap::new();
        for (path, watchers) in &self.data {
            for watcher in watchers.keys() {
                all.entry(*watcher).or_default().push(path);
            }
        }
        all
    }
}
