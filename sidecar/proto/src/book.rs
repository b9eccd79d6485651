//! The book: what this node claims, what it knows to exist, and so what it misses.
//!
//! Invariant: `own` never claims more than the store does. It may lag behind (a commit not yet reported), which costs at
//! most something received twice.

use crate::api::{Now, OriginStatus};
use crate::digest::digest;
use starling_crdt::changeset::DotHeader;
use starling_crdt::{Dot, Origin, RangeSet, SiteId, Vector};
use std::collections::BTreeMap;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Book {
    own: Vector,
    encoded: Option<(Vec<u8>, u64)>,
    /// What each peer claimed when it last said so, of what was not held then.
    known: BTreeMap<SiteId, BTreeMap<Origin, RangeSet>>,
    missing_since: BTreeMap<Origin, Now>,
    newest_commit_ms: BTreeMap<Origin, u64>,
}

/// What one vector has that another lacks.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Gains {
    /// Claims.
    pub(crate) claims: bool,
    /// Cells of unclaimed dots.
    pub(crate) carried: bool,
}

impl Gains {
    /// Whether there is anything to gain.
    pub(crate) const fn any(self) -> bool {
        self.claims || self.carried
    }
}

/// What whoever has `ours` would gain from whoever has `theirs`.
pub(crate) fn gains(theirs: &Vector, ours: &Vector) -> Gains {
    let mut gains = Gains::default();
    for (origin, state) in &theirs.origins {
        let mine = ours.origins.get(origin);
        let holds = |lo, hi| mine.is_some_and(|m| m.claimed.contains_range(lo, hi));
        gains.claims |= state.claimed.ranges().iter().any(|&(lo, hi)| !holds(lo, hi));
        gains.carried |=
            state.carried.iter().any(|(v, hash)| !holds(*v, *v) && mine.is_none_or(|m| m.carried.get(v) != Some(hash)));
    }
    gains
}

impl Book {
    /// The store was opened: what was believed before is void.
    pub(crate) fn start(&mut self, vector: Vector) {
        self.own = vector;
        self.encoded = None;
        // Under which names the peers hold it now they say again.
        self.missing_since.clear();
        self.known.clear();
    }

    /// The store's vector was read at some moment; claims reported since are kept.
    pub(crate) fn read(&mut self, now: Now, mut vector: Vector) {
        for (origin, state) in &self.own.origins {
            let max = state.claimed.max();
            for &(lo, hi) in state.claimed.ranges() {
                let held = vector.origins.get(origin).is_some_and(|o| o.claimed.contains_range(lo, hi));
                if !held {
                    vector.claim(*origin, lo, hi, if Some(hi) == max { state.head_token } else { 0 });
                }
            }
        }
        self.own = vector;
        self.encoded = None;
        let origins: Vec<Origin> = self.missing_since.keys().copied().collect();
        origins.iter().for_each(|origin| self.note(now, origin));
    }

    /// A changeset is merged and claimed, or was committed here.
    pub(crate) fn claim(&mut self, now: Now, header: &DotHeader) {
        let origin = header.dot.origin;
        self.own.claim(origin, header.prev.saturating_add(1), header.dot.version, header.token);
        let newest = self.newest_commit_ms.entry(origin).or_insert(0);
        *newest = (*newest).max(header.commit_ms);
        self.encoded = None;
        self.note(now, &origin);
    }

    /// A whole answer is merged and its vector claimed. Says whether that claimed anything new.
    pub(crate) fn claim_all(&mut self, now: Now, vector: &Vector) -> bool {
        let mut news = false;
        for (origin, state) in &vector.origins {
            let max = state.claimed.max();
            let held = self.own.origins.get(origin);
            let new: Vec<(u64, u64)> = state
                .claimed
                .ranges()
                .iter()
                .copied()
                .filter(|&(lo, hi)| !held.is_some_and(|o| o.claimed.contains_range(lo, hi)))
                .collect();
            for &(lo, hi) in &new {
                self.own.claim(*origin, lo, hi, if Some(hi) == max { state.head_token } else { 0 });
            }
            if !new.is_empty() {
                news = true;
                self.note(now, origin);
            }
        }
        self.encoded = if news { None } else { self.encoded.take() };
        news
    }

    /// A peer claims all this, and nothing else any more.
    pub(crate) fn saw_vector(&mut self, now: Now, peer: SiteId, vector: &Vector) {
        let before = self.known.remove(&peer).unwrap_or_default();
        self.saw_some(now, peer, vector);
        before.keys().for_each(|origin| self.note(now, origin));
    }

    /// A peer claims this, and maybe more.
    pub(crate) fn saw_some(&mut self, now: Now, peer: SiteId, vector: &Vector) {
        for (origin, state) in &vector.origins {
            let held = self.own.origins.get(origin).map(|o| &o.claimed);
            let is_held = |&(lo, hi): &(u64, u64)| held.is_some_and(|held| held.contains_range(lo, hi));
            if !state.claimed.ranges().iter().all(is_held) {
                self.known.entry(peer).or_default().entry(*origin).or_default().union(&state.claimed);
                self.note(now, origin);
            }
        }
    }

    /// A peer claims what is claimed here.
    pub(crate) fn saw_equal(&mut self, now: Now, peer: &SiteId) {
        for origin in self.known.remove(peer).unwrap_or_default().into_keys() {
            self.note(now, &origin);
        }
    }

    /// What somebody claims of an origin, and is not held.
    fn missing(&self, origin: &Origin) -> RangeSet {
        let mut all = RangeSet::default();
        self.known.values().filter_map(|of_peer| of_peer.get(origin)).for_each(|known| all.union(known));
        self.own.origins.get(origin).map_or(all.clone(), |state| all.difference(&state.claimed))
    }

    fn note(&mut self, now: Now, origin: &Origin) {
        if !self.missing(origin).ranges().is_empty() {
            self.missing_since.entry(*origin).or_insert(now);
            return;
        }
        self.missing_since.remove(origin);
        self.known.retain(|_, of_peer| {
            of_peer.remove(origin);
            !of_peer.is_empty()
        });
    }

    /// Whether a dot is claimed.
    pub(crate) fn claims(&self, dot: &Dot) -> bool {
        self.own.claims(&dot.origin, dot.version)
    }

    /// What is claimed.
    pub(crate) const fn vector(&self) -> &Vector {
        &self.own
    }

    /// The vector's bytes and their digest.
    pub(crate) fn encoded(&mut self) -> (&[u8], u64) {
        let own = &self.own;
        let (bytes, hash) = self.encoded.get_or_insert_with(|| {
            let bytes = own.encode();
            let hash = digest(&bytes);
            (bytes, hash)
        });
        (bytes, *hash)
    }

    /// Per origin, in order.
    pub(crate) fn status(&self, now: Now) -> Vec<OriginStatus> {
        let mut origins: Vec<&Origin> = self.own.origins.keys().chain(self.missing_since.keys()).collect();
        origins.sort_unstable();
        origins.dedup();
        origins.into_iter().map(|origin| self.status_of(now, origin)).collect()
    }

    fn status_of(&self, now: Now, origin: &Origin) -> OriginStatus {
        let state = self.own.origins.get(origin);
        let held = state.map(|s| s.claimed.clone()).unwrap_or_default();
        OriginStatus {
            origin: *origin,
            missing: self.missing(origin),
            held,
            missing_for_us: self.missing_since.get(origin).map_or(0, |since| now.since(*since)),
            carried: state.map_or(0, |s| s.carried.len() as u64),
            newest_commit_ms: self.newest_commit_ms.get(origin).copied().unwrap_or(0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origin(n: u8) -> Origin {
        Origin { site: SiteId([n; 16]), epoch: 1 }
    }

    fn header(n: u8, prev: u64, version: u64) -> DotHeader {
        let dot = Dot { origin: origin(n), version };
        DotHeader { dot, token: version + 7, prev, prev_token: 0, commit_ms: 100 + version }
    }

    #[test]
    fn what_peers_claim_is_missing_until_it_is_held() {
        let mut book = Book::default();
        let mut theirs = Vector::default();
        theirs.claim(origin(1), 1, 5, 9);
        book.saw_vector(Now(10), SiteId([9; 16]), &theirs);
        book.claim(Now(20), &header(1, 0, 3));
        let status = &book.status(Now(30))[0];
        assert_eq!((status.held.ranges(), status.missing.ranges()), (&[(1, 3)][..], &[(4, 5)][..]));
        assert_eq!((status.missing_for_us, status.newest_commit_ms), (20, 103));
        assert!(book.claim_all(Now(40), &theirs));
        assert!(!book.claim_all(Now(41), &theirs));
        assert_eq!(book.status(Now(50))[0].missing_for_us, 0);
    }

    #[test]
    fn what_no_peer_claims_any_more_is_not_missing() {
        let (one, other) = (SiteId([8; 16]), SiteId([9; 16]));
        let mut book = Book::default();
        let mut forsaken = Vector::default();
        forsaken.claim(origin(1), 1, 5, 9);
        let missing = |book: &Book| book.status(Now(9)).first().map(|s| s.missing.ranges().to_vec());
        book.saw_vector(Now(1), one, &forsaken);
        book.saw_vector(Now(2), other, &forsaken);
        // An answer tells what it brings, not all that there is.
        book.saw_some(Now(3), one, &Vector::default());
        book.saw_equal(Now(4), &one);
        assert_eq!(missing(&book), Some(vec![(1, 5)]), "the other one still claims it");
        book.saw_vector(Now(5), other, &Vector::default());
        assert_eq!(missing(&book), None);
        book.saw_vector(Now(6), one, &forsaken);
        book.start(Vector::default());
        assert_eq!(missing(&book), None);
    }

    #[test]
    fn a_vector_read_late_takes_back_no_claim_and_brings_what_is_carried() {
        let mut book = Book::default();
        let mut read = Vector::default();
        read.claim(origin(1), 1, 2, 5);
        read.origins.entry(origin(2)).or_default().carried.insert(4, 77);
        book.claim(Now(1), &header(1, 0, 3));
        book.read(Now(2), read);
        assert!(book.claims(&Dot { origin: origin(1), version: 3 }));
        assert_eq!(book.vector().origins[&origin(1)].head_token, 10);
        assert!(book.vector().carries_any());
    }

    #[test]
    fn equal_claims_with_unequal_carried_dots_are_not_equal() {
        let (mut a, mut b) = (Vector::default(), Vector::default());
        a.origins.entry(origin(1)).or_default().carried.insert(4, 77);
        assert_eq!(gains(&a, &b), Gains { claims: false, carried: true });
        b.origins.entry(origin(1)).or_default().carried.insert(4, 78);
        assert!(gains(&a, &b).any() && gains(&b, &a).any());
        b.claim(origin(1), 4, 4, 0);
        assert!(!gains(&a, &b).any());
        assert!(gains(&b, &a).claims);
    }
}
