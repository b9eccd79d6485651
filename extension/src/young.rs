//! Young clocks: the row clocks of the newest small transactions, which live in their log records for a while.
//!
//! A transaction that writes one row would change a page of clock blocks besides the row's page and the log's. So its clocks
//! go into its log record, and move into their blocks some dozens at a time. The newest record says how far back the
//! records go whose clocks are in force. Whoever looks for a row's clock looks here first; whoever writes into the blocks
//! moves all of them there before (`age`), so a row never has one in a block that is newer than the one here.

use crate::clock_map::{by_key, ClockMap, Named};
use crate::log::Tail;
use crate::session::{corrupt, Session};
use crate::sqlite::Result;
use starling_crdt::log_chunk::ChunkReader;
use starling_crdt::record::Side;
use starling_crdt::row_clock::RowClock;
use starling_crdt::young;
use std::borrow::Cow;

/// A transaction of more touches than this writes its clocks into their blocks.
pub const SMALL: usize = 4;
/// A chain of records that reaches back further ends. The longer it is, the more clocks share a block when they move there,
/// and the more records a connection reads that has seen none of them.
const MAX_BACK: u64 = 2048;

/// The clocks of a small transaction that is being flushed: table, key, clock.
pub type Fresh = Vec<(u32, Vec<u8>, Vec<u8>)>;

/// The clocks in force, as this connection read them last.
#[derive(Default)]
pub struct Young {
    /// What they go back to.
    seen: Option<Seen>,
    /// The file's version when that was last found right outside of a write transaction.
    as_of: Option<u32>,
    /// The newest one of each row: its clock, or the sum of its deltas.
    clocks: ClockMap,
    /// Those that came after them, oldest first: many a clock is moved before anybody looks for one.
    recent: Fresh,
    /// Cells that deltas among them supersede.
    superseded: u64,
}

/// The newest record, and where the records in force begin. A token is never drawn twice, so this tells what they are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Seen {
    db_version: u64,
    token: u64,
    oldest: Option<u64>,
}

impl Seen {
    fn of(tail: &Tail) -> Self {
        Self { db_version: tail.db_version, token: tail.token, oldest: tail.young }
    }
}

impl Young {
    fn clear(&mut self) {
        (self.seen, self.as_of, self.superseded) = (None, None, 0);
        self.clocks.clear();
        self.recent.clear();
    }

    /// Looks the recent ones over.
    fn index(&mut self) -> Result<()> {
        for (table, key, clock) in std::mem::take(&mut self.recent) {
            // Should one be damaged, nothing may be believed until all are read again.
            self.add(table, key, clock).inspect_err(|_| self.clear())?;
        }
        Ok(())
    }

    /// All of them in the order of tables and keys, those of a row from the oldest to the newest: table, key, clock.
    fn sorted(&self) -> Vec<Named<'_>> {
        let recent = self.recent.iter().map(|(table, key, clock)| (*table, key.as_slice(), clock.as_slice()));
        by_key(self.clocks.iter().chain(recent))
    }

    /// One more, newer than all the others.
    fn add(&mut self, table: u32, key: Vec<u8>, clock: Vec<u8>) -> Result<()> {
        let delta = RowClock::encodes_delta(&clock);
        let sum = match self.clocks.get(table, &key).filter(|_| delta) {
            Some(older) => {
                let (sum, superseded) = sum(older, &clock)?;
                self.superseded += superseded;
                sum
            }
            None => clock,
        };
        self.clocks.set(table, key, sum);
        Ok(())
    }
}

/// A clock with a delta counted on it, and how many cells that supersedes.
fn sum(older: &[u8], delta: &[u8]) -> Result<(Vec<u8>, u64)> {
    let mut sum = decode(older)?;
    let superseded = sum.count_on(&decode(delta)?);
    let mut bytes = Vec::with_capacity(older.len() + delta.len());
    sum.encode(&mut bytes);
    Ok((bytes, superseded))
}

fn decode(clock: &[u8]) -> Result<RowClock> {
    RowClock::decode(clock).map_err(|e| corrupt("a young clock", e))
}

/// A record's young clocks: its entries, and a slot for each.
struct Carrier {
    entries: Vec<u8>,
    slots: Vec<u8>,
}

impl Session {
    /// A row's clock, if it is a young one.
    pub fn young_clock<T>(&self, table: u32, key: &[u8], read: impl FnOnce(&[u8]) -> T) -> Result<Option<T>> {
        self.know_young()?;
        let mut young = self.young.borrow_mut();
        young.index()?;
        Ok(young.clocks.get(table, key).map(read))
    }

    /// Whether a table has young clocks.
    pub fn any_young(&self, table: u32) -> Result<bool> {
        self.know_young()?;
        let mut young = self.young.borrow_mut();
        young.index()?;
        Ok(young.clocks.any(table))
    }

    /// Whether the records in force go back too far.
    pub fn young_is_long(&self) -> Result<bool> {
        let tail = self.tail()?;
        Ok(tail.young.is_some_and(|oldest| tail.db_version.saturating_sub(oldest) >= MAX_BACK))
    }

    /// Sees to it that the clocks in memory are those of the file.
    fn know_young(&self) -> Result<()> {
        if self.tx.borrow().active {
            let seen = Seen::of(&self.tail()?);
            if self.young.borrow().seen == Some(seen) {
                return Ok(());
            }
            if seen.oldest.is_none() {
                let mut young = self.young.borrow_mut();
                young.clear();
                young.seen = Some(seen);
                return Ok(());
            }
            return self.read_young();
        }
        let now = self.db.file_version();
        if now.is_some() && self.young.borrow().as_of == now {
            return Ok(());
        }
        self.read_young()
    }

    /// Before a read: another file beneath the connection may have just the version of the one before, so the newest record
    /// must be seen once.
    pub fn doubt_young(&self) {
        self.young.borrow_mut().as_of = None;
    }

    /// Reads the records in force, as far as they are not known yet: all in one statement, so of one moment.
    fn read_young(&self) -> Result<()> {
        let known = self.young.borrow().seen;
        let mut carriers = Vec::new();
        let mut seen: Option<Seen> = None;
        let mut goes_on = false;
        let mut as_of = None;
        self.newest_first(&mut |record| {
            if seen.is_none() {
                // Within the read, or it might be a later moment's.
                as_of = self.db.file_version();
            }
            let oldest = seen.map_or_else(|| record.oldest_in_force(), |seen| seen.oldest);
            let here = Seen { db_version: record.db_version, token: record.head.token, oldest };
            seen.get_or_insert(here);
            goes_on = known == Some(here);
            if goes_on || oldest.is_none_or(|oldest| record.db_version < oldest) {
                return Ok(false);
            }
            carriers.extend(record.young.map(|slots| Carrier { entries: record.entries, slots }));
            Ok(true)
        })?;
        let mut young = self.young.borrow_mut();
        if !goes_on {
            young.clear();
        }
        // Should a record be damaged, nothing may be believed until it is read again.
        young.seen = None;
        for carrier in carriers.iter().rev() {
            carrier.unpack(&mut young)?;
        }
        young.seen = seen.or(Some(Seen { db_version: 0, token: 0, oldest: None }));
        young.as_of = as_of.filter(|_| !self.tx.borrow().active);
        Ok(())
    }

    /// A record was written: what is known goes on with it. `fresh` are the clocks that it carries.
    pub fn note_young(&self, before: &Tail, after: &Tail, mut fresh: Fresh) {
        let mut young = self.young.borrow_mut();
        young.as_of = None;
        if before.young.is_none() {
            // They begin with this record.
            young.clear();
        } else if young.seen != Some(Seen::of(before)) {
            return;
        }
        young.recent.append(&mut fresh);
        if fresh.capacity() > 0 {
            self.spare_fresh.set(fresh);
        }
        young.seen = Some(Seen::of(after));
    }

    /// Moves all young clocks into their blocks: from here on this transaction writes blocks.
    pub fn age(&self) -> Result<()> {
        if self.tx.borrow().aged {
            return Ok(());
        }
        let tail = self.tail()?;
        let fresh = self.tx.borrow().fresh.is_some();
        if tail.young.is_none() && !fresh {
            if self.tx.borrow().active {
                self.tx_mut().aged = true;
            }
            return Ok(());
        }
        self.know_young()?;
        let rowid = self.db.last_insert_rowid();
        let mut young = self.young.take();
        let result = self.move_young(&tail, &young);
        self.db.set_last_insert_rowid(rowid);
        young.clear();
        self.young.replace(young);
        if result.is_err() {
            self.tx_mut().aged = false;
        }
        result
    }

    fn move_young(&self, tail: &Tail, young: &Young) -> Result<()> {
        let fresh = {
            let mut tx = self.tx_mut();
            // An error may have ended the transaction already.
            tx.aged = tx.active;
            tx.fresh.take().unwrap_or_default()
        };
        let mut superseded = young.superseded;
        for of_row in young.sorted().chunk_by(|a, b| (a.0, a.1) == (b.0, b.1)) {
            let Some((table, key, oldest)) = of_row.first().copied() else { continue };
            let mut clock = Cow::Borrowed(oldest);
            for (_, _, newer) in of_row.iter().skip(1) {
                if RowClock::encodes_delta(newer) {
                    let (sum, late) = sum(&clock, newer)?;
                    superseded += late;
                    clock = Cow::Owned(sum);
                } else {
                    clock = Cow::Borrowed(newer);
                }
            }
            // A whole clock that is fresh takes the place of what was young, and has counted what that superseded.
            let replaced = |(t, k, c): &(u32, Vec<u8>, Vec<u8>)| *t == table && k == key && !RowClock::encodes_delta(c);
            if !fresh.iter().any(replaced) {
                superseded += self.settle_clock(table, key, &clock)?;
            }
        }
        for (table, key, clock) in &fresh {
            superseded += self.settle_clock(*table, key, clock)?;
        }
        if tail.young.is_some() || superseded > 0 {
            self.amend(tail.db_version, |newest| {
                if let Side::Local { reaches } = &mut newest.head.side {
                    *reaches = None;
                }
                newest.head.garbage = newest.head.garbage.saturating_add(superseded);
            })?;
            self.forget_tail();
        }
        Ok(())
    }

    /// Puts a young clock, or what a delta comes to, into its block. Returns how many cells the delta supersedes.
    fn settle_clock(&self, table: u32, key: &[u8], young: &[u8]) -> Result<u64> {
        if !RowClock::encodes_delta(young) {
            self.put_in_block(table, key, young)?;
            return Ok(0);
        }
        let delta = decode(young)?;
        let mut clock = self.clock_in_block(table, key)?.unwrap_or_else(RowClock::pristine);
        let superseded = clock.count_on(&delta);
        let mut bytes = Vec::with_capacity(young.len() + 8);
        clock.encode(&mut bytes);
        self.put_in_block(table, key, &bytes)?;
        Ok(superseded)
    }

    /// Notes what a small transaction adds to a row's clock.
    pub fn put_delta(&self, table: u32, key: &[u8], delta: &RowClock) {
        let mut bytes = Vec::with_capacity(24);
        delta.encode(&mut bytes);
        if let Some(fresh) = &mut self.tx.borrow_mut().fresh {
            fresh.push((table, key.to_vec(), bytes));
        }
    }
}

impl Carrier {
    fn unpack(&self, young: &mut Young) -> Result<()> {
        let slots = young::decode(&self.slots).map_err(|e| corrupt("the young clocks of a log record", e))?;
        let mut reader = ChunkReader::new(&self.entries).map_err(|e| corrupt("a log chunk", e))?;
        for slot in slots {
            let Some(entry) = reader.next_entry().map_err(|e| corrupt("a log chunk", e))? else {
                return Err(corrupt("the young clocks of a log record", "there are more of them than entries"));
            };
            if let Some(clock) = slot {
                young.recent.push((entry.table.id, reader.key().to_vec(), clock.to_vec()));
            }
        }
        Ok(())
    }
}
