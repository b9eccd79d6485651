//! Dissemination: the state of an epidemic broadcast tree (Leitão, Pereira, Rodrigues 2007, section 3).
//!
//! Each tree neighbour is eager (gets changesets) or lazy (gets announcements). What arrives first makes its path eager,
//! what arrives twice prunes the later path, what was announced and does not arrive grafts one.

use crate::api::Now;
use crate::cache::Cache;
use crate::limits::{MAX_ANNOUNCE, MAX_ANNOUNCERS, MAX_RECENT, MAX_UNMERGED, MAX_UNMERGED_BYTES, MAX_WANTED};
use starling_crdt::changeset::DotHeader;
use starling_crdt::{Dot, SiteId};
use std::collections::{BTreeMap, VecDeque};

/// A tree neighbour.
#[derive(Debug, Default)]
pub(crate) struct Link {
    /// Changesets are pushed to it; else they are announced.
    pub(crate) eager: bool,
    /// Dots to be announced to it.
    pub(crate) announce: Vec<Dot>,
    /// More were to be announced than fit: compare vectors instead.
    pub(crate) overflow: bool,
}

/// A dot that was announced and is not here.
#[derive(Debug)]
pub(crate) struct Wanted {
    /// Who announced it, in order.
    pub(crate) announcers: Vec<SiteId>,
    /// How many of them were asked.
    pub(crate) asked: usize,
}

/// A changeset handed to the store by a push.
#[derive(Debug)]
struct Flight {
    header: DotHeader,
    bytes: usize,
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Tree {
    /// Neighbours.
    pub(crate) links: BTreeMap<SiteId, Link>,
    /// Recent changesets.
    pub(crate) cache: Cache,
    wanted: BTreeMap<Dot, Wanted>,
    flight: BTreeMap<Dot, Flight>,
    flight_bytes: usize,
    recent: BTreeMap<Dot, SiteId>,
    recent_order: VecDeque<Dot>,
}

impl Tree {
    /// The store was reopened: what was handed to it may be lost.
    pub(crate) fn restart(&mut self) {
        *self = Self { links: std::mem::take(&mut self.links), ..Self::default() };
    }

    /// Whether a push of this dot was taken already, by whatever end.
    pub(crate) fn seen(&self, dot: &Dot) -> bool {
        self.flight.contains_key(dot) || self.recent.contains_key(dot)
    }

    /// Whether this dot is with the store.
    pub(crate) fn in_flight(&self, dot: &Dot) -> bool {
        self.flight.contains_key(dot)
    }

    /// Who sent this dot first.
    pub(crate) fn first_sender(&self, dot: &Dot) -> Option<SiteId> {
        self.recent.get(dot).copied()
    }

    /// Remembers who sent a dot first.
    pub(crate) fn remember(&mut self, dot: Dot, from: SiteId) {
        if self.recent.insert(dot, from).is_none() {
            self.recent_order.push_back(dot);
        }
        while self.recent_order.len() > MAX_RECENT {
            if let Some(old) = self.recent_order.pop_front() {
                self.recent.remove(&old);
            }
        }
    }

    /// Whether the store may be given another push.
    pub(crate) fn has_room(&self, bytes: usize) -> bool {
        self.flight.len() < MAX_UNMERGED && self.flight_bytes.saturating_add(bytes) <= MAX_UNMERGED_BYTES
    }

    /// Bytes with the store.
    pub(crate) const fn unmerged_bytes(&self) -> usize {
        self.flight_bytes
    }

    /// A push goes to the store.
    pub(crate) fn take_off(&mut self, header: DotHeader, bytes: usize) {
        self.flight_bytes += bytes;
        if let Some(old) = self.flight.insert(header.dot, Flight { header, bytes }) {
            self.flight_bytes -= old.bytes;
        }
    }

    /// The store has answered.
    pub(crate) fn land(&mut self, dot: &Dot) -> Option<DotHeader> {
        let flight = self.flight.remove(dot)?;
        self.flight_bytes -= flight.bytes;
        Some(flight.header)
    }

    /// Queues an announcement to every lazy neighbour (with `all`, to every one) but `except`. Says whether there is any.
    pub(crate) fn announce(&mut self, dot: Dot, except: &[SiteId], all: bool) -> bool {
        let mut any = false;
        for (site, link) in &mut self.links {
            if (link.eager && !all) || except.contains(site) {
                continue;
            }
            any = true;
            if link.announce.len() < MAX_ANNOUNCE {
                link.announce.push(dot);
            } else {
                link.overflow = true;
            }
        }
        any
    }

    /// An announcement of a dot that is not here. `None` when too much is wanted already, else whether it is the first.
    pub(crate) fn want(&mut self, dot: Dot, from: SiteId) -> Option<bool> {
        if let Some(wanted) = self.wanted.get_mut(&dot) {
            if wanted.announcers.len() < MAX_ANNOUNCERS && !wanted.announcers.contains(&from) {
                wanted.announcers.push(from);
            }
            return Some(false);
        }
        if self.wanted.len() >= MAX_WANTED {
            return None;
        }
        self.wanted.insert(dot, Wanted { announcers: vec![from], asked: 0 });
        Some(true)
    }

    /// The entry of a wanted dot.
    pub(crate) fn wanted_mut(&mut self, dot: &Dot) -> Option<&mut Wanted> {
        self.wanted.get_mut(dot)
    }

    /// A dot is wanted no longer. Says whether it was.
    pub(crate) fn unwant(&mut self, dot: &Dot) -> bool {
        self.wanted.remove(dot).is_some()
    }

    /// Marks a neighbour eager or lazy. Says whether it was a neighbour and that changed.
    pub(crate) fn set_eager(&mut self, site: &SiteId, eager: bool) -> bool {
        match self.links.get_mut(site) {
            Some(link) if link.eager != eager => {
                link.eager = eager;
                true
            }
            _ => false,
        }
    }

    /// Keeps a changeset for grafts.
    pub(crate) fn keep(&mut self, now: Now, dot: Dot, hops: u8, parts: &[bytes::Bytes]) {
        self.cache.put(now, dot, hops, parts);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dot(version: u64) -> Dot {
        Dot { version, ..Dot::default() }
    }

    #[test]
    fn a_store_that_lags_is_given_no_more_than_the_cap() {
        let mut tree = Tree::default();
        let header = |v| DotHeader { dot: dot(v), ..DotHeader::default() };
        tree.take_off(header(1), MAX_UNMERGED_BYTES - 10);
        assert!(!tree.has_room(11) && tree.has_room(10));
        tree.take_off(header(1), 5);
        assert_eq!(tree.unmerged_bytes(), 5);
        assert!(tree.land(&dot(1)).is_some() && tree.land(&dot(1)).is_none());
        assert_eq!(tree.unmerged_bytes(), 0);
    }

    #[test]
    fn memory_of_the_past_is_bounded() {
        let mut tree = Tree::default();
        for v in 0..MAX_RECENT as u64 + 50 {
            tree.remember(dot(v), SiteId([1; 16]));
        }
        assert_eq!(tree.recent.len(), MAX_RECENT);
        assert!(!tree.seen(&dot(0)) && tree.seen(&dot(60)));
        for v in 0..MAX_WANTED as u64 {
            assert_eq!(tree.want(dot(v), SiteId([1; 16])), Some(true));
        }
        assert_eq!(tree.want(dot(1 << 40), SiteId([1; 16])), None);
        assert_eq!(tree.want(dot(1), SiteId([2; 16])), Some(false));
    }

    #[test]
    fn announcements_go_to_lazy_neighbours_and_turn_into_a_digest_when_there_are_too_many() {
        let mut tree = Tree::default();
        tree.links.insert(SiteId([1; 16]), Link { eager: true, ..Link::default() });
        assert!(!tree.announce(dot(1), &[], false));
        tree.links.insert(SiteId([2; 16]), Link::default());
        (0..MAX_ANNOUNCE as u64 + 1).for_each(|v| assert!(tree.announce(dot(v), &[], false)));
        let link = &tree.links[&SiteId([2; 16])];
        assert!(link.overflow && link.announce.len() == MAX_ANNOUNCE);
        assert!(tree.links[&SiteId([1; 16])].announce.is_empty());
    }
}
