//! The connections of a load: sessions, batches of requests out, replies in.

use super::pacer::Pacer;
use super::requests::Workload;
use super::{BenchError, Run};
use crate::jute::records::{ConnectRequest, ReplyHeader, RequestHeader};
use crate::jute::{Reader, put_len};
use crate::model::Op;
use bytes::{BufMut, BytesMut};
use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token, Waker};
use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

const SESSION_TIMEOUT_MS: i32 = 30_000;
/// Nothing came for so long: the server is stuck or gone.
const PATIENCE: Duration = Duration::from_secs(30);
/// No connection's: the next request is due.
const DUE: Token = Token(usize::MAX);

pub(super) struct Client {
    socket: TcpStream,
    input: Vec<u8>,
    input_at: usize,
    output: BytesMut,
    /// When the unanswered requests were sent, or should have been.
    sent: VecDeque<Instant>,
    xid: i32,
}

fn failed(what: &'static str) -> impl FnOnce(io::Error) -> BenchError {
    move |source| BenchError::Io { what, source }
}

impl Client {
    /// Opens a session.
    pub fn connect(address: SocketAddr) -> Result<Self, BenchError> {
        let mut socket = std::net::TcpStream::connect(address)
            .map_err(|source| BenchError::Connect { address, source })?;
        socket.set_nodelay(true).map_err(failed("connect"))?;
        socket.set_read_timeout(Some(PATIENCE)).map_err(failed("connect"))?;
        let request = ConnectRequest {
            protocol_version: 0,
            last_zxid_seen: 0,
            timeout: SESSION_TIMEOUT_MS,
            session_id: 0,
            passwd: Some(&[0_u8; 16][..]),
        };
        let mut out = BytesMut::new();
        put_len(&mut out, request.encoded_len() + 1);
        request.encode(&mut out);
        out.put_u8(0);
        socket.write_all(&out).map_err(failed("connect"))?;
        let mut head = [0; 4];
        socket.read_exact(&mut head).map_err(failed("open a session"))?;
        let len = i32::from_be_bytes(head);
        if !(36..=64).contains(&len) {
            return Err(BenchError::Server(format!("answered the connect request with {len} bytes")));
        }
        let mut body = vec![0; len as usize];
        socket.read_exact(&mut body).map_err(failed("open a session"))?;
        socket.set_nonblocking(true).map_err(failed("connect"))?;
        let socket = TcpStream::from_std(socket);
        Ok(Self {
            socket,
            input: Vec::new(),
            input_at: 0,
            output: BytesMut::new(),
            sent: VecDeque::new(),
            xid: 0,
        })
    }

    fn next_xid(&mut self) -> i32 {
        self.xid = if self.xid == i32::MAX { 1 } else { self.xid + 1 };
        self.xid
    }

    fn push(&mut self, workload: &Workload, at: u64, when: Instant) {
        let xid = self.next_xid();
        workload.request(at, xid, &mut self.output);
        self.sent.push_back(when);
    }

    fn flush(&mut self) -> Result<(), BenchError> {
        let mut written = 0;
        while written < self.output.len() {
            match self.socket.write(&self.output[written..]) {
                Ok(count) => written += count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(failed("send")(error)),
            }
        }
        if written == self.output.len() {
            self.output.clear();
        } else {
            let _ = self.output.split_to(written);
        }
        Ok(())
    }

    /// Reads what is there. `on_reply` gets the error code of each reply and when its request was sent.
    fn receive(
        &mut self,
        scratch: &mut [u8],
        mut on_reply: impl FnMut(Instant, i32),
    ) -> Result<usize, BenchError> {
        let mut replies = 0;
        loop {
            match self.socket.read(scratch) {
                Ok(0) => return Err(BenchError::Server("closed a connection".into())),
                Ok(count) => {
                    self.input.extend_from_slice(&scratch[..count]);
                    while let Some(frame) = self.next_frame() {
                        let header = ReplyHeader::decode(&mut Reader::new(&self.input[frame.clone()]));
                        let header =
                            header.map_err(|_| BenchError::Server("sent a reply without a header".into()))?;
                        if header.xid >= 0 {
                            let sent = self.sent.pop_front();
                            on_reply(
                                sent.ok_or_else(|| BenchError::Server("answered too often".into()))?,
                                header.err,
                            );
                            replies += 1;
                        }
                    }
                    self.input.drain(..self.input_at);
                    self.input_at = 0;
                    if count < scratch.len() {
                        return Ok(replies);
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(replies),
                Err(error) => return Err(failed("receive")(error)),
            }
        }
    }

    fn next_frame(&mut self) -> Option<std::ops::Range<usize>> {
        let rest = &self.input[self.input_at..];
        let len = u32::from_be_bytes(*rest.first_chunk()?) as usize;
        if rest.len() < 4 + len {
            return None;
        }
        let start = self.input_at + 4;
        self.input_at = start + len;
        Some(start..start + len)
    }
}

/// All connections of a load under one poll.
pub(super) struct Driver {
    clients: Vec<Client>,
    poll: Poll,
    events: Events,
    scratch: Vec<u8>,
}

impl Driver {
    pub fn new(mut clients: Vec<Client>) -> Result<Self, BenchError> {
        let poll = Poll::new().map_err(failed("poll"))?;
        for (at, client) in clients.iter_mut().enumerate() {
            let interest = Interest::READABLE | Interest::WRITABLE;
            poll.registry().register(&mut client.socket, Token(at), interest).map_err(failed("poll"))?;
        }
        Ok(Self { clients, poll, events: Events::with_capacity(1024), scratch: vec![0; 256 << 10] })
    }

    /// The load itself.
    pub fn run(
        &mut self,
        workload: &Workload,
        in_flight: usize,
        rate: Option<f64>,
        run: &mut Run<'_>,
    ) -> Result<(), BenchError> {
        let started = Instant::now();
        let mut at = 0_u64;
        if rate.is_none() {
            for client in &mut self.clients {
                for _ in 0..in_flight {
                    client.push(workload, at, started);
                    at += 1;
                }
                client.flush()?;
            }
        }
        let pacer = match rate {
            Some(rate) => {
                let waker = Waker::new(self.poll.registry(), DUE).map_err(failed("poll"))?;
                Some(Pacer::start(waker, started, rate))
            }
            None => None,
        };
        let mut last_reply = started;
        let mut now = started;
        while run.goes_on(now) {
            if let Some(rate) = rate {
                // Everything that is due by now goes out, however late.
                let due = (now.duration_since(started).as_secs_f64() * rate) as u64;
                let count = self.clients.len() as u64;
                while at < due {
                    let intended = started + Duration::from_secs_f64(at as f64 / rate);
                    self.clients[(at % count) as usize].push(workload, at, intended);
                    at += 1;
                }
                for client in &mut self.clients {
                    client.flush()?;
                }
            }
            self.wait(Duration::from_millis(100))?;
            now = Instant::now();
            for event in self.events.iter().filter(|event| event.token() != DUE) {
                let client = &mut self.clients[event.token().0];
                if event.is_readable() || event.is_read_closed() {
                    let replies =
                        client.receive(&mut self.scratch, |sent, err| run.answered(sent, now, err))?;
                    if replies > 0 {
                        last_reply = now;
                    }
                    if rate.is_none() {
                        for _ in 0..replies {
                            client.push(workload, at, now);
                            at += 1;
                        }
                    }
                }
                client.flush()?;
            }
            let waits = self.clients.iter().any(|client| !client.sent.is_empty());
            if waits && now.duration_since(last_reply) > PATIENCE {
                return Err(BenchError::Server(format!("did not answer for {PATIENCE:?}")));
            }
        }
        run.finished(now);
        drop(pacer);
        if workload.creates() {
            run.created = at;
        }
        self.settle()
    }

    /// Waits for the answers that are still due.
    fn settle(&mut self) -> Result<(), BenchError> {
        let deadline = Instant::now() + PATIENCE;
        while self.clients.iter().any(|client| !client.sent.is_empty()) {
            if Instant::now() > deadline {
                return Err(BenchError::Server(format!("owes answers after {PATIENCE:?}")));
            }
            self.wait(Duration::from_millis(100))?;
            for event in self.events.iter().filter(|event| event.token() != DUE) {
                let client = &mut self.clients[event.token().0];
                client.flush()?;
                client.receive(&mut self.scratch, |_, _| {})?;
            }
        }
        Ok(())
    }

    /// Sends `requests` over the first connection, `in_flight` at a time. With `strict`, an error ends it.
    pub fn batch(
        &mut self,
        requests: &mut dyn Iterator<Item = BytesMut>,
        in_flight: usize,
        strict: bool,
        progress: &mut dyn FnMut(u64),
    ) -> Result<(), BenchError> {
        let mut done = 0;
        let mut last_reply = Instant::now();
        let mut over = false;
        loop {
            let client = &mut self.clients[0];
            while !over && client.sent.len() < in_flight {
                match requests.next() {
                    Some(mut request) => {
                        let xid = client.next_xid();
                        request[4..8].copy_from_slice(&xid.to_be_bytes());
                        client.output.extend_from_slice(&request);
                        client.sent.push_back(last_reply);
                    }
                    None => over = true,
                }
            }
            client.flush()?;
            if over && client.sent.is_empty() {
                return Ok(());
            }
            self.wait(Duration::from_millis(100))?;
            let mut refused = 0;
            let client = &mut self.clients[0];
            let replies = client.receive(&mut self.scratch, |_, err| {
                if err != 0 {
                    refused = err;
                }
            })?;
            if strict && refused != 0 {
                return Err(BenchError::Server(format!("refused a request with error {refused}")));
            }
            if replies > 0 {
                done += replies as u64;
                last_reply = Instant::now();
                progress(done);
            } else if last_reply.elapsed() > PATIENCE {
                return Err(BenchError::Server(format!("did not answer for {PATIENCE:?}")));
            }
        }
    }

    fn wait(&mut self, timeout: Duration) -> Result<(), BenchError> {
        match self.poll.poll(&mut self.events, Some(timeout)) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(()),
            other => other.map_err(failed("poll")),
        }
    }

    /// Closes all sessions.
    pub fn close(&mut self) -> Result<(), BenchError> {
        for client in &mut self.clients {
            let xid = client.next_xid();
            put_len(&mut client.output, RequestHeader::MIN_LEN);
            RequestHeader { xid, op: Op::CloseSession.code() }.encode(&mut client.output);
            client.sent.push_back(Instant::now());
        }
        for client in &mut self.clients {
            client.flush()?;
        }
        match self.settle() {
            // The server closes each connection after its answer.
            Err(BenchError::Server(_)) | Ok(()) => Ok(()),
            Err(other) => Err(other),
        }
    }
}
