//! `crsql_begin_alter` and `crsql_commit_alter`: a window in which a CRR's table may be altered or rebuilt.
//!
//! The window is a savepoint, so all of it or nothing stays. Within it the table has triggers that name only its key, which
//! DROP COLUMN does not mind; what they capture is logged as the whole row written. At the end the catalogue follows the
//! columns: renamed ones keep their clocks, new ones are absent until they are written, and only what differs from the
//! state at the beginning makes changes.

use crate::catalog::Table;
use crate::differences::key_in;
use crate::digest::{group_of, Digest};
use crate::evolve::Listed;
use crate::generations::History;
use crate::journal_table::insertion;
use crate::schema::{self, Column, TableInfo};
use crate::session::Session;
use crate::sight::Before;
use crate::sqlgen;
use crate::sqlite::{Error, Result};
use starling_crdt::local::TouchKind;
use std::cell::RefCell;
use std::collections::BTreeSet;
use std::rc::Rc;

/// An open window.
#[derive(Debug)]
pub struct AlterWindow {
    /// The table as it was.
    before: Rc<Table>,
    /// Its columns in the order of the schema.
    columns: Vec<Column>,
    /// What its columns held.
    digest: Digest,
    /// The groups of keys of which a trigger has told since, whoever wrote them: there, values may differ for that reason. What
    /// was rolled back stays in it.
    written: RefCell<BTreeSet<usize>>,
}

impl AlterWindow {
    /// Its triggers tell of a write.
    pub fn note_write(&self, key: &[u8]) {
        self.written.borrow_mut().insert(group_of(key));
    }

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
    written: BTreeSet<usize>,
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
        let digest = if compared { session.digest(&table, |_| false)? } else { Digest::default() };
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
            if !window.digest.same_column(before, &self.digest, now, &self.written) {
                return None;
            }
            renames.push((before, name.clone()));
        }
        (window.columns.len() == info.schema_order.len()).then_some(renames)
    }

    /// Columns that were dropped and added again under the same name: their values went with the old ones, and no write
    /// explains it.
    fn replaced(&self, window: &AlterWindow) -> Vec<u32> {
        let kept = self.columns.iter().filter(|c| !Self::is_new(c)).map(|c| c.id);
        kept.filter(|id| !self.digest.same_column(*id, &window.digest, *id, &self.written)).collect()
    }
}

const OPEN: &str = "SAVEPOINT crsql_alter";
const KEEP: &str = "RELEASE crsql_alter";
const UNDO: &str = "ROLLBACK TO crsql_alter; RELEASE crsql_alter";

impl Session {
    /// Opens a window for a CRR; a plain table needs none.
    ///
    /// # Errors
    /// There is no such table, or its window is open already.
    pub fn begin_alter(&self, name: &str) -> Result<()> {
        if self.crr_named(name, "crsql_begin_alter")?.is_none() {
            return Ok(());
        }
        self.db.exec(OPEN)?;
        let open = || {
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
            if !self.is_armed(&table.info)? {
                let read = schema::read(self.db, &table.info.name)?;
                read.map_or(Ok(()), |info| self.rearm(info))?;
            }
            let Some(before) = self.table(table.info.id)? else { return Ok(()) };
            let columns = schema::read(self.db, &before.info.name)?.map_or_else(Vec::new, |info| info.columns);
            let digest = self.digest(&before, |_| false)?;
            self.pause_order(before.info.id, &before.info.name)?;
            self.arm_with(&before.info, sqlgen::window_triggers(&before.info, self.meta()?.file))?;
            self.tx_mut().windows.push(Rc::new(AlterWindow { before, columns, digest, written: RefCell::default() }));
            Ok(())
        };
        open().inspect_err(|_| self.undo(UNDO))
    }

    /// The table that touches are of. In its window that is the one with the columns of before: a write of the row is one of each
    /// of them, whatever they are called by now; the new ones are looked after at the end.
    pub fn table_of_touches(&self, id: u32) -> Result<Option<Rc<Table>>> {
        let now = self.table(id)?;
        let Some(window) = self.window(id) else { return Ok(now) };
        let mut info = window.before.info.clone();
        if let Some(now) = now {
            (info.name, info.keys) = (now.info.name.clone(), now.info.keys.clone());
        }
        Ok(Some(Rc::new(Table::new(info, window.before.history.clone()))))
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
                return Ok(());
            }
            return Err(Error::msg(format!(
                "crsql_commit_alter: no window is open for {name}; crsql_begin_alter('{name}') opens one, and it ends with \
                 its transaction"
            )));
        };
        let result = self.close_window(&window).and_then(|()| self.db.exec(KEEP));
        result.map_err(|e| {
            self.undo(UNDO);
            self.forget_catalog();
            Error::new(e.code, format!("{}; everything since crsql_begin_alter was rolled back", e.message))
        })
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
        let replaced = if rebuilt { Vec::new() } else { now.replaced(window) };
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
        self.tx_mut().windows.retain(|w| w.before.info.id != id);
        self.widen_touches(id)?;
        // What was written in the window is logged now that the columns are known.
        self.flush()?;
        if let Some(table) = self.table(id)? {
            let before = Before::Table(Rc::clone(&window.before));
            let shown = self.show_complete(&table, &before)?;
            // What triggers of the application made of that.
            self.flush()?;
            self.log_never_written(&table, &window.before.info)?;
            self.log_bare(&table, &window.before)?;
            if rebuilt {
                self.check_keys(&table.info)?;
                self.log_rebuilt(&table, window, &born, (&before, &shown))?;
            } else {
                // New columns are at their defaults, unless one of them is a renamed one that was not recognised.
                self.log_grown(&table, &born)?;
            }
        }
        self.retry_aside()?;
        Ok(())
    }

    /// The key is another one, and with it the identity of every row: the table begins anew.
    fn close_on_new_key(&self, id: u32, info: &TableInfo) -> Result<()> {
        self.tx_mut().windows.retain(|w| w.before.info.id != id);
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
            TouchKind::Insert { replace, moved } => insertion(moved, replace, columns).1,
            TouchKind::Delete | TouchKind::Update { .. } => 0,
        });
        Ok(())
    }

    /// The groups of keys that were written in the window.
    fn written_groups(&self, window: &AlterWindow, info: &TableInfo, rebuilt: bool) -> Result<BTreeSet<usize>> {
        let mut groups = window.written.borrow().clone();
        if rebuilt {
            let table = Table::new(info.clone(), History::default());
            let mut gone = self.known_keys(&table, &Before::Table(Rc::clone(&window.before)))?;
            let mut select = self.db.prepare_transient(&sqlgen::select_keys(info))?;
            let mut key = Vec::new();
            while select.step()? {
                key_in(&select, &table, &mut key);
                if !gone.remove(&key) {
                    groups.insert(group_of(&key));
                }
            }
            groups.extend(gone.iter().map(|key| group_of(key)));
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
        let now = self.digest(table, |key| !known.contains(key) || shown.contains(key))?;
        let columns = table.column_ids.iter().enumerate();
        let rewritten: Vec<(usize, u32)> = columns
            .filter(|(_, id)| !born.contains(id) && !now.same_column(**id, &window.digest, **id, &BTreeSet::new()))
            .map(|(position, id)| (position, *id))
            .collect();
        if !rewritten.is_empty() {
            let mut select = self.db.prepare_transient(&sqlgen::select_keys(&table.info))?;
            let mut key = Vec::new();
            while select.step()? {
                key_in(&select, table, &mut key);
                let group = group_of(&key);
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

/// Whether keys of before mean the same rows now; what their columns are called does not matter.
fn same_key(before: &TableInfo, now: &TableInfo) -> bool {
    before.keys.len() == now.keys.len() && before.keys.iter().zip(&now.keys).all(|(a, b)| a.affinity == b.affinity)
}
