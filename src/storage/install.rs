//! Large changes of the files that a leader asks for, each in steps of which any may be the last before a crash: a
//! shorter log, the leader's history in place of everything, nothing at all.
//!
//! A leader's snapshot is worth nothing without the log behind it, and the leader may fail before that is through. So
//! the two are staged first, beside everything that this server has, and installed when they are complete: a crash
//! before leaves what was there, a crash after what the leader sent.

use super::log_reader::LogReader;
use super::names::{files, log_zxid, snapshot_zxid};
use super::snapshot_writer::TEMPORARY;
use super::txn_log::dir_of;
use super::{Dirs, Disk, StorageError, snapshot_name};
use std::path::{Path, PathBuf};

/// Before the name of a received snapshot, and of the logs behind it. A start removes them, unless they were being
/// installed.
pub(super) const STAGED: &str = "staged.";
/// Before the snapshot's name: what is staged is what counts from here on, and what else there is goes.
const INSTALLING: &str = "install.";
/// Likewise: nothing else is left, and the staged logs get their own names. Then the snapshot does.
const ENTERING: &str = "enter.";

/// The name of a snapshot that arrives over a link. A start removes it.
pub fn received_name(link: u64, zxid: i64) -> String {
    format!("{TEMPORARY}received.{link}.{}", snapshot_name(zxid))
}

/// Replaces a small file as a whole, durably.
pub fn write_whole(disk: &dyn Disk, path: &Path, bytes: &[u8]) -> Result<(), StorageError> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let temporary = dir_of(path).join(format!("{TEMPORARY}{name}"));
    let mut file = disk.create(&temporary).map_err(StorageError::io("create", &temporary))?;
    file.write_all(bytes).map_err(StorageError::io("write", &temporary))?;
    file.sync().map_err(StorageError::io("sync", &temporary))?;
    drop(file);
    rename(disk, &temporary, path)
}

pub fn read_whole(disk: &dyn Disk, path: &Path) -> Result<Vec<u8>, StorageError> {
    let mut file = disk.open(path).map_err(StorageError::io("open", path))?;
    let mut bytes = vec![0; file.len() as usize];
    let mut at = 0;
    while at < bytes.len() {
        match file.read_at(at as u64, &mut bytes[at..]).map_err(StorageError::io("read", path))? {
            0 => break,
            count => at += count,
        }
    }
    bytes.truncate(at);
    Ok(bytes)
}

pub fn remove_if_there(disk: &dyn Disk, path: &Path) -> Result<(), StorageError> {
    match disk.remove(path) {
        Err(error) if is_missing(&error) => Ok(()),
        // A file system that can only be read does not say that there is nothing to remove.
        Err(_) if disk.open(path).is_err_and(|error| is_missing(&error)) => Ok(()),
        Err(error) => Err(StorageError::io("remove", path)(error)),
        Ok(()) => disk.sync_dir(dir_of(path)).map_err(StorageError::io("sync", dir_of(path))),
    }
}

fn is_missing(error: &std::io::Error) -> bool {
    error.kind() == std::io::ErrorKind::NotFound
}

/// Cuts the log behind `to`, and removes snapshots that show more. False, with nothing changed: no snapshot would be
/// left to begin from.
pub fn truncate(disk: &dyn Disk, dirs: &Dirs, to: i64) -> Result<bool, StorageError> {
    let snapshots = files(disk, &dirs.data, snapshot_zxid)?;
    if !snapshots.iter().any(|(zxid, _)| *zxid <= to) {
        return Ok(false);
    }
    // Snapshots first: with the log still whole, what a crash leaves is what was there before. Then the log from its
    // end, so that it never has a hole.
    let newer = snapshots.into_iter().filter(|(zxid, _)| *zxid > to);
    remove(disk, &dirs.data, newer.map(|(_, path)| path).collect())?;
    let logs = files(disk, &dirs.log, log_zxid)?;
    let newer = logs.iter().rev().filter(|(zxid, _)| *zxid > to);
    remove(disk, &dirs.log, newer.map(|(_, path)| path.clone()).collect())?;
    let Some((_, last)) = logs.iter().rev().find(|(zxid, _)| *zxid <= to) else { return Ok(true) };
    let mut log = LogReader::open_growing(disk, last)?;
    let mut end = None;
    while let Some(record) = log.next()? {
        if record.zxid > to {
            end = Some(record.offset);
            break;
        }
    }
    // Without a newer record it stays as it is; nothing is appended to this file any more.
    if let Some(end) = end {
        disk.truncate(last, end).map_err(StorageError::io("truncate", last))?;
    }
    Ok(true)
}

/// Keeps the snapshot `received` beside everything else, as that behind which the leader's log comes.
pub fn stage(disk: &dyn Disk, dirs: &Dirs, received: &Path, zxid: i64) -> Result<(), StorageError> {
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

/// Puts what was staged, which is complete and durable, in place of all snapshots and logs. The first rename is the point
/// from which a crash ends in the new state.
pub fn install(disk: &dyn Disk, dirs: &Dirs) -> Result<(), StorageError> {
    disk.sync_dir(&dirs.log).map_err(StorageError::io("sync", &dirs.log))?;
    for snapshot in marked(disk, &dirs.data, STAGED, snapshot_zxid)? {
        mark(disk, &dirs.data, &snapshot, STAGED, INSTALLING)?;
    }
    finish_install(disk, dirs).map(drop)
}

/// Does what is left to do of an installation, if one was begun. Returns the snapshot.
pub(super) fn finish_install(disk: &dyn Disk, dirs: &Dirs) -> Result<Option<PathBuf>, StorageError> {
    for snapshot in marked(disk, &dirs.data, INSTALLING, snapshot_zxid)? {
        clear(disk, dirs)?;
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
    Ok(entered)
}

/// The own names of the files of one kind that have this mark before them.
fn marked(
    disk: &dyn Disk,
    dir: &Path,
    mark: &str,
    zxid_of: fn(&str) -> Option<i64>,
) -> Result<Vec<String>, StorageError> {
    let names = disk.list(dir).map_err(StorageError::io("list", dir))?;
    let own = names.iter().filter_map(|(name, _)| name.strip_prefix(mark));
    Ok(own.filter(|name| zxid_of(name).is_some()).map(str::to_owned).collect())
}

/// Durably puts one mark in the place of another.
fn mark(disk: &dyn Disk, dir: &Path, name: &str, old: &str, new: &str) -> Result<(), StorageError> {
    rename(disk, &dir.join(format!("{old}{name}")), &dir.join(format!("{new}{name}")))
}

fn rename(disk: &dyn Disk, from: &Path, to: &Path) -> Result<(), StorageError> {
    disk.rename(from, to).map_err(StorageError::io("rename", from))?;
    disk.sync_dir(dir_of(to)).map_err(StorageError::io("sync", dir_of(to)))
}

/// Removes all logs and snapshots.
pub fn wipe(disk: &dyn Disk, dirs: &Dirs) -> Result<(), StorageError> {
    clear(disk, dirs)
}

/// Logs from the newest on, then snapshots from the newest on: what a crash leaves is an older state without a hole.
fn clear(disk: &dyn Disk, dirs: &Dirs) -> Result<(), StorageError> {
    let logs = files(disk, &dirs.log, log_zxid)?;
    remove(disk, &dirs.log, logs.into_iter().rev().map(|(_, path)| path).collect())?;
    let snapshots = files(disk, &dirs.data, snapshot_zxid)?;
    remove(disk, &dirs.data, snapshots.into_iter().rev().map(|(_, path)| path).collect())
}

/// Each is gone for good before the next one goes.
fn remove(disk: &dyn Disk, dir: &Path, paths: Vec<PathBuf>) -> Result<(), StorageError> {
    for path in paths {
        disk.remove(&path).map_err(StorageError::io("remove", &path))?;
        disk.sync_dir(dir).map_err(StorageError::io("sync", dir))?;
    }
    Ok(())
}
