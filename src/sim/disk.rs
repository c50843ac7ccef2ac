//! A disk that keeps what a real one promises, and nothing more. What is written is in the system's memory until it is
//! synced; a power failure keeps any of the sectors that were not, and any of the names that were made, moved or removed
//! since their directory was synced, in order. A process that is killed loses nothing of that. It may also lie.

use super::random::Random;
use crate::storage::{Disk, ReadFile, SegmentFile, Space, WriteFile};
use parking_lot::Mutex;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::Path;
use std::sync::Arc;

const SECTOR: usize = 512;
/// How far the log was synced.
const SYNCED: &str = "/zabra.synced";

#[derive(Debug, Clone, Default)]
struct Inode {
    /// Zeros behind the last byte that was written are not held.
    bytes: Vec<u8>,
    len: usize,
    /// What the disk has in sectors that were written since the last sync.
    old: BTreeMap<usize, Box<[u8; SECTOR]>>,
    synced_len: usize,
    /// Cut off, and not durably so.
    cut: Vec<u8>,
    /// What the disk can't read any more.
    unreadable: BTreeSet<usize>,
}

/// What a disk may return for a sector, instead of what was written to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BadSector {
    Zeros,
    /// What it held before the last write to it.
    Stale,
    /// What was written to another one.
    Misdirected,
    /// An error.
    Unreadable,
}

impl Inode {
    fn touch(&mut self, from: usize, to: usize) {
        for sector in from / SECTOR..to.div_ceil(SECTOR) {
            let bytes = &self.bytes;
            self.old.entry(sector).or_insert_with(|| {
                let mut kept = Box::new([0; SECTOR]);
                let start = sector * SECTOR;
                let end = (start + SECTOR).min(bytes.len());
                if start < end {
                    kept[..end - start].copy_from_slice(&bytes[start..end]);
                }
                kept
            });
        }
    }

    fn write(&mut self, offset: usize, bytes: &[u8]) {
        if self.bytes.len() < offset + bytes.len() {
            self.bytes.resize(offset + bytes.len(), 0);
        }
        self.len = self.len.max(self.bytes.len());
        self.touch(offset, offset + bytes.len());
        if !self.unreadable.is_empty() {
            let written = offset / SECTOR..(offset + bytes.len()).div_ceil(SECTOR);
            self.unreadable.retain(|sector| !written.contains(sector));
        }
        self.bytes[offset..offset + bytes.len()].copy_from_slice(bytes);
    }

    fn sync(&mut self) {
        self.old.clear();
        self.cut.clear();
        self.synced_len = self.len;
    }

    fn truncate(&mut self, len: usize) {
        if len < self.bytes.len() {
            self.cut = self.bytes.split_off(len);
        }
        self.len = self.len.min(len);
    }

    /// The system says that writing back failed, and takes the pages for clean all the same.
    fn lose_dirty(&mut self, random: &mut Random) {
        self.power_failure(random);
        self.sync();
    }

    fn power_failure(&mut self, random: &mut Random) {
        self.lose_sectors(random);
        if random.permille(500) {
            if !self.cut.is_empty() {
                self.bytes.resize(self.len, 0);
                self.bytes.append(&mut self.cut);
            }
            self.bytes.truncate(self.synced_len);
            self.len = self.synced_len;
        }
        self.cut.clear();
        self.synced_len = self.len;
    }

    /// Each run of unsynced sectors may be there in part.
    fn lose_sectors(&mut self, random: &mut Random) {
        let often = *random.pick(&[0, 100, 500, 900, 1000]);
        for (sector, old) in std::mem::take(&mut self.old) {
            if random.permille(often) {
                continue;
            }
            let start = sector * SECTOR;
            let end = (start + SECTOR).min(self.bytes.len());
            if start < end {
                self.bytes[start..end].copy_from_slice(&old[..end - start]);
            }
        }
    }
}

/// A whole path. As text it compares faster than as a path.
type Name = Arc<str>;

fn name_of(path: &Path) -> &str {
    path.to_str().expect("servers here name files in ASCII")
}

fn split(name: &str) -> (&str, &str) {
    name.rsplit_once('/').unwrap_or(("", name))
}

#[derive(Debug, Clone)]
enum NameOp {
    Add(Name, usize),
    Remove(Name),
    Rename(Name, Name),
}

impl NameOp {
    fn dir(&self) -> &str {
        let (Self::Add(name, _) | Self::Remove(name) | Self::Rename(_, name)) = self;
        split(name).0
    }

    fn apply(&self, names: &mut BTreeMap<Name, usize>) {
        match self {
            Self::Add(name, inode) => {
                names.insert(name.clone(), *inode);
            }
            Self::Remove(name) => {
                names.remove(name);
            }
            Self::Rename(from, to) => {
                if let Some(inode) = names.remove(from) {
                    names.insert(to.clone(), inode);
                }
            }
        }
    }
}

/// What can be made to go wrong.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DiskFaults {
    /// Operations until nothing works any more: the process is as good as killed there.
    pub stop_after: Option<u64>,
    /// The next sync fails.
    pub fail_sync: bool,
    /// No block is left.
    pub full: bool,
    /// What is written goes to other blocks than those that are allocated: none of them is left either.
    pub copies: bool,
}

/// How a disk says of what was synced that it is there, and it is not.
#[derive(Debug, Clone)]
enum Lie {
    /// What is in the log may be lost with the power, in any part. How far the log was synced is stored by writes that nobody waits for,
    /// and comes through.
    Log,
    /// With the power, everything is lost that came after this moment.
    Since(Box<State>),
}

/// A crash that was planned: the process is gone before this step, or in the middle of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Strike {
    /// As [`SimDisk::steps`] counts.
    pub at: u64,
    /// Of what the step writes, the beginning is there.
    pub torn: bool,
}

#[derive(Debug, Default, Clone)]
struct State {
    inodes: Vec<Inode>,
    names: BTreeMap<Name, usize>,
    durable: BTreeMap<Name, usize>,
    pending: Vec<NameOp>,
    faults: DiskFaults,
    ops: u64,
    /// Whether each step that was ever made wrote more than one byte.
    steps: Vec<bool>,
    /// How often the machine lost power.
    losses: u64,
    lie: Option<Lie>,
    /// Files that had these names once.
    gone: Vec<(Name, usize)>,
    strike: Option<Strike>,
    stopped: bool,
    /// An operation failed.
    failed: bool,
}

#[derive(Debug, Clone, Default)]
pub struct SimDisk(Arc<Mutex<State>>);

fn missing() -> io::Error {
    io::Error::from(io::ErrorKind::NotFound)
}

impl State {
    /// To be called by everything that changes something.
    fn step(&mut self) -> io::Result<()> {
        self.ops += 1;
        if !self.stopped {
            self.steps.push(false);
            let steps = self.steps.len() as u64;
            self.stopped = self.strike.take_if(|strike| strike.at <= steps).is_some();
        }
        if let Some(left) = &mut self.faults.stop_after {
            if *left == 0 {
                self.stopped = true;
            } else {
                *left -= 1;
            }
        }
        if self.stopped { Err(io::Error::other("the process is gone")) } else { Ok(()) }
    }

    /// Likewise, by what is about to write these bytes.
    fn step_of_write(&mut self, inode: usize, offset: usize, bytes: &[u8]) -> io::Result<()> {
        let (before, strike) = (self.steps.len(), self.strike);
        let done = self.step();
        if let Some(step) = self.steps.get_mut(before) {
            *step = bytes.len() > 1;
        }
        if strike.is_some_and(|strike| strike.torn) && self.strike.is_none() {
            self.inodes[inode].write(offset, &bytes[..bytes.len() / 2]);
        }
        done
    }

    fn room(&mut self) -> io::Result<()> {
        self.failed |= self.faults.full;
        if self.faults.full { Err(io::Error::from_raw_os_error(libc::ENOSPC)) } else { Ok(()) }
    }

    fn name(&mut self, op: NameOp) {
        // What TRUNC cuts off moves away. Were that there again, nothing would tell it from what is to stay.
        let gone = match &op {
            NameOp::Remove(name) => Some(name),
            NameOp::Rename(name, _) => Some(name).filter(|name| !split(name).1.starts_with(['l', 's'])),
            NameOp::Add(..) => None,
        };
        if let Some((name, inode)) = gone.and_then(|name| self.names.get_key_value(name)) {
            self.gone.push((name.clone(), *inode));
        }
        op.apply(&mut self.names);
        self.pending.push(op);
    }

    fn sync(&mut self, inode: usize, random: &mut Random) -> io::Result<()> {
        // What it has lied about goes when the power does, and on a minority alone.
        let lied = matches!(self.lie, Some(Lie::Log));
        if std::mem::take(&mut self.faults.fail_sync) {
            if !lied {
                self.inodes[inode].lose_dirty(random);
            }
            self.failed = true;
            return Err(io::Error::from_raw_os_error(libc::EIO));
        }
        if self.faults.full && self.faults.copies && !self.inodes[inode].old.is_empty() {
            if !lied {
                self.inodes[inode].lose_sectors(random);
            }
            return self.room();
        }
        self.inodes[inode].sync();
        Ok(())
    }

    /// Before the power goes: what was said to be there is not.
    fn lose_lies(&mut self) {
        match self.lie.take() {
            None => {}
            Some(Lie::Log) => {
                let places = self.names.iter().filter(|(name, _)| name.ends_with(SYNCED));
                for inode in places.map(|(_, inode)| *inode).collect::<Vec<_>>() {
                    self.inodes[inode].sync();
                }
            }
            Some(Lie::Since(then)) => {
                let (steps, strike) = (std::mem::take(&mut self.steps), self.strike.take());
                *self =
                    Self { steps, strike, ops: self.ops, losses: self.losses, faults: self.faults, ..*then };
            }
        }
    }

    /// A sync of the log. A disk that lies about it has no error to report.
    fn sync_log(&mut self, inode: usize, random: &mut Random) -> io::Result<()> {
        if matches!(self.lie, Some(Lie::Log)) {
            return Ok(());
        }
        self.sync(inode, random)
    }

    fn find(&self, path: &Path) -> io::Result<usize> {
        self.names.get(name_of(path)).copied().ok_or_else(missing)
    }
}

impl SimDisk {
    pub fn set_faults(&self, faults: DiskFaults) {
        self.0.lock().faults = faults;
    }

    pub fn faults(&self) -> DiskFaults {
        self.0.lock().faults
    }

    /// Whether [`DiskFaults::stop_after`] has struck.
    pub fn has_stopped(&self) -> bool {
        self.0.lock().stopped
    }

    /// Whether the process has met an error of the disk.
    pub fn has_failed(&self) -> bool {
        self.0.lock().failed
    }

    /// The process is gone; the system still has everything.
    pub fn process_ended(&self) {
        let mut state = self.0.lock();
        state.stopped = false;
        state.failed = false;
        state.faults.stop_after = None;
    }

    /// What was not synced is there in part.
    pub fn power_failure(&self, random: &mut Random) {
        self.process_ended();
        let mut state = self.0.lock();
        state.lose_lies();
        state.losses += 1;
        let State { inodes, names, durable, pending, .. } = &mut *state;
        let kept = random.below(pending.len() as u64 + 1) as usize;
        for op in pending.drain(..).take(kept) {
            op.apply(durable);
        }
        pending.clear();
        *names = durable.clone();
        for inode in inodes.iter_mut() {
            inode.power_failure(random);
        }
    }

    /// A new disk.
    pub fn wipe(&self) {
        let mut state = self.0.lock();
        let (steps, strike) = (std::mem::take(&mut state.steps), state.strike.take());
        *state = State { steps, strike, losses: state.losses + 1, ..State::default() };
    }

    /// From here on it lies: about the log, or about everything.
    pub fn lie(&self, about_all: bool) {
        let mut state = self.0.lock();
        let then = Box::new(State { steps: Vec::new(), strike: None, ..state.clone() });
        state.lie = Some(if about_all { Lie::Since(then) } else { Lie::Log });
    }

    pub fn lies(&self) -> bool {
        self.0.lock().lie.is_some()
    }

    /// Whether it is the log alone that it lies about.
    pub fn lies_about_the_log(&self) -> bool {
        matches!(self.0.lock().lie, Some(Lie::Log))
    }

    /// All that it lied about gets there in time.
    pub fn come_true(&self) {
        let mut state = self.0.lock();
        if let Some(Lie::Log) = state.lie.take() {
            state.inodes.iter_mut().for_each(Inode::sync);
        }
    }

    /// Files that are there no more, and whose names are free.
    pub fn gone(&self) -> Vec<String> {
        let state = self.0.lock();
        let gone = state.gone.iter().filter(|(name, _)| !state.names.contains_key(name));
        gone.map(|(name, _)| name.to_string()).collect()
    }

    /// One of them is there again, durably.
    pub fn bring_back(&self, name: &str) {
        let mut state = self.0.lock();
        let Some((name, inode)) = state.gone.iter().rfind(|(other, _)| &**other == name).cloned() else {
            return;
        };
        state.names.insert(name.clone(), inode);
        state.durable.insert(name, inode);
    }

    /// Steps that were ever made: all that changed something, on this disk and on those in its place before.
    pub fn steps(&self) -> u64 {
        self.0.lock().steps.len() as u64
    }

    /// Whether each of these steps wrote more than a byte, from the `first` on.
    pub fn writes_from(&self, first: u64) -> Vec<bool> {
        self.0.lock().steps[first as usize..].to_vec()
    }

    /// Plans a crash; none: there is none to come.
    pub fn plan(&self, strike: Option<Strike>) {
        self.0.lock().strike = strike;
    }

    /// Whether a crash is still to come.
    pub fn is_planned(&self) -> bool {
        self.0.lock().strike.is_some()
    }

    /// The process makes no step any more.
    pub fn stop(&self) {
        self.0.lock().stopped = true;
    }

    /// Another disk with the same on it, at the moment.
    pub fn copy(&self) -> Self {
        Self(Arc::new(Mutex::new(self.0.lock().clone())))
    }

    pub fn read(&self, path: &Path) -> Option<Vec<u8>> {
        let state = self.0.lock();
        let inode = state.find(path).ok()?;
        let Inode { bytes, len, .. } = &state.inodes[inode];
        let mut bytes = bytes.clone();
        bytes.resize(*len, 0);
        Some(bytes)
    }

    /// Every file that there is.
    pub fn paths(&self) -> Vec<String> {
        self.0.lock().names.keys().map(|name| name.to_string()).collect()
    }

    /// Puts a file there, durably, as an operator would.
    pub fn put(&self, path: &Path, bytes: &[u8]) {
        let mut state = self.0.lock();
        state.inodes.push(Inode {
            bytes: bytes.to_vec(),
            len: bytes.len(),
            synced_len: bytes.len(),
            ..Inode::default()
        });
        let inode = state.inodes.len() - 1;
        let name: Name = name_of(path).into();
        state.names.insert(name.clone(), inode);
        state.durable.insert(name, inode);
    }

    /// Flips a bit of a file.
    pub fn flip(&self, path: &Path, random: &mut Random) {
        let mut state = self.0.lock();
        let Ok(inode) = state.find(path) else { return };
        let bytes = &mut state.inodes[inode].bytes;
        if !bytes.is_empty() {
            let at = random.below(bytes.len() as u64) as usize;
            bytes[at] ^= 1 << random.below(8);
        }
    }

    /// A bit of this byte flips.
    pub fn flip_at(&self, path: &Path, at: usize) {
        let mut state = self.0.lock();
        let Ok(inode) = state.find(path) else { return };
        state.inodes[inode].bytes[at] ^= 1;
    }

    /// One sector of a file goes bad.
    pub fn spoil_sector(&self, path: &Path, bad: BadSector, random: &mut Random) {
        let mut state = self.0.lock();
        let Ok(inode) = state.find(path) else { return };
        let Inode { bytes, unreadable, .. } = &mut state.inodes[inode];
        let count = bytes.len().div_ceil(SECTOR);
        if count == 0 {
            return;
        }
        let at = random.below(count as u64) as usize;
        let len = bytes.len();
        let range = |sector: usize| sector * SECTOR..((sector + 1) * SECTOR).min(len);
        match bad {
            BadSector::Zeros => bytes[range(at)].fill(0),
            // A file is written from front to back.
            BadSector::Stale => {
                let written = random.below(SECTOR as u64) as usize;
                let range = range(at);
                let from = (range.start + written).min(range.end);
                bytes[from..range.end].fill(0);
            }
            BadSector::Misdirected => {
                let other = range(random.below(count as u64) as usize);
                let other = bytes[other].to_vec();
                let range = range(at);
                let len = other.len().min(range.len());
                bytes[range.start..range.start + len].copy_from_slice(&other[..len]);
            }
            BadSector::Unreadable => {
                unreadable.insert(at);
            }
        }
    }

    /// A file is gone, durably.
    pub fn lose(&self, path: &Path) {
        let mut state = self.0.lock();
        let State { names, durable, .. } = &mut *state;
        names.remove(name_of(path));
        durable.remove(name_of(path));
    }

    fn random(&self) -> Random {
        Random::new(self.0.lock().ops)
    }
}

impl Disk for SimDisk {
    fn boot(&self) -> u64 {
        1 + self.0.lock().losses
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<(String, u64)>> {
        let state = self.0.lock();
        let dir = name_of(dir);
        let inside = state.names.iter().map(|(name, inode)| (split(name), inode));
        let inside = inside.filter(|((of, _), _)| *of == dir);
        Ok(inside.map(|((_, name), inode)| (name.to_string(), state.inodes[*inode].len as u64)).collect())
    }

    fn list_dirs(&self, dir: &Path) -> io::Result<Vec<String>> {
        let state = self.0.lock();
        let inside = state.names.keys().filter_map(|name| name.strip_prefix(name_of(dir))?.strip_prefix('/'));
        let mut dirs: Vec<String> =
            inside.filter_map(|rest| Some(rest.split_once('/')?.0.to_string())).collect();
        dirs.dedup();
        Ok(dirs)
    }

    fn create_dir_all(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }

    fn remove_dir_all(&self, dir: &Path) -> io::Result<()> {
        for (name, _) in self.list(dir)? {
            self.remove(&dir.join(name))?;
        }
        self.sync_dir(dir)
    }

    fn open(&self, file: &Path) -> io::Result<Box<dyn ReadFile>> {
        let inode = self.0.lock().find(file)?;
        Ok(Box::new(Open { disk: self.clone(), inode, position: 0 }))
    }

    fn create(&self, file: &Path) -> io::Result<Box<dyn WriteFile>> {
        let mut state = self.0.lock();
        state.step()?;
        state.room()?;
        state.inodes.push(Inode::default());
        let inode = state.inodes.len() - 1;
        state.name(NameOp::Add(name_of(file).into(), inode));
        drop(state);
        Ok(Box::new(Open { disk: self.clone(), inode, position: 0 }))
    }

    fn segment(&self, file: &Path, len: u64) -> io::Result<Box<dyn SegmentFile>> {
        let mut state = self.0.lock();
        state.step()?;
        state.room()?;
        if state.names.contains_key(name_of(file)) {
            return Err(io::Error::from(io::ErrorKind::AlreadyExists));
        }
        state.inodes.push(Inode { len: len as usize, ..Inode::default() });
        let inode = state.inodes.len() - 1;
        state.name(NameOp::Add(name_of(file).into(), inode));
        drop(state);
        Ok(Box::new(Open { disk: self.clone(), inode, position: 0 }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.0.lock();
        state.step()?;
        state.find(from)?;
        state.name(NameOp::Rename(name_of(from).into(), name_of(to).into()));
        Ok(())
    }

    fn remove(&self, file: &Path) -> io::Result<()> {
        let mut state = self.0.lock();
        state.step()?;
        state.find(file)?;
        state.name(NameOp::Remove(name_of(file).into()));
        Ok(())
    }

    fn truncate(&self, file: &Path, len: u64) -> io::Result<()> {
        let mut random = self.random();
        let mut state = self.0.lock();
        state.step()?;
        let inode = state.find(file)?;
        state.inodes[inode].truncate(len as usize);
        // Shortened in the system's memory; the second step makes it durable.
        state.step()?;
        state.sync(inode, &mut random)
    }

    fn allocated(&self, file: &Path) -> io::Result<u64> {
        let state = self.0.lock();
        Ok(state.inodes[state.find(file)?].len as u64)
    }

    fn space(&self, _: &Path) -> io::Result<Space> {
        let size = 1 << 40;
        Ok(Space { free: if self.0.lock().faults.full { 0 } else { size }, size })
    }

    fn sync_file(&self, file: &Path) -> io::Result<()> {
        let mut random = self.random();
        let mut state = self.0.lock();
        state.step()?;
        let inode = state.find(file)?;
        state.sync_log(inode, &mut random)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        let mut state = self.0.lock();
        state.step()?;
        let State { durable, pending, .. } = &mut *state;
        // The journal of a file system is written in order: what came before goes along.
        if let Some(last) = pending.iter().rposition(|op| op.dir() == name_of(dir)) {
            for op in pending.drain(..=last) {
                op.apply(durable);
            }
        }
        Ok(())
    }
}

struct Open {
    disk: SimDisk,
    inode: usize,
    position: usize,
}

impl ReadFile for Open {
    fn len(&self) -> u64 {
        self.disk.0.lock().inodes[self.inode].len as u64
    }

    fn read_at(&mut self, offset: u64, into: &mut [u8]) -> io::Result<usize> {
        let state = self.disk.0.lock();
        let Inode { bytes, len, unreadable, .. } = &state.inodes[self.inode];
        let start = (offset as usize).min(*len);
        let count = into.len().min(len - start);
        if unreadable.range(start / SECTOR..(start + count).div_ceil(SECTOR)).next().is_some() {
            return Err(io::Error::from_raw_os_error(libc::EIO));
        }
        let written = &bytes[start.min(bytes.len())..(start + count).min(bytes.len())];
        into[..written.len()].copy_from_slice(written);
        into[written.len()..count].fill(0);
        Ok(count)
    }
}

impl WriteFile for Open {
    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        let mut state = self.disk.0.lock();
        state.step_of_write(self.inode, self.position, bytes)?;
        state.room()?;
        state.inodes[self.inode].write(self.position, bytes);
        self.position += bytes.len();
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        let mut random = self.disk.random();
        let mut state = self.disk.0.lock();
        state.step()?;
        state.sync(self.inode, &mut random)
    }
}

impl SegmentFile for Open {
    fn cut(self: Box<Self>, len: u64) -> io::Result<()> {
        let mut state = self.disk.0.lock();
        state.step()?;
        state.inodes[self.inode].truncate(len as usize);
        Ok(())
    }

    fn len(&self) -> u64 {
        ReadFile::len(self)
    }

    fn grow(&mut self, len: u64) -> io::Result<()> {
        let mut state = self.disk.0.lock();
        state.step()?;
        state.room()?;
        let inode = &mut state.inodes[self.inode];
        inode.len = inode.len.max(len as usize);
        Ok(())
    }

    fn write(&mut self, offset: u64, first: &[u8], rest: &[&[u8]]) -> io::Result<()> {
        let mut state = self.disk.0.lock();
        let mut at = offset as usize + first.len();
        let mut parts = Vec::new();
        for part in rest {
            parts.push((at, *part));
            at += part.len();
        }
        parts.push((offset as usize, first));
        for (at, part) in parts {
            // A process that is gone stores nothing.
            if state.step_of_write(self.inode, at, part).is_err() {
                return Ok(());
            }
            if state.faults.copies {
                state.room()?;
            }
            state.inodes[self.inode].write(at, part);
        }
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        let mut random = self.disk.random();
        let mut state = self.disk.0.lock();
        state.step()?;
        state.sync_log(self.inode, &mut random)
    }
}
