//! The writer of the transaction log: segments `log.<zxid>`, allocated ahead, one sync for everything that waits.

use super::names::STAGED;
use super::record::{END_OF_RECORD, FRAME_LEN, HEADER_LEN, finished_len, header};
use super::synced::{Synced, SyncedFile, forget_synced};
use super::{Disk, SegmentFile, StorageError, log_name};
use crate::model::Zxid;
use std::path::PathBuf;
use std::sync::Arc;

/// The smallest allocation that is tried on a disk that is almost full.
const MIN_ALLOCATION: u64 = 64 << 10;

/// How the log is written.
#[derive(Debug, Clone, Copy)]
pub struct LogOptions {
    /// Bytes by which a segment grows (`preAllocSize`).
    pub prealloc_bytes: u64,
    /// `forceSync=no` leaves durability to the operating system.
    pub force_sync: bool,
}

/// The log that this process writes.
pub struct TxnLog {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    options: LogOptions,
    segment: Option<Segment>,
    /// Rolled segments with bytes that are not synced yet.
    unsynced: Vec<Segment>,
    /// Before the names of new segments.
    mark: &'static str,
    last_zxid: Zxid,
    /// Where it is stored how far the log is synced, once it was.
    synced: Option<SyncedFile>,
    /// An append or a sync failed: what is on the disk is not known, and asking again would not tell.
    failed: bool,
}

struct Segment {
    /// Its first transaction.
    first: Zxid,
    file: Box<dyn SegmentFile>,
    path: PathBuf,
    position: u64,
    dirty: bool,
    /// Its name is not durable yet.
    created: bool,
}

impl Segment {
    /// The file is finished: what was allocated ahead and not needed goes back to the disk. All that was written stays,
    /// so nothing waits for it: what a crash or an error leaves here is padding, and the next start takes it.
    fn finish(self) {
        let len = finished_len(self.position);
        if len < self.file.len() {
            let _ = self.file.cut(len);
        }
    }
}

impl TxnLog {
    /// Appends continue after `last_zxid`, in a new segment.
    pub fn new(disk: Arc<dyn Disk>, dir: PathBuf, options: LogOptions, last_zxid: Zxid) -> Self {
        Self {
            disk,
            dir,
            options,
            segment: None,
            unsynced: Vec::new(),
            mark: "",
            last_zxid,
            synced: None,
            failed: false,
        }
    }

    /// Writes one transaction: header, record, digest. Not durable before [`Self::sync`].
    pub fn append(&mut self, zxid: Zxid, body: &[u8]) -> Result<(), StorageError> {
        self.check()?;
        assert!(zxid > self.last_zxid, "zxid {zxid} after {}", self.last_zxid);
        let done = self.try_append(zxid, body);
        self.failed |= done.is_err();
        done
    }

    fn try_append(&mut self, zxid: Zxid, body: &[u8]) -> Result<(), StorageError> {
        let len = i32::try_from(body.len()).map_err(|_| StorageError::TooLong(body.len()))?;
        let framed = FRAME_LEN + body.len() as u64 + 1;
        if self.segment.is_none() {
            self.segment = Some(self.open_segment(zxid, framed)?);
        }
        let prealloc = self.options.prealloc_bytes;
        let segment = self.segment.as_mut().expect("opened above");
        // A zero length must always follow the last record.
        if segment.position + framed + FRAME_LEN > segment.file.len() {
            let (file, position) = (&mut segment.file, segment.position);
            let needed = position + framed + FRAME_LEN;
            allocate(position.max(file.len()), needed, prealloc, |len| file.grow(len))
                .map_err(StorageError::io("grow", &segment.path))?;
        }
        // The checksum comes last: where it is zero, the process ended while it wrote the rest.
        let checksum = u64::from(simd_adler32::adler32(&body)).to_be_bytes();
        segment.file.write(segment.position + 8, &len.to_be_bytes());
        segment.file.write(segment.position + FRAME_LEN, body);
        segment.file.write(segment.position + framed - 1, &[END_OF_RECORD]);
        segment.file.write(segment.position, &checksum);
        segment.position += framed;
        segment.dirty = true;
        self.last_zxid = zxid;
        Ok(())
    }

    fn open_segment(&self, zxid: Zxid, framed: u64) -> Result<Segment, StorageError> {
        let path = self.dir.join(format!("{}{}", self.mark, log_name(zxid)));
        let needed = HEADER_LEN + framed + FRAME_LEN;
        let mut file = None;
        allocate(0, needed, self.options.prealloc_bytes + HEADER_LEN, |len| {
            file = Some(self.disk.segment(&path, len)?);
            Ok(())
        })
        .map_err(StorageError::io("create", &path))?;
        let mut file = file.expect("allocate() made it");
        file.write(0, &header(self.last_zxid));
        Ok(Segment { first: zxid, file, path, position: HEADER_LEN, dirty: true, created: true })
    }

    /// Makes everything appended durable. After an error nothing more is written and no sync is tried again: the
    /// system may have dropped the pages that failed.
    pub fn sync(&mut self) -> Result<(), StorageError> {
        self.check()?;
        let done = self.try_sync();
        self.failed |= done.is_err();
        done
    }

    fn try_sync(&mut self) -> Result<(), StorageError> {
        let mut new_names = false;
        for segment in self.unsynced.iter_mut().chain(&mut self.segment) {
            if segment.dirty && self.options.force_sync {
                segment.file.sync().map_err(StorageError::io("sync", &segment.path))?;
            }
            segment.dirty = false;
            new_names |= std::mem::take(&mut segment.created);
        }
        if new_names && self.options.force_sync {
            self.disk.sync_dir(&self.dir).map_err(StorageError::io("sync", &self.dir))?;
        }
        self.remember_synced()?;
        self.unsynced.drain(..).for_each(Segment::finish);
        Ok(())
    }

    /// Stores how far the log is synced. What is staged does not count yet.
    fn remember_synced(&mut self) -> Result<(), StorageError> {
        let Some(newest) = self.segment.as_ref().or(self.unsynced.last()) else { return Ok(()) };
        if !self.options.force_sync || self.mark == STAGED {
            return Ok(());
        }
        let synced = Synced { segment: newest.first, end: newest.position, last: self.last_zxid };
        if let Some(file) = &mut self.synced {
            file.store(synced);
            return Ok(());
        }
        match SyncedFile::create(&*self.disk, &self.dir, synced) {
            Ok(file) => self.synced = Some(file),
            // The older place, if there is one, is true still.
            Err(StorageError::Io { source, .. }) if source.raw_os_error() == Some(libc::ENOSPC) => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// To be called before something else than an append changes the files: how far they were synced says nothing then.
    pub fn forget_synced(&mut self) -> Result<(), StorageError> {
        self.synced = None;
        forget_synced(&*self.disk, &self.dir)
    }

    /// Everything after `last_zxid` is gone from the files: the next append opens a new segment there.
    pub fn restart(&mut self, last_zxid: Zxid) {
        self.roll();
        assert!(self.unsynced.is_empty(), "what was appended is synced before files go");
        self.mark = "";
        self.last_zxid = last_zxid;
    }

    /// What comes now follows a staged snapshot: until the next restart, segments are staged too.
    pub fn restart_staged(&mut self, last_zxid: Zxid) {
        self.restart(last_zxid);
        self.mark = STAGED;
    }

    /// The last transaction that was appended.
    pub fn last_zxid(&self) -> Zxid {
        self.last_zxid
    }

    /// The next append opens a new segment.
    pub fn roll(&mut self) {
        match self.segment.take() {
            Some(segment) if segment.dirty || segment.created => self.unsynced.push(segment),
            Some(segment) => segment.finish(),
            None => {}
        }
    }

    /// The end of the log's writing, with everything durable.
    pub fn close(mut self) -> Result<(), StorageError> {
        self.roll();
        self.sync()
    }

    /// Bytes in the open segment.
    pub fn position(&self) -> u64 {
        self.segment.as_ref().map_or(0, |segment| segment.position)
    }

    fn check(&self) -> Result<(), StorageError> {
        if self.failed {
            return Err(StorageError::LogFailed(self.dir.clone()));
        }
        Ok(())
    }
}

/// Allocates up to a multiple of `step` after `from`, at least to `needed`. Where the disk has less, half the step is
/// tried, and again: so that the last blocks are used before the server has to stop.
fn allocate(
    from: u64,
    needed: u64,
    step: u64,
    mut try_len: impl FnMut(u64) -> std::io::Result<()>,
) -> std::io::Result<()> {
    let mut step = step.max(MIN_ALLOCATION);
    loop {
        let len = needed.max(from + step);
        match try_len(len) {
            Err(error)
                if error.raw_os_error() == Some(libc::ENOSPC) && len > needed && step > MIN_ALLOCATION =>
            {
                step /= 2;
            }
            other => return other,
        }
    }
}
