//! Transactions of one row: the kinds take turns every few dozen of them, so that what else the machine does meets all alike.

use super::local::{self, heartbeats, insert_all, open, singles, Kind, Result, Row};
use crate::{median, Figure};
use rusqlite::Connection;
use std::collections::BTreeMap;
use std::path::Path;
use std::time::Instant;

/// Rows that are inserted, and updated, in one run.
const ROWS: usize = 3_000;
/// So many before it is another kind's turn.
const SLICE: usize = 50;
/// As `ROWS`, where each commit waits for the disk.
const DURABLE: usize = 300;
const KINDS: [Kind; 3] = [Kind::Plain, Kind::Logged, Kind::Crr];

type Timings = BTreeMap<(&'static str, Kind), Vec<f64>>;

fn measure(dir: &Path, so: &Path, rows: &[Row], durable: bool, out: &mut Timings) -> Result<()> {
    let mut sites: Vec<(Kind, Connection, BTreeMap<&'static str, f64>)> = Vec::new();
    for kind in KINDS {
        let name = format!("single-{kind:?}.db");
        let db = open(dir, &name, kind, so)?;
        insert_all(&db, rows)?;
        local::checkpoint(&db)?;
        if durable {
            db.pragma_update(None, "synchronous", "full")?;
        }
        sites.push((kind, db, BTreeMap::new()));
    }
    let slices = rows.get(..if durable { DURABLE } else { ROWS }).unwrap_or(rows).chunks(SLICE);
    for slice in slices {
        sites.rotate_left(1);
        for (_, db, took) in &mut sites {
            let [inserts, updates] = singles(db, slice)?;
            if durable {
                *took.entry("durable").or_default() += inserts + updates;
                continue;
            }
            *took.entry("inserts").or_default() += inserts;
            *took.entry("updates").or_default() += updates;
            *took.entry("both").or_default() += inserts + updates;
        }
    }
    for turn in 0..if durable { 0 } else { ROWS / SLICE } {
        sites.rotate_left(1);
        for (_, db, took) in &mut sites {
            let start = Instant::now();
            heartbeats(db, rows, turn * SLICE, SLICE)?;
            *took.entry("heartbeats").or_default() += start.elapsed().as_secs_f64();
        }
    }
    for (kind, _, took) in sites {
        took.into_iter().for_each(|(name, seconds)| out.entry((name, kind)).or_default().push(seconds));
    }
    Ok(())
}

/// Runs it all `runs` times.
pub fn run(so: &Path, runs: usize) -> Result<Vec<Figure>> {
    let dir = tempfile::tempdir()?;
    let rows = local::rows();
    let mut all = Timings::new();
    for run in 0..runs {
        eprintln!("single rows: run {} of {runs}", run + 1);
        measure(dir.path(), so, &rows, false, &mut all)?;
        measure(dir.path(), so, &rows, true, &mut all)?;
    }
    // Each run's ratio by itself, as the disk is another one in every run.
    let ratio = |figure, name, kind, goal| {
        let of = |kind| all.get(&(name, kind)).cloned().unwrap_or_default();
        let ratios = of(kind).iter().zip(of(Kind::Plain)).map(|(a, plain)| a / plain).collect();
        Figure { name: figure, value: median(ratios), unit: "x plain", runs, goal }
    };
    Ok(vec![
        ratio("single_row_transactions", "both", Kind::Crr, "<= 1.4"),
        ratio("single_row_logged", "both", Kind::Logged, ""),
        ratio("single_row_inserts", "inserts", Kind::Crr, ""),
        ratio("single_row_updates", "updates", Kind::Crr, ""),
        ratio("single_row_heartbeats", "heartbeats", Kind::Crr, ""),
        ratio("heartbeats_logged", "heartbeats", Kind::Logged, ""),
        ratio("single_row_durable", "durable", Kind::Crr, ""),
        ratio("single_row_durable_logged", "durable", Kind::Logged, ""),
    ])
}
