//! Which files an argument means: a log, a snapshot, or all of a directory.

use super::outcome::ToolError;
use crate::model::Zxid;
use crate::storage::{Dirs, Disk, FileKind, RealDisk, kind_of, logs_in};
use std::path::{Path, PathBuf};

/// A dataDir, a dataLogDir, or their `version-2`: where the files are.
pub fn version_dir(dir: &Path) -> PathBuf {
    let inside = dir.join("version-2");
    if inside.is_dir() { inside } else { dir.to_path_buf() }
}

/// Snapshots in `dir`, logs there as well if no other directory is named for them.
pub fn dirs(dir: &Path, log_dir: Option<&Path>) -> Dirs {
    let data = version_dir(dir);
    Dirs { log: log_dir.map_or_else(|| data.clone(), version_dir), data }
}

/// A file that must be a log.
pub fn log_file(path: &Path) -> Result<PathBuf, ToolError> {
    match kind_of(&RealDisk, path)? {
        FileKind::Log => Ok(path.to_path_buf()),
        FileKind::Snapshot => Err(ToolError::IsSnapshot { path: path.to_path_buf() }),
        FileKind::Foreign => Err(ToolError::Foreign { path: path.to_path_buf() }),
    }
}

/// A file that must be a snapshot.
pub fn snapshot_file(path: &Path) -> Result<PathBuf, ToolError> {
    match kind_of(&RealDisk, path)? {
        FileKind::Snapshot => Ok(path.to_path_buf()),
        FileKind::Log => Err(ToolError::IsLog { path: path.to_path_buf() }),
        FileKind::Foreign => Err(ToolError::Foreign { path: path.to_path_buf() }),
    }
}

/// The logs that the arguments mean: files as they are named, those of directories by rising zxid. Of a directory, files
/// that end before `from` are left out.
pub fn logs(named: &[PathBuf], from: Zxid) -> Result<Vec<PathBuf>, ToolError> {
    let mut found = Vec::new();
    for path in named {
        if !path.is_dir() {
            found.push(log_file(path)?);
            continue;
        }
        let logs = logs_in(&RealDisk, &version_dir(path))?;
        if logs.is_empty() {
            return Err(ToolError::NoFiles { dir: path.clone(), what: "transaction logs" });
        }
        let first = logs.iter().rposition(|(zxid, _)| *zxid <= from).unwrap_or(0);
        found.extend(logs.into_iter().skip(first).map(|(_, path)| path));
    }
    Ok(found)
}

/// The new file that `to` means: itself, or one in the directory that it is, with the name of `like`.
pub fn new_file(to: &Path, like: &Path) -> Result<PathBuf, ToolError> {
    let path = match (to.is_dir(), like.file_name()) {
        (true, Some(name)) => to.join(name),
        (true, None) | (false, _) => to.to_path_buf(),
    };
    // The disk says so again where it is made: this only says it before the work is done.
    match RealDisk.open(&path) {
        Ok(_) => Err(ToolError::Exists { path }),
        Err(_) => Ok(path),
    }
}
