//! What a learner is sent out of files, in pieces that the link takes one by one: the newest snapshot behind a SNAP
//! packet, or the log's transactions as PROPOSAL and COMMIT. Nothing of it is held in memory as a whole.

use crate::jute::put_bytes;
use crate::model::owner::OwnerRules;
use crate::model::{Place, TxnMark, Zxid};
use crate::replica::{Feed, Located, Reader};
use crate::storage::{Dirs, Disk, LogCursor, SnapshotReader, StorageError, newest_snapshots};
use crate::tree::{LoadError, Loader};
use crate::wire::quorum::{FromLeader, SIGNATURE};
use bytes::{BufMut, BytesMut};
use parking_lot::Mutex;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

/// A log of this many bytes is sent rather than a snapshot, however small that is.
const ALWAYS_DIFF: u64 = 64 << 20;
/// A learner that is behind is fed the log until what was committed meanwhile fits into this many pieces. A feed that began again
/// would read the file from its beginning to find the place, and more would be committed meanwhile.
const FEW_PIECES: usize = 4;

/// Where to read, and by which rule to choose between log and snapshot.
#[derive(Clone)]
pub struct Files {
    pub disk: Arc<dyn Disk>,
    pub dirs: Dirs,
    pub owners: OwnerRules,
    /// Log bytes for each byte of the newest snapshot up to which the log is sent (`snapshotSizeFactor`).
    pub size_factor: f64,
    /// Target size of one piece, in bytes.
    pub piece: usize,
    /// The last transaction that this server knows to be committed.
    pub committed: Arc<AtomicI64>,
    /// Snapshots that were found damaged while they were sent: others go first.
    pub damaged: Arc<Mutex<BTreeSet<Zxid>>>,
}

/// What comes next.
#[derive(Debug, PartialEq)]
pub enum Fed {
    /// A piece was written; call again.
    More,
    /// The learner has everything up to here.
    Upto(Zxid),
    /// The answer to [`Feed::Locate`].
    Located(Located),
}

/// Why a learner cannot be fed: it must begin again.
#[derive(Debug, thiserror::Error)]
pub enum FeedError {
    /// A file can't be read, or is damaged.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// A snapshot has the right checksums, and what it holds is no database.
    #[error("the snapshot of {zxid}: {wrong}")]
    Content { zxid: Zxid, wrong: LoadError },
    /// The log does not reach back so far, or not any more.
    #[error("the log has no transaction {0} any more")]
    NotInLog(Zxid),
    /// No snapshot was ever written here.
    #[error("there is no snapshot")]
    NoSnapshot,
}

/// How far a feed of the log is.
struct LogFeed {
    cursor: LogCursor,
    upto: Zxid,
    sent: Zxid,
    to: Reader,
    /// Bytes since `upto` was moved.
    bytes: usize,
}

pub struct Feeder {
    files: Files,
    work: Work,
}

enum Work {
    Locate(Zxid),
    OpenLog { after: Zxid, upto: Zxid, to: Reader },
    Log(Box<LogFeed>),
    OpenSnapshot(Option<TxnMark>),
    Snapshot { reader: Box<SnapshotReader>, end: Box<Loader>, zxid: Zxid },
    Done,
}

impl Feeder {
    pub fn new(files: Files, feed: Feed) -> Self {
        let work = match feed {
            Feed::Locate(zxid) => Work::Locate(zxid),
            Feed::Log { after, upto, to } => Work::OpenLog { after, upto, to },
            Feed::Snapshot { mark } => Work::OpenSnapshot(mark),
        };
        Self { files, work }
    }

    /// Appends the next piece to `out`. An error ends the feed: the learner must begin again.
    pub fn next(&mut self, out: &mut BytesMut) -> Result<Fed, FeedError> {
        match std::mem::replace(&mut self.work, Work::Done) {
            Work::Locate(zxid) => self.locate(zxid).map(Fed::Located),
            Work::OpenLog { after, upto, to } => {
                let Files { disk, dirs, .. } = &self.files;
                let (cursor, place) = LogCursor::seek(disk.clone(), dirs, after)?;
                if place != Place::Within {
                    return Err(FeedError::NotInLog(after));
                }
                self.work = Work::Log(Box::new(LogFeed { cursor, upto, sent: after, to, bytes: 0 }));
                Ok(Fed::More)
            }
            Work::Log(feed) => self.log(feed, out),
            Work::OpenSnapshot(mark) => self.open_snapshot(mark, out),
            Work::Snapshot { reader, end, zxid } => {
                let fed = self.snapshot(reader, end, zxid, out);
                if fed.is_err() {
                    self.files.damaged.lock().insert(zxid);
                }
                fed
            }
            Work::Done => unreachable!("a feed that has ended is not asked again"),
        }
    }

    fn locate(&self, zxid: Zxid) -> Result<Located, FeedError> {
        let Files { disk, dirs, size_factor, .. } = &self.files;
        let (cursor, place) = LogCursor::seek(disk.clone(), dirs, zxid)?;
        let mark = cursor.sought().and_then(TxnMark::of);
        let ahead = cursor.bytes_ahead()?;
        let newest = newest_snapshots(&**disk, dirs)?;
        let snapshot = newest.first().and_then(|(_, path)| disk.open(path).ok()).map_or(0, |file| file.len());
        let is_far = ahead > ALWAYS_DIFF && ahead as f64 > snapshot as f64 * size_factor;
        Ok(Located { place, mark, is_far })
    }

    fn log(&mut self, mut feed: Box<LogFeed>, out: &mut BytesMut) -> Result<Fed, FeedError> {
        let start = out.len();
        while feed.sent < feed.upto && out.len() - start < self.files.piece {
            let Some(record) = feed.cursor.next()? else {
                // What opens an epoch is in no log, and all before it was on disk first. Otherwise the log thread is
                // behind: what others have committed is not in the file yet.
                return Ok(Fed::Upto(if feed.upto.counter() == 0 { feed.upto } else { feed.sent }));
            };
            let zxid = record.zxid;
            if zxid > feed.upto {
                return Ok(Fed::Upto(feed.upto));
            }
            let body = record.body;
            match feed.to {
                Reader::Newcomer | Reader::Follower => {
                    FromLeader::Proposal { zxid, body }.encode(out);
                    FromLeader::Commit(zxid).encode(out);
                }
                Reader::Observer => FromLeader::Inform { zxid, body }.encode(out),
            }
            feed.sent = zxid;
        }
        feed.bytes += out.len() - start;
        if feed.sent >= feed.upto {
            if feed.to == Reader::Newcomer || feed.bytes <= FEW_PIECES * self.files.piece {
                return Ok(Fed::Upto(feed.sent));
            }
            feed.bytes = 0;
            feed.upto = feed.upto.max(Zxid(self.files.committed.load(Ordering::Acquire)));
        }
        self.work = Work::Log(feed);
        Ok(Fed::More)
    }

    fn open_snapshot(&mut self, mark: Option<TxnMark>, out: &mut BytesMut) -> Result<Fed, FeedError> {
        let Files { disk, dirs, owners, .. } = &self.files;
        let mut why = FeedError::NoSnapshot;
        let mut snapshots = newest_snapshots(&**disk, dirs)?;
        // The order of the others stays.
        snapshots.sort_by_key(|(zxid, _)| self.files.damaged.lock().contains(zxid));
        for (zxid, path) in snapshots {
            match SnapshotReader::open(&**disk, &path) {
                Ok(reader) => {
                    FromLeader::Snap(zxid, mark).encode(out);
                    let end = Box::new(Loader::dry(*owners));
                    self.work = Work::Snapshot { reader: Box::new(reader), end, zxid };
                    return Ok(Fed::More);
                }
                Err(error) => why = error.into(),
            }
        }
        Err(why)
    }

    /// The body goes out as it is; where it ends is found by reading along. Its checksums are looked at before the
    /// signature says that it is whole.
    fn snapshot(
        &mut self,
        mut reader: Box<SnapshotReader>,
        mut end: Box<Loader>,
        zxid: Zxid,
        out: &mut BytesMut,
    ) -> Result<Fed, FeedError> {
        let start = out.len();
        while !end.is_done() && out.len() - start < self.files.piece {
            let mut wrong = None;
            let read = reader.with(&mut |window| match end.feed(window) {
                Ok(0) if !end.is_done() => None,
                Ok(taken) => {
                    out.put_slice(&window[..taken]);
                    Some(taken)
                }
                Err(error) => {
                    wrong = Some(error);
                    Some(0)
                }
            });
            read?;
            if let Some(wrong) = wrong {
                return Err(FeedError::Content { zxid, wrong });
            }
        }
        if !end.is_done() {
            self.work = Work::Snapshot { reader, end, zxid };
            return Ok(Fed::More);
        }
        reader.finish()?;
        put_bytes(out, SIGNATURE);
        Ok(Fed::Upto(zxid))
    }
}
