//! Young clocks over random histories: what several connections on one file do is done again, statement by statement, to
//! another file in which a sweep moves the clocks into their blocks after each transaction, and whose tables are not known
//! to be plain. Both must show the same, and give the same to a third. STARLING_YOUNG_SEED replays one seed, STARLING_YOUNG_RUNS sets how many are run.

use rusqlite::types::Value;
use starling_crdt::Vector;
use starling_tests::ledger;
use starling_tests::random::{each_seed, Random};
use starling_tests::records;
use starling_tests::site::Site;
use std::path::Path;
use std::time::Duration;

const TABLES: &[(&str, &str)] = &[
    ("t", "CREATE TABLE t(id TEXT NOT NULL PRIMARY KEY, a, b INTEGER, c TEXT NOT NULL DEFAULT 'd')"),
    ("n", "CREATE TABLE n(id INTEGER PRIMARY KEY, a TEXT NOT NULL, b)"),
    ("k", "CREATE TABLE k(x INTEGER NOT NULL, y BLOB NOT NULL, PRIMARY KEY(x, y)) WITHOUT ROWID"),
    ("p", "CREATE TABLE p(id INTEGER PRIMARY KEY, a, b)"),
];

/// Connections per file.
const CONNECTIONS: usize = 3;

/// A file and the connections on it.
struct Twin {
    path: std::path::PathBuf,
    on: Vec<Site>,
    /// It keeps no young clocks, and looks at each clock before it writes one.
    aged: bool,
}

impl Twin {
    fn new(path: &Path, journal: &str, aged: bool, portable: bool) -> Self {
        let first = Site::open(path);
        first.exec(&format!("PRAGMA journal_mode = {journal}"));
        for (name, sql) in TABLES {
            first.exec(sql);
            let capture = if portable && *name == "p" { "portable" } else { "native" };
            first.one::<String>(&format!("SELECT crsql_as_crr('{name}', '{capture}')"));
        }
        if aged {
            first.exec("DELETE FROM crsql_master WHERE key LIKE 'plain.%'");
        }
        let on = std::iter::once(first).chain((1..CONNECTIONS).map(|_| Site::open(path))).collect::<Vec<Site>>();
        for site in &on {
            site.exec("PRAGMA synchronous = OFF");
            site.db.busy_timeout(Duration::ZERO).expect("a timeout can be set");
        }
        Self { path: path.to_path_buf(), on, aged }
    }

    /// After each transaction: the clocks move, as far as nobody else is in the way.
    fn age(&self, i: usize) {
        let site = &self.on[i];
        let in_force = || records::newest(&site.db).is_some_and(|newest| newest.reaches().is_some());
        if self.aged && site.db.is_autocommit() && in_force() {
            // A budget of nothing moves the clocks and looks at no entry.
            let _ = self.on[i].db.query_row("SELECT starling_prune(0)", [], |_| Ok(()));
        }
    }
}

/// Statements that leave the tables plain.
const GENTLE: [u64; 16] = [0, 1, 3, 4, 5, 6, 13, 14, 15, 15, 18, 20, 21, 21, 23, 24];

/// `gentle`: the tables stay plain for a while.
fn statement(r: &mut Random, gentle: bool) -> String {
    let long = "k".repeat(4000);
    let keys = ["a", "b", "c", "d", "e", "f", &long];
    let (key, other) = (*r.pick(&keys), *r.pick(&keys));
    let value = *r.pick(&["NULL", "1", "1.5", "'x'", "'X'", "x'78'"]);
    let (small, id) = (r.below(4), r.below(12));
    let which = if gentle && !r.chance(3) { *r.pick(&GENTLE) } else { r.below(26) };
    match which {
        0 | 1 => format!("INSERT OR IGNORE INTO t(id, a, b) VALUES('{key}', {value}, {small})"),
        2 => format!(
            "INSERT INTO t(id, a) VALUES('{key}', {value}) ON CONFLICT(id) DO UPDATE SET a = excluded.a, b = {small}"
        ),
        3..=5 => format!("UPDATE t SET a = {value}, b = coalesce(b, 0) + {small} WHERE id = '{key}'"),
        6 => format!("UPDATE t SET c = iif(c = 'bob', 'BOB', 'bob') WHERE id <> '{key}'"),
        7 => format!("UPDATE OR IGNORE t SET id = '{other}' WHERE id = '{key}'"),
        8 => format!("UPDATE OR REPLACE t SET id = '{other}' WHERE id = '{key}'"),
        9 => format!("DELETE FROM t WHERE id = '{key}'"),
        10 => format!("REPLACE INTO t(id, a) VALUES('{key}', {value}), ('{other}', {small})"),
        11 | 12 => format!("INSERT INTO n VALUES({id}, 'p', {small}) ON CONFLICT(id) DO UPDATE SET b = excluded.b"),
        13 | 14 => format!("UPDATE n SET a = a || 'q', b = {value} WHERE id = {id}"),
        15 => format!("UPDATE n SET b = {value} WHERE id >= {id}"),
        16 => format!("DELETE FROM n WHERE id = {id}"),
        17 => format!("UPDATE OR REPLACE n SET id = id + 1 WHERE id = {id}"),
        18 => format!("INSERT OR IGNORE INTO k VALUES({id}, x'0{small}')"),
        19 => format!("DELETE FROM k WHERE x = {id}"),
        20 => format!("INSERT INTO p VALUES({id}, {value}, {small}) ON CONFLICT(id) DO UPDATE SET a = excluded.a"),
        21 => format!("UPDATE p SET a = {value}, b = b + 1 WHERE id = {id}"),
        22 => format!("DELETE FROM p WHERE id = {id}"),
        23 => format!("WITH s(i) AS (VALUES({id}) UNION ALL SELECT i + 1 FROM s LIMIT 9) INSERT OR IGNORE INTO n SELECT i, 'z', 0 FROM s"),
        24 => format!("INSERT INTO n VALUES({}, 'o', 1), (1, 'p', 2), (1, 'q', 3)", 20 + id),
        // A row that comes, goes and comes back in one transaction, if one is open.
        _ => format!("DELETE FROM n WHERE id = {id}; INSERT INTO n VALUES({id}, 'again', {value}); UPDATE n SET b = 5 WHERE id = {id}"),
    }
}

/// What a connection does next; the same on both files.
#[derive(Debug)]
enum Step {
    Sql(String),
    Read,
    Vector,
    Merge(usize),
    Nine(usize),
    Prune(u64),
    Reopen,
    NewEpoch,
}

fn step(r: &mut Random, depth: &mut u64, open: bool, gentle: bool) -> Step {
    match r.below(40) {
        0..=3 if !open => Step::Sql("BEGIN IMMEDIATE".to_string()),
        4 if !open => Step::Sql("BEGIN".to_string()),
        0..=3 if open => Step::Sql("COMMIT".to_string()),
        4 if open => Step::Sql("ROLLBACK".to_string()),
        5 | 6 if open => {
            *depth += 1;
            Step::Sql(format!("SAVEPOINT s{depth}"))
        }
        7 if open && *depth > 0 => Step::Sql(format!("ROLLBACK TO s{}", 1 + r.below(*depth))),
        8 if open && *depth > 0 => Step::Sql(format!("RELEASE s{depth}")),
        9 | 10 => Step::Read,
        11 => Step::Vector,
        12 | 13 => Step::Merge(r.below(3) as usize),
        14 => Step::Nine(r.below(3) as usize),
        15 => Step::Prune(*r.pick(&[0, 3, 1000])),
        16 if !open => Step::Reopen,
        17 => Step::NewEpoch,
        _ => Step::Sql(statement(r, gentle)),
    }
}

/// Takes a step; what it came to, as both files must tell it.
fn take(twin: &mut Twin, i: usize, step: &Step, parts: &[Vec<u8>], nine: &[Vec<Value>]) -> String {
    if let Step::Reopen = step {
        let fresh = Site::open(&twin.path);
        fresh.exec("PRAGMA synchronous = OFF");
        fresh.db.busy_timeout(Duration::ZERO).expect("a timeout can be set");
        twin.on[i] = fresh;
        return String::new();
    }
    let site = &twin.on[i];
    let told = |result: rusqlite::Result<String>| result.unwrap_or_else(|e| format!("{e}"));
    let outcome = match step {
        Step::Sql(sql) => told(site.db.execute_batch(sql).map(|()| String::new())),
        Step::Read => told(read(site).map(|rows| rows.join("\n"))),
        Step::Vector => told(
            site.db.query_row("SELECT length(starling_vector())", [], |r| r.get::<_, i64>(0)).map(|_| String::new()),
        ),
        Step::Merge(n) => parts.get(*n).map_or(String::new(), |part| told(site.merge(part).map(|n| n.to_string()))),
        Step::Nine(n) => nine.get(*n).map_or(String::new(), |row| {
            let insert = "INSERT INTO crsql_changes VALUES(?,?,?,?,?,?,?,?,?)";
            told(site.db.execute(insert, rusqlite::params_from_iter(row)).map(|_| String::new()))
        }),
        Step::Prune(budget) => told(
            site.db
                .query_row(&format!("SELECT starling_prune({budget})"), [], |r| r.get::<_, i64>(0))
                .map(|_| String::new()),
        ),
        Step::NewEpoch => told(site.db.query_row("SELECT starling_new_epoch()", [], |_| Ok(String::new()))),
        Step::Reopen => String::new(),
    };
    twin.age(i);
    outcome
}

/// `crsql_changes` without sites, which differ.
fn read(site: &Site) -> rusqlite::Result<Vec<String>> {
    let sql = "SELECT [table] || ' ' || hex(pk) || ' ' || cid || ' ' || quote(val) || ' ' || col_version || ' ' || cl || ' ' || seq \
               FROM crsql_changes";
    let mut stmt = site.db.prepare(sql)?;
    let mut rows: Vec<String> = stmt.query_map([], |r| r.get(0))?.collect::<rusqlite::Result<_>>()?;
    rows.sort();
    Ok(rows)
}

fn history(seed: u64) {
    let mut r = Random::new(seed);
    let dir = tempfile::tempdir().expect("a directory");
    let journal = *r.pick(&["wal", "delete"]);
    let (portable, gentle) = (r.chance(50), r.chance(60));
    let mut twins =
        [false, true].map(|aged| Twin::new(&dir.path().join(format!("{aged}.db")), journal, aged, portable));
    // Somebody else, whose changes both get.
    let third = Site::memory().with(TABLES);
    let (mut depth, mut busy) = ([0; CONNECTIONS], None);
    for _ in 0..60 + r.below(120) {
        for _ in 0..r.below(3) {
            let _ = third.db.execute_batch(&statement(&mut r, gentle));
        }
        let mut parts: Vec<Vec<u8>> = third.answer(&[1, 0]).0.into_iter().map(|p| p.0).collect();
        r.shuffle(&mut parts);
        let mut nine: Vec<Vec<Value>> = {
            let sql = "SELECT [table], pk, cid, val, col_version, db_version, site_id, cl, seq FROM crsql_changes";
            let mut stmt = third.db.prepare(sql).expect("it prepares");
            let rows = stmt.query_map([], |r| (0..9).map(|i| r.get(i)).collect()).expect("it runs");
            rows.collect::<rusqlite::Result<_>>().expect("rows")
        };
        r.shuffle(&mut nine);
        // One connection is in a transaction at a time, mostly.
        let i = busy.filter(|_| r.chance(85)).unwrap_or_else(|| r.below(CONNECTIONS as u64) as usize);
        let open = !twins[0].on[i].db.is_autocommit();
        let step = step(&mut r, &mut depth[i], open, gentle);
        let [young, aged] = &mut twins;
        let outcomes = [take(young, i, &step, &parts, &nine), take(aged, i, &step, &parts, &nine)];
        println!("  {i}: {step:.100?} -- {}", outcomes[0].lines().count());
        if outcomes[0] != outcomes[1] && outcomes.iter().any(|o| o.contains("locked")) {
            // A sweep is one more transaction, which somebody else may be in the way of.
            println!("  ends early");
            return;
        }
        assert_eq!(outcomes[0], outcomes[1], "one file says otherwise");
        for (i, depth) in depth.iter_mut().enumerate() {
            let autocommit = twins[0].on[i].db.is_autocommit();
            assert_eq!(autocommit, twins[1].on[i].db.is_autocommit());
            if autocommit {
                *depth = 0;
                busy = busy.filter(|b| *b != i);
            } else {
                busy = Some(i);
            }
        }
    }
    for twin in &twins {
        twin.on.iter().filter(|s| !s.db.is_autocommit()).for_each(|s| s.exec("ROLLBACK"));
    }
    let [young, aged] = &twins;
    for i in 0..CONNECTIONS {
        assert_eq!(read(&young.on[i]).expect("it reads"), read(&aged.on[i]).expect("it reads"));
    }
    for twin in &twins {
        let reader = Site::memory().with(TABLES);
        reader.pull(&twin.on[0]);
        assert_eq!(reader.changes(), twin.on[0].changes());
        let vector = |site: &Site| Vector::decode(&site.vector()).expect("a vector");
        assert_eq!(vector(&reader), vector(&twin.on[0]));
        ledger::check(&twin.on[1]);
        assert_eq!(twin.on[2].one::<String>("PRAGMA integrity_check"), "ok");
    }
}

#[test]
fn a_file_with_young_clocks_and_one_without_show_the_same_to_everybody() {
    each_seed("YOUNG", 7, history);
}
