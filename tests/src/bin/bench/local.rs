//! One database: capture and merge beside plain SQLite.

use crate::{median, Figure};
use rusqlite::{params, Connection};
use std::collections::BTreeMap;
use std::error::Error;
use std::path::Path;
use std::time::Instant;

pub type Result<T> = std::result::Result<T, Box<dyn Error>>;

const ROWS: usize = 100_000;
const SINGLES: usize = 3_000;
/// Cells in a slice.
const CELLS: usize = 10_000;
const TABLE: &str =
    "CREATE TABLE m(id TEXT NOT NULL PRIMARY KEY, name TEXT, status TEXT, cpu INTEGER, mem INTEGER, note TEXT)";

/// What a table's writes are watched by.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Kind {
    /// Nothing.
    Plain,
    /// Triggers that do nothing: the least that capture by triggers can cost.
    Floor,
    /// Triggers that add the key to a table: the least that a log of changes can cost.
    Logged,
    /// Starling.
    Crr,
}

pub struct Row {
    id: String,
    name: String,
    cpu: i64,
    note: String,
}

/// The same rows in every run, keys in no order.
pub fn rows() -> Vec<Row> {
    let mut x = 0x9e37_79b9_7f4a_7c15u64;
    let mut next = || {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        x
    };
    (0..ROWS as i64)
        .map(|i| {
            let (a, b) = (next(), next());
            let id = format!(
                "{:08x}-{:04x}-4{:03x}-8{:03x}-{:012x}",
                a >> 32,
                (a >> 16) & 0xffff,
                a & 0xfff,
                (b >> 48) & 0xfff,
                b & 0xffff_ffff_ffff
            );
            Row { id, name: format!("machine-{i}"), cpu: i % 64, note: format!("note for machine {i}") }
        })
        .collect()
}

#[allow(unsafe_code)]
pub fn load(db: &Connection, so: &Path) -> Result<()> {
    // SAFETY: the extension is the one this repository builds.
    unsafe {
        db.load_extension_enable()?;
        db.load_extension(so, None::<&str>)?;
    }
    Ok(())
}

pub fn open(dir: &Path, name: &str, kind: Kind, so: &Path) -> Result<Connection> {
    let path = dir.join(name);
    for suffix in ["", "-wal", "-shm"] {
        let _ = std::fs::remove_file(dir.join(format!("{name}{suffix}")));
    }
    let db = Connection::open(path)?;
    db.pragma_update(None, "journal_mode", "wal")?;
    db.pragma_update(None, "synchronous", "normal")?;
    db.execute_batch(TABLE)?;
    match kind {
        Kind::Plain => {}
        Kind::Floor => {
            for op in ["INSERT", "UPDATE", "DELETE"] {
                db.execute_batch(&format!("CREATE TRIGGER t_{op} AFTER {op} ON m BEGIN SELECT 1; END"))?;
            }
        }
        Kind::Logged => {
            db.execute_batch("CREATE TABLE log(version INTEGER PRIMARY KEY, op INTEGER, key TEXT)")?;
            for (n, op, row) in [(0, "INSERT", "NEW"), (1, "UPDATE", "NEW"), (2, "DELETE", "OLD")] {
                let body = format!("INSERT INTO log(op, key) VALUES({n}, {row}.id)");
                db.execute_batch(&format!("CREATE TRIGGER t_{op} AFTER {op} ON m BEGIN {body}; END"))?;
            }
        }
        Kind::Crr => {
            load(&db, so)?;
            db.query_row("SELECT crsql_as_crr('m')", [], |_| Ok(()))?;
        }
    }
    Ok(db)
}

pub fn timed(f: impl FnOnce() -> Result<()>) -> Result<f64> {
    let start = Instant::now();
    f()?;
    Ok(start.elapsed().as_secs_f64())
}

/// As [`timed`]; a `perf record --delay=-1 --control=fifo:$PERF_CONTROL` looks at nothing else, nor does callgrind where it is
/// told to `--toggle-collect='*watched*'`.
#[inline(never)]
fn watched(f: impl FnOnce() -> Result<()>) -> Result<f64> {
    let tell = |what: &str| -> Result<()> {
        match std::env::var_os("PERF_CONTROL") {
            Some(fifo) => Ok(std::fs::write(fifo, what)?),
            None => Ok(()),
        }
    };
    tell("enable\n")?;
    let seconds = timed(f);
    tell("disable\n")?;
    seconds
}

pub fn insert_all(db: &Connection, rows: &[Row]) -> Result<()> {
    db.execute_batch("BEGIN")?;
    let mut stmt = db.prepare_cached("INSERT INTO m VALUES(?1, ?2, 'started', ?3, 512, ?4)")?;
    for r in rows {
        stmt.execute(params![r.id, r.name, r.cpu, r.note])?;
    }
    db.execute_batch("COMMIT")?;
    Ok(())
}

pub fn update_by_key(db: &Connection, rows: &[Row]) -> Result<()> {
    db.execute_batch("BEGIN")?;
    let mut stmt = db.prepare_cached("UPDATE m SET status = ?2, cpu = cpu + 1 WHERE id = ?1")?;
    for r in rows {
        stmt.execute(params![r.id, "healthy"])?;
    }
    db.execute_batch("COMMIT")?;
    Ok(())
}

/// Single-row transactions: an insert per row, then an update per row. Seconds of the inserts, and of the updates.
pub fn singles(db: &Connection, rows: &[Row]) -> Result<[f64; 2]> {
    let mut insert = db.prepare_cached("INSERT INTO m VALUES('x' || ?1, ?2, 'started', ?3, 512, ?4)")?;
    let mut update = db.prepare_cached("UPDATE m SET status = 'busy' || ?2 WHERE id = ?1")?;
    let start = Instant::now();
    for r in rows {
        insert.execute(params![r.id, r.name, r.cpu, r.note])?;
    }
    let middle = Instant::now();
    for (i, r) in rows.iter().enumerate() {
        update.execute(params![r.id, i as i64])?;
    }
    Ok([(middle - start).as_secs_f64(), middle.elapsed().as_secs_f64()])
}

/// Single-row transactions that update the same hundred rows over and over, as heartbeats do.
pub fn heartbeats(db: &Connection, rows: &[Row], from: usize, n: usize) -> Result<()> {
    let mut update = db.prepare_cached("UPDATE m SET cpu = ?2 WHERE id = ?1")?;
    for (i, r) in rows.iter().take(100).cycle().enumerate().skip(from).take(n) {
        update.execute(params![r.id, i as i64])?;
    }
    Ok(())
}

/// Writes the whole log into the file.
pub fn checkpoint(db: &Connection) -> Result<()> {
    Ok(db.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))?)
}

fn file_size(db: &Connection, dir: &Path, name: &str) -> Result<f64> {
    checkpoint(db)?;
    Ok(std::fs::metadata(dir.join(name))?.len() as f64)
}

/// All timings of one kind in one run, by name.
pub fn measure(
    dir: &Path,
    kind: Kind,
    so: &Path,
    rows: &[Row],
    out: &mut BTreeMap<(&'static str, Kind), Vec<f64>>,
) -> Result<()> {
    let name = format!("{kind:?}.db");
    let db = open(dir, &name, kind, so)?;
    let mut add = |key, value| out.entry((key, kind)).or_default().push(value);
    add("insert", timed(|| insert_all(&db, rows))?);
    add("size", file_size(&db, dir, &name)?);
    add("update", timed(|| update_by_key(&db, rows))?);
    add("update_all", timed(|| Ok(db.execute_batch("UPDATE m SET mem = mem + 1")?))?);
    add("delete", timed(|| Ok(db.execute_batch("DELETE FROM m WHERE 1")?))?);
    Ok(())
}

/// One step by itself, in seconds; the steps before it are taken, not timed.
pub fn step_alone(dir: &Path, kind: Kind, so: &Path, what: &str) -> Result<f64> {
    let rows = rows();
    let name = "profile.db";
    let db = open(dir, name, kind, so)?;
    if what == "insert" {
        return watched(|| insert_all(&db, &rows));
    }
    insert_all(&db, &rows)?;
    if let ("merge" | "cells", Kind::Crr) = (what, kind) {
        let target = open(dir, "target.db", kind, so)?;
        if what == "cells" {
            return merge_changes(&db, &target, ROWS);
        }
        let parts = collect_changesets(&db)?;
        return watched(|| merge_all(&target, &parts));
    }
    file_size(&db, dir, name)?;
    match what {
        // More of them, so that they outweigh the rows before.
        "singles" => watched(|| singles(&db, &rows[..SINGLES]).map(drop)),
        "heartbeats" => watched(|| heartbeats(&db, &rows, 0, SINGLES)),
        "update" => watched(|| update_by_key(&db, &rows)),
        "update_all" => watched(|| Ok(db.execute_batch("UPDATE m SET mem = mem + 1")?)),
        "delete" => {
            update_by_key(&db, &rows)?;
            watched(|| Ok(db.execute_batch("DELETE FROM m WHERE 1")?))
        }
        other => Err(format!("profile: there is insert, singles, heartbeats, update, update_all and delete, and for a CRR merge and cells, not {other}").into()),
    }
}

pub fn collect_changesets(db: &Connection) -> Result<Vec<Vec<u8>>> {
    let mut stmt = db.prepare("SELECT changeset FROM starling_changesets")?;
    let parts = stmt.query_map([], |r| r.get(0))?.collect::<rusqlite::Result<_>>()?;
    Ok(parts)
}

/// Named, as builds of cr-sqlite differ in whether there is a tenth.
const NINE: &str = r#""table", pk, cid, val, col_version, db_version, site_id, cl, seq"#;

type Nine = (String, Vec<u8>, String, rusqlite::types::Value, i64, i64, Vec<u8>, i64, i64);

fn nine(r: &rusqlite::Row<'_>) -> rusqlite::Result<Nine> {
    Ok((r.get(0)?, r.get(1)?, r.get(2)?, r.get(3)?, r.get(4)?, r.get(5)?, r.get(6)?, r.get(7)?, r.get(8)?))
}

pub fn merge_all(db: &Connection, parts: &[Vec<u8>]) -> Result<()> {
    db.execute_batch("BEGIN IMMEDIATE")?;
    let mut stmt = db.prepare("SELECT starling_merge(?1)")?;
    for part in parts {
        stmt.query_row([part], |_| Ok(()))?;
    }
    drop(stmt);
    db.execute_batch("COMMIT")?;
    Ok(())
}

fn merge_cells(db: &Connection, cells: &[Nine]) -> Result<()> {
    let mut stmt =
        db.prepare_cached(&format!("INSERT INTO crsql_changes({NINE}) VALUES(?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)"))?;
    for c in cells {
        stmt.execute(params![c.0, c.1, c.2, c.3, c.4, c.5, c.6, c.7, c.8])?;
    }
    Ok(())
}

/// Merges the first `count` changes of a database into another, in one transaction. Seconds without those for reading: the cells come
/// in slices, so that no time goes into fetching hundreds of megabytes of them from memory.
pub fn merge_changes(from: &Connection, into: &Connection, count: usize) -> Result<f64> {
    let mut stmt = from.prepare(&format!("SELECT {NINE} FROM crsql_changes"))?;
    let mut changes = stmt.query_map([], nine)?.take(count);
    let mut took = timed(|| Ok(into.execute_batch("BEGIN IMMEDIATE")?))?;
    loop {
        let slice: Vec<Nine> = changes.by_ref().take(CELLS).collect::<rusqlite::Result<_>>()?;
        if slice.is_empty() {
            break;
        }
        took += watched(|| merge_cells(into, &slice))?;
    }
    Ok(took + watched(|| Ok(into.execute_batch("COMMIT")?))?)
}

/// As a merge cell by cell must do at least: a row's first cell inserts it, each other one is an UPDATE of its own.
fn write_cells(db: &Connection, rows: &[Row]) -> Result<()> {
    db.execute_batch("BEGIN IMMEDIATE")?;
    let mut insert = db.prepare("INSERT INTO m(id, name) VALUES(?1, ?2)")?;
    let mut update =
        ["status", "cpu", "mem", "note"].map(|c| db.prepare(&format!("UPDATE m SET {c} = ?2 WHERE id = ?1")));
    for r in rows {
        insert.execute(params![r.id, r.name])?;
        let values: [&dyn rusqlite::ToSql; 4] = [&"started", &r.cpu, &512, &r.note];
        for (update, value) in update.iter_mut().zip(values) {
            update.as_mut().map_err(|e| format!("{e}"))?.execute(params![r.id, value])?;
        }
    }
    drop((insert, update));
    Ok(db.execute_batch("COMMIT")?)
}

/// Reading and merging; in seconds, but for `cells` (cells per second).
fn measure_merge(
    dir: &Path,
    so: &Path,
    rows: &[Row],
    out: &mut BTreeMap<(&'static str, Kind), Vec<f64>>,
) -> Result<()> {
    let mut add = |key, value| out.entry((key, Kind::Crr)).or_default().push(value);
    let source = open(dir, "source.db", Kind::Crr, so)?;
    insert_all(&source, rows)?;
    let parts = collect_changesets(&source)?;
    let scan = timed(|| Ok(source.query_row("SELECT count(val) FROM crsql_changes", [], |_| Ok(()))?))?;
    let cells = source.query_row("SELECT count(*) FROM crsql_changes", [], |r| r.get::<_, i64>(0))?;
    add("cells", cells as f64 / scan);
    let one = timed(|| {
        for _ in 0..100 {
            let mut stmt = source.prepare_cached("SELECT count(*) FROM crsql_changes WHERE db_version = 900")?;
            stmt.query_row([], |_| Ok(()))?;
        }
        Ok(())
    })?;
    add("one_version", one / 100.0);
    let target = open(dir, "target.db", Kind::Crr, so)?;
    add("merge", timed(|| merge_all(&target, &parts))?);
    let target = open(dir, "cells.db", Kind::Crr, so)?;
    add("merge_cells", merge_changes(&source, &target, usize::MAX)?);
    let least = open(dir, "cells.db", Kind::Floor, so)?;
    out.entry(("merge_cells", Kind::Floor)).or_default().push(timed(|| write_cells(&least, rows))?);
    let mut add = |key, value| out.entry((key, Kind::Crr)).or_default().push(value);
    let plain = open(dir, "late.db", Kind::Plain, so)?;
    insert_all(&plain, rows)?;
    load(&plain, so)?;
    add("as_crr", timed(|| Ok(plain.query_row("SELECT crsql_as_crr('m')", [], |_| Ok(()))?))?);
    Ok(())
}

/// Runs everything `runs` times, the kinds by turns.
pub fn run(so: &Path, runs: usize) -> Result<Vec<Figure>> {
    let dir = tempfile::tempdir()?;
    let rows = rows();
    let mut all: BTreeMap<(&'static str, Kind), Vec<f64>> = BTreeMap::new();
    for run in 0..runs {
        eprintln!("run {} of {runs}", run + 1);
        for kind in [Kind::Plain, Kind::Crr, Kind::Floor] {
            measure(dir.path(), kind, so, &rows, &mut all)?;
        }
        measure_merge(dir.path(), so, &rows, &mut all)?;
    }
    let of = |name, kind| median(all.get(&(name, kind)).cloned().unwrap_or_default());
    let ratio = |figure, name, kind, goal| Figure {
        name: figure,
        value: of(name, kind) / of(name, Kind::Plain),
        unit: "x plain",
        runs,
        goal,
    };
    let against_insert = |figure, name, kind, goal| Figure {
        name: figure,
        value: of(name, kind) / of("insert", Kind::Plain),
        unit: "x plain",
        runs,
        goal,
    };
    Ok(vec![
        ratio("bulk_insert", "insert", Kind::Crr, "<= 1.6"),
        ratio("bulk_insert_floor", "insert", Kind::Floor, ""),
        ratio("bulk_update", "update", Kind::Crr, "<= 1.7"),
        ratio("bulk_update_floor", "update", Kind::Floor, ""),
        ratio("update_one_statement", "update_all", Kind::Crr, ""),
        ratio("update_one_statement_floor", "update_all", Kind::Floor, ""),
        ratio("bulk_delete", "delete", Kind::Crr, "<= 1.7"),
        ratio("bulk_delete_floor", "delete", Kind::Floor, ""),
        ratio("file_size", "size", Kind::Crr, "<= 1.25"),
        against_insert("merge_changesets", "merge", Kind::Crr, "<= 2"),
        ratio("merge_floor", "insert", Kind::Floor, ""),
        against_insert("merge_cell_by_cell", "merge_cells", Kind::Crr, "<= 5"),
        against_insert("merge_cell_by_cell_floor", "merge_cells", Kind::Floor, ""),
        against_insert("as_crr", "as_crr", Kind::Crr, "<= 0.25"),
        Figure { name: "read_changes", value: of("cells", Kind::Crr) / 1e6, unit: "M cells/s", runs, goal: ">= 1" },
        Figure {
            name: "read_one_version",
            value: of("one_version", Kind::Crr) * 1e3,
            unit: "ms",
            runs,
            goal: "<= 0.1",
        },
    ])
}
