//! What a link makes of its bytes, however they are cut.

use super::*;
use crate::model::owner::OwnerRules;
use crate::model::{Epoch, SessionId};
use crate::wire::election::InitialMessage;
use crate::wire::quorum::{PROTOCOL, Plea};

const LINK: LinkId = LinkId(7);
const MAX: usize = 1 << 20;

fn info(id: i64) -> FromLearner {
    let accepted = Epoch(1);
    FromLearner::Info { observer: false, accepted, id: ServerId(id), protocol: PROTOCOL, config_version: 0 }
}

fn touched() -> Input {
    Input::Touched(vec![SessionId(5)])
}

/// Bytes that arrive one piece after the other, and what a link makes of all of them.
fn feed(link: &mut Link, buffer: &mut BytesMut, pieces: &[&[u8]]) -> (Vec<Input>, Step) {
    let (mut inputs, mut step) = (Vec::new(), Step::NeedMore);
    for piece in pieces {
        buffer.extend_from_slice(piece);
        step = link.take(buffer, &touched, &mut inputs);
    }
    (inputs, step)
}

fn of_leader(packets: &[FromLeader]) -> BytesMut {
    let mut bytes = BytesMut::new();
    packets.iter().for_each(|packet| packet.encode(&mut bytes));
    bytes
}

fn of_learner(packets: &[FromLearner]) -> BytesMut {
    let mut bytes = BytesMut::new();
    packets.iter().for_each(|packet| packet.encode(&mut bytes));
    bytes
}

/// What the core is sent, in words.
fn words(inputs: &[Input]) -> Vec<String> {
    let word = |input: &Input| match input {
        Input::Quorum(QuorumInput::FromLeader { packet, .. }) => format!("{packet:?}"),
        Input::Quorum(QuorumInput::FromLearner { packet, .. }) => format!("{packet:?}"),
        Input::Quorum(QuorumInput::Snapshot { zxid, .. }) => format!("snapshot {zxid}"),
        Input::Quorum(other) => format!("{other:?}"),
        other => format!("{other:?}"),
    };
    inputs.iter().map(word).collect()
}

#[test]
fn wherever_the_bytes_are_cut_the_same_packets_come_out() {
    let packets = [
        FromLeader::Diff(Zxid(3), None),
        FromLeader::Proposal { zxid: Zxid(4), body: bytes::Bytes::from_static(b"what is proposed") },
        FromLeader::Commit(Zxid(4)),
        FromLeader::UpToDate,
    ];
    let bytes = of_leader(&packets);
    let whole = words(&feed(&mut Link::dialed(LINK, MAX).0, &mut BytesMut::new(), &[&bytes]).0);
    assert_eq!(whole.len(), packets.len());
    for cut in 0..=bytes.len() {
        let (mut link, _) = Link::dialed(LINK, MAX);
        let (first, second) = bytes.split_at(cut);
        let (inputs, step) = feed(&mut link, &mut BytesMut::new(), &[first, second]);
        assert_eq!((words(&inputs), step), (whole.clone(), Step::NeedMore), "cut at {cut}");
    }
}

#[test]
fn sessions_that_were_heard_from_come_right_before_a_ping() {
    let (mut link, dialed) = Link::dialed(LINK, MAX);
    assert_eq!(words(&[dialed]), ["Dialed(LinkId(7))"]);
    let bytes = of_leader(&[FromLeader::UpToDate, FromLeader::Ping(Zxid(1))]);
    let (inputs, _) = feed(&mut link, &mut BytesMut::new(), &[&bytes]);
    let touched = format!("{:?}", touched());
    assert_eq!(words(&inputs), ["UpToDate".to_string(), touched, format!("{:?}", FromLeader::Ping(Zxid(1)))]);
}

#[test]
fn the_bytes_after_snap_are_the_snapshots_and_those_after_it_are_packets() {
    let (mut link, _) = Link::dialed(LINK, MAX);
    let mut buffer = BytesMut::new();
    let mut bytes = of_leader(&[FromLeader::Snap(Zxid(9), None)]);
    bytes.extend_from_slice(b"snapshot");
    bytes.extend_from_slice(&of_leader(&[FromLeader::UpToDate]));
    let (inputs, step) = feed(&mut link, &mut buffer, &[&bytes]);
    assert_eq!((words(&inputs).len(), step), (1, Step::Snapshot(Zxid(9))));
    assert!(buffer.starts_with(b"snapshot"), "the driver takes it from here");
    assert_eq!(feed(&mut link, &mut buffer, &[&[]]).1, Step::Snapshot(Zxid(9)), "until it is whole");

    let _ = buffer.split_to(b"snapshot".len());
    let mut inputs = Vec::new();
    let db = Database::new(OwnerRules { extended_types: true, emulate_353: false });
    link.on_snapshot(Box::new(db), &mut inputs);
    assert_eq!(link.take(&mut buffer, &touched, &mut inputs), Step::NeedMore);
    assert_eq!(words(&inputs), [format!("snapshot {}", Zxid(9)), "UpToDate".into()]);
}

#[test]
fn a_link_that_is_held_takes_nothing_and_loses_nothing() {
    let (mut link, _) = Link::dialed(LINK, MAX);
    let mut buffer = BytesMut::new();
    link.hold(true);
    let bytes = of_leader(&[FromLeader::UpToDate, FromLeader::Snap(Zxid(1), None)]);
    let (inputs, step) = feed(&mut link, &mut buffer, &[&bytes]);
    assert_eq!((words(&inputs).len(), step, buffer.len()), (0, Step::Held, bytes.len()));
    link.hold(false);
    let (inputs, step) = feed(&mut link, &mut buffer, &[&[]]);
    assert_eq!((words(&inputs).len(), step), (2, Step::Snapshot(Zxid(1))));
}

#[test]
fn the_core_hears_of_a_stranger_once_it_is_admitted_and_then_of_its_end() {
    let mut link = Link::accepted(LINK, MAX);
    let ack = FromLearner::AckEpoch { current: None, last: Zxid(1), plea: Plea::default() };
    let bytes = of_learner(&[info(3), ack.clone()]);
    let mut buffer = BytesMut::new();
    let (inputs, step) = feed(&mut link, &mut buffer, &[&bytes[..9], &bytes[9..], &[]]);
    assert_eq!((words(&inputs).len(), step), (0, Step::Claims(ServerId(3))));
    assert!(Link::accepted(LINK, MAX).end().is_none());

    let mut inputs = Vec::new();
    link.admit(&mut inputs);
    assert_eq!(link.take(&mut buffer, &touched, &mut inputs), Step::NeedMore);
    let wanted = ["Accepted(LinkId(7))".into(), format!("{:?}", info(3)), format!("{ack:?}")];
    assert_eq!(words(&inputs), wanted);
    assert_eq!(words(&[link.end().expect("the core knows it")]), ["Closed(LinkId(7))"]);
}

#[test]
fn whatever_is_no_conversation_of_servers_has_its_name() {
    let mut vote = BytesMut::new();
    InitialMessage { from: ServerId(2), addresses: vec![("a".into(), 1)] }.encode(&mut vote);
    let mut endless = of_learner(&[info(3)])[..12].to_vec();
    endless.extend_from_slice(&1020_i32.to_be_bytes());
    endless.resize(MAX_INTRODUCTION, 0);
    let mut huge = of_learner(&[info(3)])[..12].to_vec();
    huge.extend_from_slice(&1025_i32.to_be_bytes());
    for (bytes, wanted) in [
        (&vote[..], LinkEnd::ElectionMessage),
        (b"\x16\x03\x01\x02\x00", LinkEnd::Tls),
        (&of_learner(&[FromLearner::Ack(Zxid(1))]), LinkEnd::NotIntroduced),
        (&endless, LinkEnd::LongIntroduction),
        (&huge, LinkEnd::Packet(DecodeError::NegativeLength(1025))),
    ] {
        let mut link = Link::accepted(LINK, MAX);
        let (inputs, step) = feed(&mut link, &mut BytesMut::new(), &[bytes]);
        assert_eq!((inputs.len(), step), (0, Step::Broken(wanted)));
    }
    let (mut link, _) = Link::dialed(LINK, 10);
    let proposal = FromLeader::Proposal { zxid: Zxid(1), body: bytes::Bytes::from_static(&[0; 11]) };
    let step = feed(&mut link, &mut BytesMut::new(), &[&of_leader(&[proposal])]).1;
    assert_eq!(step, Step::Broken(LinkEnd::Packet(DecodeError::NegativeLength(11))));
}
