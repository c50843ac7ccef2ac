//! What learners say to their leader: who they are, what they accept, what they have on disk.

use super::links::{Link, Stage, Waiting};
use super::{Leader, Memory, Phase};
use crate::model::{Epoch, LinkId, ServerId, Zxid};
use crate::wire::quorum::{FromLeader, FromLearner, NO_ROOM, OBSERVE, PROTOCOL, Plea};
use crate::zab::{CloseWhy, Event, LearnerMisbehaved, LinkAction, LostWhy, Outputs, Server, Tree};
use std::collections::BTreeMap;

/// So many epochs one learner's claim moves the next one beyond what this server accepted itself, at the most.
pub const MAX_EPOCHS_AHEAD: i64 = 256;

/// So many ticks the living link of a server has to answer a ping, where another says that it is this server. Pings go out every
/// half of a tick.
const PATIENCE_TICKS: u64 = 2;

impl Leader {
    pub(in crate::zab) fn on_packet(
        &mut self,
        now: u64,
        id: LinkId,
        packet: FromLearner,
        server: &mut Server,
        out: &mut Outputs,
    ) -> Result<(), LearnerMisbehaved> {
        if self.phase == Phase::Over {
            return Ok(());
        }
        let Some(link) = self.links.get_mut(id) else { return Ok(()) };
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
                require_live(link, "ACK with a digest")?;
                if !link.observer {
                    let sid = link.sid;
                    self.on_differs(sid, zxid, digest, server, out);
                }
                Ok(())
            }
            FromLearner::Ping { mut touched, .. } => {
                require_live(link, "PING")?;
                link.lacks_room = touched.pop_if(|last| *last == NO_ROOM).is_some();
                link.answer();
                link.window.on_answer();
                out.events.push_back(Event::Touched(touched));
                self.open_window(now, id, server, out);
                Ok(())
            }
            FromLearner::Revalidate { session, timeout_ms } => {
                require_live(link, "REVALIDATE")?;
                out.events.push_back(Event::Revalidate { link: id, session, timeout_ms });
                Ok(())
            }
            FromLearner::Request(request) => {
                require_live(link, "REQUEST")?;
                out.events.push_back(Event::Forwarded { link: id, request });
                Ok(())
            }
            FromLearner::Unknown(kind) if link.stage == Stage::Stranger => {
                Err(LearnerMisbehaved::NotIntroduced(kind))
            }
            FromLearner::Unknown(_) => Ok(()),
        }
    }

    #[allow(clippy::too_many_arguments, reason = "the fields of one packet")]
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
        let Some(link) = self.links.get_mut(id) else { return Ok(()) };
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
        // Anybody can say that he is a member: the link of one that lives stays.
        if self.links.living(sid).is_some() {
            self.let_wait(now, id, sid, server, out);
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

    /// It says that it is a server whose link lives: that one is given time to answer.
    fn let_wait(&mut self, now: u64, id: LinkId, sid: ServerId, server: &Server, out: &mut Outputs) {
        if let Some(oldest) = self.links.too_many_waiting(sid) {
            self.links.drop(oldest, CloseWhy::TooManyClaims(sid), out);
        }
        if let Some(link) = self.links.get_mut(id) {
            link.stage = Stage::Waiting { round: self.round };
            link.deadline = now + PATIENCE_TICKS * server.settings.tick_ms;
        }
    }

    pub(super) fn inform(&mut self, now: u64, id: LinkId, server: &Server, out: &mut Outputs) {
        let Some(link) = self.links.get_mut(id) else { return };
        link.stage = Stage::Informed;
        link.deadline = now + server.settings.init_ms();
        link.promised = link.accepted > self.epoch;
        link.observer |= link.promised;
        let protocol = if link.promised { OBSERVE } else { PROTOCOL };
        out.tell_learner(id, &FromLeader::LeaderInfo { epoch: self.epoch, protocol, hears_pleas: true });
    }

    #[allow(clippy::too_many_arguments, reason = "the fields of one packet")]
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
        let Some(link) = self.links.get_mut(id) else { return Ok(()) };
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
        let Some(link) = self.links.get_mut(id) else { return Ok(()) };
        match link.stage {
            Stage::Asked if opens => {
                link.stage = Stage::Ready;
                link.answer();
                link.alive_until = now + server.settings.sync_ms();
                link.checkpoint = (link.behind.map_or(last, |behind| behind.sent), now);
                link.window.on_answer();
                // It acknowledges nothing that it was sent as committed.
                let committed = link.behind.map_or(self.committed, |behind| behind.committed);
                if !link.promised {
                    self.synced.insert(link.sid);
                }
                if !link.observer {
                    self.broadcast.on_ack(link.sid, link.early_ack.max(committed));
                }
                if self.phase == Phase::Broadcast {
                    self.welcome(id, out);
                    self.open_window(now, id, server, out);
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
                    self.broadcast.on_ack(link.sid, zxid);
                }
                Ok(())
            }
            stage @ (Stage::Stranger
            | Stage::Waiting { .. }
            | Stage::Introduced
            | Stage::Informed
            | Stage::Accepted { .. }
            | Stage::Locating { .. }
            | Stage::Feeding { .. }) => Err(LearnerMisbehaved::PacketOutOfStage { packet: "ACK", stage }),
        }
    }

    /// A follower's tree has another digest than this leader gave the transaction. Where a quorum has the same other one, it
    /// is this leader's tree that is wrong.
    fn on_differs(&mut self, sid: ServerId, zxid: Zxid, digest: i64, server: &mut Server, out: &mut Outputs) {
        if zxid > self.committed {
            return;
        }
        if zxid > self.differing.0 {
            self.differing = (zxid, BTreeMap::new());
        }
        if zxid < self.differing.0 {
            return;
        }
        let differing = &mut self.differing.1;
        differing.insert(sid, digest);
        let same = |id: ServerId| differing.get(&id) == Some(&digest);
        if server.view.has_quorum(same) {
            server.tree = Tree::Wrong;
            self.give_up(LostWhy::OutvotedTree(zxid), out);
        }
    }

    /// Those that say that they are somebody else go once he has answered; they are taken once he is gone.
    pub(super) fn judge_waiting(&mut self, now: u64, server: &Server, out: &mut Outputs) {
        for Waiting { link: id, sid, round, deadline } in self.links.waiting() {
            match self.links.living(sid).map(|(id, link)| (id, link.heard(), link.stage)) {
                Some((_, heard, _)) if heard > round => {
                    self.links.drop(id, CloseWhy::IdTaken(sid), out);
                }
                // Before it learns that it is up to date it answers no ping.
                Some((_, _, stage)) if now < deadline || stage == Stage::Ready => {}
                Some((old, ..)) => {
                    self.links.drop(old, CloseWhy::Replaced(sid), out);
                    self.inform(now, id, server, out);
                }
                None => self.inform(now, id, server, out),
            }
        }
    }

    pub(super) fn welcome(&mut self, id: LinkId, out: &mut Outputs) {
        let Some(link) = self.links.get_mut(id) else { return };
        link.stage = Stage::Live;
        out.events.push_back(Event::Joined { learner: link.sid, observer: link.observer });
        out.tell_learner(id, &FromLeader::UpToDate);
        if self.holds {
            out.links.push((id, LinkAction::Hold(true)));
        }
    }

    pub(super) fn drop_late(&mut self, now: u64, server: &Server, out: &mut Outputs) {
        let (last, patience) = (self.broadcast.last_proposed(), server.settings.sync_ms());
        for (id, why) in self.links.late(now, last, |sid| self.broadcast.acked(sid), patience) {
            self.links.drop(id, why, out);
        }
    }
}

fn require_live(link: &Link, packet: &'static str) -> Result<(), LearnerMisbehaved> {
    if link.stage == Stage::Live {
        return Ok(());
    }
    Err(LearnerMisbehaved::PacketOutOfStage { packet, stage: link.stage })
}
