//! The writer of the transaction log: segments `log.<zxid>`, allocated ahead, one sync for everything that waits.

use super::names::STAGED;
use super::record::{END_OF_RECORD, FRAME_LEN, HEADER_LEN, finished_len, header};
use super::synced::{Synced, SyncedFile, forget_synced};
use super::{Disk, SegmentFile, Space, StorageError, is_full, log_name};
use crate::model::{Room, Zxid};
use std::path::PathBuf;
use std::sync::Arc;

/// The smallest allocation that is tried on a disk that is almost full.
const MIN_ALLOCATION: u64 = 64 << 10;

/// What is allocated ahead of the last record, if the disk has it: for what is under way when the disk turns out to be full. A
/// part of what a segment grows by, and no more than this.
const MAX_RESERVE: u64 = 16 << 20;

/// A part of a small disk.
const SMALL_PART: u64 = 32;
/// A disk that does not say what it has, or was not asked yet, is taken to have enough.
const UNKNOWN: Space = Space { free: u64::MAX, size: u64::MAX };

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
    /// The last transaction that was synced.
    synced_zxid: Zxid,
    /// Room was low when that was last looked at.
    is_low: bool,
    /// What the disk had then.
    space: Space,
    /// Where it is stored how far the log is synced, once it was.
    synced: Option<SyncedFile>,
    /// The segment that was synced last, and where it ends, of those after the last restart.
    newest: Option<(Zxid, u64)>,
    /// Which start of the machine this is.
    boot: u64,
    /// An append or a sync failed, and not for want of room: what is on the disk is not known, and asking again would not tell.
    failed: bool,
}

struct Segment {
    /// Its first transaction.
    first: Zxid,
    file: Box<dyn SegmentFile>,
    path: PathBuf,
    position: u64,
    /// Synced up to here.
    synced: u64,
    dirty: bool,
    /// Its name is not durable yet.
    created: bool,
}

impl Segment {
    /// Bytes that are allocated after the last record.
    fn ahead(&self) -> u64 {
        self.file.len().saturating_sub(self.position)
    }

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
            boot: disk.boot(),
            disk,
            dir,
            options,
            segment: None,
            unsynced: Vec::new(),
            mark: "",
            last_zxid,
            synced_zxid: last_zxid,
            is_low: false,
            space: UNKNOWN,
            synced: None,
            newest: None,
            failed: false,
        }
    }

    /// Writes one transaction: header, record, digest. Not durable before [`Self::sync`]. Where the disk has no room, all is as after
    /// the last sync: what was appended since then must be appended again.
    pub fn append(&mut self, zxid: Zxid, body: &[u8]) -> Result<(), StorageError> {
        self.check()?;
        assert!(zxid > self.last_zxid, "zxid {zxid} after {}", self.last_zxid);
        let done = self.try_append(zxid, body);
        self.judge(done)
    }

    /// Only a disk without room may be asked again, and for everything since the last sync: the system may have dropped it.
    fn judge(&mut self, done: Result<(), StorageError>) -> Result<(), StorageError> {
        match &done {
            Ok(()) => {}
            Err(error) if error.is_full() => {
                if let Some(segment) = &mut self.segment {
                    segment.position = segment.synced;
                }
                self.last_zxid = self.synced_zxid;
            }
            Err(_) => self.failed = true,
        }
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
        segment.dirty = true;
        let record: [&[u8]; 3] = [&len.to_be_bytes(), body, &[END_OF_RECORD]];
        // The first record takes the header along, as often as it is appended.
        let begun = match segment.position {
            HEADER_LEN => segment.file.write(0, &header(self.last_zxid), &[]),
            _ => Ok(()),
        };
        begun
            .and_then(|()| segment.file.write(segment.position, &checksum, &record))
            .map_err(StorageError::io("write", &segment.path))?;
        segment.position += framed;
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
        let file = file.expect("allocate() made it");
        let (position, synced) = (HEADER_LEN, HEADER_LEN);
        Ok(Segment { first: zxid, file, path, position, synced, dirty: true, created: true })
    }

    /// Makes everything appended durable. After an error nothing more is written and no sync is tried again: the
    /// system may have dropped the pages that failed. Where the disk has no room, they are appended again first.
    pub fn sync(&mut self) -> Result<(), StorageError> {
        self.check()?;
        let done = self.try_sync();
        self.judge(done)?;
        if let Some(segment) = &mut self.segment {
            segment.synced = segment.position;
        }
        self.synced_zxid = self.last_zxid;
        Ok(())
    }

    fn try_sync(&mut self) -> Result<(), StorageError> {
        let mut new_names = false;
        for segment in self.unsynced.iter_mut().chain(&mut self.segment) {
            if segment.dirty && self.options.force_sync {
                segment.file.sync().map_err(StorageError::io("sync", &segment.path))?;
            }
            segment.dirty = false;
            new_names |= segment.created;
        }
        if new_names && self.options.force_sync {
            self.disk.sync_dir(&self.dir).map_err(StorageError::io("sync", &self.dir))?;
        }
        // Not before: whoever has to ask again asks for the names again.
        self.unsynced.iter_mut().chain(&mut self.segment).for_each(|segment| segment.created = false);
        // One without a record, for which there was no room, says nothing.
        let newest = self.segment.as_ref().or(self.unsynced.last());
        if let Some(newest) = newest.filter(|newest| newest.position > HEADER_LEN) {
            self.newest = Some((newest.first, newest.position));
        }
        // What is staged does not count yet.
        if self.mark != STAGED {
            self.remember_synced()?;
        }
        self.unsynced.drain(..).for_each(Segment::finish);
        Ok(())
    }

    /// Stores how far the log is synced.
    fn remember_synced(&mut self) -> Result<(), StorageError> {
        let Some((segment, end)) = self.newest.filter(|_| self.options.force_sync) else { return Ok(()) };
        let synced = Synced { segment, end, last: self.last_zxid, boot: self.boot };
        let stored = match &mut self.synced {
            Some(file) => file.store(synced).map_err(StorageError::io("write", &self.dir)),
            None => SyncedFile::create(&*self.disk, &self.dir, synced).map(|file| self.synced = Some(file)),
        };
        // The older place, if there is one, is true still.
        stored.or_else(|error| if error.is_full() { Ok(()) } else { Err(error) })
    }

    /// What room there is, once it was tried to have the reserve allocated. Takes no longer than a file grows.
    pub fn look_for_room(&mut self) -> Room {
        self.space = self.disk.space(&self.dir).unwrap_or(UNKNOWN);
        self.is_low = !self.has_reserve();
        self.last_room()
    }

    /// The same as of the last look, and a new one where the reserve begins to be used.
    pub fn room(&mut self) -> Room {
        let uses_reserve = self.segment.as_ref().is_some_and(|segment| segment.ahead() < self.reserve());
        if uses_reserve && !self.is_low { self.look_for_room() } else { self.last_room() }
    }

    fn last_room(&self) -> Room {
        if self.is_low { Room::Low } else { Room::Enough }
    }

    /// What the disk had when room was last looked for, beside what is allocated.
    pub fn space(&self) -> Space {
        self.space
    }

    /// Bytes that are kept for what is under way when the disk turns out to be full.
    pub fn reserve(&self) -> u64 {
        (self.options.prealloc_bytes / 4).min(self.space.size / SMALL_PART).clamp(1, MAX_RESERVE)
    }

    /// Blocks that are allocated may be no use where the file system writes to other ones, or quotas count: so there must be
    /// free ones, too. It takes twice as many to come back as to be without.
    fn has_reserve(&mut self) -> bool {
        let (reserve, step) = (self.reserve(), self.options.prealloc_bytes);
        if self.space.free < reserve * if self.is_low { 2 } else { 1 } {
            return false;
        }
        let Some(segment) = &mut self.segment else { return true };
        if segment.ahead() >= reserve {
            return true;
        }
        let (file, needed) = (&mut segment.file, segment.position + reserve);
        // What else went wrong shows at the append that needs it.
        allocate(file.len(), needed, step, |len| file.grow(len)).is_ok()
    }

    /// To be called before something else than an append changes the files: how far they were synced says nothing then.
    pub fn forget_synced(&mut self) -> Result<(), StorageError> {
        self.synced = None;
        forget_synced(&*self.disk, &self.dir)
    }

    /// What was staged has taken the place of everything else, and counts from now on.
    pub fn restart_installed(&mut self) -> Result<(), StorageError> {
        assert!(self.segment.is_none() && self.unsynced.is_empty(), "it was rolled and synced before");
        self.mark = "";
        self.remember_synced()
    }

    /// Everything after `last_zxid` is gone from the files: the next append opens a new segment there.
    pub fn restart(&mut self, last_zxid: Zxid) {
        self.roll();
        assert!(self.unsynced.is_empty(), "what was appended is synced before files go");
        self.mark = "";
        self.newest = None;
        self.last_zxid = last_zxid;
        self.synced_zxid = last_zxid;
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
            Err(error) if is_full(&error) && len > needed && step > MIN_ALLOCATION => step /= 2,
            other => return other,
        }
    }
}
