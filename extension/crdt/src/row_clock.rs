//! The row clock: the explicit state of a row that is not pristine, as one small blob.
//!
//! Ordinals in here (`origin`, `author`, `column`) are local to one database; they never travel.

use crate::cursor::{put_varint, DecodeError, Problem, Reader};
use crate::ids::{MAX_COUNTER, MAX_SEQ, MAX_VERSION};
use alloc::vec::Vec;

/// Which write a cell or a lifetime stems from.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, PartialOrd, Ord)]
pub struct Stamp {
    /// Ordinal of the origin (site, epoch).
    pub origin: u32,
    /// The dot's version there.
    pub version: u64,
    /// Position within that transaction.
    pub seq: u64,
    /// Number of the author's site where it is not the origin's; 0 = it is.
    pub author: u32,
}

impl Stamp {
    /// Whether both name the same dot.
    #[must_use]
    pub const fn same_dot(&self, other: &Self) -> bool {
        self.origin == other.origin && self.version == other.version
    }
}

/// One cell that is not "as the base wrote it".
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CellClock {
    /// Stable column id.
    pub column: u32,
    /// col_version; 0 = absent: loses to anything.
    pub version: u64,
    /// Its write.
    pub stamp: Stamp,
}

/// The state of one row.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct RowClock {
    /// Causal length: odd = alive, even = deleted.
    pub cl: u64,
    /// A base or a nine-value insert was merged: the row may be shown.
    pub born: bool,
    /// The write of the `'-1'` row that a row in its first lifetime has when a key update made it.
    pub moved: Option<Stamp>,
    /// The log holds the base of this lifetime: the insert that named all its cells.
    pub based: bool,
    /// The version of every cell that is not listed; 0 = such a cell is absent.
    pub base_version: u64,
    /// The write that began this lifetime. `None` for cl 1: the one base entry in the log that names the key.
    pub life: Option<Stamp>,
    /// The schema generation of the base, where the row's key does not tell it (columns that came later are absent).
    pub generation: Option<u32>,
    /// The listed cells, by column id.
    pub cells: Vec<CellClock>,
}

impl RowClock {
    /// The state that a pristine row stands for.
    #[must_use]
    pub const fn pristine() -> Self {
        Self {
            cl: 1,
            born: true,
            moved: None,
            based: true,
            base_version: 1,
            life: None,
            generation: None,
            cells: Vec::new(),
        }
    }

    /// Whether it says no more than "pristine", so that no row clock need be kept.
    #[must_use]
    pub fn is_pristine(&self) -> bool {
        self.cl == 1
            && self.born
            && self.moved.is_none()
            && self.based
            && self.base_version == 1
            && self.life.is_none()
            && self.generation.is_none()
            && self.cells.is_empty()
    }

    /// Whether it says no more than which cells were written after the row's base, which it has in whole.
    #[must_use]
    pub fn is_plain(&self) -> bool {
        let whole = self.cl == 1 && self.born && self.based && self.base_version > 0;
        whole && self.moved.is_none() && self.generation.is_none() && self.all_there()
    }

    fn all_there(&self) -> bool {
        self.cells.iter().all(|c| c.version > 0)
    }

    /// Whether it counts on from the clock that the row had before, which is that of a plain row: `version` of each listed
    /// cell is by how much it was raised. Its `cl` is 0.
    #[must_use]
    pub const fn is_delta(&self) -> bool {
        self.cl == 0 && !self.cells.is_empty()
    }

    /// Whether an encoded clock is a delta.
    #[must_use]
    pub fn encodes_delta(bytes: &[u8]) -> bool {
        matches!(bytes, [flags, 0, ..] if flags & CL != 0) && bytes.len() > 3
    }

    /// What a delta makes of the clock that the row had before. Returns how many cells of it are superseded. Cells that the
    /// clock has from the delta already are left as they are.
    pub fn count_on(&mut self, delta: &Self) -> u64 {
        let mut superseded = 0;
        for cell in &delta.cells {
            if self.cell(cell.column).is_some_and(|c| c.stamp.same_dot(&cell.stamp)) {
                continue;
            }
            superseded += u64::from(self.cell(cell.column).is_some());
            let version = self.version_of(cell.column).saturating_add(cell.version);
            self.set(CellClock { version, ..*cell });
        }
        superseded
    }

    /// The write of the row's `'-1'` row, if it has one.
    #[must_use]
    pub const fn sentinel(&self) -> Option<Stamp> {
        if self.cl == 1 {
            self.moved
        } else {
            self.life
        }
    }

    /// Whether the cells that a base wrote come after a `'-1'` row of the same write.
    #[must_use]
    pub fn base_has_sentinel(&self, base: &Stamp) -> bool {
        self.cl > 1 || self.moved.as_ref() == Some(base)
    }

    /// Whether the row is alive.
    #[must_use]
    pub const fn is_alive(&self) -> bool {
        self.cl % 2 == 1
    }

    /// The writes that began its lifetime, or its key.
    pub fn lives(&self) -> impl Iterator<Item = &Stamp> {
        self.life.iter().chain(&self.moved)
    }

    /// How many log entries, or cells of some, have nothing to say any more once this clock is in its row's place.
    #[must_use]
    pub fn superseded_by(&self, after: &Self) -> u64 {
        let goes =
            |cell: &&CellClock| cell.version > 0 && after.cell(cell.column).is_none_or(|c| c.stamp != cell.stamp);
        let cells = self.cells.iter().filter(goes).count() as u64;
        let began_with = self.based || self.life.is_some() || self.moved.is_some();
        let begins_anew = after.cl != self.cl || after.life != self.life || after.based != self.based;
        cells + u64::from(began_with && begins_anew)
    }

    /// Whether anything that it says stems from a dot.
    #[must_use]
    pub fn names_dot(&self, dot: &Stamp) -> bool {
        self.cells.iter().map(|c| &c.stamp).chain(self.lives()).any(|s| s.same_dot(dot))
    }

    /// The listed cell of a column.
    #[must_use]
    pub fn cell(&self, column: u32) -> Option<&CellClock> {
        self.cells.binary_search_by_key(&column, |c| c.column).ok().and_then(|i| self.cells.get(i))
    }

    /// A cell's col_version; 0 = absent.
    #[must_use]
    pub fn version_of(&self, column: u32) -> u64 {
        self.cell(column).map_or(self.base_version, |c| c.version)
    }

    /// Lists a cell, in place of what was listed for its column.
    pub fn set(&mut self, cell: CellClock) {
        match self.cells.binary_search_by_key(&cell.column, |c| c.column) {
            Ok(i) => {
                if let Some(slot) = self.cells.get_mut(i) {
                    *slot = cell;
                }
            }
            Err(i) => self.cells.insert(i, cell),
        }
    }

    /// Appends the blob (docs/FORMAT.md, "Row clock").
    pub fn encode(&self, out: &mut Vec<u8>) {
        let authored = self.cells.iter().map(|c| &c.stamp).chain(&self.life).chain(&self.moved).any(|s| s.author != 0);
        let flags = flag(self.born, BORN)
            | flag(self.moved.is_some(), MOVED)
            | flag(self.life.is_some(), LIFE)
            | flag(self.cl != 1, CL)
            | flag(self.base_version != 1, BASE_VERSION)
            | flag(authored, AUTHORED)
            | flag(self.based, BASED)
            | flag(self.generation.is_some(), GENERATION);
        out.push(flags);
        if self.cl != 1 {
            put_varint(out, self.cl);
        }
        if self.base_version != 1 {
            put_varint(out, self.base_version);
        }
        if let Some(life) = &self.life {
            put_stamp(out, life, authored);
        }
        if let Some(moved) = &self.moved {
            put_stamp(out, moved, authored);
        }
        if let Some(generation) = self.generation {
            put_varint(out, u64::from(generation));
        }
        let mut last = None;
        for cell in &self.cells {
            let same = last.is_some_and(|s: Stamp| s.same_dot(&cell.stamp) && s.author == cell.stamp.author);
            put_varint(out, u64::from(cell.column) << 1 | u64::from(same));
            put_varint(out, cell.version);
            if same {
                put_varint(out, cell.stamp.seq);
            } else {
                put_stamp(out, &cell.stamp, authored);
            }
            last = Some(cell.stamp);
        }
    }

    /// Decodes a blob.
    ///
    /// # Errors
    /// Names the field and offset; columns out of order and values above the caps are refused.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        Self::decode_with(bytes, Vec::new())
    }

    /// As [`RowClock::decode`]; the cells come into a list that is empty and may have room already.
    ///
    /// # Errors
    /// As [`RowClock::decode`].
    pub fn decode_with(bytes: &[u8], cells: Vec<CellClock>) -> Result<Self, DecodeError> {
        let mut r = Reader::new(bytes);
        let flags = r.u8("row clock flags")?;
        let authored = flags & AUTHORED != 0;
        let cl = if flags & CL != 0 { r.varint(MAX_COUNTER, "cl")? } else { 1 };
        let base_version = if flags & BASE_VERSION != 0 { r.varint(MAX_COUNTER, "base version")? } else { 1 };
        let life = if flags & LIFE != 0 { Some(read_stamp(&mut r, authored)?) } else { None };
        let moved = if flags & MOVED != 0 { Some(read_stamp(&mut r, authored)?) } else { None };
        let generation = if flags & GENERATION != 0 {
            let start = r;
            let generation = r.varint(u64::from(u32::MAX), "generation")?;
            Some(u32::try_from(generation).map_err(|_| start.error("generation", Problem::TooLarge))?)
        } else {
            None
        };
        let mut clock = Self {
            cl,
            born: flags & BORN != 0,
            moved,
            based: flags & BASED != 0,
            base_version,
            life,
            generation,
            cells,
        };
        if !r.is_empty() {
            clock.cells.reserve((r.remaining() / CELL_LIKELY + 1).min(ROOM));
        }
        let mut last: Option<CellClock> = None;
        while !r.is_empty() {
            let start = r;
            let head = r.varint(u64::from(u32::MAX) * 2 + 1, "cell column")?;
            let column = u32::try_from(head >> 1).map_err(|_| start.error("cell column", Problem::TooLarge))?;
            let version = r.varint(MAX_COUNTER, "col_version")?;
            let stamp = match (head & 1 != 0, last) {
                (true, Some(last)) => Stamp { seq: r.varint(MAX_SEQ, "seq")?, ..last.stamp },
                (true, None) => return Err(start.error("cell column", Problem::Invalid)),
                (false, _) => read_stamp(&mut r, authored)?,
            };
            if last.is_some_and(|l| l.column >= column) {
                return Err(start.error("cell column", Problem::Invalid));
            }
            let cell = CellClock { column, version, stamp };
            clock.cells.push(cell);
            last = Some(cell);
        }
        Ok(clock)
    }
}

/// Bytes that a cell takes at least, mostly.
const CELL_LIKELY: usize = 5;
/// Room for so many cells is made at once.
const ROOM: usize = 8;

const BORN: u8 = 1;
const MOVED: u8 = 2;
const LIFE: u8 = 4;
const CL: u8 = 8;
const BASE_VERSION: u8 = 16;
const AUTHORED: u8 = 32;
const BASED: u8 = 64;
const GENERATION: u8 = 128;

const fn flag(on: bool, bit: u8) -> u8 {
    if on {
        bit
    } else {
        0
    }
}

fn put_stamp(out: &mut Vec<u8>, stamp: &Stamp, authored: bool) {
    put_varint(out, u64::from(stamp.origin));
    put_varint(out, stamp.version);
    put_varint(out, stamp.seq);
    if authored {
        put_varint(out, u64::from(stamp.author));
    }
}

fn read_stamp(r: &mut Reader<'_>, authored: bool) -> Result<Stamp, DecodeError> {
    let small = |r: &mut Reader<'_>, field| -> Result<u32, DecodeError> {
        let start = *r;
        u32::try_from(r.varint(u64::from(u32::MAX), field)?).map_err(|_| start.error(field, Problem::TooLarge))
    };
    let origin = small(r, "origin ordinal")?;
    let version = r.varint(MAX_VERSION, "version")?;
    let seq = r.varint(MAX_SEQ, "seq")?;
    let author = if authored { small(r, "author")? } else { 0 };
    Ok(Stamp { origin, version, seq, author })
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use proptest::prelude::*;

    pub(crate) fn any_stamp() -> impl Strategy<Value = Stamp> {
        (1u32..9, 1u64..1 << 40, 0u64..1 << 20, prop_oneof![3 => Just(0u32), 1 => 1u32..5])
            .prop_map(|(origin, version, seq, author)| Stamp { origin, version, seq, author })
    }

    pub(crate) fn any_clock() -> impl Strategy<Value = RowClock> {
        let cells = proptest::collection::btree_map(0u32..200, (0u64..9, any_stamp()), 0..8);
        (
            0u64..5,
            any::<[bool; 2]>(),
            proptest::option::of(any_stamp()),
            0u64..4,
            proptest::option::of(any_stamp()),
            proptest::option::of(2u32..9),
            cells,
        )
            .prop_map(|(cl, [born, based], moved, base_version, life, generation, cells)| RowClock {
                cl,
                born,
                moved,
                based,
                base_version,
                life,
                generation,
                cells: cells
                    .into_iter()
                    .map(|(column, (version, stamp))| CellClock { column, version, stamp })
                    .collect(),
            })
    }

    fn is_encoded_delta(clock: &RowClock) -> bool {
        let mut bytes = Vec::new();
        clock.encode(&mut bytes);
        RowClock::encodes_delta(&bytes)
    }

    proptest! {
        #[test]
        fn clocks_round_trip(clock in any_clock()) {
            let mut out = Vec::new();
            clock.encode(&mut out);
            prop_assert_eq!(RowClock::decode(&out).unwrap(), clock);
        }

        #[test]
        fn garbage_never_panics(bytes: Vec<u8>) {
            let _ = RowClock::decode(&bytes);
        }

        #[test]
        fn a_delta_makes_of_a_plain_clock_what_the_update_itself_would_have(
            before in any_clock(), word in 0u16..3, mask in 1u64..16, seq in 0u64..1 << 20, stamp in any_stamp(),
        ) {
            let columns: Vec<u32> = (1..=10).collect();
            let dot = Stamp { seq: 0, author: 0, ..stamp };
            let update = |clock: &mut RowClock| {
                crate::local::update_in_place(clock, (word, mask, seq), &columns, dot, &mut Vec::new());
            };
            let (mut direct, mut counted, mut delta) = (before.clone(), before.clone(), RowClock::default());
            update(&mut direct);
            update(&mut delta);
            let mut bytes = Vec::new();
            delta.encode(&mut bytes);
            let delta = RowClock::decode(&bytes).unwrap();
            prop_assert_eq!(delta.is_delta(), direct != before);
            prop_assert!(RowClock::encodes_delta(&bytes) == delta.is_delta() && (before.cl == 0 || !is_encoded_delta(&before)));
            let superseded = counted.count_on(&delta);
            prop_assert_eq!(&counted, &direct);
            let again = (counted.count_on(&delta), counted.clone());
            prop_assert_eq!(again, (0, direct.clone()));
            prop_assert_eq!(superseded as usize, before.cells.len() + delta.cells.len() - direct.cells.len());
        }
    }
}
