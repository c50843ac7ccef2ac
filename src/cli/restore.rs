//! `zabra restore`: a new data directory, of a backup or of a directory at an earlier point.

use super::arguments::{self, show_time};
use super::backup::{make_empty_dir, write};
use super::history::{Bar, Files, State};
use super::log::filter::time_of;
use super::outcome::{Found, ToolError};
use super::snapshot::verified;
use super::source::version_dir;
use crate::model::{Op, Packing, Zxid};
use crate::storage::{Dirs, Disk, Epochs, LogRecord, LogWalk, RealDisk, SnapshotWriter, Step, type_of};
use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  zabra restore /backup/snapshot.100000017 --into /var/lib/zookeeper-new
  zabra restore /var/lib/zookeeper --to-time 2026-11-28T12:00:00Z --dry-run      what would be lost
  zabra restore /var/lib/zookeeper --to-time 2026-11-28T12:00:00Z --into /var/lib/zookeeper-new
  zabra restore /backup/snapshot.100000017 --log-dir /var/lib/zookeeper --to-zxid 0x100000020 --into /tmp/then

The input stays as it is. Digests are compared on the way, and the new snapshot is read again at the end. How a whole ensemble goes
back is in docs/restore.md.
Exit codes: 0 done, 1 the files are damaged or a digest is wrong, 2 it could not be done.")]
pub struct RestoreArgs {
    /// A backup, a snapshot, or a dataDir.
    from: PathBuf,
    /// The directory of the logs: a dataLogDir, or for a backup the logs that go on after it.
    #[arg(long)]
    log_dir: Option<PathBuf>,
    /// The last transaction that counts.
    #[arg(long, value_parser = arguments::zxid, conflicts_with = "to_time")]
    to_zxid: Option<Zxid>,
    /// What came later than this time does not count: the first transaction of a later time, by the leader's clock, is the first
    /// that is left out.
    #[arg(long, value_parser = arguments::time)]
    to_time: Option<i64>,
    /// The new dataDir: it must not exist, or be empty.
    #[arg(long, required_unless_present = "dry_run")]
    into: Option<PathBuf>,
    /// Write nothing. Say which point it would be, and what comes after it.
    #[arg(long)]
    dry_run: bool,
}

pub fn run(args: &RestoreArgs, out: &mut impl Write) -> Result<Found, ToolError> {
    let into = args.into.as_deref().filter(|_| !args.dry_run);
    if let Some(into) = into {
        make_empty_dir(into)?;
    }
    let files = Files::of(&args.from, args.log_dir.as_deref())?;
    let to = match args.to_time {
        Some(time) => Some(last_before(&files, time)?),
        None => args.to_zxid,
    };
    let bar = Bar::new();
    let state = files.state(to, &mut |progress| bar.read(progress));
    bar.end();
    let state = state?.checked()?;
    let last = state.point();
    if let Some(to) = args.to_zxid.filter(|to| *to > last && newest(&files).is_none_or(|newest| newest < *to))
    {
        return Err(ToolError::BeyondEnd { last, to });
    }
    for note in state.notes() {
        writeln!(out, "{note}")?;
    }
    writeln!(
        out,
        "{last}: {} znodes, {} sessions, {} transactions replayed, {} digests compared",
        state.db.tree.znode_count(),
        state.db.sessions.len(),
        state.found.txns,
        state.digests.equal
    )?;
    After::of(&files, last)?.print(out)?;
    match into {
        Some(into) => restore(args, state, into, &bar, out),
        None => Ok(Found::Clean),
    }
}

fn restore(
    args: &RestoreArgs,
    mut state: State,
    into: &Path,
    bar: &Bar,
    out: &mut impl Write,
) -> Result<Found, ToolError> {
    let dirs = Dirs::new(into, into);
    let io = |source| ToolError::Io { op: "create", path: dirs.data.clone(), source };
    RealDisk.create_dir_all(&dirs.data).map_err(io)?;
    let zxid = state.point();
    keep_promises(args, &dirs, zxid)?;
    let writer = SnapshotWriter::create(Arc::new(RealDisk), &dirs.data, zxid, Packing::Plain)?;
    write(&mut state, writer, bar)?;
    let path = dirs.data.join(crate::storage::snapshot_name(zxid));
    let found = verified(&path, out)?;
    writeln!(
        out,
        "{} is ready: add myid, and start a server with dataDir={}",
        path.display(),
        into.display()
    )?;
    Ok(found)
}

/// The epochs after this point were used, and no zxid of them may mean something else one day: clients have seen them.
fn keep_promises(args: &RestoreArgs, dirs: &Dirs, zxid: Zxid) -> Result<(), ToolError> {
    if !args.from.is_dir() {
        return Ok(());
    }
    let used = Epochs::read(&RealDisk, &version_dir(&args.from))?;
    if let Some(accepted) = used.accepted.max(used.current) {
        Epochs::write_accepted(&RealDisk, &dirs.data, accepted.max(zxid.epoch()))?;
        Epochs::write_current(&RealDisk, &dirs.data, zxid.epoch())?;
    }
    Ok(())
}

/// The records of all logs that have any after `from`, those of a running server too.
fn each(files: &Files, from: Zxid, visit: &mut dyn FnMut(&LogRecord) -> bool) -> Result<(), ToolError> {
    let first = files.logs.iter().rposition(|(zxid, _)| *zxid <= from).unwrap_or(0);
    for (_, path) in files.logs.iter().skip(first) {
        let mut log = LogWalk::open(&RealDisk, path)?;
        loop {
            match log.next()? {
                Step::Record(record) if visit(&record) => {}
                Step::Record(_) => return Ok(()),
                Step::Bad(place) if place.is_loss => eprintln!("zabra: {}: {place}", path.display()),
                Step::Bad(_) => {}
                Step::End { .. } => break,
            }
        }
    }
    Ok(())
}

/// The last transaction before the first one that is later than `time`.
fn last_before(files: &Files, time: i64) -> Result<Zxid, ToolError> {
    let (mut last, mut oldest) = (None, None);
    each(files, Zxid::ZERO, &mut |record| {
        let at = time_of(record).unwrap_or_default();
        oldest = oldest.or(Some(at));
        let counts = at <= time;
        last = if counts { Some(record.zxid) } else { last };
        counts
    })?;
    match (last, oldest) {
        (Some(last), _) => Ok(last),
        (None, Some(oldest)) => {
            Err(ToolError::BeforeBeginning { time: show_time(time), oldest: show_time(oldest) })
        }
        (None, None) => Err(ToolError::NoTimes),
    }
}

fn newest(files: &Files) -> Option<Zxid> {
    let mut newest = None;
    let from = files.logs.last().map_or(Zxid::ZERO, |(zxid, _)| *zxid);
    each(files, from, &mut |record| {
        newest = Some(record.zxid);
        true
    })
    .ok()?;
    newest.max(files.snapshots.last().map(|(zxid, _)| *zxid))
}

/// What comes after a point, and is lost there.
#[derive(Default)]
struct After {
    count: u64,
    first: Option<(Zxid, i64)>,
    last: Option<(Zxid, i64)>,
    types: BTreeMap<&'static str, u64>,
    logs: Vec<PathBuf>,
}

impl After {
    fn of(files: &Files, point: Zxid) -> Result<Self, ToolError> {
        let mut after =
            Self { logs: files.logs.iter().map(|(_, path)| path.clone()).collect(), ..Self::default() };
        each(files, point, &mut |record| {
            if record.zxid > point {
                let at = (record.zxid, time_of(record).unwrap_or_default());
                after.count += 1;
                after.first = after.first.or(Some(at));
                after.last = Some(at);
                let name = type_of(&record.body).and_then(Op::from_code).map_or("unknown", Op::name);
                *after.types.entry(name).or_default() += 1;
            }
            true
        })?;
        Ok(after)
    }

    fn print(&self, out: &mut impl Write) -> io::Result<()> {
        let (Some((first, from)), Some((last, until))) = (self.first, self.last) else {
            return writeln!(out, "no transaction comes after it");
        };
        writeln!(
            out,
            "left out: {} transactions, {first} to {last}, of {} to {}",
            self.count,
            show_time(from),
            show_time(until)
        )?;
        for (name, count) in &self.types {
            writeln!(out, "  {count:>9} {name}")?;
        }
        let dir = self.logs.last().and_then(|path| path.parent()).unwrap_or(Path::new("."));
        writeln!(out, "  see them: zabra log {} --from-zxid {first}", dir.display())
    }
}
