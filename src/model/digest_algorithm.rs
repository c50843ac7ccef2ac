//! The hash of the `digest` scheme, by the names of Java's `MessageDigest`.

/// What `zookeeper.DigestAuthenticationProvider.digestAlg` may say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum DigestAlgorithm {
    #[default]
    Sha1,
    Sha224,
    Sha256,
    Sha384,
    Sha512,
    Sha3With224,
    Sha3With256,
    Sha3With384,
    Sha3With512,
}

impl DigestAlgorithm {
    pub fn from_name(name: &str) -> Option<Self> {
        Some(match &name.to_ascii_uppercase()[..] {
            "SHA1" | "SHA-1" | "SHA" => Self::Sha1,
            "SHA-224" => Self::Sha224,
            "SHA-256" => Self::Sha256,
            "SHA-384" => Self::Sha384,
            "SHA-512" => Self::Sha512,
            "SHA3-224" => Self::Sha3With224,
            "SHA3-256" => Self::Sha3With256,
            "SHA3-384" => Self::Sha3With384,
            "SHA3-512" => Self::Sha3With512,
            _ => return None,
        })
    }
}
