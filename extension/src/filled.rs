//! The keys that have a clock in a table's blocks, where all of them are known: those of a table that had none when a large merge
//! of this transaction began to fill its blocks. Most rows of such a merge are new, and each would be looked for in a block
//! that is read from the file for it.

use std::collections::hash_map::RandomState;
use std::collections::{BTreeMap, HashSet};
use std::hash::{BuildHasher, BuildHasherDefault, Hasher};

/// So many are known of a table at most: 16 MB.
const MAX: usize = 1 << 20;

/// What is hashed is a hash already.
#[derive(Clone, Copy, Default)]
struct Same(u64);

impl Hasher for Same {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|b| self.0 = self.0.rotate_left(8) ^ u64::from(*b));
    }

    fn write_u64(&mut self, n: u64) {
        self.0 = n;
    }
}

/// Hashes of the keys, by table. Two keys may share one: what is lacking here is lacking there, but not the other way round.
#[derive(Clone, Debug, Default)]
pub struct Filled {
    tables: BTreeMap<u32, HashSet<u64, BuildHasherDefault<Same>>>,
    state: Option<RandomState>,
}

impl Filled {
    /// Whether all keys of a table are known.
    pub fn knows(&self, table: u32) -> bool {
        self.tables.contains_key(&table)
    }

    /// The table's blocks hold nothing.
    pub fn begin(&mut self, table: u32) {
        self.tables.entry(table).or_default();
    }

    /// A key gets a clock in its block.
    pub fn add(&mut self, table: u32, key: &[u8]) {
        if self.tables.is_empty() {
            return;
        }
        let hash = self.state.get_or_insert_default().hash_one(key);
        let Some(keys) = self.tables.get_mut(&table) else { return };
        keys.insert(hash);
        if keys.len() > MAX {
            self.tables.remove(&table);
        }
    }

    /// Whether no block of the table has a clock for the key.
    pub fn lacks(&self, table: u32, key: &[u8]) -> bool {
        match (self.tables.get(&table), &self.state) {
            (Some(keys), Some(state)) => !keys.contains(&state.hash_one(key)),
            _ => false,
        }
    }

    /// Nothing is known.
    pub fn clear(&mut self) {
        if !self.tables.is_empty() {
            self.tables.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_table_that_is_known_from_its_beginning_lacks_a_key() {
        let mut filled = Filled::default();
        filled.add(1, b"a");
        assert!(!filled.lacks(1, b"b"));
        filled.begin(1);
        filled.add(1, b"a");
        filled.add(2, b"b");
        assert!(filled.knows(1) && !filled.knows(2));
        assert!(filled.lacks(1, b"b") && !filled.lacks(1, b"a") && !filled.lacks(2, b"c"));
        filled.clear();
        assert!(!filled.lacks(1, b"b"));
    }

    #[test]
    fn a_table_of_too_many_keys_is_not_known_any_more() {
        let mut filled = Filled::default();
        filled.begin(1);
        (0..=MAX as u64).for_each(|i| filled.add(1, &i.to_le_bytes()));
        assert!(!filled.lacks(1, b"b") && !filled.knows(1));
    }
}
