//! The client port's socket: on which address it listens.

use super::StartError;
use crate::config::Config;
use socket2::{Domain, Socket, Type};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, ToSocketAddrs};

/// The client port, on all addresses of both families unless one is named.
pub(super) fn listen(config: &Config) -> Result<(TcpListener, SocketAddr), StartError> {
    let port = config.client_port.unwrap_or(0);
    let named = config.client_port_address.as_deref().filter(|name| !matches!(*name, "0.0.0.0" | "*"));
    let text = format!("{}:{port}", named.unwrap_or("*"));
    let failed = |source| StartError::Listen { address: text.clone(), source };
    let candidates: Vec<SocketAddr> = match named {
        Some(name) => (name.trim_matches(['[', ']']), port).to_socket_addrs().map_err(failed)?.collect(),
        None => [IpAddr::V6(Ipv6Addr::UNSPECIFIED), IpAddr::V4(Ipv4Addr::UNSPECIFIED)]
            .map(|address| SocketAddr::new(address, port))
            .to_vec(),
    };
    let mut last = io::Error::new(io::ErrorKind::AddrNotAvailable, "the name has no address");
    for candidate in candidates {
        match bind(candidate, config.client_port_listen_backlog) {
            Ok(listener) => {
                let address = listener.local_addr().map_err(failed)?;
                return Ok((listener, address));
            }
            // A machine without IPv6: the next candidate is the IPv4 one.
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => return Err(failed(error)),
            Err(error) => last = error,
        }
    }
    Err(failed(last))
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
