//! What a user's trigger makes of a row that a merge writes is overruled: the row's author ran it already (X10).

use crate::catalog::Table;
use crate::row_sql::RowWrite;
use crate::session::Session;
use crate::sqlite::Result;
use starling_crdt::ValueRef;

impl Session {
    /// Runs a write without any trigger, to overrule what a user's trigger made of the merged row (X10).
    pub(crate) fn without_triggers<T>(&self, write: impl FnOnce() -> Result<T>) -> Result<T> {
        let before = self.db.set_triggers_enabled(false)?;
        let result = write();
        self.db.set_triggers_enabled(before)?;
        result
    }

    /// Makes the row be there with these cells, whatever triggers say; other cells of a row that is there stay.
    pub(crate) fn force(&self, table: &Table, key: &[u8], cells: &[(usize, ValueRef<'_>)]) -> Result<()> {
        self.without_triggers(|| {
            if !self.row_exists(table, key)? {
                self.run_cells(table, key, RowWrite::Insert, cells)
            } else if cells.is_empty() {
                Ok(())
            } else {
                self.run_cells(table, key, RowWrite::Update, cells)?;
                self.correct(table, key, cells)
            }
        })
    }

    /// Temporary triggers cannot be kept from firing. What one made of other columns than those it fires on is put right.
    fn correct(&self, table: &Table, key: &[u8], cells: &[(usize, ValueRef<'_>)]) -> Result<()> {
        let Some(now) = self.row_values(table, key)? else { return Ok(()) };
        let wrong = |(i, value): &&(usize, ValueRef<'_>)| now.get(*i).is_some_and(|now| now.as_ref() != *value);
        let wrong: Vec<(usize, ValueRef<'_>)> = cells.iter().filter(wrong).copied().collect();
        if wrong.is_empty() {
            return Ok(());
        }
        self.run_cells(table, key, RowWrite::Update, &wrong)
    }

    /// Whether the one touch that an insert was told by is its own: a BEFORE trigger of the application may have inserted that very
    /// key, so that the insert itself came to nothing.
    pub(crate) fn is_as_inserted(&self, table: &Table, key: &[u8], cells: &[(usize, ValueRef<'_>)]) -> Result<bool> {
        Ok(!self.has_user_triggers(table)? || self.row_has(table, key, cells)?)
    }

    /// Makes the row be there with these cells and its defaults, whatever triggers say.
    pub(crate) fn force_anew(&self, table: &Table, key: &[u8], cells: &[(usize, ValueRef<'_>)]) -> Result<()> {
        self.without_triggers(|| {
            self.run_delete(table, key)?;
            self.run_cells(table, key, RowWrite::Insert, cells)
        })
    }
}
