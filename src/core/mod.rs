//! The core: the replica inside one lock, with an inbox before it.
//!
//! Whoever brings inputs (a reactor, the log thread, a peer, the timer) puts its batch into the inbox. If the lock is
//! free it takes it, runs the replica until the inbox is empty, and carries out the outputs in order; if not, the holder
//! finds the batch. Nobody waits for a disk or a socket under it. A thread of its own would cost a wake-up each way.
//! Where others fill the inbox as fast as it is emptied, such a thread goes on (`inbox.rs`): all the others have clients, a
//! disk or other servers that wait for them.
//!
//! Order of events and replies: the core hands both to the reactors' mailboxes *before* it lets go of the database's
//! write lock. A reactor takes the read lock, *then* empties its mailbox into its connections, then serves reads. So a
//! read that sees a change is always answered after the event that announces it, and after the reply of the
//! session's own write.

mod account;
mod alarm;
mod descriptors;
mod feeder;
mod inbox;
mod journal;
mod log_queue;
mod log_thread;
mod mailbox;
mod open;
mod receiver;
mod restore;
mod scrub;
mod snapshots;
mod sync;
#[cfg(test)]
mod threads;
mod timer;
mod touches;

pub use account::Account;
pub use alarm::Alarm;
pub use descriptors::{Descriptor, Descriptors};
pub use feeder::{Fed, FeedError, Feeder, Files};
pub use journal::{Journal, Performed, RollRules, Setup};
pub use log_queue::LogQueue;
pub use log_thread::{LogPace, run as run_log};
pub use mailbox::{Mail, Mailbox};
pub use open::{Opened, Opening, may_be_committed, open, view};
pub use receiver::{ReceiveError, Receiver};
pub use restore::{DigestDiffers, Digests, RestoredDatabase, check_snapshot};
pub use scrub::{Pace, Pass, Scrub, Wait, report as report_scrub, run as run_scrub};
pub use snapshots::{
    SnapshotError, SnapshotForm, SnapshotJob, Snapshots, run as run_snapshots, write_snapshot,
    write_snapshot_of,
};
pub use timer::run as run_timer;
pub use touches::Touches;

use crate::figures::Figures;
use crate::model::{ConnId, Zxid};
use crate::replica::{DiskDone, DiskOp, Doubt, Input, Now, Outputs, Refusal, Replica, Status, Told};
use crate::storage::StorageError;
use crate::tree::Database;
use inbox::{Inbox, Worker};
use parking_lot::{Mutex, RwLock};
use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// Which reactor a connection lives on: the top byte of its id.
pub fn reactor_of(conn: ConnId) -> usize {
    (conn.0 >> 56) as usize
}

/// Tells the time of an input.
pub type Clock = Box<dyn Fn() -> Now + Send + Sync>;

/// The machine's clock; its monotonic part begins with 0.
pub fn machine_clock() -> Clock {
    let started = Instant::now();
    Box::new(move || {
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Now { mono_ms: started.elapsed().as_millis() as u64, wall_ms: wall.as_millis() as i64 }
    })
}

/// Carries what the replica has for other servers. Called under the core's lock: it must not wait.
pub trait Carrier: Send + Sync {
    fn carry(&self, outputs: &mut Outputs);
}

pub struct Core {
    inbox: Inbox<Shell, Input>,
    pub db: RwLock<Database>,
    pub mailboxes: Vec<Mailbox>,
    pub log: LogQueue,
    pub snapshots: Snapshots,
    pub figures: Arc<Figures>,
    /// The bytes that wait in queues.
    pub account: Account,
    carrier: OnceLock<Arc<dyn Carrier>>,
    pub alarm: Alarm,
    /// Requests that were handed in and not answered yet.
    outstanding: AtomicUsize,
    pub touches: Touches,
    /// Reads may be answered until then, in monotonic milliseconds.
    lease: AtomicU64,
    durable: AtomicI64,
    /// Everything up to here is committed: what feeds of the log may send.
    committed: Arc<AtomicI64>,
    /// New writes of this server's clients are refused.
    refuses_writes: AtomicBool,
    status: Mutex<Status>,
    stopping: AtomicBool,
    clock: Clock,
    fatal: Box<dyn Fn(Fatal) + Send + Sync>,
}

/// Why the process has to end.
#[derive(Debug, thiserror::Error)]
pub enum Fatal {
    /// What is on the disk is not known any more.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// The ensemble has nothing of this server's history.
    #[error(transparent)]
    Refusal(Refusal),
    /// Nobody would serve its connections.
    #[error("reactor {index}: {source}")]
    Reactor { index: usize, source: std::io::Error },
}

/// The replica and what it fills, reused from batch to batch.
struct Shell {
    replica: Replica,
    outputs: Outputs,
}

/// Milliseconds that a thread works on what others brought, beside its first turn, before it leaves that to the relief.
const SHARE_MS: u64 = 3;
/// Inputs that are handled in one turn; a request or proposal counts once more for each [`BYTES_OF_ONE`].
const HANDLED_AT_ONCE: usize = 1024;
const BYTES_OF_ONE: usize = 4096;

/// Who runs the core.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Who {
    /// Whose clients wait meanwhile: it applies no long transaction. It looks into its mailbox itself and needs no wake-up.
    Reactor(usize),
    /// Has no share: it works off what its sync has made durable, and what comes meanwhile makes the next sync larger.
    Log,
    /// Another thread that has something else to do.
    Other,
    Relief,
}

struct Run<'a> {
    core: &'a Core,
    who: Who,
    has_begun: bool,
    until: Option<u64>,
}

impl Worker<Shell, Input> for Run<'_> {
    fn has_more(&self, shell: &Shell) -> bool {
        shell.replica.has_steps()
    }

    fn has_enough(&mut self, shell: &Shell) -> bool {
        // At the end there is no relief.
        if matches!(self.who, Who::Relief | Who::Log) || self.core.is_stopping() {
            return false;
        }
        if matches!(self.who, Who::Reactor(_)) && !shell.replica.next_is_short() {
            return true;
        }
        if !std::mem::replace(&mut self.has_begun, true) {
            return false;
        }
        let now = self.core.now().mono_ms;
        now >= *self.until.get_or_insert(now + SHARE_MS)
    }

    fn turn(&mut self, shell: &mut Shell, batch: &mut VecDeque<Input>) {
        let from = if let Who::Reactor(index) = self.who { Some(index) } else { None };
        self.core.turn(shell, batch, from);
    }
}

impl Core {
    /// `fatal` is called when the log can no longer be trusted, and must end the process.
    pub fn new(
        replica: impl FnOnce(&Database, Now) -> Replica,
        db: Database,
        reactors: usize,
        figures: Arc<Figures>,
        clock: Clock,
        fatal: Box<dyn Fn(Fatal) + Send + Sync>,
    ) -> Self {
        let replica = replica(&db, clock());
        let (status, lease) = (replica.status(), replica.lease());
        let snapshots = Snapshots::new(replica.writes_digests());
        snapshots.allow(status.mode.has_leader());
        let durable = AtomicI64::new(db.last_zxid.0);
        let committed = Arc::new(AtomicI64::new(replica.committed().0));
        Self {
            inbox: Inbox::new(Shell { replica, outputs: Outputs::default() }),
            db: RwLock::new(db),
            mailboxes: (0..reactors).map(|_| Mailbox::default()).collect(),
            log: LogQueue::default(),
            snapshots,
            figures,
            account: Account::default(),
            carrier: OnceLock::new(),
            alarm: Alarm::default(),
            outstanding: AtomicUsize::new(0),
            touches: Touches::new(reactors),
            lease: AtomicU64::new(lease),
            durable,
            committed,
            refuses_writes: AtomicBool::new(false),
            status: Mutex::new(status),
            stopping: AtomicBool::new(false),
            clock,
            fatal,
        }
    }

    /// To be called once, before inputs come in.
    pub fn set_carrier(&self, carrier: Arc<dyn Carrier>) {
        assert!(self.carrier.set(carrier).is_ok(), "one carrier serves a core");
    }

    pub fn now(&self) -> Now {
        (self.clock)()
    }

    pub fn outstanding(&self) -> usize {
        self.outstanding.load(Ordering::Relaxed)
    }

    /// The bytes of those requests.
    pub fn outstanding_bytes(&self) -> usize {
        self.account.outstanding()
    }

    /// Bytes on their way to the log.
    pub fn unlogged_bytes(&self) -> usize {
        self.account.unlogged()
    }

    /// Whether new writes are refused, as the disk has no room for them.
    pub fn refuses_writes(&self) -> bool {
        self.refuses_writes.load(Ordering::Relaxed)
    }

    pub fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Acquire)
    }

    /// Whether a read may be answered: a leader that has not heard of its quorum for a while, or a server that has not
    /// heard of its leader, may have been replaced without knowing it. After a pause, time has passed unnoticed.
    #[inline]
    pub fn may_read(&self) -> bool {
        let lease = self.lease.load(Ordering::Acquire);
        lease == u64::MAX || self.now().mono_ms <= lease
    }

    /// Everything up to here is on disk.
    pub fn durable(&self) -> Zxid {
        Zxid(self.durable.load(Ordering::Acquire))
    }

    /// The last transaction that is known to be committed, whenever that is looked at.
    pub fn committed(&self) -> Arc<AtomicI64> {
        self.committed.clone()
    }

    /// Takes what the disk has done.
    pub fn performed(&self, mut performed: Performed) {
        for (txns, took) in &performed.syncs {
            self.figures.synced(*txns, *took);
        }
        for input in &performed.done {
            if let Input::Disk(
                DiskDone::Logged(zxid)
                | DiskDone::Truncated(zxid)
                | DiskDone::Staged(zxid)
                | DiskDone::Unstaged(zxid),
                _,
            ) = input
            {
                self.durable.store(zxid.0, Ordering::Release);
            }
        }
        if let Some(free) = performed.free {
            self.account.disk_free.store(free, Ordering::Relaxed);
        }
        self.inbox.submit(&mut performed.done, &mut self.run(Who::Log));
        if performed.wants_snapshot {
            self.snapshots.ask();
        }
    }

    /// What this server was when the core last looked.
    pub fn status(&self) -> Status {
        self.with_status(Status::clone)
    }

    /// The same without a copy.
    pub fn with_status<T>(&self, f: impl FnOnce(&Status) -> T) -> T {
        f(&self.status.lock())
    }

    /// Ends the threads: the log thread first syncs what it has.
    pub fn stop(&self) {
        self.stopping.store(true, Ordering::Release);
        self.log.stop();
        self.snapshots.stop();
        self.alarm.ring();
        self.inbox.stop();
        for mailbox in &self.mailboxes {
            mailbox.wake();
        }
    }

    pub(crate) fn fatal(&self, error: Fatal) {
        (self.fatal)(error);
    }

    /// Runs `f` with the replica, for dumps, unless the core is at work: whoever holds the database's read lock must
    /// not wait for the core, which may be waiting for the write lock.
    pub fn look<T>(&self, f: impl FnOnce(&Replica) -> T) -> Option<T> {
        self.inbox.look(|shell| f(&shell.replica))
    }

    /// Which sessions the reactors have heard from since this was last asked.
    pub fn collect_touches(&self) -> Input {
        Input::Touched(self.touches.collect())
    }

    /// Hands in a batch, and works off the inbox unless somebody else is at it. `from` is the reactor that runs this.
    pub fn submit(&self, inputs: &mut Vec<Input>, from: Option<usize>) {
        self.inbox.submit(inputs, &mut self.run(from.map_or(Who::Other, Who::Reactor)));
    }

    /// The thread that goes on where others have stopped. Returns once the core stops.
    pub fn relieve(&self) {
        self.inbox.relieve(&mut self.run(Who::Relief));
    }

    fn run(&self, who: Who) -> Run<'_> {
        Run { core: self, who, has_begun: false, until: None }
    }

    /// Applies a share of what is committed, or handles a share of the batch.
    fn turn(&self, shell: &mut Shell, batch: &mut VecDeque<Input>, from: Option<usize>) {
        let Shell { replica, outputs } = shell;
        let now = self.now();
        let handles = !replica.has_steps();
        if handles {
            let db = self.db.read();
            let mut handled = 0;
            while handled < HANDLED_AT_ONCE
                && let Some(input) = batch.pop_front()
            {
                handled += 1 + input.bytes() / BYTES_OF_ONE;
                replica.handle(now, &db, input, outputs);
            }
        } else {
            let mut db = self.db.write();
            replica.apply(now, &mut db, outputs);
            mailbox::deliver(outputs, &self.mailboxes);
        }
        // What was applied may own the next step: closing a session proposes, and that has to reach the log too.
        self.push_disk_work(outputs);
        // Others continue while this server applies.
        self.carry(outputs);
        if handles && replica.has_steps() {
            return;
        }
        mailbox::deliver(outputs, &self.mailboxes);
        self.publish(replica, outputs, from);
        outputs.give_back();
    }

    fn carry(&self, outputs: &mut Outputs) {
        if let Some(carrier) = self.carrier.get() {
            carrier.carry(outputs);
        }
    }

    fn push_disk_work(&self, outputs: &mut Outputs) {
        if outputs.zab.disk.is_empty() {
            return;
        }
        let appended = outputs.zab.disk.iter().filter_map(|op| match op {
            DiskOp::Append(entry) => Some(entry.body.len()),
            _ => None,
        });
        self.figures.proposed(appended);
        self.log.push(&mut outputs.zab.disk);
    }

    /// What others look at without the lock.
    fn publish(&self, replica: &mut Replica, outputs: &mut Outputs, from: Option<usize>) {
        self.outstanding.store(replica.outstanding(), Ordering::Relaxed);
        let has_room = self.account.publish(&replica.amounts());
        self.committed.store(replica.committed().0, Ordering::Release);
        self.refuses_writes.store(replica.refuses_writes(), Ordering::Relaxed);
        self.account.room.store(replica.room().number(), Ordering::Relaxed);
        self.figures.count(&std::mem::take(&mut outputs.tally));
        outputs.quota_exceeded.drain(..).for_each(|namespace| self.figures.quota_exceeded(&namespace));
        self.alarm.set(replica.next_wake());
        let lease = replica.lease();
        let before = self.lease.swap(lease, Ordering::AcqRel);
        if replica.take_status_changed() {
            let status = replica.status();
            self.snapshots.allow(status.mode.has_leader());
            *self.status.lock() = status;
        } else {
            self.status.lock().standing = replica.standing();
        }
        outputs.told.drain(..).for_each(tell);
        if let Some(refusal) = outputs.refusal.take() {
            self.fatal(Fatal::Refusal(refusal));
        }
        if !outputs.replaced.is_empty() {
            // Freeing millions of znodes takes its time, which nobody should wait for.
            let replaced = std::mem::take(&mut outputs.replaced);
            std::thread::spawn(move || drop(replaced));
        }
        // Reads may have waited for a lease that ran out.
        let renewed = before != u64::MAX && lease > before && before < self.now().mono_ms;
        for (at, mailbox) in self.mailboxes.iter().enumerate() {
            if Some(at) == from {
                continue;
            }
            if renewed || has_room && mailbox.waits_for_room() {
                mailbox.wake()
            } else {
                mailbox.wake_if_mail()
            }
        }
    }
}

fn tell(told: Told) {
    let role = |observer| if observer { "observer" } else { "follower" };
    match told {
        Told::Looking { round, zxid, epoch } => {
            tracing::info!("looking for a leader round={round} zxid={zxid} epoch={epoch}");
        }
        Told::History { from } => tracing::info!(
            "this server's disk is empty but server {from} has data. It will not vote until all other servers are \
             reachable. If that data is permanently lost, stop all servers and delete version-2/zabra.debt"
        ),
        Told::Elected { leader, round } => tracing::info!("elected leader={leader} round={round}"),
        Told::Leads(epoch) => tracing::info!("serving clients role=leader epoch={epoch}"),
        Told::Learns { leader, epoch, observer } => {
            tracing::info!("serving clients role={} leader={leader} epoch={epoch}", role(observer));
        }
        Told::Joined { learner, observer } => {
            tracing::info!("learner joined server={learner} role={}", role(observer));
        }
        Told::Left { learner, why: None } => {
            tracing::warn!("learner lost server={learner} why=\"its connection ended\"");
        }
        Told::Left { learner, why: Some(why) } => {
            tracing::warn!("learner lost server={learner} why=\"{why}\"");
        }
        Told::StoodStill { ms } => tracing::warn!(
            "this server stood still for {ms} ms: its process was stopped, got no time of its machine, or was busy. Sessions are \
             given that time in addition"
        ),
        Told::ReadOnly => {
            tracing::warn!("no leader; entering read-only mode (only clients that accept it are served)");
        }
        Told::Lost { why } => tracing::warn!("{why}; looking for a leader"),
        Told::Reconfigured { version, pending, text } => {
            let what = if pending { "proposed" } else { "in force" };
            tracing::info!("configuration {version:x} is {what}: {}", text.replace('\n', ", "));
        }
        Told::Expired { first, count } => {
            let named: Vec<String> = first.iter().map(ToString::to_string).collect();
            let more = if count > first.len() {
                format!(" and {} more", count - first.len())
            } else {
                String::new()
            };
            tracing::info!(
                "sessions expired, as nothing was heard of their clients within their timeouts: {}{more}",
                named.join(", ")
            );
        }
        Told::TooLarge { session, limit, count } => tracing::warn!(
            "session {session} sent a write whose transaction is larger than {limit} bytes, which no server could read: \
             refused with error -8 ({count} refused since the last such line). Its client should write less at once, or \
             use fewer and shorter ACL entries. jute.maxbuffer sets the limit and must be the same on all servers"
        ),
        Told::DigestMismatch { zxid, doubt: Doubt::Replace } => tracing::error!(
            "this server's tree differs from the leader's after {zxid}: it serves nobody until it has loaded the leader's \
             snapshot; its own files are kept aside"
        ),
        Told::DigestMismatch { zxid, doubt: Doubt::ServeOn { count } } => tracing::error!(
            "this server's tree differs from what transaction {zxid} says, and no snapshot can mend that: it continues to \
             serve ({count} such transactions since the last such line). Compare the data with another server's or a backup; \
             mntr counts each as zk_digest_mismatches_count"
        ),
    }
}
