//! One reactor: a thread with its own poll and its own connections.

use super::connection::{Connection, FEW};
use super::refusals::Kind;
use super::stream::Stream;
use super::{Arrival, ClientPort, ConnInfo, Door, four_letter};
use crate::conversation::{Bounds, End, Step, Tally, Weight, World};
use crate::core::{Core, Mail};
use crate::model::{Budget, ConnId, SessionId};
use crate::replica::{ClientMessage, ClientOutput, Input};
use crate::tree::{Database, Departed};
use base64::{Engine, engine::general_purpose::STANDARD};
use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token, Waker};
use parking_lot::RwLockReadGuard;
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
/// Work, and then writing to sockets, ends after so long: what has come meanwhile is looked at, and pings in it are answered,
/// before the rest has its turn.
const SHARE: Duration = Duration::from_millis(3);
/// The database is waited for no longer than this: one transaction may take long, and pings need none of it.
const PATIENCE: Duration = Duration::from_millis(5);
/// Steps that it takes to give a connection a message.
const STEPS_OF_MESSAGE: usize = 3;
/// Bytes that are read of a connection before it is known what they are.
const FIRST_LOOK: usize = 64 << 10;
/// Bytes taken from one socket before the others have their turn.
const READ_SHARE: usize = 256 << 10;
/// Bytes written to one socket before the others have their turn.
const WRITE_SHARE: usize = 256 << 10;
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
    /// What was taken out of the mailbox and not given to its connections yet.
    mail: Mail,
    /// All events and replies up to this zxid were given to their connections.
    seen: i64,
    /// Slots with bytes to read that were not looked at yet.
    arrived: Line,
    /// Slots with bytes to read or to work on.
    ready: Line,
    /// Slots that got mail and have not worked since.
    touched: Line,
    /// Slots with bytes to write.
    dirty: Line,
    scratch: Vec<u8>,
    /// Connections that are gone, and what they watched is not looked up yet.
    leaving: Vec<ConnId>,
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
    /// The round of touches in which they were last reported.
    touched_in: u32,
    /// Slots of which nothing more is read until there is room for their large requests.
    hungry: Vec<usize>,
    /// What all had when there was none. Less of that may mean that there is some.
    full_at: usize,
    /// Bytes of answers that were made and have not been offered to the sockets.
    made: usize,
    /// Reads wait until this server has heard of its leader, or its quorum, again.
    waits_for_lease: bool,
    /// The database was not to be had in this turn: it is not waited for again.
    is_locked_out: bool,
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
        seen: 0,
        arrived: Line::default(),
        ready: Line::default(),
        touched: Line::default(),
        dirty: Line::default(),
        scratch: vec![0; FIRST_LOOK],
        leaving: Vec::new(),
        departed: VecDeque::new(),
        accept_at: None,
        handed_in: 0,
        waiting: VecDeque::new(),
        next: None,
        touched_in: 0,
        hungry: Vec::new(),
        full_at: 0,
        made: 0,
        waits_for_lease: false,
        is_locked_out: false,
    };
    reactor.run()
}

impl Reactor {
    fn run(&mut self) -> io::Result<()> {
        let mut events = Events::with_capacity(1024);
        let mut housekeeping = Instant::now() + HOUSEKEEPING;
        while !self.port.core.is_stopping() {
            let timeout = if self.has_work() || self.port.core.mailboxes[self.index].has_mail() {
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
                            self.arrived.push(slot);
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

    /// Whether there is something to do without a new event.
    fn has_work(&self) -> bool {
        let lines = [&self.arrived, &self.ready, &self.touched, &self.dirty];
        lines.into_iter().any(|line| !line.is_empty())
            || !self.mail.is_empty()
            || !self.inputs.is_empty()
            || !self.leaving.is_empty()
            || !self.departed.is_empty()
            || self.may_go_on()
    }

    /// Answers pings, reads, answers, hands in, writes: a share of each.
    fn turn(&mut self, now: Instant) {
        let port = self.port.clone();
        if self.waits_for_lease && port.core.may_read() {
            self.waits_for_lease = false;
            (0..self.slots.len()).for_each(|slot| self.ready.push(slot));
        }
        self.is_locked_out = false;
        let until = Instant::now() + SHARE;
        // A ping tells what is new as far as events of that have left: those that wait go before it.
        if !self.arrived.is_empty() && (!self.mail.is_empty() || port.core.mailboxes[self.index].has_mail()) {
            self.work(None, true, now, until);
        }
        self.look_at_arrived(now);
        self.is_locked_out = false;
        let until = Instant::now() + SHARE;
        self.work_ready(now, until);
        self.work_waiting(now, until);
        if self.waits_for_lease {
            // Time may have passed unnoticed: the core finds out what that means.
            self.inputs.push(Input::Tick);
        }
        port.core.submit(&mut self.inputs, Some(self.index));
        if port.core.mailboxes[self.index].has_mail() {
            self.work(None, false, now, until);
        }
        self.work_waiting(now, until);
        self.touch_waiting(now);
        self.flush(now, Some(Instant::now() + SHARE));
        self.forget_watches();
        port.core.mailboxes[self.index].wait_for_room(!self.waiting.is_empty());
    }

    /// Takes a first look at what has come. Pings are answered here: they wait for nobody's work, and for no lock but a moment.
    fn look_at_arrived(&mut self, now: Instant) {
        let port = self.port.clone();
        let round = port.core.touches.round();
        let mut share = Share::until(Instant::now() + SHARE);
        while let Some(slot) = self.arrived.pop() {
            let bounds = self.bounds(&port, slot);
            let Some(Some(connection)) = self.slots.get_mut(slot) else { continue };
            connection.fill(&mut self.scratch, FIRST_LOOK, &port, bounds, now);
            let mut tally = Tally::default();
            // As new as it can be known where no mail waits, and nobody is at work in the database for longer.
            let (seen, mail, core) = (&mut self.seen, &self.mail, &port.core);
            let is_locked_out = &mut self.is_locked_out;
            let newest = || {
                if mail.is_empty() {
                    let db = reach(core, is_locked_out);
                    let no_mail = !core.mailboxes[self.index].has_mail();
                    *seen = db.filter(|_| no_mail).map_or(*seen, |db| db.last_zxid.0);
                }
                *seen
            };
            let pinged = connection.talk.answer_pings(newest, bounds, round, &mut tally);
            if pinged {
                connection.on_request(now);
                count(&port, connection, &tally, self.index, now);
                if !connection.flush(WRITE_SHARE, now) {
                    self.dirty.push(slot);
                }
            }
            if !pinged || !connection.is_quiet() {
                self.ready.push(slot);
            }
            if share.is_over() {
                return;
            }
        }
    }

    fn work_ready(&mut self, now: Instant, until: Instant) {
        let port = self.port.clone();
        let mut share = Share::until(until);
        // A wake-up is answered by taking the mail, also where it is there no more.
        let mut take = true;
        loop {
            let slot = self.ready.pop();
            if let Some(slot) = slot {
                let bounds = self.bounds(&port, slot);
                if let Some(Some(connection)) = self.slots.get_mut(slot)
                    && connection.has_more_to_read()
                {
                    connection.fill(&mut self.scratch, READ_SHARE, &port, bounds, now);
                }
            }
            if !self.work(slot, take, now, until) {
                slot.into_iter().for_each(|slot| self.ready.push(slot));
            }
            take = false;
            if self.ready.is_empty() || share.is_over() {
                return;
            }
        }
    }

    /// Forgets a share of what connections watched that are gone: one may have left a million.
    fn forget_watches(&mut self) {
        if self.leaving.is_empty() && self.departed.is_empty() {
            return;
        }
        let port = self.port.clone();
        let Some(db) = self.database(&port) else { return };
        let mut watches = db.watches.lock();
        self.departed.extend(self.leaving.drain(..).filter_map(|id| watches.depart(id)));
        let mut room = WATCHES_AT_ONCE;
        while let Some(departed) = self.departed.front_mut() {
            room -= watches.forget(departed, room);
            if room == 0 {
                return;
            }
            self.departed.pop_front();
        }
    }

    /// Sessions whose writes wait here live on, as their pings wait behind these.
    fn touch_waiting(&mut self, now: Instant) {
        let port = self.port.clone();
        let round = port.core.touches.round();
        if std::mem::replace(&mut self.touched_in, round) == round {
            return;
        }
        for slot in self.waiting.iter().chain(&self.hungry) {
            if let Some(Some(connection)) = self.slots.get_mut(*slot) {
                let mut tally = Tally::default();
                connection.talk.touch_waiting(round, &mut tally);
                count(&port, connection, &tally, self.index, now);
            }
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
    fn work_waiting(&mut self, now: Instant, until: Instant) {
        for _ in 0..self.waiting.len() {
            if !self.may_go_on() {
                return;
            }
            let Some(slot) = self.waiting.pop_front() else { return };
            let Some(Some(connection)) = self.slots.get_mut(slot) else { continue };
            connection.waits = false;
            self.next = Some(slot);
            let has_worked = self.work(Some(slot), false, now, until);
            self.next = None;
            if !has_worked {
                self.wait(slot, true);
            }
            if Instant::now() >= until {
                return;
            }
        }
    }

    /// The slot's writes wait until less is under way, `before` those of others or after them.
    fn wait(&mut self, slot: usize, before: bool) {
        let Some(Some(connection)) = self.slots.get_mut(slot) else { return };
        connection.waits = true;
        if before {
            self.waiting.push_front(slot);
        } else {
            self.waiting.push_back(slot);
        }
    }

    /// Empties the mailbox, then works off the input of those that got mail, and of `slot`; each time under the read lock, in this
    /// order, so that no read overtakes an event (see `core`). False: `slot` had no turn.
    fn work(&mut self, mut slot: Option<usize>, mut take: bool, now: Instant, until: Instant) -> bool {
        let port = self.port.clone();
        let mut is_late = false;
        loop {
            if self.made > ANSWERS_AT_ONCE {
                self.flush(now, None);
            }
            // The lock is let go of between connections, and when a share of work is done: the core never waits for long.
            let Some(db) = self.database(&port) else { return slot.is_none() };
            let work = Budget::default();
            let has_all = self.take_mail(&port, &mut take, &db, &work, now);
            while has_all
                && !work.is_spent()
                && let Some(slot) = self.next_of(&mut slot, is_late)
            {
                let bounds = self.bounds(&port, slot);
                self.advance(slot, &port, &world(&port, bounds, &db, &work, now), now);
                if work.is_spent() {
                    self.bound_watches(slot..slot + 1, &db);
                }
            }
            drop(db);
            if is_late || has_all && self.touched.is_empty() && slot.is_none() {
                return slot.is_none();
            }
            is_late = Instant::now() >= until;
        }
    }

    /// Those with mail come before `slot`. However many they are, in the last hold they come after it.
    fn next_of(&mut self, slot: &mut Option<usize>, is_late: bool) -> Option<usize> {
        if is_late && let Some(slot) = slot.take() {
            return Some(slot);
        }
        self.touched.pop().or_else(|| slot.take())
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

    fn database<'a>(&mut self, port: &'a ClientPort) -> Option<RwLockReadGuard<'a, Database>> {
        reach(&port.core, &mut self.is_locked_out)
    }

    /// Gives the connections their mail, as far as there is room for that under this hold of the lock. Those that got some are in
    /// `touched`, to go on with what they have. False: there is more, and nobody may read meanwhile.
    fn take_mail(
        &mut self,
        port: &ClientPort,
        take: &mut bool,
        db: &Database,
        work: &Budget,
        now: Instant,
    ) -> bool {
        let mailbox = &port.core.mailboxes[self.index];
        loop {
            if self.mail.is_empty() && (std::mem::take(take) || mailbox.has_mail()) {
                mailbox.take(&mut self.mail);
            }
            if self.mail.is_empty() {
                self.seen = db.last_zxid.0;
                return true;
            }
            let world = world(port, port.bounds(self.handed_in), db, work, now);
            let mut mail = std::mem::take(&mut self.mail);
            while !work.is_spent()
                && let Some((message, bytes)) = mail.pop()
            {
                work.spend(STEPS_OF_MESSAGE);
                work.copied(bytes.len());
                self.give(message, bytes, &world, now);
            }
            self.mail = mail;
            if work.is_spent() {
                return false;
            }
        }
    }

    fn give(&mut self, message: ClientOutput, bytes: &[u8], world: &World<'_>, now: Instant) {
        let ClientOutput { conn, message, .. } = message;
        let slot = slot_of(conn);
        let Some(Some(connection)) = self.slots.get_mut(slot).filter(|found| is_at(found, conn)) else {
            // It is gone. A session that was opened for it stays without a connection.
            if let ClientMessage::Established { session, .. } = message {
                self.inputs.push(Input::Disconnected { conn, session });
            }
            return;
        };
        let mut tally = Tally::default();
        connection.talk.on_mail(message, bytes, world, &mut tally);
        connection.on_message(&message, now);
        count(&self.port, connection, &tally, self.index, now);
        self.touched.push(slot);
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

    /// Offers the sockets what there is for them: all, or a share that ends at `until`.
    fn flush(&mut self, now: Instant, until: Option<Instant>) {
        let port = self.port.clone();
        let mut share = until.map(Share::until);
        self.made = 0;
        while let Some(slot) = self.dirty.pop() {
            let bounds = self.bounds(&port, slot);
            let Some(Some(connection)) = self.slots.get_mut(slot) else { continue };
            connection.flush(WRITE_SHARE, now);
            connection.count_in(&port.core.account, &port.limits);
            if connection.has_more_to_write() {
                self.dirty.push(slot);
            }
            if let Some(why) = connection.talk.over(bounds).cloned() {
                self.remove(slot, &why, now);
            } else if connection.has_work(bounds) {
                self.ready.push(slot);
            } else if !connection.waits && connection.talk.waits_for_others(bounds) {
                self.wait(slot, false);
            } else if connection.hungry {
                self.hungry.push(slot);
            }
            if share.as_mut().is_some_and(Share::is_over) {
                break;
            }
        }
        self.relieve(now);
        self.feed_hungry();
    }

    /// Reads on where there was no room for a large request, once all connections together have less.
    fn feed_hungry(&mut self) {
        let read = self.port.core.account.read.load(Ordering::Relaxed);
        if read < self.full_at {
            self.hungry.drain(..).for_each(|slot| self.ready.push(slot));
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
        self.hungry.drain(..).for_each(|slot| self.ready.push(slot));
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
        self.arrived.push(slot);
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
        self.leaving.push(talk.id());
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
                self.port.core.touches.add(self.index, connection.talk.session());
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
        let port = self.port.clone();
        if let Some(db) = self.database(&port) {
            self.bound_watches(0..self.slots.len(), &db);
        }
        self.end_unfinished(now);
        self.widen(now);
        self.relieve(now);
        port.refusals.summarize(now);
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
                left |= !connection.flush(usize::MAX, now) && connection.talk.over(bounds).is_none();
            }
            if !left || now >= deadline || self.poll.poll(&mut events, Some(deadline - now)).is_err() {
                return;
            }
        }
    }
}

/// A share of a turn, for connections one after the other. The clock is looked at after several of them: none takes long.
struct Share {
    until: Instant,
    done: u32,
}

impl Share {
    fn until(until: Instant) -> Self {
        Self { until, done: 0 }
    }

    /// One more is done.
    fn is_over(&mut self) -> bool {
        self.done += 1;
        self.done.is_multiple_of(8) && Instant::now() >= self.until
    }
}

/// Slots in the order in which they came, each of them once.
#[derive(Default)]
struct Line {
    slots: VecDeque<usize>,
    is_in: Vec<bool>,
}

impl Line {
    fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    fn push(&mut self, slot: usize) {
        if slot >= self.is_in.len() {
            self.is_in.resize(slot + 1, false);
        }
        if !std::mem::replace(&mut self.is_in[slot], true) {
            self.slots.push_back(slot);
        }
    }

    fn pop(&mut self) -> Option<usize> {
        let slot = self.slots.pop_front()?;
        self.is_in[slot] = false;
        Some(slot)
    }
}

/// The database, unless it was not to be had before in this turn.
fn reach<'a>(core: &'a Core, is_locked_out: &mut bool) -> Option<RwLockReadGuard<'a, Database>> {
    let db = if *is_locked_out { None } else { core.db.try_read_for(PATIENCE) };
    *is_locked_out = db.is_none();
    db
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
        touch_round: port.core.touches.round(),
        nonce,
    }
}

/// Passes on what one call has done, and puts it into the figures, once for all its requests.
fn count(port: &ClientPort, connection: &mut Connection, tally: &Tally, reactor: usize, now: Instant) {
    let figures = &port.core.figures;
    let (talk, info) = (&connection.talk, &connection.info);
    if tally.touched {
        port.core.touches.add(reactor, talk.session());
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
    if tally.no_room > 0 {
        port.core.account.refused_writes.fetch_add(tally.no_room, Ordering::Relaxed);
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
