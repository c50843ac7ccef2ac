//! How a log file is laid out: header, records, padding; and which record may follow which (`FileTxnLog`).

use crate::model::Zxid;

pub(super) const MAGIC: [u8; 4] = *b"ZKLG";
pub(super) const VERSION: i32 = 2;
pub(super) const HEADER_BYTES: usize = 16;
/// Bytes before the first record.
pub const HEADER_LEN: u64 = HEADER_BYTES as u64;
/// Checksum and length.
pub(super) const FRAME_BYTES: usize = 12;
pub(super) const FRAME_LEN: u64 = FRAME_BYTES as u64;
pub(super) const END_OF_RECORD: u8 = b'B';
/// What a record costs beside its body.
pub const RECORD_FRAME: u64 = FRAME_LEN + 1;
/// Whoever appends syncs before more bytes wait than this, or after a single record of more: recovery counts on it when
/// it tells a write that was cut short from damage.
pub const MAX_UNSYNCED: u64 = 4 << 20;
/// The unit in which disks give out room.
const BLOCK: u64 = 4096;
/// A transaction header.
pub(super) const MIN_BODY: u64 = 32;

/// A finished file has fewer bytes of padding.
pub(super) const FINISHED_PADDING: u64 = BLOCK + FRAME_LEN;

/// How long a log file is whose last record ends at `end`, once nothing is appended any more: whole blocks, in which as
/// ever a zero length follows that record. So a finished file ends as one does that is written on, and what tells a
/// clean end from a damaged record knows one kind of end.
pub(super) fn finished_len(end: u64) -> u64 {
    (end + FRAME_LEN).next_multiple_of(BLOCK)
}

/// Whether a file of this length may be a finished one.
pub(super) fn is_finished_len(len: u64) -> bool {
    len.is_multiple_of(BLOCK)
}

/// Reads the fixed part of a body: its zxid.
pub(super) fn zxid_of(body: &[u8]) -> Option<Zxid> {
    Some(Zxid(i64::from_be_bytes(body.get(12..20)?.try_into().ok()?)))
}

/// A log's first bytes. Java writes a database id there, which is 0 and which nothing reads; we write the last transaction before
/// this log: so a log that is missing is noticed, even one with the whole of an epoch.
pub(super) fn header(after: Zxid) -> [u8; HEADER_BYTES] {
    let mut header = [0; HEADER_BYTES];
    header[..4].copy_from_slice(&MAGIC);
    header[4..8].copy_from_slice(&VERSION.to_be_bytes());
    header[8..].copy_from_slice(&after.0.to_be_bytes());
    header
}

/// The last transaction before a log, from its header; none if this is no header. Zero in a Java server's.
pub(super) fn after_of(bytes: &[u8]) -> Option<Zxid> {
    let header: &[u8; HEADER_BYTES] = bytes.first_chunk()?;
    let after = i64::from_be_bytes(*header.last_chunk().expect("a header has more than 8 bytes"));
    (header[..4] == MAGIC).then_some(Zxid(after))
}

/// Reads the fixed part of a body: the transaction's type.
pub fn type_of(body: &[u8]) -> Option<i32> {
    Some(i32::from_be_bytes(body.get(28..32)?.try_into().ok()?))
}

/// Whether a transaction's type is −1.
pub fn is_error(body: &[u8]) -> bool {
    type_of(body) == Some(-1)
}

/// Whether a transaction may come right after another: the next of its epoch, or the first of a later one. A new
/// server's history begins with epoch 0 (alone) or 1.
pub fn follows(last: Zxid, zxid: Zxid) -> bool {
    let opens_epoch = zxid.epoch() > last.epoch() && zxid.counter() <= 1;
    Some(zxid.0) == last.0.checked_add(1) || opens_epoch
}
