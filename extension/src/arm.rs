//! The triggers of a CRR: whether they are there as they ought to be, making them, dropping them.

use crate::portable::Capture;
use crate::schema::{self, TableInfo};
use crate::session::Session;
use crate::sqlgen::{self, Ident, Masks};
use crate::sqlite::Result;
use std::collections::BTreeSet;

/// A trigger of ours: its name and its SQL.
type Trigger = (String, String);

impl Session {
    /// Whether all triggers are there as they ought to be, for the columns that the table has now.
    pub fn is_armed(&self, info: &TableInfo) -> Result<bool> {
        let mut full = info.clone();
        self.fill_ids(&mut full)?;
        if full.id == 0 || full.columns.iter().any(|c| c.id == 0) {
            return Ok(false);
        }
        let there: BTreeSet<Trigger> = self.own_triggers(&info.name)?.into_iter().collect();
        let (full, sink) = self.captured(&full)?;
        let wanted: BTreeSet<Trigger> = sqlgen::triggers(&full, sink).into_iter().collect();
        Ok(there == wanted && self.fire_first(&info.name)?)
    }

    /// Whether no other trigger of the table is newer than ours. SQLite fires the newest first, and one that ends with
    /// RAISE(IGNORE), or fails under OR FAIL, keeps the row and the triggers that come after it from firing.
    fn fire_first(&self, table: &str) -> Result<bool> {
        let mut newer = self.db.prepare_transient(include_str!("../../sql/extension/newer_trigger.sql"))?;
        newer.bind_text(1, table)?;
        newer.bind_text(2, sqlgen::JOURNAL)?;
        Ok(!newer.step()?)
    }

    /// Whether every write to the columns of `info` has been captured: the triggers are those of a table like it, under
    /// whatever name they were made. (SQLite rewrites them when a table or a column is renamed.)
    pub fn captures(&self, info: &TableInfo) -> Result<bool> {
        let bodies = |triggers: Vec<Trigger>| -> BTreeSet<String> {
            let body = |(name, sql): &Trigger| {
                let head = format!("CREATE TRIGGER {}", Ident(name));
                // Earlier builds called the function where those of today read from the table: they captured the same.
                sql.strip_prefix(&head).unwrap_or(sql).replace("  SELECT 1 FROM ", "  SELECT ")
            };
            triggers.iter().map(body).collect()
        };
        let there = bodies(self.own_triggers(&info.name)?);
        let (info, sink) = self.captured(info)?;
        let like = |masks| there == bodies(sqlgen::triggers_with(&info, sink, masks));
        Ok(!there.is_empty() && (like(Masks::Sum) || like(Masks::Shifted)))
    }

    /// (Re-)makes the triggers, for the way of capture that the table has.
    pub fn arm(&self, info: &TableInfo) -> Result<()> {
        self.arm_as(info, self.capture_of(info.id)?)
    }

    /// (Re-)makes the triggers, and the inbox that they need or need no more. What stood in it must have been taken.
    pub fn arm_as(&self, info: &TableInfo, capture: Capture) -> Result<()> {
        self.make_inbox(info, capture)?;
        self.note_key(info.id, info)?;
        self.note_needs(info)?;
        let (info, sink) = self.captured(info)?;
        self.arm_with(&info, sqlgen::triggers(&info, sink))
    }

    /// Makes these triggers the only ones of ours on a table.
    pub fn arm_with(&self, info: &TableInfo, triggers: Vec<Trigger>) -> Result<()> {
        self.disarm(info)?;
        // They read the journal's table, which builds of format 1 do not let them.
        self.modernise()?;
        for (_, sql) in triggers {
            self.db.exec(&sqlgen::in_main(&sql))?;
        }
        self.forget_catalog();
        Ok(())
    }

    /// Drops the triggers that are ours, whatever columns they were made for and whatever the table was called then.
    pub fn disarm(&self, info: &TableInfo) -> Result<()> {
        for (name, _) in self.own_triggers(&info.name)? {
            self.db.exec(&format!("DROP TRIGGER main.{}", Ident(&name)))?;
        }
        Ok(())
    }

    /// Whether the application has triggers of its own on a table.
    pub fn looks_for_user_triggers(&self, table: &str) -> Result<bool> {
        let mut any = self.db.prepare_transient(
            "SELECT 1 FROM main.sqlite_master WHERE type = 'trigger' AND tbl_name = ?1 \
             AND NOT (name LIKE '%\\_\\_crsql\\_%' ESCAPE '\\') UNION ALL \
             SELECT 1 FROM temp.sqlite_master WHERE type = 'trigger' AND tbl_name = ?1 LIMIT 1",
        )?;
        any.bind_text(1, table)?;
        any.step()
    }

    /// The triggers on a table that write to the journal or to an inbox, or refuse what those could not keep.
    pub fn own_triggers(&self, table: &str) -> Result<Vec<Trigger>> {
        let mut all = self.db.prepare_transient(
            "SELECT name, sql FROM main.sqlite_master WHERE type = 'trigger' AND tbl_name = ?1 \
             AND name LIKE '%\\_\\_crsql\\_%' ESCAPE '\\' \
             AND (instr(sql, ?2) > 0 OR instr(sql, 'crsql_inbox_') > 0 OR instr(sql, 'starling: a REAL key') > 0)",
        )?;
        all.bind_text(1, table)?;
        all.bind_text(2, sqlgen::JOURNAL)?;
        let mut out = Vec::new();
        while all.step()? {
            out.push((schema::text(all.column_text(0)), schema::text(all.column_text(1))));
        }
        Ok(out)
    }
}
