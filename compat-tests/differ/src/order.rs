//! Many sessions with watches on a server under load: what each of them is told has to be in order.
//!
//! - No session sees new data before the event that announces it, nor old data behind it.
//! - Replies come in the order of the requests, and the zxids on a connection never go back, nor over a reconnect.
//! - A session sees its own writes, and nobody sees half of a multi.

use crate::connection::{Connection, Heard, Reply, hello, password_of, request};
use crate::jute::{Reader, Writer};
use crate::op;
use crate::random::Random;
use crate::request::describe;
use crate::server::{Kind, Server, WORLDS};
use crate::side::LONG_TIMEOUT;
use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

const WRITERS: usize = 4;
const WATCHERS: usize = 40;
const NODES: usize = 12;
const PAIRS: usize = 3;
const DIRS: usize = 3;
/// Requests that a session has under way.
const BURST: usize = 24;
/// Bursts after which a session reconnects, on average.
const RECONNECT: usize = 60;
const TOP: &str = "/order";

/// What all threads share.
struct Shared {
    address: SocketAddr,
    deadline: Instant,
    failures: Mutex<Vec<String>>,
    writes: AtomicU64,
    reads: AtomicU64,
    events: AtomicU64,
    reconnects: AtomicU64,
}

impl Shared {
    fn goes_on(&self) -> bool {
        Instant::now() < self.deadline && self.failures.lock().expect("nobody panics with it").is_empty()
    }
}

/// Runs the load for so many seconds. True if everything was in order.
pub fn run(seconds: u64, seed: u64, kind: Kind) -> Result<bool, String> {
    let text = |error: std::io::Error| error.to_string();
    let mut server = Server::spawn(kind, &WORLDS[1]).map_err(text)?;
    server.wait_until_serving().map_err(text)?;
    let shared = Shared {
        address: server.address,
        deadline: Instant::now() + Duration::from_secs(seconds),
        failures: Mutex::new(Vec::new()),
        writes: AtomicU64::new(0),
        reads: AtomicU64::new(0),
        events: AtomicU64::new(0),
        reconnects: AtomicU64::new(0),
    };
    prepare(&shared)?;
    std::thread::scope(|scope| {
        for number in 0..WRITERS + WATCHERS {
            let shared = &shared;
            scope.spawn(move || {
                let random = Random::new(seed * 1000 + number as u64);
                let ended = match number {
                    0..WRITERS => write(shared, random, number),
                    _ => watch(shared, random, number % 2 == 0),
                };
                if let Err(failure) = ended {
                    shared
                        .failures
                        .lock()
                        .expect("nobody panics with it")
                        .push(format!("session {number}: {failure}"));
                }
            });
        }
    });
    let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    let counts = [&shared.writes, &shared.reads, &shared.events, &shared.reconnects].map(count);
    let [writes, reads, events, reconnects] = counts;
    println!(
        "order: {writes} writes, {reads} reads, {events} events, {reconnects} reconnects in {seconds} s (seed {seed})"
    );
    let mut failures = shared.failures.into_inner().expect("nobody panics with it");
    if !server.is_alive() {
        failures.push(format!("the server has ended:\n{}", server.log()));
    }
    if failures.is_empty() && counts.iter().any(|count| *count < 20) {
        failures.push("there was no load to speak of".into());
    }
    failures.iter().take(5).for_each(|failure| println!("OUT OF ORDER: {failure}"));
    println!("order: {} passed, {} failed", usize::from(failures.is_empty()), failures.len());
    Ok(failures.is_empty())
}

fn paths() -> Vec<String> {
    let numbered =
        |name: &str, count: usize| (0..count).map(|at| format!("{TOP}/{name}{at}")).collect::<Vec<_>>();
    [
        numbered("n", NODES),
        numbered("a", PAIRS),
        numbered("b", PAIRS),
        numbered("d", DIRS),
        numbered("w", WRITERS),
    ]
    .concat()
}

fn prepare(shared: &Shared) -> Result<(), String> {
    let mut session = Session::open(shared.address)?;
    session.push(op::CREATE, create(TOP));
    paths().iter().for_each(|path| session.push(op::CREATE, create(path)));
    for pair in 0..PAIRS {
        session.push(op::MULTI, set_pair(pair, 0));
    }
    session.exchange(|_, answer| answer.succeeded().map(|_| ()))
}

fn create(path: &str) -> Vec<u8> {
    Writer::new().text(path.as_bytes()).text(b"0").int(1).int(31).text(b"world").text(b"anyone").int(0).0
}

/// A session, its connection, and the requests that are under way.
struct Session {
    connection: Connection,
    id: i64,
    address: SocketAddr,
    xid: i32,
    outgoing: Vec<u8>,
    waiting: VecDeque<Asked>,
    /// The largest zxid that was seen, on any connection.
    seen: i64,
}

struct Asked {
    xid: i32,
    op: i32,
    body: Vec<u8>,
}

impl std::fmt::Display for Asked {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "request {} ({})", self.xid, describe(self.op, &self.body))
    }
}

/// A reply, or an event.
struct Answer<'a> {
    /// `None`: an event.
    asked: Option<&'a Asked>,
    reply: &'a Reply,
}

impl Answer<'_> {
    fn succeeded(&self) -> Result<&Reply, String> {
        match self.reply.err {
            0 => Ok(self.reply),
            err => {
                Err(format!("{} is answered with {err}", self.asked.map_or(String::new(), Asked::to_string)))
            }
        }
    }
}

impl Session {
    fn open(address: SocketAddr) -> Result<Session, String> {
        let mut connection = Connection::open(address).map_err(|error| error.to_string())?;
        let hello = hello(0, LONG_TIMEOUT, 0, Some(&[0; 16]), Some(0));
        let welcome = connection.connect(&hello).map_err(|end| format!("no welcome: {end:?}"))?;
        let (outgoing, waiting) = (Vec::new(), VecDeque::new());
        Ok(Session { connection, id: welcome.session, address, xid: 0, outgoing, waiting, seen: 0 })
    }

    /// Cuts the connection, whatever is under way, and takes the session up on a new one.
    fn reconnect(&mut self) -> Result<(), String> {
        self.connection = Connection::open(self.address).map_err(|error| error.to_string())?;
        self.outgoing.clear();
        self.waiting.clear();
        let hello = hello(self.seen, LONG_TIMEOUT, self.id, Some(&password_of(self.id)), Some(0));
        let welcome = self.connection.connect(&hello).map_err(|end| format!("no welcome back: {end:?}"))?;
        if welcome.session == self.id { Ok(()) } else { Err("the session is gone".into()) }
    }

    fn push(&mut self, op: i32, body: Vec<u8>) {
        self.xid += 1;
        // A ping is answered under this number whatever it had.
        let xid = if op == op::PING { -2 } else { self.xid };
        self.outgoing.extend_from_slice(&request(xid, op, &body));
        self.waiting.push_back(Asked { xid, op, body });
    }

    fn flush(&mut self) {
        self.connection.send(&self.outgoing);
        self.outgoing.clear();
    }

    /// Sends what was pushed, and hands on every event and reply, once its place in the order is looked at.
    fn exchange(
        &mut self,
        mut take: impl FnMut(&mut Self, Answer<'_>) -> Result<(), String>,
    ) -> Result<(), String> {
        self.flush();
        while !self.waiting.is_empty() {
            let (reply, asked) = match self.connection.hear() {
                Heard::Event(reply) => (reply, None),
                Heard::Reply(reply) => (reply, self.waiting.pop_front()),
                end => return Err(format!("{end:?}")),
            };
            if let Some(asked) = &asked
                && asked.xid != reply.xid
            {
                return Err(format!("{asked} is next, and the answer to {} comes", reply.xid));
            }
            // Events that setWatches finds have none.
            if reply.zxid != -1 {
                if reply.zxid < self.seen {
                    return Err(format!("zxid {} comes after {}", reply.zxid, self.seen));
                }
                self.seen = reply.zxid;
            }
            take(self, Answer { asked: asked.as_ref(), reply: &reply })?;
        }
        Ok(())
    }
}

/// Writes without pause, in bursts.
fn write(shared: &Shared, mut random: Random, number: usize) -> Result<(), String> {
    let mut session = Session::open(shared.address)?;
    let own = format!("{TOP}/w{number}");
    let mut children: Vec<String> = Vec::new();
    let mut value = 0_u64;
    while shared.goes_on() {
        let mut written = 0;
        for _ in 0..BURST {
            written += 1;
            match random.below(10) {
                0..5 => {
                    session.push(op::SET_DATA, set(&format!("{TOP}/n{}", random.below(NODES)), random.next()))
                }
                5 => {
                    let pair = random.below(PAIRS);
                    session.push(op::MULTI, set_pair(pair, random.next()));
                }
                6 => {
                    value += 1;
                    session.push(op::SET_DATA, set(&own, value));
                    session.push(op::GET_DATA, get(&own, false));
                    session.push(op::SYNC, Writer::new().text(own.as_bytes()).0);
                }
                _ if children.len() < 4 => {
                    value += 1;
                    let child = format!("{TOP}/d{}/w{number}-{value}", random.below(DIRS));
                    session.push(op::CREATE, create(&child));
                    children.push(child);
                }
                _ => {
                    let child = children.swap_remove(random.below(children.len()));
                    session.push(op::DELETE, Writer::new().text(child.as_bytes()).int(-1).0);
                }
            }
        }
        let mut own_value = None;
        let mut last_write = 0;
        session.exchange(|_, answer| {
            let Some(asked) = answer.asked else { return Ok(()) };
            let reply = answer.succeeded()?;
            if op::is_write(asked.op) {
                if reply.zxid <= last_write {
                    return Err(format!("a write has zxid {}, the one before {last_write}", reply.zxid));
                }
                last_write = reply.zxid;
            }
            if asked.op == op::SET_DATA && path_of(&asked.body) == own.as_bytes() {
                own_value = data_of(&asked.body[4 + own.len()..]);
            }
            if asked.op == op::GET_DATA && data_of(&reply.body) != own_value {
                return Err(format!("it wrote {own_value:?} and reads {:?}", data_of(&reply.body)));
            }
            Ok(())
        })?;
        shared.writes.fetch_add(written, Ordering::Relaxed);
    }
    Ok(())
}

/// What a watching session knows of a znode: the zxid of the last change that it was told of or has seen, of its data
/// or of its children.
#[derive(Debug, Default)]
struct Known {
    zxid: Option<i64>,
    /// One-shot watches: one is set, so the next change has to be told before it is seen.
    armed: bool,
}

struct Watcher {
    random: Random,
    /// With one recursive watch on everything, or else with one-shot watches, each set by a read.
    recursive: bool,
    data: HashMap<Vec<u8>, Known>,
    children: HashMap<Vec<u8>, Known>,
}

fn watch(shared: &Shared, random: Random, recursive: bool) -> Result<(), String> {
    let mut session = Session::open(shared.address)?;
    let mut watcher = Watcher { random, recursive, data: HashMap::new(), children: HashMap::new() };
    if recursive {
        session.push(op::ADD_WATCH, Writer::new().text(TOP.as_bytes()).int(1).0);
    }
    while shared.goes_on() {
        for _ in 0..BURST {
            watcher.ask(&mut session);
        }
        let (mut reads, mut events) = (0, 0);
        session.exchange(|_, answer| {
            match answer.asked {
                Some(_) => reads += 1,
                None => events += 1,
            }
            watcher.take(&answer)
        })?;
        shared.reads.fetch_add(reads, Ordering::Relaxed);
        shared.events.fetch_add(events, Ordering::Relaxed);
        if watcher.random.below(RECONNECT) == 0 {
            // With requests under way, whose answers nobody takes.
            watcher.ask(&mut session);
            session.flush();
            session.reconnect()?;
            watcher.take_up(&mut session);
            shared.reconnects.fetch_add(1, Ordering::Relaxed);
        }
    }
    Ok(())
}

impl Watcher {
    fn ask(&mut self, session: &mut Session) {
        let watch = !self.recursive && self.random.percent(50);
        match self.random.below(10) {
            0..6 => {
                let node = format!("{TOP}/n{}", self.random.below(NODES));
                session.push(op::GET_DATA, get(&node, watch));
            }
            6 => {
                let pair = self.random.below(PAIRS);
                let parts = ["a", "b"].map(|name| get(&format!("{TOP}/{name}{pair}"), false));
                session.push(op::MULTI_READ, multi(op::GET_DATA, &parts));
            }
            7 => session.push(op::PING, Vec::new()),
            _ => {
                let dir = format!("{TOP}/d{}", self.random.below(DIRS));
                session.push(op::GET_CHILDREN2, get(&dir, watch));
            }
        }
    }

    /// After a reconnect: what was missed is told before anything else is answered, but for recursive watches.
    fn take_up(&mut self, session: &mut Session) {
        let armed = |known: &HashMap<Vec<u8>, Known>| {
            let armed = known.iter().filter(|(_, known)| known.armed);
            armed.map(|(path, _)| path.clone()).collect::<Vec<_>>()
        };
        let recursive = if self.recursive { vec![TOP.as_bytes().to_vec()] } else { Vec::new() };
        let lists = [armed(&self.data), Vec::new(), armed(&self.children), Vec::new(), recursive];
        let body = lists.iter().fold(Writer::new().long(session.seen), |body, list| {
            list.iter().fold(body.int(list.len() as i32), |body, path| body.text(path))
        });
        if self.recursive {
            self.data.clear();
            self.children.clear();
        }
        session.push(op::SET_WATCHES2, body.0);
    }

    fn take(&mut self, answer: &Answer<'_>) -> Result<(), String> {
        let Some(asked) = answer.asked else { return self.take_event(answer.reply) };
        let reply = answer.succeeded()?;
        match asked.op {
            op::GET_DATA => {
                let (mzxid, _) = zxids_of(stat_of(&reply.body, 4 + length_of(&reply.body)))?;
                let armed = asked.body.last() == Some(&1);
                let known = self.data.entry(path_of(&asked.body).to_vec()).or_default();
                saw(known, mzxid, self.recursive, armed, asked)
            }
            op::GET_CHILDREN2 => {
                let (_, pzxid) = zxids_of(reply.body.get(reply.body.len().saturating_sub(68)..))?;
                let armed = asked.body.last() == Some(&1);
                let known = self.children.entry(path_of(&asked.body).to_vec()).or_default();
                saw(known, pzxid, self.recursive, armed, asked)
            }
            op::MULTI_READ => whole_pair(&reply.body),
            _ => Ok(()),
        }
    }

    fn take_event(&mut self, event: &Reply) -> Result<(), String> {
        let mut from = Reader::new(&event.body);
        let (Some(kind), Some(_), Some(Some(path))) = (from.int(), from.int(), from.bytes()) else {
            return Err(format!("no event: {event:?}"));
        };
        // A recursive watch tells of the children themselves; a child watch of their parent.
        let known = match kind {
            4 => self.children.entry(path.to_vec()).or_default(),
            1 | 2 => {
                let end = path.iter().rposition(|byte| *byte == b'/').unwrap_or_default();
                self.children.entry(path[..end].to_vec()).or_default()
            }
            _ => self.data.entry(path.to_vec()).or_default(),
        };
        if !self.recursive && !std::mem::take(&mut known.armed) {
            return Err(format!("an event that nobody waits for: {}", path.escape_ascii()));
        }
        // What setWatches finds has no zxid.
        if event.zxid != -1 {
            if known.zxid.is_some_and(|zxid| event.zxid <= zxid) {
                return Err(format!("the event of {} when {:?} was known already", event.zxid, known.zxid));
            }
            known.zxid = Some(event.zxid);
        }
        Ok(())
    }
}

/// A read shows a znode as the change `zxid` left it, and perhaps sets a one-shot watch. Where a watch is set, every
/// change was to be told before it shows.
fn saw(known: &mut Known, zxid: i64, recursive: bool, arms: bool, asked: &Asked) -> Result<(), String> {
    if let Some(last) = known.zxid {
        if zxid > last && (recursive || known.armed) {
            return Err(format!("{asked} shows the change {zxid} before its event; known was {last}"));
        }
        if zxid < last {
            return Err(format!("{asked} shows the old change {zxid}; known was {last}"));
        }
    }
    known.zxid = Some(zxid);
    known.armed |= arms;
    Ok(())
}

fn whole_pair(body: &[u8]) -> Result<(), String> {
    let mut from = Reader::new(body);
    let mut next = || {
        let _header = from.take(9)?;
        let _data = from.bytes()?;
        from.take(68)
    };
    let (one, other) = (zxids_of(next())?.0, zxids_of(next())?.0);
    if one == other { Ok(()) } else { Err(format!("half of a multi: {one} and {other}")) }
}

fn stat_of(body: &[u8], at: usize) -> Option<&[u8]> {
    body.get(at..at + 68)
}

/// mzxid and pzxid.
fn zxids_of(stat: Option<&[u8]>) -> Result<(i64, i64), String> {
    let read = || {
        let mut from = Reader::new(stat?);
        from.take(8)?;
        let mzxid = from.long()?;
        from.take(44)?;
        Some((mzxid, from.long()?))
    };
    read().ok_or_else(|| "no stat".into())
}

fn length_of(body: &[u8]) -> usize {
    data_of(body).map_or(0, |data| data.len())
}

fn data_of(body: &[u8]) -> Option<Vec<u8>> {
    Reader::new(body).bytes().flatten().map(<[u8]>::to_vec)
}

fn path_of(body: &[u8]) -> &[u8] {
    Reader::new(body).bytes().flatten().unwrap_or_default()
}

fn get(path: &str, watch: bool) -> Vec<u8> {
    Writer::new().text(path.as_bytes()).byte(u8::from(watch)).0
}

fn set(path: &str, value: u64) -> Vec<u8> {
    Writer::new().text(path.as_bytes()).text(value.to_string().as_bytes()).int(-1).0
}

fn set_pair(pair: usize, value: u64) -> Vec<u8> {
    multi(op::SET_DATA, &["a", "b"].map(|name| set(&format!("{TOP}/{name}{pair}"), value)))
}

fn multi(op: i32, parts: &[Vec<u8>]) -> Vec<u8> {
    let parts = parts.iter().fold(Writer::new(), |to, part| to.int(op).byte(0).int(-1).raw(part));
    parts.int(-1).byte(1).int(-1).0
}
