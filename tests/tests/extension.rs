//! The extension in an embedded SQLite: laws over random histories, exactness, refusals, damage.

#[path = "extension/adversity.rs"]
mod adversity;
#[path = "extension/alter.rs"]
mod alter;
#[path = "extension/alter_laws.rs"]
mod alter_laws;
#[path = "extension/automigrate.rs"]
mod automigrate;
#[path = "extension/copies.rs"]
mod copies;
#[path = "extension/costs.rs"]
mod costs;
#[path = "extension/cursors.rs"]
mod cursors;
#[path = "extension/damage.rs"]
mod damage;
#[path = "extension/exactness.rs"]
mod exactness;
#[path = "extension/fixtures.rs"]
mod fixtures;
#[path = "extension/forks.rs"]
mod forks;
#[path = "extension/former.rs"]
mod former;
#[path = "extension/fract.rs"]
mod fract;
#[path = "extension/hazards.rs"]
mod hazards;
#[path = "extension/in_the_way.rs"]
mod in_the_way;
#[path = "extension/interface.rs"]
mod interface;
#[path = "extension/laws.rs"]
mod laws;
#[path = "extension/meanwhile.rs"]
mod meanwhile;
#[path = "extension/mend.rs"]
mod mend;
#[path = "extension/mixed.rs"]
mod mixed;
#[path = "extension/mixed_laws.rs"]
mod mixed_laws;
#[path = "extension/nine_between.rs"]
mod nine_between;
#[path = "extension/nine_laws.rs"]
mod nine_laws;
#[path = "extension/nine_values.rs"]
mod nine_values;
#[path = "extension/once.rs"]
mod once;
#[path = "extension/overtaken.rs"]
mod overtaken;
#[path = "extension/pending.rs"]
mod pending;
#[path = "extension/plain.rs"]
mod plain;
#[path = "extension/plans.rs"]
mod plans;
#[path = "extension/portable.rs"]
mod portable;
#[path = "extension/portable_laws.rs"]
mod portable_laws;
#[path = "extension/portable_merges.rs"]
mod portable_merges;
#[path = "extension/refusals.rs"]
mod refusals;
#[path = "extension/rekey.rs"]
mod rekey;
#[path = "extension/relative.rs"]
mod relative;
#[path = "extension/replace.rs"]
mod replace;
#[path = "extension/scopes.rs"]
mod scopes;
#[path = "extension/shared_cache.rs"]
mod shared_cache;
#[path = "extension/sight.rs"]
mod sight;
#[path = "extension/sight_adverse.rs"]
mod sight_adverse;
#[path = "extension/threads.rs"]
mod threads;
#[path = "extension/transparency.rs"]
mod transparency;
#[path = "extension/unfinished.rs"]
mod unfinished;
#[path = "extension/upkeep.rs"]
mod upkeep;
#[path = "extension/windows.rs"]
mod windows;
#[path = "extension/young.rs"]
mod young;
#[path = "extension/young_laws.rs"]
mod young_laws;
