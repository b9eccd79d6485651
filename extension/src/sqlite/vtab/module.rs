//! The C callbacks of a virtual table, one `sqlite3_module` for each Rust type.
//!
//! What it does: turn each callback into one typed call of [`VTab`] or [`VTabCursor`], and its `Result` into a code and a message.
//! What it must never do: allocate, format or look anything up on the way to `update`, which runs once per row written.
//! Invariant: a `sqlite3_vtab` of this module is the head of a `Table<T>` from connect to disconnect, a `sqlite3_vtab_cursor` that of a
//! `Cursor<T>` from open to close; SQLite closes the cursors first, and calls nothing after either.
#![allow(unsafe_code)]

use super::super::api::{call, Api};
use super::super::db::Db;
use super::super::error::{codes, guard, Error, Result};
use super::super::output::ColumnOut;
use super::super::value::Args;
use super::{Change, IndexInfo, Risk, VTab, VTabCursor};
use sqlite3ext_sys::{
    self as ffi, sqlite3, sqlite3_context, sqlite3_index_info, sqlite3_int64, sqlite3_module, sqlite3_value,
    sqlite3_vtab, sqlite3_vtab_cursor,
};
use std::cell::Cell;
use std::ffi::{c_char, c_int, c_void, CStr, CString};
use std::marker::PhantomData;
use std::mem::MaybeUninit;
use std::ptr;

/// What SQLite holds of a table. SQLite itself writes to `head`, so a reference is only ever made to the other fields.
#[repr(C)]
struct Table<T: VTab> {
    head: sqlite3_vtab,
    db: Db,
    table: T,
    /// Where a cursor was. A statement that tells a touch opens one for each row that it writes.
    spare: Cell<Option<Room<T::Cursor>>>,
}

/// Memory for a cursor.
type Room<C> = Box<MaybeUninit<Cursor<C>>>;

/// What SQLite holds of a cursor.
#[repr(C)]
struct Cursor<C> {
    head: sqlite3_vtab_cursor,
    /// `eof` panicked. It has no code to answer, so the next callback (there is always one, as it said "not yet") tells.
    broken: bool,
    cursor: C,
}

/// The aux of a module.
struct Registered<A> {
    api: Api,
    aux: A,
}

/// Registers `T` as the eponymous virtual table `name`.
pub fn create_module<T: VTab>(db: Db, name: &CStr, aux: T::Aux) -> Result<()> {
    let data = Box::into_raw(Box::new(Registered { api: db.api, aux }));
    let module: &'static sqlite3_module = Callbacks::<T>::MODULE;
    // SAFETY: an open connection, a C string and a constant. SQLite owns `data` from here on, also if this fails: it calls `destroy`.
    let rc =
        unsafe { call!(db.api, create_module_v2(db.db, name.as_ptr(), module, data.cast(), Some(destroy::<T::Aux>))) };
    if rc == codes::OK {
        return Ok(());
    }
    let why = db.error(rc);
    Err(Error::new(why.code, format!("cannot create the virtual table {}: {why}", name.to_string_lossy())))
}

struct Callbacks<T>(PhantomData<T>);

impl<T: VTab> Callbacks<T> {
    const MODULE: &'static sqlite3_module = &sqlite3_module {
        iVersion: 2,
        xCreate: None, // eponymous only
        xConnect: Some(connect::<T>),
        xBestIndex: Some(best_index::<T>),
        xDisconnect: Some(disconnect::<T>),
        xDestroy: None,
        xOpen: Some(open::<T>),
        xClose: Some(close::<T>),
        xFilter: Some(filter::<T>),
        xNext: Some(next::<T>),
        xEof: Some(eof::<T>),
        xColumn: Some(column::<T>),
        xRowid: Some(rowid::<T>),
        xUpdate: if T::WRITABLE { Some(update::<T>) } else { None },
        xBegin: if T::TRANSACTIONAL { Some(begin::<T>) } else { None },
        xSync: if T::TRANSACTIONAL { Some(sync::<T>) } else { None },
        xCommit: if T::TRANSACTIONAL { Some(commit::<T>) } else { None },
        xRollback: if T::TRANSACTIONAL { Some(rollback::<T>) } else { None },
        xFindFunction: None,
        xRename: None,
        xSavepoint: if T::TRANSACTIONAL { Some(savepoint::<T>) } else { None },
        xRelease: if T::TRANSACTIONAL { Some(release::<T>) } else { None },
        xRollbackTo: if T::TRANSACTIONAL { Some(rollback_to::<T>) } else { None },
        xShadowName: None,
    };
}

/// The one place where the result of a table's callback becomes a code, and its message the table's (SQLite takes it from there).
///
/// # Safety
/// `vtab` is the head of a `Table` of any type.
#[inline(always)]
unsafe fn finish(api: Api, vtab: *mut sqlite3_vtab, result: Result<()>) -> c_int {
    match result {
        Ok(()) => codes::OK,
        // SAFETY: the caller's promise.
        Err(error) => unsafe { fail(api, vtab, &error) },
    }
}

/// # Safety
/// As for `finish`.
#[cold]
unsafe fn fail(api: Api, vtab: *mut sqlite3_vtab, error: &Error) -> c_int {
    // SAFETY: SQLite and this function are the only ones to touch `zErrMsg`, which is null or SQLite's memory.
    unsafe {
        call!(api, free((*vtab).zErrMsg.cast()));
        (*vtab).zErrMsg = ptr::null_mut();
        if !error.message.is_empty() {
            (*vtab).zErrMsg = api.owned_text(&error.message);
        }
    }
    error.code
}

/// The table behind the pointer that SQLite holds, and its connection.
///
/// # Safety
/// `vtab` is the head of a `Table<T>`, and stays so for `'a`.
#[inline(always)]
unsafe fn table_of<'a, T: VTab>(vtab: *mut sqlite3_vtab) -> (&'a T, Db) {
    let whole = vtab.cast::<Table<T>>();
    // SAFETY: the caller's promise. Tables are only lent as `&`, so a nested callback may lend it again.
    unsafe { (&(*whole).table, (*whole).db) }
}

/// One call of a table's method.
///
/// # Safety
/// SQLite calls with a table of this module.
#[inline(always)]
unsafe fn with_table<T: VTab>(vtab: *mut sqlite3_vtab, work: impl FnOnce(&T, Db) -> Result<()>) -> c_int {
    // SAFETY: SQLite holds the table until the callback returns.
    unsafe {
        let (table, db) = table_of::<T>(vtab);
        finish(db.api, vtab, guard(|| work(table, db)))
    }
}

/// One call of a cursor's method.
///
/// # Safety
/// SQLite calls with a cursor of this module.
#[inline(always)]
unsafe fn with_cursor<T: VTab>(
    cursor: *mut sqlite3_vtab_cursor,
    work: impl FnOnce(&mut T::Cursor, &T, Db) -> Result<()>,
) -> c_int {
    let whole = cursor.cast::<Cursor<T::Cursor>>();
    // SAFETY: SQLite holds the cursor and its table until the callback returns, and enters no cursor twice at once: only the statement that
    // opened it does, and that one is running.
    unsafe {
        let vtab = (*whole).head.pVtab;
        let (table, db) = table_of::<T>(vtab);
        if (*whole).broken {
            return fail(db.api, vtab, &Error::new(codes::INTERNAL, "starling: a bug, please report it: eof failed"));
        }
        let cursor = &mut (*whole).cursor;
        finish(db.api, vtab, guard(|| work(cursor, table, db)))
    }
}

unsafe extern "C" fn connect<T: VTab>(
    db: *mut sqlite3,
    data: *mut c_void,
    _argc: c_int,
    _argv: *const *const c_char,
    place: *mut *mut sqlite3_vtab,
    message: *mut *mut c_char,
) -> c_int {
    // SAFETY: the data that `create_module` gave; SQLite frees it after the last table is gone.
    let Registered { api, aux } = unsafe { &*data.cast::<Registered<T::Aux>>() };
    // SAFETY: SQLite calls with an open connection of the library that the module was registered with.
    let db = unsafe { Db::new(db, *api) };
    let connected = guard(|| {
        let (declaration, table) = T::connect(db, aux)?;
        declare(db, &declaration, T::WRITABLE, T::RISK)?;
        let head = sqlite3_vtab { pModule: ptr::null(), nRef: 0, zErrMsg: ptr::null_mut() };
        Ok(Box::into_raw(Box::new(Table { head, db, table, spare: Cell::new(None) })))
    });
    match connected {
        Ok(table) => {
            // SAFETY: SQLite's place for the result.
            unsafe { place.write(table.cast()) };
            codes::OK
        }
        Err(error) => {
            // SAFETY: SQLite's place for a message, which it frees.
            unsafe { message.write(api.owned_text(&error.to_string())) };
            error.code
        }
    }
}

/// Tells SQLite the columns of the table that is being connected, and what it may be used for.
fn declare(db: Db, declaration: &str, writable: bool, risk: Risk) -> Result<()> {
    let sql =
        CString::new(declaration).map_err(|_| Error::msg("the declaration of a virtual table has a NUL in it"))?;
    // SAFETY: an open connection that is within xConnect, and a C string.
    let rc = unsafe { call!(db.api, declare_vtab(db.db, sql.as_ptr())) };
    if rc != codes::OK {
        return Err(db.error(rc));
    }
    // SAFETY: a slot of SQLite 3.7, within every table that was accepted.
    let Some(vtab_config) = (unsafe { (*db.api.routines()).vtab_config }) else { return Ok(()) };
    // SAFETY: an open connection that is within xConnect; this option takes one int, the other two take nothing.
    let rc = unsafe {
        let constraints = vtab_config(db.db, ffi::SQLITE_VTAB_CONSTRAINT_SUPPORT as c_int, c_int::from(writable));
        let trust = match risk {
            Risk::Innocuous => vtab_config(db.db, ffi::SQLITE_VTAB_INNOCUOUS as c_int),
            Risk::Normal => codes::OK,
            Risk::DirectOnly => vtab_config(db.db, ffi::SQLITE_VTAB_DIRECTONLY as c_int),
        };
        constraints.max(trust)
    };
    match rc {
        codes::OK => Ok(()),
        rc => Err(Error::new(rc, "SQLite cannot configure the virtual table")),
    }
}

unsafe extern "C" fn disconnect<T: VTab>(vtab: *mut sqlite3_vtab) -> c_int {
    // SAFETY: SQLite calls with a table of this module.
    unsafe {
        with_table::<T>(vtab, |table, _| {
            table.disconnect();
            Ok(())
        });
        let api = table_of::<T>(vtab).1.api;
        call!(api, free((*vtab).zErrMsg.cast()));
        release_box(vtab.cast::<Table<T>>());
    }
    // Whatever happened, the table is gone: an error here would make SQLite believe that it is not.
    codes::OK
}

/// # Safety
/// `pointer` comes from `Box::into_raw` and is used by nobody after this.
unsafe fn release_box<B>(pointer: *mut B) {
    // SAFETY: the caller's promise.
    let owned = unsafe { Box::from_raw(pointer) };
    // There is nobody to tell; what matters is that a panic in a drop stays here.
    let _ = guard(|| {
        drop(owned);
        Ok(())
    });
}

unsafe extern "C" fn destroy<A>(data: *mut c_void) {
    // SAFETY: made in `create_module`; SQLite calls this once, after the last table is gone.
    unsafe { release_box(data.cast::<Registered<A>>()) }
}

unsafe extern "C" fn best_index<T: VTab>(vtab: *mut sqlite3_vtab, info: *mut sqlite3_index_info) -> c_int {
    // SAFETY: SQLite calls with a table of this module, and a question that is ours alone until this returns.
    unsafe {
        with_table::<T>(vtab, |table, db| {
            let mut info = IndexInfo::new(&mut *info);
            table.best_index(&mut info)?;
            info.finish(db.api)
        })
    }
}

unsafe extern "C" fn open<T: VTab>(vtab: *mut sqlite3_vtab, place: *mut *mut sqlite3_vtab_cursor) -> c_int {
    // SAFETY: SQLite calls with a table of this module and a place for the result.
    unsafe {
        with_table::<T>(vtab, |table, _| {
            let cursor = table.open()?;
            let head = sqlite3_vtab_cursor { pVtab: vtab };
            let mut room = (*vtab.cast::<Table<T>>()).spare.take().unwrap_or_else(Box::new_uninit);
            room.write(Cursor { head, broken: false, cursor });
            place.write(Box::into_raw(room).cast());
            Ok(())
        })
    }
}

unsafe extern "C" fn close<T: VTab>(cursor: *mut sqlite3_vtab_cursor) -> c_int {
    let whole = cursor.cast::<Cursor<T::Cursor>>();
    // SAFETY: SQLite calls with a cursor of this module, for the last time, and holds its table. What `open` wrote is dropped here and
    // nowhere else; then its place, which is a box, is memory again.
    unsafe {
        let table = (*whole).head.pVtab.cast::<Table<T>>();
        // There is nobody to tell; what matters is that a panic in a drop stays here.
        let _ = guard(|| {
            ptr::drop_in_place(whole);
            Ok(())
        });
        (*table).spare.set(Some(Room::from_raw(whole.cast())));
    }
    codes::OK
}

unsafe extern "C" fn filter<T: VTab>(
    cursor: *mut sqlite3_vtab_cursor,
    number: c_int,
    text: *const c_char,
    argc: c_int,
    argv: *mut *mut sqlite3_value,
) -> c_int {
    // SAFETY: SQLite calls with a cursor of this module, the string that `best_index` gave, and arguments that stay until this returns.
    unsafe {
        with_cursor::<T>(cursor, |cursor, table, db| {
            let text = if text.is_null() { c"" } else { CStr::from_ptr(text) };
            let text = text.to_str().map_err(|_| Error::msg("an index string is not UTF-8"))?;
            cursor.filter(table, number, text, &Args::new(db.api, argc, argv))
        })
    }
}

unsafe extern "C" fn next<T: VTab>(cursor: *mut sqlite3_vtab_cursor) -> c_int {
    // SAFETY: SQLite calls with a cursor of this module.
    unsafe { with_cursor::<T>(cursor, |cursor, table, _| cursor.next(table)) }
}

unsafe extern "C" fn eof<T: VTab>(cursor: *mut sqlite3_vtab_cursor) -> c_int {
    let mut eof = false;
    // SAFETY: SQLite calls with a cursor of this module.
    unsafe {
        let code = with_cursor::<T>(cursor, |cursor, _, _| {
            eof = cursor.eof();
            Ok(())
        });
        (*cursor.cast::<Cursor<T::Cursor>>()).broken = code != codes::OK;
    }
    c_int::from(eof)
}

unsafe extern "C" fn column<T: VTab>(
    cursor: *mut sqlite3_vtab_cursor,
    context: *mut sqlite3_context,
    i: c_int,
) -> c_int {
    // SAFETY: SQLite calls with a cursor of this module and a context that stays until this returns.
    unsafe {
        with_cursor::<T>(cursor, |cursor, table, db| {
            cursor.column(table, usize::try_from(i).unwrap_or(usize::MAX), &mut ColumnOut::new(db.api, context))
        })
    }
}

unsafe extern "C" fn rowid<T: VTab>(cursor: *mut sqlite3_vtab_cursor, place: *mut sqlite3_int64) -> c_int {
    // SAFETY: SQLite calls with a cursor of this module and a place for the result.
    unsafe {
        with_cursor::<T>(cursor, |cursor, _, _| {
            place.write(cursor.rowid());
            Ok(())
        })
    }
}

unsafe extern "C" fn update<T: VTab>(
    vtab: *mut sqlite3_vtab,
    argc: c_int,
    argv: *mut *mut sqlite3_value,
    place: *mut sqlite3_int64,
) -> c_int {
    // SAFETY: SQLite calls with a table of this module, arguments that stay until this returns, and a place for the rowid of an insert.
    unsafe {
        with_table::<T>(vtab, |table, db| {
            let args = Args::new(db.api, argc, argv);
            if argc < 2 {
                return table.update(db, Change::Delete { rowid: args.int(0) }).map(drop);
            }
            let values = args.of_update(2, db.db);
            if args.is_null(0) {
                let rowid = (!args.is_null(1)).then(|| args.int(1));
                place.write(table.update(db, Change::Insert { rowid, values })?);
                return Ok(());
            }
            table.update(db, Change::Update { rowid: args.int(0), new_rowid: args.int(1), values }).map(drop)
        })
    }
}

/// The callbacks that take the table and nothing else, or the number of a savepoint.
macro_rules! transaction_callbacks {
    ($($name:ident($($number:ident)?);)*) => {$(
        unsafe extern "C" fn $name<T: VTab>(vtab: *mut sqlite3_vtab $(, $number: c_int)?) -> c_int {
            // SAFETY: SQLite calls with a table of this module.
            unsafe { with_table::<T>(vtab, |table, _| table.$name($($number)?)) }
        }
    )*};
}

transaction_callbacks! {
    begin();
    sync();
    commit();
    rollback();
    savepoint(number);
    release(number);
    rollback_to(number);
}
