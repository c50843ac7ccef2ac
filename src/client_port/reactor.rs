//! One reactor: a thread with its own poll and its own connections.

use super::connection::{Connection, FEW};
use super::refusals::Kind;
use super::stream::Stream;
use super::{Arrival, ClientPort, ConnInfo, Door, four_letter};
use crate::conversation::{Bounds, End, Step, Tally, Weight, World};
use crate::core::Mail;
use crate::model::{Budget, ConnId, SessionId};
use crate::replica::{ClientMessage, Input};
use crate::tree::{Database, Departed};
use base64::{Engine, engine::general_purpose::STANDARD};
use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token, Waker};
use rustix::rand::GetRandomFlags;
use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use tracing::Level;

const WAKER: Token = Token(usize::MAX);
/// The first of the listeners' tokens; the others count down from it.
const LISTENERS: usize = usize::MAX - 1;
const MAX_LISTENERS: usize = 2;
/// How often deadlines are looked at.
const HOUSEKEEPING: Duration = Duration::from_millis(500);
/// A client that takes none of the bytes that wait for it for so long may be cut off to make room.
const IDLE: Duration = Duration::from_secs(1);
/// Bytes of answers that are made before the sockets get them.
const ANSWERS_AT_ONCE: usize = 16 << 20;
/// How long accepting rests when the system has no descriptor left.
const ACCEPT_REST: Duration = Duration::from_millis(100);
/// Watches that are forgotten under one hold of the lock.
const WATCHES_AT_ONCE: usize = 1024;
/// How long connections get to take their last bytes when the server stops.
const FAREWELL: Duration = Duration::from_millis(200);

static NEXT_REACTOR: AtomicUsize = AtomicUsize::new(0);

struct Reactor {
    index: usize,
    port: Arc<ClientPort>,
    poll: Poll,
    listeners: Vec<(TcpListener, Door)>,
    slots: Vec<Option<Connection>>,
    free: Vec<usize>,
    generation: u32,
    inputs: Vec<Input>,
    mail: Mail,
    /// Slots with bytes to read or to work on.
    ready: Vec<usize>,
    /// Slots that got mail and have not worked since.
    touched: Vec<usize>,
    /// Slots with bytes to write.
    dirty: Vec<usize>,
    scratch: Vec<u8>,
    /// Connections that are gone, and left more watches than are forgotten at once.
    departed: VecDeque<Departed>,
    /// When there may be connections that were left waiting.
    accept_at: Option<Instant>,
    /// Bytes of the requests that the core has of these connections.
    handed_in: usize,
    /// Slots whose writes wait until fewer are, who has waited longest first.
    waiting: VecDeque<usize>,
    /// The one of them that may write now.
    next: Option<usize>,
    /// Slots of which nothing more is read until there is room for their large requests.
    hungry: Vec<usize>,
    /// What all had when there was none. Less of that may mean that there is some.
    full_at: usize,
    /// Bytes of answers that were made and have not been offered to the sockets.
    made: usize,
    /// Reads wait until this server has heard of its leader, or its quorum, again.
    waits_for_lease: bool,
}

/// Runs reactor `index` until the core stops. The first one also accepts.
pub fn run(
    index: usize,
    port: Arc<ClientPort>,
    listeners: Vec<(std::net::TcpListener, Door)>,
) -> io::Result<()> {
    assert!(listeners.len() <= MAX_LISTENERS);
    let poll = Poll::new()?;
    let waker = Waker::new(poll.registry(), WAKER)?;
    port.core.mailboxes[index].on_wake(Box::new(move || {
        // A wake-up that fails means the poll is gone, and with it the reactor.
        let _ = waker.wake();
    }));
    let mut watched = Vec::new();
    for (at, (listener, door)) in listeners.into_iter().enumerate() {
        listener.set_nonblocking(true)?;
        let mut listener = TcpListener::from_std(listener);
        poll.registry().register(&mut listener, Token(LISTENERS - at), Interest::READABLE)?;
        watched.push((listener, door));
    }
    let mut reactor = Reactor {
        index,
        port,
        poll,
        listeners: watched,
        slots: Vec::new(),
        free: Vec::new(),
        generation: 0,
        inputs: Vec::new(),
        mail: Mail::default(),
        ready: Vec::new(),
        touched: Vec::new(),
        dirty: Vec::new(),
        scratch: vec![0; 64 << 10],
        departed: VecDeque::new(),
        accept_at: None,
        handed_in: 0,
        waiting: VecDeque::new(),
        next: None,
        hungry: Vec::new(),
        full_at: 0,
        made: 0,
        waits_for_lease: false,
    };
    reactor.run()
}

impl Reactor {
    fn run(&mut self) -> io::Result<()> {
        let mut events = Events::with_capacity(1024);
        let mut housekeeping = Instant::now() + HOUSEKEEPING;
        while !self.port.core.is_stopping() {
            let has_work = !self.ready.is_empty() || !self.departed.is_empty() || self.may_go_on();
            let timeout = if has_work || self.port.core.mailboxes[self.index].has_mail() {
                Duration::ZERO
            } else {
                let next = self.accept_at.map_or(housekeeping, |at| at.min(housekeeping));
                next.saturating_duration_since(Instant::now())
            };
            match self.poll.poll(&mut events, Some(timeout)) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                other => other?,
            }
            let now = Instant::now();
            let mut accept = self.accept_at.take_if(|at| *at <= now).is_some();
            for event in &events {
                match event.token() {
                    WAKER => {}
                    // While accepting rests, more of them change nothing.
                    Token(at) if at > LISTENERS - MAX_LISTENERS => accept |= self.accept_at.is_none(),
                    Token(slot) => {
                        let hung_up = event.is_read_closed() || event.is_error();
                        if hung_up && let Some(Some(connection)) = self.slots.get_mut(slot) {
                            connection.talk.hang_up();
                        }
                        if hung_up || event.is_readable() {
                            self.ready.push(slot);
                        }
                        if event.is_writable() {
                            self.dirty.push(slot);
                        }
                    }
                }
            }
            if accept {
                self.accept(now);
            }
            self.take_handover(now);
            self.turn(now);
            if now >= housekeeping {
                // After a standstill, what clients said meanwhile may wait unread: they are judged the next time.
                let stood_still = now - housekeeping > HOUSEKEEPING;
                housekeeping = now + HOUSEKEEPING;
                if !stood_still {
                    self.end_overdue(now);
                }
            }
        }
        self.say_goodbye();
        Ok(())
    }

    /// Reads, answers, hands in, writes: each socket at most once.
    fn turn(&mut self, now: Instant) {
        if self.waits_for_lease && self.port.core.may_read() {
            self.waits_for_lease = false;
            self.ready.extend(0..self.slots.len());
        }
        let mut ready = std::mem::take(&mut self.ready);
        let port = self.port.clone();
        for slot in &ready {
            let bounds = self.bounds(&port, *slot);
            if let Some(Some(connection)) = self.slots.get_mut(*slot) {
                connection.fill(&mut self.scratch, &port, bounds, now);
            }
        }
        // A wake-up alone brings mail.
        self.work(&ready, now);
        // What came to be ready meanwhile has its turn next.
        ready.clear();
        ready.append(&mut self.ready);
        self.ready = ready;
        self.work_waiting(now);
        if self.waits_for_lease {
            // Time may have passed unnoticed: the core finds out what that means.
            self.inputs.push(Input::Tick);
        }
        while !self.inputs.is_empty() {
            port.core.submit(&mut self.inputs, Some(self.index));
            if port.core.mailboxes[self.index].has_mail() {
                self.work(&[], now);
            }
            self.work_waiting(now);
        }
        self.flush(now);
        self.forget_watches();
        self.port.core.mailboxes[self.index].wait_for_room(!self.waiting.is_empty());
    }

    /// Forgets a share of what connections watched that are gone: one may have left a million.
    fn forget_watches(&mut self) {
        if self.departed.is_empty() {
            return;
        }
        let port = self.port.clone();
        let db = port.db();
        let mut watches = db.watches.lock();
        let mut room = WATCHES_AT_ONCE;
        while let Some(departed) = self.departed.front_mut() {
            room -= watches.forget(departed, room);
            if room == 0 {
                return;
            }
            self.departed.pop_front();
        }
    }

    /// What bounds a connection now. Where others wait with writes it is not its turn: it waits behind them.
    fn bounds<'a>(&self, port: &'a ClientPort, slot: usize) -> Bounds<'a> {
        let is_its_turn = self.waiting.is_empty() || self.next == Some(slot);
        port.bounds(if is_its_turn { self.handed_in } else { usize::MAX })
    }

    /// Whether writes that have waited may be taken.
    fn may_go_on(&self) -> bool {
        !self.waiting.is_empty() && !self.port.bounds(self.handed_in).is_full()
    }

    /// Takes writes that have waited, as long as there is room for them.
    fn work_waiting(&mut self, now: Instant) {
        for _ in 0..self.waiting.len() {
            if !self.may_go_on() {
                break;
            }
            let Some(slot) = self.waiting.pop_front() else { break };
            if let Some(Some(connection)) = self.slots.get_mut(slot) {
                connection.waits = false;
                self.next = Some(slot);
                self.work(&[slot], now);
                self.next = None;
            }
        }
    }

    /// Empties the mailbox, then works off the input of `slots`; each time under the read lock, in this order, so
    /// that no read overtakes an event (see `core`).
    fn work(&mut self, slots: &[usize], now: Instant) {
        let port = self.port.clone();
        let mut slots = slots.iter();
        // A wake-up is answered by taking the mail, also where it is there no more.
        let mut take = true;
        loop {
            if self.made > ANSWERS_AT_ONCE {
                self.flush(now);
            }
            // The lock is let go of between connections, and when a share of work is done: the core never waits for long.
            let (db, work) = (port.db(), Budget::default());
            if take || port.core.mailboxes[self.index].has_mail() {
                let bounds = port.bounds(self.handed_in);
                self.take_mail(&port, &world(&port, bounds, &db, &work, now), now);
            }
            take = false;
            while !work.is_spent()
                && let Some(slot) = self.touched.pop()
            {
                let bounds = self.bounds(&port, slot);
                self.advance(slot, &port, &world(&port, bounds, &db, &work, now), now);
            }
            if self.touched.is_empty()
                && !work.is_spent()
                && let Some(slot) = slots.next()
            {
                let bounds = self.bounds(&port, *slot);
                self.advance(*slot, &port, &world(&port, bounds, &db, &work, now), now);
                if work.is_spent() {
                    self.bound_watches(*slot..slot + 1, &db);
                }
            }
            if self.touched.is_empty() && slots.len() == 0 {
                return;
            }
        }
    }

    /// Where all watches take more memory than they may, that one of these connections goes that has most of them, unless it has few.
    /// Who sets many at once is looked at after each share of them, and all are from time to time.
    fn bound_watches(&mut self, slots: Range<usize>, db: &Database) {
        let limit = self.port.port_limits.watched;
        let watches = db.watches.lock();
        if watches.bytes() <= limit {
            return;
        }
        let of = |slot: usize| Some((watches.bytes_of(self.slots.get(slot)?.as_ref()?.talk.id()), slot));
        let Some((bytes, slot)) = slots.filter_map(of).max() else { return };
        if bytes > FEW
            && let Some(connection) = &mut self.slots[slot]
        {
            connection.talk.cut(End::TooManyWatches { bytes, limit });
            self.dirty.push(slot);
        }
    }

    /// Gives the connections their mail. Those that got some are in `touched`, to go on with what they have.
    fn take_mail(&mut self, port: &ClientPort, world: &World<'_>, now: Instant) {
        let mut mail = std::mem::take(&mut self.mail);
        port.core.mailboxes[self.index].take(&mut mail);
        let mut offset = 0;
        for message in mail.messages.drain(..) {
            let bytes = &mail.bytes[offset..offset + message.len];
            offset += message.len;
            let slot = slot_of(message.conn);
            let Some(Some(connection)) = self.slots.get_mut(slot).filter(|found| is_at(found, message.conn))
            else {
                // It is gone. A session that was opened for it stays without a connection.
                if let ClientMessage::Established { session, .. } = message.message {
                    self.inputs.push(Input::Disconnected { conn: message.conn, session });
                }
                continue;
            };
            let mut tally = Tally::default();
            connection.talk.on_mail(message.message, bytes, world, &mut tally);
            connection.on_message(&message.message, now);
            count(port, connection, &tally, self.index, now);
            if self.touched.last() != Some(&slot) {
                self.touched.push(slot);
            }
        }
        mail.bytes.clear();
        self.mail = mail;
        self.touched.sort_unstable();
        self.touched.dedup();
    }

    fn advance(&mut self, slot: usize, port: &ClientPort, world: &World<'_>, now: Instant) {
        let Some(Some(connection)) = self.slots.get_mut(slot) else { return };
        let mut tally = Tally::default();
        let waited = connection.talk.output().len();
        match connection.talk.advance(world, &mut self.inputs, &mut tally) {
            Step::Wait => {}
            Step::Word(word) => {
                if let Some(text) = four_letter::answer(&word, connection.talk.unread(), port, world.db) {
                    connection.talk.answer_word(&text);
                }
            }
        }
        self.made += connection.talk.output().len().saturating_sub(waited);
        if tally.received > 0 {
            connection.on_request(now);
        }
        connection.count_handed_in(&mut self.handed_in);
        count(port, connection, &tally, self.index, now);
        self.waits_for_lease |= tally.waits_for_lease;
        self.dirty.push(slot);
    }

    fn flush(&mut self, now: Instant) {
        let mut dirty = std::mem::take(&mut self.dirty);
        dirty.sort_unstable();
        dirty.dedup();
        let port = self.port.clone();
        self.made = 0;
        for slot in dirty.drain(..) {
            let bounds = self.bounds(&port, slot);
            let Some(Some(connection)) = self.slots.get_mut(slot) else { continue };
            connection.flush(now);
            connection.count_in(&port.core.account, &port.limits);
            if let Some(why) = connection.talk.over(bounds).cloned() {
                self.remove(slot, &why, now);
            } else if connection.has_work(bounds) {
                self.ready.push(slot);
            } else if !connection.waits && connection.talk.waits_for_others(bounds) {
                connection.waits = true;
                self.waiting.push_back(slot);
            } else if connection.hungry {
                self.hungry.push(slot);
            }
        }
        self.dirty = dirty;
        self.relieve(now);
        self.feed_hungry();
    }

    /// Reads on where there was no room for a large request, once all connections together have less.
    fn feed_hungry(&mut self) {
        let read = self.port.core.account.read.load(Ordering::Relaxed);
        if read < self.full_at {
            self.ready.append(&mut self.hungry);
        }
        self.full_at = if self.hungry.is_empty() { 0 } else { read };
    }

    /// Where there is no room for large requests, those that have been coming for long make some.
    fn end_unfinished(&mut self, now: Instant) {
        // Without a lease whole requests wait too.
        if self.hungry.is_empty() || !self.port.core.may_read() {
            return;
        }
        self.hungry.sort_unstable();
        self.hungry.dedup();
        let port = self.port.clone();
        let mut unfinished = Vec::new();
        for (slot, found) in self.slots.iter().enumerate() {
            let Some(connection) = found else { continue };
            let since = connection.unfinished(self.bounds(&port, slot), now);
            unfinished.extend(since.filter(|since| *since >= IDLE).map(|since| (since, slot)));
        }
        unfinished.sort_unstable();
        for (since, slot) in unfinished.into_iter().rev().take(self.hungry.len()) {
            self.remove(slot, &End::Unfinished(since.as_millis()), now);
        }
        self.ready.append(&mut self.hungry);
    }

    /// Keeps the bytes that wait over all connections within their limit: the client that has taken none for longest goes.
    /// Clients that do take some are safe as long as there is twice the limit.
    fn relieve(&mut self, now: Instant) {
        let limit = self.port.port_limits.unread;
        loop {
            let unread = self.port.core.account.unread.load(Ordering::Relaxed);
            if unread <= limit {
                return;
            }
            let least = if unread > limit.saturating_mul(2) { Duration::ZERO } else { IDLE };
            let slow = |connection: &Connection| connection.counted() > 0 && connection.idle(now) >= least;
            let slots = self.slots.iter().enumerate();
            let slow =
                slots.filter_map(|(slot, found)| Some((found.as_ref().filter(|found| slow(found))?, slot)));
            let Some((slowest, slot)) = slow.max_by_key(|(connection, _)| connection.idle(now)) else {
                return;
            };
            let why = slowest.too_slow(now);
            self.remove(slot, &why, now);
        }
    }

    fn accept(&mut self, now: Instant) {
        for at in 0..self.listeners.len() {
            self.accept_from(at, now);
        }
    }

    fn accept_from(&mut self, at: usize, now: Instant) {
        // Bounded, so that a flood of connections does not starve those that are there.
        for _ in 0..256 {
            match self.listeners[at].0.accept() {
                Ok((socket, peer)) => self.accepted(at, socket, peer, now),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
                Err(error) => {
                    self.port.refusals.say(Kind::Accept, Level::WARN, now, || {
                        format!("cannot accept connections: {error}; trying again in {ACCEPT_REST:?}")
                    });
                    self.accept_at = Some(now + ACCEPT_REST);
                    return;
                }
            }
        }
        self.accept_at = self.accept_at.or(Some(now));
    }

    fn accepted(&mut self, at: usize, socket: TcpStream, peer: SocketAddr, now: Instant) {
        let port = self.port.clone();
        // A socket for both families tells an IPv4 address inside of an IPv6 one.
        let peer = SocketAddr::new(peer.ip().to_canonical(), peer.port());
        port.core.figures.connections.increment(1);
        let Some(descriptor) = port.descriptors.take_for_client() else {
            port.core.figures.connections_rejected.increment(1);
            return port.refusals.say(Kind::Descriptors, Level::WARN, now, || {
                let most = port.descriptors.for_clients();
                format!(
                    "refused a connection of {peer}: {most} are open, and the other descriptors are kept for files \
                     and other servers; raise the limit of open files (ulimit -n) to serve more"
                )
            });
        };
        if let Err((kind, why)) = port.admit(at, peer.ip()) {
            port.core.figures.connections_rejected.increment(1);
            return port
                .refusals
                .say(kind, Level::WARN, now, || format!("refused a connection of {peer}: {why}"));
        }
        let target = NEXT_REACTOR.fetch_add(1, Ordering::Relaxed) % port.handover.len();
        let door = self.listeners[at].1.clone();
        port.handover[target].lock().push(Arrival { socket, peer, listener: at, door, descriptor });
        if target != self.index {
            port.core.mailboxes[target].wake();
        }
    }

    fn take_handover(&mut self, now: Instant) {
        let arrived = std::mem::take(&mut *self.port.handover[self.index].lock());
        for arrival in arrived {
            let (peer, listener) = (arrival.peer, arrival.listener);
            if let Err(error) = self.add(arrival, now) {
                tracing::warn!("cannot watch the connection of {peer}: {error}");
                self.port.dismiss(listener, peer.ip());
            }
        }
    }

    fn add(&mut self, arrival: Arrival, now: Instant) -> io::Result<()> {
        let Arrival { socket, peer, listener, door, descriptor } = arrival;
        socket.set_nodelay(true)?;
        let mut stream = Stream::new(socket, door)?;
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            self.slots.len() - 1
        });
        let interest = Interest::READABLE | Interest::WRITABLE;
        if let Err(error) = self.poll.registry().register(stream.socket(), Token(slot), interest) {
            self.free.push(slot);
            return Err(error);
        }
        self.generation = self.generation.wrapping_add(1);
        let id = ConnId((self.index as u64) << 56 | (slot as u64) << 32 | u64::from(self.generation));
        let info = Arc::new(ConnInfo::new(peer));
        self.port.register(id, info.clone());
        self.slots[slot] = Some(Connection::new(id, listener, stream, info, descriptor, now));
        // The socket may hold bytes already.
        self.ready.push(slot);
        Ok(())
    }

    fn remove(&mut self, slot: usize, why: &End, now: Instant) {
        let Some(mut connection) = self.slots[slot].take() else { return };
        connection.end(why);
        connection.count_out(&self.port.core.account);
        self.handed_in -= connection.counted_handed_in();
        self.free.push(slot);
        let _ = self.poll.registry().deregister(connection.socket());
        let talk = &connection.talk;
        self.port.unregister(talk.id());
        self.port.dismiss(connection.listener, connection.info.peer.ip());
        self.departed.extend(self.port.db().watches.lock().depart(talk.id()));
        if talk.is_known() {
            self.inputs.push(Input::Disconnected { conn: talk.id(), session: talk.session() });
        }
        if !why.is_answered() {
            self.port.core.figures.connections_dropped.increment(1);
        }
        let level = match why.weight() {
            Weight::Usual => Level::DEBUG,
            Weight::Notable => Level::INFO,
            Weight::Wrong => Level::WARN,
        };
        let text = || match talk.session() {
            SessionId::NONE => format!("closed the connection of {}: {why}", connection.info.peer),
            session => format!("closed the connection of {}, session {session}: {why}", connection.info.peer),
        };
        if level == Level::DEBUG {
            tracing::debug!("{}", text());
        } else {
            self.port.refusals.say(why.into(), level, now, text);
        }
    }

    fn end_overdue(&mut self, now: Instant) {
        // Who waits with a write, or for room, is not silent: what it says next is not read meanwhile.
        for slot in self.waiting.iter().chain(&self.hungry) {
            if let Some(Some(connection)) = self.slots.get_mut(*slot) {
                connection.heard(now);
                self.port.core.mailboxes[self.index].touch(connection.talk.session());
            }
        }
        for slot in 0..self.slots.len() {
            if let Some(connection) = &self.slots[slot]
                && let Some(why) =
                    connection.overdue(self.port.port_limits.sessionless, &self.port.limits, now)
            {
                if let End::NoSession(_) = why {
                    self.port.core.figures.sessionless_expired.increment(1);
                }
                self.remove(slot, &why, now);
            }
        }
        self.bound_watches(0..self.slots.len(), &self.port.clone().db());
        self.end_unfinished(now);
        self.widen(now);
        self.relieve(now);
        self.port.refusals.summarize(now);
        let port = self.port.clone();
        port.core.submit(&mut self.inputs, Some(self.index));
    }

    /// Serves more requests of clients that take nothing: they may be writing all that they have before they read.
    fn widen(&mut self, now: Instant) {
        let unread = self.port.core.account.unread.load(Ordering::Relaxed);
        if unread > self.port.port_limits.unread / 2 {
            return;
        }
        for (slot, found) in self.slots.iter_mut().enumerate() {
            if let Some(connection) = found
                && connection.talk.is_held_up()
                && connection.idle(now) >= HOUSEKEEPING
                && connection.talk.widen(&self.port.limits)
            {
                self.ready.push(slot);
            }
        }
    }

    /// Gives the last replies some time to leave.
    fn say_goodbye(&mut self) {
        let deadline = Instant::now() + FAREWELL;
        let mut events = Events::with_capacity(64);
        let port = self.port.clone();
        let bounds = port.bounds(self.handed_in);
        loop {
            let now = Instant::now();
            let mut left = false;
            for connection in self.slots.iter_mut().flatten() {
                left |= !connection.flush(now) && connection.talk.over(bounds).is_none();
            }
            if !left || now >= deadline || self.poll.poll(&mut events, Some(deadline - now)).is_err() {
                return;
            }
        }
    }
}

impl ClientPort {
    fn db(&self) -> parking_lot::RwLockReadGuard<'_, crate::tree::Database> {
        self.core.db.read()
    }
}

fn world<'a>(
    port: &'a ClientPort,
    bounds: Bounds<'a>,
    db: &'a Database,
    work: &'a Budget,
    now: Instant,
) -> World<'a> {
    World {
        db,
        work,
        bounds,
        rules: &port.rules,
        logins: port.logins.as_ref(),
        now: now.duration_since(port.opened),
        touch_round: port.core.touch_round.load(Ordering::Relaxed),
        nonce,
    }
}

/// Passes on what one call has done, and puts it into the figures, once for all its requests.
fn count(port: &ClientPort, connection: &mut Connection, tally: &Tally, reactor: usize, now: Instant) {
    let figures = &port.core.figures;
    let (talk, info) = (&connection.talk, &connection.info);
    if tally.touched {
        port.core.mailboxes[reactor].touch(talk.session());
    }
    if tally.received > 0 {
        figures.packets_received.increment(tally.received as u64);
        info.received.fetch_add(tally.received as u64, Ordering::Relaxed);
    }
    if tally.answered > 0 {
        figures.packets_sent.increment(tally.answered as u64);
        info.sent.fetch_add(tally.answered as u64, Ordering::Relaxed);
    }
    if let Some(last) = tally.last {
        info.last_op.store(i64::from(last.op.code()), Ordering::Relaxed);
        info.last_zxid.store(last.zxid, Ordering::Relaxed);
        info.last_response.store(now.duration_since(port.opened).as_millis() as u64, Ordering::Relaxed);
    }
    if let Some(cxid) = tally.cxid {
        info.last_cxid.store(i64::from(cxid), Ordering::Relaxed);
    }
    if tally.reads > 0 {
        let ms = (now.elapsed().as_secs_f64() * 1000.0).floor();
        figures.latency.record_many(ms, tally.reads);
        figures.read_latency.record_many(ms, tally.reads);
        info.latency.record(ms as u64, tally.reads as u64);
    }
    if let Some(waited) = tally.waited {
        let ms = (waited.as_secs_f64() * 1000.0).floor();
        figures.latency.record(ms);
        figures.update_latency.record(ms);
        info.latency.record(ms as u64, 1);
    }
    if tally.auth_failed > 0 {
        figures.auth_failed.increment(tally.auth_failed);
    }
    let [skipped, passed, failed] = tally.ensemble;
    if skipped + passed + failed > 0 {
        figures.ensemble_auth_skipped.increment(skipped);
        figures.ensemble_auth_passed.increment(passed);
        figures.ensemble_auth_failed.increment(failed);
    }
    if let Some(refusal) = &tally.login_failed {
        port.refusals.say(Kind::Login, Level::WARN, now, || {
            format!("{} goes on as nobody: SASL: {refusal}", info.peer)
        });
    }
    info.outstanding.store(talk.unanswered() as u64, Ordering::Relaxed);
}

/// What a SASL challenge has to hold: 40 characters that nobody can guess.
fn nonce() -> Option<String> {
    let mut bytes = [0; 30];
    let filled = rustix::rand::getrandom(&mut bytes, GetRandomFlags::empty()).ok()?;
    (filled == bytes.len()).then(|| STANDARD.encode(bytes))
}

fn slot_of(conn: ConnId) -> usize {
    (conn.0 >> 32) as usize & 0xff_ffff
}

fn is_at(found: &Option<Connection>, conn: ConnId) -> bool {
    found.as_ref().is_some_and(|connection| connection.talk.id() == conn)
}
