//! What can be wrong with the bytes of a file. The error that holds it names the file and the place.

use super::recovery::Note;
use crate::model::Zxid;
use std::error::Error;
use std::io;

/// Why the bytes at a place of a log are no record.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadRecord {
    /// The file does not begin with the header of a log.
    #[error("no log header")]
    NoHeader,
    /// The file has a header and nothing after it.
    #[error("a header alone")]
    HeaderAlone,
    /// Fewer bytes are left than a record's frame takes.
    #[error("a record's frame is cut")]
    FrameCut,
    /// The frame says a length that no record here can have.
    #[error("a record of {length} bytes where {left} are left")]
    Length {
        /// In bytes, as the frame says.
        length: i32,
        /// Bytes of the file after the frame.
        left: u64,
    },
    /// The file became shorter while it was read.
    #[error("a record is cut")]
    Cut,
    /// The byte after the body is not `B`.
    #[error("a record ends with byte {0:#04x} instead of 0x42")]
    End(u8),
    /// Adler-32 of the body differs from what the frame says.
    #[error("checksum {actual:#x} where the record says {stated:#x}")]
    Checksum {
        /// Of the bytes that are there.
        actual: u32,
        /// As the frame says.
        stated: u64,
    },
    /// Zeros, which end a log, and other bytes after them.
    #[error("bytes after the padding")]
    AfterPadding,
}

/// What is wrong with a file.
#[derive(Debug, thiserror::Error)]
pub enum Damage {
    /// A log has bytes that are no record.
    #[error(transparent)]
    Record(#[from] BadRecord),
    /// A log has bytes that are no record, and good records after them.
    #[error("{what}, and a good record follows at offset {good}")]
    BeforeGoodRecord {
        /// What is wrong with them.
        what: BadRecord,
        /// Where the next good record begins, in bytes.
        good: u64,
    },
    /// A log ends in bytes that are no record, and it is not the newest one.
    #[error("{0}, and a later log follows")]
    BeforeLog(BadRecord),
    /// The newest log holds no transaction, and transactions before the one that it was made for are missing.
    #[error("{what}, and it was made for transaction {made_for}, where the last one found is {last}")]
    LogSkips {
        /// Why the log holds none.
        what: BadRecord,
        /// As its name says.
        made_for: Zxid,
        /// The last transaction before it.
        last: Zxid,
    },
    /// A transaction can't come right after the one before it.
    #[error("transaction {zxid} follows {last}")]
    Order {
        /// The transaction here.
        zxid: Zxid,
        /// The one before it.
        last: Zxid,
    },
    /// The log goes on later than what comes before it ends.
    #[error("transaction {zxid} follows {last}: what lies between is missing")]
    Gap {
        /// The transaction here.
        zxid: Zxid,
        /// The last one before it, from a snapshot or a log.
        last: Zxid,
    },
    /// The log was begun after more than there is.
    #[error(
        "this log was begun after transaction {after}, and the files before it end with {last}: what lies between is missing"
    )]
    BeginsLater {
        /// The last transaction before the log, as its header says.
        after: Zxid,
        /// The last one before it, from a snapshot or a log.
        last: Zxid,
    },
    /// The log does not begin where a history does, and there is no snapshot.
    #[error("there is no snapshot and the log begins at {0}: what came before is missing")]
    NoBeginning(Zxid),
    /// The log does not begin where a history does, and all snapshots are damaged.
    #[error("no snapshot is good and the log begins at {zxid}; {}", list(skipped))]
    NoGoodSnapshot {
        /// The log's first transaction.
        zxid: Zxid,
        /// What is wrong with each snapshot.
        skipped: Vec<Note>,
    },
    /// The name of a damaged snapshot proves transactions that no other file has.
    #[error("and without it there is nothing after {last}; {}", list(skipped))]
    OnlyProof {
        /// The last transaction that was found.
        last: Zxid,
        /// What is wrong with each damaged snapshot.
        skipped: Vec<Note>,
    },
    /// The log ends before what was synced, and acknowledged: its end is overwritten, or a file is gone.
    #[error(
        "the files end with transaction {last}, and this server had synced {synced}: what lies between is overwritten or missing. \
         If you put older files there to go back to them, delete zabra.synced beside the logs"
    )]
    EndMissing {
        /// The last transaction that is there.
        last: Zxid,
        /// The last one that was synced.
        synced: Zxid,
    },
    /// What a snapshot's body or a transaction holds is nothing that can be restored.
    #[error(transparent)]
    Content(Box<dyn Error + Send + Sync>),
    /// The file does not begin with the header of a snapshot.
    #[error("no snapshot header")]
    NoSnapshotHeader,
    /// A snapshot ends before its seals.
    #[error("the file ends too early")]
    EndsEarly,
    /// A compressed snapshot can't be unpacked.
    #[error("compressed data: {0}")]
    Compressed(io::Error),
    /// No form of a snapshot's end has this many bytes.
    #[error("{0} bytes after the first seal")]
    AfterSeal(usize),
    /// Adler-32 of the bytes before a seal differs from what the seal says.
    #[error("checksum {actual:#x} where the file says {stated:#x}")]
    Checksum {
        /// Of the bytes that are there.
        actual: u64,
        /// As the seal says.
        stated: u64,
    },
    /// A seal lacks the slash that ends it.
    #[error("a seal without its end")]
    SealCut,
    /// `acceptedEpoch` or `currentEpoch` holds something else.
    #[error("not an epoch: {0:?}")]
    NoEpoch(String),
    /// `zabra.debt` holds something else.
    #[error("no epoch and zxid: {0:?}")]
    NoDebt(String),
}

fn list(notes: &[Note]) -> String {
    let notes: Vec<_> = notes.iter().map(ToString::to_string).collect();
    notes.join("; ")
}
