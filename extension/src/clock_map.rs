//! Encoded row clocks in memory, by table and key.

use crate::key_order::in_key_order;
use foldhash::fast::RandomState;
use std::collections::{BTreeMap, HashMap};

/// Memory for so many is kept.
const KEPT: usize = 8 * 1024;

/// Table, key, clock.
pub type Named<'c> = (u32, &'c [u8], &'c [u8]);

/// Clocks in the order of tables and keys, those of a row in the order in which they come.
pub fn by_key<'c>(clocks: impl Iterator<Item = Named<'c>>) -> Vec<Named<'c>> {
    let all: Vec<Named<'c>> = clocks.collect();
    let named = |i: usize| all.get(i).map_or((0, &[][..]), |(table, key, _)| (*table, *key));
    in_key_order(0..all.len(), named).into_iter().filter_map(|i| all.get(i).copied()).collect()
}

/// Row clocks. Keys come from anywhere, so the hash has a seed that nobody knows.
#[derive(Clone, Debug, Default)]
pub struct ClockMap {
    tables: BTreeMap<u32, HashMap<Vec<u8>, Vec<u8>, RandomState>>,
    len: usize,
}

impl ClockMap {
    /// A row's clock.
    pub fn get(&self, table: u32, key: &[u8]) -> Option<&[u8]> {
        if self.len == 0 {
            return None;
        }
        self.tables.get(&table)?.get(key).map(Vec::as_slice)
    }

    /// Sets a row's clock.
    pub fn set(&mut self, table: u32, key: Vec<u8>, clock: Vec<u8>) {
        self.len += usize::from(self.tables.entry(table).or_default().insert(key, clock).is_none());
    }

    /// The tables that have any.
    pub fn tables(&self) -> Vec<u32> {
        self.tables.iter().filter(|(_, clocks)| !clocks.is_empty()).map(|(table, _)| *table).collect()
    }

    /// Whether a table has any.
    pub fn any(&self, table: u32) -> bool {
        self.tables.get(&table).is_some_and(|clocks| !clocks.is_empty())
    }

    /// How many there are.
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Forgets them all, and keeps the memory for as many.
    pub fn clear(&mut self) {
        if self.len > KEPT {
            *self = Self::default();
        }
        self.tables.retain(|_, clocks| !clocks.is_empty());
        self.tables.values_mut().for_each(HashMap::clear);
        self.len = 0;
    }

    /// All of them, in no order.
    pub fn iter(&self) -> impl Iterator<Item = Named<'_>> {
        self.tables.iter().flat_map(|(table, clocks)| {
            clocks.iter().map(move |(key, clock)| (*table, key.as_slice(), clock.as_slice()))
        })
    }

    /// All of them in the order of tables and keys.
    pub fn sorted(&self) -> Vec<Named<'_>> {
        by_key(self.iter())
    }
}
