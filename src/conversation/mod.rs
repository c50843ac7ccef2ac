//! One client's conversation as a value: bytes and mail in; answers, inputs for the core and an end out. The rules of order
//! live here: a session's requests are answered in the order in which they came, a read sees the session's own writes, and
//! the end of what a client says never overtakes what it said before.

#![cfg_attr(
    not(test),
    warn(
        missing_docs,
        unreachable_pub,
        clippy::allow_attributes_without_reason,
        clippy::cast_possible_truncation,
        clippy::wildcard_enum_match_arm
    )
)]

mod end;
pub mod frames;
mod limits;
mod login;
#[cfg(test)]
mod tests;

pub use end::{End, Weight};
pub use limits::{Limits, Logins};

use crate::jute::records::{Id, ReplyHeader, RequestHeader};
use crate::jute::{Reader, Source};
use crate::model::{Budget, ConnId, ErrorCode, Op, SessionId};
use crate::replica::{ClientMessage, CloseReason, Input};
use crate::request::{ReadContext, Reading, Request, Rules, auth, is_read, serve_read, write_reply};
use crate::sasl::{self, Login};
use crate::tree::Database;
use crate::wire::connect::Connect;
use crate::wire::quorum::id_len;
use bytes::{Buf, Bytes, BytesMut};
use frames::{Front, front};
use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

/// Bytes that wait for the client before no more of its requests are served; as many are added under one lock.
pub const HIGH_WATER: usize = 1 << 20;
/// Requests of one connection that may wait for the log.
const MAX_IN_FLIGHT: usize = 4096;
/// Bytes of such requests.
pub const MAX_HELD: usize = 8 << 20;
/// The xid of a ping's answer.
const PING_XID: i32 = -2;
/// Bytes beyond one whole frame that may lie in the input.
const READ_AHEAD: usize = 256 << 10;

/// What bounds a conversation at this moment.
#[derive(Clone, Copy)]
pub struct Bounds<'a> {
    /// What a client may ask for.
    pub limits: &'a Limits,
    /// Requests in flight in the whole server.
    pub outstanding: usize,
    /// Bytes of requests that the core has of this reactor's connections.
    pub admitted_bytes: usize,
    /// Bytes on their way to the log.
    pub unlogged_bytes: usize,
    /// Reads may be answered: see `Core::may_read`.
    pub may_read: bool,
    /// The disk has no room for new writes.
    pub refuses_writes: bool,
}

impl Bounds<'_> {
    /// Whoever has a request in flight has to wait for its answer.
    fn is_crowded(&self) -> bool {
        self.outstanding > self.limits.outstanding || self.is_full()
    }

    /// Nobody's writes are taken. Whatever its size, one is as long as little is under way.
    pub fn is_full(&self) -> bool {
        self.admitted_bytes > self.limits.admitted_bytes || self.unlogged_bytes > self.limits.unlogged_bytes
    }
}

/// What a conversation looks at while it works.
#[derive(Clone, Copy)]
pub struct World<'a> {
    /// The server's database. The driver has emptied its mailbox since it took the lock.
    pub db: &'a Database,
    /// What may still be done before the driver lets go of the lock.
    pub work: &'a Budget,
    /// What bounds the conversation.
    pub bounds: Bounds<'a>,
    /// How requests are checked.
    pub rules: &'a Rules,
    /// `None`: SASL login is off. Clients that try it get an empty answer and continue unauthenticated.
    pub logins: Option<&'a Logins>,
    /// Time since some moment of the driver's choice.
    pub now: Duration,
    /// Goes up whenever touches were collected: a session is reported once a round.
    pub touch_round: u32,
    /// Draws what a SASL challenge has to hold: characters that nobody can guess.
    pub nonce: fn() -> Option<String>,
}

/// What a call has done, for the driver to count and to pass on.
#[derive(Debug, Default)]
pub struct Tally {
    /// Frames that were taken from the input.
    pub received: usize,
    /// Answers and events that were added to the output.
    pub answered: usize,
    /// Reads among the answers.
    pub reads: usize,
    /// How long the request waited that the core has answered.
    pub waited: Option<Duration>,
    /// The last answer, as the word `cons` tells it.
    pub last: Option<Last>,
    /// The last xid that was answered, but for the negative ones of pings and the like.
    pub cxid: Option<i32>,
    /// A read waits for the lease: call [`Conversation::advance`] once reads may be answered.
    pub waits_for_lease: bool,
    /// The session was heard from, for the first time in this round of touches.
    pub touched: bool,
    /// Writes that were refused, as the disk has no room for them.
    pub no_room: u64,
    /// Attempts to authenticate that failed.
    pub auth_failed: u64,
    /// Checks of the ensemble's name: skipped, passed, failed.
    pub ensemble: [u64; 3],
    /// A login failed, and the client may continue unauthenticated.
    pub login_failed: Option<sasl::Refusal>,
}

/// What the driver must do before the conversation can continue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Nothing but to send the output, and to bring more bytes and mail.
    Wait,
    /// To answer this four-letter word by [`Conversation::answer_word`]. What came after it is in [`Conversation::unread`].
    Word([u8; 4]),
}

/// An answer to a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Last {
    /// What was asked for.
    pub op: Op,
    /// The zxid in the answer.
    pub zxid: i64,
}

impl Tally {
    fn answered(&mut self, xid: i32, op: Op, zxid: i64) {
        self.answered += 1;
        self.last = Some(Last { op, zxid });
        if xid >= 0 {
            self.cxid = Some(xid);
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum State {
    /// The first four bytes decide: a four-letter word or the length of a connect request.
    New,
    /// The core was asked for the session; no frame is taken meanwhile.
    Connecting {
        session: SessionId,
        last_zxid_seen: i64,
    },
    Open,
    /// What is in the output goes out, then the conversation is over. Nothing is taken any more.
    Ending(End),
}

/// A request that the core has.
#[derive(Debug)]
struct InFlight {
    /// When it was handed in.
    at: Duration,
    /// Its bytes.
    len: usize,
    op: Op,
}

/// A conversation with one client. It has no socket, no lock, no clock; a driver has those. Its methods are of four kinds:
///
/// - **What the client says**: [`Self::take`] for bytes, as long as [`Self::has_space`]; [`Self::hang_up`] once the end is
///   seen from afar; [`Self::end_of_input`] when it is reached.
/// - **What the core says**: [`Self::on_mail`] for each message of the mailbox, in its order.
/// - **Work**: [`Self::answer_pings`] after the client has said something; [`Self::advance`] after any of those, and once reads
///   may be answered again. All mail that is there comes first, under one lock of the database: no read may overtake an event.
/// - **What goes out**: [`Self::output`] is to be sent, [`Self::sent`] says how much of it was, [`Self::flushed`] that nothing
///   is left on the way. Then [`Self::over`] may say that, and how, the conversation ends.
#[derive(Debug)]
pub struct Conversation {
    id: ConnId,
    /// Where the client calls from.
    address: IpAddr,
    state: State,
    session: SessionId,
    timeout_ms: i32,
    auth: Arc<[Id<Bytes>]>,
    /// Bytes of these ids: each request that is handed in has them with it.
    auth_len: usize,
    login: Login,
    input: Vec<u8>,
    input_at: usize,
    output: BytesMut,
    /// Bytes of output beyond which no more requests are served.
    room: usize,
    /// Requests that the core has, oldest first.
    in_flight: VecDeque<InFlight>,
    /// Requests that came after one that has to wait for a write of this session, and that one.
    pending: VecDeque<Bytes>,
    /// The first of these, where it is a read that takes more work than one hold of the lock has room for.
    reading: Option<Box<Reading>>,
    /// A hold of the lock ended before all was done that could be.
    paused: bool,
    /// Bytes of all requests that wait here or in the core.
    held: usize,
    /// Bytes of those in the core.
    handed_in: usize,
    touched_in: u32,
    /// The last zxid that the client was told. What happened up to there was told before.
    told: i64,
    /// The client has gone, or half of it. What it said before may still come, and counts; no answer is owed.
    hung_up: bool,
    /// No answer leaves any more: one was left out, or could not be sent.
    muted: bool,
    /// Why nothing more is said. It comes in its turn: all that was said before is worked off first.
    ended: Option<End>,
    /// Why the conversation is over now, whatever is left.
    over: Option<End>,
}

impl Conversation {
    /// A client has connected from this address.
    pub fn new(id: ConnId, address: IpAddr) -> Self {
        let auth: Arc<[_]> = Arc::new([auth::ip_id(address)]);
        Self {
            id,
            address,
            state: State::New,
            session: SessionId::NONE,
            timeout_ms: 0,
            auth_len: auth.iter().map(id_len).sum(),
            auth,
            login: Login::default(),
            input: Vec::new(),
            input_at: 0,
            output: BytesMut::new(),
            room: HIGH_WATER,
            in_flight: VecDeque::new(),
            pending: VecDeque::new(),
            reading: None,
            paused: false,
            held: 0,
            handed_in: 0,
            touched_in: 0,
            told: 0,
            hung_up: false,
            muted: false,
            ended: None,
            over: None,
        }
    }

    // What it is.

    /// The connection's id.
    pub fn id(&self) -> ConnId {
        self.id
    }

    /// The session; none before it is open.
    pub fn session(&self) -> SessionId {
        self.session
    }

    /// What was negotiated, in milliseconds; 0 before the session is open.
    pub fn timeout_ms(&self) -> i32 {
        self.timeout_ms
    }

    /// The client has not said anything yet.
    pub fn is_fresh(&self) -> bool {
        self.state == State::New && self.input.is_empty()
    }

    /// No session was asked for and answered yet.
    pub fn is_opening(&self) -> bool {
        matches!(self.state, State::New | State::Connecting { .. })
    }

    /// Only the last answer is left to be sent.
    pub fn is_ending(&self) -> bool {
        matches!(self.state, State::Ending(_))
    }

    /// The core has heard of it, and has to hear of its end.
    pub fn is_known(&self) -> bool {
        self.session != SessionId::NONE || matches!(self.state, State::Connecting { .. })
    }

    /// Requests without an answer.
    pub fn unanswered(&self) -> usize {
        self.in_flight.len() + self.pending.len()
    }

    /// Bytes of requests that were read, and are neither answered nor handed in.
    pub fn unworked(&self) -> usize {
        self.input.len() - self.input_at + self.held - self.handed_in
    }

    /// How many these will be once the request that has begun to come is whole.
    pub fn expected(&self, limits: &Limits) -> usize {
        let rest = &self.input[self.input_at..];
        let announced = rest.first_chunk().and_then(|head| usize::try_from(i32::from_be_bytes(*head)).ok());
        let begun = announced.filter(|len| *len <= limits.max_frame).map_or(0, |len| 4 + len);
        self.unworked() + begun.saturating_sub(rest.len())
    }

    /// Bytes of the requests that the core has. All of them are answered, whatever the client takes.
    pub fn handed_in(&self) -> usize {
        self.handed_in
    }

    // What the client says.

    /// Whether more bytes may come. One frame may lie in the input while no request is taken; the rest waits outside.
    pub fn has_space(&self, bounds: Bounds<'_>) -> bool {
        let unread = self.input.len() - self.input_at;
        self.ended.is_none()
            && unread <= bounds.limits.max_frame + 4 + READ_AHEAD
            && (unread == 0 || self.takes_requests(bounds) && !self.waits_for_others(bounds))
    }

    /// The client has said this.
    pub fn take(&mut self, bytes: &[u8]) {
        self.input.extend_from_slice(bytes);
    }

    /// The end of what the client says has been seen, after bytes that are still to come.
    pub fn hang_up(&mut self) {
        self.hung_up = true;
    }

    /// Nothing more comes, for this reason. The conversation is over once all that came before is worked off.
    pub fn end_of_input(&mut self, why: End) {
        // The first reason stays.
        self.ended.get_or_insert(why);
        self.hung_up = true;
    }

    /// Whether the end of the input was reached.
    pub fn has_ended(&self) -> bool {
        self.ended.is_some()
    }

    /// The client has gone.
    pub fn is_hung_up(&self) -> bool {
        self.hung_up
    }

    /// Answers don't leave any more.
    pub fn is_muted(&self) -> bool {
        self.muted
    }

    // Work.

    /// Answers the pings at the front of the input, where no other answer comes before theirs. That needs no database:
    /// `seen` gives a zxid up to which all mail was given to [`Self::on_mail`]. So a ping never tells that the client knows what it
    /// was not told of yet. False: there was none.
    pub fn answer_pings(
        &mut self,
        mut seen: impl FnMut() -> i64,
        bounds: Bounds<'_>,
        touch_round: u32,
        tally: &mut Tally,
    ) -> bool {
        let before = tally.received;
        while bounds.may_read
            && self.takes_pending()
            && self.in_flight.is_empty()
            && self.pending.is_empty()
            && !self.muted
            && self.may_enter(bounds.limits)
            && let Front::Frame(len) = self.front(bounds)
        {
            let end = self.input_at + 4 + len;
            if op_of(&self.input[self.input_at + 4..end]) != Some(Op::Ping) {
                break;
            }
            self.input_at = end;
            self.touch(touch_round, tally);
            self.told = self.told.max(seen());
            write_reply(&mut self.output, PING_XID, self.told, Ok(|_: &mut BytesMut| ()));
            tally.received += 1;
            tally.reads += 1;
            tally.answered(PING_XID, Op::Ping, self.told);
        }
        let any = tally.received > before;
        if any {
            self.compact();
        }
        any
    }

    /// Nothing of what the client has said is left to be worked off, and it has not gone.
    pub fn is_quiet(&self) -> bool {
        self.input.is_empty() && self.pending.is_empty() && !self.hung_up && self.over.is_none()
    }

    /// Whether requests are taken from the input now.
    pub fn takes_requests(&self, bounds: Bounds<'_>) -> bool {
        let crowded = !self.in_flight.is_empty() && bounds.is_crowded();
        matches!(self.state, State::New | State::Open)
            && self.has_room()
            && self.in_flight.len() < MAX_IN_FLIGHT
            && self.pending.len() < MAX_IN_FLIGHT
            && self.held < MAX_HELD
            && !crowded
    }

    /// The next request is a write, whole or not, and others' have to be answered before it is taken. Nothing that comes here says
    /// when that is so: the driver has to look again. Reads and pings pass meanwhile, up to the first write.
    pub fn waits_for_others(&self, bounds: Bounds<'_>) -> bool {
        self.input.get(self.input_at + 4..).is_some_and(|front| self.is_kept_out(front, bounds))
    }

    fn is_kept_out(&self, frame: &[u8], bounds: Bounds<'_>) -> bool {
        self.state == State::Open
            && self.in_flight.is_empty()
            && bounds.is_full()
            && !bounds.refuses_writes
            && op_of(frame).is_some_and(brings_data)
    }

    /// Whether answers may be added to those that wait. A client that has gone holds nothing up.
    fn has_room(&self) -> bool {
        self.hung_up || self.output.len() < self.room
    }

    /// The client takes nothing although much waits for it. It may be one that writes all its requests before it reads: it
    /// gets more room, up to a bound. False: that is reached, and more requests are not served before it reads.
    pub fn widen(&mut self, limits: &Limits) -> bool {
        if !self.is_full(limits) {
            self.room = (2 * self.room).min(limits.room);
        }
        !self.is_full(limits)
    }

    /// More waits for the client than any may have waiting, but for events.
    pub fn is_full(&self, limits: &Limits) -> bool {
        self.output.len() >= limits.room
    }

    /// The client's requests wait until it takes what there is for it.
    pub fn is_held_up(&self) -> bool {
        !self.has_room()
    }

    /// Works off what was said as far as that may be, and as far as there is room for it under this hold of the lock.
    pub fn advance(&mut self, world: &World<'_>, inputs: &mut Vec<Input>, tally: &mut Tally) -> Step {
        let until = self.output.len() + HIGH_WATER;
        self.serve_pending(until, world, inputs, tally);
        let input = std::mem::take(&mut self.input);
        let mut step = Step::Wait;
        while self.over.is_none()
            && self.output.len() < until
            && !world.work.is_spent()
            && self.takes_requests(world.bounds)
        {
            let max_frame = world.bounds.limits.max_frame;
            let rest = &input[self.input_at..];
            let is_first = self.state == State::New;
            let len = match front(rest, is_first, max_frame) {
                Front::Incomplete => break,
                Front::Frame(len) => len,
                Front::Word(word) => {
                    step = Step::Word(word);
                    break;
                }
                Front::Refused(len) => {
                    self.input_at = input.len();
                    self.end_of_input(End::BadFrame { len, limit: max_frame, first: is_first });
                    break;
                }
            };
            let frame = &rest[4..4 + len];
            if self.is_kept_out(frame, world.bounds) {
                break;
            }
            self.input_at += 4 + len;
            tally.received += 1;
            if is_first {
                self.on_connect(frame, inputs);
            } else {
                self.on_frame(frame, world, inputs, tally);
            }
        }
        self.input = input;
        self.paused = world.work.is_spent();
        self.compact();
        step
    }

    /// Whether there is something to work on without a new event.
    pub fn has_work(&self, bounds: Bounds<'_>) -> bool {
        let whole = matches!(self.front(bounds), Front::Frame(_) | Front::Refused(_));
        let unblocked = self.paused || (self.in_flight.is_empty() && bounds.may_read);
        (whole && self.takes_requests(bounds) && !self.waits_for_others(bounds))
            || (unblocked && self.takes_pending() && !self.pending.is_empty())
    }

    /// Whether requests that waited may be answered or handed in.
    fn takes_pending(&self) -> bool {
        self.over.is_none() && self.state == State::Open && self.has_room()
    }

    fn front(&self, bounds: Bounds<'_>) -> Front {
        front(&self.input[self.input_at..], self.state == State::New, bounds.limits.max_frame)
    }

    /// Drops what was worked off; an idle connection keeps no buffer.
    fn compact(&mut self) {
        if self.input_at == self.input.len() {
            self.input_at = 0;
            if self.input.capacity() > 4096 && self.in_flight.is_empty() {
                self.input = Vec::new();
            } else {
                self.input.clear();
            }
        } else if self.input_at > READ_AHEAD {
            self.input.drain(..self.input_at);
            self.input_at = 0;
        }
    }

    /// What came after a four-letter word.
    pub fn unread(&self) -> &[u8] {
        self.input.get(self.input_at + 4..).unwrap_or_default()
    }

    /// Answers a four-letter word. Nothing else is said on its connection.
    pub fn answer_word(&mut self, text: &str) {
        self.output.extend_from_slice(text.as_bytes());
        self.state = State::Ending(End::Done);
    }

    fn on_connect(&mut self, frame: &[u8], inputs: &mut Vec<Input>) {
        match Connect::decode(frame) {
            Ok(connect) => {
                let Connect { session, last_zxid_seen, .. } = connect;
                self.state = State::Connecting { session, last_zxid_seen };
                inputs.push(Input::Connect { conn: self.id, connect });
            }
            Err(_) => self.over = Some(End::BadConnect),
        }
    }

    fn on_frame(&mut self, frame: &[u8], world: &World<'_>, inputs: &mut Vec<Input>, tally: &mut Tally) {
        self.touch(world.touch_round, tally);
        if !self.pending.is_empty() || !self.execute(frame, world, inputs, tally) {
            world.work.copied(frame.len());
            self.held += frame.len();
            self.pending.push_back(Bytes::copy_from_slice(frame));
        }
    }

    /// What the client has asked for waits for this server, and so does what it says after that: it is heard all the same.
    pub fn touch_waiting(&mut self, round: u32, tally: &mut Tally) {
        if self.state == State::Open && !self.hung_up {
            self.touch(round, tally);
        }
    }

    fn touch(&mut self, round: u32, tally: &mut Tally) {
        if self.touched_in != round {
            self.touched_in = round;
            tally.touched = true;
        }
    }

    fn serve_pending(&mut self, until: usize, world: &World<'_>, inputs: &mut Vec<Input>, tally: &mut Tally) {
        while self.takes_pending()
            && self.output.len() < until
            && !world.work.is_spent()
            && let Some(frame) = self.pending.pop_front()
        {
            if !self.execute(&frame, world, inputs, tally) {
                return self.pending.push_front(frame);
            }
            self.held -= frame.len();
        }
    }

    /// Answers a request or hands it in. False: it has to wait.
    fn execute(
        &mut self,
        frame: &[u8],
        world: &World<'_>,
        inputs: &mut Vec<Input>,
        tally: &mut Tally,
    ) -> bool {
        world.work.spend(1);
        let mut from = Reader::new(frame);
        let Ok(header) = RequestHeader::decode(&mut from) else {
            self.over = Some(End::BadRequest);
            return true;
        };
        let xid = header.xid;
        let body = &frame[frame.len() - from.remaining()..];
        match Op::from_code(header.op) {
            Some(Op::Auth) => {
                self.on_auth(body, xid, world, tally);
                true
            }
            Some(Op::Sasl) => {
                if self.waits_for_writes() {
                    return false;
                }
                self.on_sasl(body, xid, world, tally);
                true
            }
            Some(_) if !self.may_enter(world.bounds.limits) => {
                if self.waits_for_writes() {
                    return false;
                }
                self.refuse(xid, 0, ErrorCode::SessionClosedRequireSaslAuth, End::NotAuthenticated);
                true
            }
            Some(op) if is_read(op) => self.read(op, xid, body, world, tally),
            Some(op) if world.bounds.refuses_writes && brings_data(op) => {
                if self.waits_for_writes() {
                    return false;
                }
                self.told = world.db.last_zxid.0;
                let no_room = Err::<fn(&mut BytesMut), _>(ErrorCode::SystemError);
                write_reply(&mut self.output, xid, self.told, no_room);
                tally.answered(xid, op, self.told);
                tally.no_room += 1;
                true
            }
            Some(op) if brings_data(op) || matches!(op, Op::Sync | Op::CloseSession) => {
                let request = Request {
                    session: self.session,
                    cxid: xid,
                    op,
                    body: Bytes::copy_from_slice(body),
                    auth: self.auth.clone(),
                };
                world.work.copied(body.len());
                let len = body.len() + self.auth_len;
                self.held += len;
                self.handed_in += len;
                self.in_flight.push_back(InFlight { at: world.now, len, op });
                inputs.push(Input::Request { conn: self.id, request });
                true
            }
            // deleteContainer and createSession are the server's own; check is a part of multis only.
            _ => {
                if self.waits_for_writes() {
                    return false;
                }
                self.refuse(xid, -1, ErrorCode::Unimplemented, End::UnknownOperation(header.op));
                true
            }
        }
    }

    fn read(&mut self, op: Op, xid: i32, body: &[u8], world: &World<'_>, tally: &mut Tally) -> bool {
        let may_read = world.bounds.may_read;
        let is_next = self.in_flight.is_empty() && may_read && self.output.len() < self.room;
        if self.hung_up && (self.muted || !is_next) {
            // Nobody waits for the answer, and a read changes nothing.
            self.muted = true;
            self.reading = None;
            return true;
        }
        if self.waits_for_writes() {
            return false;
        }
        if !may_read {
            tally.waits_for_lease = true;
            return false;
        }
        // Java answers a ping with its own xid whatever the request's was.
        let xid = if op == Op::Ping { PING_XID } else { xid };
        let (conn, session, auth) = (self.id, self.session, &self.auth);
        let reader = ReadContext { conn, session, auth, rules: world.rules, work: world.work };
        if !serve_read(world.db, reader, xid, op, body, &mut self.reading, &mut self.output) {
            return false;
        }
        self.told = world.db.last_zxid.0;
        tally.answered(xid, op, self.told);
        tally.reads += 1;
        true
    }

    /// Whether an answer of now would overtake those to the session's own writes.
    fn waits_for_writes(&self) -> bool {
        !self.in_flight.is_empty() && !self.hung_up
    }

    /// Answers with an error, the last that is said.
    fn refuse(&mut self, xid: i32, zxid: i64, code: ErrorCode, why: End) {
        write_reply(&mut self.output, xid, zxid, Err::<fn(&mut BytesMut), _>(code));
        self.state = State::Ending(why);
    }

    // What the core says.

    /// A message of the core with the bytes for the client. [`Self::advance`] must be called afterwards.
    pub fn on_mail(&mut self, message: ClientMessage, bytes: &[u8], world: &World<'_>, tally: &mut Tally) {
        if self.is_ending() {
            return;
        }
        if !self.muted {
            self.output.extend_from_slice(bytes);
        }
        match message {
            ClientMessage::Established { session, timeout_ms } => {
                self.state = State::Open;
                self.session = session;
                self.timeout_ms = timeout_ms.max(0);
                // It may have been told as much on another connection.
                self.told = world.db.last_zxid.0;
                tally.answered(0, Op::CreateSession, self.told);
            }
            ClientMessage::Reply => self.on_reply(bytes, world.now, tally),
            ClientMessage::LastReply => {
                self.on_reply(bytes, world.now, tally);
                self.state = State::Ending(End::Done);
            }
            ClientMessage::Event => tally.answered += 1,
            ClientMessage::Close(reason) => self.state = State::Ending(self.closed(reason, world.db)),
        }
    }

    fn on_reply(&mut self, bytes: &[u8], now: Duration, tally: &mut Tally) {
        let Some(InFlight { at, len, op }) = self.in_flight.pop_front() else { return };
        self.held -= len;
        self.handed_in -= len;
        tally.waited = Some(now.saturating_sub(at));
        if let Some(header) =
            bytes.get(4..).and_then(|reply| ReplyHeader::decode(&mut Reader::new(reply)).ok())
        {
            self.told = self.told.max(header.zxid);
            tally.answered(header.xid, op, header.zxid);
        }
    }

    /// Why the core ends the conversation, with what is known of it here.
    fn closed(&self, reason: CloseReason, db: &Database) -> End {
        let (asked, seen) = match self.state {
            State::Connecting { session, last_zxid_seen } => (session, last_zxid_seen),
            State::New | State::Open | State::Ending(_) => (self.session, 0),
        };
        match reason {
            CloseReason::InvalidSession => End::NoSuchSession(asked),
            CloseReason::WrongPassword => End::WrongPassword(asked),
            CloseReason::ClientIsAhead => End::ClientIsAhead { seen, here: db.last_zxid.0 },
            CloseReason::SessionTakenOver => End::SessionTakenOver,
            CloseReason::SessionEnded => End::SessionEnded { timeout_ms: self.timeout_ms },
            CloseReason::SessionMoved => End::SessionMoved,
            CloseReason::NotServing => End::NotServing,
            CloseReason::NoRoom => End::NoRoom,
        }
    }

    // What goes out.

    /// What is to be sent.
    pub fn output(&self) -> &[u8] {
        if self.muted { &[] } else { &self.output }
    }

    /// Bytes that wait for the client, or will.
    pub fn waiting(&self) -> usize {
        self.output().len() + self.reading.as_ref().map_or(0, |reading| reading.kept())
    }

    /// This much of the output was sent.
    pub fn sent(&mut self, count: usize) {
        if self.muted || count == self.output.len() {
            self.room = HIGH_WATER;
            // An idle connection keeps no large buffer.
            if self.output.capacity() > 1 << 18 {
                self.output = BytesMut::new();
            } else {
                self.output.clear();
            }
        } else {
            self.output.advance(count);
        }
    }

    /// All output has left. With the last answer, the conversation is over.
    pub fn flushed(&mut self) {
        if self.over.is_none()
            && let State::Ending(why) = &self.state
        {
            self.over = Some(why.clone());
        }
    }

    /// The client takes nothing any more. What it said before it went still counts.
    pub fn on_write_failed(&mut self, why: End) {
        self.output.clear();
        self.muted = true;
        self.hung_up = true;
        if self.is_ending() {
            self.over = Some(why);
        }
    }

    /// Ends the conversation now, whatever is left.
    pub fn cut(&mut self, why: End) {
        self.over.get_or_insert(why);
    }

    /// How the conversation has ended, if it has. One with a client that has gone ends once all that it had said is handed in;
    /// no answer is waited for.
    pub fn over(&mut self, bounds: Bounds<'_>) -> Option<&End> {
        if self.over.is_none()
            && self.ended.is_some()
            && !self.is_ending()
            && self.pending.is_empty()
            && !matches!(self.front(bounds), Front::Frame(_))
        {
            self.over = self.ended.take();
        }
        self.over.as_ref()
    }
}

fn op_of(frame: &[u8]) -> Option<Op> {
    Op::from_code(RequestHeader::decode(&mut Reader::new(frame)).ok()?.op)
}

/// Whether a request is a write that may be large. `sync` and closeSession are not: they make room.
fn brings_data(op: Op) -> bool {
    matches!(
        op,
        Op::Create
            | Op::Create2
            | Op::CreateContainer
            | Op::CreateTtl
            | Op::Delete
            | Op::SetData
            | Op::SetAcl
            | Op::Multi
            | Op::Reconfig
    )
}
