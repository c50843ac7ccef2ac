//! `server.N` lines: `host:quorumPort:electionPort[:role][;[address:]clientPort]`.

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    Participant,
    Observer,
}

/// One member of an ensemble as the file names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerLine {
    /// A name, an IPv4 address, or an IPv6 address without its brackets.
    pub host: String,
    pub quorum_port: u16,
    pub election_port: u16,
    pub role: Role,
    /// What stands behind the `;`.
    pub client: Option<String>,
}

impl ServerLine {
    pub fn parse(value: &str) -> Result<Self, String> {
        let form = || "host:quorumPort:electionPort[:role][;[address:]clientPort] is needed".to_string();
        let (peer, client) = match value.split_once(';') {
            Some((peer, client)) => (peer.trim(), Some(client.trim().to_string())),
            None => (value.trim(), None),
        };
        let (host, rest) = match peer.strip_prefix('[') {
            Some(v6) => v6.split_once("]:").ok_or_else(form)?,
            None => peer.split_once(':').ok_or_else(form)?,
        };
        let mut parts = rest.split(':');
        let mut port = || parts.next().and_then(|part| part.parse().ok()).ok_or_else(form);
        let (quorum_port, election_port) = (port()?, port()?);
        let role = match parts.next().map(str::to_ascii_lowercase).as_deref() {
            None | Some("participant") => Role::Participant,
            Some("observer") => Role::Observer,
            Some(other) => return Err(format!("{other:?} is no role: participant or observer")),
        };
        if host.is_empty() || parts.next().is_some() {
            return Err(form());
        }
        Ok(Self { host: host.into(), quorum_port, election_port, role, client })
    }
}
