//! The bodies of the fuzz targets. `tests/fuzz` runs them under libFuzzer; `tests/tests/replay.rs` runs them over the seeds
//! that are committed and over mutations of those.
//!
//! A body takes any bytes and may only return: a panic, an abort, a hang or an allocation far above the input's size is a
//! finding. What a decoder accepts it must give back: decoding, encoding and decoding again ends where it began.

pub mod codecs;
pub mod feed;
pub mod node;
pub mod ranges;
pub mod sql;
pub mod wire;

/// A target's name and body.
pub type Target = (&'static str, fn(&[u8]));

/// Every target; `tests/fuzz/targets/<name>.rs` and `tests/fuzz/seeds/<name>/` belong to each.
pub const TARGETS: &[Target] = &[
    ("changeset", codecs::changeset),
    ("clock_block", codecs::clock_block),
    ("key", codecs::key),
    ("log_chunk", codecs::log_chunk),
    ("node", node::node),
    ("ranges", ranges::ranges),
    ("row_clock", codecs::row_clock),
    ("schema", sql::schema),
    ("sql", sql::sql),
    ("vector", codecs::vector),
    ("wire", wire::wire),
    ("young", codecs::young),
    ("record", codecs::record),
];

/// The body of that name.
#[must_use]
pub fn body(name: &str) -> Option<fn(&[u8])> {
    TARGETS.iter().find(|(n, _)| *n == name).map(|(_, body)| *body)
}
