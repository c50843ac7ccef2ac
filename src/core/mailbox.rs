//! From the core to one reactor: replies and events, in order.

use super::reactor_of;
use super::sync::{AtomicBool, Mutex, Ordering};
use crate::replica::{ClientOutput, Outputs};
use bytes::BytesMut;
use std::collections::VecDeque;
use std::sync::OnceLock;

/// Messages, and their bytes one after the other.
#[derive(Debug, Default)]
pub struct Mail {
    messages: VecDeque<ClientOutput>,
    bytes: BytesMut,
    /// Where those of the first message begin.
    at: usize,
}

impl Mail {
    pub fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }

    /// Takes the next message with its bytes.
    pub fn pop(&mut self) -> Option<(ClientOutput, &[u8])> {
        let message = self.messages.pop_front()?;
        let from = self.at;
        self.at += message.len;
        Some((message, &self.bytes[from..self.at]))
    }
}

type Wake = Box<dyn Fn() + Send + Sync>;

#[derive(Default)]
pub struct Mailbox {
    mail: Mutex<Mail>,
    has_mail: AtomicBool,
    /// A wake-up is under way and not yet answered.
    woken: AtomicBool,
    wake: OnceLock<Wake>,
    /// Writes of the reactor's connections wait until less is under way.
    waits_for_room: AtomicBool,
}

impl Mailbox {
    /// To be called once by the reactor, before it takes connections.
    pub fn on_wake(&self, wake: Wake) {
        assert!(self.wake.set(wake).is_ok(), "one reactor owns a mailbox");
    }

    #[inline]
    pub fn has_mail(&self) -> bool {
        self.has_mail.load(Ordering::Acquire)
    }

    /// Exchanges the mail for `empty`, all of which was popped. The caller holds the database's read lock.
    pub fn take(&self, empty: &mut Mail) {
        empty.bytes.clear();
        empty.at = 0;
        self.woken.store(false, Ordering::Release);
        if self.has_mail() {
            let mut mail = self.mail.lock();
            self.has_mail.store(false, Ordering::Release);
            std::mem::swap(&mut *mail, empty);
        }
    }

    pub fn wake(&self) {
        if let Some(wake) = self.wake.get() {
            wake();
        }
    }

    pub(super) fn wake_if_mail(&self) {
        if self.has_mail() && !self.woken.swap(true, Ordering::AcqRel) {
            self.wake();
        }
    }

    /// Whether the reactor is to be woken once there may be room for writes.
    pub fn wait_for_room(&self, on: bool) {
        self.waits_for_room.store(on, Ordering::SeqCst);
    }

    pub fn waits_for_room(&self) -> bool {
        self.waits_for_room.load(Ordering::SeqCst)
    }
}

/// Sorts the outputs into the mailboxes. Where the database was written, its write lock is still held.
pub(super) fn deliver(outputs: &mut Outputs, mailboxes: &[Mailbox]) {
    if outputs.client.is_empty() {
        return;
    }
    for (at, mailbox) in mailboxes.iter().enumerate() {
        let mut mail = None;
        let mut offset = 0;
        for output in &outputs.client {
            let bytes = &outputs.bytes[offset..offset + output.len];
            offset += output.len;
            if reactor_of(output.conn) == at {
                let mail = mail.get_or_insert_with(|| mailbox.mail.lock());
                mail.messages.push_back(*output);
                mail.bytes.extend_from_slice(bytes);
            }
        }
        if mail.is_some() {
            mailbox.has_mail.store(true, Ordering::Release);
        }
    }
    outputs.client.clear();
    outputs.bytes.clear();
}
