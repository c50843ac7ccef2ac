//! The doors: what the one binary can be asked to do. Thin.

pub mod bench;
pub mod log;
pub mod log_lines;
pub mod serve;
pub mod signals;
mod thrift;

use clap::{Parser, Subcommand};

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
    /// Put load on a ZooKeeper server and measure throughput, latency and CPU time.
    Bench(bench::BenchArgs),
    /// Print the transactions of log files, one line each.
    Log(log::LogArgs),
}

/// Runs the command. The caller prints an error to standard error and exits with code 1.
pub fn run(cli: Cli) -> Result<(), String> {
    match cli.door {
        Door::Serve(args) => serve::run(&args),
        Door::Bench(args) => bench::run(&args),
        Door::Log(args) => log::run(&args),
    }
}
