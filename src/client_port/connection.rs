//! One client connection: the socket, the TLS in it, and the deadlines of the conversation over it.

use super::stream::{Filled, Stream};
use super::{ClientPort, ConnInfo, is_over};
use crate::conversation::{Bounds, Conversation, End, Limits};
use crate::core::{Account, Descriptor};
use crate::model::ConnId;
use crate::replica::ClientMessage;
use crate::request::Rules;
use crate::tls;
use mio::net::TcpStream;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// Bytes that may wait for a client, or be read of it, and are not counted with those of all connections; and bytes that its watches
/// always may take.
pub(super) const FEW: usize = 64 << 10;

fn recount(all: &AtomicUsize, counted: &mut usize, now: usize) {
    if now != *counted {
        all.fetch_add(now.wrapping_sub(*counted), Ordering::Relaxed);
        *counted = now;
    }
}

/// Counts `now` if all connections together may have it. One always may as long as nobody else has any.
fn reserve(all: &AtomicUsize, counted: &mut usize, now: usize, limit: usize) -> bool {
    let more = now.saturating_sub(*counted);
    let fits = |all: usize| (all == *counted || all + more <= limit).then_some(all + more);
    let is_reserved = all.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits).is_ok();
    if is_reserved {
        *counted += more;
    }
    is_reserved
}

pub(super) struct Connection {
    pub talk: Conversation,
    /// Which of the port's listeners has taken it.
    pub listener: usize,
    stream: Stream,
    _descriptor: Descriptor,
    pub info: Arc<ConnInfo>,
    opened: Instant,
    last_heard: Instant,
    /// When the peer last took bytes, while there are some for it.
    last_drained: Instant,
    /// The socket may hold more bytes than were read.
    more_to_read: bool,
    /// The socket may take more of what is left to be written.
    more_to_write: bool,
    /// Bytes that wait for the client, as the port has counted them.
    counted: usize,
    /// Bytes of its requests that are read and not worked off, or for which there is room, as the account has counted them.
    read: usize,
    /// Since when its request has been coming, if there is room for that.
    begun: Instant,
    /// There was no room for more of its requests.
    pub hungry: bool,
    /// Bytes of its requests in the core, as its reactor has counted them.
    handed_in: usize,
    /// It is among those whose writes wait until less is under way.
    pub waits: bool,
}

impl Connection {
    pub fn new(
        id: ConnId,
        listener: usize,
        stream: Stream,
        info: Arc<ConnInfo>,
        descriptor: Descriptor,
        now: Instant,
    ) -> Self {
        Self {
            talk: Conversation::new(id, info.peer.ip()),
            listener,
            stream,
            _descriptor: descriptor,
            info,
            opened: now,
            last_heard: now,
            last_drained: now,
            more_to_read: false,
            more_to_write: false,
            counted: 0,
            read: 0,
            begun: now,
            hungry: false,
            handed_in: 0,
            waits: false,
        }
    }

    pub fn socket(&mut self) -> &mut TcpStream {
        self.stream.socket()
    }

    /// Reads what the socket holds, up to a share.
    pub fn fill(
        &mut self,
        scratch: &mut [u8],
        mut share: usize,
        port: &ClientPort,
        bounds: Bounds<'_>,
        now: Instant,
    ) {
        if self.talk.has_ended() {
            return;
        }
        self.more_to_read = true;
        self.hungry = false;
        while share > 0 && self.talk.has_space(bounds) {
            let room = self.room(scratch.len(), port, now);
            if room == 0 {
                self.hungry = true;
                return;
            }
            match self.stream.read(&mut scratch[..room]) {
                Ok(Filled { count: 0, .. }) => return self.end_of_input(End::ClientClosed),
                Ok(Filled { count, drained }) => {
                    if self.talk.is_fresh() && !self.take_certificate(&port.rules) {
                        port.core.figures.auth_failed.increment(1);
                        return;
                    }
                    self.last_heard = now;
                    self.talk.take(&scratch[..count]);
                    share = share.saturating_sub(count);
                    // The end makes no new event where it was seen already.
                    if drained && !self.talk.is_hung_up() {
                        self.more_to_read = false;
                        return;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock && self.talk.is_muted() => {
                    return self.end_of_input(End::WriteFailed(error.kind()));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.more_to_read = false;
                    return;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                    return self.on_tls_error(&error, port);
                }
                Err(error) => return self.end_of_input(End::ReadFailed(error.kind())),
            }
        }
    }

    /// How many bytes may be read now, `most` at the most: few always, more as far as there is room for all of the request that
    /// has begun.
    fn room(&mut self, most: usize, port: &ClientPort, now: Instant) -> usize {
        let unworked = self.talk.unworked();
        if unworked < FEW {
            return most.min(FEW - unworked);
        }
        if self.read == 0 {
            self.begun = now;
        }
        let wanted = self.talk.expected(&port.limits).max(unworked + most);
        let all = &port.core.account.read;
        if reserve(all, &mut self.read, wanted, port.port_limits.unread) { most } else { 0 }
    }

    /// A request of it was whole.
    pub fn on_request(&mut self, now: Instant) {
        self.begun = now;
    }

    /// How long a large request has been coming, or its client takes no answers to those before it: others might have its room.
    pub fn unfinished(&self, bounds: Bounds<'_>, now: Instant) -> Option<Duration> {
        let is_in_core = self.waits || self.talk.handed_in() > 0;
        let awaits_more = self.read > 0 && !self.hungry && !is_in_core && !self.talk.has_work(bounds);
        awaits_more.then(|| now.saturating_duration_since(self.begun))
    }

    /// Nothing more comes. The end is handled after what came before.
    fn end_of_input(&mut self, why: End) {
        self.talk.end_of_input(why);
        self.more_to_read = false;
    }

    /// Who the client is by its certificate, if it has shown one. False: that can't be said.
    fn take_certificate(&mut self, rules: &Rules) -> bool {
        let Some(certificate) = self.stream.certificate().filter(|_| rules.x509.is_some()) else {
            return true;
        };
        let Some(subject) = tls::subject_of(certificate) else {
            self.talk.cut(End::UnreadableCertificate);
            return false;
        };
        tracing::debug!("{}: is {subject}", self.info.peer);
        self.talk.prove_subject(subject, rules).is_ok()
    }

    fn on_tls_error(&mut self, error: &io::Error, port: &ClientPort) {
        let why = End::Tls(error.to_string());
        if self.stream.is_handshaking() {
            self.talk.cut(why);
            port.core.figures.auth_failed.increment(1);
            port.core.figures.unsuccessful_handshakes.increment(1);
        } else {
            self.end_of_input(why);
        }
    }

    /// Writes what is there, up to about a share. True when nothing is left.
    pub fn flush(&mut self, share: usize, now: Instant) -> bool {
        let output = self.talk.output();
        let part = &output[..output.len().min(share)];
        let mut written = 0;
        let mut failed = None;
        while written < part.len() {
            match self.stream.write(&part[written..]) {
                Ok(count) if count > 0 => {
                    written += count;
                    self.last_drained = now;
                }
                Ok(_) => {
                    failed = Some(io::ErrorKind::WriteZero);
                    break;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    failed = Some(error.kind());
                    break;
                }
            }
        }
        let wrote_all = written == output.len();
        self.more_to_write = written == part.len() && !wrote_all;
        let sent = match failed {
            Some(kind) => Err(kind),
            None => self.stream.flush().map_err(|error| error.kind()),
        };
        match sent {
            Ok(sent_all) => {
                self.talk.sent(written);
                if wrote_all && sent_all {
                    self.last_drained = now;
                    self.talk.flushed();
                }
                wrote_all && sent_all
            }
            Err(kind) => {
                self.talk.on_write_failed(End::WriteFailed(kind));
                // What the client said before it went is still to be read.
                self.more_to_read = !self.talk.has_ended();
                true
            }
        }
    }

    /// A message of the core has come for the client.
    pub fn on_message(&mut self, message: &ClientMessage, now: Instant) {
        if let ClientMessage::Established { session, timeout_ms } = message {
            self.last_heard = now;
            self.info.session.store(session.0, Ordering::Relaxed);
            self.info.timeout_ms.store(u64::try_from(*timeout_ms).unwrap_or(0), Ordering::Relaxed);
        }
    }

    /// Says that no more bytes come. Where TLS itself is wrong, it has said so.
    pub fn end(&mut self, why: &End) {
        if !matches!(why, End::Tls(_)) {
            self.stream.end();
        }
    }

    /// Counts the bytes that wait for this client, and those of it, with those of all others.
    pub fn count_in(&mut self, account: &Account, limits: &Limits) {
        let waiting = self.talk.waiting();
        recount(&account.unread, &mut self.counted, if waiting > FEW { waiting } else { 0 });
        let is_much = self.talk.unworked() > FEW;
        recount(&account.read, &mut self.read, if is_much { self.talk.expected(limits) } else { 0 });
    }

    /// It is gone, with all of these.
    pub fn count_out(&mut self, account: &Account) {
        recount(&account.unread, &mut self.counted, 0);
        recount(&account.read, &mut self.read, 0);
    }

    /// The client is there, though nothing is read of it now.
    pub fn heard(&mut self, now: Instant) {
        self.last_heard = now;
    }

    /// Counts the bytes of this client's requests in the core with those of the reactor's others.
    pub fn count_handed_in(&mut self, all: &mut usize) {
        let handed_in = self.talk.handed_in();
        *all = *all - self.handed_in + handed_in;
        self.handed_in = handed_in;
    }

    /// The bytes of its requests that were counted so.
    pub fn counted_handed_in(&self) -> usize {
        self.handed_in
    }

    /// Bytes that wait for the client, if they are many.
    pub fn counted(&self) -> usize {
        self.counted
    }

    /// How long the client has taken none of the bytes that wait for it.
    pub fn idle(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.last_drained)
    }

    /// How the connection ends if it does for that.
    pub fn too_slow(&self, now: Instant) -> End {
        End::TooSlow { waiting: self.talk.waiting(), idle_ms: self.idle(now).as_millis() }
    }

    /// Why the connection has lived too long, if it has.
    pub fn overdue(&self, sessionless: Duration, limits: &Limits, now: Instant) -> Option<End> {
        let talk = &self.talk;
        let timeout = Duration::from_millis(talk.timeout_ms() as u64);
        // A client that takes nothing and only writes is bounded by bytes, and may take them once it has written all.
        let holds_up = talk.is_full(limits)
            || talk.is_ending() && (!talk.output().is_empty() || self.stream.keeps_bytes());
        if holds_up && self.idle(now) > timeout.max(sessionless) {
            return Some(self.too_slow(now));
        }
        if talk.is_opening() && is_over(self.opened, sessionless, now) {
            return Some(End::NoSession(sessionless.as_millis()));
        }
        // The session itself ends by the core's clock; this is for one that has moved elsewhere.
        let is_open = !talk.is_opening() && !talk.is_ending();
        (is_open && is_over(self.last_heard, timeout * 2, now))
            .then(|| End::Silent((now - self.last_heard).as_millis()))
    }

    pub fn has_more_to_read(&self) -> bool {
        self.more_to_read
    }

    pub fn has_more_to_write(&self) -> bool {
        self.more_to_write
    }

    /// There is nothing to do before a new event, but maybe something to write.
    pub fn is_quiet(&self) -> bool {
        !self.more_to_read && self.talk.is_quiet()
    }

    /// Whether there is something to do without a new event.
    pub fn has_work(&self, bounds: Bounds<'_>) -> bool {
        let reads_on = self.talk.takes_requests(bounds) && !self.talk.waits_for_others(bounds);
        self.talk.has_work(bounds) || self.more_to_read && reads_on && !self.hungry
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_all_connections_keep_has_a_bound_and_one_alone_may_have_its_request() {
        let all = AtomicUsize::new(0);
        let (mut one, mut other) = (0, 0);
        assert!(reserve(&all, &mut one, 60, 100));
        assert!(!reserve(&all, &mut other, 50, 100));
        assert!(reserve(&all, &mut other, 40, 100));
        assert!(reserve(&all, &mut one, 30, 100), "it has more than that");
        assert!(!reserve(&all, &mut one, 61, 100));
        recount(&all, &mut other, 0);
        assert!(reserve(&all, &mut one, 1000, 100), "nobody else has any");
        assert!(!reserve(&all, &mut other, 1, 100));
        recount(&all, &mut one, 0);
        assert_eq!((one, other, all.into_inner()), (0, 0, 0));
    }
}
