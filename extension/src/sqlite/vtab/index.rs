//! The planner's question to a virtual table: which constraints can it use, at what cost.
//!
//! What it does: a typed face of `sqlite3_index_info`.
//! What it must never do: index C's arrays unchecked; an index out of range is ignored or answers a default.
//! Invariant: it lives only during xBestIndex, and the index string is handed over in SQLite's memory at its end.
#![allow(unsafe_code)]

use super::super::api::Api;
use super::super::error::{codes, Error, Result};
use sqlite3ext_sys::{self as ffi, sqlite3_index_info};
use std::ffi::c_int;

/// The operator of a constraint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    Eq,
    Gt,
    Le,
    Lt,
    Ge,
    Match,
    Like,
    Glob,
    Regexp,
    Ne,
    IsNot,
    IsNotNull,
    IsNull,
    Is,
    Limit,
    Offset,
    Other(u8),
}

impl Op {
    fn from_code(code: u8) -> Op {
        match u32::from(code) {
            ffi::SQLITE_INDEX_CONSTRAINT_EQ => Op::Eq,
            ffi::SQLITE_INDEX_CONSTRAINT_GT => Op::Gt,
            ffi::SQLITE_INDEX_CONSTRAINT_LE => Op::Le,
            ffi::SQLITE_INDEX_CONSTRAINT_LT => Op::Lt,
            ffi::SQLITE_INDEX_CONSTRAINT_GE => Op::Ge,
            ffi::SQLITE_INDEX_CONSTRAINT_MATCH => Op::Match,
            ffi::SQLITE_INDEX_CONSTRAINT_LIKE => Op::Like,
            ffi::SQLITE_INDEX_CONSTRAINT_GLOB => Op::Glob,
            ffi::SQLITE_INDEX_CONSTRAINT_REGEXP => Op::Regexp,
            ffi::SQLITE_INDEX_CONSTRAINT_NE => Op::Ne,
            ffi::SQLITE_INDEX_CONSTRAINT_ISNOT => Op::IsNot,
            ffi::SQLITE_INDEX_CONSTRAINT_ISNOTNULL => Op::IsNotNull,
            ffi::SQLITE_INDEX_CONSTRAINT_ISNULL => Op::IsNull,
            ffi::SQLITE_INDEX_CONSTRAINT_IS => Op::Is,
            ffi::SQLITE_INDEX_CONSTRAINT_LIMIT => Op::Limit,
            ffi::SQLITE_INDEX_CONSTRAINT_OFFSET => Op::Offset,
            _ => Op::Other(code),
        }
    }
}

/// One term of the WHERE clause.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Constraint {
    /// The column it restricts; none for the rowid. (LIMIT and OFFSET restrict no column; what is here then means nothing.)
    pub column: Option<usize>,
    pub op: Op,
    /// Whether the value will be known. A plan may only use usable constraints.
    pub usable: bool,
}

/// One term of the ORDER BY clause.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OrderBy {
    /// The column; none for the rowid.
    pub column: Option<usize>,
    pub desc: bool,
}

pub struct IndexInfo<'a> {
    raw: &'a mut sqlite3_index_info,
    index_string: Option<String>,
}

impl<'a> IndexInfo<'a> {
    /// # Safety
    /// `raw` is what SQLite passes to xBestIndex: its arrays have the lengths that it says.
    pub(super) unsafe fn new(raw: &'a mut sqlite3_index_info) -> Self {
        IndexInfo { raw, index_string: None }
    }

    pub fn constraint_count(&self) -> usize {
        usize::try_from(self.raw.nConstraint).unwrap_or(0)
    }

    pub fn constraint(&self, i: usize) -> Option<Constraint> {
        // SAFETY: below the array's length, which SQLite gives; only a copy leaves.
        let raw = (i < self.constraint_count()).then(|| unsafe { *self.raw.aConstraint.add(i) })?;
        let column = usize::try_from(raw.iColumn).ok();
        Some(Constraint { column, op: Op::from_code(raw.op), usable: raw.usable != 0 })
    }

    /// The constraints with the index that the setters take.
    pub fn constraints(&self) -> impl Iterator<Item = (usize, Constraint)> + '_ {
        (0..self.constraint_count()).filter_map(|i| self.constraint(i).map(|constraint| (i, constraint)))
    }

    fn usage(&mut self, i: usize) -> Option<&mut ffi::sqlite3_index_info_sqlite3_index_constraint_usage> {
        // SAFETY: this array is as long as that of the constraints; the borrow of `self` makes it the only reference.
        (i < self.constraint_count()).then(|| unsafe { &mut *self.raw.aConstraintUsage.add(i) })
    }

    /// Asks for the constraint's value as argument `argument` of the filter, counted from 0. The arguments asked for must be 0, 1, 2, ….
    pub fn set_argv_index(&mut self, i: usize, argument: usize) {
        if let (Some(usage), Ok(argument)) = (self.usage(i), c_int::try_from(argument)) {
            usage.argvIndex = argument.saturating_add(1);
        }
    }

    /// Promises that no row comes that breaks the constraint, so that SQLite need not test it.
    pub fn set_omit(&mut self, i: usize, omit: bool) {
        if let Some(usage) = self.usage(i) {
            usage.omit = u8::from(omit);
        }
    }

    pub fn order_by(&self) -> impl Iterator<Item = OrderBy> + '_ {
        (0..usize::try_from(self.raw.nOrderBy).unwrap_or(0)).map(|i| {
            // SAFETY: below the array's length, which SQLite gives; only a copy leaves.
            let raw = unsafe { *self.raw.aOrderBy.add(i) };
            OrderBy { column: usize::try_from(raw.iColumn).ok(), desc: raw.desc != 0 }
        })
    }

    /// Promises rows in the order asked for.
    pub fn set_order_by_consumed(&mut self, consumed: bool) {
        self.raw.orderByConsumed = c_int::from(consumed);
    }

    pub fn set_estimated_cost(&mut self, cost: f64) {
        self.raw.estimatedCost = cost;
    }

    pub fn set_estimated_rows(&mut self, rows: i64) {
        self.raw.estimatedRows = rows;
    }

    /// Promises at most one row.
    pub fn set_unique(&mut self) {
        self.raw.idxFlags |= ffi::SQLITE_INDEX_SCAN_UNIQUE as c_int;
    }

    pub fn set_idx_num(&mut self, number: i32) {
        self.raw.idxNum = number;
    }

    pub fn set_idx_str(&mut self, text: impl Into<String>) {
        self.index_string = Some(text.into());
    }

    /// Bit i: column i is read; bit 63: any column from 63 on.
    pub fn col_used(&self) -> u64 {
        self.raw.colUsed
    }

    pub fn is_column_used(&self, column: usize) -> bool {
        self.raw.colUsed & (1 << column.min(63)) != 0
    }

    /// Hands the index string over.
    pub(super) fn finish(self, api: Api) -> Result<()> {
        let Some(text) = self.index_string else { return Ok(()) };
        if text.contains('\0') {
            return Err(Error::msg("an index string has a NUL in it"));
        }
        self.raw.idxStr = api.owned_text(&text);
        self.raw.needToFreeIdxStr = 1;
        if self.raw.idxStr.is_null() {
            return Err(Error::new(codes::NOMEM, "out of memory"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ptr;

    fn with_info(work: impl FnOnce(IndexInfo<'_>)) -> (sqlite3_index_info, Vec<(c_int, u8)>) {
        type Usage = ffi::sqlite3_index_info_sqlite3_index_constraint_usage;
        let constraint = |column, op, usable| ffi::sqlite3_index_info_sqlite3_index_constraint {
            iColumn: column,
            op: op as u8,
            usable,
            iTermOffset: 0,
        };
        let mut constraints = [constraint(2, ffi::SQLITE_INDEX_CONSTRAINT_GT, 1), constraint(-1, 250, 0)];
        let mut usage = [Usage { argvIndex: 0, omit: 0 }, Usage { argvIndex: 0, omit: 0 }];
        let mut order = [ffi::sqlite3_index_info_sqlite3_index_orderby { iColumn: 4, desc: 1 }];
        let mut raw = sqlite3_index_info {
            nConstraint: 2,
            aConstraint: constraints.as_mut_ptr(),
            nOrderBy: 1,
            aOrderBy: order.as_mut_ptr(),
            aConstraintUsage: usage.as_mut_ptr(),
            idxNum: 0,
            idxStr: ptr::null_mut(),
            needToFreeIdxStr: 0,
            orderByConsumed: 0,
            estimatedCost: 0.0,
            estimatedRows: 0,
            idxFlags: 0,
            colUsed: 1 << 63 | 4,
        };
        // SAFETY: the arrays above have the lengths that it says.
        work(unsafe { IndexInfo::new(&mut raw) });
        (raw, usage.iter().map(|usage| (usage.argvIndex, usage.omit)).collect())
    }

    #[test]
    fn what_sqlite_asks() {
        with_info(|info| {
            let expected = [
                (0, Constraint { column: Some(2), op: Op::Gt, usable: true }),
                (1, Constraint { column: None, op: Op::Other(250), usable: false }),
            ];
            assert_eq!(info.constraints().collect::<Vec<_>>(), expected);
            assert_eq!(info.constraint(2), None);
            assert_eq!(info.order_by().collect::<Vec<_>>(), [OrderBy { column: Some(4), desc: true }]);
            assert!(
                info.is_column_used(2)
                    && info.is_column_used(63)
                    && info.is_column_used(1000)
                    && !info.is_column_used(3)
            );
        });
    }

    #[test]
    fn what_is_answered_stays_within_the_arrays() {
        let (raw, usage) = with_info(|mut info| {
            info.set_argv_index(1, 0);
            info.set_omit(1, true);
            info.set_argv_index(2, 1);
            info.set_omit(usize::MAX, true);
            info.set_argv_index(0, usize::MAX);
            info.set_unique();
            info.set_idx_num(7);
        });
        assert_eq!(usage, [(0, 0), (1, 1)]);
        assert_eq!((raw.idxNum, raw.idxFlags), (7, 1));
    }
}
