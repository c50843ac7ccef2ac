//! The protocol as a value: what a server does with what it has.

use super::*;
use crate::jute::records::{ErrorTxn, SetDataTxn, TxnHeader};
use crate::model::Place;
use crate::wire::quorum::{Forwarded, NO_ROOM, OBSERVE, PROTOCOL, Plea, take};

const LINK: LinkId = LinkId(1);

pub(crate) fn settings(me: ServerId) -> Settings {
    Settings {
        me,
        tick_ms: 100,
        init_limit: 10,
        sync_limit: 5,
        connect_limit: 10,
        reconfig_enabled: false,
        strangers: Strangers::Refused,
        force_snapshot_sync: false,
        disk_sync: true,
        history_entries: 500,
        history_bytes: 1 << 20,
        history_most: usize::MAX,
        window_bytes: 1 << 20,
        max_unlogged_bytes: 1 << 20,
        epoch_len: u32::MAX,
    }
}

/// Server 1 of three, with nothing.
fn new() -> Zab {
    let three = Ensemble::parse("server.1=a:1:2\nserver.2=b:1:2\nserver.3=c:1:2").unwrap();
    let at = Position {
        committed: Zxid::ZERO,
        accepted: Epoch(0),
        current: Epoch(0),
        last: Zxid::ZERO,
        recent: Vec::new(),
        debt: Debt::None,
        abstains: false,
        tree_differs: false,
    };
    Zab::new(settings(ServerId(1)), View::new(Arc::new(three)), at)
}

fn entry(zxid: Zxid) -> Entry {
    let header = TxnHeader { client_id: 1, cxid: 1, zxid: zxid.0, time: 0, op: -1 };
    Entry::new(Txn { header, body: TxnBody::Error(ErrorTxn { err: -101 }), digest: None })
}

fn proposal(zxid: Zxid) -> FromLeader {
    FromLeader::Proposal { zxid, body: entry(zxid).body }
}

/// Follows a leader up to its epoch.
fn join(zab: &mut Zab, link: LinkId, leader: ServerId, epoch: Epoch, out: &mut Outputs) {
    zab.learn(0, leader, epoch, out);
    zab.on_dialed(0, link, out);
    zab.on_leader_packet(
        0,
        link,
        FromLeader::LeaderInfo { epoch, protocol: PROTOCOL, hears_pleas: true },
        out,
    );
    zab.on_disk(0, DiskDone::AcceptedSaved(epoch), out);
}

/// Follows a leader up to its DIFF.
fn follow(zab: &mut Zab, link: LinkId, leader: ServerId, epoch: Epoch, out: &mut Outputs) {
    join(zab, link, leader, epoch, out);
    zab.on_leader_packet(0, link, FromLeader::Diff(Zxid::ZERO, None), out);
}

fn enter(zab: &mut Zab, link: LinkId, epoch: Epoch, out: &mut Outputs) {
    zab.on_leader_packet(0, link, FromLeader::NewLeader { zxid: Zxid::new(epoch, 0), config: None }, out);
    zab.on_disk(0, DiskDone::CurrentSaved(epoch), out);
    zab.on_leader_packet(0, link, FromLeader::UpToDate, out);
}

fn delivered(out: &mut Outputs) -> Vec<Zxid> {
    let told = std::mem::take(&mut out.events).into_iter();
    told.filter_map(|event| if let Event::Deliver(entry) = event { Some(entry.zxid) } else { None }).collect()
}

#[test]
fn what_a_follower_logged_is_delivered_once_the_next_leader_has_it() {
    let (mut zab, mut out) = (new(), Outputs::default());
    follow(&mut zab, LINK, ServerId(2), Epoch(1), &mut out);
    enter(&mut zab, LINK, Epoch(1), &mut out);
    let logged = Zxid::new(Epoch(1), 1);
    zab.on_leader_packet(0, LINK, proposal(logged), &mut out);
    zab.on_disk(0, DiskDone::Logged(logged), &mut out);
    assert_eq!(delivered(&mut out), [], "the leader goes before its COMMIT");
    zab.end_term(&mut out);

    follow(&mut zab, LinkId(2), ServerId(3), Epoch(2), &mut out);
    assert_eq!(delivered(&mut out), [logged]);
    enter(&mut zab, LinkId(2), Epoch(2), &mut out);
    let next = Zxid::new(Epoch(2), 1);
    zab.on_leader_packet(0, LinkId(2), proposal(next), &mut out);
    zab.on_leader_packet(0, LinkId(2), FromLeader::Commit(next), &mut out);
    assert_eq!(delivered(&mut out), [next]);
}

#[test]
fn what_is_left_of_a_cut_log_is_delivered() {
    let (mut zab, mut out) = (new(), Outputs::default());
    follow(&mut zab, LINK, ServerId(2), Epoch(1), &mut out);
    enter(&mut zab, LINK, Epoch(1), &mut out);
    let (kept, lost) = (Zxid::new(Epoch(1), 1), Zxid::new(Epoch(1), 2));
    zab.on_leader_packet(0, LINK, proposal(kept), &mut out);
    zab.on_leader_packet(0, LINK, proposal(lost), &mut out);
    zab.on_disk(0, DiskDone::Logged(lost), &mut out);
    zab.end_term(&mut out);

    let link = LinkId(2);
    join(&mut zab, link, ServerId(3), Epoch(2), &mut out);
    zab.on_leader_packet(0, link, FromLeader::Trunc(kept, None), &mut out);
    assert_eq!(out.disk.pop(), Some(DiskOp::Truncate { to: kept, reload: false }));
    assert_eq!(delivered(&mut out), [kept]);
}

/// Server 1 has followed epoch 1 up to `last`, and is sent a leader's snapshot that ends before that.
fn stage(zab: &mut Zab, last: Zxid, snapshot: Zxid, out: &mut Outputs) {
    follow(zab, LINK, ServerId(2), Epoch(1), out);
    enter(zab, LINK, Epoch(1), out);
    (1..=last.counter()).for_each(|at| {
        zab.on_leader_packet(0, LINK, proposal(Zxid::new(Epoch(1), at)), out);
    });
    zab.on_disk(0, DiskDone::Logged(last), out);
    zab.end_term(out);
    let link = LinkId(2);
    join(zab, link, ServerId(3), Epoch(2), out);
    zab.on_leader_packet(0, link, FromLeader::Snap(snapshot, None), out);
    assert!(zab.on_snapshot(0, link, snapshot, out));
    assert_eq!(out.disk.pop(), Some(DiskOp::Stage { link, zxid: snapshot }));
    zab.on_disk(0, DiskDone::Staged(snapshot), out);
    assert_eq!((zab.server.log_end, out.events.pop_back()), (snapshot, Some(Event::Install(snapshot))));
}

/// Seed 733510: the leader lost its disk before the log behind its snapshot was through, and this server had replaced what
/// nobody else had by that snapshot.
#[test]
fn a_snapshot_without_the_log_behind_it_takes_nothing_away() {
    let (mut zab, mut out) = (new(), Outputs::default());
    let (snapshot, last) = (Zxid::new(Epoch(1), 3), Zxid::new(Epoch(1), 7));
    stage(&mut zab, last, snapshot, &mut out);
    zab.on_leader_packet(0, LinkId(2), proposal(Zxid::new(Epoch(1), 4)), &mut out);
    zab.end_term(&mut out);
    assert_eq!(out.disk.pop(), Some(DiskOp::Unstage { to: last }));
    assert!(!zab.server.disk_is_idle(), "no vote before the files are read again");
    zab.on_disk(0, DiskDone::Logged(Zxid::new(Epoch(1), 4)), &mut out);
    zab.on_disk(0, DiskDone::Unstaged(last), &mut out);
    assert!(out.events.contains(&Event::Reload(last)), "{:?}", out.events);
    assert_eq!((zab.server.log_end, zab.server.debt), (last, Debt::None), "it can vote for what it had");
}

#[test]
fn a_snapshot_takes_its_place_with_the_log_behind_it() {
    let (mut zab, mut out) = (new(), Outputs::default());
    let (snapshot, last) = (Zxid::new(Epoch(1), 3), Zxid::new(Epoch(1), 7));
    stage(&mut zab, last, snapshot, &mut out);
    let link = LinkId(2);
    let next = Zxid::new(Epoch(1), 4);
    zab.on_leader_packet(0, link, proposal(next), &mut out);
    let opened = Zxid::new(Epoch(2), 0);
    out.disk.clear();
    zab.on_leader_packet(0, link, FromLeader::NewLeader { zxid: opened, config: None }, &mut out);
    assert_eq!(out.disk, [], "the log is not on disk");
    zab.on_disk(0, DiskDone::Logged(next), &mut out);
    let no_next = DiskOp::SaveConfig(ConfigFile::NoNext);
    assert_eq!(out.disk, [DiskOp::Install { contained: false }, no_next, DiskOp::SaveCurrent(Epoch(2))]);
    zab.end_term(&mut out);
    assert!(!out.disk.iter().any(|op| matches!(op, DiskOp::Unstage { .. })), "there is no way back");
}

#[test]
fn no_history_ends_before_zero() {
    for packet in [FromLeader::Trunc(Zxid(-1), None), FromLeader::Snap(Zxid(-1), None)] {
        let (mut zab, mut out) = (new(), Outputs::default());
        join(&mut zab, LINK, ServerId(2), Epoch(1), &mut out);
        zab.on_leader_packet(0, LINK, packet, &mut out);
        assert_eq!(out.disk, [DiskOp::SaveAccepted(Epoch(1))]);
        let how = LeaderMisbehaved::NegativeZxid(Zxid(-1));
        let why = LostWhy::LeaderMisbehaved { leader: ServerId(2), how };
        assert_eq!(out.events.pop_back(), Some(Event::Lost { why, next: Next::Election }));
    }
}

const FIVE: &str = "server.1=a:1:2\nserver.2=b:1:2\nserver.3=c:1:2\nserver.4=d:1:2\nserver.5=e:1:2";
const TWO: &str = "server.1=a:1:2\nserver.2=b:1:2";

fn reconfiguration(zxid: Zxid) -> Entry {
    let header = TxnHeader { client_id: 1, cxid: 1, zxid: zxid.0, time: 0, op: 16 };
    let data = format!("{TWO}\nversion={:x}", zxid.0);
    let txn = SetDataTxn { path: "/zookeeper/config".into(), data: Some(data.into()), version: -1 };
    Entry::new(Txn { header, body: TxnBody::Reconfig(txn), digest: None })
}

/// A learner introduces itself.
fn welcome(zab: &mut Zab, link: LinkId, id: ServerId, accepted: Epoch, out: &mut Outputs) {
    zab.on_accepted(0, link, out);
    let info = FromLearner::Info { observer: false, accepted, id, protocol: PROTOCOL, config_version: 0 };
    zab.on_learner_packet(0, link, info, out);
}

/// Server 1 leads epoch 1, with server 2 behind it.
fn lead(zab: &mut Zab, out: &mut Outputs) {
    zab.lead(0, out);
    welcome(zab, LINK, ServerId(2), Epoch(0), out);
    zab.on_disk(0, DiskDone::AcceptedSaved(Epoch(1)), out);
    let ack = FromLearner::AckEpoch { current: Some(Epoch(0)), last: Zxid::ZERO, plea: Plea::default() };
    zab.on_learner_packet(0, LINK, ack, out);
    zab.on_disk(0, DiskDone::CurrentSaved(Epoch(1)), out);
    zab.on_learner_packet(0, LINK, FromLearner::Ack(Zxid::new(Epoch(1), 0)), out);
    assert!(out.events.contains(&Event::Leads(Epoch(1))), "{:?}", out.events);
}

#[test]
fn a_configuration_that_a_leader_proposes_is_in_force_with_its_commit_only() {
    let (mut zab, mut out) = (new(), Outputs::default());
    zab.server.settings.reconfig_enabled = true;
    follow(&mut zab, LINK, ServerId(2), Epoch(1), &mut out);
    let zxid = Zxid::new(Epoch(1), 1);
    let body = reconfiguration(zxid).body;
    zab.on_leader_packet(0, LINK, FromLeader::Proposal { zxid, body }, &mut out);
    // So does a Java leader: the last configuration that it has seen, committed or not.
    let config = Some(format!("{TWO}\nversion={:x}", zxid.0).into());
    zab.on_leader_packet(0, LINK, FromLeader::NewLeader { zxid: Zxid::new(Epoch(1), 0), config }, &mut out);
    zab.on_disk(0, DiskDone::Logged(zxid), &mut out);
    zab.on_disk(0, DiskDone::CurrentSaved(Epoch(1)), &mut out);
    zab.on_leader_packet(0, LINK, FromLeader::UpToDate, &mut out);
    assert!(out.events.contains(&Event::Learns(Epoch(1))), "{:?}", out.events);
    assert_eq!(zab.server.view.committed.version(), 0);
    assert_eq!(zab.server.view.last_seen.version(), zxid.0, "its quorum is needed meanwhile");

    zab.on_leader_packet(0, LINK, FromLeader::CommitAndActivate { zxid, leader: ServerId(2) }, &mut out);
    assert_eq!(zab.server.view.committed.version(), zxid.0);
}

#[test]
fn a_leader_tells_newcomers_the_committed_configuration() {
    let (mut zab, mut out) = (new(), Outputs::default());
    zab.server.settings.reconfig_enabled = true;
    lead(&mut zab, &mut out);
    zab.propose(reconfiguration(Zxid::new(Epoch(1), 1)), &mut out);

    let last_told = |out: &Outputs| {
        let packets = String::from_utf8_lossy(&out.packets).into_owned();
        let (_, version) = packets.rsplit_once("version=").expect("NEWLEADER holds a configuration");
        version[..9].to_owned()
    };
    let link = LinkId(2);
    welcome(&mut zab, link, ServerId(3), Epoch(0), &mut out);
    let ack = FromLearner::AckEpoch { current: Some(Epoch(0)), last: Zxid::ZERO, plea: Plea::default() };
    zab.on_learner_packet(0, link, ack, &mut out);
    assert_eq!(last_told(&out), "100000000", "the other one may never be committed");
}

#[test]
fn after_a_history_was_heard_of_no_new_one_is_begun() {
    let (mut zab, mut out) = (new(), Outputs::default());
    assert!(zab.server.is_new());
    zab.server.hear_of_history(&mut out);
    assert_eq!(out.disk.pop(), Some(DiskOp::SaveDebt(Debt::Unknown)));

    zab.lead(0, &mut out);
    welcome(&mut zab, LINK, ServerId(2), Epoch(0), &mut out);
    zab.on_disk(0, DiskDone::AcceptedSaved(Epoch(1)), &mut out);
    let ack = FromLearner::AckEpoch { current: Some(Epoch(0)), last: Zxid::ZERO, plea: Plea::default() };
    zab.on_learner_packet(0, LINK, ack.clone(), &mut out);
    assert!(!out.disk.contains(&DiskOp::SaveCurrent(Epoch(1))), "{:?}", out.disk);

    welcome(&mut zab, LinkId(2), ServerId(3), Epoch(0), &mut out);
    zab.on_learner_packet(0, LinkId(2), ack, &mut out);
    assert!(out.disk.contains(&DiskOp::SaveCurrent(Epoch(1))), "all are here: {:?}", out.disk);
}

#[test]
fn where_the_leaders_log_is_damaged_learners_get_a_snapshot() {
    let (mut zab, mut out) = (new(), Outputs::default());
    let (old, end) = (Zxid::new(Epoch(1), 1), Zxid::new(Epoch(1), 9));
    (zab.server.accepted, zab.server.current) = (Epoch(1), Epoch(1));
    zab.server.restart_at(end);
    zab.lead(0, &mut out);
    welcome(&mut zab, LINK, ServerId(2), Epoch(1), &mut out);
    zab.on_disk(0, DiskDone::AcceptedSaved(Epoch(2)), &mut out);
    let ack = |last| FromLearner::AckEpoch { current: Some(Epoch(1)), last, plea: Plea::default() };
    zab.on_learner_packet(0, LINK, ack(end), &mut out);

    let (first, second) = (LinkId(2), LinkId(3));
    welcome(&mut zab, first, ServerId(3), Epoch(1), &mut out);
    zab.on_learner_packet(0, first, ack(old), &mut out);
    assert_eq!(out.links.pop(), Some((first, LinkAction::Feed(Feed::Locate(old)))));
    let found = Located { place: Place::Within, mark: None, is_far: false };
    zab.on_located(0, first, found, &mut out);
    assert_eq!(
        out.links.pop(),
        Some((first, LinkAction::Feed(Feed::Log { after: old, upto: end, to: Reader::Newcomer })))
    );
    zab.on_feed_failed(0, first, &mut out);
    assert_eq!(out.links.pop(), Some((first, LinkAction::Close(CloseWhy::FeedFailed))));

    welcome(&mut zab, second, ServerId(3), Epoch(1), &mut out);
    zab.on_learner_packet(0, second, ack(old), &mut out);
    assert_eq!(out.links.pop(), Some((second, LinkAction::Feed(Feed::Snapshot { mark: None }))));
}

#[test]
fn a_proposed_configuration_that_is_cut_off_the_log_is_withdrawn() {
    let (mut zab, mut out) = (new(), Outputs::default());
    zab.server.settings.reconfig_enabled = true;
    follow(&mut zab, LINK, ServerId(2), Epoch(1), &mut out);
    enter(&mut zab, LINK, Epoch(1), &mut out);
    let (kept, proposed) = (Zxid::new(Epoch(1), 1), Zxid::new(Epoch(1), 2));
    zab.on_leader_packet(0, LINK, proposal(kept), &mut out);
    let body = reconfiguration(proposed).body;
    zab.on_leader_packet(0, LINK, FromLeader::Proposal { zxid: proposed, body }, &mut out);
    zab.on_disk(0, DiskDone::Logged(proposed), &mut out);
    assert_eq!(zab.server.view.last_seen.version(), proposed.0);
    zab.end_term(&mut out);

    let link = LinkId(2);
    join(&mut zab, link, ServerId(3), Epoch(2), &mut out);
    zab.on_leader_packet(0, link, FromLeader::Trunc(kept, None), &mut out);
    zab.on_disk(0, DiskDone::Truncated(kept), &mut out);
    assert_eq!(zab.server.view.pending(), None);
    assert_eq!(out.disk.pop(), Some(DiskOp::SaveConfig(ConfigFile::NoNext)));
}

#[test]
fn nothing_is_proposed_behind_a_reconfiguration_before_its_commit() {
    let (mut zab, mut out) = (new(), Outputs::default());
    zab.server.settings.reconfig_enabled = true;
    lead(&mut zab, &mut out);
    let (first, second) = (Zxid::new(Epoch(1), 1), Zxid::new(Epoch(1), 2));
    zab.propose(reconfiguration(first), &mut out);
    zab.propose(entry(second), &mut out);
    assert_eq!(zab.leader().unwrap().last_proposed(), second);
    assert_eq!(zab.server.log_end, first);

    zab.on_disk(0, DiskDone::Logged(first), &mut out);
    zab.on_learner_packet(0, LINK, FromLearner::Ack(first), &mut out);
    assert_eq!(zab.server.view.committed.version(), first.0);
    assert_eq!(zab.server.log_end, second);
    zab.on_disk(0, DiskDone::Logged(second), &mut out);
    zab.on_learner_packet(0, LINK, FromLearner::Ack(second), &mut out);
    assert_eq!(delivered(&mut out), [first, second]);
}

/// Found by the simulator: the leader stopped at the second of two links of one server, which went with the first.
#[test]
fn of_two_links_of_a_server_the_newer_is_synchronized() {
    let (mut zab, mut out) = (new(), Outputs::default());
    zab.server.view = View::new(Arc::new(Ensemble::parse(FIVE).unwrap()));
    zab.lead(0, &mut out);
    for (link, id) in [(1, 2), (2, 2), (3, 3)] {
        welcome(&mut zab, LinkId(link), ServerId(id), Epoch(0), &mut out);
    }
    zab.on_disk(0, DiskDone::AcceptedSaved(Epoch(1)), &mut out);
    for link in 1..=3 {
        let ack = FromLearner::AckEpoch { current: Some(Epoch(0)), last: Zxid::ZERO, plea: Plea::default() };
        zab.on_learner_packet(0, LinkId(link), ack, &mut out);
    }
    assert_eq!(closed(&out), [(LinkId(1), CloseWhy::Reconnected(ServerId(2)))]);
}

/// Found by the simulator: who stood still when it became an observer was counted for the configuration that makes a
/// voter of it again, came back as an observer, and never acknowledged that.
#[test]
fn who_became_an_observer_does_not_carry_the_next_configuration() {
    let (mut zab, mut out) = (new(), Outputs::default());
    lead(&mut zab, &mut out);
    let next = Ensemble::parse("server.1=a:1:2\nserver.2=b:1:2").unwrap();
    let is_carried = |zab: &Zab| zab.leader().unwrap().has_synced_quorum(0, &zab.server, &next);
    assert!(is_carried(&zab));
    let observing = Ensemble::parse("server.1=a:1:2\nserver.2=b:1:2:observer\nserver.3=c:1:2").unwrap();
    zab.server.view = View::new(Arc::new(observing));
    assert!(!is_carried(&zab));
}

fn packets(out: &mut Outputs, to: LinkId) -> Vec<FromLeader> {
    let mut told = Vec::new();
    for (link, action) in std::mem::take(&mut out.links) {
        if let (true, LinkAction::Send { start, len }) = (link == to, action) {
            let mut bytes = BytesMut::from(&out.packets[start..start + len]);
            while let Some(packet) = take(&mut bytes, 1 << 20).unwrap() {
                told.push(packet);
            }
        }
    }
    out.packets.clear();
    told
}

/// Seed 1067189: a voter began an epoch of its own, and was made an observer before it came back. It could follow no older
/// epoch, and stayed outside.
#[test]
fn who_accepted_a_later_epoch_deposes_nobody_and_observes() {
    for members in ["server.3=c:1:2:observer", "server.3=c:1:2"] {
        let (mut zab, mut out) = (new(), Outputs::default());
        lead(&mut zab, &mut out);
        zab.server.view = View::new(Arc::new(Ensemble::parse(&format!("{TWO}\n{members}")).unwrap()));
        out = Outputs::default();
        let link = LinkId(3);
        welcome(&mut zab, link, ServerId(3), Epoch(2), &mut out);
        let epoch = Epoch(1);
        assert_eq!(
            packets(&mut out, link),
            [FromLeader::LeaderInfo { epoch, protocol: OBSERVE, hears_pleas: true }]
        );
        zab.on_learner_packet(
            0,
            link,
            FromLearner::AckEpoch { current: None, last: Zxid::ZERO, plea: Plea::default() },
            &mut out,
        );
        let synchronized = packets(&mut out, link);
        assert!(matches!(synchronized[..], [FromLeader::Diff(..), FromLeader::NewLeader { .. }]));
        zab.on_learner_packet(0, link, FromLearner::Ack(Zxid::new(epoch, 0)), &mut out);
        assert_eq!(packets(&mut out, link), [FromLeader::UpToDate]);

        zab.propose(entry(Zxid::new(epoch, 1)), &mut out);
        zab.on_disk(0, DiskDone::Logged(Zxid::new(epoch, 1)), &mut out);
        assert_eq!(packets(&mut out, link), [], "nothing that is not committed");
        zab.on_learner_packet(0, LINK, FromLearner::Ack(Zxid::new(epoch, 1)), &mut out);
        assert!(matches!(packets(&mut out, link)[..], [FromLeader::Inform { .. }]));

        // Its answers are no sign that a quorum follows.
        let later = settings(ServerId(1)).sync_ms();
        zab.on_learner_packet(later, link, FromLearner::Ping { zxid: Zxid::ZERO, touched: vec![] }, &mut out);
        assert_eq!(zab.lease(), later, "that of server 2");
        assert!(!out.events.iter().any(|event| matches!(event, Event::Lost { .. })), "{:?}", out.events);
    }
}

/// What it takes from a leader that is not established may not be the ensemble's history.
#[test]
fn who_accepted_a_later_epoch_waits_until_this_one_is_established() {
    let (mut zab, mut out) = (new(), Outputs::default());
    zab.lead(0, &mut out);
    welcome(&mut zab, LINK, ServerId(2), Epoch(0), &mut out);
    welcome(&mut zab, LinkId(3), ServerId(3), Epoch(2), &mut out);
    zab.on_disk(0, DiskDone::AcceptedSaved(Epoch(1)), &mut out);
    for (link, current) in [(LinkId(3), None), (LINK, Some(Epoch(0)))] {
        zab.on_learner_packet(
            0,
            link,
            FromLearner::AckEpoch { current, last: Zxid::ZERO, plea: Plea::default() },
            &mut out,
        );
    }
    zab.on_disk(0, DiskDone::CurrentSaved(Epoch(1)), &mut out);
    assert_eq!(
        packets(&mut out, LinkId(3)),
        [FromLeader::LeaderInfo { epoch: Epoch(1), protocol: OBSERVE, hears_pleas: true }]
    );
    zab.on_learner_packet(0, LINK, FromLearner::Ack(Zxid::new(Epoch(1), 0)), &mut out);
    assert!(out.events.contains(&Event::Leads(Epoch(1))), "{:?}", out.events);
    let synchronized = packets(&mut out, LinkId(3));
    assert!(matches!(synchronized[..], [FromLeader::Diff(..), FromLeader::NewLeader { .. }]));
}

#[test]
fn a_promise_of_a_later_epoch_is_kept_while_observing() {
    for (protocol, current, observes) in [(OBSERVE, 1, true), (PROTOCOL, 1, false), (OBSERVE, 3, false)] {
        let (mut zab, mut out) = (new(), Outputs::default());
        (zab.server.accepted, zab.server.current) = (Epoch(4), Epoch(current));
        zab.learn(0, ServerId(2), Epoch(2), &mut out);
        zab.on_dialed(0, LINK, &mut out);
        zab.on_leader_packet(
            0,
            LINK,
            FromLeader::LeaderInfo { epoch: Epoch(2), protocol, hears_pleas: true },
            &mut out,
        );
        let how = LeaderMisbehaved::StaleEpoch { accepted: Epoch(4), offered: Epoch(2) };
        let why = LostWhy::LeaderMisbehaved { leader: ServerId(2), how };
        assert_eq!(lost(&mut out), if observes { vec![] } else { vec![why] });
        assert!(out.disk.is_empty(), "{:?}", out.disk);
        if observes {
            zab.on_leader_packet(0, LINK, FromLeader::Diff(Zxid::ZERO, None), &mut out);
            enter(&mut zab, LINK, Epoch(2), &mut out);
            out.disk.clear();
            assert_eq!(zab.server.accepted, Epoch(4));
            let informed = Zxid::new(Epoch(2), 1);
            let told = out.links.len();
            zab.on_leader_packet(
                0,
                LINK,
                FromLeader::Inform { zxid: informed, body: entry(informed).body },
                &mut out,
            );
            zab.on_disk(0, DiskDone::Logged(informed), &mut out);
            assert_eq!(delivered(&mut out), [informed]);
            assert_eq!(out.links.len(), told, "it acknowledges nothing");
        }
    }
}

/// Server 2 follows; somebody says that he is server 2.
#[test]
fn a_living_link_stays_and_one_that_does_not_answer_makes_room() {
    for answers in [true, false] {
        let (mut zab, mut out) = (new(), Outputs::default());
        lead(&mut zab, &mut out);
        let (claims, tick) = (LinkId(5), settings(ServerId(1)).tick_ms);
        welcome(&mut zab, claims, ServerId(2), Epoch(1), &mut out);
        assert_eq!(packets(&mut out, claims), [], "it waits");
        for now in (0..=3 * tick).step_by(10) {
            zab.on_tick(now, &mut out);
            for packet in packets(&mut out, LINK) {
                if let (true, FromLeader::Ping(zxid)) = (answers, packet) {
                    zab.on_learner_packet(now, LINK, FromLearner::Ping { zxid, touched: vec![] }, &mut out);
                }
            }
        }
        let gone = out.events.iter().filter_map(|event| match event {
            Event::LinkGone(link) => Some(*link),
            _ => None,
        });
        assert_eq!(gone.collect::<Vec<_>>(), [if answers { claims } else { LINK }]);
    }
}

/// Its process ended, and the end of its connection is noticed after the next one came.
#[test]
fn a_server_whose_link_is_gone_is_taken_at_once() {
    let (mut zab, mut out) = (new(), Outputs::default());
    lead(&mut zab, &mut out);
    let claims = LinkId(5);
    welcome(&mut zab, claims, ServerId(2), Epoch(1), &mut out);
    out = Outputs::default();
    zab.on_closed(0, LINK, &mut out);
    assert!(matches!(packets(&mut out, claims)[..], [FromLeader::LeaderInfo { .. }]));
}

#[test]
fn one_claim_moves_the_epoch_a_little() {
    for (claimed, opened) in [(7, 8), (0x7fff_fffe, 257)] {
        let (mut zab, mut out) = (new(), Outputs::default());
        zab.server.accepted = Epoch(1);
        zab.lead(0, &mut out);
        welcome(&mut zab, LINK, ServerId(2), Epoch(claimed), &mut out);
        assert_eq!(out.disk, [DiskOp::SaveAccepted(Epoch(opened))]);
    }
}

#[test]
fn where_no_epoch_is_left_none_is_opened() {
    let (mut zab, mut out) = (new(), Outputs::default());
    zab.server.accepted = Epoch::LAST;
    zab.lead(0, &mut out);
    welcome(&mut zab, LINK, ServerId(2), Epoch(0), &mut out);
    assert_eq!(out.disk, []);
}

/// The stages of a learner's link, each with what leads there.
fn stages() -> [(&'static str, Vec<FromLearner>); 5] {
    let info = FromLearner::Info {
        observer: true,
        accepted: Epoch(0),
        id: ServerId(3),
        protocol: PROTOCOL,
        config_version: 0,
    };
    let accepts = FromLearner::AckEpoch { current: Some(Epoch(0)), last: Zxid::ZERO, plea: Plea::default() };
    let synced = FromLearner::Ack(Zxid::new(Epoch(1), 0));
    [
        ("a stranger", vec![]),
        ("informed", vec![info.clone()]),
        ("asked", vec![info.clone(), accepts.clone()]),
        ("live", vec![info.clone(), accepts.clone(), synced.clone()]),
        ("live and acknowledged", vec![info, accepts, synced.clone(), synced]),
    ]
}

#[test]
fn each_packet_needs_its_stage() {
    let session = SessionId(7);
    let forwarded = Forwarded { session, cxid: 1, op: 1, body: Bytes::new(), auth: vec![] };
    let [.., (_, all)] = stages();
    let kinds: [(FromLearner, [bool; 5]); 8] = [
        (all[0].clone(), [true, false, false, false, false]),
        (all[1].clone(), [false, true, false, false, false]),
        (all[2].clone(), [false, false, true, true, true]),
        (FromLearner::Ack(Zxid::new(Epoch(1), 9)), [false; 5]),
        (
            FromLearner::Ping { zxid: Zxid::ZERO, touched: vec![(session, 0)] },
            [false, false, false, true, true],
        ),
        (FromLearner::Revalidate { session, timeout_ms: 1 }, [false, false, false, true, true]),
        (FromLearner::Request(forwarded), [false, false, false, true, true]),
        (FromLearner::Unknown(42), [false, true, true, true, true]),
    ];
    for (packet, allowed) in kinds {
        for ((stage, before), allowed) in stages().into_iter().zip(allowed) {
            let (mut zab, mut out) = (new(), Outputs::default());
            zab.server.settings.strangers = Strangers::Allowed;
            lead(&mut zab, &mut out);
            let link = LinkId(3);
            zab.on_accepted(0, link, &mut out);
            before.into_iter().for_each(|packet| zab.on_learner_packet(0, link, packet, &mut out));
            out = Outputs::default();
            zab.on_learner_packet(0, link, packet.clone(), &mut out);
            let misbehaved = |(_, why): &(LinkId, CloseWhy)| match why {
                CloseWhy::Misbehaved(how) => is_out_of_stage(how),
                _ => false,
            };
            assert_eq!(
                closed(&out).iter().any(misbehaved),
                !allowed,
                "{packet:?} of {stage}: {:?}",
                out.links
            );
            let gone = |event: &Event| matches!(event, Event::LinkGone(_) | Event::Left { .. });
            assert!(allowed || out.events.iter().all(gone), "{packet:?} of {stage}: {:?}", out.events);
        }
    }
}

#[test]
fn a_designated_leader_that_does_not_know_yet_is_asked_again() {
    for (claimed, expected) in [(DESIGNATED, Some(ServerId(2))), (Epoch(1), None)] {
        let (mut zab, mut out) = (new(), Outputs::default());
        zab.learn(0, ServerId(2), claimed, &mut out);
        zab.on_dialed(0, LINK, &mut out);
        out.dial = None;
        zab.on_closed(0, LINK, &mut out);
        zab.on_tick(100, &mut out);
        assert_eq!(out.dial, expected);
    }
}

/// Found by the simulator (seed 5000245): the leader's next packet was out of stage then, and the term was lost.
#[test]
fn a_dial_of_the_last_term_that_fails_late_disturbs_no_link() {
    let (mut zab, mut out) = (new(), Outputs::default());
    follow(&mut zab, LINK, ServerId(2), Epoch(1), &mut out);
    zab.on_dial_failed(0);
    enter(&mut zab, LINK, Epoch(1), &mut out);
    assert_eq!(lost(&mut out), []);
    assert!(zab.learner().is_some_and(Learner::is_live));
}

/// Found by the simulator: nobody else could lead, as only this leader and that learner knew the next configuration.
#[test]
fn a_learner_with_the_same_history_of_a_later_epoch_is_not_ahead() {
    for (last, expected) in [(5, true), (6, false)] {
        let (mut zab, mut out) = (new(), Outputs::default());
        (zab.server.accepted, zab.server.current) = (Epoch(3), Epoch(2));
        zab.server.restart_at(Zxid::new(Epoch(2), 5));
        zab.lead(0, &mut out);
        welcome(&mut zab, LINK, ServerId(2), Epoch(3), &mut out);
        zab.on_disk(0, DiskDone::AcceptedSaved(Epoch(4)), &mut out);
        let ack = FromLearner::AckEpoch {
            current: Some(Epoch(3)),
            last: Zxid::new(Epoch(2), last),
            plea: Plea::default(),
        };
        zab.on_learner_packet(0, LINK, ack, &mut out);
        assert_eq!(out.disk.contains(&DiskOp::SaveCurrent(Epoch(4))), expected, "{:?}", out.links);
    }
}

fn closed(out: &Outputs) -> Vec<(LinkId, CloseWhy)> {
    let closes = out.links.iter().filter_map(|(link, action)| match action {
        LinkAction::Close(why) => Some((*link, why.clone())),
        LinkAction::Send { .. } | LinkAction::Feed(_) | LinkAction::Hold(_) => None,
    });
    closes.collect()
}

fn is_out_of_stage(how: &LearnerMisbehaved) -> bool {
    use LearnerMisbehaved::{AckOfNothing, NotIntroduced, PacketOutOfStage};
    matches!(how, PacketOutOfStage { .. } | NotIntroduced(_) | AckOfNothing { .. })
}

/// What server 1 makes of a leader of epoch 1 that sends these after its DIFF.
fn judged(packets: Vec<FromLeader>) -> Option<LeaderMisbehaved> {
    let (mut zab, mut out) = (new(), Outputs::default());
    follow(&mut zab, LINK, ServerId(2), Epoch(1), &mut out);
    packets.into_iter().for_each(|packet| zab.on_leader_packet(0, LINK, packet, &mut out));
    lost(&mut out).pop().and_then(|why| match why {
        LostWhy::LeaderMisbehaved { how, .. } => Some(how),
        _ => None,
    })
}

#[test]
fn each_way_in_which_a_leader_misbehaves_has_its_name() {
    use LeaderMisbehaved::*;
    let (first, second, third) = (Zxid::new(Epoch(1), 1), Zxid::new(Epoch(1), 2), Zxid::new(Epoch(1), 3));
    let opens = |epoch, config| FromLeader::NewLeader { zxid: Zxid::new(Epoch(epoch), 0), config };
    let text = |text: &'static [u8]| Some(Bytes::from_static(text));
    let holding = |zxid, holds| FromLeader::Proposal { zxid, body: entry(holds).body };
    let nothing = FromLeader::Proposal { zxid: first, body: Bytes::from_static(b"nothing") };
    let activate = FromLeader::CommitAndActivate { zxid: first, leader: ServerId(2) };
    let syncing = learner::Stage::Syncing;
    for (packets, wanted) in [
        (vec![FromLeader::Diff(first, None)], PacketOutOfStage { packet: "DIFF", stage: syncing }),
        (vec![FromLeader::UpToDate], PacketOutOfStage { packet: "UPTODATE", stage: syncing }),
        (vec![opens(2, None)], AnotherEpoch { offered: Epoch(1), zxid: Zxid::new(Epoch(2), 0) }),
        (vec![nothing], Transaction(Txn::decode(Bytes::from_static(b"nothing")).unwrap_err())),
        (vec![holding(first, second)], AnotherTransaction { zxid: first, holds: second }),
        (vec![proposal(first), proposal(third)], GapInProposals { last: first, got: third }),
        (vec![FromLeader::Commit(first)], CommitOutOfOrder { zxid: first, oldest: None }),
        (
            vec![proposal(first), FromLeader::Commit(second)],
            CommitOutOfOrder { zxid: second, oldest: Some(first) },
        ),
        (vec![proposal(first), activate], ActivatesNothing(first)),
        (
            vec![opens(1, text(b"tickTime=1"))],
            Configuration(crate::ensemble::ParseError::UnknownKey { key: "tickTime".into() }),
        ),
        (
            vec![opens(1, text(b"\xff"))],
            ConfigurationText(String::from_utf8(vec![0xff]).unwrap_err().utf8_error()),
        ),
    ] {
        assert_eq!(judged(packets), Some(wanted));
    }
}

#[test]
fn each_way_in_which_a_learner_may_not_follow_has_its_name() {
    use LearnerMisbehaved::*;
    let id = ServerId(3);
    let info = |id, accepted, protocol, config_version| FromLearner::Info {
        observer: false,
        accepted,
        id,
        protocol,
        config_version,
    };
    let good = || info(id, Epoch(0), PROTOCOL, 0);
    let acks = |last| FromLearner::AckEpoch { current: Some(Epoch(9)), last, plea: Plea::default() };
    let (ahead, leads_with) = (Zxid::new(Epoch(1), 9), (Epoch(1), Zxid::new(Epoch(1), 5)));
    for (packets, wanted) in [
        (vec![info(ServerId(9), Epoch(0), PROTOCOL, 0)], NotAdmitted(ServerId(9))),
        (vec![info(id, Epoch(0), 1, 0)], OldProtocol { id, protocol: 1 }),
        (vec![info(id, Epoch(-1), PROTOCOL, 0)], EpochOutOfRange { id, accepted: Epoch(-1) }),
        (
            vec![info(id, Epoch(0), PROTOCOL, i64::MAX)],
            LaterConfiguration { id, has: i64::MAX, committed: 0 },
        ),
        (vec![good(), acks(Zxid(-2))], NegativeZxid(Zxid(-2))),
        (vec![good(), acks(ahead)], Ahead { id, epoch: Epoch(9), last: ahead, leads_with }),
    ] {
        let (mut zab, mut out) = (new(), Outputs::default());
        (zab.server.accepted, zab.server.current) = (Epoch(1), Epoch(1));
        zab.server.restart_at(leads_with.1);
        zab.lead(0, &mut out);
        welcome(&mut zab, LINK, ServerId(2), Epoch(1), &mut out);
        zab.on_disk(0, DiskDone::AcceptedSaved(Epoch(2)), &mut out);
        let link = LinkId(3);
        zab.on_accepted(0, link, &mut out);
        packets.into_iter().for_each(|packet| zab.on_learner_packet(0, link, packet, &mut out));
        assert_eq!(closed(&out), [(link, CloseWhy::Misbehaved(wanted))]);
    }
}

fn lost(out: &mut Outputs) -> Vec<LostWhy> {
    let told = std::mem::take(&mut out.events).into_iter();
    told.filter_map(|event| if let Event::Lost { why, .. } = event { Some(why) } else { None }).collect()
}

#[test]
fn a_lease_counts_from_the_sending_of_what_a_quorum_has_answered() {
    let (mut zab, mut out) = (new(), Outputs::default());
    lead(&mut zab, &mut out);
    assert_eq!(zab.lease(), 500, "NEWLEADER was sent at 0");
    let pong = || FromLearner::Ping { zxid: Zxid::ZERO, touched: vec![] };
    zab.on_tick(50, &mut out);
    zab.on_tick(100, &mut out);
    zab.on_learner_packet(5000, LINK, pong(), &mut out);
    assert_eq!(zab.lease(), 550, "the answer may have waited in the socket");
    zab.on_learner_packet(5000, LINK, FromLearner::Ack(Zxid::new(Epoch(1), 0)), &mut out);
    assert_eq!(zab.lease(), 550, "nor does anything else that waited show that it still follows");
    zab.on_learner_packet(5000, LINK, pong(), &mut out);
    assert_eq!(zab.lease(), 600);
    zab.on_closed(5000, LINK, &mut out);
    assert_eq!(zab.lease(), 0);
}

/// Server 1 leads, proposes, and both others acknowledge; its own log does not. What becomes of that.
fn with_a_log_that_hangs(three: bool, done_at: u64) -> Vec<LostWhy> {
    let (mut zab, mut out) = (new(), Outputs::default());
    if !three {
        zab.server.view = View::new(Arc::new(Ensemble::parse(TWO).unwrap()));
    }
    lead(&mut zab, &mut out);
    let zxid = Zxid::new(Epoch(1), 1);
    for now in (0..1000).step_by(50) {
        zab.on_learner_packet(now, LINK, FromLearner::Ping { zxid, touched: vec![] }, &mut out);
        zab.on_tick(now, &mut out);
        if now == 100 {
            zab.propose(entry(zxid), &mut out);
            zab.on_learner_packet(now, LINK, FromLearner::Ack(zxid), &mut out);
        }
        if now == done_at {
            zab.on_disk(now, DiskDone::Logged(zxid), &mut out);
        }
    }
    lost(&mut out)
}

/// The disk's answers wait with much else, each longer than the one before: two seconds in the end.
#[test]
fn a_leader_whose_log_goes_on_leads_on_however_late_it_hears_of_that() {
    let (mut zab, mut out) = (new(), Outputs::default());
    lead(&mut zab, &mut out);
    let zxid = |at: u32| Zxid::new(Epoch(1), at);
    for at in 1..80 {
        let now = u64::from(at) * 50;
        zab.on_learner_packet(now, LINK, FromLearner::Ping { zxid: zxid(0), touched: vec![] }, &mut out);
        zab.propose(entry(zxid(at)), &mut out);
        zab.on_learner_packet(now, LINK, FromLearner::Ack(zxid(at)), &mut out);
        if at % 2 == 0 {
            zab.on_disk(now, DiskDone::Logged(zxid(at / 2)), &mut out);
        }
        zab.on_tick(now, &mut out);
    }
    assert_eq!(lost(&mut out), []);
}

#[test]
fn a_leader_whose_own_log_hangs_gives_the_others_the_lead() {
    let zxid = Zxid::new(Epoch(1), 1);
    assert_eq!(with_a_log_that_hangs(true, u64::MAX), [LostWhy::OwnLogHangs { zxid, ms: 550 }]);
    assert_eq!(with_a_log_that_hangs(true, 500), []);
    assert_eq!(with_a_log_that_hangs(false, u64::MAX), [], "without it there is no quorum");
}

/// Server 1 leads, with followers 2 to `last`; its disk fills at 10 ms. Why it loses the lead.
fn with_a_disk_that_fills(last: i64, they_have_room: bool, room: Room) -> Vec<LostWhy> {
    let (mut zab, mut out) = (new(), Outputs::default());
    lead(&mut zab, &mut out);
    if last == 3 {
        let link = LinkId(2);
        welcome(&mut zab, link, ServerId(3), Epoch(0), &mut out);
        let ack = FromLearner::AckEpoch { current: Some(Epoch(0)), last: Zxid::ZERO, plea: Plea::default() };
        zab.on_learner_packet(0, link, ack, &mut out);
        zab.on_learner_packet(0, link, FromLearner::Ack(Zxid::new(Epoch(1), 0)), &mut out);
    }
    zab.on_room(10, room);
    let zxid = Zxid::new(Epoch(1), 0);
    let touched = if they_have_room { vec![] } else { vec![NO_ROOM] };
    for now in (50..2000).step_by(50) {
        for link in [LinkId(1), LinkId(2)].into_iter().take(if last == 3 { 2 } else { 1 }) {
            let pong = FromLearner::Ping { zxid, touched: touched.clone() };
            zab.on_learner_packet(now, link, pong, &mut out);
        }
        zab.on_tick(now, &mut out);
    }
    assert!(!out.events.contains(&Event::Touched(vec![NO_ROOM])));
    lost(&mut out)
}

#[test]
fn a_leader_without_room_gives_the_lead_to_followers_that_are_enough() {
    assert_eq!(with_a_disk_that_fills(3, true, Room::Low), [LostWhy::NoRoomToLead]);
    assert_eq!(with_a_disk_that_fills(3, true, Room::Out), [LostWhy::NoRoomToLead]);
    assert_eq!(with_a_disk_that_fills(3, true, Room::Enough), []);
    assert_eq!(with_a_disk_that_fills(3, false, Room::Low), [], "they could do no better");
    let alone = with_a_disk_that_fills(2, true, Room::Low);
    assert!(!alone.contains(&LostWhy::NoRoomToLead), "without this server there is no quorum: {alone:?}");
}

#[test]
fn a_follower_without_room_goes_once_its_log_takes_no_more() {
    let (mut zab, mut out) = (new(), Outputs::default());
    follow(&mut zab, LINK, ServerId(2), Epoch(1), &mut out);
    enter(&mut zab, LINK, Epoch(1), &mut out);
    zab.server.settings.max_unlogged_bytes = entry(Zxid(1)).body.len();
    zab.on_room(10, Room::Out);
    for counter in 1..=2 {
        zab.on_tick(10, &mut out);
        assert_eq!(lost(&mut out), [], "it follows and learns");
        zab.on_leader_packet(10, LINK, proposal(Zxid::new(Epoch(1), counter)), &mut out);
    }
    zab.on_tick(10, &mut out);
    assert_eq!(lost(&mut out), [LostWhy::NoRoomToLearn]);
}

#[test]
fn a_leader_reads_from_no_learner_while_its_own_log_is_full() {
    let (mut zab, mut out) = (new(), Outputs::default());
    lead(&mut zab, &mut out);
    let len = entry(Zxid(1)).body.len();
    zab.server.settings.max_unlogged_bytes = 2 * len;
    let mut holds = |zab: &mut Zab, act: &dyn Fn(&mut Zab, &mut Outputs)| -> Vec<LinkAction> {
        out.links.clear();
        act(zab, &mut out);
        let holds = out.links.drain(..).map(|(_, action)| action);
        holds.filter(|action| matches!(action, LinkAction::Hold(_))).collect()
    };
    let zxid = |counter| Zxid::new(Epoch(1), counter);
    for (counter, expected) in [(1, vec![]), (2, vec![]), (3, vec![LinkAction::Hold(true)]), (4, vec![])] {
        assert_eq!(holds(&mut zab, &|zab, out| zab.propose(entry(zxid(counter)), out)), expected);
    }
    assert_eq!(zab.server.unlogged_bytes(), 4 * len);
    let logged = |at| move |zab: &mut Zab, out: &mut Outputs| zab.on_disk(0, DiskDone::Logged(at), out);
    assert_eq!(holds(&mut zab, &logged(zxid(2))), [], "half of that first");
    assert_eq!(holds(&mut zab, &logged(zxid(3))), [LinkAction::Hold(false)]);
}

/// It was about to lead epoch 2 when its disk lost the end of epoch 1: whoever follows epoch 1 and has that end has more.
#[test]
fn a_history_whose_end_was_lost_is_not_of_the_epoch_that_opened_on_it() {
    let mut zab = new();
    (zab.server.current, zab.server.log_end) = (Epoch(2), Zxid::new(Epoch(1), 3));
    assert_eq!(zab.server.history_epoch(), Epoch(2));
    for debt in [Debt::Unknown, Debt::AtLeast(Epoch(2), Zxid::new(Epoch(1), 9))] {
        zab.server.debt = debt;
        assert_eq!(zab.server.history_epoch(), Epoch(1));
    }
}

#[test]
fn a_leader_without_a_transaction_gives_way_to_a_voter_that_has_some() {
    let history = FromLearner::AckEpoch { current: Some(Epoch(0)), last: Zxid(5), plea: Plea::default() };
    let (mut zab, mut out) = (new(), Outputs::default());
    lead(&mut zab, &mut out);
    welcome(&mut zab, LinkId(2), ServerId(3), Epoch(0), &mut out);
    zab.on_learner_packet(0, LinkId(2), history.clone(), &mut out);
    let why = LostWhy::HistoryElsewhere { id: ServerId(3), last: Zxid(5) };
    assert_eq!(lost(&mut out), [why]);
    zab.end_term(&mut out);
    assert_eq!(zab.server.history_epoch(), Epoch(0), "in the election, too");

    // Anybody may claim a history. Nor does a leader go that has one itself.
    let (mut zab, mut out) = (new(), Outputs::default());
    lead(&mut zab, &mut out);
    zab.server.gives_way_at = 1;
    welcome(&mut zab, LinkId(2), ServerId(3), Epoch(0), &mut out);
    zab.on_learner_packet(0, LinkId(2), history.clone(), &mut out);
    assert_eq!(lost(&mut out), []);
    zab.server.gives_way_at = 0;
    let given = (0..5).filter(|_| zab.server.gives_way(0)).count();
    assert_eq!(given, 3, "it may lose the race of an election, and not for ever");
    zab.server.gives_way_at = 0;
    zab.propose(entry(Zxid::new(Epoch(1), 1)), &mut out);
    welcome(&mut zab, LinkId(3), ServerId(3), Epoch(0), &mut out);
    zab.on_learner_packet(0, LinkId(3), history, &mut out);
    assert_eq!(lost(&mut out), []);
}

/// Two ensembles that count alike: a zxid that both gave means different transactions.
#[test]
fn a_history_that_only_counts_like_the_leaders_is_not_mixed_with_it() {
    let own = Zxid::new(Epoch(1), 1);
    let mark = TxnMark::of(&entry(own).body);
    let other = Some(TxnMark(mark.unwrap().0 ^ 1));
    let ways = [
        (FromLeader::Diff(Zxid::new(Epoch(1), 9), other), FromLeader::Diff(Zxid::new(Epoch(1), 9), mark)),
        (FromLeader::Trunc(own, other), FromLeader::Trunc(own, mark)),
        (FromLeader::Snap(Zxid(9), other), FromLeader::Snap(Zxid(9), mark)),
    ];
    for (foreign, same) in ways {
        for (packet, refused) in [(foreign, true), (same, false)] {
            let (mut zab, mut out) = (new(), Outputs::default());
            follow(&mut zab, LINK, ServerId(2), Epoch(1), &mut out);
            enter(&mut zab, LINK, Epoch(1), &mut out);
            zab.on_leader_packet(0, LINK, proposal(own), &mut out);
            zab.on_disk(0, DiskDone::Logged(own), &mut out);
            zab.end_term(&mut out);
            join(&mut zab, LinkId(2), ServerId(3), Epoch(2), &mut out);
            out.disk.clear();
            zab.on_leader_packet(0, LinkId(2), packet, &mut out);
            let refusal = Event::Refused { leader: ServerId(3), what: Foreign::Transaction(own) };
            assert_eq!(out.events.contains(&refusal), refused, "{:?}", out.events);
            assert!(!refused || out.disk.is_empty(), "nothing is changed: {:?}", out.disk);
        }
    }
}

#[test]
fn a_history_that_begins_behind_what_was_committed_here_is_refused() {
    for (committed, refused) in [(Zxid(5), true), (Zxid::ZERO, false)] {
        let (mut zab, mut out) = (new(), Outputs::default());
        zab.server.restart_at(Zxid(5));
        zab.server.committed_at_start = committed;
        let link = LinkId(2);
        join(&mut zab, link, ServerId(3), Epoch(1), &mut out);
        zab.on_leader_packet(0, link, FromLeader::Snap(Zxid::ZERO, None), &mut out);
        assert!(zab.on_snapshot(0, link, Zxid::ZERO, &mut out));
        zab.on_disk(0, DiskDone::Staged(Zxid::ZERO), &mut out);
        let first = Zxid::new(Epoch(1), 1);
        zab.on_leader_packet(0, link, proposal(first), &mut out);
        let what = Foreign::BeginsLater { first, committed };
        assert_eq!(out.events.contains(&Event::Refused { leader: ServerId(3), what }), refused);
    }
}

/// What the leader shows to have need not be kept aside.
#[test]
fn a_history_is_kept_unless_the_leader_shows_that_it_has_all_of_it() {
    for has_it in [true, false] {
        let (mut zab, mut out) = (new(), Outputs::default());
        let (last, snapshot) = (Zxid::new(Epoch(1), 2), Zxid::new(Epoch(1), 4));
        follow(&mut zab, LINK, ServerId(2), Epoch(1), &mut out);
        enter(&mut zab, LINK, Epoch(1), &mut out);
        (1..=2).for_each(|at| {
            zab.on_leader_packet(0, LINK, proposal(Zxid::new(Epoch(1), at)), &mut out);
        });
        zab.on_disk(0, DiskDone::Logged(last), &mut out);
        zab.end_term(&mut out);
        let link = LinkId(2);
        join(&mut zab, link, ServerId(3), Epoch(2), &mut out);
        let mark = TxnMark::of(&entry(last).body).filter(|_| has_it);
        zab.on_leader_packet(0, link, FromLeader::Snap(snapshot, mark), &mut out);
        assert!(zab.on_snapshot(0, link, snapshot, &mut out));
        zab.on_disk(0, DiskDone::Staged(snapshot), &mut out);
        let opens = FromLeader::NewLeader { zxid: Zxid::new(Epoch(2), 0), config: None };
        zab.on_leader_packet(0, link, opens, &mut out);
        assert!(out.disk.contains(&DiskOp::Install { contained: has_it }), "{:?}", out.disk);
    }
}

#[test]
fn a_follower_with_another_tree_serves_nobody_and_asks_for_a_snapshot() {
    let (mut zab, mut out) = (new(), Outputs::default());
    follow(&mut zab, LINK, ServerId(2), Epoch(1), &mut out);
    enter(&mut zab, LINK, Epoch(1), &mut out);
    assert!(zab.lease() > 0);
    let live = Zxid::new(Epoch(1), 1);
    assert_eq!(zab.doubt_tree(0, Zxid(1), 7, &mut out), None, "another leader wrote that digest");
    out.links.clear();
    out.packets.clear();
    assert_eq!(zab.doubt_tree(0, live, 7, &mut out), Some(Doubt::Replace));
    assert_eq!(zab.doubt_tree(0, live, 7, &mut out), None, "it is logged once");
    assert_eq!(zab.lease(), 0);
    let sent = take::<FromLearner>(&mut out.packets, 1 << 20).unwrap();
    assert_eq!(sent, Some(FromLearner::Differs { zxid: live, digest: 7 }));
    out.events.clear();
    zab.on_tick(zab.server.settings.tick_ms, &mut out);
    assert_eq!(lost(&mut out), [LostWhy::TreeDiffers(ServerId(2))], "the leader leads on");
    zab.end_term(&mut out);
    out.packets.clear();
    join(&mut zab, LinkId(2), ServerId(2), Epoch(2), &mut out);
    let mut pleas = Vec::new();
    while let Some(packet) = take::<FromLearner>(&mut out.packets, 1 << 20).unwrap() {
        if let FromLearner::AckEpoch { plea, .. } = packet {
            pleas.push(plea.snapshot);
        }
    }
    assert_eq!(pleas, [true]);
}

#[test]
fn a_leader_steps_down_where_a_quorum_has_another_tree() {
    let (mut zab, mut out) = (new(), Outputs::default());
    lead(&mut zab, &mut out);
    let zxid = Zxid::new(Epoch(1), 1);
    zab.propose(entry(zxid), &mut out);
    zab.on_disk(0, DiskDone::Logged(zxid), &mut out);
    zab.on_learner_packet(0, LINK, FromLearner::Ack(zxid), &mut out);
    welcome(&mut zab, LinkId(2), ServerId(3), Epoch(0), &mut out);
    let ack = FromLearner::AckEpoch { current: Some(Epoch(0)), last: Zxid::ZERO, plea: Plea::default() };
    zab.on_learner_packet(0, LinkId(2), ack, &mut out);
    zab.on_learner_packet(0, LinkId(2), FromLearner::Ack(Zxid::new(Epoch(1), 0)), &mut out);
    out.events.clear();
    zab.on_learner_packet(0, LINK, FromLearner::Differs { zxid, digest: 7 }, &mut out);
    zab.on_learner_packet(0, LinkId(2), FromLearner::Differs { zxid, digest: 8 }, &mut out);
    assert_eq!(lost(&mut out), [], "those two differ as well");
    zab.on_learner_packet(0, LinkId(2), FromLearner::Differs { zxid, digest: 7 }, &mut out);
    assert_eq!(lost(&mut out), [LostWhy::OutvotedTree(zxid)]);
    assert_eq!(zab.server.tree, Tree::Wrong);
}

/// What is sent over a link, taken from the outputs.
fn sent(link: LinkId, out: &mut Outputs) -> Vec<FromLeader> {
    let mut bytes = BytesMut::new();
    for (to, action) in out.links.drain(..) {
        if let LinkAction::Send { start, len } = action
            && to == link
        {
            bytes.extend_from_slice(&out.packets[start..start + len]);
        }
    }
    std::iter::from_fn(|| take(&mut bytes, 1 << 20).expect("it is ours")).collect()
}

/// The zxids of the proposals and of the commits among them, in their order.
fn zxids(packets: &[FromLeader]) -> (Vec<u32>, Vec<u32>) {
    let (mut proposed, mut committed) = (Vec::new(), Vec::new());
    for packet in packets {
        if let FromLeader::Proposal { zxid, .. } = packet {
            proposed.push(zxid.counter());
        } else if let FromLeader::Commit(zxid) = packet {
            committed.push(zxid.counter());
        }
    }
    (proposed, committed)
}

/// Server 1 leads with server 2, and has a window for some ten proposals. Server 3 follows over the link that is returned.
fn lead_with_windows(zab: &mut Zab, out: &mut Outputs) -> LinkId {
    zab.server.settings.window_bytes = 600;
    lead(zab, out);
    let link = LinkId(2);
    welcome(zab, link, ServerId(3), Epoch(0), out);
    let ack = FromLearner::AckEpoch { current: Some(Epoch(0)), last: Zxid::ZERO, plea: Plea::default() };
    zab.on_learner_packet(0, link, ack, out);
    zab.on_learner_packet(0, link, FromLearner::Ack(Zxid::new(Epoch(1), 0)), out);
    out.links.clear();
    out.packets.clear();
    link
}

/// These are proposed, and committed by servers 1 and 2; server 2 answers each ping.
fn commit(zab: &mut Zab, counters: std::ops::RangeInclusive<u32>, out: &mut Outputs) {
    for counter in counters {
        let zxid = Zxid::new(Epoch(1), counter);
        zab.propose(entry(zxid), out);
        zab.on_disk(0, DiskDone::Logged(zxid), out);
        zab.on_learner_packet(0, LINK, FromLearner::Ack(zxid), out);
        zab.on_learner_packet(0, LINK, FromLearner::Ping { zxid, touched: Vec::new() }, out);
    }
}

fn pong() -> FromLearner {
    FromLearner::Ping { zxid: Zxid::ZERO, touched: Vec::new() }
}

/// Everything is sent once, and in order, to who is slow: how much, however, is decided by what he reads.
#[test]
fn a_follower_that_is_slow_is_sent_no_more_than_it_takes_and_nothing_is_left_out() {
    let (mut zab, mut out) = (new(), Outputs::default());
    let link = lead_with_windows(&mut zab, &mut out);
    let (mut proposed, mut committed) = (Vec::new(), Vec::new());
    let mut pings = 0;
    let mut hear = |out: &mut Outputs| {
        let packets = sent(link, out);
        let count = packets.iter().filter(|packet| matches!(packet, FromLeader::Ping(_))).count();
        pings += count;
        let (mut more, mut done) = zxids(&packets);
        let bytes: usize = packets.len() * 30;
        proposed.append(&mut more);
        committed.append(&mut done);
        (bytes, std::mem::take(&mut pings))
    };
    commit(&mut zab, 1..=1000, &mut out);
    let (bytes, mut asked) = hear(&mut out);
    assert!(bytes < 1200, "{bytes} bytes for a window of 600");
    let mut turns = 0;
    while asked > 0 {
        turns += 1;
        assert!(turns < 10_000, "it never has everything");
        (0..asked).for_each(|_| zab.on_learner_packet(0, link, pong(), &mut out));
        let bytes;
        (bytes, asked) = hear(&mut out);
        assert!(bytes < 1200, "{bytes} bytes for a window of 600");
    }
    assert_eq!(proposed, (1..=1000).collect::<Vec<_>>());
    assert_eq!(committed, (1..=1000).collect::<Vec<_>>());
    // It takes part again.
    out.links.clear();
    out.packets.clear();
    commit(&mut zab, 1001..=1001, &mut out);
    assert_eq!(zxids(&sent(link, &mut out)), (vec![1001], vec![1001]));
}

#[test]
fn a_sync_of_who_is_behind_is_answered_after_what_was_committed_before_it() {
    let (mut zab, mut out) = (new(), Outputs::default());
    let link = lead_with_windows(&mut zab, &mut out);
    commit(&mut zab, 1..=100, &mut out);
    let before = sent(link, &mut out);
    let mut packets = before.clone();
    let (leader, server) = zab.leader_mut().unwrap();
    leader.sync_for(0, link, server, &mut out);
    zab.on_learner_packet(0, LINK, pong(), &mut out);
    for _ in 0..1000 {
        zab.on_learner_packet(0, link, pong(), &mut out);
        packets.append(&mut sent(link, &mut out));
    }
    assert_eq!(zxids(&packets).1, (1..=100).collect::<Vec<_>>());
    assert!(!before.iter().any(|packet| matches!(packet, FromLeader::Sync)));
    let last = packets.iter().rposition(|packet| matches!(packet, FromLeader::Commit(_)));
    let sync = packets.iter().position(|packet| matches!(packet, FromLeader::Sync));
    assert!(sync > last, "SYNC at {sync:?}, the last COMMIT at {last:?}");
}

#[test]
fn who_is_behind_the_history_in_memory_is_fed_the_log() {
    let (mut zab, mut out) = (new(), Outputs::default());
    zab.server.history = History::new(Zxid::ZERO, 5, 0..=usize::MAX);
    let link = lead_with_windows(&mut zab, &mut out);
    commit(&mut zab, 1..=100, &mut out);
    let (mut proposed, mut committed) = zxids(&sent(link, &mut out));
    let last = *proposed.last().unwrap();
    (0..100).for_each(|_| zab.on_learner_packet(0, link, pong(), &mut out));
    let feeds = out.links.iter().filter_map(|(_, action)| match action {
        LinkAction::Feed(feed) => Some(*feed),
        _ => None,
    });
    let (after, upto) = (Zxid::new(Epoch(1), last), Zxid::new(Epoch(1), 100));
    assert_eq!(feeds.collect::<Vec<_>>(), [Feed::Log { after, upto, to: Reader::Follower }]);
    let (mut more, mut done) = zxids(&sent(link, &mut out));
    committed.append(&mut done);
    assert_eq!(
        (more.len(), committed.last()),
        (0, Some(&last)),
        "what it had as proposals is committed first"
    );
    commit(&mut zab, 101..=103, &mut out);
    zab.on_fed(0, link, upto, &mut out);
    (more, _) = zxids(&sent(link, &mut out));
    proposed.extend(last + 1..=100);
    proposed.append(&mut more);
    assert_eq!(proposed, (1..=103).collect::<Vec<_>>());
}

/// While much is written it may never be near: a follower takes part with what was committed when it came.
#[test]
fn who_returns_under_load_need_not_be_near_to_take_part() {
    let (mut zab, mut out) = (new(), Outputs::default());
    zab.server.history = History::new(Zxid::ZERO, 5, 0..=usize::MAX);
    zab.server.settings.window_bytes = 600;
    lead(&mut zab, &mut out);
    commit(&mut zab, 1..=100, &mut out);
    let link = LinkId(2);
    welcome(&mut zab, link, ServerId(3), Epoch(0), &mut out);
    let ack = FromLearner::AckEpoch {
        current: Some(Epoch(0)),
        last: Zxid::new(Epoch(1), 1),
        plea: Plea::default(),
    };
    zab.on_learner_packet(0, link, ack, &mut out);
    let found = Located { place: Place::Within, mark: None, is_far: false };
    zab.on_located(0, link, found, &mut out);
    commit(&mut zab, 101..=200, &mut out);
    out.links.clear();
    out.packets.clear();
    let enters = |packets: &[FromLeader]| packets.iter().any(|it| matches!(it, FromLeader::NewLeader { .. }));
    zab.on_fed(0, link, Zxid::new(Epoch(1), 99), &mut out);
    assert!(!enters(&sent(link, &mut out)), "it may have helped to commit the last one");
    zab.on_fed(0, link, Zxid::new(Epoch(1), 100), &mut out);
    assert!(enters(&sent(link, &mut out)));
}
