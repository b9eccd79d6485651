//! The store side of the simulation: a last-writer-wins map with exactly the claim rules of the real one.
//!
//! A dot is claimed when its claimable changeset was merged, or with the vector of a complete answer. A dot some of whose
//! cells were beaten is served thinned; whoever merges that carries it. A tie of vectors with unequal cells is what the
//! simulation looks for.

use bytes::Bytes;
use starling_crdt::changeset::{DotHeader, Header, Item, PartReader, PartWriter, RowKind, Stamp};
use starling_crdt::ids::TOKEN_MASK;
use starling_crdt::{Dot, Origin, SiteId, ValueRef, Vector};
use std::collections::{BTreeMap, BTreeSet};

/// Who wins: the larger.
type Rank = (u64, SiteId, u64);

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cell {
    pub rank: Rank,
    pub dot: Dot,
    pub value: i64,
}

#[derive(Clone, Debug)]
struct Record {
    header: DotHeader,
    /// Every key that the transaction wrote, when known (it was merged or written whole).
    keys: Option<BTreeSet<u64>>,
    /// Position in the log.
    at: u64,
    /// Bytes of padding, so that large transactions are large.
    padding: usize,
}

#[derive(Clone, Debug)]
pub struct Store {
    pub site: SiteId,
    pub epoch: u64,
    pub vector: Vector,
    pub cells: BTreeMap<u64, Cell>,
    log: BTreeMap<Dot, Record>,
    db_version: u64,
    last_local: (u64, u64),
}

/// A changeset ready to be sent.
#[derive(Clone, Debug)]
pub struct Encoded {
    pub header: Header,
    pub parts: Vec<Bytes>,
}

impl Store {
    pub fn new(site: SiteId, epoch: u64) -> Self {
        Self {
            site,
            epoch,
            vector: Vector::default(),
            cells: BTreeMap::new(),
            log: BTreeMap::new(),
            db_version: 0,
            last_local: (0, 0),
        }
    }

    pub fn new_epoch(&mut self, epoch: u64) {
        self.epoch = epoch;
        self.last_local = (0, 0);
    }

    /// One local transaction.
    pub fn write(&mut self, keys: &BTreeSet<u64>, value: i64, token: u64, commit_ms: u64, padding: usize) -> Encoded {
        self.db_version += 1;
        let token = (token & TOKEN_MASK).max(1);
        let dot = Dot { origin: Origin { site: self.site, epoch: self.epoch }, version: self.db_version };
        let (prev, prev_token) = self.last_local;
        let header = DotHeader { dot, token, prev, prev_token, commit_ms };
        self.last_local = (dot.version, token);
        for key in keys {
            let version = self.cells.get(key).map_or(0, |c| c.rank.0) + 1;
            self.put(*key, Cell { rank: (version, self.site, self.epoch), dot, value });
        }
        self.vector.claim(dot.origin, prev + 1, dot.version, token);
        self.log.insert(dot, Record { header, keys: Some(keys.clone()), at: self.db_version, padding });
        self.encode(&dot).expect("a fresh transaction has cells")
    }

    fn put(&mut self, key: u64, cell: Cell) -> bool {
        let old = self.cells.get(&key).map(|c| c.dot);
        if self.cells.get(&key).is_some_and(|c| c.rank >= cell.rank) {
            return false;
        }
        let dot = cell.dot;
        self.cells.insert(key, cell);
        old.into_iter().chain([dot]).for_each(|dot| self.weigh(&dot));
        true
    }

    /// Recomputes what is carried of a dot.
    fn weigh(&mut self, dot: &Dot) {
        if self.vector.claims(&dot.origin, dot.version) {
            return;
        }
        let cells: Vec<String> =
            self.cells.iter().filter(|(_, c)| c.dot == *dot).map(|(k, c)| format!("{k}={c:?}")).collect();
        let state = self.vector.origins.entry(dot.origin).or_default();
        if cells.is_empty() {
            state.carried.remove(&dot.version);
            if *state == Default::default() {
                self.vector.origins.remove(&dot.origin);
            }
        } else {
            state.carried.insert(dot.version, fnv(cells.join(",").as_bytes()));
        }
    }

    /// The changeset of a dot as this store holds it; `None` when nothing is left of it.
    fn encode(&self, dot: &Dot) -> Option<Encoded> {
        let record = self.log.get(dot)?;
        let cells: Vec<(&u64, &Cell)> = self.cells.iter().filter(|(_, c)| c.dot == *dot).collect();
        let complete = record.keys.as_ref().is_some_and(|keys| cells.len() == keys.len());
        if cells.is_empty() {
            return None;
        }
        let head = |part| Header { dot: record.header, claimable: complete, last: false, group: false, part };
        let padding = vec![7u8; record.padding / cells.len().max(1)];
        let last = cells.len() as u64 - 1;
        let mut parts = Vec::new();
        for (i, (key, cell)) in cells.iter().enumerate() {
            let mut w = PartWriter::new(&head(i as u64));
            let t = w.table("t", 1, ["v", "padding"].into_iter());
            w.cells(t, &key.to_le_bytes(), 1, true, None, 2);
            let stamp = Stamp { dot: 0, author: None, seq: i as u64 };
            w.cell(0, cell.rank.0, stamp, ValueRef::Integer(cell.value));
            w.cell(1, cell.rank.0, stamp, ValueRef::Blob(&padding));
            parts.push(Bytes::from(w.finish(i as u64 == last)));
        }
        Some(Encoded { header: Header { last: last == 0, ..head(0) }, parts })
    }

    /// Merges all parts of one changeset in one go. Gives the number of changes, and whether the dot is claimed.
    pub fn merge(&mut self, parts: &[Bytes]) -> (u64, bool) {
        let mut changes = 0;
        let mut keys = BTreeSet::new();
        let mut head = None;
        let mut padding = 0;
        for part in parts {
            let mut r = PartReader::new(part).expect("the core hands over decoded parts");
            let header = *r.header();
            assert!(head.is_none_or(|h: Header| h.dot == header.dot), "parts of one changeset");
            head = Some(header);
            let dot = header.dot.dot;
            self.db_version = self.db_version.max(dot.version);
            self.log.entry(dot).or_insert(Record { header: header.dot, keys: None, at: 0, padding: 0 });
            while let Some(item) = r.next_item().expect("well-formed") {
                let Item::Row(row) = item else { continue };
                let RowKind::Cells { cells, .. } = row.kind else { continue };
                let key = u64::from_le_bytes(row.key.try_into().expect("eight bytes"));
                keys.insert(key);
                padding += part.len();
                let value = match cells[0].value.to_value_ref() {
                    Some(v) => v,
                    None => panic!("a cell without integer"),
                };
                let rank = (cells[0].version, dot.origin.site, dot.origin.epoch);
                changes += u64::from(self.put(key, Cell { rank, dot, value }));
            }
        }
        let header = head.expect("at least one part");
        let dot = header.dot.dot;
        self.db_version += 1;
        let at = self.db_version;
        let record = self.log.get_mut(&dot).expect("entered above");
        record.at = if record.at == 0 { at } else { record.at };
        record.padding = record.padding.max(padding);
        if header.claimable {
            record.keys = Some(keys);
            self.vector.claim(dot.origin, header.dot.prev + 1, dot.version, header.dot.token);
        }
        (changes, self.vector.claims(&dot.origin, dot.version))
    }

    /// The vector of a complete answer.
    pub fn claim(&mut self, vector: &Vector) {
        for (origin, state) in &vector.origins {
            let max = state.claimed.max();
            for &(lo, hi) in state.claimed.ranges() {
                let held = self.vector.origins.get(origin).is_some_and(|o| o.claimed.contains_range(lo, hi));
                if !held {
                    self.vector.claim(*origin, lo, hi, if Some(hi) == max { state.head_token } else { 0 });
                }
            }
        }
    }

    /// Every changeset that `have` does not claim, in log order, and the vector of this moment.
    pub fn serve(&self, have: &Vector) -> (Vec<Encoded>, Vector) {
        let mut dots: Vec<(&Dot, u64)> = self
            .log
            .iter()
            .filter(|(dot, _)| !have.claims(&dot.origin, dot.version))
            .map(|(dot, record)| (dot, record.at))
            .collect();
        dots.sort_by_key(|(dot, at)| (*at, **dot));
        (dots.iter().filter_map(|(dot, _)| self.encode(dot)).collect(), self.vector.clone())
    }

    /// A dot used twice, as `starling_check` would find it at the heads.
    pub fn check(&self, theirs: &Vector) -> Option<Dot> {
        theirs.origins.iter().find_map(|(origin, state)| {
            let dot = Dot { origin: *origin, version: state.claimed.max()? };
            let ours = self.log.get(&dot).map_or(0, |r| r.header.token);
            (ours != 0 && state.head_token != 0 && ours != state.head_token).then_some(dot)
        })
    }
}

trait Int {
    fn to_value_ref(&self) -> Option<i64>;
}

impl Int for starling_crdt::value::Encoded<'_> {
    fn to_value_ref(&self) -> Option<i64> {
        match self.value() {
            ValueRef::Integer(i) => Some(i),
            _ => None,
        }
    }
}

pub fn fnv(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |h, b| (h ^ u64::from(*b)).wrapping_mul(0x100_0000_01b3))
}
