//! The learner's part, as follower and as observer (`server/quorum/Learner`, `Follower`, `Observer`): it takes the
//! leader's history, then what it proposes, and acknowledges what is on its disk.

use super::{
    CloseWhy, DiskDone, DiskOp, Entry, Event, Foreign, History, LeaderMisbehaved, LinkAction, LostWhy, Next,
    Outputs, Server, Tree, parse_config,
};
use crate::ensemble::Ensemble;
use crate::model::{Debt, Epoch, LinkId, Room, ServerId, TxnMark, Zxid};
use crate::wire::quorum::NO_ROOM;
use crate::wire::quorum::{Forwarded, FromLeader, FromLearner, OBSERVE, PROTOCOL, Plea};
use std::collections::VecDeque;

/// Dials that are tried before a new election: the leader may need a moment to open its port.
const DIALS: u32 = 10;
const MAX_DIAL_DELAY_MS: u64 = 100;

/// What this learner is about with its leader.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// The next dial is due then, or one is under way.
    Dialing { retry_at: Option<u64> },
    /// Said who it is.
    Introduced,
    /// Accepts the epoch, on disk.
    Accepting,
    /// Acknowledged the epoch; DIFF, TRUNC or SNAP comes next.
    Accepted,
    /// The disk cuts the log.
    Truncating,
    /// The snapshot arrives.
    Receiving(Zxid),
    /// The disk puts it beside what this server has.
    Staging,
    /// What cannot be mended is thrown away; then it all begins from scratch.
    Wiping,
    /// Takes the leader's history.
    Syncing,
    /// NEWLEADER came: everything up to here must be on disk.
    Flushing(Zxid),
    /// Then the epoch.
    Entering,
    /// Acknowledged NEWLEADER.
    Synced,
    /// Up to date.
    Live,
    /// The term is over: nothing that comes is looked at any more.
    Over,
}

/// What a leader claims that was not elected.
pub const DESIGNATED: Epoch = Epoch(-1);

/// A learner's term, from the election that named its leader to its end.
#[derive(Debug)]
pub struct Learner {
    leader: ServerId,
    observer: bool,
    link: Option<LinkId>,
    stage: Stage,
    epoch: Epoch,
    /// Something must be heard by then.
    deadline: u64,
    dials: u32,
    give_up_at: u64,
    /// The epoch whose history the leader has, as far as its vote told, or [`DESIGNATED`].
    claimed: Epoch,
    /// This server may have acknowledged up to here: no leader with less is helped into the lead.
    owed: Zxid,
    /// This server can't say what it has acknowledged before. What it takes from this leader proves nothing before others
    /// have established it.
    forgetful: bool,
    /// Packets that came while the disk had to finish something first.
    held: VecDeque<FromLeader>,
    is_held: bool,
    /// Proposals to be acknowledged once they are on disk and NEWLEADER is acknowledged.
    unacked: VecDeque<Zxid>,
    /// NEWLEADER's configuration, active from UPTODATE on.
    config: Option<Ensemble>,
    /// The leader is one of ours.
    hears_pleas: bool,
    /// The leader has all that this server has: nothing is lost where its snapshot takes the place of that.
    is_contained: bool,
    /// The tree differs from the leader's. Until then the leader may find that it is its own that is wrong.
    doubted_until: Option<u64>,
}

impl Learner {
    pub(super) fn begin(
        now: u64,
        leader: ServerId,
        claimed: Epoch,
        server: &Server,
        out: &mut Outputs,
    ) -> Self {
        out.dial = Some(leader);
        let settings = &server.settings;
        Self {
            leader,
            observer: server.is_observer(),
            link: None,
            stage: Stage::Dialing { retry_at: None },
            epoch: Epoch(0),
            deadline: u64::MAX,
            dials: 1,
            give_up_at: now + settings.connect_limit * settings.tick_ms,
            claimed,
            owed: Zxid::ZERO,
            forgetful: false,
            held: VecDeque::new(),
            is_held: false,
            unacked: VecDeque::new(),
            config: None,
            hears_pleas: false,
            is_contained: false,
            doubted_until: None,
        }
    }

    /// The server that it follows.
    pub fn leader(&self) -> ServerId {
        self.leader
    }

    /// Whether it has no vote in this term.
    pub fn is_observer(&self) -> bool {
        self.observer
    }

    /// The leader's epoch; 0 before it is offered.
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// Whether it is up to date, and serves clients.
    pub fn is_live(&self) -> bool {
        self.stage == Stage::Live
    }

    /// The phase by Java's names: `discovery`, `synchronization`, `broadcast`.
    pub fn phase_name(&self) -> &'static str {
        match self.stage {
            Stage::Dialing { .. } | Stage::Introduced | Stage::Accepting | Stage::Accepted | Stage::Over => {
                "discovery"
            }
            Stage::Truncating
            | Stage::Receiving(_)
            | Stage::Staging
            | Stage::Wiping
            | Stage::Syncing
            | Stage::Flushing(_)
            | Stage::Entering
            | Stage::Synced => "synchronization",
            Stage::Live => "broadcast",
        }
    }

    /// Until when this server may take its leader for one.
    pub fn lease(&self) -> u64 {
        if self.is_live() && self.doubted_until.is_none() { self.deadline } else { 0 }
    }

    pub(super) fn on_dialed(&mut self, now: u64, link: LinkId, server: &Server, out: &mut Outputs) {
        if self.stage == Stage::Over || self.link.is_some() {
            return out.close(link, CloseWhy::NotFollowing);
        }
        self.link = Some(link);
        self.stage = Stage::Introduced;
        self.deadline = now + server.settings.init_ms();
        let info = FromLearner::Info {
            observer: self.observer,
            accepted: server.accepted,
            id: server.me(),
            protocol: PROTOCOL,
            config_version: server.view.committed.version(),
        };
        out.tell_leader(link, &info);
    }

    /// It may be a dial of the last term, which failed late: the one that came through stays.
    pub(super) fn on_dial_failed(&mut self, now: u64) {
        if self.stage == Stage::Over || self.link.is_some() {
            return;
        }
        let delay = (5 << self.dials.min(10)).min(MAX_DIAL_DELAY_MS);
        self.stage = Stage::Dialing { retry_at: Some(now + delay) };
    }

    pub(super) fn on_closed(&mut self, now: u64, link: LinkId, out: &mut Outputs) {
        if self.link == Some(link) {
            self.link = None;
            // The leader that a reconfiguration designated may hear of it a moment after this server.
            if self.stage == Stage::Introduced && self.claimed == DESIGNATED {
                return self.on_dial_failed(now);
            }
            self.lose(LostWhy::LeaderClosed(self.leader), out);
        }
    }

    fn lose(&mut self, why: LostWhy, out: &mut Outputs) {
        if self.stage != Stage::Over {
            self.stage = Stage::Over;
            out.events.push_back(Event::Lost { why, next: Next::Election });
        }
    }

    /// The tree differs from the leader's after `zxid`. Nobody is answered any more. The leader learns of it first: where a quorum
    /// has the same tree as this server, the leader steps down.
    pub(super) fn doubt(
        &mut self,
        now: u64,
        zxid: Zxid,
        digest: i64,
        server: &Server,
        out: &mut Outputs,
    ) -> bool {
        if self.doubted_until.is_some() || self.stage == Stage::Over {
            return false;
        }
        self.doubted_until = Some(now + server.settings.tick_ms);
        if let Some(link) = self.link.filter(|_| self.is_live() && self.hears_pleas) {
            out.tell_leader(link, &FromLearner::Differs { zxid, digest });
        }
        true
    }

    pub(super) fn abandon(&mut self, why: LostWhy, out: &mut Outputs) {
        if self.stage != Stage::Live {
            self.lose(why, out);
        }
    }

    pub(super) fn on_packet(
        &mut self,
        now: u64,
        link: LinkId,
        packet: FromLeader,
        server: &mut Server,
        out: &mut Outputs,
    ) {
        if self.stage == Stage::Over || self.link != Some(link) {
            return;
        }
        let is_synced = matches!(self.stage, Stage::Synced | Stage::Live);
        let patience = if is_synced { server.settings.sync_ms() } else { server.settings.init_ms() };
        self.deadline = now + patience;
        if self.waits_for_disk() {
            self.held.push_back(packet);
            return self.hold(true, out);
        }
        self.take(now, packet, server, out);
    }

    /// Packets have to wait: what they build on is not there yet.
    fn waits_for_disk(&self) -> bool {
        match self.stage {
            Stage::Accepting | Stage::Truncating | Stage::Receiving(_) | Stage::Staging | Stage::Wiping => {
                true
            }
            Stage::Dialing { .. }
            | Stage::Introduced
            | Stage::Accepted
            | Stage::Syncing
            | Stage::Flushing(_)
            | Stage::Entering
            | Stage::Synced
            | Stage::Live
            | Stage::Over => false,
        }
    }

    fn take(&mut self, now: u64, packet: FromLeader, server: &mut Server, out: &mut Outputs) {
        if let Err(how) = self.step(now, packet, server, out) {
            self.lose(LostWhy::LeaderMisbehaved { leader: self.leader, how }, out);
        }
        self.advance(now, server, out);
    }

    fn hold(&mut self, on: bool, out: &mut Outputs) {
        if self.is_held != on
            && let Some(link) = self.link
        {
            self.is_held = on;
            out.links.push((link, LinkAction::Hold(on)));
        }
    }

    fn step(
        &mut self,
        now: u64,
        packet: FromLeader,
        server: &mut Server,
        out: &mut Outputs,
    ) -> Result<(), LeaderMisbehaved> {
        match packet {
            FromLeader::Trunc(to, _) | FromLeader::Snap(to, _) if to < Zxid::ZERO => {
                Err(LeaderMisbehaved::NegativeZxid(to))
            }
            FromLeader::LeaderInfo { epoch, protocol, hears_pleas } => {
                self.hears_pleas = hears_pleas;
                self.on_leader_info(epoch, protocol, server, out)
            }
            FromLeader::Diff(_, mark) => self.on_diff(mark, server, out),
            FromLeader::Trunc(to, mark) => self.on_trunc(to, mark, server, out),
            FromLeader::Snap(zxid, mark) => self.on_snap(zxid, mark, server, out),
            FromLeader::Proposal { body, .. } if self.observer && self.is_live() => {
                drop(body);
                Ok(())
            }
            FromLeader::Commit(_) if self.observer && self.is_live() => Ok(()),
            FromLeader::Proposal { zxid, body } => self.on_proposal(zxid, body, server, out),
            FromLeader::Commit(zxid) => self.on_commit(zxid, server, out),
            FromLeader::CommitAndActivate { zxid, leader } => self.on_activate(zxid, leader, server, out),
            FromLeader::Inform { zxid, body } => {
                self.on_proposal(zxid, body, server, out)?;
                self.on_commit(zxid, server, out)
            }
            FromLeader::InformAndActivate { zxid, leader, body } => {
                self.on_proposal(zxid, body, server, out)?;
                self.on_activate(zxid, leader, server, out)
            }
            FromLeader::NewLeader { zxid, config } => self.on_new_leader(zxid, config, server, out),
            FromLeader::UpToDate => self.on_up_to_date(now, server, out),
            // Before UPTODATE a learner does not answer: no Java learner does.
            FromLeader::Ping(zxid) => {
                if self.is_live() {
                    out.events.push_back(Event::Pinged(zxid));
                }
                Ok(())
            }
            FromLeader::Revalidate { session, valid } => {
                out.events.push_back(Event::Revalidated { session, valid });
                Ok(())
            }
            FromLeader::Sync => {
                out.events.push_back(Event::Synced);
                Ok(())
            }
            FromLeader::Unknown(_) => Ok(()),
        }
    }

    fn require(&self, stage: Stage, packet: &'static str) -> Result<(), LeaderMisbehaved> {
        if self.stage == stage {
            return Ok(());
        }
        Err(LeaderMisbehaved::PacketOutOfStage { packet, stage: self.stage })
    }

    // Discovery.

    /// The leader offers an epoch; this server promises never to accept an older one.
    fn on_leader_info(
        &mut self,
        offered: Epoch,
        protocol: i32,
        server: &mut Server,
        out: &mut Outputs,
    ) -> Result<(), LeaderMisbehaved> {
        self.require(Stage::Introduced, "LEADERINFO")?;
        let accepted = server.accepted;
        self.epoch = offered;
        if offered > accepted {
            // The promise binds only once it is on disk.
            self.stage = Stage::Accepting;
            server.disk(DiskOp::SaveAccepted(offered), out);
        } else if offered == accepted {
            // Promised already, in an earlier try: answered, but not counted as a second vote.
            self.ack_epoch(None, server, out);
        } else if protocol == OBSERVE && server.current <= offered {
            // Somebody else was promised that this server takes no part in this epoch, and it takes none: what others
            // committed it may know all the same, as that leader has to have it too. It follows again in the next epoch.
            self.observer = true;
            self.ack_epoch(None, server, out);
        } else {
            return Err(LeaderMisbehaved::StaleEpoch { accepted, offered });
        }
        Ok(())
    }

    fn ack_epoch(&mut self, current: Option<Epoch>, server: &Server, out: &mut Outputs) {
        self.stage = Stage::Accepted;
        self.forgetful = server.is_forgetful();
        self.owed = match server.debt {
            // With the history of a later epoch it has all that was committed in this one.
            Debt::AtLeast(epoch, zxid) if self.claimed <= epoch => zxid,
            Debt::None | Debt::AtLeast(..) | Debt::Unknown => Zxid::ZERO,
        };
        let plea = Plea {
            forgetful: self.forgetful && !server.is_new(),
            snapshot: server.tree == Tree::Wrong,
            remembers: server.log_end == Zxid::ZERO && !self.forgetful,
        };
        // A Java leader counts nobody whose data is missing: it has to count who has none, or empty servers that follow one
        // with data would never be a quorum. They followed only after all had told what they have.
        let is_partial = plea.forgetful && server.log_end > Zxid::ZERO;
        let needs_all = is_partial || (plea.snapshot && !self.hears_pleas);
        let last = if needs_all { Zxid::NO_DATA } else { server.log_end };
        let current = current.map(|_| server.history_epoch());
        if let Some(link) = self.link {
            let plea = if self.hears_pleas { plea } else { Plea::default() };
            out.tell_leader(link, &FromLearner::AckEpoch { current, last, plea });
        }
    }

    // Synchronization.

    fn open(&self, packet: &'static str) -> Result<(), LeaderMisbehaved> {
        self.require(Stage::Accepted, packet)
    }

    /// What this server has is part of the leader's history, with what it had logged and not heard to be committed.
    fn on_diff(
        &mut self,
        mark: Option<TxnMark>,
        server: &mut Server,
        out: &mut Outputs,
    ) -> Result<(), LeaderMisbehaved> {
        self.open("DIFF")?;
        if !self.is_of_one_history(server.log_end, mark, server, out) {
            return Ok(());
        }
        self.stage = Stage::Syncing;
        if self.forgetful {
            // With some of it here, a crash must not make this server forget that it has forgotten.
            server.save_debt(Debt::Unknown, out);
        }
        server.deliver_tail(out);
        Ok(())
    }

    /// Whether the leader has the same transaction at this zxid. A zxid is given once in an ensemble: with another one there,
    /// the two histories have nothing to do with each other, and no part of this one may be mixed with the leader's.
    fn is_of_one_history(
        &mut self,
        zxid: Zxid,
        mark: Option<TxnMark>,
        server: &Server,
        out: &mut Outputs,
    ) -> bool {
        let own = server.mark(zxid);
        let differs = own.is_some() && mark.is_some() && own != mark;
        if differs {
            self.refuse(Foreign::Transaction(zxid), out);
        }
        !differs
    }

    /// Whether the leader's history begins with this transaction, and all that this server has was committed before.
    fn skips_committed(&self, first: Zxid, server: &Server) -> bool {
        let committed = server.committed_at_start;
        let begins = self.stage == Stage::Syncing && server.kept.is_some() && server.log_end == Zxid::ZERO;
        begins && committed > Zxid::ZERO && committed < first
    }

    /// This server keeps what it has, and does not follow.
    fn refuse(&mut self, what: Foreign, out: &mut Outputs) {
        self.stage = Stage::Over;
        out.events.push_back(Event::Refused { leader: self.leader, what });
    }

    pub(super) fn refuse_over(&mut self, link: LinkId, what: Foreign, out: &mut Outputs) {
        if self.stage != Stage::Over && self.link == Some(link) {
            self.refuse(what, out);
        }
    }

    fn on_snap(
        &mut self,
        zxid: Zxid,
        mark: Option<TxnMark>,
        server: &Server,
        out: &mut Outputs,
    ) -> Result<(), LeaderMisbehaved> {
        self.open("SNAP")?;
        if !self.is_of_one_history(server.log_end, mark, server, out) {
            return Ok(());
        }
        // A wrong tree may come from wrong files: they are of use to whoever looks for the cause.
        let is_good = server.tree != Tree::Wrong;
        self.is_contained = is_good && mark.is_some() && server.mark(server.log_end) == mark;
        self.stage = Stage::Receiving(zxid);
        Ok(())
    }

    fn on_trunc(
        &mut self,
        to: Zxid,
        mark: Option<TxnMark>,
        server: &mut Server,
        out: &mut Outputs,
    ) -> Result<(), LeaderMisbehaved> {
        self.open("TRUNC")?;
        if to > server.log_end {
            return Err(LeaderMisbehaved::TruncBeyondLog { to, log_end: server.log_end });
        }
        if !self.is_of_one_history(to, mark, server, out) {
            return Ok(());
        }
        self.stage = Stage::Truncating;
        server.tail.retain(|entry| entry.zxid <= to);
        server.deliver_tail(out);
        let reload = to < server.history.end();
        server.history.truncate(to);
        server.log_end = to;
        server.disk(DiskOp::Truncate { to, reload }, out);
        Ok(())
    }

    /// The driver has the snapshot that SNAP announced, checked and on disk under a name of its own.
    pub(super) fn on_snapshot(
        &mut self,
        now: u64,
        link: LinkId,
        zxid: Zxid,
        server: &mut Server,
        out: &mut Outputs,
    ) -> bool {
        if self.link != Some(link) || self.stage != Stage::Receiving(zxid) {
            return false;
        }
        self.deadline = now + server.settings.init_ms();
        self.stage = Stage::Staging;
        if self.forgetful {
            server.save_debt(Debt::Unknown, out);
        }
        server.stage(link, zxid, out);
        true
    }

    fn on_proposal(
        &mut self,
        zxid: Zxid,
        body: bytes::Bytes,
        server: &mut Server,
        out: &mut Outputs,
    ) -> Result<(), LeaderMisbehaved> {
        if !matches!(
            self.stage,
            Stage::Syncing | Stage::Flushing(_) | Stage::Entering | Stage::Synced | Stage::Live
        ) {
            return Err(LeaderMisbehaved::PacketOutOfStage { packet: "PROPOSAL", stage: self.stage });
        }
        let last = server.log_end;
        // A Java leader's queue may begin before the snapshot that it sent ahead of it; and some leaders send an observer
        // the proposals that it will be informed of.
        if zxid <= last {
            return Ok(());
        }
        if self.skips_committed(zxid, server) {
            let committed = server.committed_at_start;
            self.refuse(Foreign::BeginsLater { first: zxid, committed }, out);
            return Ok(());
        }
        let entry = Entry::decode(body)?;
        if entry.zxid != zxid {
            return Err(LeaderMisbehaved::AnotherTransaction { zxid, holds: entry.zxid });
        }
        if !History::follows(last, zxid) {
            return Err(LeaderMisbehaved::GapInProposals { last, got: zxid });
        }
        if let Some(config) = entry.configuration() {
            server.see(config?, out);
        }
        server.append(entry.logged(), out);
        server.tail.push_back(entry);
        if !self.observer {
            self.unacked.push_back(zxid);
        }
        if server.log_is_full {
            self.hold(true, out);
        }
        Ok(())
    }

    fn on_commit(
        &mut self,
        zxid: Zxid,
        server: &mut Server,
        out: &mut Outputs,
    ) -> Result<(), LeaderMisbehaved> {
        match server.tail.pop_front_if(|entry| entry.zxid == zxid) {
            Some(entry) => {
                server.history.push(entry.logged());
                out.events.push_back(Event::Deliver(entry));
                Ok(())
            }
            // A leader that answers a reconnect may repeat what the history holds already.
            None if zxid <= server.history.end() => Ok(()),
            None => {
                let oldest = server.tail.front().map(|entry| entry.zxid);
                Err(LeaderMisbehaved::CommitOutOfOrder { zxid, oldest })
            }
        }
    }

    /// A reconfiguration is committed. Where it changes the leader or this server's role, the term ends.
    fn on_activate(
        &mut self,
        zxid: Zxid,
        leader: ServerId,
        server: &mut Server,
        out: &mut Outputs,
    ) -> Result<(), LeaderMisbehaved> {
        let config = server.tail.front().filter(|entry| entry.zxid == zxid).and_then(Entry::configuration);
        self.on_commit(zxid, server, out)?;
        let Some(config) = config else {
            return Err(LeaderMisbehaved::ActivatesNothing(zxid));
        };
        if !server.settings.reconfig_enabled {
            return Ok(());
        }
        let was_observer = server.is_observer();
        server.activate(std::sync::Arc::new(config?), out);
        let role_changed = server.is_observer() != was_observer;
        if leader != self.leader || role_changed {
            self.stage = Stage::Over;
            let why = LostWhy::Reconfigured(zxid);
            out.events.push_back(Event::Lost { why, next: Next::Designated { leader, zxid } });
        }
        Ok(())
    }

    /// The leader's history is complete. It must be on disk, and then the epoch, before this is acknowledged.
    fn on_new_leader(
        &mut self,
        zxid: Zxid,
        config: Option<bytes::Bytes>,
        server: &mut Server,
        out: &mut Outputs,
    ) -> Result<(), LeaderMisbehaved> {
        self.require(Stage::Syncing, "NEWLEADER")?;
        if zxid != Zxid::new(self.epoch, 0) {
            return Err(LeaderMisbehaved::AnotherEpoch { offered: self.epoch, zxid });
        }
        if let Some(text) = config {
            let config = parse_config(&text)?;
            server.see(config.clone(), out);
            self.config = Some(config);
        }
        if self.skips_committed(Zxid(i64::MAX), server) {
            let committed = server.committed_at_start;
            self.refuse(Foreign::Empty { committed }, out);
            return Ok(());
        }
        // What the leader sent as committed needs no ACK. It waits for those of what came as a proposal alone, though it may be
        // committed by now.
        let committed = server.history.end();
        self.unacked.retain(|zxid| *zxid > committed);
        self.stage = Stage::Flushing(server.log_end.max(self.owed));
        Ok(())
    }

    fn on_up_to_date(
        &mut self,
        now: u64,
        server: &mut Server,
        out: &mut Outputs,
    ) -> Result<(), LeaderMisbehaved> {
        self.require(Stage::Synced, "UPTODATE")?;
        self.ack_new_leader(out);
        self.stage = Stage::Live;
        self.deadline = now + server.settings.sync_ms();
        server.settle_debt(out);
        server.has_new_tree(now);
        out.events.push_back(Event::Learns(self.epoch));
        let Some(config) = self.config.take() else { return Ok(()) };
        let version = Zxid(config.version());
        if version.epoch() == self.epoch && version.counter() > 0 && version > server.history.end() {
            // A Java leader tells what it proposes at the moment, too. Its commit is still to come.
            return Ok(());
        }
        let was_observer = server.is_observer();
        let address =
            |ensemble: &Ensemble| ensemble.member(self.leader).map(|member| member.addresses.clone());
        let old = server.view.committed.clone();
        let changed = server.activate(std::sync::Arc::new(config), out);
        let new = &server.view.committed;
        let leader_changed = !new.is_voter(self.leader) || address(&old) != address(new);
        if changed && (leader_changed || server.is_observer() != was_observer) {
            self.lose(LostWhy::ConfigurationDiffers, out);
        }
        Ok(())
    }

    // What the disk has done.

    pub(super) fn on_disk(&mut self, now: u64, done: &DiskDone, server: &mut Server, out: &mut Outputs) {
        if self.stage == Stage::Over {
            return;
        }
        match (self.stage, done) {
            (Stage::Accepting, DiskDone::AcceptedSaved(epoch)) if *epoch == self.epoch => {
                let current = server.current;
                self.ack_epoch(Some(current), server, out);
            }
            (Stage::Truncating, DiskDone::Truncated(_)) | (Stage::Staging, DiskDone::Staged(_)) => {
                self.stage = Stage::Syncing;
            }
            (Stage::Truncating, DiskDone::Unmendable) => self.stage = Stage::Wiping,
            (Stage::Wiping, DiskDone::Wiped) => {
                self.lose(LostWhy::Unmendable, out);
            }
            (Stage::Entering, DiskDone::CurrentSaved(epoch)) if *epoch == self.epoch => {
                self.stage = Stage::Synced;
                if !self.forgetful {
                    server.save_debt(Debt::None, out);
                }
                self.deadline = now + server.settings.sync_ms().max(server.settings.init_ms());
                self.ack_new_leader(out);
            }
            _ => {}
        }
        self.advance(now, server, out);
    }

    /// The ACK of NEWLEADER, and once more of UPTODATE.
    fn ack_new_leader(&self, out: &mut Outputs) {
        if let Some(link) = self.link {
            out.tell_leader(link, &FromLearner::Ack(Zxid::new(self.epoch, 0)));
        }
    }

    /// Does what has become possible.
    fn advance(&mut self, now: u64, server: &mut Server, out: &mut Outputs) {
        while self.stage != Stage::Over
            && !self.waits_for_disk()
            && let Some(packet) = self.held.pop_front()
        {
            if let Err(how) = self.step(now, packet, server, out) {
                self.lose(LostWhy::LeaderMisbehaved { leader: self.leader, how }, out);
            }
        }
        if self.stage == Stage::Over {
            return;
        }
        if let Stage::Flushing(zxid) = self.stage
            && server.durable >= zxid
        {
            self.stage = Stage::Entering;
            server.install(now, self.is_contained, out);
            server.disk(DiskOp::SaveCurrent(self.epoch), out);
        }
        if matches!(self.stage, Stage::Synced | Stage::Live)
            && let Some(link) = self.link
        {
            while let Some(zxid) = self.unacked.pop_front_if(|zxid| *zxid <= server.durable) {
                out.tell_leader(link, &FromLearner::Ack(zxid));
            }
        }
        if self.held.is_empty() && !server.log_is_full {
            self.hold(false, out);
        }
    }

    // What the replica hands on.

    /// Hands a client's request on to the leader.
    pub fn forward(&self, request: Forwarded, out: &mut Outputs) {
        if let Some(link) = self.link.filter(|_| self.is_live()) {
            out.tell_leader(link, &FromLearner::Request(request));
        }
    }

    /// Asks the leader whether a session is alive, and gives it a timeout in milliseconds.
    pub fn revalidate(&self, session: crate::model::SessionId, timeout_ms: i32, out: &mut Outputs) {
        if let Some(link) = self.link.filter(|_| self.is_live()) {
            out.tell_leader(link, &FromLearner::Revalidate { session, timeout_ms });
        }
    }

    /// Answers the leader's ping of `zxid` with the sessions that were active, and their timeouts in milliseconds.
    /// A leader of this kind hears at the end of them whether this server has room.
    pub fn pong(
        &self,
        zxid: Zxid,
        mut touched: Vec<(crate::model::SessionId, i32)>,
        server: &Server,
        out: &mut Outputs,
    ) {
        if self.hears_pleas && server.room != Room::Enough {
            touched.push(NO_ROOM);
        }
        if let Some(link) = self.link.filter(|_| self.is_live()) {
            out.tell_leader(link, &FromLearner::Ping { zxid, touched });
        }
    }

    // Time.

    pub(super) fn on_tick(&mut self, now: u64, server: &mut Server, out: &mut Outputs) {
        if self.stage == Stage::Over {
            return;
        }
        if self.doubted_until.is_some_and(|until| now >= until) {
            server.tree = Tree::Wrong;
            return self.lose(LostWhy::TreeDiffers(self.leader), out);
        }
        if server.room == Room::Out && server.log_is_full {
            return self.lose(LostWhy::NoRoomToLearn, out);
        }
        if let Stage::Dialing { retry_at: Some(at) } = self.stage
            && now >= at
        {
            if self.dials >= DIALS || now >= self.give_up_at {
                return self.lose(LostWhy::Unreachable(self.leader), out);
            }
            self.dials += 1;
            self.stage = Stage::Dialing { retry_at: None };
            out.dial = Some(self.leader);
        }
        // The bytes of a snapshot are the driver's to watch; work on the own disk is not the leader's fault.
        let own_work = matches!(self.stage, Stage::Receiving(_)) || !server.disk_is_idle();
        if now >= self.deadline && !own_work {
            self.lose(LostWhy::LeaderSilent(self.leader), out);
        }
    }

    pub(super) fn next_wake(&self) -> u64 {
        let wake = match self.stage {
            Stage::Over => return u64::MAX,
            Stage::Dialing { retry_at } => retry_at.unwrap_or(self.give_up_at),
            Stage::Introduced
            | Stage::Accepting
            | Stage::Accepted
            | Stage::Truncating
            | Stage::Receiving(_)
            | Stage::Staging
            | Stage::Wiping
            | Stage::Syncing
            | Stage::Flushing(_)
            | Stage::Entering
            | Stage::Synced
            | Stage::Live => self.deadline,
        };
        self.doubted_until.map_or(wake, |until| until.min(wake))
    }

    pub(super) fn end(self, out: &mut Outputs) {
        if let Some(link) = self.link {
            out.close(link, CloseWhy::TermOver);
        }
    }
}
