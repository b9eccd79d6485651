//! Things in the order of their keys: neighbours in the row clock table are read and written together.

use std::borrow::Cow;

/// Sorts items by table, key and number, which `named` tells. Most keys are told apart by the first bytes that not all of
/// them share, which the sort has at hand.
pub fn in_key_order<'k>(
    items: impl Iterator<Item = usize> + Clone,
    named: impl Fn(usize) -> (u32, &'k [u8]),
) -> Vec<usize> {
    sorted(items, named).into_iter().map(Place::item).collect()
}

/// Table, the eight bytes of the key that are looked at first, and an item's number, in one number: a sort compares it
/// without a branch.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Place(u128);

impl Place {
    fn new(table: u32, head: u64, item: usize) -> Self {
        Self(u128::from(table) << 96 | u128::from(head) << 32 | item as u128)
    }

    const fn item(self) -> usize {
        self.0 as u32 as usize
    }

    /// Whether the keys may be the same.
    const fn is_like(&self, other: &Self) -> bool {
        self.0 >> 32 == other.0 >> 32
    }
}

/// The items of [`in_key_order`]; there are less than 2^32 of them.
fn sorted<'k>(items: impl Iterator<Item = usize> + Clone, named: impl Fn(usize) -> (u32, &'k [u8])) -> Vec<Place> {
    let shared = shared_prefix(items.clone().map(|i| named(i).1));
    let head = |key: &[u8]| {
        let key = key.get(shared..).unwrap_or_default();
        let mut word = [0u8; 8];
        let n = key.len().min(8);
        word[..n].copy_from_slice(&key[..n]);
        u64::from_be_bytes(word)
    };
    let place = |i| {
        let (table, key) = named(i);
        Place::new(table, head(key), i)
    };
    let mut places: Vec<Place> = items.map(place).collect();
    places.sort_unstable();
    for alike in places.chunk_by_mut(Place::is_like).filter(|alike| alike.len() > 1) {
        alike.sort_unstable_by(|a, b| named(a.item()).1.cmp(named(b.item()).1).then(a.cmp(b)));
    }
    places
}

/// Items by key.
#[derive(Default)]
pub struct ByKey {
    order: Cow<'static, [usize]>,
    /// Where each key's items end in `order`; empty where every key has one.
    ends: Vec<usize>,
}

impl ByKey {
    /// The first `n` items, whose table and key `named` tells.
    pub fn of<'k>(n: usize, named: impl Fn(usize) -> (u32, &'k [u8])) -> Self {
        if n == 1 {
            return Self { order: Cow::Borrowed(&[0]), ends: Vec::new() };
        }
        let sorted = sorted(0..n, &named);
        let same = |a: &Place, b: &Place| a.is_like(b) && named(a.item()) == named(b.item());
        let (mut end, mut ends) = (0, Vec::new());
        if sorted.windows(2).any(|pair| same(&pair[0], &pair[1])) {
            for run in sorted.chunk_by(same) {
                end += run.len();
                ends.push(end);
            }
        }
        Self { order: sorted.into_iter().map(Place::item).collect(), ends }
    }

    /// For each key, in the order of tables and keys, the numbers of its items, lowest first.
    pub fn runs(&self) -> impl Iterator<Item = &[usize]> {
        let start_of = |i: usize| i.checked_sub(1).and_then(|i| self.ends.get(i)).copied().unwrap_or(0);
        let runs = self.ends.iter().enumerate();
        let singles = if self.all_single() { &self.order[..] } else { &[] };
        singles.chunks(1).chain(runs.map(move |(i, end)| self.order.get(start_of(i)..*end).unwrap_or_default()))
    }

    /// Whether every key has one item.
    pub fn all_single(&self) -> bool {
        self.ends.is_empty()
    }
}

/// How many bytes all keys begin with.
fn shared_prefix<'k>(mut keys: impl Iterator<Item = &'k [u8]>) -> usize {
    let mut shared = keys.next().unwrap_or_default();
    for key in keys {
        if !key.starts_with(shared) {
            let common = shared.iter().zip(key).take_while(|(a, b)| a == b).count();
            shared = shared.get(..common).unwrap_or_default();
        }
        if shared.is_empty() {
            break;
        }
    }
    shared.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_with_a_shared_beginning_are_sorted_by_what_follows_it() {
        let keys: Vec<Vec<u8>> =
            ["machine-10", "machine-1", "machine-", "machine-2", "machine-10"].map(|k| k.into()).into();
        let order = in_key_order(0..keys.len(), |i| (1, &keys[i]));
        assert_eq!(order, [2, 1, 0, 4, 3]);
        assert_eq!(shared_prefix(keys.iter().map(Vec::as_slice)), 8);
        assert_eq!(shared_prefix([&b"a"[..], b"b"].into_iter()), 0);
        assert_eq!(shared_prefix(std::iter::empty()), 0);
    }
}
