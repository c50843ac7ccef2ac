//! Read-only mode (`readonlymode.enabled`): a server that has had no leader for a while lets clients that say that they take
//! it read what it has (`ReadOnlyZooKeeperServer`). It writes nothing: their sessions are its own, and end with this time.

use super::clients::Hello;
use super::replies::last_reply;
use super::serving::Turn;
use super::share::STEPS_AT_ONCE;
use super::{CloseReason, Settings};
use crate::model::{ConnId, ErrorCode, Op, SessionId};
use crate::request::Request;
use crate::session::SessionTracker;

/// Most elections are over by then, in milliseconds. Java's lower bound.
const GRACE_MS: u64 = 2000;

#[derive(Debug)]
pub(super) struct ReadOnly {
    sessions: SessionTracker,
}

impl ReadOnly {
    pub(super) fn begin(settings: &Settings) -> Self {
        Self { sessions: SessionTracker::new(settings.tick_ms) }
    }

    /// Milliseconds without a leader after which it begins.
    pub(super) fn grace_ms(settings: &Settings) -> u64 {
        GRACE_MS.max(settings.tick_ms)
    }

    pub(super) fn sessions(&self) -> &SessionTracker {
        &self.sessions
    }

    pub(super) fn sessions_mut(&mut self) -> &mut SessionTracker {
        &mut self.sessions
    }

    pub(super) fn on_new_session(&mut self, session: SessionId, hello: Hello, turn: &mut Turn<'_>) {
        self.sessions.track(turn.now.mono_ms, session, hello.timeout_ms);
        turn.establish(session, hello);
    }

    pub(super) fn on_reattach(&mut self, session: SessionId, hello: Hello, turn: &mut Turn<'_>) {
        if turn.db.sessions.contains_key(&session) {
            // The leader's, wherever that is. No answer: it has not ended, and another server may serve it.
            turn.out.close(hello.conn, CloseReason::NotServing);
        } else if self.sessions.touch(turn.now.mono_ms, session, Some(hello.timeout_ms)) {
            turn.establish(session, hello);
        } else {
            turn.refuse(hello);
        }
    }

    pub(super) fn on_request(&mut self, conn: ConnId, request: &Request, turn: &mut Turn<'_>) {
        let last = turn.db.last_zxid;
        if request.op != Op::CloseSession {
            return turn.out.fail(conn, request.cxid, last, ErrorCode::NotReadOnly);
        }
        last_reply(turn.out, conn, request.cxid, last);
        self.sessions.remove(request.session);
        turn.detach(request.session, Some(conn));
    }

    pub(super) fn on_touched(&mut self, sessions: Vec<SessionId>, turn: &Turn<'_>) {
        for session in sessions {
            self.sessions.touch(turn.now.mono_ms, session, None);
        }
    }

    pub(super) fn on_tick(&mut self, turn: &mut Turn<'_>) {
        let next = || self.sessions.expire_next(turn.now.mono_ms);
        let expired: Vec<_> = std::iter::from_fn(next).take(STEPS_AT_ONCE).collect();
        turn.out.expired(&expired);
        for session in expired {
            self.sessions.remove(session);
            turn.detach(session, None);
        }
    }

    /// When the next session may end, in monotonic milliseconds.
    pub(super) fn next_wake(&self) -> Option<u64> {
        self.sessions.buckets().next().map(|(at, _)| at)
    }
}
