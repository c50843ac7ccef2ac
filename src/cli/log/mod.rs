//! `zabra log`: what transaction logs say. It only reads them: what is mended or cut goes to a new file.

mod chop;
mod dump;
pub mod filter;
mod follow;
mod last;
mod mend;
pub mod show;
#[cfg(test)]
pub mod tests;
mod verify;

use super::outcome::{Found, ToolError, to_stdout};
use std::io::Write;

const EXAMPLES: &str = "\
Examples:
  zabra log /var/lib/zookeeper                                 all logs of a dataDir, in order
  zabra log log.100000001 --prefix /app --since 2026-11-28T12:00:00Z
  zabra log /var/lib/zookeeper --session 0x1000a3f --type create,delete --json
  zabra log /var/lib/zookeeper --follow                        what a running server writes, as it does
  zabra log last /app/leader /var/lib/zookeeper                who changed this znode last
  zabra log verify /var/lib/zookeeper                          all bad places
  zabra log mend log.100000001 --to /tmp/mended                the good part, in a new file
  zabra log chop log.100000001 --after 0x100000017 --to /tmp/short

Exit codes: 0 clean, 1 damaged (or, for `last`, not found), 2 it could not be done.
A file whose name is that of a command is written as ./verify.";

#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true, after_help = EXAMPLES)]
pub struct LogArgs {
    #[command(subcommand)]
    verb: Option<Verb>,
    #[command(flatten)]
    dump: dump::DumpArgs,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// Print the last transaction that changed a znode: who, when, what.
    Last(last::LastArgs),
    /// Check files from end to end: all bad places, gaps and records that do not decode.
    Verify(verify::VerifyArgs),
    /// Copy what comes before the first bad place into a new log, which servers can read.
    Mend(mend::MendArgs),
    /// Copy what comes up to a zxid into a new log.
    Chop(chop::ChopArgs),
}

pub fn run(args: &LogArgs) -> Result<Found, ToolError> {
    to_stdout(|out| run_to(args, out))
}

fn run_to(args: &LogArgs, out: &mut impl Write) -> Result<Found, ToolError> {
    match &args.verb {
        None => dump::run(&args.dump, out),
        Some(Verb::Last(args)) => last::run(args, out),
        Some(Verb::Verify(args)) => verify::run(args, out),
        Some(Verb::Mend(args)) => mend::run(args, out),
        Some(Verb::Chop(args)) => chop::run(args, out),
    }
}
