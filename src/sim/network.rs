//! Connections as TCP has them: bytes in order and without loss, in pieces of any size, and cut or reset at any time. A blocked way holds bytes back, as a
//! partition does; it does not drop them.

use super::random::Random;
use bytes::Bytes;
use std::collections::{BTreeMap, VecDeque};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Port {
    Election,
    Quorum,
    Client,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Host {
    Server(usize),
    Client(usize),
    /// One of many clients that do next to nothing.
    Crowd(usize),
    /// None of the ensemble, and none of its clients.
    Stranger(usize),
}

#[derive(Debug, Clone)]
pub enum Chunk {
    Bytes(Bytes),
    End,
    /// The end of a side that had something unread.
    Reset,
}

impl Chunk {
    pub fn is_last(&self) -> bool {
        matches!(self, Self::End | Self::Reset)
    }

    fn len(&self) -> usize {
        if let Self::Bytes(bytes) = self { bytes.len() } else { 0 }
    }
}

#[derive(Debug, Default)]
struct Way {
    chunks: VecDeque<(u64, Chunk)>,
    last_due: u64,
    /// Bytes in all chunks.
    queued: usize,
}

impl Way {
    fn push(&mut self, due: u64, chunk: Chunk) {
        self.queued += chunk.len();
        self.chunks.push_back((due, chunk));
    }

    fn pop_due(&mut self, now: u64) -> Option<Chunk> {
        let (_, chunk) = self.chunks.pop_front_if(|(due, _)| *due <= now)?;
        self.queued -= chunk.len();
        Some(chunk)
    }

    /// Lets bytes arrive with those that were sent last. False: they have arrived.
    fn join(&mut self, bytes: &Bytes) -> bool {
        let Some((_, Chunk::Bytes(last))) = self.chunks.back_mut() else { return false };
        *last = [&last[..], bytes].concat().into();
        self.queued += bytes.len();
        true
    }

    fn truncate(&mut self, kept: usize) {
        self.chunks.truncate(kept);
        self.queued = self.chunks.iter().map(|(_, chunk)| chunk.len()).sum();
    }
}

#[derive(Debug)]
struct Conn {
    port: Port,
    /// Who dialed comes first.
    hosts: [Host; 2],
    open: [bool; 2],
    ways: [Way; 2],
    /// What is written now goes nowhere.
    broken: bool,
}

/// Something arrives at the other side.
#[derive(Debug)]
pub struct Arrival {
    pub from: Host,
    pub to: Host,
    /// Who sent it had dialed.
    pub from_dialer: bool,
    pub port: Port,
    pub chunk: Chunk,
}

/// What is to be looked at later: the conn and the side that sent.
pub type Due = (u64, u64, usize);

#[derive(Debug, Default)]
pub struct Network {
    conns: BTreeMap<u64, Conn>,
    next: u64,
    /// From server to server: bytes wait.
    blocked: Vec<Vec<bool>>,
    pub latency: (u64, u64),
    pub spike: u64,
    /// So many in a thousand of what a server is sent by another arrives in two pieces, or with what was sent before it.
    pub cuts: u64,
    /// Nanoseconds that a byte takes on a way, after those before it.
    pub byte_ns: u64,
}

impl Network {
    pub fn new(servers: usize, latency: (u64, u64), spike: u64, cuts: u64) -> Self {
        let blocked = vec![vec![false; servers]; servers];
        Self { conns: BTreeMap::new(), next: 1, blocked, latency, spike, cuts, byte_ns: 0 }
    }

    pub fn delay(&self, random: &mut Random) -> u64 {
        let spike = if self.spike > 0 && random.permille(5) { random.below(self.spike) } else { 0 };
        random.between(self.latency.0, self.latency.1) + spike
    }

    pub fn block(&mut self, from: usize, to: usize) {
        self.blocked[from][to] = true;
    }

    /// Opens all ways. The caller delivers what waited.
    pub fn heal(&mut self, now: u64) -> Vec<Due> {
        self.blocked.iter_mut().flatten().for_each(|blocked| *blocked = false);
        let mut due = Vec::new();
        for (key, conn) in &self.conns {
            for side in 0..2 {
                due.extend(conn.ways[side].chunks.iter().map(|(at, _)| ((*at).max(now), *key, side)));
            }
        }
        due
    }

    pub fn is_blocked(&self, from: Host, to: Host) -> bool {
        match (from, to) {
            (Host::Server(from), Host::Server(to)) => self.blocked[from][to],
            _ => false,
        }
    }

    pub fn open(&mut self, port: Port, from: Host, to: Host) -> u64 {
        let key = self.next;
        self.next += 1;
        let ways = [Way::default(), Way::default()];
        self.conns.insert(key, Conn { port, hosts: [from, to], open: [true; 2], ways, broken: false });
        key
    }

    fn side(&self, key: u64, host: Host) -> Option<usize> {
        self.conns.get(&key)?.hosts.iter().position(|other| *other == host)
    }

    /// Bytes under way to the other side.
    pub fn queued(&self, key: u64, from: Host) -> usize {
        let Some(side) = self.side(key, from) else { return 0 };
        self.conns[&key].ways[side].queued
    }

    pub fn send(&mut self, now: u64, key: u64, from: Host, chunk: Chunk, random: &mut Random) -> Vec<Due> {
        let Some(side) = self.side(key, from) else { return Vec::new() };
        let (delay, pause, cuts, byte_ns) = (self.delay(random), self.latency.1, self.cuts, self.byte_ns);
        let Some(conn) = self.conns.get_mut(&key).filter(|conn| conn.open[side] && !conn.broken) else {
            return Vec::new();
        };
        conn.open[side] = !chunk.is_last();
        let is_cut = conn.port != Port::Client && cuts > 0;
        let way = &mut conn.ways[side];
        let pieces = match chunk {
            Chunk::Bytes(mut bytes) if is_cut && bytes.len() > 1 && random.permille(cuts) => {
                let rest = bytes.split_off(random.between(1, bytes.len() as u64 - 1) as usize);
                vec![(Chunk::Bytes(bytes), delay), (Chunk::Bytes(rest), delay + random.below(pause + 1))]
            }
            Chunk::Bytes(bytes) if is_cut && random.permille(cuts) && way.join(&bytes) => Vec::new(),
            chunk => vec![(chunk, delay)],
        };
        let due = pieces.into_iter().map(|(chunk, after)| {
            let moves = chunk.len() as u64 * byte_ns / 1000;
            way.last_due = (way.last_due + moves).max(now + after + moves);
            way.push(way.last_due, chunk);
            (way.last_due, key, side)
        });
        due.collect()
    }

    /// Whether something is under way to this host.
    pub fn is_sent_to(&self, key: u64, host: Host) -> bool {
        self.side(key, host).is_some_and(|side| self.conns[&key].ways[1 - side].queued > 0)
    }

    /// A close with something unread: of what is under way to the other side, only a part arrives.
    pub fn reset(&mut self, now: u64, key: u64, from: Host, random: &mut Random) -> Vec<Due> {
        let Some(side) = self.side(key, from) else { return Vec::new() };
        let Some(conn) = self.conns.get_mut(&key) else { return Vec::new() };
        let way = &mut conn.ways[side];
        let kept = random.below(way.chunks.len() as u64 + 1) as usize;
        way.truncate(kept);
        self.send(now, key, from, Chunk::Reset, random)
    }

    /// What has come through on the way from `side`.
    pub fn arrive(&mut self, now: u64, key: u64, side: usize) -> Option<Arrival> {
        let conn = self.conns.get_mut(&key)?;
        let (from, to) = (conn.hosts[side], conn.hosts[1 - side]);
        if let (Host::Server(from), Host::Server(to)) = (from, to)
            && self.blocked[from][to]
        {
            return None;
        }
        let chunk = conn.ways[side].pop_due(now)?;
        let is_open = conn.open[1 - side];
        if chunk.is_last() {
            conn.open[1 - side] = false;
        }
        let port = conn.port;
        if !conn.open[0] && !conn.open[1] && conn.ways.iter().all(|way| way.chunks.is_empty()) {
            self.conns.remove(&key);
        }
        is_open.then_some(Arrival { from, to, from_dialer: side == 0, port, chunk })
    }

    /// Breaks a connection: both sides hear of it, and what was under way is lost.
    pub fn cut(&mut self, now: u64, key: u64) -> Vec<Due> {
        let Some(conn) = self.conns.get_mut(&key) else { return Vec::new() };
        let mut due = Vec::new();
        conn.broken = true;
        for side in 0..2 {
            let way = &mut conn.ways[side];
            way.truncate(0);
            if conn.open[1 - side] {
                way.push(now + 1, Chunk::End);
                due.push((now + 1, key, side));
            }
        }
        due
    }

    /// A host is gone. The system of one whose process ended says so to the others, behind what was sent or instead of
    /// it; a machine without power says nothing, and its peers find out by themselves.
    pub fn host_gone(&mut self, now: u64, host: Host, silent: bool, random: &mut Random) -> Vec<Due> {
        let mut due = Vec::new();
        for (key, conn) in &mut self.conns {
            let Some(side) = conn.hosts.iter().position(|other| *other == host) else { continue };
            conn.open[side] = false;
            conn.ways[1 - side].truncate(0);
            let way = &mut conn.ways[side];
            if silent {
                // Some of it has left the machine.
                let kept = random.below(way.chunks.len() as u64 + 1) as usize;
                way.truncate(kept);
                continue;
            }
            if random.permille(500) {
                way.truncate(0);
            }
            way.last_due = way.last_due.max(now + 1);
            way.push(way.last_due, Chunk::End);
            due.push((way.last_due, *key, side));
        }
        due
    }

    /// A machine is back: what its peers still hold of the old connections is answered with a reset.
    pub fn host_back(&mut self, now: u64, host: Host, random: &mut Random) -> Vec<Due> {
        let mut due = Vec::new();
        let delay = self.delay(random);
        for (key, conn) in &mut self.conns {
            let Some(side) = conn.hosts.iter().position(|other| *other == host) else { continue };
            let told = conn.ways[side].chunks.iter().any(|(_, chunk)| chunk.is_last());
            if conn.open[side] || !conn.open[1 - side] || told {
                continue;
            }
            // Keep-alives or the next bytes bring it about.
            conn.ways[side].push(now + delay, Chunk::End);
            due.push((now + delay, *key, side));
        }
        due
    }

    /// Open connections of a kind.
    pub fn open_conns(&self, is: impl Fn(Port, Host, Host) -> bool) -> Vec<u64> {
        let open = self.conns.iter().filter(|(_, conn)| conn.open == [true; 2] && !conn.broken);
        open.filter(|(_, conn)| is(conn.port, conn.hosts[0], conn.hosts[1])).map(|(key, _)| *key).collect()
    }
}
