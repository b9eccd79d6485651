//! The network of the simulation: connections, ordered streams, datagrams, and what a cut or a crash does to them.

use crate::store::fnv;
use crate::world::{addr, index_at, index_of, pair, site, Conn, Happening, World};
use bytes::Bytes;
use rand::RngExt;
use starling_crdt::{SiteId, Vector};
use starling_proto::{frames, Input, PullKey, ServeKey};
use std::net::SocketAddr;

impl World {
    /// Cuts or mends the way between two members.
    pub fn block(&mut self, a: usize, b: usize, cut: bool) {
        if cut {
            if self.blocked.insert(pair(a, b)) {
                if let Some(id) = self.conns.get(&pair(a, b)).map(|c| c.id) {
                    for (at, peer) in [(a, b), (b, a)] {
                        let delay = self.rng.random_range(4_000_000..6_000_000);
                        self.schedule(delay, at, Happening::Notice { peer, conn: id });
                    }
                }
            }
        } else if self.blocked.remove(&pair(a, b)) {
            let held = self.conns.get_mut(&pair(a, b)).map(|c| (c.id, std::mem::take(&mut c.held)));
            if let Some((_, held)) = held {
                for (to, what) in held {
                    match what {
                        Happening::Input { input, .. } => self.transmit(to, if to == a { b } else { a }, *input),
                        what => self.schedule(1_000, to, what),
                    }
                }
            }
        }
    }

    pub fn mend_all(&mut self) {
        for (a, b) in self.blocked.clone() {
            self.block(a, b, false);
        }
    }

    pub(crate) fn arrive(&mut self, i: usize, conn: Option<u64>, input: Input) {
        if let Some(id) = conn {
            let Some((from, to)) = self.ends(id) else { return };
            if self.blocked.contains(&pair(from, to)) {
                if !matches!(input, Input::Datagram { .. }) {
                    if let Some(c) = self.conns.get_mut(&(from, to)) {
                        c.held.push((i, Happening::Input { conn, input: Box::new(input) }));
                    }
                }
                return;
            }
        }
        match &input {
            Input::SyncAnswer { pull, .. } | Input::SyncEnded { pull, .. }
                if self.members[i].cancelled.contains(pull) =>
            {
                return;
            }
            Input::SyncEnded { pull, .. } => drop(self.members[i].pulls.remove(pull)),
            _ => {}
        }
        self.give(i, input);
    }

    pub(crate) fn ends(&self, id: u64) -> Option<(usize, usize)> {
        let pair = self.made.get(&id)?;
        self.conns.get(pair).filter(|c| c.id == id).map(|_| *pair)
    }

    /// Sends on an ordered stream of the connection between the two, if there is one.
    pub(crate) fn transmit(&mut self, to: usize, from: usize, input: Input) {
        let lost = self.percent(self.weather.loss_percent);
        // What is lost is sent again: on a stream that costs time only.
        let delay = self.delay() + if lost { 3 * self.weather.delay_us.1 } else { 0 };
        let (now, direction) = (self.now, usize::from(to < from));
        let Some(conn) = self.conns.get_mut(&pair(to, from)) else { return };
        let at = now.after(delay).max(conn.arrives[direction].after(1));
        conn.arrives[direction] = at;
        let id = conn.id;
        let boot = self.members[to].boot;
        self.enqueue(at, to, boot, Happening::Input { conn: Some(id), input: Box::new(input) });
    }

    pub(crate) fn dial_arrives(&mut self, i: usize, to: SocketAddr) {
        let target = index_at(&to).filter(|t| *t < self.members.len());
        let up = target.filter(|t| self.members[*t].node.is_some() && !self.blocked.contains(&pair(i, *t)));
        let Some(target) = up else {
            return self.give(i, Input::DialFailed { addr: to, why: "no answer".to_owned() });
        };
        if target == i {
            return self.give(i, Input::PeerUp { peer: site(i), addr: to, dialed: Some(to) });
        }
        if self.conns.contains_key(&pair(i, target)) {
            return self.give(i, Input::DialRedundant { addr: to, peer: site(target) });
        }
        self.next += 1;
        let conn = Conn { id: self.next, arrives: [self.now; 2], held: Vec::new() };
        self.made.insert(conn.id, pair(i, target));
        self.conns.insert(pair(i, target), conn);
        for (a, b) in [(i, target), (target, i)] {
            self.break_streams(a, b);
        }
        self.give(i, Input::PeerUp { peer: site(target), addr: addr(target), dialed: Some(to) });
        let from = SocketAddr::new(addr(i).ip(), 40_000);
        self.give(target, Input::PeerUp { peer: site(i), addr: from, dialed: None });
    }

    /// Ends what ran over an older connection to `peer`.
    pub(crate) fn break_streams(&mut self, i: usize, peer: usize) {
        let pulls: Vec<PullKey> =
            self.members[i].pulls.iter().filter(|(_, c)| self.ends(**c).is_none()).map(|(p, _)| *p).collect();
        for pull in pulls {
            self.members[i].pulls.remove(&pull);
            self.give(i, Input::SyncEnded { pull, result: Err("connection lost".to_owned()) });
        }
        let serves: Vec<ServeKey> = self.members[i]
            .serves
            .iter()
            .filter(|(_, s)| s.0 == peer && self.ends(s.2).is_none())
            .map(|(k, _)| *k)
            .collect();
        for serve in serves {
            self.members[i].serves.remove(&serve);
            self.give(i, Input::ServeEnded { serve, completed: false });
        }
    }

    /// A connection that ended is noticed at one end.
    pub(crate) fn notice(&mut self, i: usize, peer: usize, id: u64) {
        match self.conns.get(&pair(i, peer)) {
            Some(conn) if conn.id != id => return,
            Some(_) if !self.blocked.contains(&pair(i, peer)) => return,
            Some(_) => {
                self.conns.remove(&pair(i, peer));
                self.schedule(1_000, peer, Happening::Notice { peer: i, conn: id });
            }
            None => {}
        }
        self.break_streams(i, peer);
        self.give(i, Input::PeerDown { peer: site(peer), why: "timed out".to_owned() });
    }

    pub(crate) fn request_arrives(&mut self, i: usize, from: usize, pull: PullKey, conn: u64, bytes: Bytes) {
        let blocked = self.blocked.contains(&pair(i, from));
        let Some(standing) = self.conns.get_mut(&pair(i, from)).filter(|c| c.id == conn) else { return };
        if blocked {
            return standing.held.push((i, Happening::Request { from, pull, conn, bytes }));
        }
        self.next += 1;
        let serve = ServeKey(self.next);
        self.members[i].serves.insert(serve, (from, pull, conn));
        self.give(i, Input::SyncRequested { from: site(from), serve, bytes });
    }

    pub(crate) fn hang_up(&mut self, i: usize, peer: &SiteId) {
        let other = index_of(peer);
        if other != i && self.conns.remove(&pair(i, other)).is_some() {
            self.break_streams(i, other);
            self.schedule(1_000, other, Happening::Notice { peer: i, conn: 0 });
        }
    }

    pub(crate) fn datagram(&mut self, i: usize, to: usize, bytes: Bytes) {
        self.tally.datagrams += 1;
        self.note(i, 3, fnv(&bytes));
        assert!(bytes.len() <= starling_proto::limits::MAX_DATAGRAM);
        let Some(id) = self.conns.get(&pair(i, to)).map(|c| c.id) else { return };
        let copies = 1 + usize::from(self.percent(self.weather.duplicate_percent));
        for _ in 0..copies {
            if !self.percent(self.weather.loss_percent) {
                let delay = self.delay();
                let input = Input::Datagram { from: site(i), bytes: bytes.clone() };
                self.schedule(delay, to, Happening::Input { conn: Some(id), input: Box::new(input) });
            }
        }
    }

    pub(crate) fn frame(&mut self, i: usize, to: usize, bytes: Bytes) {
        self.tally.frames += 1;
        self.note(i, 4, fnv(bytes.get(..bytes.len().min(64)).unwrap_or_default()));
        assert!(bytes.len() <= starling_proto::limits::MAX_FRAME);
        if bytes.first() == Some(&2) {
            self.tally.payloads += 1;
            self.tally.max_hops = self.tally.max_hops.max(bytes[1]);
        }
        self.transmit(to, i, Input::Frame { from: site(i), bytes });
    }

    pub(crate) fn open(&mut self, i: usize, to: usize, pull: PullKey, request: Bytes) {
        self.tally.opens += 1;
        self.note(i, 5, pull.0);
        let Some(id) = self.conns.get(&pair(i, to)).map(|c| c.id) else {
            let input = Input::SyncEnded { pull, result: Err("not connected".to_owned()) };
            return self.schedule(100, i, Happening::Input { conn: None, input: Box::new(input) });
        };
        self.members[i].pulls.insert(pull, id);
        let delay = self.delay();
        self.schedule(delay, to, Happening::Request { from: i, pull, conn: id, bytes: request });
    }

    pub(crate) fn serve(&mut self, i: usize, serve: ServeKey, have: &Vector) {
        let Some((to, pull, _)) = self.members[i].serves.remove(&serve) else { return };
        let (changesets, vector) = self.members[i].store.serve(have, site(to));
        for part in changesets.iter().flat_map(|c| &c.parts) {
            self.transmit(to, i, Input::SyncAnswer { pull, bytes: frames::answer_part(part) });
        }
        self.transmit(to, i, Input::SyncAnswer { pull, bytes: frames::answer_done(&vector.encode()) });
        self.transmit(to, i, Input::SyncEnded { pull, result: Ok(()) });
        let ended = Input::ServeEnded { serve, completed: true };
        self.schedule(1_000, i, Happening::Input { conn: None, input: Box::new(ended) });
    }
}
