//! What users do to a database that nobody asked for: renames, rolled back settings, odd versions, odd types. Each is a
//! mistake that was made once.

use starling_tests::site::Site;

const T: (&str, &str) = ("t", "CREATE TABLE t(id TEXT NOT NULL PRIMARY KEY, a, b)");

fn site() -> Site {
    Site::memory().with(&[T])
}

fn next_version(s: &Site) -> i64 {
    s.one("SELECT crsql_db_version()")
}

#[test]
fn a_key_update_onto_a_taken_key_under_a_replacing_schema_wins_on_peers_too() {
    let table = ("r", "CREATE TABLE r(id INTEGER NOT NULL PRIMARY KEY ON CONFLICT REPLACE, a, b)");
    let (x, y) = (Site::memory().with(&[table]), Site::memory().with(&[table]));
    x.exec("INSERT INTO r VALUES(1, 'moves', 'small'), (2, 'stays', 'zzz')");
    y.pull(&x);
    x.exec("UPDATE r SET id = 2 WHERE id = 1");
    y.pull(&x);
    assert_eq!(x.rows("SELECT * FROM r"), ["2|'moves'|'small'"]);
    assert_eq!(y.rows("SELECT * FROM r"), x.rows("SELECT * FROM r"));
    assert_eq!(x.changes(), y.changes());
}

#[test]
fn a_real_merged_into_a_text_column_is_taken_once() {
    let table = ("r", "CREATE TABLE r(id INTEGER NOT NULL PRIMARY KEY, a TEXT)");
    let s = Site::memory().with(&[table]);
    for value in ["1.5", "1e300", "0.1", "123456789012345.678"] {
        let sql =
            format!("INSERT INTO crsql_changes VALUES('r', crsql_pack_columns(1), 'a', {value}, 1, 1, x'01', 1, 0)");
        s.exec("DELETE FROM r");
        let s = Site::memory().with(&[table]);
        for _ in 0..3 {
            s.exec(&sql);
        }
        assert_eq!(next_version(&s), 1, "{value} wins over itself");
        assert_eq!(s.rows("SELECT a = CAST(a AS TEXT), typeof(a) FROM r"), ["1|'text'"]);
    }
}

#[test]
fn a_renamed_table_goes_on_under_its_new_name() {
    let (x, y) = (site(), site());
    x.exec("INSERT INTO t VALUES('k', 1, 1)");
    y.pull(&x);
    x.exec("ALTER TABLE t RENAME TO u");
    x.exec("INSERT INTO u VALUES('l', 2, 2); UPDATE u SET a = 9 WHERE id = 'k'");
    assert_eq!(
        x.rows("SELECT DISTINCT [table] FROM crsql_changes"),
        ["'u'"],
        "what was written before and after is one table"
    );
    // The peer goes on under the name that it knows: what it writes arrives here.
    y.exec("INSERT INTO t VALUES('m', 3, 3)");
    x.pull(&y);
    assert_eq!(x.rows("SELECT id FROM u ORDER BY id"), ["'k'", "'l'", "'m'"]);
    // What it does not know is kept aside until it renames too.
    y.pull(&x);
    assert_eq!(y.rows("SELECT id FROM t ORDER BY id"), ["'k'", "'m'"]);
    y.exec("ALTER TABLE t RENAME TO u; SELECT 1");
    y.one::<i64>("SELECT starling_resume()");
    x.one::<i64>("SELECT starling_resume()");
    assert_eq!(y.rows("SELECT * FROM u ORDER BY id"), x.rows("SELECT * FROM u ORDER BY id"));
    x.pull(&y);
    y.pull(&x);
    assert_eq!(x.changes(), y.changes());
    // Calling it again is harmless, and finds the renamed table.
    x.one::<String>("SELECT crsql_as_crr('u')");
    assert_eq!(x.changes(), y.changes());
}

#[test]
fn arming_a_table_leaves_the_triggers_of_another_alone() {
    let s = site();
    s.exec("CREATE TABLE t__crsql_x(id INTEGER NOT NULL PRIMARY KEY, a)");
    s.one::<String>("SELECT crsql_as_crr('t__crsql_x')");
    let triggers = "SELECT count(*) FROM sqlite_master WHERE type = 'trigger' AND tbl_name = 't__crsql_x'";
    let before: i64 = s.one(triggers);
    s.one::<String>("SELECT crsql_as_table('t')");
    s.one::<String>("SELECT crsql_as_crr('t')");
    assert!(before > 0);
    assert_eq!(s.one::<i64>(triggers), before);
}

#[test]
fn a_requested_version_counts_from_the_first_write_on_and_an_absurd_one_is_refused() {
    let s = site();
    s.exec("BEGIN; SELECT crsql_next_db_version(100)");
    assert_eq!(s.one::<i64>("SELECT crsql_next_db_version(100)"), 100);
    s.exec("INSERT INTO t VALUES('k', 1, 1); COMMIT");
    assert_eq!(next_version(&s), 100);
    s.exec("BEGIN");
    let refused = s.refused("SELECT crsql_next_db_version(9223372036854775807)");
    assert!(refused.contains("too far"), "{refused}");
    s.exec("INSERT INTO t VALUES('l', 1, 1); COMMIT");
    assert_eq!(next_version(&s), 101, "the transaction goes on as if nothing had been asked");
}

#[test]
fn what_a_rolled_back_transaction_set_or_made_is_not_believed() {
    let s = site();
    s.exec("BEGIN; SELECT crsql_config_set('merge-equal-values', 1); ROLLBACK");
    assert_eq!(s.one::<i64>("SELECT crsql_config_get('merge-equal-values')"), 0);
    s.exec("SAVEPOINT a; SELECT crsql_config_set('merge-equal-values', 1); ROLLBACK TO a; RELEASE a");
    assert_eq!(s.one::<i64>("SELECT crsql_config_get('merge-equal-values')"), 0);

    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("a.db");
    let keeper = starling_tests::site::open(&path).expect("it opens");
    // Another connection holds the write lock while this one opens: the internal tables cannot be made yet.
    let s = {
        keeper.execute_batch("BEGIN EXCLUSIVE").expect("a lock");
        let db = starling_tests::site::open(&path).expect("it opens");
        keeper.execute_batch("COMMIT").expect("unlocked");
        Site { db }
    };
    s.exec("CREATE TABLE t(id TEXT NOT NULL PRIMARY KEY, a, b); BEGIN");
    s.one::<String>("SELECT crsql_as_crr('t')");
    s.exec("ROLLBACK");
    s.one::<String>("SELECT crsql_as_crr('t')");
    s.exec("INSERT INTO t VALUES('k', 1, 1)");
    assert_eq!(next_version(&s), 1);
}

#[test]
fn a_check_of_a_vector_writes_nothing() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("a.db");
    Site::file(&path).with(&[T]).exec("INSERT INTO t VALUES('k', 1, 1)");
    let other = site();
    other.exec("INSERT INTO t VALUES('l', 1, 1)");
    let reader = starling_tests::site::open_with(&path, rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY)
        .expect("it opens for reading");
    let verdict: Option<String> =
        reader.query_row("SELECT starling_check(?1)", [other.vector()], |r| r.get(0)).expect("it only reads");
    assert_eq!(verdict, None);
}

#[test]
fn names_that_differ_by_the_case_of_a_letter_beyond_ascii_are_two_tables() {
    let s = Site::memory();
    for name in ["Ü", "ü"] {
        s.exec(&format!("CREATE TABLE \"{name}\"(id INTEGER NOT NULL PRIMARY KEY, a)"));
        s.db.query_row("SELECT crsql_as_crr(?1)", [name], |_| Ok(())).expect("it can be a CRR");
    }
    let insert = |name: &str, id: i64| {
        let sql = "INSERT INTO crsql_changes VALUES(?1, crsql_pack_columns(?2), 'a', ?1, 1, 1, x'01', 1, 0)";
        s.db.execute(sql, rusqlite::params![name, id]).expect("it merges");
    };
    insert("ü", 1);
    insert("Ü", 2);
    assert_eq!(s.rows("SELECT * FROM \"Ü\""), ["2|'Ü'"]);
    assert_eq!(s.rows("SELECT * FROM \"ü\""), ["1|'ü'"]);
}

#[test]
fn changesets_can_be_asked_for_by_where_they_were_made() {
    let (x, y) = (site(), site());
    x.exec("INSERT INTO t VALUES('x', 1, 1)");
    y.exec("INSERT INTO t VALUES('y', 1, 1); INSERT INTO t VALUES('z', 1, 1)");
    x.pull(&y);
    let count = |filter: &str| -> i64 {
        x.one(&format!("SELECT count(*) FROM starling_changesets(NULL, NULL) WHERE {filter}"))
    };
    assert_eq!((count("local = 1"), count("local = 0"), count("1")), (1, 2, 3));
}

#[test]
fn a_part_is_cut_within_a_record_that_is_longer_than_a_part() {
    let (x, y) = (site(), site());
    x.exec(
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 60) \
         INSERT INTO t SELECT 'key' || i, randomblob(20000), i FROM n",
    );
    let (parts, _) = x.answer(&y.vector());
    assert!(parts.len() > 5, "1.2 MB came in {} parts", parts.len());
    assert!(parts.iter().all(|(part, _)| part.len() < 256 * 1024), "a part is far above its target");
    y.pull(&x);
    assert_eq!(x.changes(), y.changes());
}

#[test]
fn zero_over_zero_is_no_change() {
    let s = Site::memory().with(&[("u", "CREATE TABLE u(id INTEGER NOT NULL PRIMARY KEY, a)")]);
    s.exec("INSERT INTO u VALUES(1, 0.0)");
    s.exec("UPDATE u SET a = 0.0");
    assert_eq!(next_version(&s), 1);
    s.exec("UPDATE u SET a = -0.0");
    assert_eq!(next_version(&s), 2, "the other zero is another value where the column keeps it");
    s.exec("UPDATE u SET a = -0.0; UPDATE u SET a = 0");
    assert_eq!(next_version(&s), 3);
}

#[test]
fn a_close_that_was_refused_in_the_middle_of_a_transaction_loses_nothing_of_it() {
    let dir = tempfile::tempdir().expect("a directory");
    let s = Site::file(&dir.path().join("a.db")).with(&[T]);
    s.exec("BEGIN; INSERT INTO t VALUES('k', 1, 1)");
    {
        let mut reading = s.db.prepare("SELECT * FROM t").expect("it prepares");
        let mut rows = reading.query([]).expect("it runs");
        assert!(rows.next().expect("it steps").is_some());
        assert!(starling_tests::site::close_is_refused(&s.db));
    }
    s.exec("INSERT INTO t VALUES('l', 1, 1); COMMIT");
    assert_eq!(s.rows("SELECT DISTINCT pk = crsql_pack_columns('k'), db_version FROM crsql_changes"), ["1|1", "0|2"]);
    s.exec("INSERT INTO t VALUES('m', 1, 1)");
    assert_eq!(next_version(&s), 3);
}

#[test]
fn a_trigger_that_writes_another_column_of_the_merged_row_leaves_replicas_equal() {
    let (x, y) = (site(), site());
    x.exec("INSERT INTO t VALUES('k', 1, 'b')");
    y.pull(&x);
    y.exec(
        "CREATE TRIGGER stamp AFTER UPDATE OF a ON t BEGIN UPDATE t SET b = 'stamped by y' WHERE id = NEW.id; END; \
         CREATE TRIGGER fill AFTER INSERT ON t WHEN NEW.b IS NULL BEGIN UPDATE t SET b = 'filled by y' WHERE id = NEW.id; END",
    );
    x.exec("UPDATE t SET a = 2; INSERT INTO t(id, a) VALUES('l', 1)");
    for _ in 0..2 {
        y.pull(&x);
        x.pull(&y);
    }
    assert_eq!(y.rows("SELECT * FROM t ORDER BY id"), ["'k'|2|'b'", "'l'|1|NULL"]);
    assert_eq!(x.rows("SELECT * FROM t ORDER BY id"), y.rows("SELECT * FROM t ORDER BY id"));
    assert_eq!((x.changes(), x.vector()), (y.changes(), y.vector()));
    // What y itself writes is stamped, and travels.
    y.exec("UPDATE t SET a = 3 WHERE id = 'k'");
    x.pull(&y);
    assert_eq!(x.rows("SELECT b FROM t WHERE id = 'k'"), ["'stamped by y'"]);
}

#[test]
fn a_before_trigger_that_inserts_elsewhere_does_not_hide_an_overwritten_row() {
    let table = ("r", "CREATE TABLE r(id INTEGER NOT NULL PRIMARY KEY ON CONFLICT REPLACE, a, b)");
    let other = ("o", "CREATE TABLE o(id INTEGER NOT NULL PRIMARY KEY ON CONFLICT REPLACE, a)");
    let (x, y) = (Site::memory().with(&[table, other]), Site::memory().with(&[table, other]));
    for s in [&x, &y] {
        s.exec("CREATE TRIGGER also BEFORE INSERT ON r BEGIN INSERT INTO o VALUES(NEW.id, 'x'); END");
    }
    x.exec("INSERT INTO r VALUES(1, 'zzz', 'zzz')");
    y.pull(&x);
    x.exec("INSERT INTO r VALUES(1, 'aaa', 'aaa')");
    y.pull(&x);
    assert_eq!(y.rows("SELECT * FROM r"), ["1|'aaa'|'aaa'"]);
}

#[test]
fn a_table_that_a_migration_made_anew_is_found_again_however_often_one_looked_meanwhile() {
    for steps in [
        "CREATE TABLE n(id TEXT NOT NULL PRIMARY KEY, a, b, c); INSERT INTO n SELECT *, 'c' FROM t; DROP TABLE t; -- ; ALTER TABLE n RENAME TO t",
        "ALTER TABLE t RENAME TO old; -- ; CREATE TABLE t(id TEXT NOT NULL PRIMARY KEY, a, b, c); INSERT INTO t SELECT *, 'c' FROM old; DROP TABLE old; -- ; SELECT 1",
    ] {
        let s = site();
        s.exec("INSERT INTO t VALUES('k', 1, 1)");
        for step in steps.split("-- ;") {
            s.exec(step);
            s.one::<i64>("SELECT starling_resume()");
        }
        s.one::<i64>("SELECT starling_resume()");
        s.exec("UPDATE t SET a = 'captured'");
        assert_eq!(s.rows("SELECT cid, val FROM crsql_changes ORDER BY cid"), ["'a'|'captured'", "'b'|1", "'c'|'c'"]);
    }
}

#[test]
fn a_table_whose_key_changed_outside_begins_anew_and_is_announced() {
    let (x, y) = (site(), Site::memory().with(&[("t", "CREATE TABLE t(id, a, b, PRIMARY KEY(id, a)) WITHOUT ROWID")]));
    x.exec("INSERT INTO t VALUES('k', 1, 1); UPDATE t SET b = 2");
    x.exec(
        "CREATE TABLE n(id, a, b, PRIMARY KEY(id, a)) WITHOUT ROWID; INSERT INTO n SELECT * FROM t; DROP TABLE t; \
         ALTER TABLE n RENAME TO t",
    );
    x.one::<i64>("SELECT starling_resume()");
    x.exec("INSERT INTO t VALUES('k', 2, 3)");
    y.pull(&x);
    assert_eq!(y.rows("SELECT * FROM t ORDER BY a"), ["'k'|1|2", "'k'|2|3"]);
    assert_eq!(x.rows("SELECT count(*) FROM crsql_changes"), ["2"]);
}

#[test]
fn the_next_connection_arms_what_a_migration_has_disarmed() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("a.db");
    Site::file(&path).with(&[T]).exec("INSERT INTO t VALUES('k', 1, 1)");
    // As migration tools do it, without the extension: all triggers go with the old table.
    let tool = starling_tests::site::plain(&path);
    tool.execute_batch(
        "BEGIN; CREATE TABLE n(id TEXT NOT NULL PRIMARY KEY, a, b, c DEFAULT 'd'); INSERT INTO n(id, a, b) SELECT * FROM t; \
         DROP TABLE t; ALTER TABLE n RENAME TO t; COMMIT; UPDATE t SET a = 'while nobody looked'",
    )
    .expect("it migrates");
    let s = Site::file(&path);
    s.exec("UPDATE t SET b = 'captured'");
    assert_eq!(
        s.rows("SELECT cid, val FROM crsql_changes ORDER BY cid"),
        ["'a'|'while nobody looked'", "'b'|'captured'", "'c'|'d'"]
    );
}

#[test]
fn a_call_of_the_capturing_function_by_itself_is_refused_and_leaves_nothing() {
    let s = site();
    s.exec("INSERT INTO t VALUES('k', 1, 1)");
    let call: String = s.one(
        "SELECT substr(sql, instr(sql, 'SELECT '), instr(sql, ', 0, ') - instr(sql, 'SELECT ')) || ', 0, ''k'')' \
         FROM sqlite_master WHERE name = 't__crsql_delete'",
    );
    let before = (s.changes(), s.vector());
    assert!(s.refused(&call).contains("by triggers only"), "{call}");
    assert_eq!((s.changes(), s.vector()), before, "a read after it has written nothing");
    s.exec("INSERT INTO t VALUES('l', 1, 1)");
    assert_eq!(s.rows("SELECT count(*) FROM crsql_changes WHERE cid = '-1'"), ["0"]);
}

#[test]
fn two_rows_under_one_key_end_equal_also_where_the_key_says_replace() {
    let table = ("t", "CREATE TABLE t(id TEXT NOT NULL PRIMARY KEY ON CONFLICT REPLACE, v)");
    for nine_values in [false, true] {
        let (a, b) = (Site::memory().with(&[table]), Site::memory().with(&[table]));
        a.exec("INSERT INTO t VALUES('k', 'a')");
        b.exec("INSERT INTO t VALUES('k', 'b')");
        for (to, from) in [(&a, &b), (&b, &a)] {
            if nine_values {
                to.pull_nine(from, |_| {});
            } else {
                to.pull(from);
            }
        }
        for site in [&a, &b] {
            assert_eq!(site.rows("SELECT * FROM t"), ["'k'|'b'"]);
            assert_eq!(site.rows("SELECT cid, val, col_version, cl FROM crsql_changes"), ["'v'|'b'|1|1"]);
            starling_tests::ledger::check(site);
        }
    }
}

#[test]
fn what_a_temporary_trigger_makes_of_a_merged_row_is_undone_also_where_it_came_after_the_first_merge() {
    let table = ("t", "CREATE TABLE t(id INTEGER PRIMARY KEY, a, b)");
    let (from, to) = (Site::memory().with(&[table]), Site::memory().with(&[table]));
    from.exec("INSERT INTO t VALUES(1, 1, 1); UPDATE t SET a = 2");
    to.pull(&from);
    from.exec("UPDATE t SET a = 3");
    to.pull(&from);
    to.exec("CREATE TEMP TRIGGER late AFTER UPDATE OF a ON t BEGIN UPDATE t SET b = 'local' WHERE id = new.id; END");
    from.exec("UPDATE t SET a = 4");
    to.pull(&from);
    assert_eq!(to.rows("SELECT * FROM t"), ["1|4|1"]);
    from.pull(&to);
    assert_eq!(from.rows("SELECT * FROM t"), ["1|4|1"]);
    assert_eq!(to.changes(), from.changes());
}

#[test]
fn after_a_rollback_to_a_savepoint_temporary_triggers_are_looked_for_anew() {
    let s = Site::memory().with(&[("t", "CREATE TABLE t(id INTEGER PRIMARY KEY, a, b)")]);
    let cell = |version: i64| {
        format!("INSERT INTO crsql_changes VALUES('t', crsql_pack_columns(1), 'a', 7, {version}, 1, x'aa', 1, 0)")
    };
    s.exec("INSERT INTO t VALUES(1, 1, 1); CREATE TEMP TABLE before(x)");
    s.exec(&format!("BEGIN; SAVEPOINT s; CREATE TEMP TABLE other(x); {}; ROLLBACK TO s; COMMIT", cell(5)));
    // The temporary schema has the version again that it had when none was found.
    s.exec("CREATE TEMP TRIGGER late AFTER UPDATE OF a ON t BEGIN UPDATE t SET b = 'local' WHERE id = new.id; END");
    s.exec(&cell(5));
    assert_eq!(s.rows("SELECT * FROM t"), ["1|7|1"]);
}

#[test]
fn a_schema_version_that_comes_round_again_after_a_rollback_is_another_schema() {
    let cell = |value: i64, version: i64| {
        format!(
            "INSERT INTO crsql_changes VALUES('t', crsql_pack_columns('x'), 'a', {value}, {version}, 1, x'aa', 1, 0);"
        )
    };
    let touch = "CREATE TRIGGER touch AFTER UPDATE OF a ON t BEGIN UPDATE t SET b = 'trigger' WHERE id = NEW.id; END;";
    for (begin, back) in [("BEGIN; SAVEPOINT s;", "ROLLBACK TO s;"), ("BEGIN;", "ROLLBACK; BEGIN;")] {
        // What was looked up in the schema that went: that nobody has triggers on the table, and what its columns are called.
        let s = site();
        s.exec(&format!("INSERT INTO t VALUES('x', 1, 1); {begin} CREATE INDEX i ON t(a); {}", cell(2, 2)));
        s.exec(&format!("{back} {touch} {} COMMIT", cell(3, 3)));
        assert_eq!(s.rows("SELECT * FROM t"), ["'x'|3|1"], "{back}");
        let s = site();
        let other = "CREATE TABLE other(x); INSERT INTO other VALUES(1), (2)";
        s.exec(&format!("INSERT INTO t VALUES('x', 1, 1); {begin} {other}"));
        assert_eq!(s.one::<i64>("SELECT count(*) FROM crsql_changes"), 2);
        assert_eq!(s.one::<i64>("SELECT last_insert_rowid()"), 2, "{back}");
        s.exec(&format!("{back} ALTER TABLE t RENAME COLUMN a TO a2;"));
        assert_eq!(s.rows("SELECT cid, val FROM crsql_changes"), ["'a2'|1", "'b'|1"], "{back}");
        s.exec("UPDATE t SET a2 = 5; COMMIT");
        assert_eq!(s.rows("SELECT cid, val, col_version FROM crsql_changes"), ["'b'|1|1", "'a2'|5|2"], "{back}");
    }
}

#[test]
fn a_later_lifetime_that_is_refused_stops_nothing_else_whoever_looks_on() {
    let t = |rest: &str| format!("CREATE TABLE t(id INTEGER PRIMARY KEY, x {rest}, y, z)");
    let o = ("o", "CREATE TABLE o(id INTEGER PRIMARY KEY, v)");
    let looks_on = [
        ("SELECT 1", "2, 3", ""),
        ("SELECT 1", "NULL, 3", ""),
        ("CREATE TRIGGER u AFTER UPDATE OF z ON t BEGIN SELECT 1; END", "2, 3", ""),
        ("SELECT 1", "2, 3", ", 'portable'"),
    ];
    for (trigger, new, way) in looks_on {
        let (a, b) = (Site::memory().with(&[("t", &t("")), o]), Site::memory().with(&[o]));
        // Of the new lifetime a column is missing, so that its defaults count.
        b.exec(&t("CHECK(x IS NULL OR x < 10), w DEFAULT 4"));
        b.one::<String>(&format!("SELECT crsql_as_crr('t'{way})"));
        b.db.execute_batch(trigger).expect("it runs");
        a.exec("INSERT INTO t VALUES(1, 1, 1, 1)");
        b.pull(&a);
        a.exec(&format!("DELETE FROM t; INSERT INTO t VALUES(1, 50, {new}); INSERT INTO o VALUES(1, 'more')"));
        b.pull(&a);
        assert_eq!(b.rows("SELECT * FROM t"), ["1|1|4|1|1"], "{trigger} {new} {way}");
        assert_eq!(b.rows("SELECT * FROM o"), ["1|'more'"]);
        assert!(b.one::<i64>("SELECT starling_aside()") > 0);
        let last = Site::memory().with(&[("t", &t("")), o]);
        last.pull(&b);
        assert_eq!((last.rows("SELECT * FROM t"), last.changes()), (a.rows("SELECT * FROM t"), a.changes()));
    }
}

#[test]
fn what_is_merged_while_triggers_are_off_is_logged_all_the_same() {
    let table = ("t", "CREATE TABLE t(id INTEGER PRIMARY KEY, a, b DEFAULT 'd')");
    let from = Site::memory().with(&[table]);
    from.exec("INSERT INTO t VALUES(1, 'A', 'B'), (2, 'A', 'B'); UPDATE t SET a = 'C' WHERE id = 2");
    for nine_values in [false, true] {
        let (to, last) = (Site::memory().with(&[table]), Site::memory().with(&[table]));
        let switch = rusqlite::config::DbConfig::SQLITE_DBCONFIG_ENABLE_TRIGGER;
        to.db.set_db_config(switch, false).expect("triggers can be switched off");
        if nine_values {
            to.pull_nine(&from, |_| {});
        } else {
            to.pull(&from);
        }
        assert!(!to.db.db_config(switch).expect("it is there"), "they are still off");
        assert_eq!((to.rows("SELECT * FROM t"), to.changes()), (from.rows("SELECT * FROM t"), from.changes()));
        last.pull(&to);
        assert_eq!(last.changes(), from.changes());
    }
}

#[test]
fn a_table_that_is_written_and_dropped_in_one_transaction_is_in_nobodys_way() {
    for rest in [
        "CREATE TABLE u(id INTEGER PRIMARY KEY, a); SELECT crsql_as_crr('u'); INSERT INTO u VALUES(1, 'z')",
        "SAVEPOINT s; ROLLBACK TO s",
        "SELECT crsql_begin_alter('o'); ALTER TABLE o ADD COLUMN n; SELECT crsql_commit_alter('o')",
        "SELECT count(*) FROM crsql_changes; INSERT INTO o VALUES(1, 2)",
    ] {
        let site = Site::memory().with(&[
            ("t", "CREATE TABLE t(id INTEGER PRIMARY KEY, a)"),
            ("o", "CREATE TABLE o(id INTEGER PRIMARY KEY, a)"),
        ]);
        site.exec("INSERT INTO t VALUES(1, 'x'); BEGIN; UPDATE t SET a = 'y'; DROP TABLE t");
        site.exec(rest);
        site.exec("COMMIT");
        assert_eq!(site.one::<i64>("SELECT count(*) FROM sqlite_master WHERE name = 't'"), 0, "{rest}");
        site.exec("INSERT INTO o(id, a) VALUES(7, 'goes on')");
        let peer = Site::memory().with(&[("o", "CREATE TABLE o(id INTEGER PRIMARY KEY, a)")]);
        peer.pull(&site);
        assert_eq!(peer.rows("SELECT id, a FROM o WHERE id = 7"), ["7|'goes on'"], "{rest}");
    }
}
