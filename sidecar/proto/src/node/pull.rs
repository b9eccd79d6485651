//! Anti-entropy: pulls from their wish to their claim, and answers given to others.

use super::Node;
use crate::api::{Event, Now, Output, PullKey, ServeKey, Source};
use crate::dial::backoff;
use crate::frames::{answer_refused, decode_request, sync_request, Answer};
use crate::limits::MAX_PULLS;
use crate::sync::{Need, Pull, Verdict};
use crate::timers::Alarm;
use bytes::Bytes;
use rand::RngExt;
use starling_crdt::{Dot, SiteId, Vector};
use std::sync::Arc;

/// What a refused request says when it is only a matter of time; the requester then asks again soon.
const BUSY: &str = "busy";
/// How long it waits (half of it to all of it).
const BUSY_US: u64 = 500_000;

impl Node {
    pub(super) fn on_started(&mut self, vector: Vector) {
        self.started = true;
        self.book.start(vector);
        self.tree.restart();
        for pull in self.sync.restart() {
            self.alarms.clear(Alarm::Stall(pull));
            self.outputs.push_back(Output::CancelSync { pull });
        }
        let peers = self.ready_peers();
        peers.into_iter().for_each(|peer| self.send_digest(peer));
    }

    pub(super) fn wish(&mut self, now: Now, peer: SiteId, need: Need, delay_us: u64) {
        let due = now.after(delay_us.max(1));
        self.sync.wish(peer, need, due);
        self.alarms.set_earliest(Alarm::Pulls, due);
    }

    pub(super) fn on_pull_hint(&mut self, now: Now, from: SiteId, dot: Dot) {
        if self.started && !self.book.claims(&dot) {
            self.wish(now, from, Need::Dot(dot), 0);
        }
    }

    pub(super) fn start_pulls(&mut self, now: Now) {
        while self.sync.pulling() < MAX_PULLS {
            let Some((peer, wish)) = self.sync.next_due(now, &self.book) else { break };
            if !self.is_ready(&peer) {
                continue;
            }
            let pull = self.sync.begin(now, peer, wish);
            self.counters.pulls += 1;
            let (bytes, _) = self.book.encoded();
            let request = sync_request(bytes);
            self.alarms.set(Alarm::Stall(pull), now.after(self.config.timing.pull_stall_us));
            self.event(Event::PullStarted { pull, from: peer });
            self.outputs.push_back(Output::OpenSync { to: peer, pull, request });
        }
        if let Some(at) = self.sync.next(now) {
            self.alarms.set_earliest(Alarm::Pulls, at);
        }
    }

    pub(super) fn on_sync_answer(&mut self, now: Now, key: PullKey, bytes: &Bytes) {
        let answer = Answer::decode(bytes);
        let Some(pull) = self.sync.pull_mut(key) else { return };
        let peer = pull.peer;
        pull.progress = now;
        let problem = match answer {
            Ok(Answer::Part { header, part }) => match pull.accept(&header, &self.book) {
                Ok(Verdict::Merge) => {
                    self.outputs.push_back(Output::Merge { source: Source::Sync { pull: key }, header, part });
                    None
                }
                Ok(Verdict::Skip) => None,
                Err(what) => Some(what.to_owned()),
            },
            Ok(Answer::Done(vector)) => match pull.finish(vector.clone()) {
                Ok(()) => {
                    self.outputs.push_back(Output::FinishSync { pull: key, vector: vector.clone() });
                    self.learn_done(now, peer, &vector);
                    None
                }
                Err(what) => Some(what.to_owned()),
            },
            Ok(Answer::Refused(why)) => return self.fail_pull(now, key, why, true),
            Err(e) => Some(e.to_string()),
        };
        match problem {
            None => self.alarms.set(Alarm::Stall(key), now.after(self.config.timing.pull_stall_us)),
            Some(what) => {
                self.fail_pull(now, key, what.clone(), true);
                self.violation(now, peer, what);
            }
        }
    }

    /// The vector of an answer may tell of own dots that are lost; what else is in it comes with the claim.
    fn learn_done(&mut self, now: Now, peer: SiteId, vector: &Vector) {
        self.book.saw_some(now, peer, vector);
        self.doubt_own_origins(peer, vector);
    }

    pub(super) fn on_sync_merged(&mut self, now: Now, key: PullKey, dot: &Dot, claimed: bool, changes: u64) {
        let header = self.sync.pull_mut(key).and_then(|pull| pull.landed(dot, changes));
        match header {
            Some(header) if claimed => self.book.claim(now, &header),
            Some(_) => {}
            // A pull that was given up meanwhile: what it brought counts all the same.
            None if claimed => drop(self.read_vector()),
            None => {}
        }
        if self.sync.pull_mut(key).is_some() {
            self.alarms.set(Alarm::Stall(key), now.after(self.config.timing.pull_stall_us));
        }
    }

    pub(super) fn on_sync_ended(&mut self, now: Now, key: PullKey, result: Result<(), String>) {
        let Some(pull) = self.sync.pull_mut(key) else { return };
        match (result, pull.done.is_some()) {
            // All of it is here; whatever happened to the stream afterwards.
            (_, true) => {}
            (Ok(()), false) => self.fail_pull(now, key, "the answer was broken off".to_owned(), true),
            (Err(why), false) => self.fail_pull(now, key, why, true),
        }
    }

    pub(super) fn on_sync_applied(&mut self, now: Now, key: PullKey) {
        let Some(pull) = self.sync.succeed(key) else { return };
        self.alarms.clear(Alarm::Stall(key));
        let vector = pull.done.unwrap_or_default();
        let news = self.book.claim_all(now, &vector) || pull.changes > 0;
        if pull.thinned || vector.carries_any() || self.book.vector().carries_any() {
            self.read_vector();
        }
        self.event(Event::PullDone { pull: key, from: pull.peer, changesets: pull.changesets, changes: pull.changes });
        if news {
            self.alarms.set_earliest(Alarm::News, now.after(self.config.timing.ihave_delay_us));
        }
        self.start_pulls(now);
    }

    pub(super) fn on_stall(&mut self, now: Now, key: PullKey) {
        let Some(pull) = self.sync.pull_mut(key) else { return };
        if pull.waits_for_store() {
            // The store tries for as long as it takes; the peer is not to blame.
            self.alarms.set(Alarm::Stall(key), now.after(self.config.timing.pull_stall_us));
        } else {
            self.fail_pull(now, key, "no progress".to_owned(), true);
        }
    }

    /// Ends a pull without a claim; its peer is tried again later, another one is asked to compare at once.
    pub(super) fn fail_pull(&mut self, now: Now, key: PullKey, why: String, cancel: bool) {
        let (limits, busy) = (self.config.timing.pull_backoff_us, why == BUSY);
        let rng = &mut self.rng;
        let delay =
            |failures| if busy { rng.random_range(BUSY_US / 2..=BUSY_US) } else { backoff(limits, failures, rng) };
        if let Some(pull) = self.sync.fail(now, key, delay) {
            self.pull_is_over(now, key, &pull, why, cancel);
        }
    }

    /// What every pull that ends without a claim leaves to be done.
    pub(super) fn pull_is_over(&mut self, now: Now, key: PullKey, pull: &Pull, why: String, cancel: bool) {
        self.alarms.clear(Alarm::Stall(key));
        self.counters.pulls_failed += 1;
        if cancel {
            self.outputs.push_back(Output::CancelSync { pull: key });
        }
        self.event(Event::PullFailed { pull: key, from: pull.peer, why });
        let mut others = self.ready_peers();
        others.retain(|peer| *peer != pull.peer);
        if let Some(other) = self.pick(&others) {
            self.send_digest(other);
        }
        self.alarms.set_earliest(Alarm::Pulls, now.after(1));
    }

    pub(super) fn on_sync_requested(&mut self, now: Now, from: SiteId, serve: ServeKey, bytes: &Bytes) {
        let refusal = match decode_request(bytes) {
            Err(e) => {
                self.refuse(serve, "the request is malformed");
                return self.violation(now, from, e.to_string());
            }
            Ok(_) if !self.started || !self.is_ready(&from) => Some(BUSY),
            Ok(_) if !self.sync.serve(serve, from) => Some(BUSY),
            Ok(have) => {
                let have = Arc::new(have);
                self.counters.serves += 1;
                self.learn_vector(now, from, &have);
                self.outputs.push_back(Output::ServeSync { to: from, serve, have: (*have).clone() });
                None
            }
        };
        if let Some(why) = refusal {
            self.counters.serves_refused += 1;
            self.refuse(serve, why);
        }
    }

    fn refuse(&mut self, serve: ServeKey, why: &str) {
        self.outputs.push_back(Output::RefuseSync { serve, answer: answer_refused(why) });
    }
}
