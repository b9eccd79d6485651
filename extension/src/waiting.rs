//! The entries of a flush, which are made in key order and logged in seq order.

use crate::outlived::Outlived;
use starling_crdt::log_chunk::Kind;
use starling_crdt::row_clock::{RowClock, Stamp};

/// An entry that waits for its place in seq order.
#[derive(Clone, Copy)]
pub struct Waiting {
    pub seq: u64,
    pub kind: Kind,
    /// Index of a touch of the same key.
    pub touch: usize,
    /// Where the columns that a mask names stand in the list of all.
    pub columns: (usize, usize),
}

/// Entries, and the columns they name.
#[derive(Default)]
pub struct WaitingList {
    /// They.
    pub entries: Vec<Waiting>,
    /// The columns of all.
    pub columns: Vec<u32>,
    /// What they supersede.
    pub outlived: Outlived,
    /// Some of that was written under this very dot.
    pub own: bool,
}

impl WaitingList {
    /// Buffers larger than this are not kept from flush to flush.
    const KEPT: usize = 1024;

    /// For the next flush.
    pub fn clear(&mut self) {
        self.entries.clear();
        self.columns.clear();
        self.outlived = Outlived::default();
        self.own = false;
    }

    /// Whether to keep it for the next flush.
    pub fn is_small(&self) -> bool {
        self.entries.capacity() <= Self::KEPT && self.columns.capacity() <= Self::KEPT
    }

    /// Puts the entries into seq order, which is that of their touches where each key was touched once.
    pub fn sort(&mut self, touches: usize) {
        const NONE: u32 = u32::MAX;
        if self.entries.len() > 32 {
            let mut at = vec![NONE; touches];
            let mut places = self.entries.iter().zip(0..NONE);
            let mut place = |(entry, i): (&Waiting, u32)| at.get_mut(entry.touch).map(|at| std::mem::replace(at, i));
            if places.all(|entry| place(entry) == Some(NONE)) {
                self.entries = at.iter().filter_map(|i| self.entries.get(*i as usize).copied()).collect();
            }
        }
        if !self.entries.is_sorted_by_key(|w| w.seq) {
            self.entries.sort_unstable_by_key(|w| w.seq);
        }
    }

    /// An entry takes the place of what this stamp says.
    pub fn supersede(&mut self, stamp: &Stamp, dot: &Stamp) {
        self.outlived.note(stamp);
        self.own |= stamp.same_dot(dot);
    }

    /// As [`WaitingList::supersede`], of all that a clock says.
    pub fn supersede_all(&mut self, clock: &RowClock, dot: &Stamp) {
        clock.cells.iter().for_each(|cell| self.supersede(&cell.stamp, dot));
        self.own |= clock.lives().any(|s| s.same_dot(dot));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sorted(entries: &[(u64, usize)], touches: usize) -> Vec<u64> {
        let entry =
            |(seq, touch): &(u64, usize)| Waiting { seq: *seq, kind: Kind::Mask, touch: *touch, columns: (0, 0) };
        let mut list = WaitingList { entries: entries.iter().map(entry).collect(), ..WaitingList::default() };
        list.sort(touches);
        list.entries.iter().map(|e| e.seq).collect()
    }

    #[test]
    fn entries_come_in_seq_order_however_their_touches_lie() {
        let wanted: Vec<u64> = (0..100).collect();
        let one_each: Vec<(u64, usize)> = (0..100).map(|i| (i * 37 % 100, (i * 37 % 100) as usize)).collect();
        assert_eq!(sorted(&one_each, 100), wanted);
        // Some touches without an entry, an entry at the first touch of a key that has several, and two at one touch.
        let spread: Vec<(u64, usize)> = one_each.iter().map(|(seq, touch)| (*seq, touch * 2)).collect();
        assert_eq!(sorted(&spread, 200), wanted);
        let early: Vec<(u64, usize)> = one_each.iter().map(|(seq, touch)| (*seq, 99 - touch)).collect();
        assert_eq!(sorted(&early, 100), wanted);
        let shared: Vec<(u64, usize)> = one_each.iter().map(|(seq, touch)| (*seq, touch / 2)).collect();
        assert_eq!(sorted(&shared, 100), wanted);
        assert_eq!(sorted(&one_each[..7], 100), [0, 11, 22, 37, 48, 74, 85]);
    }
}
