//! An elected leader that is not established yet, as the others see it.

use super::voter::{Vote, Voter};
use super::{Overtaken, Turn};
use crate::ensemble::View;
use crate::model::ServerId;
use crate::wire::election::{Notification, PeerState};
use std::collections::BTreeMap;

/// A leader was elected and is not established yet. All who are at this point tell each other: nobody else tells an
/// elected leader, or its followers, that the rest went another way.
#[derive(Debug)]
pub(super) struct Awaited {
    /// What each voter has told since.
    votes: BTreeMap<ServerId, Vote>,
    announce_at: u64,
    interval_ms: u64,
    /// Since when it has looked as if the leader can't come to lead. What tells otherwise may be on its way.
    against_since: Option<u64>,
}

impl Awaited {
    pub(super) fn new(now: u64, voter: &Voter) -> Self {
        let interval_ms = voter.moment_ms();
        Self { votes: BTreeMap::new(), announce_at: now, interval_ms, against_since: None }
    }

    /// When there is something to announce or to judge, in monotonic milliseconds.
    pub(super) fn next_wake(&self, voter: &Voter) -> u64 {
        let judged = self.against_since.map(|since| since + voter.moment_ms());
        judged.map_or(self.announce_at, |at| at.min(self.announce_at))
    }

    /// Tells the voters the outcome until its leader is established, and asks who keeps silent (no Java server tells its
    /// outcome unasked) as a server that looks would: who has a leader answers that, and to who looks it is this
    /// server's vote again.
    pub(super) fn announce(&mut self, voter: &Voter, turn: &mut Turn<'_>) {
        if turn.now < self.announce_at {
            return;
        }
        self.announce_at = turn.now + self.interval_ms;
        self.interval_ms = (self.interval_ms * 2).min(2 * voter.pace.finalize_ms);
        let asks = self.interval_ms == 2 * voter.pace.finalize_ms;
        let silent = |id: &ServerId| asks && !self.votes.contains_key(id);
        let view = turn.view;
        let (asked, told): (Vec<ServerId>, Vec<ServerId>) =
            view.voters().into_iter().filter(|id| *id != voter.me).partition(silent);
        turn.out.extend(told.into_iter().map(|id| voter.notify(id, view)));
        turn.out.extend(asked.into_iter().map(|id| voter.tell(id, PeerState::Looking, view)));
    }

    /// What a voter says of the election since.
    pub(super) fn hear(&mut self, from: ServerId, heard: &Notification) {
        self.votes.insert(from, Vote::of(heard));
    }

    /// Why the leader can't come to lead, once that is sure.
    pub(super) fn judge(&mut self, voter: &Voter, turn: &Turn<'_>) -> Option<Overtaken> {
        let Some(overtaken) = self.overtaken(voter, turn.view) else {
            self.against_since = None;
            return None;
        };
        let since = *self.against_since.get_or_insert(turn.now);
        let has_lasted = turn.now >= since + voter.moment_ms();
        (has_lasted || matches!(overtaken, Overtaken::Established(_))).then_some(overtaken)
    }

    /// Why the elected leader can't come to lead, if so. A wrong answer costs another election.
    fn overtaken(&self, voter: &Voter, view: &View) -> Option<Overtaken> {
        let votes = &self.votes;
        let elected = voter.vote.id;
        let established = votes.iter().find(|(id, vote)| {
            let agrees = |id| votes.get(&id).is_some_and(|other| vote.agrees_with(other));
            let leads = vote.state == PeerState::Leading && **id == vote.candidate.id;
            leads && **id != elected && view.has_some_quorum(agrees)
        });
        if let Some((leader, _)) = established {
            return Some(Overtaken::Established(*leader));
        }
        if elected == voter.me {
            // Who was not heard may still be for this server, unless it is down.
            let may_follow = |id: ServerId| match votes.get(&id) {
                Some(vote) => is_for(vote, voter),
                None => id == voter.me || !voter.unreachable.contains(&id),
            };
            return (!view.has_some_quorum(may_follow)).then_some(Overtaken::TooFew);
        }
        let against = votes.get(&elected).is_some_and(|vote| !is_for(vote, voter));
        against.then_some(Overtaken::LeaderLooks(elected))
    }
}

/// Whether a vote still helps the server that was elected here: one for another server does not, nor one in a round that
/// goes on without this server, nor one for what that server had before its disk was lost, or has now.
fn is_for(vote: &Vote, voter: &Voter) -> bool {
    let is_another = vote.round > voter.round || vote.candidate != voter.vote;
    let looks_elsewhere = vote.state == PeerState::Looking && is_another;
    vote.candidate.id == voter.vote.id && !looks_elsewhere
}
