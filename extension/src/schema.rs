//! What a table looks like, read through SQLite (never by searching its SQL text), and whether it can be a CRR.

use crate::row_sql::ROWID;
use crate::sql_text::{default_expression, has_keyword, may_vary};
use crate::sqlgen::{Ident, Literal, MAX_TABLE_ID};
use crate::sqlite::{codes, Db, Error, Result, Stmt, ValueRef};
use starling_crdt::key::MAX_KEY_COLUMNS;

/// SQLite's column affinities.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Affinity {
    /// TEXT
    Text,
    /// NUMERIC
    Numeric,
    /// INTEGER
    Integer,
    /// REAL
    Real,
    /// BLOB, or a STRICT table's ANY: values stay as they are given
    None,
}

impl Affinity {
    /// As the documentation calls it, in lower case.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Numeric => "numeric",
            Self::Integer => "integer",
            Self::Real => "real",
            Self::None => "blob",
        }
    }

    /// By the rules of SQLite's documentation ("Datatypes", 3.1), in their order.
    pub fn of_declared_type(declared: &str, strict: bool) -> Self {
        let t = declared.to_ascii_uppercase();
        if strict && t == "ANY" {
            Self::None
        } else if t.contains("INT") {
            Self::Integer
        } else if ["CHAR", "CLOB", "TEXT"].iter().any(|w| t.contains(w)) {
            Self::Text
        } else if t.is_empty() || t.contains("BLOB") {
            Self::None
        } else if ["REAL", "FLOA", "DOUB"].iter().any(|w| t.contains(w)) {
            Self::Real
        } else {
            Self::Numeric
        }
    }
}

/// A column of a table.
#[derive(Clone, Debug)]
pub struct Column {
    /// Stable id within the table; 0 until the catalogue has given one.
    pub id: u32,
    /// Name.
    pub name: String,
    /// Affinity.
    pub affinity: Affinity,
    /// NOT NULL without a default: a row cannot be shown before this cell is there.
    pub required: bool,
    /// NOT NULL, with a default or without.
    pub not_null: bool,
    /// The text of its DEFAULT clause: not an expression, see [`Column::default`].
    pub default_sql: Option<String>,
    /// Schema generation in which it came; a base entry of an older generation does not speak for it.
    pub born: u32,
}

impl Column {
    /// The expression that gives the value of a cell that nobody gave one, in brackets.
    pub fn default(&self) -> String {
        self.default_sql.as_deref().map_or_else(|| "(NULL)".to_string(), default_expression)
    }

    /// Whether a cell that nobody gave a value may get another one elsewhere.
    pub fn defaults_vary(&self) -> bool {
        self.default_sql.as_deref().is_some_and(may_vary)
    }

    /// Whether 1 and 1.0 can both be stored.
    pub fn untyped(&self) -> bool {
        self.affinity == Affinity::None
    }
}

/// A table as it stands in the schema, and as the catalogue knows it.
#[derive(Clone, Debug)]
pub struct TableInfo {
    /// Catalogue id; 0 until it has one.
    pub id: u32,
    /// Name.
    pub name: String,
    /// Schema generation: raised whenever the set of columns changes.
    pub generation: u32,
    /// Key columns, in key order.
    pub keys: Vec<Column>,
    /// The other columns that are stored: in schema order until the catalogue has given ids, then in the order of these.
    pub columns: Vec<Column>,
    /// Names of these columns in schema order.
    pub schema_order: Vec<String>,
    /// The key is one INTEGER PRIMARY KEY: row clocks are kept by rowid.
    pub int_key: bool,
    /// BEFORE triggers tell which row is overwritten: the key's own conflict clause is REPLACE, which shows to nobody else, or
    /// the way of capture is [`crate::portable::Capture::Exact`].
    pub tells_overwritten: bool,
    /// A UNIQUE constraint besides the key, which a rebuild may have brought, may have a conflict clause of its own.
    pub settles_conflicts: bool,
}

impl TableInfo {
    /// Position of a column by its stable id.
    pub fn position(&self, id: u32) -> Option<usize> {
        self.columns.iter().position(|c| c.id == id)
    }

    /// The columns' ids, in their order.
    pub fn column_ids(&self) -> Vec<u32> {
        self.columns.iter().map(|c| c.id).collect()
    }

    /// Refuses a NULL where there may be none. SQLite does so too, unless the schema says ON CONFLICT IGNORE or REPLACE there: then it
    /// would write nothing, or the default, and say nothing.
    ///
    /// # Errors
    /// As SQLite words it.
    pub fn refuse_null<'v>(&self, cells: impl IntoIterator<Item = (usize, ValueRef<'v>)>) -> Result<()> {
        let null = |(i, value): (usize, ValueRef<'_>)| {
            self.columns.get(i).filter(|column| column.not_null && matches!(value, ValueRef::Null))
        };
        let refused = cells.into_iter().find_map(null);
        refused.map_or(Ok(()), |column| {
            let what = format!("NOT NULL constraint failed: {}.{}", self.name, column.name);
            Err(Error::new(codes::CONSTRAINT_NOTNULL, what))
        })
    }

    /// As the log names it.
    pub fn log_ref(&self) -> starling_crdt::log_chunk::TableRef {
        starling_crdt::log_chunk::TableRef {
            id: self.id,
            generation: self.generation,
            columns: self.columns.len() as u32,
        }
    }
}

/// How a table of `main` is really called: SQLite's names ignore the case of ASCII letters.
pub fn real_name(db: Db, name: &str) -> Result<Option<String>> {
    let mut find =
        db.prepare_transient("SELECT name FROM main.sqlite_master WHERE type = 'table' AND name = ?1 COLLATE NOCASE")?;
    find.bind_text(1, name)?;
    Ok(if find.step()? { Some(text(find.column_text(0))) } else { None })
}

struct RawColumn {
    column: Column,
    pk: i64,
    declared: String,
}

/// Reads a table's shape. `None` where there is no such table in `main`.
///
/// # Errors
/// What SQLite says.
pub fn read(db: Db, name: &str) -> Result<Option<TableInfo>> {
    let mut list =
        db.prepare("SELECT name, sql FROM main.sqlite_master WHERE type = 'table' AND name = ?1 COLLATE NOCASE")?;
    list.bind_text(1, name)?;
    if !list.step()? {
        return Ok(None);
    }
    let real_name = text(list.column_text(0));
    let sql = text(list.column_text(1));
    drop(list);
    // The pragma that tells it looks at every table there is, so it is asked only where the word occurs.
    let strict = has_keyword(&sql, "STRICT") && is_strict(db, &real_name)?;
    let raw = read_columns(db, &real_name, strict)?;
    let mut keys: Vec<&RawColumn> = raw.iter().filter(|c| c.pk > 0).collect();
    keys.sort_by_key(|c| c.pk);
    let rowid_key = keys.len() == 1 && keys[0].declared.eq_ignore_ascii_case("INTEGER") && has_rowid(db, &real_name)?;
    Ok(Some(TableInfo {
        id: 0,
        generation: 1,
        int_key: rowid_key && key_index(db, &real_name)?.is_none(),
        // SQLite tells a conflict clause nowhere but in the schema's text.
        tells_overwritten: has_keyword(&sql, "REPLACE"),
        settles_conflicts: has_keyword(&sql, "CONFLICT") && other_unique(db, &real_name)?.is_some(),
        keys: keys.iter().map(|c| c.column.clone()).collect(),
        columns: raw
            .iter()
            .filter(|c| c.pk == 0)
            .map(|c| Column { required: c.column.not_null && defaults_to_null(&c.column), ..c.column.clone() })
            .collect(),
        schema_order: raw.iter().filter(|c| c.pk == 0).map(|c| c.column.name.clone()).collect(),
        name: real_name,
    }))
}

/// Text of a schema name; SQLite's own names are UTF-8, anything else is shown with replacement characters.
pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn read_columns(db: Db, name: &str, strict: bool) -> Result<Vec<RawColumn>> {
    let mut stmt = db.prepare(&format!("PRAGMA main.table_xinfo({})", Literal(name)))?;
    let mut out = Vec::new();
    while stmt.step()? {
        // hidden: 0 ordinary; 2 and 3 generated, never stored by us; 1 a virtual table's.
        if stmt.column_int(6) != 0 {
            continue;
        }
        let declared = text(stmt.column_text(2));
        let affinity = Affinity::of_declared_type(&declared, strict);
        out.push(RawColumn {
            column: Column {
                id: 0,
                name: text(stmt.column_text(1)),
                affinity,
                required: false,
                not_null: stmt.column_int(3) != 0,
                default_sql: (!stmt.column_is_null(4)).then(|| text(stmt.column_text(4))),
                born: 1,
            },
            pk: stmt.column_int(5),
            declared,
        });
    }
    Ok(out)
}

/// Whether a table is STRICT.
pub fn is_strict(db: Db, name: &str) -> Result<bool> {
    // Only libraries that know STRICT have the column; older ones cannot hold such a table.
    listed(db, name, |row| row.column_count() >= 6 && row.column_int(5) != 0)
}

/// Whether a table is a virtual one's own (FTS5's content, say), which is written as that one likes. Old libraries do not tell.
fn is_shadow(db: Db, name: &str) -> Result<bool> {
    // Their names have one.
    Ok(name.contains('_') && listed(db, name, |row| row.column_text(2) == b"shadow")?)
}

/// What `PRAGMA table_list` says of a table; no where the library does not know the pragma.
fn listed(db: Db, name: &str, says: impl Fn(&Stmt) -> bool) -> Result<bool> {
    let mut stmt = db.prepare(&format!("PRAGMA main.table_list({})", Literal(name)))?;
    while stmt.step()? {
        if stmt.column_text(0) == b"main" {
            return Ok(says(&stmt));
        }
    }
    Ok(false)
}

/// Whether a table has rowids beside its key, and no other column goes by their name.
pub fn has_spare_rowid(db: Db, table: &TableInfo) -> Result<bool> {
    let named = |c: &Column| c.name.eq_ignore_ascii_case(ROWID);
    Ok(!table.int_key && !table.keys.iter().chain(&table.columns).any(named) && has_rowid(db, &table.name)?)
}

fn has_rowid(db: Db, name: &str) -> Result<bool> {
    is_no_error_of_sql(db.prepare(&format!("SELECT {ROWID} FROM main.{} LIMIT 0", Ident(name))))
}

/// Whether it went well, or failed for what it is: no such column, a table that is refused. What failed for the want of memory, of a
/// permission or of time says nothing about the table.
fn is_no_error_of_sql<T>(result: Result<T>) -> Result<bool> {
    match result {
        Ok(_) => Ok(true),
        Err(e) if e.primary() == codes::ERROR => Ok(false),
        Err(e) => Err(e),
    }
}

/// Whether a table can be a CRR.
///
/// # Errors
/// It cannot be told.
pub fn fits(db: Db, table: &TableInfo) -> Result<bool> {
    is_no_error_of_sql(check(db, table))
}

/// The index that holds the primary key, where it is not the rowid.
fn key_index(db: Db, name: &str) -> Result<Option<String>> {
    let mut stmt = db.prepare(&format!("PRAGMA main.index_list({})", Literal(name)))?;
    while stmt.step()? {
        if stmt.column_text(3) == b"pk" {
            return Ok(Some(text(stmt.column_text(1))));
        }
    }
    Ok(None)
}

/// Refuses a table that cannot be a CRR, with the reason and the remedy.
///
/// # Errors
/// The refusal.
pub fn check(db: Db, table: &TableInfo) -> Result<()> {
    let name = &table.name;
    let refuse = |why: String| Err(Error::msg(format!("crsql_as_crr: table {} cannot be a CRR: {why}", Ident(name))));
    let lower = name.to_ascii_lowercase();
    if lower.starts_with("crsql_") || lower.starts_with("sqlite_") {
        return refuse("names that begin with crsql_ or sqlite_ are those of internal tables; rename it".into());
    }
    let (root, sql) = definition(db, name)?;
    if root == 0 {
        return refuse("it is a virtual table; only ordinary tables can be replicated".into());
    }
    if is_shadow(db, name)? {
        let remedy = "replicate an ordinary table, and fill the virtual one from it by triggers";
        return refuse(format!("it belongs to a virtual table, which alone writes it; {remedy}"));
    }
    if let Some(why) = key_refusal(db, table)? {
        return refuse(why);
    }
    if table.keys.len() > MAX_KEY_COLUMNS {
        return refuse(format!("its primary key has more than {MAX_KEY_COLUMNS} columns"));
    }
    let refusals = [autoincrement(&sql), other_unique(db, name)?, foreign_keys(db, name)?];
    if let Some(why) = refusals.into_iter().flatten().next() {
        return refuse(why);
    }
    if table.columns.iter().any(|c| c.name == "-1") {
        return refuse(
            "it has a column that is called \"-1\", which stands for the row itself in crsql_changes; rename it".into(),
        );
    }
    if name.len() > 1024 || table.id > MAX_TABLE_ID {
        return refuse("its name is longer than 1024 bytes".into());
    }
    Ok(())
}

/// Why a table's primary key does not tell rows apart as other replicas would; `None` if it does.
pub fn key_refusal(db: Db, table: &TableInfo) -> Result<Option<String>> {
    let name = &table.name;
    if table.keys.is_empty() {
        return Ok(Some("it has no primary key; give it one (CREATE TABLE … (id … NOT NULL PRIMARY KEY, …))".into()));
    }
    if !table.int_key && has_rowid(db, name)? {
        let raw = read_columns(db, name, is_strict(db, name)?)?;
        if let Some(key) = raw.iter().find(|c| c.pk > 0 && !c.column.not_null) {
            return Ok(Some(format!(
                "its primary key column {} may be NULL; declare it NOT NULL (rows with a NULL key have no identity)",
                Ident(&key.column.name)
            )));
        }
    }
    collation(db, name)
}

/// Whether a table of `main` is a virtual one.
pub fn is_virtual(db: Db, name: &str) -> Result<bool> {
    Ok(definition(db, name)?.0 == 0)
}

/// Where a table of `main` begins in the file (0 where a virtual one does not), and its SQL. Each look at the schema's table is one
/// at all of it.
fn definition(db: Db, name: &str) -> Result<(i64, String)> {
    let mut stmt = db.prepare("SELECT rootpage, sql FROM main.sqlite_master WHERE type = 'table' AND name = ?1")?;
    stmt.bind_text(1, name)?;
    Ok(if stmt.step()? { (stmt.column_int(0), text(stmt.column_text(1))) } else { (-1, String::new()) })
}

fn autoincrement(sql: &str) -> Option<String> {
    // No pragma tells AUTOINCREMENT, so this one word is looked for in the text, outside comments and quotes.
    has_keyword(sql, "AUTOINCREMENT").then(|| {
        "it uses AUTOINCREMENT, which cannot be kept across replicas; use INTEGER PRIMARY KEY, or uuid7() keys"
            .to_string()
    })
}

fn other_unique(db: Db, name: &str) -> Result<Option<String>> {
    let mut stmt = db.prepare(&format!("PRAGMA main.index_list({})", Literal(name)))?;
    while stmt.step()? {
        if stmt.column_int(2) != 0 && stmt.column_text(3) != b"pk" {
            // One that CREATE INDEX made can be dropped; the other kind is part of the table.
            let own = if stmt.column_text(3) == b"u" { "Leave the UNIQUE out" } else { "Drop it" };
            return Ok(Some(format!(
                "it has the UNIQUE index {} besides its primary key; two replicas could each insert a row and never merge. \
                 {own}, or make those columns the key",
                Ident(&text(stmt.column_text(1)))
            )));
        }
    }
    Ok(None)
}

/// Whether a cell that nobody gave a value is NULL: without a default, or by one that says so.
fn defaults_to_null(column: &Column) -> bool {
    let default = column.default_sql.as_deref().map(|sql| sql.trim_matches(['(', ')', ' ', '\t', '\n', '\r']));
    default.is_none_or(|sql| sql.eq_ignore_ascii_case("null"))
}

fn foreign_keys(db: Db, name: &str) -> Result<Option<String>> {
    let mut enforced = db.prepare("PRAGMA foreign_keys")?;
    let on = enforced.step()? && enforced.column_int(0) != 0;
    let mut stmt = db.prepare(&format!("PRAGMA main.foreign_key_list({})", Literal(name)))?;
    Ok((stmt.step()?).then(|| {
        let state = if on { "checked" } else { "checked as soon as PRAGMA foreign_keys is on" };
        format!(
            "it has a foreign key ({state}): rows arrive in any order and would violate it. Remove the REFERENCES clause"
        )
    }))
}

fn collation(db: Db, name: &str) -> Result<Option<String>> {
    let Some(index) = key_index(db, name)? else { return Ok(None) };
    let mut stmt = db.prepare(&format!("PRAGMA main.index_xinfo({})", Literal(&index)))?;
    while stmt.step()? {
        if stmt.column_int(5) == 0 {
            continue;
        }
        // Statements that name no collation compare by the column's own, whatever the index has.
        let own = db.column_collation(name, &text(stmt.column_text(2)));
        let other =
            [Some(text(stmt.column_text(4))), own].into_iter().flatten().find(|c| !c.eq_ignore_ascii_case("BINARY"));
        if let Some(coll) = other {
            return Ok(Some(format!(
                "its key column {} has the collation {coll}: keys that it calls equal would be different keys on other \
                 replicas. Use the BINARY collation for key columns",
                Ident(&text(stmt.column_text(2)))
            )));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn affinities_follow_sqlites_rules() {
        for (declared, affinity) in [
            ("INT", Affinity::Integer),
            ("CHARINT", Affinity::Integer),
            ("VARCHAR(3)", Affinity::Text),
            ("", Affinity::None),
            ("FLOATING POINT", Affinity::Integer),
            ("DOUBLE", Affinity::Real),
            ("DECIMAL(3,1)", Affinity::Numeric),
            ("STRING", Affinity::Numeric),
        ] {
            assert_eq!(Affinity::of_declared_type(declared, false), affinity, "{declared}");
        }
        assert_eq!(Affinity::of_declared_type("ANY", true), Affinity::None);
        assert_eq!(Affinity::of_declared_type("ANY", false), Affinity::Numeric);
    }
}
