//! Clients and their sessions, whatever part this server plays: who hangs on which connection, and who waits.

use super::{ClientMessage, CloseReason, Now, Outputs, Told};
use crate::model::{ConnId, SessionId};
use crate::session::password_of;
use crate::wire::connect::{self, Connect};
use std::collections::{BTreeMap, HashMap};

/// What clients may do here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Access {
    Full,
    /// There is no leader: they may read.
    ReadOnly,
}

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
    /// The request, to be looked at again. `session` is none where one is to begin.
    pub(super) fn again(self, session: SessionId) -> Connect {
        let (timeout, last_zxid_seen) = (self.timeout_ms, self.last_zxid_seen);
        let passwd = password_of(session).to_vec();
        Connect { last_zxid_seen, timeout, session, passwd, read_only: self.read_only }
    }

    /// What the client learns of this server's mode, if it asked.
    fn told_read_only(self, access: Access) -> Option<bool> {
        self.read_only.map(|_| access == Access::ReadOnly)
    }

    /// "No such session": the client must begin a new one.
    pub(super) fn refuse(self, reason: CloseReason, access: Access, out: &mut Outputs) {
        let read_only = self.told_read_only(access);
        out.client(self.conn, ClientMessage::Close(reason), |bytes| {
            connect::write_response(SessionId::NONE, 0, &[0; 16], read_only, bytes);
        });
    }
}

/// How long a client that came while nobody leads is kept, in milliseconds: as long as most elections take. One that is sent away
/// at once has soon tried all servers in vain, and some give up then.
const PATIENCE_MS: u64 = 500;
/// How many are kept.
const MAX_ARRIVALS: usize = 10_000;

/// Clients that came while nobody leads. Thousands come and go within an election: none of them is searched for.
#[derive(Debug, Default)]
struct Arrivals {
    /// By when each has waited long enough, in milliseconds.
    by_end: BTreeMap<(u64, ConnId), Connect>,
    ends: HashMap<ConnId, u64>,
}

impl Arrivals {
    fn add(&mut self, conn: ConnId, connect: Connect, until: u64) {
        self.remove(conn);
        self.ends.insert(conn, until);
        self.by_end.insert((until, conn), connect);
    }

    fn remove(&mut self, conn: ConnId) {
        if let Some(until) = self.ends.remove(&conn) {
            self.by_end.remove(&(until, conn));
        }
    }

    /// One that has waited long enough.
    fn next_over(&mut self, now: u64) -> Option<ConnId> {
        let (_, conn) = *self.by_end.first_key_value().filter(|((until, _), _)| *until <= now)?.0;
        self.remove(conn);
        Some(conn)
    }

    fn next_end(&self) -> Option<u64> {
        self.by_end.first_key_value().map(|((until, _), _)| *until)
    }
}

/// How often the log says that writes were refused for their size, in milliseconds.
const TELL_TOO_LARGE_EVERY_MS: u64 = 10_000;

/// Writes that were refused because no server could have read their transactions.
#[derive(Debug, Default)]
struct RefusedForSize {
    untold: u64,
    tell_from_ms: u64,
}

#[derive(Debug, Default)]
pub(super) struct Clients {
    /// The connection that each session hangs on here.
    attached: HashMap<SessionId, Attached>,
    /// Those that wait for a leader.
    arrivals: Arrivals,
    refused_for_size: RefusedForSize,
}

impl Clients {
    /// The session hangs on this connection from now on; another one that it hung on ends.
    pub(super) fn establish(&mut self, session: SessionId, hello: Hello, access: Access, out: &mut Outputs) {
        let Hello { conn, timeout_ms, .. } = hello;
        let old = self.attached.insert(session, Attached { conn, timeout_ms });
        if let Some(old) = old.filter(|old| old.conn != conn) {
            out.close(old.conn, CloseReason::SessionTakenOver);
        }
        out.client(conn, ClientMessage::Established { session, timeout_ms }, |bytes| {
            let read_only = hello.told_read_only(access);
            connect::write_response(session, timeout_ms, &password_of(session), read_only, bytes);
        });
    }

    /// The timeout that was negotiated on the connection that the session hangs on here.
    pub(super) fn timeout_ms(&self, session: SessionId) -> Option<i32> {
        self.attached.get(&session).map(|attached| attached.timeout_ms)
    }

    #[expect(clippy::disallowed_methods, reason = "the caller sorts")]
    pub(super) fn attached(&self) -> impl Iterator<Item = (SessionId, ConnId)> {
        self.attached.iter().map(|(session, attached)| (*session, attached.conn))
    }

    /// A session's end was applied: its connection here ends, unless it is the one that asked and was answered.
    pub(super) fn detach(&mut self, session: SessionId, answered: Option<ConnId>, out: &mut Outputs) {
        if let Some(attached) = self.attached.remove(&session)
            && answered != Some(attached.conn)
        {
            out.close(attached.conn, CloseReason::SessionEnded);
        }
    }

    /// No session hangs on a connection any more. Returns those connections.
    #[expect(clippy::disallowed_methods, reason = "the caller sorts")]
    pub(super) fn detach_all(&mut self) -> Vec<ConnId> {
        self.attached.drain().map(|(_, attached)| attached.conn).collect()
    }

    pub(super) fn on_disconnected(&mut self, conn: ConnId, session: SessionId) {
        // Let in later, it would take its session away from where that hangs by then.
        self.arrivals.remove(conn);
        if self.attached.get(&session).is_some_and(|attached| attached.conn == conn) {
            self.attached.remove(&session);
        }
    }

    /// The client waits for a leader, unless too many do.
    pub(super) fn keep_waiting(&mut self, now: Now, conn: ConnId, connect: Connect, out: &mut Outputs) {
        if self.arrivals.ends.len() == MAX_ARRIVALS {
            return out.close(conn, CloseReason::NotServing);
        }
        // It has to have the time to try the others.
        let patience_ms = PATIENCE_MS.min(u64::try_from(connect.timeout / 10).unwrap_or(0));
        self.arrivals.add(conn, connect, now.mono_ms + patience_ms);
    }

    /// Those that wait for a leader, who do so no more.
    pub(super) fn take_arrivals(&mut self) -> impl Iterator<Item = (ConnId, Connect)> + use<> {
        let arrivals = std::mem::take(&mut self.arrivals).by_end;
        arrivals.into_iter().map(|((_, conn), connect)| (conn, connect))
    }

    /// Who has waited long enough has to try another server.
    pub(super) fn on_tick(&mut self, now: Now, out: &mut Outputs) {
        while let Some(conn) = self.arrivals.next_over(now.mono_ms) {
            out.close(conn, CloseReason::NotServing);
        }
    }

    /// When [`Self::on_tick`] has something to do, in monotonic milliseconds.
    pub(super) fn next_wake(&self) -> Option<u64> {
        self.arrivals.next_end()
    }

    /// A write was refused for its size. A client may try it without end: the log says so once in a while.
    pub(super) fn too_large(&mut self, now: Now, session: SessionId, limit: usize, out: &mut Outputs) {
        let refused = &mut self.refused_for_size;
        refused.untold += 1;
        if now.mono_ms >= refused.tell_from_ms {
            let count = std::mem::take(&mut refused.untold);
            refused.tell_from_ms = now.mono_ms + TELL_TOO_LARGE_EVERY_MS;
            out.told.push(Told::TooLarge { session, limit, count });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn connect() -> Connect {
        Connect { last_zxid_seen: 0, timeout: 500, session: SessionId::NONE, passwd: vec![], read_only: None }
    }

    #[test]
    fn who_waits_for_a_leader_is_known_by_its_end_and_by_its_connection() {
        let mut arrivals = Arrivals::default();
        for (conn, until) in [(1, 30), (2, 10), (3, 20), (4, 20), (2, 40)] {
            arrivals.add(ConnId(conn), connect(), until);
        }
        arrivals.remove(ConnId(3));
        arrivals.remove(ConnId(9));
        assert_eq!(arrivals.next_end(), Some(20));
        let over: Vec<_> = std::iter::from_fn(|| arrivals.next_over(30)).collect();
        assert_eq!(over, [ConnId(4), ConnId(1)]);
        assert_eq!((arrivals.next_over(39), arrivals.next_end()), (None, Some(40)));
        assert_eq!((arrivals.ends.len(), arrivals.by_end.len()), (1, 1), "the one that came again");
    }
}
