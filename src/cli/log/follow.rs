//! `zabra log --follow`: what a running server appends, as it does, from one log to the next.
//!
//! It looks again and again: a server that writes into a mapping of its log wakes nobody who watches the file.

use super::dump::{DumpArgs, show};
use crate::cli::outcome::{Found, ToolError};
use crate::cli::source::logs;
use crate::model::Zxid;
use crate::storage::{LogReader, RealDisk, StorageError, log_zxid, logs_in};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

/// A person sees no delay, and the machine no load.
const PAUSE: Duration = Duration::from_millis(50);

pub fn run(args: &DumpArgs, out: &mut impl Write) -> Result<Found, ToolError> {
    let mut newest = logs(&args.files, Zxid::ZERO)?.pop().expect("a directory without logs is an error");
    loop {
        let mut log = LogReader::open_growing(&RealDisk, &newest)?;
        newest = follow(&mut log, args, out)?;
    }
}

/// Prints what is appended until the next log is there, and returns that one.
fn follow(log: &mut LogReader, args: &DumpArgs, out: &mut impl Write) -> Result<PathBuf, ToolError> {
    loop {
        // In this order: once there is a next log, this one has all that it will have.
        let next = next_log(log.path())?;
        match log.look_again(&RealDisk) {
            // A leader's history took its place. What comes next is in another log.
            Err(StorageError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                eprintln!("zabra: {} is gone; waiting for the next log", log.path().display());
                return await_next(log.path());
            }
            looked => looked?,
        }
        while let Some(record) = log.next()? {
            show(&record, args, out)?;
        }
        out.flush()?;
        if let Some(next) = next {
            return Ok(next);
        }
        thread::sleep(PAUSE);
    }
}

fn next_log(path: &Path) -> Result<Option<PathBuf>, ToolError> {
    let Some(own) = path.file_name().and_then(|name| log_zxid(&name.to_string_lossy())) else {
        return Ok(None);
    };
    let dir = match path.parent() {
        Some(dir) if !dir.as_os_str().is_empty() => dir,
        Some(_) | None => Path::new("."),
    };
    Ok(logs_in(&RealDisk, dir)?.into_iter().find(|(zxid, _)| *zxid > own).map(|(_, path)| path))
}

fn await_next(path: &Path) -> Result<PathBuf, ToolError> {
    loop {
        match next_log(path)? {
            Some(next) => return Ok(next),
            None => thread::sleep(PAUSE),
        }
    }
}
