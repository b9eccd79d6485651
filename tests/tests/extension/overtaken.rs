//! What is kept aside and overtaken by something else that is kept aside goes: heartbeats that cannot be merged do not pile up.

use starling_tests::ledger;
use starling_tests::site::Site;

const LIMITED: &str = "CREATE TABLE t(id TEXT NOT NULL PRIMARY KEY, a INTEGER, c INTEGER, CHECK(a < 10))";
const FREE: &str = "CREATE TABLE t(id TEXT NOT NULL PRIMARY KEY, a INTEGER, c INTEGER)";

/// As many parts as may come before the overtaken ones are looked for.
const ROOM: i64 = 64;

fn site(schema: &str) -> Site {
    Site::memory().with(&[("t", schema)])
}

fn aside(s: &Site) -> i64 {
    s.one("SELECT starling_aside()")
}

fn rows(s: &Site) -> Vec<String> {
    s.rows("SELECT * FROM t ORDER BY id")
}

#[test]
fn a_cell_that_is_refused_over_and_over_is_kept_a_few_times_not_for_ever() {
    let (x, y, newcomer) = (site(FREE), site(LIMITED), site(FREE));
    x.exec("INSERT INTO t VALUES('k', 1, 0), ('other', 2, 0)");
    y.pull(&x);
    for beat in 1..=1000 {
        x.exec(&format!("UPDATE t SET a = {} WHERE id = 'k'", 10 + beat));
        if beat % 7 == 0 {
            x.exec(&format!("UPDATE t SET a = {beat} + 100, c = {beat} WHERE id = 'other'"));
        }
        y.pull(&x);
        assert!(aside(&y) <= ROOM + 3, "{} parts after {beat}", aside(&y));
    }
    assert_eq!(rows(&y), ["'k'|1|0", "'other'|2|0"]);
    // Whoever has all of it from here has the newest.
    newcomer.pull(&y);
    assert_eq!(rows(&newcomer), rows(&x));
    assert_eq!(newcomer.vector(), x.vector());
    // Nor is anything of it lost here.
    x.exec("UPDATE t SET a = 3 WHERE id = 'k'");
    y.pull(&x);
    assert_eq!(rows(&y), ["'k'|3|0", "'other'|2|0"]);
    x.exec("UPDATE t SET a = 4");
    ledger::end_equal(&x, &y, "t");
}

#[test]
fn what_was_merged_beside_a_refused_cell_keeps_nothing_aside() {
    let (x, y) = (site(FREE), site(LIMITED));
    x.exec("INSERT INTO t VALUES('k', 1, 0)");
    y.pull(&x);
    for beat in 1..=300 {
        x.exec(&format!(
            "BEGIN; UPDATE t SET a = {beat} + 10 WHERE id = 'k'; INSERT INTO t VALUES('n{beat}', 1, 1); COMMIT"
        ));
        y.pull(&x);
        assert!(aside(&y) <= ROOM + 3, "{} parts after {beat}", aside(&y));
    }
    assert_eq!(y.one::<i64>("SELECT count(*) FROM t"), 301);
    x.exec("UPDATE t SET a = 4 WHERE id = 'k'");
    ledger::end_equal(&x, &y, "t");
    // After a merge the newest are tried.
    y.one::<i64>("SELECT starling_mend()");
    assert_eq!(aside(&y), 0);
}

#[test]
fn heartbeats_of_a_table_that_is_not_there_yet_are_kept_a_few_times_and_all_of_it_comes_out() {
    let (x, y, newcomer) = (site(FREE), Site::memory(), site(FREE));
    y.exec("CREATE TABLE u(id INTEGER PRIMARY KEY); SELECT crsql_as_crr('u')");
    for beat in 0..400 {
        let k = beat % 5;
        x.exec(&format!("INSERT INTO t VALUES('k{k}', {beat}, 0) ON CONFLICT(id) DO UPDATE SET a = excluded.a"));
        if beat % 50 == 0 {
            x.exec(&format!("DELETE FROM t WHERE id = 'k{}'", (k + 1) % 5));
        }
        y.pull(&x);
        assert!(aside(&y) <= 2 * ROOM, "{} parts after {beat}", aside(&y));
    }
    newcomer.pull(&y);
    assert_eq!(rows(&newcomer), rows(&x));
    assert_eq!(newcomer.vector(), x.vector());
    y.exec(&format!("{FREE}; SELECT crsql_as_crr('t')"));
    assert_eq!(rows(&y), rows(&x));
    assert_eq!(aside(&y), 0);
    ledger::end_equal(&x, &y, "t");
}

#[test]
fn what_no_other_part_beats_stays_however_many_there_are() {
    let (x, y) = (site(FREE), Site::memory());
    y.exec("CREATE TABLE u(id INTEGER PRIMARY KEY); SELECT crsql_as_crr('u')");
    for k in 0..200 {
        x.exec(&format!("INSERT INTO t VALUES('k{k}', {k}, 0)"));
        x.exec(&format!("UPDATE t SET c = {k} + 1 WHERE id = 'k{k}'"));
        y.pull(&x);
    }
    assert_eq!(aside(&y), 400);
    y.exec(&format!("{FREE}; SELECT crsql_as_crr('t')"));
    ledger::end_equal(&x, &y, "t");
}
