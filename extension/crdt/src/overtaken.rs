//! Which of the changesets that are kept aside say nothing any more that a later one does not beat.
//!
//! A cell that a constraint refuses over and over, or a table that is not there yet, would otherwise let them pile up for ever.
//! What is overtaken may go: for each cell that it holds, something that stays beats it (invariant I6).

use crate::changeset::{Cell, Item, PartReader, Row, RowKind, TableDef};
use crate::cursor::DecodeError;
use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::vec::Vec;

/// Of changesets with more rows than this nothing is remembered, and none is overtaken: they are bulk writes, which do not come
/// over and over.
const MOST_ROWS: usize = 64;

/// What the best of a row's changesets say.
#[derive(Default)]
struct Best {
    /// The highest causal length.
    cl: u64,
    /// The last changeset by which the row was born in that lifetime.
    born: Option<i64>,
    /// The highest col_version of that lifetime, by column.
    versions: Vec<(Box<str>, u64)>,
}

/// The best that any of the changesets noted says of each row.
#[derive(Default)]
pub struct Overtaken {
    rows: BTreeMap<(Box<str>, Box<[u8]>), Best>,
}

impl Overtaken {
    /// How many rows are remembered.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Takes note of a part; `id` is its own and no other's.
    ///
    /// # Errors
    /// Malformed bytes.
    pub fn note(&mut self, id: i64, part: &[u8]) -> Result<(), DecodeError> {
        each_row(part, &mut |def, row| {
            let best = self.rows.entry((def.name.into(), row.key.into())).or_default();
            if row.cl < best.cl {
                return true;
            }
            if row.cl > best.cl {
                *best = Best { cl: row.cl, ..Best::default() };
            }
            if matches!(row.kind, RowKind::Cells { born: true, .. }) {
                best.born = best.born.max(Some(id));
            }
            for cell in cells(row) {
                let Some(name) = def.columns.get(cell.column) else { continue };
                match best.versions.iter_mut().find(|(known, _)| **known == **name) {
                    Some((_, version)) => *version = cell.version.max(*version),
                    None => best.versions.push(((*name).into(), cell.version)),
                }
            }
            true
        })
        .map(drop)
    }

    /// Whether all that a part says is beaten by others that were noted, or not needed by what the caller knows of the row.
    ///
    /// # Errors
    /// Malformed bytes.
    pub fn overtakes(
        &self,
        id: i64,
        part: &[u8],
        needless: &mut dyn FnMut(&TableDef<'_>, &Row<'_>) -> bool,
    ) -> Result<bool, DecodeError> {
        // Another part of the same changeset would be served without it.
        let header = *PartReader::new(part)?.header();
        if header.part > 0 || !header.last {
            return Ok(false);
        }
        each_row(part, &mut |def, row| {
            let best = self.rows.get(&(Box::from(def.name), Box::from(row.key)));
            best.is_some_and(|best| best.beats(id, def, row)) || needless(def, row)
        })
    }
}

impl Best {
    fn beats(&self, id: i64, def: &TableDef<'_>, row: &Row<'_>) -> bool {
        if row.cl < self.cl {
            return true;
        }
        // An insert, a delete and a lifetime's beginning stay.
        let RowKind::Cells { born, life: None, cells } = &row.kind else { return false };
        let beaten = |cell: &Cell<'_>| {
            let name = def.columns.get(cell.column);
            name.is_some_and(|name| self.versions.iter().any(|(known, v)| **known == **name && *v > cell.version))
        };
        row.cl == self.cl && !cells.is_empty() && (!born || self.born > Some(id)) && cells.iter().all(beaten)
    }
}

fn cells<'r, 'a>(row: &'r Row<'a>) -> &'r [Cell<'a>] {
    match &row.kind {
        RowKind::Base { cells, .. } | RowKind::Cells { cells, .. } => cells,
        RowKind::Tombstone { .. } | RowKind::Uniform { .. } => &[],
    }
}

/// Calls `f` with each row until it says no; whether it never did. Of a part with many rows it says no at once.
fn each_row<'a>(part: &'a [u8], f: &mut dyn FnMut(&TableDef<'a>, &Row<'a>) -> bool) -> Result<bool, DecodeError> {
    let mut reader = PartReader::new(part)?;
    let (mut tables, mut rows) = (Vec::new(), Vec::new());
    while let Some(item) = reader.next_item()? {
        match item {
            Item::Table(def) => tables.push(def),
            Item::Row(_) if rows.len() == MOST_ROWS => return Ok(false),
            Item::Row(row) => rows.push(row),
            Item::Dot(_) | Item::Author(_) => {}
        }
    }
    Ok(rows.iter().all(|row| tables.get(row.table).is_some_and(|def| f(def, row))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::changeset::{DotHeader, Header, PartWriter, Stamp};
    use crate::value::ValueRef;
    use alloc::vec;
    use proptest::prelude::*;

    const STAMP: Stamp = Stamp { dot: 0, author: None, seq: 0 };

    /// A row of a made-up part: key, causal length, whether born, whether a `'-1'` row of its own, cells as (column, version).
    type Told = (u8, u64, bool, bool, Vec<(usize, u64)>);

    fn part(rows: &[Told]) -> Vec<u8> {
        let mut dot = DotHeader { token: 1, ..DotHeader::default() };
        dot.dot.version = 1;
        let header = Header { dot, claimable: true, last: true, group: false, part: 0 };
        let mut writer = PartWriter::new(&header);
        let table = writer.table("t", 1, ["a", "b", "c"].into_iter());
        for (key, cl, born, life, cells) in rows {
            let mut packed = Vec::new();
            crate::key::encode([ValueRef::Integer(i64::from(*key))], &mut packed);
            writer.cells(table, &packed, *cl, *born, life.then_some(STAMP), cells.len());
            for (column, version) in cells {
                writer.cell(*column, *version, STAMP, ValueRef::Null);
            }
        }
        writer.finish(true)
    }

    fn kept(parts: &[Vec<u8>]) -> Vec<bool> {
        let mut best = Overtaken::default();
        for (id, part) in (0..).zip(parts) {
            best.note(id, part).unwrap();
        }
        (0..).zip(parts).map(|(id, part)| !best.overtakes(id, part, &mut |_, _| false).unwrap()).collect()
    }

    #[test]
    fn a_later_write_of_the_same_cells_overtakes_and_one_of_others_does_not() {
        let cell = |column, version| part(&[(1, 1, false, false, vec![(column, version)])]);
        assert_eq!(kept(&[cell(0, 2), cell(0, 3), cell(1, 2), cell(0, 4)]), [false, false, true, true]);
        // In whatever order they came.
        assert_eq!(kept(&[cell(0, 4), cell(0, 2)]), [true, false]);
        // Equal versions are decided by value: neither is taken for beaten.
        assert_eq!(kept(&[cell(0, 2), cell(0, 2)]), [true, true]);
    }

    #[test]
    fn what_begins_a_row_or_a_lifetime_stays() {
        let born = |born, life, cl, version| part(&[(1, cl, born, life, vec![(0, version)])]);
        assert_eq!(kept(&[born(true, false, 1, 1), born(false, false, 1, 2)]), [true, true]);
        assert_eq!(kept(&[born(true, false, 1, 1), born(true, false, 1, 2)]), [false, true]);
        assert_eq!(kept(&[born(false, true, 3, 1), born(false, false, 3, 2)]), [true, true]);
        assert_eq!(kept(&[born(true, false, 1, 9), born(false, true, 3, 1)]), [false, true]);
    }

    proptest! {
        /// Whatever goes, the best that is said of each cell, and that a row was born, is still said by what stays.
        #[test]
        fn what_stays_says_as_much_as_all(
            rows in prop::collection::vec(
                prop::collection::vec(
                    (0u8..3, prop::sample::select(vec![1u64, 1, 3]), any::<bool>(), any::<bool>(),
                     prop::collection::vec((0usize..3, 1u64..4), 0..3)),
                    1..3,
                ),
                1..12,
            ),
        ) {
            let parts: Vec<Vec<u8>> = rows.iter().map(|rows| part(rows)).collect();
            let stays = kept(&parts);
            // Per key: the highest cl; of that, whether born, a '-1' row, and the highest version of each column.
            let said = |all: bool| {
                let mut said: BTreeMap<u8, (u64, bool, bool, BTreeMap<usize, u64>)> = BTreeMap::new();
                for (rows, stays) in rows.iter().zip(&stays) {
                    for (key, cl, born, life, cells) in rows.iter().filter(|_| all || *stays) {
                        let best = said.entry(*key).or_default();
                        if *cl > best.0 {
                            *best = (*cl, false, false, BTreeMap::new());
                        }
                        if *cl == best.0 {
                            best.1 |= *born;
                            best.2 |= *life;
                            for (column, version) in cells {
                                let v = best.3.entry(*column).or_default();
                                *v = (*v).max(*version);
                            }
                        }
                    }
                }
                said
            };
            prop_assert_eq!(said(true), said(false));
        }
    }
}
