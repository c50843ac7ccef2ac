//! `zabra snapshot`: what snapshots hold, and the trees that directories lead to. It writes nothing.

mod compare;
mod dump;
mod summary;
#[cfg(test)]
mod tests;
mod verify;

use super::outcome::{Found, ToolError, to_stdout};
use std::io::Write;

const EXAMPLES: &str = "\
Examples:
  zabra snapshot snapshot.100000017 --prefix /app --data    the znodes of a file
  zabra snapshot /var/lib/zookeeper --json                  the tree that a directory's files lead to, logs included
  zabra snapshot summary /var/lib/zookeeper --depth 2       which subtrees have most znodes and bytes
  zabra snapshot compare snapshot.100000017 /backup/zookeeper
  zabra snapshot verify /var/lib/zookeeper                  checksums and digests of all files

A directory is a dataDir or its version-2: its newest good snapshot, and its logs replayed. A file is read from front to back in
little memory, a directory takes as much as a server.
Exit codes: 0 clean, or equal; 1 damaged, or different; 2 it could not be done.
A file whose name is that of a command is written as ./summary.";

#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true, after_help = EXAMPLES)]
pub struct SnapshotArgs {
    #[command(subcommand)]
    verb: Option<Verb>,
    #[command(flatten)]
    dump: dump::DumpArgs,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// Count znodes and bytes by subtree, and list the largest.
    Summary(summary::SummaryArgs),
    /// Say in what two trees differ.
    Compare(compare::CompareArgs),
    /// Check checksums and digests.
    Verify(verify::VerifyArgs),
}

pub fn run(args: &SnapshotArgs) -> Result<Found, ToolError> {
    to_stdout(|out| run_to(args, out))
}

fn run_to(args: &SnapshotArgs, out: &mut impl Write) -> Result<Found, ToolError> {
    match &args.verb {
        None => dump::run(&args.dump, out),
        Some(Verb::Summary(args)) => summary::run(args, out),
        Some(Verb::Compare(args)) => compare::run(args, out),
        Some(Verb::Verify(args)) => verify::run(args, out),
    }
}

/// Checks one snapshot, and prints what was found.
pub fn verified(path: &std::path::Path, out: &mut impl Write) -> Result<Found, ToolError> {
    verify::file(path, out)
}
