//! What a node's store does with its tasks, as the sidecar's writer and readers do.

use crate::world::{Member, Task, World};
use rand::Rng;
use starling_proto::{Input, Source};

impl World {
    pub(crate) fn work(&mut self, i: usize, task: Task) {
        let fails = self.percent(self.weather.merge_failure_percent);
        let token = self.rng.next_u64();
        let member = &mut self.members[i];
        let answer = match task {
            Task::Merge { source: Source::Sync { pull }, .. } | Task::Finish { pull, .. }
                if member.cancelled.contains(&pull) =>
            {
                None
            }
            Task::Merge { source, part, last } => {
                member.open.entry(source).or_default().push(part);
                if last {
                    Some(member.merge(source, fails))
                } else {
                    None
                }
            }
            Task::Finish { pull, vector } => Some(if member.failed.remove(&pull) {
                Input::SyncFailed { pull, why: "a changeset was not merged".to_owned() }
            } else {
                member.store.claim(&vector);
                Input::SyncApplied { pull }
            }),
            Task::ReadVector { ticket } => {
                Some(Input::Vector { ticket: Some(ticket), vector: member.store.vector.clone() })
            }
            Task::NewEpoch { lost } => {
                if lost == member.store.epoch {
                    member.store.new_epoch(token);
                    self.crash(i);
                    self.boot(i);
                }
                None
            }
            Task::Rehome { vector } => {
                if member.store.rehome(&vector, token) > 0 {
                    self.crash(i);
                    self.boot(i);
                }
                None
            }
            Task::Check { peer, vector } => {
                let ours = member.store.forks(&vector, Some(peer));
                (!ours.origins.is_empty()).then_some(Input::ForkDetected { peer, theirs: vector, ours })
            }
        };
        if let Some(input) = answer {
            self.give(i, input);
        }
    }
}

impl Member {
    fn merge(&mut self, source: Source, fails: bool) -> Input {
        let parts = self.open.remove(&source).unwrap_or_default();
        let header = starling_crdt::changeset::PartReader::new(&parts[0]).map(|r| *r.header());
        let header = header.expect("decoded before");
        let (header, forked) = (header.dot, self.store.is_forked(&header.dot, header.claimable));
        if fails || forked {
            if let Source::Sync { pull } = source {
                self.failed.insert(pull);
            }
            let why = if forked { "forked history" } else { "disk full" };
            return Input::MergeFailed { source, header, why: why.to_owned() };
        }
        let dot = header.dot;
        let (changes, claimed) = self.store.merge(&parts);
        Input::Merged { source, dot, claimed, changes }
    }
}
