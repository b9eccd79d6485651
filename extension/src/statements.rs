//! What a connection's cached statements are known by.

use crate::records::{Find, Layout};
use std::hash::{Hash, Hasher};

/// Which cached statement; with a table id (0 = none) it is the cache's key.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Sql {
    /// A statement with a text of its own.
    Fixed(&'static str),
    /// Per table.
    SelectRow,
    /// Per table: many rows.
    SelectBatch,
    /// Per table.
    RowExists,
    /// Per table: the whole row.
    InsertAll,
    /// Per table.
    Defaults,
    /// Per table.
    DeleteRow,
    /// Per table: the clock block that a key belongs to.
    BlockAt,
    /// Per table: the first clock block.
    LowestBlock,
    /// Per table: the first key of the block after a block.
    NextBlock,
    /// Per table.
    PutBlock,
    /// Per table.
    DropBlock,
    /// Per table.
    AllBlocks,
    /// Per table.
    AnyClock,
    /// Per table: whether its inbox holds anything.
    InboxAny,
    /// Per table: the rows of its inbox after a number.
    InboxRows,
    /// Per table: empties its inbox.
    InboxClear,
    /// Over the log's records.
    Records(Find, Layout),
    /// Writes a record whose fields are columns: with this verb.
    WriteColumns(&'static str),
}

/// The statements of every small transaction, each of which has a place of its own: to look one up costs a tenth of running it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Hot {
    /// Makes the journal part of the open transaction.
    Join,
    /// A log record that comes after all others.
    AddNext,
}

impl Hot {
    /// How many there are.
    pub const ALL: usize = 2;
}

impl Hash for Sql {
    /// A text is known by its place in memory: reading it would cost as much as running it.
    fn hash<H: Hasher>(&self, state: &mut H) {
        match self {
            Self::Fixed(text) | Self::WriteColumns(text) => text.as_ptr().hash(state),
            Self::Records(find, _) => (*find as u32).hash(state),
            other => std::mem::discriminant(other).hash(state),
        }
    }
}

/// A hasher for the few dozen statements of a connection: a multiply and a rotate per word (as FxHash in rustc).
#[derive(Clone, Copy, Default)]
pub struct QuickHasher(u64);

impl Hasher for QuickHasher {
    fn finish(&self) -> u64 {
        self.0 ^ (self.0 >> 32)
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|b| self.write_u64(u64::from(*b)));
    }

    fn write_u32(&mut self, n: u32) {
        self.write_u64(u64::from(n));
    }

    fn write_u64(&mut self, n: u64) {
        self.0 = (self.0.rotate_left(5) ^ n).wrapping_mul(0x517c_c1b7_2722_0a95);
    }

    fn write_usize(&mut self, n: usize) {
        self.write_u64(n as u64);
    }

    fn write_isize(&mut self, n: isize) {
        self.write_u64(n as u64);
    }
}
