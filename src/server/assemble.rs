//! A server without its drivers: its core on the data that it finds, and its journal. The simulator runs just this.

use super::settings;
use crate::config::{self, Config};
use crate::core::{Clock, Core, Fatal, Files, Journal, Opened, may_be_committed, open, view};
use crate::figures::Figures;
use crate::replica::{Replica, Settings};
use crate::storage::{Dirs, Disk, Progress, Recovered, StorageError, remove_if_there};
use std::sync::Arc;

/// Limits of memory and patience that no configuration names. Some must stand in a relation to others: see the test.
#[derive(Debug, Clone, Copy)]
pub struct Tuning {
    /// Bytes of all requests of this server's clients that may be under way: beyond it no more writes are taken from the sockets.
    pub admitted_bytes: usize,
    /// Bytes that a leader may have under way to a learner: beyond it the learner is sent more only as it takes it.
    pub window_bytes: usize,
    /// Bytes of committed transactions in memory, for learners that were away for a short time.
    pub history_bytes: usize,
    /// What a learner may take from its leader ahead of its disk.
    pub max_unlogged_bytes: usize,
    /// A quorum waits so long for a better vote of a server that is silent.
    pub finalize_ms: u64,
    /// Target size of what is read of a file for a learner at once, in bytes.
    pub feed_piece: usize,
}

impl Default for Tuning {
    fn default() -> Self {
        Self {
            admitted_bytes: 8 << 20,
            window_bytes: 32 << 20,
            history_bytes: 32 << 20,
            max_unlogged_bytes: 32 << 20,
            finalize_ms: 200,
            feed_piece: 256 << 10,
        }
    }
}

/// Where a server lives.
pub struct Surroundings {
    pub disk: Arc<dyn Disk>,
    pub clock: Clock,
    pub figures: Arc<Figures>,
    /// Called when the log failed; has to end the process.
    pub fatal: Box<dyn Fn(Fatal) + Send + Sync>,
    /// Spreads the snapshots of an ensemble's servers.
    pub random: Box<dyn FnMut() -> u64 + Send>,
    pub reactors: usize,
    pub tuning: Tuning,
}

pub struct Assembled {
    pub core: Arc<Core>,
    pub journal: Journal,
    pub files: Files,
    pub settings: Settings,
    pub found: Recovered,
}

/// Recovers the data directory and puts the core on it.
pub fn assemble(
    config: &Config,
    around: Surroundings,
    progress: &mut dyn FnMut(Progress<'_>),
) -> Result<Assembled, StorageError> {
    let Surroundings { disk, clock, figures, fatal, random, reactors, tuning } = around;
    let dirs = Dirs::new(&config.storage.dir, config.storage.log_dir());
    let Opened { db, found, position } = open(&disk, &dirs, &settings::opening(config, &tuning), progress)?;
    let replica_settings = settings::replica(config, &tuning);
    let setup = settings::journal(config, &disk, &dirs);
    let wants_snapshot = setup.roll.wants_snapshot(&found);
    let journal = Journal::new(setup, position.last, random);
    let mut proposed =
        config.quorum.proposed.clone().filter(|_| config.quorum.is_distributed() && config.quorum.reconfig);
    if proposed.take_if(|proposed| !may_be_committed(proposed, &position)).is_some() {
        remove_if_there(&*disk, &config::dynamic_file(&config.file, None))?;
    }
    let view = config
        .quorum
        .ensemble
        .clone()
        .filter(|_| config.quorum.is_distributed())
        .map(|committed| view(committed, proposed, config.quorum.reconfig, &db));
    let settings = replica_settings.clone();
    let replica = |db: &crate::tree::Database, now| match view {
        Some(view) => Replica::in_ensemble(settings, view, position, now),
        None => Replica::alone(settings, db, now),
    };
    let core = Arc::new(Core::new(replica, db, reactors, figures, clock, fatal));
    if wants_snapshot {
        core.snapshots.ask();
    }
    let files = settings::files(config, &disk, &dirs, &tuning, core.committed());
    Ok(Assembled { core, journal, files, settings: replica_settings, found })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conversation::MAX_HELD;
    use crate::peer::FEED_AHEAD;

    #[test]
    fn limits_stand_in_their_relations() {
        let Tuning { admitted_bytes, window_bytes, history_bytes, feed_piece, .. } = Tuning::default();
        // What the clients of three servers have under way fits into the window of a learner that keeps up.
        assert!(3 * admitted_bytes <= window_bytes);
        // Who was behind by a window comes back out of memory, and need not be fed the log.
        assert!(window_bytes <= history_bytes);
        // A link that is fed has always something to write, and never much.
        assert!(feed_piece < FEED_AHEAD && FEED_AHEAD < window_bytes);
        // One client may use all that there is as long as it is alone.
        assert!(admitted_bytes <= MAX_HELD);
    }
}
