//! Which addresses to dial when: back-off per address, a token bucket over all of them, few at once.
//!
//! Policies ask again and again ([`Dialer::want`]); a wish is used up by the dial that it leads to.

use crate::api::{Now, Timing};
use crate::limits::{MAX_DIALS, MAX_DIAL_WISHES};
use rand::rngs::StdRng;
use rand::RngExt;
use starling_crdt::SiteId;
use std::collections::BTreeMap;
use std::net::SocketAddr;

/// Dials that may go out in one burst, and how often another is allowed then.
const BURST: u64 = 16;
const REFILL_US: u64 = 20_000;

#[derive(Clone, Copy, Debug)]
struct Failures {
    in_a_row: u32,
    not_before: Now,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Dialer {
    wanted: BTreeMap<SocketAddr, Option<SiteId>>,
    dialing: BTreeMap<SocketAddr, Now>,
    failures: BTreeMap<SocketAddr, Failures>,
    /// The bucket as a moment: full when it lies [`BURST`] refills in the past.
    bucket: Now,
    backoff_us: (u64, u64),
    timeout_us: u64,
}

impl Dialer {
    pub(crate) fn new(timing: &Timing) -> Self {
        Self {
            wanted: BTreeMap::new(),
            dialing: BTreeMap::new(),
            failures: BTreeMap::new(),
            bucket: Now(0),
            backoff_us: timing.dial_backoff_us,
            timeout_us: timing.dial_timeout_us,
        }
    }

    /// Asks for a connection to `addr`.
    pub(crate) fn want(&mut self, addr: SocketAddr, site: Option<SiteId>) {
        let room = self.wanted.len() < MAX_DIAL_WISHES || self.wanted.contains_key(&addr);
        if room && !self.dialing.contains_key(&addr) && addr.port() != 0 && !addr.ip().is_unspecified() {
            self.wanted.insert(addr, site);
        }
    }

    /// Whether a connection is asked for, or under way, that has not failed yet.
    pub(crate) fn is_hopeful(&self) -> bool {
        self.wanted.keys().chain(self.dialing.keys()).any(|addr| !self.failures.contains_key(addr))
    }

    /// A connection to `addr` stands, or it leads to a site that is connected already.
    pub(crate) fn reached(&mut self, addr: &SocketAddr) {
        self.dialing.remove(addr);
        self.wanted.remove(addr);
        self.failures.remove(addr);
    }

    /// A dial failed. Says whether it is the first failure in a row.
    pub(crate) fn failed(&mut self, now: Now, addr: SocketAddr, rng: &mut StdRng) -> bool {
        self.dialing.remove(&addr);
        let in_a_row = self.failures.get(&addr).map_or(0, |f| f.in_a_row);
        let delay = backoff(self.backoff_us, in_a_row, rng);
        self.hold(now, addr, in_a_row.saturating_add(1), delay);
        in_a_row == 0
    }

    /// Whoever answers at `addr` is of no use: leave it alone for `micros`.
    pub(crate) fn penalise(&mut self, now: Now, addr: SocketAddr, micros: u64) {
        self.dialing.remove(&addr);
        self.wanted.remove(&addr);
        let in_a_row = self.failures.get(&addr).map_or(1, |f| f.in_a_row);
        self.hold(now, addr, in_a_row, micros);
    }

    fn hold(&mut self, now: Now, addr: SocketAddr, in_a_row: u32, micros: u64) {
        self.failures.insert(addr, Failures { in_a_row, not_before: now.after(micros) });
        if self.failures.len() > MAX_DIAL_WISHES * 2 {
            let oldest = self.failures.iter().min_by_key(|(addr, f)| (f.not_before, **addr)).map(|(addr, _)| *addr);
            oldest.map(|addr| self.failures.remove(&addr));
        }
    }

    /// The next dial that may go out.
    pub(crate) fn poll(&mut self, now: Now, rng: &mut StdRng) -> Option<(SocketAddr, Option<SiteId>)> {
        self.forget_unanswered(now, rng);
        if self.dialing.len() >= MAX_DIALS || self.bucket > now {
            return None;
        }
        let ready = |addr: &SocketAddr| self.failures.get(addr).is_none_or(|f| f.not_before <= now);
        let (addr, site) = self.wanted.iter().find(|(addr, _)| ready(addr)).map(|(a, s)| (*a, *s))?;
        self.wanted.remove(&addr);
        self.dialing.insert(addr, now);
        let full = Now(now.0.saturating_sub(BURST * REFILL_US));
        self.bucket = self.bucket.max(full).after(REFILL_US);
        Some((addr, site))
    }

    /// When [`Dialer::poll`] may have something to give again.
    pub(crate) fn next(&self) -> Option<Now> {
        let unanswered = self.dialing.values().min().map(|since| since.after(self.timeout_us));
        if self.dialing.len() >= MAX_DIALS {
            return unanswered;
        }
        let due = |addr: &SocketAddr| self.failures.get(addr).map_or(Now(0), |f| f.not_before);
        let wanted = self.wanted.keys().map(due).min().map(|at| at.max(self.bucket));
        [unanswered, wanted].into_iter().flatten().min()
    }

    fn forget_unanswered(&mut self, now: Now, rng: &mut StdRng) {
        let late: Vec<SocketAddr> =
            self.dialing.iter().filter(|(_, since)| now.since(**since) >= self.timeout_us).map(|(a, _)| *a).collect();
        for addr in late {
            self.failed(now, addr, rng);
        }
    }
}

/// The delay after `in_a_row` earlier failures: doubling from `first` to `last`, between half of it and all of it.
pub(crate) fn backoff((first, last): (u64, u64), in_a_row: u32, rng: &mut StdRng) -> u64 {
    let full = first.max(2).saturating_mul(1u64.checked_shl(in_a_row.min(32)).unwrap_or(u64::MAX)).min(last.max(2));
    rng.random_range(full / 2..=full)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;

    fn addr(n: u16) -> SocketAddr {
        SocketAddr::from(([10, 0, 0, 1], n))
    }

    #[test]
    fn a_silent_address_is_tried_for_ever_ever_more_slowly() {
        let (mut dialer, mut rng) = (Dialer::new(&Timing::default()), StdRng::seed_from_u64(1));
        let (mut now, mut times) = (Now(1_000_000), Vec::new());
        for _ in 0..12 {
            dialer.want(addr(1), None);
            now = now.max(dialer.next().unwrap());
            assert!(dialer.poll(now, &mut rng).is_some());
            times.push(now.0);
            dialer.failed(now, addr(1), &mut rng);
        }
        let gaps: Vec<u64> = times.windows(2).map(|w| w[1] - w[0]).collect();
        assert!(gaps[0] <= 200_000 && gaps[10] >= 2_500_000 && gaps[10] <= 5_000_000, "{gaps:?}");
    }

    #[test]
    fn a_dial_that_nobody_answers_counts_as_failed() {
        let (mut dialer, mut rng) = (Dialer::new(&Timing::default()), StdRng::seed_from_u64(1));
        dialer.want(addr(1), None);
        assert!(dialer.poll(Now(0), &mut rng).is_some());
        dialer.want(addr(1), None);
        assert_eq!(dialer.poll(Now(1), &mut rng), None);
        let at = dialer.next().unwrap();
        assert_eq!(dialer.poll(at, &mut rng), None);
        dialer.want(addr(1), None);
        assert!(dialer.poll(dialer.next().unwrap(), &mut rng).is_some());
    }

    #[test]
    fn a_crowd_of_addresses_is_dialled_few_at_a_time_and_not_all_at_once() {
        let (mut dialer, mut rng) = (Dialer::new(&Timing::default()), StdRng::seed_from_u64(1));
        (1..100).for_each(|n| dialer.want(addr(n), None));
        let first: Vec<_> = std::iter::from_fn(|| dialer.poll(Now(10_000_000), &mut rng)).collect();
        assert_eq!(first.len(), MAX_DIALS);
        let mut sent = 0;
        for (addr, _) in first {
            dialer.reached(&addr);
        }
        while let Some((addr, _)) = dialer.poll(Now(10_000_000), &mut rng) {
            dialer.reached(&addr);
            sent += 1;
        }
        assert!(sent <= BURST as usize, "{sent}");
    }

    #[test]
    fn an_address_without_ip_or_port_is_never_dialled() {
        let mut dialer = Dialer::new(&Timing::default());
        dialer.want("0.0.0.0:7".parse().unwrap(), None);
        dialer.want("10.0.0.1:0".parse().unwrap(), None);
        assert_eq!(dialer.next(), None);
    }
}
