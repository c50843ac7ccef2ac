//! The leader's part (`server/quorum/Leader`, `LearnerHandler`): it opens an epoch with a quorum, brings its learners
//! up to date, and proposes.

mod gathering;
mod links;
mod packets;
mod synchronization;
mod syncs;
mod window;

use self::gathering::{Gathering, Memory};
pub(super) use self::links::Stage;
use self::links::{Links, Question};
pub use self::packets::MAX_EPOCHS_AHEAD;
use self::syncs::Sync;
use super::broadcast::Broadcast;
use super::{CloseWhy, DiskDone, DiskOp, Entry, Event, LOOKS_MS, LinkAction, LostWhy, Next, Outputs, Server};
use crate::ensemble::Ensemble;
use crate::model::{Epoch, LinkId, ServerId, SessionId, Zxid};
use crate::wire::quorum::FromLeader;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Phase {
    /// A quorum has to connect, so that the new epoch is later than all that they accepted.
    Discovery,
    /// The new epoch is on its way to the disk.
    AcceptingEpoch,
    /// A quorum has to accept it, and show that nobody of it has more than this leader.
    EpochAcks,
    /// A quorum has to have this leader's history on disk.
    Synchronization,
    Broadcast,
    /// The term is over: nothing that comes is looked at any more.
    Over,
}

/// A leader's term, from the election that chose it to its end.
#[derive(Debug)]
pub struct Leader {
    epoch: Epoch,
    phase: Phase,
    /// The phase must be over by then.
    deadline: u64,
    /// What this server had when the term began.
    summary: (Epoch, Zxid),
    connecting: Gathering,
    electing: Gathering,
    synced: BTreeSet<ServerId>,
    links: Links,
    broadcast: Broadcast,
    /// Proposals received while a reconfiguration is pending. They wait until it commits. Otherwise a new voter could hold
    /// more than every old voter, and the old voters, which do not know it, could never elect it.
    held: VecDeque<Entry>,
    committed: Zxid,
    /// False once a reconfiguration gave the lead to somebody else.
    commits: bool,
    syncs: VecDeque<Sync>,
    /// Pings are counted.
    round: u64,
    next_beat: u64,
    /// Pings go out at every beat, deadlines are looked at every second one.
    beats: u64,
    established_at: u64,
    alone: bool,
    /// The newest transaction after which learners have other trees, and the digests of those.
    differing: (Zxid, BTreeMap<ServerId, i64>),
    /// Learners are not read from, as this leader's own log is full.
    holds: bool,
    /// What this leader's own log has to have on disk next, and since when.
    owed_by_log: (Zxid, u64),
    /// What it had on disk when that was last looked at.
    had_by_log: Zxid,
    /// Reading the log for a learner failed: from then on they get what is in memory, or a snapshot.
    log_fails: bool,
    /// The time of the last input: a ping that goes out between two counts as sent then.
    seen_at: u64,
}

impl Leader {
    /// Everything in the log counts as history of this leader: it is delivered.
    pub(super) fn begin(now: u64, server: &mut Server, out: &mut Outputs) -> Self {
        server.deliver_tail(out);
        let mut leader = Self::new(now, server);
        leader.epoch = server.accepted.next().unwrap_or(Epoch::LAST);
        leader.connecting.add(server.me(), Memory::of_epoch(server.accepted));
        leader
    }

    /// Without an ensemble there is nobody to ask.
    pub(super) fn alone(now: u64, server: &Server) -> Self {
        let mut leader = Self::new(now, server);
        leader.epoch = server.log_end.epoch();
        leader.phase = Phase::Broadcast;
        leader.broadcast = Broadcast::new(server.log_end);
        leader.committed = server.log_end;
        leader.alone = true;
        leader
    }

    fn new(now: u64, server: &Server) -> Self {
        Self {
            epoch: server.accepted,
            phase: Phase::Discovery,
            deadline: now + server.settings.init_ms(),
            summary: (server.history_epoch(), server.log_end),
            connecting: Gathering::default(),
            electing: Gathering::default(),
            synced: BTreeSet::new(),
            links: Links::default(),
            broadcast: Broadcast::new(Zxid::ZERO),
            held: VecDeque::new(),
            committed: Zxid::ZERO,
            commits: true,
            syncs: VecDeque::new(),
            round: 0,
            next_beat: now + server.settings.tick_ms / 2,
            beats: 0,
            established_at: now,
            alone: false,
            differing: (Zxid::ZERO, BTreeMap::new()),
            holds: false,
            owed_by_log: (Zxid::ZERO, now),
            had_by_log: Zxid::ZERO,
            log_fails: false,
            seen_at: now,
        }
    }

    pub(super) fn on_accepted(&mut self, now: u64, link: LinkId, server: &Server) {
        self.links.accept(now, link, &server.settings);
    }

    pub(super) fn on_closed(&mut self, link: LinkId, out: &mut Outputs) {
        self.links.on_closed(link, out);
    }

    pub(super) fn drop_link(&mut self, link: LinkId, why: CloseWhy, out: &mut Outputs) {
        self.links.drop(link, why, out);
    }

    /// Bytes that were sent to learners, and that they have not read for sure.
    pub fn bytes_under_way(&self) -> u64 {
        self.links.under_way()
    }

    /// Learners by id, whether they observe, and whether they are synchronized.
    pub fn learners(&self) -> impl Iterator<Item = (ServerId, bool, bool)> {
        self.links.learners()
    }

    /// The epoch that it opens, or has opened.
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// Whether a quorum has its history: it proposes, and clients are served.
    pub fn is_established(&self) -> bool {
        self.phase == Phase::Broadcast
    }

    /// Whether new proposals may be made. Not any more once somebody else is designated.
    pub fn proposes(&self) -> bool {
        self.is_established() && self.commits
    }

    /// The last transaction that it has been given.
    pub fn last_proposed(&self) -> Zxid {
        self.held.back().map_or(self.broadcast.last_proposed(), |entry| entry.zxid)
    }

    /// Proposals that are not committed.
    pub fn outstanding(&self) -> usize {
        self.broadcast.outstanding_len() + self.held.len()
    }

    /// Since when it has been established, in monotonic milliseconds.
    pub fn established_at(&self) -> u64 {
        self.established_at
    }

    /// `sync`s that are not answered.
    pub fn pending_syncs(&self) -> usize {
        self.syncs.len()
    }

    /// The phase by Java's names: `discovery`, `synchronization`, `broadcast`.
    pub fn phase_name(&self) -> &'static str {
        match self.phase {
            Phase::Discovery | Phase::AcceptingEpoch | Phase::EpochAcks | Phase::Over => "discovery",
            Phase::Synchronization => "synchronization",
            Phase::Broadcast => "broadcast",
        }
    }

    /// The zxid of the next proposal; none where this epoch has no more.
    pub fn next_zxid(&self) -> Option<Zxid> {
        self.last_proposed().next()
    }

    /// Alone, an epoch that is used up is followed by the next one: there is nobody to ask.
    pub fn open_next_epoch_alone(&mut self) {
        assert!(self.alone, "an ensemble opens epochs by election");
        self.epoch = Epoch(self.epoch.0 + 1);
        self.broadcast.open_epoch(self.epoch);
    }

    /// Whether it leads an ensemble of one that holds no election.
    pub fn is_alone(&self) -> bool {
        self.alone
    }

    /// Until when this leader answers reads: for `syncLimit` after the sending of what a quorum has answered. Whoever of them
    /// helped to elect another leader did so after that, so what is read here is no older. When their answers were *taken* says
    /// nothing: they may have waited in the sockets of a server that stood still.
    pub fn lease(&self, server: &Server) -> u64 {
        let followed_at = |id: ServerId| self.links.followed_at(id);
        self.of_quorum(server, |id| followed_at(id).map_or(0, |at| at + server.settings.sync_ms()))
    }

    /// Until when a quorum counts as alive: something was heard of it.
    fn hears_quorum_until(&self, server: &Server) -> u64 {
        self.of_quorum(server, |id| self.links.alive_until(id))
    }

    /// The latest time that a quorum of each configuration has reached, where `until` tells that of the others.
    fn of_quorum(&self, server: &Server, until: impl Fn(ServerId) -> u64) -> u64 {
        let until = |id: ServerId| if id == server.me() { u64::MAX } else { until(id) };
        let reached = server.view.required().map(|ensemble| ensemble.reached_by_quorum(until).unwrap_or(0));
        reached.min().unwrap_or(0)
    }

    /// Whether the servers that are synchronized would be enough for `next`. An observer does not acknowledge proposals, and
    /// would not acknowledge the reconfiguration that makes a voter of it; nor will one that has not heard yet that it
    /// became an observer.
    pub fn has_synced_quorum(&self, now: u64, server: &Server, next: &Ensemble) -> bool {
        next.has_quorum(|id| {
            id == server.me() || self.links.has_synced(now, id) && !server.view.committed.is_observer(id)
        })
    }

    pub(super) fn on_disk(&mut self, now: u64, done: &DiskDone, server: &mut Server, out: &mut Outputs) {
        if self.phase == Phase::Over {
            return;
        }
        match done {
            DiskDone::Logged(zxid) => {
                self.broadcast.on_ack(server.me(), *zxid);
                self.hold_learners(server, out);
            }
            DiskDone::AcceptedSaved(epoch) if *epoch == self.epoch && self.phase == Phase::AcceptingEpoch => {
                self.phase = Phase::EpochAcks;
                self.deadline = now + server.settings.init_ms();
                let memory = match server.is_forgetful() {
                    true if server.is_new() => Memory::Blank,
                    true => Memory::Unsure,
                    false => Memory::Whole,
                };
                self.electing.add(server.me(), memory);
                self.version_first_config(server, out);
                for id in self.links.in_stage(Stage::Introduced) {
                    self.inform(now, id, server, out);
                }
            }
            DiskDone::CurrentSaved(epoch) if *epoch == self.epoch => {
                self.synced.insert(server.me());
            }
            DiskDone::AcceptedSaved(_)
            | DiskDone::CurrentSaved(_)
            | DiskDone::DebtSaved
            | DiskDone::Truncated(_)
            | DiskDone::Unmendable
            | DiskDone::Staged(_)
            | DiskDone::Installed
            | DiskDone::Unstaged(_)
            | DiskDone::Wiped
            | DiskDone::ConfigSaved => {}
        }
    }

    /// A configuration that comes from files alone gets the epoch as its version, so that it wins over other files.
    fn version_first_config(&self, server: &mut Server, out: &mut Outputs) {
        let view = &server.view;
        if server.settings.reconfig_enabled && view.committed.version() == 0 && view.pending().is_none() {
            let next = view.committed.with_version(Zxid::new(self.epoch, 0).0);
            server.see(next, out);
        }
    }

    /// Continues to the next phase, or commits, as far as possible.
    pub(super) fn advance(&mut self, now: u64, server: &mut Server, out: &mut Outputs) {
        self.seen_at = now;
        if self.phase == Phase::Over {
            return;
        }
        // There may be no epoch left: then this server opens none.
        let is_new = self.epoch > server.accepted;
        if self.phase == Phase::Discovery && is_new && self.connecting.is_quorum(&server.view) {
            self.phase = Phase::AcceptingEpoch;
            server.disk(DiskOp::SaveAccepted(self.epoch), out);
        }
        if self.phase == Phase::EpochAcks && self.electing.is_quorum(&server.view) {
            self.phase = Phase::Synchronization;
            self.deadline = now + server.settings.init_ms();
            self.broadcast = Broadcast::new(Zxid::new(self.epoch, 0));
            self.committed = Zxid::new(self.epoch, 0);
            server.disk(DiskOp::SaveCurrent(self.epoch), out);
            self.synchronize_all(now, false, server, out);
        }
        let saved = self.synced.contains(&server.me());
        if self.phase == Phase::Synchronization
            && saved
            && server.view.has_quorum(|id| self.synced.contains(&id))
        {
            self.establish(now, server, out);
        }
        if self.phase == Phase::Broadcast {
            self.commit(server, out);
            self.confirm_syncs(server, out);
        }
        self.judge_waiting(now, server, out);
    }

    /// Those that wait for it.
    fn synchronize_all(&mut self, now: u64, promised: bool, server: &Server, out: &mut Outputs) {
        // The newest first: a server's older link goes with it.
        for (id, last) in self.links.accepted(promised).into_iter().rev() {
            if self.links.contains(id) {
                self.synchronize(now, id, last, server, out);
            }
        }
    }

    fn establish(&mut self, now: u64, server: &mut Server, out: &mut Outputs) {
        self.phase = Phase::Broadcast;
        self.established_at = now;
        server.settle_debt(out);
        self.next_beat = now;
        let config = server.view.last_seen.clone();
        let designated = if server.settings.reconfig_enabled {
            let designated = self.designate(&config, Zxid::new(self.epoch, 0), server);
            server.activate(config, out);
            designated
        } else {
            server.me()
        };
        out.events.push_back(Event::Leads(self.epoch));
        for id in self.links.in_stage(Stage::Ready) {
            self.welcome(id, out);
        }
        self.synchronize_all(now, true, server, out);
        if designated != server.me() {
            self.commits = false;
            self.give_up(LostWhy::LeadElsewhere(designated), out);
        }
    }

    /// Who leads in `config`: this server where it may, otherwise a voter that acknowledged up to `zxid`, the one that
    /// has most.
    fn designate(&self, config: &Ensemble, zxid: Zxid, server: &Server) -> ServerId {
        let me = server.me();
        let address = |ensemble: &Ensemble| ensemble.member(me).map(|member| member.addresses.clone());
        let own = address(&server.view.committed).or_else(|| address(&server.view.last_seen));
        if config.is_voter(me) && address(config) == own {
            return me;
        }
        let voters = config.voters().filter(|id| *id != me && config.weight(*id) > 0);
        let acked = |id: &ServerId| if zxid.counter() == 0 { Zxid::ZERO } else { self.broadcast.acked(*id) };
        let has = |id: &ServerId| {
            if zxid.counter() == 0 { self.synced.contains(id) } else { acked(id) >= zxid }
        };
        voters.filter(has).max_by_key(|id| (acked(id), *id)).unwrap_or(me)
    }

    /// To be called with what is next in the epoch.
    pub fn propose(&mut self, entry: Entry, server: &mut Server, out: &mut Outputs) {
        assert!(self.proposes(), "an established leader proposes");
        if self.broadcast.is_reconfiguring() {
            return self.held.push_back(entry);
        }
        let logged = entry.logged();
        let reconfigures = match entry.configuration() {
            Some(config) => {
                server.see(config.expect("prep wrote it"), out);
                true
            }
            None => false,
        };
        self.broadcast.propose(entry, reconfigures);
        let packet = FromLeader::Proposal { zxid: logged.zxid, body: logged.body.clone() };
        self.tell_all(false, &packet, out);
        self.close_windows(server, out);
        server.append(logged, out);
        self.hold_learners(server, out);
    }

    /// While this leader's own log is full nothing is read from learners: the log would have to take what they bring.
    fn hold_learners(&mut self, server: &Server, out: &mut Outputs) {
        if self.holds != server.log_is_full {
            self.holds = server.log_is_full;
            let live = self.links.in_stage(Stage::Live);
            out.links.extend(live.into_iter().map(|id| (id, LinkAction::Hold(self.holds))));
        }
    }

    /// This server stood still for so long, and its disk maybe as well.
    pub fn stood_still(&mut self, ms: u64) {
        self.owed_by_log.1 += ms;
    }

    /// A log that hangs would be everybody's: where the others are a quorum, this leader does by itself as by a learner that does
    /// not acknowledge.
    fn log_hangs(&mut self, now: u64, server: &Server) -> Option<LostWhy> {
        let (zxid, since) = self.owed_by_log;
        if server.durable >= zxid {
            self.owed_by_log = (server.log_end, now);
            return None;
        }
        // What it says may come late where there is much to do. As long as it comes, nothing hangs.
        if std::mem::replace(&mut self.had_by_log, server.durable) != server.durable {
            self.owed_by_log.1 = now;
            return None;
        }
        let ms = now.saturating_sub(since);
        let hangs = ms > server.settings.sync_ms() && server.view.has_quorum(|id| id != server.me());
        hangs.then_some(LostWhy::OwnLogHangs { zxid, ms })
    }

    /// Whether this leader has no room, and the followers could go on without it. Not before those who have none either had time to
    /// say so: where all disks fill together, nobody could do better.
    fn hands_over(&self, now: u64, server: &Server) -> bool {
        let could_lead = |id: ServerId| id != server.me() && self.links.could_lead(now, id);
        server.lacks_room(now)
            && now >= server.room_since + server.settings.tick_ms + LOOKS_MS
            && server.view.has_quorum(could_lead)
    }

    fn commit(&mut self, server: &mut Server, out: &mut Outputs) {
        while self.commits
            && let Some(entry) = self.broadcast.next_committed(&server.view)
        {
            let zxid = entry.zxid;
            self.committed = zxid;
            let logged = entry.logged();
            let reconfig = entry.configuration().map(|config| config.expect("it was proposed"));
            let designated = reconfig.as_ref().map(|config| self.designate(config, zxid, server));
            let body = logged.body.clone();
            match designated {
                Some(leader) => {
                    self.drop_behind(zxid, out);
                    self.tell_all(false, &FromLeader::CommitAndActivate { zxid, leader }, out);
                    self.tell_all(true, &FromLeader::InformAndActivate { zxid, leader, body }, out);
                }
                None => {
                    self.tell_all(false, &FromLeader::Commit(zxid), out);
                    self.tell_all(true, &FromLeader::Inform { zxid, body }, out);
                }
            }
            server.history.push(logged);
            self.close_windows(server, out);
            out.events.push_back(Event::Deliver(entry));
            if let (Some(config), Some(leader)) = (reconfig, designated) {
                server.activate(Arc::new(config), out);
                if leader == server.me() {
                    for entry in std::mem::take(&mut self.held) {
                        self.propose(entry, server, out);
                    }
                } else {
                    self.commits = false;
                    self.phase = Phase::Over;
                    let why = LostWhy::LeadGiven { zxid, leader };
                    out.events.push_back(Event::Lost { why, next: Next::Designated { leader, zxid } });
                }
            }
        }
    }

    /// Answers a learner whether a session that reattaches there is alive.
    pub fn revalidated(&self, link: LinkId, session: SessionId, valid: bool, out: &mut Outputs) {
        if self.links.contains(link) {
            out.tell_learner(link, &FromLeader::Revalidate { session, valid });
        }
    }

    pub(super) fn on_tick(&mut self, now: u64, server: &mut Server, out: &mut Outputs) {
        if self.phase == Phase::Over || self.alone {
            self.next_beat = u64::MAX;
            return;
        }
        self.drop_late(now, server, out);
        if self.phase != Phase::Broadcast {
            // A long synchronization is no reason to begin it again.
            let waits = self.phase == Phase::Synchronization && self.links.is_synchronizing(now);
            if now >= self.deadline && !waits {
                let why = LostWhy::NoQuorumInTime { epoch: self.epoch, phase: self.phase_name() };
                self.give_up(why, out);
            }
            self.next_beat = now + (server.settings.tick_ms / 2).max(1);
            return;
        }
        if now < self.next_beat {
            return;
        }
        self.next_beat = now + (server.settings.tick_ms / 2).max(1);
        self.beats += 1;
        if self.beats.is_multiple_of(2) && self.hears_quorum_until(server) < now {
            return self.give_up(LostWhy::NoQuorum(self.links.alive(now)), out);
        }
        if let Some(why) = self.log_hangs(now, server) {
            return self.give_up(why, out);
        }
        if self.hands_over(now, server) {
            return self.give_up(LostWhy::NoRoomToLead, out);
        }
        self.ping(now, |_, link| matches!(link.stage, Stage::Ready | Stage::Live), out);
    }

    pub(super) fn next_wake(&self) -> u64 {
        self.next_beat
    }

    fn give_up(&mut self, why: LostWhy, out: &mut Outputs) {
        self.phase = Phase::Over;
        out.events.push_back(Event::Lost { why, next: Next::Election });
    }

    /// This leader's own tree is not what it told the others.
    pub(super) fn doubt(&mut self, zxid: Zxid, out: &mut Outputs) -> bool {
        let is_news = self.phase != Phase::Over;
        if is_news {
            self.give_up(LostWhy::OwnTree(zxid), out);
        }
        is_news
    }

    pub(super) fn abandon(&mut self, why: LostWhy, out: &mut Outputs) {
        if self.phase < Phase::Broadcast {
            self.give_up(why, out);
        }
    }

    /// The epoch has no more zxids: another must be opened.
    pub fn roll_over(&mut self, out: &mut Outputs) {
        self.give_up(LostWhy::EpochUsedUp(self.epoch), out);
    }

    pub(super) fn end(self, server: &mut Server, out: &mut Outputs) {
        server.tail.extend(self.broadcast.into_outstanding());
        self.links.end(out);
    }
}
