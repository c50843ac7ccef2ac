//! From the files to the state they hold: the newest good snapshot, then the log after it.
//!
//! Recovery distinguishes three things. A clean end starts. A torn tail, the write that a crash cut short, starts too; what
//! is cut off is kept beside. Damage before good records, a gap between them, or an end before what was synced is an
//! error that names file and offset, and nothing is changed.

use super::install::finish_install;
use super::kept::Kept;
use super::log_reader::{Doubt, LogEnd, LogReader, LogRecord, Lost};
use super::names::{STAGED, Shown, TEMPORARY, files, log_zxid, snapshot_zxid};
use super::record::{HEADER_LEN, finished_len, follows, is_error, is_finished_len};
use super::small_file::dir_of;
use super::snapshot_reader::{SnapshotReader, SnapshotSeal};
use super::synced::{Synced, read_synced};
use super::{BadRecord, Damage, Dirs, Disk, RECORD_FRAME, StorageError};
use crate::model::{Epoch, Zxid};
use bytes::Bytes;
use std::path::{Path, PathBuf};

/// The state that is restored.
pub trait Restore {
    /// Back to the state of a new server: each snapshot is loaded into a fresh one.
    fn reset(&mut self);
    /// Takes whole records of a snapshot's body from the front of `window`; 0 asks for more bytes.
    fn feed(&mut self, window: &[u8]) -> Result<usize, Damage>;
    /// The body's end marker was taken.
    fn is_fed(&self) -> bool;
    /// The seals are right: the state is that of `zxid` (or fuzzily newer, from a Java server).
    fn loaded(&mut self, zxid: Zxid, seal: &SnapshotSeal);
    /// Applies one transaction, which the state may hold already in part.
    fn replay(&mut self, body: Bytes) -> Result<(), Damage>;
}

/// How far recovery is, for people.
#[derive(Debug, Clone, Copy)]
pub struct Progress<'a> {
    /// The file that is read.
    pub file: &'a Path,
    /// Bytes of it that are read.
    pub done: u64,
    /// Its bytes.
    pub total: u64,
    /// Transactions that were replayed so far, from all files.
    pub txns: u64,
}

/// Something that an operator should know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Note {
    /// A snapshot is damaged: an older one is taken.
    SnapshotSkipped {
        /// What is wrong with it.
        why: String,
    },
    /// The newest log ended in a write that a crash cut short.
    TailCut {
        /// The log.
        file: PathBuf,
        /// Where it was cut.
        offset: u64,
        /// What is wrong with the rest.
        what: BadRecord,
        /// The file that has what was cut off.
        kept_in: PathBuf,
    },
    /// The newest log held no transaction.
    LogSetAside {
        /// Its old name.
        file: PathBuf,
        /// How its creation was cut short.
        what: BadRecord,
        /// Its new name.
        kept_in: PathBuf,
    },
    /// What an earlier process had not finished was removed.
    TemporaryRemoved {
        /// The file.
        file: PathBuf,
    },
    /// A leader's snapshot had been received as a whole, and is in place now.
    InstallFinished {
        /// The snapshot.
        file: PathBuf,
    },
    /// What it took the place of is kept.
    HistoryKept(Kept),
    /// The files of a member of an ensemble are damaged: it begins again with nothing, and takes what it had from the others.
    SetAside {
        /// What is wrong, and where.
        why: String,
        /// Where the files are; none where they hold no transaction.
        kept: Option<Kept>,
    },
    /// The newest snapshot, whose checksums are right, gives another tree than the files state. An older one gives the right one.
    TreeRebuilt {
        /// What differed.
        why: String,
        /// The snapshot that the tree was built from; none where the log alone was enough.
        from: Option<PathBuf>,
        /// Where the newer snapshots are now.
        kept_in: Vec<PathBuf>,
    },
    /// The files state another tree than they give, whichever snapshot is taken: a member of an ensemble takes the leader's.
    TreeDiffers {
        /// What differs.
        why: String,
    },
    /// `acceptedEpoch` or `currentEpoch` held no epoch: its copy had it.
    EpochRestored {
        /// The file.
        file: PathBuf,
    },
    /// A file that says what this server has promised is damaged, and so is its copy, or it has none.
    Forgotten {
        /// The file, and what is wrong with it.
        why: String,
    },
    /// Of what was synced, the end is missing or overwritten: a member of an ensemble takes it from the others.
    EndMissing(Missing),
}

impl std::fmt::Display for Note {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Note::SnapshotSkipped { why } => write!(f, "skipped a snapshot: {why}"),
            Note::TailCut { file, offset, what, kept_in } => write!(
                f,
                "{} ended in a torn write at offset {offset} ({what}); cut there, the rest is kept in {}",
                file.display(),
                kept_in.display()
            ),
            Note::LogSetAside { file, what, kept_in } => {
                let (file, kept_in) = (file.display(), kept_in.display());
                write!(f, "{file} holds no transaction, torn at offset 0 ({what}); moved to {kept_in}")
            }
            Note::InstallFinished { file } => {
                write!(f, "finished the installation of the leader's snapshot {}", file.display())
            }
            Note::HistoryKept(kept) => kept.fmt(f),
            Note::SetAside { why, kept } => {
                write!(
                    f,
                    "{why}. This server begins with nothing and takes everything from the ensemble's leader"
                )?;
                match kept {
                    Some(kept) => {
                        let dirs: Vec<_> = kept.dirs.iter().map(|dir| dir.display().to_string()).collect();
                        write!(f, "; the damaged files are kept in {}", dirs.join(" and "))
                    }
                    None => Ok(()),
                }
            }
            Note::TreeRebuilt { why, from, kept_in } => {
                let from = from.as_ref().map_or("the log alone".into(), |from| from.display().to_string());
                let kept_in: Vec<_> = kept_in.iter().map(|file| file.display().to_string()).collect();
                write!(f, "{why}. The right tree is built from {from}; what gave another is kept in ")?;
                write!(f, "{}", kept_in.join(" and "))
            }
            Note::TreeDiffers { why } => {
                write!(f, "{why}. This server serves nobody until it has the tree of the ensemble's leader")
            }
            Note::EpochRestored { file } => {
                write!(f, "{} held no epoch, and is restored from its copy", file.display())
            }
            Note::Forgotten { why } => write!(
                f,
                "{why}. What this server has promised the others is unknown: it votes once it has heard all of them, or another server \
                 leads"
            ),
            Note::EndMissing(Missing { file, offset, last, synced }) => write!(
                f,
                "{} ends at offset {offset}, and what it had after transaction {last} is missing: this server had synced {synced}. \
                 It takes that from the ensemble's leader",
                file.display()
            ),
            Note::TemporaryRemoved { file } => write!(f, "removed the unfinished {}", file.display()),
        }
    }
}

/// What recovery found.
#[derive(Debug, Clone, Default)]
pub struct Recovered {
    /// The last transaction, or the point of the snapshot.
    pub last_zxid: Zxid,
    /// The snapshot that the state began with.
    pub snapshot: Option<PathBuf>,
    /// [`Zxid::ZERO`] without one.
    pub snapshot_zxid: Zxid,
    /// Transactions after the snapshot, their bytes, and the logs that hold them.
    pub txns: u64,
    /// Their bytes, frames included.
    pub bytes: u64,
    /// The logs that hold them.
    pub logs: u64,
    /// What people should know.
    pub notes: Vec<Note>,
    /// What the torn end of the log may have held that was acknowledged.
    pub lost: Option<Lost>,
    /// Where what was synced ends too early, and what is wrong there.
    pub missing: Option<Missing>,
}

/// What was synced is not there to its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Missing {
    /// The log that had the end.
    pub file: PathBuf,
    /// Where its good records end; 0 where there is none.
    pub offset: u64,
    /// The last transaction that is there.
    pub last: Zxid,
    /// The last one that was synced.
    pub synced: Zxid,
}

impl Missing {
    /// The error of a server that has nobody to take it from.
    pub fn error(&self) -> StorageError {
        let Self { file, offset, last, synced } = self;
        StorageError::damaged(file, *offset, Damage::EndMissing { last: *last, synced: *synced })
    }
}

/// Restores `state` at a start. Files are made durable before anything is built on them: what an earlier process wrote
/// may be in the system's memory alone. `before_mending` is called with what was found, before a torn end is cut off:
/// the caller writes there what must be remembered of it. `progress` is called at least once a file, and often within
/// long ones.
pub fn recover(
    disk: &dyn Disk,
    dirs: &Dirs,
    state: &mut dyn Restore,
    before_mending: &mut dyn FnMut(&Recovered) -> Result<(), StorageError>,
    progress: &mut dyn FnMut(Progress<'_>),
) -> Result<Recovered, StorageError> {
    refuse_mixed_dirs(disk, dirs)?;
    let (installed, kept) = finish_install(disk, dirs)?;
    for dir in [&dirs.data, &dirs.log] {
        disk.sync_dir(dir).map_err(StorageError::io("sync", dir))?;
    }
    let synced = read_synced(disk, &dirs.log)?;
    let (mut recovery, logs) = read(disk, dirs, state, progress)?;
    recovery.find_missing(synced, dirs);
    recovery.found.notes.extend(installed.map(|file| Note::InstallFinished { file }));
    recovery.found.notes.extend(kept.map(Note::HistoryKept));
    // Only now, with everything read and good, are files changed.
    if let Some((_, newest)) = logs.last() {
        disk.sync_file(newest).map_err(StorageError::io("sync", newest))?;
    }
    before_mending(&recovery.found)?;
    recovery.mend_tail()?;
    recovery.give_back_padding()?;
    for dir in [&dirs.data, &dirs.log] {
        recovery.remove_temporaries(dir)?;
    }
    Ok(recovery.found)
}

/// Restores `state` from files that this process keeps, and changes none of them.
pub fn reread(disk: &dyn Disk, dirs: &Dirs, state: &mut dyn Restore) -> Result<Recovered, StorageError> {
    let mut silent = |_: Progress<'_>| {};
    let (recovery, _) = read(disk, dirs, state, &mut silent)?;
    match recovery.tail {
        Some((file, offset, what)) => Err(StorageError::damaged(&file, offset, what)),
        None => Ok(recovery.found),
    }
}

/// How much of a history is read.
#[derive(Debug, Clone, Copy)]
pub struct Upto {
    /// The last transaction that counts.
    pub zxid: Zxid,
    /// The newest snapshot that it may begin with.
    pub snapshot: Zxid,
}

impl Upto {
    /// All of it.
    pub const END: Self = Self { zxid: Zxid(i64::MAX), snapshot: Zxid(i64::MAX) };
}

/// What a history that was only looked at holds.
#[derive(Debug)]
pub struct Seen {
    /// As a start would have found it.
    pub found: Recovered,
    /// The newest log's torn end, which a start would cut off: the log, where, what is wrong with it.
    pub torn: Option<(PathBuf, u64, BadRecord)>,
}

/// Restores `state` from snapshots and logs, of which a server may be writing the newest, and changes none of them. Both
/// are in rising order.
pub fn see(
    disk: &dyn Disk,
    snapshots: &[(Zxid, PathBuf)],
    logs: &[(Zxid, PathBuf)],
    upto: Upto,
    state: &mut dyn Restore,
    progress: &mut dyn FnMut(Progress<'_>),
) -> Result<Seen, StorageError> {
    let until = snapshots.partition_point(|(zxid, _)| *zxid <= upto.zxid.min(upto.snapshot));
    let mut recovery = Recovery::new(disk, state, progress, snapshots);
    recovery.upto = upto.zxid;
    recovery.load_newest(&snapshots[..until])?;
    recovery.replay_all(logs, until > 0)?;
    recovery.refuse_lost_history()?;
    Ok(Seen { found: recovery.found, torn: recovery.tail })
}

type Files = Vec<(Zxid, PathBuf)>;

fn read<'a>(
    disk: &'a dyn Disk,
    dirs: &Dirs,
    state: &'a mut dyn Restore,
    progress: &'a mut dyn FnMut(Progress<'_>),
) -> Result<(Recovery<'a>, Files), StorageError> {
    let snapshots = files(disk, &dirs.data, snapshot_zxid)?;
    let mut recovery = Recovery::new(disk, state, progress, &snapshots);
    let logs = files(disk, &dirs.log, log_zxid)?;
    recovery.load_newest(&snapshots)?;
    recovery.replay_all(&logs, !snapshots.is_empty())?;
    recovery.refuse_lost_history()?;
    Ok((recovery, logs))
}

/// Loads one snapshot into `state`, which is fresh, and returns what its seals say.
pub fn load_snapshot(
    disk: &dyn Disk,
    zxid: Zxid,
    path: &Path,
    state: &mut dyn Restore,
    progress: &mut dyn FnMut(Progress<'_>),
) -> Result<SnapshotSeal, StorageError> {
    let mut reader = SnapshotReader::open(disk, path)?;
    let total = reader.file_len();
    let mut told = 0;
    while !state.is_fed() {
        let mut failed = None;
        reader.with(&mut |window| match state.feed(window) {
            Ok(0) if !state.is_fed() => None,
            Ok(taken) => Some(taken),
            Err(what) => {
                failed = Some(what);
                Some(0)
            }
        })?;
        if let Some(what) = failed {
            return Err(reader.damaged(reader.consumed(), what));
        }
        if reader.consumed() - told > 16 << 20 || told == 0 {
            told = reader.consumed();
            progress(Progress { file: path, done: told, total, txns: 0 });
        }
    }
    let seal = reader.finish()?;
    state.loaded(zxid, &seal);
    progress(Progress { file: path, done: total, total, txns: 0 });
    Ok(seal)
}

struct Recovery<'a> {
    disk: &'a dyn Disk,
    state: &'a mut dyn Restore,
    progress: &'a mut dyn FnMut(Progress<'_>),
    found: Recovered,
    /// The newest log's torn end: file, offset, what.
    tail: Option<(PathBuf, u64, BadRecord)>,
    /// Logs before those that were needed.
    unread: Vec<PathBuf>,
    /// Logs with more padding than a finished one has, and where their last record ends.
    padded: Vec<(PathBuf, u64)>,
    /// Logs that were read, and where their last good record ends.
    ends: Vec<(PathBuf, u64)>,
    /// Of an older log.
    doubt: Option<Doubt>,
    shown: Shown,
    /// The largest zxid that the name of a damaged snapshot proves, and that snapshot.
    proven: Option<(Zxid, PathBuf)>,
    /// The last zxid read from a log.
    previous: Option<Zxid>,
    /// Transactions after this one are not read.
    upto: Zxid,
}

impl<'a> Recovery<'a> {
    fn new(
        disk: &'a dyn Disk,
        state: &'a mut dyn Restore,
        progress: &'a mut dyn FnMut(Progress<'_>),
        snapshots: &[(Zxid, PathBuf)],
    ) -> Self {
        Self {
            disk,
            state,
            progress,
            found: Recovered::default(),
            tail: None,
            unread: Vec::new(),
            padded: Vec::new(),
            ends: Vec::new(),
            doubt: None,
            shown: Shown::new(snapshots),
            proven: None,
            previous: None,
            upto: Upto::END.zxid,
        }
    }

    fn load_newest(&mut self, snapshots: &[(Zxid, PathBuf)]) -> Result<(), StorageError> {
        for (zxid, path) in snapshots.iter().rev() {
            self.state.reset();
            match load_snapshot(self.disk, *zxid, path, self.state, self.progress) {
                Ok(_) => {
                    self.found.snapshot = Some(path.clone());
                    self.found.snapshot_zxid = *zxid;
                    self.found.last_zxid = *zxid;
                    return Ok(());
                }
                Err(damaged @ StorageError::Damaged { .. }) => {
                    self.proven = self.proven.take().or_else(|| Some((*zxid, path.clone())));
                    self.found.notes.push(Note::SnapshotSkipped { why: damaged.to_string() });
                }
                Err(other) => return Err(other),
            }
        }
        self.state.reset();
        Ok(())
    }

    fn replay_all(&mut self, logs: &[(Zxid, PathBuf)], had_snapshots: bool) -> Result<(), StorageError> {
        let next = Zxid(self.found.last_zxid.0.saturating_add(1));
        let first = logs.iter().rposition(|(zxid, _)| *zxid <= next).unwrap_or(0);
        self.unread = logs[..first].iter().map(|(_, path)| path.clone()).collect();
        for (at, (_, path)) in logs.iter().enumerate().skip(first) {
            if self.found.last_zxid == self.upto {
                break;
            }
            let newest = at + 1 == logs.len();
            if !self.replay_file(path, newest, had_snapshots)? {
                break;
            }
        }
        Ok(())
    }

    /// Whether the next file may have more that counts.
    fn replay_file(&mut self, path: &Path, newest: bool, had_snapshots: bool) -> Result<bool, StorageError> {
        let mut log = LogReader::open(self.disk, path)?;
        let total = log.len();
        let before = self.found.txns;
        while let Some(record) = log.next()? {
            // A Java server of 3.9 repeats the last zxid for a request that did not decode.
            let zxid = record.zxid;
            let goes_back = |last| zxid < last || (zxid == last && !is_error(&record.body));
            if let Some(last) = self.previous.filter(|last| goes_back(*last)) {
                return Err(StorageError::damaged(path, record.offset, Damage::Order { zxid, last }));
            }
            self.previous = Some(zxid);
            if record.zxid <= self.found.last_zxid {
                continue;
            }
            // Also where it goes too far: what lies between must not be missing.
            self.check_order(path, &record, had_snapshots)?;
            self.check_beginning(&log)?;
            if record.zxid > self.upto {
                return Ok(false);
            }
            let offset = record.offset;
            self.found.bytes += record.body.len() as u64 + RECORD_FRAME;
            self.state.replay(record.body).map_err(|what| StorageError::damaged(path, offset, what))?;
            self.found.last_zxid = record.zxid;
            self.found.txns += 1;
            if record.zxid == self.upto {
                return Ok(false);
            }
            if self.found.txns.is_multiple_of(100_000) {
                (self.progress)(Progress { file: path, done: log.position(), total, txns: self.found.txns });
            }
        }
        (self.progress)(Progress { file: path, done: total, total, txns: self.found.txns });
        self.found.logs += u64::from(self.found.txns > before);
        self.replayed(&log, newest)?;
        Ok(true)
    }

    /// What the end of a log means.
    fn replayed(&mut self, log: &LogReader, newest: bool) -> Result<(), StorageError> {
        let (path, total) = (log.path(), log.len());
        let end = log.end().expect("next() came to the end").clone();
        self.ends.push((path.to_path_buf(), log.position()));
        if let LogEnd::Clean { offset } = end
            && finished_len(offset) < total
        {
            self.padded.push((path.to_path_buf(), offset));
        }
        match end {
            LogEnd::Damaged { offset, what, good } => {
                Err(StorageError::damaged(path, offset, Damage::BeforeGoodRecord { what, good }))
            }
            // Behind an older file's torn end the next file must go on without a gap: check_order sees to it.
            LogEnd::Torn { offset: 0, what, .. } if newest => self.without_records(path, what),
            LogEnd::Torn { offset, what, lost } if newest => {
                self.tail = Some((path.to_path_buf(), offset, what));
                self.found.lost = Some(lost).filter(|lost| *lost != Lost::Nothing);
                Ok(())
            }
            LogEnd::Clean { offset } if newest && offset == HEADER_LEN => {
                self.check_beginning(log)?;
                self.without_records(path, BadRecord::HeaderAlone)
            }
            LogEnd::Torn { .. } | LogEnd::Clean { .. } => {
                self.doubt = log.doubt(Some(self.found.last_zxid)).or(self.doubt.take());
                Ok(())
            }
        }
    }

    /// The newest log holds no transaction: its creation was cut short. Its name tells which one it was made for: if
    /// that is not the next one, what lies between is missing.
    fn without_records(&mut self, path: &Path, what: BadRecord) -> Result<(), StorageError> {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let made_for = log_zxid(&name).expect("it was found by its name");
        let last = self.found.last_zxid;
        Doubt::settle(&mut self.doubt, made_for)?;
        if !self.may_follow(made_for) {
            return Err(StorageError::damaged(path, 0, Damage::LogSkips { what, made_for, last }));
        }
        self.tail = Some((path.to_path_buf(), 0, what));
        Ok(())
    }

    /// What was synced must be there, in a log or in a snapshot.
    fn find_missing(&mut self, synced: Option<Synced>, dirs: &Dirs) {
        let last = self.found.last_zxid;
        let Some(synced) = synced.filter(|synced| last < synced.last) else { return };
        let file = synced.file(&dirs.log);
        let offset = self.ends.iter().find(|(path, _)| *path == file).map_or(0, |(_, end)| *end);
        // More may have been synced than an older place says.
        let is_newest = synced.is_newest(self.disk);
        self.found.lost = Some(if is_newest { Lost::UpTo(synced.last) } else { Lost::Unknown });
        let missing = Missing { file, offset, last, synced: synced.last };
        self.found.notes.push(Note::EndMissing(missing.clone()));
        self.found.missing = Some(missing);
    }

    /// A damaged snapshot's name proves transactions that snapshots before it and the log have to give.
    fn refuse_lost_history(&self) -> Result<(), StorageError> {
        match &self.proven {
            Some((zxid, file)) if *zxid > self.found.last_zxid => {
                let (last, skipped) = (self.found.last_zxid, self.found.notes.clone());
                Err(StorageError::damaged(file, 0, Damage::OnlyProof { last, skipped }))
            }
            _ => Ok(()),
        }
    }

    /// Whether this may be the next transaction. Without a snapshot the log must begin in epoch 0 or 1.
    /// A later first epoch is fine only if an (empty) snapshot shows that nothing came before.
    fn may_follow(&self, zxid: Zxid) -> bool {
        let last = self.found.last_zxid;
        let is_next = follows(last, zxid) && !self.shown.proves_one_between(last, zxid);
        is_next && (last != Zxid::ZERO || self.found.snapshot.is_some() || zxid.epoch() <= Epoch(1))
    }

    /// What came before a log was written must be there.
    fn check_beginning(&self, log: &LogReader) -> Result<(), StorageError> {
        let (after, last) = (log.after(), self.found.last_zxid);
        if !log.begins_after_more_than(last) {
            return Ok(());
        }
        Err(StorageError::damaged(log.path(), 0, Damage::BeginsLater { after, last }))
    }

    /// Transactions follow each other by one within an epoch, and a new epoch starts at 0 or 1.
    fn check_order(
        &mut self,
        path: &Path,
        record: &LogRecord,
        had_snapshots: bool,
    ) -> Result<(), StorageError> {
        let (last, zxid) = (self.found.last_zxid, record.zxid);
        Doubt::settle(&mut self.doubt, zxid)?;
        if self.may_follow(zxid) {
            return Ok(());
        }
        let missing = if self.found.snapshot.is_some() || self.found.txns > 0 {
            Damage::Gap { zxid, last }
        } else if had_snapshots {
            Damage::NoGoodSnapshot { zxid, skipped: self.found.notes.clone() }
        } else {
            Damage::NoBeginning(zxid)
        };
        Err(StorageError::damaged(path, record.offset, missing))
    }

    fn mend_tail(&mut self) -> Result<(), StorageError> {
        let Some((file, offset, what)) = self.tail.take() else { return Ok(()) };
        let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let dir = dir_of(&file).to_path_buf();
        let kept_in = unused(self.disk, &dir, format!("torn.{name}.{offset}"))?;
        if offset <= HEADER_LEN {
            self.padded.retain(|(padded, _)| *padded != file);
            self.disk.rename(&file, &kept_in).map_err(StorageError::io("rename", &file))?;
            let mut kept = LogReader::open(self.disk, &kept_in)?;
            let len = finished_len(kept.last_byte()?);
            if len < kept.len() {
                self.disk.truncate(&kept_in, len).map_err(StorageError::io("truncate", &kept_in))?;
            }
            self.found.notes.push(Note::LogSetAside { file, what, kept_in });
        } else {
            self.keep_copy(&file, offset, &kept_in)?;
            self.disk.sync_dir(&dir).map_err(StorageError::io("sync", &dir))?;
            self.disk.truncate(&file, offset).map_err(StorageError::io("truncate", &file))?;
            self.found.notes.push(Note::TailCut { file, offset, what, kept_in });
        }
        self.disk.sync_dir(&dir).map_err(StorageError::io("sync", &dir))
    }

    /// A process that was killed left what it had allocated ahead. No log is appended to that is there now.
    fn give_back_padding(&mut self) -> Result<(), StorageError> {
        let padded = self.unread.iter().filter_map(|path| Some((path.clone(), self.padding_of_old(path)?)));
        let padded: Vec<_> = padded.chain(self.padded.iter().cloned()).collect();
        for (path, end) in padded {
            self.disk.truncate(&path, finished_len(end)).map_err(StorageError::io("truncate", &path))?;
        }
        Ok(())
    }

    /// Where the padding begins of a log that was not needed. Most are finished, or a Java server's and sparse: these are
    /// not read. One that can't be read to a clean end is nobody's trouble and stays as it is.
    fn padding_of_old(&self, path: &Path) -> Option<u64> {
        let mut log = LogReader::open(self.disk, path).ok()?;
        let is_whole = self.disk.allocated(path).ok()? >= log.len();
        if is_finished_len(log.len()) || !is_whole || !log.looks_padded().ok()? {
            return None;
        }
        while log.next().ok()?.is_some() {}
        match log.end() {
            Some(LogEnd::Clean { offset }) => Some(*offset),
            _ => None,
        }
    }

    /// `name`, or with a number after it if something is kept under it already.
    /// Copies the torn bytes, up to the last that is not zero.
    fn keep_copy(&self, file: &Path, offset: u64, copy: &Path) -> Result<(), StorageError> {
        let mut from = self.disk.open(file).map_err(StorageError::io("open", file))?;
        let mut to = self.disk.create(copy).map_err(StorageError::io("create", copy))?;
        let mut chunk = vec![0; 1 << 20];
        let mut at = offset;
        let mut zeros = 0;
        loop {
            let count = from.read_at(at, &mut chunk).map_err(StorageError::io("read", file))?;
            if count == 0 {
                break;
            }
            at += count as u64;
            let Some(last) = chunk[..count].iter().rposition(|byte| *byte != 0) else {
                zeros += count;
                continue;
            };
            to.write_all(&vec![0; std::mem::take(&mut zeros)]).map_err(StorageError::io("write", copy))?;
            to.write_all(&chunk[..=last]).map_err(StorageError::io("write", copy))?;
            zeros = count - last - 1;
        }
        to.sync().map_err(StorageError::io("sync", copy))
    }

    fn remove_temporaries(&mut self, dir: &Path) -> Result<(), StorageError> {
        for (name, _) in self.disk.list(dir).map_err(StorageError::io("list", dir))? {
            if name.starts_with(TEMPORARY) || name.starts_with(STAGED) {
                let file = dir.join(name);
                self.disk.remove(&file).map_err(StorageError::io("remove", &file))?;
                self.found.notes.push(Note::TemporaryRemoved { file });
            }
        }
        Ok(())
    }
}

/// With two directories, a snapshot among the logs or a log among the snapshots says that they were swapped.
fn refuse_mixed_dirs(disk: &dyn Disk, dirs: &Dirs) -> Result<(), StorageError> {
    if dirs.data == dirs.log {
        return Ok(());
    }
    let misplaced = [
        (&dirs.log, files(disk, &dirs.log, snapshot_zxid)?, "a snapshot", "dataLogDir"),
        (&dirs.data, files(disk, &dirs.data, log_zxid)?, "a transaction log", "dataDir"),
    ];
    for (dir, found, what, key) in misplaced {
        if let Some((_, file)) = found.first() {
            let (file, dir) = (file.clone(), dir.clone());
            return Err(StorageError::Misplaced { file, what, dir, key });
        }
    }
    Ok(())
}

/// Durably moves a snapshot that is not to be begun with to another name beside.
pub fn set_aside(disk: &dyn Disk, snapshot: &Path) -> Result<PathBuf, StorageError> {
    let dir = dir_of(snapshot);
    let name = snapshot.file_name().unwrap_or_default().to_string_lossy();
    let to = unused(disk, dir, format!("wrong.{name}"))?;
    disk.rename(snapshot, &to).map_err(StorageError::io("rename", snapshot))?;
    disk.sync_dir(dir).map_err(StorageError::io("sync", dir))?;
    Ok(to)
}

/// This name, or with a number after it where a file has it.
fn unused(disk: &dyn Disk, dir: &Path, name: String) -> Result<PathBuf, StorageError> {
    let taken = disk.list(dir).map_err(StorageError::io("list", dir))?;
    let is_free = |name: &String| !taken.iter().any(|(other, _)| other == name);
    let numbered = (2..).map(|number| format!("{name}.{number}"));
    let free = std::iter::once(name.clone()).chain(numbered).find(is_free);
    Ok(dir.join(free.expect("numbers do not end")))
}
