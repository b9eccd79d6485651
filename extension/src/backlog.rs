//! Row clocks that merges have written and that wait to be put into their blocks.
//!
//! Changesets come in the order of their writes, so one row's block is seldom that of the row before, and each would be
//! read, decoded and written for one clock. So a transaction's merges keep the clocks that they write, by key, and put
//! them into blocks when many have come together, before anything else touches a block, and before the commit.

use crate::catalog::Table;
use crate::clock_map::ClockMap;
use crate::session::{corrupt, Session, Sql};
use crate::sqlite::Result;
use starling_crdt::row_clock::RowClock;

/// So many clocks wait at most: a few megabytes.
const MAX: usize = 32 * 1024;
/// Room for most encoded clocks.
const ENCODED: usize = 48;
/// So many wait where the transaction opens one savepoint after the other, as each takes a copy of them.
const MAX_COPIED: usize = 64;

/// The row clock written last.
#[derive(Clone, Debug)]
struct Newest {
    table: u32,
    key: Vec<u8>,
    clock: RowClock,
}

impl Newest {
    fn is_of(&self, table: u32, key: &[u8]) -> bool {
        self.table == table && self.key == key
    }
}

/// What waits.
#[derive(Clone, Debug, Default)]
pub struct Backlog {
    /// In force instead of what `clocks` has of the same row.
    newest: Option<Newest>,
    clocks: ClockMap,
    /// A savepoint has taken a copy of many.
    copied: bool,
    /// How often the block in memory was the right one since it was read, and how often it was not.
    hits: u32,
    misses: u32,
}

impl Backlog {
    /// The transaction is over.
    pub fn clear(&mut self) {
        if !self.is_empty() {
            (self.newest, self.clocks) = (None, ClockMap::default());
        }
        (self.copied, self.hits, self.misses) = (false, 0, 0);
    }

    /// A row's clock, if it waits.
    pub fn get(&self, table: u32, key: &[u8]) -> Option<Result<RowClock>> {
        if let Some(clock) = self.newest_of(table, key) {
            return Some(Ok(clock.clone()));
        }
        let bytes = self.clocks.get(table, key)?;
        Some(RowClock::decode(bytes).map_err(|e| corrupt("a row clock", e)))
    }

    /// A row's clock, if it is the one that was written last.
    pub fn newest_of(&self, table: u32, key: &[u8]) -> Option<&RowClock> {
        self.newest.as_ref().filter(|newest| newest.is_of(table, key)).map(|newest| &newest.clock)
    }

    /// As [`Backlog::newest_of`], to be changed.
    pub fn newest_of_mut(&mut self, table: u32, key: &[u8]) -> Option<&mut RowClock> {
        self.newest.as_mut().filter(|newest| newest.is_of(table, key)).map(|newest| &mut newest.clock)
    }

    fn set(&mut self, table: u32, key: &[u8], clock: RowClock) {
        if let Some(newest) = self.newest_of_mut(table, key) {
            *newest = clock;
            return;
        }
        self.settle();
        self.newest = Some(Newest { table, key: key.to_vec(), clock });
    }

    /// The newest one joins the others.
    fn settle(&mut self) {
        if let Some(Newest { table, key, clock }) = self.newest.take() {
            let mut bytes = Vec::with_capacity(ENCODED);
            clock.encode(&mut bytes);
            self.clocks.set(table, key, bytes);
        }
    }

    /// Hands out all of them.
    fn take(&mut self) -> ClockMap {
        self.settle();
        std::mem::take(&mut self.clocks)
    }

    /// Whether clocks of a table wait.
    pub fn any(&self, table: u32) -> bool {
        self.newest.as_ref().is_some_and(|newest| newest.table == table) || self.clocks.any(table)
    }

    /// Whether none waits.
    pub const fn is_empty(&self) -> bool {
        self.newest.is_none() && self.clocks.len() == 0
    }

    /// A savepoint takes a copy.
    pub fn note_copy(&mut self) {
        self.copied |= self.clocks.len() > MAX_COPIED;
    }

    fn is_full(&self) -> bool {
        self.clocks.len() >= if self.copied { MAX_COPIED } else { MAX }
    }

    /// Whether to read a clock by itself, when its block is not the one in memory: where keys come in no order it would be
    /// decoded for this one. `held`: it is in memory.
    pub fn reads_alone(&mut self, held: bool) -> bool {
        if held {
            self.hits += 1;
            return false;
        }
        let alone = self.hits < 2 && !self.misses.is_multiple_of(8);
        self.misses += 1;
        if !alone {
            self.hits = 0;
        }
        alone
    }
}

impl Session {
    /// Stores the clock of a row that a merge has written. `known`: the row had a clock before.
    pub fn put_clock_later(&self, table: &Table, key: &[u8], clock: RowClock, known: bool) -> Result<()> {
        if clock.is_pristine() && !known {
            return Ok(());
        }
        if clock.is_pristine() || !self.tx.borrow().active {
            return self.put_clock(table, key, &clock);
        }
        self.age()?;
        self.keep_plain(table.info.id, &clock)?;
        let full = {
            let mut tx = self.tx_mut();
            tx.backlog.set(table.info.id, key, clock);
            tx.backlog.is_full()
        };
        if full {
            self.know_filled()?;
            self.clear_backlog()?;
        }
        Ok(())
    }

    /// A large merge begins to fill the blocks of tables that had none: from now on all keys in them are known.
    fn know_filled(&self) -> Result<()> {
        let tables = self.tx.borrow().backlog.clocks.tables();
        for table in tables {
            let open = self.tx.borrow().block.as_ref().is_some_and(|b| b.any(table));
            if !self.tx.borrow().filled.knows(table) && !open && !self.of_rows(Sql::AnyClock, table)?.step()? {
                self.tx_mut().filled.begin(table);
            }
        }
        Ok(())
    }

    /// Puts what waits into its blocks.
    pub fn clear_backlog(&self) -> Result<()> {
        if self.tx.borrow().backlog.is_empty() {
            return Ok(());
        }
        let clocks = self.tx_mut().backlog.take();
        let result =
            clocks.sorted().into_iter().try_for_each(|(table, key, clock)| self.put_in_block(table, key, clock));
        // The rows are written, and not all of their clocks.
        result.inspect_err(|_| self.poison())
    }
}
