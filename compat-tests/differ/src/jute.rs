//! The encoding of the wire, written for this program alone: big endian, lengths in front, −1 for null.

/// Reads from the front of some bytes. `None`: fewer are left than are needed.
#[derive(Debug, Clone)]
pub struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    pub fn rest(&self) -> &'a [u8] {
        self.rest
    }

    pub fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.rest.split_at_checked(count)?;
        self.rest = rest;
        Some(taken)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (taken, rest) = self.rest.split_first_chunk()?;
        self.rest = rest;
        Some(*taken)
    }

    pub fn byte(&mut self) -> Option<u8> {
        self.array::<1>().map(|bytes| bytes[0])
    }

    pub fn int(&mut self) -> Option<i32> {
        self.array().map(i32::from_be_bytes)
    }

    pub fn long(&mut self) -> Option<i64> {
        self.array().map(i64::from_be_bytes)
    }

    /// A string or buffer: the inner `None` is null.
    pub fn bytes(&mut self) -> Option<Option<&'a [u8]>> {
        match self.int()? {
            -1 => Some(None),
            length => self.take(usize::try_from(length).ok()?).map(Some),
        }
    }

    /// The count in front of a vector; null and negative ones are 0.
    pub fn count(&mut self) -> Option<usize> {
        self.int().map(|count| usize::try_from(count).unwrap_or(0))
    }
}

/// Bytes being written.
#[derive(Debug, Clone, Default)]
pub struct Writer(pub Vec<u8>);

impl Writer {
    pub fn new() -> Self {
        Self::default()
    }

    pub fn raw(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(bytes);
        self
    }

    pub fn byte(self, value: u8) -> Self {
        self.raw(&[value])
    }

    pub fn int(self, value: i32) -> Self {
        self.raw(&value.to_be_bytes())
    }

    pub fn long(self, value: i64) -> Self {
        self.raw(&value.to_be_bytes())
    }

    pub fn bytes(self, value: Option<&[u8]>) -> Self {
        match value {
            Some(value) => self.int(value.len() as i32).raw(value),
            None => self.int(-1),
        }
    }

    pub fn text(self, value: &[u8]) -> Self {
        self.bytes(Some(value))
    }
}

/// A frame: a length, then so many bytes.
pub fn frame(body: &[u8]) -> Vec<u8> {
    Writer::new().text(body).0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_again() {
        let bytes = Writer::new().int(-2).long(1 << 40).text(b"ab").bytes(None).byte(7).0;
        let mut reader = Reader::new(&bytes);
        assert_eq!((reader.int(), reader.long()), (Some(-2), Some(1 << 40)));
        assert_eq!(
            (reader.bytes(), reader.bytes(), reader.byte()),
            (Some(Some(&b"ab"[..])), Some(None), Some(7))
        );
        assert_eq!((reader.byte(), reader.int()), (None, None));
    }

    #[test]
    fn a_length_beyond_the_end_is_no_value() {
        for bytes in [&[0, 0, 0, 2, 9][..], &[0x80, 0, 0, 0], &[0, 0]] {
            assert_eq!(Reader::new(bytes).bytes(), None);
        }
    }
}
