//! The merge decision (docs/ARCHITECTURE.md, "The merge rule"): one pure function of the local row and the incoming one.
//!
//! A smaller causal length loses entirely, a larger one wins entirely. Equal and odd: per cell the larger col_version
//! wins, then the larger value, then nothing happens (or, when equal values are to be merged, the larger author wins).

use crate::row_clock::{CellClock, RowClock, Stamp};
use crate::value::ValueRef;
use alloc::vec::Vec;
use core::cmp::Ordering;

/// What an incoming row entry is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum IncomingKind {
    /// The row whole; `life` is the insert that began its lifetime.
    Base {
        /// The insert.
        life: Stamp,
        /// The write of its `'-1'` row.
        sentinel: Option<Stamp>,
    },
    /// Some cells.
    Cells {
        /// The row may be shown.
        born: bool,
        /// The `'-1'` row's write.
        life: Option<Stamp>,
    },
    /// A delete.
    Tombstone {
        /// The delete.
        life: Stamp,
    },
}

/// An incoming cell, its stamp and column already in local ordinals, its value already under the local affinity.
#[derive(Clone, Copy, Debug)]
pub struct IncomingCell<'a> {
    /// Local column id.
    pub column: u32,
    /// col_version.
    pub version: u64,
    /// Its write.
    pub stamp: Stamp,
    /// Its value.
    pub value: ValueRef<'a>,
}

/// An incoming row entry.
#[derive(Clone, Debug)]
pub struct Incoming<'a> {
    /// Causal length; even exactly for tombstones.
    pub cl: u64,
    /// What it is.
    pub kind: IncomingKind,
    /// Its cells.
    pub cells: Vec<IncomingCell<'a>>,
}

/// What the decision needs to know of the local row's values.
pub trait LocalValues {
    /// The value of a column of the local row.
    fn value(&self, column: u32) -> ValueRef<'_>;
    /// Whether author `a`'s site id is larger than `b`'s; asked only when equal values are to be merged. The numbers are
    /// (origin, author) as stamps hold them.
    fn author_is_larger(&self, a: &Stamp, b: Option<&Stamp>) -> bool;
}

/// The outcome of a merge that changes something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// The row's new state.
    pub clock: RowClock,
    /// The incoming cells that are taken, by index.
    pub won: Vec<usize>,
    /// A new lifetime begins: old cells are forgotten.
    pub new_lifetime: bool,
    /// The incoming life is logged: as a tombstone, a `'-1'` row, or with the base.
    pub life_won: bool,
    /// A `'-1'` row of the first lifetime is taken: its write.
    pub sentinel: Option<Stamp>,
    /// The incoming base becomes the base of this row's lifetime here.
    pub adopt_base: bool,
}

/// Decides. `local` is `None` where the row never existed here; `columns` are the ids of the table's present columns in
/// their order; `merge_equal` is the configuration `merge-equal-values`. `None`: the entry changes nothing.
#[must_use]
pub fn decide(
    local: Option<&RowClock>,
    values: &impl LocalValues,
    incoming: &Incoming<'_>,
    columns: &[u32],
    merge_equal: bool,
) -> Option<Decision> {
    let local_cl = local.map_or(0, |c| c.cl);
    match (incoming.cl.cmp(&local_cl), local) {
        (Ordering::Less, _) => None,
        (_, None) if says_nothing(incoming) => None,
        (Ordering::Greater, _) | (_, None) => Some(new_lifetime(incoming, columns)),
        (Ordering::Equal, Some(_)) if incoming.cl.is_multiple_of(2) => None,
        (Ordering::Equal, Some(local)) => same_lifetime(local, values, incoming, merge_equal),
    }
}

/// Whether a cell of such a version takes the place of the row's own and does nothing else: the row is there, in the same
/// lifetime, and its cell is older. [`decide`] would say the same of a born entry with that cell alone; here nothing is copied.
#[must_use]
pub fn overwrites(local: &RowClock, cl: u64, column: u32, version: u64) -> bool {
    local.cl == cl && local.is_alive() && local.born && version > local.version_of(column)
}

/// The clock of a row that never existed here, of which one cell has come, in its first lifetime: as [`decide`] would have it.
/// There is room for so many cells.
#[must_use]
pub fn first_of_row(cell: &IncomingCell<'_>, room: usize) -> RowClock {
    let mut cells = Vec::with_capacity(room);
    cells.push(CellClock { column: cell.column, version: cell.version, stamp: cell.stamp });
    RowClock { cl: 1, born: true, cells, ..RowClock::default() }
}

/// Absent cells of a row that never existed here: no log entry would name the row, so it must not come to be by them.
fn says_nothing(incoming: &Incoming<'_>) -> bool {
    let only_cells = matches!(incoming.kind, IncomingKind::Cells { life: None, .. }) && incoming.cl == 1;
    only_cells && !incoming.cells.is_empty() && incoming.cells.iter().all(|c| c.version == 0)
}

fn new_lifetime(incoming: &Incoming<'_>, columns: &[u32]) -> Decision {
    let mut clock = RowClock { cl: incoming.cl, ..RowClock::default() };
    let mut decision_life = true;
    match incoming.kind {
        IncomingKind::Tombstone { life } => {
            clock.life = Some(life);
        }
        IncomingKind::Base { life, sentinel } => {
            clock.born = true;
            clock.based = true;
            clock.moved = sentinel.filter(|_| incoming.cl == 1);
            list_base_cells(&mut clock, life, incoming, columns);
        }
        IncomingKind::Cells { born, life } => {
            clock.born = born;
            // A re-created row has a '-1' row even where only its cells have arrived.
            if incoming.cl > 1 {
                clock.life = life.or_else(|| incoming.cells.first().map(|c| c.stamp));
            } else {
                clock.moved = life;
            }
            decision_life = clock.life.is_some();
            for cell in incoming.cells.iter().filter(|c| c.version > 0) {
                clock.set(CellClock { column: cell.column, version: cell.version, stamp: cell.stamp });
            }
        }
    }
    // Under a base that brought it along, the base's own entry stands for the '-1' row.
    let sentinel = clock.moved.filter(|m| !matches!(incoming.kind, IncomingKind::Base { life, .. } if life == *m));
    Decision {
        clock,
        sentinel,
        won: incoming.cells.iter().enumerate().filter(|(_, c)| c.version > 0).map(|(i, _)| i).collect(),
        new_lifetime: true,
        life_won: decision_life,
        adopt_base: matches!(incoming.kind, IncomingKind::Base { .. }),
    }
}

/// Cells that are as the base wrote them stay unlisted: the base entry and `base_version` say it all.
fn list_base_cells(clock: &mut RowClock, life: Stamp, incoming: &Incoming<'_>, columns: &[u32]) {
    let first_seq = life.seq + u64::from(clock.base_has_sentinel(&life));
    let natural = |i: usize, cell: &IncomingCell<'_>| {
        cell.stamp == Stamp { seq: first_seq + i as u64, ..life } && cell.version > 0
    };
    let of_column = |id: u32| incoming.cells.iter().find(|c| c.column == id);
    let base_version = columns
        .iter()
        .enumerate()
        .filter_map(|(i, id)| of_column(*id).filter(|c| natural(i, c)).map(|c| c.version))
        .min()
        .unwrap_or(1);
    clock.base_version = base_version;
    for (i, id) in columns.iter().enumerate() {
        match of_column(*id) {
            Some(cell) if natural(i, cell) && cell.version == base_version => {}
            Some(cell) => clock.set(CellClock { column: *id, version: cell.version, stamp: cell.stamp }),
            None => clock.set(CellClock { column: *id, version: 0, stamp: life }),
        }
    }
    // A first lifetime that is wholly natural needs no word about its base: the log has the one entry.
    if clock.cl != 1 || base_version != 1 || clock.moved.is_some() || !clock.cells.is_empty() {
        clock.life = Some(life);
    }
}

fn same_lifetime(
    local: &RowClock,
    values: &impl LocalValues,
    incoming: &Incoming<'_>,
    merge_equal: bool,
) -> Option<Decision> {
    let mut clock = local.clone();
    let mut won = Vec::new();
    for (i, cell) in incoming.cells.iter().enumerate() {
        if wins(local, values, cell, merge_equal) {
            clock.set(CellClock { column: cell.column, version: cell.version, stamp: cell.stamp });
            won.push(i);
        }
    }
    let (mut adopt_base, mut life_won) = (false, false);
    let theirs = match incoming.kind {
        IncomingKind::Base { sentinel, .. } => sentinel,
        IncomingKind::Cells { life, .. } => life,
        IncomingKind::Tombstone { .. } => None,
    };
    match incoming.kind {
        IncomingKind::Base { life, .. } => {
            clock.born = true;
            if !local.based {
                clock.based = true;
                clock.life = Some(life);
                adopt_base = true;
                life_won = true;
            }
        }
        IncomingKind::Cells { born, .. } => clock.born |= born,
        IncomingKind::Tombstone { .. } => {}
    }
    let mut sentinel = theirs.filter(|_| local.cl == 1 && local.moved.is_none());
    if sentinel.is_some() {
        clock.moved = sentinel;
        if adopt_base && clock.life == sentinel {
            sentinel = None;
        }
    }
    let changed = !won.is_empty() || life_won || clock.born != local.born || clock.moved != local.moved;
    changed.then_some(Decision { clock, won, new_lifetime: false, life_won, sentinel, adopt_base })
}

fn wins(local: &RowClock, values: &impl LocalValues, cell: &IncomingCell<'_>, merge_equal: bool) -> bool {
    let mine = local.version_of(cell.column);
    match cell.version.cmp(&mine) {
        Ordering::Greater => true,
        Ordering::Less => false,
        // Absent on both sides: nothing to take.
        Ordering::Equal if cell.version == 0 => false,
        Ordering::Equal => match cell.value.merge_order(values.value(cell.column)) {
            Ordering::Greater => true,
            Ordering::Less => false,
            Ordering::Equal => {
                merge_equal && values.author_is_larger(&cell.stamp, local.cell(cell.column).map(|c| &c.stamp))
            }
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::row_clock::tests::{any_clock, any_stamp};
    use proptest::prelude::*;

    /// A row all of whose cells hold NULL.
    struct Nulls;

    impl LocalValues for Nulls {
        fn value(&self, _: u32) -> ValueRef<'_> {
            ValueRef::Null
        }
        fn author_is_larger(&self, _: &Stamp, _: Option<&Stamp>) -> bool {
            false
        }
    }

    fn decide_cell(local: Option<&RowClock>, cl: u64, cell: IncomingCell<'_>) -> Option<Decision> {
        let kind = IncomingKind::Cells { born: true, life: None };
        decide(local, &Nulls, &Incoming { cl, kind, cells: alloc::vec![cell] }, &[0, 1, 2, 3], false)
    }

    proptest! {
        #[test]
        fn a_cell_that_overwrites_is_listed_and_that_is_all(
            local in any_clock(), cl in 0u64..3, column in 0u32..9, version in 0u64..12, stamp in any_stamp(),
        ) {
            let cl = 2 * cl + 1;
            let cell = IncomingCell { column, version, stamp, value: ValueRef::Integer(1) };
            if overwrites(&local, cl, column, version) {
                let mut clock = local.clone();
                clock.set(CellClock { column, version, stamp });
                let expected = Decision {
                    clock, won: alloc::vec![0], new_lifetime: false, life_won: false, sentinel: None, adopt_base: false,
                };
                prop_assert_eq!(decide_cell(Some(&local), cl, cell), Some(expected));
            }
        }

        #[test]
        fn the_first_cell_of_a_row_makes_its_clock(column in 0u32..9, version in 1u64..12, stamp in any_stamp()) {
            let cell = IncomingCell { column, version, stamp, value: ValueRef::Integer(1) };
            let clock = first_of_row(&cell, 3);
            let expected = Decision {
                clock, won: alloc::vec![0], new_lifetime: true, life_won: false, sentinel: None, adopt_base: false,
            };
            prop_assert_eq!(decide_cell(None, 1, cell), Some(expected));
        }
    }
}
