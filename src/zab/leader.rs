//! The leader's part (`server/quorum/Leader`, `LearnerHandler`): it opens an epoch with a quorum, brings its learners
//! up to date, and proposes.

use super::broadcast::Broadcast;
use super::{
    DiskDone, DiskOp, Entry, Event, Feed, Located, Misbehaved, NO_DATA, Next, Outputs, Place, Server,
};
use crate::ensemble::{Ensemble, View};
use crate::model::{Epoch, LinkId, ServerId, Zxid};
use crate::wire::quorum::{FromLeader, FromLearner, PROTOCOL};
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
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// Has not said who it is.
    Stranger,
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
struct Link {
    stage: Stage,
    sid: ServerId,
    observer: bool,
    /// The next packet has to be there by then, in stages that wait for one.
    deadline: u64,
    /// It counts as alive until then.
    alive_until: u64,
    /// Proposals that it acknowledged before NEWLEADER: old Java followers do. They count once that is acknowledged.
    early_ack: Zxid,
    /// It has to acknowledge this proposal before that time passes.
    checkpoint: (Zxid, u64),
    /// The rounds of pings that it has not answered yet, and the last one that it has.
    pings: VecDeque<u64>,
    heard: u64,
}

impl Link {
    fn is_forwarding(&self) -> bool {
        matches!(self.stage, Stage::Asked | Stage::Ready | Stage::Live)
    }
}

/// What a server can say of what it promised and acknowledged before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Memory {
    /// All of it.
    Whole,
    /// Nothing: it is new, or its disk is.
    Blank,
    /// It knows that something is missing.
    Unsure,
}

impl Memory {
    fn of_epoch(accepted: Epoch) -> Self {
        if accepted.0 > 0 { Self::Whole } else { Self::Blank }
    }
}

/// Servers that take part in opening an epoch.
#[derive(Debug, Default)]
struct Gathering(BTreeMap<ServerId, Memory>);

impl Gathering {
    fn add(&mut self, id: ServerId, memory: Memory) {
        self.0.insert(id, memory);
    }

    /// Whether they are enough. Who has forgotten may have promised or acknowledged something to somebody who is not
    /// here: it counts where everybody is here, or where nobody has anything to remember, as in a new ensemble.
    fn is_quorum(&self, view: &View) -> bool {
        let most = self.0.values().min().copied();
        let counts = match most {
            Some(Memory::Blank) if !self.0.values().any(|memory| *memory == Memory::Unsure) => Memory::Blank,
            _ => Memory::Whole,
        };
        view.has_quorum(|id| self.0.get(&id) == Some(&counts))
            || view.voters().iter().all(|id| self.0.contains_key(id))
    }
}

/// Who asked for a `sync`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Asker {
    Myself,
    Link(LinkId),
}

/// A `sync` is answered behind all that was proposed before it, and once a quorum has answered a ping sent after it: a
/// leader that was deposed without noticing must not answer.
#[derive(Debug)]
struct Sync {
    asker: Asker,
    after: Zxid,
    /// Who has answered a ping of this round, or of a later one, follows still.
    round: u64,
    confirmed: bool,
}

#[derive(Debug)]
pub struct Leader {
    epoch: Epoch,
    phase: Phase,
    /// The phase has to be over by then.
    deadline: u64,
    /// What this server had when the term began.
    summary: (Epoch, Zxid),
    connecting: Gathering,
    electing: Gathering,
    synced: BTreeSet<ServerId>,
    links: BTreeMap<LinkId, Link>,
    broadcast: Broadcast,
    /// What comes behind a reconfiguration that is not committed yet is proposed after that: so a new voter is never ahead
    /// of all old ones, one of whom has to lead if the others know nothing of the new configuration.
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
    over: bool,
    alone: bool,
    /// Reading the log for a learner failed: from then on they get what is in memory, or a snapshot.
    log_fails: bool,
}

impl Leader {
    /// Everything in the log counts as history of this leader: it is delivered.
    pub(super) fn begin(now: u64, server: &mut Server, out: &mut Outputs) -> Self {
        server.deliver_tail(out);
        let mut leader = Self::new(now, server);
        leader.epoch = Epoch(server.accepted.0 + 1);
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
            summary: (server.current, server.log_end),
            connecting: Gathering::default(),
            electing: Gathering::default(),
            synced: BTreeSet::new(),
            links: BTreeMap::new(),
            broadcast: Broadcast::new(Zxid::ZERO),
            held: VecDeque::new(),
            committed: Zxid::ZERO,
            commits: true,
            syncs: VecDeque::new(),
            round: 0,
            next_beat: now + server.settings.tick_ms / 2,
            beats: 0,
            established_at: now,
            over: false,
            alone: false,
            log_fails: false,
        }
    }

    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    pub fn is_established(&self) -> bool {
        self.phase == Phase::Broadcast && !self.over
    }

    /// Whether new proposals may be made. Not any more once somebody else is designated.
    pub fn proposes(&self) -> bool {
        self.is_established() && self.commits
    }

    /// The last transaction that it has been given.
    pub fn last_proposed(&self) -> Zxid {
        self.held.back().map_or(self.broadcast.last_proposed(), |entry| entry.zxid)
    }

    pub fn outstanding(&self) -> usize {
        self.broadcast.outstanding_len() + self.held.len()
    }

    pub fn established_at(&self) -> u64 {
        self.established_at
    }

    pub fn pending_syncs(&self) -> usize {
        self.syncs.len()
    }

    pub fn phase_name(&self) -> &'static str {
        match self.phase {
            Phase::Discovery | Phase::AcceptingEpoch | Phase::EpochAcks => "discovery",
            Phase::Synchronization => "synchronization",
            Phase::Broadcast => "broadcast",
        }
    }

    /// Learners by id, whether they observe, and whether they are synchronized.
    pub fn learners(&self) -> impl Iterator<Item = (ServerId, bool, bool)> {
        let known = self.links.values().filter(|link| link.stage != Stage::Stranger);
        known.map(|link| (link.sid, link.observer, link.stage == Stage::Live))
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

    pub fn is_alone(&self) -> bool {
        self.alone
    }

    /// Until when this leader may be sure that nobody else leads: a quorum has been heard of so lately.
    pub fn lease(&self, server: &Server) -> u64 {
        let until = |id: ServerId| if id == server.me() { u64::MAX } else { self.alive_until(id) };
        let leases = server.view.required().map(|ensemble| ensemble.reached_by_quorum(until).unwrap_or(0));
        leases.min().unwrap_or(0)
    }

    fn alive_until(&self, id: ServerId) -> u64 {
        self.links.values().filter(|link| link.sid == id).map(|link| link.alive_until).max().unwrap_or(0)
    }

    /// Whether the servers that are synchronized would be enough for `next`. An observer does not acknowledge proposals, and
    /// would not acknowledge the reconfiguration that makes a voter of it; nor will one that has not heard yet that it
    /// became an observer.
    pub fn has_synced_quorum(&self, now: u64, server: &Server, next: &Ensemble) -> bool {
        next.has_quorum(|id| {
            let live = |link: &Link| {
                link.sid == id && !link.observer && link.is_forwarding() && link.alive_until >= now
            };
            id == server.me() || self.links.values().any(live) && !server.view.committed.is_observer(id)
        })
    }

    // Links.

    pub(super) fn on_accepted(&mut self, now: u64, link: LinkId, server: &Server) {
        let (init, sync) = (server.settings.init_ms(), server.settings.sync_ms());
        let stranger = Link {
            stage: Stage::Stranger,
            sid: ServerId(i64::MIN),
            observer: false,
            deadline: now + init,
            alive_until: now + init + sync,
            early_ack: Zxid(i64::MIN),
            checkpoint: (Zxid(i64::MIN), 0),
            pings: VecDeque::new(),
            heard: 0,
        };
        self.links.insert(link, stranger);
    }

    pub(super) fn drop_link(&mut self, link: LinkId, why: impl Into<String>, out: &mut Outputs) {
        if self.links.remove(&link).is_some() {
            out.close(link, why);
            out.events.push_back(Event::LinkGone(link));
        }
    }

    pub(super) fn on_closed(&mut self, link: LinkId, out: &mut Outputs) {
        if self.links.remove(&link).is_some() {
            out.events.push_back(Event::LinkGone(link));
        }
    }

    pub(super) fn on_packet(
        &mut self,
        now: u64,
        id: LinkId,
        packet: FromLearner,
        server: &mut Server,
        out: &mut Outputs,
    ) -> Result<(), Misbehaved> {
        let Some(link) = self.links.get_mut(&id) else { return Ok(()) };
        link.alive_until = link.alive_until.max(now + server.settings.sync_ms());
        match packet {
            FromLearner::Info { observer, accepted, id: sid, protocol, config_version } => {
                self.on_info(now, id, observer, accepted, sid, protocol, config_version, server, out)
            }
            FromLearner::AckEpoch { current, last } => self.on_ack_epoch(now, id, current, last, server, out),
            FromLearner::Ack(zxid) => self.on_ack(now, id, zxid, server, out),
            FromLearner::Ping { touched, .. } => {
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
            FromLearner::Unknown(_) => Ok(()),
        }
    }

    fn require_live(&self, id: LinkId, packet: &str) -> Result<(), Misbehaved> {
        match self.links.get(&id).map(|link| link.stage) {
            Some(Stage::Live) => Ok(()),
            other => Err(Misbehaved(format!("{packet} in stage {other:?}"))),
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
    ) -> Result<(), Misbehaved> {
        let committed = server.view.committed.version();
        let link = self.links.get_mut(&id).expect("the caller looked");
        if link.stage != Stage::Stranger {
            return Err(Misbehaved("FOLLOWERINFO twice".into()));
        }
        if !server.admits(sid) {
            return Err(Misbehaved(format!(
                "server {sid} is in no configuration; learners.allow may name it"
            )));
        }
        if protocol < PROTOCOL {
            return Err(Misbehaved(format!(
                "server {sid} speaks protocol {protocol:#x}, older than ZAB 1.0"
            )));
        }
        if !(0..i64::from(i32::MAX)).contains(&accepted.0) {
            return Err(Misbehaved(format!("server {sid} accepted epoch {accepted}")));
        }
        if config_version > committed {
            return Err(Misbehaved(format!(
                "server {sid} has configuration {config_version:x}, later than {committed:x}"
            )));
        }
        link.sid = sid;
        link.observer = observer;
        link.stage = Stage::Introduced;
        if self.phase >= Phase::EpochAcks {
            if accepted > self.epoch && server.view.is_voter(sid) {
                // It can never follow this epoch. A later one takes it in.
                self.give_up(
                    format!("server {sid} accepted epoch {accepted}, later than {}", self.epoch),
                    out,
                );
                return Ok(());
            }
            self.inform(now, id, server, out);
        } else if self.phase == Phase::Discovery {
            self.epoch = self.epoch.max(Epoch(accepted.0 + 1));
            if server.view.is_voter(sid) {
                self.connecting.add(sid, Memory::of_epoch(accepted));
            }
        }
        Ok(())
    }

    fn inform(&mut self, now: u64, id: LinkId, server: &Server, out: &mut Outputs) {
        let link = self.links.get_mut(&id).expect("the caller has it");
        link.stage = Stage::Informed;
        link.deadline = now + server.settings.init_ms();
        out.tell_learner(id, &FromLeader::LeaderInfo { epoch: self.epoch, protocol: PROTOCOL });
    }

    fn on_ack_epoch(
        &mut self,
        now: u64,
        id: LinkId,
        current: Option<Epoch>,
        last: Zxid,
        server: &Server,
        out: &mut Outputs,
    ) -> Result<(), Misbehaved> {
        let link = self.links.get_mut(&id).expect("the caller looked");
        if link.stage != Stage::Informed {
            return Err(Misbehaved(format!("ACKEPOCH in stage {:?}", link.stage)));
        }
        if last < NO_DATA {
            return Err(Misbehaved(format!("ACKEPOCH with zxid {last}")));
        }
        link.stage = Stage::Accepted { last };
        if self.phase > Phase::EpochAcks {
            self.synchronize(now, id, last, server, out);
            return Ok(());
        }
        // Without an epoch it has accepted this one before: it does not count twice.
        if let Some(current) = current {
            let (epoch, zxid) = self.summary;
            // The last transaction tells the whole history: with the same one it is not ahead, whatever leader it had
            // that history from.
            if (current, last) > self.summary && last != zxid {
                return Err(Misbehaved(format!(
                    "server {} is ahead: epoch {current}, zxid {last}, where this leader has {epoch}, {zxid}",
                    link.sid
                )));
            }
            let memory = match last {
                NO_DATA => Memory::Unsure,
                _ if last == Zxid::ZERO && current.0 <= 0 => Memory::Blank,
                _ => Memory::Whole,
            };
            if server.view.is_voter(link.sid) {
                self.electing.add(link.sid, memory);
            }
        }
        Ok(())
    }

    // Synchronization.

    /// Decides how the learner gets this leader's history, and begins.
    fn synchronize(&mut self, now: u64, id: LinkId, last: Zxid, server: &Server, out: &mut Outputs) {
        // It may be told to cut off what it acknowledged on an earlier connection.
        let sid = self.links[&id].sid;
        self.broadcast.forget(sid);
        let old = self.links.iter().filter(|(other, link)| **other != id && link.sid == sid);
        for old in old.map(|(old, _)| *old).collect::<Vec<_>>() {
            self.drop_link(old, "its server has connected anew", out);
        }
        if server.settings.force_snapshot_sync || last == NO_DATA {
            return self.feed(now, id, Feed::Snapshot, server, out);
        }
        match server.history.place(last) {
            Place::Within => {
                out.tell_learner(id, &FromLeader::Diff(server.history.end()));
                self.catch_up(now, id, last, server, out);
            }
            Place::Behind(before) if may_truncate(last, before) => {
                out.tell_learner(id, &FromLeader::Trunc(before));
                self.catch_up(now, id, before, server, out);
            }
            Place::Behind(_) => self.feed(now, id, Feed::Snapshot, server, out),
            Place::Older if server.settings.disk_sync && !self.log_fails => {
                self.feed(now, id, Feed::Locate(last), server, out)
            }
            Place::Older => self.feed(now, id, Feed::Snapshot, server, out),
        }
    }

    fn feed(&mut self, now: u64, id: LinkId, feed: Feed, server: &Server, out: &mut Outputs) {
        let link = self.links.get_mut(&id).expect("the caller has it");
        link.stage = match feed {
            Feed::Locate(last) => Stage::Locating { last },
            Feed::Log { .. } => Stage::Feeding { snapshot: false },
            Feed::Snapshot => Stage::Feeding { snapshot: true },
        };
        link.deadline = now + server.settings.init_ms();
        out.feed(id, feed);
    }

    pub(super) fn on_located(
        &mut self,
        now: u64,
        id: LinkId,
        found: Located,
        server: &Server,
        out: &mut Outputs,
    ) {
        let Some(Stage::Locating { last }) = self.links.get(&id).map(|link| link.stage) else { return };
        let upto = server.history.end();
        match found {
            Located::Within => {
                out.tell_learner(id, &FromLeader::Diff(upto));
                self.feed(now, id, Feed::Log { after: last, upto }, server, out);
            }
            Located::Behind(before) if may_truncate(last, before) => {
                out.tell_learner(id, &FromLeader::Trunc(before));
                self.feed(now, id, Feed::Log { after: before, upto }, server, out);
            }
            Located::Behind(_) | Located::Unusable => self.feed(now, id, Feed::Snapshot, server, out),
        }
    }

    pub(super) fn on_fed(&mut self, now: u64, id: LinkId, upto: Zxid, server: &Server, out: &mut Outputs) {
        if let Some(Stage::Feeding { .. }) = self.links.get(&id).map(|link| link.stage) {
            self.catch_up(now, id, upto, server, out);
        }
    }

    pub(super) fn on_feed_failed(
        &mut self,
        now: u64,
        id: LinkId,
        why: String,
        server: &Server,
        out: &mut Outputs,
    ) {
        match self.links.get(&id).map(|link| link.stage) {
            Some(Stage::Locating { .. }) => self.feed(now, id, Feed::Snapshot, server, out),
            // It has a part of it: it starts again from there, or from the beginning.
            Some(Stage::Feeding { snapshot }) => {
                self.log_fails |= !snapshot;
                self.drop_link(id, why, out);
            }
            _ => {}
        }
    }

    /// The learner has everything up to `position`. What is in memory follows at once, and then it takes part: no
    /// transaction can come between, as nothing else happens meanwhile.
    fn catch_up(&mut self, now: u64, id: LinkId, position: Zxid, server: &Server, out: &mut Outputs) {
        let history = &server.history;
        let is_much = |bytes: usize| bytes > server.settings.max_catch_up_bytes && !self.log_fails;
        if history.place(position) == Place::Older || is_much(history.bytes_after(position)) {
            let upto = server.history.end();
            return self.feed(now, id, Feed::Log { after: position, upto }, server, out);
        }
        for entry in server.history.after(position) {
            let (zxid, body) = (entry.zxid, entry.body.clone());
            out.tell_learner(id, &FromLeader::Proposal { zxid, body });
            out.tell_learner(id, &FromLeader::Commit(zxid));
        }
        let link = self.links.get_mut(&id).expect("the caller has it");
        if !link.observer {
            for entry in self.broadcast.outstanding() {
                let (zxid, body) = (entry.zxid, entry.body.clone());
                out.tell_learner(id, &FromLeader::Proposal { zxid, body });
            }
        }
        // The learner takes it for committed at UPTODATE. That is so of all that this leader began with, as UPTODATE
        // comes behind the NEWLEADER quorum; what is proposed since then has its own commit.
        let config = match self.phase {
            Phase::Broadcast => &server.view.committed,
            _ => &server.view.last_seen,
        };
        let zxid = Zxid::new(self.epoch, 0);
        out.tell_learner(id, &FromLeader::NewLeader { zxid, config: Some(config.to_string().into()) });
        link.stage = Stage::Asked;
        link.deadline = now + server.settings.init_ms();
    }

    fn on_ack(
        &mut self,
        now: u64,
        id: LinkId,
        zxid: Zxid,
        server: &Server,
        out: &mut Outputs,
    ) -> Result<(), Misbehaved> {
        let opens = zxid == Zxid::new(self.epoch, 0);
        let last = self.broadcast.last_proposed();
        let link = self.links.get_mut(&id).expect("the caller looked");
        match link.stage {
            Stage::Asked if opens => {
                link.stage = Stage::Ready;
                link.alive_until = now + server.settings.sync_ms();
                link.checkpoint = (last, now);
                let (sid, early) = (link.sid, link.early_ack);
                self.synced.insert(sid);
                if !self.links[&id].observer {
                    self.broadcast.on_ack(sid, early);
                }
                if self.phase == Phase::Broadcast {
                    self.welcome(id, out);
                }
                Ok(())
            }
            Stage::Asked | Stage::Ready | Stage::Live if zxid > last && zxid.counter() != 0 => {
                Err(Misbehaved(format!("an ACK of {zxid}, where {last} is the last proposal")))
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
            other => Err(Misbehaved(format!("an ACK in stage {other:?}"))),
        }
    }

    fn welcome(&mut self, id: LinkId, out: &mut Outputs) {
        self.links.get_mut(&id).expect("the caller has it").stage = Stage::Live;
        out.tell_learner(id, &FromLeader::UpToDate);
    }

    pub(super) fn on_disk(&mut self, now: u64, done: &DiskDone, server: &mut Server, out: &mut Outputs) {
        match done {
            DiskDone::Logged(zxid) => self.broadcast.on_ack(server.me(), *zxid),
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
                let waiting = self.links.iter().filter(|(_, link)| link.stage == Stage::Introduced);
                for id in waiting.map(|(id, _)| *id).collect::<Vec<_>>() {
                    self.inform(now, id, server, out);
                }
            }
            DiskDone::CurrentSaved(epoch) if *epoch == self.epoch => {
                self.synced.insert(server.me());
            }
            _ => {}
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

    // Progress.

    /// Goes on to the next phase, or commits, as far as possible.
    pub(super) fn advance(&mut self, now: u64, server: &mut Server, out: &mut Outputs) {
        if self.over {
            return;
        }
        if self.phase == Phase::Discovery && self.connecting.is_quorum(&server.view) {
            self.phase = Phase::AcceptingEpoch;
            server.disk(DiskOp::SaveAccepted(self.epoch), out);
        }
        if self.phase == Phase::EpochAcks && self.electing.is_quorum(&server.view) {
            self.phase = Phase::Synchronization;
            self.deadline = now + server.settings.init_ms();
            self.broadcast = Broadcast::new(Zxid::new(self.epoch, 0));
            self.committed = Zxid::new(self.epoch, 0);
            server.disk(DiskOp::SaveCurrent(self.epoch), out);
            let accepted = self.links.iter().filter_map(|(id, link)| match link.stage {
                Stage::Accepted { last } => Some((*id, last)),
                _ => None,
            });
            // The newest first: a server's older link goes with it.
            for (id, last) in accepted.collect::<Vec<_>>().into_iter().rev() {
                if self.links.contains_key(&id) {
                    self.synchronize(now, id, last, server, out);
                }
            }
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
    }

    fn establish(&mut self, now: u64, server: &mut Server, out: &mut Outputs) {
        self.phase = Phase::Broadcast;
        self.established_at = now;
        server.is_proven(out);
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
        let ready = self.links.iter().filter(|(_, link)| link.stage == Stage::Ready);
        for id in ready.map(|(id, _)| *id).collect::<Vec<_>>() {
            self.welcome(id, out);
        }
        if designated != server.me() {
            self.commits = false;
            self.give_up("the configuration gives the lead to somebody else".into(), out);
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
        let followers = self.links.iter().filter(|(_, link)| link.is_forwarding() && !link.observer);
        let packet = FromLeader::Proposal { zxid: logged.zxid, body: logged.body.clone() };
        out.tell_learners(followers.map(|(id, _)| *id), &packet);
        server.append(logged, out);
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
            let links = |observers: bool| {
                let these = move |link: &Link| link.is_forwarding() && link.observer == observers;
                self.links.iter().filter(move |(_, link)| these(link)).map(|(id, _)| *id)
            };
            let body = logged.body.clone();
            match designated {
                Some(leader) => {
                    out.tell_learners(links(false), &FromLeader::CommitAndActivate { zxid, leader });
                    out.tell_learners(links(true), &FromLeader::InformAndActivate { zxid, leader, body });
                }
                None => {
                    out.tell_learners(links(false), &FromLeader::Commit(zxid));
                    out.tell_learners(links(true), &FromLeader::Inform { zxid, body });
                }
            }
            server.history.push(logged);
            out.events.push_back(Event::Deliver(entry));
            if let (Some(config), Some(leader)) = (reconfig, designated) {
                server.activate(Arc::new(config), out);
                if leader == server.me() {
                    for entry in std::mem::take(&mut self.held) {
                        self.propose(entry, server, out);
                    }
                } else {
                    self.commits = false;
                    self.over = true;
                    let why = format!("reconfiguration {zxid} gave the lead to server {leader}");
                    out.events.push_back(Event::Lost { why, next: Next::Designated { leader, zxid } });
                }
            }
        }
    }

    // sync.

    /// A learner's `sync`.
    pub fn sync_for(&mut self, link: LinkId, server: &Server, out: &mut Outputs) {
        self.sync(Asker::Link(link), server, out);
    }

    /// This server's own; answered by [`Event::SyncReady`].
    pub fn sync_for_myself(&mut self, server: &Server, out: &mut Outputs) {
        self.sync(Asker::Myself, server, out);
    }

    fn sync(&mut self, asker: Asker, server: &Server, out: &mut Outputs) {
        let after = self.last_proposed();
        self.ping(|stage| stage == Stage::Live, out);
        self.syncs.push_back(Sync { asker, after, round: self.round, confirmed: false });
        self.confirm_syncs(server, out);
    }

    /// A learner answers each ping, in order; none before UPTODATE.
    fn ping(&mut self, whom: impl Fn(Stage) -> bool, out: &mut Outputs) {
        self.round += 1;
        let mut pinged = Vec::new();
        for (id, link) in self.links.iter_mut().filter(|(_, link)| whom(link.stage)) {
            if link.stage == Stage::Live {
                link.pings.push_back(self.round);
            }
            pinged.push(*id);
        }
        out.tell_learners(pinged.into_iter(), &FromLeader::Ping(self.broadcast.last_proposed()));
    }

    fn confirm_syncs(&mut self, server: &Server, out: &mut Outputs) {
        let links = &self.links;
        for sync in &mut self.syncs {
            // A later one's pongs confirm this one too, but not the other way round: stop at the first that waits.
            if !sync.confirmed {
                let answered = |id: ServerId| {
                    id == server.me() || links.values().any(|link| link.sid == id && link.heard >= sync.round)
                };
                sync.confirmed = server.view.has_quorum(answered);
            }
            if !sync.confirmed {
                break;
            }
        }
        while let Some(sync) = self.syncs.pop_front_if(|sync| sync.confirmed && sync.after <= self.committed)
        {
            match sync.asker {
                Asker::Myself => out.events.push_back(Event::SyncReady),
                Asker::Link(link) if self.links.contains_key(&link) => {
                    out.tell_learner(link, &FromLeader::Sync);
                }
                Asker::Link(_) => {}
            }
        }
    }

    pub fn revalidated(
        &self,
        link: LinkId,
        session: crate::model::SessionId,
        valid: bool,
        out: &mut Outputs,
    ) {
        if self.links.contains_key(&link) {
            out.tell_learner(link, &FromLeader::Revalidate { session, valid });
        }
    }

    // Time.

    pub(super) fn on_tick(&mut self, now: u64, server: &mut Server, out: &mut Outputs) {
        if self.over || self.alone {
            self.next_beat = u64::MAX;
            return;
        }
        self.drop_late(now, server, out);
        if self.phase != Phase::Broadcast {
            let busy = |link: &Link| match link.stage {
                Stage::Feeding { .. } | Stage::Locating { .. } => true,
                Stage::Asked => link.deadline > now,
                _ => false,
            };
            // A long synchronization is no reason to begin it again.
            let waits = self.phase == Phase::Synchronization && self.links.values().any(busy);
            if now >= self.deadline && !waits {
                let why = format!("no quorum for epoch {} in time: {}", self.epoch, self.phase_name());
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
        if self.beats.is_multiple_of(2) && self.lease(server) < now {
            let alive: Vec<_> = self.links.values().filter(|link| link.alive_until >= now).collect();
            let alive: Vec<String> = alive.iter().map(|link| link.sid.to_string()).collect();
            return self.give_up(format!("no quorum follows any more, only [{}]", alive.join(", ")), out);
        }
        self.ping(|stage| matches!(stage, Stage::Ready | Stage::Live), out);
    }

    /// Links whose other side is late: with a packet, with an ACK, or with anything at all.
    fn drop_late(&mut self, now: u64, server: &Server, out: &mut Outputs) {
        let (last, patience) = (self.broadcast.last_proposed(), server.settings.sync_ms());
        let mut late = Vec::new();
        for (id, link) in &mut self.links {
            let why = match link.stage {
                Stage::Stranger | Stage::Informed | Stage::Asked if now >= link.deadline => {
                    Some(format!("server {} is late in stage {:?}", link.sid, link.stage))
                }
                Stage::Ready | Stage::Live if now > link.alive_until => {
                    Some(format!("server {} is silent", link.sid))
                }
                Stage::Ready | Stage::Live if !link.observer => {
                    if self.broadcast.acked(link.sid) >= link.checkpoint.0 || link.checkpoint.0.counter() == 0
                    {
                        link.checkpoint = (last, now);
                        None
                    } else {
                        let waited = now.saturating_sub(link.checkpoint.1);
                        (waited > patience).then(|| {
                            format!("server {} does not acknowledge {}", link.sid, link.checkpoint.0)
                        })
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

    pub(super) fn next_wake(&self) -> u64 {
        self.next_beat
    }

    fn give_up(&mut self, why: String, out: &mut Outputs) {
        self.over = true;
        out.events.push_back(Event::Lost { why, next: Next::Election });
    }

    /// The epoch has no more zxids: another has to be opened.
    pub fn roll_over(&mut self, out: &mut Outputs) {
        self.give_up(format!("epoch {} has no more zxids", self.epoch), out);
    }

    pub(super) fn end(self, server: &mut Server, out: &mut Outputs) {
        server.tail.extend(self.broadcast.into_outstanding());
        for id in self.links.into_keys() {
            out.close(id, "the term is over");
            out.events.push_back(Event::LinkGone(id));
        }
    }
}

/// A learner may be told to cut its log only behind a transaction that it has logged for sure: one of the same epoch as
/// its last. What opens an epoch is in no log.
fn may_truncate(last: Zxid, before: Zxid) -> bool {
    before.epoch() == last.epoch() && before.counter() != 0
}
