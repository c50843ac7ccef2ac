//! Certificates with critical policies (RFC 5280, 4.2.1.4). Java takes any policy unless it is configured to want a certain one,
//! which nobody can tell ZooKeeper's: to it the extension says nothing. The library refuses each critical extension that it
//! does not know. So the library is shown the certificate without the mark of this one extension, and each signature is
//! verified over the bytes that were signed.

use rustls::pki_types::{
    AlgorithmIdentifier, CertificateDer, InvalidSignature, SignatureVerificationAlgorithm,
};
use x509_parser::prelude::{FromDer, X509Certificate};

const CERTIFICATE_POLICIES: &str = "2.5.29.32";
/// `BOOLEAN TRUE`, in front of the extension's value.
const CRITICAL: [u8; 3] = [0x01, 0x01, 0xff];

/// A certificate whose policies are not marked as critical, and what was signed of the original.
#[derive(Debug)]
pub(super) struct Unmarked {
    pub certificate: CertificateDer<'static>,
    shown: Vec<u8>,
    signed: Vec<u8>,
}

/// `None`: the certificate has no critical policies.
pub(super) fn unmarked(der: &[u8]) -> Option<Unmarked> {
    let (_, certificate) = X509Certificate::from_der(der).ok()?;
    let policies = certificate
        .extensions()
        .iter()
        .find(|extension| extension.critical && extension.oid.to_id_string() == CERTIFICATE_POLICIES)?;
    // The value lies within `der`, in an octet string with the mark in front.
    let value = policies.value.as_ptr().addr().checked_sub(der.as_ptr().addr())?;
    let header = match policies.value.len() {
        0..0x80 => 2,
        0x80..0x100 => 3,
        _ => 4,
    };
    let mark = value.checked_sub(header + CRITICAL.len())?;
    if der.get(mark..mark + CRITICAL.len())? != CRITICAL {
        return None;
    }
    let mut changed = der.to_vec();
    changed[mark + 2] = 0;
    let shown = X509Certificate::from_der(&changed).ok()?.1.tbs_certificate.as_ref().to_vec();
    let signed = certificate.tbs_certificate.as_ref().to_vec();
    Some(Unmarked { certificate: changed.into(), shown, signed })
}

/// An algorithm that verifies what was signed where the library shows it what was changed.
#[derive(Debug)]
pub(super) struct OverOriginals<'a> {
    pub algorithm: &'static dyn SignatureVerificationAlgorithm,
    pub changed: &'a [Unmarked],
}

impl SignatureVerificationAlgorithm for OverOriginals<'_> {
    fn verify_signature(
        &self,
        public_key: &[u8],
        message: &[u8],
        signature: &[u8],
    ) -> Result<(), InvalidSignature> {
        let original = self.changed.iter().find(|changed| changed.shown == message);
        let signed = original.map_or(message, |changed| &changed.signed);
        self.algorithm.verify_signature(public_key, signed, signature)
    }

    fn public_key_alg_id(&self) -> AlgorithmIdentifier {
        self.algorithm.public_key_alg_id()
    }

    fn signature_alg_id(&self) -> AlgorithmIdentifier {
        self.algorithm.signature_alg_id()
    }
}
