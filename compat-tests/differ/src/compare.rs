//! Runs a script on both servers and compares what they say, frame by frame.

use crate::connection::{Connection, Heard, Reply, Welcome, password_of, request};
use crate::heard::{self, differ};
use crate::known::{Known, Rule};
use crate::op;
use crate::script::{Password, Seen, Step, hex};
use crate::server::{Kind, Server, World};
use crate::side::{SLOTS, Sent, Side};
use crate::tally::Tally;
use crate::tree;
use std::collections::BTreeMap;

/// Two servers of one world, and what the driver knows of them.
#[derive(Debug)]
pub struct Pair {
    servers: [Server; 2],
    sides: [Side; 2],
}

/// Where the servers said different things.
#[derive(Debug, Clone)]
pub struct Difference {
    /// The step's place in the script; the number of steps for what shows after the last.
    pub step: usize,
    pub text: String,
}

/// What a run of a script needs beside the servers.
#[derive(Debug)]
pub struct Context<'a> {
    pub known: &'a Known,
    pub tally: &'a mut Tally,
}

impl Pair {
    /// A free port may be taken before a server has it: then another one is tried.
    pub fn start(world: &World) -> Result<Pair, String> {
        let mut tries = (0..3).map(|_| Self::try_start(world));
        tries.find(Result::is_ok).unwrap_or_else(|| Self::try_start(world))
    }

    fn try_start(world: &World) -> Result<Pair, String> {
        let text = |error: std::io::Error| error.to_string();
        let mut java = Server::spawn(Kind::Java, world).map_err(text)?;
        let mut zabra = Server::spawn(Kind::Zabra, world).map_err(text)?;
        java.wait_until_serving().map_err(text)?;
        zabra.wait_until_serving().map_err(text)?;
        let sides = [
            Side::new(Kind::Java, java.address, world.digest).map_err(text)?,
            Side::new(Kind::Zabra, zabra.address, world.digest).map_err(text)?,
        ];
        Ok(Pair { servers: [java, zabra], sides })
    }

    /// Runs the script, then compares the trees and removes what it left. After a difference the pair can only be used
    /// once it is mended. `Err`: the comparison itself did not work.
    pub fn run(&mut self, steps: &[Step], cx: &mut Context<'_>) -> Result<Option<Difference>, String> {
        for side in &mut self.sides {
            side.begin().map_err(|end| format!("{}: {end:?}", side.kind.name()))?;
        }
        let mut waiting: Vec<Vec<Sent>> = vec![Vec::new(); SLOTS];
        for (at, step) in steps.iter().enumerate() {
            let found = self.step(step, &mut waiting, cx);
            if let Some(text) = found {
                return Ok(Some(Difference { step: at, text: text + &self.obituary() }));
            }
        }
        let found = self.finish(&mut waiting, cx);
        Ok(found.map(|text| Difference { step: steps.len(), text: text + &self.obituary() }))
    }

    /// Empties both servers after a difference. Whether they stand alike then.
    pub fn mend(&mut self) -> bool {
        let mut trees = Vec::new();
        for side in &mut self.sides {
            let emptied = side.close_sessions().and_then(|()| tree::clear(side)).and_then(|()| side.begin());
            trees.push(emptied.and_then(|()| tree::walk(side)));
        }
        matches!((&trees[0], &trees[1]), (Ok(java), Ok(zabra)) if java == zabra)
    }

    /// Says so if a server died.
    fn obituary(&mut self) -> String {
        let mut text = String::new();
        for server in &mut self.servers {
            if !server.is_alive() {
                text.push_str(&format!("\n{} has ended:\n{}", server.kind.name(), server.log()));
            }
        }
        text
    }

    fn step(&mut self, step: &Step, waiting: &mut [Vec<Sent>], cx: &mut Context<'_>) -> Option<String> {
        match step {
            Step::Open { slot, timeout, read_only } => self.open(*slot, *timeout, *read_only, cx),
            Step::Send { slot, xid, op, back, body } => {
                let sent = Sent { xid: *xid, op: *op, back: *back, body: body.clone() };
                waiting[*slot].push(sent);
                None
            }
            Step::Await => {
                self.gathered(waiting).into_iter().find_map(|(slot, sent)| self.alone(slot, &sent, cx))
            }
            Step::AwaitTogether => {
                let gathered = self.gathered(waiting);
                self.together(gathered, cx)
            }
            Step::Cut { slot } => {
                self.sides.iter_mut().for_each(|side| side.cut(*slot));
                None
            }
            Step::Resume { slot, timeout, password, seen } => {
                self.resume(*slot, *timeout, *password, *seen, cx)
            }
            Step::Raw { slot, bytes } => self.raw(*slot, bytes, cx),
            Step::Probe { body } => self.probe(body, cx),
            Step::Expire { slot } => self.expire(*slot, cx),
            Step::Removal { slot } => self.removal(*slot, cx),
        }
    }

    fn is_open(&self, slot: usize) -> bool {
        self.sides.iter().all(|side| side.slots[slot].connection.is_some())
    }

    fn open(
        &mut self,
        slot: usize,
        timeout: i32,
        read_only: Option<u8>,
        cx: &mut Context<'_>,
    ) -> Option<String> {
        cx.tally.connects += 1;
        let [java, zabra] = self.sides.each_mut().map(|side| side.open(slot, timeout, read_only));
        self.welcomes(&java, &zabra)
    }

    fn welcomes(&self, java: &Result<Welcome, Heard>, zabra: &Result<Welcome, Heard>) -> Option<String> {
        let shown = [(0, java), (1, zabra)].map(|(at, welcome)| match welcome {
            Ok(welcome) => show_welcome(&self.sides[at], welcome),
            Err(end) => format!("{end:?}"),
        });
        differ(&shown[0], &shown[1])
    }

    /// What waits to be sent, and can be.
    fn gathered(&self, waiting: &mut [Vec<Sent>]) -> Vec<(usize, Vec<Sent>)> {
        let taken = waiting.iter_mut().map(std::mem::take).enumerate();
        taken.filter(|(slot, sent)| !sent.is_empty() && self.is_open(*slot)).collect()
    }

    /// One session sends: everything that is heard is in an order that both servers must keep.
    fn alone(&mut self, slot: usize, sends: &[Sent], cx: &mut Context<'_>) -> Option<String> {
        for side in &mut self.sides {
            side.submit(slot, sends);
        }
        let heard = self.sides.each_mut().map(|side| side.collect(slot, sends));
        cx.tally.count(sends, &heard[1]);
        if let [Sent { op: op::CREATE_SESSION | op::DELETE_CONTAINER, .. }] = sends {
            return self.own_operation(slot, &sends[0], heard, cx);
        }
        let [java, zabra] = heard;
        self.compare(sends, java, zabra, cx.known)
    }

    /// The rule [`Rule::OwnOperations`]: Java answers as if it were one of its servers that asked, which costs a zxid;
    /// here the answer is −6 and the connection's end. Both are as they were afterwards, without a connection.
    fn own_operation(
        &mut self,
        slot: usize,
        sent: &Sent,
        heard: [Vec<Heard>; 2],
        cx: &Context<'_>,
    ) -> Option<String> {
        let is_event = |heard: &Heard| matches!(heard, Heard::Event(_));
        let [(java_events, java_rest), (zabra_events, zabra_rest)] =
            heard.map(|heard| heard.into_iter().partition::<Vec<_>, _>(is_event));
        let refused = Reply { xid: sent.xid, zxid: -1, err: -6, body: Vec::new() };
        let is_refused = zabra_rest == [Heard::Reply(refused), Heard::Closed];
        let is_run = matches!(&java_rest[..], [Heard::Reply(reply)] if reply.err != -6);
        if !is_refused || !is_run || !cx.known.explains(Rule::OwnOperations) {
            return Some(format!("{}: java {java_rest:?}, zabra {zabra_rest:?}", op::name(sent.op)));
        }
        let java = &mut self.sides[0];
        java.names.skip(java.names.high + 1);
        self.sides.iter_mut().for_each(|side| side.cut(slot));
        self.compare(&[], java_events, zabra_events, cx.known)
    }

    /// Takes the events that are on their way to a slot: the answer to a ping comes behind them. What ends a connection
    /// from outside its order (bytes that are no request, a second connection) may overtake them, with Java too.
    fn settle(&mut self, slot: usize, cx: &mut Context<'_>) -> Option<String> {
        self.alone(slot, &[Sent::ping()], cx)
    }

    /// Compares what one slot heard.
    fn compare(
        &mut self,
        sends: &[Sent],
        java: Vec<Heard>,
        zabra: Vec<Heard>,
        known: &Known,
    ) -> Option<String> {
        let [first, second] = &mut self.sides;
        heard::compare([&mut first.names, &mut second.names], sends, [java, zabra], known)
    }

    /// Several sessions send at the same time, each below a znode of its own. What one of them does is compared in
    /// its order; how it mixes with what the others do is free.
    fn together(&mut self, mut sends: Vec<(usize, Vec<Sent>)>, cx: &mut Context<'_>) -> Option<String> {
        let ping = Sent::ping();
        let quiet: Vec<usize> = (0..SLOTS)
            .filter(|slot| self.is_open(*slot) && !sends.iter().any(|(sending, _)| sending == slot))
            .collect();
        sends.extend(quiet.into_iter().map(|slot| (slot, vec![ping.clone()])));
        let from = self.sides.each_ref().map(|side| side.names.high);
        for side in &mut self.sides {
            sends.iter().for_each(|(slot, sent)| side.submit(*slot, sent));
        }
        let collect = |side: &mut Side, sends: &[(usize, Vec<Sent>)]| -> Vec<Vec<Heard>> {
            sends.iter().map(|(slot, sent)| side.collect(*slot, sent)).collect()
        };
        let mut heard = self.sides.each_mut().map(|side| collect(side, &sends));
        // A ping each, so that all events have come.
        let pings: Vec<_> = sends.iter().map(|(slot, _)| (*slot, vec![ping.clone()])).collect();
        for (side, heard) in self.sides.iter_mut().zip(&mut heard) {
            pings.iter().for_each(|(slot, sent)| side.submit(*slot, sent));
            heard.iter_mut().zip(collect(side, &pings)).for_each(|(heard, more)| heard.extend(more));
        }
        for (at, (_, sent)) in sends.iter_mut().enumerate() {
            sent.push(ping.clone());
            cx.tally.count(sent, &heard[1][at]);
        }
        for ((side, heard), from) in self.sides.iter_mut().zip(&mut heard).zip(from) {
            if let Some(text) = heard::free_order(&mut side.names, &sends, heard, from) {
                return Some(format!("{}: {text}", side.kind.name()));
            }
        }
        let [java, zabra] = heard;
        for (((slot, sent), java), zabra) in sends.iter().zip(java).zip(zabra) {
            let (own, others) = heard::by_subtree(*slot, java);
            let (zabra_own, zabra_others) = heard::by_subtree(*slot, zabra);
            let found = self.compare(sent, own, zabra_own, cx.known);
            let found = found.or_else(|| {
                let tops: std::collections::BTreeSet<_> =
                    others.keys().chain(zabra_others.keys()).cloned().collect();
                tops.into_iter().find_map(|top| {
                    let of = |all: &BTreeMap<Vec<u8>, Vec<Heard>>| all.get(&top).cloned().unwrap_or_default();
                    self.compare(&[], of(&others), of(&zabra_others), cx.known)
                })
            });
            if found.is_some() {
                return found;
            }
        }
        for side in &mut self.sides {
            // What each has seen last is somewhere in the free range: from here on, all of it.
            side.names.compared = side.names.high;
            let high = side.names.high;
            side.slots
                .iter_mut()
                .filter(|slot| slot.connection.is_some())
                .for_each(|slot| slot.last_seen = high);
        }
        None
    }

    fn resume(
        &mut self,
        slot: usize,
        timeout: i32,
        password: Password,
        seen: Seen,
        cx: &mut Context<'_>,
    ) -> Option<String> {
        if self.sides.iter().any(|side| side.slots[slot].session.or(side.slots[slot].former).is_none()) {
            return None;
        }
        cx.tally.connects += 1;
        let was_open = self.is_open(slot);
        if was_open && let Some(text) = self.settle(slot, cx) {
            return Some(text);
        }
        let [java, zabra] = self.sides.each_mut().map(|side| side.resume(slot, timeout, password, seen));
        if let Some(text) = self.welcomes(&java.0, &zabra.0) {
            return Some(text);
        }
        let taken_over = java.0.as_ref().is_ok_and(|welcome| welcome.session != 0);
        let connections = [java.1, zabra.1];
        if taken_over {
            let before = was_open.then(|| {
                self.sides.each_mut().map(|side| side.collect_until(slot, |heard| *heard == Heard::Closed))
            });
            for (side, connection) in self.sides.iter_mut().zip(connections) {
                side.slots[slot].connection = connection;
            }
            let [java, zabra] = before?;
            return self.compare(&[], java, zabra, cx.known);
        }
        // Refused: the new connections end.
        let ends =
            connections.map(|connection| connection.map_or(Heard::Closed, |mut new: Connection| new.hear()));
        if let Some(text) = differ(&format!("{:?}", ends[0]), &format!("{:?}", ends[1])) {
            return Some(text);
        }
        if was_open && java.0.is_ok() { self.password_first(slot, cx) } else { None }
    }

    /// The rule [`Rule::PasswordFirst`]: the refused stranger has cost the owner its connection there, and not here.
    fn password_first(&mut self, slot: usize, cx: &Context<'_>) -> Option<String> {
        let ping = [Sent::ping()];
        let [java, zabra] = &mut self.sides;
        let cut = java.collect_until(slot, |heard| *heard == Heard::Closed);
        let last_seen = zabra.slots[slot].last_seen;
        zabra.submit(slot, &ping);
        let kept = zabra.collect(slot, &ping);
        zabra.slots[slot].last_seen = last_seen;
        let events = |heard: &[Heard]| heard[..heard.len().saturating_sub(1)].to_vec();
        let as_known = cut.last() == Some(&Heard::Closed) && matches!(kept.last(), Some(Heard::Reply(_)));
        let (java_events, zabra_events) = (events(&cut), events(&kept));
        if !as_known || !cx.known.explains(Rule::PasswordFirst) {
            return Some(format!("a wrong password: java {cut:?}, zabra {kept:?}"));
        }
        zabra.cut(slot);
        self.compare(&[], java_events, zabra_events, cx.known)
    }

    fn raw(&mut self, slot: usize, bytes: &[u8], cx: &mut Context<'_>) -> Option<String> {
        if !self.is_open(slot) {
            return None;
        }
        if let Some(text) = self.settle(slot, cx) {
            return Some(text);
        }
        let [java, zabra] = self.sides.each_mut().map(|side| {
            if let Some(connection) = &mut side.slots[slot].connection {
                connection.send(bytes);
            }
            side.collect_until(slot, |heard| *heard == Heard::Closed)
        });
        self.compare(&[], java, zabra, cx.known)
    }

    fn probe(&mut self, body: &[u8], cx: &mut Context<'_>) -> Option<String> {
        cx.tally.connects += 1;
        let mut told = Vec::new();
        for side in &mut self.sides {
            let mut connection = match side.connection() {
                Ok(connection) => connection,
                Err(end) => return Some(format!("{}: {end:?}", side.kind.name())),
            };
            let text = match connection.connect(body) {
                Ok(welcome) if welcome.session != 0 => {
                    side.names.add_session(welcome.session);
                    // Created, and closed again.
                    side.names.one_more();
                    connection.send(&request(1, op::CLOSE_SESSION, &[]));
                    let ends = [connection.hear(), connection.hear()].map(|heard| match heard {
                        Heard::Reply(reply) => {
                            side.names.one_more();
                            format!(
                                "{} {} {} {}",
                                reply.xid,
                                side.names.zxid(reply.zxid),
                                reply.err,
                                hex(&reply.body)
                            )
                        }
                        other => format!("{other:?}"),
                    });
                    format!("{}, then {}", show_welcome(side, &welcome), ends.join(", "))
                }
                Ok(welcome) => format!("{}, then {:?}", show_welcome(side, &welcome), connection.hear()),
                Err(end) => format!("{end:?}"),
            };
            told.push(text);
        }
        differ(&told[0], &told[1])
    }

    fn expire(&mut self, slot: usize, cx: &mut Context<'_>) -> Option<String> {
        if !self.is_open(slot) {
            return None;
        }
        let mut heard = [Vec::new(), Vec::new()];
        for (side, heard) in self.sides.iter_mut().zip(&mut heard) {
            // The session's end takes the next zxid. Java may close the connection before, for its own idleness.
            let over = side.names.compared + 1;
            *heard = side.collect_until(slot, |heard| *heard == Heard::Closed);
            if let Err(end) = side.wait_for(over) {
                return Some(format!("{}: the session does not end: {end:?}", side.kind.name()));
            }
            side.expired(slot);
            side.names.high = side.names.high.max(over);
            side.names.compared = side.names.high;
            side.names.ended.insert(side.names.high);
        }
        cx.tally.expired += 1;
        let [java, zabra] = heard;
        cx.tally.silences += u64::from(java.last() == Some(&Heard::Silence));
        self.compare(&[], java, zabra, cx.known)
    }

    fn removal(&mut self, slot: usize, cx: &mut Context<'_>) -> Option<String> {
        if !self.is_open(slot) {
            return None;
        }
        const DELETED: [u8; 4] = [0, 0, 0, 2];
        let [java, zabra] = self.sides.each_mut().map(|side| {
            let is_last =
                |heard: &Heard| matches!(heard, Heard::Event(event) if event.body.starts_with(&DELETED));
            let heard = side.collect_until(slot, is_last);
            side.names.compared = side.names.high;
            heard
        });
        cx.tally.removed += 1;
        cx.tally.silences += u64::from(java.last() == Some(&Heard::Silence));
        self.compare(&[], java, zabra, cx.known)
    }

    /// What every script ends with: the last events of each session, the whole tree, and an empty tree.
    fn finish(&mut self, waiting: &mut [Vec<Sent>], cx: &mut Context<'_>) -> Option<String> {
        waiting.iter_mut().for_each(Vec::clear);
        for slot in 0..SLOTS {
            if self.is_open(slot)
                && let Some(text) = self.settle(slot, cx)
            {
                return Some(text);
            }
        }
        let lost =
            |side: &Side, end: Heard| Some(format!("the administrator of {}: {end:?}", side.kind.name()));
        let mut trees = Vec::new();
        for side in &mut self.sides {
            match tree::walk(side) {
                Ok(tree) => trees.push(tree),
                Err(end) => return lost(side, end),
            }
        }
        for (java, zabra) in trees[0].iter().zip(&trees[1]) {
            if let Some(text) = differ(java, zabra) {
                return Some(format!("in the tree at the end: {text}"));
            }
        }
        if trees[0].len() != trees[1].len() {
            return Some(format!("{} znodes in Java's tree, {} in Zabra's", trees[0].len(), trees[1].len()));
        }
        for side in &mut self.sides {
            if let Err(end) = side.close_sessions().and_then(|()| tree::clear(side)) {
                return lost(side, end);
            }
        }
        None
    }
}

/// A welcome with the session's name, and whether the password is that of the id.
fn show_welcome(side: &Side, welcome: &Welcome) -> String {
    let right = welcome.session != 0 && welcome.password == password_of(welcome.session);
    let password = if right { "right".into() } else { hex(&welcome.password) };
    let Welcome { protocol, timeout, session, rest, .. } = welcome;
    let session = side.names.session(*session);
    format!(
        "welcome: protocol {protocol}, timeout {timeout}, session {session}, password {password}, rest {}",
        hex(rest)
    )
}
