//! Merging changesets: `starling_merge(part)`.
//!
//! One part is merged inside the open transaction; the dot is claimed with the last part of a claimable changeset, in the
//! same transaction. What cannot be merged here (an unknown table, a row that a constraint refuses) is kept aside and
//! served on to others; nothing is dropped.

use crate::affinity::canonical_key;
use crate::apply::MergedEntry;
use crate::aside::{NO_COLUMN, NO_TABLE};
use crate::catalog::Table;
use crate::log::{LogWriter, OpenRecord};
use crate::rows::is_the_rows;
use crate::schema::Affinity;
use crate::session::Session;
use crate::sqlite::{codes, Error, Result};
use starling_crdt::changeset::{self, DotHeader, Header, Item, PartReader, Row, RowKind, TableDef};
use starling_crdt::decide::{Incoming, IncomingCell, IncomingKind};
use starling_crdt::log_chunk::Kind;
use starling_crdt::record::flags;
use starling_crdt::row_clock::Stamp;
use starling_crdt::{DecodeError, Value};
use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

/// A table as a part names it, resolved here.
struct Known<'a> {
    def: TableDef<'a>,
    /// The CRR of that name, and for each of the sender's columns our column id.
    local: Option<(Rc<Table>, Vec<Option<u32>>)>,
    /// Any row of it has a clock.
    clocks: bool,
    /// The sender's columns are ours, in our order.
    same_columns: bool,
}

/// Where a part comes from.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Comes {
    /// From a peer.
    Anew,
    /// It was kept aside; its dot may be claimed already.
    Again,
    /// It was put together from parts that are kept aside, and is no other's to keep.
    Jointly,
}

/// An incoming cell in local terms: column id, col_version, stamp, value.
type LocalCell = (u32, u64, Stamp, Value);

struct Merge<'s, 'a> {
    session: &'s Session,
    comes: Comes,
    header: Header,
    dots: Vec<(u32, DotHeader)>,
    authors: Vec<u32>,
    tables: Vec<Known<'a>>,
    own: LogWriter<'s>,
    /// The record was begun by an earlier part.
    continued: bool,
    /// Entries of other dots, by dot index.
    others: BTreeMap<usize, Vec<(u32, MergedEntry, Vec<u8>)>>,
    changes: u64,
    all_won: bool,
    aside: Vec<(String, String)>,
    /// Rows that triggers of the user's have written since the journal was flushed, and how many of its touches were looked at.
    touched: BTreeSet<(u32, Vec<u8>)>,
    looked_at: usize,
    /// The table of the row before.
    merged_last: Option<u32>,
    /// The table of which it is noted that keys had to be converted.
    converted: Option<u32>,
}

fn malformed(e: DecodeError) -> Error {
    Error::new(codes::MISMATCH, format!("starling_merge: the changeset cannot be read: {e}"))
}

impl Session {
    /// Merges one part; returns the number of changes applied.
    ///
    /// # Errors
    /// Malformed bytes, a forked history, or what SQLite says; then nothing of the part is merged.
    pub fn merge_part(&self, bytes: &[u8]) -> Result<u64> {
        self.ensure_schema()?;
        self.resume_if_left()?;
        validate(bytes)?;
        let rowid = self.db.last_insert_rowid();
        let merge = || {
            self.join_transaction()?;
            self.refresh()?;
            // Local writes of this transaction come before what is merged now.
            self.flush()?;
            self.merge_valid_part(bytes, Comes::Anew)
        };
        let result = if self.db.is_autocommit() {
            self.atomically(merge)
        } else {
            // A savepoint would copy every page that the merge writes. What can fail here is the machine's doing (a full
            // disk, an I/O error); then the transaction can only be rolled back.
            merge().inspect_err(|_| self.poison())
        };
        self.db.set_last_insert_rowid(rowid);
        result
    }

    /// Merges once more a part that was kept aside.
    pub fn merge_aside(&self, bytes: &[u8]) -> Result<u64> {
        validate(bytes)?;
        self.merge_valid_part(bytes, Comes::Again)
    }

    /// Merges what several parts say together.
    pub fn merge_joint(&self, bytes: &[u8]) -> Result<u64> {
        validate(bytes)?;
        self.merge_valid_part(bytes, Comes::Jointly)
    }

    fn merge_valid_part(&self, bytes: &[u8], comes: Comes) -> Result<u64> {
        let again = comes != Comes::Anew;
        let mut reader = PartReader::new(bytes).map_err(malformed)?;
        let header = *reader.header();
        let origin = self.ordinal(&header.dot.dot.origin)?;
        let version = header.dot.dot.version;
        if !again {
            self.check_history(origin, &header)?;
            if self.is_claimed(origin, version)? {
                return Ok(0);
            }
            self.know_refused()?;
        }
        let in_order = !again && self.tx_mut().next_part(origin, version, header.part);
        let continued = match self.tx.borrow().foreign {
            Some(open) if open.origin == origin && open.header.dot == header.dot.dot && header.part > 0 => Some(open),
            _ => None,
        };
        let record = match continued {
            Some(open) => open,
            None => self.open_foreign(&header.dot, origin, if header.group { flags::GROUP } else { 0 })?,
        };
        let continued = continued.is_some();
        let mut merge = Merge {
            session: self,
            comes,
            header,
            dots: vec![(origin, header.dot)],
            authors: Vec::new(),
            tables: Vec::new(),
            own: LogWriter::new(self, record),
            continued,
            others: BTreeMap::new(),
            changes: 0,
            all_won: header.claimable && in_order,
            aside: Vec::new(),
            touched: BTreeSet::new(),
            looked_at: 0,
            merged_last: None,
            converted: None,
        };
        while let Some(item) = reader.next_item().map_err(malformed)? {
            match item {
                Item::Row(row) => {
                    merge.row(&row)?;
                    reader.recycle(row);
                }
                named => merge.name(named)?,
            }
        }
        let changes = merge.finish(bytes, in_order)?;
        // Between two parts of a changeset nothing else is merged.
        let mended = if again || !header.last { 0 } else { self.mend()? };
        Ok(changes + mended)
    }
}

/// Reads a part to its end, so that malformed bytes are refused before anything is merged.
fn validate(bytes: &[u8]) -> Result<()> {
    let mut reader = PartReader::new(bytes).map_err(malformed)?;
    let mut key_columns = Vec::new();
    while let Some(item) = reader.next_item().map_err(malformed)? {
        match item {
            Item::Table(def) => key_columns.push(def.key_columns),
            Item::Row(row) => {
                let n = key_columns.get(row.table).copied().unwrap_or(0);
                starling_crdt::key::columns(row.key, n).try_for_each(|c| c.map(drop)).map_err(malformed)?;
                reader.recycle(row);
            }
            Item::Dot(_) | Item::Author(_) => {}
        }
    }
    Ok(())
}

impl<'a> Merge<'_, 'a> {
    /// What rows name by number.
    fn name(&mut self, item: Item<'a>) -> Result<()> {
        match item {
            Item::Dot(header) => {
                let ordinal = self.session.ordinal(&header.dot.origin)?;
                self.dots.push((ordinal, header));
            }
            Item::Author(site) => self.authors.push(self.session.site_row(&site)?),
            Item::Table(def) => {
                let known = self.resolve(def)?;
                self.tables.push(known);
            }
            Item::Row(_) => {}
        }
        Ok(())
    }

    fn resolve(&self, def: TableDef<'a>) -> Result<Known<'a>> {
        let found = self.session.table_told(&def)?;
        let Some(table) = found else { return Ok(Known { def, local: None, clocks: false, same_columns: false }) };
        let mut ids: Vec<Option<u32>> = Vec::with_capacity(def.columns.len());
        for name in &def.columns {
            let position = self.session.column_meant(&table, name)?;
            ids.push(position.and_then(|p| table.column_ids.get(p)).copied());
        }
        let same_columns =
            ids.len() == table.column_ids.len() && ids.iter().zip(&table.column_ids).all(|(a, b)| *a == Some(*b));
        let clocks = self.session.any_clock(&table)?;
        Ok(Known { def, local: Some((table, ids)), clocks, same_columns })
    }

    fn stamp(&self, stamp: &changeset::Stamp) -> Stamp {
        let (origin, header) = self.dots.get(stamp.dot).copied().unwrap_or_default();
        let author = stamp.author.and_then(|i| self.authors.get(i)).copied().unwrap_or(0);
        Stamp { origin, version: header.dot.version, seq: stamp.seq, author }
    }

    fn row(&mut self, row: &Row<'a>) -> Result<()> {
        let Some(known) = self.tables.get(row.table) else { return Ok(()) };
        let Some((table, _)) = &known.local else {
            self.waits(known.def.name.to_string(), NO_TABLE.to_string());
            return Ok(());
        };
        let table = Rc::clone(table);
        let key = match canonical_key(self.session, &table, row.key)? {
            Ok(key) => key,
            Err(why) => {
                self.waits(table.info.name.clone(), why);
                return Ok(());
            }
        };
        if matches!(key, Cow::Owned(_)) && self.converted != Some(table.info.id) {
            let (origin, header) = self.dots.first().copied().unwrap_or_default();
            self.session.note_converted(table.info.id, origin, header.dot.version)?;
            // Who has the other key does not get from here what it would need.
            (self.converted, self.all_won) = (Some(table.info.id), false);
        }
        let key: &[u8] = &key;
        self.log_touches_of(&table, key)?;
        let Some(known) = self.tables.get(row.table) else { return Ok(()) };
        let Some((_, ids)) = &known.local else { return Ok(()) };
        let clocks = known.clocks;
        if let RowKind::Uniform { seq, values } = &row.kind {
            if known.same_columns && !clocks && !table.looks_older(key) && self.fresh_row(&table, key, values)? {
                let entry = Stamp { seq: *seq, ..self.stamp(&changeset::Stamp { dot: 0, author: None, seq: 0 }) };
                self.changes += table.column_ids.len().max(1) as u64;
                self.own.push(Kind::Base, table.info.log_ref(), key, entry.seq, &[])?;
                self.session.note_merged(table.info.id, key);
                return Ok(());
            }
        }
        let unknown = |i: usize| ids.get(i).is_none_or(Option::is_none);
        let (kind, cells) = self.incoming(&table, ids, row)?;
        if row_columns(row).any(unknown) {
            let none_known = row_columns(row).all(unknown);
            self.waits(known.def.name.to_string(), NO_COLUMN.to_string());
            if self.header.group && none_known {
                // Of nine values, which came one by one, nothing is told yet that could be shown.
                return Ok(());
            }
        }
        let incoming = Incoming { cl: row.cl, kind, cells: cells.iter().map(as_incoming).collect() };
        match self.session.merge_row(&table, key, &incoming, clocks) {
            Ok(applied) => {
                self.changes += applied.changes;
                if applied.changes > 0 {
                    self.session.note_merged(table.info.id, key);
                }
                self.all_won &= applied.all_won;
                if !applied.entries.is_empty() {
                    if let Some(known) = self.tables.get_mut(row.table) {
                        known.clocks = true;
                    }
                }
                self.log(&table, key, applied.entries)
            }
            Err(e) if is_the_rows(&e) && self.still_open() => {
                self.waits(table.info.name.clone(), e.message);
                Ok(())
            }
            Err(e) => Err(e),
        }
    }

    /// A row of the part cannot be merged yet.
    fn waits(&mut self, table: String, why: String) {
        self.aside.push((table, why));
        self.all_won = false;
    }

    /// What a user's trigger did to this very row while rows before it were merged comes before what is merged now: the clock
    /// must tell of it, since the table does already. Then the record is begun anew behind it, and is not whole.
    fn log_touches_of(&mut self, table: &Table, key: &[u8]) -> Result<()> {
        let session = self.session;
        if self.merged_last != Some(table.info.id) {
            // Triggers of the tables before may have left something in its inbox; its own are looked after row by row.
            session.before_own_write(table)?;
            self.merged_last = Some(table.info.id);
        }
        if session.journal.borrow().is_empty() {
            return Ok(());
        }
        let touched = &mut self.touched;
        self.looked_at = session.journal.borrow().each_from(self.looked_at, |table, key| {
            touched.insert((table, key.to_vec()));
        });
        if !touched.contains(&(table.info.id, key.to_vec())) {
            return Ok(());
        }
        let record = self.own.record;
        let mut own = std::mem::replace(&mut self.own, LogWriter::new(session, record));
        own.record.flags &= !flags::WHOLE;
        let origin = own.record.origin;
        own.finish_if_any()?;
        write_others(session, &self.dots, std::mem::take(&mut self.others))?;
        session.flush_journal()?;
        (self.touched, self.looked_at) = (BTreeSet::new(), 0);
        let group = if self.header.group { flags::GROUP } else { 0 };
        self.own = LogWriter::new(session, session.open_foreign(&self.header.dot, origin, group)?);
        self.all_won = false;
        self.tables.iter_mut().for_each(|known| known.clocks = true);
        Ok(())
    }

    /// RAISE(ROLLBACK), a full disk and the like end the whole transaction: then nothing may go on (E6).
    fn still_open(&self) -> bool {
        !self.session.db.is_autocommit()
    }

    /// Inserts a row that never existed here; `false` if its key is taken or a constraint refuses it.
    fn fresh_row(&self, table: &Table, key: &[u8], values: &[starling_crdt::value::Encoded<'_>]) -> Result<bool> {
        match self.session.insert_fresh(table, key, values) {
            Err(e) if is_the_rows(&e) && self.still_open() => Ok(false),
            other => other,
        }
    }

    /// The entry in local ordinals, values under the local columns' affinity.
    fn incoming(&self, table: &Table, ids: &[Option<u32>], row: &Row<'_>) -> Result<(IncomingKind, Vec<LocalCell>)> {
        let affine = |id: u32, value: starling_crdt::ValueRef<'_>| -> Result<Value> {
            let affinity = table.info.position(id).and_then(|p| table.info.columns.get(p)).map(|c| c.affinity);
            self.session.stored_as(value, affinity.unwrap_or(Affinity::None))
        };
        let map = |cells: &[changeset::Cell<'_>]| -> Result<Vec<LocalCell>> {
            cells
                .iter()
                .filter_map(|c| {
                    let id = (*ids.get(c.column)?)?;
                    Some(affine(id, c.value.value()).map(|v| (id, c.version, self.stamp(&c.stamp), v)))
                })
                .collect()
        };
        Ok(match &row.kind {
            RowKind::Uniform { seq, values } => {
                let own = self.stamp(&changeset::Stamp { dot: 0, author: None, seq: *seq });
                let cells = values.iter().enumerate().filter_map(|(i, v)| {
                    let id = (*ids.get(i)?)?;
                    Some(affine(id, v.value()).map(|v| (id, 1, Stamp { seq: seq + i as u64, ..own }, v)))
                });
                (IncomingKind::Base { life: own, sentinel: None }, cells.collect::<Result<_>>()?)
            }
            RowKind::Base { sentinel, life, cells } => (
                IncomingKind::Base { life: self.stamp(life), sentinel: sentinel.as_ref().map(|s| self.stamp(s)) },
                map(cells)?,
            ),
            RowKind::Cells { born, life, cells } => {
                let known = map(cells)?;
                // Of a later lifetime of which only unknown columns have come, the first of them stands for the '-1' row, as it
                // does where they are known: else the log would not name that lifetime.
                let unknown = cells.first().filter(|_| row.cl > 1 && known.is_empty()).map(|c| &c.stamp);
                let life = life.as_ref().or(unknown).map(|l| self.stamp(l));
                (IncomingKind::Cells { born: *born, life }, known)
            }
            RowKind::Tombstone { life } => (IncomingKind::Tombstone { life: self.stamp(life) }, Vec::new()),
        })
    }

    /// Logs each entry under its own dot, whichever changeset brought it (E1).
    fn log(&mut self, table: &Table, key: &[u8], entries: Vec<MergedEntry>) -> Result<()> {
        for entry in entries {
            let index = self
                .dots
                .iter()
                .position(|(origin, header)| *origin == entry.stamp.origin && header.dot.version == entry.stamp.version)
                .unwrap_or(0);
            if index == 0 {
                self.own.push(entry.kind, table.info.log_ref(), key, entry.stamp.seq, &entry.columns)?;
            } else {
                self.all_won = false;
                self.others.entry(index).or_default().push((table.info.id, entry, key.to_vec()));
            }
        }
        Ok(())
    }

    fn finish(mut self, bytes: &[u8], in_order: bool) -> Result<u64> {
        let session = self.session;
        let (origin, version) = (self.own.record.origin, self.header.dot.dot.version);
        if !self.aside.is_empty() && self.comes != Comes::Jointly {
            session.keep_aside(&self.header, &self.aside, bytes)?;
        }
        // A record is whole only when all parts are in it, in one transaction: until the last one it says nothing.
        let continues = self.header.part == 0 || self.continued;
        let whole = session.tx_mut().parts_stay_whole(self.all_won && continues);
        self.own.record.flags &= !flags::WHOLE;
        if whole && self.header.last {
            self.own.record.flags |= flags::WHOLE;
        }
        let (others, dots) = (std::mem::take(&mut self.others), std::mem::take(&mut self.dots));
        let record = self.own.finish_if_any()?;
        if record.is_none() && self.header.claimable && self.header.last {
            // Nothing of it lives here: its token is kept all the same, it tells a dot that is used twice.
            session.keep_token(origin, version, self.header.dot.token)?;
            session.keep_token_before(origin, &self.header.dot)?;
        }
        session.tx_mut().foreign = record;
        write_others(session, &dots, others)?;
        if self.header.claimable && in_order && self.header.last {
            session.claim(origin, self.header.dot.prev + 1, version, self.header.dot.token)?;
        } else if !session.is_claimed(origin, version)? {
            session.carry(origin, version)?;
        }
        session.tx_mut().rows_impacted += self.changes.cast_signed();
        Ok(self.changes)
    }
}

fn as_incoming((column, version, stamp, value): &LocalCell) -> IncomingCell<'_> {
    IncomingCell { column: *column, version: *version, stamp: *stamp, value: value.as_ref() }
}

/// Logs what the part brought of other dots.
fn write_others(
    session: &Session,
    dots: &[(u32, DotHeader)],
    others: BTreeMap<usize, Vec<(u32, MergedEntry, Vec<u8>)>>,
) -> Result<()> {
    for (index, entries) in others {
        let Some((ordinal, header)) = dots.get(index).copied() else { continue };
        write_carried(session, ordinal, &header, entries)?;
    }
    Ok(())
}

fn write_carried(
    session: &Session,
    ordinal: u32,
    header: &DotHeader,
    mut entries: Vec<(u32, MergedEntry, Vec<u8>)>,
) -> Result<()> {
    entries.sort_by_key(|(_, e, _)| e.stamp.seq);
    let record: OpenRecord = session.open_foreign(header, ordinal, 0)?;
    let mut writer = LogWriter::new(session, record);
    for (table, entry, key) in &entries {
        let Some(table) = session.table(*table)? else { continue };
        writer.push(entry.kind, table.info.log_ref(), key, entry.stamp.seq, &entry.columns)?;
    }
    writer.finish()?;
    session.carry(ordinal, header.dot.version)
}

/// Column indices that a row entry names.
fn row_columns<'r>(row: &'r Row<'_>) -> Box<dyn Iterator<Item = usize> + 'r> {
    match &row.kind {
        RowKind::Uniform { values, .. } => Box::new(0..values.len()),
        RowKind::Base { cells, .. } | RowKind::Cells { cells, .. } => Box::new(cells.iter().map(|c| c.column)),
        RowKind::Tombstone { .. } => Box::new(std::iter::empty()),
    }
}
