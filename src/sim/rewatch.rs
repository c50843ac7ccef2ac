//! Watches over more than one connection: a client sets those again that have not fired (SetWatches2), and hears what it missed.

use super::history::Asked;
use super::model::{Happened, Model};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// What a client asks for once its session goes on over another connection.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SetAgain {
    /// The last zxid that it was told.
    pub since: i64,
    /// Of znodes that are there.
    pub data: Vec<String>,
    /// Of znodes that are not.
    pub exist: Vec<String>,
    pub child: Vec<String>,
    pub persistent: Vec<String>,
    pub recursive: Vec<String>,
}

impl SetAgain {
    /// In the order of the request.
    pub fn lists(&self) -> [&[String]; 5] {
        [&self.data, &self.exist, &self.child, &self.persistent, &self.recursive]
    }
}

/// The watches that a client has set and that have not fired.
#[derive(Debug, Default)]
pub struct Armed {
    data: BTreeSet<String>,
    exist: BTreeSet<String>,
    child: BTreeSet<String>,
    persistent: BTreeSet<String>,
    recursive: BTreeSet<String>,
    /// The connection knows of them.
    is_set: bool,
}

impl Armed {
    /// Its session is over.
    pub fn clear(&mut self) {
        *self = Self::default();
    }

    /// Another connection, which knows of nothing.
    pub fn connected(&mut self) {
        self.is_set = false;
    }

    /// What to ask for; nothing, if that is done already, or there is none.
    pub fn ask(&mut self, since: i64) -> Option<SetAgain> {
        if std::mem::replace(&mut self.is_set, true) {
            return None;
        }
        let of = |paths: &BTreeSet<String>| paths.iter().cloned().collect::<Vec<_>>();
        let (data, exist, child) = (of(&self.data), of(&self.exist), of(&self.child));
        let (persistent, recursive) = (of(&self.persistent), of(&self.recursive));
        let asked = SetAgain { since, data, exist, child, persistent, recursive };
        asked.lists().iter().any(|list| !list.is_empty()).then_some(asked)
    }

    pub fn answered(&mut self, asked: &Asked, err: i32) {
        match asked {
            Asked::Get { path, watch: true } if err == 0 => self.data.insert(path.clone()),
            Asked::Exists { path, watch: true } if err == 0 => self.data.insert(path.clone()),
            Asked::Exists { path, watch: true } if err == -101 => self.exist.insert(path.clone()),
            Asked::Children { path, watch: true } if err == 0 => self.child.insert(path.clone()),
            Asked::AddWatch { path, recursive: true } if err == 0 => self.recursive.insert(path.clone()),
            Asked::AddWatch { path, recursive: false } if err == 0 => self.persistent.insert(path.clone()),
            _ => false,
        };
    }

    pub fn heard(&mut self, kind: i32, path: &str) {
        if kind != CHILDREN {
            self.data.remove(path);
            self.exist.remove(path);
        }
        if kind == CHILDREN || kind == DELETED {
            self.child.remove(path);
        }
    }
}

// Types of events.
const CREATED: i32 = 1;
const DELETED: i32 = 2;
const CHANGED: i32 = 3;
const CHILDREN: i32 = 4;

/// The type of an event, and its path.
type Missed = (i32, String);
/// Whether a watch is of children, and its path.
type Waiting = (bool, String);

/// What must come before the answer to such a request, where the server had everything up to `zxid`: one event for each watch whose
/// znode is not as it was. And the watches that wait still, by table (data or children) and path.
pub fn missed(asked: &SetAgain, zxid: i64, model: &Model) -> (Vec<Missed>, Vec<Waiting>) {
    let none = Vec::new();
    let (mut events, mut waiting) = (Vec::new(), Vec::new());
    for (list, paths) in asked.lists()[..3].iter().enumerate() {
        for path in *paths {
            let happened = model.events.get(path).unwrap_or(&none);
            let before = &happened[..happened.partition_point(|(at, _)| *at <= zxid)];
            let is_there = path == "/"
                || before.iter().rev().find_map(|(_, what)| match what {
                    Happened::Created => Some(true),
                    Happened::Deleted => Some(false),
                    Happened::Changed | Happened::Children => None,
                }) == Some(true);
            let since = before.iter().filter(|(at, _)| *at > asked.since);
            let is_other = |children: bool| {
                since.clone().any(|(_, what)| match what {
                    Happened::Created => true,
                    Happened::Deleted => false,
                    Happened::Changed => !children,
                    Happened::Children => children,
                })
            };
            let event = match list {
                0 | 2 if !is_there => Some(DELETED),
                0 => is_other(false).then_some(CHANGED),
                1 => is_there.then_some(CREATED),
                _ => is_other(true).then_some(CHILDREN),
            };
            match event {
                Some(kind) => events.push((kind, path.clone())),
                None => waiting.push((list == 2, path.clone())),
            }
        }
    }
    (events, waiting)
}

/// Watches that a connection has asked for again, and what it has heard of them before the answer.
#[derive(Debug, Default)]
pub struct Asking(VecDeque<(SetAgain, Counts)>);

/// How often each came.
type Counts = BTreeMap<Missed, usize>;

impl Asking {
    pub fn begin(&mut self, asked: &SetAgain) {
        self.0.push_back((asked.clone(), BTreeMap::new()));
    }

    /// An event without a zxid.
    pub fn on_event(&mut self, kind: i32, path: &str) -> Result<(), String> {
        let (_, heard) =
            self.0.front_mut().ok_or("an event without a zxid, and no watches were set again")?;
        *heard.entry((kind, path.into())).or_default() += 1;
        Ok(())
    }

    /// They are set. Returns what was asked for, and those that wait still.
    pub fn end(&mut self, zxid: i64, model: &Model) -> Result<(SetAgain, Vec<Waiting>), String> {
        let (asked, heard) = self.0.pop_front().ok_or("watches are set again, and nobody asked for it")?;
        let (events, waiting) = missed(&asked, zxid, model);
        let mut due = Counts::new();
        for event in events {
            *due.entry(event).or_default() += 1;
        }
        if heard == due {
            return Ok((asked, waiting));
        }
        Err(format!("watches set again at {zxid:#x} ({asked:?}): heard {heard:?}, and due was {due:?}"))
    }
}
