//! One server per data directory.

use super::StorageError;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Write};
use std::path::Path;

/// Held as long as the server runs; the system lets go of it with the process, however that ends.
#[derive(Debug)]
pub struct DirLock {
    _file: File,
}

impl DirLock {
    /// Locks the directory. An error, which names the other process, if another server runs on it.
    pub fn take(dir: &Path) -> Result<Self, StorageError> {
        let path = dir.join("zabra.lock");
        let open = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path);
        let mut file = open.map_err(StorageError::io("open", &path))?;
        match file.try_lock() {
            Ok(()) => {
                let told = file.set_len(0).and_then(|()| write!(file, "{}", std::process::id()));
                match told {
                    // It is locked all the same.
                    Err(error) if super::is_full(&error) => {}
                    told => told.map_err(StorageError::io("write", &path))?,
                }
                Ok(Self { _file: file })
            }
            Err(TryLockError::WouldBlock) => {
                let mut holder = String::new();
                let _ = file.read_to_string(&mut holder);
                Err(StorageError::InUse { holder, dir: dir.to_path_buf() })
            }
            Err(TryLockError::Error(source)) => Err(StorageError::Io { op: "lock", file: path, source }),
        }
    }
}
