//! A virtual table `pause` of an application's that takes part in a transaction: SQLite tells it of the commit before it tells
//! those that joined later.

use rusqlite::vtab::{
    Context, CreateVTab, Filters, IndexInfo, Inserts, Module, TransactionVTab, UpdateVTab, Updates, VTab,
    VTabConnection, VTabCursor, VTabKind,
};
use rusqlite::{ffi, Connection, Result};
use std::borrow::Cow;
use std::ffi::{c_int, CStr};
use std::sync::{Arc, Mutex};

/// What happens in the middle of a commit, once.
type Meanwhile = Arc<Mutex<Option<Box<dyn FnOnce() + Send>>>>;

/// A virtual table of the application's that takes part in a transaction, and is told of the commit before later ones are.
#[repr(C)]
struct Pause {
    base: ffi::sqlite3_vtab,
    meanwhile: Meanwhile,
}

#[repr(C)]
struct NoRows(ffi::sqlite3_vtab_cursor);

// SAFETY: both types are repr(C) with SQLite's part first.
#[allow(unsafe_code)]
unsafe impl VTab<'_> for Pause {
    type Aux = Meanwhile;
    type Cursor = NoRows;
    fn connect(
        _: &mut VTabConnection,
        aux: Option<&Meanwhile>,
        _: &[u8],
        _: &[u8],
        _: &[u8],
        _: &[&[u8]],
    ) -> Result<(Cow<'static, CStr>, Self)> {
        let meanwhile = aux.cloned().unwrap_or_default();
        Ok((c"CREATE TABLE x(a)".into(), Self { base: ffi::sqlite3_vtab::default(), meanwhile }))
    }
    fn best_index(&self, _: &mut IndexInfo) -> Result<bool> {
        Ok(true)
    }
    fn open(&mut self) -> Result<NoRows> {
        Ok(NoRows(ffi::sqlite3_vtab_cursor::default()))
    }
}

// SAFETY: as above.
#[allow(unsafe_code)]
unsafe impl VTabCursor for NoRows {
    fn filter(&mut self, _: c_int, _: Option<&str>, _: &Filters<'_>) -> Result<()> {
        Ok(())
    }
    fn next(&mut self) -> Result<()> {
        Ok(())
    }
    fn eof(&self) -> bool {
        true
    }
    fn column(&self, _: &mut Context, _: c_int) -> Result<()> {
        Ok(())
    }
    fn rowid(&self) -> Result<i64> {
        Ok(0)
    }
}

impl CreateVTab<'_> for Pause {
    const KIND: VTabKind = VTabKind::Eponymous;
}

impl UpdateVTab<'_> for Pause {
    fn delete(&mut self, _: rusqlite::types::ValueRef<'_>) -> Result<()> {
        Ok(())
    }
    fn insert(&mut self, _: &Inserts<'_>) -> Result<i64> {
        Ok(1)
    }
    fn update(&mut self, _: &Updates<'_>) -> Result<()> {
        Ok(())
    }
}

impl TransactionVTab<'_> for Pause {
    fn commit(&mut self) -> Result<()> {
        let what = self.meanwhile.lock().ok().and_then(|mut what| what.take());
        what.into_iter().for_each(|what| what());
        Ok(())
    }
}

/// Gives a connection the table: `what` is done in the middle of the commit of the first transaction that writes to it. Answers how to ask whether it was.
pub fn while_it_commits(db: &Connection, what: impl FnOnce() + Send + 'static) -> impl Fn() -> bool {
    const MODULE: &Module<'_, Pause> = &Module::update_module_with_tx();
    let meanwhile: Meanwhile = Arc::new(Mutex::new(Some(Box::new(what))));
    db.create_module(c"pause", MODULE, Some(Arc::clone(&meanwhile))).expect("it is created");
    move || meanwhile.lock().expect("nobody panicked").is_none()
}
