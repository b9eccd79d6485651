//! Random histories through portable capture: the same changes as native capture makes, and convergence of replicas of
//! either kind.

use crate::portable::pair;
use rusqlite::Connection;
use starling_tests::random::Random;
use starling_tests::site::{plain, Site};

/// All that capture decides.
const CHANGES: &str =
    "SELECT [table], pk, cid, val, col_version, cl, db_version, seq FROM crsql_changes ORDER BY db_version, seq, [table]";

fn wide() -> String {
    let columns: Vec<String> = (0..130).map(|i| format!("c{i}")).collect();
    format!("CREATE TABLE wide(id INTEGER PRIMARY KEY, {})", columns.join(", "))
}

fn tables() -> Vec<(&'static str, String)> {
    vec![
        (
            "t",
            "CREATE TABLE t(id TEXT NOT NULL PRIMARY KEY, a, b INTEGER, c TEXT NOT NULL DEFAULT 'd' COLLATE NOCASE)"
                .into(),
        ),
        ("n", "CREATE TABLE n(id INTEGER PRIMARY KEY, a TEXT NOT NULL, b ANY) STRICT".into()),
        ("k", "CREATE TABLE k(x INTEGER NOT NULL, y BLOB NOT NULL, PRIMARY KEY(x, y)) WITHOUT ROWID".into()),
        (
            "w",
            "CREATE TABLE w(p TEXT NOT NULL, q REAL NOT NULL, c1, c2, c3, c4, c5, c6, c7, c8, c9, PRIMARY KEY(p, q))"
                .into(),
        ),
        ("any", "CREATE TABLE any(k NOT NULL PRIMARY KEY, v, w REAL, x NUMERIC) WITHOUT ROWID".into()),
        (
            "six",
            "CREATE TABLE six(a NOT NULL, b NOT NULL, c NOT NULL, d NOT NULL, e NOT NULL, f NOT NULL, \
                 v, PRIMARY KEY(f, e, d, c, b, a))"
                .into(),
        ),
        (
            "o'd \"d",
            "CREATE TABLE \"o'd \"\"d\"(\"table\" TEXT NOT NULL PRIMARY KEY, \"ro'w\"\"id\" , \"ключ\" , \"key, --\")"
                .into(),
        ),
        ("wide", wide()),
    ]
}

/// A statement on the table with that number; none says REPLACE, of which native capture guesses what it wrote over.
fn statement(r: &mut Random, table: u64) -> String {
    write(r, table, &["NULL", "1", "1.0", "'x'", "'X'", "x'78'", "9223372036854775807", "1e300", "0"])
}

/// As [`statement`], with zeros, of which no SQL tells whether they change.
fn statement_with_zeros(r: &mut Random, table: u64) -> String {
    write(r, table, &["NULL", "1", "1.0", "'x'", "'X'", "x'78'", "-0.0", "0.0", "0"])
}

/// As [`statement`], with REPLACE, for ways of capture that know.
fn statement_with_replace(r: &mut Random, table: u64) -> String {
    let sql = statement(r, table);
    if r.chance(50) {
        sql.replace("OR IGNORE", "OR REPLACE")
    } else {
        sql
    }
}

fn write(r: &mut Random, table: u64, values: &[&str]) -> String {
    let key = *r.pick(&["'a'", "'b'", "'c'"]);
    let other = *r.pick(&["'a'", "'b'", "'c'"]);
    let value = *r.pick(values);
    let odd = *r.pick(&["1", "'1'", "x'31'", "0.5", "-1", "9223372036854775807", "1e300", "''", "x''"]);
    let (small, id, which) = (r.below(4), r.below(3), r.below(6));
    match (table, which) {
        (0, 0) => format!(
            "INSERT INTO t(id, a) VALUES({key}, {value}) ON CONFLICT(id) DO UPDATE SET a = excluded.a, b = {small}"
        ),
        (0, 1) => format!("UPDATE t SET c = iif(c = 'bob', 'BOB', 'bob'), b = b WHERE id <> {key}"),
        (0, 2) => format!("UPDATE OR IGNORE t SET id = {other} WHERE id = {key}"),
        (0, 3) => format!("DELETE FROM t WHERE id = {key}"),
        (0, 4) => format!("INSERT INTO t(id, a) VALUES('f{small}', 1), ('g', 2), ('g', 3)"),
        (0, _) => format!("INSERT OR IGNORE INTO t(id, a, b) VALUES({key}, {value}, {small}), ({other}, 1, 1)"),
        (1, 0) => format!("UPDATE n SET a = a || 'q', b = {value} WHERE id >= {id}"),
        (1, 1) => format!("DELETE FROM n WHERE id = {id}"),
        (1, 2) => format!("UPDATE OR IGNORE n SET id = id + 1 WHERE id = {id}"),
        (1, _) => format!("INSERT INTO n VALUES({id}, 'p', {small}) ON CONFLICT(id) DO UPDATE SET b = excluded.b"),
        (2, 0) => format!("DELETE FROM k WHERE x = {id}"),
        (2, 1) => format!("UPDATE OR IGNORE k SET y = x'0{small}' WHERE x = {id}"),
        (2, _) => format!("INSERT OR IGNORE INTO k VALUES({id}, x'0{small}')"),
        (3, 0) => format!("UPDATE w SET c{} = {value}, c9 = {small} WHERE q = {id}", 1 + r.below(8)),
        (3, 1) => format!("UPDATE OR IGNORE w SET q = {small} - 0.5 WHERE p = {key}"),
        (3, _) => format!("INSERT OR IGNORE INTO w(p, q, c1, c9) VALUES({key}, {id}, {small}, {value})"),
        (4, 0) => format!("UPDATE OR IGNORE any SET k = {odd} WHERE v IS {value}"),
        (4, 1) => format!("UPDATE any SET v = {value}, w = {small}, x = {value} WHERE k <> {odd}"),
        (4, 2) => format!("DELETE FROM any WHERE k = {odd}"),
        (4, _) => format!("INSERT OR IGNORE INTO any VALUES({odd}, {value}, {small}, {value})"),
        (5, 0) => format!("UPDATE OR IGNORE six SET c = {odd}, v = {value}"),
        (5, 1) => format!("DELETE FROM six WHERE a = {odd}"),
        (5, _) => format!("INSERT OR IGNORE INTO six VALUES({odd}, 1, 2, {key}, x'00', {small}, {value})"),
        (6, 0) => {
            format!("UPDATE \"o'd \"\"d\" SET \"ro'w\"\"id\" = {value}, \"key, --\" = {small} WHERE \"table\" = {key}")
        }
        (6, 1) => format!("DELETE FROM \"o'd \"\"d\" WHERE \"table\" = {key}"),
        (6, _) => format!("INSERT OR IGNORE INTO \"o'd \"\"d\" VALUES({key}, {value}, 1, 2)"),
        (_, 0) => format!("INSERT OR IGNORE INTO wide(id, c64, c129) VALUES({id}, {value}, {small})"),
        (_, 1) => format!("DELETE FROM wide WHERE id = {id} AND c64 = 1"),
        (_, _) => {
            let (i, j) = (r.below(130), r.below(130));
            format!("UPDATE wide SET c{i} = {value}, c{j} = coalesce(c{j}, 0) + 1 WHERE id = {id}")
        }
    }
}

/// A transaction on one table, with savepoints; `None` where it was rolled back.
fn transaction(r: &mut Random, table: u64, statement: fn(&mut Random, u64) -> String) -> Vec<String> {
    if r.chance(30) {
        return vec![statement(r, table)];
    }
    let mut out = vec!["BEGIN".to_string()];
    let mut depth = 0;
    for _ in 0..1 + r.below(7) {
        match r.below(10) {
            0 | 1 => {
                depth += 1;
                out.push(format!("SAVEPOINT s{depth}"));
            }
            2 if depth > 0 => out.push(format!("ROLLBACK TO s{depth}")),
            3 if depth > 0 => {
                out.push(format!("RELEASE s{depth}"));
                depth -= 1;
            }
            _ => out.push(statement(r, table)),
        }
    }
    out.push(if r.chance(85) { "COMMIT".into() } else { "ROLLBACK".into() });
    out
}

/// STARLING_LAWS_RUNS sets how many histories are run.
fn runs(default: u64) -> u64 {
    std::env::var("STARLING_LAWS_RUNS").ok().and_then(|s| s.parse().ok()).unwrap_or(default)
}

/// Constraint failures are part of the history; both must have the same.
fn run(db: &Connection, statements: &[String]) -> Vec<bool> {
    statements.iter().map(|sql| db.execute_batch(sql).is_ok()).collect()
}

#[test]
fn the_same_history_gives_the_same_changes_as_native_capture() {
    the_same_as("native", statement);
}

#[test]
fn the_same_history_gives_the_same_changes_as_exact_capture_also_with_replace() {
    the_same_as("exact", statement_with_replace);
}

/// Portable capture, by a writer with the extension and by one without, beside another way of capture.
fn the_same_as(capture: &str, statement: fn(&mut Random, u64) -> String) {
    let tables = tables();
    let tables: Vec<(&str, &str)> = tables.iter().map(|(n, s)| (*n, s.as_str())).collect();
    let arm = |site: Site| {
        for (name, sql) in &tables {
            site.exec(sql);
            let made: String =
                site.db.query_row("SELECT crsql_as_crr(?1, 'portable')", [name], |r| r.get(0)).expect("portable");
            assert_eq!(made, "OK");
        }
        site
    };
    for seed in 0..runs(15) {
        println!("seed {seed}");
        let mut r = Random::new(seed);
        let native = Site::memory();
        for (name, sql) in &tables {
            native.exec(sql);
            native.db.query_row("SELECT crsql_as_crr(?1, ?2)", [name, capture], |_| Ok(())).expect("native");
        }
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("p.db");
        let (loaded, drained) = (arm(Site::memory()), arm(Site::file(&path)));
        let app = plain(&path);
        for _ in 0..25 {
            let table = r.below(8);
            let statements = transaction(&mut r, table, statement);
            println!("  {statements:?}");
            let outcome = run(&native.db, &statements);
            assert_eq!(run(&loaded.db, &statements), outcome);
            assert_eq!(run(&app, &statements), outcome);
            let expected = native.rows(CHANGES);
            let version = native.one::<i64>("SELECT crsql_db_version()");
            assert_eq!(loaded.one::<i64>("SELECT crsql_db_version()"), version, "a version at its own commit");
            assert_eq!(loaded.rows(CHANGES), expected, "the loaded writer");
            assert_eq!(drained.rows(CHANGES), expected, "the plain writer");
        }
    }
}

#[test]
fn random_histories_of_portable_native_and_mixed_replicas_end_equal() {
    for seed in 0..runs(15) {
        println!("seed {seed}");
        let mut r = Random::new(seed);
        let tables = tables();
        let tables: Vec<(&str, &str)> =
            tables.iter().map(|(n, s)| (*n, s.as_str())).filter(|t| !t.0.contains('\'')).collect();
        let pairs = [pair(&tables), pair(&tables)];
        let native = Site::memory().with(&tables);
        let sites = [&pairs[0].site, &pairs[1].site, &native];
        for _ in 0..20 {
            let (i, j) = (r.below(3) as usize, r.below(3) as usize);
            let table = *r.pick(&[0, 1, 2, 3, 4, 5, 7]);
            match r.below(4) {
                0 if i != j => sites[i].pull(sites[j]),
                1 if i != j => {
                    let (mut parts, _) = sites[j].answer(&sites[i].vector());
                    r.shuffle(&mut parts);
                    parts.truncate(2);
                    parts.iter().for_each(|(part, _)| assert!(sites[i].merge(part).is_ok()));
                }
                2 if i < 2 => drop(run(&pairs[i].app, &transaction(&mut r, table, statement_with_zeros))),
                _ => drop(run(&sites[i].db, &transaction(&mut r, table, statement_with_zeros))),
            }
        }
        for _ in 0..2 {
            for to in sites {
                sites.iter().filter(|from| !std::ptr::eq(to, **from)).for_each(|from| to.pull(from));
            }
        }
        for other in &sites[1..] {
            for (name, _) in &tables {
                let all = |site: &Site| {
                    let mut rows = site.rows(&format!("SELECT * FROM {name}"));
                    rows.sort();
                    rows
                };
                assert_eq!(all(sites[0]), all(other), "{name}");
            }
            assert_eq!(sites[0].changes(), other.changes());
            assert_eq!(sites[0].vector(), other.vector());
        }
    }
}
