//! What a table holds against what the log says: rows that came or went while nobody captured, cells of new columns.

use crate::apply::is_visible;
use crate::catalog::Table;
use crate::schema::Column;
use crate::session::Session;
use crate::sight::Before;
use crate::sqlgen;
use crate::sqlite::{Result, Stmt};
use starling_crdt::local::{insert_width, TouchKind, MASK_BITS};
use starling_crdt::log_chunk::Kind;
use starling_crdt::{key, ValueRef};
use std::collections::BTreeSet;

/// An insert over a row that may have been there: every cell is written.
const WRITTEN: TouchKind = TouchKind::Insert { replace: true, moved: false };
const INSERTED: TouchKind = TouchKind::Insert { replace: false, moved: false };

/// The key in the first columns of a row, internal form.
pub fn key_in(row: &Stmt, table: &Table, out: &mut Vec<u8>) {
    out.clear();
    let columns: Vec<ValueRef<'_>> = (0..table.info.keys.len()).map(|i| row.column(i)).collect();
    key::encode(columns, out);
}

impl Session {
    /// A table that was a CRR before: rows that came since are logged as new, rows that went as deleted, and of the others
    /// all cells are written once more, since nothing tells which of them changed (X3).
    pub fn log_differences(&self, table: &Table, before: &Before) -> Result<()> {
        self.flush()?;
        self.check_keys(&table.info)?;
        let mut select = self.db.prepare_transient(&sqlgen::select_keys(&table.info))?;
        let mut bytes = Vec::new();
        while select.step()? {
            key_in(&select, table, &mut bytes);
            self.note(table, WRITTEN, &bytes)?;
        }
        drop(select);
        self.flush()?;
        let known = self.known_keys(table, before)?;
        self.log_vanished(table, &known)
    }

    /// Tells the journal what became of a key.
    fn note(&self, table: &Table, kind: TouchKind, key: &[u8]) -> Result<()> {
        let width = match kind {
            TouchKind::Insert { moved, .. } => insert_width(moved, table.column_ids.len() as u64),
            TouchKind::Update { mask, .. } => u64::from(mask.count_ones()),
            TouchKind::Delete => 1,
        };
        let full = {
            let mut journal = self.journal.borrow_mut();
            journal.touch(table.info.id, kind, width, |out| out.extend_from_slice(key));
            journal.is_full()
        };
        if full {
            self.flush()?;
        }
        Ok(())
    }

    /// Keys of rows that the table ought to show, by the log and the clocks, or showed before. Pristine rows have no trace but their
    /// base entry; rows that wait for a value are not there to be missed.
    pub fn known_keys(&self, table: &Table, before: &Before) -> Result<BTreeSet<Vec<u8>>> {
        let mut keys = BTreeSet::new();
        self.each_entry(&mut |_, entry, key, _| {
            if entry.table.id == table.info.id && matches!(entry.kind, Kind::Base | Kind::Rebase) {
                keys.insert(key.to_vec());
            }
            Ok(true)
        })?;
        self.each_clock(table, &mut |key, stored| {
            let mut clock = stored.clone();
            table.list_late(key, &mut clock);
            if is_visible(table, &clock) || before.showed(table, key, stored) {
                keys.insert(key.to_vec());
            } else {
                keys.remove(key);
            }
        })?;
        Ok(keys)
    }

    /// Logs as deleted the known rows that are gone.
    pub fn log_vanished(&self, table: &Table, known: &BTreeSet<Vec<u8>>) -> Result<()> {
        for key in known {
            if !self.row_exists(table, key)? {
                self.note(table, TouchKind::Delete, key)?;
            }
        }
        self.flush()
    }

    /// Logs as inserted the rows that nobody knew.
    pub fn log_appeared(&self, table: &Table, known: &BTreeSet<Vec<u8>>) -> Result<()> {
        let mut select = self.db.prepare_transient(&sqlgen::select_keys(&table.info))?;
        let mut bytes = Vec::new();
        while select.step()? {
            key_in(&select, table, &mut bytes);
            if !known.contains(&bytes) {
                self.note(table, INSERTED, &bytes)?;
            }
        }
        drop(select);
        self.flush()
    }

    /// Logs the cells of new columns that do not hold their default and were not logged yet. A cell at its default stays
    /// unwritten: adding a column makes no changes.
    pub fn log_grown(&self, table: &Table, born: &[u32]) -> Result<()> {
        let grown: Vec<(usize, &Column)> =
            table.info.columns.iter().enumerate().filter(|(_, c)| born.contains(&c.id)).collect();
        if grown.is_empty() {
            return Ok(());
        }
        let columns: Vec<&Column> = grown.iter().map(|(_, c)| *c).collect();
        let select = self.db.prepare_transient(&sqlgen::select_not_default(&table.info, &columns))?;
        let columns: Vec<(usize, u32)> = grown.iter().map(|(position, column)| (*position, column.id)).collect();
        let keys = table.info.keys.len();
        self.log_unwritten(table, &columns, select, |row, i| row.column_int(keys + i) != 0)
    }

    /// Logs cells that were never written, of those columns (position and id) that are wanted of a row that `select` yields; a
    /// row begins with its key.
    pub fn log_unwritten(
        &self,
        table: &Table,
        columns: &[(usize, u32)],
        mut select: Stmt,
        wanted: impl Fn(&Stmt, usize) -> bool,
    ) -> Result<()> {
        let mut key = Vec::new();
        while select.step()? {
            key_in(&select, table, &mut key);
            let clock = self.get_clock(table, &key)?.unwrap_or_else(|| table.pristine(&key));
            for (i, (position, id)) in columns.iter().enumerate() {
                if wanted(&select, i) && clock.version_of(*id) == 0 {
                    self.log_cell(table, *position, &key)?;
                }
            }
        }
        drop(select);
        self.flush()
    }

    /// Logs a row as written once more.
    pub fn log_row(&self, table: &Table, key: &[u8]) -> Result<()> {
        self.note(table, WRITTEN, key)
    }

    /// Logs one cell of a row as written once more.
    pub fn log_cell(&self, table: &Table, position: usize, key: &[u8]) -> Result<()> {
        self.note(table, written_cell(position), key)
    }
}

fn written_cell(position: usize) -> TouchKind {
    let bits = MASK_BITS as usize;
    TouchKind::Update { word: u16::try_from(position / bits).unwrap_or(u16::MAX), mask: 1 << (position % bits) }
}
