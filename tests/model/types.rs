//! The words of the model: dots, cells, rows, names, changesets, version vectors, and the dice.
//!
//! Everything is small and `Copy` where it can be, so that 100,000 histories stay cheap without optimisation.
//! A row is an array of *slots*: the columns, then two pseudo-cells. `BORN` says "a base of this lifetime was merged" and
//! carries the base's dot; `TOMB` carries the dot of the delete. They follow the same merge rule as columns and always tie.

use std::fmt;
use std::rc::Rc;

/// Most columns of the table; a history may use fewer.
pub const COLUMNS: usize = 3;
/// Pseudo-cell: this lifetime has its base (DESIGN 2.4, X5: "the bit travels").
pub const BORN: usize = 3;
/// Pseudo-cell: this row is deleted.
pub const TOMB: usize = 4;
pub const SLOTS: usize = 5;
pub const ROWS: usize = 3;
pub const SITES: usize = 5;
/// A site survives at most `EPOCHS - 1` power cuts in one history.
pub const EPOCHS: usize = 6;
/// Site versions fit a 128-bit set.
pub const VERSION_MAX: u8 = 127;

/// (site, epoch, site_version). The model has no tokens: a new epoch must be enough.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Dot {
    pub site: u8,
    pub epoch: u8,
    pub version: u8,
}

/// Site 1, epoch 2, version 3 reads `1.2:3`, in epoch 0 just `1:3`.
impl fmt::Debug for Dot {
    fn fmt(&self, out: &mut fmt::Formatter) -> fmt::Result {
        match self.epoch {
            0 => write!(out, "{}:{}", self.site, self.version),
            epoch => write!(out, "{}.{epoch}:{}", self.site, self.version),
        }
    }
}

/// One cell; `col_version` 0 means absent.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Cell {
    pub col_version: u8,
    pub value: u8,
    pub dot: Dot,
}

impl Cell {
    pub fn is_absent(self) -> bool {
        self.col_version == 0
    }

    /// What the merge rule compares. The dot is no part of it.
    pub fn rank(self) -> (u8, u8) {
        (self.col_version, self.value)
    }
}

/// Value 5 at col_version 2 reads `5v2@dot`.
impl fmt::Debug for Cell {
    fn fmt(&self, out: &mut fmt::Formatter) -> fmt::Result {
        write!(out, "{}v{}@{:?}", self.value, self.col_version, self.dot)
    }
}

/// A row as held, and just as well a part of a row as sent (absent slots are not sent).
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct Row {
    /// Causal length: odd alive, even deleted, 0 never existed.
    pub cl: u8,
    pub cells: [Cell; SLOTS],
}

impl fmt::Debug for Row {
    fn fmt(&self, out: &mut fmt::Formatter) -> fmt::Result {
        write!(out, "cl {}", self.cl)?;
        for (slot, cell) in self.cells.iter().enumerate().filter(|(_, cell)| !cell.is_absent()) {
            match slot {
                BORN => write!(out, " born@{:?}", cell.dot)?,
                TOMB => write!(out, " dead@{:?}", cell.dot)?,
                column => write!(out, " {}={cell:?}", ["a", "b", "c"][column])?,
            }
        }
        Ok(())
    }
}

impl Row {
    pub fn is_alive(&self) -> bool {
        self.cl % 2 == 1
    }

    /// Alive and its base is here: what a SELECT shows.
    pub fn is_visible(&self) -> bool {
        self.is_alive() && !self.cells[BORN].is_absent()
    }

    /// The part of this row that consists of `slots`.
    pub fn pick(&self, slots: u8) -> Row {
        let mut part = Row { cl: self.cl, ..Row::default() };
        for slot in 0..SLOTS {
            if slots & (1 << slot) != 0 {
                part.cells[slot] = self.cells[slot];
            }
        }
        part
    }

    /// The slots whose cells carry `dot`.
    pub fn carrying(&self, dot: Dot) -> u8 {
        let mut slots = 0;
        for slot in 0..SLOTS {
            if self.cells[slot].dot == dot && !self.cells[slot].is_absent() {
                slots |= 1 << slot;
            }
        }
        slots
    }

    /// Does this row hold `write`, or what beats or ties it?
    pub fn covers(&self, write: &Row) -> bool {
        if self.cl != write.cl {
            return self.cl > write.cl;
        }
        (0..SLOTS).all(|slot| self.cells[slot].rank() >= write.cells[slot].rank())
    }

    /// Same causal length and the same (col_version, value) everywhere: dots may differ, by ties.
    pub fn same_content(&self, other: &Row) -> bool {
        self.cl == other.cl && (0..SLOTS).all(|slot| self.cells[slot].rank() == other.cells[slot].rank())
    }
}

/// One thing that a dot named at its origin: the slots of one row in one lifetime.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Name {
    pub row: u8,
    pub cl: u8,
    pub slots: u8,
}

/// All that a dot named at its origin, and the dot's predecessor there. Who has it can encode the dot claimably.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Header {
    pub prev: u8,
    pub names: Vec<Name>,
}

/// What travels for one dot. With a header it is complete or covering, hence claimable; without it is thinned.
#[derive(Clone, Debug)]
pub struct Changeset {
    pub dot: Dot,
    pub claim: Option<Rc<Header>>,
    pub rows: Vec<(u8, Row)>,
}

impl Changeset {
    /// In words, for traces.
    pub fn tell(&self) -> String {
        let kind = if self.claim.is_some() { "claimable" } else { "thinned" };
        format!("{kind} {:?} {:?}", self.dot, self.rows)
    }
}

/// The claimed site_versions per (site, epoch), as sets of bits.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct Vector([[u128; EPOCHS]; SITES]);

/// The claimed versions one by one, as dots.
impl fmt::Debug for Vector {
    fn fmt(&self, out: &mut fmt::Formatter) -> fmt::Result {
        let mut dots = Vec::new();
        for site in 0..SITES as u8 {
            for epoch in 0..EPOCHS as u8 {
                dots.extend((0..=VERSION_MAX).map(|version| Dot { site, epoch, version }));
            }
        }
        dots.retain(|dot| self.has(*dot));
        write!(out, "{dots:?}")
    }
}

impl Vector {
    pub fn has(&self, dot: Dot) -> bool {
        self.0[dot.site as usize][dot.epoch as usize] & (1 << dot.version) != 0
    }

    /// Claims the range (prev, dot.version]: the numbers between were merges of the origin, never dots.
    pub fn claim(&mut self, prev: u8, dot: Dot) {
        for version in prev + 1..=dot.version {
            self.0[dot.site as usize][dot.epoch as usize] |= 1 << version;
        }
    }

    pub fn union(&mut self, other: &Vector) {
        for (mine, theirs) in self.0.iter_mut().zip(&other.0) {
            for (mine, theirs) in mine.iter_mut().zip(theirs) {
                *mine |= theirs;
            }
        }
    }
}

/// splitmix64: the one source of chance, so that a seed replays a history.
pub struct Dice(u64);

impl Dice {
    pub fn new(seed: u64) -> Self {
        Dice(seed.wrapping_mul(0xA076_1D64_78BD_642F) ^ 0xE703_7ED1_A0B4_28DB)
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// Uniform below `bound` (which is small, so the modulo bias is nothing).
    pub fn below(&mut self, bound: usize) -> usize {
        (self.next() >> 16) as usize % bound.max(1)
    }

    pub fn one_in(&mut self, chances: usize) -> bool {
        self.below(chances) == 0
    }

    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, self.below(last + 1));
        }
    }
}
