//! The merge's laws, directly: any order, grouping and duplication of the same changesets gives the same replica.

use super::check;
use super::history::History;
use super::replica::Replica;
use super::rules::Rules;
use super::types::{Changeset, Dice};

/// Takes up to 14 changesets of a random history (claimable and thinned, fresh and stale) and delivers them to three
/// newcomers in three orders. Tables, claims and carried cells must be equal; a second delivery must change nothing.
pub fn run(seed: u64, rules: Rules) -> Result<(), String> {
    let mut history = History::new(seed, rules, usize::MAX, false);
    history.run_steps()?;
    let mut dice = Dice::new(seed ^ 0x1A85);
    let mut sets = history.sent.clone();
    dice.shuffle(&mut sets);
    sets.truncate(14);
    let mut replicas: Vec<Replica> = (0..3).map(|_| history.newcomer()).collect();
    for replica in &mut replicas {
        deliver(replica, &sets, &mut dice, &rules);
        check::log_is_exact(&replica.db)?;
    }
    for replica in &mut replicas[1..] {
        let version = replica.db.db_version;
        deliver(replica, &sets, &mut dice, &rules);
        if replica.db.db_version != version {
            return Err(format!("seed {seed}: merging again changed something"));
        }
    }
    for other in &replicas[1..] {
        let same_digest = replicas[0].db.digest() == other.db.digest();
        if !check::same_tables(&replicas[0].db, &other.db) || !same_digest {
            return Err(format!("seed {seed}: the order of delivery shows, same digest: {same_digest}"));
        }
    }
    Ok(())
}

/// Delivers all of `sets`, also for dots already claimed (skipping those is sound, but what came along with them is then
/// missing until the next exchange, so the order would show), in a random order with random repeats, in transactions of random size.
fn deliver(replica: &mut Replica, sets: &[Changeset], dice: &mut Dice, rules: &Rules) {
    let mut queue = sets.to_vec();
    for _ in 0..dice.below(sets.len() + 1) {
        queue.push(sets[dice.below(sets.len())].clone());
    }
    dice.shuffle(&mut queue);
    while !queue.is_empty() {
        let rest = queue.split_off((1 + dice.below(4)).min(queue.len()));
        replica.commit_merge(&queue, false, rules);
        queue = rest;
    }
}
