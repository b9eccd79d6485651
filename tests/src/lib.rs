//! What the tests share: connections with the extension, seeded randomness, fuzz targets, waiting for a condition.

pub mod disk;
pub mod fuzz;
pub mod ledger;
pub mod pause;
pub mod puppet;
pub mod random;
pub mod records;
pub mod seen;
pub mod shared;
pub mod site;
#[cfg(test)]
mod tidy;
pub mod wait;
pub mod workload;
