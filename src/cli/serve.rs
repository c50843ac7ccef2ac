//! `zabra serve`: runs a server until SIGTERM or SIGINT.

use super::log_lines::{self, LogFile};
use super::signals::{Asked, Signals};
use super::threads;
use super::thrift::begin_thriftily;
use crate::config::{Config, Machine};
use crate::server::{self, Memory, Parts, Watch};
use crate::storage::{Progress, Recovered, name_bus_errors};
use std::io::{self, IsTerminal};
use std::net::{IpAddr, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use tracing::level_filters::LevelFilter;
use tracing_subscriber::EnvFilter;

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Memory: a server keeps what is under way within the memory that it may have, the machine's or its control group's. \
    64 MiB are enough, with the data in addition; docs/limits.md has all limits.\n\n\
    Signals: SIGTERM and SIGINT stop the server. SIGHUP and SIGUSR1 open the log's file again. SIGQUIT logs what every thread is at. \
    SIGUSR2 turns debug lines on, and off again.\n\n\
    Environment: ZABRA_LOG is the level of the log (off, error, warn, info, debug or trace; module=level after a comma). \
    SERVER_JVMFLAGS and JVMFLAGS are read for -D flags, as Apache's scripts do."
)]
pub struct ServeArgs {
    /// A stock zoo.cfg. Without it: a standalone server on port 2181 with its data in ./zabra-data.
    pub config: Option<PathBuf>,
    /// Write the log into this file instead of standard error.
    #[arg(long, value_name = "FILE")]
    log_file: Option<PathBuf>,
    /// Move the log's file aside, to FILE.1, before it is larger than this. 0: never.
    #[arg(long, value_name = "MIB", default_value_t = 100, requires = "log_file")]
    log_file_mib: u64,
    /// Keep this many older files of the log.
    #[arg(long, value_name = "N", default_value_t = 10, requires = "log_file")]
    log_file_keep: usize,
    /// How lines of the log are written.
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    log_format: Format,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    /// Time, level, text, and fields as key=value.
    Text,
    /// One JSON object a line.
    Json,
}

pub fn run(args: &ServeArgs) -> Result<(), String> {
    let level = start_log(args).map_err(|error| format!("cannot start the log: {error}"))?;
    let memory = Memory::of_this_process(&|file| std::fs::read(file));
    begin_thriftily(&memory);
    let served = serve(args, memory, &level);
    log_lines::flush();
    served
}

fn serve(args: &ServeArgs, memory: Memory, level: &Level) -> Result<(), String> {
    let config = configuration(args.config.as_deref())?;
    tracing::info!(
        "zabra {} starting {} pid={}",
        env!("CARGO_PKG_VERSION"),
        identity(&config),
        std::process::id()
    );
    for warning in &config.warnings {
        tracing::warn!("{}: {}", warning.place, warning.text);
    }
    for note in &config.notes {
        tracing::info!("{}: {}", note.place, note.text);
    }
    name_bus_errors();
    let mut signals = Signals::all().map_err(|error| format!("cannot wait for signals: {error}"))?;
    let started = Instant::now();
    let server = server::start(&config, Parts::real(fail, memory), &mut Told::default())
        .map_err(|error| error.to_string())?;
    let addresses: Vec<String> = server.addresses().iter().map(ToString::to_string).collect();
    let (addresses, took) = (addresses.join(","), started.elapsed().as_millis());
    if config.quorum.is_distributed() {
        tracing::info!("client port open addr={addresses} after_ms={took}; waiting for a leader");
    } else {
        tracing::info!("serving clients role=standalone addr={addresses} after_ms={took}");
    }
    let which = until_stopped(&mut signals, level);
    tracing::info!("stopping signal={which}");
    server.stop();
    tracing::info!("stopped; everything acknowledged is on disk");
    Ok(())
}

/// Does what signals ask for, until one asks for the end: which one.
fn until_stopped(signals: &mut Signals, level: &Level) -> &'static str {
    let mut is_debug = false;
    loop {
        match signals.wait() {
            Asked::Stop(which) => return which,
            Asked::Reopen(which) => {
                tracing::info!("opening the log again signal={which}");
                log_lines::reopen();
            }
            Asked::Threads => {
                let lines = threads::lines();
                tracing::info!("signal=SIGQUIT threads={}", lines.len());
                lines.iter().for_each(|line| tracing::info!("{line}"));
            }
            Asked::Level => {
                is_debug = !is_debug;
                level(is_debug);
                tracing::info!("debug lines are {} signal=SIGUSR2", if is_debug { "on" } else { "off" });
            }
        }
    }
}

/// Ends the process: what is wrong is logged.
fn fail() -> ! {
    log_lines::flush();
    std::process::exit(1);
}

/// What a configuration makes of a server, and from which files it comes.
pub fn identity(config: &Config) -> String {
    let server = match (&config.quorum.ensemble, config.quorum.my_id) {
        (Some(ensemble), Some(id)) if config.quorum.is_distributed() => {
            format!("{id} of {}", ensemble.members().count())
        }
        _ => "standalone".into(),
    };
    format!(
        "config={} server={server} data={} log={}",
        if config.file.as_os_str().is_empty() { "none".into() } else { config.file.display().to_string() },
        config.storage.dir.display(),
        config.storage.log_dir().display()
    )
}

/// Of this file and the environment.
pub fn configuration(file: Option<&Path>) -> Result<Config, String> {
    let machine = Machine { read: &|file| std::fs::read(file), resolve: &addresses_of };
    let mut config = match file {
        Some(file) => Config::from_file(file, &machine).map_err(|error| error.to_string())?,
        None => Config::standalone_default(),
    };
    // In the order in which Apache's scripts put them: a later flag counts.
    for name in ["SERVER_JVMFLAGS", "JVMFLAGS"] {
        if let Ok(flags) = std::env::var(name) {
            config.apply_jvm_flags(name, &flags).map_err(|error| error.to_string())?;
        }
    }
    config.conclude(&machine).map_err(|error| error.to_string())?;
    Ok(config)
}

/// The addresses that the system knows of a host; none of one that it does not know.
fn addresses_of(host: &str) -> Vec<IpAddr> {
    let found = (host, 0).to_socket_addrs();
    found.map(|addresses| addresses.map(|address| address.ip()).collect()).unwrap_or_default()
}

/// Turns debug lines on, or sets the level that was asked for again.
type Level = Box<dyn Fn(bool)>;

/// A level that is not understood counts as the usual one, as nobody can help a server without a log.
fn start_log(args: &ServeArgs) -> io::Result<Level> {
    const USUAL: &str = "info";
    let asked = std::env::var("ZABRA_LOG").unwrap_or_default();
    let filter = filter(&asked);
    let usual = filter.clone().unwrap_or_else(|| EnvFilter::new(USUAL));
    let file = args.log_file.as_deref().map(|path| {
        let opened = LogFile::open(path, args.log_file_mib << 20, args.log_file_keep);
        opened.map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", path.display())))
    });
    let is_file = file.is_some();
    log_lines::start(file.transpose()?)?;
    let lines = tracing_subscriber::fmt()
        .with_env_filter(usual.clone())
        .with_target(false)
        .with_ansi(!is_file && io::stderr().is_terminal())
        .with_writer(|| log_lines::Queue);
    let set: Box<dyn Fn(EnvFilter)> = match args.log_format {
        Format::Text => {
            let lines = lines.with_filter_reloading();
            let handle = lines.reload_handle();
            lines.init();
            Box::new(move |filter| drop(handle.reload(filter)))
        }
        Format::Json => {
            let lines = lines.json().flatten_event(true).with_filter_reloading();
            let handle = lines.reload_handle();
            lines.init();
            Box::new(move |filter| drop(handle.reload(filter)))
        }
    };
    if filter.is_none() && !asked.trim().is_empty() {
        tracing::warn!(
            "ZABRA_LOG={asked:?} is not understood, and the level is {USUAL}. Use off, error, warn, info, debug or trace, and \
             module=level after a comma"
        );
    }
    Ok(Box::new(move |is_debug| set(if is_debug { EnvFilter::new("debug") } else { usual.clone() })))
}

/// A level, and levels of modules (`zabra::zab=debug`). A word alone that is no level is not taken for a module's name.
fn filter(asked: &str) -> Option<EnvFilter> {
    let mut parts = asked.split(',').map(str::trim);
    let is_meant = |part: &str| part.parse::<LevelFilter>().is_ok() || part.contains('=');
    if asked.trim().is_empty() || !parts.all(is_meant) {
        return None;
    }
    // Modules that are not named keep the usual level.
    EnvFilter::try_new(format!("info,{asked}")).ok()
}

/// Logs how recovery proceeds, once a second at most.
#[derive(Default)]
struct Told {
    last: Option<Instant>,
}

impl Watch for Told {
    fn recovering(&mut self, progress: Progress<'_>) {
        let started = *self.last.get_or_insert_with(Instant::now);
        if started.elapsed() < Duration::from_secs(1) {
            return;
        }
        self.last = Some(Instant::now());
        let percent = progress.done.min(progress.total) * 100 / progress.total.max(1);
        tracing::info!(
            "recovering file={} done={percent}% transactions={}",
            progress.file.display(),
            progress.txns
        );
    }

    fn recovered(&mut self, found: &Recovered) {
        for note in &found.notes {
            tracing::warn!("{note}");
        }
        let snapshot = found.snapshot.as_ref().map_or("none".into(), |path| path.display().to_string());
        tracing::info!(
            "recovered zxid={} snapshot={snapshot} transactions_from_log={}",
            found.last_zxid,
            found.txns
        );
    }
}
