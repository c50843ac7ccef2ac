//! Whom this server serves, and how: the one place that tells apart the parts that it plays for its clients.

use super::clients::{Access, Clients, Hello};
use super::leading::Leading;
use super::learning::Learning;
use super::read_only::ReadOnly;
use super::{ClientMessage, CloseReason, Now, Outputs, Settings};
use crate::model::{ConnId, LinkId, SessionId, Zxid};
use crate::request::Request;
use crate::session::SessionTracker;
use crate::tree::{Applied, Database};
use crate::wire::quorum::Forwarded;
use crate::zab::{Entry, Zab};
use bytes::BytesMut;

/// What every part needs to act: the time, the database, and what all parts share.
pub(super) struct Turn<'a> {
    pub now: Now,
    pub db: &'a Database,
    pub settings: &'a Settings,
    pub zab: &'a mut Zab,
    pub clients: &'a mut Clients,
    /// What clients may do here.
    pub access: Access,
    /// Set where what the server tells of itself may have changed.
    pub status_changed: &'a mut bool,
    pub out: &'a mut Outputs,
}

impl Turn<'_> {
    /// The session hangs on this connection from now on; another one that it hung on ends.
    pub(super) fn establish(&mut self, session: SessionId, hello: Hello) {
        self.clients.establish(session, hello, self.access, self.out);
    }

    /// "No such session": the client must begin a new one.
    pub(super) fn refuse(&mut self, hello: Hello) {
        hello.refuse(CloseReason::InvalidSession, self.access, self.out);
    }

    /// A session's end was applied: its connection here ends, unless it is the one that asked and was answered.
    pub(super) fn detach(&mut self, session: SessionId, answered: Option<ConnId>) {
        self.clients.detach(session, answered, self.out);
    }

    /// The zxid of the next proposal; none where this term can't propose any more.
    pub(super) fn next_zxid(&mut self) -> Option<Zxid> {
        self.zab.next_zxid(&mut self.out.zab)
    }

    /// A write was refused, for no server could read its transaction.
    pub(super) fn too_large(&mut self, session: SessionId) {
        self.clients.too_large(self.now, session, self.settings.rules.max_txn_bytes, self.out);
    }
}

/// What becomes of a client that connects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Welcome {
    /// It is served.
    Served,
    /// It waits for a leader.
    Waits,
    /// Another server may serve it.
    SentAway,
}

/// The part that this server plays for its clients.
#[derive(Debug)]
pub(super) enum Serving {
    /// It serves no client: there is no leader.
    Nobody,
    Leading(Box<Leading>),
    Learning(Box<Learning>),
    ReadOnly(Box<ReadOnly>),
}

impl Serving {
    pub(super) fn is_nobody(&self) -> bool {
        matches!(self, Self::Nobody)
    }

    pub(super) fn is_leading(&self) -> bool {
        matches!(self, Self::Leading(_))
    }

    pub(super) fn is_learning(&self) -> bool {
        matches!(self, Self::Learning(_))
    }

    pub(super) fn is_read_only(&self) -> bool {
        matches!(self, Self::ReadOnly(_))
    }

    pub(super) fn access(&self) -> Access {
        if self.is_read_only() { Access::ReadOnly } else { Access::Full }
    }

    /// What becomes of a client; `takes_read_only`: it would be content to read.
    pub(super) fn welcome(&self, takes_read_only: bool, settings: &Settings) -> Welcome {
        match self {
            Self::Nobody => Welcome::Waits,
            Self::ReadOnly(_) if !takes_read_only => Welcome::Waits,
            Self::Leading(_) if !settings.leader_serves => Welcome::SentAway,
            Self::Leading(_) | Self::Learning(_) | Self::ReadOnly(_) => Welcome::Served,
        }
    }

    pub(super) fn on_new_session(&mut self, session: SessionId, hello: Hello, turn: &mut Turn<'_>) {
        match self {
            Self::Nobody => turn.out.close(hello.conn, CloseReason::NotServing),
            Self::Leading(leading) => leading.on_new_session(session, hello, turn),
            Self::Learning(learning) => learning.on_new_session(session, hello, turn),
            Self::ReadOnly(read_only) => read_only.on_new_session(session, hello, turn),
        }
    }

    pub(super) fn on_reattach(&mut self, session: SessionId, hello: Hello, turn: &mut Turn<'_>) {
        match self {
            Self::Nobody => turn.out.close(hello.conn, CloseReason::NotServing),
            Self::Leading(leading) => leading.on_reattach(session, hello, turn),
            Self::Learning(learning) => learning.on_reattach(session, hello, turn),
            Self::ReadOnly(read_only) => read_only.on_reattach(session, hello, turn),
        }
    }

    pub(super) fn on_request(&mut self, conn: ConnId, request: Request, turn: &mut Turn<'_>) {
        match self {
            Self::Nobody => turn.out.close(conn, CloseReason::NotServing),
            Self::Leading(leading) => leading.on_request(conn, request, turn),
            Self::Learning(learning) => learning.on_request(conn, request, turn),
            Self::ReadOnly(read_only) => read_only.on_request(conn, &request, turn),
        }
    }

    /// These sessions of this server were heard from.
    pub(super) fn on_touched(&mut self, sessions: Vec<SessionId>, turn: &Turn<'_>) {
        match self {
            Self::Nobody => {}
            Self::Leading(leading) => leading.on_touched(sessions, turn),
            Self::Learning(learning) => learning.on_touched(sessions, turn),
            Self::ReadOnly(read_only) => read_only.on_touched(sessions, turn),
        }
    }

    /// A learner hands a request on.
    pub(super) fn on_forwarded(&mut self, link: LinkId, request: Forwarded, turn: &mut Turn<'_>) {
        if let Self::Leading(leading) = self {
            leading.on_forwarded(link, request, turn);
        }
    }

    /// A client reattaches at a learner.
    pub(super) fn on_revalidate(
        &mut self,
        link: LinkId,
        session: SessionId,
        timeout_ms: i32,
        turn: &mut Turn<'_>,
    ) {
        if let Self::Leading(leading) = self {
            leading.on_revalidate(link, session, timeout_ms, turn);
        }
    }

    /// Learners heard from these sessions.
    pub(super) fn on_learners_touched(&mut self, sessions: &[(SessionId, i32)], turn: &Turn<'_>) {
        if let Self::Leading(leading) = self {
            leading.on_learners_touched(sessions, turn);
        }
    }

    /// The leader asks which sessions were active.
    pub(super) fn on_pinged(&mut self, zxid: Zxid, turn: &mut Turn<'_>) {
        match self {
            Self::Learning(learning) => learning.on_pinged(zxid, turn),
            // UPTODATE came with it, and is still to be applied. The leader counts its pings: each is answered.
            Self::Nobody | Self::ReadOnly(_) => {
                if let Some(learner) = turn.zab.learner() {
                    learner.pong(zxid, Vec::new(), &turn.zab.server, &mut turn.out.zab);
                }
            }
            Self::Leading(_) => {}
        }
    }

    /// The leader says whether a session that reattaches here is alive.
    pub(super) fn on_revalidated(&mut self, session: SessionId, valid: bool, turn: &mut Turn<'_>) {
        if let Self::Learning(learning) = self {
            learning.on_revalidated(session, valid, turn);
        }
    }

    /// Leading: the oldest `sync` of this server is confirmed, and all before it is applied.
    pub(super) fn on_sync_ready(&mut self, turn: &mut Turn<'_>) {
        if let Self::Leading(leading) = self {
            leading.on_sync_ready(turn);
        }
    }

    /// Learning: the leader answered the oldest `sync`, and all that it covers is applied.
    pub(super) fn on_synced(&mut self, turn: &mut Turn<'_>) {
        if let Self::Learning(learning) = self {
            learning.on_synced(turn);
        }
    }

    /// This server stood still for `ms` milliseconds: what came meanwhile may wait unread.
    pub(super) fn on_stood_still(&mut self, ms: u64, turn: &mut Turn<'_>) {
        match self {
            Self::Nobody => {}
            Self::Leading(leading) => {
                leading.sessions_mut().stood_still(ms);
                if let Some((leader, _)) = turn.zab.leader_mut() {
                    leader.stood_still(ms);
                }
            }
            Self::Learning(learning) => learning.on_stood_still(turn),
            Self::ReadOnly(read_only) => read_only.sessions_mut().stood_still(ms),
        }
    }

    /// A transaction is committed and applied.
    pub(super) fn on_committed(&mut self, entry: &Entry, applied: &Applied, turn: &mut Turn<'_>) {
        match self {
            Self::Nobody | Self::ReadOnly(_) => {}
            Self::Leading(leading) => leading.on_committed(entry, applied, turn),
            Self::Learning(learning) => learning.on_committed(entry, applied, turn),
        }
    }

    /// A transaction brings a watch event about: it goes out, or waits for older answers of its connection.
    pub(super) fn on_watch_event(
        &mut self,
        conn: ConnId,
        entry: &Entry,
        out: &mut Outputs,
        write: impl FnOnce(&mut BytesMut),
    ) {
        match self {
            Self::Leading(leading) if leading.holds(conn, entry.zxid) => {
                leading.hold(conn, entry.zxid, out, write);
            }
            Self::Learning(learning) => learning.on_watch_event(conn, entry, out, write),
            Self::Leading(_) | Self::Nobody | Self::ReadOnly(_) => {
                out.client(conn, ClientMessage::Event, write);
            }
        }
    }

    pub(super) fn on_tick(&mut self, turn: &mut Turn<'_>) {
        match self {
            Self::Nobody | Self::Learning(_) => {}
            Self::Leading(leading) => leading.on_tick(turn),
            Self::ReadOnly(read_only) => read_only.on_tick(turn),
        }
    }

    /// When [`Self::on_tick`] has something to do, in monotonic milliseconds. A leader is woken by its protocol, and where it
    /// has left some of its work for another turn.
    pub(super) fn next_wake(&self) -> Option<u64> {
        match self {
            Self::Nobody | Self::Learning(_) => None,
            Self::Leading(leading) => leading.next_wake(),
            Self::ReadOnly(read_only) => read_only.next_wake(),
        }
    }

    /// Ends: adds the connections that wait for an answer, and returns those that are not attached to a session yet.
    pub(super) fn end(self, conns: &mut Vec<ConnId>) -> Vec<(SessionId, Hello)> {
        match self {
            Self::Nobody | Self::ReadOnly(_) => Vec::new(),
            Self::Leading(leading) => leading.end(conns),
            Self::Learning(learning) => learning.end(conns),
        }
    }

    /// Until when reads may be answered, in monotonic milliseconds.
    pub(super) fn lease(&self, zab: &Zab) -> u64 {
        match self {
            Self::Nobody => 0,
            // Its clients know that there may be another leader.
            Self::ReadOnly(_) => u64::MAX,
            Self::Learning(learning) if learning.doubts_leader() => 0,
            Self::Leading(_) | Self::Learning(_) => zab.lease(),
        }
    }

    /// The connections that wait for this server's own log.
    pub(super) fn waiting_for_log(&self) -> Vec<ConnId> {
        match self {
            Self::Nobody | Self::ReadOnly(_) | Self::Learning(_) => Vec::new(),
            Self::Leading(leading) => leading.waiting(),
        }
    }

    /// Requests of this server's own clients that are not answered yet.
    pub(super) fn outstanding(&self) -> usize {
        match self {
            Self::Nobody | Self::ReadOnly(_) => 0,
            Self::Leading(leading) => leading.outstanding(),
            Self::Learning(learning) => learning.outstanding(),
        }
    }

    /// The bytes of those requests.
    pub(super) fn outstanding_bytes(&self) -> usize {
        match self {
            Self::Nobody | Self::ReadOnly(_) => 0,
            Self::Leading(leading) => leading.outstanding_bytes(),
            Self::Learning(learning) => learning.outstanding_bytes(),
        }
    }

    /// The sessions whose ends are decided here.
    pub(super) fn sessions(&self) -> Option<&SessionTracker> {
        match self {
            Self::Leading(leading) => Some(leading.sessions()),
            Self::ReadOnly(read_only) => Some(read_only.sessions()),
            Self::Nobody | Self::Learning(_) => None,
        }
    }
}
