//! Votes, and the server that votes: what it sends to the others, and which of them it can reach.

use super::{Output, Pace, Turn};
use crate::ensemble::View;
use crate::model::{Epoch, ServerId, Zxid};
use crate::wire::election::{LAST_ROUND, Notification, PeerState};
use std::collections::BTreeSet;

/// What a server without a vote proposes.
pub(super) const NOBODY: i64 = i64::MIN;
pub(super) const NO_CANDIDATE: Candidate =
    Candidate { epoch: Epoch(NOBODY), zxid: Zxid(NOBODY), id: ServerId(NOBODY) };

/// Somebody who could lead, by what decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Candidate {
    /// The epoch of its history.
    pub epoch: Epoch,
    /// The last one in its log.
    pub zxid: Zxid,
    /// Its server.
    pub id: ServerId,
}

/// A vote as it was received.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Vote {
    pub candidate: Candidate,
    pub round: i64,
    pub state: PeerState,
    pub version: i32,
}

impl Vote {
    pub(super) fn of(heard: &Notification) -> Self {
        let candidate = Candidate { epoch: heard.peer_epoch, zxid: heard.zxid, id: heard.leader };
        Self { candidate, round: heard.round, state: heard.state, version: heard.version }
    }

    /// A vote for `candidate` of a server that looks for a leader.
    pub(super) fn looking(candidate: Candidate, round: i64) -> Self {
        Self { candidate, round, state: PeerState::Looking, version: 0 }
    }

    /// Java's `Vote.equals`: servers that are established agree by leader and epoch alone.
    pub(super) fn agrees_with(&self, other: &Self) -> bool {
        let (a, b) = (&self.candidate, &other.candidate);
        if self.state == PeerState::Looking || other.state == PeerState::Looking {
            a == b && self.round == other.round
        } else if (self.version > 0) != (other.version > 0) {
            a.id == b.id
        } else {
            a.id == b.id && a.epoch == b.epoch
        }
    }
}

/// This server as a voter, whether it looks for a leader or has one.
#[derive(Debug)]
pub(super) struct Voter {
    pub me: ServerId,
    pub pace: Pace,
    /// The logical clock.
    pub round: i64,
    /// What others are sent: the proposal while looking, the outcome afterwards.
    pub vote: Candidate,
    pub state: PeerState,
    /// Servers that refuse connections.
    pub unreachable: BTreeSet<ServerId>,
    /// Servers that were there since this process began. When they refuse connections they are down, and nobody waits for
    /// their vote; the others may only be starting.
    pub seen: BTreeSet<ServerId>,
}

impl Voter {
    pub(super) fn new(me: ServerId, pace: Pace) -> Self {
        let (unreachable, seen) = (BTreeSet::new(), BTreeSet::new());
        Self { me, pace, round: 0, vote: NO_CANDIDATE, state: PeerState::Looking, unreachable, seen }
    }

    /// Whether others take notice of this server's vote. They do not where it has no data, or names nobody.
    pub(super) fn offers_something(&self, view: &View) -> bool {
        self.vote.zxid != Zxid::NO_DATA && view.is_voter(self.vote.id)
    }

    /// What was sent before an election ended has arrived by then, in milliseconds.
    pub(super) fn moment_ms(&self) -> u64 {
        (self.pace.finalize_ms / 4).max(1)
    }

    pub(super) fn tell_all(&self, turn: &mut Turn<'_>) {
        let others = turn.view.voters().into_iter().filter(|id| *id != self.me);
        turn.out.extend(others.map(|id| self.notify(id, turn.view)));
    }

    pub(super) fn notify(&self, to: ServerId, view: &View) -> Output {
        self.tell(to, self.state, view)
    }

    pub(super) fn tell(&self, to: ServerId, state: PeerState, view: &View) -> Output {
        Output::Send { to, notification: self.notification(state, view) }
    }

    pub(super) fn notification(&self, state: PeerState, view: &View) -> Notification {
        Notification {
            state,
            leader: self.vote.id,
            zxid: self.vote.zxid,
            round: self.round,
            peer_epoch: self.vote.epoch,
            version: 2,
            config: Some(view.committed.to_string().into()),
        }
    }
}

/// Rounds do not go on for ever: a server stays in the last one.
pub(super) fn later(round: i64) -> i64 {
    round.saturating_add(1).min(LAST_ROUND)
}
