//! A writer that waits to be killed: it opens a file, writes step after step, and tells each commit on stdout. The crash tests
//! (`tests/tests/crash.rs`) start it.
//!
//! `victim FILE JOURNAL_MODE SYNCHRONOUS SEED FIRST_STEP PARTS_FOLDER`. Of the changesets in that folder it merges one now and then.
//!
//! `victim puppet FILE FILE` is another one: it does what stdin tells it (`starling_tests::puppet`).

use starling_tests::random::Random;
use starling_tests::site::Site;
use starling_tests::workload::{step, transaction, TABLES};
use std::io::Write;
use std::path::Path;

fn main() {
    let args: Vec<String> = std::env::args().collect();
    if let [_, puppet, plain, crr] = args.as_slice() {
        assert_eq!(puppet, "puppet");
        return starling_tests::puppet::obey(Path::new(plain), Path::new(crr));
    }
    let [_, file, journal, synchronous, seed, first, folder] = args.as_slice() else {
        eprintln!("usage: victim FILE JOURNAL_MODE SYNCHRONOUS SEED FIRST_STEP PARTS_FOLDER");
        std::process::exit(2);
    };
    let mut r = Random::new(seed.parse().expect("SEED is a number"));
    let site = Site::open(Path::new(file));
    for (name, value) in
        [("journal_mode", journal), ("synchronous", synchronous), ("wal_autocheckpoint", &"20".to_string())]
    {
        site.db.pragma_update(None, name, value).expect("a pragma");
    }
    let there: i64 = site.one("SELECT count(*) FROM sqlite_master WHERE name = 'done'");
    if there == 0 {
        // The tables come all at once, so that a kill leaves all of them or none.
        let mut sql: Vec<String> = TABLES.iter().map(|(_, sql)| (*sql).to_string()).collect();
        sql.extend(TABLES.iter().map(|(name, _)| format!("SELECT crsql_as_crr('{name}')")));
        transaction(&site.db, &sql).expect("the tables can be made");
    }
    let parts = changesets(Path::new(folder));
    let mut n: u64 = first.parse().expect("FIRST_STEP is a number");
    let mut failures = 0;
    loop {
        if r.chance(20) && !parts.is_empty() {
            merge(&site, r.pick::<Vec<u8>>(&parts));
        }
        let statements = step(&mut r, n, "victim");
        match transaction(&site.db, &statements) {
            Ok(()) => tell(&format!("done {n} {}", site.one::<i64>("SELECT crsql_db_version()"))),
            Err(e) => {
                failures += 1;
                tell(&format!("failed {n} {e}"));
            }
        }
        n += 1;
        if failures > 20 {
            return;
        }
    }
}

fn changesets(folder: &Path) -> Vec<Vec<u8>> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    let mut paths: Vec<_> = entries.filter_map(|e| e.ok().map(|e| e.path())).collect();
    paths.sort();
    paths.iter().filter_map(|p| std::fs::read(p).ok()).collect()
}

fn merge(site: &Site, part: &[u8]) {
    let run = || -> rusqlite::Result<()> {
        site.db.execute_batch("BEGIN IMMEDIATE")?;
        site.merge(part)?;
        site.db.execute_batch("COMMIT")
    };
    if run().is_err() && !site.db.is_autocommit() {
        let _ = site.db.execute_batch("ROLLBACK");
    }
}

/// One line, at once: what was told was committed.
fn tell(line: &str) {
    let mut out = std::io::stdout().lock();
    let _ = out.write_all(format!("{line}\n").as_bytes());
    let _ = out.flush();
}
