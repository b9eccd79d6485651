//! QUIC: one endpoint, one connection per peer, on it a control stream each way, a bidirectional stream per sync session and
//! datagrams for SWIM.
//!
//! Whoever drives it gets [`NetEvent`]s and [`AnswerEvent`]s from two bounded channels and acts through [`Endpoint`] (dial),
//! [`Peers`] (who is connected) and [`Link`] (one connection), none of which ever blocks. Nothing here knows what the bytes
//! mean; a peer's site id comes from its verified certificate, never from what it says.

mod connection;
mod endpoint;
pub mod framing;
mod peers;
pub mod refusals;
mod sync;
pub mod tls;

pub use connection::{Link, SendOutcome};
pub use endpoint::{bind, Endpoint, NetConfig};
pub use peers::{Admitted, Peers};
pub use sync::AnswerSink;

use bytes::Bytes;
use starling_crdt::SiteId;
use std::net::{IpAddr, SocketAddr};
use tokio::sync::OwnedSemaphorePermit;

/// Close codes of the edge; the core's own reasons are below 16.
pub mod close_code {
    /// The node leaves the cluster; the core's own code for it.
    pub const LEAVING: u32 = 0;
    /// Another connection between the same two nodes is used.
    pub const DUPLICATE: u32 = 16;
    /// The peer takes frames more slowly than they arise; it compares vectors when it is back.
    pub const SLOW: u32 = 17;
    /// A length, stream or message that the protocol does not allow.
    pub const FRAMING: u32 = 18;
    /// The process ends.
    pub const SHUTDOWN: u32 = 19;
    /// The certificate is from the cluster but names no site.
    pub const IDENTITY: u32 = 20;
    /// A newer process runs with this node's site id.
    pub const SUPERSEDED: u32 = 21;
    /// An older process with this node's site id is alive: this one runs on a copy of its database.
    pub const CLONE: u32 = 22;
}

/// What happens on connections, in order for each connection: its `Up` first, its `Down` last.
#[derive(Debug)]
pub enum NetEvent {
    /// A connection stands and both ends have accepted it.
    Up {
        /// The connection.
        link: Link,
        /// The address that was dialled, `None` if the peer did.
        dialed: Option<SocketAddr>,
        /// The local address that it uses, where the system tells.
        local_ip: Option<IpAddr>,
    },
    /// A connection is gone.
    Down {
        /// Which.
        link: u64,
        /// The peer.
        site: SiteId,
        /// Why, for the log.
        why: String,
        /// The code with which the peer closed it.
        code: Option<u64>,
    },
    /// A dial made no connection.
    DialFailed {
        /// The address.
        addr: SocketAddr,
        /// Why.
        why: String,
    },
    /// The send queue has gone below the low mark.
    Relieved {
        /// Which connection.
        link: u64,
        /// The peer.
        site: SiteId,
    },
    /// A frame of the control stream.
    Frame {
        /// Which connection.
        link: u64,
        /// The peer.
        from: SiteId,
        /// The frame.
        bytes: Bytes,
        /// Its share of the window for frames that wait for the driver.
        window: OwnedSemaphorePermit,
    },
    /// A datagram.
    Datagram {
        /// Which connection.
        link: u64,
        /// The peer.
        from: SiteId,
        /// The datagram.
        bytes: Bytes,
    },
    /// A peer opened a sync stream.
    SyncRequested {
        /// Which connection.
        link: u64,
        /// The peer.
        from: SiteId,
        /// Names the stream, unique in this process.
        serve: u64,
        /// The request.
        bytes: Bytes,
        /// Where the answer goes; dropping it resets the stream.
        sink: AnswerSink,
    },
}

/// What comes of our own requests.
#[derive(Debug)]
pub enum AnswerEvent {
    /// A message of the answer.
    Message {
        /// The pull.
        pull: u64,
        /// The message.
        bytes: Bytes,
        /// Its share of the pull's window; to be kept until the store is done with the bytes.
        window: OwnedSemaphorePermit,
    },
    /// The stream is at its end.
    Ended {
        /// The pull.
        pull: u64,
        /// `Err` says what broke it off.
        result: Result<(), String>,
    },
}
