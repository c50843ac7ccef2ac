//! The sockets between servers: how they are bound, dialed, and set up.

use super::Peers;
use socket2::{Domain, Socket, Type};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, ToSocketAddrs};
use std::sync::Arc;
use tokio::net::TcpStream;

/// All that can be bound of the addresses; an error where there is none.
pub(super) fn bind_all(addresses: &[(String, u16)], on_all_ips: bool) -> io::Result<Vec<TcpListener>> {
    let mut bound = Vec::new();
    let mut last = None;
    for (host, port) in addresses {
        let candidates: io::Result<Vec<SocketAddr>> = if on_all_ips {
            Ok(vec![SocketAddr::new(IpAddr::V6(Ipv6Addr::UNSPECIFIED), *port)])
        } else {
            (host.as_str(), *port).to_socket_addrs().map(Iterator::collect)
        };
        let named = |error: io::Error| {
            io::Error::new(error.kind(), format!("cannot listen on {host}:{port}: {error}"))
        };
        match candidates {
            Ok(candidates) => {
                for candidate in candidates {
                    match bind(candidate).or_else(|error| without_v6(candidate, error)) {
                        Ok(listener) => bound.push(listener),
                        Err(error) => last = Some(named(error)),
                    }
                }
            }
            Err(error) => last = Some(named(error)),
        }
    }
    match last {
        Some(error) if bound.is_empty() => Err(error),
        _ => Ok(bound),
    }
}

fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    if address.is_ipv6() {
        socket.set_only_v6(!address.ip().is_unspecified())?;
    }
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(128)?;
    Ok(socket.into())
}

/// A machine without IPv6 still has all its IPv4 addresses.
fn without_v6(address: SocketAddr, error: io::Error) -> io::Result<TcpListener> {
    if address.ip() == IpAddr::V6(Ipv6Addr::UNSPECIFIED) && error.kind() != io::ErrorKind::AddrInUse {
        return bind(SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), address.port()));
    }
    Err(error)
}

/// The first of the addresses that answers. Names are resolved again each time.
pub(super) async fn connect(peers: &Arc<Peers>, addresses: &[(String, u16)]) -> io::Result<TcpStream> {
    let mut last = io::Error::new(io::ErrorKind::AddrNotAvailable, "it has no address");
    for (host, port) in addresses {
        let dialed =
            tokio::time::timeout(peers.settings.connect_timeout, TcpStream::connect((host.as_str(), *port)));
        match dialed.await {
            Ok(Ok(socket)) => return Ok(socket),
            Ok(Err(error)) => last = io::Error::new(error.kind(), format!("{host}:{port}: {error}")),
            Err(_) => last = io::Error::new(io::ErrorKind::TimedOut, format!("{host}:{port}: no answer")),
        }
    }
    Err(last)
}

pub(super) fn prepare(peers: &Arc<Peers>, socket: &TcpStream) {
    // Options that do not take are no reason to go without a connection.
    let _ = socket.set_nodelay(true);
    if peers.settings.keep_alive {
        let _ = socket2::SockRef::from(socket).set_keepalive(true);
    }
}
