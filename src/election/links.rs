//! Which connection between two election ports lives (`QuorumCnxManager`): the one that the server with the larger id
//! dialled. The other one dials only to be called back.

use crate::model::ServerId;
use crate::wire::election::{InitialMessage, MAX_NOTIFICATION, Notification};
use bytes::{Buf, Bytes, BytesMut};
use std::collections::BTreeMap;

/// A TCP connection of the election port, numbered by the driver.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ElectionConn(pub u64);

/// Why this server ends a connection of the election port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HangUp {
    /// It was made to be called back, and another such connection took its place.
    #[error("it was not called back")]
    NotCalledBack,
    /// The oldest of those that do not say who they are makes room.
    #[error("too many connections that do not say who they are")]
    TooManyStrangers,
    /// It claims a living server's id, and sends more than may wait.
    #[error("it says too much before it is taken")]
    TalksTooMuch,
    /// It began with something else than an initial message.
    #[error("an initial message that does not decode")]
    NoInitialMessage,
    /// It claimed the id of a server that has just answered.
    #[error("that server is connected already, and lives")]
    IdTaken,
    /// Another connection claims the same id later.
    #[error("another claims the same")]
    AnotherClaims,
    /// It claims this server's own id.
    #[error("it claims this server's own id")]
    OwnId,
    /// Its id is in no configuration, and people did not allow it.
    #[error("its id is in no configuration")]
    NotAdmitted,
    /// It asked to be called, and is.
    #[error("calling back")]
    CallingBack,
    /// It asked to be called back, and was.
    #[error("called back")]
    CalledBack,
    /// A newer connection to that server took its place.
    #[error("a newer connection took its place")]
    Replaced,
    /// It did not send an initial message in time.
    #[error("it did not say who it is")]
    SaysNothing,
    /// A reconfiguration removed its id.
    #[error("its id left the configuration")]
    LeftConfiguration,
    /// It sent a frame of a length that no notification has.
    #[error("a frame of a length that is not allowed")]
    FrameLength,
}

/// What the driver has to do on the election port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LinkOutput {
    /// Connect to a server.
    Dial {
        /// The server to reach.
        to: ServerId,
        /// Host and port, to be tried in order. The rules of the connections know those that a server in no configuration has
        /// named; the replica puts in those of the configuration.
        addresses: Vec<(String, u16)>,
    },
    /// In one write: Java takes of an initial message what one read brings.
    Write {
        /// The connection.
        conn: ElectionConn,
        /// One message as a whole.
        bytes: Bytes,
    },
    /// Once what was written has left.
    Close {
        /// The connection.
        conn: ElectionConn,
        /// The reason, for the log.
        why: HangUp,
    },
}

/// What the connections brought.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LinkEvent {
    /// `proved`: over a connection that this server made to where its configuration has that one.
    Heard {
        /// Who says that he is this server's peer.
        from: ServerId,
        /// What it tells.
        notification: Notification,
        /// Whether it was told over a connection that this server made to where its configuration has the other.
        proved: bool,
    },
    /// There is a connection to a server now.
    Connected {
        /// The server.
        to: ServerId,
        /// Something was to be sent to it while there was none. The present vote goes in its place: what was true when it
        /// was written may be long over, its configuration too.
        owed: bool,
    },
    /// This server refuses connections.
    Unreachable(ServerId),
    /// Another connection claims to be this server, which is connected already: ask it something that it answers.
    Claimed(ServerId),
    /// A server with a smaller id has connected: [`Links::answer`] sends it the present vote there.
    Asked {
        /// Who connected.
        from: ServerId,
        /// Its connection, which is answered and closed.
        conn: ElectionConn,
    },
}

/// Whose connections are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admission {
    /// Closed at once: nobody lets it in.
    Refused,
    /// In no configuration: it is not called, as anybody can say where he wants to be called.
    Guest,
    /// It is called at the addresses of the configuration, or where it says if people named it.
    Member,
}

/// Milliseconds after a connection began in which a request to be called is ignored: the peer sent it before it saw that
/// connection.
const JUST_CALLED_MS: u64 = 500;
/// After losing a connection, redial at once, then `RECALLS` more times, waiting `RECALL_MS` before the first and longer each time.
const RECALLS: u32 = 4;
const RECALL_MS: u64 = 10;
/// Milliseconds within which a connected server must say something, once another connection claims to be
/// it. It tells its vote every second while it looks for a leader, and answers at once when it has one.
pub(super) const PROOF_MS: u64 = 1500;
/// Milliseconds that a server may stay silent after something was sent to it on a living connection. Then it is called:
/// the connection may be somebody else's.
pub(super) const SILENCE_MS: u64 = 3000;
/// Bytes that a connection may send before it is taken.
const MAX_EARLY: usize = 64 << 10;
/// Connections that have not said who they are, at the most.
const MAX_STRANGERS: usize = 64;

/// Which connection lives with each other server, and what was told over it.
#[derive(Debug)]
pub struct Links {
    me: ServerId,
    /// The addresses that others are asked to call back at.
    addresses: Vec<(String, u16)>,
    peers: BTreeMap<ServerId, Peer>,
    conns: BTreeMap<ElectionConn, Conn>,
    /// How long a stranger may take to say who it is, in milliseconds.
    patience_ms: u64,
}

#[derive(Debug, Default)]
struct Peer {
    live: Option<ElectionConn>,
    live_since: u64,
    /// Its connection ended: whether it is there is found out.
    recall: Option<Recall>,
    /// A message could not leave.
    owed: bool,
    dialing: bool,
    /// Where it says it is, if it is in no configuration.
    given: Vec<(String, u16)>,
    /// When it was told something that it has not answered yet.
    told_at: Option<u64>,
    rival: Option<Rival>,
    /// A connection that this server made, to be called back. It serves where that one answers on it and does not call.
    offered: Option<Offered>,
}

#[derive(Debug)]
struct Offered {
    conn: ElectionConn,
    answered: bool,
}

/// A connection claims to be a server that is connected already. The older one stays if it proves in time that it lives.
#[derive(Debug)]
struct Rival {
    /// Without one, he wants to be called.
    conn: Option<ElectionConn>,
    until: u64,
}

#[derive(Debug)]
struct Recall {
    at: u64,
    left: u32,
}

#[derive(Debug)]
struct Conn {
    /// Known once the initial message is there.
    with: Option<ServerId>,
    /// Who it says it is, while another connection to that server may live.
    claims: Option<ServerId>,
    /// The server to which this one has connected.
    dialed: Option<ServerId>,
    input: BytesMut,
    deadline: u64,
}

impl Conn {
    fn new(deadline: u64) -> Self {
        Self { with: None, claims: None, dialed: None, input: BytesMut::new(), deadline }
    }
}

impl Links {
    /// `addresses`: where other servers can call this one. A stranger has `patience_ms` to say who it is.
    pub fn new(me: ServerId, addresses: Vec<(String, u16)>, patience_ms: u64) -> Self {
        Self { me, addresses, peers: BTreeMap::new(), conns: BTreeMap::new(), patience_ms }
    }

    /// Sends a message. Where there is no connection it dials, and asks for another message once there is one.
    pub fn send(&mut self, now: u64, to: ServerId, notification: &Notification, out: &mut Vec<LinkOutput>) {
        let peer = self.peers.entry(to).or_default();
        if peer.live.is_none()
            && let Some(offered) = peer.offered.take_if(|offered| offered.answered)
        {
            peer.live = Some(offered.conn);
            let conn = self.conns.get_mut(&offered.conn).expect("it goes with the connection");
            conn.with = Some(to);
        }
        match peer.live {
            Some(conn) => {
                peer.owed = false;
                let mut frame = BytesMut::new();
                notification.encode(&mut frame);
                out.push(LinkOutput::Write { conn, bytes: frame.freeze() });
                if now >= *peer.told_at.get_or_insert(now) + SILENCE_MS {
                    peer.told_at = Some(now);
                    self.dial(to, out);
                }
            }
            None => {
                peer.owed = true;
                self.dial(to, out);
            }
        }
    }

    fn dial(&mut self, to: ServerId, out: &mut Vec<LinkOutput>) {
        let peer = self.peers.entry(to).or_default();
        if !peer.dialing {
            peer.dialing = true;
            out.push(LinkOutput::Dial { to, addresses: peer.given.clone() });
        }
    }

    /// A dial to `to` came through.
    pub fn on_dialed(
        &mut self,
        now: u64,
        to: ServerId,
        conn: ElectionConn,
        out: &mut Vec<LinkOutput>,
        events: &mut Vec<LinkEvent>,
    ) {
        self.peers.entry(to).or_default().dialing = false;
        let mut bytes = BytesMut::new();
        InitialMessage { from: self.me, addresses: self.addresses.clone() }.encode(&mut bytes);
        out.push(LinkOutput::Write { conn, bytes: bytes.freeze() });
        let known = self.conns.entry(conn).or_insert(Conn::new(u64::MAX));
        known.dialed = Some(to);
        if to < self.me {
            return self.establish(now, to, conn, out, events);
        }
        // The larger id calls back.
        let offered = Offered { conn, answered: false };
        let before = self.peers.entry(to).or_default().offered.replace(offered);
        if let Some(before) = before {
            self.drop_conn(before.conn, HangUp::NotCalledBack, out);
        }
    }

    /// The server `to` can't be reached.
    pub fn on_dial_failed(&mut self, to: ServerId, events: &mut Vec<LinkEvent>) {
        let peer = self.peers.entry(to).or_default();
        peer.dialing = false;
        peer.recall = None;
        if peer.live.is_none() {
            events.push(LinkEvent::Unreachable(to));
        }
    }

    /// Somebody dialled this server.
    pub fn on_accepted(&mut self, now: u64, conn: ElectionConn, out: &mut Vec<LinkOutput>) {
        let mut strangers = self
            .conns
            .iter()
            .filter(|(_, conn)| conn.with.is_none() && conn.dialed.is_none())
            .map(|(id, _)| *id);
        if let Some(oldest) = strangers.next()
            && strangers.count() + 1 >= MAX_STRANGERS
        {
            self.drop_conn(oldest, HangUp::TooManyStrangers, out);
        }
        let deadline = now + self.patience_ms;
        self.conns.insert(conn, Conn::new(deadline));
    }

    /// Bytes of a connection. `admits` tells whose connections are taken.
    pub fn on_bytes(
        &mut self,
        now: u64,
        conn: ElectionConn,
        bytes: &[u8],
        admits: &dyn Fn(ServerId) -> Admission,
        out: &mut Vec<LinkOutput>,
        events: &mut Vec<LinkEvent>,
    ) {
        let Some(known) = self.conns.get_mut(&conn) else { return };
        known.input.extend_from_slice(bytes);
        if known.claims.is_some() {
            if known.input.len() > MAX_EARLY {
                self.drop_conn(conn, HangUp::TalksTooMuch, out);
            }
            return;
        }
        if let Some(with) = known.with {
            self.on_life(with, conn, out);
        } else if let Some(to) = known.dialed {
            if let Some(offered) = self.peers.get_mut(&to).and_then(|peer| peer.offered.as_mut()) {
                offered.answered |= offered.conn == conn;
            }
        } else {
            match InitialMessage::decode(&known.input) {
                Ok(None) => return,
                Ok(Some((message, len))) => {
                    known.input.advance(len);
                    self.on_initial(now, conn, message, admits, out, events);
                }
                Err(_) => return self.drop_conn(conn, HangUp::NoInitialMessage, out),
            }
        }
        self.take_frames(conn, out, events);
    }

    fn take_frames(&mut self, conn: ElectionConn, out: &mut Vec<LinkOutput>, events: &mut Vec<LinkEvent>) {
        while let Some(known) = self.conns.get_mut(&conn)
            && let Some(from) = known.with.or(known.dialed)
        {
            let proved = known.dialed.is_some();
            match frame(&mut known.input) {
                Ok(None) => return,
                // One that does not decode is stepped over, as Java does: the next one may.
                Ok(Some(body)) => {
                    if let Ok(notification) = Notification::decode(&body) {
                        events.push(LinkEvent::Heard { from, notification, proved });
                    }
                }
                Err(why) => return self.drop_conn(conn, why, out),
            }
        }
    }

    /// Something was heard on a connection: who claims to be the server at its other end is not.
    fn on_life(&mut self, with: ServerId, conn: ElectionConn, out: &mut Vec<LinkOutput>) {
        let Some(peer) = self.peers.get_mut(&with).filter(|peer| peer.live == Some(conn)) else { return };
        peer.told_at = None;
        if let Some(Rival { conn: Some(rival), .. }) = peer.rival.take() {
            self.drop_conn(rival, HangUp::IdTaken, out);
        }
    }

    /// A connection claims to be `from`, which is connected already.
    fn contest(
        &mut self,
        now: u64,
        from: ServerId,
        conn: Option<ElectionConn>,
        out: &mut Vec<LinkOutput>,
        events: &mut Vec<LinkEvent>,
    ) {
        let peer = self.peers.get_mut(&from).expect("there is a connection");
        let until = peer.rival.as_ref().map_or(now + PROOF_MS, |rival| rival.until);
        let before = peer.rival.replace(Rival { conn, until });
        if let Some(known) = conn.and_then(|conn| self.conns.get_mut(&conn)) {
            known.claims = Some(from);
            known.deadline = u64::MAX;
        }
        match before {
            Some(Rival { conn: Some(before), .. }) => self.drop_conn(before, HangUp::AnotherClaims, out),
            Some(_) => {}
            None => events.push(LinkEvent::Claimed(from)),
        }
    }

    /// The server that had to prove that it lives has not, or its connection ended.
    fn give_way(
        &mut self,
        now: u64,
        to: ServerId,
        out: &mut Vec<LinkOutput>,
        events: &mut Vec<LinkEvent>,
    ) -> bool {
        match self.peers.get_mut(&to).and_then(|peer| peer.rival.take()) {
            Some(Rival { conn: Some(conn), .. }) => {
                self.establish(now, to, conn, out, events);
                self.take_frames(conn, out, events);
                true
            }
            Some(Rival { conn: None, .. }) => {
                self.dial(to, out);
                true
            }
            None => false,
        }
    }

    fn on_initial(
        &mut self,
        now: u64,
        conn: ElectionConn,
        message: InitialMessage,
        admits: &dyn Fn(ServerId) -> Admission,
        out: &mut Vec<LinkOutput>,
        events: &mut Vec<LinkEvent>,
    ) {
        let from = message.from;
        if from == self.me {
            return self.drop_conn(conn, HangUp::OwnId, out);
        }
        let admission = admits(from);
        if admission == Admission::Refused {
            return self.drop_conn(conn, HangUp::NotAdmitted, out);
        }
        let is_connected = self.peers.get(&from).is_some_and(|peer| peer.live.is_some());
        if from > self.me || admission == Admission::Guest {
            if from < self.me {
                events.push(LinkEvent::Asked { from, conn });
            }
            if is_connected {
                return self.contest(now, from, Some(conn), out, events);
            }
            return self.establish(now, from, conn, out, events);
        }
        // It wants to be called. What it is connected by stays until the call is through: anybody can claim an id.
        events.push(LinkEvent::Asked { from, conn });
        self.conns.remove(&conn);
        let called = self.peers.get(&from).filter(|peer| peer.live.is_some());
        if called.is_some_and(|peer| now.saturating_sub(peer.live_since) < JUST_CALLED_MS) {
            return;
        }
        let is_local = |host: &str| matches!(host, "0.0.0.0" | "::" | "0:0:0:0:0:0:0:0");
        let given = message.addresses.into_iter().filter(|(host, _)| !is_local(host)).collect();
        self.peers.entry(from).or_default().given = given;
        if is_connected {
            return self.contest(now, from, None, out, events);
        }
        self.dial(from, out);
    }

    /// Tells who asked. Where he is called, that connection ends.
    pub fn answer(&mut self, conn: ElectionConn, notification: &Notification, out: &mut Vec<LinkOutput>) {
        let mut frame = BytesMut::new();
        notification.encode(&mut frame);
        out.push(LinkOutput::Write { conn, bytes: frame.freeze() });
        if !self.conns.contains_key(&conn) {
            out.push(LinkOutput::Close { conn, why: HangUp::CallingBack });
        }
    }

    fn establish(
        &mut self,
        now: u64,
        with: ServerId,
        conn: ElectionConn,
        out: &mut Vec<LinkOutput>,
        events: &mut Vec<LinkEvent>,
    ) {
        let entry = self.conns.entry(conn);
        let known = entry.or_insert(Conn::new(0));
        (known.with, known.claims) = (Some(with), None);
        let peer = self.peers.entry(with).or_default();
        let old = peer.live.replace(conn);
        peer.live_since = now;
        peer.told_at = None;
        let owed = std::mem::take(&mut peer.owed);
        // It was made to be called back.
        if let Some(offered) = peer.offered.take() {
            self.drop_conn(offered.conn, HangUp::CalledBack, out);
        }
        if let Some(old) = old {
            self.drop_conn(old, HangUp::Replaced, out);
        }
        events.push(LinkEvent::Connected { to: with, owed });
    }

    fn drop_conn(&mut self, conn: ElectionConn, why: HangUp, out: &mut Vec<LinkOutput>) {
        self.forget(conn);
        out.push(LinkOutput::Close { conn, why });
    }

    /// The other side closed, or the connection broke. Whether it is still there is found out at once: in an election
    /// nobody waits for a server that refuses connections.
    pub fn on_closed(
        &mut self,
        now: u64,
        conn: ElectionConn,
        out: &mut Vec<LinkOutput>,
        events: &mut Vec<LinkEvent>,
    ) {
        let Some(with) = self.forget(conn) else { return };
        if self.give_way(now, with, out, events) {
            return;
        }
        let peer = self.peers.entry(with).or_default();
        peer.recall.get_or_insert(Recall { at: now, left: RECALLS });
        self.recall(now, out);
    }

    /// A server that is dying may still take a connection: it is called some times more, until one is refused or lasts.
    fn recall(&mut self, now: u64, out: &mut Vec<LinkOutput>) {
        let due = |peer: &Peer| peer.recall.as_ref().is_some_and(|recall| recall.at <= now);
        let due: Vec<ServerId> = self.peers.iter().filter(|(_, peer)| due(peer)).map(|(id, _)| *id).collect();
        for id in due {
            let peer = self.peers.get_mut(&id).expect("it was just found");
            let Some(Recall { left, .. }) = peer.recall.take() else { continue };
            if peer.live.is_none() && left > 0 {
                let at = now + (RECALL_MS << (RECALLS - left));
                peer.recall = Some(Recall { at, left: left - 1 });
                self.dial(id, out);
            }
        }
    }

    /// Tells whose living connection it was, if it was one.
    fn forget(&mut self, conn: ElectionConn) -> Option<ServerId> {
        let known = self.conns.remove(&conn)?;
        if let Some(peer) = known.claims.and_then(|claimed| self.peers.get_mut(&claimed)) {
            peer.rival.take_if(|rival| rival.conn == Some(conn));
        }
        if let Some(peer) = known.dialed.and_then(|dialed| self.peers.get_mut(&dialed)) {
            peer.offered.take_if(|offered| offered.conn == conn);
        }
        let with = known.with?;
        let peer = self.peers.get_mut(&with).filter(|peer| peer.live == Some(conn))?;
        peer.live = None;
        Some(with)
    }

    /// Closes what is late, and calls who is to be called. `now` is in monotonic milliseconds.
    pub fn on_tick(&mut self, now: u64, out: &mut Vec<LinkOutput>, events: &mut Vec<LinkEvent>) {
        let won = |peer: &Peer| peer.rival.as_ref().is_some_and(|rival| rival.until <= now);
        let won = self.peers.iter().filter(|(_, peer)| won(peer)).map(|(id, _)| *id);
        for id in won.collect::<Vec<_>>() {
            self.give_way(now, id, out, events);
        }
        let late = self.conns.iter().filter(|(_, conn)| conn.with.is_none() && now >= conn.deadline);
        for conn in late.map(|(id, _)| *id).collect::<Vec<_>>() {
            self.drop_conn(conn, HangUp::SaysNothing, out);
        }
        self.recall(now, out);
    }

    /// When [`Self::on_tick`] has to call somebody.
    pub fn next_wake(&self) -> Option<u64> {
        let due = |peer: &Peer| {
            let times = [peer.recall.as_ref().map(|recall| recall.at), peer.rival.as_ref().map(|r| r.until)];
            times.into_iter().flatten().min()
        };
        self.peers.values().filter_map(due).min()
    }

    /// Connections to servers that are in no configuration any more end.
    pub fn retain(&mut self, is_known: &dyn Fn(ServerId) -> bool, out: &mut Vec<LinkOutput>) {
        let gone: Vec<ServerId> = self.peers.keys().copied().filter(|id| !is_known(*id)).collect();
        for id in gone {
            let Some(peer) = self.peers.remove(&id) else { continue };
            let rival = peer.rival.and_then(|rival| rival.conn);
            for conn in peer.live.into_iter().chain(rival).chain(peer.offered.map(|offered| offered.conn)) {
                self.drop_conn(conn, HangUp::LeftConfiguration, out);
            }
        }
    }

    /// Every server that is connected.
    pub fn connected(&self) -> impl Iterator<Item = ServerId> {
        self.peers.iter().filter(|(_, peer)| peer.live.is_some()).map(|(id, _)| *id)
    }
}

/// Cuts one frame off.
fn frame(input: &mut BytesMut) -> Result<Option<Bytes>, HangUp> {
    let Some(head) = input.first_chunk::<4>() else { return Ok(None) };
    let len = i32::from_be_bytes(*head);
    if len <= 0 || len as usize > MAX_NOTIFICATION {
        return Err(HangUp::FrameLength);
    }
    let len = len as usize;
    if input.len() < 4 + len {
        return Ok(None);
    }
    input.advance(4);
    Ok(Some(input.split_to(len).freeze()))
}
