//! What a run has met: so that a comparison of nothing cannot pass for one of everything.

use crate::connection::Heard;
use crate::op;
use crate::side::Sent;
use std::collections::BTreeMap;

#[derive(Debug, Default)]
pub struct Tally {
    pub requests: u64,
    pub scripts: u64,
    pub events: BTreeMap<i32, u64>,
    pub connects: u64,
    pub expired: u64,
    pub removed: u64,
    /// How often both servers said nothing where something was awaited: the script was wrong.
    pub silences: u64,
    /// By operation: done, refused.
    pub by_op: BTreeMap<i32, [u64; 2]>,
    pub errors: BTreeMap<i32, u64>,
}

impl Tally {
    pub fn count(&mut self, sends: &[Sent], heard: &[Heard]) {
        self.requests += sends.len() as u64;
        let mut in_order = sends.iter();
        for heard in heard {
            match heard {
                Heard::Event(event) => {
                    let kind = event.body.first_chunk().map_or(0, |kind| i32::from_be_bytes(*kind));
                    *self.events.entry(kind).or_default() += 1;
                }
                Heard::Reply(reply) => {
                    // An answer that overtook is counted for its neighbour: it is a tally.
                    let op = in_order.next().map_or(0, |sent| sent.op);
                    let inside = op == op::MULTI
                        && reply.body.starts_with(&[0xff; 4])
                        && reply.body.get(4) == Some(&0);
                    self.by_op.entry(op).or_default()[usize::from(reply.err != 0 || inside)] += 1;
                    *self.errors.entry(reply.err).or_default() += 1;
                }
                Heard::Odd(_) | Heard::Closed | Heard::Silence => {}
            }
        }
    }

    pub fn add(&mut self, other: &Tally) {
        self.requests += other.requests;
        self.scripts += other.scripts;
        self.connects += other.connects;
        self.expired += other.expired;
        self.removed += other.removed;
        self.silences += other.silences;
        for (kind, count) in &other.events {
            *self.events.entry(*kind).or_default() += count;
        }
        for (op, [done, refused]) in &other.by_op {
            let sum = self.by_op.entry(*op).or_default();
            *sum = [sum[0] + done, sum[1] + refused];
        }
        for (err, count) in &other.errors {
            *self.errors.entry(*err).or_default() += count;
        }
    }

    /// What a run of any size must have met, and this one has not.
    pub fn gaps(&self) -> Vec<String> {
        let mut gaps = Vec::new();
        const NEVER_REFUSED: [i32; 4] = [op::PING, op::WHO_AM_I, op::CLOSE_SESSION, op::SASL];
        const NEVER_DONE: [i32; 4] = [op::RECONFIG, op::CHECK, op::DELETE_CONTAINER, op::CREATE_SESSION];
        for op in (-11..=107).filter(|op| op::name(*op) != "?") {
            let [done, refused] = self.by_op.get(&op).copied().unwrap_or_default();
            if done == 0 && !NEVER_DONE.contains(&op) {
                gaps.push(format!("{} was never done", op::name(op)));
            }
            if refused == 0 && !NEVER_REFUSED.contains(&op) {
                gaps.push(format!("{} was never refused", op::name(op)));
            }
        }
        for err in [-5, -6, -8, -101, -102, -103, -108, -110, -111, -114, -115, -121, -123, -125] {
            if !self.errors.contains_key(&err) {
                gaps.push(format!("no error {err}"));
            }
        }
        gaps.extend(
            (1..=4).filter(|kind| !self.events.contains_key(kind)).map(|kind| format!("no event {kind}")),
        );
        if self.silences > 0 {
            gaps.push(format!("{} times both servers were silent", self.silences));
        }
        if self.expired == 0 || self.removed == 0 {
            gaps.push("no session expired, or no znode went by itself".into());
        }
        gaps
    }
}

impl std::fmt::Display for Tally {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let done: Vec<_> = self
            .by_op
            .iter()
            .map(|(op, [done, refused])| format!("{} {done}/{refused}", op::name(*op)))
            .collect();
        let errors: Vec<_> = self.errors.iter().map(|(err, count)| format!("{err}: {count}")).collect();
        let events: u64 = self.events.values().sum();
        writeln!(f, "done/refused: {}", done.join(", "))?;
        writeln!(f, "errors: {}", errors.join(", "))?;
        write!(
            f,
            "{} events, {} connects, {} sessions expired, {} znodes went by themselves",
            events, self.connects, self.expired, self.removed
        )
    }
}
