//! `crsql_as_crr` and `crsql_as_table`: arming a table, and letting it go.

use crate::catalog::Table;
use crate::log::LogWriter;
use crate::portable::Capture;
use crate::schema::{self, TableInfo};
use crate::session::Session;
use crate::sqlgen::{self, Ident};
use crate::sqlite::{Error, Result};
use starling_crdt::key;
use starling_crdt::log_chunk::{Entry, Kind};
use starling_crdt::ValueRef;

impl Session {
    /// Makes a table a CRR. Existing rows get the next db_version. Doing it again is harmless, and changes the way of
    /// capture only where another one is asked for.
    ///
    /// # Errors
    /// No such table, or one that cannot be a CRR, with the reason; the table is then untouched.
    pub fn as_crr(&self, schema: Option<&str>, name: &str, wanted: Option<Capture>) -> Result<()> {
        if schema.is_some_and(|s| !s.eq_ignore_ascii_case("main")) {
            return Err(Error::msg(
                "crsql_as_crr: only tables of the main database can be CRRs; open that file as main and call it there",
            ));
        }
        let found = schema::read(self.db, name)?;
        let mut info = found.ok_or_else(|| Error::msg(format!("crsql_as_crr: no such table: {name}")))?;
        schema::check(self.db, &info)?;
        self.check_encoding()?;
        self.ensure_schema()?;
        self.atomically(|| {
            self.join_transaction()?;
            self.refresh()?;
            let active = self.table_named(&info.name)?.map(|t| t.info.id);
            let present = active.map(|id| self.capture_of(id)).transpose()?;
            let armed = active.is_some() && self.is_armed(&info)?;
            let capture = wanted.or(present).unwrap_or_default();
            if armed && present == Some(capture) {
                return Ok(());
            }
            // Before the triggers change: what the former ones told has its version first.
            self.flush()?;
            let known = self.register(&mut info)?;
            self.arm(&info, capture)?;
            if armed {
                return Ok(());
            }
            let table = Table::new(info);
            if known {
                self.log_differences(&table)
            } else {
                self.log_existing_rows(&table)
            }
        })
    }

    /// Turns a CRR back into a plain table. Its metadata is archived, so that a later `crsql_as_crr` goes on with it.
    pub fn as_table(&self, name: &str) -> Result<()> {
        let Some(table) = (if self.has_schema()? { self.table_named(name)? } else { None }) else {
            return Err(Error::msg(format!("crsql_as_table: {name} is not a CRR")));
        };
        self.atomically(|| {
            self.join_transaction()?;
            self.flush()?;
            self.disarm(&table.info)?;
            self.drop_inbox(table.info.id)?;
            self.set_active(table.info.id, false)?;
            self.forget_catalog();
            Ok(())
        })
    }

    fn check_encoding(&self) -> Result<()> {
        let mut stmt = self.db.prepare_transient("PRAGMA encoding")?;
        if stmt.step()? && stmt.column_text(0) != b"UTF-8" {
            return Err(Error::msg(
                "crsql_as_crr: a UTF-16 database cannot be replicated: ties between texts would be decided differently. \
                 Copy it into a UTF-8 one (PRAGMA encoding = 'UTF-8')",
            ));
        }
        Ok(())
    }

    /// Whether all triggers are there as they ought to be.
    pub fn is_armed(&self, info: &TableInfo) -> Result<bool> {
        let mut full = info.clone();
        self.fill_ids(&mut full)?;
        if full.columns.iter().any(|c| c.id == 0) {
            return Ok(false);
        }
        for (name, sql) in sqlgen::triggers(&full, self.sink(self.capture_of(full.id)?)?) {
            let mut find =
                self.db.prepare_transient("SELECT sql FROM main.sqlite_master WHERE type = 'trigger' AND name = ?1")?;
            find.bind_text(1, &name)?;
            if !find.step()? || find.column_text(0) != sql.as_bytes() {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// (Re-)makes the triggers, and the inbox that they need or need no more. What stood in it must have been taken.
    pub fn arm(&self, info: &TableInfo, capture: Capture) -> Result<()> {
        self.disarm(info)?;
        self.drop_inbox(info.id)?;
        if capture == Capture::Portable {
            self.db.exec(&crate::inbox::create(info))?;
        }
        for (_, sql) in sqlgen::triggers(info, self.sink(capture)?) {
            self.db.exec(&sql)?;
        }
        self.forget_catalog();
        Ok(())
    }

    /// Drops the triggers that are ours, whatever columns they were made for and whatever the table was called then.
    fn disarm(&self, info: &TableInfo) -> Result<()> {
        let mut names = Vec::new();
        {
            let mut all = self.db.prepare_transient(
                "SELECT name FROM main.sqlite_master WHERE type = 'trigger' AND lower(tbl_name) = lower(?1) \
                 AND name LIKE '%\\_\\_crsql\\_%' ESCAPE '\\' \
                 AND (instr(sql, ?2) > 0 OR instr(sql, 'crsql_inbox_') > 0 OR instr(sql, 'starling: a REAL key') > 0)",
            )?;
            all.bind_text(1, &info.name)?;
            all.bind_text(2, sqlgen::JOURNAL)?;
            while all.step()? {
                names.push(schema::text(all.column_text(0)));
            }
        }
        for name in names {
            self.db.exec(&format!("DROP TRIGGER main.{}", Ident(&name)))?;
        }
        Ok(())
    }

    /// Logs every row of a table that was just made a CRR, as inserted by one local transaction.
    fn log_existing_rows(&self, table: &Table) -> Result<()> {
        self.each_key(table, |writer, key, seq| {
            writer.push(Kind::Base, table.info.log_ref(), key, seq, &[])?;
            Ok(Entry::width(Kind::Base, table.info.columns.len() as u32, 0))
        })
    }

    /// A table that was a CRR before: rows that came since are logged as new, rows that went as deleted, and of the others
    /// all cells are written once more, since nothing tells which of them changed (X3).
    pub fn log_differences(&self, table: &Table) -> Result<()> {
        self.flush()?;
        let width = table.column_ids.len().max(1) as u64;
        let mut select = self.db.prepare_transient(&sqlgen::select_keys(&table.info))?;
        while select.step()? {
            let columns: Vec<ValueRef<'_>> = (0..table.info.keys.len()).map(|i| select.column(i)).collect();
            let mut bytes = Vec::new();
            key::encode(columns, &mut bytes);
            let kind = starling_crdt::local::TouchKind::Insert { replace: true, moved: false };
            self.journal.borrow_mut().touch(table.info.id, kind, width, |out| out.extend_from_slice(&bytes));
            if self.journal.borrow().is_full() {
                self.flush()?;
            }
        }
        drop(select);
        self.flush()?;
        self.log_vanished(table)
    }

    /// Deletes, in the log, the rows whose clock says alive and that are gone.
    fn log_vanished(&self, table: &Table) -> Result<()> {
        let mut keys: Vec<Vec<u8>> = Vec::new();
        self.each_clock(table, &mut |key, clock| {
            if clock.is_alive() && clock.born {
                keys.push(key.to_vec());
            }
        })?;
        keys.extend(self.logged_keys(table)?);
        keys.sort();
        keys.dedup();
        for key in keys {
            let dead = self.get_clock(table, &key)?.is_some_and(|c| !c.is_alive());
            if !dead && !self.row_exists(table, &key)? {
                let kind = starling_crdt::local::TouchKind::Delete;
                self.journal.borrow_mut().touch(table.info.id, kind, 1, |out| out.extend_from_slice(&key));
            }
        }
        self.flush()
    }

    /// Keys that a base entry of the log names: pristine rows have no other trace.
    fn logged_keys(&self, table: &Table) -> Result<Vec<Vec<u8>>> {
        let mut keys = Vec::new();
        self.each_entry(&mut |_, entry, key, _| {
            if entry.table.id == table.info.id && matches!(entry.kind, Kind::Base | Kind::Rebase) {
                keys.push(key.to_vec());
            }
            Ok(true)
        })?;
        Ok(keys)
    }

    fn each_key(&self, table: &Table, mut f: impl FnMut(&mut LogWriter<'_>, &[u8], u64) -> Result<u64>) -> Result<()> {
        let mut select = self.db.prepare_transient(&sqlgen::select_keys(&table.info))?;
        if !select.step()? {
            return Ok(());
        }
        let mut writer = LogWriter::new(self, self.open_local()?);
        let mut bytes = Vec::new();
        loop {
            bytes.clear();
            for i in 0..table.info.keys.len() {
                let value = select.column(i);
                if !key::is_canonical(value)
                    && table.info.keys.get(i).is_some_and(|k| k.affinity != schema::Affinity::Real)
                {
                    return Err(Error::msg(format!(
                        "crsql_as_crr: table {} has a REAL key that equals an integer (such as 1.0); store integers, or \
                         give the key column a type",
                        Ident(&table.info.name)
                    )));
                }
                value.encode(&mut bytes);
            }
            let seq = self.journal.borrow().next_seq();
            let width = f(&mut writer, &bytes, seq)?;
            self.journal.borrow_mut().take_seqs(width);
            if !select.step()? {
                break;
            }
        }
        let record = writer.finish()?;
        self.tx_mut().local = Some(record);
        Ok(())
    }
}
