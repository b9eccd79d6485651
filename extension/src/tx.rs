//! What is known of the open write transaction besides its touches.

use crate::log::{OpenRecord, Tail};
use starling_crdt::log_chunk::{Kind, TableRef};

/// State of the open transaction; all of it is forgotten when it ends.
#[derive(Clone, Debug, Default)]
pub struct TxState {
    /// SQLite has called xBegin.
    pub active: bool,
    /// The catalogue was compared with the schema in this transaction.
    pub checked: bool,
    /// As `checked`, for merges.
    pub merge_checked: bool,
    /// The record of the local dot, once something was flushed under it.
    pub local: Option<OpenRecord>,
    /// The record of the foreign dot merged last, which further parts may continue.
    pub foreign: Option<OpenRecord>,
    /// The first version that this transaction has used.
    pub first_version: Option<u64>,
    /// What `crsql_next_db_version(n)` was asked to reach.
    pub requested: u64,
    /// Changes applied by merges.
    pub rows_impacted: i64,
    /// The newest log record.
    pub tail: Option<Tail>,
    /// Parts of a changeset seen so far in this transaction: (origin ordinal, version, next part).
    pub parts: Option<(u32, u64, u64)>,
    /// This connection has compared the boot id.
    pub boot_checked: bool,
    /// The file whose triggers are ours.
    pub file: u32,
    /// The table touched last and how many columns it has.
    pub last_table: Option<(u32, u64)>,
    /// A BEFORE trigger told that the row with this key stands in an insert's way.
    pub overwritten: Option<Vec<u8>>,
    /// Entries of nine-value inserts that wait to be logged under the local record.
    pub nine: Vec<NineEntry>,
    /// The clock block in memory.
    pub block: Option<crate::clock_store::OpenBlock>,
    /// A buffer to encode into.
    pub scratch: Vec<u8>,
    /// State at each open savepoint.
    pub saved: Vec<(i32, Box<TxState>)>,
}

impl TxState {
    /// The transaction is over.
    pub fn end(&mut self) {
        let boot_checked = self.boot_checked;
        *self = Self { boot_checked, ..Self::default() };
    }

    /// What a savepoint must be able to restore.
    pub fn clone_for_savepoint(&mut self) -> Box<Self> {
        let saved = std::mem::take(&mut self.saved);
        let copy = Box::new(self.clone());
        self.saved = saved;
        copy
    }

    /// xRollbackTo: the state at that savepoint, with everything that was read to be read again.
    pub fn rollback_to(&mut self, id: i32) {
        let mut saved = std::mem::take(&mut self.saved);
        saved.retain(|(n, _)| *n <= id);
        let then = saved.last().filter(|(n, _)| *n == id).map(|(_, state)| (**state).clone());
        let boot_checked = self.boot_checked;
        *self = then.unwrap_or_else(|| Self { active: true, ..Self::default() });
        self.boot_checked &= boot_checked;
        self.saved = saved;
        self.tail = None;
        self.checked = false;
        self.merge_checked = false;
    }

    /// Something may have been rolled back: what was read must be read again.
    pub fn forget_tail(&mut self) {
        self.tail = None;
    }
}

/// An entry that a nine-value insert made.
#[derive(Clone, Debug)]
pub struct NineEntry {
    /// Its table.
    pub table: TableRef,
    /// Its key, internal form.
    pub key: Vec<u8>,
    /// What it says.
    pub kind: Kind,
    /// Its seq, as given.
    pub seq: u64,
    /// The column it names.
    pub columns: Vec<u32>,
}
