//! Rows that wait for a value while other things happen: columns come, the key is inserted here, a constraint refuses the row, the
//! table is let go, rows vanish in the same rebuild.

use starling_tests::ledger::{self, end_equal};
use starling_tests::site::Site;

const DEMANDING: &str = "CREATE TABLE t(id INTEGER PRIMARY KEY, a, b NOT NULL)";

/// A row whole by its writer's columns, and a site where it waits for one more.
fn one_waits_whole() -> (Site, Site) {
    let a = Site::memory().with(&[("t", "CREATE TABLE t(id INTEGER PRIMARY KEY, a)")]);
    let b = Site::memory().with(&[("t", DEMANDING)]);
    a.exec("INSERT INTO t VALUES(5, 'x')");
    b.pull(&a);
    assert_eq!(b.rows("SELECT (SELECT count(*) FROM t), count(*) FROM crsql_pending"), ["0|1"]);
    (a, b)
}

fn window(s: &Site, sql: &str) {
    s.exec(&format!("SELECT crsql_begin_alter('t'); {sql}; SELECT crsql_commit_alter('t')"));
}

fn rebuild(columns: &str, kept: &str, only: &str) -> String {
    format!(
        "CREATE TABLE n({columns}); INSERT INTO n({kept}) SELECT {kept} FROM t WHERE {only}; DROP TABLE t; \
         ALTER TABLE n RENAME TO t"
    )
}

/// By an alter window, without one, and while the table is no CRR.
fn by(way: &str, s: &Site, sql: &str) {
    match way {
        "window" => window(s, sql),
        "outside" => s.exec(&format!("BEGIN; {sql}; COMMIT; SELECT starling_resume()")),
        _ => s.exec(&format!("SELECT crsql_as_table('t'); {sql}; SELECT crsql_as_crr('t')")),
    }
}

const WAYS: [&str; 3] = ["window", "outside", "let go"];

#[test]
fn a_column_that_comes_while_a_row_waits_came_after_that_row() {
    for default in ["DEFAULT 'q'", "NOT NULL DEFAULT 'q'"] {
        let (a, b) = one_waits_whole();
        window(&b, &format!("ALTER TABLE t ADD COLUMN c {default}"));
        window(&b, "ALTER TABLE t DROP COLUMN b");
        window(&a, &format!("ALTER TABLE t ADD COLUMN c {default}"));
        end_equal(&a, &b, "t");
        assert_eq!(b.rows("SELECT * FROM t"), ["5|'x'|'q'"]);
    }
}

#[test]
fn a_key_that_waits_and_is_inserted_in_the_window_that_lets_it_in_begins_no_other_lifetime() {
    for change in ["ALTER TABLE t DROP COLUMN b", &rebuild("id INTEGER PRIMARY KEY, a, b", "id, a, b", "1")] {
        let (a, b) = one_waits_whole();
        window(&b, &format!("INSERT INTO t VALUES(5, 'mine', 3); {change}"));
        assert_eq!(b.rows("SELECT DISTINCT cl FROM crsql_changes"), ["1"], "{change}");
        b.exec("UPDATE t SET a = 'later'");
        b.pull(&a);
        assert_eq!(b.rows("SELECT a FROM t"), ["'later'"]);
        ledger::check(&b);
    }
}

#[test]
fn what_waited_is_forgotten_when_the_row_is_inserted_here() {
    let (a, b) = one_waits_whole();
    b.exec("INSERT INTO t VALUES(5, 'mine', 3)");
    assert_eq!(b.rows("SELECT count(*) FROM crsql_hidden"), ["0"]);
    b.exec("SELECT crsql_as_table('t'); DELETE FROM t; SELECT crsql_as_crr('t')");
    assert_eq!(b.rows("SELECT cid, cl FROM crsql_changes"), ["'-1'|2"]);
    window(&b, "ALTER TABLE t DROP COLUMN b");
    end_equal(&a, &b, "t");
    assert_eq!(a.rows("SELECT * FROM t"), [] as [&str; 0]);
}

#[test]
fn a_row_without_cells_that_was_deleted_while_nobody_looked_stays_deleted() {
    for columns in ["", ", a"] {
        for way in ["outside", "let go"] {
            let make = || Site::memory().with(&[("t", "CREATE TABLE t(id INTEGER PRIMARY KEY)")]);
            let (a, b) = (make(), make());
            a.exec("INSERT INTO t VALUES(1), (2); DELETE FROM t WHERE id = 1; INSERT INTO t VALUES(1)");
            for s in [&a, &b] {
                if !columns.is_empty() {
                    window(s, "ALTER TABLE t ADD COLUMN a");
                }
            }
            b.pull(&a);
            by(way, &a, &rebuild(&format!("id INTEGER PRIMARY KEY{columns}"), "id", "0"));
            end_equal(&a, &b, "t");
            assert_eq!(b.rows("SELECT * FROM t"), [] as [&str; 0], "{columns} {way}");
        }
    }
}

#[test]
fn a_row_that_a_rebuild_leaves_out_is_deleted_whatever_the_columns_demand_now() {
    for way in WAYS {
        for edited in ["SELECT 1", "UPDATE t SET a = 'z'"] {
            let make = || Site::memory().with(&[("t", "CREATE TABLE t(id INTEGER PRIMARY KEY, a)")]);
            let (a, b) = (make(), make());
            a.exec(&format!("INSERT INTO t VALUES(1, 'x'), (2, 'y'); {edited}"));
            for s in [&a, &b] {
                window(s, "ALTER TABLE t ADD COLUMN c TEXT DEFAULT 'q'");
            }
            b.pull(&a);
            by(way, &a, &rebuild("id INTEGER PRIMARY KEY, a, c TEXT NOT NULL", "id, a, c", "id <> 1"));
            end_equal(&a, &b, "t");
            assert_eq!(b.rows("SELECT id, c FROM t"), ["2|'q'"], "{way} {edited}");
            window(&b, &rebuild("id INTEGER PRIMARY KEY, a, c TEXT NOT NULL", "id, a, c", "1"));
            end_equal(&a, &b, "t");
        }
    }
}

#[test]
fn a_row_that_a_constraint_refuses_goes_on_waiting_and_blocks_no_migration() {
    for way in WAYS {
        let s = Site::memory().with(&[("t", "CREATE TABLE t(id INTEGER PRIMARY KEY, a CHECK(a <> 'x'), b NOT NULL)")]);
        s.exec("INSERT INTO crsql_changes VALUES('t', crsql_pack_columns(5), 'a', 'x', 1, 1, x'0b', 1, 0)");
        by(way, &s, &rebuild("id INTEGER PRIMARY KEY, a CHECK(a <> 'x'), b", "id, a, b", "1"));
        s.exec("INSERT INTO t VALUES(6, 'captured', 1)");
        assert_eq!(s.rows("SELECT count(*) FROM crsql_changes WHERE val = 'captured'"), ["1"], "{way}");
        let pending = "SELECT count(*) FROM crsql_pending";
        assert_eq!((s.rows("SELECT id FROM t"), s.rows(pending)), (vec!["6".to_string()], vec!["1".to_string()]));
        ledger::check(&s);
    }
    // One that has come whole is tried again.
    let (a, b) = one_waits_whole();
    let columns = |check: &str| format!("id INTEGER PRIMARY KEY, a {check}, b");
    by("outside", &b, &rebuild(&columns("CHECK(a <> 'x')"), "id, a, b", "1"));
    assert_eq!(
        b.rows("SELECT (SELECT count(*) FROM t), count(*), max(instr(reason, 'constraint') > 0) FROM crsql_pending"),
        ["0|1|1"]
    );
    window(&b, &rebuild(&columns(""), "id, a, b", "1"));
    window(&a, "ALTER TABLE t ADD COLUMN b");
    assert_eq!(b.rows("SELECT * FROM t"), ["5|'x'|NULL"]);
    end_equal(&a, &b, "t");
}

#[test]
fn i1_a_row_whose_only_cell_goes_with_its_column_is_told_of_where_others_are_left() {
    for change in ["ALTER TABLE t DROP COLUMN b", "ALTER TABLE t DROP COLUMN b; ALTER TABLE t ADD COLUMN c"] {
        let make = || Site::memory().with(&[("t", "CREATE TABLE t(id INTEGER PRIMARY KEY, a, b)")]);
        let (b, newcomer) = (make(), make());
        b.exec("INSERT INTO crsql_changes VALUES('t', crsql_pack_columns(5), 'b', 1, 1, 1, x'0b', 1, 0)");
        window(&b, change);
        window(&newcomer, change);
        end_equal(&newcomer, &b, "t");
        assert_eq!(newcomer.rows("SELECT id, a FROM t"), ["5|NULL"], "{change}");
    }
}

/// As a file of a build that noted nothing.
fn forget_notes(s: &Site) {
    s.exec("DELETE FROM crsql_master WHERE key LIKE 'needs.%' OR key LIKE 'key.%'");
}

#[test]
fn a_row_that_waits_without_any_value_is_shown_also_where_nothing_was_noted() {
    for way in WAYS {
        for noted in [true, false] {
            let make = || Site::memory().with(&[("t", DEMANDING)]);
            let (a, b) = (make(), make());
            for s in [&a, &b] {
                s.exec("INSERT INTO crsql_changes VALUES('t', crsql_pack_columns(5), '-1', NULL, 3, 1, x'0b', 3, 0)");
                if !noted {
                    forget_notes(s);
                }
                by(way, s, &rebuild("id INTEGER PRIMARY KEY, a, b", "id, a, b", "1"));
                assert_eq!(s.rows("SELECT * FROM t"), ["5|NULL|NULL"], "{way} {noted}");
            }
            end_equal(&a, &b, "t");
        }
    }
}

#[test]
fn a_row_that_a_rebuild_leaves_out_is_deleted_also_where_nothing_was_noted() {
    for way in ["outside", "let go"] {
        let make = || Site::memory().with(&[("t", "CREATE TABLE t(id INTEGER PRIMARY KEY, a, b)")]);
        let (a, b) = (make(), make());
        a.exec("INSERT INTO crsql_changes VALUES('t', crsql_pack_columns(5), 'b', 1, 1, 1, x'0b', 1, 0)");
        b.pull(&a);
        forget_notes(&a);
        by(way, &a, &rebuild("id INTEGER PRIMARY KEY, a NOT NULL, b", "id, b", "0"));
        for _ in 0..2 {
            b.pull(&a);
            a.pull(&b);
        }
        assert_eq!((a.rows("SELECT * FROM t"), b.rows("SELECT * FROM t")), (vec![], vec![]), "{way}");
    }
}

#[test]
fn a_row_without_a_base_that_a_constraint_refused_is_shown_once_that_is_lifted() {
    for nine in ["'a', 'x', 1, 1, x'0b', 1, 0", "'-1', NULL, 3, 1, x'0b', 3, 0"] {
        let s = Site::memory().with(&[("t", DEMANDING)]);
        s.exec(&format!("INSERT INTO crsql_changes VALUES('t', crsql_pack_columns(5), {nine})"));
        s.exec("CREATE TRIGGER no BEFORE INSERT ON t WHEN NEW.id = 5 BEGIN SELECT RAISE(ABORT, 'not here'); END");
        window(
            &s,
            &format!(
                "{}; CREATE TRIGGER no BEFORE INSERT ON t WHEN NEW.id = 5 BEGIN SELECT RAISE(ABORT, 'not here'); END",
                rebuild("id INTEGER PRIMARY KEY, a, b", "id, a, b", "1")
            ),
        );
        let waits =
            "SELECT (SELECT count(*) FROM t), max(instr(reason, 'a constraint refused the row')) FROM crsql_pending";
        assert_eq!(s.rows(waits), ["0|1"], "{nine}");
        s.exec("DROP TRIGGER no; SELECT starling_resume()");
        assert_eq!(s.rows("SELECT id FROM t"), ["5"], "{nine}");
        let newcomer = Site::memory().with(&[("t", "CREATE TABLE t(id INTEGER PRIMARY KEY, a, b)")]);
        end_equal(&newcomer, &s, "t");
    }
}
