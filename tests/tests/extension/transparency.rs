//! An application sees no difference on a CRR: the same random SQL on a plain table and on a CRR, compared step by step.

#[path = "transparency/differential.rs"]
mod differential;
#[path = "transparency/files.rs"]
mod files;
#[path = "transparency/limits.rs"]
mod limits;
#[path = "transparency/processes.rs"]
mod processes;
#[path = "transparency/shell.rs"]
mod shell;
#[path = "transparency/statements.rs"]
mod statements;
#[path = "transparency/statements_open.rs"]
mod statements_open;

use rusqlite::Connection;
use starling_tests::random::Random;
use starling_tests::site::Site;

const TABLE: &str = "CREATE TABLE t(id INTEGER PRIMARY KEY, a TEXT CHECK(a <> 'bad'), b INT NOT NULL DEFAULT 5, \
                     c AS (b * 2)); CREATE INDEX i ON t(b)";

fn statement(r: &mut Random) -> String {
    let (id, v) = (r.below(6), r.below(9));
    match r.below(12) {
        0 => format!("INSERT INTO t(id, a) VALUES({id}, 'x{v}')"),
        1 => format!("INSERT INTO t(a, b) VALUES('n', {v}), ('m', {v})"),
        2 => format!("INSERT OR IGNORE INTO t(id, a) VALUES({id}, 'y'), ({v}, 'bad'), ({v}, 'z')"),
        3 => format!("REPLACE INTO t(id, a, b) VALUES({id}, 'r', {v})"),
        4 => format!("INSERT INTO t(id, a) VALUES({id}, 'u') ON CONFLICT(id) DO UPDATE SET b = b + 1"),
        5 => format!("UPDATE t SET b = b + {v} WHERE id < {id}"),
        6 => format!("UPDATE t SET id = id + {v} WHERE id = {id}"),
        7 => format!("UPDATE OR FAIL t SET a = iif(id = {id}, 'bad', 'ok')"),
        8 => format!("DELETE FROM t WHERE b > {v} AND id > {id}"),
        9 => format!("INSERT INTO t(id, a) SELECT id + 1, a FROM t WHERE id > {id}"),
        10 => format!("UPDATE t SET b = x.n FROM (SELECT {id} AS k, {v} AS n) AS x WHERE t.id = x.k"),
        _ => format!("INSERT INTO t(id, a, b) VALUES({v}, 'q', NULL)"),
    }
}

/// What an application can see of a statement.
fn run(db: &Connection, sql: &str) -> String {
    let returning = format!("{sql} RETURNING id, a, b, c");
    let mut out = Vec::new();
    let result = (|| -> rusqlite::Result<()> {
        let mut stmt = db.prepare(&returning)?;
        let mut rows = stmt.query([])?;
        while let Some(row) = rows.next()? {
            out.push(format!("{:?}", (0..4).map(|i| row.get_ref(i).map(|v| format!("{v:?}"))).collect::<Vec<_>>()));
        }
        Ok(())
    })();
    let code = result.err().map(|e| (e.sqlite_error().map(|s| s.extended_code), e.to_string()));
    out.sort();
    format!("{code:?} changes {} rowid {} {out:?}", db.changes(), db.last_insert_rowid())
}

#[test]
fn results_errors_changes_and_rowids_are_those_of_a_plain_table() {
    for seed in 0..150 {
        let mut r = Random::new(seed);
        let (plain, crr) = (Site::memory(), Site::memory());
        plain.exec(TABLE);
        crr.exec(TABLE);
        crr.one::<String>("SELECT crsql_as_crr('t')");
        // Where they begin has nothing to do with the table.
        for s in [&plain, &crr] {
            s.exec("CREATE TABLE other(x INTEGER PRIMARY KEY); INSERT INTO other VALUES(1)");
        }
        for _ in 0..30 {
            let sql = match r.below(12) {
                0 => "BEGIN".to_string(),
                1 => "COMMIT".to_string(),
                2 => "ROLLBACK".to_string(),
                3 => "SAVEPOINT s".to_string(),
                4 => "ROLLBACK TO s".to_string(),
                5 => "RELEASE s".to_string(),
                _ => statement(&mut r),
            };
            if sql.starts_with(['B', 'C', 'S'])
                || sql.starts_with("RO")
                || sql.starts_with("RE") && !sql.starts_with("REPLACE")
            {
                let (x, y) = (plain.db.execute_batch(&sql), crr.db.execute_batch(&sql));
                assert_eq!(x.is_ok(), y.is_ok(), "seed {seed}: {sql}");
                continue;
            }
            assert_eq!(run(&plain.db, &sql), run(&crr.db, &sql), "seed {seed}: {sql}");
        }
        let all = "SELECT * FROM t ORDER BY id";
        assert_eq!(plain.rows(all), crr.rows(all), "seed {seed}");
    }
}

#[test]
fn calls_of_the_extension_leave_last_insert_rowid_as_it_was() {
    let s = Site::memory();
    s.exec("CREATE TABLE t(id INTEGER PRIMARY KEY, a); CREATE TABLE o(id INTEGER PRIMARY KEY, at TEXT)");
    s.exec("INSERT INTO o VALUES(1, NULL); INSERT INTO t VALUES(77, 1)");
    for sql in [
        "SELECT crsql_as_crr('t')",
        "SELECT crsql_begin_alter('t')",
        "ALTER TABLE t ADD COLUMN b DEFAULT 1",
        "SELECT crsql_commit_alter('t')",
        "ALTER TABLE t ADD COLUMN c DEFAULT 1",
        "SELECT starling_resume()",
        "SELECT crsql_as_crr('o'), crsql_fract_as_ordered('o', 'at')",
        "SELECT starling_new_epoch()",
        "SELECT starling_prune(1000)",
        "SELECT starling_new_site()",
        "SELECT crsql_automigrate('CREATE TABLE t(id INTEGER PRIMARY KEY, a, d)')",
        "SELECT crsql_as_table('t')",
    ] {
        s.exec(sql);
        assert_eq!(s.db.last_insert_rowid(), 77, "{sql}");
    }
}

#[test]
fn triggers_work_with_an_untrusted_schema_and_recursive_triggers() {
    let s = Site::memory();
    s.exec("PRAGMA trusted_schema = OFF; PRAGMA recursive_triggers = ON");
    s.exec("CREATE TABLE t(id INTEGER PRIMARY KEY, a)");
    s.one::<String>("SELECT crsql_as_crr('t')");
    s.exec("INSERT INTO t VALUES(1, 1); REPLACE INTO t VALUES(1, 2)");
    let c = Site::memory().with(&[("t", "CREATE TABLE t(id INTEGER PRIMARY KEY, a)")]);
    c.pull(&s);
    assert_eq!(c.rows("SELECT * FROM t"), ["1|2"]);
    assert_eq!(c.changes(), s.changes());
}

#[test]
fn a_key_of_many_columns_and_a_table_of_many_columns_work() {
    let columns: Vec<String> = (0..140).map(|i| format!("c{i}")).collect();
    let sql = format!(
        "CREATE TABLE w(k1 NOT NULL, k2 NOT NULL, k3 NOT NULL, k4 NOT NULL, k5 NOT NULL, {}, PRIMARY KEY(k1, k2, k3, k4, k5))",
        columns.join(", ")
    );
    let (a, b) = (Site::memory().with(&[("w", &sql)]), Site::memory().with(&[("w", &sql)]));
    a.exec("INSERT INTO w(k1, k2, k3, k4, k5, c0, c139) VALUES(1, 'b', x'03', 4.5, -5, 'first', 'last')");
    b.pull(&a);
    a.exec("UPDATE w SET c62 = 'x', c63 = 'y', c64 = 'z', c128 = 'w', c139 = 'end'");
    b.pull(&a);
    assert_eq!(b.rows("SELECT c0, c62, c63, c64, c128, c139 FROM w"), ["'first'|'x'|'y'|'z'|'w'|'end'"]);
    assert_eq!(a.changes(), b.changes());
    a.exec("UPDATE w SET k5 = 6");
    b.pull(&a);
    assert_eq!(b.rows("SELECT k5, c64 FROM w"), ["6|'z'"]);
    assert_eq!(a.changes(), b.changes());
}

#[test]
fn whole_numbers_in_a_real_column_of_a_long_key_work_and_in_an_untyped_one_are_refused() {
    let sql = "CREATE TABLE w(k1 INT NOT NULL, k2 TEXT NOT NULL, k3 BLOB NOT NULL, k4 REAL NOT NULL, k5 NOT NULL, a, \
               PRIMARY KEY(k1, k2, k3, k4, k5))";
    let (a, b) = (Site::memory().with(&[("w", sql)]), Site::memory().with(&[("w", sql)]));
    a.exec("INSERT INTO w VALUES(1, 'b', x'03', 1, 5, 'one'), (1, 'b', x'03', -0.0, 5, 'zero'); UPDATE w SET k4 = 2.0 WHERE k4 = 0");
    assert!(a.refused("INSERT INTO w VALUES(1, 'b', x'03', 1, 6.0, 'x')").contains("REAL key"));
    b.pull(&a);
    assert_eq!(b.rows("SELECT k4, a FROM w ORDER BY k4"), ["1.0r|'one'", "2.0r|'zero'"]);
    assert_eq!(a.changes(), b.changes());
}
