//! The tree that files lead to: a snapshot's, or a directory's at any point, with its digests compared.

use super::outcome::ToolError;
use super::source::{dirs, snapshot_file};
use crate::core::{Digests, RestoredDatabase};
use crate::model::Zxid;
use crate::model::owner::OwnerRules;
use crate::storage::{
    BadRecord, Damage, Disk, Progress, RealDisk, Recovered, Restore, Seen, SnapshotSeal, StorageError, Upto,
    load_snapshot, logs_in, see, snapshot_zxid, snapshots_in, unfinished_install,
};
use crate::tree::{Database, SnapshotBody, SnapshotEntry};
use bytes::Bytes;
use indicatif::{ProgressBar, ProgressStyle};
use std::path::{Path, PathBuf};

/// TTL owners are known by their mark. Only a server with the id 255 would have sessions that look like them.
pub const RULES: OwnerRules = OwnerRules { extended_types: true, emulate_353: false };

/// How often a directory is read again that a running server changed meanwhile (a purge, a snapshot of the leader's).
const TRIES: usize = 5;

/// Files that lead to a tree.
#[derive(Debug)]
pub struct Files {
    pub snapshots: Vec<(Zxid, PathBuf)>,
    pub logs: Vec<(Zxid, PathBuf)>,
}

/// What was made of them.
pub struct State {
    pub db: Database,
    pub found: Recovered,
    /// The end of the newest log that a server would cut off: the log, where, what is wrong with it.
    pub torn: Option<(PathBuf, u64, BadRecord)>,
    pub digests: Digests,
    /// A snapshot shows a part of what came up to here, and the files do not have the rest.
    mixed: Option<Zxid>,
}

impl Files {
    /// Of a directory, or of one snapshot file; `log_dir` has the logs after it.
    pub fn of(path: &Path, log_dir: Option<&Path>) -> Result<Self, ToolError> {
        if path.is_dir() {
            let dirs = dirs(path, log_dir);
            if let Some(file) = unfinished_install(&RealDisk, &dirs)? {
                return Err(ToolError::Unfinished { file });
            }
            let snapshots = snapshots_in(&RealDisk, &dirs.data)?;
            let logs = logs_in(&RealDisk, &dirs.log)?;
            if snapshots.is_empty() && logs.is_empty() {
                return Err(ToolError::NoFiles { dir: path.to_path_buf(), what: "snapshots and no logs" });
            }
            return Ok(Self { snapshots, logs });
        }
        let file = snapshot_file(path)?;
        let logs = match log_dir {
            Some(dir) => logs_in(&RealDisk, &super::source::version_dir(dir))?,
            None => Vec::new(),
        };
        let zxid = match named(&file) {
            Some(zxid) => zxid,
            None => point_of(&file, &visit_file(&file, &mut |_| ())?)?,
        };
        Ok(Self { snapshots: vec![(zxid, file)], logs })
    }

    /// The tree after the last transaction up to `to`. A snapshot may go beyond its name, if a Java server wrote on meanwhile:
    /// then an older one is taken.
    pub fn state(
        &self,
        to: Option<Zxid>,
        progress: &mut dyn FnMut(Progress<'_>),
    ) -> Result<State, ToolError> {
        let mut upto = to.map_or(Upto::END, |zxid| Upto { zxid, snapshot: zxid });
        loop {
            let mut state = RestoredDatabase::new(RULES);
            let seen = self.seen(upto, &mut state, progress)?;
            // The empty tree before everything is no point that anybody asks for.
            if to.is_some() && seen.found.snapshot.is_none() && seen.found.txns == 0 {
                return Err(self.too_old(upto.zxid));
            }
            if to.is_some() && seen.found.snapshot.is_some() && state.reaches() > upto.zxid {
                upto.snapshot = Zxid(seen.found.snapshot_zxid.0.saturating_sub(1));
                continue;
            }
            return Ok(State::new(state, seen));
        }
    }

    fn seen(
        &self,
        upto: Upto,
        state: &mut RestoredDatabase,
        progress: &mut dyn FnMut(Progress<'_>),
    ) -> Result<Seen, ToolError> {
        // A single snapshot says more by its own error than by what it lacks.
        if let (&[(zxid, ref path)], []) = (&self.snapshots[..], &self.logs[..])
            && zxid <= upto.snapshot
        {
            state.reset();
            load_snapshot(&RealDisk, zxid, path, state, progress)?;
            let snapshot = Some(path.clone());
            let found = Recovered { last_zxid: zxid, snapshot_zxid: zxid, snapshot, ..Recovered::default() };
            return Ok(Seen { found, torn: None });
        }
        match see(&RealDisk, &self.snapshots, &self.logs, upto, state, progress) {
            Err(StorageError::Damaged { what: Damage::NoBeginning(_), .. }) if !self.snapshots.is_empty() => {
                Err(self.too_old(upto.zxid))
            }
            seen => Ok(seen?),
        }
    }

    fn too_old(&self, to: Zxid) -> ToolError {
        let oldest = self.snapshots.first().or(self.logs.first()).map_or(Zxid::ZERO, |(zxid, _)| *zxid);
        ToolError::TooOld { to, oldest }
    }
}

impl State {
    fn new(state: RestoredDatabase, seen: Seen) -> Self {
        let digests = state.digests();
        let mixed = Some(state.reaches()).filter(|reaches| *reaches > seen.found.last_zxid);
        let mut db = state.into_database();
        db.last_txn = db.last_txn.max(seen.found.last_zxid);
        db.last_zxid = db.last_zxid.max(db.last_txn);
        Self { db, found: seen.found, torn: seen.torn, digests, mixed }
    }

    /// The last transaction that the tree shows.
    pub fn point(&self) -> Zxid {
        self.db.last_txn
    }

    /// A tree that is not what the files say must not spread.
    pub fn checked(self) -> Result<Self, ToolError> {
        match self.digests.differs {
            Some(differs) => Err(ToolError::Digest { differs }),
            None => Ok(self),
        }
    }

    /// What was left out or cut, for people.
    pub fn notes(&self) -> Vec<String> {
        let mut notes: Vec<_> = self.found.notes.iter().map(ToString::to_string).collect();
        notes.extend(self.torn.as_ref().map(|(file, offset, what)| {
            format!(
                "{} ends in a torn write at offset {offset} ({what}), which is not part of this",
                file.display()
            )
        }));
        notes.extend(self.mixed.map(|reaches| {
            format!(
                "the server went on to {reaches} while it wrote the snapshot: without the logs up to there, the tree is not of one point"
            )
        }));
        notes
    }
}

/// The same of a path. If a running server changed its files meanwhile, they are read again.
pub fn state_of(
    path: &Path,
    log_dir: Option<&Path>,
    to: Option<Zxid>,
    progress: &mut dyn FnMut(Progress<'_>),
) -> Result<State, ToolError> {
    let mut tries = 1;
    loop {
        let before = lengths(path, log_dir);
        match Files::of(path, log_dir).and_then(|files| files.state(to, progress)) {
            Err(
                ToolError::Storage(StorageError::Io { op: "open", .. } | StorageError::Damaged { .. })
                | ToolError::Unfinished { .. },
            ) if tries < TRIES && lengths(path, log_dir) != before => tries += 1,
            ended => return ended,
        }
    }
}

/// The names and lengths of what is there, as far as it can be seen.
fn lengths(path: &Path, log_dir: Option<&Path>) -> Vec<(String, u64)> {
    let dirs = dirs(path, log_dir);
    [&dirs.data, &dirs.log].into_iter().flat_map(|dir| RealDisk.list(dir).unwrap_or_default()).collect()
}

/// Of which transaction a snapshot is: by its name, or by its last seal, which our own and newer Java servers write.
pub fn point_of(path: &Path, seal: &SnapshotSeal) -> Result<Zxid, ToolError> {
    named(path).or(seal.last_zxid).ok_or_else(|| ToolError::NoPoint { path: path.to_path_buf() })
}

fn named(path: &Path) -> Option<Zxid> {
    snapshot_zxid(&path.file_name()?.to_string_lossy())
}

/// Hands over the entries of a snapshot one by one, and keeps none.
struct Visit<'a> {
    body: SnapshotBody,
    visit: &'a mut dyn FnMut(SnapshotEntry<'_>),
}

impl Restore for Visit<'_> {
    fn reset(&mut self) {}

    fn feed(&mut self, window: &[u8]) -> Result<usize, Damage> {
        let visit = &mut *self.visit;
        let taken = self.body.feed(window, &mut |entry| {
            visit(entry);
            Ok(())
        });
        taken.map_err(|error| Damage::Content(error.into()))
    }

    fn is_fed(&self) -> bool {
        self.body.is_done()
    }

    fn loaded(&mut self, _: Zxid, _: &SnapshotSeal) {}

    fn replay(&mut self, _: Bytes) -> Result<(), Damage> {
        Ok(())
    }
}

/// Reads a snapshot file from front to back, in little memory, and returns what its seals say.
pub fn visit_file(path: &Path, visit: &mut dyn FnMut(SnapshotEntry<'_>)) -> Result<SnapshotSeal, ToolError> {
    let mut state = Visit { body: SnapshotBody::default(), visit };
    Ok(load_snapshot(&RealDisk, Zxid::ZERO, path, &mut state, &mut |_| ())?)
}

/// The same for a tree in memory.
pub fn visit_tree(db: &mut Database, visit: &mut dyn FnMut(SnapshotEntry<'_>)) {
    let mut body = SnapshotBody::default();
    db.begin_snapshot();
    loop {
        let slice = db.tree.snapshot_slice(usize::MAX >> 1);
        let fed = body.feed(&slice.bytes, &mut |entry| {
            visit(entry);
            Ok(())
        });
        assert_eq!(fed.ok(), Some(slice.bytes.len()), "a tree writes whole entries");
        if slice.done {
            return;
        }
    }
}

/// Shows how far the reading is, where somebody looks at a terminal.
pub struct Bar(ProgressBar);

impl Bar {
    pub fn new() -> Self {
        let bar = ProgressBar::new(0);
        let style = ProgressStyle::with_template("{msg} [{bar:30}] {percent}% {eta}");
        bar.set_style(style.expect("a template of ours").progress_chars("=> "));
        Self(bar)
    }

    pub fn read(&self, progress: Progress<'_>) {
        let name = progress.file.file_name().unwrap_or_default().to_string_lossy().into_owned();
        self.0.set_message(name);
        self.0.set_length(progress.total);
        self.0.set_position(progress.done.min(progress.total));
    }

    pub fn written(&self, name: &str, done: usize, total: usize) {
        self.0.set_message(name.to_owned());
        self.0.set_length(total as u64);
        self.0.set_position(done as u64);
    }

    pub fn end(&self) {
        self.0.finish_and_clear();
    }
}

impl Default for Bar {
    fn default() -> Self {
        Self::new()
    }
}
