//! The server as leader, or alone: it prepares every write, and keeps all sessions.

use super::clients::Hello;
use super::{ClientMessage, Now, Outputs, Replica, Serving, answer};
use crate::jute::SharedReader;
use crate::jute::records::{CreateSessionTxn, Id, SyncRequest, SyncResponse};
use crate::model::{ConnId, ErrorCode, LinkId, Op, SessionId, Zxid, text};
use crate::request::{Preparer, Request, reconfig, write_reply};
use crate::session::{Home, SessionTracker};
use crate::tree::{Applied, Database};
use crate::wire::quorum::Forwarded;
use crate::wire::txn::{Txn, TxnBody};
use crate::zab::Entry;
use bytes::{Bytes, BytesMut};
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

#[derive(Debug)]
pub(super) struct Leading {
    sessions: SessionTracker,
    preparer: Preparer,
    /// Who waits for which proposal, in their order. Those of nobody here are not in it.
    origins: VecDeque<(Zxid, Origin)>,
    syncs: VecDeque<PendingSync>,
    /// How many messages of a connection wait for an older `sync` of its.
    held: HashMap<ConnId, usize>,
    removals: VecDeque<Vec<u8>>,
    next_container_check: u64,
    /// Sessions that own ephemerals but are in no session table: closed first of all.
    orphans: Vec<SessionId>,
}

/// A connection that waits for a proposal.
#[derive(Debug)]
enum Origin {
    /// Its session is created.
    Establish(Hello),
    Request {
        conn: ConnId,
        cxid: i32,
    },
    CloseSession {
        conn: ConnId,
        cxid: i32,
    },
}

impl Origin {
    fn conn(&self) -> Option<ConnId> {
        match self {
            Self::Establish(_) => None,
            Self::Request { conn, .. } | Self::CloseSession { conn, .. } => Some(*conn),
        }
    }
}

/// A `sync` that waits until all that was proposed before it is applied, and a quorum still follows.
#[derive(Debug)]
struct PendingSync {
    after: Zxid,
    conn: ConnId,
    xid: i32,
    path: Result<Option<Bytes>, ErrorCode>,
    /// Replies to later requests of the same connection, and events that are newer: order is kept, and zxids never go
    /// back.
    behind: Vec<(Zxid, ClientMessage, Bytes)>,
}

impl Leading {
    /// Adds the connections that wait for an answer, and returns those that are not attached to a session yet.
    pub fn end(self, conns: &mut Vec<ConnId>) -> Vec<(SessionId, Hello)> {
        let mut arriving = Vec::new();
        for (_, origin) in &self.origins {
            match origin {
                Origin::Establish(hello) => arriving.push((SessionId::NONE, *hello)),
                Origin::Request { conn, .. } | Origin::CloseSession { conn, .. } => conns.push(*conn),
            }
        }
        conns.extend(self.syncs.iter().map(|sync| sync.conn));
        arriving
    }

    pub fn touch(&mut self, now: Now, sessions: Vec<SessionId>) {
        for session in sessions {
            self.sessions.touch(now.mono_ms, session, None);
        }
    }

    pub fn outstanding(&self) -> usize {
        self.origins.len() + self.syncs.len()
    }

    /// Keeps what a connection is told of `zxid` behind the `sync` that comes before. False: there is none.
    fn keep(&mut self, conn: ConnId, zxid: Zxid, write: impl FnOnce(&mut Outputs)) -> bool {
        let mut syncs = self.syncs.iter_mut().rev();
        let Some(sync) = syncs.find(|sync| sync.conn == conn && sync.after < zxid) else { return false };
        let mut aside = Outputs::default();
        write(&mut aside);
        *self.held.entry(conn).or_default() += aside.client.len();
        for output in aside.client {
            sync.behind.push((zxid, output.message, aside.bytes.split_to(output.len).freeze()));
        }
        true
    }

    /// Whether an event has to wait for older answers of its connection.
    pub fn holds(&self, conn: ConnId, zxid: Zxid) -> bool {
        if self.syncs.is_empty() {
            return false;
        }
        // The answer to the very request that brings the event about is going to be held.
        let own = self.origins.front().filter(|(at, _)| *at == zxid).and_then(|(_, origin)| origin.conn());
        self.held.contains_key(&conn)
            || (own == Some(conn) && self.syncs.iter().any(|sync| sync.conn == conn && sync.after < zxid))
    }

    /// Keeps an event behind what its connection has been answered by then.
    pub fn hold(&mut self, conn: ConnId, zxid: Zxid, event: &Bytes) {
        self.keep(conn, zxid, |out| {
            out.client(conn, ClientMessage::Event, |to| to.extend_from_slice(event));
        });
    }

    fn let_go(&mut self, conn: ConnId, count: usize) {
        if let Some(held) = self.held.get_mut(&conn) {
            *held -= count;
            if *held == 0 {
                self.held.remove(&conn);
            }
        }
    }
}

impl Replica {
    pub(super) fn leading(&mut self) -> &mut Leading {
        match &mut self.serving {
            Serving::Leading(leading) => leading,
            Serving::Nobody | Serving::Learning(_) | Serving::ReadOnly(_) => {
                panic!("asked of a server that does not lead")
            }
        }
    }

    pub fn sessions(&self) -> Option<&SessionTracker> {
        match &self.serving {
            Serving::Leading(leading) => Some(&leading.sessions),
            Serving::ReadOnly(read_only) => Some(&read_only.sessions),
            Serving::Nobody | Serving::Learning(_) => None,
        }
    }

    /// Begins to serve. All sessions get their whole timeout once more.
    pub(super) fn lead_clients(&mut self, now: Now, db: &Database) {
        let mut sessions = SessionTracker::new(self.settings.tick_ms);
        for (session, timeout) in &db.sessions {
            sessions.track(now.mono_ms, *session, *timeout);
        }
        let owners = db.tree.sessions_with_ephemerals();
        self.serving = Serving::Leading(Box::new(Leading {
            sessions,
            preparer: Preparer::new(self.settings.rules.clone(), db.tree.digest()),
            origins: VecDeque::new(),
            syncs: VecDeque::new(),
            held: HashMap::new(),
            removals: VecDeque::new(),
            next_container_check: now.mono_ms + self.settings.container_check_ms,
            orphans: owners.filter(|session| !db.sessions.contains_key(session)).collect(),
        }));
    }

    /// The zxid of the next proposal; none where this term can't propose any more.
    fn next_zxid(&mut self, out: &mut Outputs) -> Option<Zxid> {
        let (leader, _) = self.zab.leader_mut()?;
        if !leader.proposes() {
            return None;
        }
        match leader.next_zxid() {
            None if leader.is_alone() => {
                leader.open_next_epoch_alone();
                leader.next_zxid()
            }
            None => {
                leader.roll_over(&mut out.zab);
                None
            }
            zxid => zxid,
        }
    }

    fn propose(&mut self, txn: Txn, origin: Option<Origin>, out: &mut Outputs) {
        let entry = Entry::new(txn);
        out.tally.proposals += 1;
        if let Some(origin) = origin {
            let zxid = entry.zxid;
            self.leading().origins.push_back((zxid, origin));
        }
        self.zab.propose(entry, &mut out.zab);
    }

    // Sessions.

    pub(super) fn lead_new_session(&mut self, now: Now, session: SessionId, hello: Hello, out: &mut Outputs) {
        let Some(zxid) = self.next_zxid(out) else { return };
        let leading = self.leading();
        leading.sessions.track(now.mono_ms, session, hello.timeout_ms);
        leading.sessions.move_to(session, Home::Here);
        let txn = leading.preparer.prepare_create_session(session, hello.timeout_ms, zxid, now.wall_ms);
        self.propose(txn, Some(Origin::Establish(hello)), out);
    }

    pub(super) fn lead_reattach(&mut self, now: Now, session: SessionId, hello: Hello, out: &mut Outputs) {
        let sessions = &mut self.leading().sessions;
        if !sessions.touch(now.mono_ms, session, Some(hello.timeout_ms)) {
            return self.refuse(hello, out);
        }
        sessions.move_to(session, Home::Here);
        self.establish(session, hello, out);
    }

    /// A client reattaches at a learner.
    pub(super) fn on_revalidate(
        &mut self,
        now: Now,
        link: LinkId,
        session: SessionId,
        timeout_ms: i32,
        out: &mut Outputs,
    ) {
        let Serving::Leading(leading) = &mut self.serving else { return };
        let valid = leading.sessions.touch(now.mono_ms, session, Some(timeout_ms));
        if valid {
            leading.sessions.move_to(session, Home::Learner(link));
        }
        if let Some((leader, _)) = self.zab.leader_mut() {
            leader.revalidated(link, session, valid, &mut out.zab);
        }
    }

    pub(super) fn on_learners_touched(&mut self, now: Now, sessions: &[(SessionId, i32)]) {
        let Serving::Leading(leading) = &mut self.serving else { return };
        // The timeout is the session's own, as it began or was taken up with: a learner's word does not end or keep it.
        for (session, _) in sessions {
            leading.sessions.touch(now.mono_ms, *session, None);
        }
    }

    // Requests.

    pub(super) fn lead_request(
        &mut self,
        now: Now,
        db: &Database,
        conn: ConnId,
        request: Request,
        out: &mut Outputs,
    ) {
        // A request of a session that is gone or going gets no answer: its connection is being closed.
        if !self.leading().sessions.touch(now.mono_ms, request.session, None) {
            return;
        }
        let cxid = request.cxid;
        match request.op {
            Op::Sync => self.on_sync(conn, &request, out),
            Op::CloseSession => {
                let origin = Some(Origin::CloseSession { conn, cxid });
                self.close_session(now, db, request.session, cxid, origin, out);
            }
            _ => self.write(now, db, &request, Home::Here, Some(Origin::Request { conn, cxid }), out),
        }
    }

    fn write(
        &mut self,
        now: Now,
        db: &Database,
        request: &Request,
        from: Home,
        origin: Option<Origin>,
        out: &mut Outputs,
    ) {
        let Some(zxid) = self.next_zxid(out) else { return };
        let alone = self.zab.leader().is_some_and(|leader| leader.is_alone());
        let leading = self.leading();
        let session = match leading.sessions.check_from(request.session, from) {
            // A leader that was not there when the session began can't tell "unknown" from "over".
            Err(ErrorCode::UnknownSession) if !alone => Err(ErrorCode::SessionExpired),
            other => other,
        };
        let txn = if request.op == Op::Reconfig && !alone {
            self.prepare_reconfig(now, db, request, session, zxid)
        } else {
            leading.preparer.prepare(&db.tree, request, session, zxid, now.wall_ms)
        };
        out.quota_exceeded.append(&mut self.leading().preparer.take_quota_exceeded());
        if self.leading().preparer.take_too_large() {
            self.too_large(now, request.session, out);
        }
        self.propose(txn, origin, out);
    }

    fn prepare_reconfig(
        &mut self,
        now: Now,
        db: &Database,
        request: &Request,
        session: Result<(), ErrorCode>,
        zxid: Zxid,
    ) -> Txn {
        let standalone = self.settings.standalone_enabled;
        let (Serving::Leading(leading), Some(leader)) = (&mut self.serving, self.zab.leader()) else {
            panic!("asked of a server that does not lead")
        };
        let server = &self.zab.server;
        let plan = |wanted: &crate::jute::records::ReconfigRequest<Bytes>| {
            let is_synced =
                |next: &crate::ensemble::Ensemble| leader.has_synced_quorum(now.mono_ms, server, next);
            reconfig::plan(wanted, &server.view, zxid, standalone, is_synced)
        };
        leading.preparer.prepare_reconfig(&db.tree, request, session, plan, zxid, now.wall_ms)
    }

    /// What a learner's client asks for. There is no negative answer: a request that is not proposed leaves the client
    /// waiting until its connection ends.
    pub(super) fn on_forwarded(
        &mut self,
        now: Now,
        db: &Database,
        link: LinkId,
        forwarded: Forwarded,
        out: &mut Outputs,
    ) {
        let Serving::Leading(leading) = &mut self.serving else { return };
        let Forwarded { session, cxid, op, body, auth } = forwarded;
        match Op::from_code(op) {
            Some(Op::CreateSession) => {
                let Ok(txn) = CreateSessionTxn::decode(&mut SharedReader::new(body)) else { return };
                // No learner that is in its right mind begins a living session anew, or the one that stands for none.
                if session.0 == 0 || leading.sessions.is_alive(session) {
                    return;
                }
                leading.sessions.track(now.mono_ms, session, txn.timeout);
                leading.sessions.move_to(session, Home::Learner(link));
                let Some(zxid) = self.next_zxid(out) else { return };
                let preparer = &mut self.leading().preparer;
                let txn = preparer.prepare_create_session(session, txn.timeout, zxid, now.wall_ms);
                self.propose(txn, None, out);
            }
            Some(Op::CloseSession) => self.close_session(now, db, session, cxid, None, out),
            Some(Op::Sync) => {
                if let Some((leader, server)) = self.zab.leader_mut() {
                    leader.sync_for(link, server, &mut out.zab);
                }
            }
            // What is no write comes out as a refusal of its own.
            known => {
                let auth: Arc<[Id<Bytes>]> = auth.into();
                let op = known.unwrap_or(Op::Notification);
                let request = Request { session, cxid, op, body, auth };
                self.write(now, db, &request, Home::Learner(link), None, out);
            }
        }
    }

    /// Proposes the session's end, with its ephemerals. Where their names would make a transaction that a Java peer
    /// could not read back from its log, most of them go before, in multis.
    fn close_session(
        &mut self,
        now: Now,
        db: &Database,
        session: SessionId,
        cxid: i32,
        origin: Option<Origin>,
        out: &mut Outputs,
    ) {
        let limit = (self.settings.rules.max_txn_bytes / 2).max(4096);
        let leading = self.leading();
        leading.sessions.set_closing(session);
        let paths = leading.preparer.ephemerals(&db.tree, session);
        // A part of a multi costs 12 bytes beside its path, an entry of closeSession 4.
        let mut chunk: Vec<Bytes> = Vec::new();
        let mut left: usize = paths.iter().map(|path| path.len() + 16).sum();
        let mut size = 0;
        for path in paths {
            if left + size <= limit {
                break;
            }
            size += path.len() + 16;
            left -= path.len() + 16;
            chunk.push(path);
            if size > limit / 2 {
                self.remove_ephemerals(now, db, session, std::mem::take(&mut chunk), out);
                size = 0;
            }
        }
        if !chunk.is_empty() {
            self.remove_ephemerals(now, db, session, chunk, out);
        }
        let Some(zxid) = self.next_zxid(out) else { return };
        let txn = self.leading().preparer.prepare_close(&db.tree, session, cxid, zxid, now.wall_ms);
        self.propose(txn, origin, out);
    }

    fn remove_ephemerals(
        &mut self,
        now: Now,
        db: &Database,
        session: SessionId,
        paths: Vec<Bytes>,
        out: &mut Outputs,
    ) {
        let Some(zxid) = self.next_zxid(out) else { return };
        let preparer = &mut self.leading().preparer;
        let txn = preparer.prepare_ephemeral_removal(&db.tree, session, paths, zxid, now.wall_ms);
        self.propose(txn, None, out);
    }

    // sync.

    fn on_sync(&mut self, conn: ConnId, request: &Request, out: &mut Outputs) {
        let Some((leader, server)) = self.zab.leader_mut() else { return };
        let after = leader.last_proposed();
        leader.sync_for_myself(server, &mut out.zab);
        let path = sync_path(&request.body);
        let sync = PendingSync { after, conn, xid: request.cxid, path, behind: Vec::new() };
        self.leading().syncs.push_back(sync);
    }

    pub(super) fn sync_confirmed(&mut self, db: &Database, out: &mut Outputs) {
        let Serving::Leading(leading) = &mut self.serving else { return };
        let Some(sync) = leading.syncs.pop_front() else { return };
        let conn = sync.conn;
        let mut last = db.last_zxid;
        if leading.held.contains_key(&conn) {
            let later = leading.syncs.iter().filter(|later| later.conn == conn);
            let held = sync.behind.iter().chain(later.flat_map(|later| &later.behind));
            // What stands behind is older than the database by now.
            last = held.map(|(zxid, ..)| Zxid(zxid.0 - 1)).min().map_or(last, |before| last.min(before));
            leading.let_go(conn, sync.behind.len());
        }
        write_sync(out, conn, sync.xid, last, sync.path);
        for (_, message, bytes) in sync.behind {
            out.client(conn, message, |to| to.extend_from_slice(&bytes));
        }
    }

    // What was committed.

    pub(super) fn led(&mut self, now: Now, entry: Entry, applied: &Applied, out: &mut Outputs) {
        let leading = self.leading();
        leading.preparer.applied(entry.zxid);
        let origin = leading.origins.pop_front_if(|(zxid, _)| *zxid == entry.zxid).map(|(_, origin)| origin);
        let session = entry.session();
        let ended = matches!(entry.txn.body, TxnBody::CloseSession(_));
        if ended {
            leading.sessions.remove(session);
        }
        if let TxnBody::CreateSession(txn) = &entry.txn.body {
            // A learner may have begun it anew while it was being closed: without this it would never end.
            leading.sessions.track(now.mono_ms, session, txn.timeout);
        }
        let mut answered = None;
        match origin {
            None => {}
            Some(Origin::Establish(hello)) => {
                leading.sessions.touch(now.mono_ms, session, Some(hello.timeout_ms));
                self.establish(session, hello, out);
            }
            Some(Origin::Request { conn, cxid }) => {
                self.in_order(conn, entry.zxid, out, |out| answer(out, conn, cxid, &entry, applied));
            }
            Some(Origin::CloseSession { conn, cxid }) => {
                answered = Some(conn);
                self.in_order(conn, entry.zxid, out, |out| last_reply(out, conn, cxid, entry.zxid));
            }
        }
        if ended {
            self.detach(session, answered, out);
        }
    }

    /// Lets a reply out, or keeps it behind an older `sync` of its connection.
    fn in_order(&mut self, conn: ConnId, zxid: Zxid, out: &mut Outputs, write: impl FnOnce(&mut Outputs)) {
        let mut write = Some(write);
        let kept = self.leading().keep(conn, zxid, |out| {
            if let Some(write) = write.take() {
                write(out);
            }
        });
        if !kept && let Some(write) = write {
            write(out);
        }
    }

    // Time.

    pub(super) fn tick_leading(&mut self, now: Now, db: &Database, out: &mut Outputs) {
        if !self.zab.leader().is_some_and(|leader| leader.proposes()) {
            return;
        }
        let leading = self.leading();
        let orphans = std::mem::take(&mut leading.orphans);
        let expired = leading.sessions.expire(now.mono_ms);
        out.tally.expired_sessions += expired.len() as u64;
        for session in orphans.into_iter().chain(expired) {
            self.close_session(now, db, session, 0, None, out);
        }
        self.remove_containers(now, db, out);
    }

    fn remove_containers(&mut self, now: Now, db: &Database, out: &mut Outputs) {
        let settings = &self.settings;
        let (interval, never_used) = (settings.container_check_ms, settings.container_max_never_used_ms);
        let share = settings.container_max_per_minute.saturating_mul(settings.tick_ms) / 60_000;
        let leading = self.leading();
        if now.mono_ms >= leading.next_container_check {
            leading.next_container_check = now.mono_ms + interval;
            leading.removals = db.tree.removable(now.wall_ms, never_used).into();
        }
        for _ in 0..share.max(1) {
            let Some(path) = self.leading().removals.pop_front() else { return };
            let Some(zxid) = self.next_zxid(out) else { return };
            let preparer = &mut self.leading().preparer;
            let txn = preparer.prepare_removal(&db.tree, path.into(), zxid, now.wall_ms);
            self.propose(txn, None, out);
        }
    }
}

/// The path of a `sync`: it is echoed unchecked.
pub(super) fn sync_path(body: &Bytes) -> Result<Option<Bytes>, ErrorCode> {
    let sync = SyncRequest::decode(&mut SharedReader::new(body.clone()));
    sync.map(|sync| sync.path).map_err(|_| ErrorCode::MarshallingError)
}

/// The answer to `sync`: the path as it came.
pub(super) fn write_sync(
    out: &mut Outputs,
    conn: ConnId,
    xid: i32,
    zxid: Zxid,
    path: Result<Option<Bytes>, ErrorCode>,
) {
    match path {
        Err(code) => out.fail(conn, xid, zxid, code),
        Ok(path) => out.client(conn, ClientMessage::Reply, |bytes| {
            let body = |bytes: &mut BytesMut| {
                SyncResponse { path: path.as_deref().map(text::as_java_reads) }.encode(bytes);
            };
            write_reply(bytes, xid, zxid.0, Ok(body));
        }),
    }
}

/// The answer to closeSession; the connection ends behind it.
pub(super) fn last_reply(out: &mut Outputs, conn: ConnId, cxid: i32, zxid: Zxid) {
    out.client(conn, ClientMessage::LastReply, |bytes| {
        write_reply(bytes, cxid, zxid.0, Ok(|_: &mut BytesMut| ()));
    });
}
