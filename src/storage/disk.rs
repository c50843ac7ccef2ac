//! The file system as this room uses it: a small trait with two homes: [`super::RealDisk`] and a simulated one.

use std::io;
use std::path::Path;

/// What this room asks of a file system. An error means that nothing is known of what was asked for.
pub trait Disk: Send + Sync {
    /// Names and lengths of the files in a directory.
    fn list(&self, dir: &Path) -> io::Result<Vec<(String, u64)>>;
    /// The names of the directories in a directory.
    fn list_dirs(&self, dir: &Path) -> io::Result<Vec<String>>;
    /// Creates a directory, and those above it, durably.
    fn create_dir_all(&self, dir: &Path) -> io::Result<()>;
    /// Removes a directory with all that is in it, durably.
    fn remove_dir_all(&self, dir: &Path) -> io::Result<()>;
    /// Opens a file to be read. Its length is the one that it has now.
    fn open(&self, file: &Path) -> io::Result<Box<dyn ReadFile>>;
    /// The same, without what the system has in memory of the file, as far as it lets itself be asked.
    fn open_cold(&self, file: &Path) -> io::Result<Box<dyn ReadFile>> {
        self.open(file)
    }
    /// A new file, empty, to be written from front to back.
    fn create(&self, file: &Path) -> io::Result<Box<dyn WriteFile>>;
    /// A new log segment with `len` bytes allocated. Fails where the name is taken or the disk is full.
    fn segment(&self, file: &Path, len: u64) -> io::Result<Box<dyn SegmentFile>>;
    /// Gives a file another name. Durable once the directory is synced.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Removes a file. Durable once the directory is synced.
    fn remove(&self, file: &Path) -> io::Result<()>;
    /// Shortens a file, durably.
    fn truncate(&self, file: &Path, len: u64) -> io::Result<()>;
    /// Bytes that the file takes on the disk: a part of its length where it is sparse.
    fn allocated(&self, file: &Path) -> io::Result<u64>;
    /// Makes what the file holds durable, whoever wrote it.
    fn sync_file(&self, file: &Path) -> io::Result<()>;
    /// What there is on the disk of `dir`.
    fn space(&self, dir: &Path) -> io::Result<Space>;
    /// Makes creates, renames and removes in `dir` durable.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;
    /// Which start of the machine this is; 0 where that can't be told. What was written before another one, and not synced, may
    /// be gone.
    fn boot(&self) -> u64;
}

/// The bytes of a file system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Space {
    /// That files may still take.
    pub free: u64,
    /// All of them.
    pub size: u64,
}

/// A file that is read at any place.
pub trait ReadFile: Send {
    /// Bytes that the file had when it was opened.
    fn len(&self) -> u64;
    /// Whether it had none.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
    /// Reads at most `into.len()` bytes; 0 at the end.
    fn read_at(&mut self, offset: u64, into: &mut [u8]) -> io::Result<usize>;
}

/// A file that is written from front to back.
pub trait WriteFile: Send {
    /// Appends all of the bytes.
    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()>;
    /// Makes durable what was written.
    fn sync(&mut self) -> io::Result<()>;
}

/// A log segment: allocated ahead, written in place, synced by range.
pub trait SegmentFile: Send {
    /// Bytes that are allocated.
    fn len(&self) -> u64;
    /// Whether none are.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
    /// Allocates up to `len`; what is written stays.
    fn grow(&mut self, len: u64) -> io::Result<()>;
    /// Writes the parts one after the other, `first` at `offset`: but in a process that is killed meanwhile, `first` is there only if
    /// all the others are. The range must be allocated, and not before what was synced. One write is not begun before the
    /// last one is done. After an error the range may hold anything, and is written again before it is read.
    fn write(&mut self, offset: u64, first: &[u8], rest: &[&[u8]]) -> io::Result<()>;
    /// Makes everything written durable.
    fn sync(&mut self) -> io::Result<()>;
    /// Ends the writing: gives back what is allocated from `len` on, after everything written. A crash may leave it.
    fn cut(self: Box<Self>, len: u64) -> io::Result<()>;
}
