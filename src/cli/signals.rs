//! The signals that ask a process to end: SIGTERM and SIGINT.

use std::io;
use tokio::runtime::{Builder, Runtime};
use tokio::signal::unix::{SignalKind, signal};

/// Made before threads are: they inherit what it sets up.
pub struct Signals(Runtime);

impl Signals {
    pub fn new() -> io::Result<Self> {
        Builder::new_current_thread().enable_io().build().map(Self)
    }

    /// Waits for one, and tells which.
    pub fn wait(&self) -> io::Result<&'static str> {
        self.0.block_on(async {
            let (mut term, mut int) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
            tokio::select! {
                _ = term.recv() => Ok("SIGTERM"),
                _ = int.recv() => Ok("SIGINT"),
            }
        })
    }
}
