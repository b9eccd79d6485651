//! Records that a bulk write outlives as a whole: `UPDATE t SET …` over all rows leaves nothing of the record that the same
//! statement wrote last time. Such a record goes at once, without a look at any clock, and before the new one is written,
//! which then finds its pages free.

use crate::log::OpenRecord;
use crate::records::Record;
use crate::session::Session;
use crate::sqlite::Result;
use starling_crdt::log_chunk::Kind;
use starling_crdt::row_clock::Stamp;
use std::collections::BTreeMap;

/// Fewer cells of a record than this are left to the sweeps.
const MIN_CELLS: u64 = 1024;

type Dot = (u32, u64);

/// Cells that a flush supersedes, counted by the dot that wrote them.
#[derive(Default)]
pub struct Outlived {
    /// The dot noted last, as most rows of a bulk write have one and the same.
    last: Option<(Dot, u64)>,
    others: BTreeMap<Dot, u64>,
}

/// What went.
#[derive(Clone, Copy, Default)]
pub struct Gone {
    /// Entries of the log.
    pub entries: u64,
    /// Cells that they named.
    pub cells: u64,
}

impl Outlived {
    /// A cell with this stamp has been written anew, or its row is deleted.
    pub fn note(&mut self, stamp: &Stamp) {
        let dot = (stamp.origin, stamp.version);
        match &mut self.last {
            Some((last, count)) if *last == dot => *count += 1,
            slot => {
                if let Some((last, count)) = slot.replace((dot, 1)) {
                    *self.others.entry(last).or_default() += count;
                }
            }
        }
    }

    fn into_counts(self) -> BTreeMap<Dot, u64> {
        let mut counts = self.others;
        if let Some((last, count)) = self.last {
            *counts.entry(last).or_default() += count;
        }
        counts
    }
}

impl Session {
    /// Drops the records of which every cell was superseded; not the one that is being written.
    pub fn drop_outlived(&self, outlived: Outlived, open: &OpenRecord) -> Result<Gone> {
        let mut gone = Gone::default();
        for ((origin, version), cells) in outlived.into_counts() {
            let own = origin == open.origin && version == open.header.dot.version;
            if cells < MIN_CELLS || own {
                continue;
            }
            // A dot with several records came in parts; that is left to the sweeps too.
            if let [record] = self.records_of(origin, version)?.as_slice() {
                // A merge in this very transaction may go on with it.
                if self.tx.borrow().open_records().any(|open| open.db_version == record.db_version) {
                    continue;
                }
                if let Some(entries) = self.names_only(record, cells)? {
                    self.drop_record(record)?;
                    gone.entries += entries;
                    gone.cells += cells;
                }
            }
        }
        Ok(gone)
    }

    /// The number of a record's entries, if they are masks that name just so many cells and nothing else.
    fn names_only(&self, record: &Record, cells: u64) -> Result<Option<u64>> {
        let (mut entries, mut named) = (0, 0);
        let all_masks = self.entries_of(record, &mut |_, entry, _, columns| {
            entries += 1;
            named += columns.len() as u64;
            Ok(entry.kind == Kind::Mask && named <= cells)
        })?;
        Ok((all_masks && named == cells).then_some(entries))
    }
}
