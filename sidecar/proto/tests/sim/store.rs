//! The store side of the simulation: a last-writer-wins map with exactly the claim rules of the real one.
//!
//! A dot is claimed when its claimable changeset was merged, or with the vector of a complete answer. A dot some of whose
//! cells were beaten is served thinned; whoever merges that carries it. A tie of vectors with unequal cells is what the
//! simulation looks for.

use bytes::Bytes;
use starling_crdt::changeset::{DotHeader, Header, Item, PartReader, PartWriter, RowKind, Stamp};
use starling_crdt::ids::{MAX_VERSION, TOKEN_MASK};
use starling_crdt::{Dot, Origin, SiteId, ValueRef, Vector};
use std::collections::{BTreeMap, BTreeSet};

/// Who wins: the larger (version, site, value).
type Rank = (u64, SiteId, i64);

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
    given_up: BTreeSet<Origin>,
    /// The newest dot of its own in each former epoch.
    authored: BTreeMap<Origin, u64>,
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
            given_up: BTreeSet::new(),
            authored: BTreeMap::new(),
        }
    }

    /// What stores must agree on. One write may have two dots, where its number was used twice.
    pub fn content(&self) -> BTreeMap<u64, (Rank, i64)> {
        self.cells.iter().map(|(key, cell)| (*key, (cell.rank, cell.value))).collect()
    }

    pub fn new_epoch(&mut self, epoch: u64) {
        self.authored.insert(Origin { site: self.site, epoch: self.epoch }, self.last_local.0);
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
            self.put(*key, Cell { rank: (version, self.site, value), dot, value });
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
            self.cells.iter().filter(|(_, c)| c.dot == *dot).map(|(k, c)| format!("{k}={:?}", c.rank)).collect();
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
                let rank = (cells[0].version, dot.origin.site, value);
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
            let own = Origin { site: self.site, epoch: self.epoch };
            if *origin == own && max > Some(self.last_local.0) {
                // Lost commits: taken back only when nothing can be written between them any more.
                continue;
            }
            for &(lo, hi) in state.claimed.ranges() {
                let held = self.vector.origins.get(origin).is_some_and(|o| o.claimed.contains_range(lo, hi));
                if !held {
                    self.vector.claim(*origin, lo, hi, if Some(hi) == max { state.head_token } else { 0 });
                }
            }
        }
    }

    /// Every changeset that `have` does not claim, in log order, and the vector of this moment.
    pub fn serve(&self, have: &Vector, to: SiteId) -> (Vec<Encoded>, Vector) {
        let forks = self.forks(have, Some(to));
        if !forks.origins.is_empty() {
            let mut have = have.clone();
            forks.origins.keys().for_each(|origin| have.claim(*origin, 1, MAX_VERSION, 0));
            return (self.serve(&have, to).0, Vector::default());
        }
        let mut dots: Vec<(&Dot, u64)> = self
            .log
            .iter()
            .filter(|(dot, _)| !have.claims(&dot.origin, dot.version))
            .map(|(dot, record)| (dot, record.at))
            .collect();
        dots.sort_by_key(|(dot, at)| (*at, **dot));
        (dots.iter().filter_map(|(dot, _)| self.encode(dot)).collect(), self.vector.clone())
    }

    fn token_of(&self, dot: &Dot) -> u64 {
        self.log.get(dot).map_or(0, |r| r.header.token)
    }

    /// Dots used twice, as `starling_forks` finds them.
    pub fn forks(&self, theirs: &Vector, speaker: Option<SiteId>) -> Vector {
        let mut forks = Vector::default();
        for (origin, state) in &theirs.origins {
            let Some(head) = state.claimed.max().filter(|_| state.head_token != 0) else { continue };
            let ours = self.token_of(&Dot { origin: *origin, version: head });
            let newest = self.vector.origins.get(origin).and_then(|o| o.claimed.max()).unwrap_or(0);
            if ours != state.head_token && self.contradicts(origin, head, state.head_token) {
                forks.claim(*origin, head, head, ours);
            } else if let Some((version, token)) = (ours == 0).then(|| self.skips(origin, head)).flatten() {
                forks.claim(*origin, head, version, token);
            } else if ours == 0 && speaker == Some(origin.site) && newest > head {
                forks.claim(*origin, head, newest, 0);
            }
        }
        forks
    }

    /// The next dot held after this number, if by its predecessor the number belongs to no dot of this history.
    fn skips(&self, origin: &Origin, version: u64) -> Option<(u64, u64)> {
        let after = Dot { origin: *origin, version: version + 1 }..=Dot { origin: *origin, version: u64::MAX };
        let next = self.log.range(after).next().map(|(_, record)| record.header)?;
        let skips = next.prev < version && self.vector.claims(origin, next.dot.version);
        skips.then_some((next.dot.version, next.token))
    }

    fn newest_authored(&self, origin: &Origin) -> u64 {
        let present = *origin == Origin { site: self.site, epoch: self.epoch };
        if present {
            self.last_local.0
        } else {
            self.authored.get(origin).copied().unwrap_or(0)
        }
    }

    /// As the store finds it: a dot of ours is a number that belongs to none elsewhere.
    fn is_passed_over(&self, origin: &Origin, version: u64, next: u64, token: u64) -> bool {
        let newest = self.vector.origins.get(origin).and_then(|o| o.claimed.max()).unwrap_or(0);
        let ours = version <= self.newest_authored(origin) && self.token_of(&Dot { origin: *origin, version }) != 0;
        version < next && token != 0 && next > newest && ours
    }

    fn contradicts(&self, origin: &Origin, version: u64, theirs: u64) -> bool {
        let authored = self.newest_authored(origin);
        let newest = self.vector.origins.get(origin).and_then(|o| o.claimed.max()).unwrap_or(0);
        match (theirs, self.token_of(&Dot { origin: *origin, version })) {
            (0, _) => authored > 0 && version > newest,
            (_, 0) => version <= authored,
            (theirs, ours) => theirs != ours,
        }
    }

    /// Whether a changeset cannot belong to the history that is claimed here.
    pub fn is_forked(&self, header: &DotHeader, claimable: bool) -> bool {
        let origin = header.dot.origin;
        let differs = |version: u64, theirs: u64| {
            let ours = self.token_of(&Dot { origin, version });
            version != 0 && theirs != 0 && ours != 0 && ours != theirs && self.vector.claims(&origin, version)
        };
        let between = (header.prev + 1..header.dot.version)
            .any(|version| self.vector.claims(&origin, version) && self.token_of(&Dot { origin, version }) != 0);
        differs(header.dot.version, header.token) || differs(header.prev, header.prev_token) || (claimable && between)
    }

    /// Gives what is held of these origins another epoch, as `starling_rehome` does; says how many.
    pub fn rehome(&mut self, theirs: &Vector, epoch: u64) -> usize {
        let mut renamed = 0;
        for (origin, state) in &theirs.origins {
            let Some(head) = state.claimed.max() else { continue };
            let ours = self.token_of(&Dot { origin: *origin, version: head });
            let mut new = Origin { epoch, ..*origin };
            if origin.site == self.site && !self.given_up.contains(origin) {
                let first = state.claimed.ranges().first().map_or(head, |range| range.0);
                if !self.contradicts(origin, head, state.head_token)
                    && !self.is_passed_over(origin, first, head, state.head_token)
                {
                    continue;
                }
            } else if ours < state.head_token && (ours != 0 || self.skips(origin, head).is_some()) {
                new.epoch = fnv(format!("{} {head} {ours}", origin.epoch).as_bytes());
            } else {
                continue;
            }
            while self.vector.origins.contains_key(&new) {
                new.epoch += 1;
            }
            renamed += 1;
            self.rename(origin, new);
            self.given_up.insert(*origin);
        }
        renamed
    }

    fn rename(&mut self, old: &Origin, new: Origin) {
        if self.site == old.site && self.epoch == old.epoch {
            self.epoch = new.epoch;
        }
        if let Some(authored) = self.authored.remove(old) {
            self.authored.insert(new, authored);
        }
        if let Some(state) = self.vector.origins.remove(old) {
            self.vector.origins.insert(new, state);
        }
        for cell in self.cells.values_mut().filter(|c| c.dot.origin == *old) {
            cell.dot.origin = new;
        }
        let log = std::mem::take(&mut self.log).into_iter().map(|(mut dot, mut record)| {
            if dot.origin == *old {
                dot.origin = new;
                record.header.dot.origin = new;
            }
            (dot, record)
        });
        self.log = log.collect();
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
