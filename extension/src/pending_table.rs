//! `crsql_pending`: a table of what has arrived and cannot be shown yet. Its rows are those of the moment the scan began.

use crate::pending::Waiting;
use crate::session::Shared;
use crate::sqlite::{Args, ColumnOut, Db, IndexInfo, Result, Risk, VTab, VTabCursor};

/// The table.
pub struct PendingTable {
    session: Shared,
}

/// A scan.
#[derive(Default)]
pub struct PendingCursor {
    rows: Vec<(Waiting, i64)>,
    at: usize,
}

impl VTab for PendingTable {
    type Aux = Shared;
    type Cursor = PendingCursor;
    const WRITABLE: bool = false;
    const TRANSACTIONAL: bool = false;
    const RISK: Risk = Risk::Normal;

    fn connect(_db: Db, aux: &Shared) -> Result<(String, Self)> {
        let schema = "CREATE TABLE x([table] TEXT, reason TEXT, site_id BLOB, db_version INTEGER, changes INTEGER)";
        Ok((schema.to_string(), Self { session: aux.clone() }))
    }

    fn best_index(&self, info: &mut IndexInfo<'_>) -> Result<()> {
        info.set_estimated_cost(1000.0);
        info.set_estimated_rows(10);
        Ok(())
    }

    fn open(&self) -> Result<PendingCursor> {
        Ok(PendingCursor::default())
    }
}

impl VTabCursor for PendingCursor {
    type Table = PendingTable;

    fn filter(&mut self, table: &PendingTable, _: i32, _: &str, _: &Args<'_>) -> Result<()> {
        *self = Self { rows: table.session.pending()?.into_iter().collect(), at: 0 };
        Ok(())
    }

    fn next(&mut self, _: &PendingTable) -> Result<()> {
        self.at += 1;
        Ok(())
    }

    fn eof(&self) -> bool {
        self.at >= self.rows.len()
    }

    fn column(&self, _: &PendingTable, i: usize, out: &mut ColumnOut<'_>) -> Result<()> {
        let Some((waiting, changes)) = self.rows.get(self.at) else { return Ok(()) };
        match i {
            0 => out.set_text(&waiting.table),
            1 => out.set_text(&waiting.reason),
            2 => out.set_blob(waiting.site.0),
            3 => out.set_int(waiting.version.cast_signed()),
            _ => out.set_int(*changes),
        }
        Ok(())
    }

    fn rowid(&self) -> i64 {
        self.at as i64
    }
}
