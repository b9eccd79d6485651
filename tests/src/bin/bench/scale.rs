//! What must not grow: the cost of a write with the number of tables, of columns and of rows that are there, the file with
//! rounds of updates, memory with the size of a transaction, a connection's opening with the extension.

use crate::local::{self, timed, Kind, Result};
use crate::{median, Figure};
use rusqlite::{params, Connection};
use std::path::Path;
use std::process::Command;
use std::time::Instant;

const ROUNDS: usize = 10;
const TABLES: usize = 500;
const FEW_COLUMNS: usize = 3;
const MANY_COLUMNS: usize = 60;
const FEW_ROWS: i64 = 10_000;
const MANY_ROWS: i64 = 3_000_000;
const OPENINGS: usize = 200;
const SINGLES: usize = 2_000;
/// Rows of the one large transaction.
const BIG: i64 = 5_000_000;
/// Rows for `crsql_as_crr`.
const MILLION: i64 = 1_000_000;

const KINDS: [Kind; 2] = [Kind::Plain, Kind::Crr];

fn figure(name: &'static str, value: f64, unit: &'static str, runs: usize, goal: &'static str) -> Figure {
    Figure { name, value, unit, runs, goal }
}

/// An empty file, with the extension for the kind that has it.
fn fresh(dir: &Path, kind: Kind, so: &Path) -> Result<Connection> {
    let db = local::open(dir, "scale.db", Kind::Plain, so)?;
    db.execute_batch("DROP TABLE m")?;
    if kind == Kind::Crr {
        local::load(&db, so)?;
    }
    Ok(db)
}

fn crr(db: &Connection, kind: Kind, table: &str) -> Result<()> {
    if kind == Kind::Crr {
        db.query_row("SELECT crsql_as_crr(?1)", [table], |_| Ok(()))?;
    }
    Ok(())
}

/// The file after rounds of updates, each one transaction.
fn updated_size(dir: &Path, so: &Path) -> Result<f64> {
    let rows = local::rows();
    let mut sizes = [0.0; 2];
    for (kind, size) in KINDS.into_iter().zip(&mut sizes) {
        let db = local::open(dir, "rounds.db", kind, so)?;
        local::insert_all(&db, &rows)?;
        for round in 0..ROUNDS {
            db.execute("UPDATE m SET status = 'round' || ?1, cpu = cpu + 1", [round as i64])?;
        }
        db.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))?;
        *size = std::fs::metadata(dir.join("rounds.db"))?.len() as f64;
    }
    Ok(sizes[1] / sizes[0])
}

/// Inserts, updates of one column and single-row transactions in one table; seconds.
fn work(db: &Connection, columns: usize, rows: i64) -> Result<[f64; 3]> {
    let values = vec!["?1 + 1"; columns].join(", ");
    let insert = timed(|| {
        db.execute_batch("BEGIN")?;
        let mut stmt = db.prepare(&format!("INSERT INTO w VALUES('k' || ?1, {values})"))?;
        for i in 0..rows {
            stmt.execute([-i - 1])?;
        }
        Ok(db.execute_batch("COMMIT")?)
    })?;
    let update = timed(|| {
        db.execute_batch("BEGIN")?;
        let mut stmt = db.prepare("UPDATE w SET c1 = ?1 + 5 WHERE id = 'k' || ?1")?;
        for i in 0..rows {
            stmt.execute([-i - 1])?;
        }
        Ok(db.execute_batch("COMMIT")?)
    })?;
    let singles = timed(|| {
        let mut stmt = db.prepare("UPDATE w SET c2 = ?1 + 9 WHERE id = 'k' || ?1")?;
        for i in 0..SINGLES as i64 {
            stmt.execute([-(i % rows) - 1])?;
        }
        Ok(())
    })?;
    Ok([insert, update, singles])
}

fn wide_table(name: &str, columns: usize) -> String {
    let columns: Vec<String> = (1..=columns).map(|c| format!("c{c}")).collect();
    format!("CREATE TABLE {name}(id TEXT NOT NULL PRIMARY KEY, {})", columns.join(", "))
}

/// [`work`] on a table beside `tables` others, with so many columns, on top of so many rows.
fn worked(dir: &Path, so: &Path, kind: Kind, tables: usize, columns: usize, there: i64) -> Result<[f64; 3]> {
    let db = fresh(dir, kind, so)?;
    db.execute_batch("BEGIN")?;
    for t in 0..tables {
        db.execute_batch(&wide_table(&format!("other{t}"), FEW_COLUMNS))?;
        crr(&db, kind, &format!("other{t}"))?;
    }
    db.execute_batch(&wide_table("w", columns))?;
    crr(&db, kind, "w")?;
    db.execute_batch("COMMIT")?;
    let values = vec!["i"; columns].join(", ");
    db.execute(
        &format!("WITH RECURSIVE t(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM t WHERE i < ?1) INSERT INTO w SELECT 'k' || i, {values} FROM t WHERE ?1 > 0"),
        [there],
    )?;
    db.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))?;
    work(&db, columns, FEW_ROWS)
}

/// By how much the cost beside plain grows from the small case to the large one: insert, update, single rows.
fn growth(
    dir: &Path,
    so: &Path,
    runs: usize,
    small: (usize, usize, i64),
    large: (usize, usize, i64),
) -> Result<[f64; 3]> {
    let mut ratios: [Vec<f64>; 3] = Default::default();
    for _ in 0..runs {
        let of = |kind, (tables, columns, rows): (usize, usize, i64)| worked(dir, so, kind, tables, columns, rows);
        let (plain, crr) = (of(Kind::Plain, small)?, of(Kind::Crr, small)?);
        let (plain_large, crr_large) = (of(Kind::Plain, large)?, of(Kind::Crr, large)?);
        for (i, ratios) in ratios.iter_mut().enumerate() {
            ratios.push((crr_large[i] / plain_large[i]) / (crr[i] / plain[i]));
        }
    }
    Ok(ratios.map(median))
}

/// Opens a connection, asks one question and closes it; milliseconds.
fn opened(path: &Path, kind: Kind, so: &Path) -> Result<f64> {
    let start = Instant::now();
    let db = Connection::open(path)?;
    if kind == Kind::Crr {
        local::load(&db, so)?;
    }
    db.query_row("SELECT count(*) FROM m", [], |_| Ok(()))?;
    drop(db);
    Ok(start.elapsed().as_secs_f64() * 1e3)
}

/// `bench opening KIND FILE`: the first connection of a process; prints milliseconds.
pub fn first_opening(so: &Path, kind: &str, path: &Path) -> Result<()> {
    println!("{}", opened(path, kind_named(kind), so)?);
    Ok(())
}

/// What the extension adds to opening a connection, in milliseconds: in a process that has it loaded already, and in one
/// that loads it now.
fn opening(dir: &Path, so: &Path) -> Result<[f64; 2]> {
    drop(local::open(dir, "opening.db", Kind::Crr, so)?);
    let path = dir.join("opening.db");
    let file = path.to_str().ok_or("a path that is no text")?;
    let (mut again, mut first): ([Vec<f64>; 2], [Vec<f64>; 2]) = Default::default();
    for _ in 0..OPENINGS {
        for (i, kind) in KINDS.into_iter().enumerate() {
            again[i].push(opened(&path, kind, so)?);
            first[i].push(alone(&["opening", if kind == Kind::Crr { "crr" } else { "plain" }, file])?);
        }
    }
    Ok([again, first].map(|times| {
        let [plain, loaded] = times.map(median);
        loaded - plain
    }))
}

/// Turning a table of a million rows into a CRR, beside inserting them plain.
fn late(dir: &Path, so: &Path) -> Result<f64> {
    let db = fresh(dir, Kind::Plain, so)?;
    db.execute_batch("CREATE TABLE m(id TEXT NOT NULL PRIMARY KEY, name TEXT, status TEXT, cpu INTEGER)")?;
    let insert = timed(|| {
        db.execute_batch("BEGIN")?;
        let mut stmt = db.prepare("INSERT INTO m VALUES('machine-' || ?1, 'name ' || ?1, 'started', ?1)")?;
        for i in 0..MILLION {
            stmt.execute([i])?;
        }
        Ok(db.execute_batch("COMMIT")?)
    })?;
    local::load(&db, so)?;
    let made = timed(|| Ok(db.query_row("SELECT crsql_as_crr('m')", [], |_| Ok(()))?))?;
    Ok(made / insert)
}

fn kind_named(kind: &str) -> Kind {
    if kind == "crr" {
        Kind::Crr
    } else {
        Kind::Plain
    }
}

/// `bench transaction KIND`: one large transaction, in a process of its own; prints its peak of memory in kB.
pub fn transaction(so: &Path, kind: &str) -> Result<()> {
    let kind = kind_named(kind);
    let dir = tempfile::tempdir()?;
    let db = fresh(dir.path(), kind, so)?;
    db.execute_batch("CREATE TABLE m(id INTEGER PRIMARY KEY, v TEXT)")?;
    crr(&db, kind, "m")?;
    db.execute_batch("BEGIN")?;
    let mut stmt = db.prepare("INSERT INTO m VALUES(?1, 'value')")?;
    for i in 0..BIG {
        stmt.execute(params![i])?;
    }
    drop(stmt);
    db.execute_batch("UPDATE m SET v = 'other' WHERE id % 10 = 0; COMMIT")?;
    let status = std::fs::read_to_string("/proc/self/status")?;
    let peak = status.lines().find_map(|l| l.strip_prefix("VmHWM:")).ok_or("no VmHWM")?;
    println!("{}", peak.trim().trim_end_matches(" kB"));
    Ok(())
}

/// The number that this program prints with these arguments, in a process of its own.
fn alone(arguments: &[&str]) -> Result<f64> {
    let out = Command::new(std::env::current_exe()?).args(arguments).output()?;
    let text = String::from_utf8_lossy(&out.stdout);
    text.trim().parse::<f64>().map_err(|_| String::from_utf8_lossy(&out.stderr).into_owned().into())
}

/// The peak of memory of [`transaction`], in megabytes.
fn peak(kind: &str) -> Result<f64> {
    Ok(alone(&["transaction", kind])? / 1024.0)
}

/// Runs all of it; the long ones once.
pub fn run(so: &Path, runs: usize) -> Result<Vec<Figure>> {
    let dir = tempfile::tempdir()?;
    let dir = dir.path();
    let base = (0, FEW_COLUMNS, 0);
    eprintln!("{TABLES} tables");
    let tables = growth(dir, so, runs, base, (TABLES, FEW_COLUMNS, 0))?;
    eprintln!("{MANY_COLUMNS} columns");
    let columns = growth(dir, so, runs, base, (0, MANY_COLUMNS, 0))?;
    eprintln!("{MANY_ROWS} rows");
    let few_runs = runs.min(3);
    let rows = growth(dir, so, few_runs, (0, FEW_COLUMNS, FEW_ROWS), (0, FEW_COLUMNS, MANY_ROWS))?;
    eprintln!("{BIG} rows in one transaction");
    let [again, first] = opening(dir, so)?;
    let memory = [peak("plain")?, peak("crr")?];
    eprintln!("the rest");
    let times = "x few";
    Ok(vec![
        figure("file_after_ten_rounds", updated_size(dir, so)?, "x plain", 1, "<= 1.6"),
        figure("as_crr_million", late(dir, so)?, "x plain", 1, "<= 0.25"),
        figure("opening_a_connection", again, "ms more", OPENINGS, "<= 0.3"),
        figure("opening_first_in_process", first, "ms more", OPENINGS, "<= 0.3"),
        figure("tables_500_insert", tables[0], times, runs, "~ 1"),
        figure("tables_500_update", tables[1], times, runs, "~ 1"),
        figure("tables_500_single_rows", tables[2], times, runs, "~ 1"),
        figure("columns_60_insert", columns[0], times, runs, "~ 1"),
        figure("columns_60_update", columns[1], times, runs, "~ 1"),
        figure("columns_60_single_rows", columns[2], times, runs, "~ 1"),
        figure("rows_3m_insert", rows[0], times, few_runs, "~ 1"),
        figure("rows_3m_update", rows[1], times, few_runs, "~ 1"),
        figure("rows_3m_single_rows", rows[2], times, few_runs, "~ 1"),
        figure("transaction_5m_rows_plain", memory[0], "MB", 1, ""),
        figure("transaction_5m_rows", memory[1], "MB", 1, "<= 100"),
    ])
}
