//! Encoding changesets out of the log: `starling_changesets`.
//!
//! A record that is whole (it names all that its dot wrote) makes a changeset that may be claimed: for every cell that it
//! names, the present winner is sent, with its own dot. Of any other record only what still lives is sent.

use crate::catalog::Table;
use crate::records::Record;
use crate::session::{corrupt, Session, Sql};
use crate::sqlite::Result;
use starling_crdt::changeset::{self, DotHeader, Header, PartWriter, PART_TARGET};
use starling_crdt::log_chunk::{ChunkReader, Entry, Kind};
use starling_crdt::record::flags;
use starling_crdt::row_clock::{RowClock, Stamp};
use std::collections::BTreeMap;
use std::rc::Rc;

/// Encodes one record, part by part.
pub struct RecordEncoder {
    record: Record,
    header: DotHeader,
    at: Position,
    part: u64,
    /// Entries of a table that is not here (any more) were left out.
    left_out: bool,
    done: bool,
}

/// How far a record was encoded.
#[derive(Clone, Copy, Default)]
struct Position {
    /// Next chunk; 0 is the one in the record itself.
    chunk: u64,
    /// Entries of that chunk that went into the parts before.
    entry: usize,
    /// Its size then.
    size: usize,
}

struct Part<'s> {
    session: &'s Session,
    record: &'s Record,
    header: &'s DotHeader,
    covering: bool,
    writer: PartWriter,
    dots: BTreeMap<(u32, u64), usize>,
    authors: BTreeMap<u32, usize>,
    tables: BTreeMap<u32, Option<(usize, Rc<Table>, bool)>>,
    left_out: bool,
}

impl RecordEncoder {
    /// Starts with a record.
    pub fn new(session: &Session, record: Record) -> Result<Self> {
        let header = record.header(session)?;
        Ok(Self { record, header, at: Position::default(), part: 0, left_out: false, done: false })
    }

    /// The record.
    pub fn record(&self) -> &Record {
        &self.record
    }

    /// The dot's header.
    pub fn header(&self) -> &DotHeader {
        &self.header
    }

    /// Whether the changeset may be claimed.
    pub fn claimable(&self) -> bool {
        self.record.head.flags & flags::WHOLE != 0 && !self.left_out
    }

    /// Between two parts the connection itself may have written, and a sweep have dropped some of the record, which then makes
    /// no changeset that may be claimed, or moved what is left of it together.
    fn keep_up(&mut self, session: &Session) -> Result<()> {
        let same =
            |now: &Record| now.head.chunks == self.record.head.chunks && now.head.flags == self.record.head.flags;
        match session.record_at(self.record.db_version)? {
            Some(now) if same(&now) => {}
            Some(now) => {
                self.left_out = true;
                if now.head.chunks != self.record.head.chunks {
                    self.at = Position::default();
                }
                self.record = now;
            }
            None => {
                self.left_out = true;
                self.at.chunk = self.record.head.chunks + 1;
            }
        }
        Ok(())
    }

    /// The next part and whether it is the last; `None` after that.
    pub fn next_part(&mut self, session: &Session) -> Result<Option<(Vec<u8>, bool)>> {
        if self.done {
            return Ok(None);
        }
        if self.part > 0 {
            self.keep_up(session)?;
        }
        let header = Header {
            dot: self.header,
            claimable: self.claimable(),
            last: false,
            group: self.record.head.flags & flags::GROUP != 0,
            part: self.part,
        };
        let mut part = Part {
            session,
            record: &self.record,
            header: &self.header,
            covering: header.claimable,
            writer: PartWriter::new(&header),
            dots: BTreeMap::from([((self.record.head.origin, self.record.version), 0)]),
            authors: BTreeMap::new(),
            tables: BTreeMap::new(),
            left_out: false,
        };
        while self.at.chunk <= self.record.head.chunks && part.writer.size() < PART_TARGET {
            part.fill(&mut self.at)?;
        }
        let last = self.at.chunk > self.record.head.chunks;
        self.done = last;
        self.part += 1;
        self.left_out |= part.left_out;
        if self.left_out {
            // Whoever claimed it would never ask for what this database cannot give (X3).
            part.writer.not_claimable();
        }
        Ok(Some((part.writer.finish(last), last)))
    }
}

impl Part<'_> {
    /// Encodes the next chunk, or as much of it as the part has room for: rows may be large.
    fn fill(&mut self, at: &mut Position) -> Result<()> {
        let bytes = self.record.chunk(self.session, at.chunk)?;
        if at.size != bytes.len() {
            // The first entry, or something of the chunk was dropped since: what it holds may come twice.
            *at = Position { chunk: at.chunk, entry: 0, size: bytes.len() };
        }
        let mut reader = ChunkReader::new(&bytes).map_err(|e| corrupt("a log chunk", e))?;
        let mut n = 0;
        while let Some(entry) = reader.next_entry().map_err(|e| corrupt("a log chunk", e))? {
            n += 1;
            if n <= at.entry {
                continue;
            }
            if self.writer.size() >= PART_TARGET {
                return Ok(());
            }
            self.entry(&entry, reader.key(), reader.columns())?;
            at.entry = n;
        }
        *at = Position { chunk: at.chunk + 1, ..Position::default() };
        Ok(())
    }

    fn entry(&mut self, entry: &Entry, key: &[u8], columns: &[u32]) -> Result<()> {
        let Some((index, table, clocks)) = self.table(entry.table.id)? else {
            self.left_out = true;
            return Ok(());
        };
        let clock = if clocks { self.session.get_clock(&table, key)? } else { None };
        let live_base = self.record.is_base(entry, clock.as_ref());
        match (entry.kind, clock) {
            (Kind::Base | Kind::Rebase, None) if live_base => self.pristine(index, &table, entry, key),
            (Kind::Base | Kind::Rebase, Some(clock)) if live_base => {
                self.whole_row(index, &table, key, &clock, (self.record.stamp(entry.seq), Some(*entry)))
            }
            (Kind::Mask, Some(clock)) if clock.is_alive() => self.mask(index, &table, entry, key, columns, &clock),
            (Kind::Sentinel, Some(clock)) if clock.cl == 1 && self.record.is_life(entry, Some(&clock)) => {
                self.life_only(index, key, &clock)
            }
            (Kind::Tombstone | Kind::Sentinel, Some(clock)) if self.record.is_life(entry, Some(&clock)) => {
                self.present_state(index, &table, key, &clock)
            }
            (_, Some(clock)) if self.covering => self.present_state(index, &table, key, &clock),
            _ => Ok(()),
        }
    }

    fn table(&mut self, id: u32) -> Result<Option<(usize, Rc<Table>, bool)>> {
        if !self.tables.contains_key(&id) {
            let known = match self.session.table(id)? {
                Some(table) if !table.has_same_key(self.session)? => None,
                Some(table) => {
                    let clocks = self.session.any_clock(&table)?;
                    let names: Vec<&str> = table.info.columns.iter().map(|c| c.name.as_str()).collect();
                    let index = self.writer.table(&table.info.name, table.info.keys.len(), names.into_iter());
                    Some((index, table, clocks))
                }
                None => None,
            };
            self.tables.insert(id, known);
        }
        Ok(self.tables.get(&id).cloned().flatten())
    }

    /// A row without a clock: values straight from the table into the part.
    fn pristine(&mut self, index: usize, table: &Rc<Table>, entry: &Entry, key: &[u8]) -> Result<()> {
        if !table.is_as_in(entry.table.generation) {
            let mut clock = RowClock::pristine();
            table.list_born_after(entry.table.generation, &mut clock);
            return self.whole_row(index, table, key, &clock, (self.record.stamp(entry.seq), Some(*entry)));
        }
        let mut row = self.session.of_table(Sql::SelectRow, table)?;
        crate::rows::bind_key(&mut row, table, key)?;
        if !row.step()? {
            return Ok(());
        }
        self.writer.uniform(index, key, entry.seq);
        for i in 0..table.info.columns.len() {
            self.writer.value(row.column(i));
        }
        Ok(())
    }

    /// The row whole, each cell with its own version and dot (X4). `base` is the base's stamp and its entry, which is
    /// looked up where it is not at hand.
    fn whole_row(
        &mut self,
        index: usize,
        table: &Table,
        key: &[u8],
        clock: &RowClock,
        (base, entry): (Stamp, Option<Entry>),
    ) -> Result<()> {
        let session = self.session;
        let values = session.row_of_clock(table, key, clock);
        let base = clock.life.unwrap_or(base);
        let entry = match entry {
            Some(entry) => entry,
            None => session.base_entry(table, key, clock, &base)?,
        };
        let life = self.stamp(&base)?;
        let sentinel = clock.sentinel().map(|s| self.stamp(&s)).transpose()?;
        let mut cells = Vec::new();
        for (position, column) in table.info.columns.iter().enumerate() {
            let version = clock.version_of(column.id);
            let stamp = match clock.cell(column.id) {
                Some(cell) => cell.stamp,
                None => Stamp { seq: table.base_seq(&entry, position), ..base },
            };
            if version > 0 {
                cells.push((position, version, self.stamp(&stamp)?));
            }
        }
        self.writer.base(index, key, clock.cl, sentinel, life, cells.len());
        for (position, version, stamp) in cells {
            self.writer.cell(position, version, stamp, values.value_at(position));
        }
        values.check()
    }

    fn mask(
        &mut self,
        index: usize,
        table: &Table,
        entry: &Entry,
        key: &[u8],
        columns: &[u32],
        clock: &RowClock,
    ) -> Result<()> {
        let live: Vec<u32> = columns
            .iter()
            .enumerate()
            .filter(|(i, id)| clock.cell(**id).is_some_and(|c| self.record.is_at(&c.stamp, entry.seq + *i as u64)))
            .map(|(_, id)| *id)
            .collect();
        if live.len() == columns.len() || !self.covering {
            return self.cells(index, table, key, clock, &live);
        }
        // In the first lifetime the named cells' winners cover; in a later one the row may be another altogether.
        if clock.cl == 1 && columns.iter().all(|id| clock.cell(*id).is_some() || table.info.position(*id).is_none()) {
            self.cells(index, table, key, clock, columns)
        } else {
            self.present_state(index, table, key, clock)
        }
    }

    /// The named cells as they are now.
    fn cells(&mut self, index: usize, table: &Table, key: &[u8], clock: &RowClock, ids: &[u32]) -> Result<()> {
        let session = self.session;
        let mut cells = Vec::new();
        for id in ids {
            if let (Some(cell), Some(position)) = (clock.cell(*id), table.info.position(*id)) {
                cells.push((position, cell.version, self.stamp(&cell.stamp)?));
            }
        }
        if cells.is_empty() {
            return Ok(());
        }
        let values = session.row_of_clock(table, key, clock);
        let life = match (clock.based, clock.sentinel()) {
            (false, Some(life)) => Some(self.stamp(&life)?),
            _ => None,
        };
        // A row that has a base is shown where its base has arrived, not before.
        self.writer.cells(index, key, clock.cl, clock.born && !clock.based, life, cells.len());
        for (position, version, stamp) in cells {
            self.writer.cell(position, version, stamp, values.value_at(position));
        }
        values.check()
    }

    /// All that is known of a row now: the tombstone, the row whole, or its cells where it has no base.
    fn present_state(&mut self, index: usize, table: &Table, key: &[u8], clock: &RowClock) -> Result<()> {
        if !clock.is_alive() {
            let life = clock.life.ok_or_else(|| corrupt("a row clock", "a deleted row does not name its delete"))?;
            let life = self.stamp(&life)?;
            self.writer.tombstone(index, key, clock.cl, life);
            return Ok(());
        }
        match clock.life {
            Some(life) if clock.based => self.whole_row(index, table, key, clock, (life, None)),
            _ => {
                let ids: Vec<u32> = clock.cells.iter().filter(|c| c.version > 0).map(|c| c.column).collect();
                if ids.is_empty() {
                    self.life_only(index, key, clock)
                } else {
                    self.cells(index, table, key, clock, &ids)
                }
            }
        }
    }

    fn life_only(&mut self, index: usize, key: &[u8], clock: &RowClock) -> Result<()> {
        let Some(life) = clock.sentinel() else { return Ok(()) };
        let life = self.stamp(&life)?;
        self.writer.cells(index, key, clock.cl, clock.born && !clock.based, Some(life), 0);
        Ok(())
    }

    /// A stamp as the part names it; dots and authors are defined at their first use.
    fn stamp(&mut self, stamp: &Stamp) -> Result<changeset::Stamp> {
        let dot = match self.dots.get(&(stamp.origin, stamp.version)) {
            Some(index) => *index,
            None => {
                let header = self.session.dot_header(stamp.origin, stamp.version, self.header)?;
                let index = self.writer.dot(&header);
                self.dots.insert((stamp.origin, stamp.version), index);
                index
            }
        };
        let author = match stamp.author {
            0 => None,
            row => Some(match self.authors.get(&row) {
                Some(index) => *index,
                None => {
                    let index = self.writer.author(&self.session.site_of_row(row)?);
                    self.authors.insert(row, index);
                    index
                }
            }),
        };
        Ok(changeset::Stamp { dot, author, seq: stamp.seq })
    }
}

impl Session {
    /// The log entry of a row's base. Of a table whose columns never changed, all are alike.
    fn base_entry(&self, table: &Table, key: &[u8], clock: &RowClock, base: &Stamp) -> Result<Entry> {
        let kind = if clock.base_has_sentinel(base) { Kind::Rebase } else { Kind::Base };
        let mut found = Entry { kind, table: table.info.log_ref(), seq: base.seq };
        if table.info.generation > 1 {
            for record in self.records_of(base.origin, base.version)? {
                self.entries_of(&record, &mut |record, entry, at, _| {
                    let is_base = matches!(entry.kind, Kind::Base | Kind::Rebase)
                        && entry.table.id == table.info.id
                        && at == key
                        && record.is_at(base, entry.seq);
                    if is_base {
                        found = *entry;
                    }
                    Ok(!is_base)
                })?;
            }
        }
        Ok(found)
    }

    /// The header of a dot: from one of its records, or as much of it as is known.
    fn dot_header(&self, origin: u32, version: u64, fallback: &DotHeader) -> Result<DotHeader> {
        if let Some(record) = self.records_of(origin, version)?.first() {
            return record.header(self);
        }
        let (origin, _) = self.origin_of(origin)?;
        Ok(DotHeader {
            dot: starling_crdt::Dot { origin, version },
            token: 0,
            prev: 0,
            prev_token: 0,
            commit_ms: fallback.commit_ms,
        })
    }
}
