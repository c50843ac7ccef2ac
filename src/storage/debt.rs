//! The file `zabra.debt`: what this server may have acknowledged and does not have any more. Java knows no such file,
//! and does not look at it.

use super::small_file::write_whole;
use super::{Damage, Disk, StorageError};
use crate::model::{Debt, Epoch, Zxid};
use std::path::Path;

const NAME: &str = "zabra.debt";

/// Without a file there is none. An error if the file says neither "unknown" nor an epoch and a zxid.
pub fn read_debt(disk: &dyn Disk, dir: &Path) -> Result<Debt, StorageError> {
    let path = dir.join(NAME);
    let names = disk.list(dir).map_err(StorageError::io("list", dir))?;
    if !names.iter().any(|(name, _)| name == NAME) {
        return Ok(Debt::None);
    }
    let mut file = disk.open(&path).map_err(StorageError::io("open", &path))?;
    let mut text = [0; 64];
    let len = file.read_at(0, &mut text).map_err(StorageError::io("read", &path))?;
    let text = String::from_utf8_lossy(&text[..len]).into_owned();
    if text.trim() == "unknown" {
        return Ok(Debt::Unknown);
    }
    let known = text.trim().split_once(' ').and_then(|(epoch, zxid)| {
        let zxid = i64::from_str_radix(zxid.strip_prefix("0x")?, 16).ok()?;
        Some(Debt::AtLeast(Epoch(epoch.parse().ok()?), Zxid(zxid)))
    });
    match known {
        Some(known) => Ok(known),
        None => Err(StorageError::damaged(&path, 0, Damage::NoDebt(text))),
    }
}

/// Puts the file in the place of an older one, or takes it away where there is no debt. Durable, either way.
pub fn write_debt(disk: &dyn Disk, dir: &Path, debt: Debt) -> Result<(), StorageError> {
    let path = dir.join(NAME);
    match debt {
        Debt::None => {
            disk.remove(&path).map_err(StorageError::io("remove", &path))?;
            disk.sync_dir(dir).map_err(StorageError::io("sync", dir))
        }
        Debt::Unknown => write_whole(disk, &path, b"unknown\n"),
        Debt::AtLeast(epoch, zxid) => write_whole(disk, &path, format!("{epoch} {zxid}\n").as_bytes()),
    }
}
