//! A new log with records of another one: a part of it that is good.

use super::record::{END_OF_RECORD, finished_len, header};
use super::small_file::dir_of;
use super::{Disk, LogRecord, RealDisk, StorageError};
use crate::model::Zxid;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

/// The copy that is written. It is removed if it is dropped before [`Self::finish`].
pub struct LogCopy {
    file: BufWriter<File>,
    path: PathBuf,
    len: u64,
    finished: bool,
}

impl LogCopy {
    /// A file of this name must not exist.
    pub fn create(path: &Path) -> Result<Self, StorageError> {
        let file = File::create_new(path).map_err(StorageError::io("create", path))?;
        let file = BufWriter::with_capacity(1 << 20, file);
        let mut copy = Self { file, path: path.to_path_buf(), len: 0, finished: false };
        copy.write(&header(Zxid::ZERO))?;
        Ok(copy)
    }

    /// Appends a record, byte for byte.
    pub fn append(&mut self, record: &LogRecord) -> Result<(), StorageError> {
        let len = i32::try_from(record.body.len()).map_err(|_| StorageError::TooLong(record.body.len()))?;
        self.write(&u64::from(record.checksum).to_be_bytes())?;
        self.write(&len.to_be_bytes())?;
        self.write(&record.body)?;
        self.write(&[END_OF_RECORD])
    }

    /// Ends it with the padding of a finished log, and makes it durable.
    pub fn finish(mut self) -> Result<(), StorageError> {
        self.file.flush().map_err(StorageError::io("write", &self.path))?;
        let file = self.file.get_ref();
        file.set_len(finished_len(self.len)).map_err(StorageError::io("write", &self.path))?;
        file.sync_all().map_err(StorageError::io("sync", &self.path))?;
        let dir = dir_of(&self.path);
        RealDisk.sync_dir(dir).map_err(StorageError::io("sync", dir))?;
        self.finished = true;
        Ok(())
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), StorageError> {
        self.len += bytes.len() as u64;
        self.file.write_all(bytes).map_err(StorageError::io("write", &self.path))
    }
}

impl Drop for LogCopy {
    fn drop(&mut self) {
        if !self.finished {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}
