//! Who should lead: fast leader election (`FastLeaderElection`) as a value, and the rules by which the servers'
//! election ports are connected ([`Links`]).
//!
//! Every voter proposes the best candidate that it knows of, by epoch, zxid and id. Once a quorum proposes the same one
//! the round is over. Safety does not hang on it: what the elected server may do is decided by `zab`.

mod links;
#[cfg(test)]
mod tests;

pub use links::{Admission, ElectionConn, LinkEvent, LinkOutput, Links};

use crate::ensemble::View;
use crate::model::{Epoch, ServerId, Zxid};
use crate::wire::election::{LAST_ROUND, Notification, PeerState};
use std::collections::{BTreeMap, BTreeSet};

/// What a server without a vote proposes.
const NOBODY: i64 = i64::MIN;
const NO_CANDIDATE: Candidate = Candidate { epoch: Epoch(NOBODY), zxid: Zxid(NOBODY), id: ServerId(NOBODY) };
/// Nobody proves that a round has come so far. Up to [`FAR_ROUND`] a vote takes this server along, as it must: another server
/// may have looked for a leader very often. Beyond that it follows a quorum alone, and a vote that is at most
/// [`MAX_ROUNDS_AHEAD`] before a quorum. If it finds itself farther ahead it returns. So a few liars lead nobody to where
/// the rounds end, and no server stays alone where they led it.
const FAR_ROUND: i64 = 1 << 40;
const MAX_ROUNDS_AHEAD: i64 = 1 << 20;
/// The round of who only asks, or has not looked for a leader yet.
const NO_ROUND: i64 = -1;
/// How long an answer is not repeated, in milliseconds.
const REPEAT_MS: u64 = 100;

/// How an own vote may be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// With all that it ever acknowledged.
    Voter,
    /// It has nothing, as on the first start of an ensemble, and has heard of no history. It is silent until all others
    /// have told it what they would vote for, or until it has waited for them ([`Pace::empty_wait_ms`]): who has not been
    /// heard may have a history. Once it hears of one it is forgetful.
    New,
    /// It has forgotten what it acknowledged: its disk is empty, or damaged. It is silent until all others have told it, in
    /// this search, what they would vote for: whoever leads still may count what this server acknowledged before. Where
    /// the others are a quorum they elect without it.
    Forgetful,
    /// It may have acknowledged up to here, and votes for nobody that has less.
    AtLeast(Epoch, Zxid),
    /// It waits until the others have elected (`db.autocreate=false`).
    Abstaining,
    /// An observer.
    Observer,
}

/// Somebody who could lead, by what decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Candidate {
    pub epoch: Epoch,
    /// The last one in its log.
    pub zxid: Zxid,
    pub id: ServerId,
}

/// A vote as it was received.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Vote {
    candidate: Candidate,
    round: i64,
    state: PeerState,
    version: i32,
}

impl Vote {
    /// Java's `Vote.equals`: servers that are established agree by leader and epoch alone.
    fn agrees_with(&self, other: &Self) -> bool {
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

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    Send {
        to: ServerId,
        notification: Notification,
    },
    /// The round is over.
    Elected(ServerId),
    /// Whom the last round elected can't come to lead, as far as the others tell: another search is due.
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

#[derive(Debug)]
pub struct Election {
    me: ServerId,
    pace: Pace,
    /// The logical clock.
    round: i64,
    /// What others are told: the proposal while looking, the outcome afterwards.
    vote: Candidate,
    state: PeerState,
    search: Option<Search>,
    /// Between an outcome and the established leader: how the others see it.
    outcome: Option<Awaited>,
    /// Servers that refuse connections.
    unreachable: BTreeSet<ServerId>,
    /// Servers that were there since this process began. When they refuse connections they are down, and nobody waits for
    /// their vote; the others may only be starting.
    seen: BTreeSet<ServerId>,
    /// Until when this server, which has nothing, waits to hear everybody.
    empty_until: Option<u64>,
    /// When each was answered last, and what: round, vote and state.
    answered: BTreeMap<ServerId, (u64, (i64, Candidate, PeerState))>,
}

/// A leader was elected and is not established yet. All who are at this point tell each other: nobody else tells an
/// elected leader, or its followers, that the rest went another way.
#[derive(Debug)]
struct Awaited {
    /// What each voter has told since.
    votes: BTreeMap<ServerId, Vote>,
    announce_at: u64,
    interval_ms: u64,
    /// Since when it has looked as if the leader can't come to lead. What tells otherwise may be on its way.
    against_since: Option<u64>,
}

/// A round under way.
#[derive(Debug)]
struct Search {
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
    /// A forgetful server has not heard enough.
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
}

impl Election {
    pub fn new(me: ServerId, pace: Pace) -> Self {
        Self {
            me,
            pace,
            round: 0,
            vote: NO_CANDIDATE,
            state: PeerState::Looking,
            search: None,
            outcome: None,
            unreachable: BTreeSet::new(),
            seen: BTreeSet::new(),
            empty_until: None,
            answered: BTreeMap::new(),
        }
    }

    /// The epoch whose history the leader that was chosen has, as far as votes told.
    pub fn claimed_epoch(&self) -> Epoch {
        self.vote.epoch
    }

    pub fn is_looking(&self) -> bool {
        self.search.is_some()
    }

    pub fn round(&self) -> i64 {
        self.round
    }

    /// Begins a round with what this server has. `own.id` is this server.
    pub fn start(
        &mut self,
        now: u64,
        own: Candidate,
        standing: Standing,
        view: &View,
        out: &mut Vec<Output>,
    ) {
        self.round = later(self.round);
        self.state = PeerState::Looking;
        let nobody = ServerId(NOBODY);
        let own = match standing {
            Standing::Observer => NO_CANDIDATE,
            Standing::Abstaining | Standing::AtLeast(..) => Candidate { zxid: Zxid::NO_DATA, ..own },
            Standing::Voter | Standing::New | Standing::Forgetful => own,
        };
        // A voter of the pending configuration alone may have most of all: then nobody else can lead.
        let own = if view.is_voter(self.me) { own } else { Candidate { id: nobody, ..own } };
        let interval_ms = self.pace.min_interval_ms;
        let heard = BTreeSet::new();
        let waits = match standing {
            Standing::New => now < *self.empty_until.get_or_insert(now + self.pace.empty_wait_ms),
            Standing::Forgetful => true,
            Standing::Voter | Standing::AtLeast(..) | Standing::Abstaining | Standing::Observer => false,
        };
        let silent = waits && may_miss(self.me, &heard, view);
        self.outcome = None;
        self.search = Some(Search {
            own,
            standing,
            received: BTreeMap::new(),
            established: BTreeMap::new(),
            heard,
            told: BTreeMap::new(),
            ahead_since: None,
            silent,
            old_only: false,
            turn_at: now + self.turn_ms(),
            interval_ms,
            resend_at: now + interval_ms,
            finalize_at: None,
        });
        let own = self.search.as_ref().expect("just begun").own_vote(view);
        self.propose(own, view, out);
        self.look(now, view, out);
    }

    /// The search ends without an outcome: this server got its leader by a reconfiguration.
    pub fn settle(&mut self, leader: ServerId, zxid: Zxid, epoch: Epoch, state: PeerState) {
        self.search = None;
        self.outcome = None;
        self.vote = Candidate { epoch, zxid, id: leader };
        self.state = state;
    }

    /// The leader is established in a new epoch: from now on all members tell the same vote.
    pub fn joined(&mut self, epoch: Epoch) {
        self.vote.epoch = epoch;
        self.outcome = None;
    }

    /// What `from` tells. An unknown server is answered and not counted.
    pub fn on_notification(
        &mut self,
        now: u64,
        from: ServerId,
        heard: &Notification,
        view: &View,
        out: &mut Vec<Output>,
    ) {
        self.seen.insert(from);
        if heard.state == PeerState::Looking && self.owes_answer(from, heard, view) {
            self.answer(now, from, heard.round == NO_ROUND, view, out);
        }
        self.hear_of_outcome(now, from, heard, view, out);
        if let Some(search) = &mut self.search
            && heard.state == PeerState::Looking
            && heard.round != NO_ROUND
            && view.is_voter(from)
        {
            search.told.insert(from, looking(heard));
        }
        if self.search.is_none() || !view.is_voter(from) || !view.is_voter(heard.leader) {
            return;
        }
        match heard.state {
            PeerState::Looking => self.on_vote(now, from, heard, view, out),
            PeerState::Following | PeerState::Leading => self.on_established(now, from, heard, view, out),
            PeerState::Observing => {}
        }
        self.return_from_afar(now, view, out);
        self.look(now, view, out);
    }

    /// Whether others take notice of this server's vote. They do not where it has no data, or names nobody.
    fn offers_something(&self, view: &View) -> bool {
        self.vote.zxid != Zxid::NO_DATA && view.is_voter(self.vote.id)
    }

    /// Whether a server that looks for a leader has to be told this server's vote.
    fn owes_answer(&self, from: ServerId, heard: &Notification, view: &View) -> bool {
        if self.search.is_none() {
            return true;
        }
        // Where this server does not vote nobody asks for it: a voter would answer the answer.
        let votes = view.is_voter(self.me);
        votes && (!view.is_voter(from) || (heard.round < self.round && self.offers_something(view)))
    }

    /// The same answer again within a moment tells nothing, and would let two servers answer each other for ever.
    fn answer(&mut self, now: u64, to: ServerId, asked: bool, view: &View, out: &mut Vec<Output>) {
        let told = (self.round, self.vote, self.state);
        let is_news = asked
            || self.answered.get(&to).is_none_or(|(at, before)| *before != told || now >= at + REPEAT_MS);
        if is_news {
            self.answered.insert(to, (now, told));
            out.push(self.notify(to, view));
        }
    }

    /// The present vote, for who asks.
    pub fn present(&self, view: &View) -> Notification {
        self.notification(self.state, view)
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
    pub fn on_connected(&mut self, now: u64, to: ServerId, view: &View, out: &mut Vec<Output>) {
        self.unreachable.remove(&to);
        self.seen.insert(to);
        self.answered.remove(&to);
        // Where there is a leader, too: the other one may wait for the outcome of another election.
        let tells = self.search.is_some() || (view.is_voter(self.me) && self.vote != NO_CANDIDATE);
        if tells && view.is_voter(to) {
            out.push(self.notify(to, view));
        }
        self.look(now, view, out);
    }

    /// `to` refuses connections.
    pub fn on_unreachable(&mut self, now: u64, to: ServerId, view: &View, out: &mut Vec<Output>) {
        self.unreachable.insert(to);
        if let Some(search) = &mut self.search {
            search.told.remove(&to);
        }
        self.judge_outcome(now, view, out);
        self.look(now, view, out);
    }

    pub fn on_tick(&mut self, now: u64, view: &View, out: &mut Vec<Output>) {
        self.announce(now, view, out);
        self.judge_outcome(now, view, out);
        let Some(search) = &mut self.search else { return };
        let has_waited =
            search.standing == Standing::New && self.empty_until.is_some_and(|until| now >= until);
        if has_waited && search.silent {
            search.silent = false;
            self.propose_best(view, out);
        }
        let Some(search) = &mut self.search else { return };
        if now >= search.resend_at {
            search.interval_ms = (search.interval_ms * 2).min(self.pace.max_interval_ms);
            search.resend_at = now + search.interval_ms;
            self.tell_all(view, out);
        }
        self.take_turns(now, view, out);
        self.return_from_afar(now, view, out);
        self.look(now, view, out);
    }

    /// When [`Self::on_tick`] has something to do.
    pub fn next_wake(&self) -> Option<u64> {
        let Some(search) = &self.search else {
            let outcome = self.outcome.as_ref()?;
            let judged = outcome.against_since.map(|since| since + self.moment_ms());
            return Some(judged.map_or(outcome.announce_at, |at| at.min(outcome.announce_at)));
        };
        let waits = search.silent && search.standing == Standing::New;
        let has_waited = self.empty_until.filter(|_| waits);
        let returns = search.ahead_since.map(|since| since + self.moment_ms());
        let wakes = [Some(search.resend_at), Some(search.turn_at), search.finalize_at, has_waited, returns];
        wakes.into_iter().flatten().min()
    }

    /// Tells the voters the outcome until its leader is established, and asks who keeps silent (no Java server tells its
    /// outcome unasked) as a server that looks would: who has a leader answers that, and to who looks it is this
    /// server's vote again.
    fn announce(&mut self, now: u64, view: &View, out: &mut Vec<Output>) {
        let Some(outcome) = self.outcome.as_mut().filter(|outcome| now >= outcome.announce_at) else {
            return;
        };
        outcome.announce_at = now + outcome.interval_ms;
        outcome.interval_ms = (outcome.interval_ms * 2).min(2 * self.pace.finalize_ms);
        let asks = outcome.interval_ms == 2 * self.pace.finalize_ms;
        let silent = |id: &ServerId| asks && !outcome.votes.contains_key(id);
        let (asked, told): (Vec<ServerId>, Vec<ServerId>) =
            view.voters().into_iter().filter(|id| *id != self.me).partition(silent);
        out.extend(told.into_iter().map(|id| self.notify(id, view)));
        out.extend(asked.into_iter().map(|id| self.tell(id, PeerState::Looking, view)));
    }

    /// What `from` says of the election whose outcome is not established here.
    fn hear_of_outcome(
        &mut self,
        now: u64,
        from: ServerId,
        heard: &Notification,
        view: &View,
        out: &mut Vec<Output>,
    ) {
        let Some(outcome) = &mut self.outcome else { return };
        if !view.is_voter(from) || heard.state == PeerState::Observing {
            return;
        }
        let candidate = Candidate { epoch: heard.peer_epoch, zxid: heard.zxid, id: heard.leader };
        let vote = Vote { candidate, round: heard.round, state: heard.state, version: heard.version };
        outcome.votes.insert(from, vote);
        self.judge_outcome(now, view, out);
    }

    fn judge_outcome(&mut self, now: u64, view: &View, out: &mut Vec<Output>) {
        let (overtaken, moment) = (self.overtaken(view), self.moment_ms());
        let Some(outcome) = &mut self.outcome else { return };
        let Some(overtaken) = overtaken else {
            outcome.against_since = None;
            return;
        };
        let since = *outcome.against_since.get_or_insert(now);
        let is_sure = matches!(overtaken, Overtaken::Established(_)) || now >= since + moment;
        if is_sure {
            self.outcome = None;
            out.push(Output::Overtaken(overtaken));
        }
    }

    /// What was sent before an election ended has arrived by then, in milliseconds.
    fn moment_ms(&self) -> u64 {
        (self.pace.finalize_ms / 4).max(1)
    }

    /// Why the elected leader can't come to lead, if so. A wrong answer costs another election.
    fn overtaken(&self, view: &View) -> Option<Overtaken> {
        let votes = &self.outcome.as_ref()?.votes;
        let elected = self.vote.id;
        let established = votes.iter().find(|(id, vote)| {
            let agrees = |id| votes.get(&id).is_some_and(|other| vote.agrees_with(other));
            let leads = vote.state == PeerState::Leading && **id == vote.candidate.id;
            leads && **id != elected && view.has_some_quorum(agrees)
        });
        if let Some((leader, _)) = established {
            return Some(Overtaken::Established(*leader));
        }
        if elected == self.me {
            // Who was not heard may still be for this server, unless it is down.
            let may_follow = |id: ServerId| match votes.get(&id) {
                Some(vote) => self.is_for(vote),
                None => id == self.me || !self.unreachable.contains(&id),
            };
            return (!view.has_some_quorum(may_follow)).then_some(Overtaken::TooFew);
        }
        let against = votes.get(&elected).is_some_and(|vote| !self.is_for(vote));
        against.then_some(Overtaken::LeaderLooks(elected))
    }

    /// Whether this vote still helps the server that was elected here: one for another server does not, nor one in a round
    /// that goes on without this server, nor one for what that server had before its disk was lost, or has now.
    fn is_for(&self, vote: &Vote) -> bool {
        let is_another = vote.round > self.round || vote.candidate != self.vote;
        let looks_elsewhere = vote.state == PeerState::Looking && is_another;
        vote.candidate.id == self.vote.id && !looks_elsewhere
    }

    fn on_vote(
        &mut self,
        now: u64,
        from: ServerId,
        heard: &Notification,
        view: &View,
        out: &mut Vec<Output>,
    ) {
        let offers = self.offers_something(view);
        let search = self.search.as_mut().expect("the caller looked");
        search.heard.insert(from);
        if search.standing == Standing::New && heard.tells_history() {
            search.standing = Standing::Forgetful;
        }
        self.listen(now, view, out);
        let search = self.search.as_mut().expect("listening ends no search");
        if !search.may_win(heard.leader, view) {
            return;
        }
        if heard.zxid == Zxid::NO_DATA {
            // What it voted for before does not count any more: it has lost its data since.
            search.received.remove(&from);
        }
        // Who offers nothing follows the others' round, down too: nobody follows it into its own.
        let behind = heard.round < self.round && offers;
        let (own, standing, silent) = (search.own_vote(view), search.standing, search.silent);
        if standing == Standing::Abstaining
            || heard.zxid == Zxid::NO_DATA
            || behind
            || !self.is_near(heard.round, view)
        {
            return;
        }
        let vote = looking(heard);
        let candidate = vote.candidate;
        let search = self.search.as_mut().expect("the caller looked");
        if search.has_outlived(candidate, self.me) {
            // Those who vote so hear what this server has only in a later round.
            if offers {
                self.round = later(heard.round);
                search.received.clear();
                self.propose(own, view, out);
            }
            return;
        }
        if heard.round != self.round {
            self.round = heard.round;
            search.received.clear();
            let best = if !silent && beats(candidate, own, standing, view) { candidate } else { own };
            self.propose(best, view, out);
        } else if !silent && beats(candidate, self.vote, standing, view) {
            self.propose(candidate, view, out);
        }
        let search = self.search.as_mut().expect("a proposal ends no search");
        search.received.insert(from, vote);
    }

    /// Whether a quorum of voters, this server among them, is in this round or a later one, as far as they have told.
    fn has_come_to(&self, round: i64, view: &View) -> bool {
        let told = |id| Some(self.search.as_ref()?.told.get(&id)?.round);
        view.has_some_quorum(|id| match id == self.me {
            true => self.round >= round,
            false => told(id).is_some_and(|at| at >= round),
        })
    }

    /// Whether this server may go to a round.
    fn is_near(&self, round: i64, view: &View) -> bool {
        round <= FAR_ROUND || self.has_come_to(round - MAX_ROUNDS_AHEAD, view)
    }

    /// Goes to the others' round if a quorum is heard, and is not where this server is. Only after a moment: if two moved,
    /// each into the other's round, they would never meet.
    fn return_from_afar(&mut self, now: u64, view: &View, out: &mut Vec<Output>) {
        let is_alone = !self.is_near(self.round, view) && self.has_come_to(0, view);
        let moment = self.moment_ms();
        let Some(search) = &mut self.search else { return };
        if !is_alone {
            search.ahead_since = None;
            return;
        }
        if now < *search.ahead_since.get_or_insert(now) + moment {
            return;
        }
        search.ahead_since = None;
        let rounds: Vec<i64> = search.told.values().map(|vote| vote.round).collect();
        let Some(round) = rounds.into_iter().filter(|round| self.is_near(*round, view)).max() else { return };
        let Some(search) = &mut self.search else { return };
        let mut received = search.told.clone();
        received.retain(|_, vote| {
            let counts = vote.round == round && vote.candidate.zxid != Zxid::NO_DATA;
            counts && search.may_win(vote.candidate.id, view) && !search.has_outlived(vote.candidate, self.me)
        });
        search.received = received;
        self.round = round;
        self.propose_best(view, out);
    }

    /// How long new voters may win, and may not, in milliseconds.
    fn turn_ms(&self) -> u64 {
        10 * self.pace.finalize_ms
    }

    fn take_turns(&mut self, now: u64, view: &View, out: &mut Vec<Output>) {
        let turn_ms = self.turn_ms();
        let Some(search) = self.search.as_mut().filter(|search| now >= search.turn_at) else { return };
        search.turn_at = now + turn_ms;
        if view.pending().is_none() {
            return;
        }
        search.old_only = !search.old_only;
        if search.old_only {
            search.received.retain(|_, vote| view.committed.is_voter(vote.candidate.id));
        }
        search.received.remove(&self.me);
        self.propose_best(view, out);
    }

    /// The best of what was heard, or this server's own vote.
    fn propose_best(&mut self, view: &View, out: &mut Vec<Output>) {
        let search = self.search.as_ref().expect("the caller looked");
        let own = search.own_vote(view);
        let heard = search.best_heard(view).filter(|_| !search.silent);
        let best = heard.filter(|best| beats(*best, own, search.standing, view)).unwrap_or(own);
        self.propose(best, view, out);
    }

    /// A forgetful server is silent as long as it has not heard from everybody: there may be more than it has heard of. So
    /// is a new one, for a while.
    fn listen(&mut self, now: u64, view: &View, out: &mut Vec<Output>) {
        let search = self.search.as_mut().expect("the caller looked");
        let was_silent = search.silent;
        let waits = match search.standing {
            Standing::Forgetful => true,
            Standing::New => self.empty_until.is_none_or(|until| now < until),
            Standing::Voter | Standing::AtLeast(..) | Standing::Abstaining | Standing::Observer => false,
        };
        search.silent = waits && may_miss(self.me, &search.heard, view);
        if search.silent == was_silent {
            return;
        }
        // Back in the round: the best of what was heard meanwhile.
        self.propose_best(view, out);
    }

    /// A server that has a leader tells which. It is joined where a quorum agrees and the leader itself says so: a quorum of
    /// one configuration, as the leader may know nothing of one that was proposed here and never committed. Who is followed
    /// itself counts for that quorum: the others may know nothing of a configuration whose voter it would rather see lead.
    fn on_established(
        &mut self,
        now: u64,
        from: ServerId,
        heard: &Notification,
        view: &View,
        out: &mut Vec<Output>,
    ) {
        let search = self.search.as_mut().expect("the caller looked");
        let candidate = Candidate { epoch: heard.peer_epoch, zxid: heard.zxid, id: heard.leader };
        if search.has_outlived(candidate, self.me) {
            return;
        }
        if heard.leader == self.me && search.own_vote(view).zxid == Zxid::NO_DATA {
            // It may not lead: those who follow it do not know yet.
            return;
        }
        let vote = Vote { candidate, round: heard.round, state: heard.state, version: heard.version };
        let agreed = |votes: &BTreeMap<ServerId, Vote>, me: ServerId, round: i64| {
            let leads = match votes.get(&heard.leader) {
                _ if heard.leader == me => round == heard.round,
                Some(of_leader) => of_leader.state == PeerState::Leading,
                None => false,
            };
            let agrees = |id| votes.get(&id).is_some_and(|other| vote.agrees_with(other));
            leads && view.has_some_quorum(|id| agrees(id) || (id == me && id == heard.leader))
        };
        let mut joins = false;
        if heard.round == self.round {
            search.received.insert(from, Vote { version: 0, ..vote });
            joins = agreed(&search.received, self.me, self.round);
        }
        search.established.insert(from, vote);
        if joins || agreed(&search.established, self.me, self.round) {
            self.round = heard.round;
            self.elect(now, candidate, view, out);
        }
    }

    fn propose(&mut self, candidate: Candidate, view: &View, out: &mut Vec<Output>) {
        self.vote = candidate;
        let counts = view.is_voter(self.me) && view.is_voter(candidate.id) && candidate.zxid != Zxid::NO_DATA;
        let search = self.search.as_mut().expect("proposals are made while looking");
        search.finalize_at = None;
        search.received.remove(&self.me);
        if counts {
            let vote = Vote { candidate, round: self.round, state: PeerState::Looking, version: 0 };
            search.received.insert(self.me, vote);
        }
        self.tell_all(view, out);
    }

    /// Ends the round when it can: at once where everybody agrees who is not down, after a while otherwise.
    fn look(&mut self, now: u64, view: &View, out: &mut Vec<Output>) {
        let Some(search) = &mut self.search else { return };
        let mine = Vote { candidate: self.vote, round: self.round, state: PeerState::Looking, version: 0 };
        let agrees = |id: ServerId| search.received.get(&id).is_some_and(|vote| mine.agrees_with(vote));
        if !view.has_quorum(agrees) {
            search.finalize_at = None;
            return;
        }
        let is_down = |id: &ServerId| self.unreachable.contains(id) && self.seen.contains(id);
        let all = view.voters().iter().all(|id| agrees(*id) || is_down(id));
        let at = *search.finalize_at.get_or_insert(now + self.pace.finalize_ms);
        if all || now >= at {
            let candidate = self.vote;
            self.elect(now, candidate, view, out);
        }
    }

    fn elect(&mut self, now: u64, candidate: Candidate, view: &View, out: &mut Vec<Output>) {
        let search = self.search.take().expect("an election ends a search");
        self.vote = candidate;
        self.state = match search.standing {
            _ if candidate.id == self.me => PeerState::Leading,
            Standing::Observer => PeerState::Observing,
            _ => PeerState::Following,
        };
        self.outcome = Some(Awaited {
            votes: BTreeMap::new(),
            announce_at: now,
            interval_ms: self.moment_ms(),
            against_since: None,
        });
        self.announce(now, view, out);
        out.push(Output::Elected(candidate.id));
    }

    fn tell_all(&self, view: &View, out: &mut Vec<Output>) {
        let others = view.voters().into_iter().filter(|id| *id != self.me);
        out.extend(others.map(|id| self.notify(id, view)));
    }

    fn notify(&self, to: ServerId, view: &View) -> Output {
        self.tell(to, self.state, view)
    }

    fn tell(&self, to: ServerId, state: PeerState, view: &View) -> Output {
        Output::Send { to, notification: self.notification(state, view) }
    }

    fn notification(&self, state: PeerState, view: &View) -> Notification {
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
fn later(round: i64) -> i64 {
    round.saturating_add(1).min(LAST_ROUND)
}

/// The vote of a server that looks.
fn looking(heard: &Notification) -> Vote {
    let candidate = Candidate { epoch: heard.peer_epoch, zxid: heard.zxid, id: heard.leader };
    Vote { candidate, round: heard.round, state: PeerState::Looking, version: 0 }
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
        _ => true,
    };
    enough && view.committed.weight(new.id) != 0 && rank(new, view) > rank(current, view)
}
