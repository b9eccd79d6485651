//! Errors of the fence: SQLite's extended result code and a message.
//!
//! What it does: the one error type, the codes by name, and the guard that turns a panic in a callback into an error.
//! What it must never do: lose the extended code, or carry a code that means success.
//! Invariant: `code` is never OK, ROW or DONE, so an `Error` that reaches C is a failure there too.

use std::any::Any;
use std::fmt;
use std::panic::{catch_unwind, AssertUnwindSafe};

pub type Result<T> = std::result::Result<T, Error>;

/// A failure as SQLite tells it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    /// The extended result code (`SQLITE_CONSTRAINT_UNIQUE`, not only `SQLITE_CONSTRAINT`).
    pub code: i32,
    pub message: String,
}

impl Error {
    pub fn new(code: i32, message: impl Into<String>) -> Self {
        let code = match code {
            codes::OK | codes::ROW | codes::DONE => codes::ERROR,
            failure => failure,
        };
        Error { code, message: message.into() }
    }

    /// A failure with no better code than `SQLITE_ERROR`.
    pub fn msg(message: impl Into<String>) -> Self {
        Error::new(codes::ERROR, message)
    }

    /// The result code without what the extended one adds.
    pub fn primary(&self) -> i32 {
        self.code & 0xff
    }

    fn from_panic(payload: &(dyn Any + Send)) -> Self {
        let text = payload
            .downcast_ref::<&'static str>()
            .copied()
            .or_else(|| payload.downcast_ref::<String>().map(String::as_str))
            .unwrap_or("no message");
        Error::new(codes::INTERNAL, format!("starling: a bug, please report it: {text}"))
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.message.is_empty() {
            return write!(f, "SQLite result code {}", self.code);
        }
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {}

/// Runs what a C callback is for. A panic becomes an error, so it never unwinds into SQLite.
#[inline(always)]
pub(super) fn guard<T>(work: impl FnOnce() -> Result<T>) -> Result<T> {
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(result) => result,
        Err(payload) => Err(Error::from_panic(payload.as_ref())),
    }
}

/// SQLite's result codes, as the `c_int` that it returns.
#[allow(dead_code)] // a list of names is whole, whichever of them are in use
pub mod codes {
    macro_rules! codes {
        ($($name:ident = $sqlite:ident;)*) => {
            $(pub const $name: i32 = sqlite3ext_sys::$sqlite as i32;)*
        };
    }

    codes! {
        OK = SQLITE_OK;
        ERROR = SQLITE_ERROR;
        INTERNAL = SQLITE_INTERNAL;
        PERM = SQLITE_PERM;
        ABORT = SQLITE_ABORT;
        ABORT_ROLLBACK = SQLITE_ABORT_ROLLBACK;
        BUSY = SQLITE_BUSY;
        BUSY_SNAPSHOT = SQLITE_BUSY_SNAPSHOT;
        BUSY_TIMEOUT = SQLITE_BUSY_TIMEOUT;
        LOCKED = SQLITE_LOCKED;
        LOCKED_SHAREDCACHE = SQLITE_LOCKED_SHAREDCACHE;
        NOMEM = SQLITE_NOMEM;
        READONLY = SQLITE_READONLY;
        READONLY_DBMOVED = SQLITE_READONLY_DBMOVED;
        INTERRUPT = SQLITE_INTERRUPT;
        IOERR = SQLITE_IOERR;
        CORRUPT = SQLITE_CORRUPT;
        CORRUPT_VTAB = SQLITE_CORRUPT_VTAB;
        NOTFOUND = SQLITE_NOTFOUND;
        FULL = SQLITE_FULL;
        CANTOPEN = SQLITE_CANTOPEN;
        PROTOCOL = SQLITE_PROTOCOL;
        SCHEMA = SQLITE_SCHEMA;
        TOOBIG = SQLITE_TOOBIG;
        CONSTRAINT = SQLITE_CONSTRAINT;
        CONSTRAINT_CHECK = SQLITE_CONSTRAINT_CHECK;
        CONSTRAINT_COMMITHOOK = SQLITE_CONSTRAINT_COMMITHOOK;
        CONSTRAINT_DATATYPE = SQLITE_CONSTRAINT_DATATYPE;
        CONSTRAINT_FOREIGNKEY = SQLITE_CONSTRAINT_FOREIGNKEY;
        CONSTRAINT_FUNCTION = SQLITE_CONSTRAINT_FUNCTION;
        CONSTRAINT_NOTNULL = SQLITE_CONSTRAINT_NOTNULL;
        CONSTRAINT_PRIMARYKEY = SQLITE_CONSTRAINT_PRIMARYKEY;
        CONSTRAINT_ROWID = SQLITE_CONSTRAINT_ROWID;
        CONSTRAINT_TRIGGER = SQLITE_CONSTRAINT_TRIGGER;
        CONSTRAINT_UNIQUE = SQLITE_CONSTRAINT_UNIQUE;
        CONSTRAINT_VTAB = SQLITE_CONSTRAINT_VTAB;
        MISMATCH = SQLITE_MISMATCH;
        MISUSE = SQLITE_MISUSE;
        NOLFS = SQLITE_NOLFS;
        AUTH = SQLITE_AUTH;
        RANGE = SQLITE_RANGE;
        NOTADB = SQLITE_NOTADB;
        ROW = SQLITE_ROW;
        DONE = SQLITE_DONE;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_never_a_success() {
        for code in [codes::OK, codes::ROW, codes::DONE] {
            assert_eq!(Error::new(code, "x").code, codes::ERROR);
        }
        let unique = Error::new(codes::CONSTRAINT_UNIQUE, "x");
        assert_eq!((unique.code, unique.primary()), (2067, codes::CONSTRAINT));
    }

    #[test]
    fn a_panic_becomes_an_error_with_its_text() {
        for panic in [|| panic!("literal"), || std::panic::panic_any(7_u8)] {
            let error = guard::<()>(panic).expect_err("the panic");
            assert_eq!(error.code, codes::INTERNAL);
            assert!(error.message.contains("a bug"));
        }
        let number = 5;
        let error = guard::<()>(|| panic!("formatted {number}")).expect_err("the panic");
        assert!(error.message.ends_with("formatted 5"), "{error}");
    }

    #[test]
    fn an_error_without_message_still_says_its_code() {
        assert_eq!(Error::new(codes::BUSY, "").to_string(), "SQLite result code 5");
    }
}
