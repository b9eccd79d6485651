//! The core's alarms: at most one moment per alarm, ordered, so that the next deadline is a look-up and order never depends
//! on anything but time and name.

use crate::api::{Now, PullKey};
use starling_crdt::{Dot, SiteId};
use std::collections::{BTreeMap, BTreeSet};

/// Everything the core waits for, except SWIM's own timers.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Alarm {
    /// Dials may go out.
    Dial,
    /// Resolve and dial the seeds.
    Seeds,
    /// Look after tree links.
    Links,
    /// Exchange one tree link.
    Shuffle,
    /// Send a digest to a random peer.
    Digest,
    /// Tell the neighbours that a pull brought news.
    News,
    /// Send the collected announcements.
    IHave,
    /// Ask for an announced changeset.
    Graft(Dot),
    /// Start pulls that are due.
    Pulls,
    /// A pull without progress.
    Stall(PullKey),
    /// A peer that has not said hello.
    Hello(SiteId),
    /// Drop old changesets from the cache, close idle connections.
    Sweep,
}

/// A set of alarms.
#[derive(Debug, Default)]
pub(crate) struct Alarms {
    by_time: BTreeSet<(Now, Alarm)>,
    at: BTreeMap<Alarm, Now>,
}

impl Alarms {
    /// Sets an alarm, replacing its former moment.
    pub(crate) fn set(&mut self, alarm: Alarm, at: Now) {
        if let Some(old) = self.at.insert(alarm, at) {
            self.by_time.remove(&(old, alarm));
        }
        self.by_time.insert((at, alarm));
    }

    /// Sets an alarm unless it is set to an earlier moment.
    pub(crate) fn set_earliest(&mut self, alarm: Alarm, at: Now) {
        if self.at.get(&alarm).is_none_or(|old| at < *old) {
            self.set(alarm, at);
        }
    }

    /// Takes an alarm back.
    pub(crate) fn clear(&mut self, alarm: Alarm) {
        if let Some(old) = self.at.remove(&alarm) {
            self.by_time.remove(&(old, alarm));
        }
    }

    /// The earliest moment.
    pub(crate) fn next(&self) -> Option<Now> {
        self.by_time.first().map(|(at, _)| *at)
    }

    /// Takes the earliest alarm if it is due.
    pub(crate) fn pop_due(&mut self, now: Now) -> Option<Alarm> {
        let (at, alarm) = *self.by_time.first()?;
        if at > now {
            return None;
        }
        self.by_time.pop_first();
        self.at.remove(&alarm);
        Some(alarm)
    }

    /// Moves every alarm later by `micros`.
    pub(crate) fn shift(&mut self, micros: u64) {
        for at in self.at.values_mut() {
            *at = at.after(micros);
        }
        self.by_time = self.at.iter().map(|(alarm, at)| (*at, *alarm)).collect();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_alarm_has_one_moment_and_rings_once_in_order() {
        let mut alarms = Alarms::default();
        alarms.set(Alarm::Links, Now(5));
        alarms.set(Alarm::Links, Now(9));
        alarms.set_earliest(Alarm::Seeds, Now(7));
        alarms.set_earliest(Alarm::Seeds, Now(8));
        alarms.set(Alarm::News, Now(1));
        alarms.clear(Alarm::News);
        assert_eq!(alarms.next(), Some(Now(7)));
        assert_eq!(alarms.pop_due(Now(6)), None);
        alarms.shift(10);
        assert_eq!(alarms.pop_due(Now(100)), Some(Alarm::Seeds));
        assert_eq!(alarms.pop_due(Now(100)), Some(Alarm::Links));
        assert_eq!(alarms.pop_due(Now(100)), None);
    }
}
