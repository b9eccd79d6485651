//! The statements by which a merge writes a row.

use crate::schema::TableInfo;
use crate::sqlgen::{key_match, list, Ident};

/// How a merge writes cells of a row.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum RowWrite {
    /// [`update_row`]
    Update,
    /// [`update_row_at`]
    UpdateAt,
    /// [`insert_row`]
    Insert,
}

impl RowWrite {
    /// How many there are.
    pub const ALL: usize = 3;
}

/// `INSERT` of keys and the given columns; nothing happens where the key is taken.
pub fn insert_row(table: &TableInfo, columns: &[usize]) -> String {
    let keys = list(table.keys.iter().map(|k| Ident(&k.name)), ", ");
    format!("INSERT {}{} ON CONFLICT({keys}) DO NOTHING", or(table), into_row(table, columns))
}

fn into_row(table: &TableInfo, columns: &[usize]) -> String {
    let keys = list(table.keys.iter().map(|k| Ident(&k.name)), ", ");
    let names = columns.iter().filter_map(|i| table.columns.get(*i)).map(|c| format!(", {}", Ident(&c.name)));
    let slots = list((1..=table.keys.len() + columns.len()).map(|i| format!("?{i}")), ", ");
    format!("INTO main.{}({keys}{}) VALUES({slots})", Ident(&table.name), list(names, ""))
}

/// `UPDATE` of the given columns, by key (which comes first in the parameters).
pub fn update_row(table: &TableInfo, columns: &[usize]) -> String {
    let columns = columns.iter().filter_map(|i| table.columns.get(*i));
    let sets = (table.keys.len() + 1..).zip(columns).map(|(slot, c)| format!("{} = ?{slot}", Ident(&c.name)));
    let sets = list(sets, ", ");
    format!("UPDATE {}main.{} SET {sets} WHERE {}", or(table), Ident(&table.name), key_match(table, 1))
}

/// As [`update_row`], of a row whose place is known: its rowid is the last parameter. It has its key, or nothing happens.
pub fn update_row_at(table: &TableInfo, columns: &[usize]) -> String {
    format!("{} AND {ROWID} = ?{}", update_row(table, columns), table.keys.len() + columns.len() + 1)
}

/// What is refused is to be known: another clause of the schema's would leave it out in silence, or another row. (It would hold for what
/// the application's triggers write, too, so it stands only where it must.)
fn or(table: &TableInfo) -> &'static str {
    if table.settles_conflicts {
        "OR ABORT "
    } else {
        ""
    }
}

/// What a rowid is called in a table that has no column of that name.
pub const ROWID: &str = "rowid";

/// `DELETE` by key.
pub fn delete_row(table: &TableInfo) -> String {
    format!("DELETE FROM main.{} WHERE {}", Ident(&table.name), key_match(table, 1))
}
