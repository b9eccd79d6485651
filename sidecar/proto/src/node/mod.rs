//! The node: all parts behind one face. This file takes inputs in and lets alarms fire; what they lead to is in the files
//! beside it: connections and hellos (`connect`), seeds and tree links (`links`), dissemination (`spread`), anti-entropy (`pull`,
//! `compare`).

mod compare;
mod connect;
mod forks;
mod leaving;
mod links;
mod pull;
mod spread;
#[cfg(test)]
mod tests;

use crate::api::{Counters, Event, Input, Member, NodeConfig, Now, OriginStatus, Output, Source};
use crate::book::Book;
use crate::dial::Dialer;
use crate::frames::Frame;
use crate::swim::{Ident, Swim};
use crate::sync::Sync;
use crate::timers::{Alarm, Alarms};
use crate::tree::Tree;
use bytes::Bytes;
use compare::Doubts;
use foca::OwnedNotification;
use forks::Forks;
use links::Seeds;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use starling_crdt::SiteId;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;

/// A connection.
#[derive(Debug)]
struct Peer {
    /// The remote socket address.
    addr: SocketAddr,
    /// The address we dialled, if we did.
    dialed: Option<SocketAddr>,
    /// Who it is, once it has said hello.
    ident: Option<Ident>,
    rtt_us: Option<u64>,
    /// The edge's queue to it is long: no pushes now.
    congested: bool,
    /// Pushes were left out while it was.
    skipped: bool,
    /// It had no room for a link, at that moment.
    refused_link: Option<Now>,
    /// The last comparison: digest of its vector, digest of ours, when.
    compared: Option<(u64, u64, Now)>,
}

/// One member of a cluster, as a state machine. See [`crate::api`] for the rules of driving it.
#[derive(Debug)]
pub struct Node {
    config: NodeConfig,
    rng: StdRng,
    /// The store is open.
    started: bool,
    leaving: leaving::Leaving,
    left: bool,
    swim: Swim,
    /// Members last seen as suspect, to tell of changes.
    suspects: BTreeSet<SiteId>,
    dialer: Dialer,
    seeds: Seeds,
    peers: BTreeMap<SiteId, Peer>,
    /// Datagrams for members that are being dialled.
    waiting: BTreeMap<SiteId, VecDeque<Bytes>>,
    book: Book,
    tree: Tree,
    /// The store is behind and pushes are being dropped.
    behind: bool,
    sync: Sync,
    doubts: Doubts,
    forks: Forks,
    next_ticket: u64,
    alarms: Alarms,
    outputs: VecDeque<Output>,
    counters: Counters,
}

impl Node {
    /// A node that knows nobody yet. It asks for its seeds at once; give it [`Input::Started`] once the store is open.
    #[must_use]
    pub fn new(config: NodeConfig, now: Now) -> Self {
        let mut node = Self {
            rng: StdRng::seed_from_u64(config.seed),
            started: false,
            leaving: leaving::Leaving::default(),
            left: false,
            swim: Swim::new(&config),
            suspects: BTreeSet::new(),
            dialer: Dialer::new(&config.timing),
            seeds: Seeds::default(),
            peers: BTreeMap::new(),
            waiting: BTreeMap::new(),
            book: Book::default(),
            tree: Tree::default(),
            behind: false,
            sync: Sync::new(config.timing.pull_patience_us),
            doubts: Doubts::default(),
            forks: Forks::default(),
            next_ticket: 0,
            alarms: Alarms::default(),
            outputs: VecDeque::new(),
            counters: Counters::default(),
            config,
        };
        node.alarms.set(Alarm::Seeds, now);
        let timing = node.config.timing;
        for (alarm, interval) in [
            (Alarm::Links, timing.link_interval_us),
            (Alarm::Digest, timing.sync_interval_us),
            (Alarm::Shuffle, timing.shuffle_interval_us),
        ] {
            node.set_jittered(now, alarm, interval);
        }
        node
    }

    /// Takes one input. To be called for whatever happens, in the order in which it happened.
    pub fn handle(&mut self, now: Now, input: Input) {
        if self.left {
            return;
        }
        self.allow_for_oversleep(now);
        match input {
            Input::PeerUp { .. }
            | Input::PeerDown { .. }
            | Input::DialFailed { .. }
            | Input::DialRedundant { .. }
            | Input::Join { .. }
            | Input::Advertise(_)
            | Input::Rtt { .. }
            | Input::Congested { .. }
            | Input::Datagram { .. }
            | Input::Frame { .. } => self.handle_network(now, input),
            _ => self.handle_store(now, input),
        }
        self.pump(now);
    }

    fn handle_network(&mut self, now: Now, input: Input) {
        match input {
            Input::PeerUp { peer, addr, dialed } => self.on_peer_up(now, peer, addr, dialed),
            Input::PeerDown { peer, why } => self.on_peer_down(now, peer, why),
            Input::DialFailed { addr, why } => self.on_dial_failed(now, addr, why),
            Input::DialRedundant { addr, peer } => self.on_dial_redundant(addr, peer),
            Input::Join { addrs } => self.on_join(addrs),
            Input::Advertise(addr) => self.on_advertise(now, addr),
            Input::Rtt { peer, rtt_us } => {
                if let Some(peer) = self.peers.get_mut(&peer) {
                    peer.rtt_us = Some(rtt_us);
                }
            }
            Input::Congested { peer, congested } => self.on_congested(peer, congested),
            Input::Datagram { from, bytes } => {
                let used = self.peers.contains_key(&from) && self.swim.packet(now, from, &bytes);
                self.counters.datagrams_refused += u64::from(!used);
            }
            Input::Frame { from, bytes } => self.on_frame(now, from, &bytes),
            _ => {}
        }
    }

    fn handle_store(&mut self, now: Now, input: Input) {
        match input {
            Input::Started { vector } => self.on_started(vector),
            Input::LocalChangesets(list) => list.into_iter().for_each(|c| self.on_local(now, c)),
            Input::LocalTooLarge { header } => self.on_local_too_large(now, &header.dot),
            Input::Merged { source, dot, claimed, changes } => match source {
                Source::Push { .. } => self.on_push_merged(now, &dot, claimed),
                Source::Sync { pull } => self.on_sync_merged(now, pull, &dot, claimed, changes),
            },
            Input::MergeFailed { source, header, why } => self.on_merge_failed(now, source, &header, why),
            Input::SyncRequested { from, serve, bytes } => self.on_sync_requested(now, from, serve, &bytes),
            Input::ServeEnded { serve, .. } => self.sync.served(serve),
            Input::SyncAnswer { pull, bytes } => self.on_sync_answer(now, pull, &bytes),
            Input::SyncEnded { pull, result } => self.on_sync_ended(now, pull, result),
            Input::SyncApplied { pull } => self.on_sync_applied(now, pull),
            Input::SyncFailed { pull, why } => self.fail_pull(now, pull, why, false),
            Input::Vector { ticket, vector } => self.on_own_vector(now, ticket, vector),
            Input::ForkDetected { peer, theirs, ours } => self.on_fork(now, peer, &theirs, &ours),
            Input::Leaving => self.on_leaving(),
            Input::Leave => self.on_leave(now),
            _ => {}
        }
    }

    /// The next thing to do; to be called until `None` after every other call.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// When `handle_timeout` wants to be called next. To be asked after the outputs are drained.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Now> {
        if self.left {
            return None;
        }
        [self.alarms.next(), self.swim.next()].into_iter().flatten().min()
    }

    /// Lets timers fire. Harmless when nothing is due.
    pub fn handle_timeout(&mut self, now: Now) {
        if self.left {
            return;
        }
        self.allow_for_oversleep(now);
        self.swim.tick(now);
        while let Some(alarm) = self.alarms.pop_due(now) {
            self.ring(now, alarm);
        }
        self.pump(now);
    }

    fn ring(&mut self, now: Now, alarm: Alarm) {
        match alarm {
            // The pump that follows every call dials.
            Alarm::Dial => {}
            Alarm::Seeds => self.ask_for_seeds(now),
            Alarm::Links => self.look_after_links(now),
            Alarm::Shuffle => self.shuffle_links(now),
            Alarm::Digest => self.send_random_digest(now),
            Alarm::News => self.send_news(),
            Alarm::IHave => self.send_announcements(),
            Alarm::Graft(dot) => self.graft(now, dot),
            Alarm::Pulls => self.start_pulls(now),
            Alarm::Stall(pull) => self.on_stall(now, pull),
            Alarm::Hello(peer) => self.on_no_hello(now, peer),
            Alarm::Sweep => self.sweep(now),
        }
    }

    /// A driver that slept could not receive what was sent to it: its pending timeouts get the time back.
    fn allow_for_oversleep(&mut self, now: Now) {
        let late_us = self.next_deadline().map_or(0, |at| now.since(at));
        if late_us > self.config.timing.oversleep_us {
            self.alarms.shift(late_us);
            self.swim.shift(late_us);
            self.event(Event::Overslept { late_us });
        }
    }

    /// Turns what the parts have queued into outputs.
    fn pump(&mut self, now: Now) {
        while let Some(note) = self.swim.poll_note() {
            self.on_note(now, note);
        }
        while let Some((to, bytes)) = self.swim.poll_send() {
            self.send_datagram(to, bytes);
        }
        while let Some((addr, site)) = self.dialer.poll(now, &mut self.rng) {
            self.outputs.push_back(Output::Dial { addr, site });
        }
        match self.dialer.next() {
            Some(at) => self.alarms.set(Alarm::Dial, at.max(now.after(1))),
            None => self.alarms.clear(Alarm::Dial),
        }
        if let Some(oldest) = self.tree.cache.oldest() {
            self.alarms
                .set_earliest(Alarm::Sweep, oldest.after(self.config.timing.cache_age_us).max(now.after(1_000_000)));
        }
    }

    fn on_note(&mut self, now: Now, note: OwnedNotification<Ident>) {
        match note {
            OwnedNotification::MemberUp(i) => {
                self.seeds.note_member(now, i.site, true);
                self.event(Event::MemberUp { site: i.site, addr: i.addr });
                self.alarms.set_earliest(Alarm::Links, now.after(1));
            }
            OwnedNotification::MemberDown(i) => {
                self.seeds.note_member(now, i.site, false);
                self.event(Event::MemberDown { site: i.site, addr: i.addr });
                self.alarms.set_earliest(Alarm::Links, now.after(1));
            }
            OwnedNotification::Rename(from, to) => {
                self.event(Event::MemberRenewed { site: to.site, from: from.addr, to: to.addr });
            }
            OwnedNotification::Rejoin(i) => self.event(Event::Rejoined { incarnation: i.incarnation }),
            OwnedNotification::Idle => {
                self.event(Event::Alone);
                self.seeds.lonely_again();
                self.alarms.set_earliest(Alarm::Seeds, now.after(1));
            }
            OwnedNotification::Active | OwnedNotification::Defunct => {}
        }
    }

    fn sweep(&mut self, now: Now) {
        let before = Now(now.0.saturating_sub(self.config.timing.cache_age_us));
        self.tree.cache.expire(before.after(1));
    }

    fn on_leave(&mut self, now: Now) {
        self.swim.leave(now);
        self.pump(now);
        let peers: Vec<SiteId> = self.peers.keys().copied().collect();
        for peer in peers {
            self.send(peer, &Frame::Leave);
            self.outputs.push_back(Output::Hangup { peer, reason: crate::event::HangupReason::Leaving });
        }
        self.event(Event::Left);
        self.left = true;
    }

    fn event(&mut self, event: Event) {
        self.outputs.push_back(Output::Event(event));
    }

    fn send(&mut self, to: SiteId, frame: &Frame) {
        self.send_bytes(to, frame.encode());
    }

    fn send_bytes(&mut self, to: SiteId, bytes: Bytes) {
        self.counters.frames_out += 1;
        self.outputs.push_back(Output::SendFrame { to, bytes });
    }

    /// Sets a periodic alarm, a quarter earlier or later so that nodes do not fall into step.
    fn set_jittered(&mut self, now: Now, alarm: Alarm, interval_us: u64) {
        let quarter = interval_us / 4;
        let after = self.rng.random_range(interval_us - quarter..=interval_us + quarter);
        self.alarms.set(alarm, now.after(after));
    }

    /// One of `from`, by the node's own dice.
    fn pick<T: Copy>(&mut self, from: &[T]) -> Option<T> {
        if from.is_empty() {
            return None;
        }
        from.get(self.rng.random_range(0..from.len())).copied()
    }

    fn ready_peers(&self) -> Vec<SiteId> {
        self.peers.iter().filter(|(_, p)| p.ident.is_some()).map(|(site, _)| *site).collect()
    }

    fn is_ready(&self, peer: &SiteId) -> bool {
        self.peers.get(peer).is_some_and(|p| p.ident.is_some())
    }

    /// This replica.
    #[must_use]
    pub fn site_id(&self) -> SiteId {
        self.config.site_id
    }

    /// Where this node tells others to dial it; an unspecified IP until the first peer has told.
    #[must_use]
    pub fn advertised(&self) -> SocketAddr {
        self.swim.ident().addr
    }

    /// The other members, in the order of their site ids; those that went down are listed until forgotten (a day).
    #[must_use]
    pub fn members(&self) -> Vec<Member> {
        let mut members: Vec<Member> = self
            .swim
            .members()
            .map(|(ident, state)| Member {
                site: ident.site,
                addr: ident.addr,
                incarnation: ident.incarnation,
                state,
                connected: self.is_ready(&ident.site),
                link: self.tree.links.contains_key(&ident.site),
                rtt_us: self.peers.get(&ident.site).and_then(|p| p.rtt_us),
            })
            .collect();
        members.sort_unstable_by_key(|m| m.site);
        members
    }

    /// What is held and missing, by origin, in order.
    #[must_use]
    pub fn status(&self, now: Now) -> Vec<OriginStatus> {
        self.book.status(now)
    }

    /// Counters since the start.
    #[must_use]
    pub fn counters(&self) -> Counters {
        self.counters
    }
}
