//! The executable model (`tests/model`): 100,000 random histories against I1, I2, I3, I6, and mutants that must be found.
//!
//! STARLING_MODEL_SEED=n runs one history and tells it; STARLING_MODEL_RUNS=n sets how many are run;
//! STARLING_MODEL_TELL=n tells the shortest violation of each mutant among n histories.

#[path = "../model/mod.rs"]
mod model;

use model::rules::{CellLog, Rules};
use model::shape::Stats;

const THREADS: u64 = 2;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

#[test]
fn histories_keep_the_invariants() {
    if let Some(seed) = number("STARLING_MODEL_SEED") {
        println!("{}", model::tell(seed, Rules::SOUND, usize::MAX));
        model::run(seed, Rules::SOUND, usize::MAX, &mut Stats::default()).expect("this seed breaks an invariant");
        return;
    }
    let runs = number("STARLING_MODEL_RUNS").unwrap_or(100_000);
    let share = runs / THREADS;
    let threads: Vec<_> = (0..THREADS)
        .map(|thread| {
            std::thread::spawn(move || {
                let mut stats = Stats::default();
                model::run_many(thread * share, share, Rules::SOUND, &mut stats).map(|()| stats)
            })
        })
        .collect();
    let mut total = Stats::default();
    for thread in threads {
        match thread.join().expect("a history panicked") {
            Ok(stats) => total.add(&stats),
            Err(violation) => panic!("{violation:?}\n{}", model::tell(violation.seed, Rules::SOUND, usize::MAX)),
        }
    }
    println!("{total:#?}");
    if runs >= 10_000 {
        assert!(total.thinned > 0 && total.answers_cut > 0 && total.unborn_rows > 0, "the swarm has become tame");
        assert!(total.carried_dots > 0 && total.power_cuts > 0 && total.deaths > 0, "the swarm has become tame");
    }
}

/// Runs a mutant until a violation is found; panics if `count` histories find none.
fn must_be_found(name: &str, count: u64, rules: Rules) {
    let mut stats = Stats::default();
    match model::run_many(0, count, rules, &mut stats) {
        Ok(()) => panic!("{name}: {count} histories found nothing"),
        Err(violation) => println!("{name}: found after {} histories: {}", stats.histories, violation.what),
    }
    if let Some(told) = number("STARLING_MODEL_TELL").and_then(|count| model::smallest(count, rules)) {
        println!("{told}\n");
    }
}

#[test]
fn mutants_are_found() {
    const COUNT: u64 = 100_000;
    let sound = Rules::SOUND;
    let loose = Rules { check_log: false, ..sound };
    must_be_found("claim thinned changesets", COUNT, Rules { claim_thinned: true, ..sound });
    must_be_found("carried cell under the changeset's dot", COUNT, Rules { cell_log: CellLog::ChangesetDot, ..loose });
    must_be_found("carried cell not logged", COUNT, Rules { cell_log: CellLog::Nowhere, ..loose });
    must_be_found("base without its row", COUNT, Rules { whole_base: false, ..sound });
    must_be_found("dots used again", COUNT, Rules { reuse_dots: true, ..sound });
    must_be_found("partial answer claimed", COUNT, Rules { claim_partial: true, ..sound });
    must_be_found("living base pruned", COUNT, Rules { prune_living_base: true, ..loose });
    must_be_found("losers forgotten", COUNT, Rules { forget_losers: true, ..sound });
    must_be_found("second base forgotten", COUNT, Rules { forget_second_base: true, ..sound });
    must_be_found("thinned trusted", COUNT, Rules { trust_thinned: true, ..sound });
    must_be_found("no snapshot", COUNT, Rules { no_snapshot: true, ..sound });
    must_be_found("answer survives power cut", COUNT, Rules { answer_survives_cut: true, ..sound });
    must_be_found("kept aside, earlier row shown", COUNT, Rules { keep_shown: true, ..sound });
    must_be_found("no aliases", COUNT, Rules { alias_ties: false, ..sound });
}

#[test]
fn logging_winners_only_is_sound_too() {
    let mut stats = Stats::default();
    let rules = Rules { winners_only: true, ..Rules::SOUND };
    let runs = number("STARLING_MODEL_RUNS").map_or(20_000, |runs| runs / 5);
    if let Err(violation) = model::run_many(0, runs, rules, &mut stats) {
        panic!("{violation:?}\n{}", model::tell(violation.seed, rules, usize::MAX));
    }
    println!("winners only: {} claimable, {} thinned", stats.complete_or_covering, stats.thinned);
}

#[test]
fn merging_obeys_its_laws() {
    for seed in 0..20_000 {
        if let Err(broken) = model::laws::run(seed, Rules::SOUND) {
            panic!("{broken}");
        }
    }
}

#[test]
fn a_digest_must_cover_the_carried_cells() {
    assert!(model::scenarios::same_dots_other_cells());
}

#[test]
fn a_tie_with_a_lost_dot_needs_its_alias() {
    assert!(model::scenarios::tie_with_a_lost_dot(Rules::SOUND));
    assert!(!model::scenarios::tie_with_a_lost_dot(Rules { alias_ties: false, ..Rules::SOUND }));
}
