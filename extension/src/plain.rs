//! Plain tables: no row of theirs was ever deleted, moved to another key or merged in part, so no row clock says more than
//! which cells were written after the row's base.
//!
//! What a small transaction does to such a row is known without a look at its clock: an insert makes a pristine row, an
//! update adds one to the versions of the cells that it names. That a table is plain stands in `crsql_master` from the day
//! on which it became a CRR, and is taken back with the first row clock that says otherwise.

use crate::session::Session;
use crate::sqlite::Result;
use starling_crdt::row_clock::RowClock;
use std::collections::BTreeSet;

/// What a connection knows of which tables are plain, as of its last commit.
#[derive(Default)]
pub struct PlainTables {
    /// The file's version then.
    as_of: Option<u32>,
    plain: BTreeSet<u32>,
    odd: BTreeSet<u32>,
}

impl Session {
    /// Whether a table is plain; asked within a write transaction.
    pub fn is_plain(&self, table: u32) -> Result<bool> {
        self.check_plain();
        {
            let known = self.plain.borrow();
            if known.plain.contains(&table) {
                return Ok(true);
            }
            if known.odd.contains(&table) || self.tx.borrow().odd.contains(&table) {
                return Ok(false);
            }
        }
        let is_plain = {
            let mut find = self.fixed("SELECT 1 FROM main.crsql_master WHERE key = 'plain.' || ?1")?;
            find.bind_int(1, i64::from(table))?;
            find.step()?
        };
        let mut known = self.plain.borrow_mut();
        if is_plain { &mut known.plain } else { &mut known.odd }.insert(table);
        Ok(is_plain)
    }

    /// A table becomes a CRR: all its rows are pristine.
    pub fn begin_plain(&self, table: u32) -> Result<()> {
        let mut add = self.fixed("INSERT OR REPLACE INTO main.crsql_master(key, value) VALUES('plain.' || ?1, 1)")?;
        add.bind_int(1, i64::from(table))?;
        add.execute()
    }

    /// A row gets this clock: if it is not a plain one, neither is its table from now on.
    pub fn keep_plain(&self, table: u32, clock: &RowClock) -> Result<()> {
        if clock.is_plain() {
            return Ok(());
        }
        self.check_plain();
        if self.plain.borrow().odd.contains(&table) || self.tx.borrow().odd.contains(&table) {
            return Ok(());
        }
        self.plain.borrow_mut().plain.remove(&table);
        let mut end = self.fixed("DELETE FROM main.crsql_master WHERE key = 'plain.' || ?1")?;
        end.bind_int(1, i64::from(table))?;
        end.execute()?;
        drop(end);
        let mut tx = self.tx_mut();
        if tx.active {
            tx.odd.insert(table);
        }
        Ok(())
    }

    /// Once per transaction: what is known is believed if nobody has committed since.
    fn check_plain(&self) {
        if self.tx.borrow().plain_checked {
            return;
        }
        let known = self.tx.borrow().file_version;
        let now = known.or_else(|| self.db.file_version());
        if now.is_none() || self.plain.borrow().as_of != now {
            self.forget_plain();
        }
        let mut tx = self.tx.borrow_mut();
        tx.plain_checked = tx.active;
    }

    /// Something was rolled back, or the file is another one.
    pub fn forget_plain(&self) {
        self.plain.replace(PlainTables::default());
    }

    /// The transaction was committed, which left the file with this version.
    pub fn plain_committed(&self, file_version: Option<u32>) {
        let tx = self.tx.borrow();
        let mut known = self.plain.borrow_mut();
        if !tx.plain_checked {
            // Nothing was asked, so what is known may be older than what others committed before.
            *known = PlainTables::default();
        }
        known.odd.extend(&tx.odd);
        known.as_of = file_version;
    }
}
