//! The timer: collects which sessions were heard from, then lets time pass for the replica, at its own pace or when
//! the replica asks for it.

use super::Core;
use crate::replica::Input;
use std::sync::Arc;
use std::time::Duration;

/// Milliseconds between two looks what room the disk has, at the least.
const LOOK_MS: u64 = 500;

/// Ticks at least every `period` until the core stops. Touches come first: no session expires that a reactor has heard
/// from.
pub fn run(core: &Arc<Core>, period: Duration) {
    let period = period.as_millis() as u64;
    let mut inputs = Vec::new();
    // The first tick begins the first election.
    let mut next = core.now().mono_ms;
    let mut next_look = next;
    while !core.is_stopping() {
        core.alarm.sleep(core.now().mono_ms, next.min(next_look));
        let now = core.now().mono_ms;
        if now >= next_look {
            next_look = now + LOOK_MS;
            core.log.look_for_room();
        }
        if now >= next {
            next = now + period;
            inputs.push(core.collect_touches());
        }
        core.alarm.take();
        inputs.push(Input::Tick);
        core.submit(&mut inputs, None);
    }
}

#[cfg(test)]
mod tests {
    use super::super::Alarm;
    use std::time::{Duration, Instant};

    /// Otherwise ticks pile up while another thread runs the replica: the more there are the longer that takes, and the
    /// more come.
    #[test]
    fn a_time_that_was_seen_to_wakes_nobody_again() {
        let alarm = Alarm::default();
        alarm.set(5);
        let started = Instant::now();
        alarm.sleep(10, 60_000);
        assert!(started.elapsed() < Duration::from_secs(30), "the time had come");
        alarm.take();
        alarm.sleep(10, 30);
        assert!(started.elapsed() >= Duration::from_millis(20), "there was nothing to wake for");
    }
}
