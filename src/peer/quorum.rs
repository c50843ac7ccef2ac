//! The quorum port: packets from and to learners, or from and to the leader; feeds out of files; the leader's snapshot.

use super::{Peers, election, links::Link, listen};
use crate::core::{Core, Fed, Feeder, Files, Receiver};
use crate::ensemble::PeerAddress;
use crate::jute::DecodeError;
use crate::model::{LinkId, ServerId};
use crate::replica::{Feed, Input, QuorumInput};
use crate::wire::quorum::{FromLeader, FromLearner, Packet, take};
use bytes::BytesMut;
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::net::TcpStream;
use tokio_util::codec::Decoder;

/// Bytes of what a learner says first; FOLLOWERINFO has 40.
const MAX_INTRODUCTION: usize = 1 << 10;
/// Bytes read before what they hold is handed in.
const READ: usize = 256 << 10;
/// Memory is taken in pieces of this size, and another when so little is left of one.
const PIECE: usize = 64 << 10;
const MIN_ROOM: usize = 8 << 10;
/// How long the log is waited for when it is behind what others have committed.
const LOG_POLL: Duration = Duration::from_millis(20);
/// How often people are told how a snapshot goes.
const TOLD_EVERY: Duration = Duration::from_secs(1);

/// Cuts packets out of the stream.
struct Packets<P> {
    max: usize,
    of: std::marker::PhantomData<P>,
}

impl<P> Packets<P> {
    fn new(max: usize) -> Self {
        Self { max, of: std::marker::PhantomData }
    }
}

#[derive(Debug, thiserror::Error)]
enum Broken {
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("a packet that does not decode: {0}")]
    Decode(#[from] DecodeError),
}

impl<P: Packet> Decoder for Packets<P> {
    type Item = P;
    type Error = Broken;

    fn decode(&mut self, bytes: &mut BytesMut) -> Result<Option<P>, Broken> {
        Ok(take(bytes, self.max)?)
    }
}

pub(super) fn accepted(peers: &Arc<Peers>, socket: TcpStream, address: IpAddr) {
    let link = open(peers, socket);
    peers.strangers.lock().arrive(link.id.0, address, link.ended.clone());
    let peers = peers.clone();
    tokio::spawn(async move {
        let mut input = BytesMut::new();
        let introduced =
            tokio::time::timeout(peers.settings.introduction, introduce(&peers, &link, address, &mut input))
                .await;
        peers.strangers.lock().leave(link.id.0);
        let why = match introduced {
            Ok(Ok(packet)) => read_learner(&peers, &link, packet, input).await,
            Ok(Err(why)) => why,
            Err(_) => "it did not say who it is".into(),
        };
        end(&peers, &link, why);
    });
}

pub(super) async fn dial_leader(peers: Arc<Peers>, leader: ServerId, addresses: Vec<PeerAddress>) {
    let addresses: Vec<_> =
        addresses.into_iter().map(|address| (address.host, address.quorum_port)).collect();
    match election::connect(&peers, &addresses).await {
        Ok(socket) => {
            listen::prepare(&peers, &socket);
            let link = open(&peers, socket);
            submit(peers.core(), QuorumInput::Dialed(link.id));
            let why = read_leader(&peers, &link).await;
            end(&peers, &link, why);
        }
        Err(error) => {
            tracing::debug!("server {leader} can't be reached as leader: {error}");
            submit(peers.core(), QuorumInput::DialFailed);
        }
    }
}

fn open(peers: &Arc<Peers>, socket: TcpStream) -> Arc<Link> {
    let id = LinkId(peers.new_id());
    let link = Arc::new(Link::new(id, socket, peers.settings.max_queued, &peers.stop));
    peers.links.lock().insert(id, link.clone());
    let pumped = link.clone();
    tokio::spawn(async move { pumped.pump().await });
    link
}

fn end(peers: &Arc<Peers>, link: &Arc<Link>, why: String) {
    link.ended.cancel();
    peers.links.lock().remove(&link.id);
    let why = link.why_broken().unwrap_or(why);
    tracing::debug!("link {} ended: {why}", link.id.0);
    submit(peers.core(), QuorumInput::Closed(link.id));
}

fn submit(core: &Arc<Core>, input: QuorumInput) {
    core.submit(&mut vec![Input::Quorum(input)], None);
}

/// Packets that are kept (a history of many) share this memory: a new piece for each read would keep all of it for the
/// sake of a few bytes.
fn make_room(input: &mut BytesMut) {
    if input.capacity() - input.len() < MIN_ROOM {
        input.reserve(PIECE);
    }
}

/// Reads once. An error says why the link is over.
async fn fill(link: &Link, input: &mut BytesMut) -> Result<(), String> {
    loop {
        link.may_read().await;
        tokio::select! {
            () = link.ended.cancelled() => return Err("closed from here".into()),
            readable = link.socket.readable() => readable.map_err(|error| format!("reading failed: {error}"))?,
        }
        make_room(input);
        match link.socket.try_read_buf(input) {
            Ok(0) => return Err("closed by the other side".into()),
            Ok(_) => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(format!("reading failed: {error}")),
        }
    }
}

/// The first packet. As long as it is not there the replica hears nothing of the connection.
async fn introduce(
    peers: &Peers,
    link: &Link,
    address: IpAddr,
    input: &mut BytesMut,
) -> Result<FromLearner, String> {
    let mut packets = Packets::new(MAX_INTRODUCTION);
    while input.len() < MAX_INTRODUCTION {
        fill(link, input).await?;
        if let Some(packet) = packets.decode(input).map_err(|error| error.to_string())? {
            return match packet {
                FromLearner::Info { id, .. } if !peers.may_be(id, address).await => {
                    Err(format!("server {id} is not at {address}"))
                }
                packet => Ok(packet),
            };
        }
    }
    Err("an introduction that does not end".into())
}

async fn read_learner(
    peers: &Arc<Peers>,
    link: &Arc<Link>,
    introduction: FromLearner,
    mut input: BytesMut,
) -> String {
    let mut packets = Packets::<FromLearner>::new(peers.settings.max_packet);
    let mut inputs = vec![
        Input::Quorum(QuorumInput::Accepted(link.id)),
        Input::Quorum(QuorumInput::FromLearner { link: link.id, packet: introduction }),
    ];
    loop {
        loop {
            match packets.decode(&mut input) {
                Ok(Some(packet)) => {
                    inputs.push(Input::Quorum(QuorumInput::FromLearner { link: link.id, packet }));
                }
                Ok(None) => break,
                Err(error) => {
                    tracing::warn!("a learner sent {error}");
                    return error.to_string();
                }
            }
        }
        peers.core().submit(&mut inputs, None);
        if let Err(why) = fill(link, &mut input).await {
            return why;
        }
    }
}

async fn read_leader(peers: &Arc<Peers>, link: &Arc<Link>) -> String {
    let mut input = BytesMut::new();
    let mut packets = Packets::<FromLeader>::new(peers.settings.max_packet);
    let mut inputs = Vec::new();
    loop {
        if let Err(why) = fill(link, &mut input).await {
            return why;
        }
        loop {
            match packets.decode(&mut input) {
                Ok(Some(packet)) => {
                    let snapshot = if let FromLeader::Snap(zxid, _) = packet { Some(zxid) } else { None };
                    tell_way(&packet);
                    if let FromLeader::Ping(_) = packet {
                        // The answer tells which sessions were heard from: as late as possible.
                        inputs.push(peers.core().collect_touches());
                    }
                    inputs.push(Input::Quorum(QuorumInput::FromLeader { link: link.id, packet }));
                    if let Some(zxid) = snapshot {
                        peers.core().submit(&mut inputs, None);
                        match receive(peers, link, zxid, input).await {
                            Ok((database, rest)) => {
                                input = rest;
                                inputs.push(database);
                            }
                            Err(why) => {
                                tracing::warn!("the leader's snapshot could not be taken: {why}");
                                return why;
                            }
                        }
                    }
                }
                Ok(None) => break,
                Err(error) => {
                    tracing::warn!("the leader sent {error}");
                    return error.to_string();
                }
            }
        }
        peers.core().submit(&mut inputs, None);
    }
}

/// How this server is brought up to date.
fn tell_way(packet: &FromLeader) {
    let way = if let FromLeader::Diff(zxid, _) = packet {
        ("DIFF", zxid)
    } else if let FromLeader::Trunc(zxid, _) = packet {
        ("TRUNC", zxid)
    } else if let FromLeader::Snap(zxid, _) = packet {
        ("SNAP", zxid)
    } else {
        return;
    };
    tracing::info!("the leader synchronizes this server by {} to {}", way.0, way.1);
}

/// Takes the snapshot behind SNAP, on a thread that may wait for the disk.
async fn receive(
    peers: &Arc<Peers>,
    link: &Arc<Link>,
    zxid: crate::model::Zxid,
    mut input: BytesMut,
) -> Result<(Input, BytesMut), String> {
    let Files { disk, dirs, owners, .. } = peers.files.clone();
    let id = link.id;
    tracing::info!("taking the leader's snapshot of {zxid}");
    let made = tokio::task::spawn_blocking(move || Receiver::new(disk, &dirs, owners, id, zxid)).await;
    let mut receiver = made.map_err(|error| error.to_string())?.map_err(|error| error.to_string())?;
    let mut told = Instant::now();
    loop {
        let work = move || {
            let taken = receiver.take(&mut input);
            (receiver, input, taken)
        };
        let (back, rest, taken) =
            tokio::task::spawn_blocking(work).await.map_err(|error| error.to_string())?;
        (receiver, input) = (back, rest);
        if told.elapsed() >= TOLD_EVERY {
            told = Instant::now();
            tracing::info!("{} MB of the leader's snapshot taken", receiver.bytes() >> 20);
        }
        if let Some(db) = taken.map_err(|error| error.to_string())? {
            tracing::info!("took the leader's snapshot of {zxid}: {} bytes", receiver.bytes());
            return Ok((Input::Quorum(QuorumInput::Snapshot { link: link.id, zxid, db }), input));
        }
        match tokio::time::timeout(peers.settings.stall_timeout, fill(link, &mut input)).await {
            Ok(filled) => filled?,
            Err(_) => return Err("the snapshot does not go on".into()),
        }
        take_what_is_there(link, &mut input);
    }
}

/// Some more at once, so that the hand-over to another thread pays. It must not wait: this may have been the end.
fn take_what_is_there(link: &Link, input: &mut BytesMut) {
    let start = input.len();
    while input.len() - start < READ {
        make_room(input);
        // The end of the stream and its errors are told by the next read that waits.
        if !link.socket.try_read_buf(input).is_ok_and(|count| count > 0) {
            return;
        }
    }
}

/// Feeds a learner out of files, as fast as it takes them.
pub(super) async fn feed(core: Arc<Core>, link: Arc<Link>, files: Files, feed: Feed) {
    let outcome = feed_all(&core, &link, files, feed).await;
    link.feed_ends();
    let id = link.id;
    match outcome {
        Ok(Fed::Upto(upto)) => {
            let what = if matches!(feed, Feed::Snapshot { .. }) {
                "the newest snapshot"
            } else {
                "transactions of the log"
            };
            tracing::info!("sent a learner {what}, to {upto}");
            submit(&core, QuorumInput::Fed { link: id, upto });
        }
        Ok(Fed::Located(found)) => submit(&core, QuorumInput::Located { link: id, found }),
        Ok(Fed::More) => unreachable!("more comes in turns"),
        Err(why) => {
            tracing::warn!("could not feed a learner: {why}");
            // What is on the disk may be damaged. The next learner takes a snapshot of what is in memory.
            core.snapshots.ask();
            submit(&core, QuorumInput::FeedFailed { link: id });
        }
    }
}

async fn feed_all(core: &Arc<Core>, link: &Arc<Link>, files: Files, feed: Feed) -> Result<Fed, String> {
    let mut feeder = Feeder::new(files, feed);
    let mut told = Instant::now();
    let mut sent = 0;
    loop {
        let mut piece = BytesMut::new();
        let work = move || {
            let fed = feeder.next(&mut piece);
            (feeder, piece, fed)
        };
        let (back, piece, fed) =
            tokio::task::spawn_blocking(work).await.map_err(|error| error.to_string())?;
        feeder = back;
        sent += piece.len();
        link.queue(&piece);
        link.flush();
        match fed? {
            Fed::More => {}
            Fed::Upto(upto) if Feed::is_empty(feed, upto) => {
                // What others have committed is not in this server's log yet.
                tokio::time::sleep(LOG_POLL).await;
                return if core.is_stopping() { Err("the server stops".into()) } else { Ok(Fed::Upto(upto)) };
            }
            done => return Ok(done),
        }
        if told.elapsed() >= TOLD_EVERY {
            told = Instant::now();
            tracing::info!("sent {} MB to a learner that is far behind", sent >> 20);
        }
        let room = tokio::time::timeout(Duration::from_secs(60), link.room()).await;
        if room.is_err() || link.is_broken() {
            return Err("it takes nothing of what it is sent".into());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_that_are_kept_share_their_memory() {
        let mut input = BytesMut::new();
        let mut kept = Vec::new();
        for _ in 0..1000 {
            make_room(&mut input);
            input.extend_from_slice(&[7; 100]);
            kept.push(input.split_to(100).freeze());
        }
        let is_next = |pair: &[bytes::Bytes]| pair[1].as_ptr() == pair[0].as_ptr().wrapping_add(100);
        let pieces = 1 + kept.windows(2).filter(|pair| !is_next(pair)).count();
        assert!(pieces <= 2, "{pieces} pieces for 100 KB");
    }

    /// A leader that goes sends what it has to say, and its end may be noticed while writing first: a reconfiguration's
    /// COMMITANDACTIVATE was lost so.
    #[test]
    fn what_the_other_side_said_before_it_went_is_read() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            let (ours, theirs) =
                tokio::join!(TcpStream::connect(listener.local_addr().unwrap()), listener.accept());
            let (link, theirs) = (ours.unwrap(), theirs.unwrap().0);
            let stop = tokio_util::sync::CancellationToken::new();
            let link = Link::new(LinkId(1), link, 1 << 20, &stop);
            link.queue(b"something that is never read");
            link.flush();
            theirs.readable().await.unwrap();
            theirs.try_write(b"last words").unwrap();
            // What it did not read makes a reset of the end.
            drop(theirs);
            for _ in 0..10_000 {
                link.queue(b"more");
                link.flush();
                if link.is_broken() {
                    break;
                }
                tokio::task::yield_now().await;
            }
            assert!(link.is_broken());
            let mut input = BytesMut::new();
            fill(&link, &mut input).await.unwrap();
            assert_eq!(input, &b"last words"[..]);
            assert!(fill(&link, &mut input).await.is_err());
        });
    }
}
