//! A client of the model: it keeps one session, moves from server to server, and writes down what it asked and what it
//! was told. Its encoder and decoder are its own.

use super::history::{Answer, Asked, Came, History, Request};
use super::random::Random;
use super::rewatch::{Armed, SetAgain};
use bytes::{Buf, BufMut, Bytes, BytesMut};
use std::collections::VecDeque;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Apart,
    Connecting,
    Open,
}

#[derive(Debug)]
pub struct Client {
    pub index: usize,
    pub conn: Option<u64>,
    state: State,
    /// 0: a new session is asked for.
    pub session: i64,
    passwd: Vec<u8>,
    seen: i64,
    /// The same of answers alone, without events.
    answered: i64,
    /// The same of answers to requests alone. Only these tell that all events before them have come.
    replied: i64,
    timeout_ms: i32,
    counts_anew: bool,
    cxid: i32,
    /// Requests without an answer, oldest first.
    waiting: VecDeque<(i32, usize)>,
    last_sent: u64,
    last_heard: u64,
    input: BytesMut,
    /// Writes that were acknowledged since this was reset.
    pub acked: usize,
    /// Writes that the log has, also those that were refused.
    pub logged: usize,
    /// The sessions that it closed.
    closed: Vec<i64>,
    /// Asks for nothing more.
    pub is_quiet: bool,
    /// Takes a server without a leader.
    pub takes_read_only: bool,
    /// Has one.
    pub is_read_only: bool,
    /// The watches that it has set, and sets again on the next connection; none: it forgets them.
    armed: Option<Armed>,
    /// Watches that it sets beside them, on what nobody makes.
    idle_watches: usize,
    values: u64,
    /// Bytes by which values are longer than they need be.
    padding: usize,
}

const PATHS: [&str; 6] = ["/a", "/b", "/c", "/a/x", "/a/y", "/b/x"];
const PERMISSIONS: i32 = 31;
const IDLE_AT_ONCE: usize = 10_000;
/// In place of a number in the history.
const NONSENSE: usize = usize::MAX;
const UNIMPLEMENTED: i32 = -6;

// Codes of operations.
const CREATE: i32 = 1;
const DELETE: i32 = 2;
const EXISTS: i32 = 3;
const GET_DATA: i32 = 4;
const SET_DATA: i32 = 5;
const SET_ACL: i32 = 7;
const SYNC: i32 = 9;
const PING: i32 = 11;
const GET_CHILDREN2: i32 = 12;
const MULTI: i32 = 14;
const RECONFIG: i32 = 16;
const DELETE_CONTAINER: i32 = 20;
const CREATE_CONTAINER: i32 = 19;
const CREATE_TTL: i32 = 21;
const MULTI_READ: i32 = 22;
const AUTH: i32 = 100;
const SET_WATCHES2: i32 = 105;
const ADD_WATCH: i32 = 106;
const CLOSE: i32 = -11;

impl Client {
    pub fn new(index: usize, timeout_ms: i32, counts_anew: bool, padding: usize) -> Self {
        Self {
            index,
            conn: None,
            state: State::Apart,
            session: 0,
            passwd: vec![0; 16],
            seen: 0,
            answered: 0,
            replied: 0,
            timeout_ms,
            counts_anew,
            cxid: 1,
            waiting: VecDeque::new(),
            last_sent: 0,
            last_heard: 0,
            input: BytesMut::new(),
            acked: 0,
            logged: 0,
            closed: Vec::new(),
            is_quiet: false,
            takes_read_only: false,
            is_read_only: false,
            armed: None,
            idle_watches: 0,
            values: 0,
            padding,
        }
    }

    /// From here on it sets its watches again on each connection, and `idle` others.
    pub fn keep_watches(&mut self, idle: usize) {
        (self.armed, self.idle_watches) = (Some(Armed::default()), idle);
    }

    pub fn is_open(&self) -> bool {
        self.state == State::Open
    }

    /// The last zxid that it was told.
    pub fn seen(&self) -> i64 {
        self.seen
    }

    /// It has an answer to everything.
    pub fn is_idle(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Whether it asked for its end itself.
    pub fn has_closed(&self, session: i64) -> bool {
        self.closed.contains(&session)
    }

    /// It has asked for something in its life.
    pub fn has_asked(&self) -> bool {
        self.cxid > 1
    }

    pub fn outstanding(&self) -> usize {
        self.waiting.len()
    }

    /// The connection is there: the session is asked for.
    pub fn connected(&mut self, now: u64, conn: u64, history: &mut History) -> Bytes {
        self.conn = Some(conn);
        self.state = State::Connecting;
        self.last_heard = now;
        self.last_sent = now;
        self.input.clear();
        if self.counts_anew {
            self.cxid = 1;
        }
        history.came.insert(conn, Vec::new());
        let mut body = BytesMut::new();
        body.put_i32(0);
        body.put_i64(self.seen);
        body.put_i32(self.timeout_ms);
        body.put_i64(self.session);
        put(&mut body, &self.passwd);
        body.put_u8(u8::from(self.takes_read_only));
        frame(&body)
    }

    pub fn disconnected(&mut self) {
        self.conn = None;
        self.state = State::Apart;
        self.waiting.clear();
    }

    /// Too long without a word: another server may do better.
    pub fn gives_up(&self, now: u64) -> bool {
        self.conn.is_some() && now - self.last_heard > self.timeout_ms as u64 * 1000 * 2 / 3
    }

    pub fn ping(&mut self, now: u64) -> Option<Bytes> {
        let due = now - self.last_sent > self.timeout_ms as u64 * 1000 / 3;
        if self.state != State::Open || !due {
            return None;
        }
        self.last_sent = now;
        Some(request(-2, PING, &[]))
    }

    /// What it asks next.
    pub fn choose(&mut self, reconfig: Option<Asked>, random: &mut Random) -> Asked {
        if let Some(reconfig) = reconfig {
            return reconfig;
        }
        let path = random.pick(&PATHS).to_string();
        self.values += 1;
        let mut data = format!("{}.{}", self.index, self.values).into_bytes();
        data.resize(data.len() + self.padding, b'.');
        let version = if random.permille(300) { random.below(4) as i32 } else { -1 };
        match random.below(100) {
            0..18 => Asked::Create { path, data, sequential: false, ephemeral: false },
            18..26 => {
                let path = format!("{}/s", random.pick(&["/a", "/b", "/c"]));
                Asked::Create { path, data, sequential: true, ephemeral: random.permille(500) }
            }
            26..34 => Asked::Create {
                path: format!("{}/e{}", random.pick(&["", "/a", "/b"]), random.below(3)),
                data,
                sequential: false,
                ephemeral: true,
            },
            34..44 => Asked::Delete { path, version },
            44..64 => Asked::Set { path, data, version },
            64..70 => Asked::Multi { path: format!("/m{}", random.below(4)), other: path },
            70..78 => Asked::Get { path, watch: random.permille(400) },
            78..84 => Asked::Exists { path, watch: random.permille(400) },
            84..90 => Asked::Children { path, watch: random.permille(400) },
            90..96 => Asked::Sync,
            96..98 => Asked::Close,
            _ => Asked::Get { path, watch: false },
        }
    }

    pub fn ask(&mut self, now: u64, asked: Asked, history: &mut History) -> Option<Bytes> {
        if self.state != State::Open || self.conn.is_none() {
            return None;
        }
        let cxid = self.cxid;
        self.cxid += 1;
        self.last_sent = now;
        let (op, body) = encode(&asked);
        // It may go without waiting for the answer.
        if asked == Asked::Close {
            self.closed.push(self.session);
        }
        self.waiting.push_back((cxid, history.requests.len()));
        history.requests.push(Request { session: self.session, cxid, asked, begun: now, ended: None });
        Some(request(cxid, op, &body))
    }

    /// On a connection on which its session goes on, the first that it says is which watches it has.
    pub fn watches_again(&mut self, now: u64, history: &mut History) -> Vec<Bytes> {
        let (State::Open, Some(armed), Some(conn)) = (self.state, &mut self.armed, self.conn) else {
            return Vec::new();
        };
        let Some(asked) = armed.ask(self.replied) else { return Vec::new() };
        self.last_sent = now;
        let mut all = vec![encode_watches(&asked)];
        let came = history.came.entry(conn).or_default();
        came.push(Came::AsksWatches(asked));
        for first in (0..self.idle_watches).step_by(IDLE_AT_ONCE) {
            let numbers = first..self.idle_watches.min(first + IDLE_AT_ONCE);
            let exist = numbers.map(|number| format!("/idle{}/{number}", self.index)).collect();
            all.push(encode_watches(&SetAgain { since: self.replied, exist, ..SetAgain::default() }));
            // Of these nothing is heard.
            came.push(Came::AsksWatches(SetAgain::default()));
        }
        all.iter().map(|body| request(-8, SET_WATCHES2, body)).collect()
    }

    /// Something that no client may ask for: it is refused, after everything before it was answered.
    pub fn talk_nonsense(&mut self, now: u64) -> Bytes {
        let cxid = self.cxid;
        self.cxid += 1;
        self.last_sent = now;
        self.waiting.push_back((cxid, NONSENSE));
        request(cxid, DELETE_CONTAINER, &[])
    }

    /// Says who it is, and once more with each call: what a connection has of that is not much.
    pub fn authenticate(&mut self, now: u64) -> Bytes {
        self.last_sent = now;
        let mut body = BytesMut::new();
        body.put_i32(0);
        put(&mut body, b"digest");
        put(&mut body, format!("user{}:secret", self.index).as_bytes());
        request(-4, AUTH, &body)
    }

    /// Bytes of the server. An error is a violation: nothing of the kind was asked for.
    pub fn receive(&mut self, now: u64, bytes: &[u8], history: &mut History) -> Result<(), String> {
        self.last_heard = now;
        self.input.extend_from_slice(bytes);
        while let Some(len) = self.input.first_chunk().map(|len| i32::from_be_bytes(*len) as usize) {
            if self.input.len() < 4 + len {
                break;
            }
            self.input.advance(4);
            let frame = self.input.split_to(len).freeze();
            if self.state == State::Connecting {
                self.on_connected(frame, history)?;
            } else {
                self.on_reply(now, frame, history)?;
            }
        }
        Ok(())
    }

    fn on_connected(&mut self, mut frame: Bytes, history: &mut History) -> Result<(), String> {
        if frame.len() < 20 {
            return Err("a connect response that is too short".into());
        }
        frame.advance(4);
        let (timeout, session) = (frame.get_i32(), frame.get_i64());
        let len = frame.get_i32().max(0) as usize;
        if timeout <= 0 {
            self.session = 0;
            (self.seen, self.answered, self.replied) = (0, 0, 0);
            self.passwd = vec![0; 16];
            return Ok(());
        }
        if self.session != 0 && self.session != session {
            return Err(format!("asked for session {:#x}, got {session:#x}", self.session));
        }
        if self.session == 0 {
            (self.seen, self.answered, self.replied) = (0, 0, 0);
            self.armed.iter_mut().for_each(Armed::clear);
        }
        self.armed.iter_mut().for_each(Armed::connected);
        self.passwd = frame.get(..len).ok_or("a connect response without a password")?.to_vec();
        self.is_read_only = frame.get(len..) == Some(&[1]);
        self.session = session;
        self.state = State::Open;
        let conn = self.conn.ok_or("a response without a connection")?;
        history.conns.entry(session).or_default().push(conn);
        Ok(())
    }

    fn on_reply(&mut self, now: u64, mut frame: Bytes, history: &mut History) -> Result<(), String> {
        let conn = self.conn.ok_or("a reply without a connection")?;
        if frame.len() < 16 {
            return Err("a reply without a header".into());
        }
        let (xid, zxid, err) = (frame.get_i32(), frame.get_i64(), frame.get_i32());
        if zxid > 0 {
            self.seen = self.seen.max(zxid);
        }
        if xid == -2 && zxid < self.answered {
            return Err(format!("a ping's answer tells {zxid:#x}, and one before it {:#x}", self.answered));
        }
        if xid != -1 {
            self.answered = self.answered.max(zxid);
        }
        if xid > 0 || xid == -8 {
            self.replied = self.replied.max(zxid);
        }
        match xid {
            -2 => return Ok(()),
            -4 if err == 0 => return Ok(()),
            -4 => return Err(format!("it cannot say who it is: {err}")),
            -8 if err == 0 => {
                history.came.entry(conn).or_default().push(Came::HasWatches { zxid });
                return Ok(());
            }
            -8 => return Err(format!("it cannot set its watches: {err}")),
            -1 => {
                let (kind, _) = (frame.get_i32(), frame.get_i32());
                let path = text(&mut frame)?;
                self.armed.iter_mut().for_each(|armed| armed.heard(kind, &path));
                history.came.entry(conn).or_default().push(Came::Event { kind, path, zxid });
                return Ok(());
            }
            _ => {}
        }
        let Some((expected, at)) = self.waiting.pop_front() else {
            return Err(format!("a reply to {xid}, and nothing was asked"));
        };
        if expected != xid {
            return Err(format!("a reply to {xid}, where {expected} is next"));
        }
        if at == NONSENSE {
            // Nothing more is read of it.
            self.state = State::Apart;
            return if err == UNIMPLEMENTED { Ok(()) } else { Err(format!("nonsense was answered {err}")) };
        }
        let request = &mut history.requests[at];
        let mut answer = Answer { zxid, err, ..Answer::default() };
        decode(&request.asked, frame, &mut answer)?;
        if request.asked.is_write() {
            self.acked += usize::from(err == 0);
            self.logged += usize::from(zxid > 0);
        }
        self.armed.iter_mut().for_each(|armed| armed.answered(&request.asked, answer.err));
        let over = request.asked == Asked::Close;
        request.ended = Some((now, answer));
        history.came.entry(conn).or_default().push(Came::Reply(at));
        if over {
            self.session = 0;
            (self.seen, self.answered, self.replied) = (0, 0, 0);
            self.passwd = vec![0; 16];
        }
        Ok(())
    }
}

// The client's own encoding.

fn put(out: &mut BytesMut, bytes: &[u8]) {
    out.put_i32(bytes.len() as i32);
    out.put_slice(bytes);
}

fn frame(body: &[u8]) -> Bytes {
    let mut out = BytesMut::new();
    put(&mut out, body);
    out.freeze()
}

fn request(xid: i32, op: i32, body: &[u8]) -> Bytes {
    let mut out = BytesMut::new();
    out.put_i32(xid);
    out.put_i32(op);
    out.put_slice(body);
    frame(&out)
}

fn create(out: &mut BytesMut, path: &str, data: &[u8], flags: i32) {
    put(out, path.as_bytes());
    put(out, data);
    out.put_i32(1);
    out.put_i32(PERMISSIONS);
    put(out, b"world");
    put(out, b"anyone");
    out.put_i32(flags);
}

fn set(out: &mut BytesMut, path: &str, data: &[u8], version: i32) {
    put(out, path.as_bytes());
    put(out, data);
    out.put_i32(version);
}

fn encode_watches(watches: &SetAgain) -> Bytes {
    let mut out = BytesMut::new();
    out.put_i64(watches.since);
    for list in watches.lists() {
        out.put_i32(list.len() as i32);
        list.iter().for_each(|path| put(&mut out, path.as_bytes()));
    }
    out.freeze()
}

fn encode(asked: &Asked) -> (i32, Bytes) {
    let mut out = BytesMut::new();
    let watched = |out: &mut BytesMut, path: &str, watch: bool| {
        put(out, path.as_bytes());
        out.put_u8(u8::from(watch));
    };
    let header = |out: &mut BytesMut, op: i32, done: bool| {
        out.put_i32(op);
        out.put_u8(u8::from(done));
        out.put_i32(-1);
    };
    let op = match asked {
        Asked::Create { path, data, sequential, ephemeral } => {
            create(&mut out, path, data, i32::from(*ephemeral) + 2 * i32::from(*sequential));
            CREATE
        }
        Asked::Container { path } => {
            create(&mut out, path, b"", 4);
            CREATE_CONTAINER
        }
        Asked::Ttl { path, ms } => {
            create(&mut out, path, b"", 5);
            out.put_i64(*ms);
            CREATE_TTL
        }
        Asked::AddWatch { path, recursive } => {
            put(&mut out, path.as_bytes());
            out.put_i32(i32::from(*recursive));
            ADD_WATCH
        }
        Asked::Delete { path, version } => {
            put(&mut out, path.as_bytes());
            out.put_i32(*version);
            DELETE
        }
        Asked::Set { path, data, version } => {
            set(&mut out, path, data, *version);
            SET_DATA
        }
        Asked::Quota { path, count, bytes } => {
            let of = format!("/zookeeper/quota{path}");
            let limits = format!("count=1,bytes=1=;byteHardLimit={bytes};countHardLimit={count}");
            let znodes = [
                (of.clone(), ""),
                (format!("{of}/zookeeper_limits"), &limits[..]),
                (format!("{of}/zookeeper_stats"), ""),
            ];
            for (path, data) in znodes {
                header(&mut out, CREATE, false);
                create(&mut out, &path, data.as_bytes(), 0);
            }
            header(&mut out, -1, true);
            MULTI
        }
        Asked::Multi { path, other } => {
            header(&mut out, 1, false);
            create(&mut out, path, b"multi", 0);
            header(&mut out, 5, false);
            set(&mut out, other, b"multi", -1);
            header(&mut out, -1, true);
            MULTI
        }
        Asked::Wide { path, parts } => {
            for _ in 0..*parts {
                header(&mut out, SET_DATA, false);
                set(&mut out, path, b"wide", -1);
            }
            header(&mut out, -1, true);
            MULTI
        }
        Asked::ReadMany { path, parts } => {
            for _ in 0..*parts {
                header(&mut out, GET_DATA, false);
                watched(&mut out, path, false);
            }
            header(&mut out, -1, true);
            MULTI_READ
        }
        Asked::SetAcl { path, entries } => {
            put(&mut out, path.as_bytes());
            out.put_i32(*entries as i32);
            for entry in 0..*entries {
                out.put_i32(PERMISSIONS);
                put(&mut out, b"digest");
                put(&mut out, format!("user{entry}:of{entries}").as_bytes());
            }
            out.put_i32(-1);
            SET_ACL
        }
        Asked::Get { path, watch } => {
            watched(&mut out, path, *watch);
            GET_DATA
        }
        Asked::Exists { path, watch } => {
            watched(&mut out, path, *watch);
            EXISTS
        }
        Asked::Children { path, watch } => {
            watched(&mut out, path, *watch);
            GET_CHILDREN2
        }
        Asked::Sync => {
            put(&mut out, b"/");
            SYNC
        }
        Asked::Close => CLOSE,
        Asked::Reconfig { joining, leaving } => {
            put(&mut out, joining.as_bytes());
            put(&mut out, leaving.as_bytes());
            out.put_i32(-1);
            out.put_i64(-1);
            RECONFIG
        }
    };
    (op, out.freeze())
}

fn text(frame: &mut Bytes) -> Result<String, String> {
    let short = || "a reply that ends too early".to_string();
    let len = frame.try_get_i32().map_err(|_| short())?.max(0) as usize;
    if frame.len() < len {
        return Err(short());
    }
    String::from_utf8(frame.split_to(len).to_vec()).map_err(|error| error.to_string())
}

/// Of a stat: version and mzxid.
fn stat(frame: &mut Bytes) -> Result<(i32, i64), String> {
    if frame.len() < 68 {
        return Err("a stat that ends too early".into());
    }
    let stat = frame.split_to(68);
    Ok((stat.slice(32..36).get_i32(), stat.slice(8..16).get_i64()))
}

fn decode(asked: &Asked, mut frame: Bytes, answer: &mut Answer) -> Result<(), String> {
    if answer.err != 0 {
        return Ok(());
    }
    match asked {
        Asked::Create { .. } | Asked::Container { .. } | Asked::Ttl { .. } => {
            answer.path = Some(text(&mut frame)?);
        }
        Asked::Set { .. } => answer.version = Some(stat(&mut frame)?.0),
        Asked::SetAcl { .. } => drop(stat(&mut frame)?),
        Asked::Exists { .. } => answer.version = Some(stat(&mut frame)?.0),
        Asked::Get { .. } => {
            let data = text(&mut frame)?.into_bytes();
            let (version, mzxid) = stat(&mut frame)?;
            answer.node = Some((data, version, mzxid));
        }
        Asked::Children { .. } => {
            let count = frame.try_get_i32().map_err(|error| error.to_string())?.max(0);
            let names: Result<Vec<String>, String> = (0..count).map(|_| text(&mut frame)).collect();
            answer.children = Some(names?);
            stat(&mut frame)?;
        }
        Asked::Multi { .. } | Asked::Wide { .. } | Asked::Quota { .. } | Asked::ReadMany { .. } => loop {
            if frame.len() < 9 {
                return Err("a multi that ends too early".into());
            }
            let (op, done, err) = (frame.get_i32(), frame.get_u8() != 0, frame.get_i32());
            if done {
                break;
            }
            match op {
                -1 => {
                    frame.advance(4);
                    answer.parts.push(err);
                }
                1 => {
                    text(&mut frame)?;
                    answer.parts.push(0);
                }
                4 => {
                    let data = text(&mut frame)?.into_bytes();
                    let (version, mzxid) = stat(&mut frame)?;
                    let node = (data, version, mzxid);
                    if answer.node.get_or_insert_with(|| node.clone()) != &node {
                        return Err("parts of one read that differ".into());
                    }
                    answer.parts.push(0);
                }
                5 => {
                    stat(&mut frame)?;
                    answer.parts.push(0);
                }
                other => return Err(format!("a part of type {other} in a multi's answer")),
            }
        },
        Asked::Delete { .. }
        | Asked::AddWatch { .. }
        | Asked::Sync
        | Asked::Close
        | Asked::Reconfig { .. } => {}
    }
    Ok(())
}
