//! `zabra log last`: who changed a znode last.

use super::filter::{Filter, changes};
use super::show::Style;
use crate::cli::outcome::{Found, ToolError};
use crate::cli::source::logs;
use crate::model::Zxid;
use crate::storage::{LogRecord, LogWalk, RealDisk, Step};
use crate::wire::txn::Txn;
use std::io::Write;
use std::path::{Path, PathBuf};

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Example: zabra log last /app/leader /var/lib/zookeeper
The session of the line made the change; `zabra log DIR --session 0x…` shows what else it did, and when it began. A closeSession
that a server wrote with closeSessionTxn.enabled=false does not list the ephemerals that it deletes, and is not found by them.
Exit codes: 0 found, 1 no transaction in these files changed it, 2 it could not be done.")]
pub struct LastArgs {
    /// The znode.
    path: String,
    /// Logs or directories. The newest is looked at first.
    #[arg(required = true)]
    files: Vec<PathBuf>,
    #[command(flatten)]
    style: Style,
}

pub fn run(args: &LastArgs, out: &mut impl Write) -> Result<Found, ToolError> {
    let mut files = logs(&args.files, Zxid::ZERO)?;
    while let Some(file) = files.pop() {
        if let Some((record, txn)) = last_change(&file, &args.path)? {
            writeln!(out, "{}", args.style.txn(&record, &txn))?;
            return Ok(Found::Clean);
        }
    }
    eprintln!("zabra: no transaction in these files changed {}", args.path);
    Ok(Found::Fault)
}

fn last_change(file: &Path, path: &str) -> Result<Option<(LogRecord, Txn)>, ToolError> {
    let mut log = LogWalk::open(&RealDisk, file)?;
    let filter = Filter::of_path(path);
    let mut last = None;
    loop {
        match log.next()? {
            Step::Record(record) if filter.may_want(&record) => {
                let txn = Txn::decode(record.body.clone()).ok();
                let txn = txn.filter(|txn| changes(&txn.body, path.as_bytes()));
                last = txn.map(|txn| (record, txn)).or(last);
            }
            Step::Record(_) => {}
            Step::Bad(place) => eprintln!("zabra: {}: {place}", file.display()),
            Step::End { .. } => return Ok(last),
        }
    }
}
