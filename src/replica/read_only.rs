//! Read-only mode (`readonlymode.enabled`): a server that has had no leader for a while lets clients that say that they take
//! it read what it has (`ReadOnlyZooKeeperServer`). It writes nothing: their sessions are its own, and end with this time.

use super::clients::Hello;
use super::term::Between;
use super::{ClientMessage, CloseReason, Now, Outputs, Replica, Serving, Told};
use crate::model::{ConnId, ErrorCode, Op, SessionId};
use crate::request::{Request, write_reply};
use crate::session::SessionTracker;
use crate::tree::Database;
use bytes::BytesMut;

/// Most elections are over by then, in milliseconds. Java's lower bound.
const GRACE_MS: u64 = 2000;

#[derive(Debug)]
pub(super) struct ReadOnly {
    pub sessions: SessionTracker,
}

impl Replica {
    /// When it begins, if there is no leader until then.
    fn read_only_from(&self) -> Option<u64> {
        let looks =
            matches!(self.serving, Serving::Nobody) && matches!(self.between, Between::Looking { .. });
        (looks && self.settings.read_only_mode)
            .then(|| self.looking_since + GRACE_MS.max(self.settings.tick_ms))
    }

    /// When time has something to do here, in monotonic milliseconds.
    pub(super) fn next_read_only_wake(&self) -> Option<u64> {
        match &self.serving {
            Serving::ReadOnly(read_only) => read_only.sessions.buckets().next().map(|(at, _)| at),
            _ => self.read_only_from(),
        }
    }

    pub(super) fn tick_read_only(&mut self, now: Now, db: &Database, out: &mut Outputs) {
        if self.read_only_from().is_some_and(|at| at <= now.mono_ms) {
            let sessions = SessionTracker::new(self.settings.tick_ms);
            self.serving = Serving::ReadOnly(Box::new(ReadOnly { sessions }));
            self.status_changed = true;
            out.told.push(Told::ReadOnly);
            self.let_in(now, db, out);
        }
        let Serving::ReadOnly(read_only) = &mut self.serving else { return };
        let expired = read_only.sessions.expire(now.mono_ms);
        out.tally.expired_sessions += expired.len() as u64;
        for session in expired {
            self.end_local_session(session, None, out);
        }
    }

    /// A leader was elected: clients find their way to whoever serves them with it.
    pub(super) fn end_read_only(&mut self, now: Now, out: &mut Outputs) {
        if matches!(self.serving, Serving::ReadOnly(_)) {
            self.stop_serving(now, out);
        }
    }

    pub(super) fn read_only_new_session(
        &mut self,
        now: Now,
        session: SessionId,
        hello: Hello,
        out: &mut Outputs,
    ) {
        if let Serving::ReadOnly(read_only) = &mut self.serving {
            read_only.sessions.track(now.mono_ms, session, hello.timeout_ms);
            self.establish(session, hello, out);
        }
    }

    pub(super) fn read_only_reattach(
        &mut self,
        now: Now,
        db: &Database,
        session: SessionId,
        hello: Hello,
        out: &mut Outputs,
    ) {
        let Serving::ReadOnly(read_only) = &mut self.serving else { return };
        if db.sessions.contains_key(&session) {
            // The leader's, wherever that is. No answer: it has not ended, and another server may serve it.
            out.close(hello.conn, CloseReason::NotServing);
        } else if read_only.sessions.touch(now.mono_ms, session, Some(hello.timeout_ms)) {
            self.establish(session, hello, out);
        } else {
            self.refuse(hello, out);
        }
    }

    pub(super) fn read_only_request(
        &mut self,
        db: &Database,
        conn: ConnId,
        request: &Request,
        out: &mut Outputs,
    ) {
        if request.op != Op::CloseSession {
            return out.fail(conn, request.cxid, db.last_zxid, ErrorCode::NotReadOnly);
        }
        out.client(conn, ClientMessage::LastReply, |bytes| {
            write_reply(bytes, request.cxid, db.last_zxid.0, Ok(|_: &mut BytesMut| ()));
        });
        self.end_local_session(request.session, Some(conn), out);
    }

    fn end_local_session(&mut self, session: SessionId, answered: Option<ConnId>, out: &mut Outputs) {
        if let Serving::ReadOnly(read_only) = &mut self.serving {
            read_only.sessions.remove(session);
        }
        self.detach(session, answered, out);
    }

    /// Sessions that this server alone knows.
    pub fn local_sessions(&self) -> usize {
        match &self.serving {
            Serving::ReadOnly(read_only) => read_only.sessions.len(),
            Serving::Nobody | Serving::Leading(_) | Serving::Learning(_) => 0,
        }
    }
}
