//! Other names, other files, other connections: what may stand beside a CRR without being taken for it.

use rusqlite::backup::Backup;
use rusqlite::{Connection, MAIN_DB};
use starling_tests::seen::{observe, rows, same, Seen};
use starling_tests::site::Site;
use std::path::Path;
use std::time::Duration;

const TABLE: &str = "CREATE TABLE t(id INTEGER PRIMARY KEY, a)";

fn crr() -> Site {
    Site::memory().with(&[("t", TABLE)])
}

/// A file without WAL and without waiting, as a CRR or plain.
fn file(path: &Path, armed: bool) -> Site {
    let s = Site::file(path);
    s.db.busy_timeout(Duration::ZERO).expect("a timeout can be set");
    if armed {
        s.exec(TABLE);
        s.one::<String>("SELECT crsql_as_crr('t')");
    }
    s
}

#[test]
fn a_temporary_table_or_view_of_the_same_name_is_left_alone() {
    for other in ["TABLE t(id INTEGER PRIMARY KEY, z)", "VIEW t AS SELECT 1 AS id, 2 AS z"] {
        let s = Site::memory();
        s.exec(&format!("CREATE TABLE t(id INTEGER PRIMARY KEY ON CONFLICT REPLACE, a); CREATE TEMP {other}"));
        s.one::<String>("SELECT crsql_as_crr('t')");
        assert_eq!(s.one::<i64>("SELECT count(*) FROM temp.sqlite_master WHERE type = 'trigger'"), 0);
        if other.starts_with("TABLE") {
            s.exec("INSERT INTO t VALUES(9, 9)");
            assert_eq!(s.one::<i64>("SELECT count(*) FROM crsql_changes"), 0);
        }
        s.exec("INSERT INTO main.t VALUES(1, 1), (1, 2), (2, 2); UPDATE main.t SET id = 3 WHERE id = 2");
        let replica = crr();
        replica.exec(&format!("CREATE TEMP {other}"));
        let before = replica.rows("SELECT * FROM temp.t");
        replica.pull(&s);
        assert_eq!(replica.rows("SELECT * FROM main.t"), ["1|2", "3|2"]);
        assert_eq!(replica.rows("SELECT * FROM temp.t"), before);
        s.one::<String>("SELECT crsql_as_table('t')");
        assert_eq!(s.one::<i64>("SELECT count(*) FROM main.sqlite_master WHERE type = 'trigger'"), 0);
    }
}

#[test]
fn a_write_to_an_attached_copy_is_not_taken_for_one_to_main() {
    let dir = tempfile::tempdir().expect("a directory");
    let (path, copy) = (dir.path().join("a.db"), dir.path().join("copy.db"));
    let s = file(&path, true);
    s.exec("INSERT INTO t VALUES(1, 1)");
    s.exec(&format!("VACUUM INTO '{}'", copy.display()));
    s.exec(&format!("ATTACH '{}' AS \"a copy\"", copy.display()));
    let message = s.refused("INSERT INTO \"a copy\".t VALUES(5, 5)");
    assert!(message.contains("attached database \"a copy\" is a copy"), "{message}");
    // Reading the copy is fine, and so is writing to main.
    s.exec("INSERT INTO main.t SELECT id + 1, a FROM \"a copy\".t");
    s.exec("BEGIN; CREATE TABLE \"a copy\".x(y)");
    assert!(s.refused("INSERT INTO main.t VALUES(7, 7)").contains("is a copy"));
    s.exec("ROLLBACK; DETACH \"a copy\"; BEGIN; INSERT INTO t VALUES(7, 7)");
    // Attached in the middle of a transaction.
    s.exec(&format!("ATTACH '{}' AS later", copy.display()));
    assert!(s.refused("INSERT INTO later.t VALUES(8, 8)").contains("\"later\" is a copy"));
    s.exec("COMMIT");
    assert_eq!(s.rows("SELECT val, db_version FROM crsql_changes"), ["1|1", "1|2", "7|3"]);
    assert_eq!(s.rows("SELECT id FROM later.t"), ["1"]);
}

#[test]
fn other_attached_files_do_not_matter_and_an_attached_crr_says_why_not() {
    let dir = tempfile::tempdir().expect("a directory");
    let (plain, other) = (dir.path().join("plain.db"), dir.path().join("other.db"));
    Connection::open(&plain)
        .and_then(|c| c.execute_batch("CREATE TABLE p(x); INSERT INTO p VALUES(5)"))
        .expect("a file");
    drop(file(&other, true));
    let s = crr();
    s.exec(&format!("ATTACH '{}' AS p; ATTACH '{}' AS o; ATTACH ':memory:' AS m", plain.display(), other.display()));
    s.exec("CREATE TABLE m.t(id INTEGER PRIMARY KEY, a); INSERT INTO m.t VALUES(100, 100)");
    s.exec("BEGIN; INSERT INTO main.t SELECT x, 'from p' FROM p.p; INSERT INTO p.p VALUES(6); COMMIT");
    assert!(s.refused("INSERT INTO o.t VALUES(1, 1)").contains("CRR of an attached database file"));
    assert_eq!(s.rows("SELECT val FROM crsql_changes"), ["'from p'"]);
}

#[test]
fn a_restore_beneath_the_connection_brings_its_own_site_and_goes_on() {
    let (from, to) = (crr(), crr());
    from.exec("INSERT INTO t VALUES(1, 1)");
    to.exec("INSERT INTO t VALUES(2, 2)");
    let mut db = to.db;
    {
        let backup = Backup::new(&from.db, &mut db).expect("a backup begins");
        // Writing goes on at the source meanwhile.
        from.exec("INSERT INTO t VALUES(3, 3)");
        backup.run_to_completion(100, Duration::ZERO, None).expect("it is copied");
    }
    let to = Site { db };
    assert_eq!(to.one::<Vec<u8>>("SELECT crsql_site_id()"), from.one::<Vec<u8>>("SELECT crsql_site_id()"));
    to.exec("INSERT INTO t VALUES(4, 4)");
    assert_eq!(to.rows("SELECT val, db_version FROM crsql_changes"), ["1|1", "3|2", "4|3"]);
}

#[test]
fn a_database_can_be_deserialized_into_a_connection_that_was_just_opened() {
    let mut from = crr();
    from.exec("INSERT INTO t VALUES(1, 1)");
    let bytes = from.db.serialize(MAIN_DB).expect("it is serialized").to_vec();
    let mut to = Site::memory();
    to.db.deserialize_read_exact(MAIN_DB, &bytes[..], bytes.len(), false).expect("it is deserialized");
    // What was freed is used again by others.
    let _others: Vec<Site> = (0..4).map(|_| Site::memory()).collect();
    assert_eq!(to.one::<Vec<u8>>("SELECT crsql_site_id()"), from.one::<Vec<u8>>("SELECT crsql_site_id()"));
    to.exec("INSERT INTO t VALUES(2, 2)");
    assert_eq!(to.rows("SELECT val, db_version FROM crsql_changes"), ["1|1", "2|2"]);
}

/// What two connections on one file see, step by step: (which, SQL).
fn dialogue(journal: &str, armed: bool, steps: &[(usize, &str)]) -> (Vec<Seen>, Site) {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("a.db");
    let first = file(&path, armed);
    if !armed {
        first.exec(TABLE);
    }
    first.exec(&format!("PRAGMA journal_mode = {journal}; INSERT INTO t VALUES(1, 1), (2, 2)"));
    let connections = [first, file(&path, false)];
    connections[1].exec(&format!("PRAGMA journal_mode = {journal}"));
    let seen = steps
        .iter()
        .map(|(who, sql)| {
            let mut seen = observe(&connections[*who].db, sql);
            if sql.starts_with(['B', 'C', 'S']) {
                // After a COMMIT it counts the internal writes too (LIMITS.md).
                seen.changes = 0;
            }
            seen
        })
        .collect();
    let [first, _] = connections;
    (seen, first)
}

#[test]
fn busy_is_said_where_a_plain_table_says_it_and_the_transaction_can_go_on() {
    let commit_behind_a_reader: &[(usize, &str)] = &[
        (1, "BEGIN"),
        (1, "SELECT * FROM t"),
        (0, "BEGIN"),
        (0, "INSERT INTO t VALUES(3, 3)"),
        (0, "COMMIT"),
        (0, "UPDATE t SET a = a + 1 WHERE id = 3"),
        (0, "COMMIT"),
        (1, "COMMIT"),
        (0, "UPDATE t SET a = a + 1 WHERE id = 3"),
        (0, "COMMIT"),
        (1, "SELECT * FROM t"),
    ];
    let stale_snapshot: &[(usize, &str)] = &[
        (1, "BEGIN"),
        (1, "SELECT * FROM t"),
        (0, "INSERT INTO t VALUES(3, 3)"),
        (1, "INSERT INTO t VALUES(4, 4)"),
        (1, "COMMIT"),
        (1, "INSERT INTO t VALUES(4, 4)"),
        (0, "BEGIN IMMEDIATE"),
        (1, "INSERT INTO t VALUES(5, 5)"),
        (1, "BEGIN IMMEDIATE"),
        (0, "UPDATE t SET a = 0"),
        (1, "SELECT * FROM t"),
        (0, "COMMIT"),
        (1, "UPDATE t SET a = a + 1 WHERE id > 2"),
        (0, "SELECT * FROM t"),
    ];
    for journal in ["DELETE", "TRUNCATE", "PERSIST", "WAL"] {
        for steps in [commit_behind_a_reader, stale_snapshot] {
            let ((plain, _), (seen, site)) = (dialogue(journal, false, steps), dialogue(journal, true, steps));
            for ((step, plain), seen) in steps.iter().zip(&plain).zip(&seen) {
                same(&format!("{journal}: {step:?}"), plain, seen);
            }
            let replica = crr();
            replica.pull(&site);
            assert_eq!(replica.rows("SELECT * FROM t"), site.rows("SELECT * FROM t"), "{journal}");
        }
    }
}

#[test]
fn every_journal_mode_and_exclusive_locking_work() {
    for journal in ["DELETE", "TRUNCATE", "PERSIST", "MEMORY", "WAL", "OFF"] {
        let dir = tempfile::tempdir().expect("a directory");
        let s = file(&dir.path().join("a.db"), true);
        s.exec(&format!("PRAGMA journal_mode = {journal}; PRAGMA locking_mode = EXCLUSIVE"));
        s.exec(
            "INSERT INTO t VALUES(1, 1); BEGIN; INSERT INTO t VALUES(2, 2); COMMIT; UPDATE t SET a = 9 WHERE id = 1",
        );
        s.exec("PRAGMA locking_mode = NORMAL; VACUUM; REINDEX; ANALYZE; DELETE FROM t WHERE id = 2");
        assert_eq!(rows(&s.db, "PRAGMA integrity_check"), ["'ok'"], "{journal}");
        let replica = crr();
        replica.pull(&s);
        assert_eq!(replica.rows("SELECT * FROM t"), ["1|9"], "{journal}");
    }
}

#[test]
fn threads_with_a_connection_each_write_at_once() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("a.db");
    let s = file(&path, true);
    std::thread::scope(|scope| {
        for k in 1..=3 {
            let path = &path;
            scope.spawn(move || {
                let s = Site::file(path);
                for i in 0..60 {
                    s.exec(&format!(
                        "INSERT INTO t VALUES({k}000 + {i}, {i}); UPDATE t SET a = a + 1 WHERE id = {k}000"
                    ));
                }
            });
        }
    });
    assert_eq!(s.one::<i64>("SELECT count(*) FROM t"), 180);
    assert_eq!(s.one::<i64>("SELECT max(db_version) FROM crsql_changes"), 360);
    let replica = crr();
    replica.pull(&s);
    assert_eq!(replica.rows("SELECT * FROM t"), s.rows("SELECT * FROM t"));
}
