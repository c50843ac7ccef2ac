//! Who the client is: auth packets, SASL, the subject of its certificate, and the ensemble that it means.

use super::{Conversation, End, Limits, State, Tally, World};
use crate::jute::Reader;
use crate::jute::records::{AuthPacket, Id, ReplyHeader, SaslRequest, SaslResponse};
use crate::model::ErrorCode;
use crate::request::auth::{EnsembleCheck, TooManyIds};
use crate::request::{Rules, auth, write_frame, write_reply};
use crate::sasl::{self, Answer};
use crate::wire::quorum::id_len;
use bytes::{Bytes, BytesMut};

impl Conversation {
    /// The client has proved by a certificate that it is `subject`. An error: nobody can say that of it, and the
    /// conversation is over.
    pub fn prove_subject(&mut self, subject: String, rules: &Rules) -> Result<(), TooManyIds> {
        let Some(scheme) = &rules.x509 else { return Ok(()) };
        self.add_ids(auth::x509_ids(subject, scheme)).inspect_err(|many| self.cut(End::TooManyIds(*many)))
    }

    /// Whether the client has authenticated as far as it has to.
    pub(super) fn may_enter(&self, limits: &Limits) -> bool {
        let schemes = &limits.enforced_schemes;
        schemes.is_empty()
            || self.auth.iter().any(|id| schemes.iter().any(|scheme| id.scheme == scheme.as_bytes()))
    }

    pub(super) fn on_auth(&mut self, body: &[u8], xid: i32, world: &World<'_>, tally: &mut Tally) {
        let Ok(packet) = AuthPacket::decode(&mut Reader::new(body)) else {
            self.over = Some(End::BadAuth);
            return;
        };
        let rules = world.rules;
        if packet.scheme == Some(b"ensemble")
            && let Some(names) = &rules.ensemble_names
        {
            let check = auth::check_ensemble(packet.auth.unwrap_or_default(), names);
            return self.on_ensemble_check(check, xid, tally);
        }
        let scheme = packet.scheme.unwrap_or_default();
        // Java stumbles over a null here, and refuses.
        let ids = match (packet.scheme, packet.auth) {
            (None, _) | (Some(b"digest"), None) => None,
            (Some(scheme), data) => {
                auth::ids_for(scheme, data.unwrap_or_default(), self.address, rules, &world.db.tree)
            }
        };
        let refused = match ids {
            Some(ids) => self.add_ids(ids).map_err(End::TooManyIds),
            None if auth::knows(scheme, rules) => Err(End::AuthRefused(text(scheme))),
            None => Err(End::UnknownScheme(text(scheme))),
        };
        if let Err(why) = refused {
            tally.auth_failed += 1;
            return self.refuse(xid, 0, ErrorCode::AuthFailed, why);
        }
        world.db.watches.lock().set_auth(self.id, &self.auth);
        write_reply(&mut self.output, xid, 0, Ok(|_: &mut BytesMut| ()));
        tally.answered += 1;
    }

    /// An error: the connection would be known by more than fits into a request.
    fn add_ids(&mut self, ids: Vec<Id<Bytes>>) -> Result<(), TooManyIds> {
        if let Some(ids) = auth::with_ids(&self.auth, ids)? {
            self.auth_len = ids.iter().map(id_len).sum();
            self.auth = ids;
        }
        Ok(())
    }

    pub(super) fn on_sasl(&mut self, body: &[u8], xid: i32, world: &World<'_>, tally: &mut Tally) {
        // Java stumbles over a null token too, and closes.
        let request = SaslRequest::decode(&mut Reader::new(body));
        let Some(token) = request.ok().and_then(|request| request.token) else {
            self.over = Some(End::BadSasl);
            return;
        };
        let mut err = 0;
        let mut answer = None;
        // Without accounts: no error, no token, as Java.
        if let Some(logins) = world.logins {
            let Some(nonce) = (world.nonce)() else {
                self.over = Some(End::NoRandom);
                return;
            };
            match self.login.answer(token, sasl::CLIENT_PORT, &logins.accounts, nonce) {
                Ok(Answer::Challenge(token)) => answer = Some(token),
                Ok(Answer::Proved { user, token }) => {
                    match self.add_ids(auth::sasl_ids(&user, &logins.super_users)) {
                        Ok(()) => {
                            world.db.watches.lock().set_auth(self.id, &self.auth);
                            answer = Some(token);
                        }
                        Err(many) => {
                            tally.auth_failed += 1;
                            err = ErrorCode::AuthFailed.code();
                            self.state = State::Ending(End::TooManyIds(many));
                        }
                    }
                }
                Err(refusal) => {
                    tally.auth_failed += 1;
                    let is_required =
                        world.bounds.limits.enforced_schemes.iter().any(|scheme| scheme == "sasl");
                    if is_required || !logins.keeps_failed {
                        err = match is_required {
                            true => ErrorCode::SessionClosedRequireSaslAuth.code(),
                            false => ErrorCode::AuthFailed.code(),
                        };
                        self.state = State::Ending(End::LoginFailed(refusal));
                    } else {
                        tally.login_failed = Some(refusal);
                    }
                }
            }
        }
        let response = SaslResponse { token: answer.as_deref() };
        write_frame(&mut self.output, ReplyHeader { xid, zxid: 0, err }, |out| response.encode(out));
        tally.answered += 1;
    }

    fn on_ensemble_check(&mut self, check: EnsembleCheck, xid: i32, tally: &mut Tally) {
        match check {
            EnsembleCheck::Skipped => tally.ensemble[0] += 1,
            EnsembleCheck::Ours => tally.ensemble[1] += 1,
            EnsembleCheck::Another => {
                tally.ensemble[2] += 1;
                self.over = Some(End::AnotherEnsemble);
                return;
            }
        }
        write_reply(&mut self.output, xid, 0, Ok(|_: &mut BytesMut| ()));
        tally.answered += 1;
    }
}

/// What a client sent, for a line of the log: not more than a line can hold.
fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(&bytes[..bytes.len().min(64)]).into_owned()
}
