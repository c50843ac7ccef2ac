//! Names of files and directories, and the marks before them.

use super::{Disk, StorageError};
use crate::model::{LinkId, Packing, Zxid};
use std::path::{Path, PathBuf};

/// Where a server's files are: the `version-2` directories.
#[derive(Debug, Clone)]
pub struct Dirs {
    /// Snapshots and epochs.
    pub data: PathBuf,
    /// Transaction logs; often the same.
    pub log: PathBuf,
}

impl Dirs {
    /// `data_dir` and `log_dir` are those of `zoo.cfg` (`dataDir`, `dataLogDir`).
    pub fn new(data_dir: &Path, log_dir: &Path) -> Self {
        Self { data: data_dir.join("version-2"), log: log_dir.join("version-2") }
    }
}

/// No server reads a name that begins like this.
pub(super) const TEMPORARY: &str = "tmp.";
/// Before the name of a received snapshot, and of the logs after it. A start removes them, unless they were being
/// installed.
pub(super) const STAGED: &str = "staged.";
/// Prefix that commits the installation: from this rename on the staged files count, and all others are set aside.
pub(super) const INSTALLING: &str = "install.";
/// Likewise: nothing else is left, and the staged logs get their own names. Then the snapshot does.
pub(super) const ENTERING: &str = "enter.";

/// The name of the log whose first transaction this is.
pub fn log_name(zxid: Zxid) -> String {
    format!("log.{:x}", zxid.0)
}

/// The name of the snapshot of this point.
pub fn snapshot_name(zxid: Zxid) -> String {
    format!("snapshot.{:x}", zxid.0)
}

/// The same of one that is compressed, or not.
pub(super) fn packed_name(zxid: Zxid, packing: Packing) -> String {
    match packing.name() {
        "" => snapshot_name(zxid),
        extension => format!("{}.{extension}", snapshot_name(zxid)),
    }
}

/// The name of a snapshot that arrives over a link. A start removes it.
pub fn received_name(link: LinkId, zxid: Zxid) -> String {
    format!("{TEMPORARY}received.{}.{}", link.0, snapshot_name(zxid))
}

/// The zxid in `log.<hex>`.
pub fn log_zxid(name: &str) -> Option<Zxid> {
    hex(name.strip_prefix("log.")?)
}

/// The zxid in `snapshot.<hex>`, `snapshot.<hex>.gz` or `.snappy`.
pub fn snapshot_zxid(name: &str) -> Option<Zxid> {
    let rest = name.strip_prefix("snapshot.")?;
    hex(rest.strip_suffix(".gz").or_else(|| rest.strip_suffix(".snappy")).unwrap_or(rest))
}

fn hex(text: &str) -> Option<Zxid> {
    if text.starts_with(['+', '-']) { None } else { i64::from_str_radix(text, 16).ok().map(Zxid) }
}

/// The logs of a directory, by rising zxid of their first transaction.
pub fn logs_in(disk: &dyn Disk, dir: &Path) -> Result<Vec<(Zxid, PathBuf)>, StorageError> {
    files(disk, dir, log_zxid)
}

/// The snapshots of a directory, by rising zxid.
pub fn snapshots_in(disk: &dyn Disk, dir: &Path) -> Result<Vec<(Zxid, PathBuf)>, StorageError> {
    files(disk, dir, snapshot_zxid)
}

/// A leader's snapshot that is being installed: until a start, or the server that runs, has finished that, the files show
/// neither history as a whole.
pub fn unfinished_install(disk: &dyn Disk, dirs: &Dirs) -> Result<Option<PathBuf>, StorageError> {
    let names = disk.list(&dirs.data).map_err(StorageError::io("list", &dirs.data))?;
    let is_mark = |name: &str| name.starts_with(INSTALLING) || name.starts_with(ENTERING);
    Ok(names.into_iter().find(|(name, _)| is_mark(name)).map(|(name, _)| dirs.data.join(name)))
}

/// The files of one kind, by rising zxid.
pub(super) fn files(
    disk: &dyn Disk,
    dir: &Path,
    zxid_of: fn(&str) -> Option<Zxid>,
) -> Result<Vec<(Zxid, PathBuf)>, StorageError> {
    let names = disk.list(dir).map_err(StorageError::io("list", dir))?;
    let mut found: Vec<_> =
        names.into_iter().filter_map(|(name, _)| Some((zxid_of(&name)?, dir.join(name)))).collect();
    found.sort();
    Ok(found)
}

/// What the names of snapshots say: that a history went through there, whatever the logs hold.
#[derive(Debug)]
pub(super) struct Shown(Vec<Zxid>);

impl Shown {
    pub(super) fn new(snapshots: &[(Zxid, PathBuf)]) -> Self {
        Self(snapshots.iter().map(|(zxid, _)| *zxid).collect())
    }

    pub(super) fn has(&self, zxid: Zxid) -> bool {
        self.0.contains(&zxid)
    }

    fn between(&self, last: Zxid, next: Option<Zxid>) -> impl Iterator<Item = Zxid> {
        let is_before = move |zxid| next.is_none_or(|next| zxid < next);
        self.0.iter().copied().filter(move |zxid| last < *zxid && is_before(*zxid))
    }

    /// Whether a history went on between these two; behind the first one, where there is no second.
    pub(super) fn is_between(&self, last: Zxid, next: Option<Zxid>) -> bool {
        self.between(last, next).next().is_some()
    }

    /// Whether there was a transaction between these two, for sure. A Java server names snapshots by what opens an epoch
    /// too, which is none.
    pub(super) fn proves_one_between(&self, last: Zxid, next: Zxid) -> bool {
        self.between(last, Some(next)).any(|zxid| zxid.counter() != 0)
    }
}
