//! What a table's columns hold, as sums of hashes: how an alter window tells a column that was rewritten or renamed.
//!
//! Each column has a sum for each of a thousand groups of keys, so that a difference points to few rows. A sum does not
//! depend on the order of rows, and a row that was seen twice is not mistaken for none.

use crate::catalog::Table;
use crate::differences::key_in;
use crate::fnv;
use crate::session::Session;
use crate::sqlgen;
use crate::sqlite::Result;
use std::collections::{BTreeMap, BTreeSet};

/// Groups of keys per column.
const GROUPS: usize = 1024;

/// The sums of each column, by column id.
#[derive(Clone, Debug, Default)]
pub struct Digest {
    columns: BTreeMap<u32, Vec<u64>>,
    /// Columns that do not hold one and the same value in every row.
    varied: BTreeSet<u32>,
}

/// The group of a key.
pub fn group_of(key: &[u8]) -> usize {
    // FNV's low bits are its best mixed ones; usize is at least 32 bits wide.
    fnv::feed(fnv::START, key) as usize % GROUPS
}

impl Digest {
    /// Whether two columns hold the same values under the same keys, but for these groups.
    pub fn same_column(&self, id: u32, other: &Self, other_id: u32, but_in: &BTreeSet<usize>) -> bool {
        match (self.columns.get(&id), other.columns.get(&other_id)) {
            (Some(a), Some(b)) => a.iter().zip(b).enumerate().all(|(group, (a, b))| a == b || but_in.contains(&group)),
            _ => false,
        }
    }

    /// Whether values outside of these groups speak for a column. One that every row has may be a default by chance.
    pub fn has_evidence(&self, id: u32, but_in: &BTreeSet<usize>) -> bool {
        if !self.varied.contains(&id) {
            return false;
        }
        let sums = self.columns.get(&id).into_iter().flatten().enumerate();
        sums.into_iter().any(|(group, sum)| *sum != 0 && !but_in.contains(&group))
    }

    /// Whether a column holds the same under the keys of a group.
    pub fn same_group(&self, other: &Self, id: u32, group: usize) -> bool {
        let sum = |digest: &Self| digest.columns.get(&id).and_then(|groups| groups.get(group)).copied();
        sum(self) == sum(other)
    }
}

impl Session {
    /// Reads a table's columns, leaving out the rows whose keys `skip` names.
    pub fn digest(&self, table: &Table, skip: impl Fn(&[u8]) -> bool) -> Result<Digest> {
        let mut sums = vec![vec![0u64; GROUPS]; table.info.columns.len()];
        let mut select = self.db.prepare_transient(&sqlgen::select_rows(&table.info))?;
        let (mut key, mut value) = (Vec::new(), Vec::new());
        let (mut firsts, mut varied) = (Vec::<Vec<u8>>::new(), BTreeSet::new());
        while select.step()? {
            key_in(&select, table, &mut key);
            if skip(&key) {
                continue;
            }
            let (start, group) = (fnv::feed(fnv::START, &key), group_of(&key));
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
        Ok(Digest { columns: table.column_ids.iter().copied().zip(sums).collect(), varied })
    }
}
