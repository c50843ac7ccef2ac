//! Which configuration a reconfig request asks for, and why it may not have it (`PrepRequestProcessor`).

use crate::ensemble::{Ensemble, Member, ParseError, ValueError, View};
use crate::jute::records::ReconfigRequest;
use crate::model::{ErrorCode, ServerId, Zxid};
use bytes::Bytes;

/// The new configuration, with `zxid` as its version. `is_synced` tells whether a quorum of it follows already.
pub fn plan(
    request: &ReconfigRequest<Bytes>,
    view: &View,
    zxid: Zxid,
    standalone_enabled: bool,
    is_synced: impl Fn(&Ensemble) -> bool,
) -> Result<Ensemble, ErrorCode> {
    if view.pending().is_some() {
        return Err(ErrorCode::ReconfigInProgress);
    }
    let current = &view.last_seen;
    if request.cur_config_id != -1 && request.cur_config_id != current.version() {
        return Err(ErrorCode::BadVersion);
    }
    let next = match &request.new_members {
        Some(text) => {
            let text = text_of(text)?.replace(',', "\n");
            Ensemble::parse(&text).map_err(|error| code_of(&error))?
        }
        None => increment(request, current)?,
    };
    let next = next.with_version(zxid.0);
    let voters = next.voters().count();
    if voters < if standalone_enabled { 2 } else { 1 } {
        return Err(ErrorCode::BadArguments);
    }
    if !is_synced(&next) {
        return Err(ErrorCode::NewConfigNoQuorum);
    }
    Ok(next)
}

/// Some leave, some join; of a majority quorum only.
fn increment(request: &ReconfigRequest<Bytes>, current: &Ensemble) -> Result<Ensemble, ErrorCode> {
    if !current.is_majority() {
        return Err(ErrorCode::BadArguments);
    }
    let mut members: Vec<Member> = current.members().cloned().collect();
    for id in list(&request.leaving)? {
        let id = id.parse().map(ServerId).map_err(|_| ErrorCode::MarshallingError)?;
        members.retain(|member| member.id != id);
    }
    for line in list(&request.joining)? {
        let (key, value) = line.split_once('=').ok_or(ErrorCode::BadArguments)?;
        let id = key.trim().rsplit('.').next().unwrap_or_default();
        let id = id.parse().map(ServerId).map_err(|_| ErrorCode::MarshallingError)?;
        let joining = Member::parse(id, value.trim()).map_err(|wrong| code_of_value(&wrong))?;
        let conflict = members.iter().any(|other| other.id != joining.id && other.conflicts_with(&joining));
        if joining.client.is_none() || conflict {
            return Err(ErrorCode::BadArguments);
        }
        members.retain(|member| member.id != joining.id);
        members.push(joining);
    }
    Ok(Ensemble::majority(members))
}

/// What Java answers: it foresees a wrong form, and not an id that is no number or a port that there is not.
fn code_of(error: &ParseError) -> ErrorCode {
    match error {
        ParseError::KeyNumber { .. } => ErrorCode::MarshallingError,
        ParseError::Value { wrong, .. } => code_of_value(wrong),
        ParseError::UnknownKey { .. } | ParseError::InNoGroup(_) => ErrorCode::BadArguments,
    }
}

fn code_of_value(wrong: &ValueError) -> ErrorCode {
    match wrong {
        ValueError::Port(_) | ValueError::Group | ValueError::Number | ValueError::Version => {
            ErrorCode::MarshallingError
        }
        ValueError::Server
        | ValueError::Client
        | ValueError::Role(_)
        | ValueError::RolesDiffer
        | ValueError::SamePorts
        | ValueError::InTwoGroups(_)
        | ValueError::Weight => ErrorCode::BadArguments,
    }
}

fn list(text: &Option<Bytes>) -> Result<Vec<&str>, ErrorCode> {
    let Some(text) = text else { return Ok(Vec::new()) };
    Ok(text_of(text)?.split(',').map(str::trim).filter(|part| !part.is_empty()).collect())
}

fn text_of(bytes: &Bytes) -> Result<&str, ErrorCode> {
    std::str::from_utf8(bytes).map_err(|_| ErrorCode::BadArguments)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    fn view() -> View {
        let text = "server.1=a:1:2;3\nserver.2=b:1:2;3\nserver.3=c:1:2;3\nversion=100000000";
        View::new(Arc::new(Ensemble::parse(text).unwrap()))
    }

    fn request(joining: &str, leaving: &str, new: Option<&str>, version: i64) -> ReconfigRequest<Bytes> {
        let text = |text: &str| (!text.is_empty()).then(|| Bytes::from(text.to_string()));
        ReconfigRequest {
            joining: text(joining),
            leaving: text(leaving),
            new_members: new.map(|new| Bytes::from(new.to_string())),
            cur_config_id: version,
        }
    }

    fn ids(request: &ReconfigRequest<Bytes>) -> Result<Vec<i64>, ErrorCode> {
        let next = plan(request, &view(), Zxid(0x1_0000_0009), true, |_| true)?;
        assert_eq!(next.version(), 0x1_0000_0009);
        Ok(next.members().map(|member| member.id.0).collect())
    }

    #[test]
    fn servers_join_and_leave() {
        assert_eq!(ids(&request("server.4=d:1:2;3", "1", None, -1)), Ok(vec![2, 3, 4]));
        assert_eq!(ids(&request("server.3=c:1:2:observer;3", "", None, 0x1_0000_0000)), Ok(vec![1, 2, 3]));
        assert_eq!(ids(&request("", "", Some("server.1=a:1:2;3,server.9=i:1:2;3"), -1)), Ok(vec![1, 9]));
    }

    #[test]
    fn what_java_refuses_is_refused_with_its_code() {
        use ErrorCode::*;
        for (request, code) in [
            (request("", "1", None, 5), BadVersion),
            (request("server.4=nonsense", "", None, -1), BadArguments),
            (request("server.4=d:1:2", "", None, -1), BadArguments),
            (request("server.4=b:1:9;8", "", None, -1), BadArguments),
            (request("server.4=d:x:2;3", "", None, -1), BadArguments),
            (request("", "x", None, -1), MarshallingError),
            (request("server.x=d:1:2;3", "", None, -1), MarshallingError),
            (request("x=d:1:2;3", "", None, -1), MarshallingError),
            (request("server.4=d:65536:2;3", "", None, -1), MarshallingError),
            (request("server.4=d:1:2;99999", "", None, -1), MarshallingError),
            (request("", "", Some("server.x=a:1:2;3"), -1), MarshallingError),
            (request("", "", Some("server.1=a:1:-2;3"), -1), MarshallingError),
            (request("", "1,2", None, -1), BadArguments),
            (request("", "", Some("tickTime=1"), -1), BadArguments),
            (request("", "", Some(""), -1), BadArguments),
        ] {
            assert_eq!(ids(&request), Err(code), "{request:?}");
        }
        let mut busy = view();
        busy.last_seen = Arc::new(busy.committed.with_version(i64::MAX));
        let any = request("", "1", None, -1);
        assert_eq!(plan(&any, &busy, Zxid(1), true, |_| true), Err(ReconfigInProgress));
        assert_eq!(plan(&any, &view(), Zxid(1), true, |_| false), Err(NewConfigNoQuorum));
    }
}
