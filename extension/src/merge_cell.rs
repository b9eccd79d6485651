//! Merging one cell. What most cells do needs neither a copy of the row's clock nor a look at the row: they come to a key that
//! is free, or are newer than the cell that they find, which is mostly one of the row that was merged last.

use crate::apply::{is_visible, Applied, MergedEntry};
use crate::catalog::Table;
use crate::row_sql::RowWrite;
use crate::rows::execute_with_key;
use crate::session::Session;
use crate::sqlite::Result;
use starling_crdt::decide::{first_of_row, overwrites, Incoming, IncomingCell, IncomingKind};
use starling_crdt::log_chunk::Kind;
use starling_crdt::row_clock::{CellClock, RowClock, Stamp};
use starling_crdt::ValueRef;
use std::cell::Cell;

impl CellMerge<'_> {
    fn listed(&self) -> CellClock {
        CellClock { column: self.cell.column, version: self.cell.version, stamp: self.cell.stamp }
    }

    /// It takes the place of the one that a row in plain sight has.
    fn overwrites(&self, clock: &RowClock) -> bool {
        overwrites(clock, self.cl, self.cell.column, self.cell.version) && is_visible(self.table, clock)
    }
}

/// Room for so many cells is made at once in a new row's clock.
const ROOM: usize = 16;

/// A cell, and where it belongs.
#[derive(Clone, Copy)]
pub struct CellMerge<'a> {
    /// Its table.
    pub table: &'a Table,
    /// Its row's key, internal form.
    pub key: &'a [u8],
    /// Where the row was when it was inserted, if the cell before did that.
    pub rowid: &'a Cell<Option<i64>>,
    /// Its row's causal length, which is odd.
    pub cl: u64,
    /// Its column's position.
    pub position: usize,
    /// It.
    pub cell: IncomingCell<'a>,
}

impl Session {
    /// Merges a cell whose row may be shown; returns what is to be logged, or none if that is a mask with this one column. Where
    /// there is a short way, it comes to what [`Session::merge_row`] does.
    pub fn merge_cell(&self, merge: &CellMerge<'_>) -> Result<Option<Vec<MergedEntry>>> {
        if self.overwrites_newest(merge)? {
            return self.overwrite(merge, None).map(|()| None);
        }
        let clock = match self.get_clock(merge.table, merge.key)? {
            Some(clock) if merge.overwrites(&clock) => return self.overwrite(merge, Some(clock)).map(|()| None),
            None if self.makes_the_row(merge)? => return Ok(None),
            clock => clock,
        };
        let kind = IncomingKind::Cells { born: true, life: None };
        let incoming = Incoming { cl: merge.cl, kind, cells: vec![merge.cell] };
        let applied = self.merge_row_with(merge.table, merge.key, &incoming, clock)?;
        self.with_birth(merge.table, merge.key, applied, merge.cell.stamp).map(Some)
    }

    /// The entries of what was merged from nine values. Where the row has been born by it, and nothing else happened, no dot would
    /// tell others (I6): then one of its cells is written once more as it is, under this transaction's dot.
    pub fn with_birth(&self, table: &Table, key: &[u8], applied: Applied, dot: Stamp) -> Result<Vec<MergedEntry>> {
        if applied.changes == 0 || !applied.entries.is_empty() {
            return Ok(applied.entries);
        }
        let Some(mut clock) = self.get_clock(table, key)? else { return Ok(applied.entries) };
        let written = clock.cells.iter().find(|cell| cell.version > 0 && !cell.stamp.same_dot(&dot)).copied();
        let Some(cell) = written else { return Ok(applied.entries) };
        let author = match cell.stamp.author {
            0 => self.author(&self.origin_of(cell.stamp.origin)?.0.site)?,
            author => author,
        };
        let stamp = Stamp { seq: self.journal.borrow_mut().take_seqs(1), author, ..dot };
        clock.set(CellClock { stamp, ..cell });
        self.put_clock_later(table, key, clock, true)?;
        Ok(vec![MergedEntry { stamp, kind: Kind::Mask, columns: vec![cell.column] }])
    }

    fn overwrites_newest(&self, merge: &CellMerge<'_>) -> Result<bool> {
        let table = merge.table;
        let overwrites = {
            let tx = self.tx.borrow();
            tx.backlog.newest_of(table.info.id, merge.key).is_some_and(|clock| merge.overwrites(clock))
        };
        // A clock that was written before a column came does not list it yet. And a user's trigger may merge on its own.
        Ok(overwrites && table.history.births.is_empty() && !self.has_user_triggers(table)?)
    }

    /// `clock` is the row's; none if it is the one that was written last, and stays where it is.
    fn overwrite(&self, merge: &CellMerge<'_>, clock: Option<RowClock>) -> Result<()> {
        let (table, key, cell) = (merge.table, merge.key, &merge.cell);
        if clock.is_some() || !self.update_in_place(merge)? {
            self.update_cells(table, key, &[(merge.position, cell.value)])?;
        }
        let in_place = if clock.is_some() { None } else { self.set_in_newest(merge) };
        let before = match in_place {
            Some(before) => before,
            None => {
                // Or the write itself brought something about that put other clocks into their blocks.
                let clock = clock.map_or_else(|| self.get_clock(table, key), |clock| Ok(Some(clock)))?;
                let mut clock = clock.unwrap_or_else(|| table.pristine(key));
                let before = clock.cell(cell.column).copied();
                clock.set(merge.listed());
                self.put_clock_later(table, key, clock, true)?;
                before
            }
        };
        let replaced = before.map(|before| before.stamp).filter(|before| *before != cell.stamp);
        if before.is_some_and(|before| before.version > 0 && before.stamp != cell.stamp) {
            self.tx_mut().supersede(1);
        }
        let dot = self.tx.borrow().local.map(|open| open.stamp());
        if let (Some(replaced), Some(dot)) = (replaced, dot) {
            if replaced.same_dot(&dot) {
                let next_seq = self.journal.borrow().next_seq();
                self.tx_mut().spent.note_cell((table.info.id, key), cell.column, &replaced, next_seq);
            }
        }
        Ok(())
    }

    /// Updates the row where a cell before this one inserted it, which spares the way through the key's index; `false` if it is not
    /// there any more, or something refuses the value. Not for a table with triggers of the user's.
    fn update_in_place(&self, merge: &CellMerge<'_>) -> Result<bool> {
        let Some(rowid) = merge.rowid.get() else { return Ok(false) };
        let cell = (merge.position, merge.cell.value);
        let write = || {
            merge.table.info.refuse_null([cell])?;
            let mut stmt = self.of_cells(merge.table, RowWrite::UpdateAt, &[cell])?;
            execute_with_key(&mut stmt, merge.table, merge.key, [cell.1, ValueRef::Integer(rowid)].into_iter())
        };
        let updated = self.tried(self.as_merge(merge.table, merge.key, write))? == 1;
        if !updated {
            merge.rowid.set(None);
        }
        Ok(updated)
    }

    /// Lists the cell in the clock that was written last, if that is its row's; answers what was listed there.
    fn set_in_newest(&self, merge: &CellMerge<'_>) -> Option<Option<CellClock>> {
        let mut tx = self.tx_mut();
        let clock = tx.backlog.newest_of_mut(merge.table.info.id, merge.key)?;
        let before = clock.cell(merge.cell.column).copied();
        clock.set(merge.listed());
        Some(before)
    }

    /// The cell of a row that nobody has heard of: its key is free, so that the row is inserted without a look for it. A cell in
    /// its first version is most likely of that kind.
    fn makes_the_row(&self, merge: &CellMerge<'_>) -> Result<bool> {
        let (table, key, cell) = (merge.table, merge.key, &merge.cell);
        // A BEFORE trigger tells of an insert that then does not happen.
        let told_before = table.info.tells_overwritten || self.has_user_triggers(table)?;
        if merge.cl != 1 || cell.version != 1 || told_before || !self.db.triggers_enabled()? {
            return Ok(false);
        }
        // The others mostly follow.
        let clock = first_of_row(cell, table.column_ids.len().min(ROOM));
        if !is_visible(table, &clock) || !self.insert_if_free(table, key, (merge.position, cell.value))? {
            return Ok(false);
        }
        merge.rowid.set(table.has_spare_rowid(self.db)?.then(|| self.db.last_insert_rowid()));
        self.put_clock_later(table, key, clock, false)?;
        Ok(true)
    }
}
