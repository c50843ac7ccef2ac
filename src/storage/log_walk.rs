//! Everything that is left in a log: its good records, and each place between them that is none.

use super::{BadRecord, Disk, LogEnd, LogReader, LogRecord, Lost, StorageError};
use crate::model::Zxid;
use std::fmt;
use std::path::Path;

/// What comes next in a log.
#[derive(Debug, PartialEq, Eq)]
pub enum Step {
    /// A good record.
    Record(LogRecord),
    /// Bytes that are no record.
    Bad(BadPlace),
    /// Nothing but padding, or nothing.
    End {
        /// Where it begins.
        offset: u64,
    },
}

/// Bytes that are no record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadPlace {
    /// Where they begin.
    pub offset: u64,
    /// What is wrong with them.
    pub what: BadRecord,
    /// Where the next good record begins. None: there is none, and the log ends here.
    pub good: Option<u64>,
    /// A server takes them for a write that a crash cut short, and cuts the log here.
    pub is_torn: bool,
    /// They may have been acknowledged.
    pub is_loss: bool,
}

impl fmt::Display for BadPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { offset, what, good, is_torn, is_loss } = self;
        match (good, is_torn, is_loss) {
            (Some(good), true, _) => write!(
                f,
                "torn at offset {offset}: {what}; a good record follows at {good}, and a server cuts the log before it"
            ),
            (Some(good), false, _) => {
                write!(f, "DAMAGED at offset {offset}: {what}; the next good record is at {good}")
            }
            (None, _, false) => write!(f, "torn at offset {offset}: {what}; a part of it was never written"),
            (None, _, true) => write!(
                f,
                "torn at offset {offset}: {what}; all of it is there and wrong, it may have been acknowledged"
            ),
        }
    }
}

/// Walks through one log, and over its bad places.
pub struct LogWalk {
    reader: LogReader,
}

impl LogWalk {
    /// From the beginning.
    pub fn open(disk: &dyn Disk, path: &Path) -> Result<Self, StorageError> {
        Ok(Self { reader: LogReader::open_inspected(disk, path)? })
    }

    /// Bytes that the file had when it was opened.
    pub fn file_len(&self) -> u64 {
        self.reader.len()
    }

    /// The last transaction before this log, if its header names one that comes after `last`: then what lies between is missing.
    pub fn begins_later(&self, last: Zxid) -> Option<Zxid> {
        self.reader.begins_after_more_than(last).then(|| self.reader.after())
    }

    /// The next step. After [`Step::End`], and after a bad place without a good record after it, there is only the end.
    #[allow(clippy::should_implement_trait, reason = "it can fail, and has an end of its own")]
    pub fn next(&mut self) -> Result<Step, StorageError> {
        if let Some(record) = self.reader.next()? {
            return Ok(Step::Record(record));
        }
        let bad = |offset, what, good, is_torn, is_loss| {
            Step::Bad(BadPlace { offset, what, good, is_torn, is_loss })
        };
        Ok(match self.reader.end().cloned().expect("next() came to the end") {
            LogEnd::Clean { offset } => Step::End { offset },
            LogEnd::Torn { offset, what, lost } => {
                let good = self.reader.resume()?;
                if good.is_none() {
                    self.reader.end_at(offset);
                }
                bad(offset, what, good, true, lost != Lost::Nothing || good.is_some())
            }
            LogEnd::Damaged { offset, what, good } => {
                self.reader.resume_at(good);
                bad(offset, what, Some(good), false, true)
            }
        })
    }
}
