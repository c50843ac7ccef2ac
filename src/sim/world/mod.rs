//! One run: servers, clients and the network between them, worked off in the order of a queue of events.

mod clients;
mod crowds;
mod ending;
mod opening;
mod pressure;
mod read_only;
mod rot;
mod servers;
mod strangers;
mod watched;

use self::servers::own_line;
use self::strangers::StrangerConn;
pub use self::watched::{Crash, Promised, Watched, Wreck, reach};
use super::client::Client;
use super::crowd::Crowd;
use super::faults::{Faults, Partition};
use super::history::{Asked, History};
use super::network::{Due, Host, Network, Port};
use super::node::{Incoming, Process, lay_out};
use super::observed::Observed;
use super::{Options, Random, SimDisk};
use crate::ensemble::Ensemble;
use crate::figures::Figures;
use crate::model::ServerId;
use crate::replica::Mode;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Microseconds between two looks at whether a fault is due.
const FAULT_STEP: u64 = 20_000;
/// Between two looks at whether a disk that hangs still does so.
const HANG_STEP: u64 = 2000;
/// Requests of a flood, at the most: more are of no more use.
const FLOOD: usize = 500;
/// A run takes some tens of thousands.
const MAX_EVENTS: u64 = 3_000_000;

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
    /// A leader that was removed is gone.
    Crash(usize, u64),
    Resume(usize, u64),
    /// The disk of a server has room again.
    Room(usize),
    Heal(u64),
    Fault,
    Client(usize),
    ClientTick(usize),
    Stranger(usize),
    Crowd,
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
    /// Its ports refuse until then.
    opens_at: u64,
    /// Per mille of the clock's rate.
    rate: u64,
    /// It may have lost what it acknowledged, and has not got it back yet.
    pub owes: bool,
    /// A file of it was damaged. The damage may be found late, and no other server is damaged meanwhile.
    pub damaged: bool,
    /// Its disk has lost a log once.
    pub lost_log: bool,
    pub boots: u64,
    /// Its tree was made to differ when it stood there.
    pub spoilt_at: Option<i64>,
    /// Its disk does nothing before.
    pub disk_hangs_until: u64,
    /// Transactions that it has had durably in its log, whatever became of them.
    pub held: BTreeSet<i64>,
    /// What its last process had promised, when it was last looked at.
    pub promised: Promised,
    /// When something came last over each client's connection, whether it was read or not.
    heard: BTreeMap<u64, u64>,
    /// What it does now takes until then.
    busy_until: u64,
}

impl Node {
    /// Whether its port takes connections.
    fn takes(&self, port: Port, now: u64) -> bool {
        let listens = |process: &Process| port == Port::Election || process.listens_for_learners;
        now >= self.opens_at && self.process.as_ref().is_some_and(listens)
    }
}

/// What is printed of a run.
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
    /// Leaders that crashed when a reconfiguration had removed them.
    pub removed: u64,
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
        self.removed += other.removed;
        self.virtual_ms += other.virtual_ms;
    }
}

/// The places of a configuration's members.
fn indices(config: &Ensemble) -> Vec<usize> {
    config.members().map(|member| member.id.0 as usize - 1).collect()
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
    strangers: Vec<StrangerConn>,
    strangers_are_on: bool,
    /// Nothing goes wrong: who has a leader keeps it.
    is_calm: bool,
    /// When a server last went on that had stood still.
    last_resume: u64,
    /// What amounts draw, so that nobody else's draws depend on it.
    pub(super) chance: Random,
    /// Likewise, for disks that lie.
    pub(super) luck: Random,
    amounts_are_on: bool,
    /// A violation that was found where none could be returned.
    found: Option<String>,
    /// Requests that clients may still ask beyond what they wait for.
    flood_left: usize,
    crowd: Crowd,
    /// How each server was synchronized last.
    pub(super) ways: BTreeMap<usize, &'static str>,
    pub(super) watched: Watched,
}

impl World {
    pub fn new(seed: u64, options: Options, mut random: Random, figures: Arc<Figures>, tells: Tells) -> Self {
        let mut network = Network::new(options.servers(), options.latency, options.spike, options.cuts);
        network.byte_ns = options.amounts.wire_ns;
        let servers_text = options.servers_text();
        let mut nodes = Vec::new();
        for index in 0..options.servers() {
            let disk = SimDisk::default();
            let mut text = if options.alone { String::new() } else { servers_text.clone() };
            if index >= options.voters + options.observers {
                text.push_str(&own_line(index));
            }
            lay_out(&disk, index as i64 + 1, &text, &options);
            if let Some(edge) = options.amounts.edge.filter(|_| index < options.voters + options.observers) {
                edge.lay_out(&disk);
            }
            let drift = options.drift;
            nodes.push(Node {
                disk,
                process: None,
                life: 0,
                paused: false,
                running: false,
                tick_at: u64::MAX,
                booted_at: 0,
                opens_at: 0,
                rate: 1000 - drift + random.below(2 * drift + 1),
                owes: false,
                damaged: false,
                lost_log: false,
                boots: 0,
                spoilt_at: None,
                disk_hangs_until: 0,
                held: BTreeSet::new(),
                promised: Promised::default(),
                heard: BTreeMap::new(),
                busy_until: 0,
            });
        }
        let clients = (0..options.clients)
            .map(|index| {
                let mut client = Client::new(index, options.session_ms, options.counts_anew, options.padding);
                if options.rewatches {
                    client.keep_watches(options.amounts.watches);
                }
                client
            })
            .collect();
        let mut observed = Observed::default();
        for (zxid, body) in options.amounts.edge.iter().flat_map(|edge| edge.txns()) {
            observed.appended(0, zxid, body).expect("each is another one");
        }
        let crowd = Crowd::new(options.amounts.crowd, options.session_ms);
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
            observed,
            faults: Faults::default(),
            figures,
            seed,
            tells,
            events: 0,
            servers_text,
            strangers: Vec::new(),
            strangers_are_on: false,
            is_calm: false,
            last_resume: 0,
            chance: Random::new(!seed),
            luck: Random::new(seed.rotate_left(32)),
            amounts_are_on: false,
            found: None,
            flood_left: FLOOD,
            crowd,
            ways: BTreeMap::new(),
            watched: Watched::default(),
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
            removed: self.faults.removed,
            virtual_ms: self.now / 1000,
        }
    }

    /// Of the trees that servers had, by zxid.
    pub(super) fn digests(&self) -> BTreeMap<i64, u64> {
        self.observed.digests()
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
        match self.options.opening.clone() {
            Some(opening) => {
                self.say(|| format!("seed {}: {:?}", self.seed, self.options));
                self.open(&opening)?;
                if opening.spoils {
                    self.spoil()?;
                }
                self.attack()?;
                self.press()?;
                self.begin_strangers();
                self.after(FAULT_STEP, Event::Fault);
            }
            None => {
                self.begin();
                self.begin_strangers();
            }
        }
        self.amounts_are_on = true;
        self.begin_crowd();
        let end = self.now + self.options.unsafe_ms * 1000;
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
        self.begin_clients();
        self.after(FAULT_STEP, Event::Fault);
    }

    fn begin_clients(&mut self) {
        for index in 0..self.clients.len() {
            self.after(index as u64, Event::Client(index));
            self.after(index as u64, Event::ClientTick(index));
        }
    }

    /// Everything is mended, has to serve again, and is looked through.
    pub(super) fn finish(&mut self) -> Result<(), String> {
        self.mend();
        self.await_service()?;
        self.await_expiry(0)?;
        self.await_silence()?;
        // Where epochs are short, it would end with one of them.
        let is_steady = self.options.amounts.epoch_len.is_none();
        if is_steady {
            self.rot()?;
            self.await_silence()?;
        }
        if self.options.lingers && is_steady {
            self.linger()?;
        }
        if is_steady {
            self.say_goodbye()?;
            self.await_silence()?;
            self.read_alone()?;
        }
        self.await_silence()?;
        self.verify()
    }

    pub(super) fn step(&mut self) -> Result<(), String> {
        let Some(Reverse(Queued { at, event, .. })) = self.queue.pop() else {
            return Err("nothing is left to happen".into());
        };
        if let Some(found) = self.found.take() {
            return Err(found);
        }
        self.now = at;
        self.clock.store(at, Ordering::Relaxed);
        self.events += 1;
        if self.events > MAX_EVENTS {
            return Err(format!(
                "storm: {MAX_EVENTS} events, and no end: servers answer each other for ever"
            ));
        }
        match event {
            Event::Run(index, life) => self.run_node(index, life),
            // The link takes no more for now.
            Event::Incoming(index, life, Incoming::Feed(key))
                if self.network.queued(key, Host::Server(index)) > self.options.feed_ahead =>
            {
                self.after(200, Event::Incoming(index, life, Incoming::Feed(key)));
                Ok(())
            }
            // The log's disk hangs.
            Event::Incoming(index, life, done @ Incoming::DiskDone(_))
                if self.nodes[index].disk_hangs_until > self.now =>
            {
                self.after(HANG_STEP, Event::Incoming(index, life, done));
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
            Event::Crash(index, life) if self.nodes[index].life == life => {
                self.crash_removed(index);
                Ok(())
            }
            Event::Boot(..) | Event::Resume(..) | Event::Crash(..) => Ok(()),
            Event::Room(index) => {
                self.make_room(index);
                Ok(())
            }
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
            Event::Stranger(index) => {
                self.stranger_acts(index);
                Ok(())
            }
            Event::ClientTick(index) => {
                self.client_ticks(index);
                Ok(())
            }
            Event::Crowd => {
                self.crowd_acts();
                Ok(())
            }
        }
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

    pub(super) fn mode_of(&self, index: usize) -> Mode {
        self.nodes[index].process.as_ref().map_or(Mode::NotServing, Process::mode)
    }

    pub(super) fn members(&self) -> Vec<usize> {
        indices(&self.configuration())
    }

    pub(super) fn modes(&self) -> Vec<String> {
        let mode = |node: &Node| {
            node.process.as_ref().map_or("down".to_string(), |process| {
                process.core.with_status(|status| status.standing.peer_state())
            })
        };
        self.nodes.iter().map(mode).collect()
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

    pub(super) fn cut(&mut self, key: u64) {
        let due = self.network.cut(self.now, key);
        self.due(due);
    }

    /// A reconfiguration that somebody is to ask for.
    pub(super) fn want_reconfig(&mut self, joining: String, leaving: String) {
        self.faults.has_reconfigured = true;
        self.faults.wanted_reconfig = Some(Asked::Reconfig { joining, leaving });
    }
}
