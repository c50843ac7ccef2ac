//! Writes a snapshot: temporary name, body, seals, sync, rename (`server/persistence/FileSnap`).

use super::names::{TEMPORARY, packed_name};
use super::packing::Packer;
use super::small_file::dir_of;
use super::{Disk, StorageError, WriteFile};
use crate::model::{Packing, Zxid};
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub(super) const MAGIC: [u8; 4] = *b"ZKSN";
pub(super) const SEAL: [u8; 5] = [0, 0, 0, 1, b'/'];
pub(super) const DIGEST_VERSION: i32 = 2;
pub(super) const HEADER_BYTES: usize = 16;

/// What follows a snapshot's body, each part with a seal of its own.
#[derive(Debug, Clone, Copy)]
pub struct Trailer {
    /// The tree's, at the snapshot's point.
    pub digest: u64,
    /// That point once more, as 3.9 has it.
    pub last_zxid: bool,
}

impl Trailer {
    /// All that there can be.
    pub fn whole(digest: u64) -> Self {
        Self { digest, last_zxid: true }
    }
}

/// Writes one snapshot file. It is removed if it is dropped before [`Self::finish`].
pub struct SnapshotWriter {
    /// None: it goes to a stream, which has no name.
    disk: Option<Arc<dyn Disk>>,
    file: Option<Packer>,
    temporary: PathBuf,
    path: PathBuf,
    /// Of what is packed.
    adler: simd_adler32::Adler32,
}

impl SnapshotWriter {
    /// `zxid`: the point that the snapshot shows.
    pub fn create(
        disk: Arc<dyn Disk>,
        dir: &Path,
        zxid: Zxid,
        packing: Packing,
    ) -> Result<Self, StorageError> {
        let name = packed_name(zxid, packing);
        Self::start(disk, dir.join(format!("{TEMPORARY}{name}")), dir.join(name))
    }

    /// For a snapshot that arrives: it keeps the temporary name `file`, until it is installed. The name says how it is compressed.
    pub fn create_received(disk: Arc<dyn Disk>, file: PathBuf) -> Result<Self, StorageError> {
        Self::start(disk, file.clone(), file)
    }

    fn start(disk: Arc<dyn Disk>, temporary: PathBuf, path: PathBuf) -> Result<Self, StorageError> {
        let file = disk.create(&temporary).map_err(StorageError::io("create", &temporary))?;
        Self::begin(Some(disk), file, temporary, path)
    }

    /// Into a stream, which errors call `name`.
    pub fn to_stream(stream: Box<dyn WriteFile>, name: &str) -> Result<Self, StorageError> {
        Self::begin(None, stream, name.into(), name.into())
    }

    fn begin(
        disk: Option<Arc<dyn Disk>>,
        file: Box<dyn WriteFile>,
        temporary: PathBuf,
        path: PathBuf,
    ) -> Result<Self, StorageError> {
        let adler = simd_adler32::Adler32::new();
        let mut writer = Self { disk, file: Some(Packer::new(&path, file)), temporary, path, adler };
        let mut header = [0xff; HEADER_BYTES];
        header[..4].copy_from_slice(&MAGIC);
        header[4..8].copy_from_slice(&2_i32.to_be_bytes());
        writer.write(&header)?;
        Ok(writer)
    }

    /// A piece of the body: sessions, ACL lists, znodes, end marker.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), StorageError> {
        let file = self.file.as_mut().expect("open until finish()");
        file.write_all(bytes).map_err(StorageError::io("write", &self.temporary))?;
        self.adler.write(bytes);
        Ok(())
    }

    /// Seals the file and gives it its name. Without a trailer there is nothing after the first seal: Java's server 3.9 takes what
    /// comes there for what its own settings make it write. Returns the file and its length.
    pub fn finish(mut self, zxid: Zxid, trailer: Option<Trailer>) -> Result<(PathBuf, u64), StorageError> {
        self.seal()?;
        if let Some(Trailer { digest, last_zxid }) = trailer {
            self.write(&zxid.0.to_be_bytes())?;
            self.write(&DIGEST_VERSION.to_be_bytes())?;
            self.write(&digest.to_be_bytes())?;
            self.seal()?;
            if last_zxid {
                self.write(&zxid.0.to_be_bytes())?;
                self.seal()?;
            }
        }
        let packer = self.file.take().expect("open until finish()");
        let (mut file, len) = packer.finish().map_err(StorageError::io("write", &self.temporary))?;
        file.sync().map_err(StorageError::io("sync", &self.temporary))?;
        drop(file);
        if let Some(disk) = &self.disk {
            if self.temporary != self.path {
                disk.rename(&self.temporary, &self.path)
                    .map_err(StorageError::io("rename", &self.temporary))?;
            }
            let dir = dir_of(&self.path);
            disk.sync_dir(dir).map_err(StorageError::io("sync", dir))?;
        }
        Ok((self.path.clone(), len))
    }

    fn seal(&mut self) -> Result<(), StorageError> {
        let checksum = u64::from(self.adler.finish());
        self.write(&checksum.to_be_bytes())?;
        self.write(&SEAL)
    }
}

impl Drop for SnapshotWriter {
    fn drop(&mut self) {
        if let (Some(_), Some(disk)) = (self.file.take(), &self.disk) {
            // Given up half-way. The next start removes what is left.
            let _ = disk.remove(&self.temporary);
        }
    }
}
