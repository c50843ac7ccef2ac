//! Wakes the load when its next request is due: a poll alone sleeps in whole milliseconds, and waiting awake would take a
//! core from the servers.

use mio::Waker;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// More wake-ups in a second are of no use: what is due at once goes out together.
const MOST_PER_SECOND: f64 = 10_000.0;

pub(super) struct Pacer {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Pacer {
    /// `rate`: requests a second, the first one at `started`.
    pub fn start(waker: Waker, started: Instant, rate: f64) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let step = Duration::from_secs_f64(1.0 / rate.clamp(1.0, MOST_PER_SECOND));
        let stopped = stop.clone();
        let thread = std::thread::spawn(move || {
            let mut due = started;
            while !stopped.load(Ordering::Relaxed) {
                let now = Instant::now();
                std::thread::sleep(due.saturating_duration_since(now));
                // After a pause of the machine there is nothing to catch up with.
                due = (due + step).max(now);
                let _ = waker.wake();
            }
        });
        Self { stop, thread: Some(thread) }
    }
}

impl Drop for Pacer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
