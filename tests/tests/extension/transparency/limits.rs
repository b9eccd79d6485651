//! The differences that there are, pinned: each has its line in docs/LIMITS.md.

use starling_tests::seen::observe;
use starling_tests::site::Site;

const TABLE: &str = "CREATE TABLE t(id INTEGER PRIMARY KEY, a)";

fn pair() -> [Site; 2] {
    let plain = Site::memory();
    plain.exec(TABLE);
    [plain, Site::memory().with(&[("t", TABLE)])]
}

#[test]
fn changes_after_an_explicit_commit_counts_internal_writes_and_after_a_write_does_not() {
    let [plain, crr] = pair();
    for s in [&plain, &crr] {
        s.exec("BEGIN; INSERT INTO t VALUES(1, 1), (2, 2), (3, 3)");
        assert_eq!(s.one::<i64>("SELECT changes()"), 3);
        s.exec("COMMIT");
        assert_eq!(s.db.last_insert_rowid(), 3);
    }
    assert_eq!((plain.db.changes(), crr.db.changes()), (3, 1));
    crr.exec("UPDATE t SET a = 0 WHERE id > 1");
    assert_eq!(crr.db.changes(), 2);
}

#[test]
fn a_copy_of_a_whole_table_gives_new_rowids_where_the_key_is_not_the_rowid() {
    let rowids = |armed: bool| {
        let s = Site::memory();
        s.exec("CREATE TABLE s(k TEXT NOT NULL PRIMARY KEY, v); CREATE TABLE t(k TEXT NOT NULL PRIMARY KEY, v)");
        if armed {
            s.one::<String>("SELECT crsql_as_crr('t')");
        }
        s.exec("INSERT INTO s VALUES('a', 1), ('b', 2), ('c', 3); DELETE FROM s WHERE k = 'b'; INSERT INTO t SELECT * FROM s");
        s.rows("SELECT rowid, k FROM t")
    };
    assert_eq!(rowids(false), ["1|'a'", "3|'c'"]);
    assert_eq!(rowids(true), ["1|'a'", "2|'c'"]);
}

#[test]
fn an_update_of_keys_visits_rows_in_rowid_order_whatever_reverse_unordered_selects_says() {
    let outcome = |armed: bool| {
        let s = Site::memory();
        s.exec("CREATE TABLE t(k REAL NOT NULL PRIMARY KEY, v)");
        if armed {
            s.one::<String>("SELECT crsql_as_crr('t')");
        }
        s.exec("INSERT INTO t VALUES(1, 1), (2, 2), (3, 3); PRAGMA reverse_unordered_selects = ON");
        observe(&s.db, "UPDATE t SET k = k + 1").error.map(|(_, message)| message)
    };
    assert_eq!(outcome(false), None);
    assert_eq!(outcome(true), Some("UNIQUE constraint failed: t.k".to_string()));
}

#[test]
fn a_failing_statement_is_undone_also_where_sqlite_leaves_half_of_it() {
    for (armed, left) in [(false, 1), (true, 0)] {
        let s = Site::memory();
        s.exec("CREATE TABLE t(id BLOB NOT NULL PRIMARY KEY, a INTEGER NOT NULL) STRICT");
        if armed {
            s.one::<String>("SELECT crsql_as_crr('t')");
        }
        s.exec("BEGIN");
        let failed = observe(&s.db, "INSERT OR IGNORE INTO t VALUES(x'', 3), (x'00', 'text')");
        assert!(failed.error.is_some_and(|(_, message)| message.contains("cannot store TEXT")));
        assert_eq!(s.one::<i64>("SELECT count(*) FROM t"), left, "a CRR: {armed}");
    }
}

#[test]
fn an_after_trigger_that_is_newer_than_ours_and_ends_with_ignore_hides_the_row_until_as_crr_is_called_again() {
    let s = Site::memory().with(&[("t", TABLE)]);
    s.exec("CREATE TRIGGER u AFTER INSERT ON t BEGIN SELECT RAISE(IGNORE); END; INSERT INTO t VALUES(1, 1)");
    assert_eq!(s.one::<i64>("SELECT count(*) FROM crsql_changes"), 0);
    s.one::<i64>("SELECT starling_resume()");
    s.exec("INSERT INTO t VALUES(2, 2)");
    assert_eq!(s.rows("SELECT val FROM crsql_changes"), ["2"]);
    // A trigger from before the table became a CRR is harmless.
    let s = Site::memory();
    s.exec(TABLE);
    s.exec("CREATE TRIGGER u AFTER INSERT ON t BEGIN SELECT RAISE(FAIL, 'no more') WHERE NEW.id = 2; END");
    s.one::<String>("SELECT crsql_as_crr('t')");
    assert!(s.refused("INSERT INTO t VALUES(1, 1), (2, 2)").contains("no more"));
    assert_eq!(s.rows("SELECT val FROM crsql_changes"), ["1", "2"]);
}

#[test]
fn query_only_between_the_writes_and_their_commit_undoes_them_and_says_so() {
    let [_, s] = pair();
    s.exec("BEGIN; INSERT INTO t VALUES(1, 1); PRAGMA query_only = ON");
    assert!(s.refused("COMMIT").contains("readonly"));
    assert!(s.db.is_autocommit());
    s.exec("PRAGMA query_only = OFF; INSERT INTO t VALUES(2, 2)");
    assert_eq!(s.rows("SELECT id FROM t"), ["2"]);
    assert_eq!(s.rows("SELECT val FROM crsql_changes"), ["2"]);
}

#[test]
fn an_authorizer_that_denies_the_internal_tables_undoes_the_commit_and_says_so() {
    let [_, s] = pair();
    s.exec("INSERT INTO t VALUES(1, 1)");
    let mut s = s;
    let deny = |context: rusqlite::hooks::AuthContext<'_>| match context.action {
        rusqlite::hooks::AuthAction::Insert { table_name: "crsql_record" } => rusqlite::hooks::Authorization::Deny,
        _ => rusqlite::hooks::Authorization::Allow,
    };
    s.db.authorizer(Some(deny)).expect("an authorizer");
    assert!(s.refused("INSERT INTO t VALUES(2, 2)").contains("not authorized"));
    let none: Option<fn(rusqlite::hooks::AuthContext<'_>) -> rusqlite::hooks::Authorization> = None;
    s.db.authorizer(none).expect("no authorizer");
    assert_eq!(s.rows("SELECT id FROM t"), ["1"]);
    assert_eq!(s.rows("SELECT val FROM crsql_changes"), ["1"]);
}

#[test]
fn a_statement_whose_capture_cannot_even_begin_takes_its_transaction_along_and_never_stays_in_half() {
    use rusqlite::hooks::{AuthAction, AuthContext, Authorization};
    for (capture, sql) in ["native", "exact"].into_iter().flat_map(|c| {
        ["DELETE FROM t WHERE id < 3", "UPDATE t SET a = 5 WHERE id < 3", "UPDATE t SET b = 'x'"].map(|sql| (c, sql))
    }) {
        let mut s = Site::memory();
        s.exec("CREATE TABLE t(id INTEGER PRIMARY KEY, a INT, b TEXT); INSERT INTO t VALUES(1, 1, 'a'), (2, 1, 'b'), (3, 1, 'c')");
        s.one::<String>(&format!("SELECT crsql_as_crr('t', '{capture}')"));
        let own_tables = |context: AuthContext<'_>| match context.action {
            AuthAction::Insert { table_name } | AuthAction::Delete { table_name } if table_name != "t" => {
                Authorization::Deny
            }
            _ => Authorization::Allow,
        };
        let changes = s.changes();
        s.db.authorizer(Some(own_tables)).expect("an authorizer");
        s.exec("BEGIN");
        assert!(s.refused(sql).contains("not authorized"), "{capture}: {sql}");
        let none: Option<fn(AuthContext<'_>) -> Authorization> = None;
        s.db.authorizer(none).expect("no authorizer");
        if !s.db.is_autocommit() {
            s.exec("COMMIT");
        }
        assert_eq!(s.rows("SELECT a, b FROM t"), ["1|'a'", "1|'b'", "1|'c'"], "{capture}: {sql}");
        assert_eq!(s.changes(), changes);
    }
}

#[test]
fn what_a_low_limit_refuses_is_not_said_to_be_damage() {
    let [_, s] = pair();
    s.exec("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 300) INSERT INTO t SELECT i, i FROM n");
    s.db.set_limit(rusqlite::limits::Limit::SQLITE_LIMIT_VARIABLE_NUMBER, 0).expect("a limit");
    let refused = s.refused("UPDATE t SET a = 2");
    assert!(refused.contains("variable number") && !refused.contains("damaged"), "{refused}");
    s.db.set_limit(rusqlite::limits::Limit::SQLITE_LIMIT_VARIABLE_NUMBER, 999).expect("a limit");
    s.exec("UPDATE t SET a = 2");
    assert_eq!(s.one::<i64>("SELECT count(*) FROM crsql_changes WHERE val = 2"), 300);
}

#[test]
fn a_blob_written_through_a_blob_handle_is_not_captured() {
    use std::io::Write;
    let [_, s] = pair();
    s.exec("INSERT INTO t VALUES(1, zeroblob(3))");
    let mut blob = s.db.blob_open(rusqlite::MAIN_DB, "t", "a", 1, false).expect("a handle");
    blob.write_all(b"abc").expect("it is written");
    blob.close().expect("it closes");
    assert_eq!(s.rows("SELECT a, (SELECT col_version FROM crsql_changes) FROM t"), ["x[61, 62, 63]|1"]);
}

#[test]
fn the_capture_takes_one_level_of_triggers() {
    use rusqlite::limits::Limit;
    let fails = |depth: i32| {
        pair().map(|s| {
            s.db.set_limit(Limit::SQLITE_LIMIT_TRIGGER_DEPTH, depth).expect("a limit");
            observe(&s.db, "INSERT INTO t VALUES(1, 0)").error.is_some()
        })
    };
    assert_eq!(fails(1), [false, false]);
    assert_eq!(fails(0), [false, true]);
    // The application's own recursion is as deep as ever.
    let story = |s: &Site| {
        s.exec("PRAGMA recursive_triggers = ON; CREATE TRIGGER u AFTER INSERT ON t WHEN NEW.id < 990 BEGIN INSERT INTO t VALUES(NEW.id + 1, 0); END");
        (observe(&s.db, "INSERT INTO t VALUES(1, 0)"), s.one::<i64>("SELECT count(*) FROM t"))
    };
    let [plain, crr] = pair();
    assert_eq!(story(&plain), story(&crr));
}

#[test]
fn what_must_be_set_before_the_first_table_must_be_set_before_the_extension_is_loaded() {
    let s = Site::memory();
    s.exec("PRAGMA page_size = 8192; PRAGMA auto_vacuum = FULL");
    assert_eq!(s.rows("PRAGMA auto_vacuum"), ["0"]);
    // Loading itself leaves no trace in what the application may ask.
    assert_eq!(s.db.last_insert_rowid(), 0);
    s.exec("CREATE TABLE t(id INTEGER PRIMARY KEY); INSERT INTO t VALUES(7)");
    s.one::<String>("SELECT crsql_as_crr('t')");
    assert_eq!(s.db.last_insert_rowid(), 7);
}
