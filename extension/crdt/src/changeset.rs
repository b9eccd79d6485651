//! Changesets: what one transaction changed, with current values, as it travels between replicas.
//!
//! A changeset is a sequence of self-contained parts of bounded size (docs/FORMAT.md, "Changeset"). Names and sites are
//! defined in the stream before their first use, so a part can be written in one pass.

use crate::cursor::{DecodeError, Problem, Reader};
use crate::ids::{Dot, Origin, SiteId, MAX_COUNTER, MAX_SEQ, MAX_VERSION, TOKEN_MASK};
use crate::value::{Encoded, ValueRef};
use alloc::vec::Vec;

mod writer;

pub use writer::PartWriter;

const FORMAT: u8 = 1;
const FLAG_CLAIMABLE: u8 = 1;
const FLAG_LAST: u8 = 2;
const FLAG_GROUP: u8 = 4;

/// A part is closed once it is this long (bytes); one row larger than that still travels whole.
pub const PART_TARGET: usize = 128 * 1024;
/// Parts of one changeset.
pub const MAX_PARTS: u64 = 1 << 32;

const OP_DOT: u8 = 0x01;
const OP_TABLE: u8 = 0x02;
const OP_AUTHOR: u8 = 0x03;
const OP_CELLS: u8 = 0x10;
const OP_BASE: u8 = 0x11;
const OP_TOMBSTONE: u8 = 0x12;
const OP_UNIFORM: u8 = 0x13;

/// What is known of a dot besides its cells; it travels with every cell of the dot.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct DotHeader {
    /// The dot.
    pub dot: Dot,
    /// Its random token (48 bits, 0 = not known).
    pub token: u64,
    /// The version of its predecessor at the same origin; 0 = it is the first.
    pub prev: u64,
    /// The predecessor's token; 0 = none or not known.
    pub prev_token: u64,
    /// When it was committed, milliseconds since 1970 by its origin's clock.
    pub commit_ms: u64,
}

/// The head of a part.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Header {
    /// The transaction this changeset belongs to.
    pub dot: DotHeader,
    /// For every cell that the transaction wrote, the changeset holds that write or one that beats it; whoever has
    /// applied all parts may claim (prev, version].
    pub claimable: bool,
    /// No part follows.
    pub last: bool,
    /// The dot stands for nine-value inserts that were given one db_version.
    pub group: bool,
    /// 0 for the first part.
    pub part: u64,
}

/// Which dot a cell carries, by index into the part's dots, its author if not the dot's site, and its seq there.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Stamp {
    /// Index of the dot (0 = the changeset's own).
    pub dot: usize,
    /// Index of the author's site, `None` = the dot's site.
    pub author: Option<usize>,
    /// Position among the writes of that transaction.
    pub seq: u64,
}

/// One cell.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Cell<'a> {
    /// Index into the table's columns.
    pub column: usize,
    /// col_version, from 1.
    pub version: u64,
    /// The write it stems from.
    pub stamp: Stamp,
    /// Its value.
    pub value: Encoded<'a>,
}

/// What a row entry says.
#[derive(Clone, Debug, PartialEq)]
pub enum RowKind<'a> {
    /// The row whole, each cell with its own version and dot; `life` is the insert that this lifetime began with.
    Base {
        /// The write of its `'-1'` row: it was deleted before, or made by a key update.
        sentinel: Option<Stamp>,
        /// The insert.
        life: Stamp,
        /// All cells that the sender holds.
        cells: Vec<Cell<'a>>,
    },
    /// Some cells. `life` stands where the row has a `'-1'` row of its own and no base.
    Cells {
        /// The sender has seen the row whole, or it was made cell by cell.
        born: bool,
        /// The `'-1'` row's write.
        life: Option<Stamp>,
        /// The cells.
        cells: Vec<Cell<'a>>,
    },
    /// The row is deleted.
    Tombstone {
        /// The delete.
        life: Stamp,
    },
    /// A base whose cells are all at version 1 of dot 0, in the table's column order, seqs counted from `seq`.
    Uniform {
        /// The first cell's seq.
        seq: u64,
        /// One value per column of the table.
        values: Vec<Encoded<'a>>,
    },
}

/// A row entry.
#[derive(Clone, Debug, PartialEq)]
pub struct Row<'a> {
    /// Index of the table.
    pub table: usize,
    /// The key in internal form.
    pub key: &'a [u8],
    /// Causal length; 1 for `Uniform`.
    pub cl: u64,
    /// What it says.
    pub kind: RowKind<'a>,
}

/// A table as a part names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableDef<'a> {
    /// Its name at the sender.
    pub name: &'a str,
    /// How many columns the key has.
    pub key_columns: usize,
    /// The other columns' names.
    pub columns: Vec<&'a str>,
}

/// What a part is made of.
#[derive(Clone, Debug, PartialEq)]
pub enum Item<'a> {
    /// Defines the next dot index.
    Dot(DotHeader),
    /// Defines the next author index.
    Author(SiteId),
    /// Defines the next table index.
    Table(TableDef<'a>),
    /// A row.
    Row(Row<'a>),
}

/// Reads one part.
#[derive(Clone, Debug)]
pub struct PartReader<'a> {
    reader: Reader<'a>,
    header: Header,
    dots: usize,
    authors: usize,
    /// Columns of each table, to size `Uniform` and to check indices.
    tables: Vec<usize>,
    /// Room for a row's values.
    values: Vec<Encoded<'a>>,
}

impl<'a> PartReader<'a> {
    /// Reads the head.
    ///
    /// # Errors
    /// Names the field; an unknown format or flag is refused, never skipped.
    pub fn new(bytes: &'a [u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(bytes);
        let start = reader;
        if reader.u8("changeset format")? != FORMAT {
            return Err(start.error("changeset format", Problem::UnknownVersion));
        }
        let start = reader;
        let flags = reader.u8("changeset flags")?;
        if flags & !(FLAG_CLAIMABLE | FLAG_LAST | FLAG_GROUP) != 0 {
            return Err(start.error("changeset flags", Problem::UnknownVersion));
        }
        let part = reader.varint(MAX_PARTS, "part number")?;
        let dot = read_dot(&mut reader)?;
        let header = Header {
            dot,
            claimable: flags & FLAG_CLAIMABLE != 0,
            last: flags & FLAG_LAST != 0,
            group: flags & FLAG_GROUP != 0,
            part,
        };
        Ok(Self { reader, header, dots: 1, authors: 0, tables: Vec::new(), values: Vec::new() })
    }

    /// The head.
    #[must_use]
    pub const fn header(&self) -> &Header {
        &self.header
    }

    /// The next item, `None` at the end.
    ///
    /// # Errors
    /// Names the field and offset; the part must be given up.
    pub fn next_item(&mut self) -> Result<Option<Item<'a>>, DecodeError> {
        if self.reader.is_empty() {
            return Ok(None);
        }
        let start = self.reader;
        let op = self.reader.u8("item")?;
        Ok(Some(match op {
            OP_DOT => {
                self.dots += 1;
                Item::Dot(read_dot(&mut self.reader)?)
            }
            OP_AUTHOR => {
                self.authors += 1;
                Item::Author(SiteId(self.reader.array("author")?))
            }
            OP_TABLE => Item::Table(self.read_table()?),
            OP_CELLS | OP_BASE | OP_TOMBSTONE | OP_UNIFORM => Item::Row(self.read_row(op)?),
            _ => return Err(start.error("item", Problem::UnknownVersion)),
        }))
    }

    /// A row is not needed any more: the next one may have its room.
    pub fn recycle(&mut self, row: Row<'a>) {
        if let RowKind::Uniform { values, .. } = row.kind {
            self.values = values;
        }
    }

    fn read_table(&mut self) -> Result<TableDef<'a>, DecodeError> {
        let name = self.reader.str("table name")?;
        let key_columns = self.index(crate::key::MAX_KEY_COLUMNS + 1, "key columns")?;
        let n = self.reader.count(1, "number of columns")?;
        let columns = (0..n).map(|_| self.reader.str("column name")).collect::<Result<Vec<_>, _>>()?;
        self.tables.push(columns.len());
        Ok(TableDef { name, key_columns, columns })
    }

    fn index(&mut self, below: usize, field: &'static str) -> Result<usize, DecodeError> {
        let start = self.reader;
        let i = self.reader.varint(u64::from(u32::MAX), field)?;
        usize::try_from(i).ok().filter(|i| *i < below).ok_or_else(|| start.error(field, Problem::Invalid))
    }

    fn flags(&mut self, max: u8) -> Result<u8, DecodeError> {
        let start = self.reader;
        let flags = self.reader.u8("row flags")?;
        if flags > max {
            return Err(start.error("row flags", Problem::UnknownVersion));
        }
        Ok(flags)
    }

    fn read_stamp(&mut self) -> Result<Stamp, DecodeError> {
        let dot = self.index(self.dots, "dot index")?;
        let author = self.index(self.authors + 1, "author index")?;
        let seq = self.reader.varint(MAX_SEQ, "seq")?;
        Ok(Stamp { dot, author: author.checked_sub(1), seq })
    }

    fn read_cells(&mut self, columns: usize) -> Result<Vec<Cell<'a>>, DecodeError> {
        let n = self.reader.count(6, "number of cells")?;
        let mut cells = Vec::with_capacity(n);
        for _ in 0..n {
            let column = self.index(columns, "column index")?;
            let version = self.reader.varint(MAX_COUNTER, "col_version")?;
            let stamp = self.read_stamp()?;
            cells.push(Cell { column, version, stamp, value: ValueRef::decode(&mut self.reader)? });
        }
        Ok(cells)
    }

    fn read_row(&mut self, op: u8) -> Result<Row<'a>, DecodeError> {
        let table = self.index(self.tables.len(), "table index")?;
        let columns = self.tables.get(table).copied().unwrap_or(0);
        let key = self.reader.bytes("key")?;
        let start = self.reader;
        let cl = if op == OP_UNIFORM { 1 } else { self.reader.varint(MAX_COUNTER, "causal length")? };
        let deleted = cl % 2 == 0;
        if cl == 0 || deleted != (op == OP_TOMBSTONE) {
            return Err(start.error("causal length", Problem::Invalid));
        }
        let kind = match op {
            OP_UNIFORM => {
                let seq = self.reader.varint(MAX_SEQ, "seq")?;
                let mut values = core::mem::take(&mut self.values);
                values.clear();
                // A value has a byte at least.
                values.reserve(columns.min(self.reader.remaining()));
                for _ in 0..columns {
                    values.push(ValueRef::decode(&mut self.reader)?);
                }
                RowKind::Uniform { seq, values }
            }
            OP_BASE => {
                let flags = self.flags(2)?;
                let life = self.read_stamp()?;
                let sentinel = match flags {
                    0 => None,
                    1 => Some(life),
                    _ => Some(self.read_stamp()?),
                };
                RowKind::Base { sentinel, life, cells: self.read_cells(columns)? }
            }
            OP_TOMBSTONE => RowKind::Tombstone { life: self.read_stamp()? },
            _ => {
                let flags = self.flags(3)?;
                let life = if flags & 2 != 0 { Some(self.read_stamp()?) } else { None };
                RowKind::Cells { born: flags & 1 != 0, life, cells: self.read_cells(columns)? }
            }
        };
        Ok(Row { table, key, cl, kind })
    }
}

fn read_dot(reader: &mut Reader<'_>) -> Result<DotHeader, DecodeError> {
    let origin = Origin { site: SiteId(reader.array("site id")?), epoch: reader.u64_le("epoch")? };
    let start = *reader;
    let version = reader.varint(MAX_VERSION, "version")?;
    let token = reader.varint(TOKEN_MASK, "token")?;
    let prev = reader.varint(MAX_VERSION, "predecessor")?;
    if version == 0 || prev >= version {
        return Err(start.error("version", Problem::Invalid));
    }
    let prev_token = reader.varint(TOKEN_MASK, "predecessor's token")?;
    let commit_ms = reader.varint(u64::MAX, "commit time")?;
    Ok(DotHeader { dot: Dot { origin, version }, token, prev, prev_token, commit_ms })
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::{format, vec};
    use proptest::prelude::*;

    fn header() -> Header {
        let dot = Dot { origin: Origin { site: SiteId([7; 16]), epoch: 9 }, version: 5 };
        let dot = DotHeader { dot, token: 77, prev: 3, prev_token: 66, commit_ms: 1_700_000_000_000 };
        Header { dot, claimable: true, last: true, group: false, part: 0 }
    }

    #[test]
    fn a_row_whose_room_the_one_before_had_is_the_same() {
        let mut w = PartWriter::new(&header());
        let tables = [2, 0, 3].map(|n| w.table("t", 1, ["a", "b", "c"].into_iter().take(n)));
        for (i, table) in (0u32..60).zip(tables.iter().cycle()) {
            w.uniform(*table, &i.to_be_bytes(), u64::from(i));
            (0..[2, 0, 3][i as usize % 3]).for_each(|n| w.value(ValueRef::Integer(i64::from(i) * 10 + n)));
        }
        let bytes = w.finish(true);
        let (mut fresh, mut again) = (PartReader::new(&bytes).unwrap(), PartReader::new(&bytes).unwrap());
        while let Some(item) = fresh.next_item().unwrap() {
            let same = again.next_item().unwrap().unwrap();
            assert_eq!(format!("{item:?}"), format!("{same:?}"));
            if let Item::Row(row) = same {
                again.recycle(row);
            }
        }
        assert!(again.next_item().unwrap().is_none());
    }

    #[test]
    fn every_kind_of_item_round_trips() {
        let h = header();
        let mut w = PartWriter::new(&h);
        let t = w.table("machines", 1, ["status", "cpu"].into_iter());
        w.uniform(t, b"k1", 4);
        w.value(ValueRef::Text(b"ok"));
        w.value(ValueRef::Integer(3));
        let other = DotHeader { dot: Dot { version: 9, ..h.dot.dot }, ..h.dot };
        let (dot, author) = (w.dot(&other), w.author(&SiteId([1; 16])));
        let stamp = Stamp { dot, author: Some(author), seq: 2 };
        w.base(t, b"k2", 3, Some(stamp), Stamp { dot: 0, author: None, seq: 8 }, 1);
        w.cell(1, 6, stamp, ValueRef::Null);
        w.cells(t, b"k3", 1, true, None, 1);
        w.cell(0, 2, stamp, ValueRef::Real(0.5));
        w.tombstone(t, b"k4", 2, stamp);
        let bytes = w.finish(true);

        let mut r = PartReader::new(&bytes).unwrap();
        assert_eq!(r.header(), &h);
        let mut items = vec![];
        while let Some(item) = r.next_item().unwrap() {
            items.push(item);
        }
        assert_eq!(items.len(), 7);
        assert_eq!(items[2], Item::Dot(other));
        let Item::Row(Row { kind: RowKind::Base { sentinel: Some(_), life, cells }, cl: 3, .. }) = &items[4] else {
            panic!("{items:?}")
        };
        assert_eq!((life.seq, cells[0].version, cells[0].stamp), (8, 6, stamp));
        assert_eq!(items[6], Item::Row(Row { table: 0, key: b"k4", cl: 2, kind: RowKind::Tombstone { life: stamp } }));
    }

    proptest! {
        #[test]
        fn garbage_and_cut_or_flipped_parts_never_panic(tail: Vec<u8>, cut in 0usize..200, flip in 0usize..200, bit in 0u8..8) {
            let mut w = PartWriter::new(&header());
            let t = w.table("t", 1, ["a"].into_iter());
            w.uniform(t, b"k", 0);
            w.value(ValueRef::Text(b"some text"));
            w.tombstone(t, b"k", 2, Stamp { dot: 0, author: None, seq: 1 });
            let mut bytes = w.finish(true);
            bytes.truncate(bytes.len().saturating_sub(cut % 80));
            bytes.extend(tail);
            let n = bytes.len().max(1);
            if let Some(b) = bytes.get_mut(flip % n) { *b ^= 1 << bit; }
            if let Ok(mut r) = PartReader::new(&bytes) {
                while let Ok(Some(_)) = r.next_item() {}
            }
        }
    }
}
