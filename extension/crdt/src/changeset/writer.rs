//! Writing one part of a changeset, in one pass. What it writes, `PartReader` reads.

use super::{
    DotHeader, Header, Stamp, FLAG_CLAIMABLE, FLAG_GROUP, FLAG_LAST, FORMAT, OP_AUTHOR, OP_BASE, OP_CELLS, OP_DOT,
    OP_TABLE, OP_TOMBSTONE, OP_UNIFORM,
};
use crate::cursor::{put_bytes, put_varint};
use crate::ids::SiteId;
use crate::value::ValueRef;
use alloc::vec::Vec;

/// Writes one part.
#[derive(Clone, Debug)]
pub struct PartWriter {
    out: Vec<u8>,
    dots: usize,
    authors: usize,
    tables: usize,
}

impl PartWriter {
    /// Starts a part; `header.last` is set by [`PartWriter::finish`].
    #[must_use]
    pub fn new(header: &Header) -> Self {
        let mut out = Vec::with_capacity(512);
        out.push(FORMAT);
        out.push(if header.claimable { FLAG_CLAIMABLE } else { 0 } | if header.group { FLAG_GROUP } else { 0 });
        put_varint(&mut out, header.part);
        put_dot(&mut out, &header.dot);
        Self { out, dots: 1, authors: 0, tables: 0 }
    }

    /// Bytes written so far.
    #[must_use]
    pub fn size(&self) -> usize {
        self.out.len()
    }

    /// Defines a dot, returns its index.
    pub fn dot(&mut self, dot: &DotHeader) -> usize {
        self.out.push(OP_DOT);
        put_dot(&mut self.out, dot);
        self.dots += 1;
        self.dots - 1
    }

    /// Defines an author, returns its index.
    pub fn author(&mut self, site: &SiteId) -> usize {
        self.out.push(OP_AUTHOR);
        self.out.extend_from_slice(&site.0);
        self.authors += 1;
        self.authors - 1
    }

    /// Defines a table, returns its index.
    pub fn table<'n>(
        &mut self,
        name: &str,
        key_columns: usize,
        columns: impl ExactSizeIterator<Item = &'n str>,
    ) -> usize {
        self.out.push(OP_TABLE);
        put_bytes(&mut self.out, name.as_bytes());
        put_varint(&mut self.out, key_columns as u64);
        put_varint(&mut self.out, columns.len() as u64);
        for column in columns {
            put_bytes(&mut self.out, column.as_bytes());
        }
        self.tables += 1;
        self.tables - 1
    }

    /// Starts a uniform row; exactly one value per column must follow through [`PartWriter::value`].
    pub fn uniform(&mut self, table: usize, key: &[u8], seq: u64) {
        self.row_head(OP_UNIFORM, table, key);
        put_varint(&mut self.out, seq);
    }

    /// Appends a value to the row that was begun.
    pub fn value(&mut self, value: ValueRef<'_>) {
        value.encode(&mut self.out);
    }

    /// Starts a whole row of `n` cells, which follow through [`PartWriter::cell`].
    pub fn base(&mut self, table: usize, key: &[u8], cl: u64, sentinel: Option<Stamp>, life: Stamp, n: usize) {
        self.row_head(OP_BASE, table, key);
        put_varint(&mut self.out, cl);
        self.out.push(match sentinel {
            None => 0,
            Some(s) if s == life => 1,
            Some(_) => 2,
        });
        self.stamp(life);
        if let Some(sentinel) = sentinel.filter(|s| *s != life) {
            self.stamp(sentinel);
        }
        put_varint(&mut self.out, n as u64);
    }

    /// Starts a row of which only `n` cells are named.
    pub fn cells(&mut self, table: usize, key: &[u8], cl: u64, born: bool, life: Option<Stamp>, n: usize) {
        self.row_head(OP_CELLS, table, key);
        put_varint(&mut self.out, cl);
        self.out.push(u8::from(born) | if life.is_some() { 2 } else { 0 });
        if let Some(life) = life {
            self.stamp(life);
        }
        put_varint(&mut self.out, n as u64);
    }

    /// Appends a cell to the row that was begun.
    pub fn cell(&mut self, column: usize, version: u64, stamp: Stamp, value: ValueRef<'_>) {
        put_varint(&mut self.out, column as u64);
        put_varint(&mut self.out, version);
        self.stamp(stamp);
        value.encode(&mut self.out);
    }

    /// A deleted row.
    pub fn tombstone(&mut self, table: usize, key: &[u8], cl: u64, life: Stamp) {
        self.row_head(OP_TOMBSTONE, table, key);
        put_varint(&mut self.out, cl);
        self.stamp(life);
    }

    /// Something that the dot wrote is left out: the changeset may not be claimed after all.
    pub fn not_claimable(&mut self) {
        if let Some(flags) = self.out.get_mut(1) {
            *flags &= !FLAG_CLAIMABLE;
        }
    }

    /// The finished bytes.
    #[must_use]
    pub fn finish(mut self, last: bool) -> Vec<u8> {
        if let (true, Some(flags)) = (last, self.out.get_mut(1)) {
            *flags |= FLAG_LAST;
        }
        self.out
    }

    fn row_head(&mut self, op: u8, table: usize, key: &[u8]) {
        self.out.push(op);
        put_varint(&mut self.out, table as u64);
        put_bytes(&mut self.out, key);
    }

    fn stamp(&mut self, stamp: Stamp) {
        put_varint(&mut self.out, stamp.dot as u64);
        put_varint(&mut self.out, stamp.author.map_or(0, |a| a as u64 + 1));
        put_varint(&mut self.out, stamp.seq);
    }
}

fn put_dot(out: &mut Vec<u8>, dot: &DotHeader) {
    out.extend_from_slice(&dot.dot.origin.site.0);
    out.extend_from_slice(&dot.dot.origin.epoch.to_le_bytes());
    put_varint(out, dot.dot.version);
    put_varint(out, dot.token);
    put_varint(out, dot.prev);
    put_varint(out, dot.prev_token);
    put_varint(out, dot.commit_ms);
}
