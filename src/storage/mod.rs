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

mod bus_error;
mod cursor;
mod damage;
mod debt;
mod disk;
mod epochs;
mod install;
mod kept;
mod kind;
mod lock;
mod log_copy;
mod log_reader;
mod log_walk;
mod names;
mod packing;
mod real_disk;
mod record;
mod recovery;
mod retention;
mod segment;
mod small_file;
mod snapshot_reader;
mod snapshot_writer;
mod synced;
#[cfg(test)]
mod tests;
mod txn_log;

pub use bus_error::name_bus_errors;
pub use cursor::{LogCursor, newest_snapshots};
pub use damage::{BadRecord, Damage};
pub use debt::{read_debt, write_debt};
pub use disk::{Disk, ReadFile, SegmentFile, Space, WriteFile};
pub use epochs::Epochs;
pub use install::{Cut, install, last_shown, stage, truncate, unstage, wipe};
pub use kept::Kept;
pub use kind::{FileKind, kind_of};
pub use lock::DirLock;
pub use log_copy::LogCopy;
pub use log_reader::{LogEnd, LogReader, LogRecord, Lost};
pub use log_walk::{BadPlace, LogWalk, Step};
pub use names::{
    Dirs, log_name, log_zxid, logs_in, received_name, snapshot_name, snapshot_zxid, snapshots_in,
    unfinished_install,
};
pub use real_disk::RealDisk;
pub use record::{HEADER_LEN, MAX_UNSYNCED, RECORD_FRAME, follows, is_error, type_of};
pub use recovery::{
    Missing, Note, Progress, Recovered, Restore, Seen, Upto, load_snapshot, recover, reread, see, set_aside,
};
pub use retention::purge;
pub use small_file::{read_whole, remove_if_there, write_whole};
pub use snapshot_reader::{SnapshotReader, SnapshotSeal};
pub use snapshot_writer::{SnapshotWriter, Trailer};
pub use synced::{Synced, forget_synced, read_synced};
pub use txn_log::{LogOptions, TxnLog};

use crate::model::Zxid;
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
        what: Damage,
    },
    /// A server runs on this directory already.
    #[error(
        "another server (process {holder}) runs on the data directory {}; stop it or choose another dataDir",
        dir.display()
    )]
    InUse {
        /// Its process id, as the lock file says.
        holder: String,
        /// The directory.
        dir: PathBuf,
    },
    /// Of two directories, one holds a file that belongs in the other.
    #[error(
        "{} is {what} in {}; check {key}: dataDir and dataLogDir may be swapped",
        file.display(), dir.display()
    )]
    Misplaced {
        /// The file.
        file: PathBuf,
        /// "a snapshot" or "a transaction log".
        what: &'static str,
        /// Where the file is.
        dir: PathBuf,
        /// The key of `zoo.cfg` that names the directory.
        key: &'static str,
    },
    /// The log's format has no room for the length of such a record.
    #[error("a transaction of {0} bytes: no record can tell its length")]
    TooLong(usize),
    /// An append or a sync failed before: what is on the disk is not known.
    #[error("the log in {} failed before; restart the server", .0.display())]
    LogFailed(PathBuf),
    /// The files that this server goes back to lack something that they had.
    #[error("the files in {} and {} do not lead to {to} any more", data.display(), log.display())]
    Changed {
        /// The directory of the snapshots.
        data: PathBuf,
        /// The directory of the logs.
        log: PathBuf,
        /// The last transaction that they had.
        to: Zxid,
    },
}

/// Says whether a snapshot can be read to its end.
pub type LoadCheck<'a> = dyn Fn(Zxid, &Path) -> bool + 'a;

/// The disk has no room, or this user may have no more of it.
fn is_full(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOSPC | libc::EDQUOT))
}

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

    /// Whether the disk has no room for it, or this user may have no more: it may have some later.
    pub fn is_full(&self) -> bool {
        matches!(self, Self::Io { source, .. } if is_full(source))
    }

    /// Whether the disk does not give back what it holds.
    pub fn is_unreadable(&self) -> bool {
        matches!(self, Self::Io { op: "read", source, .. } if source.raw_os_error() == Some(libc::EIO))
    }

    /// Whether what a file holds is not what was written to it.
    pub fn is_damage(&self) -> bool {
        matches!(self, Self::Damaged { .. }) || self.is_unreadable()
    }

    /// What is wrong and where, without what to do about it.
    pub fn place(&self) -> String {
        if let Self::Damaged { file, offset, what } = self {
            format!("{} is damaged at offset {offset}: {what}", file.display())
        } else {
            self.to_string()
        }
    }

    /// The error of a file that does not hold at `offset` what it should.
    pub fn damaged(file: &Path, offset: u64, what: impl Into<Damage>) -> StorageError {
        StorageError::Damaged { file: file.to_path_buf(), offset, what: what.into() }
    }
}
