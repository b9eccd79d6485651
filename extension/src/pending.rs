//! What has arrived and cannot be shown yet, grouped for the user: `crsql_pending`.
//!
//! Two places hold it: whole changeset parts of which some rows could not be merged (`aside`), and values of rows that are
//! merged but not complete (`crsql_hidden`). A part says only that something in it waits; which of its rows still do is asked
//! of the merge decision, so that what a later change has overtaken is not told. Nothing here writes.

use crate::affinity::canonical_key;
use crate::apply::is_visible;
use crate::aside::{NO_COLUMN, NO_TABLE};
use crate::catalog::Table;
use crate::session::{corrupt, Session};
use crate::sqlite::Result;
use starling_crdt::changeset::{Item, PartReader, Row, RowKind, TableDef};
use starling_crdt::decide::{decide, Incoming, IncomingCell, IncomingKind};
use starling_crdt::row_clock::{RowClock, Stamp};
use starling_crdt::{Dot, SiteId, Value, ValueRef};
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

/// What rows have in common that wait together.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Waiting {
    /// The table's name, at the sender where there is none here.
    pub table: String,
    /// What they wait for, or why they were refused.
    pub reason: String,
    /// Who wrote them.
    pub site: SiteId,
    /// In which of its versions.
    pub version: u64,
}

/// Row items waiting, by what they have in common.
pub type Pending = BTreeMap<Waiting, i64>;

const UNBORN: &str = "row incomplete: its insert has not arrived";
const REFUSED: &str =
    "a constraint refused the row when it could be shown: SELECT starling_resume() once that is lifted";
/// The table was not there, or another row's reason was noted: trying again tells.
const TRY_AGAIN: &str = "not tried since the schema changed: SELECT starling_resume()";

/// A part kept aside, with what was noted when it came.
struct Kept {
    table: String,
    reason: String,
    part: Vec<u8>,
}

/// What is called for each row of a part: the part's dot, the row's table as the part names it and as it is here, the row.
pub type EachRow<'f> = &'f mut dyn FnMut(&Dot, &TableDef<'_>, Option<&Table>, &Row<'_>) -> Result<()>;

/// Local column id, col_version and value.
type KnownCell = (u32, u64, Value);

impl Session {
    /// Everything that waits.
    ///
    /// # Errors
    /// Damaged internal tables, or what SQLite says.
    pub fn pending(&self) -> Result<Pending> {
        let mut pending = Pending::new();
        if !self.has_schema()? {
            return Ok(pending);
        }
        self.refresh()?;
        self.flush()?;
        let mut after = 0;
        while let Some((id, kept)) = self.kept_after(after)? {
            after = id;
            self.pending_of_part(&kept, &mut pending)?;
        }
        self.pending_hidden(&mut pending)?;
        Ok(pending)
    }

    fn kept_after(&self, id: i64) -> Result<Option<(i64, Kept)>> {
        let mut next =
            self.fixed("SELECT id, table_name, reason, part FROM main.crsql_aside WHERE id > ?1 ORDER BY id LIMIT 1")?;
        next.bind_int(1, id)?;
        if !next.step()? {
            return Ok(None);
        }
        let text = |i| crate::schema::text(next.column_text(i));
        let kept = Kept { table: text(1), reason: text(2), part: next.column_blob(3).to_vec() };
        Ok(Some((next.column_int(0), kept)))
    }

    fn pending_of_part(&self, kept: &Kept, pending: &mut Pending) -> Result<()> {
        self.each_row_kept(&kept.part, &mut |dot, def, table, row| {
            let Some(reason) = self.why_waiting(kept, def, table, row)? else { return Ok(()) };
            let waiting = Waiting { table: def.name.to_string(), reason, site: dot.origin.site, version: dot.version };
            *pending.entry(waiting).or_insert(0) += 1;
            Ok(())
        })
    }

    /// Calls `f` with every row of a part that is kept aside.
    pub fn each_row_kept(&self, part: &[u8], f: EachRow<'_>) -> Result<()> {
        let damaged = |e| corrupt("crsql_aside", e);
        let mut reader = PartReader::new(part).map_err(damaged)?;
        let dot = reader.header().dot.dot;
        let mut tables: Vec<(TableDef<'_>, Option<Rc<Table>>)> = Vec::new();
        while let Some(item) = reader.next_item().map_err(damaged)? {
            match item {
                Item::Table(def) => {
                    let table = self.table_told(&def)?;
                    tables.push((def, table));
                }
                Item::Row(row) => {
                    let Some((def, table)) = tables.get(row.table) else { continue };
                    f(&dot, def, table.as_deref(), &row)?;
                }
                Item::Dot(_) | Item::Author(_) => {}
            }
        }
        Ok(())
    }

    /// Why a row of a part waits; `None` if it does not.
    fn why_waiting(
        &self,
        kept: &Kept,
        def: &TableDef<'_>,
        table: Option<&Table>,
        row: &Row<'_>,
    ) -> Result<Option<String>> {
        let Some(table) = table else { return Ok(Some(NO_TABLE.to_string())) };
        let Some(cells) = self.known_cells(table, def, row)? else { return Ok(Some(NO_COLUMN.to_string())) };
        let key = match canonical_key(self, table, row.key)? {
            Ok(key) => key,
            Err(why) => return Ok(Some(why)),
        };
        let changes = self.would_change(table, &key, row, &cells)?;
        let noted =
            kept.table.eq_ignore_ascii_case(&table.info.name) && kept.reason != NO_TABLE && kept.reason != NO_COLUMN;
        let reason = if noted { kept.reason.as_str() } else { TRY_AGAIN };
        Ok(changes.then(|| reason.to_string()))
    }

    /// Whether the row of a part is not merged yet, nor overtaken.
    pub fn still_waits(&self, table: &Table, def: &TableDef<'_>, key: &[u8], row: &Row<'_>) -> Result<bool> {
        self.known_cells(table, def, row)?.map_or(Ok(true), |cells| self.would_change(table, key, row, &cells))
    }

    fn would_change(&self, table: &Table, key: &[u8], row: &Row<'_>, cells: &[KnownCell]) -> Result<bool> {
        let local = self.local_row(table, key, true)?;
        let changes = decide(local.clock.as_ref(), &local, &incoming(row, cells), &table.column_ids, false).is_some();
        local.check().map(|()| changes)
    }

    /// Local column id, col_version and value of each cell that a row names; `None` if one of the columns is not known
    /// here.
    fn known_cells(&self, table: &Table, def: &TableDef<'_>, row: &Row<'_>) -> Result<Option<Vec<KnownCell>>> {
        let named: Vec<(usize, u64, ValueRef<'_>)> = match &row.kind {
            RowKind::Uniform { values, .. } => values.iter().enumerate().map(|(i, v)| (i, 1, v.value())).collect(),
            RowKind::Base { cells, .. } | RowKind::Cells { cells, .. } => {
                cells.iter().map(|c| (c.column, c.version, c.value.value())).collect()
            }
            RowKind::Tombstone { .. } => Vec::new(),
        };
        let mut known = Vec::with_capacity(named.len());
        for (i, version, value) in named {
            let Some(name) = def.columns.get(i) else { return Ok(None) };
            let position = self.column_meant(table, name)?;
            let Some(column) = position.and_then(|p| table.info.columns.get(p)) else { return Ok(None) };
            known.push((column.id, version, self.stored_as(value, column.affinity)?));
        }
        Ok(Some(known))
    }

    /// Rows that are merged but cannot be shown.
    fn pending_hidden(&self, pending: &mut Pending) -> Result<()> {
        let mut rows: Vec<(u32, Vec<u8>)> = Vec::new();
        {
            let mut all = self.fixed("SELECT DISTINCT table_id, key FROM main.crsql_hidden")?;
            while all.step()? {
                let id = u32::try_from(all.column_int(0)).map_err(|e| corrupt("crsql_hidden", e))?;
                rows.push((id, all.column_blob(1).to_vec()));
            }
        }
        for (id, key) in rows {
            // The rows of a table that is no CRR at present wait for nothing.
            let Some(table) = self.table(id)? else { continue };
            let Some(clock) = self.get_clock(&table, &key)? else { continue };
            if !clock.is_alive() || is_visible(&table, &clock) {
                continue;
            }
            let reason = why_hidden(&table, &clock, self.was_refused(id, &key)?);
            for (site, version) in self.writers(&table, &key, &clock)? {
                let waiting = Waiting { table: table.info.name.clone(), reason: reason.clone(), site, version };
                *pending.entry(waiting).or_insert(0) += 1;
            }
        }
        Ok(())
    }

    /// The transactions that a row's cells came from.
    fn writers(&self, table: &Table, key: &[u8], clock: &RowClock) -> Result<BTreeSet<(SiteId, u64)>> {
        let mut stamps: Vec<Stamp> = clock.cells.iter().filter(|c| c.version > 0).map(|c| c.stamp).collect();
        if stamps.is_empty() {
            stamps.extend(clock.life.or(clock.moved));
        }
        if stamps.is_empty() {
            stamps.extend(self.base_stamp(table, key)?);
        }
        let mut writers = BTreeSet::new();
        for stamp in stamps {
            let site = match stamp.author {
                0 => self.origin_of(stamp.origin)?.0.site,
                row => self.site_of_row(row)?,
            };
            writers.insert((site, stamp.version));
        }
        Ok(writers)
    }
}

fn why_hidden(table: &Table, clock: &RowClock, refused: bool) -> String {
    if !clock.born {
        return if refused { REFUSED } else { UNBORN }.to_string();
    }
    let absent = table.info.columns.iter().find(|c| c.required && clock.version_of(c.id) == 0);
    let name = absent.map_or("", |c| c.name.as_str());
    format!("row incomplete: no value has arrived for the NOT NULL column {}", crate::sqlgen::Ident(name))
}

/// The entry as the decision takes it. Whether it changes something does not depend on who wrote it.
fn incoming<'a>(row: &Row<'_>, cells: &'a [KnownCell]) -> Incoming<'a> {
    let stamp = Stamp::default();
    let kind = match &row.kind {
        RowKind::Uniform { .. } => IncomingKind::Base { life: stamp, sentinel: None },
        RowKind::Base { sentinel, .. } => {
            IncomingKind::Base { life: stamp, sentinel: sentinel.as_ref().map(|_| stamp) }
        }
        RowKind::Cells { born, life, .. } => IncomingKind::Cells { born: *born, life: life.as_ref().map(|_| stamp) },
        RowKind::Tombstone { .. } => IncomingKind::Tombstone { life: stamp },
    };
    let cells = cells
        .iter()
        .map(|(column, version, value)| IncomingCell {
            column: *column,
            version: *version,
            stamp,
            value: value.as_ref(),
        })
        .collect();
    Incoming { cl: row.cl, kind, cells }
}
