use super::search::{FAR_ROUND, MAX_ROUNDS_AHEAD};
use super::*;
use crate::ensemble::Ensemble;
use crate::wire::election::LAST_ROUND;
use std::sync::Arc;

const PACE: Pace =
    Pace { min_interval_ms: 200, max_interval_ms: 1600, finalize_ms: 200, empty_wait_ms: 30_000 };

fn view(voters: i64) -> View {
    let text: String = (1..=voters).map(|id| format!("server.{id}=h{id}:1:2\n")).collect();
    View::new(Arc::new(Ensemble::parse(&text).unwrap()))
}

fn candidate(id: i64, epoch: i64, zxid: i64) -> Candidate {
    Candidate { epoch: Epoch(epoch), zxid: Zxid(zxid), id: ServerId(id) }
}

/// Servers whose notifications arrive at once, in order.
struct Round {
    view: View,
    /// Those whose view is another one.
    knows: BTreeMap<i64, View>,
    servers: BTreeMap<i64, Election>,
    elected: BTreeMap<i64, i64>,
    overtaken: BTreeMap<i64, Overtaken>,
    now: u64,
}

impl Round {
    fn new(voters: i64) -> Self {
        Self {
            view: view(voters),
            knows: BTreeMap::new(),
            servers: BTreeMap::new(),
            elected: BTreeMap::new(),
            overtaken: BTreeMap::new(),
            now: 0,
        }
    }

    fn view_of(&self, id: i64) -> View {
        self.knows.get(&id).unwrap_or(&self.view).clone()
    }

    fn start(&mut self, own: Candidate, standing: Standing) {
        let mut election = Election::new(own.id, PACE);
        let mut out = Vec::new();
        election.start(own, standing, &mut Turn::new(self.now, &self.view_of(own.id.0), &mut out));
        self.servers.insert(own.id.0, election);
        self.deliver(own.id.0, out);
        let others: Vec<i64> = self.servers.keys().copied().filter(|id| *id != own.id.0).collect();
        for other in others {
            for (at, to) in [(other, own.id.0), (own.id.0, other)] {
                let (mut out, view) = (Vec::new(), self.view_of(at));
                let server = self.servers.get_mut(&at).unwrap();
                server.on_connected(ServerId(to), &mut Turn::new(self.now, &view, &mut out));
                self.deliver(at, out);
            }
        }
    }

    fn voter(&mut self, id: i64, epoch: i64, zxid: i64) {
        self.start(candidate(id, epoch, zxid), Standing::Voter);
    }

    fn deliver(&mut self, from: i64, out: Vec<Output>) {
        let mut queue: VecDeque<(i64, Output)> = out.into_iter().map(|output| (from, output)).collect();
        let mut messages = 0;
        while let Some((from, output)) = queue.pop_front() {
            messages += 1;
            assert!(messages < 1000, "servers answer each other for ever");
            match output {
                Output::Elected(leader) => {
                    self.elected.insert(from, leader.0);
                }
                Output::Overtaken(why) => {
                    self.overtaken.insert(from, why);
                }
                Output::Send { to, notification } => {
                    let view = self.view_of(to.0);
                    let Some(server) = self.servers.get_mut(&to.0) else { continue };
                    let mut out = Vec::new();
                    server.on_notification(
                        ServerId(from),
                        &notification,
                        &mut Turn::new(self.now, &view, &mut out),
                    );
                    queue.extend(out.into_iter().map(|output| (to.0, output)));
                }
            }
        }
    }

    fn pass(&mut self, ms: u64) {
        let end = self.now + ms;
        while self.now < end {
            self.now += 50;
            for id in self.servers.keys().copied().collect::<Vec<_>>() {
                let (mut out, view) = (Vec::new(), self.view_of(id));
                self.servers.get_mut(&id).unwrap().on_tick(&mut Turn::new(self.now, &view, &mut out));
                self.deliver(id, out);
            }
        }
    }

    fn connected(&mut self, at: i64, to: i64) {
        let mut out = Vec::new();
        let server = self.servers.get_mut(&at).unwrap();
        server.on_connected(ServerId(to), &mut Turn::new(self.now, &self.view, &mut out));
        self.deliver(at, out);
    }

    fn unreachable(&mut self, at: i64, gone: i64) {
        let mut out = Vec::new();
        let server = self.servers.get_mut(&at).unwrap();
        server.on_unreachable(ServerId(gone), &mut Turn::new(self.now, &self.view, &mut out));
        self.deliver(at, out);
    }

    fn elected(&self) -> Vec<(i64, i64)> {
        self.elected.iter().map(|(id, leader)| (*id, *leader)).collect()
    }
}

use std::collections::VecDeque;

#[test]
fn the_largest_epoch_wins_then_the_largest_zxid_then_the_largest_id() {
    for (votes, leader) in [
        ([(0, 0), (0, 0), (0, 0)], 3),
        ([(1, 9), (1, 5), (1, 8)], 1),
        ([(1, 9), (2, 5), (1, 8)], 2),
        ([(2, 9), (2, 9), (1, 99)], 2),
    ] {
        let mut round = Round::new(3);
        for (id, (epoch, zxid)) in (1..).zip(votes) {
            round.voter(id, epoch, zxid);
        }
        assert_eq!(round.elected(), [(1, leader), (2, leader), (3, leader)], "{votes:?}");
    }
}

#[test]
fn a_quorum_waits_for_a_better_vote_unless_nobody_is_left_to_vote() {
    let mut round = Round::new(3);
    round.voter(1, 1, 5);
    round.voter(2, 1, 5);
    assert_eq!(round.elected(), []);
    round.pass(150);
    assert_eq!(round.elected(), []);
    round.pass(100);
    assert_eq!(round.elected(), [(1, 2), (2, 2)]);

    let mut round = Round::new(3);
    round.voter(1, 1, 5);
    round.voter(2, 1, 5);
    round.unreachable(1, 3);
    round.unreachable(2, 3);
    assert_eq!(round.elected(), [], "the third may be starting");
    for id in [1, 2] {
        round.connected(id, 3);
        round.unreachable(id, 3);
    }
    assert_eq!(round.elected(), [(1, 2), (2, 2)], "the third was there, and refuses connections");
}

/// Seen on real processes: of three that started at once two followed the third, and the second waited for `initLimit` as
/// the leader of nobody.
#[test]
fn an_elected_server_that_nobody_follows_hears_of_the_established_leader() {
    // Server 2 elected itself by a vote that 1 changed a moment later; 1 and 3 elect 3.
    let (view, mut out) = (view(3), Vec::new());
    let mut lonely = Election::new(ServerId(2), PACE);
    lonely.start(candidate(2, 1, 5), Standing::Voter, &mut Turn::new(0, &view, &mut out));
    lonely.on_notification(ServerId(1), &told(PeerState::Looking, 2), &mut Turn::new(0, &view, &mut out));
    lonely.on_tick(&mut Turn::new(PACE.finalize_ms, &view, &mut out));
    assert!(out.contains(&Output::Elected(ServerId(2))));
    out.clear();
    lonely.on_notification(ServerId(1), &told(PeerState::Following, 3), &mut Turn::new(210, &view, &mut out));
    assert_eq!(overtaken(&out), [], "3 may still follow");
    lonely.on_notification(ServerId(3), &told(PeerState::Leading, 3), &mut Turn::new(210, &view, &mut out));
    assert_eq!(overtaken(&out), [Overtaken::Established(ServerId(3))]);
}

/// Seen on real processes: of four servers of five two followed one leader and two another, for `initLimit`.
#[test]
fn a_leader_that_can_have_no_quorum_looks_again() {
    let (view, mut out) = (view(5), Vec::new());
    let mut election = Election::new(ServerId(4), PACE);
    election.start(candidate(4, 1, 5), Standing::Voter, &mut Turn::new(0, &view, &mut out));
    for from in [1, 2, 3] {
        election.on_notification(
            ServerId(from),
            &told(PeerState::Looking, 4),
            &mut Turn::new(0, &view, &mut out),
        );
    }
    election.on_tick(&mut Turn::new(PACE.finalize_ms, &view, &mut out));
    out.clear();
    election.on_notification(
        ServerId(1),
        &told(PeerState::Following, 3),
        &mut Turn::new(210, &view, &mut out),
    );
    election.on_notification(ServerId(3), &told(PeerState::Leading, 3), &mut Turn::new(210, &view, &mut out));
    assert_eq!(overtaken(&out), [], "5 was not heard, and may follow");
    election.on_unreachable(ServerId(5), &mut Turn::new(220, &view, &mut out));
    assert_eq!(overtaken(&out), [], "what tells otherwise may be on its way");
    election.on_tick(&mut Turn::new(270, &view, &mut out));
    assert_eq!(overtaken(&out), [Overtaken::TooFew]);
}

#[test]
fn a_learner_whose_leader_goes_another_way_looks_again() {
    let view = view(5);
    let mut out = Vec::new();
    let elected_3 = |out: &mut Vec<Output>| {
        let mut election = Election::new(ServerId(1), PACE);
        election.start(candidate(1, 1, 5), Standing::Voter, &mut Turn::new(0, &view, out));
        for from in [2, 3] {
            election.on_notification(
                ServerId(from),
                &told(PeerState::Looking, 3),
                &mut Turn::new(0, &view, out),
            );
        }
        election.on_tick(&mut Turn::new(PACE.finalize_ms, &view, out));
        assert!(out.contains(&Output::Elected(ServerId(3))));
        out.clear();
        election
    };
    let mut election = elected_3(&mut out);
    election.on_notification(ServerId(3), &told(PeerState::Leading, 3), &mut Turn::new(210, &view, &mut out));
    election.on_notification(ServerId(4), &told(PeerState::Looking, 4), &mut Turn::new(210, &view, &mut out));
    assert_eq!(overtaken(&out), [], "3 leads, and 4 is alone");
    let mut election = elected_3(&mut out);
    election.on_notification(ServerId(3), &told(PeerState::Looking, 5), &mut Turn::new(210, &view, &mut out));
    assert_eq!(overtaken(&out), []);
    assert!(election.next_wake().is_some_and(|at| at <= 260));
    election.on_tick(&mut Turn::new(260, &view, &mut out));
    assert_eq!(overtaken(&out), [Overtaken::LeaderLooks(ServerId(3))]);
    // A vote that it sent before it was elected comes behind, and its own outcome right after it.
    let mut election = elected_3(&mut out);
    election.on_notification(ServerId(3), &told(PeerState::Looking, 5), &mut Turn::new(210, &view, &mut out));
    election.on_notification(ServerId(3), &told(PeerState::Leading, 3), &mut Turn::new(211, &view, &mut out));
    election.on_tick(&mut Turn::new(300, &view, &mut out));
    assert_eq!(overtaken(&out), []);
    // It lost its disk at that moment.
    let mut election = elected_3(&mut out);
    let empty = Notification { zxid: Zxid::NO_DATA, peer_epoch: Epoch(0), ..told(PeerState::Looking, 3) };
    election.on_notification(ServerId(3), &empty, &mut Turn::new(210, &view, &mut out));
    election.on_tick(&mut Turn::new(260, &view, &mut out));
    assert_eq!(overtaken(&out), [Overtaken::LeaderLooks(ServerId(3))]);
    // It led, and looks again in a later round.
    let mut election = elected_3(&mut out);
    election.on_notification(ServerId(3), &told(PeerState::Leading, 3), &mut Turn::new(300, &view, &mut out));
    let later = Notification { round: 2, ..told(PeerState::Looking, 3) };
    election.on_notification(ServerId(3), &later, &mut Turn::new(310, &view, &mut out));
    election.on_tick(&mut Turn::new(360, &view, &mut out));
    assert_eq!(overtaken(&out), [Overtaken::LeaderLooks(ServerId(3))]);
    let mut election = elected_3(&mut out);
    for from in [2, 4, 5] {
        let state = if from == 5 { PeerState::Leading } else { PeerState::Following };
        election.on_notification(ServerId(from), &told(state, 5), &mut Turn::new(210, &view, &mut out));
    }
    assert_eq!(overtaken(&out), [Overtaken::Established(ServerId(5))]);
}

fn told(state: PeerState, leader: i64) -> Notification {
    Notification {
        state,
        leader: ServerId(leader),
        zxid: Zxid(5),
        round: 1,
        peer_epoch: Epoch(1),
        version: 2,
        config: None,
    }
}

fn overtaken(out: &[Output]) -> Vec<Overtaken> {
    let found = out.iter().filter_map(|output| match output {
        Output::Overtaken(why) => Some(*why),
        Output::Send { .. } | Output::Elected(_) => None,
    });
    found.collect()
}

#[test]
fn a_late_server_joins_the_established_leader_and_does_not_disturb_it() {
    let mut round = Round::new(3);
    round.voter(1, 1, 5);
    round.voter(2, 1, 5);
    round.pass(300);
    for id in [1, 2] {
        round.servers.get_mut(&id).unwrap().joined(Epoch(2));
    }
    round.voter(3, 1, 99);
    assert_eq!(round.elected(), [(1, 2), (2, 2), (3, 2)]);
}

#[test]
fn who_merely_believes_in_a_leader_is_not_enough() {
    // Server 1 follows 3, which is gone; 2 must not join on that word alone.
    let mut round = Round::new(3);
    round.voter(1, 1, 5);
    round.servers.get_mut(&1).unwrap().settle(ServerId(3), Zxid(5), Epoch(2), PeerState::Following);
    round.voter(2, 1, 5);
    round.pass(3000);
    assert_eq!(round.elected(), []);
}

#[test]
fn observers_learn_the_leader_and_nobody_counts_them() {
    let mut round = Round::new(3);
    round.start(candidate(9, 0, 0), Standing::Observer);
    round.voter(1, 1, 5);
    round.pass(1000);
    assert_eq!(round.elected(), [], "a voter and an observer are no quorum of three");
    round.voter(2, 1, 5);
    round.pass(2000);
    assert_eq!(round.elected(), [(1, 2), (2, 2), (9, 2)]);
}

#[test]
fn an_empty_server_votes_among_empty_ones_once_all_were_heard() {
    let mut round = Round::new(3);
    for id in [1, 2, 3] {
        assert_eq!(round.elected(), []);
        round.start(candidate(id, 0, 0), Standing::New);
    }
    assert_eq!(round.elected(), [(1, 3), (2, 3), (3, 3)]);
}

/// Who is not up may have a history: the empty ones wait for it, and not for ever.
#[test]
fn empty_servers_wait_for_one_that_was_not_heard() {
    let mut round = Round::new(3);
    for id in [1, 2] {
        round.start(candidate(id, 0, 0), Standing::New);
        round.unreachable(id, 3);
    }
    round.pass(PACE.empty_wait_ms - 100);
    assert_eq!(round.elected(), []);
    round.pass(400);
    assert_eq!(round.elected(), [(1, 2), (2, 2)]);

    let mut round = Round::new(3);
    for id in [1, 2] {
        round.start(candidate(id, 0, 0), Standing::New);
    }
    round.pass(PACE.empty_wait_ms - 100);
    round.voter(3, 0, 7);
    round.pass(2000);
    assert_eq!(round.elected(), [(1, 3), (2, 3), (3, 3)]);
}

#[test]
fn an_empty_server_does_not_help_a_history_that_may_be_old_into_the_lead() {
    // The disk of 1 was lost; 3, which is down, may have what 1 acknowledged and 2 lacks.
    let mut round = Round::new(3);
    round.start(candidate(1, 0, 0), Standing::New);
    round.voter(2, 1, 5);
    round.unreachable(1, 3);
    round.unreachable(2, 3);
    round.pass(3000);
    assert_eq!(round.elected(), []);
    round.voter(3, 1, 7);
    round.pass(3000);
    assert_eq!(round.elected(), [(1, 3), (2, 3), (3, 3)]);
}

#[test]
fn empty_servers_elect_the_one_with_data_once_everybody_was_heard() {
    let mut round = Round::new(3);
    round.start(candidate(1, 0, 0), Standing::New);
    round.start(candidate(3, 0, 0), Standing::New);
    round.voter(2, 1, 5);
    round.pass(3000);
    assert_eq!(round.elected(), [(1, 2), (2, 2), (3, 2)]);
}

#[test]
fn a_server_with_a_damaged_tail_votes_for_nobody_that_has_less() {
    let damaged = Standing::AtLeast(Epoch(1), Zxid(7));
    let mut round = Round::new(3);
    round.start(candidate(1, 1, 5), damaged);
    round.voter(2, 1, 6);
    round.pass(3000);
    assert_eq!(round.elected(), []);
    round.voter(3, 1, 7);
    round.pass(3000);
    assert_eq!(round.elected(), [(1, 3), (2, 3), (3, 3)]);
}

/// Found by the simulator: nobody hears the round of a vote without data, so it must not wait in one of its own.
#[test]
fn a_server_that_offers_nothing_follows_the_others_into_their_round() {
    let mut round = Round::new(2);
    let owes = Standing::AtLeast(Epoch(2), Zxid(12));
    let mut election = Election::new(ServerId(1), PACE);
    for _ in 0..3 {
        election.start(candidate(1, 2, 10), owes, &mut Turn::new(0, &round.view, &mut Vec::new()));
    }
    round.servers.insert(1, election);
    round.voter(2, 5, 14);
    round.pass(1000);
    assert_eq!(round.elected(), [(1, 2), (2, 2)]);
}

/// Found by the simulator: 3 has seen a configuration without 1 that was never committed, and 1 and 2 elected 2 without it.
#[test]
fn a_leader_that_does_not_know_the_pending_configuration_is_joined() {
    let mut view = view(3);
    let next = Ensemble::parse("server.2=h2:1:2\nserver.3=h3:1:2\nversion=9").unwrap();
    let mut out = Vec::new();
    let mut election = Election::new(ServerId(3), PACE);
    view.last_seen = Arc::new(next);
    election.start(candidate(3, 1, 9), Standing::Voter, &mut Turn::new(0, &view, &mut out));
    out.clear();
    for (from, state) in [(1, PeerState::Following), (2, PeerState::Leading)] {
        let told = Notification {
            state,
            leader: ServerId(2),
            zxid: Zxid(5),
            round: 7,
            peer_epoch: Epoch(2),
            version: 2,
            config: None,
        };
        election.on_notification(ServerId(from), &told, &mut Turn::new(0, &view, &mut out));
    }
    assert_eq!(out.last(), Some(&Output::Elected(ServerId(2))));
}

/// Found by the simulator: 6 is to join 2 and 4, which 2 has not seen. It follows 4, whose vote has gone on to 6 meanwhile; 6 is
/// nobody to 2, and without 2 there is no quorum.
#[test]
fn who_is_followed_by_a_quorum_leads_though_it_voted_for_another() {
    let ensemble = |text: &str| Arc::new(Ensemble::parse(text).unwrap());
    let mut view = View::new(ensemble("server.2=h2:1:2\nserver.4=h4:1:2"));
    view.last_seen = ensemble("server.2=h2:1:2\nserver.4=h4:1:2\nserver.6=h6:1:2\nversion=9");
    let mut election = Election::new(ServerId(4), PACE);
    let mut out = Vec::new();
    election.start(candidate(4, 2, 9), Standing::Voter, &mut Turn::new(0, &view, &mut out));
    for (from, leader, state) in [(6, 6, PeerState::Looking), (2, 4, PeerState::Following)] {
        assert!(!out.iter().any(|output| matches!(output, Output::Elected(_))), "not yet");
        let told = Notification {
            state,
            leader: ServerId(leader),
            zxid: Zxid(9),
            round: 1,
            peer_epoch: Epoch(2),
            version: 2,
            config: None,
        };
        election.on_notification(ServerId(from), &told, &mut Turn::new(0, &view, &mut out));
    }
    assert_eq!(out.last(), Some(&Output::Elected(ServerId(4))));
}

/// Found by the simulator: a new voter of a configuration that it has not seen yet is needed for the quorum.
#[test]
fn a_voter_that_does_not_know_it_yet_votes() {
    let mut round = Round::new(2);
    let old = view(1);
    let mut joiner = Election::new(ServerId(2), PACE);
    for _ in 0..3 {
        joiner.start(candidate(2, 1, 1), Standing::Voter, &mut Turn::new(0, &old, &mut Vec::new()));
    }
    let mut leader = Election::new(ServerId(1), PACE);
    let mut out = Vec::new();
    leader.start(candidate(1, 1, 5), Standing::Voter, &mut Turn::new(0, &round.view, &mut out));
    let vote = leader.voter.notify(ServerId(2), &round.view);
    let Output::Send { notification, .. } = vote else { panic!("it notifies") };
    out.clear();
    joiner.on_notification(ServerId(1), &notification, &mut Turn::new(0, &old, &mut out));
    round.servers.insert(1, leader);
    round.deliver(2, out);
    assert_eq!(round.elected(), [(1, 1), (2, 1)]);
}

/// Found by the simulator: a server that does not vote answered lower rounds, and every voter answers who does not vote.
#[test]
fn who_does_not_vote_and_who_does_do_not_answer_each_other_for_ever() {
    let mut round = Round::new(2);
    let mut outsider = Election::new(ServerId(9), PACE);
    for _ in 0..3 {
        outsider.start(
            candidate(9, 1, 1),
            Standing::Observer,
            &mut Turn::new(0, &round.view, &mut Vec::new()),
        );
    }
    round.servers.insert(9, outsider);
    round.voter(1, 1, 1);
    round.pass(1000);
    assert_eq!(round.elected(), []);
    round.voter(2, 1, 1);
    round.pass(1000);
    assert_eq!(round.elected(), [(1, 2), (2, 2), (9, 2)]);
}

/// Found by the simulator: after a first election that split, empty servers looked again and waited to hear everybody; the
/// others were silent until their next turn, as a vote without data takes nobody into its round.
#[test]
fn a_silent_server_in_a_later_round_is_answered() {
    let (view, mut out) = (view(3), Vec::new());
    let mut silent = Election::new(ServerId(1), PACE);
    let (nothing, mut dropped) = (candidate(1, 0, 0), Vec::new());
    silent.start(nothing, Standing::New, &mut Turn::new(0, &view, &mut dropped));
    let mut voter = Election::new(ServerId(2), PACE);
    voter.start(candidate(2, 0, 0), Standing::Voter, &mut Turn::new(0, &view, &mut dropped));

    let asks = silent.present(&view);
    assert_eq!((asks.round, asks.zxid), (1, Zxid::NO_DATA));
    voter.on_notification(ServerId(1), &asks, &mut Turn::new(0, &view, &mut out));
    assert_eq!(out, [], "both are in the same round, and have sent their votes");

    silent.start(nothing, Standing::New, &mut Turn::new(0, &view, &mut dropped));
    let asks = silent.present(&view);
    assert_eq!((asks.round, asks.zxid), (2, Zxid::NO_DATA));
    voter.on_notification(ServerId(1), &asks, &mut Turn::new(0, &view, &mut out));
    let [Output::Send { to: ServerId(1), notification }] = &out[..] else { panic!("{out:?}") };
    assert_eq!((notification.leader, notification.round), (ServerId(2), 1));
    let answer = notification.clone();
    out.clear();
    silent.on_notification(ServerId(2), &answer, &mut Turn::new(0, &view, &mut out));
    let is_for_two = |output: &Output| matches!(output, Output::Send { to: ServerId(2), .. });
    assert!(out.iter().filter(|output| is_for_two(output)).count() <= 1, "an answer to the answer: {out:?}");
}

#[test]
fn a_server_without_weight_never_leads() {
    let text = "server.1=a:1:2\nserver.2=b:1:2\nserver.3=c:1:2\ngroup.1=1:2:3\nweight.3=0\n";
    let mut round = Round::new(3);
    round.view = View::new(Arc::new(Ensemble::parse(text).unwrap()));
    round.voter(1, 1, 5);
    round.voter(2, 1, 5);
    round.voter(3, 1, 5);
    round.pass(1000);
    assert_eq!(round.elected.get(&1), Some(&2));
    assert_eq!(round.elected.get(&2), Some(&2));
}

#[test]
fn a_pending_configuration_has_to_agree_too() {
    let mut round = Round::new(3);
    let next = "server.3=h3:1:2\nserver.4=h4:1:2\nserver.5=h5:1:2\nversion=5";
    round.view.last_seen = Arc::new(Ensemble::parse(next).unwrap());
    round.voter(1, 1, 5);
    round.voter(2, 1, 5);
    round.voter(3, 1, 5);
    round.pass(3000);
    assert_eq!(round.elected(), []);
    round.voter(4, 1, 5);
    round.pass(3000);
    assert_eq!(
        round.elected(),
        [(1, 3), (2, 3), (3, 3), (4, 3)],
        "with as much, a voter that all know leads"
    );
}

#[test]
fn a_voter_of_the_pending_configuration_leads_where_it_has_most() {
    let mut round = Round::new(3);
    let next = "server.3=h3:1:2\nserver.4=h4:1:2\nserver.5=h5:1:2\nversion=5";
    round.view.last_seen = Arc::new(Ensemble::parse(next).unwrap());
    for (id, zxid) in [(1, 5), (2, 5), (3, 5), (4, 6)] {
        round.voter(id, 1, zxid);
    }
    round.pass(3000);
    assert_eq!(round.elected(), [(1, 4), (2, 4), (3, 4), (4, 4)]);
}

/// Found by the simulator: 3, which is to join 1 and 2, has most; but 2 has not heard of it, and without 2 there is no quorum.
#[test]
fn nobody_leads_whom_a_server_that_is_needed_does_not_know() {
    let mut round = Round::new(2);
    let next = "server.1=h1:1:2\nserver.2=h2:1:2\nserver.3=h3:1:2\nversion=5";
    round.view.last_seen = Arc::new(Ensemble::parse(next).unwrap());
    round.voter(3, 1, 6);
    round.voter(1, 1, 5);
    round.pass(3000);
    assert_eq!(round.elected(), []);
    round.knows.insert(2, view(2));
    round.voter(2, 1, 4);
    round.pass(3000);
    assert_eq!(round.elected(), [(1, 1), (2, 1), (3, 1)]);
}

/// Found by the simulator: others went on to tell what it had before its disk was lost, and elected it.
#[test]
fn a_server_does_not_lead_by_votes_for_more_than_it_has() {
    let mut round = Round::new(3);
    round.voter(3, 1, 1);
    round.voter(1, 1, 9);
    round.pass(100);
    assert_eq!(round.elected(), [], "they wait for a better vote");
    round.start(candidate(1, 0, 0), Standing::New);
    round.pass(3000);
    assert_eq!(round.elected(), [], "2 may have more");
    round.voter(2, 1, 7);
    round.pass(3000);
    assert_eq!(round.elected(), [(1, 2), (2, 2), (3, 2)]);
}

fn vote(leader: i64, round: i64) -> Notification {
    let (state, zxid, peer_epoch) = (PeerState::Looking, Zxid(0x7000_0000_0000), Epoch(0x7000));
    Notification { state, leader: ServerId(leader), zxid, round, peer_epoch, version: 2, config: None }
}

impl Round {
    /// Server 3 is claimed by somebody who tells `at` this.
    fn lie(&mut self, at: i64, heard: &Notification) {
        self.lie_as(3, at, heard);
    }

    fn lie_as(&mut self, claimed: i64, at: i64, heard: &Notification) {
        let (mut out, view) = (Vec::new(), self.view_of(at));
        let server = self.servers.get_mut(&at).unwrap();
        server.on_notification(ServerId(claimed), heard, &mut Turn::new(self.now, &view, &mut out));
        self.deliver(at, out);
    }
}

#[test]
fn no_vote_leads_to_where_the_rounds_end() {
    for leader in [1, 2] {
        let mut round = Round::new(3);
        round.voter(1, 1, 1);
        for _ in 0..1000 {
            round.lie(1, &vote(leader, LAST_ROUND));
            let farthest = round.servers[&1].round().max(FAR_ROUND - MAX_ROUNDS_AHEAD) + MAX_ROUNDS_AHEAD;
            round.lie(1, &vote(leader, farthest));
        }
        assert!(round.servers[&1].round() < FAR_ROUND + 2000 * MAX_ROUNDS_AHEAD);
    }
}

#[test]
fn who_may_not_lead_is_not_elected_by_those_who_follow_it_still() {
    let mut round = Round::new(3);
    round.start(candidate(1, 2, 9), Standing::AtLeast(Epoch(2), Zxid(9)));
    let votes =
        Notification { zxid: Zxid(9), peer_epoch: Epoch(1), state: PeerState::Following, ..vote(1, 1) };
    round.lie_as(2, 1, &votes);
    round.lie_as(3, 1, &votes);
    assert_eq!(round.elected(), []);
}

/// A liar leads servers far away, each to a round of its own.
fn led_far(servers: impl IntoIterator<Item = i64>) -> Round {
    let mut round = Round::new(5);
    for id in servers {
        // Each is alone: nobody hears the liar's two claims but it.
        let mut alone = Round::new(5);
        alone.voter(id, 1, 1);
        for step in 0..1000 * id {
            for claimed in [4, 5] {
                alone.lie_as(claimed, id, &vote(id, FAR_ROUND + step * MAX_ROUNDS_AHEAD));
            }
        }
        assert!(alone.servers[&id].round() > FAR_ROUND + 500 * MAX_ROUNDS_AHEAD);
        let election = alone.servers.remove(&id).unwrap();
        round.servers.insert(id, election);
        round.unreachable(id, 4);
        round.unreachable(id, 5);
    }
    round
}

#[test]
fn servers_that_a_liar_led_far_away_meet_those_that_start_again() {
    for far in [vec![], vec![1], vec![2, 3], vec![1, 2, 3]] {
        let mut round = led_far(far.iter().copied());
        for id in (1..=3).filter(|id| !far.contains(id)) {
            round.voter(id, 1, 1);
            round.unreachable(id, 4);
            round.unreachable(id, 5);
        }
        round.pass(4000);
        assert_eq!(round.elected(), [(1, 3), (2, 3), (3, 3)], "far: {far:?}");
    }
}

#[test]
fn who_is_a_little_ahead_in_a_far_round_stays_there() {
    let mut round = Round::new(3);
    round.voter(1, 1, 1);
    round.lie(1, &vote(2, FAR_ROUND));
    round.lie(1, &vote(2, FAR_ROUND + 1));
    assert_eq!(round.servers[&1].round(), FAR_ROUND + 1);
    round.lie(1, &vote(2, FAR_ROUND));
    round.pass(1000);
    assert_eq!(round.servers[&1].round(), FAR_ROUND + 1);
}

#[test]
fn the_last_round_is_stayed_in() {
    let (view, mut out) = (view(3), Vec::new());
    let mut election = Election::new(ServerId(1), PACE);
    election.voter.round = LAST_ROUND;
    election.start(candidate(1, 1, 1), Standing::Voter, &mut Turn::new(0, &view, &mut out));
    for heard in [vote(1, LAST_ROUND), vote(2, LAST_ROUND), vote(1, i64::MAX)] {
        election.on_notification(ServerId(3), &heard, &mut Turn::new(0, &view, &mut out));
    }
    assert!(election.round() <= LAST_ROUND);
}

mod links {
    use super::super::links::{PROOF_MS, SILENCE_MS};
    use super::*;
    use bytes::{Bytes, BytesMut};

    fn notification() -> Notification {
        Notification {
            state: PeerState::Looking,
            leader: ServerId(1),
            zxid: Zxid(0),
            round: 1,
            peer_epoch: Epoch(0),
            version: 2,
            config: Some(Bytes::from_static(b"version=0")),
        }
    }

    fn initial(from: i64) -> Vec<u8> {
        let mut out = bytes::BytesMut::new();
        crate::wire::election::InitialMessage { from: ServerId(from), addresses: vec![("h".into(), 2)] }
            .encode(&mut out);
        out.to_vec()
    }

    struct Two {
        links: Links,
        out: Vec<LinkOutput>,
        events: Vec<LinkEvent>,
    }

    impl Two {
        fn new() -> Self {
            let links = Links::new(ServerId(2), vec![("me".into(), 2)], 1000);
            Self { links, out: Vec::new(), events: Vec::new() }
        }

        fn accept(&mut self, conn: u64, bytes: &[u8]) {
            self.links.on_accepted(0, ElectionConn(conn), &mut self.out);
            self.bytes(conn, bytes);
        }

        fn bytes(&mut self, conn: u64, bytes: &[u8]) {
            let admits = |id: ServerId| match id.0 {
                1..=3 => Admission::Member,
                0 => Admission::Guest,
                _ => Admission::Refused,
            };
            self.links.on_bytes(0, ElectionConn(conn), bytes, &admits, &mut self.out, &mut self.events);
            self.answer();
        }

        fn answer(&mut self) {
            let asked = self.events.extract_if(.., |event| matches!(event, LinkEvent::Asked { .. }));
            for event in asked.collect::<Vec<_>>() {
                let LinkEvent::Asked { conn, .. } = event else { continue };
                self.links.answer(conn, &notification(), &mut self.out);
            }
        }

        fn closed(&self) -> Vec<u64> {
            let closed = self.out.iter().filter_map(|output| match output {
                LinkOutput::Close { conn, .. } => Some(conn.0),
                _ => None,
            });
            closed.collect()
        }

        fn dialed(&self) -> Vec<i64> {
            let dialed = self.out.iter().filter_map(|output| match output {
                LinkOutput::Dial { to, .. } => Some(to.0),
                _ => None,
            });
            dialed.collect()
        }
    }

    fn connected(to: i64) -> LinkEvent {
        LinkEvent::Connected { to: ServerId(to), owed: false }
    }

    /// Found by the simulator: a server kept a message of long ago for one that had since answered it. When that one came
    /// back with an empty disk, it took the configuration of the message, in which it was the only voter, and led.
    #[test]
    fn what_could_not_leave_is_not_sent_when_it_may_be_over() {
        let mut two = Two::new();
        two.links.send(0, ServerId(3), &notification(), &mut two.out);
        two.links.send(0, ServerId(3), &notification(), &mut two.out);
        assert_eq!(two.dialed(), [3], "one dial at a time");
        two.out.clear();
        two.accept(7, &initial(3));
        assert_eq!(
            (&two.out[..], &two.events[..]),
            (&[][..], &[LinkEvent::Connected { to: ServerId(3), owed: true }][..])
        );

        let mut two = Two::new();
        two.links.send(0, ServerId(3), &notification(), &mut two.out);
        two.links.on_dialed(0, ServerId(3), ElectionConn(7), &mut two.out, &mut two.events);
        two.bytes(7, &[0, 0, 0, 1]);
        two.out.clear();
        two.links.send(0, ServerId(3), &notification(), &mut two.out);
        assert!(
            matches!(two.out[..], [LinkOutput::Write { conn: ElectionConn(7), .. }]),
            "it answered there"
        );
        two.accept(8, &initial(3));
        two.links.on_tick(PROOF_MS, &mut two.out, &mut two.events);
        assert_eq!(two.events.last(), Some(&connected(3)), "nothing is owed any more");
    }

    #[test]
    fn the_connection_dialled_by_the_larger_id_lives() {
        let mut two = Two::new();
        two.accept(7, &initial(3));
        assert_eq!(two.events, [connected(3)]);
        two.accept(8, &initial(1));
        assert_eq!((two.closed(), two.dialed()), (vec![8], vec![1]), "the smaller one is called back");
        two.links.on_dialed(0, ServerId(1), ElectionConn(9), &mut two.out, &mut two.events);
        assert_eq!(two.events.last(), Some(&connected(1)));
        two.links.on_dialed(0, ServerId(3), ElectionConn(10), &mut two.out, &mut two.events);
        assert_eq!(two.closed(), [8], "that one calls back, and closes this one");
    }

    #[test]
    fn a_claim_to_be_somebody_does_not_cut_the_living_connection() {
        let mut two = Two::new();
        two.links.on_dialed(0, ServerId(1), ElectionConn(9), &mut two.out, &mut two.events);
        two.accept(7, &initial(1));
        assert_eq!((two.closed(), two.dialed()), (vec![7], vec![]), "it was called a moment ago");
        two.links.on_accepted(1000, ElectionConn(8), &mut two.out);
        let known = |_: ServerId| Admission::Member;
        two.links.on_bytes(1000, ElectionConn(8), &initial(1), &known, &mut two.out, &mut two.events);
        two.answer();
        assert_eq!((two.closed(), two.dialed()), (vec![7, 8], vec![]), "first it is asked");
        assert_eq!(two.events.pop(), Some(LinkEvent::Claimed(ServerId(1))));
        two.links.on_tick(3000, &mut two.out, &mut two.events);
        assert_eq!(two.dialed(), [1]);
        two.links.on_dial_failed(ServerId(1), &mut two.events);
        two.out.clear();
        two.links.send(0, ServerId(1), &notification(), &mut two.out);
        assert!(matches!(two.out[..], [LinkOutput::Write { conn: ElectionConn(9), .. }]));
    }

    #[test]
    fn a_living_connection_of_the_larger_id_stays_and_a_silent_one_gives_way() {
        for (lives, expected) in [(true, 8), (false, 7)] {
            let mut two = Two::new();
            two.accept(7, &initial(3));
            two.events.clear();
            two.accept(8, &initial(3));
            assert_eq!((two.closed(), &two.events[..]), (vec![], &[LinkEvent::Claimed(ServerId(3))][..]));
            two.bytes(8, &[0; 100]);
            if lives {
                two.bytes(7, &[0, 0, 0, 1]);
            }
            two.links.on_tick(PROOF_MS, &mut two.out, &mut two.events);
            assert_eq!(two.closed()[..1], [expected]);
        }
    }

    #[test]
    fn where_the_old_connection_ends_the_newer_one_takes_its_place_with_what_it_said() {
        let mut two = Two::new();
        two.accept(7, &initial(3));
        two.accept(8, &initial(3));
        let mut said = BytesMut::new();
        notification().encode(&mut said);
        two.bytes(8, &said);
        two.events.clear();
        two.links.on_closed(0, ElectionConn(7), &mut two.out, &mut two.events);
        let heard = LinkEvent::Heard { from: ServerId(3), notification: notification(), proved: false };
        assert_eq!(two.events, [connected(3), heard]);
        assert!(two.dialed().is_empty());
    }

    #[test]
    fn who_is_in_no_configuration_is_answered_where_he_connected_and_not_called() {
        let mut two = Two::new();
        two.accept(7, &initial(0));
        assert_eq!((two.closed(), two.dialed()), (vec![], vec![]));
        assert!(matches!(two.out[..], [LinkOutput::Write { conn: ElectionConn(7), .. }]));
        two.links.send(0, ServerId(0), &notification(), &mut two.out);
        assert!(two.dialed().is_empty());
    }

    /// The other side of that: what a server says where this one has connected is proved to be its own.
    #[test]
    fn a_connection_that_is_answered_serves_until_the_larger_id_calls() {
        let mut two = Two::new();
        two.links.send(0, ServerId(3), &notification(), &mut two.out);
        two.links.on_dialed(0, ServerId(3), ElectionConn(9), &mut two.out, &mut two.events);
        assert!(two.closed().is_empty());
        let mut said = BytesMut::new();
        notification().encode(&mut said);
        two.bytes(9, &said);
        let heard = LinkEvent::Heard { from: ServerId(3), notification: notification(), proved: true };
        assert_eq!(two.events, [heard]);
        two.out.clear();
        two.links.send(0, ServerId(3), &notification(), &mut two.out);
        assert!(matches!(two.out[..], [LinkOutput::Write { conn: ElectionConn(9), .. }]));
        assert!(two.links.connected().eq([ServerId(3)]));
    }

    #[test]
    fn who_stays_silent_is_called() {
        let mut two = Two::new();
        two.accept(7, &initial(3));
        for (now, dialed) in [(0, 0), (SILENCE_MS - 1, 0), (SILENCE_MS, 1), (SILENCE_MS + 100, 1)] {
            two.links.send(now, ServerId(3), &notification(), &mut two.out);
            assert_eq!(two.dialed().len(), dialed, "at {now}");
        }
    }

    #[test]
    fn whether_a_server_is_gone_is_found_out_when_its_connection_ends() {
        let mut two = Two::new();
        two.accept(7, &initial(3));
        two.accept(8, &initial(1));
        two.links.on_dialed(0, ServerId(1), ElectionConn(9), &mut two.out, &mut two.events);
        two.out.clear();
        two.links.on_closed(1000, ElectionConn(7), &mut two.out, &mut two.events);
        two.links.on_closed(1000, ElectionConn(9), &mut two.out, &mut two.events);
        assert_eq!(two.dialed(), [3, 1]);
        two.links.on_dial_failed(ServerId(3), &mut two.events);
        assert_eq!(two.events.last(), Some(&LinkEvent::Unreachable(ServerId(3))));
    }

    #[test]
    fn a_dying_server_that_still_takes_a_connection_is_called_again_but_not_in_a_circle() {
        let mut two = Two::new();
        two.accept(8, &initial(1));
        two.links.on_dialed(0, ServerId(1), ElectionConn(9), &mut two.out, &mut two.events);
        two.out.clear();
        let mut conn = 9;
        for now in 1000..2000 {
            two.links.on_closed(now, ElectionConn(conn), &mut two.out, &mut two.events);
            two.links.on_tick(now, &mut two.out, &mut two.events);
            if two.dialed().len() as u64 > conn - 9 {
                conn += 1;
                two.links.on_dialed(now, ServerId(1), ElectionConn(conn), &mut two.out, &mut two.events);
            }
        }
        assert_eq!(two.dialed().len(), 4, "in one second");
        two.out.clear();
        two.links.on_dial_failed(ServerId(1), &mut two.events);
        two.links.on_tick(3000, &mut two.out, &mut two.events);
        assert_eq!((two.dialed(), two.links.next_wake()), (vec![], None), "it is gone");
    }

    #[test]
    fn strangers_liars_and_the_silent_are_refused() {
        let mut two = Two::new();
        two.accept(1, &initial(9));
        two.accept(2, &initial(2));
        two.accept(3, &[0x80; 16]);
        two.accept(4, b"");
        two.links.on_tick(1000, &mut two.out, &mut two.events);
        assert_eq!(two.closed(), [1, 2, 3, 4]);
        for conn in 10..80 {
            two.accept(conn, b"");
        }
        assert_eq!(two.closed().len(), 4 + 70 - MAX);
        assert_eq!(two.events, []);
    }

    const MAX: usize = 64;

    #[test]
    fn messages_come_out_of_the_stream_however_it_is_cut() {
        let mut frame = bytes::BytesMut::new();
        notification().encode(&mut frame);
        notification().encode(&mut frame);
        let stream = [initial(3), frame.to_vec()].concat();
        for cut in 0..stream.len() {
            let mut two = Two::new();
            two.accept(7, &stream[..cut]);
            two.bytes(7, &stream[cut..]);
            let heard = two.events.iter().filter(|event| matches!(event, LinkEvent::Heard { .. })).count();
            assert_eq!((heard, two.closed()), (2, vec![]), "cut at {cut}");
        }
    }

    #[test]
    fn a_frame_of_a_wrong_length_ends_the_connection_and_one_that_does_not_decode_is_stepped_over() {
        let mut two = Two::new();
        two.accept(7, &initial(3));
        two.bytes(7, &[0, 0, 0, 2, 1, 1]);
        assert!(two.closed().is_empty());
        two.bytes(7, &i32::MAX.to_be_bytes());
        assert_eq!(two.closed(), [7]);
    }
}
