//! `crsql_pending`: what has arrived and cannot be shown, by reason, until what it waits for comes.

use starling_tests::site::Site;

const T: &str = "CREATE TABLE t(id TEXT NOT NULL PRIMARY KEY, a, b)";

/// Table, reason, whether `writer` is named as the author, version, rows waiting.
fn pending(s: &Site, writer: &Site) -> Vec<String> {
    let site = writer.one::<String>("SELECT hex(crsql_site_id())");
    let sql = format!("SELECT [table], reason, site_id = x'{site}', db_version, changes FROM crsql_pending");
    let rows = s.rows(&sql);
    assert_eq!(s.rows(&sql.replace("crsql_pending", "crsql_pending()")), rows, "it may be called as well");
    let total = s.one::<i64>("SELECT coalesce(sum(changes), 0) FROM crsql_pending");
    assert_eq!(s.one::<i64>("SELECT crsql_pending()"), total, "the function is the table's sum");
    rows
}

fn none(s: &Site) {
    assert_eq!(pending(s, s), [] as [&str; 0]);
}

#[test]
fn nothing_waits_in_a_fresh_database_or_after_a_merge_that_took_everything() {
    let (a, b) = (Site::memory().with(&[("t", T)]), Site::memory().with(&[("t", T)]));
    none(&a);
    a.exec("INSERT INTO t VALUES('x', 1, 1)");
    b.pull(&a);
    none(&b);
    let names = b.db.prepare("SELECT * FROM crsql_pending").expect("it prepares");
    assert_eq!(names.column_names().collect::<Vec<_>>(), ["table", "reason", "site_id", "db_version", "changes"]);
}

#[test]
fn rows_of_an_unknown_table_wait_until_it_is_there() {
    let (a, b) = (
        Site::memory().with(&[("t", T), ("u", &T.replace("t(", "u("))]),
        Site::memory().with(&[("u", &T.replace("t(", "u("))]),
    );
    a.exec("BEGIN; INSERT INTO t VALUES('x', 1, 1), ('y', 2, 2); INSERT INTO u VALUES('known', 1, 1); COMMIT; INSERT INTO t VALUES('z', 3, 3)");
    b.pull(&a);
    let why = "this database has no CRR of that name and key";
    assert_eq!(pending(&b, &a), [format!("'t'|'{why}'|1|1|2"), format!("'t'|'{why}'|1|2|1")]);
    b.exec(&format!("{T}; SELECT crsql_as_crr('t')"));
    let again = "not tried since the schema changed: SELECT starling_resume()";
    if b.one::<i64>("SELECT starling_aside()") > 0 {
        assert_eq!(pending(&b, &a), [format!("'t'|'{again}'|1|1|2"), format!("'t'|'{again}'|1|2|1")]);
    }
    b.one::<i64>("SELECT starling_resume()");
    none(&b);
    assert_eq!(b.changes(), a.changes());
}

#[test]
fn rows_with_a_cell_of_an_unknown_column_wait_until_it_is_there() {
    let (a, b) = (
        Site::memory().with(&[("t", T)]),
        Site::memory().with(&[("t", "CREATE TABLE t(id TEXT NOT NULL PRIMARY KEY, a)")]),
    );
    // An ALTER TABLE outside the extension announces each cell once more: these are written often enough to win.
    a.exec(
        "BEGIN; INSERT INTO t VALUES('x', 1, 1), ('y', 2, 2); UPDATE t SET b = b + 1; UPDATE t SET b = b + 1; COMMIT",
    );
    b.pull(&a);
    assert_eq!(b.rows("SELECT * FROM t"), ["'x'|1", "'y'|2"], "the cells of the columns that are there are shown");
    let items = "an insert and an update of each row";
    assert_eq!(pending(&b, &a), ["'t'|'it names a column that this database does not have'|1|1|4"], "{items}");
    b.exec("ALTER TABLE t ADD COLUMN b; SELECT starling_resume()");
    none(&b);
    assert_eq!(b.rows("SELECT * FROM t"), ["'x'|1|3", "'y'|2|4"]);
}

#[test]
fn rows_that_are_refused_here_wait_with_the_reason_and_those_beside_them_do_not() {
    let (a, b) = (Site::memory().with(&[("t", T)]), Site::memory());
    b.exec("CREATE TABLE t(id TEXT NOT NULL PRIMARY KEY, a CHECK(a < 10), b); SELECT crsql_as_crr('t')");
    a.exec("INSERT INTO t VALUES('good', 1, 1), ('bad', 11, 1), ('worse', 12, 1), ('fine', 2, 2)");
    b.pull(&a);
    assert_eq!(pending(&b, &a), ["'t'|'CHECK constraint failed: a < 10'|1|1|2"]);
    // What a later change overtakes waits no more, though its changeset is still kept.
    a.exec("DELETE FROM t WHERE id = 'bad'");
    b.pull(&a);
    assert_eq!(pending(&b, &a), ["'t'|'CHECK constraint failed: a < 10'|1|1|1"]);
    b.exec("UPDATE t SET a = 9 WHERE id = 'good'");
    assert_eq!(pending(&b, &a).len(), 1, "a local write is no other's");
    b.exec("BEGIN; CREATE TABLE new(id TEXT NOT NULL PRIMARY KEY, a, b); INSERT INTO new SELECT * FROM t; DROP TABLE t; ALTER TABLE new RENAME TO t; COMMIT");
    b.one::<i64>("SELECT starling_resume()");
    none(&b);
    assert_eq!(b.rows("SELECT id FROM t ORDER BY id"), ["'fine'", "'good'", "'worse'"]);
}

#[test]
fn a_row_of_which_only_an_update_has_arrived_waits_for_its_insert() {
    let (a, b, c) =
        (Site::memory().with(&[("t", T)]), Site::memory().with(&[("t", T)]), Site::memory().with(&[("t", T)]));
    a.exec("INSERT INTO t VALUES('x', 1, 1), ('y', 1, 1)");
    b.pull(&a);
    b.exec("UPDATE t SET a = 2");
    let parts: Vec<Vec<u8>> = {
        let mut stmt = b.db.prepare("SELECT changeset FROM starling_changesets(NULL, NULL, 1)").expect("it prepares");
        stmt.query_map([], |r| r.get(0)).expect("it runs").collect::<Result<_, _>>().expect("blobs")
    };
    for part in &parts {
        c.merge(part).expect("it merges");
    }
    assert_eq!(c.one::<i64>("SELECT count(*) FROM t"), 0);
    assert_eq!(pending(&c, &b), ["'t'|'row incomplete: its insert has not arrived'|1|2|2"]);
    c.pull(&a);
    none(&c);
    assert_eq!(c.rows("SELECT * FROM t"), ["'x'|2|1", "'y'|2|1"]);
}

#[test]
fn a_row_without_a_required_value_waits_for_it_and_one_that_is_deleted_does_not() {
    let s = Site::memory().with(&[("n", "CREATE TABLE n(id INTEGER PRIMARY KEY, \"ne\"\"ed\" TEXT NOT NULL, b)")]);
    let nine = |pk: i64, cid: &str, val: &str, cl: i64| {
        s.exec(&format!(
            "INSERT INTO crsql_changes VALUES('n', crsql_pack_columns({pk}), '{cid}', {val}, 1, 7, x'0a', {cl}, 0)"
        ));
    };
    s.exec("BEGIN");
    nine(1, "b", "7", 1);
    nine(2, "b", "7", 1);
    s.exec("COMMIT");
    let why = "row incomplete: no value has arrived for the NOT NULL column \"ne\"\"ed\"";
    let rows = s.rows("SELECT [table], reason, hex(site_id), db_version, changes FROM crsql_pending");
    assert_eq!(rows, [format!("'n'|'{why}'|'0A000000000000000000000000000000'|7|2")]);
    nine(1, "ne\"ed", "'here'", 1);
    assert_eq!(s.one::<i64>("SELECT crsql_pending()"), 1);
    nine(2, "-1", "NULL", 2);
    none(&s);
}

#[test]
fn cells_that_came_nine_values_at_a_time_wait_too() {
    let s = Site::memory();
    s.exec("CREATE TABLE t(id INTEGER PRIMARY KEY, a); SELECT crsql_as_crr('t')");
    for (table, cid) in [("t", "b"), ("u", "a"), ("u", "-1")] {
        s.exec(&format!(
            "INSERT INTO crsql_changes VALUES('{table}', crsql_pack_columns(1), '{cid}', 5, 1, 3, x'0b', 1, 0)"
        ));
    }
    assert_eq!(
        s.rows("SELECT [table], reason, db_version, changes FROM crsql_pending"),
        [
            "'t'|'it names a column that this database does not have'|3|1",
            "'u'|'this database has no CRR of that name and key'|3|2",
        ]
    );
    s.exec("ALTER TABLE t ADD COLUMN b; CREATE TABLE u(id INTEGER PRIMARY KEY, a); SELECT crsql_as_crr('u'), starling_resume()");
    none(&s);
    assert_eq!(s.rows("SELECT * FROM t UNION ALL SELECT *, NULL FROM u"), ["1|NULL|5", "1|5|NULL"]);
}

#[test]
fn it_is_read_only_and_can_be_joined_and_filtered() {
    let (a, b) = (Site::memory().with(&[("t", T)]), Site::memory());
    a.exec("INSERT INTO t VALUES('x', 1, 1)");
    b.exec("CREATE TABLE mine(a)");
    b.pull(&a);
    for sql in [
        "DELETE FROM crsql_pending",
        "INSERT INTO crsql_pending VALUES(1, 2, 3, 4, 5)",
        "UPDATE crsql_pending SET changes = 0",
    ] {
        assert!(b.refused(sql).contains("crsql_pending may not be modified"), "{sql}");
    }
    let joined = "SELECT p.[table], count(*) FROM crsql_pending AS p LEFT JOIN mine ON mine.a = p.[table] WHERE p.changes > 0 AND p.db_version = 1 GROUP BY 1";
    assert_eq!(b.rows(joined), ["'t'|1"]);
    // Within a transaction it tells what the transaction sees.
    b.exec(&format!("BEGIN; {T}; SELECT crsql_as_crr('t'), starling_resume()"));
    none(&b);
    b.exec("ROLLBACK");
    assert_eq!(pending(&b, &a).len(), 1);
}

#[test]
fn a_cell_of_an_unknown_column_alone_shows_no_row_when_it_is_tried_again() {
    let cell = "INSERT INTO crsql_changes VALUES('t', crsql_pack_columns('k'), 'later', 5, 1, 1, x'0b', 1, 0)";
    let (s, late) = (Site::memory().with(&[("t", T)]), Site::memory().with(&[("u", &T.replace("t(", "u("))]));
    s.exec(cell);
    late.exec(cell);
    s.exec("SELECT starling_resume()");
    late.exec(&format!("{T}; SELECT crsql_as_crr('t')"));
    for s in [&s, &late] {
        assert_eq!(s.rows("SELECT * FROM t"), [] as [&str; 0]);
        assert_eq!(s.one::<i64>("SELECT crsql_pending()"), 1);
        s.exec("SELECT crsql_begin_alter('t'); ALTER TABLE t ADD COLUMN later; SELECT crsql_commit_alter('t')");
        assert_eq!(s.rows("SELECT * FROM t"), ["'k'|NULL|NULL|5"]);
        assert_eq!(s.rows("SELECT cid, val FROM crsql_changes"), ["'later'|5"]);
        none(s);
    }
}

#[test]
fn a_change_that_comes_again_and_again_by_nine_values_is_kept_once() {
    let s = Site::memory();
    for _ in 0..300 {
        s.exec("INSERT INTO crsql_changes VALUES('later', crsql_pack_columns(1), 'a', 5, 1, 1, x'0b', 1, 0)");
    }
    assert_eq!(s.one::<i64>("SELECT starling_aside()"), 1);
}
