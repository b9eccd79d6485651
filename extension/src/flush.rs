//! The flush: from the journal's touches to row clocks and log entries of this transaction's local dot.
//!
//! Runs inside the application's own commit (xSync), or earlier where the journal is full or `crsql_changes` is read. It
//! must leave `last_insert_rowid()` as it was.

use crate::catalog::Table;
use crate::journal::Touches;
use crate::key_order::ByKey;
use crate::log::LogWriter;
use crate::outlived::Gone;
use crate::session::Session;
use crate::sqlite::{Error, Result};
use crate::touched::TouchedTables;
use crate::waiting::{Waiting, WaitingList};
use crate::young::{Fresh, SMALL};
use starling_crdt::local::{fold, masked, recreates, tombstone, update_in_place, Before, Touch, TouchKind};
use starling_crdt::log_chunk::Kind;
use starling_crdt::record::flags;
use starling_crdt::row_clock::{RowClock, Stamp};

/// A key of the batch: its touches, oldest first, and its clock as it was before.
struct TouchedKey<'o> {
    run: &'o [usize],
    clock: Option<RowClock>,
    /// Cells that a delta supersedes, which the key's new clock takes the place of.
    late: u64,
}

impl Session {
    /// Writes what the journal holds. Where that fails and the transaction goes on all the same, it can only be rolled back,
    /// as a whole or to a savepoint.
    pub fn flush(&self) -> Result<()> {
        if self.tx.borrow().poisoned {
            return Err(Error::msg(
                "starling: a merge or a write failed half-way in this transaction, which can only be rolled back",
            ));
        }
        self.flush_nine()?;
        self.take_inboxes()?;
        self.flush_journal()
    }

    /// Writes the touches that the journal holds now.
    pub fn flush_journal(&self) -> Result<()> {
        if self.journal.borrow().is_empty() {
            self.write_block()?;
            return self.keeping_rowid(|| self.sweep_after_merges());
        }
        let mut touches = self.journal.borrow_mut().take();
        let rowid = self.db.last_insert_rowid();
        let result = self.flush_touches(&mut touches).and_then(|()| self.note_agreed());
        let result = result.and_then(|()| self.write_block()).and_then(|()| self.sweep_after_merges());
        self.db.set_last_insert_rowid(rowid);
        // What is written from here on belongs to no small transaction.
        let unused = self.tx.borrow_mut().fresh.take();
        if let Some(fresh) = unused.filter(Vec::is_empty) {
            self.spare_fresh.set(fresh);
        }
        // Where the error ended the whole transaction (a full disk does) its touches are as gone as its rows.
        if result.is_ok() {
            self.journal.borrow_mut().recycle(touches);
        } else if self.tx.borrow().active {
            // Some of the keys may have been folded into their clocks already, and must not be once more. The touches are
            // wanted again where a savepoint from before all this is rolled back to.
            self.tx_mut().poisoned = true;
            self.journal.borrow_mut().put_back(touches);
        }
        result
    }

    /// Logs what nine-value inserts have merged so far.
    pub fn flush_nine(&self) -> Result<()> {
        if self.tx.borrow().nine.is_empty() {
            return Ok(());
        }
        let rowid = self.db.last_insert_rowid();
        let mut record = self.tx.borrow().local.map_or_else(|| self.open_local(), Ok)?;
        record.flags |= flags::GROUP;
        let entries = std::mem::take(&mut self.tx_mut().nine);
        let result = (|| {
            let mut writer = LogWriter::new(self, record);
            for e in entries.iter() {
                writer.push(e.kind, e.table, e.key, e.seq, e.columns)?;
            }
            writer.finish()
        })();
        self.db.set_last_insert_rowid(rowid);
        let mut tx = self.tx_mut();
        match result {
            Ok(record) => {
                tx.local = Some(record);
                if tx.nine.is_empty() {
                    tx.nine = entries.emptied();
                }
                Ok(())
            }
            Err(e) => {
                if tx.active {
                    // Some of them may be written, and must not be once more.
                    tx.poisoned = true;
                    tx.nine = entries;
                }
                Err(e)
            }
        }
    }

    fn flush_touches(&self, touches: &mut Touches) -> Result<()> {
        if self.flush_single(touches)? {
            return Ok(());
        }
        let mut tables = self.spare_tables.take();
        let result = self.flush_tables(touches, &mut tables);
        tables.clear();
        self.spare_tables.set(tables);
        result
    }

    fn flush_tables(&self, touches: &mut Touches, tables: &mut TouchedTables) -> Result<()> {
        let mut order = touches.by_key();
        if (!order.all_single() || !self.knows_touched(touches)?) && self.leave_out_gone(touches)? {
            order = touches.by_key();
        }
        let record = self.open_local()?;
        self.keep_young(touches, record.is_new())?;
        let dot = record.stamp();
        let mut writer = LogWriter::new(self, record);
        let (mut wrote, mut superseded, mut gone) = (false, 0, Gone::default());
        if order.all_single() && self.plain_inserts(touches, tables)? {
            for touch in (0..touches.len()).filter_map(|i| touches.get(i)) {
                let table = &tables.get(touch.table)?.table;
                writer.push(Kind::Base, table.info.log_ref(), touches.key(touch), touch.seq, &[])?;
                wrote = true;
            }
        } else {
            let mut waiting = self.spare_waiting.take();
            waiting.clear();
            waiting.entries.reserve(touches.len());
            superseded = if touches.any_insert() {
                let keys = self.look_up(touches, &order, tables)?;
                self.fold_keys(touches, tables, keys, dot, &mut waiting)?
            } else {
                self.fold_in_passing(touches, &order, tables, dot, &mut waiting)?
            };
            waiting.sort(touches.len());
            if waiting.own {
                let next_seq = self.journal.borrow().next_seq();
                self.tx_mut().spent.note_all(dot.version, next_seq);
            }
            if !waiting.entries.is_empty() {
                // The newest record may be among them: it may only go because this one takes its place.
                gone = self.drop_outlived(std::mem::take(&mut waiting.outlived), &record)?;
            }
            writer.superseded(superseded);
            for entry in &waiting.entries {
                let Some(touch) = touches.get(entry.touch) else { continue };
                let table = &tables.get(touch.table)?.table;
                writer.push(
                    entry.kind,
                    table.info.log_ref(),
                    touches.key(touch),
                    entry.seq,
                    waiting.columns.get(entry.columns.0..entry.columns.1).unwrap_or_default(),
                )?;
                wrote = true;
            }
            let fresh = self.tx.borrow_mut().fresh.take().unwrap_or_default();
            if !fresh.is_empty() {
                self.carry_or_age(&mut writer, fresh, touches, &waiting)?;
            }
            if waiting.is_small() {
                self.spare_waiting.set(waiting);
            }
        }
        if wrote {
            let record = writer.finish()?;
            self.tx_mut().local = Some(record);
            if gone.entries > 0 {
                self.count_dropped(self.tail()?.db_version, gone.entries, gone.cells, false)?;
            }
            self.prune_some(superseded - gone.cells.min(superseded))?;
        }
        Ok(())
    }

    /// Whether the clocks of this batch can stay young, in the record that it makes.
    pub fn can_stay_young(&self, touches: &Touches, new_record: bool) -> Result<bool> {
        Ok(new_record && touches.len() <= SMALL && !self.tx.borrow().aged && !self.young_is_long()?)
    }

    /// The clocks of this batch stay young, or those that are move into their blocks where their chain is long.
    fn keep_young(&self, touches: &Touches, new_record: bool) -> Result<()> {
        if self.can_stay_young(touches, new_record)? {
            self.tx_mut().fresh = Some(self.spare_fresh.take());
        } else if self.young_is_long()? {
            self.age()?;
        }
        Ok(())
    }

    /// The record takes the clocks along, if each has an entry of its own there; else they go into their blocks.
    fn carry_or_age(
        &self,
        writer: &mut LogWriter<'_>,
        fresh: Fresh,
        touches: &Touches,
        waiting: &WaitingList,
    ) -> Result<()> {
        if fresh.len() == 1 && waiting.entries.len() == 1 && writer.is_inline() {
            self.raise_format()?;
            writer.carry_only(fresh);
            return Ok(());
        }
        let mut left: Vec<_> = fresh.iter().collect();
        let mut slots: Vec<Option<&[u8]>> = Vec::new();
        // A key's last entry carries its clock.
        for entry in waiting.entries.iter().rev() {
            let Some(touch) = touches.get(entry.touch) else { continue };
            let named = |c: &&(u32, Vec<u8>, Vec<u8>)| c.0 == touch.table && c.1 == touches.key(touch);
            slots.push(left.iter().position(named).map(|at| left.remove(at).2.as_slice()));
        }
        if left.is_empty() && writer.is_inline() {
            self.raise_format()?;
            let mut bytes = Vec::new();
            starling_crdt::young::encode(slots.into_iter().rev(), &mut bytes);
            writer.carry(fresh, bytes);
            return Ok(());
        }
        self.tx_mut().fresh = Some(fresh);
        self.age()
    }

    /// Whether the batch is nothing but inserts into plain tables, or such without any row clock: then no row needs a look.
    fn plain_inserts(&self, touches: &Touches, tables: &mut TouchedTables) -> Result<bool> {
        let mut plain = true;
        for touch in (0..touches.len()).filter_map(|i| touches.get(i)) {
            self.note_table(touch.table, tables)?;
            plain &= self.inserts_pristine(tables.get(touch.table)?, touch.kind(), touches.key(touch))?;
        }
        Ok(plain)
    }

    /// The touched keys in key order, so that neighbours in the row clock table are read and written together, each with
    /// its clock. Makes room for the `'-1'` writes of rows that were re-created.
    fn look_up<'o>(
        &self,
        touches: &mut Touches,
        order: &'o ByKey,
        tables: &mut TouchedTables,
    ) -> Result<Vec<TouchedKey<'o>>> {
        let (mut keys, mut extra) = (Vec::new(), Vec::new());
        for run in order.runs() {
            let Some(touch) = run.first().and_then(|i| touches.get(*i)) else { continue };
            self.note_table(touch.table, tables)?;
            let touched = tables.get(touch.table)?;
            let key = touches.key(touch);
            let pristine = run.len() == 1 && self.inserts_pristine(touched, touch.kind(), key)?;
            let (clock, late) = if pristine { (None, 0) } else { self.clock_before(touched, key)? };
            // Where a row is nothing but its key, its '-1' write is all that its insert makes.
            let has_cells = !touched.table.column_ids.is_empty();
            if has_cells && (clock.is_some() || run.len() > 1) {
                let kinds: Vec<TouchKind> = run.iter().filter_map(|i| touches.get(*i)).map(|t| t.kind()).collect();
                extra.extend((0..kinds.len()).filter(|i| recreates(clock.as_ref(), &kinds, *i)).map(|i| run[i]));
            }
            keys.push(TouchedKey { run, clock, late });
        }
        if !extra.is_empty() {
            let shift = touches.make_room(extra);
            self.journal.borrow_mut().take_seqs(shift);
        }
        Ok(keys)
    }

    /// Updates and deletes re-create no row, so each key is looked up and folded in one go.
    fn fold_in_passing(
        &self,
        touches: &Touches,
        order: &ByKey,
        tables: &mut TouchedTables,
        dot: Stamp,
        waiting: &mut WaitingList,
    ) -> Result<u64> {
        let small = self.tx.borrow().fresh.is_some();
        let mut superseded = 0;
        for run in order.runs() {
            let Some(touch) = run.first().and_then(|i| touches.get(*i)) else { continue };
            self.note_table(touch.table, tables)?;
            let touched = tables.get(touch.table)?;
            if small
                && touched.plain
                && run.len() == 1
                && self.fold_delta(&touched.table, touches, run, dot, waiting)?
            {
                continue;
            }
            let (clock, late) = self.clock_before(touched, touches.key(touch))?;
            superseded += late;
            superseded += self.fold_run(&touched.table, touches, run, clock, dot, waiting)?;
        }
        Ok(superseded)
    }

    /// The shortest way: an update of a row in a plain table, of which a small transaction notes what it adds to the row's
    /// clock, without a look at it. Returns whether it was one.
    fn fold_delta(
        &self,
        table: &Table,
        touches: &Touches,
        run: &[usize],
        dot: Stamp,
        waiting: &mut WaitingList,
    ) -> Result<bool> {
        let Some((only, touch)) = run.first().and_then(|i| Some((*i, touches.get(*i)?))) else { return Ok(false) };
        let key = touches.key(touch);
        let TouchKind::Update { word, mask } = touch.kind() else { return Ok(false) };
        if table.looks_older(key) {
            return Ok(false);
        }
        let mut delta = RowClock { cells: self.spare_cells(), ..RowClock::default() };
        let start = waiting.columns.len();
        update_in_place(&mut delta, (word, mask, touch.seq), &table.column_ids, dot, &mut waiting.columns);
        if !delta.is_delta() {
            return Ok(false);
        }
        self.put_delta(table.info.id, key, &delta);
        self.keep_cells(delta.cells);
        let columns = (start, waiting.columns.len());
        waiting.entries.push(Waiting { seq: touch.seq, kind: Kind::Mask, touch: only, columns });
        Ok(true)
    }

    /// Folds each key's touches.
    fn fold_keys(
        &self,
        touches: &Touches,
        tables: &TouchedTables,
        keys: Vec<TouchedKey<'_>>,
        dot: Stamp,
        waiting: &mut WaitingList,
    ) -> Result<u64> {
        let mut superseded = 0;
        for TouchedKey { run, clock, late } in keys {
            superseded += late;
            let Some(touch) = run.first().and_then(|i| touches.get(*i)) else { continue };
            let table = &tables.get(touch.table)?.table;
            superseded += self.fold_run(table, touches, run, clock, dot, waiting)?;
        }
        Ok(superseded)
    }

    /// Folds the touches of one key.
    fn fold_run(
        &self,
        table: &Table,
        touches: &Touches,
        run: &[usize],
        clock: Option<RowClock>,
        dot: Stamp,
        waiting: &mut WaitingList,
    ) -> Result<u64> {
        let mut clock = clock;
        if let [only] = run {
            if let Some(dead) = self.fold_single(table, touches, *only, &mut clock, dot, waiting)? {
                return Ok(dead);
            }
        }
        self.fold_key(table, touches, run, clock.as_ref(), dot, waiting)
    }

    /// The short way for a key that was touched once, by an update or a delete of a row in plain sight.
    fn fold_single(
        &self,
        table: &Table,
        touches: &Touches,
        only: usize,
        before: &mut Option<RowClock>,
        dot: Stamp,
        waiting: &mut WaitingList,
    ) -> Result<Option<u64>> {
        let Some(touch) = touches.get(only) else { return Ok(None) };
        let (key, clock) = (touches.key(touch), before.as_ref());
        if clock.is_some_and(|c| !c.is_alive() || !c.based || c.base_version == 0) {
            return Ok(None);
        }
        let listed = clock.map_or(0, |c| c.cells.len() as u64);
        let dead;
        let start = waiting.columns.len();
        let kind = match touch.kind() {
            TouchKind::Update { word, mask } => {
                let mut clock = before.take().unwrap_or_else(|| table.pristine(key));
                if clock.cells.is_empty() {
                    clock.cells = self.spare_cells();
                }
                for column in masked(word, mask, &table.column_ids) {
                    clock.cell(*column).iter().for_each(|cell| waiting.supersede(&cell.stamp, &dot));
                }
                update_in_place(&mut clock, (word, mask, touch.seq), &table.column_ids, dot, &mut waiting.columns);
                // Cells that were listed before have a mask that is dead now.
                dead = (listed + u64::from(mask.count_ones())).saturating_sub(clock.cells.len() as u64);
                self.put_clock(table, key, &clock)?;
                self.keep_cells(clock.cells);
                Kind::Mask
            }
            TouchKind::Delete => {
                let cl = clock.map_or(1, |c| c.cl) + 1;
                self.put_clock(table, key, &tombstone(cl, Stamp { seq: touch.seq, ..dot }))?;
                dead = listed + 1;
                if let Some(clock) = before.take() {
                    waiting.supersede_all(&clock, &dot);
                    self.keep_cells(clock.cells);
                }
                Kind::Tombstone
            }
            TouchKind::Insert { .. } => return Ok(None),
        };
        let columns = (start, waiting.columns.len());
        waiting.entries.push(Waiting { seq: touch.seq, kind, touch: only, columns });
        Ok(Some(dead))
    }

    fn fold_key(
        &self,
        table: &Table,
        touches: &Touches,
        run: &[usize],
        clock: Option<&RowClock>,
        dot: Stamp,
        waiting: &mut WaitingList,
    ) -> Result<u64> {
        let Some((first, touch)) = run.first().and_then(|i| Some((*i, touches.get(*i)?))) else { return Ok(0) };
        let key = touches.key(touch);
        let touches: Vec<Touch> =
            run.iter().filter_map(|i| touches.get(*i)).map(|t| Touch { kind: t.kind(), seq: t.seq }).collect();
        let hidden = clock.is_some_and(|c| c.is_alive() && !crate::apply::is_visible(table, c));
        let exists = self.exists_at_end(table, key, &touches)?;
        let (pristine, generation) = (table.pristine(key), table.noted_generation(key));
        let before = Before { clock, hidden, exists, pristine: &pristine, generation };
        let outcome = fold(&before, &touches, &table.column_ids, dot);
        let inserted = touches.iter().any(|t| matches!(t.kind, TouchKind::Insert { replace: false, .. }));
        let waited = hidden || inserted || clock.is_some_and(|c| !c.born || c.base_version == 0);
        if waited && clock.is_some_and(|c| c.is_alive()) && self.keeps_aside(table, key)? {
            self.unhide(table, key)?;
        }
        match (&outcome.clock, clock) {
            (Some(new), _) => self.put_clock(table, key, new)?,
            (None, Some(_)) => self.drop_clock(table, key)?,
            (None, None) => {}
        }
        for cell in clock.iter().flat_map(|c| &c.cells) {
            let kept = outcome.clock.as_ref().and_then(|c| c.cell(cell.column)).is_some_and(|c| c.stamp == cell.stamp);
            if !kept {
                waiting.supersede(&cell.stamp, &dot);
            }
        }
        waiting.own |= clock.is_some_and(|c| c.lives().any(|s| s.same_dot(&dot)));
        let mut superseded = 0;
        for entry in outcome.entries {
            superseded += u64::from(clock.is_some());
            let start = waiting.columns.len();
            waiting.columns.extend_from_slice(&entry.columns);
            let columns = (start, waiting.columns.len());
            waiting.entries.push(Waiting { seq: entry.seq, kind: entry.kind, touch: first, columns });
        }
        Ok(superseded)
    }

    /// Whether values of a row are kept aside.
    fn keeps_aside(&self, table: &Table, key: &[u8]) -> Result<bool> {
        let mut any = self.fixed("SELECT 1 FROM main.crsql_hidden WHERE table_id = ?1 AND key = ?2 LIMIT 1")?;
        any.bind_int(1, i64::from(table.info.id))?;
        any.bind_blob(2, key)?;
        any.step()
    }

    /// Whether the row is there now. Asked only where the touches do not say it by themselves.
    fn exists_at_end(&self, table: &Table, key: &[u8], touches: &[Touch]) -> Result<bool> {
        let mut moves = touches.iter().filter(|t| !matches!(t.kind, TouchKind::Update { .. }));
        match (moves.next(), moves.next()) {
            (None, _) => Ok(true),
            (Some(t), None) => Ok(matches!(t.kind, TouchKind::Insert { .. })),
            _ if table.gone => Ok(false),
            _ => self.row_exists(table, key),
        }
    }
}
