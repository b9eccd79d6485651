//! Order keys: texts whose byte order is the order of a list, such that between any two of them there is another.
//!
//! What it does: David Greenspan's "fractional indexing". A key is an integer part, whose head letter codes its length
//! (`a` to `z`: 2 to 27 digits with the head, counting up; `A` to `Z`: 27 down to 2, below them), and a fraction of base-62
//! digits without trailing zeros. Appending and prepending count the integer part, so such keys grow with the logarithm of
//! the list; only inserting again and again at one place makes the fraction longer.
//! What it must never do: answer a key that is not strictly between its neighbours, or recurse with the input's length.
//! Invariant: equal arguments give equal keys, on every replica.

use alloc::vec::Vec;
use core::fmt;

const DIGITS: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
const BASE: u8 = 62;
/// Digits of the longest integer part, head included.
const LONGEST: usize = 27;

/// Why there is no key.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum OrderKeyError {
    /// The head of the lower (false) or upper (true) neighbour is no letter.
    Head(bool),
    /// A neighbour ends within its integer part.
    Short(bool),
    /// A neighbour has a byte that is no base-62 digit.
    Digit(bool),
    /// A neighbour's fraction ends in 0.
    TrailingZero(bool),
    /// A neighbour is the smallest integer, below which nothing has room.
    Smallest(bool),
    /// The lower neighbour is not below the upper one.
    NotBelow,
}

impl fmt::Display for OrderKeyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (upper, why) = match self {
            Self::NotBelow => return f.write_str("the first key must be below the second, in byte order"),
            Self::Head(upper) => (upper, "begins with no letter"),
            Self::Short(upper) => (upper, "is shorter than its first letter says"),
            Self::Digit(upper) => (upper, "has a character other than 0-9, A-Z, a-z"),
            Self::TrailingZero(upper) => (upper, "has a fraction that ends in 0"),
            Self::Smallest(upper) => (upper, "is the smallest integer, which no key may be"),
        };
        write!(f, "the {} key {why}", if *upper { "second" } else { "first" })
    }
}

/// Whether a text is a well-formed key.
#[must_use]
pub fn is_order_key(key: &[u8]) -> bool {
    check(key, false).is_ok()
}

/// The key between two neighbours; `None` is the list's end on that side.
///
/// # Errors
/// A neighbour that is no key, or neighbours that are not in order.
pub fn key_between(lower: Option<&[u8]>, upper: Option<&[u8]>) -> Result<Vec<u8>, OrderKeyError> {
    let a = lower.map(|key| check(key, false)).transpose()?;
    let b = upper.map(|key| check(key, true)).transpose()?;
    if matches!((lower, upper), (Some(lower), Some(upper)) if lower >= upper) {
        return Err(OrderKeyError::NotBelow);
    }
    Ok(match (a, b) {
        (None, None) => b"a0".to_vec(),
        (None, Some((integer, fraction))) => before(integer, fraction),
        (Some((integer, fraction)), None) => {
            increment(integer).unwrap_or_else(|| with_fraction(integer, fraction, None))
        }
        (Some((integer, fraction)), Some((other, upper_fraction))) if integer == other => {
            with_fraction(integer, fraction, Some(upper_fraction))
        }
        (Some((integer, fraction)), Some(_)) => match increment(integer) {
            Some(next) if upper.is_some_and(|upper| next.as_slice() < upper) => next,
            _ => with_fraction(integer, fraction, None),
        },
    })
}

/// The `i`-th (from 1) of `n` keys that lie between two neighbours, evenly spread and ascending with `i`.
///
/// # Errors
/// As [`key_between`].
pub fn nth_key_between(lower: Option<&[u8]>, upper: Option<&[u8]>, i: u64, n: u64) -> Result<Vec<u8>, OrderKeyError> {
    let (mut lower, mut upper) = (lower.map(<[u8]>::to_vec), upper.map(<[u8]>::to_vec));
    let (mut first, mut last) = (1, n.max(1));
    let i = i.clamp(first, last);
    loop {
        let middle = first + (last - first) / 2;
        let key = key_between(lower.as_deref(), upper.as_deref())?;
        match i.cmp(&middle) {
            core::cmp::Ordering::Equal => return Ok(key),
            core::cmp::Ordering::Less => (upper, last) = (Some(key), middle - 1),
            core::cmp::Ordering::Greater => (lower, first) = (Some(key), middle + 1),
        }
    }
}

/// Splits a well-formed key into integer part and fraction.
fn check(key: &[u8], upper: bool) -> Result<(&[u8], &[u8]), OrderKeyError> {
    let length = match key.first() {
        Some(head @ b'a'..=b'z') => usize::from(head - b'a') + 2,
        Some(head @ b'A'..=b'Z') => usize::from(b'Z' - head) + 2,
        _ => return Err(OrderKeyError::Head(upper)),
    };
    let (integer, fraction) = key.split_at_checked(length).ok_or(OrderKeyError::Short(upper))?;
    if !key.iter().all(u8::is_ascii_alphanumeric) {
        return Err(OrderKeyError::Digit(upper));
    }
    if fraction.last() == Some(&b'0') {
        return Err(OrderKeyError::TrailingZero(upper));
    }
    if fraction.is_empty() && is_smallest(integer) {
        return Err(OrderKeyError::Smallest(upper));
    }
    Ok((integer, fraction))
}

fn is_smallest(integer: &[u8]) -> bool {
    integer.len() == LONGEST && integer.first() == Some(&b'A') && integer.iter().skip(1).all(|digit| *digit == b'0')
}

/// A key below one that nothing precedes.
fn before(integer: &[u8], fraction: &[u8]) -> Vec<u8> {
    if is_smallest(integer) {
        return with_fraction(integer, b"", Some(fraction));
    }
    if !fraction.is_empty() {
        // The bare integer is below it, and shorter.
        return integer.to_vec();
    }
    match decrement(integer) {
        Some(smallest) if is_smallest(&smallest) => with_fraction(&smallest, b"", None),
        Some(previous) => previous,
        // Only the smallest integer has none before it.
        None => with_fraction(integer, b"", Some(fraction)),
    }
}

fn value(digit: u8) -> u8 {
    match digit {
        b'0'..=b'9' => digit - b'0',
        b'A'..=b'Z' => digit - b'A' + 10,
        _ => digit.saturating_sub(b'a') + 36,
    }
}

fn digit(value: u8) -> u8 {
    DIGITS.get(usize::from(value)).copied().unwrap_or(b'z')
}

/// The next integer; none after the largest.
fn increment(integer: &[u8]) -> Option<Vec<u8>> {
    let mut out = integer.to_vec();
    let (head, digits) = out.split_first_mut()?;
    for d in digits.iter_mut().rev() {
        if value(*d) + 1 < BASE {
            *d = digit(value(*d) + 1);
            return Some(out);
        }
        *d = b'0';
    }
    match *head {
        b'z' => return None,
        b'Z' => return Some(b"a0".to_vec()),
        _ => *head += 1,
    }
    // Lower-case heads grow upwards, upper-case ones downwards.
    if *head > b'a' {
        out.push(b'0');
    } else {
        out.pop();
    }
    Some(out)
}

/// The integer before; none before the smallest.
fn decrement(integer: &[u8]) -> Option<Vec<u8>> {
    let mut out = integer.to_vec();
    let (head, digits) = out.split_first_mut()?;
    for d in digits.iter_mut().rev() {
        if value(*d) > 0 {
            *d = digit(value(*d) - 1);
            return Some(out);
        }
        *d = b'z';
    }
    match *head {
        b'A' => return None,
        b'a' => return Some(b"Zz".to_vec()),
        _ => *head -= 1,
    }
    if *head < b'Z' {
        out.push(b'z');
    } else {
        out.pop();
    }
    Some(out)
}

/// The integer with the fraction halfway between two fractions; `None` is 1.
fn with_fraction(integer: &[u8], lower: &[u8], upper: Option<&[u8]>) -> Vec<u8> {
    let mut out = integer.to_vec();
    let (mut a, mut b) = (lower, upper);
    loop {
        if let Some(upper) = b {
            let padded = a.iter().chain(core::iter::repeat(&b'0'));
            let common = upper.iter().zip(padded).take_while(|(x, y)| x == y).count();
            let (shared, rest) = upper.split_at_checked(common).unwrap_or((upper, b""));
            out.extend_from_slice(shared);
            a = a.get(common..).unwrap_or(b"");
            b = Some(rest);
        }
        let low = a.first().map_or(0, |d| value(*d));
        let high = b.and_then(<[u8]>::first).map_or(BASE, |d| value(*d));
        if high > low + 1 {
            // The two add up to at most 123.
            out.push(digit((low + high).div_ceil(2)));
            return out;
        }
        match b {
            Some(upper) if upper.len() > 1 => {
                out.push(digit(high));
                return out;
            }
            _ => {
                out.push(digit(low));
                a = a.get(1..).unwrap_or(b"");
                b = None;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::String;
    use proptest::prelude::*;

    fn between(a: &str, b: &str) -> Result<String, OrderKeyError> {
        let side = |s: &'static str| (!s.is_empty()).then_some(s.as_bytes());
        let (a, b) = (String::from(a).leak(), String::from(b).leak());
        key_between(side(a), side(b)).map(|key| String::from_utf8(key).expect("digits are ASCII"))
    }

    #[test]
    fn the_schemes_own_examples() {
        let nothing_before = ["A00000000000000000000000001", "A00000000000000000000000000V"];
        for (a, b, key) in [
            ("", "", "a0"),
            ("", "a0", "Zz"),
            ("", "Zz", "Zy"),
            ("a0", "", "a1"),
            ("a1", "", "a2"),
            ("a0", "a1", "a0V"),
            ("a1", "a2", "a1V"),
            ("a0V", "a1", "a0l"),
            ("Zz", "a0", "ZzV"),
            ("Zz", "a1", "a0"),
            ("", "Y00", "Xzzz"),
            ("bzz", "", "c000"),
            ("a0", "a0V", "a0G"),
            ("a0", "a0G", "a08"),
            ("b125", "b129", "b127"),
            ("a0", "a1V", "a1"),
            ("Zz", "a01", "a0"),
            ("", "a0V", "a0"),
            ("", "b999", "b99"),
            ("", nothing_before[0], nothing_before[1]),
            ("", nothing_before[1], "A00000000000000000000000000G"),
            ("zzzzzzzzzzzzzzzzzzzzzzzzzzy", "", "zzzzzzzzzzzzzzzzzzzzzzzzzzz"),
            ("zzzzzzzzzzzzzzzzzzzzzzzzzzz", "", "zzzzzzzzzzzzzzzzzzzzzzzzzzzV"),
        ] {
            assert_eq!(between(a, b).as_deref(), Ok(key), "between {a} and {b}");
        }
    }

    #[test]
    fn what_is_no_key_is_refused_by_name() {
        use OrderKeyError::{Digit, Head, NotBelow, Short, Smallest, TrailingZero};
        for (a, b, why) in [
            ("0", "", Head(false)),
            ("-1", "", Head(false)),
            ("", "1", Head(true)),
            ("a", "", Short(false)),
            ("", "c00", Short(true)),
            ("a!", "", Digit(false)),
            ("a1é", "", Digit(false)),
            ("a00", "", TrailingZero(false)),
            ("", "a1V0", TrailingZero(true)),
            ("A00000000000000000000000000", "", Smallest(false)),
            ("a1", "a0", NotBelow),
            ("a1", "a1", NotBelow),
        ] {
            assert_eq!(between(a, b), Err(why), "between {a} and {b}");
        }
    }

    #[test]
    fn appending_and_prepending_grow_logarithmically() {
        let (mut last, mut first) = (b"a0".to_vec(), b"a0".to_vec());
        for _ in 0..1_000_000 {
            let next = key_between(Some(&last), None).expect("a key");
            let previous = key_between(None, Some(&first)).expect("a key");
            assert!(next > last && previous < first);
            (last, first) = (next, previous);
        }
        assert_eq!((last.len(), first.len()), (5, 5));
    }

    #[test]
    fn a_very_long_key_takes_no_stack() {
        let mut long = b"a0".to_vec();
        long.resize(2_000_000, b'z');
        let key = key_between(Some(&long), Some(b"a1")).expect("a key");
        assert!(key > long && key.as_slice() < b"a1".as_slice());
    }

    proptest! {
        #[test]
        fn chains_of_inserts_keep_strict_order(places in proptest::collection::vec((any::<u16>(), 0..4u8), 1..400)) {
            let mut list: Vec<Vec<u8>> = Vec::new();
            for (place, habit) in places {
                // Anywhere, in front, at the end, or always at one place.
                let at = match habit {
                    0 => usize::from(place) % (list.len() + 1),
                    1 => 0,
                    2 => list.len(),
                    _ => list.len() / 2,
                };
                let lower = at.checked_sub(1).map(|i| list[i].clone());
                let upper = list.get(at).cloned();
                let key = key_between(lower.as_deref(), upper.as_deref()).expect("a key");
                prop_assert!(is_order_key(&key));
                list.insert(at, key);
            }
            prop_assert!(list.windows(2).all(|pair| pair[0] < pair[1]));
        }

        #[test]
        fn between_any_two_keys_is_one_more(a in "[a-c][0-9A-Za-z]{4}[1-9A-Za-z]", b in "[X-Z][0-9A-Za-z]{4}[1-9A-Za-z]{0,9}") {
            for pair in [[a.as_bytes(), b.as_bytes()], [b.as_bytes(), a.as_bytes()]] {
                match key_between(Some(pair[0]), Some(pair[1])) {
                    Ok(key) => {
                        prop_assert!(pair[0] < key.as_slice() && key.as_slice() < pair[1]);
                        prop_assert!(is_order_key(&key));
                    }
                    Err(e) => prop_assert!(e == OrderKeyError::NotBelow || !is_order_key(pair[0]) || !is_order_key(pair[1])),
                }
            }
        }

        #[test]
        fn any_bytes_are_answered_or_refused(a: Option<Vec<u8>>, b: Option<Vec<u8>>) {
            let _ = key_between(a.as_deref(), b.as_deref());
        }

        #[test]
        fn n_keys_between_two_are_strictly_ascending(n in 1..200u64) {
            let keys: Vec<Vec<u8>> =
                (1..=n).map(|i| nth_key_between(Some(b"a0"), Some(b"a0V"), i, n).expect("a key")).collect();
            prop_assert!(keys.windows(2).all(|pair| pair[0] < pair[1]));
            prop_assert!(keys.iter().all(|key| key.as_slice() > b"a0" && key.as_slice() < b"a0V"));
        }
    }
}
