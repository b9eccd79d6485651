//! The version vector: per origin the ranges claimed, the token of the newest claimed dot, and the dots carried.
//!
//! Its encoding is canonical (ordered maps, joined ranges), so equal vectors are equal bytes and a digest of the bytes is
//! a digest of the vector.

use crate::cursor::{put_varint, DecodeError, Problem, Reader};
use crate::ids::{Origin, SiteId, MAX_VERSION, TOKEN_MASK};
use crate::ranges::RangeSet;
use alloc::collections::BTreeMap;
use alloc::vec::Vec;

/// What is known of one origin.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OriginState {
    /// Versions of which all is held. Ranges cover holes: a number that the origin never used is held too.
    pub claimed: RangeSet,
    /// The token of the dot at `claimed.max()`; 0 = not known.
    pub head_token: u64,
    /// Dots of which some cells are held without a claim, each with a hash of what is held.
    pub carried: BTreeMap<u64, u64>,
}

/// A version vector.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Vector {
    /// By origin, in order.
    pub origins: BTreeMap<Origin, OriginState>,
}

const FORMAT: u8 = 1;

impl Vector {
    /// Whether version `v` of `origin` is claimed.
    #[must_use]
    pub fn claims(&self, origin: &Origin, v: u64) -> bool {
        self.origins.get(origin).is_some_and(|o| o.claimed.contains(v))
    }

    /// Claims `lo..=hi`, with the token of `hi` (0 when not known).
    pub fn claim(&mut self, origin: Origin, lo: u64, hi: u64, token: u64) {
        let state = self.origins.entry(origin).or_default();
        let newer = state.claimed.max().is_none_or(|max| max < hi);
        let named_now = state.claimed.max() == Some(hi) && state.head_token == 0;
        if newer || named_now {
            state.head_token = token;
        }
        state.claimed.insert(lo, hi);
        let claimed = &state.claimed;
        state.carried.retain(|v, _| !claimed.contains(*v));
    }

    /// What `self` claims and `other` does not, by origin.
    #[must_use]
    pub fn missing_from(&self, other: &Self) -> BTreeMap<Origin, RangeSet> {
        let empty = RangeSet::new();
        self.origins
            .iter()
            .map(|(origin, state)| {
                let theirs = other.origins.get(origin).map_or(&empty, |o| &o.claimed);
                (*origin, state.claimed.difference(theirs))
            })
            .filter(|(_, missing)| !missing.is_empty())
            .collect()
    }

    /// Whether any dot is carried and not claimed.
    #[must_use]
    pub fn carries_any(&self) -> bool {
        self.origins.values().any(|o| !o.carried.is_empty())
    }

    /// The canonical encoding (docs/FORMAT.md, "Version vector").
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = alloc::vec![FORMAT];
        put_varint(&mut out, self.origins.len() as u64);
        for (origin, state) in &self.origins {
            out.extend_from_slice(&origin.site.0);
            out.extend_from_slice(&origin.epoch.to_le_bytes());
            put_varint(&mut out, state.head_token);
            put_varint(&mut out, state.claimed.ranges().len() as u64);
            let mut last = 0u64;
            for &(lo, hi) in state.claimed.ranges() {
                put_varint(&mut out, lo - last);
                put_varint(&mut out, hi - lo);
                last = hi;
            }
            put_varint(&mut out, state.carried.len() as u64);
            for (version, hash) in &state.carried {
                put_varint(&mut out, *version);
                out.extend_from_slice(&hash.to_le_bytes());
            }
        }
        out
    }

    /// Decodes what [`Vector::encode`] wrote.
    ///
    /// # Errors
    /// Names the field and offset; ranges out of order or above 2^62 are refused.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(bytes);
        if reader.u8("vector format")? != FORMAT {
            return Err(Reader::new(bytes).error("vector format", Problem::UnknownVersion));
        }
        let n = reader.count(27, "number of origins")?;
        let mut vector = Self::default();
        for _ in 0..n {
            let start = reader;
            let origin = Origin { site: SiteId(reader.array("site id")?), epoch: reader.u64_le("epoch")? };
            let state = decode_state(&mut reader)?;
            if vector.origins.insert(origin, state).is_some() {
                return Err(start.error("origin", Problem::Invalid));
            }
        }
        reader.finish("vector")?;
        Ok(vector)
    }
}

fn decode_state(reader: &mut Reader<'_>) -> Result<OriginState, DecodeError> {
    let mut state = OriginState { head_token: reader.varint(TOKEN_MASK, "head token")?, ..OriginState::default() };
    let mut last = 0u64;
    for _ in 0..reader.count(2, "number of ranges")? {
        let start = *reader;
        let lo = last.checked_add(reader.varint(MAX_VERSION, "range start")?);
        let hi = lo.and_then(|lo| lo.checked_add(reader.varint(MAX_VERSION, "range length").ok()?));
        match (lo, hi) {
            (Some(lo), Some(hi)) if hi <= MAX_VERSION => {
                state.claimed.insert(lo, hi);
                last = hi;
            }
            _ => return Err(start.error("range", Problem::TooLarge)),
        }
    }
    for _ in 0..reader.count(9, "number of carried dots")? {
        let version = reader.varint(MAX_VERSION, "carried version")?;
        state.carried.insert(version, reader.u64_le("carried hash")?);
    }
    Ok(state)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn any_vector() -> impl Strategy<Value = Vector> {
        let state = (
            proptest::collection::vec((0u64..1000, 0u64..20), 0..5),
            0..=TOKEN_MASK,
            proptest::collection::btree_map(0..MAX_VERSION, any::<u64>(), 0..4),
        );
        proptest::collection::btree_map((any::<[u8; 16]>(), any::<u64>()), state, 0..5).prop_map(|map| {
            let mut vector = Vector::default();
            for ((site, epoch), (ranges, head_token, carried)) in map {
                let mut claimed = RangeSet::new();
                ranges.iter().for_each(|(lo, n)| claimed.insert(*lo, lo + n));
                let state = OriginState { claimed, head_token, carried };
                vector.origins.insert(Origin { site: SiteId(site), epoch }, state);
            }
            vector
        })
    }

    proptest! {
        #[test]
        fn vectors_round_trip(v in any_vector()) {
            prop_assert_eq!(Vector::decode(&v.encode()).unwrap(), v);
        }

        #[test]
        fn garbage_never_panics(bytes: Vec<u8>) {
            let mut bytes = bytes;
            let _ = Vector::decode(&bytes);
            if let Some(first) = bytes.first_mut() { *first = FORMAT; }
            let _ = Vector::decode(&bytes);
        }

        #[test]
        fn what_is_missing_is_what_a_claim_adds(a in any_vector(), b in any_vector()) {
            let mut joined = b.clone();
            for (origin, ranges) in a.missing_from(&b) {
                for &(lo, hi) in ranges.ranges() { joined.claim(origin, lo, hi, 0); }
            }
            prop_assert!(a.missing_from(&joined).is_empty());
        }
    }
}
