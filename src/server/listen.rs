//! The client port's socket: on which address it listens.

use super::StartError;
use crate::client_port::Door;
use crate::config::{Config, is_any};
use crate::tls;
use rustix::net::netdevice::name_to_index;
use socket2::{Domain, Socket, Type};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6, TcpListener, ToSocketAddrs};

/// The client ports, with what each takes.
pub(super) fn listen(config: &Config) -> Result<Vec<(TcpListener, Door)>, StartError> {
    let tls = if config.tls.is_on() { Some(tls::server_config(&config.tls)?) } else { None };
    let mut listeners = Vec::new();
    if let Some(port) = config.ports.client {
        let door = match &tls {
            Some(tls) if config.tls.on_client_port => Door::Either(tls.clone()),
            _ => Door::Plain,
        };
        listeners.push((listen_on(port, config.ports.address.as_deref(), config)?, door));
    }
    if let (Some(port), Some(tls)) = (config.tls.port, tls) {
        listeners.push((listen_on(port, config.tls.address.as_deref(), config)?, Door::Tls(tls)));
    }
    Ok(listeners)
}

/// One port, on all addresses of both families unless one is named.
fn listen_on(port: u16, address: Option<&str>, config: &Config) -> Result<TcpListener, StartError> {
    let named = address.filter(|name| !is_any(name));
    let text = format!("{}:{port}", named.unwrap_or("*"));
    let failed = |source| StartError::Listen { address: text.clone(), source };
    let candidates: Vec<SocketAddr> = match named {
        Some(name) => as_java_orders(resolve(name.trim_matches(['[', ']']), port).map_err(failed)?),
        None => [IpAddr::V6(Ipv6Addr::UNSPECIFIED), IpAddr::V4(Ipv4Addr::UNSPECIFIED)]
            .map(|address| SocketAddr::new(address, port))
            .to_vec(),
    };
    let mut last = io::Error::new(io::ErrorKind::AddrNotAvailable, "the name has no address");
    for candidate in candidates {
        match bind(candidate, config.ports.backlog) {
            Ok(listener) => return Ok(listener),
            // A machine without IPv6: the next candidate is the IPv4 one.
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => return Err(failed(error)),
            Err(error) => last = error,
        }
    }
    Err(failed(last))
}

/// The addresses of a name. A scope, as in `fe80::1%eth0`, is looked up here: the system's resolver takes the name of an
/// interface on link-local addresses alone, Java on every IPv6 address.
fn resolve(name: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    let Some((address, scope)) = name.split_once('%') else {
        return Ok((name, port).to_socket_addrs()?.collect());
    };
    let address: Ipv6Addr =
        address.parse().map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
    let scope = match scope.parse() {
        Ok(index) => index,
        Err(_) => name_to_index(Socket::new(Domain::UNIX, Type::STREAM, None)?, scope)?,
    };
    Ok(vec![SocketAddrV6::new(address, port, 0, scope).into()])
}

/// IPv4 first, whatever the system prefers: Java's clients of `localhost` and of names with both go there.
fn as_java_orders(mut addresses: Vec<SocketAddr>) -> Vec<SocketAddr> {
    addresses.sort_by_key(SocketAddr::is_ipv6);
    addresses
}

fn bind(address: SocketAddr, backlog: i32) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    if address.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(if backlog > 0 { backlog } else { 1024 })?;
    Ok(socket.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ipv6_address_may_name_its_interface() {
        let scope_of = |name: &str| match resolve(name, 2181).unwrap()[..] {
            [SocketAddr::V6(address)] => address.scope_id(),
            ref other => panic!("{other:?}"),
        };
        assert_eq!(scope_of("::1"), 0);
        assert_eq!(scope_of("fe80::1%7"), 7);
        // No other interface comes before a network namespace's own loopback.
        assert_eq!(scope_of("0:0:0:0:0:0:0:1%lo"), 1);
        assert!(resolve("::1%no-such-interface", 2181).is_err());
        assert!(resolve("127.0.0.1%lo", 2181).is_err());
    }

    #[test]
    fn a_name_with_both_families_is_bound_to_ipv4() {
        let addresses = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect::<Vec<_>>();
        let found = addresses(&["[::1]:1", "127.0.0.1:1", "[::2]:1", "127.0.0.2:1"]);
        assert_eq!(as_java_orders(found), addresses(&["127.0.0.1:1", "127.0.0.2:1", "[::1]:1", "[::2]:1"]));
        assert_eq!(as_java_orders(addresses(&["[::1]:1"])), addresses(&["[::1]:1"]));
    }

    #[test]
    fn the_client_port_listens_on_an_address_with_a_scope() {
        let mut config = Config::standalone_default();
        config.ports.client = Some(0);
        config.ports.address = Some("[::1%lo]".into());
        match listen(&config) {
            Ok(listeners) => {
                let address = listeners[0].0.local_addr().unwrap();
                assert_eq!(address.ip(), IpAddr::V6(Ipv6Addr::LOCALHOST));
            }
            // A machine without IPv6.
            Err(StartError::Listen { source, .. }) => {
                let kinds = [io::ErrorKind::AddrNotAvailable, io::ErrorKind::Unsupported];
                assert!(kinds.contains(&source.kind()), "{source}");
            }
            Err(error) => panic!("{error}"),
        }
    }
}
