//! A server in the simulation: the production core, journal, feeder, receiver and snapshot job on a simulated disk. The
//! drivers alone are other ones: what tokio, mio and threads do, the world's queue does here.

use super::amounts::Work;
use super::disk::SimDisk;
use super::extremes::Extremes;
use super::network::Port;
use super::options::Options;
use super::random::Random;
use super::world::{Promised, reach};
use crate::config::{Config, ConfigError, Machine};
use crate::conversation::{Bounds, Conversation, End, Limits, Tally, World};
use crate::core::{
    Carrier, Clock, Core, Fed, Feeder, Files, Journal, Mail, Performed, ReceiveError, Receiver, Scrub,
    SnapshotForm, SnapshotJob, Wait, check_snapshot, report_scrub,
};
use crate::election::{ElectionConn, LinkOutput};
use crate::figures::Figures;
use crate::link::{Link, Step};
use crate::model::{Budget, ConnId, Debt, LinkId, ServerId, Zxid};
use crate::replica::{
    ClientMessage, DiskOp, ElectionInput, Input, LeaderMisbehaved, LinkAction, Listen, LostWhy, Mode,
    Outputs, QuorumInput, Replica, Told,
};
use crate::request::Rules;
use crate::server::{Assembled, Surroundings, Tuning, assemble};
use crate::storage::{StorageError, snapshots_in};
use crate::tree::Database;
use bytes::{Bytes, BytesMut};
use parking_lot::Mutex;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

pub const CONFIG_FILE: &str = "/zabra/zoo.cfg";
pub const DATA_DIR: &str = "/zabra/data";
/// What a packet may have: as a server is configured by default.
const MAX_PACKET: usize = 1 << 20;
/// Bytes that may wait for a client.
const CLIENT_ROOM: usize = 64 << 20;

/// Milliseconds between two looks at which containers are empty, and which znodes' time has come.
const CONTAINER_CHECK_MS: u64 = 150;
/// Packets that a server hears at its end.
const EXTREMES: u64 = 15;
/// Bytes of requests that one connection may hand in at once, before what it has is looked at again.
const AT_ONCE: usize = 256 * Budget::HOLD + 2 * MAX_PACKET;
/// Steps of one hold of the database, with what can't be divided.
const MOST_STEPS: usize = 5 * Budget::HOLD;

/// Why a server does not start.
#[derive(Debug, thiserror::Error)]
pub enum BootError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Storage(#[from] StorageError),
}

/// Something that comes to a server.
#[derive(Debug)]
pub enum Incoming {
    Accepted(Port, u64),
    Dialed {
        port: Port,
        to: ServerId,
        conn: u64,
    },
    DialFailed {
        port: Port,
        to: ServerId,
    },
    Bytes(Port, u64, Bytes),
    Closed(Port, u64),
    DiskDone(Performed),
    /// Go on with the feed of this link, with this snapshot job, with this link's packets.
    Feed(u64),
    Snapshot,
    Received {
        conn: u64,
        db: Box<Database>,
    },
    Tick,
}

impl Incoming {
    fn is_of_client(&self) -> bool {
        matches!(
            self,
            Self::Accepted(Port::Client, _) | Self::Bytes(Port::Client, ..) | Self::Closed(Port::Client, _)
        )
    }
}

/// What a server does to the world.
#[derive(Debug)]
pub enum Effect {
    Send(u64, Bytes),
    /// An orderly end, behind what was sent.
    Close(u64),
    Dial {
        port: Port,
        to: ServerId,
    },
    /// Work of the disk, with its latency and the time that these bytes take; otherwise that of a thread.
    Later {
        disk: bool,
        bytes: usize,
        incoming: Incoming,
    },
}

/// What the core hands to its carrier, kept until the world takes it.
#[derive(Default)]
struct Carried(Mutex<Vec<Carry>>);

enum Carry {
    Election(LinkOutput),
    DialLeader(ServerId),
    Listen(Listen),
    Send(u64, Bytes),
    Link(u64, LinkAction),
    /// The leader broke the protocol, as this server sees it.
    Accused(String),
}

impl Carrier for Carried {
    fn carry(&self, outputs: &mut Outputs) {
        let mut carried = self.0.lock();
        carried.extend(outputs.election.drain(..).map(Carry::Election));
        carried.extend(outputs.dial.take().map(|(leader, _)| Carry::DialLeader(leader)));
        carried.extend(outputs.listen.take().map(Carry::Listen));
        carried.extend(outputs.told.iter().filter_map(accusation).map(Carry::Accused));
        for (link, action) in outputs.zab.links.drain(..) {
            carried.push(match action {
                LinkAction::Send { start, len } => {
                    Carry::Send(link.0, Bytes::copy_from_slice(&outputs.zab.packets[start..start + len]))
                }
                other => Carry::Link(link.0, other),
            });
        }
        outputs.zab.packets.clear();
    }
}

/// Leaders are servers of the ensemble here: none sends what makes no sense. An epoch may be stale, after a partition.
fn accusation(told: &Told) -> Option<String> {
    match told {
        Told::Lost { why: LostWhy::LeaderMisbehaved { how: LeaderMisbehaved::StaleEpoch { .. }, .. } } => {
            None
        }
        Told::Lost { why: why @ LostWhy::LeaderMisbehaved { .. } } => Some(why.to_string()),
        _ => None,
    }
}

/// One end of a quorum connection.
struct Pipe {
    link: Link,
    bytes: BytesMut,
    /// This server dialed: the leader is at the other end.
    to_leader: bool,
    /// What the core asked for, to see that the link keeps to it.
    is_held: bool,
    receiver: Option<Receiver>,
    /// The snapshot is whole and on its way to the core.
    is_received: bool,
    feeder: Option<Feeder>,
}

/// A client's connection.
struct ClientConn {
    talk: Conversation,
    /// What came and was not read yet.
    socket: BytesMut,
    /// The end came after that.
    ended: bool,
}

/// A process: it ends by a kill, a power failure, or its own decision.
pub struct Process {
    pub core: Arc<Core>,
    journal: Journal,
    files: Files,
    rules: Rules,
    limits: Limits,
    carried: Arc<Carried>,
    disk_busy: bool,
    /// Since when the log has had something to write, in milliseconds of this server's clock.
    pub writes_since: Option<u64>,
    inbox: VecDeque<Incoming>,
    /// Where work takes time: what clients said. The core's own inputs do not wait until all of it is read.
    sockets: Option<VecDeque<Incoming>>,
    /// Whose turn it is then.
    hears_clients: bool,
    pub listens_for_learners: bool,
    pipes: BTreeMap<u64, Pipe>,
    clients: BTreeMap<u64, ClientConn>,
    /// Those of them that may have something to do without having been heard.
    unfinished: BTreeSet<u64>,
    /// Bytes of clients' requests that the core has.
    handed_in: usize,
    snapshot: Option<Job>,
    next_period: u64,
    period: u64,
    mail: Mail,
    /// All mail up to this zxid was read.
    seen: i64,
    /// Transactions that were handed to the log, for the checkers.
    pub appended: Vec<(i64, Bytes)>,
    /// Zxids of transactions that the log has durably since this was last taken.
    pub logged: Vec<i64>,
    /// Likewise, behind a snapshot that does not count yet; none where there is none.
    staged: Option<Vec<i64>>,
    /// The states that reads were answered from since this was last taken: the part that this server played, and its zxid.
    pub reads: Vec<(Mode, i64)>,
    /// What no server does to another one, or to a client.
    pub wrong: Option<String>,
    /// What it has told others of its disk, or may have.
    pub promised: Promised,
    /// The last transaction of what is staged; none where nothing is.
    staged_last: Option<Zxid>,
    /// The log failed: the process ends.
    pub failed: Option<String>,
    /// What the disk had no room for; it is tried again with each tick.
    waits_for_room: Vec<DiskOp>,
    tries_again: bool,
    /// It must not go on, as its history would be lost: the process ends.
    pub refused: Arc<Mutex<Option<String>>>,
    slice: usize,
    /// Bytes that are read off a socket at once.
    piece: usize,
    /// What it did since this was last taken.
    pub work: Work,
    /// Ticks since this was last taken.
    pub ticks: usize,
    /// Of the transaction that it logged last.
    last_body: Bytes,
}

struct Job {
    job: SnapshotJob,
    written: bool,
}

/// The files that a new server starts with.
pub fn lay_out(disk: &SimDisk, id: i64, servers: &str, options: &Options) {
    let mut text = format!(
        "dataDir={DATA_DIR}\nclientPort=1\ntickTime={}\ninitLimit={}\nsyncLimit={}\nskipACL=yes\nsnapCount={}\n\
         preAllocSize=4\nreconfigEnabled={}\nstandaloneEnabled=false\ncommitLogCount={}\nminSessionTimeout=10\n\
         maxSessionTimeout=100000\nforceSnapshotSync={}\nsnapshotSizeFactor={}\n\
         fastleader.minNotificationInterval={}\nfastleader.maxNotificationInterval={}\n\
         emptyServerWaitMs={}\n",
        options.tick_ms,
        options.init_limit,
        options.sync_limit,
        options.snap_count,
        options.reconfig,
        options.history_entries,
        options.force_snapshot_sync,
        if options.disk_sync { "3" } else { "-1" },
        options.pace.1,
        options.pace.2,
        options.empty_wait_ms,
    );
    text.push_str(servers);
    disk.put(Path::new(CONFIG_FILE), text.as_bytes());
    disk.put(&Path::new(DATA_DIR).join("myid"), id.to_string().as_bytes());
}

impl Process {
    /// Starts on what the disk has. An error tells why it refuses to.
    pub fn boot(
        disk: &SimDisk,
        options: &Options,
        clock: Clock,
        figures: &Arc<Figures>,
        random: &mut Random,
    ) -> Result<Self, BootError> {
        let read = |path: &Path| disk.read(path).ok_or_else(|| io::Error::from(io::ErrorKind::NotFound));
        let machine = Machine { read: &read, resolve: &|_| Vec::new() };
        let mut config = Config::from_file(Path::new(CONFIG_FILE), &machine)?;
        config.quorum.read_only_mode = true;
        if options.amounts.often > 0 {
            config.znodes.extended_types = true;
            config.znodes.enforce_quota = true;
            config.znodes.container_check_ms = CONTAINER_CHECK_MS;
        }
        let mut spread = random.fork();
        let refused = Arc::<Mutex<Option<String>>>::default();
        let around = Surroundings {
            disk: Arc::new(disk.clone()),
            clock,
            figures: figures.clone(),
            fatal: Box::new({
                let refused = refused.clone();
                move |error| *refused.lock() = Some(error.to_string())
            }),
            random: Box::new(move || spread.draw()),
            reactors: 1,
            tuning: Tuning {
                history_bytes: options.history_bytes,
                history_most: usize::MAX,
                max_unlogged_bytes: options.max_unlogged,
                admitted_bytes: options.admitted,
                window_bytes: options.window,
                client_room: CLIENT_ROOM,
                unread_bytes: usize::MAX,
                watch_bytes: usize::MAX,
                finalize_ms: options.pace.0,
                feed_piece: options.feed_piece,
                epoch_len: options.amounts.epoch_len.unwrap_or(u32::MAX),
            },
        };
        let assembled = assemble(&config, around, &mut |_| {})?;
        let Assembled { core, journal, files, settings, .. } = assembled;
        let debt = core.look(|replica| replica.debt()).unwrap_or(Debt::Unknown);
        let promised = Promised::read(disk, core.db.read().last_txn, debt);
        let carried = Arc::new(Carried::default());
        core.set_carrier(carried.clone());
        let period = (config.sessions.tick_ms / 2).clamp(10, 1000);
        Ok(Self {
            next_period: core.now().mono_ms,
            core,
            journal,
            files,
            rules: settings.rules,
            limits: Limits {
                max_frame: config.limits.max_buffer,
                outstanding: config.limits.outstanding,
                admitted_bytes: options.admitted,
                unlogged_bytes: options.max_unlogged,
                room: CLIENT_ROOM,
                enforced_schemes: Vec::new(),
            },
            carried,
            disk_busy: false,
            writes_since: None,
            inbox: VecDeque::new(),
            hears_clients: false,
            sockets: (!options.amounts.cost.is_none()).then(VecDeque::new),
            listens_for_learners: false,
            pipes: BTreeMap::new(),
            clients: BTreeMap::new(),
            unfinished: BTreeSet::new(),
            handed_in: 0,
            snapshot: None,
            period,
            mail: Mail::default(),
            seen: 0,
            appended: Vec::new(),
            logged: Vec::new(),
            staged: None,
            reads: Vec::new(),
            wrong: None,
            promised,
            staged_last: None,
            failed: None,
            waits_for_room: Vec::new(),
            tries_again: false,
            refused,
            slice: options.slice,
            piece: options.feed_piece,
            work: Work::default(),
            ticks: 0,
            last_body: Bytes::new(),
        })
    }

    pub fn mode(&self) -> Mode {
        self.core.with_status(|status| status.mode)
    }

    /// When the next tick is due, in milliseconds of its clock.
    pub fn next_tick(&self) -> u64 {
        self.next_period.min(self.core.alarm.at())
    }

    pub fn push(&mut self, incoming: Incoming) {
        match &mut self.sockets {
            Some(sockets) if incoming.is_of_client() => sockets.push_back(incoming),
            _ => self.inbox.push_back(incoming),
        }
    }

    /// The next of what came: of the core's and of the clients' in turn, where they wait apart.
    fn next(&mut self) -> Option<Incoming> {
        self.hears_clients = !self.hears_clients;
        let sockets = self.sockets.as_mut().filter(|_| self.hears_clients || self.inbox.is_empty());
        sockets.and_then(VecDeque::pop_front).or_else(|| self.inbox.pop_front())
    }

    fn waiting(&self) -> impl Iterator<Item = &Incoming> {
        self.inbox.iter().chain(self.sockets.iter().flatten())
    }

    /// Whether something is on its way to the disk.
    pub fn uses_disk(&self) -> bool {
        self.snapshot.is_some() || self.disk_busy || !self.waits_for_room.is_empty()
    }

    /// Whether this connection brought something that was not read yet.
    pub fn has_unread(&self, key: u64) -> bool {
        self.waiting().any(|incoming| matches!(incoming, Incoming::Bytes(_, conn, _) if *conn == key))
            || self.clients.get(&key).is_some_and(|client| !client.socket.is_empty())
    }

    /// A reset took what this connection had brought, and was not read yet.
    pub fn forget_unread(&mut self, key: u64) {
        for queue in [Some(&mut self.inbox), self.sockets.as_mut()].into_iter().flatten() {
            queue.retain(|incoming| !matches!(incoming, Incoming::Bytes(_, conn, _) if *conn == key));
        }
        if let Some(client) = self.clients.get_mut(&key) {
            client.socket.clear();
        }
    }

    pub fn has_work(&self) -> bool {
        self.waiting().next().is_some() && self.failed.is_none()
    }

    /// Takes up to so much of what came in, as one batch.
    pub fn run(&mut self, batch: usize, out: &mut Vec<Effect>) {
        let mut inputs = Vec::new();
        for _ in 0..batch {
            let Some(incoming) = self.next() else { break };
            self.work.inputs += 1;
            if let Incoming::Bytes(_, _, bytes) = &incoming {
                self.work.bytes += bytes.len();
            }
            self.take(incoming, &mut inputs, out);
        }
        self.core.submit(&mut inputs, None);
        self.settle(out);
        let sent = out.iter().map(|effect| if let Effect::Send(_, bytes) = effect { bytes.len() } else { 0 });
        self.work.bytes += sent.sum::<usize>();
        let (has, may) = (self.handed_in, self.limits.admitted_bytes + AT_ONCE);
        if has > may {
            self.wrong = Some(format!("account: it has {has} bytes of clients' requests, {may} may be"));
        }
    }

    /// What it did since this was last asked, when it had applied all up to `before`.
    pub fn take_work(&mut self, before: i64) -> Work {
        let mut work = std::mem::take(&mut self.work);
        let applied = self.core.db.read().last_zxid.0 - before;
        // Not where an epoch began, or a snapshot came.
        work.inputs += self.appended.len() + if applied < 1 << 20 { applied.max(0) as usize } else { 0 };
        work
    }

    fn take(&mut self, incoming: Incoming, inputs: &mut Vec<Input>, out: &mut Vec<Effect>) {
        match incoming {
            Incoming::Accepted(Port::Election, conn) => {
                inputs.push(Input::Election(ElectionInput::Accepted(ElectionConn(conn))));
            }
            Incoming::Accepted(Port::Quorum, conn) => {
                self.pipes.insert(conn, Pipe::new(Link::accepted(LinkId(conn), MAX_PACKET), false));
            }
            Incoming::Accepted(Port::Client, conn) => {
                let talk = Conversation::new(ConnId(conn), IpAddr::V4(Ipv4Addr::LOCALHOST));
                self.clients.insert(conn, ClientConn { talk, socket: BytesMut::new(), ended: false });
            }
            Incoming::Dialed { port: Port::Election, to, conn } => {
                inputs.push(Input::Election(ElectionInput::Dialed { to, conn: ElectionConn(conn) }));
            }
            Incoming::Dialed { conn, .. } => {
                let (link, dialed) = Link::dialed(LinkId(conn), MAX_PACKET);
                self.pipes.insert(conn, Pipe::new(link, true));
                inputs.push(dialed);
            }
            Incoming::DialFailed { port: Port::Election, to } => {
                inputs.push(Input::Election(ElectionInput::DialFailed(to)));
            }
            Incoming::DialFailed { .. } => inputs.push(Input::Quorum(QuorumInput::DialFailed)),
            Incoming::Bytes(Port::Election, conn, bytes) => {
                inputs.push(Input::Election(ElectionInput::Bytes { conn: ElectionConn(conn), bytes }));
            }
            Incoming::Bytes(Port::Client, conn, bytes) => {
                if let Some(client) = self.clients.get_mut(&conn) {
                    client.socket.extend_from_slice(&bytes);
                    self.hear(conn, inputs, out);
                }
            }
            Incoming::Bytes(Port::Quorum, conn, bytes) => {
                if let Some(pipe) = self.pipes.get_mut(&conn) {
                    pipe.bytes.extend_from_slice(&bytes);
                    self.drive_link(conn, inputs, out);
                }
            }
            Incoming::Closed(Port::Election, conn) => {
                inputs.push(Input::Election(ElectionInput::Closed(ElectionConn(conn))));
            }
            Incoming::Closed(Port::Quorum, conn) => {
                inputs.extend(self.pipes.remove(&conn).and_then(|pipe| pipe.link.end()));
            }
            Incoming::Closed(Port::Client, conn) => {
                if let Some(client) = self.clients.get_mut(&conn) {
                    client.talk.hang_up();
                    client.ended = true;
                    self.hear(conn, inputs, out);
                }
            }
            Incoming::DiskDone(performed) => {
                self.core.submit(inputs, None);
                self.disk_busy = false;
                self.writes_since = None;
                self.core.performed(performed);
            }
            Incoming::Feed(conn) => self.feed(conn, inputs, out),
            Incoming::Snapshot => self.snapshot_step(out),
            Incoming::Received { conn, db } => {
                if let Some(pipe) = self.pipes.get_mut(&conn) {
                    (pipe.receiver, pipe.is_received) = (None, false);
                    pipe.link.on_snapshot(db, inputs);
                    self.drive_link(conn, inputs, out);
                }
            }
            Incoming::Tick => {
                self.ticks += 1;
                let now = self.core.now().mono_ms;
                if now >= self.next_period {
                    self.next_period = now + self.period;
                    self.touch_waiting();
                    inputs.push(self.core.collect_touches());
                    self.core.log.look_for_room();
                }
                self.tries_again = true;
                inputs.push(Input::Tick);
            }
        }
    }

    // Its files.

    /// Reads its old files again, as a thread of a server does.
    pub fn scrub(&self) -> Result<Vec<StorageError>, String> {
        let Files { disk, dirs, owners, .. } = &self.files;
        let wait: Wait = Arc::new(|_| true);
        let pass = Scrub::new(*owners).pass(&**disk, dirs, &wait).map_err(|error| error.to_string())?;
        report_scrub(&self.core, &pass, 0, Duration::ZERO);
        Ok(pass.damaged)
    }

    /// What the newest of its snapshots shows that can be read.
    pub fn newest_good_snapshot(&self) -> Option<Zxid> {
        let Files { disk, dirs, owners, .. } = &self.files;
        let snapshots = snapshots_in(&**disk, &dirs.data).unwrap_or_default();
        let is_good = |(zxid, path): &&(Zxid, PathBuf)| check_snapshot(&**disk, *zxid, path, *owners).is_ok();
        snapshots.iter().rev().find(is_good).map(|(zxid, _)| *zxid)
    }

    // Its end.

    /// Hears what no server says, over links that nobody vouched for and then over those that it has. True: of what
    /// lasts, the former moved something. To be called when it ends, for it is of no use any more.
    pub fn hear_extremes(&mut self, random: &mut Random) -> bool {
        let (last, sessions) = {
            let db = self.core.db.read();
            (db.last_zxid, db.sessions.keys().take(3).copied().collect())
        };
        let body = self.last_body.clone();
        let serves = self.mode().has_leader();
        let links: Vec<LinkId> = self.pipes.keys().map(|key| LinkId(*key)).collect();
        let mut extremes = Extremes { random, last, sessions, body };
        self.core.log.take_now();
        let strange = |number: u64| LinkId(u64::MAX - number);
        for number in 0..EXTREMES {
            // Over each too little to become a member by chance.
            let (link, accepted) = (strange(number), QuorumInput::Accepted(strange(number)));
            let inputs = [Input::Quorum(accepted), extremes.input(link), extremes.input(link)];
            self.core.submit(&mut inputs.into(), None);
        }
        // Who looks for a leader follows whoever claims to be one.
        let has_moved = serves && !self.core.log.take_now().is_empty();
        for _ in 0..EXTREMES {
            let link = if links.is_empty() { strange(0) } else { *extremes.random.pick(&links) };
            self.core.submit(&mut vec![extremes.input(link)], None);
            if extremes.random.permille(100) {
                self.core.submit(&mut vec![Input::Tick], None);
            }
        }
        has_moved
    }

    // The quorum port.

    /// Does what a link asks for, as far as there are bytes.
    fn drive_link(&mut self, conn: u64, inputs: &mut Vec<Input>, out: &mut Vec<Effect>) {
        let Some(pipe) = self.pipes.get_mut(&conn) else { return };
        let before = inputs.len();
        let (why, is_own) = loop {
            let step = pipe.link.take(&mut pipe.bytes, &|| self.core.collect_touches(), inputs);
            if pipe.is_held && inputs.len() > before {
                self.wrong = Some(format!("link {conn} takes packets while it is held"));
            }
            match step {
                Step::NeedMore | Step::Held => return,
                // Hosts have no addresses here that could tell who somebody is.
                Step::Claims(_) => pipe.link.admit(inputs),
                Step::Snapshot(zxid) => match pipe.receive(LinkId(conn), zxid, &self.files) {
                    Ok(None) => return,
                    Ok(Some(db)) => {
                        let incoming = Incoming::Received { conn, db };
                        return out.push(Effect::Later { disk: true, bytes: 0, incoming });
                    }
                    Err(error @ ReceiveError::Storage(_)) => break (error.to_string(), true),
                    Err(error) => break (error.to_string(), false),
                },
                Step::Broken(why) => break (why.to_string(), false),
            }
        };
        if pipe.to_leader && !is_own {
            self.wrong = Some(format!("the leader, on link {conn}: {why}"));
        }
        tracing::info!("link {conn} ends: {why}");
        inputs.extend(self.pipes.remove(&conn).and_then(|pipe| pipe.link.end()));
        out.push(Effect::Close(conn));
    }

    fn feed(&mut self, conn: u64, inputs: &mut Vec<Input>, out: &mut Vec<Effect>) {
        let Some(pipe) = self.pipes.get_mut(&conn) else { return };
        let Some(feeder) = &mut pipe.feeder else { return };
        let id = LinkId(conn);
        let mut piece = BytesMut::new();
        let fed = feeder.next(&mut piece);
        tracing::debug!("link {conn} is fed {} bytes: {fed:?}", piece.len());
        let bytes = piece.len();
        if !piece.is_empty() {
            out.push(Effect::Send(conn, piece.freeze()));
        }
        match fed {
            // Pieces are small here: reading them must not take so long that writes come in faster.
            Ok(Fed::More) => {
                out.push(Effect::Later { disk: false, bytes, incoming: Incoming::Feed(conn) });
                return;
            }
            Ok(Fed::Upto(upto)) => inputs.push(Input::Quorum(QuorumInput::Fed { link: id, upto })),
            Ok(Fed::Located(found)) => inputs.push(Input::Quorum(QuorumInput::Located { link: id, found })),
            Err(why) => {
                tracing::info!("link {conn} cannot be fed: {why}");
                self.core.snapshots.ask();
                inputs.push(Input::Quorum(QuorumInput::FeedFailed { link: id }));
            }
        }
        pipe.feeder = None;
    }

    /// Whether what waits for this link is bounded by whoever sends, and not by the pace at which it is fed out of files.
    pub fn has_window(&self, conn: u64) -> bool {
        self.pipes.get(&conn).is_some_and(|pipe| pipe.feeder.is_none())
    }

    /// As leader: the sessions that are not about to end.
    pub fn living(&self) -> Option<usize> {
        if self.mode() != Mode::Leader {
            return None;
        }
        let count = |replica: &Replica| Some(replica.sessions()?.buckets().map(|(_, ids)| ids.len()).sum());
        self.core.look(count).flatten()
    }

    pub fn has_client(&self, conn: u64) -> bool {
        self.clients.contains_key(&conn)
    }

    // The client port.

    /// A client said something, or its end was seen.
    fn hear(&mut self, conn: u64, inputs: &mut Vec<Input>, out: &mut Vec<Effect>) {
        self.answer_pings(conn);
        if self.core.mailboxes[0].has_mail() {
            self.read_mail(inputs, out);
        }
        self.converse(conn, inputs, out);
    }

    /// Sessions whose requests wait here live on.
    fn touch_waiting(&mut self) {
        let round = self.core.touches.round();
        for conn in &self.unfinished {
            let Some(client) = self.clients.get_mut(conn) else { continue };
            let mut tally = Tally::default();
            client.talk.touch_waiting(round, &mut tally);
            if tally.touched {
                self.core.touches.add(0, client.talk.session());
            }
        }
    }

    /// Answers pings with what was known when mail was last read, which may be there meanwhile.
    fn answer_pings(&mut self, conn: u64) {
        let handed_in = self.handed_in;
        let Some(ClientConn { talk, socket, .. }) = self.clients.get_mut(&conn) else { return };
        let bounds = bounds(&self.core, &self.limits, handed_in);
        if !socket.is_empty() && talk.has_space(bounds) {
            talk.take(&socket.split_to(socket.len().min(self.piece)));
        }
        let mut tally = Tally::default();
        talk.answer_pings(|| self.seen, bounds, self.core.touches.round(), &mut tally);
        if tally.touched {
            self.core.touches.add(0, talk.session());
        }
    }

    /// Reads the socket, works, and sends, as long as there is something to do.
    fn converse(&mut self, conn: u64, inputs: &mut Vec<Input>, out: &mut Vec<Effect>) {
        let handed_in = self.handed_in;
        let Some(client) = self.clients.get_mut(&conn) else { return };
        let ClientConn { talk, socket, ended } = client;
        let before = talk.handed_in();
        let db = self.core.db.read();
        let bounds = bounds(&self.core, &self.limits, handed_in);
        loop {
            let work = Budget::default();
            let world = world(&self.core, &db, &work, &self.rules, &self.limits, handed_in);
            let mut has_read = false;
            if !socket.is_empty() && talk.has_space(bounds) {
                talk.take(&socket.split_to(socket.len().min(self.piece)));
                has_read = true;
            } else if socket.is_empty() && *ended && !talk.has_ended() {
                talk.end_of_input(End::ClientClosed);
            }
            let mut tally = Tally::default();
            talk.advance(&world, inputs, &mut tally);
            self.work.steps += work.spent();
            if work.spent() > MOST_STEPS {
                self.wrong = Some(format!("hold: {} steps under one lock", work.spent()));
            }
            if tally.touched {
                self.core.touches.add(0, talk.session());
            }
            let state = (self.core.with_status(|status| status.mode), db.last_zxid.0);
            if tally.reads > 0 && self.reads.last() != Some(&state) {
                self.reads.push(state);
            }
            if tally.reads > 0 && !self.core.may_read() {
                self.wrong =
                    Some("lease: a read was answered by a server that may have no leader any more".into());
            }
            if !has_read && !talk.has_work(bounds) {
                break;
            }
        }
        if !talk.output().is_empty() {
            let bytes = Bytes::copy_from_slice(talk.output());
            talk.sent(bytes.len());
            out.push(Effect::Send(conn, bytes));
        }
        talk.flushed();
        self.handed_in = self.handed_in - before + talk.handed_in();
        let is_free =
            Bounds { outstanding: 0, admitted_bytes: 0, unlogged_bytes: 0, may_read: true, ..bounds };
        if talk.has_work(is_free) || !socket.is_empty() {
            self.unfinished.insert(conn);
        } else {
            self.unfinished.remove(&conn);
        }
        if let Some(why) = talk.over(bounds) {
            tracing::debug!("client {conn} ends: {why}");
            let (id, session, is_known) = (talk.id(), talk.session(), talk.is_known());
            let mut watches = db.watches.lock();
            if let Some(mut departed) = watches.depart(id) {
                watches.forget(&mut departed, usize::MAX);
            }
            drop(watches);
            if is_known {
                inputs.push(Input::Disconnected { conn: id, session });
            }
            drop(db);
            self.handed_in -= talk.handed_in();
            self.unfinished.remove(&conn);
            self.clients.remove(&conn);
            out.push(Effect::Close(conn));
        }
    }

    fn read_mail(&mut self, inputs: &mut Vec<Input>, out: &mut Vec<Effect>) -> bool {
        let mut mail = std::mem::take(&mut self.mail);
        let mut heard = Vec::new();
        let mut any = false;
        {
            let db = self.core.db.read();
            self.core.mailboxes[0].take(&mut mail);
            let work = Budget::default();
            let world = world(&self.core, &db, &work, &self.rules, &self.limits, self.handed_in);
            while let Some((message, bytes)) = mail.pop() {
                any = true;
                let conn = message.conn.0;
                let Some(client) = self.clients.get_mut(&conn) else {
                    // It is gone. A session that was opened for it stays without a connection.
                    if let ClientMessage::Established { session, .. } = message.message {
                        inputs.push(Input::Disconnected { conn: message.conn, session });
                    }
                    continue;
                };
                let before = client.talk.handed_in();
                client.talk.on_mail(message.message, bytes, &world, &mut Tally::default());
                self.handed_in = self.handed_in - before + client.talk.handed_in();
                if heard.last() != Some(&conn) {
                    heard.push(conn);
                }
            }
            self.seen = db.last_zxid.0;
        }
        self.mail = mail;
        heard.sort_unstable();
        heard.dedup();
        for conn in heard {
            self.converse(conn, inputs, out);
        }
        any
    }

    // Snapshots.

    fn snapshot_step(&mut self, out: &mut Vec<Effect>) {
        let Some(Job { job, written }) = &mut self.snapshot else { return };
        let failed = if *written {
            false
        } else {
            match job.slice(&mut self.core.db.write(), self.slice) {
                None => true,
                Some(slice) => match job.write(&slice) {
                    Ok(done) => {
                        *written = done;
                        false
                    }
                    Err(_) => true,
                },
            }
        };
        if failed {
            self.core.db.write().tree.abandon_snapshot();
            self.snapshot = None;
        } else if *written && job.may_finish(self.core.durable()) {
            let Some(Job { job, .. }) = self.snapshot.take() else { return };
            if job.finish().is_err() {
                self.core.db.write().tree.abandon_snapshot();
            }
        } else {
            out.push(Effect::Later { disk: true, bytes: 0, incoming: Incoming::Snapshot });
        }
    }

    // What the core wants done.

    fn settle(&mut self, out: &mut Vec<Effect>) {
        let mut inputs = Vec::new();
        loop {
            let carried = std::mem::take(&mut *self.carried.0.lock());
            let mut any = !carried.is_empty();
            for carry in carried {
                self.carry(carry, &mut inputs, out);
            }
            any |= self.read_mail(&mut inputs, out);
            self.core.submit(&mut inputs, None);
            if !any {
                break;
            }
        }
        // Reads may have waited for a lease, and bytes for room.
        let bounds = bounds(&self.core, &self.limits, self.handed_in);
        let has_work = |client: &ClientConn| {
            client.talk.has_work(bounds) || (!client.socket.is_empty() && client.talk.has_space(bounds))
        };
        let may_have = self.unfinished.iter().filter_map(|conn| Some((conn, self.clients.get(conn)?)));
        let waiting = may_have.filter(|(_, client)| has_work(client));
        for conn in waiting.map(|(conn, _)| *conn).collect::<Vec<_>>() {
            self.converse(conn, &mut inputs, out);
        }
        if !inputs.is_empty() {
            self.core.submit(&mut inputs, None);
            return self.settle(out);
        }
        self.start_disk(out);
        if self.snapshot.is_none() && self.core.snapshots.take_due() {
            let Files { disk, dirs, .. } = &self.files;
            let with_digest = self.core.snapshots.with_digest();
            let begun =
                SnapshotJob::begin(&mut self.core.db.write(), disk, dirs, SnapshotForm::USUAL, with_digest);
            if let Ok(job) = begun {
                self.snapshot = Some(Job { job, written: false });
                out.push(Effect::Later { disk: true, bytes: 0, incoming: Incoming::Snapshot });
            }
        }
    }

    fn start_disk(&mut self, out: &mut Vec<Effect>) {
        if self.disk_busy || self.failed.is_some() {
            return;
        }
        let mut ops = std::mem::take(&mut self.waits_for_room);
        if ops.is_empty() {
            ops = self.core.log.take_now();
            for op in &ops {
                if let DiskOp::Append(entry) = op {
                    self.last_body = entry.body.clone();
                    self.appended.push((entry.zxid.0, entry.body.clone()));
                }
            }
        } else if !std::mem::take(&mut self.tries_again) {
            self.waits_for_room = ops;
            return;
        }
        if ops.is_empty() {
            if self.core.log.take_look() {
                let performed = self.journal.look_for_room();
                self.core.performed(performed);
            }
            return;
        }
        let asked = ops.clone();
        self.take_back(&ops);
        match self.journal.perform(&mut ops) {
            Ok(performed) => {
                let done = &asked[..asked.len() - ops.len()];
                let bytes = self.count_logged(done);
                self.promise(done);
                let appends = asked.iter().any(|op| matches!(op, DiskOp::Append(_)));
                self.waits_for_room = ops;
                self.disk_busy = true;
                self.writes_since = Some(self.core.now().mono_ms).filter(|_| appends);
                out.push(Effect::Later { disk: true, bytes, incoming: Incoming::DiskDone(performed) });
            }
            Err(error) => self.failed = Some(error.to_string()),
        }
    }

    /// The log has these durably. Returns the bytes that they took.
    fn count_logged(&mut self, done: &[DiskOp]) -> usize {
        let mut bytes = 0;
        for op in done {
            if let DiskOp::Append(entry) = op {
                bytes += entry.body.len();
                self.staged.as_mut().unwrap_or(&mut self.logged).push(entry.zxid.0);
            } else if let DiskOp::Stage { .. } = op {
                self.staged = Some(Vec::new());
            } else if let DiskOp::Install { .. } = op {
                self.logged.extend(self.staged.take().into_iter().flatten());
            } else if let DiskOp::Unstage { .. } = op {
                self.staged = None;
            }
        }
        bytes
    }

    /// What these take away it promises no more, before any of them is done: any may be the last.
    fn take_back(&mut self, ops: &[DiskOp]) {
        let (before, staged) = (self.promised, self.staged_last);
        let (mut last, mut owed) = (before.last, before.owed);
        for at in 0..ops.len() {
            self.promise(&ops[at..=at]);
            last = last.min(self.promised.last);
            owed = owed.min(self.promised.owed);
        }
        (self.promised, self.staged_last) = (Promised { last, owed, ..before }, staged);
    }

    /// These are done, and it may say so.
    fn promise(&mut self, done: &[DiskOp]) {
        let then = &mut self.promised;
        for op in done {
            match op {
                DiskOp::Append(entry) => *self.staged_last.as_mut().unwrap_or(&mut then.last) = entry.zxid,
                DiskOp::Stage { zxid, .. } => self.staged_last = Some(*zxid),
                DiskOp::Install { .. } => then.last = self.staged_last.take().unwrap_or(then.last),
                DiskOp::Unstage { .. } => self.staged_last = None,
                DiskOp::Truncate { to, .. } => then.last = then.last.min(*to),
                DiskOp::Wipe { .. } => then.last = Zxid::ZERO,
                DiskOp::SaveAccepted(epoch) => then.accepted = *epoch,
                DiskOp::SaveCurrent(epoch) => then.current = *epoch,
                DiskOp::SaveDebt(debt) => then.owed = reach(*debt),
                DiskOp::SaveConfig(_) => {}
            }
        }
    }

    fn carry(&mut self, carry: Carry, inputs: &mut Vec<Input>, out: &mut Vec<Effect>) {
        match carry {
            Carry::Election(LinkOutput::Dial { to, .. }) => {
                out.push(Effect::Dial { port: Port::Election, to });
            }
            Carry::Election(LinkOutput::Write { conn, bytes }) => out.push(Effect::Send(conn.0, bytes)),
            Carry::Election(LinkOutput::Close { conn, .. }) => {
                out.push(Effect::Close(conn.0));
                inputs.push(Input::Election(ElectionInput::Closed(conn)));
            }
            Carry::DialLeader(to) => out.push(Effect::Dial { port: Port::Quorum, to }),
            Carry::Listen(listen) => self.listens_for_learners = listen.quorum.is_some(),
            Carry::Send(conn, bytes) => out.push(Effect::Send(conn, bytes)),
            Carry::Link(conn, LinkAction::Hold(on)) => {
                if let Some(pipe) = self.pipes.get_mut(&conn) {
                    pipe.link.hold(on);
                    pipe.is_held = on;
                    self.drive_link(conn, inputs, out);
                }
            }
            Carry::Link(conn, LinkAction::Close(why)) => {
                tracing::info!("link {conn} is closed: {why}");
                if let Some(pipe) = self.pipes.remove(&conn) {
                    out.push(Effect::Close(conn));
                    inputs.extend(pipe.link.end());
                }
            }
            Carry::Link(conn, LinkAction::Feed(feed)) => {
                if let Some(pipe) = self.pipes.get_mut(&conn) {
                    pipe.feeder = Some(Feeder::new(self.files.clone(), feed));
                    out.push(Effect::Later { disk: true, bytes: 0, incoming: Incoming::Feed(conn) });
                }
            }
            Carry::Accused(why) => self.wrong = Some(why),
            Carry::Link(_, LinkAction::Send { .. }) => unreachable!("taken above"),
        }
    }
}

impl Pipe {
    fn new(link: Link, to_leader: bool) -> Self {
        let bytes = BytesMut::new();
        Self { link, bytes, to_leader, is_held: false, receiver: None, is_received: false, feeder: None }
    }

    /// Takes more of the snapshot that follows SNAP.
    fn receive(
        &mut self,
        id: LinkId,
        zxid: Zxid,
        files: &Files,
    ) -> Result<Option<Box<Database>>, ReceiveError> {
        if self.is_received {
            return Ok(None);
        }
        if self.receiver.is_none() {
            let Files { disk, dirs, owners, .. } = files;
            self.receiver = Some(Receiver::new(disk.clone(), dirs, *owners, id, zxid)?);
        }
        let taken = self.receiver.as_mut().map_or(Ok(None), |receiver| receiver.take(&mut self.bytes))?;
        self.is_received = taken.is_some();
        Ok(taken)
    }
}

fn bounds<'a>(core: &Core, limits: &'a Limits, handed_in: usize) -> Bounds<'a> {
    let admitted_bytes = handed_in.max(core.outstanding_bytes());
    let (outstanding, unlogged_bytes) = (core.outstanding(), core.unlogged_bytes());
    let (may_read, refuses_writes) = (core.may_read(), core.refuses_writes());
    Bounds { limits, outstanding, admitted_bytes, unlogged_bytes, may_read, refuses_writes }
}

fn world<'a>(
    core: &Core,
    db: &'a Database,
    work: &'a Budget,
    rules: &'a Rules,
    limits: &'a Limits,
    handed_in: usize,
) -> World<'a> {
    World {
        db,
        work,
        bounds: bounds(core, limits, handed_in),
        rules,
        logins: None,
        now: Duration::from_millis(core.now().mono_ms),
        touch_round: core.touches.round(),
        nonce: || None,
    }
}
