//! Log chunks: which rows and columns one dot touched, keys only, no values.
//!
//! A chunk is self-contained, about a database page long, and read from start to end. Entries stand in seq order.

use crate::cursor::{put_varint, DecodeError, Problem, Reader};
use crate::ids::MAX_SEQ;
use alloc::vec::Vec;

const FORMAT: u8 = 1;
const KIND_TABLE: u8 = 0;
const KIND_BASE: u8 = 1;
const KIND_MASK: u8 = 2;
const KIND_TOMBSTONE: u8 = 3;
const KIND_SENTINEL: u8 = 4;
const KIND_REBASE: u8 = 5;
const SEQ_JUMP: u8 = 0x08;

/// A chunk is closed once it is this long: it must fit a 4096-byte page without overflow.
pub const CHUNK_TARGET: usize = 3900;
/// Column ids are below SQLite's own limit, with room for those that were dropped.
pub const MAX_COLUMN_ID: u32 = 1 << 20;

/// What an entry says of its row.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// Inserted, all columns of the generation; the first cell has the entry's seq.
    Base,
    /// As `Base`, with a `'-1'` row at the entry's seq and the cells after it.
    Rebase,
    /// Columns written; the first has the entry's seq, the others follow.
    Mask,
    /// Deleted.
    Tombstone,
    /// A `'-1'` row and nothing else.
    Sentinel,
}

/// The table an entry belongs to, as it was then.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct TableRef {
    /// Table id.
    pub id: u32,
    /// Schema generation.
    pub generation: u32,
    /// Columns (besides the key) in that generation: how many seqs a base takes.
    pub columns: u32,
}

/// One entry; its key and columns are read from the reader.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Entry {
    /// What it says.
    pub kind: Kind,
    /// Its table.
    pub table: TableRef,
    /// seq of the first write it names.
    pub seq: u64,
}

impl Entry {
    /// How many seqs it takes; `named` is the number of columns a mask names.
    #[must_use]
    pub const fn width(kind: Kind, columns: u32, named: usize) -> u64 {
        match kind {
            Kind::Base if columns == 0 => 1,
            Kind::Base => columns as u64,
            Kind::Rebase => columns as u64 + 1,
            Kind::Mask => named as u64,
            Kind::Tombstone | Kind::Sentinel => 1,
        }
    }
}

/// Writes a chunk.
#[derive(Clone, Debug, Default)]
pub struct ChunkWriter {
    out: Vec<u8>,
    key: Vec<u8>,
    table: TableRef,
    next_seq: u64,
    entries: u64,
}

impl ChunkWriter {
    /// An empty chunk.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Bytes so far.
    #[must_use]
    pub fn size(&self) -> usize {
        self.out.len()
    }

    /// Whether nothing was written.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.entries == 0
    }

    /// Appends an entry. `columns` are the ids a mask names, ascending; empty otherwise.
    pub fn push(&mut self, kind: Kind, table: TableRef, key: &[u8], seq: u64, columns: &[u32]) {
        if self.out.is_empty() {
            // Room for the entry of a transaction of one row.
            self.out.reserve(64);
            self.out.push(FORMAT);
        }
        if table != self.table || self.entries == 0 {
            self.out.push(KIND_TABLE);
            put_varint(&mut self.out, u64::from(table.id));
            put_varint(&mut self.out, u64::from(table.generation));
            put_varint(&mut self.out, u64::from(table.columns));
            self.table = table;
            self.key.clear();
        }
        let jump = seq != self.next_seq;
        let code = match kind {
            Kind::Base => KIND_BASE,
            Kind::Mask => KIND_MASK,
            Kind::Tombstone => KIND_TOMBSTONE,
            Kind::Sentinel => KIND_SENTINEL,
            Kind::Rebase => KIND_REBASE,
        };
        self.out.push(code | if jump { SEQ_JUMP } else { 0 });
        if jump {
            put_varint(&mut self.out, seq);
        }
        self.put_key(key);
        if kind == Kind::Mask {
            put_varint(&mut self.out, columns.len() as u64);
            let mut last = 0;
            for id in columns {
                put_varint(&mut self.out, u64::from(id - last));
                last = *id;
            }
        }
        self.next_seq = seq.saturating_add(Entry::width(kind, table.columns, columns.len()));
        self.entries += 1;
    }

    fn put_key(&mut self, key: &[u8]) {
        let shared = self.key.iter().zip(key).take_while(|(a, b)| a == b).count();
        let rest = key.get(shared..).unwrap_or_default();
        put_varint(&mut self.out, shared as u64);
        put_varint(&mut self.out, rest.len() as u64);
        self.out.extend_from_slice(rest);
        self.key.truncate(shared);
        self.key.extend_from_slice(rest);
    }

    /// Takes a buffer that [`ChunkWriter::take`] gave, to be written to again.
    pub fn recycle(&mut self, mut bytes: Vec<u8>) {
        if self.out.is_empty() && bytes.capacity() <= 2 * CHUNK_TARGET {
            bytes.clear();
            self.out = bytes;
        }
    }

    /// The finished bytes; the writer is empty again.
    pub fn take(&mut self) -> Vec<u8> {
        let out = core::mem::take(&mut self.out);
        self.key.clear();
        self.table = TableRef::default();
        self.next_seq = 0;
        self.entries = 0;
        out
    }
}

/// Reads a chunk.
#[derive(Clone, Debug)]
pub struct ChunkReader<'a> {
    reader: Reader<'a>,
    key: Vec<u8>,
    columns: Vec<u32>,
    table: Option<TableRef>,
    next_seq: u64,
}

impl<'a> ChunkReader<'a> {
    /// Reads the head. Empty bytes are an empty chunk.
    ///
    /// # Errors
    /// An unknown format is refused.
    pub fn new(bytes: &'a [u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(bytes);
        if !bytes.is_empty() && reader.u8("log chunk format")? != FORMAT {
            return Err(Reader::new(bytes).error("log chunk format", Problem::UnknownVersion));
        }
        Ok(Self { reader, key: Vec::new(), columns: Vec::new(), table: None, next_seq: 0 })
    }

    /// The next entry, `None` at the end.
    ///
    /// # Errors
    /// Names the field and offset; an unknown kind stops, it is never skipped.
    pub fn next_entry(&mut self) -> Result<Option<Entry>, DecodeError> {
        loop {
            if self.reader.is_empty() {
                return Ok(None);
            }
            let start = self.reader;
            let op = self.reader.u8("log entry")?;
            if op == KIND_TABLE {
                self.table = Some(TableRef {
                    id: self.small(u32::MAX, "table id")?,
                    generation: self.small(u32::MAX, "generation")?,
                    columns: self.small(MAX_COLUMN_ID, "columns")?,
                });
                self.key.clear();
                continue;
            }
            let kind = match op & !SEQ_JUMP {
                KIND_BASE => Kind::Base,
                KIND_MASK => Kind::Mask,
                KIND_TOMBSTONE => Kind::Tombstone,
                KIND_SENTINEL => Kind::Sentinel,
                KIND_REBASE => Kind::Rebase,
                _ => return Err(start.error("log entry", Problem::UnknownVersion)),
            };
            let table = self.table.ok_or_else(|| start.error("log entry", Problem::Invalid))?;
            let seq = if op & SEQ_JUMP != 0 { self.reader.varint(MAX_SEQ, "seq")? } else { self.next_seq };
            self.read_key()?;
            self.columns.clear();
            if kind == Kind::Mask {
                self.read_columns()?;
            }
            self.next_seq = seq.saturating_add(Entry::width(kind, table.columns, self.columns.len()));
            return Ok(Some(Entry { kind, table, seq }));
        }
    }

    /// The key of the entry that was read last.
    #[must_use]
    pub fn key(&self) -> &[u8] {
        &self.key
    }

    /// The columns that the mask read last names.
    #[must_use]
    pub fn columns(&self) -> &[u32] {
        &self.columns
    }

    fn small(&mut self, max: u32, field: &'static str) -> Result<u32, DecodeError> {
        let start = self.reader;
        u32::try_from(self.reader.varint(u64::from(max), field)?).map_err(|_| start.error(field, Problem::TooLarge))
    }

    fn read_key(&mut self) -> Result<(), DecodeError> {
        let start = self.reader;
        let shared = self.reader.varint(u64::from(u32::MAX), "shared key bytes")?;
        match usize::try_from(shared) {
            Ok(shared) if shared <= self.key.len() => self.key.truncate(shared),
            _ => return Err(start.error("shared key bytes", Problem::Invalid)),
        }
        self.key.extend_from_slice(self.reader.bytes("key")?);
        Ok(())
    }

    fn read_columns(&mut self) -> Result<(), DecodeError> {
        let n = self.reader.count(1, "masked columns")?;
        let mut last = 0u32;
        for i in 0..n {
            let start = self.reader;
            let delta = self.small(MAX_COLUMN_ID, "column id")?;
            last = last.saturating_add(delta);
            if (i > 0 && delta == 0) || last > MAX_COLUMN_ID {
                return Err(start.error("column id", Problem::Invalid));
            }
            self.columns.push(last);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;
    use proptest::prelude::*;

    type Plain = (Kind, TableRef, Vec<u8>, u64, Vec<u32>);

    fn any_entry() -> impl Strategy<Value = Plain> {
        let kind = prop_oneof![
            Just(Kind::Base),
            Just(Kind::Mask),
            Just(Kind::Tombstone),
            Just(Kind::Sentinel),
            Just(Kind::Rebase)
        ];
        let columns = proptest::collection::btree_set(0u32..300, 1..5);
        let key = proptest::collection::vec(0u8..3, 0..12);
        (kind, 1u32..4, 0u32..5, key, 0u64..200, columns).prop_map(|(kind, id, n, key, seq, cols)| {
            let cols = if kind == Kind::Mask { cols.into_iter().collect() } else { vec![] };
            (kind, TableRef { id, generation: 1, columns: n }, key, seq, cols)
        })
    }

    proptest! {
        #[test]
        fn chunks_round_trip(entries in proptest::collection::vec(any_entry(), 0..20)) {
            let mut w = ChunkWriter::new();
            for (kind, table, key, seq, columns) in &entries { w.push(*kind, *table, key, *seq, columns); }
            let bytes = w.take();
            let mut r = ChunkReader::new(&bytes).unwrap();
            let mut back: Vec<Plain> = vec![];
            while let Some(e) = r.next_entry().unwrap() {
                back.push((e.kind, e.table, r.key().to_vec(), e.seq, r.columns().to_vec()));
            }
            prop_assert_eq!(back, entries);
        }

        #[test]
        fn garbage_never_panics(bytes: Vec<u8>) {
            let mut bytes = bytes;
            if let Some(b) = bytes.first_mut() { *b = FORMAT; }
            if let Ok(mut r) = ChunkReader::new(&bytes) { while let Ok(Some(_)) = r.next_entry() {} }
        }
    }

    #[test]
    fn a_run_of_inserts_costs_little_more_than_its_keys() {
        let mut w = ChunkWriter::new();
        let table = TableRef { id: 1, generation: 1, columns: 5 };
        for i in 0u64..100 {
            w.push(Kind::Base, table, &(1000 + i).to_be_bytes(), i * 5, &[]);
        }
        assert!(w.size() < 100 * 5, "{} bytes", w.size());
    }
}
