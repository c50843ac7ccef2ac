//! Reads the files that nobody reads, slowly: damage is found while the server still has in memory what they hold.

use super::{Core, check_snapshot};
use crate::model::Zxid;
use crate::model::owner::OwnerRules;
use crate::storage::{
    Damage, Dirs, Disk, LogWalk, ReadFile, SegmentFile, Space, Step, StorageError, WriteFile, logs_in,
    snapshots_in,
};
use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// So often it is looked whether the server stops, while the scrub waits.
const LOOK: Duration = Duration::from_millis(200);

/// When the scrub reads, and how much.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    /// From the beginning of a pass to that of the next.
    pub every: Duration,
    pub bytes_per_second: u64,
}

/// Learns how many bytes were read, and waits. False: read no more.
pub type Wait = Arc<dyn Fn(usize) -> bool + Send + Sync>;

/// What one pass came to.
#[derive(Debug, Default)]
pub struct Pass {
    pub files: u64,
    /// What is wrong with each file that is damaged, and was not when it was read last.
    pub damaged: Vec<StorageError>,
}

/// What is known of the files.
pub struct Scrub {
    owners: OwnerRules,
    damaged: BTreeSet<PathBuf>,
}

impl Scrub {
    pub fn new(owners: OwnerRules) -> Self {
        Self { owners, damaged: BTreeSet::new() }
    }

    /// Reads all snapshots, and all logs but the one that is written. `wait` learns of each piece that was read; once it says
    /// false, the pass is given up.
    pub fn pass(&mut self, disk: &dyn Disk, dirs: &Dirs, wait: &Wait) -> io::Result<Pass> {
        let disk = Slow { disk, wait };
        let snapshots = snapshots_in(&disk, &dirs.data).map_err(io::Error::other)?;
        let mut logs = logs_in(&disk, &dirs.log).map_err(io::Error::other)?;
        logs.pop();
        let mut pass = Pass::default();
        for (zxid, path) in snapshots {
            let checked = check_snapshot(&disk, zxid, &path, self.owners);
            self.note(path, checked, &mut pass)?;
        }
        let mut last = None;
        for (_, path) in logs {
            let checked = check_log(&disk, &path, &mut last);
            self.note(path, checked, &mut pass)?;
        }
        Ok(pass)
    }

    fn note(&mut self, path: PathBuf, checked: Result<(), StorageError>, pass: &mut Pass) -> io::Result<()> {
        match checked {
            Ok(()) => {
                self.damaged.remove(&path);
            }
            Err(StorageError::Io { source, .. }) if source.kind() == GIVEN_UP => return Err(source),
            // It was purged, or a leader's history took its place.
            Err(StorageError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => {
                if self.damaged.insert(path) {
                    pass.damaged.push(error);
                }
            }
        }
        pass.files += 1;
        Ok(())
    }
}

/// Reads a log to its end. `last`: the last transaction of the logs before it.
fn check_log(disk: &dyn Disk, path: &Path, last: &mut Option<Zxid>) -> Result<(), StorageError> {
    let mut log = LogWalk::open(disk, path)?;
    let mut is_first = true;
    let before = *last;
    loop {
        match log.next()? {
            Step::Record(record) => {
                *last = (*last).max(Some(record.zxid));
                let later = before.filter(|_| std::mem::take(&mut is_first));
                if let Some((last, after)) = later.and_then(|last| Some((last, log.begins_later(last)?))) {
                    return Err(StorageError::damaged(path, 0, Damage::BeginsLater { after, last }));
                }
            }
            Step::Bad(place) if !place.is_loss => return Ok(()),
            Step::Bad(place) => {
                let what = match place.good {
                    Some(good) => Damage::BeforeGoodRecord { what: place.what, good },
                    None => Damage::BeforeLog(place.what),
                };
                // The next log begins after what this one can't tell.
                *last = None;
                return Err(StorageError::damaged(path, place.offset, what));
            }
            Step::End { .. } => return Ok(()),
        }
    }
}

/// Runs until the core stops. Where files are damaged, a new snapshot of what is in memory makes that no start needs them.
pub fn run(core: &Arc<Core>, disk: &Arc<dyn Disk>, dirs: &Dirs, owners: OwnerRules, pace: Pace) {
    let mut scrub = Scrub::new(owners);
    while !core.is_stopping() {
        let begun = Instant::now();
        let (read, at) = (Arc::new(AtomicU64::new(0)), core.clone());
        let all = read.clone();
        let wait: Wait = Arc::new(move |bytes| {
            at.figures.scrubbed(bytes);
            let read = all.fetch_add(bytes as u64, Ordering::Relaxed) + bytes as u64;
            wait_until(&at, begun + Duration::from_secs_f64(read as f64 / pace.bytes_per_second as f64))
        });
        match scrub.pass(&**disk, dirs, &wait) {
            Ok(pass) => report(core, &pass, read.load(Ordering::Relaxed), begun.elapsed()),
            Err(error) if error.kind() == GIVEN_UP => return,
            Err(error) => tracing::warn!("the scrub can't read the data directories: {error}"),
        }
        wait_until(core, begun + pace.every);
    }
}

/// Says what a pass found, and has a snapshot written where that is needed.
pub fn report(core: &Core, pass: &Pass, bytes: u64, took: Duration) {
    core.figures.scrub_passed(pass.damaged.len());
    let (files, mb) = (pass.files, bytes >> 20);
    tracing::debug!("scrub: read {files} files ({mb} MB) in {took:.1?}");
    for error in &pass.damaged {
        tracing::error!(
            "scrub: {}. What it held is in memory: a snapshot is written now, and a start does not need this file any more. Look at \
             the disk",
            error.place()
        );
    }
    if !pass.damaged.is_empty() {
        core.snapshots.ask();
    }
}

/// False: the server stops.
fn wait_until(core: &Core, at: Instant) -> bool {
    loop {
        let left = at.saturating_duration_since(Instant::now());
        if core.is_stopping() || left.is_zero() {
            return !core.is_stopping();
        }
        std::thread::park_timeout(left.min(LOOK));
    }
}

const GIVEN_UP: io::ErrorKind = io::ErrorKind::TimedOut;

/// A disk that is read slowly, past the system's memory, and never written.
struct Slow<'a> {
    disk: &'a dyn Disk,
    wait: &'a Wait,
}

struct SlowFile {
    file: Box<dyn ReadFile>,
    wait: Wait,
}

impl ReadFile for SlowFile {
    fn len(&self) -> u64 {
        self.file.len()
    }

    fn read_at(&mut self, offset: u64, into: &mut [u8]) -> io::Result<usize> {
        let count = self.file.read_at(offset, into)?;
        if (self.wait)(count) { Ok(count) } else { Err(GIVEN_UP.into()) }
    }
}

fn read_only<T>() -> io::Result<T> {
    Err(io::ErrorKind::ReadOnlyFilesystem.into())
}

impl Disk for Slow<'_> {
    fn list(&self, dir: &Path) -> io::Result<Vec<(String, u64)>> {
        self.disk.list(dir)
    }

    fn list_dirs(&self, dir: &Path) -> io::Result<Vec<String>> {
        self.disk.list_dirs(dir)
    }

    fn open(&self, file: &Path) -> io::Result<Box<dyn ReadFile>> {
        let file = self.disk.open_cold(file)?;
        Ok(Box::new(SlowFile { file, wait: self.wait.clone() }))
    }

    fn allocated(&self, file: &Path) -> io::Result<u64> {
        self.disk.allocated(file)
    }

    fn space(&self, dir: &Path) -> io::Result<Space> {
        self.disk.space(dir)
    }

    fn boot(&self) -> u64 {
        self.disk.boot()
    }

    fn create_dir_all(&self, _: &Path) -> io::Result<()> {
        read_only()
    }

    fn remove_dir_all(&self, _: &Path) -> io::Result<()> {
        read_only()
    }

    fn create(&self, _: &Path) -> io::Result<Box<dyn WriteFile>> {
        read_only()
    }

    fn segment(&self, _: &Path, _: u64) -> io::Result<Box<dyn SegmentFile>> {
        read_only()
    }

    fn rename(&self, _: &Path, _: &Path) -> io::Result<()> {
        read_only()
    }

    fn remove(&self, _: &Path) -> io::Result<()> {
        read_only()
    }

    fn truncate(&self, _: &Path, _: u64) -> io::Result<()> {
        read_only()
    }

    fn sync_file(&self, _: &Path) -> io::Result<()> {
        read_only()
    }

    fn sync_dir(&self, _: &Path) -> io::Result<()> {
        read_only()
    }
}
