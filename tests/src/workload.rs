//! A program that writes, to be killed or starved: what the crash tests run, and what they check afterwards.

use crate::random::Random;
use crate::records;
use crate::site::Site;
use rusqlite::{Connection, Result};
use std::collections::BTreeSet;

/// Two tables for the work, and one that says which steps are done.
pub const TABLES: &[(&str, &str)] = &[
    ("t", "CREATE TABLE t(id TEXT NOT NULL PRIMARY KEY, a, b INTEGER)"),
    ("k", "CREATE TABLE k(x INTEGER NOT NULL, y BLOB NOT NULL, PRIMARY KEY(x, y)) WITHOUT ROWID"),
    ("done", "CREATE TABLE done(n INTEGER PRIMARY KEY, by TEXT)"),
];

/// The statements of step `n`; the last one marks it as done.
pub fn step(r: &mut Random, n: u64, by: &str) -> Vec<String> {
    let mut out: Vec<String> = (0..r.below(4)).map(|_| statement(r)).collect();
    out.push(format!("INSERT INTO done VALUES({n}, '{by}')"));
    out
}

fn statement(r: &mut Random) -> String {
    let (key, value, few) = (r.below(200), r.below(1000), r.below(40));
    match r.below(12) {
        0..=2 => format!("INSERT OR REPLACE INTO t VALUES('{key}', {value}, 1)"),
        3 | 4 => format!("UPDATE t SET a = {value}, b = coalesce(b, 0) + 1 WHERE CAST(id AS INTEGER) % 40 = {few}"),
        5 => format!("DELETE FROM t WHERE CAST(id AS INTEGER) % 40 = {few}"),
        6 => format!("UPDATE OR REPLACE t SET id = '{}' WHERE id = '{key}'", r.below(200)),
        7 => "UPDATE t SET b = b + 1".to_string(),
        8 => format!(
            "WITH RECURSIVE i(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM i LIMIT 60) \
             INSERT OR IGNORE INTO k SELECT n, zeroblob({few}) FROM i"
        ),
        9 => format!("DELETE FROM k WHERE x % 7 = {}", few % 7),
        10 => format!("SELECT starling_prune({})", few * 10),
        _ => format!(
            "INSERT INTO crsql_changes VALUES('t', crsql_pack_columns('{key}'), 'a', {value}, {}, 1, x'0f', 1, 0)",
            r.below(9) + 1
        ),
    }
}

/// Runs all of them in one transaction; on failure nothing of it may stay.
pub fn transaction(db: &Connection, statements: &[String]) -> Result<()> {
    db.execute_batch("BEGIN IMMEDIATE")?;
    let run = || -> Result<()> {
        for sql in statements {
            let mut stmt = db.prepare(sql)?;
            let mut rows = stmt.query([])?;
            while rows.next()?.is_some() {}
        }
        db.execute_batch("COMMIT")
    };
    run().inspect_err(|_| {
        if !db.is_autocommit() {
            let _ = db.execute_batch("ROLLBACK");
        }
    })
}

/// What another replica answers: the parts, and the vector to be claimed after them.
pub type Answer = (Vec<(Vec<u8>, bool)>, Vec<u8>);

/// Takes all of an answer in one transaction, as the sidecar does; what fails is rolled back.
///
/// # Errors
/// SQLite's.
pub fn merge_all(to: &Site, (parts, vector): &Answer) -> rusqlite::Result<()> {
    let run = || -> rusqlite::Result<()> {
        to.db.execute_batch("BEGIN IMMEDIATE")?;
        for (part, _) in parts {
            to.merge(part)?;
        }
        to.db.query_row("SELECT starling_claim(?1)", [vector], |_| Ok(()))?;
        to.db.execute_batch("COMMIT")
    };
    run().inspect_err(|_| {
        if !to.db.is_autocommit() {
            let _ = to.db.execute_batch("ROLLBACK");
        }
    })
}

/// Everything that the tables hold, and the version.
pub fn content(site: &Site) -> Vec<String> {
    let mut out = site.rows("SELECT crsql_db_version()");
    for (name, _) in TABLES {
        out.extend(site.rows(&format!("SELECT '{name}', * FROM {name} ORDER BY 2, 3")));
    }
    out
}

/// What must hold of any replica at any moment: the file is whole, each cell belongs to one log entry, each row has its cells.
pub fn check(site: &Site) {
    assert_eq!(site.one::<String>("PRAGMA integrity_check"), "ok");
    let changes = site.changes();
    let cells: BTreeSet<_> = changes.iter().map(|c| (&c.0, &c.1, &c.2)).collect();
    let mut twice: Vec<_> = changes.windows(2).filter(|w| (&w[0].1, &w[0].2) == (&w[1].1, &w[1].2)).collect();
    twice.truncate(3);
    assert_eq!(cells.len(), changes.len(), "a cell belongs to two log entries: {twice:?}");
    let keys =
        |table: &str| changes.iter().filter(|c| c.0 == table && c.5 % 2 == 1).map(|c| &c.1).collect::<BTreeSet<_>>();
    for (name, columns) in [("t", 2), ("k", 0), ("done", 1)] {
        // A row whose insert has not come through yet is kept aside, and named all the same.
        let rows = site.one::<i64>(&format!(
            "SELECT (SELECT count(*) FROM {name}) + (SELECT count(DISTINCT h.key) FROM crsql_hidden AS h \
             JOIN crsql_table AS t ON t.id = h.table_id WHERE t.name = '{name}')"
        ));
        assert_eq!(keys(name).len() as i64, rows, "rows of {name} without a log entry, or the reverse");
        let named = changes.iter().filter(|c| c.0 == name && c.2 != "-1").count() as i64;
        assert!(named <= rows * columns, "{name} has {rows} rows and {named} cells in the log");
    }
    let chunks: u64 = records::all(&site.db).iter().map(|record| record.head.chunks).sum();
    let there = site.one::<i64>("SELECT count(*) FROM crsql_log_chunk") as u64;
    assert_eq!(chunks, there, "chunks without a record, or a record without its chunks");
}

/// Both exchange everything and must end equal, and neither may find a dot that was used twice.
pub fn meet(a: &Site, b: &Site) {
    for (x, y) in [(a, b), (b, a)] {
        let theirs = y.vector();
        let told: Option<String> =
            x.db.query_row("SELECT starling_check(?1)", [&theirs], |r| r.get(0)).expect("vectors can be compared");
        assert_eq!(told, None, "a dot was used twice");
    }
    a.pull(b);
    b.pull(a);
    for (name, _) in TABLES {
        let sql = format!("SELECT * FROM {name} ORDER BY 1, 2");
        assert_eq!(a.rows(&sql), b.rows(&sql), "{name} differs");
    }
    let (mine, theirs): (BTreeSet<_>, BTreeSet<_>) =
        (a.changes().into_iter().collect(), b.changes().into_iter().collect());
    let differ: Vec<_> = mine.symmetric_difference(&theirs).collect();
    assert!(differ.is_empty(), "changes differ: {differ:?}");
    assert_eq!(a.vector(), b.vector(), "vectors differ");
}
