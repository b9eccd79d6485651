//! What happens while an alter window is open, besides the alteration: sweeps, rollbacks, merges, and tables that are not there for
//! a moment. Nodes that go through the same window end equal whatever happened in it.

use starling_tests::ledger::end_equal;
use starling_tests::site::Site;

const T: (&str, &str) = ("t", "CREATE TABLE t(id INTEGER PRIMARY KEY, a, b)");

fn window(s: &Site, sql: &str) {
    s.exec(&format!("SELECT crsql_begin_alter('t'); {sql}; SELECT crsql_commit_alter('t')"));
}

/// A rebuild in twelve steps, which gives the column `a` another name.
const REBUILD: &str =
    "CREATE TABLE n(id INTEGER PRIMARY KEY, x, b); INSERT INTO n SELECT id, a, b FROM t; DROP TABLE t; \
                       ALTER TABLE n RENAME TO t";
const RENAME: &str = "ALTER TABLE t RENAME COLUMN a TO x";

fn rows(n: u32) -> String {
    format!("WITH s(i) AS (VALUES(1) UNION ALL SELECT i + 1 FROM s WHERE i < {n}) INSERT INTO t SELECT i, i, i FROM s")
}

#[test]
fn a_sweep_leaves_what_columns_were_written_that_have_another_name_for_now() {
    for alter in [RENAME, REBUILD] {
        let (a, b) = (Site::memory().with(&[T]), Site::memory().with(&[T]));
        a.exec(&rows(20));
        b.pull(&a);
        a.exec("UPDATE t SET a = a + 100 WHERE id <= 10");
        // The newest record is not swept.
        a.exec("UPDATE t SET b = 0 WHERE id = 20");
        window(&a, &format!("{alter}; SELECT starling_prune(100000)"));
        window(&b, RENAME);
        end_equal(&a, &b, "t");
        assert_eq!(b.rows("SELECT x FROM t WHERE id IN (1, 2)"), ["101", "102"], "{alter}");
        assert_eq!(a.one::<i64>("SELECT count(*) FROM crsql_changes WHERE cid = 'x' AND col_version > 1"), 10);
    }
}

#[test]
fn a_column_that_was_dropped_and_added_again_is_a_new_one_whatever_else_was_written() {
    let half = "UPDATE t SET a = -a WHERE id % 2 = 0";
    for (n, write) in [
        (3, "SAVEPOINT s; UPDATE t SET a = 5; ROLLBACK TO s; RELEASE s"),
        (20_000, half),
        (3, "UPDATE t SET a = 5"),
        (3, "SELECT 1"),
    ] {
        // The column in the middle, and the last one, whose place does not tell.
        for column in ["a", "b"] {
            if n == 3 && write.starts_with("UPDATE") && column == "b" {
                // Every row was written, and it stands where it stood: nothing tells.
                continue;
            }
            let (a, b) = (Site::memory().with(&[T]), Site::memory().with(&[T]));
            a.exec(&rows(n));
            a.exec(&format!("UPDATE t SET {column} = {column} + 1"));
            b.pull(&a);
            let anew = format!("ALTER TABLE t DROP COLUMN {column}; ALTER TABLE t ADD COLUMN {column}");
            window(&a, &format!("{write}; {anew}"));
            window(&b, &anew);
            b.exec(&format!("UPDATE t SET {column} = 'from b' WHERE id IN (1, 2)"));
            end_equal(&a, &b, "t");
            assert_eq!(
                a.rows(&format!("SELECT {column} FROM t WHERE id < 3")),
                ["'from b'", "'from b'"],
                "{n} {write} {column}"
            );
        }
    }
}

#[test]
fn a_column_that_keeps_its_place_keeps_its_clocks_though_every_row_was_written() {
    let (a, b) = (Site::memory().with(&[T]), Site::memory().with(&[T]));
    a.exec(&rows(3));
    a.exec("UPDATE t SET a = a + 1");
    b.pull(&a);
    window(&a, "ALTER TABLE t ADD COLUMN c; UPDATE t SET c = 7, a = 9; SELECT count(*) FROM crsql_changes");
    window(&b, "ALTER TABLE t ADD COLUMN c");
    assert_eq!(a.rows("SELECT DISTINCT cid, col_version FROM crsql_changes ORDER BY 1"), ["'a'|3", "'b'|2", "'c'|1"]);
    end_equal(&a, &b, "t");
    assert_eq!(b.rows("SELECT DISTINCT a, c FROM t"), ["9|7"]);
}

#[test]
fn rows_that_came_after_a_rebuild_with_another_default_reach_the_peers() {
    let bare = ("t", "CREATE TABLE t(k NOT NULL PRIMARY KEY)");
    let rebuild =
        "CREATE TABLE n(k NOT NULL PRIMARY KEY, c TEXT DEFAULT 'd'); INSERT INTO n SELECT k, c FROM t; DROP TABLE t; \
                   ALTER TABLE n RENAME TO t";
    let (a, b) = (Site::memory().with(&[bare]), Site::memory().with(&[bare]));
    a.exec("INSERT INTO t VALUES('k3')");
    b.pull(&a);
    for s in [&a, &b] {
        window(s, "ALTER TABLE t ADD COLUMN c TEXT");
    }
    window(&b, &format!("{rebuild}; UPDATE t SET k = 6 WHERE k = 'k3'"));
    window(&a, rebuild);
    end_equal(&a, &b, "t");
    assert_eq!(a.rows("SELECT * FROM t"), ["6|NULL"]);
}

#[test]
fn what_is_merged_after_an_alteration_finds_its_columns_when_the_window_ends() {
    for (alter, default) in [(RENAME, " DEFAULT 7"), (RENAME, ""), (REBUILD, "")] {
        for nine in [false, true] {
            let table = format!("CREATE TABLE t(id INTEGER PRIMARY KEY, a{default}, b)");
            let (a, b) = (Site::memory().with(&[("t", &table)]), Site::memory().with(&[("t", &table)]));
            a.exec(
                "INSERT INTO t VALUES(1, 1, 1), (2, 2, 2), (3, 3, 3); UPDATE t SET a = a + 10; UPDATE t SET a = a + 10",
            );
            b.pull(&a);
            window(&a, alter);
            a.exec(
                "INSERT INTO t VALUES(9, x'09', 0); DELETE FROM t WHERE id = 1; UPDATE t SET x = 'new' WHERE id = 3",
            );
            b.exec(&format!("SELECT crsql_begin_alter('t'); {alter}"));
            if nine {
                for (columns, values) in [("9, 'x'", "x'09', 1, 9"), ("1, '-1'", "NULL, 2, 9")] {
                    let cl = if columns.starts_with('1') { 2 } else { 1 };
                    let (key, cid) = columns.split_once(", ").expect("two");
                    b.exec(&format!("INSERT INTO crsql_changes VALUES('t', crsql_pack_columns({key}), {cid}, {values}, crsql_site_id(), {cl}, 0)"));
                }
            } else {
                for (part, _) in &a.answer(&b.vector()).0 {
                    b.merge(part).expect("it merges");
                }
            }
            b.exec("SELECT crsql_commit_alter('t')");
            b.exec("UPDATE t SET x = 'from b' WHERE id = 2");
            for _ in 0..2 {
                a.pull(&b);
                b.pull(&a);
            }
            let shown = ["2|'from b'", "3|'new'", "9|x[09]"];
            for s in [&a, &b] {
                assert_eq!(s.rows("SELECT id, x FROM t ORDER BY id"), shown, "{alter}{default}, nine values: {nine}");
            }
            assert_eq!(a.changes(), b.changes(), "{alter}{default}, nine values: {nine}");
        }
    }
}

#[test]
fn a_moved_row_whose_last_column_goes_is_told_of_whatever_lifetime_it_is_in() {
    let (a, b) = (Site::memory().with(&[T]), Site::memory().with(&[T]));
    a.exec("INSERT INTO t(id) VALUES(1); DELETE FROM t; INSERT INTO t VALUES(3, 'v', 'v')");
    b.pull(&a);
    a.exec("UPDATE t SET id = 1 WHERE id = 3");
    for s in [&a, &b] {
        window(s, "ALTER TABLE t DROP COLUMN a; ALTER TABLE t DROP COLUMN b");
    }
    let newcomer = Site::memory().with(&[("t", "CREATE TABLE t(id INTEGER PRIMARY KEY)")]);
    newcomer.pull(&a);
    end_equal(&a, &b, "t");
    for s in [&b, &newcomer] {
        assert_eq!(s.rows("SELECT * FROM t"), ["1"]);
    }
}

#[test]
fn a_table_that_goes_in_the_transaction_that_wrote_it_takes_nothing_else_along() {
    let twice = [
        "INSERT INTO t(id) VALUES(2); DELETE FROM t WHERE id = 2",
        "DELETE FROM t WHERE id = 1; INSERT INTO t(id) VALUES(1)",
        "UPDATE t SET id = 5 WHERE id = 1; UPDATE t SET id = 1 WHERE id = 5",
    ];
    let ends = [
        "DROP TABLE t",
        "ALTER TABLE t RENAME TO other",
        "ALTER TABLE t RENAME COLUMN id TO k",
        "DROP TABLE t; CREATE TABLE t(x)",
        "DROP TABLE t; CREATE TABLE t(id, z, PRIMARY KEY(id, z)) WITHOUT ROWID",
    ];
    for capture in ["native", "portable"] {
        for (write, end) in twice.iter().flat_map(|write| ends.map(|end| (write, end))) {
            for read in ["", "; SELECT count(*) FROM crsql_changes"] {
                let s = Site::memory();
                s.exec("CREATE TABLE u(id INTEGER PRIMARY KEY, v); SELECT crsql_as_crr('u'); CREATE TABLE t(id INTEGER PRIMARY KEY, a, b)");
                s.exec(&format!("SELECT crsql_as_crr('t', '{capture}'); INSERT INTO t VALUES(1, 1, 1)"));
                s.exec(&format!("BEGIN; INSERT INTO u VALUES(7, 7); {write}; {end}{read}; COMMIT"));
                assert_eq!(s.rows("SELECT * FROM u"), ["7|7"]);
                assert_eq!(s.rows("SELECT cid, val FROM crsql_changes WHERE [table] = 'u'"), ["'v'|7"]);
                s.exec("SELECT starling_resume()");
            }
        }
    }
    for read in ["SELECT count(*) FROM crsql_changes", "SELECT crsql_begin_alter('u'), crsql_commit_alter('u')"] {
        let s = Site::memory().with(&[T, ("u", "CREATE TABLE u(id INTEGER PRIMARY KEY, v)")]);
        s.exec("INSERT INTO t VALUES(1, 1, 1)");
        let gone = REBUILD.replace("; ALTER", &format!("; {read}; ALTER"));
        window(&s, &format!("UPDATE t SET a = 5; UPDATE t SET a = 6; {gone}"));
        assert_eq!(s.rows("SELECT x, b FROM t"), ["6|1"], "{read}");
    }
}

#[test]
fn windows_of_two_tables_are_undone_each_for_itself_and_one_whose_table_is_gone_does_not_end_unnoticed() {
    let s = Site::memory().with(&[T, ("u", "CREATE TABLE u(id INTEGER PRIMARY KEY, v)")]);
    s.exec("SELECT crsql_begin_alter('u'); ALTER TABLE u ADD COLUMN z");
    s.exec("SELECT crsql_begin_alter('t'); ALTER TABLE t ADD COLUMN z; CREATE UNIQUE INDEX one ON t(a)");
    assert!(s.refused("SELECT crsql_commit_alter('t')").contains("UNIQUE"));
    s.one::<String>("SELECT crsql_commit_alter('u')");
    let has =
        |table: &str| s.one::<i64>(&format!("SELECT count(*) FROM pragma_table_info('{table}') WHERE name = 'z'"));
    assert!((has("t"), has("u")) == (0, 1) && s.db.is_autocommit());
    s.exec("SELECT crsql_begin_alter('t'); CREATE TABLE n(id INTEGER PRIMARY KEY, a, b); DROP TABLE t");
    assert!(s.refused("SELECT crsql_commit_alter('n')").contains("whose window is open, is gone"));
    s.exec("ALTER TABLE n RENAME TO t; SELECT crsql_commit_alter('t')");
    assert!(s.db.is_autocommit());
}

#[test]
fn a_table_does_not_become_plain_while_its_window_is_open() {
    let s = Site::memory().with(&[("t", "CREATE TABLE t(id INTEGER PRIMARY KEY, a)")]);
    s.exec("BEGIN; SELECT crsql_begin_alter('t'); ALTER TABLE t ADD COLUMN n; INSERT INTO t VALUES(1, 1, 1)");
    assert!(s.refused("SELECT crsql_as_table('t')").contains("window"));
    s.exec("SELECT crsql_commit_alter('t'); COMMIT");
    assert_eq!(s.rows("SELECT cid, val FROM crsql_changes WHERE cid = 'n'"), ["'n'|1"]);
}

#[test]
fn a_window_that_cannot_be_closed_leaves_no_transaction_open_where_none_was() {
    for busy in [true, false] {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("a.db");
        let b = Site::file(&path);
        b.exec("PRAGMA journal_mode = DELETE; CREATE TABLE t(id INTEGER PRIMARY KEY NOT NULL, v)");
        b.exec("SELECT crsql_as_crr('t'); INSERT INTO t VALUES(1, 2)");
        b.db.busy_timeout(std::time::Duration::ZERO).expect("a setting");
        let reader = starling_tests::site::plain(&path);
        reader.execute_batch("BEGIN; SELECT count(*) FROM t").expect("it reads");
        b.exec("SELECT crsql_begin_alter('t'); ALTER TABLE t ADD COLUMN w");
        if !busy {
            b.exec("CREATE UNIQUE INDEX refused ON t(v)");
        }
        assert!(b.refused("SELECT crsql_commit_alter('t')").contains("rolled back"), "a reader is in its way: {busy}");
        assert!(b.db.is_autocommit(), "a reader is in its way: {busy}");
        reader.execute_batch("COMMIT").expect("it ends");
        b.exec("INSERT INTO t VALUES(2, 2)");
        assert_eq!(reader.query_row("SELECT count(*) FROM t", [], |r| r.get(0)), Ok(2));
        b.exec("SELECT crsql_begin_alter('t'); ALTER TABLE t ADD COLUMN w; SELECT crsql_commit_alter('t')");
    }
}
