//! What signals ask of a process. None of them ends a server without a stop, but those that no process can take.

use std::future::poll_fn;
use std::io;
use std::task::Poll;
use tokio::runtime::{Builder, Runtime};
use tokio::signal::unix::{Signal, SignalKind, signal};

/// What is asked for, and by which signal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asked {
    /// To end: SIGTERM and SIGINT.
    Stop(&'static str),
    /// To open the log's file again: SIGHUP and SIGUSR1.
    Reopen(&'static str),
    /// To tell what every thread is at: SIGQUIT.
    Threads,
    /// To log more, or as much as before: SIGUSR2.
    Level,
}

/// Made before threads are: they inherit what it sets up.
pub struct Signals {
    runtime: Runtime,
    asked: Vec<(Asked, Signal)>,
}

impl Signals {
    const STOP: [(Asked, SignalKind); 2] =
        [(Asked::Stop("SIGTERM"), SignalKind::terminate()), (Asked::Stop("SIGINT"), SignalKind::interrupt())];

    /// Those that ask for the end. The others do what the system has them do.
    pub fn of_the_end() -> io::Result<Self> {
        Self::new(&Self::STOP)
    }

    /// All that a server knows.
    pub fn all() -> io::Result<Self> {
        Self::new(&[
            Self::STOP[0],
            Self::STOP[1],
            (Asked::Reopen("SIGHUP"), SignalKind::hangup()),
            (Asked::Reopen("SIGUSR1"), SignalKind::user_defined1()),
            (Asked::Threads, SignalKind::quit()),
            (Asked::Level, SignalKind::user_defined2()),
        ])
    }

    fn new(asked: &[(Asked, SignalKind)]) -> io::Result<Self> {
        let runtime = Builder::new_current_thread().enable_io().build()?;
        let guard = runtime.enter();
        let asked: io::Result<_> = asked.iter().map(|(asked, kind)| Ok((*asked, signal(*kind)?))).collect();
        drop(guard);
        Ok(Self { asked: asked?, runtime })
    }

    /// Waits for one.
    pub fn wait(&mut self) -> Asked {
        let asked = &mut self.asked;
        self.runtime.block_on(poll_fn(|context| {
            for (asked, signal) in &mut *asked {
                if signal.poll_recv(context).is_ready() {
                    return Poll::Ready(*asked);
                }
            }
            Poll::Pending
        }))
    }
}
