//! A client that proves its name by SASL, with the mechanism DIGEST-MD5 (RFC 2831), as a value: tokens in, tokens out.
//!
//! What of the RFC is asked of a client, and what is said to it, is as in the JDK's server with the properties that
//! ZooKeeper gives it: quality of protection `auth` alone, one realm.

mod directives;

use crate::model::Accounts;
use directives::Directives;
use md5::{Digest, Md5};
use std::borrow::Cow;
use thiserror::Error;

/// What a client's token may have, in bytes.
const MAX_TOKEN: usize = 4096;
/// The nonce count of a login: no login is resumed. As in Java, this is what is hashed, whatever a client names.
const FIRST: &str = "00000001";

/// Whom a client says that it speaks to.
#[derive(Debug, Clone, Copy)]
pub struct Service {
    pub protocol: &'static str,
    /// The server's name, and its realm.
    pub name: &'static str,
}

/// The client port's.
pub const CLIENT_PORT: Service = Service { protocol: "zookeeper", name: "zk-sasl-md5" };

/// How far a connection's login has come.
#[derive(Debug, Default, PartialEq, Eq)]
pub enum Login {
    #[default]
    Begun,
    /// The client was sent this nonce.
    Challenged(String),
    /// It has proved its name, or failed to: no token is taken any more.
    Over,
}

#[derive(Debug, PartialEq, Eq)]
pub enum Answer {
    Challenge(Vec<u8>),
    /// The client is `user`; `token` proves to it that the server knows the password too.
    Proved {
        user: String,
        token: Vec<u8>,
    },
}

/// Why a client is refused.
#[derive(Debug, Clone, Error, PartialEq, Eq)]
pub enum Refusal {
    #[error("a token of {0} bytes, where {MAX_TOKEN} are the most")]
    TooLong(usize),
    #[error("a token that is no list of directives")]
    Unreadable,
    #[error("the directive {0} is missing, or is not what is asked for")]
    Directive(&'static str),
    #[error("user {0:?} is not known, or the password is wrong")]
    WrongPassword(String),
    #[error("this login is over")]
    Over,
}

impl Login {
    /// Answers a client's token. `nonce` is used for a challenge, and must be one that nobody can guess. A refusal ends
    /// the login.
    pub fn answer(
        &mut self,
        token: &[u8],
        service: Service,
        accounts: &Accounts,
        nonce: String,
    ) -> Result<Answer, Refusal> {
        let before = std::mem::replace(self, Self::Over);
        if token.len() > MAX_TOKEN {
            return Err(Refusal::TooLong(token.len()));
        }
        match before {
            // Nothing is asked of the first token; clients send none.
            Self::Begun => {
                let Service { name, .. } = service;
                let challenge = format!(r#"realm="{name}",nonce="{nonce}",charset=utf-8,algorithm=md5-sess"#);
                *self = Self::Challenged(nonce);
                Ok(Answer::Challenge(challenge.into_bytes()))
            }
            Self::Challenged(nonce) => check(token, service, accounts, &nonce),
            Self::Over => Err(Refusal::Over),
        }
    }
}

fn check(token: &[u8], service: Service, accounts: &Accounts, nonce: &str) -> Result<Answer, Refusal> {
    let directives = Directives::parse(token).ok_or(Refusal::Unreadable)?;
    let needed = |key: &'static str| directives.get(key).ok_or(Refusal::Directive(key));
    let demand = |key, holds: bool| if holds { Ok(()) } else { Err(Refusal::Directive(key)) };
    let text = |key, value: &[u8]| String::from_utf8(value.to_vec()).map_err(|_| Refusal::Directive(key));

    demand("charset", directives.get("charset").is_none_or(|charset| charset == b"utf-8"))?;
    let user = text("username", needed("username")?)?;
    demand("realm", needed("realm")? == service.name.as_bytes())?;
    demand("nonce", needed("nonce")? == nonce.as_bytes())?;
    demand("qop", directives.get("qop").is_none_or(|quality| quality == b"auth"))?;
    let uri = needed("digest-uri")?;
    demand("digest-uri", names(uri, service))?;
    let (cnonce, response) = (needed("cnonce")?, needed("response")?);

    let Some(password) = accounts.password(&user) else { return Err(Refusal::WrongPassword(user)) };
    let secret = hash(&[&in_latin1(&user), service.name.as_bytes(), &in_latin1(password)]);
    let mut key = secret.to_vec();
    let salts = [Some(nonce.as_bytes()), Some(cnonce), directives.get("authzid")];
    salts.into_iter().flatten().for_each(|part| key.extend([b":", part].concat()));
    let key = hex(&hash(&[&key]));
    let proof = |method: &[u8]| {
        let parts: [&[u8]; 6] =
            [&key, nonce.as_bytes(), FIRST.as_bytes(), cnonce, b"auth", &hex(&hash(&[method, uri]))];
        hex(&hash(&parts))
    };
    if !same(&proof(b"AUTHENTICATE"), response) {
        return Err(Refusal::WrongPassword(user));
    }
    Ok(Answer::Proved { user, token: [&b"rspauth="[..], &proof(b"")].concat() })
}

/// Whether a client's `protocol/server` is this service; `protocol/*` is any of that protocol.
fn names(uri: &[u8], service: Service) -> bool {
    let own = format!("{}/{}", service.protocol, service.name);
    uri.eq_ignore_ascii_case(own.as_bytes())
        || uri.eq_ignore_ascii_case(format!("{}/*", service.protocol).as_bytes())
}

/// RFC 2831, 2.1.2.1: a text that ISO 8859-1 can hold is hashed in it.
fn in_latin1(text: &str) -> Cow<'_, [u8]> {
    let bytes: Result<Vec<u8>, _> = text.chars().map(|char| u8::try_from(u32::from(char))).collect();
    bytes.map_or(text.as_bytes().into(), Cow::Owned)
}

/// MD5 of the parts with colons between them.
fn hash(parts: &[&[u8]]) -> [u8; 16] {
    Md5::digest(parts.join(&b':')).into()
}

fn hex(bytes: &[u8]) -> Vec<u8> {
    bytes.iter().flat_map(|byte| format!("{byte:02x}").into_bytes()).collect()
}

/// Compares in a time that does not tell where the two differ.
fn same(one: &[u8], other: &[u8]) -> bool {
    one.len() == other.len() && one.iter().zip(other).fold(0, |all, (a, b)| all | (a ^ b)) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of RFC 2831, 4.
    const IMAP: Service = Service { protocol: "imap", name: "elwood.innosoft.com" };
    const NONCE: &str = "OA6MG9tEQGm2hh";
    const RESPONSE: &str = "charset=utf-8,username=\"chris\",realm=\"elwood.innosoft.com\",nonce=\"OA6MG9tEQGm2hh\",\
        nc=00000001,cnonce=\"OA6MHXh6VqTrRk\",digest-uri=\"imap/elwood.innosoft.com\",\
        response=d388dad90d4bbd760a152321f2143af7,qop=auth";

    fn accounts() -> Accounts {
        let mut accounts = Accounts::default();
        accounts.insert("chris", "secret");
        accounts
    }

    fn challenged() -> Login {
        Login::Challenged(NONCE.into())
    }

    fn answer(login: &mut Login, token: &str) -> Result<Answer, Refusal> {
        answer_bytes(login, token.as_bytes())
    }

    fn answer_bytes(login: &mut Login, token: &[u8]) -> Result<Answer, Refusal> {
        login.answer(token, IMAP, &accounts(), NONCE.into())
    }

    #[test]
    fn the_example_of_the_rfc_is_proved() {
        let mut login = Login::default();
        let challenge =
            r#"realm="elwood.innosoft.com",nonce="OA6MG9tEQGm2hh",charset=utf-8,algorithm=md5-sess"#;
        assert_eq!(answer(&mut login, ""), Ok(Answer::Challenge(challenge.into())));
        let token = b"rspauth=ea40f60335c427b5527b84dbabcdfffd".to_vec();
        assert_eq!(answer(&mut login, RESPONSE), Ok(Answer::Proved { user: "chris".into(), token }));
        assert_eq!(answer(&mut login, RESPONSE), Err(Refusal::Over), "once");
    }

    #[test]
    fn whatever_differs_is_refused() {
        for (what, by, refusal) in [
            ("d388dad9", "d388dad8", Refusal::WrongPassword("chris".into())),
            ("response=d388dad9", "response=", Refusal::WrongPassword("chris".into())),
            ("\"chris\"", "\"boris\"", Refusal::WrongPassword("boris".into())),
            ("utf-8", "latin1", Refusal::Directive("charset")),
            ("username", "surname", Refusal::Directive("username")),
            ("realm=\"elwood", "realm=\"jake", Refusal::Directive("realm")),
            ("nonce=\"OA6MG9", "nonce=\"OA6MG8", Refusal::Directive("nonce")),
            ("qop=auth", "qop=auth-conf", Refusal::Directive("qop")),
            ("imap/", "smtp/", Refusal::Directive("digest-uri")),
            (",response=", ",respond=", Refusal::Directive("response")),
            ("cnonce=\"OA6MHXh6VqTrRk\",", "", Refusal::Directive("cnonce")),
            ("nc=00000001", "realm=again", Refusal::Unreadable),
            ("qop=auth", "authzid=admin", Refusal::WrongPassword("chris".into())),
        ] {
            assert!(RESPONSE.contains(what), "{what}");
            let mut login = challenged();
            assert_eq!(answer(&mut login, &RESPONSE.replace(what, by)), Err(refusal), "{by}");
            assert_eq!(login, Login::Over, "{by}");
        }
    }

    #[test]
    fn a_token_has_an_end() {
        let long = "x".repeat(MAX_TOKEN + 1);
        for mut login in [Login::default(), challenged()] {
            assert_eq!(answer(&mut login, &long), Err(Refusal::TooLong(MAX_TOKEN + 1)));
        }
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_are_more_than_refused(
            noise in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..200),
            at in 0..RESPONSE.len(),
        ) {
            proptest::prop_assert!(answer_bytes(&mut challenged(), &noise).is_err());
            let inside = [&RESPONSE.as_bytes()[..at], &noise, &RESPONSE.as_bytes()[at..]].concat();
            for token in [&inside[..], &inside[..at + noise.len()]] {
                let _ = answer_bytes(&mut challenged(), token);
            }
        }
    }

    #[test]
    fn a_text_is_hashed_in_latin1_where_that_can_hold_it() {
        assert_eq!(&*in_latin1("süß"), b"s\xfc\xdf");
        assert_eq!(&*in_latin1("s€"), "s€".as_bytes());
    }
}
