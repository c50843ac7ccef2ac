//! Reads a snapshot, plain or compressed, in windows, and checks its seals.

use super::packing::unpacked;
use super::snapshot_writer::{HEADER_BYTES, MAGIC, SEAL};
use super::{Damage, Disk, StorageError};
use crate::model::Zxid;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

const CHUNK: usize = 1 << 20;

/// What follows the body. The variants are recognized by the bytes that are left: readers of different Java
/// versions and settings write different ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SnapshotSeal {
    /// zxid and digest (version 2) of the tree when writing ended.
    pub digest: Option<(Zxid, u64)>,
    /// The last transaction that the snapshot shows.
    pub last_zxid: Option<Zxid>,
}

/// Reads one snapshot file from front to back.
pub struct SnapshotReader {
    from: Box<dyn Read + Send>,
    path: PathBuf,
    window: Vec<u8>,
    /// The window's first byte that is not consumed yet.
    start: usize,
    consumed: u64,
    ended: bool,
    adler: simd_adler32::Adler32,
    file_len: u64,
}

impl SnapshotReader {
    /// Opens a snapshot, compressed as its name says. An error if it does not begin with the header of one.
    pub fn open(disk: &dyn Disk, path: &Path) -> Result<Self, StorageError> {
        let file = disk.open(path).map_err(StorageError::io("open", path))?;
        let file_len = file.len();
        let mut reader = Self {
            from: unpacked(path, file),
            path: path.to_path_buf(),
            window: Vec::new(),
            start: 0,
            consumed: 0,
            ended: false,
            adler: simd_adler32::Adler32::new(),
            file_len,
        };
        let mut good = false;
        reader.with(&mut |window| {
            (window.len() >= HEADER_BYTES).then(|| {
                good = window[..4] == MAGIC;
                HEADER_BYTES
            })
        })?;
        if good { Ok(reader) } else { Err(reader.damaged(0, Damage::NoSnapshotHeader)) }
    }

    /// Bytes that the file takes, compressed or not.
    pub fn file_len(&self) -> u64 {
        self.file_len
    }

    /// Uncompressed bytes read so far.
    pub fn consumed(&self) -> u64 {
        self.consumed
    }

    /// The error that says that this file is wrong at `offset`.
    pub fn damaged(&self, offset: u64, what: Damage) -> StorageError {
        StorageError::damaged(&self.path, offset, what)
    }

    /// Shows `f` the bytes that come next. It says how many of them it took, or `None` for more; it is called again
    /// until it took some. The end of the file before that is an error.
    pub fn with(&mut self, f: &mut dyn FnMut(&[u8]) -> Option<usize>) -> Result<(), StorageError> {
        loop {
            if let Some(taken) = f(&self.window[self.start..]) {
                self.adler.write(&self.window[self.start..self.start + taken]);
                self.start += taken;
                self.consumed += taken as u64;
                return Ok(());
            }
            if self.ended {
                return Err(self.damaged(self.consumed, Damage::EndsEarly));
            }
            self.fill()?;
        }
    }

    fn fill(&mut self) -> Result<(), StorageError> {
        self.window.drain(..self.start);
        self.start = 0;
        let before = self.window.len();
        // Longer records make the window grow with what the file really holds.
        let more = CHUNK.max(before);
        let read = self.from.by_ref().take(more as u64).read_to_end(&mut self.window);
        match read {
            Ok(count) => self.ended = count < more,
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput | io::ErrorKind::UnexpectedEof
                ) =>
            {
                return Err(self.damaged(self.consumed, Damage::Compressed(error)));
            }
            Err(source) => return Err(StorageError::Io { op: "read", file: self.path.clone(), source }),
        }
        Ok(())
    }

    /// To be called after the body's end marker.
    pub fn finish(mut self) -> Result<SnapshotSeal, StorageError> {
        while !self.ended {
            self.fill()?;
        }
        let mut seal = SnapshotSeal::default();
        self.check_seal()?;
        let left = self.window.len() - self.start;
        if !matches!(left, 0 | 21 | 33 | 54) {
            let at = self.consumed;
            return Err(self.damaged(at, Damage::AfterSeal(left)));
        }
        if left >= 33 {
            let zxid = Zxid(i64::from_be_bytes(self.array()?));
            let version = i32::from_be_bytes(self.array()?);
            let digest = u64::from_be_bytes(self.array()?);
            self.check_seal()?;
            if version == super::snapshot_writer::DIGEST_VERSION && zxid != Zxid::ZERO {
                seal.digest = Some((zxid, digest));
            }
        }
        if self.window.len() > self.start {
            seal.last_zxid = Some(Zxid(i64::from_be_bytes(self.array()?)));
            self.check_seal()?;
        }
        Ok(seal)
    }

    fn check_seal(&mut self) -> Result<(), StorageError> {
        let actual = u64::from(self.adler.finish());
        let at = self.consumed;
        let stated = u64::from_be_bytes(self.array()?);
        if stated != actual {
            return Err(self.damaged(at, Damage::Checksum { actual, stated }));
        }
        if self.array::<5>()? != SEAL {
            return Err(self.damaged(at + 8, Damage::SealCut));
        }
        Ok(())
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], StorageError> {
        let mut out = [0; N];
        self.with(&mut |window| {
            out = *window.first_chunk()?;
            Some(N)
        })?;
        Ok(out)
    }
}
