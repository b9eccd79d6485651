//! The same work with another extension that makes tables CRDTs: `CRSQLITE_SO` names a build of cr-sqlite, which has the same
//! functions and the same `crsql_changes`. What only one of the two has (changesets, portable capture) is not compared.

use super::local::{self, heartbeats, insert_all, open, singles, timed, Kind, Result, Row};
use crate::{median, Figure};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Rows whose changes are merged: the peer takes half a minute for all.
const MERGED: usize = 20_000;
/// Transactions of one row.
const SINGLES: usize = 3_000;

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Who {
    Plain,
    Starling,
    Peer,
}

type Timings = BTreeMap<(&'static str, Who), Vec<f64>>;

/// The build to compare with, if one is named and there.
pub fn named() -> Option<PathBuf> {
    std::env::var_os("CRSQLITE_SO").map(PathBuf::from).filter(|so| so.exists())
}

fn measure(dir: &Path, who: Who, so: &Path, rows: &[Row], out: &mut Timings) -> Result<()> {
    let kind = if who == Who::Plain { Kind::Plain } else { Kind::Crr };
    let mut local = BTreeMap::new();
    local::measure(dir, kind, so, rows, &mut local)?;
    for ((what, _), values) in local {
        out.entry((what, who)).or_default().extend(values);
    }
    let mut add = |what, value| out.entry((what, who)).or_default().push(value);
    let slice = rows.get(..MERGED).unwrap_or(rows);
    let source = open(dir, "source.db", kind, so)?;
    let seconds = timed(|| insert_all(&source, slice))?;
    add("insert_merged", seconds);
    if who != Who::Plain {
        let cells = slice.len() as f64 * 5.0;
        let scan = timed(|| Ok(source.query_row("SELECT count(val) FROM crsql_changes", [], |_| Ok(()))?))?;
        add("scan", scan / cells * 1e6);
        let target = open(dir, "target.db", kind, so)?;
        add("merge_cells", local::merge_changes(&source, &target, usize::MAX)?);
        let late = open(dir, "late.db", Kind::Plain, so)?;
        insert_all(&late, slice)?;
        local::load(&late, so)?;
        add("as_crr", timed(|| Ok(late.query_row("SELECT crsql_as_crr('m')", [], |_| Ok(()))?))?);
    }
    let one = open(dir, "single.db", kind, so)?;
    insert_all(&one, rows)?;
    local::checkpoint(&one)?;
    let [inserts, updates] = singles(&one, rows.get(..SINGLES).unwrap_or(rows))?;
    add("singles", inserts + updates);
    add("heartbeats", timed(|| heartbeats(&one, rows, 0, SINGLES))?);
    Ok(())
}

/// Runs it all `runs` times, the three by turns. Each step twice: what it costs with Starling, and with the peer, beside plain SQLite.
pub fn run(so: &Path, peer: &Path, runs: usize) -> Result<Vec<Figure>> {
    let dir = tempfile::tempdir()?;
    let rows = local::rows();
    let mut all = Timings::new();
    for run in 0..runs {
        eprintln!("beside {}: run {} of {runs}", peer.display(), run + 1);
        for (who, so) in [(Who::Plain, so), (Who::Starling, so), (Who::Peer, peer)] {
            measure(dir.path(), who, so, &rows, &mut all)?;
        }
    }
    let of = |what, who| median(all.get(&(what, who)).cloned().unwrap_or_default());
    let mut figures = Vec::new();
    let mut both = |names: [&'static str; 2], what, beside: Option<&'static str>| {
        let plain = beside.map_or(1.0, |beside| of(beside, Who::Plain));
        let unit = if beside.is_some() { "x plain" } else { "s/M cells" };
        for (name, who) in names.into_iter().zip([Who::Starling, Who::Peer]) {
            figures.push(Figure { name, value: of(what, who) / plain, unit, runs, goal: "" });
        }
    };
    both(["bulk_insert", "peer_bulk_insert"], "insert", Some("insert"));
    both(["bulk_update", "peer_bulk_update"], "update", Some("update"));
    both(["update_one_statement", "peer_update_one_statement"], "update_all", Some("update_all"));
    both(["bulk_delete", "peer_bulk_delete"], "delete", Some("delete"));
    both(["single_row_transactions", "peer_single_row_transactions"], "singles", Some("singles"));
    both(["single_row_heartbeats", "peer_single_row_heartbeats"], "heartbeats", Some("heartbeats"));
    both(["file_size", "peer_file_size"], "size", Some("size"));
    both(["merge_cell_by_cell", "peer_merge_cell_by_cell"], "merge_cells", Some("insert_merged"));
    both(["as_crr", "peer_as_crr"], "as_crr", Some("insert_merged"));
    both(["read_changes_seconds", "peer_read_changes_seconds"], "scan", None);
    Ok(figures)
}
