//! `crsql_unpack_columns(blob)`: the columns of a packed key, one row each.

use crate::session::Shared;
use crate::sqlite::{codes, Args, ColumnOut, Db, Error, IndexInfo, Op, Result, VTab, VTabCursor, ValueRef};
use starling_crdt::{key, Value};

/// The table.
pub struct UnpackTable;

/// A scan.
#[derive(Default)]
pub struct UnpackCursor {
    cells: Vec<Value>,
    at: usize,
}

const PACKAGE: usize = 1;

impl VTab for UnpackTable {
    type Aux = Shared;
    type Cursor = UnpackCursor;
    const WRITABLE: bool = false;
    const TRANSACTIONAL: bool = false;

    fn connect(_db: Db, _aux: &Shared) -> Result<(String, Self)> {
        Ok(("CREATE TABLE x(cell, package BLOB HIDDEN)".to_string(), Self))
    }

    fn best_index(&self, info: &mut IndexInfo<'_>) -> Result<()> {
        let package = info.constraints().find(|(_, c)| c.column == Some(PACKAGE) && c.op == Op::Eq && c.usable);
        let Some((i, _)) = package else {
            return Err(Error::new(codes::CONSTRAINT, ""));
        };
        info.set_argv_index(i, 0);
        info.set_omit(i, true);
        info.set_estimated_cost(1.0);
        info.set_estimated_rows(4);
        Ok(())
    }

    fn open(&self) -> Result<UnpackCursor> {
        Ok(UnpackCursor::default())
    }
}

impl VTabCursor for UnpackCursor {
    type Table = UnpackTable;

    fn filter(&mut self, _: &UnpackTable, _: i32, _: &str, args: &Args<'_>) -> Result<()> {
        let ValueRef::Blob(bytes) = args.get(0) else {
            return Err(Error::msg("crsql_unpack_columns: the argument must be a blob as crsql_pack_columns makes it"));
        };
        let cells = key::unpack(bytes).map_err(|e| Error::msg(format!("crsql_unpack_columns: {e}")))?;
        *self = Self { cells: cells.into_iter().map(ValueRef::to_owned).collect(), at: 0 };
        Ok(())
    }

    fn next(&mut self, _: &UnpackTable) -> Result<()> {
        self.at += 1;
        Ok(())
    }

    fn eof(&self) -> bool {
        self.at >= self.cells.len()
    }

    fn column(&self, _: &UnpackTable, i: usize, out: &mut ColumnOut<'_>) -> Result<()> {
        match (i, self.cells.get(self.at)) {
            (0, Some(value)) => out.set_value(value.as_ref()),
            _ => out.set_null(),
        }
        Ok(())
    }

    fn rowid(&self) -> i64 {
        self.at as i64
    }
}
