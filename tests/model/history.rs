//! One random history: a cluster, its steps, and the quiet end in which all survivors must become equal.
//!
//! A seed decides everything: how many replicas, which steps occur and how often (swarm testing), each step's details.

use super::check::{self, Truth};
use super::replica::{Op, Replica};
use super::rules::Rules;
use super::serve::Digest;
use super::shape::{Shape, Stats, Step};
use super::types::{Cell, Changeset, Dice, Dot, Row, Vector, COLUMNS, EPOCHS, TOMB, VERSION_MAX};

/// An answer on its way.
struct Flight {
    from: usize,
    to: usize,
    sets: Vec<Changeset>,
    applied: usize,
    claimed: Vector,
}

pub struct History {
    rules: Rules,
    shape: Shape,
    dice: Dice,
    pub replicas: Vec<Replica>,
    digests: Vec<Digest>,
    truth: Truth,
    flights: Vec<Flight>,
    /// Every changeset ever sent: relays forward these bytes.
    pub sent: Vec<Changeset>,
    pub stats: Stats,
    /// The steps in words, if asked for.
    pub trace: Option<Vec<String>>,
}

impl History {
    pub fn new(seed: u64, rules: Rules, steps_max: usize, traced: bool) -> Self {
        let mut dice = Dice::new(seed);
        let shape = Shape::draw(&mut dice, steps_max);
        let keep_undo = shape.weights[Step::PowerCut as usize] > 0;
        let replicas: Vec<Replica> =
            (0..shape.replicas).map(|site| Replica::new(site as u8, shape.columns, keep_undo)).collect();
        History {
            rules,
            digests: vec![Digest::default(); replicas.len()],
            shape,
            dice,
            replicas,
            truth: Vec::new(),
            flights: Vec::new(),
            sent: Vec::new(),
            stats: Stats { histories: 1, ..Stats::default() },
            trace: traced.then(Vec::new),
        }
    }

    /// Runs the steps, then lets the survivors become equal. The error names the violated invariant.
    pub fn run(&mut self) -> Result<(), String> {
        self.run_steps()?;
        self.settle()?;
        self.stats.base_over_masks = self.replicas.iter().map(|replica| replica.db.folds).sum();
        Ok(())
    }

    pub fn run_steps(&mut self) -> Result<(), String> {
        for _ in 0..self.shape.steps {
            self.stats.steps += 1;
            let step = self.shape.step(&mut self.dice);
            if let Some(changed) = self.take(step) {
                self.check(changed)?;
            }
        }
        Ok(())
    }

    /// A fresh replica outside the cluster, for the laws.
    pub fn newcomer(&self) -> Replica {
        Replica::new(0, self.shape.columns, false)
    }

    fn note(&mut self, line: impl FnOnce() -> String) {
        if let Some(trace) = &mut self.trace {
            trace.push(line());
        }
    }

    fn some_alive(&mut self) -> usize {
        loop {
            let node = self.dice.below(self.replicas.len());
            if self.replicas[node].alive {
                return node;
            }
        }
    }

    /// Two different live nodes, if there are.
    fn some_pair(&mut self) -> Option<(usize, usize)> {
        let (first, second) = (self.some_alive(), self.some_alive());
        (first != second).then_some((first, second))
    }

    /// Takes one step; the node whose database may have changed.
    fn take(&mut self, step: Step) -> Option<usize> {
        match step {
            Step::Local => self.local(),
            Step::Nine => self.nine(),
            Step::Ask => {
                let (to, from) = self.some_pair()?;
                self.ask(to, from);
                None
            }
            Step::Receive => self.receive(),
            Step::LoseAnswer => {
                self.lose_answer();
                None
            }
            Step::Relay => self.relay(),
            Step::Push => {
                self.push();
                None
            }
            Step::Prune => self.prune(),
            Step::PowerCut => self.power_cut(),
            Step::Restart => {
                let node = self.some_alive();
                self.flights.retain(|flight| flight.to != node);
                self.note(|| format!("{node} restarts"));
                None
            }
            Step::Bootstrap => self.bootstrap(),
            Step::Die => self.die(),
        }
    }

    /// A statement that mostly finds something to do at `node`.
    fn some_op(&mut self, node: usize) -> Op {
        let row = self.dice.below(self.shape.rows) as u8;
        let mut values = [0; COLUMNS];
        for value in &mut values {
            *value = self.dice.below(self.shape.values) as u8;
        }
        let column = self.dice.below(self.shape.columns) as u8;
        let visible = self.replicas[node].db.rows[row as usize].is_visible();
        match self.dice.below(8) {
            0 => Op::Replace { row, values },
            1 => Op::Delete { row },
            2 | 3 => Op::Update { row, column, value: values[0] },
            _ if visible => Op::Update { row, column, value: values[0] },
            _ => Op::Insert { row, values },
        }
    }

    fn local(&mut self) -> Option<usize> {
        let node = self.some_alive();
        if self.replicas[node].db.db_version >= VERSION_MAX {
            return None;
        }
        let ops: Vec<Op> = (0..1 + self.dice.below(3)).map(|_| self.some_op(node)).collect();
        let (dot, wrote) = self.replicas[node].commit_local(&ops)?;
        self.note(|| format!("{node} commits {dot:?}: {ops:?}"));
        self.committed(node, dot, wrote);
        Some(node)
    }

    /// Cells that come from outside the cluster: invented, or read out of any node's crsql_changes.
    fn nine(&mut self) -> Option<usize> {
        let node = self.some_alive();
        if self.replicas[node].db.db_version >= VERSION_MAX {
            return None;
        }
        let key = self.dice.below(self.shape.rows);
        let mut column = self.dice.below(self.shape.columns);
        let mut part = Row { cl: 1 + self.dice.below(3) as u8, ..Row::default() };
        let value = self.dice.below(self.shape.values) as u8;
        let mut cell = Cell { col_version: 1 + self.dice.below(2) as u8, value, dot: Dot::default() };
        let other = self.some_alive();
        let held = self.replicas[other].db.rows[key];
        if self.dice.one_in(2) && held.cl > 0 {
            part.cl = held.cl;
            cell = held.cells[column];
        }
        if !part.is_alive() {
            column = TOMB;
            cell = Cell { col_version: 1, value: 0, dot: Dot::default() };
        }
        part.cells[column] = cell;
        let (dot, wrote) = self.replicas[node].commit_nine(key as u8, part)?;
        self.note(|| format!("{node} commits {dot:?} by nine values: row {key} {part:?}"));
        self.committed(node, dot, wrote);
        Some(node)
    }

    fn committed(&mut self, node: usize, dot: Dot, wrote: Vec<(u8, Row)>) {
        self.stats.dots += 1;
        self.truth.extend(wrote.into_iter().map(|(row, part)| (dot, row, part)));
        if self.dice.one_in(2) {
            let db = &self.replicas[node].db;
            if let Some(set) = db.record(dot).and_then(|record| db.encode(record, self.shape.cl_blind, &self.rules)) {
                self.send(set);
            }
        }
    }

    fn send(&mut self, set: Changeset) {
        if set.claim.is_some() {
            self.stats.complete_or_covering += 1;
            let foreign = |row: &Row| row.cells.iter().any(|cell| !cell.is_absent() && cell.dot != set.dot);
            self.stats.covering_with_foreign += u64::from(set.rows.iter().any(|(_, row)| foreign(row)));
        } else {
            self.stats.thinned += 1;
        }
        self.sent.push(set);
    }

    /// Node `from` answers the vector of node `to` from one snapshot.
    fn ask(&mut self, to: usize, from: usize) {
        let db = &self.replicas[from].db;
        let mut sets = db.answer(&self.replicas[to].db.claimed, self.shape.cl_blind, &self.rules);
        let claimed = db.claimed;
        if self.shape.shuffle_answers {
            self.dice.shuffle(&mut sets);
        }
        self.note(|| format!("{to} asks {from}: {:?}", sets.iter().map(Changeset::tell).collect::<Vec<_>>()));
        for set in &sets {
            self.send(set.clone());
        }
        self.flights.push(Flight { from, to, sets, applied: 0, claimed });
    }

    fn receive(&mut self) -> Option<usize> {
        if self.flights.is_empty() {
            let (to, from) = self.some_pair()?;
            self.ask(to, from);
        }
        let index = self.dice.below(self.flights.len());
        let left = self.flights[index].sets.len() - self.flights[index].applied;
        let count = if self.dice.one_in(3) { left } else { self.dice.below(left + 1) };
        let node = self.flights[index].to;
        self.apply_part(index, count);
        Some(node)
    }

    /// Applies the next `count` changesets of an answer; takes over the sender's vector once nothing is left.
    fn apply_part(&mut self, index: usize, count: usize) {
        let flight = &mut self.flights[index];
        let part = flight.applied..flight.applied + count;
        flight.applied = part.end;
        let finished = flight.applied == flight.sets.len();
        let (to, from) = (flight.to, flight.from);
        if self.rules.no_snapshot {
            let db = &self.replicas[from].db;
            for set in &mut flight.sets[part.clone()] {
                let now = db.record(set.dot).and_then(|record| db.encode(record, self.shape.cl_blind, &self.rules));
                *set = now.unwrap_or_else(|| Changeset { dot: set.dot, claim: None, rows: Vec::new() });
            }
        }
        self.replicas[to].commit_merge(&flight.sets[part], self.shape.skip_claimed, &self.rules);
        if finished || self.rules.claim_partial {
            self.replicas[to].commit_done(&flight.claimed);
        }
        if finished {
            self.flights.remove(index);
            self.stats.answers_done += 1;
        }
        self.note(|| format!("{to} applies {count} changesets of {from}'s answer, done: {finished}"));
    }

    fn lose_answer(&mut self) {
        if !self.flights.is_empty() {
            let index = self.dice.below(self.flights.len());
            let flight = self.flights.remove(index);
            self.stats.answers_cut += u64::from(flight.applied > 0);
            self.note(|| format!("the rest of {}'s answer to {} is lost", flight.from, flight.to));
        }
    }

    fn relay(&mut self) -> Option<usize> {
        if self.sent.is_empty() {
            return None;
        }
        let node = self.some_alive();
        let set = self.sent[self.dice.below(self.sent.len())].clone();
        self.note(|| format!("{node} gets relayed {}", set.tell()));
        self.replicas[node].commit_merge(&[set], self.shape.skip_claimed, &self.rules);
        Some(node)
    }

    fn push(&mut self) {
        let node = self.some_alive();
        let db = &self.replicas[node].db;
        if db.log.is_empty() {
            return;
        }
        let record = &db.log[self.dice.below(db.log.len())];
        if let Some(set) = db.encode(record, self.shape.cl_blind, &self.rules) {
            self.note(|| format!("{node} sends {}", set.tell()));
            self.send(set);
        }
    }

    fn prune(&mut self) -> Option<usize> {
        let node = self.some_alive();
        let all = self.dice.one_in(3);
        for index in (0..self.replicas[node].db.log.len()).rev() {
            if all || self.dice.one_in(2) {
                self.stats.pruned += 1;
                self.replicas[node].prune(index, &self.rules);
            }
        }
        self.note(|| format!("{node} prunes"));
        Some(node)
    }

    fn power_cut(&mut self) -> Option<usize> {
        let node = self.some_alive();
        if self.replicas[node].epochs_used() == EPOCHS {
            return None;
        }
        let count = self.dice.below(super::replica::UNDO_MAX + 1);
        self.stats.power_cuts += 1;
        if !self.rules.answer_survives_cut {
            self.flights.retain(|flight| flight.to != node);
        }
        self.replicas[node].lose_commits(count, &self.rules);
        self.note(|| format!("{node} loses its last {count} commits"));
        Some(node)
    }

    fn bootstrap(&mut self) -> Option<usize> {
        let (to, from) = self.some_pair()?;
        if self.replicas[to].epochs_used() > 1 || self.replicas[to].db.last_own > 0 {
            return None;
        }
        self.stats.bootstraps += 1;
        self.flights.retain(|flight| flight.to != to);
        let donor = self.replicas[from].db.clone();
        self.replicas[to].take_snapshot(&donor);
        self.note(|| format!("{to} takes a snapshot of {from}"));
        Some(to)
    }

    fn die(&mut self) -> Option<usize> {
        if self.replicas.iter().filter(|replica| replica.alive).count() > 2 {
            let node = self.some_alive();
            self.replicas[node].alive = false;
            self.stats.deaths += 1;
            self.flights.retain(|flight| flight.to != node && !(flight.from == node && self.dice.one_in(2)));
            self.note(|| format!("{node} dies"));
        }
        None
    }

    /// The checks of one node, and of its digest against all others.
    fn check(&mut self, node: usize) -> Result<(), String> {
        let whole_rows = self.shape.weights[Step::Nine as usize] == 0;
        let replica = &self.replicas[node];
        check::replica_holds(replica, &self.truth, whole_rows, &self.rules).map_err(|e| format!("node {node}: {e}"))?;
        self.digests[node] = replica.db.digest();
        let digest = &self.digests[node];
        self.stats.carried_dots += u64::from(!digest.carried.is_empty());
        self.stats.unborn_rows += u64::from(replica.db.rows.iter().any(|row| row.is_alive() && !row.is_visible()));
        for other in (0..self.replicas.len()).filter(|other| *other != node) {
            let (theirs, their_db) = (&self.digests[other], &self.replicas[other].db);
            check::digests_tell((digest, &replica.db), (theirs, their_db))
                .map_err(|error| format!("nodes {node}, {other}: {error}"))?;
            if digest.same_by_dots(theirs) && !check::same_tables(&replica.db, their_db) {
                self.stats.dot_sets_fooled += 1;
            }
        }
        Ok(())
    }

    /// Every ordered pair of survivors, in random order.
    fn survivor_pairs(&mut self) -> Vec<(usize, usize)> {
        let alive: Vec<usize> = (0..self.replicas.len()).filter(|node| self.replicas[*node].alive).collect();
        let mut pairs = Vec::new();
        for to in &alive {
            pairs.extend(alive.iter().filter(|from| *from != to).map(|from| (*to, *from)));
        }
        self.dice.shuffle(&mut pairs);
        pairs
    }

    fn exchange(&mut self, to: usize, from: usize) -> Result<(), String> {
        self.ask(to, from);
        let index = self.flights.len() - 1;
        let count = self.flights[index].sets.len();
        self.apply_part(index, count);
        self.check(to)
    }

    /// I3: when writes stop, pairwise exchange makes all survivors equal within a few rounds, and then rests.
    fn settle(&mut self) -> Result<(), String> {
        self.flights.clear();
        let rounds_max = self.replicas.len() as u64 + 1;
        for round in 0.. {
            let pairs = self.survivor_pairs();
            if pairs.iter().all(|(to, from)| self.digests[*to] == self.digests[*from]) {
                self.stats.final_rounds += round;
                self.stats.final_rounds_max = self.stats.final_rounds_max.max(round);
                break;
            }
            if round == rounds_max {
                return Err(self.restless(&pairs));
            }
            for (to, from) in pairs {
                if self.digests[to] != self.digests[from] {
                    self.exchange(to, from)?;
                }
            }
        }
        for (to, from) in self.survivor_pairs() {
            if !check::same_tables(&self.replicas[to].db, &self.replicas[from].db) {
                return Err(format!("I3: survivors {to} and {from} differ"));
            }
            let before = (self.replicas[to].db.db_version, self.digests[to].clone());
            self.exchange(to, from)?;
            if before != (self.replicas[to].db.db_version, self.digests[to].clone()) {
                return Err(format!("{to} changed by an exchange with its equal {from}"));
            }
        }
        Ok(())
    }

    fn restless(&self, pairs: &[(usize, usize)]) -> String {
        let differ = |pair: &&(usize, usize)| !check::same_tables(&self.replicas[pair.0].db, &self.replicas[pair.1].db);
        let tables = if pairs.iter().any(|pair| differ(&pair)) { "I3: tables differ" } else { "tables are equal" };
        format!("digests never become equal ({tables}): {:?}", self.digests)
    }
}
