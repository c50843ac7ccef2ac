//! One run: servers, clients and the network between them, worked off in the order of a queue of events.

use super::client::Client;
use super::faults::{Faults, Partition};
use super::history::{self, Asked, History};
use super::model::{LogFile, Model};
use super::network::{Arrival, Chunk, Due, Host, Network, Port, ToServer};
use super::node::{DATA_DIR, Effect, Incoming, Process, lay_out};
use super::observed::Observed;
use super::{Options, Random, SimDisk, trace};
use crate::core::Clock;
use crate::ensemble::Ensemble;
use crate::figures::Figures;
use crate::model::ServerId;
use crate::replica::{Mode, Now};
use crate::storage::{Disk, StorageError};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Microseconds between two looks at whether a fault is due.
const FAULT_STEP: u64 = 20_000;
const CLIENT_STEP: u64 = 20_000;
/// Milliseconds that a mended ensemble has to serve again.
const LIVENESS_MS: u64 = 15_000;
const QUIET_MS: u64 = 5_000;
/// Milliseconds until a dial that gets no answer is given up.
const DIAL_TIMEOUT_US: u64 = 300_000;
/// Writes of every client that a mended ensemble has to take.
const LAST_WRITES: usize = 2;

#[derive(Debug)]
enum Event {
    /// A server works off what came in.
    Run(usize, u64),
    Incoming(usize, u64, Incoming),
    Arrive(u64, usize),
    Dial {
        from: usize,
        life: u64,
        port: Port,
        to: ServerId,
    },
    DialTimeout {
        from: usize,
        life: u64,
        port: Port,
        to: ServerId,
    },
    Boot(usize, u64),
    Resume(usize, u64),
    Heal(u64),
    Fault,
    Client(usize),
    ClientTick(usize),
}

struct Queued {
    at: u64,
    seq: u64,
    event: Event,
}

impl PartialEq for Queued {
    fn eq(&self, other: &Self) -> bool {
        (self.at, self.seq) == (other.at, other.seq)
    }
}

impl Eq for Queued {}

impl PartialOrd for Queued {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Queued {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.seq).cmp(&(other.at, other.seq))
    }
}

pub(super) struct Node {
    pub disk: SimDisk,
    pub process: Option<Process>,
    /// Goes up with every start and every end: what was meant for another life comes to nothing.
    pub life: u64,
    pub paused: bool,
    running: bool,
    /// When its next tick is queued for.
    tick_at: u64,
    booted_at: u64,
    /// Per mille of the clock's rate.
    rate: u64,
    /// It may have lost what it acknowledged, and has not got it back yet.
    pub owes: bool,
    /// A bit of a file was flipped: it may refuse to start.
    pub flipped: bool,
    pub boots: u64,
}

/// What is told of a run on standard output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tells {
    Nothing,
    Events,
    /// Every packet too.
    Packets,
}

/// What happened in a run.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Report {
    pub events: u64,
    pub elections: u64,
    pub committed: usize,
    pub requests: usize,
    pub answered: usize,
    pub faults: u64,
    pub virtual_ms: u64,
}

impl std::ops::AddAssign for Report {
    fn add_assign(&mut self, other: Self) {
        self.events += other.events;
        self.elections += other.elections;
        self.committed += other.committed;
        self.requests += other.requests;
        self.answered += other.answered;
        self.faults += other.faults;
        self.virtual_ms += other.virtual_ms;
    }
}

pub struct World {
    pub(super) options: Options,
    pub(super) random: Random,
    pub(super) now: u64,
    clock: Arc<AtomicU64>,
    queue: BinaryHeap<Reverse<Queued>>,
    seq: u64,
    pub(super) nodes: Vec<Node>,
    pub(super) network: Network,
    pub(super) clients: Vec<Client>,
    history: History,
    observed: Observed,
    pub(super) faults: Faults,
    figures: Arc<Figures>,
    seed: u64,
    tells: Tells,
    events: u64,
    servers_text: String,
    /// How each server was synchronized last.
    pub(super) ways: BTreeMap<usize, &'static str>,
}

impl World {
    pub fn new(seed: u64, options: Options, mut random: Random, figures: Arc<Figures>, tells: Tells) -> Self {
        let network = Network::new(options.servers(), options.latency, options.spike);
        let servers_text = options.servers_text();
        let mut nodes = Vec::new();
        for index in 0..options.servers() {
            let disk = SimDisk::default();
            let mut text = servers_text.clone();
            if index >= options.voters + options.observers {
                text.push_str(&own_line(index));
            }
            lay_out(&disk, index as i64 + 1, &text, &options);
            let drift = options.drift;
            nodes.push(Node {
                disk,
                process: None,
                life: 0,
                paused: false,
                running: false,
                tick_at: u64::MAX,
                booted_at: 0,
                rate: 1000 - drift + random.below(2 * drift + 1),
                owes: false,
                flipped: false,
                boots: 0,
            });
        }
        let clients = (0..options.clients).map(|index| Client::new(index, options.session_ms)).collect();
        Self {
            options,
            random,
            now: 0,
            clock: Arc::new(AtomicU64::new(0)),
            queue: BinaryHeap::new(),
            seq: 0,
            nodes,
            network,
            clients,
            history: History::default(),
            observed: Observed::default(),
            faults: Faults::default(),
            figures,
            seed,
            tells,
            events: 0,
            servers_text,
            ways: BTreeMap::new(),
        }
    }

    pub fn report(&self) -> Report {
        Report {
            events: self.events,
            elections: self.observed.elections,
            committed: self.observed.committed.len(),
            requests: self.history.requests.len(),
            answered: self.history.requests.iter().filter(|request| request.ended.is_some()).count(),
            faults: self.faults.count,
            virtual_ms: self.now / 1000,
        }
    }

    pub(super) fn say(&self, what: impl FnOnce() -> String) {
        if self.tells != Tells::Nothing {
            println!("{:>10.3} ms  {}", self.now as f64 / 1000.0, what());
        }
    }

    fn at(&mut self, at: u64, event: Event) {
        self.seq += 1;
        self.queue.push(Reverse(Queued { at: at.max(self.now), seq: self.seq, event }));
    }

    fn after(&mut self, delay: u64, event: Event) {
        self.at(self.now + delay, event);
    }

    fn due(&mut self, due: impl IntoIterator<Item = Due>) {
        for (at, key, side) in due {
            self.at(at, Event::Arrive(key, side));
        }
    }

    /// The whole run. An error is a violation of what was promised.
    pub fn run(&mut self) -> Result<(), String> {
        self.begin();
        let end = self.options.unsafe_ms * 1000;
        while self.now < end {
            self.step()?;
        }
        self.finish()
    }

    pub(super) fn begin(&mut self) {
        self.say(|| format!("seed {}: {:?}", self.seed, self.options));
        for index in 0..self.nodes.len() {
            let delay = self.random.below(50_000);
            self.boot_after(index, delay);
        }
        for index in 0..self.clients.len() {
            self.after(index as u64, Event::Client(index));
            self.after(index as u64, Event::ClientTick(index));
        }
        self.after(FAULT_STEP, Event::Fault);
    }

    /// Everything is mended, has to serve again, and is looked through.
    pub(super) fn finish(&mut self) -> Result<(), String> {
        self.mend();
        self.await_service()?;
        self.await_silence()?;
        self.verify()
    }

    pub(super) fn step(&mut self) -> Result<(), String> {
        let Some(Reverse(Queued { at, event, .. })) = self.queue.pop() else {
            return Err("nothing is left to happen".into());
        };
        self.now = at;
        self.clock.store(at, Ordering::Relaxed);
        self.events += 1;
        match event {
            Event::Run(index, life) => self.run_node(index, life),
            // The link takes no more for now.
            Event::Incoming(index, life, Incoming::Feed(key))
                if self.network.queued(key, Host::Server(index)) > self.options.max_queued / 4 =>
            {
                self.after(200, Event::Incoming(index, life, Incoming::Feed(key)));
                Ok(())
            }
            Event::Incoming(index, life, incoming) => {
                self.bring(index, life, incoming);
                Ok(())
            }
            Event::Arrive(key, side) => self.arrive(key, side),
            Event::Dial { from, life, port, to } => {
                self.dial(from, life, port, to);
                Ok(())
            }
            Event::DialTimeout { from, life, port, to } => {
                self.bring(from, life, Incoming::DialFailed { port, to });
                Ok(())
            }
            Event::Boot(index, life) if self.nodes[index].life == life => self.boot(index),
            Event::Resume(index, life) if self.nodes[index].life == life => {
                self.resume(index);
                Ok(())
            }
            Event::Boot(..) | Event::Resume(..) => Ok(()),
            Event::Heal(number) => {
                if self.faults.partition_number == number {
                    self.heal();
                }
                Ok(())
            }
            Event::Fault => {
                if self.faults.are_on {
                    self.maybe_fail()?;
                    self.after(FAULT_STEP, Event::Fault);
                }
                Ok(())
            }
            Event::Client(index) => {
                self.client_acts(index);
                Ok(())
            }
            Event::ClientTick(index) => {
                self.client_ticks(index);
                Ok(())
            }
        }
    }

    // Servers.

    pub(super) fn boot_after(&mut self, index: usize, delay: u64) {
        self.nodes[index].life += 1;
        let life = self.nodes[index].life;
        self.after(delay, Event::Boot(index, life));
    }

    fn boot(&mut self, index: usize) -> Result<(), String> {
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
        let node = &mut self.nodes[index];
        match booted {
            Ok(process) => {
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
            Err(StorageError::Damaged { .. }) if node.flipped => {
                self.say(|| {
                    format!("server {} refuses to start, as it should: it gets a new disk", index + 1)
                });
                self.wipe(index);
                self.boot_after(index, 1000);
                Ok(())
            }
            // A reconfiguration left it out. The operator who starts it all the same names it again, as an observer.
            Err(StorageError::Refused(why)) if why.contains("there is no line") => {
                self.say(|| format!("server {} is left out; it is told whom to ask", index + 1));
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
    pub(super) fn wipe(&mut self, index: usize) {
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
    }

    /// The process ends; `power`: so does the machine.
    pub(super) fn end(&mut self, index: usize, power: bool) {
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
        if power {
            node.disk.power_failure(&mut self.random);
        } else {
            node.disk.process_ended();
        }
        let due = self.network.host_gone(self.now, Host::Server(index), power, &mut self.random);
        self.due(due);
    }

    fn bring(&mut self, index: usize, life: u64, incoming: Incoming) {
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

    pub(super) fn resume(&mut self, index: usize) {
        let node = &mut self.nodes[index];
        node.paused = false;
        node.running = false;
        self.say(|| format!("server {} goes on", index + 1));
        self.wake(index);
        self.set_tick(index);
    }

    fn run_node(&mut self, index: usize, life: u64) -> Result<(), String> {
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
        process.run(self.options.batch, &mut effects);
        for (zxid, body) in std::mem::take(&mut process.appended) {
            self.observed.appended(index, zxid, body)?;
        }
        let stopped = node.disk.has_stopped().then(|| "the step of its disk".to_string());
        let failed = process.failed.take().or(stopped);
        if process.has_work() {
            self.wake(index);
        }
        self.observe(index)?;
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

    fn observe(&mut self, index: usize) -> Result<(), String> {
        let node = &mut self.nodes[index];
        let Some(process) = &node.process else { return Ok(()) };
        if process.mode() == Mode::NotServing {
            return Ok(());
        }
        node.owes = false;
        let disk = &node.disk;
        let logs = || {
            let dir = Path::new(DATA_DIR).join("version-2");
            let mut names = disk.list(&dir).unwrap_or_default();
            names.retain(|(name, _)| name.starts_with("log."));
            let files = names.iter().filter_map(|(name, _)| disk.read(&dir.join(name)));
            files.map(|bytes| LogFile::read(&bytes)).collect::<Vec<_>>()
        };
        self.observed.look(index, node.life, process, &logs)
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
                let feeding =
                    self.nodes[index].process.as_ref().is_some_and(|process| process.is_feeding(key));
                if queued > self.options.max_queued && !feeding {
                    let due = self.network.cut(self.now, key);
                    return self.due(due);
                }
                let due = self.network.send(self.now, key, host, Chunk::Bytes(bytes), &mut self.random);
                self.due(due);
            }
            Effect::Close(key) => {
                let due = self.network.send(self.now, key, host, Chunk::End, &mut self.random);
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

    fn dial(&mut self, from: usize, life: u64, port: Port, to: ServerId) {
        if self.nodes[from].life != life {
            return;
        }
        let failed = || Incoming::DialFailed { port, to };
        let index = usize::try_from(to.0 - 1).ok().filter(|index| *index < self.nodes.len());
        let Some(index) = index else { return self.bring(from, life, failed()) };
        let (me, other) = (Host::Server(from), Host::Server(index));
        let blocked = self.network.is_blocked(me, other) || self.network.is_blocked(other, me);
        if blocked {
            return self.after(DIAL_TIMEOUT_US, Event::DialTimeout { from, life, port, to });
        }
        let node = &self.nodes[index];
        let listens = node
            .process
            .as_ref()
            .is_some_and(|process| port == Port::Election || process.listens_for_learners);
        if !listens {
            return self.bring(from, life, failed());
        }
        let key = self.network.open(port, me, other);
        let accepting = node.life;
        self.bring(index, accepting, Incoming::Accepted(port, key));
        self.bring(from, life, Incoming::Dialed { port, to, conn: key });
    }

    fn arrive(&mut self, key: u64, side: usize) -> Result<(), String> {
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
                let incoming = match chunk {
                    Chunk::Bytes(bytes) => Incoming::Bytes(port, key, bytes),
                    Chunk::Message(message) => Incoming::Message(key, message),
                    Chunk::End => Incoming::Closed(port, key),
                };
                self.bring(index, life, incoming);
                Ok(())
            }
            Host::Client(index) => self.client_hears(index, key, chunk),
        }
    }

    // Clients.

    fn client_hears(&mut self, index: usize, key: u64, chunk: Chunk) -> Result<(), String> {
        let client = &mut self.clients[index];
        if client.conn != Some(key) {
            return Ok(());
        }
        match chunk {
            Chunk::Bytes(bytes) => {
                client
                    .receive(self.now, &bytes, &mut self.history)
                    .map_err(|what| format!("client {index}: {what}"))?;
            }
            Chunk::Message(_) => {}
            Chunk::End => client.disconnected(),
        }
        Ok(())
    }

    fn client_sends(&mut self, index: usize, message: ToServer) {
        let Some(key) = self.clients[index].conn else { return };
        let host = Host::Client(index);
        let due = self.network.send(self.now, key, host, Chunk::Message(message), &mut self.random);
        self.due(due);
    }

    pub(super) fn client_leaves(&mut self, index: usize) {
        let Some(key) = self.clients[index].conn else { return };
        self.clients[index].disconnected();
        let due = self.network.send(self.now, key, Host::Client(index), Chunk::End, &mut self.random);
        self.due(due);
    }

    fn client_acts(&mut self, index: usize) {
        let mut delay = self.random.between(self.options.think_us.0, self.options.think_us.1);
        if self.clients[index].conn.is_none() {
            delay += self.random.below(30_000);
            if !self.clients[index].is_quiet {
                self.client_connects(index);
            }
        } else if self.clients[index].is_open()
            && !self.clients[index].is_quiet
            && self.clients[index].outstanding() < self.options.pipeline
        {
            let reconfig = self.faults.wanted_reconfig.take();
            let asked = self.clients[index].choose(reconfig, &mut self.random);
            let message = self.clients[index].ask(self.now, asked, &mut self.history);
            if let Some(message) = message {
                self.client_sends(index, message);
            }
        }
        self.after(delay + 50, Event::Client(index));
    }

    fn client_connects(&mut self, index: usize) {
        let to = self.random.below(self.nodes.len() as u64) as usize;
        if self.nodes[to].process.is_some() {
            self.client_connects_to(index, to);
        }
    }

    /// For a story: to this server, away from another one.
    pub(super) fn client_moves(&mut self, index: usize, to: usize) {
        self.client_leaves(index);
        self.client_connects_to(index, to);
    }

    /// For a story: the request's number in the history.
    pub(super) fn client_asks(&mut self, index: usize, asked: Asked) -> Result<usize, String> {
        let message = self.clients[index].ask(self.now, asked, &mut self.history);
        self.client_sends(index, message.ok_or("it has no connection")?);
        Ok(self.history.requests.len() - 1)
    }

    pub(super) fn answer(&self, request: usize) -> Option<history::Answer> {
        self.history.requests[request].ended.as_ref().map(|(_, answer)| answer.clone())
    }

    fn client_connects_to(&mut self, index: usize, to: usize) {
        let key = self.network.open(Port::Client, Host::Client(index), Host::Server(to));
        let life = self.nodes[to].life;
        self.bring(to, life, Incoming::Accepted(Port::Client, key));
        let hello = self.clients[index].connected(self.now, key, &mut self.history);
        self.client_sends(index, hello);
    }

    fn client_ticks(&mut self, index: usize) {
        if self.clients[index].gives_up(self.now) {
            self.client_leaves(index);
        } else if let Some(ping) = self.clients[index].ping(self.now) {
            self.client_sends(index, ping);
        }
        self.after(CLIENT_STEP, Event::ClientTick(index));
    }

    // The end.

    fn mend(&mut self) {
        self.say(|| "everything is mended".into());
        self.faults.are_on = false;
        self.heal();
        self.network.spike = 0;
        for index in 0..self.nodes.len() {
            let disk = self.nodes[index].disk.clone();
            self.faults.clear_disk(&disk);
            if self.nodes[index].paused {
                self.resume(index);
            }
            if self.nodes[index].process.is_none() {
                let delay = self.random.below(50_000);
                self.boot_after(index, delay);
            }
        }
        self.clients.iter_mut().for_each(|client| client.acked = 0);
    }

    /// The newest configuration that a server has in force.
    pub(super) fn configuration(&self) -> Ensemble {
        let processes = self.nodes.iter().filter_map(|node| node.process.as_ref());
        let texts = processes.map(|process| process.core.with_status(|status| status.config.clone()));
        // They are the same nearly always.
        let texts: BTreeSet<_> = texts.collect();
        let configs = texts.iter().filter_map(|text| Ensemble::parse(text).ok());
        configs
            .max_by_key(Ensemble::version)
            .unwrap_or_else(|| Ensemble::parse(&self.servers_text).expect("it was laid out"))
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

    pub(super) fn mode_of(&self, index: usize) -> Mode {
        self.nodes[index].process.as_ref().map_or(Mode::NotServing, Process::mode)
    }

    fn serves(&self, index: usize) -> bool {
        self.mode_of(index) != Mode::NotServing
    }

    pub(super) fn members(&self) -> Vec<usize> {
        self.configuration().members().map(|member| member.id.0 as usize - 1).collect()
    }

    fn await_service(&mut self) -> Result<(), String> {
        let deadline = self.now + LIVENESS_MS * 1000;
        let mut next_look = 0;
        loop {
            self.step()?;
            if self.now < next_look {
                continue;
            }
            next_look = self.now + 10_000;
            let all_serve = self.members().iter().all(|index| self.serves(*index));
            if all_serve && self.clients.iter().all(|client| client.acked >= LAST_WRITES) {
                self.say(|| "all members serve, and every client writes".into());
                return Ok(());
            }
            if self.now > deadline {
                let modes: Vec<String> = self.modes();
                let acked: Vec<usize> = self.clients.iter().map(|client| client.acked).collect();
                return Err(format!(
                    "liveness: not all serve {LIVENESS_MS} ms after everything was mended: {modes:?}, writes {acked:?}"
                ));
            }
        }
    }

    pub(super) fn modes(&self) -> Vec<String> {
        let mode = |node: &Node| {
            node.process.as_ref().map_or("down".to_string(), |process| {
                process.core.with_status(|status| status.peer_state.clone())
            })
        };
        self.nodes.iter().map(mode).collect()
    }

    /// Nobody asks for anything any more: all servers come to stand at the same place.
    fn await_silence(&mut self) -> Result<(), String> {
        self.clients.iter_mut().for_each(|client| client.is_quiet = true);
        let deadline = self.now + QUIET_MS * 1000;
        let mut next_look = 0;
        loop {
            self.step()?;
            if self.now < next_look {
                continue;
            }
            next_look = self.now + 10_000;
            let members = self.members();
            let zxid = |index: &usize| {
                self.nodes[*index].process.as_ref().map(|process| process.core.db.read().last_zxid)
            };
            let first = members.first().and_then(zxid);
            let are_even = members.iter().all(|index| self.serves(*index) && zxid(index) == first);
            let are_answered = self.clients.iter().all(Client::is_idle);
            if are_even && are_answered && first.is_some() {
                return Ok(());
            }
            if self.now > deadline {
                let at: Vec<_> = members.iter().map(zxid).collect();
                return Err(format!("liveness: servers do not come even: {:?} at {at:?}", self.modes()));
            }
        }
    }

    fn verify(&self) -> Result<(), String> {
        let model = history::check(&self.history, &self.observed.committed)?;
        for index in self.members() {
            let Some(process) = &self.nodes[index].process else { continue };
            compare(&model, process).map_err(|what| format!("server {}: {what}", index + 1))?;
        }
        Ok(())
    }

    pub(super) fn apply_partition(&mut self, partition: Partition, millis: u64) {
        for (from, to) in &partition.blocked {
            self.network.block(*from, *to);
        }
        let number = self.faults.partition_number;
        self.after(millis * 1000, Event::Heal(number));
    }

    pub(super) fn heal(&mut self) {
        let due = self.network.heal(self.now);
        self.due(due);
    }

    pub(super) fn pause(&mut self, index: usize, millis: u64) {
        self.nodes[index].paused = true;
        let life = self.nodes[index].life;
        self.after(millis * 1000, Event::Resume(index, life));
    }

    pub(super) fn cut(&mut self, key: u64) {
        let due = self.network.cut(self.now, key);
        self.due(due);
    }

    /// A reconfiguration that somebody is to ask for.
    pub(super) fn want_reconfig(&mut self, joining: String, leaving: String) {
        self.faults.wanted_reconfig = Some(Asked::Reconfig { joining, leaving });
    }
}

/// How a server names itself that is in no configuration yet.
fn own_line(index: usize) -> String {
    let id = index + 1;
    format!("server.{id}=s{id}:1:2:observer\n")
}

/// The tree and the sessions of a server against the model's.
fn compare(model: &Model, process: &Process) -> Result<(), String> {
    let db = process.core.db.read();
    let mut seen = 1;
    let mut open = vec![("/".to_string(), db.tree.find(b"/").ok_or("there is no root")?)];
    while let Some((path, id)) = open.pop() {
        let node = model.nodes.get(&path).ok_or(format!("{path} is there, and not in the model"))?;
        let stat = db.tree.stat(id);
        let data = db.tree.data(id).unwrap_or_default();
        let is = (data, stat.version, stat.mzxid, stat.czxid, stat.pzxid, stat.ephemeral_owner);
        let should = (&node.data[..], node.version, node.mzxid, node.czxid, node.pzxid, node.owner);
        if is != should && path != "/" {
            return Err(format!("{path} is {is:?}, where the model has {should:?}"));
        }
        for name in db.tree.children(id) {
            let name = String::from_utf8_lossy(name).into_owned();
            if path == "/" && name == "zookeeper" {
                continue;
            }
            let child = if path == "/" { format!("/{name}") } else { format!("{path}/{name}") };
            let id = db.tree.find(child.as_bytes()).ok_or(format!("{child} is listed, and not there"))?;
            seen += 1;
            open.push((child, id));
        }
    }
    if seen != model.nodes.len() {
        return Err(format!("{seen} znodes, where the model has {}", model.nodes.len()));
    }
    let sessions: Vec<i64> = db.sessions.keys().map(|session| session.0).collect();
    if sessions.len() != model.sessions.len() || sessions.iter().any(|id| !model.sessions.contains_key(id)) {
        return Err(format!("sessions {sessions:x?}, where the model has {:x?}", model.sessions));
    }
    Ok(())
}
