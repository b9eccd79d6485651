//! The swarm: which steps a history has, how likely each is, how large everything is. And the count of what happened.

use super::types::{Dice, COLUMNS, ROWS};

/// Kinds of steps, in the order of `Shape::weights`.
pub const STEPS: [Step; 12] = [
    Step::Local,
    Step::Nine,
    Step::Ask,
    Step::Receive,
    Step::LoseAnswer,
    Step::Relay,
    Step::Push,
    Step::Prune,
    Step::PowerCut,
    Step::Restart,
    Step::Bootstrap,
    Step::Die,
];

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Step {
    /// A local transaction of one to three statements.
    Local,
    /// A nine-value INSERT INTO crsql_changes.
    Nine,
    /// A vector goes out and an answer is on its way.
    Ask,
    /// A part of an answer, or all that is left of it, is applied in one transaction.
    Receive,
    LoseAnswer,
    /// A changeset sent at any time before reaches anyone (again).
    Relay,
    /// A node sends any one dot of its log, unasked.
    Push,
    Prune,
    /// A node loses its last commits.
    PowerCut,
    /// A node loses what it had in flight.
    Restart,
    /// A node that never wrote takes over another's database as a snapshot.
    Bootstrap,
    Die,
}

/// The swarm's choices for one history.
pub struct Shape {
    pub replicas: usize,
    pub rows: usize,
    pub columns: usize,
    pub values: usize,
    pub steps: usize,
    pub weights: [usize; STEPS.len()],
    pub cl_blind: bool,
    pub skip_claimed: bool,
    pub shuffle_answers: bool,
}

impl Shape {
    pub fn draw(dice: &mut Dice, steps_max: usize) -> Self {
        let mut weights = [0_usize; STEPS.len()];
        for weight in &mut weights {
            *weight = [0, 0, 1, 3, 9, 27][dice.below(6)];
        }
        weights[Step::Local as usize] += 12;
        weights[Step::Ask as usize] += 6;
        weights[Step::Receive as usize] += 6;
        weights[Step::Prune as usize] += weights[Step::Prune as usize] / 2;
        weights[Step::PowerCut as usize] = weights[Step::PowerCut as usize].div_ceil(3);
        weights[Step::Die as usize] = weights[Step::Die as usize].div_ceil(9);
        weights[Step::Restart as usize] = weights[Step::Restart as usize].div_ceil(9);
        weights[Step::Bootstrap as usize] = weights[Step::Bootstrap as usize].div_ceil(9);
        Shape {
            replicas: 2 + dice.below(4),
            rows: 1 + dice.below(ROWS).min(dice.below(ROWS)),
            columns: 2 + dice.below(COLUMNS - 1),
            values: 2 + dice.below(3),
            steps: (10 + dice.below(31).max(dice.below(31))).min(steps_max),
            weights,
            cl_blind: dice.one_in(2),
            skip_claimed: dice.one_in(2),
            shuffle_answers: dice.one_in(2),
        }
    }

    pub fn step(&self, dice: &mut Dice) -> Step {
        let mut ticket = dice.below(self.weights.iter().sum());
        for (step, weight) in STEPS.into_iter().zip(self.weights) {
            if ticket < weight {
                return step;
            }
            ticket -= weight;
        }
        Step::Local
    }
}

/// How often what matters happened, so that nobody takes empty histories for proof.
#[derive(Clone, Copy, Default, Debug)]
pub struct Stats {
    pub histories: u64,
    pub steps: u64,
    pub dots: u64,
    pub complete_or_covering: u64,
    pub covering_with_foreign: u64,
    pub thinned: u64,
    pub answers_done: u64,
    pub answers_cut: u64,
    pub power_cuts: u64,
    pub deaths: u64,
    pub bootstraps: u64,
    pub pruned: u64,
    pub unborn_rows: u64,
    pub carried_dots: u64,
    pub final_rounds: u64,
    pub final_rounds_max: u64,
    /// Pairs of nodes with equal vectors and equal sets of carried dots, yet different tables.
    pub dot_sets_fooled: u64,
    /// A base was logged under a dot that had masks of the same row already.
    pub base_over_masks: u64,
}

impl Stats {
    pub fn add(&mut self, other: &Stats) {
        self.histories += other.histories;
        self.steps += other.steps;
        self.dots += other.dots;
        self.complete_or_covering += other.complete_or_covering;
        self.covering_with_foreign += other.covering_with_foreign;
        self.thinned += other.thinned;
        self.answers_done += other.answers_done;
        self.answers_cut += other.answers_cut;
        self.power_cuts += other.power_cuts;
        self.deaths += other.deaths;
        self.bootstraps += other.bootstraps;
        self.base_over_masks += other.base_over_masks;
        self.pruned += other.pruned;
        self.unborn_rows += other.unborn_rows;
        self.carried_dots += other.carried_dots;
        self.final_rounds += other.final_rounds;
        self.final_rounds_max = self.final_rounds_max.max(other.final_rounds_max);
        self.dot_sets_fooled += other.dot_sets_fooled;
    }
}
