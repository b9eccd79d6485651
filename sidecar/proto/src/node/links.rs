//! Seeds and tree links: finding the cluster, and keeping a graph that connects it.
//!
//! A small cluster is a full mesh. In a larger one each node keeps a few links to random members and exchanges one now and
//! then, so that parts which were separated grow together again.

use super::connect::canonical;
use super::Node;
use crate::api::{Event, MemberState, Now, Output};
use crate::dial::backoff;
use crate::frames::Frame;
use crate::limits::{HIGH_LINKS, MAX_LINKS, MAX_SEEDS, MIN_LINKS, SMALL_CLUSTER};
use crate::swim::Ident;
use crate::timers::Alarm;
use crate::tree::Link;
use rand::RngExt;
use starling_crdt::SiteId;
use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

/// A member that had no room for a link is not asked again for this long.
const REFUSED_LINK_US: u64 = 30_000_000;

/// Members that went down are dialled for this long.
const REMEMBER_US: u64 = 600_000_000;

/// The seeds' addresses, and whom addresses were found to lead to.
#[derive(Debug, Default)]
pub(super) struct Seeds {
    addrs: BTreeSet<SocketAddr>,
    leads_to: BTreeMap<SocketAddr, SiteId>,
    tries: u32,
    /// Since when members are taken for dead.
    down_since: BTreeMap<SiteId, Now>,
}

impl Seeds {
    /// Notes who answers at an address. Only those of seeds are worth remembering, and they are few.
    pub(super) fn learn(&mut self, addr: SocketAddr, site: SiteId) {
        if self.addrs.contains(&addr) {
            self.leads_to.insert(addr, site);
        }
    }

    /// A member is up, or down.
    pub(super) fn note_member(&mut self, now: Now, site: SiteId, up: bool) {
        if up {
            self.down_since.remove(&site);
        } else {
            self.down_since.insert(site, now);
            self.down_since.retain(|_, at| now.since(*at) < REMEMBER_US);
        }
    }

    /// Nobody is reachable: begin with short delays.
    pub(super) fn lonely_again(&mut self) {
        self.tries = 0;
    }
}

impl Node {
    pub(super) fn is_small(&self) -> bool {
        self.swim.active() < SMALL_CLUSTER
    }

    pub(super) fn ask_for_seeds(&mut self, now: Now) {
        self.outputs.push_back(Output::ResolveSeeds);
        let alone = self.swim.active() == 0;
        let timing = self.config.timing;
        if alone {
            let delay = backoff(timing.seed_backoff_us, self.seeds.tries, &mut self.rng);
            self.seeds.tries = self.seeds.tries.saturating_add(1);
            self.alarms.set(Alarm::Seeds, now.after(delay));
            self.dial_remembered(now, 3);
        } else {
            self.seeds.tries = 0;
            self.set_jittered(now, Alarm::Seeds, timing.seed_interval_us);
        }
    }

    /// Members that are taken for dead may only have been cut off, with us or from us: some are tried again. Those that have been
    /// gone for long are left to SWIM's own, much rarer announcements, unless there is nobody else.
    fn dial_remembered(&mut self, now: Now, count: usize) {
        let alone = self.swim.active() == 0;
        let lately = |site: &SiteId| self.seeds.down_since.get(site).is_some_and(|at| now.since(*at) < REMEMBER_US);
        let mut down: Vec<Ident> = self
            .swim
            .members()
            .filter(|(i, state)| *state == MemberState::Down && (alone || lately(&i.site)))
            .map(|(i, _)| *i)
            .collect();
        down.sort_unstable();
        for _ in 0..count {
            if let Some(ident) = self.pick(&down) {
                self.dial_member(ident);
            }
        }
    }

    pub(super) fn on_join(&mut self, addrs: Vec<SocketAddr>) {
        self.seeds.addrs = addrs.into_iter().map(canonical).take(MAX_SEEDS).collect();
        let addrs = &self.seeds.addrs;
        self.seeds.leads_to.retain(|addr, _| addrs.contains(addr));
        let own = self.swim.ident().addr;
        let met: BTreeSet<SocketAddr> =
            self.swim.members().filter(|(_, state)| *state != MemberState::Down).map(|(i, _)| i.addr).collect();
        for addr in self.seeds.addrs.clone() {
            let leads_to = self.seeds.leads_to.get(&addr);
            let known = leads_to.is_some_and(|site| *site == self.config.site_id || self.peers.contains_key(site));
            if addr != own && !known && (!met.contains(&addr) || self.swim.active() == 0) {
                self.dialer.want(addr, None);
            }
        }
    }

    /// Keeps the graph as it should be; rings every second, and soon after anybody came or went.
    pub(super) fn look_after_links(&mut self, now: Now) {
        self.set_jittered(now, Alarm::Links, self.config.timing.link_interval_us);
        self.tell_suspects();
        if self.rng.random_ratio(1, 3) {
            self.dial_remembered(now, 1);
        }
        let mut active: Vec<Ident> =
            self.swim.members().filter(|(_, state)| *state != MemberState::Down).map(|(i, _)| *i).collect();
        active.sort_unstable();
        active.retain(|i| !self.tree.links.contains_key(&i.site));
        if self.is_small() {
            active.into_iter().for_each(|ident| self.join_mesh(ident));
            return;
        }
        active.retain(|i| !self.recently_refused(now, &i.site));
        for _ in self.tree.links.len()..MIN_LINKS {
            let Some(ident) = self.pick(&active) else { return };
            active.retain(|i| i.site != ident.site);
            if self.is_ready(&ident.site) {
                self.link(ident.site, true);
            } else {
                self.dial_member(ident);
            }
        }
    }

    /// In a full mesh everybody is linked. Of two that are not connected the smaller dials, the larger only now and then, so that they
    /// do not cross.
    fn join_mesh(&mut self, ident: Ident) {
        if self.is_ready(&ident.site) {
            self.link(ident.site, true);
        } else if !self.peers.contains_key(&ident.site)
            && (self.config.site_id < ident.site || self.rng.random_ratio(1, 4))
        {
            self.dial_member(ident);
        }
    }

    fn recently_refused(&self, now: Now, site: &SiteId) -> bool {
        let at = self.peers.get(site).and_then(|p| p.refused_link);
        at.is_some_and(|at| now.since(at) < REFUSED_LINK_US)
    }

    /// A peer has said hello: it becomes a neighbour if there are too few.
    pub(super) fn link_new_peer(&mut self, peer: SiteId) {
        if self.is_small() || self.tree.links.len() < MIN_LINKS {
            self.link(peer, true);
        }
    }

    fn link(&mut self, peer: SiteId, eager: bool) {
        if let Entry::Vacant(vacant) = self.tree.links.entry(peer) {
            vacant.insert(Link { eager, ..Link::default() });
            self.send(peer, &Frame::Link { eager });
        }
    }

    pub(super) fn on_link(&mut self, from: SiteId, eager: bool) {
        if self.tree.links.contains_key(&from) {
            return;
        }
        if self.is_small() || self.tree.links.len() < MAX_LINKS {
            self.tree.links.insert(from, Link { eager, ..Link::default() });
        } else {
            self.send(from, &Frame::Unlink);
        }
    }

    pub(super) fn on_unlink(&mut self, now: Now, from: SiteId) {
        if self.tree.links.remove(&from).is_some() {
            if let Some(peer) = self.peers.get_mut(&from) {
                peer.refused_link = Some(now);
            }
            self.alarms.set_earliest(Alarm::Links, now.after(50_000));
        }
    }

    /// Exchanges one link for another. The new one starts lazy, so the tree is not disturbed; a lazy one goes first.
    pub(super) fn shuffle_links(&mut self, now: Now) {
        self.set_jittered(now, Alarm::Shuffle, self.config.timing.shuffle_interval_us);
        if self.is_small() {
            return;
        }
        let lazy: Vec<SiteId> = self.tree.links.iter().filter(|(_, l)| !l.eager).map(|(site, _)| *site).collect();
        if self.tree.links.len() > HIGH_LINKS {
            let all: Vec<SiteId> = self.tree.links.keys().copied().collect();
            if let Some(site) = self.pick(if lazy.is_empty() { &all } else { &lazy }) {
                self.tree.links.remove(&site);
                self.send(site, &Frame::Unlink);
            }
        }
        if self.tree.links.len() <= HIGH_LINKS {
            let mut others = self.ready_peers();
            others.retain(|site| !self.tree.links.contains_key(site) && !self.recently_refused(now, site));
            if let Some(site) = self.pick(&others) {
                self.link(site, false);
            }
        }
    }

    fn tell_suspects(&mut self) {
        let now: BTreeMap<SiteId, SocketAddr> = self
            .swim
            .members()
            .filter(|(_, state)| *state == MemberState::Suspect)
            .map(|(i, _)| (i.site, i.addr))
            .collect();
        for (site, addr) in &now {
            if !self.suspects.contains(site) {
                self.outputs.push_back(Output::Event(Event::MemberSuspect { site: *site, addr: *addr }));
            }
        }
        self.suspects = now.into_keys().collect();
    }
}
