//! The file `zabra.synced`: how far the log was on the disk when it was last synced. Java knows no such file, and does not
//! look at it.
//!
//! A record that is not good may be a write that a crash cut short, which was never acknowledged, or damage to one that
//! was. The bytes alone can't tell. What was synced can: a bad record before that place is damage.
//!
//! After each sync of the log the place is stored through a mapping, before anything is acknowledged. So it costs a few
//! stores, and a process that is killed leaves it as it was. The file is not synced itself: a loss of power may leave an
//! older place, and then recovery goes by the bytes after it, as without this file. The place names the start of the machine
//! that it was stored in: after another one, more may have been synced than it says.

use super::names::{TEMPORARY, log_name};
use super::small_file::{read_whole, remove_if_there, rename};
use super::{Disk, SegmentFile, StorageError};
use crate::model::Zxid;
use std::path::{Path, PathBuf};

const NAME: &str = "zabra.synced";
const FILE_LEN: u64 = 4096;
/// Number, segment, end, last, boot; and their checksum.
const SLOT: usize = 44;
/// Two places that are written in turn: one is whole, whatever a crash does to the other.
const SLOTS: [u64; 2] = [0, 64];

/// How far the log was synced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Synced {
    /// The first transaction of the segment that was written last: the file has its name.
    pub segment: Zxid,
    /// Where in that file the last record ends.
    pub end: u64,
    /// The last transaction.
    pub last: Zxid,
    /// The start of the machine ([`Disk::boot`]).
    pub boot: u64,
}

impl Synced {
    /// The log that was written last.
    pub fn file(&self, dir: &Path) -> PathBuf {
        dir.join(log_name(self.segment))
    }

    /// Whether nothing was synced after it: the machine has run ever since.
    pub fn is_newest(&self, disk: &dyn Disk) -> bool {
        self.boot != 0 && self.boot == disk.boot()
    }

    fn slot(self, number: u64) -> [u8; SLOT] {
        let mut slot = [0; SLOT];
        slot[..8].copy_from_slice(&number.to_be_bytes());
        slot[8..16].copy_from_slice(&self.segment.0.to_be_bytes());
        slot[16..24].copy_from_slice(&self.end.to_be_bytes());
        slot[24..32].copy_from_slice(&self.last.0.to_be_bytes());
        slot[32..40].copy_from_slice(&self.boot.to_be_bytes());
        let checksum = simd_adler32::adler32(&&slot[..40]);
        slot[40..].copy_from_slice(&checksum.to_be_bytes());
        slot
    }

    /// The number of a slot and what it says; none where it is not whole.
    fn in_slot(slot: &[u8]) -> Option<(u64, Self)> {
        let field = |at: usize| Some(u64::from_be_bytes(slot.get(at..at + 8)?.try_into().ok()?));
        let zxid = |at: usize| Some(Zxid(i64::from_be_bytes(slot.get(at..at + 8)?.try_into().ok()?)));
        let number = field(0)?;
        let synced = Self { segment: zxid(8)?, end: field(16)?, last: zxid(24)?, boot: field(32)? };
        (synced.slot(number)[..] == slot[..SLOT]).then_some((number, synced))
    }
}

/// The file, open to be written.
pub(super) struct SyncedFile {
    file: Box<dyn SegmentFile>,
    number: u64,
}

impl SyncedFile {
    /// A new file in the place of an older one, durably.
    pub(super) fn create(disk: &dyn Disk, dir: &Path, synced: Synced) -> Result<Self, StorageError> {
        let temporary = dir.join(format!("{TEMPORARY}{NAME}"));
        remove_if_there(disk, &temporary)?;
        let file = disk.segment(&temporary, FILE_LEN).map_err(StorageError::io("create", &temporary))?;
        let mut created = Self { file, number: 0 };
        created.store(synced).map_err(StorageError::io("write", &temporary))?;
        created.file.sync().map_err(StorageError::io("sync", &temporary))?;
        rename(disk, &temporary, &dir.join(NAME))?;
        Ok(created)
    }

    /// After an error the place that was stored before is true still.
    pub(super) fn store(&mut self, synced: Synced) -> std::io::Result<()> {
        self.number += 1;
        let place = if self.number.is_multiple_of(2) { SLOTS[0] } else { SLOTS[1] };
        self.file.write(place, &synced.slot(self.number), &[])
    }
}

/// What the file says; none without a file, or where nothing in it can be believed.
pub fn read_synced(disk: &dyn Disk, dir: &Path) -> Result<Option<Synced>, StorageError> {
    let path = dir.join(NAME);
    let names = disk.list(dir).map_err(StorageError::io("list", dir))?;
    if !names.iter().any(|(name, _)| name == NAME) {
        return Ok(None);
    }
    let bytes = read_whole(disk, &path)?;
    let slots = SLOTS.iter().filter_map(|at| bytes.get(super::len_of(*at)..)?.get(..SLOT));
    let newest = slots.filter_map(Synced::in_slot).max_by_key(|(number, _)| *number);
    Ok(newest.map(|(_, synced)| synced))
}

/// Before files change: nothing of what was synced is known any more. Durable.
pub fn forget_synced(disk: &dyn Disk, dir: &Path) -> Result<(), StorageError> {
    remove_if_there(disk, &dir.join(NAME))
}
