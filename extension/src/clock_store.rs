//! Row clocks on disk: blocks of neighbouring keys, one of them in memory while a transaction writes.
//!
//! Within a write transaction the block used last stays decoded, and is written when another one is needed or before
//! the commit. It is part of the transaction's state, so a savepoint that is rolled back brings the former one back.
//! The clocks of the newest small transactions are elsewhere (`young`).

use crate::catalog::Table;
use crate::session::{corrupt, Session, Sql};
use crate::sqlite::Result;
use starling_crdt::clock_block::ClockBlock;
use starling_crdt::row_clock::RowClock;

/// A block grown beyond this is written, split, and left.
const WEIGHT_MAX: usize = 24 * 1024;

/// The block in memory.
#[derive(Clone, Debug)]
pub struct OpenBlock {
    table: u32,
    /// Its first key on disk; `None` = it is new.
    first: Option<Vec<u8>>,
    /// Keys below this belong to it (none: all keys).
    lo: Option<Vec<u8>>,
    /// Keys from this on belong to the next one.
    hi: Bound,
    block: ClockBlock,
    dirty: bool,
}

/// Where a block ends.
#[derive(Clone, Debug)]
enum Bound {
    /// Not looked up yet: a transaction that touches one key never needs it.
    Unknown,
    /// There is no next block.
    End,
    /// The first key of the next block.
    Key(Vec<u8>),
}

impl OpenBlock {
    /// As it is on disk, under its first key.
    fn read(table: u32, first: &[u8], bytes: &[u8]) -> Result<Self> {
        let block = ClockBlock::decode(bytes).map_err(|e| corrupt("a clock block", e))?;
        if block.iter().next().is_none_or(|(key, _)| key != first) {
            return Err(corrupt("a clock block", "it begins with another key than it is filed under"));
        }
        Ok(Self { table, first: Some(first.to_vec()), lo: None, hi: Bound::Unknown, block, dirty: false })
    }

    /// Whether a table has clocks in it.
    pub fn any(&self, table: u32) -> bool {
        self.table == table && !self.block.is_empty()
    }

    fn starts_before(&self, table: u32, key: &[u8]) -> bool {
        self.table == table && self.lo.as_ref().is_none_or(|lo| lo.as_slice() <= key)
    }

    fn holds(&self, table: u32, key: &[u8]) -> bool {
        self.starts_before(table, key)
            && match &self.hi {
                Bound::Unknown => self.block.last_key().is_some_and(|last| key <= last),
                Bound::End => true,
                Bound::Key(hi) => key < hi.as_slice(),
            }
    }
}

impl Session {
    /// Whether any row of the table has a clock.
    pub fn any_clock(&self, table: &Table) -> Result<bool> {
        let id = table.info.id;
        if self.clocked.borrow().contains(&id) {
            return Ok(true);
        }
        let open = self.tx.borrow().block.as_ref().is_some_and(|b| b.any(id));
        let waits = self.tx.borrow().backlog.any(id);
        let any = open || waits || self.any_young(id)? || self.of_rows(Sql::AnyClock, id)?.step()?;
        if any {
            self.clocked.borrow_mut().insert(id);
        }
        Ok(any)
    }

    /// A row's clock. Cells that came after its base and were never written are listed as absent.
    pub fn get_clock(&self, table: &Table, key: &[u8]) -> Result<Option<RowClock>> {
        self.get_clock_counted(table, key).map(|(clock, _)| clock)
    }

    /// As [`Session::get_clock`], and how many cells a delta that the row has among the young clocks supersedes: whoever
    /// writes the row's whole clock in its place has to count them.
    pub fn get_clock_counted(&self, table: &Table, key: &[u8]) -> Result<(Option<RowClock>, u64)> {
        let id = table.info.id;
        let (mut clock, superseded) = self.latest_clock(id, key)?;
        if let Some(clock) = &mut clock {
            table.list_late(key, clock);
        }
        Ok((clock, superseded))
    }

    /// The clock that is in force, with what deltas make of it, and how many cells of older clocks they supersede.
    fn latest_clock(&self, id: u32, key: &[u8]) -> Result<(Option<RowClock>, u64)> {
        let aged = self.tx.borrow().active && self.tx.borrow().aged;
        if aged {
            return Ok((self.settled_clock(id, key)?, 0));
        }
        let fresh = match &self.tx.borrow().fresh {
            Some(fresh) => {
                fresh.iter().find(|(table, at, _)| *table == id && at == key).map(|(.., c)| decode(c)).transpose()?
            }
            None => None,
        };
        let mut deltas = Vec::new();
        let mut clock = None;
        for newest_first in [fresh, self.young_clock(id, key, decode)?.transpose()?].into_iter().flatten() {
            if !newest_first.is_delta() {
                clock = Some(newest_first);
                break;
            }
            deltas.push(newest_first);
        }
        if clock.is_none() {
            clock = self.settled_clock(id, key)?;
        }
        let mut superseded = 0;
        for delta in deltas.iter().rev() {
            superseded += clock.get_or_insert_with(RowClock::pristine).count_on(delta);
        }
        Ok((clock, superseded))
    }

    /// A row's clock where clocks stay.
    fn settled_clock(&self, id: u32, key: &[u8]) -> Result<Option<RowClock>> {
        let active = self.tx.borrow().active;
        // Without a write transaction of our own another connection may commit at any time: nothing is remembered.
        if !active {
            return self.read_clock(id, key);
        }
        {
            let mut tx = self.tx.borrow_mut();
            if let Some(clock) = tx.backlog.get(id, key) {
                return clock.map(Some);
            }
            if tx.filled.lacks(id, key) {
                return Ok(None);
            }
            let held = tx.block.as_ref().is_some_and(|b| b.holds(id, key));
            let unchanged = tx.block.as_ref().is_none_or(|b| !b.dirty);
            // A small transaction leaves the blocks as they are, and needs no more of them than this clock; and merges come
            // in no order.
            let alone = match (&tx.fresh, tx.backlog.is_empty()) {
                (Some(_), _) => tx.block.is_none(),
                (None, true) => false,
                (None, false) => unchanged && tx.backlog.reads_alone(held),
            };
            if alone {
                drop(tx);
                return self.read_clock(id, key);
            }
        }
        self.clock_in_block(id, key)
    }

    /// A row's clock out of its block, which is then in memory.
    pub fn clock_in_block(&self, id: u32, key: &[u8]) -> Result<Option<RowClock>> {
        self.load_block(id, key)?;
        let tx = self.tx.borrow();
        let Some(bytes) = tx.block.as_ref().and_then(|b| b.block.get(key)) else { return Ok(None) };
        RowClock::decode_with(bytes, self.spare_cells()).map(Some).map_err(|e| corrupt("a row clock", e))
    }

    /// A row's clock straight from its block. A key below every block belongs to the first one, which then lacks it.
    fn read_clock(&self, table: u32, key: &[u8]) -> Result<Option<RowClock>> {
        let mut at = self.of_rows(Sql::BlockAt, table)?;
        at.bind_blob(1, key)?;
        if !at.step()? {
            return Ok(None);
        }
        match ClockBlock::find_encoded(at.column_blob(1), key).map_err(|e| corrupt("a clock block", e))? {
            Some(bytes) => RowClock::decode(bytes).map(Some).map_err(|e| corrupt("a row clock", e)),
            None => Ok(None),
        }
    }

    /// Stores a row's clock; a pristine one is not kept.
    pub fn put_clock(&self, table: &Table, key: &[u8], clock: &RowClock) -> Result<()> {
        if clock.is_pristine() {
            return self.drop_clock(table, key);
        }
        let id = table.info.id;
        self.keep_plain(id, clock)?;
        let mut bytes = std::mem::take(&mut self.tx_mut().scratch);
        bytes.clear();
        clock.encode(&mut bytes);
        let stays_young = {
            let mut tx = self.tx.borrow_mut();
            let fresh = tx.fresh.as_mut();
            fresh.map(|fresh| {
                fresh.retain(|(table, at, _)| *table != id || at != key);
                fresh.push((id, key.to_vec(), bytes.clone()));
            })
        };
        let put = match stays_young {
            Some(()) => Ok(()),
            None => {
                let ready = self.age().and_then(|()| self.clear_backlog());
                ready.and_then(|()| self.put_in_block(id, key, &bytes))
            }
        };
        self.tx.borrow_mut().scratch = bytes;
        put
    }

    /// Stores a row's encoded clock in its block.
    pub fn put_in_block(&self, table: u32, key: &[u8], clock: &[u8]) -> Result<()> {
        self.load_block(table, key)?;
        let full = {
            let mut tx = self.tx_mut();
            tx.filled.add(table, key);
            tx.block.as_mut().is_some_and(|open| {
                open.block.set(key, clock);
                open.dirty = true;
                open.block.weight() > WEIGHT_MAX
            })
        };
        if full || !self.tx.borrow().active {
            self.write_open_block()?;
            self.tx_mut().block = None;
        }
        Ok(())
    }

    /// Forgets a row's clock.
    pub fn drop_clock(&self, table: &Table, key: &[u8]) -> Result<()> {
        self.age()?;
        self.clear_backlog()?;
        self.load_block(table.info.id, key)?;
        if let Some(open) = self.tx_mut().block.as_mut() {
            open.dirty |= open.block.remove(key);
        }
        if !self.tx.borrow().active {
            self.write_block()?;
            self.tx_mut().block = None;
        }
        Ok(())
    }

    /// Calls `f` with every key and clock of a table, in key order.
    pub fn each_clock(&self, table: &Table, f: &mut dyn FnMut(&[u8], &RowClock)) -> Result<()> {
        self.age()?;
        self.write_block()?;
        let mut all = self.of_rows(Sql::AllBlocks, table.info.id)?;
        while all.step()? {
            let block = ClockBlock::decode(all.column_blob(0)).map_err(|e| corrupt("a clock block", e))?;
            for (key, clock) in block.iter() {
                f(key, &RowClock::decode(clock).map_err(|e| corrupt("a row clock", e))?);
            }
        }
        Ok(())
    }

    /// Writes all clocks that are in memory only.
    pub fn write_block(&self) -> Result<()> {
        self.clear_backlog()?;
        self.write_open_block()
    }

    /// Writes the block in memory, if it was changed.
    fn write_open_block(&self) -> Result<()> {
        let taken = {
            let mut tx = self.tx_mut();
            if tx.block.as_ref().is_some_and(|b| b.dirty) {
                tx.block.take()
            } else {
                None
            }
        };
        let Some(open) = taken else { return Ok(()) };
        let result = self.store(&open);
        // Where the error ended the whole transaction (a full disk does) the block is as gone as everything else: kept, it would be
        // written by the next one.
        if result.is_err() && self.tx.borrow().active {
            self.tx_mut().block = Some(open);
        }
        result
    }

    fn store(&self, open: &OpenBlock) -> Result<()> {
        let mut kept = false;
        open.block.encode(|first, bytes| -> Result<()> {
            kept |= open.first.as_deref() == Some(first);
            let mut put = self.of_rows(Sql::PutBlock, open.table)?;
            put.bind_blob(1, first)?;
            put.bind_blob(2, bytes)?;
            put.execute()
        })?;
        if let (Some(first), false) = (&open.first, kept) {
            let mut drop = self.of_rows(Sql::DropBlock, open.table)?;
            drop.bind_blob(1, first)?;
            drop.execute()?;
        }
        Ok(())
    }

    fn load_block(&self, table: u32, key: &[u8]) -> Result<()> {
        let behind = match &self.tx.borrow().block {
            Some(open) if open.holds(table, key) => return Ok(()),
            Some(open) if open.starts_before(table, key) => open.first.clone(),
            _ => None,
        };
        if let Some(first) = behind {
            // Mostly a key behind the open block's last one is the next block's.
            match self.block_at(table, key, Some(&first))? {
                Some(next) => {
                    self.write_open_block()?;
                    self.tx_mut().block = Some(next);
                    return Ok(());
                }
                None => return self.find_end(table, &first),
            }
        }
        self.write_open_block()?;
        let open = match self.block_at(table, key, None)? {
            Some(open) => open,
            None => self.lowest_block(table)?,
        };
        self.tx_mut().block = Some(open);
        Ok(())
    }

    /// The block that a key belongs to, if it is not below all of them, nor the one that begins at `open`.
    fn block_at(&self, table: u32, key: &[u8], open: Option<&[u8]>) -> Result<Option<OpenBlock>> {
        let mut at = self.of_rows(Sql::BlockAt, table)?;
        at.bind_blob(1, key)?;
        if !at.step()? || open == Some(at.column_blob(0)) {
            return Ok(None);
        }
        let first = at.column_blob(0).to_vec();
        OpenBlock::read(table, &first, at.column_blob(1)).map(|open| Some(OpenBlock { lo: Some(first), ..open }))
    }

    /// Keys below every block belong to the first one; where there is none, a new one takes all keys.
    fn lowest_block(&self, table: u32) -> Result<OpenBlock> {
        let mut lowest = self.of_rows(Sql::LowestBlock, table)?;
        if lowest.step()? {
            return OpenBlock::read(table, lowest.column_blob(0), lowest.column_blob(1));
        }
        Ok(OpenBlock { table, first: None, lo: None, hi: Bound::End, block: ClockBlock::default(), dirty: false })
    }

    /// The block in memory, which begins at `first`, reaches to a key behind its last one: where it ends is looked up now.
    fn find_end(&self, table: u32, first: &[u8]) -> Result<()> {
        let hi = {
            let mut next = self.of_rows(Sql::NextBlock, table)?;
            next.bind_blob(1, first)?;
            if next.step()? {
                Bound::Key(next.column_blob(0).to_vec())
            } else {
                Bound::End
            }
        };
        if let Some(open) = self.tx_mut().block.as_mut() {
            open.hi = hi;
        }
        Ok(())
    }
}

fn decode(bytes: &[u8]) -> Result<RowClock> {
    RowClock::decode(bytes).map_err(|e| corrupt("a row clock", e))
}

/// The row clock table of a CRR: blocks of row clocks by their first key.
pub fn create_rows_table(id: u32) -> String {
    format!(
        "CREATE TABLE IF NOT EXISTS main.crsql_rows_{id}(first BLOB PRIMARY KEY, block BLOB NOT NULL) WITHOUT ROWID"
    )
}

/// The text of a statement over a table's row clocks.
pub fn sql(kind: Sql, table: u32) -> String {
    let rows = format!("main.crsql_rows_{table}");
    match kind {
        Sql::BlockAt => format!("SELECT first, block FROM {rows} WHERE first <= ?1 ORDER BY first DESC LIMIT 1"),
        Sql::LowestBlock => format!("SELECT first, block FROM {rows} ORDER BY first LIMIT 1"),
        Sql::NextBlock => format!("SELECT first FROM {rows} WHERE first > ?1 ORDER BY first LIMIT 1"),
        Sql::PutBlock => format!("INSERT OR REPLACE INTO {rows}(first, block) VALUES(?1, ?2)"),
        Sql::DropBlock => format!("DELETE FROM {rows} WHERE first = ?1"),
        Sql::AllBlocks => format!("SELECT block FROM {rows} ORDER BY first"),
        _ => format!("SELECT 1 FROM {rows} LIMIT 1"),
    }
}
