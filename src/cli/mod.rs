//! The doors: what the one binary can be asked to do. Thin.

pub mod arguments;
pub mod backup;
pub mod bench;
pub mod check;
pub mod history;
pub mod log;
pub mod log_lines;
pub mod outcome;
pub mod restore;
pub mod serve;
pub mod signals;
pub mod snapshot;
pub mod source;
mod threads;
mod thrift;

use clap::{Parser, Subcommand};
use std::process::ExitCode;

/// ZooKeeper on the wire and on disk.
#[derive(Debug, Parser)]
#[command(name = "zabra", version, about, arg_required_else_help = true)]
pub struct Cli {
    #[command(subcommand)]
    pub door: Door,
}

#[derive(Debug, Subcommand)]
pub enum Door {
    /// Run a server.
    Serve(serve::ServeArgs),
    /// Read a zoo.cfg as a server does, and say whether one starts with it and what differs from Java.
    Check(check::CheckArgs),
    /// Put load on a ZooKeeper server and measure throughput, latency and CPU time.
    Bench(bench::BenchArgs),
    /// Print, filter, follow, check, mend and cut transaction logs.
    Log(log::LogArgs),
    /// Print, sum up, compare and check snapshots, and the trees of whole directories.
    Snapshot(snapshot::SnapshotArgs),
    /// Write what a server's directory holds, at one point, into one file, while the server runs.
    Backup(backup::BackupArgs),
    /// Make a new data directory of a backup, or of a directory at an earlier point.
    Restore(restore::RestoreArgs),
}

/// Runs the command. What went wrong is printed to standard error.
pub fn run(cli: Cli) -> ExitCode {
    match cli.door {
        Door::Serve(args) => done(serve::run(&args)),
        Door::Check(args) => outcome::exit_code(check::run(&args, &mut std::io::stdout())),
        Door::Bench(args) => done(bench::run(&args)),
        Door::Log(args) => outcome::exit_code(log::run(&args)),
        Door::Snapshot(args) => outcome::exit_code(snapshot::run(&args)),
        Door::Backup(args) => outcome::exit_code(backup::run(&args)),
        Door::Restore(args) => outcome::exit_code(restore::run(&args, &mut std::io::stdout())),
    }
}

fn done(ended: Result<(), String>) -> ExitCode {
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("zabra: {message}");
            ExitCode::FAILURE
        }
    }
}
