//! SQLITE_FULL at any point of a commit or a merge.

use super::setting;
use starling_tests::random::Random;
use starling_tests::site::Site;
use starling_tests::workload::{check, content, meet, merge_all, step, transaction, TABLES};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::Arc;

/// Lets the file grow by so many pages and no more.
fn room(site: &Site, pages: Option<u64>) {
    let now: i64 = site.one("PRAGMA page_count");
    let limit = pages.map_or(1 << 30, |p| now.cast_unsigned() + p);
    site.one::<i64>(&format!("PRAGMA max_page_count = {limit}"));
}

fn state(site: &Site) -> (Vec<String>, Vec<starling_tests::site::Change>, Vec<u8>) {
    (content(site), site.changes(), site.vector())
}

/// What makes the work fail at first, ever later.
#[derive(Clone, Copy, Debug)]
enum Obstacle {
    /// The file may grow by so many pages only.
    Full,
    /// Somebody calls `sqlite3_interrupt` after so many steps of SQLite's machine, also inside the extension's statements.
    Interrupt,
}

/// Counts down to an interrupt; 0 = there is none.
type Fuse = Arc<AtomicU64>;

impl Obstacle {
    /// Sets it up for the given attempt, or takes it away after many.
    fn set(self, site: &Site, fuse: &Fuse, r: &mut Random, attempt: u64) {
        match self {
            _ if attempt >= 30 => lift(site, fuse),
            Self::Full => room(site, Some(attempt + r.below(2))),
            Self::Interrupt => fuse.store(1 + attempt * attempt * 3 + r.below(20), Ordering::Relaxed),
        }
    }
}

fn lift(site: &Site, fuse: &Fuse) {
    fuse.store(0, Ordering::Relaxed);
    room(site, None);
}

/// Every 7 steps of SQLite's machine the fuse burns down by one.
fn light(site: &mut Site) -> Fuse {
    let fuse = Fuse::default();
    let burning = Arc::clone(&fuse);
    let stop = move || {
        let left = burning.load(Ordering::Relaxed);
        burning.store(left.saturating_sub(1), Ordering::Relaxed);
        left == 1
    };
    site.db.progress_handler(7, Some(stop)).expect("a handler can be set");
    fuse
}

/// Tries until it goes through; every failure must leave what was there before, for this connection and for others.
fn until_it_succeeds(
    site: &Site,
    obstacle: Obstacle,
    fuse: &Fuse,
    r: &mut Random,
    mut work: impl FnMut() -> rusqlite::Result<()>,
) -> u64 {
    let before = state(site);
    for attempt in 0.. {
        obstacle.set(site, fuse, r, attempt);
        let outcome = work();
        lift(site, fuse);
        match outcome {
            Ok(()) => return attempt,
            Err(e) => {
                let message = e.to_string();
                assert!(message.contains("full") || message.contains("interrupt"), "it failed for another reason: {e}");
                assert!(site.db.is_autocommit());
                let after = state(site);
                assert_eq!(after.0, before.0, "rows of what failed were left ({obstacle:?})");
                assert_eq!(after.1, before.1, "changes of what failed were left ({obstacle:?})");
                assert_eq!(after.2, before.2, "claims of what failed were left ({obstacle:?})");
            }
        }
    }
    unreachable!("there is an end of it")
}

/// One replica against the obstacle, one without; in the end both are equal. Returns how often it failed.
fn struggle(obstacle: Obstacle, journal: &str, seed: u64) -> u64 {
    let folder = tempfile::tempdir().expect("a directory");
    let mut r = Random::new(seed);
    let mut a = Site::open(&folder.path().join("a.db")).with(TABLES);
    a.db.pragma_update(None, "journal_mode", journal).expect("a journal mode");
    a.exec("PRAGMA synchronous = off");
    let fuse = light(&mut a);
    let b = Site::memory().with(TABLES);
    let mut failures = 0;
    for n in 0..setting("STARLING_CRASH_STEPS", 20) {
        let statements = step(&mut r, n, "a");
        if matches!(obstacle, Obstacle::Full) {
            // No free pages to live on.
            a.exec("VACUUM");
        }
        failures += until_it_succeeds(&a, obstacle, &fuse, &mut r, || transaction(&a.db, &statements));
        for more in 0..3 {
            let _ = transaction(&b.db, &step(&mut r, 10_000 + 3 * n + more, "b"));
        }
        if n % 3 == 0 {
            let answer = b.answer(&a.vector());
            failures += until_it_succeeds(&a, obstacle, &fuse, &mut r, || merge_all(&a, &answer));
        }
        if n % 10 == 0 {
            check(&a);
            meet(&a, &b);
        }
    }
    meet(&a, &b);
    println!("{obstacle:?}, {journal}, STARLING_CRASH_SEED={seed}: failed {failures} times");
    failures
}

#[test]
fn a_full_disk_at_any_point_leaves_nothing_in_half_and_a_retry_succeeds() {
    let seed = setting("STARLING_CRASH_SEED", 1);
    let failures = struggle(Obstacle::Full, "wal", seed) + struggle(Obstacle::Full, "delete", seed + 1);
    assert!(failures > 2, "the disk was hardly ever full: {failures}");
}

#[test]
fn an_interrupt_at_any_point_leaves_nothing_in_half_and_a_retry_succeeds() {
    let seed = setting("STARLING_CRASH_SEED", 1);
    let failures = struggle(Obstacle::Interrupt, "wal", seed) + struggle(Obstacle::Interrupt, "delete", seed + 1);
    assert!(failures > 100, "it was hardly ever interrupted: {failures}");
}

/// A read of `crsql_changes` within a transaction writes what the transaction has touched so far. Interrupted in the middle
/// of that, it must not be possible to go on as if nothing had been written.
#[test]
fn a_read_within_a_transaction_that_is_interrupted_while_it_flushes_counts_no_write_twice() {
    let (mut failed, mut whole) = (0, 0);
    for steps in 1..120 {
        let mut site = Site::memory().with(TABLES);
        site.exec("INSERT INTO t VALUES('a', 1, 1), ('b', 2, 2), ('c', 3, 3); UPDATE t SET a = 9");
        let before = state(&site);
        let fuse = light(&mut site);
        site.exec(
            "BEGIN; SAVEPOINT s; UPDATE t SET a = a + 1; DELETE FROM t WHERE id = 'c'; INSERT INTO t VALUES('d', 4, 4)",
        );
        fuse.store(steps, Ordering::Relaxed);
        let read = site.db.query_row("SELECT count(*) FROM crsql_changes", [], |r| r.get::<_, i64>(0));
        fuse.store(0, Ordering::Relaxed);
        let committed = if site.db.is_autocommit() { Ok(()) } else { site.db.execute_batch("COMMIT") };
        match (read, committed) {
            (Err(_), Err(_)) if !site.db.is_autocommit() => {
                failed += 1;
                if steps % 2 == 0 {
                    site.exec("ROLLBACK");
                } else {
                    site.exec("ROLLBACK TO s; COMMIT");
                }
                assert_eq!(state(&site), before, "{steps}");
            }
            (Err(_), _) if state(&site) == before => failed += 1,
            _ => {
                whole += 1;
                let versions =
                    "SELECT cid, col_version FROM crsql_changes WHERE pk = crsql_pack_columns('a') AND cid = 'a'";
                assert_eq!(site.rows(versions), ["'a'|3"], "{steps}");
            }
        }
        check(&site);
    }
    assert!(failed > 10 && whole > 10, "{failed} were interrupted, {whole} were not");
}

/// A transaction that is not small ends the chain of young clocks, which all move into their blocks in its commit.
#[test]
fn clocks_whose_move_fails_stay_young_and_move_with_the_next_transaction() {
    let seed = setting("STARLING_CRASH_SEED", 1);
    for (obstacle, journal) in [(Obstacle::Full, "wal"), (Obstacle::Full, "delete"), (Obstacle::Interrupt, "wal")] {
        let folder = tempfile::tempdir().expect("a directory");
        let mut r = Random::new(seed);
        let mut site = Site::open(&folder.path().join("a.db")).with(TABLES);
        site.db.pragma_update(None, "journal_mode", journal).expect("a journal mode");
        site.exec("PRAGMA synchronous = off");
        let fuse = light(&mut site);
        site.exec(
            "WITH n(i) AS (VALUES(1) UNION ALL SELECT i + 1 FROM n WHERE i < 1000) \
             INSERT INTO t(id, a) SELECT printf('%.40c%d', 'k', i), i FROM n",
        );
        for i in 1..=1000 {
            site.exec(&format!("UPDATE t SET a = a + 1, b = {i} WHERE id = printf('%.40c%d', 'k', {i})"));
        }
        site.exec("VACUUM");
        let gone = "DELETE FROM t WHERE id LIKE '%77'".to_string();
        let failures =
            until_it_succeeds(&site, obstacle, &fuse, &mut r, || transaction(&site.db, std::slice::from_ref(&gone)));
        assert!(failures > 3, "{obstacle:?}, {journal}: it failed {failures} times");
        let versions = "SELECT DISTINCT col_version FROM crsql_changes WHERE [table] = 't' AND cid = 'a'";
        assert_eq!(site.rows(versions), ["2"]);
        let other = Site::memory().with(TABLES);
        meet(&site, &other);
        check(&site);
    }
}
