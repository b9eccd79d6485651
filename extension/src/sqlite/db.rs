//! One connection.
//!
//! What it does: prepare and execute SQL, ask the connection about itself, switch triggers.
//! What it must never do: outlive its connection (see the module's rule), or change anything that the application set.
//! Invariant: `db` is an open connection of the library whose routines `api` is.
#![allow(unsafe_code)]

use super::api::{call, lossy, Api};
use super::error::{codes, Error, Result};
use super::stmt::Stmt;
use sqlite3ext_sys::{self as ffi, sqlite3, sqlite3_stmt};
use std::ffi::{c_char, c_int, c_uint, CString};
use std::ptr;

/// A handle of a connection. It is copied freely and closes nothing.
#[derive(Clone, Copy)]
pub struct Db {
    pub(super) db: *mut sqlite3,
    pub(super) api: Api,
}

/// The SQLite that has `sqlite3_txn_state`.
const VERSION_TXN_STATE: i32 = 3_034_000;

/// The SQLite that has `sqlite3_db_name`.
const VERSION_DB_NAME: i32 = 3_039_000;

/// The SQLite that has `sqlite3_changes64` and `sqlite3_total_changes64`.
const VERSION_CHANGES64: i32 = 3_037_000;

impl Db {
    /// # Safety
    /// `db` is an open connection of the library whose routines `api` is, and stays open for as long as the handle and its copies.
    pub(super) unsafe fn new(db: *mut sqlite3, api: Api) -> Db {
        Db { db, api }
    }

    /// The failure that a call just answered with `rc`: with the connection's message, if it speaks of that call.
    pub(super) fn error(&self, rc: c_int) -> Error {
        // SAFETY: an open connection.
        let code = unsafe { call!(self.api, extended_errcode(self.db)) };
        if code & 0xff != rc & 0xff {
            return Error::new(rc, self.api.describe(rc));
        }
        // SAFETY: an open connection; the message is copied before anything else can replace it.
        Error::new(code, unsafe { lossy(call!(self.api, errmsg(self.db))) })
    }

    /// The first statement of `sql` (none if that is space and comments only) and what follows it.
    fn compile<'s>(&self, sql: &'s str, flags: c_uint) -> Result<(Option<Stmt>, &'s str)> {
        let len = c_int::try_from(sql.len()).map_err(|_| Error::new(codes::TOOBIG, "the SQL text is too long"))?;
        if sql.as_bytes().contains(&0) {
            return Err(Error::msg("the SQL text has a NUL in it"));
        }
        let (start, mut stmt, mut tail) = (sql.as_ptr().cast(), ptr::null_mut::<sqlite3_stmt>(), ptr::null());
        // SAFETY: an open connection, `len` readable bytes, and two places of our own for what comes back.
        let rc = unsafe { call!(self.api, prepare_v3(self.db, start, len, flags, &mut stmt, &mut tail)) };
        if rc != codes::OK {
            return Err(self.error(rc));
        }
        let used = (tail as usize).saturating_sub(start as usize);
        // SAFETY: `stmt` was just prepared, for us alone.
        let stmt = (!stmt.is_null()).then(|| unsafe { Stmt::new(*self, stmt) });
        Ok((stmt, sql.get(used..).unwrap_or("")))
    }

    fn prepare_one(&self, sql: &str, flags: c_uint) -> Result<Stmt> {
        let (stmt, rest) = self.compile(sql, flags)?;
        let stmt = stmt.ok_or_else(|| Error::msg("the SQL text has no statement in it"))?;
        if !rest.trim().is_empty() && self.compile(rest, 0)?.0.is_some() {
            return Err(Error::msg("the SQL text has more than one statement"));
        }
        Ok(stmt)
    }

    /// Prepares the one statement of `sql`, to be kept and run many times.
    pub fn prepare(&self, sql: &str) -> Result<Stmt> {
        self.prepare_one(sql, ffi::SQLITE_PREPARE_PERSISTENT)
    }

    /// Prepares the one statement of `sql`, to be run now and dropped.
    pub fn prepare_transient(&self, sql: &str) -> Result<Stmt> {
        self.prepare_one(sql, 0)
    }

    /// Runs every statement of `sql`; rows are dropped. What ran before a failure stays done.
    pub fn exec(&self, sql: &str) -> Result<()> {
        self.exec_each(sql, &mut |_| ())
    }

    /// The same; `ran` is called with the text of each statement that ran.
    pub fn exec_each<'s>(&self, sql: &'s str, ran: &mut dyn FnMut(&'s str)) -> Result<()> {
        let mut rest = sql;
        while !rest.trim().is_empty() {
            let (stmt, after) = self.compile(rest, 0)?;
            if let Some(mut stmt) = stmt {
                stmt.execute()?;
                ran(rest.get(..rest.len() - after.len()).unwrap_or(rest));
            }
            rest = after;
        }
        Ok(())
    }

    /// Has SQLite roll back the open transaction after `sqlite3_interrupt`, which no SQL can do: until the last running statement
    /// has ended, none compiles or runs. A statement that writes does end its transaction where it is interrupted. The one
    /// behind a blob handle needs no compiling, but a schema in memory; `way_out` is one that was compiled before. Whether no
    /// transaction is open now.
    pub fn abandon_interrupted(&self, way_out: Option<Stmt>) -> bool {
        // SAFETY: slots of SQLite 3.5, within every table that was accepted; null where they were left out of the library.
        let (blob_open, blob_close) = unsafe { ((*self.api.routines()).blob_open, (*self.api.routines()).blob_close) };
        if let (Some(blob_open), Some(blob_close)) = (blob_open, blob_close) {
            let mut blob = ptr::null_mut();
            // SAFETY: an open connection, C strings, and a place of our own for the handle, which is null or closed here.
            unsafe {
                blob_open(self.db, c"main".as_ptr(), c"sqlite_master".as_ptr(), c"sql".as_ptr(), 1, 1, &mut blob);
                blob_close(blob);
            }
        }
        match way_out {
            Some(mut stmt) if !self.is_autocommit() => drop(stmt.execute()),
            _ => {}
        }
        self.is_autocommit()
    }

    /// How long the connection waits for locks (milliseconds, 0 = not at all); compiles nothing, so it cannot fail.
    pub fn set_busy_timeout(&self, ms: i32) {
        // SAFETY: an open connection.
        unsafe { call!(self.api, busy_timeout(self.db, ms)) };
    }

    /// Makes SQLite forget the connection's last error, also where nothing compiles.
    pub fn forget_error(&self) {
        // SAFETY: an open connection and a C string without any statement; nobody is called back, no message is asked for.
        unsafe { call!(self.api, exec(self.db, c"".as_ptr(), None, ptr::null_mut(), ptr::null_mut())) };
    }

    /// Whether no explicit transaction is open.
    pub fn is_autocommit(&self) -> bool {
        // SAFETY: an open connection. (So in every call below.)
        unsafe { call!(self.api, get_autocommit(self.db)) != 0 }
    }

    /// Whether a write transaction is open on a schema (`main`, …); `None` where the library is too old to tell, and if
    /// there is no such schema.
    pub fn is_writing(&self, schema: &str) -> Option<bool> {
        if self.api.version() < VERSION_TXN_STATE {
            return None;
        }
        // SAFETY: the version says that the table reaches that far.
        let txn_state = unsafe { (*self.api.routines()).txn_state }?;
        let schema = CString::new(schema).ok()?;
        // SAFETY: an open connection and a C string.
        match unsafe { txn_state(self.db, schema.as_ptr()) } {
            -1 => None,
            state => Some(state == ffi::SQLITE_TXN_WRITE as c_int),
        }
    }

    /// The name of the schema with this number (0 is `main`, 1 `temp`, then what is attached), null if there is none; `None`
    /// where the library is too old to tell.
    fn schema_name(&self, number: c_int) -> Option<*const c_char> {
        if self.api.version() < VERSION_DB_NAME {
            return None;
        }
        // SAFETY: the version says that the table reaches that far.
        let db_name = unsafe { (*self.api.routines()).db_name }?;
        // SAFETY: an open connection; any number is fine.
        Some(unsafe { db_name(self.db, number) })
    }

    /// Whether more files than these are attached. (Not noticed in a library that is too old to tell at once.)
    #[inline]
    pub fn attaches_more_than(&self, files: usize) -> bool {
        c_int::try_from(files + 2).is_ok_and(|n| self.schema_name(n).is_some_and(|name| !name.is_null()))
    }

    /// The names under which database files are attached, `main` and `temp` left out.
    pub fn attached(&self) -> Result<Vec<String>> {
        let mut names = Vec::new();
        if self.schema_name(0).is_some() {
            while let Some(name) = self.schema_name(names.len() as c_int + 2).filter(|name| !name.is_null()) {
                // SAFETY: a C string, copied before anything can attach or detach.
                names.push(unsafe { lossy(name) });
            }
            return Ok(names);
        }
        let mut list = self.prepare_transient("PRAGMA database_list")?;
        while list.step()? {
            if list.column_int(0) > 1 {
                names.push(String::from_utf8_lossy(list.column_text(1)).into_owned());
            }
        }
        Ok(names)
    }

    /// The rows that the last finished statement changed.
    pub fn changes(&self) -> i64 {
        if self.api.version() >= VERSION_CHANGES64 {
            // SAFETY: the version says that the table reaches that far.
            if let Some(changes64) = unsafe { (*self.api.routines()).changes64 } {
                // SAFETY: as above.
                return unsafe { changes64(self.db) };
            }
        }
        // SAFETY: as above.
        i64::from(unsafe { call!(self.api, changes(self.db)) })
    }

    /// The rows changed since the connection was opened, those of triggers included.
    pub fn total_changes(&self) -> i64 {
        if self.api.version() >= VERSION_CHANGES64 {
            // SAFETY: the version says that the table reaches that far.
            if let Some(total_changes64) = unsafe { (*self.api.routines()).total_changes64 } {
                // SAFETY: as above.
                return unsafe { total_changes64(self.db) };
            }
        }
        // SAFETY: as above.
        i64::from(unsafe { call!(self.api, total_changes(self.db)) })
    }

    pub fn last_insert_rowid(&self) -> i64 {
        // SAFETY: as above.
        unsafe { call!(self.api, last_insert_rowid(self.db)) }
    }

    pub fn set_last_insert_rowid(&self, rowid: i64) {
        // SAFETY: as above.
        unsafe { call!(self.api, set_last_insert_rowid(self.db, rowid)) }
    }

    /// Switches all triggers on or off and answers what was. A change makes SQLite prepare every statement anew.
    pub fn set_triggers_enabled(&self, on: bool) -> Result<bool> {
        let before = self.triggers(-1)?;
        self.triggers(c_int::from(on))?;
        Ok(before)
    }

    /// Whether triggers fire. Where they do not, none tells that a write has happened.
    pub fn triggers_enabled(&self) -> Result<bool> {
        self.triggers(-1)
    }

    /// Sets the switch (1, 0) or leaves it (−1), and answers its state after that.
    fn triggers(&self, switch: c_int) -> Result<bool> {
        let mut state: c_int = 1;
        // SAFETY: an open connection; this option takes an int and where to write one.
        let rc = unsafe {
            let place: *mut c_int = &mut state;
            call!(self.api, db_config(self.db, ffi::SQLITE_DBCONFIG_ENABLE_TRIGGER as c_int, switch, place))
        };
        if rc != codes::OK {
            return Err(Error::new(rc, "SQLite cannot switch triggers"));
        }
        Ok(state != 0)
    }

    /// The collation that a column of a table of `main` was declared with; none where the library cannot tell, or where there is no such column.
    pub fn column_collation(&self, table: &str, column: &str) -> Option<String> {
        // SAFETY: every table of routines reaches this far.
        let ask = unsafe { (*self.api.routines()).table_column_metadata }?;
        let (table, column) = (CString::new(table).ok()?, CString::new(column).ok()?);
        let (table, column) = (table.as_ptr(), column.as_ptr());
        let mut collation = std::ptr::null();
        let none = std::ptr::null_mut::<c_int>;
        let no_type = std::ptr::null_mut();
        // SAFETY: an open connection, C strings, a place for the answer, and null where nothing is asked for. The answer stays until
        // the schema changes, which nobody does before it is copied.
        unsafe {
            let rc = ask(self.db, c"main".as_ptr(), table, column, no_type, &mut collation, none(), none(), none());
            (rc == codes::OK && !collation.is_null()).then(|| lossy(collation))
        }
    }

    /// Whether a schema (`main`, …) is open for reading only; none if there is no such schema.
    pub fn is_readonly(&self, schema: &str) -> Option<bool> {
        let schema = CString::new(schema).ok()?;
        // SAFETY: an open connection and a C string.
        match unsafe { call!(self.api, db_readonly(self.db, schema.as_ptr())) } {
            -1 => None,
            readonly => Some(readonly != 0),
        }
    }

    /// A number that changes with every commit to `main` that this connection makes or comes to see; `None` where the
    /// library cannot tell.
    pub fn file_version(&self) -> Option<u32> {
        // SAFETY: every table of routines reaches this far.
        let file_control = unsafe { (*self.api.routines()).file_control }?;
        let mut version: c_uint = 0;
        let place: *mut c_uint = &mut version;
        // SAFETY: an open connection, no name, which means `main` and is not looked for, and for this question a place to write an
        // unsigned int.
        let rc =
            unsafe { file_control(self.db, std::ptr::null(), ffi::SQLITE_FCNTL_DATA_VERSION as c_int, place.cast()) };
        (rc == codes::OK).then_some(version)
    }

    /// The file of a schema; none for a temporary or in-memory one, or if there is no such schema.
    pub fn filename(&self, schema: &str) -> Option<String> {
        let schema = CString::new(schema).ok()?;
        // SAFETY: an open connection and a C string; the name is copied.
        let name = unsafe { lossy(call!(self.api, db_filename(self.db, schema.as_ptr()))) };
        (!name.is_empty()).then_some(name)
    }

    /// SQLite's version: 3040001 is 3.40.1.
    pub fn libversion_number(&self) -> i32 {
        self.api.version()
    }

    /// How many parameters a statement may have.
    pub fn limit_variables(&self) -> i32 {
        // SAFETY: an open connection; −1 only asks.
        unsafe { call!(self.api, limit(self.db, ffi::SQLITE_LIMIT_VARIABLE_NUMBER as c_int, -1)) }
    }

    /// How many bytes a text, blob or row may have.
    pub fn limit_length(&self) -> i32 {
        // SAFETY: an open connection; −1 only asks.
        unsafe { call!(self.api, limit(self.db, ffi::SQLITE_LIMIT_LENGTH as c_int, -1)) }
    }
}
