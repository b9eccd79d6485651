//! The scan of a table that has no rows: it finds nothing.

use crate::sqlite::{Args, ColumnOut, Result, VTab, VTabCursor};
use std::marker::PhantomData;

/// The cursor of a table that is written or kept, never read.
pub struct NoRows<T>(PhantomData<T>);

impl<T> Default for NoRows<T> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<T: VTab> VTabCursor for NoRows<T> {
    type Table = T;
    fn filter(&mut self, _: &T, _: i32, _: &str, _: &Args<'_>) -> Result<()> {
        Ok(())
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
