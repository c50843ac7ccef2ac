//! Public keys: their kinds and sizes, and which of them the library can use.

use std::fmt;
use x509_parser::public_key::PublicKey;
use x509_parser::x509::SubjectPublicKeyInfo;

/// The kind of a public key, with what decides whether it can be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeyKind {
    Rsa {
        bits: usize,
    },
    /// An RSA key that may sign by PSS alone, as its own certificate says.
    RsaPss,
    P256,
    P384,
    Ed25519,
    /// Another curve or algorithm, by its name or its number.
    Other(String),
}

/// What clients may have: keys that signatures can be verified with.
pub(super) const VERIFIABLE: &str = "RSA of 2048 to 8192 bits, P-256, P-384 and Ed25519 are supported";
/// What this server may have: keys that it can sign with.
pub(super) const SIGNING: &str = "RSA of 2048 to 4096 bits, P-256, P-384 and Ed25519 are supported";

const RSA_PSS: &str = "1.2.840.113549.1.1.10";
const EC: &str = "1.2.840.10045.2.1";
const ED25519: &str = "1.3.101.112";
const NAMES: [(&str, &str); 5] = [
    ("1.3.132.0.35", "P-521"),
    ("1.3.132.0.10", "secp256k1"),
    ("1.3.132.0.33", "P-224"),
    ("1.3.101.113", "Ed448"),
    ("1.2.840.10040.4.1", "DSA"),
];

impl KeyKind {
    pub fn of(key: &SubjectPublicKeyInfo<'_>) -> Self {
        let named = |oid: String| {
            let name = NAMES.iter().find(|(known, _)| *known == oid).map(|(_, name)| (*name).to_string());
            Self::Other(name.unwrap_or(oid))
        };
        match key.algorithm.algorithm.to_id_string().as_str() {
            RSA_PSS => Self::RsaPss,
            ED25519 => Self::Ed25519,
            EC => {
                let curve = key.algorithm.parameters.as_ref().and_then(|curve| curve.as_oid().ok());
                match curve.map(|curve| curve.to_id_string()).as_deref() {
                    Some("1.2.840.10045.3.1.7") => Self::P256,
                    Some("1.3.132.0.34") => Self::P384,
                    Some(other) => named(other.into()),
                    None => Self::Other("a curve without a name".into()),
                }
            }
            other => match key.parsed() {
                Ok(PublicKey::RSA(key)) => Self::Rsa { bits: key.key_size() },
                _ => named(other.into()),
            },
        }
    }

    /// Whether a signature that was made with it can be verified.
    pub fn verifies(&self) -> bool {
        match self {
            Self::Rsa { bits } => (2048..=8192).contains(bits),
            Self::P256 | Self::P384 | Self::Ed25519 => true,
            Self::RsaPss | Self::Other(_) => false,
        }
    }
}

impl fmt::Display for KeyKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rsa { bits } => write!(f, "RSA of {bits} bits"),
            Self::RsaPss => f.write_str("RSA for PSS alone"),
            Self::P256 => f.write_str("P-256"),
            Self::P384 => f.write_str("P-384"),
            Self::Ed25519 => f.write_str("Ed25519"),
            Self::Other(name) => f.write_str(name),
        }
    }
}
