//! One server's whole behaviour as a value: inputs in, outputs out. No socket, file, thread, clock or random source.
//!
//! `handle` takes one input and reads the database; what is committed is applied by `apply`, for which the driver takes
//! the database's write lock once per batch. In between, the driver does the disk's work and tells what is done, and
//! carries packets. A server alone is an ensemble of one: its quorum is its own log.

#![cfg_attr(
    not(test),
    warn(
        missing_docs,
        unreachable_pub,
        clippy::allow_attributes_without_reason,
        clippy::cast_possible_truncation,
        clippy::wildcard_enum_match_arm
    )
)]

mod clients;
mod inputs;
mod leadership;
mod leading;
mod learning;
mod lineage;
mod outputs;
mod read_only;
mod replies;
mod serving;
mod share;
mod status;
#[cfg(test)]
mod tests;

pub use inputs::{ElectionInput, Input, Now, QuorumInput};
pub use outputs::{ClientMessage, ClientOutput, CloseReason, Listen, Outputs, Refusal, Tally, Told};
pub use status::{Amounts, Mode, Standing, Status};

use crate::election::Pace;
use crate::ensemble::{Ensemble, Member, PeerAddress, View};
use crate::jute::records::Id;
use crate::model::{Budget, ConnId, Debt, Epoch, Room, ServerId, SessionId, Zxid, perms};
use crate::request::{Rules, acl, write_event};
use crate::session::{SessionIds, SessionTracker, password_of};
use crate::tree::{AclList, Database, WatchEvent};
use crate::wire::connect::Connect;
use crate::zab::{self, Zab};
use bytes::{Bytes, BytesMut};
use clients::{Clients, Hello};
use leadership::Leadership;
use leading::Leading;
use lineage::shares_nothing;
use read_only::ReadOnly;
use serving::{Serving, Turn, Welcome};
use share::STEPS_AT_ONCE;
use std::collections::VecDeque;
use std::sync::Arc;

pub use crate::zab::{
    CloseWhy, ConfigFile, DiskDone, DiskOp, Doubt, Entry, Feed, Foreign, LeaderMisbehaved, LinkAction,
    Located, LogEntry, LostWhy, Position, Reader, Strangers, is_in_log,
};

/// What the replica needs to know of the configuration.
#[derive(Debug, Clone)]
pub struct Settings {
    /// This server's id.
    pub server: ServerId,
    /// Milliseconds of a tick (`tickTime`).
    pub tick_ms: u64,
    /// The shortest timeout of a session that a client is given (`minSessionTimeout`).
    pub min_session_timeout_ms: i32,
    /// The longest one (`maxSessionTimeout`).
    pub max_session_timeout_ms: i32,
    /// How often containers and TTL znodes are looked through.
    pub container_check_ms: u64,
    /// How many containers and TTL znodes are removed in a minute, at the most.
    pub container_max_per_minute: u64,
    /// 0: a container that never had a child stays.
    pub container_max_never_used_ms: i64,
    /// What requests are checked against.
    pub rules: Rules,
    /// The leader takes clients too (`leaderServes`).
    pub leader_serves: bool,
    /// Without a leader, clients that take it may read (`readonlymode.enabled`).
    pub read_only_mode: bool,
    /// A configuration of fewer than two voters is refused (`standaloneEnabled`).
    pub standalone_enabled: bool,
    /// What the protocol needs to know.
    pub zab: zab::Settings,
    /// The intervals of elections.
    pub pace: Pace,
    /// The addresses at which other servers are asked to call this one.
    pub election_addresses: Vec<(String, u16)>,
    /// Milliseconds that a stranger on the election port has to say who it is.
    pub handshake_ms: u64,
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

impl Step {
    /// It takes no longer than a share. What may take longer comes first under a hold of the lock, or not at all.
    fn is_short(&self) -> bool {
        match self {
            Self::Deliver(entry) => entry.txn.body.steps() <= STEPS_AT_ONCE,
            Self::Install(_) | Self::Reload(_) => false,
            Self::Leads(_) | Self::Learns(_) | Self::Lost(..) => false,
            // Each may answer much that waits for it.
            Self::SyncReady | Self::Synced => false,
        }
    }
}

/// One server. Each input comes with the time, and the server asks for all that has effects.
#[derive(Debug)]
pub struct Replica {
    settings: Settings,
    zab: Zab,
    leadership: Leadership,
    serving: Serving,
    ids: SessionIds,
    clients: Clients,
    steps: VecDeque<Step>,
    /// When the last input came, in monotonic milliseconds.
    last_input_ms: u64,
    /// The database of the snapshot that is being installed.
    received: Option<Box<Database>>,
    /// The database of a log that was cut.
    reread: Option<Box<Database>>,
    events: Vec<crate::tree::Event>,
    watch_events: Vec<WatchEvent>,
    status_changed: bool,
    listening: Option<Listen>,
}

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
            tree_differs: false,
            committed: db.last_zxid,
        };
        let mut replica = Self::new(settings, View::new(Arc::new(me)), at, now);
        replica.zab.lead_alone(now.mono_ms);
        replica.leadership.skip_election();
        replica.serving = Serving::Leading(Box::new(Leading::begin(now, db, &replica.settings)));
        replica
    }

    /// A member of an ensemble. It begins to look for a leader with the first tick.
    pub fn in_ensemble(settings: Settings, view: View, at: Position, now: Now) -> Self {
        Self::new(settings, view, at, now)
    }

    fn new(settings: Settings, view: View, at: Position, now: Now) -> Self {
        Self {
            zab: Zab::new(settings.zab.clone(), view, at),
            leadership: Leadership::new(now, &settings),
            serving: Serving::Nobody,
            ids: SessionIds::new(settings.server, now.wall_ms as u64),
            clients: Clients::default(),
            steps: VecDeque::new(),
            last_input_ms: now.mono_ms,
            received: None,
            reread: None,
            events: Vec::new(),
            watch_events: Vec::new(),
            status_changed: true,
            listening: None,
            settings,
        }
    }

    /// Takes one input. What it asks for is added to `out`.
    pub fn handle(&mut self, now: Now, db: &Database, input: Input, out: &mut Outputs) {
        self.notice_standstill(now, db, out);
        match input {
            Input::Connect { conn, connect } => self.on_connect(now, db, conn, connect, out),
            Input::Request { conn, request } => {
                let (serving, mut turn) = self.turn(now, db, out);
                serving.on_request(conn, request, &mut turn);
            }
            Input::Disconnected { conn, session } => self.clients.on_disconnected(conn, session),
            Input::Touched(sessions) => {
                let (serving, turn) = self.turn(now, db, out);
                serving.on_touched(sessions, &turn);
            }
            Input::Disk(done, reread) => {
                self.reread = reread.or(self.reread.take());
                self.zab.on_disk(now.mono_ms, done, &mut out.zab);
            }
            Input::Room(room) => self.on_room(now, db, room, out),
            Input::Election(input) => {
                let (leadership, mut turn) = self.leadership_turn(now, db, out);
                leadership.on_election(input, &mut turn);
                self.end_read_only(now, out);
            }
            Input::Quorum(input) => self.on_quorum(now, db, input, out),
            Input::Tick => self.on_tick(now, db, out),
        }
        self.after(now, db, out);
    }

    /// What the disk can take has changed. Once it can't take what is under way, the clients that wait for that learn that nobody knows
    /// its outcome: they may read here, or go elsewhere.
    fn on_room(&mut self, now: Now, db: &Database, room: Room, out: &mut Outputs) {
        let lacked = self.zab.server.lacks_room(now.mono_ms);
        self.zab.on_room(now.mono_ms, room);
        if self.zab.server.lacks_room(now.mono_ms) != lacked {
            let (leadership, mut turn) = self.leadership_turn(now, db, out);
            leadership.on_room(&mut turn);
        }
        if room == Room::Out {
            self.serving.waiting_for_log().into_iter().for_each(|conn| out.close(conn, CloseReason::NoRoom));
        }
    }

    /// Inputs come at least twice a tick. Where one is later than that by a whole one, this process was stopped, got no time of
    /// its machine, or was busy: the time in which it could hear nobody counts against nobody, before anything else is looked at.
    fn notice_standstill(&mut self, now: Now, db: &Database, out: &mut Outputs) {
        let before = std::mem::replace(&mut self.last_input_ms, now.mono_ms);
        let ms = now.mono_ms.saturating_sub(before);
        if ms > (self.settings.tick_ms * 3 / 2).max(SHORTEST_STANDSTILL_MS) {
            out.told.push(Told::StoodStill { ms });
            let (serving, mut turn) = self.turn(now, db, out);
            serving.on_stood_still(ms, &mut turn);
        }
    }

    /// Carries on with what the protocol decided.
    fn after(&mut self, now: Now, db: &Database, out: &mut Outputs) {
        loop {
            while let Some(event) = out.zab.events.pop_front() {
                self.on_event(now, db, event, out);
            }
            if self.steps.is_empty() {
                let (leadership, mut turn) = self.leadership_turn(now, db, out);
                leadership.settle(&mut turn);
            }
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
        let (serving, mut turn) = self.turn(now, db, out);
        match event {
            Event::Deliver(entry) => self.steps.push_back(Step::Deliver(entry)),
            Event::Install(zxid) => self.steps.push_back(Step::Install(zxid)),
            Event::Reload(zxid) => self.steps.push_back(Step::Reload(zxid)),
            Event::Leads(epoch) => self.steps.push_back(Step::Leads(epoch)),
            Event::Learns(epoch) => self.steps.push_back(Step::Learns(epoch)),
            Event::Lost { why, next } => self.steps.push_back(Step::Lost(why, next)),
            Event::SyncReady => self.steps.push_back(Step::SyncReady),
            Event::Synced => self.steps.push_back(Step::Synced),
            Event::Reconfigured => self.on_reconfigured(now, db, out),
            Event::Forwarded { link, request } => serving.on_forwarded(link, request, &mut turn),
            Event::Touched(sessions) => serving.on_learners_touched(&sessions, &turn),
            Event::Revalidate { link, session, timeout_ms } => {
                serving.on_revalidate(link, session, timeout_ms, &mut turn);
            }
            Event::Refused { leader, what } => out.refusal = Some(Refusal { leader, what }),
            Event::LinkGone(_) => self.status_changed = true,
            Event::Joined { learner, observer } => out.told.push(Told::Joined { learner, observer }),
            Event::Left { learner, why } => out.told.push(Told::Left { learner, why }),
            Event::Pinged(zxid) => serving.on_pinged(zxid, &mut turn),
            Event::Revalidated { session, valid } => serving.on_revalidated(session, valid, &mut turn),
        }
    }

    // Clients.

    /// The part that this server plays for its clients, and what it needs to act.
    fn turn<'a>(
        &'a mut self,
        now: Now,
        db: &'a Database,
        out: &'a mut Outputs,
    ) -> (&'a mut Serving, Turn<'a>) {
        let access = self.serving.access();
        let Self { serving, settings, zab, clients, status_changed, .. } = self;
        (serving, Turn { now, db, settings, zab, clients, access, status_changed, out })
    }

    /// How this server comes to a leader, and what that needs to act.
    fn leadership_turn<'a>(
        &'a mut self,
        now: Now,
        db: &'a Database,
        out: &'a mut Outputs,
    ) -> (&'a mut Leadership, Turn<'a>) {
        let access = self.serving.access();
        let Self { leadership, settings, zab, clients, status_changed, .. } = self;
        (leadership, Turn { now, db, settings, zab, clients, access, status_changed, out })
    }

    fn on_connect(&mut self, now: Now, db: &Database, conn: ConnId, connect: Connect, out: &mut Outputs) {
        match self.serving.welcome(connect.read_only == Some(true), &self.settings) {
            Welcome::Served => {}
            Welcome::Waits => return self.clients.keep_waiting(now, conn, connect, out),
            Welcome::SentAway => return out.close(conn, CloseReason::NotServing),
        }
        if connect.last_zxid_seen > db.last_zxid.0 {
            // It has seen a future that this server has not: no answer, so that it tries another one.
            return out.close(conn, CloseReason::ClientIsAhead);
        }
        if connect.session == SessionId::NONE && self.serving.is_leading() && self.room() == Room::Out {
            return out.close(conn, CloseReason::NoRoom);
        }
        let (min, max) = (self.settings.min_session_timeout_ms, self.settings.max_session_timeout_ms);
        let timeout_ms = connect.timeout.min(max).max(min);
        let Connect { session, passwd, read_only, last_zxid_seen, .. } = connect;
        let hello = Hello { conn, timeout_ms, read_only, last_zxid_seen };
        if session == SessionId::NONE {
            let session = self.ids.next(|id| db.sessions.contains_key(&id));
            let (serving, mut turn) = self.turn(now, db, out);
            return serving.on_new_session(session, hello, &mut turn);
        }
        out.tally.revalidated_sessions += 1;
        let (serving, mut turn) = self.turn(now, db, out);
        // The password comes first: a stranger must not cut the owner's connection.
        if passwd != password_of(session) {
            return hello.refuse(CloseReason::WrongPassword, turn.access, turn.out);
        }
        serving.on_reattach(session, hello, &mut turn);
    }

    /// Clients are served: whoever waited is let in.
    fn serve(&mut self, now: Now, db: &Database, serving: Serving, out: &mut Outputs) {
        self.serving = serving;
        for (conn, connect) in self.clients.take_arrivals() {
            self.on_connect(now, db, conn, connect, out);
        }
    }

    /// Without a leader nobody is served: every connection ends, so that clients look for a server that has one. Those that
    /// have just come wait for the next one here.
    fn stop_serving(&mut self, now: Now, out: &mut Outputs) {
        let mut conns = self.clients.detach_all();
        let mut arriving = std::mem::replace(&mut self.serving, Serving::Nobody).end(&mut conns);
        arriving.sort_unstable_by_key(|(_, hello)| hello.conn);
        for (session, hello) in arriving {
            self.clients.keep_waiting(now, hello.conn, hello.again(session), out);
        }
        conns.sort_unstable();
        conns.dedup();
        for conn in conns {
            out.close(conn, CloseReason::NotServing);
        }
    }

    /// When read-only mode begins, if there is no leader until then.
    fn read_only_from(&self) -> Option<u64> {
        let looks = self.serving.is_nobody() && self.leadership.is_looking();
        let begins = looks && self.settings.read_only_mode;
        begins.then(|| self.leadership.looking_since() + ReadOnly::grace_ms(&self.settings))
    }

    /// Once a leader is elected, clients find their way to whoever serves them with it.
    fn end_read_only(&mut self, now: Now, out: &mut Outputs) {
        if self.serving.is_read_only() && self.leadership.has_term() {
            self.stop_serving(now, out);
        }
    }

    fn tick_clients(&mut self, now: Now, db: &Database, out: &mut Outputs) {
        self.clients.on_tick(now, out);
        if self.read_only_from().is_some_and(|at| at <= now.mono_ms) {
            self.status_changed = true;
            out.told.push(Told::ReadOnly);
            self.serve(now, db, Serving::ReadOnly(Box::new(ReadOnly::begin(&self.settings))), out);
        }
        let (serving, mut turn) = self.turn(now, db, out);
        serving.on_tick(&mut turn);
    }

    /// Sessions with the connections that they hang on here, in no order.
    pub fn attached(&self) -> impl Iterator<Item = (SessionId, ConnId)> {
        self.clients.attached()
    }

    /// Requests of this server's own clients that are not answered yet.
    pub fn outstanding(&self) -> usize {
        self.serving.outstanding()
    }

    /// What room the disk has, as far as this server was told.
    pub fn room(&self) -> Room {
        self.zab.server.room
    }

    /// Whether new writes of this server's clients are refused: they would have to be in a log that has no room for them. A
    /// learner's clients write by others' logs.
    pub fn refuses_writes(&self) -> bool {
        self.serving.is_leading() && self.room() != Room::Enough
    }

    /// The bytes that wait in its queues.
    pub fn amounts(&self) -> Amounts {
        Amounts {
            outstanding: self.serving.outstanding_bytes(),
            unlogged: self.zab.server.unlogged_bytes(),
            history: self.zab.server.history.bytes(),
            learners: self.zab.bytes_to_learners(),
        }
    }

    /// The sessions whose ends this server decides: all as leader, its own in read-only mode.
    pub fn sessions(&self) -> Option<&SessionTracker> {
        self.serving.sessions()
    }

    /// Sessions that this server alone knows.
    pub fn local_sessions(&self) -> usize {
        self.serving.sessions().filter(|_| self.serving.is_read_only()).map_or(0, SessionTracker::len)
    }

    /// Until when reads may be answered, in monotonic milliseconds: no other leader can be known so long.
    pub fn lease(&self) -> u64 {
        self.serving.lease(&self.zab)
    }

    /// How far this server's term is, and who follows it.
    pub fn standing(&self) -> Standing {
        Standing::of(&self.zab)
    }

    /// Whether transactions and snapshots have digests.
    pub fn writes_digests(&self) -> bool {
        self.settings.rules.txn_digests
    }

    /// What this server tells of itself.
    pub fn status(&self) -> Status {
        Status::of(&self.zab, &self.serving, self.settings.leader_serves)
    }

    /// Whether [`Self::status`] may have changed in more than the standing since this was last asked.
    pub fn take_status_changed(&mut self) -> bool {
        std::mem::take(&mut self.status_changed)
    }

    // The quorum port.

    fn on_quorum(&mut self, now: Now, own: &Database, input: QuorumInput, out: &mut Outputs) {
        let at = now.mono_ms;
        match input {
            QuorumInput::Accepted(link) => {
                let (leadership, mut turn) = self.leadership_turn(now, own, out);
                leadership.on_accepted(link, &mut turn);
            }
            QuorumInput::FromLearner { link, packet } => {
                let (leadership, mut turn) = self.leadership_turn(now, own, out);
                leadership.on_learner_packet(link, packet, &mut turn);
            }
            QuorumInput::Dialed(link) => self.zab.on_dialed(at, link, &mut out.zab),
            QuorumInput::DialFailed => self.zab.on_dial_failed(at),
            QuorumInput::FromLeader { link, packet } => {
                self.zab.on_leader_packet(at, link, packet, &mut out.zab)
            }
            QuorumInput::Snapshot { link, zxid, db } => {
                let committed = self.zab.server.committed_at_start;
                if zxid >= committed && shares_nothing(own, &db, committed) {
                    self.zab.refuse(link, Foreign::Snapshot(zxid), &mut out.zab);
                } else if self.zab.on_snapshot(at, link, zxid, &mut out.zab) {
                    self.received = Some(db);
                }
            }
            QuorumInput::Closed(link) => {
                let (leadership, mut turn) = self.leadership_turn(now, own, out);
                leadership.on_closed(link, &mut turn);
            }
            QuorumInput::Located { link, found } => self.zab.on_located(at, link, found, &mut out.zab),
            QuorumInput::Fed { link, upto } => self.zab.on_fed(at, link, upto, &mut out.zab),
            QuorumInput::FeedFailed { link } => self.zab.on_feed_failed(at, link, &mut out.zab),
        }
    }

    fn on_reconfigured(&mut self, now: Now, db: &Database, out: &mut Outputs) {
        self.status_changed = true;
        let (leadership, mut turn) = self.leadership_turn(now, db, out);
        leadership.on_reconfigured(&mut turn);
        let view = &self.zab.server.view;
        let pending = view.pending().is_some();
        let config = if pending { &view.last_seen } else { &view.committed };
        out.told.push(Told::Reconfigured { version: config.version(), pending, text: config.to_string() });
    }

    fn dial_leader(&mut self, now: Now, leader: ServerId, out: &mut Outputs) {
        let view = &self.zab.server.view;
        let member = view.committed.member(leader).or_else(|| view.last_seen.member(leader));
        match member {
            Some(member) => out.dial = Some((leader, member.addresses.clone())),
            None => self.zab.on_dial_failed(now.mono_ms),
        }
    }

    /// Tells where to listen, where that changed.
    fn listen(&mut self, out: &mut Outputs) {
        let view = &self.zab.server.view;
        let me = self.settings.server;
        let Some(member) = view.committed.member(me).or_else(|| view.last_seen.member(me)) else { return };
        let ports = |port: fn(&PeerAddress) -> u16| {
            member.addresses.iter().map(|address| (address.host.clone(), port(address))).collect::<Vec<_>>()
        };
        let hosts = |member: &Member| {
            (member.id, member.addresses.iter().map(|address| address.host.clone()).collect())
        };
        let may_lead = match self.leadership.has_term() {
            true => self.zab.leader().is_some(),
            false => !self.zab.server.is_observer(),
        };
        let listen = Listen {
            election: ports(|address| address.election_port),
            quorum: may_lead.then(|| ports(|address| address.quorum_port)),
            members: view.required().flat_map(|ensemble| ensemble.members()).map(hosts).collect(),
        };
        if self.listening.as_ref() != Some(&listen) {
            self.listening = Some(listen.clone());
            out.listen = Some(listen);
        }
    }

    // The begin of a term, and its end.

    fn lose(&mut self, now: Now, why: LostWhy, next: zab::Next, out: &mut Outputs) {
        out.told.push(Told::Lost { why });
        self.zab.end_term(&mut out.zab);
        // What the term still had to say is of no use any more.
        out.zab.events.clear();
        self.stop_serving(now, out);
        self.status_changed = true;
        self.leadership.lose(now, next);
    }

    fn begin_leading(&mut self, now: Now, db: &mut Database, epoch: Epoch, out: &mut Outputs) {
        self.leadership.joined(epoch);
        self.enter_epoch(now, db, epoch);
        out.told.push(Told::Leads(epoch));
        let leading = Leading::begin(now, db, &self.settings);
        self.serve(now, db, Serving::Leading(Box::new(leading)), out);
    }

    fn begin_learning(&mut self, now: Now, db: &mut Database, epoch: Epoch, out: &mut Outputs) {
        let Some(learner) = self.zab.learner() else { return };
        let (leader, observer) = (learner.leader(), learner.is_observer());
        self.leadership.joined(epoch);
        self.enter_epoch(now, db, epoch);
        out.told.push(Told::Learns { leader, epoch, observer });
        self.serve(now, db, Serving::Learning(Box::default()), out);
    }

    /// All that came before the epoch is in the database. So that a client that was told an epoch's first zxid may move
    /// on to any server, each stands there at least.
    fn enter_epoch(&mut self, now: Now, db: &mut Database, epoch: Epoch) {
        db.last_zxid = db.last_zxid.max(Zxid::new(epoch, 0));
        let config = &self.zab.server.view.committed;
        db.show_config(&config.to_string(), config.version(), now.wall_ms);
        self.status_changed = true;
    }

    // The state.

    /// When [`Input::Tick`] has something to do, in monotonic milliseconds.
    pub fn next_wake(&self) -> u64 {
        let wakes = [
            self.leadership.next_wake(),
            self.zab.next_wake(),
            self.clients.next_wake(),
            self.serving.next_wake(),
            self.read_only_from(),
        ];
        wakes.into_iter().flatten().min().unwrap_or(u64::MAX)
    }

    /// The configurations that count.
    pub fn view(&self) -> &View {
        &self.zab.server.view
    }

    /// The last transaction that this server knows to be committed.
    pub fn committed(&self) -> Zxid {
        self.zab.server.history.end()
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

    /// What [`Self::apply`] would do next takes no longer than a share, as far as that is known before.
    pub fn next_is_short(&self) -> bool {
        self.steps.front().is_none_or(Step::is_short)
    }

    /// Applies a share of what is committed. Replies and watch events come out in the order of the transactions, the events of
    /// one before its reply: the driver hands them to the reactors before it lets go of the write lock, and comes back while
    /// there is more.
    pub fn apply(&mut self, now: Now, db: &mut Database, out: &mut Outputs) {
        let mut taken = 0;
        while taken < STEPS_AT_ONCE
            && let Some(step) = self.steps.pop_front_if(|step| taken == 0 || step.is_short())
        {
            taken += 1;
            match step {
                Step::Deliver(entry) => {
                    taken += entry.txn.body.steps() - 1;
                    self.deliver(now, db, entry, out);
                }
                Step::Install(zxid) => {
                    let next = self.received.take();
                    replace(db, next, zxid, out);
                }
                Step::Reload(zxid) => {
                    let next = self.reread.take();
                    replace(db, next, zxid, out);
                }
                Step::Leads(epoch) => self.begin_leading(now, db, epoch, out),
                Step::Learns(epoch) => self.begin_learning(now, db, epoch, out),
                Step::Lost(why, next) => self.lose(now, why, next, out),
                Step::SyncReady => {
                    let (serving, mut turn) = self.turn(now, db, out);
                    serving.on_sync_ready(&mut turn);
                }
                Step::Synced => {
                    let (serving, mut turn) = self.turn(now, db, out);
                    serving.on_synced(&mut turn);
                }
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
        let (serving, mut turn) = self.turn(now, db, out);
        serving.on_committed(&entry, &applied, &mut turn);
    }

    fn announce(&mut self, entry: &Entry, db: &mut Database, out: &mut Outputs) {
        let zxid = entry.zxid;
        let watches = db.watches.get_mut();
        if !watches.is_empty() {
            let rules = &self.settings.rules;
            let work = Budget::default();
            let may_read =
                |list: &AclList, ids: &[Id<Bytes>]| acl::permits(rules, list, perms::READ, ids, &work);
            watches.fire(&self.events, &may_read, &mut self.watch_events);
        }
        self.events.clear();
        for event in self.watch_events.drain(..) {
            out.tally.watch_events[event.kind as usize - 1] += 1;
            out.tally.watch_bytes += (EVENT_BYTES + event.path.len()) as u64;
            let write = |bytes: &mut BytesMut| write_event(bytes, zxid.0, event.kind, &event.path);
            self.serving.on_watch_event(event.conn, entry, out, write);
        }
    }

    fn on_tick(&mut self, now: Now, db: &Database, out: &mut Outputs) {
        let (leadership, mut turn) = self.leadership_turn(now, db, out);
        leadership.on_tick(&mut turn);
        self.end_read_only(now, out);
        self.zab.on_tick(now.mono_ms, &mut out.zab);
        self.tick_clients(now, db, out);
    }
}

/// Less is nothing out of the ordinary, however short ticks are.
const SHORTEST_STANDSTILL_MS: u64 = 100;

/// What an event's frame has beside the path.
const EVENT_BYTES: usize = 32;

/// The database of a snapshot, or of a shorter log, takes the place of the present one.
fn replace(db: &mut Database, next: Option<Box<Database>>, zxid: Zxid, out: &mut Outputs) {
    let Some(mut next) = next else { return };
    next.install = db.install + 1;
    assert!(next.last_zxid <= zxid, "{} is more than {zxid}, which was asked for", next.last_zxid);
    out.replaced.push(std::mem::replace(db, *next));
}
