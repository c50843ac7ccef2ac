//! What a server tells of itself: in `srvr`, `stat`, `mntr`.

use super::{Replica, Serving};
use crate::model::{Epoch, ServerId, Zxid};
use crate::zab::Term;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    Standalone,
    Leader,
    Follower,
    Observer,
    /// There is no leader, and clients may read all the same.
    ReadOnly,
    /// There is no leader, or this server is not up to date with it.
    NotServing,
}

impl Mode {
    pub fn name(self) -> &'static str {
        match self {
            Self::Standalone => "standalone",
            Self::Leader => "leader",
            Self::Follower => "follower",
            Self::Observer => "observer",
            Self::ReadOnly => "read-only",
            Self::NotServing => "looking",
        }
    }

    /// This server is up to date with a leader, or is one.
    pub fn has_leader(self) -> bool {
        !matches!(self, Self::ReadOnly | Self::NotServing)
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    pub mode: Mode,
    /// As `mntr` prints it: "leading - broadcast".
    pub peer_state: String,
    pub leader: Option<ServerId>,
    pub epoch: Epoch,
    pub last_proposed: Zxid,
    pub quorum_size: usize,
    pub learners: usize,
    pub synced_followers: usize,
    pub synced_non_voters: usize,
    pub synced_observers: usize,
    pub pending_syncs: usize,
    /// Milliseconds, monotonic.
    pub leading_since: Option<u64>,
    /// The configuration's text.
    pub config: String,
}

impl Replica {
    pub fn status(&self) -> Status {
        let server = &self.zab.server;
        let mut status = Status {
            mode: Mode::NotServing,
            peer_state: "looking".into(),
            leader: None,
            epoch: server.current,
            last_proposed: Zxid::ZERO,
            quorum_size: server.view.committed.voters().count(),
            learners: 0,
            synced_followers: 0,
            synced_non_voters: 0,
            synced_observers: 0,
            pending_syncs: 0,
            leading_since: None,
            config: server.view.committed.to_string(),
        };
        match &self.zab.term {
            Term::None if matches!(self.serving, Serving::ReadOnly(_)) => status.mode = Mode::ReadOnly,
            Term::None => {}
            Term::Leading(leader) => {
                status.peer_state = format!("leading - {}", leader.phase_name());
                status.leader = Some(server.me());
                status.epoch = leader.epoch();
                status.last_proposed = leader.last_proposed();
                status.pending_syncs = leader.pending_syncs();
                for (sid, observer, synced) in leader.learners() {
                    status.learners += 1;
                    status.synced_observers += usize::from(synced && observer);
                    status.synced_followers += usize::from(synced && !observer);
                    let votes = server.view.committed.is_voter(sid);
                    status.synced_non_voters += usize::from(synced && !observer && !votes);
                }
                if matches!(self.serving, Serving::Leading(_)) {
                    status.mode = if leader.is_alone() { Mode::Standalone } else { Mode::Leader };
                    status.leading_since = Some(leader.established_at());
                }
            }
            Term::Learning(learner) => {
                let role = if learner.is_observer() { "observing" } else { "following" };
                status.peer_state = format!("{role} - {}", learner.phase_name());
                status.leader = Some(learner.leader());
                if matches!(self.serving, Serving::Learning(_)) {
                    status.mode = if learner.is_observer() { Mode::Observer } else { Mode::Follower };
                }
            }
        }
        status
    }

    /// Whether [`Self::status`] may have changed since this was last asked.
    pub fn take_status_changed(&mut self) -> bool {
        std::mem::take(&mut self.status_changed)
    }
}
