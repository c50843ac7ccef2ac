//! The log thread: does the disk's work that the replica asked for, one sync for all that waits, and says so.

use super::{Core, Journal};
use std::sync::Arc;

/// Runs until the core stops and everything is on disk. A failure of the log is fatal.
pub fn run(core: &Arc<Core>, mut journal: Journal) {
    let mut batch = Vec::new();
    while core.log.take(&mut batch) {
        match journal.perform(&mut batch) {
            Ok(performed) => core.performed(performed),
            // What is on the disk is not known any more: nothing of this may be acknowledged.
            Err(error) => return core.fatal(error.into()),
        }
    }
    if let Err(error) = journal.close() {
        core.fatal(error.into());
    }
}
