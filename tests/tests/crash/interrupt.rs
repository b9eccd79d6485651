//! `sqlite3_interrupt` at any point of a call. It lasts until the last running statement has ended, so whatever is interrupted
//! cannot run any SQL to clean up after itself. (A progress handler's, in `full`, stops one statement.)

use super::setting;
use rusqlite::Result;
use starling_tests::random::Random;
use starling_tests::site::{Change, Site};
use starling_tests::workload::{check, content, meet, step, transaction, TABLES};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::Arc;

/// Every 7 steps of SQLite's machine the fuse burns down by one; at its end somebody interrupts the connection.
fn light(site: &mut Site) -> Arc<AtomicU64> {
    let fuse = Arc::new(AtomicU64::new(0));
    let (burning, handle) = (Arc::clone(&fuse), site.db.get_interrupt_handle());
    let burn = move || {
        let left = burning.load(Ordering::Relaxed);
        burning.store(left.saturating_sub(1), Ordering::Relaxed);
        if left == 1 {
            handle.interrupt();
        }
        false
    };
    site.db.progress_handler(7, Some(burn)).expect("a handler can be set");
    fuse
}

fn state(site: &Site) -> (Vec<String>, Vec<Change>, Vec<u8>) {
    (content(site), site.changes(), site.vector())
}

/// Whether it gave a row, and how it ended: an interrupt that comes after the work is done is still told.
fn select(site: &Site, sql: &str) -> (bool, Result<()>) {
    let mut told = false;
    let mut run = || -> Result<()> {
        let mut stmt = site.db.prepare(sql)?;
        let mut rows = stmt.query([])?;
        while rows.next()?.is_some() {
            told = true;
        }
        Ok(())
    };
    let ended = run();
    (told, ended)
}

fn schema(site: &Site) -> Vec<String> {
    site.rows("SELECT name, sql FROM sqlite_master WHERE name NOT LIKE 'crsql_clock%' ORDER BY 1, 2")
}

/// Calls it with ever longer fuses until it goes through, outside of a transaction or in one. Returns how often it did not.
fn until_it_ends(site: &Site, fuse: &AtomicU64, sql: &str, within: bool) -> u64 {
    let mut burns = 0;
    for attempt in 0.. {
        burns += 1 + burns * 4 / setting("STARLING_CRASH_STEPS", 20);
        let before = (state(site), schema(site));
        if within {
            site.exec("BEGIN; UPDATE t SET a = 'within'");
        }
        fuse.store(burns, Ordering::Relaxed);
        let (told, outcome) = select(site, sql);
        fuse.store(0, Ordering::Relaxed);
        let what = format!("{sql}, interrupted after {burns}");
        let committed = within && !site.db.is_autocommit() && site.db.execute_batch("COMMIT").is_ok();
        if within && !site.db.is_autocommit() {
            site.exec("ROLLBACK");
            assert!(outcome.is_err(), "{what}: it told nobody but the COMMIT");
        }
        assert!(site.db.is_autocommit(), "{what}: a transaction was left open: {outcome:?}");
        match outcome {
            Ok(()) => return attempt,
            Err(e) => assert!(e.to_string().contains("interrupt"), "{what}: it failed for another reason: {e}"),
        }
        if told {
            return attempt;
        }
        assert!(schema(site) == before.1, "{what}: something was left");
        if committed {
            assert_eq!(
                site.one::<i64>("SELECT count(*) FROM t WHERE a IS NOT 'within'"),
                0,
                "{what}: the rest went too"
            );
        } else {
            assert!(state(site) == before.0, "{what}: something was left");
        }
    }
    unreachable!("there is an end of it")
}

fn written(seed: u64, by: &str) -> Site {
    let site = Site::memory().with(TABLES);
    let mut r = Random::new(seed);
    for n in 0..6 {
        let _ = transaction(&site.db, &step(&mut r, 1_000 * seed + n, by));
    }
    site
}

/// What writes though it looks like a read, each with what must be there before.
const CALLS: &[(&str, &str)] = &[
    ("CREATE TABLE p(id INTEGER PRIMARY KEY, a); INSERT INTO p VALUES(1, 1), (2, 2)", "SELECT crsql_as_crr('p')"),
    ("CREATE TABLE p(id INTEGER PRIMARY KEY, a); INSERT INTO p VALUES(1, 1)", "SELECT crsql_as_crr('p', 'portable')"),
    ("", "SELECT crsql_as_table('t')"),
    ("", "SELECT crsql_begin_alter('t')"),
    ("CREATE INDEX i ON t(a)", MIGRATE),
    (LIST, "SELECT crsql_fract_as_ordered('o', 'at')"),
    ("ALTER TABLE t ADD COLUMN late DEFAULT 7", "SELECT starling_resume()"),
    ("UPDATE t SET a = 1; UPDATE t SET a = 2; UPDATE t SET a = 3", "SELECT starling_prune(100000)"),
    ("", "SELECT starling_new_epoch()"),
    ("", "SELECT starling_new_site()"),
    ("INSERT INTO t(id) VALUES('new')", NINE),
    ("", "UPDATE t SET b = 7"),
];

const MIGRATE: &str = "SELECT crsql_automigrate('CREATE TABLE t(id TEXT NOT NULL PRIMARY KEY, b INTEGER, c); \
                       CREATE TABLE k(x INTEGER NOT NULL, y BLOB NOT NULL, PRIMARY KEY(x, y)) WITHOUT ROWID; \
                       CREATE TABLE done(n INTEGER PRIMARY KEY, by TEXT, more TEXT)')";
const LIST: &str = "CREATE TABLE o(id INTEGER PRIMARY KEY, at TEXT NOT NULL DEFAULT ''); SELECT crsql_as_crr('o'); \
                    INSERT INTO o VALUES(1, 'a')";
const NINE: &str = "INSERT INTO crsql_changes VALUES('t', crsql_pack_columns('new'), 'a', 5, 9, 99, x'0f', 1, 0)";

fn cases(within: bool) {
    let mut failures = 0;
    // Outside of a transaction that one is meant to leave one open.
    for (before, sql) in CALLS.iter().filter(|(_, sql)| within || !sql.contains("begin_alter")) {
        let mut site = written(1, "a");
        site.exec(before);
        let fuse = light(&mut site);
        let failed = until_it_ends(&site, &fuse, sql, within);
        println!("{failed} times interrupted: {sql}");
        failures += failed;
        assert_eq!(site.one::<String>("PRAGMA integrity_check"), "ok");
    }
    assert!(failures > 200, "hardly ever interrupted: {failures}");
}

#[test]
fn what_writes_in_a_query_outside_of_a_transaction_leaves_none_open_and_nothing_in_half() {
    cases(false);
}

#[test]
fn what_writes_in_a_query_within_a_transaction_is_undone_or_spoils_it() {
    cases(true);
}

#[test]
fn a_merge_outside_of_a_transaction_leaves_none_open_and_nothing_in_half() {
    let (mut a, b) = (written(1, "a"), written(2, "b"));
    let fuse = light(&mut a);
    let mut failures = 0;
    for (part, _) in b.answer(&a.vector()).0 {
        let hex: String = part.iter().map(|b| format!("{b:02x}")).collect();
        failures += until_it_ends(&a, &fuse, &format!("SELECT starling_merge(x'{hex}')"), false);
    }
    assert!(failures > 50, "it was hardly ever interrupted: {failures}");
    check(&a);
    meet(&a, &b);
}
