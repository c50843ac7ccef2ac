//! Which clients are believed: those whose certificate somebody in the trust store has signed, or that stand in it.

use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms, verify_tls13_signature_with_raw_key};
use rustls::pki_types::{CertificateDer, SubjectPublicKeyInfoDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, RootCertStore, SignatureScheme,
};
use std::sync::Arc;
use x509_parser::prelude::{FromDer, X509Certificate, X509Version};

/// The library's rules, but for two kinds of certificates that it refuses and Java takes: those that stand in the trust store
/// themselves, whatever they may be used for, and those of version 1, which can say nothing of that.
#[derive(Debug)]
pub(super) struct Trust {
    rules: Arc<dyn ClientCertVerifier>,
    trusted: Vec<CertificateDer<'static>>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl Trust {
    pub fn new(
        trusted: Vec<CertificateDer<'static>>,
        must_show: bool,
        provider: &Arc<CryptoProvider>,
    ) -> Result<Self, String> {
        let mut roots = RootCertStore::empty();
        let (_, unreadable) = roots.add_parsable_certificates(trusted.iter().cloned());
        if unreadable > 0 {
            tracing::warn!("{unreadable} of the trusted certificates can't be read, and vouch for nobody");
        }
        let rules = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone());
        let rules = if must_show { rules } else { rules.allow_unauthenticated() };
        let rules = rules.build().map_err(|error| error.to_string())?;
        Ok(Self { rules, trusted, algorithms: provider.signature_verification_algorithms })
    }

    /// Whether one of the trusted has signed a certificate of version 1.
    fn vouches_for(&self, certificate: &X509Certificate<'_>) -> bool {
        self.trusted.iter().filter_map(|trusted| parse(trusted).ok()).any(|trusted| {
            trusted.subject().as_raw() == certificate.issuer().as_raw()
                && certificate.verify_signature(Some(trusted.public_key())).is_ok()
        })
    }
}

fn parse<'a>(certificate: &'a CertificateDer<'_>) -> Result<X509Certificate<'a>, Error> {
    let parsed = X509Certificate::from_der(certificate);
    parsed.map(|(_, parsed)| parsed).map_err(|_| CertificateError::BadEncoding.into())
}

/// The key of a certificate that the library does not read.
fn old_key<'a>(certificate: &'a CertificateDer<'_>) -> Result<Option<SubjectPublicKeyInfoDer<'a>>, Error> {
    let parsed = parse(certificate)?;
    Ok((parsed.version() == X509Version::V1).then(|| parsed.tbs_certificate.subject_pki.raw.into()))
}

impl ClientCertVerifier for Trust {
    fn offer_client_auth(&self) -> bool {
        self.rules.offer_client_auth()
    }

    fn client_auth_mandatory(&self) -> bool {
        self.rules.client_auth_mandatory()
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.rules.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let certificate = parse(end_entity)?;
        let stands_there = self.trusted.iter().any(|trusted| trusted == end_entity);
        if !stands_there && certificate.version() != X509Version::V1 {
            return self.rules.verify_client_cert(end_entity, intermediates, now);
        }
        let validity = certificate.validity();
        let now = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
        if now < validity.not_before.timestamp() {
            return Err(CertificateError::NotValidYet.into());
        }
        if now > validity.not_after.timestamp() {
            return Err(CertificateError::Expired.into());
        }
        if !stands_there && !self.vouches_for(&certificate) {
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
        let Some(key) = old_key(certificate)? else {
            return self.rules.verify_tls12_signature(message, certificate, signed);
        };
        let wrong = Error::from(CertificateError::BadSignature);
        let schemes = self.algorithms.mapping.iter().find(|(scheme, _)| *scheme == signed.scheme);
        let (_, key) = x509_parser::x509::SubjectPublicKeyInfo::from_der(&key).map_err(|_| wrong.clone())?;
        let key = &key.subject_public_key.data;
        let verified = schemes.is_some_and(|(_, algorithms)| {
            algorithms
                .iter()
                .any(|algorithm| algorithm.verify_signature(key, message, signed.signature()).is_ok())
        });
        if verified { Ok(HandshakeSignatureValid::assertion()) } else { Err(wrong) }
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        match old_key(certificate)? {
            Some(key) => verify_tls13_signature_with_raw_key(message, &key, signed, &self.algorithms),
            None => self.rules.verify_tls13_signature(message, certificate, signed),
        }
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.rules.supported_verify_schemes()
    }
}
