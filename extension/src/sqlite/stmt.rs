//! Prepared statements.
//!
//! What it does: bind, step, read columns in place; finalize on drop.
//! What it must never do: lose the extended code or message of a failure, or leave a failed statement running.
//! Invariant: what a column lends borrows the statement, so it ends before the next step, reset or bind.
#![allow(unsafe_code)]

use super::api::{call, lossy};
use super::db::Db;
use super::error::{codes, Result};
use super::value::{lent, read, start_of, transient, ValueRef, UTF8};
use sqlite3ext_sys::sqlite3_stmt;
use starling_crdt::value::Encoded;
use std::ffi::c_int;

pub struct Stmt {
    db: Db,
    stmt: *mut sqlite3_stmt,
    /// It was stepped and not reset since.
    runs: bool,
}

impl Stmt {
    /// # Safety
    /// `stmt` is a prepared statement of `db`, not null, and nobody else's.
    pub(super) unsafe fn new(db: Db, stmt: *mut sqlite3_stmt) -> Stmt {
        Stmt { db, stmt, runs: false }
    }

    fn bound(&self, rc: c_int) -> Result<()> {
        if rc == codes::OK {
            return Ok(());
        }
        Err(self.db.error(rc))
    }

    pub fn bind_null(&mut self, index: usize) -> Result<()> {
        // SAFETY: the statement is valid until drop; SQLite checks the index. (So in every call below.)
        let rc = unsafe { call!(self.db.api, bind_null(self.stmt, position(index))) };
        self.bound(rc)
    }

    #[inline]
    pub fn bind_int(&mut self, index: usize, value: i64) -> Result<()> {
        // SAFETY: as above.
        let rc = unsafe { call!(self.db.api, bind_int64(self.stmt, position(index), value)) };
        self.bound(rc)
    }

    pub fn bind_real(&mut self, index: usize, value: f64) -> Result<()> {
        // SAFETY: as above.
        let rc = unsafe { call!(self.db.api, bind_double(self.stmt, position(index), value)) };
        self.bound(rc)
    }

    /// Binds text, given as a string or as bytes. Empty text stays text.
    #[inline]
    pub fn bind_text(&mut self, index: usize, text: impl AsRef<[u8]>) -> Result<()> {
        let text = text.as_ref();
        let (start, len) = (start_of(text).cast(), text.len() as u64);
        // SAFETY: as above; SQLite copies `len` readable bytes before it returns.
        let rc =
            unsafe { call!(self.db.api, bind_text64(self.stmt, position(index), start, len, transient(), UTF8 as u8)) };
        self.bound(rc)
    }

    /// Binds a blob. An empty blob stays a blob.
    #[inline]
    pub fn bind_blob(&mut self, index: usize, blob: impl AsRef<[u8]>) -> Result<()> {
        let blob = blob.as_ref();
        let (start, len) = (start_of(blob).cast(), blob.len() as u64);
        // SAFETY: as above; SQLite copies `len` readable bytes before it returns.
        let rc = unsafe { call!(self.db.api, bind_blob64(self.stmt, position(index), start, len, transient())) };
        self.bound(rc)
    }

    pub fn bind_value(&mut self, index: usize, value: ValueRef<'_>) -> Result<()> {
        match value {
            ValueRef::Null => self.bind_null(index),
            ValueRef::Integer(value) => self.bind_int(index, value),
            ValueRef::Real(value) => self.bind_real(index, value),
            ValueRef::Text(text) => self.bind_text(index, text),
            ValueRef::Blob(blob) => self.bind_blob(index, blob),
        }
    }

    /// Runs to the next row; false when there is none left. A failure resets the statement.
    #[inline]
    pub fn step(&mut self) -> Result<bool> {
        self.runs = true;
        // SAFETY: the statement is valid until drop, and `&mut self` says that nobody reads its columns.
        match unsafe { call!(self.db.api, step(self.stmt)) } {
            codes::ROW => Ok(true),
            codes::DONE => Ok(false),
            rc => {
                let error = self.db.error(rc);
                self.reset();
                Err(error)
            }
        }
    }

    /// Ends the run. The bindings stay.
    #[inline]
    pub fn reset(&mut self) {
        if !std::mem::take(&mut self.runs) {
            return;
        }
        // SAFETY: as for `step`. What reset answers is the error of the last step, which `step` has told.
        unsafe { call!(self.db.api, reset(self.stmt)) };
    }

    pub fn clear_bindings(&mut self) {
        // SAFETY: as for `step`. It cannot fail.
        unsafe { call!(self.db.api, clear_bindings(self.stmt)) };
    }

    /// Runs to the end, whatever rows come, and resets.
    pub fn execute(&mut self) -> Result<()> {
        while self.step()? {}
        self.reset();
        Ok(())
    }

    /// Runs to the end with these values as its parameters. They are not copied where that can be helped; no parameter is bound afterwards.
    pub fn execute_lent<'v>(&mut self, values: impl Iterator<Item = Result<Encoded<'v>>>) -> Result<()> {
        let mut lent = Lent(self);
        for (i, value) in values.enumerate() {
            match value? {
                Encoded::Plain(value) => lent.bind(i + 1, value)?,
                // It stands nowhere as text but here.
                folded @ Encoded::Uuid(_) => lent.0.bind_value(i + 1, folded.value())?,
            }
        }
        lent.0.execute()
    }

    pub fn column_count(&self) -> usize {
        // SAFETY: the statement is valid until drop.
        usize::try_from(unsafe { call!(self.db.api, column_count(self.stmt)) }).unwrap_or(0)
    }

    /// A column of the row stepped to. NULL where there is no row or no such column.
    #[inline]
    pub fn column(&self, i: usize) -> ValueRef<'_> {
        // SAFETY: the statement is valid until drop, and what is read borrows it, so it ends before `&mut self` can step or reset.
        // The value is one that only the holder of the connection's mutex may read, which whoever calls an extension holds: asking
        // the statement for type, place and length each by itself would take the mutex three times.
        unsafe { read(self.db.api, call!(self.db.api, column_value(self.stmt, position(i)))) }
    }

    /// The column as SQLite converts it to an integer (NULL is 0).
    #[inline]
    pub fn column_int(&self, i: usize) -> i64 {
        // SAFETY: the statement is valid until drop; reading as an integer changes nothing in the value.
        unsafe { call!(self.db.api, column_int64(self.stmt, position(i))) }
    }

    /// The bytes of a blob or text; of anything else, none. (Converting would move what an earlier borrow points at.)
    #[inline]
    pub fn column_blob(&self, i: usize) -> &[u8] {
        self.column(i).bytes()
    }

    /// The bytes of a text or blob; of anything else, none.
    #[inline]
    pub fn column_text(&self, i: usize) -> &[u8] {
        self.column(i).bytes()
    }

    pub fn column_is_null(&self, i: usize) -> bool {
        // SAFETY: the statement is valid until drop.
        unsafe { call!(self.db.api, column_type(self.stmt, position(i))) == sqlite3ext_sys::SQLITE_NULL as c_int }
    }

    pub fn column_name(&self, i: usize) -> String {
        // SAFETY: the statement is valid until drop; the name is copied before anything else happens to it.
        unsafe { lossy(call!(self.db.api, column_name(self.stmt, position(i)))) }
    }

    /// Whether it makes no direct change to the database file.
    pub fn is_readonly(&self) -> bool {
        // SAFETY: the statement is valid until drop.
        unsafe { call!(self.db.api, stmt_readonly(self.stmt)) != 0 }
    }
}

/// A statement that may have values bound to it which are not its own, as long as this lives.
struct Lent<'s>(&'s mut Stmt);

impl Lent<'_> {
    fn bind(&mut self, index: usize, value: ValueRef<'_>) -> Result<()> {
        let (db, stmt, at) = (self.0.db, self.0.stmt, position(index));
        let rc = match value {
            ValueRef::Text(text) => {
                let (start, len) = (start_of(text).cast(), text.len() as u64);
                // SAFETY: the statement is valid; the bytes outlive `self`, which unbinds them in any case when it goes.
                unsafe { call!(db.api, bind_text64(stmt, at, start, len, lent(), UTF8 as u8)) }
            }
            ValueRef::Blob(blob) => {
                let (start, len) = (start_of(blob).cast(), blob.len() as u64);
                // SAFETY: as above.
                unsafe { call!(db.api, bind_blob64(stmt, at, start, len, lent())) }
            }
            own => return self.0.bind_value(index, own),
        };
        self.0.bound(rc)
    }
}

impl Drop for Lent<'_> {
    fn drop(&mut self) {
        self.0.reset();
        self.0.clear_bindings();
    }
}

impl Drop for Stmt {
    fn drop(&mut self) {
        // SAFETY: valid until here and used by nobody after. What finalize answers is the error of the last step.
        unsafe { call!(self.db.api, finalize(self.stmt)) };
    }
}

/// An index as SQLite counts; one that does not fit is −1, which SQLite refuses as out of range.
#[inline(always)]
fn position(index: usize) -> c_int {
    c_int::try_from(index).unwrap_or(-1)
}
