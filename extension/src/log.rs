//! Writing the log: records (one or more per dot) and their chunks; no values.

use crate::session::{corrupt, Session};
use crate::sqlite::{Error, Result};
use crate::young::Fresh;
use starling_crdt::changeset::DotHeader;
use starling_crdt::ids::MAX_VERSION;
use starling_crdt::log_chunk::{ChunkWriter, Entry, Kind, TableRef, CHUNK_TARGET};
use starling_crdt::record::{flags, Head, Record as Stored, Side};
use starling_crdt::row_clock::Stamp;
use std::time::{SystemTime, UNIX_EPOCH};

/// Chunks at most this long stay in the record itself.
const INLINE_MAX: usize = 3700;

/// The newest record, and the newest local dot as of it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tail {
    /// db_version of the newest record; 0 = the log is empty.
    pub db_version: u64,
    /// Its token.
    pub token: u64,
    /// The oldest of the records whose young clocks are in force.
    pub young: Option<u64>,
    /// Version of the newest dot of this site in its present epoch; 0 = none yet.
    pub last_local: u64,
    /// Its token.
    pub last_local_token: u64,
    /// Entries superseded and not dropped yet.
    pub garbage: u64,
    /// All entries of the log.
    pub weight: u64,
}

/// A record that this transaction writes.
#[derive(Clone, Copy, Debug)]
pub struct OpenRecord {
    /// Its key.
    pub db_version: u64,
    /// Its dot.
    pub header: DotHeader,
    /// Ordinal of the dot's origin.
    pub origin: u32,
    /// `flags`.
    pub flags: u8,
    chunks: u64,
    written: bool,
    last_seq: u64,
}

impl OpenRecord {
    /// Whether nothing of it is on disk yet.
    pub const fn is_new(&self) -> bool {
        !self.written && self.chunks == 0
    }

    /// Its dot, as the first of its writes bears it.
    pub fn stamp(&self) -> Stamp {
        Stamp { origin: self.origin, version: self.header.dot.version, seq: 0, author: 0 }
    }
}

/// Milliseconds since 1970; 0 where the clock stands before that.
pub fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis() as u64)
}

impl Session {
    /// The newest record.
    pub fn tail(&self) -> Result<Tail> {
        if let Some(tail) = self.tx.borrow().tail {
            return Ok(tail);
        }
        let meta = self.meta()?;
        let tail = self.newest_record()?.map_or_else(Tail::default, |newest| {
            let Head { side, token, garbage, weight, .. } = newest.head;
            let (last, last_token) = match side {
                Side::Local { .. } => (newest.db_version, token),
                Side::Foreign { last_local, last_local_token, .. } => (last_local, last_local_token),
            };
            // What lies before the present epoch belongs to another origin.
            let (last_local, last_local_token) = if last > meta.epoch_start { (last, last_token) } else { (0, 0) };
            Tail {
                db_version: newest.db_version,
                token,
                young: newest.oldest_in_force(),
                last_local,
                last_local_token,
                garbage,
                weight,
            }
        });
        let mut tx = self.tx_mut();
        if tx.active {
            tx.tail = Some(tail);
        }
        Ok(tail)
    }

    /// The newest record has changed, or the epoch: it is to be read again. What the commit before left behind is no
    /// better, in case this transaction has not asked for it yet.
    pub fn forget_tail(&self) {
        self.tx_mut().tail = None;
        self.known_tail.set(None);
    }

    /// Starts or goes on with the record of this transaction's local dot.
    pub fn open_local(&self) -> Result<OpenRecord> {
        let (open, requested) = {
            let tx = self.tx.borrow();
            (tx.local, tx.requested)
        };
        if let Some(record) = open.filter(|r| r.db_version >= requested) {
            return Ok(record);
        }
        self.check_boot()?;
        let meta = self.meta()?;
        let tail = self.tail()?;
        let db_version = (tail.db_version + 1).max(requested);
        if db_version > MAX_VERSION {
            return Err(Error::msg("starling: the database has used up its versions (2^62)"));
        }
        let mut header = DotHeader {
            token: self.token(),
            prev: tail.last_local,
            prev_token: tail.last_local_token,
            commit_ms: now_ms(),
            ..DotHeader::default()
        };
        header.dot.origin.site = meta.site;
        header.dot.origin.epoch = meta.epoch;
        header.dot.version = db_version;
        Ok(OpenRecord {
            db_version,
            header,
            origin: meta.origin,
            flags: flags::WHOLE,
            chunks: 0,
            written: false,
            last_seq: 0,
        })
    }

    /// Starts a record for a foreign dot, under a db_version of its own.
    ///
    /// A dot of this very origin that is newer than the newest known here means that commits were lost: what is written
    /// from now on must not lie among them, so the site goes on in a new epoch (S1).
    pub fn open_foreign(&self, header: &DotHeader, origin: u32, flags: u8) -> Result<OpenRecord> {
        if origin == self.meta()?.origin && header.dot.version > self.tail()?.last_local {
            self.new_epoch()?;
        }
        // Its record does not say how far back young clocks go.
        self.age()?;
        let tail = self.tail()?;
        let db_version = tail.db_version + 1;
        if db_version > MAX_VERSION {
            return Err(Error::msg("starling: the database has used up its versions (2^62)"));
        }
        Ok(OpenRecord { db_version, header: *header, origin, flags, chunks: 0, written: false, last_seq: 0 })
    }
}

/// Writes entries into a record.
pub struct LogWriter<'s> {
    session: &'s Session,
    /// The record.
    pub record: OpenRecord,
    chunk: ChunkWriter,
    garbage: u64,
    weight: u64,
    /// Young clocks that the record carries, and as they are stored.
    young: Option<(Fresh, Vec<u8>)>,
}

impl<'s> LogWriter<'s> {
    /// Goes on with a record.
    pub fn new(session: &'s Session, record: OpenRecord) -> Self {
        Self { session, record, chunk: session.spare_chunk.take(), garbage: 0, weight: 0, young: None }
    }

    /// Adds an entry.
    pub fn push(&mut self, kind: Kind, table: TableRef, key: &[u8], seq: u64, columns: &[u32]) -> Result<()> {
        if seq < self.record.last_seq {
            self.record.flags |= flags::UNSORTED;
        }
        self.record.last_seq = seq + Entry::width(kind, table.columns, columns.len()).saturating_sub(1);
        self.weight += 1;
        self.chunk.push(kind, table, key, seq, columns);
        if self.chunk.size() >= CHUNK_TARGET {
            self.write_chunk()?;
        }
        Ok(())
    }

    /// Counts cells of older records that this one supersedes.
    pub fn superseded(&mut self, cells: u64) {
        self.garbage += cells;
    }

    /// Whether all entries stand in the record itself, as far as they have come.
    pub fn is_inline(&self) -> bool {
        !self.record.written && self.record.chunks == 0 && self.chunk.size() <= INLINE_MAX
    }

    /// The record carries these clocks; `slots` has them in the order of its entries.
    pub fn carry(&mut self, fresh: Fresh, slots: Vec<u8>) {
        self.young = Some((fresh, slots));
    }

    /// As [`LogWriter::carry`], of the only clock of the only entry.
    pub fn carry_only(&mut self, fresh: Fresh) {
        let clock = fresh.first().map(|(_, _, clock)| clock.as_slice());
        let mut slots = Vec::with_capacity(clock.map_or(0, <[u8]>::len) + 8);
        starling_crdt::young::encode([clock], &mut slots);
        self.carry(fresh, slots);
    }

    fn write_chunk(&mut self) -> Result<()> {
        let bytes = self.chunk.take();
        let mut add =
            self.session.fixed("INSERT INTO main.crsql_log_chunk(db_version, n, entries) VALUES(?1, ?2, ?3)")?;
        add.bind_int(1, self.record.db_version.cast_signed())?;
        add.bind_int(2, self.record.chunks.cast_signed())?;
        add.bind_blob(3, &bytes)?;
        add.execute()?;
        self.record.chunks += 1;
        Ok(())
    }

    /// As [`LogWriter::finish`], but a record without any entry is not made.
    pub fn finish_if_any(self) -> Result<Option<OpenRecord>> {
        if self.chunk.is_empty() && self.record.chunks == 0 && !self.record.written {
            return Ok(None);
        }
        self.finish().map(Some)
    }

    /// Writes what is left; the record is then on disk as far as it goes, and may be gone on with.
    pub fn finish(mut self) -> Result<OpenRecord> {
        if self.session.tx.borrow().superseded > 0 {
            self.garbage += std::mem::take(&mut self.session.tx_mut().superseded);
        }
        if self.record.written {
            if !self.chunk.is_empty() {
                self.write_chunk()?;
            }
            let newest = self.session.newest_version()?;
            let count = |head: &mut Head| {
                head.garbage = head.garbage.saturating_add(self.garbage);
                head.weight = head.weight.saturating_add(self.weight);
            };
            self.session.amend(self.record.db_version, |record| {
                (record.head.chunks, record.head.flags) = (self.record.chunks, self.record.flags);
                if record.db_version == newest {
                    count(&mut record.head);
                }
            })?;
            // Another record may have come since: the totals in force are the newest one's.
            if newest != self.record.db_version {
                self.session.amend(newest, |record| count(&mut record.head))?;
            }
            self.session.forget_tail();
            return Ok(self.record);
        }
        if self.record.chunks > 0 || self.chunk.size() > INLINE_MAX {
            self.write_chunk()?;
        }
        let entries = self.chunk.take();
        self.insert_record(&entries)?;
        self.chunk.recycle(entries);
        self.session.spare_chunk.set(self.chunk);
        self.record.written = true;
        Ok(self.record)
    }

    fn insert_record(&mut self, entries: &[u8]) -> Result<()> {
        let session = self.session;
        let (meta, tail) = (session.meta()?, session.tail()?);
        let carried = self.young.take();
        let record = &self.record;
        let header = &record.header;
        let local = record.origin == meta.origin && header.dot.version == record.db_version;
        let (garbage, weight) = (tail.garbage + self.garbage, tail.weight + self.weight);
        let young = tail.young.or(carried.is_some().then_some(record.db_version)).filter(|_| local);
        // The newest record may be gone already, if this one is what outlives it; whoever drops a record makes the clocks age first.
        let kept = session.tx.borrow().active && !session.tx.borrow().aged;
        let is_next = kept && record.db_version == tail.db_version + 1;
        let side = if local {
            Side::Local { reaches: young.map(|oldest| record.db_version.saturating_sub(oldest)) }
        } else {
            let (last_local, last_local_token) = (tail.last_local, tail.last_local_token);
            Side::Foreign { version: header.dot.version, last_local, last_local_token }
        };
        let head = Head {
            origin: record.origin,
            side,
            token: header.token,
            prev: header.prev,
            prev_token: header.prev_token,
            commit_ms: header.commit_ms,
            flags: record.flags,
            chunks: record.chunks,
            garbage,
            weight,
        };
        let slots = carried.as_ref().map(|(_, slots)| slots.as_slice());
        session.add_record(record.db_version, &Stored { head, young: slots, entries }, is_next)?;
        if session.db.last_insert_rowid() != record.db_version.cast_signed() {
            return Err(corrupt("the log", format!("it has records after {}, its newest", tail.db_version)));
        }
        let (last_local, last_local_token) =
            if local { (record.db_version, header.token) } else { (tail.last_local, tail.last_local_token) };
        let (db_version, token) = (record.db_version, header.token);
        let after = Tail { db_version, token, young, last_local, last_local_token, garbage, weight };
        session.note_young(&tail, &after, carried.map(|(fresh, _)| fresh).unwrap_or_default());
        let mut tx = session.tx_mut();
        if tx.active {
            tx.first_version.get_or_insert(db_version);
            tx.tail = Some(after);
        }
        Ok(())
    }
}
