//! The timer: collects which sessions were heard from, then lets time pass for the replica.

use super::Core;
use crate::replica::Input;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

/// Ticks every `period` until `stop` is closed or the core stops. Touches come first: no session expires that a
/// reactor has heard from.
pub fn run(core: &Arc<Core>, period: Duration, stop: &Receiver<()>) {
    let mut inputs = Vec::new();
    while stop.recv_timeout(period) == Err(RecvTimeoutError::Timeout) && !core.is_stopping() {
        core.touch_round.fetch_add(1, Ordering::AcqRel);
        for mailbox in &core.mailboxes {
            inputs.push(Input::Touched(mailbox.take_touched()));
        }
        inputs.push(Input::Tick);
        core.submit(&mut inputs, None);
    }
}
