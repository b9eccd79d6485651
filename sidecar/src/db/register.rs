//! The one place that touches C: the extension is registered with the SQLite in this binary, so that every connection has it.
#![allow(unsafe_code)]

use crate::limits::SQLITE_MEMORY;
use rusqlite::ffi;
use std::ffi::{c_char, c_int, c_void};
use std::sync::OnceLock;

/// The extension's entry as the extension crate, which does not know this SQLite's types, declares it.
type Entry = unsafe extern "C" fn(*mut c_void, *mut *mut c_char, *const c_void) -> c_int;

static RESULT: OnceLock<c_int> = OnceLock::new();

/// Registers the extension for all connections opened from now on in this process. Further calls do nothing.
///
/// # Errors
/// SQLite's result code.
pub fn register() -> Result<(), c_int> {
    let result = *RESULT.get_or_init(|| {
        let entry: Entry = starling_extension::auto_extension_entry();
        // SAFETY: both types are `extern "C"` functions of three pointers and a c_int; SQLite calls the entry with exactly
        // these pointers, the last of which is its routine table for the extension's eyes only.
        let entry = unsafe { std::mem::transmute::<Entry, rusqlite::auto_extension::RawAutoExtension>(entry) };
        // SAFETY: it takes a number and sets a limit of the library.
        unsafe { ffi::sqlite3_hard_heap_limit64(SQLITE_MEMORY) };
        // SAFETY: the entry opens no database and does not change the list of automatic extensions.
        unsafe { ffi::sqlite3_auto_extension(Some(entry)) }
    });
    if result == ffi::SQLITE_OK {
        Ok(())
    } else {
        Err(result)
    }
}
