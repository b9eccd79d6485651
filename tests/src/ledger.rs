//! I1 and I2, read from the log itself: once everything dead is swept, each cell, tombstone and `'-1'` row that `crsql_changes`
//! shows is spoken for by exactly one entry, and nothing else is.

use crate::records;
use crate::site::Site;
use starling_crdt::log_chunk::{ChunkReader, Kind};
use std::collections::{BTreeMap, BTreeSet};

/// What the entries of a row say together.
#[derive(Default, PartialEq, Eq, Debug)]
struct Told {
    bases: usize,
    /// Those that stand for a `'-1'` row too.
    rebases: usize,
    /// Tombstones and mere `'-1'` rows.
    lives: usize,
    columns: Vec<u32>,
}

/// A table id and a row's internal key.
type Row = (u32, Vec<u8>);

/// Checks both, and that a sweep takes nothing that lives. Leaves the database as it was.
pub fn check(site: &Site) {
    // The newest record is never swept, so one more is made. What waits may be merged by that.
    site.exec("BEGIN IMMEDIATE; CREATE TABLE ledger_mark(id INTEGER PRIMARY KEY); SELECT crsql_as_crr('ledger_mark')");
    let before = site.changes();
    site.exec("INSERT INTO ledger_mark VALUES(1)");
    site.one::<i64>("SELECT count(*) FROM crsql_changes");
    // The first sweep may begin in the middle.
    while site.one::<i64>("SELECT starling_prune(1000000) + starling_prune(1000000)") > 0 {}
    speaks_for_what_is_shown(site);
    let mut after = site.changes();
    after.retain(|c| c.0 != "ledger_mark");
    assert_eq!(after, before, "a sweep took what lives");
    site.exec("ROLLBACK");
}

fn speaks_for_what_is_shown(site: &Site) {
    let log = told(site);
    let mut shown: BTreeMap<Row, (usize, Vec<u32>)> = BTreeMap::new();
    let sql = "SELECT t.id, c.pk, c.cid, coalesce(k.id, 0) FROM crsql_changes AS c JOIN crsql_table AS t ON t.name = c.[table] \
               AND t.active = 1 LEFT JOIN crsql_column AS k ON k.table_id = t.id AND k.name = c.cid AND k.died IS NULL";
    let mut stmt = site.db.prepare(sql).expect("it prepares");
    let mut rows = stmt.query([]).expect("it runs");
    while let Some(r) = rows.next().unwrap_or_else(|e| panic!("crsql_changes: {e}")) {
        let pk: Vec<u8> = r.get_unwrap(1);
        let row = shown.entry((r.get_unwrap(0), internal(&pk))).or_default();
        if r.get_unwrap::<_, String>(2) == "-1" {
            row.0 += 1;
        } else {
            row.1.push(r.get_unwrap(3));
        }
    }
    let living = living(site);
    for (row, told) in &log {
        let (lives, cells) = shown.remove(row).unwrap_or_default();
        let here = living.get(&row.0).map_or(&[][..], Vec::as_slice);
        let mut columns = told.columns.clone();
        // A row that was replaced after a key update made it keeps that entry for its '-1' row, besides its new base.
        assert!(told.bases <= 1 && told.rebases <= 1, "{row:?} has {told:?}");
        assert_eq!(columns.iter().collect::<BTreeSet<_>>().len(), columns.len(), "{row:?}: a cell has two entries");
        let key_only = here.is_empty();
        if told.bases + told.rebases > 0 && !key_only {
            // The base speaks for what no mask names, and for nothing of columns that came later.
            columns.extend(cells.iter().filter(|c| !told.columns.contains(c)));
        }
        columns.sort_unstable();
        let mut cells = cells;
        cells.sort_unstable();
        assert_eq!(columns, cells, "{row:?}: entries and cells");
        let own = told.lives + told.rebases;
        // Of a row without cells the base speaks for the '-1' row, where no entry of its own does.
        let told_lives = if cells.is_empty() && own == 0 { told.bases } else { own };
        assert_eq!(told_lives, lives, "{row:?}: entries and '-1' rows: {told:?}");
    }
    assert!(shown.is_empty(), "cells that no entry names: {shown:?}");
}

/// The columns of each table, without the key's.
fn living(site: &Site) -> BTreeMap<u32, Vec<u32>> {
    let mut out: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
    let mut stmt = site
        .db
        .prepare("SELECT table_id, id FROM crsql_column WHERE is_key = 0 AND died IS NULL")
        .expect("it prepares");
    let rows = stmt.query_map([], |r| Ok((r.get(0)?, r.get(1)?))).expect("it runs");
    for row in rows {
        let (table, column) = row.expect("a row");
        out.entry(table).or_default().push(column);
    }
    out
}

fn told(site: &Site) -> BTreeMap<Row, Told> {
    let mut out: BTreeMap<Row, Told> = BTreeMap::new();
    let active: BTreeSet<u32> = site
        .rows("SELECT id FROM crsql_table WHERE active = 1")
        .iter()
        .map(|id| id.parse().expect("a number"))
        .collect();
    for chunk in records::chunks(&site.db) {
        let mut reader = ChunkReader::new(&chunk).expect("a chunk");
        while let Some(entry) = reader.next_entry().expect("an entry") {
            if !active.contains(&entry.table.id) {
                continue;
            }
            let row = out.entry((entry.table.id, reader.key().to_vec())).or_default();
            match entry.kind {
                Kind::Base => row.bases += 1,
                Kind::Rebase => row.rebases += 1,
                Kind::Mask => row.columns.extend(reader.columns()),
                Kind::Tombstone | Kind::Sentinel => row.lives += 1,
            }
        }
    }
    out
}

fn internal(pk: &[u8]) -> Vec<u8> {
    let values = starling_crdt::key::unpack(pk).expect("a packed key");
    let mut out = Vec::new();
    starling_crdt::key::encode(values, &mut out);
    out
}

/// Exchanges changes both ways until nothing is left to be exchanged; both must hold the same rows of a table and the same
/// changes then, and keep I1 and I2.
pub fn end_equal(a: &Site, b: &Site, table: &str) {
    for _ in 0..3 {
        a.pull(b);
        b.pull(a);
    }
    let rows = |site: &Site| site.rows(&format!("SELECT * FROM {table} ORDER BY 1"));
    assert_eq!(rows(a), rows(b));
    assert_eq!(a.changes(), b.changes());
    check(a);
    check(b);
}
