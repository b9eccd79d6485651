//! Young clocks: those of small transactions stay in their log records for a while. Nobody may see a difference, whatever
//! else is done to the file while they are in force.

use starling_tests::ledger;
use starling_tests::site::{close_is_refused, open_with, Change, Site};
use std::collections::BTreeMap;
use std::path::Path;

const T: (&str, &str) = ("t", "CREATE TABLE t(id INTEGER PRIMARY KEY, a, b)");

/// A file with ten rows, each of which has been updated by a small transaction.
fn young(path: &Path) -> Site {
    let site = Site::file(path).with(&[T]);
    site.exec(
        "WITH n(i) AS (VALUES(1) UNION ALL SELECT i + 1 FROM n WHERE i < 10) INSERT INTO t SELECT i, 0, 0 FROM n",
    );
    update_each(&site);
    site
}

fn update_each(site: &Site) {
    (1..=10).for_each(|id| site.exec(&format!("UPDATE t SET a = a + 1 WHERE id = {id}")));
}

/// How many records carry clocks that are in force, by the newest one's word.
fn in_force(site: &Site) -> i64 {
    site.one(
        "SELECT count(*) FROM crsql_log AS l, (SELECT db_version, last_local FROM crsql_log ORDER BY db_version DESC LIMIT 1) AS n \
         WHERE l.version IS NULL AND l.last_local_token IS NOT NULL AND l.db_version >= n.db_version - n.last_local",
    )
}

/// The col_version of each row's column `a`.
fn versions(site: &Site) -> Vec<i64> {
    let changes = site.changes();
    let of_a: BTreeMap<&[u8], i64> = changes.iter().filter(|c| c.2 == "a").map(|c: &Change| (&c.1[..], c.4)).collect();
    of_a.into_values().collect()
}

fn dir() -> tempfile::TempDir {
    tempfile::tempdir().expect("a directory")
}

#[test]
fn what_was_moved_into_blocks_earlier_in_a_transaction_is_not_in_force_again_after_its_next_write() {
    let dir = dir();
    let site = young(&dir.path().join("a.db"));
    assert_eq!(in_force(&site), 10);
    // The sweep moves them; what the connection remembers of its own last commit says that they are in force.
    site.exec("BEGIN; SELECT starling_prune(1000); UPDATE t SET a = 7 WHERE id = 3; COMMIT");
    assert_eq!(in_force(&site), 0);
    assert_eq!(versions(&site), [2, 2, 3, 2, 2, 2, 2, 2, 2, 2]);
    ledger::check(&site);
}

#[test]
fn a_write_after_a_new_epoch_in_the_same_transaction_has_no_predecessor() {
    let dir = dir();
    let site = young(&dir.path().join("a.db"));
    site.exec("BEGIN; SELECT starling_new_epoch(); UPDATE t SET a = 7 WHERE id = 3; COMMIT");
    assert_eq!(site.rows("SELECT prev, prev_token FROM crsql_log ORDER BY db_version DESC LIMIT 1"), ["0|0"]);
    assert_eq!(versions(&site), [2, 2, 3, 2, 2, 2, 2, 2, 2, 2]);
    let other = Site::memory().with(&[T]);
    other.pull(&site);
    assert_eq!((other.changes(), other.vector()), (site.changes(), site.vector()));
}

#[test]
fn a_table_renamed_in_a_transaction_that_wrote_before_is_known_by_its_new_name_afterwards() {
    let dir = dir();
    let site = young(&dir.path().join("a.db"));
    site.exec("BEGIN; UPDATE t SET a = 7 WHERE id = 3; ALTER TABLE t RENAME TO u; ALTER TABLE u RENAME COLUMN id TO pk; COMMIT");
    // Each key but the first and the last is left and taken: whether its row is there must be looked up.
    site.exec("UPDATE u SET pk = pk - 1 WHERE pk < 4");
    site.one::<i64>("SELECT starling_resume()");
    ledger::check(&site);
}

#[test]
fn a_table_dropped_and_made_anew_in_a_transaction_that_wrote_before_is_not_taken_for_the_old_one() {
    let dir = dir();
    let site = young(&dir.path().join("a.db"));
    site.exec("BEGIN; UPDATE t SET a = 7 WHERE id = 3");
    site.exec("DROP TABLE t; CREATE TABLE t(id INTEGER PRIMARY KEY, c, a, b); INSERT INTO t VALUES(1, 1, 1, 1), (20, 2, 2, 2)");
    site.one::<String>("SELECT crsql_as_crr('t')");
    site.exec("COMMIT");
    site.exec("UPDATE t SET c = 5, b = 6 WHERE id = 20");
    let other = Site::memory().with(&[("t", "CREATE TABLE t(id INTEGER PRIMARY KEY, c, a, b)")]);
    other.pull(&site);
    let rows = "SELECT * FROM t ORDER BY id";
    assert_eq!(other.rows(rows), site.rows(rows));
    assert_eq!(other.changes(), site.changes());
    ledger::check(&site);
}

#[test]
fn a_database_deserialized_beneath_a_connection_is_not_read_with_the_clocks_of_the_one_before() {
    let (far, mut site) = (Site::memory().with(&[T]), Site::memory().with(&[T]));
    far.exec("INSERT INTO t VALUES(1, 1, 1), (2, 2, 2); DELETE FROM t WHERE id = 2");
    far.one::<i64>("SELECT starling_prune(1)");
    // The vector tells a hash of what is held of the first dot, which is not claimed: that is a look at row clocks.
    let (part, _) = far.answer(&[1, 0]).0.swap_remove(0);
    site.merge(&part).expect("it is merged");
    site.exec("INSERT INTO t VALUES(5, 5, 5); UPDATE t SET a = 6 WHERE id = 5");
    let image = |site: &mut Site| (site.db.serialize("main").expect("it is serialized").to_vec(), site.vector());
    let before = image(&mut site);
    site.exec("DELETE FROM t WHERE id = 1");
    let after = image(&mut site);
    site.one::<i64>("SELECT starling_prune(0)");
    let aged = image(&mut site);
    assert_ne!(before.1, after.1);
    for (first, second) in [(&before, &after), (&after, &before), (&before, &aged), (&aged, &after)] {
        // A virtual table that was used keeps SQLite's pointer to a schema that is freed, so only functions are called.
        let mut reader = Site::memory();
        for (bytes, vector) in [first, second] {
            reader.db.deserialize_read_exact("main", &bytes[..], bytes.len(), false).expect("it is deserialized");
            assert_eq!(reader.vector(), *vector);
        }
    }
}

#[test]
fn a_backup_restored_beneath_a_connection_is_read_and_written_with_its_own_clocks() {
    let dir = dir();
    let mut site = young(&dir.path().join("a.db"));
    let copy = dir.path().join("copy.db");
    site.exec(&format!("VACUUM INTO '{}'", copy.display()));
    let seen = site.changes();
    update_each(&site);
    site.changes();
    site.db.restore("main", &copy, None::<fn(rusqlite::backup::Progress)>).expect("it restores");
    assert_eq!(site.changes(), seen);
    site.exec("UPDATE t SET a = 9 WHERE id = 3");
    assert_eq!(versions(&site), [2, 2, 3, 2, 2, 2, 2, 2, 2, 2]);
    ledger::check(&site);
}

#[test]
fn a_transaction_goes_on_with_its_own_record_after_a_close_that_was_refused() {
    let dir = dir();
    let site = young(&dir.path().join("a.db"));
    site.exec("UPDATE t SET a = 5 WHERE id = 1; BEGIN; UPDATE t SET a = 6 WHERE id = 2");
    let mut stmt = site.db.prepare("SELECT * FROM t").expect("it prepares");
    let mut rows = stmt.query([]).expect("it runs");
    assert!(rows.next().expect("a row").is_some());
    assert!(close_is_refused(&site.db));
    drop(rows);
    drop(stmt);
    site.exec("UPDATE t SET a = 7 WHERE id = 3; COMMIT");
    let again = Site::open(&dir.path().join("a.db"));
    assert_eq!(versions(&again), [3, 3, 3, 2, 2, 2, 2, 2, 2, 2]);
    ledger::check(&again);
}

#[test]
fn connections_that_may_not_write_read_young_clocks() {
    let dir = dir();
    let path = dir.path().join("a.db");
    let site = young(&path);
    let reader = Site { db: open_with(&path, rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY).expect("it opens") };
    assert_eq!((reader.changes(), reader.vector()), (site.changes(), site.vector()));
    let query_only = Site::open(&path);
    query_only.exec("PRAGMA query_only = 1");
    for _ in 0..2 {
        assert_eq!((query_only.changes(), query_only.vector()), (site.changes(), site.vector()));
        assert_eq!(query_only.answer(&[1, 0]), site.answer(&[1, 0]));
        site.exec("UPDATE t SET b = b + 1 WHERE id = 4");
    }
}
