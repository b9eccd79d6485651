//! The extension in an embedded SQLite: laws over random histories, exactness, refusals, damage.

#[path = "extension/damage.rs"]
mod damage;
#[path = "extension/exactness.rs"]
mod exactness;
#[path = "extension/hazards.rs"]
mod hazards;
#[path = "extension/interface.rs"]
mod interface;
#[path = "extension/laws.rs"]
mod laws;
#[path = "extension/refusals.rs"]
mod refusals;
#[path = "extension/transparency.rs"]
mod transparency;
