//! One connection in serialized mode, used by several threads at once, as the pools of Python, Java or Go do it. rusqlite lets a
//! connection be in one thread only, so this is SQLite's C interface.

#![allow(unsafe_code)] // rusqlite's connection is not Sync, which is the point here

use crate::site::{register, OPENING};
use rusqlite::ffi;
use std::ffi::{c_int, CString};
use std::path::Path;
use std::ptr;
use std::sync::PoisonError;

extern "C" {
    // In the library, but not among rusqlite's declarations.
    fn sqlite3_close_v2(db: *mut ffi::sqlite3) -> c_int;
}

/// An extended result code.
pub type Code = c_int;

/// A connection opened with `SQLITE_OPEN_FULLMUTEX`.
pub struct Shared(*mut ffi::sqlite3);

// SAFETY: a connection in serialized mode may be used by any thread at any time: each call takes its mutex.
unsafe impl Send for Shared {}
// SAFETY: as above.
unsafe impl Sync for Shared {}

/// A statement, which may outlive nothing but go from thread to thread.
pub struct Statement(*mut ffi::sqlite3_stmt);

// SAFETY: as for the connection; `&mut` to step it keeps two threads from reading the columns of one row at once.
unsafe impl Send for Statement {}

impl Shared {
    /// Opens a file with the extension.
    pub fn open(path: &Path) -> Self {
        register();
        let _many = OPENING.read().unwrap_or_else(PoisonError::into_inner);
        // SAFETY: it only says how the library was compiled.
        assert_eq!(unsafe { ffi::sqlite3_threadsafe() }, 1, "this SQLite knows no serialized mode");
        let name = CString::new(path.to_string_lossy().as_bytes()).expect("a path");
        let flags = ffi::SQLITE_OPEN_READWRITE | ffi::SQLITE_OPEN_CREATE | ffi::SQLITE_OPEN_FULLMUTEX;
        let mut db = ptr::null_mut();
        // SAFETY: a C string, a place for the handle, and then an open connection.
        unsafe {
            assert_eq!(ffi::sqlite3_open_v2(name.as_ptr(), &mut db, flags, ptr::null()), ffi::SQLITE_OK);
            ffi::sqlite3_extended_result_codes(db, 1);
            ffi::sqlite3_busy_timeout(db, 20_000);
        }
        Self(db)
    }

    /// Compiles a statement.
    ///
    /// # Errors
    /// SQLite's code.
    pub fn prepare(&self, sql: &str) -> Result<Statement, Code> {
        let (mut stmt, n) = (ptr::null_mut(), c_int::try_from(sql.len()).expect("a short text"));
        // SAFETY: an open connection, as many bytes as are told, and a place for the statement.
        let rc = unsafe { ffi::sqlite3_prepare_v2(self.0, sql.as_ptr().cast(), n, &mut stmt, ptr::null_mut()) };
        if rc == ffi::SQLITE_OK {
            Ok(Statement(stmt))
        } else {
            Err(rc)
        }
    }

    /// Runs one statement to its end, with at most one blob bound; answers how many rows came.
    ///
    /// # Errors
    /// SQLite's code.
    pub fn run(&self, sql: &str, blob: Option<&[u8]>) -> Result<u64, Code> {
        let mut stmt = self.prepare(sql)?;
        if let Some(blob) = blob {
            stmt.bind(blob);
        }
        let mut rows = 0;
        while stmt.step()? {
            rows += 1;
        }
        Ok(rows)
    }

    /// Whether no explicit transaction is open.
    pub fn is_autocommit(&self) -> bool {
        // SAFETY: an open connection.
        unsafe { ffi::sqlite3_get_autocommit(self.0) != 0 }
    }

    /// Interrupts whatever runs.
    pub fn interrupt(&self) {
        // SAFETY: an open connection, and no thread closes it meanwhile since that takes it by value.
        unsafe { ffi::sqlite3_interrupt(self.0) }
    }

    /// `sqlite3_close`: refused where a statement is left. The connection is given back then.
    ///
    /// # Errors
    /// SQLite's code.
    pub fn close(self) -> Result<(), (Code, Self)> {
        // SAFETY: an open connection, which is used no more if this succeeds.
        match unsafe { ffi::sqlite3_close(self.0) } {
            ffi::SQLITE_OK => Ok(()),
            rc => Err((rc, self)),
        }
    }

    /// `sqlite3_close_v2`: the last statement's end closes it, in whatever thread that is.
    pub fn close_later(self) {
        // SAFETY: an open connection, which nobody uses after this but through its statements.
        assert_eq!(unsafe { sqlite3_close_v2(self.0) }, ffi::SQLITE_OK);
    }
}

impl Statement {
    /// Binds a blob to its first parameter.
    pub fn bind(&mut self, blob: &[u8]) {
        let n = blob.len() as u64;
        // SAFETY: a statement, and as many bytes as are told, which SQLite copies.
        let rc = unsafe { ffi::sqlite3_bind_blob64(self.0, 1, blob.as_ptr().cast(), n, ffi::SQLITE_TRANSIENT()) };
        assert_eq!(rc, ffi::SQLITE_OK);
    }

    /// Steps to the next row; false after the last.
    ///
    /// # Errors
    /// SQLite's code.
    pub fn step(&mut self) -> Result<bool, Code> {
        // SAFETY: a statement that is finalized in drop only.
        match unsafe { ffi::sqlite3_step(self.0) } {
            ffi::SQLITE_ROW => Ok(true),
            ffi::SQLITE_DONE => Ok(false),
            rc => Err(rc),
        }
    }
}

impl Drop for Statement {
    fn drop(&mut self) {
        // SAFETY: it was not finalized before.
        unsafe { ffi::sqlite3_finalize(self.0) };
    }
}
