//! Merging cell by cell over random histories. What a connection knows from the cell before (the row's clock, its key, that the
//! key is free) must not show: the same statements are run on sites that know less, because a user's trigger stands on each
//! table, or because the clocks are put into their blocks before each cell. All must say the same.
//! STARLING_NINE_SEED replays one seed, STARLING_NINE_RUNS sets how many are run.

use starling_tests::random::{each_seed, Random};
use starling_tests::site::Site;

const TABLES: &[(&str, &str)] = &[
    ("t", "CREATE TABLE t(id TEXT NOT NULL PRIMARY KEY, a, b INTEGER CHECK(b <> 13), c TEXT NOT NULL DEFAULT 'd')"),
    // A row waits here until its `a` has come.
    ("n", "CREATE TABLE n(id INTEGER PRIMARY KEY, a TEXT NOT NULL, b CHECK(b <> 13))"),
    ("k", "CREATE TABLE k(x INTEGER NOT NULL, y REAL NOT NULL, a, b, c, d, e, PRIMARY KEY(x, y)) WITHOUT ROWID"),
    ("o", "CREATE TABLE o(id TEXT NOT NULL PRIMARY KEY ON CONFLICT REPLACE, a, b)"),
];

/// Everything that can be seen of a site, but for its own id.
const CHANGES: &str = "SELECT [table], hex(pk), cid, quote(val), col_version, db_version, cl, seq, \
                       iif(site_id = crsql_site_id(), 'me', hex(site_id)) FROM crsql_changes";

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Knows {
    /// What it likes.
    All,
    /// A user's trigger may do anything to a row, so each row is looked at.
    Triggers,
    /// No clock is at hand.
    Flushed,
}

struct Twin {
    site: Site,
    knows: Knows,
}

impl Twin {
    fn new(knows: Knows) -> Self {
        let site = Site::memory().with(TABLES);
        if knows == Knows::Triggers {
            for (name, _) in TABLES {
                site.exec(&format!("CREATE TRIGGER u_{name} AFTER UPDATE ON {name} WHEN 0 BEGIN SELECT 1; END"));
            }
        }
        Self { site, knows }
    }

    fn run(&self, step: &Step) -> String {
        if self.knows == Knows::Flushed && step.flushes() {
            self.site.one::<i64>("SELECT count(*) FROM crsql_changes");
        }
        let done = match step {
            Step::Sql(sql) => self.site.db.execute_batch(sql),
            Step::Part(part) => self.site.merge(part).map(drop),
        };
        let outcome = done.err().map_or(String::new(), |e| e.to_string());
        format!("{outcome}{}", self.site.one::<i64>("SELECT crsql_rows_impacted()"))
    }

    fn seen(&self) -> Vec<String> {
        let tables = TABLES.iter().map(|(name, _)| format!("SELECT * FROM {name} ORDER BY 1, 2"));
        tables.chain([CHANGES.to_string()]).flat_map(|sql| self.site.rows(&sql)).collect()
    }
}

#[derive(Debug)]
enum Step {
    Sql(String),
    Part(Vec<u8>),
}

impl Step {
    /// It is a cell, and not one that is refused before anything else: local writes before it are flushed by it.
    fn flushes(&self) -> bool {
        matches!(self, Self::Sql(sql) if sql.starts_with("INSERT INTO crsql_changes") && !sql.contains(NO_KEY))
    }
}

/// No packed key.
const NO_KEY: &str = "x'0109'";

/// The row that the cells before were of.
#[derive(Clone, Default)]
struct Row {
    table: &'static str,
    pk: String,
    matches: String,
}

impl Row {
    fn pick(r: &mut Random) -> Self {
        let n = r.below(3);
        let (table, pk, matches) = match r.below(4) {
            0 => ("t", format!("'{n}'"), format!("id = '{n}'")),
            1 => ("n", n.to_string(), format!("id = {n}")),
            2 => ("k", format!("{n}, 1.5"), format!("x = {n}")),
            _ => ("o", format!("'{n}'"), format!("id = '{n}'")),
        };
        // Now and then in another form of the same key.
        let pk = if table == "n" && r.chance(20) { format!("'{pk}'") } else { pk };
        Self { table, pk, matches }
    }

    fn columns(&self) -> &'static [&'static str] {
        match self.table {
            "t" => &["a", "b", "c", "z"],
            "k" => &["a", "b", "c", "d", "e"],
            _ => &["a", "b"],
        }
    }
}

fn value(r: &mut Random) -> &'static str {
    ["NULL", "1", "2", "13", "1.5", "'x'", "'7'", "x'78'"][r.below(8) as usize]
}

fn cell(r: &mut Random, row: &Row, clock: &mut u64) -> String {
    let tombstone = r.chance(8);
    let cl = if tombstone { 2 + 2 * r.below(2) } else { *r.pick(&[1, 1, 1, 1, 1, 1, 1, 3, 5]) };
    let cid = if tombstone || r.chance(8) { "-1" } else { *r.pick(row.columns()) };
    // In the order of their seqs, as they mostly come, or not.
    *clock = if r.chance(70) { *clock + 1 } else { r.below(6) };
    let pk = if r.chance(2) { NO_KEY.to_string() } else { format!("crsql_pack_columns({})", row.pk) };
    let name = if r.chance(5) { row.table.to_uppercase() } else { row.table.to_string() };
    format!(
        "INSERT INTO crsql_changes VALUES('{name}', {pk}, '{cid}', {}, {}, {}, {}, {cl}, {clock})",
        match (cid, cl) {
            ("-1", _) => "NULL",
            // A row that cannot begin anew because a constraint refuses it is another matter.
            (_, 3..) => "1",
            _ => value(r),
        },
        *r.pick(&[1, 1, 2, 2, 3, 4, 0]),
        *r.pick(&[1, 1, 1, 2, 9, 40]),
        *r.pick(&["x'aa'", "x'aa'", "x'bb'", "NULL"]),
    )
}

fn local(r: &mut Random, row: &Row) -> String {
    let Row { table, pk, matches } = row;
    let (key, column) = (if *table == "k" { "x, y" } else { "id" }, row.columns()[0]);
    match r.below(6) {
        0 | 1 => format!("UPDATE {table} SET {column} = {} WHERE {matches}", value(r)),
        2 => format!("DELETE FROM {table} WHERE {matches}"),
        3 => format!("INSERT OR IGNORE INTO {table}({key}, {column}) VALUES({pk}, {})", value(r)),
        4 => format!("REPLACE INTO {table}({key}, {column}) VALUES({pk}, 'r')"),
        _ => format!("UPDATE OR IGNORE {table} SET {} = 8 WHERE {matches}", if *table == "k" { "x" } else { "id" }),
    }
}

fn step(r: &mut Random, row: &Row, clock: &mut u64, parts: &[Vec<u8>]) -> Step {
    Step::Sql(match r.below(100) {
        0..=59 => cell(r, row, clock),
        60..=69 => local(r, row),
        70..=74 => "SAVEPOINT s".to_string(),
        75..=79 => "ROLLBACK TO s".to_string(),
        80..=82 => "RELEASE s".to_string(),
        83..=84 => format!("SELECT crsql_next_db_version({})", r.below(50)),
        85..=86 => return Step::Part(r.pick(parts).clone()),
        87 => {
            "SELECT crsql_begin_alter('t'); ALTER TABLE t ADD COLUMN z DEFAULT 4; SELECT crsql_commit_alter('t')".into()
        }
        88 => "ALTER TABLE n ADD COLUMN y".into(),
        89 => "SELECT starling_resume()".into(),
        90..=91 => "ROLLBACK; BEGIN".to_string(),
        _ => "COMMIT; BEGIN".to_string(),
    })
}

/// What another site has done to the same rows.
fn elsewhere(r: &mut Random) -> Vec<Vec<u8>> {
    let site = Site::memory().with(TABLES);
    for _ in 0..12 {
        let row = Row::pick(r);
        let sql = local(r, &row);
        let _ = site.db.execute_batch(&sql);
    }
    site.exec("INSERT INTO t(id) VALUES('far')");
    site.answer(&Site::memory().with(TABLES).vector()).0.into_iter().map(|(part, _)| part).collect()
}

fn history(seed: u64) {
    let r = &mut Random::new(seed);
    let twins = [Knows::All, Knows::Triggers, Knows::Flushed].map(Twin::new);
    let parts = elsewhere(r);
    let (mut row, mut clock) = (Row::pick(r), 0);
    twins.iter().for_each(|twin| twin.site.exec("BEGIN"));
    for _ in 0..60 {
        if r.chance(30) {
            row = Row::pick(r);
        }
        let step = step(r, &row, &mut clock, &parts);
        let outcomes = twins.each_ref().map(|twin| twin.run(&step));
        println!("  {step:.250?} {:?}", outcomes[0]);
        if twins.iter().any(|twin| twin.site.db.is_autocommit()) {
            // What went wrong ended the transaction, or there was nothing to release.
            twins.iter().filter(|twin| twin.site.db.is_autocommit()).for_each(|twin| twin.site.exec("BEGIN"));
        }
        assert!(outcomes.iter().all(|o| *o == outcomes[0]), "{step:?}: {outcomes:#?}");
        if matches!(&step, Step::Sql(sql) if sql.starts_with("COMMIT")) || r.chance(5) {
            compare(&twins);
        }
    }
    twins.iter().for_each(|twin| twin.site.exec("COMMIT"));
    compare(&twins);
    // The log says it all: whoever gets it has the same.
    let other = Site::memory().with(TABLES);
    other.exec("SELECT crsql_begin_alter('t'); ALTER TABLE t ADD COLUMN z DEFAULT 4; SELECT crsql_commit_alter('t')");
    other.exec("ALTER TABLE n ADD COLUMN y; SELECT starling_resume()");
    if twins[0].site.rows("SELECT count(*) FROM pragma_table_info('t')") == ["5"] {
        other.pull(&twins[0].site);
        let rows = |site: &Site| site.rows("SELECT id, a, b, c FROM t ORDER BY id");
        assert_eq!(rows(&other), rows(&twins[0].site));
    }
}

fn compare(twins: &[Twin; 3]) {
    let seen = twins.each_ref().map(Twin::seen);
    for (twin, other) in twins.iter().zip(&seen) {
        assert_eq!(*other, seen[0], "{:?}", twin.knows);
    }
}

#[test]
fn what_is_known_from_the_cell_before_does_not_show() {
    each_seed("NINE", 150, history);
}
