//! What a node tells of itself: its members, and what it holds and misses.

use starling_crdt::{Origin, RangeSet, SiteId};
use std::fmt;
use std::net::SocketAddr;

/// How SWIM sees a member.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MemberState {
    /// Answers.
    Alive,
    /// Did not answer a probe, may refute.
    Suspect,
    /// Left, or did not refute.
    Down,
}

impl fmt::Display for MemberState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Alive => "alive",
            Self::Suspect => "suspect",
            Self::Down => "down",
        })
    }
}

/// A member of the cluster other than this node.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Member {
    /// Its site.
    pub site: SiteId,
    /// Where it is dialled.
    pub addr: SocketAddr,
    /// Its boot incarnation.
    pub incarnation: u64,
    /// Its state.
    pub state: MemberState,
    /// Whether a connection to it stands and both hellos are said.
    pub connected: bool,
    /// Whether it is a tree neighbour.
    pub link: bool,
    /// The connection's round-trip time in microseconds, when known.
    pub rtt_us: Option<u64>,
}

/// What this node holds and misses of one origin.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct OriginStatus {
    /// The origin.
    pub origin: Origin,
    /// Versions claimed here (holes that the origin never used count as held).
    pub held: RangeSet,
    /// Versions that some peer was seen to claim since the start, and that are not claimed here.
    pub missing: RangeSet,
    /// For how long something has been missing without interruption, in microseconds; 0 if nothing is.
    pub missing_for_us: u64,
    /// Dots of which parts are held without a claim.
    pub carried: u64,
    /// Commit time (milliseconds since 1970, the origin's clock) of the newest changeset held that passed through here; 0 = none
    /// yet since the start.
    pub newest_commit_ms: u64,
}
