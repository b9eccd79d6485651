//! Rows on disk, by key, and the values that are kept aside because their row cannot be shown.

use crate::catalog::Table;
use crate::schema::Column;
use crate::session::{corrupt, Cached, Session, Sql};
use crate::sqlgen::BATCH;
use crate::sqlite::{codes, Error, Result, Stmt};
use starling_crdt::key;
use starling_crdt::value::Encoded;
use starling_crdt::{Value, ValueRef};

/// Binds an internal key to the first parameters, one per key column.
pub fn bind_key(stmt: &mut Stmt, table: &Table, key: &[u8]) -> Result<()> {
    bind_key_from(stmt, table, key, 1)
}

/// Runs a statement to its end with an internal key as the first parameters, one per key column, and these values as the others.
pub fn execute_with_key<'v>(
    stmt: &mut Stmt,
    table: &Table,
    key: &'v [u8],
    values: impl Iterator<Item = ValueRef<'v>>,
) -> Result<()> {
    let columns = key::columns(key, table.info.keys.len()).map(|c| c.map_err(|e| corrupt("a key", e)));
    stmt.execute_lent(columns.chain(values.map(|value| Ok(Encoded::Plain(value)))))
}

fn bind_key_from(stmt: &mut Stmt, table: &Table, key: &[u8], first: usize) -> Result<()> {
    for (i, column) in key::columns(key, table.info.keys.len()).enumerate() {
        stmt.bind_value(first + i, column.map_err(|e| corrupt("a key", e))?.value())?;
    }
    Ok(())
}

/// Fewer rows are looked up one by one.
const FEW: usize = 4;
/// More parameters than this a statement had better not have: SQLite allowed no more once, and an application may still not.
const PARAMETERS: usize = 999;

fn batch_values(mut get: Cached<'_>, table: &Table, keys: &[&[u8]]) -> Result<Vec<Option<Vec<Value>>>> {
    let width = table.info.keys.len();
    for (n, key) in keys.iter().enumerate() {
        bind_key_from(&mut get, table, key, n * width + 1)?;
    }
    for parameter in keys.len() * width..BATCH * width {
        get.bind_null(parameter + 1)?;
    }
    let mut found = vec![None; keys.len()];
    while get.step()? {
        if let Some(row) = usize::try_from(get.column_int(0)).ok().and_then(|n| found.get_mut(n)) {
            *row = Some((1..=table.info.columns.len()).map(|i| get.column(i).to_owned()).collect());
        }
    }
    Ok(found)
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

    /// What a row has in the columns that nobody gives a value, in column order.
    pub fn defaults(&self, table: &Table) -> Result<Vec<Value>> {
        if table.info.columns.is_empty() {
            return Ok(Vec::new());
        }
        let mut get = self.of_table(Sql::Defaults, table)?;
        get.step()?;
        let stored = |(i, column): (usize, &Column)| {
            let value = get.column(i);
            Ok(self.converted(value, column.affinity)?.unwrap_or_else(|| value.to_owned()))
        };
        table.info.columns.iter().enumerate().map(stored).collect()
    }

    /// Whether a row holds these values already.
    pub fn row_has(&self, table: &Table, key: &[u8], cells: &[(usize, ValueRef<'_>)]) -> Result<bool> {
        let values = self.row_values(table, key)?;
        Ok(values.is_some_and(|v| cells.iter().all(|(i, new)| v.get(*i).is_some_and(|old| old.as_ref() == *new))))
    }

    /// As [`Session::row_values`], for many keys in their order. One statement looks many of them up: to start one takes a third of
    /// the time that looking one up does.
    pub fn rows_values(&self, table: &Table, keys: &[&[u8]]) -> Result<Vec<Option<Vec<Value>>>> {
        let width = table.info.keys.len();
        let mut found: Vec<Option<Vec<Value>>> = Vec::with_capacity(keys.len());
        for batch in keys.chunks(BATCH) {
            let many = batch.len() >= FEW && width * BATCH <= PARAMETERS;
            // Where the application allows no statement of that size, one by one will do.
            let get = if many { self.of_table(Sql::SelectBatch, table).ok() } else { None };
            match get {
                Some(get) => found.extend(batch_values(get, table, batch)?),
                None => {
                    for key in batch {
                        found.push(self.row_values(table, key)?);
                    }
                }
            }
        }
        Ok(found)
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

/// Whether an error is the row's doing (a constraint, a type, a user's trigger) and not the machine's.
pub fn is_the_rows(e: &Error) -> bool {
    !matches!(
        e.primary(),
        codes::NOMEM
            | codes::FULL
            | codes::IOERR
            | codes::BUSY
            | codes::LOCKED
            | codes::INTERRUPT
            | codes::CORRUPT
            | codes::READONLY
            | codes::CANTOPEN
            | codes::PROTOCOL
            | codes::NOTADB
            | codes::PERM
            | codes::AUTH
            | codes::SCHEMA
            | codes::MISUSE
    )
}
