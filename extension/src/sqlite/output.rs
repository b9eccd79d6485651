//! Results that go to SQLite: of scalar functions and of columns.
//!
//! What it does: set the result of one context, straight through `sqlite3_result_*`.
//! What it must never do: give SQLite memory of Rust's to free. SQLite copies text and blobs.
//! Invariant: a context is set only during the callback that got it.
#![allow(unsafe_code)]

use super::api::{call, Api};
use super::error::{codes, Error};
use super::value::{start_of, transient, ValueRef, UTF8};
use sqlite3ext_sys::sqlite3_context;
use std::ffi::c_int;
use std::marker::PhantomData;

/// The result of a scalar function.
#[derive(Clone, Debug, PartialEq)]
pub enum Output {
    Null,
    Integer(i64),
    Real(f64),
    Text(String),
    /// Text that need not be valid UTF-8, as SQLite's own.
    TextBytes(Vec<u8>),
    Blob(Vec<u8>),
}

impl Output {
    pub(super) fn as_value(&self) -> ValueRef<'_> {
        match self {
            Output::Null => ValueRef::Null,
            Output::Integer(value) => ValueRef::Integer(*value),
            Output::Real(value) => ValueRef::Real(*value),
            Output::Text(text) => ValueRef::Text(text.as_bytes()),
            Output::TextBytes(text) => ValueRef::Text(text),
            Output::Blob(blob) => ValueRef::Blob(blob),
        }
    }
}

/// Where the value of one column of one row goes. What nothing is set for is NULL.
pub struct ColumnOut<'a> {
    api: Api,
    context: *mut sqlite3_context,
    callback: PhantomData<&'a mut ()>,
}

impl ColumnOut<'_> {
    /// # Safety
    /// `context` is that of a callback that runs for as long as the value returned.
    #[inline(always)]
    pub(super) unsafe fn new(api: Api, context: *mut sqlite3_context) -> Self {
        ColumnOut { api, context, callback: PhantomData }
    }

    pub fn set_null(&mut self) {
        // SAFETY: the context is valid while `self` is.
        unsafe { call!(self.api, result_null(self.context)) }
    }

    #[inline]
    pub fn set_int(&mut self, value: i64) {
        // SAFETY: as above.
        unsafe { call!(self.api, result_int64(self.context, value)) }
    }

    pub fn set_real(&mut self, value: f64) {
        // SAFETY: as above.
        unsafe { call!(self.api, result_double(self.context, value)) }
    }

    #[inline]
    pub fn set_text(&mut self, text: impl AsRef<[u8]>) {
        let text = text.as_ref();
        // SAFETY: SQLite copies `len` readable bytes before it returns.
        unsafe {
            call!(
                self.api,
                result_text64(self.context, start_of(text).cast(), text.len() as u64, transient(), UTF8 as u8)
            )
        }
    }

    #[inline]
    pub fn set_blob(&mut self, blob: impl AsRef<[u8]>) {
        let blob = blob.as_ref();
        // SAFETY: SQLite copies `len` readable bytes before it returns.
        unsafe { call!(self.api, result_blob64(self.context, start_of(blob).cast(), blob.len() as u64, transient())) }
    }

    #[inline]
    pub fn set_value(&mut self, value: ValueRef<'_>) {
        match value {
            ValueRef::Null => self.set_null(),
            ValueRef::Integer(value) => self.set_int(value),
            ValueRef::Real(value) => self.set_real(value),
            ValueRef::Text(text) => self.set_text(text),
            ValueRef::Blob(blob) => self.set_blob(blob),
        }
    }

    /// Whether this column is read only to fill in a column that an UPDATE leaves alone: then nothing need be set.
    pub fn nochange(&self) -> bool {
        // SAFETY: the context is valid while `self` is.
        unsafe { call!(self.api, vtab_nochange(self.context)) != 0 }
    }

    /// Makes the callback fail. The message comes first: setting the code keeps a message that is there.
    pub(super) fn set_error(&mut self, error: &Error) {
        let message = if error.message.is_empty() { self.api.describe(error.code) } else { error.message.clone() };
        let len = c_int::try_from(message.len()).unwrap_or(c_int::MAX);
        // SAFETY: SQLite copies `len` readable bytes before it returns, and takes any code.
        unsafe {
            if error.primary() == codes::NOMEM {
                call!(self.api, result_error_nomem(self.context));
                return;
            }
            call!(self.api, result_error(self.context, start_of(message.as_bytes()).cast(), len));
            call!(self.api, result_error_code(self.context, error.code));
        }
    }
}
