//! `zabra backup`: what a directory's files hold, as one snapshot. The server that writes them is not asked, and does not wait.

use super::history::{Bar, State, state_of};
use super::outcome::{Found, ToolError};
use super::source::new_file;
use crate::storage::{Disk, RealDisk, SnapshotWriter, Trailer, WriteFile, snapshot_name};
use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Places of the tree that are written at once.
const SLICE: usize = 4096;

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  zabra backup /var/lib/zookeeper --to /backup/                    /backup/snapshot.<zxid>
  zabra backup /var/lib/zookeeper --to /backup/today.gz            compressed, as the name says: .gz or .snappy
  zabra backup /var/lib/zookeeper --to - | gzip > backup.gz        to standard output

The newest good snapshot and the logs after it are read, also while a server writes them: it is not asked and does not wait. So the
backup takes memory as the server does, and whoever may read the directory may make one. It is of one point, the last transaction
that was logged when the log was read, and a snapshot as servers write it: `zabra snapshot` reads it, `zabra restore` makes a
directory of it. In an ensemble, take it of a server that is up to date; the last transactions may not have been committed yet.
Exit codes: 0 done, 1 the files are damaged or a digest is wrong, 2 it could not be done.")]
pub struct BackupArgs {
    /// The server's dataDir.
    dir: PathBuf,
    /// The dataLogDir, if it is another one.
    #[arg(long)]
    log_dir: Option<PathBuf>,
    /// A new file; or a directory, where the backup is named snapshot.<zxid>; or - for standard output.
    #[arg(long)]
    to: PathBuf,
}

pub fn run(args: &BackupArgs) -> Result<Found, ToolError> {
    let to_stdout = args.to.as_os_str() == "-";
    if !to_stdout && !args.to.is_dir() {
        new_file(&args.to, &args.to)?;
    }
    let bar = Bar::new();
    let state = state_of(&args.dir, args.log_dir.as_deref(), None, &mut |progress| bar.read(progress));
    bar.end();
    let mut state = state?.checked()?;
    for note in state.notes() {
        eprintln!("zabra: {note}");
    }
    let name = if to_stdout { "standard output".into() } else { target(&args.to, &state)? };
    let writer = if to_stdout {
        SnapshotWriter::to_stream(Box::new(Stdout(io::stdout())), &name.to_string_lossy())?
    } else {
        // The name is taken at once, or the file is somebody else's.
        File::create_new(&name).map_err(|source| match source.kind() {
            io::ErrorKind::AlreadyExists => ToolError::Exists { path: name.clone() },
            _ => ToolError::Io { op: "create", path: name.clone(), source },
        })?;
        SnapshotWriter::create_received(Arc::new(RealDisk), name.clone())?
    };
    let bytes = write(&mut state, writer, &bar)?;
    eprintln!(
        "zabra: backup of {} in {}: {} znodes, {bytes} bytes, {} digests compared",
        state.point(),
        name.display(),
        state.db.tree.znode_count(),
        state.digests.equal
    );
    Ok(Found::Clean)
}

fn target(to: &Path, state: &State) -> Result<PathBuf, ToolError> {
    new_file(to, Path::new(&snapshot_name(state.point())))
}

/// Writes the tree, and returns how many bytes it took.
pub fn write(state: &mut State, mut writer: SnapshotWriter, bar: &Bar) -> Result<u64, ToolError> {
    let (zxid, digest) = (state.point(), state.db.tree.digest());
    let total = state.db.tree.znode_count();
    state.db.begin_snapshot();
    loop {
        let slice = state.db.tree.snapshot_slice(SLICE);
        writer.write(&slice.bytes)?;
        bar.written("writing", total.saturating_sub(slice.znodes_left), total);
        if slice.done {
            break;
        }
    }
    bar.end();
    let (_, bytes) = writer.finish(zxid, Some(Trailer::whole(digest)))?;
    Ok(bytes)
}

struct Stdout(io::Stdout);

impl WriteFile for Stdout {
    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.0.write_all(bytes)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

/// A directory that is there is good, if it holds nothing.
pub fn make_empty_dir(dir: &Path) -> Result<(), ToolError> {
    let io = |op| move |source| ToolError::Io { op, path: dir.to_path_buf(), source };
    RealDisk.create_dir_all(dir).map_err(io("create"))?;
    match std::fs::read_dir(dir).map_err(io("list"))?.next() {
        None => Ok(()),
        Some(_) => Err(ToolError::NotEmpty { dir: dir.to_path_buf() }),
    }
}
