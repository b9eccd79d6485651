//! `INSERT INTO crsql_changes VALUES (…)`: one cell from elsewhere, without a dot that the cluster knows (X9).

use super::column;
use crate::affinity::canonical_key;
use crate::affinity::whole_number;
use crate::aside::{NO_COLUMN, NO_TABLE};
use crate::catalog::Table;
use crate::session::Session;
use crate::sqlite::{codes, Args, Error, Result, ValueRef};
use crate::tx::NineEntry;
use starling_crdt::changeset::{self, DotHeader, Header, PartWriter};
use starling_crdt::decide::{Incoming, IncomingCell, IncomingKind};
use starling_crdt::ids::{MAX_COUNTER, MAX_JUMP, MAX_SEQ, MAX_VERSION};
use starling_crdt::row_clock::Stamp;
use starling_crdt::{key, Dot, Origin, SiteId, Value};
use std::rc::Rc;

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
            _ => Err(refuse(&format!("{name} must be text"))),
        };
        let number = |i, name: &str, max: u64| match whole_number(values.get(i)) {
            Some(v) => match u64::try_from(v) {
                Ok(v) if v <= max => Ok(v),
                Ok(_) => Err(refuse(&format!("{name} {v} is above its limit {max}"))),
                Err(_) => Err(refuse(&format!("{name} {v} is negative"))),
            },
            None => Err(refuse(&format!("{name} must be an integer"))),
        };
        let site = match values.get(column::SITE_ID) {
            ValueRef::Null => None,
            ValueRef::Blob(b) => Some(SiteId::from_slice(b).ok_or_else(|| refuse("site_id is longer than 16 bytes"))?),
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
            cl,
            seq: number(column::SEQ, "seq", MAX_SEQ)?,
        })
    }
}

/// Merges one row of nine values.
///
/// # Errors
/// Says which value is wrong; nothing is merged then.
pub fn insert(session: &Session, values: &Args<'_>) -> Result<()> {
    let nine = Nine::read(values)?;
    let columns = key::unpack(nine.pk).map_err(|e| refuse(&format!("pk is malformed: {e}")))?;
    session.ensure_schema()?;
    let rowid = session.db.last_insert_rowid();
    let result = merge(session, &nine, &columns);
    session.db.set_last_insert_rowid(rowid);
    result
}

fn merge(session: &Session, nine: &Nine<'_>, columns: &[ValueRef<'_>]) -> Result<()> {
    session.join_transaction()?;
    if !session.tx.borrow().merge_checked {
        session.refresh()?;
        session.tx_mut().merge_checked = true;
    }
    // Local writes of this transaction come before what is merged now, and so do those of programs without the extension.
    session.take_inboxes()?;
    if !session.journal.borrow().is_empty() {
        session.flush()?;
    }
    let mut bytes = Vec::with_capacity(nine.pk.len());
    key::encode(columns.iter().copied(), &mut bytes);
    let known = session.table_meant(nine.table)?.filter(|t| t.info.keys.len() == columns.len());
    let Some(table) = known else { return aside(session, nine, &bytes, columns.len(), NO_TABLE) };
    let key = match canonical_key(session, &table, &bytes)? {
        Ok(key) => key,
        Err(why) => return aside(session, nine, &bytes, columns.len(), &why),
    };
    let tombstone = nine.cl.is_multiple_of(2);
    let sentinel = nine.cid == "-1";
    let position = if sentinel || tombstone { None } else { session.column_meant(&table, nine.cid)? };
    if position.is_none() && !sentinel && !tombstone {
        return aside(session, nine, &bytes, columns.len(), NO_COLUMN);
    }
    raise_version(session, nine.db_version)?;
    if sentinel && nine.cl == 1 && is_there(session, &table, &key)? {
        // It says that the row is there.
        return Ok(());
    }
    let mut stamp = local_stamp(session, nine)?;
    stamp.seq = free_seq(session, (&table, &key), (position, nine.cl), &stamp)?;
    let value = match position.and_then(|p| table.info.columns.get(p)) {
        Some(column) => session.stored_as(nine.value, column.affinity)?,
        None => Value::Null,
    };
    let cell = position.and_then(|p| table.info.columns.get(p));
    let kind = match (tombstone, sentinel) {
        (true, _) => IncomingKind::Tombstone { life: stamp },
        (false, true) => IncomingKind::Cells { born: true, life: Some(stamp) },
        (false, false) => IncomingKind::Cells { born: true, life: None },
    };
    let cells: Vec<IncomingCell<'_>> = cell
        .iter()
        .map(|c| IncomingCell { column: c.id, version: nine.col_version, stamp, value: value.as_ref() })
        .collect();
    log_merge(session, &table, &key, &Incoming { cl: nine.cl, kind, cells })
}

fn log_merge(session: &Session, table: &Rc<Table>, key: &[u8], incoming: &Incoming<'_>) -> Result<()> {
    let applied = session.merge_row(table, key, incoming, true)?;
    if applied.entries.is_empty() {
        return Ok(());
    }
    let record = session.open_local()?;
    let full = {
        let mut tx = session.tx_mut();
        tx.local = Some(record);
        // A cell that begins a lifetime brings its '-1' row along.
        tx.rows_impacted += applied.entries.len() as i64;
        tx.nine.extend(applied.entries.into_iter().map(|e| NineEntry {
            table: table.info.log_ref(),
            key: key.to_vec(),
            kind: e.kind,
            seq: e.stamp.seq,
            columns: e.columns,
        }));
        tx.nine.len() >= NINE_MAX
    };
    if full {
        session.flush_nine()?;
    }
    Ok(())
}

/// The given db_version raises the local counter, unless it is absurdly far away (X12).
fn raise_version(session: &Session, db_version: u64) -> Result<()> {
    if db_version > session.tail()?.db_version.saturating_add(MAX_JUMP) {
        return Ok(());
    }
    let (open, requested) = {
        let tx = session.tx.borrow();
        (tx.local.map(|r| r.db_version), tx.requested)
    };
    if db_version > requested && open.is_none_or(|v| db_version > v) {
        // What was merged under the version before is logged under it.
        session.flush_nine()?;
        session.tx_mut().requested = db_version;
    }
    Ok(())
}

fn local_stamp(session: &Session, nine: &Nine<'_>) -> Result<Stamp> {
    let open = session.tx.borrow().local;
    let record = match open {
        Some(record) if record.db_version >= session.tx.borrow().requested => record,
        _ => session.open_local()?,
    };
    let meta = session.meta()?;
    let author = match nine.site {
        Some(site) if site != meta.site => session.site_row(&site)?,
        _ => 0,
    };
    // Until something is logged under it, the record is only a number.
    Ok(Stamp { seq: nine.seq, author, ..record.stamp() })
}

/// Whether a row in its first lifetime is there, so that word of its existence is none.
fn is_there(session: &Session, table: &Table, key: &[u8]) -> Result<bool> {
    let local = session.local_row(table, key, true)?;
    Ok(local.clock.is_some_and(|c| c.cl == 1 && c.born))
}

/// The given seq, or a fresh one where this very cell, or the row's life, has been written at it under the same dot: by two
/// sites that both wrote the cell first in their transactions, say, merged in one of ours. An entry is told to be live
/// by dot and seq alone, so one that is superseded must not be mistaken for the one that supersedes it.
fn free_seq(
    session: &Session,
    row: (&Table, &[u8]),
    (position, cl): (Option<usize>, u64),
    stamp: &Stamp,
) -> Result<u64> {
    if stamp.seq >= session.journal.borrow().next_seq() {
        session.journal.borrow_mut().pass_seq(stamp.seq);
        return Ok(stamp.seq);
    }
    let (table, key) = row;
    let column = position.and_then(|p| table.info.columns.get(p)).map(|c| c.id);
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
fn aside(session: &Session, nine: &Nine<'_>, key: &[u8], key_columns: usize, why: &str) -> Result<()> {
    let site = nine.site.unwrap_or(session.meta()?.site);
    let dot = Dot { origin: Origin { site, epoch: 0 }, version: nine.db_version.max(1) };
    let header = Header {
        dot: DotHeader { dot, commit_ms: crate::log::now_ms(), ..DotHeader::default() },
        claimable: false,
        last: true,
        group: true,
        part: 0,
    };
    let mut part = PartWriter::new(&header);
    let stamp = changeset::Stamp { dot: 0, author: None, seq: nine.seq };
    let names = if nine.cid == "-1" { Vec::new() } else { vec![nine.cid] };
    let table = part.table(nine.table, key_columns, names.iter().copied());
    if nine.cl.is_multiple_of(2) {
        part.tombstone(table, key, nine.cl.max(2), stamp);
    } else {
        part.cells(table, key, nine.cl, true, names.is_empty().then_some(stamp), names.len());
        if !names.is_empty() {
            part.cell(0, nine.col_version, stamp, nine.value);
        }
    }
    session.keep_aside(&header, &[(nine.table.to_string(), why.to_string())], &part.finish(true))
}
