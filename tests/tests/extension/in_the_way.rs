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
