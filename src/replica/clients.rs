//! Clients and their sessions, whatever part this server plays: connect, reattach, touch, end.

use super::{ClientMessage, CloseReason, Now, Outputs, Replica, Serving};
use crate::model::{ConnId, SessionId};
use crate::session::password_of;
use crate::tree::Database;
use crate::wire::connect::{self, Connect};

/// The connection on which a session hangs here.
#[derive(Debug, Clone, Copy)]
pub(super) struct Attached {
    pub conn: ConnId,
    /// Negotiated on this connection; the session's own one may differ.
    pub timeout_ms: i32,
}

/// What a client that connects is answered with, once its session is there.
#[derive(Debug, Clone, Copy)]
pub(super) struct Hello {
    pub conn: ConnId,
    pub timeout_ms: i32,
    /// As it was asked; `None` by a client that would not understand an answer to it.
    pub read_only: Option<bool>,
    pub last_zxid_seen: i64,
}

impl Hello {
    /// The request, to be looked at anew. `session` is none where one is to begin.
    fn again(self, session: SessionId) -> Connect {
        let (timeout, last_zxid_seen) = (self.timeout_ms, self.last_zxid_seen);
        let passwd = password_of(session).to_vec();
        Connect { last_zxid_seen, timeout, session, passwd, read_only: self.read_only }
    }
}

/// A client that came while nobody leads.
#[derive(Debug)]
pub(super) struct Arrival {
    conn: ConnId,
    connect: Connect,
    pub until: u64,
}

/// How long it is kept, in milliseconds: as long as most elections take. A client that is sent away at once has soon tried all
/// servers in vain, and some give up then.
const PATIENCE_MS: u64 = 500;
/// How many are kept.
const MAX_ARRIVALS: usize = 10_000;

impl Replica {
    pub(super) fn on_connect(
        &mut self,
        now: Now,
        db: &Database,
        conn: ConnId,
        connect: Connect,
        out: &mut Outputs,
    ) {
        match &self.serving {
            Serving::Nobody => return self.keep_waiting(now, conn, connect, out),
            Serving::ReadOnly(_) if connect.read_only != Some(true) => {
                return self.keep_waiting(now, conn, connect, out);
            }
            Serving::Leading(_) if !self.settings.leader_serves => {
                return out.close(conn, CloseReason::NotServing);
            }
            Serving::Leading(_) | Serving::Learning(_) | Serving::ReadOnly(_) => {}
        }
        if connect.last_zxid_seen > db.last_zxid.0 {
            // It has seen a future that this server has not: no answer, so that it tries another one.
            return out.close(conn, CloseReason::ClientIsAhead);
        }
        let (min, max) = (self.settings.min_session_timeout_ms, self.settings.max_session_timeout_ms);
        let timeout_ms = connect.timeout.min(max).max(min);
        let Connect { read_only, last_zxid_seen, .. } = connect;
        let hello = Hello { conn, timeout_ms, read_only, last_zxid_seen };
        if connect.session == SessionId::NONE {
            let session = self.ids.next(|id| db.sessions.contains_key(&id));
            return match &self.serving {
                Serving::Leading(_) => self.lead_new_session(now, session, hello, out),
                Serving::ReadOnly(_) => self.read_only_new_session(now, session, hello, out),
                Serving::Nobody | Serving::Learning(_) => self.learn_new_session(session, hello, out),
            };
        }
        out.tally.revalidated_sessions += 1;
        // The password comes first: a stranger must not cut the owner's connection.
        if connect.passwd != password_of(connect.session) {
            return self.refuse(hello, out);
        }
        match &self.serving {
            Serving::Leading(_) => self.lead_reattach(now, connect.session, hello, out),
            Serving::ReadOnly(_) => self.read_only_reattach(now, db, connect.session, hello, out),
            Serving::Nobody | Serving::Learning(_) => self.learn_reattach(connect.session, hello, out),
        }
    }

    fn keep_waiting(&mut self, now: Now, conn: ConnId, connect: Connect, out: &mut Outputs) {
        if self.arrivals.len() == MAX_ARRIVALS {
            return out.close(conn, CloseReason::NotServing);
        }
        // It has to have the time to try the others.
        let patience_ms = PATIENCE_MS.min(u64::try_from(connect.timeout / 10).unwrap_or(0));
        self.arrivals.push(Arrival { conn, connect, until: now.mono_ms + patience_ms });
    }

    /// There is a leader: whoever waited is let in.
    pub(super) fn let_in(&mut self, now: Now, db: &Database, out: &mut Outputs) {
        for Arrival { conn, connect, .. } in std::mem::take(&mut self.arrivals) {
            self.on_connect(now, db, conn, connect, out);
        }
    }

    /// The session hangs on this connection from now on; another one that it hung on ends.
    pub(super) fn establish(&mut self, session: SessionId, hello: Hello, out: &mut Outputs) {
        let Hello { conn, timeout_ms, .. } = hello;
        let read_only = self.answers_read_only(hello);
        let old = self.attached.insert(session, Attached { conn, timeout_ms });
        if let Some(old) = old.filter(|old| old.conn != conn) {
            out.close(old.conn, CloseReason::SessionTakenOver);
        }
        out.client(conn, ClientMessage::Established { session, timeout_ms }, |bytes| {
            connect::write_response(session, timeout_ms, &password_of(session), read_only, bytes);
        });
    }

    /// "No such session": the client has to begin a new one.
    pub(super) fn refuse(&self, hello: Hello, out: &mut Outputs) {
        let read_only = self.answers_read_only(hello);
        out.client(hello.conn, ClientMessage::Close(CloseReason::InvalidSession), |bytes| {
            connect::write_response(SessionId::NONE, 0, &[0; 16], read_only, bytes);
        });
    }

    /// What a client is told of this server's mode.
    fn answers_read_only(&self, hello: Hello) -> Option<bool> {
        hello.read_only.map(|_| matches!(self.serving, Serving::ReadOnly(_)))
    }

    pub(super) fn on_disconnected(&mut self, conn: ConnId, session: SessionId) {
        // Let in later, it would take its session away from where that hangs by then.
        self.arrivals.retain(|arrival| arrival.conn != conn);
        if self.attached.get(&session).is_some_and(|attached| attached.conn == conn) {
            self.attached.remove(&session);
        }
    }

    /// A session's end was applied: its connection here ends, unless it is the one that asked and was answered.
    pub(super) fn detach(&mut self, session: SessionId, answered: Option<ConnId>, out: &mut Outputs) {
        if let Some(attached) = self.attached.remove(&session)
            && answered != Some(attached.conn)
        {
            out.close(attached.conn, CloseReason::SessionEnded);
        }
    }

    /// Without a leader nobody is served: every connection ends, so that clients look for a server that has one. Those that
    /// have just come wait for the next one here.
    pub(super) fn stop_serving(&mut self, now: Now, out: &mut Outputs) {
        let mut conns: Vec<ConnId> = self.attached.drain().map(|(_, attached)| attached.conn).collect();
        let mut arriving = match std::mem::replace(&mut self.serving, Serving::Nobody) {
            Serving::Nobody | Serving::ReadOnly(_) => Vec::new(),
            Serving::Leading(leading) => leading.end(&mut conns),
            Serving::Learning(learning) => learning.end(&mut conns),
        };
        arriving.sort_unstable_by_key(|(_, hello)| hello.conn);
        for (session, hello) in arriving {
            self.keep_waiting(now, hello.conn, hello.again(session), out);
        }
        conns.sort_unstable();
        conns.dedup();
        for conn in conns {
            out.close(conn, CloseReason::NotServing);
        }
    }

    pub fn attached(&self) -> impl Iterator<Item = (SessionId, ConnId)> {
        self.attached.iter().map(|(session, attached)| (*session, attached.conn))
    }

    pub(super) fn on_touched(&mut self, now: Now, sessions: Vec<SessionId>) {
        match &mut self.serving {
            Serving::Nobody => {}
            Serving::ReadOnly(read_only) => {
                for session in sessions {
                    read_only.sessions.touch(now.mono_ms, session, None);
                }
            }
            Serving::Leading(leading) => leading.touch(now, sessions),
            Serving::Learning(learning) => {
                for session in sessions {
                    if let Some(attached) = self.attached.get(&session) {
                        learning.touch(session, attached.timeout_ms);
                    }
                }
            }
        }
    }

    pub(super) fn tick_clients(&mut self, now: Now, db: &Database, out: &mut Outputs) {
        for arrival in self.arrivals.extract_if(.., |arrival| arrival.until <= now.mono_ms) {
            out.close(arrival.conn, CloseReason::NotServing);
        }
        if matches!(self.serving, Serving::Leading(_)) {
            self.tick_leading(now, db, out);
        }
        self.tick_read_only(now, db, out);
    }

    /// Requests of this server's own clients that are not answered yet.
    pub fn outstanding(&self) -> usize {
        match &self.serving {
            Serving::Nobody | Serving::ReadOnly(_) => 0,
            Serving::Leading(leading) => leading.outstanding(),
            Serving::Learning(learning) => learning.outstanding(),
        }
    }
}
