//! Dissemination: what happens with local changesets, pushes, announcements, grafts and prunes.

use super::Node;
use crate::api::{Changeset, Event, Now, Output, Source};
use crate::frames::{encode_payload, Frame, Payload};
use crate::limits::{MAX_DOTS, MAX_PUSH, MAX_PUSH_PARTS};
use crate::sync::Need;
use crate::timers::Alarm;
use bytes::Bytes;
use starling_crdt::changeset::DotHeader;
use starling_crdt::{Dot, SiteId, Vector};

impl Node {
    /// A transaction committed here: pushed at once.
    pub(super) fn on_local(&mut self, now: Now, changeset: Changeset) {
        if !self.started {
            return;
        }
        let dot = changeset.header.dot;
        let size = changeset.parts.iter().map(Bytes::len).sum::<usize>();
        let parts = changeset.parts.len();
        if !changeset.header.claimable || size > MAX_PUSH || parts > MAX_PUSH_PARTS || parts == 0 {
            return self.on_local_too_large(now, &dot);
        }
        self.book.claim(now, &dot);
        self.tree.remember(dot.dot, self.config.site_id);
        self.tree.keep(now, dot.dot, 0, &changeset.parts);
        let all = self.is_small();
        let targets: Vec<SiteId> = self.tree.links.iter().filter(|(_, l)| l.eager || all).map(|(s, _)| *s).collect();
        self.push_to(&targets, 0, &changeset.parts);
        if !all {
            self.announce(now, dot.dot, &[], false);
        }
    }

    /// A transaction that cannot be pushed: the neighbours are told to pull.
    pub(super) fn on_local_too_large(&mut self, now: Now, header: &DotHeader) {
        if !self.started {
            return;
        }
        self.book.claim(now, header);
        self.tree.remember(header.dot, self.config.site_id);
        let links: Vec<SiteId> = self.tree.links.keys().copied().collect();
        links.into_iter().for_each(|to| self.send(to, &Frame::Pull(header.dot)));
    }

    fn push_to(&mut self, targets: &[SiteId], hops: u8, parts: &[Bytes]) {
        if targets.is_empty() {
            return;
        }
        let frame = encode_payload(hops, parts);
        for to in targets {
            match self.peers.get_mut(to) {
                Some(peer) if peer.congested => peer.skipped = true,
                Some(_) => {
                    self.counters.pushes_out += 1;
                    self.send_bytes(*to, frame.clone());
                }
                None => {}
            }
        }
    }

    fn announce(&mut self, now: Now, dot: Dot, except: &[SiteId], all: bool) {
        if self.tree.announce(dot, except, all) {
            self.alarms.set_earliest(Alarm::IHave, now.after(self.config.timing.ihave_delay_us));
        }
    }

    pub(super) fn send_announcements(&mut self) {
        let queued: Vec<(SiteId, Vec<Dot>, bool)> = self
            .tree
            .links
            .iter_mut()
            .filter(|(_, link)| !link.announce.is_empty())
            .map(|(site, link)| (*site, std::mem::take(&mut link.announce), std::mem::take(&mut link.overflow)))
            .collect();
        for (site, dots, overflow) in queued {
            if self.peers.get(&site).is_some_and(|p| p.congested) || overflow {
                self.send_digest(site);
                continue;
            }
            for chunk in dots.chunks(MAX_DOTS) {
                self.send(site, &Frame::IHave(chunk.to_vec()));
            }
        }
    }

    pub(super) fn on_payload(&mut self, now: Now, from: SiteId, payload: &Payload) {
        let Some(header) = payload.headers.first().map(|h| h.dot).filter(|_| self.started) else { return };
        self.counters.pushes_in += 1;
        let dot = header.dot;
        self.forget_wanted(&dot);
        if self.book.claims(&dot) || self.tree.seen(&dot) {
            return self.on_duplicate(from, payload.hops, &dot);
        }
        self.doubt_own_dot(from, &dot, header.token);
        // In a full mesh the origin reaches everybody by itself: its push says nothing about a path worth keeping.
        let direct = payload.hops == 0 && self.is_small();
        if !direct {
            self.tree.set_eager(&from, true);
        }
        self.tree.remember(dot, from);
        self.tree.keep(now, dot, payload.hops.saturating_add(1), &payload.parts);
        let targets: Vec<SiteId> =
            self.tree.links.iter().filter(|(s, l)| l.eager && **s != from).map(|(s, _)| *s).collect();
        self.push_to(&targets, payload.hops.saturating_add(1), &payload.parts);
        self.announce(now, dot, &[from, dot.origin.site], false);
        self.merge_push(now, from, payload, &header);
        self.check_for_gap(now, from, &header);
    }

    fn merge_push(&mut self, now: Now, from: SiteId, payload: &Payload, header: &DotHeader) {
        let size = payload.parts.iter().map(Bytes::len).sum::<usize>();
        if !self.tree.has_room(size) {
            self.counters.pushes_dropped += 1;
            if !std::mem::replace(&mut self.behind, true) {
                self.event(Event::StoreBehind { unmerged_bytes: self.tree.unmerged_bytes() });
            }
            self.wish(now, from, Need::Dot(header.dot), self.config.timing.sync_interval_us);
            return;
        }
        self.behind = false;
        self.tree.take_off(*header, size);
        let source = Source::Push { from };
        for (header, part) in payload.headers.iter().zip(&payload.parts) {
            self.outputs.push_back(Output::Merge { source, header: *header, part: part.clone() });
        }
    }

    /// A predecessor that is neither held nor on its way: if it does not come by itself, it is pulled from the sender.
    fn check_for_gap(&mut self, now: Now, from: SiteId, header: &DotHeader) {
        let prev = Dot { version: header.prev, ..header.dot };
        if header.prev > 0 && !self.book.claims(&prev) && !self.tree.in_flight(&prev) {
            self.wish(now, from, Need::Dot(prev), self.config.timing.gap_delay_us + self.two_rtts(&from));
        }
    }

    /// The later path is pruned, except that in a full mesh the way straight from the origin is the better one.
    fn on_duplicate(&mut self, from: SiteId, hops: u8, dot: &Dot) {
        self.counters.pushes_duplicate += 1;
        let first = self.tree.first_sender(dot);
        let straight = hops == 0 && from == dot.origin.site && self.is_small();
        let later = if straight { first.filter(|site| *site != from) } else { Some(from) };
        if let Some(site) = later.filter(|site| self.tree.links.contains_key(site)) {
            self.tree.set_eager(&site, false);
            self.counters.prunes_out += 1;
            self.send(site, &Frame::Prune);
        }
    }

    pub(super) fn on_ihave(&mut self, now: Now, from: SiteId, dots: &[Dot]) {
        if !self.started {
            return;
        }
        for dot in dots {
            if self.book.claims(dot) || self.tree.seen(dot) {
                continue;
            }
            match self.tree.want(*dot, from) {
                Some(true) => {
                    let delay = self.config.timing.graft_delay_us + self.two_rtts(&from);
                    self.alarms.set(Alarm::Graft(*dot), now.after(delay));
                }
                Some(false) => {}
                None => self.wish(now, from, Need::Dot(*dot), self.config.timing.graft_delay_us),
            }
        }
    }

    /// An announced changeset has not come: ask the next announcer, pull when all were asked.
    pub(super) fn graft(&mut self, now: Now, dot: Dot) {
        if self.book.claims(&dot) || self.tree.seen(&dot) {
            self.tree.unwant(&dot);
            return;
        }
        let Some(wanted) = self.tree.wanted_mut(&dot) else { return };
        let next = wanted.announcers.get(wanted.asked).copied();
        wanted.asked += 1;
        let last = wanted.announcers.last().copied();
        match (next, last) {
            (Some(site), _) => {
                if self.is_ready(&site) {
                    self.tree.set_eager(&site, true);
                    self.counters.grafts_out += 1;
                    self.send(site, &Frame::Graft(vec![dot]));
                }
                let delay = self.config.timing.graft_retry_us + self.two_rtts(&site);
                self.alarms.set(Alarm::Graft(dot), now.after(delay));
            }
            (None, last) => {
                self.tree.unwant(&dot);
                if let Some(site) = last {
                    self.wish(now, site, Need::Dot(dot), 0);
                }
            }
        }
    }

    pub(super) fn on_graft(&mut self, from: SiteId, dots: &[Dot]) {
        self.tree.set_eager(&from, true);
        for dot in dots {
            if let Some((hops, parts)) = self.tree.cache.get(dot).map(|(hops, parts)| (hops, parts.to_vec())) {
                self.push_to(&[from], hops, &parts);
            } else if self.book.claims(dot) {
                self.send(from, &Frame::Pull(*dot));
            }
        }
    }

    /// Allowance for a distant peer (at most a second, whatever the transport measured in a bad moment).
    fn two_rtts(&self, peer: &SiteId) -> u64 {
        self.peers.get(peer).and_then(|p| p.rtt_us).map_or(0, |rtt| rtt.saturating_mul(2).min(1_000_000))
    }

    fn forget_wanted(&mut self, dot: &Dot) {
        if self.tree.unwant(dot) {
            self.alarms.clear(Alarm::Graft(*dot));
        }
    }

    pub(super) fn on_push_merged(&mut self, now: Now, dot: &Dot, claimed: bool) {
        match self.tree.land(dot) {
            Some(header) if claimed => self.book.claim(now, &header),
            _ => drop(self.read_vector()),
        }
    }

    pub(super) fn on_merge_failed(&mut self, now: Now, source: Source, header: &DotHeader, why: String) {
        self.counters.merges_failed += 1;
        let dot = header.dot;
        self.check_predecessor(source, header);
        match source {
            Source::Push { from } => {
                self.tree.land(&dot);
                self.wish(now, from, Need::Dot(dot), self.config.timing.pull_backoff_us.1);
            }
            Source::Sync { pull } => {
                if let Some(pull) = self.sync.pull_mut(pull) {
                    pull.landed(&dot, 0);
                }
            }
        }
        self.event(Event::MergeFailed { dot, why });
    }

    /// Perhaps its predecessor is another transaction here than at its origin.
    fn check_predecessor(&mut self, source: Source, header: &DotHeader) {
        let peer = match source {
            Source::Push { from } => Some(from),
            Source::Sync { pull } => self.sync.pull_mut(pull).map(|pull| pull.peer),
        };
        if let Some(peer) = peer.filter(|_| header.prev != 0 && header.prev_token != 0) {
            let mut vector = Vector::default();
            vector.claim(header.dot.origin, header.prev, header.prev, header.prev_token);
            self.outputs.push_back(Output::CheckVector { peer, vector });
        }
    }
}
