//! `bench profile WHAT KIND`: one step of the bench by itself, for a profiler to look at.
//!
//! `perf record -g target/release/bench profile update crr`, or `valgrind --tool=callgrind` for counts that do not depend
//! on what else the machine does.

use super::local::{self, Kind, Result};
use std::path::Path;

/// Runs a step once and prints how long it took.
pub fn run(so: &Path, what: &str, kind: &str) -> Result<()> {
    let kind = match kind {
        "plain" => Kind::Plain,
        "floor" => Kind::Floor,
        "logged" => Kind::Logged,
        "crr" => Kind::Crr,
        other => return Err(format!("profile: the kind is plain, floor, logged or crr, not {other}").into()),
    };
    let dir = tempfile::tempdir()?;
    let seconds = local::step_alone(dir.path(), kind, so, what)?;
    println!("{what} {kind:?}: {seconds:.4} s");
    Ok(())
}
