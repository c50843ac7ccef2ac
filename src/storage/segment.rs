//! A log segment on the real disk: allocated in full, mapped, filled, synced. The one place with `unsafe`.
#![allow(unsafe_code, reason = "a mapping of a file has no safe interface")]

use super::disk::SegmentFile;
use super::len_of;
use memmap2::{Advice, MmapMut, MmapOptions, UncheckedAdvice};
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::sync::atomic::{Ordering, compiler_fence};

const PAGE: u64 = 4096;
/// How many written bytes stay mapped before their pages are given back: the log is not read again.
const RELEASE: u64 = 1 << 20;

pub(super) struct MappedSegment {
    file: File,
    len: u64,
    map: MmapMut,
    /// Where in the file the mapping begins: a page boundary.
    map_start: u64,
    /// Written up to here.
    written: u64,
    /// Pages before this were given back.
    released: u64,
}

impl MappedSegment {
    pub(super) fn create(path: &Path, len: u64) -> io::Result<Self> {
        let file = OpenOptions::new().read(true).write(true).create_new(true).open(path)?;
        let made = allocate(&file, 0, len).and_then(|()| map(&file, 0, len));
        match made {
            Ok(map) => Ok(Self { file, len, map, map_start: 0, written: 0, released: 0 }),
            Err(error) => {
                // Without its blocks the file is of no use; its name is needed for the next try.
                let _ = std::fs::remove_file(path);
                Err(error)
            }
        }
    }
}

impl SegmentFile for MappedSegment {
    fn len(&self) -> u64 {
        self.len
    }

    fn grow(&mut self, len: u64) -> io::Result<()> {
        allocate(&self.file, self.len, len - self.len)?;
        let start = self.written / PAGE * PAGE;
        self.map = map(&self.file, start, len - start)?;
        self.map_start = start;
        self.released = start;
        self.len = len;
        Ok(())
    }

    fn write(&mut self, offset: u64, bytes: &[u8]) {
        let at = len_of(offset - self.map_start);
        self.map[at..at + bytes.len()].copy_from_slice(bytes);
        // A process that is killed has made its stores in this order.
        compiler_fence(Ordering::SeqCst);
        self.written = self.written.max(offset + bytes.len() as u64);
    }

    fn sync(&mut self) -> io::Result<()> {
        // By file, not by mapping: it covers what an earlier window wrote.
        self.file.sync_data()?;
        let whole = self.written / PAGE * PAGE;
        if whole - self.released >= RELEASE {
            let (from, len) = (len_of(self.released - self.map_start), len_of(whole - self.released));
            // SAFETY: the mapping is shared and file-backed, so dropping pages loses nothing: the bytes are in the
            // file, just synced; and no reference into the mapping is alive here.
            unsafe { self.map.unchecked_advise_range(UncheckedAdvice::DontNeed, from, len)? };
            self.released = whole;
        }
        Ok(())
    }

    fn cut(self: Box<Self>, len: u64) -> io::Result<()> {
        let Self { file, map, .. } = *self;
        // First of all: a store after the end of the file would be a signal.
        drop(map);
        file.set_len(len)
    }
}

/// Real blocks, so that a full disk is an error here and never a signal at a write into the mapping.
fn allocate(file: &File, from: u64, len: u64) -> io::Result<()> {
    // SAFETY: a plain system call on a descriptor that `file` keeps open.
    match unsafe { libc::posix_fallocate(file.as_raw_fd(), from as libc::off_t, len as libc::off_t) } {
        0 => Ok(()),
        error => Err(io::Error::from_raw_os_error(error)),
    }
}

fn map(file: &File, start: u64, len: u64) -> io::Result<MmapMut> {
    // SAFETY: the file was created by this process and the data directory's lock keeps other servers out; this one
    // shortens it in `cut` alone, where the mapping is gone.
    let map = unsafe { MmapOptions::new().offset(start).len(len_of(len)).map_mut(file)? };
    // Written from front to back and never read: without this, one page fault may read (and zero) megabytes ahead,
    // which a writer feels as a pause of 20 ms.
    map.advise(Advice::Random)?;
    Ok(map)
}
