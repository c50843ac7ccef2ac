//! Lines of the log that say why a client was refused or sent away: a few of each kind, and how many were left out.

use crate::conversation::End;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::mem::{Discriminant, discriminant};
use std::time::{Duration, Instant};
use tracing::Level;

/// Lines of one kind that a period has.
const LINES: u32 = 10;
const PERIOD: Duration = Duration::from_secs(1);
/// The same where every connection that comes meets one cause, which only an operator ends.
const LASTING_LINES: u32 = 1;
const LASTING_PERIOD: Duration = Duration::from_secs(10);

/// What is counted together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Kind {
    End(Discriminant<End>),
    /// What is wrong with a client's TLS: a hash of the text, as there are many ways.
    Tls(u64),
    /// `maxClientCnxns`.
    Address,
    /// `maxCnxns`.
    Connections,
    /// The limit of open files, of which some are kept for other uses.
    Descriptors,
    /// The system accepts none.
    Accept,
    /// A login that failed, of a client that may go on as nobody.
    Login,
}

impl Kind {
    fn lines(self) -> u32 {
        if self.is_lasting() { LASTING_LINES } else { LINES }
    }

    fn is_over(self, said: &Said, now: Instant) -> bool {
        let period = if self.is_lasting() { LASTING_PERIOD } else { PERIOD };
        now.saturating_duration_since(said.since) >= period
    }

    fn is_lasting(self) -> bool {
        matches!(self, Self::Descriptors | Self::Accept)
    }
}

impl From<&End> for Kind {
    fn from(end: &End) -> Self {
        let End::Tls(why) = end else { return Self::End(discriminant(end)) };
        let mut hasher = DefaultHasher::new();
        why.hash(&mut hasher);
        Self::Tls(hasher.finish())
    }
}

#[derive(Debug)]
struct Said {
    since: Instant,
    lines: u32,
    left_out: u64,
    /// The last line, for the one that counts.
    last: (Level, String),
}

#[derive(Debug, Default)]
pub(super) struct Refusals(Mutex<HashMap<Kind, Said>>);

impl Refusals {
    /// Logs `text`, unless there were many of its kind just now.
    pub fn say(&self, kind: Kind, level: Level, now: Instant, text: impl FnOnce() -> String) {
        if let Some(text) = self.admit(kind, level, now, text) {
            log(level, &text);
        }
    }

    fn admit(&self, kind: Kind, level: Level, now: Instant, text: impl FnOnce() -> String) -> Option<String> {
        let mut all = self.0.lock();
        let said = all.entry(kind).or_insert_with(|| Said {
            since: now,
            lines: 0,
            left_out: 0,
            last: (level, String::new()),
        });
        // What was left out is logged first: then a new period begins.
        if said.left_out == 0 && kind.is_over(said, now) {
            (said.since, said.lines) = (now, 0);
        }
        if said.lines == kind.lines() {
            said.left_out += 1;
            return None;
        }
        said.lines += 1;
        said.last = (level, text());
        Some(said.last.1.clone())
    }

    /// Tells how many lines were left out. To be called now and then.
    pub fn summarize(&self, now: Instant) {
        for (level, text) in self.take_left_out(now) {
            log(level, &text);
        }
    }

    fn take_left_out(&self, now: Instant) -> Vec<(Level, String)> {
        let mut all = self.0.lock();
        all.retain(|kind, said| said.left_out > 0 || !kind.is_over(said, now));
        let mut told = Vec::new();
        for (_, said) in all.iter_mut().filter(|(kind, said)| kind.is_over(said, now)) {
            let (level, last) = &said.last;
            told.push((*level, format!("{} more lines like this one were left out: {last}", said.left_out)));
            (said.since, said.lines, said.left_out) = (now, 0, 0);
        }
        told
    }
}

fn log(level: Level, text: &str) {
    match level {
        Level::ERROR | Level::WARN => tracing::warn!("{text}"),
        Level::INFO => tracing::info!("{text}"),
        Level::DEBUG | Level::TRACE => tracing::debug!("{text}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_few_lines_a_second_are_logged_of_each_kind_and_the_others_are_counted() {
        let refusals = Refusals::default();
        let begin = Instant::now();
        let say = |kind, at: u64| {
            let now = begin + Duration::from_millis(at);
            refusals.admit(kind, Level::WARN, now, || format!("at {at}")).is_some()
        };
        let logged = |kind, from: u64| (from..from + 20).filter(|at| say(kind, *at)).count();
        assert_eq!(logged(Kind::Address, 0), LINES as usize);
        assert_eq!(logged(Kind::Login, 0), LINES as usize, "a kind does not hide another");
        assert_eq!(refusals.take_left_out(begin + Duration::from_millis(500)), []);
        let told = refusals.take_left_out(begin + PERIOD);
        let line = "10 more lines like this one were left out: at 9".to_string();
        assert_eq!(told, [(Level::WARN, line.clone()), (Level::WARN, line)]);
        assert_eq!(logged(Kind::Address, 1000), LINES as usize);
        assert!(refusals.take_left_out(begin + PERIOD * 3).len() == 1);
        assert_eq!(refusals.take_left_out(begin + PERIOD * 5), []);
        assert!(refusals.0.lock().is_empty(), "what is long ago is forgotten");
        assert_eq!(logged(Kind::Descriptors, 10_000), 1);
        assert_eq!(refusals.take_left_out(begin + PERIOD * 15), [], "a lasting cause is logged once in 10 s");
        assert_eq!(refusals.take_left_out(begin + PERIOD * 20).len(), 1);
    }
}
