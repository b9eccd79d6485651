//! Connections: up, hello, down, and the datagrams that wait for one.

use super::{Node, Peer};
use crate::api::{Event, HangupReason, MemberState, Now, Output};
use crate::frames::{Frame, FrameError, Hello};
use crate::limits::{MAX_PEERS, MAX_QUEUED_DATAGRAMS, MAX_QUEUED_MEMBERS};
use crate::swim::Ident;
use crate::timers::Alarm;
use bytes::Bytes;
use starling_crdt::SiteId;
use std::net::SocketAddr;

/// How long an address is left alone that led to ourselves, or to somebody who does not speak with us.
const OWN_PENALTY_US: u64 = 60_000_000;
const REFUSED_PENALTY_US: u64 = 10_000_000;

/// An IPv4 address that came in its IPv6 form as itself, so that one address has one form.
pub(super) fn canonical(addr: SocketAddr) -> SocketAddr {
    SocketAddr::new(addr.ip().to_canonical(), addr.port())
}

impl Node {
    pub(super) fn on_peer_up(&mut self, now: Now, peer: SiteId, addr: SocketAddr, dialed: Option<SocketAddr>) {
        let (addr, dialed) = (canonical(addr), dialed.map(canonical));
        if peer == self.config.site_id {
            if let Some(dialed) = dialed {
                self.dialer.penalise(now, dialed, OWN_PENALTY_US);
                self.seeds.learn(dialed, peer);
            }
            self.event(Event::OwnSiteSeen { addr: dialed.unwrap_or(addr) });
            self.outputs.push_back(Output::Hangup { peer, reason: HangupReason::OwnSite });
            return;
        }
        if self.peers.contains_key(&peer) {
            self.forget_peer(now, peer, "its connection was replaced");
        } else if self.peers.len() >= MAX_PEERS {
            self.event(Event::Refused { peer, reason: HangupReason::Full });
            self.outputs.push_back(Output::Hangup { peer, reason: HangupReason::Full });
            return;
        }
        if let Some(dialed) = dialed {
            self.dialer.reached(&dialed);
            self.seeds.learn(dialed, peer);
        }
        let state = Peer {
            addr,
            dialed,
            ident: None,
            rtt_us: None,
            congested: false,
            skipped: false,
            refused_link: None,
            compared: None,
        };
        self.peers.insert(peer, state);
        self.alarms.set(Alarm::Hello(peer), now.after(self.config.timing.hello_timeout_us));
        let own = *self.swim.ident();
        let hello = Hello {
            cluster_id: self.config.cluster_id,
            site: own.site,
            incarnation: own.incarnation,
            advertise: own.addr,
            observed: addr,
        };
        self.send(peer, &Frame::Hello(hello));
        for bytes in self.waiting.remove(&peer).unwrap_or_default() {
            self.push_datagram(peer, bytes);
        }
    }

    pub(super) fn on_peer_down(&mut self, now: Now, peer: SiteId, why: String) {
        if self.peers.contains_key(&peer) {
            self.forget_peer(now, peer, &why);
            self.event(Event::PeerGone { peer, why });
        }
    }

    /// Drops all state that belongs to a connection.
    fn forget_peer(&mut self, now: Now, peer: SiteId, why: &str) {
        self.peers.remove(&peer);
        self.tree.links.remove(&peer);
        self.alarms.clear(Alarm::Hello(peer));
        for (key, pull) in self.sync.peer_gone(&peer) {
            self.pull_is_over(now, key, &pull, why.to_owned(), true);
        }
        self.alarms.set_earliest(Alarm::Links, now.after(50_000));
    }

    /// Closes a connection from this side.
    pub(super) fn hang_up(&mut self, now: Now, peer: SiteId, reason: HangupReason) {
        let Some(state) = self.peers.get(&peer) else { return };
        let addrs = [state.dialed, state.ident.map(|i| i.addr)];
        for addr in addrs.into_iter().flatten() {
            self.dialer.penalise(now, addr, REFUSED_PENALTY_US);
        }
        self.counters.frames_refused += 1;
        self.forget_peer(now, peer, "the connection was closed here");
        self.event(Event::Refused { peer, reason: reason.clone() });
        self.outputs.push_back(Output::Hangup { peer, reason });
    }

    pub(super) fn on_no_hello(&mut self, now: Now, peer: SiteId) {
        if self.peers.contains_key(&peer) && !self.is_ready(&peer) {
            self.hang_up(now, peer, HangupReason::NoHello);
        }
    }

    pub(super) fn on_dial_failed(&mut self, now: Now, addr: SocketAddr, why: String) {
        let addr = canonical(addr);
        let sites: Vec<SiteId> = self.swim.members().filter(|(i, _)| i.addr == addr).map(|(i, _)| i.site).collect();
        sites.iter().for_each(|site| drop(self.waiting.remove(site)));
        if self.dialer.failed(now, addr, &mut self.rng) {
            self.event(Event::DialFailed { addr, why });
        }
    }

    pub(super) fn on_dial_redundant(&mut self, addr: SocketAddr, peer: SiteId) {
        let addr = canonical(addr);
        self.dialer.reached(&addr);
        self.seeds.learn(addr, peer);
    }

    pub(super) fn on_advertise(&mut self, now: Now, addr: SocketAddr) {
        let addr = canonical(addr);
        if addr != self.swim.ident().addr && !addr.ip().is_unspecified() {
            self.swim.readdress(now, addr);
            self.event(Event::Advertised { addr });
        }
    }

    pub(super) fn on_congested(&mut self, peer: SiteId, congested: bool) {
        let Some(state) = self.peers.get_mut(&peer) else { return };
        state.congested = congested;
        if !congested && std::mem::take(&mut state.skipped) {
            self.send_digest(peer);
        }
    }

    pub(super) fn on_frame(&mut self, now: Now, from: SiteId, bytes: &Bytes) {
        let Some(peer) = self.peers.get(&from) else { return };
        let ready = peer.ident.is_some();
        self.counters.frames_in += 1;
        match Frame::decode(bytes) {
            Ok(Frame::Hello(hello)) if !ready => self.on_hello(now, from, &hello),
            Ok(Frame::Hello(_)) => self.violation(now, from, "a second hello".to_owned()),
            Ok(_) if !ready => self.violation(now, from, "a frame before the hello".to_owned()),
            Ok(frame) => self.on_ready_frame(now, from, frame),
            Err(FrameError::Version(version)) => self.hang_up(now, from, HangupReason::Version(version)),
            Err(FrameError::Decode(e)) => self.violation(now, from, e.to_string()),
        }
    }

    pub(super) fn violation(&mut self, now: Now, peer: SiteId, what: String) {
        self.hang_up(now, peer, HangupReason::Violation(what));
    }

    fn on_ready_frame(&mut self, now: Now, from: SiteId, frame: Frame) {
        match frame {
            Frame::Hello(_) => {}
            Frame::Payload(payload) => self.on_payload(now, from, &payload),
            Frame::IHave(dots) => self.on_ihave(now, from, &dots),
            Frame::Graft(dots) => self.on_graft(from, &dots),
            Frame::Prune => drop(self.tree.set_eager(&from, false)),
            Frame::Link { eager } => self.on_link(from, eager),
            Frame::Unlink => self.on_unlink(now, from),
            Frame::Digest(hash) => self.on_digest(now, from, hash),
            Frame::Vector { answer, vector } => self.on_vector(now, from, answer, vector),
            Frame::Pull(dot) => self.on_pull_hint(now, from, dot),
            Frame::Differ => self.on_differ(now, from),
            Frame::Leave => self.on_peer_leaves(now, from),
            Frame::Fork(vector) => self.on_fork_frame(now, &vector),
            Frame::Outdated { incarnation, addr, alive } => self.on_outdated(now, from, incarnation, addr, alive),
        }
    }

    /// Whoever says goodbye is down at once and not looked for. The connection is the leaver's to close.
    fn on_peer_leaves(&mut self, now: Now, from: SiteId) {
        if let Some(ident) = self.peers.get(&from).and_then(|p| p.ident) {
            self.swim.left(now, ident);
            self.tree.links.remove(&from);
            self.pump(now);
            self.seeds.note_member(now, from, true);
        }
    }

    /// A clock that was set back makes a restarted node look older than it was; a copy of the database looks the same, except that
    /// it is alive somewhere else.
    fn on_outdated(&mut self, now: Now, from: SiteId, incarnation: u64, addr: SocketAddr, alive: bool) {
        if !self.swim.outrank(now, incarnation) {
            return;
        }
        if alive && addr != self.swim.ident().addr {
            self.event(Event::Clone { addr, incarnation });
        }
        let incarnation = self.swim.ident().incarnation;
        self.event(Event::Rejoined { incarnation });
        if let Some(peer) = self.peers.get(&from).and_then(|p| p.ident) {
            self.swim.hello(now, peer, true);
        }
    }

    fn on_hello(&mut self, now: Now, from: SiteId, hello: &Hello) {
        if hello.cluster_id != self.config.cluster_id {
            return self.hang_up(now, from, HangupReason::Cluster);
        }
        if hello.site != from {
            return self.hang_up(now, from, HangupReason::Site);
        }
        if self.swim.ident().addr.ip().is_unspecified() {
            let seen = SocketAddr::new(canonical(hello.observed).ip(), self.swim.ident().addr.port());
            self.on_advertise(now, seen);
        }
        let Some(peer) = self.peers.get_mut(&from) else { return };
        let mut advertise = canonical(hello.advertise);
        if advertise.ip().is_unspecified() {
            advertise.set_ip(peer.addr.ip());
        }
        let ident = Ident { site: from, incarnation: hello.incarnation, addr: advertise };
        peer.ident = Some(ident);
        let addr = peer.addr;
        self.alarms.clear(Alarm::Hello(from));
        self.forks.tell_again();
        self.event(Event::PeerReady { peer: from, addr });
        self.dialer.reached(&advertise);
        self.seeds.learn(advertise, from);
        if let Some((known, state)) = self.swim.known(&from).filter(|(known, _)| known.incarnation > ident.incarnation)
        {
            let alive = state != MemberState::Down;
            self.send(from, &Frame::Outdated { incarnation: known.incarnation, addr: known.addr, alive });
        }
        self.swim.hello(now, ident, true);
        self.link_new_peer(from);
        self.send_digest(from);
    }

    /// A SWIM packet: sent if a connection stands, else queued while one is dialled.
    pub(super) fn send_datagram(&mut self, to: Ident, bytes: Bytes) {
        if self.peers.contains_key(&to.site) {
            return self.push_datagram(to.site, bytes);
        }
        if !self.dial_member(to) {
            return;
        }
        if self.waiting.len() >= MAX_QUEUED_MEMBERS && !self.waiting.contains_key(&to.site) {
            self.waiting.pop_first();
        }
        let queue = self.waiting.entry(to.site).or_default();
        if queue.len() >= MAX_QUEUED_DATAGRAMS {
            queue.pop_front();
        }
        queue.push_back(bytes);
    }

    /// Asks for a connection to a member; `false` where that is of no use, because a connection that was dialled at its address
    /// leads to another site. (Its database was exchanged, or its address given away. To dial all the same would replace that
    /// connection by its like, again and again, until the member is taken for dead, and now and then for ten minutes more.)
    pub(super) fn dial_member(&mut self, member: Ident) -> bool {
        let elsewhere = |(site, peer): (&SiteId, &Peer)| *site != member.site && peer.dialed == Some(member.addr);
        let useful = !self.peers.iter().any(elsewhere);
        if useful {
            self.dialer.want(member.addr, Some(member.site));
        }
        useful
    }

    fn push_datagram(&mut self, to: SiteId, bytes: Bytes) {
        self.counters.datagrams_out += 1;
        self.outputs.push_back(Output::SendDatagram { to, bytes });
    }
}
