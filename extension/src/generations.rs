//! The history of a table's columns: which of them a row's base speaks for.
//!
//! Adding a column costs nothing per row: a row that was there before holds the column's default, and that cell is absent
//! (it loses to anything). Which rows were there before is told by their keys: each generation that added columns
//! remembers the largest key of that moment, its watermark. A row above it came later; a row that came later with a key
//! below it carries the generation in its row clock.

use crate::catalog::Table;
use crate::session::{corrupt, Session};
use crate::sqlite::Result;
use starling_crdt::key;
use starling_crdt::log_chunk::Entry;
use starling_crdt::log_chunk::Kind;
use starling_crdt::row_clock::{CellClock, RowClock, Stamp};
use starling_crdt::ValueRef;

/// What became of a table's columns.
#[derive(Clone, Debug, Default)]
pub struct History {
    /// Columns that were dropped: id, generation they came in, generation they went in.
    pub dropped: Vec<(u32, u32, u32)>,
    /// Generations that added columns, each with the largest key of that moment (internal form; empty = no row).
    pub births: Vec<(u32, Vec<u8>)>,
}

impl Table {
    /// The generation of the base of a row whose clock does not tell it.
    fn generation_by_key(&self, key: &[u8]) -> u32 {
        let births = self.history.births.iter().rev();
        births.filter(|(_, watermark)| key > watermark.as_slice()).map(|(g, _)| *g).next().unwrap_or(1)
    }

    /// Whether a row with this key that is based now must say so in its clock, since its key looks older.
    pub fn looks_older(&self, key: &[u8]) -> bool {
        self.history.births.last().is_some_and(|(_, watermark)| key <= watermark.as_slice())
    }

    /// The generation to note in the clock of a row that is based now, where its key does not tell.
    pub fn noted_generation(&self, key: &[u8]) -> Option<u32> {
        self.looks_older(key).then_some(self.info.generation)
    }

    /// Lists as absent the cells that came after the row's base and were never written since.
    pub fn list_late(&self, key: &[u8], clock: &mut RowClock) {
        if self.history.births.is_empty() || clock.base_version == 0 {
            return;
        }
        let generation = clock.generation.unwrap_or_else(|| self.generation_by_key(key));
        self.list_born_after(generation, clock);
    }

    /// Lists as absent the unlisted cells of columns that came after a generation.
    pub fn list_born_after(&self, generation: u32, clock: &mut RowClock) {
        for column in self.info.columns.iter().filter(|c| c.born > generation) {
            if clock.cell(column.id).is_none() {
                clock.set(CellClock { column: column.id, version: 0, stamp: Stamp::default() });
            }
        }
    }

    /// The state that a row without a clock stands for.
    pub fn pristine(&self, key: &[u8]) -> RowClock {
        let mut clock = RowClock::pristine();
        self.list_late(key, &mut clock);
        clock
    }

    /// Whether the columns are those of a generation.
    pub fn is_as_in(&self, generation: u32) -> bool {
        self.info.columns.iter().all(|c| c.born <= generation)
            && self.history.dropped.iter().all(|(_, born, died)| *born > generation || *died <= generation)
    }

    /// The seq of the cell at a column's position under a base entry: its writer took one seq per column of its
    /// generation, in the order of their ids.
    pub fn base_seq(&self, entry: &Entry, position: usize) -> u64 {
        let generation = entry.table.generation;
        let id = self.info.columns.get(position).map_or(0, |c| c.id);
        let alive = self.info.columns.iter().take(position).filter(|c| c.born <= generation).count();
        let dropped = self.history.dropped.iter();
        let dropped = dropped.filter(|(d, born, died)| *d < id && *born <= generation && *died > generation).count();
        entry.seq + (alive + dropped) as u64 + u64::from(entry.kind == Kind::Rebase)
    }
}

impl Session {
    /// Reads a table's history.
    pub fn history(&self, id: u32) -> Result<History> {
        let mut history = History::default();
        let number = |v: i64| u32::try_from(v).map_err(|e| corrupt("crsql_column", e));
        let mut dropped = self.fixed(
            "SELECT id, born, died FROM main.crsql_column WHERE table_id = ?1 AND died IS NOT NULL AND is_key = 0 \
             ORDER BY id",
        )?;
        dropped.bind_int(1, i64::from(id))?;
        while dropped.step()? {
            let column =
                (number(dropped.column_int(0))?, number(dropped.column_int(1))?, number(dropped.column_int(2))?);
            history.dropped.push(column);
        }
        let mut births =
            self.fixed("SELECT generation, watermark FROM main.crsql_birth WHERE table_id = ?1 ORDER BY generation")?;
        births.bind_int(1, i64::from(id))?;
        while births.step()? {
            history.births.push((number(births.column_int(0))?, births.column_blob(1).to_vec()));
        }
        Ok(history)
    }

    /// Remembers the largest key that the table has now, as the watermark of a generation. It never sinks, so that a row
    /// above it is above all the former ones too.
    pub fn note_birth(&self, table: &Table, generation: u32) -> Result<()> {
        let mut watermark = table.history.births.last().map_or_else(Vec::new, |(_, w)| w.clone());
        let mut all = self.db.prepare_transient(&crate::sqlgen::select_keys(&table.info))?;
        let mut bytes = Vec::new();
        while all.step()? {
            let columns: Vec<ValueRef<'_>> = (0..table.info.keys.len()).map(|i| all.column(i)).collect();
            bytes.clear();
            key::encode(columns, &mut bytes);
            if bytes > watermark {
                watermark.clone_from(&bytes);
            }
        }
        drop(all);
        // Rows that wait were there before, too.
        self.each_clock(table, &mut |key, clock| {
            if clock.is_alive() && key > watermark.as_slice() {
                watermark = key.to_vec();
            }
        })?;
        let mut add =
            self.fixed("INSERT OR REPLACE INTO main.crsql_birth(table_id, generation, watermark) VALUES(?1, ?2, ?3)")?;
        add.bind_int(1, i64::from(table.info.id))?;
        add.bind_int(2, i64::from(generation))?;
        add.bind_blob(3, &watermark)?;
        add.execute()
    }
}
