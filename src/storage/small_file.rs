//! Small files, read and replaced as a whole; durable names.

use super::names::TEMPORARY;
use super::{Disk, StorageError, len_of};
use std::path::Path;

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

/// Reads a file as a whole.
pub fn read_whole(disk: &dyn Disk, path: &Path) -> Result<Vec<u8>, StorageError> {
    let mut file = disk.open(path).map_err(StorageError::io("open", path))?;
    let mut bytes = vec![0; len_of(file.len())];
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

/// Removes a file durably, if it is there.
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

/// Renames a file durably.
pub(super) fn rename(disk: &dyn Disk, from: &Path, to: &Path) -> Result<(), StorageError> {
    disk.rename(from, to).map_err(StorageError::io("rename", from))?;
    disk.sync_dir(dir_of(to)).map_err(StorageError::io("sync", dir_of(to)))
}

pub(super) fn dir_of(path: &Path) -> &Path {
    path.parent().unwrap_or(Path::new("."))
}
