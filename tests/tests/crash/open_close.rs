//! Opening, working and closing, over and over: memory stays flat.

use super::setting;
use starling_tests::site::Site;

/// Resident memory in KiB.
fn resident() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|l| l.starts_with("VmRSS:"))?;
    line.split_whitespace().nth(1)?.parse().ok()
}

fn cycle(path: &std::path::Path, i: u64) {
    let site = Site::open(path);
    site.exec(&format!("INSERT OR REPLACE INTO t VALUES({}, {i})", i % 10));
    site.one::<i64>("SELECT count(*) FROM crsql_changes");
    site.one::<Vec<u8>>("SELECT starling_vector()");
    assert!(!site.refused("SELECT starling_merge(x'01')").is_empty());
    site.db.close().expect("nothing is left open");
}

/// STARLING_OPEN_CYCLES sets how many.
#[test]
fn a_process_that_opens_and_closes_for_ever_does_not_grow() {
    let folder = tempfile::tempdir().expect("a directory");
    let path = folder.path().join("a.db");
    drop(Site::file(&path).with(&[("t", "CREATE TABLE t(id INTEGER PRIMARY KEY, a)")]));
    let cycles = setting("STARLING_OPEN_CYCLES", 1_000);
    (0..cycles / 4).for_each(|i| cycle(&path, i));
    let Some(before) = resident() else {
        println!("skipped: no /proc here");
        return;
    };
    (0..cycles).for_each(|i| cycle(&path, i));
    let grown = resident().unwrap_or(before).saturating_sub(before);
    println!("{cycles} cycles: {before} KiB before, {grown} KiB more");
    assert!(grown < 4 * 1024 + cycles / 4, "{cycles} cycles took {grown} KiB");
}
