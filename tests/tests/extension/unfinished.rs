//! Statements that are not read to their end, around BEGIN: SQLite numbers their savepoints anew, and mixes them up.

use rusqlite::Connection;
use starling_tests::site::Site;

const T: &str = "CREATE TABLE t(id INTEGER PRIMARY KEY, a, b)";
const ROWS: &str = "INSERT INTO t VALUES(1, 1, 0), (2, 1, 0), (3, 1, 0), (8, 1, 0), (9, 1, 0)";

fn site() -> Site {
    let site = Site::memory().with(&[("t", T)]);
    site.exec(ROWS);
    site
}

/// What another node is told is what is there.
fn assert_told(site: &Site, context: &str) {
    let peer = Site::memory().with(&[("t", T)]);
    peer.pull(site);
    assert_eq!(peer.rows("SELECT * FROM t"), site.rows("SELECT * FROM t"), "{context}");
}

/// SQLite has undone more than the statement that failed.
fn assert_refused(site: &Site, committed: rusqlite::Result<()>) {
    let error = committed.expect_err("it is not to be committed").to_string();
    assert!(error.contains("can only be rolled back"), "{error}");
    assert_told(site, "nothing is told that did not happen");
}

/// Runs `then` while a SELECT and this statement have given one row each; both are finished before the COMMIT.
fn with_unfinished(db: &Connection, sql: &str, then: impl FnOnce()) -> rusqlite::Result<()> {
    let mut reader = db.prepare("SELECT * FROM sqlite_master").expect("it compiles");
    let mut reading = reader.query([]).expect("it runs");
    reading.next().expect("it reads").expect("there is a row");
    let mut writer = db.prepare(sql).expect("it compiles");
    let mut writing = writer.query([]).expect("it runs");
    writing.next().expect("it writes").expect("there is a row");
    db.execute_batch("BEGIN").expect("it begins");
    then();
    drop(writing);
    drop(reading);
    db.execute_batch("COMMIT")
}

#[test]
fn what_sqlite_undoes_with_a_failed_statement_of_another_is_not_lost_in_silence() {
    for unfinished in
        ["UPDATE t SET a = a + 1 WHERE id < 4 RETURNING id", "INSERT INTO t VALUES(40, 1, 0), (41, 1, 0) RETURNING id"]
    {
        let site = site();
        let committed = with_unfinished(&site.db, unfinished, || {
            site.exec("DELETE FROM t WHERE id = 8");
            site.refused("INSERT INTO t VALUES(30, 0, 0), (9, 0, 0)");
        });
        assert_refused(&site, committed);
    }
}

/// The pager opens all savepoints below the one that it is asked for, and keeps them when that one ends.
#[test]
fn savepoints_that_sqlite_does_not_tell_of_are_open_all_the_same() {
    let returning = "UPDATE t SET a = a + 1 WHERE id < 9 RETURNING id";
    let two = site();
    let (mut first, mut second) =
        (two.db.prepare(returning).expect("it compiles"), two.db.prepare(returning).expect("it compiles"));
    two.exec("BEGIN");
    let (mut a, mut b) = (first.query([]).expect("it runs"), second.query([]).expect("it runs"));
    assert!(a.next().expect("a row").is_some() && b.next().expect("a row").is_some());
    drop(a);
    two.exec("INSERT INTO t VALUES(6, 6, 6), (7, 7, 7); DELETE FROM t WHERE id = 8");
    while b.next().expect("it goes on").is_some() {}
    drop(b);
    two.refused("INSERT INTO t VALUES(30, 0, 0), (9, 0, 0)");
    assert_refused(&two, two.db.execute_batch("COMMIT"));

    // A plain table's statement that began while another one read, and a CRR that is written before and after BEGIN.
    let plain = site();
    plain.exec("CREATE TABLE p(id INTEGER PRIMARY KEY, x UNIQUE)");
    let mut reader = plain.db.prepare("SELECT * FROM t").expect("it compiles");
    let mut reading = reader.query([]).expect("it runs");
    assert!(reading.next().expect("a row").is_some());
    let mut writer = plain.db.prepare("INSERT INTO p(x) VALUES(1), (7) RETURNING 1").expect("it compiles");
    let mut writing = writer.query([]).expect("it runs");
    assert!(writing.next().expect("a row").is_some());
    drop(reading);
    plain.exec("INSERT INTO t VALUES(6, 6, 6), (7, 7, 7); DELETE FROM t WHERE id = 8; BEGIN");
    plain.refused("INSERT INTO t VALUES(30, 0, 0), (9, 0, 0)");
    drop(writing);
    assert_refused(&plain, plain.db.execute_batch("COMMIT"));
}

#[test]
fn where_no_statement_fails_all_of_it_is_told() {
    let site = site();
    let unfinished = "UPDATE t SET a = a + 1 WHERE id < 4 RETURNING id";
    with_unfinished(&site.db, unfinished, || site.exec("DELETE FROM t WHERE id = 8; UPDATE t SET b = 1 WHERE id > 2"))
        .expect("it is committed");
    assert_eq!(site.rows("SELECT * FROM t"), ["1|2|0", "2|2|0", "3|2|1", "9|1|1"]);
    assert_told(&site, "");
}

#[test]
fn a_failed_statement_within_savepoints_undoes_itself_alone() {
    let site = site();
    site.exec("BEGIN; UPDATE t SET a = 5 WHERE id = 1; SAVEPOINT x; DELETE FROM t WHERE id = 8");
    site.refused("INSERT INTO t VALUES(30, 0, 0), (9, 0, 0)");
    site.exec(
        "SAVEPOINT y; UPDATE t SET a = 6 WHERE id = 2; ROLLBACK TO y; RELEASE x; UPDATE t SET a = 7 WHERE id = 3",
    );
    site.refused("INSERT INTO t VALUES(31, 0, 0), (9, 0, 0)");
    site.exec("COMMIT");
    assert_eq!(site.rows("SELECT * FROM t"), ["1|5|0", "2|1|0", "3|7|0", "9|1|0"]);
    assert_told(&site, "");
}

/// Nine values that wait to be logged, and a read of the changes that is interrupted while they are.
#[test]
fn nine_values_whose_log_was_interrupted_are_committed_whole_or_the_commit_says_why_not() {
    for steps in (1..400).step_by(3) {
        let mut site = site();
        site.exec("BEGIN");
        for seq in 0..20 {
            site.exec(&format!(
                "INSERT INTO crsql_changes VALUES('t', crsql_pack_columns({}), 'a', 'v', 1, 50, x'0b', 1, {seq})",
                100 + seq
            ));
        }
        let mut left = steps;
        let interrupt = move || {
            left -= 1;
            left == 0
        };
        site.db.progress_handler(1, Some(interrupt)).expect("it is set");
        let read = site.db.query_row("SELECT count(*) FROM crsql_changes", [], |_| Ok(()));
        site.db.progress_handler(0, None::<fn() -> bool>).expect("it is set");
        if site.db.is_autocommit() {
            continue;
        }
        match site.db.execute_batch("COMMIT") {
            Ok(()) => {
                assert_told(&site, &format!("step {steps}"));
            }
            Err(e) => {
                assert!(read.is_err(), "{steps}: {e}");
                assert!(e.to_string().contains("can only be rolled back"), "{steps}: {e}");
            }
        }
    }
}
