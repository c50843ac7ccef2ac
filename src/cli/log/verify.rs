//! `zabra log verify`: all that is wrong with logs, not just the first.

use crate::cli::outcome::{Found, ToolError};
use crate::cli::source::logs;
use crate::model::Zxid;
use crate::storage::{BadPlace, LogRecord, LogWalk, RealDisk, Step, follows, is_error};
use crate::wire::txn::Txn;
use serde_json::{Value, json};
use std::io::Write;
use std::path::{Path, PathBuf};

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Example: zabra log verify /var/lib/zookeeper
A write that a crash cut short is at the end of the newest log, where a server cuts it off: if a part of it was never written, it
was not acknowledged, and the log counts as clean.
Exit codes: 0 clean, 1 damaged, 2 it could not be done.")]
pub struct VerifyArgs {
    /// Logs or directories.
    #[arg(required = true)]
    files: Vec<PathBuf>,
    /// Print one JSON object per finding and per file.
    #[arg(long)]
    json: bool,
}

pub fn run(args: &VerifyArgs, out: &mut impl Write) -> Result<Found, ToolError> {
    let mut verifier = Verifier { json: args.json, last: None, faults: 0, out };
    for file in logs(&args.files, Zxid::ZERO)? {
        verifier.file(&file)?;
    }
    Ok(Found::fault_if(verifier.faults > 0))
}

struct Verifier<'a, W> {
    json: bool,
    /// The last transaction up to here, over all files.
    last: Option<Zxid>,
    faults: u64,
    out: &'a mut W,
}

impl<W: Write> Verifier<'_, W> {
    fn file(&mut self, file: &Path) -> Result<(), ToolError> {
        let mut log = LogWalk::open(&RealDisk, file)?;
        let (before, mut count, mut first) = (self.faults, 0_u64, None);
        let mut bad: Option<BadPlace> = None;
        let end = loop {
            match log.next()? {
                Step::Record(record) => {
                    count += 1;
                    first = first.or(Some(record.zxid));
                    let later = self.last.and_then(|last| log.begins_later(last));
                    match (bad.take(), later) {
                        (Some(place), _) => self.bad(file, &place, Some(&record))?,
                        (None, Some(after)) => self.begins_later(file, after, &record)?,
                        (None, None) => self.order(file, &record)?,
                    }
                    self.decodes(file, &record)?;
                    self.last = self.last.max(Some(record.zxid));
                }
                Step::Bad(place) if place.good.is_some() => bad = Some(place),
                Step::Bad(place) => {
                    let offset = place.offset;
                    self.bad(file, &place, None)?;
                    break offset;
                }
                Step::End { offset } => break offset,
            }
        };
        self.summary(file, count, first, end, self.faults - before)
    }

    /// Bytes that are no record, and what is lost with them.
    fn bad(&mut self, file: &Path, place: &BadPlace, next: Option<&LogRecord>) -> Result<(), ToolError> {
        let (what, offset) = (&place.what, place.offset);
        let next_zxid = next.map(|record| record.zxid);
        let missing = self.last.zip(next_zxid).and_then(|(last, next)| missing(last, next));
        let text = match (place.good, missing) {
            (Some(good), Some(count)) => {
                format!("{} bytes are no record: {what}; {count} transactions are missing", good - offset)
            }
            (Some(good), None) => format!("{} bytes are no record: {what}", good - offset),
            (None, _) if place.is_loss => {
                format!(
                    "all after it is no record: {what}; a write that is there and wrong may have been acknowledged"
                )
            }
            (None, _) => format!("the last write was cut short: {what}; it was not acknowledged"),
        };
        let kind = if place.is_loss { "damaged" } else { "torn" };
        let details = json!({
            "good": place.good, "after": self.last.map(|zxid| zxid.to_string()),
            "before": next_zxid.map(|zxid| zxid.to_string()), "missing": missing,
        });
        self.finding(place.is_loss, file, offset, kind, &text, details)
    }

    /// A log before this one is not there. Where it held a whole epoch, zxids do not show it.
    fn begins_later(&mut self, file: &Path, after: Zxid, record: &LogRecord) -> Result<(), ToolError> {
        let last = self.last.unwrap_or_default();
        let text = format!(
            "this log was begun after {after}, and the one before ends with {last}: what lies between is missing"
        );
        let details = json!({"after": last.to_string(), "before": record.zxid.to_string()});
        self.finding(true, file, 0, "gap", &text, details)
    }

    /// Whether a record may come right after the one before it.
    fn order(&mut self, file: &Path, record: &LogRecord) -> Result<(), ToolError> {
        let Some(last) = self.last else { return Ok(()) };
        let zxid = record.zxid;
        // A Java server of 3.9 repeats the last zxid for a request that did not decode.
        if follows(last, zxid) || (zxid == last && is_error(&record.body)) {
            return Ok(());
        }
        let (kind, text) = match missing(last, zxid) {
            _ if zxid <= last => ("order", format!("transaction {zxid} follows {last}")),
            Some(count) => {
                ("gap", format!("transaction {zxid} follows {last}: {count} transactions are missing"))
            }
            None => ("gap", format!("transaction {zxid} follows {last}: what lies between is missing")),
        };
        let details = json!({"after": last.to_string(), "before": zxid.to_string()});
        self.finding(true, file, record.offset, kind, &text, details)
    }

    fn decodes(&mut self, file: &Path, record: &LogRecord) -> Result<(), ToolError> {
        match Txn::decode(record.body.clone()) {
            Ok(_) => Ok(()),
            Err(error) => {
                let text = format!("transaction {} does not decode: {error}", record.zxid);
                let details = json!({"zxid": record.zxid.to_string()});
                self.finding(true, file, record.offset, "undecodable", &text, details)
            }
        }
    }

    fn finding(
        &mut self,
        is_fault: bool,
        file: &Path,
        offset: u64,
        kind: &str,
        text: &str,
        details: Value,
    ) -> Result<(), ToolError> {
        self.faults += u64::from(is_fault);
        if self.json {
            let mut finding = json!({
                "file": file.display().to_string(), "offset": offset, "kind": kind, "fault": is_fault, "text": text,
            });
            finding
                .as_object_mut()
                .expect("made above")
                .extend(details.as_object().cloned().unwrap_or_default());
            writeln!(self.out, "{finding}")?;
        } else {
            writeln!(self.out, "{} offset {offset}: {}: {text}", file.display(), kind.to_uppercase())?;
        }
        Ok(())
    }

    fn summary(
        &mut self,
        file: &Path,
        count: u64,
        first: Option<Zxid>,
        end: u64,
        faults: u64,
    ) -> Result<(), ToolError> {
        let name = file.display();
        if self.json {
            let (first, last) = (first.map(|zxid| zxid.to_string()), self.last.map(|zxid| zxid.to_string()));
            let last = last.filter(|_| count > 0);
            let summary = json!({
                "file": name.to_string(), "transactions": count, "first": first, "last": last, "end": end, "faults": faults,
            });
            writeln!(self.out, "{summary}")?;
            return Ok(());
        }
        let range = match (first, self.last) {
            (Some(first), Some(last)) => format!("{count} transactions, {first} to {last}"),
            (None, _) | (_, None) => "no transaction".into(),
        };
        match faults {
            0 => writeln!(self.out, "{name}: {range}, end at offset {end}, no damage")?,
            _ => writeln!(
                self.out,
                "{name}: {range}, end at offset {end}, {faults} bad places. What comes before the first: zabra log mend {name} --to NEW"
            )?,
        }
        Ok(())
    }
}

/// How many transactions of one epoch lie between two.
fn missing(last: Zxid, next: Zxid) -> Option<i64> {
    (last.epoch() == next.epoch() && next > last).then(|| next.0 - last.0 - 1)
}
