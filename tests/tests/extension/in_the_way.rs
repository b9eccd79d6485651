//! What stands in the way of a merged row by the schema's own rules of conflict: nothing is lost in silence.

use starling_tests::site::Site;

const PLAIN: &str = "CREATE TABLE t(id INTEGER PRIMARY KEY, a TEXT, b TEXT)";

fn site(sql: &str) -> Site {
    Site::memory().with(&[("t", sql)])
}

fn waiting(site: &Site) -> i64 {
    site.one("SELECT count(*) FROM crsql_pending")
}

/// One that has two rows, and no two with one `a` since.
fn with_a_unique_index() -> Site {
    let site = site(PLAIN);
    site.exec("CREATE UNIQUE INDEX ta ON t(a); INSERT INTO t VALUES(1, 'x', 'one'), (2, 'y', 'two')");
    site
}

#[test]
fn a_row_that_stands_in_the_way_in_another_unique_index_is_not_replaced_by_a_changeset() {
    let a = with_a_unique_index();
    let b = site(PLAIN);
    b.pull(&a);
    b.exec("DELETE FROM t WHERE id = 2; INSERT INTO t(id, a) VALUES(2, 'x')");
    // Of the cells some are not sent, as if the author had no such column: the row begins anew with its defaults.
    let c = site("CREATE TABLE t(id INTEGER PRIMARY KEY, a TEXT)");
    c.pull(&a);
    c.exec("DELETE FROM t WHERE id = 2; INSERT INTO t VALUES(2, 'x')");
    for other in [&b, &c] {
        a.pull(other);
        assert_eq!(a.rows("SELECT id, a FROM t WHERE id = 1"), ["1|'x'"], "it is there as it was");
        assert!(waiting(&a) > 0, "what does not fit waits");
    }
    a.exec("UPDATE t SET a = 'free' WHERE id = 1");
    a.exec("SELECT starling_mend()");
    assert_eq!(a.rows("SELECT id, a FROM t"), ["1|'free'", "2|'x'"]);
    assert_eq!(waiting(&a), 0);
}

#[test]
fn nor_by_a_cell_that_begins_a_lifetime() {
    let a = with_a_unique_index();
    let refused =
        a.refused("INSERT INTO crsql_changes VALUES('t', crsql_pack_columns(2), 'a', 'x', 1, 9, x'0b', 3, 0)");
    assert!(refused.contains("UNIQUE constraint failed: t.a"), "{refused}");
    assert_eq!(a.rows("SELECT * FROM t"), ["1|'x'|'one'", "2|'y'|'two'"]);
    a.exec("INSERT INTO crsql_changes VALUES('t', crsql_pack_columns(2), 'a', 'z', 1, 9, x'0b', 3, 0)");
    assert_eq!(a.rows("SELECT * FROM t"), ["1|'x'|'one'", "2|'z'|NULL"]);
}

#[test]
fn a_null_is_refused_whatever_the_schema_would_make_of_it() {
    for clause in
        ["", "ON CONFLICT IGNORE", "ON CONFLICT REPLACE DEFAULT 'zz'", "ON CONFLICT ROLLBACK", "ON CONFLICT FAIL"]
    {
        let (a, c) = (site(PLAIN), site(PLAIN));
        let b = site(&format!("CREATE TABLE t(id INTEGER PRIMARY KEY, a TEXT NOT NULL {clause}, b TEXT)"));
        a.exec("INSERT INTO t VALUES(1, 'v', '1')");
        b.pull(&a);
        a.exec("INSERT INTO t VALUES(2, NULL, '2'); INSERT INTO t VALUES(3, 'w', '3'); UPDATE t SET a = NULL, b = 'new' WHERE id = 1");
        b.pull(&a);
        c.pull(&b);
        assert_eq!(c.rows("SELECT * FROM t"), a.rows("SELECT * FROM t"), "b hands on what it cannot show: {clause}");
        assert!(waiting(&b) > 0, "{clause}");
        let shown = b.rows("SELECT id, a FROM t WHERE id <> 2");
        assert_eq!(shown, ["1|'v'", "3|'w'"], "{clause}");
        a.exec("UPDATE t SET a = 'filled' WHERE a IS NULL");
        b.pull(&a);
        assert_eq!(b.rows("SELECT * FROM t"), a.rows("SELECT * FROM t"), "{clause}");
        assert_eq!(waiting(&b), 0, "{clause}");
    }
}

#[test]
fn a_null_is_refused_cell_by_cell_too() {
    for clause in ["ON CONFLICT IGNORE", "ON CONFLICT REPLACE DEFAULT 'zz'"] {
        let b = site(&format!("CREATE TABLE t(id INTEGER PRIMARY KEY, a TEXT NOT NULL {clause}, b TEXT)"));
        b.exec("INSERT INTO t VALUES(1, 'v', '1')");
        for id in [1, 2] {
            let refused = b.refused(&format!(
                "INSERT INTO crsql_changes VALUES('t', crsql_pack_columns({id}), 'a', NULL, 9, 9, x'0b', 1, 0)"
            ));
            assert!(refused.contains("NOT NULL constraint failed: t.a"), "{refused}");
        }
        assert_eq!(b.rows("SELECT * FROM t"), ["1|'v'|'1'"]);
    }
}

#[test]
fn a_unique_constraint_that_a_rebuild_brought_leaves_nothing_out_whatever_its_clause() {
    for clause in ["", "ON CONFLICT IGNORE", "ON CONFLICT REPLACE", "ON CONFLICT ROLLBACK", "ON CONFLICT FAIL"] {
        let (a, b, c) = (site(PLAIN), site(PLAIN), site(PLAIN));
        b.exec(&format!(
            "INSERT INTO t VALUES(1, 'x', 'own'); DROP TABLE t; \
             CREATE TABLE t(id INTEGER PRIMARY KEY, a TEXT UNIQUE {clause}, b TEXT); INSERT INTO t VALUES(1, 'x', 'own'); \
             SELECT starling_resume()"
        ));
        a.exec("INSERT INTO t VALUES(2, 'x', 'other'), (3, 'y', 'third')");
        b.pull(&a);
        assert_eq!(b.rows("SELECT * FROM t"), ["1|'x'|'own'", "3|'y'|'third'"], "{clause}");
        assert!(waiting(&b) > 0, "{clause}");
        a.exec("UPDATE t SET a = 'x' WHERE id = 3");
        b.pull(&a);
        assert_eq!(b.rows("SELECT a FROM t WHERE id = 3"), ["'y'"], "{clause}");
        c.pull(&b);
        assert_eq!(c.rows("SELECT * FROM t"), ["1|'x'|'own'", "2|'x'|'other'", "3|'x'|'third'"], "{clause}");
        let refused =
            b.refused("INSERT INTO crsql_changes VALUES('t', crsql_pack_columns(3), 'a', 'x', 9, 9, x'0b', 1, 0)");
        assert!(refused.contains("UNIQUE constraint failed: t.a"), "{clause}: {refused}");
    }
}

/// SQLite makes a key's default of the NULL that a REPLACE gives it, after BEFORE triggers have run.
#[test]
fn a_replace_whose_key_is_a_default_tells_the_row_that_it_overwrites() {
    // Columns, those that an INSERT names besides the first key column, and their values.
    for (columns, others, values) in [
        ("k TEXT NOT NULL DEFAULT 'd' PRIMARY KEY, a)", "", ""),
        ("k TEXT NOT NULL DEFAULT word PRIMARY KEY, a)", "", ""),
        ("k TEXT NOT NULL DEFAULT \"a\" PRIMARY KEY, a)", "", ""),
        ("k TEXT NOT NULL DEFAULT ('d' -- note\n) PRIMARY KEY, a)", "", ""),
        ("k TEXT NOT NULL DEFAULT 5 PRIMARY KEY ON CONFLICT REPLACE, a)", "", ""),
        ("k TEXT NOT NULL DEFAULT 'd', l NOT NULL DEFAULT 1, a, PRIMARY KEY(k, l))", "l, ", "3, "),
        (
            "k NOT NULL DEFAULT 2, l, m, n, o, a, PRIMARY KEY(k, l, m, n, o)) WITHOUT ROWID",
            "l, m, n, o, ",
            "1, 2, 3, 4, ",
        ),
    ] {
        for capture in ["native", "exact", "portable"] {
            let [writer, peer, nine] = [0; 3].map(|_| Site::memory());
            for site in [&writer, &peer, &nine] {
                site.exec(&format!("CREATE TABLE t({columns}; SELECT crsql_as_crr('t', '{capture}')"));
            }
            for step in [
                format!("INSERT INTO t({others}a) VALUES({values}'first')"),
                format!("INSERT OR REPLACE INTO t(k, {others}a) VALUES(NULL, {values}'aaa')"),
                format!("INSERT INTO t(k, {others}a) VALUES('z', {values}'other')"),
                "UPDATE OR REPLACE t SET k = NULL WHERE k = 'z'".to_string(),
            ] {
                writer.exec(&step);
                peer.pull(&writer);
                nine.pull_nine(&writer, |_| {});
                for site in [&peer, &nine] {
                    assert_eq!(site.rows("SELECT * FROM t"), writer.rows("SELECT * FROM t"), "{capture}: {step}");
                }
                assert_eq!(peer.changes(), writer.changes(), "{capture}: {step}");
            }
        }
    }
}
