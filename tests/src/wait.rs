//! Waiting for a condition, with a deadline; never for luck.

use std::time::{Duration, Instant};

/// Polls until `condition` holds; panics with `what` after `limit`.
pub fn until(what: &str, limit: Duration, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < limit, "after {limit:?} still not: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}
