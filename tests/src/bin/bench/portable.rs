//! The other ways of capture beside the same table plain and native: portable (a writer without the extension, and the drain by
//! another connection that has it) and exact.

use crate::local::{self, Kind, Result, Row};
use crate::{median, Figure};
use rusqlite::Connection;
use std::collections::BTreeMap;
use std::path::Path;

/// Timings in seconds, by figure and way of capture.
type Timings = BTreeMap<(&'static str, &'static str), Vec<f64>>;

/// A table with a portable capture: a plain writer and a connection that has the extension.
fn open_portable(dir: &Path, name: &str, so: &Path) -> Result<(Connection, Connection)> {
    let app = local::open(dir, name, Kind::Plain, so)?;
    let loaded = Connection::open(dir.join(name))?;
    loaded.pragma_update(None, "synchronous", "normal")?;
    local::load(&loaded, so)?;
    loaded.query_row("SELECT crsql_as_crr('m', 'portable')", [], |_| Ok(()))?;
    Ok((app, loaded))
}

fn drain(db: &Connection) -> Result<()> {
    let drained: i64 = db.query_row("SELECT starling_drain()", [], |r| r.get(0))?;
    if drained == 1 {
        Ok(())
    } else {
        Err("nothing was drained".into())
    }
}

fn measure(dir: &Path, so: &Path, rows: &[Row], out: &mut Timings) -> Result<()> {
    let mut add = |figure, kind, seconds| out.entry((figure, kind)).or_default().push(seconds);
    let plain = local::open(dir, "plain.db", Kind::Plain, so)?;
    let native = local::open(dir, "native.db", Kind::Crr, so)?;
    let exact = local::open(dir, "exact.db", Kind::Crr, so)?;
    exact.query_row("SELECT crsql_as_crr('m', 'exact')", [], |_| Ok(()))?;
    let (app, loaded) = open_portable(dir, "portable.db", so)?;
    for (figure, work) in
        [("insert", local::insert_all as fn(&Connection, &[Row]) -> Result<()>), ("update", local::update_by_key)]
    {
        add(figure, "plain", local::timed(|| work(&plain, rows))?);
        add(figure, "native", local::timed(|| work(&native, rows))?);
        add(figure, "exact", local::timed(|| work(&exact, rows))?);
        let write = local::timed(|| work(&app, rows))?;
        add(figure, "write", write);
        add(figure, "portable", write + local::timed(|| drain(&loaded))?);
    }
    let source = local::open(dir, "source.db", Kind::Crr, so)?;
    local::insert_all(&source, rows)?;
    let parts = local::collect_changesets(&source)?;
    let (_app, target) = open_portable(dir, "target.db", so)?;
    add("merge", "portable", local::timed(|| local::merge_all(&target, &parts))?);
    let target = local::open(dir, "native_target.db", Kind::Crr, so)?;
    add("merge", "native", local::timed(|| local::merge_all(&target, &parts))?);
    Ok(())
}

/// Runs everything `runs` times, the ways of capture by turns.
pub fn run(so: &Path, runs: usize) -> Result<Vec<Figure>> {
    let dir = tempfile::tempdir()?;
    let rows = local::rows();
    let mut all = Timings::new();
    for run in 0..runs {
        eprintln!("portable, run {} of {runs}", run + 1);
        measure(dir.path(), so, &rows, &mut all)?;
    }
    let of = |figure, kind| median(all.get(&(figure, kind)).cloned().unwrap_or_default());
    let figure = |name, figure, kind, base| Figure {
        name,
        value: of(figure, kind) / of(base, "plain"),
        unit: "x plain",
        runs,
        goal: "",
    };
    Ok(vec![
        figure("portable_insert", "insert", "portable", "insert"),
        figure("portable_insert_writer", "insert", "write", "insert"),
        figure("portable_insert_native", "insert", "native", "insert"),
        figure("portable_update", "update", "portable", "update"),
        figure("portable_update_writer", "update", "write", "update"),
        figure("portable_update_native", "update", "native", "update"),
        figure("exact_insert", "insert", "exact", "insert"),
        figure("exact_update", "update", "exact", "update"),
        figure("portable_merge", "merge", "portable", "insert"),
        figure("portable_merge_native", "merge", "native", "insert"),
    ])
}
