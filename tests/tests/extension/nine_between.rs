//! What comes between two cells of one row that are merged in one transaction: the second one must know of it.

use starling_tests::site::Site;

const FOO: (&str, &str) = ("foo", "CREATE TABLE foo(k PRIMARY KEY NOT NULL, b CHECK(b <> 13), c)");
const BAR: (&str, &str) = ("bar", "CREATE TABLE bar(k PRIMARY KEY NOT NULL, b, c)");

/// A cell of the row with key 1.
fn cell(table: &str, cid: &str, value: i64, col_version: i64, seq: i64) -> String {
    format!(
        "INSERT INTO crsql_changes VALUES('{table}', x'010901', '{cid}', {value}, {col_version}, 1, x'aa', 1, {seq});"
    )
}

fn b(value: i64, col_version: i64, seq: i64) -> String {
    cell("foo", "b", value, col_version, seq)
}

fn c(value: i64, col_version: i64, seq: i64) -> String {
    cell("foo", "c", value, col_version, seq)
}

fn in_one_transaction(steps: &[&str]) -> Site {
    let site = Site::memory().with(&[FOO, BAR]);
    site.exec(&format!("BEGIN; {} COMMIT", steps.concat()));
    site
}

/// The rows, and what is listed of each cell.
fn holds(site: &Site, row: &[&str], cells: &[&str]) {
    assert_eq!(site.rows("SELECT * FROM foo"), row);
    let listed = "SELECT cid, val, col_version, cl FROM crsql_changes WHERE [table] = 'foo' ORDER BY cid";
    assert_eq!(site.rows(listed), cells);
    let other = Site::memory().with(&[FOO, BAR]);
    other.pull(site);
    assert_eq!(
        (other.rows("SELECT * FROM foo"), other.rows(listed)),
        (site.rows("SELECT * FROM foo"), site.rows(listed))
    );
}

#[test]
fn a_local_write_of_the_cell_raises_what_the_next_one_has_to_beat() {
    let site = in_one_transaction(&[&b(1, 1, 0), "UPDATE foo SET b = 9;", &b(3, 2, 1)]);
    holds(&site, &["1|9|NULL"], &["'b'|9|2|1"]);
    let site = in_one_transaction(&[&b(1, 1, 0), "UPDATE foo SET b = 9;", &b(3, 2, 1), &b(4, 3, 2), &c(5, 1, 3)]);
    holds(&site, &["1|4|5"], &["'b'|4|3|1", "'c'|5|1|1"]);
}

#[test]
fn a_row_that_was_deleted_or_made_anew_is_not_the_one_before() {
    let site = in_one_transaction(&[&b(1, 1, 0), "DELETE FROM foo;", &c(5, 9, 1), &b(5, 9, 2)]);
    holds(&site, &[], &["'-1'|NULL|2|2"]);
    let again = "DELETE FROM foo; INSERT INTO foo VALUES(1, 2, 3);";
    let site = in_one_transaction(&[&b(1, 1, 0), again, &c(5, 9, 1)]);
    holds(&site, &["1|2|3"], &["'-1'|NULL|3|3", "'b'|2|1|3", "'c'|3|1|3"]);
}

#[test]
fn what_a_rollback_took_back_is_not_known_any_more() {
    let site = in_one_transaction(&[&b(1, 1, 0), "SAVEPOINT s;", &b(2, 5, 1), "ROLLBACK TO s;", &b(3, 2, 1)]);
    holds(&site, &["1|3|NULL"], &["'b'|3|2|1"]);
    let site = in_one_transaction(&["SAVEPOINT s;", &b(1, 3, 0), &c(1, 3, 1), "ROLLBACK TO s;", &c(2, 1, 0)]);
    holds(&site, &["1|NULL|2"], &["'c'|2|1|1"]);
    let site = in_one_transaction(&["INSERT INTO foo VALUES(2, 2, 2);", &b(1, 3, 0), "ROLLBACK; BEGIN;", &b(2, 1, 0)]);
    holds(&site, &["1|2|NULL"], &["'b'|2|1|1"]);
}

#[test]
fn a_row_is_known_by_its_key_wherever_it_has_gone() {
    // Another row may have come where it was.
    let moved = "UPDATE foo SET rowid = 77 WHERE k = 1; INSERT INTO foo(rowid, k) VALUES(1, 2);";
    let site = in_one_transaction(&[&b(1, 1, 0), moved, &b(2, 2, 1), &c(3, 1, 2)]);
    assert_eq!(site.rows("SELECT rowid, * FROM foo"), ["1|2|NULL|NULL", "77|1|2|3"]);
    let swapped = "DELETE FROM foo; INSERT INTO foo(rowid, k, b, c) VALUES(1, 2, 2, 2), (2, 1, 1, 1);";
    let site = in_one_transaction(&[&b(1, 1, 0), swapped, &cell("foo", "c", 4, 2, 1).replace(", 1, 1)", ", 3, 1)")]);
    assert_eq!(site.rows("SELECT rowid, * FROM foo"), ["1|2|2|2", "2|1|1|4"]);
}

#[test]
fn whatever_its_rowid_is_called_a_row_takes_its_cells() {
    for schema in [
        "CREATE TABLE foo(k TEXT PRIMARY KEY NOT NULL, b, c, rowid, oid)",
        "CREATE TABLE foo(k INTEGER PRIMARY KEY NOT NULL, b, c)",
        "CREATE TABLE foo(k PRIMARY KEY NOT NULL, b, c) WITHOUT ROWID",
        "CREATE TABLE foo(rowid TEXT PRIMARY KEY NOT NULL, b, c)",
        "CREATE TABLE foo(k TEXT PRIMARY KEY NOT NULL, b, c, rowid AS (b + 1))",
    ] {
        let site = Site::memory().with(&[("foo", schema)]);
        site.exec(&format!("BEGIN; {} {} {} COMMIT", b(1, 1, 0), c(4, 1, 1), b(2, 2, 2)));
        assert_eq!(site.rows("SELECT b, c FROM foo"), ["2|4"], "{schema}");
        let listed = site.rows("SELECT cid, val, col_version FROM crsql_changes ORDER BY cid");
        assert!(listed.ends_with(&["'b'|2|2".into(), "'c'|4|1".into()]), "{schema}: {listed:?}");
    }
}

#[test]
fn a_row_of_another_table_with_the_same_key_is_another_row() {
    let bar = |cid, value, version, seq| cell("bar", cid, value, version, seq);
    let steps = [b(1, 1, 0), bar("b", 7, 5, 1), b(2, 2, 2), bar("c", 8, 1, 3), c(3, 1, 4), bar("b", 6, 4, 5)];
    let site = in_one_transaction(&steps.each_ref().map(String::as_str));
    holds(&site, &["1|2|3"], &["'b'|2|2|1", "'c'|3|1|1"]);
    assert_eq!(site.rows("SELECT * FROM bar"), ["1|7|8"]);
}

#[test]
fn a_column_that_came_is_there_for_the_next_cell_and_one_that_went_is_not() {
    let add =
        "SELECT crsql_begin_alter('foo'); ALTER TABLE foo ADD COLUMN d DEFAULT 5; SELECT crsql_commit_alter('foo');";
    let drop = "SELECT crsql_begin_alter('foo'); ALTER TABLE foo DROP COLUMN c; SELECT crsql_commit_alter('foo');";
    let site = in_one_transaction(&[&b(1, 1, 0), add, &b(2, 2, 1), &cell("foo", "d", 6, 1, 2), &c(7, 1, 3)]);
    assert_eq!(site.rows("SELECT * FROM foo"), ["1|2|7|6"]);
    let site = in_one_transaction(&[&b(1, 1, 0), &c(1, 1, 1), drop, &c(2, 2, 2), &b(2, 2, 3)]);
    assert_eq!(site.rows("SELECT * FROM foo"), ["1|2"]);
}

#[test]
fn a_cell_that_failed_has_left_nothing_behind() {
    let site = Site::memory().with(&[FOO]);
    site.exec(&format!("BEGIN; {}", b(1, 1, 0)));
    for failing in [b(13, 2, 1), b(2, 2, 1).replace("x'aa', 1", "x'aa', 0"), b(2, 2, 1).replace("010901", "0109")] {
        site.refused(failing.trim_end_matches(';'));
        site.exec(&c(5, 1, 2));
    }
    assert_eq!(site.rows("SELECT * FROM foo"), ["1|1|5"]);
    site.exec(&format!("{} COMMIT", b(2, 2, 3)));
    holds(&site, &["1|2|5"], &["'b'|2|2|1", "'c'|5|1|1"]);
    // The first cell of a row, which nothing is known of but that it is refused.
    let site = Site::memory().with(&[FOO]);
    site.exec("BEGIN");
    assert!(site.refused(b(13, 1, 0).trim_end_matches(';')).contains("CHECK"));
    site.exec(&format!("{} COMMIT", c(5, 1, 1)));
    holds(&site, &["1|NULL|5"], &["'c'|5|1|1"]);
}

#[test]
fn a_row_that_is_there_is_met_by_its_first_cell_although_the_cell_is_a_first_one() {
    for schema in [FOO.1.to_string(), FOO.1.replace("PRIMARY KEY NOT NULL", "PRIMARY KEY ON CONFLICT REPLACE NOT NULL")]
    {
        let site = Site::memory().with(&[("foo", &schema)]);
        site.exec("INSERT INTO foo VALUES(1, 2, 3)");
        site.exec(&format!("BEGIN; {} {} COMMIT", b(1, 1, 0), c(4, 1, 1)));
        assert_eq!(site.rows("SELECT * FROM foo"), ["1|2|4"], "{schema}");
    }
}

#[test]
fn what_a_user_s_trigger_makes_of_the_row_is_undone_cell_by_cell() {
    let site = Site::memory().with(&[FOO, BAR]);
    site.exec("CREATE TRIGGER u AFTER UPDATE OF b ON foo BEGIN UPDATE foo SET c = 77 WHERE k = new.k; END");
    site.exec(&format!("BEGIN; {} {} {} {} COMMIT", b(1, 1, 0), c(5, 1, 1), b(2, 2, 2), b(3, 3, 3)));
    holds(&site, &["1|3|5"], &["'b'|3|3|1", "'c'|5|1|1"]);
}

#[test]
fn a_user_s_trigger_that_merges_by_itself_does_not_mislead_the_cells_that_follow() {
    let site = Site::memory().with(&[FOO, BAR]);
    let nested = cell("bar", "b", 70, 4, 50);
    site.exec(&format!("CREATE TRIGGER u AFTER UPDATE OF b ON foo WHEN new.b = 2 BEGIN {nested} END"));
    site.exec(&format!("BEGIN; {} {} {} {} COMMIT", b(1, 1, 0), b(2, 2, 1), b(3, 3, 2), c(4, 1, 3)));
    holds(&site, &["1|3|4"], &["'b'|3|3|1", "'c'|4|1|1"]);
    assert_eq!(site.rows("SELECT * FROM bar"), ["1|70|NULL"]);
    assert_eq!(site.rows("SELECT cid, col_version FROM crsql_changes WHERE [table] = 'bar'"), ["'b'|4"]);
}

#[test]
fn another_connection_s_commit_between_two_transactions_counts() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("two.db");
    let one = Site::file(&path).with(&[FOO]);
    let two = Site::open(&path);
    one.exec(&format!("BEGIN; {} {} COMMIT", b(1, 1, 0), c(1, 1, 1)));
    two.exec("UPDATE foo SET b = 9");
    one.exec(&format!("BEGIN; {} {} COMMIT", b(3, 2, 0), c(2, 2, 1)));
    assert_eq!(one.rows("SELECT * FROM foo"), ["1|9|2"]);
    two.exec("DELETE FROM foo");
    one.exec(&b(9, 9, 5));
    assert_eq!(one.rows("SELECT * FROM foo"), [""; 0]);
}

/// A cell of the row's next lifetime but one, which the CHECK refuses.
const LATER_AND_REFUSED: &str = "INSERT INTO crsql_changes VALUES('foo', x'010901', 'b', 13, 1, 9, x'aa', 3, 0)";

#[test]
fn a_later_lifetime_whose_first_cell_is_refused_leaves_the_row_as_it_was() {
    let site = Site::memory().with(&[FOO, BAR]);
    site.exec("INSERT INTO foo VALUES(1, 2, 3); BEGIN; INSERT INTO bar VALUES(1, 1, 1)");
    assert!(site.refused(LATER_AND_REFUSED).contains("CHECK"));
    site.exec("COMMIT");
    holds(&site, &["1|2|3"], &["'b'|2|1|1", "'c'|3|1|1"]);
    site.exec(&LATER_AND_REFUSED.replace("13,", "14,"));
    holds(&site, &["1|14|NULL"], &["'-1'|NULL|3|3", "'b'|14|1|3"]);
}

#[test]
fn no_trigger_sees_a_row_go_that_begins_a_lifetime_and_nothing_is_left_of_one_that_is_refused() {
    let site = Site::memory().with(&[FOO, BAR]);
    site.exec(
        "CREATE TABLE seen(what); INSERT INTO foo VALUES(1, 2, 3); \
         CREATE TRIGGER gone AFTER DELETE ON foo BEGIN INSERT INTO seen VALUES('gone'); END; \
         CREATE TRIGGER changed AFTER UPDATE ON foo BEGIN INSERT INTO seen VALUES('changed'); END",
    );
    site.exec("BEGIN");
    assert!(site.refused(LATER_AND_REFUSED).contains("CHECK"));
    site.exec("COMMIT");
    holds(&site, &["1|2|3"], &["'b'|2|1|1", "'c'|3|1|1"]);
    assert!(site.rows("SELECT * FROM seen").is_empty());
    site.exec("INSERT INTO crsql_changes VALUES('foo', crsql_pack_columns(1), 'b', 5, 1, 9, x'aa', 3, 0)");
    assert_eq!(site.rows("SELECT * FROM seen"), ["'changed'"]);
}

#[test]
fn a_row_that_begins_a_lifetime_has_its_defaults_whatever_they_are() {
    const D: (&str, &str) = (
        "d",
        "CREATE TABLE d(k INTEGER PRIMARY KEY, a, word TEXT DEFAULT Word, quoted DEFAULT \"a\", note DEFAULT ('x' -- note\n), \
         sum INT DEFAULT (1 + 1), number TEXT DEFAULT 5, none, less DEFAULT -1, yes DEFAULT TRUE)",
    );
    let (site, peer) = (Site::memory().with(&[D]), Site::memory().with(&[D]));
    site.exec("INSERT INTO d VALUES(1, 'first', 1, 1, 1, 1, 1, 1, 1, 1)");
    site.exec("INSERT INTO crsql_changes VALUES('d', crsql_pack_columns(1), 'a', 'later', 1, 9, x'aa', 3, 0)");
    let shown = ["1|'later'|'Word'|'a'|'x'|2|'5'|NULL|-1|1"];
    assert_eq!(site.rows("SELECT * FROM d"), shown);
    peer.pull(&site);
    assert_eq!(peer.rows("SELECT * FROM d"), shown);
}

#[test]
fn of_more_rows_than_wait_at_once_those_that_came_first_are_still_known() {
    let site = Site::memory().with(&[FOO, BAR]);
    site.exec(
        "CREATE TEMP TABLE s AS WITH RECURSIVE s(k) AS (VALUES(1) UNION ALL SELECT k + 1 FROM s WHERE k < 70000) SELECT k FROM s; \
         BEGIN",
    );
    let cells = |rows: &str, version: i64, value: i64| {
        site.exec(&format!(
            "INSERT INTO crsql_changes SELECT 'bar', crsql_pack_columns(k), 'b', {value}, {version}, 1, x'aa', 1, k FROM s \
             WHERE {rows}"
        ));
    };
    cells("k <= 60000", 2, 5);
    // They are in blocks by now, and must be asked: an older cell, a newer one, and a row that is gone.
    cells("k BETWEEN 1 AND 50", 1, 9);
    cells("k BETWEEN 41 AND 60", 3, 7);
    site.exec("DELETE FROM bar WHERE k = 100");
    cells("k BETWEEN 99 AND 101", 8, 8);
    site.exec("SAVEPOINT s");
    cells("k > 60000", 2, 6);
    site.exec("ROLLBACK TO s");
    cells("k > 69990", 1, 4);
    cells("k = 1", 1, 9);
    site.exec("COMMIT");
    let found = "SELECT b, count(*), min(k), max(k) FROM bar GROUP BY b ORDER BY b";
    let wanted = ["4|10|69991|70000", "5|59977|1|60000", "7|20|41|60", "8|2|99|101"];
    assert_eq!(site.rows(found), wanted);
    let other = Site::memory().with(&[FOO, BAR]);
    other.pull(&site);
    assert_eq!(other.rows(found), wanted);
    let listed = "SELECT cid, col_version, cl, count(*) FROM crsql_changes GROUP BY 1, 2, 3 ORDER BY 1, 2, 3";
    assert_eq!(other.rows(listed), site.rows(listed));
}

#[test]
fn a_table_that_is_dropped_between_two_cells_lets_the_second_one_wait() {
    let site = in_one_transaction(&[&b(2, 2, 0), "DROP TABLE foo;", &c(3, 2, 1)]);
    assert_eq!(
        site.rows("SELECT [table], reason FROM crsql_pending"),
        ["'foo'|'this database has no CRR of that name and key'"]
    );
}

#[test]
fn a_table_that_gets_another_name_between_two_cells_takes_the_second_one_under_it() {
    let second = cell("food", "c", 3, 2, 1);
    let site = in_one_transaction(&[&b(2, 2, 0), "ALTER TABLE foo RENAME TO food;", &second]);
    assert_eq!(site.rows("SELECT k, b, c FROM food"), ["1|2|3"]);
}
