//! One client connection: from bytes to frames to answers, in the order of its requests.

use super::frames::{Front, front};
use super::stream::{Filled, Stream};
use super::{ClientPort, ConnInfo, four_letter};
use crate::core::Descriptor;
use crate::jute::records::{AuthPacket, Id, ReplyHeader, RequestHeader, SaslRequest, SaslResponse};
use crate::jute::{Reader, Source};
use crate::model::{ConnId, ErrorCode, Op, SessionId};
use crate::replica::{ClientMessage, Input};
use crate::request::auth::EnsembleCheck;
use crate::request::{ReadContext, Request, auth, is_read, serve_read, write_frame, write_reply};
use crate::sasl::{self, Answer, Login};
use crate::tls;
use crate::tree::Database;
use crate::wire::connect::Connect;
use crate::wire::quorum::id_len;
use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::{Bytes, BytesMut};
use mio::net::TcpStream;
use rustix::rand::GetRandomFlags;
use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// Bytes that wait for a slow reader before no more of its requests are served.
const HIGH_WATER: usize = 1 << 20;
/// Bytes that wait for a slow reader before it is cut off: events arrive without being asked for.
const OVERFLOW: usize = 64 << 20;
/// Requests of one connection that may wait for the log.
const MAX_IN_FLIGHT: usize = 4096;
/// Bytes of such requests.
const MAX_HELD: usize = 8 << 20;
/// Bytes taken from one socket before the others have their turn.
const READ_SHARE: usize = 256 << 10;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// The first four bytes decide: a four-letter word or the length of a connect request.
    New,
    /// The core was asked for the session; nothing is read meanwhile.
    Connecting,
    Open,
    /// What is in the output goes out, then the end. Nothing is read any more.
    Ending,
}

pub(super) struct Connection {
    pub id: ConnId,
    stream: Stream,
    _descriptor: Descriptor,
    pub info: Arc<ConnInfo>,
    state: State,
    pub session: SessionId,
    timeout: Duration,
    auth: Arc<[Id<Bytes>]>,
    /// Bytes of these ids: each request that is handed in has them with it.
    auth_len: usize,
    login: Login,
    input: Vec<u8>,
    input_at: usize,
    pub output: BytesMut,
    /// When the requests in flight were handed in, oldest first, and their bytes.
    in_flight: VecDeque<(Instant, usize)>,
    /// Requests behind one that has to wait for a write of this session.
    pending: VecDeque<Bytes>,
    /// Bytes of all requests that wait here or in the core.
    held: usize,
    opened: Instant,
    pub last_heard: Instant,
    /// When the peer last took bytes, while there are some for it.
    pub last_drained: Instant,
    touch_round: u32,
    /// The socket may hold more bytes than were read.
    pub more_to_read: bool,
    /// The client has gone, or half of it. What it said before may still be in the socket, and counts; nobody has to be
    /// answered any more.
    hung_up: bool,
    /// No answer leaves any more: one was left out, or could not be sent.
    muted: bool,
    /// Why nothing more is read. It comes in its turn: all that was said before is worked off first.
    ended: Option<&'static str>,
    /// Why the connection goes now, whatever is left.
    pub broken: Option<&'static str>,
}

/// What a connection needs while it works on its input.
pub(super) struct Context<'a> {
    pub port: &'a ClientPort,
    pub db: &'a Database,
    pub inputs: &'a mut Vec<Input>,
    pub now: Instant,
    pub reactor: usize,
    pub answered: usize,
    pub received: usize,
    pub reads: usize,
    /// Reads may be answered: see `Core::may_read`.
    pub may_read: bool,
    /// A read had to wait for that.
    pub waits_for_lease: bool,
}

impl Connection {
    pub fn new(
        id: ConnId,
        stream: Stream,
        info: Arc<ConnInfo>,
        descriptor: Descriptor,
        now: Instant,
    ) -> Self {
        let address = info.peer.ip();
        let auth: Arc<[_]> = Arc::new([auth::ip_id(address)]);
        Self {
            id,
            stream,
            _descriptor: descriptor,
            info,
            state: State::New,
            session: SessionId::NONE,
            timeout: Duration::ZERO,
            auth_len: auth.iter().map(id_len).sum(),
            auth,
            login: Login::default(),
            input: Vec::new(),
            input_at: 0,
            output: BytesMut::new(),
            in_flight: VecDeque::new(),
            pending: VecDeque::new(),
            held: 0,
            opened: now,
            last_heard: now,
            last_drained: now,
            touch_round: 0,
            more_to_read: false,
            hung_up: false,
            muted: false,
            ended: None,
            broken: None,
        }
    }

    pub fn socket(&mut self) -> &mut TcpStream {
        self.stream.socket()
    }

    /// Whether the core has heard of it.
    pub fn is_known(&self) -> bool {
        self.session != SessionId::NONE || self.state == State::Connecting
    }

    /// Whether requests are taken from the input now.
    fn takes_requests(&self, port: &ClientPort) -> bool {
        let crowded = !self.in_flight.is_empty() && port.core.outstanding() > port.limits.outstanding;
        matches!(self.state, State::New | State::Open)
            && self.has_room()
            && self.in_flight.len() < MAX_IN_FLIGHT
            && self.pending.len() < MAX_IN_FLIGHT
            && self.held < MAX_HELD
            && !crowded
    }

    /// Whether answers may be added to those that wait. Who has gone holds nothing up.
    fn has_room(&self) -> bool {
        self.hung_up || self.output.len() < HIGH_WATER
    }

    /// The poll has seen the end of what the client says, behind what is still in the socket.
    pub fn on_hang_up(&mut self) {
        self.hung_up = true;
    }

    /// Nothing more comes. [`Self::end_if_done`] lets go of the connection.
    fn end(&mut self, why: &'static str) {
        self.ended = Some(why);
        self.hung_up = true;
        self.more_to_read = false;
    }

    /// Reads what the socket holds, up to its share.
    pub fn fill(&mut self, scratch: &mut [u8], port: &ClientPort, now: Instant) {
        if self.ended.is_some() {
            return;
        }
        self.more_to_read = true;
        let mut share = READ_SHARE;
        while share > 0 {
            // One frame may stand in the input while no request is taken; the rest stays in the socket.
            let room = port.limits.max_frame + 4 + READ_SHARE;
            if self.input.len() - self.input_at > room
                || (!self.takes_requests(port) && self.input.len() > self.input_at)
            {
                return;
            }
            match self.stream.read(scratch) {
                Ok(Filled { count: 0, .. }) => return self.end("the client closed the connection"),
                Ok(Filled { count, drained }) => {
                    if self.state == State::New && self.input.is_empty() && !self.take_certificate(port) {
                        return;
                    }
                    self.last_heard = now;
                    self.input.extend_from_slice(&scratch[..count]);
                    share = share.saturating_sub(count);
                    // The end makes no new event where it was seen already.
                    if drained && !self.hung_up {
                        self.more_to_read = false;
                        return;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock && self.muted => {
                    return self.end("writing failed");
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.more_to_read = false;
                    return;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    self.end("reading failed");
                    if error.kind() == io::ErrorKind::InvalidData {
                        self.on_tls_error(&error, port);
                    }
                    return;
                }
            }
        }
    }

    /// Who the client is by its certificate, if it has shown one. False: that can't be said.
    fn take_certificate(&mut self, port: &ClientPort) -> bool {
        let (Some(scheme), Some(certificate)) = (&port.rules.x509, self.stream.certificate()) else {
            return true;
        };
        let Some(subject) = tls::subject_of(certificate) else {
            self.broken = Some("a certificate whose subject can't be read");
            return false;
        };
        tracing::debug!("{}: is {subject}", self.info.peer);
        let is_known = self.add_ids(auth::x509_ids(subject, scheme), port);
        if !is_known {
            self.broken = Some("a certificate with a subject that is too long");
        }
        is_known
    }

    fn on_tls_error(&mut self, error: &io::Error, port: &ClientPort) {
        tracing::warn!("{}: TLS: {error}", self.info.peer);
        if self.stream.is_handshaking() {
            self.broken = Some("the TLS handshake failed");
            port.core.figures.auth_failed.increment(1);
            port.core.figures.unsuccessful_handshakes.increment(1);
        }
    }

    /// Works off the input as far as possible.
    pub fn advance(&mut self, cx: &mut Context<'_>) {
        self.serve_pending(cx);
        let input = std::mem::take(&mut self.input);
        while self.broken.is_none() && self.takes_requests(cx.port) {
            let rest = &input[self.input_at..];
            let len = match front(rest, self.state == State::New, cx.port.limits.max_frame) {
                Front::Incomplete => break,
                Front::Frame(len) => len,
                Front::Word(word) => {
                    self.on_word(&word, &rest[4..], cx);
                    break;
                }
                Front::Refused(_) => {
                    self.input_at = input.len();
                    self.end("a frame of a length that is not allowed");
                    break;
                }
            };
            let frame = &rest[4..4 + len];
            self.input_at += 4 + len;
            cx.received += 1;
            match self.state {
                State::New => self.on_connect(frame, cx),
                State::Open => self.on_frame(frame, cx),
                State::Connecting | State::Ending => {}
            }
        }
        self.input = input;
        self.compact();
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
        } else if self.input_at > READ_SHARE {
            self.input.drain(..self.input_at);
            self.input_at = 0;
        }
    }

    fn on_word(&mut self, word: &[u8; 4], behind: &[u8], cx: &mut Context<'_>) {
        // Only where the word is taken is there a mask to wait for.
        if word == b"stmk" && behind.len() < 8 && (cx.port.facts.allowed)("stmk") {
            return;
        }
        let text = four_letter::answer(word, behind, cx.port, cx.db);
        self.output.extend_from_slice(text.as_bytes());
        self.state = State::Ending;
    }

    fn on_connect(&mut self, frame: &[u8], cx: &mut Context<'_>) {
        match Connect::decode(frame) {
            Ok(connect) => {
                self.state = State::Connecting;
                cx.inputs.push(Input::Connect { conn: self.id, connect });
            }
            Err(_) => self.broken = Some("a connect request that does not decode"),
        }
    }

    fn on_frame(&mut self, frame: &[u8], cx: &mut Context<'_>) {
        self.touch(cx);
        if !self.pending.is_empty() || !self.execute(frame, cx) {
            self.held += frame.len();
            self.pending.push_back(Bytes::copy_from_slice(frame));
        }
    }

    fn serve_pending(&mut self, cx: &mut Context<'_>) {
        while self.broken.is_none()
            && self.state == State::Open
            && self.has_room()
            && let Some(frame) = self.pending.pop_front()
        {
            if !self.execute(&frame, cx) {
                return self.pending.push_front(frame);
            }
            self.held -= frame.len();
        }
    }

    /// Reports the session as alive, once per round of the timer.
    fn touch(&mut self, cx: &Context<'_>) {
        let round = cx.port.core.touch_round.load(Ordering::Relaxed);
        if self.touch_round != round {
            self.touch_round = round;
            cx.port.core.mailboxes[cx.reactor].touch(self.session);
        }
    }

    /// Answers a request or hands it in. False: it has to wait for the session's own writes.
    fn execute(&mut self, frame: &[u8], cx: &mut Context<'_>) -> bool {
        let mut from = Reader::new(frame);
        let Ok(header) = RequestHeader::decode(&mut from) else {
            self.broken = Some("a request without a header");
            return true;
        };
        let body = &frame[frame.len() - from.remaining()..];
        let op = Op::from_code(header.op);
        self.info.last_cxid.store(i64::from(header.xid), Ordering::Relaxed);
        self.info.last_op.store(i64::from(header.op), Ordering::Relaxed);
        match op {
            Some(Op::Auth) => {
                self.on_auth(body, header.xid, cx);
                true
            }
            Some(Op::Sasl) => {
                if self.waits_for_writes() {
                    return false;
                }
                self.on_sasl(body, header.xid, cx);
                true
            }
            Some(_) if !self.may_enter(cx.port) => {
                if self.waits_for_writes() {
                    return false;
                }
                self.refuse(header.xid, 0, ErrorCode::SessionClosedRequireSaslAuth);
                true
            }
            Some(op) if is_read(op) => {
                let is_next = self.in_flight.is_empty() && cx.may_read && self.output.len() < HIGH_WATER;
                if self.hung_up && (self.muted || !is_next) {
                    // Nobody waits for the answer, and a read changes nothing.
                    self.muted = true;
                    return true;
                }
                if self.waits_for_writes() {
                    return false;
                }
                if !cx.may_read {
                    cx.waits_for_lease = true;
                    return false;
                }
                // Java answers a ping with its own xid whatever the request's was.
                let xid = if op == Op::Ping { -2 } else { header.xid };
                let reader = ReadContext {
                    conn: self.id,
                    session: self.session,
                    auth: &self.auth,
                    rules: &cx.port.rules,
                };
                serve_read(cx.db, reader, xid, op, body, &mut self.output);
                self.info.last_zxid.store(cx.db.last_zxid.0, Ordering::Relaxed);
                cx.answered += 1;
                cx.reads += 1;
                true
            }
            Some(
                op @ (Op::Create
                | Op::Create2
                | Op::CreateContainer
                | Op::CreateTtl
                | Op::Delete
                | Op::SetData
                | Op::SetAcl
                | Op::Multi
                | Op::Reconfig
                | Op::Sync
                | Op::CloseSession),
            ) => {
                let request = Request {
                    session: self.session,
                    cxid: header.xid,
                    op,
                    body: Bytes::copy_from_slice(body),
                    auth: self.auth.clone(),
                };
                let len = body.len() + self.auth_len;
                self.held += len;
                self.in_flight.push_back((cx.now, len));
                cx.inputs.push(Input::Request { conn: self.id, request });
                true
            }
            // deleteContainer and createSession are the server's own; check stands in multis only.
            _ => {
                if self.waits_for_writes() {
                    return false;
                }
                self.refuse(header.xid, -1, ErrorCode::Unimplemented);
                true
            }
        }
    }

    /// Whether an answer of now would overtake those to the session's own writes.
    fn waits_for_writes(&self) -> bool {
        !self.in_flight.is_empty() && !self.hung_up
    }

    /// Replies with an error, then ends the connection.
    fn refuse(&mut self, xid: i32, zxid: i64, code: ErrorCode) {
        write_reply(&mut self.output, xid, zxid, Err::<fn(&mut BytesMut), _>(code));
        self.state = State::Ending;
    }

    fn may_enter(&self, port: &ClientPort) -> bool {
        let schemes = &port.limits.enforced_schemes;
        schemes.is_empty()
            || self.auth.iter().any(|id| schemes.iter().any(|scheme| id.scheme == scheme.as_bytes()))
    }

    fn on_auth(&mut self, body: &[u8], xid: i32, cx: &mut Context<'_>) {
        let Ok(packet) = AuthPacket::decode(&mut Reader::new(body)) else {
            self.broken = Some("an auth packet that does not decode");
            return;
        };
        if packet.scheme == Some(b"ensemble")
            && let Some(names) = &cx.port.rules.ensemble_names
        {
            let check = auth::check_ensemble(packet.auth.unwrap_or_default(), names);
            return self.on_ensemble_check(check, xid, cx);
        }
        let address = self.info.peer.ip();
        // Java stumbles over a null here, and refuses.
        let ids = match (packet.scheme, packet.auth) {
            (None, _) | (Some(b"digest"), None) => None,
            (Some(scheme), data) => {
                auth::ids_for(scheme, data.unwrap_or_default(), address, &cx.port.rules, &cx.db.tree)
            }
        };
        let Some(ids) = ids else {
            cx.port.core.figures.auth_failed.increment(1);
            return self.refuse(xid, 0, ErrorCode::AuthFailed);
        };
        if !self.add_ids(ids, cx.port) {
            return self.refuse(xid, 0, ErrorCode::AuthFailed);
        }
        cx.db.watches.lock().set_auth(self.id, &self.auth);
        write_reply(&mut self.output, xid, 0, Ok(|_: &mut BytesMut| ()));
        cx.answered += 1;
    }

    /// False: the connection would be known by more than fits into a request.
    fn add_ids(&mut self, ids: Vec<Id<Bytes>>, port: &ClientPort) -> bool {
        match auth::with_ids(&self.auth, ids) {
            Ok(None) => true,
            Ok(Some(ids)) => {
                self.auth_len = ids.iter().map(id_len).sum();
                self.auth = ids;
                true
            }
            Err(refused) => {
                tracing::warn!(
                    "{}: refused: it has proved {refused}; a client that needs more opens another connection",
                    self.info.peer
                );
                port.core.figures.auth_failed.increment(1);
                false
            }
        }
    }

    fn on_sasl(&mut self, body: &[u8], xid: i32, cx: &mut Context<'_>) {
        // Java stumbles over a null token too, and closes.
        let request = SaslRequest::decode(&mut Reader::new(body));
        let Some(token) = request.ok().and_then(|request| request.token) else {
            self.broken = Some("a SASL packet that does not decode");
            return;
        };
        let mut err = 0;
        let mut answer = None;
        // Without accounts: no error, no token, as Java.
        if let Some(logins) = &cx.port.logins {
            let Ok(nonce) = nonce() else {
                self.broken = Some("there is no random number for a SASL challenge");
                return;
            };
            match self.login.answer(token, sasl::CLIENT_PORT, &logins.accounts, nonce) {
                Ok(Answer::Challenge(token)) => answer = Some(token),
                Ok(Answer::Proved { user, token }) => {
                    tracing::debug!("{}: logged in as {user}", self.info.peer);
                    if self.add_ids(auth::sasl_ids(&user, &logins.super_users), cx.port) {
                        cx.db.watches.lock().set_auth(self.id, &self.auth);
                        answer = Some(token);
                    } else {
                        err = ErrorCode::AuthFailed.code();
                        self.state = State::Ending;
                    }
                }
                Err(refusal) => {
                    tracing::warn!("{}: SASL: {refusal}", self.info.peer);
                    cx.port.core.figures.auth_failed.increment(1);
                    let required = cx.port.limits.enforced_schemes.iter().any(|scheme| scheme == "sasl");
                    if required || !logins.keeps_failed {
                        err = match required {
                            true => ErrorCode::SessionClosedRequireSaslAuth.code(),
                            false => ErrorCode::AuthFailed.code(),
                        };
                        self.state = State::Ending;
                    }
                }
            }
        }
        let response = SaslResponse { token: answer.as_deref() };
        write_frame(&mut self.output, ReplyHeader { xid, zxid: 0, err }, |out| response.encode(out));
        cx.answered += 1;
    }

    fn on_ensemble_check(&mut self, check: EnsembleCheck, xid: i32, cx: &mut Context<'_>) {
        let figures = &cx.port.core.figures;
        match check {
            EnsembleCheck::Skipped => figures.ensemble_auth_skipped.increment(1),
            EnsembleCheck::Ours => figures.ensemble_auth_passed.increment(1),
            EnsembleCheck::Another => {
                figures.ensemble_auth_failed.increment(1);
                // No answer: an error would end a client that had better try its next server.
                self.broken = Some("the client means another ensemble");
                return;
            }
        }
        write_reply(&mut self.output, xid, 0, Ok(|_: &mut BytesMut| ()));
        cx.answered += 1;
    }

    /// A message of the core. The caller calls [`Self::advance`] afterwards.
    pub fn on_mail(&mut self, message: ClientMessage, bytes: &[u8], cx: &mut Context<'_>) {
        if self.state == State::Ending {
            return;
        }
        if !self.muted {
            self.output.extend_from_slice(bytes);
        }
        match message {
            ClientMessage::Established { session, timeout_ms } => {
                self.state = State::Open;
                self.session = session;
                self.timeout = Duration::from_millis(timeout_ms.max(0) as u64);
                self.last_heard = cx.now;
                self.info.session.store(session.0, Ordering::Relaxed);
                self.info.timeout_ms.store(timeout_ms.max(0) as u64, Ordering::Relaxed);
                cx.answered += 1;
            }
            ClientMessage::Reply | ClientMessage::LastReply => {
                if let Some((sent, len)) = self.in_flight.pop_front() {
                    self.held -= len;
                    let ms = cx.now.saturating_duration_since(sent).as_secs_f64() * 1000.0;
                    cx.port.core.figures.latency.record(ms.floor());
                    cx.port.core.figures.update_latency.record(ms.floor());
                }
                if let Some(header) =
                    bytes.get(4..).and_then(|reply| ReplyHeader::decode(&mut Reader::new(reply)).ok())
                {
                    self.info.last_zxid.store(header.zxid, Ordering::Relaxed);
                }
                cx.answered += 1;
                if message == ClientMessage::LastReply {
                    self.state = State::Ending;
                }
            }
            ClientMessage::Event => cx.answered += 1,
            ClientMessage::Close(_) => self.state = State::Ending,
        }
        if self.output.len() > OVERFLOW {
            self.muted = true;
            self.end("the client does not read what it asked for");
        }
    }

    /// Writes what is there. True when nothing is left.
    pub fn flush(&mut self, now: Instant) -> bool {
        if self.muted {
            self.output.clear();
        }
        let mut written = 0;
        while written < self.output.len() {
            match self.stream.write(&self.output[written..]) {
                Ok(count) if count > 0 => {
                    written += count;
                    self.last_drained = now;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Ok(_) | Err(_) => {
                    self.on_write_failed();
                    return true;
                }
            }
        }
        let Ok(sent_all) = self.stream.flush() else {
            self.on_write_failed();
            return true;
        };
        if written == self.output.len() && sent_all {
            self.last_drained = now;
            if self.output.capacity() > 1 << 18 {
                self.output = BytesMut::new();
            } else {
                self.output.clear();
            }
            if self.state == State::Ending && self.broken.is_none() {
                self.stream.end();
                self.broken = Some("done");
            }
            return true;
        }
        let _ = self.output.split_to(written);
        false
    }

    /// The client takes nothing any more. What it said before it went is still to be read.
    fn on_write_failed(&mut self) {
        self.output.clear();
        self.muted = true;
        self.hung_up = true;
        self.more_to_read = self.ended.is_none();
        if self.state == State::Ending {
            self.broken = Some("writing failed");
        }
    }

    /// Lets go of a client that has gone, once all that it said before is handed in. It waits for no answer.
    pub fn end_if_done(&mut self, port: &ClientPort) {
        if let Some(why) = self.ended
            && self.broken.is_none()
            && self.state != State::Ending
            && self.pending.is_empty()
            && !matches!(self.front(port), Front::Frame(_))
        {
            self.stream.end();
            self.broken = Some(why);
        }
    }

    fn front(&self, port: &ClientPort) -> Front {
        front(&self.input[self.input_at..], self.state == State::New, port.limits.max_frame)
    }

    /// Why the connection has lived too long, if it has.
    pub fn overdue(&self, port: &ClientPort, now: Instant) -> Option<&'static str> {
        let stuck = (!self.output.is_empty() || self.stream.keeps_bytes())
            && super::is_over(self.last_drained, self.timeout.max(port.limits.sessionless), now);
        match self.state {
            _ if stuck => Some("the client takes no bytes"),
            State::New | State::Connecting if super::is_over(self.opened, port.limits.sessionless, now) => {
                port.core.figures.sessionless_expired.increment(1);
                Some("no session in time")
            }
            // The session itself ends by the core's clock; this is for one that has moved elsewhere.
            State::Open if super::is_over(self.last_heard, self.timeout * 2, now) => {
                Some("silent for two timeouts")
            }
            State::New | State::Connecting | State::Open | State::Ending => None,
        }
    }

    /// Whether a frame lies in the input that can be worked on without a new event.
    pub fn has_work(&self, port: &ClientPort) -> bool {
        let whole = matches!(self.front(port), Front::Frame(_) | Front::Refused(_));
        let unblocked = !self.pending.is_empty() && self.in_flight.is_empty() && port.core.may_read();
        (whole || unblocked || self.more_to_read) && self.takes_requests(port)
    }

    pub fn in_flight(&self) -> usize {
        self.in_flight.len() + self.pending.len()
    }
}

/// What a challenge has to hold: 40 characters that nobody can guess.
fn nonce() -> io::Result<String> {
    let mut bytes = [0; 30];
    let filled = rustix::rand::getrandom(&mut bytes, GetRandomFlags::empty())?;
    if filled < bytes.len() {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(STANDARD.encode(bytes))
}
