//! Statements that stay open or prepared while the world changes, hooks of the application's, settings.

use starling_tests::seen::{observe, rows, same};
use starling_tests::site::Site;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::Arc;

const TABLE: &str = "CREATE TABLE t(id INTEGER PRIMARY KEY, a)";

fn pair() -> [Site; 2] {
    let plain = Site::memory();
    plain.exec(TABLE);
    [plain, Site::memory().with(&[("t", TABLE)])]
}

fn both(sites: &[Site; 2], sql: &str) {
    sites.iter().for_each(|s| s.exec(sql));
}

/// The same story on a plain table and on a CRR, told as lines.
fn same_story(story: impl Fn(&Site) -> Vec<String>) -> [Site; 2] {
    let sites = pair();
    both(&sites, "INSERT INTO t VALUES(1, 1), (2, 2), (3, 3), (4, 4), (5, 5), (6, 6)");
    same("the story", &story(&sites[0]), &story(&sites[1]));
    let replica = Site::memory().with(&[("t", TABLE)]);
    replica.pull(&sites[1]);
    assert_eq!(replica.rows("SELECT * FROM t"), sites[0].rows("SELECT * FROM t"));
    sites
}

#[test]
fn a_query_half_read_sees_the_same_while_others_write() {
    same_story(|s| {
        let mut select = s.db.prepare("SELECT id, a FROM t ORDER BY id").expect("it prepares");
        let mut found = select.query([]).expect("it runs");
        let mut told = Vec::new();
        while let Some(row) = found.next().expect("it steps") {
            let (id, a): (i64, i64) = (row.get(0).expect("id"), row.get(1).expect("a"));
            told.push(format!("{id} {a}"));
            let sql = match id {
                1 => "UPDATE t SET a = a + 100 WHERE id = 2",
                2 => "DELETE FROM t WHERE id = 3",
                4 => "BEGIN; UPDATE t SET a = 0 WHERE id = 5; ROLLBACK",
                5 => "INSERT INTO t VALUES(9, 9)",
                6 => "UPDATE t SET id = 8 WHERE id = 9",
                _ => "SELECT 1",
            };
            told.push(format!("{:?}", s.db.execute_batch(sql).err()));
        }
        told
    });
}

#[test]
fn a_returning_half_read_holds_its_transaction_open_as_ever() {
    same_story(|s| {
        let mut insert =
            s.db.prepare("INSERT INTO t VALUES(11, 1), (12, 2), (13, 3) RETURNING id").expect("it prepares");
        let mut found = insert.query([]).expect("it runs");
        let mut told = vec![format!("{:?}", found.next().expect("it steps").map(|r| r.get::<_, i64>(0)))];
        for sql in [
            "SELECT count(*), changes() FROM t",
            "INSERT INTO t VALUES(17, 7)",
            "BEGIN",
            "COMMIT",
            "UPDATE t SET a = 5 WHERE id = 12",
        ] {
            told.push(format!("{:?}", observe(&s.db, sql)));
        }
        while let Some(row) = found.next().expect("it steps") {
            told.push(format!("{:?}", row.get::<_, i64>(0)));
        }
        drop(found);
        drop(insert);
        // changes() after a COMMIT counts the internal writes too (LIMITS.md).
        told.push(format!("{:?}", observe(&s.db, "COMMIT").error));
        told
    });
}

#[test]
fn a_prepared_statement_goes_on_through_changes_of_the_schema() {
    let s = Site::memory();
    s.exec(TABLE);
    let mut insert = s.db.prepare("INSERT INTO t(id, a) VALUES(?1, ?1)").expect("it prepares");
    let mut id = 0;
    let steps = [
        "SELECT 1",
        "SELECT crsql_as_crr('t')",
        "CREATE INDEX i ON t(a)",
        "ALTER TABLE t ADD COLUMN z",
        "SELECT crsql_as_table('t')",
        "SELECT crsql_as_crr('t')",
    ];
    for step in steps {
        rows(&s.db, step);
        id += 1;
        insert.execute([id]).expect("it goes on");
    }
    drop(insert);
    let replica = Site::memory().with(&[("t", "CREATE TABLE t(id INTEGER PRIMARY KEY, a, z)")]);
    replica.pull(&s);
    assert_eq!(replica.rows("SELECT * FROM t"), s.rows("SELECT * FROM t"));
    assert_eq!(replica.one::<i64>("SELECT count(*) FROM t"), 6);
}

#[test]
fn hooks_of_the_application_stay_its_own() {
    let mut s = Site::memory().with(&[("t", TABLE)]);
    let counts: Arc<[AtomicUsize; 4]> = Arc::default();
    let count = |i: usize| {
        let counts = Arc::clone(&counts);
        move || counts[i].fetch_add(1, Ordering::Relaxed)
    };
    let (commits, rollbacks, updates, steps) = (count(0), count(1), count(2), count(3));
    let refuse = Arc::new(AtomicUsize::new(0));
    let refusing = Arc::clone(&refuse);
    s.db.commit_hook(Some(move || {
        commits();
        refusing.load(Ordering::Relaxed) == 1
    }))
    .expect("a hook");
    s.db.rollback_hook(Some(move || {
        rollbacks();
    }))
    .expect("a hook");
    s.db.update_hook(Some(move |_: rusqlite::hooks::Action, _: &str, table: &str, _: i64| {
        if table == "t" {
            updates();
        }
    }))
    .expect("a hook");
    s.db.progress_handler(
        1,
        Some(move || {
            steps();
            false
        }),
    )
    .expect("a handler");
    s.exec("INSERT INTO t VALUES(1, 1), (2, 2); UPDATE t SET a = 3 WHERE id = 1; BEGIN; DELETE FROM t; ROLLBACK");
    refuse.store(1, Ordering::Relaxed);
    assert!(s.refused("INSERT INTO t VALUES(7, 7)").contains("constraint failed"));
    refuse.store(0, Ordering::Relaxed);
    let seen: Vec<usize> = counts.iter().map(|c| c.load(Ordering::Relaxed)).collect();
    assert_eq!(&seen[..3], [3, 2, 6], "commits, rollbacks, updates of t");
    assert!(seen[3] > 0);
    s.exec("INSERT INTO t VALUES(8, 8)");
    assert_eq!(s.rows("SELECT val, db_version FROM crsql_changes"), ["2|1", "3|2", "8|3"]);
}

#[test]
fn a_setting_that_only_queries_notice_changes_nothing() {
    for setting in [
        "query_only = ON",
        "reverse_unordered_selects = ON",
        "case_sensitive_like = ON",
        "writable_schema = ON",
        "count_changes = ON",
    ] {
        let sites = pair();
        both(&sites, &format!("INSERT INTO t VALUES(1, 1), (2, 2); PRAGMA {setting}"));
        let statements = [
            "INSERT INTO t VALUES(3, 3)",
            "SELECT * FROM t",
            "UPDATE t SET a = 5",
            "BEGIN",
            "DELETE FROM t WHERE id = 1",
            "ROLLBACK",
            "SELECT * FROM t WHERE a LIKE '5%'",
        ];
        for sql in statements {
            same(&format!("{setting}: {sql}"), &observe(&sites[0].db, sql), &observe(&sites[1].db, sql));
        }
        sites[1].one::<i64>("SELECT count(*) FROM crsql_changes");
    }
}
