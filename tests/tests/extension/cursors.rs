//! Cursors over the log that stay open while the same connection writes and sweeps: another thread's doing, or the loop's that
//! reads them.

use starling_tests::records;
use starling_tests::site::Site;
use std::collections::BTreeSet;

const TABLE: (&str, &str) = ("t", "CREATE TABLE t(id INTEGER PRIMARY KEY, a, b)");

/// Large enough for a record of many chunks.
fn large() -> Site {
    let s = Site::memory().with(&[TABLE]);
    s.exec("WITH n(i) AS (VALUES(1) UNION ALL SELECT i + 1 FROM n WHERE i < 4000) INSERT INTO t SELECT i, 'a' || i, i FROM n");
    s.exec("UPDATE t SET a = 'once'");
    assert!(records::all(&s.db).iter().any(|record| record.head.chunks > 2));
    s
}

type Cell = (Vec<u8>, String, i64, i64);

/// What a scan sees in whose middle this SQL is run.
fn scan(s: &Site, after: usize, sql: &str) -> BTreeSet<Cell> {
    let mut stmt = s.db.prepare("SELECT pk, cid, col_version, cl FROM crsql_changes").expect("it prepares");
    let mut rows = stmt.query([]).expect("it runs");
    let mut seen = BTreeSet::new();
    for n in 0.. {
        if n == after {
            s.exec(sql);
        }
        let Some(row) = rows.next().expect("it steps") else { break };
        seen.insert((row.get_unwrap(0), row.get_unwrap(1), row.get_unwrap(2), row.get_unwrap(3)));
    }
    seen
}

const WRITES: [&str; 4] = [
    "UPDATE t SET a = 'twice'",
    "DELETE FROM t WHERE id % 5 > 0; SELECT starling_prune(1000000), starling_prune(1000000)",
    "UPDATE t SET a = 'twice' WHERE id % 9 > 0; SELECT starling_prune(1000000), starling_prune(1000000)",
    "DELETE FROM t; SELECT starling_prune(1000000), starling_prune(1000000)",
];

#[test]
fn a_scan_of_crsql_changes_in_whose_middle_its_record_is_swept_sees_all_that_lives_at_its_end() {
    for sql in WRITES {
        for after in [1, 5_000] {
            let s = large();
            let seen = scan(&s, after, sql);
            let missed =
                s.changes().into_iter().filter(|c| !seen.contains(&(c.1.clone(), c.2.clone(), c.4, c.5))).count();
            assert_eq!(missed, 0, "{sql} after {after} rows");
        }
    }
}

#[test]
fn changesets_of_a_record_that_is_swept_between_two_of_its_parts_claim_no_more_than_they_bring() {
    for sql in WRITES {
        let s = large();
        let replica = Site::memory().with(&[TABLE]);
        let mut stmt = s.db.prepare("SELECT changeset FROM starling_changesets(NULL, NULL)").expect("it prepares");
        let mut rows = stmt.query([]).expect("it runs");
        for n in 0.. {
            if n == 1 {
                s.exec(sql);
            }
            let Some(row) = rows.next().expect("it steps") else { break };
            replica.merge(&row.get_unwrap::<_, Vec<u8>>(0)).expect("it merges");
        }
        drop(rows);
        assert_eq!(replica.changes(), s.changes(), "{sql}");
        replica.pull(&s);
        assert_eq!(replica.rows("SELECT * FROM t"), s.rows("SELECT * FROM t"), "{sql}");
        assert_eq!(replica.vector(), s.vector(), "{sql}");
    }
}
