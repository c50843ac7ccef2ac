//! What two servers compare to see whether they mean the same transaction by a zxid.

/// A checksum of a transaction's header: session, cxid, zxid, time and type. Two ensembles that count alike differ in it.
/// The rest is left out: servers of different kinds and versions may write the same transaction differently.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TxnMark(pub u32);

impl TxnMark {
    const HEADER: usize = 32;

    /// Of a body as the log frames it; none where there is no whole header.
    pub fn of(body: &[u8]) -> Option<Self> {
        body.get(..Self::HEADER).map(|header| Self(crc32fast::hash(header)))
    }
}
