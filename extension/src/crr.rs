//! `crsql_as_crr` and `crsql_as_table`: arming a table, and letting it go.

use crate::catalog::{Standing, Table};
use crate::differences::key_in;
use crate::log::LogWriter;
use crate::portable::Capture;
use crate::schema::{self, TableInfo};
use crate::session::Session;
use crate::sqlgen::{self, Ident};
use crate::sqlite::{Error, Result};
use starling_crdt::log_chunk::{Entry, Kind};
use std::rc::Rc;

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
        self.as_crr_after(None, name, wanted)
    }

    /// As [`Session::as_crr`], of a table of `main`. `former`: the CRR in whose place it comes, under another key.
    pub fn as_crr_after(&self, former: Option<u32>, name: &str, wanted: Option<Capture>) -> Result<()> {
        let seen = self.schema_version()?;
        let mut info = self.fit_table(name)?;
        if former.is_none() && self.is_crr_already(&info, wanted)? {
            return Ok(());
        }
        self.check_encoding()?;
        self.ensure_schema()?;
        self.keeping_rowid(|| {
            self.atomically(|| {
                // The lock first: a transaction that has read cannot write any more once another has committed.
                self.join_transaction()?;
                if self.schema_version()? != seen {
                    // Another one had it, who may have altered the table.
                    info = self.fit_table(name)?;
                }
                let agreed = self.agrees_with_schema()?;
                self.become_crr(&mut info, wanted, former)?;
                if agreed {
                    self.note_schema()?;
                }
                Ok(())
            })
        })
    }

    /// Whether there is nothing to do: programs say it at each start, also where another one is writing, or they may only read.
    fn is_crr_already(&self, info: &TableInfo, wanted: Option<Capture>) -> Result<bool> {
        if !self.has_schema()? || !self.tx.borrow().windows.is_empty() {
            return Ok(false);
        }
        self.refresh()?;
        if !self.agrees_with_schema()? {
            return Ok(false);
        }
        let Some(table) = self.table_named(&info.name)? else { return Ok(false) };
        let present = self.capture_of(table.info.id)?;
        Ok(wanted.is_none_or(|wanted| wanted == present) && self.is_armed(info)?)
    }

    /// A table of `main` that can be a CRR, as it is.
    fn fit_table(&self, name: &str) -> Result<TableInfo> {
        let Some(info) = schema::read(self.db, name)? else { return Err(self.no_such_table(name)?) };
        schema::check(self.db, &info)?;
        Ok(info)
    }

    fn become_crr(&self, info: &mut TableInfo, wanted: Option<Capture>, former: Option<u32>) -> Result<()> {
        self.refresh()?;
        self.settle_names()?;
        let active = self.table_named(&info.name)?.map(|t| t.info.id);
        let present = active.map(|id| self.capture_of(id)).transpose()?;
        let capture = wanted.or(present).unwrap_or_default();
        if active.is_some_and(|id| self.window(id).is_some()) {
            // Its triggers are the window's until that ends.
            let name = Ident(&info.name);
            return match present == Some(capture) {
                true => Ok(()),
                false => Err(Error::msg(format!(
                    "crsql_as_crr: the window of {name} is open; change its way of capture after crsql_commit_alter"
                ))),
            };
        }
        let armed = active.is_some() && self.is_armed(info)?;
        if armed && present == Some(capture) {
            return Ok(());
        }
        // Before the triggers change: what the former ones told has its version first.
        self.flush()?;
        if let (Some(id), false) = (active, armed) {
            if !self.has_key_of(id, info)? {
                // Dropped, and made anew with another key: what was said of the rows before is of other rows.
                self.begin_anew(id, info)?;
                return self.become_crr(info, wanted, None);
            }
            self.rearm(info.clone())?;
        }
        let former = if active.is_none() { former.or(self.let_go_with_another_key(info)?) } else { former };
        let known = self.register(info)?;
        if let Some(former) = former {
            self.set_table_note("anew", info.id, &former.to_string())?;
            self.give_up_converted(former)?;
        }
        let before = self.before_now(info.id)?;
        self.arm_as(info, capture)?;
        if active.is_some() {
            return Ok(());
        }
        let Some(table) = self.table_named(&info.name)? else { return Ok(()) };
        if known {
            self.show_complete(&table, &before)?;
            self.log_differences(&table, &before)?;
        } else {
            self.log_existing_rows(&table)?;
        }
        self.adopt_order(&info.name)?;
        // What has arrived for it and waits can be merged now.
        self.retry_aside().map(drop)
    }

    /// A table of this name that was let go, and whose key was another one, stays archived under no name; its id.
    fn let_go_with_another_key(&self, info: &TableInfo) -> Result<Option<u32>> {
        let Some((id, _)) = self.id_of(&info.name)? else { return Ok(None) };
        if self.has_key_of(id, info)? {
            return Ok(None);
        }
        self.write_name(id, &format!("\u{1}{id}"))?;
        self.forget_catalog();
        Ok(Some(id))
    }

    /// Turns a CRR back into a plain table; one that is plain is left as it is. Its metadata is archived, so that a later
    /// `crsql_as_crr` goes on with it.
    ///
    /// # Errors
    /// There is no such table, or what SQLite says.
    pub fn as_table(&self, name: &str) -> Result<()> {
        const WHO: &str = "crsql_as_table";
        if self.crr_named(name, WHO)?.is_none() {
            return Ok(());
        }
        self.atomically(|| {
            self.join_transaction()?;
            // Who had the lock before may have altered it.
            let Some(table) = self.crr_named(name, WHO)? else { return Ok(()) };
            if self.window(table.info.id).is_some() {
                // It would go on, and be judged by a table that has a catalogue no more.
                let name = Ident(&table.info.name);
                return Err(Error::msg(format!(
                    "{WHO}: the window of {name} is open; call it after crsql_commit_alter"
                )));
            }
            self.flush()?;
            // What was renamed or altered until now must be known by what it is called when the table is taken up again.
            self.settle_names()?;
            self.resume_table(table.info.id)?;
            let Some(table) = self.table(table.info.id)? else { return Ok(()) };
            self.disarm(&table.info)?;
            self.retire_inbox(table.info.id)?;
            self.forget_order(table.info.id, &table.info.name)?;
            self.set_standing(table.info.id, Standing::Archived)?;
            self.forget_catalog();
            Ok(())
        })
    }

    /// The CRR that a call means. What it asks of a table that is none is done already (`None`); of one that is not there it is a
    /// mistake.
    pub fn crr_named(&self, name: &str, who: &str) -> Result<Option<Rc<Table>>> {
        if self.has_schema()? {
            self.refresh()?;
            if let Some(table) = self.table_named(name)? {
                return Ok(Some(table));
            }
        }
        match schema::real_name(self.db, name)? {
            Some(_) => Ok(None),
            None => Err(Error::msg(format!("{who}: no such table: {name}"))),
        }
    }

    /// Why no table of that name was found.
    fn no_such_table(&self, name: &str) -> Result<Error> {
        let mut find = self.db.prepare_transient(
            "SELECT 'it is a view' FROM main.sqlite_master WHERE type = 'view' AND name = ?1 COLLATE NOCASE UNION ALL \
             SELECT 'it is a temporary table' FROM sqlite_temp_master WHERE type = 'table' AND name = ?1 COLLATE NOCASE",
        )?;
        find.bind_text(1, name)?;
        let why = if find.step()? {
            schema::text(find.column_text(0)) + "; only tables of the file can be CRRs"
        } else {
            String::new()
        };
        let separator = if why.is_empty() { "" } else { ": " };
        Ok(Error::msg(format!("crsql_as_crr: no such table: {name}{separator}{why}")))
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

    /// Logs every row of a table that was just made a CRR, as inserted by one local transaction.
    fn log_existing_rows(&self, table: &Table) -> Result<()> {
        self.check_keys(&table.info)?;
        self.each_key(table, |writer, key, seq| {
            writer.push(Kind::Base, table.info.log_ref(), key, seq, &[])?;
            Ok(Entry::width(Kind::Base, table.info.columns.len() as u32, 0))
        })
    }

    /// Refuses rows that came without triggers of ours, and whose keys those would have refused.
    ///
    /// # Errors
    /// A key is a REAL that equals an integer, where both can be stored.
    pub fn check_keys(&self, info: &TableInfo) -> Result<()> {
        for key in info.keys.iter().filter(|key| key.untyped()) {
            let (table, key) = (Ident(&info.name), Ident(&key.name));
            let odd =
                format!("SELECT 1 FROM main.{table} WHERE typeof({key}) = 'real' AND {key} = CAST({key} AS INTEGER)");
            if self.db.prepare_transient(&odd)?.step()? {
                return Err(Error::msg(format!(
                    "crsql_as_crr: table {table} has a REAL key that equals an integer (such as 1.0); store integers, or give the \
                     key column a type"
                )));
            }
        }
        Ok(())
    }

    fn each_key(&self, table: &Table, mut f: impl FnMut(&mut LogWriter<'_>, &[u8], u64) -> Result<u64>) -> Result<()> {
        let mut select = self.db.prepare_transient(&sqlgen::select_keys(&table.info))?;
        if !select.step()? {
            return Ok(());
        }
        let mut writer = LogWriter::new(self, self.open_local()?);
        let mut bytes = Vec::new();
        loop {
            key_in(&select, table, &mut bytes);
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
