//! Connections that share a cache: they see each other's commits sooner, and with `read_uncommitted` what was never committed.

use rusqlite::{Connection, OpenFlags};
use starling_tests::pause::while_it_commits;
use starling_tests::site::{open_with, Site};
use std::path::Path;

const T: &str = "CREATE TABLE t(id INTEGER PRIMARY KEY, v)";

fn sharing(path: &Path) -> Connection {
    let db = open_with(path, OpenFlags::default() | OpenFlags::SQLITE_OPEN_SHARED_CACHE);
    db.expect("the file opens")
}

fn site(db: Connection) -> Site {
    Site { db }
}

fn two_that_share(path: &Path) -> (Site, Site) {
    let a = site(sharing(path));
    a.exec(&format!("PRAGMA journal_mode = WAL; {T}; SELECT crsql_as_crr('t')"));
    a.exec("INSERT INTO t VALUES(1, 'old'); INSERT INTO t VALUES(3, 'old')");
    let b = site(sharing(path));
    b.one::<i64>("SELECT count(*) FROM crsql_changes");
    (a, b)
}

/// A commits, and before it has heard of that, the other one does this.
fn commit_and_meanwhile(a: &Site, other: Connection, sql: &'static str) {
    let done = while_it_commits(&a.db, move || other.execute_batch(sql).expect("it commits"));
    a.exec("BEGIN; INSERT INTO pause VALUES(1); INSERT INTO t VALUES(2, 'two'); COMMIT");
    assert!(done(), "the other one had its turn");
}

#[test]
fn who_commits_while_another_connection_of_the_cache_does_so_too_knows_that_it_did() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("a.db");
    let (a, b) = two_that_share(&path);
    commit_and_meanwhile(&a, sharing(&path), "UPDATE t SET v = 'new' WHERE id = 1");
    a.exec("INSERT INTO t VALUES(4, 'four')");
    a.exec("UPDATE t SET v = 'newer' WHERE id = 1");
    assert_eq!(b.one::<i64>("SELECT col_version FROM crsql_changes WHERE pk = x'010901' AND cid = 'v'"), 3);
    assert_eq!(a.changes(), b.changes());
}

#[test]
fn a_row_that_another_connection_of_the_cache_deleted_meanwhile_begins_its_next_lifetime() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("a.db");
    let (a, b) = two_that_share(&path);
    commit_and_meanwhile(&a, sharing(&path), "DELETE FROM t WHERE id = 1");
    a.exec("INSERT INTO t VALUES(1, 'again')");
    assert_eq!(b.one::<i64>("SELECT cl FROM crsql_changes WHERE pk = x'010901' AND cid = 'v'"), 3);
    let fresh = Site::memory().with(&[("t", T)]);
    fresh.pull(&b);
    assert_eq!(fresh.rows("SELECT * FROM t"), b.rows("SELECT * FROM t"));
}

#[test]
fn what_was_read_uncommitted_and_rolled_back_is_believed_by_nobody() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("a.db");
    let b = site(sharing(&path));
    let (a, _) = two_that_share(&path);
    b.exec("PRAGMA read_uncommitted = 1");
    let known: Vec<u8> = a.one("SELECT crsql_site_id()");
    a.exec(
        "BEGIN; SELECT starling_new_site(); INSERT INTO t VALUES(2, 'never'); UPDATE t SET v = 'never' WHERE id = 1",
    );
    assert_ne!(b.one::<Vec<u8>>("SELECT crsql_site_id()"), known, "it is seen");
    b.changes();
    a.exec("ROLLBACK");
    b.exec("INSERT INTO t VALUES(7, 'seven'); UPDATE t SET v = 'new' WHERE id = 1");
    assert_eq!(b.one::<Vec<u8>>("SELECT crsql_site_id()"), known);
    assert_eq!(a.changes(), b.changes());
    let fresh = Site::memory().with(&[("t", T)]);
    fresh.pull(&a);
    assert_eq!(fresh.rows("SELECT * FROM t"), ["1|'new'", "3|'old'", "7|'seven'"]);
}
