//! The scan of a table that has no rows: it finds nothing, and may tell the table what it was asked.

use crate::sqlite::{Args, ColumnOut, Result, VTab, VTabCursor};
use std::marker::PhantomData;

/// A table without rows.
pub trait Empty: VTab {
    /// A scan begins, with these arguments.
    fn asked(&self, _args: &Args<'_>) -> Result<()> {
        Ok(())
    }
}

/// Its cursor.
pub struct NoRows<T>(PhantomData<T>);

impl<T> Default for NoRows<T> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<T: Empty> VTabCursor for NoRows<T> {
    type Table = T;
    fn filter(&mut self, table: &T, _: i32, _: &str, args: &Args<'_>) -> Result<()> {
        table.asked(args)
    }
    fn next(&mut self, _: &T) -> Result<()> {
        Ok(())
    }
    fn eof(&self) -> bool {
        true
    }
    fn column(&self, _: &T, _: usize, _: &mut ColumnOut<'_>) -> Result<()> {
        Ok(())
    }
    fn rowid(&self) -> i64 {
        0
    }
}
