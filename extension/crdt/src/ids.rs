//! Identifiers and the absolute caps on every counter (DESIGN X12).

use core::fmt;

/// Highest site_version and db_version: below 2^62, so that `+ 1` never overflows an SQL integer.
pub const MAX_VERSION: u64 = (1 << 62) - 1;
/// Highest causal length and col_version.
pub const MAX_COUNTER: u64 = (1 << 48) - 1;
/// Highest seq within one transaction.
pub const MAX_SEQ: u64 = (1 << 48) - 1;
/// A nine-value db_version this far above the local one is merged without raising the local counter.
pub const MAX_JUMP: u64 = 1 << 50;
/// Tokens are 48 bits: six bytes in an SQLite record, never 0 (0 means unknown).
pub const TOKEN_MASK: u64 = (1 << 48) - 1;
/// In place of a token: the origin's own site has given its name up. No dot bears it.
pub const FORSAKEN: u64 = TOKEN_MASK;

/// One database replica: 16 bytes, a UUID.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct SiteId(pub [u8; 16]);

impl SiteId {
    /// A site id out of at most 16 bytes, shorter ones padded with zeros at the end. `None` when it is longer.
    #[must_use]
    pub fn from_slice(bytes: &[u8]) -> Option<Self> {
        let mut id = [0u8; 16];
        id.get_mut(..bytes.len())?.copy_from_slice(bytes);
        Some(Self(id))
    }
}

impl fmt::Display for SiteId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, byte) in self.0.iter().enumerate() {
            if matches!(i, 4 | 6 | 8 | 10) {
                f.write_str("-")?;
            }
            write!(f, "{byte:02x}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for SiteId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A site in one of its epochs: what a version vector counts by. The epoch is a random 64-bit number, drawn anew
/// whenever the site may have lost commits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Origin {
    /// The replica.
    pub site: SiteId,
    /// Its epoch.
    pub epoch: u64,
}

/// One transaction at its origin; globally unique.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Dot {
    /// Where it was committed.
    pub origin: Origin,
    /// The origin's db_version of that commit.
    pub version: u64,
}
