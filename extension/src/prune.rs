//! Pruning: entries that nothing lives under any more are dropped from old records, a little with each commit.
//!
//! The newest record carries two running totals: `weight`, all entries of the log, and `garbage`, those superseded and not
//! dropped yet. A sweep is due when garbage is more than half the weight, so the log stays within a constant factor of
//! what lives, and each commit's share of a sweep is in proportion to what it superseded itself. A log that is only added
//! to is never swept.

use crate::catalog::Table;
use crate::journal::in_key_order;
use crate::log::{flags, Record};
use crate::session::Session;
use crate::sqlite::Result;
use starling_crdt::log_chunk::{ChunkWriter, Entry, Kind, CHUNK_TARGET};
use starling_crdt::row_clock::RowClock;
use std::ops::Range;

/// Garbage below this is left alone.
const GARBAGE_MIN: u64 = 2048;
/// Entries looked at per commit while a sweep is due, besides four for each that the commit superseded.
const BUDGET: u64 = 256;
/// Entries looked at in one commit at most.
const BUDGET_MAX: u64 = 8_000;

/// Entries whose clocks are looked up together, in key order: the more, the fewer blocks are read twice.
const BATCH: usize = 128 * 1024;

/// An entry; its key and columns lie in the batch.
struct Logged {
    entry: Entry,
    key: Range<usize>,
    columns: Range<usize>,
    fate: Fate,
}

/// What becomes of an entry.
#[derive(Clone)]
enum Fate {
    /// Nothing lives under it.
    Dropped,
    /// It stays, as this kind.
    Kept(Kind),
    /// Of a mask, these of its columns live: a range of the batch's `live`.
    Cells(Range<usize>),
}

/// Entries of one record.
#[derive(Default)]
struct Batch {
    entries: Vec<Logged>,
    keys: Vec<u8>,
    columns: Vec<u32>,
    /// Positions of columns within their mask.
    live: Vec<usize>,
}

/// A record's chunks, rewritten.
struct Rewritten {
    chunks: Vec<Vec<u8>>,
    kept: u64,
    dropped: u64,
}

impl Session {
    /// A commit's share of a sweep, if one is due. `superseded` is what the commit itself made garbage of.
    pub fn prune_some(&self, superseded: u64) -> Result<()> {
        let tail = self.tail()?;
        if tail.garbage < GARBAGE_MIN || tail.garbage * 2 < tail.weight {
            return Ok(());
        }
        self.prune((BUDGET + superseded.saturating_mul(4)).min(BUDGET_MAX)).map(|_| ())
    }

    /// Looks at about `budget` entries of the oldest records after the place where the last sweep stopped; returns how
    /// many entries were dropped.
    pub fn prune(&self, budget: u64) -> Result<u64> {
        let newest = self.tail()?.db_version;
        let mut at = self.int("SELECT coalesce((SELECT value FROM main.crsql_master WHERE key = 'sweep'), 0)")?.max(0);
        let (mut seen, mut dropped) = (0, 0);
        while seen < budget {
            let Some(record) = self.record_after(at.cast_unsigned())?.filter(|r| r.db_version < newest) else {
                at = 0;
                break;
            };
            at = record.db_version.cast_signed();
            let rewritten = self.rewrite(&record)?;
            seen += rewritten.kept + rewritten.dropped + 1;
            if rewritten.dropped > 0 {
                dropped += rewritten.dropped;
                self.store_pruned(&record, &rewritten)?;
            }
        }
        let mut set = self.fixed("INSERT OR REPLACE INTO main.crsql_master(key, value) VALUES('sweep', ?1)")?;
        set.bind_int(1, at)?;
        set.execute()?;
        drop(set);
        if dropped > 0 || at == 0 {
            self.count_dropped(newest, dropped, at == 0)?;
        }
        Ok(dropped)
    }

    /// Lowers the totals in the newest record; at the end of a whole sweep nothing is left to be dropped.
    fn count_dropped(&self, newest: u64, dropped: u64, whole: bool) -> Result<()> {
        let mut set = self.fixed(
            "UPDATE main.crsql_log SET weight = max(weight - ?2, 0), \
             garbage = CASE WHEN ?3 THEN 0 ELSE max(garbage - ?2, 0) END WHERE db_version = ?1",
        )?;
        set.bind_int(1, newest.cast_signed())?;
        set.bind_int(2, dropped.cast_signed())?;
        set.bind_int(3, i64::from(whole))?;
        set.execute()?;
        drop(set);
        self.tx_mut().forget_tail();
        Ok(())
    }

    fn rewrite(&self, record: &Record) -> Result<Rewritten> {
        let mut out = Rewritten { chunks: Vec::new(), kept: 0, dropped: 0 };
        let mut writer = ChunkWriter::new();
        let mut batch = Batch::default();
        self.entries_of(record, &mut |record, entry, key, columns| {
            batch.push(entry, key, columns);
            if batch.entries.len() >= BATCH {
                self.keep_batch(record, &mut batch, &mut writer, &mut out)?;
            }
            Ok(true)
        })?;
        self.keep_batch(record, &mut batch, &mut writer, &mut out)?;
        if !writer.is_empty() {
            out.chunks.push(writer.take());
        }
        Ok(out)
    }

    /// Copies what still lives of a batch of entries. Their clocks are looked up in key order, block by block.
    fn keep_batch(
        &self,
        record: &Record,
        batch: &mut Batch,
        writer: &mut ChunkWriter,
        out: &mut Rewritten,
    ) -> Result<()> {
        let Batch { entries, keys, columns, live } = batch;
        let named = |i: usize| entries.get(i).map_or((0, &[][..]), |e| (e.entry.table.id, &keys[e.key.clone()]));
        for i in in_key_order(0..entries.len(), named) {
            let Some(logged) = entries.get_mut(i) else { continue };
            let key = &keys[logged.key.clone()];
            logged.fate = match self.table(logged.entry.table.id)? {
                // An archived table's entries wait with it (X3).
                None => Fate::Kept(logged.entry.kind),
                Some(table) => {
                    let clock = self.get_clock(&table, key)?;
                    fate(record, &logged.entry, &columns[logged.columns.clone()], &table, clock.as_ref(), live)
                }
            };
        }
        for logged in batch.entries.drain(..) {
            let key = &batch.keys[logged.key];
            let columns = &batch.columns[logged.columns];
            copy_live(&logged.entry, key, columns, &logged.fate, &batch.live, writer, out);
            if writer.size() >= CHUNK_TARGET {
                out.chunks.push(writer.take());
            }
        }
        batch.keys.clear();
        batch.columns.clear();
        batch.live.clear();
        Ok(())
    }

    fn store_pruned(&self, record: &Record, rewritten: &Rewritten) -> Result<()> {
        let version = record.db_version.cast_signed();
        {
            let mut chunks = self.fixed("DELETE FROM main.crsql_log_chunk WHERE db_version = ?1")?;
            chunks.bind_int(1, version)?;
            chunks.execute()?;
        }
        if rewritten.chunks.is_empty() {
            // The token outlives its record: it tells a dot that is used twice.
            self.keep_token(record.origin, record.version, record.token)?;
            let mut drop = self.fixed("DELETE FROM main.crsql_log WHERE db_version = ?1")?;
            drop.bind_int(1, version)?;
            return drop.execute();
        }
        let inline = rewritten.chunks.len() == 1;
        for (n, chunk) in rewritten.chunks.iter().enumerate().filter(|_| !inline) {
            let mut add = self.fixed("INSERT INTO main.crsql_log_chunk(db_version, n, entries) VALUES(?1, ?2, ?3)")?;
            add.bind_int(1, version)?;
            add.bind_int(2, n as i64)?;
            add.bind_blob(3, chunk)?;
            add.execute()?;
        }
        // What was dropped cannot be named any more: the record makes no changeset that may be claimed.
        let mut set =
            self.fixed("UPDATE main.crsql_log SET entries = ?2, chunks = ?3, flags = ?4 WHERE db_version = ?1")?;
        set.bind_int(1, version)?;
        set.bind_blob(2, rewritten.chunks.first().filter(|_| inline).map_or(&[][..], Vec::as_slice))?;
        set.bind_int(3, if inline { 0 } else { rewritten.chunks.len() as i64 })?;
        set.bind_int(4, record.flags & !flags::WHOLE)?;
        set.execute()
    }
}

impl Batch {
    fn push(&mut self, entry: &Entry, key: &[u8], columns: &[u32]) {
        let (key_start, column_start) = (self.keys.len(), self.columns.len());
        self.keys.extend_from_slice(key);
        self.columns.extend_from_slice(columns);
        self.entries.push(Logged {
            entry: *entry,
            key: key_start..self.keys.len(),
            columns: column_start..self.columns.len(),
            fate: Fate::Dropped,
        });
    }
}

/// What of an entry still lives; `clock` is its row's. A clock goes on listing cells of columns that were dropped, which
/// belong to nothing any more.
fn fate(
    record: &Record,
    entry: &Entry,
    columns: &[u32],
    table: &Table,
    clock: Option<&RowClock>,
    live: &mut Vec<usize>,
) -> Fate {
    match entry.kind {
        Kind::Base | Kind::Rebase if record.is_base(entry, clock) => Fate::Kept(entry.kind),
        // Another base has taken over, but the '-1' row is still this write's.
        Kind::Rebase if record.is_life(entry, clock) => Fate::Kept(Kind::Sentinel),
        Kind::Tombstone | Kind::Sentinel if record.is_life(entry, clock) => Fate::Kept(entry.kind),
        Kind::Mask => {
            let start = live.len();
            for (position, (id, seq)) in columns.iter().zip(entry.seq..).enumerate() {
                let cell = clock.filter(|c| c.is_alive()).and_then(|c| c.cell(*id));
                let carries = cell.is_some_and(|c| record.is_at(&c.stamp, seq));
                if carries && table.info.position(*id).is_some() {
                    live.push(position);
                }
            }
            Fate::Cells(start..live.len())
        }
        _ => Fate::Dropped,
    }
}

/// Copies what still lives of an entry.
fn copy_live(
    entry: &Entry,
    key: &[u8],
    columns: &[u32],
    fate: &Fate,
    live: &[usize],
    writer: &mut ChunkWriter,
    out: &mut Rewritten,
) {
    match fate {
        Fate::Dropped => out.dropped += 1,
        Fate::Kept(kind) => {
            let columns = if *kind == Kind::Mask { columns } else { &[] };
            writer.push(*kind, entry.table, key, entry.seq, columns);
            out.kept += 1;
        }
        Fate::Cells(range) if range.len() == columns.len() => {
            writer.push(Kind::Mask, entry.table, key, entry.seq, columns);
            out.kept += 1;
        }
        Fate::Cells(range) => {
            // Each by itself: a mask's seqs run on, and there are holes now.
            for position in live.get(range.clone()).unwrap_or_default() {
                let Some(column) = columns.get(*position) else { continue };
                writer.push(Kind::Mask, entry.table, key, entry.seq + *position as u64, &[*column]);
                out.kept += 1;
            }
            out.dropped += 1;
        }
    }
}
