//! A call that waits for the write lock finds the table as who held it left it.

use starling_tests::site::{open, Site};
use starling_tests::wait::until;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Duration;

/// How often somebody was told that the file is locked.
static WAITED: AtomicUsize = AtomicUsize::new(0);
/// One at a time, as they share the counter.
static ALONE: Mutex<()> = Mutex::new(());

fn waits(_: i32) -> bool {
    WAITED.fetch_add(1, Ordering::SeqCst);
    thread::sleep(Duration::from_millis(1));
    true
}

/// Runs a call of another connection's, which waits for the lock that `a` holds for this migration.
fn call_while_locked(a: &Site, path: &Path, migration: &str, call: &'static str) {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let before = WAITED.load(Ordering::SeqCst);
    a.exec(&format!("BEGIN IMMEDIATE; {migration}"));
    let path = path.to_path_buf();
    let other = thread::spawn(move || {
        let mut b = open(&path).expect("the file opens");
        b.busy_handler(Some(waits)).expect("it is set");
        b.query_row(call, [], |_| Ok(())).expect("it is done");
    });
    until("the other one waits", Duration::from_secs(20), || WAITED.load(Ordering::SeqCst) > before);
    a.exec("COMMIT");
    other.join().expect("it did not panic");
}

#[test]
fn a_table_that_is_altered_while_a_call_waits_for_the_lock_is_armed_as_it_is_then() {
    for (alteration, update, values) in [
        ("ALTER TABLE t ADD COLUMN c", "UPDATE t SET c = 5 WHERE id = 1", "1|1|1|5"),
        ("ALTER TABLE t DROP COLUMN b", "UPDATE t SET a = 5 WHERE id = 1", "1|5"),
        ("ALTER TABLE t RENAME COLUMN b TO bb", "UPDATE t SET bb = 5 WHERE id = 1", "1|1|5"),
    ] {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("a.db");
        let a = Site::file(&path).with(&[("t", "CREATE TABLE t(id INTEGER PRIMARY KEY, a, b)")]);
        a.exec("INSERT INTO t VALUES(1, 1, 1)");
        let window = format!("SELECT crsql_begin_alter('t'); {alteration}; SELECT crsql_commit_alter('t')");
        call_while_locked(&a, &path, &window, "SELECT crsql_as_crr('t', 'exact')");
        a.exec(update);
        assert_eq!(a.rows("SELECT * FROM t"), [values]);
        let shape: String = a.one("SELECT sql FROM sqlite_master WHERE name = 't'");
        let fresh = Site::memory().with(&[("t", &shape)]);
        fresh.pull(&a);
        assert_eq!(fresh.rows("SELECT * FROM t"), [values], "{alteration}");
        assert_eq!(a.one::<i64>("SELECT max(col_version) FROM crsql_changes WHERE cid IN ('a', 'b', 'bb')"), {
            1 + i64::from(!update.contains('c'))
        });
    }
}

#[test]
fn a_list_is_ordered_once_the_lock_is_free() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("a.db");
    let a = Site::file(&path).with(&[("t", "CREATE TABLE t(id INTEGER PRIMARY KEY, a, place TEXT)")]);
    a.exec("INSERT INTO t VALUES(1, 1, 'x')");
    call_while_locked(&a, &path, "INSERT INTO t VALUES(2, 2, 'y')", "SELECT crsql_fract_as_ordered('t', 'place')");
    assert_eq!(a.one::<i64>("SELECT count(*) FROM t WHERE starling_fract_is_key(place)"), 2);
}
