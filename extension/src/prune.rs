//! Pruning: entries that nothing lives under any more are dropped from old records, a little with each commit.
//!
//! The newest record carries two running totals: `weight`, all entries of the log, and `garbage`, those superseded and not
//! dropped yet. A sweep is due when garbage is more than half the weight, so the log stays within a constant factor of
//! what lives, and each commit's share of a sweep is in proportion to what it superseded itself. A log that is only added
//! to is never swept.

use crate::catalog::Table;
use crate::log::{flags, Record};
use crate::session::Session;
use crate::sqlite::Result;
use starling_crdt::log_chunk::{ChunkWriter, Entry, Kind, CHUNK_TARGET};
use starling_crdt::row_clock::RowClock;
use std::rc::Rc;

/// Garbage below this is left alone.
const GARBAGE_MIN: u64 = 2048;
/// Entries looked at per commit while a sweep is due, besides four for each that the commit superseded.
const BUDGET: u64 = 256;
/// Entries looked at in one commit at most.
const BUDGET_MAX: u64 = 8_000;

/// Entries whose clocks are looked up together.
const BATCH: usize = 16 * 1024;

/// An entry, and the present state of the row that it names.
struct Logged {
    entry: Entry,
    key: Vec<u8>,
    columns: Vec<u32>,
    table: Option<Rc<Table>>,
    clock: Option<RowClock>,
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
        let mut batch = Vec::new();
        self.entries_of(record, &mut |record, entry, key, columns| {
            let (key, columns) = (key.to_vec(), columns.to_vec());
            batch.push(Logged { entry: *entry, key, columns, table: None, clock: None });
            if batch.len() >= BATCH {
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
        batch: &mut Vec<Logged>,
        writer: &mut ChunkWriter,
        out: &mut Rewritten,
    ) -> Result<()> {
        let mut order: Vec<usize> = (0..batch.len()).collect();
        order.sort_unstable_by_key(|i| batch.get(*i).map(|e| (e.entry.table.id, e.key.as_slice())));
        for i in order {
            let Some(logged) = batch.get_mut(i) else { continue };
            logged.table = self.table(logged.entry.table.id)?;
            if let Some(table) = &logged.table {
                logged.clock = self.get_clock(table, &logged.key)?;
            }
        }
        for logged in batch.drain(..) {
            keep_live(record, &logged, writer, out);
            if writer.size() >= CHUNK_TARGET {
                out.chunks.push(writer.take());
            }
        }
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
            let mut token =
                self.fixed("INSERT OR REPLACE INTO main.crsql_token(origin, version, token) VALUES(?1, ?2, ?3)")?;
            token.bind_int(1, i64::from(record.origin))?;
            token.bind_int(2, record.version.cast_signed())?;
            token.bind_int(3, record.token.cast_signed())?;
            token.execute()?;
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

/// Copies what still lives of an entry.
fn keep_live(record: &Record, logged: &Logged, writer: &mut ChunkWriter, out: &mut Rewritten) {
    let (entry, clock) = (&logged.entry, logged.clock.as_ref());
    let mut keep = |kind, seq, columns: &[u32]| {
        writer.push(kind, entry.table, &logged.key, seq, columns);
        out.kept += 1;
    };
    match entry.kind {
        // An archived table's entries wait with it (X3).
        _ if logged.table.is_none() => keep(entry.kind, entry.seq, &logged.columns),
        Kind::Base | Kind::Rebase if record.is_base(entry, clock) => keep(entry.kind, entry.seq, &[]),
        // Another base has taken over, but the '-1' row is still this write's.
        Kind::Rebase if record.is_life(entry, clock) => keep(Kind::Sentinel, entry.seq, &[]),
        Kind::Tombstone | Kind::Sentinel if record.is_life(entry, clock) => keep(entry.kind, entry.seq, &[]),
        Kind::Mask => {
            let mut live = 0;
            for (id, seq) in logged.columns.iter().zip(entry.seq..) {
                let cell = clock.filter(|c| c.is_alive()).and_then(|c| c.cell(*id));
                if cell.is_some_and(|c| record.is_at(&c.stamp, seq)) {
                    live += 1;
                    // Each by itself: a mask's seqs run on, and there may be holes now.
                    keep(Kind::Mask, seq, &[*id]);
                }
            }
            if live < logged.columns.len() {
                out.dropped += 1;
            }
        }
        _ => out.dropped += 1,
    }
}
