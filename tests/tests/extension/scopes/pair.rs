//! Two real replicas on which words are run side by side.

use super::row::{Row, Sql, Value};
use super::word::{value, End, Exchange, Op, Skeleton, Word, World};
use starling_tests::ledger;
use starling_tests::site::Site;
use std::collections::BTreeMap;

/// The kind of table that words are about.
pub struct Table {
    /// Its SQL.
    pub sql: &'static str,
    /// Whether it has the columns a and b.
    pub columns: bool,
}

/// Two replicas, and how many words have left their keys there.
pub struct Pair {
    table: &'static Table,
    sites: [Site; 2],
    pub used: usize,
}

/// A word under way.
struct Run<'w> {
    word: &'w Word,
    world: World,
    keys: [String; 2],
}

/// What is held of a key, line by line.
type Held = BTreeMap<String, Vec<String>>;

/// The word that went wrong, and how.
type Outcome = Result<(), (Word, String)>;

impl Pair {
    pub fn new(table: &'static Table) -> Self {
        let site = || Site::memory().with(&[("t", table.sql)]);
        Self { table, sites: [site(), site()], used: 0 }
    }

    /// Runs words of one skeleton from beginning to end.
    pub fn run(&mut self, skeleton: &Skeleton, words: &[Word]) -> Outcome {
        let since = [0, 1].map(|i| self.sites[i].one::<i64>("SELECT crsql_db_version()"));
        let first = self.used;
        self.used += words.len();
        let key = |i: usize, which: char| format!("{:07}{which}", first + i);
        let runs = words.iter().enumerate();
        let mut runs: Vec<Run<'_>> =
            runs.map(|(i, word)| Run { word, world: World::default(), keys: [key(i, 'x'), key(i, 'y')] }).collect();
        let mut late: [Vec<Vec<u8>>; 2] = Default::default();
        for (at, step) in skeleton.iter().enumerate() {
            match step {
                None => self.write(skeleton, at, &mut runs, &mut late)?,
                Some(exchange) => {
                    self.exchange(*exchange, &since, &late);
                    runs.iter_mut().for_each(|run| run.world.exchange(*exchange));
                }
            }
            if step.is_some() || at + 1 == skeleton.len() {
                for (i, site) in self.sites.iter().enumerate() {
                    compare(&runs, i, &self.held(site, &runs[0].keys[0], since[i]))?;
                }
            }
        }
        let copies = [0, 1].map(|i| copy(&mut self.sites[i]));
        meet(&self.sites[0], &self.sites[1]);
        meet(&copies[1], &copies[0]);
        for run in &mut runs {
            run.world.exchange(Exchange::Pull(0));
            run.world.exchange(Exchange::Pull(1));
        }
        for (i, site) in self.sites.iter().chain(&copies).enumerate() {
            compare(&runs, i % 2, &self.held(site, &runs[0].keys[0], since[i % 2]))?;
        }
        Ok(())
    }

    /// When all words are done: whether the log speaks for what there is and for nothing else.
    pub fn finish(self) {
        self.sites.iter().for_each(ledger::check);
    }

    fn write(&self, skeleton: &Skeleton, at: usize, runs: &mut [Run<'_>], late: &mut [Vec<Vec<u8>>; 2]) -> Outcome {
        for run in runs {
            let Some((i, op)) = run.word.0[at] else { continue };
            let (site, value) = (&self.sites[i], value(i, at));
            let wrote = run.world.first[i].is_some();
            let expected = run.world.write(i, op, self.table.columns, &value);
            let went = transaction(site, op, self.table.columns, &run.keys, &value);
            if went != expected {
                return Err((run.word.clone(), format!("the statements went {went:?} and not {expected:?}")));
            }
            if !wrote && run.world.first[i].is_some() && skeleton.contains(&Some(Exchange::Late(1 - i))) {
                let sql = "SELECT changeset FROM starling_changesets(NULL, crsql_db_version() - 1, 1)";
                late[i].push(site.one(sql));
            }
        }
        Ok(())
    }

    fn exchange(&self, exchange: Exchange, since: &[i64; 2], late: &[Vec<Vec<u8>>; 2]) {
        match exchange {
            Exchange::Pull(to) => self.sites[to].pull(&self.sites[1 - to]),
            Exchange::Nine(to) => {
                let since = since[1 - to];
                self.sites[to].pull_nine(&self.sites[1 - to], |rows| {
                    rows.retain(|row| matches!(row[5], rusqlite::types::Value::Integer(v) if v > since));
                    // One of the two gets cells before their rows.
                    if to == 0 {
                        rows.reverse();
                    }
                });
            }
            Exchange::Late(to) => {
                self.sites[to].exec("BEGIN IMMEDIATE");
                for part in &late[1 - to] {
                    self.sites[to].merge(part).unwrap_or_else(|e| panic!("starling_merge: {e}"));
                }
                self.sites[to].exec("COMMIT");
            }
        }
    }

    /// What a replica holds of the keys from this one on.
    fn held(&self, site: &Site, first: &str, since: i64) -> Held {
        let mut out = Held::new();
        let columns = if self.table.columns { ", typeof(a), quote(a), typeof(b), quote(b)" } else { "" };
        for row in site.rows(&format!("SELECT id{columns} FROM t WHERE id >= '{first}'")) {
            let key = row.trim_start_matches('\'')[..8].to_string();
            out.entry(key).or_default().push(row[10..].to_string());
        }
        let sql = "SELECT pk, cid, quote(val), col_version, cl FROM crsql_changes WHERE db_version > ?1";
        let mut stmt = site.db.prepare_cached(sql).expect("it prepares");
        let changes = stmt.query_map([since], |r| {
            let pk: Vec<u8> = r.get(0)?;
            let line = [r.get::<_, String>(1)?, r.get(2)?, r.get::<_, i64>(3)?.to_string()].join(" ");
            Ok((String::from_utf8_lossy(&pk[pk.len() - 8..]).into_owned(), format!("{line} {}", r.get::<_, i64>(4)?)))
        });
        for change in changes.expect("it runs") {
            let (key, line) = change.unwrap_or_else(|e| panic!("crsql_changes: {e}"));
            out.entry(key).or_default().push(line);
        }
        out.values_mut().for_each(|lines| lines.sort());
        out
    }
}

/// What a row's lines must be.
fn lines(row: &Row) -> Vec<String> {
    let quote = |value: &Value| match value {
        Value::Text(t) => format!("'{t}'"),
        Value::Integer(i) => i.to_string(),
    };
    let mut out = Vec::new();
    if row.alive() {
        let cells = row.cells.values().map(|(_, value)| {
            let kind = if matches!(value, Value::Text(_)) { "text" } else { "integer" };
            format!("|'{kind}'|'{}'", quote(value))
        });
        out.push(cells.collect());
    }
    if row.cl > 1 || row.moved || row.cl == 1 && row.cells.is_empty() {
        out.push(format!("-1 NULL {} {}", row.cl, row.cl));
    }
    let cells = row.cells.iter();
    out.extend(cells.map(|(name, (version, value))| format!("{name} {} {version} {}", quote(value), row.cl)));
    out.sort();
    out
}

fn compare(runs: &[Run<'_>], i: usize, held: &Held) -> Outcome {
    for run in runs {
        for (row, key) in run.world.sites[i].iter().zip(&run.keys) {
            let (expected, held) = (lines(row), held.get(key).map_or(&[][..], Vec::as_slice));
            if expected != held {
                let what = format!("replica {i} holds of {key} {held:?} and not {expected:?}");
                return Err((run.word.clone(), what));
            }
        }
    }
    Ok(())
}

fn transaction(site: &Site, op: &Op, columns: bool, keys: &[String; 2], a: &Value) -> Vec<bool> {
    let single = op.sql.len() == 1;
    if !single {
        site.exec("BEGIN");
    }
    let mut went = Vec::new();
    for (i, sql) in op.sql.iter().enumerate() {
        if i == 1 && op.end == End::Savepoint {
            site.exec("SAVEPOINT s");
        }
        let text = text(*sql, columns);
        let mut stmt = site.db.prepare_cached(text).unwrap_or_else(|e| panic!("{text}: {e}"));
        let bind = |stmt: &mut rusqlite::Statement<'_>, name: &str, value: &dyn rusqlite::ToSql| {
            if let Some(n) = stmt.parameter_index(name).expect("a name") {
                stmt.raw_bind_parameter(n, value).expect("it binds");
            }
        };
        bind(&mut stmt, ":x", &keys[0]);
        bind(&mut stmt, ":y", &keys[1]);
        for (name, value) in [(":a", a), (":u", &a.other())] {
            match value {
                Value::Text(t) => bind(&mut stmt, name, t),
                Value::Integer(i) => bind(&mut stmt, name, i),
            }
        }
        went.push(stmt.raw_execute().is_ok());
    }
    match op.end {
        End::Savepoint => site.exec("ROLLBACK TO s; COMMIT"),
        End::Rollback => site.exec("ROLLBACK"),
        End::Commit if single => {}
        End::Commit => site.exec("COMMIT"),
    }
    went
}

fn text(sql: Sql, columns: bool) -> &'static str {
    match (sql, columns) {
        (Sql::Insert, true) => "INSERT INTO t(id, a, b) VALUES(:x, :a, 0)",
        (Sql::InsertOrIgnore, true) => "INSERT OR IGNORE INTO t(id, a, b) VALUES(:x, :a, 0)",
        (Sql::Replace, true) => "INSERT OR REPLACE INTO t(id, a, b) VALUES(:x, :a, 0)",
        (Sql::Insert, false) => "INSERT INTO t(id) VALUES(:x)",
        (Sql::InsertOrIgnore, false) => "INSERT OR IGNORE INTO t(id) VALUES(:x)",
        (Sql::Replace, false) => "INSERT OR REPLACE INTO t(id) VALUES(:x)",
        (Sql::SetA, true) => "UPDATE t SET a = :u WHERE id = :x",
        (Sql::SetB, true) => "UPDATE t SET b = b + 1 WHERE id = :x",
        // A write that changes nothing.
        (Sql::SetA | Sql::SetB, false) => "UPDATE t SET id = id WHERE id = :x",
        (Sql::Delete, _) => "DELETE FROM t WHERE id = :x",
        (Sql::Move, _) => "UPDATE t SET id = :y WHERE id = :x",
        (Sql::Back, _) => "UPDATE t SET id = :x WHERE id = :y",
        (Sql::MoveOver, _) => "UPDATE OR REPLACE t SET id = :y WHERE id = :x",
    }
}

/// The same file, opened by somebody else.
fn copy(site: &mut Site) -> Site {
    let image = site.db.serialize("main").expect("it can be copied");
    let mut copy = Site::memory();
    copy.db.deserialize_read_exact("main", &image[..], image.len(), false).expect("it can be read");
    copy
}

/// Both take everything, the first one first.
fn meet(a: &Site, b: &Site) {
    a.pull(b);
    b.pull(a);
    assert_eq!(a.vector(), b.vector(), "vectors differ");
}
