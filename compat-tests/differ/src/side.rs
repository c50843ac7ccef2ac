//! One of the two servers as the driver sees it: its connections, its sessions, and the names of its numbers.

use crate::connection::{Connection, Heard, PATIENCE, Reply, Welcome, hello, password_of, ping, request};
use crate::names::Names;
use crate::op;
use crate::script::{Password, Seen};
use crate::server::{BETWEEN_TRIES, Kind};
use std::io;
use std::net::SocketAddr;
use std::time::Instant;

pub const SLOTS: usize = 4;
/// What the slots and the administrator ask for. Nothing expires unless it is meant to.
pub const LONG_TIMEOUT: i32 = 120_000;

/// A request on its way.
#[derive(Debug, Clone)]
pub struct Sent {
    pub xid: i32,
    pub op: i32,
    pub back: Option<i64>,
    pub body: Vec<u8>,
}

impl Sent {
    /// Its answer comes behind all that was under way.
    pub fn ping() -> Sent {
        Sent { xid: -2, op: op::PING, back: None, body: Vec::new() }
    }
}

#[derive(Debug, Default)]
pub struct Slot {
    pub connection: Option<Connection>,
    pub session: Option<i64>,
    /// The session that was there before, and is over.
    pub former: Option<i64>,
    /// The last zxid that a reply named, as a client keeps it.
    pub last_seen: i64,
}

#[derive(Debug)]
pub struct Side {
    pub kind: Kind,
    address: SocketAddr,
    pub names: Names,
    pub slots: Vec<Slot>,
    /// Every session of the script that was not closed.
    living: Vec<i64>,
    admin: Connection,
}

impl Side {
    pub fn new(kind: Kind, address: SocketAddr, digest: bool) -> io::Result<Side> {
        let mut admin = Connection::open(address)?;
        let refused = |heard| io::Error::other(format!("{} does not welcome: {heard:?}", kind.name()));
        admin.connect(&hello(0, LONG_TIMEOUT, 0, Some(&[0; 16]), Some(0))).map_err(refused)?;
        if digest {
            let auth = crate::jute::Writer::new().int(0).text(b"digest").text(b"super:test").0;
            admin.send(&request(-4, op::AUTH, &auth));
            admin.hear();
        }
        let slots = (0..SLOTS).map(|_| Slot::default()).collect();
        Ok(Side { kind, address, names: Names::default(), slots, living: Vec::new(), admin })
    }

    /// Gets ready for a script.
    pub fn begin(&mut self) -> Result<(), Heard> {
        let pong = self.ask(&[ping()])?.remove(0);
        self.names = Names::new(pong.zxid);
        Ok(())
    }

    /// Asks as the administrator, all at once; the answers come in order.
    pub fn ask(&mut self, requests: &[Vec<u8>]) -> Result<Vec<Reply>, Heard> {
        self.admin.send(&requests.concat());
        let mut replies = Vec::with_capacity(requests.len());
        while replies.len() < requests.len() {
            match self.admin.hear() {
                Heard::Reply(reply) => replies.push(reply),
                Heard::Event(_) => {}
                end => return Err(end),
            }
        }
        Ok(replies)
    }

    /// Waits until the server has applied `zxid`.
    pub fn wait_for(&mut self, zxid: i64) -> Result<(), Heard> {
        let deadline = Instant::now() + PATIENCE;
        while self.ask(&[ping()])?[0].zxid < zxid {
            if Instant::now() > deadline {
                return Err(Heard::Silence);
            }
            // There is no event to await on this connection but the next answer.
            std::thread::sleep(BETWEEN_TRIES);
        }
        Ok(())
    }

    pub fn open(&mut self, slot: usize, timeout: i32, read_only: Option<u8>) -> Result<Welcome, Heard> {
        let mut connection = self.connection()?;
        let welcome = connection.connect(&hello(0, timeout, 0, Some(&[0; 16]), read_only))?;
        if welcome.session != 0 {
            self.names.add_session(welcome.session);
            self.names.one_more();
            self.living.push(welcome.session);
            let former = self.slots[slot].session.or(self.slots[slot].former);
            self.slots[slot] =
                Slot { connection: Some(connection), session: Some(welcome.session), former, last_seen: 0 };
        }
        Ok(welcome)
    }

    /// Takes the slot's session up on a new connection, which is returned while the old one stays in the slot.
    pub fn resume(
        &mut self,
        slot: usize,
        timeout: i32,
        password: Password,
        seen: Seen,
    ) -> (Result<Welcome, Heard>, Option<Connection>) {
        let session = self.slots[slot].session.or(self.slots[slot].former).expect("the caller looked");
        let password = match password {
            Password::Right => Some(password_of(session)),
            Password::Wrong => Some(vec![b'x'; 16]),
            Password::Null => None,
        };
        let seen = match seen {
            Seen::Zero => 0,
            Seen::Last => self.slots[slot].last_seen,
            Seen::Future => i64::MAX >> 8,
        };
        let mut connection = match self.connection() {
            Ok(connection) => connection,
            Err(end) => return (Err(end), None),
        };
        let hello = hello(seen, timeout, session, password.as_deref(), Some(0));
        let welcome = connection.connect(&hello);
        (welcome, Some(connection))
    }

    /// Ends the slot's connection, if there is one.
    pub fn cut(&mut self, slot: usize) {
        if let Some(connection) = self.slots[slot].connection.take() {
            connection.end();
        }
    }

    /// A connection without a session.
    pub fn connection(&self) -> Result<Connection, Heard> {
        Connection::open(self.address).map_err(|_| Heard::Closed)
    }

    /// Sends all of a slot's requests at once.
    pub fn submit(&mut self, slot: usize, sends: &[Sent]) {
        let Slot { connection: Some(connection), last_seen, .. } = &mut self.slots[slot] else { return };
        let mut bytes = Vec::new();
        for sent in sends {
            let mut body = sent.body.clone();
            if let (Some(back), Some(first)) = (sent.back, body.first_chunk_mut::<8>()) {
                *first = self.names.raw_zxid(self.names.state(*last_seen) - back).to_be_bytes();
            }
            bytes.extend_from_slice(&request(sent.xid, sent.op, &body));
        }
        connection.send(&bytes);
    }

    /// Takes all that the slot is sent, up to the reply to the last request, or the end if that is to end it.
    pub fn collect(&mut self, slot: usize, sends: &[Sent]) -> Vec<Heard> {
        let Slot { connection: Some(connection), last_seen, session, former } = &mut self.slots[slot] else {
            return Vec::new();
        };
        let mut heard = Vec::new();
        let mut replies = 0;
        let mut ending = false;
        while replies < sends.len() || ending {
            let next = connection.hear();
            match &next {
                Heard::Reply(reply) => {
                    let op = sends.get(replies).map_or(0, |sent| sent.op);
                    replies += 1;
                    if matches!(op, op::CREATE_SESSION | op::DELETE_CONTAINER) && reply.err != -6 {
                        // Java's answer, which may not even be a reply: the rule for it looks at it.
                        heard.push(next);
                        continue;
                    }
                    self.names.note(reply.zxid);
                    *last_seen = (*last_seen).max(reply.zxid);
                    ending |= reply.err == -6 && reply.zxid == -1;
                    ending |= reply.err == -115;
                    if op == op::CLOSE_SESSION && reply.err == 0 {
                        ending = true;
                        self.names.ended.insert(reply.zxid);
                        self.living.retain(|living| Some(*living) != *session);
                        *former = session.take();
                    }
                }
                Heard::Event(event) => self.names.note(event.zxid),
                Heard::Odd(_) => replies += 1,
                Heard::Closed | Heard::Silence => ending = true,
            }
            let over = matches!(next, Heard::Closed | Heard::Silence);
            heard.push(next);
            if over {
                break;
            }
        }
        if ending {
            self.slots[slot].connection = None;
        }
        heard
    }

    /// Takes what the slot is sent until `last` says so, or the end.
    pub fn collect_until(&mut self, slot: usize, last: impl Fn(&Heard) -> bool) -> Vec<Heard> {
        let Some(connection) = &mut self.slots[slot].connection else { return Vec::new() };
        let mut heard = Vec::new();
        loop {
            let next = connection.hear();
            if let Heard::Event(event) = &next {
                self.names.note(event.zxid);
            }
            let over = matches!(next, Heard::Closed | Heard::Silence);
            let enough = last(&next);
            heard.push(next);
            if over {
                self.slots[slot].connection = None;
                return heard;
            }
            if enough {
                return heard;
            }
        }
    }

    /// The session of the slot has expired.
    pub fn expired(&mut self, slot: usize) {
        let session = self.slots[slot].session.take();
        self.slots[slot].former = session;
        self.living.retain(|living| Some(*living) != session);
    }

    /// Closes every session of the script, in the order in which they began.
    pub fn close_sessions(&mut self) -> Result<(), Heard> {
        for session in std::mem::take(&mut self.living) {
            let slot = self.slots.iter_mut().find(|slot| slot.session == Some(session));
            let mut connection = match slot.and_then(|slot| slot.connection.take()) {
                Some(connection) => connection,
                None => {
                    let mut connection = self.connection()?;
                    let password = password_of(session);
                    connection.connect(&hello(0, LONG_TIMEOUT, session, Some(&password), Some(0)))?;
                    connection
                }
            };
            connection.send(&request(1, op::CLOSE_SESSION, &[]));
            while !matches!(connection.hear(), Heard::Closed | Heard::Silence) {}
        }
        self.slots = (0..SLOTS).map(|_| Slot::default()).collect();
        Ok(())
    }
}
