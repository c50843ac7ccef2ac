//! The server as follower or observer: its clients' writes go to the leader, and are answered when they come back
//! committed.

use super::clients::Hello;
use super::replies::{answer, has_moved, last_reply, sync_path, write_sync};
use super::serving::Turn;
use super::{ClientMessage, CloseReason, Outputs};
use crate::jute::records::SyncRequest;
use crate::model::{ConnId, ErrorCode, Op, SessionId, Zxid};
use crate::request::{Request, TOO_LARGE, may_forward};
use crate::tree::Applied;
use crate::wire::quorum::{Forwarded, TOUCH_LEN};
use crate::wire::txn::TxnBody;
use crate::zab::Entry;
use bytes::{Bytes, BytesMut};
use std::collections::{BTreeMap, HashMap, VecDeque};

#[derive(Debug, Default)]
pub(super) struct Learning {
    /// What each session waits for, in the order of its requests.
    waiting: HashMap<SessionId, VecDeque<Waiting>>,
    /// Clients that reattach: the leader answers in the order in which it was asked, per session.
    revalidations: HashMap<SessionId, VecDeque<Hello>>,
    /// The `sync`s under way: the leader answers them in order, and does not say which.
    syncs: VecDeque<SyncFor>,
    /// How many of them are for this server's own lease.
    doubts: usize,
    /// Connections with answers that wait for an older `sync` of theirs: events wait with them, so that zxids never go
    /// back.
    held: HashMap<ConnId, SessionId>,
    /// Sessions that were active since the last ping, with their timeouts.
    touched: BTreeMap<SessionId, i32>,
    count: usize,
    /// The bytes of the requests that wait.
    bytes: usize,
}

#[derive(Debug)]
enum SyncFor {
    /// A client that asked for it.
    Request(SessionId),
    /// A client that reattaches. A commit identifies its request only by session and cxid, and some clients restart cxid on
    /// every connection. So everything the session sent through another server must be applied here first.
    Arrival(SessionId, Hello),
    /// This server itself, which stood still and does not know whether its leader leads on.
    Lease,
    /// A refusal came that this request of the session may have been answered with: see [`Waiting::may_have_moved`].
    Moved { session: SessionId, conn: ConnId, cxid: i32 },
}

#[derive(Debug)]
struct Waiting {
    cxid: i32,
    /// The request's bytes.
    len: usize,
    what: What,
    /// The answer, while an older request of the session has none.
    answer: Option<Answer>,
    /// The leader refused a request of this session and cxid because the session has moved. It may be this one. It may also
    /// be one that the session sent through another server, before it came here: then this one's answer is still to come,
    /// and comes before that of the `sync` which this server asks for now.
    may_have_moved: bool,
}

#[derive(Debug)]
enum Answer {
    /// What came with a transaction.
    Told(Zxid, Vec<(ConnId, ClientMessage, Bytes)>),
    /// What is sent with the zxid of the moment.
    Synced,
    Refused(ErrorCode),
}

#[derive(Debug)]
enum What {
    Establish(Hello),
    Write {
        conn: ConnId,
    },
    CloseSession {
        conn: ConnId,
    },
    Sync {
        conn: ConnId,
        path: Result<Option<Bytes>, ErrorCode>,
    },
    /// Answered here; it only waits for its turn.
    Refused {
        conn: ConnId,
    },
    /// Not asked for: it waits behind an answer that is older.
    Event {
        conn: ConnId,
    },
}

impl What {
    fn conn(&self) -> ConnId {
        match self {
            Self::Establish(hello) => hello.conn,
            Self::Write { conn }
            | Self::CloseSession { conn }
            | Self::Sync { conn, .. }
            | Self::Refused { conn }
            | Self::Event { conn } => *conn,
        }
    }

    /// Whether a transaction of the same session and cxid is the one that this waits for.
    fn is_answered_by(&self, body: &TxnBody) -> bool {
        match self {
            Self::Establish(_) => matches!(body, TxnBody::CreateSession(_)),
            Self::CloseSession { .. } => matches!(body, TxnBody::CloseSession(_)),
            Self::Write { .. } => !matches!(body, TxnBody::CreateSession(_) | TxnBody::CloseSession(_)),
            Self::Sync { .. } | Self::Refused { .. } | Self::Event { .. } => false,
        }
    }
}

impl Learning {
    /// Adds the connections that wait for an answer, and returns those that are not attached to a session yet.
    #[expect(clippy::disallowed_methods, clippy::iter_over_hash_type, reason = "the caller sorts")]
    pub(super) fn end(self, conns: &mut Vec<ConnId>) -> Vec<(SessionId, Hello)> {
        let mut arriving = Vec::new();
        for (session, hellos) in self.revalidations {
            arriving.extend(hellos.into_iter().map(|hello| (session, hello)));
        }
        for sync in self.syncs {
            if let SyncFor::Arrival(session, hello) = sync {
                arriving.push((session, hello));
            }
        }
        for waiting in self.waiting.into_values().flatten() {
            match waiting.what {
                What::Establish(hello) => arriving.push((SessionId::NONE, hello)),
                What::Write { conn }
                | What::CloseSession { conn }
                | What::Sync { conn, .. }
                | What::Refused { conn }
                | What::Event { conn } => conns.push(conn),
            }
        }
        arriving
    }

    pub(super) fn outstanding(&self) -> usize {
        self.count
    }

    pub(super) fn outstanding_bytes(&self) -> usize {
        self.bytes
    }

    fn wait(&mut self, session: SessionId, cxid: i32, len: usize, what: What) {
        self.count += 1;
        self.bytes += len;
        let waiting = Waiting { cxid, len, what, answer: None, may_have_moved: false };
        self.waiting.entry(session).or_default().push_back(waiting);
    }

    /// The oldest request of `session` without an answer that `is_it` says yes to.
    fn find(&mut self, session: SessionId, is_it: impl Fn(&Waiting) -> bool) -> Option<&mut Waiting> {
        let queue = self.waiting.get_mut(&session)?;
        queue.iter_mut().find(|waiting| waiting.answer.is_none() && is_it(waiting))
    }

    /// Lets out the answers of a session up to its oldest request without one. `last` is the database's zxid.
    fn release(&mut self, session: SessionId, last: Zxid, out: &mut Outputs) {
        let Some(queue) = self.waiting.get_mut(&session) else { return };
        while let Some(waiting) = queue.pop_front_if(|waiting| waiting.answer.is_some()) {
            self.count -= 1;
            self.bytes -= waiting.len;
            let conn = waiting.what.conn();
            // What comes after it is older than the database by now.
            let now = || queue.iter().find_map(told_at).map_or(last, |next| last.min(Zxid(next.0 - 1)));
            match waiting.answer {
                Some(Answer::Told(_, told)) => {
                    for (conn, message, bytes) in told {
                        out.client(conn, message, |to| to.extend_from_slice(&bytes));
                    }
                }
                Some(Answer::Synced) => {
                    if let What::Sync { path, .. } = waiting.what {
                        write_sync(out, conn, waiting.cxid, now(), path);
                    }
                }
                Some(Answer::Refused(code)) => out.fail(conn, waiting.cxid, now(), code),
                None => {}
            }
        }
        let held = queue.iter().find(|waiting| told_at(waiting).is_some()).map(|waiting| waiting.what.conn());
        if let Some(conn) = held {
            self.held.insert(conn, session);
        } else if !self.held.is_empty() {
            self.held.retain(|_, of| *of != session);
        }
        if queue.is_empty() {
            self.waiting.remove(&session);
        }
    }

    /// A watch event goes out, or waits behind older answers of its connection.
    pub(super) fn on_watch_event(
        &mut self,
        conn: ConnId,
        entry: &Entry,
        out: &mut Outputs,
        write: impl FnOnce(&mut BytesMut),
    ) {
        let Some(session) = self.holds(conn, entry) else {
            return out.client(conn, ClientMessage::Event, write);
        };
        let mut event = BytesMut::new();
        write(&mut event);
        self.hold(session, conn, entry, event.freeze());
    }

    /// The session and connection whose answers an event for `conn` has to wait for.
    fn holds(&self, conn: ConnId, entry: &Entry) -> Option<SessionId> {
        if self.syncs.is_empty() {
            return None;
        }
        // The answer to the very request that brings the event about is going to be held.
        let own = self.own_place(conn, entry).filter(|at| *at > 0).map(|_| entry.session());
        own.or_else(|| self.held.get(&conn).copied())
    }

    /// Where in its session's queue the request is that `entry` answers. The leader takes what this server sends in order,
    /// so that can only be the oldest write without an answer, or the first after those that may have been refused. A later
    /// one may have the same cxid as a request that the session sent through another server, and that the leader refuses
    /// only now.
    fn place(&self, entry: &Entry) -> Option<usize> {
        let queue = self.waiting.get(&entry.session())?;
        let mut open = queue.iter().enumerate().filter(|(_, waiting)| waiting.waits_for_commit());
        let (at, next) = open.find(|(_, waiting)| waiting.waits_for(entry) || !waiting.may_have_moved)?;
        next.waits_for(entry).then_some(at)
    }

    /// The same, if the request came over `conn`.
    fn own_place(&self, conn: ConnId, entry: &Entry) -> Option<usize> {
        let queue = self.waiting.get(&entry.session())?;
        self.place(entry).filter(|at| queue[*at].what.conn() == conn)
    }

    /// Keeps an event behind what its connection has been answered by then.
    fn hold(&mut self, session: SessionId, conn: ConnId, entry: &Entry, event: Bytes) {
        let own = self.own_place(conn, entry);
        let Some(queue) = self.waiting.get_mut(&session) else { return };
        let behind = || queue.iter().rposition(|waiting| told_at(waiting).is_some()).map(|last| last + 1);
        let at = own.or_else(behind).unwrap_or(0);
        let answer = Answer::Told(entry.zxid, vec![(conn, ClientMessage::Event, event)]);
        let what = What::Event { conn };
        queue.insert(at, Waiting { cxid: 0, len: 0, what, answer: Some(answer), may_have_moved: false });
        self.count += 1;
    }

    // Sessions.

    pub(super) fn on_new_session(&mut self, session: SessionId, hello: Hello, turn: &mut Turn<'_>) {
        self.wait(session, 0, 0, What::Establish(hello));
        let body = Bytes::copy_from_slice(&hello.timeout_ms.to_be_bytes());
        let op = Op::CreateSession.code();
        forward(Forwarded { session, cxid: 0, op, body, auth: Vec::new() }, turn);
    }

    pub(super) fn on_reattach(&mut self, session: SessionId, hello: Hello, turn: &mut Turn<'_>) {
        self.revalidations.entry(session).or_default().push_back(hello);
        if let Some(learner) = turn.zab.learner() {
            learner.revalidate(session, hello.timeout_ms, &mut turn.out.zab);
        }
    }

    /// The leader says whether a session that reattaches here is alive.
    pub(super) fn on_revalidated(&mut self, session: SessionId, valid: bool, turn: &mut Turn<'_>) {
        let Some(queue) = self.revalidations.get_mut(&session) else { return };
        let hello = queue.pop_front();
        if queue.is_empty() {
            self.revalidations.remove(&session);
        }
        let Some(hello) = hello else { return };
        if !valid {
            return turn.refuse(hello);
        }
        self.touched.insert(session, hello.timeout_ms);
        self.syncs.push_back(SyncFor::Arrival(session, hello));
        ask_sync(session, turn);
    }

    pub(super) fn on_touched(&mut self, sessions: Vec<SessionId>, turn: &Turn<'_>) {
        for session in sessions {
            self.touch(session, turn);
        }
    }

    /// The session was active, if it hangs on a connection here.
    fn touch(&mut self, session: SessionId, turn: &Turn<'_>) {
        self.touched.extend(turn.clients.timeout_ms(session).map(|timeout_ms| (session, timeout_ms)));
    }

    /// The leader asks which sessions were active.
    pub(super) fn on_pinged(&mut self, zxid: Zxid, turn: &mut Turn<'_>) {
        // What does not fit into one packet goes with the next.
        let most = turn.settings.rules.max_txn_bytes / TOUCH_LEN;
        let rest = self.touched.keys().nth(most).copied().map(|first| self.touched.split_off(&first));
        let touched = std::mem::replace(&mut self.touched, rest.unwrap_or_default()).into_iter().collect();
        if let Some(learner) = turn.zab.learner() {
            learner.pong(zxid, touched, &turn.zab.server, &mut turn.out.zab);
        }
    }

    // Requests.

    pub(super) fn on_request(&mut self, conn: ConnId, request: Request, turn: &mut Turn<'_>) {
        let Request { session, cxid, op, body, auth } = request;
        self.touch(session, turn);
        let what = if op == Op::CloseSession {
            Ok(What::CloseSession { conn })
        } else if op == Op::Sync {
            Ok(What::Sync { conn, path: sync_path(&body) })
        } else {
            may_forward(op, &body).map(|()| What::Write { conn })
        };
        let body = if op == Op::CloseSession { Bytes::new() } else { body };
        let mut forwarded = Forwarded { session, cxid, op: op.code(), body, auth: auth.to_vec() };
        let fits = forwarded.fits(turn.settings.rules.max_txn_bytes);
        let what = match what {
            Ok(What::Write { .. }) if !fits => {
                turn.too_large(session);
                Err(TOO_LARGE)
            }
            what => what,
        };
        if !fits {
            // Who ends a session, or only waits for others, needs no rights.
            forwarded.auth.clear();
        }
        match what {
            Ok(what) => {
                if matches!(what, What::Sync { .. }) {
                    self.syncs.push_back(SyncFor::Request(session));
                }
                self.wait(session, cxid, forwarded.body.len(), what);
                forward(forwarded, turn);
            }
            Err(code) => {
                self.wait(session, cxid, 0, What::Refused { conn });
                let is_refused = |waiting: &Waiting| matches!(waiting.what, What::Refused { .. });
                if let Some(refused) = self.find(session, is_refused) {
                    refused.answer = Some(Answer::Refused(code));
                }
                self.release(session, turn.db.last_zxid, turn.out);
            }
        }
    }

    /// What waits in the socket was sent nobody knows when: it does not show that the leader leads still. Reads wait until it
    /// has answered what this server asks now.
    pub(super) fn on_stood_still(&mut self, turn: &mut Turn<'_>) {
        self.syncs.push_back(SyncFor::Lease);
        self.doubts += 1;
        ask_sync(SessionId::NONE, turn);
    }

    /// Whether this server stood still, and the leader has not answered since.
    pub(super) fn doubts_leader(&self) -> bool {
        self.doubts > 0
    }

    /// The leader answered the oldest `sync`, and all that it covers is applied.
    pub(super) fn on_synced(&mut self, turn: &mut Turn<'_>) {
        let session = match self.syncs.pop_front() {
            None => return,
            Some(SyncFor::Lease) => {
                self.doubts -= 1;
                return;
            }
            Some(SyncFor::Request(session)) => session,
            Some(SyncFor::Moved { session, conn, cxid }) => {
                let is_it = |waiting: &Waiting| {
                    waiting.may_have_moved && waiting.cxid == cxid && waiting.what.conn() == conn
                };
                if let Some(waiting) = self.find(session, is_it) {
                    waiting.refuse_moved(turn.db.last_zxid);
                    self.release(session, turn.db.last_zxid, turn.out);
                }
                return;
            }
            Some(SyncFor::Arrival(session, hello)) if turn.db.sessions.contains_key(&session) => {
                return turn.establish(session, hello);
            }
            // It ended meanwhile.
            Some(SyncFor::Arrival(_, hello)) => return turn.refuse(hello),
        };
        let is_sync = |waiting: &Waiting| matches!(waiting.what, What::Sync { .. });
        let Some(waiting) = self.find(session, is_sync) else { return };
        waiting.answer = Some(Answer::Synced);
        self.release(session, turn.db.last_zxid, turn.out);
    }

    // What was committed.

    /// A request of the session was refused, because another server asked for it than the one that the session is at.
    fn on_moved(&mut self, entry: &Entry, turn: &mut Turn<'_>) {
        let session = entry.session();
        let is_next = |waiting: &Waiting| waiting.waits_for_commit() && !waiting.may_have_moved;
        let queue = self.waiting.get_mut(&session);
        let next = queue.and_then(|queue| queue.iter_mut().find(|waiting| is_next(waiting)));
        if let Some(waiting) = next.filter(|waiting| waiting.waits_for(entry)) {
            waiting.may_have_moved = true;
            self.syncs.push_back(SyncFor::Moved { session, conn: waiting.what.conn(), cxid: waiting.cxid });
            ask_sync(session, turn);
        }
    }

    pub(super) fn on_committed(&mut self, entry: &Entry, applied: &Applied, turn: &mut Turn<'_>) {
        if has_moved(applied) {
            return self.on_moved(entry, turn);
        }
        let session = entry.session();
        let cxid = entry.txn.header.cxid;
        let mut answered = None;
        let mut established = None;
        let place = self.place(entry);
        let queue = self.waiting.get_mut(&session);
        if let Some((at, queue)) = place.zip(queue) {
            // This one's answer has come: those before it did move.
            let before = queue.iter_mut().take(at).filter(|waiting| waiting.waits_for_commit());
            before.for_each(|waiting| waiting.refuse_moved(entry.zxid));
            let waiting = &mut queue[at];
            let told = match &waiting.what {
                What::Establish(hello) => {
                    established = Some(*hello);
                    Vec::new()
                }
                What::CloseSession { conn } => {
                    answered = Some(*conn);
                    aside(|out| last_reply(out, *conn, cxid, entry.zxid))
                }
                What::Write { conn } => aside(|out| answer(out, *conn, cxid, entry, applied)),
                What::Sync { .. } | What::Refused { .. } | What::Event { .. } => Vec::new(),
            };
            waiting.answer = Some(Answer::Told(entry.zxid, told));
            self.release(session, entry.zxid, turn.out);
        }
        if let Some(hello) = established {
            self.touched.insert(session, hello.timeout_ms);
            turn.establish(session, hello);
        }
        if matches!(entry.txn.body, TxnBody::CloseSession(_)) {
            turn.detach(session, answered);
        }
    }
}

/// Asks the leader for a `sync` of this server's own.
fn ask_sync(session: SessionId, turn: &mut Turn<'_>) {
    let mut body = BytesMut::new();
    SyncRequest::<&[u8]> { path: Some(b"/") }.encode(&mut body);
    let (op, body) = (Op::Sync.code(), body.freeze());
    forward(Forwarded { session, cxid: 0, op, body, auth: Vec::new() }, turn);
}

/// Hands a request on to the leader.
fn forward(request: Forwarded, turn: &mut Turn<'_>) {
    if let Some(learner) = turn.zab.learner() {
        learner.forward(request, &mut turn.out.zab);
    }
}

impl Waiting {
    /// Another server asks for the session by now.
    fn refuse_moved(&mut self, zxid: Zxid) {
        let told = aside(|out| out.close(self.what.conn(), CloseReason::SessionMoved));
        self.answer = Some(Answer::Told(zxid, told));
    }

    /// Whether a transaction is going to answer this.
    fn waits_for_commit(&self) -> bool {
        self.answer.is_none() && !matches!(self.what, What::Sync { .. })
    }

    /// Whether `entry`, which is of the same session, is what this waits for.
    fn waits_for(&self, entry: &Entry) -> bool {
        self.cxid == entry.txn.header.cxid && self.what.is_answered_by(&entry.txn.body)
    }
}

/// The transaction that an answer came with, where it did.
fn told_at(waiting: &Waiting) -> Option<Zxid> {
    match &waiting.answer {
        Some(Answer::Told(zxid, _)) => Some(*zxid),
        Some(Answer::Synced | Answer::Refused(_)) | None => None,
    }
}

/// Writes an answer aside.
fn aside(write: impl FnOnce(&mut Outputs)) -> Vec<(ConnId, ClientMessage, Bytes)> {
    let mut out = Outputs::default();
    write(&mut out);
    let mut bytes = out.bytes;
    let told = out.client.into_iter();
    told.map(|output| (output.conn, output.message, bytes.split_to(output.len).freeze())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::jute::records::{ErrorTxn, TxnHeader};
    use crate::wire::txn::Txn;

    fn entry(session: SessionId, cxid: i32, zxid: i64) -> Entry {
        let header = TxnHeader { client_id: session.0, cxid, zxid, time: 0, op: -1 };
        Entry::new(Txn { header, body: TxnBody::Error(ErrorTxn { err: -101 }), digest: None })
    }

    #[test]
    fn who_has_just_come_is_not_sent_away_with_the_others() {
        let hello = |conn| Hello { conn, timeout_ms: 1000, read_only: None, last_zxid_seen: 7 };
        let mut learning = Learning::default();
        learning.wait(SessionId(1), 0, 0, What::Establish(hello(ConnId(1))));
        learning.syncs.push_back(SyncFor::Arrival(SessionId(4), hello(ConnId(4))));
        learning.revalidations.entry(SessionId(2)).or_default().push_back(hello(ConnId(2)));
        learning.wait(SessionId(3), 5, 0, What::Write { conn: ConnId(3) });
        let mut conns = Vec::new();
        let mut arriving: Vec<_> =
            learning.end(&mut conns).into_iter().map(|(id, hello)| (id, hello.conn)).collect();
        arriving.sort_unstable();
        let expected = [(SessionId::NONE, ConnId(1)), (SessionId(2), ConnId(2)), (SessionId(4), ConnId(4))];
        assert_eq!(arriving, expected);
        assert_eq!(conns, [ConnId(3)]);
    }

    #[test]
    fn a_commit_answers_no_write_before_its_turn() {
        let (mine, conn) = (SessionId(1), ConnId(1));
        let mut learning = Learning::default();
        learning.wait(mine, 1, 0, What::Write { conn });
        learning.wait(mine, 2, 0, What::Sync { conn, path: Ok(None) });
        learning.wait(mine, 3, 0, What::Write { conn });
        // The session sent a request of this number through another server, too.
        assert_eq!(learning.place(&entry(mine, 3, 5)), None);
        assert_eq!(learning.place(&entry(mine, 1, 6)), Some(0));
        learning.waiting.get_mut(&mine).unwrap()[0].answer = Some(Answer::Told(Zxid(6), Vec::new()));
        assert_eq!(learning.place(&entry(mine, 3, 7)), Some(2), "a sync takes no transaction");
    }

    #[test]
    fn an_event_of_somebody_elses_write_waits_behind_what_was_answered_before_it() {
        let (mine, other, conn) = (SessionId(1), SessionId(2), ConnId(1));
        let mut learning = Learning::default();
        learning.syncs.push_back(SyncFor::Request(mine));
        learning.wait(mine, 1, 0, What::Sync { conn, path: Ok(None) });
        learning.wait(mine, 2, 0, What::Write { conn });
        learning.wait(mine, 3, 0, What::Write { conn });
        let write = learning.find(mine, |waiting| waiting.cxid == 2).unwrap();
        write.answer = Some(Answer::Told(Zxid(5), Vec::new()));
        learning.release(mine, Zxid(5), &mut Outputs::default());

        // Its number is that of a write which still waits here.
        let theirs = entry(other, 3, 6);
        assert_eq!(learning.holds(conn, &theirs), Some(mine));
        learning.hold(mine, conn, &theirs, Bytes::new());
        let told: Vec<_> = learning.waiting[&mine].iter().map(told_at).collect();
        assert_eq!(told, [None, Some(Zxid(5)), Some(Zxid(6)), None]);

        let own = entry(mine, 3, 7);
        learning.hold(mine, conn, &own, Bytes::new());
        let told: Vec<_> = learning.waiting[&mine].iter().map(told_at).collect();
        assert_eq!(told, [None, Some(Zxid(5)), Some(Zxid(6)), Some(Zxid(7)), None]);
    }
}
