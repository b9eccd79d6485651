//! The version vector on disk: what is claimed, what is carried, and the tokens that tell a dot used twice.

use crate::catalog::Table;
use crate::fnv;
use crate::records::Record;
use crate::session::{corrupt, Session};
use crate::sqlite::Result;
use starling_crdt::ids::TOKEN_MASK;
use starling_crdt::log_chunk::{Entry, Kind};
use starling_crdt::row_clock::RowClock;
use starling_crdt::{Origin, RangeSet, Vector};

impl Session {
    /// Whether a dot is claimed.
    pub fn is_claimed(&self, origin: u32, version: u64) -> Result<bool> {
        if origin == self.meta()?.origin && version <= self.tail()?.last_local {
            return Ok(true);
        }
        let mut find =
            self.fixed("SELECT hi FROM main.crsql_claim WHERE origin = ?1 AND lo <= ?2 ORDER BY lo DESC LIMIT 1")?;
        find.bind_int(1, i64::from(origin))?;
        find.bind_int(2, version.cast_signed())?;
        Ok(find.step()? && find.column_int(0) >= version.cast_signed())
    }

    /// Claims `lo..=hi` of an origin; `token` is that of `hi`, 0 = not known.
    pub fn claim(&self, origin: u32, lo: u64, hi: u64, token: u64) -> Result<()> {
        let (mut set, mut old, mut head) = (RangeSet::from_range(lo, hi), Vec::new(), (hi, token));
        {
            // From above, as there may be many below; they do not overlap.
            let mut near = self.fixed(
                "SELECT lo, hi, token FROM main.crsql_claim WHERE origin = ?1 AND lo <= ?2 + 1 ORDER BY lo DESC",
            )?;
            near.bind_int(1, i64::from(origin))?;
            near.bind_int(2, hi.cast_signed())?;
            while near.step()? {
                let (a, b) = (near.column_int(0).cast_unsigned(), near.column_int(1).cast_unsigned());
                if b < lo.saturating_sub(1) {
                    break;
                }
                let their_token = near.column_int(2).cast_unsigned();
                if a <= lo && hi <= b && !(hi == b && their_token == 0 && token != 0) {
                    return Ok(());
                }
                set.insert(a, b);
                if b > head.0 || (b == head.0 && head.1 == 0) {
                    head = (b, their_token);
                }
                old.push(a);
            }
        }
        for lo in old {
            let mut drop = self.fixed("DELETE FROM main.crsql_claim WHERE origin = ?1 AND lo = ?2")?;
            drop.bind_int(1, i64::from(origin))?;
            drop.bind_int(2, lo.cast_signed())?;
            drop.execute()?;
        }
        for &(lo, hi) in set.ranges() {
            let mut add =
                self.fixed("INSERT OR REPLACE INTO main.crsql_claim(origin, lo, hi, token) VALUES(?1, ?2, ?3, ?4)")?;
            add.bind_int(1, i64::from(origin))?;
            add.bind_int(2, lo.cast_signed())?;
            add.bind_int(3, hi.cast_signed())?;
            add.bind_int(4, head.1.cast_signed())?;
            add.execute()?;
        }
        self.leave_lost_epoch(origin, hi)?;
        let mut carried =
            self.fixed("DELETE FROM main.crsql_carried WHERE origin = ?1 AND version BETWEEN ?2 AND ?3")?;
        carried.bind_int(1, i64::from(origin))?;
        carried.bind_int(2, lo.cast_signed())?;
        carried.bind_int(3, hi.cast_signed())?;
        carried.execute()
    }

    /// Claims nothing of an origin any more from a version on.
    pub fn give_up_claims(&self, origin: u32, from: u64) -> Result<()> {
        let before = from.saturating_sub(1);
        let token = self.token_of(origin, before)?;
        let mut drop = self.fixed("DELETE FROM main.crsql_claim WHERE origin = ?1 AND lo >= ?2")?;
        drop.bind_int(1, i64::from(origin))?;
        drop.bind_int(2, from.cast_signed())?;
        drop.execute()?;
        let mut cut = self.fixed("UPDATE main.crsql_claim SET hi = ?2, token = ?3 WHERE origin = ?1 AND hi > ?2")?;
        cut.bind_int(1, i64::from(origin))?;
        cut.bind_int(2, before.cast_signed())?;
        cut.bind_int(3, token.cast_signed())?;
        cut.execute()
    }

    /// Dots of this site itself beyond what it has: it went back (a restore, a power cut). It goes on in a new epoch, or
    /// its next dots would be numbers that others hold already (S1).
    fn leave_lost_epoch(&self, origin: u32, version: u64) -> Result<()> {
        let ours = self.meta()?.origin == origin;
        if ours && version > self.tail()?.last_local {
            self.new_epoch()?;
        }
        Ok(())
    }

    /// Remembers that some cells of a dot are held without a claim.
    pub fn carry(&self, origin: u32, version: u64) -> Result<()> {
        if self.is_claimed(origin, version)? {
            return Ok(());
        }
        let mut add = self.fixed("INSERT OR IGNORE INTO main.crsql_carried(origin, version) VALUES(?1, ?2)")?;
        add.bind_int(1, i64::from(origin))?;
        add.bind_int(2, version.cast_signed())?;
        add.execute()?;
        drop(add);
        self.leave_lost_epoch(origin, version)
    }

    /// The vector of this database as it stands.
    pub fn vector(&self) -> Result<Vector> {
        let meta = self.meta()?;
        let tail = self.tail()?;
        let mut vector = Vector::default();
        if tail.last_local > 0 {
            let own = Origin { site: meta.site, epoch: meta.epoch };
            vector.claim(own, 1, tail.last_local, tail.last_local_token);
        }
        let mut claims = Vec::new();
        {
            let mut all = self.fixed("SELECT origin, lo, hi, token FROM main.crsql_claim ORDER BY origin, lo")?;
            while all.step()? {
                let origin = u32::try_from(all.column_int(0)).map_err(|e| corrupt("crsql_claim", e))?;
                claims.push((origin, all.column_int(1), all.column_int(2), all.column_int(3)));
            }
        }
        for (origin, lo, hi, token) in claims {
            let (origin, _) = self.origin_of(origin)?;
            let number = |n: i64| u64::try_from(n).map_err(|e| corrupt("crsql_claim", e));
            vector.claim(origin, number(lo)?, number(hi)?, number(token)? & TOKEN_MASK);
        }
        for (origin, version) in self.carried()? {
            let hash = self.carried_hash(origin, version)?;
            if hash == 0 && !self.is_aside(origin, version)? {
                // All of it has been overwritten: nothing is held that others could lack.
                continue;
            }
            let (origin, _) = self.origin_of(origin)?;
            vector.origins.entry(origin).or_default().carried.insert(version, hash);
        }
        Ok(vector)
    }

    /// The vector that ends an answer: what its receiver may claim, having merged all of it. Nothing, where the log speaks
    /// of tables that are not here any more, since the answer left them out (X3).
    pub fn answer_vector(&self) -> Result<Vector> {
        let left_out = self.int(
            "SELECT EXISTS(SELECT 1 FROM main.crsql_table AS t WHERE active <> 1 OR NOT EXISTS \
             (SELECT 1 FROM main.sqlite_master AS m WHERE m.type = 'table' AND m.name = t.name))",
        )?;
        if left_out != 0 {
            return Ok(Vector::default());
        }
        let mut vector = self.vector()?;
        self.leave_out_converted(&mut vector)?;
        Ok(vector)
    }

    fn carried(&self) -> Result<Vec<(u32, u64)>> {
        let mut all = self.fixed("SELECT origin, version FROM main.crsql_carried ORDER BY origin, version")?;
        let mut out = Vec::new();
        while all.step()? {
            let origin = u32::try_from(all.column_int(0)).map_err(|e| corrupt("crsql_carried", e))?;
            out.push((origin, all.column_int(1).cast_unsigned()));
        }
        Ok(out)
    }

    /// A hash of the live cells held of a dot: two nodes may carry different cells of one dot, and must not look equal; those
    /// that carry the same must, however they came by them.
    fn carried_hash(&self, origin: u32, version: u64) -> Result<u64> {
        let mut sum = 0u64;
        for record in self.records_of(origin, version)? {
            self.entries_of(&record, &mut |record, entry, key, columns| {
                if let Some(table) = self.table(entry.table.id)? {
                    let clock = self.get_clock(&table, key)?;
                    let mut add = |column: &str, version, cl| {
                        sum = sum.wrapping_add(hash_cell(&table.info.name, key, column, version, cl));
                    };
                    live_cells(record, entry, columns, &table, clock.as_ref(), &mut add);
                }
                Ok(true)
            })?;
        }
        Ok(sum)
    }

    /// Unions the claims of an answer that was merged to its end.
    pub fn claim_vector(&self, vector: &Vector) -> Result<()> {
        let meta = self.meta()?;
        for (origin, state) in &vector.origins {
            let own = origin.site == meta.site && origin.epoch == meta.epoch;
            let last_local = if own { self.tail()?.last_local } else { 0 };
            let ordinal = self.ordinal(origin)?;
            if let (Some(head), true) = (state.claimed.max(), self.is_forsaken(ordinal)?) {
                return Err(self.forked(ordinal, head));
            }
            for &(lo, hi) in state.claimed.ranges() {
                if own && hi <= last_local {
                    continue;
                }
                if own {
                    // Dots of ours that we do not know were lost here: never again under that epoch (S1). Whoever answered
                    // knew what we had when we asked, not what was written since; so they are claimed from the next answer,
                    // when nothing can be written between them any more.
                    self.new_epoch()?;
                    break;
                }
                let token = if Some(hi) == state.claimed.max() { state.head_token } else { 0 };
                self.claim(ordinal, lo, hi, token)?;
            }
        }
        Ok(())
    }
}

/// Calls `add(column, col_version, cl)` for every cell that still belongs to an entry, and for a row's life, which has the
/// column `'-1'`. What one replica logs as a row's base may be a mask beside another base elsewhere, so cells are told and
/// not entries; only a row that has no cells is told by its base.
fn live_cells(
    record: &Record,
    entry: &Entry,
    columns: &[u32],
    table: &Table,
    clock: Option<&RowClock>,
    add: &mut dyn FnMut(&str, u64, u64),
) {
    let cl = clock.map_or(1, |c| c.cl);
    if entry.kind == Kind::Mask {
        let Some(clock) = clock.filter(|c| c.is_alive()) else { return };
        for (id, seq) in columns.iter().zip(entry.seq..) {
            let column = table.info.position(*id).and_then(|p| table.info.columns.get(p));
            let cell = clock.cell(*id).filter(|c| record.is_at(&c.stamp, seq));
            if let (Some(cell), Some(column)) = (cell, column) {
                add(&column.name, cell.version, cl);
            }
        }
        return;
    }
    if record.is_life(entry, clock) {
        add("-1", 1, cl);
    }
    if !record.is_base(entry, clock) {
        return;
    }
    let mut has_cells = false;
    for column in table.info.columns.iter().filter(|c| c.born <= entry.table.generation) {
        match clock.and_then(|c| c.cell(column.id)) {
            Some(cell) => has_cells |= cell.version > 0,
            None => {
                has_cells = true;
                add(&column.name, clock.map_or(1, |c| c.base_version), cl);
            }
        }
    }
    if !has_cells {
        add("", 1, cl);
    }
}

fn hash_cell(table: &str, key: &[u8], column: &str, version: u64, cl: u64) -> u64 {
    let fields = [table.as_bytes(), key, column.as_bytes(), &version.to_le_bytes(), &cl.to_le_bytes()];
    fields.iter().fold(fnv::START, |h, field| {
        // Each with its length, so that no two lists of fields run together alike.
        fnv::feed(fnv::feed(h, &(field.len() as u32).to_le_bytes()), field)
    })
}
