//! What a table's columns hold, as sums of hashes: how an alter window tells a column that was rewritten or renamed.
//!
//! Each column has a sum for each of some thousand groups of keys, so that a difference points to few rows. A sum does not
//! depend on the order of rows, and a row that was seen twice is not mistaken for none.

use crate::catalog::Table;
use crate::differences::key_in;
use crate::fnv;
use crate::session::Session;
use crate::sqlgen;
use crate::sqlite::Result;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

const WORD: usize = u64::BITS as usize;

/// How many groups the keys of a table are put into: many, so that few rows share one with a row that was written, but some
/// megabytes at most for all columns.
pub const fn groups_for(columns: usize) -> usize {
    match columns {
        0..=16 => 1 << 16,
        17..=128 => 1 << 13,
        _ => 1 << 10,
    }
}

/// The sums of each column, by column id.
#[derive(Clone, Debug, Default)]
pub struct Digest {
    /// How many groups there are.
    pub groups: usize,
    columns: BTreeMap<u32, Vec<u64>>,
    /// Columns that do not hold one and the same value in every row.
    varied: BTreeSet<u32>,
}

/// Some of the groups. To copy it costs nothing until it changes.
#[derive(Clone, Debug, Default)]
pub struct Groups(Rc<Vec<u64>>);

impl Groups {
    /// Whether a group is among them.
    pub fn contains(&self, group: usize) -> bool {
        self.0.get(group / WORD).is_some_and(|word| word >> (group % WORD) & 1 == 1)
    }

    /// Adds a group.
    pub fn insert(&mut self, group: usize) {
        let words = Rc::make_mut(&mut self.0);
        if words.len() <= group / WORD {
            words.resize(group / WORD + 1, 0);
        }
        if let Some(word) = words.get_mut(group / WORD) {
            *word |= 1 << (group % WORD);
        }
    }
}

/// The group of a key.
pub fn group_of(key: &[u8], groups: usize) -> usize {
    // FNV's low bits are its best mixed ones; usize is at least 32 bits wide.
    fnv::feed(fnv::START, key) as usize % groups.max(1)
}

impl Digest {
    /// Whether two columns hold the same values under the same keys, but for these groups.
    pub fn same_column(&self, id: u32, other: &Self, other_id: u32, but_in: &Groups) -> bool {
        match (self.columns.get(&id), other.columns.get(&other_id)) {
            (Some(a), Some(b)) => a.iter().zip(b).enumerate().all(|(group, (a, b))| a == b || but_in.contains(group)),
            _ => false,
        }
    }

    /// Whether values outside of these groups speak for a column. One that every row has may be a default by chance.
    pub fn has_evidence(&self, id: u32, but_in: &Groups) -> bool {
        self.varied.contains(&id) && self.has_others(id, but_in)
    }

    /// Whether any row of other groups than these was read.
    pub fn has_others(&self, id: u32, but_in: &Groups) -> bool {
        let sums = self.columns.get(&id).into_iter().flatten().enumerate();
        sums.into_iter().any(|(group, sum)| *sum != 0 && !but_in.contains(group))
    }

    /// Whether a column holds the same under the keys of a group.
    pub fn same_group(&self, other: &Self, id: u32, group: usize) -> bool {
        let sum = |digest: &Self| digest.columns.get(&id).and_then(|groups| groups.get(group)).copied();
        sum(self) == sum(other)
    }
}

impl Session {
    /// Reads a table's columns, leaving out the rows whose keys `skip` names.
    pub fn digest(&self, table: &Table, groups: usize, skip: impl Fn(&[u8]) -> bool) -> Result<Digest> {
        let mut sums = vec![vec![0u64; groups]; table.info.columns.len()];
        let mut select = self.db.prepare_transient(&sqlgen::select_rows(&table.info))?;
        let (mut key, mut value) = (Vec::new(), Vec::new());
        let (mut firsts, mut varied) = (Vec::<Vec<u8>>::new(), BTreeSet::new());
        while select.step()? {
            key_in(&select, table, &mut key);
            if skip(&key) {
                continue;
            }
            let (start, group) = (fnv::feed(fnv::START, &key), group_of(&key, groups));
            for (i, groups) in sums.iter_mut().enumerate() {
                value.clear();
                select.column(table.info.keys.len() + i).encode(&mut value);
                match firsts.get(i) {
                    Some(first) if *first == value => {}
                    Some(_) => varied.extend(table.column_ids.get(i)),
                    None => firsts.push(value.clone()),
                }
                if let Some(sum) = groups.get_mut(group) {
                    *sum = sum.wrapping_add(fnv::feed(start, &value));
                }
            }
        }
        Ok(Digest { groups, columns: table.column_ids.iter().copied().zip(sums).collect(), varied })
    }
}
