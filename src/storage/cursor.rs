//! Reads on in a log that is still written: what a leader sends to learners that have fallen far back.

use super::log_reader::{Doubt, LogEnd, LogReader, LogRecord};
use super::names::{Shown, files, log_zxid, snapshot_zxid};
use super::record::follows;
use super::{Damage, Dirs, Disk, StorageError};
use crate::model::{Place, Zxid};
use bytes::Bytes;
use std::path::PathBuf;
use std::sync::Arc;

/// Reads records in order, over the borders of files.
pub struct LogCursor {
    disk: Arc<dyn Disk>,
    /// Files that come next, the nearest last.
    files: Vec<(Zxid, PathBuf)>,
    reader: Option<LogReader>,
    /// The last record that was passed.
    last: Option<Zxid>,
    /// Its body, where it was sought.
    sought: Option<Bytes>,
    doubt: Option<Doubt>,
    /// What a snapshot shows may be in no log, where a torn end was cut off. The next epoch's log continues after it.
    shown: Shown,
    /// A record that was read and not taken.
    ahead: Option<LogRecord>,
    bytes: u64,
}

impl LogCursor {
    /// Goes to the place after `zxid`, and returns what is there.
    pub fn seek(disk: Arc<dyn Disk>, dirs: &Dirs, zxid: Zxid) -> Result<(Self, Place), StorageError> {
        let logs = files(&*disk, &dirs.log, log_zxid)?;
        let first = logs.iter().rposition(|(start, _)| *start <= zxid).unwrap_or(0);
        let shown = Shown::new(&files(&*disk, &dirs.data, snapshot_zxid)?);
        let files: Vec<_> = logs[first..].iter().rev().cloned().collect();
        let mut cursor = Self {
            disk,
            files,
            reader: None,
            last: None,
            sought: None,
            doubt: None,
            shown,
            ahead: None,
            bytes: 0,
        };
        let place = loop {
            match cursor.read()? {
                Some(record) if record.zxid < zxid => {
                    cursor.last = Some(record.zxid);
                    cursor.sought = Some(record.body);
                }
                Some(record) if record.zxid == zxid => {
                    cursor.last = Some(zxid);
                    cursor.sought = Some(record.body);
                    break Place::Within;
                }
                other => {
                    cursor.ahead = other;
                    break cursor.place_before(zxid);
                }
            }
        };
        Ok((cursor, place))
    }

    /// Where `zxid` is, which is no record's: those before it were passed, the one ahead comes after it.
    fn place_before(&mut self, zxid: Zxid) -> Place {
        let next = self.ahead.as_ref().map(|record| record.zxid);
        let goes_on = next.is_none_or(|next| follows(zxid, next));
        if self.shown.has(zxid) && goes_on && !self.is_hole(zxid, next) {
            (self.last, self.sought) = (Some(zxid), None);
            return Place::Within;
        }
        match self.last {
            None => Place::Older,
            Some(before) if self.is_hole(before, next) => Place::Older,
            Some(_) if zxid.counter() == 0 => Place::Within,
            Some(before) => Place::Behind(before),
        }
    }

    /// Whether a transaction came after `last` and before `next`, the record that was read last, that no log has any more.
    fn is_hole(&self, last: Zxid, next: Option<Zxid>) -> bool {
        let begins_later = self.reader.as_ref().is_some_and(|reader| reader.begins_after_more_than(last));
        begins_later || self.shown.is_between(last, next)
    }

    /// The next record; none where the log ends for now. A gap is an error: it must not spread.
    #[allow(clippy::should_implement_trait, reason = "it can fail")]
    pub fn next(&mut self) -> Result<Option<LogRecord>, StorageError> {
        loop {
            let record = match self.ahead.take() {
                Some(record) => record,
                None => match self.read()? {
                    Some(record) => record,
                    None => return Ok(None),
                },
            };
            // A Java server of 3.9 repeats the last zxid for a request that did not decode.
            let zxid = record.zxid;
            if Some(zxid) <= self.last {
                continue;
            }
            let is_gap = |last| !follows(last, zxid) || self.is_hole(last, Some(zxid));
            if let Some(last) = self.last.filter(|last| is_gap(*last)) {
                let path = self.reader.as_ref().map(|reader| reader.path().to_path_buf()).unwrap_or_default();
                return Err(StorageError::damaged(&path, record.offset, Damage::Order { zxid, last }));
            }
            self.last = Some(zxid);
            return Ok(Some(record));
        }
    }

    fn read(&mut self) -> Result<Option<LogRecord>, StorageError> {
        loop {
            if let Some(reader) = &mut self.reader {
                if let Some(record) = reader.next()? {
                    Doubt::settle(&mut self.doubt, record.zxid)?;
                    self.bytes += record.body.len() as u64;
                    return Ok(Some(record));
                }
                if let Some(LogEnd::Damaged { offset, what, .. }) = reader.end() {
                    return Err(StorageError::damaged(reader.path(), *offset, what.clone()));
                }
                self.doubt = reader.doubt(self.last).or(self.doubt.take());
            }
            let Some((_, path)) = self.files.pop() else { return Ok(None) };
            // Only the newest file is still written.
            let open = if self.files.is_empty() { LogReader::open_growing } else { LogReader::open };
            self.reader = Some(open(&*self.disk, &path)?);
        }
    }

    /// The body of the record at the place that was sought, or of the one before it.
    pub fn sought(&self) -> Option<&[u8]> {
        self.sought.as_deref()
    }

    /// Bytes that were read.
    pub fn bytes_read(&self) -> u64 {
        self.bytes
    }

    /// Bytes that may lie ahead, with what was allocated and not written.
    pub fn bytes_ahead(&self) -> Result<u64, StorageError> {
        let mut sum = 0;
        for (_, path) in &self.files {
            sum += self.disk.open(path).map_err(StorageError::io("open", path))?.len();
        }
        Ok(sum + self.reader.as_ref().map_or(0, |reader| reader.len() - reader.position()))
    }
}

/// Snapshot files, the newest first, with their zxids.
pub fn newest_snapshots(disk: &dyn Disk, dirs: &Dirs) -> Result<Vec<(Zxid, PathBuf)>, StorageError> {
    let mut found = files(disk, &dirs.data, snapshot_zxid)?;
    found.reverse();
    Ok(found)
}
