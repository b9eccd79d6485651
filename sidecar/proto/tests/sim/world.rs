//! The world of the simulation: nodes with their stores, a network with every fault, one queue of events, one seed.
//!
//! It plays the edge's part of the contract in `starling_proto::api` to the letter.

use crate::store::{fnv, Encoded, Store};
use bytes::Bytes;
use rand::rngs::StdRng;
use rand::{Rng, RngExt, SeedableRng};
use starling_crdt::{SiteId, Vector};
use starling_proto::limits::MAX_PUSH;
use starling_proto::{
    Changeset, Event, HangupReason, Input, Node, NodeConfig, Now, Output, PullKey, ServeKey, Source, Timing,
};
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

/// What the network does to what is sent, drawn from the seed.
#[derive(Clone, Copy, Debug)]
pub struct Weather {
    pub loss_percent: u32,
    pub duplicate_percent: u32,
    pub delay_us: (u64, u64),
    pub merge_failure_percent: u32,
}

impl Weather {
    pub const CALM: Self =
        Self { loss_percent: 0, duplicate_percent: 0, delay_us: (200, 900), merge_failure_percent: 0 };
}

#[derive(Clone, Debug)]
pub(crate) enum Task {
    Merge { source: Source, part: Bytes, last: bool },
    Finish { pull: PullKey, vector: Vector },
    ReadVector { ticket: u64 },
    NewEpoch { lost: u64 },
    Rehome { vector: Vector },
    Check { peer: SiteId, vector: Vector },
}

#[derive(Clone, Debug)]
pub(crate) enum Happening {
    /// An input for a node; with a connection it only arrives while that stands.
    Input { conn: Option<u64>, input: Box<Input> },
    /// A dial reaches its address.
    Dial { addr: SocketAddr },
    /// The node's timer.
    Timer,
    /// The store works off one task.
    Store(Box<Task>),
    /// A peer's connection, cut or dead, is noticed.
    Notice { peer: usize, conn: u64 },
    /// A request arrives at the peer.
    Request { from: usize, pull: PullKey, conn: u64, bytes: Bytes },
}

/// One member: what survives a crash (the store), and what does not.
pub struct Member {
    pub node: Option<Node>,
    pub store: Store,
    pub events: Vec<Event>,
    pub(crate) boot: u64,
    incarnation: u64,
    clock_back: bool,
    timer: Option<Now>,
    store_free_at: Now,
    pub(crate) open: BTreeMap<Source, Vec<Bytes>>,
    pub(crate) failed: BTreeSet<PullKey>,
    pub(crate) cancelled: BTreeSet<PullKey>,
    /// Pulls on a connection, to break with it.
    pub(crate) pulls: BTreeMap<PullKey, u64>,
    /// Answers given: stream, requester, its pull, connection.
    pub(crate) serves: BTreeMap<ServeKey, (usize, PullKey, u64)>,
    seeds: Vec<SocketAddr>,
}

#[derive(Debug)]
pub(crate) struct Conn {
    pub(crate) id: u64,
    /// No message overtakes another of its direction.
    pub(crate) arrives: [Now; 2],
    /// What was sent into a partition.
    pub(crate) held: Vec<(usize, Happening)>,
}

/// What was counted.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tally {
    pub frames: u64,
    pub datagrams: u64,
    pub payloads: u64,
    pub max_hops: u8,
    pub opens: u64,
    pub dials: u64,
}

pub struct World {
    pub now: Now,
    pub rng: StdRng,
    pub members: Vec<Member>,
    pub weather: Weather,
    pub tally: Tally,
    pub trace: u64,
    pub timing: Timing,
    queue: BTreeMap<(Now, u64), (usize, u64, Happening)>,
    pub(crate) next: u64,
    pub(crate) conns: BTreeMap<(usize, usize), Conn>,
    /// Which ends each connection ever made had; it stands while `conns` says so.
    pub(crate) made: BTreeMap<u64, (usize, usize)>,
    pub(crate) blocked: BTreeSet<(usize, usize)>,
    writes: i64,
}

pub(crate) fn pair(a: usize, b: usize) -> (usize, usize) {
    (a.min(b), a.max(b))
}

pub fn site(i: usize) -> SiteId {
    let mut id = [0x11; 16];
    id[14..].copy_from_slice(&(i as u16).to_be_bytes());
    SiteId(id)
}

pub fn addr(i: usize) -> SocketAddr {
    SocketAddr::from(([10, 0, (i / 250) as u8, (i % 250) as u8 + 1], 8787))
}

pub(crate) fn index_of(site: &SiteId) -> usize {
    usize::from(u16::from_be_bytes([site.0[14], site.0[15]]))
}

pub(crate) fn index_at(addr: &SocketAddr) -> Option<usize> {
    match addr.ip() {
        std::net::IpAddr::V4(ip) => {
            let [_, _, c, d] = ip.octets();
            Some(usize::from(c) * 250 + usize::from(d).checked_sub(1)?)
        }
        std::net::IpAddr::V6(_) => None,
    }
}

impl World {
    /// `n` members, none of them running. Everybody's seeds are the first two.
    pub fn new(seed: u64, n: usize, weather: Weather) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let members = (0..n).map(|i| Member::new(i, rng.next_u64(), vec![addr(0), addr(1 % n)])).collect();
        Self {
            now: Now(1_000_000),
            rng,
            members,
            weather,
            tally: Tally::default(),
            trace: 0,
            timing: Timing::default(),
            queue: BTreeMap::new(),
            next: 0,
            conns: BTreeMap::new(),
            made: BTreeMap::new(),
            blocked: BTreeSet::new(),
            writes: 0,
        }
    }

    pub fn boot(&mut self, i: usize) {
        let seed = self.rng.next_u64();
        let now = self.now;
        let member = &mut self.members[i];
        member.boot += 1;
        member.incarnation = if member.clock_back { 1 } else { member.incarnation.max(now.0 / 1000) + 1 };
        // Every third node does not know its own address.
        let advertise = if i % 3 == 2 { SocketAddr::from(([0, 0, 0, 0], 8787)) } else { addr(i) };
        let config = NodeConfig {
            cluster_id: [3; 16],
            site_id: site(i),
            incarnation: member.incarnation,
            advertise,
            seed,
            timing: self.timing,
        };
        member.node = Some(Node::new(config, now));
        member.timer = None;
        member.store_free_at = now;
        self.drain(i);
        let vector = self.members[i].store.vector.clone();
        self.give(i, Input::Started { vector });
    }

    /// The next boot of a member looks as if it were before its last one.
    pub fn set_clock_back(&mut self, i: usize) {
        self.members[i].clock_back = true;
    }

    /// Stops a member without a word.
    pub fn crash(&mut self, i: usize) {
        let member = &mut self.members[i];
        member.node = None;
        member.boot += 1;
        member.open.clear();
        member.pulls.clear();
        member.serves.clear();
        member.failed.clear();
        member.cancelled.clear();
        let pairs: Vec<(usize, usize)> = self.conns.keys().filter(|(a, b)| *a == i || *b == i).copied().collect();
        for pair in pairs {
            let other = if pair.0 == i { pair.1 } else { pair.0 };
            if let Some(conn) = self.conns.remove(&pair) {
                let delay = self.rng.random_range(300_000..4_000_000);
                self.schedule(delay, other, Happening::Notice { peer: i, conn: conn.id });
            }
        }
    }

    /// One local transaction of a running member; the core hears of it a little later.
    pub fn write(&mut self, i: usize, keys: &BTreeSet<u64>, padding: usize) {
        self.writes += 1;
        let (token, value, ms) = (self.rng.next_u64(), self.writes, self.now.0 / 1000);
        let Encoded { header, parts } = self.members[i].store.write(keys, value, token, ms, padding);
        let size: usize = parts.iter().map(Bytes::len).sum();
        let input = if size > MAX_PUSH {
            Input::LocalTooLarge { header }
        } else {
            Input::LocalChangesets(vec![Changeset { header, parts }])
        };
        // In order: the watcher reports commits one after another.
        let after = self.members[i].store_free_at.max(self.now).after(self.rng.random_range(100..3_000));
        self.members[i].store_free_at = after;
        let boot = self.members[i].boot;
        self.enqueue(after, i, boot, Happening::Input { conn: None, input: Box::new(input) });
    }

    pub fn write_random(&mut self, i: usize, keys: u64, padding: usize) {
        let n = self.rng.random_range(1..=3);
        let keys: BTreeSet<u64> = (0..n).map(|_| self.rng.random_range(0..keys)).collect();
        self.write(i, &keys, padding);
    }

    /// Lets virtual time pass.
    pub fn run_for(&mut self, micros: u64) {
        let end = self.now.after(micros);
        while let Some(((at, _), _)) = self.queue.first_key_value().filter(|((at, _), _)| *at <= end) {
            self.now = *at;
            let Some((_, (i, boot, what))) = self.queue.pop_first() else { break };
            if self.members[i].boot == boot {
                self.happen(i, what);
            }
        }
        self.now = end;
    }

    /// Lets time pass until `done` or until `micros` are over. Says how long it took.
    pub fn run_until(&mut self, micros: u64, done: impl FnMut(&Self) -> bool) -> Option<u64> {
        self.run_in_steps(50_000, micros, done)
    }

    /// The same, looking every `step`.
    pub fn run_in_steps(&mut self, step: u64, micros: u64, mut done: impl FnMut(&Self) -> bool) -> Option<u64> {
        let start = self.now;
        while self.now.since(start) <= micros {
            if done(self) {
                return Some(self.now.since(start));
            }
            self.run_for(step);
        }
        None
    }

    pub fn running(&self) -> impl Iterator<Item = &Member> {
        self.members.iter().filter(|m| m.node.is_some())
    }

    /// Whether everybody who runs claims and carries the same; panics if equal vectors hide unequal cells.
    pub fn converged(&self) -> bool {
        let mut running = self.running();
        let Some(first) = running.next() else { return true };
        let equal = running.all(|m| m.store.vector == first.store.vector);
        if equal {
            self.running()
                .for_each(|m| assert_eq!(m.store.content(), first.store.content(), "equal vectors, unequal cells"));
        }
        equal
    }

    /// Equal vectors mean equal cells, at any moment, between any two stores.
    pub fn check_stores(&self) {
        let mut seen: Vec<&Store> = Vec::new();
        for store in self.members.iter().map(|m| &m.store) {
            match seen.iter().find(|s| s.vector == store.vector) {
                Some(same) => assert_eq!(same.content(), store.content(), "equal vectors, unequal cells"),
                None => seen.push(store),
            }
        }
    }

    pub(crate) fn enqueue(&mut self, at: Now, i: usize, boot: u64, what: Happening) {
        self.next += 1;
        self.queue.insert((at, self.next), (i, boot, what));
    }

    pub(crate) fn schedule(&mut self, delay: u64, i: usize, what: Happening) {
        let boot = self.members[i].boot;
        self.enqueue(self.now.after(delay), i, boot, what);
    }

    pub(crate) fn delay(&mut self) -> u64 {
        let (lo, hi) = self.weather.delay_us;
        self.rng.random_range(lo..=hi)
    }

    pub(crate) fn percent(&mut self, percent: u32) -> bool {
        percent > 0 && self.rng.random_range(0..100) < percent
    }

    fn happen(&mut self, i: usize, what: Happening) {
        match what {
            Happening::Input { conn, input } => self.arrive(i, conn, *input),
            Happening::Dial { addr } => self.dial_arrives(i, addr),
            Happening::Timer => {
                self.members[i].timer = None;
                let now = self.now;
                if let Some(node) = self.members[i].node.as_mut() {
                    node.handle_timeout(now);
                }
                self.drain(i);
            }
            Happening::Store(task) => self.work(i, *task),
            Happening::Notice { peer, conn } => self.notice(i, peer, conn),
            Happening::Request { from, pull, conn, bytes } => self.request_arrives(i, from, pull, conn, bytes),
        }
    }

    /// Gives an input to a node and does what it asks for.
    pub fn give(&mut self, i: usize, input: Input) {
        let now = self.now;
        if let Some(node) = self.members[i].node.as_mut() {
            node.handle(now, input);
        }
        self.drain(i);
    }

    fn drain(&mut self, i: usize) {
        while let Some(output) = self.members[i].node.as_mut().and_then(Node::poll_output) {
            self.execute(i, output);
        }
        let deadline = self.members[i].node.as_ref().and_then(Node::next_deadline);
        if let Some(at) = deadline {
            let set = self.members[i].timer;
            if set.is_none_or(|t| at < t) {
                self.members[i].timer = Some(at);
                let boot = self.members[i].boot;
                self.enqueue(at.max(self.now), i, boot, Happening::Timer);
            }
        }
    }

    pub(crate) fn note(&mut self, i: usize, kind: u64, detail: u64) {
        let words = [self.trace, self.now.0, i as u64, kind, detail];
        let bytes: Vec<u8> = words.iter().flat_map(|w| w.to_le_bytes()).collect();
        self.trace = fnv(&bytes);
    }

    fn execute(&mut self, i: usize, output: Output) {
        match output {
            Output::ResolveSeeds => {
                let addrs = self.members[i].seeds.clone();
                self.schedule(500, i, Happening::Input { conn: None, input: Box::new(Input::Join { addrs }) });
            }
            Output::Dial { addr, .. } => {
                self.tally.dials += 1;
                self.note(i, 1, u64::from(addr.port()));
                let delay = 2 * self.delay();
                self.schedule(delay, i, Happening::Dial { addr });
            }
            // Whoever leaves lingers until the scenario crashes it, as a real edge does for a moment.
            Output::Hangup { reason: HangupReason::Leaving, .. } => {}
            Output::Hangup { peer, .. } => self.hang_up(i, &peer),
            Output::SendDatagram { to, bytes } => self.datagram(i, index_of(&to), bytes),
            Output::SendFrame { to, bytes } => self.frame(i, index_of(&to), bytes),
            Output::OpenSync { to, pull, request } => self.open(i, index_of(&to), pull, request),
            Output::CancelSync { pull } => {
                let member = &mut self.members[i];
                member.cancelled.insert(pull);
                member.pulls.remove(&pull);
                member.open.remove(&Source::Sync { pull });
            }
            Output::ServeSync { serve, have, .. } => self.serve(i, serve, &have),
            Output::RefuseSync { serve, answer } => {
                if let Some((to, pull, _)) = self.members[i].serves.remove(&serve) {
                    self.transmit(to, i, Input::SyncAnswer { pull, bytes: answer });
                    self.transmit(to, i, Input::SyncEnded { pull, result: Ok(()) });
                }
            }
            Output::Merge { source, header, part } => {
                self.note(i, 2, header.dot.dot.version);
                self.task(i, Task::Merge { source, part, last: header.last });
            }
            Output::FinishSync { pull, vector } => self.task(i, Task::Finish { pull, vector }),
            Output::ReadVector { ticket } => self.task(i, Task::ReadVector { ticket }),
            Output::CheckVector { peer, vector } => self.task(i, Task::Check { peer, vector }),
            Output::NewEpoch { origin } => self.task(i, Task::NewEpoch { lost: origin.epoch }),
            Output::Rehome { vector } => self.task(i, Task::Rehome { vector }),
            Output::Event(event) => self.members[i].events.push(event),
        }
    }

    /// The store works in order and takes its time.
    fn task(&mut self, i: usize, task: Task) {
        let cost = self.rng.random_range(20..800);
        let at = self.members[i].store_free_at.max(self.now).after(cost);
        self.members[i].store_free_at = at;
        let boot = self.members[i].boot;
        self.enqueue(at, i, boot, Happening::Store(Box::new(task)));
    }
}

impl Member {
    fn new(i: usize, epoch: u64, seeds: Vec<SocketAddr>) -> Self {
        Self {
            node: None,
            store: Store::new(site(i), epoch),
            events: Vec::new(),
            boot: 0,
            incarnation: 0,
            clock_back: false,
            timer: None,
            store_free_at: Now(0),
            open: BTreeMap::new(),
            failed: BTreeSet::new(),
            cancelled: BTreeSet::new(),
            pulls: BTreeMap::new(),
            serves: BTreeMap::new(),
            seeds,
        }
    }

    pub fn node(&self) -> &Node {
        self.node.as_ref().expect("a running member")
    }
}
