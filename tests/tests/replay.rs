//! The fuzz targets without a fuzzer: the seeds in tests/fuzz/seeds and mutations of them.
//!
//! STARLING_FUZZ_SEED replays one run of mutations, STARLING_FUZZ_RUNS sets how many inputs each target gets.
//! STARLING_FUZZ_INPUT=<target>:<file> runs one file. UPDATE_SEEDS=1 writes the generated seeds anew.

#[path = "replay/seeds.rs"]
mod seeds;

use starling_tests::fuzz::{body, TARGETS};
use starling_tests::random::Random;
use std::fs;
use std::panic::{catch_unwind, resume_unwind};
use std::path::{Path, PathBuf};

fn folder(target: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds").join(target)
}

/// The files of a target's seeds, by name.
fn committed(target: &str) -> Vec<(String, Vec<u8>)> {
    let mut all: Vec<_> = fs::read_dir(folder(target))
        .unwrap_or_else(|e| panic!("{target} has no seeds: {e}"))
        .map(|entry| {
            let entry = entry.expect("a folder can be read");
            (entry.file_name().to_string_lossy().into_owned(), fs::read(entry.path()).expect("a seed can be read"))
        })
        .collect();
    all.sort();
    assert!(!all.is_empty(), "{target} has no seeds");
    all
}

fn setting(name: &str) -> Option<u64> {
    std::env::var(name).ok().and_then(|s| s.parse().ok())
}

/// Runs one input; a finding is written where it can be looked at.
fn run(target: &str, what: &str, data: &[u8]) {
    let body = body(target).expect("a target has a body");
    if let Err(panic) = catch_unwind(|| body(data)) {
        let path = std::env::temp_dir().join(format!("starling-fuzz-{target}"));
        fs::write(&path, data).expect("a finding can be written");
        eprintln!("{target}, {what}: STARLING_FUZZ_INPUT={target}:{} replays it", path.display());
        resume_unwind(panic);
    }
}

/// One to four changes of the kinds that break decoders: flips, numbers at their borders, cuts, repeats, splices.
fn mutate(r: &mut Random, data: &mut Vec<u8>, others: &[(String, Vec<u8>)]) {
    for _ in 0..=r.below(4) {
        let len = data.len() as u64;
        let at = r.below(len.max(1)) as usize;
        match r.below(8) {
            _ if data.is_empty() => data.push(r.below(256) as u8),
            0 | 1 => data[at] ^= 1 << r.below(8),
            2 => data[at] = *r.pick(&[0, 1, 0x7f, 0x80, 0xff, 0x10, 0x20]),
            3 => data[at] = r.below(256) as u8,
            4 => data.truncate(at),
            5 => drop(data.splice(at..at, (0..=r.below(9)).map(|_| r.below(256) as u8).collect::<Vec<_>>())),
            6 => {
                let run: Vec<u8> = data[at..].iter().copied().take(1 + r.below(32) as usize).collect();
                drop(data.splice(at..at, run));
            }
            _ => {
                let other = &r.pick(others).1;
                let from = r.below(other.len() as u64 + 1) as usize;
                data.truncate(at);
                data.extend_from_slice(&other[from..]);
            }
        }
    }
}

fn replay(target: &str, runs: u64) {
    let seeds = committed(target);
    for (name, data) in &seeds {
        run(target, name, data);
    }
    let seed = setting("STARLING_FUZZ_SEED").unwrap_or(1);
    let runs = setting("STARLING_FUZZ_RUNS").unwrap_or(runs);
    println!("{target}: {} seeds, {runs} mutations, STARLING_FUZZ_SEED={seed}", seeds.len());
    let mut r = Random::new(seed);
    for i in 0..runs {
        let mut data = r.pick(&seeds).1.clone();
        mutate(&mut r, &mut data, &seeds);
        run(target, &format!("STARLING_FUZZ_SEED={seed}, mutation {i}"), &data);
    }
}

#[test]
fn decoders_give_back_what_they_accept_and_refuse_the_rest() {
    for target in
        ["changeset", "clock_block", "key", "log_chunk", "ranges", "record", "row_clock", "vector", "wire", "young"]
    {
        replay(target, 10_000);
    }
}

#[test]
fn the_core_stands_hostile_peers() {
    replay("node", 2_000);
}

#[test]
fn two_replicas_stand_any_stream_of_calls_and_forged_changesets() {
    replay("sql", 250);
}

#[test]
fn replicas_whose_schema_changes_all_the_time_stay_whole() {
    replay("schema", 250);
}

#[test]
fn one_input_by_name() {
    let Ok(input) = std::env::var("STARLING_FUZZ_INPUT") else { return };
    let (target, file) = input.split_once(':').expect("<target>:<file>");
    run(target, file, &fs::read(file).expect("the file can be read"));
}

#[test]
fn every_target_has_seeds_and_a_runner() {
    seeds::update_if_asked(&folder(""));
    for (target, _) in TARGETS {
        committed(target);
        let runner = folder("").join(format!("../targets/{target}.rs"));
        assert!(runner.exists(), "{} is missing", runner.display());
    }
}
