//! One connection of the quorum port, at either end: what waits to be written, and how it is written by whoever has
//! something to say, without a wake-up in between.

use super::ends::PipeEnd;
use crate::model::LinkId;
use crate::replica::CloseWhy;
use bytes::{Buf, BytesMut};
use parking_lot::Mutex;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// Bytes that may wait while a learner is fed out of files.
pub const FEED_AHEAD: usize = 1 << 20;

pub(super) struct Pipe {
    pub id: LinkId,
    pub socket: TcpStream,
    /// The address at the other end, for messages.
    pub with: Option<SocketAddr>,
    out: Mutex<Out>,
    /// The socket took less than there was.
    blocked: Notify,
    /// Fewer bytes wait than [`FEED_AHEAD`].
    drained: Notify,
    held: AtomicBool,
    released: Notify,
    /// It is over, for whatever reason.
    pub ended: CancellationToken,
}

#[derive(Default)]
struct Out {
    bytes: BytesMut,
    /// Close once everything is written.
    closing: bool,
    broken: Option<PipeEnd>,
}

impl Pipe {
    pub fn new(id: LinkId, socket: TcpStream, stop: &CancellationToken) -> Self {
        Self {
            id,
            with: socket.peer_addr().ok(),
            socket,
            out: Mutex::new(Out::default()),
            blocked: Notify::new(),
            drained: Notify::new(),
            held: AtomicBool::new(false),
            released: Notify::new(),
            ended: stop.child_token(),
        }
    }

    /// Adds to what waits; [`Self::flush`] writes it. How much that may be is decided by who has it to say: a leader has a window
    /// for each learner, and what a learner hands on is bounded at its client port.
    pub fn queue(&self, bytes: &[u8]) {
        let mut out = self.out.lock();
        if out.closing || out.broken.is_some() {
            return;
        }
        out.bytes.extend_from_slice(bytes);
    }

    /// Writes what the socket takes. What is left is written by [`Self::pump`].
    pub fn flush(&self) {
        let mut out = self.out.lock();
        while !out.bytes.is_empty() && out.broken.is_none() {
            match self.socket.try_write(&out.bytes) {
                Ok(count) => out.bytes.advance(count),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.blocked.notify_one();
                    break;
                }
                Err(error) => {
                    // What the other side said before it went is still to be read; reading comes to the end of it.
                    out.broken = Some(PipeEnd::Write(error));
                    out.bytes.clear();
                }
            }
        }
        if out.bytes.len() < FEED_AHEAD {
            self.drained.notify_one();
        }
        if out.bytes.is_empty() {
            // Most of the time little waits: a buffer that a burst left behind is given back.
            if out.bytes.capacity() > FEED_AHEAD {
                out.bytes = BytesMut::new();
            }
            if out.closing {
                self.ended.cancel();
            }
        }
    }

    /// Writes whenever the socket can take more. Ends with the link.
    pub async fn pump(&self) {
        loop {
            tokio::select! {
                () = self.ended.cancelled() => return,
                () = self.blocked.notified() => {}
            }
            tokio::select! {
                () = self.ended.cancelled() => return,
                writable = self.socket.writable() => {
                    if writable.is_err() {
                        self.ended.cancel();
                    }
                }
            }
            self.flush();
        }
    }

    /// Waits until there is room for more of a feed.
    pub async fn room(&self) {
        loop {
            if self.out.lock().bytes.len() < FEED_AHEAD || self.ended.is_cancelled() {
                return;
            }
            tokio::select! {
                () = self.ended.cancelled() => return,
                () = self.drained.notified() => {}
            }
        }
    }

    /// Bytes that the other side has not taken yet.
    pub fn waiting(&self) -> usize {
        self.out.lock().bytes.len()
    }

    pub fn hold(&self, on: bool) {
        self.held.store(on, Ordering::Release);
        if !on {
            self.released.notify_one();
        }
    }

    pub fn is_held(&self) -> bool {
        self.held.load(Ordering::Acquire)
    }

    /// Waits while nothing should be read.
    pub async fn may_read(&self) -> Result<(), PipeEnd> {
        while self.is_held() {
            tokio::select! {
                () = self.ended.cancelled() => return Err(PipeEnd::ClosedHere),
                () = self.released.notified() => {}
            }
        }
        Ok(())
    }

    pub fn close(&self, why: &CloseWhy) {
        tracing::debug!("closing link {}: {why}", self.id.0);
        let mut out = self.out.lock();
        out.closing = true;
        if out.bytes.is_empty() {
            self.ended.cancel();
        }
    }

    /// Nothing that is written reaches the other side any more.
    pub fn is_broken(&self) -> bool {
        self.ended.is_cancelled() || self.out.lock().broken.is_some()
    }

    /// Why it broke, where that was noticed while writing.
    pub fn take_broken(&self) -> Option<PipeEnd> {
        self.out.lock().broken.take()
    }
}
