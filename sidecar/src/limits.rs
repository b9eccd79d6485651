//! Every cap of the sidecar, with its reason. What a peer may send is capped in `starling_proto::limits`.

use std::time::Duration;

/// A local transaction up to this size is pushed at once; a larger one is announced and pulled by sync.
pub const MAX_PUSH_BYTES: usize = starling_proto::limits::MAX_PUSH;

/// Local transactions handed to the core at once: one lock of its attention, at most a few megabytes.
pub const LOCAL_BATCH: usize = 256;

/// Bytes of local transactions handed to the core at once.
pub const LOCAL_BATCH_BYTES: usize = 4 * 1024 * 1024;

/// A changeset's parts are held in memory up to this size, beyond they go to a temporary file until the last is there.
pub const ASSEMBLY_MEMORY: usize = 8 * 1024 * 1024;

/// Bytes of one answer that may wait in memory for the store. Twice [`ASSEMBLY_MEMORY`]: an assembly that is about to spill
/// and one message more always fit, so a reader never waits for what only its own next message could release.
pub const PULL_WINDOW: usize = 2 * ASSEMBLY_MEMORY;

/// Answers up to this size are applied, claim included, in one transaction: readers see no state between.
pub const SMALL_ANSWER: usize = 256 * 1024;

/// Bytes of control frames read and not yet handled by the driver, all peers together.
pub const FRAME_WINDOW: usize = 32 * 1024 * 1024;

/// Events that wait for the driver; the network's readers wait beyond.
pub const DRIVER_QUEUE: usize = 1024;

/// Commands that wait for the writer. The core bounds pushes by its own caps and answers are bounded by their window, so
/// this is only reached by a fault.
pub const WRITER_QUEUE: usize = 1 << 16;

/// Jobs that wait for a reader thread.
pub const READER_QUEUE: usize = 256;

/// Threads that serve answers. Each holds a read snapshot, which keeps the WAL from being reused.
pub const SERVE_THREADS: usize = 2;

/// Messages of an answer between the thread that reads the database and the stream.
pub const SERVE_QUEUE: usize = 4;

/// An answer whose requester takes nothing for this long is ended: its snapshot grows the WAL.
pub const SERVE_STALL: Duration = Duration::from_secs(30);

/// The send queue of a peer above which it counts as congested, and below which it no longer does.
pub const PEER_QUEUE_HIGH: usize = 4 * 1024 * 1024;
/// See [`PEER_QUEUE_HIGH`].
pub const PEER_QUEUE_LOW: usize = 1024 * 1024;
/// A peer whose send queue grows beyond this is cut off; it compares vectors when it is back.
pub const PEER_QUEUE_MAX: usize = 32 * 1024 * 1024;

/// Handshakes under way from others; beyond this address validation is asked for, and at twice this they are refused.
pub const MAX_HANDSHAKES: usize = 32;

/// A handshake, with the exchange of control streams, must be over within.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(8);

/// A requester must send its request within.
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// Sync streams that a peer may have open towards this node.
pub const MAX_PEER_STREAMS: u32 = 8;

/// The write lock is held this long by merges, unless one changeset alone takes longer (an application waits meanwhile).
pub const WRITE_HOLD: Duration = Duration::from_millis(5);

/// Merge commits in a row, and then per second, while an application writes here: every commit makes a read transaction that
/// wants to write later fail with SQLITE_BUSY_SNAPSHOT.
pub const MERGE_BURST: u32 = 64;
/// See [`MERGE_BURST`].
pub const MERGES_PER_SECOND: u32 = 250;

/// For this long after a local commit an application counts as writing.
pub const LOCAL_ACTIVITY: Duration = Duration::from_secs(1);

/// The WAL is checkpointed once it has grown by this much.
pub const CHECKPOINT_BYTES: u64 = 4 * 1024 * 1024;

/// The slow poll of the watch, for whatever gives no file event.
pub const SLOW_POLL: Duration = Duration::from_millis(500);

/// After a file event, the version counter is looked at with these delays at first and at last.
pub const RECHECK_FIRST: Duration = Duration::from_micros(50);
/// See [`RECHECK_FIRST`].
pub const RECHECK_LAST: Duration = Duration::from_millis(20);
/// After the last file event, for this long.
pub const RECHECK_WINDOW: Duration = Duration::from_millis(100);

/// Under a stream of commits the log is read at most this often, several transactions at once; the first ones of a stream
/// are read without delay.
pub const READ_PACE: Duration = Duration::from_millis(1);
/// Commits in a row, each within twice the pace of the one before, that make a stream.
pub const STREAM_AFTER: u32 = 8;

/// Body of an HTTP request.
pub const MAX_BODY: usize = 8 * 1024 * 1024;
/// The body must be there within: whoever dawdles keeps one of [`MAX_REQUESTS`] from others.
pub const BODY_TIMEOUT: Duration = Duration::from_secs(20);
/// The head of an HTTP request must be there within; so must the next one's on a connection that is kept open.
pub const HEADER_TIMEOUT: Duration = Duration::from_secs(15);
/// HTTP connections at once; more wait to be accepted.
pub const MAX_CONNECTIONS: usize = 512;
/// Cells of an HTTP answer, as bytes in memory.
pub const MAX_RESULT_BYTES: usize = 64 * 1024 * 1024;
/// Larger HTTP answers that their clients have not read yet, all together; where there is no room for one, 503 is answered.
pub const MAX_UNREAD: usize = 256 * 1024 * 1024;
/// A client that takes nothing of its answer for so long is cut off.
pub const READ_TIMEOUT: Duration = Duration::from_secs(30);
/// SQLite's cap on a string, blob or row in HTTP statements.
pub const MAX_SQL_VALUE: i32 = 64 * 1024 * 1024;
/// What SQLite may take in this process, all connections together: a statement over HTTP that asks for more fails, as does a
/// merge, which is tried again. The largest row that can travel needs less than half of it.
pub const SQLITE_MEMORY: i64 = 2 * 1024 * 1024 * 1024;
/// HTTP requests at once; more are answered 503.
pub const MAX_REQUESTS: usize = 128;
/// Connections for HTTP statements.
pub const API_THREADS: usize = 4;
/// A statement over HTTP is cut off after this.
pub const STATEMENT_TIMEOUT: Duration = Duration::from_secs(30);
/// An HTTP statement waits this long for a lock that another process holds.
pub const API_BUSY: Duration = Duration::from_secs(10);

/// Requests on the status socket are one short line.
pub const MAX_ADMIN_LINE: usize = 4096;
/// Status requests at once.
pub const MAX_ADMIN: usize = 16;

/// From the signal to the end of the process, whatever hangs.
pub const SHUTDOWN: Duration = Duration::from_millis(4500);
