//! What a constraint refused is tried again when another change of its row was merged: that may have mended it.
//!
//! Cells come one by one, so that a row can be refused here for a moment only: a CHECK compares two columns, one node raised the
//! upper bound, another one wrote between the two. Which rows the parts that are kept aside tell of is remembered per connection,
//! and read on from part to part, so that a merge pays for it only where something was refused.

use crate::affinity::canonical_key;
use crate::aside::{NO_COLUMN, NO_TABLE};
use crate::session::Session;
use crate::sqlite::Result;
use std::collections::{BTreeSet, HashMap};

/// What is tried again may mend something else of its row, but not without end.
const ROUNDS: usize = 8;
/// So many of the parts that tell of changed rows are tried again after a merge.
const NEWEST: usize = 8;
/// So many rows of parts that are gone may be remembered, besides as many as there are of others.
const SPARE: usize = 1024;
/// So many parts are tried again at once where nobody knows which rows have changed.
const FEW: i64 = 64;

/// Parts up to this size (bytes) are put together, and so many rows at a time: each row's are read anew.
const SMALL: usize = 16 * 1024;
const ROWS_AT_ONCE: usize = 64;

/// A part that tells of a row of a table.
#[derive(Clone, Copy)]
struct Teller {
    table: u32,
    part: i64,
    small: bool,
}

/// Rows of which something is kept aside that a constraint refused.
#[derive(Default)]
pub struct Refused {
    /// Nothing was put aside since it was looked for, and no transaction has ended.
    known: bool,
    /// Id and hash of the newest part there was then.
    newest: Option<(i64, i64)>,
    /// By the row's key.
    parts: HashMap<Vec<u8>, Vec<Teller>>,
    /// It was read, or changed, in the transaction that is open.
    read_within: bool,
    /// How many of these were noted. Those of parts that are gone stay.
    noted: usize,
    /// How many there may be before all are read anew.
    room: usize,
    /// Parts of which a row has changed.
    due: BTreeSet<i64>,
    /// Rows of which more than one entry tells: together they may fit.
    joint: BTreeSet<(u32, Vec<u8>)>,
    /// A part was put aside, or would have been if it were not there already.
    put: bool,
    /// Where [`Session::mend_some`] goes on: with the part behind this one, and with the row at this place.
    tried: i64,
    put_together: usize,
}

impl Refused {
    /// What was said of a row is merged: it is to be tried no more, as long as this transaction stands.
    fn is_done_with(&mut self, table: u32, key: &[u8]) {
        if let Some(of_key) = self.parts.get_mut(key) {
            of_key.retain(|teller| teller.table != table);
        }
        self.read_within = true;
    }
}

impl Session {
    /// A part was put aside.
    pub fn note_put_aside(&self) {
        self.tx_mut().aside_looks += 1;
        let mut refused = self.refused.borrow_mut();
        (refused.put, refused.known) = (true, false);
    }

    /// Whether a part was put aside since this was asked last.
    pub fn take_put_aside(&self) -> bool {
        std::mem::take(&mut self.refused.borrow_mut().put)
    }

    /// Something may be kept aside that is not known.
    pub fn doubt_refused(&self) {
        self.refused.borrow_mut().known = false;
    }

    /// A rollback: what was read in the transaction may not be so any more, and what it has done with waits again.
    pub fn doubt_refused_since(&self) {
        if self.refused.borrow().read_within {
            self.reread_refused();
        }
        self.doubt_refused();
    }

    /// Why something waits may be another reason now: all of it is read anew when that is asked for next.
    pub fn reread_refused(&self) {
        let mut refused = self.refused.borrow_mut();
        (refused.newest, refused.known, refused.read_within) = (None, false, false);
    }

    /// The transaction is committed.
    pub fn settle_refused(&self) {
        self.refused.borrow_mut().read_within = false;
    }

    /// What was put aside before may have been refused since.
    pub fn forget_refused(&self) {
        let mut refused = self.refused.borrow_mut();
        if refused.newest.is_some() {
            *refused = Refused { put: refused.put, tried: refused.tried, ..Refused::default() };
        }
        refused.known = false;
    }

    /// Learns which rows have something refused.
    pub fn know_refused(&self) -> Result<()> {
        let newest = {
            let refused = self.refused.borrow();
            if refused.known {
                return Ok(());
            }
            refused.newest.filter(|_| refused.noted <= refused.room)
        };
        if newest.is_none() || !self.read_refused(newest)? {
            // It is not there any more, and others may have its number.
            {
                let refused = &mut *self.refused.borrow_mut();
                let (due, put, tried) = (std::mem::take(&mut refused.due), refused.put, refused.tried);
                *refused = Refused { due, put, tried, ..Refused::default() };
            }
            self.read_refused(None)?;
            let mut refused = self.refused.borrow_mut();
            refused.room = refused.noted * 2 + SPARE;
        }
        let mut refused = self.refused.borrow_mut();
        refused.known = true;
        refused.read_within |= self.tx.borrow().active;
        Ok(())
    }

    /// Reads on behind the newest part that is known; `false` if that is gone.
    fn read_refused(&self, newest: Option<(i64, i64)>) -> Result<bool> {
        let mut next = self.fixed("SELECT id, hash, reason, part FROM main.crsql_aside WHERE id >= ?1 ORDER BY id")?;
        next.bind_int(1, newest.map_or(i64::MIN, |(id, _)| id))?;
        if newest.is_some() && !(next.step()? && newest == Some((next.column_int(0), next.column_int(1)))) {
            return Ok(false);
        }
        while next.step()? {
            self.tx_mut().aside_looks += 1;
            let (id, hash) = (next.column_int(0), next.column_int(1));
            let reason = next.column_text(2);
            if reason != NO_TABLE.as_bytes() && reason != NO_COLUMN.as_bytes() {
                self.note_rows(id, next.column_blob(3))?;
            }
            self.refused.borrow_mut().newest = Some((id, hash));
        }
        Ok(true)
    }

    fn note_rows(&self, id: i64, part: &[u8]) -> Result<()> {
        self.each_row_kept(part, &mut |_, def, table, row| {
            let Some(table) = table else { return Ok(()) };
            let Ok(key) = canonical_key(self, table, row.key)? else { return Ok(()) };
            // Most rows of a large part were taken.
            if self.still_waits(table, def, &key, row)? {
                let refused = &mut *self.refused.borrow_mut();
                refused.noted += 1;
                let teller = Teller { table: table.info.id, part: id, small: part.len() <= SMALL };
                let of_key = refused.parts.entry(key.to_vec()).or_default();
                let others = of_key.iter().any(|t| t.table == teller.table && t.small);
                if teller.small && others && refused.joint.len() < ROWS_AT_ONCE {
                    refused.joint.insert((teller.table, key.into_owned()));
                }
                of_key.push(teller);
            }
            Ok(())
        })
    }

    /// A merge has changed a row: what was refused of it may fit now.
    pub fn note_merged(&self, table: u32, key: &[u8]) {
        let refused = &mut *self.refused.borrow_mut();
        if refused.parts.is_empty() {
            return;
        }
        let parts = refused.parts.get(key).into_iter().flatten();
        refused.due.extend(parts.filter(|t| t.table == table).map(|t| t.part));
    }

    /// Whether something is to be tried again.
    pub fn may_mend(&self) -> bool {
        let refused = self.refused.borrow();
        !(refused.due.is_empty() && refused.joint.is_empty())
    }

    /// Tries again what was refused of rows that were merged since. Returns the changes applied.
    pub fn mend(&self) -> Result<u64> {
        let mut changes = self.mend_jointly()?;
        for _ in 0..ROUNDS {
            let due = std::mem::take(&mut self.refused.borrow_mut().due);
            if due.is_empty() {
                break;
            }
            // Where a cell is refused over and over, what was refused first has mostly been overtaken.
            for part in due.into_iter().rev().take(NEWEST) {
                changes += self.retry_part(part)?;
            }
        }
        Ok(changes)
    }

    /// Tries rows of which several parts tell with all that these say; then the parts, which may be done with.
    fn mend_jointly(&self) -> Result<u64> {
        let (mut changes, mut used) = (0, BTreeSet::new());
        let rows = std::mem::take(&mut self.refused.borrow_mut().joint);
        for (table, key) in rows {
            let parts: BTreeSet<i64> = {
                let refused = self.refused.borrow();
                let of_key = refused.parts.get(&key).into_iter().flatten();
                of_key.filter(|t| t.table == table && t.small).map(|t| t.part).collect()
            };
            let fit = self.merge_jointly((table, &key), &parts)?;
            if fit > 0 {
                changes += fit;
                used.extend(parts);
                self.tx_mut().aside_looks += 1;
                self.refused.borrow_mut().is_done_with(table, &key);
            }
        }
        used.into_iter().try_for_each(|part| self.retry_part(part).map(|more| changes += more))?;
        Ok(changes)
    }

    /// Tries again some of what constraints have refused, whatever has changed since; the next call goes on behind it. Returns
    /// the changes applied.
    ///
    /// # Errors
    /// Damaged internal tables, or what SQLite says; then nothing is applied.
    pub fn mend_some(&self) -> Result<u64> {
        if !self.has_schema()? || (self.some_parts(i64::MIN)?.is_empty() && self.tables_with_refused()?.is_empty()) {
            return Ok(0);
        }
        self.atomically(|| {
            self.join_transaction()?;
            self.refresh()?;
            self.flush()?;
            for table in self.tables_with_refused()? {
                self.show_some_refused(table, FEW)?;
            }
            self.know_refused()?;
            let mut parts = self.some_parts(self.refused.borrow().tried)?;
            if parts.is_empty() {
                parts = self.some_parts(i64::MIN)?;
            }
            let mut changes = 0;
            for part in parts {
                changes += self.retry_part(part)?;
                self.refused.borrow_mut().tried = part;
            }
            self.note_joint();
            Ok(changes + self.mend()?)
        })
    }

    /// Some of the rows of which more than one entry tells; the next call goes on behind them.
    fn note_joint(&self) {
        let refused = &mut *self.refused.borrow_mut();
        let small = |of_key: &&Teller| of_key.small;
        let told = refused.parts.iter().filter(|(_, of_key)| of_key.iter().filter(small).count() > 1);
        let some: Vec<(u32, Vec<u8>)> = told
            .skip(refused.put_together)
            .take(ROWS_AT_ONCE)
            .filter_map(|(key, of_key)| of_key.iter().find(|t| t.small).map(|t| (t.table, key.clone())))
            .collect();
        refused.put_together = if some.len() < ROWS_AT_ONCE { 0 } else { refused.put_together + some.len() };
        refused.joint.extend(some);
    }

    /// Some parts of which something was refused, behind this one.
    fn some_parts(&self, after: i64) -> Result<Vec<i64>> {
        let mut some = self
            .fixed("SELECT id FROM main.crsql_aside WHERE id > ?1 AND reason NOT IN (?2, ?3) ORDER BY id LIMIT ?4")?;
        some.bind_int(1, after)?;
        some.bind_text(2, NO_TABLE)?;
        some.bind_text(3, NO_COLUMN)?;
        some.bind_int(4, FEW)?;
        let mut parts = Vec::new();
        while some.step()? {
            parts.push(some.column_int(0));
        }
        Ok(parts)
    }
}
