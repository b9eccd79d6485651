//! Portable capture: plain triggers and an inbox, for writers that have no extension (DESIGN 2.7, hazards E9 and E17).

use rusqlite::Connection;
use starling_tests::random::Random;
use starling_tests::site::{plain, Site};
use std::path::PathBuf;

const T: (&str, &str) = ("t", "CREATE TABLE t(id TEXT NOT NULL PRIMARY KEY, a, b)");

/// A file with a portable table, a loaded connection and a plain one.
struct Pair {
    _dir: tempfile::TempDir,
    path: PathBuf,
    site: Site,
    app: Connection,
}

fn portable(site: Site, tables: &[(&str, &str)]) -> Site {
    for (name, sql) in tables {
        site.exec(sql);
        site.one::<String>(&format!("SELECT crsql_as_crr('{name}', 'portable')"));
    }
    site
}

fn pair(tables: &[(&str, &str)]) -> Pair {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("app.db");
    let site = portable(Site::file(&path), tables);
    let app = plain(&path);
    Pair { _dir: dir, path, site, app }
}

impl Pair {
    fn app(&self, sql: &str) {
        self.app.execute_batch(sql).unwrap_or_else(|e| panic!("{sql}: {e}"));
    }

    fn inbox(&self) -> i64 {
        self.site.one("SELECT count(*) FROM crsql_inbox_1")
    }
}

fn memory() -> Site {
    portable(Site::memory(), &[T])
}

/// All that capture decides.
const CHANGES: &str =
    "SELECT [table], pk, cid, val, col_version, cl, db_version, seq FROM crsql_changes ORDER BY db_version, seq, [table]";

fn wide() -> String {
    let columns: Vec<String> = (0..130).map(|i| format!("c{i}")).collect();
    format!("CREATE TABLE wide(id INTEGER PRIMARY KEY, {})", columns.join(", "))
}

fn tables() -> Vec<(&'static str, String)> {
    vec![
        (
            "t",
            "CREATE TABLE t(id TEXT NOT NULL PRIMARY KEY, a, b INTEGER, c TEXT NOT NULL DEFAULT 'd' COLLATE NOCASE)"
                .into(),
        ),
        ("n", "CREATE TABLE n(id INTEGER PRIMARY KEY, a TEXT NOT NULL, b ANY) STRICT".into()),
        ("k", "CREATE TABLE k(x INTEGER NOT NULL, y BLOB NOT NULL, PRIMARY KEY(x, y)) WITHOUT ROWID".into()),
        (
            "w",
            "CREATE TABLE w(p TEXT NOT NULL, q REAL NOT NULL, c1, c2, c3, c4, c5, c6, c7, c8, c9, PRIMARY KEY(p, q))"
                .into(),
        ),
        ("any", "CREATE TABLE any(k NOT NULL PRIMARY KEY, v, w REAL, x NUMERIC) WITHOUT ROWID".into()),
        (
            "six",
            "CREATE TABLE six(a NOT NULL, b NOT NULL, c NOT NULL, d NOT NULL, e NOT NULL, f NOT NULL, \
                 v, PRIMARY KEY(f, e, d, c, b, a))"
                .into(),
        ),
        (
            "o'd \"d",
            "CREATE TABLE \"o'd \"\"d\"(\"table\" TEXT NOT NULL PRIMARY KEY, \"ro'w\"\"id\" , \"ключ\" , \"key, --\")"
                .into(),
        ),
        ("wide", wide()),
    ]
}

/// A statement on the table with that number; none says REPLACE, which native capture only guesses at.
fn statement(r: &mut Random, table: u64) -> String {
    write(r, table, &["NULL", "1", "1.0", "'x'", "'X'", "x'78'", "9223372036854775807", "1e300", "0"])
}

/// As [`statement`], with zeros, of which no SQL tells whether they change.
fn statement_with_zeros(r: &mut Random, table: u64) -> String {
    write(r, table, &["NULL", "1", "1.0", "'x'", "'X'", "x'78'", "-0.0", "0.0", "0"])
}

fn write(r: &mut Random, table: u64, values: &[&str]) -> String {
    let key = *r.pick(&["'a'", "'b'", "'c'"]);
    let other = *r.pick(&["'a'", "'b'", "'c'"]);
    let value = *r.pick(values);
    let odd = *r.pick(&["1", "'1'", "x'31'", "0.5", "-1", "9223372036854775807", "1e300", "''", "x''"]);
    let (small, id, which) = (r.below(4), r.below(3), r.below(6));
    match (table, which) {
        (0, 0) => format!(
            "INSERT INTO t(id, a) VALUES({key}, {value}) ON CONFLICT(id) DO UPDATE SET a = excluded.a, b = {small}"
        ),
        (0, 1) => format!("UPDATE t SET c = iif(c = 'bob', 'BOB', 'bob'), b = b WHERE id <> {key}"),
        (0, 2) => format!("UPDATE OR IGNORE t SET id = {other} WHERE id = {key}"),
        (0, 3) => format!("DELETE FROM t WHERE id = {key}"),
        (0, 4) => format!("INSERT INTO t(id, a) VALUES('f{small}', 1), ('g', 2), ('g', 3)"),
        (0, _) => format!("INSERT OR IGNORE INTO t(id, a, b) VALUES({key}, {value}, {small}), ({other}, 1, 1)"),
        (1, 0) => format!("UPDATE n SET a = a || 'q', b = {value} WHERE id >= {id}"),
        (1, 1) => format!("DELETE FROM n WHERE id = {id}"),
        (1, 2) => format!("UPDATE OR IGNORE n SET id = id + 1 WHERE id = {id}"),
        (1, _) => format!("INSERT INTO n VALUES({id}, 'p', {small}) ON CONFLICT(id) DO UPDATE SET b = excluded.b"),
        (2, 0) => format!("DELETE FROM k WHERE x = {id}"),
        (2, 1) => format!("UPDATE OR IGNORE k SET y = x'0{small}' WHERE x = {id}"),
        (2, _) => format!("INSERT OR IGNORE INTO k VALUES({id}, x'0{small}')"),
        (3, 0) => format!("UPDATE w SET c{} = {value}, c9 = {small} WHERE q = {id}", 1 + r.below(8)),
        (3, 1) => format!("UPDATE OR IGNORE w SET q = {small} - 0.5 WHERE p = {key}"),
        (3, _) => format!("INSERT OR IGNORE INTO w(p, q, c1, c9) VALUES({key}, {id}, {small}, {value})"),
        (4, 0) => format!("UPDATE OR IGNORE any SET k = {odd} WHERE v IS {value}"),
        (4, 1) => format!("UPDATE any SET v = {value}, w = {small}, x = {value} WHERE k <> {odd}"),
        (4, 2) => format!("DELETE FROM any WHERE k = {odd}"),
        (4, _) => format!("INSERT OR IGNORE INTO any VALUES({odd}, {value}, {small}, {value})"),
        (5, 0) => format!("UPDATE OR IGNORE six SET c = {odd}, v = {value}"),
        (5, 1) => format!("DELETE FROM six WHERE a = {odd}"),
        (5, _) => format!("INSERT OR IGNORE INTO six VALUES({odd}, 1, 2, {key}, x'00', {small}, {value})"),
        (6, 0) => {
            format!("UPDATE \"o'd \"\"d\" SET \"ro'w\"\"id\" = {value}, \"key, --\" = {small} WHERE \"table\" = {key}")
        }
        (6, 1) => format!("DELETE FROM \"o'd \"\"d\" WHERE \"table\" = {key}"),
        (6, _) => format!("INSERT OR IGNORE INTO \"o'd \"\"d\" VALUES({key}, {value}, 1, 2)"),
        (_, 0) => format!("INSERT OR IGNORE INTO wide(id, c64, c129) VALUES({id}, {value}, {small})"),
        (_, 1) => format!("DELETE FROM wide WHERE id = {id} AND c64 = 1"),
        (_, _) => {
            let (i, j) = (r.below(130), r.below(130));
            format!("UPDATE wide SET c{i} = {value}, c{j} = coalesce(c{j}, 0) + 1 WHERE id = {id}")
        }
    }
}

/// A transaction on one table, with savepoints; `None` where it was rolled back.
fn transaction(r: &mut Random, table: u64, statement: fn(&mut Random, u64) -> String) -> Vec<String> {
    if r.chance(30) {
        return vec![statement(r, table)];
    }
    let mut out = vec!["BEGIN".to_string()];
    let mut depth = 0;
    for _ in 0..1 + r.below(7) {
        match r.below(10) {
            0 | 1 => {
                depth += 1;
                out.push(format!("SAVEPOINT s{depth}"));
            }
            2 if depth > 0 => out.push(format!("ROLLBACK TO s{depth}")),
            3 if depth > 0 => {
                out.push(format!("RELEASE s{depth}"));
                depth -= 1;
            }
            _ => out.push(statement(r, table)),
        }
    }
    out.push(if r.chance(85) { "COMMIT".into() } else { "ROLLBACK".into() });
    out
}

/// STARLING_LAWS_RUNS sets how many histories are run.
fn runs(default: u64) -> u64 {
    std::env::var("STARLING_LAWS_RUNS").ok().and_then(|s| s.parse().ok()).unwrap_or(default)
}

/// Constraint failures are part of the history; both must have the same.
fn run(db: &Connection, statements: &[String]) -> Vec<bool> {
    statements.iter().map(|sql| db.execute_batch(sql).is_ok()).collect()
}

#[test]
fn the_same_history_gives_the_same_changes_as_native_capture() {
    let tables = tables();
    let tables: Vec<(&str, &str)> = tables.iter().map(|(n, s)| (*n, s.as_str())).collect();
    let arm = |site: Site| {
        for (name, sql) in &tables {
            site.exec(sql);
            let made: String =
                site.db.query_row("SELECT crsql_as_crr(?1, 'portable')", [name], |r| r.get(0)).expect("portable");
            assert_eq!(made, "OK");
        }
        site
    };
    for seed in 0..runs(15) {
        println!("seed {seed}");
        let mut r = Random::new(seed);
        let native = Site::memory();
        for (name, sql) in &tables {
            native.exec(sql);
            native.db.query_row("SELECT crsql_as_crr(?1)", [name], |_| Ok(())).expect("native");
        }
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("p.db");
        let (loaded, drained) = (arm(Site::memory()), arm(Site::file(&path)));
        let app = plain(&path);
        for _ in 0..25 {
            let table = r.below(8);
            let statements = transaction(&mut r, table, statement);
            println!("  {statements:?}");
            let outcome = run(&native.db, &statements);
            assert_eq!(run(&loaded.db, &statements), outcome);
            assert_eq!(run(&app, &statements), outcome);
            let expected = native.rows(CHANGES);
            let version = native.one::<i64>("SELECT crsql_db_version()");
            assert_eq!(loaded.one::<i64>("SELECT crsql_db_version()"), version, "a version at its own commit");
            assert_eq!(loaded.rows(CHANGES), expected, "the loaded writer");
            assert_eq!(drained.rows(CHANGES), expected, "the plain writer");
        }
    }
}

#[test]
fn a_read_of_the_changes_drains_and_leaves_the_inbox_empty() {
    let p = pair(&[T]);
    p.app("INSERT INTO t VALUES('k', 1, 2); UPDATE t SET a = 3; UPDATE t SET a = 3");
    assert_eq!(
        (p.inbox(), p.site.one::<i64>("SELECT crsql_db_version()")),
        (2, 0),
        "an update of nothing leaves nothing"
    );
    assert_eq!(
        p.site.rows("SELECT cid, col_version, db_version FROM crsql_changes ORDER BY cid"),
        ["'a'|2|1", "'b'|1|1"]
    );
    assert_eq!((p.inbox(), p.site.one::<i64>("SELECT crsql_db_version()")), (0, 1));
    p.app("DELETE FROM t");
    assert_eq!(p.site.one::<i64>("SELECT starling_drain()"), 1);
    assert_eq!(p.site.one::<i64>("SELECT starling_drain()"), 0);
    assert_eq!((p.inbox(), p.site.one::<i64>("SELECT crsql_db_version()")), (0, 2));
    assert_eq!(p.site.rows("SELECT cid, cl FROM crsql_changes"), ["'-1'|2"]);
}

#[test]
fn a_read_goes_on_in_the_snapshot_of_its_own_drain() {
    let p = pair(&[T]);
    p.app("INSERT INTO t VALUES('k', 1, 2), ('l', 1, 2)");
    let mut read = p.site.db.prepare("SELECT pk, val FROM crsql_changes").expect("it prepares");
    let mut rows = read.query([]).expect("it runs");
    rows.next().expect("a row").expect("one at least");
    p.app("UPDATE t SET a = 'late'");
    let mut n = 1;
    while let Some(row) = rows.next().expect("a row") {
        n += 1;
        assert_ne!(row.get_ref(1).expect("a value").as_str().ok(), Some("late"));
    }
    assert_eq!(n, 4);
}

#[test]
fn a_reader_that_cannot_take_the_lock_says_so_and_one_that_may_not_write_reads_what_is_there() {
    let p = pair(&[T]);
    p.app("INSERT INTO t VALUES('k', 1, 2)");
    p.site.rows("SELECT * FROM crsql_changes");
    p.app("UPDATE t SET a = 2; BEGIN IMMEDIATE");
    p.site.db.busy_timeout(std::time::Duration::ZERO).expect("a timeout");
    assert!(p.site.refused("SELECT * FROM crsql_changes").contains("locked"));
    assert!(p.site.refused("SELECT * FROM starling_changesets").contains("locked"));
    p.site.vector();
    p.app("COMMIT");
    p.site.exec("PRAGMA query_only = 1");
    assert_eq!(p.site.rows("SELECT cid, col_version FROM crsql_changes ORDER BY cid"), ["'a'|1", "'b'|1"]);
    assert!(p.site.refused("SELECT * FROM starling_changesets").contains("without the extension wait"));
    p.site.exec("PRAGMA query_only = 0");
    assert_eq!(p.site.rows("SELECT cid, col_version FROM crsql_changes ORDER BY cid"), ["'a'|2", "'b'|1"]);
}

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
fn random_histories_of_portable_native_and_mixed_replicas_end_equal() {
    for seed in 0..runs(15) {
        println!("seed {seed}");
        let mut r = Random::new(seed);
        let tables = tables();
        let tables: Vec<(&str, &str)> =
            tables.iter().map(|(n, s)| (*n, s.as_str())).filter(|t| !t.0.contains('\'')).collect();
        let pairs = [pair(&tables), pair(&tables)];
        let native = Site::memory().with(&tables);
        let sites = [&pairs[0].site, &pairs[1].site, &native];
        for _ in 0..20 {
            let (i, j) = (r.below(3) as usize, r.below(3) as usize);
            let table = *r.pick(&[0, 1, 2, 3, 4, 5, 7]);
            match r.below(4) {
                0 if i != j => sites[i].pull(sites[j]),
                1 if i != j => {
                    let (mut parts, _) = sites[j].answer(&sites[i].vector());
                    r.shuffle(&mut parts);
                    parts.truncate(2);
                    parts.iter().for_each(|(part, _)| assert!(sites[i].merge(part).is_ok()));
                }
                2 if i < 2 => drop(run(&pairs[i].app, &transaction(&mut r, table, statement_with_zeros))),
                _ => drop(run(&sites[i].db, &transaction(&mut r, table, statement_with_zeros))),
            }
        }
        for _ in 0..2 {
            for to in sites {
                sites.iter().filter(|from| !std::ptr::eq(to, **from)).for_each(|from| to.pull(from));
            }
        }
        for other in &sites[1..] {
            for (name, _) in &tables {
                let all = |site: &Site| {
                    let mut rows = site.rows(&format!("SELECT * FROM {name}"));
                    rows.sort();
                    rows
                };
                assert_eq!(all(sites[0]), all(other), "{name}");
            }
            assert_eq!(sites[0].changes(), other.changes());
            assert_eq!(sites[0].vector(), other.vector());
        }
    }
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
fn what_was_written_before_a_crash_waits_and_is_not_lost() {
    let p = pair(&[T]);
    p.app("INSERT INTO t VALUES('k', 1, 1)");
    // A kill between the write and the drain leaves the file and its WAL: a copy of both is what the next start finds.
    p.app("PRAGMA wal_autocheckpoint = 0; UPDATE t SET a = 2");
    let dir = tempfile::tempdir().expect("a directory");
    let copy = dir.path().join("app.db");
    for suffix in ["", "-wal"] {
        let name = |path: &std::path::Path| PathBuf::from(format!("{}{suffix}", path.display()));
        std::fs::copy(name(&p.path), name(&copy)).expect("it copies");
    }
    let after = Site::file(&copy);
    assert_eq!(after.rows("SELECT cid, val, col_version FROM crsql_changes ORDER BY cid"), ["'a'|2|2", "'b'|1|1"]);
    // A drain that was cut short: rolled back, everything waits as before.
    p.site.exec("BEGIN; SELECT starling_drain(); SELECT count(*) FROM crsql_changes; ROLLBACK");
    assert_eq!((p.inbox(), p.site.one::<i64>("SELECT crsql_db_version()")), (2, 0));
    assert_eq!(p.site.changes(), after.changes());
}

#[test]
fn savepoints_and_mixed_tables_in_one_transaction_are_one_version() {
    let n = ("n", "CREATE TABLE n(id INTEGER PRIMARY KEY, a)");
    let s = portable(Site::memory(), &[T]).with(&[n]);
    s.exec("BEGIN; INSERT INTO t VALUES('k', 1, 1); INSERT INTO n VALUES(1, 1); SAVEPOINT x");
    assert_eq!(s.rows("SELECT DISTINCT db_version FROM crsql_changes"), ["1"], "in the middle of the transaction");
    s.exec("UPDATE t SET a = 'undone'; SELECT count(*) FROM crsql_changes; ROLLBACK TO x; UPDATE t SET b = 2; UPDATE n SET a = 2; COMMIT");
    assert_eq!(s.one::<i64>("SELECT crsql_db_version()"), 1);
    assert_eq!(
        s.rows("SELECT [table], cid, val, col_version FROM crsql_changes ORDER BY 1, 2"),
        ["'n'|'a'|2|2", "'t'|'a'|1|1", "'t'|'b'|2|2"]
    );
}

#[test]
fn writers_with_and_without_the_extension_share_a_table() {
    let p = pair(&[T]);
    let peer = memory();
    for i in 0..50 {
        p.app(&format!("INSERT INTO t VALUES('p{i}', {i}, 0)"));
        p.site.exec(&format!("INSERT INTO t VALUES('l{i}', {i}, 0); UPDATE t SET b = b + 1"));
        p.app("UPDATE t SET b = b + 1 WHERE id LIKE 'l%'");
    }
    peer.pull(&p.site);
    assert_eq!(peer.rows("SELECT * FROM t ORDER BY id"), p.site.rows("SELECT * FROM t ORDER BY id"));
    assert_eq!(peer.changes(), p.site.changes());
    // Whoever opened the file before the table became portable has no part in its own commit: the next drain does.
    let dir = tempfile::tempdir().expect("a directory");
    let (early, late) = (Site::file(&dir.path().join("x.db")), Site::file(&dir.path().join("x.db")));
    let late = portable(late, &[T]);
    early.exec("INSERT INTO t VALUES('k', 1, 1)");
    assert_eq!(late.rows("SELECT count(*), max(db_version) FROM crsql_changes"), ["2|1"]);
}

#[test]
fn a_table_goes_from_one_way_of_capture_to_the_other_and_back_without_a_word() {
    let p = pair(&[T]);
    p.app("INSERT INTO t VALUES('k', 1, 1)");
    let one = |sql: &str| p.site.one::<String>(sql);
    assert_eq!(one("SELECT crsql_as_crr('t')"), "OK");
    p.app("UPDATE t SET a = 1");
    assert_eq!(p.inbox(), 0, "asked for no other way, it keeps its own");
    one("SELECT crsql_as_crr('t', 'native')");
    let refusal = p.app.execute_batch("UPDATE t SET a = 2").expect_err("it is native now").to_string();
    assert!(refusal.contains("starling_extension_is_not_loaded"), "{refusal}");
    assert_eq!(p.site.rows("SELECT cid, col_version, db_version FROM crsql_changes"), ["'a'|1|1", "'b'|1|1"]);
    p.site.exec("UPDATE t SET a = 2");
    one("SELECT crsql_as_crr('main', 't', 'portable')");
    // SQLite does not look at a schema anew for a table that a trigger misses, so a connection that has just failed asks first.
    p.app("SELECT count(*) FROM t; UPDATE t SET a = 3");
    p.site.exec("UPDATE t SET b = 3");
    assert_eq!(
        p.site.rows("SELECT cid, col_version, db_version FROM crsql_changes ORDER BY cid"),
        ["'a'|3|3", "'b'|2|3"],
        "the loaded writer's commit took what waited with it"
    );
    one("SELECT crsql_as_table('t')");
    p.app("UPDATE t SET a = 4");
    assert_eq!(
        p.site.rows("SELECT name FROM sqlite_master WHERE name LIKE '%inbox%' OR type = 'trigger'"),
        [] as [&str; 0]
    );
    one("SELECT crsql_as_crr('t')");
    assert_eq!(
        p.site.rows("SELECT count(*) FROM sqlite_master WHERE name LIKE '%inbox%'"),
        ["0"],
        "native is the default"
    );
}

#[test]
fn a_table_called_portable_can_be_either_argument() {
    let s = Site::memory();
    s.exec("CREATE TABLE portable(id INTEGER PRIMARY KEY); CREATE TABLE main(id INTEGER PRIMARY KEY)");
    let inboxes = "SELECT count(*) FROM sqlite_master WHERE name LIKE 'crsql_inbox%'";
    s.one::<String>("SELECT crsql_as_crr('main', 'portable')");
    assert_eq!((s.one::<i64>(inboxes), s.one::<String>("SELECT name FROM crsql_table")), (0, "portable".into()));
    s.one::<String>("SELECT crsql_as_crr('main', 'main', 'portable')");
    s.one::<String>("SELECT crsql_as_crr('portable', 'portable')");
    assert_eq!(s.one::<i64>(inboxes), 2);
    assert!(s.refused("SELECT crsql_as_crr('main', 'main', 'odd')").contains("native and portable"));
    assert!(s.refused("SELECT crsql_as_crr('nowhere', 'portable')").contains("no such table"));
}

#[test]
fn a_column_added_outside_while_writes_wait_is_neither_lost_nor_mistaken() {
    let p = pair(&[T]);
    let peer = Site::memory().with(&[("t", "CREATE TABLE t(id TEXT NOT NULL PRIMARY KEY, a, b, c DEFAULT 'new')")]);
    p.app("INSERT INTO t VALUES('k', 1, 1), ('l', 1, 1), ('m', 1, 1)");
    peer.pull(&p.site);
    p.app("UPDATE t SET b = 2 WHERE id = 'k'; DELETE FROM t WHERE id = 'l'");
    p.app("ALTER TABLE t ADD COLUMN c DEFAULT 'new'; UPDATE t SET b = 3 WHERE id = 'm'");
    assert_eq!(p.inbox(), 3);
    p.site.one::<i64>("SELECT starling_resume()");
    assert_eq!(p.inbox(), 0);
    p.app("UPDATE t SET c = 'written' WHERE id = 'k'");
    peer.pull(&p.site);
    assert_eq!(peer.rows("SELECT * FROM t ORDER BY id"), ["'k'|1|2|'written'", "'m'|1|3|'new'"]);
    assert_eq!(peer.changes(), p.site.changes());
    // A rebuild by a migration tool drops the triggers; the columns stand in another order afterwards.
    p.app("UPDATE t SET a = 'before' WHERE id = 'k'");
    p.app(
        "CREATE TABLE new(c, b, a, id TEXT NOT NULL PRIMARY KEY); INSERT INTO new SELECT c, b, a, id FROM t; DROP TABLE t; \
         ALTER TABLE new RENAME TO t",
    );
    p.site.one::<i64>("SELECT starling_resume()");
    p.app("UPDATE t SET b = 'after' WHERE id = 'k'");
    peer.pull(&p.site);
    assert_eq!(
        peer.rows("SELECT id, a, b, c FROM t ORDER BY id"),
        p.site.rows("SELECT id, a, b, c FROM t ORDER BY id")
    );
    assert_eq!(peer.changes(), p.site.changes());
}

#[test]
fn a_rebuild_with_another_key_or_a_dropped_table_leaves_no_inbox_that_nobody_can_read() {
    let p = pair(&[T]);
    p.app("INSERT INTO t VALUES('k', 1, 1)");
    p.app("DROP TABLE t; CREATE TABLE t(id TEXT NOT NULL, a NOT NULL, b, PRIMARY KEY(id, a)); INSERT INTO t VALUES('k', 2, 2)");
    p.site.rows("SELECT * FROM crsql_changes");
    p.site.one::<i64>("SELECT starling_resume()");
    p.app("INSERT INTO t VALUES('l', 3, 3)");
    assert_eq!(p.site.one::<i64>("SELECT count(DISTINCT pk) FROM crsql_changes WHERE cid = 'b'"), 2);
    p.app("INSERT INTO t VALUES('m', 4, 4); DROP TABLE t");
    p.site.one::<i64>("SELECT starling_resume()");
    assert_eq!(p.site.rows("SELECT name FROM sqlite_master WHERE name LIKE 'crsql_inbox%'"), [] as [&str; 0]);
}

#[test]
fn tables_and_columns_renamed_by_a_program_without_the_extension_stay_what_they_are() {
    let (p, peer) = (pair(&[T]), memory());
    p.app("INSERT INTO t VALUES('k', 1, 1); INSERT INTO t VALUES('l', 1, 1)");
    peer.pull(&p.site);
    p.app("UPDATE t SET a = 2 WHERE id = 'k'; ALTER TABLE t RENAME TO u; ALTER TABLE u RENAME COLUMN b TO bb");
    p.app("UPDATE u SET bb = 3 WHERE id = 'k'; DELETE FROM u WHERE id = 'l'");
    p.site.one::<i64>("SELECT starling_resume()");
    p.app("UPDATE u SET bb = 4 WHERE id = 'k'; INSERT INTO u VALUES('m', 5, 5)");
    peer.exec("ALTER TABLE t RENAME COLUMN b TO bb; ALTER TABLE t RENAME TO u; SELECT starling_resume()");
    peer.pull(&p.site);
    assert_eq!(peer.rows("SELECT * FROM u ORDER BY id"), ["'k'|2|4", "'m'|5|5"]);
    assert_eq!(peer.changes(), p.site.changes());
}

#[test]
fn an_alter_window_on_a_portable_table_ends_with_plain_triggers_again() {
    let p = pair(&[T]);
    p.app("INSERT INTO t VALUES('k', 1, 1)");
    p.site.exec(
        "SELECT crsql_begin_alter('t'); ALTER TABLE t ADD COLUMN c; UPDATE t SET a = 2; SELECT crsql_commit_alter('t')",
    );
    p.app("UPDATE t SET c = 3");
    let peer = portable(Site::memory(), &[("t", "CREATE TABLE t(id TEXT NOT NULL PRIMARY KEY, a, b, c)")]);
    peer.pull(&p.site);
    assert_eq!(peer.rows("SELECT * FROM t"), ["'k'|2|1|3"]);
    assert_eq!(peer.changes(), p.site.changes());
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
fn keys_that_cannot_be_told_apart_are_refused_by_the_plain_triggers_too() {
    let p = pair(&[("any", "CREATE TABLE any(k NOT NULL PRIMARY KEY, v)")]);
    for sql in ["INSERT INTO any VALUES(1.0, 1)", "INSERT INTO any VALUES(-0.0, 1)"] {
        assert!(p.app.execute_batch(sql).expect_err(sql).to_string().contains("REAL key"));
    }
    p.app("INSERT INTO any VALUES(1, 1), (0.5, 1), ('1.0', 1)");
    assert!(p
        .app
        .execute_batch("UPDATE any SET k = 2.0 WHERE k = 1")
        .expect_err("it moves")
        .to_string()
        .contains("REAL key"));
    let peer = portable(Site::memory(), &[("any", "CREATE TABLE any(k NOT NULL PRIMARY KEY, v)")]);
    peer.pull(&p.site);
    assert_eq!(peer.rows("SELECT k FROM any ORDER BY k"), ["0.5r", "1", "'1.0'"]);
}

#[test]
fn a_writer_sees_nothing_of_the_capture() {
    let p = pair(&[("t", "CREATE TABLE t(id INTEGER PRIMARY KEY, a)")]);
    assert_eq!(p.app.execute("INSERT INTO t VALUES(7, 1), (8, 1)", []).expect("it runs"), 2);
    assert_eq!((p.app.last_insert_rowid(), p.app.changes()), (8, 2));
    assert_eq!(p.app.execute("UPDATE t SET a = 2", []).expect("it runs"), 2);
    assert_eq!(p.app.execute("REPLACE INTO t VALUES(7, 3)", []).expect("it runs"), 1);
    assert_eq!(p.app.last_insert_rowid(), 7);
    p.app("PRAGMA trusted_schema = 0; INSERT INTO t VALUES(9, 9)");
    // A program without the extension may alter whatever else the file has.
    p.app("CREATE TABLE other(a, b); ALTER TABLE other RENAME COLUMN a TO c; ALTER TABLE other DROP COLUMN b; VACUUM");
    p.app("ALTER TABLE t ADD COLUMN z; ALTER TABLE t RENAME COLUMN a TO aa; UPDATE t SET aa = 5");
}

#[test]
fn after_many_rounds_the_inbox_has_grown_no_further_than_one_of_them() {
    let p = pair(&[T]);
    let round = |i: usize| {
        p.app(&format!(
            "BEGIN; WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 2000) \
             INSERT INTO t SELECT 'k' || i, {i}, 0 FROM n WHERE 1 ON CONFLICT(id) DO UPDATE SET a = excluded.a; COMMIT"
        ));
        p.site.one::<i64>("SELECT starling_drain()");
    };
    (0..3).for_each(round);
    let pages = p.site.one::<i64>("PRAGMA page_count");
    (3..13).for_each(round);
    let grown = p.site.one::<i64>("PRAGMA page_count") - pages;
    assert!(grown < pages, "{grown} pages more than {pages}");
}

#[test]
fn a_drain_larger_than_the_journal_is_one_version() {
    let p = pair(&[("t", "CREATE TABLE t(id INTEGER PRIMARY KEY, a)")]);
    p.app(
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 131080) INSERT INTO t SELECT i, 0 FROM n; \
         DELETE FROM t WHERE id % 1000 = 0; UPDATE t SET a = 1 WHERE id % 1000 = 1",
    );
    assert_eq!(
        p.site.rows("SELECT db_version, cid, cl, col_version, count(*) FROM crsql_changes GROUP BY 1, 2, 3, 4"),
        ["1|'-1'|2|2|131", "1|'a'|1|1|130817", "1|'a'|1|2|132"]
    );
}

#[test]
fn the_uninstall_script_frees_a_file_with_plain_sqlite_alone() {
    let uninstall = include_str!("../../../sql/extension/uninstall.sql");
    let p = pair(&[T]);
    p.site.exec("CREATE TABLE n(id INTEGER PRIMARY KEY, a); SELECT crsql_as_crr('n')");
    p.app("INSERT INTO t VALUES('k', 1, 1)");
    assert!(
        p.app.execute_batch("ALTER TABLE t RENAME COLUMN a TO x").is_err(),
        "the native table's triggers stand in the way"
    );
    let statements: Vec<String> = {
        let mut ask = p.app.prepare(uninstall).expect("one statement");
        let rows = ask.query_map([], |r| r.get(0)).expect("it runs");
        rows.collect::<rusqlite::Result<_>>().expect("text")
    };
    for sql in &statements {
        p.app(sql);
    }
    p.app("INSERT INTO n VALUES(1, 1); UPDATE t SET a = 2; ALTER TABLE t RENAME COLUMN a TO x; ALTER TABLE n DROP COLUMN a");
    assert_eq!(
        p.app.query_row("SELECT count(*) FROM sqlite_master WHERE type = 'trigger'", [], |r| r.get::<_, i64>(0)),
        Ok(0)
    );
    p.site.one::<i64>("SELECT starling_resume()");
    assert_eq!(p.site.rows("SELECT count(*) FROM sqlite_master WHERE type = 'trigger'"), ["0"], "it stays uninstalled");
    p.site.one::<String>("SELECT crsql_as_crr('t', 'portable')");
    assert_eq!(p.site.rows("SELECT cid, val FROM crsql_changes WHERE [table] = 't' ORDER BY cid"), ["'b'|1", "'x'|2"]);
}
