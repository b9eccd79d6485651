//! Comparing vectors: digests, what differs, and one of the two alarms that a comparison can raise: own commits were lost.

use super::Node;
use crate::api::{Event, Now, Output};
use crate::book::gains;
use crate::digest::digest;
use crate::frames::{encode_vector, Frame};
use crate::limits::{MAX_FORKS, MAX_RENEWED, MAX_VECTOR_FRAME};
use crate::sync::Need;
use crate::timers::Alarm;
use starling_crdt::{Dot, Origin, SiteId, Vector};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Two vectors that were compared and left as they are are not compared again for this long.
const COMPARED_US: u64 = 60_000_000;

/// What a peer knows of an origin of our own site that our book does not.
#[derive(Clone, Copy, Debug)]
struct Doubt {
    peer: SiteId,
    known: u64,
    token: u64,
}

/// Suspicions that this site has lost commits. The store may hold what the book has not heard of yet, so it is asked first.
#[derive(Debug, Default)]
pub(super) struct Doubts {
    /// By the ticket of the question.
    asked: BTreeMap<u64, BTreeMap<Origin, Doubt>>,
    /// Origins for which a new epoch was drawn.
    renewed: BTreeSet<Origin>,
}

impl Node {
    pub(super) fn send_digest(&mut self, to: SiteId) {
        if self.started && self.is_ready(&to) {
            let (_, hash) = self.book.encoded();
            self.send(to, &Frame::Digest(hash));
        }
    }

    pub(super) fn send_random_digest(&mut self, now: Now) {
        self.set_jittered(now, Alarm::Digest, self.config.timing.sync_interval_us);
        let peers = self.ready_peers();
        if let Some(peer) = self.pick(&peers) {
            self.send_digest(peer);
        }
    }

    /// A pull brought something: the neighbours may miss it too.
    pub(super) fn send_news(&mut self) {
        let links: Vec<SiteId> = self.tree.links.keys().copied().collect();
        links.into_iter().for_each(|to| self.send_digest(to));
    }

    pub(super) fn on_digest(&mut self, now: Now, from: SiteId, theirs: u64) {
        if !self.started {
            return;
        }
        let (_, ours) = self.book.encoded();
        if theirs == ours {
            self.book.saw_equal(now, &from);
        } else if !self.compared_lately(now, &from, theirs, ours) {
            self.send_vector(from, false);
        }
    }

    fn compared_lately(&self, now: Now, peer: &SiteId, theirs: u64, ours: u64) -> bool {
        let last = self.peers.get(peer).and_then(|p| p.compared);
        last.is_some_and(|(t, o, at)| (t, o) == (theirs, ours) && now.since(at) < COMPARED_US)
    }

    fn send_vector(&mut self, to: SiteId, answer: bool) {
        let (bytes, _) = self.book.encoded();
        let frame = if bytes.len() > MAX_VECTOR_FRAME { Frame::Differ.encode() } else { encode_vector(answer, bytes) };
        self.send_bytes(to, frame);
    }

    pub(super) fn on_vector(&mut self, now: Now, from: SiteId, answer: bool, vector: Vector) {
        if !self.started {
            return;
        }
        let vector = Arc::new(vector);
        self.learn_vector(now, from, &vector);
        if !answer && gains(self.book.vector(), &vector).any() {
            self.send_vector(from, true);
        }
    }

    /// A peer's vector, by whatever way it came: what does it have that is not here?
    pub(super) fn learn_vector(&mut self, now: Now, from: SiteId, vector: &Arc<Vector>) {
        self.leaving.heard(from, vector);
        let theirs = digest(&vector.encode());
        let (_, ours) = self.book.encoded();
        let Some(peer) = self.peers.get_mut(&from) else { return };
        let first = peer.compared.is_none();
        let again = peer.compared.is_some_and(|(t, o, at)| (t, o) == (theirs, ours) && now.since(at) < COMPARED_US);
        peer.compared = Some((theirs, ours, if again { peer.compared.map_or(now, |c| c.2) } else { now }));
        if theirs == ours {
            return self.book.saw_equal(now, &from);
        }
        self.book.saw_vector(now, from, vector);
        self.doubt_own_origins(from, vector);
        if !again {
            self.outputs.push_back(Output::CheckVector { peer: from, vector: (**vector).clone() });
        }
        let gain = gains(vector, self.book.vector());
        if gain.claims || (gain.carried && !again) {
            let delay = self.settle_delay(first);
            self.wish(now, from, Need::Vector(Arc::clone(vector)), delay);
        }
    }

    /// How long a difference has to settle by itself: what is on its way by the tree differs for milliseconds all the time. A fresh
    /// connection more likely tells of something missed, and the only one tells of nothing else.
    fn settle_delay(&self, first: bool) -> u64 {
        let settle = self.config.timing.settle_delay_us;
        match (first, self.ready_peers().len()) {
            (true, 0..=1) => 0,
            (true, _) => settle / 5,
            (false, _) => settle,
        }
    }

    pub(super) fn on_differ(&mut self, now: Now, from: SiteId) {
        if self.started {
            self.wish(now, from, Need::Any, self.config.timing.settle_delay_us);
        }
    }

    /// Asks the store for its vector; nothing waits for the answer.
    pub(super) fn read_vector(&mut self) -> u64 {
        self.next_ticket += 1;
        self.outputs.push_back(Output::ReadVector { ticket: self.next_ticket });
        self.next_ticket
    }

    /// A vector that claims more of our own site than we do, or another dot at the same place.
    pub(super) fn doubt_own_origins(&mut self, peer: SiteId, vector: &Vector) {
        let own_site = self.config.site_id;
        let mut doubts = BTreeMap::new();
        for (origin, state) in vector.origins.iter().filter(|(o, _)| o.site == own_site) {
            let carried = state.carried.last_key_value().map(|(v, _)| *v);
            let doubt = match (state.claimed.max(), carried) {
                (Some(max), carried) if carried.is_none_or(|c| c <= max) => {
                    Doubt { peer, known: max, token: state.head_token }
                }
                (_, Some(carried)) => Doubt { peer, known: carried, token: 0 },
                _ => continue,
            };
            if self.is_lost(self.book.vector(), origin, &doubt) {
                doubts.insert(*origin, doubt);
            }
        }
        self.ask_about(doubts);
    }

    /// A push of a dot of our own that we do not hold.
    pub(super) fn doubt_own_dot(&mut self, peer: SiteId, dot: &Dot, token: u64) {
        if dot.origin.site == self.config.site_id {
            let doubt = Doubt { peer, known: dot.version, token };
            self.ask_about(BTreeMap::from([(dot.origin, doubt)]));
        }
    }

    fn ask_about(&mut self, mut doubts: BTreeMap<Origin, Doubt>) {
        doubts.retain(|origin, _| !self.doubts.renewed.contains(origin));
        if !doubts.is_empty() && self.doubts.asked.len() < MAX_FORKS {
            let ticket = self.read_vector();
            self.doubts.asked.insert(ticket, doubts);
        }
    }

    fn is_lost(&self, own: &Vector, origin: &Origin, doubt: &Doubt) -> bool {
        let Some(state) = own.origins.get(origin) else { return true };
        let same_place = state.claimed.max() == Some(doubt.known);
        let other_dot = doubt.token != 0 && state.head_token != 0 && doubt.token != state.head_token;
        state.claimed.max().is_none_or(|max| max < doubt.known) || (same_place && other_dot)
    }

    pub(super) fn on_own_vector(&mut self, now: Now, ticket: Option<u64>, vector: Vector) {
        let doubts = ticket.and_then(|ticket| self.doubts.asked.remove(&ticket)).unwrap_or_default();
        for (origin, doubt) in doubts {
            if self.is_lost(&vector, &origin, &doubt) && !self.doubts.renewed.contains(&origin) {
                let held = vector.origins.get(&origin).and_then(|o| o.claimed.max()).unwrap_or(0);
                self.event(Event::LostCommits { peer: doubt.peer, origin, held, known: doubt.known });
                if self.doubts.renewed.len() >= MAX_RENEWED {
                    self.doubts.renewed.pop_first();
                }
                self.doubts.renewed.insert(origin);
                self.outputs.push_back(Output::NewEpoch { origin });
            }
        }
        self.book.read(now, vector);
    }
}
