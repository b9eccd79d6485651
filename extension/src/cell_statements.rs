//! Cached statements that write one column of a row: what a merge cell by cell runs, each time another column's.

use crate::row_sql::RowWrite;
use crate::sqlite::Stmt;

/// The statements of a table.
#[derive(Default)]
struct OfTable {
    table: u32,
    /// By the column's position, for each way to write it.
    of_columns: Vec<[Option<Stmt>; RowWrite::ALL]>,
}

/// Those of a connection. Tables are few, and the one used last is looked at first.
#[derive(Default)]
pub struct CellStatements {
    tables: Vec<OfTable>,
    /// Statements held, those on loan not counted.
    held: usize,
}

/// Statements kept; above it the cache starts anew.
const MAX: usize = 128;

impl CellStatements {
    /// The statement that writes the column at a position, which the caller has to give back.
    pub fn take(&mut self, table: u32, write: RowWrite, position: usize) -> Option<Stmt> {
        let stmt = self.of(table)?.of_columns.get_mut(position)?.get_mut(write as usize)?.take();
        self.held -= usize::from(stmt.is_some());
        stmt
    }

    /// Keeps a statement.
    pub fn give(&mut self, table: u32, write: RowWrite, position: usize, stmt: Stmt) {
        if self.held >= MAX {
            self.clear();
        }
        if self.of(table).is_none() {
            self.tables.push(OfTable { table, of_columns: Vec::new() });
        }
        let Some(of) = self.of(table) else { return };
        if of.of_columns.len() <= position {
            of.of_columns.resize_with(position + 1, Default::default);
        }
        if let Some(slot) = of.of_columns.get_mut(position).and_then(|slots| slots.get_mut(write as usize)) {
            let before = slot.replace(stmt);
            self.held += usize::from(before.is_none());
        }
    }

    /// Finalizes them all.
    pub fn clear(&mut self) {
        *self = Self::default();
    }

    fn of(&mut self, table: u32) -> Option<&mut OfTable> {
        let at = self.tables.iter().position(|of| of.table == table)?;
        self.tables.swap(0, at);
        self.tables.first_mut()
    }
}
