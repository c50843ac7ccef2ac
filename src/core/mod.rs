//! The core: the replica behind one lock, with an inbox in front.
//!
//! Whoever brings inputs (a reactor, the log thread, the timer) puts its batch into the inbox. If the lock is free it
//! takes it, runs the replica until the inbox is empty, and carries out the outputs in order; if not, the holder finds
//! the batch. Nobody waits for a disk or a socket under it. A thread of its own would cost a wake-up each way.
//!
//! Order of events and replies: the core hands both to the reactors' mailboxes *before* it lets go of the database's
//! write lock. A reactor takes the read lock, *then* empties its mailbox into its connections, then serves reads. So a
//! read that sees a change is always answered behind the event that announces it, and behind the reply of the
//! session's own write.

mod log_thread;
mod mailbox;
mod snapshots;
mod timer;

pub use log_thread::{LogQueue, RollRules, run as run_log};
pub use mailbox::{Mail, Mailbox};
pub use snapshots::{Snapshots, run as run_snapshots, write_snapshot};
pub use timer::run as run_timer;

use crate::figures::Figures;
use crate::model::ConnId;
use crate::replica::{Input, Now, Outputs, Replica};
use crate::storage::StorageError;
use crate::tree::Database;
use parking_lot::{Mutex, RwLock};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// Which reactor a connection lives on: the top byte of its id.
pub fn reactor_of(conn: ConnId) -> usize {
    (conn.0 >> 56) as usize
}

pub struct Core {
    replica: Mutex<Shell>,
    inbox: Mutex<Vec<Input>>,
    pub db: RwLock<Database>,
    pub mailboxes: Vec<Mailbox>,
    pub log: LogQueue,
    pub snapshots: Snapshots,
    pub figures: Arc<Figures>,
    /// Requests that were handed in and not answered yet.
    outstanding: AtomicUsize,
    /// Goes up whenever the touches were collected; a connection reports its session once per round.
    pub touch_round: AtomicU32,
    stopping: AtomicBool,
    started: Instant,
    fatal: Box<dyn Fn(StorageError) + Send + Sync>,
}

/// The replica and the buffers that it fills, reused from batch to batch.
struct Shell {
    replica: Replica,
    batch: Vec<Input>,
    outputs: Outputs,
}

impl Core {
    /// `fatal` is called when the log can no longer be trusted, and must end the process.
    pub fn new(
        replica: impl FnOnce(&Database, Now) -> Replica,
        db: Database,
        reactors: usize,
        figures: Arc<Figures>,
        fatal: Box<dyn Fn(StorageError) + Send + Sync>,
    ) -> Self {
        let started = Instant::now();
        let replica = replica(&db, now_since(started));
        let shell = Shell { replica, batch: Vec::new(), outputs: Outputs::default() };
        Self {
            replica: Mutex::new(shell),
            inbox: Mutex::new(Vec::new()),
            db: RwLock::new(db),
            mailboxes: (0..reactors).map(|_| Mailbox::default()).collect(),
            log: LogQueue::default(),
            snapshots: Snapshots::default(),
            figures,
            outstanding: AtomicUsize::new(0),
            touch_round: AtomicU32::new(1),
            stopping: AtomicBool::new(false),
            started,
            fatal,
        }
    }

    pub fn now(&self) -> Now {
        now_since(self.started)
    }

    pub fn outstanding(&self) -> usize {
        self.outstanding.load(Ordering::Relaxed)
    }

    pub fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Acquire)
    }

    /// Ends the threads: the log thread first syncs what it has.
    pub fn stop(&self) {
        self.stopping.store(true, Ordering::Release);
        self.log.stop();
        self.snapshots.stop();
        for mailbox in &self.mailboxes {
            mailbox.wake();
        }
    }

    pub(crate) fn fatal(&self, error: StorageError) {
        (self.fatal)(error);
    }

    /// Runs `f` with the replica, for dumps, unless the core is at work: whoever holds the database's read lock must
    /// not wait for the core, which may be waiting for the write lock.
    pub fn look<T>(&self, f: impl FnOnce(&Replica) -> T) -> Option<T> {
        self.replica.try_lock().map(|shell| f(&shell.replica))
    }

    /// Hands in a batch, and works off the inbox unless somebody else is at it. `from` is the reactor that runs this:
    /// it looks into its mailbox itself and needs no wake-up.
    pub fn submit(&self, inputs: &mut Vec<Input>, from: Option<usize>) {
        if inputs.is_empty() {
            return;
        }
        self.inbox.lock().append(inputs);
        while !self.inbox.lock().is_empty() {
            // Held by another: it looks into the inbox once more after it let go.
            let Some(mut shell) = self.replica.try_lock() else { return };
            self.run(&mut shell, from);
        }
    }

    fn run(&self, shell: &mut Shell, from: Option<usize>) {
        let Shell { replica, batch, outputs } = shell;
        loop {
            std::mem::swap(&mut *self.inbox.lock(), batch);
            if batch.is_empty() {
                return;
            }
            let now = self.now();
            {
                let db = self.db.read();
                for input in batch.drain(..) {
                    replica.handle(now, &db, input, outputs);
                }
            }
            if !outputs.append.is_empty() {
                self.log.push(&mut outputs.append);
            }
            if replica.has_committed() {
                let mut db = self.db.write();
                replica.apply(now, &mut db, outputs);
                mailbox::deliver(outputs, &self.mailboxes);
            } else {
                mailbox::deliver(outputs, &self.mailboxes);
            }
            // Sessions that ended may own the next step: closing them proposes, and that has to reach the log too.
            if !outputs.append.is_empty() {
                self.log.push(&mut outputs.append);
            }
            self.outstanding.store(replica.outstanding(), Ordering::Relaxed);
            self.figures.count(&std::mem::take(&mut outputs.tally));
            for (at, mailbox) in self.mailboxes.iter().enumerate() {
                if Some(at) != from {
                    mailbox.wake_if_mail();
                }
            }
        }
    }
}

fn now_since(started: Instant) -> Now {
    let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Now { mono_ms: started.elapsed().as_millis() as u64, wall_ms: wall.as_millis() as i64 }
}
