//! Scalar SQL functions.
//!
//! What it does: register a plain `fn` with its aux, which SQLite drops with the connection.
//! What it must never do: keep state in a global, or let a panic out.
//! Invariant: the user data of such a function is a `Registered<A>`, made here and freed by `destroy::<A>` only.
#![allow(unsafe_code)]

use super::api::{call, Api, LIBRARIES};
use super::db::Db;
use super::error::{codes, guard, Error, Result};
use super::output::{ColumnOut, Output};
use super::value::{Args, UTF8};
use sqlite3ext_sys::{self as ffi, sqlite3_context, sqlite3_value};
use std::ffi::{c_int, c_void, CStr};
use std::ops::BitOr;

/// What SQLite may assume of a function.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FunctionFlags(c_int);

impl FunctionFlags {
    pub const NONE: FunctionFlags = FunctionFlags(0);
    /// Harmless, so triggers and views may call it even where the schema is not trusted.
    pub const INNOCUOUS: FunctionFlags = FunctionFlags(ffi::SQLITE_INNOCUOUS as c_int);
    /// For SQL that the application itself sends: triggers, views and the schema may not call it.
    pub const DIRECTONLY: FunctionFlags = FunctionFlags(ffi::SQLITE_DIRECTONLY as c_int);
    /// Equal arguments give an equal result.
    pub const DETERMINISTIC: FunctionFlags = FunctionFlags(ffi::SQLITE_DETERMINISTIC as c_int);
}

impl BitOr for FunctionFlags {
    type Output = FunctionFlags;

    fn bitor(self, other: FunctionFlags) -> FunctionFlags {
        FunctionFlags(self.0 | other.0)
    }
}

/// How many arguments a function takes, from and to. One that takes more than one number of them is one function to SQLite, which
/// asks more of registering each than of all that it does when it is called.
pub type Arity = (i32, i32);

type Body<A> = fn(&A, Db, &Args<'_>) -> Result<Output>;

struct Registered<A> {
    db: Db,
    aux: A,
    body: Body<A>,
    name: &'static CStr,
    arity: Arity,
}

/// Registers `body` as the SQL function `name` of so many arguments.
pub fn create_function<A: Clone + 'static>(
    db: Db,
    name: &'static CStr,
    arity: Arity,
    flags: FunctionFlags,
    aux: A,
    body: Body<A>,
) -> Result<()> {
    let data = Box::into_raw(Box::new(Registered { db, aux, body, name, arity }));
    let n_args = if arity.0 == arity.1 { arity.0 } else { -1 };
    // SAFETY: an open connection and a C string. SQLite owns `data` from here on, also if this fails: it calls `destroy` then too.
    let rc = unsafe {
        call!(
            db.api,
            create_function_v2(
                db.db,
                name.as_ptr(),
                n_args,
                UTF8 | flags.0,
                data.cast(),
                Some(run_of::<A>(db.api.place())),
                None,
                None,
                Some(destroy::<A>),
            )
        )
    };
    if rc == codes::OK {
        return Ok(());
    }
    let why = db.error(rc);
    Err(Error::new(why.code, format!("cannot create the function {}: {why}", name.to_string_lossy())))
}

type Run = unsafe extern "C" fn(*mut sqlite3_context, c_int, *mut *mut sqlite3_value);

/// What runs the functions of the library at a place.
fn run_of<A: 'static>(place: usize) -> Run {
    let all: [Run; LIBRARIES] = [run::<A, 0>, run::<A, 1>, run::<A, 2>, run::<A, 3>];
    all.get(place).copied().unwrap_or(run::<A, { LIBRARIES - 1 }>)
}

/// # Safety
/// SQLite calls it, for a function that `create_function::<A>` registered with the library at `PLACE`.
unsafe extern "C" fn run<A: 'static, const PLACE: usize>(
    context: *mut sqlite3_context,
    argc: c_int,
    argv: *mut *mut sqlite3_value,
) {
    let Some(api) = Api::at(PLACE) else { return };
    // SAFETY: the user data of this function is a `Registered<A>`, which SQLite frees (by `destroy`) only when no call is running. It is
    // only read, also where a call of the function runs SQL that calls it again.
    let Registered { db, aux, body, name, arity } = unsafe { &*call!(api, user_data(context)).cast::<Registered<A>>() };
    // SAFETY: SQLite keeps the context and the arguments until this function returns.
    let (args, mut out) = unsafe { (Args::new(db.api, argc, argv), ColumnOut::new(db.api, context)) };
    let run = || {
        if argc < arity.0 || argc > arity.1 {
            let name = name.to_string_lossy();
            return Err(Error::msg(format!("wrong number of arguments to function {name}()")));
        }
        body(aux, *db, &args)
    };
    match guard(run) {
        Ok(output) => out.set_value(output.as_value()),
        Err(error) => out.set_error(&error),
    }
}

/// # Safety
/// SQLite calls it once for the data of `create_function::<A>`, after the last call of the function.
unsafe extern "C" fn destroy<A>(data: *mut c_void) {
    // SAFETY: made by `Box::into_raw` in `create_function`, and freed only here.
    let data = unsafe { Box::from_raw(data.cast::<Registered<A>>()) };
    // There is nobody to tell; what matters is that a panic in a drop stays here.
    let _ = guard(|| {
        drop(data);
        Ok(())
    });
}
