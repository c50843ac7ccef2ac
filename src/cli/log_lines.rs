//! Log lines on their way to standard error: a queue that takes each at once, and a thread that writes them. Who logs may hold
//! the core's lock, and nobody may ever read what is written: lines are dropped then, and counted.

use parking_lot::{Condvar, Mutex};
use std::backtrace::Backtrace;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

/// Bytes of lines that wait to be written, at the most: some ten thousand lines.
const MAX_WAITING: usize = 1 << 20;
/// How long the end of the process is put off for the last lines.
const LAST_LINES: Duration = Duration::from_millis(500);

static LINES: Lines = Lines::new(MAX_WAITING);

/// What waits to be written.
struct Lines {
    waiting: Mutex<Waiting>,
    /// There is something to write.
    filled: Condvar,
    /// Everything is written.
    written: Condvar,
    most: usize,
}

struct Waiting {
    bytes: Vec<u8>,
    /// Lines that found no room since this was last logged.
    dropped: u64,
    is_writing: bool,
}

impl Lines {
    const fn new(most: usize) -> Self {
        let waiting = Waiting { bytes: Vec::new(), dropped: 0, is_writing: false };
        Self { waiting: Mutex::new(waiting), filled: Condvar::new(), written: Condvar::new(), most }
    }

    fn push(&self, line: &[u8]) {
        let mut waiting = self.waiting.lock();
        if waiting.bytes.len() + line.len() > self.most {
            waiting.dropped += 1;
            return;
        }
        waiting.bytes.extend_from_slice(line);
        self.filled.notify_one();
    }

    /// Waits for lines, and swaps them for `written`. Returns how many were dropped behind those of the last time.
    fn take(&self, written: &mut Vec<u8>) -> u64 {
        written.clear();
        let mut waiting = self.waiting.lock();
        waiting.is_writing = false;
        while waiting.bytes.is_empty() {
            self.written.notify_all();
            self.filled.wait(&mut waiting);
        }
        waiting.is_writing = true;
        std::mem::swap(&mut waiting.bytes, written);
        std::mem::take(&mut waiting.dropped)
    }

    /// Waits until everything is written, but no longer than this.
    fn flush(&self, patience: Duration) {
        let deadline = Instant::now() + patience;
        let mut waiting = self.waiting.lock();
        while waiting.is_writing || !waiting.bytes.is_empty() {
            if self.written.wait_until(&mut waiting, deadline).timed_out() {
                return;
            }
        }
    }
}

/// Takes one line with each write.
pub struct Queue;

impl Write for Queue {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        LINES.push(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Starts the thread that writes. A panic is logged, too: the usual way would wait for whoever reads standard error.
pub fn start() -> io::Result<()> {
    // A handle of its own: that of the standard library has a lock, which others would wait for.
    let stderr = File::from(io::stderr().as_fd().try_clone_to_owned()?);
    std::thread::Builder::new().name("log-lines".into()).spawn(move || write(stderr))?;
    std::panic::set_hook(Box::new(|panic| {
        let thread = std::thread::current();
        tracing::error!("thread {} {panic}\n{}", thread.name().unwrap_or("?"), Backtrace::capture());
        flush();
    }));
    Ok(())
}

fn write(mut to: impl Write) {
    let mut lines = Vec::new();
    loop {
        let dropped = LINES.take(&mut lines);
        // Nobody can be told that nobody reads.
        let _ = to.write_all(&lines);
        if dropped > 0 {
            tracing::warn!(
                "{dropped} log lines were dropped: standard error was not read for a while, or more slowly than lines came"
            );
        }
    }
}

/// To be called before the process ends: the last lines say why.
pub fn flush() {
    LINES.flush(LAST_LINES);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_logs_never_waits_and_what_finds_no_room_is_counted() {
        let lines = Lines::new(10);
        let mut written = Vec::new();
        for _ in 0..100 {
            lines.push(b"four");
        }
        lines.flush(Duration::from_millis(1));
        assert_eq!((lines.take(&mut written), &written[..]), (98, &b"fourfour"[..]));
        lines.push(b"more");
        assert_eq!((lines.take(&mut written), &written[..]), (0, &b"more"[..]));
    }

    #[test]
    fn the_end_waits_for_the_last_lines() {
        static WAITED_FOR: Lines = Lines::new(10);
        WAITED_FOR.push(b"last");
        std::thread::spawn(|| {
            let mut written = Vec::new();
            loop {
                WAITED_FOR.take(&mut written);
            }
        });
        WAITED_FOR.flush(Duration::from_secs(60));
        assert!(WAITED_FOR.waiting.lock().bytes.is_empty());
    }
}
