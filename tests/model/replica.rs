//! One replica: rows, log, claims; local transactions, merging, pruning, power cuts.
//!
//! What it must never do: look at another replica or at the ground truth. Invariant kept by every commit: each held cell
//! is named by the log under the dot that it carries (I1).

use super::rules::{CellLog, Rules};
use super::types::{Cell, Changeset, Dot, Header, Name, Row, Vector, BORN, COLUMNS, ROWS, SLOTS, TOMB};
use std::rc::Rc;

/// How many of the last commits a power cut can take.
pub const UNDO_MAX: usize = 4;

/// A write of this dot that equals what the row holds under the dot `of`; it lives as long as that cell.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Alias {
    pub row: u8,
    pub slot: u8,
    pub of: Dot,
}

/// All log records of one dot together.
#[derive(Clone, Debug)]
pub struct Record {
    pub dot: Dot,
    /// Per row the slots that were accepted under this dot.
    pub named: [u8; ROWS],
    pub aliases: Vec<Alias>,
    /// Present while the record is intact: it still knows everything that the dot named at its origin.
    pub header: Option<Rc<Header>>,
}

/// What is durable.
#[derive(Clone, Debug)]
pub struct Database {
    pub epoch: u8,
    pub db_version: u8,
    /// Version of the last own dot of this epoch: the predecessor of the next.
    pub last_own: u8,
    pub rows: [Row; ROWS],
    /// What the user's table shows; in a sound history a function of `rows`.
    pub shown: [Row; ROWS],
    pub log: Vec<Record>,
    pub claimed: Vector,
    /// A breach seen while writing (a cell logged twice under one dot).
    pub fault: Option<&'static str>,
    /// How often a base was logged whose dot had masks of that row in the log already, or a mask after its base.
    pub folds: u64,
}

/// One statement of a local transaction.
#[derive(Clone, Copy, Debug)]
pub enum Op {
    Insert { row: u8, values: [u8; COLUMNS] },
    Replace { row: u8, values: [u8; COLUMNS] },
    Update { row: u8, column: u8, value: u8 },
    Delete { row: u8 },
}

pub struct Replica {
    pub site: u8,
    pub alive: bool,
    pub columns: usize,
    pub db: Database,
    /// Earlier commits, newest last, for power cuts.
    undo: Vec<Database>,
    keep_undo: bool,
    epochs_used: u8,
}

impl Replica {
    pub fn new(site: u8, columns: usize, keep_undo: bool) -> Self {
        let db = Database {
            epoch: 0,
            db_version: 0,
            last_own: 0,
            rows: [Row::default(); ROWS],
            shown: [Row::default(); ROWS],
            log: Vec::new(),
            claimed: Vector::default(),
            fault: None,
            folds: 0,
        };
        Replica { site, alive: true, columns, db, undo: Vec::new(), keep_undo, epochs_used: 1 }
    }

    pub fn epochs_used(&self) -> usize {
        self.epochs_used as usize
    }

    /// Remembers the state before a commit, for a later power cut.
    fn begin(&mut self) {
        if self.keep_undo {
            if self.undo.len() == UNDO_MAX {
                self.undo.remove(0);
            }
            self.undo.push(self.db.clone());
        }
    }

    /// Runs one local transaction; `None` if it changed nothing. Otherwise its dot and what it wrote.
    pub fn commit_local(&mut self, ops: &[Op]) -> Option<(Dot, Vec<(u8, Row)>)> {
        self.begin();
        let dot = self.db.next_dot(self.site);
        for op in ops {
            self.db.run(*op, dot, self.columns);
        }
        self.db.show(false);
        self.db.finish_local(dot)
    }

    /// A nine-value INSERT INTO crsql_changes: `part` is one cell or a tombstone, logged under a fresh local dot.
    /// The row counts as born by it; columns never given stay absent.
    pub fn commit_nine(&mut self, row: u8, mut part: Row) -> Option<(Dot, Vec<(u8, Row)>)> {
        self.begin();
        let dot = self.db.next_dot(self.site);
        if part.is_alive() {
            part.cells[BORN] = Cell { col_version: 1, value: 0, dot };
        }
        for cell in &mut part.cells {
            cell.dot = dot;
        }
        self.db.merge_row(dot, row, &part, &Rules { alias_ties: false, ..Rules::SOUND });
        self.db.show(false);
        self.db.finish_local(dot)
    }

    /// Applies changesets in one transaction, in order. Claims those that are claimable.
    pub fn commit_merge(&mut self, sets: &[Changeset], skip_claimed: bool, rules: &Rules) {
        self.begin();
        let mut changed = false;
        for set in sets {
            if skip_claimed && self.db.claimed.has(set.dot) {
                continue;
            }
            changed |= self.db.apply(set, rules);
        }
        self.db.show(rules.keep_shown);
        if changed {
            self.db.db_version = self.db.db_version.saturating_add(1);
        }
    }

    /// The whole answer of one sender was applied: what it claimed is claimed here (the delta-interval condition).
    pub fn commit_done(&mut self, claimed: &Vector) {
        self.begin();
        self.db.claimed.union(claimed);
    }

    /// A power cut takes the last `count` commits. The site goes on in a new epoch.
    pub fn lose_commits(&mut self, count: usize, rules: &Rules) {
        for _ in 0..count {
            if let Some(db) = self.undo.pop() {
                self.db = db;
            }
        }
        if !rules.reuse_dots {
            self.db.epoch = self.epochs_used;
            self.epochs_used += 1;
            self.db.last_own = 0;
        }
    }

    /// Takes over the whole database of `donor` (the snapshot of a bootstrap) as a replica that never wrote.
    pub fn take_snapshot(&mut self, donor: &Database) {
        self.undo.clear();
        self.db = Database { epoch: self.db.epoch, last_own: 0, ..donor.clone() };
    }

    /// Drops dead entries of the log record at `index`.
    pub fn prune(&mut self, index: usize, rules: &Rules) {
        self.db.prune(index, rules);
    }
}

impl Database {
    fn next_dot(&self, site: u8) -> Dot {
        Dot { site, epoch: self.epoch, version: self.db_version + 1 }
    }

    pub fn record(&self, dot: Dot) -> Option<&Record> {
        self.log.iter().find(|record| record.dot == dot)
    }

    fn record_mut(&mut self, dot: Dot) -> &mut Record {
        let index = match self.log.iter().position(|record| record.dot == dot) {
            Some(index) => index,
            None => {
                self.log.push(Record { dot, named: [0; ROWS], aliases: Vec::new(), header: None });
                self.log.len() - 1
            }
        };
        &mut self.log[index]
    }

    /// Makes visible rows visible and takes the others away (but for the mutant that keeps them).
    fn show(&mut self, keep: bool) {
        for (shown, row) in self.shown.iter_mut().zip(&self.rows) {
            if row.is_visible() {
                *shown = *row;
            } else if !keep || !row.is_alive() {
                *shown = Row::default();
            }
        }
    }

    /// Runs one statement, giving `dot` to every cell that it writes.
    fn run(&mut self, op: Op, dot: Dot, columns: usize) {
        match op {
            Op::Insert { row, values } => {
                if !self.rows[row as usize].is_visible() {
                    self.insert(row, &values[..columns], dot, 1);
                }
            }
            Op::Replace { row, values } => self.insert(row, &values[..columns], dot, 2),
            Op::Update { row, column, value } => {
                let row = &mut self.rows[row as usize];
                let old = row.cells[column as usize];
                if row.is_visible() && old.value != value {
                    row.cells[column as usize] = Cell { col_version: old.col_version + 1, value, dot };
                }
            }
            Op::Delete { row } => {
                let row = &mut self.rows[row as usize];
                if row.is_visible() {
                    *row = Row { cl: row.cl + 1, ..Row::default() };
                    row.cells[TOMB] = Cell { col_version: 1, value: 0, dot };
                }
            }
        }
    }

    /// INSERT or INSERT OR REPLACE. Over what is held or kept aside in this lifetime the versions go on from there;
    /// over a key never seen they start at `unknown_version` (2 under REPLACE, which cannot know, X11).
    fn insert(&mut self, row: u8, values: &[u8], dot: Dot, unknown_version: u8) {
        let row = &mut self.rows[row as usize];
        let first_version = if row.cl == 0 { unknown_version } else { 1 };
        if !row.is_alive() {
            *row = Row { cl: row.cl + 1, ..Row::default() };
        }
        for (slot, value) in values.iter().enumerate() {
            let col_version = first_version.max(row.cells[slot].col_version + 1);
            row.cells[slot] = Cell { col_version, value: *value, dot };
        }
        row.cells[BORN] = Cell { col_version: 1, value: 0, dot };
    }

    /// Logs and claims what carries `dot` after a local transaction.
    fn finish_local(&mut self, dot: Dot) -> Option<(Dot, Vec<(u8, Row)>)> {
        let mut names = Vec::new();
        let mut wrote = Vec::new();
        for row in 0..ROWS {
            let slots = self.rows[row].carrying(dot);
            if slots != 0 {
                names.push(Name { row: row as u8, cl: self.rows[row].cl, slots });
                wrote.push((row as u8, self.rows[row].pick(slots)));
            }
        }
        if names.is_empty() {
            return None;
        }
        let header = Rc::new(Header { prev: self.last_own, names });
        self.claimed.claim(header.prev, dot);
        let record = self.record_mut(dot);
        for name in &header.names {
            record.named[name.row as usize] |= name.slots;
        }
        record.header = Some(header);
        self.db_version = dot.version;
        self.last_own = dot.version;
        Some((dot, wrote))
    }

    /// Merges one changeset; true if a row changed.
    fn apply(&mut self, set: &Changeset, rules: &Rules) -> bool {
        let mut changed = false;
        for (row, part) in &set.rows {
            changed |= self.merge_row(set.dot, *row, part, rules);
        }
        if let Some(header) = &set.claim {
            self.claimed.claim(header.prev, set.dot);
            self.keep_header(set.dot, header, rules);
        } else if rules.claim_thinned {
            self.claimed.claim(set.dot.version - 1, set.dot);
        }
        changed
    }

    /// After a claimable changeset the record knows all that the dot named, also what lost on arrival.
    fn keep_header(&mut self, dot: Dot, header: &Rc<Header>, rules: &Rules) {
        let held_whole = |name: &Name| name.slots & !self.rows[name.row as usize].carrying(dot) == 0;
        if rules.winners_only && !header.names.iter().all(held_whole) {
            return;
        }
        if !rules.forget_losers && !rules.forget_second_base {
            self.record_mut(dot).header = Some(Rc::clone(header));
            return;
        }
        let mut kept = Header { prev: header.prev, names: Vec::new() };
        for name in &header.names {
            let held = self.rows[name.row as usize].carrying(dot);
            let slots = if rules.forget_losers { name.slots & held } else { name.slots & (held | !(1 << BORN)) };
            kept.names.push(Name { slots, ..*name });
        }
        kept.names.retain(|name| name.slots != 0);
        self.record_mut(dot).header = Some(Rc::new(kept));
    }

    /// The merge rule (DESIGN 2.3) for one row, as a part or whole, that came with the changeset of `carrier`.
    fn merge_row(&mut self, carrier: Dot, row: u8, part: &Row, rules: &Rules) -> bool {
        let mut held = self.rows[row as usize];
        if part.cl < held.cl {
            return false;
        }
        if part.cl > held.cl {
            held = Row { cl: part.cl, ..Row::default() };
        }
        let mut changed = held.cl != self.rows[row as usize].cl;
        let named_before = |db: &Database, dot| db.record(dot).map_or(0, |record| record.named[row as usize]);
        let base = part.cells[BORN];
        let base_named = if base.is_absent() { 0 } else { named_before(self, base.dot) };
        for slot in 0..SLOTS {
            let cell = part.cells[slot];
            if cell.is_absent() {
                continue;
            }
            if cell.rank() > held.cells[slot].rank() {
                held.cells[slot] = cell;
                changed = true;
                self.folds += u64::from(slot == BORN && base_named != 0);
                self.log_cell(carrier, row, slot, cell.dot, rules);
            } else if cell.rank() == held.cells[slot].rank() && cell.dot != held.cells[slot].dot && rules.alias_ties {
                self.log_alias(cell.dot, Alias { row, slot: slot as u8, of: held.cells[slot].dot });
            }
        }
        self.rows[row as usize] = held;
        changed
    }

    fn log_cell(&mut self, carrier: Dot, row: u8, slot: usize, own: Dot, rules: &Rules) {
        let dot = match rules.cell_log {
            CellLog::OwnDot => own,
            CellLog::ChangesetDot => carrier,
            CellLog::Nowhere if own == carrier => own,
            CellLog::Nowhere => return,
        };
        let named = &mut self.record_mut(dot).named[row as usize];
        if *named & (1 << slot) != 0 && rules.check_log {
            self.fault = Some("I1: a cell was logged twice under its dot");
        } else {
            *named |= 1 << slot;
        }
    }

    /// Aliases are kept for unclaimed dots only: a claimed dot needs no telling which of its cells are here.
    fn log_alias(&mut self, dot: Dot, alias: Alias) {
        if self.claimed.has(dot) {
            return;
        }
        let record = self.record_mut(dot);
        if !record.aliases.contains(&alias) {
            record.aliases.push(alias);
        }
    }

    pub fn alias_lives(&self, alias: &Alias) -> bool {
        let cell = self.rows[alias.row as usize].cells[alias.slot as usize];
        cell.dot == alias.of && !cell.is_absent()
    }

    fn prune(&mut self, index: usize, rules: &Rules) {
        let mut record = self.log[index].clone();
        for row in 0..ROWS {
            let mut live = self.rows[row].carrying(record.dot);
            if rules.prune_living_base && live == 1 << BORN {
                live = 0;
            }
            record.named[row] &= live;
        }
        record.aliases.retain(|alias| self.alias_lives(alias) && !self.claimed.has(record.dot));
        let intact = record
            .header
            .as_ref()
            .is_some_and(|header| header.names.iter().all(|name| name.slots & !record.named[name.row as usize] == 0));
        if !intact {
            record.header = None;
        }
        if record.header.is_none() && record.aliases.is_empty() && record.named.iter().all(|slots| *slots == 0) {
            self.log.remove(index);
        } else {
            self.log[index] = record;
        }
    }
}
