//! A server whose crashes are planned: how many steps its disk makes, what a crash leaves there, and how it goes on.

use super::World;
use crate::core::check_snapshot;
use crate::model::owner::OwnerRules;
use crate::model::{Debt, Epoch, Zxid};
use crate::sim::disk::Strike;
use crate::sim::{SimDisk, node};
use crate::storage::{Dirs, Epochs, purge};
use std::collections::VecDeque;
use std::path::Path;

/// Microseconds between a crash and the next start.
const RESTART_US: u64 = 20_000;

/// A crash to come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Crash {
    /// The step of the disk that does not happen any more, counted from 1: from where the server is watched, or from its last
    /// crash on.
    pub step: u64,
    /// The beginning of what that step writes is there.
    pub torn: bool,
    /// The machine loses power; otherwise the process is killed.
    pub power: bool,
}

/// What a server has promised others: it must be on its disk, or owed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Promised {
    /// The last transaction that it may have acknowledged.
    pub last: Zxid,
    pub accepted: Epoch,
    pub current: Epoch,
    /// What it has said that it may have lost.
    pub owed: Zxid,
}

/// A debt as the zxid up to which it reaches.
pub fn reach(debt: Debt) -> Zxid {
    match debt {
        Debt::None => Zxid::ZERO,
        Debt::AtLeast(_, zxid) => zxid,
        Debt::Unknown => Zxid(i64::MAX),
    }
}

impl Promised {
    /// The epochs that a disk has.
    pub fn read(disk: &SimDisk, last: Zxid, debt: Debt) -> Self {
        let dirs = Dirs::new(Path::new(node::DATA_DIR), Path::new(node::DATA_DIR));
        let epochs = Epochs::read(disk, &dirs.data).unwrap_or_default();
        let (accepted, current) = (epochs.accepted.unwrap_or_default(), epochs.current.unwrap_or_default());
        Self { last, accepted, current, owed: reach(debt) }
    }
}

/// What the first crash left.
#[derive(Debug)]
pub struct Wreck {
    /// With all that the system has in its memory.
    pub disk: SimDisk,
    pub promised: Promised,
    /// Its tree had come to differ, and so may its files.
    pub is_spoilt: bool,
}

#[derive(Debug, Default)]
pub struct Watched {
    pub(super) server: Option<usize>,
    /// Steps that its disk had made before.
    before: u64,
    /// How many steps it made until the story ended, and which of them wrote more than a byte.
    pub writes: Vec<bool>,
    to_come: VecDeque<Crash>,
    pub happened: usize,
    pub wreck: Option<Wreck>,
}

impl World {
    pub(in crate::sim) fn plan_crashes(&mut self, crashes: &[Crash]) {
        self.watched.to_come = crashes.iter().copied().collect();
    }

    /// From here on, the steps of this server's disk are counted.
    pub(in crate::sim) fn watch(&mut self, index: usize) {
        self.watched.server = Some(index);
        self.watched.before = self.nodes[index].disk.steps();
        self.plan_next();
    }

    /// The story is at its end.
    pub(in crate::sim) fn count_steps(&mut self) {
        if let Some(index) = self.watched.server {
            self.watched.writes = self.nodes[index].disk.writes_from(self.watched.before);
        }
    }

    pub(in crate::sim) fn uses_disk(&self, index: usize) -> bool {
        self.nodes[index].process.as_ref().is_some_and(node::Process::uses_disk)
    }

    /// Old snapshots and logs go, as a server's purge does it.
    pub(in crate::sim) fn purge(&mut self, index: usize, keep: usize) -> Result<(), String> {
        let dirs = Dirs::new(Path::new(node::DATA_DIR), Path::new(node::DATA_DIR));
        let disk = &self.nodes[index].disk;
        let is_good = |zxid, path: &Path| check_snapshot(disk, zxid, path, OwnerRules::default()).is_ok();
        match purge(disk, &dirs, keep, &is_good) {
            Ok(_) => Ok(()),
            Err(_) if self.is_struck(index) => {
                self.crash(index);
                Ok(())
            }
            Err(error) => Err(error.to_string()),
        }
    }

    fn plan_next(&self) {
        let (Some(index), Some(crash)) = (self.watched.server, self.watched.to_come.front()) else { return };
        let disk = &self.nodes[index].disk;
        disk.plan(Some(Strike { at: disk.steps() + crash.step, torn: crash.torn }));
    }

    /// Whether the disk of this server has come to where a crash was planned.
    pub(super) fn is_struck(&self, index: usize) -> bool {
        let watched = &self.watched;
        watched.server == Some(index)
            && !watched.to_come.is_empty()
            && self.nodes[index].disk.has_stopped()
            && !self.nodes[index].disk.is_planned()
    }

    pub(in crate::sim) fn has_crashed(&self) -> bool {
        self.watched.happened > 0 || self.watched.server.is_some_and(|index| self.is_struck(index))
    }

    /// The crash that was planned happens.
    pub(in crate::sim) fn crash(&mut self, index: usize) {
        let Some(crash) = self.watched.to_come.pop_front() else { return };
        self.say(|| {
            let how = if crash.power { "loses power" } else { "is killed" };
            format!("server {} {how} at step {} of its disk", index + 1, crash.step)
        });
        self.watched.happened += 1;
        let node = &self.nodes[index];
        if self.watched.wreck.is_none() {
            let disk = node.disk.copy();
            disk.process_ended();
            self.watched.wreck =
                Some(Wreck { disk, promised: node.promised, is_spoilt: node.spoilt_at.is_some() });
        }
        // What it has found of its tree it forgets, until the next transaction that it applies.
        if self.nodes[index].spoilt_at.is_some() {
            self.nodes[index].spoilt_at = Some(i64::MAX);
        }
        let node = &self.nodes[index];
        if node.process.is_some() {
            self.end(index, crash.power);
        } else if crash.power {
            self.lose_power(index, false);
        } else {
            node.disk.process_ended();
        }
        self.plan_next();
        self.boot_after(index, RESTART_US);
    }
}
