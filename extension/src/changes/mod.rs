//! `crsql_changes`: what changed, to be read; what changed elsewhere, to be inserted.

mod cursor;
mod insert;
mod last_key;
mod plan;

use crate::session::Shared;
use crate::sqlite::{Change, Db, Error, IndexInfo, Result, VTab};
use cursor::ChangesCursor;
pub use last_key::LastKey;

/// What SQLite knows a row by where it meets it in several scans of one statement (OR, outer joins): the record, and the row's
/// place among all that the record yields, which are the same whatever a scan is limited to.
pub fn rowid_of(db_version: u64, place: u64) -> i64 {
    const PLACE_BITS: u32 = 28;
    if db_version >> (63 - PLACE_BITS) == 0 && place >> PLACE_BITS == 0 {
        return (db_version << PLACE_BITS | place).cast_signed();
    }
    // Two such that come to the same are as unlikely as two equal hashes. Fibonacci hashing (Knuth, TAOCP 3, 6.4).
    db_version.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(place).cast_signed() | i64::MIN
}

/// The table.
pub struct ChangesTable {
    session: Shared,
}

/// Columns by position. The first nine are the public ones; the rest are hidden.
pub mod column {
    /// TEXT
    pub const TABLE: usize = 0;
    /// BLOB, packed
    pub const PK: usize = 1;
    /// TEXT, `-1` for a row's own life
    pub const CID: usize = 2;
    /// any
    pub const VAL: usize = 3;
    /// INTEGER
    pub const COL_VERSION: usize = 4;
    /// INTEGER
    pub const DB_VERSION: usize = 5;
    /// BLOB
    pub const SITE_ID: usize = 6;
    /// INTEGER
    pub const CL: usize = 7;
    /// INTEGER
    pub const SEQ: usize = 8;
    /// INTEGER, hidden: the version at the origin
    pub const ORIGIN_VERSION: usize = 9;
    /// INTEGER, hidden: commit time at the origin, milliseconds
    pub const COMMIT_MS: usize = 10;
}

/// `val` has no type, not even ANY: a table made from this one (CREATE TABLE … AS) would turn the text 007 into 7.
const SCHEMA: &str = "CREATE TABLE x([table] TEXT NOT NULL, pk BLOB NOT NULL, cid TEXT NOT NULL, val, \
                      col_version INTEGER NOT NULL, db_version INTEGER NOT NULL, site_id BLOB NOT NULL, \
                      cl INTEGER NOT NULL, seq INTEGER NOT NULL, origin_version INTEGER HIDDEN, commit_ms INTEGER HIDDEN)";

impl VTab for ChangesTable {
    type Aux = Shared;
    type Cursor = ChangesCursor;
    const WRITABLE: bool = true;
    const TRANSACTIONAL: bool = false;

    fn connect(_db: Db, aux: &Shared) -> Result<(String, Self)> {
        Ok((SCHEMA.to_string(), Self { session: aux.clone() }))
    }

    fn best_index(&self, info: &mut IndexInfo<'_>) -> Result<()> {
        plan::best_index(info);
        Ok(())
    }

    fn open(&self) -> Result<ChangesCursor> {
        Ok(ChangesCursor::default())
    }

    fn update(&self, _db: Db, change: Change<'_>) -> Result<i64> {
        match change {
            // SQLite takes what is answered here for the new row's id.
            Change::Insert { values, .. } => insert::insert(&self.session, &values),
            Change::Update { .. } => {
                Err(Error::msg("crsql_changes: UPDATE is not possible; change the tables themselves"))
            }
            Change::Delete { .. } => {
                Err(Error::msg("crsql_changes: DELETE is not possible; change the tables themselves"))
            }
        }
    }
}
