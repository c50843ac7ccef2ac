//! Who should lead: fast leader election (`FastLeaderElection`) as a value, and the rules by which the servers'
//! election ports are connected ([`Links`]).
//!
//! Every voter proposes the best candidate that it knows of, by epoch, zxid and id. Once a quorum proposes the same one
//! the round is over. Safety does not hang on it: what the elected server may do is decided by `zab`.

#![cfg_attr(
    not(test),
    warn(
        missing_docs,
        unreachable_pub,
        clippy::allow_attributes_without_reason,
        clippy::cast_possible_truncation,
        clippy::wildcard_enum_match_arm
    )
)]

mod awaited;
mod links;
mod search;
#[cfg(test)]
mod tests;
mod voter;

pub use links::{Admission, ElectionConn, HangUp, LinkEvent, LinkOutput, Links};
pub use voter::Candidate;

use crate::ensemble::View;
use crate::model::{Epoch, ServerId, Zxid};
use crate::wire::election::{Notification, PeerState};
use awaited::Awaited;
use search::Search;
use std::collections::BTreeMap;
use voter::{NO_CANDIDATE, Voter, later};

/// The round of who only asks, or has not looked for a leader yet.
const NO_ROUND: i64 = -1;
/// How long an answer is not repeated, in milliseconds.
const REPEAT_MS: u64 = 100;

/// How an own vote may be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// With all that it ever acknowledged.
    Voter,
    /// It has nothing, as on the first start of an ensemble, and has heard of no history. It is silent until every
    /// other server has sent its vote, or until it has waited for them ([`Pace::empty_wait_ms`]): a server that was not
    /// heard may have a history. Once it hears of one it is forgetful.
    New,
    /// It has forgotten what it acknowledged: its disk is empty, or damaged. It stays silent until every other server has
    /// sent its vote in this search, because a leader may still count on acknowledgements that this server no longer
    /// remembers. The others can elect a leader without it if they form a quorum.
    Forgetful,
    /// It may have acknowledged up to here, and votes for nobody that has less.
    AtLeast(Epoch, Zxid),
    /// It waits until the others have elected (`db.autocreate=false`).
    Abstaining,
    /// An observer.
    Observer,
}

/// The intervals of the search, in milliseconds.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    /// `fastleader.minNotificationInterval`: how long an answer is awaited before the vote is sent again.
    pub min_interval_ms: u64,
    /// `fastleader.maxNotificationInterval`: what that grows to.
    pub max_interval_ms: u64,
    /// How long a quorum waits for a better vote of those that have not been heard.
    pub finalize_ms: u64,
    /// `emptyServerWaitMs`: how long a server without data waits to hear every voter before it helps to elect.
    pub empty_wait_ms: u64,
}

/// What the election asks of those around it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// A message to another server.
    Send {
        /// The receiver.
        to: ServerId,
        /// The vote that it is sent.
        notification: Notification,
    },
    /// The round is over.
    Elected(ServerId),
    /// The server that the last round elected cannot come to lead, by what the others say: another search is due.
    Overtaken(Overtaken),
}

/// Why an elected leader can't come to lead.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Overtaken {
    /// A quorum has this leader.
    Established(ServerId),
    /// The elected server itself votes for another one, or in another round.
    LeaderLooks(ServerId),
    /// So few voters are for this server that they are no quorum.
    TooFew,
}

/// What every input comes with: the time, the configurations that count, and where the outputs go.
#[derive(Debug)]
pub struct Turn<'a> {
    /// Monotonic milliseconds.
    now: u64,
    view: &'a View,
    out: &'a mut Vec<Output>,
}

impl<'a> Turn<'a> {
    /// `now` is in monotonic milliseconds.
    pub fn new(now: u64, view: &'a View, out: &'a mut Vec<Output>) -> Self {
        Self { now, view, out }
    }
}

/// One server's part in the election: it looks for a leader, waits for one that was elected, or has one.
#[derive(Debug)]
pub struct Election {
    voter: Voter,
    search: Option<Search>,
    /// Between an outcome and the established leader: how the others see it.
    outcome: Option<Awaited>,
    /// Until when this server, which has nothing, waits to hear everybody.
    empty_until: Option<u64>,
    /// When each was answered last, and what: round, vote and state.
    answered: BTreeMap<ServerId, (u64, (i64, Candidate, PeerState))>,
}

impl Election {
    /// A server that has not looked for a leader yet.
    pub fn new(me: ServerId, pace: Pace) -> Self {
        Self {
            voter: Voter::new(me, pace),
            search: None,
            outcome: None,
            empty_until: None,
            answered: BTreeMap::new(),
        }
    }

    /// The epoch whose history the leader that was chosen has, as far as votes told.
    pub fn claimed_epoch(&self) -> Epoch {
        self.voter.vote.epoch
    }

    /// Whether a search is under way.
    pub fn is_looking(&self) -> bool {
        self.search.is_some()
    }

    /// The logical clock: the round that this server is in.
    pub fn round(&self) -> i64 {
        self.voter.round
    }

    /// Begins a round with what this server has. `own.id` is this server.
    pub fn start(&mut self, own: Candidate, standing: Standing, turn: &mut Turn<'_>) {
        self.voter.round = later(self.voter.round);
        self.voter.state = PeerState::Looking;
        self.outcome = None;
        if standing == Standing::New {
            self.empty_until.get_or_insert(turn.now + self.voter.pace.empty_wait_ms);
        }
        self.search = Some(Search::begin(own, standing, self.empty_until, &mut self.voter, turn));
        self.look(turn);
    }

    /// The search ends without an outcome: this server got its leader by a reconfiguration.
    pub fn settle(&mut self, leader: ServerId, zxid: Zxid, epoch: Epoch, state: PeerState) {
        self.search = None;
        self.outcome = None;
        self.voter.vote = Candidate { epoch, zxid, id: leader };
        self.voter.state = state;
    }

    /// The leader is established in a new epoch: from now on all members tell the same vote.
    pub fn joined(&mut self, epoch: Epoch) {
        self.voter.vote.epoch = epoch;
        self.outcome = None;
    }

    /// What `from` tells. An unknown server is answered and not counted.
    pub fn on_notification(&mut self, from: ServerId, heard: &Notification, turn: &mut Turn<'_>) {
        self.voter.seen.insert(from);
        if heard.state == PeerState::Looking && self.owes_answer(from, heard, turn.view) {
            self.answer(from, heard.round == NO_ROUND, turn);
        }
        self.hear_of_outcome(from, heard, turn);
        let Some(search) = &mut self.search else { return };
        if !turn.view.is_voter(from) {
            return;
        }
        if heard.state == PeerState::Looking && heard.round != NO_ROUND {
            search.on_round_told(from, heard);
        }
        if !turn.view.is_voter(heard.leader) {
            return;
        }
        let joined = match heard.state {
            PeerState::Looking => {
                search.on_vote(from, heard, &mut self.voter, turn);
                None
            }
            PeerState::Following | PeerState::Leading => {
                search.on_established(from, heard, &mut self.voter, turn.view)
            }
            PeerState::Observing => None,
        };
        match joined {
            Some(leader) => self.elect(leader, turn),
            None => {
                search.return_from_afar(&mut self.voter, turn);
                self.look(turn);
            }
        }
    }

    /// Whether a server that looks for a leader must be sent this server's vote.
    fn owes_answer(&self, from: ServerId, heard: &Notification, view: &View) -> bool {
        if self.search.is_none() {
            return true;
        }
        // Where this server does not vote nobody asks for it: a voter would answer the answer.
        let votes = view.is_voter(self.voter.me);
        let offers = self.voter.offers_something(view);
        let is_behind = heard.round < self.voter.round && offers;
        // A silent server votes only once it has heard everybody, and what it says leads nobody into its round.
        let waits_ahead = heard.round > self.voter.round && heard.zxid == Zxid::NO_DATA && offers;
        votes && (!view.is_voter(from) || is_behind || waits_ahead)
    }

    /// The same answer again within a moment tells nothing, and would let two servers answer each other for ever.
    fn answer(&mut self, to: ServerId, asked: bool, turn: &mut Turn<'_>) {
        let told = (self.voter.round, self.voter.vote, self.voter.state);
        let is_news = asked
            || self
                .answered
                .get(&to)
                .is_none_or(|(at, before)| *before != told || turn.now >= at + REPEAT_MS);
        if is_news {
            self.answered.insert(to, (turn.now, told));
            turn.out.push(self.voter.notify(to, turn.view));
        }
    }

    /// The present vote, for who asks.
    pub fn present(&self, view: &View) -> Notification {
        self.voter.notification(self.voter.state, view)
    }

    /// Asks `to` for its vote, as one who has none: an answer proves that it is there.
    pub fn ask(&self, to: ServerId, view: &View) -> Output {
        let notification = self.present(view);
        let (state, round) = (PeerState::Looking, NO_ROUND);
        let Candidate { epoch, zxid, id } = NO_CANDIDATE;
        let notification = Notification { state, round, leader: id, zxid, peer_epoch: epoch, ..notification };
        Output::Send { to, notification }
    }

    /// A connection to `to` was made: it hears the present vote at once, not at the next interval.
    pub fn on_connected(&mut self, to: ServerId, turn: &mut Turn<'_>) {
        self.voter.unreachable.remove(&to);
        self.voter.seen.insert(to);
        self.answered.remove(&to);
        // Where there is a leader, too: the other one may wait for the outcome of another election.
        let has_outcome = turn.view.is_voter(self.voter.me) && self.voter.vote != NO_CANDIDATE;
        if (self.search.is_some() || has_outcome) && turn.view.is_voter(to) {
            turn.out.push(self.voter.notify(to, turn.view));
        }
        self.look(turn);
    }

    /// `to` refuses connections.
    pub fn on_unreachable(&mut self, to: ServerId, turn: &mut Turn<'_>) {
        self.voter.unreachable.insert(to);
        if let Some(search) = &mut self.search {
            search.on_unreachable(to);
        }
        self.judge_outcome(turn);
        self.look(turn);
    }

    /// Does what is due: sends votes again, passes turns on, gives up outcomes that take too long.
    pub fn on_tick(&mut self, turn: &mut Turn<'_>) {
        if let Some(outcome) = &mut self.outcome {
            outcome.announce(&self.voter, turn);
        }
        self.judge_outcome(turn);
        if let Some(search) = &mut self.search {
            search.on_tick(&mut self.voter, turn);
        }
        self.look(turn);
    }

    /// When [`Self::on_tick`] has something to do, in monotonic milliseconds.
    pub fn next_wake(&self) -> Option<u64> {
        match (&self.search, &self.outcome) {
            (Some(search), _) => search.next_wake(&self.voter),
            (None, Some(outcome)) => Some(outcome.next_wake(&self.voter)),
            (None, None) => None,
        }
    }

    /// What `from` says of the election whose outcome is not established here.
    fn hear_of_outcome(&mut self, from: ServerId, heard: &Notification, turn: &mut Turn<'_>) {
        let Some(outcome) = &mut self.outcome else { return };
        if !turn.view.is_voter(from) || heard.state == PeerState::Observing {
            return;
        }
        outcome.hear(from, heard);
        self.judge_outcome(turn);
    }

    fn judge_outcome(&mut self, turn: &mut Turn<'_>) {
        let Some(outcome) = &mut self.outcome else { return };
        if let Some(overtaken) = outcome.judge(&self.voter, turn) {
            self.outcome = None;
            turn.out.push(Output::Overtaken(overtaken));
        }
    }

    /// Ends the round when it can.
    fn look(&mut self, turn: &mut Turn<'_>) {
        let Some(search) = &mut self.search else { return };
        if let Some(leader) = search.winner(&self.voter, turn) {
            self.elect(leader, turn);
        }
    }

    /// The search is over.
    fn elect(&mut self, leader: Candidate, turn: &mut Turn<'_>) {
        let observes = self.search.take().is_some_and(|search| search.observes());
        self.voter.vote = leader;
        self.voter.state = match observes {
            _ if leader.id == self.voter.me => PeerState::Leading,
            true => PeerState::Observing,
            false => PeerState::Following,
        };
        let outcome = self.outcome.insert(Awaited::new(turn.now, &self.voter));
        outcome.announce(&self.voter, turn);
        turn.out.push(Output::Elected(leader.id));
    }
}
