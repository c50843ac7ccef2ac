//! What a server tells of itself: in `srvr`, `stat`, `mntr`.

use super::serving::Serving;
use crate::model::{Epoch, ServerId};
use crate::zab::{Term, Zab};

/// Bytes that wait in a replica's queues.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Amounts {
    /// Requests of this server's own clients that are not answered yet, also of clients that have gone meanwhile.
    pub outstanding: usize,
    /// Transactions on their way to the log.
    pub unlogged: usize,
    /// Committed transactions in memory.
    pub history: usize,
    /// What a leader has sent to its learners, and they have not read for sure.
    pub learners: usize,
}

/// What part a server plays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// It leads an ensemble of one that holds no election.
    Standalone,
    /// It leads.
    Leader,
    /// It follows, and votes.
    Follower,
    /// It learns, and does not vote.
    Observer,
    /// There is no leader, and clients may read all the same.
    ReadOnly,
    /// There is no leader, or this server is not up to date with it.
    NotServing,
}

impl Mode {
    /// The name that `srvr` and `mntr` print.
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

/// What a server tells of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    /// The part that it plays.
    pub mode: Mode,
    /// Clients are taken: there is a leader, or they may read without one, and they are not left to others (`leaderServes`).
    pub serves_clients: bool,
    /// How far its term is.
    pub standing: Standing,
    /// Whom it leads or learns from: itself, if it leads.
    pub leader: Option<ServerId>,
    /// The epoch of its leader, or of its history.
    pub epoch: Epoch,
    /// How many voters the configuration has.
    pub quorum_size: usize,
    /// Milliseconds, monotonic.
    pub leading_since: Option<u64>,
    /// The configuration's text.
    pub config: String,
}

/// How far this server's term is, and who follows it. Any packet may change that, so it is looked at after each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    role: &'static str,
    phase: Option<&'static str>,
    /// Learners that have said who they are.
    pub learners: usize,
    /// Followers that are up to date.
    pub synced_followers: usize,
    /// Those of them that have no vote.
    pub synced_non_voters: usize,
    /// Observers that are up to date.
    pub synced_observers: usize,
    /// `sync`s that are not answered.
    pub pending_syncs: usize,
}

impl Standing {
    const LOOKING: Self = Self {
        role: "looking",
        phase: None,
        learners: 0,
        synced_followers: 0,
        synced_non_voters: 0,
        synced_observers: 0,
        pending_syncs: 0,
    };

    /// As `mntr` prints it: "leading - broadcast".
    pub fn peer_state(&self) -> String {
        self.phase.map_or(self.role.into(), |phase| format!("{} - {phase}", self.role))
    }

    pub(super) fn of(zab: &Zab) -> Self {
        match &zab.term {
            Term::None => Self::LOOKING,
            Term::Leading(leader) => {
                let mut standing = Self {
                    role: "leading",
                    phase: Some(leader.phase_name()),
                    pending_syncs: leader.pending_syncs(),
                    ..Self::LOOKING
                };
                for (sid, observer, synced) in leader.learners() {
                    standing.learners += 1;
                    standing.synced_observers += usize::from(synced && observer);
                    standing.synced_followers += usize::from(synced && !observer);
                    let votes = zab.server.view.committed.is_voter(sid);
                    standing.synced_non_voters += usize::from(synced && !observer && !votes);
                }
                standing
            }
            Term::Learning(learner) => {
                let role = if learner.is_observer() { "observing" } else { "following" };
                Self { role, phase: Some(learner.phase_name()), ..Self::LOOKING }
            }
        }
    }
}

impl Status {
    pub(super) fn of(zab: &Zab, serving: &Serving, leader_serves: bool) -> Self {
        let server = &zab.server;
        let mut status = Self {
            mode: Mode::NotServing,
            serves_clients: false,
            standing: Standing::of(zab),
            leader: None,
            epoch: server.current,
            quorum_size: server.view.committed.voters().count(),
            leading_since: None,
            config: server.view.committed.to_string(),
        };
        match &zab.term {
            Term::None if serving.is_read_only() => status.mode = Mode::ReadOnly,
            Term::None => {}
            Term::Leading(leader) => {
                status.leader = Some(server.me());
                status.epoch = leader.epoch();
                if serving.is_leading() {
                    status.mode = if leader.is_alone() { Mode::Standalone } else { Mode::Leader };
                    status.leading_since = Some(leader.established_at());
                }
            }
            Term::Learning(learner) => {
                status.leader = Some(learner.leader());
                if serving.is_learning() {
                    status.mode = if learner.is_observer() { Mode::Observer } else { Mode::Follower };
                }
            }
        }
        status.serves_clients = match status.mode {
            Mode::NotServing => false,
            Mode::Leader => leader_serves,
            Mode::Standalone | Mode::Follower | Mode::Observer | Mode::ReadOnly => true,
        };
        status
    }
}
