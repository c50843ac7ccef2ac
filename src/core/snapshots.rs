//! Snapshots: the tree is walked in slices and written; no lock is held across I/O.

use super::Core;
use crate::model::{Packing, Zxid};
use crate::storage::{Dirs, Disk, SnapshotWriter, StorageError, Trailer};
use crate::tree::{Database, SnapshotSlice};
use parking_lot::{Condvar, Mutex};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Places of the slab per slice: some tens of microseconds under the lock. Where znodes are large, it ends earlier.
const SLICE: usize = 256;
/// How often it is looked whether the log has caught up with the tree.
const LOG_POLL: Duration = Duration::from_millis(5);

/// Why there is no new snapshot.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    #[error("the leader's data took the place of this server's")]
    Replaced,
    #[error("the server stops")]
    Stopping,
    #[error(transparent)]
    Storage(#[from] StorageError),
}

/// One snapshot under way: `slice` under the database's write lock, `write` outside of it, in turns.
pub struct SnapshotJob {
    writer: SnapshotWriter,
    zxid: Zxid,
    trailer: Option<Trailer>,
}

/// How snapshots are written.
#[derive(Debug, Clone, Copy)]
pub struct SnapshotForm {
    /// How they are compressed (`snapshot.compression.method`).
    pub packing: Packing,
    /// With the digest comes the last zxid (`serializeLastProcessedZxid.enabled`).
    pub last_zxid: bool,
}

impl SnapshotForm {
    /// As they are without any setting.
    pub const USUAL: Self = Self { packing: Packing::Plain, last_zxid: true };
}

impl SnapshotJob {
    /// Of the tree as it is now, with its digest or without.
    pub fn begin(
        db: &mut Database,
        disk: &Arc<dyn Disk>,
        dirs: &Dirs,
        form: SnapshotForm,
        with_digest: bool,
    ) -> Result<Self, StorageError> {
        let zxid = db.last_txn;
        // Of the tree that every server begins with nobody asks it.
        let has_digest = with_digest && zxid != Zxid::ZERO;
        let trailer = has_digest.then(|| Trailer { digest: db.tree.digest(), last_zxid: form.last_zxid });
        let writer = SnapshotWriter::create(disk.clone(), &dirs.data, zxid, form.packing)?;
        db.begin_snapshot();
        Ok(Self { writer, zxid, trailer })
    }

    pub fn zxid(&self) -> Zxid {
        self.zxid
    }

    /// The next slice of the tree's slab; none where the database was replaced meanwhile.
    pub fn slice(&self, db: &mut Database, places: usize) -> Option<SnapshotSlice> {
        db.tree.snapshot_under_way().then(|| db.tree.snapshot_slice(places))
    }

    /// Whether that was the last one.
    pub fn write(&mut self, slice: &SnapshotSlice) -> Result<bool, StorageError> {
        self.writer.write(&slice.bytes)?;
        Ok(slice.done)
    }

    /// Whether the log holds what the snapshot shows: otherwise a crash could leave a hole in it.
    pub fn may_finish(&self, durable: Zxid) -> bool {
        durable >= self.zxid || self.zxid.counter() == 0
    }

    pub fn finish(self) -> Result<PathBuf, StorageError> {
        self.writer.finish(self.zxid, self.trailer).map(|(path, _)| path)
    }
}

/// Asks the snapshot thread for work. Asking while it works is as good as not asking.
pub struct Snapshots {
    with_digest: bool,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    asked: bool,
    /// What is applied is committed: while there is no leader, it may not be.
    may_run: bool,
    stop: bool,
}

impl State {
    fn is_due(&self) -> bool {
        self.asked && self.may_run
    }
}

impl Snapshots {
    pub(super) fn new(with_digest: bool) -> Self {
        Self { with_digest, state: Mutex::default(), changed: Condvar::new() }
    }

    /// Whether they have one (`zookeeper.digest.enabled`).
    pub fn with_digest(&self) -> bool {
        self.with_digest
    }

    pub fn ask(&self) {
        self.state.lock().asked = true;
        self.changed.notify_one();
    }

    pub(super) fn allow(&self, may_run: bool) {
        self.state.lock().may_run = may_run;
        self.changed.notify_one();
    }

    pub(super) fn stop(&self) {
        self.state.lock().stop = true;
        self.changed.notify_one();
    }

    /// Claims the pending snapshot request, if there is one.
    pub fn take_due(&self) -> bool {
        let mut state = self.state.lock();
        let due = state.is_due();
        state.asked &= !due;
        due
    }

    fn wait(&self) -> bool {
        let mut state = self.state.lock();
        while !state.stop && !state.is_due() {
            self.changed.wait(&mut state);
        }
        state.asked = false;
        !state.stop
    }
}

/// Runs until the core stops.
pub fn run(core: &Arc<Core>, disk: &Arc<dyn Disk>, dirs: &Dirs, form: SnapshotForm) {
    while core.snapshots.wait() {
        match write_snapshot(core, disk, dirs, form) {
            Ok(path) => tracing::info!("wrote {}", path.display()),
            // The log still holds everything: the next one may succeed.
            Err(SnapshotError::Stopping) => tracing::info!("gave up a snapshot: the log holds everything"),
            Err(error) => tracing::error!("snapshot failed, the log keeps growing: {error}"),
        }
    }
}

/// Writes the tree as it is now.
pub fn write_snapshot(
    core: &Core,
    disk: &Arc<dyn Disk>,
    dirs: &Dirs,
    form: SnapshotForm,
) -> Result<PathBuf, SnapshotError> {
    let started = Instant::now();
    let with_digest = core.snapshots.with_digest();
    let job = SnapshotJob::begin(&mut core.db.write(), disk, dirs, form, with_digest)?;
    let written = write_slices(core, job);
    match &written {
        Ok(_) => core.figures.snapshot_written(started.elapsed()),
        Err(_) => core.db.write().tree.abandon_snapshot(),
    }
    written
}

fn write_slices(core: &Core, mut job: SnapshotJob) -> Result<PathBuf, SnapshotError> {
    loop {
        let slice = job.slice(&mut core.db.write(), SLICE).ok_or(SnapshotError::Replaced)?;
        let done = job.write(&slice)?;
        while done && !job.may_finish(core.durable()) && !core.is_stopping() {
            std::thread::park_timeout(LOG_POLL);
        }
        if core.is_stopping() {
            return Err(SnapshotError::Stopping);
        }
        if done {
            return Ok(job.finish()?);
        }
    }
}

/// Writes a snapshot of a database that nobody else uses: a small one, uncompressed.
pub fn write_snapshot_of(
    db: &mut Database,
    disk: &Arc<dyn Disk>,
    dirs: &Dirs,
) -> Result<PathBuf, StorageError> {
    let mut job = SnapshotJob::begin(db, disk, dirs, SnapshotForm::USUAL, true)?;
    loop {
        let slice = job.slice(db, usize::MAX >> 1).expect("nobody replaces the database");
        if job.write(&slice)? {
            return job.finish();
        }
    }
}
