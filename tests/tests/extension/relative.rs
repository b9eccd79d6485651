//! What programs written for cr-sqlite do besides the plainly documented.

use rusqlite::Connection;
use starling_tests::site::{self, Site};
use std::path::Path;

const T: &str = "CREATE TABLE t(id INTEGER PRIMARY KEY NOT NULL, a)";

fn tracked() -> Site {
    Site::memory().with(&[("t", T)])
}

#[test]
fn a_site_id_of_fewer_than_sixteen_bytes_reads_back_as_it_was_given() {
    let (s, other) = (tracked(), tracked());
    s.exec("INSERT INTO t VALUES(9, 'own')");
    for (id, site) in [(1, "0b"), (2, "0b00"), (3, "0b000000000000000000000000000000"), (4, "0c0c")] {
        s.exec(&format!(
            "INSERT INTO crsql_changes VALUES('t', crsql_pack_columns({id}), 'a', {id}, 1, {id}, x'{site}', 1, 0)"
        ));
    }
    // Zeros at its end make no other site of it: the first spelling stays.
    assert_eq!(
        s.rows("SELECT val, hex(site_id) FROM crsql_changes WHERE site_id <> crsql_site_id() ORDER BY val"),
        ["1|'0B'", "2|'0B'", "3|'0B'", "4|'0C0C'"]
    );
    for (filter, n) in [("= x'0b'", 3), ("IS x'0b'", 3), ("IS NOT x'0b'", 2), ("= x'0c0c'", 1), ("= x'0c'", 0)] {
        assert_eq!(s.one::<i64>(&format!("SELECT count(*) FROM crsql_changes WHERE site_id {filter}")), n, "{filter}");
    }
    assert_eq!(s.rows("SELECT ordinal, hex(site_id) FROM crsql_site_id WHERE ordinal > 0"), ["1|'0B'", "2|'0C0C'"]);
    // A changeset names sites of sixteen bytes; both nodes hold the same all the same.
    other.pull(&s);
    let names =
        other.rows("SELECT DISTINCT substr(hex(site_id), 1, 6) FROM crsql_changes WHERE val IN (1, 4) ORDER BY 1");
    assert_eq!(names, ["'0B0000'", "'0C0C00'"]);
    s.pull(&other);
    assert_eq!(s.vector(), other.vector());
    other.exec("UPDATE t SET a = 'later' WHERE id = 1");
    s.pull(&other);
    assert_eq!(s.rows("SELECT a FROM t WHERE id = 1"), ["'later'"]);
}

#[test]
fn a_short_site_id_is_kept_for_a_table_that_comes_later() {
    let s = Site::memory();
    s.exec("CREATE TABLE u(id INTEGER PRIMARY KEY); SELECT crsql_as_crr('u')");
    s.exec("INSERT INTO crsql_changes VALUES('t', crsql_pack_columns(1), 'a', 5, 1, 1, x'0d', 1, 0)");
    s.exec(&format!("{T}; SELECT crsql_as_crr('t')"));
    assert_eq!(s.rows("SELECT val, hex(site_id) FROM crsql_changes WHERE site_id = x'0d'"), ["5|'0D'"]);
}

#[test]
fn the_sync_bit_set_by_hand_leaves_writes_uncaptured_until_it_is_cleared() {
    let s = tracked();
    assert_eq!(s.rows("SELECT crsql_internal_sync_bit(1), crsql_internal_sync_bit()"), ["1|1"]);
    s.exec("INSERT INTO t VALUES(1, 'unseen')");
    s.exec("INSERT INTO crsql_changes VALUES('t', crsql_pack_columns(2), 'a', 'merged', 1, 1, x'0b', 1, 0)");
    assert_eq!(s.rows("SELECT crsql_internal_sync_bit(0), crsql_internal_sync_bit()"), ["0|0"]);
    s.exec("INSERT INTO t VALUES(3, 'seen')");
    assert_eq!(s.rows("SELECT id, a FROM t"), ["1|'unseen'", "2|'merged'", "3|'seen'"]);
    assert_eq!(s.rows("SELECT val FROM crsql_changes ORDER BY val"), ["'merged'", "'seen'"]);
    assert!(s.refused("SELECT crsql_internal_sync_bit(2)").contains("the bit is 0 or 1"));
}

#[test]
fn a_row_s_own_change_may_be_named_by_a_number_and_a_negative_version_asks_for_none() {
    let s = tracked();
    s.exec("INSERT INTO t VALUES(1, 1); INSERT INTO crsql_changes VALUES('t', crsql_pack_columns(1), -1, NULL, 2, 5, x'0b', 2, 0)");
    assert_eq!(s.one::<i64>("SELECT count(*) FROM t"), 0);
    assert!(s
        .refused("INSERT INTO crsql_changes VALUES('t', crsql_pack_columns(1), 7, NULL, 2, 5, x'0b', 2, 0)")
        .contains("cid"));
    assert_eq!(s.rows("SELECT crsql_next_db_version(-1), crsql_next_db_version()"), ["6|6"]);
}

#[test]
fn rows_that_a_migration_s_text_writes_come_into_the_database_and_are_captured() {
    let s = Site::memory();
    let text = "PRAGMA foreign_keys = ON; CREATE TABLE t(id INTEGER PRIMARY KEY NOT NULL, a); -- the seed\n\
                INSERT OR IGNORE INTO t VALUES(1, ''of the text''); SELECT crsql_as_crr(''t''); \
                INSERT OR IGNORE INTO t SELECT 2, 2; PRAGMA user_version = 5; PRAGMA main.application_id(77)";
    for _ in 0..2 {
        s.exec(&format!("SELECT crsql_automigrate('{text}')"));
        assert_eq!(s.rows("SELECT * FROM t"), ["1|'of the text'", "2|2"]);
        assert_eq!(s.one::<i64>("SELECT count(*) FROM crsql_changes WHERE cid = 'a'"), 2);
        assert_eq!([s.one::<i64>("PRAGMA user_version"), s.one::<i64>("PRAGMA application_id")], [5, 77]);
    }
    // One that fails the second time fails as a whole.
    let refused =
        s.refused(&format!("SELECT crsql_automigrate('{}')", text.replace("OR IGNORE ", "").replace("= 5", "= 6")));
    assert!(refused.contains("UNIQUE"), "{refused}");
    assert_eq!(s.one::<i64>("PRAGMA user_version"), 5);
}

/// How often the file was written while connections with the extension were opened on it.
fn written_by_opening(path: &Path, watcher: &Connection) -> i64 {
    let version = || watcher.query_row("PRAGMA data_version", [], |r| r.get::<_, i64>(0)).expect("it answers");
    let before = version();
    for _ in 0..3 {
        drop(site::open(path).expect("it opens"));
    }
    version() - before
}

#[test]
fn opening_after_a_change_of_the_schema_writes_nothing_where_nothing_is_to_be_repaired() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("a.db");
    let s = Site::file(&path).with(&[("t", T)]);
    s.exec("PRAGMA journal_mode = wal");
    for change in [
        "CREATE TABLE p(x)",
        "CREATE INDEX i ON t(a)",
        "CREATE TABLE u(id INTEGER PRIMARY KEY); SELECT crsql_as_crr('u')",
    ] {
        s.exec(change);
        assert_eq!(written_by_opening(&path, &s.db), 0, "{change}");
        // Who has begun to read can go on to write.
        s.exec("BEGIN; SELECT count(*) FROM t");
        drop(site::open(&path).expect("it opens"));
        s.exec("INSERT OR IGNORE INTO t VALUES(1, 1); COMMIT");
    }
    // The next one that opened it and writes notes it.
    let next = Site::open(&path);
    let noted = |s: &Site| s.one::<i64>("SELECT value FROM crsql_master WHERE key = 'schema'");
    assert_ne!(noted(&next), next.one::<i64>("PRAGMA schema_version"));
    next.exec("UPDATE t SET a = 2");
    assert_eq!(noted(&next), next.one::<i64>("PRAGMA schema_version"));
    // What is lost is found all the same.
    s.exec("DROP TRIGGER t__crsql_insert");
    drop(site::open(&path).expect("it opens"));
    assert_eq!(s.one::<i64>("SELECT count(*) FROM sqlite_master WHERE name = 't__crsql_insert'"), 1);
}

/// What a program that follows key updates reads, in the order in which it comes: key, cid and cl.
fn told(s: &Site) -> Vec<String> {
    s.rows("SELECT u.cell, cid, cl FROM crsql_changes, crsql_unpack_columns(pk) AS u")
}

#[test]
fn of_a_key_update_the_moved_cells_come_first_then_word_of_both_rows() {
    for capture in ["native", "exact", "portable"] {
        let after = |history: &str| {
            let (s, nine, whole) = (tracked(), tracked(), tracked());
            s.one::<String>(&format!("SELECT crsql_as_crr('t', '{capture}')"));
            s.exec(history);
            nine.pull_nine(&s, |_| {});
            whole.pull(&s);
            assert_eq!(nine.changes(), s.changes(), "{capture}, {history}: nine values");
            assert_eq!(whole.changes(), s.changes(), "{capture}, {history}: changesets");
            let seqs = s.rows("SELECT db_version, seq FROM crsql_changes");
            assert!(seqs.windows(2).all(|pair| pair[0] != pair[1]), "{capture}, {history}: {seqs:?}");
            told(&s)
        };
        let new = "INSERT INTO t VALUES(1, 2); UPDATE t SET id = 2 WHERE id = 1";
        assert_eq!(after(new), ["2|'a'|1", "1|'-1'|2", "2|'-1'|1"], "{capture}");
        let of_later_life =
            "INSERT INTO t VALUES(1, 2); DELETE FROM t; INSERT INTO t VALUES(1, 3); UPDATE t SET id = 2 WHERE id = 1";
        assert_eq!(after(of_later_life), ["2|'a'|1", "1|'-1'|4", "2|'-1'|1"], "{capture}");
        let to_deleted = "INSERT INTO t VALUES(1, 2); INSERT INTO t VALUES(2, 3); DELETE FROM t WHERE id = 1; \
                          UPDATE t SET id = 1 WHERE id = 2";
        assert_eq!(after(to_deleted), ["1|'a'|3", "2|'-1'|2", "1|'-1'|3"], "{capture}");
        let to_taken =
            "INSERT INTO t VALUES(1, 2); INSERT INTO t VALUES(2, 3); UPDATE OR REPLACE t SET id = 2 WHERE id = 1";
        assert_eq!(after(to_taken), ["2|'a'|1", "1|'-1'|2", "2|'-1'|1"], "{capture}");
        let several = "INSERT INTO t VALUES(1, 2), (2, 3); UPDATE t SET id = id + 10";
        let row = |old, new| [format!("{new}|'a'|1"), format!("{old}|'-1'|2"), format!("{new}|'-1'|1")];
        assert_eq!(after(several), [row(1, 11), row(2, 12)].concat(), "{capture}");
        let shifted =
            "INSERT INTO t VALUES(1, 2), (2, 3); UPDATE t SET id = 3 WHERE id = 2; UPDATE t SET id = 2 WHERE id = 1";
        assert_eq!(after(&format!("BEGIN; {shifted}; COMMIT")).len(), 5, "{capture}");
        let back = "INSERT INTO t VALUES(1, 2); UPDATE t SET id = 2; UPDATE t SET id = 1, a = 5; UPDATE t SET a = 6";
        assert_eq!(after(back), ["2|'-1'|2", "1|'-1'|3", "1|'a'|3"], "{capture}");
    }
}

#[test]
fn word_of_a_row_is_taken_after_its_cells_if_it_is_of_their_author_and_counts_as_no_change() {
    let nine = |cid: &str, site: &str| {
        let value = if cid == "-1" { "NULL" } else { "5" };
        format!(
            "INSERT INTO crsql_changes VALUES('t', crsql_pack_columns(2), '{cid}', {value}, 1, 1, x'{site}', 1, 0);"
        )
    };
    for (history, site, taken) in [
        (nine("a", "0b") + &nine("-1", "0b"), "0b", true),
        (nine("a", "0b") + &nine("-1", "0c"), "0c", false),
        (nine("-1", "0b") + &nine("a", "0b"), "0b", true),
        ("INSERT INTO t VALUES(2, 5);".to_string() + &nine("-1", "0b"), "0b", false),
        ("INSERT INTO t VALUES(2, 4); UPDATE t SET a = 5;".to_string() + &nine("-1", "0b"), "0b", false),
    ] {
        let s = tracked();
        s.exec(&history);
        assert_eq!(told(&s).contains(&"2|'-1'|1".to_string()), taken, "{history}");
        let version = s.one::<i64>("SELECT crsql_db_version()");
        s.exec(&format!("BEGIN; {}", nine("-1", site)));
        assert_eq!(s.one::<i64>("SELECT crsql_rows_impacted()"), 0, "{history}");
        s.exec("COMMIT");
        assert_eq!(s.one::<i64>("SELECT crsql_db_version()"), version, "{history}: again it changes nothing");
    }
    let s = tracked();
    s.exec(&format!("BEGIN; {}", nine("a", "0b") + &nine("-1", "0b")));
    assert_eq!(s.one::<i64>("SELECT crsql_rows_impacted()"), 1);
}

#[test]
fn a_row_that_takes_the_place_of_one_in_a_later_lifetime_has_one_word_of_its_existence() {
    for capture in ["native", "exact"] {
        let (b, c) = (tracked(), tracked());
        b.one::<String>(&format!("SELECT crsql_as_crr('t', '{capture}')"));
        b.exec("INSERT INTO t VALUES(1, 1); DELETE FROM t; INSERT INTO t VALUES(2, 2); INSERT INTO t VALUES(1, 5)");
        c.pull(&b);
        b.exec("UPDATE OR REPLACE t SET id = 1 WHERE id = 2");
        c.exec("UPDATE t SET a = x'03'");
        for _ in 0..2 {
            c.pull(&b);
            b.pull(&c);
        }
        assert_eq!(b.changes(), c.changes(), "{capture}");
        assert_eq!(told(&b).iter().filter(|row| row.starts_with("1|'-1'")).count(), 1, "{capture}");
    }
}

#[test]
fn a_table_that_is_a_crr_already_is_one_whoever_else_writes_or_may_not_write() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("a.db");
    let (a, b) = (Site::file(&path), Site::open(&path));
    a.exec(&format!("{T}; SELECT crsql_as_crr('t')"));
    b.db.busy_timeout(std::time::Duration::ZERO).expect("a setting");
    b.exec("CREATE TABLE IF NOT EXISTS t(id INTEGER PRIMARY KEY NOT NULL, a)");
    a.exec("BEGIN IMMEDIATE");
    assert_eq!(b.one::<String>("SELECT crsql_as_crr('t')"), "OK");
    b.exec("BEGIN; SELECT count(*) FROM t");
    a.exec("INSERT INTO t VALUES(1, 1); COMMIT");
    assert_eq!(b.one::<String>("SELECT crsql_as_crr('t')"), "OK", "an older read transaction");
    b.exec("COMMIT; PRAGMA query_only = ON");
    assert_eq!(b.one::<String>("SELECT crsql_as_crr('t', 'native')"), "OK");
    assert!(b.refused("SELECT crsql_as_crr('t', 'exact')").contains("readonly"));
    b.exec("PRAGMA query_only = OFF");
    // Where there is something to do it is done.
    a.exec("CREATE TRIGGER newer AFTER INSERT ON t BEGIN SELECT 1; END");
    assert_eq!(b.one::<String>("SELECT crsql_as_crr('t')"), "OK");
    let first = "SELECT name FROM sqlite_master WHERE type = 'trigger' AND sql LIKE '%AFTER INSERT%' ORDER BY rowid";
    assert_eq!(b.rows(first), ["'newer'", "'t__crsql_insert'"]);
}
