//! Pruning: entries that nothing lives under any more are dropped from old records, a little with each commit.
//!
//! The newest record carries two running totals: `weight`, all entries of the log, and `garbage`, those superseded and not
//! dropped yet. A sweep is due when garbage is more than half the weight, so the log stays within a constant factor of
//! what lives, and each commit's share of a sweep is in proportion to what it superseded itself. A log that is only added
//! to is never swept.

use crate::catalog::Table;
use crate::key_order::in_key_order;
use crate::records::Record;
use crate::session::{corrupt, Session};
use crate::sqlite::Result;
use starling_crdt::log_chunk::{ChunkReader, ChunkWriter, Entry, Kind, CHUNK_TARGET};
use starling_crdt::record::flags;
use starling_crdt::row_clock::RowClock;
use std::collections::hash_map;
use std::collections::HashMap;
use std::ops::Range;
use std::rc::Rc;

/// Garbage below this is left alone.
const GARBAGE_MIN: u64 = 2048;
/// Entries looked at per commit while a sweep is due, besides four for each that the commit superseded.
const BUDGET: u64 = 256;
/// Entries looked at in one commit at most, while less than three quarters of the log are garbage.
const BUDGET_MAX: u64 = 8_000;

/// Entries whose clocks are looked up together, in key order: the more, the fewer blocks are read twice.
const BATCH: usize = 128 * 1024;

/// An entry; its key and columns lie in the batch.
struct Logged {
    /// The chunk of its record that it stands in.
    chunk: u64,
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

/// Entries of some chunks of one record.
#[derive(Default)]
struct Batch {
    entries: Vec<Logged>,
    keys: Vec<u8>,
    columns: Vec<u32>,
    /// Positions of columns within their mask.
    live: Vec<usize>,
}

/// Where a sweep goes on: at this chunk of the record, 0 = at the record after it.
#[derive(Clone, Copy, Default)]
struct Position {
    record: u64,
    chunk: u64,
}

/// The tables that a sweep has met. One that is gone would be looked for in the whole schema for each entry.
type Tables = HashMap<u32, Option<Rc<Table>>>;

/// What a step of a sweep came to.
struct Swept {
    /// The chunk to go on with; `None` when the record is done.
    next: Option<u64>,
    seen: u64,
    dropped: u64,
}

impl Session {
    /// A commit's share of a sweep, if one is due. `superseded` is what the commit itself made garbage of.
    pub fn prune_some(&self, superseded: u64) -> Result<()> {
        let tail = self.tail()?;
        if tail.garbage < GARBAGE_MIN || tail.garbage * 2 < tail.weight {
            return Ok(());
        }
        let share = BUDGET + superseded.saturating_mul(4);
        // Where bulk writes leave garbage faster than the cap lets it be swept, they must sweep what they leave.
        let cap = if tail.garbage * 4 > tail.weight * 3 { superseded.saturating_mul(2) } else { 0 };
        self.prune(share.min(cap.max(BUDGET_MAX))).map(|_| ())
    }

    /// As [`Session::prune_some`], for what merges of this transaction have made garbage of.
    pub fn sweep_after_merges(&self) -> Result<()> {
        if self.tx.borrow().unswept == 0 {
            return Ok(());
        }
        let unswept = std::mem::take(&mut self.tx_mut().unswept);
        self.prune_some(unswept)
    }

    /// Looks at about `budget` entries of the oldest records after the place where the last sweep stopped; returns how
    /// many entries were dropped.
    pub fn prune(&self, budget: u64) -> Result<u64> {
        if !self.tx.borrow().windows.is_empty() {
            // What becomes of columns that have another name for now is not known before the window ends.
            return Ok(0);
        }
        // What carries young clocks is not to be written anew.
        self.age()?;
        let newest = self.tail()?.db_version;
        // Nor is a record that this transaction may go on with; a merge's may stand behind its own.
        let end = self.tx.borrow().open_records().fold(newest, |end, open| end.min(open.db_version));
        let mut at = self.sweep_position()?;
        let mut tables = HashMap::new();
        let (mut seen, mut dropped, mut whole) = (0, 0, false);
        while seen < budget {
            let Some((record, first)) = self.next_to_sweep(at)?.filter(|(r, _)| r.db_version < end) else {
                at = Position::default();
                whole = true;
                break;
            };
            let swept = self.sweep(&record, first, budget - seen, &mut tables)?;
            seen += swept.seen;
            dropped += swept.dropped;
            at = Position { record: record.db_version, chunk: swept.next.unwrap_or(0) };
        }
        let mut set = self
            .fixed("INSERT OR REPLACE INTO main.crsql_master(key, value) VALUES('sweep', ?1), ('sweep_chunk', ?2)")?;
        set.bind_int(1, at.record.cast_signed())?;
        set.bind_int(2, at.chunk.cast_signed())?;
        set.execute()?;
        drop(set);
        if dropped > 0 || whole {
            self.count_dropped(newest, dropped, dropped, whole)?;
        }
        Ok(dropped)
    }

    fn sweep_position(&self) -> Result<Position> {
        let number = |n: i64| n.max(0).cast_unsigned();
        let record = self.int("SELECT coalesce((SELECT value FROM main.crsql_master WHERE key = 'sweep'), 0)")?;
        let chunk = self.int("SELECT coalesce((SELECT value FROM main.crsql_master WHERE key = 'sweep_chunk'), 0)")?;
        Ok(Position { record: number(record), chunk: number(chunk) })
    }

    /// The record to go on with, and the chunk of it.
    fn next_to_sweep(&self, at: Position) -> Result<Option<(Record, u64)>> {
        if at.chunk > 0 {
            if let Some(record) = self.record_at(at.record)?.filter(|r| r.head.chunks >= at.chunk) {
                return Ok(Some((record, at.chunk)));
            }
        }
        Ok(self.record_after(at.record)?.map(|record| (record, 0)))
    }

    /// Lowers the totals in the newest record; at the end of a whole sweep nothing is left to be dropped.
    pub fn count_dropped(&self, newest: u64, entries: u64, garbage: u64, whole: bool) -> Result<()> {
        self.amend(newest, |record| {
            record.head.weight = record.head.weight.saturating_sub(entries);
            record.head.garbage = if whole { 0 } else { record.head.garbage.saturating_sub(garbage) };
        })?;
        self.forget_tail();
        Ok(())
    }

    /// Drops what is dead in the chunks of a record from `first` on, as many as the budget allows, and one at least.
    fn sweep(&self, record: &Record, first: u64, budget: u64, tables: &mut Tables) -> Result<Swept> {
        let mut batch = Batch::default();
        let mut n = first;
        while n <= record.head.chunks && (n == first || batch.entries.len() < BATCH.min(budget as usize)) {
            let chunk = record.chunk(self, n)?;
            let mut reader = ChunkReader::new(&chunk).map_err(|e| corrupt("a log chunk", e))?;
            while let Some(entry) = reader.next_entry().map_err(|e| corrupt("a log chunk", e))? {
                batch.push(n, &entry, reader.key(), reader.columns());
            }
            n += 1;
        }
        self.decide_fates(record, &mut batch, tables)?;
        let dropped = self.store_swept(record, &batch)?;
        let done = n > record.head.chunks;
        if done && record.head.chunks > 0 {
            self.close_swept(record.db_version)?;
        }
        let seen = batch.entries.len() as u64 + (n - first);
        Ok(Swept { next: (!done).then_some(n), seen, dropped })
    }

    /// Looks the clocks up in key order, block by block.
    fn decide_fates(&self, record: &Record, batch: &mut Batch, tables: &mut Tables) -> Result<()> {
        let Batch { entries, keys, columns, live } = batch;
        let named = |i: usize| entries.get(i).map_or((0, &[][..]), |e| (e.entry.table.id, &keys[e.key.clone()]));
        for i in in_key_order(0..entries.len(), named) {
            let Some(logged) = entries.get_mut(i) else { continue };
            let key = &keys[logged.key.clone()];
            let table = match tables.entry(logged.entry.table.id) {
                hash_map::Entry::Occupied(known) => known.into_mut(),
                hash_map::Entry::Vacant(new) => new.insert(self.table(logged.entry.table.id)?),
            };
            logged.fate = match table {
                // An archived table's entries wait with it (X3).
                None => Fate::Kept(logged.entry.kind),
                Some(table) => {
                    let clock = self.get_clock(table, key)?;
                    fate(record, &logged.entry, &columns[logged.columns.clone()], table, clock.as_ref(), live)
                }
            };
        }
        Ok(())
    }

    /// Writes the chunks anew that lost something. Returns how many entries were dropped.
    fn store_swept(&self, record: &Record, batch: &Batch) -> Result<u64> {
        let (mut writer, mut total) = (ChunkWriter::new(), 0);
        for of_chunk in batch.entries.chunk_by(|a, b| a.chunk == b.chunk) {
            let mut dropped = 0;
            for logged in of_chunk {
                dropped += u64::from(copy_live(logged, batch, &mut writer));
            }
            let bytes = if writer.is_empty() { Vec::new() } else { writer.take() };
            if let Some(chunk) = of_chunk.first().map(|l| l.chunk).filter(|_| dropped > 0) {
                self.store_chunk(record, chunk, &bytes)?;
            }
            total += dropped;
        }
        if total > 0 && record.head.flags & flags::WHOLE != 0 {
            // What was dropped cannot be named any more: the record makes no changeset that may be claimed.
            self.amend(record.db_version, |record| record.head.flags &= !flags::WHOLE)?;
        }
        Ok(total)
    }

    fn store_chunk(&self, record: &Record, chunk: u64, bytes: &[u8]) -> Result<()> {
        if bytes.is_empty() && record.head.chunks == 0 {
            return self.drop_record(record);
        }
        if chunk == 0 {
            return self.amend(record.db_version, |record| record.entries = bytes.to_vec());
        }
        let mut set =
            self.fixed("UPDATE main.crsql_log_chunk SET entries = ?3 WHERE db_version = ?1 AND n = ?2 - 1")?;
        set.bind_int(1, record.db_version.cast_signed())?;
        set.bind_int(2, chunk.cast_signed())?;
        set.bind_blob(3, bytes)?;
        set.execute()
    }

    /// The record goes; its token outlives it, to tell a dot that is used twice.
    pub fn drop_record(&self, record: &Record) -> Result<()> {
        self.age()?;
        self.keep_token(record.head.origin, record.version, record.head.token)?;
        self.drop_chunks(record.db_version)?;
        self.remove_record(record)
    }

    fn drop_chunks(&self, db_version: u64) -> Result<()> {
        let mut chunks = self.fixed("DELETE FROM main.crsql_log_chunk WHERE db_version = ?1")?;
        chunks.bind_int(1, db_version.cast_signed())?;
        chunks.execute()
    }

    /// A record of many chunks was swept to its end: what is left of it moves together where half of the room is not used
    /// any more.
    fn close_swept(&self, db_version: u64) -> Result<()> {
        let Some(record) = self.record_at(db_version)? else { return Ok(()) };
        let left = {
            let mut sum =
                self.fixed("SELECT coalesce(sum(length(entries)), 0) FROM main.crsql_log_chunk WHERE db_version = ?1")?;
            sum.bind_int(1, db_version.cast_signed())?;
            sum.step()?;
            sum.column_int(0).max(0).cast_unsigned() + record.entries.len() as u64
        };
        if left == 0 {
            return self.drop_record(&record);
        }
        if left > record.head.chunks * CHUNK_TARGET as u64 / 2 {
            return Ok(());
        }
        let (mut chunks, mut writer) = (Vec::new(), ChunkWriter::new());
        self.entries_of(&record, &mut |_, entry, key, columns| {
            let columns = if entry.kind == Kind::Mask { columns } else { &[] };
            writer.push(entry.kind, entry.table, key, entry.seq, columns);
            if writer.size() >= CHUNK_TARGET {
                chunks.push(writer.take());
            }
            Ok(true)
        })?;
        if !writer.is_empty() {
            chunks.push(writer.take());
        }
        self.store_chunks(&record, &chunks)
    }

    fn store_chunks(&self, record: &Record, chunks: &[Vec<u8>]) -> Result<()> {
        self.drop_chunks(record.db_version)?;
        let inline = chunks.len() == 1;
        for (n, chunk) in chunks.iter().enumerate().filter(|_| !inline) {
            let mut add = self.fixed("INSERT INTO main.crsql_log_chunk(db_version, n, entries) VALUES(?1, ?2, ?3)")?;
            add.bind_int(1, record.db_version.cast_signed())?;
            add.bind_int(2, n as i64)?;
            add.bind_blob(3, chunk)?;
            add.execute()?;
        }
        self.amend(record.db_version, |record| {
            record.entries = chunks.first().filter(|_| inline).cloned().unwrap_or_default();
            record.head.chunks = if inline { 0 } else { chunks.len() as u64 };
        })
    }
}

impl Batch {
    fn push(&mut self, chunk: u64, entry: &Entry, key: &[u8], columns: &[u32]) {
        let (key_start, column_start) = (self.keys.len(), self.columns.len());
        self.keys.extend_from_slice(key);
        self.columns.extend_from_slice(columns);
        self.entries.push(Logged {
            chunk,
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

/// Copies what still lives of an entry; whether something of it was dropped.
fn copy_live(logged: &Logged, batch: &Batch, writer: &mut ChunkWriter) -> bool {
    let Logged { entry, fate, .. } = logged;
    let key = &batch.keys[logged.key.clone()];
    let columns = &batch.columns[logged.columns.clone()];
    match fate {
        Fate::Dropped => true,
        Fate::Kept(kind) => {
            let columns = if *kind == Kind::Mask { columns } else { &[] };
            writer.push(*kind, entry.table, key, entry.seq, columns);
            false
        }
        Fate::Cells(range) if range.len() == columns.len() => {
            writer.push(Kind::Mask, entry.table, key, entry.seq, columns);
            false
        }
        Fate::Cells(range) => {
            // Each by itself: a mask's seqs run on, and there are holes now.
            for position in batch.live.get(range.clone()).unwrap_or_default() {
                let Some(column) = columns.get(*position) else { continue };
                writer.push(Kind::Mask, entry.table, key, entry.seq + *position as u64, &[*column]);
            }
            true
        }
    }
}
