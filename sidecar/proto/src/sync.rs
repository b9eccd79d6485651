//! Anti-entropy: which peers to pull from and when, the pulls under way, the answers being given.
//!
//! Invariant (the delta-interval condition): the vector of an answer is claimed only after every part of that one answer
//! has been merged, or belonged to a dot that was claimed by itself already.

use crate::api::{Now, PullKey, ServeKey};
use crate::book::{gains, Book};
use crate::limits::{MAX_SERVES, MAX_WISHES, MAX_WISH_DOTS};
use starling_crdt::changeset::{DotHeader, Header};
use starling_crdt::{Dot, SiteId, Vector};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Why a peer is to be pulled from.
#[derive(Clone, Debug)]
pub(crate) enum Need {
    /// It claims or carries something that is not here.
    Vector(Arc<Vector>),
    /// It has this dot.
    Dot(Dot),
    /// It said so.
    Any,
}

/// A peer to be pulled from.
#[derive(Debug)]
pub(crate) struct Wish {
    /// Not before.
    pub(crate) due: Now,
    vector: Option<Arc<Vector>>,
    dots: Vec<Dot>,
    any: bool,
}

impl Wish {
    /// Whether what is wanted has not come by other ways.
    pub(crate) fn needed(&self, book: &Book) -> bool {
        self.any
            || self.dots.iter().any(|dot| !book.claims(dot))
            || self.vector.as_ref().is_some_and(|v| gains(v, book.vector()).any())
    }

    /// Whether an answer from a peer that claims `covered`, which is under way, brings any of it already.
    fn overlaps(&self, covered: Option<&Vector>, book: &Book) -> bool {
        let (Some(covered), Some(vector)) = (covered, self.vector.as_ref()) else {
            return true;
        };
        let coming = covered.missing_from(book.vector());
        let wanted = vector.missing_from(book.vector());
        wanted.iter().any(|(origin, ranges)| {
            coming.get(origin).is_some_and(|coming| ranges.difference(coming).len() < ranges.len())
        })
    }
}

/// What a part of an answer is to be done with.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Verdict {
    /// Hand it to the store.
    Merge,
    /// Its dot is claimed already.
    Skip,
}

/// An answer that is being pulled.
#[derive(Debug)]
pub(crate) struct Pull {
    /// From.
    pub(crate) peer: SiteId,
    /// What the peer was known to claim.
    expects: Option<Arc<Vector>>,
    /// When anything last came of it.
    pub(crate) progress: Now,
    /// The changeset whose parts are coming in: dot, next part, whether it is skipped.
    open: Option<(Dot, u64, Verdict)>,
    /// Changesets with the store.
    pending: BTreeMap<Dot, DotHeader>,
    /// The answer's last message has come.
    pub(crate) done: Option<Vector>,
    /// Some changeset was thinned: what is carried may have changed.
    pub(crate) thinned: bool,
    /// Changesets and changes merged.
    pub(crate) changesets: u64,
    /// See above.
    pub(crate) changes: u64,
}

impl Pull {
    /// Checks that a part continues the answer, and says what to do with it.
    pub(crate) fn accept(&mut self, header: &Header, book: &Book) -> Result<Verdict, &'static str> {
        if self.done.is_some() {
            return Err("a part after the end of the answer");
        }
        let dot = header.dot.dot;
        let verdict = match self.open {
            Some((open, next, _)) if open != dot || header.part != next => {
                return Err("a part that does not continue its changeset");
            }
            Some((_, _, verdict)) => verdict,
            None if header.part != 0 => return Err("a changeset that does not begin with its first part"),
            None if book.claims(&dot) => Verdict::Skip,
            None => Verdict::Merge,
        };
        self.open = if header.last { None } else { Some((dot, header.part.saturating_add(1), verdict)) };
        if verdict == Verdict::Merge && header.last {
            self.pending.insert(dot, header.dot);
            self.thinned |= !header.claimable;
        }
        Ok(verdict)
    }

    /// The answer's last message.
    pub(crate) fn finish(&mut self, vector: Vector) -> Result<(), &'static str> {
        if self.done.is_some() || self.open.is_some() {
            return Err("the answer ends twice or inside a changeset");
        }
        self.done = Some(vector);
        Ok(())
    }

    /// The store has answered for a changeset.
    pub(crate) fn landed(&mut self, dot: &Dot, changes: u64) -> Option<DotHeader> {
        self.changesets += 1;
        self.changes = self.changes.saturating_add(changes);
        self.pending.remove(dot)
    }

    /// Whether it waits for the store rather than for the peer.
    pub(crate) fn waits_for_store(&self) -> bool {
        self.done.is_some() || !self.pending.is_empty()
    }
}

#[derive(Clone, Copy, Debug)]
struct Backoff {
    failures: u32,
    until: Now,
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Sync {
    wishes: BTreeMap<SiteId, Wish>,
    pulls: BTreeMap<PullKey, Pull>,
    patience_us: u64,
    backoffs: BTreeMap<SiteId, Backoff>,
    serves: BTreeMap<ServeKey, SiteId>,
    next_key: u64,
}

impl Sync {
    pub(crate) fn new(patience_us: u64) -> Self {
        Self { patience_us, ..Self::default() }
    }

    /// The store was reopened: nothing that was under way counts. Gives the pulls to cancel.
    pub(crate) fn restart(&mut self) -> Vec<PullKey> {
        self.wishes.clear();
        std::mem::take(&mut self.pulls).into_keys().collect()
    }

    /// Notes that `peer` is to be pulled from at `due`.
    pub(crate) fn wish(&mut self, peer: SiteId, need: Need, due: Now) {
        if self.wishes.len() >= MAX_WISHES && !self.wishes.contains_key(&peer) {
            return;
        }
        let wish = self.wishes.entry(peer).or_insert(Wish { due, vector: None, dots: Vec::new(), any: false });
        wish.due = wish.due.min(due);
        match need {
            Need::Vector(vector) => wish.vector = Some(vector),
            Need::Dot(dot) if wish.dots.contains(&dot) => {}
            Need::Dot(dot) if wish.dots.len() < MAX_WISH_DOTS => wish.dots.push(dot),
            Need::Dot(_) | Need::Any => wish.any = true,
        }
    }

    /// Takes the next peer to pull from, dropping wishes that were granted by other ways.
    pub(crate) fn next_due(&mut self, now: Now, book: &Book) -> Option<(SiteId, Wish)> {
        loop {
            let (peer, needed) = self.due_peers(now, book).next()?;
            let wish = self.wishes.remove(&peer)?;
            if needed {
                return Some((peer, wish));
            }
        }
    }

    fn due_peers<'a>(&'a self, now: Now, book: &'a Book) -> impl Iterator<Item = (SiteId, bool)> + 'a {
        let covered = self.covered(now);
        let moving = self.pulls.values().any(|pull| self.is_moving(now, pull));
        self.wishes.iter().filter_map(move |(peer, wish)| {
            if self.due(peer, wish) > now || self.pulls.values().any(|p| p.peer == *peer) {
                return None;
            }
            let needed = wish.needed(book);
            let blocked = needed && moving && wish.overlaps(covered.as_ref(), book);
            (!blocked).then_some((*peer, needed))
        })
    }

    fn due(&self, peer: &SiteId, wish: &Wish) -> Now {
        self.backoffs.get(peer).map_or(wish.due, |b| wish.due.max(b.until))
    }

    fn is_moving(&self, now: Now, pull: &Pull) -> bool {
        pull.waits_for_store() || now.since(pull.progress) < self.patience_us
    }

    /// What the pulls that get on are known to bring; `None` when one of them is not known.
    fn covered(&self, now: Now) -> Option<Vector> {
        let mut covered = Vector::default();
        for pull in self.pulls.values().filter(|pull| self.is_moving(now, pull)) {
            let vector = pull.done.as_ref().or(pull.expects.as_deref())?;
            for (origin, state) in &vector.origins {
                state.claimed.ranges().iter().for_each(|&(lo, hi)| covered.claim(*origin, lo, hi, 0));
            }
        }
        Some(covered)
    }

    /// When to look at the wishes again: one is due, or has waited for a pull that does not get on.
    pub(crate) fn next(&self, now: Now) -> Option<Now> {
        let look_again = now.after(self.patience_us.max(2) / 2);
        self.wishes
            .iter()
            .map(|(peer, wish)| self.due(peer, wish))
            .map(|at| if at > now { at } else { look_again })
            .min()
    }

    /// How many pulls are under way.
    pub(crate) fn pulling(&self) -> usize {
        self.pulls.len()
    }

    /// A pull begins.
    pub(crate) fn begin(&mut self, now: Now, peer: SiteId, wish: Wish) -> PullKey {
        self.next_key += 1;
        let key = PullKey(self.next_key);
        let pull = Pull {
            peer,
            expects: wish.vector,
            progress: now,
            open: None,
            pending: BTreeMap::new(),
            done: None,
            thinned: false,
            changesets: 0,
            changes: 0,
        };
        self.pulls.insert(key, pull);
        key
    }

    /// A pull under way.
    pub(crate) fn pull_mut(&mut self, key: PullKey) -> Option<&mut Pull> {
        self.pulls.get_mut(&key)
    }

    /// A pull is over and its vector claimed.
    pub(crate) fn succeed(&mut self, key: PullKey) -> Option<Pull> {
        let pull = self.pulls.remove(&key)?;
        self.backoffs.remove(&pull.peer);
        Some(pull)
    }

    /// A pull is over without a claim; the peer is left alone until then, and wished for again.
    pub(crate) fn fail(&mut self, now: Now, key: PullKey, delay: impl FnOnce(u32) -> u64) -> Option<Pull> {
        let pull = self.pulls.remove(&key)?;
        let failures = self.backoffs.get(&pull.peer).map_or(0, |b| b.failures);
        let until = now.after(delay(failures));
        self.backoffs.insert(pull.peer, Backoff { failures: failures.saturating_add(1), until });
        let need = pull.expects.clone().map_or(Need::Any, Need::Vector);
        self.wish(pull.peer, need, until);
        Some(pull)
    }

    /// A peer is gone: its pulls and wishes with it. Gives the pulls to cancel.
    pub(crate) fn peer_gone(&mut self, peer: &SiteId) -> Vec<(PullKey, Pull)> {
        self.wishes.remove(peer);
        self.backoffs.remove(peer);
        let keys: Vec<PullKey> = self.pulls.iter().filter(|(_, p)| p.peer == *peer).map(|(k, _)| *k).collect();
        keys.into_iter().filter_map(|key| self.pulls.remove(&key).map(|pull| (key, pull))).collect()
    }

    /// Takes a request if there is room: half the room at most for one peer.
    pub(crate) fn serve(&mut self, key: ServeKey, peer: SiteId) -> bool {
        let same = self.serves.values().filter(|p| **p == peer).count();
        let room = self.serves.len() < MAX_SERVES && same < MAX_SERVES / 2;
        if room {
            self.serves.insert(key, peer);
        }
        room
    }

    /// An answer has ended.
    pub(crate) fn served(&mut self, key: ServeKey) {
        self.serves.remove(&key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use starling_crdt::Origin;

    const A: SiteId = SiteId([1; 16]);
    const B: SiteId = SiteId([2; 16]);

    fn origin(n: u8) -> Origin {
        Origin { site: SiteId([n; 16]), epoch: 1 }
    }

    fn vector(n: u8, hi: u64) -> Arc<Vector> {
        let mut v = Vector::default();
        v.claim(origin(n), 1, hi, 0);
        Arc::new(v)
    }

    fn header(n: u8, version: u64, part: u64, last: bool) -> Header {
        let dot = Dot { origin: origin(n), version };
        let dot = DotHeader { dot, token: 1, prev: version - 1, prev_token: 0, commit_ms: 0 };
        Header { dot, claimable: true, last, group: false, part }
    }

    #[test]
    fn a_second_pull_starts_only_for_what_the_first_does_not_bring() {
        let (mut sync, book) = (Sync::new(50), Book::default());
        sync.wish(A, Need::Vector(vector(7, 10)), Now(0));
        sync.wish(B, Need::Vector(vector(7, 12)), Now(0));
        let (peer, wish) = sync.next_due(Now(0), &book).unwrap();
        sync.begin(Now(0), peer, wish);
        assert!(sync.next_due(Now(0), &book).is_none(), "it would be the same data twice");
        sync.wish(SiteId([3; 16]), Need::Vector(vector(8, 1)), Now(0));
        assert_eq!(sync.next_due(Now(0), &book).unwrap().0, SiteId([3; 16]));
        assert_eq!(sync.next_due(Now(50), &book).unwrap().0, B, "unless the first gets nowhere");
    }

    #[test]
    fn a_wish_that_was_granted_by_other_ways_is_dropped() {
        let (mut sync, mut book) = (Sync::new(50), Book::default());
        sync.wish(A, Need::Dot(header(7, 1, 0, true).dot.dot), Now(5));
        assert!(sync.next_due(Now(4), &book).is_none());
        book.claim(Now(4), &header(7, 1, 0, true).dot);
        assert!(sync.next_due(Now(5), &book).is_none());
        assert_eq!(sync.next(Now(0)), None);
    }

    #[test]
    fn an_answer_out_of_order_is_refused() {
        let (mut sync, mut book) = (Sync::new(50), Book::default());
        sync.wish(A, Need::Any, Now(0));
        let (peer, wish) = sync.next_due(Now(0), &book).unwrap();
        let key = sync.begin(Now(0), peer, wish);
        let pull = sync.pull_mut(key).unwrap();
        assert!(pull.accept(&header(7, 1, 1, true), &book).is_err());
        assert_eq!(pull.accept(&header(7, 1, 0, false), &book), Ok(Verdict::Merge));
        assert!(pull.finish(Vector::default()).is_err());
        assert!(pull.accept(&header(7, 2, 1, true), &book).is_err());
        assert_eq!(pull.accept(&header(7, 1, 1, true), &book), Ok(Verdict::Merge));
        book.claim(Now(0), &header(7, 2, 0, true).dot);
        assert_eq!(pull.accept(&header(7, 2, 0, true), &book), Ok(Verdict::Skip));
        assert!(pull.finish(Vector::default()).is_ok() && pull.waits_for_store());
        assert!(pull.accept(&header(7, 3, 0, true), &book).is_err());
    }

    #[test]
    fn a_peer_that_fails_is_left_alone_longer_each_time_and_asked_again() {
        let (mut sync, book) = (Sync::new(50), Book::default());
        sync.wish(A, Need::Any, Now(0));
        for round in 0..3u32 {
            let at = sync.next(Now(0)).unwrap_or(Now(0));
            let (peer, wish) = sync.next_due(at, &book).unwrap();
            let key = sync.begin(at, peer, wish);
            sync.fail(at, key, |n| {
                assert_eq!(n, round);
                100
            });
            assert!(sync.next_due(at.after(99), &book).is_none());
        }
    }

    #[test]
    fn one_peer_cannot_take_all_the_room_for_answers() {
        let mut sync = Sync::default();
        assert!(sync.serve(ServeKey(1), A) && sync.serve(ServeKey(2), A) && !sync.serve(ServeKey(3), A));
        assert!(sync.serve(ServeKey(4), B));
        sync.served(ServeKey(1));
        assert!(sync.serve(ServeKey(5), A));
    }
}
