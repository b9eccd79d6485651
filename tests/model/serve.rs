//! What a sender says from one snapshot: the changeset of a dot, the answer to a vector, its digest.

use super::replica::{Database, Record};
use super::rules::Rules;
use super::types::{Changeset, Dot, Header, Name, Row, Vector, BORN, ROWS, SLOTS};
use std::rc::Rc;

/// One live cell of a dot that is not claimed: (dot, row, cl, slot, col_version, value). A real digest hashes them.
pub type CarriedCell = (Dot, u8, u8, u8, u8, u8);

/// What two nodes compare to know that they are equal.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Digest {
    pub claimed: Vector,
    pub carried: Vec<CarriedCell>,
}

impl Digest {
    /// The weaker digest, of claimed dots and the set of carried dots.
    pub fn same_by_dots(&self, other: &Digest) -> bool {
        let dots = |digest: &Digest| {
            let mut dots: Vec<Dot> = digest.carried.iter().map(|cell| cell.0).collect();
            dots.dedup();
            dots
        };
        self.claimed == other.claimed && dots(self) == dots(other)
    }
}

impl Database {
    /// The changeset of one logged dot: complete or covering if the record is intact, else thinned.
    /// `cl_blind`: a log whose masks do not know their lifetime. `None` if nothing is left to say.
    pub fn encode(&self, record: &Record, cl_blind: bool, rules: &Rules) -> Option<Changeset> {
        let dot = record.dot;
        match self.claimable_header(record, rules) {
            Some(header) => {
                let rows = header.names.iter().map(|name| (name.row, self.cover(name, cl_blind, rules))).collect();
                Some(Changeset { dot, claim: Some(header), rows })
            }
            None => {
                let rows = self.live_rows(record, rules);
                (!rows.is_empty()).then_some(Changeset { dot, claim: None, rows })
            }
        }
    }

    fn claimable_header(&self, record: &Record, rules: &Rules) -> Option<Rc<Header>> {
        if !self.claimed.has(record.dot) {
            return None;
        }
        if record.header.is_none() && rules.trust_thinned {
            let mut names = Vec::new();
            for row in 0..ROWS {
                names.push(Name { row: row as u8, cl: self.rows[row].cl, slots: record.named[row] });
            }
            names.retain(|name| name.slots != 0);
            return Some(Rc::new(Header { prev: record.dot.version - 1, names }));
        }
        record.header.clone()
    }

    /// The current winner of what `name` names: that, or what beats it.
    fn cover(&self, name: &Name, cl_blind: bool, rules: &Rules) -> Row {
        let held = &self.rows[name.row as usize];
        let is_base = name.slots & (1 << BORN) != 0;
        let part = held.pick(name.slots);
        let all_there = (0..SLOTS).all(|slot| name.slots & (1 << slot) == 0 || !part.cells[slot].is_absent());
        if !(is_base && rules.whole_base) && all_there && (cl_blind || held.cl == name.cl) {
            part
        } else {
            *held
        }
    }

    /// What of a dot still lives here; a base brings its whole row (X4).
    fn live_rows(&self, record: &Record, rules: &Rules) -> Vec<(u8, Row)> {
        let mut rows = Vec::new();
        for row in 0..ROWS {
            let held = &self.rows[row];
            let live = held.carrying(record.dot) & record.named[row];
            if live & (1 << BORN) != 0 && rules.whole_base {
                rows.push((row as u8, *held));
            } else if live != 0 {
                rows.push((row as u8, held.pick(live)));
            }
        }
        for alias in record.aliases.iter().filter(|alias| self.alias_lives(alias)) {
            let held = &self.rows[alias.row as usize];
            let slots = if alias.slot as usize == BORN && rules.whole_base { u8::MAX } else { 1 << alias.slot };
            let mut part = held.pick(slots);
            part.cells[alias.slot as usize].dot = record.dot;
            rows.push((alias.row, part));
        }
        rows
    }

    /// The answer to a vector: a changeset for every logged dot that the asker does not claim.
    pub fn answer(&self, asker: &Vector, cl_blind: bool, rules: &Rules) -> Vec<Changeset> {
        let missing = self.log.iter().filter(|record| !asker.has(record.dot));
        missing.filter_map(|record| self.encode(record, cl_blind, rules)).collect()
    }

    pub fn digest(&self) -> Digest {
        let mut carried = Vec::new();
        for record in &self.log {
            if self.claimed.has(record.dot) {
                continue;
            }
            for row in 0..ROWS {
                let held = &self.rows[row];
                let mut live = held.carrying(record.dot) & record.named[row];
                for alias in record.aliases.iter().filter(|alias| alias.row as usize == row && self.alias_lives(alias))
                {
                    live |= 1 << alias.slot;
                }
                for slot in (0..SLOTS).filter(|slot| live & (1 << slot) != 0) {
                    let cell = held.cells[slot];
                    carried.push((record.dot, row as u8, held.cl, slot as u8, cell.col_version, cell.value));
                }
            }
        }
        carried.sort_unstable();
        Digest { claimed: self.claimed, carried }
    }
}
