//! The keeper: an empty table whose only purpose is its disconnect.
//!
//! `sqlite3_close` disconnects virtual tables before it looks for open statements, but not those that a statement still
//! names, and cached statements name the journal through the triggers they fire. No statement ever names the keeper, so
//! its disconnect always comes, and finalizes them.

use crate::session::Shared;
use crate::sqlite::{Args, ColumnOut, Db, IndexInfo, Result, VTab, VTabCursor};

/// The table.
pub struct Keeper {
    session: Shared,
}

/// It has no rows.
pub struct NoRows;

/// Its name.
pub const KEEPER: &str = "starling_keeper";

impl VTab for Keeper {
    type Aux = Shared;
    type Cursor = NoRows;
    const WRITABLE: bool = false;
    const TRANSACTIONAL: bool = false;

    fn connect(_db: Db, aux: &Shared) -> Result<(String, Self)> {
        Ok(("CREATE TABLE x(a)".to_string(), Self { session: aux.clone() }))
    }

    fn best_index(&self, info: &mut IndexInfo<'_>) -> Result<()> {
        info.set_estimated_rows(1);
        Ok(())
    }

    fn open(&self) -> Result<NoRows> {
        Ok(NoRows)
    }

    fn disconnect(&self) {
        self.session.finalize_statements();
    }
}

impl VTabCursor for NoRows {
    type Table = Keeper;
    fn filter(&mut self, _: &Keeper, _: i32, _: &str, _: &Args<'_>) -> Result<()> {
        Ok(())
    }
    fn next(&mut self, _: &Keeper) -> Result<()> {
        Ok(())
    }
    fn eof(&self) -> bool {
        true
    }
    fn column(&self, _: &Keeper, _: usize, _: &mut ColumnOut<'_>) -> Result<()> {
        Ok(())
    }
    fn rowid(&self) -> i64 {
        0
    }
}
