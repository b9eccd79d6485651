//! The state of one connection: cached statements, who we are, the catalogue, the journal of the open transaction.
//!
//! Shared by every function and virtual table of the connection through an `Rc`; there is no global. Statements are
//! finalized when SQLite disconnects the keeper, which it does before it looks for open statements at close.

use crate::catalog::{Catalog, Table};
use crate::cell_statements::CellStatements;
use crate::changes::LastKey;
use crate::journal::Journal;
use crate::keeper::KEEPER;
use crate::log::Tail;
use crate::mend::Refused;
use crate::meta::Meta;
use crate::plain::PlainTables;
use crate::row_sql::RowWrite;
use crate::sqlite::{codes, Db, Error, Result, Stmt, ValueRef};
use crate::statements::QuickHasher;
pub use crate::statements::{Hot, Sql};
use crate::touched::TouchedTables;
use crate::tx::TxState;
use crate::waiting::WaitingList;
use crate::young::{Fresh, Young};
use starling_crdt::ids::FORSAKEN;
use starling_crdt::log_chunk::ChunkWriter;
use starling_crdt::row_clock::CellClock;
use std::cell::{Cell, RefCell};
use std::collections::{BTreeSet, HashMap};
use std::hash::BuildHasherDefault;
use std::ops::{Deref, DerefMut};
use std::rc::Rc;

/// What the extension's functions and tables share.
pub type Shared = Rc<Session>;

/// Table, what is done, column positions.
type ColumnsKey = (u32, RowWrite, Vec<usize>);

/// One connection.
pub struct Session {
    /// The connection.
    pub db: Db,
    statements: RefCell<HashMap<(Sql, u32), Stmt, BuildHasherDefault<QuickHasher>>>,
    hot: [Cell<Option<Stmt>>; Hot::ALL],
    /// Statements over a varying set of columns.
    column_statements: RefCell<HashMap<ColumnsKey, Stmt, BuildHasherDefault<QuickHasher>>>,
    cell_statements: RefCell<CellStatements>,
    pinned: Cell<bool>,
    /// The extension is being loaded: no statement is kept, and no table of ours is used for keeping any.
    pub(crate) loading: Cell<bool>,
    /// A statement whose interruption ends the transaction.
    pub(crate) way_out: Cell<Option<Stmt>>,
    pub(crate) meta: RefCell<Option<Rc<Meta>>>,
    pub(crate) catalog: RefCell<Catalog>,
    /// Touches of the open transaction.
    pub journal: RefCell<Journal>,
    /// The rest of the open transaction's state.
    pub tx: RefCell<TxState>,
    /// SQLite's schema version with which catalogue and triggers agree, where that is not noted yet.
    pub agreed: Cell<Option<i64>>,
    /// The application has set the sync bit by hand: what it writes is not captured.
    pub unwatched: Cell<bool>,
    /// The row that a merge is writing: its touches are the merge's own.
    pub merging: RefCell<Option<MergingRow>>,
    /// What `merging` uses again from row to row.
    pub(crate) merging_buffer: Cell<MergingRow>,
    /// Nothing that this connection finds in the file gets a version: perhaps the file is a copy, whose versions are those of another
    /// one until it has a name of its own.
    pub(crate) as_it_is: Cell<bool>,
    pub(crate) random: Cell<u64>,
    /// Some of what is known may never be committed.
    pub(crate) reads_uncommitted: Cell<bool>,
    /// What our last commit left behind.
    pub(crate) known_tail: Cell<Option<LastCommit>>,
    /// The row clocks that live in log records.
    pub(crate) young: RefCell<Young>,
    /// Tables of which some row has had a clock. One may be left that has none any more: it is looked for in vain.
    pub(crate) clocked: RefCell<BTreeSet<u32>>,
    /// Which tables are plain.
    pub(crate) plain: RefCell<PlainTables>,
    /// What a flush uses again.
    pub(crate) spare_waiting: Cell<WaitingList>,
    /// As `spare_waiting`.
    pub(crate) spare_tables: Cell<TouchedTables>,
    /// As `spare_waiting`.
    pub(crate) spare_fresh: Cell<Fresh>,
    /// What a log writer uses again.
    pub(crate) spare_chunk: Cell<ChunkWriter>,
    /// A record's blob, as `spare_waiting`.
    pub(crate) spare_record: Cell<Vec<u8>>,
    /// As `spare_waiting`.
    pub(crate) spare_columns: Cell<Vec<u32>>,
    /// A row's key, as `spare_waiting`.
    pub(crate) spare_key: Cell<Vec<u8>>,
    /// As `spare_waiting`, of a row clock.
    spare_cells: Cell<Vec<CellClock>>,
    /// Rows of which constraints have refused something.
    pub(crate) refused: RefCell<Refused>,
    /// The key of the cell that was merged last.
    pub(crate) last_key: Cell<Option<LastKey>>,
}

/// What `begin` began.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Bracket {
    /// A transaction: none was open.
    Transaction,
    /// A savepoint in the open one.
    Savepoint,
}

/// What a commit of this connection left behind.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LastCommit {
    /// The file's version then: while it stays that, nobody has committed since.
    pub file_version: u32,
    /// The newest record.
    pub tail: Tail,
    /// The catalogue agreed with the schema.
    pub agreed: bool,
}

/// The row that a merge is writing.
#[derive(Clone, Debug, Default)]
pub struct MergingRow {
    /// Its table.
    pub table: u32,
    /// Its key, internal form.
    pub key: Vec<u8>,
    /// Touches seen on it: more than the merge's own statement makes means that a user's trigger wrote it too.
    pub touches: u32,
    /// The key of a touch, to be compared.
    pub other: Vec<u8>,
}

/// A cached statement on loan; it is reset and given back when dropped.
pub struct Cached<'s> {
    session: &'s Session,
    key: CacheKey,
    stmt: Option<Stmt>,
}

enum CacheKey {
    Plain(Sql, u32),
    Hot(Hot),
    Columns(u32, RowWrite, Vec<usize>),
    /// Table, what is done, position of the one column.
    Cell(u32, RowWrite, usize),
}

/// Column statements kept per connection; above it the cache starts anew.
const MAX_COLUMN_STATEMENTS: usize = 128;

impl Session {
    /// A session for a connection.
    pub fn new(db: Db) -> Self {
        Self {
            db,
            statements: RefCell::default(),
            hot: Default::default(),
            column_statements: RefCell::default(),
            cell_statements: RefCell::default(),
            pinned: Cell::new(false),
            loading: Cell::new(false),
            way_out: Cell::new(None),
            meta: RefCell::new(None),
            catalog: RefCell::default(),
            journal: RefCell::default(),
            tx: RefCell::default(),
            agreed: Cell::new(None),
            unwatched: Cell::new(false),
            merging: RefCell::new(None),
            merging_buffer: Cell::default(),
            as_it_is: Cell::new(false),
            random: Cell::new(0),
            reads_uncommitted: Cell::new(false),
            known_tail: Cell::new(None),
            young: RefCell::default(),
            clocked: RefCell::default(),
            plain: RefCell::default(),
            spare_waiting: Cell::default(),
            spare_tables: Cell::default(),
            spare_fresh: Cell::default(),
            spare_chunk: Cell::default(),
            spare_record: Cell::default(),
            spare_columns: Cell::default(),
            spare_key: Cell::default(),
            spare_cells: Cell::default(),
            refused: RefCell::default(),
            last_key: Cell::default(),
        }
    }

    /// The transaction's state, to be changed.
    pub fn tx_mut(&self) -> std::cell::RefMut<'_, TxState> {
        let mut tx = self.tx.borrow_mut();
        tx.before_change();
        tx
    }

    /// Something failed half-way: the transaction can only be rolled back. Where the error has ended it, there is none.
    pub fn poison(&self) {
        let mut tx = self.tx_mut();
        tx.poisoned |= tx.active;
    }

    /// A cached statement with a fixed text.
    pub fn fixed(&self, sql: &'static str) -> Result<Cached<'_>> {
        self.cached(Sql::Fixed(sql), 0, || sql.to_string())
    }

    /// As [`Session::fixed`], for a statement that is run all the time.
    pub fn hot(&self, which: Hot, sql: &'static str) -> Result<Cached<'_>> {
        let stmt = match self.hot[which as usize].take() {
            Some(stmt) => stmt,
            None => self.prepare(sql)?,
        };
        Ok(Cached { session: self, key: CacheKey::Hot(which), stmt: Some(stmt) })
    }

    /// A cached statement of a table's row clocks: its id is enough, the table may be gone.
    pub fn of_rows(&self, kind: Sql, table: u32) -> Result<Cached<'_>> {
        self.cached(kind, table, || crate::clock_store::sql(kind, table)).map_err(|e| {
            // As SQLite would have it, a table is missing of which the user knows nothing.
            if e.primary() == codes::ERROR && e.message.starts_with("no such table") {
                return corrupt(
                    "the log or the catalogue",
                    format!("it speaks of a table {table} without row clocks ({e})"),
                );
            }
            e
        })
    }

    /// A cached statement of a table.
    pub fn of_table(&self, kind: Sql, table: &Table) -> Result<Cached<'_>> {
        self.cached(kind, table.info.id, || table.sql(kind))
    }

    pub(crate) fn cached(&self, kind: Sql, table: u32, text: impl FnOnce() -> String) -> Result<Cached<'_>> {
        let found = self.statements.borrow_mut().remove(&(kind, table));
        let stmt = match found {
            Some(stmt) => stmt,
            None => self.prepare(&text())?,
        };
        Ok(Cached { session: self, key: CacheKey::Plain(kind, table), stmt: Some(stmt) })
    }

    /// `INSERT` or `UPDATE` of some cells of a row, each with its column's position.
    pub fn of_cells(&self, table: &Table, write: RowWrite, cells: &[(usize, ValueRef<'_>)]) -> Result<Cached<'_>> {
        if let [(position, _)] = cells {
            return self.of_cell(table, write, *position);
        }
        self.of_columns(table, write, cells.iter().map(|c| c.0).collect())
    }

    fn of_cell(&self, table: &Table, write: RowWrite, position: usize) -> Result<Cached<'_>> {
        let found = self.cell_statements.borrow_mut().take(table.info.id, write, position);
        let stmt = match found {
            Some(stmt) => stmt,
            None => self.prepare(&write_row(table, write, &[position]))?,
        };
        Ok(Cached { session: self, key: CacheKey::Cell(table.info.id, write, position), stmt: Some(stmt) })
    }

    fn of_columns(&self, table: &Table, write: RowWrite, columns: Vec<usize>) -> Result<Cached<'_>> {
        let key = (table.info.id, write, columns);
        let found = self.column_statements.borrow_mut().remove(&key);
        let stmt = match found {
            Some(stmt) => stmt,
            None => self.prepare(&write_row(table, write, &key.2))?,
        };
        Ok(Cached { session: self, key: CacheKey::Columns(key.0, key.1, key.2), stmt: Some(stmt) })
    }

    fn prepare(&self, sql: &str) -> Result<Stmt> {
        // What SQLite has connected once keeps a pointer to the schema of `main`, which sqlite3_deserialize frees.
        if !self.loading.get() && !self.pinned.replace(true) {
            // The keeper must be connected before anything is cached: its disconnect is what finalizes us.
            if let Err(e) = self.db.prepare_transient(&format!("SELECT 1 FROM {KEEPER}")) {
                self.pinned.set(false);
                return Err(e);
            }
        }
        self.db.prepare(sql)
    }

    /// Forgets every cached statement.
    pub fn finalize_statements(&self) {
        self.pinned.set(false);
        self.way_out.set(None);
        self.statements.borrow_mut().clear();
        self.hot.iter().for_each(|stmt| stmt.set(None));
        self.column_statements.borrow_mut().clear();
        self.cell_statements.borrow_mut().clear();
    }

    /// Forgets what depends on the schema.
    pub fn forget_schema(&self) {
        self.statements.borrow_mut().retain(|(_, table), _| *table == 0);
        self.column_statements.borrow_mut().clear();
        self.cell_statements.borrow_mut().clear();
    }

    /// An empty list for the cells of a row clock.
    pub(crate) fn spare_cells(&self) -> Vec<CellClock> {
        let mut cells = self.spare_cells.take();
        cells.clear();
        cells
    }

    /// A row clock is not needed any more: the room for its cells is.
    pub(crate) fn keep_cells(&self, cells: Vec<CellClock>) {
        self.spare_cells.set(cells);
    }

    /// One integer out of a fixed statement without parameters.
    pub fn int(&self, sql: &'static str) -> Result<i64> {
        let mut stmt = self.fixed(sql)?;
        Ok(if stmt.step()? { stmt.column_int(0) } else { 0 })
    }

    /// A random 48-bit token, never 0 nor [`FORSAKEN`]. xorshift64* (Marsaglia 2003; Vigna 2016), seeded by the system.
    pub fn token(&self) -> u64 {
        let mut x = self.random.get();
        if x == 0 {
            let mut seed = [0u8; 8];
            // Without entropy tokens are merely less random; never a reason to refuse a write.
            let _ = getrandom::fill(&mut seed);
            x = u64::from_le_bytes(seed) | 1;
        }
        x ^= x >> 12;
        x ^= x << 25;
        x ^= x >> 27;
        self.random.set(x);
        (x.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 16).clamp(1, FORSAKEN - 1)
    }

    /// Runs `f` while a statement reads, so that outside a transaction too all that `f` asks is answered from one snapshot.
    pub fn in_one_snapshot<T>(&self, f: impl FnOnce() -> Result<T>) -> Result<T> {
        let mut reading = self.db.prepare_transient("PRAGMA main.schema_version")?;
        reading.step()?;
        self.refresh()?;
        f()
    }

    /// Runs `f` and leaves `last_insert_rowid()` as it was.
    pub fn keeping_rowid<T>(&self, f: impl FnOnce() -> T) -> T {
        let rowid = self.db.last_insert_rowid();
        let result = f();
        self.db.set_last_insert_rowid(rowid);
        result
    }

    /// Runs `f` so that all of it or nothing stays, and nobody sees it in `last_insert_rowid()`.
    pub fn atomically<T>(&self, f: impl FnOnce() -> Result<T>) -> Result<T> {
        self.keeping_rowid(|| {
            let bracket = self.begin()?;
            self.settle(bracket, f())
        })
    }

    /// Begins what `settle` ends.
    pub(crate) fn begin(&self) -> Result<Bracket> {
        let bracket = if self.db.is_autocommit() { Bracket::Transaction } else { Bracket::Savepoint };
        self.keep_way_out();
        self.db.exec("SAVEPOINT crsql").map(|()| bracket).inspect_err(|_| self.way_out.set(None))
    }

    /// Tries what can be done without: an error is nobody's matter, unless it has ended the open transaction, as a full disk does.
    pub(crate) fn unless_it_ended_all(&self, attempt: impl FnOnce() -> Result<()>) -> Result<()> {
        let open = !self.db.is_autocommit();
        match attempt() {
            Err(e) if open && self.db.is_autocommit() => Err(e),
            _ => Ok(()),
        }
    }

    /// It stays, or is undone.
    pub(crate) fn settle<T>(&self, bracket: Bracket, result: Result<T>) -> Result<T> {
        // A commit that fails leaves no transaction open, a RELEASE that does, one that is neither open nor closed.
        let (keep, undo) = match bracket {
            Bracket::Transaction => ("COMMIT", "ROLLBACK"),
            Bracket::Savepoint => ("RELEASE crsql", "ROLLBACK TO crsql; RELEASE crsql"),
        };
        let settled = result.and_then(|value| self.db.exec(keep).map(|()| value)).inspect_err(|_| self.undo(undo));
        self.forget_way_out();
        settled
    }

    /// After an interrupt only what was compiled before can end the transaction, and only if no change of the schema, such as
    /// the undoing of one, has come in between.
    fn keep_way_out(&self) {
        self.way_out.set(self.db.prepare_transient("BEGIN IMMEDIATE").ok());
    }

    /// Where no transaction is open, none is needed.
    fn forget_way_out(&self) {
        if self.db.is_autocommit() {
            self.way_out.set(None);
        }
    }

    /// Undoes with this SQL what failed. After an interrupt that is still in force SQLite runs none: then the whole transaction
    /// goes, as it does where SQLite itself is interrupted in a write.
    pub(crate) fn undo(&self, sql: &str) {
        // Where the error ended the whole transaction there is no savepoint left, and nothing to undo.
        if self.db.is_autocommit() {
            return self.way_out.set(None);
        }
        if self.db.exec(sql).is_ok() {
            // It may have undone a change of the schema, which SQLite reads anew with the next statement: should that be
            // interrupted, then only what was compiled before can end the transaction.
            self.keep_way_out();
            self.forget_way_out();
        } else if !self.db.abandon_interrupted(self.way_out.take()) {
            self.poison();
        }
    }
}

fn write_row(table: &Table, write: RowWrite, columns: &[usize]) -> String {
    match write {
        RowWrite::Update => crate::row_sql::update_row(&table.info, columns),
        RowWrite::UpdateAt => crate::row_sql::update_row_at(&table.info, columns),
        RowWrite::Insert => crate::row_sql::insert_row(&table.info, columns),
    }
}

impl Deref for Cached<'_> {
    type Target = Stmt;
    fn deref(&self) -> &Stmt {
        match &self.stmt {
            Some(stmt) => stmt,
            None => unreachable!("a loan holds its statement until it is dropped"),
        }
    }
}

impl DerefMut for Cached<'_> {
    fn deref_mut(&mut self) -> &mut Stmt {
        match &mut self.stmt {
            Some(stmt) => stmt,
            None => unreachable!("a loan holds its statement until it is dropped"),
        }
    }
}

impl Drop for Cached<'_> {
    fn drop(&mut self) {
        let Some(mut stmt) = self.stmt.take() else { return };
        stmt.reset();
        if !self.session.pinned.get() {
            return;
        }
        match &mut self.key {
            CacheKey::Plain(kind, table) => {
                self.session.statements.borrow_mut().insert((*kind, *table), stmt);
            }
            CacheKey::Hot(which) => self.session.hot[*which as usize].set(Some(stmt)),
            CacheKey::Columns(table, insert, columns) => {
                let mut map = self.session.column_statements.borrow_mut();
                if map.len() >= MAX_COLUMN_STATEMENTS {
                    map.clear();
                }
                map.insert((*table, *insert, std::mem::take(columns)), stmt);
            }
            CacheKey::Cell(table, insert, position) => {
                self.session.cell_statements.borrow_mut().give(*table, *insert, *position, stmt);
            }
        }
    }
}

/// An internal table says something that cannot be.
pub fn corrupt(what: &str, why: impl std::fmt::Display) -> Error {
    Error::new(codes::CORRUPT, format!("starling: {what} is damaged: {why}. Restore from a backup or a peer"))
}
