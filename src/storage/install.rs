//! Large changes of the files that a leader asks for, each in steps of which any may be the last before a crash: a
//! shorter log, the leader's snapshot in place of everything, nothing at all.

use super::log_reader::LogReader;
use super::names::{files, log_zxid, snapshot_zxid};
use super::snapshot_writer::TEMPORARY;
use super::txn_log::dir_of;
use super::{Dirs, Disk, StorageError, snapshot_name};
use std::path::{Path, PathBuf};

/// A received snapshot that is being installed: from here on it is what counts, and what else there is goes.
const INSTALLING: &str = "install.";

/// The name of a snapshot that arrives over a link. A start removes it, unless it is being installed.
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
    disk.rename(&temporary, path).map_err(StorageError::io("rename", &temporary))?;
    let dir = dir_of(path);
    disk.sync_dir(dir).map_err(StorageError::io("sync", dir))
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
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(StorageError::io("remove", path)(error)),
        Ok(()) => disk.sync_dir(dir_of(path)).map_err(StorageError::io("sync", dir_of(path))),
    }
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
    // Without a newer record the padding stays; nothing is appended to this file any more.
    if let Some(end) = end {
        disk.truncate(last, end).map_err(StorageError::io("truncate", last))?;
    }
    Ok(true)
}

/// Puts the snapshot `received` in place of all snapshots and logs. The rename to its own name is the point from which
/// a crash ends in the new state.
pub fn install(disk: &dyn Disk, dirs: &Dirs, received: &Path, zxid: i64) -> Result<(), StorageError> {
    let installing = dirs.data.join(format!("{INSTALLING}{}", snapshot_name(zxid)));
    disk.rename(received, &installing).map_err(StorageError::io("rename", received))?;
    disk.sync_dir(&dirs.data).map_err(StorageError::io("sync", &dirs.data))?;
    finish_install(disk, dirs).map(drop)
}

/// Does what is left to do of an installation, if one was begun.
pub(super) fn finish_install(disk: &dyn Disk, dirs: &Dirs) -> Result<Option<PathBuf>, StorageError> {
    let names = disk.list(&dirs.data).map_err(StorageError::io("list", &dirs.data))?;
    let mut begun = names.iter().filter_map(|(name, _)| Some((name, name.strip_prefix(INSTALLING)?)));
    let Some((name, snapshot)) = begun.next_back() else { return Ok(None) };
    let (installing, path) = (dirs.data.join(name), dirs.data.join(snapshot));
    clear(disk, dirs)?;
    disk.rename(&installing, &path).map_err(StorageError::io("rename", &installing))?;
    disk.sync_dir(&dirs.data).map_err(StorageError::io("sync", &dirs.data))?;
    Ok(Some(path))
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
