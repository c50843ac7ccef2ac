//! What goes wrong, and when.

use super::history::Asked;
use super::network::Port;
use super::world::World;
use super::{BadSector, DiskFaults, Random, SimDisk};
use crate::ensemble::{Ensemble, Role};
use crate::model::{Debt, ServerId};
use crate::replica::{Mode, Replica};
use crate::storage::Disk;
use std::path::Path;

/// Snapshots that a purge leaves, as a server does with its default.
const PURGE_KEEPS: usize = 3;
/// Looks per second: rates are in thousandths of a second's chance.
const LOOKS: u64 = 50;

#[derive(Debug)]
pub struct Faults {
    pub are_on: bool,
    pub partition_number: u64,
    pub wanted_reconfig: Option<Asked>,
    pub has_reconfigured: bool,
    pub count: u64,
    pub removed: u64,
}

impl Default for Faults {
    fn default() -> Self {
        Self {
            are_on: true,
            partition_number: 0,
            wanted_reconfig: None,
            has_reconfigured: false,
            count: 0,
            removed: 0,
        }
    }
}

/// An offset in the body of a log's first record.
const IN_FIRST_RECORD: usize = 40;

/// What may happen to a file while its server is down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Harm {
    Sector(BadSector),
    Lost,
    Emptied,
    Flipped,
    /// A bit of the first record, where others follow.
    FirstRecord,
}

impl std::fmt::Display for Harm {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Sector(BadSector::Zeros) => "a sector is zeros in",
            Self::Sector(BadSector::Stale) => "a sector is an old one in",
            Self::Sector(BadSector::Misdirected) => "a sector is another one's in",
            Self::Sector(BadSector::Unreadable) => "a sector can't be read in",
            Self::Lost => "the disk has lost",
            Self::Emptied => "nothing is left in",
            Self::Flipped => "a bit flips in",
            Self::FirstRecord => "the first record is damaged in",
        })
    }
}

#[derive(Debug, Default)]
pub struct Partition {
    pub blocked: Vec<(usize, usize)>,
}

impl Faults {
    pub fn is_disk_fault(&self, disk: &SimDisk) -> bool {
        disk.faults() != DiskFaults::default() || disk.has_failed()
    }

    pub fn clear_disk(&self, disk: &SimDisk) {
        disk.set_faults(DiskFaults::default());
    }
}

fn strikes(rate: u64, random: &mut Random) -> bool {
    rate > 0 && random.below(1000 * LOOKS) < rate
}

impl World {
    pub(super) fn maybe_fail(&mut self) -> Result<(), String> {
        let rates = self.options.rates.clone();
        let hit = |rate: u64, world: &mut Self| {
            let hit = strikes(rate, &mut world.random);
            world.faults.count += u64::from(hit);
            hit
        };
        if hit(rates.kill, self) {
            self.end_one(false);
        }
        if hit(rates.power, self) {
            self.end_one(true);
        }
        if hit(rates.blackout, self) {
            self.say(|| "everybody loses power".into());
            for index in 0..self.nodes.len() {
                self.end(index, true);
                let delay = self.random.between(5_000, 200_000);
                self.boot_after(index, delay);
            }
        }
        if hit(rates.stop_at_op, self) {
            let index = self.target();
            let stop_after = Some(self.random.below(30));
            let disk = &self.nodes[index].disk;
            disk.set_faults(DiskFaults { stop_after, ..disk.faults() });
            self.say(|| format!("server {} ends at a step of its disk to come", index + 1));
        }
        if hit(rates.sync_error, self) {
            let index = self.target();
            let disk = &self.nodes[index].disk;
            disk.set_faults(DiskFaults { fail_sync: true, ..disk.faults() });
            self.say(|| format!("the next sync of server {} fails", index + 1));
        }
        if hit(rates.disk_full, self) {
            let index = self.target();
            let millis = *self.random.pick(&[20, 200, 1000, 3000]);
            let copies = self.random.permille(500);
            let disk = &self.nodes[index].disk;
            disk.set_faults(DiskFaults { full: true, copies, ..disk.faults() });
            self.say(|| format!("the disk of server {} is full for {millis} ms", index + 1));
            self.room_after(index, millis * 1000);
        }
        if hit(rates.hang, self) {
            let (index, millis) = (self.target(), self.random.between(10, 2000));
            self.say(|| format!("the disk of server {} hangs for {millis} ms", index + 1));
            self.nodes[index].disk_hangs_until = self.now + millis * 1000;
        }
        if hit(rates.pause, self) {
            let index = self.target();
            if self.nodes[index].process.is_some() && !self.nodes[index].paused {
                let millis = self.random.between(10, 2000);
                self.say(|| format!("server {} stands still for {millis} ms", index + 1));
                self.pause(index, millis);
            }
        }
        if hit(rates.partition, self) {
            let partition = self.draw_partition();
            self.part(partition);
        }
        if hit(rates.one_way, self) {
            let one = self.target();
            let other = self.random.below(self.nodes.len() as u64) as usize;
            if one != other {
                let blocked = if self.random.permille(500) { (one, other) } else { (other, one) };
                self.part(Partition { blocked: vec![blocked] });
            }
        }
        if hit(rates.cut, self) {
            self.cut_one(|port| port != Port::Client);
        }
        if hit(rates.cut_client, self) {
            self.cut_one(|port| port == Port::Client);
        }
        if hit(rates.wipe, self) {
            self.wipe_one();
        }
        if hit(rates.flip, self) {
            self.damage_one();
        }
        if hit(rates.reconfig, self) {
            self.draw_reconfig();
        }
        self.maybe_lie()
    }

    /// Disks that lie, files that are there again, and a purge. What is drawn here changes no other draw.
    fn maybe_lie(&mut self) -> Result<(), String> {
        let lies = self.options.rates.lies.clone();
        let hit = |rate: u64, world: &mut Self| {
            let hit = strikes(rate, &mut world.luck);
            world.faults.count += u64::from(hit);
            hit
        };
        for (rate, about_all) in [(lies.log, false), (lies.all, true)] {
            let index = self.any();
            if hit(rate, self) && self.nodes[index].process.is_some() && !self.nodes[index].disk.lies() {
                self.say(|| {
                    let what = if about_all { "everything" } else { "the log" };
                    format!("the disk of server {} begins to lie about {what}", index + 1)
                });
                self.nodes[index].disk.lie(about_all);
            }
        }
        let shown = self.nodes.iter().position(|node| node.disk.lies() && node.process.is_some());
        if let Some(index) = shown
            && hit(lies.end, self)
            && self.may_lose_lies(index)
        {
            self.say(|| format!("server {} loses power", index + 1));
            self.end(index, true);
            let delay = self.luck.between(500, 300_000);
            self.boot_after(index, delay);
        }
        if hit(lies.again, self) {
            self.bring_one_back();
        }
        if hit(lies.purge, self) {
            let index = self.any();
            if self.nodes[index].process.is_some() {
                self.say(|| format!("server {} purges", index + 1));
                // A fault of its disk shows elsewhere.
                let _ = self.purge(index, PURGE_KEEPS);
            }
        }
        Ok(())
    }

    fn any(&mut self) -> usize {
        self.luck.below(self.nodes.len() as u64) as usize
    }

    /// A server ends, and one of the files that it had removed is there again.
    fn bring_one_back(&mut self) {
        let index = self.any();
        let mut gone = self.nodes[index].disk.gone();
        if self.luck.permille(900) {
            gone.retain(|name| !name.contains("/tmp."));
        }
        if gone.is_empty() || !self.may_lose(index) {
            return;
        }
        // Rather one of those that went last.
        let from = if self.luck.permille(500) { gone.len().saturating_sub(5) } else { 0 };
        let name = self.luck.pick(&gone[from..]).clone();
        let power = self.luck.permille(500);
        self.end(index, power);
        self.nodes[index].disk.bring_back(&name);
        (self.nodes[index].owes, self.nodes[index].lost_log) = (true, true);
        self.nodes[index].held.clear();
        self.say(|| format!("{name} of server {} is there again", index + 1));
        let delay = self.luck.between(500, 300_000);
        self.boot_after(index, delay);
    }

    /// Whether what a disk lied about may be lost now. Of the log: a minority is concerned, and the server will notice. Of everything, it
    /// can't notice: others, who are a quorum, must have all that it had, and know of no other configuration.
    pub(super) fn may_lose_lies(&self, index: usize) -> bool {
        if !self.may_lose(index) {
            return false;
        }
        let own = self.nodes[index].promised;
        let has_all = |id: ServerId| {
            let other = id.0 as usize - 1;
            let node = &self.nodes[other];
            other != index
                && !node.disk.lies()
                && self.mode_of(other).has_leader()
                && node.promised.current >= own.current
                && node.promised.accepted >= own.accepted
                && node.promised.last >= own.last
        };
        self.nodes[index].disk.lies_about_the_log()
            || (!self.faults.has_reconfigured && self.configuration().has_quorum(has_all))
    }

    /// Often the leader: there it hurts most.
    fn target(&mut self) -> usize {
        let leads = |process: &super::node::Process| process.mode() == Mode::Leader;
        let leader = self.nodes.iter().position(|node| node.process.as_ref().is_some_and(leads));
        match leader {
            Some(leader) if self.random.permille(400) => leader,
            _ => self.random.below(self.nodes.len() as u64) as usize,
        }
    }

    /// Somebody has removed files.
    pub(super) fn make_room(&mut self, index: usize) {
        let disk = &self.nodes[index].disk;
        disk.set_faults(DiskFaults { full: false, copies: false, ..disk.faults() });
        self.say(|| format!("the disk of server {} has room again", index + 1));
    }

    fn end_one(&mut self, power: bool) {
        let index = self.target();
        if self.nodes[index].process.is_none() {
            return;
        }
        self.say(|| format!("server {} {}", index + 1, if power { "loses power" } else { "is killed" }));
        self.end(index, power);
        let delay = match self.random.below(3) {
            0 => self.random.between(500, 20_000),
            1 => self.random.between(20_000, 300_000),
            _ => self.random.between(300_000, 1_500_000),
        };
        if !power && self.random.permille(200) {
            // The machine fails a little later.
            self.lose_power(index, false);
        }
        self.boot_after(index, delay);
    }

    fn draw_partition(&mut self) -> Partition {
        let count = self.nodes.len();
        let mut blocked = Vec::new();
        match self.random.below(3) {
            // One alone.
            0 => {
                let one = self.target();
                for other in (0..count).filter(|other| *other != one) {
                    blocked.extend([(one, other), (other, one)]);
                }
            }
            // Two halves.
            1 => {
                let sides: Vec<bool> = (0..count).map(|_| self.random.permille(500)).collect();
                for one in 0..count {
                    blocked.extend(
                        (0..count).filter(|other| sides[one] != sides[*other]).map(|other| (one, other)),
                    );
                }
            }
            // Two that see each other through others alone.
            _ => {
                let one = self.target();
                let other = self.random.below(count as u64) as usize;
                blocked.extend([(one, other), (other, one)]);
            }
        }
        Partition { blocked }
    }

    fn part(&mut self, partition: Partition) {
        let millis = self.random.between(20, 1500);
        self.faults.partition_number += 1;
        self.say(|| {
            let ways: Vec<String> =
                partition.blocked.iter().map(|(from, to)| format!("{}→{}", from + 1, to + 1)).collect();
            format!("no way {} for {millis} ms", ways.join(" "))
        });
        self.apply_partition(partition, millis);
    }

    fn cut_one(&mut self, is: impl Fn(Port) -> bool) {
        let conns = self.network.open_conns(|port, _, _| is(port));
        if !conns.is_empty() {
            let key = *self.random.pick(&conns);
            self.say(|| format!("connection {key} breaks"));
            self.cut(key);
        }
    }

    /// Whether a server may lose its disk now: no other one owes anything, a minority is concerned, and it would not be
    /// one of a quorum that knows of no history: they would begin a new history, as nothing distinguishes them from a new ensemble.
    fn may_lose(&self, index: usize) -> bool {
        let others_whole = self
            .nodes
            .iter()
            .enumerate()
            .all(|(other, node)| other == index || (!node.owes && !node.damaged));
        // Who takes a snapshot has nothing until it has everything.
        let is_settled =
            |replica: &Replica| replica.view().pending().is_none() && replica.debt() == Debt::None;
        let all_are_settled = self.nodes.iter().all(|node| {
            let process = node.process.as_ref();
            process.and_then(|process| process.core.look(is_settled)).unwrap_or(false)
        });
        let config = self.configuration();
        let id = ServerId(index as i64 + 1);
        let is_new = |voter: ServerId| {
            let process = self.nodes[voter.0 as usize - 1].process.as_ref();
            process.and_then(|process| process.core.look(|replica| replica.is_new())).unwrap_or(true)
        };
        others_whole
            && all_are_settled
            && config.has_quorum(|voter| voter != id)
            && !config.has_quorum(|voter| voter == id || is_new(voter))
    }

    fn wipe_one(&mut self) {
        let index = self.random.below(self.nodes.len() as u64) as usize;
        if !self.may_lose(index) {
            return;
        }
        self.say(|| format!("server {} loses its disk", index + 1));
        self.end(index, true);
        self.wipe(index);
        let delay = self.random.between(1000, 500_000);
        self.boot_after(index, delay);
    }

    /// While a server is down, a bit of a file flips, a sector of the newest log goes bad, that log is gone, or an epoch.
    fn damage_one(&mut self) {
        let index = self.random.below(self.nodes.len() as u64) as usize;
        if !self.may_lose(index) {
            return;
        }
        let mut names = self.files_of(index);
        let mut epochs = names.clone();
        epochs.retain(|(name, _)| name == "acceptedEpoch" || name == "currentEpoch");
        names.retain(|(name, _)| name.starts_with("log.") || name.starts_with("snapshot."));
        if names.is_empty() {
            return;
        }
        self.end(index, false);
        let first = |name: &str| i64::from_str_radix(name.strip_prefix("log.")?, 16).ok();
        let newest = names.iter().filter_map(|(name, _)| Some((first(name)?, name.clone()))).max();
        let (harm, name) = match (self.random.below(5), newest) {
            (2, _) if !epochs.is_empty() => {
                let name = self.random.pick(&epochs).0.clone();
                (Harm::Emptied, name)
            }
            (0, Some((_, name))) => {
                let bad = *self.random.pick(&[
                    BadSector::Zeros,
                    BadSector::Stale,
                    BadSector::Misdirected,
                    BadSector::Unreadable,
                ]);
                (Harm::Sector(bad), name)
            }
            (1, Some((_, newest))) => {
                let older = self.random.permille(300).then(|| self.random.pick(&names).0.clone());
                (Harm::Lost, older.unwrap_or(newest))
            }
            _ => {
                let name = self.random.pick(&names).0.clone();
                (Harm::Flipped, name)
            }
        };
        self.harm(index, &name, harm);
        self.boot_after(index, 1000);
    }

    /// Names and lengths.
    pub(super) fn files_of(&self, index: usize) -> Vec<(String, u64)> {
        let dir = Path::new(super::node::DATA_DIR).join("version-2");
        self.nodes[index].disk.list(&dir).unwrap_or_default()
    }

    /// Something happens to a file of a server that is down.
    pub(super) fn harm(&mut self, index: usize, name: &str, harm: Harm) {
        let disk = self.nodes[index].disk.clone();
        let file = Path::new(super::node::DATA_DIR).join("version-2").join(name);
        match harm {
            Harm::Sector(bad) => disk.spoil_sector(&file, bad, &mut self.random),
            Harm::Lost => {
                disk.lose(&file);
                self.nodes[index].lost_log |= name.starts_with("log.");
            }
            Harm::Emptied => disk.put(&file, b""),
            Harm::Flipped => disk.flip(&file, &mut self.random),
            Harm::FirstRecord => disk.flip_at(&file, IN_FIRST_RECORD),
        }
        self.nodes[index].damaged = true;
        self.nodes[index].held.clear();
        self.nodes[index].owes = true;
        self.say(|| format!("{harm} {name} of server {}", index + 1));
    }

    fn draw_reconfig(&mut self) {
        let config: Ensemble = self.configuration();
        // Several at once: then quorums of the old and the new configuration need not meet.
        let changes = if self.random.permille(600) { 1 } else { self.random.between(2, 4) };
        let (mut joining, mut leaving) = (Vec::new(), Vec::new());
        for _ in 0..changes {
            let id = self.random.below(self.nodes.len() as u64) as i64 + 1;
            let role = config.member(ServerId(id)).map(|member| member.role);
            let mut join = |role: &str| joining.push(format!("server.{id}=s{id}:1:2:{role};1"));
            match role {
                Some(_) if self.random.permille(500) => leaving.push(id.to_string()),
                Some(Role::Participant) => join("observer"),
                Some(Role::Observer) => join("participant"),
                None => join(if self.random.permille(700) { "participant" } else { "observer" }),
            }
        }
        if self.options.handover_crash > 0 && self.random.permille(300) {
            let leads = |process: &super::node::Process| process.mode() == Mode::Leader;
            let leader = self.nodes.iter().position(|node| node.process.as_ref().is_some_and(leads));
            if let Some(leader) = leader {
                (joining, leaving) = (Vec::new(), vec![(leader + 1).to_string()]);
            }
        }
        let (joining, leaving) = (joining.join(","), leaving.join(","));
        self.say(|| format!("reconfiguration: joining {joining:?}, leaving {leaving:?}"));
        self.want_reconfig(joining, leaving);
    }
}
