//! Which snapshots and logs are no longer needed (`server/PurgeTxnLog`).

use super::kept::purge_kept;
use super::names::{files, log_zxid, snapshot_zxid};
use super::{Dirs, Disk, LoadCheck, StorageError};
use crate::model::Zxid;
use std::path::PathBuf;

/// Keeps the newest `keep` snapshots that `is_good` vouches for, and every log that one of them needs, and the newest
/// `keep` of the histories that were kept aside; removes what is older and returns its names.
pub fn purge(
    disk: &dyn Disk,
    dirs: &Dirs,
    keep: usize,
    is_good: &LoadCheck<'_>,
) -> Result<Vec<PathBuf>, StorageError> {
    let mut removed = purge_kept(disk, dirs, keep)?;
    let snapshots = files(disk, &dirs.data, snapshot_zxid)?;
    let good = snapshots.iter().rev().filter(|(zxid, path)| is_good(*zxid, path)).take(keep);
    let good: Vec<Zxid> = good.map(|(zxid, _)| *zxid).collect();
    let (Some(oldest), true) = (good.last().copied(), good.len() == keep) else { return Ok(removed) };
    let logs = files(disk, &dirs.log, log_zxid)?;
    // The newest log that starts at or before the oldest kept snapshot may hold what follows that snapshot.
    let first_log = logs.iter().map(|(zxid, _)| *zxid).filter(|zxid| *zxid <= oldest).max().unwrap_or(oldest);
    let old_snapshots = snapshots.into_iter().filter(|(zxid, _)| *zxid < oldest);
    let old_logs = logs.into_iter().filter(|(zxid, _)| *zxid < first_log);
    // Oldest first: what a crash leaves is still without a gap.
    for (_, path) in old_snapshots.chain(old_logs) {
        disk.remove(&path).map_err(StorageError::io("remove", &path))?;
        removed.push(path);
    }
    for dir in [&dirs.data, &dirs.log] {
        disk.sync_dir(dir).map_err(StorageError::io("sync", dir))?;
    }
    Ok(removed)
}
