//! One link of the quorum port as a value, at either end: bytes go in; inputs for the core come out, and what the driver
//! has to do before more can be taken. It has no socket and no clock: `peer` drives it over TCP, the simulator over its network.
//!
//! The driver reads into a buffer of its own and calls [`Link::take`] with it, again and again: each [`Step`] says what comes
//! before the next call. Inputs are to be handed in before the driver waits for anything. What the core asks for is told by
//! [`Link::hold`]; who says that it is a server is let in by [`Link::admit`]; a snapshot that is whole goes to
//! [`Link::on_snapshot`].

#![cfg_attr(
    not(test),
    warn(
        missing_docs,
        unreachable_pub,
        clippy::allow_attributes_without_reason,
        clippy::cast_possible_truncation,
        clippy::wildcard_enum_match_arm
    )
)]

#[cfg(test)]
mod tests;

use crate::jute::DecodeError;
use crate::model::{LinkId, ServerId, Zxid};
use crate::replica::{Input, QuorumInput};
use crate::tree::Database;
use crate::wire::election;
use crate::wire::quorum::{FromLeader, FromLearner, take};
use bytes::BytesMut;

/// Bytes of what a learner says first; FOLLOWERINFO has 40.
pub const MAX_INTRODUCTION: usize = 1 << 10;
/// How a TLS client begins.
const TLS_HELLO: [u8; 2] = [0x16, 0x03];

/// What the driver has to do next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Read more bytes.
    NeedMore,
    /// Read nothing until the core lets go of the link.
    Held,
    /// Find out whether the other side may be this server; then [`Link::admit`] it, or drop the link.
    Claims(ServerId),
    /// Take a snapshot of this zxid from the bytes that follow.
    Snapshot(Zxid),
    /// Drop the link: what it brought is no conversation.
    Broken(LinkEnd),
}

/// What ends a link from the other side, but for its close.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LinkEnd {
    /// It sent an election's initial message. Ports of a server line are exchanged, on its side or on ours.
    #[error(
        "it sent an election message to the quorum port: compare the ports of the server.N lines, host:quorumPort:electionPort"
    )]
    ElectionMessage,
    /// It began a TLS handshake.
    #[error("it speaks TLS to the quorum port (sslQuorum), which this server does not")]
    Tls,
    /// It sent something else before FOLLOWERINFO or OBSERVERINFO.
    #[error("it sent another packet before it said who it is")]
    NotIntroduced,
    /// Its first packet is longer than any introduction.
    #[error("its introduction has more than {MAX_INTRODUCTION} bytes")]
    LongIntroduction,
    /// It sent what is no packet, or a longer one than `jute.maxbuffer` allows.
    #[error("it sent a packet that does not decode: {0}")]
    Packet(#[from] DecodeError),
}

/// What the next bytes are.
#[derive(Debug)]
enum Stage {
    /// The introduction of a learner.
    Stranger,
    /// Nothing is taken before it is known whether it may be that server.
    Claimed { id: ServerId, packet: FromLearner },
    /// Packets of a learner.
    Learner,
    /// Packets of the leader.
    Leader,
    /// The leader's snapshot, and then packets again.
    Snapshot(Zxid),
}

/// One link, from the first byte to its end.
#[derive(Debug)]
pub struct Link {
    id: LinkId,
    stage: Stage,
    held: bool,
    max_packet: usize,
}

impl Link {
    /// Somebody connected to this server. The core hears of it once it has said who it is, and is admitted.
    pub fn accepted(id: LinkId, max_packet: usize) -> Self {
        Self { id, stage: Stage::Stranger, held: false, max_packet }
    }

    /// This server connected to its leader. The input comes before all others.
    pub fn dialed(id: LinkId, max_packet: usize) -> (Self, Input) {
        let link = Self { id, stage: Stage::Leader, held: false, max_packet };
        (link, Input::Quorum(QuorumInput::Dialed(id)))
    }

    /// The core wants nothing of this link (`on`), or takes more.
    pub fn hold(&mut self, on: bool) {
        self.held = on;
    }

    /// Takes what it can from the front of `bytes`, as inputs for the core. `touches` are the sessions that were heard from,
    /// which the answer to a leader's PING tells: they are collected as late as possible.
    pub fn take(
        &mut self,
        bytes: &mut BytesMut,
        touches: &dyn Fn() -> Input,
        inputs: &mut Vec<Input>,
    ) -> Step {
        if self.held {
            return Step::Held;
        }
        let taken = match &self.stage {
            Stage::Stranger => self.introduction(bytes),
            Stage::Claimed { id, .. } => Ok(Step::Claims(*id)),
            Stage::Learner => self.learner_packets(bytes, inputs),
            Stage::Leader => self.leader_packets(bytes, touches, inputs),
            Stage::Snapshot(zxid) => Ok(Step::Snapshot(*zxid)),
        };
        taken.unwrap_or_else(Step::Broken)
    }

    fn introduction(&mut self, bytes: &mut BytesMut) -> Result<Step, LinkEnd> {
        if election::is_initial(bytes) {
            return Err(LinkEnd::ElectionMessage);
        }
        if bytes.starts_with(&TLS_HELLO) {
            return Err(LinkEnd::Tls);
        }
        match take(bytes, MAX_INTRODUCTION)? {
            Some(packet @ FromLearner::Info { id, .. }) => {
                self.stage = Stage::Claimed { id, packet };
                Ok(Step::Claims(id))
            }
            Some(_) => Err(LinkEnd::NotIntroduced),
            None if bytes.len() >= MAX_INTRODUCTION => Err(LinkEnd::LongIntroduction),
            None => Ok(Step::NeedMore),
        }
    }

    fn learner_packets(&self, bytes: &mut BytesMut, inputs: &mut Vec<Input>) -> Result<Step, LinkEnd> {
        while let Some(packet) = take(bytes, self.max_packet)? {
            inputs.push(Input::Quorum(QuorumInput::FromLearner { link: self.id, packet }));
        }
        Ok(Step::NeedMore)
    }

    fn leader_packets(
        &mut self,
        bytes: &mut BytesMut,
        touches: &dyn Fn() -> Input,
        inputs: &mut Vec<Input>,
    ) -> Result<Step, LinkEnd> {
        while let Some(packet) = take(bytes, self.max_packet)? {
            if let FromLeader::Ping(_) = packet {
                inputs.push(touches());
            }
            let snapshot = if let FromLeader::Snap(zxid, _) = packet { Some(zxid) } else { None };
            inputs.push(Input::Quorum(QuorumInput::FromLeader { link: self.id, packet }));
            if let Some(zxid) = snapshot {
                self.stage = Stage::Snapshot(zxid);
                return Ok(Step::Snapshot(zxid));
            }
        }
        Ok(Step::NeedMore)
    }

    /// The other side may be the server that it says it is.
    pub fn admit(&mut self, inputs: &mut Vec<Input>) {
        if let Stage::Claimed { packet, .. } = std::mem::replace(&mut self.stage, Stage::Learner) {
            inputs.push(Input::Quorum(QuorumInput::Accepted(self.id)));
            inputs.push(Input::Quorum(QuorumInput::FromLearner { link: self.id, packet }));
        } else {
            unreachable!("who claims nothing is not admitted");
        }
    }

    /// The snapshot is whole, and on disk. What follows are packets again.
    pub fn on_snapshot(&mut self, db: Box<Database>, inputs: &mut Vec<Input>) {
        if let Stage::Snapshot(zxid) = std::mem::replace(&mut self.stage, Stage::Leader) {
            inputs.push(Input::Quorum(QuorumInput::Snapshot { link: self.id, zxid, db }));
        } else {
            unreachable!("a snapshot comes after SNAP");
        }
    }

    /// The link is over. What the core hears of that: nothing, where it never heard of the link.
    pub fn end(self) -> Option<Input> {
        match self.stage {
            Stage::Stranger | Stage::Claimed { .. } => None,
            Stage::Learner | Stage::Leader | Stage::Snapshot(_) => {
                Some(Input::Quorum(QuorumInput::Closed(self.id)))
            }
        }
    }
}
