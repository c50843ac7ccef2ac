//! Takes the snapshot behind a SNAP packet: into a database, and as it is into a file, which is whole and durable
//! before anybody hears of it.

use crate::model::owner::OwnerRules;
use crate::model::{LinkId, Zxid};
use crate::storage::{Dirs, Disk, SnapshotWriter, StorageError, received_name};
use crate::tree::{Database, LoadError, Loader};
use crate::wire::quorum::SIGNATURE;
use bytes::{Buf, BytesMut};
use std::sync::Arc;

/// Why the leader's snapshot is not taken.
#[derive(Debug, thiserror::Error)]
pub enum ReceiveError {
    /// The leader sent what is no database.
    #[error("the leader's snapshot: {0}")]
    Content(#[from] LoadError),
    /// The leader sent a length beyond any znode's.
    #[error("the leader's snapshot: a record that does not end")]
    EndlessRecord,
    /// The leader did not end it with the signature, which says that it is whole.
    #[error("the leader's snapshot: no signature at its end")]
    NoSignature,
    /// This server's disk does not take it.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

/// Bytes of one znode beyond which a stream is no snapshot.
const MAX_RECORD: usize = 256 << 20;

pub struct Receiver {
    zxid: Zxid,
    loader: Option<Loader>,
    writer: Option<SnapshotWriter>,
    bytes: u64,
}

impl Receiver {
    pub fn new(
        disk: Arc<dyn Disk>,
        dirs: &Dirs,
        owners: OwnerRules,
        link: LinkId,
        zxid: Zxid,
    ) -> Result<Self, StorageError> {
        let file = dirs.data.join(received_name(link, zxid));
        let writer = SnapshotWriter::create_received(disk, file)?;
        Ok(Self { zxid, loader: Some(Loader::new(owners)), writer: Some(writer), bytes: 0 })
    }

    /// Bytes taken so far.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Takes what it can from the front of `input`. The database comes once everything is there, signature and all;
    /// what is left in `input` then are packets again.
    pub fn take(&mut self, input: &mut BytesMut) -> Result<Option<Box<Database>>, ReceiveError> {
        let loader = self.loader.as_mut().expect("nothing is taken behind the end");
        if !loader.is_done() {
            let taken = loader.feed(input)?;
            self.writer.as_mut().expect("open until the end").write(&input[..taken])?;
            self.bytes += taken as u64;
            input.advance(taken);
            if !loader.is_done() {
                // Nobody's znode is so large: the length is a lie.
                return if input.len() > MAX_RECORD { Err(ReceiveError::EndlessRecord) } else { Ok(None) };
            }
        }
        let Some(len) = input.first_chunk().map(|len| i32::from_be_bytes(*len)) else { return Ok(None) };
        if len as usize != SIGNATURE.len() {
            return Err(ReceiveError::NoSignature);
        }
        if input.len() < 4 + SIGNATURE.len() {
            return Ok(None);
        }
        if &input[4..4 + SIGNATURE.len()] != SIGNATURE {
            return Err(ReceiveError::NoSignature);
        }
        input.advance(4 + SIGNATURE.len());
        let loader = self.loader.take().expect("looked at above");
        let writer = self.writer.take().expect("open until the end");
        writer.finish(self.zxid, None)?;
        Ok(Some(Box::new(Database::from_snapshot(loader, self.zxid))))
    }
}
