//! Local writes: from the touches of one key in one transaction to its new row clock and log entries (X6, X11).
//!
//! The order in which triggers fire decides nothing: inserts and deletes are counted, and whether the row is there at the
//! end corrects the count.

use crate::log_chunk::Kind;
use crate::row_clock::{CellClock, RowClock, Stamp};
use alloc::vec::Vec;

/// One touch of a key.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TouchKind {
    /// The row was inserted.
    Insert {
        /// The statement's conflict policy was REPLACE: a row with this key may have been overwritten.
        replace: bool,
        /// The row got this key by a key update.
        moved: bool,
    },
    /// The row was deleted, or left this key.
    Delete,
    /// Columns were written: bit i of `mask` stands for the `MASK_BITS × word + i`-th column of the table's order.
    Update {
        /// Which group of columns the mask speaks of.
        word: u16,
        /// The columns.
        mask: u64,
    },
}

/// Columns that one update touch can name. Each group of so many columns has an update trigger of its own, which fires
/// only where a statement sets one of them: an update of one column compares few columns, however wide the table.
pub const MASK_BITS: u32 = 4;

/// How far behind the last cell of a row that a key update made its `'-1'` write stands: between them is the delete of the
/// row under its former key.
pub const WORD_OF_MOVED: u64 = 1;

/// How many seqs an insert takes in a table of so many columns besides the key; that of a moved row includes the delete of the
/// row under its former key.
#[must_use]
pub const fn insert_width(moved: bool, columns: u64) -> u64 {
    if moved {
        columns + WORD_OF_MOVED + 1
    } else if columns == 0 {
        1
    } else {
        columns
    }
}

/// A touch with the seq of its first write.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Touch {
    /// What happened.
    pub kind: TouchKind,
    /// Its first seq.
    pub seq: u64,
}

/// A log entry to write.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LocalEntry {
    /// What it says.
    pub kind: Kind,
    /// Its first seq.
    pub seq: u64,
    /// The columns a mask names, ascending ids.
    pub columns: Vec<u32>,
}

/// What a key's touches come to.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct LocalOutcome {
    /// The new clock; `None`: the row is pristine and keeps none.
    pub clock: Option<RowClock>,
    /// Log entries.
    pub entries: Vec<LocalEntry>,
}

/// The situation before the touches.
#[derive(Clone, Copy, Debug)]
pub struct Before<'a> {
    /// The key's row clock, `None` where it has none.
    pub clock: Option<&'a RowClock>,
    /// There was something kept aside, or an unborn row: the table showed no row for this key.
    pub hidden: bool,
    /// Whether the table holds the row now, at the end.
    pub exists: bool,
    /// What a row with this key and without a clock stands for.
    pub pristine: &'a RowClock,
    /// What a row that is inserted now must note as its base's generation.
    pub generation: Option<u32>,
}

/// Folds the touches of one key. `columns` are the ids of the table's columns in mask order; `dot` is the stamp of the
/// transaction with seq 0 and no author.
#[must_use]
pub fn fold(before: &Before<'_>, touches: &[Touch], columns: &[u32], dot: Stamp) -> LocalOutcome {
    let mut state = State::start(before, touches);
    for touch in touches {
        state.apply(touch, columns);
    }
    state.finish(before, columns, dot)
}

/// Whether the `i`-th touch is an insert in a later lifetime than the first, which it begins or writes over: it has a `'-1'`
/// write before its cells, which takes a seq (X7). An insert under a new key has one in any case.
#[must_use]
pub fn recreates(clock: Option<&RowClock>, touches: &[TouchKind], i: usize) -> bool {
    let inserted = matches!(touches.get(i), Some(TouchKind::Insert { moved: false, .. }));
    inserted && (clock.is_some_and(|c| c.cl > 1) || touches.iter().take(i).any(|t| *t == TouchKind::Delete))
}

/// What [`fold`] comes to for a single update of a row that was there, without its detours: `clock` is changed in place,
/// the columns that were written are added to `named`.
pub fn update_in_place(
    clock: &mut RowClock,
    touch: (u16, u64, u64),
    columns: &[u32],
    dot: Stamp,
    named: &mut Vec<u32>,
) {
    let (word, mask, mut seq) = touch;
    for bit in (0..MASK_BITS).filter(|b| mask >> b & 1 == 1) {
        if let Some(column) = columns.get((u32::from(word) * MASK_BITS + bit) as usize) {
            let version = clock.version_of(*column) + 1;
            clock.set(CellClock { column: *column, version, stamp: Stamp { seq, ..dot } });
            named.push(*column);
        }
        seq += 1;
    }
}

/// The columns that a word of a mask names; `columns` are all, in order.
pub fn masked(word: u16, mask: u64, columns: &[u32]) -> impl Iterator<Item = &u32> {
    let at = move |bit: u32| (u32::from(word) * MASK_BITS + bit) as usize;
    (0..MASK_BITS).filter(move |bit| mask >> bit & 1 == 1).filter_map(move |bit| columns.get(at(bit)))
}

/// The clock of a row that was deleted.
#[must_use]
pub const fn tombstone(cl: u64, life: Stamp) -> RowClock {
    RowClock {
        cl,
        born: false,
        moved: None,
        based: false,
        base_version: 0,
        life: Some(life),
        generation: None,
        cells: Vec::new(),
    }
}

struct State<'a> {
    clock: RowClock,
    pristine: &'a RowClock,
    generation: Option<u32>,
    /// The table showed no row although the clock is alive: the first insert is its first sight here.
    hidden: bool,
    /// How many inserts wrote over a row that was there, without a word of it: more than the deletes and what is left explain.
    surplus: u64,
    /// The clock was there before (or stands for a pristine row), so its versions count on.
    new_lifetime: bool,
    /// REPLACE wrote every cell once more.
    bumps: u64,
    /// Per column position: writes before the REPLACE that wrote over them.
    overwritten: Vec<(usize, u64)>,
    based: bool,
    moved: bool,
    /// seq of the last insert and of the last delete.
    insert_seq: u64,
    delete_seq: u64,
    /// Per column position since the last insert: writes and the last seq.
    writes: Vec<(usize, u64, u64)>,
    changed: bool,
}

impl<'a> State<'a> {
    fn start(before: &Before<'a>, touches: &[Touch]) -> Self {
        let count = |f: fn(&TouchKind) -> bool| touches.iter().filter(|t| f(&t.kind)).count() as u64;
        let inserts = count(|k| matches!(k, TouchKind::Insert { .. }));
        let deletes = count(|k| matches!(k, TouchKind::Delete));
        let replaced = touches.iter().any(|t| matches!(t.kind, TouchKind::Insert { replace: true, .. }));
        let alive = if replaced {
            // A REPLACE may or may not have overwritten a row, so counting says nothing: the first touch decides.
            !touches.first().is_some_and(|t| matches!(t.kind, TouchKind::Insert { replace: false, .. }))
        } else {
            // Alive before, unless the touches made it: exists = alive + inserts − deletes.
            u64::from(before.exists) + deletes > inserts
        };
        let was_alive = u64::from(before.clock.map_or(alive, RowClock::is_alive));
        let surplus = match (deletes, replaced) {
            // Out of sight, or what took its place did so without a word.
            (0, _) => inserts,
            // Which REPLACE wrote over a row nobody knows.
            (_, true) => 0,
            _ => (was_alive + inserts).saturating_sub(deletes + u64::from(before.exists)),
        };
        let clock = match before.clock {
            Some(clock) => clock.clone(),
            None if alive => before.pristine.clone(),
            None => RowClock::default(),
        };
        Self {
            clock,
            pristine: before.pristine,
            generation: before.generation,
            hidden: before.hidden,
            surplus,
            new_lifetime: false,
            bumps: 0,
            overwritten: Vec::new(),
            based: false,
            moved: false,
            insert_seq: 0,
            delete_seq: 0,
            writes: Vec::new(),
            changed: false,
        }
    }

    fn apply(&mut self, touch: &Touch, columns: &[u32]) {
        match touch.kind {
            TouchKind::Insert { replace, moved } => self.insert(touch.seq, replace, moved),
            TouchKind::Delete => {
                self.clock.cl += 1;
                self.new_lifetime = true;
                self.based = false;
                self.delete_seq = touch.seq;
                self.writes.clear();
                self.changed = true;
            }
            TouchKind::Update { word, mask } => {
                let named = (0..MASK_BITS).filter(|b| mask >> b & 1 == 1);
                for (bit, seq) in named.zip(touch.seq..) {
                    let position = (u32::from(word) * MASK_BITS + bit) as usize;
                    if position < columns.len() {
                        self.write(position, seq);
                    }
                }
            }
        }
    }

    fn insert(&mut self, seq: u64, replace: bool, moved: bool) {
        let unknown = self.clock.cl == 0 && !self.new_lifetime && replace;
        if unknown {
            // No metadata tells whether a pristine row was overwritten: taken to have existed (X11).
            self.clock = self.pristine.clone();
        }
        let hidden = core::mem::take(&mut self.hidden);
        let explained = replace || hidden;
        if self.clock.is_alive() && (explained || self.surplus > 0) {
            self.surplus -= u64::from(!explained);
            // cl stays; every cell is written once more.
            self.bumps += 1;
            self.overwritten.extend(self.writes.iter().map(|(position, n, _)| (*position, *n)));
        } else {
            self.clock.cl += 1;
            self.new_lifetime = true;
            self.bumps = 0;
            self.overwritten.clear();
        }
        self.moved = moved;
        self.based = true;
        self.insert_seq = seq;
        self.writes.clear();
        self.changed = true;
    }

    /// How often a column was written by REPLACE, and before it.
    fn written(&self, position: usize) -> u64 {
        self.bumps + self.overwritten.iter().filter(|w| w.0 == position).map(|w| w.1).sum::<u64>()
    }

    fn write(&mut self, position: usize, seq: u64) {
        self.changed = true;
        match self.writes.iter_mut().find(|w| w.0 == position) {
            Some(slot) => *slot = (position, slot.1 + 1, seq),
            None => self.writes.push((position, 1, seq)),
        }
    }

    fn finish(mut self, before: &Before<'_>, columns: &[u32], dot: Stamp) -> LocalOutcome {
        if !self.changed {
            return LocalOutcome { clock: before.clock.cloned(), entries: Vec::new() };
        }
        if self.clock.is_alive() != before.exists {
            self.clock.cl += 1;
            self.new_lifetime = true;
        }
        if !before.exists {
            return self.tombstone(dot);
        }
        let mut entries = Vec::new();
        if self.based || self.new_lifetime {
            self.rebase(columns, dot, &mut entries);
        }
        self.list_writes(columns, dot, &mut entries);
        entries.sort_by_key(|e| e.seq);
        let pristine = self.clock.is_pristine() && !(before.clock.is_some() && before.hidden);
        LocalOutcome { clock: if pristine { None } else { Some(self.clock) }, entries }
    }

    fn tombstone(self, dot: Stamp) -> LocalOutcome {
        let life = Stamp { seq: self.delete_seq, ..dot };
        let clock = tombstone(self.clock.cl, life);
        let entry = LocalEntry { kind: Kind::Tombstone, seq: self.delete_seq, columns: Vec::new() };
        LocalOutcome { clock: Some(clock), entries: alloc::vec![entry] }
    }

    /// The row was inserted in this transaction: this dot's entry becomes the base of its lifetime.
    fn rebase(&mut self, columns: &[u32], dot: Stamp, entries: &mut Vec<LocalEntry>) {
        let old = core::mem::take(&mut self.clock);
        let replaced = !self.new_lifetime;
        let arrived = self.moved && !columns.is_empty();
        // The write of the row's '-1' row, if that is another one than the base.
        let word = Stamp { seq: self.insert_seq + WORD_OF_MOVED + columns.len() as u64, ..dot };
        let life = if self.moved && !arrived { word } else { Stamp { seq: self.insert_seq, ..dot } };
        let moved = match (old.cl, self.moved) {
            (1, true) => Some(word),
            (1, false) if replaced => old.moved,
            _ => None,
        };
        let sentinel = !arrived && (old.cl > 1 || self.moved);
        let mut clock = RowClock { cl: old.cl, moved, generation: self.generation, ..RowClock::pristine() };
        let begun = |version: u64| if replaced { version } else { 1 };
        clock.base_version = begun(old.base_version) + self.bumps;
        // Only what a REPLACE has overwritten was written more than once.
        let uneven = replaced || !self.overwritten.is_empty();
        let of_column = |(i, id): (usize, &u32)| begun(old.version_of(*id)) + self.written(i);
        let versions: Vec<u64> = columns.iter().enumerate().filter(|_| uneven).map(of_column).collect();
        clock.base_version = versions.iter().copied().min().unwrap_or(clock.base_version);
        if arrived && (old.cl == 1 || !replaced) {
            entries.push(LocalEntry { kind: Kind::Sentinel, seq: word.seq, columns: Vec::new() });
        }
        if arrived && old.cl > 1 {
            // There the word of its existence is what began the lifetime, so no base can be it: each cell is listed. A lifetime that
            // goes on, since a REPLACE put the row in another one's place, stays as it began.
            let begun = RowClock { cl: old.cl, life: Some(word), ..RowClock::default() };
            let mut listed = RowClock { born: true, ..if replaced { old } else { begun } };
            for (i, id) in columns.iter().enumerate() {
                let version = versions.get(i).copied().unwrap_or(clock.base_version);
                listed.set(CellClock { column: *id, version, stamp: Stamp { seq: life.seq + i as u64, ..dot } });
            }
            entries.push(LocalEntry { kind: Kind::Mask, seq: life.seq, columns: columns.to_vec() });
            self.clock = listed;
            return;
        }
        let first = life.seq + u64::from(sentinel);
        for (i, (id, version)) in columns.iter().zip(&versions).enumerate() {
            if *version != clock.base_version {
                let stamp = Stamp { seq: first + i as u64, ..dot };
                clock.set(CellClock { column: *id, version: *version, stamp });
                // The base speaks for unlisted cells only.
                entries.push(LocalEntry { kind: Kind::Mask, seq: stamp.seq, columns: alloc::vec![*id] });
            }
        }
        if clock.cl > 1 || sentinel || replaced || moved.is_some() {
            clock.life = Some(life);
        }
        let kind = if sentinel { Kind::Rebase } else { Kind::Base };
        entries.push(LocalEntry { kind, seq: life.seq, columns: Vec::new() });
        self.clock = clock;
    }

    fn list_writes(&mut self, columns: &[u32], dot: Stamp, entries: &mut Vec<LocalEntry>) {
        let mut writes: Vec<(u32, u64, u64)> = self
            .writes
            .iter()
            .filter_map(|(position, n, seq)| columns.get(*position).map(|id| (*id, *n, *seq)))
            .collect();
        writes.sort_by_key(|w| w.2);
        for (column, n, seq) in writes {
            let version = self.clock.version_of(column) + n;
            self.clock.set(CellClock { column, version, stamp: Stamp { seq, ..dot } });
            match entries.last_mut() {
                // Neighbours in seq and in column order share an entry.
                Some(e)
                    if e.kind == Kind::Mask
                        && e.seq + e.columns.len() as u64 == seq
                        && e.columns.last().is_some_and(|last| *last < column) =>
                {
                    e.columns.push(column);
                }
                _ => entries.push(LocalEntry { kind: Kind::Mask, seq, columns: alloc::vec![column] }),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    static PRISTINE: RowClock = RowClock::pristine();

    fn before(clock: Option<&RowClock>, exists: bool) -> Before<'_> {
        Before { clock, hidden: false, exists, pristine: &PRISTINE, generation: None }
    }

    #[test]
    fn a_pristine_row_that_was_deleted_and_replaced_twice_is_in_its_third_lifetime() {
        let dot = Stamp { origin: 1, version: 9, seq: 0, author: 0 };
        let replace = TouchKind::Insert { replace: true, moved: false };
        let touches: Vec<Touch> = [TouchKind::Delete, replace, replace]
            .into_iter()
            .zip([0, 1, 3])
            .map(|(kind, seq)| Touch { kind, seq })
            .collect();
        let out = fold(&before(None, true), &touches, &[1, 2], dot);
        let clock = out.clock.unwrap();
        assert_eq!((clock.cl, clock.base_version), (3, 2));
    }

    #[test]
    fn a_replace_counts_the_writes_that_it_overwrites_to_the_columns_that_they_were_of() {
        let dot = Stamp { origin: 1, version: 9, seq: 0, author: 0 };
        let update = |mask| TouchKind::Update { word: 0, mask };
        let insert = |replace| TouchKind::Insert { replace, moved: false };
        let versions = |kinds: &[TouchKind]| {
            let touches: Vec<Touch> =
                kinds.iter().zip((0..).step_by(3)).map(|(k, seq)| Touch { kind: *k, seq }).collect();
            let clock = fold(&before(None, true), &touches, &[1, 2, 3], dot).clock.unwrap();
            [1, 2, 3].map(|column| clock.version_of(column))
        };
        assert_eq!(versions(&[update(0b10), update(0b10), insert(true)]), [2, 4, 2]);
        assert_eq!(versions(&[update(0b10), insert(true), update(0b111), insert(true), update(1)]), [5, 5, 4]);
        assert_eq!(versions(&[insert(false), update(0b100), insert(true)]), [2, 2, 3]);
        assert_eq!(versions(&[TouchKind::Delete, insert(true), update(0b1), insert(true)]), [3, 2, 2]);
    }

    #[test]
    fn the_short_ways_come_to_what_fold_comes_to() {
        let dot = Stamp { origin: 1, version: 9, seq: 0, author: 0 };
        let columns = [2, 3, 4, 7];
        let mut edited = RowClock::pristine();
        edited.set(CellClock { column: 3, version: 4, stamp: dot });
        for clock in [None, Some(&edited)] {
            for mask in 1..16 {
                let touch = Touch { kind: TouchKind::Update { word: 0, mask }, seq: 11 };
                let long = fold(&before(clock, true), &[touch], &columns, dot);
                let mut clock = clock.cloned().unwrap_or_else(RowClock::pristine);
                let mut named = Vec::new();
                update_in_place(&mut clock, (0, mask, 11), &columns, dot, &mut named);
                assert_eq!(long.clock, Some(clock));
                let entries: Vec<_> = long.entries.iter().flat_map(|e| e.columns.clone()).collect();
                assert_eq!((entries, long.entries.len()), (named, 1));
            }
            let touch = Touch { kind: TouchKind::Delete, seq: 5 };
            let long = fold(&before(clock, false), &[touch], &columns, dot);
            assert_eq!(long.clock, Some(tombstone(2, Stamp { seq: 5, ..dot })));
        }
    }
}
