//! Two replicas and a stream of operations: DML, transactions, every SQL function with any arguments, nine-value inserts,
//! changesets exchanged whole, in part, and with bytes changed.
//!
//! After every stream: nothing panicked, the files pass `PRAGMA integrity_check`, `crsql_changes` can be read and names no cell
//! twice. Where nobody lied (no changeset was forged, no vector made up, no table altered) the replicas must also end equal.

use super::feed::Feed;
use crate::site::Site;
use rusqlite::types::Value;
use rusqlite::{params_from_iter, Error};
use std::collections::BTreeSet;
use std::sync::OnceLock;

const TABLES: &[(&str, &str)] = &[
    ("t", "CREATE TABLE t(id TEXT NOT NULL PRIMARY KEY, a, b INTEGER, c TEXT NOT NULL DEFAULT 'd' COLLATE NOCASE)"),
    ("n", "CREATE TABLE n(id INTEGER PRIMARY KEY, a TEXT NOT NULL, b REAL)"),
    ("k", "CREATE TABLE k(x INTEGER NOT NULL, y BLOB NOT NULL, PRIMARY KEY(x, y)) WITHOUT ROWID"),
];

/// Statements of an application; each `?` takes a value that the input chooses.
const DML: &[&str] = &[
    "INSERT OR IGNORE INTO t(id, a, b) VALUES(?, ?, ?)",
    "INSERT INTO t(id, a) VALUES(?, ?) ON CONFLICT(id) DO UPDATE SET a = excluded.a",
    "UPDATE t SET a = ? WHERE id <> ?",
    "UPDATE t SET c = ?, b = ?",
    "UPDATE OR REPLACE t SET id = ? WHERE id = ?",
    "REPLACE INTO t(id, a, b) VALUES(?, ?, ?)",
    "DELETE FROM t WHERE id = ?",
    "INSERT OR REPLACE INTO n VALUES(?, ?, ?)",
    "UPDATE n SET a = ? WHERE id >= ?",
    "DELETE FROM n WHERE id = ?",
    "UPDATE OR IGNORE n SET id = ? WHERE id = ?",
    "INSERT OR IGNORE INTO k VALUES(?, ?)",
    "UPDATE OR REPLACE k SET y = ? WHERE x = ?",
    "DELETE FROM k WHERE x >= ?",
];

const TRANSACTIONS: &[&str] =
    &["BEGIN", "BEGIN IMMEDIATE", "COMMIT", "ROLLBACK", "SAVEPOINT s", "ROLLBACK TO s", "RELEASE s"];

/// Functions and tables that may be called with anything and leave a replica that tells the truth.
const CALLS: &[&str] = &[
    "SELECT crsql_as_crr(?)",
    "SELECT crsql_as_crr('main', ?)",
    "SELECT crsql_as_crr(?, 'portable')",
    "SELECT crsql_pack_columns(?, ?, ?)",
    "SELECT cell FROM crsql_unpack_columns(?)",
    "SELECT cell FROM crsql_unpack_columns(crsql_pack_columns(?, ?))",
    "SELECT crsql_next_db_version(?)",
    "SELECT crsql_config_get(?)",
    "SELECT crsql_config_set('merge-equal-values', ?)",
    "SELECT crsql_config_set(?, ?)",
    "SELECT crsql_rows_impacted(), crsql_internal_sync_bit(), crsql_get_seq()",
    "SELECT crsql_increment_and_get_seq()",
    "SELECT crsql_db_version(), crsql_next_db_version()",
    "SELECT crsql_site_id(), crsql_finalize(), crsql_sha(), starling_version(), uuid7(), uuid7_blob()",
    "SELECT starling_vector(), starling_answer_vector()",
    "SELECT starling_check(?)",
    "SELECT starling_check(starling_vector())",
    "SELECT starling_forks(starling_vector(), ?)",
    "SELECT starling_forks(?)",
    "SELECT starling_rehome(starling_vector())",
    "SELECT starling_new_epoch(?)",
    "SELECT starling_prune(?)",
    "SELECT starling_resume()",
    "SELECT starling_aside()",
    "SELECT starling_new_epoch()",
    "SELECT changeset, claimable FROM starling_changesets(?, ?)",
    "SELECT count(*) FROM starling_changesets(NULL, ?)",
    "SELECT * FROM crsql_changes WHERE db_version > ? AND site_id IS NOT ?",
    "SELECT * FROM crsql_changes WHERE [table] = ? OR pk = ? OR cid >= ? ORDER BY seq DESC",
    "SELECT * FROM crsql_changes WHERE db_version = ? AND cl <= ?",
    "UPDATE crsql_changes SET val = ?",
    "SELECT crsql_begin_alter(?)",
];

/// Those that make a replica claim or forget what it should not: no equality is asked for afterwards.
const LIES: &[&str] = &[
    "SELECT starling_claim(?)",
    "SELECT starling_claim(starling_vector())",
    "SELECT starling_merge(?)",
    "SELECT starling_rehome(?)",
    "SELECT starling_new_site()",
    "SELECT crsql_as_table(?)",
    "SELECT crsql_as_crr(?)",
    "ALTER TABLE t ADD COLUMN z DEFAULT 7",
    "ALTER TABLE t DROP COLUMN b",
    "DROP TABLE n",
    "CREATE TRIGGER IF NOT EXISTS u AFTER UPDATE ON t BEGIN UPDATE t SET b = b + 1 WHERE id = NEW.id; END",
    "CREATE TRIGGER IF NOT EXISTS d AFTER INSERT ON k BEGIN DELETE FROM t WHERE b = NEW.x; END",
    "CREATE UNIQUE INDEX IF NOT EXISTS i ON t(a)",
    "VACUUM",
];

/// What changes the schema, with everything that has to follow it.
const SCHEMA: &[&str] = &[
    "SELECT crsql_begin_alter('t')",
    "SELECT crsql_commit_alter('t')",
    "SELECT crsql_commit_alter(?, ?, ?)",
    "ALTER TABLE t ADD COLUMN z DEFAULT 7",
    "ALTER TABLE t ADD COLUMN y TEXT NOT NULL DEFAULT 'y'",
    "ALTER TABLE t DROP COLUMN a",
    "ALTER TABLE t DROP COLUMN b",
    "ALTER TABLE t RENAME COLUMN a TO b2",
    "ALTER TABLE t RENAME COLUMN b2 TO a",
    "ALTER TABLE t RENAME COLUMN id TO id2",
    "ALTER TABLE t RENAME TO u",
    "ALTER TABLE u RENAME TO t",
    "CREATE TABLE u(a, id TEXT NOT NULL PRIMARY KEY, w DEFAULT 1)",
    "CREATE TABLE u(id TEXT NOT NULL, a NOT NULL, PRIMARY KEY(id, a))",
    "INSERT OR IGNORE INTO u(id, a) SELECT id, a FROM t",
    "DROP TABLE t",
    "DROP TABLE n",
    "CREATE TABLE n(id INTEGER PRIMARY KEY, a TEXT NOT NULL, b REAL)",
    "SELECT starling_resume()",
    "SELECT crsql_as_crr('t'), crsql_as_crr('n'), crsql_as_crr('u')",
    "SELECT crsql_as_crr('t', 'portable')",
    "SELECT crsql_as_crr('t', 'native')",
    "SELECT crsql_as_crr(?, ?, ?)",
    "SELECT crsql_as_table(?)",
    "SELECT starling_drain()",
    "SELECT crsql_pending()",
    "SELECT * FROM crsql_pending WHERE changes > ?",
    "SELECT crsql_automigrate(?)",
    "SELECT crsql_automigrate('CREATE TABLE t(id TEXT NOT NULL PRIMARY KEY, a, q); SELECT crsql_as_crr(''t'')', ?)",
    "SELECT crsql_automigrate('CREATE TABLE t(q, id TEXT NOT NULL PRIMARY KEY, CHECK (q <> 3))')",
    "SELECT crsql_fract_as_ordered(?, ?, ?)",
    "SELECT crsql_fract_as_ordered('t', 'a')",
    "INSERT INTO t(id, a) VALUES(?, 1)",
    "INSERT INTO t_fractindex(id, after_id) VALUES(?, ?)",
    "UPDATE t_fractindex SET after_id = ? WHERE id = ?",
    "SELECT crsql_fract_key_between(?, ?)",
    "SELECT starling_fract_nth_key(?, ?, ?, ?), starling_fract_is_key(?)",
    "SELECT starling_zeros_differ(?, ?)",
    "SELECT starling_extension_is_not_loaded__load_starling_so__format_1(?, ?, ?)",
    "INSERT INTO starling_extension_is_not_loaded__load_starling_so__format_1(tag, mask, k0) VALUES(?, ?, ?)",
];

struct World {
    sites: [Site; 2],
    /// Lies are left out.
    honest: bool,
    /// What is called besides DML.
    calls: &'static [&'static str],
    /// Somebody lied.
    tainted: bool,
}

/// Text that can be a table, a column, a key or a setting, and text that can be none of them.
const TEXTS: &[&str] =
    &["a", "b", "c", "t", "n", "k", "id", "z", "-1", "", "1", "merge-equal-values", "ü'\"", "missing"];

fn value(feed: &mut Feed<'_>) -> Value {
    match feed.below(12) {
        0 => Value::Null,
        1..=3 => Value::Integer(i64::from(feed.byte() % 4)),
        4 => Value::Integer(feed.word().cast_signed()),
        5 => Value::Integer(feed.pick(&[-1, i64::MAX, i64::MIN, 1 << 47, 1 << 48, 1 << 50, (1 << 62) - 1, 1 << 62])),
        6 => Value::Real(feed.pick(&[0.0, -0.0, 1.0, 1.5, -1e300, f64::INFINITY])),
        7..=9 => Value::Text(feed.pick(TEXTS).to_string()),
        10 => Value::Text(String::from_utf8_lossy(feed.run()).into_owned()),
        _ => Value::Blob(feed.run().to_vec()),
    }
}

/// Runs one statement to its end, with as many values as it takes. An error is an outcome; a panic inside is none.
fn run(site: &Site, sql: &str, feed: &mut Feed<'_>) -> bool {
    let outcome = (|| {
        let mut stmt = site.db.prepare(sql)?;
        let values: Vec<Value> = (0..stmt.parameter_count()).map(|_| value(feed)).collect();
        tell(|| format!("{sql} {values:?}"));
        let mut rows = stmt.query(params_from_iter(values))?;
        while let Some(row) = rows.next()? {
            let _: Value = row.get(0)?;
        }
        Ok(())
    })();
    expected(sql, outcome)
}

fn expected<T>(sql: &str, outcome: Result<T, Error>) -> bool {
    if let Err(e) = &outcome {
        let message = e.to_string();
        tell(|| format!("  -- {message}"));
        for sign in ["panic", "bug", "damaged", "malformed database", "disk image"] {
            assert!(!message.contains(sign), "{sql}: {message}");
        }
    }
    outcome.is_ok()
}

/// Prints a step where somebody asked for it, to read a finding by.
fn tell(what: impl FnOnce() -> String) {
    static TOLD: OnceLock<bool> = OnceLock::new();
    if *TOLD.get_or_init(|| std::env::var_os("STARLING_FUZZ_TELL").is_some()) {
        println!("{}", what());
    }
}

/// Ends whatever transaction is open.
fn settle(site: &Site) {
    let ended = site.db.is_autocommit() || expected("COMMIT", site.db.execute_batch("COMMIT"));
    // A COMMIT that the extension refuses has rolled back already.
    if !ended && !site.db.is_autocommit() {
        site.exec("ROLLBACK");
    }
}

impl World {
    fn new(honest: bool) -> Self {
        Self { sites: [Site::memory().with(TABLES), Site::memory().with(TABLES)], honest, calls: CALLS, tainted: false }
    }

    fn step(&mut self, feed: &mut Feed<'_>) {
        let (what, which) = (feed.byte(), feed.below(2));
        let (to, from) = (&self.sites[which], &self.sites[1 - which]);
        tell(|| format!("-- on replica {which}, {}", what % 16));
        match what % 16 {
            0..=4 => drop(run(to, feed.pick(DML), feed)),
            5 => drop(run(to, feed.pick(TRANSACTIONS), feed)),
            6..=8 => drop(run(to, feed.pick(self.calls), feed)),
            9 if !self.honest => self.tainted |= run(to, feed.pick(LIES), feed),
            10 | 11 => nine(to, from, feed),
            12 | 13 => self.tainted |= forged(to, from, feed, self.honest),
            _ => self.pull(which),
        }
    }

    /// A whole exchange, as the sidecar makes it.
    fn pull(&self, which: usize) {
        let (to, from) = (&self.sites[which], &self.sites[1 - which]);
        tell(|| format!("-- replica {which} pulls"));
        settle(to);
        settle(from);
        if self.tainted {
            // A table may be gone or may refuse the rows; the answer itself must still be served and read.
            let (parts, _) = from.answer(&to.vector());
            for (part, _) in &parts {
                expected("starling_merge", to.merge(part));
            }
        } else {
            to.pull(from);
        }
    }

    fn finish(&self) {
        self.sites.iter().for_each(settle);
        if !self.tainted {
            self.converge();
        }
        for site in &self.sites {
            assert_eq!(site.one::<String>("PRAGMA integrity_check"), "ok");
            let changes = site.changes();
            let cells: BTreeSet<_> = changes.iter().map(|c| (&c.0, &c.1, &c.2)).collect();
            assert_eq!(cells.len(), changes.len(), "a cell belongs to two log entries: {changes:?}");
            starling_crdt::Vector::decode(&site.vector()).expect("a vector can be read");
        }
    }

    fn converge(&self) {
        for which in [0, 1, 0, 1] {
            self.pull(which);
        }
        let [a, b] = &self.sites;
        for (name, _) in TABLES {
            let sql = format!("SELECT * FROM {name} ORDER BY 1, 2");
            assert_eq!(a.rows(&sql), b.rows(&sql), "{name} differs");
        }
        assert_eq!(a.changes(), b.changes(), "changes differ");
        assert_eq!(a.vector(), b.vector(), "vectors differ");
    }
}

/// A cell by `INSERT INTO crsql_changes`: made up, or one of the other replica with a few values exchanged.
fn nine(to: &Site, from: &Site, feed: &mut Feed<'_>) {
    let mut values = made_up(feed);
    if feed.below(2) == 1 {
        if let Some(there) = some_change(from, feed.byte()) {
            let change = feed.byte();
            for (i, v) in there.into_iter().enumerate() {
                if i == 8 || change & (1 << i) == 0 {
                    values[i] = v;
                }
            }
        }
    }
    // What is not a changeset cannot be compared by its dot: replicas that are told different things under one author's name
    // agree all the same, since the rule of the merge decides by the cell's content alone.
    let sql = "INSERT INTO crsql_changes VALUES(?, ?, ?, ?, ?, ?, ?, ?, ?)";
    tell(|| format!("{sql} {values:?}"));
    expected(sql, to.db.execute(sql, params_from_iter(values)));
}

fn made_up(feed: &mut Feed<'_>) -> Vec<Value> {
    let key = match feed.below(4) {
        0 => value(feed),
        1 => Value::Blob(vec![1, 0x0b, 1, b'a']),
        2 => Value::Blob(vec![1, 9, 1 + feed.byte() % 2]),
        _ => Value::Blob(vec![2, 9, 1, 0x0c, 1, feed.byte() % 2]),
    };
    let table = if feed.below(8) == 0 { value(feed) } else { Value::Text(feed.pick(&["t", "n", "k", "q"]).into()) };
    let cid = if feed.below(8) == 0 { value(feed) } else { Value::Text(feed.pick(&["a", "b", "c", "-1"]).into()) };
    let number = |feed: &mut Feed<'_>| match feed.below(16) {
        0 => value(feed),
        n => Value::Integer(n as i64 % 6),
    };
    let (val, version, db_version) = (value(feed), number(feed), number(feed));
    let site = if feed.below(4) == 0 { value(feed) } else { Value::Blob(vec![feed.byte() % 3; 16]) };
    let (cl, seq) = (number(feed), number(feed));
    vec![table, key, cid, val, version, db_version, site, cl, seq]
}

fn some_change(site: &Site, n: u8) -> Option<Vec<Value>> {
    let sql = "SELECT [table], pk, cid, val, col_version, db_version, site_id, cl, seq FROM crsql_changes";
    let mut stmt = site.db.prepare(sql).ok()?;
    let mut rows = stmt.query_map([], |r| (0..9).map(|i| r.get(i)).collect()).ok()?;
    rows.nth(usize::from(n % 8))?.ok()
}

/// A part of an answer out of its order, with a few bytes changed; whether it was taken although something was.
fn forged(to: &Site, from: &Site, feed: &mut Feed<'_>, honest: bool) -> bool {
    settle(from);
    let (parts, _) = from.answer(&to.vector());
    if parts.is_empty() {
        return false;
    }
    let mut part = parts[feed.below(parts.len())].0.clone();
    let edits = if honest { 0 } else { feed.below(4) };
    for _ in 0..edits {
        let at = (usize::from(feed.byte()) | usize::from(feed.byte()) << 8) % part.len();
        match feed.below(4) {
            0 => part[at] = feed.byte(),
            1 => part[at] ^= 1 << feed.below(8),
            2 => part.truncate(at.max(1)),
            _ => drop(part.splice(at..at, feed.run().iter().copied().take(64))),
        }
    }
    expected("starling_merge", to.merge(&part)) && edits > 0
}

/// The target.
pub fn sql(data: &[u8]) {
    let mut feed = Feed::new(data);
    let world = World::new(feed.below(4) != 0);
    run_all(world, &mut feed);
}

/// The target whose calls change the schema. Its replicas may have other tables in the end: none are compared.
pub fn schema(data: &[u8]) {
    let world = World { calls: SCHEMA, tainted: true, ..World::new(false) };
    run_all(world, &mut Feed::new(data));
}

fn run_all(mut world: World, feed: &mut Feed<'_>) {
    for _ in 0..60 {
        if feed.is_empty() {
            break;
        }
        world.step(feed);
    }
    world.finish();
}
