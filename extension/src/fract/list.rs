//! What makes a table a list: its order column and list columns, checked against the schema.

use super::CALL;
use crate::schema::{self, TableInfo};
use crate::sqlgen::{Ident, Literal};
use crate::sqlite::{Db, Error, Result};

/// A table with its order column and list columns, by their names as the schema writes them.
pub struct List {
    /// The table.
    pub table: String,
    /// Its key columns, in key order.
    pub keys: Vec<String>,
    /// All its columns, in their order.
    pub columns: Vec<ListColumn>,
    /// The column that holds the order keys.
    pub order: String,
    /// Rows that agree in these are one list.
    pub lists: Vec<String>,
    /// An index that is not ours finds a row's neighbours already.
    pub indexed: bool,
}

/// A column as the view shows it.
pub struct ListColumn {
    /// Name.
    pub name: String,
    /// Stored, and not generated.
    pub stored: bool,
    /// What an insert through the view puts instead of NULL: the default of a NOT NULL column.
    pub default: Option<String>,
}

impl List {
    /// Checks the columns named against the table.
    ///
    /// # Errors
    /// Which column cannot be used, and why.
    pub fn new(db: Db, info: &TableInfo, order: &str, lists: &[String]) -> Result<Self> {
        let table = info.name.clone();
        let refuse = |why: String| Err(Error::msg(format!("{CALL}: table {}: {why}", Ident(&table))));
        let stored = || info.keys.iter().chain(&info.columns);
        let real = |name: &str| stored().find(|c| c.name.eq_ignore_ascii_case(name)).map(|c| c.name.clone());
        let Some(order) = real(order) else { return refuse(format!("it has no stored column {}", Ident(order))) };
        if info.keys.is_empty() {
            return refuse("it has no primary key".to_string());
        }
        if info.keys.iter().any(|k| k.name == order) {
            return refuse(format!("{} is part of the primary key, and order keys change", Ident(&order)));
        }
        let mut real_lists: Vec<String> = Vec::with_capacity(lists.len());
        for name in lists {
            let Some(real) = real(name) else { return refuse(format!("it has no stored column {}", Ident(name))) };
            if real == order || real_lists.contains(&real) {
                return refuse(format!("{} is named twice", Ident(&real)));
            }
            real_lists.push(real);
        }
        if let Some(why) = cannot_hold_keys(db, &table, &order)? {
            return refuse(format!("{} {why}", Ident(&order)));
        }
        let columns = read_columns(db, &table)?;
        for key in &info.keys {
            let after = after(&key.name);
            if columns.iter().any(|c| c.name.eq_ignore_ascii_case(&after)) {
                return refuse(format!(
                    "its column {} has the name that the view gives to a row's neighbour",
                    Ident(&after)
                ));
            }
        }
        let keys = info.keys.iter().map(|k| k.name.clone()).collect();
        let indexed = is_indexed(db, &table, &real_lists, &order)?;
        Ok(Self { table, keys, columns, order, lists: real_lists, indexed })
    }
}

/// The view's column that names the row before, for a key column.
pub fn after(key: &str) -> String {
    format!("after_{key}")
}

/// Whether some index, other than the one made here, begins with the list columns and then the order column.
fn is_indexed(db: Db, table: &str, lists: &[String], order: &str) -> Result<bool> {
    let ours = super::sql::index(table);
    let mut indexes = db.prepare_transient(&format!("PRAGMA main.index_list({})", Literal(table)))?;
    while indexes.step()? {
        let (name, partial) = (schema::text(indexes.column_text(1)), indexes.column_int(4) != 0);
        if partial || name.eq_ignore_ascii_case(&ours) {
            continue;
        }
        let mut info = db.prepare_transient(&format!("PRAGMA main.index_info({})", Literal(&name)))?;
        let mut columns = Vec::new();
        while info.step()? {
            columns.push(schema::text(info.column_text(2)));
        }
        let leads = columns.get(..lists.len()).is_some_and(|first| lists.iter().all(|l| first.contains(l)));
        if leads && columns.get(lists.len()).is_some_and(|c| c == order) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Why a column cannot hold order keys so that they sort in byte order.
fn cannot_hold_keys(db: Db, table: &str, column: &str) -> Result<Option<String>> {
    let (t, c) = (Ident(table), Ident(column));
    let probe = format!("SELECT {c} = 'A' FROM (SELECT {c} FROM main.{t} WHERE 0 UNION ALL SELECT 'a')");
    let mut folds = db.prepare_transient(&probe)?;
    if folds.step()? && folds.column_int(0) == 1 {
        return Ok(Some("has a collation that ignores case; order keys need BINARY".to_string()));
    }
    if !schema::is_strict(db, table)? {
        return Ok(None);
    }
    let mut info = db.prepare_transient(&format!("PRAGMA main.table_xinfo({})", Literal(table)))?;
    while info.step()? {
        let declared = schema::text(info.column_text(2));
        if info.column_text(1) == column.as_bytes() && !["TEXT", "ANY"].iter().any(|t| declared.eq_ignore_ascii_case(t))
        {
            return Ok(Some(format!("is a STRICT column of type {declared}; order keys need TEXT")));
        }
    }
    Ok(None)
}

fn read_columns(db: Db, table: &str) -> Result<Vec<ListColumn>> {
    let mut info = db.prepare_transient(&format!("PRAGMA main.table_xinfo({})", Literal(table)))?;
    let mut out = Vec::new();
    while info.step()? {
        let default = (info.column_int(3) != 0 && !info.column_is_null(4)).then(|| schema::text(info.column_text(4)));
        out.push(ListColumn {
            name: schema::text(info.column_text(1)),
            stored: info.column_int(6) == 0,
            // A default that is no expression of its own (DEFAULT word) cannot be repeated elsewhere.
            default: default.filter(|d| db.prepare_transient(&format!("SELECT ({d})")).is_ok()),
        });
    }
    Ok(out)
}
