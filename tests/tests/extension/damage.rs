//! Damaged internal tables and garbage arguments: an error, never a panic or a wrong answer.

use starling_crdt::record::Side;
use starling_tests::random::Random;
use starling_tests::records::{self, Kept};
use starling_tests::site::Site;
use std::path::Path;

fn filled() -> Site {
    fill(Site::memory())
}

fn fill(site: Site) -> Site {
    let s = site.with(&[("t", "CREATE TABLE t(id TEXT NOT NULL PRIMARY KEY, a, b)")]);
    s.exec("INSERT INTO t VALUES('k', 1, 1), ('l', 2, 2), ('m', 3, 3)");
    s.exec("UPDATE t SET a = 7 WHERE id <> 'm'; DELETE FROM t WHERE id = 'l'");
    s.exec("INSERT INTO crsql_changes VALUES('t', crsql_pack_columns('n'), 'a', 1, 1, 9, x'aa', 1, 0)");
    s.exec("UPDATE t SET b = 8 WHERE id = 'm'; UPDATE t SET b = 9 WHERE id = 'm'");
    s
}

/// Asks everything; errors are welcome.
fn exercise(s: &Site) {
    for sql in [
        "SELECT count(*), max(length(val)) FROM crsql_changes",
        "SELECT length(changeset) FROM starling_changesets",
        "SELECT starling_vector()",
        "INSERT INTO t VALUES('z', 1, 1)",
        "UPDATE t SET b = b + 1",
        "DELETE FROM t WHERE id = 'k'",
        "INSERT INTO crsql_changes VALUES('t', crsql_pack_columns('k'), 'a', 1, 9, 9, x'aa', 1, 0)",
        "SELECT crsql_db_version()",
        "SELECT starling_resume()",
        "SELECT crsql_as_crr('t')",
    ] {
        let Ok(mut stmt) = s.db.prepare(sql) else { continue };
        let Ok(mut rows) = stmt.query([]) else { continue };
        while let Ok(Some(_)) = rows.next() {}
    }
    if !s.db.is_autocommit() {
        let _ = s.db.execute_batch("ROLLBACK");
    }
}

#[test]
fn garbage_in_any_internal_column_never_panics() {
    let columns = [
        ("crsql_record", "record"),
        ("crsql_record", "db_version"),
        ("crsql_foreign", "origin"),
        ("crsql_foreign", "version"),
        ("crsql_foreign", "db_version"),
        ("crsql_rows_1", "block"),
        ("crsql_master", "value"),
        ("crsql_site", "site_id"),
        ("crsql_origin", "site"),
        ("crsql_table", "generation"),
        ("crsql_column", "name"),
        ("crsql_column", "id"),
    ];
    let garbage = [
        "x''",
        "x'ff'",
        "x'01'",
        "x'0100'",
        "x'01080807ffffffffffff7f'",
        "-1",
        "9223372036854775807",
        "'text'",
        "zeroblob(5000)",
        "1.5",
    ];
    for (table, column) in columns {
        for value in garbage {
            let s = filled();
            let _ = s.db.execute_batch(&format!("UPDATE {table} SET {column} = {value}"));
            exercise(&s);
        }
    }
}

#[test]
fn a_flipped_bit_in_a_blob_never_panics() {
    let mut random = Random::new(11);
    for _ in 0..300 {
        let s = filled();
        let (table, column) =
            *random.pick(&[("crsql_record", "record"), ("crsql_record", "record"), ("crsql_rows_1", "block")]);
        let blob: Vec<u8> =
            s.one(&format!("SELECT {column} FROM {table} WHERE length({column}) > 0 ORDER BY random() LIMIT 1"));
        let mut broken = blob.clone();
        let at = random.below(broken.len() as u64) as usize;
        broken[at] ^= 1 << random.below(8);
        let sql = format!("UPDATE {table} SET {column} = ?1 WHERE {column} = ?2");
        s.db.execute(&sql, rusqlite::params![broken, blob]).expect("it writes");
        exercise(&s);
    }
}

#[test]
fn a_damaged_row_clock_is_an_error_that_says_so() {
    let s = filled();
    s.exec("UPDATE crsql_rows_1 SET block = x'ff00'");
    let message = s.refused("SELECT * FROM crsql_changes");
    assert!(message.contains("damaged") && message.contains("Restore"), "{message}");
}

#[test]
fn row_clocks_that_are_filed_under_a_wrong_key_are_an_error_that_says_so() {
    let s = filled();
    s.exec("WITH RECURSIVE n(i) AS (VALUES(1) UNION ALL SELECT i + 1 FROM n WHERE i < 500) INSERT INTO t SELECT i, 1, 1 FROM n");
    s.exec("UPDATE t SET a = a + 1");
    let rows = s.rows("SELECT * FROM t ORDER BY id");
    s.exec("UPDATE crsql_rows_1 SET first = CAST(first || x'00' AS BLOB) WHERE first = (SELECT max(first) FROM crsql_rows_1)");
    let message = s.refused("UPDATE t SET a = a + 1");
    assert!(message.contains("another key than it is filed under") && message.contains("Restore"), "{message}");
    assert_eq!(s.rows("SELECT * FROM t ORDER BY id"), rows, "a write half-way");
}

#[test]
fn row_clocks_that_are_gone_are_damage_and_no_table_that_the_user_has_to_find() {
    let s = filled();
    s.exec("DROP TABLE crsql_rows_1");
    for sql in [
        "SELECT * FROM crsql_changes",
        "UPDATE t SET a = 9 WHERE id = 'k'",
        "SELECT length(changeset) FROM starling_changesets",
    ] {
        let message = s.refused(sql);
        assert!(message.contains("damaged") && message.contains("Restore"), "{sql}: {message}");
    }
}

#[test]
fn an_index_of_foreign_dots_that_names_the_wrong_record_is_an_error_that_says_so() {
    let (a, b) = (filled(), Site::memory().with(&[("t", "CREATE TABLE t(id TEXT NOT NULL PRIMARY KEY, a, b)")]));
    b.pull(&a);
    let check = |sql: &str| {
        b.exec(sql);
        b.db.query_row("SELECT starling_check(?1)", [a.vector()], |r| r.get::<_, Option<String>>(0))
    };
    assert_eq!(check("SELECT 1"), Ok(None));
    for damage in ["db_version - 1", "1000"] {
        let said = check(&format!("BEGIN; UPDATE crsql_foreign SET db_version = {damage}"));
        assert!(said.as_ref().is_err_and(|e| e.to_string().contains("damaged")), "{damage}: {said:?}");
        b.exec("ROLLBACK");
    }
}

/// A file whose young clocks are damaged, opened by a connection that has not seen them whole.
fn with_young(dir: &Path, damage: impl Fn(&mut Kept)) -> Site {
    let path = dir.join("a.db");
    let site = fill(Site::file(&path));
    let mut damaged = 0;
    records::change(&site.db, |record| {
        let carries = record.reaches().is_some();
        if carries {
            damage(record);
            damaged += 1;
        }
        carries
    });
    assert!(damaged > 0, "no young clocks");
    Site::file(&path)
}

#[test]
fn damaged_young_clocks_are_an_error_that_says_so() {
    for garbage in [&b""[..], &[2], &[1, 5, 0xff], &[1, 1, 0xff], &[1, 0, 0, 0, 0, 0, 0]] {
        let dir = tempfile::tempdir().expect("a directory");
        let s = with_young(dir.path(), |record| record.young = Some(garbage.to_vec()));
        for sql in ["SELECT * FROM crsql_changes", "UPDATE t SET b = 1 WHERE id = 'm'"] {
            let message = s.refused(sql);
            assert!(message.contains("damaged") && message.contains("Restore"), "{garbage:?}: {message}");
        }
    }
}

#[test]
fn garbage_for_young_clocks_never_panics() {
    for garbage in [None, Some(vec![0xff]), Some(vec![1, 0]), Some(vec![0; 5000]), Some(b"text".to_vec())] {
        let dir = tempfile::tempdir().expect("a directory");
        exercise(&with_young(dir.path(), |record| record.young = garbage.clone()));
    }
    for back in [0, 1, 7, 1 << 40, i64::MAX as u64] {
        let dir = tempfile::tempdir().expect("a directory");
        exercise(&with_young(dir.path(), |record| record.head.side = Side::Local { reaches: Some(back) }));
    }
}

#[test]
fn changesets_that_were_cut_or_flipped_are_refused_whole() {
    let (a, mut random) = (filled(), Random::new(5));
    let b = Site::memory().with(&[("t", "CREATE TABLE t(id TEXT NOT NULL PRIMARY KEY, a, b)")]);
    let (parts, _) = a.answer(&b.vector());
    for (part, _) in parts.iter().cycle().take(400) {
        let mut bytes = part.clone();
        if random.chance(50) {
            bytes.truncate(random.below(bytes.len() as u64) as usize);
        } else {
            let at = random.below(bytes.len() as u64) as usize;
            bytes[at] ^= 1 << random.below(8);
        }
        b.exec("BEGIN");
        let _ = b.merge(&bytes);
        let _ = b.db.execute_batch("ROLLBACK");
    }
    b.pull(&a);
    assert_eq!(a.changes(), b.changes());
}

#[test]
fn every_function_takes_garbage_without_a_panic() {
    let s = filled();
    let names = s.rows("SELECT DISTINCT name, narg FROM pragma_function_list WHERE name LIKE 'crsql%' OR name LIKE 'starling%' OR name LIKE 'uuid7%'");
    assert!(names.len() > 20, "{names:?}");
    let values = ["NULL", "-1", "9e99", "'x'", "x''", "x'01ff'", "zeroblob(100000)", "9223372036854775807"];
    for name in names {
        let (name, n) = name.split_once('|').expect("two columns");
        // Any number of them is -1.
        let numbers = n.parse::<usize>().map_or(0..=4, |n| n..=n);
        for (n, value) in numbers.flat_map(|n| values.map(|value| (n, value))) {
            let args = vec![value; n].join(", ");
            let sql = format!("SELECT {}({args})", name.trim_matches('\''));
            if let Ok(mut stmt) = s.db.prepare(&sql) {
                if let Ok(mut rows) = stmt.query([]) {
                    while let Ok(Some(_)) = rows.next() {}
                };
            }
        }
    }
    for value in values {
        for sql in [
            format!("SELECT * FROM starling_changesets({value}, {value})"),
            format!("SELECT * FROM crsql_unpack_columns({value})"),
            format!("SELECT * FROM crsql_pending({value})"),
        ] {
            if let Ok(mut stmt) = s.db.prepare(&sql) {
                if let Ok(mut rows) = stmt.query([]) {
                    while let Ok(Some(_)) = rows.next() {}
                };
            }
        }
    }
    s.exec("INSERT INTO t VALUES('works', 1, 1)");
}

#[test]
fn internal_tables_that_a_tool_has_dropped_are_told_of_and_made_anew() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("a.db");
    let s = Site::file(&path).with(&[("t", "CREATE TABLE t(id INTEGER PRIMARY KEY, v)")]);
    s.exec("INSERT INTO t VALUES(1, 'a')");
    for table in s.rows("SELECT name FROM sqlite_master WHERE type = 'table' AND name LIKE 'crsql%'") {
        s.exec(&format!("DROP TABLE {}", table.trim_matches('\'')));
    }
    drop(s);
    let s = Site::open(&path);
    let refused = s.refused("INSERT INTO t VALUES(2, 'b')");
    assert!(refused.contains("were dropped") && refused.contains("crsql_as_crr"), "{refused}");
    s.exec("SELECT crsql_as_crr('t'); INSERT INTO t VALUES(2, 'b')");
    assert_eq!(s.rows("SELECT val FROM crsql_changes"), ["'a'", "'b'"]);
}
