//! Recent claimable changesets, kept to answer grafts with the very bytes that came in.

use crate::api::Now;
use crate::limits::MAX_CACHE_BYTES;
use bytes::Bytes;
use starling_crdt::Dot;
use std::collections::{BTreeMap, VecDeque};

#[derive(Debug)]
struct Entry {
    hops: u8,
    parts: Vec<Bytes>,
    size: usize,
}

/// Oldest out first; bounded in bytes and in age.
#[derive(Debug, Default)]
pub(crate) struct Cache {
    entries: BTreeMap<Dot, Entry>,
    order: VecDeque<(Now, Dot)>,
    bytes: usize,
}

impl Cache {
    /// Keeps a changeset. What alone is larger than a quarter of the cache is not kept.
    pub(crate) fn put(&mut self, now: Now, dot: Dot, hops: u8, parts: &[Bytes]) {
        // The constant covers the entry's own memory, so that many tiny changesets are bounded too.
        let size = parts.iter().map(|p| p.len() + 96).sum::<usize>() + 128;
        if size > MAX_CACHE_BYTES / 4 || self.entries.contains_key(&dot) {
            return;
        }
        self.bytes += size;
        self.entries.insert(dot, Entry { hops, parts: parts.to_vec(), size });
        self.order.push_back((now, dot));
        while self.bytes > MAX_CACHE_BYTES {
            self.drop_oldest();
        }
    }

    /// A kept changeset: hops it had behind it, and its parts.
    pub(crate) fn get(&self, dot: &Dot) -> Option<(u8, &[Bytes])> {
        self.entries.get(dot).map(|e| (e.hops, e.parts.as_slice()))
    }

    /// Drops what was put in before `before`.
    pub(crate) fn expire(&mut self, before: Now) {
        while self.order.front().is_some_and(|(at, _)| *at < before) {
            self.drop_oldest();
        }
    }

    /// When the oldest entry was put in.
    pub(crate) fn oldest(&self) -> Option<Now> {
        self.order.front().map(|(at, _)| *at)
    }

    fn drop_oldest(&mut self) {
        if let Some((_, dot)) = self.order.pop_front() {
            if let Some(entry) = self.entries.remove(&dot) {
                self.bytes -= entry.size;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dot(version: u64) -> Dot {
        Dot { version, ..Dot::default() }
    }

    #[test]
    fn the_oldest_leave_when_bytes_run_out_or_time_does() {
        let mut cache = Cache::default();
        let big = Bytes::from(vec![0u8; MAX_CACHE_BYTES / 5]);
        for v in 1..=10 {
            cache.put(Now(v), dot(v), 0, std::slice::from_ref(&big));
        }
        assert!(cache.get(&dot(5)).is_none());
        assert!(cache.get(&dot(10)).is_some());
        assert!(cache.bytes <= MAX_CACHE_BYTES);
        cache.expire(Now(10));
        assert_eq!((cache.oldest(), cache.entries.len()), (Some(Now(10)), 1));
        cache.expire(Now(11));
        assert_eq!((cache.oldest(), cache.bytes), (None, 0));
    }

    #[test]
    fn one_huge_changeset_does_not_empty_it() {
        let mut cache = Cache::default();
        cache.put(Now(1), dot(1), 0, &[Bytes::from_static(b"small")]);
        cache.put(Now(2), dot(2), 0, &[Bytes::from(vec![0u8; MAX_CACHE_BYTES / 2])]);
        assert!(cache.get(&dot(1)).is_some());
        assert!(cache.get(&dot(2)).is_none());
    }
}
