//! The catalogue: which tables are CRRs, under which ids their tables and columns are known, and whether the schema still
//! agrees with it.

use crate::clock_store;
use crate::generations::History;
use crate::inbox;
use crate::portable::Capture;
use crate::records;
use crate::row_sql;
use crate::schema::{self, TableInfo};
use crate::session::{corrupt, Session, Sql};
use crate::sqlgen;
use crate::sqlite::{Db, Result};
use std::cell::{Cell, OnceCell};
use std::collections::BTreeMap;
use std::rc::Rc;

/// Whether a table of the catalogue is a CRR: what `crsql_table.active` holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Standing {
    /// It was let go (`crsql_as_table`) and waits for `crsql_as_crr`.
    Archived = 0,
    /// It is one.
    Active = 1,
    /// It was dropped while it was one. A table that comes back in its place goes on as one.
    Missing = 2,
}

/// A CRR as this connection knows it.
#[derive(Debug)]
pub struct Table {
    /// Its shape, with stable ids.
    pub info: TableInfo,
    /// Ids of its columns, in their order.
    pub column_ids: Vec<u32>,
    /// Its writes are captured by plain triggers, into its inbox.
    pub portable: bool,
    /// What became of its columns.
    pub history: History,
    /// Whether the application has triggers on it, and the version of the temporary schema that this was looked up in.
    user_triggers: Cell<Option<(i64, bool)>>,
    /// Whether its rows have rowids that are not its key.
    spare_rowid: OnceCell<bool>,
    /// Whether its key is the one that the catalogue knows, and can be replicated.
    takes_merges: OnceCell<bool>,
    /// Whether its key is the one that the catalogue knows.
    same_key: OnceCell<bool>,
    /// There is no such table at present: it is being made anew.
    pub gone: bool,
}

/// The CRRs of the file, read when first needed and whenever the schema has changed.
#[derive(Debug, Default)]
pub struct Catalog {
    schema_version: Option<i64>,
    /// It was read in a transaction that writes, and perhaps changed the schema: a rollback may bring that version round again for
    /// another schema.
    unsettled: bool,
    data_version: Option<i64>,
    by_id: BTreeMap<u32, Rc<Table>>,
    by_name: BTreeMap<String, u32>,
    /// The one that was asked for last by name, and that name: cells come one by one, thousands of them for one table.
    last_named: Option<(String, Rc<Table>)>,
    /// The CRRs whose writes are captured by plain triggers; `None` = not looked for yet.
    pub(crate) portable: Option<Rc<[Rc<Table>]>>,
}

impl Table {
    pub(crate) fn new(info: TableInfo, history: History) -> Self {
        Self {
            column_ids: info.column_ids(),
            portable: false,
            user_triggers: Cell::new(None),
            spare_rowid: OnceCell::new(),
            takes_merges: OnceCell::new(),
            same_key: OnceCell::new(),
            gone: false,
            history,
            info,
        }
    }

    /// Whether its rows have rowids that are not its key.
    pub fn has_spare_rowid(&self, db: Db) -> Result<bool> {
        if let Some(known) = self.spare_rowid.get() {
            return Ok(*known);
        }
        let has = schema::has_spare_rowid(db, &self.info)?;
        Ok(*self.spare_rowid.get_or_init(|| has))
    }

    /// Whether its key is the one that the catalogue knows: else what the log says is of rows that it does not have.
    pub fn has_same_key(&self, session: &Session) -> Result<bool> {
        if let Some(same) = self.same_key.get() {
            return Ok(*same);
        }
        let same = session.has_key_of(self.info.id, &self.info)?;
        Ok(*self.same_key.get_or_init(|| same))
    }

    /// Whether its key is the one that the catalogue knows, and can be replicated, and its triggers are there. A migration may have made
    /// the table anew, with another key or without triggers, and nobody have looked after it yet: what is merged now would not be told.
    pub fn takes_merges(&self, session: &Session) -> Result<bool> {
        if let Some(known) = self.takes_merges.get() {
            return Ok(*known);
        }
        let takes = self.has_same_key(session)?
            && schema::key_refusal(session.db, &self.info)?.is_none()
            && (session.window(self.info.id).is_some() || !session.own_triggers(&self.info.name)?.is_empty());
        Ok(*self.takes_merges.get_or_init(|| takes))
    }

    /// The text of a per-table statement.
    pub fn sql(&self, kind: Sql) -> String {
        match kind {
            Sql::Fixed(sql) => sql.to_string(),
            Sql::Records(find, layout) => records::sql(find, layout),
            Sql::WriteColumns(verb) => records::write_columns_sql(verb),
            Sql::SelectRow => sqlgen::select_row(&self.info),
            Sql::SelectBatch => sqlgen::select_batch(&self.info),
            Sql::RowExists => sqlgen::row_exists(&self.info),
            Sql::InsertAll => row_sql::insert_row(&self.info, &(0..self.info.columns.len()).collect::<Vec<_>>()),
            Sql::Defaults => sqlgen::select_defaults(&self.info),
            Sql::DeleteRow => row_sql::delete_row(&self.info),
            Sql::BlockAt
            | Sql::LowestBlock
            | Sql::NextBlock
            | Sql::PutBlock
            | Sql::DropBlock
            | Sql::AllBlocks
            | Sql::AnyClock => clock_store::sql(kind, self.info.id),
            Sql::InboxAny | Sql::InboxRows | Sql::InboxClear => inbox::sql(&self.info, kind),
        }
    }
}

impl Catalog {
    fn clear(&mut self) {
        self.by_id.clear();
        self.by_name.clear();
        self.last_named = None;
        self.portable = None;
    }
}

impl Session {
    /// Forgets what another connection or a schema change has made stale.
    pub fn refresh(&self) -> Result<()> {
        self.forget_uncommitted();
        self.doubt_young();
        self.note_uncommitted()?;
        let data = self.int("PRAGMA main.data_version")?;
        let schema = self.int("PRAGMA main.schema_version")?;
        let mut catalog = self.catalog.borrow_mut();
        if catalog.data_version.replace(data) != Some(data) {
            self.meta.replace(None);
        }
        if catalog.schema_version.replace(schema) != Some(schema) {
            // A backup into this connection shows here only.
            self.meta.replace(None);
            self.known_tail.set(None);
            self.forget_plain();
            self.reread_refused();
            catalog.clear();
            drop(catalog);
            self.tx.borrow_mut().last_table = None;
            self.forget_schema();
            self.settle_later()?;
        }
        Ok(())
    }

    /// Whether the catalogue is one of this version of the schema.
    pub fn knows_schema(&self, version: i64) -> bool {
        self.catalog.borrow().schema_version == Some(version)
    }

    /// The catalogue that is read now may be one of a schema that nobody has committed. Of a rollback we are told if the journal
    /// takes part in the transaction; if it cannot, the catalogue is good for once.
    fn settle_later(&self) -> Result<()> {
        if self.db.is_writing("main") != Some(true) {
            return Ok(());
        }
        let mut told = false;
        // An interrupt of a write ends the application's transaction, which must not go unsaid.
        self.unless_it_ended_all(|| {
            self.keeping_rowid(|| self.join_transaction())?;
            told = true;
            Ok(())
        })?;
        let mut catalog = self.catalog.borrow_mut();
        catalog.unsettled = told;
        if !told {
            catalog.schema_version = None;
        }
        Ok(())
    }

    /// The transaction in which the catalogue was read is committed.
    pub fn settle_catalog(&self) {
        self.catalog.borrow_mut().unsettled = false;
    }

    /// A part of the open transaction was rolled back, perhaps with the schema that the catalogue was read for, or the temporary
    /// one: their next versions may be others with the same numbers.
    pub fn doubt_catalog(&self) {
        let mut catalog = self.catalog.borrow_mut();
        catalog.by_id.values().for_each(|table| table.user_triggers.set(None));
        if catalog.unsettled {
            catalog.schema_version = None;
        }
    }

    /// Forgets the catalogue after a change of our own to it. What is read from here on belongs to a schema that is not the one
    /// noted, which a savepoint may bring back.
    pub fn forget_catalog(&self) {
        self.clocked.borrow_mut().clear();
        self.forget_plain();
        let mut catalog = self.catalog.borrow_mut();
        catalog.clear();
        (catalog.schema_version, catalog.unsettled) = (None, false);
        drop(catalog);
        self.tx.borrow_mut().last_table = None;
        self.forget_schema();
    }

    /// An active CRR by id.
    pub fn table(&self, id: u32) -> Result<Option<Rc<Table>>> {
        if let Some(table) = self.catalog.borrow().by_id.get(&id) {
            return Ok(Some(Rc::clone(table)));
        }
        match self.listed_name(id)? {
            Some(listed) => match self.bearer(id)? {
                Some(name) => self.load(&name, Some(id)),
                None => self.load(&listed, None),
            },
            None => Ok(None),
        }
    }

    /// An active CRR by name.
    pub fn table_named(&self, name: &str) -> Result<Option<Rc<Table>>> {
        if let Some((_, table)) = self.catalog.borrow().last_named.as_ref().filter(|(last, _)| last == name) {
            return Ok(Some(Rc::clone(table)));
        }
        let known = self.catalog.borrow().by_name.get(&name.to_ascii_lowercase()).copied();
        if let Some(id) = known {
            let table = self.table(id)?;
            self.catalog.borrow_mut().last_named = table.clone().map(|table| (name.to_string(), table));
            return Ok(table);
        }
        let Some(real) = schema::real_name(self.db, name)? else { return Ok(None) };
        let Some((id, _)) = self.id_of(&real)? else { return Ok(None) };
        // Archived ones are none.
        if self.listed_name(id)?.is_none() {
            return Ok(None);
        }
        self.load(&real, Some(id))
    }

    /// Reads a table. `known`: its id, where the caller has looked for it. Each look at the schema's table is one at all of it,
    /// so there are as few as can be.
    fn load(&self, name: &str, known: Option<u32>) -> Result<Option<Rc<Table>>> {
        let Some(mut info) = schema::read(self.db, name)? else { return Ok(None) };
        match known {
            Some(id) => self.fill_ids_of(id, &mut info)?,
            None => self.fill_ids(&mut info)?,
        }
        if info.columns.iter().any(|c| c.id == 0) {
            self.follow_renames(&mut info)?;
        }
        // Columns that the catalogue does not know yet were added outside; they are armed by `resume`.
        info.columns.retain(|c| c.id != 0);
        let capture = self.capture_of(info.id)?;
        let portable = capture == Capture::Portable && self.inbox_fits(&info)?;
        info.tells_overwritten |= capture == Capture::Exact;
        let history = self.history(info.id)?;
        let table = Rc::new(Table { portable, ..Table::new(info, history) });
        let mut catalog = self.catalog.borrow_mut();
        catalog.last_named = None;
        catalog.by_name.insert(table.info.name.to_ascii_lowercase(), table.info.id);
        catalog.by_id.insert(table.info.id, Rc::clone(&table));
        Ok(Some(table))
    }

    /// Columns that were renamed without a window are what they were, until `resume` writes their names down: the triggers
    /// go on to tell them by their place.
    fn follow_renames(&self, info: &mut TableInfo) -> Result<()> {
        for (id, name) in self.renamed_outside(info)?.unwrap_or_default() {
            let mut born = self.fixed("SELECT born FROM main.crsql_column WHERE table_id = ?1 AND id = ?2")?;
            born.bind_int(1, i64::from(info.id))?;
            born.bind_int(2, i64::from(id))?;
            if let (true, Some(column)) = (born.step()?, info.columns.iter_mut().find(|c| c.name == name)) {
                column.id = id;
                column.born = u32::try_from(born.column_int(0)).map_err(|e| corrupt("crsql_column", e))?;
            }
        }
        info.columns.sort_by_key(|c| if c.id == 0 { u32::MAX } else { c.id });
        Ok(())
    }

    /// Fills in the ids that the catalogue has given to a table and its columns; 0 where it has given none.
    pub fn fill_ids(&self, info: &mut TableInfo) -> Result<()> {
        let Some((id, generation)) = self.id_of(&info.name)? else { return Ok(()) };
        info.generation = generation;
        self.fill_column_ids(id, info)
    }

    /// As [`Session::fill_ids`] where the table's id is known.
    fn fill_ids_of(&self, id: u32, info: &mut TableInfo) -> Result<()> {
        {
            let mut find = self.fixed("SELECT generation FROM main.crsql_table WHERE id = ?1")?;
            find.bind_int(1, i64::from(id))?;
            if !find.step()? {
                return Ok(());
            }
            info.generation = u32::try_from(find.column_int(0)).map_err(|e| corrupt("crsql_table", e))?;
        }
        self.fill_column_ids(id, info)
    }

    fn fill_column_ids(&self, id: u32, info: &mut TableInfo) -> Result<()> {
        info.id = id;
        let mut columns = self
            .fixed("SELECT id, name, born FROM main.crsql_column WHERE table_id = ?1 AND died IS NULL ORDER BY id")?;
        columns.bind_int(1, i64::from(info.id))?;
        while columns.step()? {
            let id = u32::try_from(columns.column_int(0)).map_err(|e| corrupt("crsql_column", e))?;
            let name = columns.column_text(1);
            let born = u32::try_from(columns.column_int(2)).map_err(|e| corrupt("crsql_column", e))?;
            for column in info.keys.iter_mut().chain(&mut info.columns) {
                if column.name.as_bytes() == name {
                    column.id = id;
                    column.born = born;
                }
            }
        }
        // In the order of their ids, new ones last: seqs, masks and generations count in it.
        info.columns.sort_by_key(|c| if c.id == 0 { u32::MAX } else { c.id });
        Ok(())
    }

    /// Registers a table, or resumes the registration it had: gives ids to it and to columns that have none. Returns
    /// whether it was registered before.
    pub fn register(&self, info: &mut TableInfo) -> Result<bool> {
        self.fill_ids(info)?;
        let known = info.id != 0;
        if known {
            self.set_standing(info.id, Standing::Active)?;
        } else {
            let mut add = self.fixed("INSERT INTO main.crsql_table(name, generation, active) VALUES(?1, 1, 1)")?;
            add.bind_text(1, &info.name)?;
            add.execute()?;
            info.id = u32::try_from(self.db.last_insert_rowid()).map_err(|e| corrupt("crsql_table", e))?;
        }
        if known {
            self.evolve(info)?;
        } else {
            self.begin_plain(info.id)?;
            self.add_columns(info)?;
        }
        self.db.exec(&clock_store::create_rows_table(info.id))?;
        self.forget_catalog();
        Ok(known)
    }

    /// Whether the application has triggers on a table, which may write the row that a merge is writing.
    pub fn has_user_triggers(&self, table: &Table) -> Result<bool> {
        let temporary = self.temporary_schema()?;
        if let Some((_, known)) = table.user_triggers.get().filter(|(of, _)| *of == temporary) {
            return Ok(known);
        }
        let any = self.looks_for_user_triggers(&table.info.name)?;
        table.user_triggers.set(Some((temporary, any)));
        Ok(any)
    }

    /// The version of this connection's temporary schema, looked at once per transaction.
    fn temporary_schema(&self) -> Result<i64> {
        if let Some(known) = self.tx.borrow().temporary_schema {
            return Ok(known);
        }
        let version = self.int("PRAGMA temp.schema_version")?;
        let mut tx = self.tx.borrow_mut();
        tx.temporary_schema = tx.active.then_some(version);
        Ok(version)
    }

    /// Sets whether a table is a CRR at present.
    pub fn set_standing(&self, id: u32, standing: Standing) -> Result<()> {
        let mut set = self.fixed("UPDATE main.crsql_table SET active = ?2 WHERE id = ?1")?;
        set.bind_int(1, i64::from(id))?;
        set.bind_int(2, standing as i64)?;
        set.execute()
    }
}
