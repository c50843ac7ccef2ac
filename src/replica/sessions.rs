//! Sessions as the replica runs them: connect, reattach, touch, close, expire.

use super::{ClientMessage, CloseReason, Now, Origin, Outputs, Replica};
use crate::model::{ConnId, SessionId, Zxid};
use crate::request::write_reply;
use crate::session::password_of;
use crate::tree::Database;
use crate::wire::connect::{self, Connect};
use bytes::{Bytes, BytesMut};

impl Replica {
    pub(super) fn on_connect(
        &mut self,
        now: Now,
        db: &Database,
        conn: ConnId,
        connect: Connect,
        out: &mut Outputs,
    ) {
        if connect.last_zxid_seen > db.last_zxid.0 {
            // It has seen a future that this server has not: no answer, so that it tries another one.
            return out.close(conn, CloseReason::ClientIsAhead);
        }
        let (min, max) = (self.settings.min_session_timeout_ms, self.settings.max_session_timeout_ms);
        let timeout_ms = connect.timeout.min(max).max(min);
        let with_read_only = connect.read_only.is_some();
        if connect.session == SessionId::NONE {
            let session = self.sessions.create(now.mono_ms, timeout_ms);
            let zxid = self.next_zxid();
            let txn = self.preparer.prepare_create_session(session, timeout_ms, zxid, now.wall_ms);
            return self.propose(txn, Origin::Establish { conn, timeout_ms, with_read_only }, out);
        }
        out.tally.revalidated_sessions += 1;
        // The password comes first: a stranger must not cut the owner's connection.
        let known = connect.passwd == password_of(connect.session)
            && self.sessions.touch(now.mono_ms, connect.session, Some(timeout_ms));
        if !known {
            let refused = ClientMessage::Close(CloseReason::InvalidSession);
            return out.client(conn, refused, |bytes| {
                connect::write_response(SessionId::NONE, 0, &[0; 16], with_read_only, bytes);
            });
        }
        self.establish(now, conn, connect.session, timeout_ms, with_read_only, out);
    }

    /// The session hangs on this connection from now on; another one that it hung on ends.
    pub(super) fn establish(
        &mut self,
        now: Now,
        conn: ConnId,
        session: SessionId,
        timeout_ms: i32,
        with_read_only: bool,
        out: &mut Outputs,
    ) {
        self.sessions.touch(now.mono_ms, session, Some(timeout_ms));
        if let Some(old) = self.attached.insert(session, conn)
            && old != conn
        {
            out.close(old, CloseReason::SessionTakenOver);
        }
        out.client(conn, ClientMessage::Established { session, timeout_ms }, |bytes| {
            connect::write_response(session, timeout_ms, &password_of(session), with_read_only, bytes);
        });
    }

    pub(super) fn on_disconnected(&mut self, conn: ConnId, session: SessionId) {
        if self.attached.get(&session) == Some(&conn) {
            self.attached.remove(&session);
        }
    }

    pub(super) fn on_touched(&mut self, now: Now, sessions: Vec<SessionId>) {
        for session in sessions {
            self.sessions.touch(now.mono_ms, session, None);
        }
    }

    /// Proposes the session's end, with its ephemerals. Where their names would make a transaction that a Java peer
    /// could not read back from its log, most of them go before, in multis.
    pub(super) fn close_session(
        &mut self,
        now: Now,
        db: &Database,
        session: SessionId,
        cxid: i32,
        conn: Option<ConnId>,
        out: &mut Outputs,
    ) {
        self.sessions.set_closing(session);
        let paths = self.preparer.ephemerals(&db.tree, session);
        // A part of a multi costs 12 bytes beside its path, an entry of closeSession 4.
        let limit = (self.settings.rules.max_txn_bytes / 2).max(4096);
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
        let zxid = self.next_zxid();
        let txn = self.preparer.prepare_close(&db.tree, session, cxid, zxid, now.wall_ms);
        self.propose(txn, Origin::CloseSession { conn, cxid }, out);
    }

    fn remove_ephemerals(
        &mut self,
        now: Now,
        db: &Database,
        session: SessionId,
        paths: Vec<Bytes>,
        out: &mut Outputs,
    ) {
        let zxid = self.next_zxid();
        let txn = self.preparer.prepare_ephemeral_removal(&db.tree, session, paths, zxid, now.wall_ms);
        self.propose(txn, Origin::Nobody, out);
    }

    /// Its closeSession is applied: the asking connection gets the reply, then any connection of it ends.
    pub(super) fn session_closed(
        &mut self,
        session: SessionId,
        asked_by: Option<ConnId>,
        cxid: i32,
        zxid: Zxid,
        out: &mut Outputs,
    ) {
        self.sessions.remove(session);
        if let Some(conn) = asked_by {
            out.client(conn, ClientMessage::LastReply, |bytes| {
                write_reply(bytes, cxid, zxid.0, Ok(|_: &mut BytesMut| ()));
            });
        }
        if let Some(conn) = self.attached.remove(&session)
            && asked_by != Some(conn)
        {
            out.close(conn, CloseReason::SessionEnded);
        }
    }
}
