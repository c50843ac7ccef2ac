//! The database as recovery fills it: a snapshot first, transactions after it.

use crate::jute::DecodeError;
use crate::model::Zxid;
use crate::model::owner::OwnerRules;
use crate::replica::LogEntry;
use crate::storage::{Damage, Disk, Restore, SnapshotSeal, StorageError, load_snapshot};
use crate::tree::{Database, Loader};
use crate::wire::txn::{DIGEST_VERSION, Txn};
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
    reaches: Zxid,
    digests: Digests,
}

/// How the tree's digests compare with those that the files state.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Digests {
    /// States of the tree that have the digest that the files state.
    pub equal: u64,
    /// The first one that has not.
    pub differs: Option<DigestDiffers>,
    /// The newest one, if it has not. A leader whose own tree was wrong may have stated a digest in between that no right tree has.
    pub at_end: Option<DigestDiffers>,
    /// From here on the tree shows one moment, as far as the files tell: a Java server goes on while it writes a snapshot.
    exact_from: Option<Zxid>,
}

/// A tree has another digest than a file states.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("after transaction {zxid} the tree's digest is {actual:#x}, and the file states {stated:#x}")]
pub struct DigestDiffers {
    pub zxid: Zxid,
    pub stated: u64,
    pub actual: u64,
}

impl Digests {
    fn compare(&mut self, zxid: Zxid, stated: u64, actual: u64) {
        if self.exact_from.is_none_or(|from| zxid < from) {
            return;
        }
        self.at_end = (stated != actual).then_some(DigestDiffers { zxid, stated, actual });
        match (self.differs, self.at_end) {
            (None, None) => self.equal += 1,
            (None, differs) => self.differs = differs,
            (Some(_), _) => {}
        }
    }
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
            reaches: Zxid::ZERO,
            digests: Digests { exact_from: Some(Zxid::ZERO), ..Digests::default() },
        }
    }

    pub fn take_recent(&mut self) -> Vec<LogEntry> {
        std::mem::take(&mut self.recent).into()
    }

    /// How far the state may go beyond its zxid: a Java server continues to write while it makes a snapshot.
    pub fn shows(&self) -> Zxid {
        self.shows
    }

    /// The newest transaction that is known to have left a trace in the snapshot: its seal or a znode shows it.
    pub fn reaches(&self) -> Zxid {
        self.reaches
    }

    /// What came of the digests in the files.
    pub fn digests(&self) -> Digests {
        self.digests
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
        self.digests = Digests { exact_from: Some(Zxid::ZERO), ..Digests::default() };
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
        self.shows = seal.digest.map_or(zxid, |(zxid, _)| zxid);
        self.reaches = self.shows.max(loader.newest());
        // What a znode shows of a later transaction is not in the digest that the file states.
        self.digests.exact_from = seal.digest.map(|_| self.reaches);
        let db = Database::from_snapshot(loader, zxid);
        if let Some((until, stated)) = seal.digest.filter(|(until, _)| *until == zxid) {
            self.digests.compare(until, stated, db.tree.digest());
        }
        self.db = Some(db);
    }

    fn replay(&mut self, body: Bytes) -> Result<(), Damage> {
        let txn = Txn::decode(body.clone()).map_err(|error| Damage::Content(NoTxn(error).into()))?;
        let rules = self.rules;
        let db = self.db.get_or_insert_with(|| Database::new(rules));
        db.apply(&txn, &mut self.events);
        self.events.clear();
        if let Some(digest) = txn.digest.filter(|digest| digest.version == DIGEST_VERSION) {
            self.digests.compare(Zxid(txn.header.zxid), digest.tree_digest as u64, db.tree.digest());
        }
        self.keep(Zxid(txn.header.zxid), body);
        Ok(())
    }
}

/// Reads a snapshot and keeps nothing.
struct Dry {
    loader: Loader,
    differs: Option<DigestDiffers>,
}

impl Restore for Dry {
    fn reset(&mut self) {}

    fn feed(&mut self, window: &[u8]) -> Result<usize, Damage> {
        self.loader.feed(window).map_err(|error| Damage::Content(error.into()))
    }

    fn is_fed(&self) -> bool {
        self.loader.is_done()
    }

    fn loaded(&mut self, zxid: Zxid, seal: &SnapshotSeal) {
        // The log alone shows what a Java server went on with while it wrote.
        let stated = seal.digest.filter(|(until, _)| *until == zxid);
        if let (Some((_, stated)), Some(actual)) = (stated, self.loader.dry_digest()) {
            self.differs = (stated != actual).then_some(DigestDiffers { zxid, stated, actual });
        }
    }

    fn replay(&mut self, _: Bytes) -> Result<(), Damage> {
        Ok(())
    }
}

/// Reads a snapshot to its end: seals, and the digest of its tree.
pub fn check_snapshot(
    disk: &dyn Disk,
    zxid: Zxid,
    path: &Path,
    rules: OwnerRules,
) -> Result<(), StorageError> {
    let mut dry = Dry { loader: Loader::dry(rules), differs: None };
    load_snapshot(disk, zxid, path, &mut dry, &mut |_| ())?;
    match dry.differs {
        None => Ok(()),
        Some(differs) => Err(StorageError::damaged(path, 0, Damage::Content(differs.into()))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::jute::records::{CreateTxn, TxnDigest, TxnHeader};
    use crate::wire::txn::TxnBody;
    use bytes::BytesMut;

    fn create(zxid: i64) -> Txn {
        let (path, parent_cversion) = (Bytes::from(format!("/n{zxid}")), zxid as i32);
        let body =
            TxnBody::Create(CreateTxn { path, data: None, acl: vec![], ephemeral: false, parent_cversion });
        let header = TxnHeader { client_id: 7, cxid: 1, zxid, time: 5, op: body.op().code() };
        Txn { header, body, digest: None }
    }

    /// A Java server states the digest of one moment, and goes on while it writes.
    #[test]
    fn a_snapshot_is_compared_from_the_newest_transaction_on_that_it_shows() {
        let mut db = Database::new(OwnerRules::default());
        let digests: Vec<_> = (1..=2)
            .map(|zxid| {
                db.apply(&create(zxid), &mut Vec::new());
                db.tree.digest()
            })
            .collect();
        db.begin_snapshot();
        let mut bytes = BytesMut::new();
        while {
            let slice = db.tree.snapshot_slice(100);
            bytes.extend_from_slice(&slice.bytes);
            !slice.done
        } {}
        let mut state = RestoredDatabase::new(OwnerRules::default());
        state.reset();
        assert_eq!(state.feed(&bytes).unwrap(), bytes.len());
        state.loaded(Zxid(1), &SnapshotSeal { digest: Some((Zxid(1), digests[0])), last_zxid: None });
        assert_eq!(state.digests().differs, None);
        let stated = TxnDigest { version: DIGEST_VERSION, tree_digest: digests[1] as i64 };
        let mut body = BytesMut::new();
        Txn { digest: Some(stated), ..create(2) }.encode(&mut body);
        state.replay(body.freeze()).unwrap();
        assert_eq!((state.digests().equal, state.digests().differs), (1, None));
    }
}
