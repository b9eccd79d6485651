//! The keeper: an empty table whose only purpose is its disconnect.
//!
//! `sqlite3_close` disconnects virtual tables before it looks for open statements, but not those that a statement still
//! names, and cached statements name the journal through the triggers they fire. No statement ever names the keeper, so
//! its disconnect always comes, and finalizes them.

use crate::no_rows::{Empty, NoRows};
use crate::session::Shared;
use crate::sql_text::text_of;
use crate::sqlite::{Db, IndexInfo, Result, VTab};
use std::ffi::CStr;

/// The table.
pub struct Keeper {
    session: Shared,
}

/// Its name.
pub const KEEPER: &str = text_of(KEEPER_C);
pub const KEEPER_C: &CStr = c"starling_keeper";

impl Empty for Keeper {}

impl VTab for Keeper {
    type Aux = Shared;
    type Cursor = NoRows<Self>;
    const WRITABLE: bool = false;
    const TRANSACTIONAL: bool = false;

    fn connect(_db: Db, aux: &Shared) -> Result<(String, Self)> {
        Ok(("CREATE TABLE x(a)".to_string(), Self { session: aux.clone() }))
    }

    fn best_index(&self, info: &mut IndexInfo<'_>) -> Result<()> {
        info.set_estimated_rows(1);
        Ok(())
    }

    fn open(&self) -> Result<NoRows<Self>> {
        Ok(NoRows::default())
    }

    fn disconnect(&self) {
        self.session.finalize_statements();
    }
}
