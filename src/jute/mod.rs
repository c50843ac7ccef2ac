//! Jute, ZooKeeper's encoding: big endian, no tags, lengths in front, −1 for null (`jute/BinaryInputArchive`).
//!
//! The records are generated from `jute/*.jute`. A record is generic over how it holds bytes: `X<&[u8]>` borrows
//! from a frame, `X<Bytes>` shares it. A decoder never allocates more than the bytes it was given.

#![cfg_attr(
    not(test),
    deny(clippy::cast_possible_truncation, clippy::cast_possible_wrap, clippy::cast_sign_loss)
)]

#[cfg(test)]
mod tests;

use bytes::{Buf, BufMut, Bytes, BytesMut};

/// Why bytes are not what they should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    #[error("{needed} bytes are needed, {left} are left")]
    Truncated { needed: usize, left: usize },
    #[error("a length of {0}")]
    NegativeLength(i32),
    #[error("null where a value must stand")]
    UnexpectedNull,
    #[error("{0}")]
    BadValue(&'static str),
}

/// Where a decoder reads from.
pub trait Source: Sized {
    type Slice: AsRef<[u8]>;

    fn remaining(&self) -> usize;

    fn take(&mut self, len: usize) -> Result<Self::Slice, DecodeError>;

    fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError>;

    #[inline]
    fn byte(&mut self) -> Result<u8, DecodeError> {
        Ok(self.array::<1>()?[0])
    }

    /// Any byte but 0 is true.
    #[inline]
    fn boolean(&mut self) -> Result<bool, DecodeError> {
        Ok(self.byte()? != 0)
    }

    #[inline]
    fn int(&mut self) -> Result<i32, DecodeError> {
        self.array().map(i32::from_be_bytes)
    }

    #[inline]
    fn long(&mut self) -> Result<i64, DecodeError> {
        self.array().map(i64::from_be_bytes)
    }

    #[inline]
    fn buffer(&mut self) -> Result<Option<Self::Slice>, DecodeError> {
        match self.int()? {
            -1 => Ok(None),
            len => match usize::try_from(len) {
                Ok(len) => self.take(len).map(Some),
                Err(_) => Err(DecodeError::NegativeLength(len)),
            },
        }
    }

    /// A string as its bytes, which need not be UTF-8: Java writes surrogates one by one.
    #[inline]
    fn ustring_opt(&mut self) -> Result<Option<Self::Slice>, DecodeError> {
        self.buffer()
    }

    #[inline]
    fn ustring(&mut self) -> Result<Self::Slice, DecodeError> {
        self.buffer()?.ok_or(DecodeError::UnexpectedNull)
    }

    /// Items of at least `min_len` bytes each. A negative count is an empty list, as Java's loop has it.
    fn vector<T>(
        &mut self,
        min_len: usize,
        item: impl FnMut(&mut Self) -> Result<T, DecodeError>,
    ) -> Result<Vec<T>, DecodeError> {
        Ok(self.vector_opt(min_len, item)?.unwrap_or_default())
    }

    /// The same, with −1 told apart.
    fn vector_opt<T>(
        &mut self,
        min_len: usize,
        mut item: impl FnMut(&mut Self) -> Result<T, DecodeError>,
    ) -> Result<Option<Vec<T>>, DecodeError> {
        let count = match self.int()? {
            -1 => return Ok(None),
            count => match usize::try_from(count) {
                Ok(count) => count,
                Err(_) => return Ok(Some(Vec::new())),
            },
        };
        // A count that the bytes at hand cannot bear out fails here, before anything is allocated.
        let needed = count.saturating_mul(min_len.max(1));
        if needed > self.remaining() {
            return Err(DecodeError::Truncated { needed, left: self.remaining() });
        }
        // An item may be larger in memory than on the wire: growth follows what was really decoded.
        let mut items = Vec::with_capacity(count.min(64));
        for _ in 0..count {
            items.push(item(self)?);
        }
        Ok(Some(items))
    }
}

/// Reads from borrowed bytes.
#[derive(Debug, Clone, Copy)]
pub struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    #[inline]
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }
}

impl<'a> Source for Reader<'a> {
    type Slice = &'a [u8];

    #[inline]
    fn remaining(&self) -> usize {
        self.rest.len()
    }

    #[inline]
    fn take(&mut self, len: usize) -> Result<&'a [u8], DecodeError> {
        let Some((taken, rest)) = self.rest.split_at_checked(len) else {
            return Err(DecodeError::Truncated { needed: len, left: self.rest.len() });
        };
        self.rest = rest;
        Ok(taken)
    }

    #[inline]
    fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let Some((taken, rest)) = self.rest.split_first_chunk() else {
            return Err(DecodeError::Truncated { needed: N, left: self.rest.len() });
        };
        self.rest = rest;
        Ok(*taken)
    }
}

/// Reads from shared bytes: slices keep them alive and copy nothing.
#[derive(Debug, Clone)]
pub struct SharedReader {
    rest: Bytes,
}

impl SharedReader {
    pub fn new(bytes: Bytes) -> Self {
        Self { rest: bytes }
    }
}

impl Source for SharedReader {
    type Slice = Bytes;

    #[inline]
    fn remaining(&self) -> usize {
        self.rest.len()
    }

    #[inline]
    fn take(&mut self, len: usize) -> Result<Bytes, DecodeError> {
        if len > self.rest.len() {
            return Err(DecodeError::Truncated { needed: len, left: self.rest.len() });
        }
        Ok(self.rest.split_to(len))
    }

    #[inline]
    fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let Some(taken) = self.rest.first_chunk().copied() else {
            return Err(DecodeError::Truncated { needed: N, left: self.rest.len() });
        };
        self.rest.advance(N);
        Ok(taken)
    }
}

/// A length or a count, as it is written. What is encoded was bounded where it came in, or is counted before
/// ([`fits`]): one of more than 31 bits never gets here.
#[inline]
pub fn length(len: usize) -> i32 {
    i32::try_from(len).expect("a length has 31 bits")
}

/// Whether a length can express this many bytes.
#[inline]
pub fn fits(len: usize) -> bool {
    i32::try_from(len).is_ok()
}

/// Writes the length in front of a frame that began at `start` and ends here.
#[inline]
pub fn close_frame(out: &mut BytesMut, start: usize) {
    let len = length(out.len() - start - FRAME_HEAD);
    out[start..start + FRAME_HEAD].copy_from_slice(&len.to_be_bytes());
}

/// What a frame begins with: its length.
pub const FRAME_HEAD: usize = 4;

#[inline]
pub fn put_len(out: &mut BytesMut, len: usize) {
    out.put_i32(length(len));
}

#[inline]
pub fn put_bytes(out: &mut BytesMut, bytes: &[u8]) {
    put_len(out, bytes.len());
    out.put_slice(bytes);
}

#[inline]
fn put_nullable(out: &mut BytesMut, bytes: Option<&[u8]>) {
    match bytes {
        Some(bytes) => put_bytes(out, bytes),
        None => out.put_i32(-1),
    }
}

/// The records of the wire and of the files.
pub mod records {
    use super::{DecodeError, Source, put_bytes, put_len, put_nullable};
    use bytes::{BufMut, BytesMut};

    include!(concat!(env!("OUT_DIR"), "/records.rs"));

    #[cfg(test)]
    impl<B> From<Acl<B>> for AskedAcl<B> {
        fn from(acl: Acl<B>) -> Self {
            let Id { scheme, id } = acl.id;
            Self { perms: acl.perms, id: AskedId { scheme: Some(scheme), id: Some(id) } }
        }
    }
}
