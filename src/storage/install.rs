//! Large changes of the files that a leader asks for, each in steps of which any may be the last before a crash: a
//! shorter log, the leader's history in place of everything, nothing at all.
//!
//! A leader's snapshot is worth nothing without the log after it, and the leader may fail before that is through. So
//! the two are staged first, beside everything that this server has, and installed when they are complete: a crash
//! before leaves what was there, a crash after what the leader sent.

use super::kept::{Keeper, Kept, Part};
use super::log_reader::LogReader;
use super::names::{ENTERING, INSTALLING, STAGED, files, log_zxid, snapshot_zxid};
use super::small_file::rename;
use super::{Dirs, Disk, StorageError, snapshot_name};
use crate::model::Zxid;
use std::path::{Path, PathBuf};

/// What became of a log that was to be cut.
#[derive(Debug, PartialEq, Eq)]
pub enum Cut {
    /// What came after is kept, if there was something.
    Done(Option<Kept>),
    /// Nothing was changed: no snapshot would be left to begin from.
    Unmendable,
}

/// Cuts the log after `to`, and removes snapshots that show more. `last` is the log's last transaction.
pub fn truncate(disk: &dyn Disk, dirs: &Dirs, to: Zxid, last: Zxid) -> Result<Cut, StorageError> {
    let snapshots = files(disk, &dirs.data, snapshot_zxid)?;
    if !snapshots.iter().any(|(zxid, _)| *zxid <= to) {
        return Ok(Cut::Unmendable);
    }
    // Snapshots first: with the log still whole, what a crash leaves is what was there before. Then the log from its
    // end, so that it never has a hole.
    let newer = |(zxid, path): &(Zxid, PathBuf)| (*zxid > to).then(|| path.clone());
    let newer_snapshots: Vec<PathBuf> = snapshots.iter().rev().filter_map(newer).collect();
    let logs = files(disk, &dirs.log, log_zxid)?;
    let newer_logs: Vec<PathBuf> = logs.iter().rev().filter_map(newer).collect();
    let tail = match logs.iter().rev().find(|(zxid, _)| *zxid <= to) {
        Some((_, log)) => first_behind(disk, log, to)?.map(|(offset, zxid)| (log, offset, zxid)),
        None => None,
    };
    if newer_snapshots.is_empty() && newer_logs.is_empty() && tail.is_none() {
        return Ok(Cut::Done(None));
    }
    let newer = newer_snapshots.iter().chain(&newer_logs);
    let mut keeper = Keeper::open(disk, dirs, newer.clone().cloned())?;
    newer.into_iter().try_for_each(|file| keeper.take(file))?;
    // Without a newer record it stays as it is; nothing is appended to this file any more.
    if let Some((log, offset, zxid)) = tail {
        keeper.copy_tail(log, offset, zxid)?;
        disk.truncate(log, offset).map_err(StorageError::io("truncate", log))?;
    }
    keeper.finish(Part::After(to), last).map(|kept| Cut::Done(Some(kept)))
}

/// Where the first record after `to` begins in a log, and its zxid.
fn first_behind(disk: &dyn Disk, log: &Path, to: Zxid) -> Result<Option<(u64, Zxid)>, StorageError> {
    let mut log = LogReader::open_growing(disk, log)?;
    while let Some(record) = log.next()? {
        if record.zxid > to {
            return Ok(Some((record.offset, record.zxid)));
        }
    }
    Ok(None)
}

/// Keeps the snapshot `received` beside everything else. The leader's log will follow it.
pub fn stage(disk: &dyn Disk, dirs: &Dirs, received: &Path, zxid: Zxid) -> Result<(), StorageError> {
    unstage(disk, dirs)?;
    rename(disk, received, &dirs.data.join(format!("{STAGED}{}", snapshot_name(zxid))))
}

/// Removes what was staged.
pub fn unstage(disk: &dyn Disk, dirs: &Dirs) -> Result<(), StorageError> {
    for (dir, zxid_of) in [(&dirs.data, snapshot_zxid as fn(&str) -> _), (&dirs.log, log_zxid)] {
        let staged = marked(disk, dir, STAGED, zxid_of)?;
        remove(disk, dir, staged.into_iter().map(|name| dir.join(format!("{STAGED}{name}"))).collect())?;
    }
    Ok(())
}

/// Puts what was staged, which is complete and durable, in place of all snapshots and logs, which are kept aside if
/// `keep` says so. The first rename is the point from which a crash ends in the new state.
pub fn install(disk: &dyn Disk, dirs: &Dirs, keep: bool) -> Result<Option<Kept>, StorageError> {
    disk.sync_dir(&dirs.log).map_err(StorageError::io("sync", &dirs.log))?;
    for snapshot in marked(disk, &dirs.data, STAGED, snapshot_zxid)? {
        mark(disk, &dirs.data, &snapshot, STAGED, INSTALLING)?;
    }
    go_on_installing(disk, dirs, keep).map(|(_, kept)| kept)
}

/// Does what is left to do of an installation, if one was begun. Returns the snapshot, and what is kept of before.
pub(super) fn finish_install(
    disk: &dyn Disk,
    dirs: &Dirs,
) -> Result<(Option<PathBuf>, Option<Kept>), StorageError> {
    go_on_installing(disk, dirs, true)
}

fn go_on_installing(
    disk: &dyn Disk,
    dirs: &Dirs,
    keep: bool,
) -> Result<(Option<PathBuf>, Option<Kept>), StorageError> {
    let mut kept = None;
    for snapshot in marked(disk, &dirs.data, INSTALLING, snapshot_zxid)? {
        kept = clear(disk, dirs, keep)?;
        mark(disk, &dirs.data, &snapshot, INSTALLING, ENTERING)?;
    }
    let mut entered = None;
    for snapshot in marked(disk, &dirs.data, ENTERING, snapshot_zxid)? {
        for log in marked(disk, &dirs.log, STAGED, log_zxid)? {
            mark(disk, &dirs.log, &log, STAGED, "")?;
        }
        mark(disk, &dirs.data, &snapshot, ENTERING, "")?;
        entered = Some(dirs.data.join(snapshot));
    }
    Ok((entered, kept))
}

/// The own names of the files of one kind that have this mark before them.
fn marked(
    disk: &dyn Disk,
    dir: &Path,
    mark: &str,
    zxid_of: fn(&str) -> Option<Zxid>,
) -> Result<Vec<String>, StorageError> {
    let names = disk.list(dir).map_err(StorageError::io("list", dir))?;
    let own = names.iter().filter_map(|(name, _)| name.strip_prefix(mark));
    Ok(own.filter(|name| zxid_of(name).is_some()).map(str::to_owned).collect())
}

/// Durably puts one mark in the place of another.
fn mark(disk: &dyn Disk, dir: &Path, name: &str, old: &str, new: &str) -> Result<(), StorageError> {
    rename(disk, &dir.join(format!("{old}{name}")), &dir.join(format!("{new}{name}")))
}

/// Takes away all logs and snapshots.
pub fn wipe(disk: &dyn Disk, dirs: &Dirs) -> Result<Option<Kept>, StorageError> {
    clear(disk, dirs, true)
}

/// Logs from the newest on, then snapshots from the newest on: what a crash leaves is an older state without a hole. All
/// is kept aside if it must be, and if it is something.
fn clear(disk: &dyn Disk, dirs: &Dirs, keep: bool) -> Result<Option<Kept>, StorageError> {
    let logs = files(disk, &dirs.log, log_zxid)?;
    let snapshots = files(disk, &dirs.data, snapshot_zxid)?;
    let last = last_shown(disk, dirs)?;
    let all = logs.iter().rev().chain(snapshots.iter().rev()).map(|(_, path)| path);
    if last == Zxid::ZERO || !keep {
        let (logs, snapshots) = (logs.iter().rev(), snapshots.iter().rev());
        remove(disk, &dirs.log, logs.map(|(_, path)| path.clone()).collect())?;
        remove(disk, &dirs.data, snapshots.map(|(_, path)| path.clone()).collect())?;
        return Ok(None);
    }
    let mut keeper = Keeper::open(disk, dirs, all.clone().cloned())?;
    all.into_iter().try_for_each(|file| keeper.take(file))?;
    keeper.finish(Part::Whole, last).map(Some)
}

/// The last transaction that the files show, whether or not all that comes before it is there.
pub fn last_shown(disk: &dyn Disk, dirs: &Dirs) -> Result<Zxid, StorageError> {
    let last_of_log = match files(disk, &dirs.log, log_zxid)?.last() {
        Some((_, newest)) => last_of(disk, newest)?,
        None => Zxid::ZERO,
    };
    let snapshots = files(disk, &dirs.data, snapshot_zxid)?;
    Ok(snapshots.last().map_or(Zxid::ZERO, |(zxid, _)| *zxid).max(last_of_log))
}

/// The last transaction of a log, or what it was made for.
fn last_of(disk: &dyn Disk, log: &Path) -> Result<Zxid, StorageError> {
    let mut last = log.file_name().and_then(|name| log_zxid(&name.to_string_lossy())).unwrap_or(Zxid::ZERO);
    let mut records = LogReader::open_growing(disk, log)?;
    loop {
        match records.next() {
            Ok(Some(record)) => last = record.zxid,
            // It is no log: that may be why the files are taken away.
            Ok(None) | Err(StorageError::Damaged { .. }) => return Ok(last),
            Err(error) if error.is_unreadable() => return Ok(last),
            Err(error) => return Err(error),
        }
    }
}

/// Each is gone for good before the next one goes.
fn remove(disk: &dyn Disk, dir: &Path, paths: Vec<PathBuf>) -> Result<(), StorageError> {
    for path in paths {
        disk.remove(&path).map_err(StorageError::io("remove", &path))?;
        disk.sync_dir(dir).map_err(StorageError::io("sync", dir))?;
    }
    Ok(())
}
