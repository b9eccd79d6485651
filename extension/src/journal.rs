//! The journal: the touches of the open transaction, in memory, with SQLite's savepoints.
//!
//! Pure: no SQL. Invariant: after `rollback_to(s)` it holds exactly the touches that were not flushed when `s` began, also
//! when a flush came in between (SQLite itself undoes what that flush wrote).

use starling_crdt::ids::MAX_SEQ;
use starling_crdt::local::TouchKind;

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
    /// The touch of the same key before this one, as index + 1; 0 = none.
    prev: u32,
    /// What happened.
    pub kind: TouchKind,
    /// seq of its first write.
    pub seq: u64,
}

/// Touches that are to be flushed, with an index by key.
#[derive(Clone, Debug, Default)]
pub struct Touches {
    touches: Vec<JournalTouch>,
    arena: Vec<u8>,
    /// Open addressing, linear probing; each slot is the index + 1 of the last touch of a key.
    slots: Vec<u32>,
    keys: usize,
}

/// What a savepoint remembers.
#[derive(Clone, Debug)]
struct Mark {
    id: i32,
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

/// Sorts items by table and key, which `named` tells. Most keys are told apart by their first bytes, which the sort has at
/// hand.
pub fn in_key_order<'k>(items: impl Iterator<Item = usize>, named: impl Fn(usize) -> (u32, &'k [u8])) -> Vec<usize> {
    let head = |key: &[u8]| {
        let mut word = [0u8; 8];
        let n = key.len().min(8);
        word[..n].copy_from_slice(&key[..n]);
        u64::from_be_bytes(word)
    };
    let with_head = |i| {
        let (table, key) = named(i);
        (table, head(key), i)
    };
    let mut order: Vec<(u32, u64, usize)> = items.map(with_head).collect();
    order.sort_unstable_by(|a, b| (a.0, a.1).cmp(&(b.0, b.1)).then_with(|| named(a.2).1.cmp(named(b.2).1)));
    order.into_iter().map(|(_, _, i)| i).collect()
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

    /// Whether every key was touched once.
    pub fn all_single(&self) -> bool {
        self.keys == self.touches.len()
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

    /// Indices of the last touch of each key.
    fn last_of_each_key(&self) -> impl Iterator<Item = usize> + '_ {
        self.slots.iter().filter(|s| **s != 0).map(|s| *s as usize - 1)
    }

    /// The same in the order of tables and keys.
    pub fn keys_in_order(&self) -> Vec<usize> {
        let named = |i: usize| self.touches.get(i).map_or((0, &[][..]), |t| (t.table, self.key(t)));
        in_key_order(self.last_of_each_key(), named)
    }

    /// Whether a row was inserted.
    pub fn any_insert(&self) -> bool {
        self.touches.iter().any(|t| matches!(t.kind, TouchKind::Insert { .. }))
    }

    /// The touches of one key from its last one, in the order in which they came.
    pub fn chain(&self, last: usize, out: &mut Vec<JournalTouch>) {
        out.clear();
        out.extend(self.walk(last).filter_map(|i| self.touches.get(i)));
        out.reverse();
    }

    /// Their indices, likewise.
    pub fn chain_indices(&self, last: usize, out: &mut Vec<usize>) {
        out.clear();
        out.extend(self.walk(last));
        out.reverse();
    }

    /// Indices from a key's last touch back to its first.
    fn walk(&self, last: usize) -> impl Iterator<Item = usize> + '_ {
        std::iter::successors(Some(last), |i| (self.touches.get(*i)?.prev as usize).checked_sub(1))
    }

    /// Inserts that turned out to re-create a row take one more seq: everything after them moves up. `extra` holds their
    /// indices; returns by how much the next seq moves.
    pub fn make_room(&mut self, mut extra: Vec<usize>) -> u64 {
        extra.sort_unstable();
        let mut extra = extra.into_iter().peekable();
        let mut shift = 0;
        for (i, touch) in self.touches.iter_mut().enumerate() {
            touch.seq += shift;
            if extra.peek() == Some(&i) {
                extra.next();
                shift += 1;
            }
        }
        shift
    }

    fn hash(table: u32, key: &[u8]) -> u64 {
        // FxHash's step (as in rustc): a multiply and a rotate per word; keys are the application's own, not hostile.
        const K: u64 = 0x517c_c1b7_2722_0a95;
        let mut h = u64::from(table).wrapping_mul(K);
        let mut chunks = key.chunks_exact(8);
        for chunk in &mut chunks {
            let mut word = [0u8; 8];
            word.copy_from_slice(chunk);
            h = (h.rotate_left(5) ^ u64::from_le_bytes(word)).wrapping_mul(K);
        }
        for b in chunks.remainder() {
            h = (h.rotate_left(5) ^ u64::from(*b)).wrapping_mul(K);
        }
        h ^ (h >> 29)
    }

    /// The slot of a key: occupied by its last touch, or free.
    fn slot(&self, table: u32, key: &[u8]) -> usize {
        let mask = self.slots.len() - 1;
        let mut i = Self::hash(table, key) as usize & mask;
        loop {
            match self.slots[i].checked_sub(1).and_then(|t| self.touches.get(t as usize)) {
                None => return i,
                Some(t) if t.table == table && self.key(t) == key => return i,
                Some(_) => i = (i + 1) & mask,
            }
        }
    }

    fn grow(&mut self) {
        let size = (self.slots.len() * 2).max(64);
        self.slots.clear();
        self.slots.resize(size, 0);
        self.keys = 0;
        for i in 0..self.touches.len() {
            let touch = self.touches[i];
            let start = touch.key_start as usize;
            let slot = {
                let key = &self.arena[start..start + touch.key_len as usize];
                self.slot(touch.table, key)
            };
            self.keys += usize::from(self.slots[slot] == 0);
            self.slots[slot] = i as u32 + 1;
        }
    }

    /// Adds a touch whose key is written by `put_key`.
    fn push(&mut self, table: u32, kind: TouchKind, seq: u64, put_key: impl FnOnce(&mut Vec<u8>)) {
        if self.touches.len() * 2 >= self.slots.len() {
            self.grow();
        }
        let start = self.arena.len();
        put_key(&mut self.arena);
        let slot = self.slot(table, &self.arena[start..]);
        let prev = self.slots[slot];
        let key_len = (self.arena.len() - start) as u32;
        let mut key_start = start as u32;
        if let Some(before) = (prev as usize).checked_sub(1).and_then(|i| self.touches.get(i)) {
            key_start = before.key_start;
            self.arena.truncate(start);
        }
        self.keys += usize::from(prev == 0);
        self.touches.push(JournalTouch { table, key_start, key_len, prev, kind, seq });
        self.slots[slot] = self.touches.len() as u32;
    }

    fn truncate(&mut self, len: usize) {
        while self.touches.len() > len {
            let Some(last) = self.touches.last().copied() else { return };
            let slot = self.slot(last.table, self.key(&last));
            self.slots[slot] = last.prev;
            self.touches.pop();
            if last.prev == 0 {
                self.keys -= 1;
                self.arena.truncate(last.key_start as usize);
                self.close_gap(slot);
            }
        }
    }

    /// Linear probing without tombstones: entries after a freed slot move up where their probe would stop there.
    /// (Knuth, TAOCP 3, 6.4, algorithm R.)
    fn close_gap(&mut self, mut gap: usize) {
        let mask = self.slots.len() - 1;
        let mut i = gap;
        loop {
            i = (i + 1) & mask;
            let Some(touch) = self.slots[i].checked_sub(1).and_then(|t| self.touches.get(t as usize)) else { return };
            let home = Self::hash(touch.table, self.key(touch)) as usize & mask;
            let reaches = if gap <= i { home <= gap || home > i } else { home <= gap && home > i };
            if reaches {
                self.slots[gap] = self.slots[i];
                self.slots[i] = 0;
                gap = i;
            }
        }
    }
}

impl Journal {
    /// Adds a touch that takes `width` seqs.
    pub fn touch(&mut self, table: u32, kind: TouchKind, width: u64, put_key: impl FnOnce(&mut Vec<u8>)) {
        self.now.push(table, kind, self.next_seq, put_key);
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

    /// The keys of a table that wait to be flushed.
    pub fn keys_of(&self, table: u32) -> Vec<Vec<u8>> {
        let touches = self.now.touches.iter().filter(|t| t.table == table);
        touches.map(|t| self.now.key(t).to_vec()).collect()
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
                let mut saved = self.now.clone();
                saved.truncate(mark.len);
                mark.saved = Some(saved);
            }
        }
        self.flushes += 1;
        std::mem::take(&mut self.now)
    }

    /// The flush failed: nothing of it is written.
    pub fn put_back(&mut self, touches: Touches) {
        self.now = touches;
    }

    /// xSavepoint
    pub fn savepoint(&mut self, id: i32) {
        self.marks.retain(|m| m.id < id);
        let (len, next_seq, flushes) = (self.now.len(), self.next_seq, self.flushes);
        self.marks.push(Mark { id, len, next_seq, flushes, saved: None });
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
            self.now.slots.fill(0);
            self.now.keys = 0;
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

    fn check_index(journal: &Journal) {
        let mut keys: Vec<(u32, u8)> = journal.now.touches.iter().map(|t| (t.table, journal.now.key(t)[0])).collect();
        let order = keys.clone();
        keys.sort_unstable();
        keys.dedup();
        let mut lasts: Vec<usize> = journal.now.last_of_each_key().collect();
        lasts.sort_unstable();
        let by_key = journal.now.keys_in_order();
        assert!(by_key.windows(2).all(|w| order[w[0]] < order[w[1]]) && by_key.len() == lasts.len());
        let mut expected: Vec<usize> = keys.iter().filter_map(|k| order.iter().rposition(|o| o == k)).collect();
        expected.sort_unstable();
        assert_eq!(lasts, expected);
        for last in lasts {
            let mut chain = Vec::new();
            journal.now.chain(last, &mut chain);
            let key = order[last];
            assert_eq!(chain.len(), order.iter().filter(|o| **o == key).count());
        }
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
                check_index(&journal);
            }
        }
    }
}
