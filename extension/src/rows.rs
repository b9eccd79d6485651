//! Rows on disk, by key, and the values that are kept aside because their row cannot be shown.

use crate::catalog::Table;
use crate::session::{corrupt, Session, Sql};
use crate::sqlite::{Result, Stmt};
use starling_crdt::key;
use starling_crdt::{Value, ValueRef};

/// Binds an internal key to the first parameters, one per key column.
pub fn bind_key(stmt: &mut Stmt, table: &Table, key: &[u8]) -> Result<()> {
    for (i, column) in key::columns(key, table.info.keys.len()).enumerate() {
        stmt.bind_value(i + 1, column.map_err(|e| corrupt("a key", e))?.value())?;
    }
    Ok(())
}

impl Session {
    /// Whether the table shows a row.
    pub fn row_exists(&self, table: &Table, key: &[u8]) -> Result<bool> {
        let mut get = self.of_table(Sql::RowExists, table)?;
        bind_key(&mut get, table, key)?;
        get.step()
    }

    /// The values of a row, in column order.
    pub fn row_values(&self, table: &Table, key: &[u8]) -> Result<Option<Vec<Value>>> {
        let mut get = self.of_table(Sql::SelectRow, table)?;
        bind_key(&mut get, table, key)?;
        if !get.step()? {
            return Ok(None);
        }
        Ok(Some((0..table.info.columns.len()).map(|i| get.column(i).to_owned()).collect()))
    }

    /// A value that is kept aside because its row cannot be shown.
    pub fn hidden_value(&self, table: &Table, key: &[u8], column: u32) -> Result<Value> {
        let mut get =
            self.fixed("SELECT value FROM main.crsql_hidden WHERE table_id = ?1 AND key = ?2 AND column_id = ?3")?;
        get.bind_int(1, i64::from(table.info.id))?;
        get.bind_blob(2, key)?;
        get.bind_int(3, i64::from(column))?;
        Ok(if get.step()? { get.column(0).to_owned() } else { Value::Null })
    }

    /// Keeps a value aside.
    pub fn hide_value(&self, table: &Table, key: &[u8], column: u32, value: ValueRef<'_>) -> Result<()> {
        let mut put = self.fixed(
            "INSERT OR REPLACE INTO main.crsql_hidden(table_id, key, column_id, value) VALUES(?1, ?2, ?3, ?4)",
        )?;
        put.bind_int(1, i64::from(table.info.id))?;
        put.bind_blob(2, key)?;
        put.bind_int(3, i64::from(column))?;
        put.bind_value(4, value)?;
        put.execute()
    }

    /// Forgets all values kept aside for a row.
    pub fn unhide(&self, table: &Table, key: &[u8]) -> Result<()> {
        let mut drop = self.fixed("DELETE FROM main.crsql_hidden WHERE table_id = ?1 AND key = ?2")?;
        drop.bind_int(1, i64::from(table.info.id))?;
        drop.bind_blob(2, key)?;
        drop.execute()
    }
}
