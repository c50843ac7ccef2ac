//! Why a configuration can't be used: which file and line, what it says there, and what is expected.

use super::jaas::JaasError;
use crate::ensemble::{ClientAddress, ParseError};
use crate::model::ServerId;
use std::fmt;
use std::path::PathBuf;

#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("cannot read {}: {source}", file.display())]
    Unreadable { file: PathBuf, source: std::io::Error },
    /// A key has a value that it does not take.
    #[error("{place}: {}={value:?}: {expected}", key.escape_debug())]
    Value { place: String, key: String, value: String, expected: Expected },
    /// A key has no line, and there is no default.
    #[error("{}: {key} is missing: {why}", file.display())]
    Missing { file: PathBuf, key: &'static str, why: &'static str },
    /// A line of the ensemble among those of `zoo.cfg`.
    #[error("{place}: {source}")]
    Line { place: String, source: ParseError },
    /// The lines of the ensemble as a whole, or those of a dynamic file.
    #[error("{}: {source}", file.display())]
    Ensemble { file: PathBuf, source: ParseError },
    #[error("{}: it names servers, and dynamicConfigFile={} does too: only one of the two can", file.display(), dynamic.display())]
    ServersTwice { file: PathBuf, dynamic: PathBuf },
    #[error("{}: a dynamic file has its version in its name, not in a line", file.display())]
    VersionInFile { file: PathBuf },
    #[error("{}: one participant runs alone, and its observers could never join: standaloneEnabled=false makes it an ensemble of one", file.display())]
    ObserversOfOne { file: PathBuf },
    #[error("{}: there are observers and no participant: nobody could lead", file.display())]
    NoParticipant { file: PathBuf },
    #[error("{}: a server has several addresses, and multiAddress.enabled is not true", file.display())]
    SeveralAddresses { file: PathBuf },
    #[error("{}: clientPort says {said}, and the line of server.{id} says {own}", file.display())]
    ClientAddresses { file: PathBuf, id: ServerId, said: ClientAddress, own: ClientAddress },
    #[error("{place}: dataDir={} is a file, not a directory", dir.display())]
    DataDirIsFile { place: String, dir: PathBuf },
    #[error("{} is missing: it says which of the servers this one is", file.display())]
    NoMyId { file: PathBuf },
    #[error("{}: {text:?}: expected an id from 0 to 255", file.display())]
    MyId { file: PathBuf, text: String },
    #[error("{} says {id}, and there is no line server.{id}", file.display())]
    NotOneOfThem { file: PathBuf, id: ServerId },
    #[error("{}: line {line}: {source}", file.display())]
    Logins { file: PathBuf, line: usize, source: JaasError },
    #[error("{place}: minSessionTimeout={min} is more than maxSessionTimeout={max}")]
    TimeoutsCross { place: String, min: i32, max: i32 },
    #[error(
        "{place}: enforce.auth.enabled=\"true\": expected enforce.auth.schemes with the schemes of which a client proves one"
    )]
    NothingEnforced { place: String },
    #[error(
        "{place}: {key}={value:?}: there is no scheme {scheme:?}: digest and ip exist, x509 with TLS, and sasl, ensemble and key \
         with their authProvider.N (sasl: authProvider.1=org.apache.zookeeper.server.auth.SASLAuthenticationProvider)"
    )]
    NoSuchScheme { place: String, key: &'static str, value: String, scheme: String },
}

/// What a value should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Expected {
    Number {
        from: i64,
        to: i64,
    },
    /// In words, after "expected".
    OneOf(&'static str),
    /// The value asks for a protection that does not exist here. Why, and what to do.
    Less(&'static str),
}

impl fmt::Display for Expected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number { from, to } => write!(f, "expected a whole number from {from} to {to}"),
            Self::OneOf(what) => write!(f, "expected {what}"),
            Self::Less(why) => f.write_str(why),
        }
    }
}
