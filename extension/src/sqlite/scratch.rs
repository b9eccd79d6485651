//! A database in memory of one's own, to try a schema in.
//!
//! What it does: open, lend itself as a [`Db`], close.
//! What it must never do: share anything with the connection that asked for it but the library.
//! Invariant: closed exactly once, when dropped; every [`Stmt`](super::Stmt) on it is dropped before (they borrow it).
#![allow(unsafe_code)]

use super::api::call;
use super::db::Db;
use super::error::{codes, Error, Result};
use std::ops::Deref;
use std::ptr;

/// A database in memory that is closed when dropped.
pub struct Scratch(Db);

impl Db {
    /// Opens an empty database in memory with the same library.
    ///
    /// # Errors
    /// Out of memory, or an automatic extension of the application's that refused.
    pub fn scratch(&self) -> Result<Scratch> {
        let mut db = ptr::null_mut();
        // SAFETY: a C string, and a place of our own for the handle.
        let rc = unsafe { call!(self.api, open(c":memory:".as_ptr(), &mut db)) };
        if db.is_null() {
            return Err(Error::new(rc, "there is no memory for a scratch database"));
        }
        // SAFETY: just opened with that library; `Scratch` closes it, also where opening failed half-way.
        let scratch = Scratch(unsafe { Db::new(db, self.api) });
        if rc == codes::OK {
            Ok(scratch)
        } else {
            Err(scratch.error(rc))
        }
    }
}

impl Deref for Scratch {
    type Target = Db;
    fn deref(&self) -> &Db {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // SAFETY: open until now; virtual tables of ours finalize their statements in their disconnect, which comes first.
        unsafe { call!(self.0.api, close(self.0.db)) };
    }
}
