//! The file system of the machine, as a [`Disk`].

use super::disk::{Disk, ReadFile, SegmentFile, Space, WriteFile};
use super::segment;
use rustix::fs::{Advice, fadvise};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;

/// Linux draws a number at each start of the machine.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// The machine's file system.
#[derive(Debug, Clone, Copy, Default)]
pub struct RealDisk;

impl Disk for RealDisk {
    fn list(&self, dir: &Path) -> io::Result<Vec<(String, u64)>> {
        let mut found = Vec::new();
        for entry in fs::read_dir(dir)? {
            let entry = entry?;
            // Old files are purged, and snapshots get their names, while others look.
            let meta = match entry.metadata() {
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                meta => meta?,
            };
            if meta.is_file() {
                found.push((entry.file_name().to_string_lossy().into_owned(), meta.len()));
            }
        }
        found.sort();
        Ok(found)
    }

    fn list_dirs(&self, dir: &Path) -> io::Result<Vec<String>> {
        let mut found = Vec::new();
        for entry in fs::read_dir(dir)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                found.push(entry.file_name().to_string_lossy().into_owned());
            }
        }
        Ok(found)
    }

    fn remove_dir_all(&self, dir: &Path) -> io::Result<()> {
        fs::remove_dir_all(dir)?;
        dir.parent().map_or(Ok(()), |parent| self.sync_dir(parent))
    }

    fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
        fs::create_dir_all(dir)?;
        dir.parent().map_or(Ok(()), |parent| self.sync_dir(parent))
    }

    fn open(&self, file: &Path) -> io::Result<Box<dyn ReadFile>> {
        let file = File::open(file)?;
        let len = file.metadata()?.len();
        Ok(Box::new(RealRead { file, len }))
    }

    fn open_cold(&self, file: &Path) -> io::Result<Box<dyn ReadFile>> {
        let file = File::open(file)?;
        let len = file.metadata()?.len();
        // A filesystem that knows no such advice reads what it has.
        let _ = fadvise(&file, 0, None, Advice::DontNeed);
        Ok(Box::new(RealRead { file, len }))
    }

    fn create(&self, file: &Path) -> io::Result<Box<dyn WriteFile>> {
        Ok(Box::new(RealWrite(File::create(file)?)))
    }

    fn segment(&self, file: &Path, len: u64) -> io::Result<Box<dyn SegmentFile>> {
        segment::create(file, len)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove(&self, file: &Path) -> io::Result<()> {
        fs::remove_file(file)
    }

    fn truncate(&self, file: &Path, len: u64) -> io::Result<()> {
        let file = OpenOptions::new().write(true).open(file)?;
        file.set_len(len)?;
        file.sync_all()
    }

    fn allocated(&self, file: &Path) -> io::Result<u64> {
        // In units of 512 bytes, whatever the blocks are.
        Ok(fs::metadata(file)?.blocks() * 512)
    }

    fn sync_file(&self, file: &Path) -> io::Result<()> {
        File::open(file)?.sync_all()
    }

    fn space(&self, dir: &Path) -> io::Result<Space> {
        let found = rustix::fs::statvfs(dir)?;
        let bytes = |blocks: u64| blocks.saturating_mul(found.f_frsize);
        Ok(Space { free: bytes(found.f_bavail), size: bytes(found.f_blocks) })
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        let dir = if dir.as_os_str().is_empty() { Path::new(".") } else { dir };
        File::open(dir)?.sync_all()
    }

    fn boot(&self) -> u64 {
        let id = fs::read_to_string(BOOT_ID).unwrap_or_default();
        u64::from_str_radix(id.replace('-', "").get(..16).unwrap_or_default(), 16).unwrap_or(0)
    }
}

struct RealRead {
    file: File,
    len: u64,
}

impl ReadFile for RealRead {
    fn len(&self) -> u64 {
        self.len
    }

    fn read_at(&mut self, offset: u64, into: &mut [u8]) -> io::Result<usize> {
        self.file.read_at(into, offset)
    }
}

struct RealWrite(File);

impl WriteFile for RealWrite {
    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.0.write_all(bytes)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.0.sync_all()
    }
}
