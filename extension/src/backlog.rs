//! Row clocks that merges have written and that wait to be put into their blocks.
//!
//! Changesets come in the order of their writes, so one row's block is seldom that of the row before, and each would be
//! read, decoded and written for one clock. So a transaction's merges keep the clocks that they write, by key, and put
//! them into blocks when many have come together, before anything else touches a block, and before the commit.

use crate::catalog::Table;
use crate::clock_map::ClockMap;
use crate::session::Session;
use crate::sqlite::Result;
use starling_crdt::row_clock::RowClock;

/// So many clocks wait at most: a few megabytes.
const MAX: usize = 32 * 1024;
/// So many wait where the transaction opens one savepoint after the other, as each takes a copy of them.
const MAX_COPIED: usize = 64;

/// What waits.
#[derive(Clone, Debug, Default)]
pub struct Backlog {
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
            self.clocks = ClockMap::default();
        }
        (self.copied, self.hits, self.misses) = (false, 0, 0);
    }

    /// A row's clock, if it waits.
    pub fn get(&self, table: u32, key: &[u8]) -> Option<&[u8]> {
        self.clocks.get(table, key)
    }

    /// Whether clocks of a table wait.
    pub fn any(&self, table: u32) -> bool {
        self.clocks.any(table)
    }

    /// Whether none waits.
    pub const fn is_empty(&self) -> bool {
        self.clocks.len() == 0
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
    pub fn put_clock_later(&self, table: &Table, key: &[u8], clock: &RowClock, known: bool) -> Result<()> {
        if clock.is_pristine() && !known {
            return Ok(());
        }
        if clock.is_pristine() || !self.tx.borrow().active {
            return self.put_clock(table, key, clock);
        }
        self.age()?;
        self.keep_plain(table.info.id, clock)?;
        let mut bytes = Vec::with_capacity(24);
        clock.encode(&mut bytes);
        let full = {
            let mut tx = self.tx_mut();
            tx.backlog.clocks.set(table.info.id, key.to_vec(), bytes);
            tx.backlog.is_full()
        };
        if full {
            self.clear_backlog()?;
        }
        Ok(())
    }

    /// Puts what waits into its blocks.
    pub fn clear_backlog(&self) -> Result<()> {
        if self.tx.borrow().backlog.is_empty() {
            return Ok(());
        }
        let clocks = std::mem::take(&mut self.tx_mut().backlog.clocks);
        let result =
            clocks.sorted().into_iter().try_for_each(|(table, key, clock)| self.put_in_block(table, key, clock));
        if result.is_err() && self.tx.borrow().active {
            // The rows are written, and not all of their clocks.
            self.tx_mut().poisoned = true;
        }
        result
    }
}
