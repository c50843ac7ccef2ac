//! `zabra log mend`: what comes before the first bad place, as a new log.

use crate::cli::outcome::{Found, ToolError};
use crate::cli::source::{log_file, new_file};
use crate::model::Zxid;
use crate::storage::{BadPlace, HEADER_LEN, LogCopy, LogWalk, RealDisk, Step};
use std::io::Write;
use std::path::{Path, PathBuf};

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Example: zabra log mend version-2/log.100000001 --to /tmp/mended/
What comes after the first bad place is left out: a history with a hole is one that never was, and servers refuse it. The output
says how many good transactions that are; `zabra log` shows them. Logs after this one do not follow the mended one any more.
The input stays as it is. To use the new log, stop the server, put the log in the place of the old one, and delete zabra.synced beside
it, which says that there was more. A server of an ensemble needs none of this: it takes what it lacks from the others.
Exit codes: 0 it was clean, 1 it was damaged and what was good is in the new file, 2 it could not be done.")]
pub struct MendArgs {
    /// The torn or damaged log.
    file: PathBuf,
    /// The new file, or a directory, where it keeps its name. No existing file is written over.
    #[arg(long)]
    to: PathBuf,
}

pub fn run(args: &MendArgs, out: &mut impl Write) -> Result<Found, ToolError> {
    let file = log_file(&args.file)?;
    let to = new_file(&args.to, &file)?;
    let mut log = LogWalk::open(&RealDisk, &file)?;
    let mut copy = LogCopy::create(&to)?;
    let (mut count, mut last, mut header_is_wrong) = (0_u64, None, false);
    let bad = loop {
        match log.next()? {
            Step::Record(record) => {
                copy.append(&record)?;
                count += 1;
                last = Some(record.zxid);
            }
            // A header says nothing that a new one does not.
            Step::Bad(place) if place.offset == 0 && place.good == Some(HEADER_LEN) => header_is_wrong = true,
            Step::Bad(place) => break Some(place),
            Step::End { .. } => break None,
        }
    };
    let Some(last) = last else { return Err(ToolError::NothingGood { path: file }) };
    copy.finish()?;
    writeln!(out, "{}: {count} transactions, up to {last}", to.display())?;
    match bad {
        Some(place) => {
            left_out(&file, &place, &mut log, out)?;
            Ok(Found::fault_if(place.is_loss || header_is_wrong))
        }
        None => Ok(Found::fault_if(header_is_wrong)),
    }
}

/// What the new log has not.
fn left_out(file: &Path, place: &BadPlace, log: &mut LogWalk, out: &mut impl Write) -> Result<(), ToolError> {
    let mut good: Option<(Zxid, Zxid, u64)> = None;
    loop {
        match log.next()? {
            Step::Record(record) => {
                let (first, _, count) = good.unwrap_or((record.zxid, record.zxid, 0));
                good = Some((first, record.zxid, count + 1));
            }
            Step::Bad(_) => {}
            Step::End { .. } => break,
        }
    }
    let name = file.display();
    writeln!(out, "{name}: bytes from offset {} on are left out: {}", place.offset, place.what)?;
    if let Some((first, last, count)) = good {
        writeln!(
            out,
            "{name}: {count} good transactions after that are left out, too: zabra log {name} --from-zxid {first} --to-zxid {last}"
        )?;
    }
    Ok(())
}
