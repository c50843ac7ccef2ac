//! From an election to a term and back: who leads, and when this server may ask.

use super::serving::Turn;
use super::{ElectionInput, Now, Settings, Told};
use crate::election::{
    self, Admission, Candidate, Election, LinkEvent, LinkOutput, Links, Output, Overtaken, Standing,
};
use crate::ensemble::{Ensemble, PeerAddress};
use crate::model::{Debt, Epoch, LinkId, ServerId, Zxid};
use crate::wire::election::{Notification, PeerState};
use crate::wire::quorum::FromLearner;
use crate::zab::{DESIGNATED, LostWhy, MAX_EPOCHS_AHEAD, Next, Tree};
use std::collections::BTreeMap;

/// Learners that may wait for this server to be elected, at the most.
const MAX_EARLY: usize = 64;

/// Ticks in which a server without room on its disk leaves the lead to others.
const PATIENCE_TICKS: u64 = 2;

/// Between two terms, or in one.
#[derive(Debug)]
enum Between {
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
struct Early {
    link: LinkId,
    packets: Vec<FromLearner>,
    until: u64,
}

/// What a server told, and whether that was over a connection to where the configuration has it.
#[derive(Debug)]
struct Heard {
    notification: Notification,
    proved: bool,
}

/// How this server comes to a leader: the election, its connections, and where it stands between two terms.
#[derive(Debug)]
pub(super) struct Leadership {
    election: Election,
    links: Links,
    between: Between,
    /// Since when there has been no leader, in monotonic milliseconds.
    looking_since: u64,
}

impl Leadership {
    /// The first thing to do is to look for a leader.
    pub(super) fn new(now: Now, settings: &Settings) -> Self {
        let me = settings.server;
        Self {
            election: Election::new(me, settings.pace),
            links: Links::new(me, settings.election_addresses.clone(), settings.handshake_ms),
            between: Between::Settling { next: Next::Election, heard: BTreeMap::new() },
            looking_since: now.mono_ms,
        }
    }

    /// No election is needed.
    pub(super) fn skip_election(&mut self) {
        self.between = Between::Term;
    }

    /// Whether an election is under way.
    pub(super) fn is_looking(&self) -> bool {
        matches!(self.between, Between::Looking { .. })
    }

    /// Whether somebody leads, or was elected to.
    pub(super) fn has_term(&self) -> bool {
        matches!(self.between, Between::Term)
    }

    /// Since when there has been no leader, in monotonic milliseconds.
    pub(super) fn looking_since(&self) -> u64 {
        self.looking_since
    }

    /// The leader is established in a new epoch.
    pub(super) fn joined(&mut self, epoch: Epoch) {
        self.election.joined(epoch);
    }

    /// The term is over.
    pub(super) fn lose(&mut self, now: Now, next: Next) {
        self.looking_since = now.mono_ms;
        self.between = Between::Settling { next, heard: BTreeMap::new() };
    }

    /// Members came or went: connections to those that went end.
    pub(super) fn on_reconfigured(&mut self, turn: &mut Turn<'_>) {
        let mut links = Vec::new();
        let server = &turn.zab.server;
        self.links.retain(&|id| server.admits(id), &mut links);
        carry_links(links, turn);
    }

    /// The disk has enough room, or has not any more: that decides whether this server may be elected.
    pub(super) fn on_room(&mut self, turn: &mut Turn<'_>) {
        if self.is_looking() {
            self.look(BTreeMap::new(), turn);
        }
    }

    /// Goes on to what comes next, once the disk is still.
    pub(super) fn settle(&mut self, turn: &mut Turn<'_>) {
        if !turn.zab.server.disk_is_idle() {
            return;
        }
        let Between::Settling { next, heard } = &mut self.between else { return };
        let (next, heard) = (*next, std::mem::take(heard));
        match next {
            Next::Election => self.look(heard, turn),
            Next::Designated { leader, zxid } => {
                let observer = turn.zab.server.is_observer();
                let is_me = leader == turn.settings.server;
                let state = if is_me { PeerState::Leading } else { peer_state(observer) };
                self.election.settle(leader, zxid, DESIGNATED, state);
                self.begin_term(leader, Vec::new(), turn);
            }
        }
    }

    fn look(&mut self, heard: BTreeMap<ServerId, Heard>, turn: &mut Turn<'_>) {
        let early = match std::mem::replace(&mut self.between, Between::Term) {
            Between::Looking { early, .. } => early,
            Between::Settling { .. } | Between::Term => Vec::new(),
        };
        self.between = Between::Looking { early, told: BTreeMap::new() };
        *turn.status_changed = true;
        turn.out.tally.elections += 1;
        let server = &turn.zab.server;
        let own = Candidate { epoch: server.history_epoch(), zxid: server.log_end, id: turn.settings.server };
        let has = (server.current, server.log_end);
        let standing = match server.debt {
            _ if server.is_observer() => Standing::Observer,
            _ if server.abstains => Standing::Abstaining,
            _ if server.is_new() => Standing::New,
            _ if server.is_forgetful() => Standing::Forgetful,
            _ if server.tree == Tree::Wrong || server.lacks_room(turn.now.mono_ms) => {
                Standing::AtLeast(server.history_epoch(), server.log_end)
            }
            Debt::AtLeast(epoch, zxid) if has < (epoch, zxid) => Standing::AtLeast(epoch, zxid),
            Debt::None | Debt::AtLeast(..) | Debt::Unknown => Standing::Voter,
        };
        let mut votes = Vec::new();
        let view = &turn.zab.server.view;
        self.election.start(own, standing, &mut election::Turn::new(turn.now.mono_ms, view, &mut votes));
        turn.out.told.push(Told::Looking { round: self.election.round(), zxid: own.zxid, epoch: own.epoch });
        self.carry_votes(votes, turn);
        for (from, heard) in heard {
            self.on_notification(from, heard, turn);
        }
    }

    fn on_notification(&mut self, from: ServerId, heard: Heard, turn: &mut Turn<'_>) {
        if let Between::Settling { heard: waiting, .. } = &mut self.between {
            waiting.insert(from, heard);
            return;
        }
        if self.adopts_config(from, &heard, turn) {
            // The election goes by the newer configuration.
            return self.look(BTreeMap::from([(from, heard)]), turn);
        }
        let heard = heard.notification;
        let server = &mut turn.zab.server;
        if heard.tells_history() && server.view.is_voter(from) && server.hear_of_history(&mut turn.out.zab) {
            turn.out.told.push(Told::History { from });
        }
        let mut votes = Vec::new();
        let view = &turn.zab.server.view;
        let at = turn.now.mono_ms;
        self.election.on_notification(from, &heard, &mut election::Turn::new(at, view, &mut votes));
        self.carry_votes(votes, turn);
    }

    /// A server that looks for a leader takes over a newer configuration that is committed, as a quorum of its own one tells:
    /// without such a quorum none is committed. One voter tells enough where it is where the configuration has it, or of one
    /// that a leader has proposed to this server itself.
    fn adopts_config(&mut self, from: ServerId, heard: &Heard, turn: &mut Turn<'_>) -> bool {
        let Between::Looking { told, .. } = &mut self.between else { return false };
        let Some(text) = heard.notification.config.as_deref() else { return false };
        let view = &turn.zab.server.view;
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
        // A claim is believed where an epoch that is not far away made the configuration. Who was away for long may hear of none
        // that is near: in the time in which there is a leader it would have found one.
        let farthest = Epoch(turn.zab.server.accepted.0 + MAX_EPOCHS_AHEAD);
        let is_near = Zxid(config.version()).epoch() <= farthest;
        let is_late = turn.now.mono_ms >= self.looking_since + init_ms(turn);
        let is_told = (is_near || is_late) && view.has_some_quorum(|id| told.get(&id) == Some(&config));
        (heard.proved || is_logged || is_told) && turn.zab.server.adopt(config, &mut turn.out.zab)
    }

    fn carry_votes(&mut self, votes: Vec<Output>, turn: &mut Turn<'_>) {
        let mut elected = None;
        let mut links = Vec::new();
        for vote in votes {
            match vote {
                Output::Send { to, notification } => {
                    self.links.send(turn.now.mono_ms, to, &notification, &mut links);
                }
                Output::Elected(leader) => elected = Some(leader),
                Output::Overtaken(why) => turn.zab.abandon(lost_to(why), &mut turn.out.zab),
            }
        }
        carry_links(links, turn);
        if let Some(leader) = elected {
            turn.out.told.push(Told::Elected { leader, round: self.election.round() });
            let early = match std::mem::replace(&mut self.between, Between::Term) {
                Between::Looking { early, .. } => early,
                Between::Settling { .. } | Between::Term => Vec::new(),
            };
            self.begin_term(leader, early, turn);
        }
    }

    fn begin_term(&mut self, leader: ServerId, early: Vec<Early>, turn: &mut Turn<'_>) {
        self.between = Between::Term;
        *turn.status_changed = true;
        if leader != turn.settings.server {
            for early in early {
                turn.zab.on_accepted(turn.now.mono_ms, early.link, &mut turn.out.zab);
            }
            let epoch = self.election.claimed_epoch();
            return turn.zab.learn(turn.now.mono_ms, leader, epoch, &mut turn.out.zab);
        }
        turn.zab.lead(turn.now.mono_ms, &mut turn.out.zab);
        for early in early {
            turn.zab.on_accepted(turn.now.mono_ms, early.link, &mut turn.out.zab);
            for packet in early.packets {
                turn.zab.on_learner_packet(turn.now.mono_ms, early.link, packet, &mut turn.out.zab);
            }
        }
    }

    // The election port.

    pub(super) fn on_election(&mut self, input: ElectionInput, turn: &mut Turn<'_>) {
        let mut links = Vec::new();
        let mut events = Vec::new();
        let server = &turn.zab.server;
        let admits = |id: ServerId| match server.admits(id) {
            false => Admission::Refused,
            true if server.view.is_member(id) || server.is_named(id) => Admission::Member,
            true => Admission::Guest,
        };
        match input {
            ElectionInput::Accepted(conn) => self.links.on_accepted(turn.now.mono_ms, conn, &mut links),
            ElectionInput::Dialed { to, conn } => {
                self.links.on_dialed(turn.now.mono_ms, to, conn, &mut links, &mut events)
            }
            ElectionInput::DialFailed(to) => self.links.on_dial_failed(to, &mut events),
            ElectionInput::Bytes { conn, bytes } => {
                self.links.on_bytes(turn.now.mono_ms, conn, &bytes, &admits, &mut links, &mut events);
            }
            ElectionInput::Closed(conn) => {
                self.links.on_closed(turn.now.mono_ms, conn, &mut links, &mut events);
            }
        }
        carry_links(links, turn);
        self.carry_events(events, turn);
    }

    fn carry_events(&mut self, events: Vec<LinkEvent>, turn: &mut Turn<'_>) {
        for event in events {
            let mut votes = Vec::new();
            let view = &turn.zab.server.view;
            match event {
                LinkEvent::Heard { from, notification, proved } => {
                    self.on_notification(from, Heard { notification, proved }, turn);
                    continue;
                }
                LinkEvent::Connected { to, owed } => {
                    if owed {
                        let notification = self.election.present(view);
                        votes.push(election::Output::Send { to, notification });
                    }
                    self.election
                        .on_connected(to, &mut election::Turn::new(turn.now.mono_ms, view, &mut votes));
                }
                LinkEvent::Asked { conn, .. } => {
                    let mut links = Vec::new();
                    self.links.answer(conn, &self.election.present(view), &mut links);
                    carry_links(links, turn);
                    continue;
                }
                LinkEvent::Claimed(by) => votes.push(self.election.ask(by, view)),
                LinkEvent::Unreachable(to) => {
                    self.election
                        .on_unreachable(to, &mut election::Turn::new(turn.now.mono_ms, view, &mut votes));
                }
            }
            self.carry_votes(votes, turn);
        }
    }

    // The quorum port.

    /// A learner connected.
    pub(super) fn on_accepted(&mut self, link: LinkId, turn: &mut Turn<'_>) {
        let (at, zab) = (turn.now.mono_ms, &mut turn.out.zab);
        match &mut self.between {
            // It may have heard of this server's election before this server has.
            Between::Looking { early, .. } => {
                // The oldest makes room: nobody is kept out by others.
                if early.len() >= MAX_EARLY {
                    turn.zab.on_accepted(at, early.remove(0).link, zab);
                }
                let until = at + turn.settings.zab.init_limit * turn.settings.tick_ms;
                early.push(Early { link, packets: Vec::new(), until });
            }
            Between::Settling { .. } | Between::Term => turn.zab.on_accepted(at, link, zab),
        }
    }

    /// A learner sent a packet.
    pub(super) fn on_learner_packet(&mut self, link: LinkId, packet: FromLearner, turn: &mut Turn<'_>) {
        if let Some(early) = self.early(link) {
            // One packet says who it is; what follows answers a leader.
            if early.packets.is_empty() {
                early.packets.push(packet);
            }
        } else {
            turn.zab.on_learner_packet(turn.now.mono_ms, link, packet, &mut turn.out.zab);
        }
    }

    /// The other side closed a link, or it broke.
    pub(super) fn on_closed(&mut self, link: LinkId, turn: &mut Turn<'_>) {
        if let Between::Looking { early, .. } = &mut self.between {
            early.retain(|early| early.link != link);
        }
        turn.zab.on_closed(turn.now.mono_ms, link, &mut turn.out.zab);
    }

    fn early(&mut self, link: LinkId) -> Option<&mut Early> {
        let Between::Looking { early, .. } = &mut self.between else { return None };
        early.iter_mut().find(|early| early.link == link)
    }

    pub(super) fn on_tick(&mut self, turn: &mut Turn<'_>) {
        let mut links = Vec::new();
        let mut events = Vec::new();
        self.links.on_tick(turn.now.mono_ms, &mut links, &mut events);
        carry_links(links, turn);
        self.carry_events(events, turn);
        let mut votes = Vec::new();
        self.election.on_tick(&mut election::Turn::new(turn.now.mono_ms, &turn.zab.server.view, &mut votes));
        self.carry_votes(votes, turn);
        let is_looking = matches!(self.between, Between::Looking { .. });
        if is_looking
            && turn.zab.server.tree == Tree::Wrong
            && turn.now.mono_ms >= self.looking_since + init_ms(turn)
        {
            // All the others may think the same of theirs.
            turn.zab.trust_tree(turn.now.mono_ms);
            self.look(BTreeMap::new(), turn);
        }
        if is_looking
            && turn.zab.server.lacks_room(turn.now.mono_ms)
            && turn.now.mono_ms >= self.looking_since + PATIENCE_TICKS * turn.settings.tick_ms
        {
            // All the others may lack it too: one that leads keeps sessions, and reads are served.
            turn.zab.server.do_without_room(turn.now.mono_ms);
            self.look(BTreeMap::new(), turn);
        }
        if let Between::Looking { early, .. } = &mut self.between {
            let late = early.extract_if(.., |early| early.until <= turn.now.mono_ms);
            let late: Vec<LinkId> = late.map(|early| early.link).collect();
            for link in late {
                turn.zab.on_accepted(turn.now.mono_ms, link, &mut turn.out.zab);
            }
        }
    }

    /// When [`Self::on_tick`] has something to do, in monotonic milliseconds.
    pub(super) fn next_wake(&self) -> Option<u64> {
        self.election.next_wake().into_iter().chain(self.links.next_wake()).min()
    }
}

/// What the rules of the connections ask for, with the addresses of the configuration.
fn carry_links(mut links: Vec<LinkOutput>, turn: &mut Turn<'_>) {
    let server = &turn.zab.server;
    let view = &server.view;
    for link in &mut links {
        let LinkOutput::Dial { to, addresses } = link else { continue };
        if let Some(member) = view.committed.member(*to).or_else(|| view.last_seen.member(*to)) {
            let of = |address: &PeerAddress| (address.host.clone(), address.election_port);
            *addresses = member.addresses.iter().map(of).collect();
        } else if !server.is_named(*to) {
            // Anybody can ask to be called somewhere. Only servers that people named are called there.
            addresses.clear();
        }
    }
    turn.out.election.append(&mut links);
}

/// Votes ended a term that was not established.
fn lost_to(why: Overtaken) -> LostWhy {
    match why {
        Overtaken::Established(leader) => LostWhy::AnotherLeads(leader),
        Overtaken::LeaderLooks(leader) => LostWhy::LeaderLooks(leader),
        Overtaken::TooFew => LostWhy::TooFewVotes,
    }
}

/// Milliseconds in which a leader is found, if there is one.
fn init_ms(turn: &Turn<'_>) -> u64 {
    turn.settings.zab.init_limit * turn.settings.tick_ms
}

/// The state that other servers are sent.
fn peer_state(observer: bool) -> PeerState {
    if observer { PeerState::Observing } else { PeerState::Following }
}
