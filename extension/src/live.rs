//! Which of the cells that a log entry names still belong to it (I2).

use crate::catalog::Table;
use crate::records::Record;
use crate::session::{corrupt, Session};
use crate::sqlite::Result;
use starling_crdt::log_chunk::{ChunkReader, Entry, Kind};
use starling_crdt::row_clock::{RowClock, Stamp};

impl Record {
    /// The stamp of this record's dot at a seq.
    pub fn stamp(&self, seq: u64) -> Stamp {
        Stamp { origin: self.head.origin, version: self.version, seq, author: 0 }
    }

    /// Whether a stamp is this record's dot at a seq, whoever the author.
    pub fn is_at(&self, stamp: &Stamp, seq: u64) -> bool {
        stamp.origin == self.head.origin && stamp.version == self.version && stamp.seq == seq
    }

    /// Whether a base entry is the base of the row's present lifetime. `clock` is `None` for a row without one.
    pub fn is_base(&self, entry: &Entry, clock: Option<&RowClock>) -> bool {
        match clock {
            None => entry.kind == Kind::Base,
            Some(c) if !c.is_alive() || !c.based => false,
            Some(c) => match &c.life {
                Some(life) => self.is_at(life, entry.seq),
                None => c.cl == 1 && entry.kind == Kind::Base,
            },
        }
    }

    /// Whether a tombstone or `'-1'` entry stands for the row's present life.
    pub fn is_life(&self, entry: &Entry, clock: Option<&RowClock>) -> bool {
        clock.and_then(RowClock::sentinel).is_some_and(|s| self.is_at(&s, entry.seq))
    }
}

/// What is called for each entry: its record, the entry, its key, the columns that it names. `false` ends the scan.
pub type EachEntry<'f> = &'f mut dyn FnMut(&Record, &Entry, &[u8], &[u32]) -> Result<bool>;

impl Session {
    /// Calls `f` with every entry of a record, in order; `false` if `f` ended the scan.
    pub fn entries_of(&self, record: &Record, f: EachEntry<'_>) -> Result<bool> {
        for n in 0..=record.head.chunks {
            let chunk = record.chunk(self, n)?;
            let mut reader = ChunkReader::new(&chunk).map_err(|e| corrupt("a log chunk", e))?;
            while let Some(entry) = reader.next_entry().map_err(|e| corrupt("a log chunk", e))? {
                if !f(record, &entry, reader.key(), reader.columns())? {
                    return Ok(false);
                }
            }
        }
        Ok(true)
    }

    /// Calls `f` with every entry of the log, in order, until it says `false`.
    pub fn each_entry(&self, f: EachEntry<'_>) -> Result<()> {
        let mut last = 0u64;
        while let Some(record) = self.record_after(last)? {
            last = record.db_version;
            if !self.entries_of(&record, f)? {
                break;
            }
        }
        Ok(())
    }

    /// The base of a row in its first lifetime, which no clock names: the log is searched.
    pub fn base_stamp(&self, table: &Table, key: &[u8]) -> Result<Option<Stamp>> {
        let clock = self.get_clock(table, key)?;
        let mut base = None;
        self.each_entry(&mut |record, entry, at, _| {
            if entry.table.id == table.info.id && at == key && record.is_base(entry, clock.as_ref()) {
                base = Some(record.stamp(entry.seq));
            }
            Ok(base.is_none())
        })?;
        Ok(base)
    }
}
