//! Random SQL: a schema of a few tables with everything that SQLite lets a table have, and statements that write to it.

use starling_tests::random::Random;

/// The tables that become CRRs, with the columns that replicas must agree on.
pub const CRRS: &[(&str, &str)] = &[
    ("a", "id, t, n, v, s, c, u"),
    ("b", "k, n, v, w"),
    ("s", "id, x, y"),
    ("r", "id, v"),
    ("x", "k1, k2, k3, k4, k5, c0, c1, c2, c3, c4, c5, c6, c7, c8"),
];

/// Every table, with what is compared after each statement.
pub const ALL: &[(&str, &str)] = &[
    ("a", "*"),
    ("b", "*"),
    ("s", "rowid, *"),
    ("r", "rowid, *"),
    ("x", "*"),
    ("note", "*"),
    ("child", "*"),
    ("temp.scratch", "*"),
];

const CLAUSES: &[&str] = &[
    "",
    "",
    "",
    "ON CONFLICT REPLACE",
    "ON CONFLICT IGNORE",
    "ON CONFLICT FAIL",
    "ON CONFLICT ROLLBACK",
    "ON CONFLICT ABORT",
];

/// The tables that become CRRs.
pub fn tables(r: &mut Random) -> Vec<String> {
    let mut clause = || *r.pick(CLAUSES);
    vec![
        format!(
            "CREATE TABLE a(id INTEGER PRIMARY KEY {}, t TEXT CHECK(t <> 'bad'), n INT NOT NULL {} DEFAULT 5, v AS (n * 2), \
             s AS (t || '!') STORED, c TEXT COLLATE NOCASE DEFAULT (lower('Dflt')), u, CHECK(n < 90 OR u IS NULL))",
            clause(),
            clause()
        ),
        format!(
            "CREATE TABLE b(k TEXT NOT NULL, n INT NOT NULL, v BLOB, w REAL DEFAULT (abs(-3.5)), PRIMARY KEY(n, k) {}) WITHOUT ROWID",
            clause()
        ),
        format!(
            "CREATE TABLE s(id BLOB NOT NULL PRIMARY KEY {}, x ANY, y INTEGER NOT NULL {} DEFAULT 0) STRICT",
            clause(),
            clause()
        ),
        format!("CREATE TABLE r(id REAL NOT NULL PRIMARY KEY {}, v)", clause()),
        format!(
            "CREATE TABLE x(c0, c1 COLLATE NOCASE, k1 INT NOT NULL, k2 TEXT NOT NULL, c2, c3 REAL, c4 DEFAULT 'four', c5 INT, c6 NUMERIC, \
             k3 BLOB NOT NULL, k4 REAL NOT NULL, k5 NOT NULL, c7 TEXT, c8 BLOB, PRIMARY KEY(k1, k2, k3, k4, k5) {})",
            clause()
        ),
    ]
}

/// What stands around them: indexes, plain tables, views. Some of it is there before a table becomes a CRR, some comes later.
pub fn surroundings(r: &mut Random) -> Vec<String> {
    let action = *r.pick(&["ON DELETE CASCADE ON UPDATE CASCADE", "ON DELETE SET NULL ON UPDATE CASCADE", ""]);
    let deferred = *r.pick(&["", "DEFERRABLE INITIALLY DEFERRED"]);
    let mut all = vec![
        "CREATE TABLE note(i INTEGER PRIMARY KEY, what)".to_string(),
        format!("CREATE TABLE child(id INTEGER PRIMARY KEY, parent REFERENCES a(id) {action} {deferred})"),
        "CREATE TEMP TABLE scratch(id INTEGER PRIMARY KEY, what)".to_string(),
        "CREATE VIEW w AS SELECT a.id AS id, a.t AS t, b.k AS k, b.w AS w FROM a JOIN b ON a.n = b.n".to_string(),
        "CREATE TRIGGER w_insert INSTEAD OF INSERT ON w BEGIN INSERT INTO a(id, t) VALUES(NEW.id, NEW.t); \
         INSERT OR REPLACE INTO b(k, n, w) SELECT coalesce(NEW.k, 'k'), n, NEW.w FROM a WHERE id = NEW.id; END"
            .to_string(),
        "CREATE TRIGGER w_update INSTEAD OF UPDATE ON w BEGIN UPDATE a SET t = NEW.t WHERE id = OLD.id; \
         UPDATE b SET w = NEW.w WHERE k = OLD.k; END"
            .to_string(),
        "CREATE TRIGGER w_delete INSTEAD OF DELETE ON w BEGIN DELETE FROM a WHERE id = OLD.id; END".to_string(),
    ];
    let index = [
        "CREATE INDEX a_n ON a(n) WHERE n > 3",
        "CREATE INDEX a_e ON a(lower(t), n)",
        "CREATE INDEX a_c ON a(c)",
        "CREATE INDEX b_w ON b(w DESC)",
        "CREATE INDEX s_x ON s(x, y)",
    ];
    all.extend(index.iter().filter(|_| r.chance(60)).map(|s| (*s).to_string()));
    all
}

/// Triggers of the application's.
pub fn triggers(r: &mut Random) -> Vec<String> {
    let raise =
        *r.pick(&["RAISE(ABORT, 'no more')", "RAISE(FAIL, 'no more')", "RAISE(ROLLBACK, 'no more')", "RAISE(IGNORE)"]);
    let when = *r.pick(&["BEFORE", "AFTER"]);
    let all = [
        "CREATE TRIGGER u1 BEFORE INSERT ON a BEGIN INSERT INTO note(what) VALUES('before ' || coalesce(NEW.id, 'null')); END".to_string(),
        "CREATE TRIGGER u2 AFTER INSERT ON a WHEN NEW.n < 8 BEGIN INSERT OR IGNORE INTO b(k, n, v) VALUES(coalesce(NEW.t, ''), NEW.n, NEW.u); END".to_string(),
        "CREATE TRIGGER u3 AFTER UPDATE OF n ON a WHEN NEW.n < 20 BEGIN UPDATE a SET n = n + 3 WHERE id = NEW.id + 1; END".to_string(),
        "CREATE TRIGGER u4 AFTER UPDATE OF n ON a WHEN NEW.n < 12 BEGIN UPDATE a SET n = n + 4 WHERE id = NEW.id; END".to_string(),
        format!("CREATE TRIGGER u5 {when} DELETE ON a BEGIN DELETE FROM b WHERE n = OLD.n; INSERT INTO note(what) VALUES(OLD.t); END"),
        format!("CREATE TRIGGER u6 {when} UPDATE ON b WHEN NEW.w > 30 BEGIN SELECT {raise}; END"),
        "CREATE TRIGGER u7 AFTER INSERT ON s WHEN NEW.y = 3 BEGIN DELETE FROM s WHERE id = NEW.id; INSERT INTO r VALUES(NEW.y, NEW.x); END".to_string(),
        format!("CREATE TRIGGER u8 {when} INSERT ON r WHEN NEW.id > 6 BEGIN SELECT {raise}; END"),
        "CREATE TRIGGER u9 AFTER DELETE ON s BEGIN UPDATE OR REPLACE r SET id = id + 1 WHERE id = OLD.y; END".to_string(),
        "CREATE TEMP TRIGGER u10 AFTER UPDATE ON b BEGIN INSERT INTO scratch(what) VALUES(NEW.k); UPDATE a SET c = NEW.k WHERE n = NEW.n; END".to_string(),
        "CREATE TEMP TRIGGER u11 BEFORE DELETE ON r BEGIN INSERT OR REPLACE INTO b(k, n) VALUES('r', OLD.id); END".to_string(),
        "CREATE TRIGGER u12 AFTER INSERT ON b WHEN NEW.n = 4 BEGIN UPDATE b SET k = k || '4', v = 1 WHERE n = NEW.n AND k = NEW.k; END".to_string(),
        "CREATE TRIGGER u13 AFTER INSERT ON r WHEN NEW.id > -6 BEGIN INSERT INTO r VALUES(NEW.id - 1, 'down') ON CONFLICT DO NOTHING; END".to_string(),
        "CREATE TRIGGER u14 AFTER UPDATE OF c5 ON x BEGIN UPDATE x SET c1 = NEW.c5, c7 = c7 || 'u' WHERE k1 = NEW.k1 + 1; END".to_string(),
        "CREATE TRIGGER u15 AFTER INSERT ON x WHEN NEW.k1 > 2 BEGIN UPDATE x SET k1 = k1 - 2 WHERE k1 = NEW.k1; END".to_string(),
    ];
    all.into_iter().filter(|_| r.chance(30)).collect()
}

/// Settings that an application may have, none of which may matter.
pub fn settings(r: &mut Random) -> Vec<String> {
    let names = [
        "recursive_triggers",
        "foreign_keys",
        "case_sensitive_like",
        "cell_size_check",
        "legacy_alter_table",
        "full_column_names",
        "read_uncommitted",
        "secure_delete",
    ];
    let mut all: Vec<String> = names.iter().filter(|_| r.chance(30)).map(|n| format!("PRAGMA {n} = ON")).collect();
    let off = ["trusted_schema", "short_column_names", "automatic_index"];
    all.extend(off.iter().filter(|_| r.chance(30)).map(|n| format!("PRAGMA {n} = OFF")));
    all.push(format!("PRAGMA temp_store = {}", r.below(3)));
    all
}

fn value(r: &mut Random) -> String {
    let small = r.below(9);
    match r.below(24) {
        0 => "NULL".into(),
        1 => "'bad'".into(),
        2 => "char(65, 0, 66)".into(),
        3 => "CAST(x'ff41fe' AS TEXT)".into(),
        4 => "zeroblob(9000)".into(),
        5 => "x'00ff'".into(),
        6 => "-0.0".into(),
        7 => "0.0".into(),
        8 => "9223372036854775807".into(),
        9 => "-9223372036854775808".into(),
        10 => "9e999".into(),
        11 => "3.0".into(),
        12 => "'3'".into(),
        13 => "'ABC'".into(),
        14 => "'abc'".into(),
        15 => "''".into(),
        16 => "x''".into(),
        17 => "printf('%.3000c', 'x')".into(),
        18 => "1e-300".into(),
        19 => "'01890a5d-ac96-774b-bcce-b302099a8057'".into(),
        _ => small.to_string(),
    }
}

const TEXT_KEYS: &[&str] =
    &["'p'", "'P'", "''", "char(0)", "CAST(x'ff' AS TEXT)", "'01890a5d-ac96-774b-bcce-b302099a8057'", "5"];

fn text_key(r: &mut Random) -> &'static str {
    let picked: &&str = r.pick(TEXT_KEYS);
    picked
}

const BLOB_KEYS: &[&str] = &["x''", "x'00'", "x'0000'", "x'ff'", "zeroblob(300)", "x'70'"];

fn blob_key(r: &mut Random) -> &'static str {
    let picked: &&str = r.pick(BLOB_KEYS);
    picked
}

const OR: &[&str] = &["", "", "", "OR REPLACE", "OR IGNORE", "OR FAIL", "OR ABORT", "OR ROLLBACK"];

fn or(r: &mut Random) -> &'static str {
    let picked: &&str = r.pick(OR);
    picked
}

fn insert_a(r: &mut Random) -> String {
    let (or, i, j, k) = (or(r), r.below(7), r.below(7), r.below(12));
    let (x, y) = (value(r), value(r));
    match r.below(10) {
        0 => format!("INSERT {or} INTO a(id, t, n, u) VALUES({i}, {x}, {k}, {y})"),
        1 => format!("INSERT {or} INTO a(t, n) VALUES({x}, {k}), ('m', {i}), ({y}, {j})"),
        2 => format!("INSERT {or} INTO a(id, t) VALUES({i}, 'x'), ({j}, {x}), ({i}, 'z')"),
        3 => format!("INSERT {or} INTO a(id, n) VALUES({i}, {x}), ({j}, NULL), ({k}, {y})"),
        4 => format!("INSERT {or} INTO a(id, t, n) SELECT id + {i}, t || 'q', n FROM a WHERE id > {j}"),
        5 => format!("INSERT INTO a(id, t) VALUES({i}, {x}), ({j}, 'v') ON CONFLICT(id) DO UPDATE SET n = n + excluded.id, t = excluded.t WHERE n < {k}"),
        6 => format!("INSERT INTO a(id, c, u) VALUES({i}, {x}, {y}), ({i}, 'second', 0) ON CONFLICT DO NOTHING"),
        7 => format!("WITH RECURSIVE q(i) AS (SELECT {i} UNION ALL SELECT i + 1 FROM q WHERE i < {i} + 3) INSERT {or} INTO a(id, n) SELECT i, i * {j} FROM q"),
        8 => format!("INSERT INTO a(id, t) VALUES({i}, {x}) ON CONFLICT(id) WHERE 1 DO UPDATE SET id = {j}, u = 1 ON CONFLICT DO NOTHING"),
        _ => format!("INSERT {or} INTO a DEFAULT VALUES"),
    }
}

fn change_a(r: &mut Random) -> String {
    let (or, i, j, k) = (or(r), r.below(7), r.below(7), r.below(12));
    let x = value(r);
    match r.below(13) {
        0 => format!("UPDATE {or} a SET n = n + {k} WHERE id < {i}"),
        1 => format!("UPDATE {or} a SET id = id + {j} WHERE id >= {i}"),
        2 => format!("UPDATE {or} a SET id = CASE id WHEN {i} THEN {j} WHEN {j} THEN {i} ELSE id END WHERE id IN ({i}, {j})"),
        3 => format!("UPDATE {or} a SET t = iif(id = {i}, 'bad', 'ok'), n = iif(id = {j}, NULL, n)"),
        4 => format!("UPDATE {or} a SET n = q.n, u = {x} FROM (SELECT {i} AS k, {k} AS n UNION ALL SELECT {j}, {x}) AS q WHERE a.id = q.k"),
        5 => format!("UPDATE {or} a SET (t, c) = (SELECT k, v FROM b WHERE b.n = a.n ORDER BY k LIMIT 1) WHERE id <> {i}"),
        6 => format!("UPDATE {or} a SET c = iif(c = 'abc', 'ABC', 'abc'), u = {x}"),
        7 => format!("UPDATE {or} a SET id = -id"),
        8 => format!("DELETE FROM a WHERE n > {k} AND id > {i}"),
        9 => format!("DELETE FROM a WHERE id IN (SELECT a2.id FROM a AS a2 JOIN b ON b.n = a2.n) OR id = {i}"),
        10 => "WITH q AS (SELECT max(id) AS m FROM a) DELETE FROM a WHERE id = (SELECT m FROM q)".to_string(),
        11 => format!("UPDATE {or} a SET n = {x} WHERE c = 'ABC' OR t LIKE 'M%'"),
        _ => "DELETE FROM a".to_string(),
    }
}

fn others(r: &mut Random) -> String {
    let (or, i, j) = (or(r), r.below(7), r.below(7));
    let (x, y) = (value(r), value(r));
    let (t, t2, b, b2) = (text_key(r), text_key(r), blob_key(r), blob_key(r));
    match r.below(28) {
        0 | 1 => format!("INSERT {or} INTO b(k, n, v) VALUES({t}, {i}, {x}), ({t2}, {j}, {y})"),
        2 => format!("INSERT INTO b(k, n, w) VALUES({t}, {i}, {j}) ON CONFLICT(k, n) DO UPDATE SET w = w * 2 + excluded.w, v = {x}"),
        3 => format!("UPDATE {or} b SET k = {t} WHERE n = {i}"),
        4 => format!("UPDATE {or} b SET n = n + 1, w = {x} WHERE k <> {t}"),
        5 => format!("UPDATE {or} b SET v = {x}, w = w + {i} WHERE k = {t} OR n = {j}"),
        6 => format!("DELETE FROM b WHERE k = {t} OR n = {i}"),
        7 => format!("INSERT {or} INTO b SELECT t, n, u, id FROM a WHERE t IS NOT NULL"),
        8 | 9 => format!("INSERT {or} INTO s(id, x, y) VALUES({b}, {x}, {i}), ({b2}, {y}, NULL)"),
        10 => format!("INSERT {or} INTO s(id, x, y) VALUES({b}, {x}, {j}), (NULL, 1, 1), ({b2}, {y}, 4)"),
        // One row: of several, SQLite keeps those before a value of the wrong type in a STRICT table without triggers.
        26 => format!("INSERT {or} INTO s(id, x, y) VALUES({b}, {x}, 'text')"),
        11 => format!("UPDATE {or} s SET id = {b} WHERE y >= {i}"),
        12 => format!("UPDATE {or} s SET x = {x}, y = y + 1 WHERE id > {b}"),
        13 => format!("DELETE FROM s WHERE id = {b} OR y = {i}"),
        14 => format!("INSERT INTO s VALUES({b}, {x}, {i}) ON CONFLICT(id) DO UPDATE SET id = {b2}, x = x || 'up'"),
        15 | 16 => format!("INSERT {or} INTO r VALUES({i}, {x}), ({j}.5, {y}), (-{i}.0, 0)"),
        17 => format!("UPDATE {or} r SET id = id * 2 - {i}"),
        18 => format!("UPDATE {or} r SET v = {x} WHERE id > {i}"),
        19 => format!("DELETE FROM r WHERE id < {i} AND id > -{j}"),
        20 => format!("INSERT INTO w(id, t, k, w) VALUES({i}, 'w', {t}, {j})"),
        21 => format!("UPDATE w SET t = 'wu', w = {i} WHERE id = {j}"),
        22 => format!("DELETE FROM w WHERE id = {i}"),
        23 => format!("INSERT {or} INTO child(id, parent) VALUES({i}, {j})"),
        24 => format!("DELETE FROM child WHERE id = {i}"),
        _ => format!("INSERT INTO scratch(what) SELECT t FROM a WHERE id = {i}"),
    }
}

fn wide(r: &mut Random) -> String {
    let (or, i, j, c) = (or(r), r.below(4), r.below(4), r.below(9));
    let (x, y, t, b) = (value(r), value(r), text_key(r), blob_key(r));
    match r.below(8) {
        0 | 1 => format!("INSERT {or} INTO x(k1, k2, k3, k4, k5, c{c}) VALUES({i}, {t}, {b}, 1, 'k', {x}), ({j}, {t}, {b}, 1, 'k', {y})"),
        2 => format!("INSERT INTO x(k1, k2, k3, k4, k5, c0, c8) VALUES({i}, {t}, {b}, 0.5, 7, {x}, {y}) ON CONFLICT DO UPDATE SET c{c} = {x}, c5 = {i}, k1 = {j}"),
        3 => format!("UPDATE {or} x SET c{c} = {x}, c5 = c5 + {i} WHERE k1 >= {j}"),
        4 => format!("UPDATE {or} x SET k1 = {i}, k2 = {t}, c8 = {y} WHERE k1 = {j}"),
        5 => format!("UPDATE {or} x SET (c0, c1, c2, c3) = ({x}, {y}, {i}, {j}), c4 = c7"),
        6 => format!("DELETE FROM x WHERE k1 = {i} AND k3 <= {b}"),
        _ => format!("INSERT {or} INTO x SELECT * FROM x WHERE k1 = {i} UNION ALL SELECT c0, 'copy', k1 + 1, k2, {x}, c3, c4, c5, c6, k3, k4, k5, c7, c8 FROM x"),
    }
}

fn not_dml(r: &mut Random) -> String {
    let n = 1 + r.below(3);
    let all = [
        "BEGIN",
        "BEGIN IMMEDIATE",
        "COMMIT",
        "COMMIT",
        "ROLLBACK",
        "SAVEPOINT s",
        "SAVEPOINT s",
        "ROLLBACK TO s",
        "ROLLBACK TO s",
        "RELEASE s",
        "RELEASE s",
        "VACUUM",
        "REINDEX",
        "REINDEX a",
        "PRAGMA foreign_key_check",
        "PRAGMA defer_foreign_keys = ON",
        "SELECT count(*) FROM crsql_changes WHERE 0",
        "PRAGMA integrity_check",
        "UPDATE a SET nothing = 1",
        "INSERT INTO b(k) VALUES(1, 2)",
        "UPDATE a SET v = 1",
        "SELECT * FROM a WHERE rowid > 2 ORDER BY c, id LIMIT 3",
        "DROP INDEX IF EXISTS a_c",
        // In libraries that have it.
        "DELETE FROM a ORDER BY n DESC, id LIMIT 2",
        "UPDATE b SET w = 1 WHERE k <> 'p' ORDER BY w, n LIMIT 1 OFFSET 1",
        "CREATE INDEX IF NOT EXISTS a_c ON a(c)",
    ];
    r.pick(&all).replace(" s", &format!(" s{n}"))
}

/// A statement, and whether it is DML.
pub fn statement(r: &mut Random) -> (String, bool) {
    if r.chance(22) {
        return (not_dml(r), false);
    }
    let mut sql = match r.below(10) {
        0..=2 => insert_a(r),
        3..=5 => change_a(r),
        6 => wide(r),
        _ => others(r),
    };
    if r.chance(40) {
        sql += " RETURNING *";
    }
    (sql, true)
}

/// Queries whose plans must be the same.
pub const PLANS: &[&str] = &[
    "SELECT * FROM a WHERE n = 7",
    "SELECT * FROM a WHERE lower(t) = 'x' AND n > 2",
    "SELECT * FROM a WHERE c = 'abc' ORDER BY id",
    "SELECT count(*) FROM a JOIN b USING(n) WHERE b.w > 2 ORDER BY b.w DESC",
    "SELECT * FROM s WHERE x = 1 AND y = 2",
    "SELECT * FROM r WHERE id BETWEEN 1 AND 2",
    "SELECT * FROM w WHERE id = 3",
    "SELECT (SELECT max(n) FROM a), (SELECT min(id) FROM s)",
];
