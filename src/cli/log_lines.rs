//! Log lines on their way to standard error or a file: a queue that takes each at once, and a thread that writes them. Who logs may
//! hold the core's lock, and nobody may ever read what is written: lines are dropped then, and counted.

use parking_lot::{Condvar, Mutex};
use std::backtrace::Backtrace;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Bytes of lines that wait to be written, at the most: some ten thousand lines.
const MAX_WAITING: usize = 1 << 20;
/// How long the end of the process is put off for the last lines.
const LAST_LINES: Duration = Duration::from_millis(500);

static LINES: Lines = Lines::new(MAX_WAITING);
/// The file is to be opened again before more is written.
static REOPEN: AtomicBool = AtomicBool::new(false);

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
pub fn start(file: Option<LogFile>) -> io::Result<()> {
    // A handle of its own: that of the standard library has a lock, which others would wait for.
    let stderr = File::from(io::stderr().as_fd().try_clone_to_owned()?);
    let run = move || match file {
        Some(file) => write(file),
        None => write(stderr),
    };
    std::thread::Builder::new().name("log-lines".into()).spawn(run)?;
    std::panic::set_hook(Box::new(|panic| {
        let thread = std::thread::current();
        tracing::error!("thread {} {panic}\n{}", thread.name().unwrap_or("?"), Backtrace::capture());
        flush();
    }));
    Ok(())
}

/// The next lines go into a file of the same name, which may be another one: this one may have been moved away.
pub fn reopen() {
    REOPEN.store(true, Ordering::Relaxed);
    tracing::info!("the log is open again");
}

fn write(mut to: impl Write) {
    let mut lines = Vec::new();
    loop {
        let dropped = LINES.take(&mut lines);
        // Nobody can be told that nobody reads.
        let _ = to.write_all(&lines);
        if dropped > 0 {
            tracing::warn!("{dropped} log lines were dropped: they came faster than they could be written");
        }
    }
}

/// A file for the log, which is moved aside once it is large: `zabra.log` to `zabra.log.1`, that to `zabra.log.2`.
#[derive(Debug)]
pub struct LogFile {
    path: PathBuf,
    file: File,
    len: u64,
    /// Bytes beyond which it is moved aside; 0: never.
    max_len: u64,
    /// Older files that stay.
    keep: usize,
    /// Bytes that could not be written since this was last logged, and why.
    lost: Option<(usize, io::Error)>,
}

impl LogFile {
    pub fn open(path: &Path, max_len: u64, keep: usize) -> io::Result<Self> {
        let file = Self::open_file(path)?;
        let len = file.metadata()?.len();
        Ok(Self { path: path.into(), file, len, max_len, keep, lost: None })
    }

    fn open_file(path: &Path) -> io::Result<File> {
        OpenOptions::new().create(true).append(true).open(path)
    }

    fn reopen(&mut self) -> io::Result<()> {
        self.file = Self::open_file(&self.path)?;
        self.len = self.file.metadata()?.len();
        Ok(())
    }

    fn older(&self, number: usize) -> PathBuf {
        let mut name = self.path.clone().into_os_string();
        name.push(format!(".{number}"));
        name.into()
    }

    fn rotate(&mut self) -> io::Result<()> {
        // Somebody may have moved it away.
        let if_there = |done: io::Result<()>| match done {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            Ok(()) | Err(_) => Ok(()),
        };
        for number in (1..self.keep).rev() {
            if_there(fs::rename(self.older(number), self.older(number + 1)))?;
        }
        if_there(if self.keep == 0 {
            fs::remove_file(&self.path)
        } else {
            fs::rename(&self.path, self.older(1))
        })?;
        self.reopen()
    }

    fn write_lines(&mut self, lines: &[u8]) -> io::Result<()> {
        if REOPEN.swap(false, Ordering::Relaxed) {
            // Otherwise it would go on with the file that was moved away.
            self.reopen().inspect_err(|_| REOPEN.store(true, Ordering::Relaxed))?;
        }
        if self.max_len > 0 && self.len > 0 && self.len + lines.len() as u64 > self.max_len {
            self.rotate()?;
        }
        self.file.write_all(lines)?;
        self.len += lines.len() as u64;
        Ok(())
    }
}

impl Write for LogFile {
    /// Whole lines. What can't be written is counted.
    fn write(&mut self, lines: &[u8]) -> io::Result<usize> {
        match self.write_lines(lines) {
            Ok(()) => {
                if let Some((bytes, why)) = self.lost.take() {
                    tracing::warn!(
                        "{bytes} bytes of the log could not be written to {}: {why}",
                        self.path.display()
                    );
                }
            }
            Err(why) => {
                let before = self.lost.take().map_or(0, |(bytes, _)| bytes);
                self.lost = Some((before + lines.len(), why));
            }
        }
        Ok(lines.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
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
    fn a_file_is_moved_aside_before_it_is_too_large_and_followed_where_it_is_moved() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("zabra.log");
        let read = |name: &str| fs::read_to_string(dir.path().join(name)).unwrap_or_default();
        let mut log = LogFile::open(&path, 10, 2).unwrap();
        for line in ["one\n", "two\n", "three\n", "a line of more than ten\n", "four\n"] {
            log.write_all(line.as_bytes()).unwrap();
        }
        assert_eq!(read("zabra.log"), "four\n");
        assert_eq!(
            (read("zabra.log.1"), read("zabra.log.2")),
            ("a line of more than ten\n".into(), "three\n".into())
        );
        assert!(!dir.path().join("zabra.log.3").exists());
        // A later process goes on with it.
        let mut log = LogFile::open(&path, 10, 2).unwrap();
        log.write_all(b"five\n").unwrap();
        fs::rename(&path, dir.path().join("taken")).unwrap();
        log.write_all(b"six\n").unwrap();
        fs::rename(&path, dir.path().join("taken.too")).unwrap();
        REOPEN.store(true, Ordering::Relaxed);
        log.write_all(b"seven\n").unwrap();
        assert_eq!((read("taken"), read("taken.too")), ("four\nfive\n".into(), "six\n".into()));
        assert!(read("zabra.log") == "seven\n" && log.lost.is_none());
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
