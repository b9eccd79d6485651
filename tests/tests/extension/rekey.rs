//! A table that gets another primary key of as many columns: what was told of rows under former keys is not taken for word of
//! those of now.

use starling_tests::ledger::end_equal;
use starling_tests::site::Site;

fn site(key: &str) -> Site {
    Site::memory().with(&[("g", &format!("CREATE TABLE g(id {key} NOT NULL PRIMARY KEY, a)"))])
}

/// Makes the key one of another type.
fn rekey(s: &Site, key: &str, window: bool) {
    let rebuild = format!(
        "CREATE TABLE n(id {key} NOT NULL PRIMARY KEY, a); INSERT INTO n SELECT id, a FROM g; DROP TABLE g; ALTER TABLE n RENAME TO g;"
    );
    if window {
        s.exec(&format!("SELECT crsql_begin_alter('g'); {rebuild} SELECT crsql_commit_alter('g')"));
    } else {
        s.exec(&format!("BEGIN; {rebuild} COMMIT; SELECT starling_resume()"));
    }
}

#[test]
fn rows_under_the_former_key_wait_where_the_key_has_another_type_already() {
    for (before, after) in [("INTEGER", "TEXT"), ("TEXT", "INTEGER")] {
        for window in [true, false] {
            let (a, b) = (site(before), site(before));
            a.exec("INSERT INTO g VALUES(3, 'x'); UPDATE g SET a = 'old' WHERE id = 3");
            rekey(&b, after, window);
            b.pull(&a);
            assert_eq!(b.rows("SELECT * FROM g"), [] as [&str; 0]);
            assert_eq!(b.rows("SELECT DISTINCT reason FROM crsql_pending"), ["'its key has another type here'"]);
            a.exec("UPDATE g SET a = 'new' WHERE id = 3");
            rekey(&a, after, window);
            end_equal(&a, &b, "g");
            assert_eq!(b.rows("SELECT a FROM g"), ["'new'"], "{before} {after}");
        }
    }
}

#[test]
fn a_key_of_another_type_begins_anew_without_a_window_too() {
    let (a, b) = (site("INTEGER"), site("INTEGER"));
    a.exec("INSERT INTO g VALUES(2, 'x'), (3, 'y')");
    b.pull(&a);
    a.exec("DELETE FROM g WHERE id = 3");
    for s in [&a, &b] {
        rekey(s, "TEXT", false);
    }
    end_equal(&a, &b, "g");
    a.exec("DELETE FROM g WHERE id = '2'");
    end_equal(&a, &b, "g");
    // Each had announced what it had; the rest of the former table's rows is gone from sight.
    assert_eq!(b.rows("SELECT * FROM g"), ["'3'|'y'"]);
    assert_eq!(b.rows("SELECT DISTINCT substr(hex(pk), 1, 4) FROM crsql_changes"), ["'010B'"]);
}

#[test]
fn nodes_that_never_agreed_in_the_type_of_a_key_merge_what_they_call_the_same() {
    let (a, b) = (site("INTEGER"), site("TEXT"));
    a.exec("INSERT INTO g VALUES(1, 'from a')");
    b.pull(&a);
    b.exec("UPDATE g SET a = 'from b' WHERE id = '1'");
    a.pull(&b);
    assert_eq!(a.rows("SELECT * FROM g"), ["1|'from b'"]);
}

#[test]
fn a_table_that_was_let_go_and_got_another_key_begins_anew_when_it_is_taken_up_again() {
    for (key, columns) in
        [("id TEXT NOT NULL PRIMARY KEY, a", "id, a"), ("id INTEGER NOT NULL, a NOT NULL, PRIMARY KEY(id, a)", "id, a")]
    {
        let (a, b) = (site("INTEGER"), site("INTEGER"));
        a.exec("INSERT INTO g VALUES(4, 'q'); UPDATE g SET a = 'r'");
        b.pull(&a);
        for s in [&a, &b] {
            s.exec(&format!(
                "SELECT crsql_as_table('g'); CREATE TABLE n({key}); INSERT INTO n SELECT {columns} FROM g"
            ));
            s.exec("DROP TABLE g; ALTER TABLE n RENAME TO g; SELECT crsql_as_crr('g')");
        }
        end_equal(&a, &b, "g");
        assert_eq!(b.rows("SELECT count(DISTINCT pk), max(cl) FROM crsql_changes"), ["1|1"], "{key}");
    }
}

#[test]
fn a_table_that_was_dropped_and_made_anew_with_another_key_is_another_one_whoever_takes_it_up() {
    for nine in [false, true] {
        let (a, b) = (site("INTEGER"), site("INTEGER"));
        let exchange = |a: &Site, b: &Site| if nine { b.pull_nine(a, |_| ()) } else { b.pull(a) };
        a.exec("INSERT INTO g VALUES(1, 'one'), (2, 'two'), (3, 'three')");
        exchange(&a, &b);
        for s in [&a, &b] {
            s.exec("DROP TABLE g; CREATE TABLE g(id TEXT NOT NULL PRIMARY KEY, a); SELECT crsql_as_crr('g')");
        }
        a.exec("INSERT INTO g VALUES('1', 'uno'), ('2', 'due'), ('x', 'ics')");
        for _ in 0..3 {
            exchange(&a, &b);
            exchange(&b, &a);
        }
        for s in [&a, &b] {
            assert_eq!(s.rows("SELECT * FROM g"), ["'1'|'uno'", "'2'|'due'", "'x'|'ics'"], "nine: {nine}");
        }
        // Another way of capture may be asked for at the same time.
        b.exec("DROP TABLE g; CREATE TABLE g(id REAL NOT NULL PRIMARY KEY, a); SELECT crsql_as_crr('g', 'portable'); INSERT INTO g VALUES(1.5, 'r')");
        assert_eq!(b.rows("SELECT val FROM crsql_changes"), ["'r'"]);
    }
}

#[test]
fn nine_values_under_the_former_key_wait_too() {
    for window in [true, false] {
        let (a, b) = (site("INTEGER"), site("INTEGER"));
        a.exec("INSERT INTO g VALUES(2, 'x')");
        rekey(&b, "TEXT", window);
        b.pull_nine(&a, |_| ());
        assert_eq!(b.rows("SELECT * FROM g"), [] as [&str; 0]);
        assert_eq!(b.rows("SELECT reason FROM crsql_pending"), ["'its key has another type here'"]);
        b.exec("INSERT INTO crsql_changes VALUES('g', crsql_pack_columns('2'), 'a', 'y', 1, 9, x'0b', 1, 0)");
        assert_eq!(b.rows("SELECT * FROM g"), ["'2'|'y'"]);
    }
}

#[test]
fn a_table_whose_key_can_not_be_replicated_any_more_is_let_go_until_it_can() {
    for key in ["TEXT NOT NULL PRIMARY KEY COLLATE NOCASE", "TEXT PRIMARY KEY", "TEXT NOT NULL"] {
        let (a, b) = (site("TEXT"), site("TEXT"));
        a.exec("INSERT INTO g VALUES('Key', 1)");
        b.pull(&a);
        let rebuild = |key: &str| {
            format!("BEGIN; CREATE TABLE n(id {key}, a); INSERT INTO n SELECT * FROM g; DROP TABLE g; ALTER TABLE n RENAME TO g; COMMIT;")
        };
        a.exec(&rebuild(key));
        for _ in 0..2 {
            a.exec("SELECT starling_resume()");
            assert_eq!(a.one::<i64>("SELECT count(*) FROM sqlite_master WHERE type = 'trigger'"), 0, "{key}");
        }
        a.exec("UPDATE g SET a = 2; INSERT INTO g VALUES('new', 3)");
        assert_eq!(a.rows("SELECT * FROM crsql_changes"), [] as [&str; 0], "{key}");
        b.exec("UPDATE g SET a = 9");
        a.pull(&b);
        assert_eq!(a.rows("SELECT a FROM g ORDER BY a"), ["2", "3"], "{key}");
        assert!(a.refused("SELECT crsql_as_crr('g')").contains("key"), "{key}");
        a.exec(&rebuild("TEXT NOT NULL PRIMARY KEY"));
        a.exec("SELECT starling_resume()");
        end_equal(&a, &b, "g");
        assert_eq!(b.one::<i64>("SELECT count(*) FROM g"), 2, "{key}");
    }
}

#[test]
fn changes_wait_while_nobody_has_looked_after_a_table_with_another_key() {
    for (key, capture) in [
        ("INT PRIMARY KEY", "native"),
        ("INTEGER NOT NULL PRIMARY KEY", "portable"),
        ("TEXT NOT NULL PRIMARY KEY COLLATE NOCASE", "native"),
    ] {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("a.db");
        let (a, b) =
            (Site::file(&path).with(&[("g", "CREATE TABLE g(id TEXT NOT NULL PRIMARY KEY, a)")]), site("TEXT"));
        a.exec(&format!("SELECT crsql_as_crr('g', '{capture}'); INSERT INTO g VALUES('1', 'a'), ('3', 'c'); SELECT starling_drain()"));
        b.pull(&a);
        let rebuild = |key: &str| {
            // A program without the extension drops the table with its triggers.
            let plain = starling_tests::site::plain(&path);
            plain.execute_batch(&format!("BEGIN; CREATE TEMP TABLE k AS SELECT * FROM g; DROP TABLE g; CREATE TABLE g(id {key}, a); INSERT INTO g SELECT * FROM k; COMMIT")).expect("it migrates");
        };
        rebuild(key);
        b.exec("UPDATE g SET a = 'peer' WHERE id = '3'; INSERT INTO g VALUES('6', 'p')");
        a.pull(&b);
        a.pull_nine(&b, |_| ());
        assert_eq!(a.rows("SELECT a FROM g ORDER BY a"), ["'a'", "'c'"], "{key}");
        assert!(a.one::<i64>("SELECT starling_aside()") > 0, "{key}");
        rebuild("TEXT NOT NULL PRIMARY KEY");
        a.exec("SELECT starling_resume(), starling_mend()");
        end_equal(&a, &b, "g");
        assert_eq!(b.rows("SELECT * FROM g"), ["'1'|'a'", "'3'|'peer'", "'6'|'p'"], "{key}");
    }
}

#[test]
fn a_table_that_is_let_go_keeps_its_way_of_capture_and_its_list_until_it_is_dropped() {
    let s = Site::memory();
    s.exec("CREATE TABLE g(id TEXT NOT NULL PRIMARY KEY, a); SELECT crsql_as_crr('g', 'portable'), crsql_fract_as_ordered('g', 'a')");
    let rebuild = |key: &str| {
        s.exec(&format!("PRAGMA legacy_alter_table = ON; CREATE TABLE n(id {key}, a); INSERT INTO n SELECT * FROM g; DROP TABLE g; ALTER TABLE n RENAME TO g; PRAGMA legacy_alter_table = OFF; SELECT starling_resume()"));
    };
    rebuild("TEXT NOT NULL PRIMARY KEY COLLATE NOCASE");
    assert_eq!(s.one::<i64>("SELECT count(*) FROM sqlite_master WHERE type = 'trigger' AND tbl_name = 'g'"), 0);
    rebuild("TEXT NOT NULL PRIMARY KEY");
    s.exec("INSERT INTO g VALUES('x', 1)");
    assert_eq!(s.rows("SELECT * FROM g"), ["'x'|'a0'"]);
    assert_eq!(s.one::<i64>("SELECT count(*) FROM sqlite_master WHERE type = 'trigger' AND tbl_name = 'g' AND instr(sql, 'crsql_inbox_')"), 6);
    rebuild("TEXT NOT NULL PRIMARY KEY COLLATE NOCASE");
    s.exec("DROP TABLE g; SELECT starling_resume()");
    assert_eq!(s.one::<i64>("SELECT count(*) FROM sqlite_master WHERE name LIKE 'g%'"), 0);
    s.exec("CREATE TABLE z(x); ALTER TABLE z RENAME TO zz");
}

#[test]
fn what_was_merged_under_converted_keys_comes_again_when_the_table_gets_that_key() {
    for window in [true, false] {
        let (a, b, c) = (site("INTEGER"), site("INTEGER"), site("INTEGER"));
        a.exec("INSERT INTO g VALUES(1, 10), (2, 20), (3, 30)");
        b.pull(&a);
        c.pull(&a);
        // The first one migrates and writes, the others hear of it, one of them from the other one.
        rekey(&a, "TEXT", window);
        a.exec("UPDATE g SET a = 12 WHERE id = '1'; DELETE FROM g WHERE id = '2'; INSERT INTO g VALUES('4', 40)");
        b.pull(&a);
        c.pull(&b);
        assert_eq!(c.rows("SELECT * FROM g"), ["1|12", "3|30", "4|40"]);
        // Of these rows the second one has nothing left to announce under the new key, nor has it a newer write.
        b.exec("DELETE FROM g WHERE id IN (3, 4)");
        rekey(&b, "TEXT", window);
        b.exec("UPDATE g SET a = 11 WHERE id = '1'");
        rekey(&c, "TEXT", window);
        for _ in 0..2 {
            c.pull(&b);
            b.pull(&c);
        }
        for s in [&b, &c] {
            end_equal(&a, s, "g");
        }
        end_equal(&b, &c, "g");
        assert_eq!(a.rows("SELECT * FROM g"), ["'1'|12", "'3'|30", "'4'|40"]);
    }
}

#[test]
fn a_table_that_was_let_go_is_taken_up_with_a_fit_key_of_another_type_too() {
    for capture in ["native", "portable"] {
        let s = Site::memory();
        s.exec("CREATE TABLE g(id INTEGER PRIMARY KEY NOT NULL, a)");
        s.exec(&format!("SELECT crsql_as_crr('g', '{capture}'); INSERT INTO g VALUES(1, 'a')"));
        rekey(&s, "TEXT COLLATE NOCASE", false);
        assert_eq!(s.changes(), [], "{capture}");
        rekey(&s, "TEXT", false);
        s.exec("INSERT INTO g VALUES('new', 'b')");
        let other = site("TEXT");
        other.pull(&s);
        assert_eq!(other.rows("SELECT * FROM g ORDER BY id"), ["'1'|'a'", "'new'|'b'"], "{capture}");
        // One that was dropped is not taken up under a key of another type: that is somebody else's table.
        rekey(&s, "TEXT COLLATE NOCASE", false);
        s.exec("DROP TABLE g; SELECT starling_resume(); CREATE TABLE g(id INTEGER PRIMARY KEY, a); SELECT starling_resume()");
        assert_eq!(s.one::<i64>("SELECT count(*) FROM sqlite_master WHERE type = 'trigger'"), 0, "{capture}");
    }
}

#[test]
fn until_somebody_looks_after_a_table_with_another_key_the_others_are_read_and_served() {
    let s = site("INTEGER");
    s.exec("CREATE TABLE u(id INTEGER PRIMARY KEY, a); SELECT crsql_as_crr('u'); INSERT INTO u VALUES(1, 2); INSERT INTO g VALUES(1, 'x')");
    s.exec(
        "BEGIN; CREATE TABLE n(id INTEGER NOT NULL, z TEXT NOT NULL, a, PRIMARY KEY(id, z)); INSERT INTO n SELECT id, 'z', a FROM g; \
         DROP TABLE g; ALTER TABLE n RENAME TO g; COMMIT",
    );
    assert_eq!(s.rows("SELECT DISTINCT [table] FROM crsql_changes"), ["'u'"]);
    let other = Site::memory().with(&[("u", "CREATE TABLE u(id INTEGER PRIMARY KEY, a)")]);
    other.pull(&s);
    assert_eq!(other.rows("SELECT * FROM u"), ["1|2"]);
    s.exec("SELECT starling_resume()");
    assert_eq!(s.rows("SELECT DISTINCT [table] FROM crsql_changes"), ["'u'", "'g'"]);
}
