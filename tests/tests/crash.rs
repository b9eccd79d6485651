//! A writer killed at any point, and a disk that is full at any point: what was acknowledged is there, what was not is there
//! wholly or not at all, and the file goes on syncing.
//!
//! STARLING_CRASH_KILLS=n sets how often each writer is killed, STARLING_CRASH_SEED=n the first seed.

#[path = "crash/disk.rs"]
mod disk;
#[path = "crash/full.rs"]
mod full;
#[path = "crash/interrupt.rs"]
mod interrupt;
#[path = "crash/kill.rs"]
mod kill;
#[path = "crash/open_close.rs"]
mod open_close;

/// A number from the environment.
fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|s| s.parse().ok()).unwrap_or(default)
}
