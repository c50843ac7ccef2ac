//! The server as leader, or alone: it prepares every write, and keeps all sessions.

use super::clients::Hello;
use super::replies::{answer, last_reply, sync_path, write_sync};
use super::serving::Turn;
use super::share::{LOOKS_AT_ONCE, STEPS_AT_ONCE, UnderWay};
use super::{ClientMessage, Now, Outputs, Settings};
use crate::jute::SharedReader;
use crate::jute::records::{CreateSessionTxn, Id, ReconfigRequest};
use crate::model::{ConnId, ErrorCode, LinkId, Op, Room, SessionId, Zxid};
use crate::request::{Preparer, Request, reconfig};
use crate::session::{Home, SessionTracker};
use crate::tree::{Applied, Database, Look, Tree};
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
    /// The bytes of those proposals.
    bytes: usize,
    syncs: VecDeque<PendingSync>,
    /// Per connection: messages queued behind one of its own unanswered `sync`s.
    held: HashMap<ConnId, usize>,
    /// Sessions whose ephemerals go in several transactions before their end does, oldest first.
    closing: VecDeque<Closing>,
    /// Sessions that own ephemerals but are in no session table: closed first of all.
    orphans: Vec<SessionId>,
    /// Sessions that expired and are not told of yet.
    expired: Vec<SessionId>,
    removals: Removals,
    under_way: UnderWay,
    /// There is more to do than the last share: the next turn comes at once, or when there is room.
    has_more: bool,
}

/// The end of a session.
#[derive(Debug)]
struct Closing {
    session: SessionId,
    cxid: i32,
    origin: Option<Origin>,
}

impl Closing {
    /// Nobody here asked for it.
    fn unasked(session: SessionId) -> Self {
        Self { session, cxid: 0, origin: None }
    }
}

/// Containers and TTL znodes: looked through once in a while, a share at a time, and removed at a limited rate.
#[derive(Debug)]
struct Removals {
    due: VecDeque<Vec<u8>>,
    /// How far the look is that is under way.
    look: Option<Look>,
    next_look: u64,
    /// How many may still go before `next_share`.
    allowance: usize,
    next_share: u64,
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
    /// Begins to serve. All sessions get their whole timeout once more.
    pub(super) fn begin(now: Now, db: &Database, settings: &Settings) -> Self {
        let mut sessions = SessionTracker::new(settings.tick_ms);
        for (session, timeout) in &db.sessions {
            sessions.track(now.mono_ms, *session, *timeout);
        }
        let owners = db.tree.sessions_with_ephemerals();
        Self {
            sessions,
            preparer: Preparer::new(settings.rules.clone(), db.tree.digest()),
            origins: VecDeque::new(),
            bytes: 0,
            syncs: VecDeque::new(),
            held: HashMap::new(),
            closing: VecDeque::new(),
            orphans: owners.filter(|session| !db.sessions.contains_key(session)).collect(),
            expired: Vec::new(),
            removals: Removals::begin(now, settings),
            under_way: UnderWay::default(),
            has_more: false,
        }
    }

    /// Adds the connections that wait for an answer, and returns those that are not attached to a session yet.
    pub(super) fn end(self, conns: &mut Vec<ConnId>) -> Vec<(SessionId, Hello)> {
        let mut arriving = Vec::new();
        let closing = self.closing.iter().filter_map(|closing| closing.origin.as_ref());
        for origin in self.origins.iter().map(|(_, origin)| origin).chain(closing) {
            match origin {
                Origin::Establish(hello) => arriving.push((SessionId::NONE, *hello)),
                Origin::Request { conn, .. } | Origin::CloseSession { conn, .. } => conns.push(*conn),
            }
        }
        conns.extend(self.syncs.iter().map(|sync| sync.conn));
        arriving
    }

    /// The connections that wait for a proposal, each once.
    pub(super) fn waiting(&self) -> Vec<ConnId> {
        let conn = |origin: &Origin| match origin {
            Origin::Establish(hello) => hello.conn,
            Origin::Request { conn, .. } | Origin::CloseSession { conn, .. } => *conn,
        };
        let mut conns: Vec<ConnId> = self.origins.iter().map(|(_, origin)| conn(origin)).collect();
        conns.extend(self.syncs.iter().map(|sync| sync.conn));
        conns.sort_unstable();
        conns.dedup();
        conns
    }

    pub(super) fn outstanding(&self) -> usize {
        let closing = self.closing.iter().filter(|closing| closing.origin.is_some());
        self.origins.len() + self.syncs.len() + closing.count()
    }

    pub(super) fn outstanding_bytes(&self) -> usize {
        self.bytes
    }

    fn propose(&mut self, txn: Txn, origin: Option<Origin>, turn: &mut Turn<'_>) {
        let entry = Entry::new(txn);
        turn.out.tally.proposals += 1;
        if let Some(origin) = origin {
            self.bytes += entry.body.len();
            self.origins.push_back((entry.zxid, origin));
        }
        turn.zab.propose(entry, &mut turn.out.zab);
    }

    // Sessions.

    pub(super) fn sessions(&self) -> &SessionTracker {
        &self.sessions
    }

    pub(super) fn sessions_mut(&mut self) -> &mut SessionTracker {
        &mut self.sessions
    }

    pub(super) fn on_new_session(&mut self, session: SessionId, hello: Hello, turn: &mut Turn<'_>) {
        let Some(zxid) = turn.next_zxid() else { return };
        self.sessions.track(turn.now.mono_ms, session, hello.timeout_ms);
        self.sessions.move_to(session, Home::Here);
        let wall_ms = turn.now.wall_ms;
        let txn = self.preparer.prepare_create_session(session, hello.timeout_ms, zxid, wall_ms);
        self.propose(txn, Some(Origin::Establish(hello)), turn);
    }

    pub(super) fn on_reattach(&mut self, session: SessionId, hello: Hello, turn: &mut Turn<'_>) {
        if !self.sessions.touch(turn.now.mono_ms, session, Some(hello.timeout_ms)) {
            return turn.refuse(hello);
        }
        self.sessions.move_to(session, Home::Here);
        turn.establish(session, hello);
    }

    /// A client reattaches at a learner.
    pub(super) fn on_revalidate(
        &mut self,
        link: LinkId,
        session: SessionId,
        timeout_ms: i32,
        turn: &mut Turn<'_>,
    ) {
        let valid = self.sessions.touch(turn.now.mono_ms, session, Some(timeout_ms));
        if valid {
            self.sessions.move_to(session, Home::Learner(link));
        }
        if let Some((leader, _)) = turn.zab.leader_mut() {
            leader.revalidated(link, session, valid, &mut turn.out.zab);
        }
    }

    pub(super) fn on_touched(&mut self, sessions: Vec<SessionId>, turn: &Turn<'_>) {
        for session in sessions {
            self.sessions.touch(turn.now.mono_ms, session, None);
        }
    }

    pub(super) fn on_learners_touched(&mut self, sessions: &[(SessionId, i32)], turn: &Turn<'_>) {
        // The timeout is the session's own, as it began or was resumed with: a learner's word does not end or keep it.
        for (session, _) in sessions {
            self.sessions.touch(turn.now.mono_ms, *session, None);
        }
    }

    // Requests.

    pub(super) fn on_request(&mut self, conn: ConnId, request: Request, turn: &mut Turn<'_>) {
        // A request of a session that is gone or going gets no answer: its connection is being closed.
        if !self.sessions.touch(turn.now.mono_ms, request.session, None) {
            return;
        }
        let cxid = request.cxid;
        if request.op == Op::Sync {
            self.on_sync(conn, &request, turn);
        } else if request.op == Op::CloseSession {
            let origin = Some(Origin::CloseSession { conn, cxid });
            self.close_session(Closing { session: request.session, cxid, origin }, turn);
        } else {
            self.write(&request, Home::Here, Some(Origin::Request { conn, cxid }), turn);
        }
    }

    fn write(&mut self, request: &Request, from: Home, origin: Option<Origin>, turn: &mut Turn<'_>) {
        let Some(zxid) = turn.next_zxid() else { return };
        let alone = turn.zab.leader().is_some_and(|leader| leader.is_alone());
        let session = match self.sessions.check_from(request.session, from) {
            // A leader that was not there when the session began can't tell "unknown" from "over".
            Err(ErrorCode::UnknownSession) if !alone => Err(ErrorCode::SessionExpired),
            // Of a learner's client, or one that came before this was known: what says no is small.
            Ok(()) if turn.zab.server.room != Room::Enough => Err(ErrorCode::SystemError),
            other => other,
        };
        let txn = if request.op == Op::Reconfig && !alone {
            self.prepare_reconfig(request, session, zxid, turn)
        } else {
            self.preparer.prepare(&turn.db.tree, request, session, zxid, turn.now.wall_ms)
        };
        turn.out.quota_exceeded.append(&mut self.preparer.take_quota_exceeded());
        if self.preparer.take_too_large() {
            turn.too_large(request.session);
        }
        self.propose(txn, origin, turn);
    }

    fn prepare_reconfig(
        &mut self,
        request: &Request,
        session: Result<(), ErrorCode>,
        zxid: Zxid,
        turn: &Turn<'_>,
    ) -> Txn {
        let now = turn.now;
        let (leader, server) = (turn.zab.leader(), &turn.zab.server);
        let plan = |wanted: &ReconfigRequest<Bytes>| {
            let is_synced = |next: &crate::ensemble::Ensemble| {
                leader.is_some_and(|leader| leader.has_synced_quorum(now.mono_ms, server, next))
            };
            reconfig::plan(wanted, &server.view, zxid, turn.settings.standalone_enabled, is_synced)
        };
        self.preparer.prepare_reconfig(&turn.db.tree, request, session, plan, zxid, now.wall_ms)
    }

    /// What a learner's client asks for. There is no negative answer: a request that is not proposed leaves the client
    /// waiting until its connection ends.
    pub(super) fn on_forwarded(&mut self, link: LinkId, forwarded: Forwarded, turn: &mut Turn<'_>) {
        let Forwarded { session, cxid, op, body, auth } = forwarded;
        match Op::from_code(op) {
            Some(Op::CreateSession) => {
                let Ok(txn) = CreateSessionTxn::decode(&mut SharedReader::new(body)) else { return };
                // No sane learner begins a living session again, or the one that means none.
                if session.0 == 0 || self.sessions.is_alive(session) {
                    return;
                }
                self.sessions.track(turn.now.mono_ms, session, txn.timeout);
                self.sessions.move_to(session, Home::Learner(link));
                let Some(zxid) = turn.next_zxid() else { return };
                let wall_ms = turn.now.wall_ms;
                let txn = self.preparer.prepare_create_session(session, txn.timeout, zxid, wall_ms);
                self.propose(txn, None, turn);
            }
            Some(Op::CloseSession) => {
                self.close_session(Closing { session, cxid, origin: None }, turn);
            }
            Some(Op::Sync) => {
                if let Some((leader, server)) = turn.zab.leader_mut() {
                    leader.sync_for(turn.now.mono_ms, link, server, &mut turn.out.zab);
                }
            }
            // What is no write comes out as a refusal of its own.
            known => {
                let auth: Arc<[Id<Bytes>]> = auth.into();
                let op = known.unwrap_or(Op::Notification);
                let request = Request { session, cxid, op, body, auth };
                self.write(&request, Home::Learner(link), None, turn);
            }
        }
    }

    /// Proposes the session's end, with its ephemerals. Where their names would make a transaction that a Java peer could not
    /// read back from its log, they go before it, in multis, a share in each turn: [`Self::on_tick`] goes on with that. Returns
    /// the steps that were proposed.
    fn close_session(&mut self, closing: Closing, turn: &mut Turn<'_>) -> usize {
        self.sessions.set_closing(closing.session);
        let (paths, are_all) = self.some_ephemerals(closing.session, usize::MAX, turn);
        if are_all {
            return self.propose_close(closing, paths, turn);
        }
        self.closing.push_back(closing);
        self.has_more = true;
        0
    }

    /// Takes the next share of its ephemerals from a session that ends; with the last ones it ends.
    fn go_on_closing(&mut self, turn: &mut Turn<'_>) -> usize {
        let Some(closing) = self.closing.pop_front() else { return 0 };
        let (paths, are_all) = self.some_ephemerals(closing.session, STEPS_AT_ONCE, turn);
        if are_all {
            return self.propose_close(closing, paths, turn);
        }
        let Some(zxid) = turn.next_zxid() else { return 0 };
        let (steps, tree, wall_ms) = (paths.len(), &turn.db.tree, turn.now.wall_ms);
        let txn = self.preparer.prepare_ephemeral_removal(tree, closing.session, paths, zxid, wall_ms);
        self.propose(txn, None, turn);
        self.closing.push_front(closing);
        steps
    }

    /// The first ephemerals of a session, as many as one transaction takes and `most` at the most; and whether they are all.
    fn some_ephemerals(&self, session: SessionId, most: usize, turn: &Turn<'_>) -> (Vec<Bytes>, bool) {
        let mut room = (turn.settings.rules.max_txn_bytes / 2).max(4096);
        let mut some = Vec::new();
        for path in self.preparer.ephemerals(&turn.db.tree, session) {
            // A part of a multi costs 12 bytes beside its path, an entry of closeSession 4.
            let size = path.len() + 16;
            // The first one always fits: its own create did.
            if some.len() == most || (size > room && !some.is_empty()) {
                return (some, false);
            }
            room = room.saturating_sub(size);
            some.push(path);
        }
        (some, true)
    }

    fn propose_close(&mut self, closing: Closing, paths: Vec<Bytes>, turn: &mut Turn<'_>) -> usize {
        let Some(zxid) = turn.next_zxid() else { return 0 };
        let Closing { session, cxid, origin } = closing;
        let steps = 1 + paths.len();
        let (tree, wall_ms) = (&turn.db.tree, turn.now.wall_ms);
        let txn = self.preparer.prepare_close(tree, session, paths, cxid, zxid, wall_ms);
        self.propose(txn, origin, turn);
        steps
    }

    // sync.

    fn on_sync(&mut self, conn: ConnId, request: &Request, turn: &mut Turn<'_>) {
        let Some((leader, server)) = turn.zab.leader_mut() else { return };
        let after = leader.last_proposed();
        leader.sync_for_myself(turn.now.mono_ms, server, &mut turn.out.zab);
        let path = sync_path(&request.body);
        let sync = PendingSync { after, conn, xid: request.cxid, path, behind: Vec::new() };
        self.syncs.push_back(sync);
    }

    /// The oldest `sync` is confirmed, and all before it is applied.
    pub(super) fn on_sync_ready(&mut self, turn: &mut Turn<'_>) {
        let Some(sync) = self.syncs.pop_front() else { return };
        let conn = sync.conn;
        let mut last = turn.db.last_zxid;
        if self.held.contains_key(&conn) {
            let later = self.syncs.iter().filter(|later| later.conn == conn);
            let held = sync.behind.iter().chain(later.flat_map(|later| &later.behind));
            // What comes after it is older than the database by now.
            last = held.map(|(zxid, ..)| Zxid(zxid.0 - 1)).min().map_or(last, |before| last.min(before));
            self.let_go(conn, sync.behind.len());
        }
        write_sync(turn.out, conn, sync.xid, last, sync.path);
        for (_, message, bytes) in sync.behind {
            turn.out.client(conn, message, |to| to.extend_from_slice(&bytes));
        }
    }

    /// Lets out what a connection is told of `zxid`, or keeps it behind an older `sync` of its.
    fn in_order(&mut self, conn: ConnId, zxid: Zxid, out: &mut Outputs, write: impl FnOnce(&mut Outputs)) {
        let mut syncs = self.syncs.iter_mut().rev();
        let Some(sync) = syncs.find(|sync| sync.conn == conn && sync.after < zxid) else {
            return write(out);
        };
        let mut aside = Outputs::default();
        write(&mut aside);
        *self.held.entry(conn).or_default() += aside.client.len();
        for output in aside.client {
            sync.behind.push((zxid, output.message, aside.bytes.split_to(output.len).freeze()));
        }
    }

    /// Whether an event has to wait for older answers of its connection.
    pub(super) fn holds(&self, conn: ConnId, zxid: Zxid) -> bool {
        if self.syncs.is_empty() {
            return false;
        }
        // The answer to the very request that brings the event about is going to be held.
        let own = self.origins.front().filter(|(at, _)| *at == zxid).and_then(|(_, origin)| origin.conn());
        self.held.contains_key(&conn)
            || (own == Some(conn) && self.syncs.iter().any(|sync| sync.conn == conn && sync.after < zxid))
    }

    /// Keeps an event behind what its connection has been answered by then.
    pub(super) fn hold(
        &mut self,
        conn: ConnId,
        zxid: Zxid,
        out: &mut Outputs,
        write: impl FnOnce(&mut BytesMut),
    ) {
        self.in_order(conn, zxid, out, |out| out.client(conn, ClientMessage::Event, write));
    }

    fn let_go(&mut self, conn: ConnId, count: usize) {
        if let Some(held) = self.held.get_mut(&conn) {
            *held -= count;
            if *held == 0 {
                self.held.remove(&conn);
            }
        }
    }

    // What was committed.

    pub(super) fn on_committed(&mut self, entry: &Entry, applied: &Applied, turn: &mut Turn<'_>) {
        self.preparer.applied(entry.zxid);
        self.under_way.applied(entry.zxid);
        let origin = self.origins.pop_front_if(|(zxid, _)| *zxid == entry.zxid).map(|(_, origin)| origin);
        let session = entry.session();
        let ended = matches!(entry.txn.body, TxnBody::CloseSession(_));
        if ended {
            self.sessions.remove(session);
        }
        if let TxnBody::CreateSession(txn) = &entry.txn.body {
            // A learner may have begun it again while it was being closed: without this it would never end.
            self.sessions.track(turn.now.mono_ms, session, txn.timeout);
        }
        if origin.is_some() {
            self.bytes -= entry.body.len();
        }
        let mut answered = None;
        match origin {
            None => {}
            Some(Origin::Establish(hello)) => {
                self.sessions.touch(turn.now.mono_ms, session, Some(hello.timeout_ms));
                turn.establish(session, hello);
            }
            Some(Origin::Request { conn, cxid }) => {
                self.in_order(conn, entry.zxid, turn.out, |out| answer(out, conn, cxid, entry, applied));
            }
            Some(Origin::CloseSession { conn, cxid }) => {
                answered = Some(conn);
                self.in_order(conn, entry.zxid, turn.out, |out| last_reply(out, conn, cxid, entry.zxid));
            }
        }
        if ended {
            turn.detach(session, answered);
        }
    }

    // Time.

    /// When there is a share of work to do, in monotonic milliseconds.
    pub(super) fn next_wake(&self) -> Option<u64> {
        (self.has_more && self.under_way.room() > 0).then_some(0)
    }

    /// Does a share of what is due of the server's own accord.
    pub(super) fn on_tick(&mut self, turn: &mut Turn<'_>) {
        self.has_more = false;
        if !turn.zab.leader().is_some_and(|leader| leader.proposes()) {
            return;
        }
        let room = self.under_way.room();
        let mut steps = self.end_sessions(room, turn);
        // They can wait for room on the disk.
        if turn.zab.server.room == Room::Enough {
            steps += self.remove_due(room.saturating_sub(steps), turn);
        }
        if steps > 0
            && let Some(leader) = turn.zab.leader()
        {
            self.under_way.add(leader.last_proposed(), steps);
        }
    }

    /// Ends sessions, `room` steps and the last one's at the most.
    fn end_sessions(&mut self, room: usize, turn: &mut Turn<'_>) -> usize {
        let now = turn.now.mono_ms;
        let mut steps = 0;
        while steps < room {
            if !self.closing.is_empty() {
                steps += self.go_on_closing(turn);
            } else if let Some(session) = self.orphans.pop() {
                steps += self.close_session(Closing::unasked(session), turn);
            } else if let Some(session) = self.sessions.expire_next(now) {
                self.expired.push(session);
                steps += self.close_session(Closing::unasked(session), turn);
            } else {
                break;
            }
        }
        let is_due = self.sessions.is_due(now);
        if !is_due {
            turn.out.expired(&std::mem::take(&mut self.expired));
        }
        self.has_more |= is_due || !self.closing.is_empty() || !self.orphans.is_empty();
        steps
    }

    /// Removes containers and TTL znodes whose time has come, `room` at the most.
    fn remove_due(&mut self, room: usize, turn: &mut Turn<'_>) -> usize {
        let paths = self.removals.next(room, turn.now, &turn.db.tree, turn.settings);
        let steps = paths.len();
        for path in paths {
            let Some(zxid) = turn.next_zxid() else { break };
            let txn = self.preparer.prepare_removal(&turn.db.tree, path.into(), zxid, turn.now.wall_ms);
            self.propose(txn, None, turn);
        }
        self.has_more |= self.removals.has_more();
        steps
    }
}

impl Removals {
    fn begin(now: Now, settings: &Settings) -> Self {
        let next_look = now.mono_ms + settings.container_check_ms;
        Self { due: VecDeque::new(), look: None, next_look, allowance: 0, next_share: now.mono_ms }
    }

    /// The znodes that go now, `room` at the most. Where none is known, it looks on.
    fn next(&mut self, room: usize, now: Now, tree: &Tree, settings: &Settings) -> Vec<Vec<u8>> {
        if now.mono_ms >= self.next_share {
            self.next_share = now.mono_ms + settings.tick_ms;
            let share = settings.container_max_per_minute.saturating_mul(settings.tick_ms) / 60_000;
            self.allowance = usize::try_from(share.max(1)).unwrap_or(usize::MAX);
        }
        if now.mono_ms >= self.next_look && self.look.is_none() && self.due.is_empty() {
            self.next_look = now.mono_ms + settings.container_check_ms;
            self.look = Some(Look::default());
        }
        if self.due.is_empty()
            && let Some(look) = self.look.take()
        {
            let never_used_ms = settings.container_max_never_used_ms;
            let (due, next) = tree.removable(look, LOOKS_AT_ONCE, now.wall_ms, never_used_ms);
            (self.due, self.look) = (due.into(), next);
        }
        let count = room.min(self.allowance).min(self.due.len());
        self.allowance -= count;
        self.due.drain(..count).collect()
    }

    fn has_more(&self) -> bool {
        if self.due.is_empty() { self.look.is_some() } else { self.allowance > 0 }
    }
}
