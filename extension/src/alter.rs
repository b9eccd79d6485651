//! `crsql_begin_alter` and `crsql_commit_alter`: a window in which a CRR's table may be altered or rebuilt.
//!
//! The window is a savepoint, so all of it or nothing stays. Within it the table has triggers that name only its key, which
//! DROP COLUMN does not mind; what they capture is logged as the whole row written. At the end the catalogue follows the
//! columns: renamed ones keep their clocks, new ones are absent until they are written, and only what differs from the
//! state at the beginning makes changes.

use crate::catalog::Table;
use crate::differences::key_in;
use crate::digest::{group_of, groups_for, Digest, Groups};
use crate::evolve::Listed;
use crate::generations::History;
use crate::schema::{self, Column, TableInfo};
use crate::session::Session;
use crate::sight::Before;
use crate::sqlgen;
use crate::sqlite::{Error, Result};
use starling_crdt::local::{insert_width, TouchKind};
use std::collections::BTreeSet;
use std::rc::Rc;

/// An open window.
#[derive(Debug)]
pub struct AlterWindow {
    /// No transaction was open: its savepoint is one.
    whole: bool,
    /// The table as it was.
    before: Rc<Table>,
    /// Its columns in the order of the schema.
    columns: Vec<Column>,
    /// What its columns held.
    digest: Digest,
}

impl AlterWindow {
    /// Whether a new column stands where a column that is gone stood: between the same neighbours, defined alike.
    fn takes_the_place(&self, id: u32, new: &str, info: &TableInfo) -> bool {
        let old = self.before.info.columns.iter().find(|c| c.id == id);
        let Some((old, at)) = old.and_then(|o| Some((o, self.columns.iter().position(|c| c.name == o.name)?))) else {
            return false;
        };
        let place = |name: &str| info.schema_order.iter().position(|n| n == name);
        let Some(now) = place(new) else { return false };
        let after = self.columns.iter().take(at).filter_map(|c| place(&c.name)).all(|p| p < now);
        let before = self.columns.iter().skip(at + 1).filter_map(|c| place(&c.name)).all(|p| p > now);
        let alike = info.columns.iter().find(|c| c.name == new).is_some_and(|c| {
            (c.affinity, c.required, &c.default_sql) == (old.affinity, old.required, &old.default_sql)
        });
        after && before && alike
    }
}

/// The table as it stands when the window closes, before the catalogue follows it.
struct Now {
    /// Its columns; those that the catalogue does not know have numbers from the upper half, for this comparison only.
    columns: Vec<Column>,
    /// What they hold.
    digest: Digest,
    /// The groups of keys that were written in the window: there, values differ for that reason.
    written: Groups,
}

impl Now {
    /// Reads it. In a table that was made anew only columns that are new there are compared.
    fn read(session: &Session, window: &AlterWindow, info: &TableInfo, rebuilt: bool) -> Result<Self> {
        let mut numbered = info.clone();
        for (n, column) in numbered.columns.iter_mut().filter(|c| c.id == 0).enumerate() {
            column.id = u32::MAX - n as u32;
        }
        let table = Table::new(numbered, window.before.history.clone());
        let compared = !rebuilt || table.info.columns.iter().any(Self::is_new);
        let digest =
            if compared { session.digest(&table, window.digest.groups, |_| false)? } else { Digest::default() };
        Ok(Self { columns: table.info.columns, digest, written: session.written_groups(window, info, rebuilt)? })
    }

    fn is_new(column: &Column) -> bool {
        column.id > u32::MAX / 2
    }

    /// Columns that went and came under another name. ALTER TABLE leaves a renamed column in its place, so there the place
    /// tells, unless the values say otherwise; in a table that was made anew only equal values tell.
    fn renames(&self, window: &AlterWindow, info: &TableInfo, rebuilt: bool) -> Vec<Listed> {
        let mut came: Vec<&Column> = self.columns.iter().filter(|c| Self::is_new(c)).collect();
        let mut renames = Vec::new();
        for id in window.before.column_ids.iter().copied().filter(|id| info.position(*id).is_none()) {
            let fits = |new: &&Column| {
                let same = window.digest.same_column(id, &self.digest, new.id, &self.written);
                if rebuilt {
                    same && window.digest.has_evidence(id, &self.written)
                } else {
                    same && window.takes_the_place(id, &new.name, info)
                }
            };
            let Some(at) = came.iter().position(fits) else { continue };
            renames.push((id, came.remove(at).name.clone()));
        }
        renames
    }

    /// Columns that have the names of others now, where each stands in its place and holds what it held.
    fn exchanged(&self, window: &AlterWindow, info: &TableInfo) -> Option<Vec<Listed>> {
        let id_of = |columns: &[Column], name: &str| columns.iter().find(|c| c.name == name).map(|c| c.id);
        let mut renames = Vec::new();
        for (old, name) in window.columns.iter().zip(&info.schema_order) {
            let (before, now) = (id_of(&window.before.info.columns, &old.name)?, id_of(&self.columns, name)?);
            let same = window.digest.same_column(before, &self.digest, now, &self.written);
            if !same || !self.has_others(window, before, now) {
                return None;
            }
            renames.push((before, name.clone()));
        }
        (window.columns.len() == info.schema_order.len()).then_some(renames)
    }

    /// Columns that were dropped and added again under the same name: their values went with the old ones, and no write
    /// explains it.
    fn replaced(&self, window: &AlterWindow, info: &TableInfo) -> Vec<u32> {
        let kept: Vec<u32> = self.columns.iter().filter(|c| !Self::is_new(c)).map(|c| c.id).collect();
        let replaced = |id: &u32| {
            let same = self.digest.same_column(*id, &window.digest, *id, &self.written);
            // Where every row was written, ADD COLUMN is known by where it puts the column: behind those that it was before.
            !same || (!self.has_others(window, *id, *id) && self.went_back(window, *id, &kept, info))
        };
        kept.iter().copied().filter(replaced).collect()
    }

    /// Whether there are rows that were not written, by which a column of before can be compared with one of now.
    fn has_others(&self, window: &AlterWindow, before: u32, now: u32) -> bool {
        window.digest.has_others(before, &self.written) || self.digest.has_others(now, &self.written)
    }

    /// Whether a column stands behind another one that it stood before.
    fn went_back(&self, window: &AlterWindow, id: u32, kept: &[u32], info: &TableInfo) -> bool {
        let name = |id: u32| window.before.info.columns.iter().find(|c| c.id == id).map(|c| c.name.as_str());
        let places = |id: u32| {
            let then = window.columns.iter().position(|c| Some(c.name.as_str()) == name(id))?;
            let now = info.schema_order.iter().position(|n| Some(n.as_str()) == name(id))?;
            Some((then, now))
        };
        let Some((then, now)) = places(id) else { return false };
        kept.iter().filter_map(|other| places(*other)).any(|other| then < other.0 && other.1 < now)
    }
}

impl Session {
    /// Opens a window for a CRR; a plain table needs none.
    ///
    /// # Errors
    /// There is no such table, or its window is open already.
    pub fn begin_alter(&self, name: &str) -> Result<()> {
        let Some(table) = self.crr_named(name, "crsql_begin_alter")? else { return Ok(()) };
        let id = table.info.id;
        let whole = self.db.is_autocommit();
        self.db.exec(&open(id))?;
        let begin = || {
            self.join_transaction()?;
            self.refresh()?;
            self.flush()?;
            self.settle_names()?;
            let Some(table) = self.table_named(name)? else {
                return Err(Error::msg(format!("crsql_begin_alter: {name} is not a CRR")));
            };
            if self.window(table.info.id).is_some() {
                return Err(Error::msg(format!("crsql_begin_alter: the window of {name} is open already")));
            }
            let Some(info) = schema::read(self.db, &table.info.name)? else { return Ok(()) };
            let columns = info.columns.clone();
            // As it is called now: what was renamed before is told by the triggers alone, which a rebuild takes away.
            if !self.is_armed(&info)? {
                self.rearm(info)?;
            }
            let Some(before) = self.table(table.info.id)? else { return Ok(()) };
            let digest = self.digest(&before, groups_for(before.column_ids.len()), |_| false)?;
            self.pause_order(before.info.id, &before.info.name)?;
            self.arm_with(&before.info, sqlgen::window_triggers(&before.info, self.meta()?.file))?;
            self.tx_mut().windows.push(Rc::new(AlterWindow { whole, before, columns, digest }));
            Ok(())
        };
        begin().inspect_err(|_| self.undo(&undo(id, whole)))
    }

    /// The table that touches are of. In its window that is the one with the columns of before: a write of the row is one of each
    /// of them, whatever they are called by now; the new ones are looked after at the end.
    pub fn table_of_touches(&self, id: u32) -> Result<Option<Rc<Table>>> {
        let now = self.table(id)?;
        let Some(window) = self.window(id) else { return Ok(now) };
        // Made anew with another key: none of those rows is there.
        let same_key = now.as_ref().map_or(Ok(false), |table| table.has_same_key(self))?;
        let now = now.filter(|_| same_key);
        let mut info = window.before.info.clone();
        if let Some(now) = &now {
            (info.name, info.keys) = (now.info.name.clone(), now.info.keys.clone());
        }
        let mut table = Table::new(info, window.before.history.clone());
        table.gone = now.is_none();
        Ok(Some(Rc::new(table)))
    }

    fn forget_window(&self, id: u32) {
        let mut tx = self.tx_mut();
        tx.windows.retain(|w| w.before.info.id != id);
        tx.written.remove(&id);
    }

    /// A row was written in the window of a table, by whomever: there, values differ for that reason.
    pub fn note_in_window(&self, table: u32, key: &[u8]) {
        let Some(window) = self.window(table) else { return };
        let group = group_of(key, window.digest.groups);
        let known = self.tx.borrow().written.get(&table).is_some_and(|groups| groups.contains(group));
        if !known {
            self.tx_mut().written.entry(table).or_default().insert(group);
        }
    }

    /// Whether a table has other columns than when its window was opened: what is merged now would not find them.
    pub fn is_in_alteration(&self, table: &Table) -> bool {
        self.window(table.info.id).is_some_and(|w| w.before.column_ids != table.column_ids)
    }

    /// The open window of a table.
    pub fn window(&self, id: u32) -> Option<Rc<AlterWindow>> {
        self.tx.borrow().windows.iter().find(|w| w.before.info.id == id).cloned()
    }

    /// Closes a window; a plain table has none.
    ///
    /// # Errors
    /// No window is open for a CRR, or what the table has become cannot be a CRR; then everything since `crsql_begin_alter` is
    /// rolled back.
    pub fn commit_alter(&self, name: &str) -> Result<()> {
        let windows: Vec<Rc<AlterWindow>> = self.tx.borrow().windows.clone();
        let called = |w: &&Rc<AlterWindow>| w.before.info.name.eq_ignore_ascii_case(name);
        let found = match windows.iter().find(called) {
            Some(window) => Some(Rc::clone(window)),
            // Renamed meanwhile, and called by its new name.
            None => match schema::real_name(self.db, name)? {
                Some(real) => self.id_of(&real)?.and_then(|(id, _)| self.window(id)),
                None => None,
            },
        };
        let Some(window) = found else {
            if self.crr_named(name, "crsql_commit_alter")?.is_none() {
                return self.none_is_gone(&windows, name);
            }
            return Err(Error::msg(format!(
                "crsql_commit_alter: no window is open for {name}; crsql_begin_alter('{name}') opens one, and it ends with \
                 its transaction"
            )));
        };
        let id = window.before.info.id;
        let result = self.close_window(&window).and_then(|()| self.db.exec(&keep(id)));
        result.map_err(|e| {
            self.undo(&undo(id, window.whole));
            self.forget_catalog();
            Error::new(e.code, format!("{}; everything since crsql_begin_alter was rolled back", e.message))
        })
    }

    /// A plain table needs no window; but where the table of one that is open is gone, this one was meant to take its place.
    fn none_is_gone(&self, windows: &[Rc<AlterWindow>], name: &str) -> Result<()> {
        for window in windows {
            let gone = &window.before.info;
            if self.bearer(gone.id)?.is_none() && schema::real_name(self.db, &gone.name)?.is_none() {
                return Err(Error::msg(format!(
                    "crsql_commit_alter: {name} is no CRR, and {}, whose window is open, is gone; give {name} its name first, or \
                     roll back",
                    gone.name
                )));
            }
        }
        Ok(())
    }

    fn close_window(&self, window: &AlterWindow) -> Result<()> {
        let id = window.before.info.id;
        self.refresh()?;
        self.settle_names()?;
        let now = self.name_of(id)?;
        let Some(mut info) = now.map_or(Ok(None), |now| schema::read(self.db, &now))? else {
            return Err(Error::msg(format!(
                "crsql_commit_alter: the CRR {} is gone; it can be let go without a window",
                window.before.info.name
            )));
        };
        schema::check(self.db, &info)?;
        self.fill_ids(&mut info)?;
        info.id = id;
        if !same_key(&window.before.info, &info) {
            return self.close_on_new_key(id, &info);
        }
        let rebuilt = !self.captures_window(&info)?;
        let now = Now::read(self, window, &info, rebuilt)?;
        let replaced = if rebuilt { Vec::new() } else { now.replaced(window, &info) };
        let exchanged = if replaced.is_empty() { None } else { now.exchanged(window, &info) };
        match exchanged {
            Some(renames) => self.rename_columns(id, &renames)?,
            None => {
                self.rename_columns(id, &now.renames(window, &info, rebuilt))?;
                self.drop_columns(&info, &replaced)?;
            }
        }
        let born = self.evolve(&mut info)?;
        self.arm(&info)?;
        self.keep_order(&info)?;
        self.forget_window(id);
        self.widen_touches(id)?;
        // What was written in the window is logged now that the columns are known.
        self.flush()?;
        if let Some(table) = self.table(id)? {
            let before = Before::Table(Rc::clone(&window.before));
            let shown = self.show_complete(&table, &before)?;
            // What triggers of the application made of that.
            self.flush()?;
            if rebuilt {
                self.check_keys(&table.info)?;
                // First which rows came and went: one that nobody knows yet is not to be known by one of its cells.
                self.log_rebuilt(&table, window, &born, (&before, &shown))?;
            }
            self.log_never_written(&table, &window.before.info)?;
            self.log_bare(&table, &window.before)?;
            if !rebuilt {
                // New columns are at their defaults, unless one of them is a renamed one that was not recognised.
                self.log_grown(&table, &born)?;
            }
        }
        self.retry_aside()?;
        Ok(())
    }

    /// The key is another one, and with it the identity of every row: the table begins anew.
    fn close_on_new_key(&self, id: u32, info: &TableInfo) -> Result<()> {
        self.forget_window(id);
        // What the window's triggers told is of rows under their former keys.
        self.flush()?;
        self.begin_anew(id, info)
    }

    /// Rows that were inserted or rewritten in the window are logged with the columns that the table has at its end: each
    /// needs a seq of its own.
    fn widen_touches(&self, id: u32) -> Result<()> {
        let Some(table) = self.table(id)? else { return Ok(()) };
        let columns = table.column_ids.len() as u64;
        self.journal.borrow_mut().widen(id, |kind| match kind {
            TouchKind::Insert { moved, .. } => insert_width(moved, columns),
            TouchKind::Delete | TouchKind::Update { .. } => 0,
        });
        Ok(())
    }

    /// The groups of keys that were written in the window.
    fn written_groups(&self, window: &AlterWindow, info: &TableInfo, rebuilt: bool) -> Result<Groups> {
        let of = window.digest.groups;
        let mut groups = self.tx.borrow().written.get(&info.id).cloned().unwrap_or_default();
        if rebuilt {
            let table = Table::new(info.clone(), History::default());
            let mut gone = self.known_keys(&table, &Before::Table(Rc::clone(&window.before)))?;
            let mut select = self.db.prepare_transient(&sqlgen::select_keys(info))?;
            let mut key = Vec::new();
            while select.step()? {
                key_in(&select, &table, &mut key);
                if !gone.remove(&key) {
                    groups.insert(group_of(&key, of));
                }
            }
            gone.iter().for_each(|key| groups.insert(group_of(key, of)));
        }
        Ok(groups)
    }

    /// Whether the window's own triggers have seen every write.
    fn captures_window(&self, info: &TableInfo) -> Result<bool> {
        let (info, _) = self.captured(info)?;
        let wanted = sqlgen::window_triggers(&info, self.meta()?.file).len();
        Ok(self.own_triggers(&info.name)?.len() == wanted)
    }

    /// A table that was made anew: rows that came or went, columns that were rewritten, new columns that were filled.
    /// `shown`: what has come into sight, and was in no one's sums at the beginning.
    fn log_rebuilt(
        &self,
        table: &Table,
        window: &AlterWindow,
        born: &[u32],
        (before, shown): (&Before, &BTreeSet<Vec<u8>>),
    ) -> Result<()> {
        let known = self.known_keys(table, before)?;
        self.log_vanished(table, &known)?;
        self.log_appeared(table, &known)?;
        let now = self.digest(table, window.digest.groups, |key| !known.contains(key) || shown.contains(key))?;
        let columns = table.column_ids.iter().enumerate();
        let rewritten: Vec<(usize, u32)> = columns
            .filter(|(_, id)| !born.contains(id) && !now.same_column(**id, &window.digest, **id, &Groups::default()))
            .map(|(position, id)| (position, *id))
            .collect();
        if !rewritten.is_empty() {
            let mut select = self.db.prepare_transient(&sqlgen::select_keys(&table.info))?;
            let mut key = Vec::new();
            while select.step()? {
                key_in(&select, table, &mut key);
                let group = group_of(&key, now.groups);
                for (position, id) in &rewritten {
                    if known.contains(&key) && !now.same_group(&window.digest, *id, group) {
                        self.log_cell(table, *position, &key)?;
                    }
                }
            }
            drop(select);
            self.flush()?;
        }
        self.log_grown(table, born)
    }
}

/// A window is a savepoint of its table's own: one that is undone ends no other.
fn open(id: u32) -> String {
    format!("SAVEPOINT crsql_alter_{id}")
}

fn keep(id: u32) -> String {
    format!("RELEASE crsql_alter_{id}")
}

/// A RELEASE of what is the whole transaction would be a COMMIT, which a reader can keep from happening.
fn undo(id: u32, whole: bool) -> String {
    if whole {
        return "ROLLBACK".to_owned();
    }
    format!("ROLLBACK TO crsql_alter_{id}; RELEASE crsql_alter_{id}")
}

/// Whether keys of before mean the same rows now; what their columns are called does not matter.
fn same_key(before: &TableInfo, now: &TableInfo) -> bool {
    before.keys.len() == now.keys.len() && before.keys.iter().zip(&now.keys).all(|(a, b)| a.affinity == b.affinity)
}
