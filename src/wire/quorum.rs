//! The quorum port: the packets between a leader and its learners (`QuorumPacket`, `server/quorum/Leader`).
//!
//! A connection carries packets without a frame: [`take`] cuts them out of the stream. Behind a SNAP packet the stream
//! is a snapshot's, up to its [`SIGNATURE`].

use crate::jute::records::{Id, LearnerInfo, QuorumPacket};
use crate::jute::{DecodeError, SharedReader, Source};
use crate::model::{Epoch, ServerId, SessionId, TxnMark, Zxid};
use bytes::{Buf, BufMut, Bytes, BytesMut};

/// "ZAB 1.0": what both sides announce.
pub const PROTOCOL: i32 = 0x10000;
/// In LEADERINFO, to a learner that accepted a later epoch than this one: it may observe, once this leader is established.
/// No other leader says this.
pub const OBSERVE: i32 = 0x10001;
/// Behind the snapshot of a SNAP, as a string.
pub const SIGNATURE: &[u8] = b"BenWasHere";

const REQUEST: i32 = 1;
const PROPOSAL: i32 = 2;
const ACK: i32 = 3;
const COMMIT: i32 = 4;
const PING: i32 = 5;
const REVALIDATE: i32 = 6;
const SYNC: i32 = 7;
const INFORM: i32 = 8;
const COMMIT_AND_ACTIVATE: i32 = 9;
const NEW_LEADER: i32 = 10;
const FOLLOWER_INFO: i32 = 11;
const UP_TO_DATE: i32 = 12;
const DIFF: i32 = 13;
const TRUNC: i32 = 14;
const SNAP: i32 = 15;
const OBSERVER_INFO: i32 = 16;
const LEADER_INFO: i32 = 17;
const ACK_EPOCH: i32 = 18;
const INFORM_AND_ACTIVATE: i32 = 19;

/// The packet types by the names that the papers and Java's logs use.
pub fn name(kind: i32) -> &'static str {
    match kind {
        REQUEST => "REQUEST",
        PROPOSAL => "PROPOSAL",
        ACK => "ACK",
        COMMIT => "COMMIT",
        PING => "PING",
        REVALIDATE => "REVALIDATE",
        SYNC => "SYNC",
        INFORM => "INFORM",
        COMMIT_AND_ACTIVATE => "COMMITANDACTIVATE",
        NEW_LEADER => "NEWLEADER",
        FOLLOWER_INFO => "FOLLOWERINFO",
        UP_TO_DATE => "UPTODATE",
        DIFF => "DIFF",
        TRUNC => "TRUNC",
        SNAP => "SNAP",
        OBSERVER_INFO => "OBSERVERINFO",
        LEADER_INFO => "LEADERINFO",
        ACK_EPOCH => "ACKEPOCH",
        INFORM_AND_ACTIVATE => "INFORMANDACTIVATE",
        _ => "an unknown packet",
    }
}

/// A write, a sync or a session's begin or end, as a learner hands it on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Forwarded {
    /// The client's session.
    pub session: SessionId,
    /// The client's number of the request.
    pub cxid: i32,
    /// The operation's code; an unknown one is the leader's to refuse.
    pub op: i32,
    /// The client's request record, unchanged.
    pub body: Bytes,
    /// The ids of the client's connection.
    pub auth: Vec<Id<Bytes>>,
}

/// What a REQUEST has before the record: session, cxid and operation.
const REQUEST_HEAD: usize = 16;
/// What INFORMANDACTIVATE has before the transaction: the leader's id.
pub const ACTIVATE_HEAD: usize = 8;
/// What a PING has for each session.
pub const TOUCH_LEN: usize = 12;

impl Forwarded {
    /// Whether a leader takes the packet, for which no length is more than `max_data`: see [`take`].
    pub fn fits(&self, max_data: usize) -> bool {
        REQUEST_HEAD + self.body.len() <= max_data
            && i32::try_from(self.auth.len()).is_ok_and(|ids| ids <= MAX_IDS)
            && self.auth.iter().map(|id| id.scheme.len() + id.id.len()).sum::<usize>() <= max_data
    }
}

/// What a Zabra learner says of itself in ACKEPOCH, after the epoch, where a Java leader does not look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Plea {
    /// It can't say what it has acknowledged before: it counts only where everybody is here.
    pub forgetful: bool,
    /// Its history is whole, and its tree is not: it needs a snapshot.
    pub snapshot: bool,
    /// It has no transaction, and remembers that: it saw an epoch open that had none.
    pub remembers: bool,
}

impl Plea {
    const FORGETFUL: u8 = 1;
    const SNAPSHOT: u8 = 2;
    const REMEMBERS: u8 = 4;

    fn bits(self) -> u8 {
        let flags = [
            (self.forgetful, Self::FORGETFUL),
            (self.snapshot, Self::SNAPSHOT),
            (self.remembers, Self::REMEMBERS),
        ];
        flags.iter().filter(|(is_set, _)| *is_set).map(|(_, bit)| bit).sum()
    }

    fn of_bits(bits: u8) -> Self {
        Self {
            forgetful: bits & Self::FORGETFUL != 0,
            snapshot: bits & Self::SNAPSHOT != 0,
            remembers: bits & Self::REMEMBERS != 0,
        }
    }
}

/// From a learner to its leader.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FromLearner {
    /// FOLLOWERINFO or, from an observer, OBSERVERINFO.
    Info {
        /// Whether it observes.
        observer: bool,
        /// The last epoch that it accepted.
        accepted: Epoch,
        /// Its id.
        id: ServerId,
        /// What it speaks: [`PROTOCOL`].
        protocol: i32,
        /// The version of its configuration.
        config_version: i64,
    },
    /// `current` is none where the epoch offered was accepted before.
    AckEpoch {
        /// The epoch of its history.
        current: Option<Epoch>,
        /// Its last zxid.
        last: Zxid,
        /// What it says of itself beyond that.
        plea: Plea,
    },
    /// ACK: all up to here is on its disk.
    Ack(Zxid),
    /// An ACK of a transaction after which this learner's tree has another digest than the transaction says. To a Java
    /// leader it is an ACK of what is committed already.
    Differs {
        /// The transaction.
        zxid: Zxid,
        /// The digest of its tree.
        digest: i64,
    },
    /// The sessions that were active since the last ping, with their timeouts in milliseconds.
    Ping {
        /// The zxid of the ping that this answers.
        zxid: Zxid,
        /// The sessions.
        touched: Vec<(SessionId, i32)>,
    },
    /// REVALIDATE: a client wants to take up its session there.
    Revalidate {
        /// The session.
        session: SessionId,
        /// The timeout that the client was promised, in milliseconds.
        timeout_ms: i32,
    },
    /// REQUEST: what a client asks for.
    Request(Forwarded),
    /// A type that no learner sends: Java logs it and continues.
    Unknown(i32),
}

/// From a leader to one of its learners.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FromLeader {
    /// LEADERINFO: the leader offers an epoch.
    LeaderInfo {
        /// The epoch.
        epoch: Epoch,
        /// [`PROTOCOL`] or [`OBSERVE`].
        protocol: i32,
        /// A Zabra leader, which reads a [`Plea`]. This is sent after the protocol, where a Java learner does not look.
        hears_pleas: bool,
    },
    /// Each with the mark of the leader's transaction at the learner's last zxid, or at the one to cut behind, where the
    /// leader is one of ours and has it: by that the learner knows whether it is the same history.
    Diff(Zxid, Option<TxnMark>),
    /// TRUNC: cut the log behind this zxid.
    Trunc(Zxid, Option<TxnMark>),
    /// SNAP: a snapshot of this zxid follows.
    Snap(Zxid, Option<TxnMark>),
    /// The body is header, record and digest, as the log frames them.
    Proposal {
        /// Its zxid.
        zxid: Zxid,
        /// The transaction.
        body: Bytes,
    },
    /// COMMIT, to followers.
    Commit(Zxid),
    /// COMMITANDACTIVATE: COMMIT of a reconfiguration.
    CommitAndActivate {
        /// Its zxid.
        zxid: Zxid,
        /// Who leads from now on.
        leader: ServerId,
    },
    /// INFORM: a committed transaction, to observers.
    Inform {
        /// Its zxid.
        zxid: Zxid,
        /// As in a proposal.
        body: Bytes,
    },
    /// INFORMANDACTIVATE: the same of a reconfiguration.
    InformAndActivate {
        /// Its zxid.
        zxid: Zxid,
        /// Who leads from now on.
        leader: ServerId,
        /// As in a proposal.
        body: Bytes,
    },
    /// `zxid` opens the epoch. Without a configuration from leaders before 3.5.
    NewLeader {
        /// That of the epoch's beginning.
        zxid: Zxid,
        /// The configuration's text.
        config: Option<Bytes>,
    },
    /// UPTODATE: the learner may serve clients.
    UpToDate,
    /// PING, with the last proposal's zxid.
    Ping(Zxid),
    /// REVALIDATE: the answer to a learner's.
    Revalidate {
        /// The session.
        session: SessionId,
        /// Whether it is alive.
        valid: bool,
    },
    /// SYNC: the learner's oldest `sync` may be answered.
    Sync,
    /// A type that no leader sends.
    Unknown(i32),
}

/// At the end of the sessions of a learner's PING, to a leader of this kind alone: the learner's disk has no room to lead. There is no
/// session of this number.
pub const NO_ROOM: (SessionId, i32) = (SessionId::NONE, -1);

/// Writes one packet without authinfo.
fn put(out: &mut BytesMut, kind: i32, zxid: Zxid, data: Option<&[u8]>) {
    QuorumPacket { kind, zxid: zxid.0, data, authinfo: None }.encode(out);
}

/// A Java learner does not look at the data of these.
fn put_marked(out: &mut BytesMut, kind: i32, zxid: Zxid, mark: Option<TxnMark>) {
    let data = mark.map(|mark| mark.0.to_be_bytes());
    put(out, kind, zxid, data.as_ref().map(|data| &data[..]));
}

fn mark_of(data: Option<Bytes>) -> Result<Option<TxnMark>, DecodeError> {
    let Some(data) = data.filter(|data| data.len() >= 4) else { return Ok(None) };
    Ok(Some(TxnMark(SharedReader::new(data).int()? as u32)))
}

const NO_ZXID: Zxid = Zxid(-1);
const HEARS_PLEAS: u8 = 1;

impl FromLearner {
    /// Appends the packet.
    pub fn encode(&self, out: &mut BytesMut) {
        match self {
            Self::Info { observer, accepted, id, protocol, config_version } => {
                let kind = if *observer { OBSERVER_INFO } else { FOLLOWER_INFO };
                let mut data = BytesMut::with_capacity(20);
                LearnerInfo { server_id: id.0, protocol_version: *protocol, config_version: *config_version }
                    .encode(&mut data);
                put(out, kind, Zxid::new(*accepted, 0), Some(&data));
            }
            Self::AckEpoch { current, last, plea } => {
                let epoch =
                    current.map_or(-1, |epoch| i32::try_from(epoch.0).unwrap_or(i32::MAX)).to_be_bytes();
                let data = [epoch[0], epoch[1], epoch[2], epoch[3], plea.bits()];
                let len = if *plea == Plea::default() { 4 } else { 5 };
                put(out, ACK_EPOCH, *last, Some(&data[..len]));
            }
            Self::Ack(zxid) => put(out, ACK, *zxid, None),
            Self::Differs { zxid, digest } => put(out, ACK, *zxid, Some(&digest.to_be_bytes())),
            Self::Ping { zxid, touched } => {
                let mut data = BytesMut::with_capacity(TOUCH_LEN * touched.len());
                for (session, timeout) in touched {
                    data.put_i64(session.0);
                    data.put_i32(*timeout);
                }
                put(out, PING, *zxid, Some(&data));
            }
            Self::Revalidate { session, timeout_ms } => {
                let mut data = BytesMut::with_capacity(12);
                data.put_i64(session.0);
                data.put_i32(*timeout_ms);
                put(out, REVALIDATE, NO_ZXID, Some(&data));
            }
            Self::Request(request) => {
                let mut data = BytesMut::with_capacity(REQUEST_HEAD + request.body.len());
                data.put_i64(request.session.0);
                data.put_i32(request.cxid);
                data.put_i32(request.op);
                data.put_slice(&request.body);
                // Java sends null where there is no connection: for its own createSession.
                let authinfo = (!request.auth.is_empty()).then(|| request.auth.clone());
                let packet = QuorumPacket { kind: REQUEST, zxid: -1, data: Some(data.freeze()), authinfo };
                packet.encode(out);
            }
            Self::Unknown(kind) => put(out, *kind, NO_ZXID, None),
        }
    }

    fn from_packet(packet: QuorumPacket<Bytes>) -> Result<Self, DecodeError> {
        let zxid = Zxid(packet.zxid);
        let data = || packet.data.clone().ok_or(DecodeError::UnexpectedNull);
        Ok(match packet.kind {
            FOLLOWER_INFO | OBSERVER_INFO => {
                let from = &mut SharedReader::new(data()?);
                let id = ServerId(from.long()?);
                // Older learners leave out the end.
                let protocol = if from.remaining() >= 4 { from.int()? } else { 1 };
                let config_version = if from.remaining() >= 8 { from.long()? } else { 0 };
                let observer = packet.kind == OBSERVER_INFO;
                Self::Info { observer, accepted: zxid.epoch(), id, protocol, config_version }
            }
            ACK_EPOCH => {
                let from = &mut SharedReader::new(data()?);
                let epoch = from.int()?;
                let current = (epoch != -1).then_some(Epoch(i64::from(epoch)));
                let plea = match from.remaining() {
                    0 => Plea::default(),
                    _ => Plea::of_bits(from.take(1)?[0]),
                };
                Self::AckEpoch { current, last: zxid, plea }
            }
            ACK => match packet.data {
                Some(data) if data.len() == 8 => {
                    Self::Differs { zxid, digest: SharedReader::new(data).long()? }
                }
                _ => Self::Ack(zxid),
            },
            PING => {
                let from = &mut SharedReader::new(packet.data.unwrap_or_default());
                let mut touched = Vec::with_capacity(from.remaining() / 12);
                while from.remaining() > 0 {
                    touched.push((SessionId(from.long()?), from.int()?));
                }
                Self::Ping { zxid, touched }
            }
            REVALIDATE => {
                let from = &mut SharedReader::new(data()?);
                Self::Revalidate { session: SessionId(from.long()?), timeout_ms: from.int()? }
            }
            REQUEST => {
                let mut from = SharedReader::new(data()?);
                let (session, cxid, op) = (SessionId(from.long()?), from.int()?, from.int()?);
                let body = from.take(from.remaining())?;
                let auth = packet.authinfo.unwrap_or_default();
                Self::Request(Forwarded { session, cxid, op, body, auth })
            }
            other => Self::Unknown(other),
        })
    }
}

impl FromLeader {
    /// Appends the packet.
    pub fn encode(&self, out: &mut BytesMut) {
        match self {
            Self::LeaderInfo { epoch, protocol, hears_pleas } => {
                let [a, b, c, d] = protocol.to_be_bytes();
                let len = if *hears_pleas { 5 } else { 4 };
                put(out, LEADER_INFO, Zxid::new(*epoch, 0), Some(&[a, b, c, d, HEARS_PLEAS][..len]));
            }
            Self::Diff(zxid, mark) => put_marked(out, DIFF, *zxid, *mark),
            Self::Trunc(zxid, mark) => put_marked(out, TRUNC, *zxid, *mark),
            Self::Snap(zxid, mark) => put_marked(out, SNAP, *zxid, *mark),
            Self::Proposal { zxid, body } => put(out, PROPOSAL, *zxid, Some(body)),
            Self::Commit(zxid) => put(out, COMMIT, *zxid, None),
            Self::CommitAndActivate { zxid, leader } => {
                put(out, COMMIT_AND_ACTIVATE, *zxid, Some(&leader.0.to_be_bytes()));
            }
            Self::Inform { zxid, body } => put(out, INFORM, *zxid, Some(body)),
            Self::InformAndActivate { zxid, leader, body } => {
                let data = [&leader.0.to_be_bytes(), &body[..]].concat();
                put(out, INFORM_AND_ACTIVATE, *zxid, Some(&data));
            }
            Self::NewLeader { zxid, config } => put(out, NEW_LEADER, *zxid, config.as_deref()),
            Self::UpToDate => put(out, UP_TO_DATE, NO_ZXID, None),
            Self::Ping(zxid) => put(out, PING, *zxid, None),
            Self::Revalidate { session, valid } => {
                let mut data = [0; 9];
                data[..8].copy_from_slice(&session.0.to_be_bytes());
                data[8] = u8::from(*valid);
                put(out, REVALIDATE, NO_ZXID, Some(&data));
            }
            Self::Sync => put(out, SYNC, Zxid::ZERO, None),
            Self::Unknown(kind) => put(out, *kind, NO_ZXID, None),
        }
    }

    fn from_packet(packet: QuorumPacket<Bytes>) -> Result<Self, DecodeError> {
        let zxid = Zxid(packet.zxid);
        let data = || packet.data.clone().ok_or(DecodeError::UnexpectedNull);
        Ok(match packet.kind {
            LEADER_INFO => {
                let from = &mut SharedReader::new(data()?);
                let protocol = from.int()?;
                let hears_pleas = from.remaining() > 0 && from.take(1)?[0] == HEARS_PLEAS;
                Self::LeaderInfo { epoch: zxid.epoch(), protocol, hears_pleas }
            }
            DIFF => Self::Diff(zxid, mark_of(packet.data)?),
            TRUNC => Self::Trunc(zxid, mark_of(packet.data)?),
            SNAP => Self::Snap(zxid, mark_of(packet.data)?),
            PROPOSAL => Self::Proposal { zxid, body: data()? },
            COMMIT => Self::Commit(zxid),
            COMMIT_AND_ACTIVATE => {
                Self::CommitAndActivate { zxid, leader: ServerId(SharedReader::new(data()?).long()?) }
            }
            INFORM => Self::Inform { zxid, body: data()? },
            INFORM_AND_ACTIVATE => {
                let mut from = SharedReader::new(data()?);
                let leader = ServerId(from.long()?);
                let body = from.take(from.remaining())?;
                Self::InformAndActivate { zxid, leader, body }
            }
            NEW_LEADER => Self::NewLeader { zxid, config: packet.data.filter(|text| text.len() > 1) },
            UP_TO_DATE => Self::UpToDate,
            PING => Self::Ping(zxid),
            REVALIDATE => {
                let from = &mut SharedReader::new(data()?);
                Self::Revalidate { session: SessionId(from.long()?), valid: from.boolean()? }
            }
            SYNC => Self::Sync,
            other => Self::Unknown(other),
        })
    }
}

/// One direction's packets.
pub trait Packet: Sized {
    /// Reads the packet's data. An error if it is none of this direction.
    fn decode(packet: QuorumPacket<Bytes>) -> Result<Self, DecodeError>;
}

impl Packet for FromLearner {
    fn decode(packet: QuorumPacket<Bytes>) -> Result<Self, DecodeError> {
        Self::from_packet(packet)
    }
}

impl Packet for FromLeader {
    fn decode(packet: QuorumPacket<Bytes>) -> Result<Self, DecodeError> {
        Self::from_packet(packet)
    }
}

/// Kind, zxid and the length of the data.
const HEAD: usize = 16;
/// Ids that a request may carry: Java's learners have no limit of their own.
const MAX_IDS: i32 = 1024;
/// Ids that a connection of ours may have, and the bytes that they may take in a request: all of them go along with each
/// one that is handed on, so a client is refused what would not fit there.
pub const MAX_CLIENT_IDS: usize = 64;
/// See [`MAX_CLIENT_IDS`].
pub const MAX_CLIENT_ID_BYTES: usize = 64 << 10;

/// The bytes that an id takes in a request.
pub fn id_len(id: &Id<Bytes>) -> usize {
    2 * size_of::<i32>() + id.scheme.len() + id.id.len()
}

/// Takes the next packet from the front of `bytes`; `None` asks for more of them. `max_data` bounds what a packet may
/// make us wait for: a length beyond it is an error at once.
pub fn take<P: Packet>(bytes: &mut BytesMut, max_data: usize) -> Result<Option<P>, DecodeError> {
    let Some(len) = packet_len(bytes, max_data)? else { return Ok(None) };
    let packet = bytes.split_to(len).freeze();
    let packet = QuorumPacket::decode(&mut SharedReader::new(packet))?;
    P::decode(packet).map(Some)
}

/// The length of the packet at the front without its ids, as far as it says it: what is still to come cannot be checked yet.
pub fn announced_len(bytes: &[u8]) -> usize {
    let announced =
        bytes.get(HEAD - 4..HEAD).and_then(|len| len.try_into().ok()).map_or(0, i32::from_be_bytes);
    usize::try_from(announced).map_or(0, |len| HEAD + len + 4)
}

/// The length of the packet at the front, once it is there as a whole.
fn packet_len(bytes: &[u8], max_data: usize) -> Result<Option<usize>, DecodeError> {
    let mut rest = bytes;
    if rest.len() < HEAD {
        return Ok(None);
    }
    rest.advance(HEAD - 4);
    if !skip(&mut rest, max_data)? || rest.len() < 4 {
        return Ok(None);
    }
    let ids = rest.get_i32();
    if ids > MAX_IDS {
        return Err(DecodeError::BadValue("too many ids in a packet"));
    }
    // A negative count is an empty list, as Java's loop has it; each id is two strings. Together they are bounded as the data is.
    let mut left = max_data;
    for _ in 0..2 * ids.max(0) {
        let before = rest.len();
        if before < 4 || !skip(&mut rest, left)? {
            return Ok(None);
        }
        left -= before - rest.len() - 4;
    }
    Ok(Some(bytes.len() - rest.len()))
}

/// Skips a length and as many bytes. False: they have not all arrived yet.
fn skip(rest: &mut &[u8], max: usize) -> Result<bool, DecodeError> {
    let len = match rest.get_i32() {
        -1 => 0,
        len if len < 0 || len as usize > max => return Err(DecodeError::NegativeLength(len)),
        len => len as usize,
    };
    if rest.len() < len {
        return Ok(false);
    }
    rest.advance(len);
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::jute::records::{CreateSessionTxn, TxnDigest, TxnHeader};
    use crate::wire::golden::{CONFIG, hex};
    use crate::wire::txn::{Txn, TxnBody};

    const MAX: usize = 2_097_150;
    const EPOCH: i64 = 1 << 32;

    #[test]
    fn the_ids_of_a_packet_are_bounded_together() {
        let mut bytes = BytesMut::new();
        bytes.extend_from_slice(&hex("00000001 ffffffffffffffff ffffffff 00000400"));
        for _ in 0..100 {
            bytes.put_i32(1000);
            bytes.extend_from_slice(&[b'x'; 1000]);
            match take::<FromLearner>(&mut bytes.clone(), 10_000) {
                Ok(waits) => assert_eq!(waits, None),
                Err(error) => {
                    assert_eq!(error, DecodeError::NegativeLength(1000));
                    assert!(bytes.len() < 12_000, "{}", bytes.len());
                    return;
                }
            }
        }
        panic!("more is waited for");
    }

    fn learner_says(golden: &str, packet: FromLearner) {
        let golden = hex(golden);
        let mut out = BytesMut::new();
        packet.encode(&mut out);
        assert_eq!(&out[..], &golden[..], "{packet:?}");
        assert_eq!(take(&mut BytesMut::from(&golden[..]), MAX), Ok(Some(packet)));
        for cut in 0..golden.len() {
            assert_eq!(
                take::<FromLearner>(&mut BytesMut::from(&golden[..cut]), MAX),
                Ok(None),
                "cut at {cut}"
            );
        }
    }

    fn leader_says(golden: &str, packet: FromLeader) {
        let golden = hex(golden);
        let mut out = BytesMut::new();
        packet.encode(&mut out);
        assert_eq!(&out[..], &golden[..], "{packet:?}");
        assert_eq!(take(&mut BytesMut::from(&golden[..]), MAX), Ok(Some(packet)));
    }

    // What follows was said by three Java servers of 3.9.5 and an observer, and recorded on the way between them by
    // `compat-tests/.venv/bin/python compat-tests/ensemble/capture.py`.

    fn info(observer: bool, id: i64, accepted: i64, config_version: i64) -> FromLearner {
        let (accepted, id) = (Epoch(accepted), ServerId(id));
        FromLearner::Info { observer, accepted, id, protocol: PROTOCOL, config_version }
    }

    #[test]
    fn discovery_has_javas_bytes() {
        learner_says(
            "0000000b 0000000000000000 00000014 0000000000000001 00010000 0000000000000000 ffffffff",
            info(false, 1, 0, 0),
        );
        learner_says(
            "0000000b 0000000100000000 00000014 0000000000000003 00010000 0000000100000000 ffffffff",
            info(false, 3, 1, EPOCH),
        );
        learner_says(
            "00000010 0000000100000000 00000014 0000000000000004 00010000 0000000100000000 ffffffff",
            info(true, 4, 1, EPOCH),
        );
        leader_says(
            "00000011 0000000100000000 00000004 00010000 ffffffff",
            FromLeader::LeaderInfo { epoch: Epoch(1), protocol: PROTOCOL, hears_pleas: false },
        );
        learner_says(
            "00000012 0000000000000000 00000004 00000000 ffffffff",
            FromLearner::AckEpoch { current: Some(Epoch(0)), last: Zxid(0), plea: Plea::default() },
        );
        learner_says(
            "00000012 000000010000001a 00000004 00000001 ffffffff",
            FromLearner::AckEpoch {
                current: Some(Epoch(1)),
                last: Zxid(EPOCH + 0x1a),
                plea: Plea::default(),
            },
        );
        // A follower that was away and came back in the same epoch.
        learner_says(
            "00000012 0000000100000017 00000004 ffffffff ffffffff",
            FromLearner::AckEpoch { current: None, last: Zxid(EPOCH + 0x17), plea: Plea::default() },
        );
    }

    #[test]
    fn synchronization_has_javas_bytes() {
        leader_says("0000000d 0000000000000000 ffffffff ffffffff", FromLeader::Diff(Zxid(0), None));
        leader_says(
            "0000000d 000000010000001c ffffffff ffffffff",
            FromLeader::Diff(Zxid(EPOCH + 0x1c), None),
        );
        leader_says(
            "0000000e 000000010000001c ffffffff ffffffff",
            FromLeader::Trunc(Zxid(EPOCH + 0x1c), None),
        );
        leader_says(
            "0000000f 000000010000001a ffffffff ffffffff",
            FromLeader::Snap(Zxid(EPOCH + 0x1a), None),
        );
        let golden = format!("0000000a 0000000100000000 000000e2 '{CONFIG}100000000' ffffffff");
        let config = Some(Bytes::from(format!("{CONFIG}100000000")));
        leader_says(&golden, FromLeader::NewLeader { zxid: Zxid(EPOCH), config });
        learner_says("00000003 0000000100000000 ffffffff ffffffff", FromLearner::Ack(Zxid(EPOCH)));
        leader_says("0000000c ffffffffffffffff ffffffff ffffffff", FromLeader::UpToDate);
    }

    #[test]
    fn broadcast_has_javas_bytes() {
        let create_session = "01000079e49f0000 00000000 0000000100000001 000001a20f68426f fffffff6
             00002710 00000002 0000000051c6d660";
        let body = Bytes::from(hex(create_session));
        let zxid = Zxid(EPOCH + 1);
        leader_says(
            &format!("00000002 0000000100000001 00000030 {create_session} ffffffff"),
            FromLeader::Proposal { zxid, body: body.clone() },
        );
        leader_says(
            &format!("00000008 0000000100000001 00000030 {create_session} ffffffff"),
            FromLeader::Inform { zxid, body: body.clone() },
        );
        let session = 0x0100_0079_e49f_0000;
        let txn = Txn {
            header: TxnHeader { client_id: session, cxid: 0, zxid: zxid.0, time: 0x1a2_0f68_426f, op: -10 },
            body: TxnBody::CreateSession(CreateSessionTxn { timeout: 10_000 }),
            digest: Some(TxnDigest { version: 2, tree_digest: 0x51c6_d660 }),
        };
        assert_eq!(Txn::decode(body.clone()).as_ref(), Ok(&txn));
        let mut out = BytesMut::new();
        txn.encode(&mut out);
        assert_eq!(out, body);

        leader_says("00000004 0000000100000001 ffffffff ffffffff", FromLeader::Commit(Zxid(EPOCH + 1)));
        learner_says("00000003 0000000100000002 ffffffff ffffffff", FromLearner::Ack(Zxid(EPOCH + 2)));
        leader_says("00000005 0000000100000000 ffffffff ffffffff", FromLeader::Ping(Zxid(EPOCH)));
        learner_says(
            "00000005 0000000100000000 00000000 ffffffff",
            FromLearner::Ping { zxid: Zxid(EPOCH), touched: Vec::new() },
        );
        learner_says(
            "00000005 0000000100000007 0000000c 02000079e67e0000 00002710 ffffffff",
            FromLearner::Ping {
                zxid: Zxid(EPOCH + 7),
                touched: vec![(SessionId(0x0200_0079_e67e_0000), 10_000)],
            },
        );
    }

    #[test]
    fn requests_have_javas_bytes() {
        let session = SessionId(0x0100_0079_e49f_0000);
        let body = Bytes::from_static(b"\0\0\x27\x10");
        let create = Forwarded { session, cxid: 0, op: -10, body, auth: Vec::new() };
        learner_says(
            "00000001 ffffffffffffffff 00000014 01000079e49f0000 00000000 fffffff6 00002710 ffffffff",
            FromLearner::Request(create),
        );
        let auth = vec![Id { scheme: Bytes::from_static(b"ip"), id: Bytes::from_static(b"127.0.0.1") }];
        let close = Forwarded { session, cxid: 2, op: -11, body: Bytes::new(), auth };
        learner_says(
            "00000001 ffffffffffffffff 00000010 01000079e49f0000 00000002 fffffff5
             00000001 00000002 'ip' 00000009 '127.0.0.1'",
            FromLearner::Request(close),
        );
        leader_says("00000007 0000000000000000 ffffffff ffffffff", FromLeader::Sync);
        let session = SessionId(0x0300_0079_e59c_0002);
        learner_says(
            "00000006 ffffffffffffffff 0000000c 03000079e59c0002 00002710 ffffffff",
            FromLearner::Revalidate { session, timeout_ms: 10_000 },
        );
        leader_says(
            "00000006 ffffffffffffffff 00000009 03000079e59c0002 01 ffffffff",
            FromLeader::Revalidate { session, valid: true },
        );
    }

    #[test]
    fn a_request_with_all_that_a_client_may_be_known_by_fits() {
        // Many small ones, and a single large one: what the client port lets in, see `auth::with_ids`.
        for count in [1, MAX_CLIENT_IDS] {
            let len = MAX_CLIENT_ID_BYTES / count - 8 - "digest".len();
            let id = Id { scheme: Bytes::from_static(b"digest"), id: vec![b'x'; len].into() };
            let auth = vec![id; count];
            assert_eq!(auth.iter().map(id_len).sum::<usize>(), MAX_CLIENT_ID_BYTES / count * count);
            // The least that two servers have to take, see `server::settings::peers`.
            let max = 1 << 20;
            let body = Bytes::from(vec![0; max - 16]);
            let request = FromLearner::Request(Forwarded {
                session: SessionId(1),
                cxid: 1,
                op: 1,
                body,
                auth: auth.clone(),
            });
            let mut out = BytesMut::new();
            request.encode(&mut out);
            assert_eq!(out.len(), HEAD + max + 4 + auth.iter().map(id_len).sum::<usize>());
            assert_eq!(take(&mut out, max), Ok(Some(request)));
        }
    }

    #[test]
    fn reconfiguration_has_javas_bytes() {
        let (zxid, leader) = (Zxid(2 * EPOCH + 5), ServerId(2));
        leader_says(
            "00000009 0000000200000005 00000008 0000000000000002 ffffffff",
            FromLeader::CommitAndActivate { zxid, leader },
        );
        let config = CONFIG.replace(":26747", ":26750");
        let txn = format!(
            "0100007a44350000 00000001 0000000200000005 000001a20f68b2fe 00000010
             00000011 '/zookeeper/config' 000000e2 '{config}200000005' ffffffff 00000002 0000000604589849"
        );
        let body = Bytes::from(hex(&txn));
        leader_says(
            &format!("00000013 0000000200000005 00000133 0000000000000002 {txn} ffffffff"),
            FromLeader::InformAndActivate { zxid, leader, body: body.clone() },
        );
        let TxnBody::Reconfig(set) = Txn::decode(body).unwrap().body else {
            panic!("it is a reconfiguration")
        };
        assert_eq!(set.data, Some(Bytes::from(format!("{config}200000005"))));
        assert_eq!(set.version, -1);
    }

    #[test]
    fn lengths_beyond_the_limit_are_refused_before_anything_is_awaited() {
        for (packet, wrong) in [
            ("00000002 0000000100000001 7fffffff", DecodeError::NegativeLength(i32::MAX)),
            ("00000002 0000000100000001 fffffffe", DecodeError::NegativeLength(-2)),
            (
                "00000001 ffffffffffffffff ffffffff 7fffffff",
                DecodeError::BadValue("too many ids in a packet"),
            ),
            (
                "00000001 ffffffffffffffff ffffffff 00000001 7ffffff0",
                DecodeError::NegativeLength(0x7fff_fff0),
            ),
        ] {
            assert_eq!(refused::<FromLeader>(packet), wrong, "{packet}");
            assert_eq!(refused::<FromLearner>(packet), wrong, "{packet}");
        }
    }

    fn refused<P: Packet + std::fmt::Debug>(packet: &str) -> DecodeError {
        take::<P>(&mut BytesMut::from(&hex(packet)[..]), MAX).expect_err(packet)
    }

    /// What a learner hands on is what a leader takes, neither more nor less: or one client cuts off all of a learner's.
    #[test]
    fn what_fits_is_taken() {
        const MAX: usize = 100;
        let text = |len: usize| Bytes::from(vec![b'x'; len]);
        let many = usize::try_from(MAX_IDS).unwrap();
        for (body, ids, id) in
            [(84, 1, 96), (85, 1, 96), (84, 1, 97), (84, 20, 1), (84, 21, 1), (84, many + 1, 0)]
        {
            for (scheme, id) in [(4, id), (id, 4)] {
                let auth = vec![Id { scheme: text(scheme), id: text(id) }; ids];
                let request = Forwarded { session: SessionId(1), cxid: 1, op: 1, body: text(body), auth };
                let mut packet = BytesMut::new();
                FromLearner::Request(request.clone()).encode(&mut packet);
                let taken = take::<FromLearner>(&mut packet, MAX);
                assert_eq!(request.fits(MAX), taken.is_ok(), "{body} {ids} {scheme} {id}");
            }
        }
    }

    #[test]
    fn a_packet_without_what_its_kind_needs_is_refused() {
        let cut = |needed, left| DecodeError::Truncated { needed, left };
        for (packet, wrong) in [
            ("0000000b 0000000000000000 ffffffff ffffffff", DecodeError::UnexpectedNull),
            ("0000000b 0000000000000000 00000004 00000001 ffffffff", cut(8, 4)),
            ("00000012 0000000000000000 00000002 0000 ffffffff", cut(4, 2)),
            ("00000005 0000000000000000 00000005 0000000000 ffffffff", cut(8, 5)),
            ("00000006 0000000000000000 00000008 0000000000000000 ffffffff", cut(4, 0)),
            ("00000001 0000000000000000 00000008 0000000000000000 ffffffff", cut(4, 0)),
        ] {
            assert_eq!(refused::<FromLearner>(packet), wrong, "{packet}");
        }
        for (packet, wrong) in [
            ("00000002 0000000000000000 ffffffff ffffffff", DecodeError::UnexpectedNull),
            ("00000009 0000000000000000 00000004 00000000 ffffffff", cut(8, 4)),
            ("00000013 0000000000000000 00000004 00000000 ffffffff", cut(8, 4)),
            ("00000011 0000000000000000 ffffffff ffffffff", DecodeError::UnexpectedNull),
        ] {
            assert_eq!(refused::<FromLeader>(packet), wrong, "{packet}");
        }
    }

    #[test]
    fn unknown_kinds_are_told_and_stepped_over() {
        let mut bytes = BytesMut::from(&hex("00000063 0000000000000000 00000001 00 ffffffff")[..]);
        assert_eq!(take(&mut bytes, MAX), Ok(Some(FromLeader::Unknown(0x63))));
        assert!(bytes.is_empty());
    }
}
