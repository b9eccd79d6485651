//! What is known of the open write transaction besides its touches.

use crate::log::{OpenRecord, Tail};
use std::collections::BTreeSet;
use std::rc::Rc;

/// A larger buffer is not kept from transaction to transaction.
const SCRATCH_KEPT: usize = 1024;

fn reset<T>(items: &mut Vec<T>) {
    if items.capacity() > 0 {
        *items = Vec::new();
    }
}

/// What the journal wants to know of the table that was touched last.
#[derive(Clone, Copy, Debug)]
pub struct LastTable {
    /// How many columns its key has.
    pub keys: usize,
    /// Its id.
    pub id: u32,
    /// How many columns it has besides its key.
    pub columns: u64,
    /// BEFORE triggers tell which rows are overwritten.
    pub told: bool,
}

/// State of the open transaction; all of it is forgotten when it ends.
#[derive(Clone, Debug, Default)]
pub struct TxState {
    /// SQLite has called xBegin.
    pub active: bool,
    /// The catalogue was compared with the schema in this transaction.
    pub checked: bool,
    /// That was done in a transaction of a single statement: the schema stays what it was then.
    pub single: bool,
    /// As `checked`, for merges.
    pub merge_checked: bool,
    /// The catalogue is fresh enough to know all inboxes.
    pub inbox_checked: bool,
    /// Inboxes of which rows were taken into the journal that still stand there: table, and the last such row.
    pub taken: Vec<(u32, i64)>,
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
    /// What merges have superseded in the log, and no record tells of yet.
    pub superseded: u64,
    /// What merges have superseded since the last sweep.
    pub unswept: u64,
    /// The newest log record.
    pub tail: Option<Tail>,
    /// Parts of a changeset seen so far in this transaction.
    pub parts: Option<PartsSeen>,
    /// A merge failed half-way: the transaction must be rolled back.
    pub poisoned: bool,
    /// This connection has compared the boot id.
    pub boot_checked: bool,
    /// The file whose triggers are ours.
    pub file: u32,
    /// How many files were attached when that was looked at.
    pub attached: usize,
    /// Attached copies of the file, under the names they are attached by.
    pub twins: Vec<String>,
    /// The table touched last.
    pub last_table: Option<LastTable>,
    /// The site named last and its row.
    pub last_site: Option<(starling_crdt::SiteId, u32)>,
    /// A BEFORE trigger told that the row with this key stands in an insert's way.
    pub overwritten: Vec<(u32, Vec<u8>)>,
    /// Entries of nine-value inserts that wait to be logged under the local record.
    pub nine: crate::nine::NineEntries,
    /// Seqs of the local dot that were used by what it has superseded itself.
    pub spent: crate::spent::Spent,
    /// The row clocks of a small transaction that is being flushed; they stay young if they can.
    pub fresh: Option<crate::young::Fresh>,
    /// The file's version at its first touch.
    pub file_version: Option<u32>,
    /// What is known of plain tables was compared with the file's version.
    pub plain_checked: bool,
    /// Tables that are not plain any more since this transaction.
    pub odd: BTreeSet<u32>,
    /// The young clocks were moved into their blocks: from here on this transaction writes blocks.
    pub aged: bool,
    /// Row clocks of merges that wait to be put into their blocks.
    pub backlog: crate::backlog::Backlog,
    /// Tables of which all keys that have a clock in a block are known.
    pub filled: crate::filled::Filled,
    /// The clock block in memory.
    pub block: Option<crate::clock_store::OpenBlock>,
    /// A buffer to encode into.
    pub scratch: Vec<u8>,
    /// How often in it parts kept aside were read, added or dropped.
    pub aside_looks: u64,
    /// The alter windows that are open.
    pub windows: Vec<Rc<crate::alter::AlterWindow>>,
    /// The groups of keys that were written in them, by table.
    pub written: std::collections::BTreeMap<u32, crate::digest::Groups>,
    /// The version of this connection's temporary schema, once a merge has asked for it.
    pub temporary_schema: Option<i64>,
    /// The open savepoints, each with the state at its begin once something has changed since.
    pub saved: Vec<(i32, Option<Rc<TxState>>)>,
}

impl TxState {
    /// The transaction is over.
    pub fn end(&mut self) {
        // Nearly all of it is empty nearly always: twice per transaction, a new state would cost more than a look at the old one.
        let Self {
            active,
            checked,
            single,
            merge_checked,
            inbox_checked,
            taken,
            local,
            foreign,
            first_version,
            requested,
            rows_impacted,
            superseded,
            unswept,
            tail,
            parts,
            poisoned,
            boot_checked: _,
            file,
            attached,
            twins,
            last_table,
            last_site,
            overwritten,
            nine,
            spent,
            fresh,
            file_version,
            plain_checked,
            odd,
            aged,
            backlog,
            filled,
            block,
            scratch,
            aside_looks,
            windows,
            written,
            temporary_schema,
            saved,
        } = self;
        for flag in [active, checked, single, merge_checked, inbox_checked, poisoned, plain_checked, aged] {
            *flag = false;
        }
        (*local, *foreign, *first_version, *tail, *parts) = (None, None, None, None, None);
        (*last_table, *last_site, *fresh, *file_version, *block) = (None, None, None, None, None);
        *temporary_schema = None;
        (*requested, *rows_impacted, *file, *attached) = (0, 0, 0, 0);
        (*superseded, *unswept, *aside_looks) = (0, 0, 0);
        reset(taken);
        reset(twins);
        reset(overwritten);
        reset(windows);
        reset(saved);
        if !odd.is_empty() {
            odd.clear();
        }
        if !written.is_empty() {
            written.clear();
        }
        *nine = crate::nine::NineEntries::default();
        spent.clear();
        backlog.clear();
        filled.clear();
        if scratch.capacity() > SCRATCH_KEPT {
            *scratch = Vec::new();
        }
    }

    /// xSavepoint. One that is open already stays as it is, as [`crate::journal::Journal::savepoint`] says.
    pub fn savepoint(&mut self, id: i32) {
        let first = self.saved.last().map_or(0, |(n, _)| n + 1);
        self.saved.extend((first..=id).map(|n| (n, None)));
    }

    /// xRelease
    pub fn release(&mut self, id: i32) {
        self.saved.retain(|(n, _)| *n < id);
    }

    /// The records that this transaction may go on with.
    pub fn open_records(&self) -> impl Iterator<Item = &OpenRecord> {
        self.local.iter().chain(&self.foreign)
    }

    /// Called before the state changes: savepoints that have seen no change yet take their copy now. Most statements
    /// have a savepoint and change nothing here, so a copy at its begin would be paid for nothing.
    pub fn before_change(&mut self) {
        if self.saved.last().is_none_or(|(_, copy)| copy.is_some()) {
            return;
        }
        // It would be copied too.
        self.filled.clear();
        let mut saved = std::mem::take(&mut self.saved);
        let copy = Rc::new(self.clone());
        self.backlog.note_copy();
        for (_, slot) in saved.iter_mut().filter(|(_, slot)| slot.is_none()) {
            *slot = Some(Rc::clone(&copy));
        }
        self.saved = saved;
    }

    /// A merge has superseded so much of the log.
    pub fn supersede(&mut self, entries: u64) {
        self.superseded += entries;
        self.unswept += entries;
    }

    /// Whether this part is the one that follows those seen of its changeset in this transaction.
    pub fn next_part(&mut self, origin: u32, version: u64, part: u64) -> bool {
        let seen = self.parts.filter(|seen| seen.origin == origin && seen.version == version);
        if part != seen.map_or(0, |seen| seen.next) {
            self.parts = None;
            return false;
        }
        let whole = part == 0 || seen.is_some_and(|seen| seen.whole);
        self.parts = Some(PartsSeen { origin, version, next: part + 1, whole });
        true
    }

    /// Notes whether everything that the parts so far named was taken; returns whether that holds for all of them.
    pub fn parts_stay_whole(&mut self, whole: bool) -> bool {
        let Some(seen) = &mut self.parts else { return false };
        seen.whole &= whole;
        seen.whole
    }

    /// xRollbackTo: the state at that savepoint, with everything that was read to be read again.
    pub fn rollback_to(&mut self, id: i32) {
        let mut saved = std::mem::take(&mut self.saved);
        saved.retain(|(n, _)| *n <= id);
        let boot_checked = self.boot_checked;
        match saved.last() {
            Some((n, Some(then))) if *n == id => *self = (**then).clone(),
            Some((n, None)) if *n == id => {}
            _ => *self = Self { active: true, ..Self::default() },
        }
        self.boot_checked &= boot_checked;
        self.saved = saved;
        // What a statement was told that has come to nothing.
        self.overwritten.clear();
        self.tail = None;
        self.checked = false;
        self.single = false;
        self.merge_checked = false;
        self.temporary_schema = None;
        self.inbox_checked = false;
    }
}

/// How far a changeset of several parts has been merged in this transaction.
#[derive(Clone, Copy, Debug)]
pub struct PartsSeen {
    /// Ordinal of its origin.
    pub origin: u32,
    /// Its version.
    pub version: u64,
    /// The part that comes next.
    pub next: u64,
    /// Everything that the parts so far named was taken.
    pub whole: bool,
}
