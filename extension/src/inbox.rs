//! The inbox of a table in portable capture: what its plain triggers wrote, taken into the journal.
//!
//! A drain takes whole transactions, in their order, under the write lock, and the flush of the same transaction gives them
//! a version. Invariant: a row of an inbox is in the journal or in the log once, or it still stands in the inbox; all of it
//! is one SQLite transaction, so a crash or a rollback at any point leaves it where it was.

use crate::catalog::Table;
use crate::journal_table::insertion;
use crate::schema::TableInfo;
use crate::session::{Session, Sql};
use crate::sqlgen::TagOp;
use crate::sqlite::{codes, Error, Result, Stmt};
use starling_crdt::key;
use starling_crdt::local::{TouchKind, MASK_BITS};
use std::collections::BTreeSet;
use std::rc::Rc;

/// Highest bit of an inbox row's mask: masks stay positive SQL integers.
pub const MAX_MASK_BIT: u32 = 61;

/// The name of a table's inbox.
pub fn inbox_name(table: u32) -> String {
    format!("crsql_inbox_{table}")
}

/// How a trigger's SQL names a table's inbox, and no other's.
pub fn into_inbox(table: u32) -> String {
    format!("INTO {}(", inbox_name(table))
}

/// The table whose inbox a trigger's SQL names.
pub fn inbox_in(sql: &str) -> Option<u32> {
    sql.rsplit_once("INTO crsql_inbox_")?.1.split('(').next()?.parse().ok()
}

/// What a row of an inbox says happened.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct InboxTag {
    /// The operation.
    pub op: TagOp,
    /// For updates: the column id that bit 0 of the mask stands for.
    pub first: u32,
}

impl InboxTag {
    /// As an integer.
    pub fn encode(self) -> i64 {
        (i64::from(self.first) << 3) | self.op as i64
    }

    /// Back from an integer; `None` if it is none.
    pub fn decode(tag: i64) -> Option<Self> {
        let op = TagOp::of(tag & 7)?;
        Some(Self { op, first: u32::try_from(tag >> 3).ok()? })
    }
}

fn slots(table: &TableInfo) -> String {
    (0..table.keys.len()).map(|i| format!(", k{i}")).collect()
}

/// The text of an inbox's statements.
pub fn sql(table: &TableInfo, kind: Sql) -> String {
    let (inbox, slots) = (inbox_name(table.id), slots(table));
    match kind {
        Sql::InboxRows => format!("SELECT n, tag, mask{slots} FROM main.{inbox} WHERE n > ?1 ORDER BY n"),
        Sql::InboxClear => format!("DELETE FROM main.{inbox}"),
        _ => format!("SELECT 1 FROM main.{inbox} LIMIT 1"),
    }
}

/// The inbox itself. Its key columns have no type, so that keys are kept as they are.
pub fn create(table: &TableInfo) -> String {
    format!("CREATE TABLE main.{}(n INTEGER PRIMARY KEY, tag, mask{})", inbox_name(table.id), slots(table))
}

/// Keys that an insert was about to find taken: it replaces that row, or it is ignored and nothing follows.
type Overwritten = BTreeSet<Vec<u8>>;

/// A row of an inbox as a touch.
struct Taken {
    n: i64,
    tag: InboxTag,
    mask: u64,
    key: Vec<u8>,
}

impl Taken {
    fn read(rows: &Stmt, keys: usize) -> Result<Self> {
        let (n, tag) = (rows.column_int(0), rows.column_int(1));
        let tag = InboxTag::decode(tag)
            .ok_or_else(|| crate::session::corrupt("an inbox", format!("row {n} has the tag {tag}")))?;
        let mut key = Vec::new();
        key::encode((0..keys).map(|i| key::without_negative_zero(rows.column(3 + i))), &mut key);
        Ok(Self { n, tag, mask: rows.column_int(2).cast_unsigned(), key })
    }
}

impl Session {
    /// Whether a table has an inbox of the shape that its key needs. A rebuild with another key leaves one that says nothing
    /// any more.
    pub fn inbox_fits(&self, info: &TableInfo) -> Result<bool> {
        let mut columns = self.db.prepare_transient(&format!("PRAGMA main.table_info({})", inbox_name(info.id)))?;
        let mut n = 0;
        while columns.step()? {
            n += 1;
        }
        Ok(n == 3 + info.keys.len())
    }

    /// Tables whose writes go through an inbox.
    fn portable_tables(&self) -> Result<Rc<[Rc<Table>]>> {
        if let Some(known) = &self.catalog.borrow().portable {
            return Ok(Rc::clone(known));
        }
        let mut tables = Vec::new();
        for id in self.captured_by_inbox()? {
            tables.extend(self.table(id)?.filter(|t| t.portable));
        }
        let tables: Rc<[Rc<Table>]> = tables.into();
        self.catalog.borrow_mut().portable = Some(Rc::clone(&tables));
        Ok(tables)
    }

    /// Takes what stands in the inboxes into the journal of the open write transaction, to be flushed with it.
    pub fn take_inboxes(&self) -> Result<()> {
        let fresh = {
            let tx = self.tx.borrow();
            // In the middle of a merge an inbox holds the merge's own writes.
            if !tx.active || self.merging.borrow().is_some() || self.as_it_is.get() {
                return Ok(());
            }
            tx.checked || tx.merge_checked || tx.inbox_checked
        };
        if !fresh {
            self.refresh()?;
            self.tx_mut().inbox_checked = true;
        }
        for table in self.portable_tables()?.iter() {
            self.take_inbox(table)?;
        }
        Ok(())
    }

    fn take_inbox(&self, table: &Table) -> Result<()> {
        let known = self.tx.borrow().taken.iter().find(|(id, _)| *id == table.info.id).map_or(i64::MIN, |(_, n)| *n);
        let mut last = known;
        let taken = self.take_rows(table, &mut last);
        if last == known {
            return taken;
        }
        // Should the rows stay there although they are in the journal: they must not be taken twice.
        {
            let mut tx = self.tx_mut();
            tx.taken.retain(|(id, _)| *id != table.info.id);
            tx.taken.push((table.info.id, last));
        }
        taken?;
        self.clear_inbox(table)
    }

    fn clear_inbox(&self, table: &Table) -> Result<()> {
        self.of_table(Sql::InboxClear, table)?.execute()?;
        let mut tx = self.tx_mut();
        tx.taken.retain(|(id, _)| *id != table.info.id);
        Ok(())
    }

    fn take_rows(&self, table: &Table, last: &mut i64) -> Result<()> {
        let mut rows = self.of_table(Sql::InboxRows, table)?;
        rows.bind_int(1, *last)?;
        let mut overwritten = Overwritten::new();
        while rows.step()? {
            let row = Taken::read(&rows, table.info.keys.len())?;
            *last = row.n;
            self.take_row(table, row, &mut overwritten);
            if self.journal.borrow().is_full() && self.merging.borrow().is_none() {
                self.flush_journal()?;
            }
        }
        Ok(())
    }

    /// One row becomes the touches that native capture would have made of the same write.
    fn take_row(&self, table: &Table, row: Taken, overwritten: &mut Overwritten) {
        let columns = table.column_ids.len() as u64;
        let mut journal = self.journal.borrow_mut();
        let mut touch = |key: &[u8], (kind, width)| {
            journal.touch(table.info.id, kind, width, |out| out.extend_from_slice(key));
        };
        match row.tag.op {
            TagOp::Insert | TagOp::Move => {
                let replace = overwritten.remove(&row.key);
                touch(&row.key, insertion(row.tag.op == TagOp::Move, replace, columns));
            }
            TagOp::Delete => {
                overwritten.remove(&row.key);
                touch(&row.key, (TouchKind::Delete, 1));
            }
            TagOp::Update => {
                for (word, mask) in words(table, &row) {
                    touch(&row.key, (TouchKind::Update { word, mask }, u64::from(mask.count_ones())));
                }
            }
            TagOp::Overwrite => {
                overwritten.insert(row.key);
            }
            TagOp::Rewrite => touch(&row.key, insertion(false, true, columns)),
        }
    }

    /// A merge is about to write a row: what stands in the table's inbox until now is of others.
    pub fn before_own_write(&self, table: &Table) -> Result<()> {
        if table.portable {
            self.take_inbox(table)?;
        }
        Ok(())
    }

    /// A merge has written a row: what its triggers put into the inbox about that row is the merge's own and goes away; what
    /// a user's triggers did to other rows is a local change. Returns how many writes of the row there were.
    pub fn after_own_write(&self, table: &Table, own: &[u8]) -> Result<u32> {
        // RAISE(ROLLBACK) may have ended the transaction.
        if !table.portable || !self.tx.borrow().active {
            return Ok(0);
        }
        let (mut touches, mut any, mut overwritten) = (0, false, Overwritten::new());
        {
            let mut rows = self.of_table(Sql::InboxRows, table)?;
            rows.bind_int(1, i64::MIN)?;
            while rows.step()? {
                any = true;
                let row = Taken::read(&rows, table.info.keys.len())?;
                if row.key != own {
                    self.take_row(table, row, &mut overwritten);
                } else if row.tag.op != TagOp::Overwrite {
                    touches += 1;
                }
            }
        }
        if any {
            self.clear_inbox(table)?;
        }
        Ok(touches)
    }

    /// Whether any inbox holds something.
    fn inbox_waits(&self) -> Result<bool> {
        for table in self.portable_tables()?.iter() {
            if self.of_table(Sql::InboxAny, table)?.step()? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Gives a version to what programs without the extension have written. Outside an explicit transaction that is one of
    /// its own; a statement that is being read goes on in the snapshot of its commit.
    ///
    /// # Errors
    /// What SQLite says, most often that another connection holds the write lock, or has committed since this transaction
    /// began to read. Nothing has changed then.
    pub fn drain(&self) -> Result<bool> {
        if self.merging.borrow().is_some() || self.as_it_is.get() || !self.has_schema()? {
            return Ok(false);
        }
        self.refresh()?;
        if self.portable_tables()?.is_empty() || !self.inbox_waits()? {
            return Ok(false);
        }
        let drain = || {
            // The lock first, without having read: then SQLite's own patience with locks is in force.
            self.fixed("UPDATE main.crsql_master SET value = value WHERE 0")?.execute()?;
            self.keeping_rowid(|| self.join_transaction())?;
            self.flush()
        };
        let mut bracket = None;
        if !self.tx.borrow().active {
            self.unless_it_ended_all(|| self.begin().map(|begun| bracket = Some(begun)))?;
        }
        match bracket {
            Some(bracket) => self.settle(bracket, drain())?,
            // Inside a statement that writes there can be no savepoint: its transaction is the drain's.
            None => drain()?,
        }
        Ok(true)
    }

    /// A reader wants the newest state, and is content with less where it must not write.
    pub fn drain_if_possible(&self) -> Result<()> {
        match self.drain() {
            Err(e) if matches!(e.primary(), codes::BUSY | codes::LOCKED | codes::READONLY) => Ok(()),
            other => other.map(|_| ()),
        }
    }

    /// A reader of `crsql_changes`: values without the versions that belong to them are shown only where this connection
    /// could never give them any.
    pub fn drain_to_read(&self) -> Result<()> {
        match self.drain() {
            Err(e) if e.primary() == codes::READONLY => Ok(()),
            other => other.map(|_| ()),
        }
    }

    /// A reader whose answer others will claim: it must not see a value before its version (I6).
    pub fn drain_to_serve(&self) -> Result<()> {
        self.drain().map(|_| ()).map_err(|e| {
            let why = "writes of programs without the extension wait for their versions, which cannot be given now";
            Error::new(e.code, format!("starling: {why}: {}", e.message))
        })
    }
}

/// An inbox row's mask names columns by id; the journal's names them by position, a word at a time.
fn words(table: &Table, row: &Taken) -> Vec<(u16, u64)> {
    let mut words: Vec<(u16, u64)> = Vec::with_capacity(2);
    for bit in (0..=MAX_MASK_BIT).filter(|b| row.mask >> b & 1 == 1) {
        let Some(position) = table.info.position(row.tag.first.saturating_add(bit)) else { continue };
        let (word, bit) = (position as u32 / MASK_BITS, position as u32 % MASK_BITS);
        match words.last_mut() {
            Some((w, mask)) if u32::from(*w) == word => *mask |= 1 << bit,
            _ => words.push((word as u16, 1 << bit)),
        }
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_round_trip() {
        for op in [TagOp::Insert, TagOp::Delete, TagOp::Update, TagOp::Move, TagOp::Overwrite] {
            let tag = InboxTag { op, first: 70_000 };
            assert_eq!(InboxTag::decode(tag.encode()), Some(tag));
        }
        assert_eq!(InboxTag::decode(7), None);
        assert_eq!(InboxTag::decode(-8), None);
    }
}
