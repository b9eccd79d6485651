//! The same random SQL on plain tables and on CRRs, compared after each statement. STARLING_LAWS_SEED replays one seed,
//! STARLING_LAWS_RUNS sets how many are run; `--nocapture` shows the SQL.

use super::statements::{self, ALL, CRRS, PLANS};
use starling_tests::random::{each_seed, Random};
use starling_tests::seen::{observe, pull_nine, rows, same};
use starling_tests::site::Site;

/// A plain database and one with CRRs.
struct Pair {
    plain: Site,
    crr: Site,
    tables: Vec<String>,
    /// `changes()` after a COMMIT counts the internal writes too, until the next write (LIMITS.md).
    committed: bool,
}

impl Pair {
    fn new(r: &mut Random) -> Self {
        let tables = statements::tables(r);
        let pair = Self { plain: Site::memory(), crr: Site::memory(), tables, committed: false };
        for sql in statements::settings(r) {
            pair.both(&sql);
        }
        for sql in &pair.tables {
            pair.both(sql);
        }
        let (mut around, triggers) = (statements::surroundings(r), statements::triggers(r));
        if r.chance(50) {
            pair.arm();
        }
        around.extend(triggers);
        for sql in around {
            pair.both(&sql);
        }
        // Once more where triggers have come since: the CRR's own must fire first.
        pair.arm();
        for s in [&pair.plain, &pair.crr] {
            // Where they begin has nothing to do with the tables.
            s.exec("INSERT INTO note VALUES(1, 'begin')");
        }
        pair
    }

    fn arm(&self) {
        for (name, _) in CRRS {
            self.crr.one::<String>(&format!("SELECT crsql_as_crr('{name}')"));
        }
    }

    fn both(&self, sql: &str) {
        println!("  {sql};");
        self.plain.exec(sql);
        self.crr.exec(sql);
    }

    fn step(&mut self, sql: &str, dml: bool) {
        println!("  {sql};");
        let (mut plain, mut crr) = (observe(&self.plain.db, sql), observe(&self.crr.db, sql));
        if dml && plain.prepared {
            self.committed = false;
        } else if !dml && plain.autocommit {
            self.committed = true;
        }
        if self.committed {
            (plain.changes, crr.changes) = (0, 0);
        }
        if sql == "VACUUM" {
            // SQLite's own copying leaves its mark in last_insert_rowid(), which the number of rows in the schema decides.
            (plain.rowid, crr.rowid) = (0, 0);
            self.both("REPLACE INTO note VALUES(1, 'vacuumed')");
        }
        same(sql, &plain, &crr);
        for (table, columns) in ALL {
            let query = format!("SELECT {columns} FROM {table}");
            same(&format!("{query} after {sql}"), &rows(&self.plain.db, &query), &rows(&self.crr.db, &query));
        }
    }

    fn compare_plans(&self) {
        for query in PLANS {
            let explain = format!("EXPLAIN QUERY PLAN {query}");
            same(&explain, &rows(&self.plain.db, &explain), &rows(&self.crr.db, &explain));
        }
    }
}

fn replica(tables: &[String]) -> Site {
    let site = Site::memory();
    for sql in tables {
        site.exec(sql);
    }
    for (name, _) in CRRS {
        site.one::<String>(&format!("SELECT crsql_as_crr('{name}')"));
    }
    site
}

/// Replicas with these tables that take everything, by changesets and by nine values, hold the same.
pub fn compare_replicas(crr: &Site, tables: &[String]) {
    let (whole, nine) = (replica(tables), replica(tables));
    whole.pull(crr);
    pull_nine(&nine, crr);
    for (table, columns) in CRRS {
        let query = format!("SELECT {columns} FROM {table}");
        let sorted = |site: &Site| {
            let mut all = rows(&site.db, &query);
            all.sort();
            all
        };
        let here = sorted(crr);
        same(&format!("a replica's {table}"), &here, &sorted(&whole));
        same(&format!("{table} of a replica by nine values"), &here, &sorted(&nine));
    }
    assert_eq!(whole.changes_bytes(), crr.changes_bytes(), "changes differ");
}

trait ChangesBytes {
    fn changes_bytes(&self) -> Vec<String>;
}

impl ChangesBytes for Site {
    fn changes_bytes(&self) -> Vec<String> {
        let mut all = rows(&self.db, "SELECT [table], pk, cid, val, col_version, cl FROM crsql_changes");
        all.sort();
        all
    }
}

fn history(seed: u64) {
    println!("-- seed {seed}");
    let r = &mut Random::new(seed);
    let mut pair = Pair::new(r);
    pair.compare_plans();
    for _ in 0..10 + r.below(40) {
        let (sql, dml) = statements::statement(r);
        pair.step(&sql, dml);
    }
    if !pair.crr.db.is_autocommit() {
        pair.step(if r.chance(80) { "COMMIT" } else { "ROLLBACK" }, false);
        if !pair.crr.db.is_autocommit() {
            // A deferred constraint stood in the way.
            pair.step("ROLLBACK", false);
        }
    }
    pair.both("ANALYZE");
    pair.compare_plans();
    compare_replicas(&pair.crr, &pair.tables);
    pair.step("PRAGMA integrity_check", false);
}

#[test]
fn random_sql_gives_the_same_rows_errors_counts_and_content() {
    each_seed("LAWS", 120, history);
}
