//! The files `acceptedEpoch` and `currentEpoch`: decimal text, replaced as a whole.

use super::small_file::write_whole;
use super::{Damage, Disk, StorageError};
use crate::model::Epoch;
use std::path::Path;

/// What the files say; a missing one is `None`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Epochs {
    /// `acceptedEpoch`: this server follows no leader of an older one.
    pub accepted: Option<Epoch>,
    /// `currentEpoch`: that of the last leader whose history this server has.
    pub current: Option<Epoch>,
}

const ACCEPTED: &str = "acceptedEpoch";
const CURRENT: &str = "currentEpoch";

impl Epochs {
    /// Reads both files. An error if one holds anything but an epoch.
    pub fn read(disk: &dyn Disk, dir: &Path) -> Result<Self, StorageError> {
        Ok(Self { accepted: read(disk, dir, ACCEPTED)?, current: read(disk, dir, CURRENT)? })
    }

    /// Replaces `acceptedEpoch`, durably.
    pub fn write_accepted(disk: &dyn Disk, dir: &Path, epoch: Epoch) -> Result<(), StorageError> {
        write(disk, dir, ACCEPTED, epoch)
    }

    /// Replaces `currentEpoch`, durably.
    pub fn write_current(disk: &dyn Disk, dir: &Path, epoch: Epoch) -> Result<(), StorageError> {
        write(disk, dir, CURRENT, epoch)
    }
}

fn read(disk: &dyn Disk, dir: &Path, name: &str) -> Result<Option<Epoch>, StorageError> {
    let path = dir.join(name);
    let there = disk.list(dir).map_err(StorageError::io("list", dir))?.iter().any(|(found, _)| found == name);
    if !there {
        return Ok(None);
    }
    let mut file = disk.open(&path).map_err(StorageError::io("open", &path))?;
    let mut text = [0; 64];
    let len = file.read_at(0, &mut text).map_err(StorageError::io("read", &path))?;
    let text = String::from_utf8_lossy(&text[..len]).into_owned();
    let line = text.lines().next().unwrap_or_default().trim();
    match line.parse::<i64>() {
        Ok(epoch) if (0..=Epoch::LAST.0).contains(&epoch) => Ok(Some(Epoch(epoch))),
        _ => Err(StorageError::damaged(&path, 0, Damage::NoEpoch(line.into()))),
    }
}

fn write(disk: &dyn Disk, dir: &Path, name: &str, epoch: Epoch) -> Result<(), StorageError> {
    write_whole(disk, &dir.join(name), epoch.to_string().as_bytes())
}
