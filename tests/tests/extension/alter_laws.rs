//! I1 and I3 while the schema changes: every replica takes the same steps, each at its own time, between random writes and
//! exchanges. Once all have taken them all, they are equal. STARLING_LAWS_SEED replays one seed.

use starling_tests::ledger;
use starling_tests::random::{each_seed, Random};
use starling_tests::site::Site;

const T: (&str, &str) =
    ("t", "CREATE TABLE t(id TEXT NOT NULL PRIMARY KEY, a, b TEXT DEFAULT 'b', c INTEGER NOT NULL DEFAULT 3)");

/// A step, and whether it can be taken outside of a window too.
const STEPS: &[(&str, bool)] = &[
    ("ALTER TABLE t ADD COLUMN d TEXT DEFAULT 'zz'", true),
    ("ALTER TABLE t RENAME COLUMN b TO bb", true),
    ("ALTER TABLE t ADD COLUMN e INTEGER NOT NULL DEFAULT 7; ALTER TABLE t ADD COLUMN f", true),
    ("ALTER TABLE t DROP COLUMN a", false),
    (
        "CREATE TABLE n(f, bb TEXT DEFAULT 'b', g INTEGER, id TEXT NOT NULL PRIMARY KEY, e INTEGER NOT NULL DEFAULT 7, \
         c INTEGER NOT NULL DEFAULT 3, d TEXT DEFAULT 'zz') WITHOUT ROWID; \
         INSERT INTO n(f, bb, g, id, e, c, d) SELECT f, bb, length(d), id, e, c, d FROM t; DROP TABLE t; \
         ALTER TABLE n RENAME TO t",
        false,
    ),
    ("ALTER TABLE t DROP COLUMN c; ALTER TABLE t ADD COLUMN i TEXT", false),
    ("ALTER TABLE t RENAME TO u; ALTER TABLE u ADD COLUMN h DEFAULT 1.5; ALTER TABLE u RENAME TO t", true),
];

struct Replica {
    site: Site,
    taken: usize,
}

impl Replica {
    /// `parts`: changesets that may arrive in the midst of it.
    fn step(&mut self, r: &mut Random, parts: &[Vec<u8>]) {
        let Some((sql, anywhere)) = STEPS.get(self.taken) else { return };
        self.taken += 1;
        println!("  step {}: {sql}", self.taken);
        if *anywhere && r.chance(40) {
            self.site.exec(sql);
            self.site.one::<i64>("SELECT starling_resume()");
            return;
        }
        self.site.one::<String>("SELECT crsql_begin_alter('t')");
        if r.chance(30) {
            self.write(r);
            self.look_or_merge(r, parts);
        }
        self.site.exec(sql);
        if r.chance(50) {
            self.write(r);
            self.look_or_merge(r, parts);
        }
        self.site.one::<String>("SELECT crsql_commit_alter('t')");
    }

    /// A read of the changes gives what was written a version before the window ends; a merge writes rows in the window too.
    fn look_or_merge(&self, r: &mut Random, parts: &[Vec<u8>]) {
        match r.below(4) {
            0 => println!("  a look: {} changes", self.site.changes().len()),
            1 => {
                println!("  a merge of {}", parts.len());
                for part in parts {
                    self.site.merge(part).expect("it merges");
                }
            }
            _ => {}
        }
    }

    fn answer_to(&self, other: &Self) -> Vec<Vec<u8>> {
        self.site.answer(&other.site.vector()).0.into_iter().map(|(part, _)| part).collect()
    }

    fn columns(&self) -> Vec<String> {
        let names = self.site.rows("SELECT name FROM pragma_table_info('t') WHERE pk = 0");
        names.into_iter().map(|n| n.trim_matches('\'').to_string()).collect()
    }

    fn write(&self, r: &mut Random) {
        let columns = self.columns();
        let (one, other) = (r.pick(&columns).clone(), r.pick(&columns).clone());
        let key = *r.pick(&["'a'", "'m'", "'bb'", "'zzz'"]);
        let (small, word) = (r.below(4), *r.pick(&["'x'", "'zz'", "'b'", "1", "2.5"]));
        let sql = match r.below(8) {
            0..=2 => format!("INSERT OR IGNORE INTO t(id, {one}) VALUES({key}, {small})"),
            3 | 4 => format!("UPDATE t SET {one} = {word} WHERE id = {key}"),
            5 => format!("UPDATE t SET {one} = {small}, {other} = {word} WHERE id <> {key}"),
            6 => format!("DELETE FROM t WHERE id = {key}"),
            _ => format!("REPLACE INTO t(id, {one}) VALUES({key}, {word})"),
        };
        println!("  {sql}");
        // A datatype that does not fit is part of the history.
        let _ = self.site.db.execute_batch(&sql);
    }
}

/// I1: each cell once, in the order of their seqs; and every cell of every row that does not hold its default.
fn check_cells(replica: &Replica) {
    let changes = replica.site.changes();
    let mut cells: Vec<_> = changes.iter().map(|c| (&c.1, &c.2)).collect();
    cells.sort();
    cells.dedup();
    assert_eq!(cells.len(), changes.len(), "a cell belongs to two log entries: {changes:?}");
    let order = "SELECT db_version, seq FROM crsql_changes";
    assert_eq!(replica.site.rows(order), replica.site.rows(&format!("{order} ORDER BY db_version, seq")));
    for described in
        replica.site.rows("SELECT name || ' ' || coalesce(dflt_value, 'NULL') FROM pragma_table_info('t') WHERE pk = 0")
    {
        let described = described.strip_prefix('\'').and_then(|d| d.strip_suffix('\'')).expect("a text");
        let (name, default) = described.split_once(' ').expect("a name and a default");
        let unlogged = replica.site.rows(&format!(
            "SELECT id, {name} FROM t WHERE {name} IS NOT {default} AND NOT EXISTS (SELECT 1 FROM crsql_changes AS c \
             WHERE c.pk = crsql_pack_columns(t.id) AND c.cid = '{name}')"
        ));
        assert_eq!(unlogged, [] as [&str; 0], "cells of {name} without a log entry");
    }
}

fn history(seed: u64) {
    let mut r = Random::new(seed);
    let mut replicas: Vec<Replica> =
        (0..2 + r.below(2)).map(|_| Replica { site: Site::memory().with(&[T]), taken: 0 }).collect();
    for _ in 0..10 + r.below(40) {
        let (i, j) = (r.below(replicas.len() as u64) as usize, r.below(replicas.len() as u64) as usize);
        println!("{i} <- {j}");
        match r.below(8) {
            0 | 1 => {
                let parts = replicas[j].answer_to(&replicas[i]);
                replicas[i].step(&mut r, &parts);
            }
            2 | 3 if i != j => replicas[i].site.pull(&replicas[j].site),
            4 => {
                replicas[i].site.one::<i64>("SELECT starling_prune(20)");
            }
            _ => replicas[i].write(&mut r),
        }
        check_cells(&replicas[i]);
    }
    for replica in &mut replicas {
        while replica.taken < STEPS.len() {
            replica.step(&mut r, &[]);
            check_cells(replica);
        }
    }
    for _ in 0..3 {
        for i in 0..replicas.len() {
            for j in (0..replicas.len()).filter(|j| *j != i) {
                replicas[i].site.pull(&replicas[j].site);
            }
        }
    }
    let dump = |site: &Site| site.rows("SELECT id, bb, d, e, f, g, h, i FROM t ORDER BY id");
    let (first, rest) = replicas.split_first().expect("there are two at least");
    for other in rest {
        assert_eq!(dump(&first.site), dump(&other.site), "tables differ");
        assert_eq!(first.site.changes(), other.site.changes(), "changes differ");
        assert_eq!(first.site.vector(), other.site.vector(), "vectors differ");
    }
    replicas.iter().for_each(|r| ledger::check(&r.site));
}

#[test]
fn replicas_that_alter_at_different_times_end_equal() {
    each_seed("LAWS", 40, history);
}
