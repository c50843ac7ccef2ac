//! `zabra log chop`: what comes up to a zxid, as a new log.

use crate::cli::arguments;
use crate::cli::outcome::{Found, ToolError};
use crate::cli::source::{log_file, new_file};
use crate::model::Zxid;
use crate::storage::{LogCopy, LogWalk, RealDisk, Step};
use std::io::Write;
use std::path::PathBuf;

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Example: zabra log chop version-2/log.100000001 --after 0x100000017 --to /tmp/short/
The input stays as it is. A server that had more starts on the new log once zabra.synced beside it is deleted. To go back to a point with snapshots and several logs, use: zabra restore --to-zxid
Exit codes: 0 done, 1 the log is damaged before that zxid, 2 it could not be done.")]
pub struct ChopArgs {
    /// The log.
    file: PathBuf,
    /// The last transaction that stays.
    #[arg(long, value_parser = arguments::zxid)]
    after: Zxid,
    /// The new file, or a directory, where it keeps its name. No existing file is written over.
    #[arg(long)]
    to: PathBuf,
}

pub fn run(args: &ChopArgs, out: &mut impl Write) -> Result<Found, ToolError> {
    let file = log_file(&args.file)?;
    let to = new_file(&args.to, &file)?;
    let mut log = LogWalk::open(&RealDisk, &file)?;
    let mut copy = LogCopy::create(&to)?;
    let (mut count, mut last) = (0_u64, None);
    let first_cut = loop {
        match log.next()? {
            Step::Record(record) if record.zxid > args.after => break record,
            Step::Record(record) => {
                copy.append(&record)?;
                count += 1;
                last = Some(record.zxid);
            }
            Step::Bad(place) => {
                return Err(ToolError::DamagedBefore { path: file, offset: place.offset, to: args.after });
            }
            Step::End { .. } => {
                let last = last.ok_or(ToolError::NothingGood { path: file.clone() })?;
                return Err(ToolError::NothingAfter { path: file, last, to: args.after });
            }
        }
    };
    let Some(last) = last else {
        return Err(ToolError::NothingBefore { path: file, first: first_cut.zxid, to: args.after });
    };
    copy.finish()?;
    writeln!(
        out,
        "{}: {count} transactions, up to {last}; what follows from {} on is left out",
        to.display(),
        first_cut.zxid
    )?;
    Ok(Found::Clean)
}
