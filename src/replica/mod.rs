//! One server's whole behaviour as a value: inputs in, outputs out. No socket, file, thread, clock or random source.
//!
//! `handle` takes one input and reads the database; what is committed is applied by `apply`, for which the driver takes
//! the database's write lock once per batch. In between, the driver does the disk's work and tells what is done, and
//! carries packets. A server alone is an ensemble of one: its quorum is its own log.

mod clients;
mod leading;
mod learning;
mod lineage;
mod read_only;
mod replies;
mod status;
mod term;
#[cfg(test)]
mod tests;

pub use status::{Mode, Standing, Status};

use crate::election::{Election, ElectionConn, Links, Pace};
use crate::ensemble::{Ensemble, PeerAddress, View};
use crate::jute::records::Id;
use crate::model::{ConnId, Debt, Epoch, ErrorCode, LinkId, ServerId, SessionId, Zxid, perms};
use crate::request::{Request, Rules, acl, write_event, write_reply};
use crate::session::SessionIds;
use crate::tree::{AclList, Applied, Database, WatchEvent};
use crate::wire::connect::Connect;
use crate::wire::election::PeerState;
use crate::wire::quorum::{FromLeader, FromLearner};
use crate::zab::{self, Zab};
use bytes::{Bytes, BytesMut};
use clients::Attached;
use leading::Leading;
use learning::Learning;
use read_only::ReadOnly;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use term::Between;

pub use crate::zab::{
    CloseWhy, ConfigFile, DiskDone, DiskOp, Doubt, Entry, Feed, Foreign, LinkAction, Located, LogEntry,
    LostWhy, Position, Strangers, is_in_log,
};

/// What the replica needs to know of the configuration.
#[derive(Debug, Clone)]
pub struct Settings {
    pub server: ServerId,
    pub tick_ms: u64,
    pub min_session_timeout_ms: i32,
    pub max_session_timeout_ms: i32,
    /// How often containers and TTL znodes are looked through.
    pub container_check_ms: u64,
    pub container_max_per_minute: u64,
    /// 0: a container that never had a child stays.
    pub container_max_never_used_ms: i64,
    pub rules: Rules,
    /// The leader takes clients too (`leaderServes`).
    pub leader_serves: bool,
    /// Without a leader, clients that take it may read (`readonlymode.enabled`).
    pub read_only_mode: bool,
    /// A configuration of fewer than two voters is refused (`standaloneEnabled`).
    pub standalone_enabled: bool,
    pub zab: zab::Settings,
    pub pace: Pace,
    /// What other servers are told to call this one at.
    pub election_addresses: Vec<(String, u16)>,
    /// Milliseconds that a stranger on the election port has to say who it is.
    pub handshake_ms: u64,
}

/// The time of an input.
#[derive(Debug, Clone, Copy, Default)]
pub struct Now {
    /// Monotonic milliseconds: for sessions, elections, deadlines.
    pub mono_ms: u64,
    /// Milliseconds since 1970: for transactions and TTLs.
    pub wall_ms: i64,
}

#[derive(Debug)]
pub enum Input {
    /// The first frame of a client's connection.
    Connect {
        conn: ConnId,
        connect: Connect,
    },
    /// A request that reads do not answer: writes, sync, closeSession.
    Request {
        conn: ConnId,
        request: Request,
    },
    /// A client's connection is gone. [`SessionId::NONE`]: its session was not there yet.
    Disconnected {
        conn: ConnId,
        session: SessionId,
    },
    /// These sessions were heard from just now.
    Touched(Vec<SessionId>),
    /// The disk has done this. A truncated log may need the database read anew: here it is.
    Disk(DiskDone, Option<Box<Database>>),
    Election(ElectionInput),
    Quorum(QuorumInput),
    /// Time has passed.
    Tick,
}

/// What happened on the election port.
#[derive(Debug)]
pub enum ElectionInput {
    Accepted(ElectionConn),
    Dialed { to: ServerId, conn: ElectionConn },
    DialFailed(ServerId),
    Bytes { conn: ElectionConn, bytes: Bytes },
    Closed(ElectionConn),
}

/// What happened on the quorum port, and on the connection to the leader.
#[derive(Debug)]
pub enum QuorumInput {
    Accepted(LinkId),
    FromLearner {
        link: LinkId,
        packet: FromLearner,
    },
    Dialed(LinkId),
    DialFailed,
    FromLeader {
        link: LinkId,
        packet: FromLeader,
    },
    /// The snapshot behind a SNAP is here, as a whole and on disk.
    Snapshot {
        link: LinkId,
        zxid: Zxid,
        db: Box<Database>,
    },
    Closed(LinkId),
    Located {
        link: LinkId,
        found: Located,
    },
    /// A feed is through up to this zxid.
    Fed {
        link: LinkId,
        upto: Zxid,
    },
    FeedFailed {
        link: LinkId,
    },
}

/// What a [`ClientOutput`] means to the connection; its bytes are framed already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClientMessage {
    /// The session is there; reading goes on.
    Established { session: SessionId, timeout_ms: i32 },
    /// The answer to one request that was handed in.
    Reply,
    /// The same, and the connection ends behind it: its session is closed.
    LastReply,
    /// A watch event.
    Event,
    /// Send the bytes, if there are any, and end the connection.
    Close(CloseReason),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CloseReason {
    InvalidSession,
    ClientIsAhead,
    SessionTakenOver,
    SessionEnded,
    /// Its requests come through another server now.
    SessionMoved,
    /// This server has no leader, or is not up to date.
    NotServing,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClientOutput {
    pub conn: ConnId,
    pub message: ClientMessage,
    /// How many of [`Outputs::bytes`] belong to it: they stand in order.
    pub len: usize,
}

/// What the driver has to do on the election port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ElectionOutput {
    Dial {
        to: ServerId,
        addresses: Vec<(String, u16)>,
    },
    /// In one write.
    Write {
        conn: ElectionConn,
        bytes: Bytes,
    },
    /// Once what was written has left.
    Close {
        conn: ElectionConn,
        why: &'static str,
    },
}

/// Where to listen for other servers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listen {
    pub election: Vec<(String, u16)>,
    /// None while another server leads: people look for the leader by its open quorum port.
    pub quorum: Option<Vec<(String, u16)>>,
    /// Who may connect, and the hosts that each is at.
    pub members: Vec<(ServerId, Vec<String>)>,
}

/// Something that people should read in the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Told {
    Looking {
        round: i64,
        zxid: Zxid,
        epoch: Epoch,
    },
    /// This server has nothing, and that one knows of something.
    History {
        from: ServerId,
    },
    Elected {
        leader: ServerId,
        round: i64,
    },
    Leads(Epoch),
    Learns {
        leader: ServerId,
        epoch: Epoch,
        observer: bool,
    },
    Lost {
        why: LostWhy,
    },
    /// There has been no leader for a while.
    ReadOnly,
    Reconfigured {
        version: i64,
        pending: bool,
        text: String,
    },
    /// The tree is another one than the leader's.
    DigestMismatch {
        zxid: Zxid,
        doubt: Doubt,
    },
    /// A write of this session was refused, for its transaction would take more than `limit` bytes; with it, `count` were
    /// since this was told last.
    TooLarge {
        session: SessionId,
        limit: usize,
        count: u64,
    },
}

/// What the driver has to carry out, in order. Reused from batch to batch.
#[derive(Debug, Default)]
pub struct Outputs {
    pub client: Vec<ClientOutput>,
    pub bytes: BytesMut,
    /// The disk's work, packets and what happens to the quorum port's links.
    pub zab: zab::Outputs,
    pub election: Vec<ElectionOutput>,
    /// Connect to the leader, at one of these.
    pub dial: Option<(ServerId, Vec<PeerAddress>)>,
    /// Changes where to listen.
    pub listen: Option<Listen>,
    pub told: Vec<Told>,
    /// This server must not go on: what it has would be lost. The process ends, with this reason.
    pub refusal: Option<Refusal>,
    /// A database that was replaced: dropping it takes time, and should happen outside of every lock.
    pub replaced: Vec<Database>,
    pub tally: Tally,
    /// The namespaces whose quota refused a request, once for each refusal.
    pub quota_exceeded: Vec<String>,
}

/// Why a process ends rather than give up its history.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "server {leader} leads with a history that shares nothing with this server's ({what}): following it would take all that \
     this server has. Nothing was changed. To keep this server's history, stop all servers, move the directory version-2 of \
     the others aside, and start all. To give it up, move version-2 of this server aside, and start it"
)]
pub struct Refusal {
    pub leader: ServerId,
    pub what: Foreign,
}

/// What happened, for the figures.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Tally {
    pub expired_sessions: u64,
    pub revalidated_sessions: u64,
    pub commits: u64,
    pub proposals: u64,
    pub digest_mismatches: u64,
    pub elections: u64,
    pub watch_events: [u64; 4],
    pub watch_bytes: u64,
}

impl Outputs {
    fn client(&mut self, conn: ConnId, message: ClientMessage, write: impl FnOnce(&mut BytesMut)) {
        let before = self.bytes.len();
        write(&mut self.bytes);
        self.client.push(ClientOutput { conn, message, len: self.bytes.len() - before });
    }

    fn close(&mut self, conn: ConnId, reason: CloseReason) {
        self.client(conn, ClientMessage::Close(reason), |_| {});
    }

    fn fail(&mut self, conn: ConnId, xid: i32, zxid: Zxid, code: ErrorCode) {
        self.client(conn, ClientMessage::Reply, |bytes| {
            write_reply(bytes, xid, zxid.0, Err::<fn(&mut BytesMut), _>(code));
        });
    }
}

/// What is applied under the database's write lock, in order.
#[derive(Debug)]
enum Step {
    Deliver(Entry),
    Install(Zxid),
    Reload(Zxid),
    Leads(Epoch),
    Learns(Epoch),
    Lost(LostWhy, zab::Next),
    /// Leading: this server's oldest `sync` is confirmed. Learning: the leader answered it.
    SyncReady,
    Synced,
}

/// Whom this server serves, and how.
#[derive(Debug)]
enum Serving {
    /// No client: there is no leader.
    Nobody,
    Leading(Box<Leading>),
    Learning(Box<Learning>),
    ReadOnly(Box<ReadOnly>),
}

#[derive(Debug)]
pub struct Replica {
    settings: Settings,
    zab: Zab,
    election: Election,
    links: Links,
    between: Between,
    serving: Serving,
    ids: SessionIds,
    /// The connection that each session hangs on here.
    attached: HashMap<SessionId, Attached>,
    /// Those that wait for a leader.
    arrivals: Vec<clients::Arrival>,
    steps: VecDeque<Step>,
    /// The database of the snapshot that is being installed.
    received: Option<Box<Database>>,
    /// The database of a log that was cut.
    reread: Option<Box<Database>>,
    events: Vec<crate::tree::Event>,
    watch_events: Vec<WatchEvent>,
    status_changed: bool,
    listening: Option<Listen>,
    /// Since when there has been no leader.
    looking_since: u64,
    refused_for_size: RefusedForSize,
}

/// Writes that were refused because no server could have read their transactions.
#[derive(Debug, Default)]
struct RefusedForSize {
    untold: u64,
    tell_from_ms: u64,
}

const TELL_TOO_LARGE_EVERY_MS: u64 = 10_000;

impl Replica {
    /// A server that leads an ensemble of one, on the database that recovery gave.
    pub fn alone(settings: Settings, db: &Database, now: Now) -> Self {
        let me = Ensemble::parse(&format!("server.{}=localhost:1:2", settings.server)).expect("it parses");
        let at = Position {
            accepted: db.last_zxid.epoch(),
            current: db.last_zxid.epoch(),
            last: db.last_zxid,
            recent: Vec::new(),
            debt: Debt::None,
            abstains: false,
            committed: db.last_zxid,
        };
        let mut replica = Self::new(settings, View::new(Arc::new(me)), at, now);
        replica.zab.lead_alone(now.mono_ms);
        replica.between = Between::Term;
        replica.lead_clients(now, db);
        replica
    }

    /// A member of an ensemble. It begins to look for a leader with the first tick.
    pub fn in_ensemble(settings: Settings, view: View, at: Position, now: Now) -> Self {
        Self::new(settings, view, at, now)
    }

    fn new(settings: Settings, view: View, at: Position, now: Now) -> Self {
        let me = settings.server;
        Self {
            zab: Zab::new(settings.zab.clone(), view, at),
            election: Election::new(me, settings.pace),
            links: Links::new(me, settings.election_addresses.clone(), settings.handshake_ms),
            between: Between::Settling { next: zab::Next::Election, heard: BTreeMap::new() },
            serving: Serving::Nobody,
            ids: SessionIds::new(me, now.wall_ms as u64),
            attached: HashMap::new(),
            arrivals: Vec::new(),
            steps: VecDeque::new(),
            received: None,
            reread: None,
            events: Vec::new(),
            watch_events: Vec::new(),
            status_changed: true,
            listening: None,
            looking_since: now.mono_ms,
            refused_for_size: RefusedForSize::default(),
            settings,
        }
    }

    pub fn handle(&mut self, now: Now, db: &Database, input: Input, out: &mut Outputs) {
        match input {
            Input::Connect { conn, connect } => self.on_connect(now, db, conn, connect, out),
            Input::Request { conn, request } => self.on_request(now, db, conn, request, out),
            Input::Disconnected { conn, session } => self.on_disconnected(conn, session),
            Input::Touched(sessions) => self.on_touched(now, sessions),
            Input::Disk(done, reread) => {
                self.reread = reread.or(self.reread.take());
                self.zab.on_disk(now.mono_ms, done, &mut out.zab);
            }
            Input::Election(input) => self.on_election(now, input, out),
            Input::Quorum(input) => self.on_quorum(now, db, input, out),
            Input::Tick => self.on_tick(now, db, out),
        }
        self.after(now, db, out);
    }

    /// Takes up what the protocol decided.
    fn after(&mut self, now: Now, db: &Database, out: &mut Outputs) {
        loop {
            while let Some(event) = out.zab.events.pop_front() {
                self.on_event(now, db, event, out);
            }
            self.settle(now, out);
            if out.zab.events.is_empty() {
                break;
            }
        }
        if let Some(leader) = out.zab.dial.take() {
            self.dial_leader(now, leader, out);
        }
        if self.status_changed {
            self.listen(out);
        }
    }

    fn on_event(&mut self, now: Now, db: &Database, event: zab::Event, out: &mut Outputs) {
        use zab::Event;
        match event {
            Event::Deliver(entry) => self.steps.push_back(Step::Deliver(entry)),
            Event::Install(zxid) => self.steps.push_back(Step::Install(zxid)),
            Event::Reload(zxid) => self.steps.push_back(Step::Reload(zxid)),
            Event::Leads(epoch) => self.steps.push_back(Step::Leads(epoch)),
            Event::Learns(epoch) => self.steps.push_back(Step::Learns(epoch)),
            Event::Lost { why, next } => self.steps.push_back(Step::Lost(why, next)),
            Event::SyncReady => self.steps.push_back(Step::SyncReady),
            Event::Synced => self.steps.push_back(Step::Synced),
            Event::Reconfigured => self.on_reconfigured(out),
            Event::Forwarded { link, request } => self.on_forwarded(now, db, link, request, out),
            Event::Touched(sessions) => self.on_learners_touched(now, &sessions),
            Event::Revalidate { link, session, timeout_ms } => {
                self.on_revalidate(now, link, session, timeout_ms, out);
            }
            Event::Refused { leader, what } => out.refusal = Some(Refusal { leader, what }),
            Event::LinkGone(_) => self.status_changed = true,
            Event::Pinged(zxid) => self.on_pinged(zxid, out),
            Event::Revalidated { session, valid } => self.on_revalidated(now, session, valid, out),
        }
    }

    fn on_request(&mut self, now: Now, db: &Database, conn: ConnId, request: Request, out: &mut Outputs) {
        match &self.serving {
            Serving::Nobody => out.close(conn, CloseReason::NotServing),
            Serving::Leading(_) => self.lead_request(now, db, conn, request, out),
            Serving::Learning(_) => self.learn_request(now, db, conn, request, out),
            Serving::ReadOnly(_) => self.read_only_request(db, conn, &request, out),
        }
    }

    /// A write was refused for its size. A client may try it without end: people are told once in a while.
    fn too_large(&mut self, now: Now, session: SessionId, out: &mut Outputs) {
        let refused = &mut self.refused_for_size;
        refused.untold += 1;
        if now.mono_ms >= refused.tell_from_ms {
            let (limit, count) = (self.settings.rules.max_txn_bytes, std::mem::take(&mut refused.untold));
            refused.tell_from_ms = now.mono_ms + TELL_TOO_LARGE_EVERY_MS;
            out.told.push(Told::TooLarge { session, limit, count });
        }
    }

    /// The configurations that count.
    pub fn view(&self) -> &View {
        &self.zab.server.view
    }

    /// What this server may have acknowledged and lost.
    pub fn debt(&self) -> Debt {
        self.zab.server.debt
    }

    /// It has nothing, and has heard of nobody who has.
    pub fn is_new(&self) -> bool {
        self.zab.server.is_new()
    }

    /// Something waits to be applied.
    pub fn has_steps(&self) -> bool {
        !self.steps.is_empty()
    }

    /// Applies what is committed. Replies and watch events come out in the order of the transactions, the events of
    /// one before its reply: the driver hands them to the reactors before it lets go of the write lock.
    pub fn apply(&mut self, now: Now, db: &mut Database, out: &mut Outputs) {
        while let Some(step) = self.steps.pop_front() {
            match step {
                Step::Deliver(entry) => self.deliver(now, db, entry, out),
                Step::Install(zxid) => {
                    let next = self.received.take();
                    replace(db, next, zxid, out);
                }
                Step::Reload(zxid) => {
                    let next = self.reread.take();
                    replace(db, next, zxid, out);
                }
                Step::Leads(epoch) => {
                    self.begin_leading(now, db, epoch, out);
                    self.let_in(now, db, out);
                }
                Step::Learns(epoch) => {
                    self.begin_learning(now, db, epoch, out);
                    self.let_in(now, db, out);
                }
                Step::Lost(why, next) => self.lose(now, why, next, out),
                Step::SyncReady => self.sync_confirmed(db, out),
                Step::Synced => self.sync_answered(db, out),
            }
        }
        self.after(now, db, out);
    }

    fn deliver(&mut self, now: Now, db: &mut Database, entry: Entry, out: &mut Outputs) {
        let applied = db.apply(&entry.txn, &mut self.events);
        out.tally.commits += 1;
        if let Some(digest) = entry.txn.digest
            && digest.tree_digest != db.tree.digest() as i64
        {
            out.tally.digest_mismatches += 1;
            let digest = db.tree.digest() as i64;
            let doubt = self.zab.doubt_tree(now.mono_ms, entry.zxid, digest, &mut out.zab);
            out.told.extend(doubt.map(|doubt| Told::DigestMismatch { zxid: entry.zxid, doubt }));
        }
        self.announce(&entry, db, out);
        match &self.serving {
            Serving::Nobody | Serving::ReadOnly(_) => {}
            Serving::Leading(_) => self.led(now, entry, &applied, out),
            Serving::Learning(_) => self.learned(now, entry, &applied, out),
        }
    }

    fn announce(&mut self, entry: &Entry, db: &mut Database, out: &mut Outputs) {
        let zxid = entry.zxid;
        let watches = db.watches.get_mut();
        if !watches.is_empty() {
            let rules = &self.settings.rules;
            let may_read = |list: &AclList, ids: &[Id<Bytes>]| acl::permits(rules, list, perms::READ, ids);
            watches.fire(&self.events, &may_read, &mut self.watch_events);
        }
        self.events.clear();
        for event in self.watch_events.drain(..) {
            out.tally.watch_events[event.kind as usize - 1] += 1;
            out.tally.watch_bytes += (EVENT_BYTES + event.path.len()) as u64;
            let write = |bytes: &mut BytesMut| write_event(bytes, zxid.0, event.kind, &event.path);
            let held = |write: &dyn Fn(&mut BytesMut)| {
                let mut bytes = BytesMut::new();
                write(&mut bytes);
                bytes.freeze()
            };
            match &mut self.serving {
                Serving::Leading(leading) if leading.holds(event.conn, zxid) => {
                    leading.hold(event.conn, zxid, &held(&write));
                }
                Serving::Learning(learning) => match learning.holds(event.conn, entry) {
                    Some(session) => learning.hold(session, event.conn, entry, held(&write)),
                    None => out.client(event.conn, ClientMessage::Event, write),
                },
                _ => out.client(event.conn, ClientMessage::Event, write),
            }
        }
    }

    fn on_tick(&mut self, now: Now, db: &Database, out: &mut Outputs) {
        self.tick_term(now, out);
        self.zab.on_tick(now.mono_ms, &mut out.zab);
        self.tick_clients(now, db, out);
    }
}

/// What an event's frame has beside the path.
const EVENT_BYTES: usize = 32;

/// The database of a snapshot, or of a shorter log, takes the place of the present one.
fn replace(db: &mut Database, next: Option<Box<Database>>, zxid: Zxid, out: &mut Outputs) {
    let Some(next) = next else { return };
    assert!(next.last_zxid <= zxid, "{} is more than {zxid}, which was asked for", next.last_zxid);
    out.replaced.push(std::mem::replace(db, *next));
}

/// A write's reply, or the end of a connection whose session is at home elsewhere by now: Java answers that with
/// nothing.
fn answer(out: &mut Outputs, conn: ConnId, cxid: i32, entry: &Entry, applied: &Applied) {
    let moved = ErrorCode::SessionMoved.code();
    if applied.err == moved || applied.parts.iter().any(|part| part.err == moved) {
        return out.close(conn, CloseReason::SessionMoved);
    }
    out.client(conn, ClientMessage::Reply, |bytes| {
        replies::write(bytes, cxid, entry.zxid, &entry.txn.body, applied);
    });
}

/// The state that other servers are told.
fn peer_state(observer: bool) -> PeerState {
    if observer { PeerState::Observing } else { PeerState::Following }
}
