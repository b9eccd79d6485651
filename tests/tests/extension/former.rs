//! What a column was called, and how it stored its values, before the schema changed.

use starling_tests::site::Site;

const T: &str = "CREATE TABLE t(id INTEGER PRIMARY KEY, c TEXT)";

fn assert_equal_in_the_end(a: &Site, b: &Site, context: &str) {
    for _ in 0..2 {
        a.pull(b);
        b.pull(a);
    }
    let name: String = a.one("SELECT name FROM sqlite_master WHERE name IN ('t', 't2')");
    let all = format!("SELECT * FROM {name}");
    assert_eq!(a.rows(&all), b.rows(&all), "{context}");
    assert_eq!(a.changes(), b.changes(), "{context}");
}

#[test]
fn what_was_renamed_before_the_triggers_go_is_known_when_they_are_back() {
    const REBUILD: &str = "CREATE TABLE n(id INTEGER PRIMARY KEY, c2 TEXT); INSERT INTO n SELECT id, c2 FROM t; \
                           DROP TABLE t; ALTER TABLE n RENAME TO t";
    let again = |name: &str| format!("SELECT crsql_as_table('{name}'); SELECT crsql_as_crr('{name}')");
    let window = format!("SELECT crsql_begin_alter('t'); {REBUILD}; SELECT crsql_commit_alter('t')");
    let migrated = "SELECT crsql_automigrate('CREATE TABLE t(id INTEGER PRIMARY KEY, c2 TEXT DEFAULT ''x''); SELECT crsql_as_crr(''t'')')";
    for (rename, then, update) in [
        ("ALTER TABLE t RENAME COLUMN c TO c2", again("t"), "UPDATE t SET c2 = '1'"),
        ("ALTER TABLE t RENAME TO t2", again("t2"), "UPDATE t2 SET c = '1'"),
        ("ALTER TABLE t RENAME COLUMN c TO c2", window, "UPDATE t SET c2 = '1'"),
        ("ALTER TABLE t RENAME COLUMN c TO c2", migrated.to_string(), "UPDATE t SET c2 = '1'"),
    ] {
        let [a, b] = [0; 2].map(|_| Site::memory().with(&[("t", T)]));
        a.exec("INSERT INTO t VALUES(1, '0'); UPDATE t SET c = '1'; UPDATE t SET c = '2'");
        b.pull(&a);
        b.exec(&format!("{rename}; SELECT starling_resume()"));
        a.exec(&format!("{rename}; {then}; {update}"));
        assert_equal_in_the_end(&a, &b, &then);
        let name = if rename.ends_with("t2") { "t2" } else { "t" };
        assert!(b.rows(&format!("SELECT * FROM {name}"))[0].contains("'1'"), "{then}: it is the last write");
    }
}

/// Without its triggers nobody would tell what a merge has written, and it would be claimed all the same.
#[test]
fn nothing_is_merged_into_a_table_that_was_made_anew_before_it_is_looked_after() {
    let [a, b, c] = [0; 3].map(|_| Site::memory().with(&[("t", T)]));
    a.exec("INSERT INTO t VALUES(1, 'one')");
    b.exec("DROP TABLE t; CREATE TABLE t(id INTEGER PRIMARY KEY, c TEXT)");
    b.pull(&a);
    assert!(b.rows("SELECT * FROM t").is_empty());
    assert_eq!(b.one::<i64>("SELECT count(*) FROM crsql_pending"), 1, "it waits");
    b.exec("INSERT INTO crsql_changes VALUES('t', crsql_pack_columns(2), 'c', 'two', 1, 9, x'0b', 1, 0)");
    c.pull(&b);
    b.exec("SELECT starling_resume()");
    for _ in 0..2 {
        c.pull(&b);
    }
    for site in [&b, &c] {
        assert_eq!(site.rows("SELECT * FROM t"), ["1|'one'", "2|'two'"]);
    }
    assert_eq!(b.changes(), c.changes());
}

#[test]
fn a_default_that_is_stored_otherwise_in_a_column_of_another_type_is_told_of_the_rows_that_have_it() {
    let [a, b] = [0; 2].map(|_| Site::memory().with(&[("t", "CREATE TABLE t(id INTEGER PRIMARY KEY, v TEXT)")]));
    a.exec("INSERT INTO t VALUES(1, 'x')");
    for site in [&a, &b] {
        site.exec(
            "SELECT crsql_begin_alter('t'); ALTER TABLE t ADD COLUMN c REAL NOT NULL DEFAULT 5; SELECT crsql_commit_alter('t'); \
             SELECT crsql_begin_alter('t'); CREATE TABLE n(id INTEGER PRIMARY KEY, v TEXT, c NOT NULL DEFAULT 5); \
             INSERT INTO n SELECT id, v, c FROM t; DROP TABLE t; ALTER TABLE n RENAME TO t; SELECT crsql_commit_alter('t')",
        );
    }
    assert_equal_in_the_end(&a, &b, "REAL to no type");
    // The other way round nothing is stored otherwise, and nothing is told.
    let told = a.changes();
    a.exec(
        "SELECT crsql_begin_alter('t'); CREATE TABLE n(id INTEGER PRIMARY KEY, v VARCHAR(9), c NUMERIC NOT NULL DEFAULT 5); \
         INSERT INTO n SELECT id, v, c FROM t; DROP TABLE t; ALTER TABLE n RENAME TO t; SELECT crsql_commit_alter('t')",
    );
    assert_eq!(a.changes().len(), told.len());
}
