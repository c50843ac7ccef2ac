//! How a run may begin: nothing is broken, all servers are started together, and have to serve within a second. They may
//! come back to what operators leave them: a wiped majority, a backup's snapshot alone, one server that became three.

use super::{Node, World};
use crate::core::write_snapshot_of;
use crate::sim::client::Client;
use crate::sim::node::{DATA_DIR, Process, lay_out};
use crate::sim::observed::SPOILT;
use crate::sim::options::{Before, Opening};
use crate::storage::{Dirs, Disk};
use bytes::Bytes;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

/// Milliseconds that servers have to serve in, from the moment at which the last port opens. A first election may split: a
/// server whose dials were refused brings a better vote while others have begun to follow. Then there is a second one.
const START_MS: u64 = 1000;
/// Milliseconds by which servers with data may come before the empty ones have waited long enough, and still be late.
const CLOSE_MS: u64 = 100;
/// Milliseconds in which a first history comes about. A lone client whose connection ends may try ten servers that are
/// not there before it finds the one that is.
const HISTORY_MS: u64 = 30_000;
/// Transactions that it has at the least.
const HISTORY: usize = 4;
/// Milliseconds in which a tree that differs is replaced, while clients write.
const HEALED_MS: u64 = 10_000;

impl World {
    /// The first starts. They end with all servers serving, and nothing but what clients were told is known of the history.
    pub(super) fn open(&mut self, opening: &Opening) -> Result<(), String> {
        self.begin_clients();
        self.quiet(true);
        let voters = self.options.voters;
        if opening.before == Before::Nothing {
            self.quiet(!opening.busy);
            self.start_all(opening, &[], opening.absent)?;
            return Ok(());
        }
        let one = self.random.below(voters as u64) as usize;
        if opening.before == Before::Alone {
            self.lay_out_alone(one);
            self.boot_after(one, 0);
        } else {
            self.start_all(&Opening { late_ms: 0, ..opening.clone() }, &[], false)?;
        }
        self.write_history()?;
        let with_data = self.rearrange(opening.before, one)?;
        self.quiet(!opening.busy || opening.late_ms > 0);
        self.start_all(opening, &with_data, opening.absent)
    }

    fn quiet(&mut self, on: bool) {
        self.clients.iter_mut().for_each(|client| client.is_quiet = on);
    }

    /// Only this server is there, and its file names no other.
    fn lay_out_alone(&mut self, one: usize) {
        lay_out(&self.nodes[one].disk, one as i64 + 1, "", &self.options);
    }

    fn write_history(&mut self) -> Result<(), String> {
        self.quiet(false);
        let wanted = self.observed.committed.len() + HISTORY;
        if !self.comes_to(HISTORY_MS, |world| world.observed.committed.len() >= wanted)? {
            return Err("liveness: clients write nothing where nothing is broken".into());
        }
        self.quiet(true);
        fn processes(world: &World) -> impl Iterator<Item = &Process> {
            world.nodes.iter().filter_map(|node| node.process.as_ref())
        }
        let are_even = |world: &Self| {
            let mut at = processes(world).map(|process| process.core.db.read().last_zxid);
            let first = at.next();
            world.clients.iter().all(Client::is_idle)
                && at.all(|zxid| Some(zxid) == first)
                && processes(world).all(|process| !process.uses_disk())
        };
        if !self.comes_to(HISTORY_MS, are_even)? {
            return Err("liveness: servers do not come even where nothing is broken".into());
        }
        Ok(())
    }

    /// All servers end, and their disks become what `before` says. Returns those that still have the history.
    fn rearrange(&mut self, before: Before, one: usize) -> Result<Vec<usize>, String> {
        if before == Before::Restored {
            self.back_up(one)?;
        }
        for index in 0..self.nodes.len() {
            let power = self.random.permille(300);
            self.end(index, power);
        }
        let voters = self.options.voters;
        let with_data: Vec<usize> = match before {
            Before::Nothing => Vec::new(),
            Before::Whole => (0..self.nodes.len()).collect(),
            // A minority, whoever it is.
            Before::Wiped => {
                let kept = self.random.between(1, (voters as u64 - 1) / 2) as usize;
                (0..kept).map(|next| (one + next) % voters).collect()
            }
            Before::Restored | Before::Alone => vec![one],
        };
        self.say(|| {
            let ids: Vec<String> = with_data.iter().map(|index| (index + 1).to_string()).collect();
            format!("{before:?}: servers with data: {}", ids.join(" "))
        });
        if before != Before::Whole {
            self.observed.forget_epochs();
        }
        for index in 0..self.nodes.len() {
            if !with_data.contains(&index) {
                self.wipe(index);
                self.nodes[index].owes = false;
            }
        }
        match before {
            Before::Restored => self.restore_backup(one),
            Before::Alone => {
                let servers = self.servers_text.clone();
                lay_out(&self.nodes[one].disk, one as i64 + 1, &servers, &self.options);
            }
            Before::Nothing | Before::Whole | Before::Wiped => {}
        }
        Ok(with_data)
    }

    /// A snapshot of everything, as an operator takes one away.
    pub(in crate::sim) fn back_up(&mut self, index: usize) -> Result<(), String> {
        let process = self.nodes[index].process.as_ref().ok_or("it is down")?;
        let disk: Arc<dyn Disk> = Arc::new(self.nodes[index].disk.clone());
        let dirs = Dirs::new(Path::new(DATA_DIR), Path::new(DATA_DIR));
        write_snapshot_of(&mut process.core.db.write(), &disk, &dirs)
            .map(drop)
            .map_err(|error| format!("a backup: {error}"))
    }

    /// Nothing but the newest snapshot is left.
    pub(in crate::sim) fn restore_backup(&mut self, index: usize) {
        let disk = self.nodes[index].disk.clone();
        let dir = Path::new(DATA_DIR).join("version-2");
        let names = disk.list(&dir).unwrap_or_default();
        let zxid = |name: &str| i64::from_str_radix(name.strip_prefix("snapshot.")?, 16).ok();
        let newest = names.iter().filter_map(|(name, _)| Some((zxid(name)?, name))).max();
        let Some((_, name)) = newest else { return };
        let path = dir.join(name);
        let bytes = disk.read(&path).unwrap_or_default();
        self.wipe(index);
        self.nodes[index].owes = false;
        self.nodes[index].disk.put(&path, &bytes);
    }

    /// One server's tree comes to differ, with everything right on its disk. The next transaction's digest tells: it serves
    /// nobody any more until it has the ensemble's tree; where it leads, it steps down.
    pub(super) fn spoil(&mut self) -> Result<(), String> {
        // A leader would hand its tree on to who joins now: until the next transaction nobody knows.
        let all_follow = |world: &Self| (0..world.nodes.len()).all(|index| world.mode_of(index).has_leader());
        if !self.comes_to(HEALED_MS, all_follow)? {
            return Err(format!("liveness: not all follow where nothing is broken: {:?}", self.modes()));
        }
        self.say(|| "a tree comes to differ".into());
        let index = self.random.below(self.options.voters as u64) as usize;
        self.spoil_tree(index)?;
        // What failed changed no tree, and has no digest.
        let acked = |world: &Self| world.clients.iter().map(|client| client.acked).sum::<usize>();
        let wanted = acked(self) + HISTORY;
        let is_good = |node: &Node| {
            let process = node.process.as_ref()?;
            let db = process.core.db.read();
            let data = db.tree.find(SPOILT).and_then(|id| db.tree.data(id));
            Some((db.last_zxid, db.tree.digest())).filter(|_| data != Some(SPOILT))
        };
        let are_good = |world: &Self| {
            let all = &world.nodes[..world.options.voters + world.options.observers];
            let first = is_good(&all[0]);
            let serve = (0..all.len()).all(|index| world.mode_of(index).has_leader());
            serve && first.is_some() && all.iter().all(|node| is_good(node) == first)
        };
        let wrote = self.comes_to(HEALED_MS, |world| acked(world) >= wanted)?;
        self.quiet(true);
        if !wrote || !self.comes_to(HEALED_MS, are_good)? {
            return Err(format!("spoilt: server {} is not mended: {:?}", index + 1, self.modes()));
        }
        self.say(|| "it is mended".into());
        self.quiet(false);
        Ok(())
    }

    /// This server's tree comes to differ from all others'.
    pub(in crate::sim) fn spoil_tree(&mut self, index: usize) -> Result<(), String> {
        let node = &mut self.nodes[index];
        let Some(process) = &node.process else { return Ok(()) };
        let mut db = process.core.db.write();
        let at = db.last_zxid.0;
        let spoilt = db.tree.set_data(&Bytes::from_static(SPOILT), Some(SPOILT), 1, at, 0, &mut Vec::new());
        node.spoilt_at = Some(at);
        spoilt.map(drop).map_err(|error| format!("{error:?}"))
    }

    /// Starts all servers, those in `late` later, and perhaps one voter not at all: the others serve in time.
    fn start_all(&mut self, opening: &Opening, late: &[usize], absent: bool) -> Result<(), String> {
        let absent = absent.then(|| self.random.below(self.options.voters as u64) as usize);
        let mut last = 0;
        for index in 0..self.nodes.len() {
            if Some(index) == absent {
                continue;
            }
            let mut delay = self.random.below(opening.spread_us + 1);
            if late.contains(&index) {
                delay += opening.late_ms * 1000;
            }
            self.boot_after(index, delay);
            last = last.max(delay);
        }
        let open = self.now + last + self.options.refuses_us;
        // Servers without data wait for those that may have some.
        let waits_ms = if late.is_empty() { 0 } else { opening.late_ms.min(self.options.empty_wait_ms) };
        let wait_ends = self.now + waits_ms * 1000;
        while self.now < open {
            self.step()?;
            if self.now < wait_ends
                && let Some(index) = (0..self.nodes.len()).find(|index| self.mode_of(*index).has_leader())
            {
                return Err(format!("start: server {} serves before one with data is up", index + 1));
            }
        }
        self.say(|| "all ports are open".into());
        let voters = self.options.voters;
        let serve = |world: &Self, members: Range<usize>| {
            let serves = |index| Some(index) == absent || world.mode_of(index).has_leader();
            members.into_iter().all(serves)
        };
        // Nobody tells an observer that an election is over: it asks again after an interval, and then has to follow.
        let all = voters + self.options.observers;
        // Where empty servers have waited long enough they elect one of them, and it may take a term of discovery until
        // those with data lead.
        let overtaken = opening.late_ms > 0
            && opening.late_ms + opening.spread_us / 1000 + CLOSE_MS >= self.options.empty_wait_ms;
        let patience = START_MS + if overtaken { self.options.init_ms() } else { 0 };
        if !self.comes_to(patience, |world| serve(world, 0..voters))?
            || !self.comes_to(self.options.pace.2 + START_MS, |world| serve(world, 0..all))?
        {
            let modes = self.modes();
            return Err(format!("start: not all serve {patience} ms after the last port opened: {modes:?}"));
        }
        self.say(|| "all serve".into());
        self.quiet(false);
        if let Some(index) = absent {
            self.boot_after(index, 0);
        }
        Ok(())
    }
}
