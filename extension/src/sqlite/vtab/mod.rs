//! Virtual tables: what a table, a cursor and a module are to the rest of the extension.
//!
//! What it does: the two traits, what an xUpdate is told, and registration. `module` has the C callbacks, `index` the planner's question.
//! What it must never do: give a `&mut` of a table away. A table's callback runs SQL whose triggers call the same table again before it
//! has returned (an xSync, an xUpdate, an xFilter), so every method of a table takes `&self` and its state is in cells.
//! Invariant: cursors are exclusive (`&mut self`): nothing that a cursor's callback runs can reach the same cursor.

mod index;
mod module;

use super::db::Db;
use super::error::Result;
use super::output::ColumnOut;
use super::value::Args;

pub use index::{Constraint, IndexInfo, Op, OrderBy};
pub use module::create_module;

/// From where SQL may use a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Risk {
    /// From triggers and views too, even where the schema is not trusted.
    Innocuous,
    /// From triggers and views too, where the schema is trusted.
    Normal,
    /// Only from SQL that the application itself sends.
    DirectOnly,
}

/// What one xUpdate is to do.
pub enum Change<'a> {
    /// The values of all columns, hidden ones included, and the rowid if the statement names one.
    Insert {
        rowid: Option<i64>,
        values: Args<'a>,
    },
    Update {
        rowid: i64,
        new_rowid: i64,
        values: Args<'a>,
    },
    Delete {
        rowid: i64,
    },
}

/// An eponymous virtual table: it exists in every database by the name of its module, and cannot be created or dropped.
pub trait VTab: Sized + 'static {
    type Aux: Clone + 'static;
    type Cursor: VTabCursor<Table = Self>;

    /// Whether it takes INSERT, UPDATE and DELETE.
    const WRITABLE: bool;
    /// Whether it wants `begin` to `rollback_to`. SQLite calls them only for a table that is written (so not for one that is only read).
    const TRANSACTIONAL: bool;
    const RISK: Risk = Risk::Innocuous;

    /// Opens the table: its `CREATE TABLE x(…)` and its object. SQLite calls it when the table is first named, and again after it
    /// dropped the object.
    fn connect(db: Db, aux: &Self::Aux) -> Result<(String, Self)>;

    /// Chooses a plan. `Err(Error::new(codes::CONSTRAINT, ""))` says that these constraints, as far as usable, allow none. Any other `Err`
    /// fails the statement, and SQLite replaces its code by `SQLITE_ERROR` if there is a message.
    fn best_index(&self, info: &mut IndexInfo<'_>) -> Result<()>;

    fn open(&self) -> Result<Self::Cursor>;

    /// Does the change; answers the rowid of the row inserted (for the others it is ignored). An `Err` must have changed nothing: SQLite
    /// takes `SQLITE_CONSTRAINT` as a conflict, and lets `OR IGNORE` go on after it.
    fn update(&self, _db: Db, _change: Change<'_>) -> Result<i64> {
        Ok(0)
    }

    /// The first write of a transaction comes. It is followed by `savepoint` if any is open.
    fn begin(&self) -> Result<()> {
        Ok(())
    }

    /// The commit comes, and this may write to the database. An `Err` stops the commit: SQLite rolls back, or keeps the transaction open.
    fn sync(&self) -> Result<()> {
        Ok(())
    }

    /// It is committed. SQLite ignores an `Err`.
    fn commit(&self) -> Result<()> {
        Ok(())
    }

    /// It is rolled back, also after a `sync`. SQLite ignores an `Err`.
    fn rollback(&self) -> Result<()> {
        Ok(())
    }

    /// Savepoint `n` begins. The savepoints of the application come first, counted from 0, then one for a statement of several rows. Not
    /// counted is a SAVEPOINT that itself began the transaction: its number is −1, and it is never told here. Those open at `begin` are not
    /// told either, but for the innermost.
    fn savepoint(&self, _n: i32) -> Result<()> {
        Ok(())
    }

    /// Savepoint `n` and all above it are over, and what they did stays. It may be one that was never told.
    fn release(&self, _n: i32) -> Result<()> {
        Ok(())
    }

    /// What was done since savepoint `n` (perhaps −1) began is undone; `n` itself stays open. If `n` is none of those told and open, it
    /// began before `begin`, so everything since `begin` goes.
    fn rollback_to(&self, _n: i32) -> Result<()> {
        Ok(())
    }

    /// The object is dropped next. SQLite calls it at `sqlite3_close`, before it looks for open statements: cached ones end here.
    fn disconnect(&self) {}
}

/// A scan of a table.
pub trait VTabCursor: Sized {
    type Table: VTab;

    /// Starts a scan, and perhaps not the first of this cursor.
    fn filter(&mut self, table: &Self::Table, idx_num: i32, idx_str: &str, args: &Args<'_>) -> Result<()>;

    fn next(&mut self, table: &Self::Table) -> Result<()>;

    fn eof(&self) -> bool;

    fn column(&self, table: &Self::Table, i: usize, out: &mut ColumnOut<'_>) -> Result<()>;

    fn rowid(&self) -> i64;
}
