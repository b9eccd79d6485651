//! SQLite's table of routines, as the host passed it to the entry point.
//!
//! What it does: check once that every routine the fence relies on is there, then call them without another test.
//! What it must never do: read a slot that the running SQLite is too old to have (the table of an older SQLite ends earlier).
//! Invariant: an [`Api`] exists only after [`Api::check`] found every slot of `required!`, and `call!` compiles only for those.
#![allow(unsafe_code)]

use super::error::{Error, Result};
use sqlite3ext_sys::sqlite3_api_routines;
use std::ffi::{c_char, CStr};
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicPtr, Ordering};

/// The oldest SQLite the extension runs in: 3.31.0 brought `SQLITE_INNOCUOUS`, without which triggers fail where the schema is untrusted.
const MIN_VERSION: i32 = 3_031_000;

/// So many SQLite libraries in one process are told apart.
pub(super) const LIBRARIES: usize = 4;

/// The tables that were checked, for the one caller who has nothing else to start from: a scalar function is given a context only, and
/// needs a routine to come from there to its data, which holds its own [`Api`]. Each library has a place of its own, and functions of
/// its own that look there: one that is unloaded takes nothing from the others. Of more libraries than there are places the later ones
/// share the last; `sqlite3_user_data` only reads two pointers that lie alike in every SQLite since 3.8.
static CHECKED: [AtomicPtr<sqlite3_api_routines>; LIBRARIES] = [const { AtomicPtr::new(ptr::null_mut()) }; LIBRARIES];

/// The routines of one SQLite library. They live as long as the library, which is longer than anything that calls them.
#[derive(Clone, Copy)]
pub(super) struct Api(NonNull<sqlite3_api_routines>);

macro_rules! required {
    ($($name:ident)*) => {
        /// One constant for each checked slot: `call!` names it, so that an unchecked slot does not compile.
        #[allow(non_upper_case_globals)]
        pub(super) mod required { $(pub(in super::super) const $name: () = ();)* }

        /// # Safety
        /// `api` is the table of a SQLite that is not older than MIN_VERSION.
        unsafe fn missing(api: *const sqlite3_api_routines) -> Option<&'static str> {
            // SAFETY: each of these slots is older than MIN_VERSION, so the table reaches that far.
            $(if unsafe { (*api).$name.is_none() } { return Some(stringify!($name)); })*
            None
        }
    };
}

required! {
    bind_blob64 bind_double bind_int64 bind_null bind_text64 busy_timeout changes clear_bindings close column_count
    column_int64 column_name column_type column_value create_function_v2 create_module_v2 db_config db_filename db_readonly declare_vtab
    errmsg errstr exec extended_errcode finalize free get_autocommit last_insert_rowid libversion_number limit open prepare_v3
    reset result_blob64 result_double result_error result_error_code result_error_nomem result_int64 result_null result_text64
    set_last_insert_rowid step stmt_readonly total_changes user_data value_blob value_bytes value_double value_int64 value_nochange
    value_text value_type vtab_nochange vtab_on_conflict
}

/// Calls a required routine: `call!(api, step(stmt))`. It expands to a call of a foreign function, so it stands in an `unsafe` block.
macro_rules! call {
    ($api:expr, $name:ident ( $($arg:expr),* $(,)? )) => {{
        let () = $crate::sqlite::api::required::$name;
        // The slot is one of `required!`, so `Api::check` has found it.
        ((*$api.routines()).$name.unwrap_unchecked())($($arg),*)
    }};
}
pub(super) use call;

impl Api {
    /// Takes the table that SQLite passed to the entry point, if it has all that the fence needs.
    ///
    /// # Safety
    /// `routines` is null or the table of a SQLite library that stays loaded.
    pub(super) unsafe fn check(routines: *const sqlite3_api_routines) -> Result<Api> {
        let Some(table) = NonNull::new(routines.cast_mut()) else {
            return Err(Error::msg("starling: SQLite passed no table of routines"));
        };
        // SAFETY: `libversion_number` is one of the table's first slots: every SQLite that passes a table has it.
        let version = match unsafe { (*table.as_ptr()).libversion_number } {
            // SAFETY: a routine of the table, without arguments.
            Some(libversion_number) => unsafe { libversion_number() },
            None => 0,
        };
        if version < MIN_VERSION {
            let (major, minor) = (version / 1_000_000, version / 1_000 % 1_000);
            return Err(Error::msg(format!("starling needs SQLite 3.31 or newer, and this is {major}.{minor}")));
        }
        // SAFETY: not older than MIN_VERSION.
        match unsafe { missing(table.as_ptr()) } {
            None => Ok(Api(table)),
            Some(name) => Err(Error::msg(format!(
                "starling cannot run in this build of SQLite: sqlite3_{name} was left out of it at compile time"
            ))),
        }
    }

    /// For `function::run` only, see [`CHECKED`].
    #[inline(always)]
    pub(super) fn at(place: usize) -> Option<Api> {
        NonNull::new(CHECKED.get(place)?.load(Ordering::Acquire)).map(Api)
    }

    /// The place of this library's table, see [`CHECKED`].
    pub(super) fn place(self) -> usize {
        let table = self.0.as_ptr();
        for (place, checked) in CHECKED.iter().enumerate() {
            let before = checked.compare_exchange(ptr::null_mut(), table, Ordering::AcqRel, Ordering::Acquire);
            if before.is_ok() || before == Err(table) {
                return place;
            }
        }
        let last = LIBRARIES - 1;
        if let Some(checked) = CHECKED.get(last) {
            checked.store(table, Ordering::Release);
        }
        last
    }

    /// The table itself. A slot outside of `required!` may be null, or absent where SQLite is older than it: so it is never a `&`.
    #[inline(always)]
    pub(super) fn routines(&self) -> *const sqlite3_api_routines {
        self.0.as_ptr()
    }

    pub(super) fn version(self) -> i32 {
        // SAFETY: no arguments.
        unsafe { call!(self, libversion_number()) }
    }

    /// A copy of `text` in SQLite's own memory, ending in NUL; null when memory is short. A NUL within `text` ends the message there.
    pub(super) fn owned_text(self, text: &str) -> *mut c_char {
        // SAFETY: a table of routines.
        unsafe { owned_text(self.0.as_ptr(), text) }
    }

    /// What SQLite calls this result code.
    pub(super) fn describe(self, code: i32) -> String {
        // SAFETY: `errstr` takes any integer and answers a static string.
        unsafe { lossy(call!(self, errstr(code))) }
    }
}

/// As [`Api::owned_text`], also for a table that was refused: `sqlite3_malloc` is one of the slots that every SQLite has.
///
/// # Safety
/// `routines` is the table of a SQLite library.
pub(super) unsafe fn owned_text(routines: *const sqlite3_api_routines, text: &str) -> *mut c_char {
    // SAFETY: `malloc` is one of the first slots, so any table reaches that far.
    let (Some(malloc), Ok(size)) = (unsafe { (*routines).malloc }, i32::try_from(text.len() + 1)) else {
        return ptr::null_mut();
    };
    // SAFETY: the block is asked for at its full size; both writes stay inside it.
    unsafe {
        let block = malloc(size).cast::<u8>();
        if !block.is_null() {
            block.copy_from_nonoverlapping(text.as_ptr(), text.len());
            block.add(text.len()).write(0);
        }
        block.cast()
    }
}

/// A C string that SQLite owns, copied.
///
/// # Safety
/// `text` is null or a NUL-terminated string.
pub(super) unsafe fn lossy(text: *const c_char) -> String {
    if text.is_null() {
        return String::new();
    }
    // SAFETY: not null, and the caller promises the NUL.
    unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ffi::c_int;
    use std::mem::MaybeUninit;

    #[test]
    fn each_library_has_a_place_of_its_own_for_as_long_as_there_are_places() {
        let tables: [_; LIBRARIES + 1] =
            std::array::from_fn(|_| Box::leak(Box::new(MaybeUninit::uninit())).as_mut_ptr());
        let api = |table: *mut sqlite3_api_routines| Api(NonNull::new(table).expect("a box is somewhere"));
        let places = tables.map(|table| api(table).place());
        for (place, table) in places.iter().zip(tables).filter(|(place, _)| **place + 1 < LIBRARIES) {
            assert_eq!(api(table).place(), *place);
            assert_eq!(Api::at(*place).map(|api| api.routines()), Some(table.cast_const()));
            assert_eq!(places.iter().filter(|other| *other == place).count(), 1, "{places:?}");
        }
        assert_eq!(places.last(), Some(&(LIBRARIES - 1)));
    }

    unsafe extern "C" fn version_3_30() -> c_int {
        3_030_001
    }

    unsafe extern "C" fn version_3_40() -> c_int {
        3_040_001
    }

    fn empty_table() -> sqlite3_api_routines {
        // SAFETY: a table of nullable function pointers and nothing else, for which zero is null.
        unsafe { MaybeUninit::zeroed().assume_init() }
    }

    fn refusal(table: *const sqlite3_api_routines) -> String {
        // SAFETY: null, or a whole table.
        unsafe { Api::check(table) }.err().expect("refused").message
    }

    #[test]
    fn a_host_that_lacks_something_is_refused_by_name() {
        let mut table = empty_table();
        assert!(refusal(ptr::null()).contains("no table"));
        assert!(refusal(&table).contains("and this is 0.0"));
        table.libversion_number = Some(version_3_30);
        assert!(refusal(&table).ends_with("and this is 3.30"));
        table.libversion_number = Some(version_3_40);
        assert!(refusal(&table).contains("sqlite3_bind_blob64 was left out"), "{}", refusal(&table));
    }

    #[test]
    fn without_memory_there_is_no_text() {
        // SAFETY: a whole table, in which even `malloc` is null.
        assert!(unsafe { owned_text(&empty_table(), "text") }.is_null());
    }

    #[test]
    fn no_c_string_is_an_empty_one() {
        // SAFETY: null is allowed.
        assert_eq!(unsafe { lossy(ptr::null()) }, "");
    }
}
