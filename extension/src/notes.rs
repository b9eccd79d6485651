//! What is noted in `crsql_master`, as text; of a table under `<what>.<the table's id>`.

use crate::schema::text;
use crate::session::Session;
use crate::sqlite::Result;

impl Session {
    /// What is noted.
    pub fn table_note(&self, what: &str, table: u32) -> Result<Option<String>> {
        self.noted(&format!("{what}.{table}"))
    }

    /// The tables of which it is noted, by id, and what.
    pub fn tables_noted(&self, what: &str) -> Result<Vec<(u32, String)>> {
        let mut all = self.db.prepare_transient(
            "SELECT substr(key, length(?1) + 2), value FROM main.crsql_master WHERE key > ?1 || '.' AND key < ?1 || '/'",
        )?;
        all.bind_text(1, what)?;
        let mut noted = Vec::new();
        while all.step()? {
            if let Ok(id) = text(all.column_text(0)).parse() {
                noted.push((id, text(all.column_text(1))));
            }
        }
        noted.sort_unstable();
        Ok(noted)
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
        Ok(if get.step()? { Some(text(get.column_text(0))) } else { None })
    }

    /// Notes something under a key.
    pub fn set_note(&self, key: &str, value: &str) -> Result<()> {
        let mut set = self.fixed("INSERT OR REPLACE INTO main.crsql_master(key, value) VALUES(?1, ?2)")?;
        set.bind_text(1, key)?;
        set.bind_text(2, value)?;
        set.execute()
    }
}
