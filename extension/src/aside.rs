//! What cannot be merged here is kept, visible, served on to others, and tried again when the schema changes.

use crate::fnv;
use crate::session::Session;
use crate::sqlite::Result;
use starling_crdt::changeset::Header;

/// Why rows of a table wait that is none here.
pub const NO_TABLE: &str = "this database has no CRR of that name and key";
/// Why a row waits that has a cell of an unknown column.
pub const NO_COLUMN: &str = "it names a column that this database does not have";

impl Session {
    /// Keeps a part whose rows could not all be merged.
    pub fn keep_aside(&self, header: &Header, why: &[(String, String)], part: &[u8]) -> Result<()> {
        let hash = fnv::feed(fnv::START, part);
        let (table, reason) = why.first().map_or(("", ""), |(t, r)| (t.as_str(), r.as_str()));
        let mut add = self.fixed(
            "INSERT OR IGNORE INTO main.crsql_aside(table_name, reason, site_id, epoch, version, hash, part) \
             VALUES(?1, ?2, ?3, ?4, ?5, ?6, ?7)",
        )?;
        add.bind_text(1, table)?;
        add.bind_text(2, reason)?;
        add.bind_blob(3, header.dot.dot.origin.site.0.as_slice())?;
        add.bind_int(4, header.dot.dot.origin.epoch.cast_signed())?;
        add.bind_int(5, header.dot.dot.version.cast_signed())?;
        add.bind_int(6, hash.cast_signed())?;
        add.bind_blob(7, part)?;
        add.execute()
    }

    /// Whether something of a dot is kept aside.
    pub fn is_aside(&self, origin: u32, version: u64) -> Result<bool> {
        let (origin, _) = self.origin_of(origin)?;
        let mut find = self.fixed(
            "SELECT EXISTS(SELECT 1 FROM main.crsql_aside WHERE site_id = ?1 AND epoch = ?2 AND version = ?3)",
        )?;
        find.bind_blob(1, origin.site.0.as_slice())?;
        find.bind_int(2, origin.epoch.cast_signed())?;
        find.bind_int(3, version.cast_signed())?;
        Ok(find.step()? && find.column_int(0) != 0)
    }

    /// Parts kept aside.
    pub fn aside_count(&self) -> Result<i64> {
        if !self.has_schema()? {
            return Ok(0);
        }
        self.int("SELECT count(*) FROM main.crsql_aside")
    }

    /// The first part kept aside after an id.
    pub fn aside_after(&self, id: i64) -> Result<Option<(i64, Vec<u8>)>> {
        let mut next = self.fixed("SELECT id, part FROM main.crsql_aside WHERE id > ?1 ORDER BY id LIMIT 1")?;
        next.bind_int(1, id)?;
        Ok(if next.step()? { Some((next.column_int(0), next.column_blob(1).to_vec())) } else { None })
    }

    /// Tries again what was kept aside. Returns the changes applied.
    pub fn retry_aside(&self) -> Result<u64> {
        let mut parts = Vec::new();
        {
            let mut all = self.fixed("SELECT id, part FROM main.crsql_aside ORDER BY id")?;
            while all.step()? {
                parts.push((all.column_int(0), all.column_blob(1).to_vec()));
            }
        }
        let mut changes = 0;
        for (id, part) in parts {
            {
                let mut drop = self.fixed("DELETE FROM main.crsql_aside WHERE id = ?1")?;
                drop.bind_int(1, id)?;
                drop.execute()?;
            }
            // What still cannot be merged puts itself aside again.
            changes += self.merge_aside(&part)?;
        }
        Ok(changes)
    }
}
