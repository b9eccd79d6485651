//! Something of the connection's own gets in the way once (a permission, an interrupt), at any point: it is told, or nothing comes of
//! it. It is never taken for something that the schema or a row says.

use rusqlite::hooks::{AuthAction, AuthContext, Authorization};
use starling_tests::site::{plain, Site};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::Arc;

const NOBODY: Option<fn(AuthContext<'_>) -> Authorization> = None;
const NO_HANDLER: Option<fn() -> bool> = None;

/// Denies the question number `n` of those that `asked` looks for. The counter says how many there were.
fn deny_once(s: &mut Site, n: usize, asked: fn(&AuthAction<'_>) -> bool) -> Arc<AtomicUsize> {
    let count = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&count);
    let judge = move |context: AuthContext<'_>| {
        let hit = asked(&context.action) && counted.fetch_add(1, Ordering::Relaxed) + 1 == n;
        if hit {
            Authorization::Deny
        } else {
            Authorization::Allow
        }
    };
    s.db.authorizer(Some(judge)).expect("an authorizer");
    count
}

/// Interrupts at the `n`th step of SQLite's machine, once. The counter says how many there were.
fn interrupt_once(s: &mut Site, n: usize) -> Arc<AtomicUsize> {
    let count = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&count);
    let judge = move || counted.fetch_add(1, Ordering::Relaxed) + 1 == n;
    s.db.progress_handler(1, Some(judge)).expect("a progress handler");
    count
}

#[test]
fn e7_a_table_is_not_let_go_because_a_question_about_it_failed() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut hits = 0;
    for n in 1..12 {
        let path = dir.path().join(format!("{n}.db"));
        let mut s = Site::open(&path);
        s.exec("CREATE TABLE t(id INTEGER PRIMARY KEY, a); SELECT crsql_as_crr('t'); INSERT INTO t VALUES(1, 'x')");
        plain(&path).execute_batch("CREATE TABLE other(x)").expect("a migration");
        let reads = |action: &AuthAction<'_>| matches!(action, AuthAction::Read { table_name: "t", .. });
        let count = deny_once(&mut s, n, reads);
        let _ = s.db.query_row("SELECT starling_resume()", [], |_| Ok(()));
        s.db.authorizer(NOBODY).expect("none");
        hits += usize::from(count.load(Ordering::Relaxed) >= n);
        s.exec("UPDATE t SET a = 'written'");
        assert_eq!(s.rows("SELECT val, col_version FROM crsql_changes"), ["'written'|2"], "question {n}");
    }
    assert!(hits > 0, "nothing was denied");
}

#[test]
fn an_interrupt_does_not_end_the_transaction_unsaid() {
    for call in ["SELECT count(*) FROM crsql_changes", "SELECT starling_vector()", "SELECT crsql_begin_alter('t')"] {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("a.db");
        Site::open(&path)
            .exec("CREATE TABLE t(id INTEGER PRIMARY KEY, a); SELECT crsql_as_crr('t'); CREATE TABLE plain(x)");
        let mut n = 0;
        loop {
            n += 1;
            let mut s = Site::open(&path);
            s.exec("BEGIN; INSERT INTO plain VALUES(1)");
            let count = interrupt_once(&mut s, n);
            let called = s.db.query_row(call, [], |_| Ok(()));
            s.db.progress_handler(1, NO_HANDLER).expect("none");
            assert!(
                called.is_err() || !s.db.is_autocommit(),
                "{call}, step {n}: the transaction is gone, and nobody says so"
            );
            if !s.db.is_autocommit() {
                assert_eq!(s.one::<i64>("SELECT count(*) FROM plain"), 1, "{call}, step {n}");
                s.exec("ROLLBACK");
            }
            assert!(s.db.close().is_ok(), "{call}, step {n}: the connection cannot be closed");
            if count.load(Ordering::Relaxed) < n {
                break;
            }
        }
        assert!(n > 40, "{call} takes more steps than that: {n}");
    }
}

#[test]
fn a_connection_can_be_closed_after_an_interrupt_within_a_transaction() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("a.db");
    Site::open(&path).exec("CREATE TABLE t(id INTEGER PRIMARY KEY, a); SELECT crsql_as_crr('t')");
    for n in 1..200 {
        let mut s = Site::open(&path);
        s.exec("BEGIN");
        let _count = interrupt_once(&mut s, n);
        let _ = s.db.query_row("SELECT starling_resume()", [], |_| Ok(()));
        s.db.progress_handler(1, NO_HANDLER).expect("none");
        assert!(s.db.close().is_ok(), "step {n}");
    }
}

#[test]
fn a_merge_that_may_not_ask_something_loses_nothing() {
    let table = ("t", "CREATE TABLE t(id INTEGER PRIMARY KEY, a)");
    let from = Site::memory().with(&[table]);
    from.exec("INSERT INTO t VALUES(1, 'x')");
    let mut hits = 0;
    for n in 1..400 {
        let mut s = Site::memory().with(&[table]);
        s.exec("CREATE TRIGGER mine AFTER INSERT ON t BEGIN SELECT 1; END");
        let count = deny_once(&mut s, n, |_| true);
        let (parts, _) = from.answer(&[1, 0]);
        parts.iter().for_each(|(part, _)| drop(s.merge(part)));
        s.db.authorizer(NOBODY).expect("none");
        s.pull(&from);
        let other = Site::memory().with(&[table]);
        other.pull(&s);
        assert_eq!(other.rows("SELECT * FROM t"), ["1|'x'"], "question {n}");
        hits += 1;
        if count.load(Ordering::Relaxed) < n {
            break;
        }
    }
    assert!(hits > 20, "more is asked than that: {hits}");
}

#[test]
fn what_reads_and_drains_leaves_the_last_rowid_alone() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("a.db");
    let early = Site::file(&path);
    early.exec("CREATE TABLE t(id INTEGER PRIMARY KEY, a); SELECT crsql_as_crr('t')");
    Site::file(&path).exec("SELECT crsql_as_crr('t', 'portable')");
    for call in [
        "SELECT count(*) FROM crsql_changes",
        "SELECT starling_vector()",
        "SELECT starling_drain()",
        "SELECT crsql_config_set('merge-equal-values', 1)",
    ] {
        plain(&path).execute_batch("INSERT INTO t(a) VALUES(1)").expect("plain SQLite writes it");
        early.exec("INSERT INTO t VALUES(abs(random() % 1000000) + 1000, 2)");
        let rowid = early.db.last_insert_rowid();
        early.exec(call);
        assert_eq!(early.db.last_insert_rowid(), rowid, "{call}");
    }
}
