//! Runs seeds of the simulator, or replays one so that a person can read it.

#![allow(clippy::disallowed_methods, reason = "a door: it measures how long the seeds take")]

use clap::Parser;
use indicatif::{ProgressBar, ProgressStyle};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::FormatTime;
use zabra::cli::signals::Signals;
use zabra::figures::Figures;
use zabra::sim::crashes::{self, At, Count, Found};
use zabra::sim::{self, Outcome, Report, Scenario, Tells};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Whole ensembles in one thread, from a seed: production code, simulated network, disks and clocks.
///
/// Ends with the first violation (exit code 1), which it prints with its seed. Asked to end (SIGINT, SIGTERM), it tells
/// how far it came (exit code 1, too).
#[derive(Debug, Parser)]
#[command(name = "zabra-sim", version)]
struct Args {
    /// Replay this seed alone, and tell what happens. RUST_LOG=zabra=debug tells more.
    #[arg(long, conflicts_with_all = ["seeds", "first", "jobs"])]
    seed: Option<u64>,
    /// Of a replay: tell every packet too.
    #[arg(long, requires = "seed")]
    packets: bool,
    /// A story to tell instead of drawing faults; with --seed once, so that it can be read.
    #[arg(long, value_name = "FILE")]
    scenario: Option<PathBuf>,
    /// Crash one server at every step of its disk in scripted histories, and again while it starts.
    #[arg(long, conflicts_with_all = ["seed", "scenario", "seeds"])]
    crashes: bool,
    /// With --crashes: how many histories.
    #[arg(long, default_value_t = 120, requires = "crashes")]
    histories: u64,
    /// With --crashes: tell this history alone, and what happens. RUST_LOG=zabra=debug tells more.
    #[arg(long, requires = "crashes", conflicts_with_all = ["histories", "first", "jobs"])]
    history: Option<u64>,
    /// With --history: crash at this step of the disk: 17k is killed before it, 17t is killed in the middle of what it writes,
    /// 17p loses power before it.
    #[arg(long, value_name = "STEP", requires = "history")]
    at: Option<At>,
    /// How many seeds to run.
    #[arg(long, default_value_t = 2000)]
    seeds: u64,
    /// The first seed, or the first history.
    #[arg(long, default_value_t = 0)]
    first: u64,
    /// Threads; by default one per core.
    #[arg(long)]
    jobs: Option<usize>,
}

/// Lines of the servers' own logs carry the simulated time, and the server.
struct SimTime;

impl FormatTime for SimTime {
    fn format_time(&self, to: &mut Writer<'_>) -> std::fmt::Result {
        let (server, micros) = sim::trace::at();
        write!(to, "{:>10.3} ms  server {}:", micros as f64 / 1000.0, server + 1)
    }
}

fn main() -> ExitCode {
    let args = Args::parse();
    let scenario = match args.scenario.as_deref().map(read_scenario).transpose() {
        Ok(scenario) => scenario,
        Err(what) => {
            eprintln!("{what}");
            return ExitCode::from(2);
        }
    };
    if args.crashes {
        return match args.history {
            Some(history) => replay_history(history, args.at),
            None => enumerate(&args),
        };
    }
    match args.seed {
        Some(seed) => {
            replay(seed, scenario.as_ref(), if args.packets { Tells::Packets } else { Tells::Events })
        }
        None => run(&args, scenario.as_ref()),
    }
}

fn read_scenario(file: &Path) -> Result<Scenario, String> {
    let text = std::fs::read_to_string(file).map_err(|error| format!("{}: {error}", file.display()))?;
    Scenario::parse(&text).map_err(|what| format!("{}: {what}", file.display()))
}

fn one(seed: u64, scenario: Option<&Scenario>, figures: &Arc<Figures>, tells: Tells) -> Outcome {
    match scenario {
        Some(scenario) => scenario.run(seed, figures, tells),
        None => sim::run(seed, figures, tells),
    }
}

/// The servers' own log lines are printed.
fn show_log() {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("zabra=info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_timer(SimTime)
        .with_target(false)
        .with_level(false)
        .with_ansi(false)
        .init();
}

fn replay(seed: u64, scenario: Option<&Scenario>, tells: Tells) -> ExitCode {
    show_log();
    let outcome = one(seed, scenario, &Arc::new(Figures::new()), tells);
    println!("{:?}", outcome.report);
    match outcome.violation {
        None => ExitCode::SUCCESS,
        Some(what) => {
            println!("VIOLATION in seed {seed}: {what}");
            ExitCode::FAILURE
        }
    }
}

fn replay_history(number: u64, at: Option<At>) -> ExitCode {
    show_log();
    let history = crashes::history(number);
    println!("{}:\n{}", history.kind, history.text);
    let outcome = crashes::replay(&history, at, &Arc::new(Figures::new()), Tells::Events);
    match outcome.violation {
        None => ExitCode::SUCCESS,
        Some(what) => {
            println!("VIOLATION in history {number}: {what}");
            ExitCode::FAILURE
        }
    }
}

fn enumerate(args: &Args) -> ExitCode {
    let started = Instant::now();
    let jobs = args.jobs.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from));
    let next = AtomicU64::new(args.first);
    let end = args.first + args.histories;
    let bar = ProgressBar::new(args.histories);
    bar.set_style(
        ProgressStyle::with_template("{elapsed} {bar:30} {pos}/{len} histories, {eta} left")
            .expect("it is a template"),
    );
    let (next, progress) = (&next, &bar);
    let work = move || {
        let figures = Arc::new(Figures::new());
        let (mut total, mut violations) = (Count::default(), Vec::new());
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= end {
                return (total, violations);
            }
            match crashes::enumerate(&crashes::history(number), &figures) {
                Ok(count) => total += count,
                Err(found) => violations.push(found),
            }
            progress.inc(1);
        }
    };
    let (total, mut violations) = on_threads::<Count, _>(jobs, work);
    bar.finish_and_clear();
    println!(
        "{} histories in {:.1} s: {} steps of a disk, {} crashes at these, {} while a server started after one, {} runs of an \
         ensemble, {} violations",
        total.histories,
        started.elapsed().as_secs_f64(),
        total.steps,
        total.crashes,
        total.second,
        total.runs,
        violations.len()
    );
    violations.sort_by_key(|found| found.history);
    for Found { history, at, what } in &violations {
        let at = at.map_or(String::new(), |at| format!(" --at {at}"));
        println!("VIOLATION in history {history} ({}): {what}", crashes::history(*history).kind);
        println!("to read it: zabra-sim --crashes --history {history}{at}");
    }
    if violations.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Does the same work on this many threads, and adds up what they counted and found.
fn on_threads<C, F>(jobs: usize, work: impl Fn() -> (C, Vec<F>) + Sync) -> (C, Vec<F>)
where
    C: Default + std::ops::AddAssign + Send,
    F: Send,
{
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..jobs).map(|_| scope.spawn(&work)).collect();
        let (mut total, mut all) = (C::default(), Vec::new());
        for worker in workers {
            let (count, found) = worker.join().expect("a worker does not panic");
            total += count;
            all.extend(found);
        }
        (total, all)
    })
}

fn run(args: &Args, scenario: Option<&Scenario>) -> ExitCode {
    let started = Instant::now();
    let jobs = args.jobs.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from));
    let next = AtomicU64::new(args.first);
    let end = Arc::new(AtomicU64::new(args.first + args.seeds));
    if let Err(error) = end_when_asked(end.clone()) {
        eprintln!("cannot wait for signals: {error}");
        return ExitCode::from(2);
    }
    // The smallest seed that failed: no later one is begun.
    let failed = AtomicU64::new(u64::MAX);
    let bar = ProgressBar::new(args.seeds);
    bar.set_style(
        ProgressStyle::with_template("{elapsed} {bar:30} {pos}/{len} seeds, {per_sec}, {eta} left")
            .expect("it is a template"),
    );
    let (total, violations) = on_threads::<Report, _>(jobs, || work(scenario, &next, &end, &failed, &bar));
    bar.finish_and_clear();
    // Each worker took one more than it ran.
    let seeds = next.into_inner() - jobs as u64 - args.first;
    let seconds = started.elapsed().as_secs_f64();
    println!(
        "{seeds} seeds in {seconds:.1} s ({:.0} a minute), {:.1} h simulated: {} elections, {} faults, {} removed \
         leaders crashed, {} requests, {} answered, {} transactions committed, {} violations",
        seeds as f64 / seconds * 60.0,
        total.virtual_ms as f64 / 3.6e6,
        total.elections,
        total.faults,
        total.removed,
        total.requests,
        total.answered,
        total.committed,
        violations.len()
    );
    let first = violations.into_iter().min_by_key(|outcome| outcome.seed);
    let Some(Outcome { seed, violation: Some(what), .. }) = first else {
        return if seeds == args.seeds { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    };
    println!("VIOLATION in seed {seed}, the {}th: {what}", seed - args.first + 1);
    let story =
        args.scenario.as_ref().map_or(String::new(), |file| format!("--scenario {} ", file.display()));
    println!("to read it: zabra-sim {story}--seed {seed}");
    ExitCode::FAILURE
}

/// A long run that is asked to end tells what it has come to.
fn end_when_asked(end: Arc<AtomicU64>) -> std::io::Result<()> {
    let mut signals = Signals::of_the_end()?;
    std::thread::spawn(move || {
        signals.wait();
        end.store(0, Ordering::Relaxed);
    });
    Ok(())
}

fn work(
    scenario: Option<&Scenario>,
    next: &AtomicU64,
    end: &AtomicU64,
    failed: &AtomicU64,
    bar: &ProgressBar,
) -> (Report, Vec<Outcome>) {
    let figures = Arc::new(Figures::new());
    let mut total = Report::default();
    let mut violations = Vec::new();
    loop {
        let seed = next.fetch_add(1, Ordering::Relaxed);
        if seed >= end.load(Ordering::Relaxed) || seed > failed.load(Ordering::Relaxed) {
            return (total, violations);
        }
        // A panic is a violation too, and has to name its seed.
        let run = std::panic::AssertUnwindSafe(|| one(seed, scenario, &figures, Tells::Nothing));
        let outcome = std::panic::catch_unwind(run).unwrap_or_else(|_| Outcome {
            seed,
            report: Report::default(),
            violation: Some("panic: see above".into()),
        });
        bar.inc(1);
        total += outcome.report;
        if outcome.violation.is_some() {
            failed.fetch_min(seed, Ordering::Relaxed);
            violations.push(outcome);
        }
    }
}
