//! The bytes of one connection, in the clear or through TLS.

use mio::net::TcpStream;
use rustls::{ServerConfig, ServerConnection};
use std::io::{self, Read, Write};
use std::sync::Arc;

/// What a listening socket takes.
#[derive(Clone)]
pub enum Door {
    Plain,
    Tls(Arc<ServerConfig>),
    /// Whichever the client begins with (`client.portUnification`).
    Either(Arc<ServerConfig>),
}

pub(super) struct Stream {
    socket: TcpStream,
    kind: Kind,
}

enum Kind {
    Plain,
    Tls(Box<ServerConnection>),
    Undecided(Arc<ServerConfig>),
}

/// What a read came to.
pub(super) struct Filled {
    pub count: usize,
    /// There are no more bytes for now; the next ones make a new event.
    pub drained: bool,
}

/// The first byte of a handshake. No frame that is short enough, and no four-letter word, begins with it.
const HANDSHAKE: u8 = 0x16;

impl Stream {
    pub fn new(socket: TcpStream, door: Door) -> io::Result<Self> {
        let kind = match door {
            Door::Plain => Kind::Plain,
            Door::Tls(config) => tls(config)?,
            Door::Either(config) => Kind::Undecided(config),
        };
        Ok(Self { socket, kind })
    }

    pub fn socket(&mut self) -> &mut TcpStream {
        &mut self.socket
    }

    /// Takes bytes; none at all means that the peer has ended.
    pub fn read(&mut self, to: &mut [u8]) -> io::Result<Filled> {
        if let Kind::Undecided(config) = &self.kind {
            let mut first = [0];
            self.kind = match self.socket.peek(&mut first)? {
                1 if first[0] == HANDSHAKE => tls(config.clone())?,
                _ => Kind::Plain,
            };
        }
        match &mut self.kind {
            Kind::Tls(session) => read_tls(session, &mut self.socket, to),
            // A short read means an empty socket.
            _ => self.socket.read(to).map(|count| Filled { count, drained: count < to.len() }),
        }
    }

    /// Sends some of the bytes, or keeps some to be sent.
    pub fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let Kind::Tls(session) = &mut self.kind else { return self.socket.write(bytes) };
        loop {
            let taken = session.writer().write(bytes)?;
            let sent_all = send(session, &mut self.socket)?;
            if taken > 0 {
                return Ok(taken);
            }
            if !sent_all {
                return Err(io::ErrorKind::WouldBlock.into());
            }
        }
    }

    /// Sends what was kept. False: the peer takes no more for now.
    pub fn flush(&mut self) -> io::Result<bool> {
        match &mut self.kind {
            Kind::Tls(session) => send(session, &mut self.socket),
            Kind::Plain | Kind::Undecided(_) => Ok(true),
        }
    }

    /// Says that no more bytes come. What is said with it may be lost: the connection ends anyway.
    pub fn end(&mut self) {
        if let Kind::Tls(session) = &mut self.kind {
            session.send_close_notify();
            let _ = send(session, &mut self.socket);
        }
    }

    /// Bytes wait for the peer to take some.
    pub fn keeps_bytes(&self) -> bool {
        matches!(&self.kind, Kind::Tls(session) if session.wants_write())
    }

    /// The certificate that the client has proved to be its own, in TLS that is set up.
    pub fn certificate(&self) -> Option<&[u8]> {
        match &self.kind {
            Kind::Tls(session) if !session.is_handshaking() => {
                session.peer_certificates()?.first().map(|certificate| &certificate[..])
            }
            _ => None,
        }
    }

    pub fn is_handshaking(&self) -> bool {
        matches!(&self.kind, Kind::Tls(session) if session.is_handshaking())
    }
}

fn tls(config: Arc<ServerConfig>) -> io::Result<Kind> {
    let session = ServerConnection::new(config).map_err(io::Error::other)?;
    Ok(Kind::Tls(Box::new(session)))
}

fn read_tls(session: &mut ServerConnection, socket: &mut TcpStream, to: &mut [u8]) -> io::Result<Filled> {
    loop {
        match session.reader().read(to) {
            Ok(count) => return Ok(Filled { count, drained: false }),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            // An end without its being said: somebody may have cut off what was to come. A frame tells its length.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                return Ok(Filled { count: 0, drained: true });
            }
            Err(error) => return Err(error),
        }
        session.read_tls(socket)?;
        let processed = session.process_new_packets();
        // An answer of the handshake, or what was wrong with the client's part of it.
        send(session, socket)?;
        processed.map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
    }
}

/// Sends what TLS has to send. False: the peer takes no more for now.
fn send(session: &mut ServerConnection, socket: &mut TcpStream) -> io::Result<bool> {
    while session.wants_write() {
        match session.write_tls(socket) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(true)
}
