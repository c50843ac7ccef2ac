//! From an election to a term and back: who leads, and when this server may ask.

use super::leading::Leading;
use super::lineage::shares_nothing;
use super::serving::Serving;
use super::{ElectionInput, ElectionOutput, Listen, Now, Outputs, QuorumInput, Replica, Told, peer_state};
use crate::election::{Admission, Candidate, LinkEvent, LinkOutput, Output, Overtaken, Standing, Turn};
use crate::ensemble::{Ensemble, Member, PeerAddress};
use crate::model::{Debt, Epoch, LinkId, ServerId, Zxid};
use crate::tree::Database;
use crate::wire::election::{Notification, PeerState};
use crate::wire::quorum::FromLearner;
use crate::zab::{DESIGNATED, Foreign, LostWhy, MAX_EPOCHS_AHEAD, Next, Tree};
use std::collections::BTreeMap;

/// Learners that may wait for this server to be elected, at the most.
const MAX_EARLY: usize = 64;

/// Between two terms, or in one.
#[derive(Debug)]
pub(super) enum Between {
    /// The disk still has work of the last term: a vote has to tell what is durable, and an old term's write must not
    /// land in a new one.
    Settling {
        next: Next,
        /// The newest that each server told meanwhile.
        heard: BTreeMap<ServerId, Heard>,
    },
    /// An election is under way. Learners that believe it to be over already wait here.
    Looking {
        early: Vec<Early>,
        /// Newer configurations, as voters tell that they are committed.
        told: BTreeMap<ServerId, Ensemble>,
    },
    Term,
}

#[derive(Debug)]
pub(super) struct Early {
    link: LinkId,
    packets: Vec<FromLearner>,
    until: u64,
}

/// What a server told, and whether that was over a connection to where the configuration has it.
#[derive(Debug)]
pub(super) struct Heard {
    notification: Notification,
    proved: bool,
}

impl Replica {
    /// Goes on to what comes next, once the disk is still.
    pub(super) fn settle(&mut self, now: Now, out: &mut Outputs) {
        if !self.steps.is_empty() || !self.zab.server.disk_is_idle() {
            return;
        }
        let Between::Settling { next, heard } = &mut self.between else { return };
        let (next, heard) = (*next, std::mem::take(heard));
        match next {
            Next::Election => self.look(now, heard, out),
            Next::Designated { leader, zxid } => {
                let observer = self.zab.server.is_observer();
                let is_me = leader == self.settings.server;
                let state = if is_me { PeerState::Leading } else { peer_state(observer) };
                self.election.settle(leader, zxid, DESIGNATED, state);
                self.begin_term(now, leader, Vec::new(), out);
            }
        }
    }

    fn look(&mut self, now: Now, heard: BTreeMap<ServerId, Heard>, out: &mut Outputs) {
        let early = match std::mem::replace(&mut self.between, Between::Term) {
            Between::Looking { early, .. } => early,
            Between::Settling { .. } | Between::Term => Vec::new(),
        };
        self.between = Between::Looking { early, told: BTreeMap::new() };
        self.status_changed = true;
        out.tally.elections += 1;
        let server = &self.zab.server;
        let own = Candidate { epoch: server.history_epoch(), zxid: server.log_end, id: self.settings.server };
        let has = (server.current, server.log_end);
        let standing = match server.debt {
            _ if server.is_observer() => Standing::Observer,
            _ if server.abstains => Standing::Abstaining,
            _ if server.is_new() => Standing::New,
            _ if server.is_forgetful() => Standing::Forgetful,
            _ if server.tree == Tree::Wrong => Standing::AtLeast(server.history_epoch(), server.log_end),
            Debt::AtLeast(epoch, zxid) if has < (epoch, zxid) => Standing::AtLeast(epoch, zxid),
            Debt::None | Debt::AtLeast(..) | Debt::Unknown => Standing::Voter,
        };
        let mut votes = Vec::new();
        let mut turn = Turn::new(now.mono_ms, &self.zab.server.view, &mut votes);
        self.election.start(own, standing, &mut turn);
        out.told.push(Told::Looking { round: self.election.round(), zxid: own.zxid, epoch: own.epoch });
        self.carry_votes(now, votes, out);
        for (from, heard) in heard {
            self.on_notification(now, from, heard, out);
        }
    }

    fn on_notification(&mut self, now: Now, from: ServerId, heard: Heard, out: &mut Outputs) {
        if let Between::Settling { heard: waiting, .. } = &mut self.between {
            waiting.insert(from, heard);
            return;
        }
        if self.adopts_config(from, &heard, out) {
            // The election goes by the newer configuration.
            return self.look(now, BTreeMap::from([(from, heard)]), out);
        }
        let heard = heard.notification;
        let server = &mut self.zab.server;
        if heard.tells_history() && server.view.is_voter(from) && server.hear_of_history(&mut out.zab) {
            out.told.push(Told::History { from });
        }
        let mut votes = Vec::new();
        let mut turn = Turn::new(now.mono_ms, &self.zab.server.view, &mut votes);
        self.election.on_notification(from, &heard, &mut turn);
        self.carry_votes(now, votes, out);
    }

    /// A server that looks for a leader takes over a newer configuration that is committed, as a quorum of its own one tells:
    /// without such a quorum none is committed. One voter tells enough where it is where the configuration has it, or of one
    /// that a leader has proposed to this server itself.
    fn adopts_config(&mut self, from: ServerId, heard: &Heard, out: &mut Outputs) -> bool {
        let Between::Looking { told, .. } = &mut self.between else { return false };
        let Some(text) = heard.notification.config.as_deref() else { return false };
        let view = &self.zab.server.view;
        let committed = view.committed.version();
        // Mostly it is the same one.
        if !view.is_voter(from) || text.ends_with(format!("\nversion={committed:x}").as_bytes()) {
            told.remove(&from);
            return false;
        }
        let config = std::str::from_utf8(text).ok().and_then(|text| Ensemble::parse(text).ok());
        let may_be = |config: &Ensemble| config.version() > committed && config.voters().next().is_some();
        let Some(config) = config.filter(may_be) else { return false };
        told.insert(from, config.clone());
        let is_logged = *view.last_seen == config;
        // A claim is believed where an epoch that is not far away made the configuration. A new server may be far behind.
        let farthest = Epoch(self.zab.server.accepted.0 + MAX_EPOCHS_AHEAD);
        let is_near = Zxid(config.version()).epoch() <= farthest;
        let is_told = is_near && view.has_some_quorum(|id| told.get(&id) == Some(&config));
        (heard.proved || is_logged || is_told) && self.zab.server.adopt(config, &mut out.zab)
    }

    fn carry_votes(&mut self, now: Now, votes: Vec<Output>, out: &mut Outputs) {
        let mut elected = None;
        let mut links = Vec::new();
        for vote in votes {
            match vote {
                Output::Send { to, notification } => {
                    self.links.send(now.mono_ms, to, &notification, &mut links);
                }
                Output::Elected(leader) => elected = Some(leader),
                Output::Overtaken(why) => self.zab.abandon(lost_to(why), &mut out.zab),
            }
        }
        self.carry_links(links, out);
        if let Some(leader) = elected {
            out.told.push(Told::Elected { leader, round: self.election.round() });
            let early = match std::mem::replace(&mut self.between, Between::Term) {
                Between::Looking { early, .. } => early,
                Between::Settling { .. } | Between::Term => Vec::new(),
            };
            self.end_read_only(now, out);
            self.begin_term(now, leader, early, out);
        }
    }

    fn begin_term(&mut self, now: Now, leader: ServerId, early: Vec<Early>, out: &mut Outputs) {
        self.between = Between::Term;
        self.status_changed = true;
        if leader != self.settings.server {
            for early in early {
                self.zab.on_accepted(now.mono_ms, early.link, &mut out.zab);
            }
            let epoch = self.election.claimed_epoch();
            return self.zab.learn(now.mono_ms, leader, epoch, &mut out.zab);
        }
        self.zab.lead(now.mono_ms, &mut out.zab);
        for early in early {
            self.zab.on_accepted(now.mono_ms, early.link, &mut out.zab);
            for packet in early.packets {
                self.zab.on_learner_packet(now.mono_ms, early.link, packet, &mut out.zab);
            }
        }
    }

    // The election port.

    pub(super) fn on_election(&mut self, now: Now, input: ElectionInput, out: &mut Outputs) {
        let mut links = Vec::new();
        let mut events = Vec::new();
        let server = &self.zab.server;
        let admits = |id: ServerId| match server.admits(id) {
            false => Admission::Refused,
            true if server.view.is_member(id) || server.is_named(id) => Admission::Member,
            true => Admission::Guest,
        };
        match input {
            ElectionInput::Accepted(conn) => self.links.on_accepted(now.mono_ms, conn, &mut links),
            ElectionInput::Dialed { to, conn } => {
                self.links.on_dialed(now.mono_ms, to, conn, &mut links, &mut events)
            }
            ElectionInput::DialFailed(to) => self.links.on_dial_failed(to, &mut events),
            ElectionInput::Bytes { conn, bytes } => {
                self.links.on_bytes(now.mono_ms, conn, &bytes, &admits, &mut links, &mut events);
            }
            ElectionInput::Closed(conn) => {
                self.links.on_closed(now.mono_ms, conn, &mut links, &mut events);
            }
        }
        self.carry_links(links, out);
        self.carry_events(now, events, out);
    }

    fn carry_events(&mut self, now: Now, events: Vec<LinkEvent>, out: &mut Outputs) {
        for event in events {
            let mut votes = Vec::new();
            let view = &self.zab.server.view;
            match event {
                LinkEvent::Heard { from, notification, proved } => {
                    self.on_notification(now, from, Heard { notification, proved }, out);
                    continue;
                }
                LinkEvent::Connected(to) => {
                    self.election.on_connected(to, &mut Turn::new(now.mono_ms, view, &mut votes));
                }
                LinkEvent::Asked { conn, .. } => {
                    let mut links = Vec::new();
                    self.links.answer(conn, &self.election.present(view), &mut links);
                    self.carry_links(links, out);
                    continue;
                }
                LinkEvent::Claimed(by) => votes.push(self.election.ask(by, view)),
                LinkEvent::Unreachable(to) => {
                    self.election.on_unreachable(to, &mut Turn::new(now.mono_ms, view, &mut votes));
                }
            }
            self.carry_votes(now, votes, out);
        }
    }

    fn carry_links(&self, links: Vec<LinkOutput>, out: &mut Outputs) {
        let view = &self.zab.server.view;
        out.election.extend(links.into_iter().map(|link| match link {
            LinkOutput::Write { conn, bytes } => ElectionOutput::Write { conn, bytes },
            LinkOutput::Close { conn, why } => ElectionOutput::Close { conn, why },
            LinkOutput::Dial { to, addresses } => {
                let member = view.committed.member(to).or_else(|| view.last_seen.member(to));
                let addresses = match member {
                    Some(member) => {
                        let of = |address: &PeerAddress| (address.host.clone(), address.election_port);
                        member.addresses.iter().map(of).collect()
                    }
                    // Anybody can say where he wants to be called: only whom people named is.
                    None if self.zab.server.is_named(to) => addresses,
                    None => Vec::new(),
                };
                ElectionOutput::Dial { to, addresses }
            }
        }));
    }

    /// Members came or went: connections to those that went end.
    pub(super) fn on_reconfigured(&mut self, out: &mut Outputs) {
        self.status_changed = true;
        let mut links = Vec::new();
        let server = &self.zab.server;
        self.links.retain(&|id| server.admits(id), &mut links);
        self.carry_links(links, out);
        let view = &self.zab.server.view;
        let pending = view.pending().is_some();
        let config = if pending { &view.last_seen } else { &view.committed };
        out.told.push(Told::Reconfigured { version: config.version(), pending, text: config.to_string() });
    }

    // The quorum port.

    pub(super) fn on_quorum(&mut self, now: Now, own: &Database, input: QuorumInput, out: &mut Outputs) {
        let at = now.mono_ms;
        let zab = &mut out.zab;
        match input {
            QuorumInput::Accepted(link) => match &mut self.between {
                // It may have heard of this server's election before this server has.
                Between::Looking { early, .. } => {
                    // The oldest makes room: nobody is kept out by others.
                    if early.len() >= MAX_EARLY {
                        self.zab.on_accepted(at, early.remove(0).link, zab);
                    }
                    let until = at + self.settings.zab.init_limit * self.settings.tick_ms;
                    early.push(Early { link, packets: Vec::new(), until });
                }
                Between::Settling { .. } | Between::Term => self.zab.on_accepted(at, link, zab),
            },
            QuorumInput::FromLearner { link, packet } => {
                if let Some(early) = self.early(link) {
                    // One packet says who it is; what follows answers a leader.
                    if early.packets.is_empty() {
                        early.packets.push(packet);
                    }
                } else {
                    self.zab.on_learner_packet(at, link, packet, zab);
                }
            }
            QuorumInput::Dialed(link) => self.zab.on_dialed(at, link, zab),
            QuorumInput::DialFailed => self.zab.on_dial_failed(at),
            QuorumInput::FromLeader { link, packet } => self.zab.on_leader_packet(at, link, packet, zab),
            QuorumInput::Snapshot { link, zxid, db } => {
                let committed = self.zab.server.committed_at_start;
                if zxid >= committed && shares_nothing(own, &db, committed) {
                    self.zab.refuse(link, Foreign::Snapshot(zxid), zab);
                } else if self.zab.on_snapshot(at, link, zxid, zab) {
                    self.received = Some(db);
                }
            }
            QuorumInput::Closed(link) => {
                if let Between::Looking { early, .. } = &mut self.between {
                    early.retain(|early| early.link != link);
                }
                self.zab.on_closed(at, link, zab);
            }
            QuorumInput::Located { link, found } => self.zab.on_located(at, link, found, zab),
            QuorumInput::Fed { link, upto } => self.zab.on_fed(at, link, upto, zab),
            QuorumInput::FeedFailed { link } => self.zab.on_feed_failed(at, link, zab),
        }
    }

    fn early(&mut self, link: LinkId) -> Option<&mut Early> {
        let Between::Looking { early, .. } = &mut self.between else { return None };
        early.iter_mut().find(|early| early.link == link)
    }

    pub(super) fn dial_leader(&mut self, now: Now, leader: ServerId, out: &mut Outputs) {
        let view = &self.zab.server.view;
        let member = view.committed.member(leader).or_else(|| view.last_seen.member(leader));
        match member {
            Some(member) => out.dial = Some((leader, member.addresses.clone())),
            None => self.zab.on_dial_failed(now.mono_ms),
        }
    }

    /// Tells where to listen, where that changed.
    pub(super) fn listen(&mut self, out: &mut Outputs) {
        let view = &self.zab.server.view;
        let me = self.settings.server;
        let Some(member) = view.committed.member(me).or_else(|| view.last_seen.member(me)) else { return };
        let ports = |port: fn(&PeerAddress) -> u16| {
            member.addresses.iter().map(|address| (address.host.clone(), port(address))).collect::<Vec<_>>()
        };
        let hosts = |member: &Member| {
            (member.id, member.addresses.iter().map(|address| address.host.clone()).collect())
        };
        let may_lead = match &self.between {
            Between::Settling { .. } | Between::Looking { .. } => !self.zab.server.is_observer(),
            Between::Term => self.zab.leader().is_some(),
        };
        let listen = Listen {
            election: ports(|address| address.election_port),
            quorum: may_lead.then(|| ports(|address| address.quorum_port)),
            members: view.required().flat_map(|ensemble| ensemble.members()).map(hosts).collect(),
        };
        if self.listening.as_ref() != Some(&listen) {
            self.listening = Some(listen.clone());
            out.listen = Some(listen);
        }
    }

    // The end of a term.

    pub(super) fn lose(&mut self, now: Now, why: LostWhy, next: Next, out: &mut Outputs) {
        out.told.push(Told::Lost { why });
        self.zab.end_term(&mut out.zab);
        // What the term still had to say is of no use any more.
        out.zab.events.clear();
        self.stop_serving(now, out);
        self.status_changed = true;
        self.looking_since = now.mono_ms;
        self.between = Between::Settling { next, heard: BTreeMap::new() };
    }

    pub(super) fn begin_leading(&mut self, now: Now, db: &mut Database, epoch: Epoch, out: &mut Outputs) {
        self.election.joined(epoch);
        self.enter_epoch(now, db, epoch);
        out.told.push(Told::Leads(epoch));
        let leading = Leading::begin(now, db, &self.settings);
        self.serve(now, db, Serving::Leading(Box::new(leading)), out);
    }

    pub(super) fn begin_learning(&mut self, now: Now, db: &mut Database, epoch: Epoch, out: &mut Outputs) {
        let Some(learner) = self.zab.learner() else { return };
        let (leader, observer) = (learner.leader(), learner.is_observer());
        self.election.joined(epoch);
        self.enter_epoch(now, db, epoch);
        out.told.push(Told::Learns { leader, epoch, observer });
        self.serve(now, db, Serving::Learning(Box::default()), out);
    }

    /// All that came before the epoch is in the database. So that a client that was told an epoch's first zxid may move
    /// on to any server, each stands there at least.
    fn enter_epoch(&mut self, now: Now, db: &mut Database, epoch: Epoch) {
        db.last_zxid = db.last_zxid.max(Zxid::new(epoch, 0));
        let config = &self.zab.server.view.committed;
        db.show_config(&config.to_string(), config.version(), now.wall_ms);
        self.status_changed = true;
    }

    pub(super) fn tick_term(&mut self, now: Now, out: &mut Outputs) {
        let mut links = Vec::new();
        let mut events = Vec::new();
        self.links.on_tick(now.mono_ms, &mut links, &mut events);
        self.carry_links(links, out);
        self.carry_events(now, events, out);
        let mut votes = Vec::new();
        self.election.on_tick(&mut Turn::new(now.mono_ms, &self.zab.server.view, &mut votes));
        self.carry_votes(now, votes, out);
        let init_ms = self.settings.zab.init_limit * self.settings.tick_ms;
        let is_looking = matches!(self.between, Between::Looking { .. });
        if is_looking && self.zab.server.tree == Tree::Wrong && now.mono_ms >= self.looking_since + init_ms {
            // All the others may think the same of theirs.
            self.zab.trust_tree(now.mono_ms);
            self.look(now, BTreeMap::new(), out);
        }
        if let Between::Looking { early, .. } = &mut self.between {
            let late = early.extract_if(.., |early| early.until <= now.mono_ms);
            let late: Vec<LinkId> = late.map(|early| early.link).collect();
            for link in late {
                self.zab.on_accepted(now.mono_ms, link, &mut out.zab);
            }
        }
    }

    /// When [`super::Input::Tick`] has something to do, in monotonic milliseconds.
    pub fn next_wake(&self) -> u64 {
        let wakes = [
            self.election.next_wake(),
            self.links.next_wake(),
            self.zab.next_wake(),
            self.clients.next_wake(),
            self.serving.next_wake(),
            self.read_only_from(),
        ];
        wakes.into_iter().flatten().min().unwrap_or(u64::MAX)
    }
}

/// Votes ended a term that was not established.
fn lost_to(why: Overtaken) -> LostWhy {
    match why {
        Overtaken::Established(leader) => LostWhy::AnotherLeads(leader),
        Overtaken::LeaderLooks(leader) => LostWhy::LeaderLooks(leader),
        Overtaken::TooFew => LostWhy::TooFewVotes,
    }
}
