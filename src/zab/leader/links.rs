//! A leader's links to its learners: who is let in, and what each one has done so far.

use super::{Leader, Memory, Phase};
use crate::model::{Epoch, LinkId, ServerId, Zxid};
use crate::wire::quorum::{FromLeader, FromLearner, OBSERVE, PROTOCOL, Plea};
use crate::zab::{CloseWhy, Event, LearnerMisbehaved, LostWhy, Outputs, Server, Tree};
use std::collections::{BTreeMap, VecDeque};

/// So many epochs one learner's claim moves the next one beyond what this server accepted itself, at the most.
pub const MAX_EPOCHS_AHEAD: i64 = 256;

/// So many ticks the living link of a server has to answer a ping, where another says that it is this server. Pings go out every
/// half of a tick.
const PATIENCE_TICKS: u64 = 2;
/// Links that wait for that, of one server.
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

#[derive(Debug)]
pub(super) struct Link {
    pub(super) stage: Stage,
    pub(super) sid: ServerId,
    pub(super) observer: bool,
    /// The last epoch that it accepted.
    accepted: Epoch,
    /// That was a later one than this leader's. So it counts for no quorum of this epoch: it may have promised another
    /// leader to take no part in it. It observes, and learns what is committed.
    pub(super) promised: bool,
    /// The next packet has to be there by then, in stages that wait for one.
    pub(super) deadline: u64,
    /// It counts as alive until then.
    pub(super) alive_until: u64,
    /// Proposals that it acknowledged before NEWLEADER: old Java followers do. They count once that is acknowledged.
    pub(super) early_ack: Zxid,
    /// It has to acknowledge this proposal before that time passes.
    pub(super) checkpoint: (Zxid, u64),
    /// The rounds of pings that it has not answered yet, and the last one that it has.
    pub(super) pings: VecDeque<u64>,
    pub(super) heard: u64,
    /// Whatever it has, it is to be sent a snapshot.
    pub(super) wants_snapshot: bool,
}

impl Link {
    pub(super) fn is_forwarding(&self) -> bool {
        matches!(self.stage, Stage::Asked | Stage::Ready | Stage::Live)
    }
}

impl Leader {
    /// Learners by id, whether they observe, and whether they are synchronized.
    pub fn learners(&self) -> impl Iterator<Item = (ServerId, bool, bool)> {
        let is_known = |link: &&Link| !matches!(link.stage, Stage::Stranger | Stage::Waiting { .. });
        let known = self.links.values().filter(is_known);
        known.map(|link| (link.sid, link.observer, link.stage == Stage::Live))
    }

    pub(super) fn alive_until(&self, id: ServerId) -> u64 {
        let follows = |link: &Link| matches!(link.stage, Stage::Ready | Stage::Live) && !link.promised;
        let counts = |link: &&Link| link.sid == id && follows(link);
        self.links.values().filter(counts).map(|link| link.alive_until).max().unwrap_or(0)
    }

    pub(in crate::zab) fn on_accepted(&mut self, now: u64, link: LinkId, server: &Server) {
        let (init, sync) = (server.settings.init_ms(), server.settings.sync_ms());
        let stranger = Link {
            stage: Stage::Stranger,
            sid: ServerId(i64::MIN),
            observer: false,
            accepted: Epoch(0),
            promised: false,
            deadline: now + init,
            alive_until: now + init + sync,
            early_ack: Zxid(i64::MIN),
            checkpoint: (Zxid(i64::MIN), 0),
            pings: VecDeque::new(),
            heard: 0,
            wants_snapshot: false,
        };
        self.links.insert(link, stranger);
    }

    pub(in crate::zab) fn drop_link(&mut self, link: LinkId, why: CloseWhy, out: &mut Outputs) {
        if self.links.remove(&link).is_some() {
            out.close(link, why);
            out.events.push_back(Event::LinkGone(link));
        }
    }

    /// Anybody can say that he is a member: the link of one that lives stays.
    fn has_living_link(&self, sid: ServerId) -> bool {
        let lives = |link: &Link| link.sid == sid && matches!(link.stage, Stage::Ready | Stage::Live);
        self.links.values().any(lives)
    }

    pub(super) fn has_waiting(&self) -> bool {
        self.links.values().any(|link| matches!(link.stage, Stage::Waiting { .. }))
    }

    /// Those that say that they are somebody else go once he has answered; they are taken once he is gone.
    pub(super) fn judge_waiting(&mut self, now: u64, server: &Server, out: &mut Outputs) {
        let waiting = self.links.iter().filter_map(|(id, link)| match link.stage {
            Stage::Waiting { round } => Some((*id, link.sid, round, link.deadline)),
            _ => None,
        });
        for (id, sid, round, deadline) in waiting.collect::<Vec<_>>() {
            let lives = |link: &Link| link.sid == sid && matches!(link.stage, Stage::Ready | Stage::Live);
            let old = self.links.iter().find(|(_, link)| lives(link));
            match old.map(|(id, link)| (*id, link.heard, link.stage)) {
                Some((_, heard, _)) if heard > round => {
                    self.drop_link(id, CloseWhy::IdTaken(sid), out);
                }
                // Before it is told that it is up to date it answers no ping.
                Some((_, _, stage)) if now < deadline || stage == Stage::Ready => {}
                Some((old, ..)) => {
                    self.drop_link(old, CloseWhy::Replaced(sid), out);
                    self.inform(now, id, server, out);
                }
                None => self.inform(now, id, server, out),
            }
        }
    }

    pub(in crate::zab) fn on_closed(&mut self, link: LinkId, out: &mut Outputs) {
        if self.links.remove(&link).is_some() {
            out.events.push_back(Event::LinkGone(link));
        }
    }

    pub(in crate::zab) fn on_packet(
        &mut self,
        now: u64,
        id: LinkId,
        packet: FromLearner,
        server: &mut Server,
        out: &mut Outputs,
    ) -> Result<(), LearnerMisbehaved> {
        let Some(link) = self.links.get_mut(&id) else { return Ok(()) };
        link.alive_until = link.alive_until.max(now + server.settings.sync_ms());
        match packet {
            FromLearner::Info { observer, accepted, id: sid, protocol, config_version } => {
                self.on_info(now, id, observer, accepted, sid, protocol, config_version, server, out)
            }
            FromLearner::AckEpoch { current, last, plea } => {
                self.on_ack_epoch(now, id, current, last, plea, server, out)
            }
            FromLearner::Ack(zxid) => self.on_ack(now, id, zxid, server, out),
            FromLearner::Differs { zxid, digest } => {
                self.require_live(id, "ACK with a digest")?;
                self.on_differs(id, zxid, digest, server, out);
                Ok(())
            }
            FromLearner::Ping { touched, .. } => {
                self.require_live(id, "PING")?;
                let link = self.links.get_mut(&id).expect("it is live");
                if let Some(round) = link.pings.pop_front() {
                    link.heard = round;
                }
                out.events.push_back(Event::Touched(touched));
                Ok(())
            }
            FromLearner::Revalidate { session, timeout_ms } => {
                self.require_live(id, "REVALIDATE")?;
                out.events.push_back(Event::Revalidate { link: id, session, timeout_ms });
                Ok(())
            }
            FromLearner::Request(request) => {
                self.require_live(id, "REQUEST")?;
                out.events.push_back(Event::Forwarded { link: id, request });
                Ok(())
            }
            FromLearner::Unknown(kind) if link.stage == Stage::Stranger => {
                Err(LearnerMisbehaved::NotIntroduced(kind))
            }
            FromLearner::Unknown(_) => Ok(()),
        }
    }

    fn require_live(&self, id: LinkId, packet: &'static str) -> Result<(), LearnerMisbehaved> {
        match self.links[&id].stage {
            Stage::Live => Ok(()),
            stage => Err(LearnerMisbehaved::PacketOutOfStage { packet, stage }),
        }
    }

    #[allow(clippy::too_many_arguments)] // the fields of one packet
    fn on_info(
        &mut self,
        now: u64,
        id: LinkId,
        observer: bool,
        accepted: Epoch,
        sid: ServerId,
        protocol: i32,
        config_version: i64,
        server: &mut Server,
        out: &mut Outputs,
    ) -> Result<(), LearnerMisbehaved> {
        let committed = server.view.committed.version();
        let link = self.links.get_mut(&id).expect("the caller looked");
        if link.stage != Stage::Stranger {
            let (packet, stage) = ("FOLLOWERINFO", link.stage);
            return Err(LearnerMisbehaved::PacketOutOfStage { packet, stage });
        }
        if !server.admits(sid) {
            return Err(LearnerMisbehaved::NotAdmitted(sid));
        }
        if protocol < PROTOCOL {
            return Err(LearnerMisbehaved::OldProtocol { id: sid, protocol });
        }
        if !(Epoch(0)..Epoch::LAST).contains(&accepted) {
            return Err(LearnerMisbehaved::EpochOutOfRange { id: sid, accepted });
        }
        // Both come from files alone: some leader made the epoch its version, as this one will.
        let is_versioned = committed == 0 && Zxid(config_version).counter() == 0;
        if config_version > committed && !(is_versioned && Zxid(config_version).epoch() <= server.accepted) {
            let has = config_version;
            return Err(LearnerMisbehaved::LaterConfiguration { id: sid, has, committed });
        }
        link.sid = sid;
        link.observer = observer;
        link.accepted = accepted;
        link.stage = Stage::Introduced;
        if self.has_living_link(sid) {
            let waiting = |link: &Link| link.sid == sid && matches!(link.stage, Stage::Waiting { .. });
            let mut waiting = self.links.iter().filter(|(_, link)| waiting(link)).map(|(id, _)| *id);
            if let Some(oldest) = waiting.next()
                && waiting.count() + 1 >= MAX_WAITING
            {
                self.drop_link(oldest, CloseWhy::TooManyClaims(sid), out);
            }
            let round = self.round;
            let link = self.links.get_mut(&id).expect("the caller looked");
            link.stage = Stage::Waiting { round };
            link.deadline = now + PATIENCE_TICKS * server.settings.tick_ms;
            return Ok(());
        }
        if self.phase >= Phase::EpochAcks {
            self.inform(now, id, server, out);
        } else if self.phase == Phase::Discovery {
            // Nothing proves what it says: one claim moves the epoch a little, so that the epochs are not used up. A server
            // that really is farther ahead is reached in some elections.
            let bound = Epoch((server.accepted.0 + MAX_EPOCHS_AHEAD).min(Epoch::LAST.0));
            self.epoch = self.epoch.max(Epoch(accepted.0 + 1).min(bound));
            if server.view.is_voter(sid) {
                self.connecting.add(sid, Memory::of_epoch(accepted));
            }
        }
        Ok(())
    }

    pub(super) fn inform(&mut self, now: u64, id: LinkId, server: &Server, out: &mut Outputs) {
        let link = self.links.get_mut(&id).expect("the caller has it");
        link.stage = Stage::Informed;
        link.deadline = now + server.settings.init_ms();
        link.promised = link.accepted > self.epoch;
        link.observer |= link.promised;
        let protocol = if link.promised { OBSERVE } else { PROTOCOL };
        out.tell_learner(id, &FromLeader::LeaderInfo { epoch: self.epoch, protocol, hears_pleas: true });
    }

    #[allow(clippy::too_many_arguments)] // the fields of one packet
    fn on_ack_epoch(
        &mut self,
        now: u64,
        id: LinkId,
        current: Option<Epoch>,
        last: Zxid,
        plea: Plea,
        server: &mut Server,
        out: &mut Outputs,
    ) -> Result<(), LearnerMisbehaved> {
        let link = self.links.get_mut(&id).expect("the caller looked");
        if link.stage != Stage::Informed {
            let (packet, stage) = ("ACKEPOCH", link.stage);
            return Err(LearnerMisbehaved::PacketOutOfStage { packet, stage });
        }
        if last < Zxid::NO_DATA {
            return Err(LearnerMisbehaved::NegativeZxid(last));
        }
        let sid = link.sid;
        if last > Zxid::ZERO && server.view.is_voter(sid) && server.gives_way(now) {
            self.give_up(LostWhy::HistoryElsewhere { id: sid, last }, out);
            return Ok(());
        }
        link.wants_snapshot = plea.snapshot;
        link.stage = Stage::Accepted { last };
        if link.promised {
            // Before this epoch is established its history may yet turn out not to be the ensemble's.
            if self.phase == Phase::Broadcast {
                self.synchronize(now, id, last, server, out);
            }
            return Ok(());
        }
        if self.phase > Phase::EpochAcks {
            self.synchronize(now, id, last, server, out);
            return Ok(());
        }
        // Without an epoch it has accepted this one before: it does not count twice.
        if let Some(current) = current {
            let leads_with = self.summary;
            // The last transaction tells the whole history: with the same one it is not ahead, whatever leader it had
            // that history from.
            if (current, last) > leads_with && last != leads_with.1 {
                return Err(LearnerMisbehaved::Ahead { id: link.sid, epoch: current, last, leads_with });
            }
            let memory = match last {
                _ if plea.forgetful => Memory::Unsure,
                Zxid::NO_DATA => Memory::Unsure,
                _ if last == Zxid::ZERO && current.0 <= 0 && !plea.remembers => Memory::Blank,
                _ => Memory::Whole,
            };
            if server.view.is_voter(link.sid) {
                self.electing.add(link.sid, memory);
            }
        }
        Ok(())
    }

    fn on_ack(
        &mut self,
        now: u64,
        id: LinkId,
        zxid: Zxid,
        server: &Server,
        out: &mut Outputs,
    ) -> Result<(), LearnerMisbehaved> {
        let opens = zxid == Zxid::new(self.epoch, 0);
        let last = self.broadcast.last_proposed();
        let link = self.links.get_mut(&id).expect("the caller looked");
        match link.stage {
            Stage::Asked if opens => {
                link.stage = Stage::Ready;
                link.alive_until = now + server.settings.sync_ms();
                link.checkpoint = (last, now);
                let (sid, early) = (link.sid, link.early_ack);
                if !link.promised {
                    self.synced.insert(sid);
                }
                if !self.links[&id].observer {
                    self.broadcast.on_ack(sid, early);
                }
                if self.phase == Phase::Broadcast {
                    self.welcome(id, out);
                }
                Ok(())
            }
            Stage::Asked | Stage::Ready | Stage::Live if zxid > last && zxid.counter() != 0 => {
                Err(LearnerMisbehaved::AckOfNothing { zxid, last })
            }
            Stage::Asked => {
                link.early_ack = link.early_ack.max(zxid);
                Ok(())
            }
            // The second ACK of the epoch follows UPTODATE and says nothing new.
            Stage::Ready | Stage::Live => {
                if zxid.counter() != 0 && !link.observer {
                    let sid = link.sid;
                    self.broadcast.on_ack(sid, zxid);
                }
                Ok(())
            }
            stage => Err(LearnerMisbehaved::PacketOutOfStage { packet: "ACK", stage }),
        }
    }

    /// A learner's tree has another digest than this leader gave the transaction. Where a quorum has the same other one, it
    /// is this leader's tree that is wrong.
    fn on_differs(&mut self, id: LinkId, zxid: Zxid, digest: i64, server: &mut Server, out: &mut Outputs) {
        let link = &self.links[&id];
        if link.observer || zxid > self.committed {
            return;
        }
        if zxid > self.differing.0 {
            self.differing = (zxid, BTreeMap::new());
        }
        if zxid < self.differing.0 {
            return;
        }
        let differing = &mut self.differing.1;
        differing.insert(link.sid, digest);
        let same = |id: ServerId| differing.get(&id) == Some(&digest);
        if server.view.has_quorum(same) {
            server.tree = Tree::Wrong;
            self.give_up(LostWhy::OutvotedTree(zxid), out);
        }
    }

    pub(super) fn welcome(&mut self, id: LinkId, out: &mut Outputs) {
        self.links.get_mut(&id).expect("the caller has it").stage = Stage::Live;
        out.tell_learner(id, &FromLeader::UpToDate);
    }

    /// Links whose other side is late: with a packet, with an ACK, or with anything at all.
    pub(super) fn drop_late(&mut self, now: u64, server: &Server, out: &mut Outputs) {
        let (last, patience) = (self.broadcast.last_proposed(), server.settings.sync_ms());
        let mut late = Vec::new();
        for (id, link) in &mut self.links {
            let why = match link.stage {
                Stage::Stranger | Stage::Informed | Stage::Asked if now >= link.deadline => {
                    Some(CloseWhy::Late { id: link.sid, stage: link.stage })
                }
                Stage::Ready | Stage::Live if now > link.alive_until => Some(CloseWhy::Silent(link.sid)),
                Stage::Ready | Stage::Live if !link.observer => {
                    if self.broadcast.acked(link.sid) >= link.checkpoint.0 || link.checkpoint.0.counter() == 0
                    {
                        link.checkpoint = (last, now);
                        None
                    } else {
                        let waited = now.saturating_sub(link.checkpoint.1);
                        (waited > patience)
                            .then_some(CloseWhy::NoAck { id: link.sid, zxid: link.checkpoint.0 })
                    }
                }
                _ => None,
            };
            late.extend(why.map(|why| (*id, why)));
        }
        for (id, why) in late {
            self.drop_link(id, why, out);
        }
    }
}
