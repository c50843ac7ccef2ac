//! The files `acceptedEpoch` and `currentEpoch`: decimal text, replaced as a whole. Each has a copy of ours beside it, with a
//! checksum: `zabra.acceptedEpoch`, `zabra.currentEpoch`. Java knows no such files, and does not look at them.
//!
//! The epoch that a server accepted is a promise to other servers, and is nowhere else. Without it two leaders might lead the
//! same epoch.

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
    /// The name of the file that held something else: its copy counts.
    pub restored: Option<&'static str>,
}

const ACCEPTED: &str = "acceptedEpoch";
const CURRENT: &str = "currentEpoch";

impl Epochs {
    /// Reads both files. If one holds anything but an epoch, its copy counts, unless a Java server has gone on from here. That writes no
    /// copies, so the other file is beyond its copy then. (A copy may be beyond its file: a crash came between.) An error otherwise.
    pub fn read(disk: &dyn Disk, dir: &Path) -> Result<Self, StorageError> {
        let copy = |name| read_copy(disk, dir, name);
        let (accepted, current) = (read(disk, dir, ACCEPTED), read(disk, dir, CURRENT));
        match (accepted, current) {
            (Ok(accepted), Ok(current)) => Ok(Self { accepted, current, restored: None }),
            (Err(StorageError::Damaged { .. }), Ok(current))
                if copy(CURRENT)? >= current && copy(ACCEPTED)?.is_some() =>
            {
                Ok(Self { accepted: copy(ACCEPTED)?, current, restored: Some(ACCEPTED) })
            }
            (Ok(accepted), Err(StorageError::Damaged { .. }))
                if copy(ACCEPTED)? >= accepted && copy(CURRENT)?.is_some() =>
            {
                Ok(Self { accepted, current: copy(CURRENT)?, restored: Some(CURRENT) })
            }
            (Err(error), _) | (_, Err(error)) => Err(error),
        }
    }

    /// What can be told where [`Self::read`] finds damage: the files and copies that are good. Neither epoch is less than `shown`, which
    /// the other files show. This server may have promised more than it says.
    pub fn read_rest(disk: &dyn Disk, dir: &Path, shown: Epoch) -> Result<Self, StorageError> {
        let rest = |name| match read(disk, dir, name) {
            Err(error) if error.is_damage() => read_copy(disk, dir, name),
            good => good,
        };
        let current = rest(CURRENT)?.unwrap_or_default().max(shown);
        let accepted = rest(ACCEPTED)?.unwrap_or_default().max(current);
        Ok(Self { accepted: Some(accepted), current: Some(current), restored: None })
    }

    /// Replaces both files, durably.
    pub fn write(self, disk: &dyn Disk, dir: &Path) -> Result<(), StorageError> {
        for (name, epoch) in [(ACCEPTED, self.accepted), (CURRENT, self.current)] {
            epoch.map_or(Ok(()), |epoch| write(disk, dir, name, epoch))?;
        }
        Ok(())
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

/// The text of a file; none without one. A longer one is no epoch.
fn text_of(disk: &dyn Disk, dir: &Path, name: &str) -> Result<Option<String>, StorageError> {
    let path = dir.join(name);
    let names = disk.list(dir).map_err(StorageError::io("list", dir))?;
    if !names.iter().any(|(found, _)| found == name) {
        return Ok(None);
    }
    let mut file = disk.open(&path).map_err(StorageError::io("open", &path))?;
    let mut text = [0; 64];
    let len = file.read_at(0, &mut text).map_err(StorageError::io("read", &path))?;
    Ok(Some(String::from_utf8_lossy(&text[..len]).into_owned()))
}

fn read(disk: &dyn Disk, dir: &Path, name: &str) -> Result<Option<Epoch>, StorageError> {
    let Some(text) = text_of(disk, dir, name)? else { return Ok(None) };
    let line = text.lines().next().unwrap_or_default().trim();
    match line.parse::<i64>() {
        Ok(epoch) if (0..=Epoch::LAST.0).contains(&epoch) => Ok(Some(Epoch(epoch))),
        _ => Err(StorageError::damaged(&dir.join(name), 0, Damage::NoEpoch(line.into()))),
    }
}

/// None where there is no copy, or one that can't be believed.
fn read_copy(disk: &dyn Disk, dir: &Path, name: &str) -> Result<Option<Epoch>, StorageError> {
    let text = text_of(disk, dir, &copy_name(name))?.unwrap_or_default();
    let epoch = text.split(' ').next().and_then(|epoch| epoch.parse().ok()).map(Epoch);
    Ok(epoch.filter(|epoch| text == copy_text(*epoch)))
}

/// The copy first: what it says beyond the file was promised to nobody yet.
fn write(disk: &dyn Disk, dir: &Path, name: &str, epoch: Epoch) -> Result<(), StorageError> {
    write_whole(disk, &dir.join(copy_name(name)), copy_text(epoch).as_bytes())?;
    write_whole(disk, &dir.join(name), epoch.to_string().as_bytes())
}

fn copy_name(name: &str) -> String {
    format!("zabra.{name}")
}

fn copy_text(epoch: Epoch) -> String {
    let digits = epoch.to_string();
    format!("{digits} {:08x}\n", simd_adler32::adler32(&digits.as_bytes()))
}
