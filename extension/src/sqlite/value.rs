//! Values as SQLite passes them: borrowed, untyped columns, text as bytes.
//!
//! What it does: read arguments in place, without a copy and without an allocation.
//! What it must never do: convert. A value is read as the type it has, so reading it twice leaves every earlier borrow valid.
//! Invariant: [`Args`] lives no longer than the callback that got it, and SQLite keeps the arguments unchanged until that returns.
#![allow(unsafe_code)]

use super::api::{call, Api};
use sqlite3ext_sys::{self as ffi, sqlite3, sqlite3_value};
use std::ffi::{c_int, c_void};
use std::marker::PhantomData;
use std::ptr;

pub(super) const INTEGER: c_int = ffi::SQLITE_INTEGER as c_int;
pub(super) const FLOAT: c_int = ffi::SQLITE_FLOAT as c_int;
pub(super) const TEXT: c_int = ffi::SQLITE_TEXT as c_int;
pub(super) const BLOB: c_int = ffi::SQLITE_BLOB as c_int;
pub(super) const UTF8: c_int = ffi::SQLITE_UTF8 as c_int;

/// The SQLite that has `sqlite3_value_encoding`.
const VERSION_VALUE_ENCODING: i32 = 3_040_000;

pub use starling_crdt::ValueRef;

/// What the statement around an xUpdate asks to be done about a conflict (`INSERT OR REPLACE`, …), also from within its triggers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Conflict {
    Rollback,
    Ignore,
    Fail,
    Abort,
    Replace,
}

/// The arguments of a function, a filter or an update. Reading beyond the last one answers NULL.
#[derive(Clone, Copy)]
pub struct Args<'a> {
    api: Api,
    values: *const *mut sqlite3_value,
    len: usize,
    /// The connection, if and only if these are the arguments of an xUpdate that is running.
    updating: *mut sqlite3,
    callback: PhantomData<&'a ()>,
}

impl<'a> Args<'a> {
    /// # Safety
    /// `argv` holds `argc` protected values (it may be null if there are none) that stay valid and in place for `'a`.
    #[inline(always)]
    pub(super) unsafe fn new(api: Api, argc: c_int, argv: *mut *mut sqlite3_value) -> Args<'a> {
        let len = if argv.is_null() { 0 } else { usize::try_from(argc).unwrap_or(0) };
        Args { api, values: argv, len, updating: ptr::null_mut(), callback: PhantomData }
    }

    /// The arguments after the first `count`, as those of an xUpdate of `db`.
    ///
    /// # Safety
    /// An xUpdate of `db` is running for all of `'a`.
    #[inline(always)]
    pub(super) unsafe fn of_update(self, count: usize, db: *mut sqlite3) -> Args<'a> {
        let count = count.min(self.len);
        // SAFETY: at most `len` slots further.
        let values = unsafe { self.values.add(count) };
        Args { values, len: self.len - count, updating: db, ..self }
    }

    #[inline(always)]
    fn value(&self, i: usize) -> Option<*mut sqlite3_value> {
        // SAFETY: `i` is one of the `len` values that `new` was given.
        (i < self.len).then(|| unsafe { *self.values.add(i) })
    }

    pub fn len(&self) -> usize {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The argument as the type it has.
    #[inline]
    pub fn get(&self, i: usize) -> ValueRef<'a> {
        let Some(value) = self.value(i) else { return ValueRef::Null };
        // SAFETY: `value` is valid for `'a`.
        unsafe { read(self.api, value) }
    }

    /// The argument as SQLite converts it to an integer (NULL is 0), in one call.
    #[inline]
    pub fn int(&self, i: usize) -> i64 {
        match self.value(i) {
            // SAFETY: a valid value; reading it as an integer changes nothing in it.
            Some(value) => unsafe { call!(self.api, value_int64(value)) },
            None => 0,
        }
    }

    #[inline]
    pub fn is_null(&self, i: usize) -> bool {
        match self.value(i) {
            // SAFETY: a valid value.
            Some(value) => unsafe { call!(self.api, value_type(value)) == ffi::SQLITE_NULL as c_int },
            None => true,
        }
    }

    /// Whether an UPDATE leaves this column alone. Only a column for which `ColumnOut::nochange` was true and nothing was set says so.
    pub fn nochange(&self, i: usize) -> bool {
        match self.value(i) {
            // SAFETY: a valid value.
            Some(value) => unsafe { call!(self.api, value_nochange(value)) != 0 },
            None => false,
        }
    }

    /// The conflict policy of the running statement, where these are the values of an xUpdate; elsewhere `Abort`, SQLite's default.
    /// (It is here and not on `Db`, because outside an xUpdate SQLite reads before the start of an array to answer it.)
    #[inline]
    pub fn on_conflict(&self) -> Conflict {
        if self.updating.is_null() {
            return Conflict::Abort;
        }
        // SAFETY: `updating` is set only while an xUpdate of that connection runs.
        match unsafe { call!(self.api, vtab_on_conflict(self.updating)) } as u32 {
            ffi::SQLITE_ROLLBACK => Conflict::Rollback,
            ffi::SQLITE_IGNORE => Conflict::Ignore,
            ffi::SQLITE_FAIL => Conflict::Fail,
            ffi::SQLITE_REPLACE => Conflict::Replace,
            _ => Conflict::Abort,
        }
    }
}

/// A value as the type it has.
///
/// # Safety
/// `value` is valid for `'a`, and the connection's mutex is held, or the connection is nobody else's.
#[inline]
pub(super) unsafe fn read<'a>(api: Api, value: *mut sqlite3_value) -> ValueRef<'a> {
    // SAFETY: `value` is valid for `'a`. Each type is read by its own routine, so SQLite converts nothing that an earlier borrow needs
    // (UTF-16 text becomes UTF-8 on the first reading, and stays so). The length is asked for after the pointer, as SQLite wants it.
    unsafe {
        match call!(api, value_type(value)) {
            INTEGER => ValueRef::Integer(call!(api, value_int64(value))),
            FLOAT => ValueRef::Real(call!(api, value_double(value))),
            TEXT => ValueRef::Text(text(api, value)),
            BLOB => {
                let blob = call!(api, value_blob(value));
                ValueRef::Blob(bytes(blob, call!(api, value_bytes(value))))
            }
            _ => ValueRef::Null,
        }
    }
}

/// The bytes of a text. What SQLite calls its text ends in a NUL, for which most texts must be copied first; the same bytes asked for
/// as a blob are those that are there, where they are UTF-8. (Asking so leaves it a text: SQLite only notes that it may be read so.)
///
/// # Safety
/// `value` is a valid value of type TEXT, which stays unchanged for `'a`.
#[inline]
unsafe fn text<'a>(api: Api, value: *mut sqlite3_value) -> &'a [u8] {
    // SAFETY: the caller's promise; the version says that the table reaches as far as `value_encoding`. The length is asked for after the
    // pointer, as SQLite wants it.
    unsafe {
        let encoding = if api.version() >= VERSION_VALUE_ENCODING { (*api.routines()).value_encoding } else { None };
        let start = match encoding {
            Some(encoding) if encoding(value) == UTF8 => call!(api, value_blob(value)),
            _ => call!(api, value_text(value)).cast(),
        };
        bytes(start, call!(api, value_bytes(value)))
    }
}

/// The bytes that SQLite points at: for a zero length it may point nowhere, which is no Rust slice.
///
/// # Safety
/// `start` is null or `len` bytes that stay unchanged for `'a`.
#[inline(always)]
pub(super) unsafe fn bytes<'a>(start: *const c_void, len: c_int) -> &'a [u8] {
    match usize::try_from(len) {
        // SAFETY: not null and not empty; the caller vouches for the rest.
        Ok(len) if len > 0 && !start.is_null() => unsafe { std::slice::from_raw_parts(start.cast(), len) },
        _ => &[],
    }
}

/// Where SQLite may read these bytes from. Never null, which would say NULL instead of "empty", and for no bytes a readable NUL.
#[inline(always)]
pub(super) fn start_of(bytes: &[u8]) -> *const u8 {
    if bytes.is_empty() {
        return c"".as_ptr().cast();
    }
    bytes.as_ptr()
}

/// `SQLITE_STATIC`: SQLite reads the bytes where they are, as long as they are bound.
#[inline(always)]
pub(super) const fn lent() -> ffi::sqlite3_destructor_type {
    None
}

/// `SQLITE_TRANSIENT`: SQLite copies the bytes before the call returns.
#[inline(always)]
pub(super) fn transient() -> ffi::sqlite3_destructor_type {
    // SAFETY: a function pointer may hold any value but null; SQLite compares this one and never calls it.
    unsafe { std::mem::transmute::<isize, ffi::sqlite3_destructor_type>(-1) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_an_empty_slice_and_never_null() {
        let three = [1_u8, 2, 3];
        // SAFETY: null, or no more than the three bytes.
        unsafe {
            assert_eq!(bytes(ptr::null(), 0), b"");
            assert_eq!(bytes(ptr::null(), 3), b"");
            assert_eq!(bytes(three.as_ptr().cast(), -1), b"");
            assert_eq!(bytes(three.as_ptr().cast(), 3), three);
            // What SQLite may read for "no bytes" is a NUL.
            assert_eq!(*start_of(&[]), 0);
        }
    }

    #[test]
    fn only_text_and_blobs_have_bytes() {
        assert_eq!(ValueRef::Text(b"t").bytes(), b"t");
        assert_eq!(ValueRef::Blob(b"b").bytes(), b"b");
        for other in [ValueRef::Null, ValueRef::Integer(5), ValueRef::Real(0.5)] {
            assert_eq!(other.bytes(), b"");
        }
    }
}
