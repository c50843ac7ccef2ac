//! The only room with files: transaction logs, snapshots, epochs, and what can be made of them after a crash.
//! All formats are those of a Java server.

#![cfg_attr(
    not(test),
    warn(
        missing_docs,
        unreachable_pub,
        clippy::allow_attributes_without_reason,
        clippy::cast_possible_truncation,
        clippy::wildcard_enum_match_arm
    )
)]

mod cursor;
mod debt;
mod disk;
mod epochs;
mod install;
mod kept;
mod lock;
mod log_reader;
mod names;
mod real_disk;
mod record;
mod recovery;
mod retention;
mod segment;
mod small_file;
mod snapshot_reader;
mod snapshot_writer;
#[cfg(test)]
mod tests;
mod txn_log;

pub use cursor::{LogCursor, newest_snapshots};
pub use debt::{read_debt, write_debt};
pub use disk::{Disk, ReadFile, SegmentFile, WriteFile};
pub use epochs::Epochs;
pub use install::{Cut, install, stage, truncate, unstage, wipe};
pub use kept::Kept;
pub use lock::DirLock;
pub use log_reader::{LogEnd, LogReader, LogRecord, Lost};
pub use names::{Dirs, log_name, received_name, snapshot_name};
pub use real_disk::RealDisk;
pub use record::{MAX_UNSYNCED, RECORD_FRAME};
pub use recovery::{Note, Progress, Recovered, Restore, recover, reread};
pub use retention::purge;
pub use small_file::{read_whole, remove_if_there, write_whole};
pub use snapshot_reader::{SnapshotReader, SnapshotSeal};
pub use snapshot_writer::SnapshotWriter;
pub use txn_log::{LogOptions, TxnLog};

use std::io;
use std::path::{Path, PathBuf};

/// What is wrong with a file. Every message names it.
#[derive(Debug, thiserror::Error)]
pub enum StorageError {
    /// The system refused an operation.
    #[error("cannot {op} {}: {source}", file.display())]
    Io {
        /// The operation.
        op: &'static str,
        /// The file or directory.
        file: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// A file does not hold what it should.
    #[error("{} is damaged at offset {offset}: {what}. {}", file.display(), DAMAGE_ADVICE)]
    Damaged {
        /// The file.
        file: PathBuf,
        /// Where, in bytes.
        offset: u64,
        /// What is wrong there.
        what: String,
    },
    /// This server does not go on, for the reason that is given.
    #[error("{0}")]
    Refused(String),
}

/// Says whether a snapshot can be read to its end.
pub type LoadCheck<'a> = dyn Fn(&Path) -> bool + 'a;

/// A number of bytes as a length in memory: none is more than the machine can address.
fn len_of(bytes: u64) -> usize {
    usize::try_from(bytes).unwrap_or(usize::MAX)
}

const DAMAGE_ADVICE: &str =
    "Nothing was changed; restore the file from a backup, or this server's data from another server";

impl StorageError {
    fn io(op: &'static str, file: &Path) -> impl FnOnce(io::Error) -> StorageError {
        move |source| StorageError::Io { op, file: file.to_path_buf(), source }
    }

    fn damaged(file: &Path, offset: u64, what: impl Into<String>) -> StorageError {
        StorageError::Damaged { file: file.to_path_buf(), offset, what: what.into() }
    }
}
