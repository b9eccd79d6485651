//! Where a careless design diverges: one test each (DESIGN X1 to X15, hazards E1 to E3, E12, E14, S1).

use starling_tests::site::Site;

const T: (&str, &str) = ("t", "CREATE TABLE t(id TEXT NOT NULL PRIMARY KEY, a, b)");

fn site() -> Site {
    Site::memory().with(&[T])
}

/// (cid, col_version, cl, seq) of the changes of a key.
fn cells(site: &Site, key: &str) -> Vec<String> {
    site.rows(&format!(
        "SELECT cid, col_version, cl, seq FROM crsql_changes WHERE pk = crsql_pack_columns('{key}') ORDER BY db_version, seq"
    ))
}

#[test]
fn x1_e1_what_is_claimed_from_a_relay_is_really_held() {
    let (a, b, c) = (site(), site(), site());
    a.exec("INSERT INTO t VALUES('k', 'first', 1)");
    b.pull(&a);
    a.exec("UPDATE t SET a = 'from a'");
    b.pull(&a);
    b.exec("UPDATE t SET a = 'from b'");
    // C asks B for A's dots, of which nothing lives at B under A's dot any more; then B dies.
    c.pull(&b);
    a.pull(&c);
    c.pull(&a);
    assert_eq!(a.rows("SELECT * FROM t"), c.rows("SELECT * FROM t"));
    assert_eq!(a.vector(), c.vector());
    assert_eq!(c.rows("SELECT a FROM t"), ["'from b'"]);
}

#[test]
fn x1_a_broken_off_answer_claims_nothing_that_is_not_held() {
    let (a, b) = (site(), site());
    a.exec("INSERT INTO t VALUES('k', 1, 1); INSERT INTO t VALUES('l', 1, 1); UPDATE t SET a = 2");
    let (parts, _) = a.answer(&b.vector());
    b.merge(&parts[2].0).expect("it merges");
    assert_eq!(b.rows("SELECT * FROM t"), [] as [&str; 0], "an update whose row has not arrived is kept aside");
    b.pull(&a);
    assert_eq!(b.rows("SELECT * FROM t"), ["'k'|2|1", "'l'|2|1"]);
    assert_eq!(a.vector(), b.vector());
}

#[test]
fn x2_seed_data_and_double_deletes_are_equal_and_make_no_traffic() {
    let (a, b) = (site(), site());
    for s in [&a, &b] {
        s.exec(
            "INSERT INTO t VALUES('seed', 1, 1); INSERT INTO t VALUES('gone', 1, 1); DELETE FROM t WHERE id = 'gone'",
        );
    }
    a.pull(&b);
    b.pull(&a);
    assert_eq!(a.vector(), b.vector());
    let (before, version) = (a.changes(), a.one::<i64>("SELECT crsql_db_version()"));
    a.pull(&b);
    assert_eq!((a.changes(), a.one::<i64>("SELECT crsql_db_version()")), (before, version));
}

#[test]
fn x3_a_table_that_left_and_came_back_goes_on_where_it_was() {
    let (a, b) = (site(), site());
    a.exec("INSERT INTO t VALUES('k', 1, 1); INSERT INTO t VALUES('gone', 1, 1)");
    b.pull(&a);
    a.one::<String>("SELECT crsql_as_table('t')");
    assert_eq!(a.changes(), []);
    a.exec("DELETE FROM t WHERE id = 'gone'; INSERT INTO t VALUES('new', 2, 2); UPDATE t SET a = 9 WHERE id = 'k'");
    a.one::<String>("SELECT crsql_as_crr('t')");
    b.pull(&a);
    assert_eq!(b.rows("SELECT * FROM t ORDER BY id"), ["'k'|9|1", "'new'|2|2"]);
    a.pull(&b);
    assert_eq!(a.changes(), b.changes());
}

#[test]
fn x4_a_newcomer_gets_the_row_whole_although_every_cell_was_overwritten() {
    let strict = ("s", "CREATE TABLE s(id INTEGER PRIMARY KEY, a TEXT NOT NULL, b TEXT NOT NULL)");
    let (a, b, c) = (Site::memory().with(&[strict]), Site::memory().with(&[strict]), Site::memory().with(&[strict]));
    a.exec("INSERT INTO s VALUES(1, 'x', 'y')");
    b.pull(&a);
    b.exec("UPDATE s SET a = 'xx', b = 'yy'");
    c.pull(&b);
    assert_eq!(c.rows("SELECT * FROM s"), ["1|'xx'|'yy'"]);
}

#[test]
fn x5_a_cell_that_nobody_sent_loses_to_any_cell() {
    let b = Site::memory().with(&[("d", "CREATE TABLE d(id INTEGER PRIMARY KEY, a DEFAULT 'zzz', b)")]);
    b.exec("INSERT INTO crsql_changes VALUES('d', crsql_pack_columns(1), 'b', 7, 1, 1, x'01', 1, 0)");
    assert_eq!(b.rows("SELECT * FROM d"), ["1|'zzz'|7"], "it reads back at once, with the default");
    b.exec("INSERT INTO crsql_changes VALUES('d', crsql_pack_columns(1), 'a', 'aaa', 1, 1, x'01', 1, 1)");
    assert_eq!(b.rows("SELECT * FROM d"), ["1|'aaa'|7"], "a default is no write of version 1");
}

#[test]
fn x5_a_row_that_lacks_a_required_cell_waits_and_a_local_insert_wins_over_what_waits() {
    let n = ("n", "CREATE TABLE n(id INTEGER PRIMARY KEY, a TEXT NOT NULL, b)");
    let b = Site::memory().with(&[n]);
    b.exec("INSERT INTO crsql_changes VALUES('n', crsql_pack_columns(1), 'b', 7, 4, 1, x'01', 1, 0)");
    assert_eq!(b.rows("SELECT * FROM n"), [] as [&str; 0]);
    b.exec("INSERT INTO n VALUES(1, 'mine', 'mine')");
    let change = "SELECT cid, val, col_version FROM crsql_changes ORDER BY cid";
    assert_eq!(b.rows(change), ["'a'|'mine'|1", "'b'|'mine'|5"]);
    b.exec("INSERT INTO crsql_changes VALUES('n', crsql_pack_columns(2), 'b', 7, 4, 1, x'01', 1, 0)");
    b.exec("INSERT INTO crsql_changes VALUES('n', crsql_pack_columns(2), 'a', 'late', 1, 1, x'01', 1, 0)");
    assert_eq!(b.rows("SELECT * FROM n WHERE id = 2"), ["2|'late'|7"]);
}

#[test]
fn x5_a_former_lifetimes_values_do_not_shine_through_cells_that_nobody_sent() {
    let (a, b) = (site(), site());
    a.exec("INSERT INTO crsql_changes VALUES('t', crsql_pack_columns('k'), 'b', 'old', 4, 5, x'01', 1, 0)");
    a.exec("INSERT INTO crsql_changes VALUES('t', crsql_pack_columns('k'), '-1', NULL, 3, 3, x'01', 3, 2)");
    b.pull(&a);
    assert_eq!(a.rows("SELECT * FROM t"), ["'k'|NULL|NULL"]);
    assert_eq!(b.rows("SELECT * FROM t"), ["'k'|NULL|NULL"]);
    assert_eq!(a.changes(), b.changes());
}

#[test]
fn x5_an_absent_cell_of_a_row_that_never_was_makes_no_row() {
    let (a, b) = (site(), site());
    a.exec("INSERT INTO crsql_changes VALUES('t', crsql_pack_columns('k'), 'b', 'x', 0, 5, x'01', 1, 0)");
    b.pull(&a);
    assert_eq!((a.rows("SELECT * FROM t"), a.changes()), (vec![], vec![]));
    assert_eq!((a.changes(), a.vector()), (b.changes(), b.vector()));
}

#[test]
fn x6_the_journal_counts_what_happened_within_a_transaction() {
    let s = site();
    s.exec("BEGIN; INSERT INTO t VALUES('u', 1, 1); UPDATE t SET a = 2; UPDATE t SET a = 3; COMMIT");
    assert_eq!(cells(&s, "u"), ["'b'|1|1|1", "'a'|3|1|3"]);
    s.exec(
        "BEGIN; INSERT INTO t VALUES('v', 1, 1); DELETE FROM t WHERE id = 'v'; INSERT INTO t VALUES('v', 2, 2); COMMIT",
    );
    assert_eq!(s.rows("SELECT DISTINCT cl FROM crsql_changes WHERE pk = crsql_pack_columns('v')"), ["3"]);
    s.exec("BEGIN; INSERT INTO t VALUES('w', 1, 1); DELETE FROM t WHERE id = 'w'; COMMIT");
    assert_eq!(cells(&s, "w"), ["'-1'|2|2|2"]);
    s.exec("INSERT INTO t VALUES('x', 1, 1)");
    s.exec("BEGIN; INSERT OR REPLACE INTO t VALUES('x', 2, 2); DELETE FROM t WHERE id = 'x'; COMMIT");
    assert_eq!(s.rows("SELECT cid, cl FROM crsql_changes WHERE pk = crsql_pack_columns('x')"), ["'-1'|2"]);
}

#[test]
fn e3_a_trigger_that_deletes_the_row_at_once_leaves_a_tombstone_whatever_the_order() {
    let s = site();
    s.exec("CREATE TRIGGER x AFTER INSERT ON t WHEN NEW.a = 'no' BEGIN DELETE FROM t WHERE id = NEW.id; END");
    s.exec("INSERT INTO t VALUES('k', 'no', 1)");
    assert_eq!(s.rows("SELECT cid, cl FROM crsql_changes"), ["'-1'|2"]);
}

#[test]
fn x7_seq_counts_superseded_writes_too() {
    let s = site();
    s.exec("CREATE TABLE f(id INTEGER PRIMARY KEY, a)");
    s.one::<String>("SELECT crsql_as_crr('f')");
    s.exec("INSERT INTO f VALUES(1, 1); DELETE FROM f");
    s.exec("BEGIN; INSERT INTO f VALUES(1, 2); UPDATE f SET a = 3; COMMIT");
    assert_eq!(s.rows("SELECT cid, seq FROM crsql_changes ORDER BY seq"), ["'-1'|0", "'a'|2"]);
}

#[test]
fn x8_s1_a_dot_that_was_used_twice_is_noticed_and_a_new_epoch_starts_afresh() {
    let dir = tempfile::tempdir().expect("a directory");
    let (path, backup) = (dir.path().join("a.db"), dir.path().join("backup.db"));
    let b = site();
    let a = Site::file(&path).with(&[T]);
    a.exec("INSERT INTO t VALUES('one', 1, 1)");
    b.pull(&a);
    a.exec(&format!("VACUUM INTO '{}'", backup.display()));
    a.exec("INSERT INTO t VALUES('lost', 1, 1)");
    b.pull(&a);
    drop(a);
    // The machine goes back to its backup and writes on: version 3 is used a second time.
    let a = Site::file(&backup);
    a.exec("INSERT INTO t VALUES('other', 1, 1)");
    let check =
        |s: &Site, v: Vec<u8>| s.db.query_row("SELECT starling_check(?1)", [v], |r| r.get::<_, Option<String>>(0));
    let word = check(&b, a.vector()).expect("it runs").expect("the tokens differ");
    assert!(word.contains("version"), "{word}");
    a.exec("INSERT INTO t VALUES('more', 1, 1)");
    let (parts, _) = a.answer(&b.vector());
    let error = b.merge(&parts[0].0).expect_err("a forked history is not merged").to_string();
    assert!(error.contains("epoch"), "{error}");

    // With a new epoch drawn before it writes, nothing is lost on either side.
    let a = Site::file(&dir.path().join("c.db")).with(&[T]);
    a.exec("INSERT INTO t VALUES('two', 1, 1); SELECT 1");
    let id = a.one::<Vec<u8>>("SELECT crsql_site_id()");
    a.one::<String>("SELECT starling_new_epoch()");
    a.exec("INSERT INTO t VALUES('three', 1, 1)");
    assert_eq!(a.one::<Vec<u8>>("SELECT crsql_site_id()"), id, "the site stays who it is");
    let c = site();
    c.pull(&a);
    assert_eq!(c.rows("SELECT id FROM t ORDER BY id"), ["'three'", "'two'"]);
    assert_eq!(c.rows("SELECT count(DISTINCT site_id) FROM crsql_changes"), ["1"]);
}

#[test]
fn x9_nine_values_are_stored_under_the_versions_they_were_given() {
    let s = site();
    s.exec("BEGIN");
    for (id, version) in [("p", 1), ("q", 2), ("r", 4)] {
        s.exec(&format!(
            "INSERT INTO crsql_changes VALUES('t', crsql_pack_columns('{id}'), 'a', 1, 1, {version}, x'aa', 1, 0)"
        ));
    }
    s.exec("COMMIT");
    assert_eq!(
        s.rows("SELECT db_version, hex(substr(site_id, 1, 1)) FROM crsql_changes"),
        ["1|'AA'", "2|'AA'", "4|'AA'"]
    );
    let c = site();
    c.pull(&s);
    assert_eq!(
        c.rows("SELECT hex(substr(site_id, 1, 1)) FROM crsql_changes"),
        ["'AA'", "'AA'", "'AA'"],
        "authors travel"
    );
    assert_eq!(s.one::<i64>("SELECT crsql_db_version()"), 4);
    s.exec("INSERT INTO crsql_changes VALUES('t', crsql_pack_columns('p'), 'a', 1, 1, 9, x'aa', 1, 0)");
    assert_eq!(s.one::<i64>("SELECT crsql_db_version()"), 4, "a merge that changes nothing takes no version");
}

#[test]
fn x10_e10_a_trigger_on_the_merged_row_is_overruled_and_one_on_another_row_is_a_local_change() {
    let tables = [T, ("log", "CREATE TABLE log(id INTEGER PRIMARY KEY, n INTEGER)")];
    let (a, b) = (Site::memory().with(&tables), Site::memory().with(&tables));
    b.exec("INSERT INTO log VALUES(1, 0)");
    b.exec("CREATE TRIGGER u AFTER INSERT ON t BEGIN UPDATE t SET b = 'trigger' WHERE id = NEW.id; UPDATE log SET n = n + 1; END");
    a.exec("INSERT INTO t VALUES('k', 1, 'from a')");
    b.pull(&a);
    assert_eq!(b.rows("SELECT b FROM t"), ["'from a'"]);
    a.pull(&b);
    assert_eq!(a.rows("SELECT n FROM log"), ["1"]);
    assert_eq!(a.changes(), b.changes());
    assert_eq!(a.vector(), b.vector());
}

#[test]
fn x12_e14_absurd_numbers_are_refused_at_every_entrance_and_do_not_stop_the_clock() {
    let s = site();
    let nine = |col_version: i64, db_version: i64, cl: i64, seq: i64| {
        format!("INSERT INTO crsql_changes VALUES('t', crsql_pack_columns('k'), 'a', 1, {col_version}, {db_version}, x'01', {cl}, {seq})")
    };
    for sql in [
        nine(i64::MAX, 1, 1, 0),
        nine(1, i64::MAX, 1, 0),
        nine(1, 1, i64::MAX, 0),
        nine(-1, 1, 1, 0),
        nine(1, -1, 1, 0),
        nine(1, 1, -1, 0),
    ] {
        let message = s.refused(&sql);
        assert!(message.contains("nothing was merged"), "{message}");
    }
    s.exec(&nine(1, (1 << 61) + 5, 1, 0));
    assert!(s.one::<i64>("SELECT crsql_db_version()") < 10, "a far away version is merged without raising the clock");
    s.exec("INSERT INTO t VALUES('works', 1, 1)");
}

#[test]
fn x13_a_transaction_larger_than_the_journal_is_one_version_and_can_be_rolled_back() {
    let s = Site::memory().with(&[("big", "CREATE TABLE big(id INTEGER PRIMARY KEY, a)")]);
    let insert = "INSERT INTO big SELECT value, 'x' FROM (WITH RECURSIVE c(value) AS (SELECT 1 UNION ALL SELECT value + 1 FROM c WHERE value < 300000) SELECT value FROM c)";
    s.exec("BEGIN; INSERT INTO big VALUES(0, 'first'); SAVEPOINT s");
    s.exec(insert);
    s.exec("ROLLBACK TO s; COMMIT");
    assert_eq!(s.changes().len(), 1);
    s.exec("BEGIN");
    s.exec(insert);
    s.exec("UPDATE big SET a = 'y' WHERE id % 1000 = 0; COMMIT");
    assert_eq!(
        s.rows("SELECT count(*), count(DISTINCT db_version) FROM crsql_changes WHERE db_version > 1"),
        ["300001|1"]
    );
    assert_eq!(s.one::<i64>("SELECT count(*) FROM crsql_changes"), 300_001);
}

#[test]
fn x15_e2_what_a_collation_or_sqlite_calls_equal_is_replicated_all_the_same() {
    let c = [("c", "CREATE TABLE c(id INTEGER PRIMARY KEY, name TEXT COLLATE NOCASE, any)")];
    let (a, b) = (Site::memory().with(&c), Site::memory().with(&c));
    a.exec("INSERT INTO c VALUES(1, 'bob', 1), (2, 'x', 0.0)");
    b.pull(&a);
    a.exec("UPDATE c SET name = 'BOB', any = 1.0 WHERE id = 1; UPDATE c SET any = -0.0 WHERE id = 2");
    b.pull(&a);
    assert_eq!(b.rows("SELECT name, any FROM c"), ["'BOB'|1.0r", "'x'|-0.0r"]);
    let version = a.one::<i64>("SELECT crsql_db_version()");
    a.exec("UPDATE c SET name = 'BOB', any = 1.0 WHERE id = 1");
    assert_eq!(a.one::<i64>("SELECT crsql_db_version()"), version, "a write that changes nothing makes no version");
}

#[test]
fn i6_a_part_of_a_changeset_is_no_changeset_that_a_relay_may_hand_on() {
    let (a, b, c) = (site(), site(), site());
    a.exec("INSERT INTO t SELECT 'k' || value, hex(randomblob(100)), 1 FROM (WITH RECURSIVE c(value) AS (SELECT 1 UNION ALL SELECT value + 1 FROM c WHERE value < 4000) SELECT value FROM c)");
    let (parts, _) = a.answer(&b.vector());
    assert!(parts.len() > 2, "{} parts", parts.len());
    b.merge(&parts[0].0).expect("it merges");
    let (relayed, _) = b.answer(&c.vector());
    assert!(relayed.iter().all(|p| !p.1), "half a changeset is offered as one that may be claimed");
    for (part, _) in &relayed {
        c.merge(part).expect("it merges");
    }
    c.pull(&a);
    assert_eq!(c.changes(), a.changes());
    b.exec("BEGIN IMMEDIATE");
    for (part, _) in &parts {
        b.merge(part).expect("it merges");
    }
    b.exec("COMMIT");
    assert_eq!((b.changes(), b.vector()), (a.changes(), a.vector()));
}

#[test]
fn e11_whatever_a_single_row_is_refused_for_the_stream_goes_on() {
    let (a, b) = (Site::memory().with(&[("t", "CREATE TABLE t(id TEXT NOT NULL PRIMARY KEY, a, b)")]), Site::memory());
    b.exec("CREATE TABLE t(id INTEGER PRIMARY KEY, a, b)");
    b.one::<String>("SELECT crsql_as_crr('t')");
    a.exec("INSERT INTO t VALUES('text', 1, 1), ('7', 2, 2)");
    b.pull(&a);
    assert_eq!(b.rows("SELECT * FROM t"), ["7|2|2"]);
    assert_eq!(b.one::<i64>("SELECT starling_aside()"), 1);
    let c = site();
    c.exec("CREATE TRIGGER boom AFTER INSERT ON t WHEN NEW.id = 'text' BEGIN SELECT RAISE(ABORT, 'not here'); END");
    c.pull(&a);
    assert_eq!(c.rows("SELECT id FROM t"), ["'7'"]);
    // FAIL leaves in place what the statement did: there is nothing to put aside.
    let d = site();
    d.exec("CREATE TRIGGER boom AFTER INSERT ON t WHEN NEW.id = 'text' BEGIN SELECT RAISE(FAIL, 'not here'); END");
    d.pull(&a);
    assert_eq!(d.changes(), a.changes());
}

#[test]
fn e12_a_key_is_one_row_however_its_type_is_written() {
    let s = Site::memory().with(&[
        ("n", "CREATE TABLE n(id INTEGER PRIMARY KEY, a)"),
        ("x", "CREATE TABLE x(id TEXT NOT NULL PRIMARY KEY, a)"),
    ]);
    for (i, key) in ["1", "'1'", "1.0"].iter().enumerate() {
        s.exec(&format!(
            "INSERT INTO crsql_changes VALUES('n', crsql_pack_columns({key}), 'a', {i}, {}, 1, x'01', 1, 0)",
            i + 1
        ));
    }
    assert_eq!(s.rows("SELECT * FROM n"), ["1|2"]);
    assert_eq!(s.rows("SELECT quote(pk), val FROM crsql_changes"), ["'X''010901'''|2"].map(|x| x.replace("''", "'")));
    s.exec("INSERT INTO crsql_changes VALUES('x', crsql_pack_columns(5), 'a', 'v', 1, 2, x'01', 1, 0)");
    assert_eq!(s.rows("SELECT id, a FROM x"), ["'5'|'v'"]);
    assert_eq!(s.changes().len(), 2, "a merge was taken for a local write");
}

#[test]
fn x10_triggers_that_undo_a_merge_are_overruled() {
    let make = |trigger: &str| {
        let s = site();
        s.exec(trigger);
        s
    };
    let a = site();
    a.exec("INSERT INTO t VALUES('k', 1, 1), ('l', 1, 1)");
    a.exec("DELETE FROM t WHERE id = 'l'");
    for trigger in [
        "CREATE TRIGGER x AFTER INSERT ON t BEGIN DELETE FROM t WHERE id = NEW.id; END",
        "CREATE TRIGGER x BEFORE INSERT ON t BEGIN SELECT RAISE(IGNORE); END",
        "CREATE TRIGGER x AFTER DELETE ON t BEGIN INSERT INTO t VALUES(OLD.id, 'again', 1); END",
        "CREATE TRIGGER x BEFORE DELETE ON t BEGIN SELECT RAISE(IGNORE); END",
        "CREATE TRIGGER x BEFORE UPDATE ON t BEGIN SELECT RAISE(IGNORE); END",
    ] {
        let b = make(trigger);
        b.pull(&a);
        assert_eq!(b.rows("SELECT * FROM t"), a.rows("SELECT * FROM t"), "{trigger}");
        a.exec("UPDATE t SET a = a + 1; INSERT INTO t VALUES('m', 1, 1)");
        b.pull(&a);
        a.exec("DELETE FROM t WHERE id = 'm'");
        b.pull(&a);
        assert_eq!(b.rows("SELECT * FROM t"), a.rows("SELECT * FROM t"), "{trigger}");
        assert_eq!(b.changes(), a.changes(), "{trigger}");
        assert_eq!(b.vector(), a.vector(), "{trigger}");
    }
}

#[test]
fn with_merge_equal_values_the_larger_author_stays_everywhere() {
    let sites = [site(), site(), site()];
    for s in &sites {
        s.one::<i64>("SELECT crsql_config_set('merge-equal-values', 1)");
        s.exec("INSERT INTO t VALUES('seed', 1, 'x')");
    }
    for _ in 0..2 {
        for (i, j) in [(0, 1), (2, 0), (1, 2), (0, 2), (1, 0), (2, 1)] {
            sites[i].pull(&sites[j]);
        }
    }
    let authors = |s: &Site| s.rows("SELECT cid, hex(site_id) FROM crsql_changes ORDER BY cid");
    assert_eq!(authors(&sites[0]), authors(&sites[1]));
    assert_eq!(authors(&sites[1]), authors(&sites[2]));
    assert_eq!(sites[0].vector(), sites[2].vector());
}

#[test]
fn x3_a_relay_that_left_a_table_lets_nobody_claim_that_tables_dots() {
    for leave in ["SELECT crsql_as_table('t')", "DROP TABLE t"] {
        let (a, b, c) = (site(), site(), site());
        a.exec("INSERT INTO t VALUES('k', 1, 1)");
        b.pull(&a);
        b.db.execute_batch(leave).or_else(|_| b.db.query_row(leave, [], |_| Ok(()))).expect("it leaves");
        c.pull(&b);
        assert_eq!(c.rows("SELECT * FROM t"), [] as [&str; 0]);
        c.pull(&a);
        assert_eq!(c.rows("SELECT * FROM t"), ["'k'|1|1"], "{leave}");
    }
}

#[test]
fn s1_a_file_that_went_back_takes_its_lost_dots_and_goes_on_in_a_new_epoch() {
    let dir = tempfile::tempdir().expect("a directory");
    let (path, backup) = (dir.path().join("a.db"), dir.path().join("backup.db"));
    let (a, b) = (Site::file(&path).with(&[T]), site());
    a.exec("INSERT INTO t VALUES('one', 1, 1)");
    a.exec(&format!("VACUUM INTO '{}'", backup.display()));
    a.exec("INSERT INTO t VALUES('two', 1, 1); INSERT INTO t VALUES('three', 1, 1); UPDATE t SET a = 5");
    b.pull(&a);
    drop(a);
    let a = Site::file(&backup);
    a.pull(&b);
    a.exec("INSERT INTO t VALUES('after', 1, 1)");
    b.pull(&a);
    assert_eq!(b.rows("SELECT id, a FROM t ORDER BY id"), ["'after'|1", "'one'|5", "'three'|5", "'two'|5"]);
    a.pull(&b);
    assert_eq!(a.changes(), b.changes());
    assert_eq!(a.vector(), b.vector());
}

#[test]
fn x9_two_writes_of_one_cell_at_one_seq_are_told_apart() {
    let nine = |version: i64, cl: i64, cid: &str, site: &str| {
        format!("INSERT INTO crsql_changes VALUES('t', crsql_pack_columns('k'), '{cid}', {version}, {version}, 1, x'{site}', {cl}, 0)")
    };
    let other = site();
    for (what, statements) in [
        ("two sites", vec![nine(1, 1, "a", "0a"), nine(2, 1, "a", "0b")]),
        ("after a local write", vec!["INSERT INTO t VALUES('k', 1, 1)".to_string(), nine(9, 1, "a", "0a")]),
        ("before a local write", vec![nine(1, 1, "a", "0a"), "UPDATE t SET a = 7".to_string()]),
        (
            "a delete and a new life",
            vec![nine(1, 1, "a", "0a"), nine(2, 2, "-1", "0a"), nine(3, 3, "-1", "0b"), nine(3, 3, "a", "0b")],
        ),
    ] {
        let s = site();
        s.exec(&format!("BEGIN; {}; COMMIT", statements.join("; ")));
        let cells = s.rows("SELECT pk, cid FROM crsql_changes");
        let distinct: std::collections::BTreeSet<_> = cells.iter().collect();
        assert_eq!(distinct.len(), cells.len(), "{what}: {cells:?}");
        starling_tests::ledger::check(&s);
        other.pull(&s);
        s.pull(&other);
        assert_eq!(s.changes(), other.changes(), "{what}");
    }
}
