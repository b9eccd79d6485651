//! Tables that cannot be CRRs, files that are not ours, writes without the extension: refused with reason and remedy.

use starling_tests::site::Site;

#[test]
fn a_table_that_cannot_be_a_crr_is_refused_with_the_reason_and_left_untouched() {
    let cases = [
        ("CREATE TABLE t(a, b)", "no primary key"),
        ("CREATE TABLE t(a TEXT PRIMARY KEY, b)", "NOT NULL"),
        ("CREATE TABLE t(id INTEGER PRIMARY KEY AUTOINCREMENT, b)", "AUTOINCREMENT"),
        ("CREATE TABLE t(id INTEGER PRIMARY KEY, b UNIQUE)", "UNIQUE"),
        ("CREATE TABLE t(id INTEGER PRIMARY KEY, b REFERENCES t(id))", "foreign key"),
        ("CREATE TABLE t(id TEXT NOT NULL COLLATE NOCASE PRIMARY KEY, b)", "collation"),
        ("CREATE TABLE t(id TEXT NOT NULL COLLATE NOCASE, b, PRIMARY KEY(id COLLATE BINARY))", "collation NOCASE"),
        ("CREATE TABLE t(id TEXT COLLATE RTRIM, b, PRIMARY KEY(id COLLATE BINARY)) WITHOUT ROWID", "collation RTRIM"),
        ("CREATE TABLE t(id TEXT NOT NULL, b, PRIMARY KEY(id COLLATE NOCASE))", "collation NOCASE"),
        ("CREATE VIRTUAL TABLE t USING fts5(a)", "virtual"),
        ("CREATE VIEW t AS SELECT 1 AS id", "no such table: t: it is a view"),
        ("CREATE TEMP TABLE t(id INTEGER PRIMARY KEY)", "no such table: t: it is a temporary table"),
    ];
    for (sql, reason) in cases {
        let s = Site::memory();
        s.exec(sql);
        let schema = s.rows("SELECT name, sql FROM sqlite_master ORDER BY rowid");
        let message = s.refused("SELECT crsql_as_crr('t')");
        assert!(message.contains(reason), "{sql}: {message}");
        assert_eq!(s.rows("SELECT name, sql FROM sqlite_master ORDER BY rowid"), schema, "{sql}: something was left");
        assert_eq!(s.one::<i64>("SELECT crsql_db_version()"), 0);
    }
    let s = Site::memory();
    s.exec("CREATE VIRTUAL TABLE t USING fts5(a)");
    assert!(s.refused("SELECT crsql_as_crr('t_content')").contains("it belongs to a virtual table"));
    assert!(Site::memory().refused("SELECT crsql_as_crr('missing')").contains("no such table"));
    assert!(Site::memory().refused("SELECT crsql_as_crr(NULL)").contains("must be text"));
}

#[test]
fn names_with_quotes_commas_and_keywords_work() {
    let s = Site::memory();
    s.exec("CREATE TABLE \"o'dd, \"\"na-me ü\"(\"key\" TEXT NOT NULL, \"rowid\" INT NOT NULL, \"table\", \"{key_slots}\", PRIMARY KEY(\"key\", \"rowid\"))");
    s.db.query_row("SELECT crsql_as_crr(?1)", ["o'dd, \"na-me ü"], |_| Ok(())).expect("it can be a CRR");
    s.exec("INSERT INTO \"o'dd, \"\"na-me ü\" VALUES('a', 1, 2, 3); UPDATE \"o'dd, \"\"na-me ü\" SET \"table\" = 9");
    assert_eq!(s.rows("SELECT cid, val FROM crsql_changes ORDER BY cid"), ["'table'|9", "'{key_slots}'|3"]);
}

#[test]
fn an_untyped_key_that_equals_an_integer_is_refused_where_replicas_would_disagree() {
    let s = Site::memory().with(&[
        ("u", "CREATE TABLE u(id NOT NULL PRIMARY KEY, a)"),
        ("r", "CREATE TABLE r(id REAL NOT NULL PRIMARY KEY, a)"),
    ]);
    s.exec("INSERT INTO u VALUES(1, 'x'), ('1', 'y'), (x'31', 'z'), (1.5, 'w')");
    assert!(s.refused("INSERT INTO u VALUES(2.0, 'x')").contains("REAL key"));
    assert_eq!(s.one::<i64>("SELECT count(*) FROM u"), 4);
    s.exec("INSERT INTO r VALUES(2.0, 'x'), (-0.0, 'y')");
    assert_eq!(s.changes().len(), 6);
}

#[test]
fn a_utf16_database_is_refused() {
    let s = Site::memory();
    s.exec("PRAGMA encoding = 'UTF-16'");
    let s16 = s;
    // The internal tables may have fixed the encoding already: then it stays UTF-8, and works.
    if s16.one::<String>("PRAGMA encoding") != "UTF-8" {
        s16.exec("CREATE TABLE t(id INTEGER PRIMARY KEY)");
        assert!(s16.refused("SELECT crsql_as_crr('t')").contains("UTF-16"));
    }
}

#[test]
fn a_newer_format_is_refused_with_what_to_do() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("a.db");
    let s = Site::file(&path).with(&[("t", "CREATE TABLE t(id INTEGER PRIMARY KEY, a)")]);
    s.exec("UPDATE crsql_master SET value = 99 WHERE key = 'starling.least_writer'");
    drop(s);
    let s = Site::file(&path);
    assert!(s.refused("INSERT INTO t VALUES(1, 2)").contains("newer starling.so"));
    assert!(s.refused("SELECT crsql_site_id()").contains("newer starling.so"));
}

#[test]
fn a_file_of_cr_sqlite_is_recognised_and_refused() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("a.db");
    let plain = dir.path().join("plain.sql");
    std::fs::write(&plain, "CREATE TABLE crsql_site_id(site_id BLOB NOT NULL, ordinal INTEGER PRIMARY KEY);")
        .expect("it writes");
    let made = std::process::Command::new("sqlite3").arg(&path).arg(format!(".read '{}'", plain.display())).status();
    if !made.is_ok_and(|s| s.success()) {
        println!("skipped: no sqlite3 shell here");
        return;
    }
    let s = Site::file(&path);
    s.exec("CREATE TABLE t(id INTEGER PRIMARY KEY, a)");
    // Nor is it taken for a file in which nothing has happened yet.
    for sql in ["SELECT crsql_as_crr('t')", "SELECT crsql_db_version()", "SELECT * FROM crsql_changes"] {
        assert!(s.refused(sql).contains("cr-sqlite"), "{sql}");
    }
}

#[test]
fn i5_a_write_without_the_extension_is_refused_with_an_error_that_names_the_remedy() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("a.db");
    drop(Site::file(&path).with(&[("t", "CREATE TABLE t(id INTEGER PRIMARY KEY, a)")]));
    for sql in ["INSERT INTO t VALUES(1, 2)", "UPDATE t SET a = 1", "DELETE FROM t"] {
        let Ok(out) = std::process::Command::new("sqlite3").arg(&path).arg(sql).output() else {
            println!("skipped: no sqlite3 shell here");
            return;
        };
        let message = String::from_utf8_lossy(&out.stderr).into_owned();
        assert!(message.contains("load_starling_so"), "{message}");
    }
    assert_eq!(Site::file(&path).one::<i64>("SELECT count(*) FROM t"), 0);
}

#[test]
fn updates_and_deletes_of_crsql_changes_and_malformed_values_are_errors_that_say_which() {
    let s = Site::memory().with(&[("t", "CREATE TABLE t(id INTEGER PRIMARY KEY, a)")]);
    s.exec("INSERT INTO t VALUES(1, 2)");
    assert!(s.refused("UPDATE crsql_changes SET val = 3").contains("UPDATE"));
    assert!(s.refused("DELETE FROM crsql_changes").contains("DELETE"));
    let nine =
        |pk: &str, site: &str| format!("INSERT INTO crsql_changes VALUES('t', {pk}, 'a', 1, 1, 1, {site}, 1, 0)");
    assert!(s.refused(&nine("x'01'", "x'01'")).contains("pk"));
    assert!(s.refused(&nine("x'0109'", "x'01'")).contains("pk"));
    assert!(s.refused(&nine("'text'", "x'01'")).contains("pk"));
    assert!(s.refused(&nine("crsql_pack_columns(5)", "zeroblob(17)")).contains("site_id"));
    let cl_0 = "INSERT INTO crsql_changes VALUES('t', crsql_pack_columns(5), 'a', 1, 1, 1, x'01', 0, 0)";
    assert!(s.refused(cl_0).contains("cl is 0"), "no replica would take such a row from us");
    assert!(s.refused("SELECT crsql_config_set('nonsense', 1)").contains("unknown setting"));
}

#[test]
fn a_key_that_lost_its_not_null_behind_our_back_takes_no_null_and_stops_nothing() {
    for key in ["k TEXT NOT NULL PRIMARY KEY, l TEXT", "k TEXT NOT NULL, l TEXT NOT NULL, PRIMARY KEY(k, l)"] {
        let (s, peer) = (Site::memory(), Site::memory());
        for site in [&s, &peer] {
            let (columns, rest) = key.split_once(", ").expect("two");
            site.exec(&format!("CREATE TABLE t({columns}, a, {rest})"));
            site.one::<String>("SELECT crsql_as_crr('t')");
        }
        s.exec("INSERT INTO t(k, l, a) VALUES('one', 'x', 1)");
        s.exec(
            "PRAGMA writable_schema = ON; UPDATE sqlite_master SET sql = replace(sql, 'NOT NULL', '') WHERE name = 't'; \
             PRAGMA writable_schema = RESET",
        );
        let message = s.refused("INSERT INTO t(k, l, a) VALUES(NULL, 'x', 2)");
        assert!(message.contains("make the column NOT NULL again"), "{message}");
        assert!(s.refused("UPDATE t SET k = NULL").contains("is NULL"));
        s.exec("INSERT INTO t(k, l, a) VALUES('two', 'x', 2)");
        assert_eq!(s.rows("SELECT k, a FROM t ORDER BY k"), ["'one'|1", "'two'|2"]);
        // One that came to be without us can go.
        s.db.set_db_config(rusqlite::config::DbConfig::SQLITE_DBCONFIG_ENABLE_TRIGGER, false).expect("a setting");
        s.exec("INSERT INTO t(k, l, a) VALUES(NULL, 'x', 3)");
        s.db.set_db_config(rusqlite::config::DbConfig::SQLITE_DBCONFIG_ENABLE_TRIGGER, true).expect("a setting");
        assert!(s.refused("UPDATE t SET a = 4 WHERE k IS NULL").contains("is NULL"));
        s.exec("DELETE FROM t WHERE k IS NULL");
        peer.pull(&s);
        assert_eq!(
            (peer.rows("SELECT * FROM t ORDER BY k"), peer.changes()),
            (s.rows("SELECT * FROM t ORDER BY k"), s.changes())
        );
    }
}
