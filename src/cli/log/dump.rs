//! `zabra log FILES`: the transactions, those that are wanted, and each bad place between them.

use super::filter::Filter;
use super::follow;
use super::show::Style;
use crate::cli::outcome::{Found, ToolError};
use crate::cli::source::logs;
use crate::storage::{LogRecord, LogWalk, RealDisk, Step};
use crate::wire::txn::Txn;
use serde_json::json;
use std::io::Write;
use std::path::{Path, PathBuf};

#[derive(Debug, clap::Args)]
pub struct DumpArgs {
    /// Transaction logs of Zabra or of a Java server: files `log.<zxid>`, or directories, whose logs are taken in order.
    #[arg(required = true)]
    pub files: Vec<PathBuf>,
    #[command(flatten)]
    pub style: Style,
    #[command(flatten)]
    pub filter: Filter,
    /// Of the newest log, go on with what a running server appends, there and in the next log. It ends with a signal.
    #[arg(long, short)]
    pub follow: bool,
}

pub fn run(args: &DumpArgs, out: &mut impl Write) -> Result<Found, ToolError> {
    if args.follow {
        return follow::run(args, out);
    }
    let mut fault = false;
    for file in logs(&args.files, args.filter.first())? {
        fault |= dump(&file, args, out)? == Found::Fault;
    }
    Ok(Found::fault_if(fault))
}

fn dump(file: &Path, args: &DumpArgs, out: &mut impl Write) -> Result<Found, ToolError> {
    let mut log = LogWalk::open(&RealDisk, file)?;
    let (mut count, mut shown, mut fault) = (0_u64, 0_u64, false);
    let end = loop {
        match log.next()? {
            Step::Record(record) if args.filter.is_past(record.zxid) => {
                break format!("read up to offset {}", record.offset);
            }
            Step::Record(record) => {
                count += 1;
                shown += u64::from(show(&record, args, out)?);
            }
            Step::Bad(place) => {
                fault |= place.is_loss;
                let Some(good) = place.good else { break place.to_string() };
                if args.style.json {
                    let what = place.what.to_string();
                    let bad = json!({"offset": place.offset, "damaged": what, "good": good});
                    writeln!(out, "{}", json!({"file": file.display().to_string(), "bad": bad}))?;
                } else {
                    writeln!(out, "{}: {place}", file.display())?;
                }
            }
            Step::End { offset } if fault => break format!("end at offset {offset}"),
            Step::End { offset } => break format!("clean end at offset {offset}"),
        }
    };
    if args.style.json {
        let file = file.display().to_string();
        writeln!(out, "{}", json!({"file": file, "transactions": count, "shown": shown, "end": end}))?;
    } else {
        let shown = if shown == count { String::new() } else { format!("{shown} of ") };
        writeln!(out, "{}: {shown}{count} transactions, {end}", file.display())?;
    }
    Ok(Found::fault_if(fault))
}

/// Prints a record if it is wanted.
pub fn show(record: &LogRecord, args: &DumpArgs, out: &mut impl Write) -> Result<bool, ToolError> {
    if !args.filter.may_want(record) {
        return Ok(false);
    }
    match Txn::decode(record.body.clone()) {
        Ok(txn) if args.filter.wants(&txn) => writeln!(out, "{}", args.style.txn(record, &txn))?,
        Ok(_) => return Ok(false),
        Err(error) if args.style.json => {
            let zxid = record.zxid.to_string();
            let undecoded =
                json!({"offset": record.offset, "zxid": zxid, "does not decode": error.to_string()});
            writeln!(out, "{undecoded}")?;
        }
        Err(error) => writeln!(out, "{} offset {}: does not decode: {error}", record.zxid, record.offset)?,
    }
    Ok(true)
}
