//! What comes into sight, or would go out of it, because a table's columns are other ones than before.
//!
//! Whether a row is shown is a function of its clock and the columns (X5): a value that a NOT NULL column lacks keeps it aside.
//! So where a column demands a value no more, rows that waited for one are shown; and where one begins to, or its default
//! changes, cells that were never written, and hold the default of before, are written for what they are.

use crate::apply::is_visible;
use crate::catalog::Table;
use crate::differences::key_in;
use crate::schema::TableInfo;
use crate::session::Session;
use crate::sqlgen;
use crate::sqlite::Result;
use starling_crdt::row_clock::RowClock;
use starling_crdt::{Value, ValueRef};
use std::collections::BTreeSet;

impl Session {
    /// Shows the rows that are complete by their clocks and were not before. `before`: the table as it was, where that is known;
    /// else values that are kept aside tell of such a row, or that it has none at all. Returns their keys.
    ///
    /// # Errors
    /// What SQLite says of such a row, a CHECK's refusal for instance.
    pub fn show_complete(&self, table: &Table, before: Option<&Table>) -> Result<BTreeSet<Vec<u8>>> {
        let kept = self.keys_kept_aside(table)?;
        let listed = |table: &Table, key: &[u8], clock: &RowClock| {
            let mut clock = clock.clone();
            table.list_late(key, &mut clock);
            clock
        };
        let mut complete: Vec<(Vec<u8>, RowClock)> = Vec::new();
        self.each_clock(table, &mut |key, clock| {
            let now = listed(table, key, clock);
            let waited = match before {
                Some(before) => !is_visible(before, &listed(before, key, clock)),
                None => kept.contains(key) || table.column_ids.iter().all(|id| now.version_of(*id) == 0),
            };
            if waited && is_visible(table, &now) {
                complete.push((key.to_vec(), now));
            }
        })?;
        let mut shown = BTreeSet::new();
        for (key, clock) in complete {
            if !self.row_exists(table, &key)? {
                self.show(table, &key, &clock)?;
                shown.insert(key);
            }
        }
        Ok(shown)
    }

    fn show(&self, table: &Table, key: &[u8], clock: &RowClock) -> Result<()> {
        let mut values: Vec<(usize, Value)> = Vec::new();
        for (position, id) in table.column_ids.iter().enumerate().filter(|(_, id)| clock.version_of(**id) > 0) {
            values.push((position, self.hidden_value(table, key, *id)?));
        }
        let cells: Vec<(usize, ValueRef<'_>)> = values.iter().map(|(position, v)| (*position, v.as_ref())).collect();
        self.insert_cells(table, key, &cells)?;
        self.unhide(table, key)
    }

    fn keys_kept_aside(&self, table: &Table) -> Result<BTreeSet<Vec<u8>>> {
        let mut all = self.fixed("SELECT DISTINCT key FROM main.crsql_hidden WHERE table_id = ?1")?;
        all.bind_int(1, i64::from(table.info.id))?;
        let mut keys = BTreeSet::new();
        while all.step()? {
            keys.insert(all.column_blob(0).to_vec());
        }
        Ok(keys)
    }

    /// Rows that only their cells spoke for, and whose cells all went with their columns, are logged as inserted: else nothing would
    /// tell of them any more (I1).
    pub fn log_bare(&self, table: &Table, before: &Table) -> Result<()> {
        if !table.column_ids.is_empty() || before.column_ids.is_empty() {
            return Ok(());
        }
        let mut bare = Vec::new();
        self.each_clock(table, &mut |key, clock| {
            if is_visible(table, clock) && clock.cl == 1 && !clock.based && clock.moved.is_none() {
                bare.push(key.to_vec());
            }
        })?;
        for key in bare {
            self.log_row(table, &key)?;
        }
        self.flush()
    }

    /// Logs as written the cells that never were, of columns that demand a value now, or have another default.
    pub fn log_never_written(&self, table: &Table, before: &TableInfo) -> Result<()> {
        let other = |id: u32| {
            let (Some(old), Some(new)) = (by_id(before, id), by_id(&table.info, id)) else { return false };
            (new.required && !old.required) || new.default_sql != old.default_sql
        };
        let columns: Vec<(usize, u32)> = table.column_ids.iter().copied().enumerate().filter(|c| other(c.1)).collect();
        if columns.is_empty() {
            return Ok(());
        }
        let mut select = self.db.prepare_transient(&sqlgen::select_keys(&table.info))?;
        let mut key = Vec::new();
        while select.step()? {
            key_in(&select, table, &mut key);
            let clock = self.get_clock(table, &key)?.unwrap_or_else(|| table.pristine(&key));
            for (position, id) in &columns {
                if clock.version_of(*id) == 0 {
                    self.log_cell(table, *position, &key)?;
                }
            }
        }
        drop(select);
        self.flush()
    }
}

fn by_id(info: &TableInfo, id: u32) -> Option<&crate::schema::Column> {
    info.columns.iter().find(|c| c.id == id)
}
