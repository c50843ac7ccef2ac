//! One server's whole behaviour as a value: inputs in, outputs out. No socket, file, thread, clock or random source.
//!
//! `handle` takes one input and reads the database; what a quorum has on disk is applied by `apply`, for which the
//! driver takes the database's write lock once per batch. In between, the driver appends to the log and tells the
//! replica what is durable. A server alone is an ensemble of one: its quorum is its own log.

mod replies;
mod sessions;
#[cfg(test)]
mod tests;

use crate::jute::SharedReader;
use crate::jute::records::{Id, SyncRequest};
use crate::model::{ConnId, ErrorCode, Op, ServerId, SessionId, Zxid, perms};
use crate::request::{Preparer, Request, Rules, acl, write_event, write_reply};
use crate::session::SessionTracker;
use crate::tree::{AclList, Database, WatchEvent};
use crate::wire::connect::Connect;
use crate::wire::txn::Txn;
use crate::zab::{Broadcast, Proposal, Quorum};
use bytes::{Bytes, BytesMut};
use std::collections::{HashMap, VecDeque};

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
}

/// The time of an input.
#[derive(Debug, Clone, Copy, Default)]
pub struct Now {
    /// Monotonic milliseconds: for sessions.
    pub mono_ms: u64,
    /// Milliseconds since 1970: for transactions and TTLs.
    pub wall_ms: i64,
}

#[derive(Debug)]
pub enum Input {
    /// The first frame of a connection.
    Connect { conn: ConnId, connect: Connect },
    /// A request that reads do not answer: writes, sync, closeSession.
    Request { conn: ConnId, request: Request },
    /// The connection is gone.
    Disconnected { conn: ConnId, session: SessionId },
    /// These sessions were heard from just now.
    Touched(Vec<SessionId>),
    /// The log holds everything up to this zxid on disk.
    Logged(Zxid),
    /// Time has passed.
    Tick,
}

/// A transaction for the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogEntry {
    pub zxid: Zxid,
    /// Header, record and digest: what the log frames and PROPOSAL packets carry.
    pub body: Bytes,
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
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClientOutput {
    pub conn: ConnId,
    pub message: ClientMessage,
    /// How many of [`Outputs::bytes`] belong to it: they stand in order.
    pub len: usize,
}

/// What the driver has to carry out, in order. Reused from batch to batch.
#[derive(Debug, Default)]
pub struct Outputs {
    pub append: Vec<LogEntry>,
    pub client: Vec<ClientOutput>,
    pub bytes: BytesMut,
    pub tally: Tally,
}

/// What happened, for the figures.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Tally {
    pub expired_sessions: u64,
    pub revalidated_sessions: u64,
    pub commits: u64,
    pub digest_mismatches: u64,
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
}

/// Who waits for a proposal.
#[derive(Debug)]
enum Origin {
    /// The server itself.
    Nobody,
    /// A connection whose session this transaction creates.
    Establish {
        conn: ConnId,
        timeout_ms: i32,
        with_read_only: bool,
    },
    Request {
        conn: ConnId,
        cxid: i32,
    },
    /// closeSession, asked for by `conn` or by the clock.
    CloseSession {
        conn: Option<ConnId>,
        cxid: i32,
    },
}

/// A `sync` that waits until all that was proposed before it is applied.
#[derive(Debug)]
struct PendingSync {
    after: Zxid,
    conn: ConnId,
    xid: i32,
    path: Option<Bytes>,
}

#[derive(Debug)]
pub struct Replica {
    settings: Settings,
    sessions: SessionTracker,
    /// The connection that each session hangs on here.
    attached: HashMap<SessionId, ConnId>,
    preparer: Preparer,
    broadcast: Broadcast,
    /// One for each outstanding or committed proposal, in the same order.
    origins: VecDeque<Origin>,
    committed: VecDeque<Proposal>,
    syncs: VecDeque<PendingSync>,
    removals: VecDeque<Vec<u8>>,
    next_container_check: u64,
    /// Sessions that own ephemerals but are in no session table: closed first of all.
    orphans: Vec<SessionId>,
    events: Vec<crate::tree::Event>,
    watch_events: Vec<WatchEvent>,
    encoded: BytesMut,
}

impl Replica {
    /// A server that leads an ensemble of one, on the database that recovery gave.
    pub fn alone(settings: Settings, db: &Database, now: Now) -> Self {
        let mut sessions = SessionTracker::new(settings.tick_ms, settings.server, now.wall_ms as u64);
        for (session, timeout) in &db.sessions {
            sessions.track(now.mono_ms, *session, *timeout);
        }
        let orphans =
            db.tree.sessions_with_ephemerals().filter(|session| !db.sessions.contains_key(session)).collect();
        let quorum = Quorum::majority([settings.server]);
        Self {
            preparer: Preparer::new(settings.rules.clone(), db.tree.digest()),
            broadcast: Broadcast::new(quorum, db.last_zxid),
            sessions,
            attached: HashMap::new(),
            origins: VecDeque::new(),
            committed: VecDeque::new(),
            syncs: VecDeque::new(),
            removals: VecDeque::new(),
            next_container_check: now.mono_ms + settings.container_check_ms,
            orphans,
            events: Vec::new(),
            watch_events: Vec::new(),
            encoded: BytesMut::new(),
            settings,
        }
    }

    pub fn sessions(&self) -> &SessionTracker {
        &self.sessions
    }

    pub fn attached(&self) -> impl Iterator<Item = (SessionId, ConnId)> {
        self.attached.iter().map(|(session, conn)| (*session, *conn))
    }

    /// Proposals that are not applied yet.
    pub fn outstanding(&self) -> usize {
        self.origins.len()
    }

    pub fn handle(&mut self, now: Now, db: &Database, input: Input, out: &mut Outputs) {
        match input {
            Input::Connect { conn, connect } => self.on_connect(now, db, conn, connect, out),
            Input::Request { conn, request } => self.on_request(now, db, conn, request, out),
            Input::Disconnected { conn, session } => self.on_disconnected(conn, session),
            Input::Touched(sessions) => self.on_touched(now, sessions),
            Input::Logged(zxid) => self.broadcast.on_logged(self.settings.server, zxid, &mut self.committed),
            Input::Tick => self.on_tick(now, db, out),
        }
    }

    fn on_request(&mut self, now: Now, db: &Database, conn: ConnId, request: Request, out: &mut Outputs) {
        // A request of a session that is gone or going gets no answer: its connection is being closed.
        if !self.sessions.touch(now.mono_ms, request.session, None) {
            return;
        }
        match request.op {
            Op::Sync => self.on_sync(db, conn, &request, out),
            Op::CloseSession => self.close_session(now, db, request.session, request.cxid, Some(conn), out),
            _ => {
                let zxid = self.next_zxid();
                let session = self.sessions.check(request.session);
                let txn = self.preparer.prepare(&db.tree, &request, session, zxid, now.wall_ms);
                self.propose(txn, Origin::Request { conn, cxid: request.cxid }, out);
            }
        }
    }

    /// Answered once everything proposed before it is applied; the path is echoed unchecked.
    fn on_sync(&mut self, db: &Database, conn: ConnId, request: &Request, out: &mut Outputs) {
        let path = match SyncRequest::decode(&mut SharedReader::new(request.body.clone())) {
            Ok(sync) => sync.path,
            Err(_) => {
                let failed = Err::<fn(&mut BytesMut), _>(ErrorCode::MarshallingError);
                let zxid = db.last_zxid.0;
                out.client(conn, ClientMessage::Reply, |bytes| {
                    write_reply(bytes, request.cxid, zxid, failed)
                });
                return;
            }
        };
        let sync = PendingSync { after: self.broadcast.last_proposed(), conn, xid: request.cxid, path };
        self.syncs.push_back(sync);
        self.answer_syncs(db, out);
    }

    fn answer_syncs(&mut self, db: &Database, out: &mut Outputs) {
        while self.syncs.front().is_some_and(|sync| sync.after <= db.last_zxid) {
            let sync = self.syncs.pop_front().expect("front() is there");
            out.client(sync.conn, ClientMessage::Reply, |bytes| {
                let body = |bytes: &mut BytesMut| {
                    crate::jute::records::SyncResponse { path: sync.path }.encode(bytes)
                };
                write_reply(bytes, sync.xid, db.last_zxid.0, Ok(body));
            });
        }
    }

    fn on_tick(&mut self, now: Now, db: &Database, out: &mut Outputs) {
        for session in std::mem::take(&mut self.orphans) {
            self.close_session(now, db, session, 0, None, out);
        }
        for session in self.sessions.expire(now.mono_ms) {
            out.tally.expired_sessions += 1;
            self.close_session(now, db, session, 0, None, out);
        }
        self.remove_unused(now, db, out);
    }

    /// Containers and TTL znodes: looked for at every interval, removed evenly spread over the ticks.
    fn remove_unused(&mut self, now: Now, db: &Database, out: &mut Outputs) {
        if now.mono_ms >= self.next_container_check {
            self.next_container_check = now.mono_ms + self.settings.container_check_ms;
            self.removals = db.tree.removable(now.wall_ms, self.settings.container_max_never_used_ms).into();
        }
        let share = self.settings.container_max_per_minute.saturating_mul(self.settings.tick_ms) / 60_000;
        for _ in 0..share.max(1) {
            let Some(path) = self.removals.pop_front() else { return };
            let zxid = self.next_zxid();
            let txn = self.preparer.prepare_removal(&db.tree, path.into(), zxid, now.wall_ms);
            self.propose(txn, Origin::Nobody, out);
        }
    }

    /// The zxid of the next proposal. An epoch that is used up is followed by the next one: alone, there is nobody
    /// to ask.
    fn next_zxid(&mut self) -> Zxid {
        if self.broadcast.next_zxid().is_none() {
            self.broadcast.start_next_epoch();
        }
        self.broadcast.next_zxid().expect("a fresh epoch has zxids")
    }

    fn propose(&mut self, txn: Txn, origin: Origin, out: &mut Outputs) {
        txn.encode(&mut self.encoded);
        out.append.push(LogEntry { zxid: Zxid(txn.header.zxid), body: self.encoded.split().freeze() });
        self.broadcast.propose(txn);
        self.origins.push_back(origin);
    }

    pub fn has_committed(&self) -> bool {
        !self.committed.is_empty()
    }

    /// Applies what is committed. Replies and watch events come out in the order of the transactions, the events of
    /// one before its reply: the driver hands them to the reactors before it lets go of the write lock.
    pub fn apply(&mut self, now: Now, db: &mut Database, out: &mut Outputs) {
        while let Some(proposal) = self.committed.pop_front() {
            let origin = self.origins.pop_front().expect("each proposal has an origin");
            let applied = db.apply(&proposal.txn, &mut self.events);
            out.tally.commits += 1;
            if let Some(digest) = proposal.txn.digest
                && digest.tree_digest != db.tree.digest() as i64
            {
                out.tally.digest_mismatches += 1;
            }
            self.announce(proposal.zxid, db, out);
            self.preparer.applied(proposal.zxid);
            match origin {
                Origin::Nobody => {}
                Origin::Establish { conn, timeout_ms, with_read_only } => {
                    let session = SessionId(proposal.txn.header.client_id);
                    self.establish(now, conn, session, timeout_ms, with_read_only, out);
                }
                Origin::Request { conn, cxid } => out.client(conn, ClientMessage::Reply, |bytes| {
                    replies::write(bytes, cxid, proposal.zxid, &proposal.txn.body, &applied);
                }),
                Origin::CloseSession { conn, cxid } => {
                    let session = SessionId(proposal.txn.header.client_id);
                    self.session_closed(session, conn, cxid, proposal.zxid, out);
                }
            }
        }
        self.answer_syncs(db, out);
    }

    fn announce(&mut self, zxid: Zxid, db: &mut Database, out: &mut Outputs) {
        let watches = db.watches.get_mut();
        if !watches.is_empty() {
            let skip_acl = self.settings.rules.skip_acl;
            let may_read =
                |list: &AclList, ids: &[Id<Bytes>]| skip_acl || acl::permits(list, perms::READ, ids);
            watches.fire(&self.events, &may_read, &mut self.watch_events);
        }
        self.events.clear();
        for event in self.watch_events.drain(..) {
            let before = out.bytes.len();
            out.client(event.conn, ClientMessage::Event, |bytes| {
                write_event(bytes, zxid.0, event.kind, &event.path);
            });
            out.tally.watch_events[event.kind as usize - 1] += 1;
            out.tally.watch_bytes += (out.bytes.len() - before) as u64;
        }
    }
}
