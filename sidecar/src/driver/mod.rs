//! The one task that owns the protocol's state machine: it feeds it what the edges tell and does what it says.
//!
//! It never waits for an edge: the network and the database take what they are given at once or drop it in a way that the
//! protocol repairs. So nothing that an edge does can hold up the heartbeat of the cluster.

mod answer;
mod edges;
mod log;
mod status;

pub use edges::Edges;

use crate::admin::StatusRequest;
use crate::db::reader::ReadJob;
use crate::db::writer::Window;
use crate::db::{Figures, StoreEvent};
use crate::net::{close_code, Admitted, AnswerEvent, AnswerSink, NetEvent, SendOutcome};
use answer::Answering;
use starling_crdt::SiteId;
use starling_proto::{HeldBy, Input, Node, Now, Output, PullKey, ServeKey, Source};
use std::collections::BTreeMap;
use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};
use tokio::sync::mpsc;
use tokio::task::AbortHandle;

/// Sync streams of peers that wait for the core's word; it gives it at once.
const MAX_UNANSWERED: usize = 64;
/// Round-trip times are passed on this often.
const RTT_INTERVAL: Duration = Duration::from_secs(2);
/// Being superseded is told once in this time.
const SUPERSEDED_INTERVAL: Duration = Duration::from_secs(60);
/// Timers of the core are slept for no longer than this at once.
const LONGEST_SLEEP: Duration = Duration::from_secs(3600);
/// When leaving, this long is waited for what is queued to go out.
const LEAVE_FLUSH: Duration = Duration::from_millis(500);
/// When leaving, this long at most others are waited for to hold what was committed.
const LEAVE_SHIP: Duration = Duration::from_millis(2000);
/// The peers are asked again what they hold after this long.
const LEAVE_ASK: Duration = Duration::from_millis(100);
/// At last, for the last datagrams to leave the socket.
const LEAVE_LINGER: Duration = Duration::from_millis(30);

/// Where the driver's inputs come from.
#[derive(Debug)]
pub struct Sources {
    /// The network.
    pub net: mpsc::Receiver<NetEvent>,
    /// Answers to our pulls.
    pub answers: mpsc::Receiver<AnswerEvent>,
    /// The database.
    pub store: mpsc::Receiver<StoreEvent>,
    /// The status socket.
    pub status: mpsc::Receiver<StatusRequest>,
    /// Resolved seeds.
    pub seeds: mpsc::Receiver<Vec<SocketAddr>>,
}

/// What never changes while a node runs.
#[derive(Clone, Debug)]
pub struct Facts {
    /// This replica.
    pub site: SiteId,
    /// The cluster.
    pub cluster_id: uuid::Uuid,
    /// This process: of two with one site id the higher is the newer.
    pub incarnation: u64,
    /// Where QUIC listens.
    pub listen: SocketAddr,
    /// Where HTTP listens.
    pub http: SocketAddr,
    /// Whether the address that others are told was given by the user.
    pub advertise_given: bool,
    /// The seeds as given.
    pub join: Vec<String>,
}

/// Why the driver ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Ended {
    /// It was told to, and has left the cluster.
    Left,
    /// The database is another one now, or an earlier state of it: everything must begin anew.
    Reopen(String),
    /// What this node has written has another name now: what was believed of the store is void.
    Renamed(&'static str),
    /// An older process runs with this database's site id: this one is a copy and must become a site of its own.
    Copy,
}

/// The driver.
pub struct Driver {
    node: Node,
    edges: Edges,
    facts: Facts,
    start: Instant,
    serves: BTreeMap<ServeKey, AnswerSink>,
    pulls: BTreeMap<PullKey, AbortHandle>,
    /// The share of a pull's window that belongs to the message being handled.
    window: Window,
    congested: Vec<SiteId>,
    figures: Figures,
    leaving: bool,
    ended: Option<Ended>,
    superseded: Option<Instant>,
}

impl Driver {
    /// A driver for a fresh node; `start` is the zero of its clock.
    #[must_use]
    pub fn new(node: Node, edges: Edges, facts: Facts, start: Instant, figures: Figures) -> Self {
        Self {
            node,
            edges,
            facts,
            start,
            serves: BTreeMap::new(),
            pulls: BTreeMap::new(),
            window: None,
            congested: Vec::new(),
            figures,
            leaving: false,
            ended: None,
            superseded: None,
        }
    }

    /// Runs until `stop`, then leaves the cluster.
    pub async fn run(mut self, mut sources: Sources, stop: impl Future<Output = ()>) -> (Ended, Edges) {
        let mut rtt = tokio::time::interval(RTT_INTERVAL);
        tokio::pin!(stop);
        self.drain();
        while self.ended.is_none() {
            let deadline = self.deadline();
            tokio::select! {
                Some(event) = sources.store.recv() => self.on_store(event),
                Some(event) = sources.net.recv() => self.on_net(event),
                Some(event) = sources.answers.recv() => self.on_answer(event),
                Some(addrs) = sources.seeds.recv() => self.feed(Input::Join { addrs }),
                Some(StatusRequest(answer)) = sources.status.recv() => { let _ = answer.send(self.status()); }
                () = tokio::time::sleep_until(deadline.into()) => self.tick(),
                _ = rtt.tick() => self.pass_rtts(),
                () = &mut stop => break,
            }
        }
        if let Some(ended) = self.ended.take() {
            return (ended, self.edges);
        }
        self.leave(&mut sources).await;
        (Ended::Left, self.edges)
    }

    fn now(&self) -> Now {
        Now(u64::try_from(self.start.elapsed().as_micros()).unwrap_or(u64::MAX))
    }

    fn deadline(&self) -> Instant {
        let now = Instant::now();
        match self.node.next_deadline() {
            Some(Now(at)) => (self.start + Duration::from_micros(at)).min(now + LONGEST_SLEEP),
            None => now + LONGEST_SLEEP,
        }
    }

    fn tick(&mut self) {
        let now = self.now();
        self.node.handle_timeout(now);
        self.drain();
    }

    fn feed(&mut self, input: Input) {
        let now = self.now();
        self.node.handle(now, input);
        self.drain();
    }

    fn drain(&mut self) {
        loop {
            while let Some(output) = self.node.poll_output() {
                self.act(output);
            }
            let Some(peer) = self.congested.pop() else { break };
            let now = self.now();
            self.node.handle(now, Input::Congested { peer, congested: true });
        }
    }

    fn act(&mut self, output: Output) {
        match output {
            Output::ResolveSeeds => self.edges.resolve(self.facts.join.clone()),
            Output::Dial { addr, .. } => self.edges.endpoint.dial(addr),
            Output::Hangup { peer, reason } => {
                // When leaving, what is queued goes out first.
                if !self.leaving {
                    self.edges.peers.hang_up(&peer, reason.code(), &reason.to_string());
                }
            }
            Output::SendDatagram { to, bytes } => {
                if let Some(link) = self.edges.peers.get(&to) {
                    link.send_datagram(bytes);
                }
            }
            Output::SendFrame { to, bytes } => {
                if self.edges.peers.get(&to).map(|link| link.send_frame(bytes)) == Some(SendOutcome::Congested) {
                    self.congested.push(to);
                }
            }
            Output::OpenSync { to, pull, request } => self.open_sync(&to, pull, request),
            Output::CancelSync { pull } => {
                if let Some(task) = self.pulls.remove(&pull) {
                    task.abort();
                }
                self.edges.writer.abandon(Source::Sync { pull });
            }
            Output::ServeSync { to, serve, have } => self.serve(to, serve, have),
            Output::RefuseSync { serve, answer } => {
                if let Some(sink) = self.serves.remove(&serve) {
                    sink.only(answer);
                }
            }
            Output::Merge { source, header, part } => {
                let window = if matches!(source, Source::Sync { .. }) { self.window.take() } else { None };
                self.edges.writer.merge(source, header, part, window);
            }
            Output::FinishSync { pull, vector } => self.edges.writer.finish(pull, vector),
            Output::ReadVector { ticket } => self.ask(ReadJob::Vector { ticket: Some(ticket) }),
            Output::CheckVector { peer, vector } => self.ask(ReadJob::Check { peer, vector }),
            Output::NewEpoch { origin } => {
                self.edges.watch.pause();
                self.edges.writer.new_epoch(origin.epoch);
            }
            Output::Rehome { vector } => {
                self.edges.watch.pause();
                self.edges.writer.rehome(vector);
            }
            Output::Event(event) => log::event(&event),
        }
    }

    fn ask(&self, job: ReadJob) {
        if !self.edges.readers.ask(job) {
            tracing::error!("too many questions wait for the database");
        }
    }

    fn open_sync(&mut self, to: &SiteId, pull: PullKey, request: bytes::Bytes) {
        match self.edges.peers.get(to) {
            Some(link) => {
                let task = link.open_sync(pull.0, request, self.edges.answers.clone());
                self.pulls.insert(pull, task);
            }
            None => {
                let (now, result) = (self.now(), Err("not connected".to_owned()));
                self.node.handle(now, Input::SyncEnded { pull, result });
            }
        }
    }

    fn serve(&mut self, peer: SiteId, serve: ServeKey, have: starling_crdt::Vector) {
        let asked = self.serves.remove(&serve).is_some_and(|sink| {
            let to = Box::new(Answering::new(sink));
            self.edges.readers.ask(ReadJob::Serve { peer, serve, have, to })
        });
        if !asked {
            let now = self.now();
            self.node.handle(now, Input::ServeEnded { serve, completed: false });
        }
    }

    fn on_net(&mut self, event: NetEvent) {
        match event {
            NetEvent::Up { link, dialed, local_ip } => self.on_up(link, dialed, local_ip),
            NetEvent::Down { link, site, why, code } => {
                self.heed(code, &why);
                if self.edges.peers.remove(&site, link) {
                    self.edges.writer.abandon(Source::Push { from: site });
                    self.feed(Input::PeerDown { peer: site, why });
                }
            }
            NetEvent::DialFailed { addr, why } => self.feed(Input::DialFailed { addr, why }),
            NetEvent::Relieved { link, site } => {
                if self.edges.peers.current(&site, link).is_some() {
                    self.feed(Input::Congested { peer: site, congested: false });
                }
            }
            NetEvent::Frame { link, from, bytes, window } => {
                if self.edges.peers.current(&from, link).is_some() {
                    self.feed(Input::Frame { from, bytes });
                }
                drop(window);
            }
            NetEvent::Datagram { link, from, bytes } => {
                if self.edges.peers.current(&from, link).is_some() {
                    self.feed(Input::Datagram { from, bytes });
                }
            }
            NetEvent::SyncRequested { link, from, serve, bytes, sink } => {
                if self.edges.peers.current(&from, link).is_some() {
                    let serve = ServeKey(serve);
                    self.serves.insert(serve, sink);
                    if self.serves.len() > MAX_UNANSWERED {
                        self.serves.pop_first();
                    }
                    self.feed(Input::SyncRequested { from, serve, bytes });
                }
            }
        }
    }

    fn on_up(&mut self, link: crate::net::Link, dialed: Option<SocketAddr>, local_ip: Option<IpAddr>) {
        let (peer, addr, incarnation) = (link.peer.site, link.addr, link.peer.incarnation);
        if peer == self.facts.site && incarnation < self.facts.incarnation {
            self.ended = Some(Ended::Copy);
        }
        match self.edges.peers.admit(link, Instant::now()) {
            Admitted::Up => {
                self.feed(Input::PeerUp { peer, addr, dialed });
                self.learn_address(local_ip);
            }
            Admitted::Duplicate => {
                if let Some(addr) = dialed {
                    self.feed(Input::DialRedundant { addr, peer });
                }
            }
        }
    }

    /// What a peer says of two processes with one site id.
    fn heed(&mut self, code: Option<u64>, why: &str) {
        match code.and_then(|code| u32::try_from(code).ok()) {
            Some(close_code::CLONE) => self.ended = Some(Ended::Copy),
            Some(close_code::SUPERSEDED) if self.superseded.is_none_or(|at| at.elapsed() > SUPERSEDED_INTERVAL) => {
                self.superseded = Some(Instant::now());
                tracing::error!(
                    why,
                    "another sidecar runs with this database's site id: does a copy of the database run?"
                );
            }
            _ => {}
        }
    }

    /// Listening on all addresses, the node takes the one under which its first peer sees it. That may be a loopback one,
    /// which no other machine can dial: then a connection that uses a better one tells it.
    fn learn_address(&mut self, local_ip: Option<IpAddr>) {
        let Some(ip) = local_ip.filter(|ip| !ip.is_loopback() && !ip.is_unspecified()) else { return };
        let told = self.node.advertised();
        let poor = told.ip().is_loopback() || told.ip().is_unspecified();
        if !self.facts.advertise_given && self.facts.listen.ip().is_unspecified() && poor {
            self.feed(Input::Advertise(SocketAddr::new(ip, told.port())));
        }
    }

    fn on_answer(&mut self, event: AnswerEvent) {
        match event {
            AnswerEvent::Message { pull, bytes, window } => {
                let pull = PullKey(pull);
                if self.pulls.contains_key(&pull) {
                    self.window = Some(Box::new(window));
                    self.feed(Input::SyncAnswer { pull, bytes });
                    self.window = None;
                }
            }
            AnswerEvent::Ended { pull, result } => {
                let pull = PullKey(pull);
                if self.pulls.remove(&pull).is_some() {
                    self.feed(Input::SyncEnded { pull, result });
                    // After a complete answer its claim is queued already, and nothing is left to be given up.
                    self.edges.writer.abandon(Source::Sync { pull });
                }
            }
        }
    }

    fn on_store(&mut self, event: StoreEvent) {
        match event {
            StoreEvent::Local(changesets) => self.feed(Input::LocalChangesets(changesets)),
            StoreEvent::Announce(header) => self.feed(Input::LocalTooLarge { header }),
            StoreEvent::Merged { source, dot, claimed, changes } => {
                self.feed(Input::Merged { source, dot, claimed, changes });
            }
            StoreEvent::MergeFailed { source, header, why } => self.feed(Input::MergeFailed { source, header, why }),
            StoreEvent::Applied { pull, result: Ok(()) } => self.feed(Input::SyncApplied { pull }),
            StoreEvent::Applied { pull, result: Err(why) } => self.feed(Input::SyncFailed { pull, why }),
            StoreEvent::Vector { ticket, vector } => self.feed(Input::Vector { ticket, vector }),
            StoreEvent::Fork { peer, theirs, ours } => self.feed(Input::ForkDetected { peer, theirs, ours }),
            StoreEvent::ServeEnded { serve, completed } => self.feed(Input::ServeEnded { serve, completed }),
            StoreEvent::NewEpoch { drawn: true } => {
                let why = "commits of this node had been lost; what it writes from now on belongs to a new epoch";
                self.ended = Some(Ended::Renamed(why));
            }
            StoreEvent::Rehomed { origins: 1.. } => {
                let why =
                    "one version number was used for two transactions; those made here have a name of their own now";
                self.ended = Some(Ended::Renamed(why));
            }
            StoreEvent::NewEpoch { drawn: false } | StoreEvent::Rehomed { origins: 0 } => self.edges.watch.go_on(),
            StoreEvent::SchemaChanged => self.edges.writer.resume(),
            StoreEvent::MayMend => self.edges.writer.mend(),
            StoreEvent::Resumed { changes } => {
                if changes > 0 {
                    tracing::info!(changes, "changes that were kept aside are applied");
                    self.ask(ReadJob::Vector { ticket: None });
                }
            }
            StoreEvent::FileChanged { why } => self.ended = Some(Ended::Reopen(why)),
            StoreEvent::Figures(figures) => self.figures = figures,
        }
    }

    fn pass_rtts(&mut self) {
        let rtts: Vec<_> = self.edges.peers.iter().map(|link| (link.peer.site, link.rtt())).collect();
        for (peer, rtt) in rtts {
            let rtt_us = u64::try_from(rtt.as_micros()).unwrap_or(u64::MAX);
            self.feed(Input::Rtt { peer, rtt_us });
        }
    }

    /// Goes on as ever until others hold what was committed last: who has been told of a large transaction pulls it now.
    async fn ship(&mut self, sources: &mut Sources) {
        let start = Instant::now();
        let mut ask = tokio::time::interval(LEAVE_ASK);
        while start.elapsed() < LEAVE_SHIP && self.ended.is_none() {
            let deadline = self.deadline().min(start + LEAVE_SHIP);
            tokio::select! {
                Some(event) = sources.store.recv() => self.on_store(event),
                Some(event) = sources.net.recv() => self.on_net(event),
                Some(event) = sources.answers.recv() => self.on_answer(event),
                () = tokio::time::sleep_until(deadline.into()) => self.tick(),
                _ = ask.tick() => self.feed(Input::Leaving),
            }
            match self.node.held_by() {
                HeldBy::All => break,
                // It spreads from there.
                HeldBy::Some if start.elapsed() > LEAVE_FLUSH => break,
                _ => {}
            }
        }
    }

    /// Ships what was committed to the last, tells the others, and waits for it to go out.
    async fn leave(&mut self, sources: &mut Sources) {
        self.edges.watch.stop();
        let until = Instant::now() + LEAVE_FLUSH;
        while !self.edges.watch.is_finished() && Instant::now() < until {
            let event = tokio::time::timeout(Duration::from_millis(5), sources.store.recv()).await;
            if let Ok(Some(event)) = event {
                self.on_store(event);
            }
        }
        while let Ok(event) = sources.store.try_recv() {
            self.on_store(event);
        }
        self.ship(sources).await;
        self.leaving = true;
        self.feed(Input::Leave);
        let until = Instant::now() + LEAVE_FLUSH;
        while !self.edges.peers.iter().all(|link| link.is_drained() || link.is_closed()) && Instant::now() < until {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        tokio::time::sleep(LEAVE_LINGER).await;
        for link in self.edges.peers.iter() {
            link.close(close_code::LEAVING, "the node is leaving the cluster");
        }
    }
}
