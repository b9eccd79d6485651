//! Types, constants and the `sqlite3_api_routines` table of SQLite's `sqlite3ext.h`.
//!
//! It replaces the published `sqlite3ext-sys`, which runs bindgen (libclang) and compiles a SQLite of its own.
//! It must never link a SQLite: it declares no `extern fn`, so every call goes through the table of function pointers that
//! the host passes to the entry point. `README.md` has the command that wrote `bindings.rs`; nobody edits that file.
#![no_std]
#![allow(non_upper_case_globals, non_camel_case_types, non_snake_case, unsafe_code)]

#[rustfmt::skip]
#[allow(clippy::all)] // generated
mod bindings;

pub use bindings::*;

#[cfg(test)]
mod tests {
    use super::*;
    use core::mem::{offset_of, size_of};

    /// `sqlite3_api_routines` only ever grows at its end, so a slot's index is part of SQLite's ABI.
    #[test]
    fn the_api_table_is_an_array_of_pointers_in_the_published_order() {
        let slot = size_of::<usize>();
        assert_eq!(offset_of!(sqlite3_api_routines, aggregate_context), 0);
        assert_eq!(offset_of!(sqlite3_api_routines, aggregate_count), slot);
        assert_eq!(offset_of!(sqlite3_api_routines, value_encoding), size_of::<sqlite3_api_routines>() - slot);
        assert_eq!(size_of::<sqlite3_api_routines>() % slot, 0);
    }

    #[test]
    fn the_header_is_the_one_the_readme_names() {
        assert_eq!(SQLITE_VERSION_NUMBER, 3_040_001);
        assert_eq!(SQLITE_OK, 0);
    }
}
