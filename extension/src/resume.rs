//! After a change of the schema that came from outside: triggers that are gone or stale are made anew, rows that appeared
//! or vanished meanwhile are logged, and what was kept aside is tried again (E7, E8).

use crate::catalog::Standing;
use crate::evolve::Listed;
use crate::schema::{self, TableInfo};
use crate::session::{corrupt, Session};
use crate::sqlite::Result;

/// So many tables are looked after once more by each connection that is opened, until somebody writes.
const FEW: usize = 16;
/// Under this it is noted that a table was let go for its key, and is to be taken up with whatever fit key it gets.
const LET_GO: &str = "let_go";

impl Session {
    /// Brings catalogue, triggers and log back in line with the schema. Returns the number of kept-aside changes applied.
    pub fn resume(&self) -> Result<u64> {
        let left = self.as_it_is.take();
        self.resume_and_note(true).inspect_err(|_| self.as_it_is.set(left))
    }

    /// What stands in the inboxes was written before a change of the schema that is being looked after now: it gets its version.
    pub fn take_up(&self) -> Result<()> {
        if self.as_it_is.take() {
            self.flush()?;
        }
        Ok(())
    }

    /// A connection that left the file as it is goes on as any other.
    pub fn resume_if_left(&self) -> Result<()> {
        if self.as_it_is.get() {
            self.resume()?;
        }
        Ok(())
    }

    /// Unless told so, nothing is written only to note that all is well: others have begun to read, and could not write then.
    fn resume_and_note(&self, at_once: bool) -> Result<u64> {
        let applied = self.atomically(|| {
            self.join_transaction()?;
            let before = (self.db.total_changes(), self.schema_version()?);
            self.refresh()?;
            self.flush()?;
            self.settle_names()?;
            for id in self.tables_that_are(Standing::Missing)? {
                self.find_again(id)?;
            }
            for id in self.tables_that_are(Standing::Active)? {
                self.resume_table(id)?;
                self.show_refused(id)?;
            }
            // Where all is as it was nothing fits that did not.
            let applied = if self.as_it_is.get() { 0 } else { self.retry_aside()? };
            let now = self.schema_version()?;
            let few = self.tables_that_are(Standing::Active)?.len() <= FEW;
            if at_once || !few || before != (self.db.total_changes(), now) {
                self.note_schema()?;
            } else {
                self.agreed.set(Some(now));
            }
            Ok(applied)
        })?;
        // A convenience: nothing is lost without it.
        self.unless_it_ended_all(|| self.join_when_inboxes_fill())?;
        Ok(applied)
    }

    /// Whether catalogue and triggers are known to agree with the schema as it stands.
    pub fn agrees_with_schema(&self) -> Result<bool> {
        let now = self.schema_version()?;
        Ok(self.noted_schema()? == Some(now)
            || self.int("SELECT EXISTS(SELECT 1 FROM main.crsql_table WHERE active <> 0)")? == 0)
    }

    /// Remembers the schema with which catalogue and triggers agree.
    pub fn note_schema(&self) -> Result<()> {
        let now = self.schema_version()?;
        if self.noted_schema()? == Some(now) {
            return Ok(());
        }
        let mut set = self.fixed("INSERT OR REPLACE INTO main.crsql_master(key, value) VALUES('schema', ?1)")?;
        set.bind_int(1, now)?;
        set.execute()
    }

    /// A write of the application's own is under way: what was found when the connection was opened can be noted with it.
    pub fn note_agreed(&self) -> Result<()> {
        match self.agreed.take() {
            Some(agreed) if self.schema_version()? == agreed => self.note_schema(),
            _ => Ok(()),
        }
    }

    /// SQLite's number of the schema of `main`.
    pub fn schema_version(&self) -> Result<i64> {
        self.int("PRAGMA main.schema_version")
    }

    fn noted_schema(&self) -> Result<Option<i64>> {
        let mut get = self.fixed("SELECT value FROM main.crsql_master WHERE key = 'schema'")?;
        Ok(if get.step()? { Some(get.column_int(0)) } else { None })
    }

    /// A connection that finds another schema than was noted looks after the tables at once: a migration may have taken the
    /// triggers away (E7). One that cannot write now leaves it to the next. Where the tables are as they were, no version is given to
    /// anything: what comes next may be a new name for the file, whose schema VACUUM INTO and backups number anew.
    pub fn resume_if_altered(&self) -> Result<()> {
        if self.agrees_with_schema()? {
            return Ok(());
        }
        self.as_it_is.set(true);
        let resumed = self.keeping_rowid(|| self.resume_and_note(false));
        self.as_it_is.set(false);
        resumed.map(drop)
    }

    /// A table that was gone when it was last looked for: migrations make it anew under its name, or under one that it had
    /// before they renamed it out of the way (E7).
    fn find_again(&self, id: u32) -> Result<()> {
        let mut names = Vec::new();
        {
            let mut all = self.fixed(
                "SELECT name FROM main.crsql_table WHERE id = ?1 UNION ALL \
                 SELECT name FROM main.crsql_alias WHERE table_id = ?1 AND column_id = 0",
            )?;
            all.bind_int(1, i64::from(id))?;
            while all.step()? {
                names.push(schema::text(all.column_text(0)));
            }
        }
        let listed = names.first().cloned();
        for name in names {
            let Some(info) = schema::read(self.db, &name)? else { continue };
            let free = self.id_of(&name)?.is_none_or(|(other, _)| other == id);
            if !free || !schema::fits(self.db, &info)? {
                continue;
            }
            if self.has_key_of(id, &info)? {
                self.take_up()?;
                self.write_name(id, &name)?;
                self.forget_catalog();
                self.drop_table_note(LET_GO, id)?;
                return self.set_standing(id, Standing::Active);
            }
            if self.table_note(LET_GO, id)?.is_some() {
                self.take_up()?;
                self.drop_table_note(LET_GO, id)?;
                return self.begin_anew(id, &info);
            }
        }
        // One that was let go for its key may have been dropped since.
        match listed {
            Some(name) if schema::real_name(self.db, &name)?.is_none() => {
                self.drop_table_note(LET_GO, id)?;
                self.forget_order(id, &name)
            }
            _ => Ok(()),
        }
    }

    fn tables_that_are(&self, standing: Standing) -> Result<Vec<u32>> {
        let mut all = self.fixed("SELECT id FROM main.crsql_table WHERE active = ?1 ORDER BY id")?;
        all.bind_int(1, standing as i64)?;
        let mut ids = Vec::new();
        while all.step()? {
            ids.push(u32::try_from(all.column_int(0)).map_err(|e| corrupt("crsql_table", e))?);
        }
        Ok(ids)
    }

    pub(crate) fn resume_table(&self, id: u32) -> Result<()> {
        if self.window(id).is_some() {
            // What is to be looked after there is looked after when it ends.
            return Ok(());
        }
        let name = self.name_of(id)?.unwrap_or_default();
        let Some(info) = schema::read(self.db, &name)? else {
            self.take_up()?;
            // Dropped: its metadata stays archived, so that it can come back (X3).
            self.retire_inbox(id)?;
            self.forget_order(id, &name)?;
            return self.set_standing(id, Standing::Missing);
        };
        if self.is_armed(&info)? {
            if self.table_note("needs", id)?.is_some() {
                return Ok(());
            }
            // A file of a build that noted nothing.
            return self.table(id)?.map_or(Ok(()), |table| self.note_needs(&table.info));
        }
        self.take_up()?;
        if schema::key_refusal(self.db, &info)?.is_some() {
            // Nodes would take different rows for the same. As soon as it has a key that can be replicated it goes on.
            let capture = self.capture_of(id)?;
            self.disarm(&info)?;
            self.retire_inbox(id)?;
            self.set_capture(id, capture)?;
            self.set_table_note(LET_GO, id, "")?;
            self.set_standing(id, Standing::Missing)?;
            self.forget_catalog();
            return Ok(());
        }
        if !self.has_key_of(id, &info)? {
            return self.begin_anew(id, &info);
        }
        self.rearm(info)
    }

    /// Notes what types the key columns of a table have, so that another key of as many columns is known for what it is.
    pub fn note_key(&self, id: u32, info: &TableInfo) -> Result<()> {
        self.set_table_note("key", id, &types_of_key(info))
    }

    /// Whether a table took the place of one that had another key.
    pub fn began_anew(&self, id: u32) -> Result<bool> {
        Ok(self.table_note("anew", id)?.is_some())
    }

    /// Whether a table has as many key columns as the catalogue knows, and of the same types, where these were noted.
    pub fn has_key_of(&self, id: u32, info: &TableInfo) -> Result<bool> {
        if self.table_note("key", id)?.is_some_and(|types| types != types_of_key(info)) {
            return Ok(false);
        }
        let mut count =
            self.fixed("SELECT count(*) FROM main.crsql_column WHERE table_id = ?1 AND is_key = 1 AND died IS NULL")?;
        count.bind_int(1, i64::from(id))?;
        count.step()?;
        Ok(usize::try_from(count.column_int(0)) == Ok(info.keys.len()))
    }

    /// A table whose key changed has other rows than before: the former ones are archived, those of now are announced.
    pub fn begin_anew(&self, id: u32, info: &TableInfo) -> Result<()> {
        let capture = self.capture_of(id)?;
        let order = self.order_by_name(id)?;
        self.forget_order(id, &info.name)?;
        self.disarm(info)?;
        self.retire_inbox(id)?;
        self.set_standing(id, Standing::Archived)?;
        self.write_name(id, &format!("\u{1}{id}"))?;
        self.forget_catalog();
        if schema::fits(self.db, info)? {
            self.as_crr_after(Some(id), &info.name, Some(capture))?;
            self.order_anew(&info.name, &order)?;
        }
        Ok(())
    }

    /// Makes a CRR's triggers anew after its columns or its name changed. What the old triggers have captured all along is
    /// not announced again: a column that was added makes no changes (E8).
    pub fn rearm(&self, mut info: TableInfo) -> Result<()> {
        self.fill_ids(&mut info)?;
        let renames = self.renamed_outside(&info)?;
        if let Some(renames) = &renames {
            self.rename_columns(info.id, renames)?;
        }
        let before = self.before_now(info.id)?;
        let born = self.evolve(&mut info)?;
        self.arm(&info)?;
        self.keep_order(&info)?;
        let Some(table) = self.table(info.id)? else { return Ok(()) };
        self.show_complete(&table, &before)?;
        self.flush()?;
        if renames.is_some() {
            self.log_grown(&table, &born)
        } else {
            self.log_differences(&table, &before)
        }
    }

    /// The columns that ALTER TABLE renamed without a window, with the names that they have now; `info` has its ids filled
    /// in. `None` where the triggers are not those of the columns in the catalogue: they have not captured every write.
    pub fn renamed_outside(&self, info: &TableInfo) -> Result<Option<Vec<Listed>>> {
        let listed = self.listed_columns(info.id)?;
        let missing: Vec<u32> =
            listed.iter().filter(|(id, _)| info.position(*id).is_none()).map(|(id, _)| *id).collect();
        let mut renames = Vec::new();
        let mut before = info.clone();
        for (column, id) in before.columns.iter_mut().filter(|c| c.id == 0).zip(&missing) {
            column.id = *id;
            renames.push((*id, column.name.clone()));
        }
        before.columns.retain(|c| c.id != 0);
        before.columns.sort_by_key(|c| c.id);
        let captured = renames.len() == missing.len() && self.captures(&before)?;
        Ok(captured.then_some(renames))
    }
}

fn types_of_key(info: &TableInfo) -> String {
    let types: Vec<&str> = info.keys.iter().map(|key| key.affinity.name()).collect();
    types.join(",")
}
