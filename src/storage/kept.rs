//! What a leader's history takes the place of is not thrown away: it moves to a directory `kept.<n>` of its own, with a
//! page that says what it is and how to go back to it. The leader may have been elected by servers that had lost
//! everything, and then this is the only copy.

use super::log_reader::LogReader;
use super::names::log_name;
use super::record::HEADER_LEN;
use super::small_file::{dir_of, write_whole};
use super::{Dirs, Disk, Epochs, StorageError, len_of};
use crate::model::Zxid;
use std::path::{Path, PathBuf};

const KEPT: &str = "kept.";
/// Its presence says that all that belongs into the directory is there.
const PAGE: &str = "README";
const CHUNK: usize = 1 << 20;

/// What was kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    /// One directory; two where logs have a directory of their own.
    pub dirs: Vec<PathBuf>,
    /// How many files were moved or copied there.
    pub files: usize,
    /// The last transaction that this server had.
    pub last: Zxid,
}

impl std::fmt::Display for Kept {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let dirs: Vec<String> = self.dirs.iter().map(|dir| dir.display().to_string()).collect();
        let page = self.dirs[0].join(PAGE);
        write!(
            f,
            "the leader's history took the place of this server's. What this server had up to transaction {} is kept \
             ({} files) in {}; {} says how to go back to it",
            self.last,
            self.files,
            dirs.join(" and "),
            page.display()
        )
    }
}

/// How the kept files relate to those that stay.
#[derive(Debug, Clone, Copy)]
pub(super) enum Part {
    /// They are a history of their own.
    Whole,
    /// They are what came after this transaction.
    After(Zxid),
}

/// Fills one directory.
pub(super) struct Keeper<'a> {
    disk: &'a dyn Disk,
    dirs: &'a Dirs,
    number: u64,
    files: usize,
}

impl<'a> Keeper<'a> {
    /// Goes on with a directory that a crash left unfinished, unless that has one of these files already.
    pub(super) fn open(
        disk: &'a dyn Disk,
        dirs: &'a Dirs,
        files: impl Iterator<Item = PathBuf> + Clone,
    ) -> Result<Self, StorageError> {
        let newest = numbers(disk, dirs)?.last().copied().unwrap_or(0);
        let is_free = |number: u64| -> Result<bool, StorageError> {
            let mut taken = Vec::new();
            for dir in places(dirs, number) {
                let names = disk.list(&dir).unwrap_or_default();
                taken.extend(names.into_iter().map(|(name, _)| dir.join(name)));
            }
            let page = places(dirs, number)[0].join(PAGE);
            let mut wanted = files.clone().map(|file| place_of(&file, number));
            Ok(!taken.contains(&page) && !wanted.any(|file| taken.contains(&file)))
        };
        let number = if newest > 0 && is_free(newest)? { newest } else { newest + 1 };
        for dir in places(dirs, number) {
            disk.create_dir_all(&dir).map_err(StorageError::io("create", &dir))?;
        }
        Ok(Self { disk, dirs, number, files: 0 })
    }

    /// Durably moves a file there.
    pub(super) fn take(&mut self, file: &Path) -> Result<(), StorageError> {
        let to = place_of(file, self.number);
        self.disk.rename(file, &to).map_err(StorageError::io("rename", file))?;
        for dir in [dir_of(&to), dir_of(file)] {
            self.disk.sync_dir(dir).map_err(StorageError::io("sync", dir))?;
        }
        self.files += 1;
        Ok(())
    }

    /// Durably copies a log's records from this offset on, the first of which is `zxid`, to a log of their own.
    pub(super) fn copy_tail(&mut self, log: &Path, offset: u64, zxid: Zxid) -> Result<(), StorageError> {
        let mut records = LogReader::open_growing(self.disk, log)?;
        while records.next()?.is_some() {}
        let end = records.position();
        let to = place_of(&dir_of(log).join(log_name(zxid)), self.number);
        let mut from = self.disk.open(log).map_err(StorageError::io("open", log))?;
        let mut copy = self.disk.create(&to).map_err(StorageError::io("create", &to))?;
        let mut chunk = vec![0; CHUNK];
        for (mut at, end) in [(0, HEADER_LEN), (offset, end)] {
            while at < end {
                let want = chunk.len().min(len_of(end - at));
                let count = from.read_at(at, &mut chunk[..want]).map_err(StorageError::io("read", log))?;
                if count == 0 {
                    break;
                }
                copy.write_all(&chunk[..count]).map_err(StorageError::io("write", &to))?;
                at += count as u64;
            }
        }
        copy.sync().map_err(StorageError::io("sync", &to))?;
        self.disk.sync_dir(dir_of(&to)).map_err(StorageError::io("sync", dir_of(&to)))?;
        self.files += 1;
        Ok(())
    }

    /// Everything is there: the page tells about it. `last` is the last transaction that this server had.
    pub(super) fn finish(self, part: Part, last: Zxid) -> Result<Kept, StorageError> {
        let dirs = places(self.dirs, self.number);
        let home = self.dirs.data.display();
        if let Part::Whole = part {
            let epochs = Epochs::read(self.disk, &self.dirs.data)?;
            if let Some(accepted) = epochs.accepted {
                Epochs::write_accepted(self.disk, &dirs[0], accepted)?;
            }
            if let Some(current) = epochs.current {
                Epochs::write_current(self.disk, &dirs[0], current)?;
            }
        }
        let what = match part {
            Part::Whole => format!(
                "These files are the whole history that this server had, up to transaction {last}, before its leader's took \
                 its place.\nThe leader may not have all of it.\n\n\
                 To read it: zabra log log.*\n\n\
                 To go back to it, and give up what the ensemble has written since:\n\
                 1. Stop all servers.\n\
                 2. Here, move all files out of {home} (not this directory), and the files of this directory there.\n\
                 3. On all other servers, move the directory version-2 out of dataDir and dataLogDir.\n\
                 4. Start all servers. The empty ones take this server's history.\n"
            ),
            Part::After(to) => format!(
                "These files are what this server had after transaction {to}, up to {last}. Its leader did not have it, \
                 which is usual for what was never acknowledged to a client.\n\n\
                 To read it: zabra log log.*\n\n\
                 To go back to it, and give up what the ensemble has written since, where nothing was written to {home} \
                 after transaction {to}:\n\
                 1. Stop all servers.\n\
                 2. Here, move the files of this directory (not this page) to {home}.\n\
                 3. On all other servers, move the directory version-2 out of dataDir and dataLogDir.\n\
                 4. Start all servers. The empty ones take this server's history.\n"
            ),
        };
        let page = dirs[0].join(PAGE);
        match write_whole(self.disk, &page, what.as_bytes()) {
            // The files are there, and need no further block: a full disk keeps the page out, and nothing else.
            Err(StorageError::Io { source, .. }) if source.raw_os_error() == Some(libc::ENOSPC) => {}
            other => other?,
        }
        Ok(Kept { dirs, files: self.files, last })
    }
}

/// Removes all but the newest `keep` of the kept histories; returns what went.
pub(super) fn purge_kept(disk: &dyn Disk, dirs: &Dirs, keep: usize) -> Result<Vec<PathBuf>, StorageError> {
    let numbers = numbers(disk, dirs)?;
    let mut removed = Vec::new();
    for number in &numbers[..numbers.len().saturating_sub(keep)] {
        for dir in places(dirs, *number) {
            disk.remove_dir_all(&dir).map_err(StorageError::io("remove", &dir))?;
            removed.push(dir);
        }
    }
    Ok(removed)
}

/// The numbers of the directories that are there, rising.
fn numbers(disk: &dyn Disk, dirs: &Dirs) -> Result<Vec<u64>, StorageError> {
    let mut found = Vec::new();
    for dir in [&dirs.data, &dirs.log] {
        let names = disk.list_dirs(dir).map_err(StorageError::io("list", dir))?;
        found.extend(names.iter().filter_map(|name| name.strip_prefix(KEPT)?.parse::<u64>().ok()));
    }
    found.sort_unstable();
    found.dedup();
    Ok(found)
}

fn places(dirs: &Dirs, number: u64) -> Vec<PathBuf> {
    let mut places = vec![dirs.data.join(format!("{KEPT}{number}"))];
    if dirs.log != dirs.data {
        places.push(dirs.log.join(format!("{KEPT}{number}")));
    }
    places
}

fn place_of(file: &Path, number: u64) -> PathBuf {
    dir_of(file).join(format!("{KEPT}{number}")).join(file.file_name().unwrap_or_default())
}
