//! ZAB, ZooKeeper's atomic broadcast: discovery, synchronization and broadcast, as leader, follower and observer
//! (`server/quorum`). Values in, values out; no I/O, no clock.
//!
//! A [`Zab`] has a [`Server`], what is kept from term to term, and at most one term: [`Leader`] or [`Learner`]. Packets,
//! what the disk has done, and time come in; packets, work for the disk, and [`Event`]s for the replica come out.

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

mod broadcast;
mod errors;
mod history;
mod leader;
mod learner;
mod outputs;
#[cfg(test)]
pub(crate) mod tests;

pub use errors::{CloseWhy, Foreign, LeaderMisbehaved, LearnerMisbehaved, LostWhy};
pub use history::History;
pub use leader::{Leader, MAX_EPOCHS_AHEAD};
pub use learner::{DESIGNATED, Learner};
pub use outputs::{ConfigFile, DiskDone, DiskOp, Event, Feed, LinkAction, Located, Next, Outputs, Reader};

use crate::ensemble::{Ensemble, View};
use crate::jute::DecodeError;
use crate::model::{Debt, Epoch, LinkId, Room, ServerId, SessionId, TxnMark, Zxid};
use crate::wire::quorum::{FromLeader, FromLearner};
use crate::wire::txn::{Txn, TxnBody};
use bytes::{Bytes, BytesMut};
use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

/// A transaction for the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogEntry {
    /// Its zxid.
    pub zxid: Zxid,
    /// Header, record and digest: what the log frames and PROPOSAL packets carry.
    pub body: Bytes,
}

/// A transaction that is not applied yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its zxid.
    pub zxid: Zxid,
    /// The transaction.
    pub txn: Txn,
    /// Its encoding.
    pub body: Bytes,
}

impl Entry {
    /// Encodes a transaction.
    pub fn new(txn: Txn) -> Self {
        let mut body = BytesMut::with_capacity(txn.encoded_len());
        txn.encode(&mut body);
        Self { zxid: Zxid(txn.header.zxid), txn, body: body.freeze() }
    }

    /// Takes a PROPOSAL's body. An error if it is no transaction.
    pub fn decode(body: Bytes) -> Result<Self, DecodeError> {
        let txn = Txn::decode(body.clone())?;
        Ok(Self { zxid: Zxid(txn.header.zxid), txn, body })
    }

    /// The same, for the log.
    pub fn logged(&self) -> LogEntry {
        LogEntry { zxid: self.zxid, body: self.body.clone() }
    }

    /// Whose request it came from.
    pub fn session(&self) -> SessionId {
        SessionId(self.txn.header.client_id)
    }

    /// The configuration that this transaction proposes, where it does.
    fn configuration(&self) -> Option<Result<Ensemble, LeaderMisbehaved>> {
        let TxnBody::Reconfig(txn) = &self.txn.body else { return None };
        let text = txn.data.as_deref().unwrap_or_default();
        Some(parse_config(text))
    }
}

/// Whether a server whose log ends there can have acknowledged the proposal of this configuration: its version is the zxid
/// of that, or the epoch in which a leader began with what stood in files.
pub fn is_in_log(config: &Ensemble, last: Zxid, current: Epoch) -> bool {
    Zxid(config.version()) <= last.max(Zxid::new(current, 0))
}

fn parse_config(text: &[u8]) -> Result<Ensemble, LeaderMisbehaved> {
    Ok(Ensemble::parse(std::str::from_utf8(text)?)?)
}

/// Who besides the configured servers may learn.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Strangers {
    /// Nobody.
    Refused,
    /// A server that is about to join by a reconfiguration is in nobody's configuration yet.
    Allowed,
    /// Those with these ids (`learners.allow`).
    Named(BTreeSet<ServerId>),
}

/// What the protocol needs to know of the configuration.
#[derive(Debug, Clone)]
pub struct Settings {
    /// This server's id.
    pub me: ServerId,
    /// Milliseconds of a tick (`tickTime`).
    pub tick_ms: u64,
    /// In ticks, as `zoo.cfg` has them.
    pub init_limit: u64,
    /// In ticks, how long a learner may be silent (`syncLimit`).
    pub sync_limit: u64,
    /// In ticks, how long a learner tries to connect (`connectToLearnerMasterLimit`).
    pub connect_limit: u64,
    /// Reconfigurations are allowed (`reconfigEnabled`).
    pub reconfig_enabled: bool,
    /// Who besides the configured servers may learn.
    pub strangers: Strangers,
    /// Always SNAP (`forceSnapshotSync`).
    pub force_snapshot_sync: bool,
    /// DIFF from the log on disk (`snapshotSizeFactor` ≥ 0).
    pub disk_sync: bool,
    /// Committed transactions that stay in memory at the least, and their bytes at the most.
    pub history_entries: usize,
    /// The bytes beyond which it is no more than those.
    pub history_bytes: usize,
    /// The bytes beyond which it is not even those.
    pub history_most: usize,
    /// Bytes that may be under way to a learner: more is sent as it takes it.
    pub window_bytes: u64,
    /// Bytes on their way to the log beyond which a learner stops reading from its leader, and a leader from its learners.
    pub max_unlogged_bytes: usize,
    /// Transactions after which an epoch is used up. There are never more than its counter can count.
    pub epoch_len: u32,
}

impl Settings {
    fn init_ms(&self) -> u64 {
        self.init_limit * self.tick_ms
    }

    fn sync_ms(&self) -> u64 {
        self.sync_limit * self.tick_ms
    }
}

/// What recovery found.
#[derive(Debug, Clone)]
pub struct Position {
    /// The epoch of `acceptedEpoch`.
    pub accepted: Epoch,
    /// The epoch of `currentEpoch`.
    pub current: Epoch,
    /// The last transaction of the log or the snapshot; all of them are in the database.
    pub last: Zxid,
    /// The newest transactions of the log, without a gap up to `last`.
    pub recent: Vec<LogEntry>,
    /// What this server has acknowledged and lost.
    pub debt: Debt,
    /// It has nothing, and may not take part until an established leader gave it everything (`db.autocreate=false`).
    pub abstains: bool,
    /// The files state another tree than they give.
    pub tree_differs: bool,
    /// All up to here was committed for sure, whatever came after.
    pub committed: Zxid,
}

/// How a server thinks of its own tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tree {
    /// It is the one that its history gives.
    Right,
    /// It is not, though the history is whole: this server serves nobody, leads nobody, and takes a snapshot.
    Wrong,
    /// It was replaced. Where it differs again before this time (monotonic milliseconds), the digests differ rather than
    /// the trees, and another snapshot would not help.
    Replaced {
        /// Monotonic milliseconds.
        until: u64,
    },
}

/// What a tree that has another digest than its leader's means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Doubt {
    /// This server stops serving, and takes a snapshot from a leader.
    Replace,
    /// It was replaced a short while ago, or there is nobody to take a snapshot from.
    ServeOn {
        /// The transactions that showed it since this was last logged.
        count: u64,
    },
}

/// How often the log says that a tree differs that cannot be replaced, in milliseconds.
const TELL_DOUBT_EVERY_MS: u64 = 60_000;

/// Milliseconds in which each server looks at its disk.
const LOOKS_MS: u64 = 1000;

/// So long a server without room leads, where nobody else did when it could, in milliseconds.
const DOES_WITHOUT_ROOM_MS: u64 = 600_000;

/// So long a tree is not replaced twice, in milliseconds.
const REPLACED_MS: u64 = 600_000;

/// What a server had before it was sent a snapshot, and has again if the leader's history does not come through.
#[derive(Debug)]
struct Kept {
    log_end: Zxid,
    last_seen: Arc<Ensemble>,
}

/// What a server keeps from term to term.
#[derive(Debug)]
pub struct Server {
    /// What does not change.
    pub settings: Settings,
    /// The configurations that count.
    pub view: View,
    /// No leader of an older epoch is followed. On disk.
    pub accepted: Epoch,
    /// The epoch of the last leader whose history this server has. On disk.
    pub current: Epoch,
    /// The last transaction that was handed to the log.
    pub log_end: Zxid,
    /// The last transaction that the log has on disk.
    pub durable: Zxid,
    /// What is committed, or was found after a restart; the database has it.
    pub history: History,
    /// Behind that: in the log, and not known to be committed.
    pub tail: VecDeque<Entry>,
    /// What this server has acknowledged and lost. On disk.
    pub debt: Debt,
    /// It takes no part in elections until a leader has given it everything.
    pub abstains: bool,
    /// How it thinks of its tree.
    pub tree: Tree,
    /// What this process found on its disk was committed up to here, for sure.
    pub committed_at_start: Zxid,
    /// When the log says again that a tree differs that cannot be replaced, and how many transactions showed it since the last time.
    tell_doubt_at: u64,
    untold_doubts: u64,
    /// From then on it may give way again to servers that have a history, [`WAYS`] times.
    gives_way_at: u64,
    /// How often it may do so before then.
    ways_left: u32,
    /// What the files have beside a leader's history that is not complete yet.
    kept: Option<Kept>,
    /// Work that the disk has not reported back, appends aside.
    disk_ops: usize,
    unlogged_bytes: VecDeque<(Zxid, usize)>,
    unlogged: usize,
    /// More was on its way to the log than may be, and is not down to half of that yet.
    log_is_full: bool,
    /// What room the disk has for the log.
    pub room: Room,
    /// Since when that is not enough, in monotonic milliseconds.
    room_since: u64,
    /// Until then (monotonic milliseconds) it leads without room as well: nobody else does.
    does_without_room_until: u64,
}

/// How often an empty leader gives way to claims. A server that has a history may lose the race of the next election: its vote
/// comes a moment before the others look for a leader, and again a moment after they have elected.
const WAYS: u32 = 3;

impl Server {
    fn new(settings: Settings, view: View, at: Position) -> Self {
        let start = at.recent.first().map_or(at.last, |entry| Zxid(entry.zxid.0 - 1));
        let mut history =
            History::new(start, settings.history_entries, settings.history_bytes..=settings.history_most);
        at.recent.into_iter().for_each(|entry| history.push(entry));
        Self {
            settings,
            view,
            accepted: at.accepted,
            current: at.current,
            log_end: at.last,
            durable: at.last,
            history,
            tail: VecDeque::new(),
            debt: at.debt,
            abstains: at.abstains,
            tree: if at.tree_differs { Tree::Wrong } else { Tree::Right },
            committed_at_start: at.committed,
            tell_doubt_at: 0,
            untold_doubts: 0,
            gives_way_at: 0,
            ways_left: 0,
            kept: None,
            disk_ops: 0,
            unlogged_bytes: VecDeque::new(),
            unlogged: 0,
            log_is_full: false,
            room: Room::Enough,
            room_since: 0,
            does_without_room_until: 0,
        }
    }

    /// This server's id.
    pub fn me(&self) -> ServerId {
        self.settings.me
    }

    /// Whether the disk has done everything that it was asked for.
    pub fn disk_is_idle(&self) -> bool {
        self.disk_ops == 0 && self.durable == self.log_end
    }

    /// Whether the committed configuration gives it no vote.
    pub fn is_observer(&self) -> bool {
        self.view.committed.is_observer(self.me())
    }

    /// Whether a server may connect to this one.
    pub fn admits(&self, id: ServerId) -> bool {
        let allowed = self.settings.strangers == Strangers::Allowed || self.is_named(id);
        id != self.me() && (allowed || self.view.is_member(id))
    }

    /// Whether people allowed this server by its id.
    pub fn is_named(&self, id: ServerId) -> bool {
        matches!(&self.settings.strangers, Strangers::Named(ids) if ids.contains(&id))
    }

    fn disk(&mut self, op: DiskOp, out: &mut Outputs) {
        self.disk_ops += 1;
        out.disk.push(op);
    }

    fn append(&mut self, entry: LogEntry, out: &mut Outputs) {
        self.log_end = entry.zxid;
        self.unlogged += entry.body.len();
        self.unlogged_bytes.push_back((entry.zxid, entry.body.len()));
        self.log_is_full |= self.unlogged > self.settings.max_unlogged_bytes;
        out.disk.push(DiskOp::Append(entry));
    }

    fn on_logged(&mut self, zxid: Zxid) {
        self.durable = zxid;
        while let Some((_, bytes)) = self.unlogged_bytes.pop_front_if(|(at, _)| *at <= zxid) {
            self.unlogged -= bytes;
        }
        self.log_is_full &= self.unlogged > self.settings.max_unlogged_bytes / 2;
    }

    /// Whether another server is to lead if one can: the disk here has no room for what would be proposed.
    pub fn lacks_room(&self, now: u64) -> bool {
        self.room != Room::Enough && now >= self.does_without_room_until
    }

    /// No other server leads, or so it seems: this one may, room or not.
    pub fn do_without_room(&mut self, now: u64) {
        self.does_without_room_until = now + DOES_WITHOUT_ROOM_MS;
    }

    /// Bytes on their way to the log.
    pub fn unlogged_bytes(&self) -> usize {
        self.unlogged
    }

    /// What is in the log turns out to be history of the leader.
    fn deliver_tail(&mut self, out: &mut Outputs) {
        for entry in std::mem::take(&mut self.tail) {
            self.history.push(entry.logged());
            out.events.push_back(Event::Deliver(entry));
        }
    }

    /// The epoch of the history that this server has. One without a transaction is of no epoch: whoever has transactions
    /// has more than a server that saw an empty ensemble open one. Nor is one whose end was lost that of the leader who
    /// gave it: whoever has that end has more.
    pub fn history_epoch(&self) -> Epoch {
        match self.debt {
            Debt::None if self.log_end == Zxid::ZERO => Epoch(0),
            Debt::None => self.current,
            Debt::AtLeast(..) | Debt::Unknown => self.log_end.epoch(),
        }
    }

    /// It has nothing, and has heard of nobody who has: the ensemble is new, as far as it knows.
    pub fn is_new(&self) -> bool {
        self.log_end == Zxid::ZERO && self.current == Epoch(0) && self.debt == Debt::None
    }

    /// It can't say what it has acknowledged before.
    pub fn is_forgetful(&self) -> bool {
        self.debt == Debt::Unknown || self.abstains || self.is_new()
    }

    /// Whether this server, which leads, has nothing, and lets a server that has something have the lead. Anybody may claim
    /// to have something: a few times, and then not before the time is over in which such a server would have been elected.
    fn gives_way(&mut self, now: u64) -> bool {
        if now >= self.gives_way_at {
            self.gives_way_at = now + self.settings.init_ms();
            self.ways_left = WAYS;
        }
        let gives_way = self.log_end == Zxid::ZERO && self.ways_left > 0;
        self.ways_left -= u32::from(gives_way);
        gives_way
    }

    /// Another server has a history. If this server was new (returned), it must not start a history of its own any more.
    pub fn hear_of_history(&mut self, out: &mut Outputs) -> bool {
        let was_new = self.is_new();
        if was_new {
            self.save_debt(Debt::Unknown, out);
        }
        was_new
    }

    /// What this server would owe if it lost what it has now.
    fn owes(&self) -> Debt {
        if self.is_forgetful() {
            return Debt::Unknown;
        }
        self.debt.and(Debt::AtLeast(self.current, self.log_end))
    }

    fn save_debt(&mut self, debt: Debt, out: &mut Outputs) {
        if debt != self.debt {
            self.debt = debt;
            self.disk(DiskOp::SaveDebt(debt), out);
        }
    }

    /// It has everything that an established leader has: it owes nothing any more, in memory and on disk.
    fn settle_debt(&mut self, out: &mut Outputs) {
        self.abstains = false;
        self.save_debt(Debt::None, out);
    }

    /// Whatever the tree was before, it is the leader's now.
    fn has_new_tree(&mut self, now: u64) {
        if self.tree == Tree::Wrong {
            self.tree = Tree::Replaced { until: now + REPLACED_MS };
            (self.tell_doubt_at, self.untold_doubts) = (0, 0);
        }
    }

    /// The mark of a transaction, where it is in memory.
    fn mark(&self, zxid: Zxid) -> Option<TxnMark> {
        let in_tail = self.tail.iter().rev().find(|entry| entry.zxid == zxid);
        in_tail.and_then(|entry| TxnMark::of(&entry.body)).or_else(|| self.history.mark(zxid))
    }

    fn stage(&mut self, link: LinkId, zxid: Zxid, out: &mut Outputs) {
        self.kept = Some(Kept { log_end: self.log_end, last_seen: self.view.last_seen.clone() });
        self.tail.clear();
        self.disk(DiskOp::Stage { link, zxid }, out);
    }

    /// The snapshot is what counts in memory now.
    fn on_staged(&mut self, zxid: Zxid, out: &mut Outputs) {
        self.restart_at(zxid);
        // NEWLEADER tells whether something is proposed.
        self.see_again(self.view.committed.clone(), out);
        out.events.push_back(Event::Install(zxid));
    }

    /// The leader's history is on disk behind the snapshot, if there was one.
    fn install(&mut self, now: u64, contained: bool, out: &mut Outputs) {
        if self.kept.take().is_some() {
            self.disk(DiskOp::Install { contained }, out);
            self.has_new_tree(now);
            if self.view.pending().is_none() {
                self.disk(DiskOp::SaveConfig(ConfigFile::NoNext), out);
            }
        }
    }

    /// The term is over, and the leader's history is not complete.
    fn unstage(&mut self, out: &mut Outputs) {
        if let Some(kept) = &self.kept {
            self.disk(DiskOp::Unstage { to: kept.log_end }, out);
        }
    }

    fn on_unstaged(&mut self, to: Zxid, out: &mut Outputs) {
        self.restart_at(to);
        if let Some(kept) = self.kept.take() {
            let is_committed = kept.last_seen.version() <= self.view.committed.version();
            self.see_again(if is_committed { self.view.committed.clone() } else { kept.last_seen }, out);
        }
        out.events.push_back(Event::Reload(to));
    }

    /// The newest configuration of another history.
    fn see_again(&mut self, config: Arc<Ensemble>, out: &mut Outputs) {
        if config != self.view.last_seen {
            self.view.last_seen = config;
            out.events.push_back(Event::Reconfigured);
        }
    }

    fn wipe(&mut self, out: &mut Outputs) {
        self.debt = self.owes();
        self.disk(DiskOp::Wipe { debt: self.debt }, out);
    }

    /// A snapshot, or nothing, took the place of everything.
    fn restart_at(&mut self, zxid: Zxid) {
        self.durable = zxid;
        self.log_end = zxid;
        self.history.restart(zxid);
        self.tail.clear();
    }

    /// A newer configuration was proposed: elections and proposals need its quorum too from now on.
    fn see(&mut self, next: Ensemble, out: &mut Outputs) {
        if !self.settings.reconfig_enabled || next.version() <= self.view.last_seen.version() {
            return;
        }
        self.view.last_seen = Arc::new(next);
        let file = ConfigFile::Next(self.view.last_seen.clone());
        self.disk(DiskOp::SaveConfig(file), out);
        out.events.push_back(Event::Reconfigured);
    }

    /// What was proposed last, if anything, is no part of the leader's history.
    fn withdraw(&mut self, out: &mut Outputs) {
        if self.view.pending().is_some() {
            self.see_again(self.view.committed.clone(), out);
            self.disk(DiskOp::SaveConfig(ConfigFile::NoNext), out);
        }
    }

    /// A newer configuration is committed. Whether it changes the servers, not its version alone.
    fn activate(&mut self, config: Arc<Ensemble>, out: &mut Outputs) -> bool {
        if !self.settings.reconfig_enabled || config.version() <= self.view.committed.version() {
            return false;
        }
        let changed = {
            let (old, new) = (&self.view.committed, config.with_version(self.view.committed.version()));
            **old != new
        };
        self.view.committed = config.clone();
        if config.version() >= self.view.last_seen.version() {
            self.view.last_seen = config.clone();
        }
        self.disk(DiskOp::SaveConfig(ConfigFile::Active(config)), out);
        out.events.push_back(Event::Reconfigured);
        changed
    }

    /// Another server tells a newer committed configuration, while nobody leads here.
    pub fn adopt(&mut self, config: Ensemble, out: &mut Outputs) -> bool {
        self.activate(Arc::new(config), out)
    }
}

/// The part that a server plays at the moment.
#[derive(Debug)]
pub enum Term {
    /// None: it looks for a leader.
    None,
    /// It was elected, or is alone.
    Leading(Box<Leader>),
    /// It follows, or observes.
    Learning(Box<Learner>),
}

/// One server's part in ZAB.
#[derive(Debug)]
pub struct Zab {
    /// What it keeps from term to term.
    pub server: Server,
    /// The present term.
    pub term: Term,
}

impl Zab {
    /// A server with what recovery found, and no term.
    pub fn new(settings: Settings, view: View, at: Position) -> Self {
        Self { server: Server::new(settings, view, at), term: Term::None }
    }

    /// An ensemble of one that needs no election: it continues in the epoch that it finds.
    pub fn lead_alone(&mut self, now: u64) {
        self.term = Term::Leading(Box::new(Leader::alone(now, &self.server)));
    }

    /// The election chose this server.
    pub fn lead(&mut self, now: u64, out: &mut Outputs) {
        let mut leader = Leader::begin(now, &mut self.server, out);
        leader.advance(now, &mut self.server, out);
        self.term = Term::Leading(Box::new(leader));
    }

    /// The election chose `leader`; `epoch` is the one whose history it has, as far as the votes told, or [`DESIGNATED`].
    pub fn learn(&mut self, now: u64, leader: ServerId, epoch: Epoch, out: &mut Outputs) {
        self.term = Term::Learning(Box::new(Learner::begin(now, leader, epoch, &self.server, out)));
    }

    /// The leader, where this server is one.
    pub fn leader(&self) -> Option<&Leader> {
        match &self.term {
            Term::Leading(leader) => Some(leader),
            Term::None | Term::Learning(_) => None,
        }
    }

    /// The learner, where this server is one.
    pub fn learner(&self) -> Option<&Learner> {
        match &self.term {
            Term::Learning(learner) => Some(learner),
            Term::None | Term::Leading(_) => None,
        }
    }

    /// A learner connected to the quorum port.
    pub fn on_accepted(&mut self, now: u64, link: LinkId, out: &mut Outputs) {
        match &mut self.term {
            Term::Leading(leader) => leader.on_accepted(now, link, &self.server),
            Term::None | Term::Learning(_) => out.close(link, CloseWhy::NotLeading),
        }
    }

    /// The dial to the leader came through.
    pub fn on_dialed(&mut self, now: u64, link: LinkId, out: &mut Outputs) {
        match &mut self.term {
            Term::Learning(learner) => learner.on_dialed(now, link, &self.server, out),
            Term::None | Term::Leading(_) => out.close(link, CloseWhy::NotFollowing),
        }
    }

    /// The leader does not take a connection.
    pub fn on_dial_failed(&mut self, now: u64) {
        if let Term::Learning(learner) = &mut self.term {
            learner.on_dial_failed(now);
        }
    }

    /// A packet came from a learner. If it breaks the protocol its link is closed.
    pub fn on_learner_packet(&mut self, now: u64, link: LinkId, packet: FromLearner, out: &mut Outputs) {
        let Term::Leading(leader) = &mut self.term else { return };
        if let Err(wrong) = leader.on_packet(now, link, packet, &mut self.server, out) {
            leader.drop_link(link, wrong.into(), out);
        }
        leader.advance(now, &mut self.server, out);
    }

    /// A packet came from the leader. If it breaks the protocol the term is lost.
    pub fn on_leader_packet(&mut self, now: u64, link: LinkId, packet: FromLeader, out: &mut Outputs) {
        let Term::Learning(learner) = &mut self.term else { return };
        learner.on_packet(now, link, packet, &mut self.server, out);
    }

    /// The other side closed a link, or it broke.
    pub fn on_closed(&mut self, now: u64, link: LinkId, out: &mut Outputs) {
        match &mut self.term {
            Term::None => {}
            Term::Leading(leader) => {
                leader.on_closed(link, out);
                leader.advance(now, &mut self.server, out);
            }
            Term::Learning(learner) => learner.on_closed(now, link, out),
        }
    }

    /// Where a learner's last zxid is in the log on disk.
    pub fn on_located(&mut self, now: u64, link: LinkId, found: Located, out: &mut Outputs) {
        if let Term::Leading(leader) = &mut self.term {
            leader.on_located(now, link, found, &self.server, out);
        }
    }

    /// A feed is through: the learner has everything up to `upto`.
    pub fn on_fed(&mut self, now: u64, link: LinkId, upto: Zxid, out: &mut Outputs) {
        if let Term::Leading(leader) = &mut self.term {
            leader.on_fed(now, link, upto, &self.server, out);
        }
    }

    /// What a learner was to be sent could not be read or sent.
    pub fn on_feed_failed(&mut self, now: u64, link: LinkId, out: &mut Outputs) {
        if let Term::Leading(leader) = &mut self.term {
            leader.on_feed_failed(now, link, &self.server, out);
        }
    }

    /// What the leader has sent can't be what became of this server's history.
    pub fn refuse(&mut self, link: LinkId, what: Foreign, out: &mut Outputs) {
        if let Term::Learning(learner) = &mut self.term {
            learner.refuse_over(link, what, out);
        }
    }

    /// The leader's snapshot has arrived as a whole. Whether it is installed: it may come too late.
    pub fn on_snapshot(&mut self, now: u64, link: LinkId, zxid: Zxid, out: &mut Outputs) -> bool {
        match &mut self.term {
            Term::Learning(learner) => learner.on_snapshot(now, link, zxid, &mut self.server, out),
            Term::None | Term::Leading(_) => false,
        }
    }

    /// The disk has done something that it was asked for.
    pub fn on_disk(&mut self, now: u64, done: DiskDone, out: &mut Outputs) {
        if !matches!(done, DiskDone::Logged(_)) {
            self.server.disk_ops -= 1;
        }
        match done {
            DiskDone::Logged(zxid) => self.server.on_logged(zxid),
            DiskDone::AcceptedSaved(epoch) => self.server.accepted = epoch,
            DiskDone::CurrentSaved(epoch) => self.server.current = epoch,
            DiskDone::DebtSaved => {}
            DiskDone::Truncated(zxid) => {
                self.server.durable = self.server.durable.min(zxid);
                if !is_in_log(&self.server.view.last_seen, zxid, self.server.current) {
                    self.server.withdraw(out);
                }
                out.events.push_back(Event::Reload(zxid));
            }
            DiskDone::Unmendable => self.server.wipe(out),
            DiskDone::Staged(zxid) => self.server.on_staged(zxid, out),
            DiskDone::Unstaged(to) => self.server.on_unstaged(to, out),
            DiskDone::Installed => {}
            DiskDone::Wiped => {
                self.server.restart_at(Zxid::ZERO);
                out.events.push_back(Event::Reload(Zxid::ZERO));
            }
            DiskDone::ConfigSaved => {}
        }
        match &mut self.term {
            Term::None => {}
            Term::Leading(leader) => {
                leader.on_disk(now, &done, &mut self.server, out);
                leader.advance(now, &mut self.server, out);
            }
            Term::Learning(learner) => learner.on_disk(now, &done, &mut self.server, out),
        }
    }

    /// The disk has more room or less than before.
    pub fn on_room(&mut self, now: u64, room: Room) {
        if self.server.room == Room::Enough {
            self.server.room_since = now;
        }
        self.server.room = room;
    }

    /// Looks at what is due: pings, deadlines, dials. `now` is in monotonic milliseconds.
    pub fn on_tick(&mut self, now: u64, out: &mut Outputs) {
        match &mut self.term {
            Term::None => {}
            Term::Leading(leader) => {
                leader.on_tick(now, &mut self.server, out);
                leader.advance(now, &mut self.server, out);
            }
            Term::Learning(learner) => learner.on_tick(now, &mut self.server, out),
        }
    }

    /// When [`Self::on_tick`] has something to do.
    pub fn next_wake(&self) -> Option<u64> {
        match &self.term {
            Term::None => None,
            Term::Leading(leader) => Some(leader.next_wake()),
            Term::Learning(learner) => Some(learner.next_wake()),
        }
    }

    /// The zxid of the next proposal; none where this term can't propose any more.
    pub fn next_zxid(&mut self, out: &mut Outputs) -> Option<Zxid> {
        let Term::Leading(leader) = &mut self.term else { return None };
        if !leader.proposes() {
            return None;
        }
        let epoch_len = self.server.settings.epoch_len;
        match leader.next_zxid().filter(|zxid| zxid.counter() <= epoch_len) {
            None if leader.is_alone() => {
                leader.open_next_epoch_alone();
                leader.next_zxid()
            }
            None => {
                leader.roll_over(out);
                None
            }
            zxid => zxid,
        }
    }

    /// Proposes what is next in the epoch. Only an established leader does.
    pub fn propose(&mut self, entry: Entry, out: &mut Outputs) {
        match &mut self.term {
            Term::Leading(leader) => leader.propose(entry, &mut self.server, out),
            Term::None | Term::Learning(_) => panic!("an established leader proposes"),
        }
    }

    /// The leader, where this server is one, with what it keeps from term to term.
    pub fn leader_mut(&mut self) -> Option<(&mut Leader, &Server)> {
        match &mut self.term {
            Term::Leading(leader) => Some((leader, &self.server)),
            Term::None | Term::Learning(_) => None,
        }
    }

    /// Bytes that a leader has sent to its learners, and that they have not read for sure.
    pub fn bytes_to_learners(&self) -> usize {
        match &self.term {
            Term::Leading(leader) => usize::try_from(leader.bytes_under_way()).unwrap_or(usize::MAX),
            Term::None | Term::Learning(_) => 0,
        }
    }

    /// Deadline until which this server may answer reads: no other leader can be established before then.
    pub fn lease(&self) -> u64 {
        match &self.term {
            Term::None => 0,
            Term::Leading(leader) if leader.is_alone() => u64::MAX,
            Term::Leading(leader) if leader.is_established() => leader.lease(&self.server),
            Term::Leading(_) => 0,
            Term::Learning(learner) => learner.lease(),
        }
    }

    /// This server's tree has another digest than the transaction says. What is to be told of it, if anything is.
    /// Transactions of earlier epochs prove nothing: the leader that wrote their digests may have had the wrong tree.
    pub fn doubt_tree(&mut self, now: u64, zxid: Zxid, digest: i64, out: &mut Outputs) -> Option<Doubt> {
        let server = &mut self.server;
        let epoch = match &self.term {
            Term::None => return None,
            Term::Leading(leader) => leader.epoch(),
            Term::Learning(learner) => learner.epoch(),
        };
        if zxid.epoch() != epoch {
            return None;
        }
        let is_alone = matches!(&self.term, Term::Leading(leader) if leader.is_alone());
        let no_help = is_alone || matches!(server.tree, Tree::Replaced { until } if now < until);
        if no_help {
            server.untold_doubts += 1;
            if now < server.tell_doubt_at {
                return None;
            }
            server.tell_doubt_at = now + TELL_DOUBT_EVERY_MS;
            return Some(Doubt::ServeOn { count: std::mem::take(&mut server.untold_doubts) });
        }
        let is_news = match &mut self.term {
            Term::None => false,
            Term::Leading(leader) => {
                server.tree = Tree::Wrong;
                leader.doubt(zxid, out)
            }
            Term::Learning(learner) => learner.doubt(now, zxid, digest, server, out),
        };
        is_news.then_some(Doubt::Replace)
    }

    /// Nobody can be elected while this server takes its own tree for wrong, or so it seems: it takes part again.
    pub fn trust_tree(&mut self, now: u64) {
        self.server.tree = Tree::Replaced { until: now + REPLACED_MS };
    }

    /// The election went another way: a term that is not established has nothing to wait for.
    pub fn abandon(&mut self, why: LostWhy, out: &mut Outputs) {
        match &mut self.term {
            Term::None => {}
            Term::Leading(leader) => leader.abandon(why, out),
            Term::Learning(learner) => learner.abandon(why, out),
        }
    }

    /// The term is over: what is in the log and not committed is kept, links end.
    pub fn end_term(&mut self, out: &mut Outputs) {
        match std::mem::replace(&mut self.term, Term::None) {
            Term::None => {}
            Term::Leading(leader) => leader.end(&mut self.server, out),
            Term::Learning(learner) => {
                learner.end(out);
                self.server.unstage(out);
            }
        }
    }
}
