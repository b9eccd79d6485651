//! One connection: its control stream each way, its datagrams, the sync streams that the peer opens.
//!
//! Everything of a connection runs in one task, which ends with the connection and then says so with `Down`. [`Link`] is the
//! handle through which the driver sends; it never blocks, and what it queues is bounded.

use super::framing::{length, ControlMessage, ControlReader, FramingError, STREAM_CONTROL, SWIM_BIT};
use super::sync::{serve_stream, Serving};
use super::tls::{peer_id, PeerId};
use super::{close_code, refusals, NetEvent};
use crate::limits::{FRAME_WINDOW, PEER_QUEUE_HIGH, PEER_QUEUE_LOW, PEER_QUEUE_MAX};
use bytes::Bytes;
use quinn::{Connection, ConnectionError, RecvStream, SendDatagramError, SendStream, VarInt};
use starling_crdt::SiteId;
use starling_proto::limits::MAX_DATAGRAM;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::io::AsyncReadExt;
use tokio::sync::{mpsc, Semaphore};

/// Messages taken from the send queue at once.
const SEND_BATCH: usize = 64;

/// What all connections share.
#[derive(Clone, Debug)]
pub(super) struct Shared {
    pub events: mpsc::Sender<NetEvent>,
    pub frame_window: Arc<Semaphore>,
    pub next_id: Arc<AtomicU64>,
}

impl Shared {
    pub fn new(events: mpsc::Sender<NetEvent>) -> Self {
        let frame_window = Arc::new(Semaphore::new(FRAME_WINDOW));
        Self { events, frame_window, next_id: Arc::new(AtomicU64::new(1)) }
    }

    pub fn draw(&self) -> u64 {
        self.next_id.fetch_add(1, Ordering::Relaxed)
    }
}

#[derive(Debug, Default)]
struct QueueState {
    bytes: AtomicUsize,
    congested: AtomicBool,
}

/// A connection as the driver holds it.
#[derive(Debug)]
pub struct Link {
    /// Unique in this process.
    pub id: u64,
    /// The peer.
    pub peer: PeerId,
    /// Its address.
    pub addr: SocketAddr,
    /// Whether this node dialled.
    pub dialed: bool,
    /// Since when it stands.
    pub since: Instant,
    connection: Connection,
    queue: mpsc::UnboundedSender<(u32, Bytes)>,
    state: Arc<QueueState>,
}

/// What became of a frame.
#[derive(Debug, PartialEq, Eq, Clone, Copy)]
pub enum SendOutcome {
    /// It is queued.
    Queued,
    /// It is queued, and with it the queue has passed the high mark.
    Congested,
    /// The peer is too slow or gone; the connection is being closed.
    Lost,
}

impl Link {
    /// Appends a frame to the control stream.
    pub fn send_frame(&self, bytes: Bytes) -> SendOutcome {
        self.enqueue(0, bytes)
    }

    fn enqueue(&self, flag: u32, bytes: Bytes) -> SendOutcome {
        let len = bytes.len();
        let queued = self.state.bytes.fetch_add(len, Ordering::AcqRel) + len;
        if queued > PEER_QUEUE_MAX {
            self.close(close_code::SLOW, "takes frames more slowly than they arise");
            return SendOutcome::Lost;
        }
        if self.queue.send((flag, bytes)).is_err() {
            return SendOutcome::Lost;
        }
        if queued > PEER_QUEUE_HIGH && !self.state.congested.swap(true, Ordering::AcqRel) {
            return SendOutcome::Congested;
        }
        SendOutcome::Queued
    }

    /// Sends a datagram; one that the path does not take goes by the control stream.
    pub fn send_datagram(&self, bytes: Bytes) {
        match self.connection.send_datagram(bytes.clone()) {
            Err(SendDatagramError::TooLarge | SendDatagramError::UnsupportedByPeer | SendDatagramError::Disabled) => {
                self.enqueue(SWIM_BIT, bytes);
            }
            Ok(()) | Err(SendDatagramError::ConnectionLost(_)) => {}
        }
    }

    /// Closes the connection at once; what is queued is dropped.
    pub fn close(&self, code: u32, reason: &str) {
        self.connection.close(VarInt::from_u32(code), reason.as_bytes());
    }

    /// The transport's estimate of the round-trip time.
    #[must_use]
    pub fn rtt(&self) -> Duration {
        self.connection.rtt()
    }

    /// Whether it has ended already.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.connection.close_reason().is_some()
    }

    /// Whether nothing waits to be sent.
    #[must_use]
    pub fn is_drained(&self) -> bool {
        self.state.bytes.load(Ordering::Acquire) == 0
    }

    pub(super) const fn connection(&self) -> &Connection {
        &self.connection
    }
}

/// Exchanges control streams on a fresh connection, says `Up`, and runs it to its end.
pub(super) struct Established {
    link: Link,
    dialed: Option<SocketAddr>,
    send: SendStream,
    recv: RecvStream,
    queue: mpsc::UnboundedReceiver<(u32, Bytes)>,
}

/// Waits until both ends have accepted the connection: a peer that refuses our certificate does so after our own handshake
/// is done, so only its control stream proves that it took us.
pub(super) async fn establish(
    shared: &Shared,
    connection: Connection,
    dialed: Option<SocketAddr>,
) -> Result<Established, String> {
    let peer = peer_id(&connection).inspect_err(|why| {
        connection.close(VarInt::from_u32(close_code::IDENTITY), why.as_bytes());
    })?;
    let broken = |e: quinn::ConnectionError| refusals::explain(&e);
    let mut send = connection.open_uni().await.map_err(broken)?;
    send.set_priority(1).map_err(|e| e.to_string())?;
    send.write_all(&[STREAM_CONTROL]).await.map_err(|_| why_closed(&connection))?;
    let mut recv = connection.accept_uni().await.map_err(broken)?;
    match recv.read_u8().await {
        Ok(STREAM_CONTROL) => {}
        Ok(kind) => {
            let why = format!("opened a stream of the unknown kind {kind}");
            connection.close(VarInt::from_u32(close_code::FRAMING), why.as_bytes());
            return Err(why);
        }
        Err(_) => return Err(why_closed(&connection)),
    }
    let (queue, receiver) = mpsc::unbounded_channel();
    let addr = connection.remote_address();
    let link = Link {
        id: shared.draw(),
        peer,
        addr: SocketAddr::new(addr.ip().to_canonical(), addr.port()),
        dialed: dialed.is_some(),
        since: Instant::now(),
        connection,
        queue,
        state: Arc::default(),
    };
    Ok(Established { link, dialed, send, recv, queue: receiver })
}

fn why_closed(connection: &Connection) -> String {
    connection.close_reason().map_or_else(|| "the control stream broke".into(), |e| refusals::explain(&e))
}

impl Established {
    /// Runs until the connection ends.
    pub async fn run(self, shared: Shared) {
        let Self { link, dialed, send, recv, queue } = self;
        let (id, site) = (link.id, link.peer.site);
        let (connection, state) = (link.connection.clone(), Arc::clone(&link.state));
        let local_ip = connection.local_ip().map(|ip| ip.to_canonical());
        if shared.events.send(NetEvent::Up { link, dialed, local_ip }).await.is_err() {
            return;
        }
        let ended = tokio::select! {
            ended = read_control(&shared, id, site, recv) => ended,
            ended = read_datagrams(&shared, id, site, &connection) => ended,
            ended = accept_streams(&shared, id, site, &connection) => ended,
            ended = write_control(&shared, id, site, send, queue, &state) => ended,
        };
        let reason = connection.close_reason();
        match &ended {
            Err(fault) => connection.close(VarInt::from_u32(close_code::FRAMING), fault.as_bytes()),
            Ok(()) => connection.close(VarInt::from_u32(close_code::SHUTDOWN), b"no longer used"),
        }
        let closed = reason.unwrap_or(connection.closed().await);
        let code = match &closed {
            ConnectionError::ApplicationClosed(close) => Some(close.error_code.into_inner()),
            _ => None,
        };
        let why = ended.err().unwrap_or_else(|| refusals::explain(&closed));
        let _ = shared.events.send(NetEvent::Down { link: id, site, why, code }).await;
    }
}

/// `Err` is a fault of the peer, `Ok` the end of the connection.
type Ended = Result<(), String>;

async fn read_control(shared: &Shared, link: u64, from: SiteId, mut recv: RecvStream) -> Ended {
    let mut reader = ControlReader::default();
    loop {
        while let Some(message) = reader.next_buffered().map_err(|e| e.to_string())? {
            let event = match message {
                ControlMessage::Swim(bytes) => NetEvent::Datagram { link, from, bytes },
                ControlMessage::Frame(bytes) => {
                    let share = u32::try_from(bytes.len().clamp(1, FRAME_WINDOW)).unwrap_or(u32::MAX);
                    let window = Arc::clone(&shared.frame_window).acquire_many_owned(share).await;
                    let Ok(window) = window else { return Ok(()) };
                    NetEvent::Frame { link, from, bytes, window }
                }
            };
            if shared.events.send(event).await.is_err() {
                return Ok(());
            }
        }
        match reader.fill(&mut recv).await {
            Ok(true) => {}
            Ok(false) => return Err("ended its control stream".into()),
            Err(FramingError::Io(_)) => return Ok(()),
            Err(fault) => return Err(fault.to_string()),
        }
    }
}

async fn read_datagrams(shared: &Shared, link: u64, from: SiteId, connection: &Connection) -> Ended {
    while let Ok(bytes) = connection.read_datagram().await {
        if bytes.len() > MAX_DATAGRAM {
            return Err(format!("sent a datagram of {} bytes, above the limit of {MAX_DATAGRAM}", bytes.len()));
        }
        if shared.events.send(NetEvent::Datagram { link, from, bytes }).await.is_err() {
            break;
        }
    }
    Ok(())
}

async fn accept_streams(shared: &Shared, link: u64, from: SiteId, connection: &Connection) -> Ended {
    loop {
        tokio::select! {
            stream = connection.accept_bi() => {
                let Ok((send, recv)) = stream else { return Ok(()) };
                let serving = Serving { link, from, serve: shared.draw() };
                tokio::spawn(serve_stream(shared.events.clone(), serving, send, recv));
            }
            stream = connection.accept_uni() => {
                return stream.map_or(Ok(()), |_| Err("opened a second control stream".into()));
            }
        }
    }
}

async fn write_control(
    shared: &Shared,
    link: u64,
    site: SiteId,
    mut send: SendStream,
    mut queue: mpsc::UnboundedReceiver<(u32, Bytes)>,
    state: &QueueState,
) -> Ended {
    let mut batch = Vec::with_capacity(SEND_BATCH);
    let mut chunks = Vec::with_capacity(2 * SEND_BATCH);
    while queue.recv_many(&mut batch, SEND_BATCH).await > 0 {
        let mut written = 0;
        for (flag, bytes) in batch.drain(..) {
            written += bytes.len();
            let word = u32::from_le_bytes(length(bytes.len())) | flag;
            chunks.push(Bytes::copy_from_slice(&word.to_le_bytes()));
            chunks.push(bytes);
        }
        if send.write_all_chunks(&mut chunks).await.is_err() {
            return Ok(());
        }
        chunks.clear();
        let left = state.bytes.fetch_sub(written, Ordering::AcqRel).saturating_sub(written);
        if left < PEER_QUEUE_LOW && state.congested.swap(false, Ordering::AcqRel) {
            let _ = shared.events.send(NetEvent::Relieved { link, site }).await;
        }
    }
    // The driver dropped its link without closing: whoever does that is done with the connection.
    let _ = send.finish();
    Ok(())
}
