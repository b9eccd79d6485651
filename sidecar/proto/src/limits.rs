//! Every cap of the protocol, with its reason. Nothing that a peer sends makes the core hold more than these allow.

/// Protocol version in `Hello`. A peer with another one is refused by name, nothing is guessed.
pub const PROTOCOL_VERSION: u8 = 1;

/// A pushed changeset (all parts together). Larger ones are announced and pulled by a sync session, which has flow
/// control of its own, so that one large transaction does not hold up the small ones behind it.
pub const MAX_PUSH: usize = 4 * 1024 * 1024;

/// One frame of the control stream, without its length prefix: a push of [`MAX_PUSH`] and its head.
pub const MAX_FRAME: usize = MAX_PUSH + 64 * 1024;

/// Parts in one push: a push of [`MAX_PUSH`] holds 32 full parts, single large rows make fewer; the rest is slack.
pub const MAX_PUSH_PARTS: usize = 256;

/// A version vector inside a frame. Larger ones travel in a sync request, so that they do not delay the tree.
pub const MAX_VECTOR_FRAME: usize = 256 * 1024;

/// A sync request, which holds a version vector: about 400,000 origins.
pub const MAX_SYNC_REQUEST: usize = 16 * 1024 * 1024;

/// One message of a sync answer. A part is about 128 KiB, but one row always travels whole, however large it is; this
/// is what a node is ready to hold in memory of one row. The vector of a DONE is held to [`MAX_SYNC_REQUEST`].
pub const MAX_SYNC_MESSAGE: usize = 256 * 1024 * 1024;

/// A SWIM packet: the smallest datagram that a QUIC path of 1,200 bytes leaves room for, with margin.
pub const MAX_DATAGRAM: usize = 1_100;

/// Dots in one `IHave` or `Graft` frame (24 bytes of origin and a varint each: below 20 KiB).
pub const MAX_DOTS: usize = 512;

/// Text that a peer sends (reasons). It ends in logs.
pub const MAX_TEXT: usize = 256;

/// Connected peers. A cluster of 800 with all connections open fits; beyond, new ones are refused.
pub const MAX_PEERS: usize = 1_024;

/// Datagrams queued for a member while it is dialled: SWIM only gains by the latest.
pub const MAX_QUEUED_DATAGRAMS: usize = 4;

/// Members with datagrams queued while they are dialled.
pub const MAX_QUEUED_MEMBERS: usize = 64;

/// Dials under way at once. A handshake costs both ends milliseconds of processor time.
pub const MAX_DIALS: usize = 8;

/// Seed addresses (all seeds' names resolved). More is a configuration mistake; the surplus is ignored.
pub const MAX_SEEDS: usize = 64;

/// Addresses waiting to be dialled, and half of the addresses whose failures are remembered.
pub const MAX_DIAL_WISHES: usize = 256;

/// Clusters up to this many members (self included) are a full mesh: a local change goes to each of them directly.
pub const SMALL_CLUSTER: usize = 9;

/// Tree neighbours that a node of a larger cluster looks for.
pub const MIN_LINKS: usize = 5;

/// Above this many tree neighbours the periodic shuffle drops one.
pub const HIGH_LINKS: usize = 8;

/// Tree neighbours at most: each costs an announcement per change.
pub const MAX_LINKS: usize = 16;

/// Bytes of recent changesets kept to answer grafts. They only need to outlive the delay of a lazy announcement.
pub const MAX_CACHE_BYTES: usize = 8 * 1024 * 1024;

/// Dots announced to us, not yet held. Beyond, one sync session does the same more cheaply.
pub const MAX_WANTED: usize = 256;

/// Peers remembered per wanted dot, to be asked in turn.
pub const MAX_ANNOUNCERS: usize = 4;

/// Dots whose first sender is remembered, to prune the slower path and to forward nothing twice.
pub const MAX_RECENT: usize = 4_096;

/// Dots waiting to be announced to one lazy neighbour. Beyond, it is sent a digest instead.
pub const MAX_ANNOUNCE: usize = 2_048;

/// Bytes handed to the store by pushes and not yet merged. Beyond, pushes are dropped and pulled later: a store that
/// cannot keep up must not fill the memory.
pub const MAX_UNMERGED_BYTES: usize = 64 * 1024 * 1024;

/// Dots handed to the store by pushes and not yet merged.
pub const MAX_UNMERGED: usize = 16_384;

/// Answers that this node pulls at once.
pub const MAX_PULLS: usize = 2;

/// Answers that this node serves at once. Each holds a read snapshot open, which keeps the WAL from shrinking.
pub const MAX_SERVES: usize = 4;

/// Peers queued to be pulled from.
pub const MAX_WISHES: usize = 64;

/// Missing dots remembered per queued peer, to see whether they came by other ways meanwhile.
pub const MAX_WISH_DOTS: usize = 16;

/// Different contradictions that were told and answered with a new epoch.
pub const MAX_FORKS: usize = 64;

/// Origins of this site for which a new epoch was already drawn.
pub const MAX_RENEWED: usize = 1_024;
