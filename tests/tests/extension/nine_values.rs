//! Merging cell by cell through `crsql_changes`: what a change says, and what it is given.

use starling_tests::site::Site;

const FOO: (&str, &str) = ("foo", "CREATE TABLE foo(k PRIMARY KEY NOT NULL, b, c)");
const KEYS: (&str, &str) = ("keys", "CREATE TABLE keys(k PRIMARY KEY NOT NULL)");

/// A change of the row with key 1.
fn nine(table: &str, cid: &str, (val, col_version, db_version): (i64, i64, i64), cl: i64, seq: i64) -> String {
    format!(
        "INSERT INTO crsql_changes VALUES('{table}', x'010901', '{cid}', nullif({val}, -1), {col_version}, {db_version}, \
         x'{db_version:02}', {cl}, {seq});"
    )
}

fn seqs(site: &Site) -> Vec<String> {
    site.rows("SELECT cid, val, col_version, db_version, cl, seq FROM crsql_changes")
}

#[test]
fn a_row_whose_base_speaks_for_no_column_that_is_left_is_listed_as_being_there() {
    let s = Site::memory().with(&[KEYS, ("foo", "CREATE TABLE foo(k PRIMARY KEY NOT NULL, b)")]);
    s.exec("INSERT INTO keys VALUES(1), (2); INSERT INTO foo VALUES(1, 1), (2, 2); UPDATE foo SET b = 3 WHERE k = 2");
    s.exec(
        "SELECT crsql_begin_alter('keys'); ALTER TABLE keys ADD COLUMN d DEFAULT 5; SELECT crsql_commit_alter('keys')",
    );
    s.exec("SELECT crsql_begin_alter('foo'); ALTER TABLE foo ADD COLUMN c");
    s.exec("ALTER TABLE foo DROP COLUMN b; SELECT crsql_commit_alter('foo')");
    s.exec("INSERT INTO keys VALUES(3, 6); UPDATE keys SET d = 7 WHERE k = 2");
    assert_eq!(
        s.rows("SELECT [table], cid, val, cl FROM crsql_changes"),
        ["'keys'|'-1'|NULL|1", "'foo'|'-1'|NULL|1", "'foo'|'-1'|NULL|1", "'keys'|'d'|6|1", "'keys'|'d'|7|1"]
    );
    let after = [
        ("keys", "CREATE TABLE keys(k PRIMARY KEY NOT NULL, d DEFAULT 5)"),
        ("foo", "CREATE TABLE foo(k PRIMARY KEY NOT NULL, c)"),
    ];
    let (cells, whole) = (Site::memory().with(&after), Site::memory().with(&after));
    cells.pull_nine(&s, |_| ());
    whole.pull(&s);
    for to in [&cells, &whole] {
        for rows in ["SELECT * FROM keys ORDER BY k", "SELECT * FROM foo ORDER BY k"] {
            assert_eq!(to.rows(rows), s.rows(rows));
        }
    }
    assert_eq!(whole.changes(), s.changes());
    // A second time it is nothing new.
    let version = |site: &Site| site.one::<i64>("SELECT crsql_db_version()");
    let before = version(&cells);
    cells.pull_nine(&s, |_| ());
    assert_eq!(version(&cells), before);
    assert_eq!(cells.changes(), s.changes());
}

#[test]
fn a_cell_that_one_transaction_merges_three_times_is_listed_once() {
    let cell = |val, col_version, seq| nine("foo", "b", (val, col_version, 1), 1, seq);
    let histories = [
        [cell(1, 1, 0), cell(2, 2, 0), cell(3, 3, 0)],
        [cell(1, 1, 0), "UPDATE foo SET b = 9;".to_string(), cell(3, 3, 0)],
        [cell(1, 1, 0), "DELETE FROM foo;".to_string(), nine("foo", "b", (3, 1, 1), 3, 0)],
        [cell(1, 1, 0), nine("foo", "-1", (-1, 2, 1), 2, 0), nine("foo", "b", (3, 1, 1), 3, 0)],
        [cell(1, 1, 0), "SAVEPOINT s;".to_string() + &cell(2, 2, 0) + "ROLLBACK TO s;", cell(3, 3, 0)],
        [nine("foo", "-1", (-1, 1, 1), 1, 0), nine("foo", "-1", (-1, 2, 1), 2, 0), nine("foo", "-1", (-1, 3, 1), 3, 0)],
        [nine("foo", "-1", (-1, 2, 1), 2, 0), nine("foo", "b", (9, 1, 1), 3, 0), String::new()],
        [nine("foo", "b", (1, 1, 1), 3, 0), nine("foo", "c", (9, 1, 1), 5, 0), String::new()],
    ];
    for history in histories {
        let s = Site::memory().with(&[FOO]);
        s.exec(&format!("BEGIN; {} COMMIT", history.concat()));
        let listed = s.rows("SELECT cid, count(*) FROM crsql_changes GROUP BY cid HAVING count(*) > 1");
        assert!(listed.is_empty(), "{history:?}: {:?}", seqs(&s));
        let other = Site::memory().with(&[FOO]);
        other.pull(&s);
        assert_eq!(other.changes(), s.changes(), "{history:?}");
    }
}

#[test]
fn other_cells_of_a_row_keep_the_seq_that_they_are_given() {
    let s = Site::memory().with(&[FOO]);
    let cell = |cid, db_version| nine("foo", cid, (1, 1, db_version), 1, 2);
    s.exec(&format!("BEGIN; {} {} {} COMMIT", cell("c", 3), cell("b", 4), nine("foo", "-1", (-1, 3, 4), 3, 2)));
    assert_eq!(seqs(&s), ["'-1'|NULL|3|4|3|2"]);
    let s = Site::memory().with(&[FOO]);
    s.exec(&format!("BEGIN; {} {} COMMIT", cell("c", 4), cell("b", 4)));
    assert_eq!(seqs(&s), ["'c'|1|1|4|1|2", "'b'|1|1|4|1|2"]);
}

#[test]
fn word_of_a_row_that_is_there_changes_nothing() {
    let s = Site::memory().with(&[FOO, KEYS]);
    s.exec("INSERT INTO foo VALUES(1, 1, 1); INSERT INTO keys VALUES(1)");
    let before = s.rows("SELECT * FROM crsql_changes");
    for table in ["foo", "keys"] {
        s.exec(&format!("BEGIN; {}", nine(table, "-1", (-1, 1, 1), 1, 0)));
        assert_eq!(s.one::<i64>("SELECT crsql_rows_impacted()"), 0);
        s.exec("COMMIT");
    }
    assert_eq!(s.rows("SELECT * FROM crsql_changes"), before);
    assert_eq!(s.one::<i64>("SELECT crsql_db_version()"), 2);
}

#[test]
fn a_merge_leaves_the_last_inserted_rowid_and_the_sequence_of_its_transaction_alone() {
    let s = Site::memory().with(&[FOO]);
    s.exec("CREATE TABLE other(id INTEGER PRIMARY KEY); INSERT INTO other VALUES(77)");
    s.exec(&nine("foo", "b", (1, 1, 1), 1, 0));
    assert_eq!(s.one::<i64>("SELECT last_insert_rowid()"), 77);
    s.exec("BEGIN");
    assert_eq!(s.rows("SELECT crsql_increment_and_get_seq(), crsql_get_seq()"), ["0|1"]);
    s.exec("INSERT INTO foo VALUES(2, 2, 2); COMMIT");
    assert_eq!(s.rows("SELECT seq FROM crsql_changes WHERE pk = x'010902'"), ["1", "2"]);
}

#[test]
fn a_row_that_is_only_a_key_takes_one_seq_when_it_comes_back() {
    let s = Site::memory().with(&[KEYS]);
    s.exec("INSERT INTO keys VALUES(1); DELETE FROM keys; BEGIN; INSERT INTO keys VALUES(1); INSERT INTO keys VALUES(2); COMMIT");
    assert_eq!(s.rows("SELECT cl, seq FROM crsql_changes"), ["3|0", "1|1"]);
}

#[test]
fn names_of_columns_ignore_case_as_in_sql() {
    let s = Site::memory().with(&[FOO]);
    s.exec(&nine("FOO", "B", (5, 1, 1), 1, 0));
    assert_eq!(s.rows("SELECT b FROM foo"), ["5"]);
    let refused = Site::memory();
    refused.exec("CREATE TABLE t(id INTEGER PRIMARY KEY, \"-1\")");
    assert!(refused.refused("SELECT crsql_as_crr('t')").contains("stands for the row itself"));
}

#[test]
fn a_cell_that_begins_a_later_lifetime_counts_with_the_row_that_it_begins() {
    let s = Site::memory().with(&[FOO]);
    for (change, impacted) in [
        (nine("foo", "b", (1, 1, 1), 1, 0), 1),
        (nine("foo", "b", (2, 1, 2), 3, 0), 2),
        (nine("foo", "c", (3, 1, 3), 3, 0), 1),
        (nine("foo", "-1", (-1, 4, 4), 4, 0), 1),
        (nine("foo", "-1", (-1, 4, 4), 4, 0), 0),
    ] {
        s.exec(&format!("BEGIN; {change}"));
        assert_eq!(s.one::<i64>("SELECT crsql_rows_impacted()"), impacted, "{change}");
        s.exec("COMMIT");
    }
}

#[test]
fn what_was_merged_before_a_version_was_asked_for_is_listed_under_the_version_before() {
    let s = Site::memory().with(&[FOO]);
    let (b, c) = (nine("foo", "b", (1, 5, 1), 1, 0), nine("foo", "c", (2, 5, 1), 1, 1));
    s.exec(&format!("BEGIN; {b} SELECT crsql_next_db_version(50); {c} COMMIT"));
    assert_eq!(s.rows("SELECT cid, db_version FROM crsql_changes"), ["'b'|1", "'c'|50"]);
}

#[test]
fn a_change_that_changes_nothing_takes_no_version() {
    let s = Site::memory().with(&[FOO]);
    s.exec("INSERT INTO foo VALUES(1, 9, 9)");
    let (loses, wins) = (nine("foo", "b", (1, 1, 8), 1, 0), nine("foo", "c", (7, 2, 2), 1, 0));
    // Nor does it lend its own to what follows.
    s.exec(&format!("BEGIN; {loses} {wins} {loses} COMMIT"));
    assert_eq!(s.rows("SELECT cid, db_version FROM crsql_changes"), ["'b'|1", "'c'|2"]);
    s.exec(&loses);
    assert_eq!(s.one::<i64>("SELECT crsql_db_version()"), 2);
    s.exec(&format!("BEGIN; SELECT crsql_next_db_version(20); {loses} UPDATE foo SET b = 10; COMMIT"));
    assert_eq!(s.rows("SELECT cid, db_version FROM crsql_changes"), ["'c'|2", "'b'|20"]);
}

#[test]
fn a_portable_table_takes_cells_outside_of_a_transaction_as_the_merges_that_they_are() {
    let s = Site::memory();
    s.exec(FOO.1);
    s.one::<String>("SELECT crsql_as_crr('foo', 'portable')");
    s.exec(&nine("foo", "b", (1, 5, 1), 1, 0));
    s.exec(&nine("foo", "c", (2, 5, 2), 1, 0));
    assert_eq!(s.rows("SELECT cid, val, col_version, cl FROM crsql_changes"), ["'b'|1|5|1", "'c'|2|5|1"]);
}

#[test]
fn a_program_of_the_time_before_there_was_a_seq_merges_without_one() {
    let s = Site::memory().with(&[FOO]);
    s.exec(
        "INSERT INTO crsql_changes([table], pk, cid, val, col_version, db_version, site_id, cl) \
         VALUES('foo', x'010901', 'b', 5, 1, 1, x'0a', 1), ('foo', x'010901', 'c', 6, 1, 1, x'', 1)",
    );
    let own = s.one::<i64>("SELECT count(*) FROM crsql_changes WHERE site_id = crsql_site_id() AND cid = 'c'");
    assert_eq!((s.rows("SELECT * FROM foo"), own), (vec!["1|5|6".to_string()], 1));
    assert_eq!(seqs(&s)[0], "'b'|5|1|1|1|0");
}

#[test]
fn i6_that_a_row_has_been_born_by_nine_values_reaches_who_holds_no_more_than_an_update_of_it() {
    let three = || [Site::memory().with(&[FOO]), Site::memory().with(&[FOO]), Site::memory().with(&[FOO])];
    for cl in [1, 3] {
        let [a, b, c] = three();
        a.exec("INSERT INTO foo VALUES(1, 'x', 'y')");
        if cl == 3 {
            a.exec("DELETE FROM foo; INSERT INTO foo VALUES(1, 'x', 'y')");
        }
        a.exec("UPDATE foo SET b = 'newer'");
        // The update alone, whose row nobody has sent.
        let (all, _) = a.answer(&b.vector());
        let (update, _) = all.last().expect("two parts");
        for s in [&b, &c] {
            s.merge(update).expect("it merges");
            assert_eq!(s.rows("SELECT * FROM foo"), [] as [&str; 0]);
        }
        // An older cell, by nine values: it loses, and says that the row is there.
        b.exec(&nine("foo", "b", (5, 1, 1), cl, 0));
        assert_eq!(b.rows("SELECT b FROM foo"), ["'newer'"], "{cl}");
        c.pull(&b);
        assert_eq!((c.rows("SELECT * FROM foo"), c.changes()), (b.rows("SELECT * FROM foo"), b.changes()), "{cl}");
        for s in [&b, &c] {
            s.pull(&a);
            a.pull(s);
        }
        b.pull(&c);
        for s in [&b, &c] {
            assert_eq!((s.rows("SELECT * FROM foo"), s.changes()), (a.rows("SELECT * FROM foo"), a.changes()), "{cl}");
            starling_tests::ledger::check(s);
        }
    }
}

#[test]
fn a_not_null_column_whose_default_is_null_is_waited_for() {
    for (i, default) in ["", "DEFAULT NULL", "DEFAULT (null)", "ON CONFLICT IGNORE DEFAULT NULL"].iter().enumerate() {
        let table = format!("CREATE TABLE t(id INTEGER PRIMARY KEY, a TEXT, b INTEGER NOT NULL {default})");
        let (s, peer) = (Site::memory().with(&[("t", &table)]), Site::memory().with(&[("t", &table)]));
        s.exec("INSERT INTO t VALUES(1, 'one', 1)");
        peer.pull_nine(&s, |changes| {
            if i % 2 == 0 {
                changes.truncate(1)
            }
        });
        peer.pull_nine(&s, |_| {});
        assert_eq!(peer.rows("SELECT * FROM t"), ["1|'one'|1"], "{default}");
        assert_eq!(peer.one::<i64>("SELECT crsql_pending()"), 0, "{default}");
    }
}
