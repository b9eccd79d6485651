//! Young clocks: those of small transactions stay in their log records for a while. Nobody may see a difference, whatever
//! else is done to the file while they are in force.

use starling_tests::ledger;
use starling_tests::records;
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
    let newest = records::newest(&site.db).expect("a record");
    let Some(back) = newest.reaches() else { return 0 };
    let carriers = records::all(&site.db).into_iter().filter(|record| record.young.is_some());
    carriers.filter(|record| record.db_version >= newest.db_version - back as i64).count() as i64
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
    let newest = records::newest(&site.db).expect("a record");
    assert_eq!((newest.head.prev, newest.head.prev_token), (0, 0));
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

#[test]
fn clocks_stay_young_up_to_a_distance_and_are_none_the_worse_for_it() {
    let dir = dir();
    let path = dir.path().join("a.db");
    let site = Site::file(&path).with(&[T]);
    site.exec("PRAGMA synchronous = OFF");
    site.exec(
        "WITH n(i) AS (VALUES(1) UNION ALL SELECT i + 1 FROM n WHERE i < 2300) INSERT INTO t SELECT i, 0, 0 FROM n",
    );
    let mut most = 0;
    for id in 1..=2300 {
        site.exec(&format!("UPDATE t SET a = 1 WHERE id = {id}"));
        most = most.max(in_force(&site));
    }
    assert!((2040..=2049).contains(&most), "{most}");
    // Few clocks, far apart: inserts in between carry none.
    site.one::<i64>("SELECT starling_prune(0)");
    for id in 2301..=4600 {
        site.exec(&format!("INSERT INTO t VALUES({id}, 0, 0)"));
        if id % 800 == 0 {
            site.exec(&format!("UPDATE t SET a = 2 WHERE id = {id}"));
        }
        let newest = records::newest(&site.db).expect("a record");
        assert!(newest.reaches().is_none_or(|back| back <= 2049));
    }
    site.exec("BEGIN; SELECT crsql_next_db_version(1000000); UPDATE t SET a = 3 WHERE id = 4000; COMMIT");
    site.exec("UPDATE t SET b = 4 WHERE id = 4000");
    let again = Site::open(&path);
    assert_eq!(again.changes(), site.changes());
    ledger::check(&again);
    let other = Site::memory().with(&[T]);
    other.pull(&site);
    assert_eq!((other.changes(), other.vector()), (site.changes(), site.vector()));
}

#[test]
fn a_table_that_is_let_go_taken_again_dropped_or_made_anew_keeps_its_young_clocks() {
    let dir = dir();
    let site = young(&dir.path().join("a.db"));
    site.one::<String>("SELECT crsql_as_table('t')");
    assert!(site.changes().is_empty());
    site.one::<String>("SELECT crsql_as_crr('t')");
    // Nothing tells what was written meanwhile, so every cell is written once more.
    assert_eq!(versions(&site), [3; 10]);
    update_each(&site);
    site.one::<String>("SELECT crsql_begin_alter('t')");
    site.exec("ALTER TABLE t ADD COLUMN c DEFAULT 1");
    site.one::<String>("SELECT crsql_commit_alter('t')");
    assert_eq!(versions(&site), [4; 10]);
    update_each(&site);
    site.exec(
        "CREATE TABLE u AS SELECT * FROM t; DROP TABLE t; CREATE TABLE t(id INTEGER PRIMARY KEY, a, b, c DEFAULT 1)",
    );
    site.exec("INSERT INTO t SELECT * FROM u; DROP TABLE u");
    site.one::<i64>("SELECT starling_resume()");
    assert_eq!(versions(&site), [6; 10]);
    ledger::check(&site);
    update_each(&site);
    // Its clocks are in force while it is gone, and move when somebody else's write asks for it.
    site.exec("DROP TABLE t; CREATE TABLE u(id INTEGER PRIMARY KEY, a)");
    site.one::<i64>("SELECT starling_resume()");
    site.one::<String>("SELECT crsql_as_crr('u')");
    site.exec("INSERT INTO u VALUES(1, 1); UPDATE u SET a = 2; UPDATE u SET a = 3");
    site.one::<i64>("SELECT starling_prune(0)");
    assert_eq!(versions(&site), [3]);
    ledger::check(&site);
}

#[test]
fn a_failed_commit_that_is_retried_or_given_up_leaves_the_clocks_as_they_are_to_be() {
    let dir = dir();
    let path = dir.path().join("a.db");
    let site = young(&path);
    site.exec("PRAGMA journal_mode = delete");
    site.db.busy_timeout(std::time::Duration::ZERO).expect("no patience");
    let reader = Site::open(&path);
    for retried in [true, false] {
        reader.exec("BEGIN; SELECT count(*) FROM t");
        let mut hold = reader.db.prepare("SELECT * FROM t").expect("it prepares");
        let mut rows = hold.query([]).expect("it runs");
        assert!(rows.next().expect("a row").is_some());
        let before = reader.changes();
        // The flush is done, the commit is not: what follows is a second flush of the same record.
        site.exec("BEGIN; UPDATE t SET a = a + 1 WHERE id = 1");
        assert!(site.refused("COMMIT").contains("locked"));
        assert_eq!(reader.changes(), before);
        site.exec("UPDATE t SET a = a + 1 WHERE id = 2; UPDATE t SET a = a + 1 WHERE id = 1");
        assert!(site.refused("COMMIT").contains("locked"));
        drop(rows);
        drop(hold);
        reader.exec("COMMIT");
        site.exec(if retried { "COMMIT" } else { "ROLLBACK" });
        // One of a single statement, which is rolled back by itself.
        let mut hold = reader.db.prepare("SELECT * FROM t").expect("it prepares");
        let mut rows = hold.query([]).expect("it runs");
        assert!(rows.next().expect("a row").is_some());
        assert!(site.refused("UPDATE t SET a = a + 1 WHERE id = 3").contains("locked"));
        drop(rows);
        assert_eq!(versions(&site), [4, 3, 2, 2, 2, 2, 2, 2, 2, 2]);
        assert_eq!(site.changes(), reader.changes());
    }
    ledger::check(&site);
}

#[test]
fn a_row_of_more_than_a_thousand_columns_is_deleted_while_the_record_that_wrote_it_is_the_newest() {
    let columns: String = (0..1100).map(|i| format!(", c{i} DEFAULT 0")).collect();
    let wide = format!("CREATE TABLE w(id INTEGER PRIMARY KEY{columns})");
    let site = Site::memory().with(&[T, ("w", &wide)]);
    let set = |value: u32| (0..1100).map(|i| format!("c{i} = {value}")).collect::<Vec<_>>().join(", ");
    site.exec("INSERT INTO w(id) VALUES(1), (2); INSERT INTO t VALUES(1, 1, 1); UPDATE t SET a = 2");
    site.exec(&format!("UPDATE w SET {} WHERE id = 1", set(1)));
    for between in ["", "UPDATE t SET a = a + 1"] {
        site.exec(between);
        // A small transaction that outlives a whole record.
        site.exec("DELETE FROM w WHERE id = 1; INSERT INTO w(id) VALUES(1)");
        site.exec(&format!("UPDATE w SET {} WHERE id = 1", set(2)));
    }
    let other = Site::memory().with(&[T, ("w", &wide)]);
    other.pull(&site);
    assert_eq!((other.changes(), other.vector()), (site.changes(), site.vector()));
    ledger::check(&site);
}

#[test]
fn two_connections_that_take_turns_within_and_without_transactions_see_each_other_s_clocks() {
    for journal in ["wal", "delete"] {
        let dir = dir();
        let path = dir.path().join("a.db");
        let site = young(&path);
        site.exec(&format!("PRAGMA journal_mode = {journal}"));
        let other = Site::open(&path);
        other.exec("PRAGMA trusted_schema = OFF");
        for id in 1..=10 {
            other.changes();
            site.exec(&format!("UPDATE t SET a = a + 1 WHERE id = {id}"));
            other.exec(&format!("BEGIN; UPDATE t SET a = a + 1 WHERE id = {id}; SAVEPOINT s"));
            assert_eq!(versions(&other)[id - 1], 4);
            // The second flush moves the clocks, and the savepoint takes that back.
            other.exec("UPDATE t SET a = a + 1");
            assert_eq!(versions(&other)[id - 1], 5);
            other.exec("ROLLBACK TO s");
            assert_eq!(versions(&other)[id - 1], 4);
            other.exec(&format!("{}; ", if id % 3 == 0 { "UPDATE t SET b = b + 1; COMMIT" } else { "COMMIT" }));
            assert_eq!(site.changes(), other.changes());
        }
        assert_eq!(versions(&site), [4; 10]);
        ledger::check(&site);
    }
}
