//! `make bench`: what a CRR costs beside the same table plain, in one run, interleaved; and how long a commit takes to
//! be readable on another node. Prints a table and writes `target/bench.json`.

mod latency;
mod local;
mod peer;
mod portable;
mod profile;
mod scale;
mod singles;

use serde_json::{json, Map, Value};
use std::error::Error;
use std::path::PathBuf;

/// One figure.
pub struct Figure {
    /// Stable name.
    pub name: &'static str,
    /// Its value.
    pub value: f64,
    /// Its unit.
    pub unit: &'static str,
    /// How many runs it is the median of.
    pub runs: usize,
    /// What it ought to be at most (or at least, where the unit is a rate).
    pub goal: &'static str,
}

/// What is over soon, and the noisier for it, runs so many times as often as the rest.
const SHORT: usize = 3;

/// The median.
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

fn main() -> Result<(), Box<dyn Error>> {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..");
    let so = std::env::var_os("STARLING_SO").map_or_else(|| root.join("dist/starling.so"), PathBuf::from);
    let bin = std::env::var_os("STARLING_BIN").map_or_else(|| root.join("dist/starling"), PathBuf::from);
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [command, what, kind] = arguments.as_slice() {
        if command == "profile" {
            return profile::run(&so, what, kind);
        }
        if command == "opening" {
            return scale::first_opening(&so, what, kind.as_ref());
        }
    }
    if let [command, kind] = arguments.as_slice() {
        if command == "transaction" {
            return scale::transaction(&so, kind);
        }
    }
    let runs = std::env::var("STARLING_BENCH_RUNS").ok().and_then(|n| n.parse().ok()).unwrap_or(5);
    // One part alone, for whoever works on it.
    let part = match std::env::var("STARLING_BENCH_ONLY").as_deref() {
        Ok("portable") => Some(portable::run(&so, runs)?),
        Ok("scale") => Some(scale::run(&so, runs)?),
        Ok("local") => Some(local::run(&so, runs)?),
        Ok("peer") => match peer::named() {
            Some(peer) => Some(peer::run(&so, &peer, runs)?),
            None => return Err("CRSQLITE_SO must name a build of cr-sqlite: scripts/peer.sh fetches one".into()),
        },
        Ok("singles") => Some(singles::run(&so, SHORT * runs)?),
        _ => None,
    };
    if let Some(figures) = part {
        print(&figures);
        return Ok(());
    }
    let mut figures = local::run(&so, runs)?;
    figures.extend(singles::run(&so, SHORT * runs)?);
    figures.extend(portable::run(&so, runs)?);
    figures.extend(scale::run(&so, runs)?);
    if bin.exists() {
        figures.extend(latency::run(&bin, &so)?);
    } else {
        println!("{} is not there: no cluster figures", bin.display());
    }
    print(&figures);
    let mut out = Map::new();
    for f in &figures {
        out.insert(
            f.name.into(),
            json!({"value": (f.value * 1000.0).round() / 1000.0, "unit": f.unit, "runs": f.runs}),
        );
    }
    let path = root.join("target/bench.json");
    std::fs::create_dir_all(root.join("target"))?;
    std::fs::write(&path, serde_json::to_string_pretty(&Value::Object(out))?)?;
    println!("\nwritten to target/bench.json");
    Ok(())
}

fn print(figures: &[Figure]) {
    println!("\n{:<28} {:>12}  {:<12} {:>5}  goal", "figure", "value", "unit", "runs");
    for f in figures {
        println!("{:<28} {:>12.3}  {:<12} {:>5}  {}", f.name, f.value, f.unit, f.runs, f.goal);
    }
}
