//! Servers: their starts and ends, their steps, and what comes of those.

use super::{Event, Tells, World};
use crate::config::ConfigError;
use crate::core::Clock;
use crate::ensemble::Ensemble;
use crate::model::ServerId;
use crate::replica::{Mode, Now};
use crate::sim::model::{Change, LogFile, Txn};
use crate::sim::network::{Arrival, Chunk, Host, Port};
use crate::sim::node::{BootError, DATA_DIR, Effect, Incoming, Process, lay_out};
use crate::sim::observed::Files;
use crate::sim::trace;
use crate::storage::{Disk, StorageError};
use std::path::Path;
use std::sync::atomic::Ordering;

/// Microseconds until a dial that gets no answer is given up.
const DIAL_TIMEOUT_US: u64 = 300_000;

impl World {
    pub(in crate::sim) fn boot_after(&mut self, index: usize, delay: u64) {
        self.nodes[index].life += 1;
        let life = self.nodes[index].life;
        self.after(delay, Event::Boot(index, life));
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
                node.opens_at = now + refuses_us;
                node.process = Some(process);
                node.booted_at = now;
                node.running = false;
                node.tick_at = u64::MAX;
                node.boots += 1;
                self.say(|| format!("server {} starts", index + 1));
                let due = self.network.host_back(now, Host::Server(index), &mut self.random);
                self.due(due);
                self.set_tick(index);
                Ok(())
            }
            Err(BootError::Storage(StorageError::Damaged { .. })) if node.flipped => {
                self.say(|| {
                    format!("server {} refuses to start, as it should: it gets a new disk", index + 1)
                });
                self.wipe(index);
                self.boot_after(index, 1000);
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
            .filter(|path| !path.ends_with("acceptedEpoch") && !path.ends_with("currentEpoch"))
            .filter_map(|path| disk.read(&path).map(|bytes| (path, bytes)))
            .collect();
        disk.wipe();
        for (path, bytes) in kept {
            disk.put(&path, &bytes);
        }
        self.nodes[index].flipped = false;
        self.nodes[index].owes = true;
        self.nodes[index].held.clear();
    }

    /// The process ends; `power`: so does the machine.
    pub(in crate::sim) fn end(&mut self, index: usize, power: bool) {
        let node = &mut self.nodes[index];
        if node.process.take().is_none() {
            // It was about to start.
            if power {
                node.disk.power_failure(&mut self.random);
            }
            return;
        }
        node.life += 1;
        node.paused = false;
        node.heard.clear();
        if power {
            node.disk.power_failure(&mut self.random);
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
        let (life, delay) = (node.life, 5 + self.random.below(20));
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
        process.run(self.options.batch, &mut effects);
        let reads = std::mem::take(&mut process.reads);
        for (zxid, body) in std::mem::take(&mut process.appended) {
            if mode == Mode::Leader
                && let Some(session) = expired(&body)
                && let Some(client) = self.clients.iter().find(|client| client.session == session)
                && let Some(heard) = client.conn.and_then(|conn| node.heard.get(&conn))
                && !client.has_closed(session)
                && client.seen() <= process.core.db.read().last_zxid.0
            {
                // What came last may not have been looked at yet.
                let (silent, tick) = ((self.now - heard) / 1000, self.options.tick_ms);
                let timeout = self.options.session_ms as u64 * 1000 / node.rate;
                if (2 * tick..timeout.saturating_sub(2)).contains(&silent) {
                    return Err(format!(
                        "sessions: server {} ends session {session:#x}, of which it heard {silent} ms ago",
                        index + 1
                    ));
                }
            }
            self.observed.appended(index, zxid, body)?;
        }
        node.held.extend(process.logged.drain(..));
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
            return Err(format!("strangers: server {} lost its leader", index + 1));
        }
        if mode == Mode::Leader {
            self.check_log(index)?;
            self.maybe_crash_removed(index);
        }
        for effect in effects {
            self.carry_out(index, life, effect);
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
            Files { logs: logs.map(|bytes| LogFile::read(&bytes)).collect(), snapshots: snapshots.collect() }
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

    fn carry_out(&mut self, index: usize, life: u64, effect: Effect) {
        let host = Host::Server(index);
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
                let due = self.network.send(self.now, key, host, Chunk::Bytes(bytes), &mut self.random);
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
                    self.network.reset(self.now, key, host, &mut self.random)
                } else {
                    self.network.send(self.now, key, host, Chunk::End, &mut self.random)
                };
                self.due(due);
            }
            Effect::Dial { port, to } => {
                let delay = self.network.delay(&mut self.random);
                self.after(delay, Event::Dial { from: index, life, port, to });
            }
            Effect::Later { disk, incoming } => {
                let (low, high) = if disk { self.options.disk_latency } else { (1, 20) };
                let spike = if disk && self.options.spike > 0 && self.random.permille(5) {
                    self.random.below(self.options.spike)
                } else {
                    0
                };
                let delay = self.random.between(low, high) + spike;
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
