//! All that threads meet at, under a checker: the same files as in production, on primitives whose schedule shuttle draws. Each
//! test is run with thousands of schedules. What nobody is woken for any more is a deadlock, which fails the test.

#![allow(
    clippy::duplicate_mod,
    dead_code,
    reason = "the files are compiled once more, and not all of each is used"
)]

use super::reactor_of;

#[path = "../alarm.rs"]
mod alarm;
#[path = "../inbox.rs"]
mod inbox;
#[path = "../log_queue.rs"]
mod log_queue;
#[path = "../mailbox.rs"]
mod mailbox;
mod sync;
#[path = "../touches.rs"]
mod touches;

use crate::model::{ConnId, Epoch, SessionId};
use crate::replica::{ClientMessage, ClientOutput, DiskOp, Outputs};
use alarm::Alarm;
use inbox::{Inbox, Worker};
use log_queue::LogQueue;
use mailbox::{Mail, Mailbox};
use shuttle::thread;
use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use sync::{AtomicBool, AtomicU32, Condvar, Mutex, Ordering};
use touches::Touches;

const SCHEDULES: usize = 10_000;

/// Half of the schedules are drawn evenly; the others change threads a few times only, at any places.
fn check(f: impl Fn() + Clone + Send + Sync + 'static) {
    shuttle::check_random(f.clone(), SCHEDULES / 2);
    shuttle::check_pct(f, SCHEDULES / 2, 3);
}

/// Something that is waited for, and stays once it is there.
#[derive(Default)]
struct Signal {
    given: Mutex<bool>,
    changed: Condvar,
}

impl Signal {
    fn give(&self) {
        *self.given.lock() = true;
        self.changed.notify_one();
    }

    /// Waits for it, and takes it away.
    fn take(&self) {
        let mut given = self.given.lock();
        while !*given {
            self.changed.wait(&mut given);
        }
        *given = false;
    }
}

// The inbox.

/// Of each input, its thread and its place.
type Given = (usize, usize);

/// What the inbox is before.
struct Work {
    handled: Vec<Given>,
    /// What is to be done beside the inputs, and before the next of them.
    steps: usize,
    expected: usize,
    done: Arc<Signal>,
}

#[derive(Clone, Copy, PartialEq)]
enum Hand {
    /// Leaves the steps to others.
    NoSteps,
    /// Has enough after one turn.
    OneTurn(bool),
    All,
}

impl Worker<Work, Given> for Hand {
    fn has_more(&self, work: &Work) -> bool {
        work.steps > 0
    }

    fn has_enough(&mut self, work: &Work) -> bool {
        match self {
            Self::NoSteps => work.steps > 0,
            Self::OneTurn(had) => std::mem::replace(had, true),
            Self::All => false,
        }
    }

    fn turn(&mut self, work: &mut Work, batch: &mut VecDeque<Given>) {
        if work.steps > 0 {
            assert!(*self != Self::NoSteps, "it leaves them to others");
            work.steps -= 1;
        } else {
            work.handled.extend(batch.pop_front());
            work.steps += 1;
        }
        if work.handled.len() == work.expected && work.steps == 0 {
            work.done.give();
        }
    }
}

#[test]
fn no_batch_is_stranded_whoever_stops_when() {
    check(|| {
        let hands = [Hand::NoSteps, Hand::OneTurn(false)];
        let expected = 3 * hands.len();
        let done = Arc::new(Signal::default());
        let work = Work { handled: Vec::new(), steps: 0, expected, done: done.clone() };
        let inbox = Arc::new(Inbox::new(work));
        let at = inbox.clone();
        let relief = thread::spawn(move || at.relieve(&mut Hand::All));
        let submit = |(thread, hand): (usize, Hand)| {
            let inbox = inbox.clone();
            thread::spawn(move || {
                for batch in [vec![(thread, 0), (thread, 1)], vec![(thread, 2)]] {
                    inbox.submit(&mut { batch }, &mut hand.clone());
                }
            })
        };
        let threads: Vec<_> = hands.into_iter().enumerate().map(submit).collect();
        inbox.look(|_| thread::yield_now());
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        // A batch that is stranded is never handled.
        done.take();
        inbox.stop();
        relief.join().unwrap();
        let handled = inbox.look(|work| work.handled.clone()).unwrap();
        for thread in 0..hands.len() {
            let its: Vec<usize> = handled.iter().filter(|(of, _)| *of == thread).map(|(_, at)| *at).collect();
            assert_eq!(its, [0, 1, 2], "in the order in which a thread hands in");
        }
    });
}

// From the core to a reactor.

#[test]
fn a_reactor_that_sleeps_has_no_mail_and_gets_all_in_order() {
    check(|| {
        let mailboxes = Arc::new([Mailbox::default()]);
        let woken = Arc::new(Signal::default());
        let wake = woken.clone();
        mailboxes[0].on_wake(Box::new(move || wake.give()));
        let at = mailboxes.clone();
        // As `Core::turn` does it, and others with it that bring no mail.
        let core = move |from: usize, count: usize| {
            let at = at.clone();
            thread::spawn(move || {
                for number in from..from + count {
                    let mut outputs = Outputs::default();
                    let (message, len) = (ClientMessage::Reply, 1);
                    outputs.client.push(ClientOutput { conn: ConnId(number as u64), message, len });
                    outputs.bytes.extend_from_slice(&[number as u8]);
                    mailbox::deliver(&mut outputs, &at[..]);
                    at[0].wake_if_mail();
                }
                at[0].wake_if_mail();
            })
        };
        let cores = [core(0, 3), core(10, 1)];
        let mut got = Vec::new();
        let mut mail = Mail::default();
        while got.len() < 4 {
            if !mailboxes[0].has_mail() {
                woken.take();
            }
            mailboxes[0].take(&mut mail);
            while let Some((message, bytes)) = mail.pop() {
                assert_eq!(message.conn.0 as u8, bytes[0], "the bytes are the message's");
                got.push(bytes[0]);
            }
        }
        cores.into_iter().for_each(|core| core.join().unwrap());
        got.retain(|number| *number < 10);
        assert_eq!(got, [0, 1, 2]);
    });
}

// From the core to the log thread.

#[test]
fn the_log_thread_gets_all_work_in_order_and_ends_after_it() {
    check(|| {
        let queue = Arc::new(LogQueue::default());
        let at = queue.clone();
        let log = thread::spawn(move || {
            let (mut all, mut batch) = (Vec::new(), Vec::new());
            while at.take(&mut batch) {
                all.append(&mut batch);
            }
            all
        });
        for epoch in 0..3 {
            queue.push(&mut vec![DiskOp::SaveAccepted(Epoch(epoch)), DiskOp::SaveCurrent(Epoch(epoch))]);
            thread::yield_now();
        }
        queue.stop();
        let epochs = log.join().unwrap().into_iter().map(|op| match op {
            DiskOp::SaveAccepted(epoch) => (epoch.0, 0),
            DiskOp::SaveCurrent(epoch) => (epoch.0, 1),
            other => panic!("{other:?} was not asked for"),
        });
        assert_eq!(epochs.collect::<Vec<_>>(), [(0, 0), (0, 1), (1, 0), (1, 1), (2, 0), (2, 1)]);
    });
}

// The timer.

#[test]
fn the_timer_is_woken_for_a_time_that_is_set_while_it_falls_asleep() {
    check(|| {
        let alarm = Arc::new(Alarm::default());
        let ticked = Arc::new(Signal::default());
        let stops = Arc::new(AtomicBool::new(false));
        let (at, tell, ends) = (alarm.clone(), ticked.clone(), stops.clone());
        // As the timer does it. It may be woken in vain.
        let timer = thread::spawn(move || {
            while !ends.load(Ordering::SeqCst) {
                at.sleep(10, 100);
                at.take();
                tell.give();
            }
        });
        for _ in 0..2 {
            alarm.set(50);
            alarm.set(5);
            ticked.take();
        }
        stops.store(true, Ordering::SeqCst);
        alarm.ring();
        timer.join().unwrap();
    });
}

// Who was heard from.

#[test]
fn who_is_heard_between_two_collections_is_in_the_second() {
    check(|| {
        let touches = Arc::new(Touches::new(2));
        let (begun, ended) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicU32::new(0)));
        let hear = |reactor: usize| {
            let (touches, begun, ended) = (touches.clone(), begun.clone(), ended.clone());
            thread::spawn(move || {
                let mut touched_in = 0;
                let mut heard = Vec::new();
                for _ in 0..4 {
                    let before = ended.load(Ordering::SeqCst);
                    let round = touches.round();
                    if touched_in != round {
                        touched_in = round;
                        touches.add(reactor, SessionId(reactor as i64));
                    }
                    if begun.load(Ordering::SeqCst) == before {
                        heard.push(before as usize);
                    }
                }
                heard
            })
        };
        let reactors = [hear(0), hear(1)];
        let mut collected = Vec::new();
        for collection in 1..=3 {
            begun.store(collection, Ordering::SeqCst);
            collected.push(touches.collect().into_iter().collect::<BTreeSet<_>>());
            ended.store(collection, Ordering::SeqCst);
        }
        let heard = reactors.map(|reactor| reactor.join().unwrap());
        collected.push(touches.collect().into_iter().collect());
        for (reactor, heard) in heard.into_iter().enumerate() {
            for after in heard {
                assert!(
                    collected[after].contains(&SessionId(reactor as i64)),
                    "heard after collection {after}"
                );
            }
        }
    });
}

// The checker.

/// Without the second look into the inbox a batch that comes while the holder leaves is stranded.
#[test]
#[should_panic(expected = "deadlock")]
fn the_checker_finds_a_batch_that_is_stranded() {
    check(|| {
        let (inbox, bench) = (Arc::new(Mutex::new(Vec::new())), Arc::new(Mutex::new(0)));
        let done = Arc::new(Signal::default());
        let submit = || {
            let (inbox, bench, done) = (inbox.clone(), bench.clone(), done.clone());
            thread::spawn(move || {
                inbox.lock().push(());
                let Some(mut handled) = bench.try_lock() else { return };
                loop {
                    let batch = std::mem::take(&mut *inbox.lock());
                    *handled += batch.len();
                    if *handled == 2 {
                        done.give();
                    }
                    if batch.is_empty() {
                        return;
                    }
                }
            })
        };
        let threads = [submit(), submit()];
        done.take();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
    });
}
