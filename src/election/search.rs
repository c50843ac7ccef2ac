//! A search for a leader: the votes of one round after the other, until a quorum agrees.

use super::voter::{Candidate, NO_CANDIDATE, NOBODY, Vote, Voter, later};
use super::{Standing, Turn};
use crate::ensemble::View;
use crate::model::{Epoch, ServerId, Zxid};
use crate::wire::election::{Notification, PeerState};
use std::collections::{BTreeMap, BTreeSet};

/// Nobody proves that a round has come so far. Up to [`FAR_ROUND`] a vote takes this server along, as it must: another server
/// may have looked for a leader very often. Beyond that it follows a quorum alone, and a vote that is at most
/// [`MAX_ROUNDS_AHEAD`] before a quorum. If it finds itself farther ahead it returns. So a few liars lead nobody to where
/// the rounds end, and no server stays alone where they led it.
pub(super) const FAR_ROUND: i64 = 1 << 40;
pub(super) const MAX_ROUNDS_AHEAD: i64 = 1 << 20;

/// A search under way.
#[derive(Debug)]
pub(super) struct Search {
    own: Candidate,
    standing: Standing,
    /// Votes of this round.
    received: BTreeMap<ServerId, Vote>,
    /// Votes of servers that have a leader, whatever their round.
    established: BTreeMap<ServerId, Vote>,
    /// Who looked for a leader too since the search began: what they vote for is as much as they have, at the least.
    heard: BTreeSet<ServerId>,
    /// The last vote of each other voter that looks, whatever its round.
    told: BTreeMap<ServerId, Vote>,
    /// Since when a quorum has been far behind this server's round. What says otherwise may be on its way.
    ahead_since: Option<u64>,
    /// Until when a server that has nothing waits to hear everybody.
    empty_until: Option<u64>,
    /// A server that is forgetful, or has nothing, has not heard enough.
    silent: bool,
    /// New voters of the pending configuration may not win now: to servers that have not heard of it they are nobody, and the
    /// votes of those may be needed. By turns they may and may not, as nobody can tell what others have heard of.
    old_only: bool,
    turn_at: u64,
    interval_ms: u64,
    resend_at: u64,
    finalize_at: Option<u64>,
}

impl Search {
    /// Begins in the voter's round with what this server has, and tells everybody its vote.
    pub(super) fn begin(
        own: Candidate,
        standing: Standing,
        empty_until: Option<u64>,
        voter: &mut Voter,
        turn: &mut Turn<'_>,
    ) -> Self {
        let own = match standing {
            Standing::Observer => NO_CANDIDATE,
            Standing::Abstaining | Standing::AtLeast(..) => Candidate { zxid: Zxid::NO_DATA, ..own },
            Standing::Voter | Standing::New | Standing::Forgetful => own,
        };
        // A voter of the pending configuration alone may have most of all: then nobody else can lead.
        let is_voter = turn.view.is_voter(voter.me);
        let own = if is_voter { own } else { Candidate { id: ServerId(NOBODY), ..own } };
        let interval_ms = voter.pace.min_interval_ms;
        let mut search = Self {
            own,
            standing,
            received: BTreeMap::new(),
            established: BTreeMap::new(),
            heard: BTreeSet::new(),
            told: BTreeMap::new(),
            ahead_since: None,
            empty_until,
            silent: false,
            old_only: false,
            turn_at: turn.now + turn_ms(voter),
            interval_ms,
            resend_at: turn.now + interval_ms,
            finalize_at: None,
        };
        search.silent = search.has_to_listen(voter, turn);
        let vote = search.own_vote(turn.view);
        search.propose(vote, voter, turn);
        search
    }

    /// Whether this server only observes.
    pub(super) fn observes(&self) -> bool {
        self.standing == Standing::Observer
    }

    /// A vote for this server, `me`, with more than it has: it has lost that since, and must not lead on the strength of it.
    fn has_outlived(&self, candidate: Candidate, me: ServerId) -> bool {
        candidate.id == me && (candidate.epoch, candidate.zxid) > (self.own.epoch, self.own.zxid)
    }

    fn own_vote(&self, view: &View) -> Candidate {
        if self.silent {
            Candidate { zxid: Zxid::NO_DATA, ..self.own }
        } else if self.old_only && !view.committed.is_voter(self.own.id) {
            NO_CANDIDATE
        } else {
            self.own
        }
    }

    fn may_win(&self, id: ServerId, view: &View) -> bool {
        view.committed.is_voter(id) || (view.is_voter(id) && !self.old_only)
    }

    /// The best of the votes that were received.
    fn best_heard(&self, view: &View) -> Option<Candidate> {
        self.received.values().map(|vote| vote.candidate).max_by_key(|candidate| rank(*candidate, view))
    }

    /// A voter that also looks for a leader sends its round, and the server that it votes for.
    pub(super) fn on_round_told(&mut self, from: ServerId, heard: &Notification) {
        self.told.insert(from, Vote::of(heard));
    }

    /// `to` refuses connections.
    pub(super) fn on_unreachable(&mut self, to: ServerId) {
        self.told.remove(&to);
    }

    /// What a server tells that looks for a leader too.
    pub(super) fn on_vote(
        &mut self,
        from: ServerId,
        heard: &Notification,
        voter: &mut Voter,
        turn: &mut Turn<'_>,
    ) {
        let offers = voter.offers_something(turn.view);
        self.heard.insert(from);
        if self.standing == Standing::New && heard.tells_history() {
            self.standing = Standing::Forgetful;
        }
        self.listen(voter, turn);
        if !self.may_win(heard.leader, turn.view) {
            return;
        }
        if heard.zxid == Zxid::NO_DATA {
            // What it voted for before does not count any more: it has lost its data since.
            self.received.remove(&from);
        }
        // Who offers nothing follows the others' round, down too: nobody follows it into its own.
        let behind = heard.round < voter.round && offers;
        if self.standing == Standing::Abstaining
            || heard.zxid == Zxid::NO_DATA
            || behind
            || !self.is_near(heard.round, voter, turn.view)
        {
            return;
        }
        let vote = Vote::of(heard);
        let (candidate, own) = (vote.candidate, self.own_vote(turn.view));
        if self.has_outlived(candidate, voter.me) {
            // Those who vote so hear what this server has only in a later round.
            if offers {
                voter.round = later(heard.round);
                self.received.clear();
                self.propose(own, voter, turn);
            }
            return;
        }
        if heard.round != voter.round {
            voter.round = heard.round;
            self.received.clear();
            let wins = !self.silent && beats(candidate, own, self.standing, turn.view);
            self.propose(if wins { candidate } else { own }, voter, turn);
        } else if !self.silent && beats(candidate, voter.vote, self.standing, turn.view) {
            self.propose(candidate, voter, turn);
        }
        self.received.insert(from, vote);
    }

    /// Whether a quorum of voters, this server among them, is in this round or a later one, as far as they have told.
    fn has_come_to(&self, round: i64, voter: &Voter, view: &View) -> bool {
        view.has_some_quorum(|id| match id == voter.me {
            true => voter.round >= round,
            false => self.told.get(&id).is_some_and(|vote| vote.round >= round),
        })
    }

    /// Whether this server may go to a round.
    fn is_near(&self, round: i64, voter: &Voter, view: &View) -> bool {
        round <= FAR_ROUND || self.has_come_to(round - MAX_ROUNDS_AHEAD, voter, view)
    }

    /// Goes to the others' round if a quorum is heard, and is not where this server is. Only after a moment: if two moved,
    /// each into the other's round, they would never meet.
    pub(super) fn return_from_afar(&mut self, voter: &mut Voter, turn: &mut Turn<'_>) {
        let view = turn.view;
        let is_alone = !self.is_near(voter.round, voter, view) && self.has_come_to(0, voter, view);
        if !is_alone {
            self.ahead_since = None;
            return;
        }
        if turn.now < *self.ahead_since.get_or_insert(turn.now) + voter.moment_ms() {
            return;
        }
        self.ahead_since = None;
        let rounds = self.told.values().map(|vote| vote.round);
        let Some(round) = rounds.filter(|round| self.is_near(*round, voter, view)).max() else { return };
        let counts = |vote: &Vote| {
            vote.round == round
                && vote.candidate.zxid != Zxid::NO_DATA
                && self.may_win(vote.candidate.id, view)
                && !self.has_outlived(vote.candidate, voter.me)
        };
        let told = self.told.iter().filter(|(_, vote)| counts(vote));
        self.received = told.map(|(id, vote)| (*id, *vote)).collect();
        voter.round = round;
        self.propose_best(voter, turn);
    }

    /// A server that already has a leader says which one. This server joins that leader once a quorum agrees and the leader
    /// itself confirms. A quorum of *either* configuration will do: the leader may know nothing of a configuration that was
    /// proposed here and never committed. A server that the others follow counts itself: they may know nothing of a
    /// configuration whose voter it would prefer.
    pub(super) fn on_established(
        &mut self,
        from: ServerId,
        heard: &Notification,
        voter: &mut Voter,
        view: &View,
    ) -> Option<Candidate> {
        let vote = Vote::of(heard);
        if self.has_outlived(vote.candidate, voter.me) {
            return None;
        }
        if heard.leader == voter.me && self.own_vote(view).zxid == Zxid::NO_DATA {
            // It may not lead: those who follow it do not know yet.
            return None;
        }
        let (me, round) = (voter.me, voter.round);
        let agreed = |votes: &BTreeMap<ServerId, Vote>| {
            let leads = match votes.get(&heard.leader) {
                _ if heard.leader == me => round == heard.round,
                Some(of_leader) => of_leader.state == PeerState::Leading,
                None => false,
            };
            let agrees = |id| votes.get(&id).is_some_and(|other| vote.agrees_with(other));
            leads && view.has_some_quorum(|id| agrees(id) || (id == me && id == heard.leader))
        };
        let mut joins = false;
        if heard.round == round {
            self.received.insert(from, Vote { version: 0, ..vote });
            joins = agreed(&self.received);
        }
        self.established.insert(from, vote);
        if !joins && !agreed(&self.established) {
            return None;
        }
        voter.round = heard.round;
        Some(vote.candidate)
    }

    pub(super) fn on_tick(&mut self, voter: &mut Voter, turn: &mut Turn<'_>) {
        let has_waited =
            self.standing == Standing::New && self.empty_until.is_some_and(|until| turn.now >= until);
        if has_waited && self.silent {
            self.silent = false;
            self.propose_best(voter, turn);
        }
        if turn.now >= self.resend_at {
            self.interval_ms = (self.interval_ms * 2).min(voter.pace.max_interval_ms);
            self.resend_at = turn.now + self.interval_ms;
            voter.tell_all(turn);
        }
        self.take_turns(voter, turn);
        self.return_from_afar(voter, turn);
    }

    /// When [`Self::on_tick`] or [`Self::winner`] has something to do, in monotonic milliseconds.
    pub(super) fn next_wake(&self, voter: &Voter) -> Option<u64> {
        let waits = self.silent && self.standing == Standing::New;
        let has_waited = self.empty_until.filter(|_| waits);
        let returns = self.ahead_since.map(|since| since + voter.moment_ms());
        let wakes = [Some(self.resend_at), Some(self.turn_at), self.finalize_at, has_waited, returns];
        wakes.into_iter().flatten().min()
    }

    fn take_turns(&mut self, voter: &mut Voter, turn: &mut Turn<'_>) {
        if turn.now < self.turn_at {
            return;
        }
        self.turn_at = turn.now + turn_ms(voter);
        if turn.view.pending().is_none() {
            return;
        }
        self.old_only = !self.old_only;
        if self.old_only {
            self.received.retain(|_, vote| turn.view.committed.is_voter(vote.candidate.id));
        }
        self.received.remove(&voter.me);
        self.propose_best(voter, turn);
    }

    /// A forgetful server is silent as long as it has not heard from everybody: there may be more than it has heard of. So
    /// is a new one, for a while.
    fn listen(&mut self, voter: &mut Voter, turn: &mut Turn<'_>) {
        let was_silent = self.silent;
        self.silent = self.has_to_listen(voter, turn);
        if self.silent != was_silent {
            // Back in the round: the best of what was heard meanwhile.
            self.propose_best(voter, turn);
        }
    }

    fn has_to_listen(&self, voter: &Voter, turn: &Turn<'_>) -> bool {
        let waits = match self.standing {
            Standing::Forgetful => true,
            Standing::New => self.empty_until.is_none_or(|until| turn.now < until),
            Standing::Voter | Standing::AtLeast(..) | Standing::Abstaining | Standing::Observer => false,
        };
        waits && may_miss(voter.me, &self.heard, turn.view)
    }

    /// The best of what was heard, or this server's own vote.
    fn propose_best(&mut self, voter: &mut Voter, turn: &mut Turn<'_>) {
        let own = self.own_vote(turn.view);
        let heard = self.best_heard(turn.view).filter(|_| !self.silent);
        let best = heard.filter(|best| beats(*best, own, self.standing, turn.view)).unwrap_or(own);
        self.propose(best, voter, turn);
    }

    fn propose(&mut self, candidate: Candidate, voter: &mut Voter, turn: &mut Turn<'_>) {
        voter.vote = candidate;
        let view = turn.view;
        let counts =
            view.is_voter(voter.me) && view.is_voter(candidate.id) && candidate.zxid != Zxid::NO_DATA;
        self.finalize_at = None;
        self.received.remove(&voter.me);
        if counts {
            self.received.insert(voter.me, Vote::looking(candidate, voter.round));
        }
        voter.tell_all(turn);
    }

    /// Who is elected, where the round can end: at once where everybody agrees who is not down, after a while otherwise.
    pub(super) fn winner(&mut self, voter: &Voter, turn: &Turn<'_>) -> Option<Candidate> {
        let mine = Vote::looking(voter.vote, voter.round);
        let received = &self.received;
        let agrees = |id: ServerId| received.get(&id).is_some_and(|vote| mine.agrees_with(vote));
        if !turn.view.has_quorum(agrees) {
            self.finalize_at = None;
            return None;
        }
        let is_down = |id: &ServerId| voter.unreachable.contains(id) && voter.seen.contains(id);
        let all = turn.view.voters().iter().all(|id| agrees(*id) || is_down(id));
        let at = *self.finalize_at.get_or_insert(turn.now + voter.pace.finalize_ms);
        (all || turn.now >= at).then_some(voter.vote)
    }
}

/// How long new voters may win, and may not, in milliseconds.
fn turn_ms(voter: &Voter) -> u64 {
    10 * voter.pace.finalize_ms
}

/// Whether somebody has not told what it has.
fn may_miss(me: ServerId, heard: &BTreeSet<ServerId>, view: &View) -> bool {
    !view.voters().iter().all(|id| *id == me || heard.contains(id))
}

/// The total order of votes. Of two that have as much, the one that every server knows goes first.
fn rank(candidate: Candidate, view: &View) -> (Epoch, Zxid, bool, ServerId) {
    (candidate.epoch, candidate.zxid, view.committed.is_voter(candidate.id), candidate.id)
}

/// Which vote is the better one. A leader without weight never wins, nor one below what this server may have acknowledged.
fn beats(new: Candidate, current: Candidate, standing: Standing, view: &View) -> bool {
    let enough = match standing {
        Standing::AtLeast(epoch, zxid) => (new.epoch, new.zxid) >= (epoch, zxid),
        Standing::Voter | Standing::New | Standing::Forgetful | Standing::Abstaining | Standing::Observer => {
            true
        }
    };
    enough && view.committed.weight(new.id) != 0 && rank(new, view) > rank(current, view)
}
