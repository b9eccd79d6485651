//! `INSERT INTO crsql_changes VALUES (…)`: one cell from elsewhere, without a dot that the cluster knows (X9).

use super::column;
use super::last_key::{internal, LastKey};
use crate::affinity::whole_number;
use crate::apply::MergedEntry;
use crate::aside::{NO_COLUMN, NO_TABLE};
use crate::catalog::Table;
use crate::log::OpenRecord;
use crate::merge_cell::CellMerge;
use crate::nine::NineEntry;
use crate::session::Session;
use crate::sqlite::{codes, Args, Error, Result, ValueRef};
use starling_crdt::changeset::{self, DotHeader, Header, PartWriter};
use starling_crdt::decide::{Incoming, IncomingCell, IncomingKind};
use starling_crdt::ids::{MAX_COUNTER, MAX_JUMP, MAX_SEQ, MAX_VERSION};
use starling_crdt::log_chunk::Kind;
use starling_crdt::row_clock::{RowClock, Stamp};
use starling_crdt::{key, Dot, Origin, SiteId, Value};

/// Entries that wait before they are logged.
const NINE_MAX: usize = 8 * 1024;

struct Nine<'a> {
    table: &'a str,
    pk: &'a [u8],
    cid: &'a str,
    value: ValueRef<'a>,
    col_version: u64,
    db_version: u64,
    site: Option<SiteId>,
    /// As it was given.
    shown: &'a [u8],
    cl: u64,
    seq: u64,
}

fn refuse(what: &str) -> Error {
    Error::new(codes::MISMATCH, format!("crsql_changes: {what}; nothing was merged"))
}

impl<'a> Nine<'a> {
    fn read(values: &Args<'a>) -> Result<Self> {
        let text = |i, name: &str| match values.get(i) {
            ValueRef::Text(t) => std::str::from_utf8(t).map_err(|_| refuse(&format!("{name} is not UTF-8"))),
            // So do programs name a '-1' row that hand over what looks like a number as one.
            ValueRef::Integer(-1) if name == "cid" => Ok("-1"),
            _ => Err(refuse(&format!("{name} must be text"))),
        };
        let number = |i, name: &str, max: u64| match values.get(i) {
            ValueRef::Integer(v) if u64::try_from(v).is_ok_and(|v| v <= max) => Ok(v.cast_unsigned()),
            other => odd_number(other, name, max),
        };
        let mut shown: &[u8] = &[];
        let site = match values.get(column::SITE_ID) {
            ValueRef::Null | ValueRef::Blob([]) => None,
            ValueRef::Blob(b) => {
                shown = b;
                Some(SiteId::from_slice(b).ok_or_else(|| refuse("site_id is longer than 16 bytes"))?)
            }
            _ => return Err(refuse("site_id must be a blob of at most 16 bytes")),
        };
        let pk = match values.get(column::PK) {
            ValueRef::Blob(b) => b,
            _ => return Err(refuse("pk must be a blob as crsql_pack_columns makes it")),
        };
        let cl = number(column::CL, "cl", MAX_COUNTER)?;
        if cl == 0 {
            return Err(refuse("cl is 0, a row's causal length is 1 or more"));
        }
        Ok(Self {
            table: text(column::TABLE, "table")?,
            pk,
            cid: text(column::CID, "cid")?,
            value: values.get(column::VAL),
            col_version: number(column::COL_VERSION, "col_version", MAX_COUNTER)?,
            db_version: number(column::DB_VERSION, "db_version", MAX_VERSION)?,
            site,
            shown,
            cl,
            // Programs of the time before there was one do not give it.
            seq: match values.get(column::SEQ) {
                ValueRef::Null => 0,
                _ => number(column::SEQ, "seq", MAX_SEQ)?,
            },
        })
    }

    /// The columns of its key.
    fn columns(&self) -> Result<Vec<ValueRef<'a>>> {
        key::unpack(self.pk).map_err(|e| refuse(&format!("pk is malformed: {e}")))
    }
}

/// A number that was not given as an integer, or is none of those that may be given.
#[cold]
fn odd_number(value: ValueRef<'_>, name: &str, max: u64) -> Result<u64> {
    match whole_number(value) {
        Some(v) => match u64::try_from(v) {
            Ok(v) if v <= max => Ok(v),
            Ok(_) => Err(refuse(&format!("{name} {v} is above its limit {max}"))),
            Err(_) => Err(refuse(&format!("{name} {v} is negative"))),
        },
        None => Err(refuse(&format!("{name} must be an integer"))),
    }
}

/// Merges one row of nine values. Answers the rowid that was inserted last, which it leaves as it was.
///
/// # Errors
/// Says which value is wrong; nothing is merged then.
pub fn insert(session: &Session, values: &Args<'_>) -> Result<i64> {
    let nine = Nine::read(values)?;
    let last = session.last_key.take();
    let unpacked = last.as_ref().is_some_and(|last| last.unpacks(nine.pk));
    let columns = if unpacked { None } else { Some(nine.columns()?) };
    session.ensure_schema()?;
    session.resume_if_left()?;
    let rowid = session.db.last_insert_rowid();
    let result = match merge(session, &nine, last, columns) {
        Err(e) if missed_an_alteration(session, &e) => {
            session.tx_mut().merge_checked = false;
            merge(session, &nine, None, None)
        }
        result => result,
    };
    session.db.set_last_insert_rowid(rowid);
    result.map(|()| rowid)
}

/// Whether the schema was looked at before this transaction altered it, as between two of its cells: its tables may be others.
/// The error is that of a statement that could not be prepared, before anything was written.
#[cold]
fn missed_an_alteration(session: &Session, error: &Error) -> bool {
    error.primary() == codes::ERROR
        && session.tx.borrow().active
        && !session.tx.borrow().poisoned
        && session.schema_version().is_ok_and(|now| !session.knows_schema(now))
}

/// `columns` are its key's; none if that is the key of the cell before.
fn merge(session: &Session, nine: &Nine<'_>, last: Option<LastKey>, columns: Option<Vec<ValueRef<'_>>>) -> Result<()> {
    session.join_transaction()?;
    // In a window each statement may alter the table.
    if !session.tx.borrow().merge_checked || !session.tx.borrow().windows.is_empty() {
        session.refresh()?;
        session.know_refused()?;
        session.tx_mut().merge_checked = true;
    }
    // Local writes of this transaction come before what is merged now, and so do those of programs without the extension.
    session.take_inboxes()?;
    if !session.journal.borrow().is_empty() {
        session.flush()?;
    }
    let table = session.table_meant(nine.table)?;
    let (table, key) = match (table, last) {
        (Some(table), Some(last)) if columns.is_none() && last.is_in(&table) => (table, last),
        (table, last) => {
            let columns = columns.map_or_else(|| nine.columns(), Ok)?;
            let Some(table) = table.filter(|t| t.info.keys.len() == columns.len()) else {
                return aside(session, nine, &columns, NO_TABLE);
            };
            match LastKey::find(session, &table, (nine.pk, &columns), last)? {
                Ok(key) => (table, key),
                Err(why) => return aside(session, nine, &columns, &why),
            }
        }
    };
    let merged = merge_into(session, nine, &table, &key).and_then(|()| mend(session));
    session.last_key.set(Some(key));
    merged
}

/// What constraints have refused of the row may fit now.
fn mend(session: &Session) -> Result<()> {
    if !session.may_mend() {
        return Ok(());
    }
    session.flush()?;
    session.mend().map(drop).inspect_err(|_| session.poison())
}

fn merge_into(session: &Session, nine: &Nine<'_>, table: &Table, last: &LastKey) -> Result<()> {
    let tombstone = nine.cl.is_multiple_of(2);
    let sentinel = nine.cid == "-1";
    let position = if sentinel || tombstone { None } else { session.column_meant(table, nine.cid)? };
    if position.is_none() && !sentinel && !tombstone {
        return aside(session, nine, &nine.columns()?, NO_COLUMN);
    }
    let requested = raise_version(session, nine.db_version)?;
    let merged = merge_at(session, nine, (table, last), position);
    if matches!(merged, Ok(true)) {
        session.note_merged(table.info.id, &last.key);
    } else {
        // What changes nothing takes no version.
        let mut tx = session.tx_mut();
        if tx.active {
            tx.requested = requested;
        }
    }
    merged.map(drop)
}

/// `position`: its column's; none for a row's end, and for word of its existence. Whether it changed anything.
fn merge_at(
    session: &Session,
    nine: &Nine<'_>,
    (table, last): (&Table, &LastKey),
    position: Option<usize>,
) -> Result<bool> {
    let (key, rowid) = (last.key.as_slice(), &last.rowid);
    let tombstone = nine.cl.is_multiple_of(2);
    let there = if position.is_none() && nine.cl == 1 { clock_if_there(session, table, key)? } else { None };
    // Word of a row's existence that comes after cells of the same author says that a key update of that author made the row;
    // any other says no more than that the row is there.
    let mut authors = there.iter().flat_map(|c| &c.cells).map(|cell| cell.stamp.author).filter(|author| *author != 0);
    if there.is_some() && authors.clone().next().is_none() {
        return Ok(false);
    }
    let mut stamp = local_stamp(session, nine)?;
    if there.is_some() && !authors.any(|author| author == stamp.author) {
        return Ok(false);
    }
    let column = position.and_then(|p| Some((p, table.info.columns.get(p)?)));
    stamp.seq = free_seq(session, (table, key), (column.map(|(_, c)| c.id), nine.cl), &stamp)?;
    let Some((position, column)) = column else {
        let born = IncomingKind::Cells { born: true, life: Some(stamp) };
        let kind = if tombstone { IncomingKind::Tombstone { life: stamp } } else { born };
        let applied = session.merge_row(table, key, &Incoming { cl: nine.cl, kind, cells: Vec::new() }, true)?;
        let entries = session.with_birth(table, key, applied, stamp)?;
        let logged = log_all(session, table, key, &entries)?;
        if there.is_some() {
            // That it was a key update which made the row changes nothing of it.
            session.tx_mut().rows_impacted -= entries.len() as i64;
        }
        return Ok(logged);
    };
    let converted = session.converted(nine.value, column.affinity)?;
    let value = converted.as_ref().map_or(nine.value, Value::as_ref);
    let cell = IncomingCell { column: column.id, version: nine.col_version, stamp, value };
    match session.merge_cell(&CellMerge { table, key, rowid, cl: nine.cl, position, cell })? {
        Some(entries) => log_all(session, table, key, &entries),
        None => log(session, table, key, [(Kind::Mask, stamp.seq, &[column.id][..])].into_iter()),
    }
}

fn log_all(session: &Session, table: &Table, key: &[u8], entries: &[MergedEntry]) -> Result<bool> {
    log(session, table, key, entries.iter().map(|e| (e.kind, e.stamp.seq, e.columns.as_slice())))
}

/// Entries of a row wait to be logged: what they say, their seqs, the columns that they name. Whether there are any.
fn log<'e>(
    session: &Session,
    table: &Table,
    key: &[u8],
    entries: impl ExactSizeIterator<Item = (Kind, u64, &'e [u32])>,
) -> Result<bool> {
    if entries.len() == 0 {
        return Ok(false);
    }
    let opened = if open_stamp(session).is_some() { None } else { Some(session.open_local()?) };
    let full = {
        let mut tx = session.tx_mut();
        tx.local = opened.or(tx.local);
        // A cell that begins a lifetime brings its '-1' row along.
        tx.rows_impacted += entries.len() as i64;
        let table = table.info.log_ref();
        for (kind, seq, columns) in entries {
            tx.nine.push(&NineEntry { table, key, kind, seq, columns });
        }
        tx.nine.len() >= NINE_MAX
    };
    if full {
        session.flush_nine()?;
    }
    Ok(true)
}

/// The given db_version raises the local counter, unless it is absurdly far away (X12). Answers what was asked for before.
fn raise_version(session: &Session, db_version: u64) -> Result<u64> {
    let (open, requested) = {
        let tx = session.tx.borrow();
        (tx.local.map(|r| r.db_version), tx.requested)
    };
    let too_far = db_version > session.tail()?.db_version.saturating_add(MAX_JUMP);
    if !too_far && db_version > requested && open.is_none_or(|v| db_version > v) {
        // What was merged under the version before is logged under it.
        session.flush_nine()?;
        session.tx_mut().requested = db_version;
    }
    Ok(requested)
}

fn local_stamp(session: &Session, nine: &Nine<'_>) -> Result<Stamp> {
    let dot = match open_stamp(session) {
        Some(dot) => dot,
        // Until something is logged under it, the record is only a number.
        None => session.open_local()?.stamp(),
    };
    let author = nine.site.map_or(Ok(0), |site| session.author_given_as(&site, nine.shown))?;
    Ok(Stamp { seq: nine.seq, author, ..dot })
}

/// The dot of the local record that is open, if it may be gone on with.
fn open_stamp(session: &Session) -> Option<Stamp> {
    let tx = session.tx.borrow();
    tx.local.as_ref().filter(|record| record.db_version >= tx.requested).map(OpenRecord::stamp)
}

/// The clock of a row in its first lifetime that is there.
fn clock_if_there(session: &Session, table: &Table, key: &[u8]) -> Result<Option<RowClock>> {
    let local = session.local_row(table, key, true)?;
    Ok(local.clock.filter(|c| c.cl == 1 && c.born))
}

/// The given seq, or a fresh one where this very cell, or the row's life, has been written at it under the same dot: by two
/// sites that both wrote the cell first in their transactions, say, merged in one of ours. An entry is told to be live
/// by dot and seq alone, so one that is superseded must not be mistaken for the one that supersedes it.
fn free_seq(session: &Session, row: (&Table, &[u8]), (column, cl): (Option<u32>, u64), stamp: &Stamp) -> Result<u64> {
    if stamp.seq >= session.journal.borrow().next_seq() {
        session.journal.borrow_mut().pass_seq(stamp.seq);
        return Ok(stamp.seq);
    }
    let (table, key) = row;
    let taken = |s: &Stamp| (s.origin, s.version, s.seq) == (stamp.origin, stamp.version, stamp.seq);
    let clock = session.get_clock(table, key)?;
    // A cell of a later lifetime than the row's begins it, with an entry for its life at the same seq.
    let lives = column.is_none() || clock.as_ref().map_or(cl > 1, |c| cl > c.cl);
    let spent = |column| session.tx.borrow().spent.has(table.info.id, key, column, stamp);
    let is_taken = spent(column)
        || (lives && spent(None))
        || clock.is_some_and(|c| {
            let cell = column.and_then(|column| c.cell(column)).is_some_and(|cell| taken(&cell.stamp));
            cell || (lives && c.lives().any(taken))
        });
    Ok(if is_taken { session.journal.borrow_mut().take_seqs(1) } else { stamp.seq })
}

/// Keeps the cell for the day when its table or column is there, as a changeset of its author.
fn aside(session: &Session, nine: &Nine<'_>, columns: &[ValueRef<'_>], why: &str) -> Result<()> {
    let key = internal(columns, nine.pk.len());
    let site = nine.site.unwrap_or(session.meta()?.site);
    session.author_given_as(&site, nine.shown)?;
    let dot = Dot { origin: Origin { site, epoch: 0 }, version: nine.db_version.max(1) };
    let header = Header {
        // When it came is left out: the same cell, coming again, is the same part.
        dot: DotHeader { dot, ..DotHeader::default() },
        claimable: false,
        last: true,
        group: true,
        part: 0,
    };
    let mut part = PartWriter::new(&header);
    let stamp = changeset::Stamp { dot: 0, author: None, seq: nine.seq };
    let names = if nine.cid == "-1" { Vec::new() } else { vec![nine.cid] };
    let table = part.table(nine.table, columns.len(), names.iter().copied());
    if nine.cl.is_multiple_of(2) {
        part.tombstone(table, &key, nine.cl.max(2), stamp);
    } else {
        part.cells(table, &key, nine.cl, true, names.is_empty().then_some(stamp), names.len());
        if !names.is_empty() {
            part.cell(0, nine.col_version, stamp, nine.value);
        }
    }
    session.keep_aside(&header, &[(nine.table.to_string(), why.to_string())], &part.finish(true))
}
