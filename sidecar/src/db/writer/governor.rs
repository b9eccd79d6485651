//! When merges may take the write lock, so that applications on the same file are not starved.
//!
//! While an application writes here, merges leave the lock free for as long as they held it, and after a burst their commits
//! are limited per second: each commit makes a transaction of an application that has read and wants to write fail with
//! SQLITE_BUSY_SNAPSHOT. While nobody writes here, merges never wait.

use crate::limits::{MERGES_PER_SECOND, MERGE_BURST};
use std::time::{Duration, Instant};

/// The pace of merges.
#[derive(Debug)]
pub struct Governor {
    free_at: Instant,
    /// Commits that may follow without waiting, in microseconds of credit.
    credit_us: u64,
    refilled: Instant,
}

const COMMIT_US: u64 = 1_000_000 / MERGES_PER_SECOND as u64;
const FULL_US: u64 = COMMIT_US * MERGE_BURST as u64;

impl Governor {
    /// With full credit.
    pub const fn new(now: Instant) -> Self {
        Self { free_at: now, credit_us: FULL_US, refilled: now }
    }

    /// How long to wait before the next transaction.
    pub fn wait(&mut self, now: Instant, application_writes: bool) -> Duration {
        if !application_writes {
            return Duration::ZERO;
        }
        self.refill(now);
        let credit = Duration::from_micros(COMMIT_US.saturating_sub(self.credit_us));
        self.free_at.saturating_duration_since(now).max(credit)
    }

    /// A transaction was committed that held the lock for `held`.
    pub fn committed(&mut self, now: Instant, held: Duration) {
        self.refill(now);
        self.credit_us = self.credit_us.saturating_sub(COMMIT_US);
        self.free_at = now + held;
    }

    fn refill(&mut self, now: Instant) {
        let passed = u64::try_from(now.saturating_duration_since(self.refilled).as_micros()).unwrap_or(u64::MAX);
        self.credit_us = self.credit_us.saturating_add(passed).min(FULL_US);
        self.refilled = now;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn merges_never_wait_while_no_application_writes() {
        let now = Instant::now();
        let mut governor = Governor::new(now);
        for _ in 0..1000 {
            governor.committed(now, Duration::from_millis(5));
            assert_eq!(governor.wait(now, false), Duration::ZERO);
        }
    }

    #[test]
    fn the_lock_is_left_free_as_long_as_it_was_held() {
        let now = Instant::now();
        let mut governor = Governor::new(now);
        governor.committed(now, Duration::from_millis(4));
        assert_eq!(governor.wait(now, true), Duration::from_millis(4));
        assert_eq!(governor.wait(now + Duration::from_millis(4), true), Duration::ZERO);
    }

    #[test]
    fn after_a_burst_commits_keep_to_their_rate() {
        let mut now = Instant::now();
        let start = now;
        let mut governor = Governor::new(now);
        let commits = MERGE_BURST + MERGES_PER_SECOND;
        for _ in 0..commits {
            now += governor.wait(now, true);
            governor.committed(now, Duration::ZERO);
        }
        let took = now - start;
        assert!(took > Duration::from_millis(950) && took < Duration::from_millis(1050), "{took:?}");
    }
}
