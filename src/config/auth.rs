//! Which schemes exist by which a client proves who it is, and whether it has to.

use super::value::{At, words};
use super::{ConfigError, Remark};
use crate::model::DigestAlgorithm;
use std::collections::BTreeSet;

/// A scheme that exists only where `authProvider.N` names its class.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Provider {
    Ensemble,
    /// An example of ZooKeeper's.
    Key,
    Sasl,
    X509,
}

#[derive(Debug, Clone)]
pub struct Auth {
    /// No ACL is checked.
    pub skip_acl: bool,
    digest_is_on: bool,
    digest_algorithm: DigestAlgorithm,
    pub super_digest: Option<String>,
    providers: BTreeSet<Provider>,
    /// Classes that `authProvider.N` names and nobody loads, with their keys.
    not_loaded: Vec<(String, String)>,
    ensemble_names: Vec<String>,
    pub(super) enforce: bool,
    pub(super) enforced: Vec<String>,
    pub(super) require_sasl: bool,
}

impl Default for Auth {
    fn default() -> Self {
        Self {
            skip_acl: false,
            digest_is_on: true,
            digest_algorithm: DigestAlgorithm::Sha1,
            super_digest: None,
            providers: BTreeSet::new(),
            not_loaded: Vec::new(),
            ensemble_names: Vec::new(),
            enforce: false,
            enforced: Vec::new(),
            require_sasl: false,
        }
    }
}

impl Auth {
    /// Takes one setting; false: it belongs elsewhere.
    pub(super) fn set(&mut self, at: &At<'_>) -> Result<bool, ConfigError> {
        match at.key {
            "skipACL" => self.skip_acl = at.value == "yes",
            "DigestAuthenticationProvider.enabled" => self.digest_is_on = at.flag(),
            "DigestAuthenticationProvider.superDigest" => self.super_digest = Some(at.value.into()),
            "DigestAuthenticationProvider.digestAlg" => {
                let wrong =
                    || at.expected("SHA1, SHA-256, SHA-512 or another of the SHA-2 and SHA3 families");
                self.digest_algorithm = DigestAlgorithm::from_name(at.value).ok_or_else(wrong)?;
            }
            "ensembleAuthName" => {
                self.ensemble_names = at.value.split(',').map(|name| name.trim().into()).collect();
            }
            "enforce.auth.enabled" => self.enforce = at.flag(),
            "enforce.auth.schemes" => self.enforced = words(at.value),
            "sessionRequireClientSASLAuth" => self.require_sasl = at.flag(),
            key if key.starts_with("authProvider.") => self.take_provider(key, at.value.trim()),
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// Java loads any class that is named here.
    fn take_provider(&mut self, key: &str, class: &str) {
        self.providers.insert(match class.strip_prefix("org.apache.zookeeper.server.auth.") {
            Some("EnsembleAuthenticationProvider") => Provider::Ensemble,
            Some("KeyAuthenticationProvider") => Provider::Key,
            Some("SASLAuthenticationProvider") => Provider::Sasl,
            Some("X509AuthenticationProvider") => Provider::X509,
            // They always exist.
            Some("IPAuthenticationProvider" | "DigestAuthenticationProvider") => return,
            _ => return self.not_loaded.push((key.into(), class.into())),
        });
    }

    pub fn has(&self, provider: Provider) -> bool {
        self.providers.contains(&provider)
    }

    /// The hash of the scheme `digest`; `None`: the scheme is off.
    pub fn digest(&self) -> Option<DigestAlgorithm> {
        self.digest_is_on.then_some(self.digest_algorithm)
    }

    /// The names that the scheme `ensemble` takes, any if the list is empty; `None`: the scheme is off.
    pub fn ensemble_names(&self) -> Option<Vec<String>> {
        self.has(Provider::Ensemble).then(|| self.ensemble_names.clone())
    }

    /// The schemes of which a client must have proved one; empty: it need not. As in Java `sessionRequireClientSASLAuth`
    /// takes the place of a list.
    pub fn enforced_schemes(&self) -> Vec<String> {
        if self.require_sasl {
            return vec!["sasl".into()];
        }
        if self.enforce { self.enforced.clone() } else { Vec::new() }
    }

    /// What works, and should be known to whoever starts the server.
    pub(super) fn remarks(&self) -> Vec<Remark> {
        let not_loaded = self.not_loaded.iter().map(|(key, class)| {
            Remark::new(key.clone(), format!("{class} is not loaded: its scheme proves nothing here"))
        });
        let mut remarks: Vec<Remark> = not_loaded.collect();
        if self.skip_acl {
            let text = "skipACL=yes: no ACL is checked, every client may do everything";
            remarks.push(Remark::new("skipACL", text));
        }
        remarks
    }
}
