//! Keys that a merge had to convert, from dots that are claimed all the same.
//!
//! A peer whose table has a key of another type names rows by keys that are stored differently here ('1' for 1). They are merged
//! as what SQLite makes of them. If the table here then begins anew, under that other key perhaps, what was merged so belongs to
//! a table that is archived, and its dots must not stay claimed (I6): the peer sends them once more.

use crate::session::Session;
use crate::sqlite::Result;
use starling_crdt::Vector;

const NOTE: &str = "converted";

impl Session {
    /// A dot named a row of a table by a key that had to be converted: of each origin the first such dot is noted.
    pub fn note_converted(&self, table: u32, origin: u32, version: u64) -> Result<()> {
        let mut first = self.first_converted(table)?;
        match first.iter_mut().find(|(o, _)| *o == origin) {
            Some((_, v)) if *v <= version => return Ok(()),
            Some((_, v)) => *v = version,
            None => first.push((origin, version)),
        }
        let noted: Vec<String> = first.iter().map(|(o, v)| format!("{o} {v}")).collect();
        self.set_table_note(NOTE, table, &noted.join(","))
    }

    fn first_converted(&self, table: u32) -> Result<Vec<(u32, u64)>> {
        Ok(pairs(&self.table_note(NOTE, table)?.unwrap_or_default()))
    }

    /// What an answer may not claim: it tells of those rows under the keys that they have here.
    pub fn leave_out_converted(&self, vector: &mut Vector) -> Result<()> {
        for (_, noted) in self.tables_noted(NOTE)? {
            for (ordinal, version) in pairs(&noted) {
                let (origin, _) = self.origin_of(ordinal)?;
                if let Some(state) = vector.origins.get_mut(&origin) {
                    state.claimed.remove(version, u64::MAX);
                    state.head_token = state.claimed.max().map_or(Ok(0), |head| self.token_of(ordinal, head))?;
                }
            }
        }
        Ok(())
    }

    /// The table gives way to one with another key: of each origin that named rows of it otherwise, nothing is claimed any more
    /// from the first such dot on.
    pub fn give_up_converted(&self, table: u32) -> Result<()> {
        for (origin, version) in self.first_converted(table)? {
            self.give_up_claims(origin, version)?;
            let mut last = version.saturating_sub(1);
            while let Some(held) = self.foreign_after(origin, last)? {
                last = held.version;
                self.carry(origin, last)?;
            }
        }
        self.drop_table_note(NOTE, table)
    }
}

/// The origins' ordinals and versions in such a note.
fn pairs(noted: &str) -> Vec<(u32, u64)> {
    let pair = |one: &str| one.split_once(' ').and_then(|(o, v)| Some((o.parse().ok()?, v.parse().ok()?)));
    noted.split(',').filter_map(pair).collect()
}
