//! One server of three as a value, with a disk that does at once what it is asked for: bytes of the others go in as the
//! driver hands them in.
#![allow(dead_code)] // each target has a port of its own

pub mod bounded;

use bytes::Bytes;
use bytes::BytesMut;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use zabra::election::{ElectionConn, LinkOutput, Pace};
use zabra::ensemble::{Ensemble, View};
use zabra::link::{Link, Step};
use zabra::model::owner::OwnerRules;
use zabra::model::{ConnId, Debt, DigestAlgorithm, Epoch, LinkId, Op, Place, ServerId, SessionId, Zxid};
use zabra::replica::{
    DiskDone, DiskOp, ElectionInput, Feed, Input, LinkAction, Located, Now, Outputs,
    Position, QuorumInput, Replica, Settings, Strangers,
};
use zabra::request::{Request, Rules};
use zabra::tree::{Database, Loader};
use zabra::wire::connect::Connect;
use zabra::wire::election::{InitialMessage, Notification, PeerState};
use zabra::wire::quorum::SIGNATURE;
use zabra::zab;

pub const SERVERS: &str = "server.1=a:1:2\nserver.2=b:1:2\nserver.3=c:1:2";
pub const CLIENT: ConnId = ConnId(1);
/// What a packet may have.
const MAX_PACKET: usize = 1 << 20;

/// Bytes that decide what happens.
pub struct Script<'a>(pub &'a [u8]);

impl<'a> Script<'a> {
    pub fn byte(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    /// A byte, and so many bytes behind it.
    pub fn bytes(&mut self) -> &'a [u8] {
        let len = self.byte().unwrap_or(0);
        let (taken, rest) = self.0.split_at(usize::from(len).min(self.0.len()));
        self.0 = rest;
        taken
    }

    /// A small number most of the time: those that mean something here are.
    pub fn number(&mut self) -> i64 {
        match self.byte().unwrap_or(0) {
            255 => self.0.split_first_chunk().map_or(-1, |(number, rest)| {
                self.0 = rest;
                i64::from_be_bytes(*number)
            }),
            small => i64::from(small as i8),
        }
    }

    pub fn zxid(&mut self) -> Zxid {
        match self.byte().unwrap_or(0) {
            255 => Zxid(self.number()),
            both => Zxid::new(Epoch(i64::from(both >> 4)), u32::from(both & 15)),
        }
    }
}

/// One end of a link: what waits of it, and the snapshot that it brings.
pub struct Stream {
    link: Link,
    bytes: BytesMut,
    loader: Option<Loader>,
}

impl Stream {
    fn new(link: Link) -> Self {
        Self { link, bytes: BytesMut::new(), loader: None }
    }

    /// As `core::Receiver` takes it, which needs a disk.
    fn snapshot(&mut self, zxid: Zxid) -> Result<Option<Box<Database>>, ()> {
        let rules = OwnerRules { extended_types: true, emulate_353: false };
        let loader = self.loader.get_or_insert_with(|| Loader::new(rules));
        if !loader.is_done() {
            let taken = loader.feed(&self.bytes).map_err(|_| ())?;
            let _ = self.bytes.split_to(taken);
            if !loader.is_done() {
                return Ok(None);
            }
        }
        if self.bytes.len() < 4 + SIGNATURE.len() {
            return Ok(None);
        }
        if self.bytes.split_to(4 + SIGNATURE.len())[4..] != *SIGNATURE {
            return Err(());
        }
        let loader = self.loader.take().ok_or(())?;
        Ok(Some(Box::new(Database::from_snapshot(loader, zxid))))
    }
}

pub struct Server {
    pub replica: Replica,
    pub db: Database,
    pub now: Now,
    /// Connections of the election port that the server has not closed.
    pub conns: BTreeSet<ElectionConn>,
    pub links: BTreeMap<LinkId, Stream>,
    /// Links that are not held any more: there may be something to be read.
    released: Vec<LinkId>,
    /// What it wants to be connected to.
    pub dials: Vec<ServerId>,
    pub dials_leader: bool,
    /// Whether the disk finds what it is to cut.
    pub is_mendable: bool,
    pub feeds: bool,
    next_id: u64,
    out: Outputs,
}

impl Server {
    pub fn new(me: i64) -> Self {
        let me = ServerId(me);
        let settings = Settings {
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
                extended_types: true,
                reconfig: true,
                skip_acl: true,
                max_txn_bytes: 1 << 20,
                ..Rules::default()
            },
            leader_serves: true,
            read_only_mode: true,
            standalone_enabled: true,
            zab: zab::Settings {
                me,
                tick_ms: 100,
                init_limit: 10,
                sync_limit: 5,
                connect_limit: 10,
                reconfig_enabled: true,
                strangers: Strangers::Refused,
                force_snapshot_sync: false,
                disk_sync: true,
                history_entries: 4,
                history_bytes: 1 << 20,
                history_most: usize::MAX,
                window_bytes: 1 << 20,
                max_unlogged_bytes: 1 << 20,
                epoch_len: u32::MAX,
            },
            pace: Pace { min_interval_ms: 200, max_interval_ms: 1000, finalize_ms: 200, empty_wait_ms: 1000 },
            election_addresses: vec![("localhost".into(), 1)],
            handshake_ms: 500,
        };
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
        let view = View::new(Arc::new(Ensemble::parse(SERVERS).expect("it parses")));
        let now = Now { mono_ms: 1000, wall_ms: 1_700_000_000_000 };
        let mut server = Self {
            replica: Replica::in_ensemble(settings, view, at, now),
            db: Database::new(OwnerRules { extended_types: true, emulate_353: false }),
            now,
            conns: BTreeSet::new(),
            links: BTreeMap::new(),
            released: Vec::new(),
            dials: Vec::new(),
            dials_leader: false,
            is_mendable: true,
            feeds: true,
            next_id: 0,
            out: Outputs::default(),
        };
        server.input(Input::Tick);
        server
    }

    fn new_id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }

    pub fn pass(&mut self, ms: u64) {
        self.now.mono_ms += ms;
        self.now.wall_ms += ms as i64;
        self.input(Input::Tick);
    }

    /// Hands in one input, and carries out what comes of it until nothing does.
    pub fn input(&mut self, input: Input) {
        let mut inputs = vec![input];
        while let Some(input) = inputs.pop() {
            self.replica.handle(self.now, &self.db, input, &mut self.out);
            while self.replica.has_steps() {
                self.replica.apply(self.now, &mut self.db, &mut self.out);
            }
            self.carry(&mut inputs);
        }
        while let Some(link) = self.released.pop() {
            self.drive(link);
        }
    }

    fn carry(&mut self, inputs: &mut Vec<Input>) {
        let mut done = Vec::new();
        for op in std::mem::take(&mut self.out.zab.disk) {
            done.push(self.perform(op));
        }
        // The last one first: they are taken from the end.
        inputs.extend(done.into_iter().rev());
        for (link, action) in std::mem::take(&mut self.out.zab.links) {
            match action {
                LinkAction::Close(_) => {
                    inputs.extend(self.links.remove(&link).and_then(|stream| stream.link.end()));
                }
                LinkAction::Feed(feed) => inputs.push(Input::Quorum(self.feed(link, feed))),
                LinkAction::Hold(on) => {
                    if let Some(stream) = self.links.get_mut(&link) {
                        stream.link.hold(on);
                        self.released.extend((!on).then_some(link));
                    }
                }
                LinkAction::Send { .. } => {}
            }
        }
        for output in std::mem::take(&mut self.out.election) {
            match output {
                LinkOutput::Dial { to, .. } => self.dials.push(to),
                LinkOutput::Close { conn, .. } => {
                    self.conns.remove(&conn);
                }
                LinkOutput::Write { .. } => {}
            }
        }
        self.dials_leader |= self.out.dial.take().is_some();
        self.out.client.clear();
        self.out.bytes.clear();
        self.out.zab.packets.clear();
        self.out.told.clear();
        self.out.replaced.clear();
    }

    fn perform(&mut self, op: DiskOp) -> Input {
        let empty = || Some(Box::new(Database::new(OwnerRules { extended_types: true, emulate_353: false })));
        let mut database = None;
        let done = match op {
            DiskOp::Append(entry) => DiskDone::Logged(entry.zxid),
            DiskOp::SaveAccepted(epoch) => DiskDone::AcceptedSaved(epoch),
            DiskOp::SaveCurrent(epoch) => DiskDone::CurrentSaved(epoch),
            DiskOp::SaveDebt(_) => DiskDone::DebtSaved,
            DiskOp::Truncate { to, reload } if self.is_mendable => {
                database = if reload { empty() } else { None };
                DiskDone::Truncated(to)
            }
            DiskOp::Truncate { .. } => DiskDone::Unmendable,
            DiskOp::Stage { zxid, .. } => DiskDone::Staged(zxid),
            DiskOp::Install { .. } => DiskDone::Installed,
            DiskOp::Unstage { to } => {
                database = empty();
                DiskDone::Unstaged(to)
            }
            DiskOp::Wipe { .. } => {
                database = empty();
                DiskDone::Wiped
            }
            DiskOp::SaveConfig(_) => DiskDone::ConfigSaved,
        };
        Input::Disk(done, database)
    }

    fn feed(&self, link: LinkId, feed: Feed) -> QuorumInput {
        match feed {
            _ if !self.feeds => QuorumInput::FeedFailed { link },
            Feed::Locate(_) => {
                let found = Located { place: Place::Within, mark: None, is_far: false };
                QuorumInput::Located { link, found }
            }
            Feed::Log { upto, .. } => QuorumInput::Fed { link, upto },
            Feed::Snapshot { .. } => QuorumInput::Fed { link, upto: self.db.last_zxid },
        }
    }

    // The election port.

    pub fn accept(&mut self) -> ElectionConn {
        let conn = ElectionConn(self.new_id());
        self.conns.insert(conn);
        self.input(Input::Election(ElectionInput::Accepted(conn)));
        conn
    }

    pub fn dialed(&mut self, to: ServerId) -> ElectionConn {
        let conn = ElectionConn(self.new_id());
        self.conns.insert(conn);
        self.input(Input::Election(ElectionInput::Dialed { to, conn }));
        conn
    }

    /// Bytes of a connection. The driver reads on for as long as it is open.
    pub fn hear(&mut self, conn: ElectionConn, bytes: &[u8]) {
        if self.conns.contains(&conn) {
            let bytes = Bytes::copy_from_slice(bytes);
            self.input(Input::Election(ElectionInput::Bytes { conn, bytes }));
        }
    }

    pub fn hang_up(&mut self, conn: ElectionConn) {
        if self.conns.remove(&conn) {
            self.input(Input::Election(ElectionInput::Closed(conn)));
        }
    }

    /// Server `from` votes for `leader`, or says that it follows.
    pub fn is_told(&mut self, conn: ElectionConn, state: PeerState, leader: i64) {
        let notification = Notification {
            state,
            leader: ServerId(leader),
            zxid: Zxid::ZERO,
            round: 1,
            peer_epoch: Epoch(0),
            version: 2,
            config: Some(Bytes::from_static(SERVERS.as_bytes())),
        };
        let mut bytes = BytesMut::new();
        notification.encode(&mut bytes);
        self.hear(conn, &bytes);
    }

    pub fn introduce(&mut self, from: i64) -> ElectionConn {
        let conn = self.accept();
        let mut bytes = BytesMut::new();
        InitialMessage { from: ServerId(from), addresses: vec![("a".into(), 2)] }.encode(&mut bytes);
        self.hear(conn, &bytes);
        conn
    }

    // The quorum port.

    pub fn link(&mut self, dialed: bool) -> LinkId {
        let id = LinkId(self.new_id());
        self.dials_leader = false;
        if dialed {
            let (link, dialed) = Link::dialed(id, MAX_PACKET);
            self.links.insert(id, Stream::new(link));
            self.input(dialed);
        } else {
            self.links.insert(id, Stream::new(Link::accepted(id, MAX_PACKET)));
        }
        id
    }

    pub fn unlink(&mut self, id: LinkId) {
        if let Some(end) = self.links.remove(&id).and_then(|stream| stream.link.end()) {
            self.input(end);
        }
    }

    /// Bytes of the other side of a link, as the driver takes them.
    pub fn hear_link(&mut self, id: LinkId, bytes: &[u8]) {
        if let Some(stream) = self.links.get_mut(&id) {
            stream.bytes.extend_from_slice(bytes);
            self.drive(id);
        }
    }

    fn drive(&mut self, id: LinkId) {
        while let Some(stream) = self.links.get_mut(&id) {
            let mut inputs = Vec::new();
            let goes_on = match stream.link.take(&mut stream.bytes, &|| Input::Touched(vec![]), &mut inputs) {
                Step::NeedMore | Step::Held => Ok(false),
                Step::Claims(_) => {
                    stream.link.admit(&mut inputs);
                    Ok(true)
                }
                Step::Snapshot(zxid) => stream.snapshot(zxid).map(|db| {
                    let is_whole = db.is_some();
                    db.into_iter().for_each(|db| stream.link.on_snapshot(db, &mut inputs));
                    is_whole
                }),
                Step::Broken(_) => Err(()),
            };
            inputs.into_iter().for_each(|input| self.input(input));
            match goes_on {
                Ok(true) => {}
                Ok(false) => return,
                Err(()) => return self.unlink(id),
            }
        }
    }

    // A client, so that there is something under way.

    pub fn connect(&mut self) {
        let connect = Connect {
            last_zxid_seen: 0,
            timeout: 500,
            session: SessionId::NONE,
            passwd: Vec::new(),
            read_only: None,
        };
        self.input(Input::Connect { conn: CLIENT, connect });
    }

    pub fn request(&mut self, op: Op, body: &[u8]) {
        let Some((session, _)) = self.replica.attached().next() else { return };
        let body = Bytes::copy_from_slice(body);
        let request = Request { session, cxid: 1, op, body, auth: Arc::new([]) };
        self.input(Input::Request { conn: CLIENT, request });
    }
}
