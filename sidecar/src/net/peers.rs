//! Who is connected: at most one connection per site, and which of two survives.

use super::{close_code, Link};
use starling_crdt::SiteId;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// Two connections made within this time count as simultaneous dials. A later one shows that its dialler had none, even if
/// this end has not noticed yet.
const SIMULTANEOUS: Duration = Duration::from_secs(5);

/// What became of a new connection.
#[derive(Debug, PartialEq, Eq, Clone, Copy)]
pub enum Admitted {
    /// It is the connection to its peer now, perhaps in place of an older one.
    Up,
    /// The one that stands is kept.
    Duplicate,
}

/// The connections.
#[derive(Debug)]
pub struct Peers {
    own: SiteId,
    links: BTreeMap<SiteId, Link>,
    /// Connections to whoever bears our own site id: this very process, or one that runs on a copy of the database.
    own_links: Vec<Link>,
    /// Older processes of connected sites that dialled: how often, and when last.
    older: BTreeMap<SiteId, (u32, Instant)>,
}

/// An older process that dials this often while a newer one is connected is alive: the newer runs on a copy of its database.
/// (Once may be the last sign of a process that was restarted just now.)
const OLDER_DIALS: u32 = 3;
/// Dials further apart than this are not counted together.
const OLDER_WINDOW: Duration = Duration::from_secs(60);
/// Sites of which older processes are remembered.
const MAX_OLDER: usize = 64;

/// What decides between two connections to the same site.
#[derive(Clone, Copy, Debug)]
struct Standing {
    incarnation: u64,
    dialed: bool,
    closed: bool,
    age: Duration,
}

impl Peers {
    /// No connections yet.
    #[must_use]
    pub const fn new(own: SiteId) -> Self {
        Self { own, links: BTreeMap::new(), own_links: Vec::new(), older: BTreeMap::new() }
    }

    /// Takes in a new connection, or closes it when another is to be kept. Both ends decide alike.
    pub fn admit(&mut self, link: Link, now: Instant) -> Admitted {
        let site = link.peer.site;
        if site == self.own {
            self.own_links.retain(|l| !l.is_closed());
            self.own_links.push(link);
            return Admitted::Up;
        }
        let (before, fresh) = (self.links.get(&site).map(|old| standing(old, now)), standing(&link, now));
        if let Some(before) = before {
            let older = fresh.incarnation < before.incarnation && !before.closed;
            let copied = older && self.is_alive(site, now);
            if !copied && !prefer_new(&before, &fresh, self.own < site) {
                match older {
                    true => link.close(close_code::SUPERSEDED, "a newer process runs with this site id"),
                    false => link.close(close_code::DUPLICATE, "another connection is used"),
                }
                return Admitted::Duplicate;
            }
            let (code, reason) = match (copied, fresh.incarnation > before.incarnation) {
                (true, _) => {
                    (close_code::CLONE, "an older process with this site id is alive: this database is a copy")
                }
                (false, true) => (close_code::SUPERSEDED, "a newer process runs with this site id"),
                (false, false) => (close_code::DUPLICATE, "replaced by a newer connection"),
            };
            if let Some(old) = self.links.get(&site) {
                old.close(code, reason);
            }
        }
        self.links.insert(site, link);
        Admitted::Up
    }

    /// Counts a dial by an older process; whether it has shown by now that it is alive.
    fn is_alive(&mut self, site: SiteId, now: Instant) -> bool {
        self.older.retain(|_, (_, last)| now.saturating_duration_since(*last) < OLDER_WINDOW);
        if self.older.len() >= MAX_OLDER && !self.older.contains_key(&site) {
            self.older.pop_first();
        }
        let (dials, last) = self.older.entry(site).or_insert((0, now));
        (*dials, *last) = (*dials + 1, now);
        let alive = *dials >= OLDER_DIALS;
        if alive {
            self.older.remove(&site);
        }
        alive
    }

    /// The connection to a site.
    #[must_use]
    pub fn get(&self, site: &SiteId) -> Option<&Link> {
        self.links.get(site).or_else(|| self.own_links.last().filter(|_| *site == self.own))
    }

    /// The connection to a site, if it is this one; what comes from a replaced connection is stale.
    #[must_use]
    pub fn current(&self, site: &SiteId, id: u64) -> Option<&Link> {
        self.links.get(site).filter(|l| l.id == id).or_else(|| self.own_links.iter().find(|l| l.id == id))
    }

    /// Forgets a connection that ended; whether it was the one in use.
    pub fn remove(&mut self, site: &SiteId, id: u64) -> bool {
        if *site == self.own {
            let before = self.own_links.len();
            self.own_links.retain(|l| l.id != id);
            return before > 0 && self.own_links.is_empty();
        }
        let used = self.links.get(site).is_some_and(|l| l.id == id);
        if used {
            self.links.remove(site);
        }
        used
    }

    /// Closes the connections to a site.
    pub fn hang_up(&mut self, site: &SiteId, code: u32, reason: &str) {
        if *site == self.own {
            self.own_links.drain(..).for_each(|l| l.close(code, reason));
        }
        if let Some(link) = self.links.remove(site) {
            link.close(code, reason);
        }
    }

    /// All connections in use.
    pub fn iter(&self) -> impl Iterator<Item = &Link> {
        self.links.values()
    }
}

fn standing(link: &Link, now: Instant) -> Standing {
    Standing {
        incarnation: link.peer.incarnation,
        dialed: link.dialed,
        closed: link.is_closed(),
        age: now.saturating_duration_since(link.since),
    }
}

/// Whether the new connection is kept. `smaller`: this node's site id is the smaller one; of two simultaneous dials the one
/// made by the smaller site stays.
fn prefer_new(old: &Standing, new: &Standing, smaller: bool) -> bool {
    if old.incarnation != new.incarnation {
        return new.incarnation > old.incarnation;
    }
    old.closed || old.age > SIMULTANEOUS || old.dialed == new.dialed || new.dialed == smaller
}

#[cfg(test)]
mod tests {
    use super::*;

    const FRESH: Duration = Duration::from_millis(20);

    fn standing(incarnation: u64, dialed: bool, age: Duration) -> Standing {
        Standing { incarnation, dialed, closed: false, age }
    }

    #[test]
    fn of_two_simultaneous_dials_both_ends_keep_the_same_one() {
        // At the smaller site the connection that it dialled is `dialed`; at the larger site the same one is not.
        for first_is_by_smaller in [true, false] {
            let at_smaller = |by_smaller: bool| standing(7, by_smaller, FRESH);
            let at_larger = |by_smaller: bool| standing(7, !by_smaller, FRESH);
            let (first, second) = (first_is_by_smaller, !first_is_by_smaller);
            let kept_at_smaller =
                if prefer_new(&at_smaller(first), &at_smaller(second), true) { second } else { first };
            let kept_at_larger = if prefer_new(&at_larger(second), &at_larger(first), false) { first } else { second };
            assert!(
                kept_at_smaller && kept_at_larger,
                "the smaller site's dial stays, in whatever order they are seen"
            );
        }
    }

    #[test]
    fn a_restarted_peer_replaces_its_older_connection_and_not_the_reverse() {
        for dialed in [true, false] {
            assert!(prefer_new(&standing(1, !dialed, FRESH), &standing(2, dialed, FRESH), dialed));
            assert!(!prefer_new(&standing(2, !dialed, FRESH), &standing(1, dialed, FRESH), dialed));
        }
    }

    #[test]
    fn an_old_or_dead_connection_gives_way_to_whoever_dials_again() {
        let old = Duration::from_secs(60);
        assert!(prefer_new(&standing(1, true, old), &standing(1, false, FRESH), true));
        let closed = Standing { closed: true, ..standing(1, true, FRESH) };
        assert!(prefer_new(&closed, &standing(1, false, FRESH), true));
    }
}
