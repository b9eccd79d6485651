//! The journal: the touches of the open transaction, in memory, with SQLite's savepoints.
//!
//! Pure: no SQL. Invariant: after `rollback_to(s)` it holds exactly the touches that were not flushed when `s` began, also
//! when a flush came in between (SQLite itself undoes what that flush wrote).

use crate::key_order::ByKey;
use starling_crdt::ids::MAX_SEQ;
use starling_crdt::local::{TouchKind, WORD_OF_MOVED};
use std::collections::BTreeSet;

/// Touches kept before the journal must be flushed: about 10 MB with their keys. Row clocks are written in key order, so
/// the more keys a flush has, the more of them share a block.
pub const SPILL_TOUCHES: usize = 128 * 1024;
/// Key bytes kept before the journal must be flushed.
pub const SPILL_BYTES: usize = 16 * 1024 * 1024;

/// One touch.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct JournalTouch {
    /// Table id.
    pub table: u32,
    key_start: u32,
    key_len: u32,
    kind: PackedKind,
    /// seq of its first write.
    pub seq: u64,
}

impl JournalTouch {
    /// What happened.
    pub fn kind(&self) -> TouchKind {
        self.kind.unpack()
    }
}

/// A touch's kind in four bytes, so that a large transaction's journal stays small: three bits that say what happened, 13 of
/// the word, 16 of the mask.
#[derive(Clone, Copy, Debug, PartialEq)]
struct PackedKind(u32);

impl PackedKind {
    fn pack(kind: TouchKind) -> Self {
        Self(match kind {
            TouchKind::Delete => 0,
            TouchKind::Insert { replace, moved } => 1 + u32::from(replace) + 2 * u32::from(moved),
            TouchKind::Update { word, mask } => 5 | (u32::from(word) & 0x1fff) << 3 | (mask as u32 & 0xffff) << 16,
        })
    }

    fn unpack(self) -> TouchKind {
        match self.0 & 7 {
            0 => TouchKind::Delete,
            5 => TouchKind::Update { word: (self.0 >> 3 & 0x1fff) as u16, mask: u64::from(self.0 >> 16) },
            insert => TouchKind::Insert { replace: (insert - 1) & 1 != 0, moved: (insert - 1) & 2 != 0 },
        }
    }
}

/// Touches that are to be flushed, in the order in which they came.
#[derive(Clone, Debug, Default)]
pub struct Touches {
    touches: Vec<JournalTouch>,
    arena: Vec<u8>,
}

/// What a savepoint remembers.
#[derive(Clone, Debug)]
struct Mark {
    id: i32,
    /// SQLite has given out its number again.
    twice: bool,
    len: usize,
    next_seq: u64,
    flushes: u64,
    /// The unflushed touches at the savepoint's begin, set aside by the first flush after it.
    saved: Option<Touches>,
}

/// The journal of one connection.
#[derive(Debug, Default)]
pub struct Journal {
    now: Touches,
    next_seq: u64,
    /// Flushes in this transaction.
    flushes: u64,
    marks: Vec<Mark>,
}

impl Touches {
    /// Number of touches.
    pub fn len(&self) -> usize {
        self.touches.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.touches.is_empty()
    }

    /// A touch.
    pub fn get(&self, i: usize) -> Option<&JournalTouch> {
        self.touches.get(i)
    }

    /// A touch's key, internal form.
    pub fn key(&self, touch: &JournalTouch) -> &[u8] {
        let start = touch.key_start as usize;
        self.arena.get(start..start + touch.key_len as usize).unwrap_or_default()
    }

    /// Table and key of a touch.
    fn named(&self, i: usize) -> (u32, &[u8]) {
        self.touches.get(i).map_or((0, &[][..]), |t| (t.table, self.key(t)))
    }

    /// The touches by key.
    pub fn by_key(&self) -> ByKey {
        ByKey::of(self.touches.len(), |i| self.named(i))
    }

    /// The tables of all touches.
    pub fn tables(&self) -> BTreeSet<u32> {
        // Most touches are of the table of the one before.
        let mut last = None;
        self.touches.iter().map(|touch| touch.table).filter(|table| last.replace(*table) != Some(*table)).collect()
    }

    /// Leaves out those of a table.
    pub fn forget(&mut self, table: u32) {
        self.touches.retain(|touch| touch.table != table);
    }

    /// Whether a row was inserted.
    pub fn any_insert(&self) -> bool {
        self.touches.iter().any(|t| matches!(t.kind(), TouchKind::Insert { .. }))
    }

    /// Inserts that turned out to re-create a row take one more seq: everything after them moves up. `extra` holds their
    /// indices; returns by how much the next seq moves.
    pub fn make_room(&mut self, mut extra: Vec<usize>) -> u64 {
        extra.sort_unstable();
        self.move_up(|i, _| u64::from(extra.binary_search(&i).is_ok()))
    }

    /// Gives touches as many more seqs as `more` says of each, by its index: everything after it moves up. Returns by how
    /// much the next seq moves.
    fn move_up(&mut self, mut more: impl FnMut(usize, &JournalTouch) -> u64) -> u64 {
        let mut shift = 0;
        for (i, touch) in self.touches.iter_mut().enumerate() {
            let extra = more(i, touch);
            touch.seq += shift;
            shift += extra;
        }
        shift
    }

    /// A row that has just got another key: its cells come first, then the delete under the former key, then word of the row
    /// under the new one, as cr-sqlite has it. `width` is that of the insert, with room for the delete. Returns whether the delete
    /// was the touch before, which is so unless a flush came in between.
    fn put_arrival_first(&mut self, next_seq: u64, width: u64) -> bool {
        let Some(at) = self.touches.len().checked_sub(2) else { return false };
        let Some([left, arrived]) = self.touches.get(at..) else { return false };
        let adjacent = left.kind() == TouchKind::Delete && left.seq + 1 == next_seq && left.table == arrived.table;
        if !adjacent || self.key(left) == self.key(arrived) {
            return false;
        }
        let Some([left, arrived]) = self.touches.get_mut(at..) else { return false };
        (arrived.seq, left.seq) = (left.seq, left.seq + width.saturating_sub(WORD_OF_MOVED + 1));
        self.touches.swap(at, at + 1);
        true
    }

    /// Adds a touch whose key is written by `put_key`.
    fn push(&mut self, table: u32, kind: TouchKind, seq: u64, put_key: impl FnOnce(&mut Vec<u8>)) {
        let start = self.arena.len();
        put_key(&mut self.arena);
        let (key_start, key_len) = (start as u32, (self.arena.len() - start) as u32);
        self.touches.push(JournalTouch { table, key_start, key_len, kind: PackedKind::pack(kind), seq });
    }

    /// A copy of the first of them.
    fn first(&self, len: usize) -> Self {
        let arena = self.touches.get(len).map_or(self.arena.len(), |next| next.key_start as usize);
        let touches = self.touches.get(..len).unwrap_or(&self.touches).to_vec();
        Self { touches, arena: self.arena.get(..arena).unwrap_or_default().to_vec() }
    }

    fn truncate(&mut self, len: usize) {
        if let Some(first) = self.touches.get(len) {
            self.arena.truncate(first.key_start as usize);
            self.touches.truncate(len);
        }
    }
}

impl Journal {
    /// Adds a touch that takes `width` seqs.
    pub fn touch(&mut self, table: u32, kind: TouchKind, width: u64, put_key: impl FnOnce(&mut Vec<u8>)) {
        self.now.push(table, kind, self.next_seq, put_key);
        if matches!(kind, TouchKind::Insert { moved: true, .. }) && self.now.put_arrival_first(self.next_seq, width) {
            // Among its seqs is the one that the delete has taken already.
            self.next_seq -= 1;
        }
        self.next_seq += width;
    }

    /// Whether nothing waits to be flushed.
    pub fn is_empty(&self) -> bool {
        self.now.is_empty()
    }

    /// Whether it is time to flush although the transaction goes on.
    pub fn is_full(&self) -> bool {
        self.now.len() >= SPILL_TOUCHES || self.now.arena.len() >= SPILL_BYTES
    }

    /// As [`Journal::is_full`], a little before it is.
    pub fn is_nearly_full(&self) -> bool {
        self.now.len() >= SPILL_TOUCHES / 4 * 3 || self.now.arena.len() >= SPILL_BYTES / 4 * 3
    }

    /// Names the table and key of each touch from the `from`-th on; returns how many there are.
    pub fn each_from(&self, from: usize, mut f: impl FnMut(u32, &[u8])) -> usize {
        for touch in self.now.touches.iter().skip(from) {
            f(touch.table, self.now.key(touch));
        }
        self.now.len()
    }

    /// A table has more columns now than when its rows were touched: a touch that has fewer seqs than `needed` gets the rest,
    /// and everything after it moves up.
    pub fn widen(&mut self, table: u32, needed: impl Fn(TouchKind) -> u64) {
        let ends: Vec<u64> = self.now.touches.iter().skip(1).map(|t| t.seq).chain([self.next_seq]).collect();
        self.next_seq += self.now.move_up(|i, touch| {
            let has = ends.get(i).map_or(0, |end| end.saturating_sub(touch.seq));
            u64::from(touch.table == table) * needed(touch.kind()).saturating_sub(has)
        });
    }

    /// The next seq of the transaction's local dot.
    pub fn next_seq(&self) -> u64 {
        self.next_seq
    }

    /// A seq that was given from outside is used: what is written from now on comes after it.
    pub fn pass_seq(&mut self, seq: u64) {
        // A seq near the cap must not use up those that are left.
        if seq < MAX_SEQ / 2 {
            self.next_seq = self.next_seq.max(seq + 1);
        }
    }

    /// Takes `n` seqs, returns the first.
    pub fn take_seqs(&mut self, n: u64) -> u64 {
        let first = self.next_seq;
        self.next_seq += n;
        first
    }

    /// Hands out what is to be flushed. If the flush fails, give it back with [`Journal::put_back`].
    pub fn take(&mut self) -> Touches {
        for mark in &mut self.marks {
            if mark.saved.is_none() {
                mark.saved = Some(self.now.first(mark.len));
            }
        }
        self.flushes += 1;
        std::mem::take(&mut self.now)
    }

    /// The flush failed: nothing of it is written.
    pub fn put_back(&mut self, touches: Touches) {
        self.now = touches;
    }

    /// What was flushed is not needed any more but for its memory.
    pub fn recycle(&mut self, mut touches: Touches) {
        if self.now.is_empty() && touches.touches.capacity() <= 4096 {
            touches.touches.clear();
            touches.arena.clear();
            self.now = touches;
        }
    }

    /// xSavepoint. Of those that are open when we join a transaction SQLite tells the last one only, so the others are taken as opened
    /// with it. Where BEGIN finds a statement unfinished, SQLite numbers savepoints anew from 0, and gives out numbers that are
    /// still open. It goes by the older mark then (pager.c, `sqlite3PagerOpenSavepoint`), and so do we.
    pub fn savepoint(&mut self, id: i32) {
        let (len, next_seq, flushes) = (self.now.len(), self.next_seq, self.flushes);
        if let Some(mark) = self.marks.iter_mut().find(|mark| mark.id == id) {
            // It tells of a statement's savepoint once for each file that this writes to.
            mark.twice |= (mark.len, mark.next_seq, mark.flushes) != (len, next_seq, flushes);
            return;
        }
        let first = self.marks.last().map_or(0, |mark| mark.id + 1);
        let open = |id| Mark { id, twice: false, len, next_seq, flushes, saved: None };
        self.marks.extend((first..=id).map(open));
    }

    /// Savepoints that are open.
    pub fn open_savepoints(&self) -> usize {
        self.marks.len()
    }

    /// Those but the first `sure` were opened in the middle of a flush: a rollback to one of them would undo half of it.
    pub fn doubt_savepoints(&mut self, sure: usize) {
        self.marks.iter_mut().skip(sure).for_each(|mark| mark.twice = true);
    }

    /// Whether a rollback to this savepoint undoes what whoever asks for it means. If not it undoes more, or nothing.
    pub fn is_sure_of(&self, id: i32) -> bool {
        // −1 is the whole transaction.
        id < 0 || self.marks.iter().any(|mark| mark.id == id && !mark.twice)
    }

    /// xRelease
    pub fn release(&mut self, id: i32) {
        self.marks.retain(|m| m.id < id);
    }

    /// xRollbackTo. Returns whether a flush was undone with it.
    pub fn rollback_to(&mut self, id: i32) -> bool {
        self.marks.retain(|m| m.id <= id);
        match self.marks.last_mut() {
            Some(mark) if mark.id == id => {
                let undone = mark.flushes != self.flushes;
                match &mark.saved {
                    Some(saved) => {
                        self.now = saved.clone();
                        mark.len = self.now.len();
                    }
                    None => self.now.truncate(mark.len),
                }
                self.next_seq = mark.next_seq;
                self.flushes = mark.flushes;
                undone
            }
            // A savepoint from before our first write: everything goes.
            _ => {
                let undone = self.flushes > 0;
                self.now = Touches::default();
                self.next_seq = 0;
                self.flushes = 0;
                undone
            }
        }
    }

    /// The transaction is over.
    pub fn end(&mut self) {
        self.marks.clear();
        self.next_seq = 0;
        self.flushes = 0;
        if self.now.touches.capacity() > 4096 {
            self.now = Touches::default();
        } else {
            self.now.touches.clear();
            self.now.arena.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A model that keeps whole copies: what is flushed, what is not, and what each savepoint saw.
    #[derive(Default, Clone, PartialEq, Debug)]
    struct Model {
        flushed: Vec<(u32, u8, u64)>,
        open: Vec<(u32, u8, u64)>,
        seq: u64,
    }

    fn open_touches(journal: &Journal) -> Vec<(u32, u8, u64)> {
        journal.now.touches.iter().map(|t| (t.table, journal.now.key(t)[0], t.seq)).collect()
    }

    fn check_order(journal: &Journal) {
        let all = open_touches(journal);
        let by_key = journal.now.by_key();
        let runs: Vec<&[usize]> = by_key.runs().collect();
        let keys: Vec<(u32, u8, u64)> = runs.concat().iter().map(|i| all[*i]).collect();
        assert!(keys.is_sorted() && keys.len() == all.len());
        assert_eq!(by_key.all_single(), runs.len() == all.len());
        let of_run = |run: &&[usize]| (all[run[0]].0, all[run[0]].1);
        assert!(runs.windows(2).all(|w| of_run(&w[0]) < of_run(&w[1])));
        assert!(runs.iter().all(|run| run.iter().all(|i| (all[*i].0, all[*i].1) == of_run(run))));
    }

    #[test]
    fn a_kind_survives_packing() {
        let inserts = [false, true].map(|replace| [false, true].map(|moved| TouchKind::Insert { replace, moved }));
        let updates = [(0, 1), (8191, 15), (500, 0xffff)].map(|(word, mask)| TouchKind::Update { word, mask });
        for kind in inserts.into_iter().flatten().chain(updates).chain([TouchKind::Delete]) {
            assert_eq!(PackedKind::pack(kind).unpack(), kind);
        }
    }

    #[test]
    fn a_row_that_gets_another_key_has_its_cells_before_the_delete_of_the_former_one() {
        let moved = |columns| {
            let kind = TouchKind::Insert { replace: false, moved: true };
            (kind, starling_crdt::local::insert_width(true, columns))
        };
        let mut journal = Journal::default();
        let touch = |journal: &mut Journal, key, (kind, width)| journal.touch(1, kind, width, |out| out.push(key));
        touch(&mut journal, 9, (TouchKind::Insert { replace: false, moved: false }, 2));
        journal.savepoint(1);
        for (from, to) in [(1, 2), (3, 4)] {
            touch(&mut journal, from, (TouchKind::Delete, 1));
            touch(&mut journal, to, moved(2));
        }
        assert_eq!(open_touches(&journal), [(1, 9, 0), (1, 2, 2), (1, 1, 4), (1, 4, 6), (1, 3, 8)]);
        assert_eq!(journal.next_seq, 10);
        // Two columns more, of which the touches do not know: nothing comes to stand on anything else.
        journal.widen(1, |kind| match kind {
            TouchKind::Delete => 1,
            TouchKind::Insert { moved, .. } => starling_crdt::local::insert_width(moved, 4),
            TouchKind::Update { .. } => 0,
        });
        let seqs: Vec<u64> = open_touches(&journal).iter().map(|t| t.2).collect();
        let word = |insert: usize| seqs[insert] + 4 + WORD_OF_MOVED;
        for (insert, next) in [(1, seqs[3]), (3, journal.next_seq)] {
            let delete = seqs[insert + 1];
            assert!(delete >= seqs[insert] + 4 && delete != word(insert) && word(insert) < next, "{seqs:?}");
        }
        journal.rollback_to(1);
        assert_eq!((open_touches(&journal), journal.next_seq), (vec![(1, 9, 0)], 2));
        // The delete was flushed: the insert has all its seqs for itself, the delete's among them.
        touch(&mut journal, 1, (TouchKind::Delete, 1));
        journal.take();
        touch(&mut journal, 2, moved(2));
        assert_eq!((open_touches(&journal), journal.next_seq), (vec![(1, 2, 3)], 7));
        // So it is where the delete before is one of the same key, or of another table.
        touch(&mut journal, 2, (TouchKind::Delete, 1));
        touch(&mut journal, 2, moved(2));
        assert_eq!(open_touches(&journal)[1..], [(1, 2, 7), (1, 2, 8)]);
    }

    #[test]
    fn savepoints_flushes_and_rollbacks_behave_like_the_model() {
        for seed in 0..3000u64 {
            let mut x = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
            let mut random = |n: u64| {
                x ^= x << 13;
                x ^= x >> 7;
                x ^= x << 17;
                (x >> 8) % n
            };
            let (mut journal, mut model) = (Journal::default(), Model::default());
            let mut saves: Vec<(i32, Model)> = Vec::new();
            for _ in 0..60 {
                match random(10) {
                    0..=4 => {
                        let (table, key) = (random(2) as u32, random(5) as u8);
                        let kind = TouchKind::Insert { replace: false, moved: false };
                        journal.touch(table, kind, 2, |out| out.push(key));
                        model.open.push((table, key, model.seq));
                        model.seq += 2;
                    }
                    5 => {
                        let id = saves.len() as i32;
                        journal.savepoint(id);
                        saves.push((id, model.clone()));
                    }
                    6 if !saves.is_empty() => {
                        let at = random(saves.len() as u64) as usize;
                        journal.release(saves[at].0);
                        saves.truncate(at);
                    }
                    7 | 8 if !saves.is_empty() => {
                        let at = random(saves.len() as u64) as usize;
                        saves.truncate(at + 1);
                        let undone = journal.rollback_to(saves[at].0);
                        assert_eq!(undone, model.flushed != saves[at].1.flushed || undone);
                        model = saves[at].1.clone();
                    }
                    _ => {
                        let touches = journal.take();
                        model.flushed.extend(touches.touches.iter().map(|t| (t.table, touches.key(t)[0], t.seq)));
                        model.open.clear();
                    }
                }
                assert_eq!(open_touches(&journal), model.open, "seed {seed}");
                assert_eq!(journal.next_seq, model.seq, "seed {seed}");
                check_order(&journal);
            }
        }
    }
}
