//! `zabra bench`: load for any ZooKeeper server, and what it costs: throughput, latency, the server's CPU time.
//!
//! One thread drives all connections, so that the load costs little beside a server on the same machine.

mod client;
mod pacer;
mod process;
mod requests;

use client::{Client, Driver};
use hdrhistogram::Histogram;
use indicatif::{ProgressBar, ProgressStyle};
use process::Processes;
use requests::{Kind, Workload};
use serde_json::json;
use std::io::Write;
use std::net::{SocketAddr, ToSocketAddrs};
use std::time::{Duration, Instant};

#[derive(Debug, clap::Args)]
pub struct BenchArgs {
    /// Client port of the server, or of several servers with commas between them. Connections are spread over all of them.
    /// Addresses of other machines need --allow-remote.
    #[arg(long, value_delimiter = ',', default_value = "127.0.0.1:2181")]
    server: Vec<String>,
    /// Allow servers on other machines.
    #[arg(long)]
    allow_remote: bool,
    /// get, set, create, exists, children, mix:READS/WRITES (as mix:90/10), multi:N (N setData), or load.
    /// load fills the server with --nodes znodes below /bench-load and leaves them there.
    #[arg(long, default_value = "get")]
    op: String,
    /// Connections, each with a session of its own.
    #[arg(long, default_value_t = 1)]
    connections: usize,
    /// Unanswered requests that each connection keeps in flight.
    #[arg(long, default_value_t = 1)]
    in_flight: usize,
    /// Bytes of data in each znode.
    #[arg(long, default_value_t = 100)]
    data_bytes: usize,
    /// Znodes over which the load is spread.
    #[arg(long, default_value_t = 1000)]
    nodes: usize,
    /// Seconds to measure.
    #[arg(long, default_value_t = 5.0)]
    duration_s: f64,
    /// Seconds of load before measuring begins.
    #[arg(long, default_value_t = 1.0)]
    warmup_s: f64,
    /// Requests per second, sent on time even if answers are late; latency counts from the intended time.
    /// Without it the loop is closed: each answer triggers the next request.
    #[arg(long)]
    rate: Option<f64>,
    /// PIDs whose CPU time and memory are added up; detected automatically on this machine.
    #[arg(long, value_delimiter = ',')]
    server_pid: Vec<u32>,
    /// Print one JSON object instead of text.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, thiserror::Error)]
pub enum BenchError {
    #[error("{0}")]
    Usage(String),
    #[error("cannot connect to {address}: {source}")]
    Connect { address: SocketAddr, source: std::io::Error },
    #[error("cannot {what}: {source}")]
    Io { what: &'static str, source: std::io::Error },
    #[error("the server {0}")]
    Server(String),
}

/// Runs the load that `args` describe and prints what came of it.
pub fn run(args: &BenchArgs) -> Result<(), String> {
    measure(args).map_err(|error| error.to_string())
}

fn measure(args: &BenchArgs) -> Result<(), BenchError> {
    let servers = args.server.iter().map(|server| address(args, server)).collect::<Result<Vec<_>, _>>()?;
    let processes = match args.server_pid.is_empty() {
        true => servers.iter().filter_map(|server| process::listening_on(server.port())).collect(),
        false => args.server_pid.clone(),
    };
    let processes = Processes::new(processes);
    let kind: Kind = args.op.parse().map_err(BenchError::Usage)?;
    if kind == Kind::Load {
        return load(args, servers[0], &processes);
    }
    let root = format!("/bench-{:08x}", std::process::id() ^ servers[0].port() as u32);
    let workload = Workload::new(kind, &root, args.nodes.max(1), args.data_bytes);
    prepare(servers[0], &workload)?;

    let around = servers.iter().cycle().take(args.connections.max(1));
    let mut driver = Driver::new(around.map(|server| Client::connect(*server)).collect::<Result<_, _>>()?)?;
    let mut run = Run::new(args, &processes);
    driver.run(&workload, args.in_flight.max(1), args.rate, &mut run)?;
    report(args, &run, &processes);
    let last = driver.close();
    cleanup(servers[0], &workload, run.created)?;
    last
}

fn address(args: &BenchArgs, server: &str) -> Result<SocketAddr, BenchError> {
    let found = server.to_socket_addrs().ok().and_then(|mut all| all.next());
    let address = found.ok_or_else(|| BenchError::Usage(format!("--server {server}: expected host:port")))?;
    if !address.ip().is_loopback() && !args.allow_remote {
        return Err(BenchError::Usage(format!(
            "{address} is not on this machine; add --allow-remote if you mean it"
        )));
    }
    Ok(address)
}

fn prepare(server: SocketAddr, workload: &Workload) -> Result<(), BenchError> {
    let mut setup = Driver::new(vec![Client::connect(server)?])?;
    let bar = bar(workload.nodes() as u64, "preparing");
    setup.batch(&mut workload.preparation(), 256, true, &mut |done| bar.set_position(done))?;
    bar.finish_and_clear();
    setup.close()
}

/// Over a connection of its own: nobody kept that of the preparation alive meanwhile.
fn cleanup(server: SocketAddr, workload: &Workload, created: u64) -> Result<(), BenchError> {
    let mut setup = Driver::new(vec![Client::connect(server)?])?;
    let bar = bar(workload.nodes() as u64 + created, "removing");
    setup.batch(&mut workload.removal(created), 256, false, &mut |done| bar.set_position(done))?;
    bar.finish_and_clear();
    setup.close()
}

fn bar(total: u64, what: &'static str) -> ProgressBar {
    let style = ProgressStyle::with_template("{msg} {wide_bar} {pos}/{len} {per_sec}");
    ProgressBar::new(total).with_style(style.expect("the template is right")).with_message(what)
}

/// Fills the server and says what the znodes cost it.
fn load(args: &BenchArgs, server: SocketAddr, processes: &Processes) -> Result<(), BenchError> {
    let before = processes.resident_kb();
    let workload = Workload::new(Kind::Load, "/bench-load", args.nodes, args.data_bytes);
    let mut driver = Driver::new(vec![Client::connect(server)?])?;
    let bar = bar(workload.load_len(), "loading");
    let started = Instant::now();
    driver.batch(&mut workload.filling(), 512, true, &mut |done| bar.set_position(done))?;
    let took = started.elapsed();
    bar.finish_and_clear();
    driver.close()?;
    let after = processes.resident_kb();
    let rate = workload.load_len() as f64 / took.as_secs_f64();
    if args.json {
        say(&json!({"op": "load", "nodes": args.nodes, "seconds": took.as_secs_f64(), "per_s": rate,
                "server_rss_before_kb": before, "server_rss_after_kb": after})
        .to_string());
    } else {
        say(&format!(
            "{} znodes in {took:.2?}: {rate:.0}/s; server memory {before} -> {after} kB",
            args.nodes
        ));
    }
    Ok(())
}

/// One run's clock, its histogram, and the processes' CPU times at its ends.
pub(crate) struct Run<'a> {
    processes: &'a Processes,
    /// When measuring begins.
    pub begin: Instant,
    pub end: Instant,
    latency: Histogram<u64>,
    pub errors: u64,
    pub created: u64,
    server_cpu: (f64, f64),
    own_cpu: (f64, f64),
    measuring: bool,
    bar: ProgressBar,
    told: Instant,
    measured: f64,
}

impl<'a> Run<'a> {
    fn new(args: &BenchArgs, processes: &'a Processes) -> Self {
        let now = Instant::now();
        let begin = now + Duration::from_secs_f64(args.warmup_s.max(0.0));
        let style = ProgressStyle::with_template("{msg}").expect("the template is right");
        Self {
            processes,
            begin,
            end: begin + Duration::from_secs_f64(args.duration_s.max(0.1)),
            latency: Histogram::new_with_bounds(1, 600_000_000_000, 3).expect("the bounds are right"),
            errors: 0,
            created: 0,
            server_cpu: (0.0, 0.0),
            own_cpu: (0.0, 0.0),
            measuring: false,
            bar: ProgressBar::new_spinner().with_style(style),
            told: now,
            measured: 0.0,
        }
    }

    /// An answer came, for a request that was sent (or meant to be sent) at `sent`.
    #[inline]
    pub(crate) fn answered(&mut self, sent: Instant, now: Instant, err: i32) {
        if err != 0 {
            self.errors += 1;
        }
        if self.measuring {
            self.latency.saturating_record(now.duration_since(sent).as_nanos() as u64);
        }
    }

    /// To be called once a wake-up. False: the time is over.
    pub(crate) fn goes_on(&mut self, now: Instant) -> bool {
        if !self.measuring && now >= self.begin {
            self.measuring = true;
            self.begin = now;
            self.server_cpu.0 = self.processes.cpu_s();
            self.own_cpu.0 = Processes::own().cpu_s();
        }
        if now.duration_since(self.told) > Duration::from_secs(1) {
            self.told = now;
            self.bar.set_message(format!("{} answers measured", self.latency.len()));
        }
        now < self.end
    }

    pub(crate) fn finished(&mut self, now: Instant) {
        self.server_cpu.1 = self.processes.cpu_s();
        self.own_cpu.1 = Processes::own().cpu_s();
        self.measured = now.duration_since(self.begin).as_secs_f64();
        self.measuring = false;
        self.bar.finish_and_clear();
    }
}

fn report(args: &BenchArgs, run: &Run<'_>, processes: &Processes) {
    let count = run.latency.len();
    let per_op = |(from, to): (f64, f64)| if count == 0 { 0.0 } else { (to - from) * 1e6 / count as f64 };
    let micros = |quantile: f64| run.latency.value_at_quantile(quantile) as f64 / 1000.0;
    let throughput = count as f64 / run.measured.max(1e-9);
    let (server_cpu, own_cpu) = (per_op(run.server_cpu), per_op(run.own_cpu));
    let rss = processes.resident_kb();
    let max = run.latency.max() as f64 / 1000.0;
    if args.json {
        say(&json!({"op": args.op, "connections": args.connections, "in_flight": args.in_flight, "rate": args.rate,
                "per_s": throughput, "p50_us": micros(0.5), "p99_us": micros(0.99), "p999_us": micros(0.999),
                "max_us": max, "errors": run.errors, "server_cpu_us_per_op": server_cpu,
                "client_cpu_us_per_op": own_cpu, "server_rss_kb": rss}).to_string());
        return;
    }
    let (op, connections, in_flight) = (&args.op, args.connections, args.in_flight);
    say(&format!("{op} {connections} connections x {in_flight} in flight: {throughput:.0}/s"));
    let (p50, p99, p999) = (micros(0.5), micros(0.99), micros(0.999));
    say(&format!("latency us: p50 {p50:.0}  p99 {p99:.0}  p99.9 {p999:.0}  max {max:.0}"));
    say(&format!(
        "CPU us an operation: server {server_cpu:.2}, this load {own_cpu:.2}; server memory {rss} kB"
    ));
    if run.errors > 0 {
        say(&format!("{} errors", run.errors));
    }
}

/// Prints a line. A reader that went away is none of the bench's business.
fn say(line: &str) {
    let _ = writeln!(std::io::stdout(), "{line}");
}
