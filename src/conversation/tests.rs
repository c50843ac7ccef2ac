use super::*;
use crate::jute::records::{ConnectRequest, CreateTxn, TxnHeader};
use crate::model::owner::OwnerRules;
use crate::tree::open_entry;
use crate::wire::txn::{Txn, TxnBody};
use bytes::BufMut;

const SESSION: SessionId = SessionId(7);
const CREATE: i32 = 1;
const GET: i32 = 4;
const CHILDREN: i32 = 8;
const PING: i32 = 11;
const CLOSE: i32 = -11;
const UNKNOWN: i32 = 20;

/// Bytes that may wait for a client.
const ROOM: usize = 64 << 20;

/// A conversation and what surrounds it.
struct Talk {
    it: Conversation,
    db: Database,
    rules: Rules,
    limits: Limits,
    may_read: bool,
    refuses_writes: bool,
    /// Bytes of others' requests.
    others: usize,
    touch_round: u32,
    inputs: Vec<Input>,
    tally: Tally,
}

impl Talk {
    fn new() -> Self {
        Self {
            it: Conversation::new(ConnId(1), "127.0.0.1".parse().unwrap()),
            db: Database::new(OwnerRules { extended_types: true, emulate_353: false }),
            rules: Rules { skip_acl: true, ..Rules::default() },
            limits: Limits {
                max_frame: 1000,
                outstanding: 1000,
                admitted_bytes: 100,
                unlogged_bytes: 1000,
                room: ROOM,
                enforced_schemes: Vec::new(),
            },
            may_read: true,
            refuses_writes: false,
            others: 0,
            touch_round: 1,
            inputs: Vec::new(),
            tally: Tally::default(),
        }
    }

    /// With a session.
    fn open() -> Self {
        let mut talk = Self::new();
        talk.says(&connect());
        talk.core_says(ClientMessage::Established { session: SESSION, timeout_ms: 10_000 }, b"");
        talk.inputs.clear();
        talk
    }

    fn says(&mut self, bytes: &[u8]) -> Step {
        self.it.take(bytes);
        self.advance()
    }

    fn core_says(&mut self, message: ClientMessage, bytes: &[u8]) -> Step {
        self.call(|it, world, _, tally| it.on_mail(message, bytes, world, tally));
        self.advance()
    }

    /// The core answers the oldest request that it has.
    fn core_answers(&mut self, xid: i32) {
        let mut bytes = BytesMut::new();
        write_reply(&mut bytes, xid, 3, Ok(|_: &mut BytesMut| ()));
        self.core_says(ClientMessage::Reply, &bytes);
    }

    fn advance(&mut self) -> Step {
        self.call(|it, world, inputs, tally| it.advance(world, inputs, tally))
    }

    fn call<T>(
        &mut self,
        f: impl FnOnce(&mut Conversation, &World<'_>, &mut Vec<Input>, &mut Tally) -> T,
    ) -> T {
        let admitted_bytes = self.others + self.it.handed_in();
        let bounds = Bounds {
            refuses_writes: self.refuses_writes,
            ..bounds(&self.limits, admitted_bytes, self.may_read)
        };
        let work = Budget::default();
        let world = World {
            db: &self.db,
            work: &work,
            bounds,
            rules: &self.rules,
            logins: None,
            now: Duration::ZERO,
            touch_round: self.touch_round,
            nonce: || None,
        };
        f(&mut self.it, &world, &mut self.inputs, &mut self.tally)
    }

    fn works(&self) -> bool {
        self.it.has_work(bounds(&self.limits, self.others + self.it.handed_in(), self.may_read))
    }

    /// The xids of the answers that are there; they leave.
    fn answers(&mut self) -> Vec<i32> {
        let mut xids = Vec::new();
        let mut rest = self.it.output();
        while let Some(len) = rest.first_chunk().map(|len| i32::from_be_bytes(*len) as usize) {
            xids.push(i32::from_be_bytes(rest[4..8].try_into().unwrap()));
            rest = &rest[4 + len..];
        }
        self.it.sent(self.it.output().len());
        self.it.flushed();
        xids
    }

    /// The operations that the core was asked for.
    fn asked(&mut self) -> Vec<Op> {
        let op = |input| if let Input::Request { request, .. } = input { Some(request.op) } else { None };
        self.inputs.drain(..).filter_map(op).collect()
    }

    fn over(&mut self) -> Option<End> {
        let bounds = bounds(&self.limits, self.others + self.it.handed_in(), self.may_read);
        self.it.over(bounds).cloned()
    }
}

fn bounds(limits: &Limits, admitted_bytes: usize, may_read: bool) -> Bounds<'_> {
    Bounds { limits, outstanding: 0, admitted_bytes, unlogged_bytes: 0, may_read, refuses_writes: false }
}

fn frame(body: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    bytes.put_i32(body.len() as i32);
    bytes.extend_from_slice(body);
    bytes
}

fn connect() -> Vec<u8> {
    let request = ConnectRequest {
        protocol_version: 0,
        last_zxid_seen: 5,
        timeout: 10_000,
        session_id: 0,
        passwd: Some(&[0; 16][..]),
    };
    let mut body = BytesMut::new();
    request.encode(&mut body);
    frame(&body)
}

fn request(xid: i32, op: i32) -> Vec<u8> {
    let mut body = Vec::new();
    body.put_i32(xid);
    body.put_i32(op);
    if matches!(op, GET | CHILDREN) {
        body.put_i32(1);
        body.put_slice(b"/\0");
    }
    frame(&body)
}

#[test]
fn a_read_waits_for_the_writes_of_its_session_and_all_after_it_wait_too() {
    let mut talk = Talk::open();
    talk.says(&[request(1, CREATE), request(2, GET), request(3, CREATE)].concat());
    assert_eq!(talk.asked(), [Op::Create], "the second write would be answered before the read");
    assert_eq!(talk.answers(), [0; 0]);
    talk.core_answers(1);
    assert_eq!(talk.answers(), [1, 2]);
    assert_eq!(talk.asked(), [Op::Create]);
}

#[test]
fn what_a_client_has_begun_to_say_is_expected_as_a_whole() {
    let mut talk = Talk::open();
    let large = frame(&[0; 900]);
    talk.it.take(&large[..3]);
    assert_eq!((talk.it.unworked(), talk.it.expected(&talk.limits)), (3, 3), "its length is not there");
    talk.it.take(&large[3..10]);
    assert_eq!((talk.it.unworked(), talk.it.expected(&talk.limits)), (10, 904));
    let mut talk = Talk::open();
    talk.it.take(&1001_i32.to_be_bytes());
    assert_eq!(talk.it.expected(&talk.limits), 4, "nobody waits for that");
    // Requests that wait for one in the core count; that one does not.
    let mut talk = Talk::open();
    talk.says(&[request(1, CREATE), request(2, GET), request(3, CREATE)].concat());
    let waiting = request(2, GET).len() - 4 + request(3, CREATE).len() - 4;
    assert_eq!((talk.it.unworked(), talk.it.expected(&talk.limits)), (waiting, waiting));
    talk.core_answers(1);
    assert_eq!(talk.it.unworked(), 0);
}

#[test]
fn a_read_waits_until_reads_may_be_answered() {
    let mut talk = Talk::open();
    talk.may_read = false;
    talk.says(&request(1, GET));
    assert!(talk.tally.waits_for_lease);
    assert_eq!(talk.answers(), [0; 0]);
    talk.may_read = true;
    talk.advance();
    assert_eq!(talk.answers(), [1]);
}

#[test]
fn without_room_writes_are_refused_in_their_turn_and_the_rest_goes_on() {
    let mut talk = Talk::open();
    talk.says(&request(1, CREATE));
    assert_eq!(talk.asked(), [Op::Create]);
    talk.refuses_writes = true;
    // Nobody waits at the door for a refusal.
    talk.others = 1000;
    talk.says(&[request(2, CREATE), request(3, GET), request(4, CREATE), request(5, CLOSE)].concat());
    assert_eq!(talk.answers(), [0; 0], "the first one's outcome comes first");
    talk.core_answers(1);
    let second = &talk.it.output()[20..];
    let header = ReplyHeader::decode(&mut Reader::new(&second[4..])).unwrap();
    assert_eq!((header.xid, header.err), (2, ErrorCode::SystemError.code()));
    assert_eq!(talk.answers(), [1, 2, 3, 4]);
    assert_eq!(talk.tally.no_room, 2);
    assert_eq!(talk.asked(), [Op::CloseSession], "sessions end as ever");
    assert_eq!(talk.over(), None);
}

#[test]
fn a_refusal_comes_in_its_turn_and_nothing_comes_after_it() {
    let mut talk = Talk::open();
    talk.says(&[request(1, CREATE), request(2, UNKNOWN), request(3, GET)].concat());
    assert_eq!(talk.answers(), [0; 0]);
    talk.core_answers(1);
    assert_eq!(talk.answers(), [1, 2]);
    assert_eq!(talk.over(), Some(End::UnknownOperation(UNKNOWN)));
}

#[test]
fn what_a_client_said_before_it_went_is_handed_in() {
    let mut talk = Talk::open();
    talk.it.take(&[request(1, CREATE), request(2, GET), request(3, CREATE), request(4, CLOSE)].concat());
    talk.it.end_of_input(End::ClientClosed);
    assert_eq!(talk.over(), None, "nothing of it was worked off");
    talk.advance();
    assert_eq!(talk.asked(), [Op::Create, Op::Create, Op::CloseSession]);
    assert_eq!(talk.over(), Some(End::ClientClosed));
}

#[test]
fn the_end_waits_for_the_session_that_was_asked_for() {
    let mut talk = Talk::new();
    talk.it.take(&[connect(), request(1, CLOSE)].concat());
    talk.it.end_of_input(End::ClientClosed);
    talk.advance();
    assert_eq!(talk.over(), None);
    talk.core_says(ClientMessage::Established { session: SESSION, timeout_ms: 10_000 }, b"");
    assert_eq!(talk.asked(), [Op::CloseSession]);
    assert_eq!(talk.over(), Some(End::ClientClosed));
}

#[test]
fn a_frame_of_a_wrong_length_ends_the_conversation_after_what_came_before() {
    let mut talk = Talk::open();
    let bad = 1001_i32.to_be_bytes();
    talk.says(&[&request(1, CREATE)[..], &request(2, GET), &bad].concat());
    talk.core_answers(1);
    assert_eq!(talk.over(), Some(End::BadFrame { len: 1001, limit: 1000, first: false }));

    let mut talk = Talk::new();
    talk.says(b"GET / HTTP/1.1\r\n\r\n");
    let why = talk.over().unwrap().to_string();
    assert!(why.ends_with("the client speaks HTTP, and this port does not"), "{why}");
    let mut talk = Talk::new();
    talk.says(&[0x16, 0x03, 0x01, 0x02, 0x00]);
    let why = talk.over().unwrap().to_string();
    assert!(why.ends_with("the client speaks TLS, and this port does not"), "{why}");
}

#[test]
fn a_session_is_touched_once_a_round_by_whatever_its_client_says() {
    let mut talk = Talk::open();
    for (round, xid) in [(1, 1), (2, 2)] {
        talk.touch_round = round;
        talk.says(&request(xid, PING));
        assert!(std::mem::take(&mut talk.tally.touched), "in round {round}");
        talk.says(&request(xid, GET));
        assert!(!talk.tally.touched, "again in round {round}");
    }
}

/// `seen` of the answers to the pings that are at the front of the input.
fn pings(talk: &mut Talk, seen: i64) -> Vec<i64> {
    let bounds = bounds(&talk.limits, talk.it.handed_in(), talk.may_read);
    talk.it.answer_pings(|| seen, bounds, talk.touch_round, &mut talk.tally);
    let answers = talk.it.output().chunks(20).map(|answer| {
        assert_eq!(answer[4..8], (-2_i32).to_be_bytes());
        i64::from_be_bytes(answer[8..16].try_into().unwrap())
    });
    let answers = answers.collect();
    talk.it.sent(talk.it.output().len());
    answers
}

#[test]
fn pings_are_answered_without_the_database_and_bytes_that_come_apart_wait() {
    let mut talk = Talk::open();
    let ping = request(-2, PING);
    talk.it.take(&[&ping[..], &ping, &ping[..5]].concat());
    assert_eq!(pings(&mut talk, 4), [4, 4]);
    assert!(talk.tally.touched);
    assert!(!talk.it.is_quiet());
    talk.it.take(&ping[5..]);
    assert_eq!(pings(&mut talk, 4), [4]);
    assert!(talk.it.is_quiet());
}

#[test]
fn a_ping_is_not_answered_before_what_was_asked_before_it() {
    let mut talk = Talk::open();
    talk.says(&request(1, CREATE));
    talk.it.take(&request(-2, PING));
    assert_eq!(pings(&mut talk, 4), [0; 0], "a write is not answered");
    talk.core_answers(1);
    assert_eq!(talk.answers(), [1, -2]);

    talk.it.take(&[request(2, GET), request(-2, PING)].concat());
    assert_eq!(pings(&mut talk, 4), [0; 0], "a read comes first");
    talk.may_read = false;
    talk.advance();
    assert_eq!(pings(&mut talk, 4), [0; 0], "and waits");
    talk.may_read = true;
    talk.advance();
    assert_eq!(talk.answers(), [2, -2]);
}

#[test]
fn a_ping_tells_no_later_zxid_than_was_seen_and_none_before_one_that_was_told() {
    let mut talk = Talk::open();
    talk.it.take(&request(-2, PING));
    assert_eq!(pings(&mut talk, 2), [2]);
    talk.says(&request(1, CREATE));
    // With zxid 3.
    talk.core_answers(1);
    talk.answers();
    talk.it.take(&request(-2, PING));
    assert_eq!(pings(&mut talk, 2), [3], "the write's answer told more");
    talk.db.last_zxid = crate::model::Zxid(7);
    talk.says(&request(2, GET));
    talk.answers();
    talk.it.take(&request(-2, PING));
    assert_eq!(pings(&mut talk, 5), [7], "and the read's");
    talk.it.take(&request(-2, PING));
    assert_eq!(pings(&mut talk, 9), [9]);
}

#[test]
fn a_ping_waits_for_the_lease_and_for_a_client_that_reads() {
    let mut talk = Talk::open();
    talk.may_read = false;
    talk.it.take(&request(-2, PING));
    assert_eq!(pings(&mut talk, 1), [0; 0]);
    talk.may_read = true;
    assert_eq!(pings(&mut talk, 1), [1]);
    talk.it.output.resize(HIGH_WATER, 0);
    talk.it.take(&request(-2, PING));
    let bounds = bounds(&talk.limits, 0, true);
    assert!(!talk.it.answer_pings(|| 1, bounds, 1, &mut Tally::default()), "it takes no answers");
}

#[test]
fn the_last_answer_is_told_and_a_ping_leaves_the_last_xid_as_it_was() {
    let mut talk = Talk::open();
    let told = |talk: &mut Talk| {
        let tally = std::mem::take(&mut talk.tally);
        (tally.cxid, tally.last.map(|last| (last.op, last.zxid)))
    };
    assert_eq!(told(&mut talk), (Some(0), Some((Op::CreateSession, 0))));
    talk.says(&request(5, CREATE));
    talk.core_answers(5);
    assert_eq!(told(&mut talk), (Some(5), Some((Op::Create, 3))));
    talk.says(&request(-2, PING));
    assert_eq!(told(&mut talk), (None, Some((Op::Ping, 0))));
    talk.says(&[request(6, GET), request(-2, PING)].concat());
    assert_eq!(told(&mut talk), (Some(6), Some((Op::Ping, 0))));
}

#[test]
fn a_word_is_answered_once_and_ends_the_conversation() {
    let mut talk = Talk::new();
    assert_eq!(talk.says(b"stmk\0\0"), Step::Word(*b"stmk"));
    assert_eq!(talk.it.unread(), b"\0\0");
    assert_eq!(talk.says(b"\0\0"), Step::Word(*b"stmk"), "asked again with more bytes");
    talk.it.answer_word("0");
    assert_eq!(talk.advance(), Step::Wait);
    assert_eq!(talk.it.output(), b"0");
    talk.it.sent(1);
    talk.it.flushed();
    assert_eq!(talk.over(), Some(End::Done));
}

#[test]
fn a_session_that_is_refused_ends_with_its_number() {
    let mut talk = Talk::new();
    talk.says(&connect());
    talk.core_says(ClientMessage::Close(CloseReason::ClientIsAhead), b"");
    talk.answers();
    assert_eq!(talk.over(), Some(End::ClientIsAhead { seen: 5, here: 0 }));
}

#[test]
fn a_client_that_writes_all_before_it_reads_gets_room_for_its_answers_up_to_a_bound() {
    let mut talk = Talk::open();
    let count = 2 * ROOM / 20;
    let bytes: Vec<u8> = (0..1000).flat_map(|xid| request(xid, PING)).collect();
    let mut said = 0;
    let mut widened = 0;
    while said < count {
        let bounds = bounds(&talk.limits, talk.it.handed_in(), true);
        if talk.it.has_space(bounds) {
            talk.says(&bytes);
            said += 1000;
        } else if talk.it.has_work(bounds) {
            talk.advance();
        } else if talk.it.is_held_up() && talk.it.widen(&talk.limits) {
            widened += 1;
        } else {
            break;
        }
    }
    assert!(talk.it.is_full(&talk.limits) && widened == 6, "after {widened} times");
    assert!(talk.it.output().len() < ROOM + HIGH_WATER);
    talk.it.sent(talk.it.output().len());
    talk.advance();
    let bounds = bounds(&talk.limits, talk.it.handed_in(), true);
    assert!(talk.it.has_space(bounds), "it goes on where the client reads");
}

#[test]
fn no_event_cuts_a_client_off_however_much_waits_for_it() {
    let mut talk = Talk::open();
    for _ in 0..3 {
        talk.core_says(ClientMessage::Event, &vec![0; ROOM / 2]);
    }
    assert_eq!(talk.over(), None);
    assert_eq!(talk.it.output().len(), 3 * ROOM / 2);
}

/// With this many children of the root.
fn crowded(count: i64) -> Talk {
    let mut talk = Talk::open();
    for zxid in 1..=count {
        let body = TxnBody::Create(CreateTxn {
            path: format!("/{zxid}").into(),
            data: None,
            acl: vec![open_entry()],
            ephemeral: false,
            parent_cversion: -1,
        });
        let header = TxnHeader { client_id: 1, cxid: 1, zxid, time: 1, op: 1 };
        talk.db.apply(&Txn { header, body, digest: None }, &mut Vec::new());
    }
    talk
}

#[test]
fn what_follows_a_read_of_many_holds_waits_for_its_turn() {
    let mut talk = crowded(20_000);
    talk.says(&[request(1, GET), request(2, CHILDREN), request(3, GET), request(4, CREATE)].concat());
    assert_eq!(talk.answers(), [1]);
    let waiting = talk.it.waiting();
    assert!(waiting > 10_000, "what is there of the answer counts: {waiting}");
    let mut holds = 1;
    while talk.works() {
        if holds == 1 {
            // An event that comes meanwhile goes out first.
            talk.core_says(ClientMessage::Event, &[0, 0, 0, 4, 0xff, 0xff, 0xff, 0xff]);
            assert_eq!(talk.answers(), [-1]);
        }
        talk.advance();
        holds += 1;
    }
    assert!(holds > 2, "{holds}");
    assert_eq!(talk.answers(), [2, 3]);
    assert_eq!((talk.asked(), talk.it.waiting()), (vec![Op::Create], 0));
}

#[test]
fn a_hold_ends_after_its_share_of_small_requests() {
    let mut talk = Talk::open();
    let count = 3 * Budget::HOLD;
    let pings: Vec<u8> = (0..count).flat_map(|_| request(-2, PING)).collect();
    talk.says(&pings);
    let mut holds = vec![talk.answers().len()];
    while talk.works() {
        talk.advance();
        holds.push(talk.answers().len());
    }
    assert_eq!(holds.iter().sum::<usize>(), count);
    assert!(holds.iter().all(|answers| *answers <= Budget::HOLD), "{holds:?}");
}

#[test]
fn a_read_of_many_holds_ends_with_a_client_that_has_gone() {
    let mut talk = crowded(20_000);
    talk.says(&[request(1, CHILDREN), request(2, CREATE)].concat());
    talk.it.on_write_failed(End::WriteFailed(std::io::ErrorKind::BrokenPipe));
    talk.it.end_of_input(End::ClientClosed);
    talk.advance();
    assert_eq!((talk.asked(), talk.it.waiting()), (vec![Op::Create], 0));
    assert_eq!(talk.over(), Some(End::ClientClosed));
}

#[test]
fn while_too_much_is_under_way_reads_pass_and_a_write_waits_outside() {
    let mut talk = Talk::open();
    talk.others = 101;
    talk.says(&[request(1, PING), request(2, CREATE), request(3, PING)].concat());
    assert_eq!((talk.answers(), talk.asked()), (vec![-2], vec![]));
    let limits = talk.limits.clone();
    let full = bounds(&limits, 101, true);
    assert!(talk.it.waits_for_others(full) && !talk.it.has_work(full), "it is no busy loop");
    assert_eq!(talk.it.handed_in(), 0);

    talk.others = 100;
    let room = bounds(&limits, 100, true);
    assert!(!talk.it.waits_for_others(room) && talk.it.has_work(room));
    // Whoever's writes the log has not taken yet.
    assert!(!talk.it.waits_for_others(Bounds { unlogged_bytes: 1000, ..room }));
    assert!(talk.it.waits_for_others(Bounds { unlogged_bytes: 1001, ..room }));
    talk.advance();
    assert_eq!(talk.asked(), [Op::Create]);
    assert!(talk.it.handed_in() > 0);
    talk.core_answers(2);
    assert_eq!((talk.answers(), talk.it.handed_in()), (vec![2, -2], 0));
}

#[test]
fn the_end_of_a_session_waits_for_nobody() {
    let mut talk = Talk::open();
    talk.others = 101;
    talk.says(&request(1, CLOSE));
    assert_eq!(talk.asked(), [Op::CloseSession]);
}
