//! Which table a catalogue id stands for, whatever the table is called by now.
//!
//! `ALTER TABLE … RENAME TO` takes the triggers along, so a table is recognised by the tag in its insert trigger; the
//! name in the catalogue is what it was called when it was last looked at (X3). A table or column that was renamed here
//! still answers to its former name when changes arrive from nodes that have not renamed it yet (E13).

use crate::catalog::Table;
use crate::inbox::{inbox_in, into_inbox};
use crate::schema;
use crate::session::{corrupt, Session};
use crate::sqlgen::{Tag, TagOp, JOURNAL};
use crate::sqlite::Result;
use starling_crdt::changeset::TableDef;
use std::collections::BTreeMap;
use std::rc::Rc;

impl Session {
    /// The catalogue's id for a table of this name, an archived one included, and its schema generation.
    pub fn id_of(&self, name: &str) -> Result<Option<(u32, u32)>> {
        let tagged = self.tagged_id(name)?;
        let (id, generation) = {
            let mut find = match tagged {
                Some(_) => self.fixed("SELECT id, generation FROM main.crsql_table WHERE id = ?1")?,
                None => self.fixed("SELECT id, generation FROM main.crsql_table WHERE name = ?1")?,
            };
            match tagged {
                Some(id) => find.bind_int(1, i64::from(id))?,
                None => find.bind_text(1, name)?,
            }
            if !find.step()? {
                return Ok(None);
            }
            let number = |i| u32::try_from(find.column_int(i)).map_err(|e| corrupt("crsql_table", e));
            (number(0)?, number(1)?)
        };
        if tagged.is_none() && self.bearer(id)?.is_some_and(|bearer| bearer != name) {
            // The name is free again: that table was renamed.
            return Ok(None);
        }
        Ok(Some((id, generation)))
    }

    /// The id in the insert trigger of a table.
    fn tagged_id(&self, name: &str) -> Result<Option<u32>> {
        let mut find = self.fixed(
            "SELECT sql FROM main.sqlite_master WHERE type = 'trigger' AND tbl_name = ?1 \
             AND name LIKE '%\\_\\_crsql\\_insert' ESCAPE '\\' \
             AND (instr(sql, ?2) > 0 OR instr(sql, 'INTO crsql_inbox_') > 0)",
        )?;
        find.bind_text(1, name)?;
        find.bind_text(2, JOURNAL)?;
        while find.step()? {
            if let Some(id) = self.id_in(&schema::text(find.column_text(0)))? {
                return Ok(Some(id));
            }
        }
        Ok(None)
    }

    /// The table id in the SQL of an insert trigger of this file's.
    fn id_in(&self, sql: &str) -> Result<Option<u32>> {
        if let Some(id) = inbox_in(sql) {
            return Ok(Some(id));
        }
        let file = self.meta()?.file;
        let digits = sql.rsplit_once("VALUES(").map_or("", |(_, tail)| tail);
        let number = digits.split(',').next().and_then(|d| d.parse().ok());
        let tag = number.and_then(Tag::decode).filter(|t| t.file == file && t.op == TagOp::Insert);
        Ok(tag.map(|t| t.table))
    }

    /// The tables that bear our insert triggers, by id.
    fn bearers(&self) -> Result<BTreeMap<u32, String>> {
        let mut all = self.fixed(
            "SELECT tbl_name, sql FROM main.sqlite_master WHERE type = 'trigger' \
             AND name LIKE '%\\_\\_crsql\\_insert' ESCAPE '\\' \
             AND (instr(sql, ?1) > 0 OR instr(sql, 'INTO crsql_inbox_') > 0)",
        )?;
        all.bind_text(1, JOURNAL)?;
        let mut out = BTreeMap::new();
        while all.step()? {
            if let Some(id) = self.id_in(&schema::text(all.column_text(1)))? {
                out.insert(id, schema::text(all.column_text(0)));
            }
        }
        Ok(out)
    }

    /// The table whose insert trigger bears an id.
    pub fn bearer(&self, id: u32) -> Result<Option<String>> {
        let file = self.meta()?.file;
        let tag = |packed| format!("VALUES({},", Tag { file, table: id, word: 0, packed, op: TagOp::Insert }.encode());
        let mut find = self.fixed(
            "SELECT tbl_name FROM main.sqlite_master WHERE type = 'trigger' AND name LIKE '%\\_\\_crsql\\_insert' ESCAPE '\\' \
             AND (instr(sql, ?1) > 0 OR instr(sql, ?2) > 0 OR instr(sql, ?3) > 0)",
        )?;
        find.bind_text(1, tag(false))?;
        find.bind_text(2, tag(true))?;
        find.bind_text(3, into_inbox(id))?;
        Ok(if find.step()? { Some(schema::text(find.column_text(0))) } else { None })
    }

    /// What an active CRR is called now: as the table that bears its trigger, else as the catalogue has it.
    pub fn name_of(&self, id: u32) -> Result<Option<String>> {
        let Some(listed) = self.listed_name(id)? else { return Ok(None) };
        Ok(Some(self.bearer(id)?.unwrap_or(listed)))
    }

    /// What the catalogue calls an active CRR.
    pub fn listed_name(&self, id: u32) -> Result<Option<String>> {
        let mut find = self.fixed("SELECT name FROM main.crsql_table WHERE id = ?1 AND active = 1")?;
        find.bind_int(1, i64::from(id))?;
        Ok(if find.step()? { Some(schema::text(find.column_text(0))) } else { None })
    }

    /// Writes down the names that tables have by now; the former ones stay known as aliases.
    pub fn settle_names(&self) -> Result<()> {
        let mut moved = Vec::new();
        {
            let mut all = self.fixed("SELECT id, name FROM main.crsql_table WHERE active = 1 ORDER BY id")?;
            while all.step()? {
                let id = u32::try_from(all.column_int(0)).map_err(|e| corrupt("crsql_table", e))?;
                moved.push((id, schema::text(all.column_text(1)), String::new()));
            }
        }
        let mut bearers = self.bearers()?;
        for (id, listed, now) in &mut moved {
            *now = bearers.remove(id).unwrap_or_else(|| listed.clone());
        }
        moved.retain(|(_, listed, now)| listed != now);
        if !moved.is_empty() {
            self.take_up()?;
        }
        // Two tables may have swapped their names: first all of them let go of theirs.
        for (id, listed, _) in &moved {
            self.add_alias(*id, 0, listed)?;
            self.pause_order(*id, listed)?;
            self.write_name(*id, &format!("\u{1}{id}"))?;
        }
        for (id, _, now) in &moved {
            // An archived table of that name makes way; it stays archived.
            let mut free = self.fixed("UPDATE main.crsql_table SET name = name || '\u{1}' || id WHERE name = ?1")?;
            free.bind_text(1, now)?;
            free.execute()?;
            drop(free);
            self.write_name(*id, now)?;
        }
        if !moved.is_empty() {
            self.forget_catalog();
        }
        Ok(())
    }

    /// Lists a table under a name.
    pub fn write_name(&self, id: u32, name: &str) -> Result<()> {
        let mut set = self.fixed("UPDATE main.crsql_table SET name = ?2 WHERE id = ?1")?;
        set.bind_int(1, i64::from(id))?;
        set.bind_text(2, name)?;
        set.execute()
    }

    /// Remembers a former name: of a table (`column` 0) or of one of its columns.
    pub fn add_alias(&self, table: u32, column: u32, name: &str) -> Result<()> {
        let mut add =
            self.fixed("INSERT OR IGNORE INTO main.crsql_alias(name, table_id, column_id) VALUES(?1, ?2, ?3)")?;
        add.bind_text(1, name)?;
        add.bind_int(2, i64::from(table))?;
        add.bind_int(3, i64::from(column))?;
        add.execute()
    }

    /// The CRR that arriving changes mean by a name: the one of that name, else one that was called so.
    pub fn table_meant(&self, name: &str) -> Result<Option<Rc<Table>>> {
        if let Some(table) = self.table_named(name)? {
            // Changes for another key wait until `resume` has looked after the table.
            return Ok(if table.takes_merges(self)? && !self.is_in_alteration(&table) { Some(table) } else { None });
        }
        let former = {
            // One that was just renamed is still listed under its former name.
            let mut find = self.fixed(
                "SELECT table_id FROM main.crsql_alias WHERE name = ?1 AND column_id = 0 UNION ALL \
                 SELECT id FROM main.crsql_table WHERE name = ?1 AND active = 1",
            )?;
            find.bind_text(1, name)?;
            if !find.step()? {
                return Ok(None);
            }
            u32::try_from(find.column_int(0)).map_err(|e| corrupt("crsql_alias", e))?
        };
        Ok(self.table(former)?.filter(|table| !self.is_in_alteration(table)))
    }

    /// The CRR that a part's table is, if its key has as many columns here.
    pub fn table_told(&self, told: &TableDef<'_>) -> Result<Option<Rc<Table>>> {
        Ok(self.table_meant(told.name)?.filter(|table| table.info.keys.len() == told.key_columns))
    }

    /// The position of the column that arriving changes mean by a name, likewise.
    pub fn column_meant(&self, table: &Table, name: &str) -> Result<Option<usize>> {
        let named = |same: fn(&str, &str) -> bool| table.info.columns.iter().position(|c| same(&c.name, name));
        if let Some(position) = named(|a, b| a == b).or_else(|| named(str::eq_ignore_ascii_case)) {
            return Ok(Some(position));
        }
        let mut find = self.fixed(
            "SELECT column_id FROM main.crsql_alias WHERE name = ?1 COLLATE NOCASE AND table_id = ?2 AND column_id > 0",
        )?;
        find.bind_text(1, name)?;
        find.bind_int(2, i64::from(table.info.id))?;
        while find.step()? {
            let id = u32::try_from(find.column_int(0)).map_err(|e| corrupt("crsql_alias", e))?;
            if let Some(position) = table.info.position(id) {
                return Ok(Some(position));
            }
        }
        Ok(None)
    }
}
