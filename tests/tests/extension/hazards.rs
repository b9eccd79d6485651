//! What SQLite, disks and programs do to a replica: one test for each hazard (E4, E5, E6, E11, S12, I2).

use starling_tests::random::Random;
use starling_tests::records;
use starling_tests::site::Site;

const T: (&str, &str) = ("t", "CREATE TABLE t(id TEXT NOT NULL PRIMARY KEY, a, b)");

fn site() -> Site {
    Site::memory().with(&[T])
}

#[test]
fn e4_a_crr_in_an_attached_file_is_refused_with_the_reason() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("other.db");
    drop(Site::file(&path).with(&[T]));
    let s = site();
    s.exec(&format!("ATTACH '{}' AS other", path.display()));
    let message = s.refused("INSERT INTO other.t VALUES('k', 1, 1)");
    assert!(message.contains("attached"), "{message}");
    assert!(s.refused("SELECT crsql_as_crr('other', 't')").contains("main"));
}

#[test]
fn e5_a_commit_that_was_busy_and_is_retried_makes_one_version() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("a.db");
    let s = Site::file(&path).with(&[T]);
    s.db.pragma_update(None, "journal_mode", "delete").expect("a rollback journal");
    s.db.busy_timeout(std::time::Duration::ZERO).expect("no patience");
    let reader = starling_tests::site::open(&path).expect("it opens");
    reader.execute_batch("BEGIN; SELECT count(*) FROM t").expect("it reads");
    let mut hold = reader.prepare("SELECT * FROM sqlite_master").expect("it prepares");
    let mut rows = hold.query([]).expect("it runs");
    rows.next().expect("a row");
    s.exec("BEGIN; INSERT INTO t VALUES('one', 1, 1)");
    for _ in 0..3 {
        assert!(s.db.execute_batch("COMMIT").is_err(), "a reader stands in the way");
    }
    s.exec("INSERT INTO t VALUES('two', 1, 1)");
    drop(rows);
    drop(hold);
    reader.execute_batch("COMMIT").expect("it ends");
    s.exec("COMMIT");
    assert_eq!(s.rows("SELECT DISTINCT db_version FROM crsql_changes"), ["1"]);
    assert_eq!(s.changes().len(), 4);
}

#[test]
fn e6_a_trigger_that_rolls_back_the_transaction_leaves_nothing_of_the_merge() {
    let (a, b) = (site(), site());
    b.exec("CREATE TRIGGER no BEFORE INSERT ON t WHEN NEW.id = 'evil' BEGIN SELECT RAISE(ROLLBACK, 'no'); END");
    a.exec("INSERT INTO t VALUES('good', 1, 1), ('evil', 1, 1), ('late', 1, 1)");
    let (parts, _) = a.answer(&b.vector());
    b.exec("BEGIN IMMEDIATE");
    assert!(b.merge(&parts[0].0).is_err());
    assert!(b.db.is_autocommit(), "the trigger ended the transaction");
    assert_eq!(b.rows("SELECT * FROM t"), [] as [&str; 0]);
    assert_eq!(b.changes(), []);
    assert_eq!(b.vector(), site().vector());
}

#[test]
fn e6_a_full_disk_leaves_nothing_of_the_merge_and_it_can_be_tried_again() {
    let dir = tempfile::tempdir().expect("a directory");
    let (a, b) = (site(), Site::file(&dir.path().join("b.db")).with(&[T]));
    a.exec("INSERT INTO t SELECT 'k' || value, randomblob(500), 1 FROM (WITH RECURSIVE c(value) AS (SELECT 1 UNION ALL SELECT value + 1 FROM c WHERE value < 2000) SELECT value FROM c)");
    let pages = b.one::<i64>("PRAGMA page_count");
    b.exec(&format!("PRAGMA max_page_count = {}", pages + 20));
    let (parts, _) = a.answer(&b.vector());
    b.exec("BEGIN IMMEDIATE");
    let failed = parts.iter().find_map(|(p, _)| b.merge(p).err()).expect("the disk is full");
    assert!(failed.to_string().contains("full"), "{failed}");
    if !b.db.is_autocommit() {
        assert!(b.db.execute_batch("COMMIT").is_err(), "half a changeset cannot be committed");
        let _ = b.db.execute_batch("ROLLBACK");
    }
    assert_eq!(b.one::<i64>("SELECT count(*) FROM t"), 0);
    b.exec("PRAGMA max_page_count = 1000000");
    b.pull(&a);
    assert_eq!(b.one::<i64>("SELECT count(*) FROM t"), 2000);
    assert_eq!(a.vector(), b.vector());
}

#[test]
fn e11_a_row_that_a_constraint_refuses_is_kept_and_served_and_the_stream_goes_on() {
    let (a, b, c) = (site(), Site::memory(), site());
    b.exec("CREATE TABLE t(id TEXT NOT NULL PRIMARY KEY, a CHECK(a < 10), b)");
    b.one::<String>("SELECT crsql_as_crr('t')");
    a.exec("INSERT INTO t VALUES('good', 1, 1), ('bad', 11, 1); INSERT INTO t VALUES('later', 2, 2)");
    b.pull(&a);
    assert_eq!(b.rows("SELECT id FROM t ORDER BY id"), ["'good'", "'later'"]);
    assert_eq!(b.one::<i64>("SELECT starling_aside()"), 1);
    c.pull(&b);
    assert_eq!(
        c.rows("SELECT id FROM t ORDER BY id"),
        ["'bad'", "'good'", "'later'"],
        "what is kept aside is served on"
    );
}

#[test]
fn s12_a_copy_becomes_a_site_of_its_own_by_one_key_and_ordinals_stay_real() {
    let dir = tempfile::tempdir().expect("a directory");
    let (path, copy) = (dir.path().join("a.db"), dir.path().join("copy.db"));
    let (a, b) = (Site::file(&path).with(&[T]), site());
    b.exec("INSERT INTO t VALUES('b', 1, 1)");
    a.exec("INSERT INTO t VALUES('a', 1, 1)");
    a.pull(&b);
    let (own, foreign) = (a.one::<Vec<u8>>("SELECT crsql_site_id()"), b.one::<Vec<u8>>("SELECT crsql_site_id()"));
    assert_eq!(a.one::<Vec<u8>>("SELECT site_id FROM crsql_site_id WHERE ordinal = 0"), own);
    assert_eq!(a.one::<Vec<u8>>("SELECT site_id FROM crsql_site_id WHERE ordinal = 1"), foreign);
    a.exec(&format!("VACUUM INTO '{}'", copy.display()));
    let c = Site::file(&copy);
    let before = c.changes();
    c.one::<Vec<u8>>("SELECT starling_new_site()");
    let c = {
        drop(c);
        Site::file(&copy)
    };
    assert_ne!(c.one::<Vec<u8>>("SELECT crsql_site_id()"), own);
    assert_eq!(c.changes(), before, "what was written before keeps its authors");
    assert_eq!(c.rows("SELECT ordinal FROM crsql_site_id ORDER BY 1"), ["0", "1", "2"]);
    c.exec("INSERT INTO t VALUES('c', 1, 1)");
    a.pull(&c);
    c.pull(&a);
    assert_eq!(a.changes(), c.changes());
    assert_eq!(a.vector(), c.vector());
}

#[test]
fn i2_the_log_stays_within_a_constant_factor_of_what_lives() {
    let (s, c) = (site(), site());
    s.exec("INSERT INTO t SELECT 'k' || value, 0, 0 FROM (WITH RECURSIVE c(value) AS (SELECT 1 UNION ALL SELECT value + 1 FROM c WHERE value < 3000) SELECT value FROM c)");
    let bytes = |s: &Site| records::bytes(&s.db);
    s.exec("UPDATE t SET a = a + 1, b = b + 1");
    let once = bytes(&s);
    for _ in 0..30 {
        s.exec("UPDATE t SET a = a + 1; UPDATE t SET b = b + 1 WHERE id LIKE '%7'");
    }
    assert!(bytes(&s) < once * 4, "{} bytes of log after 30 rounds, {once} after one", bytes(&s));
    s.exec("DELETE FROM t WHERE id LIKE '%1'");
    for i in 0..6000 {
        s.exec(&format!("UPDATE t SET b = {i} WHERE id = 'k{}'", i % 50 + 2));
    }
    let records = s.one::<i64>("SELECT count(*) FROM crsql_record");
    assert!(records < 6000, "{records} records for 50 rows that were updated 6000 times");
    s.one::<i64>("SELECT starling_prune(1000000)");
    s.one::<i64>("SELECT starling_prune(1000000)");
    assert!(bytes(&s) < once * 2, "{} bytes of log when wholly swept, {once} after one round", bytes(&s));
    // Whoever comes now gets it all the same.
    c.pull(&s);
    assert_eq!(c.changes(), s.changes());
    assert_eq!(c.vector(), s.vector());
}

#[test]
fn records_of_many_chunks_are_swept_a_little_at_a_time_and_lose_only_what_is_dead() {
    let mut r = Random::new(7);
    let a = Site::memory().with(&[("t", "CREATE TABLE t(id TEXT NOT NULL PRIMARY KEY, a, b)")]);
    let all = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1500)";
    a.exec(&format!("{all} INSERT INTO t SELECT printf('%x %d', i * 2654435761 % 4294967291, i), i, i FROM n"));
    a.exec("UPDATE t SET a = 0, b = 0");
    let chunks = "SELECT count(*) FROM crsql_log_chunk";
    assert!(a.one::<i64>(chunks) > 6, "the records have several chunks");
    for step in 0..14 {
        match r.below(3) {
            0 => a.exec(&format!("UPDATE t SET a = {step} WHERE rowid % {} = 0", 1 + r.below(4))),
            1 => a.exec(&format!("DELETE FROM t WHERE rowid % 50 = {}", r.below(50))),
            _ => a.exec(&format!("UPDATE t SET b = {step} WHERE rowid > {}", r.below(1500))),
        }
        let before = a.changes();
        a.one::<i64>(&format!("SELECT starling_prune({})", 1 + r.below(400)));
        assert_eq!(a.changes(), before, "step {step}");
        starling_tests::ledger::check(&a);
    }
    a.exec("UPDATE t SET a = 'x', b = 'x'");
    a.one::<i64>("SELECT starling_prune(1000000)");
    a.one::<i64>("SELECT starling_prune(1000000)");
    starling_tests::ledger::check(&a);
    assert!(records::bytes(&a.db) < 100_000, "{} bytes are left", records::bytes(&a.db));
    let b = Site::memory().with(&[("t", "CREATE TABLE t(id TEXT NOT NULL PRIMARY KEY, a, b)")]);
    b.pull(&a);
    assert_eq!(a.changes(), b.changes());
    assert_eq!(a.vector(), b.vector());
}

#[test]
fn what_one_statement_writes_goes_when_the_next_one_outlives_all_of_it() {
    let tables = [T, ("u", "CREATE TABLE u(id INTEGER PRIMARY KEY, a, b)")];
    let (a, b) = (Site::memory().with(&tables), Site::memory().with(&tables));
    let all = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 2000)";
    for name in ["t", "u"] {
        a.exec(&format!("{all} INSERT INTO {name} SELECT i, i, i FROM n"));
    }
    let records = "SELECT count(*) FROM crsql_record";
    let base = a.one::<i64>(records);
    for round in 0..8 {
        a.exec(&format!("UPDATE t SET a = 'round {round}', b = 'round {round}'"));
        assert_eq!(a.one::<i64>(records), base + 1, "round {round}: the record of the round before is gone");
    }
    starling_tests::ledger::check(&a);
    b.pull(&a);
    // Two tables in one record, of which one goes on; then columns apart; then rows that another replica wrote.
    a.exec("BEGIN; UPDATE t SET a = 1; UPDATE u SET a = 1; COMMIT");
    a.exec("UPDATE t SET a = 2");
    assert_eq!(a.one::<i64>("SELECT count(DISTINCT val) FROM crsql_changes WHERE cid = 'a' AND [table] = 'u'"), 1);
    a.exec("UPDATE u SET a = 3, b = 3; UPDATE u SET b = 4; UPDATE u SET a = 5");
    b.exec("UPDATE u SET a = 'b', b = 'b'; UPDATE t SET b = 'b'");
    for (x, y) in [(&a, &b), (&b, &a)] {
        x.pull(y);
        starling_tests::ledger::check(x);
    }
    a.exec("UPDATE u SET a = 6, b = 6; DELETE FROM t");
    b.pull(&a);
    b.exec("UPDATE u SET a = 7, b = 7; INSERT INTO t VALUES('again', 1, 1)");
    a.pull(&b);
    b.pull(&a);
    for s in [&a, &b] {
        starling_tests::ledger::check(s);
    }
    assert_eq!(a.changes(), b.changes());
    assert_eq!(a.vector(), b.vector());
    let newcomer = Site::memory().with(&tables);
    newcomer.pull(&a);
    assert_eq!(newcomer.changes(), a.changes());
}

#[test]
fn i2_a_sweep_leaves_the_records_alone_that_its_transaction_goes_on_with() {
    let (a, b) = (site(), site());
    b.exec("INSERT INTO t VALUES('far', 1, 1)");
    let (parts, _) = b.answer(&[1, 0]);
    // Keys so long that the record has chunks, which a sweep would move together.
    let write = |key: &str| a.exec(&format!("INSERT INTO t VALUES('{key}' || hex(zeroblob(2000)), 1, 1)"));
    a.exec("BEGIN");
    write("one");
    a.one::<i64>("SELECT count(*) FROM crsql_changes");
    a.exec("DELETE FROM t");
    for (part, _) in &parts {
        // Its record is newer than the one of this transaction's own writes.
        a.merge(part).expect("it is merged");
    }
    a.one::<i64>("SELECT starling_prune(1000)");
    write("two");
    write("three");
    a.exec("COMMIT");
    assert_eq!(a.one::<i64>("SELECT count(*) FROM crsql_changes WHERE cid = 'a'"), 3);
    starling_tests::ledger::check(&a);
    b.pull(&a);
    assert_eq!(a.changes(), b.changes());
}

#[test]
fn x7_a_row_replaced_in_a_later_lifetime_gives_no_seq_to_two_cells() {
    let a = site();
    a.exec("INSERT INTO t VALUES('k', 1, 1); DELETE FROM t; INSERT INTO t VALUES('k', 1, 1); UPDATE t SET b = 2");
    // The '-1' row of the second lifetime takes a seq of its own, also where REPLACE does not begin it.
    a.exec("BEGIN; REPLACE INTO t VALUES('k', 3, 3); UPDATE t SET b = 4; COMMIT");
    let rows = a.rows("SELECT cid, val, col_version, cl, seq FROM crsql_changes");
    assert_eq!(rows, ["'-1'|NULL|3|3|0", "'a'|3|2|3|1", "'b'|4|4|3|3"]);
    // A row of a later lifetime that waits for a value is written over too.
    let needs = ("n", "CREATE TABLE n(id INTEGER PRIMARY KEY, a TEXT NOT NULL, b)");
    let b = Site::memory().with(&[needs]);
    b.exec("INSERT INTO crsql_changes VALUES('n', x'010905', 'b', 7, 5, 9, x'01', 3, 0)");
    assert_eq!(b.one::<i64>("SELECT count(*) FROM n"), 0);
    b.exec("BEGIN; INSERT INTO n VALUES(5, 'again', 8); UPDATE n SET b = 9; COMMIT");
    assert_eq!(b.one::<i64>("SELECT count(*) FROM crsql_changes WHERE cid = 'b'"), 1);
    [&a, &b].into_iter().for_each(starling_tests::ledger::check);
}
