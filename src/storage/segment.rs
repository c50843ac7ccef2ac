//! A log segment on the real disk: allocated ahead, filled, synced. Where the file system keeps the blocks that it has
//! allocated, the file is mapped and filled by stores; where it may write to other ones, a store could fail, and that is a
//! signal: there it is filled by writes, which fail with an error.
#![allow(unsafe_code, reason = "a mapping of a file has no safe interface")]

use super::bus_error::Watched;
use super::disk::SegmentFile;
use super::len_of;
use memmap2::{Advice, MmapMut, MmapOptions, UncheckedAdvice};
use rustix::fs::{FallocateFlags, fallocate, fstatfs};
use rustix::io::Errno;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{Ordering, compiler_fence};

const PAGE: u64 = 4096;
/// How many written bytes stay mapped before their pages are given back: the log is not read again.
const RELEASE: u64 = 1 << 20;
/// Bytes of zeros that are written at once.
const ZEROS: usize = 256 << 10;

/// File systems that write where they have allocated: ext2 to ext4, xfs, tmpfs. Others (btrfs, ZFS, f2fs, overlays, networks)
/// may have to find room for bytes that are written, though there are blocks for them.
const KEEP_BLOCKS: [u32; 3] = [0xef53, 0x5846_5342, 0x0102_1994];

/// A new file of `len` bytes, filled in the way that suits its file system.
pub(super) fn create(path: &Path, len: u64) -> io::Result<Box<dyn SegmentFile>> {
    let file = OpenOptions::new().read(true).write(true).create_new(true).open(path)?;
    let made = if keeps_blocks(&file) { fill(file, path, len) } else { WrittenSegment::new(file, len) };
    if made.is_err() {
        // Without its blocks the file is of no use; its name is needed for the next try.
        let _ = std::fs::remove_file(path);
    }
    made
}

fn keeps_blocks(file: &File) -> bool {
    // The number has 32 bits, in a type that depends on the machine.
    let number = |known: &u32| i128::from(*known);
    fstatfs(file)
        .is_ok_and(|found| KEEP_BLOCKS.iter().map(number).any(|known| known == i128::from(found.f_type)))
}

/// Mapped, or written to where nothing can be mapped.
fn fill(file: File, path: &Path, len: u64) -> io::Result<Box<dyn SegmentFile>> {
    allocate(&file, 0, len)?;
    match map(&file, 0, len) {
        Ok(map) => Ok(Box::new(MappedSegment::new(file, path, len, map))),
        Err(error) if error.raw_os_error() == Some(libc::ENODEV) => {
            Ok(Box::new(WrittenSegment { file, len, record: Vec::new() }))
        }
        Err(error) => Err(error),
    }
}

struct MappedSegment {
    file: File,
    len: u64,
    map: MmapMut,
    watched: Watched,
    /// Where in the file the mapping begins: a page boundary.
    map_start: u64,
    /// Written up to here.
    written: u64,
    /// Synced up to here: what comes next may begin there again.
    synced: u64,
    /// Pages before this were given back.
    released: u64,
}

impl MappedSegment {
    fn new(file: File, path: &Path, len: u64, map: MmapMut) -> Self {
        let mut watched = Watched::new(path);
        watched.set(&map, 0);
        Self { file, len, map, watched, map_start: 0, written: 0, synced: 0, released: 0 }
    }

    fn copy(&mut self, offset: u64, bytes: &[u8]) {
        let at = len_of(offset - self.map_start);
        self.map[at..at + bytes.len()].copy_from_slice(bytes);
    }
}

impl SegmentFile for MappedSegment {
    fn len(&self) -> u64 {
        self.len
    }

    fn grow(&mut self, len: u64) -> io::Result<()> {
        allocate(&self.file, self.len, len - self.len)?;
        let start = self.synced / PAGE * PAGE;
        let map = map(&self.file, start, len - start)?;
        self.watched.set(&map, start);
        self.map = map;
        self.map_start = start;
        self.released = start;
        self.len = len;
        Ok(())
    }

    fn write(&mut self, offset: u64, first: &[u8], rest: &[&[u8]]) -> io::Result<()> {
        let mut at = offset + first.len() as u64;
        for part in rest {
            self.copy(at, part);
            at += part.len() as u64;
        }
        // A process that is killed has made its stores in this order.
        compiler_fence(Ordering::SeqCst);
        self.copy(offset, first);
        compiler_fence(Ordering::SeqCst);
        self.written = at;
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        // By file, not by mapping: it covers what an earlier window wrote.
        self.file.sync_data()?;
        self.synced = self.written;
        let whole = self.synced / PAGE * PAGE;
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
        let Self { file, map, watched, .. } = *self;
        // First of all: a store after the end of the file would be a signal.
        drop(watched);
        drop(map);
        file.set_len(len)
    }
}

/// Filled by writes.
struct WrittenSegment {
    file: File,
    len: u64,
    /// The record that is written, in one piece.
    record: Vec<u8>,
}

impl WrittenSegment {
    #[expect(clippy::new_ret_no_self, reason = "of the two kinds of segments it is one")]
    fn new(file: File, len: u64) -> io::Result<Box<dyn SegmentFile>> {
        allocate(&file, 0, len)?;
        Ok(Box::new(Self { file, len, record: Vec::new() }))
    }
}

impl SegmentFile for WrittenSegment {
    fn len(&self) -> u64 {
        self.len
    }

    fn grow(&mut self, len: u64) -> io::Result<()> {
        allocate(&self.file, self.len, len - self.len)?;
        self.len = len;
        Ok(())
    }

    fn write(&mut self, offset: u64, first: &[u8], rest: &[&[u8]]) -> io::Result<()> {
        self.record.clear();
        self.record.extend_from_slice(first);
        rest.iter().for_each(|part| self.record.extend_from_slice(part));
        let written = self.file.write_all_at(&self.record, offset);
        // A long record is no reason to keep as much.
        self.record.shrink_to(ZEROS);
        written
    }

    fn sync(&mut self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn cut(self: Box<Self>, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }
}

/// Real blocks, so that a full disk is an error here and never a signal at a store into the mapping. Where the file system knows
/// no allocation, zeros are written. What an error leaves allocated goes back to the disk.
fn allocate(file: &File, from: u64, len: u64) -> io::Result<()> {
    let allocated = match rustix::io::retry_on_intr(|| fallocate(file, FallocateFlags::empty(), from, len)) {
        Err(Errno::OPNOTSUPP | Errno::NOSYS) => write_zeros(file, from, len),
        other => other.map_err(io::Error::from),
    };
    if allocated.is_err() {
        let _ = file.set_len(from);
    }
    allocated
}

fn write_zeros(file: &File, from: u64, len: u64) -> io::Result<()> {
    let zeros = vec![0; ZEROS.min(len_of(len))];
    let end = from + len;
    let mut at = from;
    while at < end {
        let piece = &zeros[..zeros.len().min(len_of(end - at))];
        file.write_all_at(piece, at)?;
        at += piece.len() as u64;
    }
    Ok(())
}

fn map(file: &File, start: u64, len: u64) -> io::Result<MmapMut> {
    // SAFETY: the file was created by this process and the data directory's lock keeps other servers out; this one
    // shortens it in `cut` alone, where the mapping is gone, and in `allocate` to what is mapped.
    let map = unsafe { MmapOptions::new().offset(start).len(len_of(len)).map_mut(file)? };
    // Written from front to back and never read: without this, one page fault may read (and zero) megabytes ahead,
    // which a writer feels as a pause of 20 ms.
    map.advise(Advice::Random)?;
    Ok(map)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    type Way = fn(File, &Path, u64) -> io::Result<Box<dyn SegmentFile>>;

    fn filled(file: File, path: &Path, new: Way) -> Vec<u8> {
        let mut segment = new(file, path, 8192).unwrap();
        segment.write(0, b"header", &[]).unwrap();
        segment.write(8000, b"sum", &[b"one, ", b"two"]).unwrap();
        segment.sync().unwrap();
        segment.write(8011, b"to be written again", &[]).unwrap();
        segment.grow(20_000).unwrap();
        assert_eq!(segment.len(), 20_000);
        segment.write(8011, b"again", &[]).unwrap();
        segment.write(9000, b"3", &[b"4"]).unwrap();
        segment.sync().unwrap();
        segment.cut(10_000).unwrap();
        fs::read(path).unwrap()
    }

    #[test]
    fn what_is_written_is_what_would_be_stored() {
        let dir = tempfile::tempdir().unwrap();
        let ways: [Way; 2] = [fill, |file, _, len| WrittenSegment::new(file, len)];
        let [mapped, written] = ways.map(|way| {
            let path = dir.path().join("log");
            let _ = fs::remove_file(&path);
            let file = OpenOptions::new().read(true).write(true).create_new(true).open(&path).unwrap();
            filled(file, &path, way)
        });
        assert_eq!(mapped.len(), 10_000);
        assert_eq!(&mapped[8000..8016], b"sumone, twoagain");
        assert!(mapped == written);
    }

    #[test]
    fn zeros_take_the_place_of_an_allocation() {
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(b"before", 0).unwrap();
        write_zeros(&file, 6, ZEROS as u64 + 5).unwrap();
        let mut found = vec![1; ZEROS + 11];
        file.read_exact_at(&mut found, 0).unwrap();
        assert_eq!(&found[..6], b"before");
        assert!(found[6..].iter().all(|byte| *byte == 0));
        assert_eq!(file.metadata().unwrap().len(), ZEROS as u64 + 11);
    }
}
