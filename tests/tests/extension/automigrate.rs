//! `crsql_automigrate`: from whatever is there to what a schema text says, data kept, replicas meeting all the same.

use starling_tests::site::Site;

const FIRST: &str = "
  CREATE TABLE IF NOT EXISTS item(id TEXT NOT NULL PRIMARY KEY, name TEXT, \"left over\" INTEGER);
  CREATE TABLE plain(a INTEGER PRIMARY KEY, b);
  CREATE INDEX item_name ON item(name);
  SELECT crsql_as_crr('item');
";

fn migrate(s: &Site, schema: &str) -> String {
    s.db.query_row("SELECT crsql_automigrate(?1)", [schema], |r| r.get(0)).unwrap_or_else(|e| panic!("{schema}: {e}"))
}

fn refused(s: &Site, schema: &str) -> String {
    s.db.query_row("SELECT crsql_automigrate(?1)", [schema], |r| r.get::<_, String>(0)).expect_err(schema).to_string()
}

fn site() -> Site {
    let s = Site::memory();
    assert_eq!(migrate(&s, FIRST), "migration complete");
    s.exec("INSERT INTO item VALUES('a', 'x', 1), ('b', 'y', 2); INSERT INTO plain VALUES(1, 2)");
    s
}

#[test]
fn an_empty_database_becomes_what_the_schema_says_and_doing_it_again_changes_nothing() {
    let s = site();
    let state = || (s.rows("SELECT name, sql FROM sqlite_master ORDER BY name"), s.changes(), s.vector());
    let before = state();
    migrate(&s, FIRST);
    // Spaces, comments and quotes are no difference.
    migrate(&s, &FIRST.replace("name TEXT", "[name]   text /* what it is called */"));
    assert!(state() == before);
    assert_eq!(s.rows("SELECT [table], cid FROM crsql_changes LIMIT 1"), ["'item'|'name'"]);
}

#[test]
fn columns_come_and_go_without_a_change_and_keep_their_clocks() {
    let s = site();
    s.exec("UPDATE item SET name = 'z' WHERE id = 'a'");
    let at: i64 = s.one("SELECT crsql_db_version()");
    migrate(
        &s,
        "CREATE TABLE item(id TEXT NOT NULL PRIMARY KEY, name TEXT, price REAL DEFAULT 1.5); CREATE TABLE plain(a INTEGER \
         PRIMARY KEY, b); CREATE INDEX item_price ON item(price); SELECT crsql_as_crr('item')",
    );
    assert_eq!(s.rows("SELECT * FROM item ORDER BY id"), ["'a'|'z'|1.5r", "'b'|'y'|1.5r"]);
    assert_eq!(
        s.rows("SELECT name FROM sqlite_master WHERE type = 'index' AND sql IS NOT NULL AND tbl_name = 'item'"),
        ["'item_price'"]
    );
    assert_eq!(s.one::<i64>("SELECT crsql_db_version()"), at);
    assert_eq!(s.rows("SELECT cid, val, col_version FROM crsql_changes"), ["'name'|'y'|1", "'name'|'z'|2"]);
    s.exec("UPDATE item SET price = 2 WHERE id = 'a'");
    assert_eq!(s.rows("SELECT cid, val, col_version FROM crsql_changes WHERE cid = 'price'"), ["'price'|2.0r|1"]);
}

#[test]
fn a_table_that_alter_cannot_change_is_made_anew_with_its_rows_and_triggers() {
    let s = site();
    s.exec("CREATE TABLE seen(id); CREATE TRIGGER note AFTER INSERT ON item BEGIN INSERT INTO seen VALUES(new.id); END; CREATE VIEW named AS SELECT name FROM item");
    migrate(
        &s,
        "CREATE TABLE item(name TEXT NOT NULL DEFAULT '', id TEXT NOT NULL PRIMARY KEY, CHECK (name <> 'no')) WITHOUT ROWID; \
         CREATE TABLE plain(a INTEGER PRIMARY KEY, b TEXT); CREATE TABLE seen(id); SELECT crsql_as_crr('item')",
    );
    assert_eq!(s.rows("SELECT * FROM item ORDER BY id"), ["'x'|'a'", "'y'|'b'"]);
    assert_eq!(s.rows("SELECT * FROM plain"), ["1|'2'"]);
    s.exec("INSERT INTO item VALUES('n', 'c')");
    assert_eq!(s.rows("SELECT id FROM seen"), ["'c'"]);
    assert_eq!(s.rows("SELECT name FROM named ORDER BY 1"), ["'n'", "'x'", "'y'"]);
    assert_eq!(
        s.rows("SELECT cid, val, col_version FROM crsql_changes ORDER BY val"),
        ["'name'|'n'|1", "'name'|'x'|1", "'name'|'y'|1"]
    );
    assert!(s.refused("INSERT INTO item VALUES('no', 'd')").contains("CHECK"));
}

#[test]
fn tables_that_the_schema_does_not_name_go_and_plain_ones_become_crrs() {
    let s = site();
    migrate(&s, "CREATE TABLE plain(a INTEGER PRIMARY KEY, b); SELECT crsql_as_crr('plain')");
    assert_eq!(s.rows("SELECT [table], cid, val FROM crsql_changes"), ["'plain'|'b'|2"]);
    assert!(s.refused("SELECT * FROM item").contains("no such table"));
}

#[test]
fn replicas_that_migrate_one_after_the_other_meet() {
    let (x, y) = (site(), site());
    x.pull(&y);
    y.pull(&x);
    let second = "CREATE TABLE item(id TEXT NOT NULL PRIMARY KEY, name TEXT, tag TEXT); SELECT crsql_as_crr('item')";
    migrate(&x, second);
    x.exec("UPDATE item SET tag = 't'; INSERT INTO item VALUES('c', 'n', 'u')");
    y.exec("UPDATE item SET name = 'from y'");
    y.pull(&x);
    migrate(&y, second);
    for _ in 0..2 {
        x.pull(&y);
        y.pull(&x);
    }
    assert_eq!(x.rows("SELECT * FROM item ORDER BY id"), y.rows("SELECT * FROM item ORDER BY id"));
    assert_eq!(x.changes(), y.changes());
    assert_eq!(y.rows("SELECT tag FROM item ORDER BY id"), ["'t'", "'t'", "'u'"]);
}

#[test]
fn what_cannot_be_done_is_said_and_nothing_has_changed() {
    let s = site();
    s.exec("CREATE TABLE child(id INTEGER PRIMARY KEY, p REFERENCES plain(a) ON DELETE CASCADE); PRAGMA foreign_keys = ON; INSERT INTO child VALUES(1, 1)");
    let state =
        || (s.rows("SELECT name, sql FROM sqlite_master ORDER BY name"), s.rows("SELECT * FROM child, item, plain"));
    let before = state();
    let rest = "CREATE TABLE item(id TEXT NOT NULL PRIMARY KEY, name TEXT, \"left over\" INTEGER); \
                CREATE TABLE child(id INTEGER PRIMARY KEY, p REFERENCES plain(a) ON DELETE CASCADE);";
    for (schema, reason) in [
        ("CREATE TABLE nonsense(".to_string(), "the schema:"),
        (format!("{rest} CREATE TABLE plain(a INTEGER PRIMARY KEY, b TEXT)"), "foreign_keys"),
        ("CREATE TABLE item(id TEXT NOT NULL PRIMARY KEY, name TEXT, n NOT NULL)".to_string(), "NOT NULL"),
        ("CREATE TABLE item(id TEXT, name TEXT NOT NULL, PRIMARY KEY(id, name))".to_string(), "may be NULL"),
    ] {
        let message = refused(&s, &schema);
        assert!(message.contains(reason), "{schema}: {message}");
        assert!(state() == before, "{schema} left something");
    }
    let cleanup =
        s.db.query_row("SELECT crsql_automigrate(?1, 'DELETE FROM nothing')", [FIRST], |r| r.get::<_, String>(0));
    assert!(cleanup.is_err() && state() == before);
    assert!(s.refused("SELECT crsql_automigrate(1)").contains("must be text"));
}

#[test]
fn a_cleanup_runs_after_the_migration_within_the_same_transaction() {
    let s = site();
    let cleanup = "DELETE FROM item WHERE id = 'a'; UPDATE item SET name = 'clean'";
    s.db.query_row("SELECT crsql_automigrate(?1, ?2)", [FIRST, cleanup], |_| Ok(())).expect("it migrates");
    assert_eq!(s.rows("SELECT id, name FROM item"), ["'b'|'clean'"]);
}

#[test]
fn what_a_text_undoes_or_writes_to_tables_that_it_does_not_leave_never_reaches_the_rows() {
    let t = "CREATE TABLE t(id INTEGER PRIMARY KEY, v)";
    for text in [
        format!("{t};; BEGIN; DELETE FROM t;; ROLLBACK;"),
        format!("{t}; SAVEPOINT s; DELETE FROM t; ROLLBACK TO s; RELEASE s"),
        format!("CREATE TABLE t(x); INSERT INTO t VALUES(1); DELETE FROM t; DROP TABLE t; {t}"),
        format!("CREATE TABLE h(x); INSERT INTO h VALUES(1); DROP TABLE h; {t}"),
        format!("CREATE TEMP TABLE h(x); INSERT INTO h VALUES(1); {t}; INSERT INTO t SELECT x, x FROM h"),
        "CREATE TABLE n(id INTEGER PRIMARY KEY, v); INSERT INTO n VALUES(9, 9); ALTER TABLE n RENAME TO t".to_string(),
        format!("{t}; DELETE FROM crsql_table; DELETE FROM crsql_record"),
    ] {
        let s = Site::memory().with(&[("t", t)]);
        s.exec("INSERT INTO t VALUES(1, 'mine')");
        s.exec(&format!("SELECT crsql_automigrate('{text}')"));
        assert_eq!(s.rows("SELECT * FROM t"), ["1|'mine'"], "{text}");
    }
    let s = Site::memory();
    s.exec(&format!(
        "SELECT crsql_automigrate('{t};; INSERT INTO \"main\".t VALUES(1, 2);; PRAGMA user_version = 7;')"
    ));
    assert_eq!((s.rows("SELECT * FROM t"), s.one::<i64>("PRAGMA user_version")), (vec!["1|2".to_string()], 7));
}
