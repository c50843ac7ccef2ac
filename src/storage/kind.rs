//! What a file is, by its first bytes, or else by its name.

use super::names::{log_zxid, snapshot_zxid};
use super::{Disk, StorageError, record, snapshot_writer};
use std::path::Path;

/// How compressed files begin.
const GZIP: [u8; 2] = [0x1f, 0x8b];
const SNAPPY: [u8; 4] = *b"\x82SNA";

/// What a file was made as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileKind {
    /// A transaction log.
    Log,
    /// A snapshot, plain or compressed.
    Snapshot,
    /// Neither.
    Foreign,
}

/// Looks at a file. Its bytes count first: a name can be given to anything. A damaged file may have no other than its name.
pub fn kind_of(disk: &dyn Disk, path: &Path) -> Result<FileKind, StorageError> {
    let mut file = disk.open(path).map_err(StorageError::io("open", path))?;
    let mut magic = [0; 4];
    let count = file.read_at(0, &mut magic).map_err(StorageError::io("read", path))?;
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    // `torn.log.…`, `staged.snapshot.…`, and the like.
    let named = |prefix: &str| name.find(prefix).map(|at| &name[at..]);
    let ends_with = |suffix| path.extension().is_some_and(|extension| extension == suffix);
    Ok(match &magic[..count] {
        bytes if bytes == record::MAGIC => FileKind::Log,
        bytes if bytes == snapshot_writer::MAGIC => FileKind::Snapshot,
        bytes if bytes.starts_with(&GZIP) && ends_with("gz") => FileKind::Snapshot,
        bytes if bytes == SNAPPY && ends_with("snappy") => FileKind::Snapshot,
        _ if named("snapshot.").and_then(snapshot_zxid).is_some() => FileKind::Snapshot,
        _ if named("log.")
            .and_then(|name| log_zxid(name.split('.').take(2).collect::<Vec<_>>().join(".").as_str()))
            .is_some() =>
        {
            FileKind::Log
        }
        _ => FileKind::Foreign,
    })
}
