//! Young clocks: the row clocks of the newest small transactions, which live in their log records for a while.
//!
//! A transaction that writes one row would change a page of clock blocks besides the row's page and the log's. So its clocks
//! go into its log record, and move into their blocks some dozens at a time. The newest record says how far back the
//! records go whose clocks are in force. Whoever looks for a row's clock looks here first; whoever writes into the blocks
//! moves all of them there before (`age`), so a row never has one in a block that is newer than the one here.

use crate::catalog::Table;
use crate::clock_map::ClockMap;
use crate::log::Tail;
use crate::session::{corrupt, Session};
use crate::sqlite::{Result, Stmt};
use starling_crdt::log_chunk::ChunkReader;
use starling_crdt::row_clock::RowClock;
use starling_crdt::young;

/// A transaction of more touches than this writes its clocks into their blocks.
pub const SMALL: usize = 4;
/// So many clocks are kept in records at most: a connection that has seen none of them reads as many records.
const MAX_CLOCKS: usize = 256;
/// A chain of records that reaches back further ends.
const MAX_BACK: u64 = 512;

/// The clocks of a small transaction that is being flushed: table, key, clock.
pub type Fresh = Vec<(u32, Vec<u8>, Vec<u8>)>;

/// The clocks in force, as this connection read them last.
#[derive(Default)]
pub struct Young {
    /// What they go back to.
    seen: Option<Seen>,
    /// The file's version when that was last found right outside of a write transaction.
    as_of: Option<u32>,
    clocks: ClockMap,
}

/// The newest record, and where the records in force begin. A token is never drawn twice, so this tells what they are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Seen {
    db_version: u64,
    token: u64,
    oldest: Option<u64>,
}

impl Seen {
    fn of(tail: &Tail) -> Self {
        Self { db_version: tail.db_version, token: tail.token, oldest: tail.young }
    }
}

impl Young {
    fn clear(&mut self) {
        *self = Self::default();
    }
}

/// A record's young clocks: its entries, and a slot for each.
struct Carrier {
    entries: Vec<u8>,
    slots: Vec<u8>,
}

/// What the newest record says of the oldest one whose young clocks are in force; `version` and `last_local` are the places
/// of these columns in the statement. A foreign record says nothing.
pub fn oldest_in_force(newest: &Stmt, db_version: u64, version: usize, last_local: usize) -> Option<u64> {
    let says = newest.column_is_null(version) && !newest.column_is_null(last_local);
    says.then(|| db_version.saturating_sub(newest.column_int(last_local).max(0).cast_unsigned()))
}

impl Session {
    /// A row's clock, if it is a young one.
    pub fn young_clock<T>(&self, table: u32, key: &[u8], read: impl FnOnce(&[u8]) -> T) -> Result<Option<T>> {
        self.know_young()?;
        Ok(self.young.borrow().clocks.get(table, key).map(read))
    }

    /// Whether a table has young clocks.
    pub fn any_young(&self, table: u32) -> Result<bool> {
        self.know_young()?;
        Ok(self.young.borrow().clocks.any(table))
    }

    /// Whether the clocks of one more small transaction may stay young.
    pub fn young_has_room(&self) -> Result<bool> {
        self.know_young()?;
        Ok(!self.young_is_long()? && self.young.borrow().clocks.len() + SMALL <= MAX_CLOCKS)
    }

    /// Whether the records in force go back too far.
    pub fn young_is_long(&self) -> Result<bool> {
        let tail = self.tail()?;
        Ok(tail.young.is_some_and(|oldest| tail.db_version.saturating_sub(oldest) >= MAX_BACK))
    }

    /// Sees to it that the clocks in memory are those of the file.
    fn know_young(&self) -> Result<()> {
        if self.tx.borrow().active {
            let seen = Seen::of(&self.tail()?);
            if self.young.borrow().seen == Some(seen) {
                return Ok(());
            }
            if seen.oldest.is_none() {
                let mut young = self.young.borrow_mut();
                young.clear();
                young.seen = Some(seen);
                return Ok(());
            }
            return self.read_young();
        }
        let now = self.db.file_version();
        if now.is_some() && self.young.borrow().as_of == now {
            return Ok(());
        }
        self.read_young()
    }

    /// Before a read: another file beneath the connection may have just the version of the one before, so the newest record
    /// must be seen once.
    pub fn doubt_young(&self) {
        self.young.borrow_mut().as_of = None;
    }

    /// Reads the records in force, as far as they are not known yet: all in one statement, so of one moment.
    fn read_young(&self) -> Result<()> {
        let known = self.young.borrow().seen;
        let mut carriers = Vec::new();
        let mut seen: Option<Seen> = None;
        let mut goes_on = false;
        let mut newest_first = self.fixed(
            "SELECT db_version, token, version, last_local, last_local_token, entries FROM main.crsql_log \
             ORDER BY db_version DESC",
        )?;
        while newest_first.step()? {
            let db_version = newest_first.column_int(0).max(0).cast_unsigned();
            let token = newest_first.column_int(1).cast_unsigned();
            let oldest = seen.map_or_else(|| oldest_in_force(&newest_first, db_version, 2, 3), |seen| seen.oldest);
            let here = Seen { db_version, token, oldest };
            seen.get_or_insert(here);
            goes_on = known == Some(here);
            if goes_on || oldest.is_none_or(|oldest| db_version < oldest) {
                break;
            }
            if newest_first.column_is_null(2) && !newest_first.column_is_null(4) {
                carriers.push(Carrier {
                    entries: newest_first.column_blob(5).to_vec(),
                    slots: newest_first.column_blob(4).to_vec(),
                });
            }
        }
        let as_of = self.db.file_version();
        drop(newest_first);
        let mut young = self.young.borrow_mut();
        if !goes_on {
            young.clear();
        }
        // Should a record be damaged, nothing may be believed until it is read again.
        young.seen = None;
        for carrier in carriers.iter().rev() {
            carrier.unpack(&mut young)?;
        }
        young.seen = seen.or(Some(Seen { db_version: 0, token: 0, oldest: None }));
        young.as_of = as_of.filter(|_| !self.tx.borrow().active);
        Ok(())
    }

    /// A record was written: what is known goes on with it. `fresh` are the clocks that it carries.
    pub fn note_young(&self, before: &Tail, after: &Tail, fresh: Fresh) {
        let mut young = self.young.borrow_mut();
        young.as_of = None;
        if young.seen != Some(Seen::of(before)) {
            return;
        }
        for (table, key, clock) in fresh {
            young.clocks.set(table, key, clock);
        }
        young.seen = Some(Seen::of(after));
    }

    /// Moves all young clocks into their blocks: from here on this transaction writes blocks.
    pub fn age(&self) -> Result<()> {
        if self.tx.borrow().aged {
            return Ok(());
        }
        let tail = self.tail()?;
        let fresh = self.tx.borrow().fresh.is_some();
        if tail.young.is_none() && !fresh {
            if self.tx.borrow().active {
                self.tx_mut().aged = true;
            }
            return Ok(());
        }
        self.know_young()?;
        let rowid = self.db.last_insert_rowid();
        let result = self.move_young(&tail);
        self.db.set_last_insert_rowid(rowid);
        self.young.borrow_mut().clear();
        if result.is_err() {
            self.tx_mut().aged = false;
        }
        result
    }

    fn move_young(&self, tail: &Tail) -> Result<()> {
        let clocks = std::mem::take(&mut self.young.borrow_mut().clocks);
        let fresh = {
            let mut tx = self.tx_mut();
            // An error may have ended the transaction already.
            tx.aged = tx.active;
            tx.fresh.take().unwrap_or_default()
        };
        let mut superseded = 0u64;
        for (table, key, clock) in clocks.sorted() {
            // What is fresh takes the place of what was young, and has counted what that superseded.
            if !fresh.iter().any(|(t, k, _)| *t == table && k == key) {
                superseded += self.settle_clock(table, key, clock)?;
            }
        }
        for (table, key, clock) in &fresh {
            superseded += self.settle_clock(*table, key, clock)?;
        }
        if tail.young.is_some() || superseded > 0 {
            let mut set = self.fixed(
                "UPDATE main.crsql_log SET last_local = CASE WHEN version IS NULL THEN NULL ELSE last_local END, \
                 garbage = garbage + ?2 \
                 WHERE db_version = ?1",
            )?;
            set.bind_int(1, tail.db_version.cast_signed())?;
            set.bind_int(2, superseded.cast_signed())?;
            set.execute()?;
            drop(set);
            self.forget_tail();
        }
        Ok(())
    }

    /// Puts a young clock, or what a delta comes to, into its block. Returns how many cells the delta supersedes.
    fn settle_clock(&self, table: u32, key: &[u8], young: &[u8]) -> Result<u64> {
        let delta = RowClock::decode(young).map_err(|e| corrupt("a young clock", e))?;
        if !delta.is_delta() {
            self.put_in_block(table, key, young)?;
            return Ok(0);
        }
        let mut clock = self.clock_in_block(table, key)?.unwrap_or_else(RowClock::pristine);
        let superseded = clock.count_on(&delta);
        let mut bytes = Vec::with_capacity(young.len() + 8);
        clock.encode(&mut bytes);
        self.put_in_block(table, key, &bytes)?;
        Ok(superseded)
    }

    /// Notes what a small transaction adds to a row's clock.
    pub fn put_delta(&self, table: u32, key: &[u8], delta: &RowClock) {
        let mut bytes = Vec::with_capacity(24);
        delta.encode(&mut bytes);
        if let Some(fresh) = &mut self.tx.borrow_mut().fresh {
            fresh.push((table, key.to_vec(), bytes));
        }
    }

    /// The clocks as deltas: what an update writes in a row of a plain table adds to its clock, whatever that is. Of a row that
    /// has a young clock it is known, and a delta would have to count on that.
    pub fn may_be_delta(&self, table: &Table, key: &[u8]) -> bool {
        let unknown = |fresh: &Fresh| !fresh.iter().any(|(t, k, _)| *t == table.info.id && k == key);
        self.tx.borrow().fresh.as_ref().is_some_and(unknown)
            && self.young.borrow().clocks.get(table.info.id, key).is_none()
            && !table.looks_older(key)
    }
}

impl Carrier {
    fn unpack(&self, young: &mut Young) -> Result<()> {
        let slots = young::decode(&self.slots).map_err(|e| corrupt("the young clocks of a log record", e))?;
        let mut reader = ChunkReader::new(&self.entries).map_err(|e| corrupt("a log chunk", e))?;
        for slot in slots {
            let Some(entry) = reader.next_entry().map_err(|e| corrupt("a log chunk", e))? else {
                return Err(corrupt("the young clocks of a log record", "there are more of them than entries"));
            };
            if let Some(clock) = slot {
                young.clocks.set(entry.table.id, reader.key().to_vec(), clock.to_vec());
            }
        }
        Ok(())
    }
}
