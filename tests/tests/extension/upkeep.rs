//! What nothing lives under any more goes, at a replica that only merges as at the one that writes.

use starling_tests::ledger;
use starling_tests::random::Random;
use starling_tests::site::Site;

const T: (&str, &str) = ("t", "CREATE TABLE t(id INTEGER PRIMARY KEY, a, b)");
/// Entries that nothing lives under are left alone up to so many, or to as many as live.
const LEFT: i64 = 2048;

fn site() -> Site {
    let site = Site::memory().with(&[T]);
    site.exec("PRAGMA synchronous = OFF");
    site
}

fn entries(site: &Site) -> i64 {
    site.one("SELECT count(*) FROM crsql_record")
}

#[test]
fn the_log_of_a_replica_that_only_merges_does_not_grow_with_what_it_has_merged() {
    for by_nine_values in [false, true] {
        let (a, b) = (site(), site());
        a.exec("INSERT INTO t SELECT value, 0, 0 FROM json_each('[1,2,3,4,5,6,7,8,9,10]')");
        b.pull(&a);
        let mut most = 0;
        for round in 0..400 {
            for id in 1..=10 {
                a.exec(&format!("UPDATE t SET a = {round} WHERE id = {id}"));
            }
            if by_nine_values {
                b.pull_nine(&a, |changes| drop(changes.drain(..changes.len() - 10)));
            } else {
                b.pull(&a);
            }
            most = most.max(entries(&b));
        }
        assert!(most > LEFT / 2 && most < LEFT + 1000, "nine values: {by_nine_values}; {most} records");
        ledger::end_equal(&a, &b, "t");
    }
}

#[test]
fn three_that_write_and_merge_keep_their_logs_short() {
    let sites: Vec<Site> = (0..3).map(|_| site()).collect();
    let mut r = Random::new(7);
    let mut most = 0;
    for round in 0..80 {
        for site in &sites {
            for _ in 0..40 {
                let id = r.below(30);
                site.exec(&match r.below(8) {
                    0 => format!("DELETE FROM t WHERE id = {id}"),
                    1 | 2 => format!("INSERT OR IGNORE INTO t VALUES({id}, {round}, {round})"),
                    _ => format!("UPDATE t SET a = {round}, b = {} WHERE id = {id}", r.below(1000)),
                });
            }
        }
        for (to, from) in [(0, 1), (1, 2), (2, 0), (1, 0), (0, 2), (2, 1)] {
            sites[to].pull(&sites[from]);
        }
        most = most.max(sites.iter().map(entries).max().unwrap_or(0));
    }
    assert!(most > LEFT / 2 && most < 3 * LEFT, "{most} records");
    for _ in 0..2 {
        for (to, from) in [(0, 1), (1, 2), (2, 0)] {
            sites[to].pull(&sites[from]);
        }
    }
    ledger::end_equal(&sites[0], &sites[1], "t");
    ledger::end_equal(&sites[1], &sites[2], "t");
    // A newcomer gets all that lives from any of them.
    for from in &sites {
        let newcomer = site();
        newcomer.pull(from);
        assert_eq!(newcomer.rows("SELECT * FROM t ORDER BY id"), from.rows("SELECT * FROM t ORDER BY id"));
    }
}

#[test]
fn bulk_changes_that_are_merged_over_and_over_leave_no_more_than_one_of_them() {
    let (a, b) = (site(), site());
    a.exec("WITH RECURSIVE n(i) AS (VALUES(1) UNION ALL SELECT i + 1 FROM n WHERE i < 5000) INSERT INTO t SELECT i, 0, 0 FROM n");
    b.pull(&a);
    let size = |site: &Site| {
        site.one::<i64>(
            "SELECT (SELECT sum(length(record)) FROM crsql_record) + coalesce((SELECT sum(length(entries)) FROM crsql_log_chunk), 0)",
        )
    };
    let first = size(&b);
    for n in 1..40 {
        a.exec(&format!("UPDATE t SET a = {n}"));
        b.pull(&a);
    }
    assert!(size(&b) < 6 * first, "{first} bytes at first, {} now, {} at the origin", size(&b), size(&a));
    ledger::end_equal(&a, &b, "t");
}
