//! What comes into sight, or would go out of it, because a table's columns are other ones than before.
//!
//! Whether a row is shown is a function of its clock and the columns (X5): a value that a NOT NULL column lacks keeps it aside.
//! So where a column demands a value no more, rows that waited for one are shown; and where one begins to, or its default
//! changes, cells that were never written, and hold the default of before, are written for what they are.

use crate::apply::is_visible;
use crate::catalog::Table;
use crate::rows::is_the_rows;
use crate::schema::{self, TableInfo};
use crate::session::Session;
use crate::sqlgen;
use crate::sqlite::Result;
use starling_crdt::row_clock::RowClock;
use starling_crdt::{Value, ValueRef};
use std::collections::BTreeSet;
use std::rc::Rc;

/// What was in sight before the columns changed.
pub enum Before {
    /// Rows that this table showed: an alter window has it.
    Table(Rc<Table>),
    /// Rows that lacked none of these columns, where that was noted.
    Noted {
        /// The columns that demanded a value.
        demanded: Option<Vec<u32>>,
        /// Keys of rows of which something is kept aside.
        kept: BTreeSet<Vec<u8>>,
    },
}

/// The column under which it is noted that a row was refused: none has this id.
const REFUSED: u32 = 0;

impl Before {
    /// Whether the table showed the row. `clock` is as it is stored.
    pub fn showed(&self, table: &Table, key: &[u8], clock: &RowClock) -> bool {
        match self {
            Self::Table(before) => is_visible(before, &listed(before, key, clock)),
            Self::Noted { demanded, kept } => {
                let written = clock.base_version > 0 || clock.cells.iter().any(|cell| cell.version > 0);
                let now = listed(table, key, clock);
                let complete = demanded.as_ref().map(|ids| ids.iter().all(|id| now.version_of(*id) > 0));
                // A row that waits has its values kept aside, if it has any.
                let there = !kept.contains(key) && (written || table.column_ids.is_empty());
                now.is_alive() && now.born && (complete == Some(true) || there)
            }
        }
    }
}

fn listed(table: &Table, key: &[u8], clock: &RowClock) -> RowClock {
    let mut clock = clock.clone();
    table.list_late(key, &mut clock);
    clock
}

impl Session {
    /// What is in sight of a table as its triggers stand, for a time when its columns have changed. To be asked for before they
    /// are made anew.
    pub fn before_now(&self, id: u32) -> Result<Before> {
        let demanded = self.table_note("needs", id)?;
        let demanded = demanded.map(|ids| ids.split(',').filter_map(|id| id.parse().ok()).collect());
        Ok(Before::Noted { demanded, kept: self.keys_kept_aside(id)? })
    }

    /// Notes which columns of a table demand a value.
    pub fn note_needs(&self, info: &TableInfo) -> Result<()> {
        let ids: Vec<String> = info.columns.iter().filter(|c| c.required).map(|c| c.id.to_string()).collect();
        self.set_table_note("needs", info.id, &ids.join(","))
    }

    /// Shows the rows that are complete by their clocks and were not before. Returns their keys. A row that a constraint refuses
    /// goes on waiting, as one that is not born.
    pub fn show_complete(&self, table: &Table, before: &Before) -> Result<BTreeSet<Vec<u8>>> {
        let mut complete: Vec<(Vec<u8>, RowClock)> = Vec::new();
        let refused = self.refused_keys(table.info.id)?;
        self.each_clock(table, &mut |key, clock| {
            let mut now = listed(table, key, clock);
            now.born |= refused.contains(key);
            if is_visible(table, &now) && !before.showed(table, key, clock) {
                complete.push((key.to_vec(), now));
            }
        })?;
        let mut shown = BTreeSet::new();
        for (key, mut clock) in complete {
            if !self.row_exists(table, &key)? && self.show_or_wait(table, &key, &mut clock)? {
                shown.insert(key);
            }
        }
        Ok(shown)
    }

    /// Shows a row that is complete; where a constraint refuses it, it waits, as one that is not born. Whether it is shown.
    fn show_or_wait(&self, table: &Table, key: &[u8], clock: &mut RowClock) -> Result<bool> {
        clock.born = match self.show(table, key, clock) {
            Ok(()) => true,
            Err(e) if is_the_rows(&e) && self.tx.borrow().active => {
                self.hide_value(table, key, REFUSED, ValueRef::Null)?;
                false
            }
            Err(e) => return Err(e),
        };
        self.put_clock(table, key, clock)?;
        Ok(clock.born)
    }

    /// Tries again to show some rows of a table that a constraint refused.
    pub fn show_some_refused(&self, id: u32, count: i64) -> Result<()> {
        let Some(table) = self.table(id)? else { return Ok(()) };
        let mut keys = Vec::new();
        {
            let mut some = self.fixed(
                "SELECT key FROM main.crsql_hidden WHERE table_id = ?1 AND column_id = 0 ORDER BY random() LIMIT ?2",
            )?;
            some.bind_int(1, i64::from(id))?;
            some.bind_int(2, count)?;
            while some.step()? {
                keys.push(some.column_blob(0).to_vec());
            }
        }
        for key in keys {
            let Some(mut clock) = self.get_clock(&table, &key)? else { continue };
            clock.born = true;
            if is_visible(&table, &clock) && !self.row_exists(&table, &key)? {
                self.show_or_wait(&table, &key, &mut clock)?;
            }
        }
        Ok(())
    }

    /// The tables of which rows wait that a constraint refused.
    pub fn tables_with_refused(&self) -> Result<Vec<u32>> {
        let mut all = self.fixed("SELECT DISTINCT table_id FROM main.crsql_hidden WHERE column_id = 0")?;
        let mut ids = Vec::new();
        while all.step()? {
            ids.extend(u32::try_from(all.column_int(0)));
        }
        Ok(ids)
    }

    /// Tries again to show what a constraint refused.
    pub fn show_refused(&self, id: u32) -> Result<()> {
        if self.keys_kept_aside(id)?.is_empty() {
            return Ok(());
        }
        match self.table(id)? {
            Some(table) => self.show_complete(&table, &self.before_now(id)?).map(drop),
            None => Ok(()),
        }
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

    fn keys_kept_aside(&self, id: u32) -> Result<BTreeSet<Vec<u8>>> {
        self.keys_where("SELECT DISTINCT key FROM main.crsql_hidden WHERE table_id = ?1", id)
    }

    /// Whether a constraint refused a row when it could be shown.
    pub fn was_refused(&self, id: u32, key: &[u8]) -> Result<bool> {
        let mut any =
            self.fixed("SELECT 1 FROM main.crsql_hidden WHERE table_id = ?1 AND key = ?2 AND column_id = 0")?;
        any.bind_int(1, i64::from(id))?;
        any.bind_blob(2, key)?;
        any.step()
    }

    /// Rows that a constraint refused when they could be shown.
    fn refused_keys(&self, id: u32) -> Result<BTreeSet<Vec<u8>>> {
        self.keys_where("SELECT key FROM main.crsql_hidden WHERE table_id = ?1 AND column_id = 0", id)
    }

    fn keys_where(&self, sql: &'static str, id: u32) -> Result<BTreeSet<Vec<u8>>> {
        let mut all = self.fixed(sql)?;
        all.bind_int(1, i64::from(id))?;
        let mut keys = BTreeSet::new();
        while all.step()? {
            keys.insert(all.column_blob(0).to_vec());
        }
        Ok(keys)
    }

    /// Rows that only their cells spoke for, and whose cells all went with their columns, are logged as inserted: else nothing would
    /// tell of them any more (I1).
    pub fn log_bare(&self, table: &Table, before: &Table) -> Result<()> {
        if before.column_ids.iter().all(|id| table.column_ids.contains(id)) {
            return Ok(());
        }
        let mut bare = Vec::new();
        self.each_clock(table, &mut |key, clock| {
            if !clock.based && is_visible(table, clock) && table.column_ids.iter().all(|id| clock.version_of(*id) == 0)
            {
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
        // The default is the same, and is stored otherwise by now: as 5 where it was 5.0.
        let retyped = |id: &u32| {
            let (Some(old), Some(new)) = (by_id(before, *id), by_id(&table.info, *id)) else { return false };
            new.affinity != old.affinity && !other(*id)
        };
        let retyped: Vec<u32> = table.column_ids.iter().copied().filter(retyped).collect();
        self.log_grown(table, &retyped)?;
        let columns: Vec<(usize, u32)> = table.column_ids.iter().copied().enumerate().filter(|c| other(c.1)).collect();
        if columns.is_empty() {
            return Ok(());
        }
        let select = self.db.prepare_transient(&sqlgen::select_keys(&table.info))?;
        self.log_unwritten(table, &columns, select, |_, _| true)
    }
}

fn by_id(info: &TableInfo, id: u32) -> Option<&schema::Column> {
    info.columns.iter().find(|c| c.id == id)
}
