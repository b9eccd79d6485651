//! Clock blocks: the row clocks of neighbouring keys in one small blob.
//!
//! One b-tree entry per row clock would cost more than the row's own update. A block holds a few dozen, keys front-coded,
//! and is small enough to stay inside a b-tree leaf without overflow.

use crate::cursor::{put_bytes, put_varint, DecodeError, Problem, Reader};
use alloc::vec::Vec;
use core::cell::Cell;
use core::ops::Range;

const FORMAT: u8 = 1;
/// A block is closed once it is this long: a 4096-byte page holds four in a table without rowids.
pub const BLOCK_TARGET: usize = 850;
/// Front-coding may save at most this much in one block. Before its last entry a block that was written here is shorter than
/// [`BLOCK_TARGET`], so it holds at most 212 entries, which share at most 850 bytes each; a forged one could unfold without bound.
const MAX_SAVED: usize = 256 * 1024;

/// Where no key was found: it has no neighbour either.
const NOWHERE: usize = usize::MAX - 1;
/// Bytes that an entry takes at least, mostly.
const ENTRY_LIKELY: usize = 24;

#[derive(Clone, Debug)]
struct Slot {
    key: Range<usize>,
    clock: Range<usize>,
}

/// A block's entries, in key order, for reading and editing.
#[derive(Clone, Debug, Default)]
pub struct ClockBlock {
    arena: Vec<u8>,
    slots: Vec<Slot>,
    /// Where a key was found last: the same is likely to be asked for next, or the one behind it.
    found: Cell<usize>,
}

impl ClockBlock {
    /// Decodes a block.
    ///
    /// # Errors
    /// Names the field; an unknown format, keys out of order and bytes left over are refused.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut block = Self::default();
        let mut r = Reader::new(bytes);
        if r.u8("clock block format")? != FORMAT {
            return Err(Reader::new(bytes).error("clock block format", Problem::UnknownVersion));
        }
        block.arena.reserve(bytes.len() * 2);
        block.slots.reserve(bytes.len() / ENTRY_LIKELY);
        let mut last = 0..0;
        let mut saved = 0usize;
        while !r.is_empty() {
            let start = r;
            let shared = usize::try_from(r.varint(u64::from(u32::MAX), "shared key bytes")?).unwrap_or(usize::MAX);
            let rest = r.bytes("key")?;
            let clock = r.bytes("row clock")?;
            if shared > last.len() {
                return Err(start.error("shared key bytes", Problem::Invalid));
            }
            saved = saved.saturating_add(shared);
            if saved > MAX_SAVED {
                return Err(start.error("shared key bytes", Problem::TooLarge));
            }
            // Up to `shared` it is the key before.
            if !block.slots.is_empty() && block.slice(&(last.start + shared..last.end)) >= rest {
                return Err(start.error("key", Problem::Invalid));
            }
            let from = block.arena.len();
            block.arena.extend_from_within(last.start..last.start + shared);
            block.arena.extend_from_slice(rest);
            let key = from..block.arena.len();
            block.arena.extend_from_slice(clock);
            block.slots.push(Slot { key: key.clone(), clock: key.end..block.arena.len() });
            last = key;
        }
        Ok(block)
    }

    /// A key's clock bytes out of an encoded block, for who asks for one key only: nothing is kept.
    ///
    /// # Errors
    /// As [`ClockBlock::decode`], as far as it had to read.
    pub fn find_encoded<'b>(bytes: &'b [u8], key: &[u8]) -> Result<Option<&'b [u8]>, DecodeError> {
        let mut r = Reader::new(bytes);
        if r.u8("clock block format")? != FORMAT {
            return Err(Reader::new(bytes).error("clock block format", Problem::UnknownVersion));
        }
        // How many bytes of `key` the entry before has in common with it, and how long that entry's key is.
        let (mut common, mut len) = (0, 0);
        while !r.is_empty() {
            let start = r;
            let shared = usize::try_from(r.varint(u64::from(u32::MAX), "shared key bytes")?).unwrap_or(usize::MAX);
            let rest = r.bytes("key")?;
            let clock = r.bytes("row clock")?;
            if shared > len {
                return Err(start.error("shared key bytes", Problem::Invalid));
            }
            len = shared + rest.len();
            if shared > common {
                // It differs from `key` where the one before did.
                continue;
            }
            let wanted = key.get(shared..).unwrap_or_default();
            let more = rest.iter().zip(wanted).take_while(|(a, b)| a == b).count();
            common = shared + more;
            if common == key.len() && common == len {
                return Ok(Some(clock));
            }
            if rest.get(more) > wanted.get(more) {
                return Ok(None);
            }
        }
        Ok(None)
    }

    fn slice(&self, range: &Range<usize>) -> &[u8] {
        self.arena.get(range.clone()).unwrap_or_default()
    }

    /// Number of entries.
    #[must_use]
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// The last key.
    #[must_use]
    pub fn last_key(&self) -> Option<&[u8]> {
        self.slots.last().map(|s| self.slice(&s.key))
    }

    /// Bytes held, those of replaced entries included.
    #[must_use]
    pub fn weight(&self) -> usize {
        self.arena.len()
    }

    /// The entries in key order.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.slots.iter().map(|s| (self.slice(&s.key), self.slice(&s.clock)))
    }

    fn find(&self, key: &[u8]) -> Result<usize, usize> {
        let found = self.found.get();
        let is_at = |i: &usize| self.slots.get(*i).is_some_and(|s| self.slice(&s.key) == key);
        if let Some(i) = [found, found + 1].into_iter().find(is_at) {
            self.found.set(i);
            return Ok(i);
        }
        // Bulk writes come in key order.
        if self.slots.last().is_some_and(|last| self.slice(&last.key) < key) {
            self.found.set(NOWHERE);
            return Err(self.slots.len());
        }
        let at = self.slots.binary_search_by(|s| self.slice(&s.key).cmp(key));
        self.found.set(at.unwrap_or_else(|i| i));
        at
    }

    /// A key's clock bytes.
    #[must_use]
    pub fn get(&self, key: &[u8]) -> Option<&[u8]> {
        self.find(key).ok().and_then(|i| self.slots.get(i)).map(|s| self.slice(&s.clock))
    }

    /// Sets a key's clock bytes.
    pub fn set(&mut self, key: &[u8], clock: &[u8]) {
        match self.find(key) {
            Ok(i) => {
                let start = self.arena.len();
                self.arena.extend_from_slice(clock);
                let end = self.arena.len();
                if let Some(slot) = self.slots.get_mut(i) {
                    slot.clock = start..end;
                }
            }
            Err(i) => {
                let start = self.arena.len();
                self.arena.extend_from_slice(key);
                let middle = self.arena.len();
                self.arena.extend_from_slice(clock);
                self.slots.insert(i, Slot { key: start..middle, clock: middle..self.arena.len() });
            }
        }
    }

    /// Removes a key; returns whether it was there.
    pub fn remove(&mut self, key: &[u8]) -> bool {
        match self.find(key) {
            Ok(i) => {
                self.slots.remove(i);
                true
            }
            Err(_) => false,
        }
    }

    /// Encodes the entries as blocks of about [`BLOCK_TARGET`] bytes; `emit` gets each block's first key and bytes.
    ///
    /// # Errors
    /// What `emit` returns.
    pub fn encode<E>(&self, mut emit: impl FnMut(&[u8], &[u8]) -> Result<(), E>) -> Result<(), E> {
        let mut out: Vec<u8> = Vec::with_capacity(BLOCK_TARGET + 128);
        let (mut first, mut last): (&[u8], &[u8]) = (&[], &[]);
        for (key, clock) in self.iter() {
            if out.len() >= BLOCK_TARGET {
                emit(first, &out)?;
                out.clear();
            }
            if out.is_empty() {
                out.push(FORMAT);
                first = key;
                last = &[];
            }
            let shared = last.iter().zip(key).take_while(|(a, b)| a == b).count();
            put_varint(&mut out, shared as u64);
            put_bytes(&mut out, key.get(shared..).unwrap_or_default());
            put_bytes(&mut out, clock);
            last = key;
        }
        if out.is_empty() {
            Ok(())
        } else {
            emit(first, &out)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::collections::BTreeMap;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn blocks_behave_like_a_map_and_round_trip(
            ops in proptest::collection::vec((proptest::collection::vec(0u8..4, 0..5), any::<bool>(), 0usize..40), 0..200)
        ) {
            let (mut block, mut model) = (ClockBlock::default(), BTreeMap::new());
            for (key, set, n) in ops {
                if set { let clock = alloc::vec![7u8; n]; block.set(&key, &clock); model.insert(key, clock); }
                else { prop_assert_eq!(block.remove(&key), model.remove(&key).is_some()); }
            }
            let mut back = Vec::new();
            block.encode(|first, bytes| -> Result<(), DecodeError> {
                let part = ClockBlock::decode(bytes)?;
                for n in 0..400usize {
                    let key: Vec<u8> = (0..n % 6).map(|i| ((n / 6) >> (2 * i)) as u8 & 3).collect();
                    assert_eq!(ClockBlock::find_encoded(bytes, &key)?, part.get(&key));
                }
                assert_eq!(part.iter().next().map(|e| e.0), Some(first));
                back.extend(part.iter().map(|(k, c)| (k.to_vec(), c.to_vec())));
                Ok(())
            }).unwrap();
            prop_assert_eq!(back, model.into_iter().collect::<Vec<_>>());
        }

        #[test]
        fn garbage_never_panics(bytes: Vec<u8>) {
            let mut bytes = bytes;
            if let Some(b) = bytes.first_mut() { *b = FORMAT; }
            let _ = ClockBlock::decode(&bytes);
            let _ = ClockBlock::find_encoded(&bytes, &[1, 2]);
        }
    }

    #[test]
    fn a_block_that_would_unfold_without_bound_is_refused() {
        let mut bytes = alloc::vec![FORMAT];
        put_varint(&mut bytes, 0);
        put_bytes(&mut bytes, &[0u8; 40_000]);
        put_bytes(&mut bytes, b"");
        for i in 0..10_000u16 {
            put_varint(&mut bytes, 40_000);
            put_bytes(&mut bytes, &i.to_be_bytes());
            put_bytes(&mut bytes, b"");
        }
        assert_eq!(ClockBlock::decode(&bytes).unwrap_err().problem, Problem::TooLarge);
    }

    #[test]
    fn long_keys_that_share_nearly_everything_still_fit_a_block() {
        let mut block = ClockBlock::default();
        for i in 0..2000u16 {
            let key = [&[7u8; 840][..], &i.to_be_bytes()].concat();
            block.set(&key, &[1]);
        }
        let mut n = 0;
        block
            .encode(|_, bytes| {
                n += ClockBlock::decode(bytes)?.len();
                Ok::<(), DecodeError>(())
            })
            .unwrap();
        assert_eq!(n, 2000);
    }
}
