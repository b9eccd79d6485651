//! The public face of the core: what goes in ([`Input`]), what comes out ([`Output`]), what is told ([`Event`]).
//!
//! Rules for whoever drives a [`crate::Node`]:
//! - after every `handle` and `handle_timeout` drain `poll_output` until it gives `None`, in order;
//! - call `handle_timeout` at or after `next_deadline`; a spurious call is harmless, a late one is noticed and allowed for;
//! - outputs that name a peer, pull or serve that has gone meanwhile are ignored by the edge, and inputs that name one
//!   that the core no longer knows are ignored by the core: both happen in every race and mean nothing.

pub use crate::event::{Counters, Event, HangupReason};
pub use crate::status::{Member, MemberState, OriginStatus};
use bytes::Bytes;
use starling_crdt::changeset::{DotHeader, Header};
use starling_crdt::{Dot, Origin, SiteId, Vector};
use std::net::SocketAddr;

/// A moment, in microseconds of a monotonic clock whose zero is the driver's choice.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default, Hash)]
pub struct Now(pub u64);

impl Now {
    /// The moment `micros` later (saturating).
    #[must_use]
    pub const fn after(self, micros: u64) -> Self {
        Self(self.0.saturating_add(micros))
    }

    /// Microseconds since `earlier`, 0 if that is later.
    #[must_use]
    pub const fn since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

/// One pull: an answer that this node asked for. Drawn by the core, unique for the life of the [`crate::Node`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
pub struct PullKey(pub u64);

/// One answer that this node gives. Drawn by the edge, unique for the life of the [`crate::Node`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
pub struct ServeKey(pub u64);

/// What a node is and how fast its clocks tick.
#[derive(Clone, Debug)]
pub struct NodeConfig {
    /// The cluster; peers of another one are refused.
    pub cluster_id: [u8; 16],
    /// This replica.
    pub site_id: SiteId,
    /// Boot time in milliseconds since 1970: of two processes with one site id the higher is the newer.
    pub incarnation: u64,
    /// Where others dial this node. With an unspecified IP (`0.0.0.0`, `::`) the core takes the IP under which the first
    /// peer sees it, until [`Input::Advertise`] says better.
    pub advertise: SocketAddr,
    /// Seed of all randomness in the core.
    pub seed: u64,
    /// The timers.
    pub timing: Timing,
}

/// Every duration of the protocol, in microseconds. Tests and production use the same defaults.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// SWIM: a random member is probed this often.
    pub probe_interval_us: u64,
    /// SWIM: a probe unanswered this long is repeated through others.
    pub probe_rtt_us: u64,
    /// SWIM: a suspect has this long to refute in a small cluster; grows with the logarithm of the size.
    pub suspicion_us: u64,
    /// SWIM: updates not yet spread are gossiped this often.
    pub gossip_interval_us: u64,
    /// A random peer is sent a digest this often (jittered by a quarter).
    pub sync_interval_us: u64,
    /// A missing predecessor has this long to arrive by itself before it is pulled.
    pub gap_delay_us: u64,
    /// Differences found by the periodic digest have this long to arrive by the tree before they are pulled.
    pub settle_delay_us: u64,
    /// Announcements to lazy neighbours are collected this long.
    pub ihave_delay_us: u64,
    /// An announced changeset has this long to arrive by the tree before it is asked for.
    pub graft_delay_us: u64,
    /// Then the next announcer is asked this much later.
    pub graft_retry_us: u64,
    /// A pull without progress is given up.
    pub pull_stall_us: u64,
    /// First and last delay between dials of one address that does not answer (doubling, jittered).
    pub dial_backoff_us: (u64, u64),
    /// Seeds' names are resolved anew at this interval while no member is known (back-off: first, last).
    pub seed_backoff_us: (u64, u64),
    /// Seeds' names are resolved anew at this interval otherwise, to find a part of the cluster that was never met.
    pub seed_interval_us: u64,
    /// Tree links and, in a full mesh, missing connections are looked after this often.
    pub link_interval_us: u64,
    /// A dial that was never answered is forgotten.
    pub dial_timeout_us: u64,
    /// A peer that connects must say hello within.
    pub hello_timeout_us: u64,
    /// A pull without progress no longer keeps others from pulling the same.
    pub pull_patience_us: u64,
    /// First and last delay after a failed pull from one peer.
    pub pull_backoff_us: (u64, u64),
    /// Changesets stay in the graft cache this long.
    pub cache_age_us: u64,
    /// In a cluster too large for a full mesh, one tree link is exchanged this often.
    pub shuffle_interval_us: u64,
    /// A deadline missed by more than this stretches the failure detector's pending timers by what was overslept.
    pub oversleep_us: u64,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            probe_interval_us: 1_000_000,
            probe_rtt_us: 400_000,
            suspicion_us: 4_000_000,
            gossip_interval_us: 200_000,
            sync_interval_us: 2_000_000,
            gap_delay_us: 20_000,
            settle_delay_us: 250_000,
            ihave_delay_us: 10_000,
            graft_delay_us: 100_000,
            graft_retry_us: 200_000,
            pull_stall_us: 20_000_000,
            pull_patience_us: 2_000_000,
            dial_backoff_us: (200_000, 5_000_000),
            seed_backoff_us: (250_000, 2_000_000),
            seed_interval_us: 30_000_000,
            link_interval_us: 1_000_000,
            dial_timeout_us: 10_000_000,
            hello_timeout_us: 10_000_000,
            pull_backoff_us: (250_000, 30_000_000),
            cache_age_us: 30_000_000,
            shuffle_interval_us: 30_000_000,
            oversleep_us: 500_000,
        }
    }
}

/// A changeset with all its parts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Changeset {
    /// The header of the first part.
    pub header: Header,
    /// All parts in order; together at most [`crate::limits::MAX_PUSH`] bytes and
    /// [`crate::limits::MAX_PUSH_PARTS`] parts. What is larger goes in as [`Input::LocalTooLarge`].
    pub parts: Vec<Bytes>,
}

/// Where the bytes of a merge come from. One source's merges arrive in order, a changeset's parts together.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
pub enum Source {
    /// A push from this peer. All parts of a changeset follow each other without any other `Merge` between.
    Push {
        /// The sender.
        from: SiteId,
    },
    /// An answer that this node pulls. Merges of other sources may come between two parts of a changeset.
    Sync {
        /// The pull.
        pull: PullKey,
    },
}

/// What the edge tells the core.
#[derive(Clone, Debug)]
pub enum Input {
    /// The store is open and claims this. Again after the store was reopened on another state of the file: the core then
    /// forgets what it believed to hold. Until the first one pushes are ignored and no session runs.
    Started {
        /// `starling_vector()`.
        vector: Vector,
    },
    /// Another address under which others reach this node is known (a flag, or the local address of a connection).
    Advertise(SocketAddr),
    /// The seeds' addresses, the answer to [`Output::ResolveSeeds`]; may come unasked; empty when none resolved.
    Join {
        /// All addresses of all seeds.
        addrs: Vec<SocketAddr>,
    },
    /// A connection stands, its peer's certificate is verified. Again for a peer that is up: its connection was replaced,
    /// the control streams of the old one are gone.
    PeerUp {
        /// The peer, by its certificate.
        peer: SiteId,
        /// The remote socket address.
        addr: SocketAddr,
        /// The address of the `Dial` that made it, `None` if the peer dialled.
        dialed: Option<SocketAddr>,
    },
    /// The connection is gone. Not to be sent for a connection that a `PeerUp` replaced.
    PeerDown {
        /// The peer.
        peer: SiteId,
        /// For the log.
        why: String,
    },
    /// A `Dial` made no connection.
    DialFailed {
        /// The address of the `Dial`.
        addr: SocketAddr,
        /// For the log.
        why: String,
    },
    /// A `Dial` reached a site to which a connection stood already; the new one was closed again. Better than `DialFailed` in that
    /// case: the address is then known to be that site's and is not dialled over and over.
    DialRedundant {
        /// The address of the `Dial`.
        addr: SocketAddr,
        /// Who answered there.
        peer: SiteId,
    },
    /// The round-trip time of a connection as the transport measures it. Optional, as often as is cheap.
    Rtt {
        /// The peer.
        peer: SiteId,
        /// Microseconds.
        rtt_us: u64,
    },
    /// The send queue to a peer is above (true) or again below (false) the edge's mark. While it is above, changesets are
    /// not pushed to that peer; it is told to compare vectors afterwards.
    Congested {
        /// The peer.
        peer: SiteId,
        /// Above the mark.
        congested: bool,
    },
    /// An unreliable datagram (SWIM), at most [`crate::limits::MAX_DATAGRAM`] bytes.
    Datagram {
        /// The peer whose connection it came by.
        from: SiteId,
        /// Its bytes.
        bytes: Bytes,
    },
    /// One frame of the peer's ordered control stream, without its length prefix, at most
    /// [`crate::limits::MAX_FRAME`] bytes (the edge closes the connection on a longer one unread).
    Frame {
        /// The peer.
        from: SiteId,
        /// Its bytes.
        bytes: Bytes,
    },
    /// A peer opened a bidirectional stream; its first message, at most [`crate::limits::MAX_SYNC_REQUEST`] bytes. Answered by
    /// [`Output::ServeSync`] or [`Output::RefuseSync`].
    SyncRequested {
        /// The peer.
        from: SiteId,
        /// The edge's name for the stream.
        serve: ServeKey,
        /// The message.
        bytes: Bytes,
    },
    /// An answer that this node gives has ended: all sent, or broken off. Exactly one for each `ServeSync`.
    ServeEnded {
        /// The stream.
        serve: ServeKey,
        /// Whether the DONE was sent.
        completed: bool,
    },
    /// One message of the answer to our request, at most [`crate::limits::MAX_SYNC_MESSAGE`] bytes.
    SyncAnswer {
        /// The pull.
        pull: PullKey,
        /// The message.
        bytes: Bytes,
    },
    /// The answer's stream is at its end. Sent once per `OpenSync` that was not cancelled; also when the stream could not be
    /// opened.
    SyncEnded {
        /// The pull.
        pull: PullKey,
        /// `Err` for anything but the peer's orderly end of stream.
        result: Result<(), String>,
    },
    /// Transactions committed here, in order. Their vector claims are taken from their headers. An empty list is harmless.
    LocalChangesets(Vec<Changeset>),
    /// A local transaction that is larger than a push may be: it is announced, peers pull it at once.
    LocalTooLarge {
        /// Its first part's header.
        header: Header,
    },
    /// The store has merged all parts of one changeset and committed. One `Merged` or `MergeFailed` for each changeset whose
    /// last part was handed over.
    Merged {
        /// The source given with its parts.
        source: Source,
        /// The changeset's dot.
        dot: Dot,
        /// Whether the store now claims it.
        claimed: bool,
        /// How many changes it applied.
        changes: u64,
    },
    /// The store gave a changeset up, nothing of it is merged. For a `Sync` source the store must then also answer the
    /// pull's `FinishSync` with `SyncFailed`.
    MergeFailed {
        /// The source given with its parts.
        source: Source,
        /// The changeset's dot and its predecessor.
        header: DotHeader,
        /// For the log.
        why: String,
    },
    /// All merges of the pull are committed and the `FinishSync` vector is claimed.
    SyncApplied {
        /// The pull.
        pull: PullKey,
    },
    /// The pull's vector was not claimed.
    SyncFailed {
        /// The pull.
        pull: PullKey,
        /// For the log.
        why: String,
    },
    /// The store's vector: with the ticket of the [`Output::ReadVector`] it answers, read after that output; or unasked
    /// (`None`) after changes that no other input tells of.
    Vector {
        /// Which question it answers.
        ticket: Option<u64>,
        /// `starling_vector()`.
        vector: Vector,
    },
    /// `starling_forks` of an [`Output::CheckVector`] found dots that were used twice. (Nothing is sent when it found none.)
    ForkDetected {
        /// The peer whose vector contradicts ours.
        peer: SiteId,
        /// That vector.
        theirs: Vector,
        /// What `starling_forks` said.
        ours: Vector,
    },
    /// The node is to stop soon: ask the peers what they hold, for [`crate::Node::held_by`]. To be said again until that is content.
    Leaving,
    /// The node is about to stop: tell the others (see [`Output::Hangup`]). Afterwards only outputs are drained, every other input is ignored.
    Leave,
}

/// Who holds everything that this site has committed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum HeldBy {
    /// All peers that are connected, or there are none and none is about to be.
    All,
    /// At least one.
    Some,
    /// As far as is known, nobody.
    Nobody,
}

/// What the core wants done.
#[derive(Clone, Debug)]
pub enum Output {
    /// Resolve the seeds' names again and answer with [`Input::Join`] (an empty list when there are none).
    ResolveSeeds,
    /// Connect to `addr`; answered by `PeerUp{dialed: Some(addr)}`, `DialFailed`, or `DialRedundant`.
    Dial {
        /// The address.
        addr: SocketAddr,
        /// The site expected there; another one there is fine.
        site: Option<SiteId>,
    },
    /// Close the connection. No `PeerDown` is needed for it, one is harmless. With [`HangupReason::Leaving`] let what was sent
    /// before go out first: a tenth of a second is enough, and it is not waited for longer.
    Hangup {
        /// The peer.
        peer: SiteId,
        /// To be sent as the close reason.
        reason: HangupReason,
    },
    /// Send an unreliable datagram to a connected peer.
    SendDatagram {
        /// The peer.
        to: SiteId,
        /// Its bytes, at most [`crate::limits::MAX_DATAGRAM`].
        bytes: Bytes,
    },
    /// Append one frame to the ordered control stream (the edge adds the length prefix).
    SendFrame {
        /// The peer.
        to: SiteId,
        /// Its bytes.
        bytes: Bytes,
    },
    /// Open a bidirectional stream, send `request` as its one message, finish the sending side, read the answer's messages.
    OpenSync {
        /// The peer.
        to: SiteId,
        /// The core's name for it.
        pull: PullKey,
        /// The message.
        request: Bytes,
    },
    /// Stop reading this answer and drop what is queued of it. The store drops an incomplete changeset of this source; what it
    /// has committed of it stays. No `SyncEnded`, `SyncApplied` or `SyncFailed` is needed afterwards.
    CancelSync {
        /// The pull.
        pull: PullKey,
    },
    /// Answer a request: from one read snapshot stream [`crate::frames::answer_part`] for every part of every dot that `have` does
    /// not claim, in log order, then [`crate::frames::answer_done`] with that snapshot's vector, and finish the stream. Then
    /// `ServeEnded`.
    ServeSync {
        /// The peer.
        to: SiteId,
        /// The stream.
        serve: ServeKey,
        /// What it claims.
        have: Vector,
    },
    /// Send this one message and finish the stream. No `ServeEnded`.
    RefuseSync {
        /// The stream.
        serve: ServeKey,
        /// [`crate::frames::answer_refused`].
        answer: Bytes,
    },
    /// Hand one part to the store. See [`Source`] for the order kept.
    Merge {
        /// Where it comes from.
        source: Source,
        /// The part's header, decoded.
        header: Header,
        /// The part.
        part: Bytes,
    },
    /// After the `Merge`s of this pull: claim the vector. Answered by `SyncApplied` or `SyncFailed`.
    FinishSync {
        /// The pull.
        pull: PullKey,
        /// What the answer's snapshot claimed.
        vector: Vector,
    },
    /// Read the store's vector and answer with this ticket. Never needs to be fast; reading it must start after this output.
    ReadVector {
        /// To be given back.
        ticket: u64,
    },
    /// Run `starling_forks` on a peer's vector; `ForkDetected` if it says anything.
    CheckVector {
        /// The peer.
        peer: SiteId,
        /// Its vector.
        vector: Vector,
    },
    /// This site has lost commits that others hold: `starling_new_epoch(epoch)` before anything else is read from the log. If
    /// that was still the present one, the node must begin anew, as after [`Output::Rehome`]: what is asked for from now on
    /// must name all that was written in the epoch that has ended.
    NewEpoch {
        /// The origin whose dots were lost.
        origin: Origin,
    },
    /// Run `starling_rehome` on this vector. If it re-homed anything, all that this node believes of its store is void: it must
    /// begin anew ([`crate::Node::new`]), and nothing that was on its way to the store may be merged or claimed any more.
    Rehome {
        /// What others hold.
        vector: Vector,
    },
    /// For logs and metrics.
    Event(Event),
}
