//! Portable capture: plain triggers and an inbox, for writers that have no extension (DESIGN 2.7, hazards E9 and E17).

use rusqlite::Connection;
use starling_tests::site::{plain, Site};
use std::path::PathBuf;

pub const T: (&str, &str) = ("t", "CREATE TABLE t(id TEXT NOT NULL PRIMARY KEY, a, b)");

/// A file with a portable table, a loaded connection and a plain one.
pub struct Pair {
    _dir: tempfile::TempDir,
    path: PathBuf,
    pub site: Site,
    pub app: Connection,
}

pub fn portable(site: Site, tables: &[(&str, &str)]) -> Site {
    for (name, sql) in tables {
        site.exec(sql);
        site.one::<String>(&format!("SELECT crsql_as_crr('{name}', 'portable')"));
    }
    site
}

pub fn pair(tables: &[(&str, &str)]) -> Pair {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("app.db");
    let site = portable(Site::file(&path), tables);
    let app = plain(&path);
    Pair { _dir: dir, path, site, app }
}

impl Pair {
    pub fn app(&self, sql: &str) {
        self.app.execute_batch(sql).unwrap_or_else(|e| panic!("{sql}: {e}"));
    }

    pub fn inbox(&self) -> i64 {
        self.site.one("SELECT count(*) FROM crsql_inbox_1")
    }
}

pub fn memory() -> Site {
    portable(Site::memory(), &[T])
}

#[test]
fn a_read_of_the_changes_drains_and_leaves_the_inbox_empty() {
    let p = pair(&[T]);
    p.app("INSERT INTO t VALUES('k', 1, 2); UPDATE t SET a = 3; UPDATE t SET a = 3");
    assert_eq!(
        (p.inbox(), p.site.one::<i64>("SELECT crsql_db_version()")),
        (2, 0),
        "an update of nothing leaves nothing"
    );
    assert_eq!(
        p.site.rows("SELECT cid, col_version, db_version FROM crsql_changes ORDER BY cid"),
        ["'a'|2|1", "'b'|1|1"]
    );
    assert_eq!((p.inbox(), p.site.one::<i64>("SELECT crsql_db_version()")), (0, 1));
    p.app("DELETE FROM t");
    assert_eq!(p.site.one::<i64>("SELECT starling_drain()"), 1);
    assert_eq!(p.site.one::<i64>("SELECT starling_drain()"), 0);
    assert_eq!((p.inbox(), p.site.one::<i64>("SELECT crsql_db_version()")), (0, 2));
    assert_eq!(p.site.rows("SELECT cid, cl FROM crsql_changes"), ["'-1'|2"]);
}

#[test]
fn a_read_goes_on_in_the_snapshot_of_its_own_drain() {
    let p = pair(&[T]);
    p.app("INSERT INTO t VALUES('k', 1, 2), ('l', 1, 2)");
    let mut read = p.site.db.prepare("SELECT pk, val FROM crsql_changes").expect("it prepares");
    let mut rows = read.query([]).expect("it runs");
    rows.next().expect("a row").expect("one at least");
    p.app("UPDATE t SET a = 'late'");
    let mut n = 1;
    while let Some(row) = rows.next().expect("a row") {
        n += 1;
        assert_ne!(row.get_ref(1).expect("a value").as_str().ok(), Some("late"));
    }
    assert_eq!(n, 4);
}

#[test]
fn a_reader_that_cannot_take_the_lock_says_so_and_one_that_may_not_write_reads_what_is_there() {
    let p = pair(&[T]);
    p.app("INSERT INTO t VALUES('k', 1, 2)");
    p.site.rows("SELECT * FROM crsql_changes");
    p.app("UPDATE t SET a = 2; BEGIN IMMEDIATE");
    p.site.db.busy_timeout(std::time::Duration::ZERO).expect("a timeout");
    assert!(p.site.refused("SELECT * FROM crsql_changes").contains("locked"));
    assert!(p.site.refused("SELECT * FROM starling_changesets").contains("locked"));
    p.site.vector();
    p.app("COMMIT");
    p.site.exec("PRAGMA query_only = 1");
    assert_eq!(p.site.rows("SELECT cid, col_version FROM crsql_changes ORDER BY cid"), ["'a'|1", "'b'|1"]);
    assert!(p.site.refused("SELECT * FROM starling_changesets").contains("without the extension wait"));
    p.site.exec("PRAGMA query_only = 0");
    assert_eq!(p.site.rows("SELECT cid, col_version FROM crsql_changes ORDER BY cid"), ["'a'|2", "'b'|1"]);
}

#[test]
fn what_was_written_before_a_crash_waits_and_is_not_lost() {
    let p = pair(&[T]);
    p.app("INSERT INTO t VALUES('k', 1, 1)");
    // A kill between the write and the drain leaves the file and its WAL: a copy of both is what the next start finds.
    p.app("PRAGMA wal_autocheckpoint = 0; UPDATE t SET a = 2");
    let dir = tempfile::tempdir().expect("a directory");
    let copy = dir.path().join("app.db");
    // By another process: closing these files in this one would drop SQLite's locks.
    let mut sh = std::process::Command::new("sh");
    sh.arg("-c").arg("cp \"$0\" \"$1\" && cp \"$0-wal\" \"$1-wal\"").arg(&p.path).arg(&copy);
    assert!(sh.status().expect("sh runs").success());
    let after = Site::file(&copy);
    assert_eq!(after.rows("SELECT cid, val, col_version FROM crsql_changes ORDER BY cid"), ["'a'|2|2", "'b'|1|1"]);
    // A drain that was cut short: rolled back, everything waits as before.
    p.site.exec("BEGIN; SELECT starling_drain(); SELECT count(*) FROM crsql_changes; ROLLBACK");
    assert_eq!((p.inbox(), p.site.one::<i64>("SELECT crsql_db_version()")), (2, 0));
    assert_eq!(p.site.changes(), after.changes());
}

#[test]
fn savepoints_and_mixed_tables_in_one_transaction_are_one_version() {
    let n = ("n", "CREATE TABLE n(id INTEGER PRIMARY KEY, a)");
    let s = portable(Site::memory(), &[T]).with(&[n]);
    s.exec("BEGIN; INSERT INTO t VALUES('k', 1, 1); INSERT INTO n VALUES(1, 1); SAVEPOINT x");
    assert_eq!(s.rows("SELECT DISTINCT db_version FROM crsql_changes"), ["1"], "in the middle of the transaction");
    s.exec("UPDATE t SET a = 'undone'; SELECT count(*) FROM crsql_changes; ROLLBACK TO x; UPDATE t SET b = 2; UPDATE n SET a = 2; COMMIT");
    assert_eq!(s.one::<i64>("SELECT crsql_db_version()"), 1);
    assert_eq!(
        s.rows("SELECT [table], cid, val, col_version FROM crsql_changes ORDER BY 1, 2"),
        ["'n'|'a'|2|2", "'t'|'a'|1|1", "'t'|'b'|2|2"]
    );
}

#[test]
fn writers_with_and_without_the_extension_share_a_table() {
    let p = pair(&[T]);
    let peer = memory();
    for i in 0..50 {
        p.app(&format!("INSERT INTO t VALUES('p{i}', {i}, 0)"));
        p.site.exec(&format!("INSERT INTO t VALUES('l{i}', {i}, 0); UPDATE t SET b = b + 1"));
        p.app("UPDATE t SET b = b + 1 WHERE id LIKE 'l%'");
    }
    peer.pull(&p.site);
    assert_eq!(peer.rows("SELECT * FROM t ORDER BY id"), p.site.rows("SELECT * FROM t ORDER BY id"));
    assert_eq!(peer.changes(), p.site.changes());
    // Whoever opened the file before the table became portable has no part in its own commit: the next drain does.
    let dir = tempfile::tempdir().expect("a directory");
    let (early, late) = (Site::file(&dir.path().join("x.db")), Site::file(&dir.path().join("x.db")));
    let late = portable(late, &[T]);
    early.exec("INSERT INTO t VALUES('k', 1, 1)");
    assert_eq!(late.rows("SELECT count(*), max(db_version) FROM crsql_changes"), ["2|1"]);
}

#[test]
fn a_table_goes_from_one_way_of_capture_to_the_other_and_back_without_a_word() {
    let p = pair(&[T]);
    p.app("INSERT INTO t VALUES('k', 1, 1)");
    let one = |sql: &str| p.site.one::<String>(sql);
    assert_eq!(one("SELECT crsql_as_crr('t')"), "OK");
    p.app("UPDATE t SET a = 1");
    assert_eq!(p.inbox(), 1, "asked for no other way, it keeps its own");
    one("SELECT crsql_as_crr('t', 'native')");
    let refusal = p.app.execute_batch("UPDATE t SET a = 2").expect_err("it is native now").to_string();
    assert!(refusal.contains("starling_extension_is_not_loaded"), "{refusal}");
    assert_eq!(p.site.rows("SELECT cid, col_version, db_version FROM crsql_changes"), ["'a'|1|1", "'b'|1|1"]);
    p.site.exec("UPDATE t SET a = 2");
    one("SELECT crsql_as_crr('main', 't', 'portable')");
    // SQLite does not look at a schema anew for a table that a trigger misses, so a connection that has just failed asks first.
    p.app("SELECT count(*) FROM t; UPDATE t SET a = 3");
    p.site.exec("UPDATE t SET b = 3");
    assert_eq!(
        p.site.rows("SELECT cid, col_version, db_version FROM crsql_changes ORDER BY cid"),
        ["'a'|3|3", "'b'|2|3"],
        "the loaded writer's commit took what waited with it"
    );
    one("SELECT crsql_as_table('t')");
    p.app("UPDATE t SET a = 4");
    assert_eq!(p.site.rows("SELECT count(*) FROM sqlite_master WHERE type = 'trigger'"), ["0"]);
    one("SELECT crsql_as_crr('t')");
    assert!(p.app.execute_batch("UPDATE t SET a = 5").is_err(), "native is the default");
}

#[test]
fn a_table_called_portable_can_be_either_argument() {
    let s = Site::memory();
    s.exec("CREATE TABLE portable(id INTEGER PRIMARY KEY); CREATE TABLE main(id INTEGER PRIMARY KEY)");
    let inboxes = "SELECT count(*) FROM sqlite_master WHERE name LIKE 'crsql_inbox%'";
    s.one::<String>("SELECT crsql_as_crr('main', 'portable')");
    assert_eq!((s.one::<i64>(inboxes), s.one::<String>("SELECT name FROM crsql_table")), (0, "portable".into()));
    s.one::<String>("SELECT crsql_as_crr('main', 'main', 'portable')");
    s.one::<String>("SELECT crsql_as_crr('portable', 'portable')");
    assert_eq!(s.one::<i64>(inboxes), 2);
    assert!(s.refused("SELECT crsql_as_crr('main', 'main', 'odd')").contains("exact and portable"));
    assert!(s.refused("SELECT crsql_as_crr('nowhere', 'portable')").contains("no such table"));
}

#[test]
fn a_column_added_outside_while_writes_wait_is_neither_lost_nor_mistaken() {
    let p = pair(&[T]);
    let peer = Site::memory().with(&[("t", "CREATE TABLE t(id TEXT NOT NULL PRIMARY KEY, a, b, c DEFAULT 'new')")]);
    p.app("INSERT INTO t VALUES('k', 1, 1), ('l', 1, 1), ('m', 1, 1)");
    peer.pull(&p.site);
    p.app("UPDATE t SET b = 2 WHERE id = 'k'; DELETE FROM t WHERE id = 'l'");
    p.app("ALTER TABLE t ADD COLUMN c DEFAULT 'new'; UPDATE t SET b = 3 WHERE id = 'm'");
    assert_eq!(p.inbox(), 3);
    p.site.one::<i64>("SELECT starling_resume()");
    assert_eq!(p.inbox(), 0);
    p.app("UPDATE t SET c = 'written' WHERE id = 'k'");
    peer.pull(&p.site);
    assert_eq!(peer.rows("SELECT * FROM t ORDER BY id"), ["'k'|1|2|'written'", "'m'|1|3|'new'"]);
    assert_eq!(peer.changes(), p.site.changes());
    // A rebuild by a migration tool drops the triggers; the columns stand in another order afterwards.
    p.app("UPDATE t SET a = 'before' WHERE id = 'k'");
    p.app(
        "CREATE TABLE new(c, b, a, id TEXT NOT NULL PRIMARY KEY); INSERT INTO new SELECT c, b, a, id FROM t; DROP TABLE t; \
         ALTER TABLE new RENAME TO t",
    );
    p.site.one::<i64>("SELECT starling_resume()");
    p.app("UPDATE t SET b = 'after' WHERE id = 'k'");
    peer.pull(&p.site);
    assert_eq!(
        peer.rows("SELECT id, a, b, c FROM t ORDER BY id"),
        p.site.rows("SELECT id, a, b, c FROM t ORDER BY id")
    );
    assert_eq!(peer.changes(), p.site.changes());
}

#[test]
fn a_rebuild_with_another_key_or_a_dropped_table_leaves_no_inbox_that_nobody_can_read() {
    let p = pair(&[T]);
    p.app("INSERT INTO t VALUES('k', 1, 1)");
    p.app("DROP TABLE t; CREATE TABLE t(id TEXT NOT NULL, a NOT NULL, b, PRIMARY KEY(id, a)); INSERT INTO t VALUES('k', 2, 2)");
    p.site.rows("SELECT * FROM crsql_changes");
    p.site.one::<i64>("SELECT starling_resume()");
    p.app("INSERT INTO t VALUES('l', 3, 3)");
    assert_eq!(p.site.one::<i64>("SELECT count(DISTINCT pk) FROM crsql_changes WHERE cid = 'b'"), 2);
    p.app("INSERT INTO t VALUES('m', 4, 4); DROP TABLE t");
    p.site.one::<i64>("SELECT starling_resume()");
    assert_eq!(p.site.rows("SELECT count(*) FROM sqlite_master WHERE type = 'trigger'"), ["0"]);
    assert_eq!(p.inbox(), 0);
}

#[test]
fn tables_and_columns_renamed_by_a_program_without_the_extension_stay_what_they_are() {
    let (p, peer) = (pair(&[T]), memory());
    p.app("INSERT INTO t VALUES('k', 1, 1); INSERT INTO t VALUES('l', 1, 1)");
    peer.pull(&p.site);
    p.app("UPDATE t SET a = 2 WHERE id = 'k'; ALTER TABLE t RENAME TO u; ALTER TABLE u RENAME COLUMN b TO bb");
    p.app("UPDATE u SET bb = 3 WHERE id = 'k'; DELETE FROM u WHERE id = 'l'");
    p.site.one::<i64>("SELECT starling_resume()");
    p.app("UPDATE u SET bb = 4 WHERE id = 'k'; INSERT INTO u VALUES('m', 5, 5)");
    peer.exec("ALTER TABLE t RENAME COLUMN b TO bb; ALTER TABLE t RENAME TO u; SELECT starling_resume()");
    peer.pull(&p.site);
    assert_eq!(peer.rows("SELECT * FROM u ORDER BY id"), ["'k'|2|4", "'m'|5|5"]);
    assert_eq!(peer.changes(), p.site.changes());
}

#[test]
fn an_alter_window_on_a_portable_table_ends_with_plain_triggers_again() {
    let p = pair(&[T]);
    p.app("INSERT INTO t VALUES('k', 1, 1)");
    p.site.exec(
        "SELECT crsql_begin_alter('t'); ALTER TABLE t ADD COLUMN c; UPDATE t SET a = 2; SELECT crsql_commit_alter('t')",
    );
    p.app("UPDATE t SET c = 3");
    let peer = portable(Site::memory(), &[("t", "CREATE TABLE t(id TEXT NOT NULL PRIMARY KEY, a, b, c)")]);
    peer.pull(&p.site);
    assert_eq!(peer.rows("SELECT * FROM t"), ["'k'|2|1|3"]);
    assert_eq!(peer.changes(), p.site.changes());
}

#[test]
fn keys_that_cannot_be_told_apart_are_refused_by_the_plain_triggers_too() {
    let p = pair(&[("any", "CREATE TABLE any(k NOT NULL PRIMARY KEY, v)")]);
    for sql in ["INSERT INTO any VALUES(1.0, 1)", "INSERT INTO any VALUES(-0.0, 1)"] {
        assert!(p.app.execute_batch(sql).expect_err(sql).to_string().contains("REAL key"));
    }
    p.app("INSERT INTO any VALUES(1, 1), (0.5, 1), ('1.0', 1)");
    assert!(p
        .app
        .execute_batch("UPDATE any SET k = 2.0 WHERE k = 1")
        .expect_err("it moves")
        .to_string()
        .contains("REAL key"));
    let peer = portable(Site::memory(), &[("any", "CREATE TABLE any(k NOT NULL PRIMARY KEY, v)")]);
    peer.pull(&p.site);
    assert_eq!(peer.rows("SELECT k FROM any ORDER BY k"), ["0.5r", "1", "'1.0'"]);
}

#[test]
fn a_writer_sees_nothing_of_the_capture() {
    let p = pair(&[("t", "CREATE TABLE t(id INTEGER PRIMARY KEY, a)")]);
    assert_eq!(p.app.execute("INSERT INTO t VALUES(7, 1), (8, 1)", []).expect("it runs"), 2);
    assert_eq!((p.app.last_insert_rowid(), p.app.changes()), (8, 2));
    assert_eq!(p.app.execute("UPDATE t SET a = 2", []).expect("it runs"), 2);
    assert_eq!(p.app.execute("REPLACE INTO t VALUES(7, 3)", []).expect("it runs"), 1);
    assert_eq!(p.app.last_insert_rowid(), 7);
    p.app("PRAGMA trusted_schema = 0; INSERT INTO t VALUES(9, 9)");
    // A program without the extension may alter whatever else the file has.
    p.app("CREATE TABLE other(a, b); ALTER TABLE other RENAME COLUMN a TO c; ALTER TABLE other DROP COLUMN b; VACUUM");
    p.app("ALTER TABLE t ADD COLUMN z; ALTER TABLE t RENAME COLUMN a TO aa; UPDATE t SET aa = 5");
}

#[test]
fn after_many_rounds_the_inbox_has_grown_no_further_than_one_of_them() {
    let p = pair(&[T]);
    let round = |i: usize| {
        p.app(&format!(
            "BEGIN; WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 2000) \
             INSERT INTO t SELECT 'k' || i, {i}, 0 FROM n WHERE 1 ON CONFLICT(id) DO UPDATE SET a = excluded.a; COMMIT"
        ));
        p.site.one::<i64>("SELECT starling_drain()");
    };
    (0..3).for_each(round);
    let pages = p.site.one::<i64>("PRAGMA page_count");
    (3..13).for_each(round);
    let grown = p.site.one::<i64>("PRAGMA page_count") - pages;
    assert!(grown < pages, "{grown} pages more than {pages}");
}

#[test]
fn a_drain_larger_than_the_journal_is_one_version() {
    let p = pair(&[("t", "CREATE TABLE t(id INTEGER PRIMARY KEY, a)")]);
    p.app(
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 131080) INSERT INTO t SELECT i, 0 FROM n; \
         DELETE FROM t WHERE id % 1000 = 0; UPDATE t SET a = 1 WHERE id % 1000 = 1",
    );
    assert_eq!(
        p.site.rows("SELECT db_version, cid, cl, col_version, count(*) FROM crsql_changes GROUP BY 1, 2, 3, 4"),
        ["1|'-1'|2|2|131", "1|'a'|1|1|130817", "1|'a'|1|2|132"]
    );
}

#[test]
fn the_uninstall_script_frees_a_file_with_plain_sqlite_alone() {
    let uninstall = include_str!("../../../sql/extension/uninstall.sql");
    let p = pair(&[T]);
    p.site.exec("CREATE TABLE n(id INTEGER PRIMARY KEY, a); SELECT crsql_as_crr('n')");
    p.app("INSERT INTO t VALUES('k', 1, 1)");
    assert!(
        p.app.execute_batch("ALTER TABLE t RENAME COLUMN a TO x").is_err(),
        "the native table's triggers stand in the way"
    );
    let statements: Vec<String> = {
        let mut ask = p.app.prepare(uninstall).expect("one statement");
        let rows = ask.query_map([], |r| r.get(0)).expect("it runs");
        rows.collect::<rusqlite::Result<_>>().expect("text")
    };
    for sql in &statements {
        p.app(sql);
    }
    p.app("INSERT INTO n VALUES(1, 1); UPDATE t SET a = 2; ALTER TABLE t RENAME COLUMN a TO x; ALTER TABLE n DROP COLUMN a");
    assert_eq!(
        p.app.query_row("SELECT count(*) FROM sqlite_master WHERE type = 'trigger'", [], |r| r.get::<_, i64>(0)),
        Ok(0)
    );
    p.site.one::<i64>("SELECT starling_resume()");
    assert_eq!(p.site.rows("SELECT count(*) FROM sqlite_master WHERE type = 'trigger'"), ["0"], "it stays uninstalled");
    p.site.one::<String>("SELECT crsql_as_crr('t', 'portable')");
    assert_eq!(p.site.rows("SELECT cid, val FROM crsql_changes WHERE [table] = 't' ORDER BY cid"), ["'b'|1", "'x'|2"]);
}

#[test]
fn a_connection_that_knew_a_table_as_portable_can_still_alter_others_when_it_is_not() {
    let p = pair(&[T]);
    let other = Site::file(&p.path);
    other.exec("CREATE TABLE x(a)");
    p.site.one::<String>("SELECT crsql_as_crr('t', 'native')");
    other.exec("ALTER TABLE x RENAME TO y; ALTER TABLE y RENAME COLUMN a TO b");
    p.site.one::<String>("SELECT crsql_as_table('t')");
    other.exec("ALTER TABLE y RENAME TO z; DROP TABLE t; ALTER TABLE z ADD COLUMN c; DROP TABLE z");
}

#[test]
fn a_migration_may_ask_for_portable_capture_and_leaves_its_triggers_alone() {
    let p = pair(&[T]);
    p.app("INSERT INTO t VALUES('k', 1, 1)");
    let schema = "CREATE TABLE t(id TEXT NOT NULL PRIMARY KEY, a, b, c); SELECT crsql_as_crr(''t''); \
                  CREATE TABLE n(id INTEGER PRIMARY KEY, a); SELECT crsql_as_crr(''n'', ''portable'')";
    p.site.one::<String>(&format!("SELECT crsql_automigrate('{schema}')"));
    p.app("UPDATE t SET c = 1; INSERT INTO n VALUES(1, 1)");
    assert_eq!(p.site.rows("SELECT DISTINCT [table] FROM crsql_changes ORDER BY 1"), ["'n'", "'t'"]);
    p.site.one::<String>(&format!("SELECT crsql_automigrate('{schema}')"));
    p.app("UPDATE t SET c = 2");
    assert_eq!(p.site.rows("SELECT val, col_version FROM crsql_changes WHERE cid = 'c'"), ["2|2"]);
}
