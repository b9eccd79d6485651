//! The tables that a batch of touches names, and what is known of their rows' clocks without a look at them.

use crate::catalog::Table;
use crate::journal::Touches;
use crate::session::{corrupt, Session};
use crate::sqlite::Result;
use starling_crdt::local::TouchKind;
use starling_crdt::row_clock::RowClock;
use std::cell::OnceCell;
use std::rc::Rc;

/// A table that the batch touches.
pub struct Touched {
    /// It.
    pub table: Rc<Table>,
    /// It is a plain one.
    pub plain: bool,
    /// Whether any of its rows has a clock, once it was looked for.
    clocks: OnceCell<bool>,
}

/// The tables of a batch.
#[derive(Default)]
pub struct TouchedTables {
    /// In the order of their ids.
    sorted: Vec<Touched>,
}

impl TouchedTables {
    /// The batch is over.
    pub fn clear(&mut self) {
        self.sorted.clear();
    }

    fn find(&self, table: u32) -> std::result::Result<usize, usize> {
        self.sorted.binary_search_by_key(&table, |t| t.table.info.id)
    }

    /// A table that was noted.
    pub fn get(&self, table: u32) -> Result<&Touched> {
        let found = self.find(table).ok().and_then(|i| self.sorted.get(i));
        found.ok_or_else(|| corrupt("crsql_table", format!("table {table} is not listed")))
    }
}

impl Session {
    /// Looks a table up once per batch.
    pub fn note_table(&self, id: u32, tables: &mut TouchedTables) -> Result<()> {
        if let Err(place) = tables.find(id) {
            let table = self.touched_table(id)?;
            let plain = self.is_plain(id)?;
            tables.sorted.insert(place, Touched { table, plain, clocks: OnceCell::new() });
        }
        Ok(())
    }

    fn touched_table(&self, id: u32) -> Result<Rc<Table>> {
        self.table_of_touches(id)?
            .ok_or_else(|| corrupt("crsql_table", format!("a trigger names table {id}, which is not listed")))
    }

    /// A look at the table will tell whether keys that were touched more than once have a row, and this transaction may have renamed
    /// the table since, or dropped it: then there is none to tell of. Whether touches were left out.
    pub fn leave_out_gone(&self, touches: &mut Touches) -> Result<bool> {
        if !self.knows_schema(self.schema_version()?) {
            self.refresh()?;
        }
        let mut gone = Vec::new();
        for table in touches.tables() {
            let there = match self.table_of_touches(table)? {
                Some(now) => now.gone || now.has_same_key(self)?,
                None => false,
            };
            if !there {
                gone.push(table);
            }
        }
        gone.iter().for_each(|table| touches.forget(*table));
        Ok(!gone.is_empty())
    }

    /// Whether the tables of all touches are there, as far as the catalogue knows: it may be one of before a DROP.
    pub fn knows_touched(&self, touches: &Touches) -> Result<bool> {
        for table in touches.tables() {
            if self.table_of_touches(table)?.is_none() {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Whether a touch inserts a row, not over another one, that is pristine without a look at its clock.
    pub fn inserts_pristine(&self, touched: &Touched, kind: TouchKind, key: &[u8]) -> Result<bool> {
        let simple = matches!(kind, TouchKind::Insert { replace: false, moved: false });
        Ok(simple && !touched.table.looks_older(key) && (touched.plain || !self.has_clocks(touched)?))
    }

    /// Whether any row of the table has a clock.
    fn has_clocks(&self, touched: &Touched) -> Result<bool> {
        if let Some(known) = touched.clocks.get() {
            return Ok(*known);
        }
        let any = self.any_clock(&touched.table)?;
        Ok(*touched.clocks.get_or_init(|| any))
    }

    /// The clock that a touched row has, and how many cells are superseded by what it was among the young ones.
    pub fn clock_before(&self, touched: &Touched, key: &[u8]) -> Result<(Option<RowClock>, u64)> {
        if !self.has_clocks(touched)? {
            return Ok((None, 0));
        }
        let (clock, late) = self.get_clock_counted(&touched.table, key)?;
        // Where the new clock goes into a block, the young ones go before it, and are counted then.
        let stays_young = self.tx.borrow().fresh.is_some();
        Ok((clock, if stays_young { late } else { 0 }))
    }
}
