//! After a change of the schema that came from outside: triggers that are gone or stale are made anew, rows that appeared
//! or vanished meanwhile are logged, and what was kept aside is tried again (E7, E8).

use crate::evolve::Listed;
use crate::schema::{self, TableInfo};
use crate::session::{corrupt, Session};
use crate::sqlite::Result;

impl Session {
    /// Brings catalogue, triggers and log back in line with the schema. Returns the number of kept-aside changes applied.
    pub fn resume(&self) -> Result<u64> {
        let applied = self.atomically(|| {
            self.join_transaction()?;
            self.refresh()?;
            self.flush()?;
            self.settle_names()?;
            for id in self.table_ids()? {
                self.resume_table(id)?;
            }
            self.retry_aside()
        })?;
        // A convenience: nothing is lost without it.
        let _ = self.join_when_inboxes_fill();
        Ok(applied)
    }

    fn table_ids(&self) -> Result<Vec<u32>> {
        let mut all = self.fixed("SELECT id FROM main.crsql_table WHERE active = 1 ORDER BY id")?;
        let mut ids = Vec::new();
        while all.step()? {
            ids.push(u32::try_from(all.column_int(0)).map_err(|e| corrupt("crsql_table", e))?);
        }
        Ok(ids)
    }

    fn resume_table(&self, id: u32) -> Result<()> {
        let name = self.name_of(id)?.unwrap_or_default();
        let Some(info) = schema::read(self.db, &name)? else {
            // Dropped: its metadata stays archived, so that it can come back (X3).
            self.retire_inbox(id)?;
            self.forget_order(id, &name)?;
            return self.set_active(id, false);
        };
        if self.is_armed(&info)? {
            return Ok(());
        }
        self.rearm(info)
    }

    /// Makes a CRR's triggers anew after its columns or its name changed. What the old triggers have captured all along is
    /// not announced again: a column that was added makes no changes (E8).
    pub fn rearm(&self, mut info: TableInfo) -> Result<()> {
        self.fill_ids(&mut info)?;
        let renames = self.renamed_outside(&info)?;
        if let Some(renames) = &renames {
            self.rename_columns(info.id, renames)?;
        }
        let born = self.evolve(&mut info)?;
        self.arm(&info)?;
        self.keep_order(&info)?;
        let Some(table) = self.table(info.id)? else { return Ok(()) };
        if renames.is_some() {
            self.log_grown(&table, &born)
        } else {
            self.log_differences(&table)
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
