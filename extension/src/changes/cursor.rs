//! Scanning `crsql_changes`: record by record, entry by entry, cell by cell.

use super::plan::{self, Plan};
use super::{column, rowid_of, ChangesTable};
use crate::catalog::Table;
use crate::records::Record;
use crate::session::{corrupt, Session};
use crate::sites::ShownSite;
use crate::sqlite::{Args, ColumnOut, Result, VTabCursor};
use starling_crdt::key;
use starling_crdt::log_chunk::{ChunkReader, Entry, Kind};
use starling_crdt::record::flags;
use starling_crdt::row_clock::{RowClock, Stamp};
use starling_crdt::Value;
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;

/// One row of the result.
struct Row {
    table: Rc<Table>,
    key: Rc<[u8]>,
    /// Position of the column; `None` for a `'-1'` row.
    cell: Option<usize>,
    value: Value,
    col_version: u64,
    cl: u64,
    seq: u64,
    site: ShownSite,
}

/// An entry of the chunk that is read, with what is known of its row.
struct Met {
    entry: Entry,
    table: Rc<Table>,
    key: Rc<[u8]>,
    /// The columns that a mask names.
    columns: Vec<u32>,
    clock: Option<RowClock>,
    /// What the row holds, where its base alone tells.
    values: Option<Vec<Value>>,
}

impl Met {
    /// Whether it is the base of a row without a clock.
    fn is_pristine(&self) -> bool {
        self.clock.is_none() && self.entry.kind == Kind::Base
    }
}

/// A scan.
#[derive(Default)]
pub struct ChangesCursor {
    plan: Option<Plan>,
    record: Option<Record>,
    /// Whose dot the record is, and the ordinal that says so.
    site: ShownSite,
    origin: u32,
    next_chunk: u64,
    /// The seq of the entry read last.
    passed: u64,
    rows: VecDeque<Row>,
    tables: BTreeMap<u32, Option<(Rc<Table>, bool)>>,
    /// How many rows of the record came before.
    place: u64,
    done: bool,
}

impl VTabCursor for ChangesCursor {
    type Table = ChangesTable;

    fn filter(&mut self, table: &ChangesTable, _: i32, codes: &str, args: &Args<'_>) -> Result<()> {
        *self = Self { plan: Some(plan::read(codes, args)), ..Self::default() };
        let session = &table.session;
        if !session.has_schema()? || self.plan.as_ref().is_some_and(|p| p.nothing) {
            self.done = true;
            return Ok(());
        }
        // A transaction sees its own changes.
        session.flush()?;
        session.drain_to_read()?;
        session.refresh()?;
        self.fill(session)
    }

    fn next(&mut self, table: &ChangesTable) -> Result<()> {
        self.rows.pop_front();
        self.place += 1;
        self.fill(&table.session)
    }

    fn eof(&self) -> bool {
        self.done
    }

    fn column(&self, _: &ChangesTable, i: usize, out: &mut ColumnOut<'_>) -> Result<()> {
        let (Some(row), Some(record)) = (self.rows.front(), self.record.as_ref()) else { return Ok(()) };
        match i {
            column::TABLE => out.set_text(&row.table.info.name),
            column::PK => {
                let columns = key::decode(&row.key, row.table.info.keys.len()).map_err(|e| corrupt("a key", e))?;
                let packed = key::pack(columns.iter().map(|c| c.value())).map_err(|e| corrupt("a key", e))?;
                out.set_blob(packed);
            }
            column::CID => {
                let name = row.cell.and_then(|p| row.table.info.columns.get(p)).map_or("-1", |c| &c.name);
                out.set_text(name);
            }
            column::VAL => out.set_value(row.value.as_ref()),
            column::COL_VERSION => out.set_int(row.col_version.cast_signed()),
            column::DB_VERSION => out.set_int(record.db_version.cast_signed()),
            column::SITE_ID => out.set_blob(row.site.as_slice()),
            column::CL => out.set_int(row.cl.cast_signed()),
            column::SEQ => out.set_int(row.seq.cast_signed()),
            column::ORIGIN_VERSION => out.set_int(record.version.cast_signed()),
            column::COMMIT_MS => out.set_int(i64::try_from(record.head.commit_ms).unwrap_or(i64::MAX)),
            _ => out.set_null(),
        }
        Ok(())
    }

    fn rowid(&self) -> i64 {
        rowid_of(self.record.as_ref().map_or(0, |r| r.db_version), self.place)
    }
}

impl ChangesCursor {
    /// Reads on until there is a row, or nothing more.
    fn fill(&mut self, session: &Session) -> Result<()> {
        while self.rows.is_empty() && !self.done {
            let more = self.record.as_ref().is_some_and(|r| self.next_chunk <= r.head.chunks);
            if more {
                self.read_chunks(session)?;
            } else {
                self.next_record(session)?;
            }
        }
        Ok(())
    }

    fn next_record(&mut self, session: &Session) -> Result<()> {
        let Some(plan) = &self.plan else { return Ok(()) };
        let last = self.record.as_ref().map(|r| r.db_version);
        let next = if plan.newest_first {
            session.record_before(last.unwrap_or(plan.hi.saturating_add(1)))?
        } else {
            session.record_after(last.unwrap_or(plan.lo.saturating_sub(1)))?
        };
        let Some(record) = next.filter(|r| (plan.lo..=plan.hi).contains(&r.db_version)) else {
            self.done = true;
            return Ok(());
        };
        if self.record.is_none() || self.origin != record.head.origin {
            self.site = session.shown_site(session.origin_of(record.head.origin)?.1)?;
            self.origin = record.head.origin;
        }
        let mixed = record.head.flags & flags::GROUP != 0;
        let skip = match &plan.site {
            Some((wanted, site)) if !mixed => (self.site.as_slice() == site.as_slice()) != *wanted,
            _ => false,
        };
        self.next_chunk = if skip { record.head.chunks + 1 } else { 0 };
        self.passed = 0;
        self.place = 0;
        self.record = Some(record);
        Ok(())
    }

    /// Between two steps the connection itself may have written, and a sweep have moved what is left of the record together,
    /// or dropped it. Then it is read once more, from the entry on that was read last.
    fn keep_up(&mut self, session: &Session) -> Result<()> {
        let Some(record) = self.record.as_mut().filter(|_| self.next_chunk > 0) else { return Ok(()) };
        match session.record_at(record.db_version)? {
            Some(now) if now.head.chunks == record.head.chunks => {}
            Some(now) => (*record, self.next_chunk) = (now, 0),
            None => self.next_chunk = record.head.chunks + 1,
        }
        Ok(())
    }

    fn read_chunks(&mut self, session: &Session) -> Result<()> {
        self.keep_up(session)?;
        let Some(record) = self.record.clone().filter(|r| self.next_chunk <= r.head.chunks) else { return Ok(()) };
        let unsorted = record.head.flags & flags::UNSORTED != 0;
        loop {
            let bytes = record.chunk(session, self.next_chunk)?;
            self.next_chunk += 1;
            let mut reader = ChunkReader::new(&bytes).map_err(|e| corrupt("a log chunk", e))?;
            let mut all = Vec::new();
            while let Some(entry) = reader.next_entry().map_err(|e| corrupt("a log chunk", e))? {
                if entry.seq >= self.passed || unsorted {
                    all.extend(self.meet(session, entry, reader.key(), reader.columns())?);
                    self.passed = entry.seq;
                }
            }
            read_pristine(session, &mut all)?;
            for met in all {
                self.entry(session, &record, met)?;
            }
            if !unsorted || self.next_chunk > record.head.chunks {
                break;
            }
        }
        if unsorted {
            self.rows.make_contiguous().sort_by_key(|r| r.seq);
        }
        Ok(())
    }

    fn table(&mut self, session: &Session, id: u32) -> Result<Option<(Rc<Table>, bool)>> {
        if let Some(known) = self.tables.get(&id) {
            return Ok(known.clone());
        }
        let known = match session.table(id)? {
            // Until somebody has looked after a table that was made anew with another key, nothing is told of it.
            Some(table) if !table.has_same_key(session)? => None,
            Some(table) => {
                let clocks = session.any_clock(&table)?;
                Some((table, clocks))
            }
            None => None,
        };
        self.tables.insert(id, known.clone());
        Ok(known)
    }

    fn meet(&mut self, session: &Session, entry: Entry, key: &[u8], columns: &[u32]) -> Result<Option<Met>> {
        let Some((table, clocks)) = self.table(session, entry.table.id)? else { return Ok(None) };
        let clock = if clocks { session.get_clock(&table, key)? } else { None };
        Ok(Some(Met { entry, table, key: Rc::from(key), columns: columns.to_vec(), clock, values: None }))
    }

    fn entry(&mut self, session: &Session, record: &Record, met: Met) -> Result<()> {
        let Met { ref entry, table, key, columns, clock, values } = met;
        if entry.kind == Kind::Rebase && record.is_life(entry, clock.as_ref()) {
            let author = clock.as_ref().and_then(RowClock::sentinel).map_or(0, |s| s.author);
            let cl = clock.as_ref().map_or(1, |c| c.cl);
            self.life(session, &table, &key, cl, entry.seq, author)?;
        }
        match entry.kind {
            Kind::Base | Kind::Rebase if record.is_base(entry, clock.as_ref()) => {
                self.base(session, (&table, &key, values), entry, clock.as_ref())
            }
            Kind::Mask => match clock {
                Some(clock) if clock.is_alive() => self.mask(session, record, &table, &key, entry, &columns, &clock),
                _ => Ok(()),
            },
            Kind::Tombstone | Kind::Sentinel if record.is_life(entry, clock.as_ref()) => {
                let Some(clock) = clock else { return Ok(()) };
                let author = clock.sentinel().map_or(0, |s| s.author);
                self.life(session, &table, &key, clock.cl, entry.seq, author)
            }
            _ => Ok(()),
        }
    }

    fn life(
        &mut self,
        session: &Session,
        table: &Rc<Table>,
        key: &Rc<[u8]>,
        cl: u64,
        seq: u64,
        author: u32,
    ) -> Result<()> {
        let site = self.author(session, author)?;
        self.rows.push_back(Row {
            table: Rc::clone(table),
            key: Rc::clone(key),
            cell: None,
            value: Value::Null,
            col_version: cl,
            cl,
            seq,
            site,
        });
        Ok(())
    }

    fn author(&self, session: &Session, author: u32) -> Result<ShownSite> {
        if author == 0 {
            Ok(self.site)
        } else {
            session.shown_site(author)
        }
    }

    fn base(
        &mut self,
        session: &Session,
        (table, key, values): (&Rc<Table>, &Rc<[u8]>, Option<Vec<Value>>),
        entry: &Entry,
        clock: Option<&RowClock>,
    ) -> Result<()> {
        let values = match clock {
            None => values,
            Some(clock) => Some(session.row_of_clock(table, key, clock).into_values()?),
        };
        // Written without triggers: there is no such row.
        let Some(mut values) = values else { return Ok(()) };
        let cl = clock.map_or(1, |c| c.cl);
        let author = clock.and_then(|c| c.life.as_ref()).map_or(0, |l| l.author);
        // Of a row without any cell that it could be told by, the base says that it is there.
        let told = table.info.columns.iter().any(|c| match clock {
            None => c.born <= entry.table.generation,
            Some(clock) => clock.version_of(c.id) > 0,
        });
        if entry.kind == Kind::Base && !told && clock.is_none_or(|c| c.sentinel().is_none()) {
            self.life(session, table, key, cl, entry.seq, author)?;
        }
        let base_version = clock.map_or(1, |c| c.base_version);
        if base_version == 0 {
            return Ok(());
        }
        let site = self.author(session, author)?;
        for (position, column) in table.info.columns.iter().enumerate() {
            let listed = clock.is_some_and(|c| c.cell(column.id).is_some());
            if listed || column.born > entry.table.generation {
                continue;
            }
            self.rows.push_back(Row {
                table: Rc::clone(table),
                key: Rc::clone(key),
                cell: Some(position),
                value: values.get_mut(position).map_or(Value::Null, |v| std::mem::replace(v, Value::Null)),
                col_version: base_version,
                cl,
                seq: table.base_seq(entry, position),
                site,
            });
        }
        Ok(())
    }

    #[allow(clippy::too_many_arguments)]
    fn mask(
        &mut self,
        session: &Session,
        record: &Record,
        table: &Rc<Table>,
        key: &Rc<[u8]>,
        entry: &Entry,
        columns: &[u32],
        clock: &RowClock,
    ) -> Result<()> {
        let mut values: Option<crate::apply::LocalRow<'_>> = None;
        for (i, id) in columns.iter().enumerate() {
            let live = |stamp: &Stamp| record.is_at(stamp, entry.seq + i as u64);
            let (Some(cell), Some(position)) = (clock.cell(*id).filter(|c| live(&c.stamp)), table.info.position(*id))
            else {
                continue;
            };
            if values.is_none() {
                values = Some(session.row_of_clock(table, key, clock));
            }
            let value = values.as_ref().map_or(Value::Null, |v| v.value_at(position).to_owned());
            let site = self.author(session, cell.stamp.author)?;
            self.rows.push_back(Row {
                table: Rc::clone(table),
                key: Rc::clone(key),
                cell: Some(position),
                value,
                col_version: cell.version,
                cl: clock.cl,
                seq: entry.seq + i as u64,
                site,
            });
        }
        Ok(())
    }
}

/// Reads the rows whose bases alone tell what they are, those of one table that come one after the other together.
fn read_pristine(session: &Session, all: &mut [Met]) -> Result<()> {
    for run in all.chunk_by_mut(|a, b| Rc::ptr_eq(&a.table, &b.table)) {
        let mut pristine: Vec<&mut Met> = run.iter_mut().filter(|met| met.is_pristine()).collect();
        let Some(table) = pristine.first().map(|met| Rc::clone(&met.table)) else { continue };
        let keys: Vec<Rc<[u8]>> = pristine.iter().map(|met| Rc::clone(&met.key)).collect();
        let keys: Vec<&[u8]> = keys.iter().map(|key| &**key).collect();
        for (met, values) in pristine.iter_mut().zip(session.rows_values(&table, &keys)?) {
            met.values = values;
        }
    }
    Ok(())
}
