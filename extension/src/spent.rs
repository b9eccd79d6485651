//! Seqs of the open transaction's dot that stand in log entries which it has superseded itself.
//!
//! A merge of nine values keeps the seq that it is given, so two writes of one cell in one transaction may be given the same.
//! The former's entry stays in the log, and would be live again if the cell got its seq once more.

use starling_crdt::row_clock::{RowClock, Stamp};
use std::collections::BTreeSet;

/// So many are known one by one; beyond that every seq below the newest counts as spent.
const MAX: usize = 4096;

/// A write: version of its dot, table, column (none: the row's life), seq, key.
type Write = (u64, u32, Option<u32>, u64, Vec<u8>);

/// What is spent.
#[derive(Clone, Debug, Default)]
pub struct Spent {
    writes: BTreeSet<Write>,
    /// Under this version all seqs below this one are.
    below: Option<(u64, u64)>,
}

impl Spent {
    /// Nothing is.
    pub fn clear(&mut self) {
        if !self.writes.is_empty() || self.below.is_some() {
            *self = Self::default();
        }
    }

    /// Whether a write at a stamp's seq may be in the log already.
    pub fn has(&self, table: u32, key: &[u8], column: Option<u32>, stamp: &Stamp) -> bool {
        let all = self.below.is_some_and(|(version, seq)| version == stamp.version && stamp.seq < seq);
        let write = || (stamp.version, table, column, stamp.seq, key.to_vec());
        all || (!self.writes.is_empty() && self.writes.contains(&write()))
    }

    /// A row's clock is replaced by another one: what was written under `dot` and is not there any more is spent. `next_seq` is
    /// the next one that nobody has.
    pub fn note(&mut self, row: (u32, &[u8]), before: &RowClock, after: &RowClock, dot: &Stamp, next_seq: u64) {
        let (table, key) = row;
        let mut add = |column, stamp: &Stamp| {
            if stamp.same_dot(dot) {
                self.writes.insert((stamp.version, table, column, stamp.seq, key.to_vec()));
            }
        };
        for cell in &before.cells {
            if after.cell(cell.column).is_none_or(|c| c.stamp != cell.stamp) {
                add(Some(cell.column), &cell.stamp);
            }
        }
        let lives = [(&before.life, &after.life), (&before.moved, &after.moved)];
        lives
            .into_iter()
            .filter(|(old, new)| old != new)
            .filter_map(|(old, _)| old.as_ref())
            .for_each(|s| add(None, s));
        self.limit(dot.version, next_seq);
    }

    /// As [`Spent::note`] where only one cell was replaced, that had this stamp, which is one of the transaction's dot.
    pub fn note_cell(&mut self, row: (u32, &[u8]), column: u32, before: &Stamp, next_seq: u64) {
        let (table, key) = row;
        self.writes.insert((before.version, table, Some(column), before.seq, key.to_vec()));
        self.limit(before.version, next_seq);
    }

    fn limit(&mut self, version: u64, next_seq: u64) {
        if self.writes.len() > MAX {
            self.writes.clear();
            self.below = Some((version, next_seq));
        }
    }

    /// A local write has superseded something of this dot.
    pub fn note_all(&mut self, version: u64, next_seq: u64) {
        self.below = Some((version, next_seq));
    }
}
