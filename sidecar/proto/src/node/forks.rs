//! A dot that was used twice (S1, X8). Whoever's store sees it tells the peer, and the site whose number it is. That site
//! re-homes what it holds under the name, and takes the other history from its peers. Where others hold the two histories,
//! one of them re-homes its own, once the origin's site has had the time to settle the matter itself.

use super::Node;
use crate::api::{Event, Now, Output};
use crate::frames::Frame;
use crate::limits::MAX_FORKS;
use starling_crdt::ids::FORSAKEN;
use starling_crdt::{Origin, SiteId, Vector};
use std::collections::BTreeMap;

/// How long nodes leave a contradiction to the origin's own site.
const PATIENCE_US: u64 = 30_000_000;
/// One origin is re-homed, and others are told of it, at most this often.
const AGAIN_US: u64 = 5_000_000;

/// What is known of an origin's contradiction.
#[derive(Clone, Copy, Debug)]
struct Fork {
    /// When it was first seen.
    since: Now,
    /// Whether the log has a line of it.
    logged: bool,
    /// When others were last told.
    told: Option<Now>,
    /// When the store was last asked to re-home it.
    asked: Option<Now>,
}

/// Contradictions seen.
#[derive(Debug, Default)]
pub(super) struct Forks {
    seen: BTreeMap<Origin, Fork>,
}

impl Forks {
    /// A peer is there anew: what it was told before it may have forgotten, as a node does that begins anew.
    pub(super) fn tell_again(&mut self) {
        self.seen.values_mut().for_each(|fork| fork.told = None);
    }

    /// The origin's entry.
    fn entry(&mut self, now: Now, origin: &Origin) -> &mut Fork {
        if !self.seen.contains_key(origin) && self.seen.len() >= MAX_FORKS {
            self.seen.pop_first();
        }
        self.seen.entry(*origin).or_insert(Fork { since: now, logged: false, told: None, asked: None })
    }
}

/// Whether it is time again; then it is noted that it was done.
fn is_due(now: Now, last: &mut Option<Now>) -> bool {
    let due = last.is_none_or(|at| now.since(at) >= AGAIN_US);
    if due {
        *last = Some(now);
    }
    due
}

impl Node {
    /// The store found that `theirs`, of a peer's, contradicts it; `ours` is what it holds instead.
    pub(super) fn on_fork(&mut self, now: Now, peer: SiteId, theirs: &Vector, ours: &Vector) {
        for (origin, state) in &ours.origins {
            let own = origin.site == self.config.site_id;
            // Without a token it is a question: that site may only have written since it told its vector, and knows.
            let certain = own || state.head_token != 0;
            let fork = self.forks.entry(now, origin);
            let to_log = certain && !fork.logged;
            fork.logged |= certain;
            if is_due(now, &mut fork.told) {
                let frame = Frame::Fork(only(ours, origin));
                self.send(peer, &frame);
                if origin.site != peer && self.is_ready(&origin.site) {
                    self.send(origin.site, &frame);
                }
            }
            if to_log {
                let version = state.claimed.ranges().first().map_or(0, |r| r.0);
                self.event(Event::Fork { peer, own, origin: *origin, version });
            }
            self.settle(now, origin, theirs);
        }
    }

    /// A peer holds other transactions than we do under these numbers.
    pub(super) fn on_fork_frame(&mut self, now: Now, vector: &Vector) {
        for origin in vector.origins.keys() {
            self.settle(now, origin, vector);
        }
    }

    /// Asks the store to re-home the origin, if it is its turn. The store looks again, so this may be in vain.
    fn settle(&mut self, now: Now, origin: &Origin, theirs: &Vector) {
        let own = origin.site == self.config.site_id;
        // Nothing is left to wait for where that site has given the name up.
        let forsaken = theirs.origins.get(origin).is_some_and(|state| state.head_token == FORSAKEN);
        let fork = self.forks.entry(now, origin);
        if (own || forsaken || now.since(fork.since) >= PATIENCE_US) && is_due(now, &mut fork.asked) {
            self.outputs.push_back(Output::Rehome { vector: only(theirs, origin) });
        }
    }
}

fn only(vector: &Vector, origin: &Origin) -> Vector {
    Vector { origins: vector.origins.get_key_value(origin).map(|(o, s)| (*o, s.clone())).into_iter().collect() }
}
