//! The journal's virtual table: what the triggers tell, and through it SQLite's word on begin, commit and savepoints.
//!
//! `update` and `filter` are the hot paths: one call per row that the application writes. Triggers of inserts write to the
//! table, because only so the statement's conflict policy is told. Those of updates and deletes read from it as from a
//! table-valued function, whose arguments are what they tell: a statement that reads needs no statement journal for it,
//! which SQLite opens for one that writes to a virtual table or calls a function, and which costs a copy of each page.

use crate::no_rows::{Empty, NoRows};
use crate::session::{Hot, LastCommit, Session, Shared};
use crate::sqlgen::{Ident, Tag, TagOp, JOURNAL, KEY_SLOTS};
use crate::sqlite::{codes, Args, Change, Conflict, Db, Error, IndexInfo, Op, Result, VTab};
use crate::tx::LastTable;
use starling_crdt::key;
use starling_crdt::local::{insert_width, TouchKind};
use starling_crdt::ValueRef;

/// The table.
pub struct JournalTable {
    session: Shared,
}

impl VTab for JournalTable {
    type Aux = Shared;
    type Cursor = NoRows<Self>;
    const WRITABLE: bool = true;
    const TRANSACTIONAL: bool = true;

    fn connect(_db: Db, aux: &Shared) -> Result<(String, Self)> {
        let slots: Vec<String> = (0..KEY_SLOTS).map(|i| format!("k{i} HIDDEN")).collect();
        // One column that is not hidden: ALTER TABLE looks at each table that a trigger writes to, and takes one whose columns
        // are all hidden for none.
        let columns = format!("CREATE TABLE x(tag HIDDEN, mask HIDDEN, {}, told)", slots.join(", "));
        Ok((columns, Self { session: aux.clone() }))
    }

    /// The arguments of the table-valued function are constraints on the first columns.
    fn best_index(&self, info: &mut IndexInfo<'_>) -> Result<()> {
        let told: Vec<(usize, usize)> = info
            .constraints()
            .filter(|(_, c)| c.usable && c.op == Op::Eq)
            .filter_map(|(i, c)| c.column.map(|column| (column, i)))
            .collect();
        let mut count = 0;
        while let Some((_, i)) = told.iter().find(|(column, _)| *column == count) {
            info.set_argv_index(*i, count);
            info.set_omit(*i, true);
            count += 1;
        }
        info.set_estimated_cost(1.0);
        info.set_estimated_rows(1);
        Ok(())
    }

    fn open(&self) -> Result<NoRows<Self>> {
        Ok(NoRows::default())
    }

    fn update(&self, _db: Db, change: Change<'_>) -> Result<i64> {
        match change {
            Change::Insert { values, .. } => self.session.touch(&values).map(|()| 0),
            _ => Err(Error::msg(format!("{JOURNAL} is written by triggers only"))),
        }
    }

    fn begin(&self) -> Result<()> {
        let mut tx = self.session.tx.borrow_mut();
        tx.end();
        tx.active = true;
        drop(tx);
        self.session.forget_uncommitted();
        self.session.doubt_refused();
        self.session.journal.borrow_mut().end();
        Ok(())
    }

    fn sync(&self) -> Result<()> {
        self.session.flush()?;
        let mut tx = self.session.tx.borrow_mut();
        if tx.file_version.is_none() {
            tx.file_version = self.session.db.file_version();
        }
        Ok(())
    }

    fn commit(&self) -> Result<()> {
        let (tail, single, before) = {
            let tx = self.session.tx.borrow();
            (tx.tail, tx.single, tx.file_version)
        };
        // One of several statements may have changed the schema after its first write to a CRR.
        let left = |(file_version, tail)| LastCommit { file_version, tail, agreed: single };
        // By now another connection of a shared cache may have committed too, and the number would say that what we know is
        // what it has left. Ours adds one.
        let file_version =
            self.session.db.file_version().filter(|now| before.is_some_and(|v| v.wrapping_add(1) == *now));
        self.session.known_tail.set(file_version.zip(tail).map(left));
        self.session.plain_committed(file_version);
        self.session.settle_catalog();
        self.session.settle_refused();
        self.session.end_transaction();
        Ok(())
    }

    fn rollback(&self) -> Result<()> {
        if self.session.db.is_writing("main") == Some(true) {
            // sqlite3_close says so before it looks for open statements, and gives up where it finds one: then the
            // transaction goes on, and this is the last word that we hear of it.
            let flushed = self.session.flush();
            self.session.finalize_statements();
            self.session.end_transaction();
            return flushed;
        }
        self.session.end_transaction();
        self.session.known_tail.set(None);
        self.session.forget_plain();
        self.session.doubt_refused_since();
        // Another connection may have gone on from what was here: read everything anew.
        self.session.meta.replace(None);
        self.session.forget_catalog();
        Ok(())
    }

    fn savepoint(&self, n: i32) -> Result<()> {
        self.session.flush_before_savepoint()?;
        self.session.tx.borrow_mut().savepoint(n);
        self.session.journal.borrow_mut().savepoint(n);
        Ok(())
    }

    fn release(&self, n: i32) -> Result<()> {
        self.session.tx.borrow_mut().release(n);
        self.session.journal.borrow_mut().release(n);
        Ok(())
    }

    fn rollback_to(&self, n: i32) -> Result<()> {
        self.session.known_tail.set(None);
        self.session.forget_plain();
        self.session.doubt_catalog();
        let sure = self.session.journal.borrow().is_sure_of(n);
        self.session.journal.borrow_mut().rollback_to(n);
        let looks = self.session.tx.borrow().aside_looks;
        self.session.tx.borrow_mut().rollback_to(n);
        if self.session.tx.borrow().aside_looks == looks {
            // All that is known was known at the savepoint: a row that is refused, and nothing but its write undone, is no reason
            // to read everything anew.
            self.session.doubt_refused();
        } else {
            self.session.doubt_refused_since();
        }
        self.session.meta.replace(None);
        if !sure {
            // SQLite has undone other statements than the one that failed, or not this one: better a COMMIT that fails.
            self.session.poison();
        }
        Ok(())
    }
}

impl Empty for JournalTable {
    /// A scan tells a touch.
    fn asked(&self, args: &Args<'_>) -> Result<()> {
        // Without arguments somebody looks at the table out of curiosity.
        if args.len() > KEY {
            self.session.touched(args)?;
        }
        Ok(())
    }
}

impl Session {
    /// SQLite opens a savepoint after it has told of it. So here a flush needs no copies of the pages that it changes; within an
    /// INSERT it would, and once SQLite has put more than 64 KB of such copies into a file, it puts those of each later INSERT there
    /// too, to the transaction's end.
    fn flush_before_savepoint(&self) -> Result<()> {
        if !self.journal.borrow().is_nearly_full() || self.merging.borrow().is_some() {
            return Ok(());
        }
        let sure = self.journal.borrow().open_savepoints();
        let flushed = self.flush();
        // If one of its own statements needed a savepoint, SQLite has opened those below it too.
        self.journal.borrow_mut().doubt_savepoints(sure);
        flushed
    }
}

/// Rows in the way of inserts that have not happened yet: as many as inserts can be under way within each other's triggers.
/// Those of inserts that were ignored are forgotten in time.
const OVERWRITTEN_MAX: usize = 256;

const TAG: usize = 0;
const MASK: usize = 1;
const KEY: usize = 2;

impl Session {
    /// A touch told by a read of the table, or by a call of the function of the same name, as the triggers of earlier
    /// builds do. Where it fails, SQLite may not undo what the statement has done so far: one that only reads needs no
    /// statement journal, which is what makes it cheap. So the transaction is spoilt as a whole.
    pub fn touched(&self, values: &Args<'_>) -> Result<()> {
        self.join_transaction().map_err(|e| self.as_a_full_disk(e))?;
        if !self.tx.borrow().active {
            // Joining ended with itself: no statement that writes is under way, so this is not a trigger's call.
            return Err(Error::msg(format!("{JOURNAL} is called by triggers only")));
        }
        self.touch(values).inspect_err(|_| self.poison())
    }

    /// An error at which SQLite undoes the transaction of a statement that has no statement journal: nobody is told of the COMMIT of
    /// a transaction that could not be joined, so it cannot be spoilt.
    fn as_a_full_disk(&self, e: Error) -> Error {
        let undoes = [codes::NOMEM, codes::IOERR, codes::INTERRUPT, codes::FULL].contains(&e.primary());
        if undoes || self.db.is_autocommit() {
            return e;
        }
        let what = "what this statement writes cannot be captured, and SQLite can only undo it with its transaction";
        Error::new(codes::FULL, format!("starling: {what} ({e})"))
    }

    /// One touch, as a trigger tells it.
    #[inline]
    fn touch(&self, values: &Args<'_>) -> Result<()> {
        let number = values.int(TAG);
        if number == 0 {
            // A merge joins the transaction: SQLite tells us of its end from now on.
            return Ok(());
        }
        let tag = Tag::decode(number).ok_or_else(|| Error::msg("starling: a trigger passed a tag that is none"))?;
        if !self.tx.borrow().checked || self.db.attaches_more_than(self.tx.borrow().attached) {
            self.check_transaction()?;
        }
        if self.tx.borrow().file != tag.file || !self.tx.borrow().twins.is_empty() {
            self.check_file(tag.file)?;
        }
        if !self.tx.borrow().windows.is_empty() {
            self.told_in_window(&tag, values);
        }
        if self.merging.borrow().is_some() && self.is_merging(&tag, values)? {
            return Ok(());
        }
        if self.unwatched.get() {
            return Ok(());
        }
        let mask = values.int(MASK).cast_unsigned();
        let LastTable { columns, keys, told, .. } = self.table_of_touch(tag.table)?;
        let (kind, width) = match tag.op {
            TagOp::Insert | TagOp::Move => {
                let replace =
                    (!told && values.on_conflict() == Conflict::Replace) || self.was_overwritten(&tag, values);
                insertion(tag.op == TagOp::Move, replace, columns)
            }
            TagOp::Delete => (TouchKind::Delete, 1),
            TagOp::Update if mask == 0 => return Ok(()),
            TagOp::Update => (TouchKind::Update { word: tag.word, mask }, u64::from(mask.count_ones())),
            TagOp::Rewrite => insertion(false, true, columns),
            TagOp::Overwrite => {
                let mut bytes = Vec::new();
                put_key(values, tag.packed, &mut bytes);
                let overwritten = &mut self.tx.borrow_mut().overwritten;
                if overwritten.len() >= OVERWRITTEN_MAX {
                    overwritten.remove(0);
                }
                overwritten.push((tag.table, bytes));
                return Ok(());
            }
        };
        if (0..if tag.packed { 0 } else { keys }).any(|i| matches!(values.get(KEY + i), ValueRef::Null)) {
            // A row that came to be without us, if there is one at all.
            return if kind == TouchKind::Delete {
                Ok(())
            } else {
                Err(Error::new(codes::CONSTRAINT_NOTNULL, NULL_KEY))
            };
        }
        let mut odd = false;
        self.journal.borrow_mut().touch(tag.table, kind, width, |out| odd = put_key(values, tag.packed, out));
        if odd {
            self.check_real_key(tag.table, values, tag.packed)?;
        }
        // In the middle of a merge its own record is open: the flush waits for its end.
        if self.journal.borrow().is_full() && self.merging.borrow().is_none() {
            self.flush()?;
        }
        Ok(())
    }

    /// Whether a BEFORE trigger told that this key's row stands in the way of the insert that now has happened.
    fn was_overwritten(&self, tag: &Tag, values: &Args<'_>) -> bool {
        if self.tx.borrow().overwritten.is_empty() {
            return false;
        }
        let mut bytes = Vec::new();
        put_key(values, tag.packed, &mut bytes);
        let overwritten = &mut self.tx.borrow_mut().overwritten;
        let found = overwritten.iter().position(|(table, key)| *table == tag.table && *key == bytes);
        found.map(|at| overwritten.remove(at)).is_some()
    }

    /// A key column that holds 1.0 or −0.0: fine where the column's type makes every number a REAL, refused where 1 and
    /// 1.0 can both be stored.
    fn check_real_key(&self, table: u32, values: &Args<'_>, packed: bool) -> Result<()> {
        let Some(table) = self.table(table)? else { return Ok(()) };
        let unpacked = if packed { key::unpack(values.get(KEY).bytes()).unwrap_or_default() } else { Vec::new() };
        for (i, column) in table.info.keys.iter().enumerate() {
            let value = if packed { unpacked.get(i).copied() } else { Some(values.get(KEY + i)) };
            let odd = matches!(value, Some(v @ ValueRef::Real(_)) if !key::is_canonical(v));
            if odd && column.affinity != crate::schema::Affinity::Real {
                return Err(Error::new(codes::MISMATCH, ODD_KEY));
            }
        }
        Ok(())
    }

    /// Once per transaction: is the catalogue still what the schema says, and which file is this?
    fn check_transaction(&self) -> Result<()> {
        let version = self.db.file_version();
        let unchanged = |last: &LastCommit| version == Some(last.file_version);
        // Where nobody has committed since we did, the schema is what it was; unless this transaction has changed it before
        // its first write to a CRR, which one of a single statement cannot have.
        let single = self.db.is_autocommit();
        if !(single && self.known_tail.get().filter(unchanged).is_some_and(|last| last.agreed)) {
            self.refresh()?;
        }
        let known = self.known_tail.take().filter(unchanged);
        let file = self.meta()?.file;
        let attached = self.db.attached()?;
        let count = attached.len();
        let twins = self.twins(file, attached)?;
        let mut tx = self.tx.borrow_mut();
        tx.checked = true;
        tx.file_version = version;
        tx.single = single;
        tx.file = file;
        tx.attached = count;
        tx.twins = twins;
        if tx.tail.is_none() && tx.local.is_none() && tx.foreign.is_none() {
            tx.tail = known.map(|last| last.tail);
        }
        Ok(())
    }

    /// Of the attached files those whose triggers carry the same file id as those of `main`: copies of it, or it itself.
    fn twins(&self, file: u32, attached: Vec<String>) -> Result<Vec<String>> {
        let mut twins = Vec::new();
        for name in attached {
            let id = format!("SELECT value FROM {}.crsql_master WHERE key = 'file_id'", Ident(&name));
            let ask = || -> Result<bool> {
                let mut stmt = self.db.prepare_transient(&id)?;
                Ok(stmt.step()? && stmt.column_int(0) == i64::from(file))
            };
            match ask() {
                Ok(true) => twins.push(name),
                Ok(false) => {}
                // Such an error may have ended the transaction.
                Err(e) if matches!(e.primary(), codes::NOMEM | codes::FULL | codes::IOERR) => return Err(e),
                // A file without that table is none of ours.
                Err(_) => {}
            }
        }
        Ok(twins)
    }

    /// Whether a trigger with this file id can be one of `main`.
    #[cold]
    fn check_file(&self, file: u32) -> Result<()> {
        if self.tx.borrow().file != file {
            // The file beneath the connection may be another one now: it was deserialized, or restored by a backup.
            self.meta.replace(None);
            self.forget_catalog();
            self.check_transaction()?;
        }
        let tx = self.tx.borrow();
        if tx.file != file {
            return Err(Error::msg(if tx.attached == 0 {
                "starling: this table's triggers are of another file: the tables crsql_… of this one were dropped, or it was restored \
                 from a text. SELECT crsql_as_crr(…) of the table makes them anew and announces its rows once more"
            } else {
                "starling: this table is a CRR of an attached database file; open that file as main to write to it"
            }));
        }
        match tx.twins.iter().find(|name| self.db.is_writing(name) != Some(false)) {
            None => Ok(()),
            Some(name) => Err(Error::msg(format!(
                "starling: the attached database {} is a copy of this one, so a change to a CRR in either cannot be told \
                 from one in the other; open that file as main to write to it",
                Ident(name)
            ))),
        }
    }

    fn table_of_touch(&self, table: u32) -> Result<LastTable> {
        if let Some(last) = self.tx.borrow().last_table.filter(|last| last.id == table) {
            return Ok(last);
        }
        let known = self.table_of_touches(table)?.ok_or_else(|| {
            Error::msg("starling: a trigger names a table that is not a CRR any more; call crsql_as_crr again")
        })?;
        let (columns, keys) = (known.column_ids.len() as u64, known.info.keys.len());
        let last = LastTable { id: table, columns, keys, told: known.info.tells_overwritten };
        self.tx.borrow_mut().last_table = Some(last);
        Ok(last)
    }

    /// Whether the touch is that of the row which a merge is writing.
    fn is_merging(&self, tag: &Tag, values: &Args<'_>) -> Result<bool> {
        let mut merging = self.merging.borrow_mut();
        let Some(row) = merging.as_mut().filter(|row| row.table == tag.table) else { return Ok(false) };
        row.other.clear();
        put_key(values, tag.packed, &mut row.other);
        let same = row.other == row.key;
        // A BEFORE trigger tells of an insert that may not happen.
        row.touches += u32::from(same && tag.op != TagOp::Overwrite);
        Ok(same)
    }

    /// The window of a table learns which rows were written in it: by now they may be flushed, or a merge's own.
    #[cold]
    fn told_in_window(&self, tag: &Tag, values: &Args<'_>) {
        let mut key = Vec::new();
        put_key(values, tag.packed, &mut key);
        self.note_in_window(tag.table, &key);
    }

    fn end_transaction(&self) {
        self.journal.borrow_mut().end();
        self.tx.borrow_mut().end();
        self.merging.replace(None);
        self.way_out.set(None);
    }

    /// Makes this connection's journal part of the open transaction, so that its end is told.
    pub fn join_transaction(&self) -> Result<()> {
        if self.tx.borrow().active {
            return Ok(());
        }
        self.hot(Hot::Join, JOIN)?.execute()
    }
}

const JOIN: &str = "INSERT INTO starling_extension_is_not_loaded__load_starling_so__format_1(tag) VALUES(0)";

const NULL_KEY: &str =
    "starling: a key column of a CRR is NULL, which no other node could tell from another row: make the column NOT \
                        NULL again";

const ODD_KEY: &str = "starling: a REAL key that equals an integer (such as 1.0 or -0.0) would be the same key as the \
                       integer here and another one elsewhere; store the integer, or give the key column a type";

/// The touch of an insert and how many seqs it takes.
pub fn insertion(moved: bool, replace: bool, columns: u64) -> (TouchKind, u64) {
    (TouchKind::Insert { replace, moved }, insert_width(moved, columns))
}

/// Writes the key in internal form; returns whether a column is a REAL that equals an integer. −0.0 is written as 0.0,
/// which is what a REAL column stores.
fn put_key(values: &Args<'_>, packed: bool, out: &mut Vec<u8>) -> bool {
    let mut odd = false;
    let mut put = |value: ValueRef<'_>| {
        odd |= !key::is_canonical(value);
        key::without_negative_zero(value).encode(out);
    };
    if packed {
        // crsql_pack_columns made it: what it cannot have made is taken as no columns.
        key::unpack(values.get(KEY).bytes()).unwrap_or_default().into_iter().for_each(&mut put);
        return odd;
    }
    for i in KEY..values.len().min(KEY + KEY_SLOTS) {
        match values.get(i) {
            // Slots that the table's key does not need.
            ValueRef::Null => break,
            value => put(value),
        }
    }
    odd
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_join_statement_names_the_journal() {
        assert_eq!(super::JOIN, format!("INSERT INTO {}(tag) VALUES(0)", super::JOURNAL));
    }
}
