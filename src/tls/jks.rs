//! Java's own format of key stores (`sun.security.provider.JavaKeyStore`): entries, and a digest over all of them that
//! begins with the password. A key is hidden by a stream of SHA-1 digests.

use sha1::{Digest, Sha1};

/// Why a file, or the key in it, can't be opened.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JksError {
    #[error("the file ends too early")]
    Short,
    #[error("the password is wrong, or the file is damaged")]
    Password,
    #[error("this is no JKS file")]
    Magic,
    #[error("JKS version {0} is not known")]
    Version(u32),
    #[error("an entry of the unknown kind {0}")]
    EntryKind(u32),
    #[error("the key is protected in a way that is not known")]
    Protection,
    #[error("the password of the key is another one")]
    KeyPassword,
}

pub(super) const MAGIC: [u8; 4] = [0xfe, 0xed, 0xfe, 0xed];
/// What the digest over the file begins with, after the password.
const WHITENER: &[u8] = b"Mighty Aphrodite";
const DIGEST: usize = 20;
/// The one algorithm by which keys are protected: 1.3.6.1.4.1.42.2.17.1.1.
const PROTECTION: [u8; 12] = [0x06, 0x0a, 0x2b, 0x06, 0x01, 0x04, 0x01, 0x2a, 0x02, 0x11, 0x01, 0x01];

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Entry<'a> {
    /// PKCS#8, hidden, and the certificates from the key's own on.
    Key {
        hidden: &'a [u8],
        chain: Vec<&'a [u8]>,
    },
    Trusted(&'a [u8]),
}

/// All entries, once the password was found to be right.
pub(super) fn entries<'a>(file: &'a [u8], password: &str) -> Result<Vec<Entry<'a>>, JksError> {
    let (content, digest) =
        file.split_at_checked(file.len().saturating_sub(DIGEST)).ok_or(JksError::Short)?;
    let whole = Sha1::new().chain_update(utf16(password)).chain_update(WHITENER).chain_update(content);
    if whole.finalize()[..] != *digest {
        return Err(JksError::Password);
    }
    let mut from = Reader(content);
    if from.take(4)? != MAGIC {
        return Err(JksError::Magic);
    }
    let version = from.int()?;
    if version != 1 && version != 2 {
        return Err(JksError::Version(version));
    }
    let count = from.int()?;
    let mut entries = Vec::new();
    for _ in 0..count {
        let tag = from.int()?;
        from.text()?;
        from.take(8)?;
        entries.push(match tag {
            1 => {
                let hidden = from.block()?;
                let certificates = from.int()?;
                let mut chain = Vec::new();
                for _ in 0..certificates {
                    chain.push(from.certificate(version)?);
                }
                Entry::Key { hidden, chain }
            }
            2 => Entry::Trusted(from.certificate(version)?),
            _ => return Err(JksError::EntryKind(tag)),
        });
    }
    Ok(entries)
}

/// The key in its PKCS#8 form.
pub(super) fn reveal(hidden: &[u8], password: &str) -> Result<Vec<u8>, JksError> {
    // EncryptedPrivateKeyInfo: the algorithm, then one octet string.
    let at = hidden.windows(PROTECTION.len()).position(|window| window == PROTECTION);
    let mut rest = &hidden[at.ok_or(JksError::Protection)? + PROTECTION.len()..];
    // The algorithm's parameters are null.
    if let [0x05, 0x00, after @ ..] = rest {
        rest = after;
    }
    let sealed = octets(rest).ok_or(JksError::Short)?;
    let (salt, sealed) = sealed.split_at_checked(DIGEST).ok_or(JksError::Short)?;
    let (sealed, check) =
        sealed.split_at_checked(sealed.len().saturating_sub(DIGEST)).ok_or(JksError::Short)?;
    let password = utf16(password);
    let mut key = Vec::with_capacity(sealed.len());
    let mut stream = salt.to_vec();
    for chunk in sealed.chunks(DIGEST) {
        stream = Sha1::new().chain_update(&password).chain_update(&stream).finalize().to_vec();
        key.extend(chunk.iter().zip(&stream).map(|(hidden, stream)| hidden ^ stream));
    }
    let found = Sha1::new().chain_update(&password).chain_update(&key).finalize();
    if found[..] == *check { Ok(key) } else { Err(JksError::KeyPassword) }
}

fn utf16(text: &str) -> Vec<u8> {
    text.encode_utf16().flat_map(u16::to_be_bytes).collect()
}

/// What a DER octet string holds.
fn octets(der: &[u8]) -> Option<&[u8]> {
    let (&[0x04, first], rest) = der.split_first_chunk()? else { return None };
    let (len, rest) = match first {
        0..0x80 => (usize::from(first), rest),
        _ => {
            let (len, rest) = rest.split_at_checked(usize::from(first & 0x7f).min(4))?;
            (len.iter().fold(0, |len, byte| len << 8 | usize::from(*byte)), rest)
        }
    };
    rest.get(..len)
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, len: usize) -> Result<&'a [u8], JksError> {
        let (taken, rest) = self.0.split_at_checked(len).ok_or(JksError::Short)?;
        self.0 = rest;
        Ok(taken)
    }

    fn int(&mut self) -> Result<u32, JksError> {
        Ok(u32::from_be_bytes(self.take(4)?.try_into().expect("four bytes")))
    }

    fn block(&mut self) -> Result<&'a [u8], JksError> {
        let len = self.int()?;
        self.take(len as usize)
    }

    fn text(&mut self) -> Result<&'a [u8], JksError> {
        let len = u16::from_be_bytes(self.take(2)?.try_into().expect("two bytes"));
        self.take(usize::from(len))
    }

    fn certificate(&mut self, version: u32) -> Result<&'a [u8], JksError> {
        if version == 2 {
            self.text()?;
        }
        self.block()
    }
}
