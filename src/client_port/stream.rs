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
    Tls(Box<Tls>),
    Undecided(Arc<ServerConfig>),
}

struct Tls {
    session: ServerConnection,
    /// What was wrong with a record. It is reported after what came before.
    failed: Option<rustls::Error>,
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
            Kind::Tls(tls) => tls.read(&mut self.socket, to),
            // A short read means an empty socket, or that only the end is left.
            _ => self.socket.read(to).map(|count| Filled { count, drained: count < to.len() }),
        }
    }

    /// Sends some of the bytes, or keeps some to be sent.
    pub fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let Kind::Tls(tls) = &mut self.kind else { return self.socket.write(bytes) };
        loop {
            let taken = tls.session.writer().write(bytes)?;
            let sent_all = tls.send(&mut self.socket)?;
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
            Kind::Tls(tls) => tls.send(&mut self.socket),
            Kind::Plain | Kind::Undecided(_) => Ok(true),
        }
    }

    /// Says that no more bytes come. What is said with it may be lost: the connection ends anyway.
    pub fn end(&mut self) {
        if let Kind::Tls(tls) = &mut self.kind {
            tls.session.send_close_notify();
            let _ = tls.send(&mut self.socket);
        }
    }

    /// Bytes wait for the peer to take some.
    pub fn keeps_bytes(&self) -> bool {
        matches!(&self.kind, Kind::Tls(tls) if tls.session.wants_write())
    }

    /// The certificate that the client has proved to be its own, in TLS that is set up.
    pub fn certificate(&self) -> Option<&[u8]> {
        match &self.kind {
            Kind::Tls(tls) if !tls.session.is_handshaking() => {
                tls.session.peer_certificates()?.first().map(|certificate| &certificate[..])
            }
            _ => None,
        }
    }

    pub fn is_handshaking(&self) -> bool {
        matches!(&self.kind, Kind::Tls(tls) if tls.session.is_handshaking())
    }
}

fn tls(config: Arc<ServerConfig>) -> io::Result<Kind> {
    let session = ServerConnection::new(config).map_err(io::Error::other)?;
    Ok(Kind::Tls(Box::new(Tls { session, failed: None })))
}

impl Tls {
    fn read(&mut self, socket: &mut TcpStream, to: &mut [u8]) -> io::Result<Filled> {
        loop {
            match self.session.reader().read(to) {
                Ok(count) => return Ok(Filled { count, drained: false }),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                // An end without its being said: somebody may have cut off what was to come. A frame tells its length.
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                    return Ok(Filled { count: 0, drained: true });
                }
                Err(error) => return Err(error),
            }
            if let Some(error) = &self.failed {
                return Err(io::Error::new(io::ErrorKind::InvalidData, crate::tls::why(error)));
            }
            self.session.read_tls(socket)?;
            self.failed = self.session.process_new_packets().err();
            // An answer of the handshake, or what was wrong with the client's part of it. Who can't be told may have said
            // something before it went.
            let _ = self.send(socket);
        }
    }

    /// Sends what TLS has to send. False: the peer takes no more for now.
    fn send(&mut self, socket: &mut TcpStream) -> io::Result<bool> {
        while self.session.wants_write() {
            match self.session.write_tls(socket) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }
}
