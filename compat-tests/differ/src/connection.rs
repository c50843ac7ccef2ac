//! One connection to a server: frames out, frames in.

use crate::jute::{Reader, Writer, frame};
use crate::op;
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

/// A server that says nothing for so long is silent.
pub const PATIENCE: Duration = Duration::from_secs(15);

/// What a server has sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Heard {
    Event(Reply),
    Reply(Reply),
    /// A frame that is too short to be a reply.
    Odd(Vec<u8>),
    /// It closed the connection.
    Closed,
    /// It neither answered nor closed.
    Silence,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    pub xid: i32,
    pub zxid: i64,
    pub err: i32,
    pub body: Vec<u8>,
}

/// What a connect request is answered with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Welcome {
    pub protocol: i32,
    pub timeout: i32,
    pub session: i64,
    pub password: Vec<u8>,
    /// The read-only byte, and whatever else is there.
    pub rest: Vec<u8>,
}

#[derive(Debug)]
pub struct Connection {
    stream: TcpStream,
    input: Vec<u8>,
    at: usize,
}

impl Connection {
    pub fn open(address: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        Ok(Self { stream, input: Vec::new(), at: 0 })
    }

    /// Errors show at the next `hear`.
    pub fn send(&mut self, bytes: &[u8]) {
        let _ = self.stream.write_all(bytes);
    }

    /// Ends the connection from this side, and waits until the server has noticed: while it has not, Java may take the
    /// session's next connection for this one.
    pub fn end(mut self) {
        let _ = self.stream.shutdown(Shutdown::Write);
        while self.frame().is_ok() {}
    }

    /// The next frame; `Err`: there will be none.
    fn frame(&mut self) -> Result<Vec<u8>, Heard> {
        loop {
            let waiting = &self.input[self.at..];
            if let Some(head) = waiting.first_chunk::<4>() {
                let length = u32::from_be_bytes(*head) as usize;
                if let Some(body) = waiting[4..].get(..length) {
                    let body = body.to_vec();
                    self.at += 4 + length;
                    return Ok(body);
                }
            }
            self.input.drain(..self.at);
            self.at = 0;
            let mut chunk = [0; 32 << 10];
            match self.stream.read(&mut chunk) {
                Ok(0) => return Err(Heard::Closed),
                Ok(count) => self.input.extend_from_slice(&chunk[..count]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                    return Err(Heard::Silence);
                }
                Err(_) => return Err(Heard::Closed),
            }
        }
    }

    /// The next reply or event, or why there is none.
    pub fn hear(&mut self) -> Heard {
        let frame = match self.frame() {
            Ok(frame) => frame,
            Err(end) => return end,
        };
        let mut from = Reader::new(&frame);
        let (Some(xid), Some(zxid), Some(err)) = (from.int(), from.long(), from.int()) else {
            return Heard::Odd(frame);
        };
        let reply = Reply { xid, zxid, err, body: from.rest().to_vec() };
        if xid == -1 { Heard::Event(reply) } else { Heard::Reply(reply) }
    }

    /// Says hello, and takes the answer.
    pub fn connect(&mut self, hello: &[u8]) -> Result<Welcome, Heard> {
        self.send(&frame(hello));
        let frame = self.frame()?;
        let mut from = Reader::new(&frame);
        let mut read = || {
            let (protocol, timeout, session) = (from.int()?, from.int()?, from.long()?);
            let password = from.bytes()??.to_vec();
            Some(Welcome { protocol, timeout, session, password, rest: from.rest().to_vec() })
        };
        read().ok_or(Heard::Odd(frame))
    }
}

/// A connect request. Without `read_only` it is that of a client from before 3.4.
pub fn hello(
    seen: i64,
    timeout: i32,
    session: i64,
    password: Option<&[u8]>,
    read_only: Option<u8>,
) -> Vec<u8> {
    let hello = Writer::new().int(0).long(seen).int(timeout).long(session).bytes(password);
    match read_only {
        Some(flag) => hello.byte(flag).0,
        None => hello.0,
    }
}

/// A framed request.
pub fn request(xid: i32, op: i32, body: &[u8]) -> Vec<u8> {
    frame(&Writer::new().int(xid).int(op).raw(body).0)
}

pub fn ping() -> Vec<u8> {
    request(-2, op::PING, &[])
}

/// The password that a session's id gives (`java.util.Random`).
pub fn password_of(session: i64) -> Vec<u8> {
    const MASK: u64 = (1 << 48) - 1;
    let mut state = ((session as u64 ^ 0xb341_5c00) ^ 0x5_deec_e66d) & MASK;
    let mut password = Vec::with_capacity(16);
    for _ in 0..4 {
        state = state.wrapping_mul(0x5_deec_e66d).wrapping_add(0xb) & MASK;
        password.extend_from_slice(&((state >> 16) as u32).to_le_bytes());
    }
    password
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_password_follows_from_the_id() {
        assert_eq!(
            crate::script::hex(&password_of(0x0100_0010_ae3a_0000)),
            "94fba91e91476cd7928a1361c2740bd4"
        );
    }

    #[test]
    fn a_client_from_before_3_4_sends_a_byte_less() {
        assert_eq!(
            hello(0, 1, 0, Some(&[0; 16]), None).len() + 1,
            hello(0, 1, 0, Some(&[0; 16]), Some(0)).len()
        );
        assert_eq!(ping(), [0, 0, 0, 8, 255, 255, 255, 254, 0, 0, 0, 11]);
    }
}
