//! Reads that may take more work than one hold of the database's lock has room for: what is there of the answer, and where
//! to continue. What they show is what the tree was at one moment, at the end of the work.

use super::TOO_LARGE;
use crate::jute::records::SetWatches2;
use crate::model::{Budget, ErrorCode};
use crate::tree::{Database, ListVersion, Mark, NodeId};
use bytes::{BufMut, Bytes, BytesMut};
use std::collections::VecDeque;

/// Bytes that an answer may have. More names than that have no use: hardly a client takes such a frame, and
/// whoever asks for it again and again would have the server's memory.
pub const MAX_ANSWER: usize = 128 << 20;

/// A read that continues under the next hold.
#[derive(Debug)]
pub struct Reading {
    pub(super) answer: BytesMut,
    pub(super) progress: Progress,
}

impl Reading {
    /// Bytes that are kept for it.
    pub fn kept(&self) -> usize {
        let asked = if let Progress::Watches(watching) = &self.progress { watching.bytes } else { 0 };
        self.answer.len() + asked
    }
}

/// Why an answer ends before it is whole.
#[derive(Debug)]
pub(super) enum Stop {
    Refused(ErrorCode),
    Unfinished(Progress),
}

impl From<ErrorCode> for Stop {
    fn from(code: ErrorCode) -> Self {
        Self::Refused(code)
    }
}

#[derive(Debug)]
pub(super) enum Progress {
    Names(Names),
    Count(Count),
    Watches(Box<Watching>),
}

/// Steps of one hold for a read that began again `tries` times, as what it had looked at changed meanwhile: where changes come
/// faster than it ends, it gets there in longer holds.
fn share(tries: u32) -> usize {
    Budget::HOLD << (2 * tries).min(20)
}

/// A list of names that is written one by one.
#[derive(Debug)]
pub(super) struct Names {
    version: ListVersion,
    /// The last one that was looked at.
    at: Option<NodeId>,
    count: i32,
    tries: u32,
}

impl Names {
    /// Writes the count and the names of what `rest` finds, to the end of `out`; `name` writes one, or leaves it out. What was
    /// written from `body_at` on in an earlier hold stays if the list is what it was then.
    pub fn write<I: Iterator<Item = NodeId>>(
        version: ListVersion,
        progress: Option<Progress>,
        rest: impl FnOnce(Option<NodeId>) -> I,
        name: impl Fn(NodeId, &mut BytesMut) -> bool,
        work: &Budget,
        out: &mut BytesMut,
        body_at: usize,
    ) -> Result<(), Stop> {
        let mut names = match progress {
            Some(Progress::Names(names)) if names.version == version => names,
            old => {
                let tries = if let Some(Progress::Names(old)) = old { old.tries + 1 } else { 0 };
                out.truncate(body_at);
                out.put_i32(0);
                Self { version, at: None, count: 0, tries }
            }
        };
        let share = share(names.tries);
        for id in rest(names.at) {
            if work.spent() >= share {
                return Err(Stop::Unfinished(Progress::Names(names)));
            }
            names.at = Some(id);
            let len = out.len();
            names.count += i32::from(name(id, out));
            work.spend(1);
            work.copied(out.len() - len);
            if out.len() - body_at > MAX_ANSWER {
                return Err(TOO_LARGE.into());
            }
        }
        out[body_at..body_at + 4].copy_from_slice(&names.count.to_be_bytes());
        Ok(())
    }
}

/// A count of all that is below a znode. Like Java's, it is of no single moment where znodes come and go meanwhile.
#[derive(Debug)]
pub(super) struct Count {
    top: Mark,
    /// The last one that was counted, or the top.
    at: Mark,
    total: usize,
    tries: u32,
}

impl Count {
    pub fn below(
        db: &Database,
        top: NodeId,
        progress: Option<Progress>,
        work: &Budget,
    ) -> Result<usize, Stop> {
        let top = db.mark(top);
        let mut count = match progress {
            Some(Progress::Count(count)) if count.top == top && db.is_there(count.at) => count,
            old => {
                let tries = if let Some(Progress::Count(old)) = old { old.tries + 1 } else { 0 };
                Self { top, at: top, total: 0, tries }
            }
        };
        let share = share(count.tries);
        let mut at = count.at.id();
        while let Some(next) = db.tree.next_below(top.id(), at) {
            if work.spent() >= share {
                count.at = db.mark(at);
                return Err(Stop::Unfinished(Progress::Count(count)));
            }
            work.spend(1);
            count.total += 1;
            at = next;
        }
        Ok(count.total)
    }
}

/// The lists of a setWatches, in Java's order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum WatchList {
    Data,
    Exist,
    Child,
    Persistent,
    Recursive,
}

/// A setWatches of which some paths are left. What is done for one path does not depend on the others.
#[derive(Debug)]
pub(super) struct Watching {
    pub since: i64,
    lists: VecDeque<(WatchList, Option<std::vec::IntoIter<Option<Bytes>>>)>,
    /// What the lists take: a short path takes many times its length.
    bytes: usize,
}

impl Watching {
    pub fn new(asked: SetWatches2<Bytes>) -> Self {
        let lists = [
            (WatchList::Data, asked.data),
            (WatchList::Exist, asked.exist),
            (WatchList::Child, asked.child),
            (WatchList::Persistent, asked.persistent),
            (WatchList::Recursive, asked.persistent_recursive),
        ];
        let paths = lists.iter().filter_map(|(_, paths)| paths.as_ref()).flatten();
        let len = |path: &Option<Bytes>| size_of_val(path) + path.as_ref().map_or(0, Bytes::len);
        let bytes = paths.map(len).sum();
        let lists = lists.into_iter().map(|(list, paths)| (list, paths.map(Vec::into_iter))).collect();
        Self { since: asked.relative_zxid, lists, bytes }
    }

    /// The next path. An error: a list is null, over which Java stumbles only when it comes to it.
    pub fn next(&mut self) -> Option<Result<(WatchList, Option<Bytes>), ErrorCode>> {
        while let Some((list, paths)) = self.lists.front_mut() {
            let Some(paths) = paths else { return Some(Err(ErrorCode::MarshallingError)) };
            if let Some(path) = paths.next() {
                return Some(Ok((*list, path)));
            }
            self.lists.pop_front();
        }
        None
    }
}
