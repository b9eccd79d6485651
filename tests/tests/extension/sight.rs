//! Columns that demand a value, or do so no more, and defaults that change: what is shown, and what peers are told of it.

use starling_tests::ledger;
use starling_tests::site::Site;

const WHOLE: &str = "(id TEXT NOT NULL PRIMARY KEY, a, b INTEGER NOT NULL)";

/// Ways to make a table another one.
const WAYS: [&str; 3] = ["window", "automigrate", "outside"];

/// Makes `t` a table of these columns, of which `kept` are copied.
fn remake(s: &Site, way: &str, columns: &str, kept: &str) {
    let rebuild = format!(
        "CREATE TABLE n{columns}; INSERT INTO n({kept}) SELECT {kept} FROM t; DROP TABLE t; ALTER TABLE n RENAME TO t;"
    );
    match way {
        "window" => s.exec(&format!("SELECT crsql_begin_alter('t'); {rebuild} SELECT crsql_commit_alter('t')")),
        "automigrate" => {
            let columns = columns.replace('\'', "''");
            s.exec(&format!("SELECT crsql_automigrate('CREATE TABLE t{columns}; SELECT crsql_as_crr(''t'')')"));
        }
        _ => s.exec(&format!("BEGIN; {rebuild} COMMIT; SELECT starling_resume()")),
    }
}

fn end_equal(a: &Site, b: &Site) {
    ledger::end_equal(a, b, "t");
    let waits = |s: &Site| s.rows("SELECT * FROM crsql_pending");
    assert_eq!((waits(a), waits(b)), (vec![], vec![]));
}

/// A whole row at one site; its first cell alone has reached the other, where the row waits for the rest.
fn one_waits() -> (Site, Site) {
    let (a, b) = (
        Site::memory().with(&[("t", &format!("CREATE TABLE t{WHOLE}"))]),
        Site::memory().with(&[("t", &format!("CREATE TABLE t{WHOLE}"))]),
    );
    a.exec("INSERT INTO t VALUES('k', 'x', 7)");
    b.pull_nine(&a, |changes| changes.truncate(1));
    assert_eq!(b.rows("SELECT (SELECT count(*) FROM t), reason FROM crsql_pending").len(), 1);
    (a, b)
}

#[test]
fn a_row_that_waits_for_a_value_is_shown_when_the_column_demands_none_any_more() {
    for way in WAYS {
        let (a, b) = one_waits();
        let optional = "(id TEXT NOT NULL PRIMARY KEY, a, b INTEGER)";
        remake(&b, way, optional, "id, a, b");
        assert_eq!(b.rows("SELECT * FROM t"), ["'k'|'x'|NULL"], "{way}");
        remake(&a, way, optional, "id, a, b");
        end_equal(&a, &b);
        assert_eq!(b.rows("SELECT * FROM t"), ["'k'|'x'|7"], "{way}");
    }
}

#[test]
fn a_row_that_waits_for_a_value_is_shown_when_the_column_goes() {
    for way in WAYS {
        let (a, b) = one_waits();
        let without = "(id TEXT NOT NULL PRIMARY KEY, a)";
        remake(&b, way, without, "id, a");
        remake(&a, way, without, "id, a");
        end_equal(&a, &b);
        assert_eq!(b.rows("SELECT * FROM t"), ["'k'|'x'"], "{way}");
    }
    let (a, b) = one_waits();
    for s in [&b, &a] {
        s.exec("SELECT crsql_begin_alter('t'); ALTER TABLE t DROP COLUMN b; SELECT crsql_commit_alter('t')");
    }
    end_equal(&a, &b);
    assert_eq!(b.rows("SELECT * FROM t"), ["'k'|'x'"]);
}

#[test]
fn a_table_that_was_let_go_shows_what_waited_when_it_is_taken_up_again() {
    let (a, b) = one_waits();
    for s in [&b, &a] {
        s.exec("SELECT crsql_as_table('t'); CREATE TABLE n(id TEXT NOT NULL PRIMARY KEY, a, b); INSERT INTO n SELECT * FROM t");
        s.exec("DROP TABLE t; ALTER TABLE n RENAME TO t; SELECT crsql_as_crr('t')");
    }
    end_equal(&a, &b);
    assert_eq!(b.rows("SELECT * FROM t"), ["'k'|'x'|7"]);
}

/// A row that is there when a column comes, and holds its default.
fn grown() -> (Site, Site) {
    let table = ("t", "CREATE TABLE t(id INTEGER PRIMARY KEY, a)");
    let (a, b) = (Site::memory().with(&[table]), Site::memory().with(&[table]));
    a.exec("INSERT INTO t VALUES(1, 'x'), (2, 'y')");
    b.pull(&a);
    for s in [&a, &b] {
        s.exec("SELECT crsql_begin_alter('t'); ALTER TABLE t ADD COLUMN c TEXT DEFAULT 'q'; SELECT crsql_commit_alter('t')");
    }
    (a, b)
}

#[test]
fn a_column_that_begins_to_demand_a_value_keeps_the_default_of_before() {
    for way in WAYS {
        let (a, b) = grown();
        for s in [&a, &b] {
            remake(s, way, "(id INTEGER PRIMARY KEY, a, c TEXT NOT NULL)", "id, a, c");
        }
        a.exec("UPDATE t SET a = 'new' WHERE id = 1");
        end_equal(&a, &b);
        assert_eq!(b.rows("SELECT * FROM t"), ["1|'new'|'q'", "2|'y'|'q'"], "{way}");
    }
}

#[test]
fn i1_a_row_known_by_its_cells_alone_is_told_of_when_the_last_column_goes() {
    let table = [("t", "CREATE TABLE t(id TEXT NOT NULL PRIMARY KEY, a)")];
    let bare = [("t", "CREATE TABLE t(id TEXT NOT NULL PRIMARY KEY)")];
    for rebuilt in [true, false] {
        let (a, b) = (Site::memory().with(&table), Site::memory().with(&table));
        a.exec("INSERT INTO t VALUES('x', 1), ('y', 2)");
        b.pull_nine(&a, |_| ());
        b.exec("DELETE FROM t WHERE id = 'y'");
        if rebuilt {
            remake(&b, "window", "(id TEXT NOT NULL PRIMARY KEY)", "id");
        } else {
            b.exec("SELECT crsql_begin_alter('t'); ALTER TABLE t DROP COLUMN a; SELECT crsql_commit_alter('t')");
        }
        let (nine, whole) = (Site::memory().with(&bare), Site::memory().with(&bare));
        nine.pull_nine(&b, |_| ());
        whole.pull(&b);
        for s in [&b, &nine, &whole] {
            assert_eq!(s.rows("SELECT * FROM t"), ["'x'"]);
            assert_eq!(s.rows("SELECT cid, cl FROM crsql_changes ORDER BY cl"), ["'-1'|1", "'-1'|2"]);
            ledger::check(s);
        }
    }
}

#[test]
fn columns_that_exchange_their_names_in_a_window_keep_their_clocks() {
    let table = [("t", "CREATE TABLE t(id INTEGER PRIMARY KEY, c, a, b)")];
    let (a, b) = (Site::memory().with(&table), Site::memory().with(&table));
    a.exec("INSERT INTO t VALUES(1, 'c', 'x', 5); UPDATE t SET a = 'old'");
    b.pull(&a);
    b.exec("UPDATE t SET a = 'newer'");
    for s in [&a, &b] {
        s.exec(
            "SELECT crsql_begin_alter('t'); ALTER TABLE t RENAME COLUMN a TO tmp; ALTER TABLE t RENAME COLUMN b TO a",
        );
        s.exec("ALTER TABLE t RENAME COLUMN tmp TO b; SELECT crsql_commit_alter('t')");
    }
    assert_eq!(
        b.rows("SELECT cid, val, col_version FROM crsql_changes ORDER BY 1"),
        ["'a'|5|1", "'b'|'newer'|3", "'c'|'c'|1"]
    );
    end_equal(&a, &b);
    assert_eq!(a.rows("SELECT * FROM t"), ["1|'c'|'newer'|5"]);
}

#[test]
fn a_window_lets_no_key_through_that_the_triggers_would_have_refused() {
    for way in ["window", "outside"] {
        let table = ("t", "CREATE TABLE t(id NOT NULL PRIMARY KEY, a)");
        let (a, b) = (Site::memory().with(&[table]), Site::memory().with(&[table]));
        a.exec("INSERT INTO t VALUES(1, 'x')");
        let odd = "CREATE TABLE n(id NOT NULL PRIMARY KEY, a); INSERT INTO n VALUES(1.0, 'x'); DROP TABLE t; ALTER TABLE n RENAME TO t;";
        if way == "window" {
            a.exec(&format!("SELECT crsql_begin_alter('t'); {odd}"));
            let message = a.refused("SELECT crsql_commit_alter('t')");
            assert!(
                message.contains("REAL key that equals an integer") && message.contains("rolled back"),
                "{message}"
            );
        } else {
            a.exec(&format!("BEGIN; {odd} COMMIT"));
            let message = a.refused("SELECT starling_resume()");
            assert!(message.contains("REAL key that equals an integer"), "{message}");
            a.exec("UPDATE t SET id = 1; SELECT starling_resume()");
        }
        a.exec("INSERT INTO t VALUES(2, 'y')");
        end_equal(&a, &b);
    }
}

#[test]
fn a_row_that_came_before_a_column_does_not_depend_on_when_its_default_changed() {
    let (a, b) = grown();
    let table = ("t", "CREATE TABLE t(id INTEGER PRIMARY KEY, a)");
    let late = Site::memory().with(&[table]);
    late.exec(
        "SELECT crsql_begin_alter('t'); ALTER TABLE t ADD COLUMN c TEXT DEFAULT 'q'; SELECT crsql_commit_alter('t')",
    );
    for s in [&a, &late] {
        remake(s, "window", "(id INTEGER PRIMARY KEY, a, c TEXT)", "id, a, c");
    }
    end_equal(&a, &late);
    end_equal(&a, &b);
    assert_eq!(late.rows("SELECT * FROM t"), ["1|'x'|'q'", "2|'y'|'q'"]);
}

#[test]
fn a_default_that_changes_leaves_rows_of_before_as_they_are_and_replicas_agree() {
    for way in WAYS {
        for (first, later) in [(true, false), (false, true), (true, true)] {
            let (a, b) = grown();
            let other = "(id INTEGER PRIMARY KEY, a, c TEXT DEFAULT 'other')";
            if first {
                remake(&a, way, other, "id, a, c");
            }
            a.exec("DELETE FROM t WHERE id = 2; INSERT INTO t(id, a) VALUES(3, 'z')");
            b.pull(&a);
            if later {
                remake(&b, way, other, "id, a, c");
            }
            end_equal(&a, &b);
            assert_eq!(b.rows("SELECT c FROM t WHERE id = 1"), ["'q'"], "{way}");
        }
    }
}
