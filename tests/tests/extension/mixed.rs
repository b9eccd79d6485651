//! Where features meet, corner by corner: what `mixed_laws` found.

use starling_tests::ledger;
use starling_tests::records;
use starling_tests::site::Site;

const G: (&str, &str) = ("g", "CREATE TABLE g(id INTEGER PRIMARY KEY, a, b)");
const T: (&str, &str) = ("t", "CREATE TABLE t(id INTEGER PRIMARY KEY, a)");

fn seqs_are_their_own(site: &Site) {
    let twice = "SELECT db_version, seq, count(*) FROM crsql_changes GROUP BY 1, 2 HAVING count(*) > 1";
    assert_eq!(site.rows(twice), [] as [&str; 0], "{:?}", site.rows("SELECT pk, cid, seq FROM crsql_changes"));
}

fn are_equal(a: &Site, b: &Site) {
    for _ in 0..3 {
        a.pull(b);
        b.pull(a);
    }
    assert_eq!(a.changes(), b.changes());
    for (table, _) in [G, T] {
        assert_eq!(a.rows(&format!("SELECT * FROM {table}")), b.rows(&format!("SELECT * FROM {table}")), "{table}");
    }
    assert_eq!(a.vector(), b.vector());
    [a, b].into_iter().for_each(ledger::check);
}

#[test]
fn rows_inserted_in_a_window_have_seqs_for_the_columns_that_it_adds() {
    let site = Site::memory().with(&[G]);
    site.exec("INSERT INTO g VALUES(9, 9, 9); BEGIN");
    site.one::<String>("SELECT crsql_begin_alter('g')");
    site.exec(
        "INSERT INTO g VALUES(1, 1, 1), (2, 2, 2); UPDATE g SET id = 3 WHERE id = 2; UPDATE g SET a = 5 WHERE id = 9",
    );
    site.exec("ALTER TABLE g ADD COLUMN c DEFAULT 7; INSERT INTO g(id) VALUES(4)");
    site.one::<String>("SELECT crsql_commit_alter('g')");
    seqs_are_their_own(&site);
    // The number of columns that was known before the window is not that of the writes after it.
    site.exec("INSERT INTO g VALUES(5, 5, 5, 5), (6, 6, 6, 6); COMMIT");
    seqs_are_their_own(&site);
    ledger::check(&site);
}

#[test]
fn what_a_trigger_deletes_is_not_brought_back_by_a_row_that_the_same_part_brings_later() {
    for capture in ["native", "portable"] {
        let (a, b) = (Site::memory().with(&[G, T]), Site::memory().with(&[G, T]));
        b.one::<String>(&format!("SELECT crsql_as_crr('g', '{capture}')"));
        a.exec("INSERT INTO g VALUES(1, 'one', 1), (2, 'two', 2); UPDATE g SET b = 3");
        b.pull(&a);
        b.exec("CREATE TRIGGER u AFTER INSERT ON t BEGIN DELETE FROM g WHERE id = 1; UPDATE g SET b = 'mine' WHERE id = 2; END");
        a.exec("BEGIN; INSERT INTO t VALUES(1, 1); UPDATE g SET a = 'new'; COMMIT");
        b.pull(&a);
        assert_eq!(b.rows("SELECT * FROM g"), ["2|'new'|'mine'"], "{capture}");
        are_equal(&a, &b);
        assert_eq!(a.rows("SELECT * FROM g"), ["2|'new'|'mine'"], "{capture}");
    }
}

#[test]
fn a_row_that_a_trigger_and_the_same_part_insert_is_no_new_lifetime() {
    for capture in ["native", "portable"] {
        let (a, b) = (Site::memory().with(&[G, T]), Site::memory().with(&[G, T]));
        b.one::<String>(&format!("SELECT crsql_as_crr('g', '{capture}')"));
        b.exec("CREATE TRIGGER u AFTER INSERT ON t BEGIN INSERT OR IGNORE INTO g VALUES(new.id, 'b', 1); END");
        a.exec("BEGIN; INSERT INTO t VALUES(1, 1), (2, 2); INSERT INTO g VALUES(1, 'x', 1), (2, 'x', 1); COMMIT");
        b.pull(&a);
        are_equal(&a, &b);
        assert_eq!(b.one::<i64>("SELECT max(cl) FROM crsql_changes"), 1, "{capture}");
        seqs_are_their_own(&b);
    }
}

#[test]
fn a_table_that_a_savepoint_takes_back_from_the_crrs_is_not_shown() {
    let site = Site::memory().with(&[T]);
    site.exec("CREATE TABLE g(id INTEGER PRIMARY KEY, a, b); INSERT INTO g VALUES(1, 1, 1)");
    site.one::<String>("SELECT crsql_as_crr('g')");
    site.one::<String>("SELECT crsql_as_table('g')");
    site.exec("BEGIN; INSERT INTO t VALUES(1, 1); SAVEPOINT s");
    site.one::<String>("SELECT crsql_as_crr('g')");
    site.exec("ROLLBACK TO s; COMMIT");
    assert_eq!(site.one::<i64>("SELECT count(*) FROM crsql_changes WHERE [table] = 'g'"), 0);
    // The other way round.
    site.one::<String>("SELECT crsql_as_crr('g')");
    site.exec("BEGIN; INSERT INTO t VALUES(2, 2); SAVEPOINT s");
    site.one::<String>("SELECT crsql_as_table('g')");
    site.exec("ROLLBACK TO s; INSERT INTO g VALUES(2, 2, 2); COMMIT");
    assert_eq!(site.one::<i64>("SELECT count(DISTINCT pk) FROM crsql_changes WHERE [table] = 'g'"), 2);
    ledger::check(&site);
}

#[test]
fn a_later_lifetime_of_which_only_an_unknown_column_comes_is_named_by_the_log() {
    let (a, b) = (Site::memory().with(&[G, T]), Site::memory().with(&[G, T]));
    a.exec("INSERT INTO crsql_changes VALUES('g', crsql_pack_columns(1), 'z', 'w', 1, 5, x'f0', 3, 2)");
    b.pull(&a);
    for site in [&a, &b] {
        site.exec("ALTER TABLE g ADD COLUMN z");
        site.one::<i64>("SELECT starling_resume()");
        let seen = site.rows("SELECT cid, val, col_version, cl FROM crsql_changes ORDER BY cid");
        assert_eq!(seen, ["'-1'|NULL|3|3", "'z'|'w'|1|3"]);
    }
    are_equal(&a, &b);
}

#[test]
fn a_record_that_is_gone_on_with_after_a_merge_is_counted_in_the_totals_in_force() {
    let (a, b) = (Site::memory().with(&[T]), Site::memory().with(&[T]));
    a.exec("INSERT INTO t VALUES(100, 1), (101, 1)");
    let (parts, _) = a.answer(&b.vector());
    b.exec("BEGIN; INSERT INTO t VALUES(1, 1), (2, 2)");
    b.one::<i64>("SELECT count(*) FROM crsql_changes");
    b.merge(&parts[0].0).expect("it merges");
    b.exec("INSERT INTO t VALUES(3, 3), (4, 4), (5, 5); UPDATE t SET a = 7; COMMIT");
    let totals = || records::newest(&b.db).expect("a record").head;
    let (weight, entries) = (totals().weight, records::all(&b.db).len());
    assert!(weight > 4 && entries == 2, "{weight} entries in {entries} records");
    for i in 0..4 {
        b.exec(&format!("UPDATE t SET a = {i}"));
        assert!(totals().weight >= totals().garbage, "more garbage than entries");
    }
}
