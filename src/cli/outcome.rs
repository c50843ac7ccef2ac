//! How the commands for files end: their errors and exit codes.

use crate::core::DigestDiffers;
use crate::model::Zxid;
use crate::storage::{Damage, StorageError};
use std::io::{self, BufWriter, StdoutLock, Write};
use std::path::PathBuf;
use std::process::ExitCode;

/// What a command found, where it could do its work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Found {
    /// Exit code 0.
    Clean,
    /// Something is damaged, different or not there: exit code 1. It was printed.
    Fault,
}

impl Found {
    pub fn fault_if(fault: bool) -> Self {
        if fault { Self::Fault } else { Self::Clean }
    }
}

/// Why a command could not do its work.
#[derive(Debug, thiserror::Error)]
pub enum ToolError {
    #[error("{}", explain(.0))]
    Storage(#[from] StorageError),
    #[error("cannot write the output: {0}")]
    Output(#[from] io::Error),
    #[error("cannot {op} {}: {source}", path.display())]
    Io { op: &'static str, path: PathBuf, source: io::Error },
    #[error("{0} is a snapshot; use: zabra snapshot {0}", path.display())]
    IsSnapshot { path: PathBuf },
    #[error("{0} is a transaction log; use: zabra log {0}", path.display())]
    IsLog { path: PathBuf },
    #[error("{} is neither a transaction log (ZKLG at its beginning) nor a snapshot (ZKSN); nothing of it was read", path.display())]
    Foreign { path: PathBuf },
    #[error("{} has no {what}; name a dataDir, a dataLogDir or their version-2", dir.display())]
    NoFiles { dir: PathBuf, what: &'static str },
    #[error("{} exists, and no existing file is written over; choose another name", path.display())]
    Exists { path: PathBuf },
    #[error("{} is not empty; choose a new directory", dir.display())]
    NotEmpty { dir: PathBuf },
    #[error("{} is being installed; start the server, or wait for it: it finishes that", file.display())]
    Unfinished { file: PathBuf },
    #[error("{0} has no good record before its first bad place; nothing was written. See what is there: zabra log {0}", path.display())]
    NothingGood { path: PathBuf },
    #[error("{} begins with {first}: nothing of it is up to {to}; nothing was written", path.display())]
    NothingBefore { path: PathBuf, first: Zxid, to: Zxid },
    #[error("{} ends with {last}: there is nothing after {to} to cut off; nothing was written", path.display())]
    NothingAfter { path: PathBuf, last: Zxid, to: Zxid },
    #[error(
        "{0} is damaged at offset {offset}, before {to}; nothing was written. See all of it: zabra log verify {0}",
        path.display()
    )]
    DamagedBefore { path: PathBuf, offset: u64, to: Zxid },
    #[error("{differs}; a server that has this tree serves what is not so. Take another snapshot or backup")]
    Digest { differs: DigestDiffers },
    #[error("the history ends with {last}, before {to}; the newest point is --to-zxid {last}")]
    BeyondEnd { last: Zxid, to: Zxid },
    #[error("no files lead to a point as old as {to}; the oldest one is --to-zxid {oldest}")]
    TooOld { to: Zxid, oldest: Zxid },
    #[error("no transaction is as old as {time}; the oldest one is of {oldest}")]
    BeforeBeginning { time: String, oldest: String },
    #[error("{} does not say of which transaction it is; give it its name back: snapshot.<zxid>", path.display())]
    NoPoint { path: PathBuf },
    #[error("--to-time needs logs: only transactions have a time. Name a directory, or --log-dir")]
    NoTimes,
}

impl ToolError {
    fn code(&self) -> u8 {
        match self {
            Self::Storage(StorageError::Damaged { .. })
            | Self::NothingGood { .. }
            | Self::DamagedBefore { .. }
            | Self::Digest { .. } => 1,
            Self::Storage(
                StorageError::Io { .. }
                | StorageError::InUse { .. }
                | StorageError::Misplaced { .. }
                | StorageError::TooLong(_)
                | StorageError::LogFailed(_)
                | StorageError::Changed { .. },
            )
            | Self::Output(_)
            | Self::Io { .. }
            | Self::IsSnapshot { .. }
            | Self::IsLog { .. }
            | Self::Foreign { .. }
            | Self::NoFiles { .. }
            | Self::Exists { .. }
            | Self::NotEmpty { .. }
            | Self::Unfinished { .. }
            | Self::NothingBefore { .. }
            | Self::NothingAfter { .. }
            | Self::BeyondEnd { .. }
            | Self::TooOld { .. }
            | Self::BeforeBeginning { .. }
            | Self::NoPoint { .. }
            | Self::NoTimes => 2,
        }
    }
}

/// The storage room's advice is for a server that does not start. A command knows better ones.
fn explain(error: &StorageError) -> String {
    let StorageError::Damaged { file, offset, what } = error else { return error.to_string() };
    let name = file.display();
    let next = match what {
        Damage::Record(_) | Damage::BeforeGoodRecord { .. } | Damage::BeforeLog(_) => {
            format!("See all bad places: zabra log verify {name}")
        }
        Damage::Order { .. }
        | Damage::Gap { .. }
        | Damage::BeginsLater { .. }
        | Damage::EndMissing { .. }
        | Damage::LogSkips { .. }
        | Damage::NoBeginning(_) => {
            format!("See what is there: zabra log verify {}", file.parent().unwrap_or(file).display())
        }
        Damage::NoGoodSnapshot { .. }
        | Damage::OnlyProof { .. }
        | Damage::Content(_)
        | Damage::NoSnapshotHeader
        | Damage::EndsEarly
        | Damage::Compressed(_)
        | Damage::AfterSeal(_)
        | Damage::Checksum { .. }
        | Damage::SealCut => {
            "Take an older snapshot with its logs, a backup, or another server's files".into()
        }
        Damage::NoEpoch(_) | Damage::NoDebt(_) => "Restore the file from a backup".into(),
    };
    format!("{name} is damaged at offset {offset}: {what}. {next}")
}

/// Runs a command that writes to standard output. What was found before an error is worth to be seen.
pub fn to_stdout(
    run: impl FnOnce(&mut BufWriter<StdoutLock<'static>>) -> Result<Found, ToolError>,
) -> Result<Found, ToolError> {
    let mut out = BufWriter::with_capacity(64 << 10, io::stdout().lock());
    let found = run(&mut out);
    out.flush()?;
    found
}

/// Prints an error and makes the exit code: 0 clean, 1 damaged or different, 2 could not be done.
pub fn exit_code(ended: Result<Found, ToolError>) -> ExitCode {
    match ended {
        Ok(Found::Clean) => ExitCode::SUCCESS,
        Ok(Found::Fault) => ExitCode::from(1),
        // Whoever read the output has enough of it.
        Err(ToolError::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("zabra: {error}");
            ExitCode::from(error.code())
        }
    }
}
