//! What the tests share: connections with the extension, seeded randomness, waiting for a condition.

pub mod random;
pub mod site;
pub mod wait;
