//! The election port: the initial message, and the notifications after it
//! (`QuorumCnxManager.InitialMessage`, `FastLeaderElection.buildMsg`).

use crate::jute::{DecodeError, Reader, Source, put_len};
use crate::model::{Epoch, ServerId, Zxid};
use bytes::{BufMut, Bytes, BytesMut};

/// One address follows.
const ONE_ADDRESS: i64 = -65_536;
/// Several, with `|` between them: sent where `multiAddress.enabled`.
const MANY_ADDRESSES: i64 = -65_535;
/// What Java reads at the most.
const MAX_ADDRESS: i32 = 2048;
/// A notification's frame has at most this many bytes, as Java has it.
pub const MAX_NOTIFICATION: usize = 512 << 10;
/// The version of notifications that carry a configuration.
const WITH_CONFIG: i32 = 2;

/// The last round that a server tells, or takes from another: far beyond all that are ever counted.
pub const LAST_ROUND: i64 = 1 << 62;
/// What means "none" in a vote: of an observer, or of a server that does not vote in this round.
const NOTHING: i64 = i64::MIN;

/// What the dialling server says first, once, without a frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InitialMessage {
    /// Who dials.
    pub from: ServerId,
    /// Its own election addresses, `host:port`. Empty from servers before 3.5.
    pub addresses: Vec<(String, u16)>,
}

impl InitialMessage {
    /// Has to leave in one write: Java takes what one read brings.
    pub fn encode(&self, out: &mut BytesMut) {
        let one = |(host, port): &(String, u16)| {
            if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
        };
        let text = self.addresses.iter().map(one).collect::<Vec<_>>().join("|");
        out.put_i64(if self.addresses.len() > 1 { MANY_ADDRESSES } else { ONE_ADDRESS });
        out.put_i64(self.from.0);
        put_len(out, text.len());
        out.put_slice(text.as_bytes());
    }

    /// Takes the message from the front of `bytes`, with its length; `None` asks for more bytes.
    pub fn decode(bytes: &[u8]) -> Result<Option<(Self, usize)>, DecodeError> {
        let mut from = Reader::new(bytes);
        let all = bytes.len();
        match Self::take(&mut from) {
            Ok(message) => Ok(Some((message, all - from.remaining()))),
            Err(DecodeError::Truncated { .. }) => Ok(None),
            Err(other) => Err(other),
        }
    }

    fn take(from: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let first = from.long()?;
        if first >= 0 {
            return Ok(Self { from: ServerId(first), addresses: Vec::new() });
        }
        if !matches!(first, ONE_ADDRESS | MANY_ADDRESSES) {
            return Err(DecodeError::BadValue("an unknown version of the initial message"));
        }
        let sender = ServerId(from.long()?);
        let len = from.int()?;
        if !(1..=MAX_ADDRESS).contains(&len) {
            return Err(DecodeError::NegativeLength(len));
        }
        let text = std::str::from_utf8(from.take(len as usize)?);
        let text = text.map_err(|_| DecodeError::BadValue("an address that is no UTF-8"))?;
        let addresses = text.split('|').map(address).collect::<Result<_, _>>()?;
        Ok(Self { from: sender, addresses })
    }
}

fn address(text: &str) -> Result<(String, u16), DecodeError> {
    let wrong = DecodeError::BadValue("an address needs the form host:port");
    let (host, port) = text.rsplit_once(':').ok_or(wrong)?;
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let port = port.parse().map_err(|_| wrong)?;
    if host.is_empty() { Err(wrong) } else { Ok((host.into(), port)) }
}

/// Whether the bytes begin as the initial message of a server of 3.5 or later does. A packet of the quorum port never does.
pub fn is_initial(bytes: &[u8]) -> bool {
    let version = bytes.first_chunk().map(|first| i64::from_be_bytes(*first));
    matches!(version, Some(ONE_ADDRESS | MANY_ADDRESSES))
}

/// What a server does, as it tells the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PeerState {
    /// It looks for a leader, code 0.
    Looking,
    /// It follows, code 1.
    Following,
    /// It leads, code 2.
    Leading,
    /// It observes, code 3.
    Observing,
}

impl PeerState {
    fn from_code(code: i32) -> Option<Self> {
        Some(match code {
            0 => Self::Looking,
            1 => Self::Following,
            2 => Self::Leading,
            3 => Self::Observing,
            _ => return None,
        })
    }

    /// The name that Java's logs use.
    pub fn name(self) -> &'static str {
        match self {
            Self::Looking => "LOOKING",
            Self::Following => "FOLLOWING",
            Self::Leading => "LEADING",
            Self::Observing => "OBSERVING",
        }
    }
}

/// One vote, and who tells it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notification {
    /// What the sender does.
    pub state: PeerState,
    /// Whom the sender would see lead, or who leads.
    pub leader: ServerId,
    /// The proposed leader's last logged zxid.
    pub zxid: Zxid,
    /// The sender's logical clock.
    pub round: i64,
    /// The proposed leader's current epoch.
    pub peer_epoch: Epoch,
    /// 0 from servers before 3.4.6.
    pub version: i32,
    /// The sender's committed configuration; not of its version where it does not parse.
    pub config: Option<Bytes>,
}

impl Notification {
    /// Whether the proposed leader has something, or led already.
    pub fn tells_history(&self) -> bool {
        self.zxid.0 > 0 || self.peer_epoch.0 > 0
    }

    /// Appends the frame.
    pub fn encode(&self, out: &mut BytesMut) {
        let config = self.config.as_deref().unwrap_or_default();
        put_len(out, 44 + config.len());
        out.put_i32(self.state as i32);
        out.put_i64(self.leader.0);
        out.put_i64(self.zxid.0);
        out.put_i64(self.round);
        out.put_i64(self.peer_epoch.0);
        out.put_i32(WITH_CONFIG);
        put_len(out, config.len());
        out.put_slice(config);
    }

    /// Reads a frame's body. Older forms are recognized by their length.
    pub fn decode(body: &[u8]) -> Result<Self, DecodeError> {
        let from = &mut Reader::new(body);
        let state = PeerState::from_code(from.int()?).ok_or(DecodeError::BadValue("an unknown state"))?;
        let (leader, zxid, round) = (ServerId(from.long()?), Zxid(from.long()?), from.long()?);
        // Java's servers that have not looked for a leader yet are in round -1, and -1 is a zxid without data.
        if !(-1..=LAST_ROUND).contains(&round) {
            return Err(DecodeError::BadValue("a round that nobody can be in"));
        }
        if zxid.0 < -1 && zxid.0 != NOTHING {
            return Err(DecodeError::BadValue("a negative zxid"));
        }
        let old = Self { state, leader, zxid, round, peer_epoch: zxid.epoch(), version: 0, config: None };
        if body.len() == 28 {
            return Ok(old);
        }
        let epoch = Epoch(from.long()?);
        if !(Epoch(-1)..=Epoch::LAST).contains(&epoch) && epoch.0 != NOTHING {
            return Err(DecodeError::BadValue("an epoch that no zxid has"));
        }
        let old = Self { peer_epoch: epoch, ..old };
        // Senders of 40 bytes put a 1 there, which Java does not look at.
        if body.len() == 40 {
            return Ok(old);
        }
        let version = from.int()?;
        if version < WITH_CONFIG {
            return Ok(Self { version, ..old });
        }
        let config = match from.int()? {
            len if len < 0 => return Err(DecodeError::NegativeLength(len)),
            len => Bytes::copy_from_slice(from.take(len as usize)?),
        };
        Ok(Self { version, config: Some(config), ..old })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::golden::{CONFIG, hex};

    // What follows was said by three Java servers of 3.9.5 and an observer, and recorded on the way between them by
    // `compat-tests/.venv/bin/python compat-tests/ensemble/capture.py`.

    #[test]
    fn the_initial_message_is_javas() {
        let golden = hex("ffffffffffff0000 0000000000000003 00000009 'zk3:26746'");
        let message = InitialMessage { from: ServerId(3), addresses: vec![("zk3".into(), 26_746)] };
        let mut out = BytesMut::new();
        message.encode(&mut out);
        assert_eq!(&out[..], &golden[..]);
        assert_eq!(InitialMessage::decode(&golden), Ok(Some((message, golden.len()))));
        for cut in 0..golden.len() {
            assert_eq!(InitialMessage::decode(&golden[..cut]), Ok(None), "cut at {cut}");
        }
    }

    #[test]
    fn notifications_are_javas() {
        let looking = "00000000 0000000000000001 0000000000000000 0000000000000001 0000000000000000 00000002";
        let leading = "00000002 0000000000000002 000000010000001c 0000000000000001 0000000000000001 00000002";
        let following =
            "00000001 0000000000000002 000000010000001c 0000000000000002 0000000000000002 00000002";
        let from_files = format!("{CONFIG}0");
        let of_epoch_1 = format!("{CONFIG}100000000");
        let told = |state, leader, zxid, round, epoch, config: &str| Notification {
            state,
            leader: ServerId(leader),
            zxid: Zxid(zxid),
            round,
            peer_epoch: Epoch(epoch),
            version: 2,
            config: Some(Bytes::copy_from_slice(config.as_bytes())),
        };
        let zxid = 0x1_0000_001c;
        for (head, config, notification) in [
            (looking, &from_files, told(PeerState::Looking, 1, 0, 1, 0, &from_files)),
            (leading, &of_epoch_1, told(PeerState::Leading, 2, zxid, 1, 1, &of_epoch_1)),
            (following, &of_epoch_1, told(PeerState::Following, 2, zxid, 2, 2, &of_epoch_1)),
        ] {
            let (all, len) = (44 + config.len(), config.len());
            let golden = hex(&format!("{all:08x} {head} {len:08x} '{config}'"));
            assert_eq!(Notification::decode(&golden[4..]).as_ref(), Ok(&notification));
            let mut out = BytesMut::new();
            notification.encode(&mut out);
            assert_eq!(&out[..], &golden[..]);
        }
    }

    #[test]
    fn several_addresses_and_bare_ids_are_understood() {
        let message =
            InitialMessage { from: ServerId(3), addresses: vec![("a".into(), 1), ("::1".into(), 2)] };
        let mut out = BytesMut::new();
        message.encode(&mut out);
        assert_eq!(InitialMessage::decode(&out).unwrap().unwrap().0, message);
        let bare = InitialMessage::decode(&5_i64.to_be_bytes()).unwrap().unwrap().0;
        assert_eq!(bare, InitialMessage { from: ServerId(5), addresses: Vec::new() });
    }

    #[test]
    fn a_wrong_initial_message_is_refused() {
        let version = DecodeError::BadValue("an unknown version of the initial message");
        let form = DecodeError::BadValue("an address needs the form host:port");
        let text = DecodeError::BadValue("an address that is no UTF-8");
        for (message, wrong) in [
            ("ffffffffffff0002 0000000000000002 00000001 61", &version),
            ("ffffffffffff0000 0000000000000002 00000000", &DecodeError::NegativeLength(0)),
            ("ffffffffffff0000 0000000000000002 00000801", &DecodeError::NegativeLength(0x801)),
            ("ffffffffffff0000 0000000000000002 ffffffff", &DecodeError::NegativeLength(-1)),
            ("ffffffffffff0000 0000000000000002 00000001 61", &form),
            ("ffffffffffff0000 0000000000000002 00000002 3a31", &form),
            ("ffffffffffff0000 0000000000000002 00000003 613aff", &text),
        ] {
            assert_eq!(InitialMessage::decode(&hex(message)).as_ref(), Err(wrong), "{message}");
        }
    }

    #[test]
    fn notifications_of_all_versions_are_understood() {
        let new = Notification {
            state: PeerState::Leading,
            leader: ServerId(2),
            zxid: Zxid(0x2_0000_0005),
            round: 7,
            peer_epoch: Epoch(3),
            version: 2,
            config: Some(Bytes::from_static(b"version=0")),
        };
        let mut out = BytesMut::new();
        new.encode(&mut out);
        assert_eq!(out.len(), 4 + 44 + 9);
        assert_eq!(Notification::decode(&out[4..]).as_ref(), Ok(&new));
        let old = Notification { version: 0, config: None, ..new.clone() };
        assert_eq!(Notification::decode(&out[4..44]).as_ref(), Ok(&old), "40 bytes: no version");
        let oldest = Notification { peer_epoch: Epoch(2), ..old };
        assert_eq!(Notification::decode(&out[4..32]), Ok(oldest), "28 bytes: the epoch is the zxid's");
    }

    #[test]
    fn numbers_that_no_server_tells_are_refused() {
        let good = Notification {
            state: PeerState::Looking,
            leader: ServerId(NOTHING),
            zxid: Zxid(NOTHING),
            round: -1,
            peer_epoch: Epoch(NOTHING),
            version: 2,
            config: Some(Bytes::from_static(b"version=0")),
        };
        let decoded = |notification: &Notification| {
            let mut out = BytesMut::new();
            notification.encode(&mut out);
            Notification::decode(&out[4..])
        };
        assert_eq!(decoded(&good).as_ref(), Ok(&good), "an observer's");
        for round in [-1, 0, LAST_ROUND] {
            assert!(decoded(&Notification { round, ..good.clone() }).is_ok(), "{round}");
        }
        for round in [i64::MIN, -2, LAST_ROUND + 1, i64::MAX] {
            let wrong = DecodeError::BadValue("a round that nobody can be in");
            assert_eq!(decoded(&Notification { round, ..good.clone() }), Err(wrong), "{round}");
        }
        for zxid in [i64::MIN + 1, -2] {
            let wrong = DecodeError::BadValue("a negative zxid");
            assert_eq!(decoded(&Notification { zxid: Zxid(zxid), ..good.clone() }), Err(wrong), "{zxid}");
        }
        for epoch in [i64::MIN + 1, -2, Epoch::LAST.0 + 1, i64::MAX] {
            let (peer_epoch, wrong) = (Epoch(epoch), DecodeError::BadValue("an epoch that no zxid has"));
            assert_eq!(decoded(&Notification { peer_epoch, ..good.clone() }), Err(wrong), "{epoch}");
        }
    }

    #[test]
    fn a_notification_that_lies_about_its_length_is_refused() {
        let mut body =
            hex("00000000 0000000000000002 0000000000000000 0000000000000001 0000000000000000 00000002");
        body.extend([0; 2]);
        let cut = |needed, left| Err(DecodeError::Truncated { needed, left });
        assert_eq!(Notification::decode(&body), cut(4, 2), "no length");
        body.truncate(40);
        body.extend(u32::to_be_bytes(5));
        assert_eq!(Notification::decode(&body), cut(5, 0), "5 bytes and none there");
        body[3] = 4;
        assert_eq!(Notification::decode(&body), Err(DecodeError::BadValue("an unknown state")));
        body[3] = 0;
        assert_eq!(Notification::decode(&body[..20]), cut(8, 0));
    }
}
