//! The life of sessions: ids, passwords, touches, expiry (`server/SessionTrackerImpl`, `server/ExpiryQueue`).
//! Times are monotonic milliseconds, given in.

mod password;

pub use password::password_of;

use crate::model::{ErrorCode, LinkId, ServerId, SessionId};
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// The server through which a session's requests come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Home {
    Here,
    /// A learner, by its present connection.
    Learner(LinkId),
}

/// Hands out session ids: the server's id in the top byte, then milliseconds, then a count.
#[derive(Debug)]
pub struct SessionIds {
    next: i64,
}

impl SessionIds {
    /// `seed_ms` is the wall clock: Java starts from the time since boot, and a rebooted host could then hand out
    /// the id of a session that still lives.
    pub fn new(server: ServerId, seed_ms: u64) -> Self {
        Self { next: (((seed_ms << 24) >> 8) as i64) | (server.0 << 56) }
    }

    /// The next one that `is_taken` does not know.
    pub fn next(&mut self, is_taken: impl Fn(SessionId) -> bool) -> SessionId {
        loop {
            let id = SessionId(self.next);
            self.next = self.next.wrapping_add(1);
            // The container mark and "no session" are no ids.
            if id.0 != i64::MIN && id != SessionId::NONE && !is_taken(id) {
                return id;
            }
        }
    }
}

#[derive(Debug)]
struct Session {
    timeout_ms: u64,
    /// The bucket it expires in: a multiple of the tick.
    expires_at: u64,
    closing: bool,
    /// Unknown after a change of leader, until it is heard from.
    home: Option<Home>,
}

/// All sessions that this server tracks: as leader or alone, the global ones.
#[derive(Debug)]
pub struct SessionTracker {
    tick_ms: u64,
    sessions: HashMap<SessionId, Session>,
    /// By the tracker's own time, which is behind by `lost_ms`.
    buckets: BTreeMap<u64, BTreeSet<SessionId>>,
    lost_ms: u64,
}

impl SessionTracker {
    pub fn new(tick_ms: u64) -> Self {
        let (sessions, buckets) = (HashMap::new(), BTreeMap::new());
        Self { tick_ms: tick_ms.max(1), sessions, buckets, lost_ms: 0 }
    }

    /// This server stood still for so long: what clients said meanwhile may wait unread. Every session ends so much later, in
    /// one step however many there are.
    pub fn stood_still(&mut self, ms: u64) {
        self.lost_ms += ms;
    }

    fn own_time(&self, now: u64) -> u64 {
        now.saturating_sub(self.lost_ms)
    }

    /// Starts to track a session that exists already, or touches it.
    pub fn track(&mut self, now: u64, id: SessionId, timeout_ms: i32) {
        let timeout_ms = u64::try_from(timeout_ms).unwrap_or(0);
        let fresh = Session { timeout_ms, expires_at: 0, closing: false, home: None };
        self.sessions.entry(id).or_insert(fresh);
        self.touch(now, id, None);
    }

    /// Puts the session's end off. `timeout_ms` is given where a connection takes the session up, with the timeout that its
    /// client was promised: from then on that one counts, also where it is shorter. False for an unknown or closing session.
    pub fn touch(&mut self, now: u64, id: SessionId, timeout_ms: Option<i32>) -> bool {
        let own_time = self.own_time(now);
        let Some(session) = self.sessions.get_mut(&id) else { return false };
        if session.closing {
            return false;
        }
        if let Some(timeout) = timeout_ms {
            session.timeout_ms = u64::try_from(timeout).unwrap_or(0);
        }
        let expires_at = ((own_time + session.timeout_ms) / self.tick_ms + 1) * self.tick_ms;
        if expires_at > session.expires_at || timeout_ms.is_some() {
            let old = std::mem::replace(&mut session.expires_at, expires_at);
            self.take_from_bucket(old, id);
            self.buckets.entry(expires_at).or_default().insert(id);
        }
        true
    }

    /// Whether a request of this session may be prepared.
    pub fn check(&self, id: SessionId) -> Result<(), ErrorCode> {
        match self.sessions.get(&id) {
            None => Err(ErrorCode::UnknownSession),
            Some(session) if session.closing => Err(ErrorCode::SessionExpired),
            Some(_) => Ok(()),
        }
    }

    /// The same for a request that comes through `home`. A session without one is at home there from now on.
    pub fn check_from(&mut self, id: SessionId, home: Home) -> Result<(), ErrorCode> {
        self.check(id)?;
        let session = self.sessions.get_mut(&id).expect("check() found it");
        if *session.home.get_or_insert(home) == home { Ok(()) } else { Err(ErrorCode::SessionMoved) }
    }

    /// The session was resumed at `home`.
    pub fn move_to(&mut self, id: SessionId, home: Home) {
        if let Some(session) = self.sessions.get_mut(&id) {
            session.home = Some(home);
        }
    }

    pub fn contains(&self, id: SessionId) -> bool {
        self.sessions.contains_key(&id)
    }

    pub fn is_alive(&self, id: SessionId) -> bool {
        self.check(id).is_ok()
    }

    /// Its closeSession is under way: from here on its requests fail and it is not expired again.
    pub fn set_closing(&mut self, id: SessionId) {
        if let Some(session) = self.sessions.get_mut(&id) {
            session.closing = true;
            let at = session.expires_at;
            self.take_from_bucket(at, id);
        }
    }

    /// Its closeSession was applied.
    pub fn remove(&mut self, id: SessionId) {
        if let Some(session) = self.sessions.remove(&id) {
            self.take_from_bucket(session.expires_at, id);
        }
    }

    /// A session whose time is over: it is marked closing. Asked until there is none, this gives all of them; a session that
    /// is heard from before its turn comes lives on.
    pub fn expire_next(&mut self, now: u64) -> Option<SessionId> {
        let own_time = self.own_time(now);
        let mut bucket = self.buckets.first_entry().filter(|bucket| *bucket.key() <= own_time)?;
        let id = bucket.get_mut().pop_first().expect("no bucket is empty");
        if bucket.get().is_empty() {
            bucket.remove();
        }
        self.sessions.get_mut(&id).expect("a bucket holds tracked sessions").closing = true;
        Some(id)
    }

    /// Whether [`Self::expire_next`] has one.
    pub fn is_due(&self, now: u64) -> bool {
        self.buckets.first_key_value().is_some_and(|(at, _)| *at <= self.own_time(now))
    }

    pub fn len(&self) -> usize {
        self.sessions.len()
    }

    pub fn is_empty(&self) -> bool {
        self.sessions.is_empty()
    }

    /// When which sessions would expire, for the `dump` word.
    pub fn buckets(&self) -> impl Iterator<Item = (u64, &BTreeSet<SessionId>)> {
        self.buckets.iter().map(|(at, ids)| (*at + self.lost_ms, ids))
    }

    fn take_from_bucket(&mut self, at: u64, id: SessionId) {
        if let Some(bucket) = self.buckets.get_mut(&at) {
            bucket.remove(&id);
            if bucket.is_empty() {
                self.buckets.remove(&at);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: SessionId = SessionId(7);

    fn expire(sessions: &mut SessionTracker, now: u64) -> Vec<SessionId> {
        std::iter::from_fn(|| sessions.expire_next(now)).collect()
    }

    fn tracker(now: u64, timeout_ms: i32) -> SessionTracker {
        let mut sessions = SessionTracker::new(1000);
        sessions.track(now, ID, timeout_ms);
        sessions
    }

    #[test]
    fn a_session_lives_between_its_timeout_and_one_tick_more() {
        let mut sessions = tracker(500, 3000);
        assert_eq!(expire(&mut sessions, 3999), []);
        assert_eq!(expire(&mut sessions, 4000), [ID]);
        assert_eq!(sessions.check(ID), Err(ErrorCode::SessionExpired), "closing until the txn is applied");
        assert_eq!(expire(&mut sessions, 9000), [], "expired once");
        sessions.remove(ID);
        assert_eq!(sessions.check(ID), Err(ErrorCode::UnknownSession));
    }

    #[test]
    fn a_touch_alone_puts_the_end_off_and_never_forward() {
        let mut sessions = tracker(0, 3000);
        assert!(sessions.touch(2500, ID, None));
        assert!(sessions.touch(2400, ID, None), "a late touch changes nothing");
        assert_eq!(expire(&mut sessions, 5999), []);
        assert_eq!(expire(&mut sessions, 6000), [ID]);
        assert!(!sessions.touch(6001, ID, None));
    }

    #[test]
    fn a_session_that_is_taken_up_lives_by_its_new_timeout() {
        let mut sessions = tracker(0, 20_000);
        assert!(sessions.touch(500, ID, Some(4000)));
        assert!(sessions.touch(400, ID, None), "what came through the old connection is a touch alone");
        assert_eq!(expire(&mut sessions, 4999), []);
        assert_eq!(expire(&mut sessions, 5000), [ID]);
        assert_eq!(sessions.buckets().count(), 0, "the old deadline is gone");
    }

    #[test]
    fn who_is_heard_from_before_its_turn_comes_lives_on() {
        let mut sessions = tracker(0, 3000);
        sessions.track(0, SessionId(8), 3000);
        assert_eq!(sessions.expire_next(4000), Some(ID));
        assert!(sessions.is_due(4000));
        assert!(sessions.touch(4000, SessionId(8), None));
        assert!(!sessions.is_due(4000));
        assert_eq!(sessions.expire_next(4000), None);
    }

    #[test]
    fn while_the_server_stands_still_no_session_comes_nearer_to_its_end() {
        let mut sessions = tracker(0, 3000);
        sessions.stood_still(11_000);
        assert_eq!(sessions.buckets().map(|(at, _)| at).collect::<Vec<_>>(), [15_000]);
        assert_eq!(expire(&mut sessions, 14_999), []);
        assert!(sessions.touch(14_000, ID, None));
        assert_eq!(expire(&mut sessions, 17_999), []);
        assert_eq!(expire(&mut sessions, 18_000), [ID]);
    }

    #[test]
    fn a_session_has_one_home_until_it_moves() {
        let mut sessions = tracker(0, 3000);
        let there = Home::Learner(LinkId(4));
        assert_eq!(sessions.check_from(ID, there), Ok(()), "the first one is its home");
        assert_eq!(sessions.check_from(ID, Home::Here), Err(ErrorCode::SessionMoved));
        sessions.move_to(ID, Home::Here);
        assert_eq!(sessions.check_from(ID, Home::Here), Ok(()));
        assert_eq!(sessions.check_from(ID, there), Err(ErrorCode::SessionMoved));
    }

    #[test]
    fn ids_carry_the_server_and_skip_the_living() {
        let mut ids = SessionIds::new(ServerId(5), 1_700_000_000_000);
        let first = ids.next(|_| false);
        assert_eq!(first.0 >> 56, 5);
        let living = SessionId(first.0 + 1);
        assert_eq!(ids.next(|id| id == living), SessionId(first.0 + 2));
    }
}
