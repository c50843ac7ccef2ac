//! Puts a server together: recovery, core, threads, ports; and takes it apart again.

mod assemble;
mod budgets;
#[cfg(test)]
mod damage;
#[cfg(test)]
mod doors;
mod limits;
mod listen;
mod memory;
#[cfg(test)]
mod pings;
mod settings;

pub use assemble::{Assembled, Surroundings, assemble};
pub use budgets::{LEAST_MEMORY, Tuning};
pub use memory::Memory;

use crate::client_port::{ClientPort, run_reactor};
use crate::config::Config;
use crate::core::{
    Core, Descriptors, Fatal, Pace, SnapshotError, check_snapshot, machine_clock, run_log, run_scrub,
    run_snapshots, run_timer, write_snapshot,
};
use crate::figures::Figures;
use crate::peer;
use crate::storage::{DirLock, Dirs, Disk, Progress, RealDisk, Recovered, StorageError, purge};
use crate::tls::TlsError;
use listen::listen;
use rustix::fs::{Access, access};
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// What a server has open beside connections and files: its standard streams, ports, locks, and what tokio has.
const OWN_DESCRIPTORS: usize = 24;
/// What a reactor has.
const REACTOR_DESCRIPTORS: usize = 3;

#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("{0}")]
    Storage(#[from] StorageError),
    #[error("the first snapshot: {0}")]
    Snapshot(#[from] SnapshotError),
    #[error("cannot listen on {address}: {source}")]
    Listen { address: String, source: io::Error },
    #[error("{0}")]
    Tls(#[from] TlsError),
    /// `electionPortBindRetry` says how often it is tried.
    #[error("the election port: {source} (tried {tries} times: electionPortBindRetry)")]
    Peers { tries: u64, source: io::Error },
    #[error("cannot start a thread: {0}")]
    Thread(io::Error),
    #[error(
        "reconfigEnabled is on, and {}, which names the servers itself, can never be rewritten: its directory: {source}. \
         Make the directory writable, or move the servers into a dynamicConfigFile, or turn reconfigEnabled off",
        file.display()
    )]
    Config { file: PathBuf, source: io::Error },
    #[error("the data directory {} does not exist, and datadir.autocreate is false", .0.display())]
    NoDataDir(PathBuf),
}

/// A server that runs.
pub struct Server {
    core: Arc<Core>,
    threads: Vec<JoinHandle<()>>,
    peers: Option<peer::Running>,
    addresses: Vec<SocketAddr>,
    _locks: Vec<DirLock>,
}

/// Told to whoever starts the server, as it happens.
pub trait Watch {
    fn recovering(&mut self, progress: Progress<'_>);
    fn recovered(&mut self, found: &Recovered);
}

/// What a server is made of beside its configuration.
pub struct Parts {
    pub disk: Arc<dyn Disk>,
    /// Called when the log failed; has to end the process.
    pub fatal: Box<dyn Fn(Fatal) + Send + Sync>,
    pub reactors: usize,
    /// How many descriptors the process may have open.
    pub descriptors: u64,
    /// How much memory it may have.
    pub memory: Memory,
}

impl Parts {
    /// `fail` ends the process.
    pub fn real(fail: fn() -> !, memory: Memory) -> Self {
        let reactors = std::thread::available_parallelism().map_or(1, usize::from).min(64);
        let fatal = move |error: Fatal| {
            match error {
                Fatal::Refusal(_) | Fatal::Reactor { .. } => tracing::error!("stopping: {error}"),
                Fatal::Storage(error) => tracing::error!(
                    "{error}; stopping: what is on the disk is not known any more, nothing of it was acknowledged"
                ),
            }
            fail();
        };
        let descriptors = limits::raise_descriptors();
        Self { disk: Arc::new(RealDisk), fatal: Box::new(fatal), reactors, descriptors, memory }
    }
}

/// Recovers the data directory and starts to serve, alone or with the others.
pub fn start(config: &Config, parts: Parts, watch: &mut dyn Watch) -> Result<Server, StartError> {
    let started = Instant::now();
    let Parts { disk, fatal, reactors, descriptors, memory } = parts;
    let descriptors = Descriptors::new(descriptors, OWN_DESCRIPTORS + reactors * REACTOR_DESCRIPTORS);
    refuse_unwritable(config)?;
    // Before anything is read: a port that is taken must not cost a recovery.
    let listeners = listen(config)?;
    let addresses = listeners.iter().filter_map(|(listener, _)| listener.local_addr().ok()).collect();
    let dirs = Dirs::new(&config.storage.dir, config.storage.log_dir());
    let locks = prepare_dirs(config, &*disk, &dirs)?;
    let figures = Arc::new(Figures::new());
    let tuning = budgets(&memory);
    let around = Surroundings {
        disk: disk.clone(),
        clock: machine_clock(),
        figures: figures.clone(),
        fatal,
        random: Box::new(random),
        reactors,
        tuning,
    };
    let assembled = assemble(config, around, &mut |progress: Progress<'_>| watch.recovering(progress))?;
    let Assembled { core, journal, files, settings, found } = assembled;
    core.account.memory.store(memory.bytes, Ordering::Relaxed);
    watch.recovered(&found);
    figures.db_init_ms.record(started.elapsed().as_secs_f64() * 1000.0);
    figures.txns_loaded.record(found.txns as f64);

    let member = config.quorum.is_distributed().then_some(&settings.election_addresses);
    if found.snapshot.is_none() && member.is_none() {
        // A Java server refuses a log without a snapshot.
        write_snapshot(&core, &disk, &dirs, settings::snapshots(config))?;
        // None better comes, if one was asked for.
        core.snapshots.take_due();
    }

    let facts = settings::facts(config, &dirs, started);
    let rules = settings.rules.clone();
    let port = Arc::new(ClientPort::new(
        core.clone(),
        rules,
        settings::limits(config, &tuning, reactors),
        settings::port_limits(config, &tuning),
        settings::logins(config),
        facts,
        descriptors.clone(),
    ));
    let peers = match member {
        Some(addresses) => {
            let running = peer::start(&core, settings::peers(config, &descriptors), files, addresses);
            let tries = config.quorum.bind_retries;
            Some(running.map_err(|source| StartError::Peers { tries, source })?)
        }
        None => None,
    };
    let mut threads = Vec::new();
    let mut spawn = |name: String, run: Box<dyn FnOnce() + Send>| {
        threads.push(std::thread::Builder::new().name(name).spawn(run).map_err(StartError::Thread)?);
        Ok::<(), StartError>(())
    };
    let at = core.clone();
    spawn("core".into(), Box::new(move || at.relieve()))?;
    let at = core.clone();
    let pace = settings::log_pace(config);
    spawn("log".into(), Box::new(move || run_log(&at, journal, &pace)))?;
    let (at, on, of, form) = (core.clone(), disk.clone(), dirs.clone(), settings::snapshots(config));
    spawn("snapshot".into(), Box::new(move || run_snapshots(&at, &on, &of, form)))?;
    let tick = Duration::from_millis(
        (config.sessions.tick_ms / 2).min(config.znodes.container_check_ms).clamp(10, 1000),
    );
    let at = core.clone();
    spawn("timer".into(), Box::new(move || run_timer(&at, tick)))?;
    let mut listeners = Some(listeners);
    for index in 0..reactors {
        let (at, port, listeners) = (core.clone(), port.clone(), listeners.take().unwrap_or_default());
        let run = move || {
            if let Err(source) = run_reactor(index, port, listeners) {
                at.fatal(Fatal::Reactor { index, source });
            }
        };
        spawn(format!("reactor-{index}"), Box::new(run))?;
    }
    if config.storage.scrub_interval_ms > 0 {
        let (at, on, of, owners) = (core.clone(), disk.clone(), dirs.clone(), settings::owners(config));
        let pace = Pace {
            every: Duration::from_millis(config.storage.scrub_interval_ms),
            bytes_per_second: config.storage.scrub_bytes_per_second,
        };
        spawn("scrub".into(), Box::new(move || run_scrub(&at, &on, &of, owners, pace)))?;
    }
    if config.storage.purge_interval_hours > 0 {
        start_purge(config, &core, disk, dirs)?;
    }
    Ok(Server { core, threads, peers, addresses, _locks: locks })
}

/// The budgets for this much memory; the log says where they are less than usual, and where that is hardly enough.
fn budgets(memory: &Memory) -> Tuning {
    let tuning = Tuning::for_memory(memory.bytes);
    let megabytes = |bytes: u64| bytes >> 20;
    if memory.bytes < LEAST_MEMORY {
        tracing::warn!(
            "this process may have {} MB of memory ({}). A server needs {} MB beside its data: with less the system may end it \
             under load. Raise the limit (memory.max of the control group, or the container's memory)",
            megabytes(memory.bytes),
            memory.by,
            megabytes(LEAST_MEMORY)
        );
    }
    if memory.is_scarce() {
        tracing::info!(
            "this process may have {} MB of memory ({}); so {} KB of its clients' writes may be under way, {} KB to each learner, \
             and {} KB of history stay in memory",
            megabytes(memory.bytes),
            memory.by,
            tuning.admitted_bytes >> 10,
            tuning.window_bytes >> 10,
            tuning.history_bytes >> 10
        );
    }
    tuning
}

fn random() -> u64 {
    use std::hash::{BuildHasher, RandomState};
    RandomState::new().hash_one(0)
}

impl Server {
    /// Where clients may connect.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    pub fn core(&self) -> &Arc<Core> {
        &self.core
    }

    /// Stops taking requests, syncs the log, ends all threads.
    pub fn stop(self) {
        self.core.stop();
        if let Some(peers) = self.peers {
            peers.stop();
        }
        for thread in self.threads {
            // A thread that panicked has ended the process already.
            let _ = thread.join();
        }
    }
}

/// The first change of the ensemble moves its servers out of `zoo.cfg`, which a Java server tries out at each start: it
/// writes `zoo.cfg.bak`. With a dynamic file already there, what cannot be written is reported when it happens.
fn refuse_unwritable(config: &Config) -> Result<(), StartError> {
    let moves =
        config.quorum.is_distributed() && config.quorum.reconfig && config.quorum.dynamic_file.is_none();
    let dir = config.file.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    match access(dir, Access::WRITE_OK | Access::EXEC_OK) {
        Err(error) if moves => Err(StartError::Config { file: config.file.clone(), source: error.into() }),
        _ => Ok(()),
    }
}

fn prepare_dirs(config: &Config, disk: &dyn Disk, dirs: &Dirs) -> Result<Vec<DirLock>, StartError> {
    let mut locks = Vec::new();
    let mut tops = vec![config.storage.dir.as_path()];
    if config.storage.log_dir() != config.storage.dir {
        tops.push(config.storage.log_dir());
    }
    for (top, dir) in tops.into_iter().zip([&dirs.data, &dirs.log]) {
        if !dir.exists() && !config.storage.creates_dir {
            return Err(StartError::NoDataDir(dir.clone()));
        }
        let io = |source| StorageError::Io { op: "create", file: dir.clone(), source };
        disk.create_dir_all(dir).map_err(io)?;
        locks.push(DirLock::take(top)?);
    }
    Ok(locks)
}

/// Removes old snapshots and logs now and every interval. Its thread ends with the process.
fn start_purge(config: &Config, core: &Arc<Core>, disk: Arc<dyn Disk>, dirs: Dirs) -> Result<(), StartError> {
    let every = Duration::from_secs(config.storage.purge_interval_hours * 3600);
    let (keep, rules, core) = (config.storage.retained(), settings::owners(config), core.clone());
    let run = move || {
        while !core.is_stopping() {
            let is_good = |zxid, path: &Path| check_snapshot(&*disk, zxid, path, rules).is_ok();
            match purge(&*disk, &dirs, keep, &is_good) {
                Ok(removed) => removed.iter().for_each(|file| tracing::info!("purged {}", file.display())),
                Err(error) => tracing::error!("purge: {error}"),
            }
            std::thread::park_timeout(every);
        }
    };
    std::thread::Builder::new().name("purge".into()).spawn(run).map_err(StartError::Thread)?;
    Ok(())
}
