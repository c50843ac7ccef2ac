//! `zabra snapshot verify`: checksums and digests of snapshots, and of the tree that a directory's files lead to.

use crate::cli::history::{Files, point_of, visit_file};
use crate::cli::outcome::{Found, ToolError};
use crate::cli::source::{snapshot_file, version_dir};
use crate::storage::{RealDisk, snapshots_in};
use crate::tree::{SnapshotEntry, content_crc, is_counted, node_digest};
use std::io::Write;
use std::path::{Path, PathBuf};

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Example: zabra snapshot verify /var/lib/zookeeper
Of a directory, each snapshot is checked, and then the tree that the newest good one and the logs lead to, against the digest in each
transaction. A Java server goes on while it writes a snapshot: then the digest in the file is that of a later tree, and only the
replay can check it.
Exit codes: 0 clean, 1 damaged or another digest, 2 it could not be done.")]
pub struct VerifyArgs {
    /// A snapshot or a directory.
    path: PathBuf,
    /// The directory of the logs, if it is another one.
    #[arg(long)]
    log_dir: Option<PathBuf>,
}

pub fn run(args: &VerifyArgs, out: &mut impl Write) -> Result<Found, ToolError> {
    if !args.path.is_dir() {
        return file(&snapshot_file(&args.path)?, out);
    }
    let mut fault = false;
    for (_, path) in snapshots_in(&RealDisk, &version_dir(&args.path))? {
        fault |= file(&path, out)? == Found::Fault;
    }
    fault |= replay(args, out)? == Found::Fault;
    Ok(Found::fault_if(fault))
}

pub fn file(path: &Path, out: &mut impl Write) -> Result<Found, ToolError> {
    let name = path.display();
    let (mut znodes, mut digest) = (0_u64, 0_u64);
    let read = visit_file(path, &mut |entry| {
        if let SnapshotEntry::Znode(znode) = entry {
            znodes += 1;
            if is_counted(znode.path) {
                let own = node_digest(content_crc(znode.path, znode.data), &znode.stat);
                digest = digest.wrapping_add(u64::from(own));
            }
        }
    });
    let seal = match read {
        Ok(seal) => seal,
        Err(error @ ToolError::Storage(crate::storage::StorageError::Damaged { .. })) => {
            writeln!(out, "{name}: DAMAGED: {error}")?;
            return Ok(Found::Fault);
        }
        Err(other) => return Err(other),
    };
    let zxid = point_of(path, &seal)?;
    let (text, found) = match seal.digest {
        None => ("no digest".to_owned(), Found::Clean),
        Some((of, _)) if of != zxid => (
            format!(
                "its digest is that of {of}, to which the server went on: it needs the logs to be checked"
            ),
            Found::Clean,
        ),
        Some((_, stated)) if stated == digest => (format!("digest {digest:#x} is right"), Found::Clean),
        Some((_, stated)) => (format!("DIGEST {digest:#x} where the file states {stated:#x}"), Found::Fault),
    };
    writeln!(out, "{name}: {znodes} znodes, checksums are right, {text}")?;
    Ok(found)
}

fn replay(args: &VerifyArgs, out: &mut impl Write) -> Result<Found, ToolError> {
    let state = Files::of(&args.path, args.log_dir.as_deref())?.state(None, &mut |_| ())?;
    for note in state.notes() {
        writeln!(out, "{note}")?;
    }
    let name = args.path.display();
    let (txns, point, equal) = (state.found.txns, state.point(), state.digests.equal);
    match state.digests.differs {
        None => {
            writeln!(
                out,
                "{name}: {txns} transactions replayed, up to {point}: {equal} digests compared, all equal"
            )?;
            Ok(Found::Clean)
        }
        Some(differs) => {
            writeln!(out, "{name}: DIGEST: {differs}; {equal} before it are equal")?;
            Ok(Found::Fault)
        }
    }
}
