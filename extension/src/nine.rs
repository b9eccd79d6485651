//! Entries that nine-value inserts made and that wait to be logged. Cells come by the thousand, most of them of the row of the
//! cell before: so keys and columns stand one after the other in two buffers.

use starling_crdt::log_chunk::{Kind, TableRef};
use std::ops::Range;

/// Memory for so many bytes of keys is kept.
const KEPT: usize = 1024 * 1024;

/// What waits.
#[derive(Clone, Debug, Default)]
pub struct NineEntries {
    entries: Vec<Place>,
    keys: Vec<u8>,
    columns: Vec<u32>,
}

#[derive(Clone, Debug)]
struct Place {
    table: TableRef,
    kind: Kind,
    seq: u64,
    key: Range<usize>,
    columns: Range<usize>,
}

/// An entry.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NineEntry<'a> {
    /// Its table.
    pub table: TableRef,
    /// Its key, internal form.
    pub key: &'a [u8],
    /// What it says.
    pub kind: Kind,
    /// Its seq, as given.
    pub seq: u64,
    /// The columns it names.
    pub columns: &'a [u32],
}

impl NineEntries {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether none waits.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The memory of these, for others.
    pub fn emptied(mut self) -> Self {
        self.entries.clear();
        self.keys.clear();
        self.columns.clear();
        if self.keys.capacity() > KEPT {
            self.keys = Vec::new();
        }
        self
    }

    /// Adds one.
    pub fn push(&mut self, entry: &NineEntry<'_>) {
        let before = self.entries.last().map(|last| last.key.clone());
        let key = before.filter(|range| self.keys.get(range.clone()) == Some(entry.key)).unwrap_or_else(|| {
            let start = self.keys.len();
            self.keys.extend_from_slice(entry.key);
            start..self.keys.len()
        });
        let start = self.columns.len();
        self.columns.extend_from_slice(entry.columns);
        let columns = start..self.columns.len();
        self.entries.push(Place { table: entry.table, kind: entry.kind, seq: entry.seq, key, columns });
    }

    /// All of them, in the order in which they came.
    pub fn iter(&self) -> impl Iterator<Item = NineEntry<'_>> {
        self.entries.iter().map(|place| NineEntry {
            table: place.table,
            key: self.keys.get(place.key.clone()).unwrap_or_default(),
            kind: place.kind,
            seq: place.seq,
            columns: self.columns.get(place.columns.clone()).unwrap_or_default(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_come_out_as_they_went_in() {
        let (here, there) = (TableRef { id: 1, ..TableRef::default() }, TableRef { id: 2, ..TableRef::default() });
        let entry = |table, key, kind, seq, columns| NineEntry { table, key, kind, seq, columns };
        let all = [
            entry(here, &b"a"[..], Kind::Mask, 3, &[1, 2][..]),
            entry(here, b"a", Kind::Mask, 1, &[3]),
            entry(there, b"a", Kind::Sentinel, 9, &[]),
            entry(there, b"", Kind::Tombstone, 9, &[]),
            entry(here, b"ab", Kind::Mask, 4, &[7]),
            entry(here, b"a", Kind::Mask, 5, &[8]),
        ];
        let mut waiting = NineEntries::default();
        all.iter().for_each(|e| waiting.push(e));
        assert_eq!(waiting.iter().collect::<Vec<_>>(), all);
        assert_eq!((waiting.len(), waiting.keys.as_slice()), (6, &b"aaba"[..]));
    }
}
