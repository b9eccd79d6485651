//! Sets of versions as sorted, disjoint, non-adjacent inclusive ranges.

use alloc::vec::Vec;

/// A set of `u64`s kept as ranges. Adjacent ranges are joined, so equal sets are equal structures.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RangeSet {
    ranges: Vec<(u64, u64)>,
}

impl RangeSet {
    /// The empty set.
    #[must_use]
    pub const fn new() -> Self {
        Self { ranges: Vec::new() }
    }

    /// The set of one range, both ends included; empty when `hi < lo`.
    #[must_use]
    pub fn from_range(lo: u64, hi: u64) -> Self {
        let mut set = Self::new();
        set.insert(lo, hi);
        set
    }

    /// The ranges in order, both ends included.
    #[must_use]
    pub fn ranges(&self) -> &[(u64, u64)] {
        &self.ranges
    }

    /// Whether nothing is in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    /// The largest member.
    #[must_use]
    pub fn max(&self) -> Option<u64> {
        self.ranges.last().map(|r| r.1)
    }

    /// How many members (saturating).
    #[must_use]
    pub fn len(&self) -> u64 {
        self.ranges.iter().fold(0, |n: u64, (lo, hi)| n.saturating_add((hi - lo).saturating_add(1)))
    }

    /// Adds `lo..=hi`; nothing when `hi < lo`.
    pub fn insert(&mut self, lo: u64, hi: u64) {
        if hi < lo {
            return;
        }
        let from = self.ranges.partition_point(|r| r.1.checked_add(1).is_some_and(|next| next < lo));
        let mut to = from;
        let (mut new_lo, mut new_hi) = (lo, hi);
        while let Some(r) = self.ranges.get(to) {
            if hi.checked_add(1).is_some_and(|next| next < r.0) {
                break;
            }
            new_lo = new_lo.min(r.0);
            new_hi = new_hi.max(r.1);
            to += 1;
        }
        self.ranges.splice(from..to, [(new_lo, new_hi)]);
    }

    /// Removes `lo..=hi`.
    pub fn remove(&mut self, lo: u64, hi: u64) {
        if hi < lo {
            return;
        }
        let mut out = Vec::with_capacity(self.ranges.len() + 1);
        for &(a, b) in &self.ranges {
            if b < lo || a > hi {
                out.push((a, b));
                continue;
            }
            if a < lo {
                out.push((a, lo - 1));
            }
            if b > hi {
                out.push((hi + 1, b));
            }
        }
        self.ranges = out;
    }

    /// Whether `v` is in it.
    #[must_use]
    pub fn contains(&self, v: u64) -> bool {
        let i = self.ranges.partition_point(|r| r.1 < v);
        self.ranges.get(i).is_some_and(|r| r.0 <= v)
    }

    /// Whether all of `lo..=hi` is in it.
    #[must_use]
    pub fn contains_range(&self, lo: u64, hi: u64) -> bool {
        let i = self.ranges.partition_point(|r| r.1 < lo);
        hi < lo || self.ranges.get(i).is_some_and(|r| r.0 <= lo && hi <= r.1)
    }

    /// Adds all of `other`.
    pub fn union(&mut self, other: &Self) {
        for &(lo, hi) in &other.ranges {
            self.insert(lo, hi);
        }
    }

    /// What is in `self` and not in `other`.
    #[must_use]
    pub fn difference(&self, other: &Self) -> Self {
        let mut out = self.clone();
        for &(lo, hi) in &other.ranges {
            out.remove(lo, hi);
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::collections::BTreeSet;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn behaves_like_a_set(ops in proptest::collection::vec((any::<bool>(), 0u64..40, 0u64..6), 0..30)) {
            let (mut set, mut model) = (RangeSet::new(), BTreeSet::new());
            for (add, lo, n) in ops {
                if add { set.insert(lo, lo + n); model.extend(lo..=lo + n); }
                else { set.remove(lo, lo + n); model.retain(|v| !(lo..=lo + n).contains(v)); }
                for v in 0..50 { prop_assert_eq!(set.contains(v), model.contains(&v)); }
                for pair in set.ranges().windows(2) { if let [a, b] = pair { prop_assert!(a.1 + 1 < b.0); } }
                prop_assert_eq!(set.len(), model.len() as u64);
            }
        }
    }

    #[test]
    fn the_ends_of_the_number_line_hold() {
        let mut set = RangeSet::from_range(u64::MAX, u64::MAX);
        set.insert(0, 0);
        set.insert(1, u64::MAX - 1);
        assert_eq!(set.ranges(), &[(0, u64::MAX)]);
        set.remove(0, u64::MAX);
        assert!(set.is_empty());
    }
}
