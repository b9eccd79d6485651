//! REPLACE (X11): what is taken to have been written over, and what exact capture knows of it.

use starling_tests::ledger;
use starling_tests::site::Site;

fn site() -> Site {
    Site::memory().with(&[("t", "CREATE TABLE t(id TEXT NOT NULL PRIMARY KEY, a, b)")])
}

/// (cid, col_version, cl, seq) of the changes of a key.
fn cells(site: &Site, key: &str) -> Vec<String> {
    site.rows(&format!(
        "SELECT cid, col_version, cl, seq FROM crsql_changes WHERE pk = crsql_pack_columns('{key}') ORDER BY db_version, seq"
    ))
}

#[test]
fn x11_replace_keeps_the_lifetime_and_writes_every_cell_once_more() {
    let s = site();
    s.exec("INSERT INTO t VALUES('k', 1, 1); REPLACE INTO t VALUES('k', 2, 2)");
    assert_eq!(cells(&s, "k"), ["'a'|2|1|0", "'b'|2|1|1"]);
    let c = site();
    c.pull(&s);
    assert_eq!(c.changes(), s.changes());
    let d = Site::memory().with(&[("r", "CREATE TABLE r(id INTEGER NOT NULL PRIMARY KEY ON CONFLICT REPLACE, a)")]);
    d.exec("INSERT INTO r VALUES(1, 'x'); INSERT INTO r VALUES(1, 'y')");
    assert_eq!(d.rows("SELECT cid, val, col_version, cl FROM crsql_changes"), ["'a'|'y'|2|1"]);
}

#[test]
fn x11_exact_capture_knows_whether_a_replace_has_written_over_a_row() {
    let s = site();
    s.exec("INSERT INTO t VALUES('pristine', 1, 1)");
    s.one::<String>("SELECT crsql_as_crr('t', 'exact')");
    s.exec("REPLACE INTO t VALUES('new', 1, 1), ('twice', 1, 1), ('twice', 2, 2), ('pristine', 2, 2)");
    let versions = |s: &Site| {
        s.rows("SELECT crsql_unpack.cell, cid, col_version, cl FROM crsql_changes, crsql_unpack_columns(pk) AS crsql_unpack ORDER BY 1, 2")
    };
    let expected = [
        "'new'|'a'|1|1",
        "'new'|'b'|1|1",
        "'pristine'|'a'|2|1",
        "'pristine'|'b'|2|1",
        "'twice'|'a'|2|1",
        "'twice'|'b'|2|1",
    ];
    assert_eq!(versions(&s), expected);
    // What was told of a row that then was not overwritten is not believed of another.
    s.exec("BEGIN; INSERT OR IGNORE INTO t VALUES('new', 9, 9); DELETE FROM t WHERE id = 'new'; COMMIT");
    s.exec("BEGIN; REPLACE INTO t VALUES('gone', 1, 1); DELETE FROM t WHERE id = 'gone'; REPLACE INTO t VALUES('x', 1, 1); COMMIT");
    s.exec("UPDATE OR REPLACE t SET id = 'twice' WHERE id = 'x'");
    assert_eq!(s.rows("SELECT id, a FROM t ORDER BY id"), ["'pristine'|2", "'twice'|1"]);
    assert_eq!(cells(&s, "twice"), ["'a'|3|1|0", "'b'|3|1|1", "'-1'|1|1|3"]);
    let other = site();
    other.pull(&s);
    assert_eq!(other.changes(), s.changes());
    ledger::check(&s);
    // In an alter window nothing tells before: a row in the way is taken to have been there.
    s.one::<String>("SELECT crsql_begin_alter('t')");
    s.exec("ALTER TABLE t ADD COLUMN c; REPLACE INTO t VALUES('pristine', 5, 5, 5)");
    s.one::<String>("SELECT crsql_commit_alter('t')");
    assert_eq!(s.rows("SELECT max(col_version), max(cl) FROM crsql_changes WHERE val = 5"), ["3|1"]);
    s.exec("REPLACE INTO t VALUES('after', 1, 1, 1)");
    assert_eq!(s.rows("SELECT DISTINCT col_version FROM crsql_changes WHERE pk = crsql_pack_columns('after')"), ["1"]);
    s.one::<String>("SELECT crsql_as_crr('t', 'native')");
    s.exec("REPLACE INTO t VALUES('guessed', 1, 1, 1)");
    assert_eq!(s.rows("SELECT max(col_version) FROM crsql_changes WHERE pk = crsql_pack_columns('guessed')"), ["2"]);
    ledger::check(&s);
}

#[test]
fn a_window_on_a_table_whose_key_replaces_sees_what_is_overwritten() {
    for capture in ["native", "exact"] {
        for (write, left) in [("INSERT INTO r VALUES(1, 'new')", 2), ("UPDATE r SET id = 1 WHERE id = 2", 1)] {
            let make = || {
                let s = Site::memory();
                s.exec("CREATE TABLE r(id INTEGER NOT NULL PRIMARY KEY ON CONFLICT REPLACE, a)");
                s.exec(&format!("SELECT crsql_as_crr('r', '{capture}')"));
                s
            };
            let (a, b) = (make(), make());
            a.exec("INSERT INTO r VALUES(1, 'a'), (2, 'b')");
            b.pull(&a);
            a.exec(&format!("SELECT crsql_begin_alter('r'); {write}; SELECT crsql_commit_alter('r')"));
            b.pull(&a);
            assert_eq!((b.rows("SELECT * FROM r"), b.changes()), (a.rows("SELECT * FROM r"), a.changes()), "{write}");
            assert_eq!(b.rows("SELECT * FROM r").len(), left);
            ledger::check(&a);
        }
    }
}

#[test]
fn what_a_statement_that_came_to_nothing_was_told_is_not_believed_of_the_next() {
    let s = site();
    s.one::<String>("SELECT crsql_as_crr('t', 'exact')");
    for undo in [
        "INSERT INTO t VALUES('k', 1, 1), ('k', 2, 2)",
        "SAVEPOINT p; INSERT INTO t VALUES('k', 1, 1); INSERT OR IGNORE INTO t VALUES('k', 2, 2); ROLLBACK TO p",
    ] {
        s.exec("BEGIN");
        let _ = s.db.execute_batch(undo);
        s.exec("INSERT INTO t VALUES('k', 3, 3); COMMIT");
        assert_eq!(s.rows("SELECT DISTINCT col_version FROM crsql_changes WHERE cl = (SELECT max(cl) FROM crsql_changes) AND cid <> '-1'"), ["1"], "{undo}");
        s.exec("DELETE FROM t");
    }
}

#[test]
fn a_users_trigger_that_inserts_the_key_before_a_replace_begins_no_other_lifetime() {
    for capture in ["native", "exact"] {
        let s = Site::memory();
        s.exec("CREATE TABLE t(id INTEGER PRIMARY KEY, v)");
        s.exec("CREATE TRIGGER u BEFORE INSERT ON t WHEN NEW.v = 'x' BEGIN INSERT OR IGNORE INTO t VALUES(NEW.id, 'b'); END");
        s.exec(&format!("SELECT crsql_as_crr('t', '{capture}'); REPLACE INTO t VALUES(1, 'x')"));
        assert_eq!(s.rows("SELECT cid, cl FROM crsql_changes"), ["'v'|1"], "{capture}");
        ledger::check(&s);
    }
}

#[test]
fn triggers_of_either_capture_come_first_again_when_they_are_asked_to() {
    for capture in ["native", "exact", "portable"] {
        for again in ["SELECT starling_resume()", "SELECT crsql_as_crr('t')"] {
            let s = Site::memory();
            s.exec(&format!("CREATE TABLE t(id INTEGER PRIMARY KEY, a, b); SELECT crsql_as_crr('t', '{capture}')"));
            s.exec("CREATE TRIGGER z AFTER INSERT ON t BEGIN UPDATE t SET b = NEW.b || 'x' WHERE id = NEW.id; END");
            s.exec(&format!("{again}; INSERT INTO t VALUES(1, 6, 0)"));
            assert_eq!(
                s.rows("SELECT cid, val, col_version, cl FROM crsql_changes"),
                ["'a'|6|1|1", "'b'|'0x'|2|1"],
                "{capture} {again}"
            );
        }
    }
}

#[test]
fn inserts_that_write_over_a_row_in_silence_are_counted_also_beside_a_delete() {
    let s = Site::memory();
    s.exec("CREATE TABLE t(id INTEGER PRIMARY KEY, v)");
    s.exec(
        "CREATE TRIGGER u BEFORE INSERT ON t WHEN NEW.v = 'x' BEGIN INSERT OR IGNORE INTO t VALUES(NEW.id, 'b'); END",
    );
    s.exec("SELECT crsql_as_crr('t', 'exact'); BEGIN; REPLACE INTO t VALUES(1, 'x'); DELETE FROM t; INSERT INTO t VALUES(1, 'y'); COMMIT");
    assert_eq!(s.rows("SELECT DISTINCT cl FROM crsql_changes"), ["3"]);
    ledger::check(&s);
}

#[test]
fn a_users_trigger_that_inserts_the_merged_key_first_does_not_keep_the_merge_out() {
    let make = || {
        let s = Site::memory();
        s.exec("CREATE TABLE t(id INTEGER PRIMARY KEY, a, b)");
        s.exec("CREATE TRIGGER u BEFORE INSERT ON t BEGIN INSERT OR IGNORE INTO t VALUES(NEW.id, 'pre', 5); END");
        s.exec("SELECT crsql_as_crr('t')");
        s
    };
    let (a, b, nine) = (make(), make(), make());
    a.exec("REPLACE INTO t VALUES(1, 9, 9)");
    b.pull(&a);
    nine.pull_nine(&a, |_| ());
    for s in [&b, &nine] {
        assert_eq!((s.rows("SELECT * FROM t"), s.changes()), (a.rows("SELECT * FROM t"), a.changes()));
    }
}
