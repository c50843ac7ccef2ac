//! Histories that begin at the ends of what numbers can count: with one transaction or two in the log of every server.

use super::SimDisk;
use super::model::LogFile;
use super::node::DATA_DIR;
use crate::core::write_snapshot_of;
use crate::jute::records::{CreateTxn, TxnHeader};
use crate::model::owner::OwnerRules;
use crate::replica::Entry;
use crate::storage::{Dirs, Disk};
use crate::tree::{Database, open_entry};
use crate::wire::txn::{Txn, TxnBody};
use bytes::Bytes;
use std::path::Path;
use std::sync::Arc;

/// Where a history begins: with two znodes.
#[derive(Debug, Clone, Copy)]
pub struct Edge {
    /// The epoch of its first transactions.
    pub epoch: i64,
    /// What the root has counted of children that were created.
    pub created: i32,
}

impl Edge {
    /// As a server leaves it that was stopped.
    pub fn lay_out(self, disk: &SimDisk) {
        let version_2 = Path::new(DATA_DIR).join("version-2");
        let number = self.epoch.to_string();
        for name in ["acceptedEpoch", "currentEpoch"] {
            disk.put(&version_2.join(name), number.as_bytes());
        }
        let rules = OwnerRules { extended_types: false, emulate_353: false };
        let dirs = Dirs::new(Path::new(DATA_DIR), Path::new(DATA_DIR));
        let as_disk: Arc<dyn Disk> = Arc::new(disk.clone());
        write_snapshot_of(&mut Database::new(rules), &as_disk, &dirs).expect("nothing goes wrong yet");
        let bodies = self.txns().map(|(_, body)| body);
        disk.put(&version_2.join(format!("log.{:x}", self.first())), &LogFile::write(&bodies));
    }

    fn first(self) -> i64 {
        (self.epoch << 32) | 1
    }

    /// What is in the log.
    pub fn txns(self) -> [(i64, Bytes); 2] {
        let first = self.first();
        [(first, create(first, b"/a", 1)), (first + 1, create(first + 1, b"/b", self.created))]
    }
}

/// A znode that nobody asked for.
fn create(zxid: i64, path: &'static [u8], parent_cversion: i32) -> Bytes {
    let header = TxnHeader { client_id: 0, cxid: 0, zxid, time: 1_700_000_000_000, op: 1 };
    let (path, data) = (Bytes::from_static(path), Some(Bytes::new()));
    let body = CreateTxn { path, data, acl: vec![open_entry()], ephemeral: false, parent_cversion };
    Entry::new(Txn { header, body: TxnBody::Create(body), digest: None }).body
}
