//! Does the disk's work, in the order in which the replica asked for it: appends with one sync for many, epochs, cuts,
//! the installation of a leader's snapshot, configuration files.

use super::write_snapshot_of;
use crate::config;
use crate::model::owner::OwnerRules;
use crate::model::{Debt, Room, ServerId, Zxid};
use crate::replica::{ConfigFile, DiskDone, DiskOp, Input};
use crate::storage::{
    self, Cut, Dirs, Disk, Epochs, Kept, LogOptions, MAX_UNSYNCED, Recovered, Space, StorageError, TxnLog,
    write_whole,
};
use crate::tree::Database;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// When a segment is rolled and a snapshot asked for.
#[derive(Debug, Clone, Copy)]
pub struct RollRules {
    /// Transactions between snapshots: a random number between half of this and all of it.
    pub snap_count: u64,
    /// Bytes of log between snapshots, likewise; 0 turns it off.
    pub snap_bytes: u64,
    /// A segment is rolled beyond this many bytes; 0 turns it off.
    pub segment_bytes: u64,
}

/// A start that finds transactions after its snapshot in more logs takes another: each start may leave a log, and the old
/// ones can be purged only once there are snapshots after them.
const LOGS_BEHIND_SNAPSHOT: u64 = 4;

impl RollRules {
    /// Whether a start has found so much after its snapshot that it is time for another: half of what makes one due
    /// while the server runs, or many logs.
    pub fn wants_snapshot(&self, found: &Recovered) -> bool {
        let too_large = self.snap_bytes > 0 && found.bytes > self.snap_bytes / 2;
        found.txns > self.snap_count / 2 || too_large || found.logs > LOGS_BEHIND_SNAPSHOT
    }
}

/// What a journal writes to, and how.
#[derive(Clone)]
pub struct Setup {
    pub disk: Arc<dyn Disk>,
    pub dirs: Dirs,
    pub log: LogOptions,
    pub roll: RollRules,
    pub owners: OwnerRules,
    pub me: ServerId,
    /// `zoo.cfg`, where reconfigurations are written beside it.
    pub config_file: Option<PathBuf>,
}

/// A configuration could not be written beside `zoo.cfg`. That is no error of the log, and nothing that is acknowledged
/// rests on it: the configuration is in the log and in the tree too, and other servers tell it.
#[derive(Debug, thiserror::Error)]
#[error(
    "{source}. The ensemble's configuration is in force, and in this server's memory and log alone: after a restart it \
     begins with the one that {} names, and learns this one from the others. Let this server write to the directory",
    file.display()
)]
struct ConfigNotSaved {
    source: StorageError,
    /// `zoo.cfg`.
    file: PathBuf,
}

/// What one call of [`Journal::perform`] did.
#[derive(Debug, Default)]
pub struct Performed {
    pub done: Vec<Input>,
    /// Transactions and time of each sync.
    pub syncs: Vec<(usize, Duration)>,
    /// So much was logged since the last snapshot that it is time for another.
    pub wants_snapshot: bool,
    /// Bytes that the disk of the log has free, where that was looked at.
    pub free: Option<u64>,
}

pub struct Journal {
    setup: Setup,
    log: TxnLog,
    due: Due,
    random: Box<dyn FnMut() -> u64 + Send>,
    /// What room the replica was told of.
    room: Room,
    /// The log file says that the disk fills.
    has_warned: bool,
}

/// A disk that has this many growths of the log free does not fill yet.
const PLENTY: u64 = 4;

impl Journal {
    /// Appends continue after `last`. `random` spreads the snapshots of an ensemble's servers.
    pub fn new(setup: Setup, last: Zxid, mut random: Box<dyn FnMut() -> u64 + Send>) -> Self {
        let log = TxnLog::new(setup.disk.clone(), setup.dirs.log.clone(), setup.log, last);
        let due = Due::new(setup.roll, &mut *random);
        Self { setup, log, due, random, room: Room::Enough, has_warned: false }
    }

    /// Does all of `ops`, unless the disk has no room: then those that are left are to be tried again. After an error nothing more
    /// may be asked: what is on the disk is not known.
    pub fn perform(&mut self, ops: &mut Vec<DiskOp>) -> Result<Performed, StorageError> {
        let mut performed = Performed::default();
        let mut done = 0;
        let tried = self.perform_all(ops, &mut done, &mut performed);
        ops.drain(..done);
        match tried {
            Ok(()) if self.room == Room::Out => self.look(&mut performed),
            Ok(()) => {
                let room = self.log.room();
                self.tell_room(room, None, &mut performed);
            }
            // Whatever it was, the files are as a crash could leave them, and it goes on from there.
            Err(error) if error.is_full() => {
                self.tell_room(Room::Out, Some(&error), &mut performed);
            }
            Err(error) => return Err(error),
        }
        Ok(performed)
    }

    /// Counts in `done` what need not be done again.
    fn perform_all(
        &mut self,
        ops: &[DiskOp],
        done: &mut usize,
        performed: &mut Performed,
    ) -> Result<(), StorageError> {
        let mut bytes = 0;
        for (at, op) in ops.iter().enumerate() {
            if let DiskOp::Append(entry) = op {
                let framed = entry.body.len() as u64 + storage::RECORD_FRAME;
                // One that is larger than what recovery takes for one write is written alone.
                if bytes + framed > MAX_UNSYNCED {
                    self.sync_to(at, &mut bytes, done, performed)?;
                }
                self.log.append(entry.zxid, &entry.body)?;
                bytes += framed;
                if bytes >= MAX_UNSYNCED / 2 {
                    self.sync_to(at + 1, &mut bytes, done, performed)?;
                }
            } else {
                self.sync_to(at, &mut bytes, done, performed)?;
                self.one(op, performed)?;
                *done = at + 1;
            }
        }
        self.sync_to(ops.len(), &mut bytes, done, performed)
    }

    /// Makes the appends before `end` durable, if there are some.
    fn sync_to(
        &mut self,
        end: usize,
        bytes: &mut u64,
        done: &mut usize,
        performed: &mut Performed,
    ) -> Result<(), StorageError> {
        if *done < end {
            self.sync(end - *done, std::mem::take(bytes), performed)?;
            *done = end;
        }
        Ok(())
    }

    /// Looks what room there is, whether or not there is something to write.
    pub fn look_for_room(&mut self) -> Performed {
        let mut performed = Performed::default();
        // What waits shows when there is room.
        if self.room != Room::Out {
            self.look(&mut performed);
        }
        performed
    }

    fn look(&mut self, performed: &mut Performed) {
        let room = self.log.look_for_room();
        self.tell_room(room, None, performed);
        self.warn_of_filling(self.log.space());
        performed.free = Some(self.log.space().free);
    }

    /// Tells the replica, and the log file, what has changed.
    fn tell_room(&mut self, room: Room, full: Option<&StorageError>, performed: &mut Performed) {
        let had = std::mem::replace(&mut self.room, room);
        if had == room {
            return;
        }
        performed.done.push(Input::Room(room));
        let dir = self.setup.dirs.log.display();
        match (room, full) {
            (Room::Enough, _) => tracing::info!("there is room in {dir} again: this server takes writes"),
            (Room::Low, _) if had == Room::Out => {
                tracing::warn!("{dir} has room for what was under way, and no more: new writes are refused");
            }
            (Room::Low, _) => tracing::warn!(
                "the disk of {dir} is almost full: {} bytes are free, and {} are kept for what is under way. A server alone, and a leader \
                 that nobody can take the place of, refuses new writes with error -1 until there is room; reads are served. Make room: \
                 remove old snapshots and logs (autopurge), or files of others",
                self.log.space().free,
                self.log.reserve()
            ),
            (Room::Out, Some(error)) => tracing::error!(
                "{error}: the disk is full. What waits to be written is tried again until there is room, and nothing of it is acknowledged \
                 before. Make room: remove old snapshots and logs (autopurge), or files of others"
            ),
            (Room::Out, None) => {}
        }
    }

    /// In time: while all is taken still.
    fn warn_of_filling(&mut self, Space { free, size }: Space) {
        let plenty = (PLENTY * self.setup.log.prealloc_bytes).min(size / 8);
        if free < plenty && !self.has_warned {
            self.has_warned = true;
            tracing::warn!(
                "the disk of {} fills: {free} bytes are free. Below {} this server refuses new writes",
                self.setup.dirs.log.display(),
                self.log.reserve()
            );
        }
        self.has_warned &= free < 2 * plenty;
    }

    /// The end, with everything done that was asked for.
    pub fn close(self) -> Result<(), StorageError> {
        self.log.close()
    }

    fn sync(&mut self, txns: usize, bytes: u64, performed: &mut Performed) -> Result<(), StorageError> {
        let started = Instant::now();
        self.log.sync()?;
        performed.syncs.push((txns, started.elapsed()));
        let last = self.log.last_zxid();
        performed.done.push(Input::Disk(DiskDone::Logged(last), None));
        self.due.count(txns as u64, bytes);
        let roll = self.setup.roll;
        // Who has a log to write to keeps it: there may be no room for another one.
        let may_roll = self.room == Room::Enough;
        if self.due.snapshot() {
            if may_roll {
                self.log.roll();
            }
            performed.wants_snapshot = true;
            self.due = Due::new(roll, &mut *self.random);
        } else if may_roll && roll.segment_bytes > 0 && self.log.position() > roll.segment_bytes {
            self.log.roll();
        }
        Ok(())
    }

    fn one(&mut self, op: &DiskOp, performed: &mut Performed) -> Result<(), StorageError> {
        let (disk, dirs) = (&*self.setup.disk.clone(), self.setup.dirs.clone());
        let mut database = None;
        let done = match *op {
            DiskOp::Append(_) => return Ok(()),
            DiskOp::SaveAccepted(epoch) => {
                Epochs::write_accepted(disk, &dirs.data, epoch)?;
                DiskDone::AcceptedSaved(epoch)
            }
            DiskOp::SaveCurrent(epoch) => {
                Epochs::write_current(disk, &dirs.data, epoch)?;
                DiskDone::CurrentSaved(epoch)
            }
            DiskOp::SaveDebt(debt) => {
                self.save_debt(debt)?;
                DiskDone::DebtSaved
            }
            DiskOp::Truncate { to, reload } => {
                let last = self.log.last_zxid();
                self.log.restart(to);
                self.log.forget_synced()?;
                let done = match storage::truncate(disk, &dirs, to, last)? {
                    Cut::Done(kept) => {
                        warn_of(kept);
                        true
                    }
                    Cut::Unmendable => false,
                };
                if done && reload {
                    database = self.reread(to)?;
                }
                match done && (!reload || database.is_some()) {
                    true => DiskDone::Truncated(to),
                    false => DiskDone::Unmendable,
                }
            }
            DiskOp::Stage { link, zxid } => {
                self.log.restart_staged(zxid);
                let received = dirs.data.join(storage::received_name(link, zxid));
                storage::stage(disk, &dirs, &received, zxid)?;
                DiskDone::Staged(zxid)
            }
            DiskOp::Install { contained } => {
                self.log.roll();
                self.log.forget_synced()?;
                warn_of(storage::install(disk, &dirs, !contained)?);
                self.log.restart_installed()?;
                DiskDone::Installed
            }
            DiskOp::Unstage { to } => {
                tracing::info!(
                    "the term ended before the leader's history was complete; continuing with the old files zxid={to}"
                );
                self.log.restart(to);
                storage::unstage(disk, &dirs)?;
                let reread = self.reread(to)?;
                let Dirs { data, log } = dirs;
                let lost = || StorageError::Changed { data, log, to };
                database = Some(reread.ok_or_else(lost)?);
                DiskDone::Unstaged(to)
            }
            DiskOp::Wipe { debt } => {
                self.save_debt(debt)?;
                self.log.restart(Zxid::ZERO);
                self.log.forget_synced()?;
                warn_of(storage::wipe(disk, &dirs)?);
                let mut empty = Database::new(self.setup.owners);
                write_snapshot_of(&mut empty, &self.setup.disk, &dirs)?;
                database = Some(Box::new(empty));
                DiskDone::Wiped
            }
            DiskOp::SaveConfig(ref file) => {
                if let Err(error) = self.save_config(file) {
                    tracing::error!("{error}");
                }
                DiskDone::ConfigSaved
            }
        };
        performed.done.push(Input::Disk(done, database));
        Ok(())
    }

    fn save_debt(&self, debt: Debt) -> Result<(), StorageError> {
        storage::write_debt(&*self.setup.disk, &self.setup.dirs.data, debt)
    }

    /// The database as the files have it now; none where they do not lead to `to`.
    fn reread(&self, to: Zxid) -> Result<Option<Box<Database>>, StorageError> {
        let mut state = super::RestoredDatabase::new(self.setup.owners);
        match storage::reread(&*self.setup.disk, &self.setup.dirs, &mut state) {
            Ok(found) if found.last_zxid == to && state.shows() <= to => {
                Ok(Some(Box::new(state.into_database())))
            }
            Ok(_) | Err(StorageError::Damaged { .. }) => Ok(None),
            Err(other) => Err(other),
        }
    }

    fn save_config(&self, file: &ConfigFile) -> Result<(), ConfigNotSaved> {
        let Some(path) = &self.setup.config_file else { return Ok(()) };
        self.write_config(path, file).map_err(|source| ConfigNotSaved { source, file: path.clone() })
    }

    fn write_config(&self, path: &Path, file: &ConfigFile) -> Result<(), StorageError> {
        let disk = &*self.setup.disk;
        match file {
            ConfigFile::Next(ensemble) => {
                let next = config::dynamic_file(path, None);
                write_whole(disk, &next, config::dynamic_text(ensemble, true).as_bytes())
            }
            ConfigFile::NoNext => storage::remove_if_there(disk, &config::dynamic_file(path, None)),
            ConfigFile::Active(ensemble) => {
                let dynamic = config::dynamic_file(path, Some(ensemble.version()));
                write_whole(disk, &dynamic, config::dynamic_text(ensemble, false).as_bytes())?;
                let old = storage::read_whole(disk, path)?;
                let old = String::from_utf8_lossy(&old).into_owned();
                let own = ensemble.member(self.setup.me);
                let has_client =
                    own.is_some_and(|member| member.client.is_some() && !member.client_is_static);
                let dynamic = std::path::absolute(&dynamic).unwrap_or(dynamic);
                write_whole(disk, path, config::point_to(&old, &dynamic, has_client).as_bytes())?;
                storage::remove_if_there(disk, &config::dynamic_file(path, None))
            }
        }
    }
}

fn warn_of(kept: Option<Kept>) {
    if let Some(kept) = kept {
        tracing::warn!("{kept}");
    }
}

/// Counts towards the next snapshot. The random part keeps the servers of an ensemble from all writing at once.
struct Due {
    txns_left: i64,
    bytes_left: i64,
}

impl Due {
    fn new(rules: RollRules, random: &mut dyn FnMut() -> u64) -> Self {
        let half = |whole: u64| (whole / 2) as i64;
        let mut spread = |whole: u64| half(whole) + (random() % (half(whole).max(1) as u64)) as i64;
        Self {
            txns_left: spread(rules.snap_count),
            bytes_left: if rules.snap_bytes == 0 { i64::MAX } else { spread(rules.snap_bytes) },
        }
    }

    fn count(&mut self, txns: u64, bytes: u64) {
        self.txns_left -= txns as i64;
        self.bytes_left = self.bytes_left.saturating_sub(bytes as i64);
    }

    fn snapshot(&self) -> bool {
        self.txns_left < 0 || self.bytes_left < 0
    }
}
