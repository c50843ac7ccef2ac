//! The database as recovery fills it: a snapshot first, transactions after it.

use crate::jute::DecodeError;
use crate::model::Zxid;
use crate::model::owner::OwnerRules;
use crate::replica::LogEntry;
use crate::storage::{Damage, Disk, Restore, SnapshotReader, SnapshotSeal};
use crate::tree::{Database, Loader};
use crate::wire::txn::Txn;
use bytes::Bytes;
use std::collections::VecDeque;
use std::path::Path;

/// A record of the log whose checksum is right and whose body is no transaction.
#[derive(Debug, thiserror::Error)]
#[error("a transaction that does not decode: {0}")]
struct NoTxn(DecodeError);

pub struct RestoredDatabase {
    rules: OwnerRules,
    loader: Option<Loader>,
    db: Option<Database>,
    events: Vec<crate::tree::Event>,
    /// The newest transactions, without a gap.
    recent: VecDeque<LogEntry>,
    recent_bytes: usize,
    max_recent_bytes: usize,
    shows: Zxid,
}

impl RestoredDatabase {
    pub fn new(rules: OwnerRules) -> Self {
        Self::keeping(rules, 0)
    }

    /// Bytes of the newest transactions that are kept.
    pub fn keeping(rules: OwnerRules, max_recent_bytes: usize) -> Self {
        Self {
            rules,
            loader: None,
            db: None,
            events: Vec::new(),
            recent: VecDeque::new(),
            recent_bytes: 0,
            max_recent_bytes,
            shows: Zxid::ZERO,
        }
    }

    pub fn take_recent(&mut self) -> Vec<LogEntry> {
        std::mem::take(&mut self.recent).into()
    }

    /// How far the state may go beyond its zxid: a Java server continues to write while it makes a snapshot.
    pub fn shows(&self) -> Zxid {
        self.shows
    }

    pub fn into_database(self) -> Database {
        self.db.unwrap_or_else(|| Database::new(self.rules))
    }

    fn keep(&mut self, zxid: Zxid, body: Bytes) {
        if self.recent.back().is_some_and(|last| last.zxid.0.wrapping_add(1) != zxid.0) && zxid.counter() != 1
        {
            self.recent.clear();
            self.recent_bytes = 0;
        }
        self.recent_bytes += body.len();
        self.recent.push_back(LogEntry { zxid, body });
        while self.recent_bytes > self.max_recent_bytes
            && let Some(oldest) = self.recent.pop_front()
        {
            self.recent_bytes -= oldest.body.len();
        }
    }
}

impl Restore for RestoredDatabase {
    fn reset(&mut self) {
        self.loader = Some(Loader::new(self.rules));
        self.db = None;
    }

    fn feed(&mut self, window: &[u8]) -> Result<usize, Damage> {
        let loader = self.loader.as_mut().expect("reset() came first");
        loader.feed(window).map_err(|error| Damage::Content(error.into()))
    }

    fn is_fed(&self) -> bool {
        self.loader.as_ref().is_some_and(Loader::is_done)
    }

    fn loaded(&mut self, zxid: Zxid, seal: &SnapshotSeal) {
        let loader = self.loader.take().expect("reset() came first");
        self.db = Some(Database::from_snapshot(loader, zxid));
        self.shows = seal.digest.map_or(zxid, |(zxid, _)| zxid);
    }

    fn replay(&mut self, body: Bytes) -> Result<(), Damage> {
        let txn = Txn::decode(body.clone()).map_err(|error| Damage::Content(NoTxn(error).into()))?;
        let rules = self.rules;
        let db = self.db.get_or_insert_with(|| Database::new(rules));
        db.apply(&txn, &mut self.events);
        self.events.clear();
        self.keep(Zxid(txn.header.zxid), body);
        Ok(())
    }
}

/// Whether a snapshot can be read to its end, seals and all.
pub fn is_readable(disk: &dyn Disk, path: &Path, rules: OwnerRules) -> bool {
    let Ok(mut reader) = SnapshotReader::open(disk, path) else { return false };
    let mut loader = Loader::dry(rules);
    while !loader.is_done() {
        let mut failed = false;
        let fed = reader.with(&mut |window| match loader.feed(window) {
            Ok(0) if !loader.is_done() => None,
            Ok(taken) => Some(taken),
            Err(_) => {
                failed = true;
                Some(0)
            }
        });
        if failed || fed.is_err() {
            return false;
        }
    }
    reader.finish().is_ok()
}
