//! A small executable model of the whole: replicas, log, clocks, vectors, carried dots, relays, crashes, pruning.
//!
//! It shares no code with the extension and knows no SQLite: it exists to show that the *decisions* are right, before and
//! beside the implementation. `history` plays random histories, `check` holds the invariants, `rules` the decisions as
//! switches, so that each one can be taken away to see the checker find the damage.

pub mod check;
pub mod history;
pub mod laws;
pub mod replica;
pub mod rules;
pub mod scenarios;
pub mod serve;
pub mod shape;
pub mod types;

use history::History;
use rules::Rules;
use shape::Stats;

/// A history that broke an invariant.
#[derive(Debug)]
pub struct Violation {
    pub seed: u64,
    pub what: String,
}

/// Runs the history of `seed`.
pub fn run(seed: u64, rules: Rules, steps_max: usize, stats: &mut Stats) -> Result<(), Violation> {
    let mut history = History::new(seed, rules, steps_max, false);
    let result = history.run();
    stats.add(&history.stats);
    result.map_err(|what| Violation { seed, what })
}

/// The same history once more, in words.
pub fn tell(seed: u64, rules: Rules, steps_max: usize) -> String {
    let mut history = History::new(seed, rules, steps_max, true);
    let result = history.run();
    let mut lines = history.trace.take().unwrap_or_default();
    for replica in &history.replicas {
        lines.push(format!("node {} alive {}", replica.site, replica.alive));
        for (key, row) in replica.db.rows.iter().enumerate().filter(|(_, row)| row.cl > 0) {
            lines.push(format!("    row {key}: {row:?}"));
        }
    }
    format!("seed {seed}\n{}\n=> {result:?}", lines.join("\n"))
}

/// Runs `count` histories from `first` on, stopping at a violation.
pub fn run_many(first: u64, count: u64, rules: Rules, stats: &mut Stats) -> Result<(), Violation> {
    (first..first + count).try_for_each(|seed| run(seed, rules, usize::MAX, stats))
}

/// The shortest telling of a violation among `count` histories: what to read when a rule turns out to be wrong.
pub fn smallest(count: u64, rules: Rules) -> Option<String> {
    let mut best: Option<String> = None;
    for seed in 0..count {
        for steps_max in [8, usize::MAX] {
            if run(seed, rules, steps_max, &mut Stats::default()).is_err() {
                let told = tell(seed, rules, steps_max);
                if best.as_ref().is_none_or(|best| told.lines().count() < best.lines().count()) {
                    best = Some(told);
                }
                break;
            }
        }
    }
    best
}
