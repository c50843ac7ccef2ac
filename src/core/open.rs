//! From a data directory to what a server begins with: database, position in the protocol, configurations.

use super::restore::{DigestDiffers, Digests};
use super::{RestoredDatabase, write_snapshot_of};
use crate::ensemble::{Ensemble, View};
use crate::model::owner::OwnerRules;
use crate::model::{Debt, Epoch, Zxid};
use crate::replica::{Position, is_in_log};
use crate::storage::{
    self, Damage, Dirs, Disk, Epochs, Lost, Note, Progress, Recovered, StorageError, Upto, read_debt,
    read_synced, recover, remove_if_there, write_debt,
};
use crate::tree::{CONFIG, Database};
use std::path::PathBuf;
use std::sync::Arc;

/// How a data directory is opened.
#[derive(Debug, Clone, Copy)]
pub struct Opening {
    /// As a member of an ensemble.
    pub distributed: bool,
    pub owners: OwnerRules,
    /// Bytes of the newest transactions that are kept for learners.
    pub history_bytes: usize,
    /// An empty member may take part without the file `initialize` (`db.autocreate`).
    pub autocreate: bool,
    /// The tree must have the digests that the files state (`digest.enabled`).
    pub checks_digests: bool,
}

/// No snapshot, with the log after it, gives the tree that the files state.
#[derive(Debug, thiserror::Error)]
#[error(
    "{0}, whichever snapshot the tree is built from. Restore a backup (zabra restore --help), or serve the tree as it is with \
     digest.enabled=false"
)]
struct NoTreeIsRight(DigestDiffers);

pub struct Opened {
    pub db: Database,
    pub found: Recovered,
    pub position: Position,
}

pub fn open(
    disk: &Arc<dyn Disk>,
    dirs: &Dirs,
    opening: &Opening,
    progress: &mut dyn FnMut(Progress<'_>),
) -> Result<Opened, StorageError> {
    let mut forgotten = Vec::new();
    // A member of an ensemble goes on as one that does not know what it has promised; and that before anything says otherwise.
    let mut forget = |error: StorageError| {
        if !opening.distributed || !error.is_damage() {
            return Err(error);
        }
        forgotten.push(Note::Forgotten { why: error.place() });
        write_debt(&**disk, &dirs.data, Debt::Unknown)?;
        Ok(Debt::Unknown)
    };
    let mut debt = read_debt(&**disk, &dirs.data).or_else(&mut forget)?;
    let epochs = match Epochs::read(&**disk, &dirs.data) {
        Ok(epochs) => epochs,
        Err(error) => {
            debt = forget(error)?;
            let shown = storage::last_shown(&**disk, dirs)?.epoch();
            let rest = Epochs::read_rest(&**disk, &dirs.data, shown)?;
            rest.write(&**disk, &dirs.data)?;
            rest
        }
    };
    let mut state = RestoredDatabase::keeping(opening.owners, opening.history_bytes);
    let current = epochs.current.unwrap_or_default();
    let owed = |lost: Lost| match lost {
        Lost::Nothing => Debt::None,
        Lost::Unknown => Debt::Unknown,
        Lost::UpTo(zxid) => Debt::AtLeast(current.max(zxid.epoch()), zxid),
    };
    // What a damaged end may have held is remembered before it is cut off. A server alone has nobody to take it from.
    let mut remember = |found: &Recovered| match (&found.missing, found.lost) {
        (Some(missing), _) if !opening.distributed => Err(missing.error()),
        (_, Some(lost)) if opening.distributed && lost != Lost::Nothing => {
            debt = debt.and(owed(lost));
            write_debt(&**disk, &dirs.data, debt)?;
            // The debt says it now, until it is settled.
            storage::forget_synced(&**disk, &dirs.log)
        }
        _ => Ok(()),
    };
    let mut found = match recover(&**disk, dirs, &mut state, &mut remember, progress) {
        Err(error) if opening.distributed && is_taken_from_others(&error) => {
            // A loss of power may have left an older place: then the files may show more, or more than there ever was.
            let shown = storage::last_shown(&**disk, dirs)?;
            let lost = match read_synced(&**disk, &dirs.log)? {
                Some(synced) if shown <= synced.last && synced.is_newest(&**disk) => Lost::UpTo(synced.last),
                _ => Lost::Unknown,
            };
            debt = debt.and(owed(lost));
            write_debt(&**disk, &dirs.data, debt)?;
            storage::forget_synced(&**disk, &dirs.log)?;
            let kept = storage::wipe(&**disk, dirs)?;
            state = RestoredDatabase::keeping(opening.owners, opening.history_bytes);
            let mut found = recover(&**disk, dirs, &mut state, &mut |_| Ok(()), progress)?;
            found.notes.push(Note::SetAside { why: error.place(), kept });
            found
        }
        recovered => recovered?,
    };
    if let Some(name) = epochs.restored {
        let file = dirs.data.join(name);
        // A copy may be of before a leader's epoch began: whoever was accepted last may have been followed.
        if opening.distributed && epochs.accepted > epochs.current {
            debt = debt.and(Debt::AtLeast(epochs.accepted.unwrap_or_default(), Zxid::ZERO));
            write_debt(&**disk, &dirs.data, debt)?;
        }
        epochs.write(&**disk, &dirs.data)?;
        found.notes.push(Note::EpochRestored { file });
    }
    found.notes.append(&mut forgotten);
    let differs = state.digests().at_end.filter(|_| opening.checks_digests);
    let mut tree_differs = differs.is_some();
    if let Some(differs) = differs {
        drop(state);
        let rebuilt = rebuild(disk, dirs, opening, &found, progress)?;
        if rebuilt.is_none() && !opening.distributed {
            let file = found.snapshot.unwrap_or_else(|| dirs.log.clone());
            return Err(StorageError::damaged(&file, 0, Damage::Content(NoTreeIsRight(differs).into())));
        }
        let why = differs.to_string();
        state = match rebuilt {
            Some(Rebuilt { state, seen, kept_in }) => {
                let Recovered { snapshot, snapshot_zxid, txns, bytes, logs, .. } = seen;
                found = Recovered { snapshot, snapshot_zxid, txns, bytes, logs, ..found };
                found.notes.push(Note::TreeRebuilt { why, from: found.snapshot.clone(), kept_in });
                tree_differs = false;
                state
            }
            None => {
                found.notes.push(Note::TreeDiffers { why });
                let mut state = RestoredDatabase::keeping(opening.owners, opening.history_bytes);
                storage::reread(&**disk, dirs, &mut state)?;
                state
            }
        };
    }
    let recent = state.take_recent();
    let mut db = state.into_database();
    db.last_txn = db.last_txn.max(found.last_zxid);
    db.last_zxid = db.last_zxid.max(db.last_txn);
    let last = db.last_zxid;
    let is_empty = found.snapshot.is_none() && last == Zxid::ZERO;
    let abstains = is_empty && opening.distributed && !may_begin(disk, dirs, opening)?;
    if found.snapshot.is_none() && opening.distributed {
        // A Java server refuses a log without a snapshot. The end of the log may be taken back: not so the beginning.
        write_snapshot_of(&mut Database::new(opening.owners), disk, dirs)?;
    }
    // A log holds a transaction of an epoch only after that epoch's whole history. What a crash kept from being
    // written down is made up for.
    let current = epochs.current.unwrap_or_default().max(last.epoch());
    let accepted = epochs.accepted.unwrap_or_default().max(current);
    // A server that served alone has committed all it has; snapshots are written of what was committed.
    let served_alone = last.epoch() == Epoch(0);
    let committed = if served_alone { last } else { found.snapshot_zxid };
    let position = Position { accepted, current, last, recent, debt, abstains, tree_differs, committed };
    Ok(Opened { db, found, position })
}

/// A tree that is right, out of an older snapshot than the newest.
struct Rebuilt {
    state: RestoredDatabase,
    seen: Recovered,
    /// Where the newer snapshots are now.
    kept_in: Vec<PathBuf>,
}

/// Looks for a snapshot from which the log leads to the tree that the files state, where the newest good one did not. Those that are
/// newer are set aside: the next start would begin with them.
fn rebuild(
    disk: &Arc<dyn Disk>,
    dirs: &Dirs,
    opening: &Opening,
    found: &Recovered,
    progress: &mut dyn FnMut(Progress<'_>),
) -> Result<Option<Rebuilt>, StorageError> {
    let snapshots = storage::snapshots_in(&**disk, &dirs.data)?;
    let logs = storage::logs_in(&**disk, &dirs.log)?;
    let mut newer = snapshots.partition_point(|(zxid, _)| *zxid < found.snapshot_zxid);
    while found.snapshot.is_some() {
        let mut state = RestoredDatabase::keeping(opening.owners, opening.history_bytes);
        // Damage of older files is no news: nobody would have read them.
        let Ok(seen) = storage::see(&**disk, &snapshots[..newer], &logs, Upto::END, &mut state, progress)
        else {
            return Ok(None);
        };
        let Digests { equal, differs, at_end, .. } = state.digests();
        let is_right = at_end.is_none() && (equal > 0 || differs.is_some());
        let seen = seen.found;
        if is_right && seen.last_zxid == found.last_zxid {
            let wrong = snapshots[newer..].iter().map(|(_, path)| storage::set_aside(&**disk, path));
            let kept_in = wrong.collect::<Result<_, _>>()?;
            return Ok(Some(Rebuilt { state, seen, kept_in }));
        }
        if seen.snapshot.is_none() {
            break;
        }
        newer = snapshots.partition_point(|(zxid, _)| *zxid < seen.snapshot_zxid);
    }
    Ok(None)
}

/// Whether a member of an ensemble begins again with nothing where this is wrong. Bytes that are as they were written, and that
/// this server can't read, are another matter: the other servers may not read theirs either.
fn is_taken_from_others(error: &StorageError) -> bool {
    match error {
        StorageError::Damaged { what, .. } => !matches!(
            what,
            Damage::Content(_) | Damage::NoEpoch(_) | Damage::NoDebt(_) | Damage::EndMissing { .. }
        ),
        error => error.is_unreadable(),
    }
}

/// With `db.autocreate=false` an empty server takes part only where the file `initialize` says that it may.
fn may_begin(disk: &Arc<dyn Disk>, dirs: &Dirs, opening: &Opening) -> Result<bool, StorageError> {
    let Some(top) = dirs.log.parent() else { return Ok(opening.autocreate) };
    let file = top.join("initialize");
    let is_there = disk.open(&file).is_ok();
    if is_there {
        remove_if_there(&**disk, &file)?;
    }
    Ok(is_there || opening.autocreate)
}

/// Whether a configuration that a file says was proposed may be committed yet. Where the log, which has lost nothing, ends
/// before the proposal, this server has not acknowledged it, and is as if it had never heard of it.
pub fn may_be_committed(proposed: &Ensemble, at: &Position) -> bool {
    at.last == Zxid::ZERO || at.debt != Debt::None || is_in_log(proposed, at.last, at.current)
}

/// The configurations that count: those of the files, and one that the log has and no file yet.
pub fn view(committed: Ensemble, proposed: Option<Ensemble>, reconfig: bool, db: &Database) -> View {
    let mut view = View::new(Arc::new(committed));
    if !reconfig {
        return view;
    }
    let in_tree = db.tree.find(CONFIG).and_then(|id| db.tree.data(id));
    let in_tree = in_tree.and_then(|text| Ensemble::parse(std::str::from_utf8(text).ok()?).ok());
    for later in proposed.into_iter().chain(in_tree) {
        if later.version() > view.last_seen.version() {
            view.last_seen = Arc::new(later);
        }
    }
    view
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What opens an epoch proves no transaction: where the end of the log was lost, nobody could tell that it has a hole.
    #[test]
    fn a_snapshot_is_named_by_the_last_transaction() {
        let dir = tempfile::tempdir().unwrap();
        let dirs = Dirs::new(dir.path(), dir.path());
        let mut db = Database::new(OwnerRules::default());
        (db.last_txn, db.last_zxid) = (Zxid(0x1_0000_0017), Zxid(0x3_0000_0000));
        let disk: Arc<dyn Disk> = Arc::new(crate::storage::RealDisk);
        disk.create_dir_all(&dirs.data).unwrap();
        let path = write_snapshot_of(&mut db, &disk, &dirs).unwrap();
        assert!(path.ends_with("snapshot.100000017"), "{}", path.display());
    }

    #[test]
    fn a_proposal_that_never_reached_the_log_is_none() {
        let proposed = Ensemble::parse("server.1=a:1:2\nversion=20000003b").unwrap();
        let at = |last, current, debt| Position {
            accepted: Epoch(current),
            current: Epoch(current),
            last: Zxid(last),
            recent: Vec::new(),
            debt,
            abstains: false,
            tree_differs: false,
            committed: Zxid::ZERO,
        };
        assert!(!may_be_committed(&proposed, &at(0x2_0000_003a, 2, Debt::None)));
        assert!(may_be_committed(&proposed, &at(0x2_0000_003b, 2, Debt::None)));
        assert!(may_be_committed(&proposed, &at(0x2_0000_003a, 3, Debt::None)));
        let lost = Debt::AtLeast(Epoch(2), Zxid(0x2_0000_003b));
        assert!(may_be_committed(&proposed, &at(0x2_0000_003a, 2, lost)), "it was acknowledged and lost");
        assert!(may_be_committed(&proposed, &at(0, 0, Debt::None)), "the disk may be a new one");
    }
}
