//! I1 to I4 and the vector's half of I6 over random histories. STARLING_LAWS_SEED replays one seed, STARLING_LAWS_RUNS
//! sets how many are run.

use starling_tests::ledger;
use starling_tests::random::{each_seed, Random};
use starling_tests::site::Site;
use std::collections::BTreeSet;

const TABLES: &[(&str, &str)] = &[
    ("t", "CREATE TABLE t(id TEXT NOT NULL PRIMARY KEY, a, b INTEGER, c TEXT NOT NULL DEFAULT 'd' COLLATE NOCASE)"),
    ("n", "CREATE TABLE n(id INTEGER PRIMARY KEY, a TEXT NOT NULL, b) STRICT"),
    ("k", "CREATE TABLE k(x INTEGER NOT NULL, y BLOB NOT NULL, PRIMARY KEY(x, y)) WITHOUT ROWID"),
    ("w", "CREATE TABLE w(p TEXT NOT NULL, q REAL NOT NULL, c1, c2, c3, c4, c5, c6, c7, c8, c9, PRIMARY KEY(p, q))"),
];

fn tables() -> Vec<(&'static str, String)> {
    TABLES.iter().map(|(name, sql)| (*name, sql.replace("b) STRICT", "b ANY) STRICT"))).collect()
}

fn site() -> Site {
    let tables = tables();
    let tables: Vec<(&str, &str)> = tables.iter().map(|(n, s)| (*n, s.as_str())).collect();
    Site::memory().with(&tables)
}

fn statement(r: &mut Random) -> String {
    let key = *r.pick(&["'a'", "'b'", "'c'"]);
    let other = *r.pick(&["'a'", "'b'", "'c'"]);
    let value = *r.pick(&["NULL", "1", "1.0", "'x'", "'X'", "x'78'", "-0.0", "0.0", "9223372036854775807"]);
    let (small, id) = (r.below(4), r.below(3));
    match r.below(20) {
        0 | 1 => format!("INSERT OR IGNORE INTO t(id, a, b) VALUES({key}, {value}, {small})"),
        2 => format!(
            "INSERT INTO t(id, a) VALUES({key}, {value}) ON CONFLICT(id) DO UPDATE SET a = excluded.a, b = {small}"
        ),
        3 | 4 => format!("UPDATE t SET a = {value}, b = coalesce(b, 0) + {small} WHERE id = {key}"),
        5 => format!("UPDATE t SET c = iif(c = 'bob', 'BOB', 'bob') WHERE id <> {key}"),
        6 => format!("UPDATE OR IGNORE t SET id = {other} WHERE id = {key}"),
        7 => format!("UPDATE OR REPLACE t SET id = {other} WHERE id = {key}"),
        8 => format!("DELETE FROM t WHERE id = {key}"),
        9 => format!("REPLACE INTO t(id, a) VALUES({key}, {value}), ({other}, {small})"),
        10 | 11 => format!("INSERT INTO n VALUES({id}, 'p', {small}) ON CONFLICT(id) DO UPDATE SET b = excluded.b"),
        12 => format!("UPDATE n SET a = a || 'q', b = {value} WHERE id >= {id}"),
        13 => format!("DELETE FROM n WHERE id = {id}"),
        14 => format!("UPDATE OR REPLACE n SET id = id + 1 WHERE id = {id}"),
        15 => format!("INSERT OR IGNORE INTO k VALUES({id}, x'0{small}')"),
        16 => format!("DELETE FROM k WHERE x = {id}"),
        17 => format!("INSERT OR REPLACE INTO w(p, q, c1, c9) VALUES({key}, {id}, {small}, {value})"),
        18 => format!("UPDATE w SET c{} = {value}, c9 = {small} WHERE q = {id}", 1 + r.below(8)),
        // A statement of several rows that fails half-way (a key twice, a NULL that may not be).
        _ => format!("INSERT INTO t(id, a) VALUES('f{small}', 1), ('g', 2), ('g', 3)"),
    }
}

fn write(site: &Site, r: &mut Random) {
    let sql = statement(r);
    // Constraint failures are part of the history.
    let outcome = site.db.execute_batch(&sql);
    println!("  {sql} {}", outcome.err().map_or(String::new(), |e| format!("-- {e}")));
}

fn transaction(site: &Site, r: &mut Random) {
    if r.chance(40) {
        return write(site, r);
    }
    println!("  BEGIN");
    site.exec("BEGIN");
    let mut depth = 0;
    for _ in 0..r.below(8) {
        match r.below(10) {
            0 | 1 => {
                depth += 1;
                println!("  SAVEPOINT s{depth}");
                site.exec(&format!("SAVEPOINT s{depth}"));
            }
            2 if depth > 0 => {
                println!("  ROLLBACK TO s{depth}");
                site.exec(&format!("ROLLBACK TO s{depth}"));
            }
            3 if depth > 0 => {
                println!("  RELEASE s{depth}");
                site.exec(&format!("RELEASE s{depth}"));
                depth -= 1;
            }
            4 => {
                println!("  SELECT crsql_changes");
                site.one::<i64>("SELECT count(*) FROM crsql_changes");
            }
            _ => write(site, r),
        }
    }
    if r.chance(80) {
        site.exec("COMMIT");
    } else {
        let before = site.one::<i64>("SELECT crsql_db_version()");
        site.exec("ROLLBACK");
        assert_eq!(site.one::<i64>("SELECT crsql_db_version()"), before, "a rollback moved the version");
    }
}

/// Everything that can be asked of a replica.
fn dump(site: &Site) -> Vec<String> {
    let mut out = Vec::new();
    for (name, _) in TABLES {
        out.extend(site.rows(&format!("SELECT * FROM {name} ORDER BY 1, 2")));
    }
    out
}

/// I1: each cell once, and every cell of every row.
fn check_cells(site: &Site, nine: bool) {
    let changes = site.changes();
    let distinct: BTreeSet<_> = changes.iter().map(|c| (&c.0, &c.1, &c.2)).collect();
    assert_eq!(distinct.len(), changes.len(), "a cell belongs to two log entries: {changes:?}");
    if nine {
        return;
    }
    for (name, columns) in [("t", 3), ("n", 2), ("w", 9)] {
        let rows = site.one::<i64>(&format!("SELECT count(*) FROM {name}"));
        let cells = changes.iter().filter(|c| c.0 == name && c.2 != "-1").count() as i64;
        let hidden = site.one::<i64>(&format!(
            "SELECT count(*) FROM crsql_hidden AS h JOIN crsql_table AS t ON t.id = h.table_id WHERE t.name = '{name}'"
        ));
        assert_eq!(cells, rows * columns + hidden, "cells of {name} without a log entry, or the reverse");
    }
    assert_eq!(site.one::<String>("PRAGMA integrity_check"), "ok");
}

/// An exchange that may break off, come twice or out of order; then nothing is claimed but what may be.
fn partial(to: &Site, from: &Site, r: &mut Random) {
    let (mut parts, _) = from.answer(&to.vector());
    r.shuffle(&mut parts);
    parts.truncate(r.below(parts.len() as u64 + 1) as usize);
    for (part, _) in &parts {
        for _ in 0..=r.below(2) {
            to.merge(part).unwrap_or_else(|e| panic!("starling_merge: {e}"));
        }
    }
}

fn history(seed: u64, nine: bool) {
    let mut r = Random::new(seed);
    let sites: Vec<Site> = (0..2 + r.below(3)).map(|_| site()).collect();
    let mut kept: Vec<Vec<u8>> = Vec::new();
    for _ in 0..5 + r.below(30) {
        let (i, j) = (r.below(sites.len() as u64) as usize, r.below(sites.len() as u64) as usize);
        let what = r.below(10);
        println!("{i} <- {j}: {what}");
        match what {
            _ if i == j && r.chance(50) => {
                sites[i].one::<i64>(&format!("SELECT starling_prune({})", r.below(60)));
            }
            _ if i == j => transaction(&sites[i], &mut r),
            0..=5 => transaction(&sites[i], &mut r),
            6 if nine => sites[i].pull_nine(&sites[j], |rows| r.shuffle(rows)),
            6 | 7 => sites[i].pull(&sites[j]),
            8 => partial(&sites[i], &sites[j], &mut r),
            _ => {
                // A relay forwards, perhaps much later, the very bytes of a changeset that may be claimed.
                kept.extend(sites[j].answer(&sites[i].vector()).0.into_iter().filter(|p| p.1).map(|p| p.0));
                if !kept.is_empty() {
                    let part = r.pick(&kept).clone();
                    sites[i].merge(&part).unwrap_or_else(|e| panic!("starling_merge: {e}"));
                }
            }
        }
        check_cells(&sites[i], nine);
    }
    for _ in 0..2 {
        for to in &sites {
            for from in &sites {
                if !std::ptr::eq(to, from) {
                    to.pull(from);
                }
            }
        }
    }
    let (first, rest) = sites.split_first().expect("there are two at least");
    for other in rest {
        assert_eq!(dump(first), dump(other), "tables differ");
        assert_eq!(first.changes(), other.changes(), "changes differ");
        assert_eq!(first.vector(), other.vector(), "vectors differ");
    }
    // One site's log is enough for each history.
    ledger::check(r.pick(&sites));
}

fn run_all(nine: bool, default: u64) {
    each_seed("LAWS", default, |seed| history(seed, nine));
}

#[test]
fn any_delivery_order_ends_in_equal_tables_changes_and_vectors() {
    run_all(false, 250);
}

#[test]
fn cell_by_cell_and_changesets_mixed_end_equal_too() {
    run_all(true, 150);
}
