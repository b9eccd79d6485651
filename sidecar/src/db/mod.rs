//! The database file: who may open it, how it is read, written and watched.
//!
//! SQLite connections live on threads of their own. One writes (merges), a few read (answers to peers), one watches for commits
//! by others. What they have to say goes to the driver as [`StoreEvent`]s. While any connection is open in this process, the
//! database, its `-wal` and its `-shm` are never opened by other means than SQLite: closing such a handle would drop SQLite's
//! locks.

pub mod check;
pub mod open;
pub mod reader;
pub mod register;
pub mod state;
pub mod watch;
pub mod writer;

use starling_crdt::changeset::{DotHeader, Header};
use starling_crdt::{Dot, SiteId, Vector};
use starling_proto::{Changeset, PullKey, ServeKey, Source};

/// What the threads of the database tell the driver.
#[derive(Debug)]
pub enum StoreEvent {
    /// Transactions committed here by applications, in order.
    Local(Vec<Changeset>),
    /// A local transaction that is not pushed: too large, or parts of it were overwritten already.
    Announce(Header),
    /// A changeset is merged and committed.
    Merged {
        /// Its source.
        source: Source,
        /// Its dot.
        dot: Dot,
        /// Whether the store claims it now.
        claimed: bool,
        /// Changes applied.
        changes: u64,
    },
    /// A changeset was given up, nothing of it is merged.
    MergeFailed {
        /// Its source.
        source: Source,
        /// Its dot's header.
        header: DotHeader,
        /// Why.
        why: String,
    },
    /// The vector of an answer is claimed, or not.
    Applied {
        /// The pull.
        pull: PullKey,
        /// `Err` says why not.
        result: Result<(), String>,
    },
    /// The store's vector, in answer to a question or because it changed by other ways.
    Vector {
        /// The question.
        ticket: Option<u64>,
        /// The vector.
        vector: Vector,
    },
    /// A peer's vector contradicts ours.
    Fork {
        /// The peer.
        peer: SiteId,
        /// Its vector.
        theirs: Vector,
        /// What is held here under the same numbers.
        ours: Vector,
    },
    /// An answer to a peer has ended.
    ServeEnded {
        /// The stream.
        serve: ServeKey,
        /// Whether all of it was sent.
        completed: bool,
    },
    /// A new epoch was to be drawn.
    NewEpoch {
        /// Whether it was; `false` if the present one is another already.
        drawn: bool,
    },
    /// What contradicted peers has a name of its own.
    Rehomed {
        /// How many origins were given up; 0 = nothing contradicts.
        origins: u64,
    },
    /// Something is kept aside, and applications wrote what may make it fit.
    MayMend,
    /// What was kept aside was tried again.
    Resumed {
        /// Changes applied.
        changes: u64,
    },
    /// The schema changed.
    SchemaChanged,
    /// The path leads to another database than the one that is open, or to an earlier state of it.
    FileChanged {
        /// What was seen.
        why: String,
    },
    /// Figures for `status`.
    Figures(Figures),
}

/// Figures of the database for `status`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Figures {
    /// `crsql_db_version()`.
    pub db_version: u64,
    /// Changes kept aside for tables or columns that are not there.
    pub aside: u64,
}
