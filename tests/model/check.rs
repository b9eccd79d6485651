//! The invariants. Everything here may look at the ground truth; nothing here changes a replica.

use super::replica::{Database, Replica};
use super::rules::Rules;
use super::serve::Digest;
use super::types::{Dot, Row, BORN, ROWS, SLOTS};

/// What each dot wrote, as its origin committed it. Kept by the history, unseen by replicas.
pub type Truth = Vec<(Dot, u8, Row)>;

/// I6: who claims a dot holds, for each cell that the dot wrote, that write or one that beats or ties it.
pub fn claims_hold(db: &Database, truth: &Truth) -> Result<(), String> {
    for (dot, row, write) in truth {
        if db.claimed.has(*dot) && !db.rows[*row as usize].covers(write) {
            return Err(format!("I6: {dot:?} is claimed, row {row} must cover {write:?}"));
        }
    }
    Ok(())
}

/// I1, I2: each cell, birth and tombstone is named by the one log record of its dot.
pub fn log_is_exact(db: &Database) -> Result<(), String> {
    if let Some(fault) = db.fault {
        return Err(fault.to_string());
    }
    for row in 0..ROWS {
        for slot in 0..SLOTS {
            let cell = db.rows[row].cells[slot];
            let named = |dot| db.record(dot).map_or(0, |record| record.named[row]);
            if !cell.is_absent() && named(cell.dot) & (1 << slot) == 0 {
                return Err(format!("I1: row {row} slot {slot} {cell:?} is in no log record"));
            }
        }
    }
    Ok(())
}

/// No receiver materialises half a row (valid only where no nine-value INSERT made rows cell by cell).
pub fn rows_are_whole(replica: &Replica) -> Result<(), String> {
    for (key, row) in replica.db.rows.iter().enumerate() {
        let missing = (0..replica.columns).any(|column| row.cells[column].is_absent());
        if row.is_visible() && missing {
            return Err(format!("half a row: {key} {row:?} base {:?}", row.cells[BORN].dot));
        }
    }
    Ok(())
}

pub fn same_tables(left: &Database, right: &Database) -> bool {
    let same = |left: &[Row; ROWS], right: &[Row; ROWS]| left.iter().zip(right).all(|(l, r)| l.same_content(r));
    same(&left.rows, &right.rows) && same(&left.shown, &right.shown)
}

/// All checks of one replica after one step.
pub fn replica_holds(replica: &Replica, truth: &Truth, whole_rows: bool, rules: &Rules) -> Result<(), String> {
    claims_hold(&replica.db, truth)?;
    if rules.check_log {
        log_is_exact(&replica.db)?;
    }
    if whole_rows {
        rows_are_whole(replica)?;
    }
    Ok(())
}

/// Equal digests mean equal tables.
pub fn digests_tell(left: (&Digest, &Database), right: (&Digest, &Database)) -> Result<(), String> {
    if left.0 == right.0 && !same_tables(left.1, right.1) {
        return Err("equal digests, different tables".to_string());
    }
    Ok(())
}
