//! The entry points that SQLite calls when it loads the extension or opens a connection.
//!
//! What it does: check the host, then hand the connection to `crate::register`.
//! What it must never do: answer anything but OK when it worked (`SQLITE_OK_LOAD_PERMANENTLY` fails every open as an auto-extension).
//! Invariant: a failure leaves its text in `*pzErrMsg`, in SQLite's memory, and the code is returned.
#![allow(unsafe_code)]

use super::api::{owned_text, Api};
use super::db::Db;
use super::error::{codes, guard, Result};
use sqlite3ext_sys::{sqlite3, sqlite3_api_routines};
use sqlite_loadable::entrypoints::register_entrypoint;
use std::ffi::{c_char, c_int, c_void};
use std::ptr;
use std::sync::{Mutex, PoisonError};

/// An entry point with types that belong to no bindings crate: `sqlite3_auto_extension` of any of them takes it after a cast.
pub type EntryPoint = unsafe extern "C" fn(*mut c_void, *mut *mut c_char, *const c_void) -> c_int;

/// The entry point for a program that links the extension, to be passed to `sqlite3_auto_extension`.
pub fn auto_extension_entry() -> EntryPoint {
    auto_entry
}

/// `load_extension('…')` of a file of any name.
///
/// # Safety
/// SQLite calls it.
#[no_mangle]
pub unsafe extern "C" fn sqlite3_extension_init(
    db: *mut sqlite3,
    message: *mut *mut c_char,
    routines: *mut sqlite3_api_routines,
) -> c_int {
    // SAFETY: SQLite's own arguments.
    unsafe { enter(db, message, routines, crate::register) }
}

/// `load_extension('…/starling')`: SQLite derives the name from the file's.
///
/// # Safety
/// SQLite calls it.
#[no_mangle]
pub unsafe extern "C" fn sqlite3_starling_init(
    db: *mut sqlite3,
    message: *mut *mut c_char,
    routines: *mut sqlite3_api_routines,
) -> c_int {
    // SAFETY: SQLite's own arguments.
    unsafe { enter(db, message, routines, crate::register) }
}

/// `load_extension('…/crsqlite')`, and programs that name cr-sqlite's entry point.
///
/// # Safety
/// SQLite calls it.
#[no_mangle]
pub unsafe extern "C" fn sqlite3_crsqlite_init(
    db: *mut sqlite3,
    message: *mut *mut c_char,
    routines: *mut sqlite3_api_routines,
) -> c_int {
    // SAFETY: SQLite's own arguments.
    unsafe { enter(db, message, routines, crate::register) }
}

/// `load_extension('…', 'starling_as_it_is')`: for a file that may be a copy, and gets a name of its own next ([`crate::as_it_is`]).
///
/// # Safety
/// SQLite calls it.
#[no_mangle]
pub unsafe extern "C" fn starling_as_it_is(
    db: *mut sqlite3,
    message: *mut *mut c_char,
    routines: *mut sqlite3_api_routines,
) -> c_int {
    // SAFETY: SQLite's own arguments.
    unsafe { enter(db, message, routines, |db| crate::as_it_is(|| crate::register(db))) }
}

/// # Safety
/// SQLite calls it, as an auto-extension.
unsafe extern "C" fn auto_entry(db: *mut c_void, message: *mut *mut c_char, routines: *const c_void) -> c_int {
    // SAFETY: SQLite's own arguments, under other names.
    unsafe { enter(db.cast(), message, routines.cast_mut().cast(), crate::register) }
}

/// # Safety
/// `db` is an open connection of the library whose routines `routines` is, `message` is null or a place for a pointer.
unsafe fn enter(
    db: *mut sqlite3,
    message: *mut *mut c_char,
    routines: *mut sqlite3_api_routines,
    init: fn(Db) -> Result<()>,
) -> c_int {
    if !message.is_null() {
        // SAFETY: not null, so it is a place for a pointer.
        unsafe { message.write(ptr::null_mut()) };
    }
    let entered = guard(|| {
        introduce(db, message, routines);
        // SAFETY: the caller's promise.
        unsafe { Api::check(routines) }
    });
    // SAFETY: the caller's promise; what `init` keeps of the handle, SQLite destroys with the connection.
    let result = entered.and_then(|api| guard(|| init(unsafe { Db::new(db, api) })));
    let Err(error) = result else { return codes::OK };
    if !message.is_null() && !routines.is_null() {
        // SAFETY: the table of a SQLite library, also if it was refused, and a place for a pointer.
        unsafe { message.write(owned_text(routines, &error.to_string())) };
    }
    error.code
}

/// Gives sqlite-loadable the table of routines. It keeps it in a plain static, so one thread at a time.
fn introduce(db: *mut sqlite3, message: *mut *mut c_char, routines: *mut sqlite3_api_routines) {
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _lock = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    register_entrypoint(db, message, routines, |_| Ok(()));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sqlite::Error;

    #[test]
    fn a_host_without_a_table_is_refused_with_a_code() {
        let mut message = ptr::dangling_mut::<c_char>();
        // SAFETY: no connection is touched, because no table of routines comes; the place for the message is one.
        let code = unsafe { enter(ptr::null_mut(), &mut message, ptr::null_mut(), |_| Err(Error::msg("not reached"))) };
        assert_eq!(code, codes::ERROR);
        assert!(message.is_null());
        // SAFETY: as above; no place for a message is a legal call too.
        let code = unsafe { enter(ptr::null_mut(), ptr::null_mut(), ptr::null_mut(), |_| Ok(())) };
        assert_eq!(code, codes::ERROR);
    }
}
