//! What is noted in `crsql_master`, as text; of a table under `<what>.<the table's id>`.

use crate::session::Session;
use crate::sqlite::Result;

impl Session {
    /// What is noted.
    pub fn table_note(&self, what: &str, table: u32) -> Result<Option<String>> {
        self.noted(&format!("{what}.{table}"))
    }

    /// Notes it; where it is noted already, nothing is written.
    pub fn set_table_note(&self, what: &str, table: u32, value: &str) -> Result<()> {
        if self.table_note(what, table)?.as_deref() == Some(value) {
            return Ok(());
        }
        self.set_note(&format!("{what}.{table}"), value)
    }

    /// Forgets it.
    pub fn drop_table_note(&self, what: &str, table: u32) -> Result<()> {
        let mut drop = self.fixed("DELETE FROM main.crsql_master WHERE key = ?1")?;
        drop.bind_text(1, format!("{what}.{table}"))?;
        drop.execute()
    }

    /// What is noted under a key.
    pub fn noted(&self, key: &str) -> Result<Option<String>> {
        let mut get = self.fixed("SELECT value FROM main.crsql_master WHERE key = ?1")?;
        get.bind_text(1, key)?;
        Ok(if get.step()? { Some(crate::schema::text(get.column_text(0))) } else { None })
    }

    /// Notes something under a key.
    pub fn set_note(&self, key: &str, value: &str) -> Result<()> {
        let mut set = self.fixed("INSERT OR REPLACE INTO main.crsql_master(key, value) VALUES(?1, ?2)")?;
        set.bind_text(1, key)?;
        set.bind_text(2, value)?;
        set.execute()
    }
}
