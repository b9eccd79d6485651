//! Before a node stops: others are to hold what this site has committed. Nobody acknowledges a push, so the peers are asked for
//! their vectors, by a digest that cannot be theirs, until these show it.

use super::Node;
use crate::api::HeldBy;
use crate::book::gains;
use crate::frames::Frame;
use starling_crdt::{SiteId, Vector};
use std::collections::BTreeMap;
use std::sync::Arc;

/// What the peers have said since the node knows that it is to stop.
#[derive(Debug, Default)]
pub(super) struct Leaving {
    /// `None` as long as it goes on.
    said: Option<BTreeMap<SiteId, Arc<Vector>>>,
}

impl Leaving {
    /// A peer's vector came.
    pub(super) fn heard(&mut self, from: SiteId, vector: &Arc<Vector>) {
        if let Some(said) = &mut self.said {
            said.insert(from, Arc::clone(vector));
        }
    }
}

impl Node {
    /// Asks the peers that are not known to hold everything of this site.
    pub(super) fn on_leaving(&mut self) {
        self.leaving.said.get_or_insert_default();
        let own = self.own_claims();
        let (_, hash) = self.book.encoded();
        for peer in self.ready_peers() {
            if !self.holds(&peer, &own) {
                self.send(peer, &Frame::Digest(!hash));
            }
        }
    }

    /// Who holds everything that this site has committed, by what the peers have said since the first [`crate::Input::Leaving`].
    #[must_use]
    pub fn held_by(&self) -> HeldBy {
        let own = self.own_claims();
        let peers = self.ready_peers();
        let holding = peers.iter().filter(|peer| self.holds(peer, &own)).count();
        match holding {
            // Just started: the first connection may be about to stand.
            0 if peers.is_empty() && (!self.peers.is_empty() || self.dialer.is_hopeful()) => HeldBy::Nobody,
            n if n == peers.len() => HeldBy::All,
            0 => HeldBy::Nobody,
            _ => HeldBy::Some,
        }
    }

    fn own_claims(&self) -> Vector {
        let site = self.config.site_id;
        let own = self.book.vector().origins.iter().filter(|(origin, _)| origin.site == site);
        Vector { origins: own.map(|(origin, state)| (*origin, state.clone())).collect() }
    }

    fn holds(&self, peer: &SiteId, own: &Vector) -> bool {
        let said = self.leaving.said.as_ref().and_then(|said| said.get(peer));
        said.is_some_and(|theirs| !gains(own, theirs).claims)
    }
}
