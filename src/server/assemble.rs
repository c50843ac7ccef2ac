//! A server without its drivers: its core on the data that it finds, and its journal. The simulator runs just this.

use super::{Tuning, settings};
use crate::config::{self, Config};
use crate::core::{Clock, Core, Fatal, Files, Journal, Opened, may_be_committed, open, view};
use crate::figures::Figures;
use crate::replica::{Replica, Settings};
use crate::storage::{Dirs, Disk, Progress, Recovered, StorageError, remove_if_there};
use std::sync::Arc;

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
