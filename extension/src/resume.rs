//! After a change of the schema that came from outside: triggers that are gone or stale are made anew, rows that appeared
//! or vanished meanwhile are logged, and what was kept aside is tried again (E7, E8).

use crate::catalog::Table;
use crate::schema;
use crate::session::Session;
use crate::sqlite::Result;

impl Session {
    /// Brings catalogue, triggers and log back in line with the schema. Returns the number of kept-aside changes applied.
    pub fn resume(&self) -> Result<u64> {
        let applied = self.atomically(|| {
            self.join_transaction()?;
            self.refresh()?;
            self.flush()?;
            for name in self.table_names()? {
                self.resume_table(&name)?;
            }
            self.retry_aside()
        })?;
        self.join_when_inboxes_fill();
        Ok(applied)
    }

    fn resume_table(&self, name: &str) -> Result<()> {
        let Some(mut info) = schema::read(self.db, name)? else {
            // Dropped: its metadata stays archived, so that it can come back (X3).
            let id = self.table_id(name)?;
            self.drop_inbox(id)?;
            return self.set_active(id, false);
        };
        if self.is_armed(&{
            let mut full = info.clone();
            self.fill_ids(&mut full)?;
            full
        })? {
            return Ok(());
        }
        self.register(&mut info)?;
        self.arm(&info, self.capture_of(info.id)?)?;
        self.log_differences(&Table::new(info))
    }

    fn table_id(&self, name: &str) -> Result<u32> {
        let mut find = self.fixed("SELECT id FROM main.crsql_table WHERE name = ?1")?;
        find.bind_text(1, name)?;
        find.step()?;
        Ok(u32::try_from(find.column_int(0)).unwrap_or(0))
    }
}
