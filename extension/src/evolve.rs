//! The catalogue follows the schema: columns that were renamed keep their ids, dropped ones die, new ones are born in a
//! new generation.

use crate::catalog::Table;
use crate::schema::TableInfo;
use crate::session::{corrupt, Session};
use crate::sqlite::Result;

/// A column as the catalogue has it: id and name.
pub type Listed = (u32, String);

impl Session {
    /// The living columns of a table besides its key, as the catalogue has them, by id.
    pub fn listed_columns(&self, id: u32) -> Result<Vec<Listed>> {
        self.columns_where(
            "SELECT id, name FROM main.crsql_column WHERE table_id = ?1 AND died IS NULL AND is_key = 0 ORDER BY id",
            id,
        )
    }

    /// All living columns of a table, as the catalogue has them, by id.
    pub fn all_listed_columns(&self, id: u32) -> Result<Vec<Listed>> {
        self.columns_where(
            "SELECT id, name FROM main.crsql_column WHERE table_id = ?1 AND died IS NULL ORDER BY id",
            id,
        )
    }

    fn columns_where(&self, sql: &'static str, id: u32) -> Result<Vec<Listed>> {
        let mut all = self.fixed(sql)?;
        all.bind_int(1, i64::from(id))?;
        let mut out = Vec::new();
        while all.step()? {
            let id = u32::try_from(all.column_int(0)).map_err(|e| corrupt("crsql_column", e))?;
            out.push((id, crate::schema::text(all.column_text(1))));
        }
        Ok(out)
    }

    /// Gives columns the names that they have now. Their former names stay known (E13).
    pub fn rename_columns(&self, table: u32, renames: &[Listed]) -> Result<()> {
        for (id, name) in renames {
            let mut alias = self.fixed(
                "INSERT OR IGNORE INTO main.crsql_alias(name, table_id, column_id) \
                 SELECT name, table_id, id FROM main.crsql_column WHERE table_id = ?1 AND id = ?2",
            )?;
            alias.bind_int(1, i64::from(table))?;
            alias.bind_int(2, i64::from(*id))?;
            alias.execute()?;
            let mut set = self.fixed("UPDATE main.crsql_column SET name = ?3 WHERE table_id = ?1 AND id = ?2")?;
            set.bind_int(1, i64::from(table))?;
            set.bind_int(2, i64::from(*id))?;
            set.bind_text(3, name)?;
            set.execute()?;
        }
        Ok(())
    }

    /// Key columns are known by their place in the key: their names follow the schema.
    fn rename_keys(&self, info: &TableInfo) -> Result<()> {
        let listed = self.columns_where(
            "SELECT id, name FROM main.crsql_column WHERE table_id = ?1 AND died IS NULL AND is_key = 1 ORDER BY id",
            info.id,
        )?;
        let moved = listed.into_iter().zip(&info.keys).filter(|((_, old), key)| *old != key.name);
        let moved: Vec<Listed> = moved.map(|((id, _), key)| (id, key.name.clone())).collect();
        self.rename_columns(info.id, &moved)
    }

    /// Brings the catalogue's columns of a registered table in line with the schema; renames are settled before. Fills
    /// in the ids. Returns the ids of the columns that are new.
    pub fn evolve(&self, info: &mut TableInfo) -> Result<Vec<u32>> {
        self.rename_keys(info)?;
        info.columns.iter_mut().for_each(|c| c.id = 0);
        self.fill_ids(info)?;
        let listed = self.listed_columns(info.id)?;
        let gone: Vec<u32> = listed.iter().filter(|(id, _)| info.position(*id).is_none()).map(|(id, _)| *id).collect();
        let grown = info.columns.iter().any(|c| c.id == 0);
        if gone.is_empty() && !grown {
            return Ok(Vec::new());
        }
        let generation = info.generation + 1;
        self.drop_columns(info, &gone)?;
        if grown {
            let history = self.history(info.id)?;
            self.note_birth(&Table::new(info.clone(), history), generation)?;
        }
        let mut set = self.fixed("UPDATE main.crsql_table SET generation = ?2 WHERE id = ?1")?;
        set.bind_int(1, i64::from(info.id))?;
        set.bind_int(2, i64::from(generation))?;
        set.execute()?;
        info.generation = generation;
        let born = self.add_columns(info)?;
        self.forget_catalog();
        Ok(born)
    }

    /// Columns that end with the present generation: their cells belong to nothing any more.
    pub fn drop_columns(&self, info: &TableInfo, ids: &[u32]) -> Result<()> {
        for id in ids {
            let mut drop = self.fixed("UPDATE main.crsql_column SET died = ?3 WHERE table_id = ?1 AND id = ?2")?;
            drop.bind_int(1, i64::from(info.id))?;
            drop.bind_int(2, i64::from(*id))?;
            drop.bind_int(3, i64::from(info.generation + 1))?;
            drop.execute()?;
        }
        Ok(())
    }

    /// Gives ids to columns that have none, born in the table's generation. Returns those ids.
    pub fn add_columns(&self, info: &mut TableInfo) -> Result<Vec<u32>> {
        let mut next = {
            let mut max = self.fixed("SELECT coalesce(max(id), 0) + 1 FROM main.crsql_column WHERE table_id = ?1")?;
            max.bind_int(1, i64::from(info.id))?;
            max.step()?;
            u32::try_from(max.column_int(0)).map_err(|e| corrupt("crsql_column", e))?
        };
        let (id, generation, keys) = (info.id, info.generation, info.keys.len());
        let mut born = Vec::new();
        for (i, column) in info.keys.iter_mut().chain(&mut info.columns).enumerate() {
            if column.id != 0 {
                continue;
            }
            column.id = next;
            column.born = generation;
            born.push(next);
            next += 1;
            let mut add = self
                .fixed("INSERT INTO main.crsql_column(table_id, id, name, is_key, born) VALUES(?1, ?2, ?3, ?4, ?5)")?;
            add.bind_int(1, i64::from(id))?;
            add.bind_int(2, i64::from(column.id))?;
            add.bind_text(3, &column.name)?;
            add.bind_int(4, i64::from(i < keys))?;
            add.bind_int(5, i64::from(generation))?;
            add.execute()?;
        }
        Ok(born)
    }
}
