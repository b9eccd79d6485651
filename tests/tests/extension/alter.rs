//! Schema changes of a CRR: in a window (`crsql_begin_alter` … `crsql_commit_alter`), and outside of one.

use starling_tests::ledger;
use starling_tests::site::Site;

const T: (&str, &str) = ("t", "CREATE TABLE t(id INTEGER NOT NULL PRIMARY KEY, a TEXT, b TEXT)");

fn site() -> Site {
    Site::memory().with(&[T])
}

fn alter(s: &Site, sql: &str) {
    s.one::<String>("SELECT crsql_begin_alter('t')");
    s.exec(sql);
    s.one::<String>("SELECT crsql_commit_alter('t')");
}

fn version(s: &Site) -> i64 {
    s.one("SELECT crsql_db_version()")
}

fn cells(s: &Site, filter: &str) -> Vec<String> {
    s.rows(&format!(
        "SELECT hex(pk), cid, val, col_version, cl FROM crsql_changes WHERE {filter} ORDER BY db_version, seq"
    ))
}

/// Both take what the other has, twice, and are then equal.
fn meet(a: &Site, b: &Site) {
    for _ in 0..2 {
        a.pull(b);
        b.pull(a);
    }
    assert_eq!(a.rows("SELECT * FROM t ORDER BY id"), b.rows("SELECT * FROM t ORDER BY id"));
    assert_eq!(a.changes(), b.changes());
    assert_eq!(a.vector(), b.vector());
}

#[test]
fn adding_a_column_makes_no_changes_and_its_first_write_is_version_one() {
    for in_window in [true, false] {
        let s = site();
        s.exec("INSERT INTO t VALUES(1, 'x', 'y'), (2, 'x', 'y'); UPDATE t SET a = 'z' WHERE id = 2");
        let before = (s.changes(), version(&s));
        let add = "ALTER TABLE t ADD COLUMN c TEXT DEFAULT 'zzz'";
        if in_window {
            alter(&s, add);
        } else {
            s.exec(add);
            s.one::<i64>("SELECT starling_resume()");
        }
        assert_eq!((s.changes(), version(&s)), before, "in a window: {in_window}");
        s.exec("UPDATE t SET c = 'new'; INSERT INTO t VALUES(0, 'x', 'y', 'c0'), (3, 'x', 'y', 'c3')");
        assert_eq!(
            cells(&s, "cid = 'c'"),
            ["'010901'|'c'|'new'|1|1", "'010902'|'c'|'new'|1|1", "'0101'|'c'|'c0'|1|1", "'010903'|'c'|'c3'|1|1"]
        );
        // A row that came later was written whole, whichever its key.
        s.exec("UPDATE t SET c = 'again' WHERE id IN (0, 3)");
        assert_eq!(cells(&s, "cid = 'c' AND val = 'again'"), ["'0101'|'c'|'again'|2|1", "'010903'|'c'|'again'|2|1"]);
    }
}

#[test]
fn a_default_never_beats_a_real_first_write() {
    let (x, y) = (site(), site());
    x.exec("INSERT INTO t VALUES(1, 'x', 'y')");
    y.pull(&x);
    for s in [&x, &y] {
        alter(s, "ALTER TABLE t ADD COLUMN c TEXT DEFAULT 'zzz'");
    }
    x.exec("UPDATE t SET c = 'aaa'");
    meet(&x, &y);
    assert_eq!(y.rows("SELECT c FROM t"), ["'aaa'"]);
    // The same for a cell that arrives by itself.
    let s = site();
    s.exec("INSERT INTO t VALUES(1, 'x', 'y')");
    alter(&s, "ALTER TABLE t ADD COLUMN c TEXT DEFAULT 'zzz'");
    s.exec("INSERT INTO crsql_changes VALUES('t', crsql_pack_columns(1), 'c', 'aaa', 1, 9, x'01', 1, 0)");
    assert_eq!(s.rows("SELECT c FROM t"), ["'aaa'"]);
}

#[test]
fn a_dropped_columns_cells_vanish_and_a_renamed_one_keeps_its_clock() {
    let s = site();
    s.exec("INSERT INTO t VALUES(1, 'x', 'y'); UPDATE t SET b = 'z'; DELETE FROM t; INSERT INTO t VALUES(1, 'x', 'w'), (2, 'p', 'q')");
    s.exec("UPDATE t SET b = 'v' WHERE id = 1");
    let at = version(&s);
    alter(&s, "ALTER TABLE t RENAME COLUMN b TO c");
    assert_eq!(version(&s), at, "a rename is no change");
    assert_eq!(cells(&s, "cid = 'c'"), ["'010902'|'c'|'q'|1|1", "'010901'|'c'|'v'|2|3"]);
    alter(&s, "ALTER TABLE t DROP COLUMN a");
    assert_eq!(version(&s), at, "nor is a drop");
    assert_eq!(cells(&s, "1"), ["'010901'|'-1'|NULL|3|3", "'010902'|'c'|'q'|1|1", "'010901'|'c'|'v'|2|3"]);
    s.exec("UPDATE t SET c = 'u'; INSERT INTO t VALUES(3, 'new')");
    assert_eq!(cells(&s, "cid = 'c'"), ["'010901'|'c'|'u'|3|3", "'010902'|'c'|'u'|2|1", "'010903'|'c'|'new'|1|1"]);
    // A column of the same name that comes later is another one.
    alter(&s, "ALTER TABLE t ADD COLUMN a TEXT");
    assert_eq!(cells(&s, "cid = 'a'"), [] as [&str; 0]);
}

#[test]
fn a_column_that_was_dropped_and_added_again_in_one_window_is_another_one() {
    let s = site();
    s.exec("INSERT INTO t VALUES(1, 'x', 'y'), (2, 'x', 'y'); UPDATE t SET b = 'z'");
    alter(&s, "ALTER TABLE t DROP COLUMN b; ALTER TABLE t ADD COLUMN b INTEGER; UPDATE t SET b = 5 WHERE id = 2");
    assert_eq!(cells(&s, "cid = 'b'"), ["'010902'|'b'|5|1|1"]);
}

#[test]
fn seqs_of_a_base_stay_after_a_column_before_it_was_dropped() {
    let s = site();
    s.exec("INSERT INTO t VALUES(1, 'x', 'y')");
    let seq = "SELECT seq FROM crsql_changes WHERE cid = 'b'";
    assert_eq!(s.one::<i64>(seq), 1);
    alter(&s, "ALTER TABLE t DROP COLUMN a");
    assert_eq!(s.one::<i64>(seq), 1, "clients resume at (db_version, seq)");
    let other = Site::memory().with(&[("t", "CREATE TABLE t(id INTEGER NOT NULL PRIMARY KEY, b TEXT)")]);
    other.pull(&s);
    assert_eq!(other.one::<i64>(seq), 1);
    assert_eq!(other.vector(), s.vector());
}

#[test]
fn a_rebuild_in_twelve_steps_logs_what_differs_and_nothing_else() {
    let s = site();
    s.exec(
        "INSERT INTO t VALUES(1, 'x', 'y'), (2, 'x', 'y'), (3, 'x', 'y'), (4, 'gone', ''); DELETE FROM t WHERE id = 3",
    );
    let at = version(&s);
    alter(
        &s,
        "CREATE TABLE new_t(c INTEGER DEFAULT 0, b TEXT, id INTEGER NOT NULL PRIMARY KEY, a TEXT CHECK (a <> 'no')); \
         INSERT INTO new_t SELECT id = 2, upper(b), id, a FROM t WHERE id <> 4; \
         INSERT INTO new_t VALUES(9, 'n', 5, 'n'); DROP TABLE t; ALTER TABLE new_t RENAME TO t",
    );
    assert_eq!(version(&s), at + 1, "what changed in the window has a version that peers ask for");
    let mut changed = cells(&s, &format!("db_version > {at}"));
    changed.sort();
    assert_eq!(
        changed,
        [
            "'010901'|'b'|'Y'|2|1",
            "'010902'|'b'|'Y'|2|1",
            "'010902'|'c'|1|1|1",
            "'010904'|'-1'|NULL|2|2",
            "'010905'|'a'|'n'|1|1",
            "'010905'|'b'|'n'|1|1",
            "'010905'|'c'|9|1|1"
        ]
    );
    assert_eq!(cells(&s, "pk = crsql_pack_columns(3)"), ["'010903'|'-1'|NULL|2|2"], "tombstones survive");
    s.exec("UPDATE t SET a = 'w' WHERE id = 1");
    assert_eq!(cells(&s, "cid = 'a' AND pk = crsql_pack_columns(1)"), ["'010901'|'a'|'w'|2|1"]);
}

#[test]
fn what_is_written_within_a_window_is_captured() {
    let (x, y) = (site(), site());
    x.exec("INSERT INTO t VALUES(1, 'x', 'y'), (2, 'x', 'y')");
    y.pull(&x);
    alter(
        &x,
        "ALTER TABLE t ADD COLUMN c TEXT; UPDATE t SET c = a || b WHERE id = 1; INSERT INTO t VALUES(3, 'p', 'q', 'r'); \
         DELETE FROM t WHERE id = 2; ALTER TABLE t DROP COLUMN b",
    );
    y.exec("ALTER TABLE t ADD COLUMN c TEXT; SELECT 1");
    y.one::<i64>("SELECT starling_resume()");
    alter(&y, "ALTER TABLE t DROP COLUMN b");
    meet(&x, &y);
    assert_eq!(y.rows("SELECT * FROM t ORDER BY id"), ["1|'x'|'xy'", "3|'p'|'r'"]);
}

#[test]
fn a_column_renamed_outside_of_a_window_goes_on_with_its_clock() {
    let (x, y) = (site(), site());
    x.exec("INSERT INTO t VALUES(1, 'x', 'y'); UPDATE t SET b = 'z'");
    y.pull(&x);
    let at = version(&x);
    x.exec("ALTER TABLE t RENAME COLUMN b TO c");
    x.one::<i64>("SELECT starling_resume()");
    assert_eq!((version(&x), cells(&x, "cid = 'c'")), (at, vec!["'010901'|'c'|'z'|2|1".to_string()]));
    // A node that has not renamed it yet is understood.
    y.exec("UPDATE t SET b = 'from y'");
    x.pull(&y);
    assert_eq!(x.rows("SELECT c FROM t"), ["'from y'"]);
    y.exec("ALTER TABLE t RENAME COLUMN b TO c");
    y.one::<i64>("SELECT starling_resume()");
    meet(&x, &y);
}

#[test]
fn what_is_written_between_a_rename_outside_of_a_window_and_the_resume_belongs_to_the_renamed_column() {
    let (x, y) = (site(), site());
    x.exec("INSERT INTO t VALUES(1, 'x', 'y')");
    y.pull(&x);
    x.exec("ALTER TABLE t RENAME COLUMN a TO z; UPDATE t SET z = 'new'");
    let now = vec!["'010901'|'b'|'y'|1|1".to_string(), "'010901'|'z'|'new'|2|1".to_string()];
    assert_eq!(cells(&x, "1"), now);
    x.one::<i64>("SELECT starling_resume()");
    assert_eq!(cells(&x, "1"), now);
    y.exec("ALTER TABLE t RENAME COLUMN a TO z");
    meet(&x, &y);
    assert_eq!(y.rows("SELECT * FROM t"), ["1|'new'|'y'"]);
}

#[test]
fn nodes_that_alter_at_different_times_meet() {
    let (x, y) = (site(), site());
    x.exec("INSERT INTO t VALUES(1, 'x', 'y'), (5, 'x', 'y')");
    y.pull(&x);
    alter(&x, "ALTER TABLE t ADD COLUMN c TEXT DEFAULT 'd'");
    x.exec("UPDATE t SET c = 'set' WHERE id = 1; INSERT INTO t VALUES(2, 'n', 'n', 'n'), (9, 'n', 'n', 'n')");
    y.exec("UPDATE t SET a = 'y' WHERE id = 5; INSERT INTO t VALUES(3, 'old', 'old')");
    y.pull(&x);
    x.pull(&y);
    alter(&y, "ALTER TABLE t ADD COLUMN c TEXT DEFAULT 'd'");
    meet(&x, &y);
    y.exec("UPDATE t SET c = 'last' WHERE id = 3");
    meet(&x, &y);
    assert_eq!(x.rows("SELECT id, c FROM t ORDER BY id"), ["1|'set'", "2|'n'", "3|'last'", "5|'d'", "9|'n'"]);
}

#[test]
fn a_window_that_cannot_be_closed_leaves_everything_as_it_was() {
    let s = site();
    s.exec("INSERT INTO t VALUES(1, 'x', 'y')");
    let state = || (s.rows("SELECT name, sql FROM sqlite_master ORDER BY name"), s.changes());
    for (sql, reason) in [
        (
            "CREATE TABLE n(id INTEGER, a TEXT NOT NULL, b TEXT, PRIMARY KEY(id, a)); INSERT INTO n SELECT * FROM t; \
             DROP TABLE t; ALTER TABLE n RENAME TO t",
            "may be NULL",
        ),
        ("CREATE UNIQUE INDEX u ON t(a)", "UNIQUE"),
        ("DROP TABLE t", "gone"),
    ] {
        let before = state();
        s.one::<String>("SELECT crsql_begin_alter('t')");
        s.exec(sql);
        let refused = s.refused("SELECT crsql_commit_alter('t')");
        assert!(refused.contains(reason) && refused.contains("rolled back"), "{refused}");
        assert!(state() == before, "{sql} left something");
        s.exec("UPDATE t SET a = a || 'x'; UPDATE t SET a = 'x'");
        assert!(s.db.is_autocommit());
    }
    assert!(s.refused("SELECT crsql_commit_alter('t')").contains("no window is open"));
    assert!(s.refused("SELECT crsql_begin_alter('nothing')").contains("no such table"));
    assert!(s.db.is_autocommit());
}

#[test]
fn a_table_that_gets_another_key_in_a_window_begins_anew_and_replicas_that_do_the_same_end_equal() {
    let (x, y) = (site(), site());
    x.exec("INSERT INTO t VALUES(1, 'x', 'one'), (2, 'x', 'two'), (3, 'gone', '')");
    y.pull(&x);
    y.exec("UPDATE t SET b = 'of y' WHERE id = 2; DELETE FROM t WHERE id = 3");
    let rekey = "DELETE FROM t WHERE id = 3; CREATE TABLE n(id INTEGER NOT NULL, a TEXT NOT NULL, b TEXT, PRIMARY KEY(a, id)); \
                 INSERT INTO n SELECT * FROM t; DROP TABLE t; ALTER TABLE n RENAME TO t; UPDATE t SET b = 'within' WHERE id = 1";
    for s in [&x, &y] {
        alter(s, rekey);
        assert_eq!(s.one::<i64>("SELECT count(*) FROM crsql_changes"), 2, "a cell for each row, under its new key");
        assert_eq!(s.one::<i64>("SELECT count(DISTINCT db_version) FROM crsql_changes"), 1);
        assert_eq!(
            s.one::<i64>("SELECT max(db_version) FROM crsql_changes"),
            s.one::<i64>("SELECT crsql_db_version()")
        );
    }
    for _ in 0..2 {
        x.pull(&y);
        y.pull(&x);
    }
    assert_eq!(x.rows("SELECT id, a, b FROM t ORDER BY id"), ["1|'x'|'within'", "2|'x'|'two'"]);
    assert_eq!(x.changes(), y.changes());
    x.exec("UPDATE t SET b = 'after' WHERE id = 1; UPDATE t SET a = 'moved' WHERE id = 2; INSERT INTO t VALUES(4, 'x', 'new')");
    y.pull(&x);
    assert_eq!(y.rows("SELECT id, a, b FROM t ORDER BY id"), ["1|'x'|'after'", "2|'moved'|'two'", "4|'x'|'new'"]);
    assert_eq!(x.changes(), y.changes());
    ledger::check(&x);
    ledger::check(&y);
    // The other way, in a transaction that is rolled back, and then for good.
    let back = "CREATE TABLE n(id INTEGER NOT NULL PRIMARY KEY, a TEXT, b TEXT); INSERT INTO n SELECT * FROM t; DROP TABLE t; \
                ALTER TABLE n RENAME TO t";
    let before = x.changes();
    x.exec("BEGIN; UPDATE t SET b = 'undone'");
    alter(&x, back);
    x.exec("INSERT INTO t VALUES(9, '', ''); ROLLBACK");
    assert_eq!(x.changes(), before);
    x.exec("UPDATE t SET b = 'kept'");
    alter(&x, back);
    assert_eq!(cells(&x, "cid = 'b'").len(), 3);
    ledger::check(&x);
}

#[test]
fn an_ordered_list_that_gets_another_key_in_a_window_goes_on_as_one() {
    const NOT_OF_KEY: &str = "(id INTEGER PRIMARY KEY, list TEXT, title TEXT, ord TEXT)";
    const OF_KEY: &str = "(id INTEGER NOT NULL, list TEXT NOT NULL, title TEXT, ord TEXT, PRIMARY KEY(list, id))";
    for (before, after) in
        [(NOT_OF_KEY, "(id TEXT NOT NULL PRIMARY KEY, list TEXT, title TEXT, ord TEXT)"), (OF_KEY, NOT_OF_KEY)]
    {
        let s = Site::memory();
        s.exec(&format!(
            "CREATE TABLE todo{before}; SELECT crsql_as_crr('todo'), crsql_fract_as_ordered('todo', 'ord', 'list')"
        ));
        s.exec("INSERT INTO todo VALUES(1, 'l', 'b', -1), (2, 'l', 'a', -1), (3, 'm', 'other', 1)");
        s.one::<String>("SELECT crsql_begin_alter('todo')");
        s.exec(&format!(
            "CREATE TABLE n{after}; INSERT INTO n SELECT * FROM todo; DROP TABLE todo; ALTER TABLE n RENAME TO todo"
        ));
        s.one::<String>("SELECT crsql_commit_alter('todo')");
        s.exec("INSERT INTO todo VALUES('8', 'l', 'c', 1); INSERT INTO todo_fractindex(id, list, title, after_id) VALUES('9', 'l', 'between', '2')");
        assert_eq!(s.rows("SELECT title FROM todo WHERE list = 'l' ORDER BY ord"), ["'a'", "'between'", "'b'", "'c'"]);
        // Each list is one of its own still: what comes last in one has the key that it had first in the other.
        s.exec("INSERT INTO todo VALUES('10', 'k', 'alone', 1)");
        let alone = "SELECT (SELECT ord FROM todo WHERE list = 'k') = (SELECT ord FROM todo WHERE list = 'm')";
        assert_eq!(s.one::<i64>(alone), 1, "{before}");
    }
}

#[test]
fn a_window_ends_with_its_transaction() {
    let s = site();
    s.exec("INSERT INTO t VALUES(1, 'x', 'y'); BEGIN");
    s.one::<String>("SELECT crsql_begin_alter('t')");
    s.exec("ALTER TABLE t ADD COLUMN c; ROLLBACK");
    assert!(s.refused("SELECT crsql_commit_alter('t')").contains("no window is open"));
    s.exec("UPDATE t SET a = 'captured'");
    assert_eq!(cells(&s, "val = 'captured'"), ["'010901'|'a'|'captured'|2|1"]);
    s.one::<String>("SELECT crsql_begin_alter('main', 't')");
    s.exec("ALTER TABLE t ADD COLUMN c");
    s.one::<String>("SELECT crsql_commit_alter('main', 't')");
    assert!(s.db.is_autocommit());
}

/// A column that is added with a default, and filled with what SQLite calls equal to that: it is another value all the same.
#[test]
fn what_only_equals_a_new_column_s_default_is_told() {
    let all = [
        ("s TEXT COLLATE NOCASE DEFAULT 'x'", "'X'"),
        ("s TEXT COLLATE RTRIM DEFAULT 'x'", "'x  '"),
        ("s DEFAULT 2", "2.0"),
        ("s DEFAULT 0", "-0.0"),
        ("s DEFAULT 0.0", "-0.0"),
        ("s REAL DEFAULT 0", "-0.0"),
        ("s INTEGER DEFAULT '5'", "5.0"),
        ("s TEXT DEFAULT 5", "'5'"),
        ("s TEXT DEFAULT word", "'Word'"),
        ("s TEXT DEFAULT \"a\"", "a"),
    ];
    for ((column, value), rebuilt) in all.into_iter().flat_map(|case| [(case, false), (case, true)]) {
        let [a, b] = [0; 2].map(|_| Site::memory().with(&[("t", "CREATE TABLE t(id INTEGER PRIMARY KEY, a)")]));
        a.exec("INSERT INTO t VALUES(1, 'x')");
        if rebuilt {
            a.exec(&format!(
                "SELECT crsql_begin_alter('t'); CREATE TABLE n(id INTEGER PRIMARY KEY, a, {column}); \
                 INSERT INTO n SELECT id, a, {value} FROM t; DROP TABLE t; ALTER TABLE n RENAME TO t; \
                 SELECT crsql_commit_alter('t')"
            ));
        } else {
            a.exec(&format!("ALTER TABLE t ADD COLUMN {column}; UPDATE t SET s = {value}; SELECT starling_resume()"));
        }
        b.exec(&format!("ALTER TABLE t ADD COLUMN {column}; SELECT starling_resume()"));
        b.pull(&a);
        assert_eq!(b.rows("SELECT s, typeof(s) FROM t"), a.rows("SELECT s, typeof(s) FROM t"), "{column}, {value}");
    }
}

/// Each node would fill it with a value of its own.
#[test]
fn a_new_column_whose_default_is_another_everywhere_is_told_of_every_row() {
    let [a, b] = [0; 2].map(|_| Site::memory().with(&[("t", "CREATE TABLE t(id INTEGER PRIMARY KEY, a)")]));
    a.exec("INSERT INTO t VALUES(1, 'x'), (2, 'y')");
    b.pull(&a);
    for (site, second) in [(&a, 1), (&b, 2)] {
        site.exec(&format!(
            "SELECT crsql_begin_alter('t'); \
             CREATE TABLE n(id INTEGER PRIMARY KEY, a, made TEXT DEFAULT CURRENT_TIMESTAMP, at TEXT DEFAULT 'constant'); \
             INSERT INTO n SELECT id, a, datetime({second}, 'unixepoch'), 'constant' FROM t WHERE id = 1; \
             INSERT INTO n(id, a) SELECT id, a FROM t WHERE id = 2; \
             DROP TABLE t; ALTER TABLE n RENAME TO t; SELECT crsql_commit_alter('t')"
        ));
        let told = site.rows("SELECT cid, count(*) FROM crsql_changes WHERE cid IN ('made', 'at') GROUP BY cid");
        assert_eq!(told, ["'made'|2"]);
    }
    for _ in 0..2 {
        a.pull(&b);
        b.pull(&a);
    }
    assert_eq!(a.rows("SELECT * FROM t"), b.rows("SELECT * FROM t"));
}

#[test]
fn in_a_rebuild_a_new_column_at_its_default_is_not_taken_for_one_that_went() {
    let s = Site::memory().with(&[("t", "CREATE TABLE t(id INTEGER NOT NULL PRIMARY KEY, legacy INTEGER DEFAULT 0)")]);
    s.exec("INSERT INTO t(id) VALUES(1), (2)");
    alter(
        &s,
        "CREATE TABLE n(id INTEGER NOT NULL PRIMARY KEY, admin INTEGER DEFAULT 0); INSERT INTO n(id) SELECT id FROM t; \
         DROP TABLE t; ALTER TABLE n RENAME TO t",
    );
    s.exec("INSERT INTO crsql_changes VALUES('t', crsql_pack_columns(1), 'legacy', 1, 2, 9, x'01', 1, 0)");
    assert_eq!(s.rows("SELECT admin FROM t"), ["0", "0"]);
    // Values that differ from row to row tell.
    let s = site();
    s.exec("INSERT INTO t VALUES(1, 'x', 'y'), (2, 'z', 'w')");
    alter(
        &s,
        "CREATE TABLE n(id INTEGER NOT NULL PRIMARY KEY, aa TEXT, b TEXT); INSERT INTO n SELECT * FROM t; DROP TABLE t; \
         ALTER TABLE n RENAME TO t; UPDATE t SET b = 'v'",
    );
    assert_eq!(cells(&s, "cid = 'aa'"), ["'010901'|'aa'|'x'|1|1", "'010902'|'aa'|'z'|1|1"]);
}

#[test]
fn what_was_written_to_a_column_that_is_gone_is_swept_from_the_log() {
    let s = site();
    s.exec("INSERT INTO t VALUES(1, 'x', 'y'), (2, 'z', 'w'); UPDATE t SET b = b || '!'; UPDATE t SET a = 'kept', b = 'gone' WHERE id = 2");
    alter(&s, "ALTER TABLE t DROP COLUMN b");
    s.exec("INSERT INTO t VALUES(3, 'newest')");
    let (before, peer) = (s.changes(), Site::memory().with(&[("t", "CREATE TABLE t(id INTEGER PRIMARY KEY, a TEXT)")]));
    assert_eq!(s.one::<i64>("SELECT starling_prune(1000)"), 3);
    starling_tests::ledger::check(&s);
    assert_eq!(s.changes(), before);
    peer.pull(&s);
    assert_eq!((peer.changes(), peer.vector()), (before, s.vector()));
}

#[test]
fn what_is_flushed_or_merged_in_a_window_is_no_reason_to_forget_the_clocks_of_a_column() {
    let from = "VALUES('t', crsql_pack_columns(1), 'b', 1, 7, 1, x'0b', 1, 0)";
    let looks = [
        "SELECT count(*) FROM crsql_changes".to_string(),
        "SELECT starling_vector()".to_string(),
        "SELECT starling_resume()".to_string(),
        "SELECT crsql_as_crr('t')".to_string(),
        "SELECT crsql_begin_alter('o'); ALTER TABLE o ADD COLUMN z; SELECT crsql_commit_alter('o')".to_string(),
        format!("INSERT INTO crsql_changes {from}"),
    ];
    for (alter, column) in [("ALTER TABLE t ADD COLUMN d", "b"), ("ALTER TABLE t RENAME COLUMN b TO bb", "bb")] {
        for look in &looks {
            let (x, y) = (site(), site());
            for s in [&x, &y] {
                s.exec("CREATE TABLE o(id INTEGER PRIMARY KEY)");
                s.one::<String>("SELECT crsql_as_crr('o')");
            }
            x.exec("INSERT INTO t VALUES(1, 'x', 5), (2, 'x', 5); UPDATE t SET b = 7");
            y.pull(&x);
            x.exec(&format!(
                "SELECT crsql_begin_alter('t'); {alter}; UPDATE t SET {column} = 1 WHERE id = 1; {look}; SELECT crsql_commit_alter('t')"
            ));
            y.exec(&format!("SELECT crsql_begin_alter('t'); {alter}; SELECT crsql_commit_alter('t')"));
            // An update of a row that nobody touched in the window counts on from what it was.
            x.exec(&format!("UPDATE t SET {column} = 6 WHERE id = 2"));
            let of_two = format!("SELECT col_version FROM crsql_changes WHERE cid = '{column}' AND val = '6'");
            assert_eq!(x.one::<i64>(&of_two), 3, "{alter}; {look}");
            y.pull(&x);
            let rows = [&x, &y].map(|s| s.rows(&format!("SELECT id, {column} FROM t ORDER BY id")));
            assert_eq!(rows, [["1|'1'", "2|'6'"], ["1|'1'", "2|'6'"]], "{alter}; {look}");
            assert_eq!(x.changes(), y.changes(), "{alter}; {look}");
            starling_tests::ledger::check(&x);
        }
    }
}

#[test]
fn a_table_that_is_a_crr_is_one_in_its_window_too_and_its_way_of_capture_stays_until_the_end() {
    let s = site();
    s.exec("INSERT INTO t VALUES(1, 'x', 'y')");
    let before = s.changes();
    s.exec("SELECT crsql_begin_alter('t'); ALTER TABLE t ADD COLUMN d; SELECT crsql_as_crr('t'), starling_resume()");
    assert!(s.refused("SELECT crsql_as_crr('t', 'portable')").contains("after crsql_commit_alter"));
    s.one::<String>("SELECT crsql_commit_alter('t')");
    assert_eq!(s.changes(), before, "nothing is announced");
    s.exec("UPDATE t SET d = 5");
    assert_eq!(s.one::<i64>("SELECT count(*) FROM crsql_changes WHERE cid = 'd'"), 1);
}
