//! Cells that a constraint refuses because of another cell of their row are tried again when that one changes.

use starling_tests::ledger;
use starling_tests::site::Site;

const BOUNDED: &str =
    "CREATE TABLE t(id TEXT NOT NULL PRIMARY KEY, a INTEGER, b INTEGER, c INTEGER, CHECK(a <= b AND b <= c))";

fn site() -> Site {
    Site::memory().with(&[("t", BOUNDED)])
}

/// Two sites that hold the same row, of which each has changed one bound so that they do not fit together.
fn crossed() -> (Site, Site) {
    let (x, y) = (site(), site());
    x.exec("INSERT INTO t VALUES('k', 5, 10, 30), ('other', 1, 2, 3)");
    y.pull(&x);
    x.exec("UPDATE t SET a = 9 WHERE id = 'k'");
    y.exec("UPDATE t SET b = 6 WHERE id = 'k'");
    x.pull(&y);
    y.pull(&x);
    assert_eq!([shown(&x), shown(&y)], [["'k'|9|10|30"], ["'k'|5|6|30"]]);
    assert_eq!([waiting(&x), waiting(&y)], [1, 1]);
    (x, y)
}

fn shown(s: &Site) -> Vec<String> {
    s.rows("SELECT * FROM t WHERE id = 'k'")
}

fn waiting(s: &Site) -> i64 {
    s.one("SELECT count(*) FROM crsql_pending")
}

fn end_equal(x: &Site, y: &Site) {
    ledger::end_equal(x, y, "t");
    assert_eq!([waiting(x), waiting(y)], [0, 0]);
}

#[test]
fn a_cell_that_was_refused_is_taken_when_the_cell_that_forbade_it_changes() {
    let (x, y) = crossed();
    x.exec("UPDATE t SET b = 12 WHERE id = 'k'");
    y.pull(&x);
    assert_eq!((shown(&y), waiting(&y)), (vec!["'k'|9|12|30".to_string()], 0));
    end_equal(&x, &y);
    assert_eq!(y.one::<i64>("SELECT starling_aside()"), 0);
}

#[test]
fn nine_values_mend_as_changesets_do() {
    let (x, y) = crossed();
    x.exec("UPDATE t SET b = 12 WHERE id = 'k'");
    y.pull_nine(&x, |changes| changes.retain(|c| c.contains(&rusqlite::types::Value::Integer(12))));
    assert_eq!((shown(&y), waiting(&y)), (vec!["'k'|9|12|30".to_string()], 0));
    end_equal(&x, &y);
}

#[test]
fn a_local_write_that_mends_is_found_when_asked_for_or_by_the_next_merge_of_the_row() {
    for asked in [true, false] {
        let (x, y) = crossed();
        y.exec("UPDATE t SET b = 20 WHERE id = 'k'");
        assert_eq!(shown(&y), ["'k'|5|20|30"]);
        if asked {
            assert_eq!(y.one::<i64>("SELECT starling_mend()"), 1);
        } else {
            x.exec("UPDATE t SET c = 31 WHERE id = 'k'");
            y.pull(&x);
        }
        let c = if asked { 30 } else { 31 };
        assert_eq!(shown(&y), [format!("'k'|9|20|{c}")], "asked: {asked}");
        end_equal(&x, &y);
        assert_eq!(y.one::<i64>("SELECT starling_mend()"), 0);
    }
}

#[test]
fn what_is_mended_mends_in_turn_whatever_came_first() {
    for reversed in [false, true] {
        let (x, y) = (site(), site());
        x.exec("INSERT INTO t VALUES('k', 5, 6, 10)");
        y.pull(&x);
        y.exec("UPDATE t SET c = 8 WHERE id = 'k'");
        x.exec("UPDATE t SET b = 9 WHERE id = 'k'");
        x.exec("UPDATE t SET a = 9 WHERE id = 'k'");
        let (mut parts, _) = x.answer(&y.vector());
        assert_eq!(parts.len(), 2);
        if reversed {
            parts.reverse();
        }
        for (part, _) in &parts {
            y.merge(part).expect("it is kept aside");
        }
        assert_eq!((shown(&y), waiting(&y)), (vec!["'k'|5|6|8".to_string()], 2));
        x.exec("UPDATE t SET c = 20 WHERE id = 'k'");
        y.pull(&x);
        assert_eq!(shown(&y), ["'k'|9|9|20"], "reversed: {reversed}");
        end_equal(&x, &y);
    }
}

#[test]
fn what_was_mended_in_a_transaction_that_came_to_nothing_is_mended_again() {
    for (begin, undo) in [("BEGIN", "ROLLBACK"), ("BEGIN; SAVEPOINT s", "ROLLBACK TO s; COMMIT")] {
        let (x, y) = crossed();
        x.exec("UPDATE t SET b = 12 WHERE id = 'k'");
        y.exec(begin);
        for (part, _) in &x.answer(&y.vector()).0 {
            y.merge(part).expect("it merges");
        }
        assert_eq!(shown(&y), ["'k'|9|12|30"]);
        y.exec(undo);
        assert_eq!((shown(&y), waiting(&y)), (vec!["'k'|5|6|30".to_string()], 1), "{undo}");
        y.pull(&x);
        assert_eq!(shown(&y), ["'k'|9|12|30"], "{undo}");
        end_equal(&x, &y);
    }
}

#[test]
fn what_goes_on_being_refused_is_kept_once_however_often_its_row_changes() {
    let (x, y) = crossed();
    for c in 100..1400 {
        x.exec(&format!("UPDATE t SET c = {c} WHERE id = 'k'"));
        y.pull(&x);
    }
    assert_eq!((shown(&y), waiting(&y)), (vec!["'k'|5|6|1399".to_string()], 1));
    assert_eq!(y.one::<i64>("SELECT starling_aside()"), 1);
    x.exec("UPDATE t SET b = 12 WHERE id = 'k'");
    y.pull(&x);
    assert_eq!(shown(&y), ["'k'|9|12|1399"]);
    end_equal(&x, &y);
}

#[test]
fn another_connection_knows_what_was_refused_and_what_was_settled_meanwhile() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("y.db");
    let (x, y, z) = (site(), Site::file(&path).with(&[("t", BOUNDED)]), Site::open(&path));
    x.exec("INSERT INTO t VALUES('k', 5, 10, 30)");
    z.pull(&x);
    for round in 0..6 {
        let (a, b) = (100 * round + 50, 100 * round + 80);
        x.exec(&format!("UPDATE t SET a = NULL, b = {b}, c = {b}"));
        z.pull(&x);
        x.exec(&format!("UPDATE t SET a = {a}"));
        y.exec(&format!("UPDATE t SET b = {}", a - 10));
        let (taker, mender) = if round % 2 == 0 { (&y, &z) } else { (&z, &y) };
        taker.pull(&x);
        assert_eq!(waiting(&y), 1, "round {round}");
        x.exec(&format!("UPDATE t SET b = {}, c = 10000", b + 1));
        mender.pull(&x);
        assert_eq!(shown(&y), [format!("'k'|{a}|{}|10000", b + 1)], "round {round}");
        x.pull(&y);
    }
    end_equal(&x, &y);
}

#[test]
fn a_row_that_waited_and_was_refused_when_it_could_be_shown_is_mended_too() {
    let whole = "(id TEXT NOT NULL PRIMARY KEY, a INTEGER, b INTEGER, n INTEGER NOT NULL, CHECK(a <= b))";
    let s = Site::memory().with(&[("t", &format!("CREATE TABLE t{whole}"))]);
    let cell = |name: &str, value: i64, version: i64| {
        s.exec(&format!(
            "INSERT INTO crsql_changes VALUES('t', crsql_pack_columns('k'), '{name}', {value}, {version}, {version}, x'01', 1, 0)"
        ));
    };
    cell("a", 9, 1);
    cell("b", 6, 1);
    s.exec(&format!(
        "SELECT crsql_begin_alter('t'); CREATE TABLE n{}; DROP TABLE t; ALTER TABLE n RENAME TO t; \
         SELECT crsql_commit_alter('t')",
        whole.replace(" NOT NULL, CHECK", ", CHECK")
    ));
    assert_eq!((shown(&s).len(), waiting(&s)), (0, 2), "a cell each of two transactions");
    assert_eq!(s.one::<i64>("SELECT starling_mend()"), 0);
    cell("b", 12, 2);
    s.one::<i64>("SELECT starling_mend()");
    assert_eq!((shown(&s), waiting(&s)), (vec!["'k'|9|12|NULL".to_string()], 0));
    ledger::check(&s);
}

#[test]
fn cells_of_two_refused_changesets_that_fit_only_together_are_taken_together() {
    const WITHIN: &str =
        "CREATE TABLE t(id TEXT NOT NULL PRIMARY KEY, a INTEGER, b INTEGER, c INTEGER, CHECK(b - a BETWEEN 0 AND 10))";
    for nine in [false, true] {
        let within = || Site::memory().with(&[("t", WITHIN)]);
        let (x, y, newcomer) = (within(), Site::memory(), within());
        y.exec("CREATE TABLE other(id INTEGER PRIMARY KEY); SELECT crsql_as_crr('other')");
        let pull = |to: &Site, from: &Site| if nine { to.pull_nine(from, |_| ()) } else { to.pull(from) };
        x.exec("INSERT INTO t VALUES('k', 5, 10, 0)");
        pull(&y, &x);
        // Each step fits where it is made, and what comes of them all; not so the newest of one column with the first of the other.
        for step in 1..=100 {
            let (column, value) = if step % 2 == 1 { ("b", 10) } else { ("a", 5) };
            x.exec(&format!("UPDATE t SET {column} = {} WHERE id = 'k'", value + 5 * ((step + 1) / 2)));
            pull(&y, &x);
        }
        if !nine {
            newcomer.pull(&y);
        }
        y.exec(&format!("{WITHIN}; SELECT crsql_as_crr('t')"));
        assert_eq!(shown(&x), ["'k'|255|260|0"]);
        assert_eq!((shown(&y), waiting(&y)), (shown(&x), 0), "nine: {nine}");
        if !nine {
            newcomer.one::<i64>("SELECT starling_mend()");
            assert_eq!((shown(&newcomer), waiting(&newcomer)), (shown(&x), 0));
            assert_eq!(newcomer.vector(), x.vector());
            end_equal(&x, &newcomer);
            end_equal(&x, &y);
        }
    }
}

#[test]
fn what_fits_only_together_is_taken_by_the_next_merge_of_any_row() {
    let within =
        "CREATE TABLE t(id TEXT NOT NULL PRIMARY KEY, a INTEGER, b INTEGER, c INTEGER, CHECK(b - a BETWEEN 0 AND 10))";
    let (x, y) = (Site::memory().with(&[("t", within)]), Site::memory().with(&[("t", within)]));
    let z =
        Site::memory().with(&[("t", "CREATE TABLE t(id TEXT NOT NULL PRIMARY KEY, a INTEGER, b INTEGER, c INTEGER)")]);
    x.exec("INSERT INTO t VALUES('k', 5, 10, 30), ('other', 1, 2, 3)");
    y.pull(&x);
    z.pull(&x);
    z.exec("UPDATE t SET a = 100 WHERE id = 'k'");
    z.exec("UPDATE t SET b = 105 WHERE id = 'k'");
    x.pull(&z);
    assert_eq!((shown(&x), waiting(&x)), (vec!["'k'|5|10|30".to_string()], 2));
    z.exec("UPDATE t SET c = 4 WHERE id = 'other'");
    x.pull(&z);
    assert_eq!((shown(&x), waiting(&x)), (vec!["'k'|100|105|30".to_string()], 0));
    assert_eq!(x.one::<i64>("SELECT starling_aside()"), 0);
    // Of two writers as well, and where a transaction that does so comes to nothing.
    z.exec("UPDATE t SET a = 200 WHERE id = 'k'");
    y.exec("UPDATE t SET a = 95, b = 99 WHERE id = 'k'");
    y.exec("UPDATE t SET a = 99, b = 105 WHERE id = 'k'; UPDATE t SET a = 103, b = 110 WHERE id = 'k'");
    x.exec("BEGIN");
    for from in [&z, &y] {
        for (part, _) in &from.answer(&x.vector()).0 {
            x.merge(part).expect("it merges");
        }
    }
    x.one::<i64>("SELECT starling_mend()");
    x.exec("ROLLBACK");
    assert_eq!(shown(&x), ["'k'|100|105|30"]);
    for from in [&z, &y] {
        x.pull(from);
    }
    x.one::<i64>("SELECT starling_mend()");
    z.pull(&y);
    z.exec("UPDATE t SET a = 7, b = 8 WHERE id = 'k'");
    for (to, from) in [(&x, &z), (&y, &z)] {
        to.pull(from);
        to.one::<i64>("SELECT starling_mend()");
    }
    end_equal(&x, &y);
    end_equal(&x, &z);
}

#[test]
fn of_equally_often_written_cells_the_larger_goes_with_the_others() {
    let same = "CREATE TABLE t(id TEXT NOT NULL PRIMARY KEY, a INTEGER, b INTEGER, c INTEGER, CHECK(a = b))";
    let free = "CREATE TABLE t(id TEXT NOT NULL PRIMARY KEY, a INTEGER, b INTEGER, c INTEGER)";
    for larger_first in [true, false] {
        let (x, v, w) = (
            Site::memory().with(&[("t", same)]),
            Site::memory().with(&[("t", free)]),
            Site::memory().with(&[("t", free)]),
        );
        v.exec("INSERT INTO t VALUES('k', 1, 1, 0), ('other', 0, 0, 0)");
        w.pull(&v);
        x.pull(&v);
        v.exec("UPDATE t SET b = 20 WHERE id = 'k'");
        w.exec("UPDATE t SET b = 12 WHERE id = 'k'");
        let both = if larger_first { [&v, &w] } else { [&w, &v] };
        both.into_iter().for_each(|from| x.pull(from));
        v.exec("UPDATE t SET a = 20 WHERE id = 'k'");
        x.pull(&v);
        x.one::<i64>("SELECT starling_mend()");
        assert_eq!(shown(&x), ["'k'|20|20|0"], "larger first: {larger_first}");
        w.pull(&v);
        x.pull(&w);
        x.one::<i64>("SELECT starling_mend()");
        end_equal(&x, &w);
    }
}

#[test]
fn two_bulk_writes_that_fit_only_together_are_taken_some_rows_at_a_time_and_a_user_s_trigger_is_not_tempted() {
    let within =
        "CREATE TABLE t(id TEXT NOT NULL PRIMARY KEY, a INTEGER, b INTEGER, c INTEGER, CHECK(b - a BETWEEN 0 AND 10))";
    let (x, y) = (Site::memory().with(&[("t", within)]), Site::memory().with(&[("t", within)]));
    let z =
        Site::memory().with(&[("t", "CREATE TABLE t(id TEXT NOT NULL PRIMARY KEY, a INTEGER, b INTEGER, c INTEGER)")]);
    z.exec("WITH RECURSIVE n(i) AS (VALUES(1) UNION ALL SELECT i + 1 FROM n WHERE i < 300) INSERT INTO t SELECT 'k' || i, 5, 10, 0 FROM n");
    for s in [&x, &y] {
        s.pull(&z);
    }
    y.exec("CREATE TRIGGER no AFTER UPDATE OF a, b ON t WHEN NEW.a = 50 AND NEW.b = 55 BEGIN SELECT RAISE(ROLLBACK, 'no'); END");
    z.exec("UPDATE t SET a = 50");
    z.exec("UPDATE t SET b = 55");
    for s in [&x, &y] {
        s.pull(&z);
    }
    for _ in 0..6 {
        for s in [&x, &y] {
            s.one::<i64>("SELECT starling_mend()");
        }
    }
    let moved = "SELECT count(*) FROM t WHERE a = 50 AND b = 55";
    assert_eq!([x.one::<i64>(moved), y.one::<i64>(moved)], [300, 0]);
    assert_eq!([waiting(&x), waiting(&y)], [0, 2]);
    y.exec("DROP TRIGGER no");
    for _ in 0..6 {
        y.one::<i64>("SELECT starling_mend()");
    }
    assert_eq!(y.one::<i64>(moved), 300);
    end_equal(&x, &y);
}

#[test]
fn two_writes_of_one_transaction_that_fit_only_together_are_taken() {
    let within =
        "CREATE TABLE t(id TEXT NOT NULL PRIMARY KEY, a INTEGER, b INTEGER, c INTEGER, CHECK(b - a BETWEEN 0 AND 10))";
    let (x, y) = (Site::memory().with(&[("t", within)]), Site::memory().with(&[("t", within)]));
    x.exec("INSERT INTO t VALUES('k', 2, 10, 0), ('other', 1, 1, 0)");
    y.pull(&x);
    x.exec("BEGIN; UPDATE t SET b = 12 WHERE id = 'k'; UPDATE t SET a = 12 WHERE id = 'k'; UPDATE t SET b = 22 WHERE id = 'k'; \
            UPDATE t SET a = 18 WHERE id = 'k'; COMMIT");
    y.pull(&x);
    x.exec("UPDATE t SET c = 1 WHERE id = 'other'");
    y.pull(&x);
    assert_eq!((shown(&y), waiting(&y)), (vec!["'k'|18|22|0".to_string()], 0));
    end_equal(&x, &y);
}

const EQUAL: &str = "CREATE TABLE t(id TEXT NOT NULL PRIMARY KEY, a, b, c, CHECK(a IS b AND b IS c))";
const FREE: &str = "CREATE TABLE t(id TEXT NOT NULL PRIMARY KEY, a, b, c)";

/// Three nodes that each write one of three columns, which fit together only, and one that minds; and what this one has not got yet.
fn thirds(y: &Site) -> [Site; 3] {
    let nodes = ["a", "b", "c"].map(|_| Site::memory().with(&[("t", FREE)]));
    nodes[0].exec("INSERT INTO t VALUES('k', 0, 0, 0), ('never', 0, 0, 0)");
    nodes[1].pull(&nodes[0]);
    nodes[2].pull(&nodes[0]);
    y.pull(&nodes[0]);
    for (node, column) in nodes.iter().zip(["a", "b", "c"]) {
        node.exec(&format!("UPDATE t SET {column} = 5 WHERE id = 'k'"));
    }
    nodes[0].exec("UPDATE t SET a = 7 WHERE id = 'never'");
    y.pull(&nodes[0]);
    y.pull(&nodes[1]);
    nodes
}

#[test]
fn what_fit_together_in_a_transaction_that_came_to_nothing_does_so_again() {
    for (begin, undo) in [("BEGIN", "ROLLBACK"), ("BEGIN; SAVEPOINT s", "ROLLBACK TO s; COMMIT")] {
        let y = Site::memory().with(&[("t", EQUAL)]);
        let nodes = thirds(&y);
        let (parts, _) = nodes[2].answer(&y.vector());
        let merge = || parts.iter().for_each(|(part, _)| assert!(y.merge(part).is_ok()));
        y.exec(begin);
        merge();
        y.exec("SELECT starling_mend(), starling_mend()");
        assert_eq!(shown(&y)[0], "'k'|5|5|5");
        y.exec(undo);
        assert_eq!(shown(&y)[0], "'k'|0|0|0");
        merge();
        y.exec("SELECT starling_mend(), starling_mend()");
        assert_eq!((shown(&y)[0].as_str(), waiting(&y)), ("'k'|5|5|5", 1), "{undo}");
    }
}

#[test]
fn a_connection_learns_that_what_it_took_for_unknown_is_refused_by_now() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("y.db");
    let y = Site::file(&path).with(&[("t", "CREATE TABLE t(id TEXT NOT NULL PRIMARY KEY)")]);
    let nodes = thirds(&y);
    y.exec("SELECT starling_mend()");
    Site::open(&path).exec(
        "SELECT crsql_begin_alter('t'); CREATE TABLE n(id TEXT NOT NULL PRIMARY KEY, a, b, c, CHECK(a IS b AND b IS c)); \
         INSERT INTO n(id) SELECT id FROM t; DROP TABLE t; ALTER TABLE n RENAME TO t; SELECT crsql_commit_alter('t')",
    );
    y.pull(&nodes[2]);
    y.exec("SELECT starling_mend(), starling_mend()");
    assert_eq!(shown(&y)[0], "'k'|5|5|5");
}

#[test]
fn a_write_that_the_column_stores_otherwise_when_it_is_merged_again_is_listed_once() {
    let (x, y) = (
        Site::memory().with(&[("t", "CREATE TABLE t(id INTEGER PRIMARY KEY NOT NULL, c)")]),
        Site::memory().with(&[("t", "CREATE TABLE t(id INTEGER PRIMARY KEY NOT NULL, c TEXT, CHECK(c <> '99'))")]),
    );
    x.exec("INSERT INTO t VALUES(1, 0), (2, 0)");
    y.pull(&x);
    x.exec("BEGIN; UPDATE t SET c = 3 WHERE id = 1; UPDATE t SET c = 99 WHERE id = 2; COMMIT");
    y.pull(&x);
    y.exec(
        "SELECT crsql_begin_alter('t'); CREATE TABLE n(id INTEGER PRIMARY KEY NOT NULL, c); INSERT INTO n SELECT * FROM t; \
         DROP TABLE t; ALTER TABLE n RENAME TO t; SELECT crsql_commit_alter('t')",
    );
    assert_eq!(y.rows("SELECT * FROM t"), ["1|3", "2|99"]);
    assert_eq!(y.changes(), x.changes());
}
