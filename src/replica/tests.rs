//! The server as a value: what is acknowledged when, who hears of it, how sessions end.

use super::*;
use crate::election::ElectionConn;
use crate::jute::Reader;
use crate::jute::records::{
    CreateRequest, DeleteRequest, ErrorTxn, ReplyHeader, SetDataRequest, SyncRequest, TxnHeader,
};
use crate::model::owner::OwnerRules;
use crate::model::{DigestAlgorithm, ErrorCode, LinkId, Op};
use crate::request::Request;
use crate::tree::{Applied, open_entry};
use crate::wire::election::{InitialMessage, Notification, PeerState};
use crate::wire::quorum::Forwarded;
use crate::wire::txn::{Txn, TxnBody};

struct Server {
    replica: Replica,
    db: Database,
    now: Now,
    out: Outputs,
    /// Everything appended so far.
    log: Vec<LogEntry>,
    /// How much of it was looked at.
    seen: usize,
}

const CONN: ConnId = ConnId(1);

fn settings() -> Settings {
    let me = ServerId(1);
    Settings {
        server: me,
        tick_ms: 100,
        min_session_timeout_ms: 200,
        max_session_timeout_ms: 2000,
        container_check_ms: 1000,
        container_max_per_minute: 10_000,
        container_max_never_used_ms: 0,
        rules: Rules {
            txn_digests: true,
            digest_auth: Some(DigestAlgorithm::Sha1),
            max_txn_bytes: 1 << 20,
            ..Rules::default()
        },
        leader_serves: true,
        read_only_mode: false,
        standalone_enabled: true,
        zab: zab::tests::settings(me),
        pace: Pace { min_interval_ms: 200, max_interval_ms: 1000, finalize_ms: 200, empty_wait_ms: 30_000 },
        election_addresses: Vec::new(),
        handshake_ms: 500,
    }
}

impl Server {
    fn new() -> Self {
        let db = Database::new(OwnerRules::default());
        let now = Now { mono_ms: 1000, wall_ms: 1_700_000_000_000 };
        let replica = Replica::alone(settings(), &db, now);
        Self { replica, db, now, out: Outputs::default(), log: Vec::new(), seen: 0 }
    }

    /// Hands in one input and returns what clients are sent.
    fn input(&mut self, input: Input) -> Vec<(ClientOutput, Vec<u8>)> {
        self.replica.handle(self.now, &self.db, input, &mut self.out);
        while self.replica.has_steps() {
            self.replica.apply(self.now, &mut self.db, &mut self.out);
        }
        self.log.extend(self.out.zab.disk.drain(..).map(|op| match op {
            DiskOp::Append(entry) => entry,
            other => panic!("a server alone appends: {other:?}"),
        }));
        let mut bytes = self.out.bytes.split();
        let told = self.out.client.drain(..);
        told.map(|output| (output, bytes.split_to(output.len).to_vec())).collect()
    }

    /// Time passes, `ticks` in number, one at a time.
    fn wait(&mut self, ticks: u64) -> Vec<(ClientOutput, Vec<u8>)> {
        let mut told = Vec::new();
        for _ in 0..ticks {
            self.now.mono_ms += settings().tick_ms;
            told.extend(self.input(Input::Tick));
        }
        told
    }

    fn sync(&mut self) -> Vec<(ClientOutput, Vec<u8>)> {
        let last = self.log.last().unwrap().zxid;
        self.input(Input::Disk(DiskDone::Logged(last), None))
    }

    /// What was appended since this was asked last.
    fn fresh(&mut self) -> &[LogEntry] {
        let before = std::mem::replace(&mut self.seen, self.log.len());
        &self.log[before..]
    }

    /// Lets the server do what it has left for further turns, and returns what clients hear meanwhile.
    fn work_off(&mut self) -> Vec<(ClientOutput, Vec<u8>)> {
        let mut told = Vec::new();
        for _ in 0..1000 {
            while self.replica.next_wake() <= self.now.mono_ms {
                told.extend(self.input(Input::Tick));
            }
            let before = self.log.len();
            told.extend(self.sync());
            if self.log.len() == before && self.replica.next_wake() > self.now.mono_ms {
                return told;
            }
        }
        panic!("it never comes to an end");
    }

    fn connect(&mut self, conn: ConnId) -> SessionId {
        let connect = Connect {
            last_zxid_seen: 0,
            timeout: 500,
            session: SessionId::NONE,
            passwd: vec![],
            read_only: Some(false),
        };
        assert_eq!(self.input(Input::Connect { conn, connect }), [], "not before it is durable");
        let told = self.sync();
        let ClientMessage::Established { session, timeout_ms: 500 } = told[0].0.message else {
            panic!("{told:?}")
        };
        session
    }

    fn request(
        &mut self,
        session: SessionId,
        op: Op,
        body: impl FnOnce(&mut BytesMut),
    ) -> Vec<(ClientOutput, Vec<u8>)> {
        let mut bytes = BytesMut::new();
        body(&mut bytes);
        let request = Request { session, cxid: 7, op, body: bytes.freeze(), auth: Arc::new([]) };
        self.input(Input::Request { conn: CONN, request })
    }

    fn create(&mut self, session: SessionId, path: &str, flags: i32) -> Vec<(ClientOutput, Vec<u8>)> {
        let path = Bytes::copy_from_slice(path.as_bytes());
        self.request(session, Op::Create, |out| {
            CreateRequest { path, data: None, acl: vec![open_entry()], flags }.encode(out);
        })
    }
}

fn header(bytes: &[u8]) -> ReplyHeader {
    ReplyHeader::decode(&mut Reader::new(&bytes[4..])).unwrap()
}

#[test]
fn nothing_is_acknowledged_before_it_is_durable() {
    let mut server = Server::new();
    let session = server.connect(CONN);
    assert_eq!(server.create(session, "/a", 0), []);
    assert!(server.db.tree.find(b"/a").is_none(), "not even visible");
    let told = server.sync();
    assert_eq!(told.len(), 1);
    assert_eq!((header(&told[0].1).xid, header(&told[0].1).zxid, header(&told[0].1).err), (7, 2, 0));
    assert!(server.db.tree.find(b"/a").is_some());
}

#[test]
fn a_full_disk_refuses_what_comes_and_keeps_what_is_under_way() {
    let mut server = Server::new();
    let session = server.connect(CONN);
    server.create(session, "/a", 0);
    assert_eq!(server.input(Input::Room(Room::Low)), []);
    assert!(server.replica.refuses_writes());
    // It was on its way here already.
    server.create(session, "/b", 0);
    let told = server.sync();
    let errors: Vec<i32> = told.iter().map(|(_, bytes)| header(bytes).err).collect();
    assert_eq!(errors, [0, ErrorCode::SystemError.code()]);
    assert!(server.db.tree.find(b"/a").is_some() && server.db.tree.find(b"/b").is_none());
    let other = server.connect(ConnId(2));
    assert_ne!(session, other, "sessions begin");

    server.input(Input::Room(Room::Enough));
    server.create(session, "/c", 0);
    let told = server.input(Input::Room(Room::Out));
    let closed = [ClientMessage::Close(CloseReason::NoRoom)];
    assert!(told.iter().map(|(output, _)| output.message).eq(closed), "nobody knows what becomes of it");
    let told = server.input(Input::Connect { conn: ConnId(3), connect: a_client() });
    assert!(told.iter().map(|(output, _)| output.message).eq(closed), "a new session would wait as well");
    server.input(Input::Room(Room::Enough));
    server.sync();
    assert!(!server.replica.refuses_writes());
    assert!(server.db.tree.find(b"/c").is_some(), "it was done once there was room");
    assert!(server.db.sessions.contains_key(&session) && server.db.sessions.contains_key(&other));
}

#[test]
fn every_failed_write_takes_a_zxid_too() {
    let mut server = Server::new();
    let session = server.connect(CONN);
    server.create(session, "/no/parent", 0);
    let told = server.sync();
    assert_eq!((header(&told[0].1).zxid, header(&told[0].1).err), (2, -101));
    assert_eq!(server.db.last_zxid, Zxid(2));
}

#[test]
fn a_sync_waits_for_what_was_proposed_before_it() {
    let mut server = Server::new();
    let session = server.connect(CONN);
    server.create(session, "/a", 0);
    let path = |out: &mut BytesMut| SyncRequest { path: Some(&b"/x"[..]) }.encode(out);
    assert_eq!(server.request(session, Op::Sync, path), []);
    let told = server.sync();
    assert_eq!(told.len(), 2, "the create's reply, then the sync's");
    assert_eq!(header(&told[1].1).zxid, 2);
    assert_eq!(server.request(session, Op::Sync, path).len(), 1, "at once when nothing is outstanding");
}

#[test]
fn replies_keep_the_order_of_their_requests_around_a_sync() {
    let mut server = Server::new();
    let session = server.connect(CONN);
    let path = |out: &mut BytesMut| SyncRequest { path: Some(&b"/x"[..]) }.encode(out);
    server.create(session, "/a", 0);
    server.request(session, Op::Sync, path);
    server.create(session, "/b", 0);
    server.request(session, Op::Sync, path);
    server.request(session, Op::CloseSession, |_| ());
    let told = server.sync();
    let zxids: Vec<i64> = told.iter().map(|(_, bytes)| header(bytes).zxid).collect();
    assert_eq!(zxids, [2, 2, 3, 3, 4], "create, sync, create, sync, close: never back");
    assert_eq!(told[4].0.message, ClientMessage::LastReply);
}

#[test]
fn a_sync_is_answered_in_its_place() {
    let mut server = Server::new();
    let session = server.connect(CONN);
    let hand_in = |server: &mut Server, cxid, op, body: &[u8]| {
        let body = Bytes::copy_from_slice(body);
        let request = Request { session, cxid, op, body, auth: Arc::new([]) };
        assert_eq!(server.input(Input::Request { conn: CONN, request }), []);
    };
    let delete = b"\0\0\0\x05/none\xff\xff\xff\xff";
    hand_in(&mut server, 1, Op::Delete, delete);
    hand_in(&mut server, 2, Op::Sync, b"\0\0\0\x02/\xff");
    hand_in(&mut server, 3, Op::Sync, b"cut");
    hand_in(&mut server, 4, Op::Delete, delete);
    let told = server.sync();
    let answers: Vec<_> = told.iter().map(|(_, bytes)| header(bytes)).collect();
    let codes: Vec<_> = answers.iter().map(|header| (header.xid, header.zxid, header.err)).collect();
    assert_eq!(codes, [(1, 2, -101), (2, 2, 0), (3, 2, -5), (4, 3, -101)]);
    assert!(told[1].1.ends_with("/\u{fffd}".as_bytes()), "the path as Java reads it");
}

#[test]
fn an_expired_session_takes_its_ephemerals_and_its_connection() {
    let mut server = Server::new();
    let session = server.connect(CONN);
    server.create(session, "/e", 1);
    server.sync();
    server.wait(4);
    assert_eq!(server.input(Input::Touched(vec![session])), []);
    assert_eq!(server.wait(4), [], "it was heard from");
    server.wait(3);
    assert_eq!(server.create(session, "/late", 1), [], "closing: requests get no answer");
    let told = server.sync();
    assert_eq!(told.len(), 1);
    assert_eq!(told[0].0.message, ClientMessage::Close(CloseReason::SessionEnded));
    assert_eq!(server.db.tree.ephemeral_count(), 0);
    assert!(server.db.sessions.is_empty());
}

#[test]
fn a_tick_that_comes_late_ends_no_session() {
    let mut server = Server::new();
    let session = server.connect(CONN);
    server.wait(4);
    server.now.mono_ms += 11_000;
    assert_eq!(server.input(Input::Tick), [], "nobody could be heard");
    assert_eq!(server.out.told, [Told::StoodStill { ms: 11_000 }]);
    assert_eq!(server.wait(1), []);
    assert!(server.replica.sessions().unwrap().is_alive(session));
    server.wait(1);
    assert!(!server.replica.sessions().unwrap().is_alive(session), "it was silent for as long as it may be");
}

#[test]
fn a_session_moves_with_the_right_password_alone() {
    let mut server = Server::new();
    let session = server.connect(CONN);
    let ask = |passwd: Vec<u8>| Connect { last_zxid_seen: 0, timeout: 300, session, passwd, read_only: None };
    let told = server.input(Input::Connect { conn: ConnId(2), connect: ask(vec![0; 16]) });
    assert_eq!(told.len(), 1, "the owner's connection lives on");
    assert_eq!(told[0].0.message, ClientMessage::Close(CloseReason::WrongPassword));
    let told = server.input(Input::Connect { conn: ConnId(3), connect: ask(password_of(session).to_vec()) });
    let messages: Vec<_> = told.iter().map(|(output, _)| (output.conn, output.message)).collect();
    assert_eq!(messages[0], (CONN, ClientMessage::Close(CloseReason::SessionTakenOver)));
    assert_eq!(messages[1], (ConnId(3), ClientMessage::Established { session, timeout_ms: 300 }));
    // The old connection's end does not take the session from the new one.
    server.input(Input::Disconnected { conn: CONN, session });
    assert_eq!(server.replica.attached().collect::<Vec<_>>(), [(session, ConnId(3))]);
}

#[test]
fn a_session_with_too_many_ephemerals_is_closed_in_steps() {
    let mut server = Server::new();
    server.replica.settings.rules.max_txn_bytes = 9000;
    let session = server.connect(CONN);
    for number in 0..300 {
        server.create(session, &format!("/ephemeral-{number:04}"), 1);
    }
    server.sync();
    let before = server.log.len();
    server.request(session, Op::CloseSession, |_| ());
    assert_eq!(server.replica.outstanding(), 1, "it waits");
    let told = server.work_off();
    let closing = &server.log[before..];
    assert!(closing.len() > 1, "one transaction would be too large");
    assert!(closing.iter().all(|entry| entry.body.len() <= 9000));
    assert_eq!(told.last().unwrap().0.message, ClientMessage::LastReply);
    assert_eq!(server.db.tree.ephemeral_count(), 0);
    assert_eq!(server.replica.outstanding(), 0);
}

/// What one turn proposes, or one hold of the write lock applies: a share, and what the last of it brings.
const SHARE: usize = STEPS_AT_ONCE + 2;

fn steps_of(entries: &[LogEntry]) -> usize {
    entries.iter().map(|entry| Txn::decode(entry.body.clone()).unwrap().body.steps()).sum()
}

/// Others that have their own work to do leave it to a thread that has none.
#[test]
fn a_long_transaction_is_applied_under_a_hold_of_its_own() {
    let mut server = Server::new();
    let session = server.connect(CONN);
    let count = STEPS_AT_ONCE;
    for number in 0..count {
        server.create(session, &format!("/e{number}"), 1);
    }
    server.sync();
    server.create(session, "/x", 0);
    server.request(session, Op::CloseSession, |_| ());
    let last = server.log.last().unwrap().zxid;
    let logged = Input::Disk(DiskDone::Logged(last), None);
    server.replica.handle(server.now, &server.db, logged, &mut server.out);
    assert!(server.replica.next_is_short());
    server.replica.apply(server.now, &mut server.db, &mut server.out);
    assert!(!server.replica.next_is_short());
    assert!(server.db.tree.find(b"/x").is_some());
    assert_eq!(server.db.tree.ephemeral_count(), count);
    server.replica.apply(server.now, &mut server.db, &mut server.out);
    assert!(!server.replica.has_steps());
    assert_eq!(server.db.tree.ephemeral_count(), 0);
}

/// All in one turn cost O(S²) under the core's lock, and each ensemble with 30,000 of them elected for ever.
#[test]
fn sessions_that_expire_together_end_a_share_at_a_time() {
    for count in [100, 1000, 10_000] {
        let mut server = Server::new();
        let mut conns = 0;
        for _ in 0..count {
            conns += 1;
            let connect = Connect { timeout: 2000, ..a_client() };
            server.input(Input::Connect { conn: ConnId(conns), connect });
        }
        server.sync();
        let sessions: Vec<_> = server.db.sessions.keys().copied().collect();
        for session in sessions {
            server.create(session, &format!("/e{:x}", session.0), 1);
        }
        server.sync();
        assert_eq!(server.db.tree.ephemeral_count(), count);
        server.wait(20);
        server.fresh();
        server.now.mono_ms += settings().tick_ms;
        let (mut turns, mut ended) = (0, server.log.len());
        server.input(Input::Tick);
        loop {
            let proposed = steps_of(server.fresh());
            assert!(proposed <= SHARE, "{proposed} steps in one turn");
            turns += 1;
            if server.replica.next_wake() <= server.now.mono_ms {
                server.input(Input::Tick);
                continue;
            }
            let under_way = server.log.len() - ended;
            assert!(under_way <= 5 * STEPS_AT_ONCE, "{under_way} before a client's write");
            ended = server.log.len();
            if under_way == 0 {
                break;
            }
            server.sync();
        }
        assert!(turns >= count / STEPS_AT_ONCE);
        assert_eq!((server.db.sessions.len(), server.db.tree.ephemeral_count()), (0, 0));
        let told = std::mem::take(&mut server.out.told);
        assert!(matches!(&told[..], [Told::Expired { count: told, .. }] if *told == count), "{told:?}");
    }
}

#[test]
fn a_batch_of_commits_is_applied_a_share_at_a_time() {
    for count in [100, 10_000] {
        let mut server = Server::new();
        let session = server.connect(CONN);
        for at in 0..count {
            server.create(session, &format!("/n{at}"), 0);
        }
        let last = server.log.last().unwrap().zxid;
        server.replica.handle(
            server.now,
            &server.db,
            Input::Disk(DiskDone::Logged(last), None),
            &mut server.out,
        );
        let mut applied = 0;
        while server.replica.has_steps() {
            server.replica.apply(server.now, &mut server.db, &mut server.out);
            let share = server.out.client.len() - applied;
            assert!(share > 0 && share <= SHARE, "{share} under one hold");
            applied += share;
        }
        assert_eq!(applied, count);
    }
}

#[test]
fn ephemerals_of_one_session_go_a_share_at_a_time() {
    let mut server = Server::new();
    server.replica.settings.rules.max_txn_bytes = 100_000;
    let session = server.connect(CONN);
    for number in 0..10_000 {
        server.create(session, &format!("/ephemeral-{number:05}"), 1);
    }
    server.sync();
    let other = server.connect(ConnId(9));
    server.fresh();
    server.request(session, Op::CloseSession, |_| ());
    let mut closes = 0;
    while server.replica.outstanding() > 0 {
        server.input(Input::Tick);
        assert!(steps_of(server.fresh()) <= SHARE);
        // Others write meanwhile; and it creates nothing any more.
        assert_eq!(server.create(session, "/late", 1), []);
        server.create(other, &format!("/other-{closes}"), 0);
        server.fresh();
        closes += 1;
        server.sync();
    }
    assert!(closes >= 10_000 / SHARE);
    assert_eq!(server.db.tree.ephemeral_count(), 0);
    assert!(!server.db.sessions.contains_key(&session) && server.db.tree.find(b"/late").is_none());
}

#[test]
fn containers_go_a_share_at_a_time() {
    let mut server = Server::new();
    server.replica.settings.container_max_per_minute = 100_000_000;
    let session = server.connect(CONN);
    for at in 0..5000 {
        let path = Bytes::from(format!("/c{at}"));
        server.request(session, Op::CreateContainer, |out| {
            CreateRequest { path, data: None, acl: vec![open_entry()], flags: 4 }.encode(out);
        });
        server.create(session, &format!("/c{at}/child"), 0);
        server.request(session, Op::Delete, |out| {
            DeleteRequest { path: format!("/c{at}/child").into_bytes(), version: -1 }.encode(out);
        });
    }
    server.sync();
    server.fresh();
    server.now.mono_ms += 1000;
    server.input(Input::Touched(vec![session]));
    let children = |server: &Server| server.db.tree.child_count(server.db.tree.find(b"/").unwrap());
    for _ in 0..100 {
        server.input(Input::Tick);
        assert!(steps_of(server.fresh()) <= SHARE);
        if server.replica.next_wake() > server.now.mono_ms {
            server.input(Input::Disk(DiskDone::Logged(server.log.last().unwrap().zxid), None));
        }
    }
    assert_eq!(children(&server), 1, "/zookeeper");
}

/// A client may try it without end.
#[test]
fn a_write_that_no_peer_could_read_is_refused_and_told_once_in_a_while() {
    let mut server = Server::new();
    server.replica.settings.rules.max_txn_bytes = 9000;
    let leading = Leading::begin(server.now, &server.db, &server.replica.settings);
    server.replica.serving = Serving::Leading(Box::new(leading));
    let session = server.connect(CONN);
    let mut told = || {
        let large = |out: &mut BytesMut| {
            let data = Some(vec![0; 9000]);
            SetDataRequest { path: b"/".to_vec(), data, version: -1 }.encode(out);
        };
        server.request(session, Op::SetData, large);
        let last = server.log.last().expect("the refusal has a place among the answers");
        assert!(last.body.len() < 100);
        let answered = server.sync();
        assert_eq!(header(&answered[0].1).err, ErrorCode::BadArguments.code());
        server.now.mono_ms += 100;
        std::mem::take(&mut server.out.told)
    };
    let limit = 9000;
    assert_eq!(told(), [Told::TooLarge { session, limit, count: 1 }]);
    let later: Vec<_> = (0..100).flat_map(|_| told()).collect();
    assert_eq!(later, [Told::TooLarge { session, limit, count: 100 }]);
}

#[test]
fn a_client_from_the_future_is_turned_away() {
    let mut server = Server::new();
    let connect = Connect {
        last_zxid_seen: 5,
        timeout: 500,
        session: SessionId::NONE,
        passwd: vec![],
        read_only: None,
    };
    let told = server.input(Input::Connect { conn: CONN, connect });
    assert_eq!(told[0].0.message, ClientMessage::Close(CloseReason::ClientIsAhead));
    assert_eq!(told[0].0.len, 0);
}

/// A member of an ensemble in which nobody leads yet, with no other voter where `alone`.
fn leaderless(alone: bool) -> Server {
    let text = if alone { "server.1=a:1:2" } else { "server.1=a:1:2\nserver.2=b:1:2" };
    let view = View::new(Arc::new(Ensemble::parse(text).unwrap()));
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
    let mut server = Server::new();
    server.replica = Replica::in_ensemble(settings(), view, at, server.now);
    server
}

fn a_client() -> Connect {
    Connect { last_zxid_seen: 0, timeout: 2000, session: SessionId::NONE, passwd: vec![], read_only: None }
}

#[test]
fn a_client_waits_a_moment_for_a_leader() {
    let mut server = leaderless(false);
    assert_eq!(server.input(Input::Connect { conn: CONN, connect: a_client() }), []);
    assert_eq!(server.input(Input::Tick), [], "there is time to elect");
    server.now.mono_ms += 200;
    assert!(server.replica.next_wake() <= server.now.mono_ms);
    let told = server.input(Input::Tick);
    assert_eq!(told[0].0.message, ClientMessage::Close(CloseReason::NotServing));
    assert_eq!(server.input(Input::Tick), [], "once");
}

#[test]
fn a_client_that_went_away_is_not_let_in() {
    let mut server = leaderless(false);
    server.input(Input::Connect { conn: CONN, connect: a_client() });
    server.input(Input::Disconnected { conn: CONN, session: SessionId::NONE });
    server.now.mono_ms += 200;
    assert_eq!(server.input(Input::Tick), []);
}

/// A member that has looked for a leader for as long as it takes to become read-only.
fn cut_off() -> Server {
    let mut server = leaderless(false);
    server.replica.settings.read_only_mode = true;
    let tick = |server: &mut Server, after_ms| {
        server.now.mono_ms += after_ms;
        server.replica.handle(server.now, &server.db, Input::Tick, &mut server.out);
        server.out.zab.disk.clear();
        assert!(server.out.client.is_empty());
        server.replica.status().mode
    };
    assert_eq!(tick(&mut server, 1999), Mode::NotServing);
    assert_eq!(server.replica.lease(), 0, "nobody reads yet");
    assert!(server.replica.next_wake() <= server.now.mono_ms + 1);
    assert_eq!(tick(&mut server, 1), Mode::ReadOnly);
    assert_eq!(server.replica.lease(), u64::MAX);
    server
}

fn a_reader(session: SessionId) -> Connect {
    let passwd = password_of(session).to_vec();
    Connect { last_zxid_seen: 0, timeout: 500, session, passwd, read_only: Some(true) }
}

fn reads(server: &mut Server) -> SessionId {
    let told = server.input(Input::Connect { conn: CONN, connect: a_reader(SessionId::NONE) });
    let ClientMessage::Established { session, timeout_ms: 500 } = told[0].0.message else {
        panic!("{told:?}")
    };
    assert_eq!(told[0].1.last(), Some(&1), "it learns where it is");
    session
}

#[test]
fn a_server_without_a_leader_serves_those_who_only_read() {
    let mut server = cut_off();
    let session = reads(&mut server);
    assert!(server.db.sessions.is_empty(), "its sessions are in no log");
    for op in [Op::Create, Op::SetData, Op::Multi, Op::Sync, Op::Reconfig] {
        let told = server.request(session, op, |_| {});
        assert_eq!(told[0].0.message, ClientMessage::Reply);
        assert_eq!((header(&told[0].1).xid, header(&told[0].1).err), (7, -119), "{op:?}");
    }
    let told = server.request(session, Op::CloseSession, |_| {});
    assert_eq!((told.len(), told[0].0.message), (1, ClientMessage::LastReply));
    let told = server.input(Input::Connect { conn: CONN, connect: a_reader(session) });
    assert_eq!(told[0].0.message, ClientMessage::Close(CloseReason::InvalidSession));
}

#[test]
fn a_client_that_waits_for_a_leader_may_read_once_there_is_none_for_long() {
    let mut server = leaderless(false);
    server.replica.settings.read_only_mode = true;
    server.now.mono_ms += 1990;
    let connect = Connect { timeout: 2000, ..a_reader(SessionId::NONE) };
    assert_eq!(server.input(Input::Connect { conn: CONN, connect }), []);
    server.replica.handle(server.now, &server.db, Input::Tick, &mut server.out);
    server.out.zab.disk.clear();
    server.now.mono_ms += 10;
    let told = server.input(Input::Tick);
    assert!(matches!(told[0].0.message, ClientMessage::Established { .. }), "{told:?}");
}

#[test]
fn whoever_would_write_finds_no_leader_where_others_only_read() {
    let mut server = cut_off();
    assert_eq!(server.input(Input::Connect { conn: CONN, connect: a_client() }), []);
    server.now.mono_ms += 200;
    let told = server.input(Input::Tick);
    assert_eq!(told[0].0.message, ClientMessage::Close(CloseReason::NotServing));
}

#[test]
fn a_session_of_the_ensemble_goes_on_where_there_is_a_leader() {
    let mut server = cut_off();
    let global = SessionId(77);
    server.db.sessions.insert(global, 500);
    let told = server.input(Input::Connect { conn: CONN, connect: a_reader(global) });
    assert_eq!(told[0].0.message, ClientMessage::Close(CloseReason::NotServing));
    assert_eq!(told[0].0.len, 0, "it is not over");
}

#[test]
fn a_session_of_a_reader_is_taken_up_again_and_ends_when_it_is_silent() {
    let mut server = cut_off();
    let session = reads(&mut server);
    let again = ConnId(2);
    let told = server.input(Input::Connect { conn: again, connect: a_reader(session) });
    assert_eq!(
        (told[0].0.conn, told[0].0.message),
        (CONN, ClientMessage::Close(CloseReason::SessionTakenOver))
    );
    assert_eq!(told[1].0.message, ClientMessage::Established { session, timeout_ms: 500 });
    server.wait(4);
    assert_eq!(server.input(Input::Touched(vec![session])), []);
    assert_eq!(server.wait(4), []);
    let told = server.wait(3);
    assert_eq!((told[0].0.conn, told[0].0.message), (again, ClientMessage::Close(CloseReason::SessionEnded)));
    assert_eq!(server.replica.local_sessions(), 0);
}

#[test]
fn who_only_reads_is_sent_away_once_somebody_is_elected() {
    let mut server = cut_off();
    reads(&mut server);
    let mut out = Outputs::default();
    server.replica.leadership.skip_election();
    server.replica.end_read_only(server.now, &mut out);
    assert_eq!(out.client[0].message, ClientMessage::Close(CloseReason::NotServing));
    assert_eq!(server.replica.lease(), 0);
}

#[test]
fn a_client_is_let_in_once_somebody_leads() {
    let mut server = leaderless(true);
    let mut told = Vec::new();
    let connect = Input::Connect { conn: CONN, connect: a_client() };
    server.replica.handle(server.now, &server.db, connect, &mut server.out);
    for _ in 0..30 {
        server.now.mono_ms += 50;
        let done: Vec<DiskDone> = server.out.zab.disk.drain(..).map(done).collect();
        for done in done {
            server.replica.handle(server.now, &server.db, Input::Disk(done, None), &mut server.out);
        }
        server.replica.handle(server.now, &server.db, Input::Tick, &mut server.out);
        while server.replica.has_steps() {
            server.replica.apply(server.now, &mut server.db, &mut server.out);
        }
        told.extend(server.out.client.drain(..).map(|output| (output.conn, output.message)));
    }
    assert!(matches!(told[..], [(CONN, ClientMessage::Established { .. })]), "{told:?}");
}

fn done(op: DiskOp) -> DiskDone {
    match op {
        DiskOp::Append(entry) => DiskDone::Logged(entry.zxid),
        DiskOp::SaveAccepted(epoch) => DiskDone::AcceptedSaved(epoch),
        DiskOp::SaveCurrent(epoch) => DiskDone::CurrentSaved(epoch),
        DiskOp::SaveDebt(_) => DiskDone::DebtSaved,
        DiskOp::SaveConfig(_) => DiskDone::ConfigSaved,
        other => panic!("a server alone does no {other:?}"),
    }
}

#[test]
fn the_digest_in_the_log_is_the_trees() {
    let mut server = Server::new();
    let session = server.connect(CONN);
    for number in 0..20 {
        server.create(session, &format!("/n{number}"), number % 2);
        let path = Bytes::from(format!("/n{}", number / 2));
        server.request(session, Op::SetData, |out| {
            SetDataRequest { path: path.clone(), data: Some(path), version: -1 }.encode(out);
        });
        if number % 3 == 0 {
            server.sync();
        }
    }
    server.sync();
    server.request(session, Op::CloseSession, |_| ());
    server.sync();
    assert_eq!(server.out.tally.digest_mismatches, 0);
    assert!(server.out.tally.commits > 40);
}

#[test]
fn an_epoch_that_is_used_up_is_followed_by_the_next() {
    let mut server = Server::new();
    server.db.last_zxid = Zxid(0x5_ffff_fffe);
    server.replica = Replica::alone(server.replica.settings.clone(), &server.db, server.now);
    server.connect(CONN);
    assert_eq!(server.db.last_zxid, Zxid(0x6_0000_0001));
}

#[test]
fn a_session_that_is_begun_anew_while_it_is_closed_still_expires() {
    let mut server = Server::new();
    let session = SessionId(0x0400_0000_0000_0001);
    let ops = [(Op::CreateSession, 500), (Op::CloseSession, 0), (Op::CreateSession, 500)];
    for (op, timeout) in ops {
        let body = Bytes::copy_from_slice(&i32::to_be_bytes(timeout));
        let forwarded = Forwarded { session, cxid: 0, op: op.code(), body, auth: Vec::new() };
        let event = zab::Event::Forwarded { link: LinkId(1), request: forwarded };
        server.replica.on_event(server.now, &server.db, event, &mut server.out);
    }
    server.input(Input::Touched(Vec::new()));
    server.sync();
    assert!(server.db.sessions.contains_key(&session));
    server.wait(10);
    server.sync();
    assert!(server.db.sessions.is_empty());
}

#[test]
fn a_learner_begins_no_session_that_lives_and_not_number_zero() {
    let mut server = Server::new();
    for session in [0, 0x0400_0000_0000_0001, 0x0400_0000_0000_0001] {
        let body = Bytes::copy_from_slice(&i32::to_be_bytes(500));
        let session = SessionId(session);
        let op = Op::CreateSession.code();
        let forwarded = Forwarded { session, cxid: 0, op, body, auth: Vec::new() };
        let event = zab::Event::Forwarded { link: LinkId(1), request: forwarded };
        server.replica.on_event(server.now, &server.db, event, &mut server.out);
    }
    let before = server.db.last_zxid;
    server.input(Input::Touched(Vec::new()));
    server.sync();
    assert_eq!(server.db.last_zxid.0, before.0 + 1);
    assert_eq!(server.db.sessions.len(), 1);
}

/// With kazoo, which restarts its count on each connection, a write that was lost at one server could be the answer to another
/// write at the next: the simulator's seed 54429, where an observer hears of a write only once it is committed.
#[test]
fn who_reattaches_at_a_learner_waits_for_what_was_asked_before() {
    let mut server = Server::new();
    let session = server.connect(CONN);
    let over = SessionId(77);
    server.replica.serving = Serving::Learning(Box::default());
    for (session, conn) in [(session, ConnId(2)), (over, ConnId(3))] {
        let connect = Connect { session, passwd: password_of(session).to_vec(), ..a_client() };
        server.input(Input::Connect { conn, connect });
        let event = zab::Event::Revalidated { session, valid: true };
        server.replica.on_event(server.now, &server.db, event, &mut server.out);
    }
    assert!(server.out.client.is_empty(), "not before the sync is answered");
    for _ in 0..2 {
        let (serving, mut turn) = server.replica.turn(server.now, &server.db, &mut server.out);
        serving.on_synced(&mut turn);
    }
    let told: Vec<_> = server.out.client.drain(..).map(|output| (output.conn, output.message)).collect();
    let is_over = ClientMessage::Close(CloseReason::InvalidSession);
    assert!(
        matches!(told[..], [(CONN, _), (ConnId(2), ClientMessage::Established { .. }), (ConnId(3), end)] if end == is_over),
        "{told:?}"
    );
}

/// A client that restarts its count on each connection, as kazoo does, may have a request refused that it sent through another
/// server, while one of the same number waits here: the simulator's seed 5455.
#[test]
fn a_refusal_that_another_connection_earned_ends_no_connection() {
    let error = |cxid, zxid, err| {
        let header = TxnHeader { client_id: 5, cxid, zxid, time: 0, op: -1 };
        let body = TxnBody::Error(ErrorTxn { err });
        (Entry::new(Txn { header, body, digest: None }), Applied { err, ..Applied::default() })
    };
    let heard = |server: &mut Server, zxid, err| {
        let (entry, applied) = error(7, zxid, err);
        let (serving, mut turn) = server.replica.turn(server.now, &server.db, &mut server.out);
        serving.on_committed(&entry, &applied, &mut turn);
    };
    let synced = |server: &mut Server| {
        let (serving, mut turn) = server.replica.turn(server.now, &server.db, &mut server.out);
        serving.on_synced(&mut turn);
    };
    let told = |server: &mut Server| -> Vec<_> {
        server.out.client.drain(..).map(|output| output.message).collect()
    };
    let (moved, no_node) = (ErrorCode::SessionMoved.code(), ErrorCode::NoNode.code());
    let asks = || {
        let mut server = Server::new();
        server.replica.serving = Serving::Learning(Box::default());
        assert_eq!(server.create(SessionId(5), "/a", 0), []);
        server
    };

    let mut server = asks();
    heard(&mut server, 1, moved);
    assert_eq!(told(&mut server), [], "it may be another's");
    heard(&mut server, 2, no_node);
    assert_eq!(told(&mut server), [ClientMessage::Reply]);
    synced(&mut server);
    assert_eq!(told(&mut server), []);

    let mut server = asks();
    heard(&mut server, 1, moved);
    synced(&mut server);
    let end = ClientMessage::Close(CloseReason::SessionMoved);
    assert_eq!(told(&mut server), [end], "there is no other");

    // Two of one connection that the session has left.
    let mut server = asks();
    heard(&mut server, 1, moved);
    assert_eq!(server.create(SessionId(5), "/b", 0), []);
    heard(&mut server, 2, moved);
    assert_eq!(told(&mut server), []);
    for _ in 0..2 {
        synced(&mut server);
    }
    assert_eq!(told(&mut server), [end, end]);
}

/// What waits in its socket may be old: its leader may have been replaced meanwhile.
#[test]
fn a_learner_that_stood_still_reads_once_its_leader_has_answered() {
    let mut server = Server::new();
    server.replica.serving = Serving::Learning(Box::default());
    let doubts = |server: &Server| {
        let Serving::Learning(learning) = &server.replica.serving else { panic!("it learns") };
        learning.doubts_leader()
    };
    server.wait(2);
    assert!(!doubts(&server));
    server.now.mono_ms += 201;
    server.input(Input::Touched(Vec::new()));
    assert!(doubts(&server), "whatever comes first");
    assert_eq!(server.replica.lease(), 0);
    let (serving, mut turn) = server.replica.turn(server.now, &server.db, &mut server.out);
    serving.on_synced(&mut turn);
    assert!(!doubts(&server));
}

/// One of three that looks for a leader, and knows the configuration of version 0.
fn looking(me: ServerId) -> (Replica, Database, Outputs, &'static str) {
    let mut settings = Settings { server: me, zab: zab::tests::settings(me), ..settings() };
    settings.zab.reconfig_enabled = true;
    let three = "server.1=a:1:2:participant\nserver.2=b:1:2:participant\nserver.3=c:1:2:participant\n";
    let view = View::new(Arc::new(Ensemble::parse(&format!("{three}version=0")).unwrap()));
    let at = Position {
        committed: Zxid::ZERO,
        accepted: Epoch(0),
        current: Epoch(0),
        last: Zxid::ZERO,
        recent: Vec::new(),
        debt: crate::model::Debt::None,
        abstains: false,
        tree_differs: false,
    };
    let replica = Replica::in_ensemble(settings, view, at, Now { mono_ms: 1000, wall_ms: 0 });
    (replica, Database::new(OwnerRules::default()), Outputs::default(), three)
}

/// What a member says by the configuration of this version, whose epoch is that of the version.
fn says(state: PeerState, three: &str, version: i64) -> Bytes {
    let mut bytes = BytesMut::new();
    let notification = Notification {
        state,
        leader: ServerId(2),
        zxid: Zxid(version),
        round: 1,
        peer_epoch: Epoch(1000),
        version: 2,
        config: Some(format!("{three}version={version:x}").into()),
    };
    notification.encode(&mut bytes);
    bytes.freeze()
}

/// A new server may be many epochs behind. It believes a server that it called itself, if its configuration has that server.
#[test]
fn a_configuration_of_a_late_epoch_is_taken_from_who_is_proved() {
    let (mut replica, db, mut out, three) = looking(ServerId(3));
    let now = Now { mono_ms: 1000, wall_ms: 0 };
    let version = 1000_i64 << 32;
    let (conn, bytes) = (ElectionConn(1), says(PeerState::Following, three, version));
    for input in [ElectionInput::Dialed { to: ServerId(1), conn }, ElectionInput::Bytes { conn, bytes }] {
        replica.handle(now, &db, Input::Election(input), &mut out);
    }
    assert_eq!(replica.view().committed.version(), version);
}

/// Found by the simulator: whoever called a server could not prove that, as the one with the larger id calls; and what a
/// quorum told was of an epoch too far away. So that server looked for a leader for ever.
#[test]
fn a_configuration_that_a_quorum_tells_is_taken_late_however_far_its_epoch_is() {
    let (mut replica, db, mut out, three) = looking(ServerId(1));
    let version = 1000_i64 << 32;
    let mut now = Now { mono_ms: 1000, wall_ms: 0 };
    let members = [(ServerId(3), PeerState::Observing), (ServerId(2), PeerState::Leading)];
    for (from, _) in members {
        let conn = ElectionConn(from.0 as u64);
        let mut bytes = BytesMut::new();
        InitialMessage { from, addresses: vec![("x".into(), 1)] }.encode(&mut bytes);
        let bytes = bytes.freeze();
        for input in [ElectionInput::Accepted(conn), ElectionInput::Bytes { conn, bytes }] {
            replica.handle(now, &db, Input::Election(input), &mut out);
        }
    }
    let mut hear = |now, out: &mut Outputs| {
        for (from, state) in members {
            let (conn, bytes) = (ElectionConn(from.0 as u64), says(state, three, version));
            replica.handle(now, &db, Input::Election(ElectionInput::Bytes { conn, bytes }), out);
        }
        replica.view().committed.version()
    };
    assert_eq!(hear(now, &mut out), 0, "what is near comes first");
    now.mono_ms += 1001;
    assert_eq!(hear(now, &mut out), version);
}
