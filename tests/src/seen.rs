//! What an application can see of a statement, byte for byte.

use crate::site::Site;
use rusqlite::types::{ToSqlOutput, ValueRef};
use rusqlite::{Connection, Result};
use std::fmt::Debug;

/// What an application can see of a statement.
#[derive(Clone, PartialEq, Debug)]
pub struct Seen {
    /// It compiled.
    pub prepared: bool,
    /// Extended code and message of its failure.
    pub error: Option<(i32, String)>,
    /// `sqlite3_changes`.
    pub changes: u64,
    /// `sqlite3_last_insert_rowid`.
    pub rowid: i64,
    /// No transaction is open after it.
    pub autocommit: bool,
    /// Names of the columns.
    pub columns: Vec<String>,
    /// The rows, in their order.
    pub rows: Vec<String>,
}

/// Runs a statement to its end, or to its failure.
pub fn observe(db: &Connection, sql: &str) -> Seen {
    let (mut rows, mut columns, mut prepared) = (Vec::new(), Vec::new(), false);
    let result = (|| -> Result<()> {
        let mut stmt = db.prepare(sql)?;
        prepared = true;
        columns = stmt.column_names().map(str::to_string).collect();
        let n = columns.len();
        let mut found = stmt.query([])?;
        while let Some(row) = found.next()? {
            rows.push((0..n).map(|i| row.get_ref(i).map(show)).collect::<Result<Vec<_>>>()?.join("|"));
        }
        Ok(())
    })();
    let error = result.err().map(|e| (e.sqlite_error().map_or(-1, |s| s.extended_code), e.to_string()));
    Seen {
        prepared,
        error,
        changes: db.changes(),
        rowid: db.last_insert_rowid(),
        autocommit: db.is_autocommit(),
        columns,
        rows,
    }
}

/// The rows of a query that must succeed.
pub fn rows(db: &Connection, sql: &str) -> Vec<String> {
    let seen = observe(db, sql);
    assert_eq!(seen.error, None, "{sql}");
    seen.rows
}

/// Asserts that two things are equal, shows only where they are not.
pub fn same<T: PartialEq + Debug>(what: &str, plain: &T, crr: &T) {
    assert!(plain == crr, "{what}\n  plain: {}\n  crr:   {}", short(plain), short(crr));
}

fn short(thing: &impl Debug) -> String {
    format!("{thing:?}").chars().take(3000).collect()
}

fn show(value: ValueRef<'_>) -> String {
    match value {
        ValueRef::Null => "NULL".to_string(),
        ValueRef::Integer(i) => i.to_string(),
        ValueRef::Real(r) => format!("{r:?}r"),
        ValueRef::Text(t) => format!("'{}'", bytes(t)),
        ValueRef::Blob(b) => format!("x{}", bytes(b)),
    }
}

fn bytes(b: &[u8]) -> String {
    let head = b.get(..60).unwrap_or(b).escape_ascii();
    if b.len() > 60 {
        format!("{head}… {} bytes, {}", b.len(), b.iter().fold(7u32, |h, x| h.wrapping_mul(31) ^ u32::from(*x)))
    } else {
        head.to_string()
    }
}

/// Takes everything from another replica, nine values at a time; texts may be any bytes.
pub fn pull_nine(to: &Site, from: &Site) {
    let mut stmt = from
        .db
        .prepare("SELECT [table], pk, cid, val, col_version, db_version, site_id, cl, seq FROM crsql_changes")
        .expect("crsql_changes is there");
    let mut insert = to.db.prepare("INSERT INTO crsql_changes VALUES(?,?,?,?,?,?,?,?,?)").expect("it prepares");
    to.exec("BEGIN IMMEDIATE");
    let mut rows = stmt.query([]).expect("it runs");
    while let Some(row) = rows.next().expect("it reads") {
        let values: Vec<ToSqlOutput<'_>> =
            (0..9).map(|i| ToSqlOutput::Borrowed(row.get_ref(i).expect("a value"))).collect();
        insert.execute(rusqlite::params_from_iter(values)).expect("it merges");
    }
    to.exec("COMMIT");
}
