//! Who this database is: the internal tables, the site and its epoch, the configuration.

use crate::session::{corrupt, Session};
use crate::sqlgen::FILE_ID_MASK;
use crate::sqlite::{codes, Error, Result};
use starling_crdt::{Origin, SiteId};
use std::rc::Rc;

/// The format this build writes, and the oldest build's format that may read and write such a file. Format 2 has young
/// clocks, and triggers that read from the journal, format 3 plain tables and deltas, format 4 records that are blobs. An older
/// file becomes one of format 3 with the first young clock, of the present one when triggers are made.
pub const FORMAT: i64 = 4;
/// Makes the internal tables that are not there.
const SCHEMA: &str = include_str!("../../sql/extension/schema.sql");

/// The statements that make them. Without comments, which an application may have forbidden (`SQLITE_DBCONFIG_ENABLE_COMMENTS`).
pub fn schema() -> String {
    SCHEMA.lines().filter(|line| !line.starts_with("--")).collect::<Vec<_>>().join("\n")
}
/// The newest format whose records have a column for each field.
pub const WITH_COLUMNS: i64 = 3;

/// What `crsql_master` says of this database, as long as no one else changes it.
#[derive(Clone, Debug)]
pub struct Meta {
    /// This site.
    pub site: SiteId,
    /// Its row in `crsql_site`.
    pub site_row: u32,
    /// Ordinal of (this site, its present epoch).
    pub origin: u32,
    /// The epoch.
    pub epoch: u64,
    /// db_version at which the epoch began.
    pub epoch_start: u64,
    /// Names this file in its triggers' tags.
    pub file: u32,
    /// The format that a build must know to write to the file.
    pub format: i64,
    /// Configuration `merge-equal-values`.
    pub merge_equal: bool,
    /// The boot in which the epoch was drawn or confirmed.
    pub boot_id: Option<String>,
}

impl Session {
    /// Whether the internal tables are there.
    pub fn has_schema(&self) -> Result<bool> {
        let known = self.meta.borrow().as_ref().map(|meta| meta.file);
        if let Some(file) = known {
            let same = || match self.file_id() {
                Ok(id) => Ok(id == i64::from(file)),
                Err(e) if e.primary() == codes::ERROR => Ok(false),
                // An error that has ended the transaction, on a full disk say, must not go unsaid.
                Err(e) => Err(e),
            };
            if self.tx.borrow().active || same()? {
                return Ok(true);
            }
            // Another database was deserialized, or restored by a backup, beneath this connection.
            self.meta.replace(None);
            self.forget_catalog();
        }
        // Answered from the schema in memory, where a question to sqlite_master would read all of it.
        if self.db.prepare_transient("PRAGMA main.table_info(crsql_origin)")?.step()? {
            return Ok(true);
        }
        self.site_put_there().map(|_| false)
    }

    /// The site id of a table `crsql_site_id(site_id, ordinal)` that a program has put into a file without anything else of the
    /// kind, to choose it. A file of the format's elder relative must not be taken for one, nor for an empty one.
    fn site_put_there(&self) -> Result<Option<[u8; 16]>> {
        let mut find = self.db.prepare_transient("SELECT type FROM main.sqlite_master WHERE name = 'crsql_site_id'")?;
        if !find.step()? || find.column_text(0) != b"table" {
            return Ok(None);
        }
        let others =
            "SELECT EXISTS(SELECT 1 FROM main.sqlite_master WHERE name = 'crsql_master' OR name GLOB '*__crsql_clock')";
        if self.int(others)? == 0 {
            let mut only = self.db.prepare_transient("SELECT ordinal, site_id FROM main.crsql_site_id")?;
            if only.step()? && only.column_int(0) == 0 {
                if let Ok(site) = <[u8; 16]>::try_from(only.column_blob(1)) {
                    return if only.step()? { Err(of_relative()) } else { Ok(Some(site)) };
                }
            }
        }
        Err(of_relative())
    }

    fn file_id(&self) -> Result<i64> {
        self.int("SELECT value FROM main.crsql_master WHERE key = 'file_id'")
    }

    /// Makes the internal tables if they are missing.
    ///
    /// # Errors
    /// A file of the format's elder relative, a newer format, or what SQLite says (read-only, locked, full).
    pub fn ensure_schema(&self) -> Result<()> {
        if self.has_schema()? {
            return Ok(());
        }
        // Where a transaction is open its rollback must be told, or we go on believing that the tables are there. Where none
        // is, the journal is better left alone: SQLite gives a virtual table that was used a pointer to the schema of
        // `main`, which sqlite3_deserialize frees, and a connection may be opened for just that.
        let joins = !self.db.is_autocommit();
        self.keeping_rowid(|| self.atomically(|| {
            if joins {
                self.join_transaction()?;
            }
            let chosen = self.site_put_there()?;
            if chosen.is_some() {
                self.db.exec("DROP TABLE main.crsql_site_id")?;
            }
            self.db.exec(&schema())?;
            self.db.exec(&format!(
                "INSERT OR IGNORE INTO main.crsql_master VALUES('crsqlite_version', 160300), \
                 ('starling.format', {FORMAT}), ('starling.least_reader', {FORMAT}), ('starling.least_writer', {FORMAT}), \
                 ('file_id', {})",
                (self.token() as u32) & FILE_ID_MASK
            ))?;
            let mut site = self.db.prepare_transient("INSERT INTO main.crsql_site(id, site_id) VALUES(1, ?1)")?;
            site.bind_blob(1, chosen.unwrap_or_else(|| uuid_v4(self)).as_slice())?;
            site.execute()?;
            self.db.exec("INSERT INTO main.crsql_master VALUES('self', 1)")?;
            self.draw_epoch(1, 0)
        }))
    }

    /// Enters a new epoch of `site_row`, beginning after `start`.
    fn draw_epoch(&self, site_row: i64, start: u64) -> Result<()> {
        let mut origin = self.db.prepare_transient("INSERT INTO main.crsql_origin(site, epoch) VALUES(?1, ?2)")?;
        origin.bind_int(1, site_row)?;
        origin.bind_int(2, random_epoch(self))?;
        origin.execute()?;
        let ordinal = self.db.last_insert_rowid();
        self.set_master("origin", &ordinal.to_string())?;
        self.set_master("epoch_start", &start.to_string())?;
        if let Some(boot) = boot_id() {
            self.set_master("boot_id", &crate::sqlgen::Literal(&boot).to_string())?;
        }
        self.meta.replace(None);
        Ok(())
    }

    fn set_master(&self, key: &str, sql_value: &str) -> Result<()> {
        self.db.exec(&format!("INSERT OR REPLACE INTO main.crsql_master(key, value) VALUES('{key}', {sql_value})"))
    }

    /// A new epoch for this site: its dots before it stay claimed under the old one.
    pub fn new_epoch(&self) -> Result<()> {
        let meta = self.meta()?;
        let tail = self.tail()?;
        if tail.last_local > 0 {
            self.claim(meta.origin, 1, tail.last_local, tail.last_local_token)?;
            self.note_own(meta.origin, tail.last_local)?;
        }
        self.draw_epoch(i64::from(meta.site_row), tail.db_version)?;
        self.forget_tail();
        Ok(())
    }

    /// Makes this database a site of its own, by the id that is wanted or a new one: what was written so far stays the former site's
    /// (a copied file). One that it knows already it goes on as, in an epoch of its own (a node brought back by another one's file).
    pub fn new_site(&self, wanted: Option<SiteId>) -> Result<()> {
        let meta = self.meta()?;
        if wanted == Some(meta.site) {
            return Ok(());
        }
        let tail = self.tail()?;
        if tail.last_local > 0 {
            self.claim(meta.origin, 1, tail.last_local, tail.last_local_token)?;
        }
        let row = i64::from(self.author(&wanted.unwrap_or_else(|| SiteId(uuid_v4(self))))?);
        self.set_master("self", &row.to_string())?;
        // Its number as an author is 0 from now on.
        self.tx_mut().last_site = None;
        self.draw_epoch(row, tail.db_version)?;
        self.forget_tail();
        Ok(())
    }

    /// Before the first write of a connection: a machine that was booted since may have lost commits, so its site goes on
    /// in a new epoch (X8, S1).
    pub fn check_boot(&self) -> Result<()> {
        if self.tx.borrow().boot_checked {
            return Ok(());
        }
        let meta = self.meta()?;
        match (boot_id(), &meta.boot_id) {
            (Some(now), Some(then)) if now != *then => {
                if self.tail()?.last_local == 0 {
                    self.set_master("boot_id", &crate::sqlgen::Literal(&now).to_string())?;
                    self.meta.replace(None);
                } else {
                    self.new_epoch()?;
                }
            }
            _ => {}
        }
        self.tx_mut().boot_checked = true;
        Ok(())
    }

    /// Who we are.
    ///
    /// # Errors
    /// No internal tables, a newer format, or a damaged table.
    pub fn meta(&self) -> Result<Rc<Meta>> {
        if let Some(meta) = self.meta.borrow().as_ref() {
            return Ok(Rc::clone(meta));
        }
        self.note_uncommitted()?;
        let meta = Rc::new(self.load_meta()?);
        self.meta.replace(Some(Rc::clone(&meta)));
        Ok(meta)
    }

    fn load_meta(&self) -> Result<Meta> {
        let mut stmt = self.fixed(include_str!("../../sql/extension/self.sql"))?;
        if !stmt.step()? {
            return Err(corrupt("crsql_master", "it does not name this site"));
        }
        if stmt.column_int(7) > FORMAT {
            return Err(Error::new(
                codes::ERROR,
                format!(
                    "this database has format {}, this build of Starling knows {FORMAT}: load a newer starling.so",
                    stmt.column_int(7)
                ),
            ));
        }
        let site = SiteId::from_slice(stmt.column_blob(1)).ok_or_else(|| corrupt("crsql_site", "an id is too long"))?;
        let small = |i: usize| u32::try_from(stmt.column_int(i)).map_err(|e| corrupt("crsql_master", e));
        let boot = stmt.column_text(8);
        Ok(Meta {
            site,
            site_row: small(0)?,
            origin: small(2)?,
            epoch: stmt.column_int(3).cast_unsigned(),
            epoch_start: stmt.column_int(4).max(0).cast_unsigned(),
            file: small(5)?,
            format: stmt.column_int(7),
            merge_equal: stmt.column_int(6) != 0,
            boot_id: (!boot.is_empty()).then(|| String::from_utf8_lossy(boot).into_owned()),
        })
    }

    /// The file is about to hold young clocks.
    pub fn raise_format(&self) -> Result<()> {
        self.raise_format_to(WITH_COLUMNS)
    }

    /// The file's schema is being changed: it becomes one of the present format.
    pub fn modernise(&self) -> Result<()> {
        let format = if self.settle_records()? { FORMAT } else { WITH_COLUMNS };
        self.raise_format_to(format)
    }

    fn raise_format_to(&self, format: i64) -> Result<()> {
        if self.meta()?.format >= format {
            return Ok(());
        }
        for key in ["starling.format", "starling.least_reader", "starling.least_writer"] {
            self.set_master(key, &format.to_string())?;
        }
        self.meta.replace(None);
        Ok(())
    }

    /// The ordinal of an origin, where it has one.
    pub fn known_ordinal(&self, origin: &Origin) -> Result<Option<u32>> {
        let Some(site) = self.find_site(&origin.site)? else { return Ok(None) };
        let mut find = self.fixed("SELECT ordinal FROM main.crsql_origin WHERE site = ?1 AND epoch = ?2")?;
        find.bind_int(1, i64::from(site))?;
        find.bind_int(2, origin.epoch.cast_signed())?;
        if !find.step()? {
            return Ok(None);
        }
        u32::try_from(find.column_int(0)).map(Some).map_err(|e| corrupt("crsql_origin", e))
    }

    /// The ordinal of an origin, made if it is new.
    pub fn ordinal(&self, origin: &Origin) -> Result<u32> {
        let meta = self.meta()?;
        if origin.site == meta.site && origin.epoch == meta.epoch {
            return Ok(meta.origin);
        }
        let site = self.site_row(&origin.site)?;
        {
            let mut find = self.fixed("SELECT ordinal FROM main.crsql_origin WHERE site = ?1 AND epoch = ?2")?;
            find.bind_int(1, i64::from(site))?;
            find.bind_int(2, origin.epoch.cast_signed())?;
            if find.step()? {
                return u32::try_from(find.column_int(0)).map_err(|e| corrupt("crsql_origin", e));
            }
        }
        let mut add = self.fixed("INSERT INTO main.crsql_origin(site, epoch) VALUES(?1, ?2)")?;
        add.bind_int(1, i64::from(site))?;
        add.bind_int(2, origin.epoch.cast_signed())?;
        add.execute()?;
        u32::try_from(self.db.last_insert_rowid()).map_err(|e| corrupt("crsql_origin", e))
    }

    /// The origin that an ordinal stands for, and its site's row.
    pub fn origin_of(&self, ordinal: u32) -> Result<(Origin, u32)> {
        let meta = self.meta()?;
        if ordinal == meta.origin {
            return Ok((Origin { site: meta.site, epoch: meta.epoch }, meta.site_row));
        }
        let mut find = self.fixed(
            "SELECT s.site_id, o.epoch, s.id FROM main.crsql_origin AS o JOIN main.crsql_site AS s ON s.id = o.site \
             WHERE o.ordinal = ?1",
        )?;
        find.bind_int(1, i64::from(ordinal))?;
        if !find.step()? {
            return Err(corrupt("crsql_origin", format!("ordinal {ordinal} is missing")));
        }
        let site = SiteId::from_slice(find.column_blob(0)).ok_or_else(|| corrupt("crsql_site", "an id is too long"))?;
        let row = u32::try_from(find.column_int(2)).map_err(|e| corrupt("crsql_site", e))?;
        Ok((Origin { site, epoch: find.column_int(1).cast_unsigned() }, row))
    }
}

/// 64 random bits, as SQLite stores them.
pub fn random_epoch(session: &Session) -> i64 {
    ((session.token() << 16) ^ session.token()).cast_signed()
}

fn uuid_v4(session: &Session) -> [u8; 16] {
    let mut bytes = [0u8; 16];
    if getrandom::fill(&mut bytes).is_err() {
        bytes[..8].copy_from_slice(&session.token().to_le_bytes());
        bytes[8..].copy_from_slice(&session.token().to_le_bytes());
    }
    uuid::Builder::from_random_bytes(bytes).into_uuid().into_bytes()
}

/// The kernel's name for this boot; `None` where there is none to be had.
fn boot_id() -> Option<String> {
    let id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    Some(id.trim().to_string()).filter(|id| !id.is_empty())
}

fn of_relative() -> Error {
    Error::msg(
        "this file holds cr-sqlite's own tables. Export its tables with plain SQL into a new file and call crsql_as_crr there",
    )
}
