//! Puts a server together: recovery, core, threads, client port; and takes it apart again.

mod restore;

pub use restore::RestoredDatabase;

use crate::client_port::{ClientPort, Facts, Limits, run_reactor};
use crate::config::Config;
use crate::core::{Core, RollRules, run_log, run_snapshots, run_timer, write_snapshot};
use crate::figures::Figures;
use crate::model::owner::OwnerRules;
use crate::model::{ServerId, Zxid};
use crate::replica::{Replica, Settings};
use crate::request::Rules;
use crate::storage::{
    DirLock, Dirs, Disk, Epochs, LogOptions, Progress, RealDisk, Recovered, StorageError, TxnLog, purge,
    recover,
};
use socket2::{Domain, Socket, Type};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, ToSocketAddrs};
use std::path::Path;
use std::sync::atomic::AtomicI64;
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("{0}")]
    Storage(#[from] StorageError),
    #[error("cannot listen on {address}: {source}")]
    Listen { address: String, source: io::Error },
    #[error("cannot start a thread: {0}")]
    Thread(io::Error),
    #[error("the data directory {0} does not exist, and datadir.autocreate is false")]
    NoDataDir(String),
}

/// A server that runs.
pub struct Server {
    core: Arc<Core>,
    threads: Vec<JoinHandle<()>>,
    timer_stop: mpsc::Sender<()>,
    address: SocketAddr,
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
    pub fatal: Box<dyn Fn(StorageError) + Send + Sync>,
    pub reactors: usize,
}

impl Parts {
    pub fn real() -> Self {
        let reactors = std::thread::available_parallelism().map_or(1, usize::from).min(64);
        let fatal = |error: StorageError| {
            tracing::error!(
                "{error}; stopping: what is on the disk is not known any more, nothing of it was acknowledged"
            );
            std::process::exit(1);
        };
        Self { disk: Arc::new(RealDisk), fatal: Box::new(fatal), reactors }
    }
}

/// Recovers the data directory and starts to serve.
pub fn start(config: &Config, parts: Parts, watch: &mut dyn Watch) -> Result<Server, StartError> {
    let started = Instant::now();
    let Parts { disk, fatal, reactors } = parts;
    // Before anything is read: a port that is taken must not cost a recovery.
    let (listener, address) = listen(config)?;
    let dirs = Dirs::new(&config.data_dir, config.log_dir());
    let locks = prepare_dirs(config, &*disk, &dirs)?;
    Epochs::read(&*disk, &dirs.data)?;
    let figures = Arc::new(Figures::new());
    let (db, found) = restore(config, &*disk, &dirs, watch)?;
    figures.db_init_ms.record(started.elapsed().as_secs_f64() * 1000.0);
    figures.txns_loaded.record(found.txns as f64);

    let settings = settings(config);
    let last_zxid = db.last_zxid;
    let rules = settings.rules.clone();
    let tick = Duration::from_millis(
        (config.tick_time_ms / 2).min(config.container_check_interval_ms).clamp(10, 1000),
    );
    let core = Arc::new(Core::new(|db, now| Replica::alone(settings, db, now), db, reactors, figures, fatal));
    if found.snapshot.is_none() {
        // A Java server refuses a log without a snapshot.
        write_snapshot(&core, &disk, &dirs)?;
    } else if found.txns > config.snap_count / 2 {
        core.snapshots.ask();
    }

    let port = Arc::new(ClientPort::new(core.clone(), rules, limits(config), facts(config, &dirs, started)));
    let (timer_stop, timer_stopped) = mpsc::channel();
    let mut threads = Vec::new();
    let mut spawn = |name: String, run: Box<dyn FnOnce() + Send>| {
        threads.push(std::thread::Builder::new().name(name).spawn(run).map_err(StartError::Thread)?);
        Ok::<(), StartError>(())
    };
    let log = TxnLog::new(disk.clone(), dirs.log.clone(), log_options(config), last_zxid.0);
    let roll = roll_rules(config);
    let at = core.clone();
    spawn("log".into(), Box::new(move || run_log(&at, log, roll)))?;
    let (at, on, of) = (core.clone(), disk.clone(), dirs.clone());
    spawn("snapshot".into(), Box::new(move || run_snapshots(&at, &on, &of)))?;
    let at = core.clone();
    spawn("timer".into(), Box::new(move || run_timer(&at, tick, &timer_stopped)))?;
    let mut listener = Some(listener);
    for index in 0..reactors {
        let (port, listener) = (port.clone(), listener.take());
        let run = move || {
            if let Err(error) = run_reactor(index, port, listener) {
                tracing::error!("reactor {index}: {error}");
                std::process::exit(1);
            }
        };
        spawn(format!("reactor-{index}"), Box::new(run))?;
    }
    if config.autopurge_purge_interval_hours > 0 {
        start_purge(config, &core, disk, dirs)?;
    }
    Ok(Server { core, threads, timer_stop, address, _locks: locks })
}

impl Server {
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn core(&self) -> &Arc<Core> {
        &self.core
    }

    /// Stops taking requests, syncs the log, ends all threads.
    pub fn stop(self) {
        self.core.stop();
        drop(self.timer_stop);
        for thread in self.threads {
            // A thread that panicked has ended the process already.
            let _ = thread.join();
        }
    }
}

fn prepare_dirs(config: &Config, disk: &dyn Disk, dirs: &Dirs) -> Result<Vec<DirLock>, StartError> {
    let mut locks = Vec::new();
    let mut tops = vec![config.data_dir.as_path()];
    if config.log_dir() != config.data_dir {
        tops.push(config.log_dir());
    }
    for (top, dir) in tops.into_iter().zip([&dirs.data, &dirs.log]) {
        if !dir.exists() && !config.datadir_autocreate {
            return Err(StartError::NoDataDir(dir.display().to_string()));
        }
        let io = |source| StorageError::Io { op: "create", file: dir.clone(), source };
        disk.create_dir_all(dir).map_err(io)?;
        locks.push(DirLock::take(top)?);
    }
    Ok(locks)
}

fn restore(
    config: &Config,
    disk: &dyn Disk,
    dirs: &Dirs,
    watch: &mut dyn Watch,
) -> Result<(crate::tree::Database, Recovered), StartError> {
    let mut state = RestoredDatabase::new(owner_rules(config));
    let found = recover(disk, dirs, &mut state, &mut |progress| watch.recovering(progress))?;
    watch.recovered(&found);
    let mut db = state.into_database();
    db.last_zxid = db.last_zxid.max(Zxid(found.last_zxid));
    Ok((db, found))
}

fn owner_rules(config: &Config) -> OwnerRules {
    OwnerRules { extended_types: config.extended_types, emulate_353: config.emulate_353_ttl }
}

/// Java's standalone server gives its sessions the id 1.
const ALONE: ServerId = ServerId(1);

fn settings(config: &Config) -> Settings {
    Settings {
        server: ALONE,
        tick_ms: config.tick_time_ms,
        min_session_timeout_ms: config.min_session_timeout(),
        max_session_timeout_ms: config.max_session_timeout(),
        container_check_ms: config.container_check_interval_ms,
        container_max_per_minute: config.container_max_per_minute,
        container_max_never_used_ms: config.container_max_never_used_ms,
        rules: Rules {
            extended_types: config.extended_types,
            skip_acl: config.skip_acl,
            enforce_quota: config.enforce_quota,
            reconfig: config.reconfig_enabled,
            digest_auth: config.digest_auth,
            super_digest: config.super_digest.as_ref().map(|id| id.as_bytes().to_vec()),
            txn_digests: config.digest_enabled,
            max_txn_bytes: config.max_record(),
        },
    }
}

fn limits(config: &Config) -> Limits {
    Limits {
        max_frame: config.max_buffer,
        per_address: config.max_client_cnxns,
        connections: config.max_cnxns,
        sessionless: Duration::from_millis(config.sessionless_timeout_ms),
        outstanding: config.global_outstanding_limit.saturating_mul(OUTSTANDING_FACTOR),
        enforced_schemes: config.enforced_schemes(),
    }
}

/// How many requests this server holds where a Java server would hold one: they are short-lived here and cost less.
const OUTSTANDING_FACTOR: usize = 16;

fn facts(config: &Config, dirs: &Dirs, started: Instant) -> Facts {
    let allowed = config.clone();
    Facts {
        started,
        allowed: Box::new(move |word| allowed.word_is_allowed(word)),
        configuration: config.text(),
        data_dir: dirs.data.clone(),
        log_dir: dirs.log.clone(),
        trace_mask: AtomicI64::new(306),
    }
}

fn log_options(config: &Config) -> LogOptions {
    LogOptions { prealloc_bytes: config.pre_alloc_size_kb << 10, force_sync: config.force_sync }
}

fn roll_rules(config: &Config) -> RollRules {
    let kilobytes = |limit: i64| u64::try_from(limit).unwrap_or(0) << 10;
    RollRules {
        snap_count: config.snap_count,
        snap_bytes: kilobytes(config.snap_size_limit_kb),
        segment_bytes: kilobytes(config.txn_log_size_limit_kb),
    }
}

/// Removes old snapshots and logs now and every interval. Its thread ends with the process.
fn start_purge(config: &Config, core: &Arc<Core>, disk: Arc<dyn Disk>, dirs: Dirs) -> Result<(), StartError> {
    let every = Duration::from_secs(config.autopurge_purge_interval_hours * 3600);
    let (keep, rules, core) = (config.autopurge_snap_retain_count, owner_rules(config), core.clone());
    let run = move || {
        while !core.is_stopping() {
            let is_good = |path: &Path| restore::is_readable(&*disk, path, rules);
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

/// The client port, on all addresses of both families unless one is named.
fn listen(config: &Config) -> Result<(TcpListener, SocketAddr), StartError> {
    let port = config.client_port.unwrap_or(0);
    let named = config.client_port_address.as_deref().filter(|name| !matches!(*name, "0.0.0.0" | "*"));
    let text = format!("{}:{port}", named.unwrap_or("*"));
    let failed = |source| StartError::Listen { address: text.clone(), source };
    let candidates: Vec<SocketAddr> = match named {
        Some(name) => (name.trim_matches(['[', ']']), port).to_socket_addrs().map_err(failed)?.collect(),
        None => [IpAddr::V6(Ipv6Addr::UNSPECIFIED), IpAddr::V4(Ipv4Addr::UNSPECIFIED)]
            .map(|address| SocketAddr::new(address, port))
            .to_vec(),
    };
    let mut last = io::Error::new(io::ErrorKind::AddrNotAvailable, "the name has no address");
    for candidate in candidates {
        match bind(candidate, config.client_port_listen_backlog) {
            Ok(listener) => {
                let address = listener.local_addr().map_err(failed)?;
                return Ok((listener, address));
            }
            // A machine without IPv6: the next candidate is the IPv4 one.
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => return Err(failed(error)),
            Err(error) => last = error,
        }
    }
    Err(failed(last))
}

fn bind(address: SocketAddr, backlog: i32) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    if address.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(if backlog > 0 { backlog } else { 1024 })?;
    Ok(socket.into())
}
