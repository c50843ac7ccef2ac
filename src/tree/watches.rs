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

/// Per path the connections that watch it, in order, each with the bits of its modes.
#[derive(Debug, Default)]
struct Table {
    paths: HashMap<Box<[u8]>, BTreeMap<ConnId, u8>>,
    /// (connection, path) pairs.
    pairs: usize,
}

impl Table {
    fn modes(&self, path: &[u8], watcher: ConnId) -> u8 {
        self.paths.get(path).and_then(|watchers| watchers.get(&watcher)).copied().unwrap_or(0)
    }

    /// Whether the mode is new.
    fn add(&mut self, path: &[u8], watcher: ConnId, mode: WatchMode) -> bool {
        let watchers = match self.paths.get_mut(path) {
            Some(watchers) => watchers,
            None => self.paths.entry(path.into()).or_default(),
        };
        let modes = watchers.entry(watcher).or_default();
        if *modes == 0 {
            self.pairs += 1;
        }
        let is_new = *modes & mode as u8 == 0;
        *modes |= mode as u8;
        is_new
    }

    /// Takes modes off, and tells which of them were there.
    fn take(&mut self, path: &[u8], watcher: ConnId, modes: u8) -> u8 {
        let Some(watchers) = self.paths.get_mut(path) else { return 0 };
        let Some(have) = watchers.get_mut(&watcher) else { return 0 };
        let taken = *have & modes;
        *have &= !modes;
        if *have == 0 {
            self.pairs -= 1;
            watchers.remove(&watcher);
            if watchers.is_empty() {
                self.paths.remove(path);
            }
        }
        taken
    }

    /// Uses the standard watches on the path up. Returns all connections that have watched it, in order, and those of them that
    /// do so no more.
    fn use_up(&mut self, path: &[u8]) -> (Vec<ConnId>, Vec<ConnId>) {
        let (mut all, mut gone) = (Vec::new(), Vec::new());
        let Some(watchers) = self.paths.get_mut(path) else { return (all, gone) };
        watchers.retain(|watcher, modes| {
            all.push(*watcher);
            *modes &= !(WatchMode::Standard as u8);
            if *modes == 0 {
                gone.push(*watcher);
            }
            *modes != 0
        });
        self.pairs -= gone.len();
        if watchers.is_empty() {
            self.paths.remove(path);
        }
        (all, gone)
    }
}

#[derive(Debug, Default)]
struct Watcher {
    /// The connection's ids, for the ACL check at delivery.
    auth: Arc<[Id<Bytes>]>,
    /// Every path on which it has a watch in either table.
    paths: HashSet<Box<[u8]>>,
    /// The memory that these take, about.
    bytes: usize,
}

/// The memory that a connection's watches on a path take, about: the path here and there, and the tables' entries.
fn weight(path: &[u8]) -> usize {
    2 * path.len() + 320
}

/// A connection that is gone, and the paths that it has watched: some are still to be forgotten.
#[derive(Debug)]
pub struct Departed {
    watcher: ConnId,
    paths: std::collections::hash_set::IntoIter<Box<[u8]>>,
}

#[derive(Debug, Default)]
pub struct Watches {
    data: Table,
    child: Table,
    watchers: HashMap<ConnId, Watcher>,
    /// The memory that all take, about.
    bytes: usize,
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
            entry.bytes += weight(path);
            self.bytes += weight(path);
        }
        if self.table(kind).add(path, watcher, mode) && mode == WatchMode::Recursive {
            self.recursive += 1;
        }
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
        table.modes(path, watcher) & modes != 0
    }

    /// Takes `modes` (bits) of the connection off `path` in the table. Whether there was any.
    pub fn remove(&mut self, watcher: ConnId, path: &[u8], kind: WatchKind, modes: u8) -> bool {
        let taken = self.table(kind).take(path, watcher, modes);
        if taken & WatchMode::Recursive as u8 != 0 {
            self.recursive -= 1;
        }
        if taken != 0 {
            self.forget_unwatched(&[watcher], path);
        }
        taken != 0
    }

    fn table(&mut self, kind: WatchKind) -> &mut Table {
        match kind {
            WatchKind::Data => &mut self.data,
            WatchKind::Child => &mut self.child,
        }
    }

    /// The connection is gone and hears nothing any more. What it watched must be forgotten, a share at a time: until then its
    /// entries count.
    pub fn depart(&mut self, watcher: ConnId) -> Option<Departed> {
        let Watcher { paths, .. } = self.watchers.remove(&watcher)?;
        Some(Departed { watcher, paths: paths.into_iter() })
    }

    /// Forgets what a connection that is gone has watched, `most` paths at the most. Returns how many they were: fewer than
    /// that, once nothing is left.
    pub fn forget(&mut self, departed: &mut Departed, most: usize) -> usize {
        let (watcher, before) = (departed.watcher, departed.paths.len());
        for path in departed.paths.by_ref().take(most) {
            self.bytes -= weight(&path);
            for table in [&mut self.data, &mut self.child] {
                if table.take(&path, watcher, u8::MAX) & WatchMode::Recursive as u8 != 0 {
                    self.recursive -= 1;
                }
            }
        }
        before - departed.paths.len()
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

    /// `told` have heard of it already. Both they and those that this returns are in order, so one walk finds who is in both.
    fn trigger(
        &mut self,
        kind: WatchKind,
        event: &Event,
        told: &[ConnId],
        may_read: &dyn Fn(&AclList, &[Id<Bytes>]) -> bool,
        out: &mut Vec<WatchEvent>,
    ) -> Vec<ConnId> {
        let (watchers, used_up) = self.collect(kind, &event.path);
        let mut told = told.iter().peekable();
        for watcher in &watchers {
            while told.next_if(|before| *before < watcher).is_some() {}
            if told.peek() == Some(&watcher) {
                continue;
            }
            if let Some(entry) = self.watchers.get(watcher)
                && may_read(&event.acl, &entry.auth)
            {
                out.push(WatchEvent { conn: *watcher, kind: event.kind, path: event.path.clone() });
            }
        }
        self.forget_unwatched(&used_up, &event.path);
        watchers
    }

    /// The connections to tell, in order and each once, and those of them that have no watch on the path itself in this table
    /// any more: standard ones are consumed. The connections' own entries are kept until they were told, because those hold
    /// the ids for the ACL check.
    fn collect(&mut self, kind: WatchKind, at: &[u8]) -> (Vec<ConnId>, Vec<ConnId>) {
        let (mut to_tell, used_up) = self.table(kind).use_up(at);
        if kind == WatchKind::Data && self.recursive > 0 {
            let of_itself = to_tell.len();
            let mut above = at;
            while above.len() > 1 {
                above = match path::parent(above) {
                    Some(b"") | None => b"/",
                    Some(parent) => parent,
                };
                for (watcher, modes) in self.data.paths.get(above).into_iter().flatten() {
                    if modes & WatchMode::Recursive as u8 != 0 {
                        to_tell.push(*watcher);
                    }
                }
            }
            if to_tell.len() > of_itself {
                // Few runs, each in order: this merges them.
                to_tell.sort();
                to_tell.dedup();
            }
        }
        (to_tell, used_up)
    }

    /// Forgets the path where a connection has no watch on it any more.
    fn forget_unwatched(&mut self, watchers: &[ConnId], path: &[u8]) {
        let tables = [self.data.paths.get(path), self.child.paths.get(path)];
        for watcher in watchers {
            if tables.iter().flatten().any(|table| table.contains_key(watcher)) {
                continue;
            }
            if let Some(entry) = self.watchers.get_mut(watcher) {
                if entry.paths.remove(path) {
                    entry.bytes -= weight(path);
                    self.bytes -= weight(path);
                }
                if entry.paths.is_empty() {
                    self.watchers.remove(watcher);
                }
            }
        }
    }

    /// The memory that all watches take, about.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// The same of one connection's.
    pub fn bytes_of(&self, watcher: ConnId) -> usize {
        self.watchers.get(&watcher).map_or(0, |entry| entry.bytes)
    }

    // Figures and dumps. Like Java's, they look at the data table.

    pub fn connections(&self) -> usize {
        self.by_connection().len()
    }

    pub fn paths(&self) -> usize {
        self.data.paths.len()
    }

    /// (connection, path) pairs of the data table.
    pub fn count(&self) -> usize {
        self.data.pairs
    }

    /// All pairs of both tables: the `watch_count` figure.
    pub fn total(&self) -> usize {
        self.data.pairs + self.child.pairs
    }

    #[expect(clippy::disallowed_methods, reason = "a word for operators, in any order")]
    pub fn by_path(&self) -> impl Iterator<Item = (&[u8], Vec<ConnId>)> {
        self.data.paths.iter().map(|(path, watchers)| (&path[..], watchers.keys().copied().collect()))
    }

    #[expect(clippy::iter_over_hash_type, reason = "the paths of one connection come in any order")]
    pub fn by_connection(&self) -> BTreeMap<ConnId, Vec<&[u8]>> {
        let mut all: BTreeMap<ConnId, Vec<&[u8]>> = BTreeMap::new();
        for (path, watchers) in &self.data.paths {
            for watcher in watchers.keys() {
                all.entry(*watcher).or_default().push(path);
            }
        }
        all
    }
}
