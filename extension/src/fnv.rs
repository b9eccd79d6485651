//! FNV-1a (Fowler, Noll, Vo), 64 bits: for hashes that are stored or compared between nodes, so the same in every build.

/// The hash of nothing.
pub const START: u64 = 0xcbf2_9ce4_8422_2325;

/// The hash of what `hash` stands for, followed by `bytes`.
pub fn feed(hash: u64, bytes: &[u8]) -> u64 {
    bytes.iter().fold(hash, |h, b| (h ^ u64::from(*b)).wrapping_mul(0x0000_0100_0000_01b3))
}
