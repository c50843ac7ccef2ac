//! A leader's links to its learners, and what each one has done so far.

use super::window::{Behind, Window};
use crate::model::{Epoch, LinkId, ServerId, Zxid};
use crate::zab::{CloseWhy, Event, Outputs, Settings};
use std::collections::{BTreeMap, VecDeque};

/// Links that wait for a living one of the same server to answer.
const MAX_WAITING: usize = 4;

/// What this leader is about with a learner.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Has not said who it is.
    Stranger,
    /// Says that it is a server whose link lives, as far as is known. That one has to answer a ping of a later round than this,
    /// or goes.
    Waiting { round: u64 },
    /// Waits for the epoch.
    Introduced,
    /// Was told the epoch.
    Informed,
    /// Accepted it, and waits for a quorum to do the same.
    Accepted { last: Zxid },
    /// Its last zxid is looked for in the log.
    Locating { last: Zxid },
    /// Is sent files.
    Feeding { snapshot: bool },
    /// Was sent NEWLEADER behind everything.
    Asked,
    /// Acknowledged it, and waits for a quorum to do the same.
    Ready,
    /// Was sent UPTODATE.
    Live,
}

/// NEWLEADER, or a ping: a learner answers each, in order.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Question {
    /// The round of pings that it belongs to; of NEWLEADER the last one before it.
    pub round: u64,
    /// When it was sent, in monotonic milliseconds.
    pub at: u64,
}

#[derive(Debug)]
pub(super) struct Link {
    pub stage: Stage,
    pub sid: ServerId,
    pub observer: bool,
    /// The last epoch that it accepted.
    pub accepted: Epoch,
    /// That was a later one than this leader's. So it counts for no quorum of this epoch: it may have promised another
    /// leader to take no part in it. It observes, and learns what is committed.
    pub promised: bool,
    /// The next packet must have arrived by then, in stages that wait for one.
    pub deadline: u64,
    /// Something was heard of it, so that it counts as alive until then. What arrives may have waited in a socket while this
    /// server stood still: it proves nothing of the present.
    pub alive_until: u64,
    /// Proposals that it acknowledged before NEWLEADER: old Java followers do. They count once that is acknowledged.
    pub early_ack: Zxid,
    /// It has to acknowledge this proposal before that time passes.
    pub checkpoint: (Zxid, u64),
    /// NEWLEADER and the pings that it has not answered yet, oldest first.
    asked: VecDeque<Question>,
    /// The last of them that it has answered: it followed this leader still when that was sent.
    answered: Question,
    /// Whatever it has, it is to be sent a snapshot.
    pub wants_snapshot: bool,
    /// What was committed when its synchronization began. It may have been committed with its help, so that it has to have all of
    /// that before it acknowledges this leader's history.
    pub target: Zxid,
    /// Its disk has no room to lead, as it says.
    pub lacks_room: bool,
    /// What is under way to it.
    pub window: Window,
    /// It is not sent what happens as it happens: more is under way to it than its window takes.
    pub behind: Option<Behind>,
}

impl Link {
    /// Only of a learner that had joined: one that never did is no loss.
    fn tell_left(&self, why: Option<&CloseWhy>, out: &mut Outputs) {
        if self.stage == Stage::Live {
            out.events.push_back(Event::Left { learner: self.sid, why: why.cloned() });
        }
    }

    fn stranger(now: u64, settings: &Settings) -> Self {
        let (init, sync) = (settings.init_ms(), settings.sync_ms());
        Self {
            stage: Stage::Stranger,
            sid: ServerId(i64::MIN),
            observer: false,
            accepted: Epoch(0),
            promised: false,
            deadline: now + init,
            alive_until: now + init + sync,
            early_ack: Zxid(i64::MIN),
            checkpoint: (Zxid(i64::MIN), 0),
            asked: VecDeque::new(),
            answered: Question::default(),
            wants_snapshot: false,
            lacks_room: false,
            target: Zxid::ZERO,
            window: Window::default(),
            behind: None,
        }
    }

    /// It is sent something that it has to answer.
    pub(super) fn ask(&mut self, question: Question) {
        self.asked.push_back(question);
    }

    /// It answers the oldest question.
    pub(super) fn answer(&mut self) {
        if let Some(question) = self.asked.pop_front() {
            self.answered = question;
        }
    }

    /// The last round of pings that it has answered.
    pub(super) fn heard(&self) -> u64 {
        self.answered.round
    }

    /// It was synchronized, and takes part.
    fn follows(&self) -> bool {
        matches!(self.stage, Stage::Ready | Stage::Live)
    }

    fn is_waiting(&self) -> bool {
        matches!(self.stage, Stage::Waiting { .. })
    }

    pub(super) fn is_forwarding(&self) -> bool {
        matches!(self.stage, Stage::Asked | Stage::Ready | Stage::Live)
    }

    /// It is sent what happens as it happens.
    fn is_told(&self) -> bool {
        self.is_forwarding() && self.behind.is_none()
    }

    /// Whether it is to be asked how far it has read. Before UPTODATE it answers no ping.
    pub(super) fn wants_ping(&self, limit: u64) -> bool {
        self.stage == Stage::Live && self.window.wants_ping(limit)
    }
}

/// A link that says that it is a server whose link lives.
#[derive(Debug, Clone, Copy)]
pub(super) struct Waiting {
    pub link: LinkId,
    pub sid: ServerId,
    pub round: u64,
    pub deadline: u64,
}

/// The links of one leader, by their ids: the newest comes last.
#[derive(Debug, Default)]
pub(super) struct Links(BTreeMap<LinkId, Link>);

impl Links {
    pub(super) fn get(&self, id: LinkId) -> Option<&Link> {
        self.0.get(&id)
    }

    pub(super) fn get_mut(&mut self, id: LinkId) -> Option<&mut Link> {
        self.0.get_mut(&id)
    }

    pub(super) fn contains(&self, id: LinkId) -> bool {
        self.0.contains_key(&id)
    }

    /// A learner connected. It has to say who it is.
    pub(super) fn accept(&mut self, now: u64, id: LinkId, settings: &Settings) {
        self.0.insert(id, Link::stranger(now, settings));
    }

    /// Closes a link, if it is there.
    pub(super) fn drop(&mut self, id: LinkId, why: CloseWhy, out: &mut Outputs) {
        if let Some(gone) = self.0.remove(&id) {
            gone.tell_left(Some(&why), out);
            out.close(id, why);
            out.events.push_back(Event::LinkGone(id));
        }
    }

    /// The other side has closed it.
    pub(super) fn on_closed(&mut self, id: LinkId, out: &mut Outputs) {
        if let Some(gone) = self.0.remove(&id) {
            gone.tell_left(None, out);
            out.events.push_back(Event::LinkGone(id));
        }
    }

    /// The term is over.
    pub(super) fn end(self, out: &mut Outputs) {
        for id in self.0.into_keys() {
            out.close(id, CloseWhy::TermOver);
            out.events.push_back(Event::LinkGone(id));
        }
    }

    /// Learners by id, whether they observe, and whether they are synchronized.
    pub(super) fn learners(&self) -> impl Iterator<Item = (ServerId, bool, bool)> {
        let is_known = |link: &&Link| link.stage != Stage::Stranger && !link.is_waiting();
        let known = self.0.values().filter(is_known);
        known.map(|link| (link.sid, link.observer, link.stage == Stage::Live))
    }

    /// Bytes that were sent to learners, and that they have not read for sure.
    pub(super) fn under_way(&self) -> u64 {
        self.0.values().map(|link| link.window.under_way()).sum()
    }

    /// Until when a server counts as a follower that lives.
    pub(super) fn alive_until(&self, sid: ServerId) -> u64 {
        self.of_follower(sid).map(|link| link.alive_until).max().unwrap_or(0)
    }

    /// When a server followed for sure: then it was sent what it has answered. None: it does not follow.
    pub(super) fn followed_at(&self, sid: ServerId) -> Option<u64> {
        self.of_follower(sid).map(|link| link.answered.at).max()
    }

    fn of_follower(&self, sid: ServerId) -> impl Iterator<Item = &Link> {
        self.0.values().filter(move |link| link.sid == sid && link.follows() && !link.promised)
    }

    /// The servers that count as alive.
    pub(super) fn alive(&self, now: u64) -> Vec<ServerId> {
        let alive = self.0.values().filter(|link| link.alive_until >= now);
        alive.map(|link| link.sid).collect()
    }

    /// Whether a follower lives, and is sent all that is proposed.
    pub(super) fn has_synced(&self, now: u64, sid: ServerId) -> bool {
        let live =
            |link: &Link| link.sid == sid && !link.observer && link.is_told() && link.alive_until >= now;
        self.0.values().any(live)
    }

    /// Whether a follower could lead: it lives, and has not said that its disk has no room.
    pub(super) fn could_lead(&self, now: u64, sid: ServerId) -> bool {
        self.has_synced(now, sid) && !self.0.values().any(|link| link.sid == sid && link.lacks_room)
    }

    /// Whether a server has answered a ping of this round, or of a later one.
    pub(super) fn has_answered(&self, sid: ServerId, round: u64) -> bool {
        let follows = |link: &Link| link.sid == sid && !link.promised && link.heard() >= round;
        self.0.values().any(follows)
    }

    /// The oldest link of a server that follows, if one does.
    pub(super) fn living(&self, sid: ServerId) -> Option<(LinkId, &Link)> {
        self.0.iter().find(|(_, link)| link.sid == sid && link.follows()).map(|(id, link)| (*id, link))
    }

    /// Those that say that they are a server whose link lives.
    pub(super) fn waiting(&self) -> Vec<Waiting> {
        let waiting = self.0.iter().filter_map(|(id, link)| {
            let Stage::Waiting { round } = link.stage else { return None };
            Some(Waiting { link: *id, sid: link.sid, round, deadline: link.deadline })
        });
        waiting.collect()
    }

    /// The oldest of those of a server, where they are as many as may wait.
    pub(super) fn too_many_waiting(&self, sid: ServerId) -> Option<LinkId> {
        let mut waiting = self.0.iter().filter(|(_, link)| link.sid == sid && link.is_waiting());
        let oldest = waiting.next().map(|(id, _)| *id)?;
        (waiting.count() + 1 >= MAX_WAITING).then_some(oldest)
    }

    pub(super) fn in_stage(&self, stage: Stage) -> Vec<LinkId> {
        self.0.iter().filter(|(_, link)| link.stage == stage).map(|(id, _)| *id).collect()
    }

    /// Those that have accepted the epoch, each with its last zxid: those that promised a later one, or the others.
    pub(super) fn accepted(&self, promised: bool) -> Vec<(LinkId, Zxid)> {
        let these = self.0.iter().filter(|(_, link)| link.promised == promised);
        let accepted = these.filter_map(|(id, link)| {
            let Stage::Accepted { last } = link.stage else { return None };
            Some((*id, last))
        });
        accepted.collect()
    }

    /// Whether some learner is being synchronized.
    pub(super) fn is_synchronizing(&self, now: u64) -> bool {
        self.0.values().any(|link| match link.stage {
            Stage::Feeding { .. } | Stage::Locating { .. } => true,
            Stage::Asked => link.deadline > now,
            Stage::Stranger
            | Stage::Waiting { .. }
            | Stage::Introduced
            | Stage::Informed
            | Stage::Accepted { .. }
            | Stage::Ready
            | Stage::Live => false,
        })
    }

    /// Those that are sent what happens as it happens: observers, or the others.
    pub(super) fn forwarding(&self, observers: bool) -> impl Iterator<Item = LinkId> {
        let these = move |link: &Link| link.is_told() && link.observer == observers;
        self.0.iter().filter(move |(_, link)| these(link)).map(|(id, _)| *id)
    }

    /// Counts bytes that these have just been sent.
    pub(super) fn count(&mut self, observers: bool, len: usize) {
        let these = self.0.values_mut().filter(|link| link.is_told() && link.observer == observers);
        these.for_each(|link| link.window.send(len));
    }

    /// All that are sent what happens as it happens.
    pub(super) fn told(&mut self) -> impl Iterator<Item = &mut Link> {
        self.0.values_mut().filter(|link| link.is_told())
    }

    /// Those that are not, though they take part.
    pub(super) fn behind(&self) -> Vec<LinkId> {
        let behind = self.0.iter().filter(|(_, link)| link.is_forwarding() && link.behind.is_some());
        behind.map(|(id, _)| *id).collect()
    }

    /// The other links of the server that `id` is.
    pub(super) fn others_of(&self, id: LinkId, sid: ServerId) -> Vec<LinkId> {
        let others = self.0.iter().filter(|(other, link)| **other != id && link.sid == sid);
        others.map(|(other, _)| *other).collect()
    }

    /// Whom a ping goes to. A learner answers none before UPTODATE.
    pub(super) fn ping(&mut self, ping: Question, whom: impl Fn(LinkId, &Link) -> bool) -> Vec<LinkId> {
        let mut pinged = Vec::new();
        for (id, link) in self.0.iter_mut().filter(|(id, link)| whom(**id, link)) {
            if link.stage == Stage::Live {
                link.ask(ping);
                link.window.ask();
            }
            pinged.push(*id);
        }
        pinged
    }

    /// Those whose other side is late: with a packet, with an ACK, or with anything at all. `last` is the last proposal,
    /// `acked` what a server has acknowledged, `patience` in milliseconds.
    pub(super) fn late(
        &mut self,
        now: u64,
        last: Zxid,
        acked: impl Fn(ServerId) -> Zxid,
        patience: u64,
    ) -> Vec<(LinkId, CloseWhy)> {
        let mut late = Vec::new();
        for (id, link) in &mut self.0 {
            let why = match link.stage {
                Stage::Stranger | Stage::Informed | Stage::Asked if now >= link.deadline => {
                    Some(CloseWhy::Late { id: link.sid, stage: link.stage })
                }
                Stage::Ready | Stage::Live if now > link.alive_until => Some(CloseWhy::Silent(link.sid)),
                Stage::Ready | Stage::Live if !link.observer => {
                    let last = link.behind.map_or(last, |behind| behind.sent);
                    let (zxid, since) = link.checkpoint;
                    if acked(link.sid) >= zxid || zxid.counter() == 0 {
                        link.checkpoint = (last, now);
                        None
                    } else {
                        let waited = now.saturating_sub(since);
                        (waited > patience).then_some(CloseWhy::NoAck { id: link.sid, zxid })
                    }
                }
                Stage::Stranger
                | Stage::Waiting { .. }
                | Stage::Introduced
                | Stage::Informed
                | Stage::Accepted { .. }
                | Stage::Locating { .. }
                | Stage::Feeding { .. }
                | Stage::Asked
                | Stage::Ready
                | Stage::Live => None,
            };
            late.extend(why.map(|why| (*id, why)));
        }
        late
    }
}
