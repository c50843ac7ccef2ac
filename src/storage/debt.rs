//! The file `zabra.debt`: what this server may have acknowledged and does not have any more. Java knows no such file,
//! and does not look at it.

use super::small_file::write_whole;
use super::{Disk, StorageError};
use std::path::Path;

const NAME: &str = "zabra.debt";

/// None without a file; otherwise an epoch and a zxid, or `Some(None)` for "unknown".
pub fn read_debt(disk: &dyn Disk, dir: &Path) -> Result<Option<Option<(i64, i64)>>, StorageError> {
    let path = dir.join(NAME);
    let names = disk.list(dir).map_err(StorageError::io("list", dir))?;
    if !names.iter().any(|(name, _)| name == NAME) {
        return Ok(None);
    }
    let mut file = disk.open(&path).map_err(StorageError::io("open", &path))?;
    let mut text = [0; 64];
    let len = file.read_at(0, &mut text).map_err(StorageError::io("read", &path))?;
    let text = String::from_utf8_lossy(&text[..len]).into_owned();
    if text.trim() == "unknown" {
        return Ok(Some(None));
    }
    let known = text.trim().split_once(' ').and_then(|(epoch, zxid)| {
        let zxid = i64::from_str_radix(zxid.strip_prefix("0x")?, 16).ok()?;
        Some((epoch.parse().ok()?, zxid))
    });
    match known {
        Some(known) => Ok(Some(Some(known))),
        None => Err(StorageError::damaged(&path, 0, format!("no epoch and zxid: {text:?}"))),
    }
}

/// `None` stands for "unknown".
pub fn write_debt(disk: &dyn Disk, dir: &Path, debt: Option<(i64, i64)>) -> Result<(), StorageError> {
    let text = match debt {
        Some((epoch, zxid)) => format!("{epoch} {zxid:#x}\n"),
        None => "unknown\n".into(),
    };
    write_whole(disk, &dir.join(NAME), text.as_bytes())
}

pub fn remove_debt(disk: &dyn Disk, dir: &Path) -> Result<(), StorageError> {
    let path = dir.join(NAME);
    disk.remove(&path).map_err(StorageError::io("remove", &path))?;
    disk.sync_dir(dir).map_err(StorageError::io("sync", dir))
}
