//! `starling_changesets(have, after)`: encoded changesets out of the log, one row per part.

use crate::affinity::whole_number;
use crate::changes::rowid_of;
use crate::serve::RecordEncoder;
use crate::session::corrupt;
use crate::session::Shared;
use crate::sqlite::{codes, Args, ColumnOut, Db, Error, IndexInfo, Op, Result, Risk, VTab, VTabCursor, ValueRef};
use starling_crdt::changeset::{Header, PartReader};
use starling_crdt::Vector;

/// The table.
pub struct ChangesetsTable {
    session: Shared,
}

/// A scan.
#[derive(Default)]
pub struct ChangesetsCursor {
    have: Vector,
    after: u64,
    /// Only this site's own dots, or only those of others.
    local: Option<bool>,
    encoder: Option<RecordEncoder>,
    part: Vec<u8>,
    last: bool,
    number: u64,
    /// What was kept aside, once the log is at its end.
    aside: Option<AsidePart>,
    aside_after: i64,
    done: bool,
}

const SCHEMA: &str = "CREATE TABLE x(db_version INTEGER, site_id BLOB, epoch INTEGER, version INTEGER, prev INTEGER, \
                      token INTEGER, part INTEGER, last INTEGER, claimable INTEGER, changeset BLOB, \
                      have BLOB HIDDEN, after INTEGER HIDDEN, local INTEGER HIDDEN)";
const HAVE: usize = 10;
const AFTER: usize = 11;
const LOCAL: usize = 12;

impl VTab for ChangesetsTable {
    type Aux = Shared;
    type Cursor = ChangesetsCursor;
    const WRITABLE: bool = false;
    const TRANSACTIONAL: bool = false;
    const RISK: Risk = Risk::Normal;

    fn connect(_db: Db, aux: &Shared) -> Result<(String, Self)> {
        Ok((SCHEMA.to_string(), Self { session: aux.clone() }))
    }

    fn best_index(&self, info: &mut IndexInfo<'_>) -> Result<()> {
        let mut codes = String::new();
        let mut chosen = Vec::new();
        for (i, c) in info.constraints() {
            let code = match c.column {
                Some(HAVE) => 'h',
                Some(AFTER) => 'a',
                Some(LOCAL) => 'l',
                _ => continue,
            };
            if c.op != Op::Eq {
                continue;
            }
            if !c.usable {
                return Err(Error::new(codes::CONSTRAINT, ""));
            }
            chosen.push((i, code));
        }
        for (argument, (i, code)) in chosen.into_iter().enumerate() {
            info.set_argv_index(i, argument);
            info.set_omit(i, true);
            codes.push(code);
        }
        info.set_estimated_cost(1000.0);
        info.set_idx_str(codes);
        Ok(())
    }

    fn open(&self) -> Result<ChangesetsCursor> {
        Ok(ChangesetsCursor::default())
    }
}

impl VTabCursor for ChangesetsCursor {
    type Table = ChangesetsTable;

    fn filter(&mut self, table: &ChangesetsTable, _: i32, codes: &str, args: &Args<'_>) -> Result<()> {
        *self = Self::default();
        for (i, code) in codes.chars().enumerate() {
            match (code, args.get(i)) {
                (_, ValueRef::Null) => {}
                ('h', ValueRef::Blob(bytes)) => {
                    self.have = Vector::decode(bytes)
                        .map_err(|e| Error::msg(format!("starling_changesets: the vector cannot be read: {e}")))?;
                }
                (_, value) => match (code, whole_number(value)) {
                    ('a', Some(v)) => self.after = u64::try_from(v).unwrap_or(0),
                    ('l', Some(v)) => self.local = Some(v != 0),
                    _ => {
                        return Err(Error::msg("starling_changesets(have BLOB, after INTEGER): wrong type of argument"))
                    }
                },
            }
        }
        let session = &table.session;
        if !session.has_schema()? {
            self.done = true;
            return Ok(());
        }
        session.flush()?;
        session.drain_to_serve()?;
        session.refresh()?;
        self.advance(table)
    }

    fn next(&mut self, table: &ChangesetsTable) -> Result<()> {
        self.advance(table)
    }

    fn eof(&self) -> bool {
        self.done
    }

    fn column(&self, _: &ChangesetsTable, i: usize, out: &mut ColumnOut<'_>) -> Result<()> {
        let (header, db_version, claimable) = match (&self.encoder, &self.aside) {
            (_, Some(aside)) => (aside.header.dot, 0, aside.header.claimable),
            (Some(encoder), None) => (*encoder.header(), encoder.record().db_version, encoder.claimable()),
            (None, None) => return Ok(()),
        };
        match i {
            0 => out.set_int(db_version.cast_signed()),
            1 => out.set_blob(header.dot.origin.site.0),
            2 => out.set_int(header.dot.origin.epoch.cast_signed()),
            3 => out.set_int(header.dot.version.cast_signed()),
            4 => out.set_int(header.prev.cast_signed()),
            5 => out.set_int(header.token.cast_signed()),
            6 => out.set_int(self.number.cast_signed()),
            7 => out.set_int(i64::from(self.last)),
            8 => out.set_int(i64::from(claimable)),
            9 => out.set_blob(&self.part),
            _ => out.set_null(),
        }
        Ok(())
    }

    fn rowid(&self) -> i64 {
        match (&self.encoder, &self.aside) {
            (Some(encoder), None) => rowid_of(encoder.record().db_version, self.number),
            _ => -self.aside_after,
        }
    }
}

impl ChangesetsCursor {
    fn advance(&mut self, table: &ChangesetsTable) -> Result<()> {
        let session = &table.session;
        loop {
            if let Some(encoder) = &mut self.encoder {
                if let Some((part, last)) = encoder.next_part(session)? {
                    self.number = if self.last || self.part.is_empty() { 0 } else { self.number + 1 };
                    self.part = part;
                    self.last = last;
                    return Ok(());
                }
            }
            let Some(record) = session.record_after(self.after)? else {
                return self.advance_aside(session);
            };
            self.after = record.db_version;
            self.part.clear();
            let (origin, _) = session.origin_of(record.head.origin)?;
            let local = record.head.origin == session.meta()?.origin && record.version == record.db_version;
            let skip = self.local.is_some_and(|wanted| wanted != local) || self.have.claims(&origin, record.version);
            self.encoder = if skip { None } else { Some(RecordEncoder::new(session, record)?) };
        }
    }

    /// What is kept aside is served on to others all the same, as the bytes that came.
    fn advance_aside(&mut self, session: &crate::session::Session) -> Result<()> {
        self.encoder = None;
        self.aside = None;
        while self.local != Some(true) {
            let Some((id, part)) = session.aside_after(self.aside_after)? else { break };
            self.aside_after = id;
            let header = *PartReader::new(&part).map_err(|e| corrupt("crsql_aside", e))?.header();
            if self.have.claims(&header.dot.dot.origin, header.dot.dot.version) {
                continue;
            }
            self.number = header.part;
            self.last = header.last;
            self.part = part;
            self.aside = Some(AsidePart { header });
            return Ok(());
        }
        self.done = true;
        Ok(())
    }
}

struct AsidePart {
    header: Header,
}
