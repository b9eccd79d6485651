//! What cannot be merged here is kept, visible, served on to others, and tried again when the schema changes.

use crate::affinity::canonical_key;
use crate::fnv;
use crate::session::Session;
use crate::sqlite::Result;
use starling_crdt::changeset::{Header, Row, TableDef};
use starling_crdt::overtaken::Overtaken;

/// Why rows of a table wait that is none here.
pub const NO_TABLE: &str = "this database has no CRR of that name and key";
/// Why a row waits that has a cell of an unknown column.
pub const NO_COLUMN: &str = "it names a column that this database does not have";

/// Under this it is noted which part was the newest when the overtaken ones were looked for, and how many there were then.
const TIDIED: &str = "aside";
/// Parts that come before they are looked for again, at least.
const FEW: i64 = 64;
/// The rows of the newest parts that are compared (some tens of MB).
const MOST_ROWS: usize = 100_000;

impl Session {
    /// Keeps a part whose rows could not all be merged.
    pub fn keep_aside(&self, header: &Header, why: &[(String, String)], part: &[u8]) -> Result<()> {
        let hash = fnv::feed(fnv::START, part);
        // What was refused is tried again sooner than what nobody knows here.
        let unknown = |reason: &str| reason == NO_TABLE || reason == NO_COLUMN;
        let told = why.iter().find(|(_, reason)| !unknown(reason)).or(why.first());
        let (table, reason) = told.map_or(("", ""), |(t, r)| (t.as_str(), r.as_str()));
        self.note_put_aside();
        let mut add = self.fixed(
            "INSERT INTO main.crsql_aside(table_name, reason, site_id, epoch, version, hash, part) \
             VALUES(?1, ?2, ?3, ?4, ?5, ?6, ?7) ON CONFLICT(hash) DO UPDATE \
             SET table_name = excluded.table_name, reason = excluded.reason \
             WHERE table_name <> excluded.table_name OR reason <> excluded.reason",
        )?;
        add.bind_text(1, table)?;
        add.bind_text(2, reason)?;
        add.bind_blob(3, header.dot.dot.origin.site.0.as_slice())?;
        add.bind_int(4, header.dot.dot.origin.epoch.cast_signed())?;
        add.bind_int(5, header.dot.dot.version.cast_signed())?;
        add.bind_int(6, hash.cast_signed())?;
        add.bind_blob(7, part)?;
        add.execute()?;
        self.drop_overtaken()
    }

    /// Drops what says nothing any more that something else kept aside does not beat; as often as their number doubles, so that
    /// each part is looked at a few times, however many there are.
    fn drop_overtaken(&self) -> Result<()> {
        let newest = self.int("SELECT coalesce(max(id), 0) FROM main.crsql_aside")?;
        let last = self.noted(TIDIED)?;
        let (from, stayed) = last.as_deref().and_then(|last| last.split_once(' ')).unwrap_or_default();
        let from: i64 = from.parse().unwrap_or(0);
        if (from..from.saturating_add(FEW.max(stayed.parse().unwrap_or(0)))).contains(&newest) {
            return Ok(());
        }
        let mut best = Overtaken::default();
        let mut all = self.fixed("SELECT id, part FROM main.crsql_aside ORDER BY id DESC")?;
        let mut parts = 0;
        while best.len() < MOST_ROWS && all.step()? {
            // What is damaged is told where it is needed.
            let _ = best.note(all.column_int(0), all.column_blob(1));
            parts += 1;
        }
        all.reset();
        let mut overtaken = Vec::new();
        for _ in 0..parts {
            if all.step()? && self.is_overtaken(&best, all.column_int(0), all.column_blob(1))? {
                overtaken.push(all.column_int(0));
            }
        }
        drop(all);
        for id in &overtaken {
            self.drop_part(*id)?;
        }
        let stay = self.aside_count()?;
        self.set_note(TIDIED, &format!("{newest} {stay}"))
    }

    fn is_overtaken(&self, best: &Overtaken, id: i64, part: &[u8]) -> Result<bool> {
        let mut failed = Ok(());
        let overtaken = best.overtakes(id, part, &mut |def, row| {
            let waits = if failed.is_ok() { self.row_still_waits(def, row) } else { Ok(true) };
            let waits = waits.map_err(|e| failed = Err(e));
            waits == Ok(false)
        });
        failed.map(|()| overtaken.unwrap_or(false))
    }

    /// Whether a row of a part is not merged yet, nor overtaken by what was merged.
    fn row_still_waits(&self, def: &TableDef<'_>, row: &Row<'_>) -> Result<bool> {
        let Some(table) = self.table_told(def)? else {
            return Ok(true);
        };
        match canonical_key(self, &table, row.key)? {
            Ok(key) => self.still_waits(&table, def, &key, row),
            Err(_) => Ok(true),
        }
    }

    fn drop_part(&self, id: i64) -> Result<()> {
        self.tx_mut().aside_looks += 1;
        let mut drop = self.fixed("DELETE FROM main.crsql_aside WHERE id = ?1")?;
        drop.bind_int(1, id)?;
        drop.execute()
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
        self.know_refused()?;
        let (mut changes, mut at) = (0, i64::MIN);
        while let Some((id, part)) = self.aside_after(at)? {
            at = id;
            changes += self.merge_again(id, &part)?;
        }
        // What waited for its table may have been refused now.
        self.forget_refused();
        self.know_refused()?;
        changes += self.mend()?;
        self.forget_refused();
        Ok(changes)
    }

    /// As [`Session::retry_aside`], of one part, if it still waits.
    pub fn retry_part(&self, id: i64) -> Result<u64> {
        let part = self.aside_after(id.saturating_sub(1))?.filter(|(found, _)| *found == id);
        part.map_or(Ok(0), |(_, part)| self.merge_again(id, &part))
    }

    /// What still cannot be merged stays where it is.
    fn merge_again(&self, id: i64, part: &[u8]) -> Result<u64> {
        self.take_put_aside();
        let changes = self.merge_aside(part)?;
        if !self.take_put_aside() {
            self.drop_part(id)?;
        }
        Ok(changes)
    }
}
