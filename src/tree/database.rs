//! The replicated state of one server, tree and sessions, and the one way it changes: by a transaction.

use super::{CONFIG, Event, Loader, NewNode, NodeId, Tree, Watches};
use crate::jute::records::{Stat, TxnHeader};
use crate::model::owner::{CONTAINER, Owner, OwnerRules};
use crate::model::{ErrorCode, SessionId, Zxid};
use crate::wire::txn::{Txn, TxnBody};
use bytes::Bytes;
use parking_lot::Mutex;
use std::collections::BTreeMap;

/// What a transaction came to on this server. On a replica in order it is always what prep foresaw.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Applied {
    /// 0, or the code of the error transaction (or of a change that a replay found done already).
    pub err: i32,
    /// The changed znode's stat right after the change.
    pub stat: Option<Stat>,
    /// One entry per part of a multi.
    pub parts: Vec<Applied>,
}

/// Tree, sessions, and the zxid that they show. Readers also register their watches here, under the same lock.
#[derive(Debug)]
pub struct Database {
    pub tree: Tree,
    /// The global sessions with their timeouts in milliseconds, as their createSession transactions named them.
    pub sessions: BTreeMap<SessionId, i32>,
    pub last_zxid: Zxid,
    /// The last transaction, where `last_zxid` opens an epoch: what names a snapshot, so that it proves that transaction.
    pub last_txn: Zxid,
    /// Its own lock, because readers register watches while they hold the database for reading only.
    pub watches: Mutex<Watches>,
    /// How many databases were here before: places of znodes mean nothing in another one.
    pub install: u64,
}

impl Database {
    pub fn new(rules: OwnerRules) -> Self {
        Self::with_tree(Tree::new(rules), BTreeMap::new(), Zxid::ZERO)
    }

    pub fn from_snapshot(loader: Loader, zxid: Zxid) -> Self {
        let (tree, sessions) = loader.finish();
        Self::with_tree(tree, sessions, zxid)
    }

    fn with_tree(tree: Tree, sessions: BTreeMap<SessionId, i32>, last_zxid: Zxid) -> Self {
        let watches = Mutex::new(Watches::default());
        Self { tree, sessions, last_zxid, last_txn: last_zxid, watches, install: 0 }
    }

    /// Shows the committed configuration in `/zookeeper/config`, as every server of an ensemble does for itself when it
    /// has a leader: the first configuration comes from files, and no transaction tells it.
    pub fn show_config(&mut self, text: &str, version: i64, wall_ms: i64) {
        let path = Bytes::from_static(CONFIG);
        let shown = self.tree.find(CONFIG).and_then(|id| self.tree.data(id));
        if shown != Some(text.as_bytes()) {
            // Nobody watches yet; and a tree that has no such znode shows nothing.
            let data = Some(text.as_bytes());
            let _ = self.tree.set_data(&path, data, -1, version, wall_ms, &mut Vec::new());
        }
    }

    pub fn begin_snapshot(&mut self) {
        self.tree.begin_snapshot(&self.sessions);
    }

    /// Applies one transaction. Errors are results, not failures: the rules are idempotent (see [`Tree`]).
    pub fn apply(&mut self, txn: &Txn, events: &mut Vec<Event>) -> Applied {
        let applied = self.apply_body(&txn.header, &txn.body, events);
        self.last_txn = self.last_txn.max(Zxid(txn.header.zxid));
        self.last_zxid = self.last_zxid.max(self.last_txn);
        applied
    }

    fn apply_body(&mut self, header: &TxnHeader, body: &TxnBody, events: &mut Vec<Event>) -> Applied {
        match body {
            TxnBody::Create(txn) => {
                let owner = if txn.ephemeral { header.client_id } else { 0 };
                let applied =
                    self.create(header, &txn.path, &txn.data, &txn.acl, owner, txn.parent_cversion, events);
                if applied.err == ErrorCode::NodeExists.code() {
                    self.tree.raise_parent_cversion(&txn.path, txn.parent_cversion, header.zxid);
                }
                applied
            }
            TxnBody::Create2(txn) => {
                let owner = if txn.ephemeral { header.client_id } else { 0 };
                self.create(header, &txn.path, &txn.data, &txn.acl, owner, txn.parent_cversion, events)
            }
            TxnBody::CreateContainer(txn) => {
                self.create(header, &txn.path, &txn.data, &txn.acl, CONTAINER, txn.parent_cversion, events)
            }
            TxnBody::CreateTtl(txn) => {
                let owner = Owner::Ttl(txn.ttl).encode();
                self.create(header, &txn.path, &txn.data, &txn.acl, owner, txn.parent_cversion, events)
            }
            TxnBody::Delete(txn) | TxnBody::DeleteContainer(txn) => {
                match self.tree.delete(&txn.path, header.zxid, events) {
                    Ok(()) => Applied::default(),
                    Err(code) => failed(code),
                }
            }
            TxnBody::SetData(txn) | TxnBody::Reconfig(txn) => {
                let data = txn.data.as_deref();
                let result =
                    self.tree.set_data(&txn.path, data, txn.version, header.zxid, header.time, events);
                self.with_stat(result)
            }
            TxnBody::SetAcl(txn) => {
                let result = self.tree.set_acl(&txn.path, &txn.acl, txn.version);
                self.with_stat(result)
            }
            TxnBody::Check(_) => Applied::default(),
            TxnBody::CreateSession(txn) => {
                self.sessions.insert(SessionId(header.client_id), txn.timeout);
                Applied::default()
            }
            TxnBody::CloseSession(txn) => {
                let listed = txn.as_ref().map_or(&[][..], |txn| &txn.paths_to_delete);
                self.close_session(SessionId(header.client_id), listed, header.zxid, events);
                Applied::default()
            }
            TxnBody::Error(txn) => Applied { err: txn.err, ..Applied::default() },
            TxnBody::Multi(parts) => self.apply_multi(header, parts, events),
        }
    }

    /// All parts or, when one of them is an error, none. Then parts before the error report 0, those after it carry
    /// their own error txns.
    fn apply_multi(&mut self, header: &TxnHeader, parts: &[TxnBody], events: &mut Vec<Event>) -> Applied {
        let is_error = |part: &TxnBody| matches!(part, TxnBody::Error(_));
        if parts.iter().any(is_error) {
            let mut results = Vec::with_capacity(parts.len());
            let mut err = 0;
            for part in parts {
                let code = match part {
                    TxnBody::Error(txn) => txn.err,
                    _ if err != 0 => ErrorCode::RuntimeInconsistency.code(),
                    _ => 0,
                };
                if err == 0 {
                    err = code;
                }
                results.push(Applied { err: code, ..Applied::default() });
            }
            return Applied { err, stat: None, parts: results };
        }
        let results: Vec<_> = parts.iter().map(|part| self.apply_body(header, part, events)).collect();
        let err = results.iter().map(|part| part.err).find(|err| *err != 0).unwrap_or(0);
        Applied { err, stat: None, parts: results }
    }

    #[allow(clippy::too_many_arguments)] // the fields of four record types that share no type
    fn create(
        &mut self,
        header: &TxnHeader,
        path: &Bytes,
        data: &Option<Bytes>,
        acl: &[crate::jute::records::Acl<Bytes>],
        owner: i64,
        parent_cversion: i32,
        events: &mut Vec<Event>,
    ) -> Applied {
        let new = NewNode {
            path,
            data: data.as_deref(),
            acl,
            owner,
            parent_cversion,
            zxid: header.zxid,
            time: header.time,
        };
        match self.tree.create(&new, events) {
            Ok(stat) => Applied { stat: Some(stat), ..Applied::default() },
            Err(code) => failed(code),
        }
    }

    fn close_session(&mut self, session: SessionId, listed: &[Bytes], zxid: i64, events: &mut Vec<Event>) {
        for path in listed {
            // Missing ones are ignored: a replay may meet a tree that is ahead.
            let _ = self.tree.delete(path, zxid, events);
        }
        let rest: Vec<Vec<u8>> = self.tree.ephemerals_of(session).collect();
        for path in rest {
            let _ = self.tree.delete(&Bytes::from(path), zxid, events);
        }
        self.sessions.remove(&session);
    }

    fn with_stat(&self, result: Result<NodeId, ErrorCode>) -> Applied {
        match result {
            Ok(id) => Applied { stat: Some(self.tree.stat(id)), ..Applied::default() },
            Err(code) => failed(code),
        }
    }
}

fn failed(code: ErrorCode) -> Applied {
    Applied { err: code.code(), ..Applied::default() }
}
