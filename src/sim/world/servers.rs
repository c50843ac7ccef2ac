//! Servers: their starts and ends, their steps, and what comes of those.

use super::{Event, Node, Promised, Tells, World};
use crate::config::ConfigError;
use crate::core::Clock;
use crate::ensemble::Ensemble;
use crate::model::ServerId;
use crate::replica::{Mode, Now};
use crate::sim::model::{Change, LogFile, Txn};
use crate::sim::network::{Arrival, Chunk, Host, Port};
use crate::sim::node::{BootError, DATA_DIR, Effect, Incoming, Process, lay_out};
use crate::sim::observed::Files;
use crate::sim::{Options, trace};
use crate::storage::Disk;
use std::path::Path;
use std::sync::atomic::Ordering;

/// Microseconds until a dial that gets no answer is given up.
const DIAL_TIMEOUT_US: u64 = 300_000;
/// Of a thousand servers that end, how many hear before what no server says.
const OFTEN_EXTREME: u64 = 300;
/// Sessions that a leader ends of its own accord in one tick: a share, and a few that were left.
const MOST_ENDS: usize = 1100;

impl World {
    pub(in crate::sim) fn boot_after(&mut self, index: usize, delay: u64) {
        self.nodes[index].life += 1;
        let life = self.nodes[index].life;
        self.after(delay, Event::Boot(index, life));
    }

    pub(in crate::sim) fn room_after(&mut self, index: usize, delay: u64) {
        self.after(delay, Event::Room(index));
    }

    pub(super) fn boot(&mut self, index: usize) -> Result<(), String> {
        let now = self.now;
        let rate = self.nodes[index].rate;
        let clock = self.clock.clone();
        let clock: Clock = Box::new(move || {
            let micros = clock.load(Ordering::Relaxed) - now;
            let mono_ms = 1000 + micros * rate / 1_000_000;
            Now { mono_ms, wall_ms: 1_700_000_000_000 + (now / 1000 + mono_ms) as i64 }
        });
        let disk = self.nodes[index].disk.clone();
        let booted = Process::boot(&disk, &self.options, clock, &self.figures, &mut self.random);
        let refuses_us = match self.options.refuses_us {
            0 => 0,
            most => self.random.below(most + 1),
        };
        let node = &mut self.nodes[index];
        match booted {
            Ok(process) => {
                let process_promised = process.promised;
                node.opens_at = now + refuses_us;
                node.process = Some(process);
                node.booted_at = now;
                node.busy_until = now;
                node.running = false;
                node.tick_at = u64::MAX;
                node.boots += 1;
                node.promised = process_promised;
                self.say(|| format!("server {} starts", index + 1));
                let due = self.network.host_back(now, Host::Server(index), &mut self.random);
                self.due(due);
                self.set_tick(index);
                Ok(())
            }
            // A reconfiguration left it out. The operator who starts it all the same names it again, as an observer.
            Err(BootError::Config(ConfigError::NotOneOfThem { .. })) => {
                self.say(|| {
                    format!("server {} is left out; its file gets the lines of the others", index + 1)
                });
                let mut servers = String::new();
                let newest = self.newest_configuration();
                for member in newest.members() {
                    servers.push_str(&format!("server.{}={member}\n", member.id));
                }
                if newest.member(ServerId(index as i64 + 1)).is_none() {
                    servers.push_str(&own_line(index));
                }
                lay_out(&disk, index as i64 + 1, &servers, &self.options);
                self.boot_after(index, 1000);
                Ok(())
            }
            Err(_) if self.is_struck(index) => {
                self.crash(index);
                Ok(())
            }
            // The fault that was set for a running server strikes one that starts.
            Err(error) if disk.has_stopped() || self.faults.is_disk_fault(&disk) => {
                self.say(|| format!("server {} fails to start: {error}", index + 1));
                disk.process_ended();
                self.faults.clear_disk(&disk);
                self.boot_after(index, 50_000);
                Ok(())
            }
            Err(error) => Err(format!("recovery: server {} does not start: {error}", index + 1)),
        }
    }

    /// A new disk, with the files that an operator puts on it.
    pub(in crate::sim) fn wipe(&mut self, index: usize) {
        let disk = &self.nodes[index].disk;
        let kept: Vec<(std::path::PathBuf, Vec<u8>)> = [Path::new("/zabra"), Path::new(DATA_DIR)]
            .iter()
            .flat_map(|dir| disk.list(dir).unwrap_or_default().into_iter().map(|(name, _)| dir.join(name)))
            .filter(|path| !path.to_string_lossy().ends_with("Epoch"))
            .filter_map(|path| disk.read(&path).map(|bytes| (path, bytes)))
            .collect();
        disk.wipe();
        for (path, bytes) in kept {
            disk.put(&path, &bytes);
        }
        self.nodes[index].damaged = false;
        self.nodes[index].owes = true;
        self.nodes[index].held.clear();
        self.nodes[index].promised = Promised::default();
    }

    /// The machine loses power. `may_lose`: so it does what its disk has lied about.
    pub(in crate::sim) fn lose_power(&mut self, index: usize, may_lose: bool) {
        let node = &mut self.nodes[index];
        if !may_lose {
            node.disk.come_true();
        } else if node.disk.lies() {
            (node.owes, node.lost_log) = (true, true);
            node.held.clear();
            self.say(|| format!("the disk of server {} has lied", index + 1));
        }
        self.nodes[index].disk.power_failure(&mut self.random);
    }

    /// The process ends; `power`: so does the machine.
    pub(in crate::sim) fn end(&mut self, index: usize, power: bool) {
        let may_lose = power && self.nodes[index].disk.lies() && self.may_lose_lies(index);
        let node = &mut self.nodes[index];
        let Some(mut process) = node.process.take() else {
            // It was about to start.
            if power {
                self.lose_power(index, false);
            }
            return;
        };
        if self.chance.permille(OFTEN_EXTREME) && process.hear_extremes(&mut self.chance) {
            self.found = Some(format!("strangers: server {} was moved by one", index + 1));
        }
        // Who is killed tidies nothing up.
        node.disk.stop();
        drop(process);
        node.life += 1;
        node.paused = false;
        node.heard.clear();
        if power {
            self.lose_power(index, may_lose);
        } else {
            node.disk.process_ended();
        }
        let due = self.network.host_gone(self.now, Host::Server(index), power, &mut self.random);
        self.due(due);
    }

    pub(super) fn bring(&mut self, index: usize, life: u64, incoming: Incoming) {
        let node = &mut self.nodes[index];
        if node.life != life {
            return;
        }
        let Some(process) = &mut node.process else { return };
        process.push(incoming);
        self.wake(index);
    }

    fn wake(&mut self, index: usize) {
        let node = &mut self.nodes[index];
        if node.running || node.paused {
            return;
        }
        node.running = true;
        let (life, busy) = (node.life, node.busy_until.saturating_sub(self.now));
        let delay = (5 + self.random.below(20)).max(busy);
        self.after(delay, Event::Run(index, life));
    }

    pub(in crate::sim) fn resume(&mut self, index: usize) {
        let node = &mut self.nodes[index];
        node.paused = false;
        node.running = false;
        self.last_resume = self.now;
        self.say(|| format!("server {} goes on", index + 1));
        self.wake(index);
        self.set_tick(index);
    }

    pub(super) fn run_node(&mut self, index: usize, life: u64) -> Result<(), String> {
        let node = &mut self.nodes[index];
        if node.life != life || node.paused {
            return Ok(());
        }
        node.running = false;
        let Some(process) = &mut node.process else { return Ok(()) };
        let mut effects = Vec::new();
        if self.tells != Tells::Nothing {
            trace::enter(index, self.now);
        }
        let mode = process.mode();
        let waiting = if self.crowd.is_empty() { None } else { process.living() };
        let before = process.core.db.read().last_zxid.0;
        process.run(self.options.batch, &mut effects);
        let busy = self.options.amounts.cost.micros(process.take_work(before));
        node.busy_until = self.now + busy;
        if busy > self.options.tick_ms * 500 {
            // To others it stood still.
            self.last_resume = node.busy_until;
        }
        let ticks = std::mem::take(&mut process.ticks);
        let living = waiting.and_then(|_| process.living());
        let ends = living.map_or(0, |living| waiting.unwrap_or(0).saturating_sub(living));
        if ends > MOST_ENDS * ticks.max(1) {
            return Err(format!("hold: server {} ends {ends} sessions at once", index + 1));
        }
        let mut ended = Vec::new();
        let reads = std::mem::take(&mut process.reads);
        for (zxid, body) in std::mem::take(&mut process.appended) {
            ended.extend(expired(&body).filter(|_| mode == Mode::Leader));
            self.observed.appended(index, zxid, body)?;
        }
        ended.into_iter().try_for_each(|session| self.check_expiry(index, session))?;
        let node = &mut self.nodes[index];
        let Some(process) = &mut node.process else { return Ok(()) };
        node.held.extend(process.logged.drain(..));
        node.promised = process.promised;
        let stopped = node.disk.has_stopped().then(|| "the step of its disk".to_string());
        let failed = process.failed.take().or(stopped);
        if let Some(wrong) = process.wrong.take() {
            return Err(format!("conversation: server {}: {wrong}", index + 1));
        }
        if let Some(why) = process.refused.lock().take() {
            return Err(format!("server {} would lose what was committed, and ends: {why}", index + 1));
        }
        if process.has_work() {
            self.wake(index);
        }
        reads.into_iter().try_for_each(|(mode, zxid)| self.check_fresh(index, mode, zxid))?;
        self.observe(index, mode.has_leader())?;
        if self.is_calm && mode.has_leader() && !self.mode_of(index).has_leader() {
            return Err(format!("calm: server {} lost its leader", index + 1));
        }
        if mode == Mode::Leader {
            self.check_log(index)?;
            self.maybe_crash_removed(index);
        }
        for effect in effects {
            self.carry_out(index, life, busy, effect);
        }
        if self.is_struck(index) {
            self.crash(index);
            return Ok(());
        }
        if let Some(why) = failed {
            self.say(|| format!("server {} ends itself: {why}", index + 1));
            self.faults.clear_disk(&self.nodes[index].disk.clone());
            self.end(index, false);
            let delay = self.random.between(1000, 300_000);
            self.boot_after(index, delay);
            return Ok(());
        }
        self.set_tick(index);
        Ok(())
    }

    /// A leader ends no session that was heard within its timeout: by itself, or by a server that follows it and has told it since.
    fn check_expiry(&self, leader: usize, session: i64) -> Result<(), String> {
        let mut clients = self.clients.iter().chain(self.crowd.of(session));
        let client = clients.find(|client| client.session == session && !client.has_closed(session));
        let Some((client, conn)) = client.and_then(|client| Some((client, client.conn?))) else {
            return Ok(());
        };
        let heard = |(index, node): (usize, &Node)| Some((index, *node.heard.get(&conn)?));
        let Some((home, heard)) = self.nodes.iter().enumerate().find_map(heard) else { return Ok(()) };
        let (Some(process), Some(there)) = (&self.nodes[leader].process, &self.nodes[home].process) else {
            return Ok(());
        };
        let Options { tick_ms, sync_limit, latency, amounts, .. } = &self.options;
        // Where work costs time, what a client said may wait, and is not heard yet.
        if !amounts.cost.is_none() || client.seen() > process.core.db.read().last_zxid.0 {
            return Ok(());
        }
        let timeout = self.options.session_ms as u64 * 1000 / self.nodes[leader].rate;
        // What came last may not have been looked at yet; nor told, by a server whose word comes in time to be followed.
        let mut unknown = 2 * tick_ms;
        if home != leader {
            let id = ServerId(leader as i64 + 1);
            let follows = there.mode().has_leader() && there.core.with_status(|it| it.leader == Some(id));
            let had_paused = self.last_resume + 2000 * timeout > self.now;
            if !follows || !there.has_client(conn) || !client.is_open() || had_paused {
                return Ok(());
            }
            if amounts.wire_ns > 0 {
                return Ok(());
            }
            unknown += (sync_limit + 2) * tick_ms + 3 * (latency.1 + self.options.spike) / 1000;
        }
        let silent = (self.now - heard) / 1000;
        if !(unknown..timeout.saturating_sub(2)).contains(&silent) {
            return Ok(());
        }
        Err(format!(
            "sessions: server {} ends session {session:#x}, of which server {} heard {silent} ms ago",
            leader + 1,
            home + 1
        ))
    }

    /// No read is older than the lease allows: a leader answers from what was committed up to `syncLimit` ago. A learner does not
    /// know when its leader sent what it hears, nor when that one heard a quorum last: each of these may take that long.
    fn check_fresh(&self, index: usize, mode: Mode, zxid: i64) -> Result<(), String> {
        let limit = self.options.sync_limit * self.options.tick_ms;
        let lease_ms = match mode {
            Mode::Leader => limit + 2,
            Mode::Follower | Mode::Observer => 5 * limit,
            Mode::ReadOnly | Mode::NotServing | Mode::Standalone => return Ok(()),
        };
        let since = self.now.saturating_sub(lease_ms * 1_000_000 / self.nodes[index].rate);
        let had_paused = mode != Mode::Leader && self.last_resume > since;
        let known = self.observed.stood_before(since);
        if zxid >= known || had_paused {
            return Ok(());
        }
        Err(format!(
            "lease: server {} ({mode:?}) answered a read at {zxid:#x}, where others had come to {known:#x} {lease_ms} ms before",
            index + 1
        ))
    }

    /// A leader whose log hangs gives the others the lead.
    fn check_log(&self, index: usize) -> Result<(), String> {
        let Some(process) = &self.nodes[index].process else { return Ok(()) };
        let id = ServerId(index as i64 + 1);
        let others_can = process.core.look(|replica| replica.view().has_quorum(|other| other != id));
        let most = (self.options.sync_limit + 2) * self.options.tick_ms;
        let since =
            process.writes_since.filter(|_| process.mode() == Mode::Leader && others_can == Some(true));
        let waited = since.map_or(0, |since| process.core.now().mono_ms - since);
        if waited <= most || self.now < self.last_resume + most * 1000 {
            return Ok(());
        }
        Err(format!("disk: server {} leads, and its log has hung for {waited} ms", index + 1))
    }

    /// A leader that has just committed its own removal, and answered, may crash before others know.
    fn maybe_crash_removed(&mut self, index: usize) {
        let often = self.options.handover_crash;
        let Some(process) = self.nodes[index].process.as_ref().filter(|_| often > 0) else { return };
        let id = ServerId(index as i64 + 1);
        let is_removed = process.core.with_status(|status| {
            status.leader.is_none()
                && Ensemble::parse(&status.config).is_ok_and(|config| !config.is_voter(id))
        });
        if is_removed && self.faults.are_on && self.random.permille(often) {
            let (life, delay) = (self.nodes[index].life, self.random.below(10_000));
            self.after(delay, Event::Crash(index, life));
        }
    }

    pub(super) fn crash_removed(&mut self, index: usize) {
        let power = self.random.permille(500);
        self.say(|| format!("server {}, which was removed as it led, crashes", index + 1));
        self.faults.count += 1;
        self.faults.removed += 1;
        self.end(index, power);
        let delay = self.random.between(1000, 1_000_000);
        self.boot_after(index, delay);
    }

    /// Looks at what a server has applied, where that is committed: it serves, or it did before the step that ended its
    /// term. A leader that commits its own removal, and who hears of that, ends its term in the very step.
    fn observe(&mut self, index: usize, had_leader: bool) -> Result<(), String> {
        let node = &mut self.nodes[index];
        let Some(process) = &node.process else { return Ok(()) };
        let serves = process.mode().has_leader();
        // In a new term it applies what is in its log, and may not be committed.
        let has_just_ended = || had_leader && process.core.with_status(|status| status.leader.is_none());
        if !(serves || has_just_ended()) {
            return Ok(());
        }
        if serves {
            node.owes = false;
        }
        let disk = &node.disk;
        let files = || {
            let dir = Path::new(DATA_DIR).join("version-2");
            let names = disk.list(&dir).unwrap_or_default();
            let of_kind = |kind: &'static str| {
                names.iter().filter_map(move |(name, _)| Some((name, name.strip_prefix(kind)?)))
            };
            let logs = of_kind("log.").filter_map(|(name, _)| disk.read(&dir.join(name)));
            let snapshots = of_kind("snapshot.").filter_map(|(_, hex)| i64::from_str_radix(hex, 16).ok());
            Files {
                logs: logs.map(|bytes| LogFile::read(&bytes)).collect(),
                snapshots: snapshots.collect(),
                lost_log: node.lost_log,
            }
        };
        self.observed.look(self.now, index, node.life, process, &files, &mut node.spoilt_at)
    }

    /// Queues the next tick where it comes before the one that is queued.
    fn set_tick(&mut self, index: usize) {
        let node = &mut self.nodes[index];
        let Some(process) = &node.process else { return };
        let after = process.next_tick().saturating_sub(1000);
        let at = (node.booted_at + (after * 1_000_000).div_ceil(node.rate)).max(self.now + 1);
        if node.tick_at > at || node.tick_at <= self.now {
            node.tick_at = at;
            let life = node.life;
            self.at(at, Event::Incoming(index, life, Incoming::Tick));
        }
    }

    /// Does what a server wants done that has been at it for `busy` microseconds.
    fn carry_out(&mut self, index: usize, life: u64, busy: u64, effect: Effect) {
        let (host, now) = (Host::Server(index), self.now + busy);
        match effect {
            Effect::Send(key, bytes) => {
                let queued = self.network.queued(key, host) + bytes.len();
                let most = self.options.most_under_way();
                if queued > most
                    && let Some(process) = self.nodes[index].process.as_mut().filter(|it| it.has_window(key))
                {
                    process.wrong =
                        Some(format!("window: {queued} bytes are under way on link {key}, {most} may be"));
                }
                let due = self.network.send(now, key, host, Chunk::Bytes(bytes), &mut self.random);
                self.due(due);
            }
            Effect::Close(key) => {
                let resets = self.options.resets;
                // It does so where something came that nobody reads any more.
                let process = self.nodes[index].process.as_ref();
                let is_unread = resets > 0
                    && (self.network.is_sent_to(key, host)
                        || process.is_some_and(|process| process.has_unread(key)));
                let due = if is_unread && self.random.permille(resets) {
                    self.network.reset(now, key, host, &mut self.random)
                } else {
                    self.network.send(now, key, host, Chunk::End, &mut self.random)
                };
                self.due(due);
            }
            Effect::Dial { port, to } => {
                let delay = busy + self.network.delay(&mut self.random);
                self.after(delay, Event::Dial { from: index, life, port, to });
            }
            Effect::Later { disk, bytes, incoming } => {
                let (low, high) = if disk { self.options.disk_latency } else { (1, 20) };
                let spike = if disk && self.options.spike > 0 && self.random.permille(5) {
                    self.random.below(self.options.spike)
                } else {
                    0
                };
                let moves = bytes as u64 * self.options.amounts.disk_ns / 1000;
                let delay = busy + self.random.between(low, high) + spike + moves;
                self.after(delay, Event::Incoming(index, life, incoming));
            }
        }
    }

    pub(super) fn dial(&mut self, from: usize, life: u64, port: Port, to: ServerId) {
        if self.nodes[from].life != life {
            return;
        }
        let failed = || Incoming::DialFailed { port, to };
        let index = usize::try_from(to.0)
            .ok()
            .and_then(|id| id.checked_sub(1))
            .filter(|index| *index < self.nodes.len());
        let Some(index) = index else { return self.bring(from, life, failed()) };
        let (me, other) = (Host::Server(from), Host::Server(index));
        let blocked = self.network.is_blocked(me, other) || self.network.is_blocked(other, me);
        if blocked {
            return self.after(DIAL_TIMEOUT_US, Event::DialTimeout { from, life, port, to });
        }
        if !self.nodes[index].takes(port, self.now) {
            return self.bring(from, life, failed());
        }
        let key = self.network.open(port, me, other);
        let accepting = self.nodes[index].life;
        self.bring(index, accepting, Incoming::Accepted(port, key));
        self.bring(from, life, Incoming::Dialed { port, to, conn: key });
    }

    pub(super) fn arrive(&mut self, key: u64, side: usize) -> Result<(), String> {
        let Some(arrival) = self.network.arrive(self.now, key, side) else { return Ok(()) };
        let Arrival { from, to, from_dialer, port, chunk } = arrival;
        if self.tells == Tells::Packets {
            self.say(|| trace::packet(key, from, to, port, from_dialer, &chunk));
        }
        match to {
            Host::Server(index) => {
                let life = self.nodes[index].life;
                if let (Port::Quorum, false, Chunk::Bytes(bytes)) = (port, from_dialer, &chunk)
                    && let Some(way) = trace::way(bytes)
                {
                    self.ways.insert(index, way);
                }
                if matches!(chunk, Chunk::Reset)
                    && self.random.permille(500)
                    && let Some(process) = &mut self.nodes[index].process
                {
                    process.forget_unread(key);
                }
                if port == Port::Client {
                    self.nodes[index].heard.insert(key, self.now);
                }
                let incoming = match chunk {
                    Chunk::Bytes(bytes) => Incoming::Bytes(port, key, bytes),
                    Chunk::End | Chunk::Reset => Incoming::Closed(port, key),
                };
                self.bring(index, life, incoming);
                Ok(())
            }
            Host::Client(index) => self.client_hears(index, key, chunk),
            Host::Crowd(index) => self.crowd_hears(index, key, chunk),
            // They knew already what they are sent.
            Host::Stranger(_) => Ok(()),
        }
    }

    pub(in crate::sim) fn pause(&mut self, index: usize, millis: u64) {
        self.nodes[index].paused = true;
        let life = self.nodes[index].life;
        self.after(millis * 1000, Event::Resume(index, life));
    }

    /// The newest that a running server or a file tells.
    fn newest_configuration(&self) -> Ensemble {
        let mut newest = self.configuration();
        for node in &self.nodes {
            for (name, _) in node.disk.list(Path::new("/zabra")).unwrap_or_default() {
                let hex = name.strip_prefix("zoo.cfg.dynamic.");
                let version = hex.and_then(|hex| i64::from_str_radix(hex, 16).ok());
                let Some(version) = version.filter(|version| *version > newest.version()) else { continue };
                let text = node.disk.read(&Path::new("/zabra").join(&name)).unwrap_or_default();
                if let Ok(config) = Ensemble::parse(&String::from_utf8_lossy(&text)) {
                    newest = config.with_version(version);
                }
            }
        }
        newest
    }
}

/// The session that a leader ends by itself, where this transaction is such an end.
fn expired(body: &[u8]) -> Option<i64> {
    let txn = Txn::read(body).ok()?;
    (matches!(txn.change, Change::CloseSession { .. }) && txn.cxid == 0).then_some(txn.session)
}

/// How a server names itself that is in no configuration yet.
pub(super) fn own_line(index: usize) -> String {
    let id = index + 1;
    format!("server.{id}=s{id}:1:2:observer\n")
}
