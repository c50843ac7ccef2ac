//! The log thread: does the disk's work that the replica asked for, one sync for all that waits, and says so.

use super::{Core, Journal};
use std::sync::Arc;
use std::time::Duration;

/// How often a full disk is tried again.
const TRY_AGAIN: Duration = Duration::from_millis(100);

/// Runs until the core stops and everything is on disk, or the disk has no room for what is left. A failure of the log is fatal.
pub fn run(core: &Arc<Core>, mut journal: Journal) {
    let mut batch = Vec::new();
    while core.log.take(&mut batch) {
        loop {
            match journal.perform(&mut batch) {
                Ok(performed) => core.performed(performed),
                // What is on the disk is not known any more: nothing of this may be acknowledged.
                Err(error) => return core.fatal(error.into()),
            }
            if core.log.take_look() {
                core.performed(journal.look_for_room());
            }
            if batch.is_empty() {
                break;
            }
            if core.is_stopping() {
                tracing::warn!(
                    "the disk has no room for {} operations: they were not acknowledged, and end with this server",
                    batch.len()
                );
                batch.clear();
                break;
            }
            std::thread::park_timeout(TRY_AGAIN);
        }
    }
    if let Err(error) = journal.close() {
        core.fatal(error.into());
    }
}
