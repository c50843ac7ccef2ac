//! What servers are seen to do, as it happens: who leads which epoch, what is committed, and that trees agree.

use super::model::{LogFile, Txn};
use super::node::Process;
use crate::replica::Mode;
use bytes::Bytes;
use std::collections::BTreeMap;

/// A znode that no client looks at, and the digest counts. Where a tree is made to differ, this is its data as well.
pub const SPOILT: &[u8] = b"/zookeeper";

/// A server's files.
pub struct Files {
    pub logs: Vec<LogFile>,
    /// The zxids that its snapshots show.
    pub snapshots: Vec<i64>,
    /// Its disk has lost a log once.
    pub lost_log: bool,
}

/// Reads them.
type ReadFiles<'a> = dyn Fn() -> Files + 'a;

#[derive(Debug, Default)]
pub struct Observed {
    /// The one body that each zxid may ever have had.
    bodies: BTreeMap<i64, Bytes>,
    pub committed: BTreeMap<i64, Vec<u8>>,
    /// Which server led an epoch, and in which of its lives.
    leaders: BTreeMap<i64, (usize, u64)>,
    digests: BTreeMap<i64, (u64, usize)>,
    /// When somebody who serves was first seen to stand so far: both grow.
    stood: Vec<(u64, i64)>,
    pub elections: u64,
}

impl Observed {
    /// A majority forgot which epochs there were: they come again.
    pub fn forget_epochs(&mut self) {
        self.leaders.clear();
        self.stood.clear();
    }

    /// A server handed this to its log.
    pub fn appended(&mut self, server: usize, zxid: i64, body: Bytes) -> Result<(), String> {
        match self.bodies.get(&zxid) {
            Some(known) if *known == body => Ok(()),
            // What one server lost that was not synced, it begins again: in an ensemble there would be another epoch.
            Some(_) if zxid >> 32 == 0 && !self.committed.contains_key(&zxid) => {
                self.bodies.insert(zxid, body);
                Ok(())
            }
            Some(known) => Err(format!(
                "integrity: server {} logs another transaction {zxid:#x}: {:?}, where {:?} was logged",
                server + 1,
                Txn::read(&body),
                Txn::read(known)
            )),
            None => {
                self.bodies.insert(zxid, body);
                Ok(())
            }
        }
    }

    /// To be called whenever a server may have moved by what is committed.
    pub fn look(
        &mut self,
        now: u64,
        server: usize,
        life: u64,
        process: &Process,
        files: &ReadFiles<'_>,
        spoilt_at: &mut Option<i64>,
    ) -> Result<(), String> {
        let mode = process.mode();
        let (last, digest, is_spoilt) = {
            let db = process.core.db.read();
            let data = db.tree.find(SPOILT).and_then(|id| db.tree.data(id));
            (db.last_zxid.0, db.tree.digest(), data == Some(SPOILT))
        };
        if mode == Mode::Leader {
            let epoch = process.core.with_status(|status| status.epoch.0);
            match self.leaders.get(&epoch) {
                None => self.established(server, life, epoch, &files())?,
                Some(known) if *known == (server, life) => {}
                Some((other, _)) => {
                    return Err(format!(
                        "leadership: servers {} and {} lead epoch {epoch}",
                        server + 1,
                        other + 1
                    ));
                }
            }
        }
        self.reached(server, last)?;
        if self.stood.last().is_none_or(|(_, zxid)| *zxid < last) {
            self.stood.push((now, last));
        }
        let known = self.digests.get(&last);
        // A leader compares what it applies with what it proposed. What failed has no digest, and proves nothing.
        if let Some(at) = *spoilt_at {
            let proves = |body: &Bytes| Txn::read(body).is_ok_and(|txn| txn.change.is_success());
            let is_proved = last as u32 > 0 && last > at && self.bodies.get(&last).is_some_and(proves);
            match known {
                Some((known, _)) if *known == digest => *spoilt_at = None,
                // It has the leader's tree, at a transaction that the others have applied together with later ones.
                None if !is_spoilt => *spoilt_at = None,
                _ if is_proved && mode.has_leader() && process.core.may_read() => {
                    return Err(format!("spoilt: server {} serves at {last:#x}", server + 1));
                }
                Some(_) | None => {}
            }
            return Ok(());
        }
        match known {
            None => {
                self.digests.insert(last, (digest, server));
            }
            Some((known, _)) if *known == digest => {}
            Some((known, other)) => {
                return Err(format!(
                    "consistency: at {last:#x} server {} has digest {digest:#x}, server {} had {known:#x}",
                    server + 1,
                    other + 1
                ));
            }
        }
        Ok(())
    }

    /// Of trees, by zxid.
    pub fn digests(&self) -> BTreeMap<i64, u64> {
        self.digests.iter().map(|(zxid, (digest, _))| (*zxid, *digest)).collect()
    }

    /// What somebody who serves had reached before `time`.
    pub fn stood_before(&self, time: u64) -> i64 {
        let count = self.stood.partition_point(|(at, _)| *at < time);
        if count == 0 { 0 } else { self.stood[count - 1].1 }
    }

    /// All that a leader has in its log when its epoch opens is committed then.
    fn established(&mut self, server: usize, life: u64, epoch: i64, files: &Files) -> Result<(), String> {
        self.elections += 1;
        self.leaders.insert(epoch, (server, life));
        let older = |zxid: i64| zxid >> 32 < epoch;
        let mut log: BTreeMap<i64, &[u8]> = BTreeMap::new();
        for file in &files.logs {
            log.extend(file.records.iter().filter(|(zxid, _)| older(*zxid)).map(|(z, b)| (*z, &b[..])));
        }
        let Some(first) = log.keys().next().copied() else { return Ok(()) };
        // What it can't read it does not send: it sends a snapshot then.
        let is_whole = !files.logs.iter().any(|file| file.is_damaged);
        // One that was stopped for long may find out late that it leads: what is of later epochs is not its business.
        for (zxid, _) in self.committed.range(first..epoch << 32) {
            // Where a torn end was cut off, a snapshot has what it held. Of a log that the disk has lost, a later one may have it:
            // what comes after that log is not sent to who has less, as its header tells.
            let is_shown = || {
                let goes_on_at = log.range(zxid..).next().map_or(i64::MAX, |(next, _)| *next);
                let goes_on_at = if files.lost_log { i64::MAX } else { goes_on_at };
                files.snapshots.iter().any(|shown| (*zxid..goes_on_at).contains(shown))
            };
            if is_whole && !log.contains_key(zxid) && !is_shown() {
                return Err(format!(
                    "agreement: server {} leads epoch {epoch} without transaction {zxid:#x}, which was committed",
                    server + 1
                ));
            }
        }
        for (zxid, body) in log {
            self.commit(zxid, body)?;
        }
        Ok(())
    }

    fn commit(&mut self, zxid: i64, body: &[u8]) -> Result<(), String> {
        match self.committed.get(&zxid) {
            Some(known) if known == body => Ok(()),
            Some(_) => Err(format!("agreement: two transactions {zxid:#x} were committed")),
            None => {
                self.committed.insert(zxid, body.to_vec());
                Ok(())
            }
        }
    }

    /// A server that serves has applied everything up to here.
    fn reached(&mut self, server: usize, last: i64) -> Result<(), String> {
        let epoch = last >> 32;
        let known = self.committed.range(..=last).next_back().map_or(0, |(zxid, _)| *zxid);
        let from = if known >> 32 == epoch { known + 1 } else { (epoch << 32) + 1 };
        for zxid in from..=last {
            let Some(body) = self.bodies.get(&zxid).cloned() else {
                return Err(format!(
                    "integrity: server {} stands at {last:#x}, and nobody logged {zxid:#x}",
                    server + 1
                ));
            };
            self.commit(zxid, &body)?;
        }
        Ok(())
    }
}
