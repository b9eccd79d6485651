//! What the core tells for logs and metrics, and why it closes connections.

use crate::api::PullKey;
use starling_crdt::{Dot, Origin, SiteId};
use std::fmt;
use std::net::SocketAddr;

/// Why a connection is closed by the core.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HangupReason {
    /// The peer sent what the protocol does not allow; the text names it.
    Violation(String),
    /// Another protocol version.
    Version(u8),
    /// Another cluster.
    Cluster,
    /// It says it is another site than its certificate.
    Site,
    /// Its certificate bears our own site id.
    OwnSite,
    /// No hello in time.
    NoHello,
    /// Too many connections.
    Full,
    /// This node leaves.
    Leaving,
}

impl fmt::Display for HangupReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Violation(what) => write!(f, "protocol violation: {what}"),
            Self::Version(v) => {
                write!(f, "protocol version {v} is not spoken here (this is {})", crate::limits::PROTOCOL_VERSION)
            }
            Self::Cluster => f.write_str("belongs to another cluster"),
            Self::Site => f.write_str("says another site id than its certificate"),
            Self::OwnSite => f.write_str("bears the site id of the node it talks to"),
            Self::NoHello => f.write_str("said no hello in time"),
            Self::Full => f.write_str("no room for another connection"),
            Self::Leaving => f.write_str("the node is leaving the cluster"),
        }
    }
}

impl HangupReason {
    /// The QUIC application error code that names this reason on the wire.
    #[must_use]
    pub const fn code(&self) -> u32 {
        match self {
            Self::Leaving => 0,
            Self::Violation(_) => 1,
            Self::Version(_) => 2,
            Self::Cluster => 3,
            Self::Site => 4,
            Self::OwnSite => 5,
            Self::NoHello => 6,
            Self::Full => 7,
        }
    }
}

/// Counters since the start, for metrics.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Counters {
    /// Frames sent.
    pub frames_out: u64,
    /// Frames received.
    pub frames_in: u64,
    /// Frames refused (each ends a connection).
    pub frames_refused: u64,
    /// Datagrams sent.
    pub datagrams_out: u64,
    /// Datagrams received that SWIM could not use.
    pub datagrams_refused: u64,
    /// Pushes sent, forwarded ones included.
    pub pushes_out: u64,
    /// Pushes received.
    pub pushes_in: u64,
    /// Pushes received that were held or under way already.
    pub pushes_duplicate: u64,
    /// Pushes dropped because the store was behind; they are pulled later.
    pub pushes_dropped: u64,
    /// Grafts sent.
    pub grafts_out: u64,
    /// Prunes sent.
    pub prunes_out: u64,
    /// Pulls begun.
    pub pulls: u64,
    /// Pulls that ended without a claim.
    pub pulls_failed: u64,
    /// Answers given.
    pub serves: u64,
    /// Requests refused because too many answers were being given.
    pub serves_refused: u64,
    /// Changesets whose merge failed.
    pub merges_failed: u64,
}

/// Things worth a line in a log.
#[derive(Clone, PartialEq, Eq, Debug)]
#[allow(missing_docs, reason = "the fields repeat their types")]
pub enum Event {
    /// A member is seen alive for the first time, or again.
    MemberUp { site: SiteId, addr: SocketAddr },
    /// A member did not answer a probe and may refute.
    MemberSuspect { site: SiteId, addr: SocketAddr },
    /// A member left or is taken to be dead.
    MemberDown { site: SiteId, addr: SocketAddr },
    /// A member restarted or moved.
    MemberRenewed { site: SiteId, from: SocketAddr, to: SocketAddr },
    /// The cluster took this node for dead; it is back under a new incarnation.
    Rejoined { incarnation: u64 },
    /// No other member is reachable.
    Alone,
    /// The hellos of a connection are exchanged.
    PeerReady { peer: SiteId, addr: SocketAddr },
    /// A connection ended.
    PeerGone { peer: SiteId, why: String },
    /// The core closed a connection.
    Refused { peer: SiteId, reason: HangupReason },
    /// An address could not be dialled; told at the first failure in a row only.
    DialFailed { addr: SocketAddr, why: String },
    /// Something with our own site id answers at this address. When it is not this node's own address, a copy of the database
    /// is running there.
    OwnSiteSeen { addr: SocketAddr },
    /// A newer process under our site id is taken to be alive at another address. After a move with the clock set back that is this
    /// site's own past; told again and again it is a copy of the database.
    Clone { addr: SocketAddr, incarnation: u64 },
    /// The address that this node tells others changed.
    Advertised { addr: SocketAddr },
    /// A pull has begun.
    PullStarted { pull: PullKey, from: SiteId },
    /// A pull is claimed.
    PullDone { pull: PullKey, from: SiteId, changesets: u64, changes: u64 },
    /// A pull ended without a claim; it is tried again.
    PullFailed { pull: PullKey, from: SiteId, why: String },
    /// A changeset could not be merged.
    MergeFailed { dot: Dot, why: String },
    /// One dot was used for two transactions. Told once; not where only the site whose dot it is can know.
    Fork { peer: SiteId, own: bool, origin: Origin, version: u64 },
    /// Peers hold commits of this site that it has lost itself.
    LostCommits { peer: SiteId, origin: Origin, held: u64, known: u64 },
    /// Pushes were dropped, the store is behind; told at the first in a row only.
    StoreBehind { unmerged_bytes: usize },
    /// The driver came late; failure detection allowed for it.
    Overslept { late_us: u64 },
    /// The others are told, the node may stop.
    Left,
}
