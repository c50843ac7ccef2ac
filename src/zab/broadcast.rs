//! The leader's side of broadcast: a proposal is committed once a quorum has it on disk and all before it are.

use crate::model::{Epoch, ServerId, Zxid};
use crate::wire::txn::Txn;
use std::collections::{BTreeSet, VecDeque};

/// Which sets of servers decide.
#[derive(Debug, Clone)]
pub struct Quorum {
    voters: BTreeSet<ServerId>,
}

impl Quorum {
    pub fn majority(voters: impl IntoIterator<Item = ServerId>) -> Self {
        Self { voters: voters.into_iter().collect() }
    }

    fn holds(&self, acks: &BTreeSet<ServerId>) -> bool {
        2 * acks.intersection(&self.voters).count() > self.voters.len()
    }
}

#[derive(Debug)]
pub struct Proposal {
    pub zxid: Zxid,
    pub txn: Txn,
    acks: BTreeSet<ServerId>,
}

/// Proposals that are not committed yet, oldest first, without a gap in their zxids.
#[derive(Debug)]
pub struct Broadcast {
    quorum: Quorum,
    last_proposed: Zxid,
    outstanding: VecDeque<Proposal>,
}

impl Broadcast {
    /// `last` is the last zxid of the history that this term starts with.
    pub fn new(quorum: Quorum, last: Zxid) -> Self {
        Self { quorum, last_proposed: last, outstanding: VecDeque::new() }
    }

    pub fn last_proposed(&self) -> Zxid {
        self.last_proposed
    }

    /// The zxid that the next proposal has to carry; `None` when this epoch has no more.
    pub fn next_zxid(&self) -> Option<Zxid> {
        self.last_proposed.next()
    }

    /// The next proposal opens a new epoch.
    pub fn start_next_epoch(&mut self) {
        self.last_proposed = Zxid::new(Epoch(self.last_proposed.epoch().0 + 1), 0);
    }

    pub fn propose(&mut self, txn: Txn) {
        let zxid = Zxid(txn.header.zxid);
        assert!(Some(zxid) == self.next_zxid(), "proposals have no gap: {zxid} after {}", self.last_proposed);
        self.last_proposed = zxid;
        self.outstanding.push_back(Proposal { zxid, txn, acks: BTreeSet::new() });
    }

    /// `server` has everything up to `zxid` on its disk. Appends what is committed by it, in order.
    pub fn on_logged(&mut self, server: ServerId, zxid: Zxid, committed: &mut VecDeque<Proposal>) {
        for proposal in self.outstanding.iter_mut().take_while(|proposal| proposal.zxid <= zxid) {
            proposal.acks.insert(server);
        }
        while self.outstanding.front().is_some_and(|first| self.quorum.holds(&first.acks)) {
            committed.extend(self.outstanding.pop_front());
        }
    }

    pub fn outstanding(&self) -> usize {
        self.outstanding.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::jute::records::{ErrorTxn, TxnHeader};
    use crate::wire::txn::TxnBody;

    fn txn(zxid: i64) -> Txn {
        let header = TxnHeader { client_id: 0, cxid: 0, zxid, time: 0, op: -1 };
        Txn { header, body: TxnBody::Error(ErrorTxn { err: -101 }), digest: None }
    }

    fn committed(broadcast: &mut Broadcast, server: i64, zxid: i64) -> Vec<i64> {
        let mut out = VecDeque::new();
        broadcast.on_logged(ServerId(server), Zxid(zxid), &mut out);
        out.iter().map(|proposal| proposal.zxid.0).collect()
    }

    #[test]
    fn a_proposal_commits_when_a_majority_logged_it_and_all_before_it() {
        let quorum = Quorum::majority([1, 2, 3].map(ServerId));
        let mut broadcast = Broadcast::new(quorum, Zxid(0));
        for zxid in 1..=3 {
            broadcast.propose(txn(zxid));
        }
        assert_eq!(committed(&mut broadcast, 1, 3), [0_i64; 0]);
        assert_eq!(committed(&mut broadcast, 9, 3), [0_i64; 0], "a stranger does not count");
        assert_eq!(committed(&mut broadcast, 2, 2), [1, 2]);
        assert_eq!(committed(&mut broadcast, 2, 2), [0_i64; 0], "a repeated ack changes nothing");
        assert_eq!(committed(&mut broadcast, 3, 3), [3]);
    }

    #[test]
    fn an_ensemble_of_one_commits_what_its_own_log_holds() {
        let mut broadcast = Broadcast::new(Quorum::majority([ServerId(1)]), Zxid(5));
        broadcast.propose(txn(6));
        broadcast.propose(txn(7));
        assert_eq!(committed(&mut broadcast, 1, 6), [6]);
        assert_eq!(broadcast.outstanding(), 1);
    }
}
