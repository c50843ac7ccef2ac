//! Which clients are believed: those whose certificate is in the trust store, and those whose certificate an authority in it
//! has signed. Which certificates are authorities is the JDK's rule (`PKIXValidator.verifyTrustAnchor`).

use super::key::{KeyKind, VERIFIABLE};
use super::policies::{OverOriginals, unmarked};
use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms, verify_tls13_signature_with_raw_key};
use rustls::pki_types::{CertificateDer, SignatureVerificationAlgorithm, SubjectPublicKeyInfoDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, OtherError, RootCertStore,
    SignatureScheme,
};
use std::sync::Arc;
use webpki::{
    EndEntityCert, ExtendedKeyUsageValidator, KeyPurposeId, KeyPurposeIdIter, KeyUsage, RawPublicKeyEntity,
    RequiredEkuNotFoundContext,
};
use x509_parser::prelude::{FromDer, X509Certificate, X509Version};

/// The library finds the path from a client's certificate to an authority. It refuses two kinds of certificates that Java
/// takes: those that are in the trust store themselves, whatever they may be used for, and those of version 1, which can't
/// say what they may be used for.
#[derive(Debug)]
pub(super) struct Trust {
    must_show: bool,
    /// All certificates of the trust store: each vouches for itself.
    trusted: Vec<CertificateDer<'static>>,
    /// Their names. A client looks through them for the certificate that it shows.
    names: Vec<DistinguishedName>,
    /// Those of them that vouch for others.
    authorities: Vec<CertificateDer<'static>>,
    /// The same, as the library wants them.
    roots: RootCertStore,
    algorithms: WebPkiSupportedAlgorithms,
}

/// Why a client's certificate is refused, where the library has no word for it.
#[derive(Debug, thiserror::Error)]
pub(super) enum Refused {
    #[error("it names nobody, as its subject is empty")]
    NoSubject,
    #[error("its key, {0}, can't be used: {VERIFIABLE}")]
    Key(KeyKind),
    #[error("the key of {subject}, an authority, is {key} and can't be used: {VERIFIABLE}")]
    AuthorityKey { subject: String, key: KeyKind },
    #[error("its keyUsage has no digitalSignature")]
    NoSignatures,
    #[error(
        "its extendedKeyUsage has neither clientAuth nor anyExtendedKeyUsage, or that of an authority has not"
    )]
    Purpose,
    #[error("it is the certificate of an authority (CA:TRUE), and not of a client")]
    IsAuthority,
    #[error("it, or an authority, has a critical extension that is not known here")]
    CriticalExtension,
    #[error(
        "it, or an authority, is signed by an algorithm that is not taken: RSA and ECDSA with SHA-256, SHA-384 and SHA-512, and Ed25519 are"
    )]
    Algorithm,
    #[error("no path leads from it to an authority: {0}")]
    Path(webpki::Error),
}

impl From<Refused> for Error {
    fn from(refused: Refused) -> Self {
        CertificateError::Other(OtherError(Arc::new(refused))).into()
    }
}

/// What the library says of a path, with its own word where that is understood.
fn why_no_path(error: webpki::Error) -> Error {
    use webpki::Error::*;
    match error {
        CertExpired { time, not_after } => CertificateError::ExpiredContext { time, not_after }.into(),
        CertNotValidYet { time, not_before } => {
            CertificateError::NotValidYetContext { time, not_before }.into()
        }
        UnknownIssuer => CertificateError::UnknownIssuer.into(),
        InvalidSignatureForPublicKey => CertificateError::BadSignature.into(),
        RequiredEkuNotFoundContext(_) => Refused::Purpose.into(),
        CaUsedAsEndEntity => Refused::IsAuthority.into(),
        UnsupportedCriticalExtension => Refused::CriticalExtension.into(),
        UnsupportedSignatureAlgorithmContext(_) | UnsupportedSignatureAlgorithmForPublicKeyContext(_) => {
            Refused::Algorithm.into()
        }
        other => Refused::Path(other).into(),
    }
}

impl Trust {
    pub fn new(
        trusted: Vec<CertificateDer<'static>>,
        must_show: bool,
        provider: &Arc<CryptoProvider>,
    ) -> Self {
        let (mut names, mut authorities, mut said) = (Vec::new(), Vec::new(), Vec::new());
        let mut roots = RootCertStore::empty();
        for der in &trusted {
            let Ok(certificate) = parse(der) else {
                tracing::warn!("a certificate in the trust store can't be read, and vouches for nobody");
                continue;
            };
            names.push(DistinguishedName::from(certificate.subject().as_raw().to_vec()));
            if !is_authority(&certificate) {
                continue;
            }
            let (subject, key) = (certificate.subject(), KeyKind::of(certificate.public_key()));
            if !key.verifies() {
                tracing::warn!("the authority {subject} vouches for nobody: its key is {key}; {VERIFIABLE}");
                continue;
            }
            match roots.add(der.clone()) {
                Ok(()) => {
                    said.push(subject.to_string());
                    authorities.push(der.clone());
                }
                Err(error) => tracing::warn!("the authority {subject} vouches for nobody: {error}"),
            }
        }
        tracing::info!(
            "client certificates: {} of the {} in the trust store vouch for others ({}), the rest for themselves alone",
            authorities.len(),
            trusted.len(),
            said.join("; ")
        );
        let algorithms = provider.signature_verification_algorithms;
        Self { must_show, trusted, names, authorities, roots, algorithms }
    }

    /// Whether an authority has signed a certificate of version 1.
    fn vouches_for(&self, certificate: &X509Certificate<'_>) -> bool {
        self.authorities.iter().filter_map(|authority| parse(authority).ok()).any(|authority| {
            authority.subject().as_raw() == certificate.issuer().as_raw()
                && certificate.verify_signature(Some(authority.public_key())).is_ok()
        })
    }

    /// Whether there is a path of authorities from the certificate to one in the trust store.
    fn find_path(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<(), Error> {
        // The library sees that an intermediate is an authority, and does not ask what its key may be used for.
        let may_sign = |der: &&CertificateDer<'_>| parse(der).is_ok_and(|certificate| signs(&certificate));
        let intermediates: Vec<_> = intermediates.iter().filter(may_sign).cloned().collect();
        let chain = std::iter::once(end_entity).chain(&intermediates);
        let changed: Vec<_> = chain.clone().filter_map(|certificate| unmarked(certificate)).collect();
        let unusable = |error: Error| {
            // The library calls a signature wrong where it can't use the key.
            let parsed = intermediates.iter().filter_map(|der| parse(der).ok());
            let mut keys = parsed.map(|one| (one.subject().to_string(), KeyKind::of(one.public_key())));
            let found = keys.find(|(_, key)| !key.verifies());
            found.map_or(error, |(subject, key)| Refused::AuthorityKey { subject, key }.into())
        };
        if changed.is_empty() {
            return self.verify(end_entity, &intermediates, now, self.algorithms.all).map_err(unusable);
        }
        let shown: Vec<CertificateDer<'_>> = chain
            .map(|certificate| {
                unmarked(certificate).map_or(certificate.clone(), |changed| changed.certificate)
            })
            .collect();
        let over_originals = self
            .algorithms
            .all
            .iter()
            .map(|algorithm| OverOriginals { algorithm: *algorithm, changed: &changed });
        let over_originals: Vec<_> = over_originals.collect();
        let algorithms: Vec<&dyn SignatureVerificationAlgorithm> =
            over_originals.iter().map(|algorithm| algorithm as _).collect();
        self.verify(&shown[0], &shown[1..], now, &algorithms).map_err(unusable)
    }

    /// Leaves the path to the library.
    fn verify(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
        algorithms: &[&dyn SignatureVerificationAlgorithm],
    ) -> Result<(), Error> {
        let certificate = EndEntityCert::try_from(end_entity).map_err(why_no_path)?;
        let roots = &self.roots.roots;
        let path = certificate.verify_for_usage(algorithms, roots, intermediates, now, Clients, None, None);
        path.map(|_| ()).map_err(why_no_path)
    }
}

/// What the `extendedKeyUsage` of a client's certificate has to allow, if there is one.
struct Clients;

impl ExtendedKeyUsageValidator for Clients {
    fn validate(&self, allowed: KeyPurposeIdIter<'_, '_>) -> Result<(), webpki::Error> {
        const CLIENT_AUTH: KeyPurposeId<'_> = KeyPurposeId::new(&[0x2b, 6, 1, 5, 5, 7, 3, 2]);
        const ANY: KeyPurposeId<'_> = KeyPurposeId::new(&[0x55, 0x1d, 0x25, 0]);
        let mut present = Vec::new();
        for purpose in allowed {
            let purpose = purpose?;
            if purpose == CLIENT_AUTH || purpose == ANY {
                return Ok(());
            }
            present.push(purpose.to_decoded_oid());
        }
        if present.is_empty() {
            return Ok(());
        }
        let required = KeyUsage::client_auth();
        Err(webpki::Error::RequiredEkuNotFoundContext(RequiredEkuNotFoundContext { required, present }))
    }
}

/// A root of version 1 can't say that it is none, and counts as one.
fn is_authority(certificate: &X509Certificate<'_>) -> bool {
    match certificate.version() {
        X509Version::V1 => certificate.subject().as_raw() == certificate.issuer().as_raw(),
        _ => {
            let constraints = certificate.basic_constraints();
            let is_ca = constraints.is_ok_and(|found| found.is_some_and(|found| found.value.ca));
            is_ca && signs(certificate)
        }
    }
}

/// If a certificate says what its key is for, signing certificates must be among it.
fn signs(certificate: &X509Certificate<'_>) -> bool {
    certificate.key_usage().is_ok_and(|usage| usage.is_none_or(|usage| usage.value.key_cert_sign()))
}

/// The same of signing a hand-shake.
fn proves(certificate: &X509Certificate<'_>) -> bool {
    certificate.key_usage().is_ok_and(|usage| usage.is_none_or(|usage| usage.value.digital_signature()))
}

fn parse<'a>(certificate: &'a CertificateDer<'_>) -> Result<X509Certificate<'a>, Error> {
    let parsed = X509Certificate::from_der(certificate);
    parsed.map(|(_, parsed)| parsed).map_err(|_| CertificateError::BadEncoding.into())
}

/// The key of a certificate, whether or not the library would read the rest of it.
fn key_of<'a>(certificate: &'a CertificateDer<'_>) -> Result<SubjectPublicKeyInfoDer<'a>, Error> {
    Ok(parse(certificate)?.tbs_certificate.subject_pki.raw.into())
}

impl ClientCertVerifier for Trust {
    fn offer_client_auth(&self) -> bool {
        true
    }

    fn client_auth_mandatory(&self) -> bool {
        self.must_show
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &self.names
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let certificate = parse(end_entity)?;
        if certificate.subject().iter_rdn().next().is_none() {
            return Err(Refused::NoSubject.into());
        }
        let key = KeyKind::of(certificate.public_key());
        if !key.verifies() {
            return Err(Refused::Key(key).into());
        }
        let is_known = self.trusted.iter().any(|trusted| trusted == end_entity);
        if !is_known && certificate.version() != X509Version::V1 {
            self.find_path(end_entity, intermediates, now)?;
            if !proves(&certificate) {
                return Err(Refused::NoSignatures.into());
            }
            return Ok(ClientCertVerified::assertion());
        }
        let validity = certificate.validity();
        let now = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
        if now < validity.not_before.timestamp() {
            return Err(CertificateError::NotValidYet.into());
        }
        if now > validity.not_after.timestamp() {
            return Err(CertificateError::Expired.into());
        }
        if !is_known && !self.vouches_for(&certificate) {
            return Err(CertificateError::UnknownIssuer.into());
        }
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let key = key_of(certificate)?;
        let key = RawPublicKeyEntity::try_from(&key).map_err(why_no_path)?;
        let schemes = self.algorithms.mapping.iter().find(|(scheme, _)| *scheme == signed.scheme);
        let (_, algorithms) = schemes.ok_or(CertificateError::BadSignature)?;
        let fits = |algorithm: &&dyn SignatureVerificationAlgorithm| {
            key.verify_signature(*algorithm, message, signed.signature()).is_ok()
        };
        match algorithms.iter().any(fits) {
            true => Ok(HandshakeSignatureValid::assertion()),
            false => Err(CertificateError::BadSignature.into()),
        }
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature_with_raw_key(message, &key_of(certificate)?, signed, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}
