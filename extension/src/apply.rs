//! Executes a merge decision on one row: the table, the row clock, what is kept aside, and the entries to be logged.
//!
//! The row's own write comes first: where it fails, nothing else has been written.

use crate::catalog::Table;
use crate::row_sql::RowWrite;
use crate::rows::{execute_with_key, is_the_rows};
use crate::session::{MergingRow, Session, Sql};
use crate::sqlite::{Error, Result};
use starling_crdt::decide::{decide, Decision, Incoming, IncomingKind, LocalValues};
use starling_crdt::log_chunk::Kind;
use starling_crdt::row_clock::{RowClock, Stamp};
use starling_crdt::value::Encoded;
use starling_crdt::{SiteId, Value, ValueRef};
use std::cell::{OnceCell, RefCell};

/// An entry for the log, under the dot of its stamp.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MergedEntry {
    /// Origin, version and first seq.
    pub stamp: Stamp,
    /// What it says.
    pub kind: Kind,
    /// The columns a mask names.
    pub columns: Vec<u32>,
}

/// What merging one row came to.
#[derive(Clone, Debug, Default)]
pub struct Applied {
    /// To be logged.
    pub entries: Vec<MergedEntry>,
    /// Cells and lifetimes taken.
    pub changes: u64,
    /// Everything that the entry named was taken.
    pub all_won: bool,
}

/// The local row as the decision sees it.
pub struct LocalRow<'a> {
    session: &'a Session,
    table: &'a Table,
    key: &'a [u8],
    /// Its clock; `None` = it never existed.
    pub clock: Option<RowClock>,
    /// The table shows it.
    pub visible: bool,
    /// Values by column position, read when first asked for: the table's, or those kept aside.
    values: OnceCell<Vec<Value>>,
    /// Why they could not be read.
    failed: RefCell<Option<Error>>,
}

impl LocalRow<'_> {
    /// The value of a column by position.
    pub fn value_at(&self, position: usize) -> ValueRef<'_> {
        self.values.get_or_init(|| self.read_values()).get(position).map_or(ValueRef::Null, Value::as_ref)
    }

    fn read_values(&self) -> Vec<Value> {
        let read = || -> Result<Vec<Value>> {
            if self.visible {
                return Ok(self.session.row_values(self.table, self.key)?.unwrap_or_default());
            }
            self.table.column_ids.iter().map(|id| self.session.hidden_value(self.table, self.key, *id)).collect()
        };
        read().unwrap_or_else(|e| {
            self.failed.replace(Some(e));
            Vec::new()
        })
    }

    /// All values by column position.
    pub fn into_values(self) -> Result<Vec<Value>> {
        self.value_at(0);
        self.check()?;
        Ok(self.values.into_inner().unwrap_or_default())
    }

    /// An error that reading the values met.
    pub fn check(&self) -> Result<()> {
        self.failed.take().map_or(Ok(()), Err)
    }
}

impl LocalValues for LocalRow<'_> {
    fn value(&self, column: u32) -> ValueRef<'_> {
        self.table.info.position(column).map_or(ValueRef::Null, |i| self.value_at(i))
    }

    fn author_is_larger(&self, a: &Stamp, b: Option<&Stamp>) -> bool {
        let compare =
            || -> Result<bool> { Ok(self.session.author_site(self, Some(a))? > self.session.author_site(self, b)?) };
        compare().unwrap_or_else(|e| {
            self.failed.replace(Some(e));
            false
        })
    }
}

impl Session {
    /// The local row. A clock says by itself whether the table shows the row; without one the table is asked.
    pub fn local_row<'a>(&'a self, table: &'a Table, key: &'a [u8], clocks: bool) -> Result<LocalRow<'a>> {
        let clock = if clocks { self.get_clock(table, key)? } else { None };
        self.local_row_with(table, key, clock)
    }

    /// As [`Session::local_row`], where its clock was looked for already.
    fn local_row_with<'a>(&'a self, table: &'a Table, key: &'a [u8], clock: Option<RowClock>) -> Result<LocalRow<'a>> {
        let (clock, visible) = match clock {
            Some(clock) => {
                let visible = is_visible(table, &clock);
                (Some(clock), visible)
            }
            None if self.row_exists(table, key)? => (Some(table.pristine(key)), true),
            None => (None, false),
        };
        Ok(LocalRow { session: self, table, key, clock, visible, values: OnceCell::new(), failed: RefCell::new(None) })
    }

    /// The values of a row whose clock is in hand.
    pub fn row_of_clock<'a>(&'a self, table: &'a Table, key: &'a [u8], clock: &RowClock) -> LocalRow<'a> {
        let visible = is_visible(table, clock);
        LocalRow {
            session: self,
            table,
            key,
            clock: None,
            visible,
            values: OnceCell::new(),
            failed: RefCell::new(None),
        }
    }

    /// Merges one row entry.
    pub fn merge_row(&self, table: &Table, key: &[u8], incoming: &Incoming<'_>, clocks: bool) -> Result<Applied> {
        let clock = if clocks { self.get_clock(table, key)? } else { None };
        self.merge_row_with(table, key, incoming, clock)
    }

    /// As [`Session::merge_row`], where the row's clock was looked for already.
    pub fn merge_row_with(
        &self,
        table: &Table,
        key: &[u8],
        incoming: &Incoming<'_>,
        clock: Option<RowClock>,
    ) -> Result<Applied> {
        let local = self.local_row_with(table, key, clock)?;
        let merge_equal = self.meta()?.merge_equal;
        let decided = decide(local.clock.as_ref(), &local, incoming, &table.column_ids, merge_equal);
        local.check()?;
        let Some(mut decision) = decided else { return Ok(Applied::default()) };
        if decision.new_lifetime && decision.adopt_base {
            decision.clock.generation = table.noted_generation(key);
        }
        let visible = is_visible(table, &decision.clock);
        self.write_row(table, key, incoming, &local, &decision, visible)?;
        let dot = self.tx.borrow().local.map(|open| open.stamp());
        if let (Some(before), Some(dot)) = (&local.clock, dot) {
            if before.names_dot(&dot) {
                let next_seq = self.journal.borrow().next_seq();
                self.tx_mut().spent.note((table.info.id, key), before, &decision.clock, &dot, next_seq);
            }
        }
        if let Some(before) = &local.clock {
            self.tx_mut().supersede(before.superseded_by(&decision.clock));
        }
        let entries = entries(local.clock.as_ref(), incoming, &decision);
        self.put_clock_later(table, key, decision.clock, local.clock.is_some())?;
        let changes = decision.won.len() as u64
            + u64::from((decision.life_won && !decision.adopt_base) || decision.sentinel.is_some());
        let named_life = !matches!(incoming.kind, IncomingKind::Cells { life: None, .. });
        let life_taken = decision.life_won || decision.sentinel.is_some();
        let all_won = decision.won.len() == incoming.cells.len() && (life_taken || !named_life);
        Ok(Applied { entries, changes: changes.max(1), all_won })
    }

    fn write_row(
        &self,
        table: &Table,
        key: &[u8],
        incoming: &Incoming<'_>,
        local: &LocalRow<'_>,
        decision: &Decision,
        visible: bool,
    ) -> Result<()> {
        let won = || decision.won.iter().filter_map(|i| incoming.cells.get(*i));
        let position = |column: u32| table.info.position(column);
        match (local.visible, visible) {
            // What a lifetime that is over had in the cells that nobody has sent yet must not shine through: a replica that never
            // saw it shows the defaults.
            (true, true) if decision.new_lifetime && won().count() < table.info.columns.len() => {
                let cells = shown_cells(table, incoming, local, decision);
                let cells: Vec<(usize, ValueRef<'_>)> = cells.iter().map(|(p, v)| (*p, v.as_ref())).collect();
                self.renew_row(table, key, &cells)
            }
            (true, true) => {
                let cells: Vec<(usize, ValueRef<'_>)> =
                    won().filter_map(|c| position(c.column).map(|p| (p, c.value))).collect();
                self.update_cells(table, key, &cells)
            }
            (true, false) => {
                self.delete_row(table, key)?;
                self.hide_won(table, key, incoming, decision)
            }
            (false, true) => {
                let cells = shown_cells(table, incoming, local, decision);
                local.check()?;
                let cells: Vec<(usize, ValueRef<'_>)> = cells.iter().map(|(p, v)| (*p, v.as_ref())).collect();
                self.insert_cells(table, key, &cells)?;
                if local.clock.is_some() {
                    self.unhide(table, key)?;
                }
                Ok(())
            }
            (false, false) => {
                if decision.new_lifetime && local.clock.as_ref().is_some_and(RowClock::is_alive) {
                    self.unhide(table, key)?;
                }
                self.hide_won(table, key, incoming, decision)
            }
        }
    }

    fn hide_won(&self, table: &Table, key: &[u8], incoming: &Incoming<'_>, decision: &Decision) -> Result<()> {
        for cell in decision.won.iter().filter_map(|i| incoming.cells.get(*i)) {
            self.hide_value(table, key, cell.column, cell.value)?;
        }
        Ok(())
    }

    /// Runs one write to a CRR as the merge's own, so that its triggers' touches of the row are not taken for local
    /// changes. Returns how many touches of the row there were: another number than the write itself makes means that a
    /// user's trigger had a hand in it.
    pub(crate) fn as_merge(&self, table: &Table, key: &[u8], write: impl FnOnce() -> Result<()>) -> Result<u32> {
        // Known before the write: should the question fail afterwards, a row that is there would be taken for a refused one.
        self.has_user_triggers(table)?;
        let outer = {
            let mut merging = self.merging.borrow_mut();
            let outer = merging.take();
            // The key's buffer is used again from row to row.
            let mut row = if outer.is_none() { self.merging_buffer.take() } else { MergingRow::default() };
            row.table = table.info.id;
            row.key.clear();
            row.key.extend_from_slice(key);
            row.touches = 0;
            *merging = Some(row);
            outer
        };
        // A table that was made anew in its window has no triggers that would tell.
        self.note_in_window(table.info.id, key);
        let result = self.before_own_write(table).and_then(|()| write());
        let plain = self.after_own_write(table, key);
        let row = self.merging.replace(outer);
        let seen = row.as_ref().map_or(0, |m| m.touches);
        self.merging_buffer.set(row.unwrap_or_default());
        result.and(plain).map(|plain| seen + plain)
    }

    /// Writes a row's cells, each with its column's position.
    pub(crate) fn run_cells(
        &self,
        table: &Table,
        key: &[u8],
        write: RowWrite,
        cells: &[(usize, ValueRef<'_>)],
    ) -> Result<()> {
        table.info.refuse_null(cells.iter().copied())?;
        let mut stmt = self.of_cells(table, write, cells)?;
        execute_with_key(&mut stmt, table, key, cells.iter().map(|(_, value)| *value))
    }

    pub(crate) fn run_delete(&self, table: &Table, key: &[u8]) -> Result<()> {
        let mut delete = self.of_table(Sql::DeleteRow, table)?;
        execute_with_key(&mut delete, table, key, std::iter::empty())
    }

    /// Updates cells of a visible row. What a user's trigger makes of the row is undone: its author's has run already (X10).
    pub fn update_cells(&self, table: &Table, key: &[u8], cells: &[(usize, ValueRef<'_>)]) -> Result<()> {
        if cells.is_empty() {
            return Ok(());
        }
        let before = if self.has_user_triggers(table)? { self.row_values(table, key)? } else { None };
        let seen = match self.as_merge(table, key, || self.run_cells(table, key, RowWrite::Update, cells)) {
            Err(e) if failed_in_place(&e) && self.row_has(table, key, cells)? => 0,
            other => other?,
        };
        let told = seen as usize == words(cells);
        // Plain triggers do not tell of a write that changes nothing, so that a trigger of the user's can make up the number.
        if told && (before.is_none() || !table.portable) {
            return Ok(());
        }
        let before = before.unwrap_or_default();
        let others = before.iter().enumerate().filter(|(i, _)| !cells.iter().any(|c| c.0 == *i));
        let mut all: Vec<(usize, ValueRef<'_>)> = others.map(|(i, v)| (i, v.as_ref())).collect();
        all.extend_from_slice(cells);
        all.sort_by_key(|(i, _)| *i);
        if told && self.row_has(table, key, &all)? {
            return Ok(());
        }
        self.force(table, key, &all)
    }

    /// Inserts a row of one cell if its key is free; `false` if it is taken or something refuses the row.
    pub fn insert_if_free(&self, table: &Table, key: &[u8], cell: (usize, ValueRef<'_>)) -> Result<bool> {
        let cells = [cell];
        match self.tried(self.as_merge(table, key, || self.run_cells(table, key, RowWrite::Insert, &cells)))? {
            seen if seen > 1 => self.force_anew(table, key, &cells).map(|()| true),
            seen => Ok(seen == 1),
        }
    }

    /// The touches of a write that may be refused: then, none. Where the refusal ended the transaction, nothing may go on.
    pub(crate) fn tried(&self, seen: Result<u32>) -> Result<u32> {
        seen.or_else(|e| if is_the_rows(&e) && self.tx.borrow().active { Ok(0) } else { Err(e) })
    }

    /// Inserts a row that was not there.
    pub fn insert_cells(&self, table: &Table, key: &[u8], cells: &[(usize, ValueRef<'_>)]) -> Result<()> {
        let seen = match self.as_merge(table, key, || self.run_cells(table, key, RowWrite::Insert, cells)) {
            Err(e) if failed_in_place(&e) && self.row_exists(table, key)? => 0,
            other => other?,
        };
        if seen != 1 || !self.is_as_inserted(table, key, cells)? {
            self.force_anew(table, key, cells)?;
        }
        Ok(())
    }

    /// A row in sight begins another lifetime, with these cells and its defaults. It stays where it is: were it deleted and inserted anew,
    /// a foreign key would take along what refers to it.
    fn renew_row(&self, table: &Table, key: &[u8], cells: &[(usize, ValueRef<'_>)]) -> Result<()> {
        let mut values = self.defaults(table)?;
        for (position, value) in cells {
            if let Some(slot) = values.get_mut(*position) {
                *slot = (*value).to_owned();
            }
        }
        let all: Vec<(usize, ValueRef<'_>)> = values.iter().enumerate().map(|(i, value)| (i, value.as_ref())).collect();
        self.update_cells(table, key, &all)
    }

    /// Inserts a row whose key was never seen, all columns given; `false` if the key is taken or a trigger had a hand in it.
    pub fn insert_fresh(&self, table: &Table, key: &[u8], values: &[Encoded<'_>]) -> Result<bool> {
        if !self.db.triggers_enabled()? {
            return Ok(false);
        }
        let seen = self.as_merge(table, key, || {
            table.info.refuse_null(values.iter().map(Encoded::value).enumerate())?;
            let mut insert = self.of_table(Sql::InsertAll, table)?;
            execute_with_key(&mut insert, table, key, values.iter().map(Encoded::value))
        });
        let seen = match seen {
            // Ours if the log knows nothing of it, else a row that was there.
            Err(e) if failed_in_place(&e) && self.row_exists(table, key)? => {
                if self.base_stamp(table, key)?.is_some() {
                    return Ok(false);
                }
                2
            }
            other => other?,
        };
        if seen > 1 || (seen == 1 && self.has_user_triggers(table)?) {
            let cells: Vec<(usize, ValueRef<'_>)> = values.iter().enumerate().map(|(i, v)| (i, v.value())).collect();
            if seen > 1 || !self.row_has(table, key, &cells)? {
                self.force(table, key, &cells)?;
            }
        }
        Ok(seen > 0)
    }

    /// Deletes a visible row.
    pub fn delete_row(&self, table: &Table, key: &[u8]) -> Result<()> {
        let seen = self.as_merge(table, key, || self.run_delete(table, key))?;
        if seen != 1 {
            self.without_triggers(|| self.run_delete(table, key))?;
        }
        Ok(())
    }

    /// The site of a cell's author, as ties between equal values compare it. A cell that the clock does not list is the
    /// base's, which only the log knows for a first lifetime.
    fn author_site(&self, local: &LocalRow<'_>, stamp: Option<&Stamp>) -> Result<Option<SiteId>> {
        let stamp = match (stamp, local.clock.as_ref().and_then(|c| c.life)) {
            (Some(stamp), _) => Some(*stamp),
            (None, Some(life)) => Some(life),
            (None, None) => self.base_stamp(local.table, local.key)?,
        };
        let Some(stamp) = stamp else { return Ok(None) };
        Ok(Some(match stamp.author {
            0 => self.origin_of(stamp.origin)?.0.site,
            row => self.site_of_row(row)?,
        }))
    }
}

/// How many triggers tell of an update of these cells: one for each group of columns.
fn words(cells: &[(usize, ValueRef<'_>)]) -> usize {
    let word = |(position, _): &(usize, ValueRef<'_>)| position / starling_crdt::local::MASK_BITS as usize;
    if let [_] = cells {
        return 1;
    }
    let mut words: Vec<usize> = cells.iter().map(word).collect();
    words.sort_unstable();
    words.dedup();
    words.len()
}

/// RAISE(FAIL) ends a statement and leaves what it had done: the merge goes on as if the trigger had not spoken.
fn failed_in_place(e: &Error) -> bool {
    e.code == crate::sqlite::codes::CONSTRAINT_TRIGGER
}

/// A row is shown as a function of merged state alone: alive, born, and no required cell absent (X5).
pub fn is_visible(table: &Table, clock: &RowClock) -> bool {
    clock.is_alive() && clock.born && table.info.columns.iter().all(|c| !c.required || clock.version_of(c.id) > 0)
}

/// The cells of a row that comes into sight: what is taken now, and what was kept aside before in the same lifetime.
fn shown_cells(
    table: &Table,
    incoming: &Incoming<'_>,
    local: &LocalRow<'_>,
    decision: &Decision,
) -> Vec<(usize, Value)> {
    let mut cells = Vec::new();
    for (position, column) in table.info.columns.iter().enumerate() {
        let taken =
            decision.won.iter().filter_map(|i| incoming.cells.get(*i)).find(|c| c.column == column.id && c.version > 0);
        if let Some(cell) = taken {
            cells.push((position, cell.value.to_owned()));
        } else if !decision.new_lifetime && decision.clock.version_of(column.id) > 0 {
            cells.push((position, local.value_at(position).to_owned()));
        }
    }
    cells
}

/// What is logged: the life, and every taken cell that the base entry does not speak for, under its own dot.
fn entries(local: Option<&RowClock>, incoming: &Incoming<'_>, decision: &Decision) -> Vec<MergedEntry> {
    let mut out: Vec<MergedEntry> = Vec::new();
    let life = match incoming.kind {
        IncomingKind::Base { life, .. } | IncomingKind::Tombstone { life } => Some(life),
        IncomingKind::Cells { life, .. } => life.or(decision.clock.life),
    };
    if let (Some(life), true) = (life, decision.life_won || decision.adopt_base) {
        let kind = match incoming.kind {
            IncomingKind::Tombstone { .. } => Kind::Tombstone,
            IncomingKind::Base { life, .. } if decision.clock.base_has_sentinel(&life) => Kind::Rebase,
            IncomingKind::Base { .. } => Kind::Base,
            IncomingKind::Cells { .. } => Kind::Sentinel,
        };
        out.push(MergedEntry { stamp: life, kind, columns: Vec::new() });
    }
    if let Some(stamp) = decision.sentinel {
        out.push(MergedEntry { stamp, kind: Kind::Sentinel, columns: Vec::new() });
    }
    for cell in decision.won.iter().filter_map(|i| incoming.cells.get(*i)).filter(|c| c.version > 0) {
        // A base entry speaks for the cells that the clock does not list, every other cell has a mask of its own.
        let covered = decision.adopt_base && decision.clock.cell(cell.column).is_none();
        // The very write that is there already, which the column stored otherwise when it came: it is logged.
        let known = local
            .and_then(|clock| clock.cell(cell.column))
            .is_some_and(|c| c.version == cell.version && c.stamp == cell.stamp);
        if covered || (known && !decision.new_lifetime) {
            continue;
        }
        match out.last_mut() {
            Some(e)
                if e.kind == Kind::Mask
                    && e.stamp.same_dot(&cell.stamp)
                    && e.stamp.seq + e.columns.len() as u64 == cell.stamp.seq
                    && e.columns.last().is_some_and(|l| *l < cell.column) =>
            {
                e.columns.push(cell.column);
            }
            _ => out.push(MergedEntry { stamp: cell.stamp, kind: Kind::Mask, columns: vec![cell.column] }),
        }
    }
    out
}
