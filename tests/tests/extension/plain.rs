//! Plain tables: what a small transaction does to a row is known without a look at its clock, until a row of the table has a
//! clock that says more. Nobody may be wrong about when that is.

use starling_tests::ledger;
use starling_tests::records;
use starling_tests::site::Site;
use std::path::Path;

const T: (&str, &str) = ("t", "CREATE TABLE t(id INTEGER PRIMARY KEY, a, b)");

fn is_plain(site: &Site) -> bool {
    site.one("SELECT count(*) FROM crsql_master WHERE key = 'plain.1'")
}

/// Two connections to a file with three rows, each updated once in a block of clocks.
fn two(path: &Path) -> [Site; 2] {
    let first = Site::file(path).with(&[T]);
    first.exec("INSERT INTO t VALUES(1, 1, 1), (2, 2, 2), (3, 3, 3); UPDATE t SET a = 10; SELECT starling_prune(0)");
    assert!(is_plain(&first));
    [first, Site::open(path)]
}

fn of(site: &Site, id: i64) -> Vec<String> {
    site.rows(&format!(
        "SELECT cid, val, col_version, cl FROM crsql_changes WHERE pk = crsql_pack_columns({id}) ORDER BY cid"
    ))
}

#[test]
fn updates_count_on_from_clocks_that_nobody_looked_at() {
    let dir = tempfile::tempdir().expect("a directory");
    let [a, b] = two(&dir.path().join("a.db"));
    for _ in 0..3 {
        a.exec("UPDATE t SET a = a + 1 WHERE id = 1");
    }
    a.exec("UPDATE t SET b = 7 WHERE id = 2");
    let one = ["'a'|13|5|1", "'b'|1|1|1"];
    let two = ["'a'|10|2|1", "'b'|7|2|1"];
    for site in [&a, &b] {
        assert_eq!((of(site, 1), of(site, 2)), (one.map(String::from).into(), two.map(String::from).into()));
    }
    b.exec("SELECT starling_prune(0)");
    assert_eq!((of(&a, 1), of(&a, 2)), (one.map(String::from).into(), two.map(String::from).into()));
    ledger::check(&a);
}

#[test]
fn a_delete_by_another_connection_is_noticed_by_the_next_insert() {
    let dir = tempfile::tempdir().expect("a directory");
    let [a, b] = two(&dir.path().join("a.db"));
    a.exec("INSERT INTO t VALUES(4, 4, 4)");
    b.exec("DELETE FROM t WHERE id = 1");
    a.exec("INSERT INTO t VALUES(1, 'again', 1)");
    assert_eq!(of(&a, 1), ["'-1'|NULL|3|3", "'a'|'again'|1|3", "'b'|1|1|3"]);
    assert!(!is_plain(&a));
    ledger::check(&b);
}

#[test]
fn a_delete_that_is_rolled_back_leaves_the_table_plain() {
    let dir = tempfile::tempdir().expect("a directory");
    let [a, _] = two(&dir.path().join("a.db"));
    a.exec("BEGIN; DELETE FROM t WHERE id = 1; SELECT count(*) FROM crsql_changes; ROLLBACK");
    assert!(is_plain(&a));
    a.exec("BEGIN; UPDATE t SET b = 0 WHERE id = 2; SAVEPOINT s; DELETE FROM t WHERE id = 1");
    a.exec("SELECT count(*) FROM crsql_changes; ROLLBACK TO s; COMMIT");
    assert!(is_plain(&a));
    // What the connection knows must not be older than that: this delete counts.
    a.exec("DELETE FROM t WHERE id = 1; INSERT INTO t VALUES(1, 5, 5)");
    assert_eq!(of(&a, 1), ["'-1'|NULL|3|3", "'a'|5|1|3", "'b'|5|1|3"]);
    assert!(!is_plain(&a));
}

#[test]
fn a_merge_of_more_than_cells_ends_it() {
    let other = Site::memory().with(&[T]);
    other.exec("INSERT INTO t VALUES(9, 9, 9); UPDATE t SET a = 10");
    type End = fn(&Site, &Site);
    let ends: [(&str, End); 4] = [
        ("a tombstone", |s, other| {
            other.exec("DELETE FROM t");
            s.pull(other);
        }),
        ("a tombstone, cell by cell", |s, other| {
            other.exec("DELETE FROM t");
            s.pull_nine(other, |_| ());
        }),
        ("a part of a row", |s, other| {
            other.exec("INSERT INTO t VALUES(12, 1, 1)");
            s.pull_nine(other, |rows| drop(rows.drain(..rows.len() - 1)));
        }),
        ("a key update", |s, other| {
            other.exec("UPDATE t SET id = 8");
            s.pull(other);
        }),
    ];
    for (what, end) in ends {
        let dir = tempfile::tempdir().expect("a directory");
        let [a, b] = two(&dir.path().join("a.db"));
        let other = Site::memory().with(&[T]);
        other.exec("INSERT INTO t VALUES(9, 9, 9); UPDATE t SET a = 10");
        a.pull(&other);
        assert!(is_plain(&b), "{what}");
        end(&b, &other);
        assert!(!is_plain(&a), "{what}");
        a.exec("INSERT OR IGNORE INTO t VALUES(9, 'mine', 0), (8, 'mine', 0); UPDATE t SET b = 1 WHERE id = 9");
        let reader = Site::memory().with(&[T]);
        reader.pull(&b);
        assert_eq!(reader.changes(), a.changes(), "{what}");
        ledger::check(&a);
    }
}

#[test]
fn superseded_cells_are_counted_once_whenever_that_is_found_out() {
    let dir = tempfile::tempdir().expect("a directory");
    let garbage = |a: &Site| records::newest(&a.db).expect("a record").head.garbage;
    for (rounds, expected) in [(1, 3), (2, 6), (3, 9)] {
        let [a, _] = two(&dir.path().join(format!("{rounds}.db")));
        let before = garbage(&a);
        for _ in 0..rounds {
            (1..=3).for_each(|id| a.exec(&format!("UPDATE t SET a = a + 1 WHERE id = {id}")));
        }
        // A merge moves what is young into blocks.
        let other = Site::memory().with(&[T]);
        other.exec("INSERT INTO t VALUES(9, 9, 9)");
        a.pull(&other);
        assert_eq!(garbage(&a) - before, expected, "{rounds}");
    }
}
