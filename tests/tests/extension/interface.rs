//! The SQL interface that programs rely on.

use rusqlite::types::Value;
use rusqlite::StatementStatus;
use starling_tests::site::Site;

#[test]
fn columns_orders_and_filters_of_crsql_changes_are_as_documented() {
    let s = Site::memory().with(&[
        ("t", "CREATE TABLE t(id INTEGER PRIMARY KEY, a, b)"),
        ("k", "CREATE TABLE k(id INTEGER PRIMARY KEY)"),
    ]);
    s.exec("INSERT INTO t VALUES(1, 'x', 2); INSERT INTO k VALUES(7); UPDATE t SET a = 'y'; DELETE FROM k");
    let stmt = s.db.prepare("SELECT * FROM crsql_changes").expect("it prepares");
    let names: Vec<String> = stmt.column_names().map(ToString::to_string).collect();
    assert_eq!(names, ["table", "pk", "cid", "val", "col_version", "db_version", "site_id", "cl", "seq"]);
    let all = ["'t'|'b'|1", "'t'|'a'|3", "'k'|'-1'|4"];
    let sql = |filter: &str| format!("SELECT [table], cid, db_version FROM crsql_changes WHERE {filter}");
    assert_eq!(s.rows(&sql("1")), all);
    for (filter, from, to) in [
        ("db_version > 1", 1, 3),
        ("db_version >= 3", 1, 3),
        ("db_version = 3", 1, 2),
        ("db_version < 4", 0, 2),
        ("db_version <= 1", 0, 1),
        ("db_version IS 4", 2, 3),
        ("db_version BETWEEN 2 AND 3", 1, 2),
        ("db_version > '9'", 0, 0),
        ("db_version > -1", 0, 3),
        ("db_version = -1", 0, 0),
        ("db_version > 1.5", 1, 3),
        ("db_version = NULL", 0, 0),
        ("site_id = crsql_site_id()", 0, 3),
        ("site_id IS NOT crsql_site_id()", 0, 0),
        ("site_id != x'00'", 0, 3),
        ("[table] = 't'", 0, 2),
        ("cid = '-1'", 2, 3),
        ("val = 'y'", 1, 2),
        ("cl = 2", 2, 3),
        ("col_version = 2", 1, 3),
        ("seq = 1", 0, 1),
        ("pk = crsql_pack_columns(1)", 0, 2),
    ] {
        assert_eq!(s.rows(&sql(filter)), all[from..to], "{filter}");
    }
    let reversed: Vec<&str> = all.iter().rev().copied().collect();
    assert_eq!(s.rows(&(sql("1") + " ORDER BY db_version DESC, seq DESC")), reversed);
    assert_eq!(s.rows("SELECT origin_version, commit_ms > 0 FROM crsql_changes"), ["1|1", "3|1", "4|1"]);
}

#[test]
fn values_keep_their_type_in_a_table_made_from_crsql_changes() {
    let s = Site::memory().with(&[("t", "CREATE TABLE t(id INTEGER PRIMARY KEY, a TEXT)")]);
    s.exec("INSERT INTO t VALUES(1, '007'); CREATE TABLE kept AS SELECT * FROM crsql_changes");
    s.exec("CREATE TABLE cells AS SELECT cell FROM crsql_unpack_columns(crsql_pack_columns('007'))");
    assert_eq!(s.rows("SELECT val FROM kept UNION ALL SELECT cell FROM cells"), ["'007'", "'007'"]);
}

#[test]
fn a_version_is_a_number_whatever_type_a_driver_binds_it_as() {
    // JavaScript's numbers are bound as REAL, the scalars of Perl and of PHP's PDO as TEXT.
    let from = Site::memory().with(&[("t", "CREATE TABLE t(id INTEGER PRIMARY KEY, a INTEGER)")]);
    for i in 0..100 {
        from.exec(&format!("INSERT INTO t VALUES({i}, {i})"));
    }
    let columns = "[table], pk, cid, val, CAST(col_version AS x) c, CAST(db_version AS x) d, site_id, CAST(cl AS x) l, CAST(seq AS x) s";
    for type_name in ["REAL", "TEXT"] {
        let to = Site::memory().with(&[("t", "CREATE TABLE t(id INTEGER PRIMARY KEY, a INTEGER)")]);
        let sql = format!("SELECT {} FROM crsql_changes", columns.replace("AS x", &format!("AS {type_name}")));
        let mut select = from.db.prepare(&sql).expect("it prepares");
        let mut rows = select.query([]).expect("it runs");
        let mut insert = to.db.prepare("INSERT INTO crsql_changes VALUES(?,?,?,?,?,?,?,?,?)").expect("it prepares");
        while let Some(row) = rows.next().expect("a row") {
            let values: Vec<Value> = (0..9).map(|i| row.get(i).expect("a value")).collect();
            insert.execute(rusqlite::params_from_iter(values)).unwrap_or_else(|e| panic!("{type_name}: {e}"));
        }
        assert_eq!(to.rows("SELECT * FROM crsql_changes"), from.rows("SELECT * FROM crsql_changes"), "{type_name}");

        // A filter is as cheap as with an INTEGER: rows below it are not even looked at.
        let steps = |bound: Value| {
            let mut select =
                from.db.prepare("SELECT count(*) FROM crsql_changes WHERE db_version > ?").expect("it prepares");
            assert_eq!(select.query_row([bound], |r| r.get::<_, i64>(0)).expect("a count"), 2);
            select.get_status(StatementStatus::VmStep)
        };
        let bound = if type_name == "REAL" { Value::Real(98.0) } else { Value::Text("98".to_string()) };
        assert_eq!(steps(bound), steps(Value::Integer(98)), "{type_name}");
        assert_eq!(
            from.one::<i64>(&format!("SELECT count(*) FROM starling_changesets(NULL, CAST(98 AS {type_name}))")),
            2
        );
        assert_eq!(from.one::<i64>(&format!("SELECT crsql_next_db_version(CAST(500 AS {type_name}))")), 500);
        assert_eq!(
            from.one::<i64>(&format!("SELECT crsql_config_set('merge-equal-values', CAST(0 AS {type_name}))")),
            0
        );
        from.one::<i64>(&format!("SELECT starling_prune(CAST(10 AS {type_name}))"));
    }
    let nine = |version: &str| {
        from.refused(&format!(
            "INSERT INTO crsql_changes VALUES('t', crsql_pack_columns(1), 'a', 5, {version}, 1, NULL, 1, 0)"
        ))
    };
    for wrong in ["1.5", "'1x'", "''", "NULL", "x'31'", "1e300"] {
        assert!(nine(wrong).contains("col_version must be an integer"), "{wrong}");
    }
    assert!(nine("-1.0").contains("negative"));
}

#[test]
fn versions_bits_and_counters_answer_as_documented() {
    let s = Site::memory().with(&[("t", "CREATE TABLE t(id INTEGER PRIMARY KEY, a)")]);
    assert_eq!(s.rows("SELECT crsql_db_version(), crsql_next_db_version(), crsql_next_db_version(7)"), ["0|1|7"]);
    s.exec("BEGIN; INSERT INTO t VALUES(1, 1)");
    assert_eq!(s.rows("SELECT crsql_db_version(), crsql_next_db_version()"), ["0|1"]);
    s.one::<i64>("SELECT count(*) FROM crsql_changes");
    assert_eq!(s.rows("SELECT crsql_db_version(), crsql_next_db_version()"), ["0|1"]);
    s.exec("COMMIT");
    assert_eq!(s.rows("SELECT crsql_db_version(), crsql_next_db_version()"), ["1|2"]);
    s.exec("CREATE TABLE seen(bit); CREATE TRIGGER b AFTER UPDATE ON t BEGIN INSERT INTO seen VALUES(crsql_internal_sync_bit()); END");
    s.exec("UPDATE t SET a = 2");
    s.exec("BEGIN; INSERT INTO crsql_changes VALUES('t', crsql_pack_columns(1), 'a', 9, 9, 1, x'01', 1, 0)");
    assert_eq!(s.rows("SELECT crsql_rows_impacted(), crsql_internal_sync_bit()"), ["1|0"]);
    s.exec("COMMIT");
    assert_eq!(s.rows("SELECT crsql_rows_impacted()"), ["0"]);
    assert_eq!(s.rows("SELECT bit FROM seen"), ["0", "1"]);
    assert_eq!(
        s.rows("SELECT crsql_config_set('merge-equal-values', 1), crsql_config_get('merge-equal-values')"),
        ["1|1"]
    );
    assert_eq!(s.rows("SELECT value FROM crsql_master WHERE key = 'config.merge-equal-values'"), ["1"]);
    assert!(s.one::<String>("SELECT crsql_finalize()").contains("finalized"));
    assert_eq!(s.one::<i64>("SELECT length(uuid7()) + length(uuid7_blob())"), 52);
}

#[test]
fn another_connections_commits_are_seen_at_once() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("a.db");
    let a = Site::file(&path).with(&[("t", "CREATE TABLE t(id INTEGER PRIMARY KEY, a)")]);
    let b = Site::file(&path);
    for i in 0..20 {
        let writer = if i % 2 == 0 { &a } else { &b };
        writer.exec(&format!("INSERT INTO t VALUES({i}, 1)"));
        assert_eq!(a.one::<i64>("SELECT crsql_db_version()"), i + 1);
        assert_eq!(b.one::<i64>("SELECT count(*) FROM crsql_changes"), i + 1);
    }
    b.exec("CREATE TABLE u(id INTEGER PRIMARY KEY, a)");
    b.one::<String>("SELECT crsql_as_crr('u')");
    a.exec("INSERT INTO u VALUES(1, 1)");
    assert_eq!(b.one::<i64>("SELECT count(*) FROM crsql_changes WHERE [table] = 'u'"), 1);
}

#[test]
fn a_row_is_recreated_by_a_cell_of_a_later_lifetime_alone() {
    let s = Site::memory().with(&[("t", "CREATE TABLE t(id INTEGER PRIMARY KEY, a, b)")]);
    s.exec("INSERT INTO t VALUES(1, 'old', 'old'); DELETE FROM t");
    s.exec("INSERT INTO crsql_changes VALUES('t', crsql_pack_columns(1), 'a', 'new', 1, 5, x'01', 3, 1)");
    assert_eq!(s.rows("SELECT * FROM t"), ["1|'new'|NULL"]);
    assert_eq!(s.rows("SELECT cid, cl FROM crsql_changes ORDER BY cid"), ["'-1'|3", "'a'|3"]);
    s.exec("INSERT INTO crsql_changes VALUES('t', crsql_pack_columns(1), '-1', NULL, 4, 6, x'01', 4, 0)");
    assert_eq!(s.rows("SELECT * FROM t"), [] as [&str; 0]);
}

#[test]
fn rows_that_were_there_before_get_the_next_version_and_doing_it_again_is_harmless() {
    let s = Site::memory();
    s.exec("CREATE TABLE t(id INTEGER PRIMARY KEY, a); INSERT INTO t VALUES(1, 'x'), (2, 'y')");
    for _ in 0..2 {
        assert_eq!(s.one::<String>("SELECT crsql_as_crr('main', 't')"), "OK");
    }
    assert_eq!(s.rows("SELECT cid, val, db_version, seq FROM crsql_changes"), ["'a'|'x'|1|0", "'a'|'y'|1|1"]);
}

#[test]
fn e7_e8_tables_rebuilt_or_altered_outside_are_armed_again() {
    let s = Site::memory().with(&[("t", "CREATE TABLE t(id INTEGER PRIMARY KEY, a)")]);
    s.exec("INSERT INTO t VALUES(1, 'x'), (2, 'y')");
    s.exec("BEGIN; CREATE TABLE new(id INTEGER PRIMARY KEY, a, b DEFAULT 'd'); INSERT INTO new(id, a) SELECT id, a FROM t WHERE id = 1");
    s.exec("DROP TABLE t; ALTER TABLE new RENAME TO t; INSERT INTO t VALUES(3, 'z', 'b'); COMMIT");
    s.one::<i64>("SELECT starling_resume()");
    s.exec("UPDATE t SET b = 'tracked' WHERE id = 1");
    let c = Site::memory().with(&[("t", "CREATE TABLE t(id INTEGER PRIMARY KEY, a, b DEFAULT 'd')")]);
    c.pull(&s);
    assert_eq!(c.rows("SELECT * FROM t ORDER BY id"), ["1|'x'|'tracked'", "3|'z'|'b'"]);
    assert_eq!(c.changes(), s.changes());
}

#[test]
fn a_plain_table_may_be_let_go_and_altered_as_if_it_were_a_crr() {
    let s = Site::memory();
    // Also before there is any CRR in the file.
    for table in ["first", "second"] {
        s.exec(&format!("CREATE TABLE {table}(id INTEGER PRIMARY KEY, a)"));
        for call in ["crsql_as_table", "crsql_begin_alter", "crsql_commit_alter"] {
            assert_eq!(s.rows(&format!("SELECT {call}('{table}')")), ["'OK'"]);
            assert!(s.refused(&format!("SELECT {call}('none')")).contains("no such table: none"));
        }
        assert!(s.db.is_autocommit());
        assert_eq!(s.rows(&format!("SELECT crsql_as_crr('{table}')")), ["'OK'"]);
    }
    assert!(s.refused("SELECT crsql_commit_alter('first')").contains("no window is open"));
}

#[test]
fn a_function_that_gets_too_few_or_too_many_arguments_says_so() {
    let s = Site::memory();
    for call in
        ["crsql_as_crr()", "crsql_begin_alter(1, 2, 3)", "crsql_next_db_version(1, 2)", "starling_forks()", "uuid7(1)"]
    {
        let name = call.split('(').next().unwrap_or_default();
        let told = s.refused(&format!("SELECT {call}"));
        assert!(told.contains(&format!("wrong number of arguments to function {name}()")), "{call}: {told}");
    }
}
