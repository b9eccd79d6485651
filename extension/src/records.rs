//! Records on disk: the one place that knows how a file keeps them.
//!
//! Files of format 4 have a blob for each, and their foreign dots in a table of its own. Those of formats 1 to 3 have a column
//! for each field; they are read and written as they are, until triggers are made in them (`settle_records`).

use crate::meta::{schema, Meta, WITH_COLUMNS};
use crate::session::{corrupt, Cached, Hot, Session, Sql};
use crate::sqlite::{codes, Result, Stmt};
use starling_crdt::changeset::DotHeader;
use starling_crdt::record::{flags, Head, Record as Stored, Side};
use std::borrow::Cow;

/// How a file keeps its records.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Layout {
    /// Formats 1 to 3.
    Columns,
    /// Format 4.
    Blobs,
}

/// A statement over records.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Find {
    /// All, the newest first.
    NewestFirst,
    /// The first above a db_version.
    After,
    /// The last below one.
    Before,
    /// Those of a foreign dot: origin, version.
    OfDot,
    /// One of the next foreign dot: origin, the version that it is above.
    AfterDot,
    /// Versions of the dots of an origin between two versions that have a foreign record or a token.
    DotsBetween,
    /// The newest db_version, NULL = none.
    Newest,
    /// The newest db_version below another.
    NewestBelow,
}

const ADD: &str = "INSERT INTO main.crsql_record(db_version, record) VALUES(?1, ?2)";
/// As [`ADD`], for the version after the newest: where the rowid is not named, SQLite appends, and looks for no place.
const ADD_NEXT: &str = "INSERT INTO main.crsql_record(record) VALUES(?1)";

/// What a statement over records reads, in the order that [`Record::read`] expects.
const fn columns(layout: Layout) -> &'static str {
    match layout {
        Layout::Blobs => "db_version, record",
        Layout::Columns => {
            "db_version, origin, version, token, prev, prev_token, commit_ms, flags, chunks, garbage, weight, last_local, \
             last_local_token, entries"
        }
    }
}

/// The text of a statement over records.
pub fn sql(find: Find, layout: Layout) -> String {
    let (columns, table) = (columns(layout), table(layout));
    // An index that names a record which is not there must not hide it.
    let foreign = "SELECT f.db_version, l.record FROM main.crsql_foreign AS f \
                   LEFT JOIN main.crsql_record AS l ON l.db_version = f.db_version WHERE f.origin = ?1 AND";
    match (find, layout) {
        (Find::NewestFirst, _) => format!("SELECT {columns} FROM {table} ORDER BY db_version DESC"),
        (Find::After, _) => format!("SELECT {columns} FROM {table} WHERE db_version > ?1 ORDER BY db_version LIMIT 1"),
        (Find::Before, _) => {
            format!("SELECT {columns} FROM {table} WHERE db_version < ?1 ORDER BY db_version DESC LIMIT 1")
        }
        (Find::OfDot, Layout::Columns) => format!(
            "SELECT {columns} FROM {table} WHERE origin = ?1 AND version = ?2 AND version IS NOT NULL ORDER BY db_version"
        ),
        (Find::OfDot, Layout::Blobs) => format!("{foreign} f.version = ?2 ORDER BY f.db_version"),
        (Find::AfterDot, Layout::Columns) => format!(
            "SELECT {columns} FROM {table} WHERE origin = ?1 AND version > ?2 AND version IS NOT NULL ORDER BY version LIMIT 1"
        ),
        (Find::AfterDot, Layout::Blobs) => format!("{foreign} f.version > ?2 ORDER BY f.version LIMIT 1"),
        (Find::DotsBetween, _) => {
            let dots = if layout == Layout::Blobs { "main.crsql_foreign" } else { table };
            format!(
                "SELECT version FROM {dots} WHERE origin = ?1 AND version > ?2 AND version < ?3 AND version IS NOT NULL \
                 UNION ALL SELECT version FROM main.crsql_token WHERE origin = ?1 AND version > ?2 AND version < ?3"
            )
        }
        (Find::Newest, _) => format!("SELECT max(db_version) FROM {table}"),
        (Find::NewestBelow, _) => format!("SELECT max(db_version) FROM {table} WHERE db_version < ?1"),
    }
}

/// The text that writes a record whose fields are columns.
pub fn write_columns_sql(verb: &str) -> String {
    let columns = columns(Layout::Columns);
    let values = (1..=14).map(|n| format!("?{n}")).collect::<Vec<_>>().join(", ");
    format!("{verb} INTO {}({columns}) VALUES({values})", table(Layout::Columns))
}

const fn table(layout: Layout) -> &'static str {
    match layout {
        Layout::Blobs => "main.crsql_record",
        Layout::Columns => "main.crsql_log",
    }
}

impl Meta {
    /// How this file keeps its records.
    pub const fn layout(&self) -> Layout {
        if self.format > WITH_COLUMNS {
            Layout::Blobs
        } else {
            Layout::Columns
        }
    }
}

/// A record as read.
#[derive(Clone, Debug)]
pub struct Record {
    /// Its key.
    pub db_version: u64,
    /// The dot's version.
    pub version: u64,
    /// The fixed part.
    pub head: Head,
    /// Young clocks that it carries.
    pub young: Option<Vec<u8>>,
    /// The chunk that stands in the record itself.
    pub entries: Vec<u8>,
}

impl Record {
    /// Reads the present row of a statement over records.
    fn read(stmt: &Stmt, layout: Layout) -> Result<Self> {
        let number = |i: usize| u64::try_from(stmt.column_int(i)).map_err(|e| corrupt("a log record", e));
        let db_version = number(0)?;
        if layout == Layout::Blobs {
            let what = |e| corrupt("a log record", format!("version {db_version}: {e}"));
            let Stored { head, young, entries } = Stored::decode(stmt.column_blob(1)).map_err(what)?;
            let version = if let Side::Foreign { version, .. } = head.side { version } else { db_version };
            return Ok(Self { db_version, version, head, young: young.map(<[u8]>::to_vec), entries: entries.to_vec() });
        }
        let (version, side, young) = if stmt.column_is_null(2) {
            let reaches = if stmt.column_is_null(11) { None } else { Some(stmt.column_int(11).max(0).cast_unsigned()) };
            let young = (!stmt.column_is_null(12)).then(|| stmt.column_blob(12).to_vec());
            (db_version, Side::Local { reaches }, young)
        } else {
            let positive = |i| stmt.column_int(i).max(0).cast_unsigned();
            let (version, last_local, last_local_token) = (number(2)?, positive(11), positive(12));
            (version, Side::Foreign { version, last_local, last_local_token }, None)
        };
        let head = Head {
            origin: u32::try_from(number(1)?).map_err(|e| corrupt("a log record", e))?,
            side,
            token: number(3)?,
            prev: number(4)?,
            prev_token: number(5)?,
            commit_ms: number(6)?,
            flags: (stmt.column_int(7) & i64::from(flags::ALL)) as u8,
            chunks: number(8)?,
            garbage: stmt.column_int(9).max(0).cast_unsigned(),
            weight: stmt.column_int(10).max(0).cast_unsigned(),
        };
        Ok(Self { db_version, version, head, young, entries: stmt.column_blob(13).to_vec() })
    }

    /// Whether it was written here, as what it is.
    pub const fn is_local(&self) -> bool {
        matches!(self.head.side, Side::Local { .. })
    }

    /// Of the newest record: the oldest one whose young clocks are in force. A foreign record says nothing.
    pub const fn oldest_in_force(&self) -> Option<u64> {
        match self.head.side {
            Side::Local { reaches: Some(back) } => Some(self.db_version.saturating_sub(back)),
            _ => None,
        }
    }

    /// The dot's header.
    pub fn header(&self, session: &Session) -> Result<DotHeader> {
        let (origin, _) = session.origin_of(self.head.origin)?;
        Ok(DotHeader {
            dot: starling_crdt::Dot { origin, version: self.version },
            token: self.head.token,
            prev: self.head.prev,
            prev_token: self.head.prev_token,
            commit_ms: self.head.commit_ms,
        })
    }

    /// Chunk `n` of the record, from 0 to `self.head.chunks`: the first stands in the record itself.
    pub fn chunk(&self, session: &Session, n: u64) -> Result<Cow<'_, [u8]>> {
        let Some(n) = n.checked_sub(1) else { return Ok(Cow::Borrowed(&self.entries)) };
        let mut get = session.fixed("SELECT entries FROM main.crsql_log_chunk WHERE db_version = ?1 AND n = ?2")?;
        get.bind_int(1, self.db_version.cast_signed())?;
        get.bind_int(2, n.cast_signed())?;
        if !get.step()? {
            return Err(corrupt("crsql_log_chunk", format!("chunk {n} of version {} is missing", self.db_version)));
        }
        Ok(Cow::Owned(get.column_blob(0).to_vec()))
    }

    fn stored(&self) -> Stored<'_> {
        Stored { head: self.head, young: self.young.as_deref(), entries: &self.entries }
    }
}

impl Session {
    /// Runs a statement over records to its first row, if it finds any.
    fn find(&self, find: Find, bound: &[u64]) -> Result<Option<(Cached<'_>, Layout)>> {
        let layout = self.meta()?.layout();
        self.find_in(find, bound, layout).or_else(|e| {
            // Another connection may have changed the layout since it was read. Then the former table is gone.
            if e.primary() == codes::ERROR {
                self.meta.replace(None);
            }
            let now = self.meta()?.layout();
            if now == layout {
                return Err(e);
            }
            self.find_in(find, bound, now)
        })
    }

    fn find_in(&self, find: Find, bound: &[u64], layout: Layout) -> Result<Option<(Cached<'_>, Layout)>> {
        let mut stmt = self.cached(Sql::Records(find, layout), 0, || sql(find, layout))?;
        for (i, n) in bound.iter().enumerate() {
            stmt.bind_int(i + 1, (*n).min(i64::MAX as u64).cast_signed())?;
        }
        Ok(if stmt.step()? { Some((stmt, layout)) } else { None })
    }

    fn one_record(&self, find: Find, bound: &[u64]) -> Result<Option<Record>> {
        let found = self.find(find, bound)?;
        found.map(|(stmt, layout)| Record::read(&stmt, layout)).transpose()
    }

    fn each_record(&self, find: Find, bound: &[u64], f: &mut dyn FnMut(Record) -> Result<bool>) -> Result<()> {
        let Some((mut stmt, layout)) = self.find(find, bound)? else { return Ok(()) };
        while f(Record::read(&stmt, layout)?)? && stmt.step()? {}
        Ok(())
    }

    fn one_version(&self, find: Find, bound: &[u64]) -> Result<u64> {
        Ok(self.find(find, bound)?.map_or(0, |(stmt, _)| stmt.column_int(0).max(0).cast_unsigned()))
    }

    /// The newest record.
    pub fn newest_record(&self) -> Result<Option<Record>> {
        self.one_record(Find::NewestFirst, &[])
    }

    /// Calls `f` with every record from the newest on, in one read, until it says `false`.
    pub fn newest_first(&self, f: &mut dyn FnMut(Record) -> Result<bool>) -> Result<()> {
        self.each_record(Find::NewestFirst, &[], f)
    }

    /// The first record above a db_version.
    pub fn record_after(&self, db_version: u64) -> Result<Option<Record>> {
        self.one_record(Find::After, &[db_version])
    }

    /// The last record below a db_version.
    pub fn record_before(&self, db_version: u64) -> Result<Option<Record>> {
        self.one_record(Find::Before, &[db_version])
    }

    /// The record of a db_version.
    pub fn record_at(&self, db_version: u64) -> Result<Option<Record>> {
        let next = self.record_after(db_version.saturating_sub(1))?;
        Ok(next.filter(|record| record.db_version == db_version))
    }

    /// All records of a dot.
    pub fn records_of(&self, origin: u32, version: u64) -> Result<Vec<Record>> {
        let own = self.record_at(version)?.filter(|record| record.is_local() && record.head.origin == origin);
        let mut out: Vec<_> = own.into_iter().collect();
        self.each_record(Find::OfDot, &[u64::from(origin), version], &mut |record| {
            if record.version != version || record.head.origin != origin || record.is_local() {
                return Err(corrupt(
                    "crsql_foreign",
                    format!("it takes record {} for another dot's", record.db_version),
                ));
            }
            out.push(record);
            Ok(true)
        })?;
        Ok(out)
    }

    /// A record of the first foreign dot of an origin above a version.
    pub fn foreign_after(&self, origin: u32, version: u64) -> Result<Option<Record>> {
        self.one_record(Find::AfterDot, &[u64::from(origin), version])
    }

    /// Versions of the dots of an origin between two versions (both exclusive) that have a foreign record or a token here.
    pub fn dots_between(&self, origin: u32, above: u64, below: u64) -> Result<Vec<u64>> {
        let mut out = Vec::new();
        if let Some((mut stmt, _)) = self.find(Find::DotsBetween, &[u64::from(origin), above, below])? {
            out.push(stmt.column_int(0).cast_unsigned());
            while stmt.step()? {
                out.push(stmt.column_int(0).cast_unsigned());
            }
        }
        Ok(out)
    }

    /// The newest db_version that has a record, 0 = none.
    pub fn newest_version(&self) -> Result<u64> {
        self.one_version(Find::Newest, &[])
    }

    /// As [`Session::newest_version`], of those below another.
    pub fn newest_version_below(&self, db_version: u64) -> Result<u64> {
        self.one_version(Find::NewestBelow, &[db_version])
    }

    /// Adds a record. `next`: its db_version is the one after the newest record's; whoever says so looks at the rowid
    /// afterwards, which is the db_version that it got.
    pub fn add_record(&self, db_version: u64, record: &Stored<'_>, next: bool) -> Result<()> {
        if self.meta()?.layout() == Layout::Columns {
            return self.write_columns("INSERT", db_version, record);
        }
        self.add_blob(db_version, record, next)
    }

    fn add_blob(&self, db_version: u64, record: &Stored<'_>, next: bool) -> Result<()> {
        let mut bytes = self.spare_record.take();
        bytes.clear();
        record.encode(&mut bytes);
        let added = if next {
            self.hot(Hot::AddNext, ADD_NEXT).and_then(|mut add| add.bind_blob(1, &bytes).and_then(|()| add.execute()))
        } else {
            self.write_blob(ADD, db_version, &bytes)
        };
        self.spare_record.set(bytes);
        added?;
        let Side::Foreign { version, .. } = record.head.side else { return Ok(()) };
        // That table has no rowids, so the last one stays the record's.
        let mut dot = self.fixed("INSERT INTO main.crsql_foreign(origin, version, db_version) VALUES(?1, ?2, ?3)")?;
        dot.bind_int(1, i64::from(record.head.origin))?;
        dot.bind_int(2, version.cast_signed())?;
        dot.bind_int(3, db_version.cast_signed())?;
        dot.execute()
    }

    /// Changes a record, but not its dot, if it is there.
    pub fn amend(&self, db_version: u64, change: impl FnOnce(&mut Record)) -> Result<()> {
        let Some(mut record) = self.record_at(db_version)? else { return Ok(()) };
        change(&mut record);
        if self.meta()?.layout() == Layout::Columns {
            return self.keeping_rowid(|| self.write_columns("REPLACE", record.db_version, &record.stored()));
        }
        let mut bytes = Vec::new();
        record.stored().encode(&mut bytes);
        self.write_blob("UPDATE main.crsql_record SET record = ?2 WHERE db_version = ?1", record.db_version, &bytes)
    }

    fn write_blob(&self, sql: &'static str, db_version: u64, record: &[u8]) -> Result<()> {
        let mut write = self.fixed(sql)?;
        write.bind_int(1, db_version.cast_signed())?;
        write.bind_blob(2, record)?;
        write.execute()
    }

    fn write_columns(&self, verb: &'static str, db_version: u64, record: &Stored<'_>) -> Result<()> {
        let mut write = self.cached(Sql::WriteColumns(verb), 0, || write_columns_sql(verb))?;
        let Stored { head, young, entries } = record;
        let numbers = [head.token, head.prev, head.prev_token, head.commit_ms];
        for (i, n) in (4..).zip(numbers) {
            write.bind_int(i, i64::try_from(n).unwrap_or(i64::MAX))?;
        }
        for (i, n) in (9..).zip([head.chunks, head.garbage, head.weight]) {
            write.bind_int(i, i64::try_from(n).unwrap_or(i64::MAX))?;
        }
        write.bind_int(1, db_version.cast_signed())?;
        write.bind_int(2, i64::from(head.origin))?;
        write.bind_int(8, i64::from(head.flags))?;
        write.bind_blob(14, entries)?;
        match head.side {
            Side::Local { reaches } => {
                write.bind_null(3)?;
                match reaches {
                    Some(back) => write.bind_int(12, back.cast_signed())?,
                    None => write.bind_null(12)?,
                }
                match young {
                    Some(clocks) => write.bind_blob(13, clocks)?,
                    None => write.bind_null(13)?,
                }
            }
            Side::Foreign { version, last_local, last_local_token } => {
                write.bind_int(3, version.cast_signed())?;
                write.bind_int(12, last_local.cast_signed())?;
                write.bind_int(13, last_local_token.cast_signed())?;
            }
        }
        write.execute()
    }

    /// Drops a record; its chunks must have gone.
    pub fn remove_record(&self, record: &Record) -> Result<()> {
        let layout = self.meta()?.layout();
        let mut drop = self.fixed(match layout {
            Layout::Blobs => "DELETE FROM main.crsql_record WHERE db_version = ?1",
            Layout::Columns => "DELETE FROM main.crsql_log WHERE db_version = ?1",
        })?;
        drop.bind_int(1, record.db_version.cast_signed())?;
        drop.execute()?;
        if layout == Layout::Columns || record.is_local() {
            return Ok(());
        }
        let mut dot =
            self.fixed("DELETE FROM main.crsql_foreign WHERE origin = ?1 AND version = ?2 AND db_version = ?3")?;
        dot.bind_int(1, i64::from(record.head.origin))?;
        dot.bind_int(2, record.version.cast_signed())?;
        dot.bind_int(3, record.db_version.cast_signed())?;
        dot.execute()
    }

    /// Brings the records of a file of an earlier format into the present form: once, within a change of the schema. Whether
    /// they are in it now: while another statement of the connection reads, SQLite drops no table, so it is left to the next.
    pub fn settle_records(&self) -> Result<bool> {
        if self.meta()?.layout() == Layout::Blobs {
            return Ok(true);
        }
        // Nothing may be left of the former table, which a connection that has not noticed would go on reading; so first it is seen
        // whether anything can be dropped.
        match self.db.exec("DROP INDEX IF EXISTS main.crsql_log_by_dot") {
            Err(e) if e.primary() == codes::LOCKED => return Ok(false),
            other => other?,
        }
        self.db.exec(&schema())?;
        let mut last = 0;
        while let Some(record) = self.record_after(last)? {
            last = record.db_version;
            self.add_blob(record.db_version, &record.stored(), false)?;
        }
        self.db.exec("DROP TABLE main.crsql_log")?;
        // The view of that name.
        self.db.exec(&schema()).map(|()| true)
    }
}
