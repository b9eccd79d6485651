//! Sets of ranges against a set of numbers: a window at each end of the number line.

use super::feed::Feed;
use starling_crdt::RangeSet;
use std::collections::BTreeSet;

const WINDOW: u64 = 64;

/// A number of either window.
fn number(feed: &mut Feed<'_>) -> u64 {
    let b = feed.byte();
    let within = u64::from(b) % WINDOW;
    if b & 0x80 == 0 {
        within
    } else {
        u64::MAX - within
    }
}

/// What the model can represent: the numbers of both windows.
fn windows() -> impl Iterator<Item = u64> {
    (0..WINDOW).chain((0..WINDOW).map(|v| u64::MAX - v))
}

/// The target.
pub fn ranges(data: &[u8]) {
    let mut feed = Feed::new(data);
    let (mut set, mut model) = (RangeSet::new(), BTreeSet::new());
    let (mut other, mut other_model) = (RangeSet::new(), BTreeSet::new());
    for _ in 0..64 {
        if feed.is_empty() {
            break;
        }
        let (what, lo, hi) = (feed.below(6), number(&mut feed), number(&mut feed));
        let inside = |v: &u64| lo <= *v && *v <= hi;
        match what {
            0 | 1 => {
                set.insert(lo, hi);
                model.extend(windows().filter(inside));
            }
            2 => {
                set.remove(lo, hi);
                model.retain(|v| !inside(v));
            }
            3 => {
                other.insert(lo, hi);
                other_model.extend(windows().filter(inside));
            }
            4 => {
                set.union(&other);
                model.extend(&other_model);
            }
            _ => {
                set = set.difference(&other);
                model.retain(|v| !other_model.contains(v));
            }
        }
        check(&set, &model);
        let whole = windows().filter(inside).all(|v| model.contains(&v));
        if set.contains_range(lo, hi) {
            assert!(whole, "{lo}..={hi} is not wholly in {set:?}");
        }
    }
}

fn check(set: &RangeSet, model: &BTreeSet<u64>) {
    for v in windows() {
        assert_eq!(set.contains(v), model.contains(&v), "{v} in {set:?}");
    }
    for pair in set.ranges().windows(2) {
        assert!(pair[0].1 < u64::MAX && pair[0].1 + 1 < pair[1].0, "ranges that touch or overlap: {set:?}");
    }
    assert!(set.ranges().iter().all(|(lo, hi)| lo <= hi));
    assert_eq!(set.max(), set.ranges().last().map(|r| r.1));
    let members = set.ranges().iter().fold(0u64, |n, (lo, hi)| n.saturating_add((hi - lo).saturating_add(1)));
    assert_eq!((set.len(), set.is_empty()), (members, members == 0));
}
