//! The snapshot thread: walks the tree in slices and writes them; no lock is held across I/O.

use super::Core;
use crate::storage::{Dirs, Disk, SnapshotWriter, StorageError};
use parking_lot::{Condvar, Mutex};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

/// Places of the slab per slice: some tens of microseconds under the lock.
const SLICE: usize = 256;

/// Asks the snapshot thread for work. Asking while it works is as good as not asking.
#[derive(Default)]
pub struct Snapshots {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    asked: bool,
    stop: bool,
}

impl Snapshots {
    pub fn ask(&self) {
        self.state.lock().asked = true;
        self.changed.notify_one();
    }

    pub(super) fn stop(&self) {
        self.state.lock().stop = true;
        self.changed.notify_one();
    }

    fn wait(&self) -> bool {
        let mut state = self.state.lock();
        while !state.asked && !state.stop {
            self.changed.wait(&mut state);
        }
        state.asked = false;
        !state.stop
    }
}

/// Runs until the core stops.
pub fn run(core: &Arc<Core>, disk: &Arc<dyn Disk>, dirs: &Dirs) {
    while core.snapshots.wait() {
        match write_snapshot(core, disk, dirs) {
            Ok(path) => tracing::info!("wrote {}", path.display()),
            // The log still holds everything: the next one may succeed.
            Err(_) if core.is_stopping() => tracing::info!("gave up a snapshot: the log holds everything"),
            Err(error) => tracing::error!("snapshot failed, the log keeps growing: {error}"),
        }
    }
}

/// Writes the tree as it is now.
pub fn write_snapshot(core: &Core, disk: &Arc<dyn Disk>, dirs: &Dirs) -> Result<PathBuf, StorageError> {
    let started = Instant::now();
    let (zxid, digest) = {
        let mut db = core.db.write();
        db.begin_snapshot();
        (db.last_zxid, db.tree.digest())
    };
    let written = write_slices(core, disk, dirs, zxid.0, digest);
    match &written {
        Ok(_) => core.figures.snapshot_written(started.elapsed()),
        Err(_) => core.db.write().tree.abandon_snapshot(),
    }
    written
}

fn write_slices(
    core: &Core,
    disk: &Arc<dyn Disk>,
    dirs: &Dirs,
    zxid: i64,
    digest: u64,
) -> Result<PathBuf, StorageError> {
    let mut writer = SnapshotWriter::create(disk.clone(), &dirs.data, zxid)?;
    loop {
        let slice = core.db.write().tree.snapshot_slice(SLICE);
        writer.write(&slice.bytes)?;
        if slice.done {
            return writer.finish(zxid, digest).map(|(path, _)| path);
        }
        if core.is_stopping() {
            return Err(StorageError::Refused("the server stops".into()));
        }
    }
}
