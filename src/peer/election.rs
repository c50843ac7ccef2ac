//! The election port: dials, and pumps bytes both ways.

use super::Peers;
use super::socket::{connect, prepare};
use crate::election::{ElectionConn, LinkOutput};
use crate::model::ServerId;
use crate::replica::{ElectionInput, Input};
use crate::wire::election::InitialMessage;
use bytes::{Bytes, BytesMut};
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio_util::sync::CancellationToken;

/// Messages that may wait for one server: newer ones make older ones pointless.
const QUEUE: usize = 64;
/// How long the last bytes of a connection may take to leave.
const FAREWELL: std::time::Duration = std::time::Duration::from_secs(1);

enum Write {
    Bytes(Bytes),
    Close,
}

pub(super) struct Writer {
    to: Sender<Write>,
    ended: CancellationToken,
}

/// The living connections, for whoever writes.
pub(super) type Writers = HashMap<ElectionConn, Writer>;

/// Carries out what the replica asks for.
pub(super) struct Elections {
    peers: Arc<Peers>,
}

impl Elections {
    pub fn new(peers: Arc<Peers>) -> Self {
        Self { peers }
    }

    pub fn carry(&mut self, output: LinkOutput) {
        match output {
            LinkOutput::Dial { to, addresses } => {
                tokio::spawn(dial(self.peers.clone(), to, addresses));
            }
            LinkOutput::Write { conn, bytes } => self.write(conn, Write::Bytes(bytes)),
            LinkOutput::Close { conn, why } => {
                tracing::debug!("closing election connection {}: {why}", conn.0);
                self.write(conn, Write::Close);
            }
        }
    }

    fn write(&self, conn: ElectionConn, write: Write) {
        let mut writers = self.peers.elections.lock();
        let Some(writer) = writers.get(&conn) else { return };
        let closes = matches!(write, Write::Close);
        if writer.to.try_send(write).is_err() {
            // It takes nothing: it is as good as gone.
            writer.ended.cancel();
        }
        if closes {
            writers.remove(&conn);
        }
    }
}

pub(super) fn accepted(peers: &Arc<Peers>, mut socket: TcpStream, address: IpAddr) {
    let conn = ElectionConn(peers.new_id());
    let ended = peers.stop.child_token();
    peers.strangers.lock().arrive(conn.0, address, ended.clone());
    let peers = peers.clone();
    tokio::spawn(async move {
        let introduced = tokio::select! {
            () = ended.cancelled() => None,
            () = tokio::time::sleep(peers.settings.introduction) => None,
            introduced = introduce(&peers, address, &mut socket) => introduced,
        };
        peers.strangers.lock().leave(conn.0);
        if let Some(bytes) = introduced {
            // Answers need the writer; what it reads comes behind this.
            pump(&peers, conn, socket);
            submit(&peers, ElectionInput::Accepted(conn));
            submit(&peers, ElectionInput::Bytes { conn, bytes });
        }
    });
}

/// The initial message, with what came behind it. As long as it is not there the replica hears nothing of the connection.
async fn introduce(peers: &Peers, address: IpAddr, socket: &mut TcpStream) -> Option<Bytes> {
    let mut buffer = BytesMut::with_capacity(4096);
    while buffer.len() < buffer.capacity() && socket.read_buf(&mut buffer).await.is_ok_and(|count| count > 0)
    {
        match InitialMessage::decode(&buffer) {
            Ok(None) => {}
            Ok(Some((message, _))) => {
                return peers.may_be(message.from, address).await.then(|| buffer.freeze());
            }
            Err(_) => return None,
        }
    }
    None
}

async fn dial(peers: Arc<Peers>, to: ServerId, addresses: Vec<(String, u16)>) {
    match connect(&peers, &addresses).await {
        Ok(socket) => {
            prepare(&peers, &socket);
            let conn = ElectionConn(peers.new_id());
            pump(&peers, conn, socket);
            submit(&peers, ElectionInput::Dialed { to, conn });
        }
        Err(error) => {
            tracing::debug!("server {to} can't be reached for the election: {error}");
            submit(&peers, ElectionInput::DialFailed(to));
        }
    }
}

fn submit(peers: &Arc<Peers>, input: ElectionInput) {
    peers.core().submit(&mut vec![Input::Election(input)], None);
}

fn pump(peers: &Arc<Peers>, conn: ElectionConn, socket: TcpStream) {
    let (to, from) = channel(QUEUE);
    let ended = peers.stop.child_token();
    peers.elections.lock().insert(conn, Writer { to, ended: ended.clone() });
    let (reader, writer) = socket.into_split();
    tokio::spawn(write(writer, from, ended.clone()));
    tokio::spawn(read(peers.clone(), conn, reader, ended));
}

async fn write(mut socket: OwnedWriteHalf, mut from: Receiver<Write>, ended: CancellationToken) {
    loop {
        let next = tokio::select! {
            () = ended.cancelled() => return,
            next = from.recv() => next,
        };
        match next {
            Some(Write::Bytes(bytes)) => {
                let written = tokio::select! {
                    () = ended.cancelled() => return,
                    written = socket.write_all(&bytes) => written,
                };
                if written.is_err() {
                    return ended.cancel();
                }
            }
            Some(Write::Close) | None => {
                let _ = tokio::time::timeout(FAREWELL, socket.shutdown()).await;
                return ended.cancel();
            }
        }
    }
}

async fn read(peers: Arc<Peers>, conn: ElectionConn, mut socket: OwnedReadHalf, ended: CancellationToken) {
    let mut buffer = BytesMut::new();
    loop {
        buffer.reserve(4096);
        let read = tokio::select! {
            () = ended.cancelled() => break,
            read = socket.read_buf(&mut buffer) => read,
        };
        match read {
            Ok(count) if count > 0 => {
                submit(&peers, ElectionInput::Bytes { conn, bytes: buffer.split().freeze() });
            }
            _ => break,
        }
    }
    ended.cancel();
    peers.elections.lock().remove(&conn);
    submit(&peers, ElectionInput::Closed(conn));
}
