//! Which clients are believed: those that stand in the trust store themselves, and those that an authority in it has signed.
//! Who is an authority is the JDK's rule (`PKIXValidator.verifyTrustAnchor`).

use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{
    CryptoProvider, WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature,
    verify_tls13_signature_with_raw_key,
};
use rustls::pki_types::{CertificateDer, SubjectPublicKeyInfoDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, RootCertStore, SignatureScheme,
};
use std::sync::Arc;
use x509_parser::prelude::{FromDer, X509Certificate, X509Version};

/// The library finds the path from a client's certificate to an authority. It refuses two kinds of certificates that Java
/// takes: those that stand in the trust store themselves, whatever they may be used for, and those of version 1, which can
/// say nothing of that.
#[derive(Debug)]
pub(super) struct Trust {
    must_show: bool,
    /// All that stand in the trust store: each vouches for itself.
    trusted: Vec<CertificateDer<'static>>,
    /// Their names. A client looks through them for the certificate that it shows.
    names: Vec<DistinguishedName>,
    /// Those of them that vouch for others.
    authorities: Vec<CertificateDer<'static>>,
    /// The library's rules for the authorities; `None`: there is none.
    paths: Option<Arc<dyn ClientCertVerifier>>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl Trust {
    pub fn new(
        trusted: Vec<CertificateDer<'static>>,
        must_show: bool,
        provider: &Arc<CryptoProvider>,
    ) -> Result<Self, String> {
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
            match roots.add(der.clone()) {
                Ok(()) => {
                    said.push(certificate.subject().to_string());
                    authorities.push(der.clone());
                }
                Err(error) => {
                    tracing::warn!("the authority {} vouches for nobody: {error}", certificate.subject());
                }
            }
        }
        tracing::info!(
            "client certificates: {} of the {} in the trust store vouch for others ({}), the rest for themselves alone",
            authorities.len(),
            trusted.len(),
            said.join("; ")
        );
        let paths = match roots.is_empty() {
            true => None,
            false => {
                let rules = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone());
                Some(rules.build().map_err(|error| error.to_string())?)
            }
        };
        let algorithms = provider.signature_verification_algorithms;
        Ok(Self { must_show, trusted, names, authorities, paths, algorithms })
    }

    /// Whether an authority has signed a certificate of version 1.
    fn vouches_for(&self, certificate: &X509Certificate<'_>) -> bool {
        self.authorities.iter().filter_map(|authority| parse(authority).ok()).any(|authority| {
            authority.subject().as_raw() == certificate.issuer().as_raw()
                && certificate.verify_signature(Some(authority.public_key())).is_ok()
        })
    }

    /// Whether there is a path of authorities from the certificate to one in the trust store.
    fn has_path(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<(), Error> {
        let paths = self.paths.as_ref().ok_or(CertificateError::UnknownIssuer)?;
        // The library sees that an intermediate is an authority, and does not ask what its key may be used for.
        let may_sign = |der: &&CertificateDer<'_>| parse(der).is_ok_and(|certificate| signs(&certificate));
        let intermediates: Vec<_> = intermediates.iter().filter(may_sign).cloned().collect();
        paths.verify_client_cert(end_entity, &intermediates, now).map(|_| ())
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

/// Where a certificate says what its key is for, signing certificates has to be among it.
fn signs(certificate: &X509Certificate<'_>) -> bool {
    certificate.key_usage().is_ok_and(|usage| usage.is_none_or(|usage| usage.value.key_cert_sign()))
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
            return Err(Error::General("the certificate has no subject: it names nobody".into()));
        }
        let stands_there = self.trusted.iter().any(|trusted| trusted == end_entity);
        if !stands_there && certificate.version() != X509Version::V1 {
            self.has_path(end_entity, intermediates, now)?;
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
            return verify_tls12_signature(message, certificate, signed, &self.algorithms);
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
            None => verify_tls13_signature(message, certificate, signed, &self.algorithms),
        }
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}
