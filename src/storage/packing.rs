//! How snapshot files are compressed: as their names say (`SnapStream`).

use super::{ReadFile, WriteFile};
use crate::model::Packing;
use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use std::io::{self, Read, Write};
use std::path::Path;

/// Synced piece by piece, so that no giant flush delays the log.
const SYNC_EVERY: u64 = 8 << 20;

/// How a file of this name is compressed.
fn packing_of(path: &Path) -> Packing {
    let extension = path.extension().and_then(|extension| extension.to_str());
    // "snapshot.5" has the extension "5", as far as names go.
    extension.and_then(Packing::named).unwrap_or_default()
}

/// What a file of this name holds.
pub(super) fn unpacked(path: &Path, file: Box<dyn ReadFile>) -> Box<dyn Read + Send> {
    let plain = Plain { file, at: 0 };
    match packing_of(path) {
        Packing::Plain => Box::new(plain),
        Packing::Gzip => Box::new(GzDecoder::new(plain)),
        Packing::Snappy => Box::new(Xerial::new(plain)),
    }
}

/// A new file that is written compressed, or not.
pub(super) enum Packer {
    Plain(Pieces),
    Gzip(GzEncoder<Pieces>),
    Snappy(Box<XerialWriter>),
}

impl Packer {
    pub(super) fn new(path: &Path, file: Box<dyn WriteFile>) -> Self {
        let pieces = Pieces { file, len: 0, unsynced: 0 };
        match packing_of(path) {
            Packing::Plain => Self::Plain(pieces),
            // The znodes change meanwhile, and what they were waits in memory.
            Packing::Gzip => Self::Gzip(GzEncoder::new(pieces, Compression::fast())),
            Packing::Snappy => Self::Snappy(Box::new(XerialWriter::new(pieces))),
        }
    }

    pub(super) fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::Plain(pieces) => pieces.write_all(bytes),
            Self::Gzip(packer) => packer.write_all(bytes),
            Self::Snappy(packer) => packer.write_all(bytes),
        }
    }

    /// Writes what is left, and returns the file and its length.
    pub(super) fn finish(self) -> io::Result<(Box<dyn WriteFile>, u64)> {
        let Pieces { file, len, .. } = match self {
            Self::Plain(pieces) => pieces,
            Self::Gzip(packer) => packer.finish()?,
            Self::Snappy(packer) => packer.finish()?,
        };
        Ok((file, len))
    }
}

/// The file itself.
pub(super) struct Pieces {
    file: Box<dyn WriteFile>,
    len: u64,
    unsynced: u64,
}

impl Write for Pieces {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write_all(bytes)?;
        self.len += bytes.len() as u64;
        self.unsynced += bytes.len() as u64;
        if self.unsynced >= SYNC_EVERY {
            self.unsynced = 0;
            self.file.sync()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

struct Plain {
    file: Box<dyn ReadFile>,
    at: u64,
}

impl Read for Plain {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let count = self.file.read_at(self.at, into)?;
        self.at += count as u64;
        Ok(count)
    }
}

/// How snappy-java begins: its mark, its version, and the oldest version that can read it.
const XERIAL_HEADER: [u8; 16] = [0x82, b'S', b'N', b'A', b'P', b'P', b'Y', 0, 0, 0, 0, 1, 0, 0, 0, 1];

/// The framing of snappy-java: a header, then chunks of a length and a raw snappy block.
struct Xerial<R> {
    from: R,
    block: Vec<u8>,
    at: usize,
    started: bool,
}

impl<R: Read> Xerial<R> {
    /// snappy-java's largest block.
    const MAX_BLOCK: usize = 512 << 20;

    fn new(from: R) -> Self {
        Self { from, block: Vec::new(), at: 0, started: false }
    }

    fn next_block(&mut self) -> io::Result<bool> {
        if !self.started {
            let mut header = [0; 16];
            self.from.read_exact(&mut header)?;
            if header[..8] != XERIAL_HEADER[..8] {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "no snappy header"));
            }
            self.started = true;
        }
        let mut len = [0; 4];
        let mut filled = 0;
        while filled < 4 {
            match self.from.read(&mut len[filled..])? {
                0 if filled == 0 => return Ok(false),
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                count => filled += count,
            }
        }
        let len = u32::from_be_bytes(len);
        let mut packed = Vec::new();
        self.from.by_ref().take(u64::from(len)).read_to_end(&mut packed)?;
        if packed.len() != len as usize {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let invalid = |error: snap::Error| io::Error::new(io::ErrorKind::InvalidData, error);
        // A block unpacks to at most this much; a larger claim is a lie and must not be allocated.
        let unpacked = snap::raw::decompress_len(&packed).map_err(invalid)?;
        if unpacked > Self::MAX_BLOCK.min(packed.len().saturating_mul(64) + 64) {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "a snappy block that claims too much"));
        }
        self.block = snap::raw::Decoder::new().decompress_vec(&packed).map_err(invalid)?;
        self.at = 0;
        Ok(true)
    }
}

impl<R: Read> Read for Xerial<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        while self.at == self.block.len() {
            if !self.next_block()? {
                return Ok(0);
            }
        }
        let count = into.len().min(self.block.len() - self.at);
        into[..count].copy_from_slice(&self.block[self.at..][..count]);
        self.at += count;
        Ok(count)
    }
}

/// The same in the other direction.
pub(super) struct XerialWriter {
    to: Pieces,
    /// What is not packed yet.
    block: Vec<u8>,
    encoder: snap::raw::Encoder,
    started: bool,
}

impl XerialWriter {
    /// As snappy-java packs, unless somebody asks for more.
    const BLOCK: usize = 32 << 10;

    fn new(to: Pieces) -> Self {
        let block = Vec::with_capacity(Self::BLOCK);
        Self { to, block, encoder: snap::raw::Encoder::new(), started: false }
    }

    fn write_all(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let (now, rest) = bytes.split_at(bytes.len().min(Self::BLOCK - self.block.len()));
            self.block.extend_from_slice(now);
            bytes = rest;
            if self.block.len() == Self::BLOCK {
                self.pack()?;
            }
        }
        Ok(())
    }

    fn pack(&mut self) -> io::Result<()> {
        if !std::mem::replace(&mut self.started, true) {
            self.to.write_all(&XERIAL_HEADER)?;
        }
        let packed = self.encoder.compress_vec(&self.block).map_err(io::Error::other)?;
        let len = u32::try_from(packed.len()).map_err(io::Error::other)?;
        self.to.write_all(&len.to_be_bytes())?;
        self.to.write_all(&packed)?;
        self.block.clear();
        Ok(())
    }

    fn finish(mut self) -> io::Result<Pieces> {
        if !self.block.is_empty() {
            self.pack()?;
        }
        Ok(self.to)
    }
}
