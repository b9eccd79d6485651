//! The pure core of Starling: identifiers, the order of values, every codec and the merge decision.
//!
//! Nothing here touches SQLite, a socket, a clock or a global. Decoders are total: they never panic, never allocate
//! more than their input justifies, and consume everything or say why not.
#![no_std]
#![forbid(unsafe_code)]
#![warn(missing_docs)]
#![cfg_attr(test, allow(clippy::unwrap_used))]

extern crate alloc;

pub mod changeset;
pub mod clock_block;
pub mod cursor;
pub mod decide;
pub mod ids;
pub mod key;
pub mod local;
pub mod log_chunk;
pub mod order_key;
pub mod overtaken;
pub mod ranges;
pub mod record;
pub mod row_clock;
pub mod value;
pub mod vector;
pub mod young;

pub use cursor::{DecodeError, Reader};
pub use ids::{Dot, Origin, SiteId};
pub use ranges::RangeSet;
pub use value::{Value, ValueRef};
pub use vector::Vector;
