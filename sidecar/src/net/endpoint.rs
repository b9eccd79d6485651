//! The endpoint: the UDP socket, dialling and accepting.

use super::connection::{establish, Shared};
use super::refusals::{explain, Quieter};
use super::tls::{Identity, SERVER_NAME};
use super::{close_code, NetEvent};
use crate::limits::{HANDSHAKE_TIMEOUT, MAX_HANDSHAKES};
use quinn::{EndpointConfig, Incoming, TokioRuntime, VarInt};
use socket2::{Domain, Protocol, Socket, Type};
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, Semaphore};

/// Room for bursts in the kernel; more would only hide a node that does not keep up.
const SOCKET_BUFFER: usize = 2 * 1024 * 1024;
/// At the end, this long is waited for the peers to hear of it.
const CLOSE_TIMEOUT: Duration = Duration::from_millis(500);

/// What an endpoint needs.
#[derive(Debug)]
pub struct NetConfig {
    /// The socket, from [`bind`].
    pub socket: UdpSocket,
    /// Certificates.
    pub identity: Identity,
    /// Where events go.
    pub events: mpsc::Sender<NetEvent>,
}

/// The QUIC endpoint of this node.
#[derive(Debug)]
pub struct Endpoint {
    endpoint: quinn::Endpoint,
    shared: Shared,
    quieter: Arc<Mutex<Quieter>>,
    accepting: tokio::task::AbortHandle,
}

/// Binds the UDP socket; `[::]` serves IPv4 too, and falls back to `0.0.0.0` where there is no IPv6.
///
/// # Errors
/// When the address cannot be bound.
pub fn bind(addr: SocketAddr) -> io::Result<UdpSocket> {
    match bind_one(addr) {
        Err(e) if addr.is_ipv6() && addr.ip().is_unspecified() && e.kind() != io::ErrorKind::AddrInUse => {
            tracing::info!(reason = %e, "no IPv6 here, listening on IPv4 only");
            bind_one(SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), addr.port()))
        }
        bound => bound,
    }
}

fn bind_one(addr: SocketAddr) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(addr), Type::DGRAM, Some(Protocol::UDP))?;
    if addr.is_ipv6() && addr.ip().is_unspecified() {
        socket.set_only_v6(false)?;
    }
    // The kernel caps these at its own limits; less is only slower.
    let _ = socket.set_recv_buffer_size(SOCKET_BUFFER);
    let _ = socket.set_send_buffer_size(SOCKET_BUFFER);
    socket.set_nonblocking(true)?;
    socket.bind(&addr.into())?;
    Ok(socket.into())
}

impl Endpoint {
    /// Starts accepting. To be called within a tokio runtime.
    ///
    /// # Errors
    /// When the socket cannot be used.
    pub fn start(config: NetConfig) -> io::Result<Self> {
        let NetConfig { socket, identity, events } = config;
        let runtime = Arc::new(TokioRuntime);
        let mut endpoint = quinn::Endpoint::new(EndpointConfig::default(), Some(identity.server), socket, runtime)?;
        endpoint.set_default_client_config(identity.client);
        let shared = Shared::new(events);
        let quieter = Arc::new(Mutex::new(Quieter::default()));
        let accepting = tokio::spawn(accept(endpoint.clone(), shared.clone(), Arc::clone(&quieter))).abort_handle();
        Ok(Self { endpoint, shared, quieter, accepting })
    }

    /// Connects to an address; `Up` or `DialFailed` follows.
    pub fn dial(&self, addr: SocketAddr) {
        let (endpoint, shared, quieter) = (self.endpoint.clone(), self.shared.clone(), Arc::clone(&self.quieter));
        tokio::spawn(async move {
            let dialled = async {
                let connection = endpoint.connect(addr, SERVER_NAME).map_err(|e| e.to_string())?;
                let connection = connection.await.map_err(|e| explain(&e))?;
                establish(&shared, connection, Some(addr)).await
            };
            let established = match tokio::time::timeout(HANDSHAKE_TIMEOUT, dialled).await {
                Ok(established) => established,
                Err(_) => Err("no answer in time".into()),
            };
            match established {
                Ok(established) => established.run(shared).await,
                Err(why) => {
                    if why.contains("refused") {
                        log_refusal(&quieter, addr, &why, "dialling");
                    }
                    let _ = shared.events.send(NetEvent::DialFailed { addr, why }).await;
                }
            }
        });
    }

    /// The address it is bound to.
    ///
    /// # Errors
    /// When the system does not tell.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.endpoint.local_addr()
    }

    /// Closes all connections and waits a little for the peers to hear of it.
    pub async fn close(self, reason: &str) {
        self.accepting.abort();
        self.endpoint.close(VarInt::from_u32(close_code::SHUTDOWN), reason.as_bytes());
        let _ = tokio::time::timeout(CLOSE_TIMEOUT, self.endpoint.wait_idle()).await;
    }
}

async fn accept(endpoint: quinn::Endpoint, shared: Shared, quieter: Arc<Mutex<Quieter>>) {
    let handshakes = Arc::new(Semaphore::new(2 * MAX_HANDSHAKES));
    while let Some(incoming) = endpoint.accept().await {
        let Ok(slot) = Arc::clone(&handshakes).try_acquire_owned() else {
            incoming.refuse();
            continue;
        };
        if handshakes.available_permits() < MAX_HANDSHAKES
            && incoming.may_retry()
            && !incoming.remote_address_validated()
        {
            let _ = incoming.retry();
            continue;
        }
        let (shared, quieter) = (shared.clone(), Arc::clone(&quieter));
        tokio::spawn(async move {
            let addr = incoming.remote_address();
            let established = tokio::time::timeout(HANDSHAKE_TIMEOUT, handshake(&shared, incoming)).await;
            drop(slot);
            match established {
                Ok(Ok(established)) => established.run(shared).await,
                Ok(Err(why)) => log_refusal(&quieter, addr, &why, "accepting"),
                Err(_) => log_refusal(&quieter, addr, "the handshake was not finished in time", "accepting"),
            }
        });
    }
}

async fn handshake(shared: &Shared, incoming: Incoming) -> Result<super::connection::Established, String> {
    let connecting = incoming.accept().map_err(|e| explain(&e))?;
    let connection = connecting.await.map_err(|e| explain(&e))?;
    establish(shared, connection, None).await
}

fn log_refusal(quieter: &Mutex<Quieter>, addr: SocketAddr, why: &str, side: &'static str) {
    let allowed = quieter.lock().unwrap_or_else(PoisonError::into_inner).allow(addr, Instant::now());
    if let Some(left_out) = allowed {
        let addr = SocketAddr::new(addr.ip().to_canonical(), addr.port());
        tracing::warn!(%addr, side, reason = why, left_out, "connection refused");
    }
}

#[cfg(test)]
mod tests;
