//! Merges on portable tables: their own writes do not come back, a user's triggers and what waits in the inbox keep their
//! place, and what was replaced here loses elsewhere (hazard E17).

use crate::portable::{memory, pair, Pair, T};
use starling_tests::site::Site;

#[test]
fn merges_do_not_echo() {
    let (a, b) = (pair(&[T]), pair(&[T]));
    a.app("INSERT INTO t VALUES('k', 1, 1), ('l', 2, 2), ('m', 3, 3)");
    b.app("INSERT INTO t VALUES('k', 9, 9), ('x', 2, 2)");
    for _ in 0..3 {
        b.site.pull(&a.site);
        a.site.pull(&b.site);
    }
    a.app("UPDATE t SET a = 'a' WHERE id = 'k'; DELETE FROM t WHERE id = 'l'");
    b.app("UPDATE t SET a = 'b', b = 'b' WHERE id = 'k'; UPDATE t SET id = 'moved' WHERE id = 'x'");
    for _ in 0..3 {
        b.site.pull(&a.site);
        a.site.pull(&b.site);
    }
    let rows = a.site.rows("SELECT * FROM t ORDER BY id");
    assert_eq!(rows, ["'k'|'b'|'b'", "'m'|3|3", "'moved'|2|2"]);
    assert_eq!(b.site.rows("SELECT * FROM t ORDER BY id"), rows);
    let versions = |p: &Pair| (p.site.one::<i64>("SELECT crsql_db_version()"), p.site.vector(), p.inbox());
    let before = (versions(&a), versions(&b));
    assert_eq!((before.0 .1.clone(), before.0 .2, before.1 .2), (before.1 .1.clone(), 0, 0));
    for _ in 0..3 {
        b.site.pull(&a.site);
        a.site.pull(&b.site);
    }
    assert_eq!((versions(&a), versions(&b)), before, "quiet replicas stay quiet");
    assert_eq!(a.site.changes(), b.site.changes());
    let c = memory();
    c.pull_nine(&a.site, |_| {});
    c.pull_nine(&a.site, |_| {});
    assert_eq!(c.changes(), a.site.changes(), "nine values at a time neither");
}

#[test]
fn a_local_write_that_waits_is_ordered_before_the_merge_that_finds_it() {
    let (a, b) = (pair(&[T]), pair(&[T]));
    a.app("INSERT INTO t VALUES('k', 'first', 0)");
    b.site.pull(&a.site);
    a.app("UPDATE t SET a = 'zz'");
    let (parts, _) = a.site.answer(&b.site.vector());
    b.app("UPDATE t SET a = 'aa', b = 1; INSERT INTO t VALUES('mine', 1, 1); DELETE FROM t WHERE id = 'mine'");
    for (part, _) in &parts {
        b.site.merge(part).expect("it merges");
    }
    assert_eq!(b.site.rows("SELECT * FROM t"), ["'k'|'zz'|1"]);
    assert_eq!(b.inbox(), 0);
    let seen = b.site.rows("SELECT cid, col_version, cl FROM crsql_changes ORDER BY pk, cid");
    assert_eq!(seen, ["'a'|2|1", "'b'|2|1", "'-1'|2|2"]);
    b.app("UPDATE t SET a = 'more'");
    b.site.exec("INSERT INTO crsql_changes VALUES('t', crsql_pack_columns('k'), 'a', 'lower', 3, 9, x'01', 1, 0)");
    assert_eq!(b.site.rows("SELECT a FROM t"), ["'more'"], "a cell of the same version meets the waiting write's");
}

#[test]
fn replace_over_a_pristine_row_wins_on_peers() {
    let (p, peer) = (pair(&[T]), memory());
    p.app("INSERT INTO t VALUES('k', 'z', 'z'), ('l', 'z', 'z'), ('m', 'z', 'z')");
    peer.pull(&p.site);
    p.app("REPLACE INTO t VALUES('k', 'a', 'a'); UPDATE OR REPLACE t SET id = 'l' WHERE id = 'm'");
    p.app("REPLACE INTO t VALUES('fresh', 1, 1)");
    peer.pull(&p.site);
    let rows = ["'fresh'|1|1", "'k'|'a'|'a'", "'l'|'z'|'z'"];
    assert_eq!(
        (p.site.rows("SELECT * FROM t ORDER BY id"), peer.rows("SELECT * FROM t ORDER BY id")),
        (rows.map(String::from).to_vec(), rows.map(String::from).to_vec())
    );
    assert_eq!(peer.changes(), p.site.changes());
    let versions = |key: &str| {
        p.site.rows(&format!(
            "SELECT DISTINCT col_version, cl FROM crsql_changes WHERE pk = crsql_pack_columns('{key}') AND cid <> '-1'"
        ))
    };
    assert_eq!(
        (versions("k"), versions("fresh")),
        (vec!["2|1".to_string()], vec!["1|1".to_string()]),
        "what was there is known"
    );
    p.app("REPLACE INTO t VALUES('k', 1, 1); DELETE FROM t WHERE id = 'k'; REPLACE INTO t VALUES('n', 1, 1); DELETE FROM t WHERE id = 'n'");
    p.app("PRAGMA recursive_triggers = 1; REPLACE INTO t VALUES('l', 2, 2)");
    peer.pull(&p.site);
    assert_eq!(peer.rows("SELECT * FROM t ORDER BY id"), ["'fresh'|1|1", "'l'|2|2"]);
    assert_eq!(peer.changes(), p.site.changes());
    // An insert that is ignored stands in nobody's way later.
    p.app("INSERT OR IGNORE INTO t VALUES('l', 3, 3); INSERT INTO t VALUES('o', 1, 1) ON CONFLICT DO NOTHING");
    let before = p.site.one::<i64>("SELECT crsql_db_version()");
    p.site.rows("SELECT * FROM crsql_changes");
    p.app("INSERT OR IGNORE INTO t VALUES('l', 3, 3)");
    p.site.rows("SELECT * FROM crsql_changes");
    assert_eq!(
        (p.inbox(), p.site.one::<i64>("SELECT crsql_db_version()")),
        (0, before + 1),
        "an ignored insert is no change"
    );
}

#[test]
fn a_users_trigger_on_a_portable_table_acts_in_merges_as_on_a_native_one() {
    let tables = [T, ("log", "CREATE TABLE log(id INTEGER PRIMARY KEY, what)")];
    let triggers = "CREATE TRIGGER stamp AFTER UPDATE OF a ON t BEGIN UPDATE t SET b = 'stamped' WHERE id = NEW.id; END; \
                    CREATE TRIGGER note AFTER INSERT ON t WHEN NEW.id <> 'other' BEGIN \
                    INSERT OR IGNORE INTO log VALUES(length(NEW.id), NEW.id); INSERT OR IGNORE INTO t VALUES('other', 1, 1); END";
    let (a, b) = (pair(&tables), pair(&tables));
    b.app(triggers);
    a.app("INSERT INTO t VALUES('k', 1, 1); UPDATE t SET a = 2; UPDATE t SET a = 3");
    b.site.pull(&a.site);
    assert_eq!(
        b.site.rows("SELECT * FROM t ORDER BY id"),
        ["'k'|3|1", "'other'|1|1"],
        "the merged row is as it was merged"
    );
    for _ in 0..2 {
        a.site.pull(&b.site);
        b.site.pull(&a.site);
    }
    assert_eq!(a.site.rows("SELECT * FROM log"), ["1|'k'"], "what a trigger did elsewhere is a local change");
    assert_eq!((a.site.changes(), a.site.vector()), (b.site.changes(), b.site.vector()));
    assert_eq!(a.site.rows("SELECT * FROM t ORDER BY id"), b.site.rows("SELECT * FROM t ORDER BY id"));
}

#[test]
fn replace_wins_also_where_a_users_trigger_writes_another_row_before_it() {
    let (p, peer) = (pair(&[T]), memory());
    p.app("INSERT INTO t VALUES('k', 'z', 'z')");
    peer.pull(&p.site);
    p.app(
        "CREATE TRIGGER before BEFORE INSERT ON t WHEN NEW.id = 'k' BEGIN INSERT OR IGNORE INTO t VALUES('other', 1, 1); END; \
         REPLACE INTO t VALUES('k', 'a', 'a')",
    );
    peer.pull(&p.site);
    assert_eq!(peer.rows("SELECT * FROM t ORDER BY id"), ["'k'|'a'|'a'", "'other'|1|1"]);
    assert_eq!(peer.changes(), p.site.changes());
}

#[test]
fn a_users_trigger_that_makes_up_for_a_write_of_equal_values_is_overruled_all_the_same() {
    const TRIGGER: &str =
        "CREATE TRIGGER u AFTER UPDATE ON t BEGIN UPDATE t SET b = b + 1 WHERE id = new.id AND b < 4; END";
    for capture in ["native", "exact", "portable"] {
        let (a, b, nine) = (Site::memory(), Site::memory(), Site::memory());
        for (s, capture) in [(&a, "native"), (&b, capture), (&nine, capture)] {
            s.exec(&format!("{}; SELECT crsql_as_crr('t', '{capture}'); {TRIGGER}", T.1));
        }
        a.exec("INSERT INTO t VALUES(1, 'x', 2)");
        b.pull(&a);
        nine.pull(&a);
        a.exec("REPLACE INTO t VALUES(1, 'x', 2)");
        b.pull(&a);
        nine.pull_nine(&a, |_| ());
        for s in [&b, &nine] {
            assert_eq!((s.rows("SELECT * FROM t"), s.changes()), (a.rows("SELECT * FROM t"), a.changes()), "{capture}");
        }
    }
}
