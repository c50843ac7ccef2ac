//! Proposals under way on the leader: one is committed once a quorum has it on disk, and all before it are.

use super::{Entry, History};
use crate::ensemble::View;
use crate::model::{Epoch, ServerId, Zxid};
use std::collections::{BTreeMap, VecDeque};

#[derive(Debug)]
pub(super) struct Broadcast {
    last_proposed: Zxid,
    /// Not committed yet, oldest first, without a gap in their zxids.
    outstanding: VecDeque<Entry>,
    /// How far each server has everything on disk. A log has no holes, so an ack covers all before it.
    acked: BTreeMap<ServerId, Zxid>,
    /// The proposal from which on the next configuration has to agree too.
    reconfig: Option<Zxid>,
}

impl Broadcast {
    /// `last` is the zxid before the first proposal.
    pub(super) fn new(last: Zxid) -> Self {
        Self { last_proposed: last, outstanding: VecDeque::new(), acked: BTreeMap::new(), reconfig: None }
    }

    pub(super) fn last_proposed(&self) -> Zxid {
        self.last_proposed
    }

    /// The next proposal opens this epoch.
    pub(super) fn open_epoch(&mut self, epoch: Epoch) {
        self.last_proposed = Zxid::new(epoch, 0);
    }

    /// What comes after `zxid`.
    pub(super) fn outstanding_after(&self, zxid: Zxid) -> impl Iterator<Item = &Entry> {
        let first = self.outstanding.partition_point(|entry| entry.zxid <= zxid);
        self.outstanding.range(first..)
    }

    pub(super) fn into_outstanding(self) -> VecDeque<Entry> {
        self.outstanding
    }

    /// A reconfiguration is not committed yet.
    pub(super) fn is_reconfiguring(&self) -> bool {
        self.reconfig.is_some()
    }

    pub(super) fn outstanding_len(&self) -> usize {
        self.outstanding.len()
    }

    /// `reconfigures`: from this proposal on the pending configuration has a say.
    pub(super) fn propose(&mut self, entry: Entry, reconfigures: bool) {
        let (last, zxid) = (self.last_proposed, entry.zxid);
        assert!(History::follows(last, zxid), "proposals have no gap: {zxid} after {last}");
        if reconfigures {
            assert!(self.reconfig.is_none(), "one reconfiguration at a time");
            self.reconfig = Some(zxid);
        }
        self.last_proposed = zxid;
        self.outstanding.push_back(entry);
    }

    /// `server` has everything up to `zxid` on its disk.
    pub(super) fn on_ack(&mut self, server: ServerId, zxid: Zxid) {
        let acked = self.acked.entry(server).or_insert(Zxid(i64::MIN));
        *acked = zxid.max(*acked);
    }

    /// `server` begins from scratch: it may no longer have what it acknowledged.
    pub(super) fn forget(&mut self, server: ServerId) {
        self.acked.remove(&server);
    }

    /// How far `server` has acknowledged.
    pub(super) fn acked(&self, server: ServerId) -> Zxid {
        self.acked.get(&server).copied().unwrap_or(Zxid(i64::MIN))
    }

    /// The next proposal that is committed, if there is one. A reconfiguration among them ends the old configuration's
    /// say: the caller changes `view` before it asks again.
    pub(super) fn next_committed(&mut self, view: &View) -> Option<Entry> {
        let first = self.outstanding.front()?.zxid;
        let has_it = |id: ServerId| self.acked(id) >= first;
        let needs_both = self.reconfig.is_some_and(|zxid| first >= zxid);
        let committed = view.committed.has_quorum(has_it)
            && view.pending().is_none_or(|next| !needs_both || next.has_quorum(has_it));
        if !committed {
            return None;
        }
        if self.reconfig == Some(first) {
            self.reconfig = None;
        }
        self.outstanding.pop_front()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ensemble::Ensemble;
    use crate::jute::records::{ErrorTxn, TxnHeader};
    use crate::wire::txn::{Txn, TxnBody};
    use std::sync::Arc;

    fn entry(zxid: i64) -> Entry {
        let header = TxnHeader { client_id: 0, cxid: 0, zxid, time: 0, op: -1 };
        Entry::new(Txn { header, body: TxnBody::Error(ErrorTxn { err: -101 }), digest: None })
    }

    fn ensemble(ids: &[i64]) -> Ensemble {
        let text: String = ids.iter().map(|id| format!("server.{id}=h{id}:1:2\n")).collect();
        Ensemble::parse(&text).unwrap()
    }

    fn committed(broadcast: &mut Broadcast, view: &View) -> Vec<i64> {
        std::iter::from_fn(|| broadcast.next_committed(view)).map(|entry| entry.zxid.0).collect()
    }

    #[test]
    fn a_proposal_commits_when_a_majority_logged_it_and_all_before_it() {
        let view = View::new(Arc::new(ensemble(&[1, 2, 3])));
        let mut broadcast = Broadcast::new(Zxid(0));
        (1..=3).for_each(|zxid| broadcast.propose(entry(zxid), false));
        broadcast.on_ack(ServerId(1), Zxid(3));
        assert_eq!(committed(&mut broadcast, &view), [0_i64; 0]);
        broadcast.on_ack(ServerId(9), Zxid(3));
        assert_eq!(committed(&mut broadcast, &view), [0_i64; 0], "a stranger does not count");
        broadcast.on_ack(ServerId(2), Zxid(2));
        assert_eq!(committed(&mut broadcast, &view), [1, 2]);
        broadcast.on_ack(ServerId(2), Zxid(1));
        assert_eq!(committed(&mut broadcast, &view), [0_i64; 0], "a repeated ack changes nothing");
        broadcast.on_ack(ServerId(3), Zxid(3));
        assert_eq!(committed(&mut broadcast, &view), [3]);
    }

    #[test]
    fn an_ensemble_of_one_commits_what_its_own_log_holds() {
        let view = View::new(Arc::new(ensemble(&[1])));
        let mut broadcast = Broadcast::new(Zxid(5));
        (6..=7).for_each(|zxid| broadcast.propose(entry(zxid), false));
        broadcast.on_ack(ServerId(1), Zxid(6));
        assert_eq!(committed(&mut broadcast, &view), [6]);
        assert_eq!(broadcast.outstanding_len(), 1);
    }

    #[test]
    fn from_a_reconfiguration_on_both_configurations_have_to_agree() {
        let mut view = View::new(Arc::new(ensemble(&[1, 2, 3])));
        let mut broadcast = Broadcast::new(Zxid(0));
        broadcast.propose(entry(1), false);
        view.last_seen = Arc::new(ensemble(&[3, 4, 5]).with_version(2));
        broadcast.propose(entry(2), true);
        broadcast.propose(entry(3), false);
        broadcast.on_ack(ServerId(1), Zxid(3));
        broadcast.on_ack(ServerId(2), Zxid(3));
        assert_eq!(committed(&mut broadcast, &view), [1], "before it the old one alone decides");
        broadcast.on_ack(ServerId(4), Zxid(3));
        assert_eq!(committed(&mut broadcast, &view), [0_i64; 0]);
        broadcast.on_ack(ServerId(5), Zxid(2));
        assert_eq!(broadcast.next_committed(&view).map(|entry| entry.zxid.0), Some(2));
        view.committed = view.last_seen.clone();
        assert_eq!(committed(&mut broadcast, &view), [0_i64; 0], "behind it the new one alone decides");
        broadcast.on_ack(ServerId(5), Zxid(3));
        assert_eq!(committed(&mut broadcast, &view), [3]);
    }
}
