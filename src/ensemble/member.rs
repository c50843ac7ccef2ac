//! One server of an ensemble: `host:quorumPort:electionPort[:role][|…][;[address:]clientPort]`
//! (`QuorumPeer.QuorumServer`).

use super::ValueError;
use crate::model::ServerId;
use std::fmt;
use std::net::Ipv6Addr;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    /// Votes, may lead.
    Participant,
    /// Follows what was decided.
    Observer,
}

/// Where the other servers find a server. The host is a name, an IPv4 address, or an IPv6 address without brackets, as
/// Java writes it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct PeerAddress {
    pub host: String,
    pub quorum_port: u16,
    pub election_port: u16,
}

/// Where clients find a server.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct ClientAddress {
    pub host: String,
    pub port: u16,
}

#[derive(Debug, Clone)]
pub struct Member {
    pub id: ServerId,
    /// At least one. More than one needs `multiAddress.enabled`.
    pub addresses: Vec<PeerAddress>,
    pub role: Role,
    pub client: Option<ClientAddress>,
    /// The client address is set in the static file: it is not part of the ensemble's text.
    pub client_is_static: bool,
}

/// Whether two texts mean the same server. A client address of a server's own file is not part of them.
impl PartialEq for Member {
    fn eq(&self, other: &Self) -> bool {
        let key = |member: &Self| {
            let mut addresses = member.addresses.clone();
            addresses.sort();
            (member.id, addresses, member.role, member.client.clone().filter(|_| !member.client_is_static))
        };
        key(self) == key(other)
    }
}

impl Eq for Member {}

impl Member {
    /// Reads the value of `server.N=`.
    pub fn parse(id: ServerId, value: &str) -> Result<Self, ValueError> {
        let mut halves = value.split(';');
        let peers = halves.next().unwrap_or_default();
        let client = halves.next().map(|text| ClientAddress::parse(text.trim())).transpose()?;
        if halves.next().is_some() {
            return Err(ValueError::Server);
        }
        let mut addresses = Vec::new();
        let mut role = None;
        for peer in peers.split('|') {
            let (address, named) = parse_peer(peer.trim())?;
            if role.is_some_and(|before| before != named) {
                return Err(ValueError::RolesDiffer);
            }
            role = Some(named);
            addresses.push(address);
        }
        let role = role.flatten().unwrap_or(Role::Participant);
        Ok(Self { id, addresses, role, client, client_is_static: false })
    }

    /// What two servers may not share: loopback and wildcard addresses aside, as Java has it.
    pub fn conflicts_with(&self, other: &Self) -> bool {
        let ports = |member: &Self| {
            let mut all: Vec<(String, u16)> = Vec::new();
            for address in &member.addresses {
                all.push((address.host.clone(), address.quorum_port));
                all.push((address.host.clone(), address.election_port));
            }
            all.extend(member.client.iter().map(|client| (client.host.clone(), client.port)));
            all.retain(|(host, _)| !is_local(host));
            all
        };
        let theirs = ports(other);
        ports(self).iter().any(|mine| theirs.contains(mine))
    }
}

fn is_local(host: &str) -> bool {
    match host.parse::<std::net::IpAddr>() {
        Ok(address) => address.is_loopback() || address.is_unspecified(),
        Err(_) => host.eq_ignore_ascii_case("localhost"),
    }
}

fn parse_peer(text: &str) -> Result<(PeerAddress, Option<Role>), ValueError> {
    let form = ValueError::Server;
    let (host, rest) = match text.strip_prefix('[') {
        Some(v6) => v6.split_once("]:").ok_or(form.clone())?,
        None => text.split_once(':').ok_or(form.clone())?,
    };
    let mut parts = rest.split(':');
    let mut next_port = || port(parts.next().ok_or(form.clone())?, form.clone());
    let (quorum_port, election_port) = (next_port()?, next_port()?);
    let role = match parts.next().map(|word| word.trim().to_ascii_lowercase()).as_deref() {
        None => None,
        Some("participant") => Some(Role::Participant),
        Some("observer") => Some(Role::Observer),
        Some(other) => return Err(ValueError::Role(other.into())),
    };
    if host.is_empty() || parts.next().is_some() {
        return Err(form);
    }
    if quorum_port == election_port {
        return Err(ValueError::SamePorts);
    }
    Ok((PeerAddress { host: as_java_writes(host), quorum_port, election_port }, role))
}

/// A number that no port has differs from what is no number: Java answers them differently.
fn port(text: &str, no_number: ValueError) -> Result<u16, ValueError> {
    let number: i32 = text.parse().map_err(|_| no_number)?;
    u16::try_from(number).map_err(|_| ValueError::Port(number))
}

/// An IPv6 address in the form of `Inet6Address.getHostAddress`, which shortens nothing; anything else as it is.
fn as_java_writes(host: &str) -> String {
    let (address, scope) = match host.split_once('%') {
        Some((address, scope)) => (address, Some(scope)),
        None => (host, None),
    };
    let Ok(address) = address.parse::<Ipv6Addr>() else { return host.into() };
    if let Some(v4) = address.to_ipv4_mapped() {
        return v4.to_string();
    }
    let groups = address.segments().map(|group| format!("{group:x}")).join(":");
    scope.map_or(groups.clone(), |scope| format!("{groups}%{scope}"))
}

impl ClientAddress {
    fn parse(text: &str) -> Result<Self, ValueError> {
        let (host, number) = match text.rsplit_once(':') {
            Some((host, port)) => (host.trim_start_matches('[').trim_end_matches(']'), port),
            None => ("0.0.0.0", text),
        };
        let port = port(number, ValueError::Client)?;
        if host.is_empty() { Err(ValueError::Client) } else { Ok(Self { host: as_java_writes(host), port }) }
    }
}

struct Host<'a>(&'a str);

impl fmt::Display for Host<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.contains(':') { write!(f, "[{}]", self.0) } else { f.write_str(self.0) }
    }
}

impl fmt::Display for ClientAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", Host(&self.host), self.port)
    }
}

/// As Java prints it: the role always, the client address only where it belongs to the ensemble's text.
impl fmt::Display for Member {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut addresses: Vec<_> = self.addresses.iter().collect();
        addresses.sort();
        for (at, address) in addresses.iter().enumerate() {
            let between = if at == 0 { "" } else { "|" };
            let (host, quorum, election) = (Host(&address.host), address.quorum_port, address.election_port);
            write!(f, "{between}{host}:{quorum}:{election}")?;
        }
        f.write_str(match self.role {
            Role::Participant => ":participant",
            Role::Observer => ":observer",
        })?;
        match &self.client {
            Some(client) if !self.client_is_static => write!(f, ";{client}"),
            _ => Ok(()),
        }
    }
}
