//! Starling's cluster protocol as a state machine: membership, dissemination, anti-entropy, and the book of who holds what.
//!
//! It does no I/O, reads no clock, starts no thread and knows no database: what happens comes in as an [`api::Input`] with
//! the moment it happened, what is to be done comes out as [`api::Output`]s, and equal inputs with an equal seed give equal
//! outputs. docs/PROTOCOL.md describes what goes over the wire.
#![forbid(unsafe_code)]
#![warn(missing_docs)]
#![warn(
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::panic,
    clippy::expect_used
)]
#![cfg_attr(
    test,
    allow(
        clippy::unwrap_used,
        clippy::indexing_slicing,
        clippy::cast_possible_truncation,
        clippy::panic,
        clippy::expect_used
    )
)]

pub mod api;
mod book;
mod cache;
mod dial;
mod digest;
mod event;
pub mod frames;
pub mod limits;
mod node;
mod status;
mod swim;
mod swim_codec;
mod sync;
mod timers;
mod tree;

pub use api::{
    Changeset, Counters, Event, HangupReason, HeldBy, Input, Member, MemberState, NodeConfig, Now, OriginStatus,
    Output, PullKey, ServeKey, Source, Timing,
};
pub use node::Node;
